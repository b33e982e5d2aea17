"""Anchors with negatives from each other class."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.classes import Classes
from pipeline.training.samplers.common import Batches, Sampler, count_batches, passes, whole_number


class PerClassNegatives(Sampler):
    """For each anchor a positive of another video and n negatives from each other class.

    An epoch has as many batches as ``uniform``, of as many anchors as fit with what belongs to them; every window is
    an anchor once before any is it again, over as many epochs as that takes. So anchors come as often as the data has
    them, and the larger n, the rarer classes outweigh that: with n = 2 all classes are equally often in a batch.

    A batch is (anchor, positive) pairs, then the negatives class after class; all of a batch are negatives of all its
    anchors of other classes. Negatives stand in pairs of one class and different videos, which serve each other as
    positives; an odd number of a class is made even by one more. Videos take turns as in ``balanced``.

    ``positives`` 'any' is the same as 'other_video' here; with 'other_group' positives are of another group. A class
    without two videos (groups) has no anchors and gives negatives only.

    Raises ``ValueError`` for fewer than 2 classes, and where not a single anchor with its negatives fits into a batch.
    """

    source = "after N-pair batches: Sohn 2016, section 3.2, https://papers.nips.cc/paper/6200"
    needs_classes = True
    paired = True
    positives = "other_video"

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "other_video", negatives_per_class: int = 2,
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = count_batches(len(labels), batch_size)
        self.windows = Classes(labels, videos, groups, "other_video" if positives == "any" else positives)
        self.negatives_per_class = whole_number("negatives_per_class", negatives_per_class, 1)
        num_classes, odd = self.windows.num_classes, negatives_per_class % 2
        size = 2 + negatives_per_class * (num_classes - 1)  # an anchor and all that belongs to it
        self.anchors_per_batch = (batch_size - odd * num_classes) // size
        if self.anchors_per_batch < 1:
            raise ValueError(
                f"batch_size must be at least {size + odd * num_classes} for {negatives_per_class} negatives from "
                f"each of {num_classes - 1} other classes, and is {batch_size}"
            )
        self._anchors = np.flatnonzero(self.windows.has_partner)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        shape = (self.num_batches, self.anchors_per_batch)
        anchors = self._anchors[passes(self.seed, epoch, len(self._anchors), shape[0] * shape[1])]
        pairs = np.stack([anchors, self.windows.partners(rng, anchors)], axis=1).reshape(shape[0], -1)

        num_classes = self.windows.num_classes
        batch = np.repeat(np.arange(shape[0]), shape[1])
        num_anchors = np.bincount(batch * num_classes + self.windows.label[anchors], minlength=shape[0] * num_classes)
        num_negatives = self.negatives_per_class * (shape[1] - num_anchors)  # of each class in each batch
        num_negatives += num_negatives % 2
        negatives = self.windows.take(rng, np.tile(np.arange(num_classes), shape[0]), num_negatives)
        ends = np.cumsum(num_negatives.reshape(shape[0], num_classes).sum(axis=1))
        return [np.concatenate(parts) for parts in zip(pairs, np.split(negatives, ends[:-1]), strict=True)]
