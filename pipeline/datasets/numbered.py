"""Folders of frames whose file names are their numbers, as ABAW and the stage ``faces`` lay them out."""

import re

import numpy as np
import pandas as pd

from pipeline.datasets.scan import Folder, parts
from pipeline.params import UserError

_SIDE = re.compile(r"(.+?)_(left|right|p\d+)", re.IGNORECASE)


def group_of(video: str) -> str:
    """The raw video that ``video`` was cut from: ``7_left`` or ``7_p3`` -> ``7``, but ``video10_1`` is itself."""
    match = _SIDE.fullmatch(video)
    return match[1] if match else video


def number(name: str) -> str | None:
    """The digits of ``00001.jpg``; None for a name that is no frame's."""
    stem = name[: name.rfind(".")]
    return stem if stem.isdecimal() and stem.isascii() and len(stem) <= 18 else None


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


def frame_table(dataset: str, videos: dict[str, Folder]) -> tuple[pd.DataFrame, list[str]]:
    """The frame table, and the images whose names are no numbers; raises ``UserError`` for a frame number twice."""
    tables, strays = [], []
    for video in sorted(videos):
        folder = videos[video]
        names, sizes = folder.names, np.frombuffer(folder.sizes, dtype=np.int64)
        digits = [number(name) for name in names]
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
                f"data set '{dataset}': '{both[0]}' and '{both[1]}' are the same frame of '{video}'; keep one"
            )
        tables.append(pd.DataFrame({"video": video, "frame": numbers, "path": paths, "size": sizes[order]}))
    return pd.concat(tables, ignore_index=True), strays
