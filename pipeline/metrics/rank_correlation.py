"""Whether frames that are near in valence and arousal are near as embeddings."""

import numpy as np

from pipeline.metrics.grouped import Measure, constant
from pipeline.metrics.vectors import normalised


def rank_correlation(embeddings: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> Measure:
    """Measures ``rank_correlation_va``: Spearman's correlation of cosine and nearness in valence and arousal.

    It is of all pairs from two ``groups`` (n,) of rows of ``embeddings`` (n, E) and ``truth`` (n, 2). NaN with fewer
    than two pairs, and where all cosines or all distances are the same.
    """
    from scipy.stats import spearmanr  # here: it takes longer to import than all else of a run without such labels

    first, second = np.triu_indices(len(truth), k=1)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    if len(first) < 2:
        return constant(rank_correlation_va=float("nan"))
    z = normalised(embeddings)
    cosine, nearness = (z @ z.T)[first, second], -np.linalg.norm(truth[first] - truth[second], axis=1)
    if np.ptp(cosine) == 0 or np.ptp(nearness) == 0:  # a constant has no ranks
        return constant(rank_correlation_va=float("nan"))
    return constant(rank_correlation_va=float(spearmanr(cosine, nearness).statistic))
