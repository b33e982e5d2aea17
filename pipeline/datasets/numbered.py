"""Folders of frames whose file names are their numbers, as ABAW and the stage ``faces`` lay them out."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.files import read_json
from pipeline.core.params import UserError
from pipeline.core.tables import Frames
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.dataset import counted
from pipeline.datasets.order import HOW_TO_SAY, check_choice
from pipeline.datasets.scan import Folder, Scan, parts

_DIGITS = re.compile(r"\d+", re.ASCII)
_HOW = re.compile(r"(?P<usual>.*?)(, enlarged (?P<enlarged>[\d.e-]+))?(, points (?P<points>[0-9a-f]{16}))?", re.DOTALL)
_PERSON = re.compile(r"(.+?)_(left|right|p\d+)")
# The folders of the command ``faces``; its records are hidden, so that no reader takes them for a video.
CROPS, RECORDS = "cropped_aligned", ".faces"


def how_cut(enlarge: float, points: str | None) -> str:
    """What follows the name of the crop source where faces are cut otherwise than they usually are; '' where not.

    ``points`` is the digest of the aligner whose points they were cut by.
    """
    return (f", enlarged {float(enlarge)!r}" if enlarge else "") + (f", points {points}" if points else "")


def usual_and_how(crop_source: str) -> tuple[str, float, str | None]:
    """The crop source without what ``how_cut`` says, and this: the share, and the digest of the aligner."""
    match = _HOW.fullmatch(crop_source)
    return match["usual"], float(match["enlarged"] or 0), match["points"]


def how_cut_in(folder: Path) -> str:
    """``how_cut`` of the pictures in a folder that the command ``faces`` wrote; '' for any other.

    Raises ``UserError`` where its settings cannot be read.
    """
    file = folder / RECORDS / "settings.json"
    if not file.is_file():
        return ""
    settings = read_json(file, "the settings of the faces", f"Put back a copy, or delete {folder} and cut all again")
    return how_cut(settings.get("enlarge") or 0.0, settings.get("points"))


def with_how_cut(frames: Frames) -> Frames:
    """The frame table whose crop source says how the command ``faces`` cut its pictures, where that cut them."""
    firsts = frames.table.drop_duplicates("video")["path"]
    root = os.path.abspath(frames.root).replace(os.sep, "/")
    outs = {f"{root}/{path}".rpartition(f"/{CROPS}/")[0] for path in firsts}
    hows = sorted({how_cut_in(Path(out)) if out else "" for out in outs})
    sources = dict.fromkeys(frames.crop_source + how for how in hows)
    return replace(frames, crop_source=" + ".join(sources) or frames.crop_source)


def cut_from(root: Path, path: str, video: str) -> str:
    """The raw video that the stage ``faces`` cut ``video`` out of: ``7`` for ``7_left`` and ``7_p3``.

    ``path`` is the video's folder below ``root``. The records beside ``cropped_aligned`` tell what was cut out of what.
    Without them ``study_p1`` is somebody's own name, and stands for itself.
    """
    match = _PERSON.fullmatch(video)
    where = os.path.join(os.path.abspath(root), path).replace(os.sep, "/")
    out, _, name = where.rpartition(f"/{CROPS}/")
    if not match or not out:
        return video
    if not (own := _PERSON.fullmatch(name)):  # root itself lies in a folder of that name
        return video
    raw = own[1]
    made = Path(out, RECORDS, f"{raw}.parquet").is_file() and not Path(out, RECORDS, f"{name}.parquet").is_file()
    return match[1] if made else video


def like_several_people(groups: Mapping[str, str]) -> dict[str, Any]:
    """Counts and names the videos that are called like one of several people, ``7_left``, and yet are groups alone."""
    return counted(sorted(video for video, group in groups.items() if video == group and _PERSON.fullmatch(video)))


def frame_digits(name: str, which: int | str | None = None) -> str | None:
    """The digits of ``00001.jpg``; None for a name that is no frame's.

    With ``which``, as ``dataset.frame_number`` says it, the digits of that number in the name: of ``frame_00001.jpg``,
    1 is the first and -1 the last.
    """
    stem = name[: name.rfind(".")]
    if which is None:
        return stem if stem.isdecimal() and stem.isascii() and len(stem) <= 18 else None
    found = _DIGITS.findall(stem)
    place = which - (which > 0)
    return found[place] if -len(found) <= place < len(found) and len(found[place]) <= 18 else None


def frame_folders(config: DatasetConfig, folders: Iterable[Folder]) -> list[Folder]:
    """The folders that hold a frame, by its name."""
    check_choice(config.name, config.frame_number, order=False)
    return [folder for folder in folders if any(frame_digits(name, config.frame_number) for name in folder.names)]


def not_understood(folders: Iterable[Folder], chosen: Iterable[Folder]) -> dict[str, Any]:
    """Counts and names the folders of images of which none is called by its number alone: ``frame_00001.jpg``.

    ``chosen`` are the folders with a frame.
    """
    known = {folder.path for folder in chosen}
    return counted(
        f"{folder.path or '.'}: {len(folder.names):,} images such as '{min(folder.names)}'"
        for folder in folders
        if folder.names and folder.path not in known
    )


def names_not_understood(folders: dict[str, Any], images: list[str]) -> list[str]:
    """The warning that frames may be missing; ``folders`` is from ``not_understood``, ``images`` are in others."""
    if not folders["count"] and not images:
        return []
    what = [f"no image of {folders['count']:,} folders ({folders['first'][0]})"] if folders["count"] else []
    what += [f"{len(images):,} images in the others ('{min(images)}')"] if images else []
    return [
        f"{' and '.join(what)} could not be read, since a frame is called by its number alone, as 00001.jpg is: if "
        f"these are frames, {HOW_TO_SAY}"
    ]


def no_frame(config: DatasetConfig, scanned: Scan) -> str:
    """What is wrong with a root where no frame was found."""
    images = not_understood(scanned.folders, [])
    seen = f": {images['first'][0]}; if these are frames, {HOW_TO_SAY}" if images["count"] else ""
    return f"no numbered frame was found in a folder under {config.root}{seen}"


def how_numbered(config: DatasetConfig, videos: Collection[str]) -> dict[str, Any]:
    """For the report: the rule that gave the frame numbers, as ``frame_numbers`` of other readers says it."""
    which = config.frame_number
    rule = {None: "the name, a number", -1: "the last number in the name"}.get(which, f"number {which} in the name")
    return {rule: counted(sorted(videos), most=3)}


def keep_one(dataset: str, video: str, path: str, other: str) -> UserError:
    """The error for a video in two folders."""
    return UserError(f"data set '{dataset}': video '{video}' lies in two places: '{path}' and '{other}'; keep one")


def by_name(dataset: str, folders: list[Folder]) -> dict[str, Folder]:
    """Video -> its folder, by the folder's own name; raises ``UserError`` where two have one name."""
    videos: dict[str, Folder] = {}
    for folder in folders:
        video = parts(folder.path)[-1]
        if video in videos:
            raise keep_one(dataset, video, videos[video].path, folder.path)
        videos[video] = folder
    return videos


def make_frame_table(config: DatasetConfig, videos: dict[str, Folder]) -> tuple[pd.DataFrame, list[str]]:
    """The frame table, and the images whose names are no numbers; raises ``UserError`` for a frame number twice."""
    tables, strays = [], []
    for video in sorted(videos):
        folder = videos[video]
        names, sizes = folder.names, np.frombuffer(folder.sizes, dtype=np.int64)
        digits = [frame_digits(name, config.frame_number) for name in names]
        if None in digits:
            strays += [f"{folder.path}/{n}" for n, d in zip(names, digits, strict=True) if d is None]
            is_frame = np.array([d is not None for d in digits])
            names, sizes = [n for n, d in zip(names, digits, strict=True) if d is not None], sizes[is_frame]
            digits = [d for d in digits if d is not None]
        numbers = np.array(digits, dtype=np.str_).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        numbers, paths = numbers[order], [f"{folder.path}/{names[i]}" for i in order]
        twice = np.flatnonzero(numbers[1:] == numbers[:-1])
        if len(twice):
            both = sorted(paths[twice[0] : twice[0] + 2])
            raise UserError(
                f"data set '{config.name}': '{both[0]}' and '{both[1]}' are the same frame of '{video}'; keep one"
            )
        tables.append(pd.DataFrame({"video": video, "frame": numbers, "path": paths, "size": sizes[order]}))
    return pd.concat(tables, ignore_index=True), strays
