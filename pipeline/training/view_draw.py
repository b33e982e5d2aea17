"""In which of the stored views each window of a batch is seen."""

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 64  # windows of several frames that share a view in an epoch


class ViewDraw:
    """Draws views 0 to ``num_views`` - 1, of which 0 is the original: a pure function of the seed and of the epoch.

    Each view is as likely as any other. With ``paired`` the windows 2i and 2i + 1 of a batch are the same one, and get
    two different views: the first is the original, or any one with ``augment``. Else every window of a batch gets a
    view of its own where ``together`` is 1. With more, as many neighbouring windows share one in an epoch: they have
    frames in common, and a head that takes each frame of a batch once would have to take most of them in every view.
    """

    def __init__(self, num_views: int, seed: int, augment: bool, paired: bool, together: int = 1) -> None:
        self.num_views, self.seed, self.augment, self.paired = num_views, seed, augment, paired
        self.together = together

    def __call__(self, batches: list[NDArray], num_windows: int, epoch: int) -> list[NDArray]:
        """The ``batches`` (B,) of window numbers below W = ``num_windows``, with window w in view v as v * W + w."""
        if self.together > 1 and not self.paired:
            views = self.views(-(-num_windows // self.together), epoch)
            return [batch + num_windows * views[batch // self.together] for batch in batches]
        rng = self._rng(epoch)
        return [batch + num_windows * self._of_batch(rng, len(batch)) for batch in batches]

    def views(self, number: int, epoch: int) -> NDArray[np.int64]:
        """As many views (number,)."""
        return self._rng(epoch).integers(self.num_views, size=number)

    def _of_batch(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        if not self.paired:
            return rng.integers(self.num_views, size=size)
        first = rng.integers(self.num_views, size=size // 2) if self.augment else np.zeros(size // 2, dtype=np.int64)
        other = (first + rng.integers(1, self.num_views, size=size // 2)) % self.num_views
        return np.stack([first, other], axis=1).ravel()

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, 5])
