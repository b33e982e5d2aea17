"""Neighbours in time."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import Batches, Sampler, count_batches, whole_number
from pipeline.training.samplers.spread import Spread


class Temporal(Sampler):
    """Self-supervised: pairs of neighbours in time, from as many different videos as a batch can hold.

    The windows 2i and 2i + 1 are of one video, and their frame numbers are at least ``min_distance`` and at most
    ``max_distance`` apart. The first is an anchor. The second is drawn evenly from its neighbours on both sides.

    An epoch has as many batches as ``uniform``, of batch_size // 2 pairs (fewer only where there are fewer anchors):
    about half of the windows are anchors. Videos take turns: with enough of them none is twice in a batch, otherwise
    all are equally often in it as far as they have anchors, no anchor twice. A window without a neighbour at such a
    distance is never drawn.

    Raises ``ValueError`` where no window has such a neighbour, and for a batch size under 4.
    """

    source = "single-view time-contrastive: Sermanet et al. 2018, https://arxiv.org/abs/1704.06888"
    self_supervised = True
    paired = True

    def __init__(
        self, videos: NDArray, frames: NDArray, batch_size: int, seed: int, max_distance: int = 30,
        min_distance: int = 1,
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = count_batches(len(videos), batch_size)
        whole_number("min_distance", min_distance, 1)
        whole_number("max_distance", max_distance, min_distance)
        video = np.unique(videos, return_inverse=True)[1]
        frame = np.asarray(frames, dtype=np.int64) - np.min(frames)
        key = video * (frame.max() + max_distance + 1) + frame  # neighbours in time are neighbours here, videos apart
        self._order = np.argsort(key)
        in_order = key[self._order]
        # Neighbours before and after a window: the first of each side in this order, and how many they are.
        self._first = np.searchsorted(in_order, np.stack([key - max_distance, key + min_distance]))
        ends = np.searchsorted(in_order, np.stack([key - min_distance, key + max_distance]), side="right")
        self._num_before, self._num_after = ends - self._first
        anchors = np.flatnonzero(self._num_before + self._num_after)
        if len(anchors) == 0:
            raise ValueError(f"no two windows of a video are {min_distance} to {max_distance} frame numbers apart")
        self._anchors = Spread(anchors, video[anchors], batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        anchors = self._anchors.draw(rng, self.num_batches)
        before = self._num_before[anchors]
        which = rng.integers(before + self._num_after[anchors])
        first, second = self._first[:, anchors]
        partners = self._order[np.where(which < before, first + which, second + which - before)]
        return list(np.stack([anchors, partners], axis=2).reshape(self.num_batches, -1))
