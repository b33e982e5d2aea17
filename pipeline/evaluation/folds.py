"""A result over folds: each frame is validated on once, by networks that were trained without its group.

What is said of a frame (classes, valence and arousal, action units, nearest neighbours, linear probe) means the same in
every fold: it is pooled, and scored as that of one network. Embeddings of two folds are points of two spaces, so what
compares them (separation, retrieval, cosines, steadiness) is measured within each fold, and averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.measures import Answers, Part, Seen, by_groups
from pipeline.metrics.uncertainty import Measure


@dataclass(frozen=True)
class Fold:
    """A fold, or the only split (``number`` None): what each seed answered of ``part``, and what it is measured by."""

    number: int | None
    part: Part
    answers: Sequence[Answers]
    seeds: Sequence[tuple[Measure, Seen]]


def together(parts: Sequence[Part]) -> Part:
    """The frames of all folds as one part: videos and groups are numbered on, fold after fold."""
    if len(parts) == 1:
        return parts[0]
    rows, videos, groups = (_starts([len(of) for of in each]) for each in zip(*map(_axes, parts), strict=True))
    pairs = None
    if any(part.pairs is not None for part in parts):
        pairs = np.concatenate([part.pairs + start for part, start in zip(parts, rows, strict=True)])
    return Part(
        video=np.concatenate([part.video + start for part, start in zip(parts, videos, strict=True)]),
        frame=np.concatenate([part.frame for part in parts]),
        number=np.concatenate([part.number for part in parts]),
        group=np.concatenate([part.group + start for part, start in zip(parts, groups, strict=True)]),
        label=np.concatenate([_scored(part) for part in parts]),
        va=np.concatenate([part.va for part in parts]),
        aus=np.concatenate([part.aus for part in parts]),
        videos=[name for part in parts for name in part.videos],
        groups=[name for part in parts for name in part.groups],
        classes=parts[0].classes,
        au_names=parts[0].au_names,
        step=parts[0].step,
        opposites=parts[0].opposites,
        train_label=np.concatenate([part.train_label for part in parts]),
        pairs=pairs,
    )


def _axes(part: Part) -> tuple[np.ndarray, list[str], list[str]]:
    return part.frame, part.videos, part.groups


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths[:-1]])


def _scored(part: Part) -> np.ndarray:
    """``label`` where it is scored, else -1: what a fold does not score is not scored with the others either."""
    label = np.full(len(part.label), -1, dtype=part.label.dtype)
    label[part.has] = part.label[part.has]
    return label


def pooled(parts: Sequence[Part], seeds: Sequence[tuple[Measure, Seen]]) -> tuple[Measure, Seen]:
    """One seed's measure over all folds, and what it said of their frames in a row; one of each for each fold.

    In a resample a fold counts as much as it has labelled frames drawn, so that in a mean over frames (recall, mAP)
    each counts the same whatever its fold; a fold in which a number cannot be measured is left out of that number.
    """
    if len(parts) == 1:
        return seeds[0]
    whole, seen = together(parts), _in_a_row(parts, [seen for _, seen in seeds])
    of_frames = by_groups(whole, None, seen, whole.group)
    ends = np.cumsum([len(part.groups) for part in parts])[:-1]
    counts = [labelled(part) for part in parts]

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_fold = np.split(weights, ends, axis=1)
        each = [measured(w) for (measured, _), w in zip(seeds, of_fold, strict=True)]
        frames = np.stack([w @ count for w, count in zip(of_fold, counts, strict=True)])
        nowhere = np.full(len(weights), np.nan)
        names = dict.fromkeys(name for values in each for name in values)
        within = {name: averaged(np.stack([v.get(name, nowhere) for v in each]), frames) for name in names}
        return within | of_frames(weights)

    return measure, seen


def labelled(part: Part) -> np.ndarray:
    """How many frames of each group (G,) have a class."""
    return np.bincount(part.group[part.label >= 0], minlength=len(part.groups))


def averaged(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means (...) of values (F, ...) of F folds, weighted; without those that are NaN, NaN where all are."""
    weights = np.where(np.isnan(values), 0, weights)
    with np.errstate(invalid="ignore"):
        return (np.where(weights > 0, values, 0) * weights).sum(0) / weights.sum(0)


def _in_a_row(parts: Sequence[Part], seen: Sequence[Seen]) -> Seen:
    """What was said of all frames; NaN in a fold that says nothing of it, having no such labels."""
    predicted = {}
    for what in dict.fromkeys(what for s in seen for what in s.predicted):
        like = max((s.predicted[what] for s in seen if what in s.predicted), key=len)
        silent = [[np.full((len(part.frame), v.shape[1]), np.nan) for v in like] for part in parts]
        said = [s.predicted.get(what, none) for s, none in zip(seen, silent, strict=True)]
        said = [of + of[-1:] * (len(like) - len(of)) for of in said]  # where smoothing changes nothing in a fold
        predicted[what] = [np.concatenate(values) for values in zip(*said, strict=True)]
    probes = [s.probe for part, s in zip(parts, seen, strict=True) if len(part.has)]
    known = len(probes) > 0 and all(probe is not None for probe in probes)
    return Seen(predicted, None, np.concatenate(probes) if known else None)
