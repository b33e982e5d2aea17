"""Reads images that a table lists: a .csv or .tsv file with a row an image.

    path,label,group,split
    a/0001.jpg,Happiness,anna,train

``path`` is relative to ``root``; all other columns may be missing: ``label``; ``group``, who is in the image, else the
video; ``split``, else one is drawn; ``video`` and ``frame``, else every image is a video of its own; ``valence`` and
``arousal`` in [-1, 1]. A table that calls them otherwise is read with ``columns: {path: image, label: emotion}``.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.missing import in_words, is_missing, missing_labels
from pipeline.datasets.order import frame_numbers, in_steps
from pipeline.datasets.sheet import below_root, none_there, number_of, read_sheet, sizes_of, split_of
from pipeline.datasets.splits import refuse_overlap

KNOWN = ("path", "label", "group", "split", "video", "frame", "valence", "arousal")
WANTED = "a table of images: dataset.annotations a .csv with a column 'path', dataset.root what the paths start from"
_FRAME = re.compile(r"\d{1,18}(?:[.,]\d{0,9})?", re.ASCII)


def read(config: DatasetConfig) -> Dataset:
    """Rows that cannot be understood, and rows of files that are not there, are named with their line.

    Raises ``UserError`` for a table without ``path``, without any image, with a group in two splits, or where it is not
    clear which number in a file's name is its frame's.
    """
    check_config(config, WANTED, uses=["annotations", "columns", "frame_number", "missing"])
    sheet, malformed = read_sheet(config, KNOWN, ["path"])
    if ("frame" in sheet and "video" not in sheet) or ("valence" in sheet) != ("arousal" in sheet):
        raise UserError("data set 'csv': a column 'frame' needs 'video', and 'valence' and 'arousal' need each other")
    if "frame" in sheet and config.frame_number is not None:
        raise UserError("data set 'csv': the column 'frame' gives the frames: leave dataset.frame_number out")
    paths, num_rows = sheet["path"], len(sheet) + len(malformed)
    sheet, facts = _understood(sheet, config, malformed)
    sizes, missing = sizes_of(config.root, sheet["path"])
    if not sizes:
        raise nothing_found(config, none_there(config, num_rows, paths, malformed, missing), WANTED)
    sheet, rules = _with_keys(sheet, config)
    without_number = sheet["frame"].isna()
    malformed += [f"line {n}: the name has no such number" for n in sheet.loc[without_number, "line"]]
    sheet = sheet[~without_number].astype({"frame": "int64"})
    twice = sheet.duplicated(["video", "frame"])
    malformed += [
        f"line {n}: '{p}' is there twice" for n, p in sheet.loc[twice, ["line", "path"]].itertuples(index=False)
    ]
    sheet = sheet[~twice]
    there = sheet["path"].isin(sizes)
    frames = sheet.loc[there, ["video", "frame", "path"]].assign(size=sheet.loc[there, "path"].map(sizes))
    labels, classes = _labels(sheet)
    refuse_overlap(labels, display_name(config))
    return Dataset(
        Frames(frames, config.root, display_name(config), config.crop_source or "as given"),
        Labels(labels, classes, display_name(config)),
        {
            "warnings": in_words(facts["labels_missing"]) if "labels_missing" in facts else [],
            "frame_numbers": rules,
            "rows": num_rows,
        }
        | facts
        | {"malformed_lines": counted(malformed, most=50), "images_missing": counted(missing)},
        skipped=len(malformed) + len(missing),
    )


def _understood(
    sheet: pd.DataFrame, config: DatasetConfig, malformed: list[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows without a fault, their values in our types, and what to report of them.

    Of each other row one line is added to ``malformed``.
    """
    problem = pd.Series("", index=sheet.index, dtype=object)

    def fault(rows: pd.Series, words: str) -> None:
        problem[rows & (problem == "")] = words

    paths = below_root(sheet["path"], config.root)
    sheet = sheet.assign(path=sheet["path"].map(paths.of))
    fault(sheet["path"].isna(), "the path is empty, or leads out of root")
    facts = {"absolute_paths_taken_to_start_in_root": paths.taken}
    none = {name: is_missing(sheet[name], config) for name in ("label", "group", "split", "video") if name in sheet}
    for name, missing in none.items():
        facts |= {"labels_missing": missing_labels(sheet[name], missing)} if name == "label" else {}
        sheet[name] = sheet[name].mask(missing, "")
    if "split" in sheet:
        split = sheet["split"].map(split_of)
        fault(split.isna() & (sheet["split"] != ""), "split is not train, val or test")
        sheet["split"] = split
    if "video" in sheet:
        fault(sheet["video"] == "", "video is empty")
    if "frame" in sheet:
        fault(~sheet["frame"].map(lambda text: bool(_FRAME.fullmatch(text))), "frame is not a number from 0")
    for name in ("valence", "arousal"):
        if name in sheet:
            value = sheet[name].map(number_of)
            none_given = value.isna() & is_missing(sheet[name], config)
            fault(~none_given & ~(value.abs() <= 1), f"{name} is not in [-1, 1]")
            sheet[name] = value
    good = problem == ""
    malformed += [f"line {n}: {words}" for n, words in zip(sheet.loc[~good, "line"], problem[~good], strict=True)]
    return sheet[good].reset_index(drop=True), facts


def _with_keys(sheet: pd.DataFrame, config: DatasetConfig) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The sheet with ``video`` and ``frame``, and the rules that gave the frames.

    An image alone is frame 0 of a video named like it. Frames of a given video without ``frame`` are a number in each
    file's name, or the order of the rows where none differs between them.
    """
    if "frame" in sheet:
        return _by_column(sheet)
    if "video" not in sheet:
        stem = sheet["path"].map(lambda path: str(PurePosixPath(path).with_suffix("")))
        images = sheet.assign(stem=stem).drop_duplicates("path")["stem"]
        shared = stem.isin(images[images.duplicated()])
        return sheet.assign(video=stem.where(~shared, sheet["path"]), frame=0), {}
    files = sheet[["video", "path"]].drop_duplicates()
    videos = {video: list(paths) for video, paths in files.groupby("video", sort=False)["path"]}
    numbers, rules = frame_numbers(config.name, videos, config.frame_number, by_row=True)
    frames = {(v, path): n for v, paths in videos.items() for path, n in zip(paths, numbers[v], strict=True)}
    frame = [frames[key] for key in zip(sheet["video"], sheet["path"], strict=True)]
    return sheet.assign(frame=pd.array(frame, dtype="Int64")), rules


def _by_column(sheet: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Frames as the column ``frame`` gives them: whole numbers, such as 1 or 1.0, or times such as 0.04."""
    whole = sheet["frame"].str.replace(r"[.,]0*$", "", regex=True)
    if whole.str.isdecimal().all():
        return sheet.assign(frame=whole.astype("int64")), {"the column frame": counted(sheet["video"].unique(), most=3)}
    frame, rules = pd.Series(0, index=sheet.index), {}
    for video, texts in sheet.groupby("video", sort=False)["frame"]:
        numbers, how = in_steps([number_of(text) for text in texts])
        frame[texts.index] = numbers
        rules.setdefault(f"the column frame{', a decimal ' + how if how else ''}", []).append(video)
    return sheet.assign(frame=frame), {rule: counted(videos, most=3) for rule, videos in sorted(rules.items())}


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
