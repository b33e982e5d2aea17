"""What extract.py does to a store besides extracting: --verify, --repair, --compact, --import and --export."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.params import UserError
from pipeline.core.rates import FACES
from pipeline.core.store import FeatureStore, StoreDamaged, spans
from pipeline.core.tables import KEY, Frames, read_frames
from pipeline.extraction import transfer, upkeep
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.series import OntoFrames
from pipeline.extraction.upkeep import Damage


def verify(path: Path) -> int:
    """Names what is damaged in the store at ``path``; exit status 1 where anything is."""
    try:
        found = upkeep.verify(path)
    except StoreDamaged as error:
        print(error)
        return 1
    _print_damage(found.damaged)
    if found.unfinished:
        print(f"unfinished: {found.unfinished} chunks at the end, where a run was cut off or is going on; run again")
    for group in found.consolidated:
        print(
            f"{group / 'zarr.json'} holds consolidated metadata, which other readers trust and which does not grow "
            "with the store; the next extraction removes it"
        )
    if found.foreign_files:
        print(f"not part of the store, and not checked: {', '.join(found.foreign_files)}")
    print(f"{path}: {found.files:,} chunk files read, {len(found.damaged):,} chunks damaged")
    return 1 if found.damaged else 0


def repair(path: Path) -> None:
    """Drops the damaged chunks of the store at ``path``, whose frames the next extraction or import then adds."""
    damaged = upkeep.verify(path).damaged
    _print_damage(damaged)
    upkeep.drop(path, damaged)
    print(f"{len(damaged):,} damaged chunks dropped from {path}")


def compact(path: Path, frames: Frames) -> None:
    """Rewrites the store at ``path`` with the frames of the frame table alone, without holes."""
    done = upkeep.compact(path, frames.table)
    before = f"{done.frames_before:,} frames in {done.bytes_before / 1e6:,.1f} MB before"
    print(f"{path}: {before}, {done.frames:,} in {done.bytes / 1e6:,.1f} MB now")


def import_features(config: ExtractConfig, file: Path) -> None:
    """Adds the features of ``file`` to the store."""
    if config.repair:
        repair(config.store)
    done = transfer.import_features(
        file, config.store, config.chunk_rows, config.rebuild, config.scale, config.made_by, lambda: _frames_of(config)
    )
    print(f"{done.written:,} rows of {file} imported into {config.store}, {done.there:,} were there")
    if done.left_out:
        print(f"left out of {file}: {done.left_out}")
    for note in done.notes:
        print(note)


def _frames_of(config: ExtractConfig) -> OntoFrames:
    """The frames of the frame table, and how a series is put onto them."""
    if config.data.is_dir():
        raise UserError(
            f"a series is put onto the frames of a frame table, and {config.data} is a folder: index it first"
        )
    frames = read_frames(config.data)
    places = (frames.root / FACES, frames.root.parent / FACES)  # the faces lie in a folder of its own beside it
    fps = config.fps if config.fps is not None else next((path for path in places if path.is_file()), None)
    return OntoFrames(frames.table[KEY], config.data, config.resample, fps, config.first_frame)


def export_features(path: Path, file: Path) -> None:
    """Writes the features of the store at ``path`` to a new ``file``."""
    print(f"{transfer.export_features(FeatureStore(path), file):,} rows of {path} written to {file}")


def _print_damage(damaged: Sequence[Damage]) -> None:
    for damage in damaged:
        print(f"chunk {damage.chunk}, rows {damage.rows.start:,} to {damage.rows.stop - 1:,}:")
        for file, why in damage.files.items():
            print(f"  {file}: {why}")
        if damage.frames is None:
            print("  frames: not known, since the keys cannot be read; --repair finds them in the frame table")
        else:
            print(f"  frames: {spans(sorted(damage.frames))}")
