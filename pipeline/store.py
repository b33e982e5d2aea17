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

Feature chunks are not compressed and carry a crc32c, so that a chunk file is the raw array followed by four bytes, and
is read through a memory map.
"""

import itertools
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import filelock
import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from pipeline.params import UserError

CHUNK_ROWS = 4096
_CODECS = (BytesCodec(endian="little"), Crc32cCodec())


class StoreMismatch(UserError):
    """The store was made by something else than what is to be added to it."""


class FeatureStore:
    """A finished or growing store, for reading.

    Raises ``UserError`` where ``path`` is not a store. ``keys`` has one row a valid frame, sorted by (video, frame),
    with the columns video, frame, size and row, the place in the arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.group = _open(self.path)
        self.made_by: dict[str, Any] = dict(self.group.attrs["made_by"])
        self.views = sorted(self.group["views"].array_keys())
        self.num_features = int(self.group["views/original"].shape[1])
        self.chunk_rows = int(self.group["frame"].chunks[0])
        self.keys = _keys(self.group)

    def read(self, rows: np.ndarray, name: str = "original") -> np.ndarray:
        """Rows (n,) of a view, or of ``logits``, as an (n, D) float16 array, in the order asked for."""
        array = self._array(name)
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), array.shape[1]), dtype=array.dtype)
        if len(rows) == 0:
            return out
        chunk_of = rows // self.chunk_rows
        starts = np.flatnonzero(np.diff(chunk_of, prepend=-1))
        for start, end in zip(starts, np.append(starts[1:], len(rows)), strict=True):
            inside = rows[start:end] - chunk_of[start] * self.chunk_rows
            chunk = self.chunk(int(chunk_of[start]), name)
            first, last = inside[0], inside[-1]
            whole = last - first == len(inside) - 1 and bool((np.diff(inside) == 1).all())
            out[start:end] = chunk[first : last + 1] if whole else chunk[inside]
        return out

    def chunk(self, index: int, name: str = "original") -> np.ndarray:
        """Chunk ``index`` of a view or of ``logits``, (chunk_rows, D): a memory map where the codec allows it."""
        array = self._array(name)
        start = index * self.chunk_rows
        if _codecs(array) != _CODECS:
            return np.asarray(array[start : start + self.chunk_rows])
        file = self.path / array.path / "c" / str(index) / "0"
        try:
            return np.memmap(file, dtype=array.dtype, mode="r", shape=(self.chunk_rows, array.shape[1]))
        except (FileNotFoundError, ValueError) as error:
            raise UserError(f"the store {self.path} is damaged: chunk file {file}: {error}") from None

    def _array(self, name: str) -> zarr.Array:
        where = "logits" if name == "logits" else f"views/{name}"
        if where not in self.group:
            have = self.views + (["logits"] if "logits" in self.group else [])
            raise UserError(f"'{name}' is not in the store {self.path}, which has {have}")
        return self.group[where]


class StoreWriter:
    """The one writer of a store: makes it where there is none, and adds chunks of rows.

    ``widths`` are the columns of each view, and of 'logits' where there are any. Raises ``StoreMismatch`` where the
    store was made by something else, and ``UserError`` where somebody else is writing to it or it cannot be written.
    """

    def __init__(
        self, path: Path, made_by: Mapping[str, Any], widths: Mapping[str, int], chunk_rows: int = CHUNK_ROWS
    ) -> None:
        self.path = Path(path)
        self.made_by = json.loads(json.dumps(made_by))
        self.widths = dict(widths)
        self._chunk_rows = chunk_rows
        self._holder = self.path.with_name(self.path.name + ".writer")
        self._lock = filelock.FileLock(self.path.with_name(self.path.name + ".lock"), timeout=0)

    def __enter__(self) -> Self:
        self._acquire()
        try:
            self._attach()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def write(self, keys: pd.DataFrame, features: Mapping[str, np.ndarray]) -> None:
        """Adds a chunk: ``keys`` (n <= chunk_rows rows: video, frame, size) and the (n, width) rows of each array."""
        n = len(keys)
        if not 0 < n <= self.chunk_rows:
            raise ValueError(f"a chunk takes 1 to {self.chunk_rows} rows, not {n}")
        start = self._next * self.chunk_rows
        try:
            for array in _rows(self.group):
                array.resize((start + self.chunk_rows, *array.shape[1:]))
            for name in self.widths:
                array = self.group["logits" if name == "logits" else f"views/{name}"]
                array = array.with_config({"write_empty_chunks": True})  # a missing chunk file is always damage
                whole = np.zeros((self.chunk_rows, self.widths[name]), dtype=np.float16)
                whole[:n] = features[name]
                array[start : start + self.chunk_rows] = whole
            self.group["video"][start : start + n] = keys["video"].to_numpy(dtype=np.dtypes.StringDType())
            self.group["size"][start : start + n] = keys["size"].to_numpy()
            self.group["frame"][start : start + n] = keys["frame"].to_numpy()
        except OSError as error:
            raise UserError(f"cannot write to the store {self.path}: {error.strerror}; all before is kept") from error
        self._next += 1

    def _acquire(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        except filelock.Timeout:
            holder = self._holder.read_text(encoding="utf-8").strip() if self._holder.exists() else "another process"
            raise UserError(f"the store {self.path} is being written by {holder}; one writer at a time") from None
        except OSError as error:
            raise UserError(f"cannot write to {self.path.parent}: {error.strerror}") from None

    def _release(self) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _attach(self) -> None:
        if self.path.exists() and any(self.path.iterdir()):
            self.group = _open(self.path, "r+")
            self._check()
            for leftover in self.path.rglob("*.partial"):
                leftover.unlink()
        else:
            self.group = self._create()
        self.chunk_rows = int(self.group["frame"].chunks[0])
        committed = np.flatnonzero(self.group["frame"][:] >= 0)
        self._next = 0 if len(committed) == 0 else int(committed[-1]) // self.chunk_rows + 1

    def _check(self) -> None:
        other = differences(dict(self.group.attrs["made_by"]), self.made_by)
        if other:
            raise StoreMismatch(
                f"the store {self.path} was made by something else: {other}. "
                "Name another store (-s), or make this one again from nothing with --rebuild"
            )

    def _create(self) -> zarr.Group:
        temporary = self.path.with_name(self.path.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        group = zarr.create_group(temporary)
        group.create_group("views")
        for name, width in self.widths.items():
            group.create_array(
                "logits" if name == "logits" else f"views/{name}",
                shape=(0, width), chunks=(self._chunk_rows, width), dtype="float16", fill_value=0,
                serializer=_CODECS[0], compressors=_CODECS[1:], filters=None,
            )  # fmt: skip
        group.create_array("video", shape=(0,), chunks=(self._chunk_rows,), dtype=str)
        for name in ("size", "frame"):
            group.create_array(name, shape=(0,), chunks=(self._chunk_rows,), dtype="int64", fill_value=-1)
        group.attrs["made_by"] = self.made_by
        if self.path.exists():
            self.path.rmdir()
        temporary.rename(self.path)
        return _open(self.path, "r+")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What two ``made_by`` disagree about, both sides named; empty where they agree."""
    keys = [k for k in sorted({*there, *here}) if there.get(k) != here.get(k)]
    return "; ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} here" for k in keys)


def remove(path: Path) -> None:
    """Deletes the store at ``path`` if there is one; raises ``UserError`` for a folder that is not a store."""
    if path.exists() and any(path.iterdir()):
        _open(path)
        shutil.rmtree(path)


def _open(path: Path, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    if not (path / "zarr.json").is_file():
        other = path.suffix.lower() in {".npy", ".npz", ".h5", ".hdf5"}
        way = "features made elsewhere are not read directly" if other else "make one with 'python extract.py'"
        raise UserError(f"no feature store at {path}: {way}")
    group = zarr.open_group(path, mode=mode)
    if "made_by" not in group.attrs or "frame" not in group:
        raise UserError(f"{path} is a Zarr group, but not a feature store: it has no 'made_by' or no 'frame'")
    return group


def _rows(group: zarr.Group) -> list[zarr.Array]:
    """Every array with one row a frame, ``frame`` last."""
    arrays = [a for _, a in group["views"].arrays()] + [a for n, a in sorted(group.arrays()) if n != "frame"]
    return [*arrays, group["frame"]]


def _codecs(array: zarr.Array) -> tuple:
    return tuple(array.metadata.codecs)


def _keys(group: zarr.Group) -> pd.DataFrame:
    frame = group["frame"][:]
    rows = np.flatnonzero(frame >= 0)
    names, codes = [], np.empty(len(rows), dtype=np.int64)
    place: dict[str, int] = {}
    chunk = int(group["frame"].chunks[0])
    bounds = np.searchsorted(rows, np.arange(0, len(frame) + chunk, chunk))
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):  # strings a chunk at a time
        if start == end:
            continue
        text = group["video"][index * chunk : (index + 1) * chunk]
        local, unique = pd.factorize(text[rows[start:end] - index * chunk].astype(object))
        for name in unique:
            if name not in place:
                place[name] = len(names)
                names.append(name)
        codes[start:end] = np.array([place[name] for name in unique])[local]
    video = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype="str"))
    video = video.reorder_categories(sorted(names), ordered=True)
    keys = pd.DataFrame({"video": video, "frame": frame[rows], "size": group["size"][:][rows], "row": rows})
    keys = keys.drop_duplicates(["video", "frame"], keep="last")
    return keys.sort_values(["video", "frame"], ignore_index=True)
