"""How far emotions stand apart over all pairs of frames of two groups, ready to be resampled by groups.

What is measured is a function of ``weights`` (R, G), the number of times that each of G groups counts in each of R
resamples (``uncertainty``); ``np.ones((1, G))`` is the data as it is. A pair of groups g and h counts w_g · w_h times.
Pairs inside a group, and between two copies of it, are left out: neighbouring frames of a video are twins under any
network. ``groups`` (n,) are codes from 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pipeline.metrics.separation import evenly, normalised

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of rows (r,) and (c,): how alike each pair is (r, c)
KINDS = ("same", "other", "opposite")  # 'different' is other and opposite together
FALSE_POSITIVE_RATES = {"1e-1": 0.1, "1e-2": 0.01, "1e-3": 0.001}
BLOCK = 256
ROWS = 8192
PAIRS, RESAMPLES = 8192, 64  # of whose products is a block: it and what it is added to stay in the caches


def mean_cosines(
    embeddings: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    opposites: Sequence[tuple[int, int]] = (),
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Measures cosine_same, _different, _opposite and both gaps (R,), exactly, of all rows (n, E).

    ``gap_same_opposite`` >= 0 is the project's criterion: mean cosine(same) >= mean cosine(opposite). Linear in n: the
    cosines of all pairs of two sets sum to the product of the sets' sums. NaN where there are no such pairs.
    """
    cells, opposite = _cells(embeddings, labels, groups), _opposite(opposites, num_classes)
    inside = np.zeros((int(groups.max(initial=-1)) + 1, 3, 2))  # of the same class, of all, of opposite ones
    for group, a, b, product in _inside(cells):
        both = np.where(a == b, 1, 2)[:, None] * product
        for kind, chosen in enumerate((a == b, np.ones(len(a), dtype=bool), opposite[a, b])):
            np.add.at(inside, (group[chosen], kind), both[chosen])
    inside = inside.reshape(-1, 6)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        total, kept = np.zeros((len(weights), 3, 2)), {}
        every = np.zeros((len(weights), cells.sums.shape[1]))
        for code in np.unique(cells.label):
            chosen = cells.label == code
            drawn = weights[:, cells.group[chosen]] @ cells.sums[chosen]
            total[:, 0] += _products(drawn, drawn)
            every += drawn
            if opposite[code].any():
                total[:, 2] += sum(2 * _products(drawn, kept[c]) for c in kept if opposite[code, c])
                kept[code] = drawn
        total[:, 1] = _products(every, every)
        same, all_, opposed = np.moveaxis(total - (np.square(weights) @ inside).reshape(-1, 3, 2), 1, 0)
        mean = {kind: _mean(*x.T) for kind, x in (("same", same), ("different", all_ - same), ("opposite", opposed))}
        return {
            **{f"cosine_{kind}": value for kind, value in mean.items()},
            "gap_same_different": mean["same"] - mean["different"],
            "gap_same_opposite": mean["same"] - mean["opposite"],
        }

    return measure


def cosine_matrix(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean cosine (C, C) of every class with every class, pairs of two groups only; NaN where there are none."""
    cells = _cells(embeddings, labels, groups)
    drawn = np.zeros((num_classes, cells.sums.shape[1]))
    np.add.at(drawn, cells.label, cells.sums)
    total = np.stack([drawn[:, :-1] @ drawn[:, :-1].T, np.outer(drawn[:, -1], drawn[:, -1])], axis=2)
    for _, a, b, product in _inside(cells):
        np.subtract.at(total, (a, b), product)
        np.subtract.at(total, (b[a != b], a[a != b]), product[a != b])
    return _mean(total[..., 0], total[..., 1])


@dataclass(frozen=True)
class _Cells:
    """The classes ``label`` (K,) that each ``group`` (K,) has, sorted by both; each once.

    ``sums`` (K, E + 1) are those of the normalised rows, and in the last column how many rows there are.
    """

    group: np.ndarray
    label: np.ndarray
    sums: np.ndarray


def _cells(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> _Cells:
    size = int(labels.max(initial=0)) + 1
    cells, cell = np.unique(groups.astype(np.int64) * size + labels, return_inverse=True)
    sums = np.zeros((len(cells), embeddings.shape[1] + 1))
    for start in range(0, len(cell), ROWS):  # rows of float64 would take twice the memory of the features
        rows = slice(start, start + ROWS)
        there, place = np.unique(cell[rows], return_inverse=True)
        chosen = sparse.csr_array((np.ones(len(place)), (place, np.arange(len(place)))))
        sums[there, :-1] += chosen @ normalised(embeddings[rows]).astype(np.float64)
    sums[:, -1] = np.bincount(cell, minlength=len(cells))
    return _Cells(cells // size, cells % size, sums)


def _inside(cells: _Cells) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs of cells of one group, each cell with itself too: the group (k,), two classes (k,), their products."""
    for apart in range(len(cells.group)):
        first = np.flatnonzero(cells.group[: len(cells.group) - apart] == cells.group[apart:])
        if len(first) == 0:
            return
        second = first + apart
        product = _products(cells.sums[first], cells.sums[second])
        yield cells.group[first], cells.label[first], cells.label[second], product


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of sums (k, E + 1), each with its own: total cosine of the pairs, and their number, (k, 2)."""
    return np.stack([(a[:, :-1] * b[:, :-1]).sum(1), a[:, -1] * b[:, -1]], axis=1)


def _mean(total: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)


def _opposite(opposites: Sequence[tuple[int, int]], num_classes: int) -> np.ndarray:
    table = np.zeros((num_classes, num_classes), dtype=bool)
    for a, b in opposites:
        table[a, b] = table[b, a] = a != b
    return table


@dataclass(frozen=True)
class PairCounts:
    """How many pairs of ``pairs`` (P, 2) of groups have a score (the cosine, say) between two of ``edges`` (bins + 1,).

    ``counts`` (P, 3 * bins) has the bins of each of ``KINDS`` one after the other. ``num_frames`` were compared.
    """

    edges: np.ndarray
    pairs: np.ndarray
    counts: sparse.csr_array
    num_frames: int

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
    kind = np.where(np.eye(num_classes, dtype=bool), 0, np.where(_opposite(opposites, num_classes), 2, 1))
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


def separability(pairs: PairCounts) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Measures how well a threshold on the cosine tells 'same' from 'different' and from 'opposite', each (R,).

    ``auc``, ``eer``, ``best_f1``, ``d_prime`` and ``tpr_at_fpr_1e-1`` to ``1e-3`` (identification rate), as
    ``threshold_scores`` has them.
    """
    centres = (pairs.edges[:-1] + pairs.edges[1:]) / 2

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        same, other, opposite = np.moveaxis(pairs.histogram(weights), 1, 0)
        found = {}
        for name, negative in (("different", other + opposite), ("opposite", opposite)):
            scores = threshold_scores(same, negative, centres)
            found |= {f"{score}_same_{name}": value for score, value in scores.items()}
        return found

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
        tpr, fpr = (np.pad(x[:, ::-1].cumsum(1), ((0, 0), (1, 0))) for x in (p, n))
        f1 = 2 * tpr * total[0] / (tpr * total[0] + fpr * total[1] + total[0])
        mean = (p @ values)[:, None], (n @ values)[:, None]
        variance = sum((x * np.square(values - m)).sum(1) for x, m in zip((p, n), mean, strict=True)) / 2
        d_prime = (mean[0] - mean[1])[:, 0] / np.sqrt(variance)
        auc = (np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(1)
        found = {
            "auc": auc,
            "eer": _crossing(fpr + tpr - 1, 0, fpr),
            "best_f1": np.where(np.isnan(auc), np.nan, f1.max(1)),
            "d_prime": np.where(variance > 0, d_prime, np.nan),
        }
        rates = {f"tpr_at_fpr_{name}": _crossing(fpr, rate, tpr) for name, rate in FALSE_POSITIVE_RATES.items()}
    return found | rates


def _crossing(x: np.ndarray, at: float, y: np.ndarray) -> np.ndarray:
    """y (R,) where rows of x (R, K) that never fall pass ``at``, between the last place not above it and the next."""
    rows = np.arange(len(x))
    left = ((x <= at).sum(1) - 1).clip(0, x.shape[1] - 2)
    a, b = x[rows, left], x[rows, left + 1]
    return y[rows, left] + (at - a) / (b - a) * (y[rows, left + 1] - y[rows, left])
