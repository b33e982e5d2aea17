"""Reads Aff-Wild2 as the ABAW challenges hand it out: folders of cropped frames, one annotation file a video and track.

    .../batch1/cropped_aligned/<video>/00001.jpg                                   at any depth
    .../EXPR_Classification_Challenge/Train_Set/<video>.txt                        the same for VA and AU
    .../training_set_annotations.txt                                               multi-task editions, one for all

Line ``i`` of an annotation file (its header is line 0) belongs to frame ``i``, or with ``first_frame: 0`` to ``i - 1``.
Of the names of the challenge's folders only the words matter that every edition keeps: EXPR, VA or AU, and train or
validation. A file whose header is not known is skipped as a whole, because nothing says which line belongs to which
frame, nor which column is what.
"""

import io
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pcsv

from pipeline.core.params import UserError
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES, Frames, Labels
from pipeline.datasets.config import DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.numbered import (
    by_name,
    cut_from,
    frame_folders,
    how_numbered,
    like_several_people,
    make_frame_table,
    names_not_understood,
    no_frame,
    not_understood,
)
from pipeline.datasets.scan import Folder, Scan, parts, scan

EXTENSIONS = (".jpg", ".jpeg", ".png")
CROP_SOURCES = ("cropped", "cropped_aligned")
WANTED = "Aff-Wild2: ROOT/.../<crop source>/<video>/00001.jpg, and the annotations as .txt files beside them"

TRACK_WORDS = {"expr": "expression", "expression": "expression", "va": "va", "au": "au"}
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
COLUMNS = {"expression": ["expression"], "va": ["valence", "arousal"], "au": ABAW_AUS}
INVALID = {"expression": -1, "va": -5, "au": -1}

_SIDE = re.compile(r"(.+?)_(left|right)", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # TrainSet, Train_Set and "train set" are train, set
_MTL_FILE = re.compile(r"(training|train|validation|val|test)_set_annotations?\.txt", re.IGNORECASE)
_MTL_HEADER = ["image", "valence", "arousal", "expression"]
_MTL_IMAGE = re.compile(r"(?:.*/)?([^/]+)/(\d{1,18})\.(?:jpg|jpeg|png)", re.IGNORECASE)


@dataclass(frozen=True)
class Annotation:
    """One track of one video: ``values`` (frames, columns of the track), NaN where there is no valid label."""

    split: str
    frames: np.ndarray
    values: np.ndarray
    source: str


Annotations = dict[str, dict[str, Annotation]]  # track -> video -> annotation


def read(config: DatasetConfig) -> Dataset:
    """The frames of one crop source, and a label row wherever at least one track is valid, with or without a frame.

    Raises ``UserError`` where no frame is found, where a video or an annotation is found twice, and where a video
    stands in two splits of one track. Whatever else cannot be read is skipped and reported.
    """
    check_config(config, WANTED, uses=["annotations", "frame_number", "first_frame"])
    config = replace(config, crop_source=config.crop_source or "cropped_aligned")
    scanned = scan(config.root, EXTENSIONS, enter=lambda name: not _is_other_crop(name, config.crop_source))
    folders = frame_folders(config, scanned.folders)
    videos, passed_over, strays = _choose_videos(config, scanned, folders)
    frames, without_number = make_frame_table(config, videos)

    base, texts, unreadable = _texts(config, scanned)
    per_video, lists, unused = find_annotations(base, texts)
    malformed: list[str] = []
    annotated, skipped_files = _read_per_video(base, per_video, malformed, config.first_frame)
    if not per_video:
        annotated, skipped_files = _read_lists(base, lists, malformed)
    multi_task, lists_read = None, per_video and lists and config.labels_mtl is not None and not config.folds
    if lists_read:
        multi_task, more_files = _read_lists(base, lists, malformed)
        skipped_files += more_files
    if config.annotations is not None and not per_video and not lists:
        raise UserError(f"data set 'abaw': no annotation file was found under {config.annotations}")

    used = _below(config.root, base, set(texts) - set(unused))
    strays += [path for path in scanned.others if path not in used]
    every = _videos(annotated) | _videos(multi_task or {})
    groups = {v: group_of(config.root, videos[v].path if v in videos else "", v) for v in every}
    unknown = not_understood(scanned.folders, folders)
    from_zero = frames.loc[frames["frame"] == 0, "video"].unique() if per_video and config.first_frame == 1 else []
    from_zero = sorted(set(from_zero) & _videos(annotated))
    return Dataset(
        Frames(frames, config.root, display_name(config), config.crop_source),
        Labels(_label_table(annotated, groups), ABAW_CLASSES, display_name(config)),
        {
            "warnings": _from_zero(from_zero, annotated) + names_not_understood(unknown, without_number),
            "frame_numbers": how_numbered(config, videos),
            "videos_numbered_from_0": counted(from_zero),
            "folders_whose_images_have_no_number": unknown,
            "images_without_number": counted(sorted(without_number)),
            "videos_named_like_one_of_several_people": like_several_people(groups),
            "annotated_videos": _count(annotated),
            "videos_without_annotation": counted(sorted(set(videos) - _videos(annotated))),
            "annotated_videos_without_frames": counted(sorted(_videos(annotated) - set(videos))),
            "malformed_lines": counted(malformed, most=50),
            "annotation_files_skipped": counted(skipped_files),
            "multi_task_lists_beside_them": counted(sorted(lists.values()) if lists_read else []),
            "annotation_lists_not_needed": counted(sorted(lists.values()) if per_video and not lists_read else []),
            "unreadable": counted(scanned.unreadable + unreadable),
            "folders_of_other_crops": counted(sorted(scanned.refused + passed_over)),
            "links_to_folders_already_read": counted(scanned.repeated),
            "stray_files": counted(sorted(strays), most=10),
        },
        skipped=len(malformed) + len(skipped_files) + len(scanned.unreadable) + len(unreadable),
        multi_task=Labels(_label_table(multi_task, groups), ABAW_CLASSES, display_name(config)) if multi_task else None,
    )


# --- frames ----------------------------------------------------------------------------------------------------------


def group_of(root: Path, path: str, video: str) -> str:
    """The raw video that ``video`` was cut from, by ABAW or by us: ``7`` for ``7_left``; ``video10_1`` is itself."""
    match = _SIDE.fullmatch(video)
    return match[1] if match else cut_from(root, path, video)


def _from_zero(videos: list[str], annotated: Annotations) -> list[str]:
    """The warning that labels are one frame off, if the first frame of these videos is 0."""
    if not videos:
        return []
    return [
        f"{len(videos):,} of {len(_videos(annotated)):,} annotated videos have a frame 0, such as '{videos[0]}', and "
        "the first line of an ABAW annotation belongs to frame 1: if your frames count from 0, all labels are one "
        "frame late: set dataset.first_frame: 0 in params.yaml, or --first-frame 0"
    ]


def _choose_videos(
    config: DatasetConfig, scanned: Scan, folders: list[Folder]
) -> tuple[dict[str, Folder], list[str], list[str]]:
    """Video -> its folder; folders of frames passed over; images in ``root`` itself, which belong to no video.

    A folder's crop source is told by the nearest folder around it that is called ``cropped...``. Where no folder
    is called so, all are taken.
    """
    root_name = os.path.basename(os.path.abspath(config.root))
    strays = [n for folder in folders if not folder.path for n in folder.names]
    folders = [folder for folder in folders if folder.path]
    crops = {f.path: _crop([root_name, *parts(f.path)[:-1]], config.crop_source) for f in folders}
    if any(crops.values()) or scanned.refused:
        chosen = [f for f in folders if crops[f.path] and belongs(crops[f.path], config.crop_source)]
    else:
        chosen = folders
    if not chosen:
        seen = sorted({crop for crop in crops.values() if crop} | {parts(path)[-1] for path in scanned.refused})
        if seen:
            raise UserError(
                f"data set 'abaw': crop source '{config.crop_source}' is not among {seen} under {config.root}; "
                "set dataset.crop_source in params.yaml, or --crop-source"
            )
        problem = no_frame(config, scanned)
        raise nothing_found(config, problem, WANTED, scanned.unreadable)
    taken = {folder.path for folder in chosen}
    return by_name(config.name, chosen), [f.path for f in folders if f.path not in taken], strays


def _is_other_crop(name: str, crop_source: str) -> bool:
    return name.startswith("cropped") and not belongs(name, crop_source)


def belongs(name: str, crop_source: str) -> bool:
    """``cropped_new_50_vids`` belongs to ``cropped``; ``cropped_aligned_new_50_vids`` to ``cropped_aligned`` alone."""
    fitting = [s for s in {*CROP_SOURCES, crop_source} if name == s or name.startswith(s + "_")]
    return max(fitting, key=len, default=None) == crop_source


def _crop(around: list[str], crop_source: str) -> str | None:
    """The name of the nearest of the folders ``around`` that tells how faces were cut."""
    return next((n for n in reversed(around) if n.startswith("cropped") or belongs(n, crop_source)), None)


# --- annotation files ------------------------------------------------------------------------------------------------


def _texts(config: DatasetConfig, scanned: Scan) -> tuple[Path, list[str], list[str]]:
    """The folder that holds the annotations, the .txt files in it, and what could not be read there."""
    base, unreadable = config.root, []
    if config.annotations is not None:
        base = config.annotations
        if not base.is_dir():
            raise UserError(f"data set 'abaw': there is no folder {base} (dataset.annotations)")
        scanned = scan(base, ())
        unreadable = scanned.unreadable
    return base, [path for path in scanned.others if path.lower().endswith(".txt")], unreadable


def _below(root: Path, base: Path, paths: Iterable[str]) -> set[str]:
    """``paths``, relative to ``base``, as paths relative to ``root``."""
    start = os.path.relpath(base.resolve(), root.resolve()).replace(os.sep, "/")
    return {(PurePosixPath(start) / path).as_posix() for path in paths}


def find_annotations(
    base: Path, texts: list[str]
) -> tuple[dict[str, dict[str, tuple[str, str]]], dict[str, str], list[str]]:
    """track -> video -> (split, file); split -> multi-task list; and the .txt files that are neither.

    Raises ``UserError`` for a video with two files in one track: two editions, or two splits.
    """
    per_video: dict[str, dict[str, tuple[str, str]]] = {}
    lists: dict[str, str] = {}
    unused = []
    for path in texts:
        name = PurePosixPath(path).name
        around = [os.path.basename(os.path.abspath(base)), *parts(path)[:-1]]
        track, split = _nearest(around, TRACK_WORDS), _nearest(around, SPLIT_WORDS)
        if name.startswith("."):
            unused.append(path)
        elif match := _MTL_FILE.fullmatch(name):
            split = SPLIT_WORDS[match[1].lower()]
            if split in lists:
                raise UserError(f"data set 'abaw': two lists for split '{split}': '{lists[split]}' and '{path}'")
            lists[split] = path
        elif track and split:
            video, files = name[: -len(".txt")], per_video.setdefault(track, {})
            if video in files:
                raise _annotated_twice(track, video, *files[video], split, path)
            files[video] = split, path
        else:
            unused.append(path)
    return per_video, lists, unused


def _nearest(around: list[str], words: dict[str, str]) -> str | None:
    """What the ``words`` in a folder's name stand for, of the innermost folder ``around`` whose name says one thing."""
    for folder in reversed(around):
        meanings = {words[w.lower()] for w in _WORD.findall(folder) if w.lower() in words}
        if len(meanings) == 1:
            return meanings.pop()
    return None


def _annotated_twice(track: str, video: str, split: str, path: str, other_split: str, other_path: str) -> UserError:
    files = f"'{path}' and '{other_path}'"
    if split != other_split:
        return UserError(f"data set 'abaw': video '{video}' is in {split} and in {other_split} of {track}: {files}")
    return UserError(
        f"data set 'abaw': video '{video}' has two annotations for {track}: {files}; "
        "choose one edition with dataset.annotations in params.yaml, or --annotations"
    )


def _read_per_video(
    base: Path, per_video: dict[str, dict[str, tuple[str, str]]], malformed: list[str], first_frame: int
) -> tuple[Annotations, list[str]]:
    """The annotations, and the files whose header is not known; malformed lines are appended to ``malformed``."""
    annotated: Annotations = {}
    skipped = []
    for track in sorted(per_video):
        for video, (split, path) in sorted(per_video[track].items()):
            header, lines, problem = _lines(base, path)
            names = _header(track, header)
            if problem or names is None:
                skipped.append(problem or f"{path}:1: not a header of {track}: {_quoted(header)}")
                continue
            values, problems = parse_numbers(lines, 1 if track == "expression" else len(names))
            problems |= _out_of_range(track, values, len(names))
            values[sorted(problems)] = np.nan
            malformed += _described(path, lines, problems)
            frames = np.arange(first_frame, first_frame + len(lines))
            annotated.setdefault(track, {})[video] = Annotation(split, frames, _to_columns(track, names, values), path)
    return annotated, skipped


def _read_lists(base: Path, lists: dict[str, str], malformed: list[str]) -> tuple[Annotations, list[str]]:
    """As ``_read_per_video``, from the lists of a multi-task edition: a row is an image and all its labels."""
    annotated: Annotations = {track: {} for track in COLUMNS}
    skipped = []
    for split, path in sorted(lists.items()):
        header, lines, problem = _lines(base, path)
        names = _fields(header)
        if problem or names[:4] != _MTL_HEADER or names[4:] not in (["aus"], ABAW_AUS):
            skipped.append(problem or f"{path}:1: not a header of a multi-task list: {_quoted(header)}")
            continue
        images, rests = zip(*(line.partition(b",")[::2] for line in lines), strict=True) if lines else ((), ())
        values, problems = parse_numbers(list(rests), 3 + len(ABAW_AUS))
        blocks = {"va": values[:, 0:2], "expression": values[:, 2:3], "au": values[:, 3:]}
        for track, block in blocks.items():
            problems |= _out_of_range(track, block, len(ABAW_CLASSES))
        keys: dict[tuple[str, int], int] = {}
        for row, image in enumerate(images):
            match = _MTL_IMAGE.fullmatch(image.decode(errors="replace").strip())
            key = (match[1], int(match[2])) if match else None
            if key is None or key in keys:
                problems[row] = "not <video>/<frame>.jpg" if key is None else f"as in line {keys[key] + 2}"
            elif row not in problems:
                keys[key] = row
        malformed += _described(path, lines, problems)
        _add_rows(annotated, split, path, keys, blocks)
    return {track: videos for track, videos in annotated.items() if videos}, skipped


def _add_rows(
    annotated: Annotations, split: str, path: str, keys: dict[tuple[str, int], int], blocks: dict[str, np.ndarray]
) -> None:
    """Adds the rows of one list to ``annotated``: ``keys`` gives the row of each (video, frame)."""
    table = pd.DataFrame([(*key, row) for key, row in keys.items()], columns=["video", "frame", "row"])
    for video, rows in table.sort_values(["video", "frame"]).groupby("video"):
        for track, block in blocks.items():
            if other := annotated[track].get(video):
                raise _annotated_twice(track, video, other.split, other.source, split, path)
            names = ABAW_CLASSES if track == "expression" else COLUMNS[track]
            labels = _to_columns(track, [n.lower() for n in names], block[rows["row"]])
            annotated[track][video] = Annotation(split, rows["frame"].to_numpy(), labels, path)


# --- lines -----------------------------------------------------------------------------------------------------------


def _lines(base: Path, path: str) -> tuple[bytes, list[bytes], str | None]:
    """Header, lines, and why the file could not be read."""
    try:
        content = (base / path).read_bytes()
    except OSError as error:
        return b"", [], f"{path}: {error.strerror}"
    header, *lines = content.removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    return header, lines, None


def _fields(header: bytes) -> list[str]:
    return [name.strip().lower() for name in header.decode(errors="replace").split(",")]


def _header(track: str, header: bytes) -> list[str] | None:
    """The header's names in its own order, lower case; None where they are not this track's.

    Early editions have fewer expressions or action units: what is named must be known, not complete.
    """
    names = _fields(header)
    known = {"expression": [c.lower() for c in ABAW_CLASSES], "va": COLUMNS["va"], "au": ABAW_AUS}[track]
    complete = track != "va" or len(names) == 2
    return names if set(names) <= set(known) and len(set(names)) == len(names) and complete else None


def parse_numbers(lines: list[bytes], width: int) -> tuple[np.ndarray, dict[int, str]]:
    """(lines, width) float64, and what is wrong with which line: such a line is NaN."""
    if not lines:
        return np.empty((0, width)), {}
    try:
        values = _all_numbers(lines, width)
    except pa.ArrowInvalid:
        values = None
    if values is not None and np.isfinite(values).all():
        return values, {}
    values, problems = np.full((len(lines), width), np.nan), {}
    for row, line in enumerate(lines):
        fields = line.split(b",")
        if not line.strip():
            problems[row] = "empty"
            continue
        if len(fields) != width:
            problems[row] = f"{len(fields)} values instead of {width}"
            continue
        numbers = [_float(field) for field in fields]
        if all(map(math.isfinite, numbers)):
            values[row] = numbers
        else:
            problems[row] = "not a number"
    return values, problems


def _all_numbers(lines: list[bytes], width: int) -> np.ndarray:
    """The quick way, for lines without a fault."""
    names = [str(i) for i in range(width)]
    table = pcsv.read_csv(
        io.BytesIO(b"\n".join(lines)),
        read_options=pcsv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pcsv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        convert_options=pcsv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64()), null_values=[]),
    )
    return np.column_stack([column.to_numpy() for column in table.columns])


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _out_of_range(track: str, values: np.ndarray, num_classes: int) -> dict[int, str]:
    """Rows with a value that is neither a label of the track nor its mark for 'invalid'; NaN is passed over."""
    if track == "va":
        good, wanted = (np.abs(values) <= 1) | (values == INVALID["va"]), "in [-1, 1] or -5"
    else:
        most = num_classes - 1 if track == "expression" else 1
        good = (values == np.floor(values)) & (values >= -1) & (values <= most)
        wanted = f"an integer from 0 to {most} or -1"
    bad = (~good & ~np.isnan(values)).any(axis=1)
    return dict.fromkeys(np.flatnonzero(bad).tolist(), f"not {wanted}")


def _to_columns(track: str, names: list[str], values: np.ndarray) -> np.ndarray:
    """``values`` under a header of ``names`` -> (rows, columns of the track), NaN where invalid.

    An expression becomes its number in ``ABAW_CLASSES``; one invalid value invalidates both of valence and arousal.
    """
    if track == "expression":
        numbers = [[c.lower() for c in ABAW_CLASSES].index(name) for name in names]
        lookup = np.array([*numbers, np.nan])  # -1 finds the last
        return lookup[np.nan_to_num(values, nan=-1).astype(np.int64)]
    labels = np.full((len(values), len(COLUMNS[track])), np.nan)
    labels[:, [COLUMNS[track].index(name) for name in names]] = values
    invalid = labels == INVALID[track]
    labels[invalid.any(axis=1) if track == "va" else invalid] = np.nan
    return labels


def _quoted(line: bytes) -> str:
    text = line.decode(errors="replace").strip("\r")
    return repr(text if len(text) <= 80 else text[:80] + "...")


def _described(path: str, lines: list[bytes], problems: dict[int, str]) -> list[str]:
    """``file:line: problem: 'text'``, lines numbered from 1 as editors do: the header is line 1, frame i is i + 1."""
    return [f"{path}:{row + 2}: {problems[row]}: {_quoted(lines[row])}" for row in sorted(problems)]


# --- the label table -------------------------------------------------------------------------------------------------


def _videos(annotated: Annotations) -> set[str]:
    return {video for videos in annotated.values() for video in videos}


def _count(annotated: Annotations) -> dict[str, dict[str, int]]:
    """track -> split -> number of videos."""
    splits = {track: [a.split for a in videos.values()] for track, videos in annotated.items()}
    return {track: {split: of.count(split) for split in sorted(set(of))} for track, of in sorted(splits.items())}


def _label_table(annotated: Annotations, groups: dict[str, str]) -> pd.DataFrame:
    """One row for each (video, frame) with a valid label; a track without any annotation has no columns.

    A split is the video's: it stands in all rows of a video annotated for the track, valid there or not.
    """
    tracks = [track for track in COLUMNS if track in annotated]
    keys: list[tuple[str, np.ndarray]] = []
    blocks: dict[str, list[np.ndarray]] = {track: [] for track in tracks}
    splits: dict[str, list[str | None]] = {track: [] for track in tracks}
    for video in sorted(_videos(annotated)):
        own = {track: annotated[track][video] for track in tracks if video in annotated[track]}
        frames = np.unique(np.concatenate([a.frames[~np.isnan(a.values).all(axis=1)] for a in own.values()]))
        keys.append((video, frames))
        for track in tracks:
            block = np.full((len(frames), len(COLUMNS[track])), np.nan)
            if track in own:
                _, here, there = np.intersect1d(frames, own[track].frames, assume_unique=True, return_indices=True)
                block[here] = own[track].values[there]
            blocks[track].append(block)
            splits[track].append(own[track].split if track in own else None)

    lengths = [len(frames) for _, frames in keys]
    columns = {
        "video": _repeat([video for video, _ in keys], lengths),
        "frame": np.concatenate([np.empty(0, np.int64), *(frames for _, frames in keys)]),
        "group": _repeat([groups[video] for video, _ in keys], lengths),
    }
    for track in tracks:
        columns |= _typed(track, np.concatenate(blocks[track]))
    columns |= {f"{track}_split": _repeat(splits[track], lengths) for track in tracks}
    return pd.DataFrame(columns)


def _repeat(values: list[str | None], lengths: list[int]) -> pd.Series:
    return pd.Series(np.repeat(np.array(values, dtype=object), lengths), dtype="str")


def _typed(track: str, block: np.ndarray) -> dict[str, object]:
    """The columns of a track in the types of the label table."""
    if track == "expression":
        codes = np.nan_to_num(block[:, 0], nan=-1).astype(np.int64)
        return {"expression": pd.Series(np.array([*ABAW_CLASSES, None], dtype=object)[codes], dtype="str")}
    if track == "va":
        return {"valence": block[:, 0].astype(np.float32), "arousal": block[:, 1].astype(np.float32)}
    missing = np.isnan(block)
    numbers = np.where(missing, 0, block).astype(np.int8)
    return {au: pd.arrays.IntegerArray(numbers[:, i], missing[:, i]) for i, au in enumerate(ABAW_AUS)}
