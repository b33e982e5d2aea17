"""Door 2: the feature store, the only thing that extraction and training both know.

One Zarr v3 group. All arrays share their first axis, N rows, and are chunked together, ``chunk_rows`` rows a chunk:

    views/<name>   (N, D) float16   one row a frame: 'original', and 'flipped' where it was asked for
    logits         (N, C) float16   only where the backbone has a classifier; ``made_by['outputs']`` names the columns
    video          (N,)   string    the key of the row ...
    frame          (N,)   int64     ... and the commit mark: -1 where there is no row
    size           (N,)   int64     bytes of the image file that the row was made from
    attrs          made_by: what made the features; nothing else may be added to them
                   arrays: the names of the views, and 'logits'
                   sha256: of these two, so that no damage passes for features that something else made

A store of maps (``extract.py --maps``) is the same with ``views/original`` (N, C, h, w): what a stage of the backbone
takes in. Readers and the writer take a map as a row of C * h * w numbers.

A chunk is the unit of work. Its features are written first, its ``frame`` numbers last, each by a temporary file and a
rename; so a run killed anywhere leaves whole chunks, and the next run redoes only the one in flight. A later run starts
a new chunk and never touches an old one. Where a key stands in two rows, the later row is the valid one.

Every chunk file ends in a crc32c of what is before it. Feature chunks are not compressed, so that a chunk file is the
raw array followed by those four bytes, and is read through a memory map. A reader checks the keys when it opens the
store, and a chunk when it first reads from it. ``pipeline/extraction/upkeep.py`` finds and drops what is damaged.

Zarr's consolidated metadata, a copy of all zarr.json that other tools put into the first one, is never read: the copy
does not grow with the store. The writer takes it away. What else others put into the group is left alone.

Beside the store lie ``<name>.lock``, held by the writer, ``<name>.writer``, which names it, ``<name>.replaced``, the
store before a --rebuild until the new one is whole, and only while they are being made or taken away the folders
``.<name>.new``, ``.<name>.old`` and ``.<name>.removed``. A link is followed first: all of these lie beside the store's
real place.
"""

import itertools
import json
import math
import mmap
import os
import shutil
import socket
import sys
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import google_crc32c
import numpy as np
import pandas as pd
import zarr
from numcodecs import zstd
from zarr.codecs import BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec

from pipeline.core.alone import alone
from pipeline.core.files import digest_of
from pipeline.core.params import UserError

CHUNK_ROWS = 4096
_RAW = (BytesCodec(endian="little"), Crc32cCodec())
_KEY = (ZstdCodec(level=3), Crc32cCodec())
_WHOLE = {"write_empty_chunks": True}  # a missing chunk file is always damage
_MOST_AHEAD = 63  # chunks that the arrays of a store being written are too long
# What may differ between two makings that the user calls alike: where the images came from, and never by which network,
# weights or size they became features.
ALIKE = ("crop_source",)
_MOST_RUNS = 32  # of equal texts in a chunk: each of more costs more than all texts of a chunk
_MOST_MAPS = 4096  # open memory maps a store; Linux allows a process 65,530
_STREAM_BYTES = 1 << 18  # a run of rows this long is read faster through read() than through page faults
_CHECK_BYTES = 1 << 19  # read at a time where a checksum is computed: they stay in the processor's cache
_REPLACING_SEC = 5  # how long a reader waits for a store that is just being replaced
_REPAIR = (
    "'python extract.py --verify' names all that is damaged, and --repair extracts it again (with --import FILE: takes "
    "it from there again)"
)
NOT_FINITE = "it holds values that are not finite"
_MISSING, _SHORT = "the file is missing", "the file is too short"
_REPLACE = (
    "Put back a copy of that file ('dvc checkout' has one of DVC's store), or delete the folder and extract again"
)


class StoreMismatch(UserError):
    """Something else made the store than what makes the features that are to be added to it."""


class StoreDamaged(UserError):
    """``file`` of the store is missing, or is not what was written; ``why`` says which, ``frames`` what was in it."""

    def __init__(self, store: Path, file: Path, why: str, way_out: str = _REPAIR, frames: str = "") -> None:
        which = f" (frames {frames})" if frames else ""
        super().__init__(f"the store {store} is damaged: {file}: {why}{which}. {way_out}")
        self.file, self.why = file, why


class StoreReplaced(UserError):
    """Another store has taken the place of the one that was opened: its rows are others."""


class FeatureStore:
    """A finished or growing store, for reading.

    Raises ``UserError`` where ``path`` is not a store, and ``StoreDamaged`` where its keys cannot be read. ``keys`` has
    one row a valid frame, sorted by (video, frame), with the columns video, frame, size and row, the place in the
    arrays. What a writer adds later is not seen. ``map_shape`` is (C, h, w) of a store of maps, else None.

    The checksum of a chunk is checked when the chunk is first read, so that damage is an error that names the file and
    the frames, and never a feature. Where --compact or --rebuild puts another store in its place, the open one never
    reads from that: it has what it has mapped, and raises ``StoreReplaced`` for all else.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._folder, self.group, self._arrays, self.keys = _opened(resolved(path))
        weakref.finalize(self, os.close, self._folder)
        self.made_by: dict[str, Any] = dict(self.group.attrs["made_by"])
        self.views = [name for name in self._arrays if name != "logits"]
        self._raw = {name: _is_raw(array) for name, array in self._arrays.items()}
        self._maps: dict[tuple[str, int], np.memmap] = {}
        self._checked: set[tuple[str, int]] = set()
        self.widths = {name: math.prod(array.shape[1:]) for name, array in self._arrays.items()}
        self.map_shape: tuple[int, ...] | None = _map_shape(self._arrays["original"])
        self.num_features = self.widths["original"]
        self.chunk_rows = int(
            self._arrays["original"].chunks[0]
        )  # of the store that was opened, whatever now stands there

    def read(self, rows: np.ndarray, name: str = "original", out: np.ndarray | None = None) -> np.ndarray:
        """Rows (n,) of a view, or of ``logits``, as an (n, D) float16 array, in the order asked for.

        They are read into ``out`` (n, D), C-contiguous float16, where it is given. Raises ``StoreDamaged`` where a
        chunk that they lie in is not what was written.
        """
        array = self._array(name)
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), self.widths[name]), dtype=array.dtype) if out is None else out
        if len(rows) == 0:
            return out
        chunk_of = rows // self.chunk_rows
        bounds = [0, *(np.flatnonzero(chunk_of[1:] != chunk_of[:-1]) + 1), len(rows)]
        for start, end in itertools.pairwise(bounds):
            index = int(chunk_of[start])
            inside, part = rows[start:end] - index * self.chunk_rows, out[start:end]
            if (name, index) in self._checked or not self._raw[name]:
                self._read_inside(name, index, inside, part)
            elif part.nbytes >= _STREAM_BYTES and (inside[1:] > inside[:-1]).all():
                self._check(name, index, inside, part)
            else:
                self._check(name, index, inside[:0], part)
                self._read_inside(name, index, inside, part)
        return out

    def chunk(self, index: int, name: str = "original") -> np.ndarray:
        """Chunk ``index`` of a view or of ``logits``, (chunk_rows, D): a memory map where the codec allows it."""
        self._array(name)
        if self._raw[name] and (name, index) not in self._checked:
            self._check(name, index, np.empty(0, np.int64), np.empty(0, np.float16))
        return self._chunk(name, index)

    def _check(self, name: str, index: int, inside: np.ndarray, out: np.ndarray) -> None:
        """Reads a raw chunk from end to end; raises ``StoreDamaged`` where it does not fit its last four bytes.

        The same for values that are not finite, which nothing here writes. The rows ``inside`` (n,), which must rise,
        are put into ``out`` (n, D) on the way: a piece at a time, which is still in the processor's cache when its
        checksum is computed.
        """
        dtype, width, crc, finite = self._arrays[name].dtype, self.widths[name], 0, True
        piece = np.empty((max(1, _CHECK_BYTES // (2 * width)), width), dtype)
        with self._open(name, index) as handle:
            for first in range(0, self.chunk_rows, len(piece)):
                part = piece[: self.chunk_rows - first]
                start, end = np.searchsorted(inside, (first, first + len(part)))
                if end - start == len(part):
                    part = out[start:end]
                crc = google_crc32c.extend(crc, self._filled(name, index, handle, part))
                finite = finite and all_finite(part)
                if 0 < end - start < len(part):
                    np.take(part, inside[start:end] - first, axis=0, out=out[start:end], mode="clip")
            if crc.to_bytes(4, "little") != handle.read(5):
                raise self._damaged(name, index, "it does not match its checksum")
        if not finite:
            raise self._damaged(name, index, NOT_FINITE)
        self._checked.add((name, index))

    def _filled(self, name: str, index: int, handle: FileIO, out: np.ndarray) -> np.ndarray:
        """``out`` with as many bytes of an open chunk file as it has, as bytes."""
        content = out.reshape(-1).view(np.uint8)
        buffer = memoryview(content)
        while buffer and (got := handle.readinto(buffer)):
            buffer = buffer[got:]
        if buffer:
            raise self._damaged(name, index, _SHORT)
        return content

    def _chunk(self, name: str, index: int) -> np.ndarray:
        if (name, index) in self._maps:
            return self._maps[name, index]
        array = self._arrays[name]
        if not self._raw[name]:
            content = read_chunk(self.path, array, index)
            if not all_finite(content):
                raise self._damaged(name, index, NOT_FINITE)
            if not _stands(self._folder, self.path):
                raise self._gone(name, index)
            return content.reshape(len(content), -1)
        with self._open(name, index) as handle:
            try:
                mapped = np.memmap(handle, dtype=array.dtype, mode="r", shape=(self.chunk_rows, self.widths[name]))
            except ValueError:
                raise self._damaged(name, index, _SHORT) from None
        if len(self._maps) >= _MOST_MAPS:
            self._maps.pop(next(iter(self._maps)))
        self._maps[name, index] = mapped
        return mapped

    def let_go(self, rows: np.ndarray, name: str = "original") -> None:
        """Gives back the memory that reading ``rows`` (n,) has mapped, which else stays until the process ends.

        Of a store read whole that is the size of the store. What is let go is read again when it is asked for; so are
        chunks between those of ``rows``, which are let go too.
        """
        if not self._maps or not len(rows) or not hasattr(mmap, "MADV_DONTNEED"):
            return
        for index in range(int(rows.min()) // self.chunk_rows, int(rows.max()) // self.chunk_rows + 1):
            if (name, index) in self._maps:
                self._maps[name, index].base.madvise(mmap.MADV_DONTNEED)

    def _read_inside(self, name: str, index: int, inside: np.ndarray, out: np.ndarray) -> None:
        """Rows ``inside`` (n,) of one chunk into ``out`` (n, D)."""
        first, last = int(inside[0]), int(inside[-1])
        if last - first != len(inside) - 1 or (inside[1:] <= inside[:-1]).any():
            np.take(self._chunk(name, index), inside, axis=0, out=out, mode="clip")
        elif out.nbytes >= _STREAM_BYTES and self._raw[name]:
            self._stream(name, index, first, out)
        else:
            out[:] = self._chunk(name, index)[first : last + 1]

    def _stream(self, name: str, index: int, first: int, out: np.ndarray) -> None:
        """The rows of one chunk from ``first`` on, as many as ``out`` has."""
        with self._open(name, index) as handle:
            handle.seek(first * out.strides[0])
            self._filled(name, index, handle, out)

    def _open(self, name: str, index: int) -> FileIO:
        """A chunk file of the folder that was opened, whatever now stands at its path."""
        inside = chunk_file(Path(), self._arrays[name], index)
        try:
            return open(inside, "rb", buffering=0, opener=lambda p, flags: os.open(p, flags, dir_fd=self._folder))
        except FileNotFoundError:
            raise self._gone(name, index) from None
        except OSError as error:
            raise UserError(f"cannot read {self.path / inside}: {error.strerror}") from None

    def _gone(self, name: str, index: int) -> UserError:
        if _stands(self._folder, self.path):
            return self._damaged(name, index, _MISSING)
        return StoreReplaced(f"the store {self.path} was replaced (--compact, --rebuild) while it was read: run again")

    def _damaged(self, name: str, index: int, why: str) -> StoreDamaged:
        inside = self.keys[self.keys["row"] // self.chunk_rows == index]
        frames = spans(zip(inside["video"], inside["frame"], strict=True), most=3)
        return StoreDamaged(self.path, chunk_file(self.path, self._arrays[name], index), why, frames=frames)

    def _array(self, name: str) -> zarr.Array:
        if name not in self._arrays:
            raise UserError(f"'{name}' is not in the store {self.path}, which has {list(self._arrays)}")
        return self._arrays[name]


class StoreWriter:
    """The one writer of a store: makes it where there is none, and adds chunks of rows.

    ``widths`` are the columns of each view, and of 'logits' where there are any. ``chunk_rows`` counts where the store
    is made; one that is there keeps its own. With ``map_shape`` (C, h, w) the views are maps of that shape. Raises
    ``StoreMismatch`` where the store was made by something else, and ``UserError`` where somebody else is writing to it
    or it cannot be written.
    """

    def __init__(
        self, path: Path, made_by: Mapping[str, Any], widths: Mapping[str, int], chunk_rows: int = CHUNK_ROWS,
        map_shape: tuple[int, ...] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.map_shape = resolved(path), map_shape
        self.made_by = json.loads(json.dumps(made_by))
        self.widths = dict(widths)
        self.new_chunk_rows = chunk_rows
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.enter_context(locked(self.path))
            with writing_store(self.path):
                self._attach()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._held, writing_store(self.path):
            if self._room > self._next:
                _cut(self.path, open_group(self.path, "r+"), self._next * self.chunk_rows)
            forget_consolidated(self.path)  # which somebody may have made meanwhile

    def write(self, keys: pd.DataFrame, features: Mapping[str, np.ndarray | Path]) -> None:
        """Adds a chunk: ``keys`` (n <= chunk_rows rows: video, frame, size) and the (n, width) rows of each array.

        Where ``takes_files``, a file may be given instead of rows that is the whole chunk, as ``raw_chunk`` makes it.
        It is linked or renamed to its place, so it has to lie on the store's disk.
        """
        if not 0 < len(keys) <= self.chunk_rows:
            raise ValueError(f"a chunk takes 1 to {self.chunk_rows} rows, not {len(keys)}")
        with writing_store(self.path):
            rows = {name: features[name] for name in self.widths}
            self._make_room()
            write_chunk(self.group, self._next, keys, rows, self._opened)
        self._next += 1

    def _make_room(self) -> None:
        """Makes the arrays long enough for the next chunk, and for more of a long store: each time takes milliseconds.

        What is too much is cut off at the end, or by the next writer.
        """
        if self._next < self._room:
            return
        self._room = self._next + 1 + min(self._next, _MOST_AHEAD)
        for array in row_arrays(self.path, self.group):  # 'frame' last: it never has more rows than others
            self._opened[array.path] = array.with_config(_WHOLE)
            self._opened[array.path].resize((self._room * self.chunk_rows, *array.shape[1:]))

    def _attach(self) -> None:
        if _filled(self.path):
            self.group = open_group(self.path, "r+")
            self._check_made_by()
            tidy(self.path, self.group)
        else:
            create(beside(self.path, "new"), self.made_by, self.widths, self.new_chunk_rows, self.map_shape)
            beside(self.path, "new").rename(self.path)
            self.group = open_group(self.path, "r+")
        self.chunk_rows = int(self.group["frame"].chunks[0])
        # Whether a chunk of each array is the raw rows and a checksum.
        self.takes_files = all(map(_is_raw, feature_arrays(self.path, self.group).values()))
        self._opened: dict[str, zarr.Array] = {}
        self._room = 0  # chunks that the arrays are long enough for
        committed = np.flatnonzero(_numbers(self.path, self.group["frame"]) >= 0)
        self._next = 0 if len(committed) == 0 else int(committed[-1]) // self.chunk_rows + 1
        _cut(self.path, self.group, self._next * self.chunk_rows)

    def _check_made_by(self) -> None:
        arrays = feature_arrays(self.path, self.group)
        widths = {name: math.prod(array.shape[1:]) for name, array in arrays.items()}
        other = differences(dict(self.group.attrs["made_by"]), self.made_by) or differences(widths, self.widths)
        if other:
            raise StoreMismatch(
                f"the store {self.path} was made by something else: {other}. "
                "Name another store (-s), or make this one again from nothing with --rebuild"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the store at ``path`` for its one writer, and clears or puts back what a killed one left beside it.

    Raises ``UserError`` at once where another process holds it. The lock of a dead process holds nobody up.
    """
    path = resolved(path)
    holder = path.with_name(path.name + ".writer")

    def is_held() -> str:
        return f"the store {path} is being written by {_lock_holder(holder)}; one writer at a time"

    with alone(path.with_name(path.name + ".lock"), is_held):
        try:
            with writing_store(path):
                holder.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
                _recover(path)
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)


@contextmanager
def writing_store(path: Path) -> Iterator[None]:
    """Turns a failure of the disk into a ``UserError`` that names the store."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"cannot write to the store {path}: {why}; all before is kept, run again to go on") from error


def beside(path: Path, what: Literal["new", "old", "removed", "replaced"]) -> Path:
    """A folder next to the store: it is being made, gives way to a compact one, is being deleted, or was set aside."""
    return path.with_name(f"{path.name}.replaced" if what == "replaced" else f".{path.name}.{what}")


def resolved(path: Path) -> Path:
    """Where ``path`` really lies: links are followed, so that a store has one name and one lock."""
    try:
        real = Path(path).resolve()
        in_circles = real.is_symlink()  # Python 3.13 says nothing and gives the link
    except (OSError, RuntimeError):
        in_circles = True
    if in_circles:
        raise UserError(f"{path} is a link that leads to itself")
    return Path(path) if real == Path(os.path.abspath(path)) else real


def create(
    path: Path, made_by: Mapping[str, Any], widths: Mapping[str, int], chunk_rows: int,
    map_shape: tuple[int, ...] | None = None,
) -> zarr.Group:  # fmt: skip
    """An empty store at ``path``, where nothing is; it counts once it is renamed to its place."""
    group = zarr.create_group(path)
    group.create_group("views")
    for name, width in widths.items():
        axis = "output" if name == "logits" else "feature" if width == widths["original"] else f"feature of {name}"
        row, axes = ((width,), [axis]) if map_shape is None else (map_shape, ["channel", "y", "x"])
        group.create_array(
            _where(name), shape=(0, *row), chunks=(chunk_rows, *row), dtype="float16", fill_value=0,
            serializer=_RAW[0], compressors=_RAW[1:], filters=None, dimension_names=["row", *axes],
        )  # fmt: skip
    for name, dtype, fill in (("video", str, ""), ("size", "int64", -1), ("frame", "int64", -1)):
        group.create_array(
            name, shape=(0,), chunks=(chunk_rows,), dtype=dtype, fill_value=fill, compressors=_KEY,
            dimension_names=["row"],
        )  # fmt: skip
    facts = {"made_by": dict(made_by), "arrays": list(widths)}
    group.attrs.update(facts | {"sha256": digest_of(facts)})
    return group


def raw_chunk(values: np.ndarray, rows: int) -> Iterator[bytes | memoryview]:
    """The pieces of the file of a feature chunk: ``values`` (n, width) as ``rows`` rows, then their checksum."""
    content = _padded(values, rows, np.dtype("<f2"), 0).reshape(-1).view(np.uint8)
    yield memoryview(content)
    yield google_crc32c.value(content).to_bytes(4, "little")


def write_chunk(
    group: zarr.Group,
    index: int,
    keys: pd.DataFrame,
    features: Mapping[str, np.ndarray | Path],
    opened: dict[str, zarr.Array] | None = None,
) -> None:
    """Writes chunk ``index`` whole, its commit mark last: ``keys`` (n rows) and the (n, width) rows of each array.

    A file in the place of rows is the chunk itself, and is linked or renamed to where it belongs. ``opened`` keeps the
    arrays between two calls: to open one takes as long as to write its keys.
    """
    opened = {} if opened is None else opened
    frame = group["frame"]
    rows = int(frame.chunks[0])
    content: dict[str, np.ndarray | Path] = {
        _where(name): values if isinstance(values, Path) else _padded(values, rows, np.float16, 0)
        for name, values in features.items()
    }
    content["video"] = _padded(keys["video"].to_numpy(), rows, np.dtypes.StringDType(), "")
    content["size"] = _padded(keys["size"].to_numpy(), rows, np.int64, -1)
    content["frame"] = _padded(keys["frame"].to_numpy(), rows, np.int64, -1)
    for where, values in content.items():
        if where not in opened:
            opened[where] = group[where].with_config(_WHOLE)
        array = opened[where]
        if array.shape[0] < (index + 1) * rows:
            array.resize(((index + 1) * rows, *array.shape[1:]))
        if isinstance(values, Path):
            place = chunk_file(group.store.root, array, index)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            try:
                os.link(values, place)  # so that killed here, the file is still where it was
            except OSError:  # a disk without links
                values.replace(place)
        else:
            array[index * rows : (index + 1) * rows] = values.reshape(rows, *array.shape[1:])


def read_chunk(path: Path, array: zarr.Array, index: int) -> np.ndarray:
    """Chunk ``index`` of an array of the store at ``path``, its checksum checked.

    Raises ``StoreDamaged`` where the file is missing, or is not what was written.
    """
    file = chunk_file(path, array, index)
    if not file.is_file():
        raise StoreDamaged(path, file, _MISSING)
    rows = array.chunks[0]
    try:
        return np.asarray(array[index * rows : (index + 1) * rows])
    except Exception as error:  # of whichever codec stumbles first
        raise StoreDamaged(path, file, _damage(error)) from None


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; of float16 by its bits, which takes a fortieth of the time."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # The five bits of the exponent are all set: 0x7C00 to 0x7FFF, and with the sign 0xFC00 to 0xFFFF.
    return values.size == 0 or bool(values.view(np.int16).max() < 0x7C00 and values.view(np.uint16).max() < 0xFC00)


def chunk_file(path: Path, array: zarr.Array, index: int) -> Path:
    """Where chunk ``index`` of an array of the store at ``path`` lies."""
    return path / array.path / "c" / "/".join([str(index), *["0"] * (array.ndim - 1)])


def feature_arrays(path: Path, group: zarr.Group) -> dict[str, zarr.Array]:
    """Every view, sorted by name, and the logits where there are any."""
    return {name: group[_where(name)] for name in feature_names(path, group)}


def row_arrays(path: Path, group: zarr.Group) -> list[zarr.Array]:
    """Every array with one row a frame, ``frame`` last."""
    return [*feature_arrays(path, group).values(), group["video"], group["size"], group["frame"]]


def spans(frames: Iterable[tuple[str, int]], most: int = sys.maxsize) -> str:
    """'a 1-5, b 7' for sorted (video, frame): neighbours together; of more than ``most`` such, how many more."""
    found: list[tuple[str, int, int]] = []
    for video, frame in frames:
        if found and found[-1][0] == video and found[-1][2] == frame - 1:
            found[-1] = (video, found[-1][1], frame)
        else:
            found.append((video, frame, frame))
    words = [f"{video} {first}" + (f"-{last}" if last > first else "") for video, first, last in found[:most]]
    return ", ".join(words + ([f"and {len(found) - most:,} more"] if len(found) > most else []))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What two ``made_by`` disagree about, both sides named; empty where they agree.

    'provenance' (files and their digests, of features that say what made them) is kept, and not compared.
    """
    keys = [k for k in sorted({*there, *here} - {"provenance"}) if there.get(k) != here.get(k)]
    return "; ".join(_sides(k, there, here) for k in keys)


def _sides(key: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return f"{key} {there.get(key)!r} there, {here.get(key)!r} here"


def vouched_for(refusal: str, there: Mapping[str, Any], here: Mapping[str, Any], alike: Collection[str]) -> str:
    """Both sides of those entries of two ``made_by`` that differ and that the user calls ``alike``; '' where none does.

    Raises ``UserError``, which begins with ``refusal``, where they differ in anything else. It names the way out where
    that is the user's word.
    """
    alike_values = {k: there.get(k) for k in alike if there.get(k) != here.get(k)}
    if other := differences(there, {**here, **alike_values}):
        asked = [k for k in ALIKE if there.get(k) != here.get(k)]
        by_word = not differences(there, {**here, **{k: there.get(k) for k in asked}})
        way_out = f". If these are alike all the same, say so with --alike {' '.join(asked)}" if by_word else ""
        raise UserError(f"{refusal}: {other}{way_out}")
    return "; ".join(_sides(k, there, here) for k in alike_values)


def open_group(path: Path, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """The Zarr group of the store at ``path``, whose consolidated metadata is never read.

    Raises ``UserError`` where there is none or it is of another kind, and ``StoreDamaged`` where one of its zarr.json
    cannot be understood.
    """
    if not (path / "zarr.json").is_file():
        raise UserError(f"no feature store at {path}: {_way_to_one(path)}")
    for file in metadata_files(path):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            raise StoreDamaged(path, file, f"not JSON: {_line(error)}", _REPLACE) from None
    committed = max(chunk_numbers(path / "frame"), default=-1) + 1  # before the length is read: a writer may go on
    try:
        group = zarr.open_group(path, mode=mode, zarr_format=3, use_consolidated=False)
    except Exception as error:
        raise StoreDamaged(path, path / "zarr.json", _line(error), _REPLACE) from None
    if not isinstance(group.attrs.get("made_by"), dict) or not (path / "frame").is_dir():
        raise UserError(f"{path} is a Zarr group, but not a feature store: it has no 'made_by' or no 'frame'")
    facts = {name: group.attrs.get(name) for name in ("made_by", "arrays")}
    if group.attrs.get("sha256", digest_of(facts)) != digest_of(facts):  # a store of an earlier version has none
        why = "what it says of how the features were made is not what was written"
        raise StoreDamaged(path, path / "zarr.json", why, _REPLACE)
    _check_arrays(path, group, committed)
    return group


def metadata_files(path: Path) -> list[Path]:
    """Every zarr.json of the store at ``path``, that of the group first."""
    return [path / "zarr.json", *sorted(path.glob("*/zarr.json")), *sorted(path.glob("views/*/zarr.json"))]


def chunk_numbers(array: Path) -> Iterator[int]:
    """The chunks of the array in a folder that have a file; deleting one may leave its folder behind."""
    for entry in (array / "c").glob("*"):
        if entry.name.isdecimal() and (entry.is_file() or (entry / "0").is_file()):
            yield int(entry.name)


def consolidated(path: Path) -> list[Path]:
    """The groups of the store at ``path`` with consolidated metadata, which does not grow with the store."""
    files = [path / "zarr.json", path / "views" / "zarr.json"]
    return [file.parent for file in files if json.loads(file.read_bytes()).get("consolidated_metadata")]


def tidy(path: Path, group: zarr.Group) -> None:
    """Deletes what a killed writer left in the store, and consolidated metadata; for the holder of the lock only."""
    for folder in (path, path / "views"):
        for leftover in folder.glob("*.partial"):
            leftover.unlink()
    for array in row_arrays(path, group):
        for leftover in (path / array.path).rglob("*.partial"):
            leftover.unlink()
        for folder in (path / array.path / "c").glob("*"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    forget_consolidated(path)


def forget_consolidated(path: Path) -> None:
    """Takes consolidated metadata out of the store at ``path``; for the holder of the lock only."""
    for folder in consolidated(path):
        zarr.open_group(folder, mode="r+", zarr_format=3, use_consolidated=False).update_attributes({})


@contextmanager
def unchanged(path: Path) -> Iterator[int | None]:
    """Holds the folder at ``path`` open, and gives its descriptor; None where there is no folder.

    Raises ``StoreReplaced`` at the end, whatever else went wrong, where it is then no longer the folder at ``path``.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        stands = _stands(folder, path)
        os.close(folder)
        if not stands:
            raise StoreReplaced(f"the store {path} was replaced (--compact, --rebuild) while it was read: run again")


def _opened(path: Path) -> tuple[int, zarr.Group, dict[str, zarr.Array], pd.DataFrame]:
    """The store at ``path`` for a reader: a descriptor of its folder, the group, its feature arrays and its keys.

    All four are of one store. While another one is put in its place, there is none for a moment: it is waited for.
    """
    until = time.monotonic() + _REPLACING_SEC
    while True:
        folder = held = None
        try:
            with unchanged(path) as folder:
                group = open_group(path)
                found = group, feature_arrays(path, group), _keys(path, group)
                held = os.dup(folder) if folder is not None else None
            if held is not None:
                return held, *found
        except UserError as error:
            if held is not None:
                os.close(held)
            coming = folder is None and (path.is_dir() or _replacing(path))
            if not (coming or isinstance(error, StoreReplaced)) or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _stands(folder: int, path: Path) -> bool:
    """Whether an open folder is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(folder), os.stat(path))
    except OSError:
        return False


def _replacing(path: Path) -> bool:
    return beside(path, "old").is_dir() or beside(path, "replaced").is_dir()


def _check_arrays(path: Path, group: zarr.Group, committed: int) -> None:
    """Raises ``StoreDamaged`` where the arrays do not fit each other, or ``committed`` chunks are more than is said."""
    rows = None
    for where in ["frame", "video", "size", *map(_where, {*feature_names(path, group), "original"})]:
        file, why = path / where / "zarr.json", ""
        try:
            array = group[where]
            rows = rows or int(array.chunks[0])
            if array.chunks[0] != rows or array.shape[0] % rows or array.chunks[1:] != array.shape[1:]:
                why = f"its shape {array.shape} and chunks {array.chunks} do not fit chunks of {rows} whole rows"
            elif where == "frame" and array.shape[0] < committed * rows:
                why = f"it says {array.shape[0]} rows, and there are more"
        except Exception as error:
            why = _line(error) if file.is_file() else _MISSING
        if why:
            raise StoreDamaged(path, file, why, _REPLACE)


def feature_names(path: Path, group: zarr.Group) -> list[str]:
    """The views, sorted, and 'logits' where there are any: those that the store was made with, and no others.

    A store of an earlier version does not say them: then they are what lies there.
    """
    there = [p.name for p in (path / "views").glob("*") if p.is_dir()]
    names = group.attrs.get("arrays", there + (["logits"] if (path / "logits").is_dir() else []))
    return sorted(names, key=lambda name: (name == "logits", name))


def _way_to_one(path: Path) -> str:
    if path.suffix.lower() in {".npy", ".npz", ".h5", ".hdf5"}:
        store = path.with_suffix(".zarr")
        return f"import features made elsewhere first: python extract.py --import {path} -s {store}"
    if _replacing(path):
        return "a --compact or --rebuild was cut off in between; the next 'python extract.py' puts it back"
    return "make one with 'python extract.py'"


def _recover(path: Path) -> None:
    """What a killed writer left beside the store: a store half replaced is put back, the rest is deleted."""
    for what in ("old", "replaced"):
        if beside(path, what).is_dir() and not _filled(path):
            beside(path, what).rename(path)
    for what in ("new", "old", "removed"):
        if beside(path, what).is_dir():
            shutil.rmtree(beside(path, what))


def _lock_holder(holder: Path) -> str:
    """Who holds the lock, as far as the file that the writer leaves beside it can be believed."""
    try:
        process, host = holder.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "another process"
    if host != socket.gethostname():
        lock = holder.with_suffix(".lock")
        return f"process {process} on {host}, another machine (if it has died and its lock stays, delete {lock})"
    return f"process {process} on {host}" if _alive(int(process)) else "another process"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _filled(path: Path) -> bool:
    return path.exists() and any(path.iterdir())


def _where(name: str) -> str:
    return "logits" if name == "logits" else f"views/{name}"


def _padded(values: np.ndarray, rows: int, dtype: Any, fill: Any) -> np.ndarray:
    whole = np.full((rows, *values.shape[1:]), fill, dtype=dtype)
    whole[: len(values)] = values
    return whole


def _cut(path: Path, group: zarr.Group, rows: int) -> None:
    """Takes away what stands behind row ``rows``: chunks that a killed run began."""
    for array in reversed(row_arrays(path, group)):  # never fewer rows than 'frame' has
        if array.shape[0] != rows:
            array.resize((rows, *array.shape[1:]))


def _map_shape(array: zarr.Array) -> tuple[int, ...] | None:
    return tuple(array.shape[1:]) if array.ndim > 2 else None


def _is_raw(array: zarr.Array) -> bool:
    return tuple(array.metadata.codecs) == _RAW


def _damage(error: Exception) -> str:
    return "it does not match its checksum" if "checksum" in str(error) else _line(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _numbers(path: Path, array: zarr.Array) -> np.ndarray:
    """All of a key array of numbers (N,); the fill value where a chunk has no file.

    Raises ``StoreDamaged`` where a chunk is not what was written.
    """
    out = np.full(array.shape, array.fill_value, dtype=array.dtype)
    plain = tuple(array.metadata.codecs) == (BytesCodec(endian="little"), *_KEY) and array.dtype.isnative
    for index in range(array.shape[0] // array.chunks[0]):
        part = out[index * array.chunks[0] : (index + 1) * array.chunks[0]]
        content = _decoded(path, array, index) if plain else None
        if content is not None and len(content) == part.nbytes:
            part[:] = np.frombuffer(content, dtype=array.dtype)
        elif chunk_file(path, array, index).is_file():
            part[:] = read_chunk(path, array, index)
    return out


def _texts(path: Path, array: zarr.Array, index: int) -> tuple[np.ndarray, Sequence[str]]:
    """Codes (rows,) of a chunk of texts, and the texts that they stand for.

    Raises ``StoreDamaged`` where the chunk is missing, or is not what was written.
    """
    plain = tuple(array.metadata.codecs) == (VLenUTF8Codec(), *_KEY)
    content = _decoded(path, array, index) if plain else None
    found = _runs(content) if content is not None else None
    if found is not None and sum(found[1]) == array.chunks[0]:
        return np.repeat(np.arange(len(found[0])), found[1]), found[0]
    return pd.factorize(read_chunk(path, array, index).astype(object))


def _decoded(path: Path, array: zarr.Array, index: int) -> bytes | None:
    """The bytes that a key chunk held before ``_KEY``; None where its file is missing, or not what was written.

    Zarr takes a millisecond a chunk for the same, most of it for handing work to another thread: 3 M rows have 2,200.
    """
    try:
        content = chunk_file(path, array, index).read_bytes()
        if google_crc32c.value(content[:-4]).to_bytes(4, "little") != content[-4:]:
            return None
        return zstd.decompress(content[:-4])
    except (OSError, RuntimeError, ValueError):  # zarr, which is asked next, says what is wrong
        return None


def _runs(content: bytes) -> tuple[list[str], list[int]] | None:
    """The texts of a decoded chunk, equal neighbours once, and how many of each there are; None where it has too many.

    A chunk is the number of its texts, then each text's length in bytes (four bytes each, little-endian) and its UTF-8.
    The names of most chunks are a few videos' own, each thousands of times: a repeated text is found as a stretch that
    equals itself one text later, which no text has to be made for.
    """
    data, at, texts, counts = np.frombuffer(content, np.uint8), 4, [], []
    while at < len(data):
        if len(texts) == _MOST_RUNS:
            return None
        length = 4 + int.from_bytes(content[at : at + 4], "little")
        alike, most, ahead = 0, len(data) - at - length, 64 * length
        while alike < most:
            ahead = min(4 * ahead, most - alike)
            other = data[at + alike : at + alike + ahead] != data[at + alike + length :][:ahead]
            first = int(other.argmax())
            if other[first]:
                alike += first
                break
            alike += ahead
        try:
            texts.append(content[at + 4 : at + length].decode())
        except UnicodeDecodeError:  # zarr, which is asked next, says what is wrong
            return None
        counts.append(1 + alike // length)
        at += counts[-1] * length
    return texts, counts


def _keys(path: Path, group: zarr.Group) -> pd.DataFrame:
    chunk = int(group["frame"].chunks[0])
    frame = _numbers(path, group["frame"])
    size, video = _numbers(path, group["size"]), group["video"]
    rows = np.flatnonzero(frame >= 0)
    place: dict[str, int] = {}
    codes = np.empty(len(rows), dtype=np.int64)
    bounds = np.searchsorted(rows, np.arange(0, len(frame) + chunk, chunk))
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):
        if start == end:
            continue
        if (size[rows[start:end]] < 0).any():
            read_chunk(path, group["size"], index)
        local, names = _texts(path, video, index)
        local = local[rows[start:end] - index * chunk]
        known = np.full(len(names), -1)
        for code in np.flatnonzero(np.bincount(local)):  # not the text of rows that are not there
            known[code] = place.setdefault(names[code], len(place))
        codes[start:end] = known[local]
    names = sorted(place)
    rank = np.empty(len(names), dtype=np.int64)
    rank[[place[name] for name in names]] = np.arange(len(names))
    codes, frame, size = rank[codes], frame[rows], size[rows]
    order = np.lexsort((frame, codes))
    codes, frame = codes[order], frame[order]
    last = np.append((np.diff(codes) != 0) | (np.diff(frame) != 0), True)[: len(order)]  # of a key, the latest row
    order, codes = order[last], codes[last]
    categories = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype="str"), ordered=True)
    return pd.DataFrame({"video": categories, "frame": frame[last], "size": size[order], "row": rows[order]})
