"""How steady embeddings and predictions are from one frame to the next."""

import numpy as np

from pipeline.evaluation.separation import normalised


def neighbours(video: np.ndarray, frame: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of all pairs of frames that are ``step`` apart in one video; rows are sorted by (video, frame)."""
    stretch = int(np.ptp(frame)) + step + 1 if len(frame) else 1  # of numbers for each video, so that one key does
    key = np.asarray(video, dtype=np.int64) * stretch + frame
    second = np.searchsorted(key, key + step)
    first = np.flatnonzero(key[np.minimum(second, len(key) - 1)] == key + step)
    return first, second[first]


def steadiness(
    embeddings: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    step: int,
) -> dict[str, float]:
    """Over neighbouring frames of one label (n rows): how alike they are, and how often the prediction flips.

    ``cosine_neighbours`` says nothing by itself (a random network has 0.998): ``cosine_strangers`` is the mean cosine
    of all pairs of different videos, and ``steadiness`` is (neighbours - strangers) / (1 - strangers): 1 when
    neighbours are the same point, 0 when they are no nearer than strangers. NaN where there are no such pairs, and
    where strangers are the same point.
    """
    first, second = neighbours(video, frame, step)
    constant = labels[first] == labels[second]
    first, second = first[constant], second[constant]
    z = normalised(embeddings)
    near = float((z[first] * z[second]).sum(1).mean()) if len(first) else float("nan")
    far = _mean_of_strangers(z.astype(np.float64), video)
    return {
        "cosine_neighbours": near,
        "cosine_strangers": far,
        "steadiness": (near - far) / (1 - far) if far < 1 - 1e-6 else float("nan"),
        "flips_per_100": 100 * float((predicted[first] != predicted[second]).mean()) if len(first) else float("nan"),
    }


def _mean_of_strangers(z: np.ndarray, video: np.ndarray) -> float:
    """Mean cosine of all pairs of different videos: all pairs of rows less those inside a video, each by its sum."""
    starts = np.flatnonzero(np.diff(video, prepend=-1))
    sizes = np.diff(np.append(starts, len(video)))
    if len(starts) < 2:
        return float("nan")
    inside = np.square(np.add.reduceat(z, starts)).sum()
    return float((np.square(z.sum(0)).sum() - inside) / (len(z) ** 2 - np.square(sizes).sum()))
