"""Two views of a window."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import Batches, Sampler, count_batches
from pipeline.training.samplers.spread import Spread


class Views(Sampler):
    """Self-supervised: the original and an augmented view of the same window side by side.

    2i is the window as it is, 2i + 1 the same window (its number + W · view) in one of the other views, at random.

    An epoch has as many batches as ``uniform``, of batch_size // 2 windows in two views: about half of the windows.
    They are of as many different videos as a batch can hold, as with ``temporal``, and no window is twice in a batch.

    Raises ``ValueError`` where there is only one view, and for a batch size under 4.
    """

    source = "Chen et al. 2020 (SimCLR), https://arxiv.org/abs/2002.05709"
    self_supervised = True
    paired = True
    uses_views = True

    def __init__(self, videos: NDArray, num_views: int, batch_size: int, seed: int):
        if num_views < 2:
            raise ValueError("needs augmented views in the store: extract with views 1 or more, or data_aug")
        self.seed, self.num_windows, self.num_views = seed, len(videos), num_views
        self.num_batches = count_batches(len(videos), batch_size)
        self._windows = Spread(np.arange(len(videos)), videos, batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        windows = self._windows.draw(rng, self.num_batches)
        others = windows + self.num_windows * rng.integers(1, self.num_views, windows.shape)
        return list(np.stack([windows, others], axis=2).reshape(self.num_batches, -1))
