"""Reads MAFW: clips of films, shows and short videos with one of eleven emotions, in five published folds.

    data/frames/00001/00001.jpg                                     or faces that the command ``faces`` cut
    Train & Test Set/single/no_caption/set_1/train.txt              00025.mp4 anger
    Train & Test Set/single/no_caption/set_1/test.txt

The lists of single emotions are read: ``no_caption``, which hold all 9,172 clips, or else ``with_caption``, which lack
the neutral ones. Those of compound emotions are not. Each clip is its own group: nobody published who is in it.
The layout is told by public code that reads the release, as docs/datasets.md says.
Liu et al. 2022, https://doi.org/10.1145/3503161.3548190
"""

import re

from pipeline.datasets.clip_folders import (
    EXTENSIONS,
    USES,
    Named,
    Rows,
    annotation_files,
    assemble,
    from_folds,
    lines_of,
    listed,
    where_tables_are,
    without_track,
)
from pipeline.datasets.config import DatasetConfig, check_config, nothing_found
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.scan import Scan, scan

CLASSES = [
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
]  # fmt: skip
WANTED = "MAFW: folders of frames such as 00001, and single/no_caption/set_1/train.txt and test.txt"
TABLE = re.compile(r"(?:.*/)?single/(no|with)_caption/set_(\d)/(train|test)\.txt")
_NAME = re.compile(r"(\d{5})(?:\.mp4)?")


def read(config: DatasetConfig) -> Dataset:
    """Raises ``UserError`` where there are no lists, or none of their clips has frames."""
    check_config(config, WANTED, uses=USES)
    scanned = scan(config.root, EXTENSIONS)
    return assemble(config, WANTED, scanned, named, _rows(config, scanned), CLASSES)


def named(where: list[str]) -> Named | None:
    """The clip that a folder is, by its number of five digits."""
    match = _NAME.fullmatch(without_track(where[-1])) if where else None
    return Named(match[1], where[-1]) if match else None


def _rows(config: DatasetConfig, scanned: Scan) -> Rows:
    files = annotation_files(config, scanned, TABLE)
    if not files:
        folder = where_tables_are(config)
        raise nothing_found(config, f"no list such as 'single/no_caption/set_1/train.txt' is under {folder}", WANTED)
    whole = {path: match for path, match in files.items() if match[1] == "no"}
    lists, malformed = [], []
    for path, match in sorted((whole or files).items()):
        for line, text in lines_of(where_tables_are(config), path):
            name, label = [*text.split(None, 2), "", ""][:2]
            clip = _NAME.fullmatch(name)
            if not clip:
                malformed.append(f"{line}: it names no clip")
            elif label not in CLASSES:
                malformed.append(f"{line}: the label '{label}' is not one of the {len(CLASSES)} emotions")
            else:
                lists.append((match[3], int(match[2]), line, clip[1], label))
    table, twice = listed(lists, ["part", "fold", "line", "key", "expression"], within=["part", "fold"])
    clips, report = from_folds(table)
    lists_read = {"lists": "single/no_caption" if whole else "single/with_caption, which lack the neutral clips"}
    return Rows(clips, malformed + twice, lists_read | report)
