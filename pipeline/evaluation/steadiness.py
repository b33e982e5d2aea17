"""How steady embeddings and predictions are from one frame to the next."""

import numpy as np

from pipeline.evaluation.separation import normalised


def neighbours(video: np.ndarray, frame: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of all pairs of frames that are ``step`` apart in one video; rows are sorted by (video, frame)."""
    first = np.flatnonzero((np.diff(video) == 0) & (np.diff(frame) == step))
    return first, first + 1


def steadiness(
    embeddings: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    step: int,
    seed: int = 0,
) -> dict[str, float]:
    """Over neighbouring frames of one label (n rows): how alike they are, and how often the prediction flips.

    ``cosine_neighbours`` says nothing by itself (a random network has 0.998): ``cosine_strangers`` is the mean cosine
    of as many random pairs of different videos, and ``steadiness`` is (neighbours - strangers) / (1 - strangers): 1
    when neighbours are the same point, 0 when they are no nearer than strangers. NaN where there are no such pairs.
    """
    first, second = neighbours(video, frame, step)
    constant = labels[first] == labels[second]
    first, second = first[constant], second[constant]
    if len(first) == 0 or len(np.unique(video)) < 2:
        return dict.fromkeys(["cosine_neighbours", "cosine_strangers", "steadiness", "flips_per_100"], float("nan"))
    z = normalised(embeddings)
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, len(z), (2, 4 * len(first)))
    apart = video[a] != video[b]
    a, b = a[apart][: len(first)], b[apart][: len(first)]
    near, far = float((z[first] * z[second]).sum(1).mean()), float((z[a] * z[b]).sum(1).mean())
    return {
        "cosine_neighbours": near,
        "cosine_strangers": far,
        "steadiness": (near - far) / (1 - far) if far < 1 else float("nan"),
        "flips_per_100": 100 * float((predicted[first] != predicted[second]).mean()),
    }
