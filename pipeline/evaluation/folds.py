"""A result over folds: each frame is validated on once, by networks that were trained without its group.

The predictions of a frame (classes, valence and arousal, action units, nearest neighbours, linear probe) mean the same
in every fold: they are pooled, and scored as those of one network. Embeddings of two folds are points of two spaces, so
what compares them (pairs, retrieval, cosines, steadiness) is measured within each fold, and averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.metrics.grouped import Measure
from pipeline.metrics.measures import Outputs, SeedResult, Subset, by_groups


@dataclass(frozen=True)
class FoldResult:
    """A fold, or the only split (``number`` None): of each seed its outputs for ``subset``, its measure and result."""

    number: int | None
    subset: Subset
    outputs: Sequence[Outputs]
    seeds: Sequence[tuple[Measure, SeedResult]]


def together(subsets: Sequence[Subset]) -> Subset:
    """The frames of all folds as one subset. Videos and groups are numbered on, fold after fold."""
    if len(subsets) == 1:
        return subsets[0]
    rows, videos, groups = (_starts([len(of) for of in each]) for each in zip(*map(_axes, subsets), strict=True))
    pairs = None
    if any(subset.pairs is not None for subset in subsets):
        pairs = np.concatenate([subset.pairs + start for subset, start in zip(subsets, rows, strict=True)])
    return Subset(
        video=np.concatenate([subset.video + start for subset, start in zip(subsets, videos, strict=True)]),
        frame=np.concatenate([subset.frame for subset in subsets]),
        number=np.concatenate([subset.number for subset in subsets]),
        group=np.concatenate([subset.group + start for subset, start in zip(subsets, groups, strict=True)]),
        label=np.concatenate([_scored(subset) for subset in subsets]),
        va=np.concatenate([subset.va for subset in subsets]),
        aus=np.concatenate([subset.aus for subset in subsets]),
        videos=[name for subset in subsets for name in subset.videos],
        groups=[name for subset in subsets for name in subset.groups],
        classes=subsets[0].classes,
        au_names=subsets[0].au_names,
        step=subsets[0].step,
        opposites=subsets[0].opposites,
        gallery_label=np.concatenate([subset.gallery_label for subset in subsets]),
        pairs=pairs,
        outputs=None if subsets[0].outputs is None else np.concatenate([subset.outputs for subset in subsets]),
        output_names=subsets[0].output_names,
        clips=None if subsets[0].clips is None else pd.concat([s.clips for s in subsets], ignore_index=True),
    )


def _axes(subset: Subset) -> tuple[np.ndarray, list[str], list[str]]:
    return subset.frame, subset.videos, subset.groups


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths[:-1]])


def _scored(subset: Subset) -> np.ndarray:
    """``label`` where it is scored, else -1. What a fold does not score is not scored with the others either."""
    label = np.full(len(subset.label), -1, dtype=subset.label.dtype)
    label[subset.labelled] = subset.label[subset.labelled]
    return label


def pooled(subsets: Sequence[Subset], seeds: Sequence[tuple[Measure, SeedResult]]) -> tuple[Measure, SeedResult]:
    """One seed's measure over all folds, and its predictions of their frames in a row. ``seeds`` has one of each fold.

    In a resample a fold counts as much as it has labelled frames drawn, so that in a mean over frames (recall, mAP)
    each counts the same whatever its fold; a fold in which a number cannot be measured is left out of that number.
    """
    if len(subsets) == 1:
        return seeds[0]
    whole, result = together(subsets), _in_a_row(subsets, [of_seed for _, of_seed in seeds])
    of_frames = by_groups(whole, None, result, whole.group)
    ends = np.cumsum([len(subset.groups) for subset in subsets])[:-1]
    counts = [labelled_frames(subset) for subset in subsets]

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_fold = np.split(weights, ends, axis=1)
        each = [of_seed(w) for (of_seed, _), w in zip(seeds, of_fold, strict=True)]
        frames = np.stack([w @ count for w, count in zip(of_fold, counts, strict=True)])
        nowhere = np.full(len(weights), np.nan)
        names = dict.fromkeys(name for values in each for name in values)
        within = {name: averaged(np.stack([v.get(name, nowhere) for v in each]), frames) for name in names}
        return within | of_frames(weights)

    return measure, result


def labelled_frames(subset: Subset) -> np.ndarray:
    """How many frames of each group (G,) have a class."""
    return np.bincount(subset.group[subset.label >= 0], minlength=len(subset.groups))


def averaged(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means (...) of values (F, ...) of F folds, weighted; without those that are NaN, NaN where all are."""
    weights = np.where(np.isnan(values), 0, weights)
    with np.errstate(invalid="ignore"):
        return (np.where(weights > 0, values, 0) * weights).sum(0) / weights.sum(0)


def _in_a_row(subsets: Sequence[Subset], results: Sequence[SeedResult]) -> SeedResult:
    """Predictions of all frames; NaN in a fold that has none of a kind, having no such labels."""
    predictions = {}
    for what in dict.fromkeys(what for each in results for what in each.predictions):
        like = max((each.predictions[what] for each in results if what in each.predictions), key=len)
        none = [np.full((len(subset.frame), like[""].shape[1]), np.nan) for subset in subsets]
        values = [each.predictions.get(what, {"": nan}) for each, nan in zip(results, none, strict=True)]
        # Where smoothing changes nothing in a fold, its predictions are smoothed as they are.
        predictions[what] = {suffix: np.concatenate([of.get(suffix, of[""]) for of in values]) for suffix in like}
    probes = [each.probe for subset, each in zip(subsets, results, strict=True) if len(subset.labelled)]
    known = len(probes) > 0 and all(probe is not None for probe in probes)
    thresholds = [
        np.concatenate(
            [
                np.broadcast_to(getattr(each, which), (len(subset.frame), len(subset.au_names)))
                for subset, each in zip(subsets, results, strict=True)
            ]
        )
        for which in ("thresholds", "combined_thresholds")
    ]
    return SeedResult(predictions, None, np.concatenate(probes) if known else None, *thresholds)
