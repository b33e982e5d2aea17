"""Windows: T frames of one video around a centre frame, as row numbers, found without opening the store.

The frames are rows sorted by ``(video, frame)``: ``video`` (N,) holds codes that never decrease, ``frame`` (N,) numbers
that increase within a video. Frame numbers may start late and have gaps.
"""

import numpy as np
import torch
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

    # One key for both columns: each video has a stretch of numbers of its own, wide enough for frames beyond its ends.
    margin = int(np.abs(offsets).max())
    stretch = int(frame.max() - frame.min()) + 2 * margin + 1
    place = np.concatenate([[0], np.cumsum(np.diff(video) != 0)])  # 0, 1, 2, ... however large the codes are
    key = place * stretch + (frame - frame.min() + margin)
    if (np.diff(video) < 0).any() or (np.diff(key) <= 0).any():
        raise ValueError("windows need rows sorted by (video, frame), each key once")

    wanted = key[centres, None] + offsets
    rows = np.searchsorted(key, wanted)
    rows[key[np.minimum(rows, len(key) - 1)] != wanted] = -1
    return rows


def typical_step(video: NDArray, frame: NDArray) -> int:
    """The smallest spacing that at least half of the neighbouring rows of a video do not exceed: the lower median.

    10 for a store that was extracted with stride 10, whatever its gaps; 1 when no video has two frames.
    """
    gaps = np.diff(frame)[np.diff(video) == 0]
    if len(gaps) == 0:
        return 1
    middle = (len(gaps) - 1) // 2
    return int(np.partition(gaps, middle)[middle])


def gather(features: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows' features (B, T, D) as float32 and ``valid`` (B, T): zeros and False where the row number is -1.

    ``features`` (N, D), of any dtype, and ``rows`` (B, T), int64, are on the same device.
    """
    valid = rows >= 0
    taken = features.index_select(0, rows.clamp(min=0).flatten()).view(*rows.shape, features.shape[1]).float()
    return taken.masked_fill(~valid.unsqueeze(-1), 0.0), valid
