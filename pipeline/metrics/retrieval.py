"""What the nearest neighbours of an embedding are."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.metrics.separation import normalised

BLOCK = 128  # rows whose cosines to all others, 20,000 say, stay in the processor's cache
MOST_THREADS = 8
STRIP = 32  # columns of which only the largest is looked at first


def recall_at_k(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, ks: Sequence[int]
) -> tuple[dict[str, float], int]:
    """Share of rows (n, E) that have one of their own label among the k nearest by cosine, and how many were asked.

    Rows of the same ``groups`` are not candidates: else the next frame of the video is the answer to every question.
    A row without any candidate of its label is not asked (Musgrave et al. 2020, "A metric learning reality check",
    asks for the same database for all). NaN where none can be asked.
    """
    found = found_at_k(embeddings, labels, groups, ks)
    return {f"recall_at_{k}": _mean(found[:, i]) for i, k in enumerate(ks)}, int((~np.isnan(found[:, 0])).sum())


def found_at_k(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """(n, len(ks)): whether each row has one of its own label among its k nearest, NaN where it is not asked."""
    out = np.full((len(labels), len(ks)), np.nan)
    for rows, cosine, own in _asked(embeddings, labels, groups):
        hit = np.take_along_axis(own, _nearest(cosine, max(ks)), axis=1)
        out[rows] = np.stack([hit[:, :k].any(axis=1) for k in ks], axis=1)
    return out


def map_at_r(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[float, int]:
    """mAP@R over rows (n, E), and how many were asked; who is asked, and of whom, as in ``recall_at_k``.

    For a row with R candidates of its label: the mean over the first R places of (right ones so far / place) where the
    place is right, else 0 (Musgrave et al. 2020, section 3.2, https://arxiv.org/abs/2003.08505).
    """
    precision = precision_at_r(embeddings, labels, groups)
    return _mean(precision), int((~np.isnan(precision)).sum())


def precision_at_r(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The average precision at R (n,) of each row, NaN where it is not asked. Sorts n cosines for each row."""
    out = np.full(len(labels), np.nan)
    for rows, cosine, own in _asked(embeddings, labels, groups):
        right = np.take_along_axis(own, np.argsort(-cosine, axis=1, kind="stable"), axis=1)
        place, wanted = np.arange(1, right.shape[1] + 1), own.sum(axis=1)
        counts = right & (place <= wanted[:, None])
        out[rows] = (np.cumsum(right, axis=1) / place * counts).sum(axis=1) / wanted
    return out


def paired_recall_at_k(left: np.ndarray, right: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Asymmetric recall@k of pairs: row i of ``left`` (n, E) belongs to row i of ``right`` (n, E).

    A pair is found at k if the right one is among the k of ``right`` nearest to the left one, or the left one among the
    k of ``left`` nearest to the right one: either direction counts, so it is at least the recall of each (Risser-Maroix
    et al. 2022, https://arxiv.org/abs/2206.01417). NaN without pairs.
    """
    ranks = pair_ranks(left, right).min(axis=1)
    return {f"paired_recall_at_{k}": _mean((ranks < k).astype(np.float64)) for k in ks}


def pair_ranks(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many strangers are as near as the partner or nearer (n, 2), from the left and from the right row.

    Of equal cosines the partner comes last, else a network that gives one point for everything would find all.
    """
    z = normalised(left), normalised(right)
    return partner_ranks(lambda a, b: z[0][a] @ z[1][b].T, len(left))


def partner_ranks(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], num_pairs: int, asked: np.ndarray | None = None
) -> np.ndarray:
    """As ``pair_ranks``, by ``score(lefts (r,), rights (c,))`` -> (r, c) of the numbers of pairs; in blocks of rows.

    Of the pairs ``asked`` (q,) alone, where given, among the sides of all pairs: (q, 2).
    """
    every = np.arange(num_pairs)
    asked = every if asked is None else asked
    out = np.empty((len(asked), 2), dtype=np.int64)
    for start in range(0, len(asked), BLOCK):
        rows = asked[start : start + BLOCK]
        for side, found in enumerate((score(rows, every), score(every, rows).T)):
            own = found[np.arange(len(rows)), rows, None]
            out[start : start + len(rows), side] = (found >= own).sum(axis=1) - 1
    return out


def knn_predict(
    train: np.ndarray, train_labels: np.ndarray, asked: np.ndarray, neighbours: int, num_classes: int
) -> np.ndarray:
    """Labels (m,) by the vote of the nearest ``train`` rows by cosine; of equal votes the greater sum of cosines."""
    return knn_votes(train, train_labels, asked, neighbours, num_classes).argmax(axis=1)


def knn_votes(
    train: np.ndarray, train_labels: np.ndarray, asked: np.ndarray, neighbours: int, num_classes: int
) -> np.ndarray:
    """Share of each class (m, C) among the nearest ``train`` rows; rows sum to 1.

    A vote is 1 and a thousandth of the cosine, so that of equal votes the greater sum of cosines wins.
    """
    neighbours, database = min(neighbours, len(train)), normalised(train).T
    out = np.empty((len(asked), num_classes))

    def vote(start: int) -> None:
        cosine = normalised(asked[start : start + BLOCK]) @ database
        nearest = _nearest(cosine, neighbours)
        near = np.take_along_axis(cosine, nearest, axis=1).astype(np.float64)  # 1 + 1e-3 * cosine needs the digits
        cell = np.arange(len(cosine))[:, None] * num_classes + train_labels[nearest]
        votes = np.bincount(cell.ravel(), (1 + 1e-3 * near / neighbours).ravel(), len(cosine) * num_classes)
        votes = votes.reshape(len(cosine), num_classes)
        out[start : start + len(cosine)] = votes / votes.sum(axis=1, keepdims=True)

    # A thread for each block, and not several for its product: what follows the product takes as long.
    with threadpool_limits(1), ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
        for _ in threads.map(vote, range(0, len(asked), BLOCK)):
            pass
    return out


def _asked(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of row numbers that can be asked, cosines to all rows (own group: -inf), and who is an answer."""
    z = normalised(embeddings)
    for start in range(0, len(z), BLOCK):
        cosine = z[start : start + BLOCK] @ z.T
        rows = np.arange(start, start + len(cosine))
        apart = groups[rows][:, None] != groups[None, :]
        own = apart & (labels[rows][:, None] == labels[None, :])
        can = own.any(axis=1)
        yield rows[can], np.where(apart, cosine, -np.inf)[can], own[can]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _nearest(cosine: np.ndarray, most: int) -> np.ndarray:
    """Columns of the ``most`` largest of each row, the largest first; of equal ones the first."""
    most = min(most, cosine.shape[1])
    columns = _largest(cosine, most + 1)
    near = np.take_along_axis(cosine, columns, axis=1)
    order = np.argsort(-near, axis=1, kind="stable")[:, : most + 1]
    columns, near = (np.take_along_axis(x, order, axis=1) for x in (columns, near))
    if near.shape[1] > most:
        for row in np.flatnonzero(near[:, most - 1] == near[:, most]):  # the last has equals that were left out
            above = columns[row, near[row] > near[row, most]]
            equal = np.flatnonzero(cosine[row] == near[row, most])
            columns[row, :most] = np.concatenate([above, equal[: most - len(above)]])
    columns = np.sort(columns[:, :most], axis=1)
    order = np.argsort(-np.take_along_axis(cosine, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _largest(cosine: np.ndarray, most: int) -> np.ndarray:
    """Columns among which are those of the ``most`` largest of each row, as far as values go; in any order.

    The k largest lie in the k strips with the largest maxima, so most columns are looked at once, and not sorted.
    """
    rows, width = len(cosine), cosine.shape[1] // STRIP
    if width <= most:
        return np.broadcast_to(np.arange(cosine.shape[1]), cosine.shape)
    # Strip j has the columns j, j + width, ...: the maxima of all strips are one pass over neighbouring memory.
    maxima = cosine[:, : STRIP * width].reshape(rows, STRIP, width).max(axis=1)
    strips = np.argpartition(maxima, width - most, axis=1)[:, width - most :]
    members = (strips[:, None, :] + width * np.arange(STRIP)[:, None]).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(STRIP * width, cosine.shape[1]), (rows, cosine.shape[1] - STRIP * width))
    columns = np.concatenate([members, rest], axis=1)
    near = np.take_along_axis(cosine, columns, axis=1)
    first = np.argpartition(near, near.shape[1] - most, axis=1)[:, near.shape[1] - most :]
    return np.take_along_axis(columns, first, axis=1)
