"""Reads CAER: clips of television shows with one of seven emotions, in train, validation and test.

    cropped_aligned/train/Anger/0001/00001.jpg                      split, emotion, clip

CAER is published as videos, ``train/Anger/0001.avi``; their faces are cut by ``python -m pipeline.faces --names tree``,
which keeps the folders. Each clip is its own group: nobody published which show it is from.
Lee et al. 2019, https://caer-dataset.github.io
"""

import pandas as pd

from pipeline.datasets.clip_folders import EXTENSIONS, Named, Rows, assemble, within_crop, without_track
from pipeline.datasets.config import CUT_FIRST, DatasetConfig, check_config, nothing_found, videos_among
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.scan import Scan, parts, scan

CLASSES = ["Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
SPLITS = {"train": "train", "validation": "val", "test": "test"}
WANTED = "CAER, its faces cut out: ROOT/.../train/Anger/0001/00001.jpg, and so validation and test"


def read(config: DatasetConfig) -> Dataset:
    """Raises ``UserError`` where no clip is found."""
    check_config(config, WANTED, uses=["frame_number"])
    scanned = scan(config.root, EXTENSIONS)
    return assemble(config, WANTED, scanned, named, _rows(config, scanned), CLASSES)


def named(where: list[str]) -> Named | None:
    """The clip that a folder is: split, emotion and number, the last three folders of its path."""
    if len(where) < 3 or where[-3] not in SPLITS or where[-2] not in CLASSES:
        return None
    return Named("/".join([*where[-3:-1], without_track(where[-1])]), "/".join(where[-3:]))


def _rows(config: DatasetConfig, scanned: Scan) -> Rows:
    """A row a clip that is there, frames or video: CAER has no table, its folders say all."""
    found = {named(parts(folder.path)) for folder in within_crop(config, scanned.folders) if folder.names} - {None}
    raw = videos_among(scanned.others)
    if not found:
        problem = f"no folder of frames such as train/Anger/0001 was found under {config.root}"
        problem += f", but {len(raw):,} videos such as '{raw[0]}': {CUT_FIRST} (--names tree)" if raw else ""
        raise nothing_found(config, problem, WANTED, scanned.unreadable)
    of_videos = {named([*path.split("/")[:-1], path.rpartition("/")[2].rpartition(".")[0]]) for path in raw} - {None}
    keys = sorted({clip.key for clip in found | of_videos})
    unknown = sorted(
        {
            "/".join(where[-3:-1])
            for folder in scanned.folders
            if folder.names and len(where := parts(folder.path)) > 2 and where[-3] in SPLITS and not named(where)
        }
    )
    split, emotion = zip(*(key.split("/")[:2] for key in keys), strict=True)
    table = pd.DataFrame({"key": keys, "expression": emotion, "split": [SPLITS[name] for name in split]})
    return Rows(table, [], {"folders_of_no_known_emotion": counted(unknown)})
