"""Faces in a video or picture: found, cut, encoded and told apart as ``python -m pipeline.faces`` does, in memory.

Nothing is kept as pixels: of each face there is its JPEG, of the same bytes as the file that the command writes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.params import build
from pipeline.extraction.frames import decode_bytes
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import DETECTORS, Detector
from pipeline.faces.loop import encode_crop
from pipeline.faces.tracks import LOOK_LENGTH, follow
from pipeline.faces.video import Frame

Progress = Callable[[int, int | None], None]  # frames done, and of how many, or None; may raise to stop
BOX = ["left", "top", "right", "bottom"]


@dataclass(frozen=True)
class Picture:
    """One face in one frame, or a whole frame, as the backbone gets it.

    ``jpeg`` is the aligned face; None of a whole frame. ``confidence`` is NaN where it was not detected, but followed
    between two frames, and for a whole frame.
    """

    frame: int
    time_sec: float
    track: int
    box: tuple[float, ...]
    confidence: float
    image: np.ndarray
    jpeg: bytes | None
    look: np.ndarray


def cut_settings(given: dict[str, Any]) -> CutSettings:
    """The settings of ``pipeline.faces`` that are ``given`` by name; all others have their defaults."""
    return build(CutSettings, given, "faces")


def make_detector(settings: CutSettings) -> Detector:
    return DETECTORS[settings.detector](settings.min_face, settings.confidence)


def cut_pictures(frames: Iterable[Frame], detect: Detector, settings: CutSettings) -> Iterator[Picture]:
    """All faces, frame by frame, with the number of their track."""
    for seen in follow(frames, detect, settings.every, settings.size):
        jpeg = encode_crop(seen.crop, settings.quality)
        box = tuple(map(float, seen.box))
        yield Picture(seen.frame, seen.time_sec, seen.track, box, seen.confidence, decode_bytes(jpeg), jpeg, seen.look)


def whole_pictures(frames: Iterable[Frame]) -> Iterator[Picture]:
    """Each frame as it is: for a run that was trained on pictures as given."""
    for frame in frames:
        height, width = frame.image.shape[:2]
        box = (0.0, 0.0, float(width), float(height))
        yield Picture(frame.number, frame.time_sec, 1, box, float("nan"), frame.image, None, np.zeros(LOOK_LENGTH))
