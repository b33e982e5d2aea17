"""A store checked, mended and rewritten; apart from store.py, which every stage hangs on."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from pipeline.params import UserError
from pipeline.store import (
    FeatureStore,
    StoreDamaged,
    beside,
    chunk_file,
    clear_partial,
    create,
    locked,
    open_group,
    read_chunk,
    row_arrays,
    write_chunk,
    writing,
)
from pipeline.tables import KEY


@dataclass
class Damage:
    """A chunk of which some files are missing or not what was written: file -> what is wrong with it.

    ``frames`` are the (video, frame) in it; None where the keys cannot be read, and then only ``rows`` is known.
    """

    chunk: int
    rows: range
    files: dict[Path, str] = field(default_factory=dict)
    frames: list[tuple[str, int]] | None = None


@dataclass(frozen=True)
class Verified:
    """How many chunk files ``verify`` read, and what of them is damaged.

    ``unfinished`` counts the chunks at the end without commit mark: a run was cut off in them, or is writing them now.
    They count for nothing, and the next run does them again.
    """

    files: int
    damaged: list[Damage]
    unfinished: int


@dataclass(frozen=True)
class Compacted:
    """Rows of chunks, the empty and dead ones included, and bytes on disk, before and after."""

    rows_before: int
    rows: int
    bytes_before: int
    bytes: int


def verify(path: Path) -> Verified:
    """Reads every chunk of the store at ``path`` against its checksum, and changes nothing.

    Raises ``UserError`` where there is no store, and ``StoreDamaged`` where a zarr.json is not as it was written.
    """
    group = open_group(path)
    arrays = row_arrays(group)
    _check_lengths(path, arrays)
    count = max(array.shape[0] for array in arrays) // arrays[0].chunks[0]
    damaged, files, unfinished = [], 0, 0
    for index in reversed(range(count)):
        there = [array for array in arrays if chunk_file(path, array, index).is_file()]
        files += len(there)
        if unfinished == count - 1 - index and "frame" not in [array.path for array in there]:
            unfinished += 1
        elif there and (damage := _damage(path, group, index)).files:
            damaged.append(damage)
    return Verified(files, damaged[::-1], unfinished)


def refuse_damaged(path: Path) -> None:
    """Raises ``StoreDamaged`` where a chunk is damaged: whoever copies it would give the damage a fitting checksum."""
    for damage in verify(path).damaged:
        for file, why in damage.files.items():
            raise StoreDamaged(path, file, why)


def drop(path: Path, damaged: list[Damage]) -> None:
    """Takes the chunks in ``damaged`` away, the commit mark first, so that their frames are extracted again."""
    with locked(path), writing(path):
        arrays = row_arrays(open_group(path))
        for damage in damaged:
            for array in reversed(arrays):
                chunk_file(path, array, damage.chunk).unlink(missing_ok=True)


def compact(path: Path, wanted: pd.DataFrame) -> Compacted:
    """Rewrites the store with just the valid rows whose (video, frame) is in ``wanted``, sorted, without holes.

    The new store is made beside the old one and takes its place once it is whole. Killed at any time, one of the two
    is whole, and the next writer puts it in its place. Raises ``StoreDamaged`` where a chunk is damaged, and
    ``UserError`` where nothing would be left.
    """
    with locked(path):
        refuse_damaged(path)
        clear_partial(path)
        store = FeatureStore(path)
        rows_before, bytes_before = store.group["frame"].shape[0], _bytes(path)
        keys = store.keys.astype({"video": "str"}).merge(wanted[KEY], on=KEY).sort_values(KEY, ignore_index=True)
        if keys.empty:
            raise UserError(f"no frame of the store {path} is in the frame table: nothing of it would be left")
        if not _is_compact(keys, rows_before, store.chunk_rows):
            with writing(path):
                _replace(path, store, keys)
    return Compacted(rows_before, -(-len(keys) // store.chunk_rows) * store.chunk_rows, bytes_before, _bytes(path))


def _is_compact(keys: pd.DataFrame, rows: int, chunk_rows: int) -> bool:
    return rows - len(keys) < chunk_rows and np.array_equal(keys["row"], np.arange(len(keys)))


def _replace(path: Path, store: FeatureStore, keys: pd.DataFrame) -> None:
    new, old = beside(path, "new"), beside(path, "old")
    try:
        group = create(new, store.made_by, store.widths, store.chunk_rows)
        for start in range(0, len(keys), store.chunk_rows):
            part = keys.iloc[start : start + store.chunk_rows]
            rows = {name: store.read(part["row"].to_numpy(), name) for name in store.widths}
            write_chunk(group, start // store.chunk_rows, part, rows)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # where the disk is full, it should not stay so
        raise
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)


def _damage(path: Path, group: zarr.Group, index: int) -> Damage:
    rows = int(group["frame"].chunks[0])
    damage = Damage(index, range(index * rows, (index + 1) * rows))
    content = {}
    for array in row_arrays(group):
        try:
            content[array.path] = read_chunk(path, array, index)
        except StoreDamaged as error:
            damage.files[error.file] = error.why
        if array.path not in ("video", "frame"):
            content.pop(array.path, None)  # a chunk at a time in memory
    if damage.files and content.keys() >= {"video", "frame"}:
        there = content["frame"] >= 0
        damage.frames = list(zip(content["video"][there].tolist(), content["frame"][there].tolist(), strict=True))
    return damage


def _check_lengths(path: Path, arrays: list[zarr.Array]) -> None:
    """Raises ``StoreDamaged`` where a zarr.json gives its array fewer rows than were written."""
    for array in arrays:
        files = [int(p.name) for p in (path / array.path / "c").glob("*") if p.name.isdigit()]
        if array.shape[0] < max(arrays[-1].shape[0], (max(files, default=-1) + 1) * array.chunks[0]):
            why = f"it says {array.shape[0]} rows, and there are more"
            raise StoreDamaged(path, path / array.path / "zarr.json", why)


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
