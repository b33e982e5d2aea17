"""Door 2: the feature store, the only thing that extraction and training both know.

One Zarr v3 group. All arrays share their first axis, N rows, and are chunked together, ``chunk_rows`` rows a chunk:

    views/<name>   (N, D) float16   one row a frame: 'original', and 'flipped' where it was asked for
    logits         (N, C) float16   only where the backbone has a classifier; ``made_by['outputs']`` names the columns
    video          (N,)   string    the key of the row ...
    frame          (N,)   int64     ... and the commit mark: -1 where there is no row
    size           (N,)   int64     bytes of the image file that the row was made from
    attrs          made_by: what made the features; nothing else may be added to them

A chunk is the unit of work. Its features are written first, its ``frame`` numbers last, each by a temporary file and a
rename; so a run killed anywhere leaves whole chunks, and the next run redoes only the one in flight. A later run starts
a new chunk and never touches an old one. Where a key stands in two rows, the later row is the valid one.

Every chunk file ends in a crc32c of what is before it. Feature chunks are not compressed, so that a chunk file is the
raw array followed by those four bytes, and is read through a memory map; the checksum is looked at by ``--verify``, and
that of the keys whenever a store is opened. ``pipeline/extraction/upkeep.py`` finds and drops what is damaged.

Beside the store lie ``<name>.lock``, held by the writer, ``<name>.writer``, which names it, and only while they are
being made or taken away the folders ``.<name>.new``, ``.<name>.old`` and ``.<name>.removed``.
"""

import itertools
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import filelock
import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from pipeline.params import UserError

CHUNK_ROWS = 4096
_RAW = (BytesCodec(endian="little"), Crc32cCodec())
_KEY = (ZstdCodec(level=3), Crc32cCodec())
_MOST_MAPS = 4096  # open memory maps a store; Linux allows a process 65,530
_STREAM_BYTES = 1 << 18  # a run of rows this long is read faster through read() than through page faults
_REPAIR = "'python extract.py --verify' names all that is damaged, and --repair extracts it again"
_REPLACE = (
    "Put back a copy of that file ('dvc checkout' has one of DVC's store), or delete the folder and extract again"
)


class StoreMismatch(UserError):
    """The store was made by something else than what is to be added to it."""


class StoreDamaged(UserError):
    """``file`` of the store is missing, or is not what was written; ``why`` says which."""

    def __init__(self, store: Path, file: Path, why: str, way_out: str = _REPAIR) -> None:
        super().__init__(f"the store {store} is damaged: {file}: {why}. {way_out}")
        self.file, self.why = file, why


class FeatureStore:
    """A finished or growing store, for reading.

    Raises ``UserError`` where ``path`` is not a store, and ``StoreDamaged`` where its keys cannot be read. ``keys`` has
    one row a valid frame, sorted by (video, frame), with the columns video, frame, size and row, the place in the
    arrays. What a writer adds later is not seen.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.group = open_group(self.path)
        self.made_by: dict[str, Any] = dict(self.group.attrs["made_by"])
        self.views = sorted(self.group["views"].array_keys())
        self._arrays = {name: self.group[where] for name, where in _feature_arrays(self.group).items()}
        self._raw = {name: _is_raw(array) for name, array in self._arrays.items()}
        self._maps: dict[tuple[str, int], np.memmap] = {}
        self.widths = {name: int(array.shape[1]) for name, array in self._arrays.items()}
        self.num_features = self.widths["original"]
        self.chunk_rows = int(self.group["frame"].chunks[0])
        self.keys = _keys(self.path, self.group)

    def read(self, rows: np.ndarray, name: str = "original") -> np.ndarray:
        """Rows (n,) of a view, or of ``logits``, as an (n, D) float16 array, in the order asked for."""
        array = self._array(name)
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), array.shape[1]), dtype=array.dtype)
        if len(rows) == 0:
            return out
        chunk_of = rows // self.chunk_rows
        bounds = [0, *(np.flatnonzero(chunk_of[1:] != chunk_of[:-1]) + 1), len(rows)]
        for start, end in itertools.pairwise(bounds):
            index = int(chunk_of[start])
            self._read_inside(name, index, rows[start:end] - index * self.chunk_rows, out[start:end])
        return out

    def chunk(self, index: int, name: str = "original") -> np.ndarray:
        """Chunk ``index`` of a view or of ``logits``, (chunk_rows, D): a memory map where the codec allows it."""
        if (name, index) in self._maps:
            return self._maps[name, index]
        array = self._array(name)
        if not self._raw[name]:
            return read_chunk(self.path, array, index)
        file = chunk_file(self.path, array, index)
        try:
            mapped = np.memmap(file, dtype=array.dtype, mode="r", shape=(self.chunk_rows, array.shape[1]))
        except FileNotFoundError:
            raise StoreDamaged(self.path, file, "the file is missing") from None
        except ValueError:
            raise StoreDamaged(self.path, file, "the file is too short") from None
        if len(self._maps) >= _MOST_MAPS:
            self._maps.pop(next(iter(self._maps)))
        self._maps[name, index] = mapped
        return mapped

    def _read_inside(self, name: str, index: int, inside: np.ndarray, out: np.ndarray) -> None:
        """Rows ``inside`` (n,) of one chunk into ``out`` (n, D)."""
        first, last = int(inside[0]), int(inside[-1])
        if last - first != len(inside) - 1 or (inside[1:] <= inside[:-1]).any():
            np.take(self.chunk(index, name), inside, axis=0, out=out, mode="clip")
        elif out.nbytes >= _STREAM_BYTES and self._raw[name]:
            self._stream(name, index, first, out)
        else:
            out[:] = self.chunk(index, name)[first : last + 1]

    def _stream(self, name: str, index: int, first: int, out: np.ndarray) -> None:
        """The rows of one chunk from ``first`` on, as many as ``out`` has."""
        file, buffer = chunk_file(self.path, self._arrays[name], index), memoryview(out.reshape(-1).view(np.uint8))
        try:
            with file.open("rb", buffering=0) as handle:
                handle.seek(first * out.strides[0])
                while buffer and (got := handle.readinto(buffer)):
                    buffer = buffer[got:]
        except FileNotFoundError:
            raise StoreDamaged(self.path, file, "the file is missing") from None
        if buffer:
            raise StoreDamaged(self.path, file, "the file is too short")

    def _array(self, name: str) -> zarr.Array:
        if name not in self._arrays:
            raise UserError(f"'{name}' is not in the store {self.path}, which has {list(self._arrays)}")
        return self._arrays[name]


class StoreWriter:
    """The one writer of a store: makes it where there is none, and adds chunks of rows.

    ``widths`` are the columns of each view, and of 'logits' where there are any. ``chunk_rows`` counts where the store
    is made; one that is there keeps its own. Raises ``StoreMismatch`` where the store was made by something else, and
    ``UserError`` where somebody else is writing to it or it cannot be written.
    """

    def __init__(
        self, path: Path, made_by: Mapping[str, Any], widths: Mapping[str, int], chunk_rows: int = CHUNK_ROWS
    ) -> None:
        self.path = Path(path)
        self.made_by = json.loads(json.dumps(made_by))
        self.widths = dict(widths)
        self._chunk_rows = chunk_rows
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.enter_context(locked(self.path))
            with writing(self.path):
                self._attach()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def write(self, keys: pd.DataFrame, features: Mapping[str, np.ndarray]) -> None:
        """Adds a chunk: ``keys`` (n <= chunk_rows rows: video, frame, size) and the (n, width) rows of each array."""
        if not 0 < len(keys) <= self.chunk_rows:
            raise ValueError(f"a chunk takes 1 to {self.chunk_rows} rows, not {len(keys)}")
        with writing(self.path):
            write_chunk(self.group, self._next, keys, {name: features[name] for name in self.widths})
        self._next += 1

    def _attach(self) -> None:
        if _filled(self.path):
            self.group = open_group(self.path, "r+")
            self._check()
            clear_partial(self.path)
        else:
            create(beside(self.path, "new"), self.made_by, self.widths, self._chunk_rows)
            beside(self.path, "new").rename(self.path)
            self.group = open_group(self.path, "r+")
        self.chunk_rows = int(self.group["frame"].chunks[0])
        committed = np.flatnonzero(_column(self.path, self.group["frame"]) >= 0)
        self._next = 0 if len(committed) == 0 else int(committed[-1]) // self.chunk_rows + 1
        _cut(self.group, self._next * self.chunk_rows)

    def _check(self) -> None:
        other = differences(dict(self.group.attrs["made_by"]), self.made_by)
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
    lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=0)
    holder = path.with_name(path.name + ".writer")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"the store {path} is being written by {_named(holder)}; one writer at a time") from None
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from None
    try:
        with writing(path):
            holder.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
            _recover(path)
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A failure of the disk as a ``UserError``."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"cannot write to the store {path}: {why}; all before is kept, run again to go on") from error


def beside(path: Path, what: Literal["new", "old", "removed"]) -> Path:
    """A folder next to the store: it is being made, was replaced by one just made, or is being deleted."""
    return path.with_name(f".{path.name}.{what}")


def create(path: Path, made_by: Mapping[str, Any], widths: Mapping[str, int], chunk_rows: int) -> zarr.Group:
    """An empty store at ``path``, where nothing is; it counts once it is renamed to its place."""
    group = zarr.create_group(path)
    group.create_group("views")
    for name, width in widths.items():
        group.create_array(
            _where(name), shape=(0, width), chunks=(chunk_rows, width), dtype="float16", fill_value=0,
            serializer=_RAW[0], compressors=_RAW[1:], filters=None,
        )  # fmt: skip
    group.create_array("video", shape=(0,), chunks=(chunk_rows,), dtype=str, compressors=_KEY)
    for name in ("size", "frame"):
        group.create_array(name, shape=(0,), chunks=(chunk_rows,), dtype="int64", fill_value=-1, compressors=_KEY)
    group.attrs["made_by"] = dict(made_by)
    return group


def write_chunk(group: zarr.Group, index: int, keys: pd.DataFrame, features: Mapping[str, np.ndarray]) -> None:
    """Writes chunk ``index`` whole, its commit mark last: ``keys`` (n rows) and the (n, width) rows of each array."""
    frame = group["frame"]
    rows = int(frame.chunks[0])
    content = {_where(name): _padded(values, rows, np.float16, 0) for name, values in features.items()}
    content["video"] = _padded(keys["video"].to_numpy(), rows, np.dtypes.StringDType(), "")
    content["size"] = _padded(keys["size"].to_numpy(), rows, np.int64, -1)
    content["frame"] = _padded(keys["frame"].to_numpy(), rows, np.int64, -1)
    for where, values in content.items():
        array = group[where].with_config({"write_empty_chunks": True})  # a missing chunk file is always damage
        if array.shape[0] < (index + 1) * rows:
            array.resize(((index + 1) * rows, *array.shape[1:]))
        array[index * rows : (index + 1) * rows] = values


def read_chunk(path: Path, array: zarr.Array, index: int) -> np.ndarray:
    """Chunk ``index`` of an array of the store at ``path``, its checksum checked.

    Raises ``StoreDamaged`` where the file is missing, or is not what was written.
    """
    file = chunk_file(path, array, index)
    if not file.is_file():
        raise StoreDamaged(path, file, "the file is missing")
    rows = array.chunks[0]
    try:
        return np.asarray(array[index * rows : (index + 1) * rows])
    except Exception as error:  # of whichever codec stumbles first
        raise StoreDamaged(path, file, _damage(error)) from None


def chunk_file(path: Path, array: zarr.Array, index: int) -> Path:
    """Where chunk ``index`` of an array of the store at ``path`` lies."""
    return path / array.path / "c" / "/".join([str(index), *["0"] * (array.ndim - 1)])


def row_arrays(group: zarr.Group) -> list[zarr.Array]:
    """Every array with one row a frame, ``frame`` last."""
    features = [group[where] for where in _feature_arrays(group).values()]
    return [*features, group["video"], group["size"], group["frame"]]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What two ``made_by`` disagree about, both sides named; empty where they agree.

    'provenance' (files and their digests, of features that say what made them) is kept, and not compared.
    """
    keys = [k for k in sorted({*there, *here} - {"provenance"}) if there.get(k) != here.get(k)]
    return "; ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} here" for k in keys)


def remove(path: Path) -> None:
    """Deletes the store at ``path`` if there is one; raises ``UserError`` for a folder that is not a store."""
    with locked(path):
        if not _filled(path):
            return
        open_group(path)
        with writing(path):
            path.rename(beside(path, "removed"))  # so that no half a store is ever at its place
            shutil.rmtree(beside(path, "removed"))


def open_group(path: Path, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """The Zarr group of the store at ``path``.

    Raises ``UserError`` where there is none or it is of another kind, and ``StoreDamaged`` where one of its zarr.json
    cannot be understood.
    """
    if not (path / "zarr.json").is_file():
        raise UserError(f"no feature store at {path}: {_way_to_one(path)}")
    for file in (path / "zarr.json", *path.glob("*/zarr.json"), *path.glob("views/*/zarr.json")):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            raise StoreDamaged(path, file, f"not JSON: {_line(error)}", _REPLACE) from None
    try:
        group = zarr.open_group(path, mode=mode)
    except Exception as error:
        raise StoreDamaged(path, path / "zarr.json", _line(error), _REPLACE) from None
    if "made_by" not in group.attrs or not (path / "frame").is_dir():
        raise UserError(f"{path} is a Zarr group, but not a feature store: it has no 'made_by' or no 'frame'")
    _check_arrays(path, group)
    return group


def clear_partial(path: Path) -> None:
    """Deletes the temporary files of a writer that was killed; for the holder of the lock only."""
    for leftover in path.rglob("*.partial"):
        leftover.unlink()


def _check_arrays(path: Path, group: zarr.Group) -> None:
    views = sorted(p.name for p in (path / "views").glob("*") if p.is_dir())
    logits = ["logits"] if (path / "logits").is_dir() else []
    rows = None
    for where in ["frame", "video", "size", *(f"views/{view}" for view in {*views, "original"}), *logits]:
        file, why = path / where / "zarr.json", ""
        try:
            array = group[where]
            rows = rows or int(array.chunks[0])
            if array.chunks[0] != rows or array.shape[0] % rows or array.chunks[1:] != array.shape[1:]:
                why = f"its shape {array.shape} and chunks {array.chunks} do not fit chunks of {rows} whole rows"
        except Exception as error:
            why = _line(error) if file.is_file() else "the file is missing"
        if why:
            raise StoreDamaged(path, file, why, _REPLACE)


def _way_to_one(path: Path) -> str:
    if path.suffix.lower() in {".npy", ".npz", ".h5", ".hdf5"}:
        store = path.with_suffix(".zarr")
        return f"import features made elsewhere first: python extract.py --import {path} -s {store}"
    if beside(path, "old").is_dir():
        return "a --compact was cut off in between; the next 'python extract.py' puts it back"
    return "make one with 'python extract.py'"


def _recover(path: Path) -> None:
    """What a killed writer left beside the store: a store half replaced is put back, the rest is deleted."""
    if beside(path, "old").is_dir() and not _filled(path):
        beside(path, "old").rename(path)
    for what in ("new", "old", "removed"):
        if beside(path, what).is_dir():
            shutil.rmtree(beside(path, what))


def _named(holder: Path) -> str:
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


def _feature_arrays(group: zarr.Group) -> dict[str, str]:
    """Name -> place in the group, of every view and of the logits."""
    names = sorted(group["views"].array_keys()) + (["logits"] if "logits" in group else [])
    return {name: _where(name) for name in names}


def _padded(values: np.ndarray, rows: int, dtype: Any, fill: Any) -> np.ndarray:
    whole = np.full((rows, *values.shape[1:]), fill, dtype=dtype)
    whole[: len(values)] = values
    return whole


def _cut(group: zarr.Group, rows: int) -> None:
    """Takes away what stands behind row ``rows``: chunks that a killed run began."""
    for array in reversed(row_arrays(group)):  # never fewer rows than 'frame' has
        if array.shape[0] != rows:
            array.resize((rows, *array.shape[1:]))


def _is_raw(array: zarr.Array) -> bool:
    return tuple(array.metadata.codecs) == _RAW


def _damage(error: Exception) -> str:
    return "it does not match its checksum" if "checksum" in str(error) else _line(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _column(path: Path, array: zarr.Array) -> np.ndarray:
    """All of a key array; where that fails, the error names the chunk."""
    try:
        return np.asarray(array[:])
    except Exception:
        for index in range(array.shape[0] // array.chunks[0]):
            if chunk_file(path, array, index).is_file():
                read_chunk(path, array, index)
        raise


def _keys(path: Path, group: zarr.Group) -> pd.DataFrame:
    chunk = int(group["frame"].chunks[0])
    frame = _column(path, group["frame"])
    size, video = _column(path, group["size"]), group["video"]
    rows = np.flatnonzero(frame >= 0)
    names, codes = [], np.empty(len(rows), dtype=np.int64)
    place: dict[str, int] = {}
    bounds = np.searchsorted(rows, np.arange(0, len(frame) + chunk, chunk))
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):  # strings a chunk at a time
        if start == end:
            continue
        if (size[rows[start:end]] < 0).any():
            read_chunk(path, group["size"], index)
        text = read_chunk(path, video, index)
        local, unique = pd.factorize(text[rows[start:end] - index * chunk].astype(object))
        for name in unique:
            if name not in place:
                place[name] = len(names)
                names.append(name)
        codes[start:end] = np.array([place[name] for name in unique])[local]
    categories = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype="str"))
    categories = categories.reorder_categories(sorted(names), ordered=True)
    keys = pd.DataFrame({"video": categories, "frame": frame[rows], "size": size[rows], "row": rows})
    keys = keys.drop_duplicates(["video", "frame"], keep="last")
    return keys.sort_values(["video", "frame"], ignore_index=True)
