"""Batches of P classes x K windows, for the samplers that differ in which classes a batch has."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.classes import Classes
from pipeline.training.samplers.common import Batches, Sampler, count_batches, even


class PByK(Sampler):
    """P classes x K windows in each batch; which classes, a subclass says by ``class_turns``.

    P is at most ``batch_size // 2``, and K the largest even number with P · K <= batch_size.
    """

    needs_classes = True
    paired = True

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None, positives: str,
        most_classes: int | None = None,
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = count_batches(len(labels), batch_size)
        self.windows = Classes(labels, videos, groups, positives)
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 classes x 2 windows), and is {batch_size}")
        num_classes = self.windows.num_classes
        self.classes_per_batch = min(num_classes, batch_size // 2, most_classes or num_classes)
        self.windows_per_class = even(batch_size // self.classes_per_batch)

    def epoch(self, epoch: int) -> Batches:
        """The batches (P · K,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        turns = self.class_turns(rng).ravel()  # (batches · P,)
        chosen = self.windows.take(rng, turns, np.full(len(turns), self.windows_per_class))
        return list(chosen.reshape(self.num_batches, -1))

    def class_turns(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The classes of each batch (batches, P)."""
        raise NotImplementedError
