"""The videos and confusions that a run's macro-F1 hangs on, for the tables, the picture and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.metrics.costs import gain_if_right, without_each
from pipeline.metrics.measures import SeedResult, Subset, best_source
from pipeline.metrics.protocol import expression

MOST = 8  # groups, and confusions, that are named
MOST_GROUPS = 3  # of a confusion


@dataclass(frozen=True)
class Costs:
    """Means over seeds of ``best_source``: ``score`` is macro-F1, ``without`` (G,) what it is without each group.

    ``cells`` (k, 3) are group, true and predicted class of confusions, and ``frames`` (k,) how many each has.
    ``gain`` (C, C) is what macro-F1 would gain if the frames of a confusion were right.
    """

    score: float
    without: np.ndarray
    cells: np.ndarray
    frames: np.ndarray
    confusion: np.ndarray
    gain: np.ndarray


def costs_of(subset: Subset, results: Sequence[SeedResult]) -> Costs | None:
    """None where there are no classes, one group alone, or groups of one frame each: no picture costs by itself."""
    rows, source, num_classes = subset.labelled, best_source(results[0]), len(subset.classes)
    if source is None or len(np.unique(subset.group[rows])) < 2 or len(rows) <= len(np.unique(subset.group[rows])):
        return None
    label, group, num_groups = subset.label[rows], subset.group[rows], len(subset.groups)
    scores, without, places = [], [], []
    for result in results:
        predicted = result.predictions[source][""][rows].argmax(1)
        measured = expression(label, predicted, group, subset.classes)(np.ones((1, int(group.max()) + 1)))
        scores.append(measured["macro_f1"][0])
        alone = np.full(num_groups, scores[-1])  # of groups without a label
        alone[: group.max() + 1] = without_each(label, predicted, group, num_classes)
        without.append(alone)
        places.append((group * num_classes + label) * num_classes + predicted)
    cell, count = np.unique(np.concatenate(places), return_counts=True)
    frames = count / len(results)
    cells = np.stack([cell // num_classes**2, cell // num_classes % num_classes, cell % num_classes], axis=1)
    confusion = np.bincount(cell % num_classes**2, frames, num_classes**2).reshape(num_classes, num_classes)
    wrong, gain = cells[:, 1] != cells[:, 2], np.zeros_like(confusion)
    i, j = np.nonzero((confusion > 0) & ~np.eye(num_classes, dtype=bool))
    gain[i, j] = gain_if_right(confusion, i, j, confusion[i, j])
    return Costs(float(np.mean(scores)), np.mean(without, axis=0), cells[wrong], frames[wrong], confusion, gain)


def named(subset: Subset, costs: Costs) -> dict[str, Any]:
    """The groups and confusions that move macro-F1 most, the largest first: as details.json has them.

    A group is named with its videos, the number of its labelled frames, the classes that no other group has, which
    leave the mean with it, and the confusion in it that costs most.
    """
    label, group = subset.label[subset.labelled], subset.group[subset.labelled]
    num_frames = np.bincount(group, minlength=len(subset.groups))
    videos: dict[int, list[str]] = {}
    for code, video in np.unique(np.stack([subset.group, subset.video]), axis=1).T.tolist():
        videos.setdefault(code, []).append(subset.videos[video])
    of_cells = gain_if_right(costs.confusion, costs.cells[:, 1], costs.cells[:, 2], costs.frames)
    move = costs.without - costs.score
    order = [g for g in np.argsort(-np.abs(np.nan_to_num(move)), kind="stable") if abs(move[g]) > 1e-9][:MOST]
    groups = []
    for g in order:
        own = np.flatnonzero(costs.cells[:, 0] == g)
        worst = None
        if len(own):
            k = own[of_cells[own].argmax()]
            worst = _cell(subset.classes, *costs.cells[k, 1:], costs.frames[k], of_cells[k])
        leave = np.setdiff1d(label[group == g], label[group != g])
        groups.append(
            {"group": subset.groups[g], "videos": videos[g], "frames": int(num_frames[g]),
             "leave": [subset.classes[c] for c in leave], "without": float(costs.without[g]), "worst": worst}
        )  # fmt: skip
    confusions = []
    for flat in np.argsort(-costs.gain, axis=None, kind="stable")[:MOST]:
        true, predicted = np.unravel_index(flat, costs.gain.shape)
        if costs.gain[true, predicted] <= 0:
            break
        here = np.flatnonzero((costs.cells[:, 1:] == (true, predicted)).all(1))
        most = here[np.argsort(-costs.frames[here], kind="stable")][:MOST_GROUPS]
        of = [[subset.groups[costs.cells[k, 0]], float(costs.frames[k])] for k in most]
        cell = _cell(subset.classes, true, predicted, costs.confusion[true, predicted], costs.gain[true, predicted])
        confusions.append(cell | {"mostly_in": of, "in": len(here)})
    return {"macro_f1": costs.score, "unit": subset.unit, "groups": groups, "confusions": confusions}


def _cell(classes: Sequence[str], true: int, predicted: int, frames: float, gain: float) -> dict[str, Any]:
    return {"true": classes[true], "predicted": classes[predicted], "frames": float(frames), "gain": float(gain)}
