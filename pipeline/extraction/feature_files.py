"""Features that others saved, as tables of rows: .h5 (.hdf5), .npz and .npy; what is in them is in ``transfer``.

Nothing is unpickled, no other file is read, and no value is taken that the file does not hold. Every size that the file
claims is compared with the file's own size before memory is allocated. Rows go through memory block by block.
"""

import io
import json
import os
import re
import signal
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

from pipeline.core.params import UserError
from pipeline.extraction.bounds import border, members, most_bytes, some

TIME = "time_sec"  # in the place of frame numbers: a series, such as sound
SUFFIXES = (".h5", ".hdf5", ".npz", ".npy")
_RATIO = 32  # real features shrink less than this; where they do not, the file can be saved uncompressed
_INFLATE = 1032  # bytes that deflate can make of one
# LZF is h5py's own. Others are plugins, or (SZIP, N-Bit, scale-offset) allocate what the file asks them to.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class FileArray:
    """(N, width) real numbers of a file times ``scale``, read on slicing. (N, 1, D) and (N, D, 1, 1) are (N, D) too."""

    scale = 1.0

    def __init__(self, file: Path, name: str, array: Any) -> None:
        self._file, self._array = file, array
        rows, *axes = array.shape or (0,)
        longer = [axis for axis in axes if axis != 1]
        if not axes or len(longer) > 1:
            raise UserError(
                f"{file}: features, views and logits must have two axes (rows, width), and '{name}' has the shape "
                f"{tuple(array.shape or ())}"
            )
        self.shape, self.dtype = (int(rows), int(longer[0]) if longer else 1), array.dtype
        if self.dtype.kind not in "fiu":
            raise UserError(f"{file}: '{name}' must be real numbers, and is {self.dtype}")

    def __getitem__(self, rows: slice) -> np.ndarray:
        with border(f"cannot read {self._file}"):
            values = np.asarray(self._array[rows]).reshape(-1, self.shape[1])
            return values if self.scale == 1 else values * np.float64(self.scale)


@dataclass
class FeatureFile:
    """An open file of features: ``arrays`` by the name of their view, or 'logits'.

    ``keys`` has video, frame, size; or video and time_sec, of a series that is still to be put onto frames
    (``series``). ``facts`` is what the file says of itself; ``left_out`` names what is not taken.
    """

    keys: pd.DataFrame
    arrays: dict[str, FileArray]
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@contextmanager
def open_features(file: Path) -> Iterator[FeatureFile]:
    """The features of a .h5, .hdf5, .npz or .npy file, open as long as the context lasts.

    Raises ``UserError`` for a file that cannot be read, and for one that claims more than it can hold.
    """
    way = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npz": _read_npz, ".npy": _read_npy}.get(file.suffix.lower())
    if way is None:
        raise UserError(f"cannot import {file}: the name must end in one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise UserError(f"cannot import {file}: there is no such file")
    with way(file) as source:
        yield source


# --- the three kinds of file -----------------------------------------------------------------------------------------


@contextmanager
def _read_hdf5(file: Path) -> Iterator[FeatureFile]:
    _try_hdf5(file)
    with border(f"cannot read {file}"):
        handle = h5py.File(file, "r")
    with handle:
        with border(f"cannot read {file}"):
            found, facts, left_out, heap = _look_into(file, handle)
            source = _feature_file(file, found, facts, heap)
        source.left_out += left_out
        yield source


def _look_into(file: Path, handle: h5py.File) -> tuple[dict[str, h5py.Dataset], dict[str, Any], list[str], int]:
    """Data sets by name, what the file says of itself, the names of what is left out, and bytes that may hold text."""
    links: dict[str, Any] = {}
    handle.visititems_links(lambda name, link: links.update({name: link}))  # visititems: an object only once
    for name, link in links.items():
        if not isinstance(link, h5py.HardLink) and (_is_taken(name) or name == "views"):
            where = f"'{link.path}'" + (f" in '{link.filename}'" if isinstance(link, h5py.ExternalLink) else "")
            raise UserError(f"{file}: '{name}' is a link to {where}, and links are not followed: copy the values")
    found = {name: handle[name] for name, link in links.items() if isinstance(link, h5py.HardLink)}
    found = {name: item for name, item in found.items() if isinstance(item, h5py.Dataset)}
    heap = _check_hdf5(file, {name: item for name, item in found.items() if _is_taken(name)})
    left_out = [name for name, link in links.items() if not isinstance(link, h5py.HardLink)]
    facts: dict[str, Any] = {}
    for item in (handle, found.get("features")):
        if item is not None:
            more, also = _attributes(item, file.stat().st_size, heap)
            facts, left_out = facts | more, left_out + also
    return found, facts, left_out, heap


def _try_hdf5(file: Path) -> None:
    """Reads all but the features in a process of its own, which a damaged file may take down.

    The HDF5 library (2.0) can loop without end, or crash, on a few damaged bytes, and no exception tells of it. An
    error in words is left to the parent, which meets it again. Raises ``UserError`` where the process does not end.
    """
    if not hasattr(os, "fork"):
        return
    import resource

    child = os.fork()
    if child == 0:
        try:
            seconds = 3 + (file.stat().st_size >> 22)  # of its own computing, however busy the machine
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with h5py.File(file, "r") as handle:
                found, _, _, heap = _look_into(file, handle)
                for name in ("video", "frame", "size", TIME):
                    if name in found:
                        _column(file, name, found[name], heap)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        words = signal.strsignal(os.WTERMSIG(status))
        raise UserError(f"cannot read {file}: it is damaged, and the HDF5 library does not survive it ({words})")


@contextmanager
def _read_npz(file: Path) -> Iterator[FeatureFile]:
    with border(f"cannot read {file}"):
        archive = zipfile.ZipFile(file)
    with archive:
        with border(f"cannot read {file}"):
            try:
                inside = members(archive, file.stat().st_size, _RATIO)
            except UserError as error:
                raise UserError(f"cannot read {file}: {error}") from None
            names = [name.removesuffix(".npy") for name in inside if name.endswith(".npy")]
            if not names:
                raise UserError(f"{file} holds no arrays (.npy), but {some(list(inside))}")
            found: dict[str, Any] = {name: _Member(archive, inside[name + ".npy"]) for name in names}
            made_by = found.pop("made_by", None)
            facts = {} if made_by is None else {"made_by": _plain(made_by.all().item())}
            source = _feature_file(file, found, facts, 0)
        source.left_out += [name for name in inside if not name.endswith(".npy")]
        yield source


@contextmanager
def _read_npy(file: Path) -> Iterator[FeatureFile]:
    with border(f"cannot read {file}"):
        with file.open("rb") as handle:
            shape, _, dtype = _header(handle, file.name, file.stat().st_size)
        array = np.load(file, mmap_mode="r", allow_pickle=False) if dtype.itemsize and 0 not in shape else None
    if array is None or not shape:
        raise UserError(f"{file}: there is nothing in it: its shape is {shape}")
    arrays = {"original": FileArray(file, "features", array)}
    keys = pd.DataFrame({"video": [f"{i:08d}" for i in range(shape[0])], "frame": 0, "size": 0})
    yield FeatureFile(keys.astype({"video": "str"}), arrays)


def _is_taken(name: str) -> bool:
    return name in {"features", "video", "frame", "size", TIME, "flipped", "logits"} or name.startswith("views/")


def _feature_file(file: Path, found: Mapping[str, Any], facts: dict[str, Any], heap: int) -> FeatureFile:
    missing = [name for name in ("features", "video", "frame") if name not in found]
    of_times = "frame" in missing and TIME in found
    if missing and not (of_times and missing == ["frame"]):
        raise UserError(f"{file} lacks the datasets {missing}; it has {some(sorted(found))}")
    arrays = {"original": FileArray(file, "features", found["features"])}
    for name in sorted(found):
        view = "flipped" if name == "flipped" else name.removeprefix("views/") if name.startswith("views/") else None
        if view in arrays or (view and "/" in view):
            raise UserError(
                f"{file}: '{name}' cannot be the view '{view}': another is called so, or the name has a slash"
            )
        if view:
            arrays[view] = FileArray(file, name, found[name])
    if "logits" in found:
        if "logits" in arrays:
            raise UserError(f"{file}: a view cannot be called 'logits'")
        arrays["logits"] = FileArray(file, "logits", found["logits"])
    left_out = [name for name in sorted(found) if not _is_taken(name) or (name == TIME and not of_times)]
    keys = _read_times(file, found, heap) if of_times else _read_keys(file, found, heap)
    return FeatureFile(keys, arrays, facts, left_out)


# --- video, frame, size ----------------------------------------------------------------------------------------------


def _read_keys(file: Path, found: Mapping[str, Any], heap: int) -> pd.DataFrame:
    columns = {name: _column(file, name, found[name], heap) for name in ("video", "frame", "size") if name in found}
    if len({len(column) for column in columns.values()}) > 1:
        raise UserError(f"{file}: lengths differ: { {name: len(column) for name, column in columns.items()} }")
    return pd.DataFrame({"size": 0} | columns)[["video", "frame", "size"]].astype(
        {"video": "str", "frame": "int64", "size": "int64"}
    )


def _read_times(file: Path, found: Mapping[str, Any], heap: int) -> pd.DataFrame:
    video, shape = _column(file, "video", found["video"], heap), tuple(found[TIME].shape or ())
    if not shape or set(shape[1:]) - {1} or found[TIME].dtype.kind not in "fiu":
        raise UserError(
            f"{file}: '{TIME}' must be one axis of real numbers, and is {found[TIME].dtype} of shape {shape}"
        )
    times = np.asarray(found[TIME][: shape[0]]).reshape(-1).astype(np.float64)
    if len(times) != len(video):
        raise UserError(f"{file}: lengths differ: { {'video': len(video), TIME: len(times)} }")
    return pd.DataFrame({"video": video, TIME: times}).astype({"video": "str"})


def _column(file: Path, name: str, array: Any, heap: int) -> np.ndarray:
    shape = tuple(array.shape or ())
    if not shape or set(shape[1:]) - {1}:
        raise UserError(f"{file}: '{name}' must have one axis, and has the shape {shape}")
    text = h5py.check_string_dtype(array.dtype) if isinstance(array, h5py.Dataset) else None
    values = _texts(array, heap) if text and text.length is None else np.asarray(array[: shape[0]]).reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "f" or (name != "video" and values.dtype.kind in "UO"):
        values = _whole(file, name, values)
    if values.dtype.kind not in ("UOiu" if name == "video" else "iu"):
        also = "text or " if name == "video" else ""
        raise UserError(f"{file}: '{name}' must be {also}whole numbers, and is {values.dtype}")
    return values


def _texts(dataset: h5py.Dataset, heap: int) -> np.ndarray:
    """Text of any length, not more of it than ``heap`` bytes: each row names a place in them, and all may name one."""
    rows, total = min(max((1 << 26) // max(heap, 1), 64), 4096), 0
    texts = np.empty(dataset.shape[0], dtype=object)
    for start in range(0, len(texts), rows):
        block = dataset.asstr()[start : start + rows].reshape(-1)
        total += sum(map(len, block))
        if total > heap:
            raise UserError(f"{dataset.file.filename}: '{dataset.name}' has more text than the file has bytes for")
        texts[start : start + rows] = block
    return texts


def _whole(file: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Whole numbers that are written as text ('12', '12.0') or as real numbers (12.0)."""
    if values.dtype.kind == "f":
        odd = values[~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**53))]
        if len(odd):
            raise UserError(f"{file}: '{name}' must be whole numbers, and {len(odd):,} are not, such as {odd[0]}")
        return values.astype(np.int64)
    found = [re.fullmatch(r"\s*([-+]?\d{1,18})(?:\.0*)?\s*", str(value)) for value in values]
    odd = [str(value) for value, match in zip(values, found, strict=True) if match is None]
    if odd:
        raise UserError(f"{file}: '{name}' must be whole numbers, and {len(odd):,} are not, such as '{odd[0][:60]}'")
    return np.array([int(match[1]) for match in found if match], dtype=np.int64)


# --- HDF5 ------------------------------------------------------------------------------------------------------------


def _check_hdf5(file: Path, taken: Mapping[str, h5py.Dataset]) -> int:
    """How many bytes of the file can hold text.

    Raises ``UserError`` for arrays whose values are in another file, or were never written and would be made up.
    """
    size, claimed, stored = file.stat().st_size, 0, 0
    for name, dataset in taken.items():
        plist = dataset.id.get_create_plist()
        copy = "save the values themselves (file.create_dataset(name, data=values))"
        if plist.get_layout() == h5py.h5d.VIRTUAL:
            raise UserError(f"{file}: '{name}' is a virtual data set, whose values are in other files: {copy}")
        if plist.get_external_count():
            other = plist.get_external(0)[0].decode("utf-8", "replace")
            raise UserError(f"{file}: the values of '{name}' are in another file, '{other}': {copy}")
        if dataset.shape is None:
            raise UserError(f"{file}: '{name}' has no shape: there is nothing in it")
        claimed += _claimed(dataset.shape, dataset.dtype)
        stored += dataset.id.get_storage_size()
    if stored > size:
        raise UserError(f"{file}: its arrays claim to lie in {stored:,} bytes, and the file has {size:,}")
    _check_claim(file, size, claimed)
    for name, dataset in taken.items():
        _check_filters(file, name, dataset, size)
        _check_written(file, name, dataset)
    return size - stored


def _check_filters(file: Path, name: str, dataset: h5py.Dataset, size: int) -> None:
    """Decoding happens a chunk at a time, in memory: what that takes must be within bounds too."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    codes = [code for code, *_ in filters]
    for code, _, _, words in filters:
        if code not in _FILTERS:
            named = words.decode("utf-8", "replace")
            raise UserError(f"{file}: '{name}' is compressed by '{named}' ({code}): save it by gzip, LZF, or without")
    if not dataset.chunks:
        return
    chunk, most = _claimed(dataset.chunks, dataset.dtype), most_bytes(size, _RATIO)
    asked = [chunk, *(values[2] for code, _, values, _ in filters if code == h5py.h5z.FILTER_LZF and len(values) > 2)]
    if max(asked) > most:
        raise UserError(f"{file}: a chunk of '{name}' claims {max(asked):,} bytes, in a file of {size:,}")
    if h5py.h5z.FILTER_DEFLATE in codes:
        if set(codes[codes.index(h5py.h5z.FILTER_DEFLATE) + 1 :]) - {h5py.h5z.FILTER_FLETCHER32}:
            raise UserError(f"{file}: '{name}' is compressed more than once: save it by gzip, LZF, or without")
        _check_inflated(file, name, dataset, chunk, most)


def _check_inflated(file: Path, name: str, dataset: h5py.Dataset, chunk: int, most: int) -> None:
    """HDF5 inflates a chunk to its end, however long, and then takes what it needs."""
    places = []
    dataset.id.chunk_iter(lambda info: places.append(info.chunk_offset) if info.size * _INFLATE > most else None)
    for place in places:
        _, data = dataset.id.read_direct_chunk(place)
        if len(zlib.decompressobj().decompress(data, chunk + 1)) > chunk:
            raise UserError(f"{file}: the chunk of '{name}' at row {place[0]:,} unpacks to more than a chunk")


def _check_written(file: Path, name: str, dataset: h5py.Dataset) -> None:
    """HDF5 gives the fill value, mostly 0, for what was never written, and says nothing."""
    if dataset.size == 0:
        return
    if not dataset.chunks:
        missing = [range(dataset.shape[0])] if dataset.id.get_storage_size() == 0 else []
    else:
        missing = _chunks_missing(dataset)
    if missing:
        rows = sorted({(rows.start, rows.stop - 1) for rows in missing})
        named = ", ".join(f"{start:,} to {stop:,}" for start, stop in rows[:3]) + (", ..." if len(rows) > 3 else "")
        raise UserError(
            f"{file}: rows {named} of '{name}' were never written, and would come in as made-up values: "
            "was the program that wrote it cut off? Write them, or make the data set shorter"
        )


def _chunks_missing(dataset: h5py.Dataset) -> list[range]:
    shape, chunks = dataset.shape, dataset.chunks
    wanted = int(np.prod([-(-n // c) for n, c in zip(shape, chunks, strict=True)], dtype=object))
    if dataset.id.get_num_chunks() >= wanted:
        return []
    there: dict[int, int] = {}
    dataset.id.chunk_iter(lambda info: there.update({info.chunk_offset[0]: there.get(info.chunk_offset[0], 0) + 1}))
    a_row = wanted // -(-shape[0] // chunks[0])
    starts = (i for i in range(0, shape[0], chunks[0]) if there.get(i, 0) < a_row)
    missing: list[range] = []
    for start in starts:
        stop = min(start + chunks[0], shape[0])
        if missing and missing[-1].stop == start:
            missing[-1] = range(missing[-1].start, stop)
        else:
            missing.append(range(start, stop))
    return missing


def _attributes(item: h5py.Group | h5py.Dataset, size: int, heap: int) -> tuple[dict[str, Any], list[str]]:
    """What an object says of itself, and the names of attributes that are no plain values or may be too long."""
    facts, left_out = {}, []
    for name in item.attrs:
        what = item.attrs.get_id(name)
        text = h5py.check_string_dtype(what.dtype)
        numbers = what.dtype.kind in "fiubS" or (text and text.length is not None)
        elements = int(np.prod(what.shape or (1,), dtype=object))
        each = what.dtype.itemsize if numbers else heap
        if (numbers or text) and (elements == 1 or elements * each <= most_bytes(size, _RATIO)):
            facts[name] = _plain(item.attrs[name])
        else:
            left_out.append(f"attribute {name}")
    return facts, left_out


# --- arrays of numpy -------------------------------------------------------------------------------------------------


class _Member:
    """An array in a .npz, read in order, block by block; going back starts over. ``np.load`` would read it whole."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._archive, self._info = archive, info
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
            raise ValueError(f"'{self._info.filename}' is shorter than it says")
        self._at = stop
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def all(self) -> np.ndarray:
        """The whole array, of any shape."""
        with self._archive.open(self._info) as handle:
            return np.lib.format.read_array(handle, allow_pickle=False)

    def _open(self) -> None:
        self._handle, self._at = self._archive.open(self._info), 0
        name, size = self._info.filename, self._info.file_size
        self.shape, self._in_columns, self.dtype = _header(self._handle, name, size)
        self._in_columns &= len(self.shape) > 1


def _header(handle: Any, name: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether by columns, and type of a .npy. They must come to just the ``size`` bytes that it has."""
    start = io.BytesIO(handle.read(1 << 14))  # numpy reads a header of any length before it says that it is too long
    version = np.lib.format.read_magic(start)
    if version not in _HEADERS:
        raise ValueError(f"'{name}' is a .npy of version {version}, and {list(_HEADERS)} are known")
    shape, in_columns, dtype = _HEADERS[version](start)
    handle.seek(start.tell())
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds Python objects: save it as text or numbers (dtype=str)")
    wanted, there = int(np.prod(shape, dtype=object)) * dtype.itemsize, size - start.tell()
    if wanted != there or (dtype.itemsize == 0 and 0 not in shape):
        raise ValueError(f"'{name}' says {dtype} of shape {shape}, which is {wanted:,} bytes, and has {there:,}")
    return shape, in_columns, dtype


def _claimed(shape: Sequence[int], dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=object)) * max(dtype.itemsize, 1)


def _check_claim(file: Path, size: int, claimed: int) -> None:
    if claimed > most_bytes(size, _RATIO):
        raise UserError(
            f"{file} has {size:,} bytes, and its arrays would have {claimed:,}, more than is plausible; "
            "where that is right, save it uncompressed"
        )


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
        except (ValueError, RecursionError):
            return value
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)  # JSON has none of these, and NaN would differ from itself
    return value if isinstance(value, str | int | float | bool | None) else str(value)
