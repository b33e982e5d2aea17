"""Reads BAH, the data set of the challenges of ambivalence and hesitancy: answers of people filmed by their webcams.

    cropped-aligned-faces/Videos/82553/Visite_1/82553_Question_1_2024-08-22_12-11-55_Video.mp4/frame-0.jpg
    split/train.txt                   Videos/82553/Visite_1/82553_Question_1_..._Video.mp4,1,what is said, with commas
    split-frames/train.txt            Videos/82553/Visite_1/82553_Question_1_..._Video.mp4/frame-0.jpg,0
    video_annotation_transcript.yaml  for each video: global_ah, fr_detailed_ah [[51, 95]], ...

A clip is a whole video. Its label, 0 or 1, is 'No A-H' or 'With A-H'; its group is the person, whatever the visit. The
labels of frames are the data set's own: those of ``split-frames``, or else 'With A-H' inside the intervals of the YAML
file, both ends included, and 'No A-H' outside. Frames count from 0. The lists are published at
https://github.com/sbelharbi/bah-dataset, as are the names of the classes; the rest of the layout is told by public code
that reads the release, as docs/datasets.md says. González-González et al. 2026, https://arxiv.org/abs/2505.19328
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline.core.params import UserError
from pipeline.core.tables import KEY
from pipeline.datasets.clip_folders import (
    EXTENSIONS,
    USES,
    Named,
    Rows,
    annotation_files,
    assemble,
    lines_of,
    listed,
    where_tables_are,
    without_track,
)
from pipeline.datasets.config import DatasetConfig, check_config, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.scan import Scan, scan

CLASSES = ["No A-H", "With A-H"]
WANTED = (
    "BAH: cropped-aligned-faces/Videos/82553/Visite_1/..._Video.mp4/frame-0.jpg, and split/train.txt, val.txt, test.txt"
)
LISTS = re.compile(r"(?:.*/)?(?:split|video-level/BAH_DB/split-0)/(train|val|test)\.txt")
FRAMES = re.compile(r"(?:.*/)?(?:split-frames|frame-level/BAH_DB/split-0)/(train|val|test)\.txt")
INTERVALS = re.compile(r"(?:.*/)?(?:video_)?annotation(?:_transcript)?\.ya?ml")
_NAME = re.compile(r"(\d+)_Question_\d+_.*")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(config: DatasetConfig) -> Dataset:
    """Raises ``UserError`` where there are no lists, or none of their videos has frames."""
    check_config(config, WANTED, uses=USES)
    scanned = scan(config.root, EXTENSIONS)
    rows, report = _rows(config, scanned), {}

    def frame_labels(frames: pd.DataFrame, videos: dict[str, str]) -> pd.DataFrame:
        table, facts = _frame_labels(config, scanned, frames, videos)
        report.update(facts)
        return table

    dataset = assemble(config, WANTED, scanned, named, rows, CLASSES, frame_labels)
    dataset.report.update(report)
    return dataset


def named(where: list[str]) -> Named | None:
    """The clip that a folder is, by the name of its video; editions differ in blanks and underscores."""
    key = _key(where[-1]) if where else ""
    return Named(key, where[-1].removesuffix(".mp4")) if _NAME.fullmatch(key) else None


def _key(path: str) -> str:
    return without_track(path.rpartition("/")[2].removesuffix(".mp4")).replace(" ", "_")


def _rows(config: DatasetConfig, scanned: Scan) -> Rows:
    files = annotation_files(config, scanned, LISTS)
    if not files:
        raise nothing_found(config, f"no list such as split/train.txt is under {where_tables_are(config)}", WANTED)
    lists, malformed = [], []
    for path, match in sorted(files.items()):
        for line, text in lines_of(where_tables_are(config), path):
            name, label = [*text.split(",", 2), "", ""][:2]
            key = _key(name.strip())
            if not _NAME.fullmatch(key):
                malformed.append(f"{line}: it names no video")
            elif label.strip() not in ("0", "1", ""):
                malformed.append(f"{line}: the label '{label.strip()}' is not 0 or 1")
            else:
                lists.append((match[1], line, key, label.strip()))
    table, twice = listed(lists, ["split", "line", "key", "expression"], within=["split"])
    both = table.loc[table.duplicated("key"), "key"]
    table = table.drop_duplicates("key")
    table["expression"] = table["expression"].map(dict(zip("01", CLASSES, strict=True))).astype(object)
    table["group"] = table["key"].map(lambda key: _NAME.fullmatch(key)[1])
    report = {"videos_in_two_lists": counted(sorted(both))}
    return Rows(table[["key", "expression", "group", "split"]], malformed + twice, report)


def _frame_labels(
    config: DatasetConfig, scanned: Scan, frames: pd.DataFrame, videos: dict[str, str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The labels of the frames, by the lists of frames or else by the intervals; and where they are from."""
    where = where_tables_are(config)
    if lists := annotation_files(config, scanned, FRAMES):
        table = pd.concat([_of_list(where / path, videos) for path in sorted(lists)], ignore_index=True)
        found = frames[KEY].merge(table.drop_duplicates(KEY), on=KEY)
        return found, {"frame_labels": f"the lists {', '.join(sorted(lists))}"}
    if not (files := sorted(annotation_files(config, scanned, INTERVALS))):
        return pd.DataFrame(columns=[*KEY, "expression"]), {"frame_labels": "those of the videos"}
    of_video = intervals(where / files[0])
    known = {videos[key]: spans for key, spans in of_video.items() if key in videos}
    found = frames.loc[frames["video"].isin(known), KEY].reset_index(drop=True)
    inside = np.zeros(len(found), dtype=bool)
    for video, rows in found.groupby("video").groups.items():
        number = found["frame"].to_numpy()[rows]
        for start, end in known[video]:
            inside[rows] |= (start <= number) & (number <= end)
    found["expression"] = np.where(inside, CLASSES[1], CLASSES[0]).astype(object)
    facts = {"frame_labels": f"the intervals of {files[0]}, both ends included"}
    return found, facts | {"videos_without_intervals": counted(sorted(set(videos.values()) - set(known)))}


def _of_list(path: Path, videos: dict[str, str]) -> pd.DataFrame:
    """video, frame and expression of each line of a list of frames whose video is there and whose label is 0 or 1."""
    found = []
    for _, text in lines_of(path.parent, path.name):
        image, _, label = text.rpartition(",")
        folder, _, file = image.rpartition("/frame-")
        number = file.partition(".")[0]
        if label in ("0", "1") and number.isdecimal() and len(number) <= 18:
            found.append((folder, int(number), CLASSES[int(label)]))
    table = pd.DataFrame(found, columns=[*KEY, "expression"])
    of_folder = {folder: videos.get(_key(folder)) for folder in table["video"].unique()}
    table["video"] = table["video"].map(of_folder)
    return table.dropna(subset="video")


def intervals(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Key -> first and last frame of each interval with ambivalence or hesitancy, as the YAML file gives them.

    The file has 90 MB, most of it labels of single frames and transcripts: only the lines of ``fr_detailed_ah`` are
    given to the parser. Raises ``UserError`` for a file that is not laid out as it is published.
    """
    kept, wanted = [], False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for line in file:
                if line[:1] not in (" ", "-", "#", "\n"):
                    wanted = True  # the name of a video
                elif line[:2] == "  " and line[2:3] not in (" ", "-"):
                    wanted = line.startswith("  fr_detailed_ah:")
                if wanted:
                    kept.append(line)
        content = yaml.load("".join(kept), _Loader)
        return {
            _key(video): [(int(start), int(end)) for start, end in (facts or {}).get("fr_detailed_ah") or []]
            for video, facts in content.items()
        }
    except OSError as error:
        raise UserError(f"data set 'bah': cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"data set 'bah': {path} is not laid out as the published one: {why}") from None
