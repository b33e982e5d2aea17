"""What the nearest neighbours of an embedding are."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.evaluation.separation import normalised

BLOCK = 1024


def recall_at_k(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, ks: Sequence[int]
) -> tuple[dict[str, float], int]:
    """Share of rows (n, E) that have one of their own label among the k nearest by cosine, and how many were asked.

    Rows of the same ``groups`` are not candidates: else the next frame of the video is the answer to every question.
    A row without any candidate of its label is not asked (Musgrave et al. 2020, "A metric learning reality check",
    asks for the same database for all). NaN where none can be asked.
    """
    hits, asked = {k: 0 for k in ks}, 0
    most = max(ks)
    for start, cosine in _blocks(embeddings, embeddings):
        rows = np.arange(start, start + len(cosine))
        apart = groups[rows][:, None] != groups[None, :]
        own = labels[rows][:, None] == labels[None, :]
        can = (apart & own).any(axis=1)
        nearest = _nearest(np.where(apart, cosine, -np.inf), most)
        hit = np.take_along_axis(own & apart, nearest, axis=1)
        asked += int(can.sum())
        for k in ks:
            hits[k] += int(hit[can, :k].any(axis=1).sum())
    return {f"recall_at_{k}": hits[k] / asked if asked else float("nan") for k in ks}, asked


def knn_predict(
    train: np.ndarray, train_labels: np.ndarray, asked: np.ndarray, neighbours: int, num_classes: int
) -> np.ndarray:
    """Labels (m,) by the vote of the nearest ``train`` rows by cosine; of equal votes the greater sum of cosines."""
    neighbours = min(neighbours, len(train))
    out = np.empty(len(asked), dtype=np.int64)
    for start, cosine in _blocks(asked, train):
        nearest = _nearest(cosine, neighbours)
        near = np.take_along_axis(cosine, nearest, axis=1).astype(np.float64)  # 1 + 1e-3 * cosine needs the digits
        weight = 1 + 1e-3 * near / neighbours
        votes = np.zeros((len(cosine), num_classes))
        np.add.at(votes, (np.arange(len(cosine))[:, None], train_labels[nearest]), weight)
        out[start : start + len(cosine)] = votes.argmax(axis=1)
    return out


def _blocks(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Cosines of a block of rows to all columns, never the whole matrix."""
    z, database = normalised(rows), normalised(columns).T
    for start in range(0, len(rows), BLOCK):
        yield start, z[start : start + BLOCK] @ database


def _nearest(cosine: np.ndarray, most: int) -> np.ndarray:
    """Columns of the ``most`` largest of each row, the largest first; of equal ones the first."""
    most = min(most, cosine.shape[1])
    part = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
    last = np.take_along_axis(cosine, part, axis=1).min(axis=1, keepdims=True)
    for row in np.flatnonzero((cosine >= last).sum(axis=1) > most):  # the last has equals that were left out
        part[row] = np.argsort(-cosine[row], kind="stable")[:most]
    part.sort(axis=1)
    order = np.argsort(-np.take_along_axis(cosine, part, axis=1), axis=1, kind="stable")
    return np.take_along_axis(part, order, axis=1)
