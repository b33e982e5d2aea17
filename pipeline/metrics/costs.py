"""What a macro-F1 hangs on: what it would be without each group, and what each confusion costs it.

A rare class may be that of few videos, and its F1 counts as much as that of any other. Then the score says more of
these videos than of the run.
"""

import numpy as np

from pipeline.metrics.grouped import sums_by

AT_ONCE = 4096  # groups


def without_each(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """Macro-F1 (G,) of all frames but those of each group: leave one group out. NaN where no other frame is left.

    Codes (n,); a frame whose label is -1 is left out. The confusion matrix of a group (its diagonal and its sums, which
    is all that F1 needs of it) is taken from that of all frames, so that nothing is scored again. The mean is over the
    classes that the truth of the other frames has, as in ``protocol.expression``: a class that one group alone has
    leaves with it.
    """
    num_groups = int(groups.max(initial=-1)) + 1
    known = labels >= 0
    labels, predicted, groups = labels[known], predicted[known], groups[known]
    right = labels == predicted
    of_groups = [
        sums_by(of, codes, num_groups, num_classes)
        for of, codes in ((groups[right], labels[right]), (groups, labels), (groups, predicted))
    ]
    totals = [np.asarray(of.sum(axis=0)).ravel() for of in of_groups]
    found = np.empty(num_groups)
    for start in range(0, num_groups, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        hits, true, positive = (total - of[some].toarray() for total, of in zip(totals, of_groups, strict=True))
        f1 = 2 * hits / np.maximum(true + positive, 1)
        with np.errstate(invalid="ignore"):
            found[some] = np.where(true > 0, f1, 0).sum(1) / (true > 0).sum(1)
    return found


def gain_if_right(confusion: np.ndarray, true: np.ndarray, predicted: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """How much macro-F1 would gain (k,) if so many ``frames`` (k,) of a cell were right; each by itself.

    ``confusion`` (C, C) are numbers of frames by true and predicted class, ``true`` and ``predicted`` (k,) the class of
    each cell, which differ. The frames move to the diagonal: to the hits of the true class, and out of the predictions
    of the other. An F1 counts where the truth has the class.
    """
    hits, trues, positives = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    present = trues > 0

    def f1(of: np.ndarray, more_hits: np.ndarray, more_positives: np.ndarray) -> np.ndarray:
        value = 2 * (hits[of] + more_hits) / np.maximum(trues[of] + positives[of] + more_positives, 1e-12)
        return np.where(present[of], value, 0)

    zero = np.zeros_like(frames)
    gain = f1(true, frames, frames) - f1(true, zero, zero)
    gain = gain + f1(predicted, zero, -frames) - f1(predicted, zero, zero)
    return gain / max(int(present.sum()), 1)
