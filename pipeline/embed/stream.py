"""Embeddings of frames that come one by one, such as a camera's.

    stream = embedder.stream(fps=25)
    for image in camera:                    # (H, W, 3) uint8 RGB
        for face in stream.push(image):     # face["person"], face["embedding"], face["class"], ...
            ...

A face's window holds its frames up to now. What is still to come is treated as what lies beyond the end of a video, by
the edge rule that the run was trained with. So an embedding is that of the last frame of the video so far. With
``delay_frames`` it comes so many frames later, and its window has these as well; 'window' waits until nothing is
missing. docs/live.md says what each costs.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.adapter.windows import Window, Windows
from pipeline.core.params import UserError
from pipeline.core.rates import seconds
from pipeline.embed.people import Picture, as_cut, as_whole
from pipeline.embed.table import new_columns
from pipeline.faces.find import make_detector
from pipeline.faces.live import LiveFaces
from pipeline.faces.video import Frame

if TYPE_CHECKING:
    from pipeline.embed.embedder import Embedder

NOT_LIVE = ("min_frames", "most_people", "landmarks")  # settings for which all of a video must be known


@dataclass
class _Person:
    """The frames of one face that windows may still need, and which of them wait for their embedding."""

    frames: list[int] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    waiting: deque[dict[str, Any]] = field(default_factory=deque)

    def forget(self, least: int) -> None:
        """Drops what lies before frame ``least``, but for one frame: it tells that the video began before."""
        kept = next((i for i in reversed(range(len(self.frames))) if self.frames[i] <= least), 0)
        del self.frames[:kept], self.features[:kept]


class Stream:
    """Takes frames by ``push``, in their order, and gives a row for each face in them.

    A row is a dict with the columns of ``Embedder.video`` but ``video``: ``pandas.DataFrame(rows)`` is such a table. A
    ``person`` is a track, p1, p2, ...: somebody who was away for half a second is a new one. What is kept does not
    grow with time.
    """

    def __init__(
        self, embedder: "Embedder", fps: float, delay_frames: int | Literal["window"], cut: dict[str, Any]
    ) -> None:
        if not (isinstance(fps, int | float) and 0 < fps < math.inf):
            raise UserError(f"fps must be a number above 0, and is {fps!r}")
        for name in cut:
            if name in NOT_LIVE:
                raise UserError(f"a stream cannot have {name}, which needs the whole video: leave it out")
        self.fps, self._embedder, self._settings = float(fps), embedder, embedder.cut_settings(cut)
        embedder.check_pictures(self._settings)
        self._windows = [adapter.window for adapter in embedder.adapters]
        behind, ahead = zip(*(reach(window, self.fps) for window in self._windows), strict=True)
        self._behind, self._mirrors = max(behind), any(window.edge != "mask" for window in self._windows)
        self.delay_frames = max(ahead) if delay_frames == "window" else delay_frames
        if isinstance(self.delay_frames, bool) or not isinstance(self.delay_frames, int) or self.delay_frames < 0:
            raise UserError(f"delay_frames must be 0 or more, or 'window', and is {delay_frames!r}")
        self._frozen = embedder.frozen_live
        self._faces = None
        if embedder.cuts:
            self._faces = LiveFaces(
                make_detector(self._settings), self._settings.every, self._settings.size, self._settings.enlarge
            )
        self._frozen([np.zeros((self._settings.size, self._settings.size, 3), np.uint8)])  # loaded before a frame waits
        self._people: dict[int, _Person] = {}
        self._number, self._time, self._start, self._closed = 0, -math.inf, None, False

    def push(self, image: np.ndarray, time_sec: float | None = None) -> list[dict[str, Any]]:
        """The rows that are ready: of this frame, or with ``delay_frames`` of that many frames ago.

        ``image`` is (H, W, 3) uint8 RGB. ``time_sec`` is when it was taken, by any clock: frames that were dropped in
        between are then missing in the windows, as they were in training. Without it no frame is missing. The rows of
        somebody out of sight that still wait come when it is known whether they have gone, within half a second.
        """
        frame = self._next(image, time_sec)
        pictures = self._pictures(frame)
        features = self._frozen([picture.image for picture in pictures])
        for picture, values in zip(pictures, features, strict=True):
            person = self._people.setdefault(picture.track, _Person())
            person.frames.append(picture.frame)
            person.features.append(values)
            person.waiting.append(self._keys(picture))
        there = self._faces.tracks if self._faces else {*self._people}
        return self._ready(there, frame.number - self.delay_frames)

    def close(self) -> list[dict[str, Any]]:
        """The rows that still wait for later frames, which will not come."""
        self._closed = True
        return self._ready(set(), self._number)

    def _next(self, image: np.ndarray, time_sec: float | None) -> Frame:
        if self._closed:
            raise UserError("the stream is closed: begin another one")
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"a frame must be an array (H, W, 3) uint8, and is {what}")
        if not image.size:
            raise UserError(f"a frame must have pixels, and is {image.shape}")
        if self._number and (time_sec is None) != (self._start is None):
            raise UserError("give time_sec of each frame or of none")
        number = self._number + 1
        if time_sec is None:
            time = (number - 1) / self.fps
        else:
            self._start = time_sec if self._start is None else self._start
            time = float(time_sec - self._start)
            if not self._time < time < math.inf:
                raise UserError(f"time_sec must rise, and is {time_sec} after {self._start + self._time}")
            number = max(number, round(time * self.fps) + 1)
        self._number, self._time = number, time
        return Frame(number, time, np.array(image, order="C"))  # a camera may write the next one over it

    def _pictures(self, frame: Frame) -> list[Picture]:
        if self._faces is None:
            return [as_whole(frame)]
        return [as_cut(seen, self._settings.quality) for seen in self._faces.see(frame)]

    def _keys(self, picture: Picture) -> dict[str, Any]:
        return {
            "person": f"p{picture.track}" if self._faces else "",
            "frame": picture.frame,
            "time_sec": picture.time_sec,
            "box": np.array(picture.box, np.float32),
            "confidence": picture.confidence,
        }

    def _ready(self, there: set[int], last: int) -> list[dict[str, Any]]:
        """The rows up to frame ``last``, and all of those who are not ``there`` any more."""
        rows = []
        for track, person in list(self._people.items()):
            due, known = [], last
            if self._mirrors:  # a frame beyond the last one is mirrored, and one that is only missing is masked
                known = min(last, person.frames[-1] - self.delay_frames)
            while person.waiting and (person.waiting[0]["frame"] <= known or track not in there):
                due.append(person.waiting.popleft())
            rows += self._embedded(person, due)
            if track not in there:
                del self._people[track]
            else:
                person.forget((person.waiting[0]["frame"] if person.waiting else self._number + 1) - self._behind)
        return rows

    def _embedded(self, person: _Person, due: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not due:
            return []
        frames = np.array(person.frames)
        windows = [live_windows(window, frames, self.fps) for window in self._windows]
        at = np.searchsorted(frames, [row["frame"] for row in due])
        z, predicted = self._embedder.embed_rows(np.stack(person.features), windows, at)
        columns = new_columns(z, predicted, self._embedder.facts)
        return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(due)]


def live_windows(window: Window, frames: np.ndarray, fps: float) -> Windows:
    """The windows of one face's ``frames`` (n,), whose numbers count the frames of a stream."""
    one = np.zeros(len(frames), dtype=np.int64)
    if window.in_seconds:
        return Windows(window, one, frames, np.full(len(frames), seconds(window.step) * fps), one + 1)
    return Windows(window, one, frames, window.step or 1)


def reach(window: Window, fps: float) -> tuple[int, int]:
    """How many frames of a stream a window reaches behind its centre, and ahead of it.

    Where a video is mirrored beyond its first frame, that reaches as far ahead as behind.
    """
    step = seconds(window.step) * fps if window.in_seconds else window.step or 1
    behind = window.frames // 2
    ahead = window.frames - 1 - behind if window.edge == "mask" else behind
    return tuple(math.ceil(places * step - 0.5 - 1e-6) for places in (behind, ahead))
