"""Cosines of pairs of frames whose emotions are the same, different or opposite.

Pairs inside a group, and between two copies of it, are left out: neighbouring frames of a video are twins under any
network. ``groups`` (n,) are codes from 0. A measure is a function of ``weights`` (R, G), as ``grouped`` says; a pair of
groups g and h counts w_g * w_h times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pipeline.metrics.grouped import Measure
from pipeline.metrics.vectors import normalised

ROWS = 8192


def mean_cosines(
    embeddings: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    opposites: Sequence[tuple[int, int]] = (),
) -> Measure:
    """Measures cosine_same, _different, _opposite and both gaps (R,), exactly, of all rows (n, E).

    ``gap_same_opposite`` >= 0 is the project's criterion: mean cosine(same) >= mean cosine(opposite). Linear in n: the
    cosines of all pairs of two sets sum to the product of the sets' sums. NaN where there are no such pairs.
    """
    cells, opposite = _cells(embeddings, labels, groups), opposite_table(opposites, num_classes)
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


def pairs_by_kind(
    labels: np.ndarray, groups: np.ndarray, opposites: Sequence[tuple[int, int]] = ()
) -> dict[str, np.ndarray]:
    """All pairs of n rows from two ``groups`` (n,): those of the 'same', of 'different' and of 'opposite' ``labels``.

    Pair i < j is the number i * n + j. Pairs inside a group are left out: neighbouring frames of a video are twins
    under any network. 'opposite' is the part of 'different' whose classes are a pair of ``opposites``.
    """
    first, second = np.triu_indices(len(labels), k=1)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    number = first * len(labels) + second
    same = labels[first] == labels[second]
    num_classes = 1 + max([int(labels.max(initial=0)), *(code for pair in opposites for code in pair)])
    opposite = opposite_table(opposites, num_classes)[labels[first], labels[second]]
    return {"same": number[same], "different": number[~same], "opposite": number[~same & opposite]}


def pair_cosines(embeddings: np.ndarray, pairs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The cosines of ``pairs_by_kind`` of rows (n, E). Memory grows with n * n."""
    z = normalised(embeddings)
    cosines = (z @ z.T).ravel()
    return {kind: cosines[numbers] for kind, numbers in pairs.items()}


def opposite_table(opposites: Sequence[tuple[int, int]], num_classes: int) -> np.ndarray:
    """Whether two classes are opposites (C, C). A class is never its own opposite."""
    table = np.zeros((num_classes, num_classes), dtype=bool)
    for a, b in opposites:
        table[a, b] = table[b, a] = a != b
    return table
