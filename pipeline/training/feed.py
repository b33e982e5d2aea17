"""What training reads: an epoch's windows, in one shard where they fit into memory, else in shards read from the store.

A *shard* is a part of the windows with the frames that they are made of. The next one is read while training goes on.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.adapter.front import hide_
from pipeline.adapter.sources import FromDisk, InMemory, fits, working_bytes
from pipeline.core.params import UserError
from pipeline.training.modality import ModalityDropout
from pipeline.training.view_draw import ViewDraw

SEGMENT_WINDOWS = 256  # neighbouring windows that stay together in a shard
MIN_SEGMENTS = 16  # of a shard: where its memory cannot hold so many, segments are shorter


class Shard:
    """Windows that are trained on together, and the inputs of their frames.

    ``windows`` (W',) are the numbers of its windows among all. ``rows`` (W', T) are the frames of each window, counted
    within the shard. ``inputs`` holds these frames: ``num_frames`` in each view. ``draw`` says in which view a window
    of a batch is; without it each is as ``rows`` has it.
    """

    def __init__(
        self, windows: NDArray, rows: NDArray, inputs: InMemory, num_frames: int, draw: ViewDraw | None = None
    ) -> None:
        self.windows, self.inputs, self.num_frames, self.draw = windows, inputs, num_frames, draw
        self.rows = torch.from_numpy(rows).to(inputs.device)

    def in_views(self, batches: list[NDArray], epoch: int) -> list[NDArray]:
        """The batches of epoch number ``epoch``, of windows of the shard, as numbers for ``batch`` and ``frames``."""
        return batches if self.draw is None else self.draw(batches, len(self.windows), epoch)

    def batch(self, numbers: NDArray, hides: ModalityDropout | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, T, K) float32 and valid (B, T). Number v * W' + w is window w of the shard in view v.

        ``hides`` draws which stores are hidden from each window.
        """
        rows = self._rows_of(numbers)
        features, valid = self.inputs.gather(rows)
        if hides is not None:
            hide_(features, hides.columns, self._hidden(rows, hides))
        return features, valid

    def frames(self, numbers: NDArray, hides: ModalityDropout | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The same windows as features (n, K) of their frames, each once, and place (B, T) in these; -1 is missing.

        Of a frame there is one for each set of stores that is hidden from a window that holds it.
        """
        rows = self._rows_of(numbers)
        if hides is not None:
            return self._frames_hidden(rows, hides)
        kept, place = torch.unique(rows, return_inverse=True)
        if len(kept) > 1 and kept[0] < 0:
            kept, place = kept[1:], place - 1
        return self.inputs.take(kept.clamp(min=0)), place.where(rows >= 0, -1)

    def _frames_hidden(self, rows: torch.Tensor, hides: ModalityDropout) -> tuple[torch.Tensor, torch.Tensor]:
        powers = 2 ** torch.arange(len(hides.columns), device=rows.device)
        code = (self._hidden(rows, hides).to(rows.device) * powers).sum(dim=1)
        keys = torch.where(rows >= 0, rows * 2 ** len(powers) + code[:, None], -1)
        kept, place = torch.unique(keys, return_inverse=True)
        if len(kept) > 1 and kept[0] < 0:
            kept, place = kept[1:], place - 1
        kept = kept.clamp(min=0)
        features = self.inputs.take(kept >> len(powers))
        hide_(features, hides.columns, (kept[:, None] & powers) > 0)
        return features, place.where(rows >= 0, -1)

    def _hidden(self, rows: torch.Tensor, hides: ModalityDropout) -> torch.Tensor:
        """Which stores (B, S) are hidden from each of the windows ``rows`` (B, T)."""
        of_frames, present = self.inputs.present, None
        if of_frames is not None:
            present = (of_frames[rows.clamp(min=0)] & (rows >= 0)[..., None]).any(dim=1)
        return hides.draw(len(rows), present).to(rows.device)

    def _rows_of(self, numbers: NDArray) -> torch.Tensor:
        view, window = np.divmod(numbers, len(self.windows))
        rows = self.rows[torch.from_numpy(window).to(self.rows.device, non_blocking=True)]
        if view.any():
            offset = torch.from_numpy(view * self.num_frames).to(self.rows.device, non_blocking=True)
            rows = torch.where(rows >= 0, rows + offset[:, None], rows)
        return rows


# The shards of an epoch, by its number from 0: a pure function of the seed and of that number.
Shards = Callable[[int], Iterable[Shard]]


class Drawn:
    """At most ``most`` windows of each clip, drawn anew in each epoch; ``clip`` (W,) says which clip each is of.

    Which ones is a pure function of the seed and of the epoch. ``num_windows`` is how many are drawn, as many in each.
    """

    def __init__(self, clip: NDArray, most: int, seed: int) -> None:
        self._clip, self._count = np.unique(clip, return_inverse=True, return_counts=True)[1:]
        self._most, self._seed = most, seed
        self.num_windows = int(np.minimum(self._count, most).sum())

    def __call__(self, epoch: int) -> NDArray[np.bool_]:
        """Which windows (W,) are drawn in epoch number ``epoch``, from 0."""
        order = np.lexsort((np.random.default_rng([self._seed, epoch, 4]).random(len(self._clip)), self._clip))
        place = np.arange(len(order)) - (np.cumsum(self._count) - self._count)[self._clip[order]]
        drawn = np.zeros(len(order), dtype=bool)
        drawn[order[place < self._most]] = True
        return drawn


def feed(
    source: InMemory | FromDisk, rows: NDArray, num_frames: int, seed: int, drawn: Drawn | None = None,
    draw: ViewDraw | None = None,
) -> Shards:  # fmt: skip
    """The shards that the windows ``rows`` (W, T) are trained from. ``num_frames`` is N, the frames of a view.

    In memory there is one shard with all windows, the same in every epoch; or, with ``drawn``, with those that are
    drawn in the epoch. So it is where only the frames of these windows fit. Else see ``ShuffledShards``. ``draw`` draws
    the views of windows, where they are not all the first one. Raises ``UserError`` where the source's ``room`` is too
    small to train in.
    """
    if isinstance(source, FromDisk):
        kept, local = _renumbered(rows, num_frames)
        if not fits(len(source.views) * len(kept), source.row_bytes, source.room):
            return ShuffledShards(source, rows, seed, drawn, draw)
        source, rows, num_frames = source.hold(_in_every_view(kept, source)), local, len(kept)
    if drawn is not None:
        return lambda epoch: [Shard(some := np.flatnonzero(drawn(epoch)), rows[some], source, num_frames, draw)]
    shard = Shard(np.arange(len(rows)), rows, source, num_frames, draw)
    return lambda epoch: [shard]


class ShuffledShards:
    """Windows ``rows`` (W, T) in shards whose frames take at most half of the room, another division in each epoch.

    Segments of at most ``SEGMENT_WINDOWS`` windows that follow each other stay together. So reading is sequential, and
    frames that neighbouring windows share are held once. Each epoch shuffles the segments by (seed, epoch) and cuts
    them into shards of about equally many frames. Every epoch has as many shards, and every window is in one of them. A
    shard is read in the order of the store.

    Two buffers take turns, so a shard is good until the next one is asked for. The row numbers of the windows, 8 T
    bytes each, come on top of the room. With ``drawn`` a shard has only those of its windows that are drawn in the
    epoch, and one without any is left out.

    With ``draw`` each segment is in one view in an epoch: all its windows are, so that no more is read than of one
    view. Where the sampler pairs two views of a window (``draw.paired``) a shard holds every view instead.
    """

    def __init__(
        self, source: FromDisk, rows: NDArray, seed: int, drawn: Drawn | None = None, draw: ViewDraw | None = None
    ) -> None:
        self.source, self.rows, self.seed, self.drawn = source, rows, seed, drawn
        one_view = draw is not None and not draw.paired
        self._draw_segments, self._draw_windows = (draw, None) if one_view else (None, draw)
        self._views = 1 if one_view else len(source.views)  # that are held of a frame
        frame_bytes = self._views * source.row_bytes
        budget = (source.room - working_bytes(source.room)) // 2 // frame_bytes  # frames of a shard
        length = SEGMENT_WINDOWS
        while (sizes := _frames_of_segments(rows, length)).max() * MIN_SEGMENTS > budget and length > 1:
            length //= 2
        if sizes.max() * MIN_SEGMENTS > budget:
            least = 2 * MIN_SEGMENTS * int(sizes.max()) * frame_bytes * 8 / 7 / 1e9
            raise UserError(
                f"memory of {source.room / 1e9:.3g} GB is too little to train in (memory_gb): two parts of the windows "
                f"at a time need {least:.3g} GB"
            )
        self._sizes, self._starts, self._length = sizes, np.arange(0, len(rows), length), length
        self.num_shards = -(-int(sizes.sum()) // int(budget - sizes.max()))
        self._buffers = [source.empty(self._views * int(budget)) for _ in range(2)]

    def __call__(self, epoch: int) -> Iterator[Shard]:
        """The shards of epoch number ``epoch``, from 0."""
        divided = self.divide(epoch)
        views = self._draw_segments.views(len(self._starts), epoch) if self._draw_segments else None
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, divided[0], 0, views)
            for number in range(len(divided)):
                shard = coming.result()
                if number + 1 < len(divided):
                    coming = reader.submit(self._read, divided[number + 1], (number + 1) % 2, views)
                yield shard

    def divide(self, epoch: int) -> list[NDArray[np.int64]]:
        """The window numbers of each shard, rising."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._starts))
        before = np.cumsum(self._sizes[order]) - self._sizes[order]
        shard_of_segment = np.empty(len(order), dtype=np.int64)
        shard_of_segment[order] = before * self.num_shards // self._sizes.sum()
        shard = np.repeat(shard_of_segment, np.diff(self._starts, append=len(self.rows)))
        by_shard = np.argsort(shard, kind="stable")
        divided = np.split(by_shard, np.cumsum(np.bincount(shard, minlength=self.num_shards))[:-1])
        if self.drawn is None:
            return divided
        chosen = self.drawn(epoch)
        return [some for windows in divided if len(some := windows[chosen[windows]])]

    def _read(self, windows: NDArray, buffer: int, views: NDArray | None) -> Shard:
        """The shard of ``windows``; ``views`` are those of the segments, where each is in one."""
        rows, num_frames = self.rows[windows], len(self.source.store_rows)
        if views is not None:
            offset = views[windows // self._length] * num_frames
            rows = np.where(rows >= 0, rows + offset[:, None], -1)
        kept, local = _renumbered(rows, num_frames * (1 if views is None else len(self.source.views)))
        read = kept if views is not None else _in_every_view(kept, self.source)
        return Shard(windows, local, self.source.hold(read, self._buffers[buffer]), len(kept), self._draw_windows)


def _renumbered(rows: NDArray, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The frames (n,) that windows ``rows`` (W, T) are made of, rising, and ``rows`` as places in them; -1 stays.

    Of several views a frame counts as one of its own in each; ``num_frames`` are all that there can be.
    """
    place = np.full(num_frames + 1, -1, dtype=np.int64)
    place[rows] = 0
    place[-1] = -1  # where -1 points to
    kept = np.flatnonzero(place == 0)
    place[kept] = np.arange(len(kept))
    return kept, place[rows]


def _in_every_view(frames: NDArray, source: FromDisk) -> NDArray[np.int64]:
    return (np.arange(len(source.views))[:, None] * len(source.store_rows) + frames).ravel()


def _frames_of_segments(rows: NDArray, length: int) -> NDArray[np.int64]:
    """How many frames each segment of ``length`` windows is made of, 1 at least."""
    segments = (np.unique(rows[start : start + length]) for start in range(0, len(rows), length))
    return np.array([max(int((segment >= 0).sum()), 1) for segment in segments], dtype=np.int64)
