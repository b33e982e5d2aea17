"""What the readers of clips share: folders of frames and the rows of a table, put together by the name of the clip.

A clip is called by its **key**, which the table and the folder have in common, such as '00001' for the row '1' and for
the folder 'part_1/00001'. A clip whose frames are not there stays in the clip table, and is named.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.clips import Clips
from pipeline.core.params import UserError
from pipeline.core.tables import KEY, Frames, Labels
from pipeline.datasets.config import CUT_FIRST, DatasetConfig, display_name, nothing_found, videos_among
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.numbered import CROPS, frame_folders, how_numbered, keep_one, make_frame_table
from pipeline.datasets.scan import Folder, Scan, parts, scan

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
USES = ("annotations", "frame_number")  # settings of all these readers
_TRACK = re.compile(r"(.+?)_(?:left|right|p\d+)")  # what the command ``faces`` calls one of several people


@dataclass(frozen=True)
class Named:
    """What a folder of frames is: the key of its clip, and what its video is called in the frame table."""

    key: str
    video: str


@dataclass(frozen=True)
class Rows:
    """The rows of the tables that label clips: ``table`` has the columns key and expression, and may have others.

    ``malformed`` names the lines that were not understood, and ``report`` is what else there is to say.
    """

    table: pd.DataFrame
    malformed: list[str]
    report: dict[str, Any]


def without_track(name: str) -> str:
    """``00001`` of the folder ``00001_left``, where the command ``faces`` found several people in a clip."""
    match = _TRACK.fullmatch(name)
    return match[1] if match else name


def assemble(
    config: DatasetConfig, wanted: str, scanned: Scan, named: Callable[[list[str]], Named | None], rows: Rows,
    classes: list[str], frame_labels: Callable[[pd.DataFrame, dict[str, str]], pd.DataFrame] | None = None,
) -> Dataset:  # fmt: skip
    """The data set of a table of clips and their folders of frames below ``config.root``.

    ``named`` says of a folder's parts which clip it is, and None where it is none. The group of a clip is its key where
    ``rows`` have no column 'group'. ``frame_labels`` gives the labels that the data set has for single frames, of
    the frame table and the videos by key. Raises ``UserError`` where no clip of the table has a frame, or a clip lies
    in two places.
    """
    config = replace(config, frame_number=-1) if config.frame_number is None else config
    chosen, tracks, others = _folders(config, scanned, named)
    table = rows.table.drop_duplicates("key", ignore_index=True)
    videos = {key: video for video, (key, _) in chosen.items()}
    raw = videos_among(scanned.others)
    if not set(table["key"]) & set(videos):
        problem = f"the table has {len(table):,} clips, and no folder of frames under {config.root} is one of them"
        problem += f"; there are {len(raw):,} videos such as '{raw[0]}': {CUT_FIRST}" if raw else ""
        if rows.malformed:
            problem += f"; {len(rows.malformed):,} of its lines were not understood, such as {rows.malformed[0]}"
        raise nothing_found(config, problem, wanted, scanned.unreadable)
    frames, strays = make_frame_table(config, {video: folder for video, (_, folder) in chosen.items()})
    name = display_name(config)
    crop = CROPS if all(CROPS in parts(folder.path) for _, folder in chosen.values()) else "as given"
    clips = pd.DataFrame({"clip": table["key"], "video": table["key"].map(videos).fillna(table["key"])})
    clips = clips.assign(start=pd.array([pd.NA] * len(clips), "Int64"), end=pd.array([pd.NA] * len(clips), "Int64"))
    clips = clips.assign(group=table["group"] if "group" in table else table["key"])
    clips = clips.join(table.drop(columns=["key", "group"], errors="ignore"))
    own = frame_labels(frames, videos) if frame_labels else pd.DataFrame(columns=[*KEY, "expression"])
    return Dataset(
        Frames(frames, config.root, name, config.crop_source or crop),
        Labels(own, classes, name),
        {"warnings": [], "frame_numbers": how_numbered(config, chosen), "rows": len(rows.table) + len(rows.malformed)}
        | rows.report
        | {
            "malformed_lines": counted(rows.malformed, most=50),
            "shorter_tracks_left_out": counted(sorted(tracks)),
            "images_outside_clips": counted(sorted(others + strays)),
            "folders_of_another_crop": counted(_other_crops(config, scanned)),
            "videos_not_cut_into_frames": counted(raw),
            "unreadable": counted(scanned.unreadable),
            "links_to_folders_already_read": counted(scanned.repeated),
        },
        skipped=len(rows.malformed) + len(others) + len(strays) + len(scanned.unreadable),
        clips=Clips(clips, classes, name),
    )


def _folders(
    config: DatasetConfig, scanned: Scan, named: Callable[[list[str]], Named | None]
) -> tuple[dict[str, tuple[str, Folder]], list[str], list[str]]:
    """Video -> key and folder; the shorter of several people of a clip; and the images of no clip."""
    inside = within_crop(config, scanned.folders)
    folders = frame_folders(config, inside)
    of_key: dict[str, dict[str, Folder]] = {}
    taken = set()
    for folder in folders:
        what = named(parts(folder.path))
        if what:
            own = of_key.setdefault(what.key, {})
            if what.video in own:
                raise _two_places(config, what.video, own[what.video], folder)
            own[what.video] = folder
            taken.add(folder.path)
    chosen, tracks = {}, []
    for key, own in of_key.items():
        longest = min(own, key=lambda video: (-len(own[video].names), video))
        for video, folder in own.items():
            if parts(folder.path)[:-1] != parts(own[longest].path)[:-1]:
                raise _two_places(config, key, own[longest], folder)
            tracks += [folder.path] if video != longest else []
        chosen[longest] = (key, own[longest])
    others = [f"{f.path}/{n}".lstrip("/") for f in inside if f.path not in taken for n in f.names]
    return chosen, tracks, others


def within_crop(config: DatasetConfig, folders: Iterable[Folder]) -> list[Folder]:
    """The folders that lie in one that is called ``crop_source``; all of them where none is called so."""
    folders = list(folders)
    inside = [folder for folder in folders if config.crop_source in parts(folder.path)]
    return inside or folders


def _other_crops(config: DatasetConfig, scanned: Scan) -> list[str]:
    inside = {folder.path for folder in within_crop(config, scanned.folders)}
    return [f"{f.path}: {len(f.names):,} images" for f in scanned.folders if f.names and f.path not in inside]


def _two_places(config: DatasetConfig, video: str, one: Folder, other: Folder) -> UserError:
    error = keep_one(config.name, video, one.path, other.path)
    return UserError(
        f"{error}, or say with dataset.crop_source which folder's clips are meant, such as '{_differing(one, other)}'"
    )


def _differing(one: Folder, other: Folder) -> str:
    """The first part of one's path that the other's lacks."""
    return next((part for part in parts(one.path) if part not in parts(other.path)), parts(one.path)[0])


# --- tables ---------------------------------------------------------------------------------------


def annotation_files(config: DatasetConfig, scanned: Scan, pattern: re.Pattern) -> dict[str, re.Match]:
    """The files whose whole path below ``annotations``, or else below ``root``, fits: that path, and how it fits.

    Those of one folder are meant to be one set of tables. Raises ``UserError`` where two files fit alike.
    """
    others = scanned.others if config.annotations is None else scan(config.annotations, EXTENSIONS).others
    found = {path: match for path in others if (match := pattern.fullmatch(path))}
    seen: dict[tuple, str] = {}
    for path, match in sorted(found.items()):
        first = seen.setdefault(match.groups(), path)
        if first != path:
            raise UserError(
                f"data set '{config.name}': '{first}' and '{path}' are the same table; name the folder of one of them "
                "as dataset.annotations"
            )
    return found


def lines_of(folder: Path, path: str) -> Iterator[tuple[str, str]]:
    """``file line n`` and the text of each line that is not empty, whatever ends it.

    Bytes that are no UTF-8 are replaced: captions in other encodings stand behind what is read here.
    """
    try:
        text = (folder / path).read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read the table {folder / path}: {error.strerror}") from None
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if line.strip():
            yield f"{path} line {number}", line.strip()


def where_tables_are(config: DatasetConfig) -> Path:
    """The folder that the paths of ``annotation_files`` start from."""
    return config.root if config.annotations is None else config.annotations


def listed(rows: Iterable[tuple], columns: list[str], within: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The rows of several lists as a table, and a fault for each that stands in one list twice.

    ``columns`` are those of the table, 'line' and 'key' among them; ``within`` are those that say which list it is.
    """
    table = pd.DataFrame(rows, columns=columns)
    twice = table.duplicated([*within, "key"])
    faults = [f"{line}: '{key}' is there twice" for line, key in table.loc[twice, ["line", "key"]].to_numpy()]
    return table[~twice], faults


def from_folds(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The clips of published folds: key, expression, split and fold; and what is odd about them.

    ``rows`` have the columns key, expression, fold (number) and part, 'train' or 'test'. A clip's fold is the one that
    tests it, and it is 'val' there. A clip that no fold tests is 'train' in all. Of a single fold, its test part is
    'val' and no folds are made.
    """
    code, keys = pd.factorize(rows["key"])
    of_fold, numbers = pd.factorize(rows["fold"], sort=True)
    is_test = (rows["part"] == "test").to_numpy()
    test, train = (np.zeros((len(keys), len(numbers)), dtype=bool) for _ in range(2))
    test[code[is_test], of_fold[is_test]] = True
    train[code[~is_test], of_fold[~is_test]] = True
    tested = test.any(axis=1)
    table = pd.DataFrame({"key": keys, "expression": rows.drop_duplicates("key")["expression"].to_numpy()})
    if len(numbers) > 1:
        fold = pd.Series(np.asarray(numbers)[test.argmax(axis=1)], dtype="Int16").where(tested)
        table = table.assign(split=np.where(tested, "fold", "train"), fold=fold)
    else:
        table = table.assign(split=np.where(tested, "val", "train"))
    several = rows.groupby("key")["expression"].nunique()
    report = {"published_folds": ", ".join(map(str, numbers))} | {
        what: counted(sorted(keys[which]))
        for what, which in {
            "clips_tested_by_two_folds": test.sum(axis=1) > 1,
            "clips_on_both_sides_of_a_fold": (test & train).any(axis=1),
            "clips_that_no_fold_tests": ~tested,
            "clips_that_a_fold_leaves_out": tested & ~(test | train).all(axis=1),
        }.items()
    }
    return table, report | {"clips_with_two_labels": counted(sorted(several.index[several > 1]))}
