"""Whether a threshold on a score tells pairs of one emotion from others: ROC, AUC, EER, TPR at an FPR, F1.

The pairs are those of frames of two groups, as in ``pair_cosines``. They are counted once, by the bin of their score,
so that a resample of groups is a sum of counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pipeline.metrics.grouped import Measure, constant
from pipeline.metrics.pair_cosines import opposite_table
from pipeline.metrics.vectors import evenly, normalised

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of rows (r,) and (c,): how alike each pair is (r, c)
KINDS = ("same", "other", "opposite")  # 'different' is other and opposite together
FALSE_POSITIVE_RATES = {"1e-1": 0.1, "1e-2": 0.01, "1e-3": 0.001}
BLOCK = 256
PAIRS, RESAMPLES = 8192, 64  # of whose products is a block: it and what it is added to stay in the caches


@dataclass(frozen=True)
class PairCounts:
    """How many pairs of ``pairs`` (P, 2) of groups have a score (the cosine, say) between two of ``edges`` (bins + 1,).

    ``counts`` (P, 3 * bins) has the bins of each of ``KINDS`` one after the other. ``num_frames`` were compared.
    """

    edges: np.ndarray
    pairs: np.ndarray
    counts: sparse.csr_array
    num_frames: int

    @property
    def centres(self) -> np.ndarray:
        """The score (bins,) that stands for each bin: its middle."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def histogram(self, weights: np.ndarray) -> np.ndarray:
        """Numbers of pairs (R, 3, bins)."""
        starts = range(0, len(self.pairs), PAIRS)
        parts = [(*self.pairs[s : s + PAIRS].T, self.counts[s : s + PAIRS].T) for s in starts]
        out = np.zeros((len(weights), self.counts.shape[1]))
        for start in range(0, len(weights), RESAMPLES):
            of_group = np.ascontiguousarray(weights[start : start + RESAMPLES].T, dtype=np.float64)
            total = np.zeros((out.shape[1], of_group.shape[1]))
            for a, b, counts in parts:
                total += counts @ (of_group[a] * of_group[b])
            out[start : start + RESAMPLES] = total.T
        return out.reshape(len(weights), len(KINDS), -1)


def pair_counts(
    embeddings: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    opposites: Sequence[tuple[int, int]] = (),
    most: int = 4000,
    bins: int = 1024,
) -> PairCounts:
    """Counts of the cosines of all pairs of at most ``most`` evenly spaced rows (n, E), by kind and pair of groups.

    Measured: the bins move an AUC by less than 1e-4; 70 videos and 4,000 rows take 1 s and as much again for 1,000
    resamples, 20,000 rows 15 s. Groups of one row each (photographs) have the most pairs of groups: 1,000 resamples of
    4,000 rows take 10 to 20 s.
    """
    chosen = evenly(len(labels), most)
    z = normalised(embeddings[chosen])
    return counts_of(lambda a, b: z[a] @ z[b].T, labels[chosen], groups[chosen], num_classes, opposites, bins)


def counts_of(
    score: Score,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    opposites: Sequence[tuple[int, int]] = (),
    bins: int = 1024,
    looked_at: int = 500,
) -> PairCounts:
    """Counts of the scores of all pairs of n rows, by kind and pair of groups. A score is the same from both sides.

    In blocks of 256 rows, never (n, n). The bins lie evenly around the scores of ``looked_at`` rows; what lies beyond
    is in the first and last.
    """
    order = np.argsort(groups, kind="stable")
    label, group = labels[order], groups[order]
    edges = _edges(score, order[evenly(len(order), looked_at)], bins)
    names, group = np.unique(group, return_inverse=True)  # of many groups the sample may have few
    num_groups = len(names)
    kind = np.where(np.eye(num_classes, dtype=bool), 0, np.where(opposite_table(opposites, num_classes), 2, 1))
    after = np.searchsorted(group, group, side="right")  # rows are sorted by group: the first of a later one
    keys, numbers = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(order), BLOCK):
        rows, columns = slice(start, start + BLOCK), slice(after[start], None)
        place = (score(order[rows], order[columns]) - edges[0]) * (bins / (edges[-1] - edges[0]))
        key = place.clip(0, bins - 1).astype(np.int64)
        key += kind[np.ix_(label[rows], label[columns])] * bins
        key += (group[rows, None] * num_groups + group[None, columns]) * (len(KINDS) * bins)
        key, number = np.unique(key[group[rows, None] < group[None, columns]], return_counts=True)
        keys.append(key)
        numbers.append(number)
    keys, counted = np.concatenate(keys), np.concatenate(numbers).astype(np.float64)
    pair = keys // (len(KINDS) * bins)
    there = np.zeros(num_groups**2, dtype=bool)
    there[pair] = True
    row, place = (np.cumsum(there, dtype=np.int32) - 1)[pair], (keys % (len(KINDS) * bins)).astype(np.int32)
    pairs = names[np.stack(np.divmod(np.flatnonzero(there), max(1, num_groups)), axis=1)]
    counts = sparse.csr_array((counted, (row, place)), shape=(len(pairs), len(KINDS) * bins))
    return PairCounts(edges, pairs, counts, len(order))


def _edges(score: Score, few: np.ndarray, bins: int) -> np.ndarray:
    scores = score(few, few)[np.triu_indices(len(few), 1)]
    low, high = float(scores.min(initial=np.inf)), float(scores.max(initial=-np.inf))
    if low > high:  # no pairs
        low, high = -1.0, 1.0
    margin = max((high - low) / 8, 1e-6)
    return np.linspace(low - margin, high + margin, bins + 1)


@dataclass(frozen=True)
class ListedScores:
    """Scores of pairs, each by itself: ``same`` (p,) and ``different`` (q,). For pairs that nobody resamples."""

    same: np.ndarray
    different: np.ndarray


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The probability that one of ``positive`` (p,) is above one of ``negative`` (q,), ties half; NaN without both.

    Counted in whole numbers and divided once: what is told apart altogether has an AUC of exactly 1.
    """
    pairs = len(positive) * len(negative)
    if not pairs:
        return float("nan")
    positive, negative = np.sort(positive), np.sort(negative)  # both: a search for rising values stays in the caches
    below = np.searchsorted(negative, positive)
    tied = negative[np.minimum(below, len(negative) - 1)] == positive
    not_above = np.searchsorted(negative, positive[tied], "right")
    return (int(below.sum()) + int(below[~tied].sum()) + int(not_above.sum())) / (2 * pairs)


def verification(counts: PairCounts | ListedScores) -> Measure:
    """Measures how well a threshold on the score tells 'same' from 'different' and from 'opposite', each (R,).

    ``auc``, ``eer``, ``best_f1``, ``d_prime`` and ``tpr_at_fpr_1e-1`` to ``1e-3`` (identification rate), as
    ``threshold_scores`` has them, each with ``_same_different`` or ``_same_opposite`` behind it. Of listed scores the
    AUC of same and different ones alone, exactly.
    """
    if isinstance(counts, ListedScores):
        return constant(auc_same_different=auc(counts.same, counts.different))

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        same, other, opposite = np.moveaxis(counts.histogram(weights), 1, 0)
        values = {}
        for name, negative in (("different", other + opposite), ("opposite", opposite)):
            scores = threshold_scores(same, negative, counts.centres)
            values |= {f"{score}_same_{name}": value for score, value in scores.items()}
        return values

    return measure


def auc_with_named_pairs(counts: PairCounts | ListedScores) -> Measure:
    """Measures ``paired_auc``: the AUC of the same against different pairs, where named pairs are among both."""
    return lambda weights: {"paired_auc": verification(counts)(weights)["auc_same_different"]}


def best_f1_of_named_pairs(same_scores: np.ndarray, different_scores: np.ndarray) -> Measure:
    """Measures ``paired_best_f1``: the F1 of calling 'the same' what is at a threshold or above, at the best threshold.

    It is of as many same as different pairs, evenly spaced ones of the more frequent kind, since an F1 depends on how
    many of each there are. NaN where one kind is empty.
    """
    count = min(len(same_scores), len(different_scores))
    if not count:
        return constant(paired_best_f1=float("nan"))
    scores = np.concatenate([kind[evenly(len(kind), count)] for kind in (same_scores, different_scores)])
    order = np.argsort(scores)[::-1]
    last = np.append(np.diff(scores[order]) != 0, True)  # of equal scores, which a threshold passes together
    passed = (np.flatnonzero(last) + 1).astype(np.float64)
    hits = np.cumsum(order < count)[last]
    precision, recall = hits / passed, hits / count
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    return constant(paired_best_f1=float(best))


def f1_of_named_pairs(logits: np.ndarray, same: np.ndarray, groups: np.ndarray) -> Measure:
    """Measures ``f1`` of the pairs that the label table names: 'the same' is predicted above a logit of 0.

    ``logits``, ``same`` and ``groups`` (Q,) are those of each pair. NaN where no pair is the same.
    """
    predicted = logits > 0
    kinds = np.stack([predicted & same, predicted, same], axis=1)
    sums = np.stack([np.bincount(groups, kind, int(groups.max(initial=-1)) + 1) for kind in kinds.T], axis=1)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        hits, positive, true = (weights @ sums).T
        return {"f1": np.where(true > 0, 2 * hits / np.maximum(positive + true, 1), np.nan)}

    return measure


def threshold_scores(positive: np.ndarray, negative: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """What a threshold does that passes what is above it; numbers (R, bins) of positives and negatives at ``values``.

    ``auc``: probability that a positive is above a negative, ties half. ``eer``: where false positive and false
    negative rate are equal. ``tpr_at_fpr_*``: share of positives above the threshold that this share of negatives
    passes. Both interpolate the ROC linearly inside a bin (Fawcett 2006, https://doi.org/10.1016/j.patrec.2005.10.010).
    ``best_f1``: of the best threshold; it depends on how many of each there are, and is at least that of calling
    everything positive. ``d_prime``: (mean+ - mean-) / sqrt((var+ + var-) / 2), the d_a of Simpson & Fitter 1973. NaN
    where one side is empty; d_prime also where all values are in one bin.
    """
    total = positive.sum(1, keepdims=True), negative.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, n = positive / total[0], negative / total[1]
        # Summed as whole numbers and divided then: what is told apart altogether has an AUC of exactly 1.
        passed = (np.pad(x[:, ::-1].cumsum(1), ((0, 0), (1, 0))) for x in (positive, negative))
        tpr, fpr = (x / whole for x, whole in zip(passed, total, strict=True))
        f1 = 2 * tpr * total[0] / (tpr * total[0] + fpr * total[1] + total[0])
        mean = (p @ values)[:, None], (n @ values)[:, None]
        variance = sum((x * np.square(values - m)).sum(1) for x, m in zip((p, n), mean, strict=True)) / 2
        d_prime = (mean[0] - mean[1])[:, 0] / np.sqrt(variance)
        auc = (np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(1)
        scores = {
            "auc": auc,
            "eer": crossing(fpr + tpr - 1, 0, fpr),
            "best_f1": np.where(np.isnan(auc), np.nan, f1.max(1)),
            "d_prime": np.where(variance > 0, d_prime, np.nan),
        }
        rates = {f"tpr_at_fpr_{name}": crossing(fpr, rate, tpr) for name, rate in FALSE_POSITIVE_RATES.items()}
    return scores | rates


def crossing(x: np.ndarray, at: float, y: np.ndarray) -> np.ndarray:
    """y (R,) where rows of x (R, K) that never fall pass ``at``, between the last place not above it and the next."""
    rows = np.arange(len(x))
    left = ((x <= at).sum(1) - 1).clip(0, x.shape[1] - 2)
    a, b = x[rows, left], x[rows, left + 1]
    return y[rows, left] + (at - a) / (b - a) * (y[rows, left + 1] - y[rows, left])
