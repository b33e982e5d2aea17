"""Reads RAVDESS after the stage ``faces``: a folder of frames for each clip, named like the clip.

    .../Actor_05/02-01-06-01-02-01-05/00001.jpg                   at any depth, with or without the actor's folder

The name is modality (01 audio and video, 02 video only, 03 audio only), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor. Modalities 01 and 02 are one take filmed once: of such a pair 01 is read.
The one label of a clip is also that of all its frames; the group is the actor.
Livingstone and Russo 2018, https://doi.org/10.1371/journal.pone.0196391
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from pipeline.core.clips import Clips
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import CUT_FIRST, DatasetConfig, check_config, display_name, nothing_found, videos_among
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.numbered import (
    by_name,
    frame_folders,
    how_numbered,
    make_frame_table,
    names_not_understood,
    not_understood,
)
from pipeline.datasets.scan import Folder, parts, scan

EXTENSIONS = (".jpg", ".jpeg", ".png")
CLASSES = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
WANTED = "RAVDESS, its faces cut out: ROOT/.../02-01-06-01-02-01-12/00001.jpg"
CLIP = re.compile(
    r"(?P<modality>\d\d)-(?P<take>(?P<channel>\d\d)-(?P<emotion>\d\d)-\d\d-\d\d-\d\d-(?P<actor>\d\d))"
    r"(?:_(?:left|right|p\d+))?"
)
PICTURES = ("01", "02")  # with sound, without
CHANNELS = ("01", "02")  # speech, song


def read(config: DatasetConfig) -> Dataset:
    """Every take once; raises ``UserError`` where no clip is found, or one is found twice.

    RAVDESS shows one person: where the stage ``faces`` cut several tracks out of a clip, the longest is read.
    """
    check_config(config, WANTED, uses=["frame_number"])
    scanned = scan(config.root, EXTENSIONS)
    raw = videos_among(scanned.others)
    folders = [folder for folder in frame_folders(config, scanned.folders) if folder.path]
    clips = [folder for folder in folders if _is_clip(folder)]
    if not clips:
        problem = f"no folder of frames named like a clip was found under {config.root}"
        problem += f", but {len(raw)} such as '{raw[0]}': {CUT_FIRST}" if raw else ""
        raise nothing_found(config, problem, WANTED, scanned.unreadable)
    read_from = {folder.path for folder in clips}
    others = [f"{f.path}/{n}".lstrip("/") for f in scanned.folders if f.path not in read_from for n in f.names]
    chosen, tracks, twins = _one_a_take(by_name(config.name, clips))
    takes = {CLIP.fullmatch(name)["take"] for name in chosen}
    frames, strays = make_frame_table(config, chosen)
    unknown = not_understood((f for f in scanned.folders if f.path and _is_clip(f)), folders)
    return Dataset(
        Frames(frames, config.root, display_name(config), config.crop_source or "cropped_aligned"),
        Labels(_label_table(frames), CLASSES, display_name(config)),
        {
            "warnings": names_not_understood(unknown, strays),
            "frame_numbers": how_numbered(config, chosen),
            "folders_whose_images_have_no_number": unknown,
            "takes_left_out_as_the_same_in_another_modality": counted(sorted(twins)),
            "shorter_tracks_left_out": counted(sorted(tracks)),
            "videos_not_cut_into_frames": counted(path for path in raw if not _stands_for(path, takes)),
            "images_outside_clips": counted(sorted(others + strays)),
            "unreadable": counted(scanned.unreadable),
            "links_to_folders_already_read": counted(scanned.repeated),
            "stray_files": counted((p for p in scanned.others if p not in set(raw)), most=10),
        },
        skipped=len(others) + len(strays) + len(scanned.unreadable),
        clips=Clips(_clip_table(chosen), CLASSES, display_name(config)),
    )


def _is_clip(folder: Folder) -> bool:
    match = CLIP.fullmatch(parts(folder.path)[-1])
    return (
        bool(match)
        and match["modality"] in PICTURES
        and match["channel"] in CHANNELS
        and 1 <= int(match["emotion"]) <= len(CLASSES)
    )


def _one_a_take(clips: dict[str, Folder]) -> tuple[dict[str, Folder], list[str], list[str]]:
    """The clips to read; what was left out as a shorter track, and as the other modality of a take."""
    order = sorted(clips, key=lambda name: (CLIP.fullmatch(name)["modality"], -len(clips[name].names), name))
    chosen: dict[str, str] = {}  # take -> clip
    tracks, twins = [], []
    for name in order:
        modality, take = CLIP.fullmatch(name).group("modality", "take")
        first = chosen.setdefault(take, name)
        if first != name:
            (tracks if first.startswith(f"{modality}-") else twins).append(clips[name].path)
    return {name: clips[name] for name in chosen.values()}, tracks, twins


def _stands_for(path: str, takes: set[str]) -> bool:
    """Whether a video file's take is among those read, or the file has no picture."""
    match = CLIP.fullmatch(PurePosixPath(path).stem)
    return bool(match) and (match["modality"] not in PICTURES or match["take"] in takes)


def _clip_table(clips: Iterable[str]) -> pd.DataFrame:
    """A row a clip, which is all of its video."""
    names = sorted(clips)
    matches = [CLIP.fullmatch(name) for name in names]
    unset = pd.array([pd.NA] * len(names), "Int64")
    table = pd.DataFrame({"clip": names, "video": names, "start": unset, "end": unset})
    table["group"] = [f"Actor_{match['actor']}" for match in matches]
    return table.assign(expression=[CLASSES[int(match["emotion"]) - 1] for match in matches])


def _label_table(frames: pd.DataFrame) -> pd.DataFrame:
    clips = frames["video"].unique()
    emotion = {name: CLASSES[int(CLIP.fullmatch(name)["emotion"]) - 1] for name in clips}
    actor = {name: f"Actor_{CLIP.fullmatch(name)['actor']}" for name in clips}
    table = frames[["video", "frame"]].assign(frame=frames["frame"].astype(np.int64))
    return table.assign(group=table["video"].map(actor), expression=table["video"].map(emotion))
