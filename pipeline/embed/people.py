"""Faces of a video or picture: found and cut as ``python -m pipeline.faces`` does it, in memory.

Nothing is kept as pixels: of each face there is its JPEG, of the same bytes as the file that the command writes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.params import build
from pipeline.datasets.numbered import usual_and_how
from pipeline.extraction.frames import decode_bytes
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import Detector
from pipeline.faces.loop import encode_crop
from pipeline.faces.tracks import LOOK_LENGTH, Sighting, follow
from pipeline.faces.video import Frame

Progress = Callable[[int, int | None], None]  # how many are done, and of how many, or None; may raise, to stop


@dataclass(frozen=True)
class Picture:
    """What the backbone gets of one frame: one face, or all of the frame.

    ``image`` (H, W, 3) uint8 RGB is what ``jpeg`` holds; a frame that is taken whole was not encoded. ``box`` is left,
    top, right, bottom in pixels of the frame. ``confidence`` is NaN where nothing was detected: the face was followed
    between two frames, or the frame is taken whole. ``look`` tells people of one video apart (``faces.tracks.look``).
    """

    frame: int
    time_sec: float
    track: int
    box: tuple[float, ...]
    confidence: float
    look: np.ndarray
    image: np.ndarray
    jpeg: bytes | None


def cut_settings(given: dict[str, Any], crop_source: str) -> CutSettings:
    """The settings of ``pipeline.faces`` that are ``given`` by name, the others as they are by default.

    ``enlarge``, where it is not given or None, is that of the pictures of this ``crop_source``.
    """
    enlarge = given.get("enlarge")
    own = {"enlarge": usual_and_how(crop_source)[1] if enlarge is None else enlarge}
    return build(CutSettings, given | own, "faces")


def cut_pictures(frames: Iterable[Frame], detect: Detector, settings: CutSettings) -> Iterator[Picture]:
    """All faces, frame by frame."""
    for seen in follow(frames, detect, settings.every, settings.size, settings.enlarge):
        yield as_cut(seen, settings.quality)


def as_cut(seen: Sighting, quality: int) -> Picture:
    jpeg, box = encode_crop(seen.crop, quality), tuple(map(float, seen.box))
    return Picture(seen.frame, seen.time_sec, seen.track, box, seen.confidence, seen.look, decode_bytes(jpeg), jpeg)


def whole_pictures(frames: Iterable[Frame]) -> Iterator[Picture]:
    """Each frame as it is."""
    yield from map(as_whole, frames)


def as_whole(frame: Frame) -> Picture:
    height, width = frame.image.shape[:2]
    box = (0.0, 0.0, float(width), float(height))
    return Picture(frame.number, frame.time_sec, 1, box, np.nan, np.zeros(LOOK_LENGTH), frame.image, None)
