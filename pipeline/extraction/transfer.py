"""Features from elsewhere into a store of their own, and a store into a file that everything reads.

A file, .h5 (.hdf5) or .npz, holds by name:

    features           (N, D)   the view 'original'; any real numbers, stored as float16
    video              (N,)     text or whole numbers
    frame              (N,)     whole numbers, not negative
    views/<name>       (N, D')  further views, as many as there are; a dataset 'flipped' is the same as 'views/flipped'
    logits             (N, C)   if there are any
    size               (N,)     of the image files, if known
    made_by            where we wrote it: the store's made_by as JSON text (in HDF5 an attribute of the file)

In the place of ``frame`` there may be ``time_sec`` (N,): then it is a series, such as sound, which ``series`` puts onto
the frames of the frame table.

A .npy holds nothing but features (N, D): row i is an image of its own, video ``f"{i:08d}"`` and frame 0.

``feature_files`` reads such files. Rows go through memory a chunk at a time.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from pipeline.core.files import writing
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreMismatch, StoreWriter
from pipeline.core.tables import KEY
from pipeline.extraction.feature_files import TIME, FeatureFile, FileArray, open_features
from pipeline.extraction.series import RESAMPLED, OntoFrames, onto_frames
from pipeline.extraction.upkeep import delete_replaced, start_over

_BLOCK_BYTES = 1 << 24


class Imported(NamedTuple):
    """Rows written, rows that were there, names in the file left out, and lines on what float16 does to the values."""

    written: int
    there: int
    left_out: list[str]
    notes: list[str]


def import_features(
    file: Path,
    store: Path,
    chunk_rows: int,
    rebuild: bool,
    scale: float = 1.0,
    made_by: Mapping[str, Any] | None = None,
    onto: Callable[[], OntoFrames] | None = None,
) -> Imported:
    """Writes ``file`` into a store, features (but not logits) multiplied by ``scale``.

    ``made_by`` is what made the features, as the user says, or by default as the file says. It is compared with other
    stores, and with what adapters were trained on. Where neither says it, this very file is what made them. ``onto``
    gives the frames onto which a series is put, and is asked where the file is one. Everything is checked before
    anything is written. An import that was cut off is resumed by the same call.

    Raises ``UserError`` for a file that cannot be taken, and ``StoreMismatch`` where the store was made by anything
    else, or has other features of the same frames, unless ``rebuild``.
    """
    with open_features(file) as source:
        for name, rows in source.arrays.items():
            rows.scale = 1.0 if name == "logits" else scale
        of_series = []
        if TIME in source.keys:
            if onto is None:
                raise UserError(f"{file} is a series, and no frames are known that it could be put onto")
            source, of_series = onto_frames(file, source, onto())
        notes = of_series + _check_keys(file, source)
        widths = {name: array.shape[1] for name, array in source.arrays.items()}
        writer = StoreWriter(store, _made_by(file, source, scale, made_by), widths, chunk_rows)
        try:
            filled = _fill(file, source, writer)
        except StoreMismatch:
            if not rebuild:
                raise
            start_over(writer, len(source.keys))
            filled = _fill(file, source, writer)
        delete_replaced(store, source.keys)
        return Imported(*filled, source.left_out, notes)


def export_features(store: FeatureStore, file: Path) -> int:
    """Writes the valid rows of a store, sorted by (video, frame), to a new .h5 or .npz; gives their number.

    Raises ``UserError`` where the file is there already, and ``StoreDamaged`` where a chunk of the store is damaged.
    """
    write = {".h5": _write_hdf5, ".hdf5": _write_hdf5, ".npz": _write_npz}.get(file.suffix.lower())
    if write is None:
        raise UserError(f"cannot export to {file}: the name must end in .h5, .hdf5 or .npz")
    if file.exists():
        raise UserError(f"cannot export to {file}: it is there already, and nothing is written over")
    partial = file.with_name(file.name + ".partial")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(store, partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return len(store.keys)


def _fill(file: Path, source: FeatureFile, writer: StoreWriter) -> tuple[int, int]:
    with writer:
        store = FeatureStore(writer.path)
        there = store.keys.astype({"video": "str"})[[*KEY, "row"]]
        marked = source.keys.merge(there, on=KEY, how="left")["row"]
        if _digest(store.made_by) != _digest(writer.made_by):
            _refuse_other_features(file, source, store, marked.dropna().astype("int64"))
        todo = np.flatnonzero(marked.isna().to_numpy())
        for start in range(0, len(todo), writer.chunk_rows):
            rows = todo[start : start + writer.chunk_rows]
            content = {name: _rows(array, rows) for name, array in source.arrays.items()}
            writer.write(source.keys.iloc[rows], content)
    return len(todo), len(source.keys) - len(todo)


def _rows(array: FileArray, rows: np.ndarray) -> np.ndarray:
    """``rows`` (n,), rising, as float16."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return np.concatenate([_half(array[int(run[0]) : int(run[-1]) + 1]) for run in runs])


def _refuse_other_features(file: Path, source: FeatureFile, store: FeatureStore, there: pd.Series) -> None:
    """Raises ``StoreMismatch`` where a frame of ``source`` has other features in the store: they would not be taken.

    ``there`` has the store's row of each frame that both have, by its row in the source.
    """
    other = np.zeros(len(there), dtype=bool)
    for name in {*source.arrays} & {*store.widths}:
        for start in range(0, len(there), store.chunk_rows):
            part = there.iloc[start : start + store.chunk_rows]
            same = store.read(part.to_numpy(), name) == _rows(source.arrays[name], part.index.to_numpy())
            other[start : start + len(part)] |= ~same.all(axis=1)
    if other.any():
        twice = _counted_rows(source.keys.loc[there.index], other)
        raise StoreMismatch(
            f"{twice} that both {file} and the store {store.path} have differ in their features. Name another store "
            "(-s), or make this one again from nothing with --rebuild"
        )


def _digest(made_by: Mapping[str, Any]) -> str | None:
    return made_by.get("provenance", made_by).get("source_sha256")


def _made_by(file: Path, source: FeatureFile, scale: float, stated: Mapping[str, Any] | None) -> dict[str, Any]:
    """The store's ``made_by``. Under 'provenance' is what is not compared with other stores."""
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    views = [name for name in source.arrays if name != "logits"]
    facts, own = dict(source.facts), source.facts.get("made_by")
    if stated is None and isinstance(own, dict) and own:
        stated = facts.pop("made_by")
    found = {"source": file.name, "source_sha256": digest, "views": views, "attributes": facts}
    resampled = {RESAMPLED: facts.pop(RESAMPLED)} if RESAMPLED in facts else {}
    if stated is None:
        made_by = {"backbone": "imported", "input_size": None, "outputs": facts.get("outputs")} | found
    else:
        if "provenance" in stated:
            found["before"] = stated["provenance"]
        made_by = {"backbone": "imported", "source": "as said", "input_size": None, "outputs": facts.get("outputs")}
        made_by |= dict(stated) | {"provenance": found}
    made_by |= resampled
    if made_by["outputs"] and "logits" not in source.arrays:
        made_by["outputs"] = None
    if (factor := scale * made_by.pop("scale", 1.0)) != 1:
        made_by["scale"] = factor
    return made_by


def _check_keys(file: Path, source: FeatureFile) -> list[str]:
    rows = {name: array.shape for name, array in source.arrays.items()}
    lengths = {"video and frame": len(source.keys)} | {name: shape[0] for name, shape in rows.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{file}: all arrays must have the same number of rows, and they have {lengths}")
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
    return [note for name, array in source.arrays.items() for note in _check_array(file, name, array, source.keys)]


# What float16 may take: of a row's length (its cosines move by less than 1e-4), and of a column's spread.
_ROW_LOSS, _COLUMN_LOSS = 0.01, 0.1
_MOST_FAINT = 0.01  # of the rows; with more an import is refused, for it can be scaled


def _check_array(file: Path, name: str, array: FileArray, keys: pd.DataFrame) -> list[str]:
    """Lines on rows and columns that float16 is too coarse for.

    Raises ``UserError`` for values that are not finite in float16, and where too many rows or all columns are lost in
    it.

    Below 6e-5 the steps of float16 are 6e-8, whatever the value; and values that differ by less than 0.05 % come out
    the same, so that a column of 1000.0 to 1000.1 is a constant.
    """
    step = max(1, _BLOCK_BYTES // (array.shape[1] * 8))
    bad, large, faint = (np.zeros(array.shape[0], dtype=bool) for _ in range(3))
    least, most, totals = np.inf, 0.0, np.zeros((3, array.shape[1]))
    first = array[0:1].astype(np.float64)
    for start in range(0, array.shape[0], step):
        rows, block = slice(start, start + step), array[start : start + step]
        stored, finite = _half(block), np.isfinite(block)
        bad[rows] = ~np.isfinite(stored).all(axis=1)
        large[rows] = bad[rows] & finite.all(axis=1)
        if block.dtype == np.float16:
            continue
        most = max(most, np.abs(block, where=finite, out=np.zeros_like(block)).max())
        if bad[rows].any():
            continue
        block = block.astype(np.float64)
        error, length = block - stored, np.einsum("nd,nd->n", block, block)
        faint[rows] = np.einsum("nd,nd->n", error, error) > _ROW_LOSS**2 * length
        least = min(least, np.sqrt(length[length > 0].min(initial=np.inf) / block.shape[1]))
        spread = block - first
        totals += np.stack([np.square(error).sum(0), spread.sum(0), np.square(spread).sum(0)])
    if bad.any():
        words = f"{file}: {_counted_rows(keys, bad)} of '{name}' are not finite in the store's float16"
        if large.any():
            words += f", which ends at 65,504 (the largest value is {most:.1e})"
        raise UserError(words + (f": {_remedy(array.scale, most, most)}" if large.any() and name != "logits" else ""))
    notes = []
    if faint.any():
        words = f"{file}: {_counted_rows(keys, faint)} of '{name}' lose over 1 % of their length in the store's float16"
        if name != "logits" and faint.mean() > _MOST_FAINT:
            raise UserError(f"{words} (the largest value is {most:.1e}): {_remedy(array.scale, least, most)}")
        notes.append(words)
    taken, mean, square = totals / array.shape[0]
    variance = square - mean**2
    varied = variance > 1e-12 * square
    lost = varied & (taken > _COLUMN_LOSS**2 * variance)
    if lost.any():
        column = int(lost.argmax())
        words = (
            f"{file}: {int(lost.sum()):,} of {len(lost):,} columns of '{name}' spread by less than float16 can tell "
            f"apart, such as column {column} ({first[0, column] + mean[column]:.4g} ± {variance[column] ** 0.5:.1g}): "
            "subtract each column's mean from it first, where it matters"
        )
        if name != "logits" and lost.sum() == varied.sum():
            raise UserError(words)
        notes.append(words)
    return notes


def _counted_rows(keys: pd.DataFrame, which: np.ndarray) -> str:
    some = [f"{v}/{f}" for v, f in keys.loc[which, KEY].head(3).itertuples(index=False)]
    return f"{int(which.sum()):,} of {len(which):,} rows ({', '.join(some)}{', ...' if which.sum() > 3 else ''})"


def _remedy(scale: float, least: float, most: float) -> str:
    """``least`` is the least root mean square of a row, ``most`` the largest value."""
    factor = 10.0 ** -np.floor(np.log10(most))
    if least * factor < 1e-4:
        return "they differ too much for one factor; divide each row by its length, which changes no cosine"
    return f"give --scale {scale * factor:g}, which multiplies features and changes no cosine"


def _half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float16)


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
