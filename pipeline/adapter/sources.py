"""Inputs of the head: in memory where they fit, else from the store in parts that are read while training goes on.

The frames are N rows sorted by (video, frame), as in ``data.FrameSet``; ``store_rows`` (N,) says where each lies in the
store. With several views the frames are numbered on: row v * N + i is frame i in view v.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.adapter.adapter import Front
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore

SHARE = 0.6  # of the free memory, where nobody says how much
BLOCK_BYTES = 16 << 20  # of float16 that are read at a time; less where there is little room
BLOCK_COPIES = 8  # what a block takes until it is in its place: twice that in float32, up to three times
SPREAD = 4  # times the rows of a block is how far apart in the store they may be
SEGMENT = 256  # neighbouring windows that stay together in a part
MIXED = 16  # pieces of a part, at least: shorter ones are cut where a part cannot hold as many


class InMemory:
    """Inputs of the head for the frames whose ``values`` (n, D), of any dtype, lie on the device.

    ``front``, where given, is what is still to be done to them: its shift and scale. (A projection is done before, it
    makes them smaller.)
    """

    def __init__(self, values: torch.Tensor, front: Front | None = None) -> None:
        self.values = values
        self._shift = front.shift if front is not None and bool((front.shift != 0).any()) else None
        self._scale = front.scale if front is not None and bool((front.scale != 1).any()) else None

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Inputs (n, K) float32 of the frames ``rows`` (n,)."""
        taken = self.values.index_select(0, rows).float()
        if self._shift is not None:
            taken.sub_(self._shift)
        return taken if self._scale is None else taken.div_(self._scale)

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (B, T, K) float32 and ``valid`` (B, T) of ``rows`` (B, T): zeros and False where a row is -1."""
        valid = rows >= 0
        taken = self.take(rows.clamp(min=0).flatten())
        if taken.is_cuda:  # which would have to be waited for to count what is missing
            taken.masked_fill_(~valid.view(-1, 1), 0.0)
        else:
            taken.index_fill_(0, (~valid).flatten().nonzero().flatten(), 0.0)
        return taken.view(*rows.shape, taken.shape[1]), valid


class FromDisk:
    """Inputs of the head for N frames in each of ``views``, read from the store whenever they are asked for.

    They are what ``InMemory`` would give. ``room`` is how many bytes of them ``feed`` may keep on the device.
    """

    def __init__(
        self, store: FeatureStore, store_rows: NDArray, front: Front, device: torch.device,
        views: Sequence[str] = ("original",), room: int = sys.maxsize,
    ) -> None:  # fmt: skip
        self.store, self.store_rows, self.front, self.device = store, np.asarray(store_rows), front.to(device), device
        self.views, self.room = list(views), room

    @property
    def row_bytes(self) -> int:
        """Of a frame in one view, in memory: float32 behind a projection, else float16 as it is stored."""
        return (4 if self._projected else 2) * self.front.num_inputs

    def hold(self, rows: NDArray, out: torch.Tensor | None = None) -> InMemory:
        """The frames ``rows`` (n,) on the device, in that order; in the first rows of ``out``, where given."""
        out = self.empty(len(rows)) if out is None else out[: len(rows)]
        view, frame = np.divmod(rows, len(self.store_rows))
        for number, name in enumerate(self.views):
            of_view = np.flatnonzero(view == number)
            for places, block in Blocks(self.store, self.store_rows[frame[of_view]], name, self._block_bytes).placed():
                values = torch.from_numpy(block).to(self.device)
                values = self.front(values) if self._projected else values
                out.index_copy_(0, torch.from_numpy(of_view[places]).to(self.device), values)
        return InMemory(out, None if self._projected else self.front)

    def empty(self, num_rows: int) -> torch.Tensor:
        """Room on the device for as many rows."""
        dtype = torch.float32 if self._projected else torch.float16
        return torch.empty((num_rows, self.front.num_inputs), dtype=dtype, device=self.device)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """As ``InMemory.take``; each frame is read once a call."""
        kept, place = np.unique(rows.cpu().numpy(), return_inverse=True)
        return self.hold(kept).take(torch.from_numpy(place).to(self.device))

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``InMemory.gather``; each frame is read once a call."""
        kept, place = np.unique(rows.clamp(min=0).cpu().numpy(), return_inverse=True)
        place = torch.from_numpy(place.reshape(rows.shape)).to(self.device)
        return self.hold(kept).gather(place.masked_fill_(rows < 0, -1))

    @property
    def _block_bytes(self) -> int:
        return _working(self.room) // BLOCK_COPIES

    @property
    def _projected(self) -> bool:
        return hasattr(self.front, "components")


class Blocks:
    """The store's ``rows`` (n,) in blocks (m, D) float16 of at most ``size`` bytes, in the order of the store.

    Going through the blocks reads them, each time again; only one is in memory.
    """

    def __init__(self, store: FeatureStore, rows: NDArray, view: str = "original", size: int = BLOCK_BYTES) -> None:
        self.store, self.rows, self.view = store, np.asarray(rows, dtype=np.int64), view
        self._most = max(1, size // (2 * store.widths[view]))

    def __iter__(self) -> Iterator[NDArray[np.float16]]:
        return (block for _, block in self.placed())

    def placed(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Each block (m, D), and which of ``rows`` they are: their places (m,)."""
        order = np.argsort(self.rows, kind="stable")
        # Of rows far apart fewer are a block: what is read through memory maps takes memory with all around it.
        stretch = self.rows[order] // (SPREAD * self._most)
        for near in np.split(order, np.flatnonzero(np.diff(stretch)) + 1):
            for start in range(0, len(near), self._most):
                places = near[start : start + self._most]
                yield places, self.store.read(self.rows[places], self.view)
                self.store.let_go(self.rows[places], self.view)


class Part:
    """A part of an epoch: ``windows`` (W',) are the numbers of its windows, ``rows`` (W', T) where they lie in it.

    ``inputs`` hold its frames, ``num_frames`` in each view.
    """

    def __init__(self, windows: NDArray, rows: NDArray, inputs: InMemory, num_frames: int) -> None:
        self.windows, self.inputs, self.num_frames = windows, inputs, num_frames
        self.rows = torch.from_numpy(rows).to(inputs.values.device)

    def batch(self, numbers: NDArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, T, K) float32 and valid (B, T); number v * W' + w is window w of the part in view v."""
        view, window = np.divmod(numbers, len(self.windows))
        rows = self.rows[torch.from_numpy(window).to(self.rows.device, non_blocking=True)]
        if view.any():
            offset = torch.from_numpy(view * self.num_frames).to(self.rows.device, non_blocking=True)
            rows = torch.where(rows >= 0, rows + offset[:, None], rows)
        return self.inputs.gather(rows)


Parts = Callable[[int], Iterable[Part]]


def load(
    store: FeatureStore, store_rows: NDArray, front: Front, device: torch.device, views: Sequence[str] = ("original",)
) -> InMemory:
    """All frames on the device; behind a projection float32, the stored ones are never there all at once."""
    return FromDisk(store, store_rows, front, device, views).hold(np.arange(len(views) * len(store_rows)))


def open_inputs(
    store: FeatureStore, store_rows: NDArray, front: Front, device: torch.device,
    views: Sequence[str] = ("original",), room: int | None = None,
) -> InMemory | FromDisk:  # fmt: skip
    """All frames in memory where they take no more than ``room`` bytes (default: ``allowance``), else from disk."""
    room = allowance(device) if room is None else room
    disk = FromDisk(store, store_rows, front, device, views, room)
    num_rows = len(views) * len(store_rows)
    return disk.hold(np.arange(num_rows)) if fits(num_rows, disk.row_bytes, room) else disk


def fits(num_rows: int, row_bytes: int, room: int) -> bool:
    """Whether so many rows can be held in ``room`` bytes, with what it takes to read them."""
    return num_rows * row_bytes <= room - _working(room)


def _working(room: int) -> int:
    """Bytes of ``room`` that reading takes."""
    return min(BLOCK_COPIES * BLOCK_BYTES, room // 8)


def feed(source: InMemory | FromDisk, rows: NDArray, num_frames: int, seed: int) -> Parts:
    """What the windows ``rows`` (W, T) are trained from: ``feed(...)(epoch)`` gives the parts of an epoch.

    In memory it is one part with all windows, the same in every epoch; also where only the windows' own frames fit.
    From disk see ``Dealt``. ``num_frames`` is N, the frames of a view. The parts are a pure function of (seed, epoch).
    Raises ``UserError`` where the source's ``room`` is too small to train in.
    """
    if isinstance(source, FromDisk):
        kept, local = _numbered(rows, num_frames)
        if not fits(len(source.views) * len(kept), source.row_bytes, source.room):
            return Dealt(source, rows, seed)
        source, rows, num_frames = source.hold(_in_every_view(kept, source)), local, len(kept)
    part = Part(np.arange(len(rows)), rows, source, num_frames)
    return lambda epoch: [part]


class Dealt:
    """Windows ``rows`` (W, T) dealt into parts whose frames fit into half of the room; the next is read meanwhile.

    Runs of at most ``SEGMENT`` windows that follow each other stay together, so that reading is sequential and their
    frames are held once. Each epoch shuffles the runs by (seed, epoch) and deals them out; all epochs have as many
    parts, of about equally many frames, and every window is in one of them. A part is read in the store's order.

    The parts lie by turns in the same two places: a part is good until the next is asked for. Their windows'
    row numbers, 8 T bytes a window, come on top of the room.
    """

    def __init__(self, source: FromDisk, rows: NDArray, seed: int) -> None:
        self.source, self.rows, self.seed = source, rows, seed
        frame_bytes = len(source.views) * source.row_bytes
        budget = (source.room - _working(source.room)) // 2 // frame_bytes  # frames of a part
        length = SEGMENT
        while (sizes := _frames_of_runs(rows, length)).max() * MIXED > budget and length > 1:
            length //= 2
        if sizes.max() * MIXED > budget:
            least = 2 * MIXED * int(sizes.max()) * frame_bytes * 8 / 7 / 1e9
            raise UserError(
                f"memory of {source.room / 1e9:.3g} GB is too little to train in: a part of the windows and the next "
                f"one need {least:.3g} GB"
            )
        self._sizes, self._starts = sizes, np.arange(0, len(rows), length)
        self.num_parts = -(-int(sizes.sum()) // int(budget - sizes.max()))
        self._places = [source.empty(len(source.views) * int(budget)) for _ in range(2)]

    def __call__(self, epoch: int) -> Iterator[Part]:
        """The parts of epoch number ``epoch``, from 0."""
        dealt = self.deal(epoch)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, dealt[0], 0)
            for number in range(len(dealt)):
                part = coming.result()
                if number + 1 < len(dealt):
                    coming = reader.submit(self._read, dealt[number + 1], (number + 1) % 2)
                yield part

    def deal(self, epoch: int) -> list[NDArray[np.int64]]:
        """The window numbers of each part, rising."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._starts))
        before = np.cumsum(self._sizes[order]) - self._sizes[order]
        part_of_run = np.empty(len(order), dtype=np.int64)
        part_of_run[order] = before * self.num_parts // self._sizes.sum()
        part = np.repeat(part_of_run, np.diff(self._starts, append=len(self.rows)))
        by_part = np.argsort(part, kind="stable")
        return np.split(by_part, np.cumsum(np.bincount(part, minlength=self.num_parts))[:-1])

    def _read(self, windows: NDArray, place: int) -> Part:
        kept, local = _numbered(self.rows[windows], len(self.source.store_rows))
        inputs = self.source.hold(_in_every_view(kept, self.source), self._places[place])
        return Part(windows, local, inputs, len(kept))


def _numbered(rows: NDArray, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The frames (n,) that windows ``rows`` (W, T) are made of, rising, and ``rows`` as places in them; -1 stays."""
    place = np.full(num_frames + 1, -1, dtype=np.int64)
    place[rows] = 0
    place[-1] = -1  # where -1 points to
    kept = np.flatnonzero(place == 0)
    place[kept] = np.arange(len(kept))
    return kept, place[rows]


def _in_every_view(frames: NDArray, source: FromDisk) -> NDArray[np.int64]:
    return (np.arange(len(source.views))[:, None] * len(source.store_rows) + frames).ravel()


def _frames_of_runs(rows: NDArray, length: int) -> NDArray[np.int64]:
    """How many frames each run of ``length`` windows is made of."""
    runs = (np.unique(rows[start : start + length]) for start in range(0, len(rows), length))
    return np.array([max(int((run >= 0).sum()), 1) for run in runs], dtype=np.int64)


def allowance(device: torch.device, memory_gb: float | None = None) -> int:
    """Bytes for features on the device: ``memory_gb`` (of 10^9), or ``SHARE`` of what is free there.

    Raises ``UserError`` for a size that is not above 0, and where the system does not say what is free.
    """
    if memory_gb is not None:
        if not memory_gb > 0:
            raise UserError(f"memory_gb must be above 0, and is {memory_gb}")
        return int(memory_gb * 1e9)
    if device.type != "cuda":
        return int(SHARE * free_memory())
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what an earlier fold left
    return int(SHARE * (torch.cuda.mem_get_info(device)[0] + unused))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory that can be had, within the limits of the control groups (version 1 or 2) we are in.

    Cached files count as free, they go when memory is asked for. Where the system says only how much there is, all of
    it. ``root`` is the file system's.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError):
            raise UserError("this system does not say how much memory is free: give memory_gb") from None
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([available, *_free_in_groups(root)])


def _free_in_groups(root: Path) -> Iterator[int]:
    """What each control group above this process has left, where it has a limit."""
    file = root / "proc/self/cgroup"
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        names = ("memory.max", "memory.current", "") if not controllers else _VERSION_1
        top = root / "sys/fs/cgroup" / controllers
        group = top / path.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(top) and (folder / names[0]).is_file():
                limit, used = ((folder / name).read_text().strip() for name in names[:2])
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cached = sum(int(stat.get(f"{names[2]}{kind}_file", 0)) for kind in ("active", "inactive"))
                if limit != "max":
                    yield max(int(limit) - int(used) + cached, 0)


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
