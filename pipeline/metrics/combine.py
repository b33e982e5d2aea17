"""The predictions of an adapter and those of its frozen backbone as one. (How that is fitted: ``combine_fit``.)

Two ways (HSEmotion at the 10th ABAW, https://arxiv.org/abs/2603.12693, has the first):

gate    where the backbone's own probability of its class exceeds a threshold, its probabilities, else the adapter's
blend   a weighted mean of both logits; of valence and arousal a weighted mean of the values, held within -1 and 1

A gate is of classes: valence, arousal and action units have nothing to be sure of, and are blended with either way.
Then all are smoothed by a box of the fitted width, and the fitted biases are added to the logits of classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores
from pipeline.metrics.smoothing import log_of, with_bias

WAYS = ("none", "gate", "blend")
WHAT = ("classes", "va", "aus")
HELP = (
    "how predictions are combined with the frozen backbone's own: gate takes the backbone's class where it is sure, "
    "blend the mean of both logits, as the run fitted on its training groups; default: as the run was trained"
)


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
    return {what: combined(of, what, predictions[what], own) for what, of in fitted.items()}


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


def combined(fitted: Fitted, what: str, adapter: np.ndarray, own: Mapping[str, np.ndarray]) -> np.ndarray:
    """One kind of prediction, as ``combine`` gives it."""
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
