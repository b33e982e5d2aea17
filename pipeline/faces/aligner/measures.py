"""How far points are off, and how much they tremble, in parts of the distance of the eyes."""

import numpy as np


def eye_distance(points: np.ndarray) -> np.ndarray:
    """(...): between the two eyes of points (..., 5, 2)."""
    return np.linalg.norm(points[..., 0, :] - points[..., 1, :], axis=-1)


def nme(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(n,): the normalised mean error of ``found`` (n, 5, 2): mean distance to the true points, by their eye distance.

    With five points the distance is between the middles of the eyes, as in Zhang et al. 2014, "Facial landmark
    detection by deep multi-task learning" (https://doi.org/10.1007/978-3-319-10599-4_7, section 4). Numbers by
    the outer corners of the eyes, as of 300-W, are smaller.
    """
    return np.linalg.norm(found - true, axis=-1).mean(axis=-1) / eye_distance(true)


def tremble(points: np.ndarray, eyes: float) -> float:
    """The root mean square of the second difference in time of (frames, 5, 2), in parts of the distance ``eyes``.

    What moves evenly does not tremble. Of points that are independently off by a deviation s in each frame and axis it
    is sqrt(6) s. A frame that is NaN is left out with its neighbours. ``benchmarks/faces.py`` prints the same.
    """
    return float(np.sqrt(np.nanmean(np.square(np.diff(points, 2, axis=0))))) / eyes
