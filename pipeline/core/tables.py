"""Door 1: the frame table and the label table, the only things a data set has to produce. (Of clips: ``clips``.)

``frames.parquet`` has one row a frame, sorted by (video, frame):

    video  str     the video's name, unique in the data set
    frame  int64   the frame's number in its video, as in the file name
    path   str     the image file, relative to ``root``, with forward slashes
    size   int64   the file's size in bytes: a frame whose size changed is extracted again

``labels.parquet`` has one row a labelled frame, sorted by (video, frame), which are the key of both tables:

    video, frame
    group             str           who must never stand on both sides of a split: the person or the base video
    expression        str or null   one of ``classes``
    valence, arousal  float32       in [-1, 1], NaN where there is none
    au1, au2, ...     Int8 or null  0 or 1
    expression_split, va_split, au_split   'train', 'val', 'test' or null, each track its own
    clip_split        str or null   the same, of a data set of clips without labels that a frame can have

    fold              Int16 or null where the labels are cut into folds: which of them holds the row's group. The splits
                                    are then 'fold' in the place of 'train' and 'val' (``of_fold`` makes these of it)
    dataset           str           whose row it is, where several data sets were read at once
    identity_set      str or null   of a data set of people, whose expression is who is shown: 'query' or 'distractor'
                                    of identification, null for everyone else (``datasets.identities``)
    pair, side, same  str, 'left' or 'right', Int8   in a data set of pairs: the pair, the side of it that the frame is,
                                    and whether its two sides show the same (1) or not (0), alike in both its rows

Every column but the key and ``group`` may be left out by a data set that has no such labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.files import read_table, write_table
from pipeline.core.params import UserError

KEY = ["video", "frame"]
DATA = Path("data")
STORE = DATA / "features.zarr"
WEIGHTS = Path("weights")  # the folder of the backbones' weights, a file each: ``weights_file``
SPLITS = ("train", "val", "test")
IDENTITY_SET, IDENTITY_SETS = "identity_set", ("query", "distractor")
ABAW_CLASSES = ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"]
ABAW_AUS = ["au1", "au2", "au4", "au6", "au7", "au10", "au12", "au15", "au23", "au24", "au25", "au26"]
_INDEX = "python -m pipeline.datasets.index --root FOLDER"


@dataclass(frozen=True)
class Frames:
    """The frame table: ``table`` has the columns video, frame, path, size; ``crop_source`` says how faces were cut."""

    table: pd.DataFrame
    root: Path
    dataset: str
    crop_source: str


@dataclass(frozen=True)
class Labels:
    """The label table and the names of its expression classes, in the data set's order."""

    table: pd.DataFrame
    classes: list[str]
    dataset: str

    @property
    def folds(self) -> list[int]:
        """The numbers of the folds, rising; none where there is one split."""
        return sorted(self.table["fold"].dropna().unique().astype(int).tolist()) if "fold" in self.table else []


def beside_store(store: Path, name: str) -> Path:
    """Where a store's own file lies: 'emb.labels.parquet' by 'emb.zarr', and 'data/labels.parquet' by ``STORE``."""
    plain = not store.name or store.absolute() == STORE.absolute()
    return store.parent / name if plain else store.with_suffix(f".{name}")


def weights_file(made_by: Mapping[str, Any]) -> Path:
    """Where the weights that made a store's features lie, relative to the folder in which the commands run."""
    trained = made_by["weights_sha256"] if "trained_from" in made_by else None
    return WEIGHTS / weights_name(made_by["backbone"], trained)


def weights_name(backbone: str, trained: str | None = None) -> str:
    """The name of a file of weights. Those of a backbone that was ``trained`` here have their SHA-256 in it.

    So they lie beside the ones that it was trained from, and beside those of any other training.
    """
    return f"{backbone}.safetensors" if trained is None else f"{backbone}.trained-{trained[:12]}.safetensors"


def write_frames(path: Path, frames: Frames) -> None:
    """Writes the table sorted by its key; raises ``UserError`` for a table that is empty, or holds a key twice."""
    table = _checked(frames.table, ["path", "size"], "frame table", frames.dataset)
    if table.empty:
        raise UserError(f"no frame of data set '{frames.dataset}' was found under {frames.root}")
    facts = {"root": frames.root.as_posix(), "dataset": frames.dataset, "crop_source": frames.crop_source}
    write_table(path, pa.Table.from_pandas(table, preserve_index=False), facts)


def read_frames(path: Path) -> Frames:
    """The frame table of a file. Raises ``UserError`` where it is missing, damaged or not a frame table."""
    table, facts = _read(path, ["path", "size"], "frame table")
    return Frames(table, Path(facts["root"]), facts["dataset"], facts["crop_source"])


def write_labels(path: Path, labels: Labels) -> None:
    """Writes the table sorted by its key; raises ``UserError`` for an unknown class, a wrong split or a key twice."""
    table = _checked(labels.table, ["group"], "label table", labels.dataset)
    if "expression" in table:
        unknown = set(table["expression"].dropna()) - set(labels.classes)
        if unknown:
            raise UserError(f"label table: expressions {sorted(unknown)} are not among the classes {labels.classes}")
    for column in table.columns:
        known = [*SPLITS, *(["fold"] if "fold" in table else [])]
        if column.endswith("_split") and (unknown := set(table[column].dropna()) - set(known)):
            raise UserError(f"label table: {column} holds {sorted(unknown)}, and may only hold {known}")
    facts = {"classes": labels.classes, "dataset": labels.dataset}
    write_table(path, pa.Table.from_pandas(table, preserve_index=False), facts)


def read_labels(path: Path) -> Labels:
    """The label table of a file. Raises ``UserError`` where it is missing, damaged or not a label table."""
    table, facts = _read(path, ["group"], "label table")
    return Labels(table, facts["classes"], facts["dataset"])


def of_fold(labels: Labels, fold: int | None) -> Labels:
    """The label table with the split of one fold: its own rows are 'val', those of the other folds 'train'.

    Labels without folds are given as they are, with ``fold`` None. Raises ``UserError`` for an unknown fold, and for
    None where there are folds.
    """
    if fold is None and not labels.folds:
        return labels
    if fold not in labels.folds:
        have = f"has the folds {labels.folds}" if labels.folds else "has no folds"
        wanted = "no fold" if fold is None else f"fold {fold}"
        raise UserError(f"the label table of data set '{labels.dataset}' {have}, and {wanted} is asked for")
    table = labels.table.drop(columns="fold")
    side = pd.Series("train", index=table.index, dtype="str").mask(labels.table["fold"] == fold, "val")
    for column in [c for c in table if c.endswith("_split")]:
        table[column] = table[column].mask(table[column] == "fold", side)
    return Labels(table, labels.classes, labels.dataset)


def is_training(labels: Labels) -> np.ndarray:
    """Which rows (n,) of a table without folds are training data.

    These are 'train' in at least one track, and of a group that no track holds out.
    """
    table = labels.table
    splits = [pd.Categorical(table[c], categories=SPLITS).codes for c in table if c.endswith("_split")]
    group, groups = pd.factorize(table["group"])
    held_out = np.zeros(len(groups) + 1, dtype=bool)
    train = np.zeros(len(table), dtype=bool)
    for split in splits:
        held_out[group[split > 0]] = True  # val and test
        train |= split == 0
    return train & ~held_out[group]


def unit_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a label table that are action units: au1, au2, ..."""
    return [column for column in table if column.startswith("au") and column[2:].isdecimal()]


def _checked(table: pd.DataFrame, columns: list[str], what: str, dataset: str) -> pd.DataFrame:
    missing = [c for c in KEY + columns if c not in table]
    if missing:
        raise UserError(f"{what} of data set '{dataset}' lacks the columns {missing}; it has {list(table.columns)}")
    table = table.astype({"video": "str", "frame": "int64"}).sort_values(KEY, ignore_index=True)
    twice = table.duplicated(KEY)
    if twice.any():
        some = [f"{v}/{f}" for v, f in table.loc[twice, KEY].head(3).itertuples(index=False)]
        raise UserError(f"{what} of data set '{dataset}' holds {int(twice.sum())} keys twice, such as {some}")
    return table


def _read(path: Path, columns: list[str], what: str) -> tuple[pd.DataFrame, dict]:
    if not path.is_file():
        raise UserError(f"there is no {what} at {path}: make one with '{_INDEX}'")
    arrow, facts = read_table(path, f"a {what}", f"Make it again with '{_INDEX}'")
    if missing := [c for c in KEY + columns if c not in arrow.column_names]:
        raise UserError(f"{path} is not a {what}: it lacks the columns {missing}")
    return arrow.to_pandas(), facts
