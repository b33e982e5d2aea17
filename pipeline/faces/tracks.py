"""Who is who: faces of single frames become tracks, tracks become people, people get names.

Appearance is what an aligned face looks like at 14 x 14, not a network's opinion. Within two clips of one talking face
its cosine stayed above 0.93, between the ten pairs of five people in one photograph it was 0.28 to 0.80. It tells
people of one video apart, in the light of that video; it is no face recognition.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from pipeline.faces.align import align_from, five_points
from pipeline.faces.detect import Detector, Faces
from pipeline.faces.video import Frame

LOOK_SIZE = 14
LOOK_LENGTH = 3 * LOOK_SIZE**2
SAME_TRACK_OVERLAP = 0.3  # intersection over union of a face with the same track's last one
SAME_TRACK_LOOK = 0.7  # with that overlap; below it, as at a cut, another face has taken the place
SAME_PERSON_LOOK = 0.88  # without any overlap
ASSUMED_FPS = 25  # of frames without times, for this only:
LOST_SEC = 0.5  # after so long unseen a track is over: what comes then is a new one, maybe of the same person
SUFFIX = r"(_left|_right|_p\d+)?"  # what ``suffixes`` gives
BESIDE = 0.95  # part of the common frames in which left and right must be the same two


@dataclass(frozen=True)
class Sighting:
    """One face in one frame: box (4,), points (5, 2), the aligned ``crop`` and its ``look``.

    ``confidence`` is NaN where the face was not detected, but interpolated between two frames or placed by landmarks.
    """

    frame: int
    time_sec: float
    track: int
    box: np.ndarray
    points: np.ndarray
    confidence: float
    crop: np.ndarray
    look: np.ndarray


def follow(
    frames: Iterable[Frame], detect: Detector, every: int = 1, size: int = 112, enlarge: float = 0.0
) -> Iterator[Sighting]:
    """All faces, frame by frame, with the number of their track; ``size`` and ``enlarge`` as in ``align_from``.

    Detection runs in every ``every``-th frame. Where the same tracks are in two such frames that follow each other,
    box and points in between are interpolated. Where a track begins or ends, each frame in between is looked at. A
    face seen for less than ``every`` frames may be missed. At most ``every`` frames are held at a time. No track goes
    on over a change of the picture's size, since places mean something else then.

    Interpolated points were as near to the detector's as those of optical flow (2 % apart at 5 frames), and steadier.
    """
    tracker, before, between = Tracker(), FrameFaces.nothing(), list[Frame]()

    def look_at(frame: Frame) -> FrameFaces:
        seen = FrameFaces.of(frame, detect(frame.image), size, enlarge)
        seen.tracks = tracker.match(seen)
        return seen

    def reach(frame: Frame, before: FrameFaces) -> Iterator[FrameFaces]:
        seen = look_at(frame)
        if between and set(seen.tracks) == set(before.tracks):
            yield from (_between(before, seen, middle, size, enlarge) for middle in between)
        else:
            for middle in between:
                step = look_at(middle)
                tracker.take(step)
                yield step
            seen.tracks = tracker.match(seen)
        tracker.take(seen)
        between.clear()
        yield seen

    for frame in frames:
        if before.frame is not None and frame.image.shape != before.frame.image.shape:
            if between:
                for seen in reach(between.pop(), before):
                    yield from seen.sightings()
            tracker.end_all()
            before = FrameFaces.nothing()
        if before.frame is not None and frame.number - before.frame.number < every:
            between.append(frame)
            continue
        for seen in reach(frame, before):
            before = seen
            yield from seen.sightings()
    if between:
        for seen in reach(between.pop(), before):
            yield from seen.sightings()


def placed(
    frames: Iterable[Frame], landmarks: Mapping[int, np.ndarray], size: int = 112, enlarge: float = 0.0
) -> Iterator[Sighting]:
    """The face of each frame whose number has ``landmarks`` (68, 2) or the like, all as one track.

    The box is around the landmarks, the confidence NaN. Landmarks that place no face are passed over.
    """
    for frame in frames:
        try:
            points = five_points(landmarks[frame.number])
            crop = align_from(frame.image, points, size, enlarge)
            usual = align_from(frame.image, points, size) if enlarge else crop
        except (KeyError, ValueError):
            continue
        box = np.concatenate([landmarks[frame.number].min(axis=0), landmarks[frame.number].max(axis=0)])
        yield Sighting(frame.number, frame.time_sec, 1, box, points, float("nan"), crop, look(usual))


@dataclass
class FrameFaces:
    """What was seen in one frame; ``tracks`` has the number of each face's track."""

    frame: Frame | None
    faces: Faces
    crops: list[np.ndarray]
    looks: np.ndarray
    tracks: list[int] = field(default_factory=list)

    @classmethod
    def nothing(cls) -> "FrameFaces":
        return cls(None, Faces(np.empty((0, 4)), np.empty((0, 5, 2)), np.empty(0)), [], np.empty((0, LOOK_LENGTH)))

    @classmethod
    def of(cls, frame: Frame, faces: Faces, size: int, enlarge: float = 0.0) -> "FrameFaces":
        """A face's look is that of the usual picture, whatever more the crop shows: not that of the background."""
        usual = [align_from(frame.image, points, size) for points in faces.points]
        crops = [align_from(frame.image, points, size, enlarge) for points in faces.points] if enlarge else usual
        return cls(frame, faces, crops, np.array([look(c) for c in usual]).reshape(-1, LOOK_LENGTH))

    def sightings(self) -> Iterator[Sighting]:
        for i, track in enumerate(self.tracks):
            yield Sighting(
                self.frame.number, self.frame.time_sec, track, self.faces.boxes[i], self.faces.points[i],
                float(self.faces.confidence[i]), self.crops[i], self.looks[i],
            )  # fmt: skip


def _between(one: FrameFaces, other: FrameFaces, frame: Frame, size: int, enlarge: float) -> FrameFaces:
    """The faces of ``one`` on their straight way to where they are in ``other``."""
    rows = [other.tracks.index(track) for track in one.tracks]
    part = (frame.number - one.frame.number) / (other.frame.number - one.frame.number)
    boxes = (1 - part) * one.faces.boxes + part * other.faces.boxes[rows]
    points = (1 - part) * one.faces.points + part * other.faces.points[rows]
    seen = FrameFaces.of(frame, Faces(boxes, points, np.full(len(boxes), np.nan)), size, enlarge)
    seen.tracks = one.tracks
    return seen


class Tracker:
    """Gives the faces of a frame the tracks of those that they go on from; a face that goes on from none begins one."""

    def __init__(self) -> None:
        self.next = 1
        self.alive: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}  # track -> last box, look, time

    def match(self, seen: FrameFaces) -> list[int]:
        """One track a face; nothing is taken over until ``take``."""
        tracks = list(range(self.next, self.next + len(seen.faces)))
        alive = [(t, *last) for t, last in self.alive.items() if _clock(seen.frame) - last[2] <= LOST_SEC]
        if not alive or not tracks:
            return tracks
        numbers, boxes, looks, _ = zip(*alive, strict=True)
        overlap, alike = overlaps(seen.faces.boxes, np.array(boxes)), seen.looks @ np.array(looks).T
        fits = (overlap >= SAME_TRACK_OVERLAP) & (alike >= SAME_TRACK_LOOK)
        for face, last in zip(*linear_sum_assignment(np.where(fits, overlap + alike, 0), maximize=True), strict=True):
            if fits[face, last]:
                tracks[face] = numbers[last]
        return tracks

    def end_all(self) -> None:
        self.alive = {}

    def take(self, seen: FrameFaces) -> None:
        self.alive = {t: last for t, last in self.alive.items() if _clock(seen.frame) - last[2] <= LOST_SEC}
        for track, box, look in zip(seen.tracks, seen.faces.boxes, seen.looks, strict=True):
            self.alive[track] = box, look, _clock(seen.frame)
            self.next = max(self.next, track + 1)


def _clock(frame: Frame) -> float:
    return frame.number / ASSUMED_FPS if math.isnan(frame.time_sec) else frame.time_sec


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) with others (m, 4), as (n, m)."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas, more = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    return common / np.maximum(areas[:, None] + more - common, 1e-12)


def look(crop: np.ndarray) -> np.ndarray:
    """Unit vector of an aligned face: its pattern in CIELAB without its brightness; colour counts three times."""
    small = cv2.resize(crop, (LOOK_SIZE, LOOK_SIZE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32).reshape(-1, 3)
    pattern = ((lab - [lab[:, 0].mean(), 128, 128]) * [1, 3, 3]).ravel()
    return pattern / max(np.linalg.norm(pattern), 1e-6)


def people(
    frames: Mapping[int, np.ndarray], looks: Mapping[int, np.ndarray], least_alike: float = SAME_PERSON_LOOK
) -> list[list[int]]:
    """Tracks of one person together: the most alike first, never two that are in one frame.

    ``frames`` has the frame numbers of each track and ``looks`` its mean look, of any length. Two tracks may be one
    person from a cosine of ``least_alike`` on.
    """
    tracks = list(frames)
    if not tracks:
        return []
    unit = np.array([looks[t] / max(np.linalg.norm(looks[t]), 1e-6) for t in tracks])
    alike = np.triu(unit @ unit.T, 1)
    one, other = np.nonzero(np.triu(alike >= least_alike, 1))
    person, seen = list(range(len(tracks))), {i: frames[t] for i, t in enumerate(tracks)}
    for pair in np.argsort(-alike[one, other], kind="stable"):
        a, b = person[one[pair]], person[other[pair]]
        if a != b and not len(np.intersect1d(seen[a], seen[b])):
            person = [a if p == b else p for p in person]
            seen[a] = np.concatenate([seen[a], seen.pop(b)])
    return [[t for t, p in zip(tracks, person, strict=True) if p == a] for a in sorted(set(person))]


def suffixes(sightings: pd.DataFrame) -> dict[int, str]:
    """What follows the video's name for each ``person`` in a table with frame, left, top, right, bottom.

    Nothing for one; ``_left`` and ``_right`` (in the picture) for two who stand side by side in half at least of the
    frames of the one seen less; else ``_p1``, ``_p2``, ... by first frame, then from the left.
    """
    centre = sightings.assign(x=sightings["left"] + sightings["right"], y=sightings["top"] + sightings["bottom"])
    order = centre.sort_values(["frame", "x"])["person"].unique().tolist()
    if len(order) == 1:
        return {order[0]: ""}
    if len(order) == 2:
        one, other = (centre[centre["person"] == p].set_index("frame")[["x", "y"]] for p in order)
        apart = (other - one).dropna()
        beside = 2 * len(apart) >= min(len(one), len(other)) and apart["x"].abs().median() > apart["y"].abs().median()
        right = (apart["x"] > 0).mean()
        if beside and max(right, 1 - right) >= BESIDE:
            return dict(zip(order if right > 0.5 else order[::-1], ("_left", "_right"), strict=True))
    return {person: f"_p{i}" for i, person in enumerate(order, start=1)}
