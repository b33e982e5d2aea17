"""Windows: T frames of one video, around a centre frame or one after the other, found without opening the store.

The frames are rows sorted by ``(video, frame)``: ``video`` (N,) holds codes that never decrease, ``frame`` (N,) numbers
that increase within a video. Frame numbers may start late and have gaps, and one video may count 1, 2, 3 where another
counts 1, 6, 11: how far apart neighbours are, the *spacing*, is a property of a video.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.numbering import numbered_alike, spacing
from pipeline.core.params import UserError, one_of
from pipeline.core.rates import FPS, frame_rates, seconds

# Frame numbers (W, T) that windows ask for, and the first and last number (W, 1) of their videos -> the numbers (W, T)
# that stand there instead. A number outside of the video is masked.
Edge = Callable[[NDArray, NDArray, NDArray], NDArray]


def mask(wanted: NDArray, first: NDArray, last: NDArray) -> NDArray:
    """Nothing stands beyond the ends of a video."""
    return wanted


def mirror(wanted: NDArray, first: NDArray, last: NDArray) -> NDArray:
    """The video runs backwards beyond its ends, and does not repeat its first or last frame: 3 2 | 1 2 3 4 | 3 2.

    Where a window is longer than that, the video is reflected again: 1 2 3 2 1 2 3. A video of one frame is that frame
    everywhere. Frames that are missing inside the video stay masked, in the reflection too.
    """
    length = last - first
    place = (wanted - first) % np.maximum(2 * length, 1)
    return first + np.minimum(place, 2 * length - place)


EDGES: dict[str, Edge] = {"mask": mask, "mirror": mirror}


@dataclass(frozen=True)
class Window:
    """What a window is: all that decides which frames stand in it.

    ``frames`` T is how many. ``step`` is how far apart they are: a whole number of frame numbers; a time such as
    '0.04s'; or None, the spacing of each video itself. ``edge`` says what stands beyond the ends of a video. A frame
    that is missing inside a video is always masked. ``spacing`` is that of most training videos: with a step of None
    the frames of every video are numbered so far apart.

    Raises ``UserError`` for a step that is neither, and for an unknown edge; ``ValueError`` for frames, a whole step or
    a spacing below 1.
    """

    frames: int
    step: int | str | None = None
    edge: str = "mask"
    spacing: int = 1

    def __post_init__(self) -> None:
        one_of("edge", self.edge, EDGES)
        if isinstance(self.step, str):
            if not seconds(self.step):
                raise UserError(f"step must be a number of frames, or seconds such as 0.04s, and is '{self.step}'")
        elif self.step is not None and self.step < 1:
            raise ValueError(f"a window needs a step of 1 or more, and has {self.step}")
        if self.frames < 1 or self.spacing < 1:
            raise ValueError(f"a window needs 1 or more frames and spacing, and has {self.frames} and {self.spacing}")

    @property
    def in_seconds(self) -> bool:
        return isinstance(self.step, str)

    def check_fps(self, fps: float | Path | None) -> None:
        """Raises ``UserError`` where the step is a time and nothing says how many frames a second there are."""
        if self.in_seconds and fps is None:
            raise UserError(f"the step of the windows is {self.step}, and seconds need --fps: {FPS}")

    def over(
        self, video: NDArray, frame: NDArray, videos: Sequence[str] = (), fps: float | Path | None = None
    ) -> "Windows":
        """The windows of N frames. ``videos`` are their names by code, and ``fps`` as in ``core.rates``.

        Both count only where the step is a time. Raises ``UserError`` where then the rate of a video is not known, and
        ``ValueError`` for rows that are not sorted by (video, frame) or repeat a key.
        """
        video, frame = np.asarray(video, dtype=np.int64), np.asarray(frame, dtype=np.int64)
        if self.step is None:
            return Windows(self, video, numbered_alike(video, frame, self.spacing), self.spacing)
        if not self.in_seconds:
            return Windows(self, video, frame, self.step)
        self.check_fps(fps)
        unit = spacing(video, frame)
        step = seconds(self.step) * frame_rates(fps, videos, video)[video] / unit
        return Windows(self, video, frame, np.nan_to_num(step, nan=1.0), unit)  # NaN: of a video of one frame


class Windows:
    """The windows of N frames, found by their numbers.

    ``number`` (N,) is the number of each frame, by which they are found. ``unit`` is how many numbers apart neighbours
    of a video are, and ``step`` how many units apart the frames of its windows are. Both are whole numbers, or, for a
    step that is a time, (N,), one for each frame. Such a step takes the nearest frame: at 0.04 s and 60 frames a second
    these are 0, 2, 5, 7, 10, 12 frames away. A step below a unit takes frames more than once.
    """

    def __init__(
        self, window: Window, video: NDArray, number: NDArray, step: int | NDArray, unit: int | NDArray = 1
    ) -> None:
        self.num_frames, self._edge = window.frames, EDGES[window.edge]
        self.video, self.number = video, number
        self._step, self._unit, self._whole = step, unit, isinstance(step, int)
        begins = np.concatenate([[True], np.diff(video) != 0])[: len(video)]
        start = np.flatnonzero(begins)
        self._place = np.cumsum(begins) - 1  # of each row's video among all: 0, 1, 2, ... however large the codes are
        self._first = number[start][self._place]
        self._last = number[np.append(start[1:], len(video)) - 1][self._place] if len(video) else number
        least = int(number.min()) if len(number) else 0
        stretch = int(number.max()) - least + 1 if len(number) else 1
        self._base = self._place * stretch - least
        self._key = self._base + number
        if (np.diff(video) < 0).any() or (np.diff(self._key) <= 0).any():
            raise ValueError("windows need rows sorted by (video, frame), each key once")

    def centred(self, centres: NDArray) -> NDArray[np.int64]:
        """Row numbers (W, T) of the windows around the rows ``centres`` (W,); -1 where there is no frame.

        Place j is the frame j - T // 2 steps away, so the centre is at T // 2, for an even T right of the middle. A
        missing frame is never replaced by a neighbour or by a frame of another video.
        """
        centres = np.asarray(centres, dtype=np.int64)
        places = np.arange(self.num_frames, dtype=np.int64) - self.num_frames // 2
        return self._rows(centres, self.number[centres, None] + self._distance(places[None], centres))[0]

    def sliding(
        self, wanted: NDArray, stride: int, within: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row numbers (W, T) of the windows, ``stride`` steps apart, that hold one of the rows ``wanted``; -1 as above.

        The second array (W, T) is True where a place lies inside its video, and False beyond an end. The windows of a
        video begin at its first frame and go on until one holds its last, so only that one reaches beyond the end.
        ``within`` the video it ends with the last frame instead; then only one longer than the video reaches beyond.
        Frames that lie between two steps are in windows of their own. So each frame is in one window at least, and in
        about T / stride of them. Windows without any wanted frame, as in a long gap, are left out.

        Raises ``ValueError`` for a stride that is not in 1 to T.
        """
        if not 1 <= stride <= self.num_frames:
            raise ValueError(f"windows of {self.num_frames} frames need a stride of 1 to as many, and it is {stride}")
        wanted = np.asarray(wanted, dtype=np.int64)
        if len(wanted) == 0:
            empty = np.empty((0, self.num_frames), dtype=np.int64)
            return empty, empty >= 0
        # Of the videos that are wanted, each frame as a number of steps behind another, with which a series begins.
        rows = np.arange(*np.searchsorted(self._place, [self._place[wanted].min(), self._place[wanted].max() + 1]))
        offset = self.number[rows] - self._first[rows]
        place = self._steps_within(offset, rows)
        rest = offset - self._distance(place[:, None], rows)[:, 0]

        order = np.lexsort((place, rest, self._place[rows]))  # of one series after the other
        series = np.stack([self._place[rows], rest])[:, order]
        begins = np.flatnonzero(np.concatenate([[True], (np.diff(series) != 0).any(axis=0)]))
        ends = np.append(begins[1:], len(order))
        of = np.repeat(np.arange(len(begins)), ends - begins)
        first, last = place[order[begins]], place[order[ends - 1]]
        chosen = np.isin(rows[order], wanted)
        of, at = of[chosen], (place[order] - first[of])[chosen]
        # Which windows of its series hold a wanted frame: those from low to high, of which the frame before may have
        # some.
        low = np.maximum(0, -((self.num_frames - 1 - at) // stride))
        final = np.maximum(0, -((self.num_frames - 1 - (last - first)) // stride))
        high = np.minimum(at // stride, final[of])
        before = np.append(-1, np.where(of[1:] == of[:-1], high[:-1], -1))
        low = np.maximum(low, before + 1)
        count = np.maximum(high - low + 1, 0)
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
        of = np.repeat(of, count)
        head = order[begins[of]]  # the first frame of the window's series
        start = number * stride
        if within:
            start = np.minimum(start, np.maximum(last[of] - first[of] - (self.num_frames - 1), 0))
        places = (first[of] + start)[:, None] + np.arange(self.num_frames, dtype=np.int64)
        begin = self._first[rows[head]] + rest[head]
        return self._rows(rows[head], begin[:, None] + self._distance(places, rows[head]))

    def every(self, stride: int) -> NDArray[np.int64]:
        """How many times ``stride`` steps each frame (N,) is behind the first of its video, rounded down."""
        offset, apart = self.number - self._first, self._step * self._unit * stride
        return offset // apart if self._whole else np.floor(offset / apart + 1e-9).astype(np.int64)

    def _distance(self, places: NDArray, rows: NDArray) -> NDArray[np.int64]:
        """How many numbers away (R or 1, T) what is ``places`` (R or 1, T) steps away is, in the videos of ``rows``."""
        if self._whole:
            return places * self._step * self._unit
        # The nearest; of two equally near ones that which is nearer to the start, up to rounding: 0.2 s * 30 is 6.
        away = np.ceil(np.abs(places) * self._step[rows, None] - 0.5 - 1e-6).astype(np.int64)
        return np.sign(places) * away * self._unit[rows, None]

    def _steps_within(self, offset: NDArray, rows: NDArray) -> NDArray[np.int64]:
        """How many steps (R,) lead from the first frame of a video to at most ``offset`` (R,) numbers behind it."""
        if self._whole:
            return offset // (self._step * self._unit)
        steps = np.floor(offset / (self._step * self._unit)[rows]).astype(np.int64) + 1
        return steps - (self._distance(steps[:, None], rows)[:, 0] > offset)

    def _rows(self, of: NDArray, wanted: NDArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The rows (W, T) of the numbers ``wanted`` (W, T) in the videos of the rows ``of`` (W,), and which lie inside.

        -1 where there is no such frame.
        """
        first, last = self._first[of, None], self._last[of, None]
        inside = (wanted >= first) & (wanted <= last)
        wanted = self._edge(wanted, first, last)
        there = (wanted >= first) & (wanted <= last)
        key = self._base[of, None] + np.where(there, wanted, first)
        rows = np.searchsorted(self._key, key)
        rows[~there | (self._key[np.minimum(rows, len(self._key) - 1)] != key)] = -1
        return rows, inside


def held(count: NDArray, num_frames: int, video: NDArray, videos: Sequence[str]) -> str | None:
    """How many frames windows of ``num_frames`` hold, in words; None where all hold that many.

    ``count`` (W,) are the frames in each window, ``video`` (W,) codes into ``videos``. Videos whose windows hold less
    than half on average are counted and one is named.
    """
    if (count == num_frames).all():
        return None
    codes, of = np.unique(video, return_inverse=True)
    few = codes[2 * np.bincount(of, count) < num_frames * np.bincount(of)]
    named = f"; less than half in {len(few):,} of {len(codes):,} videos, such as {videos[few[0]]}" if len(few) else ""
    return f"windows of {num_frames} hold {count.mean():.1f} frames on average{named}"
