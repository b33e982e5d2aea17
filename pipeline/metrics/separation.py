"""How far embeddings of one emotion stand from those of other and of opposite emotions."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

BLOCK = 8192  # rows that are worked on at a time: a copy of all would take the memory of the features again


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length one, float32; a row of zeros stays zero, so that its cosine to everything is 0."""
    x = embeddings.astype(np.float32)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return x


def cosines(unit: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of rows ``first`` (k,) with rows ``second`` (k,) of ``normalised`` (n, E), each with its own: (k,)."""
    out = np.empty(len(first), dtype=unit.dtype)
    for start in range(0, len(first), BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows] = (unit[first[rows]] * unit[second[rows]]).sum(1)
    return out


def evenly(num_rows: int, most: int) -> np.ndarray:
    """At most ``most`` row numbers, evenly spaced over all rows."""
    return np.arange(num_rows) if num_rows <= most else np.linspace(0, num_rows - 1, most).round().astype(np.int64)


def pair_cosines(
    embeddings: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    opposites: Sequence[tuple[int, int]] = (),
    most: int = 2000,
) -> dict[str, np.ndarray]:
    """Cosines of all pairs of rows (n, E) from two ``groups`` (n,): 'same', 'different' and 'opposite' ``labels``.

    Pairs inside a group are left out: neighbouring frames of a video are twins under any network. 'opposite' is the
    part of 'different' whose classes are a pair of ``opposites``. Of more than ``most`` rows, ``most`` evenly spaced
    ones are taken.
    """
    chosen = evenly(len(labels), most)
    z, label, group = normalised(embeddings[chosen]), labels[chosen], groups[chosen]
    first, second = np.triu_indices(len(chosen), k=1)
    apart = group[first] != group[second]
    first, second = first[apart], second[apart]
    cosine = (z @ z.T)[first, second]
    same = label[first] == label[second]
    table = np.zeros((int(label.max(initial=0)) + 1,) * 2, dtype=bool)
    for a, b in opposites:
        if max(a, b) < len(table):
            table[a, b] = table[b, a] = True
    opposite = table[label[first], label[second]]
    return {"same": cosine[same], "different": cosine[~same], "opposite": cosine[~same & opposite]}


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a cosine of ``positive`` is above one of ``negative``, ties half; NaN where one is empty."""
    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    truth = np.r_[np.ones(len(positive), dtype=bool), np.zeros(len(negative), dtype=bool)]
    return float(roc_auc_score(truth, np.concatenate([positive, negative])))


def separation(cosines: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean cosines, their gaps and the AUCs of ``pair_cosines``; NaN where there are no such pairs."""
    mean = {kind: float(values.mean()) if len(values) else float("nan") for kind, values in cosines.items()}
    return {
        **{f"cosine_{kind}": value for kind, value in mean.items()},
        "gap_same_different": mean["same"] - mean["different"],
        "gap_same_opposite": mean["same"] - mean["opposite"],
        "auc_same_different": auc(cosines["same"], cosines["different"]),
        "auc_same_opposite": auc(cosines["same"], cosines["opposite"]),
    }
