"""Thresholds of action units, fitted on predictions for training groups by networks that have not seen them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pipeline.core.frame_set import PARTS, FrameSet, folds_of
from pipeline.metrics.thresholds import best_thresholds
from pipeline.metrics.vectors import evenly
from pipeline.training.data import TrainingData, made_of, windows_of
from pipeline.training.start import first

MOST_FRAMES = 100_000  # evenly spaced ones whose predictions the thresholds are fitted on
AT_ONCE = 8192  # windows that are predicted at a time


def fit_thresholds(
    data: TrainingData, seed: int, epochs: int, folds: int, say: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The thresholds (A,) by which the F1 of each unit is the largest, and what they are fitted on.

    The groups of the training and selection parts are cut into ``folds``. For each fold a further network is trained on
    the others, from the seed's first weights, for as many ``epochs`` as the best one of the run. It predicts the frames
    of its fold. The thresholds are fitted on these predictions of all folds together. The validation part is no part of
    this.

    Why not on the run's own predictions of its training frames: it is far surer of these than of people that it has
    never seen, so that their thresholds are too high. (docs/evaluation.md has the numbers.)

    Where there are fewer groups than ``folds``, each group is a fold. One group alone leaves nothing to train on: None.
    """
    frames, predicted, truth = data.frames, [], []
    rows = np.union1d(frames.centres("train"), frames.centres("select"))
    folds = min(folds, len(np.unique(frames.group[rows])))
    if folds < 2:
        return None
    strata = np.minimum(np.nansum(frames.aus[rows], axis=1), 4).astype(np.int64)
    fold_of = folds_of(strata, frames.group[rows], folds, data.config.split_seed)
    fitted_on = rows[_evenly_known(frames, rows)]
    for fold in range(folds):
        say(f"thresholds of action units, network {fold + 1} of {folds}")
        held = np.intersect1d(fitted_on, rows[fold_of == fold])
        if not len(held):
            continue
        adapter, trainer = first(_trained_on(data, rows[fold_of != fold]), seed)
        for epoch in range(epochs):
            trainer.epoch(epoch)
        trainer.let_go()
        for some in np.array_split(held, -(-len(held) // AT_ONCE)):
            with torch.inference_mode():
                predicted.append(made_of(data, adapter, some).predict("aus").double().sigmoid().cpu())
            truth.append(frames.aus[some])
    thresholds = best_thresholds(np.concatenate(truth), torch.cat(predicted).numpy())
    groups = len(np.unique(frames.group[fitted_on]))
    return thresholds, {"folds": folds, "frames": len(fitted_on), "groups": groups}


def _evenly_known(frames: FrameSet, rows: np.ndarray) -> np.ndarray:
    """Places in ``rows`` of frames that have a label of an action unit: evenly spaced ones where they are many."""
    known = np.flatnonzero(~np.isnan(frames.aus[rows]).all(axis=1))
    return known[evenly(len(known), MOST_FRAMES)]


def _trained_on(data: TrainingData, rows: np.ndarray) -> TrainingData:
    """The same, with these rows of its frames as the training part."""
    part = np.full_like(data.frames.part, -1)
    part[rows] = PARTS.index("train")
    around, of = windows_of(data.config, data.frames, data.windows, rows)
    frames = dataclasses.replace(data.frames, part=part)
    return dataclasses.replace(data, frames=frames, rows=around, centres=rows[of])
