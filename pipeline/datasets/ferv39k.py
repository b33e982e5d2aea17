"""Reads FERV39k: clips of 22 scenes with one of seven expressions, in a published train and test part.

    2_ClipsforFaceCrop/Action/Happy/0267/01.jpg                     scene, expression, clip
    4_setups/All_scenes/train_All.csv                               Action/Sad/0010 Sad
    4_setups/All_scenes/test_All.csv

The published test part is 'val' here: it is what a run is measured on, and nothing is chosen on it. Each clip is its
own group: nobody published which of the 4,000 videos it is from. The layout is told by public code that reads the
release, as docs/datasets.md says. Wang et al. 2022, https://doi.org/10.1109/CVPR52688.2022.02025
"""

import re

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

CLASSES = ["Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
WANTED = "FERV39k: folders of frames such as Action/Happy/0267, and All_scenes/train_All.csv and test_All.csv"
TABLE = re.compile(r"(?:.*/)?(train|test)_All\.csv")
_CLIP = re.compile(r"(\w+)/(\w+)/(\d+)")
PARTS = {"train": "train", "test": "val"}


def read(config: DatasetConfig) -> Dataset:
    """Raises ``UserError`` where there are no tables, or none of their clips has frames."""
    check_config(config, WANTED, uses=USES)
    scanned = scan(config.root, EXTENSIONS)
    return assemble(config, WANTED, scanned, named, _rows(config, scanned), CLASSES)


def named(where: list[str]) -> Named | None:
    """The clip that a folder is: scene, expression and number, the last three folders of its path."""
    path = "/".join([*where[-3:-1], without_track(where[-1])]) if len(where) > 2 else ""
    match = _CLIP.fullmatch(path)
    return Named(path, "/".join(where[-3:])) if match and match[2] in CLASSES else None


def _rows(config: DatasetConfig, scanned: Scan) -> Rows:
    files = annotation_files(config, scanned, TABLE)
    if {match[1] for match in files.values()} != set(PARTS):
        folder = where_tables_are(config)
        raise nothing_found(config, f"not both of train_All.csv and test_All.csv were found under {folder}", WANTED)
    lists, malformed, differ = [], [], []
    for path, match in sorted(files.items(), key=lambda item: item[1][1]):
        for line, text in lines_of(where_tables_are(config), path):
            name, _, label = text.strip('"').replace(",", " ").rpartition(" ")
            clip = _CLIP.fullmatch(name.strip())
            if not clip:
                malformed.append(f"{line}: it names no clip")
            elif label not in CLASSES:
                malformed.append(f"{line}: the label '{label}' is not one of {', '.join(CLASSES)}")
            else:
                lists.append((match[1], line, clip[0], label))
                differ += [clip[0]] if clip[2] != label else []
    table, twice = listed(lists, ["list", "line", "key", "expression"], within=["list"])
    both = table.loc[table.duplicated("key"), "key"]
    table = table.drop_duplicates("key").assign(split=lambda t: t["list"].map(PARTS))
    report = {
        "clips_in_the_folder_of_another_label": counted(differ),
        "clips_in_train_and_test": counted(sorted(both)),  # the test part is read first, and keeps them
    }
    return Rows(table[["key", "expression", "split"]], malformed + twice, report)
