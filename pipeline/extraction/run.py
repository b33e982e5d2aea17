"""A plan carried out: what the store lacks is extracted, and what could not be read is reported."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline.core.files import write_json
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreMismatch
from pipeline.extraction import loop, pieces
from pipeline.extraction.commands import repair
from pipeline.extraction.plan import Plan
from pipeline.extraction.upkeep import start_over, verify

T = TypeVar("T")


@dataclass(frozen=True)
class Need:
    """What is to be computed: the frames of ``todo`` in ``places``, for the store at ``path``.

    Who computes it notes in ``outcome`` what cannot be read, and tells ``used`` of the pieces that it makes.
    """

    plan: Plan
    path: Path
    todo: pd.DataFrame
    places: np.ndarray
    outcome: loop.Outcome
    used: pieces.Used
    progress: loop.Progress


Supply = Callable[[Need], Iterator[pieces.Some]]


def computed_here(need: Need) -> Iterator[pieces.Some]:
    """The rows that are needed, computed by this process."""
    plan = need.plan
    return loop.here(plan.frames, need.todo, plan.forward, plan.workers, need.outcome, need.progress, need.places)


def fill(plan: Plan, path: Path, supply: Supply = computed_here) -> loop.Outcome:
    """Adds what the store at ``path`` lacks: what other processes have left beside it, and the rest by ``supply``.

    A store that something else made is treated as ``matching`` says.
    """
    return matching(plan, path, lambda: _add_frames(plan, path, supply))


def matching(plan: Plan, path: Path, work: Callable[[], T]) -> T:
    """What ``work`` gives, on a store that was made as the plan says.

    With ``plan.rebuild``, a store that something else made is made again, and damaged chunks are extracted again. For
    that the whole store is read, since DVC takes what its stage leaves for whole. Damage is never taken for a store
    that something else made. Without it, ``StoreMismatch`` is raised for such a store.
    """
    if plan.rebuild and (path / "zarr.json").is_file() and verify(path).damaged:
        repair(path)
    while True:
        try:
            return work()
        except StoreMismatch as mismatch:
            if not plan.rebuild:
                raise
            print(f"making the store again from nothing: {mismatch}")
            start_over(plan.writer, len(plan.wanted))


def _add_frames(plan: Plan, path: Path, supply: Supply) -> loop.Outcome:
    with plan.writer:
        todo, outcome = lacking(plan, path)
        if len(todo):
            _extract(plan, path, todo, supply, outcome)
        if pieces.folder_of(path).is_dir() and (left := pieces.clear(path, FeatureStore(path).keys)):
            print(f"{left:,} parts of frames that were not asked for stay in {pieces.folder_of(path)}")
    return outcome


def _extract(plan: Plan, path: Path, todo: pd.DataFrame, supply: Supply, outcome: loop.Outcome) -> None:
    cover, used = found_pieces(plan, path, todo), pieces.Used()
    outcome.skipped |= {todo["path"].iloc[place]: why for place, why in cover.why.items()}
    for piece, last in zip(cover.pieces, cover.last.tolist(), strict=True):
        if last >= 0:
            used.add(last, piece.folder)

    def source(progress: loop.Progress) -> Iterator[pieces.Some]:
        progress.done = len(todo) - len(cover.open)
        rest = supply(Need(plan, path, todo, cover.open, outcome, used, progress)) if len(cover.open) else iter(())
        return pieces.in_order(cover.stored(), rest)

    loop.extract(plan.frames, todo, plan.writer, plan.forward, plan.workers, outcome, source, used.committed)


def found_pieces(plan: Plan, path: Path, todo: pd.DataFrame) -> pieces.Cover:
    """What other processes have made of ``todo`` and left beside the store at ``path``.

    Raises ``UserError`` where code, library or images give other features here than they gave there. The first frames
    of each who made any are computed for that.
    """
    found = pieces.find(path, plan.writer.made_by, plan.writer.widths, plan.rebuild)
    for piece in {piece.facts["maker"]: piece for piece in reversed(found) if piece.rows}.values():
        some = piece.keys[piece.keys["why"].isna()].head(plan.forward.batch_size)
        known = some.reset_index(names="place").merge(plan.wanted, on=pieces.FRAME)
        if len(known):
            rows = piece.read(0, len(some))["original"]
            rows = rows[np.searchsorted(some.index, known["place"])]
            cosine = loop.least_cosine_to_stored(plan.frames, known, rows, plan.forward)
            if cosine is not None and not cosine >= loop.SAME_COSINE:
                raise UserError(
                    f"{piece.facts['maker']} says that it made features as this does, but the same frames give other "
                    f"features here (least cosine {cosine:.4f}): the code or a library differs. Delete "
                    f"{piece.folder.parent}, "
                    "and make all with one version"
                )
    return pieces.cover(todo, found)


def lacking(plan: Plan, path: Path) -> tuple[pd.DataFrame, loop.Outcome]:
    """The wanted frames that the store lacks, and an outcome that counts the others.

    Raises ``StoreMismatch`` where frames that the store has would get other features now.
    """
    store = FeatureStore(path)
    keys = store.keys.astype({"video": "str"})
    done = plan.wanted.merge(keys, on=["video", "frame", "size"])
    if len(done):
        _check_still_the_same(plan, done.head(plan.forward.batch_size), store)
    outcome = loop.Outcome(done_before=len(done))
    outcome.vanished = len(keys) - len(keys.merge(plan.frames.table, on=["video", "frame"]))
    return loop.missing_frames(plan.wanted, keys), outcome


def _check_still_the_same(plan: Plan, done: pd.DataFrame, store: FeatureStore) -> None:
    """Raises ``StoreMismatch`` where frames that the store has would get other features now."""
    cosine = loop.least_cosine_to_stored(plan.frames, done, store.read(done["row"].to_numpy()), plan.forward)
    if cosine is not None and not cosine >= loop.SAME_COSINE:  # a comparison with NaN is False
        raise StoreMismatch(
            f"the store {store.path} says that it was made as now, but the same frames give other features "
            f"(least cosine {cosine:.4f}): code, library or images have changed. Make it again with --rebuild"
        )


def report_outcome(outcome: loop.Outcome, num_wanted: int, report: Path) -> None:
    """Prints what an extraction did, and writes what it skipped, with the reasons, to ``report``."""
    print(
        f"{outcome.extracted:,} frames extracted, {outcome.done_before:,} were there, "
        f"{len(outcome.skipped):,} of {num_wanted:,} could not be read"
    )
    if outcome.vanished:
        print(
            f"{outcome.vanished:,} frames in the store are no longer in the frame table: no projection, training, "
            "evaluation or prediction takes them, and --compact deletes them"
        )
    for view, faint in outcome.faint.items():
        if faint:
            print(f"{faint:,} rows of '{view}' are zeros, or lose over 1 % of their length in float16 (see --scale)")
    for path, why in list(outcome.skipped.items())[:10]:
        print(f"  skipped {path}: {why}")
    if len(outcome.skipped) > 10:
        print(f"  ... all are in {report}")
    content = {"frames": num_wanted, "skipped": dict(sorted(outcome.skipped.items()))}
    try:
        write_json(report, content)
    except UserError as error:
        raise UserError(f"{error}. The store is finished; that is only its report") from None
