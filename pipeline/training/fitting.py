"""What is fitted of a trained seed, on predictions for training groups by networks that have not seen them.

These are the thresholds of action units, and how predictions are combined with the frozen backbone's own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.adapter.backbone import stored_logits
from pipeline.core.frame_set import PARTS, FrameSet
from pipeline.metrics import combine
from pipeline.metrics.combine_fit import Frames, fit
from pipeline.metrics.thresholds import best_thresholds
from pipeline.metrics.vectors import evenly
from pipeline.training.data import TrainingData
from pipeline.training.out_of_fold import OutOfFold, predict_out_of_fold

MOST_FRAMES = 100_000  # evenly spaced ones whose predictions each is fitted on


@dataclasses.dataclass(frozen=True)
class Fitted:
    """``thresholds`` (A,) and what they are fitted on; ``combine`` as an adapter's facts have it. None: not fitted."""

    thresholds: tuple[np.ndarray, dict[str, int]] | None = None
    combine: dict[str, Any] | None = None


def wanted_of(data: TrainingData, predicts: Sequence[str]) -> list[str]:
    """What the config wants fitted of an adapter that predicts so: some of 'thresholds' and 'combine'."""
    config = data.config
    wanted = ["thresholds"] if "aus" in predicts and config.au_threshold_folds is not None else []
    return wanted + (["combine"] if config.combine != "none" else [])


def fit_out_of_fold(
    data: TrainingData, predicts: Sequence[str], seed: int, epochs: int, say: Callable[[str], None]
) -> Fitted:
    """Fits what is wanted. Where both have the same number of folds, the same further networks serve both.

    Nothing is fitted where there is one training group alone.
    """
    frames, config = data.frames, data.config
    asked: dict[str, tuple[int, np.ndarray, list[str]]] = {}
    wanted = wanted_of(data, predicts)
    if "thresholds" in wanted:
        asked["thresholds"] = (config.au_threshold_folds, _with_units(frames), ["aus"])
    if "combine" in wanted:
        whats = [what for what in combine.WHAT if what in predicts]
        asked["combine"] = (config.combine_folds, _of_training_videos(frames), whats)
    predicted: dict[int, OutOfFold | None] = {}
    for folds in dict.fromkeys(folds for folds, _, _ in asked.values()):
        same = [(rows, whats) for of, rows, whats in asked.values() if of == folds]
        rows = np.unique(np.concatenate([rows for rows, _ in same]))
        whats = list(dict.fromkeys(what for _, whats in same for what in whats))
        predicted[folds] = predict_out_of_fold(data, seed, epochs, folds, rows, whats, say)
    found: dict[str, Any] = {}
    for what, (folds, rows, _) in asked.items():
        if (of := predicted[folds]) is not None:
            found[what] = {"thresholds": _thresholds, "combine": _combination}[what](data, of.of(rows))
    return Fitted(**found)


def _thresholds(data: TrainingData, predicted: OutOfFold) -> tuple[np.ndarray, dict[str, int]]:
    """The thresholds (A,) by which the F1 of each unit is the largest on predictions of all folds together."""
    truth = data.frames.aus[predicted.rows]
    return best_thresholds(truth, predicted.values["aus"]), predicted.facts(data.frames)


def _combination(data: TrainingData, predicted: OutOfFold) -> dict[str, Any]:
    """Both ways, as ``metrics.combine_fit.fit`` fits them, what they are fitted on, and the way that is taken."""
    frames, rows = data.frames, predicted.rows
    known = np.isin(frames.part[rows], [PARTS.index("train"), PARTS.index("select")])
    truth = {
        "classes": np.where(known, frames.label[rows], -1),
        "va": np.where(known[:, None], frames.va[rows], np.nan),
        "aus": np.where(known[:, None], frames.aus[rows], np.nan),
    }
    own = data.backbone.of(stored_logits(data.store, frames.row[rows]))
    group = np.unique(frames.group[rows], return_inverse=True)[1]
    of = Frames(frames.video[rows], data.frame_numbers[rows], group, predicted.fold)
    fitted = fit(predicted.values, own, truth, of)
    ways = {way: {what: dataclasses.asdict(each) for what, each in of.items()} for way, of in fitted.items()}
    return {"way": data.config.combine, **predicted.facts(frames), "ways": ways}


def _with_units(frames: FrameSet) -> np.ndarray:
    """Training frames that have a label of an action unit: evenly spaced ones where they are many."""
    rows = _training(frames)
    rows = rows[~np.isnan(frames.aus[rows]).all(axis=1)]
    return rows[evenly(len(rows), MOST_FRAMES)]


def _of_training_videos(frames: FrameSet) -> np.ndarray:
    """All frames of the training videos, over which predictions are smoothed; evenly spaced ones where they are many.

    A width in frame numbers then holds fewer frames, and means the same.
    """
    training = _training(frames)
    inside = np.isin(frames.video, frames.video[training]) & np.isin(frames.group, frames.group[training])
    rows = np.flatnonzero(inside & ~np.isin(frames.part, [PARTS.index("val"), PARTS.index("test")]))
    return rows[evenly(len(rows), MOST_FRAMES)]


def _training(frames: FrameSet) -> np.ndarray:
    return np.union1d(frames.centres("train"), frames.centres("select"))
