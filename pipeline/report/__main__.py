"""The report stage: all evaluated runs side by side, in the terminal and as a page.

    report/index.html    tables and plots in one file, which needs no network
    report/report.md     the tables
    report/metrics.csv   every metric of every run, unrounded, with its interval
    report/runs.png      the main metrics

python -m pipeline.report
"""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import all_or_none, settle, write_text
from pipeline.core.params import UserError, entry, option, parse
from pipeline.evaluation import files
from pipeline.evaluation.files import Evaluation
from pipeline.evaluation.plots import compare
from pipeline.metrics.smoothing import worded
from pipeline.metrics.uncertainty import Estimate, best_beyond_noise
from pipeline.report.page import Bold, Section, html_page, markdown_page, terminal

# Metric, its title, and what is better.
COLUMNS = {
    "auc_same_different": ("AUC same/different", "higher"),
    "auc_same_opposite": ("AUC same/opposite", "higher"),
    "gap_same_opposite": ("cosine same - opposite", "higher"),
    "recall_at_1": ("recall@1", "higher"),
    "map_at_r": ("mAP@R", "higher"),
    "knn_macro_f1": ("kNN macro-F1", "higher"),
    "probe_macro_f1": ("linear probe macro-F1", "higher"),
    "macro_f1": ("classifier macro-F1", "higher"),
    "macro_f1_smoothed": ("classifier, smoothed", "higher"),
    "ccc": ("CCC", "higher"),
    "ccc_smoothed": ("CCC, smoothed", "higher"),
    "au_f1": ("AU F1", "higher"),
    "au_f1_smoothed": ("AU F1, smoothed", "higher"),
    "paired_recall_at_1": ("paired recall@1", "higher"),
    "pair_auc_same_different": ("pair head's AUC same/different", "higher"),
    "pair_f1": ("pair head's F1", "higher"),
    "pair_paired_recall_at_1": ("pair head's paired recall@1", "higher"),
    "steadiness": ("steadiness", "higher"),
    "steadiness_in_video": ("steadiness in video", "higher"),
    "knn_flips_per_100": ("flips/100", "lower"),
    "knn_switches_missed": ("switches missed", "lower"),
}
# What "better than a baseline" is asked of: standing apart, and steady without being deaf to change.
CLAIMS = (
    "auc_same_different", "auc_same_opposite", "steadiness", "steadiness_in_video", "knn_flips_per_100",
    "knn_switches_missed",
)  # fmt: skip
PLOTS = {
    "cosines": "Cosines of pairs", "roc": "ROC", "emotions": "Mean cosine of emotions",
    "similarity": "Similarity of frames", "projection": "Projection", "confusion": "Confusion", "f1": "F1 by class",
}  # fmt: skip


@dataclass(frozen=True)
class ReportConfig:
    """Section ``report`` of params.yaml."""

    evaluations: Path = option(Path("evaluation"), "-d", help="the folder with a folder for each evaluated run")
    output: Path = option(Path("report"), "-o", help="where the report is written")
    runs: dict = dataclasses.field(default_factory=dict)  # those of params.yaml; one that left it leaves the report


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReportConfig, argv, sections=["report"], borrow=[""], description=__doc__)
    if not config.runs:
        raise UserError("params.yaml names no runs to report on")
    settle(config.evaluations, "baselines")
    extra = sorted(path.parent for path in (config.evaluations / "baselines").glob("*/details.json"))
    runs = [files.read(folder) for folder in [*(config.evaluations / name for name in config.runs), *extra]]
    check(runs)
    runs = ordered(runs)
    title, facts = headline(runs)
    sections = [results(runs), gains(runs), against(runs), notes(runs)]
    sections = [section for section in sections if section is not None]
    with all_or_none(config.output, "report") as folder:
        write_text(folder / "metrics.csv", _csv(runs))
        figure(runs, title).savefig(folder / "runs.png")
        write_text(folder / "report.md", markdown_page(title, facts, sections))
        write_text(folder / "index.html", html_page(title, facts, sections, folder / "runs.png", _pictures(runs)))
    print(terminal(title, facts, sections) + f"\n\nwritten to {config.output}/: open index.html")


def check(runs: Sequence[Evaluation]) -> None:
    """Raises ``UserError`` where runs are of different data, features, frames or resamples, or have one name."""
    facts = (
        "dataset", "backbone", "backbone_weights", "input_size", "val_split", "val_videos",
        "compared", "neighbours", "window_stride", "smoothing", "opposites", "part",
    )  # fmt: skip
    first = runs[0]
    for run in runs[1:]:
        other = [
            f"{k} {run.about.get(k)!r} and {first.about.get(k)!r}"
            for k in facts
            if run.about.get(k) != first.about.get(k)
        ]
        scored, of_first = run.about["frames_scored"], first.about["frames_scored"]
        for what in scored.keys() & of_first.keys():  # one that predicts more is scored on more kinds of labels
            if scored[what] != of_first[what]:
                other.append(f"{what} frames scored {scored[what]:,} and {of_first[what]:,}")
        if run.groups != first.groups:
            other.append(f"{len(run.groups)} and {len(first.groups)} groups of other names")
        sizes = [len(next(iter(r.estimates.values())).resampled) for r in (run, first)]
        if sizes[0] != sizes[1]:
            other.append(f"resamples {sizes[0]} and {sizes[1]}")
        if other:
            raise UserError(f"the runs {run.name} and {first.name} cannot stand in one table: {'; '.join(other)}")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two evaluations are of a run called {twice[0]}: evaluate one of them under another name")


def ordered(runs: Sequence[Evaluation]) -> list[Evaluation]:
    """Adapters first, each part by the first column that any run has, the best first."""
    metric = next((name for name in COLUMNS if any(name in run.estimates for run in runs)), None)

    def key(run: Evaluation) -> tuple[bool, bool, float]:
        value = run.estimates[metric].value if metric in run.estimates else np.nan
        sign = -1 if metric is None or COLUMNS[metric][1] == "higher" else 1
        return run.about["baseline"], bool(np.isnan(value)), sign * value

    return sorted(runs, key=key)


def headline(runs: Sequence[Evaluation]) -> tuple[str, list[str]]:
    """What the numbers are of: data, backbone, frames, commit."""
    about = runs[0].about
    title = f"Adapters on {about['dataset']}, frozen {about['backbone']} at {about['input_size']} pixels"
    facts = []
    if about["dataset"].startswith("synthetic"):
        facts.append(
            "**The data are synthetic**, drawn faces: the numbers say that the pipeline works, nothing about people."
        )
    counts = {what: count for run in runs for what, count in run.about["frames_scored"].items()}
    scored = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    split, within = f"{about['val_split']} split", ""
    if about.get("folds"):
        split, within = f"{about['val_split']}: each frame once, by networks not trained on its group", " of its fold"
    if about.get("part") == "test":
        facts.append(
            f"Scored on {scored} frames of {about['val_videos']} **test** videos ({split}): nothing was chosen on them."
        )
    else:
        facts.append(f"Scored on {scored} frames of {about['val_videos']} validation videos ({split}).")
    if about["compared"]:
        facts[-1] += (
            f" Pairs and recall are of {about['compared']:,} evenly spaced ones; the {about['neighbours']} nearest "
            f"neighbours are among {about['knn_candidates']:,} evenly spaced training frames{within}. Pairs and "
            "neighbours of one person or video are left out."
        )
    for run in runs:
        judged = run.about.get("judged", {})
        phrases = {"frames": "compares {:,} evenly spaced frames", "pairs": "looks for the partners in {:,} pairs"}
        words = [phrases[what].format(count) for what, count in judged.items() if count]
        facts[-1] += f" {run.name} itself {' and '.join(words)}." if words else ""
    if about.get("folds"):
        facts[-1] += (
            " Predictions are pooled over the folds; what compares embeddings (AUC, cosines, recall, mAP, steadiness) "
            "is measured within each fold and averaged, a fold counting by its labelled frames."
        )
    resamples = len(next(iter(runs[0].estimates.values())).resampled)
    facts.append(
        f"In parentheses: 95 % intervals by {resamples:,} resamples of the {len(runs[0].groups)} persons or raw "
        "videos, and of the seeds where there are several. " + _smoothing_of(runs)
    )
    commits = sorted({run.about["commit"] or "not known (no git)" for run in runs})
    facts.append(f"Backbone's weights: {about['backbone_weights']}. Commit: {', '.join(commits)}.")
    return title, facts


def _smoothing_of(runs: Sequence[Evaluation]) -> str:
    smoothing = runs[0].about["smoothing"]
    is_there = any(name.endswith("_smoothed") for run in runs for name in run.estimates)
    if smoothing["kind"] != "none" and not is_there and not any("smoothed_before" in run.about for run in runs):
        return "Nothing is smoothed: no frame has another of its video near enough, as with single pictures."
    width, of_units = worded(smoothing["width"]), worded(smoothing["width_aus"])
    return f"Smoothed: {smoothing['kind']}, {width} wide, for action units {of_units}."


def results(runs: Sequence[Evaluation]) -> Section:
    """All runs and main metrics, the best in bold where it is beyond noise."""
    shown = _shown(runs, COLUMNS)
    best = {name: best_beyond_noise(*_asked(runs, name)) for name in shown}
    rows = []
    for run in runs:
        seeds = f" ({run.about['seeds']} seeds)" if run.about["seeds"] > 1 else ""
        cells = [_cell(run.estimates.get(name)) for name in shown]
        cells = [Bold(c) if best[name] == run.name else c for name, c in zip(shown, cells, strict=True)]
        rows.append([f"{'baseline: ' if run.about['baseline'] else ''}{run.name}{seeds}", *cells])
    words = "Bold: better than every other run beyond noise, each comparison paired and at 1 - 0.05 / number of others."
    return Section("Results", [words], [["run", *(COLUMNS[name][0] for name in shown)], *rows])


def gains(runs: Sequence[Evaluation]) -> Section | None:
    """Each adapter against the best baseline of each metric; None without baselines or adapters."""
    adapters, baselines = _parts(runs)
    shown = [name for name in _shown(baselines, COLUMNS) if name in _shown(adapters, COLUMNS)]
    if not shown:
        return None
    best = {name: _best(baselines, name) for name in shown}
    rows = [["best baseline", *(f"{best[name].name}: {_number(best[name].estimates[name].value)}" for name in shown)]]
    for run in adapters:
        cells = [_difference(run, best[name], name) for name in shown]
        rows.append([run.name, *cells])
    words = "Gain over the baseline that is best at that metric, paired. Bold: better beyond noise; ~: within noise."
    return Section("Gains", [words], [["run", *(COLUMNS[name][0] for name in shown)], *rows])


def against(runs: Sequence[Evaluation]) -> Section | None:
    """Each adapter against each baseline in what is claimed; None without baselines or adapters."""
    adapters, baselines = _parts(runs)
    shown = [name for name in _shown(runs, CLAIMS) if name in _shown(adapters, CLAIMS)]
    if not adapters or not baselines or not shown:
        return None
    rows = [
        [run.name, baseline.name, *(_difference(run, baseline, name) for name in shown)]
        for run in adapters
        for baseline in baselines
    ]
    words = (
        "Difference of each adapter to each baseline, paired. Bold: better beyond noise; ~: within noise. Steadiness "
        "and flips are to be read beside the switches missed: the wider the smoothing, the steadier, and the more true "
        "changes it is deaf to."
    )
    return Section(
        "Against each baseline", [words], [["run", "baseline", *(COLUMNS[n][0] for n in shown)], *rows], folded=True
    )


def notes(runs: Sequence[Evaluation]) -> Section:
    """In words: the project's criterion, what is best, and from what it cannot be told apart."""
    lines = []
    for run in runs:
        if gap := files.criterion(run.estimates):
            verdict = ("passed" if gap["passed"] else "failed") + ("" if gap["beyond_noise"] else ", within noise")
            between = "" if np.isnan(gap["low"]) else f" ({gap['low']:.3f} to {gap['high']:.3f})"
            lines.append(f"cosine(same) >= cosine(opposite), {run.name}: {verdict}; {gap['gap']:.3f}{between}.")
    for name in _shown(runs, COLUMNS):
        known = [run for run in runs if _measured(run, name)]
        best = _best(known, name)
        near = [
            run.name for run in known
            if run is not best and not (best.estimates[name] - run.estimates[name]).beyond_noise()
        ]  # fmt: skip
        if len(known) > 1:
            tail = f"within noise of it: {', '.join(near)}" if near else "beyond noise of all others, one by one"
            lines.append(f"{COLUMNS[name][0]}: {best.name} is best; {tail}.")
    return Section("In words", lines, [])


def figure(runs: Sequence[Evaluation], title: str) -> Any:
    """A panel a metric, a dot a run with its interval."""
    shown = _shown(runs, COLUMNS)
    numbers = {}
    for name in shown:
        known = [run.estimates.get(name, Estimate(np.nan, np.zeros(0))) for run in runs]
        numbers[COLUMNS[name][0]] = np.array([(e.value, *e.interval()) for e in known])
    lower = [COLUMNS[name][0] for name in shown if COLUMNS[name][1] == "lower"]
    baselines = [run.name for run in runs if run.about["baseline"]]
    return compare([run.name for run in runs], numbers, title, baselines, lower)


def _pictures(runs: Sequence[Evaluation]) -> dict[str, list[tuple[str, Path]]]:
    """The plots of each kind, by run; a kind that nobody has is left out."""
    timelines = sorted({path.stem for run in runs for path in (run.folder / "plots").glob("timeline_*.png")})
    kinds = PLOTS | {name: f"Timeline {name.removeprefix('timeline_')}" for name in timelines}
    found = {}
    for kind, title in kinds.items():
        of_runs = [(run.name, run.folder / "plots" / f"{kind}.png") for run in runs]
        found[title] = [(name, path) for name, path in of_runs if path.is_file()]
    return {title: pictures for title, pictures in found.items() if pictures}


def _parts(runs: Sequence[Evaluation]) -> tuple[list[Evaluation], list[Evaluation]]:
    return [r for r in runs if not r.about["baseline"]], [r for r in runs if r.about["baseline"]]


def _measured(run: Evaluation, name: str) -> bool:
    return name in run.estimates and not np.isnan(run.estimates[name].value)


def _shown(runs: Sequence[Evaluation], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(_measured(run, name) for run in runs)]


def _asked(runs: Sequence[Evaluation], name: str) -> tuple[dict[str, Estimate], bool]:
    return {run.name: run.estimates[name] for run in runs if _measured(run, name)}, COLUMNS[name][1] == "higher"


def _best(runs: Sequence[Evaluation], name: str) -> Evaluation:
    sign = 1 if COLUMNS[name][1] == "higher" else -1
    return max((run for run in runs if _measured(run, name)), key=lambda run: sign * run.estimates[name].value)


def _difference(run: Evaluation, other: Evaluation, name: str) -> str:
    if not (_measured(run, name) and _measured(other, name)):
        return ""
    gain = run.estimates[name] - other.estimates[name]
    if not gain.beyond_noise():
        return f"~ {_number(gain.value, '+')}"
    better = (gain.value > 0) == (COLUMNS[name][1] == "higher")
    return (Bold if better else str)(_number(gain.value, "+"))


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or np.isnan(estimate.value):
        return ""
    low, high = estimate.interval()
    return _number(estimate.value) + ("" if np.isnan(low) else f" ({_number(low)} to {_number(high)})")


def _number(value: float, sign: str = "") -> str:
    """Three digits; one from 10 on, and more next to 1, where steadiness differs."""
    digits = 1 if abs(value) >= 10 else 4 if 0.99 <= abs(value) < 1 or abs(value) < 0.01 else 3
    return f"{value:{sign}.{digits}f}"


def _csv(runs: Sequence[Evaluation]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    metrics = sorted({name for run in runs for name in run.estimates})
    writer.writerow(["run", "baseline", "seeds", *(c for m in metrics for c in (m, f"{m}_low", f"{m}_high"))])
    for run in runs:
        row = [run.name, int(run.about["baseline"]), run.about["seeds"]]
        for name in metrics:
            estimate = run.estimates.get(name)
            values = (np.nan,) * 3 if estimate is None else (estimate.value, *estimate.interval())
            row += ["" if np.isnan(value) else repr(float(value)) for value in values]
        writer.writerow(row)
    return text.getvalue()


if __name__ == "__main__":
    entry(main)
