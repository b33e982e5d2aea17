"""A series, such as sound, whose rows have times and no frame numbers: put onto the frames of a frame table.

A frame's time is ``time_sec`` of faces.parquet, where that is the table of ``fps``; else (number - first_frame) / fps.

- 'nearest': the row whose time is nearest, of two equally near the earlier one. It must be nearer than half a frame, or
  than half of the series's own step (its median in the video) where that is longer: else the frame has none.
- 'mean': the mean of all rows from half a frame before the frame's time up to, and without, half a frame after it. So
  each row counts for one frame at most, and a series of the frames' own rate comes out as it is, by both rules.

A frame without a row is not in the store: it is counted and named, and masked where stores stand side by side.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.rates import frame_rates
from pipeline.core.seen import some
from pipeline.core.store import spans
from pipeline.core.tables import KEY
from pipeline.extraction.feature_files import TIME, FeatureFile, FileArray

RULES = ("nearest", "mean")
RESAMPLED = "resampled"  # the rule, in the store's ``made_by``
ROUNDING = 1e-6  # seconds: times are sums and quotients that miss by less
SOURCE_BYTES = 1 << 24  # of float64, of the rows that are averaged at a time


@dataclass(frozen=True)
class OntoFrames:
    """The frames (``keys``: video, frame) of the frame table ``table``, when they are, and the rule of ``RULES``."""

    keys: pd.DataFrame
    table: Path
    rule: str
    fps: float | Path | None
    first_frame: int = 1


class Resampled:
    """(M, width) means of rows of an array: frame i of those from ``kept[first[i]]`` to before ``kept[last[i]]``.

    ``kept`` rises, and so do ``first`` and ``last``, so that a file is read in order.
    """

    def __init__(self, array: FileArray, kept: np.ndarray, first: np.ndarray, last: np.ndarray) -> None:
        self._array, self._kept, self._first, self._last = array, kept, first, last
        self.shape, self.dtype = (len(first), array.shape[1]), np.dtype(np.float64)
        self._most = max(1, SOURCE_BYTES // (8 * array.shape[1]))
        self._held: tuple[int, np.ndarray] | None = None  # the last row read: a file of rows is no good at going back

    @property
    def scale(self) -> float:
        return self._array.scale

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        parts = [self._means(i, j) for i, j in self._pieces(start, stop)]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]))

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        while start < stop:
            end = int(np.searchsorted(self._kept[self._last - 1], self._kept[self._first[start]] + self._most))
            end = min(max(end, start + 1), stop)
            yield start, end
            start = end

    def _means(self, start: int, stop: int) -> np.ndarray:
        first, last = self._first[start:stop], self._last[start:stop]
        low, high = self._kept[first[0]], self._kept[last[-1] - 1] + 1
        values = self._rows(int(low), int(high))[self._kept[first[0] : last[-1]] - low]
        sums = np.cumsum(np.append(np.zeros((1, values.shape[1])), values, axis=0), axis=0)
        alone = last - first == 1
        means = (sums[last - first[0]] - sums[first - first[0]]) / (last - first)[:, None]
        means[alone] = values[first[alone] - first[0]]  # exactly, and not what rounding leaves of a difference of sums
        return means

    def _rows(self, low: int, high: int) -> np.ndarray:
        held = self._held is not None and self._held[0] == low
        values = (
            self._array[low + held : high].astype(np.float64) if high > low + held else np.empty((0, self.shape[1]))
        )
        values = np.append(self._held[1][None], values, axis=0) if held else values
        self._held = high - 1, values[-1]
        return values


def onto_frames(file: Path, series: FeatureFile, onto: OntoFrames) -> tuple[FeatureFile, list[str]]:
    """The series as a value for each frame, and lines on the rows and frames that are left out.

    Raises ``UserError`` where nothing says when the frames are, where the rows of a video do not lie together with
    rising times, and where no frame has any.
    """
    code, names = pd.factorize(series.keys["video"])
    times = series.keys[TIME].to_numpy()
    frames = _times_of_frames(onto, list(names))
    kept = np.flatnonzero(np.isfinite(times))
    notes = []
    if len(kept) < len(times):
        lost = sorted(set(names[code[~np.isfinite(times)]]))
        notes.append(f"{file}: {len(times) - len(kept):,} of {len(times):,} rows have no time, in {some(lost)}")
    of_rows, times = code[kept], times[kept]
    new = np.flatnonzero(np.diff(of_rows, prepend=-1))
    falls = np.flatnonzero((np.diff(times) < 0) & (np.diff(of_rows) == 0))
    if len({*of_rows[new].tolist()}) < len(new) or len(falls):
        video = names[of_rows[falls[0]]] if len(falls) else "a video"
        raise UserError(f"{file}: the rows of each video must lie together with rising times, and of {video} do not")
    bounds = {int(of_rows[s]): (s, e) for s, e in zip(new, np.append(new[1:], len(times)), strict=True)}
    found = []
    for of, own in frames.groupby("code", sort=True):  # in the order of the series
        start, end = bounds.get(int(of), (0, 0))
        first, last = _rows_of(onto.rule, times[start:end], own["time"].to_numpy(), own["fps"].to_numpy())
        found.append(own[KEY].assign(first=first + start, last=last + start))
    rows = pd.concat(found, ignore_index=True) if found else frames.assign(first=0, last=0)[[*KEY, "first", "last"]]
    there = (rows["last"] > rows["first"]).to_numpy()
    if not there.any():
        raise UserError(f"{file}: no frame of {onto.table} has a row of the series: are they of the same videos?")
    notes += _left_out(file, onto, list(names), rows[~there], len(rows))
    rows = rows[there]
    at = kept, rows["first"].to_numpy(), rows["last"].to_numpy()
    arrays: dict[str, Any] = {name: Resampled(array, *at) for name, array in series.arrays.items()}
    keys = rows[KEY].assign(size=0).reset_index(drop=True).astype({"video": "str", "frame": "int64", "size": "int64"})
    return replace(series, keys=keys, arrays=arrays, facts=series.facts | {RESAMPLED: onto.rule}), notes


def _rows_of(rule: str, times: np.ndarray, wanted: np.ndarray, fps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row, and that after the last, of each of the times ``wanted`` (n,) in rising ``times``; equal: none."""
    half = 0.5 / fps
    if rule == "mean":
        return tuple(np.searchsorted(times, wanted + side * half - ROUNDING) for side in (-1, 1))
    if not len(times):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
    after = np.searchsorted(times, wanted).clip(max=len(times) - 1)
    before = (after - 1).clip(min=0)
    near = np.where(np.abs(wanted - times[before]) <= np.abs(times[after] - wanted) + ROUNDING, before, after)
    reach = np.maximum(half, np.median(np.diff(times)) / 2 if len(times) > 1 else 0) + ROUNDING
    return near, near + (np.abs(times[near] - wanted) <= reach)


def _times_of_frames(onto: OntoFrames, names: list[str]) -> pd.DataFrame:
    """video, frame, ``code`` (into ``names``), ``time`` and ``fps`` of the frames of those videos, in that order."""
    frames = onto.keys[onto.keys["video"].isin(names)].copy()
    frames["code"] = pd.Index(names).get_indexer(frames["video"])
    frames = frames.sort_values(["code", "frame"], ignore_index=True)
    used, of = np.unique(frames["code"], return_inverse=True)
    # As if of two frames: each video needs a rate.
    rates = frame_rates(onto.fps, [names[k] for k in used], np.repeat(np.arange(len(used)), 2))
    if rates is None:
        raise UserError(
            "a series has times, and nothing says when the frames are: give --fps, a number or a table of video and fps"
        )
    frames["fps"] = rates[of]
    times = _table_of_times(onto.fps)
    if times is not None:
        frames["time"] = frames.merge(times, on=KEY, how="left")[TIME].to_numpy()
        return frames.assign(time=frames["time"].fillna(np.inf))  # a frame without a time has no row: it is counted
    if onto.first_frame > 0 and (frames["frame"] < onto.first_frame).any():
        raise UserError(
            f"frame {onto.first_frame} is at 0 s, and {onto.table} has frames before it: give another --first-frame"
        )
    return frames.assign(time=(frames["frame"] - onto.first_frame) / frames["fps"])


def _table_of_times(fps: float | Path | None) -> pd.DataFrame | None:
    """video, frame and time_sec, where the table of rates has them; None where it has none."""
    if not isinstance(fps, Path) or fps.suffix != ".parquet":
        return None
    try:
        return pd.read_parquet(fps, columns=[*KEY, TIME]).dropna().drop_duplicates(KEY)
    except (OSError, ValueError, KeyError):
        return None


def _left_out(file: Path, onto: OntoFrames, names: list[str], lacking: pd.DataFrame, num_frames: int) -> list[str]:
    notes = []
    if len(lacking):
        which = spans(lacking[KEY].itertuples(index=False, name=None), most=3)
        notes.append(
            f"{file}: {len(lacking):,} of {num_frames:,} frames have no row of the series by the rule '{onto.rule}', "
            f"and are not in the store: {which}"
        )
    listed = set(onto.keys["video"].unique())
    if unknown := [name for name in names if name not in listed]:
        notes.append(f"{file}: {len(unknown):,} videos of the series are not in {onto.table}: {some(unknown)}")
    if silent := sorted(listed - {*names}):
        notes.append(
            f"{file}: {len(silent):,} of {len(listed):,} videos of {onto.table} have no series: {some(silent)}"
        )
    return notes
