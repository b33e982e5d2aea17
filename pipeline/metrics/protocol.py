"""The metrics of the ABAW challenge, pooled over all valid frames, and predictions for every frame of a video.

Kollias et al., https://arxiv.org/abs/2202.10659 (third ABAW competition): macro-F1 of 8 expressions, mean of the
concordance correlations of valence and arousal, mean F1 of 12 action units. The functions give measures (``grouped``).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.metrics.grouped import Measure, Weights, summed, sums_by


def expression(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, classes: Sequence[str]) -> Measure:
    """Measures ``macro_f1``, ``accuracy`` and ``f1_<class>`` of codes (n,); a frame whose label is -1 is left out.

    Edge: a class that the truth lacks is left out of the mean (its F1 is NaN), also where it is predicted, which costs
    the recall of the others. A mean over 'all 8 classes' is the same wherever all 8 occur, as they do in ABAW; where a
    resample misses the few videos of a class, a zero for it would say nothing about the predictions.
    """
    num_groups = int(groups.max(initial=-1)) + 1
    labels, predicted, groups = _labelled(labels, predicted, groups, len(classes))
    right = labels == predicted
    # Of each group only the classes that occur in it: photographs have as many groups as frames, and any number of
    # classes.
    counts = [
        sums_by(of, codes, num_groups, len(classes))
        for of, codes in ((groups[right], labels[right]), (groups, labels), (groups, predicted))
    ]

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        hits, true, positive = (summed(weights, count) for count in counts)
        f1 = np.where(true > 0, 2 * hits / np.maximum(true + positive, 1), np.nan)
        with np.errstate(invalid="ignore"):
            accuracy = hits.sum(1) / true.sum(1)
        each = {f"f1_{name}": f1[:, c] for c, name in enumerate(classes)}
        return {"macro_f1": _mean_of_known(f1), "accuracy": accuracy, **each}

    return measure


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Numbers of frames (C, C) by true and predicted class; frames whose label is -1 are left out."""
    labels, predicted, _ = _labelled(labels, predicted, labels, num_classes)
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def _labelled(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Only the frames whose label is not -1; raises ``ValueError`` where one of them has no prediction."""
    known = labels >= 0
    labels, predicted, groups = labels[known], predicted[known], groups[known]
    if len(labels) and not (predicted.min() >= 0 and max(labels.max(), predicted.max()) < num_classes):
        raise ValueError(f"classes are 0 to {num_classes - 1}: every frame with a label needs a prediction among them")
    return labels, predicted, groups


def valence_arousal(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Measure:
    """Measures ``ccc``, ``ccc_valence`` and ``ccc_arousal`` of (n, 2); a frame with a NaN in its truth is left out.

    CCC = 2 cov(x, y) / (var x + var y + (mean x - mean y)²), all over n (Lin 1989, https://doi.org/10.2307/2532051).
    Edge: NaN where truth and prediction are one constant; 0 where only one of them is constant.
    """
    valid = ~np.isnan(truth).any(1)
    num_groups = int(groups.max(initial=-1)) + 1
    x, y, groups = truth[valid].astype(np.float64), predicted[valid].astype(np.float64), groups[valid]
    if np.isnan(y).any():
        raise ValueError(f"{int(np.isnan(y).any(1).sum())} frames with a truth have no prediction")
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])  # (6, n, 2)
    sums = np.zeros((num_groups, 6, 2))
    for j, k in np.ndindex(6, 2):
        sums[:, j, k] = np.bincount(groups, moments[j, :, k], num_groups)

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        drawn = summed(weights, sums.reshape(num_groups, 12)).reshape(-1, 6, 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            mx, my, xx, yy, xy = np.moveaxis(drawn[:, 1:] / drawn[:, :1], 1, 0)
            spread = (xx - mx**2) + (yy - my**2) + (mx - my) ** 2
            ccc = np.where(spread > 1e-12, 2 * (xy - mx * my) / spread, np.nan)
        return {"ccc": ccc.mean(1), "ccc_valence": ccc[:, 0], "ccc_arousal": ccc[:, 1]}

    return measure


def action_units(
    truth: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    units: Sequence[str],
    thresholds: np.ndarray | float = 0.5,
) -> Measure:
    """Measures ``au_f1``, the mean of the binary ``f1_<unit>``, of (n, U).

    Predicted is what is at or above ``thresholds``: one number, one a unit (U,), or one a cell (n, U). A cell of NaN in
    the truth is left out by itself. Edge: a unit that the truth never has is left out of the mean.
    """
    valid = ~np.isnan(truth)
    if np.isnan(probabilities[valid]).any():
        raise ValueError(
            f"{int((np.isnan(probabilities) & valid).any(1).sum())} frames with a truth have no prediction"
        )
    num_groups = int(groups.max(initial=-1)) + 1
    true, positive = valid & (truth > 0.5), valid & (probabilities >= thresholds)
    counts = [_by_group(x, groups, num_groups) for x in (true & positive, true, positive)]

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        hits, trues, positives = (summed(weights, count) for count in counts)
        f1 = np.where(trues > 0, 2 * hits / np.maximum(trues + positives, 1), np.nan)
        return {"au_f1": _mean_of_known(f1)} | {f"f1_{name}": f1[:, u] for u, name in enumerate(units)}

    return measure


def multi_task(
    labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str],
    va_truth: np.ndarray, va_predicted: np.ndarray,
    au_truth: np.ndarray, probabilities: np.ndarray, units: Sequence[str], thresholds: np.ndarray | float,
    groups: np.ndarray,
) -> Measure:  # fmt: skip
    """Measures ``p_mtl``, the score of ABAW's multi-task challenge: a sum of three, from about -1 to 3.

    P_MTL = (CCC of valence + CCC of arousal) / 2 + macro-F1 of the expressions + mean F1 of the action units (Kollias
    et al. 2024, 7th ABAW, https://arxiv.org/abs/2407.03835). The parts are ``ccc``, ``macro_f1`` and
    ``au_f1`` as ``valence_arousal``, ``expression`` and ``action_units`` measure them:

    - Rows: each part is of all frames that have its own label, whether they have the other two or not, pooled over
      videos. Valence and arousal count where a frame has both, a unit where its cell has a label.
    - Classes: those that the truth has. In ABAW these are all 8, Other among them. A class that is only predicted is no
      class of the mean.
    - Units: those that the truth has at least once active. In ABAW these are all 12. Active is predicted at or above
      the unit's threshold.

    Edge: NaN where one of the three cannot be measured.
    """
    parts = (
        ("ccc", valence_arousal(va_truth, va_predicted, groups)),
        ("macro_f1", expression(labels, predicted, groups, classes)),
        ("au_f1", action_units(au_truth, probabilities, groups, units, thresholds)),
    )

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        return {"p_mtl": sum(part(weights)[name] for name, part in parts)}

    return measure


def _by_group(x: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    return np.stack([np.bincount(groups, column, num_groups) for column in x.T], axis=1)


def _mean_of_known(x: np.ndarray) -> np.ndarray:
    """Mean of each row without its NaN; NaN where there is nothing else."""
    known = ~np.isnan(x)
    with np.errstate(invalid="ignore"):
        return np.where(known, x, 0).sum(1) / known.sum(1)


def on_every_frame(
    video: np.ndarray, frame: np.ndarray, values: np.ndarray, wanted_video: np.ndarray, wanted_frame: np.ndarray
) -> np.ndarray:
    """Values (m, C) at the wanted frames, from values (n, C) at the frames that have one, in any order.

    Between two frames of a video linear in the frame number; before its first and after its last frame theirs. Videos
    are names or codes. Raises ``ValueError`` for a wanted video without any value, and for a key that is there twice.
    """
    code, names = pd.factorize(np.concatenate([video, wanted_video]))
    code, wanted = code[: len(video)], code[len(video) :]
    nowhere = np.setdiff1d(wanted, code)
    if len(nowhere):
        raise ValueError(f"{len(nowhere)} videos have no prediction to fill from, such as {names[nowhere[0]]}")
    if len(wanted) == 0:
        return values[:0].astype(np.float64)
    low = int(min(frame.min(), wanted_frame.min()))
    stretch = int(max(frame.max(), wanted_frame.max())) - low + 1
    order = np.argsort(code * stretch + (frame - low), kind="stable")
    key, code, frame, values = (code * stretch + (frame - low))[order], code[order], frame[order], values[order]
    if (np.diff(key) == 0).any():
        raise ValueError(f"{int((np.diff(key) == 0).sum())} frames have more than one prediction")
    first, end = np.searchsorted(code, wanted), np.searchsorted(code, wanted, side="right")
    right = np.searchsorted(key, wanted * stretch + (wanted_frame - low))
    left, right = np.maximum(right - 1, first), np.minimum(right, end - 1)
    span = frame[right] - frame[left]
    share = ((wanted_frame - frame[left]) / np.maximum(span, 1)).clip(0, 1)[:, None]
    share[span == 0] = 0
    return (1 - share) * values[left] + share * values[right]
