"""Two views of a window."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import Batches, Sampler, count_batches
from pipeline.training.samplers.spread import Spread


class Views(Sampler):
    """Self-supervised: two views of the same window side by side.

    2i and 2i + 1 are the same window. Training shows the first as it is, or with ``augment`` in any of the store's
    views, and the second in another one, at random (``pipeline.training.view_draw``).

    An epoch has as many batches as ``uniform``, of batch_size // 2 windows in two views: about half of the windows.
    They are of as many different videos as a batch can hold, as with ``temporal``, and no window is in two pairs of a
    batch. Raises ``ValueError`` for a batch size under 4.
    """

    source = "Chen et al. 2020 (SimCLR), https://arxiv.org/abs/2002.05709"
    self_supervised = True
    paired = True
    two_views = True

    def __init__(self, videos: NDArray, batch_size: int, seed: int):
        self.seed = seed
        self.num_batches = count_batches(len(videos), batch_size)
        self._windows = Spread(np.arange(len(videos)), videos, batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        return list(np.repeat(self._windows.draw(rng, self.num_batches), 2, axis=1))
