"""Rows as unit vectors, their cosines, and evenly spaced rows."""

import numpy as np

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


def of_people(people: np.ndarray, most: int, each: int) -> np.ndarray:
    """At most ``most`` row numbers (k,), rising: of evenly spaced people, codes (n,), up to ``each`` rows a person.

    Those with two rows or more come before all others, who have no pair.
    """
    order = np.argsort(people, kind="stable")
    of = np.split(order, np.flatnonzero(np.diff(people[order])) + 1) if len(order) else []
    of = [rows for rows in of if len(rows) > 1] or of
    chosen = [of[k][evenly(len(of[k]), each)] for k in evenly(len(of), max(1, most // each))]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
