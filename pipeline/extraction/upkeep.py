"""A store checked, mended and rewritten; apart from store.py, which every stage hangs on."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from pipeline.core.params import UserError
from pipeline.core.store import (
    NOT_FINITE,
    FeatureStore,
    StoreDamaged,
    StoreWriter,
    all_finite,
    beside,
    chunk_file,
    chunk_numbers,
    consolidated,
    create,
    feature_names,
    locked,
    open_group,
    read_chunk,
    resolved,
    row_arrays,
    tidy,
    unchanged,
    write_chunk,
    writing_store,
)
from pipeline.core.tables import KEY


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

    ``unfinished`` counts chunks begun at the end without commit mark: a run was cut off in them, or writes them now.
    They count for nothing, and the next run does them again. ``consolidated`` are the groups with consolidated
    metadata, from which other readers see fewer rows once the store grows; ``foreign_files`` are not part of the store.
    """

    files: int
    damaged: list[Damage]
    unfinished: int
    consolidated: list[Path]
    foreign_files: list[str]


@dataclass(frozen=True)
class Compacted:
    """Frames that can be read, rows that are taken for them, and bytes on disk, before and after."""

    frames_before: int
    frames: int
    rows_before: int
    rows: int
    bytes_before: int
    bytes: int


def verify(path: Path) -> Verified:
    """Reads every chunk of the store at ``path`` against its checksum and for what is not finite; changes nothing.

    Raises ``UserError`` where there is no store, ``StoreDamaged`` where a zarr.json is not as it was written, and
    ``StoreReplaced`` where another store takes its place meanwhile.
    """
    path = resolved(path)
    with unchanged(path):
        return _verified(path)


def _verified(path: Path) -> Verified:
    folders = [p.parent for p in (*path.glob("*/c"), *path.glob("views/*/c"))]  # listed first: a writer may go on
    files = {str(folder.relative_to(path)): max(chunk_numbers(folder), default=-1) + 1 for folder in folders}
    group = open_group(path)
    arrays = row_arrays(path, group)
    _check_lengths(path, group, files)
    count = max(array.shape[0] for array in arrays) // arrays[0].chunks[0]
    damaged, files, unfinished, at_the_end = [], 0, 0, True
    for index in reversed(range(count)):
        there = [array for array in arrays if chunk_file(path, array, index).is_file()]
        files += len(there)
        at_the_end = at_the_end and "frame" not in [array.path for array in there]
        if at_the_end:
            unfinished += bool(there)
        elif there and (damage := _chunk_damage(path, group, index)).files:
            damaged.append(damage)
    return Verified(files, damaged[::-1], unfinished, consolidated(path), foreign_files(path))


def foreign_files(path: Path) -> list[str]:
    """Files and folders in the store at ``path`` that the store did not make."""
    own = {"zarr.json", "views", "video", "frame", "size", "logits"}
    own_views = {"zarr.json", *feature_names(path, open_group(path))}
    found = [p for p in path.iterdir() if p.name not in own]
    found += [p for p in (path / "views").iterdir() if p.name not in own_views]
    return sorted(str(p.relative_to(path)) for p in found if p.name[0] != "." and p.suffix != ".partial")


def drop(path: Path, damaged: list[Damage]) -> None:
    """Deletes the damaged chunks, the commit mark of each first, so that their frames are extracted again."""
    path = resolved(path)
    with locked(path), writing_store(path):
        arrays = row_arrays(path, open_group(path))
        for damage in damaged:
            for array in reversed(arrays):
                chunk_file(path, array, damage.chunk).unlink(missing_ok=True)


def compact(path: Path, wanted: pd.DataFrame) -> Compacted:
    """Rewrites the store with just the valid rows whose (video, frame) is in ``wanted``, sorted, without holes.

    The new store is made beside the old one and takes its place once it is whole. Killed at any time, one of the two
    is whole, and the next writer puts it in its place. Raises ``StoreDamaged`` where a chunk is damaged, and
    ``UserError`` where nothing would be left, or where the store has files in it that it did not make.
    """
    path = resolved(path)
    with locked(path):
        store = FeatureStore(path)
        if others := foreign_files(path):
            raise UserError(f"{others} in {path} are not part of the store and would be lost: move them away first")
        with writing_store(path):
            tidy(path, store.group)
        frames_before, rows_before, bytes_before = len(store.keys), store.group["frame"].shape[0], folder_bytes(path)
        keys = store.keys.astype({"video": "str"}).merge(wanted[KEY], on=KEY).sort_values(KEY, ignore_index=True)
        if keys.empty:
            raise UserError(f"no frame of the store {path} is in the frame table: nothing of it would be left")
        if not _is_compact(keys, rows_before, store.chunk_rows):
            with writing_store(path):
                _replace(path, store, keys)
        rows = FeatureStore(path).group["frame"].shape[0]
    return Compacted(frames_before, len(keys), rows_before, rows, bytes_before, folder_bytes(path))


def start_over(writer: StoreWriter, rows: int, say: Callable[[str], None] = print) -> None:
    """Puts an empty store in the place of ``writer``'s, which was made by something else; the writer is not open.

    The old store is renamed to ``<name>.replaced``, and stays until ``delete_replaced`` finds the new one whole. Where
    that name is taken, an earlier run set a store aside and never finished this one. Then this one is deleted, and the
    one set aside is put back if it is what is asked for now. ``say`` is told before anything is renamed or deleted.
    Killed at any time, either store is whole. Raises ``UserError`` where the disk has no room for ``rows`` rows beside
    the old store.
    """
    path, size = writer.path, folder_bytes(writer.path)
    new, aside, removed = (beside(path, what) for what in ("new", "replaced", "removed"))
    with locked(path), writing_store(path):
        if not aside.is_dir():
            _check_room(writer, rows, 0)
            say(f"{path} ({_megabytes(size)}) is renamed to {aside}, and deleted when the new store is whole")
            create(new, writer.made_by, writer.widths, writer.new_chunk_rows, writer.map_shape)
            path.rename(aside)
            new.rename(path)
            return
        back = _made_by(aside) == writer.made_by
        if not back:
            _check_room(writer, rows, size)
            create(new, writer.made_by, writer.widths, writer.new_chunk_rows, writer.map_shape)
        then = "is what is asked for, and is put back" if back else "stays until the new store is whole"
        say(f"{path} ({_megabytes(size)}), which was never finished, is deleted. {aside} {then}")
        path.rename(removed)
        (aside if back else new).rename(path)
        shutil.rmtree(removed)


def delete_replaced(path: Path, wanted: pd.DataFrame, say: Callable[[str], None] = print) -> None:
    """Deletes the store that ``start_over`` set aside, if there is one and the store at ``path`` is whole.

    The new store is whole when it has every frame of the old one that is in ``wanted``. If it lacks any, the old one
    stays. It also stays if it cannot be read, or has files in it that no store makes. ``say`` is told why.
    """
    path = resolved(path)
    aside = beside(path, "replaced")
    if not aside.is_dir():
        return
    with locked(path), writing_store(path):
        try:
            before, now = (FeatureStore(p).keys.astype({"video": "str"})[KEY] for p in (aside, path))
            others = foreign_files(aside)
        except UserError as error:
            say(f"{aside} stays, for it cannot be read: {error}")
            return
        lacking = len(before.merge(wanted[KEY], on=KEY)) - len(before.merge(wanted[KEY], on=KEY).merge(now, on=KEY))
        if lacking or others:
            why = f"it has {others}" if others else f"it has {lacking:,} frames that the new store lacks"
            say(f"{aside} stays, for {why}; delete it yourself if you do not need it")
            return
        say(f"the new store is whole: {aside} ({_megabytes(folder_bytes(aside))}) is deleted")
        aside.rename(beside(path, "removed"))
        shutil.rmtree(beside(path, "removed"))


def folder_bytes(path: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def _check_room(writer: StoreWriter, rows: int, freed: int) -> None:
    needed = 2 * rows * sum(writer.widths.values())
    free = shutil.disk_usage(writer.path).free + freed
    if needed > free:
        raise UserError(
            f"the new store takes {_megabytes(needed)}, and the disk has {_megabytes(free)} beside the old one, which "
            f"stays until the new one is whole. Make room, or delete {writer.path} yourself"
        )


def _made_by(path: Path) -> dict[str, Any] | None:
    try:
        return dict(open_group(path).attrs["made_by"])
    except UserError:
        return None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _is_compact(keys: pd.DataFrame, rows: int, chunk_rows: int) -> bool:
    return rows - len(keys) < chunk_rows and np.array_equal(keys["row"], np.arange(len(keys)))


def _replace(path: Path, store: FeatureStore, keys: pd.DataFrame) -> None:
    new, old = beside(path, "new"), beside(path, "old")
    try:
        group = create(new, store.made_by, store.widths, store.chunk_rows, store.map_shape)
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


def _chunk_damage(path: Path, group: zarr.Group, index: int) -> Damage:
    rows = int(group["frame"].chunks[0])
    damage = Damage(index, range(index * rows, (index + 1) * rows))
    content = {}
    for array in row_arrays(path, group):
        try:
            content[array.path] = read_chunk(path, array, index)
            if array.ndim >= 2 and not all_finite(content[array.path]):
                damage.files[chunk_file(path, array, index)] = NOT_FINITE
        except StoreDamaged as error:
            damage.files[error.file] = error.why
        if array.path not in ("video", "frame"):
            content.pop(array.path, None)  # a chunk at a time in memory
    if damage.files and content.keys() >= {"video", "frame"}:
        there = content["frame"] >= 0
        damage.frames = list(zip(content["video"][there].tolist(), content["frame"][there].tolist(), strict=True))
    return damage


def _check_lengths(path: Path, group: zarr.Group, files: dict[str, int]) -> None:
    """Raises ``StoreDamaged`` where a zarr.json gives its array fewer rows than were written; ``files`` has chunks."""
    rows = int(group["frame"].chunks[0])
    for array in row_arrays(path, group):
        if array.shape[0] < max(group["frame"].shape[0], files.get(array.path, 0) * rows):
            why = f"it says {array.shape[0]} rows, and there are more"
            raise StoreDamaged(path, path / array.path / "zarr.json", why)
