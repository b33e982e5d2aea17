"""The report's tables: all runs, each adapter against the baselines, and what they show in words."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.core.seen import some
from pipeline.evaluation import files
from pipeline.evaluation.files import Evaluation
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.metric import Entry
from pipeline.metrics.uncertainty import Estimate, best_beyond_noise
from pipeline.report.page import Bold, Cell, Column, Row, Section

MOST_COSTS = 3  # groups, and confusions, of each run
MOST_IN_SIGHT = 8  # columns, where no measure is claimed
GAP, OPPOSITE = "gap_same_opposite", "auc_same_opposite"  # what the criterion is about


def ordered(runs: Sequence[Evaluation]) -> list[Evaluation]:
    """Adapters first, each part by the first column that any run has, the best first."""
    columns = METRICS.shown("report")
    metric = next((name for name in columns if any(name in run.estimates for run in runs)), None)

    def key(run: Evaluation) -> tuple[bool, bool, float]:
        value = run.estimates[metric].value if metric in run.estimates else np.nan
        sign = 1 if metric is not None and columns[metric].metric.better == "lower" else -1
        return run.about["baseline"], bool(np.isnan(value)), sign * value

    return sorted(runs, key=key)


def results(runs: Sequence[Evaluation]) -> Section:
    """All runs and main metrics, the best in bold where it is beyond noise."""
    shown = shown_in(runs, "report")
    best = {name: _best_beyond_noise(runs, entry) for name, entry in shown.items()}
    rows = []
    for run in runs:
        seeds = f" ({run.about['seeds']} seeds)" if run.about["seeds"] > 1 else ""
        cells = [_cell(run.estimates.get(name)) for name in shown]
        cells = [Bold(c) if best[name] == run.name else c for name, c in zip(shown, cells, strict=True)]
        rows.append([f"{'baseline: ' if run.about['baseline'] else ''}{run.name}{seeds}", *cells])
    words = "Bold: better than every other run beyond noise. Each comparison is paired, at 1 - 0.05 / number of others."
    return Section("Results", [words], [["run", *(entry.title for entry in shown.values())], *rows])


def main_table(
    runs: Sequence[Evaluation], does: Mapping[str, Sequence[str]], seeds: Mapping[str, tuple[int, str, float] | None]
) -> tuple[list[Column], list[Row]]:
    """The page's table of all runs. What is claimed and the headline of most runs are in sight, all else a click away.

    ``does`` says what each run predicts, ``seeds`` which of its seeds is best, by what, and with which number.
    """
    shown = shown_in(runs, "report")
    claims, headline = METRICS.shown("claims"), METRICS.shown("headline")
    common = [name for name in shown if 2 * sum(is_measured(run, name) for run in runs) > len(runs)]
    in_sight = [name for name in shown if name in claims or (name in headline and name in common)]
    in_sight = in_sight or list(shown)[:MOST_IN_SIGHT]
    names = sorted(shown, key=lambda name: name not in in_sight)
    best = {name: _best_beyond_noise(runs, shown[name]) for name in names}
    columns = [
        Column("run", "", "text"),
        Column("predicts", "What the run predicts by itself, without neighbours.", "text"),
    ]
    if any(seeds.values()):
        columns.append(
            Column("best seed", "The seed that is best by the first measure, and its value there.", "higher")
        )
    for name in names:
        entry = shown[name]
        better = "" if entry.metric.better == "neither" else f"{entry.metric.better.capitalize()} is better."
        says = " ".join(filter(None, [entry.metric.says, better]))
        columns.append(
            Column(entry.title, says, "lower" if entry.metric.better == "lower" else "higher", name not in in_sight)
        )
    rows = []
    for run in runs:
        number = run.about["seeds"]
        cells = [Cell(run.name, run.name, f"{number} seeds" if number > 1 else "")]
        cells.append(Cell(", ".join(does[run.name]) or "-", ", ".join(does[run.name]) or None))
        if any(seeds.values()):
            seed = seeds[run.name]
            cells.append(Cell("") if seed is None else Cell(f"{seed[0]}", seed[2], rounded(seed[2])))
        cells += [_two_lines(run.estimates.get(name), best[name] == run.name) for name in names]
        words = " ".join(str(run.about.get(key, "")) for key in ("run", "model", "loss", "sampler", "pooling"))
        rows.append(Row(run.name, run.about["baseline"], does[run.name], words, cells))
    return columns, rows


def _two_lines(estimate: Estimate | None, bold: bool) -> Cell:
    if estimate is None or np.isnan(estimate.value):
        return Cell("")
    low, high = estimate.interval()
    below = "" if np.isnan(low) else f"{rounded(low)} to {rounded(high)}"
    return Cell(rounded(estimate.value), float(estimate.value), below, bold)


def over_folds(runs: Sequence[Evaluation]) -> Section | None:
    """Mean and deviation over folds that are scored one by one; None where there are no folds."""
    shown = {
        name: entry for name, entry in METRICS.shown("report").items()
        if any(run.over_folds.get(name, {}).get("mean") is not None for run in runs)
    }  # fmt: skip
    if not shown:
        return None
    rows = []
    for run in runs:
        of = [run.over_folds.get(name, {}) for name in shown]
        cells = ["" if v.get("mean") is None else f"{rounded(v['mean'])} ± {rounded(v['deviation'])}" for v in of]
        rows.append([f"{'baseline: ' if run.about['baseline'] else ''}{run.name}", *cells])
    words = (
        "Mean ± standard deviation over the folds. Each fold is scored by itself, by the mean of its seeds. In the "
        "other tables the predictions of all folds are pooled and scored once. Papers give the one or the other."
    )
    return Section("Mean over folds", [words], [["run", *(e.title for e in shown.values())], *rows], folded=True)


def gains(runs: Sequence[Evaluation]) -> Section | None:
    """Each adapter against the best baseline of each metric; None without baselines or adapters."""
    adapters, baselines = split_by_baseline(runs)
    shown = _compared(adapters, baselines, "report")
    if not shown:
        return None
    best = {name: best_of(baselines, entry) for name, entry in shown.items()}
    rows = [["best baseline", *(f"{best[name].name}: {rounded(best[name].estimates[name].value)}" for name in shown)]]
    for run in adapters:
        cells = [_difference(run, best[name], entry) for name, entry in shown.items()]
        rows.append([run.name, *cells])
    words = "Gain over the baseline that is best at that metric, paired. Bold: better beyond noise; ~: within noise."
    return Section("Gains", [words], [["run", *(entry.title for entry in shown.values())], *rows])


def against(runs: Sequence[Evaluation]) -> Section | None:
    """Each adapter against each baseline in what is claimed; None without baselines or adapters."""
    adapters, baselines = split_by_baseline(runs)
    shown = {name: entry for name, entry in shown_in(adapters, "claims").items() if entry.metric.better != "neither"}
    if not adapters or not baselines or not shown:
        return None
    rows = [
        [run.name, baseline.name, *(_difference(run, baseline, entry) for entry in shown.values())]
        for run in adapters
        for baseline in baselines
    ]
    words = (
        "Difference of each adapter to each baseline, paired. Bold: better beyond noise; ~: within noise. Read "
        "steadiness and flips beside the switches missed: wider smoothing is steadier, and misses more true changes."
    )
    head = ["run", "baseline", *(entry.title for entry in shown.values())]
    return Section("Against each baseline", [words], [head, *rows], folded=True)


def criterion(runs: Sequence[Evaluation]) -> Section | None:
    """By how much each run meets the project's criterion; None where no pairs are measured."""
    rows = []
    for run in runs:
        if gap := files.criterion(run.estimates):
            met = ("passed" if gap["passed"] else "failed") + ("" if gap["beyond_noise"] else ", within noise")
            rows.append([run.name, met, _cell(run.estimates[GAP]), _cell(run.estimates.get(OPPOSITE))])
    if not rows:
        return None
    words = (
        "Passed: mean cosine(same emotion) >= mean cosine(opposite emotions). Cosines of two runs have different "
        "scales, so do not compare runs by the size of the gap. Compare them by AUC same/opposite: how often a pair of "
        "the same emotion is closer than a pair of opposite ones. 0.5 is chance."
    )
    head = ["run", "criterion", "cosine same - opposite", "AUC same/opposite"]
    return Section("Criterion", [words], [head, *rows])


def costly_groups(runs: Sequence[Evaluation]) -> Section | None:
    """The videos without which each run's macro-F1 would be another, those that move it most; None without any."""
    rows = []
    for run in runs:
        costs = files.read_costs(run.folder) or {"groups": []}
        for of in costs["groups"][:MOST_COSTS]:
            worst, move = of["worst"], of["without"] - costs["macro_f1"]
            why = "" if worst is None else f"{worst['true']} taken for {worst['predicted']} ({worst['frames']:,.0f})"
            if of["leave"]:
                why = f"no other group has {', '.join(of['leave'])}"
            videos = some(of["videos"]) if of["videos"] != [of["group"]] else of["group"]
            row = [run.name, videos, f"{of['frames']:,}", rounded(costs["macro_f1"]), rounded(of["without"])]
            rows.append([*row, rounded(move, "+"), why])
    if not rows:
        return None
    words = (
        f"The {MOST_COSTS} groups (persons or raw videos) that move the macro-F1 of each run most, and what it would "
        "be without the frames of each, with the same predictions. +: the group costs. -: the score rests on the group."
        " Where few videos show a class, these few decide the score."
    )
    head = ["run", "videos", "frames", "macro-F1", "without them", "difference", "mostly"]
    return Section("Videos that cost most", [words], [head, *rows], folded=True)


def costly_confusions(runs: Sequence[Evaluation]) -> Section | None:
    """The confusions that cost each run's macro-F1 most; None without any."""
    rows = []
    for run in runs:
        for of in (files.read_costs(run.folder) or {"confusions": []})["confusions"][:MOST_COSTS]:
            groups = ", ".join(f"{group} ({frames:,.0f})" for group, frames in of["mostly_in"])
            cell = [of["true"], of["predicted"], f"{of['frames']:,.0f}", rounded(of["gain"], "+")]
            rows.append([run.name, *cell, f"{groups} of {of['in']} groups"])
    if not rows:
        return None
    words = "What the macro-F1 of each run would gain if the frames of one confusion were right."
    head = ["run", "true", "taken for", "frames", "gain", "mostly in"]
    return Section("Confusions that cost most", [words], [head, *rows], folded=True)


def notes(runs: Sequence[Evaluation]) -> Section:
    """In words: what is best, and from what it cannot be told apart."""
    lines = []
    for name, entry in _compared(runs, runs, "report").items():
        known = [run for run in runs if is_measured(run, name)]
        best = best_of(known, entry)
        near = [
            run.name for run in known
            if run is not best and not (best.estimates[name] - run.estimates[name]).beyond_noise()
        ]  # fmt: skip
        if len(known) > 1:
            tail = f"within noise of it: {', '.join(near)}" if near else "beyond noise of all others, one by one"
            lines.append(f"{entry.title}: {best.name} is best; {tail}.")
    return Section("Best in each measure", lines, [], folded=True)


def split_by_baseline(runs: Sequence[Evaluation]) -> tuple[list[Evaluation], list[Evaluation]]:
    return [r for r in runs if not r.about["baseline"]], [r for r in runs if r.about["baseline"]]


def is_measured(run: Evaluation, name: str) -> bool:
    return name in run.estimates and not np.isnan(run.estimates[name].value)


def shown_in(runs: Sequence[Evaluation], place: str) -> dict[str, Entry]:
    """What the catalogue shows in a place, as far as any of the runs has it; what is claimed comes first."""
    shown, claims = METRICS.shown(place), METRICS.shown("claims")
    known = {name: entry for name, entry in shown.items() if any(is_measured(run, name) for run in runs)}
    return {name: known[name] for name in sorted(known, key=lambda name: name not in claims)}


def _compared(runs: Sequence[Evaluation], others: Sequence[Evaluation], place: str) -> dict[str, Entry]:
    """Of these, what both sides have, and of which one value is better than another."""
    shown, known = shown_in(others, place), shown_in(runs, place)
    return {name: entry for name, entry in shown.items() if name in known and entry.metric.better != "neither"}


def _best_beyond_noise(runs: Sequence[Evaluation], entry: Entry) -> str | None:
    if entry.metric.better == "neither":
        return None
    estimates = {run.name: run.estimates[entry.name] for run in runs if is_measured(run, entry.name)}
    return best_beyond_noise(estimates, entry.metric.better == "higher")


def best_of(runs: Sequence[Evaluation], entry: Entry) -> Evaluation:
    best = max if entry.metric.better == "higher" else min
    return best((run for run in runs if is_measured(run, entry.name)), key=lambda run: run.estimates[entry.name].value)


def _difference(run: Evaluation, other: Evaluation, entry: Entry) -> str:
    name = entry.name
    if not (is_measured(run, name) and is_measured(other, name)):
        return ""
    gain = run.estimates[name] - other.estimates[name]
    if not gain.beyond_noise():
        return f"~ {rounded(gain.value, '+')}"
    better = (gain.value > 0) == (entry.metric.better == "higher")
    return (Bold if better else str)(rounded(gain.value, "+"))


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or np.isnan(estimate.value):
        return ""
    low, high = estimate.interval()
    return rounded(estimate.value) + ("" if np.isnan(low) else f" ({rounded(low)} to {rounded(high)})")


def rounded(value: float, sign: str = "") -> str:
    """Three digits; one from 10 on, and four next to 1 and to 0, where steadiness differs."""
    digits = 1 if abs(value) >= 10 else 4 if 0.99 <= abs(value) < 1 or abs(value) < 0.01 else 3
    return f"{value:{sign}.{digits}f}"


def csv_text(runs: Sequence[Evaluation]) -> str:
    """Every metric of every run, unrounded, with its interval; a line a run."""
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
