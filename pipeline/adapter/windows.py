"""Windows: T frames of one video, around a centre frame or one after the other, found without opening the store.

The frames are rows sorted by ``(video, frame)``: ``video`` (N,) holds codes that never decrease, ``frame`` (N,) numbers
that increase within a video. Frame numbers may start late and have gaps, and one video may count 1, 2, 3 where another
counts 1, 6, 11: how far apart neighbours are, the *step*, is a property of a video.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def centred(video: NDArray, frame: NDArray, centres: NDArray, num_frames: int, step: int = 1) -> NDArray[np.int64]:
    """Row numbers (W, T) of the frames at ``step`` apart around each centre; -1 where the video lacks that frame.

    Place j is frame ``f_centre + (j - T // 2) * step``, so the centre is at T // 2, for an even T right of the middle.
    A missing frame (gap, either end of the video) is never replaced by a neighbour or by a frame of another video.

    Raises ``ValueError`` for rows that are not sorted by (video, frame) or repeat a key, and for T or step below 1.
    """
    if num_frames < 1 or step < 1:
        raise ValueError(f"a window needs num_frames >= 1 and step >= 1, and has {num_frames} and {step}")
    video, frame = np.asarray(video, dtype=np.int64), np.asarray(frame, dtype=np.int64)
    centres = np.asarray(centres, dtype=np.int64)
    if len(centres) == 0:
        return np.empty((0, num_frames), dtype=np.int64)
    offsets = (np.arange(num_frames, dtype=np.int64) - num_frames // 2) * step
    key = _keys(video, frame, int(np.abs(offsets).max()))
    return _rows_of(key, key[centres, None] + offsets)


def sliding(
    video: NDArray, frame: NDArray, wanted: NDArray, num_frames: int, step: int = 1, stride: int = 1
) -> NDArray[np.int64]:
    """Row numbers (W, T) of those windows, ``stride`` places apart, that hold one of the rows ``wanted``; -1 as above.

    The windows of a video begin at its first frame and go on until one holds its last, so only that one reaches beyond
    the end. A place is ``step`` frame numbers; frames in between are in windows of their own. So each frame is in one
    window at least, and in about T / stride of them. Windows without any wanted frame, as in a long gap, are left out.

    Raises ``ValueError`` as ``centred`` does, and for a stride that is not in 1 to T.
    """
    if num_frames < 1 or step < 1 or not 1 <= stride <= num_frames:
        raise ValueError(
            "windows need num_frames >= 1, step >= 1 and a stride of 1 to num_frames, and have "
            f"{num_frames}, {step} and {stride}"
        )
    video, frame = np.asarray(video, dtype=np.int64), np.asarray(frame, dtype=np.int64)
    wanted = np.asarray(wanted, dtype=np.int64)
    if len(wanted) == 0:
        return np.empty((0, num_frames), dtype=np.int64)
    key = _keys(video, frame, (num_frames - 1) * step)
    begins = np.flatnonzero(np.diff(video, prepend=video[0] - 1))  # of videos, and from here on of their series
    ends = np.append(begins, len(video))[1:]
    series = np.repeat(begins, ends - begins) * step + (key - np.repeat(key[begins], ends - begins)) % step

    order = np.lexsort((key, series))  # of one series after the other; as they are where the step is 1
    begins = np.flatnonzero(np.diff(series[order], prepend=series[order[0]] - 1))
    ends = np.append(begins, len(order))[1:]
    of = np.repeat(np.arange(len(begins)), ends - begins)
    first, last = key[order[begins]], key[order[ends - 1]]
    chosen = np.isin(order, wanted)
    of, place = of[chosen], ((key[order] - first[of]) // step)[chosen]
    # Which windows of its series hold a wanted frame: those from low to high, of which the frame before may have some.
    low = np.maximum(0, -((num_frames - 1 - place) // stride))
    final = np.maximum(0, -((num_frames - 1 - (last - first) // step) // stride))
    high = np.minimum(place // stride, final[of])
    before = np.append(-1, np.where(of[1:] == of[:-1], high[:-1], -1))
    low = np.maximum(low, before + 1)
    count = np.maximum(high - low + 1, 0)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    start = first[np.repeat(of, count)] + number * stride * step
    return _rows_of(key, start[:, None] + np.arange(num_frames, dtype=np.int64) * step)


def _keys(video: NDArray, frame: NDArray, margin: int) -> NDArray[np.int64]:
    """One key (N,) for both columns: each video has a stretch of numbers of its own, ``margin`` wider at both ends."""
    stretch = int(frame.max() - frame.min()) + 2 * margin + 1
    place = np.concatenate([[0], np.cumsum(np.diff(video) != 0)])  # 0, 1, 2, ... however large the codes are
    key = place * stretch + (frame - frame.min() + margin)
    if (np.diff(video) < 0).any() or (np.diff(key) <= 0).any():
        raise ValueError("windows need rows sorted by (video, frame), each key once")
    return key


def _rows_of(key: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the wanted keys are; -1 where they are not."""
    rows = np.searchsorted(key, wanted)
    rows[key[np.minimum(rows, len(key) - 1)] != wanted] = -1
    return rows


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
