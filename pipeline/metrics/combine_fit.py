"""Fits on training groups how the predictions of an adapter and of its backbone are combined (``combine``).

What is fitted must be fitted on frames of groups that neither network has seen: of the adapter out-of-fold predictions.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.combine import WHAT, Fitted, combined
from pipeline.metrics.grouped import Measure
from pipeline.metrics.protocol import action_units, expression, valence_arousal
from pipeline.metrics.smoothing import changes, fit_class_bias, log_of, smooth, with_bias
from pipeline.metrics.thresholds import best_thresholds
from pipeline.metrics.uncertainty import group_weights

# Candidates, the simplest first: of equal ones the first counts.
WIDTHS = (1, 5, 15, 31, 51, 101, 201)  # frames
WIDTHS_AUS = (1, 5, 11, 21)
THRESHOLDS = (1.0, 0.98, *(round(0.95 - 0.05 * k, 2) for k in range(19)), 0.0)  # at 1 nowhere, at 0 wherever it can
WEIGHTS = tuple(round(0.1 * k, 1) for k in range(11))
WEIGHTS_AUS = (0.0, 0.25, 0.5, 0.75, 1.0)
RESAMPLES = 200  # of groups, for the standard error of a gain

Candidate = tuple[float, int]  # a threshold or weight, and a width


@dataclass(frozen=True)
class Frames:
    """Of n frames sorted by (video, number): video (n,), number (n,), and fold (n,) and group (n,), codes from 0."""

    video: np.ndarray
    number: np.ndarray
    group: np.ndarray
    fold: np.ndarray


def fit(
    predictions: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray],
    frames: Frames,
) -> dict[str, dict[str, Fitted]]:  # fmt: skip
    """Both ways, and in each what is fitted of every kind of prediction that has labels.

    ``predictions`` of the adapter are out of fold: each frame's by a network that was trained without its group.
    ``truth``: 'classes' (n,) codes or -1, 'va' (n, 2) and 'aus' (n, A) with NaN where there is no label.

    All candidates (a threshold or weight, and a width) are scored on all frames together, and the best one is taken.
    Whether it is taken at all, cross-validation over the groups says: the frames of each fold are predicted by the
    candidate that is best on the other folds. Step by step, smoothing, then the backbone, then class biases, a step is
    taken only where it gains more than the standard error of its gain over groups. So what does not help stays out.
    """
    ways: dict[str, dict[str, Fitted]] = {"gate": {}, "blend": {}}
    for what, values in predictions.items():
        if what not in WHAT or not _labelled(truth[what]).any():
            continue
        there = what in own
        if what == "classes":
            ways["gate"][what] = _fit(what, values, own, truth[what], frames, THRESHOLDS if there else (1.0,), "gate")
            ways["blend"][what] = _fit(what, values, own, truth[what], frames, WEIGHTS if there else (0.0,), "blend")
        else:
            weights = WEIGHTS_AUS if what == "aus" else WEIGHTS
            fitted = _fit(what, values, own, truth[what], frames, weights if there else (0.0,), "blend")
            ways["gate"][what] = ways["blend"][what] = fitted
    return ways


def _labelled(truth: np.ndarray) -> np.ndarray:
    return truth >= 0 if truth.ndim == 1 else ~np.isnan(truth)


def _fit(
    what: str, values: np.ndarray, own: Mapping[str, np.ndarray], truth: np.ndarray, frames: Frames,
    shares: Sequence[float], way: str,
) -> Fitted:  # fmt: skip
    widths = WIDTHS_AUS if what == "aus" else WIDTHS
    widths = [w for w in widths if w == 1 or changes(frames.video, frames.number, "box", w)]
    alone, folds = shares[0], np.unique(frames.fold)
    num_groups = int(frames.group.max()) + 1
    others = np.ones((len(folds) + 1, num_groups))  # all groups, then those of all folds but one
    for k, fold in enumerate(folds):
        others[k + 1, np.unique(frames.group[frames.fold == fold])] = 0

    def as_fitted(candidate: Candidate) -> Fitted:
        share, width = candidate
        return Fitted(width, threshold=share) if way == "gate" else Fitted(width, weight=share)

    def made(candidate: Candidate) -> np.ndarray:
        mixed = combined(as_fitted(candidate), what, values, own)
        return smooth(mixed, frames.video, frames.number, "box", candidate[1])

    def measure(scores: np.ndarray) -> Measure:
        return _MEASURES[what](truth, scores, frames.group)

    candidates = [(share, width) for share in shares for width in widths]
    scored = {c: np.nan_to_num(_main(what, measure(made(c))(others)), nan=-np.inf) for c in candidates}

    def best(among: Sequence[Candidate]) -> list[Candidate]:
        """The best of all frames, and that of all folds but each."""
        return [max(among, key=lambda c: scored[c][k]) for k in range(len(others))]

    def cross_validated(chosen: Sequence[Candidate], bias: Callable[..., np.ndarray] | None = None) -> np.ndarray:
        """The scores of the frames of each fold by the candidate that is the best on the others."""
        found = np.empty(values.shape)
        for k, fold in enumerate(folds):
            scores, here = made(chosen[k + 1]), frames.fold == fold
            scores = scores if bias is None else with_bias(scores, bias(scores, ~here))
            found[here] = scores[here]
        return found

    def fit_bias(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        rows = rows & (truth >= 0)
        return fit_class_bias(log_of(scores[rows]), truth[rows])[0] if rows.any() else np.zeros(scores.shape[1])

    chosen, bias = [(alone, 1)] * len(others), np.zeros(values.shape[1] if what == "classes" else 0)
    of_chosen = of_alone = measure(cross_validated(chosen))
    weights = group_weights(num_groups, RESAMPLES)
    for among in ([c for c in candidates if c[0] == alone], candidates):
        tried = best(among)
        if _gains(what, of_tried := measure(cross_validated(tried)), of_chosen, weights):
            chosen, of_chosen = tried, of_tried
    if what == "classes":
        of_tried = measure(cross_validated(chosen, fit_bias))
        if _gains(what, of_tried, of_chosen, weights):
            bias, of_chosen = fit_bias(made(chosen[0]), np.ones(len(truth), dtype=bool)), of_tried
    once = np.ones((1, num_groups))
    return dataclasses.replace(
        as_fitted(chosen[0]),
        bias=bias.tolist(),
        thresholds=best_thresholds(truth, made(chosen[0])).tolist() if what == "aus" else [],
        score=float(_main(what, of_chosen(once))[0]),
        alone=float(_main(what, of_alone(once))[0]),
    )


def _gains(what: str, of_tried: Measure, of_before: Measure, weights: np.ndarray) -> bool:
    """Whether the gain is greater than its standard error over groups."""
    once = np.ones((1, weights.shape[1]))
    gain, resampled = (_main(what, of_tried(w)) - _main(what, of_before(w)) for w in (once, weights))
    known = resampled[~np.isnan(resampled)]
    return bool(len(known) and gain[0] > 0 and gain[0] > known.std())


def _main(what: str, measured: Mapping[str, np.ndarray]) -> np.ndarray:
    return measured[{"classes": "macro_f1", "va": "ccc", "aus": "au_f1"}[what]]


def _of_classes(truth: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> Measure:
    return expression(truth, scores.argmax(1), groups, [str(c) for c in range(scores.shape[1])])


def _of_units(truth: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> Measure:
    """By the thresholds that are best for these very scores, whatever they are."""
    names = [str(unit) for unit in range(scores.shape[1])]
    return action_units(truth, scores, groups, names, best_thresholds(truth, scores))


_MEASURES = {"classes": _of_classes, "va": valence_arousal, "aus": _of_units}
