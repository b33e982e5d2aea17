"""What predictions of clips are measured by, beside what frames are. The functions give measures (``grouped``)."""

from collections.abc import Sequence

import numpy as np

from pipeline.metrics.grouped import Measure, Weights, summed, sums_by


def recalls(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, classes: Sequence[str]) -> Measure:
    """Measures ``war``, ``uar`` and ``recall_of_<class>`` of codes (n,); a clip whose label is -1 is left out.

    WAR, the weighted average recall, is the mean of the recalls of the classes, each weighted by its number of clips:
    the accuracy. UAR, the unweighted one, is their plain mean (Schuller et al. 2009, the Interspeech emotion challenge;
    Jiang et al. 2020, DFEW, https://arxiv.org/abs/2008.05924). Edge: a class that the truth lacks has no recall (NaN)
    and is left out of the mean.
    """
    known = labels >= 0
    labels, predicted, num_groups = labels[known], predicted[known], int(groups.max(initial=-1)) + 1
    groups, right = groups[known], labels == predicted
    counts = [
        sums_by(of, codes, num_groups, len(classes)) for of, codes in ((groups[right], labels[right]), (groups, labels))
    ]

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        hits, true = (summed(weights, count) for count in counts)
        recall = np.where(true > 0, hits / np.maximum(true, 1), np.nan)
        there = true > 0
        with np.errstate(invalid="ignore"):
            war = hits.sum(1) / true.sum(1)
            uar = np.where(there, recall, 0).sum(1) / there.sum(1)
        return {"war": war, "uar": uar} | {f"recall_of_{name}": recall[:, c] for c, name in enumerate(classes)}

    return measure


def pearson(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray, outputs: Sequence[str]) -> Measure:
    """Measures ``pearson``, the mean of ``pearson_<output>``, of (n, K); a cell of NaN in the truth is left out.

    Pearson's correlation of each output over all n, as in the emotional mimicry challenges (Kollias et al. 2024,
    https://arxiv.org/abs/2402.19344). Edge: 0 where the prediction is constant; an output whose truth is constant has
    none (NaN) and is left out of the mean.
    """
    known = ~np.isnan(truth)
    if np.isnan(predicted[known]).any():
        raise ValueError("every cell with a truth needs a prediction")
    num_groups, num_outputs = int(groups.max(initial=-1)) + 1, len(outputs)
    x, y = (np.where(known, values, 0).astype(np.float64) for values in (truth, predicted))
    count = np.maximum(known.sum(0), 1)
    x, y = ((values - values.sum(0) / count) * known for values in (x, y))  # sums of squares of what is small
    moments = np.stack([known.astype(np.float64), x, y, x * x, y * y, x * y])  # (6, n, K)
    sums = np.zeros((num_groups, 6, num_outputs))
    for j, k in np.ndindex(6, num_outputs):
        sums[:, j, k] = np.bincount(groups, moments[j, :, k], num_groups)

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        drawn = summed(weights, sums.reshape(num_groups, -1)).reshape(-1, 6, num_outputs)
        with np.errstate(invalid="ignore", divide="ignore"):
            mx, my, xx, yy, xy = np.moveaxis(drawn[:, 1:] / drawn[:, :1], 1, 0)
            vx, vy = xx - mx**2, yy - my**2
            each = np.where(vx > 1e-12, np.where(vy > 1e-12, (xy - mx * my) / np.sqrt(vx * vy), 0.0), np.nan)
            there = ~np.isnan(each)
            mean = np.where(there, each, 0).sum(1) / there.sum(1)
        return {"pearson": mean} | {f"pearson_{name}": each[:, k] for k, name in enumerate(outputs)}

    return measure
