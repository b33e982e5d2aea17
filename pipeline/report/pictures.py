"""The report's pictures: a panel a metric, and the plots of all runs by kind. No number depends on this module."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation.files import Evaluation
from pipeline.evaluation.plots import compare
from pipeline.metrics.uncertainty import Estimate
from pipeline.report.tables import shown_in

PLOTS = {
    "cosines": "Cosines of pairs", "roc": "ROC", "emotions": "Mean cosine of emotions",
    "similarity": "Similarity of frames", "projection": "Projection", "confusion": "Confusion", "f1": "F1 by class",
}  # fmt: skip


def figure(runs: Sequence[Evaluation], title: str) -> Figure:
    """A panel a metric of which one value is better than another, a dot a run with its interval."""
    shown = {name: entry for name, entry in shown_in(runs, "report").items() if entry.metric.better != "neither"}
    numbers = {}
    for name, entry in shown.items():
        known = [run.estimates.get(name, Estimate(np.nan, np.zeros(0))) for run in runs]
        numbers[entry.title] = np.array([(e.value, *e.interval()) for e in known])
    lower = [entry.title for entry in shown.values() if entry.metric.better == "lower"]
    baselines = [run.name for run in runs if run.about["baseline"]]
    return compare([run.name for run in runs], numbers, title, baselines, lower)


def pictures(runs: Sequence[Evaluation]) -> dict[str, list[tuple[str, Path]]]:
    """The plots of each kind, by run; a kind that nobody has is left out."""
    timelines = sorted({path.stem for run in runs for path in (run.folder / "plots").glob("timeline_*.png")})
    kinds = PLOTS | {name: f"Timeline {name.removeprefix('timeline_')}" for name in timelines}
    pictures = {}
    for kind, title in kinds.items():
        of_runs = [(run.name, run.folder / "plots" / f"{kind}.png") for run in runs]
        pictures[title] = [(name, path) for name, path in of_runs if path.is_file()]
    return {title: of_kind for title, of_kind in pictures.items() if of_kind}
