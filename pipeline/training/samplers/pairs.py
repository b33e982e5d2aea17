"""Same and different pairs."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.classes import Classes
from pipeline.training.samplers.common import Batches, Sampler, count_batches, deal


class Pairs(Sampler):
    """Left and right at 2i and 2i + 1: half of the pairs of one class, the other half of two.

    An epoch has as many batches as ``uniform``, of batch_size // 2 pairs: those of one class first (one fewer than
    the others where the number is odd), apart as ``positives`` says. In both halves the classes take turns on the
    left, and on the right of a different pair stands each other class equally likely, so that neither side alone
    tells which half a pair is of. Videos (or groups) take turns on the left and are equally likely on the right.

    A class without two windows that ``positives`` lets stand together is only in pairs of two classes. Raises
    ``ValueError`` for fewer than 2 classes and for a batch size under 4.
    """

    source = "same and different pairs: Chopra et al. 2005, https://doi.org/10.1109/CVPR.2005.202"
    needs_classes = True

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "any",
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = count_batches(len(labels), batch_size)
        self.windows = Classes(labels, videos, groups, positives)
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 pairs), and is {batch_size}")
        self.num_different = -(-(batch_size // 2) // 2)
        self.num_same = batch_size // 2 - self.num_different
        self._of_two = np.unique(self.windows.label[self.windows.has_partner])  # classes

    def epoch(self, epoch: int) -> Batches:
        """The batches of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        same = self._of_two[deal(rng, len(self._of_two), self.num_same, self.num_batches)]
        different = deal(rng, self.windows.num_classes, self.num_different, self.num_batches)
        turns = np.concatenate([same, different], axis=1)
        left = self.windows.take(rng, turns.ravel(), np.ones(turns.size, dtype=np.int64)).reshape(turns.shape)
        others = (different + rng.integers(1, self.windows.num_classes, different.shape)) % self.windows.num_classes
        right = [self.windows.partners(rng, left[:, : self.num_same]), self.windows.one_of_each(rng, others)]
        return list(np.stack([left, np.concatenate(right, axis=1)], axis=2).reshape(self.num_batches, -1))
