"""Measures, and sums of rows by group.

A *measure* is a function ``weights (R, G) -> {name: (R,)}``: its metrics where group g counts weights[r, g] times.
``np.ones((1, G))`` is the data as it is. It keeps sums by group (a confusion matrix, moments, ...), so that a thousand
resamples of 280,000 frames are one matrix product. ``groups`` are codes from 0.

Weights are dense for resamples of groups. They are sparse where each of many groups is measured by itself, since almost
all of a square matrix of groups would be zeros.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy import sparse

Weights = np.ndarray | sparse.csr_array
Measure = Callable[[Weights], Mapping[str, np.ndarray]]


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
    total = weights @ sums
    return total.toarray() if sparse.issparse(total) else total


def squared(weights: Weights) -> Weights:
    return weights.power(2) if sparse.issparse(weights) else np.square(weights)


def of_means(values: Mapping[str, np.ndarray], groups: np.ndarray, num_groups: int | None = None) -> Measure:
    """Measures the mean of values (n,) of rows, such as hits of a query. Rows of NaN do not count.

    Where the rows are a sample, or the changes of label, ``num_groups`` says how many groups there are in all. Whom a
    query was compared with is not resampled: the gallery of a retrieval is held.
    """
    size = int(groups.max(initial=-1)) + 1 if num_groups is None else num_groups
    sums = {}
    for name, value in values.items():
        known = ~np.isnan(value)
        sums[name] = np.stack([np.bincount(groups[known], x[known], size) for x in (value, np.ones(len(value)))], 1)

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            totals = {name: summed(weights, s) for name, s in sums.items()}
            return {name: total[:, 0] / total[:, 1] for name, total in totals.items()}

    return measure


def constant(**values: float) -> Measure:
    """Measures numbers that are known of all groups together, and of no resample: the same for any weights."""
    return lambda weights: {name: np.full(weights.shape[0], value) for name, value in values.items()}
