"""The picture of all runs beside report.md: a panel a metric. No number depends on this module."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation.files import Evaluation
from pipeline.evaluation.plots import compare
from pipeline.metrics.uncertainty import Estimate
from pipeline.report.tables import shown_in


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
