"""Reads CK+, the whole of it or the popular copy "CK+48".

    .../S005/001/S005_001_00000011.png  and  .../Emotion/S005/001/S005_001_00000011_emotion.txt
    .../<anger|contempt|disgust|fear|happy|sadness|surprise>/S010_004_00000017.png               CK+48

A video is a sequence (``S005_001``), a frame's number is in its name, the group is the subject. A sequence goes from a
neutral face to the peak of an emotion, and 327 of 593 have an emotion: of those the first frame is neutral and the last
three are the emotion's, as CK+48 has them; what lies between is context without label, and so are the others.
CK+48's frames all have the label of their folder.
Lucey et al. 2010, https://doi.org/10.1109/CVPRW.2010.5543262
"""

import re
from pathlib import Path

import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.scan import Scan, parts, scan

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
CLASSES = ["neutral", "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"]
NUM_APEX = 3
WANTED = (
    "CK+: ROOT/.../S005/001/S005_001_00000011.png and the folder Emotion; "
    "or CK+48: ROOT/.../anger/S010_004_00000017.png"
)
IMAGE = re.compile(r"((S\d+)_(\d+))_(\d{1,18})")
SEQUENCE = re.compile(r"(S\d+)_\d+")  # the folder of a sequence whose faces were cut out: S005_001/00011.jpg
EMOTION = re.compile(r"((S\d+)_(\d+))_(\d{1,18})_emotion\.txt", re.IGNORECASE)


def read(config: DatasetConfig) -> Dataset:
    """All sequences of CK+, or all images of CK+48.

    Raises ``UserError`` where no image is found, where both forms are, and where a frame or a label is found twice.
    """
    check_config(config, WANTED, uses=["annotations"])
    scanned = scan(config.root, EXTENSIONS)
    table, strays = _images(scanned)
    if table.empty:
        problem = f"no image of a sequence was found under {config.root}"
        raise nothing_found(config, problem, WANTED, scanned.unreadable)
    by_folder = table["folder"].isin(CLASSES)
    if by_folder.any() and not by_folder.all():
        raise UserError(
            f"data set 'ckplus': both CK+48 and whole sequences lie under {config.root}, such as "
            f"'{table.loc[by_folder, 'path'].iloc[0]}' and '{table.loc[~by_folder, 'path'].iloc[0]}'; "
            "name the folder of one of them"
        )
    _refuse_twice(table)
    if by_folder.all():
        crop_source = "ck48"
        labels = table.assign(expression=table["folder"])
        emotions, problems, used, facts = {}, [], set(), {}
    else:
        crop_source = "whole frames"
        emotions, problems, used = _emotions(config, scanned)
        labels, facts = _apexes(table, emotions)
    name = display_name(config)
    return Dataset(
        Frames(table[["video", "frame", "path", "size"]], config.root, name, config.crop_source or crop_source),
        Labels(labels[["video", "frame", "group", "expression"]], CLASSES, name),
        facts
        | {
            "frame_numbers": {"the last number in the name": counted(table["video"].sort_values().unique(), most=3)},
            "sequences_without_emotion": counted(sorted(set(table["video"]) - set(labels["video"]))),
            "emotions_without_sequence": counted(sorted(set(emotions) - set(table["video"]))),
            "emotion_files_skipped": counted(problems),
            "images_outside_sequences": counted(sorted(strays)),
            "unreadable": counted(scanned.unreadable),
            "links_to_folders_already_read": counted(scanned.repeated),
            "stray_files": counted((path for path in scanned.others if path not in used), most=10),
        },
        skipped=len(problems) + len(strays) + len(scanned.unreadable),
    )


def _images(scanned: Scan) -> tuple[pd.DataFrame, list[str]]:
    """video, group, frame, folder (the nearest one's name, in lower case), path, size; and all other images."""
    rows, strays = [], []
    for folder in scanned.folders:
        last = parts(folder.path)[-1] if folder.path else ""
        cut = SEQUENCE.fullmatch(last)
        for name, size in zip(folder.names, folder.sizes, strict=True):
            stem, path = name.rpartition(".")[0], f"{folder.path}/{name}".lstrip("/")
            if match := IMAGE.fullmatch(stem):
                rows.append((match[1], match[2], int(match[4]), last.lower(), path, size))
            elif cut and stem.isascii() and stem.isdecimal():
                rows.append((last, cut[1], int(stem), last.lower(), path, size))
            else:
                strays.append(path)
    return pd.DataFrame(rows, columns=["video", "group", "frame", "folder", "path", "size"]), strays


def _refuse_twice(table: pd.DataFrame) -> None:
    twice = table[table.duplicated(["video", "frame"], keep=False)].sort_values(["video", "frame", "path"])
    if len(twice):
        one, other = twice["path"].iloc[:2]
        raise UserError(f"data set 'ckplus': '{one}' and '{other}' are the same frame; keep one")


def _emotions(config: DatasetConfig, scanned: Scan) -> tuple[dict[str, tuple[int, str]], list[str], set[str]]:
    """Sequence -> (its peak's number, class); the files that could not be read; the files in ``root`` that were."""
    base = config.root
    if config.annotations is not None:
        base = config.annotations
        if not base.is_dir():
            raise UserError(f"data set 'ckplus': there is no folder {base} (dataset.annotations)")
        scanned = scan(base, ())
    emotions: dict[str, tuple[int, str]] = {}
    problems, files = [], {}
    for path in scanned.others:
        match = EMOTION.fullmatch(path.rpartition("/")[2])
        if not match:
            continue
        sequence = match[1]
        if sequence in files:
            raise UserError(f"data set 'ckplus': '{files[sequence]}' and '{path}' both label {sequence}; keep one")
        files[sequence] = path
        emotion, problem = _emotion(base / path)
        if problem:
            problems.append(f"{path}: {problem}")
        else:
            emotions[sequence] = int(match[4]), emotion
    if config.annotations is not None and not files:
        raise UserError(f"data set 'ckplus': no '..._emotion.txt' was found under {base}")
    return emotions, problems, set(files.values()) if base == config.root else set()


def _emotion(path: Path) -> tuple[str, str | None]:
    """The class that a file names, and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        number = float(text)
    except OSError as error:
        return "", error.strerror
    except ValueError:
        return "", f"not a number: {text[:40]!r}"
    if number not in range(len(CLASSES)):
        return "", f"not an integer from 0 to {len(CLASSES) - 1}: {text[:40]!r}"
    return CLASSES[int(number)], None


def _apexes(table: pd.DataFrame, emotions: dict[str, tuple[int, str]]) -> tuple[pd.DataFrame, dict]:
    """The labelled rows: of a sequence with an emotion the first frame, and the last three up to its peak.

    The first is never an apex, so that a sequence of three frames has two of those, and one of one frame has one label.
    """
    rows, moved = [], []
    for video, own in table.sort_values(["video", "frame"]).groupby("video"):
        if video not in emotions:
            continue
        peak, emotion = emotions[video]
        if own["frame"].iloc[-1] != peak:
            moved.append(f"{video}: {peak}, and the last frame is {own['frame'].iloc[-1]}")
        rows.append(own.iloc[:1].assign(expression="neutral"))
        rows.append(own.iloc[1:][own["frame"].iloc[1:] <= peak].tail(NUM_APEX).assign(expression=emotion))
    labelled = pd.concat(rows, ignore_index=True) if rows else table.iloc[:0].assign(expression="")
    return labelled, {"sequences_whose_peak_is_not_their_last_frame": counted(moved)}
