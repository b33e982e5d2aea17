"""``--part 3/16`` and ``--join`` of extract.py: one extraction in parts that know nothing of each other.

The frames that the store lacks are cut into its chunks to be, and chunk i is done by part i modulo the number of parts.
All parts see the same store, which none of them changes; ``--join`` then puts what they made into it.
"""

import socket
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreMismatch, differences
from pipeline.extraction import loop, pieces
from pipeline.extraction.config import numbers_of
from pipeline.extraction.plan import Plan
from pipeline.extraction.run import found_pieces


def make_part(plan: Plan, path: Path, part: str) -> loop.Outcome:
    """Computes the chunks of one part, those that are not there yet, and leaves them beside the store at ``path``."""
    number, parts = numbers_of(part)
    todo, chunk_rows = _lacking(plan, path)
    cover = found_pieces(plan, path, todo)
    tables, there = [], 0
    for chunk, places in pieces.shares(np.arange(len(todo)), chunk_rows):
        if chunk % parts == number - 1:
            rest = places[cover.owner[places] < 0]
            there += len(places) - len(rest)
            tables += [todo.iloc[rest]] if len(rest) else []
    outcome, progress = loop.Outcome(done_before=there), loop.Progress(sum(map(len, tables)))
    writer = plan.writer
    maker = f"part {part} on {socket.gethostname()}"
    bench = pieces.Bench(pieces.folder_of(path), writer.made_by, writer.widths, chunk_rows, maker, parts)
    with loop.Behind(bench.write) as behind:
        for share in loop.by_share(plan.frames.root, tables, writer.widths, plan.forward, plan.workers, progress):
            checked = check(share, plan.forward, first=outcome.extracted == 0)
            outcome.extracted += len(share.kept)
            outcome.skipped |= checked.skipped
            with progress.clock("write"):
                behind(share.table, share.kept, share.failed, share.rows, checked.faint)
        behind.wait()
    progress.end()
    return outcome


def print_outcome(part: str, outcome: loop.Outcome) -> None:
    """Says what ``make_part`` did."""
    print(
        f"part {part}: {outcome.extracted:,} frames extracted, {outcome.done_before:,} were there, "
        f"{len(outcome.skipped):,} could not be read; --join puts all parts into the store"
    )


def check(share: loop.Share, forward: loop.Forward, first: bool) -> loop.Outcome:
    """What is to be said of the rows of a share; raises ``UserError`` for rows that no store takes."""
    found = loop.Outcome(done_before=0)
    if share.kept:
        loop.check_rows(share.rows, share.table.iloc[share.kept], forward, found, first)
    found.skipped = {share.table["path"].iloc[place]: why for place, why in share.failed.items()}
    return found


def check_parts(plan: Plan, path: Path) -> None:
    """Raises ``UserError`` that names the parts that are missing, or not finished."""
    todo, chunk_rows = _lacking(plan, path)
    cover = found_pieces(plan, path, todo)
    if not len(cover.open):
        return
    numbers = sorted({piece.facts["parts"] for piece in cover.pieces if piece.facts["parts"]})
    folder = pieces.folder_of(path)
    if not numbers:
        raise UserError(f"no part of this extraction lies in {folder}: make them first, by --part 1/16 and so on")
    parts = numbers[0]
    wanted = [chunk % parts + 1 for chunk, _ in pieces.shares(np.arange(len(todo)), chunk_rows)]
    missing = [chunk % parts + 1 for chunk, _ in pieces.shares(cover.open, chunk_rows)]
    said = []
    for number in sorted({*missing}):
        lacks, of = missing.count(number), wanted.count(number)
        words = "is missing" if lacks == of else f"is not finished, {lacks:,} of its {of:,} chunks are missing"
        said.append(f"part {number}/{parts} {words}")
    more = f", and {len(said) - 10:,} more" if len(said) > 10 else ""
    raise UserError(f"nothing was joined: {'; '.join(said[:10])}{more}. Run {'them' if said[1:] else 'it'} again")


def _lacking(plan: Plan, path: Path) -> tuple[pd.DataFrame, int]:
    """The frames that the store lacks, and the rows of its chunks. Nothing is changed, and no lock is held."""
    if not path.exists():
        return plan.wanted, plan.writer.new_chunk_rows
    store = FeatureStore(path)
    other = differences(store.made_by, plan.writer.made_by) or differences(store.widths, plan.writer.widths)
    if not other:
        return loop.missing_frames(plan.wanted, store.keys), store.chunk_rows
    if not plan.rebuild:
        raise StoreMismatch(
            f"the store {path} was made by something else: {other}. Name another store (-s), or make it again from "
            "nothing: give --rebuild to each part and to --join"
        )
    return plan.wanted, plan.writer.new_chunk_rows
