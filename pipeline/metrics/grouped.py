"""Sums of rows by group, and how they are counted: ``weights`` (R, G) say how often, in each of R draws.

Weights are dense for resamples of groups, and sparse where each of many groups is measured by itself: what a square
matrix of groups would hold are almost all zeros.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

Weights = np.ndarray | sparse.csr_array


def one_by_one(num_groups: int, at_once: int = 4096) -> Iterator[sparse.csr_array]:
    """Weights (R, G) by which each group is measured by itself, all in order, at most so many at a time."""
    every = sparse.eye_array(num_groups, format="csr")
    return (every[start : start + at_once] for start in range(0, num_groups, at_once))


def sums_by(groups: np.ndarray, columns: np.ndarray, num_groups: int, num_columns: int) -> sparse.csr_array:
    """How often each (group, column) stands in two arrays (n,): (G, K)."""
    cells = sparse.coo_array((np.ones(len(groups)), (groups, columns)), shape=(num_groups, num_columns))
    return cells.tocsr()


def summed(weights: Weights, sums: np.ndarray | sparse.csr_array) -> np.ndarray:
    """Sums (R,) or (R, K) over groups of ``sums`` (G,) or (G, K), group g counted weights[r, g] times."""
    found = weights @ sums
    return found.toarray() if sparse.issparse(found) else found


def squared(weights: Weights) -> Weights:
    return weights.power(2) if sparse.issparse(weights) else np.square(weights)
