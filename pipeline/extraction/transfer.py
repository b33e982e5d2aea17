"""Features from elsewhere into a store of their own, and a store into a file that everything reads.

A file, .h5 (.hdf5) or .npz, holds by name:

    features           (N, D)   the view 'original'; any real numbers, stored as float16
    video              (N,)     text or whole numbers
    frame              (N,)     whole numbers, not negative
    views/<name>       (N, D')  further views, as many as there are; a dataset 'flipped' is the same as 'views/flipped'
    logits             (N, C)   if there are any
    size               (N,)     of the image files, if known
    made_by            where we wrote it: the store's made_by as JSON text (in HDF5 an attribute of the file)

A .npy holds nothing but features (N, D): row i is an image of its own, video ``f"{i:08d}"`` and frame 0.

Nothing is ever unpickled. Rows go through memory a chunk at a time.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pipeline.extraction.upkeep import refuse_damaged
from pipeline.files import writing
from pipeline.params import UserError
from pipeline.store import FeatureStore, StoreMismatch, StoreWriter, remove
from pipeline.tables import KEY

SUFFIXES = (".h5", ".hdf5", ".npz", ".npy")
_BLOCK_BYTES = 1 << 24


@dataclass
class Source:
    """An open file of features: ``arrays`` are (N, width), by the name of their view, or 'logits'; read on slicing.

    ``keys`` has video, frame, size; ``facts`` is what the file says of itself; ``left_out`` names what is not taken.
    """

    keys: pd.DataFrame
    arrays: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def import_features(file: Path, store: Path, chunk_rows: int, rebuild: bool) -> tuple[int, int, list[str]]:
    """Writes ``file`` into a store of its own: (rows written, rows that were there, names in the file left out).

    All is checked before anything is written. Cut off, the same call goes on. Raises ``UserError`` for a file that
    cannot be taken, and ``StoreMismatch`` where the store holds anything but this very file, unless ``rebuild``.
    """
    with _opened(file) as source:
        _check(file, source)
        widths = {name: int(array.shape[1]) for name, array in source.arrays.items()}
        writer = StoreWriter(store, _made_by(file, source), widths, chunk_rows)
        try:
            return *_fill(source, writer), source.left_out
        except StoreMismatch:
            if not rebuild:
                raise
            remove(store)
            return *_fill(source, writer), source.left_out


def export_features(store: FeatureStore, file: Path) -> int:
    """Writes the valid rows of a store, sorted by (video, frame), to a new .h5 or .npz; gives their number.

    Raises ``UserError`` where the file is there already, and ``StoreDamaged`` where a chunk of the store is damaged.
    """
    write = {".h5": _write_hdf5, ".hdf5": _write_hdf5, ".npz": _write_npz}.get(file.suffix.lower())
    if write is None:
        raise UserError(f"cannot export to {file}: the name must end in .h5, .hdf5 or .npz")
    if file.exists():
        raise UserError(f"cannot export to {file}: it is there already, and nothing is written over")
    refuse_damaged(store.path)
    partial = file.with_name(file.name + ".partial")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(store, partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return len(store.keys)


def _fill(source: Source, writer: StoreWriter) -> tuple[int, int]:
    with writer:
        there = FeatureStore(writer.path).keys.astype({"video": "str"})
        marked = source.keys.merge(there[KEY], on=KEY, how="left", indicator=True)
        todo = np.flatnonzero((marked["_merge"] == "left_only").to_numpy())
        for start in range(0, len(todo), writer.chunk_rows):
            rows = todo[start : start + writer.chunk_rows]
            runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
            content = {
                name: np.concatenate([_half(array[int(run[0]) : int(run[-1]) + 1]) for run in runs])
                for name, array in source.arrays.items()
            }
            writer.write(source.keys.iloc[rows], content)
    return len(todo), len(source.keys) - len(todo)


def _made_by(file: Path, source: Source) -> dict[str, Any]:
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    earlier = source.facts.get("made_by")
    outputs = earlier.get("outputs") if isinstance(earlier, dict) else source.facts.get("outputs")
    return {
        "backbone": "imported",
        "source": file.name,
        "source_sha256": digest,
        "input_size": None,
        "outputs": outputs if "logits" in source.arrays else None,
        "views": [name for name in source.arrays if name != "logits"],
        "attributes": source.facts,
    }


def _check(file: Path, source: Source) -> None:
    rows = {name: array.shape for name, array in source.arrays.items()}
    if any(len(shape) != 2 for shape in rows.values()):
        raise UserError(f"{file}: features, views and logits must have two axes (rows, width), and have {rows}")
    lengths = {"video and frame": len(source.keys)} | {name: shape[0] for name, shape in rows.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{file}: all must have as many rows, and they have {lengths}")
    if len(source.keys) == 0 or 0 in [shape[1] for shape in rows.values()]:
        raise UserError(f"{file}: there is nothing in it: {rows}")
    if (source.keys["frame"] < 0).any() or (source.keys["size"] < 0).any():
        raise UserError(f"{file}: 'frame' and 'size' must not be negative")
    if (source.keys["video"] == "").any():
        raise UserError(f"{file}: 'video' must not be empty, and is in {int((source.keys['video'] == '').sum())} rows")
    twice = source.keys.duplicated(KEY)
    if twice.any():
        some = [f"{v}/{f}" for v, f in source.keys.loc[twice, KEY].head(3).itertuples(index=False)]
        raise UserError(f"{file}: {int(twice.sum())} keys (video, frame) stand there twice, such as {some}")
    for name, array in source.arrays.items():
        _check_values(file, name, array, source.keys)


def _check_values(file: Path, name: str, array: Any, keys: pd.DataFrame) -> None:
    if array.dtype.kind not in "fiu":
        raise UserError(f"{file}: '{name}' must be real numbers, and is {array.dtype}")
    step = max(1, _BLOCK_BYTES // (array.shape[1] * array.dtype.itemsize))
    bad = np.concatenate([~np.isfinite(_half(array[i : i + step])).all(axis=1) for i in range(0, array.shape[0], step)])
    if bad.any():
        some = [f"{v}/{f}" for v, f in keys.loc[bad, KEY].head(3).itertuples(index=False)]
        raise UserError(f"{file}: {int(bad.sum())} rows of '{name}' are not finite as float16, such as {some}")


def _half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float16)


@contextmanager
def _opened(file: Path) -> Iterator[Source]:
    way = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npz": _read_npz, ".npy": _read_npy}.get(file.suffix.lower())
    if way is None:
        raise UserError(f"cannot import {file}: the name must end in one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise UserError(f"cannot import {file}: there is no such file")
    try:
        with way(file) as source:
            yield source
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {file}: {' '.join(str(error).split())}") from error


@contextmanager
def _read_hdf5(file: Path) -> Iterator[Source]:
    with h5py.File(file, "r") as handle:
        found: dict[str, Any] = {}
        handle.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        facts = {name: _plain(value) for name, value in handle.attrs.items()}
        if "features" in found:
            facts |= {name: _plain(value) for name, value in found["features"].attrs.items()}
        yield _source(file, found, facts)


@contextmanager
def _read_npz(file: Path) -> Iterator[Source]:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        found: dict[str, Any] = {name: _Member(archive, name + ".npy") for name in names}
        made_by = found.pop("made_by", None)
        yield _source(file, found, {} if made_by is None else {"made_by": _plain(made_by.all().item())})


@contextmanager
def _read_npy(file: Path) -> Iterator[Source]:
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    count = len(array) if array.ndim else 0
    keys = pd.DataFrame({"video": [f"{i:08d}" for i in range(count)], "frame": 0, "size": 0})
    yield Source(keys.astype({"video": "str"}), {"original": array})


def _source(file: Path, found: Mapping[str, Any], facts: dict[str, Any]) -> Source:
    missing = [name for name in ("features", "video", "frame") if name not in found]
    if missing:
        raise UserError(f"{file} lacks the datasets {missing}; it has {sorted(found)}")
    arrays = {"original": found["features"]}
    for name in sorted(found):
        view = "flipped" if name == "flipped" else name.removeprefix("views/") if name.startswith("views/") else None
        if view in arrays or (view and "/" in view):
            raise UserError(f"{file}: '{name}' would be the view '{view}', which cannot be")
        if view:
            arrays[view] = found[name]
    if "logits" in found:
        if "logits" in arrays:
            raise UserError(f"{file}: a view cannot be called 'logits'")
        arrays["logits"] = found["logits"]
    taken = {"features", "video", "frame", "size", "flipped", "logits"}
    left_out = [name for name in sorted(found) if name not in taken and not name.startswith("views/")]
    return Source(_read_keys(file, found), arrays, facts, left_out)


def _read_keys(file: Path, found: Mapping[str, Any]) -> pd.DataFrame:
    columns = {name: _column(file, name, found[name]) for name in ("video", "frame", "size") if name in found}
    for name in ("frame", "size"):
        if name in columns and columns[name].dtype.kind not in "iu":
            raise UserError(f"{file}: '{name}' must be whole numbers, and is {columns[name].dtype}")
    if len({len(column) for column in columns.values()}) > 1:
        raise UserError(f"{file}: lengths differ: { {name: len(column) for name, column in columns.items()} }")
    return pd.DataFrame({"size": 0} | columns)[["video", "frame", "size"]].astype(
        {"video": "str", "frame": "int64", "size": "int64"}
    )


def _column(file: Path, name: str, array: Any) -> np.ndarray:
    if len(array.shape) != 1:
        raise UserError(f"{file}: '{name}' must have one axis, and has the shape {tuple(array.shape)}")
    if isinstance(array, h5py.Dataset) and h5py.check_string_dtype(array.dtype):
        return array.asstr()[:]
    values = np.asarray(array[: array.shape[0]])
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind not in "Uiu":
        raise UserError(f"{file}: '{name}' must be text or whole numbers, and is {values.dtype}")
    return values


class _Member:
    """An array in a .npz, read in order, block by block; going back starts over. ``np.load`` would read it whole."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive, self._name = archive, name
        self._open()

    def __getitem__(self, rows: slice) -> np.ndarray:
        if self._in_columns:
            return self.all()[rows]
        if rows.start is not None and rows.start < self._at:
            self._open()
        start, stop = rows.start or 0, min(rows.stop, self.shape[0])
        width = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._handle.seek((start - self._at) * width, 1)
        content = self._handle.read((stop - start) * width)
        if len(content) < (stop - start) * width:
            raise ValueError(f"'{self._name}' is shorter than it says")
        self._at = stop
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def all(self) -> np.ndarray:
        """The whole array, of any shape."""
        with self._archive.open(self._name) as handle:
            return np.lib.format.read_array(handle, allow_pickle=False)

    def _open(self) -> None:
        self._handle, self._at = self._archive.open(self._name), 0
        version = np.lib.format.read_magic(self._handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._in_columns, self.dtype = read(self._handle)
        self._in_columns &= len(self.shape) > 1
        if self.dtype.hasobject:
            raise ValueError(f"'{self._name}' holds Python objects: save it as text or numbers (dtype=str)")


def _plain(value: Any) -> Any:
    """An attribute as plain JSON: text that is JSON is read, arrays become lists, bytes become text."""
    if isinstance(value, bytes | np.bytes_):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _blocks(store: FeatureStore, name: str) -> Iterator[np.ndarray]:
    rows = store.keys["row"].to_numpy()
    for start in range(0, len(rows), store.chunk_rows):
        yield store.read(rows[start : start + store.chunk_rows], name)


def _places(store: FeatureStore) -> dict[str, str]:
    """Array of the store -> its name in a file."""
    return {name: {"original": "features", "logits": "logits"}.get(name, f"views/{name}") for name in store.widths}


def _write_hdf5(store: FeatureStore, file: Path) -> None:
    with h5py.File(file, "w") as handle:
        handle.attrs["made_by"] = json.dumps(store.made_by, ensure_ascii=False)
        handle.create_dataset("video", data=store.keys["video"].astype(object).to_numpy(), dtype=h5py.string_dtype())
        for name in ("frame", "size"):
            handle.create_dataset(name, data=store.keys[name].to_numpy())
        for name, place in _places(store).items():
            array = handle.create_dataset(place, (len(store.keys), store.widths[name]), np.float16)
            start = 0
            for block in _blocks(store, name):
                array[start : start + len(block)] = block
                start += len(block)


def _write_npz(store: FeatureStore, file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        made_by = np.array(json.dumps(store.made_by, ensure_ascii=False))
        columns = {"made_by": made_by, "video": store.keys["video"].astype(object).to_numpy().astype(str)}
        columns |= {name: store.keys[name].to_numpy() for name in ("frame", "size")}
        for name, column in columns.items():
            _write_member(archive, name, column.shape, column.dtype, [column])
        for name, place in _places(store).items():
            shape = (len(store.keys), store.widths[name])
            _write_member(archive, place, shape, np.dtype(np.float16), _blocks(store, name))


def _write_member(archive: zipfile.ZipFile, name: str, shape: Sequence[int], dtype: np.dtype, blocks: Any) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    with archive.open(name + ".npy", "w", force_zip64=True) as handle:
        np.lib.format.write_array_header_2_0(handle, header)
        for block in blocks:
            handle.write(np.ascontiguousarray(block).tobytes())
