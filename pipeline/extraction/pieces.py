"""Features that other processes have made, on their way into the store: a folder ``<store>.parts`` beside it.

A piece is what one process makes at a time, as a rule a chunk of the store to be. It is a folder:

    keys.parquet    its frames (video, frame, size) in their order, and ``why`` one could not be read; who made it, how
    <view>.rows     the rows of the frames that could be read, as the file of a chunk of the store: see ``raw_chunk``

It is written beside its place and renamed, so it is whole or not there. Its name is a hash of its frames: a piece that
two processes make is one piece, and the second one is dropped. The one writer of the store takes the pieces in the
order of the frame table. So it does not matter who made which and when. Where a piece is a chunk of the store, its
files are linked to their place in the store, and the piece is deleted when the chunk counts. Where it is not, since a
frame before could not be read or the frame table has changed, its rows are read and written again.
"""

import hashlib
import heapq
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.files import read_table, write_table, writing
from pipeline.core.params import UserError
from pipeline.core.store import StoreWriter, differences, raw_chunk, resolved
from pipeline.core.tables import KEY

FRAME = [*KEY, "size"]
_KEYS = "keys.parquet"
_WHAT = "the keys of a part of an extraction"

Rows = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Piece:
    """``rows`` are those of the frames that could be read; ``facts``: those of its ``Bench``, and ``faint``.

    ``keys``: video, frame, size and why, one row a frame; None where nobody asks for them.
    """

    folder: Path
    rows: int
    facts: Mapping[str, Any]
    keys: pd.DataFrame | None = None

    @property
    def faint(self) -> dict[str, int]:
        return self.facts["faint"]

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.rows"

    def read(self, start: int, stop: int) -> Rows:
        """Rows of each array. Raises ``UserError`` where a file is not as it was written."""
        return {name: self._read(name, width)[start:stop] for name, width in self.facts["widths"].items()}

    def _read(self, name: str, width: int) -> np.ndarray:
        file, rows = self.file(name), self.facts["chunk_rows"]
        content = np.fromfile(file, np.uint8)
        if google_crc32c.value(content[:-4]).to_bytes(4, "little") != content[-4:].tobytes():
            raise UserError(f"{file} is damaged: delete {self.folder} and make that part again")
        return content[:-4].view("<f2").reshape(rows, width)


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows ``start`` to ``stop`` of a piece."""

    piece: Piece
    start: int
    stop: int

    def is_chunk_of(self, writer: StoreWriter) -> bool:
        """Whether they are a full chunk of the writer's store as they lie there."""
        whole = (self.start, self.stop, self.piece.rows) == (0, writer.chunk_rows, writer.chunk_rows)
        return whole and self.piece.facts["chunk_rows"] == writer.chunk_rows and writer.takes_files

    def files(self) -> dict[str, Path]:
        return {name: self.piece.file(name) for name in self.piece.facts["widths"]}

    def read(self) -> Rows:
        return self.piece.read(self.start, self.stop)


# Places in the table of what is to be extracted, rising, and the rows of these frames.
Some = tuple[Sequence[int], "Rows | Stored"]


def folder_of(store: Path) -> Path:
    """Where the pieces of a store lie: on its disk, so that they can be renamed into it."""
    path = resolved(store)
    return path.with_name(f"{path.name}.parts")


@dataclass(frozen=True)
class Bench:
    """Where pieces are made, and what is the same for all of them.

    ``maker`` says who makes them; of the parts of ``--part``, ``parts`` is their number.
    """

    folder: Path
    made_by: Mapping[str, Any]
    widths: Mapping[str, int]
    chunk_rows: int
    maker: str
    parts: int | None = None

    def write(
        self, table: pd.DataFrame, kept: Sequence[int], failed: Mapping[int, str], rows: Rows, faint: Mapping[str, int]
    ) -> str:
        """The name of the piece of the frames of ``table``: ``rows`` of those in the places ``kept``, no others."""
        keys = table[FRAME].reset_index(drop=True).astype({"video": "str"})
        why = np.full(len(keys), None, dtype=object)
        why[list(failed)] = list(failed.values())
        keys["why"] = pd.array(why, dtype="str")
        name = _name(keys)
        aside = self.folder / f".{name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
        facts = {"made_by": dict(self.made_by), "widths": dict(self.widths), "chunk_rows": self.chunk_rows}
        with writing(self.folder):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for view in self.widths if kept else ():
                with (aside / f"{view}.rows").open("wb") as file:
                    file.writelines(raw_chunk(rows[view], self.chunk_rows))
            facts |= {"faint": dict(faint), "maker": self.maker, "parts": self.parts}
            write_table(aside / _KEYS, pa.Table.from_pandas(keys, preserve_index=False), facts)
            try:
                aside.rename(self.folder / name)
            except OSError:
                if not (self.folder / name / _KEYS).is_file():
                    raise
                shutil.rmtree(aside)  # another process was first
        return name


def _name(keys: pd.DataFrame) -> str:
    digest = hashlib.blake2b("\n".join(keys["video"]).encode("utf-8", "surrogateescape"), digest_size=12)
    for column in ("frame", "size"):
        digest.update(keys[column].to_numpy(np.int64).tobytes())
    return digest.hexdigest()


def read_piece(folder: Path) -> Piece | None:
    """The piece in a folder; None where the writer of the store has taken its rows already."""
    table, facts = read_table(folder / _KEYS, _WHAT, f"Delete {folder} and make that part again")
    keys = table.to_pandas()
    piece = Piece(folder, int(keys["why"].isna().sum()), facts, keys)
    if piece.rows and not all(piece.file(name).is_file() for name in facts["widths"]):
        return None
    return piece


def find(store: Path, made_by: Mapping[str, Any], widths: Mapping[str, int], rebuild: bool) -> list[Piece]:
    """The pieces beside a store, by name.

    Raises ``UserError`` where one was made by something else than ``made_by``. With ``rebuild`` it is deleted instead.
    """
    found = []
    for path in sorted(folder_of(store).glob("[0-9a-f]*/" + _KEYS)):
        piece = read_piece(path.parent)
        other = piece and (
            differences(piece.facts["made_by"], made_by) or differences(piece.facts["widths"], dict(widths))
        )
        if other and not rebuild:
            raise UserError(
                f"{piece.facts['maker']} made features in {path.parents[1]} by something else: {other}. Delete that "
                "folder and make them again, or go on with what made them"
            )
        if piece is None or other:
            shutil.rmtree(path.parent)
        else:
            found.append(piece)
    return found


def clear(store: Path, keys: pd.DataFrame) -> int:
    """Deletes the pieces all of whose rows are in the store, which has ``keys``; how many others there are.

    Where there are none, the folder goes too, with what killed processes left in it.
    """
    left = 0
    for path in sorted(folder_of(store).glob("[0-9a-f]*/" + _KEYS)):
        piece = read_piece(path.parent)
        rows = None if piece is None else piece.keys[piece.keys["why"].isna()]
        if rows is None or len(rows.merge(keys.astype({"video": "str"})[FRAME], on=FRAME)) == len(rows):
            shutil.rmtree(path.parent, ignore_errors=True)
        else:
            left += 1
    if not left:
        shutil.rmtree(folder_of(store), ignore_errors=True)
    return left


@dataclass(frozen=True, eq=False)
class Cover:
    """Which piece has each frame that is to be extracted: ``owner`` (n,), -1 for none; ``row`` (n,) in it.

    ``row`` is -1 for a frame that could not be read, and ``why`` {place: the reason}.
    """

    pieces: Sequence[Piece]
    owner: np.ndarray
    row: np.ndarray
    why: dict[int, str]

    @property
    def open(self) -> np.ndarray:
        """Places (k,) of the frames that no piece has."""
        return np.flatnonzero(self.owner < 0)

    @property
    def last(self) -> np.ndarray:
        """The last place of each piece (pieces,); -1 for a piece that has rows of other frames too, or only those."""
        last, there = np.full(len(self.pieces), -1), np.flatnonzero(self.owner >= 0)
        np.maximum.at(last, self.owner[there], there)
        rows = np.bincount(self.owner[there][self.row[there] >= 0], minlength=len(self.pieces))
        return np.where(rows == [piece.rows for piece in self.pieces], last, -1)

    def stored(self) -> Iterator[tuple[np.ndarray, Stored]]:
        """Places and rows of each run of frames that lie one after the other in a piece, in the order of the places.

        No frame that no piece has stands between the places of a run.
        """
        there = np.flatnonzero((self.owner < 0) | (self.row >= 0))
        owner, row = self.owner[there], self.row[there]
        new = np.ones(len(there), dtype=bool)
        new[1:] = (owner[1:] != owner[:-1]) | ((owner[1:] >= 0) & (row[1:] != row[:-1] + 1))
        starts = np.flatnonzero(new)
        for start, stop in zip(starts, np.append(starts[1:], len(there)), strict=True):
            if owner[start] >= 0:
                piece = self.pieces[owner[start]]
                yield there[start:stop], Stored(piece, int(row[start]), int(row[stop - 1]) + 1)


def cover(todo: pd.DataFrame, pieces: Sequence[Piece]) -> Cover:
    """Which of the ``pieces`` has which frame of ``todo``: the same (video, frame, size)."""
    owner, row = np.full(len(todo), -1), np.full(len(todo), -1)
    if not pieces:
        return Cover(pieces, owner, row, {})
    keys = pd.concat([piece.keys.assign(owner=number) for number, piece in enumerate(pieces)], ignore_index=True)
    read = keys["why"].isna()
    keys["row"] = np.where(read, read.groupby(keys["owner"]).cumsum() - 1, -1)
    keys = keys.drop_duplicates(FRAME)
    there = todo[FRAME].astype({"video": "str"}).merge(keys, on=FRAME, how="left")
    known = there["owner"].notna().to_numpy()
    owner[known], row[known] = there["owner"][known].astype(int), there["row"][known].astype(int)
    failed = there["why"].dropna()
    return Cover(pieces, owner, row, dict(zip(failed.index.tolist(), failed.tolist(), strict=True)))


class Used:
    """Pieces that are deleted once all their rows are in the store."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, str]] = []

    def add(self, last: int, folder: Path) -> None:
        """``last`` is the last place of its frames."""
        heapq.heappush(self._pieces, (last, str(folder)))

    def committed(self, last: int) -> None:
        """The rows of all places up to ``last`` are in the store."""
        while self._pieces and self._pieces[0][0] <= last:
            shutil.rmtree(heapq.heappop(self._pieces)[1], ignore_errors=True)


def in_order(stored: Iterator[tuple[np.ndarray, Stored]], others: Iterator[Some]) -> Iterator[Some]:
    """Both streams as one, by their places; a run of ``others`` is cut where one of ``stored`` begins."""
    rest: Some | None = None
    for places, run in stored:
        while (rest := rest or next(others, None)) is not None and rest[0][0] < places[0]:
            count = int(np.searchsorted(np.asarray(rest[0]), places[0]))
            if count == len(rest[0]):
                yield rest
                rest = None
            else:
                yield rest[0][:count], _part(rest[1], 0, count)
                rest = rest[0][count:], _part(rest[1], count, len(rest[0]))
        yield places, run
    if rest is not None:
        yield rest
    yield from others


def _part(rows: "Rows | Stored", start: int, stop: int) -> "Rows | Stored":
    if isinstance(rows, Stored):
        return Stored(rows.piece, rows.start + start, rows.start + stop)
    return {name: values[start:stop] for name, values in rows.items()}


def rows_at(table: pd.DataFrame, places: Sequence[int]) -> pd.DataFrame:
    """The rows in rising ``places``; without a copy where they follow one another, as those of a chunk do."""
    first, last = int(places[0]), int(places[-1])
    return table.iloc[first : last + 1] if last - first == len(places) - 1 else table.iloc[places]


def shares(places: np.ndarray, chunk_rows: int) -> list[tuple[int, np.ndarray]]:
    """The number of each chunk of the table to be, and those of the ``places`` (k,) that lie in it; none empty."""
    chunk = places // chunk_rows
    starts = np.flatnonzero(np.diff(chunk, prepend=-1))
    return [(int(chunk[start]), part) for start, part in zip(starts, np.split(places, starts[1:]), strict=True)]
