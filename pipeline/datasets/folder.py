"""Reads folders of images, one folder a class: ``<class>/*.jpg`` or ``<split>/<class>/*.jpg``.

An image directly in a class folder is a video of its own, with frame 0, named ``[<split>/]<class>/<stem>``. A folder
inside a class folder is a video whose frames are its images. The group is the video, or the raw one that
``<video>_left`` and ``<video>_right`` were cut from: where others show one person, this reader cannot know it. Video
files are named and not read: faces are cut out of them first.
"""

from collections import Counter

import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import CUT_FIRST, DatasetConfig, check_config, display_name, nothing_found, videos_among
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.missing import in_words, is_missing, missing_labels
from pipeline.datasets.numbered import cut_from, like_several_people
from pipeline.datasets.order import frame_numbers
from pipeline.datasets.scan import Folder, Scan, parts, scan

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
COLUMNS = ["video", "frame", "path", "size", "group", "expression", "expression_split"]
WANTED = "a folder of images for each class: ROOT/<class>/*.jpg, or ROOT/<train, val or test>/<class>/*.jpg"


def read(config: DatasetConfig) -> Dataset:
    """The official split where ``root`` holds split folders, and only they are read; else none.

    Raises ``UserError`` where nothing is found, or two folders stand for one split.
    """
    check_config(config, WANTED, uses=["frame_number", "missing"])
    scanned = scan(config.root, EXTENSIONS)
    official = _split_folders(scanned)
    depth = 2 if official else 1
    paths = {folder.path for folder in scanned.folders}
    classes = {split: Counter() for split in official.values() or [None]}
    rows, outside, without_number = [], [], []
    sequences = {f.path: f.names for f in scanned.folders if f.names and _is_sequence(f, depth, official)}
    numbers, rules = frame_numbers(config.name, sequences, config.frame_number)
    for folder in scanned.folders:
        where = parts(folder.path)
        if len(where) < depth or (official and where[0] not in official):
            outside += [f"{folder.path}/{name}".lstrip("/") for name in folder.names]
            continue
        split = official.get(where[0])
        classes[split][where[depth - 1]] += len(folder.names)
        taken = _images(folder, paths) if len(where) == depth else _sequence(folder, numbers.get(folder.path, []))
        without_number += [path for _, number, path, _ in taken if number is None]
        taken = [row for row in taken if row[1] is not None]
        group = None if len(where) == depth else cut_from(config.root, folder.path, folder.path)
        rows += [(*row, group or row[0], where[depth - 1], split) for row in taken]
    videos = videos_among(scanned.others)
    if not rows:
        problem = f"no image was found in a class folder under {config.root}"
        problem += f", but {len(videos)} such as '{videos[0]}': {CUT_FIRST}" if videos else ""
        raise nothing_found(config, problem, WANTED, scanned.unreadable)

    table = pd.DataFrame(rows, columns=COLUMNS)
    groups = dict(zip(table["video"], table["group"], strict=True))
    none = is_missing(table["expression"], config)
    no_label = missing_labels(table["expression"], none)
    table["expression"] = table["expression"].mask(none)
    names = sorted(table["expression"].dropna().unique())
    split_column = ["expression_split"] if official else []
    labels = table.loc[table["expression"].notna(), ["video", "frame", "group", "expression", *split_column]]
    name = display_name(config)
    return Dataset(
        Frames(table[["video", "frame", "path", "size"]], config.root, name, config.crop_source or "as given"),
        Labels(labels, names, name),
        {
            "warnings": in_words(no_label),
            "frame_numbers": rules,
            "videos_named_like_one_of_several_people": like_several_people(
                {v: groups[v] for v in numbers if v in groups}
            ),
            "images_without_number": counted(sorted(without_number)),
            "labels_missing": no_label,
        }
        | _report(scanned, official, classes, names, outside),
        skipped=len(outside) + len(without_number) + len(scanned.unreadable),
    )


def _split_folders(scanned: Scan) -> dict[str, str]:
    """Folder at the top -> split; {} where no folder has a split's name."""
    tops = sorted({parts(folder.path)[0] for folder in scanned.folders if folder.path})
    official = {top: SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in SPLIT_FOLDERS}
    for split, count in Counter(official.values()).items():
        if count > 1:
            both = [top for top in official if official[top] == split]
            raise UserError(f"data set 'folder': the folders {both} all stand for the split '{split}'; keep one")
    return official


def _images(folder: Folder, paths: set[str]) -> list[tuple[str, int, str, int]]:
    """(video, frame, path, size) of single images; the extension is in the name only where the stem is not unique."""
    stems = Counter(name.rpartition(".")[0] for name in folder.names)
    rows = []
    for name, size in zip(folder.names, folder.sizes, strict=True):
        stem, path = name.rpartition(".")[0], f"{folder.path}/{name}"
        video = f"{folder.path}/{stem}"
        rows.append((path if stems[stem] > 1 or video in paths else video, 0, path, size))
    return rows


def _is_sequence(folder: Folder, depth: int, official: dict[str, str]) -> bool:
    """Whether a folder lies in a class folder, so that its images are the frames of a video."""
    where = parts(folder.path)
    return len(where) > depth and (not official or where[0] in official)


def _sequence(folder: Folder, numbers: list[int | None]) -> list[tuple[str, int | None, str, int]]:
    """(video, frame, path, size) of a video's images."""
    images = zip(numbers, folder.names, folder.sizes, strict=True)
    return [(folder.path, number, f"{folder.path}/{name}", size) for number, name, size in images]


def _report(scanned: Scan, official: dict[str, str], classes: dict, names: list[str], outside: list[str]) -> dict:
    """``classes`` counts the images of each class folder, per split (None where none is official)."""
    empty = [f"{split}/{c}" if split else c for split in classes for c, images in classes[split].items() if not images]
    missing = [f"{split}: {c}" for split in classes for c in names if not classes[split][c]] if official else []
    return {
        "empty_class_folders": counted(sorted(empty)),
        "classes_missing_in_a_split": counted(sorted(missing)),
        "images_outside_class_folders": counted(sorted(outside)),
        "unreadable": counted(scanned.unreadable),
        "links_to_folders_already_read": counted(scanned.repeated),
        "videos_not_cut_into_frames": counted(videos_among(scanned.others)),
        "stray_files": counted(scanned.others, most=10),
    }
