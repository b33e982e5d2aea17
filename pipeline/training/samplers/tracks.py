"""Shares of each batch for the kinds of labels."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.classes import Classes
from pipeline.training.samplers.common import Batches, Sampler, count_batches, deal, even
from pipeline.training.samplers.spread import Spread


class Tracks(Sampler):
    """Each batch has a share for each kind of label: so many windows with a class, with VA, with action units.

    For runs whose losses look at several kinds of labels, of which most windows lack some. A window that is drawn for
    one of its labels counts for every loss whose label it has. So a share is the least that a kind of label gets.

    ``shares``, such as {expression: 2, va: 1, aus: 1}, say how a batch is divided; without them all parts are equal. A
    kind that they leave out is not drawn for, and comes along where windows have its label as well.

    The part of the classes stands first. It is of P classes x K windows, K even, as in ``balanced``, and so may be
    smaller than its share. The other parts are of as many videos as possible, no window twice in a part.

    An epoch has as many batches as ``uniform``. ``known`` says of each track which windows (W,) have its label.

    Raises ``ValueError`` for fewer than two tracks, for a share of a track that the losses do not look at, and for a
    batch size that leaves fewer than 4 windows for the classes or 2 for another part.
    """

    source = "our own: shares by track, in the place of one sampler a task"

    def __init__(
        self, videos: NDArray, known: Mapping[str, NDArray], labels: NDArray, batch_size: int, seed: int,
        groups: NDArray | None = None, positives: str = "any", shares: Mapping[str, float] | None = None,
    ):  # fmt: skip
        self.seed, self.num_batches = seed, count_batches(len(videos), batch_size)
        sizes = _sizes(batch_size, dict.fromkeys(known, 1) if shares is None else shares, list(known))
        self._classes, self._others = None, []
        for track, size in sizes.items():
            rows = np.flatnonzero(known[track])
            if track != "expression":
                if size < 2:
                    raise ValueError(f"batch_size {batch_size} leaves {size} windows for {track}, and 2 are needed")
                self._others.append(Spread(rows, videos[rows], 2 * size))
                continue
            self._rows, of_group = rows, None if groups is None else groups[rows]
            self._classes = Classes(labels[rows], videos[rows], of_group, positives)
            if size < 4:
                raise ValueError(f"batch_size {batch_size} leaves {size} windows for classes, and 4 are needed")
            self._per_batch = min(self._classes.num_classes, size // 2)
            self._per_class = even(size // self._per_batch)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng, parts = np.random.default_rng([self.seed, epoch]), []
        if self._classes:
            turns = deal(rng, self._classes.num_classes, self._per_batch, self.num_batches).ravel()
            chosen = self._classes.take(rng, turns, np.full(len(turns), self._per_class))
            parts.append(self._rows[chosen].reshape(self.num_batches, -1))
        parts += [of_track.draw(rng, self.num_batches) for of_track in self._others]
        return list(np.concatenate(parts, axis=1))


def _sizes(batch_size: int, shares: Mapping[str, float], tracks: list[str]) -> dict[str, int]:
    """How many windows of a batch each track of ``shares`` gets: rounded down, and what is left over to the last."""
    if not isinstance(shares, Mapping) or len(shares) < 2:
        raise ValueError(f"shares must be of two tracks or more, such as {{expression: 2, va: 1}}, and are {shares!r}")
    for track, share in shares.items():
        if track not in tracks:
            raise ValueError(f"shares name '{track}', and the losses look at {tracks}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < np.inf:
            raise ValueError(f"the share of {track} must be above 0, and is {share!r}")
    total = sum(shares.values())
    sizes = {track: int(batch_size * share / total) for track, share in shares.items()}
    last = list(sizes)[-1]
    return sizes | {last: batch_size - sum(size for track, size in sizes.items() if track != last)}
