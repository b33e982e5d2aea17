"""Reads images that a table lists: a .csv or .tsv file with a row an image.

    path,label,group,split
    a/0001.jpg,Happiness,anna,train

``path`` is relative to ``root``; all other columns may be missing: ``label``; ``group``, who is in the image, else the
video; ``split``, else one is drawn; ``video`` and ``frame``, else every image is a video of its own; ``valence`` and
``arousal`` in [-1, 1]. A table that calls them otherwise is read with ``columns: {path: image, label: emotion}``.
"""

import csv
import math
import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets.found import DatasetConfig, Found, named, nothing_found, ready, title
from pipeline.datasets.splits import refuse_overlap
from pipeline.params import UserError, one_of
from pipeline.tables import Frames, Labels

KNOWN = ("path", "label", "group", "split", "video", "frame", "valence", "arousal")
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
WANTED = "a table of images: dataset.annotations a .csv with a column 'path', dataset.root what the paths start from"
_LAST_NUMBER = r"(\d{1,18})\D*$"


def read(config: DatasetConfig) -> Found:
    """Rows that cannot be understood, and rows of files that are not there, are named with their line.

    Raises ``UserError`` for a table without ``path``, without any image, or with a group in two splits.
    """
    ready(config, WANTED, uses=["annotations", "columns"])
    sheet, malformed = read_sheet(config, KNOWN, ["path"])
    if ("frame" in sheet and "video" not in sheet) or ("valence" in sheet) != ("arousal" in sheet):
        raise UserError("data set 'csv': a column 'frame' needs 'video', and 'valence' and 'arousal' need each other")
    sheet = _understood(sheet, config.root, malformed)
    sizes, missing = sizes_of(config.root, sheet["path"])
    if not sizes:
        first = f", such as {missing[0]}" if missing else ""
        raise nothing_found(config, f"none of the {len(sheet)} images of {config.annotations} is there{first}", WANTED)
    sheet = _with_keys(sheet)
    twice = sheet.duplicated(["video", "frame"])
    malformed += [
        f"line {n}: '{p}' is there twice" for n, p in sheet.loc[twice, ["line", "path"]].itertuples(index=False)
    ]
    sheet = sheet[~twice]
    there = sheet["path"].isin(sizes)
    frames = sheet.loc[there, ["video", "frame", "path"]].assign(size=sheet.loc[there, "path"].map(sizes))
    labels, classes = _labels(sheet)
    refuse_overlap(labels, title(config))
    return Found(
        Frames(frames, config.root, title(config), config.crop_source or "as given"),
        Labels(labels, classes, title(config)),
        {"malformed_lines": named(malformed, most=50), "images_missing": named(missing)},
        skipped=len(malformed) + len(missing),
    )


def read_sheet(config: DatasetConfig, known: tuple[str, ...], needed: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table's known columns under our names, as text, '' where there is none, with ``line``; lines cut short.

    Comma, semicolon or tab is told from the header. Raises ``UserError`` for a file that is no such table.
    """
    path, what = config.annotations, f"data set '{config.name}'"
    if path is None:
        raise UserError(f"{what}: set dataset.annotations in params.yaml, or --annotations: the table to read")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{what}: cannot read the table {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{what}: the table {path} is not UTF-8 text") from None
    first = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=first.count))
    names = [name.strip() for name in next(reader, [])]
    theirs = {name: name for name in known if name in names}
    for ours, name in config.columns.items():
        one_of(f"{what}: columns", ours, known)
        theirs[ours] = one_of(f"{what}: {path}: column", name, names)
    if lacking := [name for name in needed if name not in theirs]:
        raise UserError(
            f"{what}: {path} has no column {lacking}, but {names}: say which is meant with dataset.columns, "
            f"such as {{{lacking[0]}: {names[0] if names else 'image'}}}"
        )
    places = [names.index(name) for name in theirs.values()]
    rows, malformed = [], []
    for row in reader:
        if len(row) == len(names):
            rows.append((reader.line_num, *(row[i].strip() for i in places)))
        elif row:
            malformed.append(f"line {reader.line_num}: {len(row)} fields instead of {len(names)}")
    return pd.DataFrame(rows, columns=["line", *theirs]), malformed


def below_root(path: str, root: Path) -> str | None:
    """A table's path relative to ``root``, with forward slashes; None for one that leads out of it, or is empty."""
    text = path.replace("\\", "/")
    if os.path.isabs(text):
        text = os.path.relpath(text, os.path.abspath(root)).replace(os.sep, "/")
    clean = os.path.normpath(text).replace(os.sep, "/") if text else "."
    return None if clean in (".", "..") or clean.startswith("../") else clean


def split_of(word: str) -> str | None:
    """The split that a table's word stands for; None for a word that is none."""
    return SPLIT_WORDS.get(word.lower())


def sizes_of(root: Path, paths: pd.Series) -> tuple[dict[str, int], list[str]]:
    """Path -> size in bytes of the files that are there, and the others with the reason."""
    sizes: dict[str, int] = {}
    missing = []
    for path in paths.drop_duplicates():
        try:
            sizes[path] = os.stat(root / path).st_size
        except OSError as error:
            missing.append(f"{path}: {error.strerror}")
    return sizes, missing


def _understood(sheet: pd.DataFrame, root: Path, malformed: list[str]) -> pd.DataFrame:
    """The rows without a fault, their values in our types; of the others one line each is added to ``malformed``."""
    problem = pd.Series("", index=sheet.index, dtype=object)

    def fault(rows: pd.Series, words: str) -> None:
        problem[rows & (problem == "")] = words

    sheet = sheet.assign(path=sheet["path"].map(lambda path: below_root(path, root)))
    fault(sheet["path"].isna(), "the path is empty, or leads out of root")
    if "split" in sheet:
        split = sheet["split"].map(split_of)
        fault(split.isna() & (sheet["split"] != ""), "split is not train, val or test")
        sheet["split"] = split
    if "video" in sheet:
        fault(sheet["video"] == "", "video is empty")
    if "frame" in sheet:
        fault(~sheet["frame"].str.fullmatch(r"[0-9]{1,18}"), "frame is not a number from 0")
    for name in ("valence", "arousal"):
        if name in sheet:
            value = sheet[name].map(lambda text: _number(text))
            fault((sheet[name] != "") & ~(value.abs() <= 1), f"{name} is not in [-1, 1]")
            sheet[name] = value
    good = problem == ""
    malformed += [f"line {n}: {words}" for n, words in zip(sheet.loc[~good, "line"], problem[~good], strict=True)]
    return sheet[good].reset_index(drop=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _with_keys(sheet: pd.DataFrame) -> pd.DataFrame:
    """The sheet with ``video`` and ``frame``: an image alone is frame 0 of a video named like it.

    Of a given video without ``frame``, frames are the last number in each file's name, if all differ, else the order.
    """
    if "frame" in sheet:
        return sheet.assign(frame=sheet["frame"].astype("int64"))
    if "video" not in sheet:
        stem = sheet["path"].map(lambda path: str(PurePosixPath(path).with_suffix("")))
        images = sheet.assign(stem=stem).drop_duplicates("path")["stem"]
        shared = stem.isin(images[images.duplicated()])
        return sheet.assign(video=stem.where(~shared, sheet["path"]), frame=0)
    name = sheet["path"].map(lambda path: PurePosixPath(path).stem)
    number = pd.to_numeric(name.str.extract(_LAST_NUMBER, flags=re.ASCII)[0])
    distinct = sheet["path"].groupby(sheet["video"]).nunique() == number.groupby(sheet["video"]).nunique()
    order = sheet.groupby("video").cumcount()
    return sheet.assign(frame=number.where(sheet["video"].map(distinct), order).astype("int64"))


def _labels(sheet: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with a label, as a label table, and its classes."""
    group = sheet["group"].where(sheet["group"] != "", sheet["video"]) if "group" in sheet else sheet["video"]
    table = sheet[["video", "frame"]].assign(group=group)
    tracks = []
    if "label" in sheet:
        table["expression"] = sheet["label"].where(sheet["label"] != "")
        tracks.append("expression")
    if "valence" in sheet:
        both = sheet["valence"].notna() & sheet["arousal"].notna()
        table = table.assign(**{name: sheet[name].where(both).astype("float32") for name in ("valence", "arousal")})
        tracks.append("va")
    if "split" in sheet:
        table = table.assign(**{f"{track}_split": sheet["split"] for track in tracks})
    labelled = table.reindex(columns=["expression", "valence"]).notna().any(axis=1)
    classes = sorted(table["expression"].dropna().unique()) if "expression" in table else []
    return table[labelled].reset_index(drop=True), classes
