"""How the frames of a video are numbered: 1, 2, 3 in one, 1, 6, 11 in another.

Rows are sorted by (video, frame): ``video`` (N,) never decreases, ``frame`` (N,) increases within a video.
"""

import numpy as np
from numpy.typing import NDArray


def spacing(video: NDArray, frame: NDArray) -> NDArray[np.int64]:
    """The step (N,) of each row's video: the gap between neighbouring frame numbers that the video has most often.

    Of equally frequent gaps it is the smallest. A video without two equal gaps does not show its own step: it gets the
    step of most videos, or, where no video shows one, the most frequent gap of all; 1 where there is no gap at all.
    Rows are sorted by (video, frame).
    """
    video, frame = np.asarray(video), np.asarray(frame, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(video) != 0]))[: len(video)]
    number = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(video))))
    own = np.zeros(len(starts), dtype=np.int64)
    inside = np.flatnonzero(np.diff(video) == 0)
    gaps, code = np.unique(frame[inside + 1] - frame[inside], return_inverse=True)
    pairs, counts = np.unique(number[inside] * len(gaps) + code, return_counts=True)  # of a video and a gap
    of, gap = (pairs // len(gaps), gaps[pairs % len(gaps)]) if len(gaps) else (pairs, pairs)
    order = np.lexsort((-gap, counts, of))  # in each video the best gap comes last
    last = order[np.flatnonzero(np.diff(of[order], append=-1))]
    shown = last[counts[last] > 1]
    own[of[shown]] = gap[shown]
    if len(shown):
        steps, of_videos = np.unique(own[own > 0], return_counts=True)
    else:
        steps, of_videos = gaps, np.bincount(code, minlength=len(gaps))
    own[own == 0] = steps[of_videos.argmax()] if len(steps) else 1
    return own[number]


def common_step(video: NDArray, frame: NDArray) -> int:
    """The step that most videos have, the smallest of equally frequent ones; 1 without rows."""
    steps = spacing(video, frame)[np.concatenate([[True], np.diff(video) != 0])[: len(video)]]
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()]) if len(values) else 1


def numbered_alike(video: NDArray, frame: NDArray, step: int) -> NDArray[np.int64]:
    """Frame numbers (N,) as if the neighbouring frames of each video were ``step`` numbers apart.

    So the same frames get the same numbers, up to where a video begins, whether they are called 1, 2, 3 or 1, 6, 11. A
    video that has this step keeps its numbers. In another one each gap is multiplied by ``step`` / the video's own step
    and rounded, to 1 at least. Rows are sorted by (video, frame), and stay so.
    """
    frame, own = np.asarray(frame, dtype=np.int64), spacing(video, frame)
    new = np.concatenate([[True], np.diff(video) != 0])[: len(frame)]
    gaps = np.diff(frame, prepend=0)
    scaled = np.where(own == step, gaps, np.maximum((2 * gaps * step + own) // (2 * own), 1))
    scaled[new] = 0
    total, start = np.cumsum(scaled), np.flatnonzero(new)
    length = np.diff(np.append(start, len(frame)))
    return total - np.repeat(total[start] - frame[start], length)


def every_nth(video: NDArray, frame: NDArray, nth: int) -> NDArray[np.bool_]:
    """Mask (N,) of every ``nth`` frame of each video, of a video that counts 1, 6, 11 as of one that counts 1, 2, 3.

    They are the frames whose number divided by the video's step, rounded down, is a multiple of ``nth``. So every 20th
    frame is one of every 10th, and further frames of a video do not move the choice. Rows are sorted by (video, frame).
    """
    return np.asarray(frame, dtype=np.int64) // spacing(video, frame) % nth == 0
