"""Reads DFEW: clips of films with one of seven expressions, in five published folds.

    Clip/clip_224x224/clip_224x224_part_1/00001/00001_00001.jpg     the y-th frame of clip x is x_y.jpg
    EmoLabel_DataSplit/train(single-labeled)/set_1.csv              video_name,label; 1 to 5
    EmoLabel_DataSplit/test(single-labeled)/set_1.csv

Labels are 1 Happy, 2 Sad, 3 Neutral, 4 Angry, 5 Surprise, 6 Disgust, 7 Fear. The layout is that of the README in the
release, and of the authors' own code, https://github.com/jiangxingxun/DFEW, where the tables are
``label/single_trainset_1.csv``. Numbers of frames have gaps, where no face was found. Faces that the command ``faces``
cut out of ``Clip/original`` are read as well: ``cropped_aligned/1/00001.jpg``. Nobody published whose film or face a
clip is: each clip is its own group. Jiang et al. 2020, https://doi.org/10.1145/3394171.3413620
"""

import re
from pathlib import Path

from pipeline.core.params import UserError
from pipeline.datasets.clip_folders import (
    EXTENSIONS,
    USES,
    Named,
    Rows,
    annotation_files,
    assemble,
    from_folds,
    listed,
    where_tables_are,
    without_track,
)
from pipeline.datasets.config import DatasetConfig, check_config, nothing_found
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.scan import Scan, scan
from pipeline.datasets.sheet import read_text, rows_of

CLASSES = ["Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear"]
WANTED = "DFEW: folders of frames such as 00001, and EmoLabel_DataSplit/test(single-labeled)/set_1.csv"
TABLE = re.compile(
    r"(?:.*/)?(?:(train|test) ?\(single[-_ ]label+ed\)/(?:\1_)?set_(\d)|single_(train|test)set_(\d))\.csv"
)
_NUMBER = re.compile(r"0*(\d{1,5})(?:\.mp4)?")


def read(config: DatasetConfig) -> Dataset:
    """Raises ``UserError`` where there are no tables, or none of their clips has frames."""
    check_config(config, WANTED, uses=USES)
    scanned = scan(config.root, EXTENSIONS)
    return assemble(config, WANTED, scanned, named, _rows(config, scanned), CLASSES)


def named(where: list[str]) -> Named | None:
    """The clip that a folder is, by its number."""
    match = _NUMBER.fullmatch(without_track(where[-1])) if where else None
    return Named(_key(match[1]), where[-1]) if match else None


def _key(number: str) -> str:
    return f"{int(number):05d}"


def _rows(config: DatasetConfig, scanned: Scan) -> Rows:
    files = annotation_files(config, scanned, TABLE)
    if not files:
        folder = where_tables_are(config)
        raise nothing_found(
            config, f"no table such as 'test(single-labeled)/set_1.csv' was found under {folder}", WANTED
        )
    malformed: list[str] = []
    lists = [
        (part, int(fold), line, key, label)
        for path, match in sorted(files.items())
        for part, fold in [(match[1] or match[3], match[2] or match[4])]
        for line, key, label in _table(where_tables_are(config) / path, path, malformed)
    ]
    table, twice = listed(lists, ["part", "fold", "line", "key", "expression"], within=["part", "fold"])
    clips, report = from_folds(table)
    return Rows(clips, malformed + twice, report)


def _table(path: Path, name: str, malformed: list[str]) -> list[tuple[str, str, str]]:
    """(line, key, expression) of each row that is understood."""
    names, lines = rows_of(read_text(path, "data set 'dfew'"), f"data set 'dfew': {name}")
    if not {"video_name", "label"} <= set(names):
        raise UserError(f"data set 'dfew': {name} has the columns {names}, and not video_name and label")
    video, label = names.index("video_name"), names.index("label")
    found = []
    for number, row in lines:
        if not row:
            continue
        if len(row) != len(names) or not (match := _NUMBER.fullmatch(row[video].strip())):
            malformed.append(f"{name} line {number}: it names no clip")
        elif (text := re.sub(r"\.0+$", "", row[label].strip())) not in map(str, range(1, len(CLASSES) + 1)):
            malformed.append(
                f"{name} line {number}: the label {row[label].strip()!r} is not one of 1 to {len(CLASSES)}"
            )
        else:
            found.append((f"{name} line {number}", _key(match[1]), CLASSES[int(text) - 1]))
    return found
