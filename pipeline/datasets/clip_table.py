"""Reads clips that a table lists: a .csv, .tsv or .parquet file with a row a clip.

    video,start,end,label,group,split
    talks/a.mp4,0,125,happy,anna,train

``video`` is a folder of frames below ``root``, or the video file that they were cut from: the folder is found by the
end of its path. ``start`` and ``end`` are frame numbers, ``end`` exclusive; ``start_sec`` and ``end_sec`` are seconds,
or ``hh:mm:ss.f``. Without them a clip is all of its video. All other columns may be missing: ``clip``, its name;
``label`` (or ``expression``); ``valence`` and ``arousal`` in [-1, 1]; ``au1``, ``au2``, ... 0 or 1; ``group``, who is
in it, else the video; ``split``, or ``fold``, a number, else a split is drawn; and the columns that ``dataset.outputs``
names, which are further continuous labels. Of a .parquet file all further columns of numbers are outputs.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.clips import Clips, read_clips
from pipeline.core.files import has_digest
from pipeline.core.params import UserError, one_of
from pipeline.core.tables import KEY, Frames, Labels
from pipeline.datasets.clip_folders import EXTENSIONS
from pipeline.datasets.config import CUT_FIRST, VIDEO_SUFFIXES, DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.config import videos_among as video_files
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.missing import in_words, is_missing, missing_labels
from pipeline.datasets.numbered import CROPS, cut_from
from pipeline.datasets.order import frame_numbers
from pipeline.datasets.scan import Folder, Scan, parts, scan
from pipeline.datasets.sheet import number_of, read_head, read_sheet, rows_of, split_of
from pipeline.datasets.times import frames_at, seconds_of

WANTED = (
    "a table of clips: dataset.annotations a .csv or .parquet with a column 'video', dataset.root the folder of frames"
)
KNOWN = (
    "clip", "video", "start", "end", "start_sec", "end_sec", "label", "valence", "arousal", "group", "split", "fold",
)  # fmt: skip
OURS = "clips.parquet"
BOUNDS = {"start": "start_sec", "end": "end_sec"}
_WHOLE = re.compile(r"(\d{1,18})(?:\.0*)?", re.ASCII)
_UNIT = re.compile(r"au\d+", re.ASCII)


def read(config: DatasetConfig) -> Dataset:
    """Rows that cannot be understood are named with their line; clips without frames are kept, and named.

    Raises ``UserError`` for a table without ``video``, or of which no clip has frames, where it is not clear which
    number in a file's name is its frame's, and where nothing says at which time a frame is.
    """
    uses = ["annotations", "columns", "frame_number", "first_frame", "missing", "fps", "outputs"]
    check_config(config, WANTED, uses=uses)
    sheet, malformed, outputs, classes = _sheet(config)
    num_rows = len(sheet) + len(malformed)
    scanned = scan(config.root, EXTENSIONS)
    videos = _videos(scanned)
    sheet, facts = _understood(sheet, config, outputs, malformed)
    folder, ambiguous = _matched(sheet["video"], videos, config.root)
    malformed += [f"line {n}: {words}" for n, words in zip(sheet["line"], ambiguous, strict=True) if words]
    sheet, folder = sheet[ambiguous == ""], folder[ambiguous == ""]
    if folder.isna().all():
        raise nothing_found(config, _none_there(config, sheet, malformed, scanned), WANTED, scanned.unreadable)
    frames, rules, without_number = _frames(config, videos)
    sheet = _with_clips(sheet.assign(video=folder.fillna(sheet["video"])), config, frames, malformed)
    raw = {video: cut_from(config.root, of.path, video) for video, of in videos.items()}
    group = sheet["group"].where(sheet["group"] != "") if "group" in sheet else pd.Series(None, sheet.index, "object")
    sheet["group"] = group.fillna(sheet["video"].map(raw)).fillna(sheet["video"])
    if "label" in sheet:
        sheet["expression"] = sheet.pop("label").astype(object).where(lambda label: label != "", None)
        classes = classes or sorted(sheet["expression"].dropna().unique())
    order = ["clip", "video", "start", "end", "group", "expression", "valence", "arousal", "split", "fold"]
    units = [column for column in sheet if _UNIT.fullmatch(column)]
    table = sheet[[c for c in [*order, *units, *outputs] if c in sheet]].reset_index(drop=True)
    files = [path for path in video_files(scanned.others) if path.rpartition(".")[0] not in videos]
    return Dataset(
        Frames(frames, config.root, display_name(config), config.crop_source or "as given"),
        Labels(pd.DataFrame(columns=[*KEY, "group"]), classes, display_name(config)),
        {
            "warnings": in_words(facts["labels_missing"]) if "labels_missing" in facts else [],
            "frame_numbers": rules,
            "rows": num_rows,
        }
        | facts
        | {
            "malformed_lines": counted(malformed, most=50),
            "images_without_number": counted(sorted(without_number)),
            "videos_not_cut_into_frames": counted(files),
            "unreadable": counted(scanned.unreadable),
            "links_to_folders_already_read": counted(scanned.repeated),
        },
        skipped=len(malformed) + len(without_number) + len(scanned.unreadable),
        clips=Clips(table, classes, display_name(config)),
    )


def _sheet(config: DatasetConfig) -> tuple[pd.DataFrame, list[str], list[str], list[str]]:
    """The table's known columns as text with the ``line`` of each row; lines cut short; outputs; classes if known."""
    path = config.annotations
    if path is None:
        raise UserError(
            f"data set '{config.name}': name the table by dataset.annotations in params.yaml, or by --annotations"
        )
    if path.suffix.lower() == ".parquet":
        return _parquet(config, path)
    try:
        names, _ = rows_of(read_head(path), str(path))
    except OSError as error:
        raise UserError(f"data set '{config.name}': cannot read the table {path}: {error.strerror}") from None
    outputs = [one_of(f"data set '{config.name}': outputs", name, names) for name in config.outputs]
    columns = config.columns
    if "label" not in (*names, *columns) and "expression" in names:
        columns = columns | {"label": "expression"}
    known = (*KNOWN, *(name for name in names if _UNIT.fullmatch(name)), *outputs)
    sheet, malformed = read_sheet(replace(config, columns=columns), known, ["video"])
    return sheet, malformed, outputs, []


def _parquet(config: DatasetConfig, path: Path) -> tuple[pd.DataFrame, list[str], list[str], list[str]]:
    try:
        ours = path.is_file() and has_digest(path)
        clips = read_clips(path) if ours else None
        table = clips.table if clips else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"data set '{config.name}': {path} is no parquet table that can be read: {why}") from None
    renamed = {theirs: ours for ours, theirs in config.columns.items()} | {"expression": "label"}
    for theirs in config.columns.values():
        one_of(f"data set '{config.name}': {path}: column", theirs, list(table))
    table = table.rename(columns=renamed)
    if "video" not in table:
        raise UserError(f"data set '{config.name}': {path} has no column 'video', but {list(table)}")
    numbers = list(table.select_dtypes("number"))
    further = [name for name in numbers if name not in KNOWN and not _UNIT.fullmatch(name)]
    outputs = [one_of(f"data set '{config.name}': outputs", name, list(table)) for name in config.outputs] or further
    kept = [name for name in table if name in KNOWN or _UNIT.fullmatch(name) or name in outputs]
    text = table[kept].apply(lambda column: column.map(lambda value: "" if pd.isna(value) else str(value).strip()))
    if "split" in text and "fold" in text:
        text["split"] = text["split"].where(text["split"] != "fold", "")  # the fold says it
    text.insert(0, "line", range(1, len(text) + 1))
    return text.astype({name: "str" for name in kept}), [], outputs, clips.classes if clips else []


def _understood(
    sheet: pd.DataFrame, config: DatasetConfig, outputs: list[str], malformed: list[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows without a fault, their values in our types, and what to report of them.

    Of each other row one line is added to ``malformed``.
    """
    problem = pd.Series("", index=sheet.index, dtype=object)

    def fault(rows: pd.Series, words: str) -> None:
        problem[rows & (problem == "")] = words

    facts: dict[str, Any] = {}
    none = {
        name: is_missing(sheet[name], config) for name in ("label", "group", "split", "fold", "clip") if name in sheet
    }
    for name, missing in none.items():
        facts |= {"labels_missing": missing_labels(sheet[name], missing)} if name == "label" else {}
        sheet[name] = sheet[name].mask(missing, "")
    fault(sheet["video"] == "", "video is empty")
    for bound, in_seconds in BOUNDS.items():
        for name, value_of in ((bound, _whole), (in_seconds, seconds_of)):
            if name in sheet:
                value, empty = sheet[name].map(value_of).astype("Float64"), is_missing(sheet[name], config)
                fault(
                    value.isna() & ~empty, f"{name} is not a {'time' if name == in_seconds else 'frame number'} from 0"
                )
                sheet[name] = value
        if bound in sheet and in_seconds in sheet:
            fault(sheet[bound].notna() & sheet[in_seconds].notna(), f"{bound} and {in_seconds} are both given")
    for pair in (tuple(BOUNDS), tuple(BOUNDS.values())):
        if set(pair) <= set(sheet):
            fault((sheet[pair[1]] <= sheet[pair[0]]).fillna(False).astype(bool), f"{pair[1]} is not after {pair[0]}")
    if "split" in sheet:
        split = sheet["split"].map(split_of)
        fault(split.isna() & (sheet["split"] != ""), "split is not train, val or test")
        sheet["split"] = split.astype(object).where(split.notna(), None)
    if "fold" in sheet:
        fold = sheet["fold"].map(_whole)
        fault(fold.isna() & (sheet["fold"] != ""), "fold is not a whole number from 0")
        fault(fold > 32_767, "fold is larger than 32,767")
        if "split" in sheet:
            fault(fold.notna() & sheet["split"].notna(), "split and fold are both given")
        sheet["fold"] = fold
    for name, least in (("valence", -1), ("arousal", -1), *((c, 0) for c in sheet if _UNIT.fullmatch(c))):
        if name in sheet:
            value, empty = sheet[name].map(number_of), is_missing(sheet[name], config)
            words = "in [-1, 1]" if least else "0 or 1"
            good = value.abs() <= 1 if least else value.isin([0, 1])
            fault(~good & ~empty, f"{name} is not {words}")
            sheet[name] = value.where(good)
    for name in outputs:
        value = sheet[name].map(number_of)
        fault(~np.isfinite(value) & ~is_missing(sheet[name], config), f"{name} is no number")
        sheet[name] = value.where(np.isfinite(value))
    if ("valence" in sheet) != ("arousal" in sheet):
        raise UserError(f"data set '{config.name}': the columns 'valence' and 'arousal' need each other")
    good = problem == ""
    malformed += [f"line {n}: {words}" for n, words in zip(sheet.loc[~good, "line"], problem[~good], strict=True)]
    sheet = sheet[good]
    if "fold" in sheet:
        split = sheet["split"] if "split" in sheet else pd.Series(None, sheet.index, "object")
        fold = sheet["fold"].astype("Float64").astype("Int16")
        sheet = sheet.assign(fold=fold, split=split.astype(object).where(fold.isna(), "fold"))
        if fold.isna().all():
            sheet = sheet.drop(columns="fold")
    if "split" in sheet and sheet["split"].isna().all():
        sheet = sheet.drop(columns="split")
    units = {c: "Int8" for c in sheet if _UNIT.fullmatch(c)}
    return sheet.astype({c: "Float64" for c in units}).astype(units), facts


def _whole(text: str) -> float:
    match = _WHOLE.fullmatch(text)
    return float(match[1]) if match else np.nan


def _videos(scanned: Scan) -> dict[str, Folder]:
    """Video -> its folder: by its path below root, or below the folder that the command ``faces`` wrote."""
    found = {}
    for folder in scanned.folders:
        where = parts(folder.path)
        if folder.names and where:
            below = where[where.index(CROPS) + 1 :] if CROPS in where else where
            found["/".join(below or where)] = folder
    return found


def _matched(video: pd.Series, videos: dict[str, Folder], root: Path) -> tuple[pd.Series, pd.Series]:
    """The video of the frame table that each of a table's texts is, or None; and what is unclear about it, or ''."""
    by_end: dict[str, list[str]] = {}
    for name, folder in videos.items():
        for each in {name, cut_from(root, folder.path, name)}:
            by_end.setdefault(_plain(each)[-1], []).append(name)
    found, unclear = {}, {}
    for text in video.unique():
        own = _plain(text)
        fitting: dict[str, int] = {}
        for name in by_end.get(own[-1], []) if own else []:
            for each in (name, cut_from(root, videos[name].path, name)):
                where = _plain(each)
                common = min(len(own), len(where))
                if own[-common:] == where[-common:]:
                    exact = 2 * common + (each == name)
                    fitting[name] = max(fitting.get(name, 0), exact)
        best = sorted(name for name, common in fitting.items() if common == max(fitting.values()))
        people = {cut_from(root, videos[name].path, name) for name in best}
        if len(best) > 1 and len(people) == 1:
            best = [min(best, key=lambda name: (-len(videos[name].names), name))]  # of several people the one seen most
        found[text] = best[0] if len(best) == 1 else None
        unclear[text] = f"several folders may be '{text}': {' and '.join(best[:3])}" if len(best) > 1 else ""
    return video.map(found).astype(object), video.map(unclear)


def _plain(video: str) -> list[str]:
    """The parts of a video's path, without the ending of a video file."""
    where = [part for part in video.replace("\\", "/").split("/") if part not in ("", ".")]
    if where and where[-1].lower().endswith(VIDEO_SUFFIXES):
        where[-1] = where[-1].rpartition(".")[0]
    return where


def _none_there(config: DatasetConfig, sheet: pd.DataFrame, malformed: list[str], scanned: Scan) -> str:
    raw = video_files(scanned.others)
    problem = f"none of the {len(sheet) + len(malformed)} rows of {config.annotations} leads to a folder of frames"
    problem += f", such as '{sheet['video'].iloc[0]}'" if len(sheet) else ""
    problem += f"; {len(malformed)} of them were not understood, such as {malformed[0]}" if malformed else ""
    return problem + (f"; there are {len(raw)} videos such as '{raw[0]}': {CUT_FIRST}" if raw else "")


def _frames(config: DatasetConfig, videos: dict[str, Folder]) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """The frame table of all folders, the rules that gave the numbers, and the images without one."""
    numbers, rules = frame_numbers(config.name, {v: of.names for v, of in videos.items()}, config.frame_number)
    rows, without = [], []
    for video, folder in videos.items():
        for number, name, size in zip(numbers[video], folder.names, folder.sizes, strict=True):
            path = f"{folder.path}/{name}"
            if number is None:
                without.append(path)
            else:
                rows.append((video, number, path, size))
    return pd.DataFrame(rows, columns=["video", "frame", "path", "size"]), rules, without


def _with_clips(sheet: pd.DataFrame, config: DatasetConfig, frames: pd.DataFrame, malformed: list[str]) -> pd.DataFrame:
    """The rows with start, end and a name of their own; a row that repeats another is added to ``malformed``."""
    for bound, in_seconds in BOUNDS.items():
        given = sheet[bound].astype("Int64") if bound in sheet else pd.Series(pd.NA, sheet.index, "Int64")
        if in_seconds in sheet:
            seconds = sheet[in_seconds].astype("float64")
            given = given.fillna(frames_at(config, frames, sheet["video"], seconds))
        sheet = sheet.assign(**{bound: given})
    backwards = (sheet["end"] < sheet["start"].fillna(0)).fillna(False).astype(bool)
    malformed += [f"line {n}: the end is before the start" for n in sheet.loc[backwards, "line"]]
    sheet = sheet[~backwards]
    given = sheet["clip"] if "clip" in sheet else pd.Series("", sheet.index)
    places = sheet[["video", "start", "end"]].astype(object)
    places = list(places.where(places.notna(), "").itertuples(index=False, name=None))
    names = [own or _name(*place) for own, place in zip(given, places, strict=True)]
    kept, seen = [], set()
    for line, name, place in zip(sheet["line"], names, places, strict=True):
        twice = "its clip is" if place in seen else "its clip's name is" if name in seen else ""
        malformed += [f"line {line}: {twice} there twice"] if twice else []
        kept.append(not twice)
        seen |= set() if twice else {place, name}
    return sheet.assign(clip=names)[kept]


def _name(video: str, start: object, end: object) -> str:
    """What a clip is called that has no name: 'a', or 'a:3-5', 'a:3-' and 'a:-5' for a part of it."""
    return video if start == "" and end == "" else f"{video}:{start}-{end}"
