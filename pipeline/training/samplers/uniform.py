"""Every window once."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import Batches, Sampler, count_batches


class Uniform(Sampler):
    """Every window once, in a new order: an epoch is one pass over the windows, whatever their labels are.

    The last batch is smaller where the batch size does not divide their number; a single window left over is dropped
    (another one each epoch), since no loss on pairs can use it.
    """

    source = "plain shuffling"

    def __init__(self, videos: NDArray, batch_size: int, seed: int):
        self.num_windows, self.batch_size, self.seed = len(videos), batch_size, seed
        self.num_batches = count_batches(self.num_windows, batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
        return [order[n * self.batch_size : (n + 1) * self.batch_size] for n in range(self.num_batches)]
