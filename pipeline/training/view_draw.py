"""In which of the stored views each window of a batch is seen."""

import numpy as np
from numpy.typing import NDArray


class ViewDraw:
    """Draws views 0 to ``num_views`` - 1, of which 0 is the original: a pure function of the seed and of the epoch.

    Without ``paired`` the view of every window of a batch is drawn, each as likely as any other. With ``paired`` the
    windows 2i and 2i + 1 of a batch are the same one, and get two different views: the first is the original, or any
    one with ``augment``.
    """

    def __init__(self, num_views: int, seed: int, augment: bool, paired: bool) -> None:
        self.num_views, self.seed, self.augment, self.paired = num_views, seed, augment, paired

    def __call__(self, batches: list[NDArray], num_windows: int, epoch: int) -> list[NDArray]:
        """The ``batches`` (B,) of window numbers below W = ``num_windows``, with window w in view v as v * W + w."""
        rng = self._rng(epoch)
        return [batch + num_windows * self._of_batch(rng, len(batch)) for batch in batches]

    def views(self, number: int, epoch: int) -> NDArray[np.int64]:
        """As many views (number,), each as likely as any other."""
        return self._rng(epoch).integers(self.num_views, size=number)

    def _of_batch(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        if not self.paired:
            return rng.integers(self.num_views, size=size)
        first = rng.integers(self.num_views, size=size // 2) if self.augment else np.zeros(size // 2, dtype=np.int64)
        other = (first + rng.integers(1, self.num_views, size=size // 2)) % self.num_views
        return np.stack([first, other], axis=1).ravel()

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, 5])
