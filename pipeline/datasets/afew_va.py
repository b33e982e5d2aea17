"""Reads AFEW-VA: film clips as frames, with valence, arousal and 68 facial points for each.

    .../001/00000.png  and  .../001/001.json                                                     at any depth

The images are whole film frames: ``python -m pipeline.faces --landmarks afew_va`` cuts the faces out by the points. The
folder of such cut faces, named and numbered as the frames are, is read in the same way; ``annotations`` then names the
folder of the .json files.
Valence and arousal are integers from -10 to 10, divided by 10 here. The group is the actor where the file names one,
else the clip. There is no official split.
Kossaifi et al. 2017, https://doi.org/10.1016/j.imavis.2017.02.001
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.numbered import (
    by_name,
    frame_digits,
    frame_folders,
    how_numbered,
    make_frame_table,
    names_not_understood,
    no_frame,
    not_understood,
)
from pipeline.datasets.scan import scan

EXTENSIONS = (".png", ".jpg", ".jpeg")
WANTED = "AFEW-VA: ROOT/.../001/00000.png and ROOT/.../001/001.json"


@dataclass
class Clips:
    """The .json files: ``rows`` (video, frame, group, valence, arousal), ``points`` (video, frame, (68, 2) pixels)."""

    rows: list[tuple[str, int, str, float, float]] = field(default_factory=list)
    points: list[tuple[str, int, np.ndarray]] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    without_points: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # video -> .json


def read(config: DatasetConfig) -> Dataset:
    """All clips, with the frames that their .json files label.

    Raises ``UserError`` where no frame is found, or a clip or its annotation is found twice.
    """
    check_config(config, WANTED, uses=["annotations", "frame_number"])
    scanned = scan(config.root, EXTENSIONS)
    folders = [folder for folder in frame_folders(config, scanned.folders) if folder.path]
    if not folders:
        raise nothing_found(config, no_frame(config, scanned), WANTED, scanned.unreadable)
    videos = by_name(config.name, folders)
    frames, strays = make_frame_table(config, videos)
    unknown = not_understood(scanned.folders, folders)
    base, paths = _files(config, scanned.others)
    clips = _read_clips(base, paths)
    table = pd.DataFrame(clips.rows, columns=["video", "frame", "group", "valence", "arousal"])
    used = set(clips.files.values()) if base == config.root else set()
    return Dataset(
        Frames(frames, config.root, display_name(config), config.crop_source or "whole frames"),
        Labels(table.astype({"valence": "float32", "arousal": "float32"}), [], display_name(config)),
        {
            "warnings": names_not_understood(unknown, strays),
            "frame_numbers": how_numbered(config, videos),
            "folders_whose_images_have_no_number": unknown,
            "clips_without_annotation": counted(sorted(set(videos) - set(clips.files))),
            "annotated_clips_without_frames": counted(sorted(set(clips.files) - set(videos))),
            "malformed_frames": counted(clips.malformed, most=50),
            "frames_without_68_points": counted(clips.without_points),
            "annotation_files_skipped": counted(clips.skipped),
            "images_without_number": counted(sorted(strays)),
            "unreadable": counted(scanned.unreadable),
            "links_to_folders_already_read": counted(scanned.repeated),
            "stray_files": counted((path for path in scanned.others if path not in used), most=10),
        },
        skipped=len(clips.malformed) + len(clips.skipped) + len(scanned.unreadable),
    )


def landmarks(config: DatasetConfig) -> dict[str, tuple[str, dict[int, np.ndarray]]]:
    """Annotated video -> its .json file, and frame -> iBUG's 68 points (68, 2) in pixels.

    A frame without 68 points is left out here and named in the report of ``read``.
    https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/
    """
    check_config(config, WANTED, uses=["annotations"])
    clips = _read_clips(*_files(config, scan(config.root, EXTENSIONS).others))
    found: dict[str, tuple[str, dict[int, np.ndarray]]] = {video: (path, {}) for video, path in clips.files.items()}
    for video, frame, points in clips.points:
        found[video][1][frame] = points
    return found


def _files(config: DatasetConfig, others: list[str]) -> tuple[Path, list[str]]:
    """The folder that holds the annotations, and the .json files in it that are called like their folder."""
    base = config.root
    if config.annotations is not None:
        base = config.annotations
        if not base.is_dir():
            raise UserError(f"data set 'afew_va': there is no folder {base} (dataset.annotations)")
        others = scan(base, ()).others
    paths = [path for path in others if path.lower().endswith(".json") and frame_digits(path.rpartition("/")[2])]
    if config.annotations is not None and not paths:
        raise UserError(f"data set 'afew_va': no annotation such as 001.json was found under {base}")
    return base, paths


def _read_clips(base: Path, paths: list[str]) -> Clips:
    clips = Clips()
    for path in paths:
        video = path.rpartition("/")[2][: -len(".json")]
        if video in clips.files:
            raise UserError(f"data set 'afew_va': '{clips.files[video]}' and '{path}' both label '{video}'; keep one")
        clips.files[video] = path
        try:
            content = json.loads((base / path).read_text(encoding="utf-8"))
            frames, actor = content["frames"], content.get("actor")
            entries = sorted(frames.items())
        except OSError as error:
            clips.skipped.append(f"{path}: {error.strerror}")
        except (ValueError, KeyError, TypeError, AttributeError):
            clips.skipped.append(f"{path}: not JSON with 'frames'")
        else:
            group = actor if isinstance(actor, str) and actor else video
            for name, entry in entries:
                _read_frame(clips, path, video, group, name, entry)
    return clips


def _read_frame(clips: Clips, path: str, video: str, group: str, name: str, entry: Any) -> None:
    where = f"{path}: frame '{name}'"
    if not (name.isascii() and name.isdecimal() and len(name) <= 18 and isinstance(entry, dict)):
        clips.malformed.append(f"{where}: not a number with its labels")
        return
    values = [entry.get(key) for key in ("valence", "arousal")]
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if not good or max(map(abs, values)) > 10:
        clips.malformed.append(f"{where}: valence and arousal must be in [-10, 10], and are {values}")
    else:
        clips.rows.append((video, int(name), group, values[0] / 10, values[1] / 10))
    try:
        points = np.array(entry.get("landmarks"), dtype=np.float64)
    except (ValueError, TypeError):
        points = np.empty(0)
    if points.shape == (68, 2) and np.isfinite(points).all():
        clips.points.append((video, int(name), points))
    else:
        clips.without_points.append(where)
