"""The report's first sentences: what the best adapter gains, how the criterion is met, and what steadiness costs."""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation import files
from pipeline.evaluation.files import Evaluation
from pipeline.metrics.metric import Entry
from pipeline.metrics.uncertainty import Estimate
from pipeline.report.tables import OPPOSITE, best_of, is_measured, rounded, shown_in, split_by_baseline

MOST = 3  # sentences


def verdict(runs: Sequence[Evaluation], beside: str | None = None) -> list[str]:
    """At most three sentences; ``beside`` is the baseline that the criterion is read against, else the weakest one."""
    adapters, baselines = split_by_baseline(runs)
    if not adapters:
        return ["Only baselines were evaluated: there is no adapter to judge."]
    claims = _judged(adapters, "claims")
    of_pairs = [entry for entry in claims.values() if entry.of == "pairs"]
    of_time = [entry for entry in claims.values() if entry.metric.function.startswith("steadiness.")]
    others = [entry for entry in claims.values() if entry not in of_pairs and entry not in of_time]
    others += [entry for name, entry in _judged(adapters, "report").items() if name not in claims]
    sentences = [_gain(entry, adapters, baselines) for entry in of_pairs[:1]]
    sentences += [_criterion(adapters, baselines, beside)] if of_pairs else []
    sentences += [_steady(of_time, adapters, baselines)] if of_time else []
    sentences += [_gain(entry, adapters, baselines) for entry in others[:MOST]]
    return [sentence for sentence in sentences if sentence][:MOST]


def _in_100(value: float) -> str:
    return f"{100 * value:.0f}"


def _judged(runs: Sequence[Evaluation], place: str) -> dict[str, Entry]:
    return {name: entry for name, entry in shown_in(runs, place).items() if entry.metric.better != "neither"}


def _gain(entry: Entry, adapters: Sequence[Evaluation], baselines: Sequence[Evaluation]) -> str:
    """'AUC: tcn is the best adapter with 0.81 (0.74 to 0.87), 0.070 (0.02 to 0.11) better than the best baseline.'"""
    name, best = entry.name, best_of(adapters, entry)
    begin = f"{entry.title}: {best.name} is the best adapter with {_with_interval(best, name)}"
    known = [run for run in baselines if is_measured(run, name)]
    if not known:
        return f"{begin}; no baseline has this measure."
    other = best_of(known, entry)
    gains = {run.name: _gain_of(run, other, entry) for run in adapters if is_measured(run, name)}
    gain = gains[best.name]
    better = [gain for gain in gains.values() if gain.value > 0 and gain.beyond_noise()]
    low, high = gain.interval()
    sign = 1 if gain.value > 0 else -1
    low, high = sorted((sign * low, sign * high))
    between = "" if np.isnan(low) else f" ({rounded(low)} to {rounded(high)})"
    word = "better" if gain.value > 0 else "worse"
    noise = "beyond noise" if gain.beyond_noise() else "within noise"
    return (
        f"{begin}, {rounded(abs(gain.value))}{between} {word} than the best baseline, {other.name} ({noise}); "
        f"{len(better)} of {len(gains)} adapters are better beyond noise."
    )


def _gain_of(run: Evaluation, other: Evaluation, entry: Entry) -> Estimate:
    """How much better ``run`` is, positive where it is, whichever direction is the better one."""
    first, second = run.estimates[entry.name], other.estimates[entry.name]
    return first - second if entry.metric.better == "higher" else second - first


def _criterion(adapters: Sequence[Evaluation], baselines: Sequence[Evaluation], beside: str | None) -> str:
    """How many meet the criterion, and by how much: that the frozen features meet it too says how little that is."""
    judged = {run.name: files.criterion(run.estimates) for run in [*adapters, *baselines]}
    known = {name: gap for name, gap in judged.items() if gap}
    if not known:
        return ""
    passed = sum(gap["passed"] for gap in known.values())
    begin = f"Same emotions are on average at least as close as opposite ones in {passed} of {len(known)} runs"
    best = max((run for run in adapters if is_measured(run, OPPOSITE)), key=_opposite, default=None)
    if best is None:
        return begin + "."
    known = [run for run in baselines if is_measured(run, OPPOSITE)]
    other = min(known, key=lambda run: (run.name != beside, _opposite(run)), default=None)
    against = "" if other is None else f", and {_in_100(_opposite(other))} for {other.name}"
    little = ", so passing says little" if other is not None and (judged[other.name] or {}).get("passed") else ""
    return (
        f"{begin}{little}. By how much: of 100 pairs of the same emotion, {_in_100(_opposite(best))} are closer than a "
        f"pair of opposite emotions for {best.name}{against} (50 is chance)."
    )


def _opposite(run: Evaluation) -> float:
    return run.estimates[OPPOSITE].value


def _steady(entries: Sequence[Entry], adapters: Sequence[Evaluation], baselines: Sequence[Evaluation]) -> str:
    """The steadiest adapter in all that is claimed of sequences, beside the first baseline of each measure."""
    best = best_of(adapters, entries[0])
    words = []
    for entry in entries:
        if is_measured(best, entry.name):
            known = [run for run in baselines if is_measured(run, entry.name)]
            other = best_of(known, entry) if known else None
            beside = f" ({other.name} {rounded(other.estimates[entry.name].value)})" if other else ""
            words.append(f"{entry.title} {rounded(best.estimates[entry.name].value)}{beside}")
    beside = " (in parentheses the best baseline)" if baselines else ""
    return f"From frame to frame {best.name} is the steadiest adapter{beside}: {', '.join(words)}."


def _with_interval(run: Evaluation, name: str) -> str:
    low, high = run.estimates[name].interval()
    return rounded(run.estimates[name].value) + ("" if np.isnan(low) else f" ({rounded(low)} to {rounded(high)})")
