"""Frames a second of videos, and lengths of time such as '0.04s'."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.files import check_digest, has_digest
from pipeline.core.params import UserError

FACES = "faces.parquet"  # the table of video, frame, time_sec and fps that 'python -m pipeline.faces' writes
FPS = "frames a second, for what is given in seconds: a number, or a table with the columns video and fps"
_SECONDS = re.compile(r"(\d+(?:\.\d+)?) ?s")


def seconds(length: str) -> float | None:
    """Seconds of '3.4s' or '3.4 s'; None for text that is no length of time."""
    found = _SECONDS.fullmatch(length)
    return float(found[1]) if found else None


def check_rate(fps: float | Path | None) -> None:
    """Raises ``UserError`` for a number that is no rate."""
    if isinstance(fps, float) and not 0 < fps < np.inf:
        raise UserError(f"fps must be above 0, and is {fps}")


def frame_rates(fps: float | Path | None, videos: Sequence[str], video: np.ndarray) -> np.ndarray | None:
    """Frames a second (V,) of each of ``videos`` (V,); None where nothing says them.

    NaN for a video that the table does not know and that has one frame among ``video`` (n,), codes into ``videos``.
    Raises ``UserError`` where one of several frames is not there, and for a table that cannot be read or says two rates
    for one video.
    """
    if fps is None or isinstance(fps, float):
        return None if fps is None else np.full(len(videos), fps)
    if fps.is_file() and has_digest(fps):
        check_digest(fps, "a table of faces", "Make it again with 'python -m pipeline.faces'")
    try:
        if fps.suffix == ".csv":
            table = pd.read_csv(fps, dtype={"video": str})[["video", "fps"]]
        else:
            table = pd.read_parquet(fps, columns=["video", "fps"])
    except (OSError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"fps: {fps} is no table with the columns video and fps: {why}") from None
    table = table.dropna().drop_duplicates()
    twice = table["video"][table["video"].duplicated()]
    if len(twice):
        raise UserError(f"fps: {fps} has several rates for one video, {twice.iloc[0]}")
    rates = table.set_index("video")["fps"].reindex(list(videos)).to_numpy(dtype=np.float64)
    lacking = np.flatnonzero(~(rates > 0) & (np.bincount(video, minlength=len(videos)) > 1))
    if len(lacking):
        raise UserError(
            f"fps: {fps} has no rate for {len(lacking)} of the videos, such as {videos[lacking[0]]}: add a row for each"
        )
    return rates
