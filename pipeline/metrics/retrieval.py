"""What the nearest neighbours of an embedding are: recall@k, mAP@R, kNN votes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.metrics.grouped import Measure, of_means
from pipeline.metrics.vectors import normalised

BLOCK = 128  # rows whose cosines to all others, 20,000 say, stay in the processor's cache
MOST_THREADS = 8
STRIP = 32  # columns of which only the largest is looked at first


def recall(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, ks: Sequence[int]) -> Measure:
    """Measures ``recall_at_<k>``: the share of rows (n, E) with one of their own label among the k nearest by cosine.

    Every row is a query, and the rows of other ``groups`` are its gallery: else the next frame of the video would be
    the answer to every query. A row whose label is not in its gallery is no query (Musgrave et al. 2020, "A metric
    learning reality check", have the same gallery for all). NaN where there is no query.
    """
    hits = hits_at_k(embeddings, labels, groups, ks)
    return of_means({f"recall_at_{k}": hits[:, place] for place, k in enumerate(ks)}, groups)


def mean_average_precision(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Measure:
    """Measures ``map_at_r`` over rows (n, E); queries and galleries are those of ``recall``.

    For a query with R rows of its label in the gallery: the mean over the first R places of (hits so far / place) where
    the place is a hit, else 0 (Musgrave et al. 2020, section 3.2, https://arxiv.org/abs/2003.08505).
    """
    return of_means({"map_at_r": precision_at_r(embeddings, labels, groups)}, groups)


def paired_recall(ranks: np.ndarray, groups: np.ndarray, ks: Sequence[int]) -> Measure:
    """Measures ``paired_recall_at_<k>``, the asymmetric recall of pairs, from their ``partner_ranks`` (q, 2).

    A pair is found at k if the right one is among the k of all right ones nearest to the left one, or the left one
    among the k of all left ones nearest to the right one. Either direction counts, so it is at least the recall of each
    (Risser-Maroix et al. 2022, https://arxiv.org/abs/2206.01417). NaN without pairs.
    """
    return of_means({f"paired_recall_at_{k}": (ranks.min(axis=1) < k).astype(np.float64) for k in ks}, groups)


def hits_at_k(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """(n, len(ks)): whether each row has one of its own label among its k nearest, NaN where it is no query."""
    out = np.full((len(labels), len(ks)), np.nan)
    for rows, cosine, own in _queries(embeddings, labels, groups):
        hit = np.take_along_axis(own, _nearest(cosine, max(ks)), axis=1)
        out[rows] = np.stack([hit[:, :k].any(axis=1) for k in ks], axis=1)
    return out


def precision_at_r(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The average precision at R (n,) of each row, NaN where it is no query. Sorts n cosines for each row."""
    out = np.full(len(labels), np.nan)
    for rows, cosine, own in _queries(embeddings, labels, groups):
        right = np.take_along_axis(own, np.argsort(-cosine, axis=1, kind="stable"), axis=1)
        place, wanted = np.arange(1, right.shape[1] + 1), own.sum(axis=1)
        counts = right & (place <= wanted[:, None])
        out[rows] = (np.cumsum(right, axis=1) / place * counts).sum(axis=1) / wanted
    return out


def pair_ranks(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many strangers are as near as the partner or nearer (n, 2), from the left and from the right row.

    Of equal cosines the partner comes last, else a network that gives one point for everything would find all.
    """
    z = normalised(left), normalised(right)
    return partner_ranks(lambda a, b: z[0][a] @ z[1][b].T, len(left))


def partner_ranks(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], num_pairs: int, queries: np.ndarray | None = None
) -> np.ndarray:
    """As ``pair_ranks``, by ``score(lefts (r,), rights (c,))`` -> (r, c) of the numbers of pairs; in blocks of rows.

    Only the pairs ``queries`` (q,) look for their partner, where given, among the sides of all pairs: (q, 2).
    """
    every = np.arange(num_pairs)
    queries = every if queries is None else queries
    out = np.empty((len(queries), 2), dtype=np.int64)
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        for side, scores in enumerate((score(rows, every), score(every, rows).T)):
            own = scores[np.arange(len(rows)), rows, None]
            out[start : start + len(rows), side] = (scores >= own).sum(axis=1) - 1
    return out


def knn_votes(
    gallery: np.ndarray, gallery_labels: np.ndarray, queries: np.ndarray, neighbours: int, num_classes: int
) -> np.ndarray:
    """Share of each class (m, C) among the ``gallery`` rows nearest to each of ``queries`` (m, E); rows sum to 1.

    A vote is 1 and a thousandth of the cosine, so that of equal votes the greater sum of cosines wins.
    """
    neighbours, columns = min(neighbours, len(gallery)), normalised(gallery).T
    out = np.empty((len(queries), num_classes))

    def vote(start: int) -> None:
        cosine = normalised(queries[start : start + BLOCK]) @ columns
        nearest = _nearest(cosine, neighbours)
        near = np.take_along_axis(cosine, nearest, axis=1).astype(np.float64)  # 1 + 1e-3 * cosine needs the digits
        cell = np.arange(len(cosine))[:, None] * num_classes + gallery_labels[nearest]
        votes = np.bincount(cell.ravel(), (1 + 1e-3 * near / neighbours).ravel(), len(cosine) * num_classes)
        votes = votes.reshape(len(cosine), num_classes)
        out[start : start + len(cosine)] = votes / votes.sum(axis=1, keepdims=True)

    # A thread for each block, and not several for its product: what follows the product takes as long.
    with threadpool_limits(1), ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
        for _ in threads.map(vote, range(0, len(queries), BLOCK)):
            pass
    return out


def _queries(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of the rows that are queries: numbers, cosines to all rows (own group: -inf), which have their label."""
    z = normalised(embeddings)
    for start in range(0, len(z), BLOCK):
        cosine = z[start : start + BLOCK] @ z.T
        rows = np.arange(start, start + len(cosine))
        apart = groups[rows][:, None] != groups[None, :]
        own = apart & (labels[rows][:, None] == labels[None, :])
        can = own.any(axis=1)
        yield rows[can], np.where(apart, cosine, -np.inf)[can], own[can]


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
