"""Windows of as many videos as possible, for the samplers that look at no label."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import counted, deal, starts


class Spread:
    """The first windows of the pairs of a batch, all different, of as many videos as possible.

    ``videos`` (n,) are the videos of ``windows`` (n,). A batch gets P = batch_size // 2 windows, or all where they are
    fewer. Each video gives ``level`` windows to every batch, or all where it has fewer. For the rest of the P, the
    videos that have more take turns.
    """

    def __init__(self, windows: NDArray, videos: NDArray, batch_size: int):
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 pairs), and is {batch_size}")
        if len(windows) < 2:
            raise ValueError(f"needs at least 2 windows to make pairs of, and there are {len(windows)}")
        per_batch = min(batch_size // 2, len(windows))
        self._windows, self._video = windows, np.unique(videos, return_inverse=True)[1]
        self._size = np.bincount(self._video)
        num_of_size = np.bincount(np.minimum(self._size, per_batch), minlength=per_batch + 1)
        num_at_least = np.cumsum(num_of_size[::-1])[::-1]  # videos of 0, 1, 2, ... windows or more
        given = np.cumsum(num_at_least[1:])  # by all videos together, when each gives at most 1, 2, ... windows
        level = np.searchsorted(given, per_batch, side="right")
        self._always = np.repeat(np.arange(len(self._size)), np.minimum(self._size, level))
        self._in_turn = np.flatnonzero(self._size > level)
        self._num_in_turn = per_batch - len(self._always)

    def draw(self, rng: np.random.Generator, num_batches: int) -> NDArray[np.int64]:
        """Windows (num_batches, P), none twice in a batch; those of a video in a new random order, over and over."""
        turns = np.tile(self._always, (num_batches, 1))
        if self._num_in_turn:
            decks = deal(rng, len(self._in_turn), self._num_in_turn, num_batches)
            turns = np.concatenate([turns, self._in_turn[decks]], axis=1)
        shuffled = np.lexsort((rng.random(len(self._video)), self._video))
        video = turns.ravel()
        turn_number = np.empty(len(video), dtype=np.int64)
        turn_number[np.argsort(video, kind="stable")] = counted(np.bincount(video, minlength=len(self._size)))
        chosen = shuffled[starts(self._size)[video] + turn_number % self._size[video]]
        return self._windows[chosen].reshape(turns.shape)
