"""Predictions for the training groups by networks that have not seen them: what is fitted after a training needs them.

A network is far surer of its own training frames than of people that it has never seen. What is fitted on such
predictions (thresholds, weights) does not fit others. (docs/evaluation.md has the numbers.)
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.adapter.inference import as_values
from pipeline.core.frame_set import FrameSet, folds_of
from pipeline.training.data import TrainingData, made_of, trained_on
from pipeline.training.start import first

AT_ONCE = 8192  # windows that are predicted at a time


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of the frames ``rows`` (n,), rising, each by the network of ``fold`` (n,), which has not seen it.

    ``values`` by what is predicted, float64: probabilities of 'classes' (n, C) and 'aus' (n, A), values of 'va' (n, 2).
    """

    rows: np.ndarray
    fold: np.ndarray
    values: dict[str, np.ndarray]

    def of(self, rows: np.ndarray) -> "OutOfFold":
        """The same of some of the rows, rising."""
        at = np.searchsorted(self.rows, rows)
        return OutOfFold(rows, self.fold[at], {what: values[at] for what, values in self.values.items()})

    def facts(self, frames: FrameSet) -> dict[str, int]:
        """What is fitted on these predictions was fitted on: folds, frames, groups."""
        folds, groups = (len(np.unique(codes)) for codes in (self.fold, frames.group[self.rows]))
        return {"folds": folds, "frames": len(self.rows), "groups": groups}


def predict_out_of_fold(
    data: TrainingData, seed: int, epochs: int, folds: int, rows: np.ndarray, whats: Sequence[str],
    say: Callable[[str], None],
) -> OutOfFold | None:  # fmt: skip
    """Predictions of ``whats`` for frames ``rows`` (n,), rising, of groups of the training and selection parts.

    These groups are cut into ``folds``. For each fold a further network is trained on the others, from the seed's first
    weights, for as many ``epochs`` as the best one of the run. It predicts the frames of its fold. The validation part
    is no part of this.

    Where there are fewer groups than ``folds``, each group is a fold. One group alone leaves nothing to train on: None.
    """
    frames = data.frames
    training = np.union1d(frames.centres("train"), frames.centres("select"))
    folds = min(folds, len(np.unique(frames.group[training])))
    if folds < 2:
        return None
    fold_of = folds_of(_strata(frames, training), frames.group[training], folds, data.config.split_seed)
    fold_of_group = np.full(int(frames.group.max()) + 1, -1)
    fold_of_group[frames.group[training]] = fold_of
    fold_of_row = fold_of_group[frames.group[rows]]
    parts: dict[str, list[np.ndarray]] = {what: [] for what in whats}
    order = []
    for fold in range(folds):
        say(f"fits on predictions of training groups, network {fold + 1} of {folds}")
        held = np.flatnonzero(fold_of_row == fold)
        if not len(held):
            continue
        # An earlier run has seen the rows that are held out here: these networks start anew.
        rest = dataclasses.replace(trained_on(data, training[fold_of != fold]), earlier=None)
        adapter, trainer = first(rest, seed)
        for epoch in range(epochs):
            trainer.epoch(epoch)
        trainer.let_go()
        for some in np.array_split(held, -(-len(held) // AT_ONCE)):
            with torch.inference_mode():
                made = made_of(data, adapter, rows[some])
                for what, of in parts.items():
                    of.append(as_values(what, made.predict(what).double()).cpu().numpy())
            order.append(some)
    back = np.argsort(np.concatenate(order), kind="stable")
    return OutOfFold(rows, fold_of_row, {what: np.concatenate(of)[back] for what, of in parts.items()})


def _strata(frames: FrameSet, rows: np.ndarray) -> np.ndarray:
    """Codes (n,) of frames that are to stand in all folds alike: by their number of action units, or by class."""
    if frames.aus.shape[1]:
        return np.minimum(np.nansum(frames.aus[rows], axis=1), 4).astype(np.int64)
    return frames.label[rows] + 1
