"""The predictions of an adapter and those of its frozen backbone as one, and how that is fitted on training groups.

Two ways (HSEmotion at the 10th ABAW, https://arxiv.org/abs/2603.12693, has the first):

gate    where the backbone's own probability of its class exceeds a threshold, its probabilities, else the adapter's
blend   a weighted mean of both logits; of valence and arousal a weighted mean of the values, held within -1 and 1

A gate is of classes: valence, arousal and action units have nothing to be sure of, and are blended with either way.
Then all are smoothed by a box of the fitted width, and the fitted biases are added to the logits of classes.

What is fitted must be fitted on frames of groups that neither network has seen: of the adapter out-of-fold predictions.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores
from pipeline.metrics.grouped import Measure
from pipeline.metrics.protocol import action_units, expression, valence_arousal
from pipeline.metrics.smoothing import changes, fit_class_bias, log_of, smooth, with_bias
from pipeline.metrics.thresholds import best_thresholds
from pipeline.metrics.uncertainty import group_weights

WAYS = ("none", "gate", "blend")
WHAT = ("classes", "va", "aus")
HELP = (
    "how predictions are combined with the frozen backbone's own: gate takes its class where it is sure, blend the "
    "mean of both logits, by what the run fitted on its training groups; none: not; default: as the run was trained"
)
# Candidates, the simplest first: of equal ones the first counts.
WIDTHS = (1, 5, 15, 31, 51, 101, 201)  # frames
WIDTHS_AUS = (1, 5, 11, 21)
THRESHOLDS = (1.0, 0.98, *(round(0.95 - 0.05 * k, 2) for k in range(19)), 0.0)  # at 1 nowhere, at 0 wherever it can
WEIGHTS = tuple(round(0.1 * k, 1) for k in range(11))
WEIGHTS_AUS = (0.0, 0.25, 0.5, 0.75, 1.0)
RESAMPLES = 200  # of groups, for the standard error of a gain

Candidate = tuple[float, int]  # a threshold or weight, and a width


@dataclass(frozen=True)
class Fitted:
    """How one kind of prediction is combined, smoothed and decided.

    ``threshold`` is a gate's, else None. ``weight`` is that of the backbone's logits or values in a blend, 0 in a gate.
    ``bias`` (C,) is of classes, ``thresholds`` (A,) of action units. ``score`` is what cross-validation over the
    training groups says of it (macro-F1, CCC or F1), ``alone`` what it says of the adapter's predictions as they are.
    """

    width: int = 1
    weight: float = 0.0
    threshold: float | None = None
    bias: Sequence[float] = ()
    thresholds: Sequence[float] = ()
    score: float | None = None
    alone: float | None = None

    @property
    def uses_backbone(self) -> bool:
        return self.weight > 0 or (self.threshold is not None and self.threshold < 1)


@dataclass(frozen=True)
class Frames:
    """Of n frames sorted by (video, number): video (n,), number (n,), and fold (n,) and group (n,), codes from 0."""

    video: np.ndarray
    number: np.ndarray
    group: np.ndarray
    fold: np.ndarray


def way_of(run: Path, store: FeatureStore | Stores, wanted: str | None, facts: Sequence[Mapping[str, Any]]) -> str:
    """How the networks of a run are combined: as ``wanted``, or where that is None as the run was trained.

    ``facts`` are those of each adapter. Raises ``UserError`` where a network has not fitted the way that is wanted, and
    where the store has no logits.
    """
    fitted = [of["combine"] for of in facts if "combine" in of]
    way = (fitted[0]["way"] if len(fitted) == len(facts) else "none") if wanted is None else wanted
    if way != "none":
        check_logits(way, store)
    if wanted in ("gate", "blend") and len(fitted) < len(facts):
        raise UserError(
            f"{run} has not fitted how to combine its predictions with the backbone's: train it with --combine {wanted}"
        )
    return way


def check_logits(way: str, store: FeatureStore | Stores) -> None:
    """Raises ``UserError`` where the store has no logits of the backbone."""
    if "logits" not in store.widths:
        raise UserError(f"combine '{way}' needs the backbone's logits, and the store {store.path} has none")


def fitted_of(facts: Mapping[str, Any], way: str) -> dict[str, Fitted]:
    """What an adapter's facts hold of a way, by what is predicted."""
    return {what: Fitted(**of) for what, of in facts["combine"]["ways"][way].items()}


def in_words(facts: Sequence[Mapping[str, Any]], way: str) -> str:
    """'gate: classes from the backbone where its probability is above 0.85, box of 51; fitted on ...' of networks."""
    each = [fitted_of(of, way) for of in facts]
    words = []
    for what, called in {"classes": "classes", "va": "valence and arousal", "aus": "action units"}.items():
        known = [of[what] for of in each if what in of]
        if not known:
            continue
        if all(not of.uses_backbone for of in known):
            how = "the adapter's own"
        elif known[0].threshold is not None:
            how = f"the backbone's where its probability is above {_several(of.threshold for of in known)}"
        else:
            how = f"{_several(of.weight for of in known)} of the backbone's"
        smoothed = f"smoothed over {_several(of.width for of in known)} frames"
        scores = ", ".join(f"{of.score:.3f}, and {of.alone:.3f} as the adapter predicts" for of in known)
        words.append(f"{called} {how}, {smoothed} (cross-validated {scores})")
    of = facts[0]["combine"]
    return (
        f"{way}: {'; '.join(words)}. Fitted on {of['frames']:,} training frames of {of['groups']:,} groups in "
        f"{of['folds']} folds"
    )


def _several(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def combine(
    fitted: Mapping[str, Fitted], predictions: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What is fitted of 'classes' (n, C), 'aus' (n, A), 'va' (n, 2), combined, before smoothing.

    ``predictions`` are the adapter's: probabilities of classes and units, and values. ``own`` are the backbone's:
    the same where it has them, NaN where it has no output for a unit or a frame, and with classes 'sure' (n,), its own
    probability of its class, and 'known' (C,), the classes that it has.
    """
    return {what: _combined(of, what, predictions[what], own) for what, of in fitted.items()}


def decided(fitted: Fitted, smoothed: np.ndarray) -> np.ndarray:
    """Smoothed predictions with the class biases."""
    return with_bias(smoothed, np.array(fitted.bias)) if np.any(fitted.bias) else smoothed


def gate(adapter: np.ndarray, backbone: np.ndarray, sure: np.ndarray, threshold: float) -> np.ndarray:
    """Probabilities (n, C): the backbone's where ``sure`` (n,) is above the threshold, else the adapter's."""
    return np.where((sure > threshold)[:, None], backbone, adapter)


def blend(adapter: np.ndarray, backbone: np.ndarray, known: np.ndarray, weight: float) -> np.ndarray:
    """Probabilities (n, C) of weight · backbone's logits + (1 - weight) · adapter's.

    Logits are logarithms of probabilities: what that takes from them is a number for all classes of a frame, which
    changes no probability. A class that the backbone does not have (``known`` (C,)) keeps the probability that the
    adapter gives it; the others share the rest.
    """
    if weight == 0:
        return adapter
    logits = weight * log_of(backbone[:, known]) + (1 - weight) * log_of(adapter[:, known])
    e = np.exp(logits - logits.max(1, keepdims=True))
    out = adapter.astype(np.float64)
    out[:, known] = out[:, known].sum(1, keepdims=True) * e / e.sum(1, keepdims=True)
    return out


def blend_units(adapter: np.ndarray, backbone: np.ndarray, weight: float) -> np.ndarray:
    """Probabilities (n, A) of the weighted mean of both logits; the adapter's where the backbone's is NaN."""
    if weight == 0:
        return adapter
    logits = [log_of(p) - log_of(1 - p) for p in (backbone, adapter)]
    mixed = 1 / (1 + np.exp(-(weight * logits[0] + (1 - weight) * logits[1])))
    return np.where(np.isnan(backbone), adapter, mixed)


def _combined(fitted: Fitted, what: str, adapter: np.ndarray, own: Mapping[str, np.ndarray]) -> np.ndarray:
    if not fitted.uses_backbone:
        return adapter
    if what == "classes" and fitted.threshold is not None:
        return gate(adapter, own["classes"], own["sure"], fitted.threshold)
    if what == "classes":
        mixed, there = blend(adapter, own["classes"], own["known"], fitted.weight), ~np.isnan(own["sure"])
        return np.where(there[:, None], mixed, adapter)
    if what == "aus":
        return blend_units(adapter, own["aus"], fitted.weight)
    mixed = np.clip(fitted.weight * own["va"] + (1 - fitted.weight) * adapter, -1, 1)
    return np.where(np.isnan(mixed), adapter, mixed)


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
        combined = _combined(as_fitted(candidate), what, values, own)
        return smooth(combined, frames.video, frames.number, "box", candidate[1])

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
