"""A class together with its opposite emotions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import deal, whole_number
from pipeline.training.samplers.p_by_k import PByK


class Opposite(PByK):
    """``balanced`` over few classes a batch: one class, its opposite emotions first, and then others.

    An epoch has as many batches as ``uniform``. The first class of a batch is each class in turn; then come its
    opposites, in a new order for each batch, and then other classes at random, ``classes_per_batch`` in all. So a
    class with few opposites gets all of them and some others, one with more opposites than fit another choice of them
    each time, and one without opposites random classes. All classes of a batch have equally many windows, drawn as
    ``balanced`` does it; a class that is the opposite of many is drawn more often than others.

    ``opposites`` are pairs of label values; those of classes without windows are left out. Raises ``ValueError``
    where none is left, and as ``balanced`` does.
    """

    source = "ours; the opposites of Plutchik 1980, or of the sign of valence (pipeline/core/emotions.py)"

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, opposites: Sequence[tuple[int, int]],
        groups: NDArray | None = None, positives: str = "any", classes_per_batch: int = 4,
    ):  # fmt: skip
        most_classes = whole_number("classes_per_batch", classes_per_batch, 2)
        super().__init__(labels, videos, batch_size, seed, groups, positives, most_classes)
        place = {value: number for number, value in enumerate(self.windows.values.tolist())}
        pairs = [(place[a], place[b]) for a, b in opposites if a in place and b in place and a != b]
        if not pairs:
            raise ValueError(f"needs opposites among the {len(place)} classes of the training windows, and has none")
        self._is_opposite = np.zeros((len(place), len(place)), dtype=bool)
        for a, b in pairs:
            self._is_opposite[a, b] = self._is_opposite[b, a] = True

    def class_turns(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The classes of each batch (batches, P), the one whose opposites are there at the front."""
        anchors = deal(rng, self.windows.num_classes, 1, self.num_batches)[:, 0]
        rank = rng.random((self.num_batches, self.windows.num_classes)) - self._is_opposite[anchors]
        rank[np.arange(self.num_batches), anchors] = -2
        return np.argsort(rank, axis=1)[:, : self.classes_per_batch]
