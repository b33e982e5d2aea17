"""Frame numbers of times in seconds.

A frame is inside of ``start_sec`` to ``end_sec`` where its time is at least the first and less than the second. Its
time is that of ``faces.parquet``, where the command ``faces`` cut the frames or ``dataset.fps`` names such a table.
Given a rate it is ``(number - first_frame) / fps``.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.files import check_digest, has_digest
from pipeline.core.params import UserError
from pipeline.core.rates import FACES, check_rate, frame_rates
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.numbered import CROPS
from pipeline.datasets.sheet import number_of

ROUNDING = 1e-6  # of a frame: 0.1 s at 30 frames/s is the frame 3, and 0.1 * 30 is a little more than 3


def seconds_of(text: str) -> float:
    """3.5 of '3.5', '3,5' or '00:00:03.5'; NaN for what is no time."""
    *larger, last = text.split(":")
    if len(larger) > 2 or not all(part.isdecimal() for part in larger):
        return math.nan
    value = number_of(last) if "-" not in last else math.nan
    for power, part in enumerate(reversed(larger), start=1):
        value += 60**power * int(part)
    return value if value >= 0 else math.nan


def frames_at(config: DatasetConfig, frames: pd.DataFrame, video: pd.Series, seconds: pd.Series) -> pd.Series:
    """The first frame (Int64) of each ``video`` (n,) that is not before ``seconds`` (n,); NA where there are none.

    ``frames`` is the frame table. With a table of times, where no frame is as late, it is the one after the last.
    Raises ``UserError`` where nothing says when the frames of a video are.
    """
    asked = seconds.notna() & video.isin(frames["video"])
    found = pd.Series(pd.array([pd.NA] * len(video), "Int64"), index=video.index)
    if not asked.any():
        return found
    times = _times(config)
    if times is not None:
        return _by_times(times, video, seconds, asked, found)
    if (config.first_frame > 0) and (frames["frame"] == 0).any():
        raise UserError(
            f"data set '{config.name}': seconds are counted from frame {config.first_frame}, and there is a frame 0: "
            "set dataset.first_frame: 0"
        )
    code, videos = pd.factorize(video[asked])
    rates = frame_rates(config.fps, list(videos), np.repeat(code, 2))  # as if of two frames: each of them needs a rate
    if rates is None:
        raise UserError(
            f"data set '{config.name}': the table gives seconds, and nothing says when the frames are: set dataset.fps "
            f"in params.yaml, or --fps, to a number or to a table of video and fps, such as {FACES}"
        )
    number = np.ceil(seconds[asked].to_numpy() * rates[code] - ROUNDING) + config.first_frame
    found[asked] = number.astype(np.int64)
    return found


def _times(config: DatasetConfig) -> pd.DataFrame | None:
    """video, frame and time_sec of every face, sorted; None where there are no such times."""
    path = config.fps if isinstance(config.fps, Path) else _faces_beside(config.root)
    check_rate(config.fps)
    if path is None or path.suffix != ".parquet" or isinstance(config.fps, float):
        return None
    if not path.is_file() or not has_digest(path):
        return None  # frame_rates says what is wrong with it
    check_digest(path, "a table of faces", "Make it again with 'python -m pipeline.faces'")
    try:
        table = pd.read_parquet(path, columns=["video", "frame", "time_sec"]).dropna()
    except (OSError, ValueError, KeyError):
        return None
    return table.sort_values(["video", "frame"], ignore_index=True) if len(table) else None


def _faces_beside(root: Path) -> Path | None:
    """The table that the command ``faces`` wrote beside its folder of crops."""
    places = [root / FACES, *([root.parent / FACES] if root.name == CROPS else [])]
    return next((path for path in places if path.is_file()), None)


def _by_times(
    times: pd.DataFrame, video: pd.Series, seconds: pd.Series, asked: pd.Series, found: pd.Series
) -> pd.Series:
    own = {name: rows for name, rows in times.groupby("video", sort=False)}
    if lacking := sorted(set(video[asked]) - set(own)):
        raise UserError(
            f"{FACES} has no times of {len(lacking)} videos, such as {lacking[0]}: cut faces with --fps, or set "
            "dataset.fps to a number or to a table of video and fps"
        )
    for row in np.flatnonzero(asked):
        of_video = own[video.iloc[row]]
        at = int(np.searchsorted(of_video["time_sec"].to_numpy(), seconds.iloc[row] - 1e-9))
        number = of_video["frame"].to_numpy()
        found.iloc[row] = int(number[at]) if at < len(number) else int(number[-1]) + 1
    return found
