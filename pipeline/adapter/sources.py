"""Inputs of the head, for whoever uses or trains one: in memory where they fit, else read from the store.

The frames are N rows sorted by (video, frame), as in ``core.frame_set``. ``store_rows`` (N,) says where each lies in
the store. With several views the frames are numbered on: row v * N + i is frame i in view v.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.adapter.front import Front, Fronts, hide_
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores, view_of

SHARE = 0.6  # of the free memory, where nobody says how much
BLOCK_BYTES = 16 << 20  # of float16 that are read at a time; less where there is little room
BLOCK_COPIES = 8  # what a block takes until it is in its place: twice that in float32, up to three times
SPREAD = 4  # times the rows of a block is how far apart in the store they may be


class InMemory:
    """Inputs of the head for n frames whose ``values`` (n, D), of any dtype, lie on the device; or those of each store.

    Where a ``front`` is given, its shift and scale are still to be applied to them. Its projection has been applied
    already: it makes the values smaller. ``present`` (n, S) says of several stores which have each frame: what one
    lacks is zeros. None where all have all.
    """

    def __init__(
        self, values: torch.Tensor | list[torch.Tensor], front: Front | Fronts | None = None,
        present: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        self.values, self.present = values, present
        self._columns = front.columns if isinstance(front, Fronts) else None
        if isinstance(front, Fronts):
            self._factor, self._bias = 1 / front.scale, -front.shift / front.scale
        self._shift = front.shift if front is not None and bool((front.shift != 0).any()) else None
        self._scale = front.scale if front is not None and bool((front.scale != 1).any()) else None

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Inputs (n, K) float32 of the frames ``rows`` (n,)."""
        taken = self._taken(rows)
        if self._columns is not None:
            return self._of_several(taken, rows)
        if self._shift is not None:
            taken.sub_(self._shift)
        return taken if self._scale is None else taken.div_(self._scale)

    def _of_several(self, taken: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Shift and scale in one pass, since those of several stores are hardly ever 0 and 1; zeros where one lacks."""
        if self._shift is not None or self._scale is not None:
            torch.addcmul(self._bias, taken, self._factor, out=taken)
        return taken if self.present is None else hide_(taken, self._columns, ~self.present[rows])

    @property
    def device(self) -> torch.device:
        return (self.values if isinstance(self.values, torch.Tensor) else self.values[0]).device

    def _taken(self, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(self.values, torch.Tensor):
            return self.values.index_select(0, rows).float()
        taken = torch.empty((len(rows), self._columns[-1].stop))
        for values, columns in zip(self.values, self._columns, strict=True):
            taken[:, columns] = values.index_select(0, rows)
        return taken

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (B, T, K) float32 and ``valid`` (B, T) of ``rows`` (B, T): zeros and False where a row is -1."""
        valid = rows >= 0
        taken = self.take(rows.clamp(min=0).flatten())
        # The one place where gaps are filled. Counting what is missing on a CUDA device would mean waiting for it.
        if taken.is_cuda:
            taken.masked_fill_(~valid.view(-1, 1), 0.0)
        else:
            taken.index_fill_(0, (~valid).flatten().nonzero().flatten(), 0.0)
        return taken.view(*rows.shape, taken.shape[1]), valid


class FromDisk:
    """Inputs of the head for N frames in each of ``views``, read from the store at every call.

    They are what ``InMemory`` would give. ``room`` is how many bytes of them training may keep on the device.
    """

    def __init__(
        self, store: FeatureStore | Stores, store_rows: NDArray, front: Front | Fronts, device: torch.device,
        views: Sequence[str] = ("original",), room: int = sys.maxsize,
    ) -> None:  # fmt: skip
        self.store, self.store_rows, self.front, self.device = store, np.asarray(store_rows), front.to(device), device
        self.views, self.room = list(views), room

    @property
    def row_bytes(self) -> int:
        """Of a frame in one view, in memory: float32 behind a projection, else float16 as it is stored."""
        return (4 if self._projected else 2) * self.front.num_inputs

    def hold(self, rows: NDArray, out: torch.Tensor | list[torch.Tensor] | None = None) -> InMemory:
        """The frames ``rows`` (n,) on the device, in that order; in the first rows of ``out``, where given."""
        out = self.empty(len(rows)) if out is None else out
        out = [part[: len(rows)] for part in out] if isinstance(out, list) else out[: len(rows)]
        view, frame = np.divmod(rows, len(self.store_rows))
        for number, name in enumerate(self.views):
            of_view = np.flatnonzero(view == number)
            for store, own, stored, front, part in self._each(self.store_rows[frame[of_view]], name, out):
                at = of_view
                if len(lacking := np.flatnonzero(own < 0)):
                    part[torch.from_numpy(at[lacking]).to(self.device)] = 0
                    at, own = at[own >= 0], own[own >= 0]
                self._read(store, own, stored, at, front, part)
        present = self._present(self.store_rows[frame])
        return InMemory(out, None if self._projected else self.front, present)

    def _each(
        self, store_rows: NDArray, name: str, out: torch.Tensor | list[torch.Tensor]
    ) -> Iterator[tuple[FeatureStore, NDArray, str, Front, torch.Tensor]]:
        """Of each store: its own rows (n,), -1 where it lacks one, its view, its front, and its part of ``out``."""
        if not isinstance(self.store, Stores):
            yield self.store, store_rows, name, self.front, out
            return
        for number, (store, front) in enumerate(zip(self.store.stores, self.front.blocks, strict=True)):
            part = out[number] if isinstance(out, list) else out[:, self.front.columns[number]]
            yield store, self.store.own_rows(store_rows, number), view_of(store, name), front, part

    def _read(
        self, store: FeatureStore, rows: NDArray, view: str, at: NDArray, front: Front, out: torch.Tensor
    ) -> None:
        """Rows (n,) of one store, projected where anything is, to the places ``at`` (n,) of ``out``."""
        blocks, as_stored = Blocks(store, rows, view, self._block_bytes), self._as_stored
        for places in blocks.places():
            to = at[places]
            if as_stored and to[-1] - to[0] == len(to) - 1 and (to[1:] > to[:-1]).all():
                blocks.read(places, out[to[0] : to[-1] + 1].numpy())  # to where they are to be
                continue
            values = torch.from_numpy(blocks.read(places)).to(self.device)
            out.index_copy_(0, torch.from_numpy(to).to(self.device), front(values) if self._projected else values)

    def empty(self, num_rows: int) -> torch.Tensor | list[torch.Tensor]:
        """Room on the device for as many rows; of several stores as they are stored, for those of each."""
        if self._as_stored:  # numpy asks for large pages: to touch the memory first is most of what a load costs
            room = torch.from_numpy(np.empty((num_rows, self.front.num_inputs), np.float16))
            if not isinstance(self.store, Stores):
                return room
            widths = [of.stop - of.start for of in self.front.columns]  # pieces of one array, as that has large pages
            pieces = room.flatten().split([num_rows * width for width in widths])
            return [piece.view(num_rows, width) for piece, width in zip(pieces, widths, strict=True)]
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

    def _present(self, store_rows: NDArray) -> torch.Tensor | None:
        """Which of several stores have each row (n, S); None where there is one, or all have all."""
        present = self.store.present(store_rows) if isinstance(self.store, Stores) else None
        return None if present is None else torch.from_numpy(present).to(self.device)

    @property
    def _block_bytes(self) -> int:
        return working_bytes(self.room) // BLOCK_COPIES

    @property
    def _as_stored(self) -> bool:
        """Whether the rows are kept in main memory, float16, as they are in the store."""
        return self.device.type == "cpu" and not self._projected

    @property
    def _projected(self) -> bool:
        return self.front.projects


class Blocks:
    """The store's ``rows`` (n,) in blocks (m, D) float16 of at most ``size`` bytes, in the order of the store.

    Going through the blocks reads them, each time again; only one is in memory.
    """

    def __init__(self, store: FeatureStore, rows: NDArray, view: str = "original", size: int = BLOCK_BYTES) -> None:
        self.store, self.rows, self.view = store, np.asarray(rows, dtype=np.int64), view
        self._most = max(1, size // (2 * store.widths[view]))

    def __iter__(self) -> Iterator[NDArray[np.float16]]:
        return map(self.read, self.places())

    def places(self) -> Iterator[NDArray[np.int64]]:
        """Which of ``rows`` each block is of: their places (m,)."""
        order = np.argsort(self.rows, kind="stable")
        # Of rows far apart fewer are a block: what is read through memory maps takes memory with all around it.
        stretch = self.rows[order] // (SPREAD * self._most)
        for near in np.split(order, np.flatnonzero(np.diff(stretch)) + 1):
            for start in range(0, len(near), self._most):
                yield near[start : start + self._most]

    def read(self, places: NDArray[np.int64], out: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
        """The block (m, D) at ``places`` (m,); in ``out``, where given."""
        rows = self.rows[places]
        block = self.store.read(rows, self.view, out)
        self.store.let_go(rows, self.view)
        return block


def load(
    store: FeatureStore | Stores, store_rows: NDArray, front: Front | Fronts, device: torch.device,
    views: Sequence[str] = ("original",),
) -> InMemory:  # fmt: skip
    """All frames on the device; behind a projection float32, the stored ones are never there all at once."""
    return FromDisk(store, store_rows, front, device, views).hold(np.arange(len(views) * len(store_rows)))


def open_inputs(
    store: FeatureStore | Stores, store_rows: NDArray, front: Front | Fronts, device: torch.device,
    views: Sequence[str] = ("original",), room: int | None = None,
) -> InMemory | FromDisk:  # fmt: skip
    """All frames in memory where they take no more than ``room`` bytes (default: ``allowance``), else from disk."""
    room = allowance(device) if room is None else room
    disk = FromDisk(store, store_rows, front, device, views, room)
    num_rows = len(views) * len(store_rows)
    return disk.hold(np.arange(num_rows)) if fits(num_rows, disk.row_bytes, room) else disk


def fits(num_rows: int, row_bytes: int, room: int) -> bool:
    """Whether so many rows can be held in ``room`` bytes, with what it takes to read them."""
    return num_rows * row_bytes <= room - working_bytes(room)


def working_bytes(room: int) -> int:
    """Bytes of ``room`` that reading takes, on top of what is kept."""
    return min(BLOCK_COPIES * BLOCK_BYTES, room // 8)


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
