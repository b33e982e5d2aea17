"""The report's first lines: what its numbers are of, and that its runs can be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.params import UserError
from pipeline.core.seen import some
from pipeline.evaluation.files import Evaluation
from pipeline.metrics.smoothing import worded


def check(runs: Sequence[Evaluation]) -> None:
    """Raises ``UserError`` where runs are of different data, features, frames or resamples, or have one name."""
    first = runs[0]
    for run in runs[1:]:
        if other := differing(run, first):
            raise UserError(f"the runs {run.name} and {first.name} cannot stand in one table: {'; '.join(other)}")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two evaluations are of a run called {twice[0]}: evaluate one of them under another name")


def differing(run: Evaluation, first: Evaluation) -> list[str]:
    """In what two evaluations are not of the same data, features, frames or resamples; empty where they are pairs."""
    facts = (
        "dataset", "backbone", "backbone_weights", "input_size", "val_split", "val_videos",
        "compared", "neighbours", "window_stride", "smoothing", "opposites", "part", "unit",
    )  # fmt: skip
    about, of_first = run.about, first.about
    other = [f"{k} {about.get(k)!r} and {of_first.get(k)!r}" for k in facts if about.get(k) != of_first.get(k)]
    scored, scored_first = about["frames_scored"], of_first["frames_scored"]
    for what in scored.keys() & scored_first.keys():  # one that predicts more is scored on more kinds of labels
        if scored[what] != scored_first[what]:
            other.append(f"{what} {_units(about)} scored {scored[what]:,} and {scored_first[what]:,}")
    if run.groups != first.groups:
        other.append(f"{len(run.groups)} and {len(first.groups)} groups, with different names")
    sizes = [len(next(iter(r.estimates.values())).resampled) for r in (run, first)]
    if sizes[0] != sizes[1]:
        other.append(f"resamples {sizes[0]} and {sizes[1]}")
    return other


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
    unit = _units(about)
    split, within = f"{about['val_split']} split", ""
    if about.get("folds"):
        split, within = (
            f"{about['val_split']}: each {unit[:-1]} once, by networks not trained on its group",
            " of its fold",
        )
    if about.get("part") == "test":
        facts.append(
            f"Scored on {scored} {unit} of {about['val_videos']} **test** videos ({split}): nothing was chosen on them."
        )
    else:
        facts.append(f"Scored on {scored} {unit} of {about['val_videos']} validation videos ({split}).")
    if absent := about.get("clips_left_out"):
        facts[-1] += f" {len(absent):,} clips have no features (no face was found), and are not scored: {some(absent)}."
    if about["compared"]:
        facts[-1] += (
            f" Pairs and recall are measured on {about['compared']:,} evenly spaced {unit}. The {about['neighbours']} "
            f"nearest neighbours come from {about['knn_candidates']:,} evenly spaced training {unit}{within}. Pairs "
            "and neighbours of one person or video are left out."
        )
    for run in runs:
        judged = run.about.get("judged", {})
        phrases = {"frames": "compares {:,} evenly spaced frames", "pairs": "looks for the partners in {:,} pairs"}
        words = [phrases[what].format(count) for what, count in judged.items() if count]
        facts[-1] += f" {run.name} itself {' and '.join(words)}." if words else ""
    for whose, said in {(whose, said): None for run in runs for whose, said in run.about.get("vouched", {}).items()}:
        facts[-1] += f" Taken as alike by the user's word (--alike), {whose} and the store: {said}."
    if about.get("folds"):
        facts[-1] += (
            " Predictions are pooled over the folds. Measures that compare embeddings (AUC, cosines, recall, mAP, "
            f"steadiness) are taken within each fold and averaged, each fold weighed by its number of labelled {unit}."
        )
    which: dict[str, list[str]] = {}
    for run in runs:
        if said := run.about.get("au_thresholds"):
            which.setdefault(said["which"], []).append(run.name)
    if which:
        words = "; ".join(f"{said} ({', '.join(names)})" for said, names in which.items())
        facts.append(f"Action units count as active from a probability {words}.")
    combined = {run.name: of["words"] for run in runs for of in (run.about.get("combine") or [])[:1]}
    if combined:
        words = " ".join(f"{name}, {said}." for name, said in combined.items())
        facts.append(
            f"Combined with the backbone's own predictions, as the first network of each run fitted it: {words}"
        )
    trained = [run for run in runs if "trained_weights" in run.about]
    if trained:
        each = [run.name + (f" ({run.about['hours']:.3g} hours)" if "hours" in run.about else "") for run in trained]
        facts.append(
            "The backbone is trained and not frozen, from the weights named below, in "
            + ", ".join(each)
            + ". Hours are "
            "those of training all seeds, by the clock. Adapters on stored features take minutes."
        )
    resamples = len(next(iter(runs[0].estimates.values())).resampled)
    facts.append(
        f"In parentheses: 95 % intervals by {resamples:,} resamples of the {len(runs[0].groups)} persons or raw "
        "videos, and of the seeds where there are several." + ("" if unit == "clips" else " " + _smoothing_of(runs))
    )
    commits = sorted({run.about["commit"] or "not known (no git)" for run in runs})
    facts.append(f"Backbone's weights: {about['backbone_weights']}. Commit: {', '.join(commits)}.")
    return title, facts


def _units(about: Mapping[str, Any]) -> str:
    """What was scored: 'frames' or 'clips'."""
    return "clips" if about.get("unit") == "clip" else "frames"


def _smoothing_of(runs: Sequence[Evaluation]) -> str:
    smoothing = runs[0].about["smoothing"]
    is_there = any(name.endswith("_smoothed") for run in runs for name in run.estimates)
    if smoothing["kind"] != "none" and not is_there and not any("smoothed_before" in run.about for run in runs):
        return "Nothing is smoothed: no frame has another of its video near enough, as with single pictures."
    width, of_units = worded(smoothing["width"]), worded(smoothing["width_aus"])
    return f"Smoothed: {smoothing['kind']}, {width} wide, for action units {of_units}."
