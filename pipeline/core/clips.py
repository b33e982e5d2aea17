"""The clip table: labels of whole clips, beside the frame table and the label table.

``clips.parquet`` has one row a clip, sorted by ``clip``:

    clip              str           the clip's name, unique in the data set
    video             str           the video that it is cut from, as in the frame table
    start, end        Int64 or null frame numbers, ``end`` exclusive, so that equal ones are no frame; null: from the
                                    video's first frame, to its last
    group             str           who must never stand on both sides of a split: the person, the film or the video
    expression        str or null   one of ``classes``
    valence, arousal  float32       in [-1, 1], NaN where there is none
    au1, au2, ...     Int8 or null  0 or 1
    split             str or null   'train', 'val', 'test'; of all labels of the clip. In a table with folds also 'fold'
    fold              Int16 or null where there are folds: the one that validates on the clip, and all others train on
    dataset           str           whose row it is, where several data sets were read at once

Every further column is a continuous output, float32 and NaN where there is none: the intensities of emotional mimicry,
for instance. Every column but ``clip``, ``video``, ``start``, ``end`` and ``group`` may be left out. A clip may lack
every label.

A data set without labels of clips has a table of no rows.

The frames of a clip are the rows (video, frame) of the frame table or the store with ``start <= frame < end``. There
may be none, where no face was found. Clips may overlap. The label table has the label of a clip on each frame that is
in no other clip, or whose clips agree.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.files import read_table, write_table
from pipeline.core.params import UserError
from pipeline.core.tables import SPLITS, unit_columns

KEY = ["clip", "video", "start", "end"]
_KNOWN = {*KEY, "group", "expression", "valence", "arousal", "split", "fold", "dataset"}
_TYPES = {"clip": "str", "video": "str", "group": "str", "start": "Int64", "end": "Int64"}
_INDEX = "python -m pipeline.datasets.index --root FOLDER"


@dataclass(frozen=True)
class Clips:
    """The clip table and the names of its expression classes, in the data set's order."""

    table: pd.DataFrame
    classes: list[str]
    dataset: str

    @property
    def folds(self) -> list[int]:
        """The numbers of the folds, rising; none where there is one split."""
        return sorted(self.table["fold"].dropna().unique().astype(int).tolist()) if "fold" in self.table else []

    @property
    def outputs(self) -> list[str]:
        """The columns of further continuous outputs, in the table's order."""
        return output_columns(self.table)


def output_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a clip table that are continuous outputs beside valence and arousal, in the table's order."""
    units = unit_columns(table)
    return [column for column in table if column not in _KNOWN and column not in units]


def no_clips(dataset: str) -> Clips:
    """The table of a data set without labels of clips: it has no rows."""
    table = pd.DataFrame({column: pd.Series(dtype=_TYPES[column]) for column in [*KEY, "group"]})
    return Clips(table, [], dataset)


def write_clips(path: Path, clips: Clips) -> None:
    """Writes the table sorted by clip.

    Raises ``UserError`` for a clip that is there twice, one that ends before it starts, an unknown class, a wrong
    split, a fold without the split 'fold' or the other way round, and a label that is no number where it must be one.
    """
    what = f"clip table of data set '{clips.dataset}'"
    table = clips.table
    if missing := [column for column in [*KEY, "group"] if column not in table]:
        raise UserError(f"{what} lacks the columns {missing}; it has {list(table.columns)}")
    table = table.astype(_TYPES).sort_values("clip", ignore_index=True)
    _refuse(table, table.duplicated("clip"), f"{what} holds clips twice")
    _refuse(table, table[["clip", "video", "group"]].isna().any(axis=1), f"{what} holds clips without video or group")
    backwards = (table["start"] < 0) | (table["end"] < table["start"].fillna(0))
    _refuse(table, backwards, f"{what} holds clips that start before frame 0, or end before they start")
    if "expression" in table and (unknown := set(table["expression"].dropna()) - set(clips.classes)):
        raise UserError(f"{what}: expressions {sorted(unknown)} are not among the classes {clips.classes}")
    _check_splits(table, what)
    continuous = [*(c for c in ("valence", "arousal") if c in table), *output_columns(table)]
    try:
        table = table.astype(dict.fromkeys(continuous, "float32") | dict.fromkeys(unit_columns(table), "Int8"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: one of {[*continuous, *unit_columns(table)]} holds no numbers: {error}") from None
    facts = {"classes": clips.classes, "dataset": clips.dataset}
    write_table(path, pa.Table.from_pandas(table, preserve_index=False), facts)


def read_clips(path: Path) -> Clips:
    """The clip table of a file. Raises ``UserError`` where it is missing, damaged or not a clip table."""
    if not path.is_file():
        raise UserError(f"there is no clip table at {path}: make one with '{_INDEX}'")
    arrow, facts = read_table(path, "a clip table", f"Make it again with '{_INDEX}'")
    if missing := [column for column in [*KEY, "group"] if column not in arrow.column_names]:
        raise UserError(f"{path} is not a clip table: it lacks the columns {missing}")
    return Clips(arrow.to_pandas(), facts["classes"], facts["dataset"])


def clips_of_fold(clips: Clips, fold: int | None) -> Clips:
    """The clip table with the split of one fold: its own clips are 'val', those of the other folds 'train'.

    A table without folds is given as it is, with ``fold`` None. Raises ``UserError`` for an unknown fold, and for None
    where there are folds.
    """
    if fold is None and not clips.folds:
        return clips
    if fold not in clips.folds:
        have = f"has the folds {clips.folds}" if clips.folds else "has no folds"
        wanted = "no fold" if fold is None else f"fold {fold}"
        raise UserError(f"the clip table of data set '{clips.dataset}' {have}, and {wanted} is asked for")
    table = clips.table.drop(columns="fold")
    side = pd.Series("train", index=table.index, dtype="str").mask(clips.table["fold"] == fold, "val")
    return Clips(table.assign(split=table["split"].mask(table["split"] == "fold", side)), clips.classes, clips.dataset)


def spans(video: np.ndarray, frame: np.ndarray, code: np.ndarray, clips: pd.DataFrame) -> np.ndarray:
    """The rows (C, 2) that are each clip's frames: the first, and the one after the last; equal where there are none.

    ``video`` (n,), codes from 0, and ``frame`` (n,) are sorted. ``code`` (C,) is the video of each clip, -1 for
    one that is not there.
    """
    if not len(frame):
        return np.zeros((len(clips), 2), dtype=np.int64)
    numbers = np.unique(frame)  # numbers are counted, since a product with a large one would not fit
    steps = len(numbers) + 1
    keys = video * steps + np.searchsorted(numbers, frame)
    bounds = [
        np.where(clips[column].isna(), unset, np.searchsorted(numbers, clips[column].fillna(0).to_numpy(np.int64)))
        for column, unset in (("start", 0), ("end", len(numbers)))
    ]
    rows = np.stack([np.searchsorted(keys, code * steps + bound) for bound in bounds], axis=1)
    rows[code < 0] = 0
    rows[:, 1] = rows.max(axis=1)
    return rows


def _check_splits(table: pd.DataFrame, what: str) -> None:
    known = [*SPLITS, *(["fold"] if "fold" in table else [])]
    split = table["split"] if "split" in table else pd.Series(None, index=table.index, dtype="str")
    if unknown := set(split.dropna()) - set(known):
        raise UserError(f"{what}: split holds {sorted(unknown)}, and may only hold {known}")
    if "fold" in table:
        _refuse(
            table,
            (split == "fold") != table["fold"].notna(),
            f"{what} holds clips with the split 'fold' and no fold, or the other way round",
        )


def _refuse(table: pd.DataFrame, rows: pd.Series, words: str) -> None:
    if (rows := rows.fillna(False).astype(bool)).any():
        raise UserError(f"{words}: {int(rows.sum())}, such as {table.loc[rows, 'clip'].head(3).tolist()}")
