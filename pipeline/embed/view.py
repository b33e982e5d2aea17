"""What is looked at of an embedder's table: functions from tables to tables and arrays, which a page then draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.adapter import pair_attention
from pipeline.adapter.adapter import Adapter
from pipeline.adapter.sources import InMemory
from pipeline.core.numbering import spacing
from pipeline.core.projection import fit
from pipeline.embed.compare import by_person, unit
from pipeline.embed.embedder import Embedder
from pipeline.embed.loading import LOADERS
from pipeline.embed.table import BOX
from pipeline.extraction.frames import UnreadableImage, decode
from pipeline.metrics.steadiness import neighbours
from pipeline.metrics.vectors import cosines, evenly

FROZEN = "frozen features"  # the space of the backbone, beside those of the runs
PREDICTED = ("class", "valence", "arousal")  # and p_<class> and AU<number>
HIDDEN = ("box", "embedding", "features", "crop", "segment", "end_sec")  # no numbers or texts of a table
Entry = tuple[str, str]  # video and person


def finished_runs(folder: Path) -> list[Path]:
    """All runs and bundles in ``folder``, at any depth, that have a finished seed; by name."""
    return sorted({file.parent for name in LOADERS for file in folder.rglob(name)})


def is_finished(folder: Path) -> bool:
    """Whether it is a run that has a finished seed, or a bundle."""
    return any((folder / name).is_file() for name in LOADERS)


def entries(table: pd.DataFrame) -> list[Entry]:
    """Each person of each video, in the order of the table."""
    return list(table[["video", "person"]].drop_duplicates().itertuples(index=False, name=None))


def rows_of(table: pd.DataFrame, entry: Entry) -> pd.DataFrame:
    """The frames of one person, numbered from 0, with two new columns.

    ``end_sec`` is when the frame ends, ``segment`` counts the stretches without a gap, from 0.
    """
    rows = table[(table["video"] == entry[0]) & (table["person"] == entry[1])].reset_index(drop=True)
    frame, time = rows["frame"].to_numpy(), rows["time_sec"].to_numpy(np.float64)
    step = int(spacing(np.zeros(len(rows)), frame)[0])
    gap = np.diff(frame, prepend=frame[0] - step) > step
    lengths = np.diff(time)[~gap[1:]]
    length = float(np.median(lengths)) if len(lengths) else 0.04  # of one frame alone: as if 25 a second
    return _until_the_next(rows.assign(segment=np.cumsum(gap), end_sec=time + length))


def thinned(rows: pd.DataFrame, most: int, at: int) -> pd.DataFrame:
    """At most ``most`` evenly spaced rows of ``rows_of``, and row ``at``. Each lasts until the next one."""
    chosen = np.union1d(evenly(len(rows), most), at)
    return _until_the_next(rows.iloc[chosen])


def _until_the_next(rows: pd.DataFrame) -> pd.DataFrame:
    following = rows["time_sec"].shift(-1).where(rows["segment"].shift(-1) == rows["segment"])
    return rows.assign(end_sec=following.fillna(rows["end_sec"]))


def frozen_vectors(table: pd.DataFrame) -> np.ndarray:
    """The features (n, D) of the backbone, float32 of length one."""
    return unit(table["features"])


def plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components (n, 2) of vectors (n, E), and the share of the variance that each explains.

    Zeros for a component that so few vectors do not have.
    """
    points, explained = np.zeros((len(vectors), 2)), np.zeros(2)
    count = max(0, min(2, len(vectors) - 1, vectors.shape[1]))
    if count:
        projection = fit([vectors], count)
        points[:, :count], explained[:count] = projection(vectors), projection.explained
    return points, explained


@dataclass(frozen=True)
class Contrast:
    """Mean cosines: of neighbouring frames, and of one frame with those of its emotion and those of others.

    NaN where there are none.
    """

    neighbours: float
    same: float
    other: float


def contrast(vectors: np.ndarray, rows: pd.DataFrame, at: int) -> Contrast:
    """How steady the unit ``vectors`` (n, E) of the frames ``rows`` are, and how far apart they hold two emotions.

    ``rows`` are sorted by frame; the emotions are those of their column class.
    """
    frame = rows["frame"].to_numpy()
    first, second = neighbours(np.zeros(len(rows)), frame, spacing(np.zeros(len(rows)), frame))
    to_it = vectors @ vectors[at]
    if "class" not in rows:
        return Contrast(_mean(cosines(vectors, first, second)), float("nan"), float("nan"))
    same, itself = np.array(rows["class"] == rows["class"].iloc[at]), np.arange(len(rows)) == at
    return Contrast(*(_mean(x) for x in (cosines(vectors, first, second), to_it[same & ~itself], to_it[~same])))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def persons(table: pd.DataFrame, most: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The first ``most`` people of all videos: a row each, and their cosines (n, n) by frozen features and embeddings.

    A person is the mean of its frames. The rows have video, person, frames and the crop of the frame in the middle.
    """
    found = by_person(table)[:most]
    frozen = by_person(table.assign(embedding=table["features"]))[:most]
    middle = [group["crop"].iloc[len(group) // 2] for _, group in table.groupby(["video", "person"], sort=True)][:most]
    both = (np.clip(z @ z.T, -1, 1) for z in (unit(frozen), unit(found)))
    return found.assign(crop=middle), *both


def through(embedder: Embedder, table: pd.DataFrame, fps: float | None) -> pd.DataFrame:
    """The same faces, by their features, through another run of the same backbone.

    ``table`` has the column features, and is sorted by (video, person, frame). ``fps`` as for ``Embedder.features``.
    """
    code = table.groupby(["video", "person"], sort=False).ngroup()
    names = code.map("{:09d}".format)  # sorted like the codes
    found = embedder.features(np.stack(table["features"].tolist()), names, table["frame"], fps=fps)
    predicted = [name for name in table if name in PREDICTED or name.startswith(("p_", "AU")) or name == "embedding"]
    rest = found.drop(columns=["video", "person", "frame"])
    joined = table.drop(columns=predicted).reset_index(drop=True).join(rest)
    joined.attrs = table.attrs | {"classes_by": embedder.classes_by}
    return joined


def same_features(one: Embedder, other: Embedder) -> bool:
    """Whether two runs were trained on features that the same backbone made in the same way."""
    return one.facts["made_by"] == other.facts["made_by"] and one.cuts == other.cuts


def frame_rate(rows: pd.DataFrame) -> float | None:
    """Frames a second, by the times of the frames of one person; None for a single frame."""
    frame, time = rows["frame"].to_numpy(), rows["time_sec"].to_numpy(np.float64)
    if len(rows) < 2 or not time[-1] > time[0]:
        return None
    return float(np.median(np.diff(frame) / np.maximum(np.diff(time), 1e-9)))


# --- the training data ------------------------------------------------------------------------------------------------


def thumbnail(path: str | None) -> np.ndarray | None:
    """The picture (H, W, 3) uint8 RGB; None where it is not known or can no longer be read."""
    if path is None:
        return None
    try:
        return decode(Path(path))
    except (OSError, UnreadableImage):
        return None


# --- attention --------------------------------------------------------------------------------------------------------


def frame_weights(embedder: Embedder, rows: pd.DataFrame, at: int, fps: float | None) -> pd.DataFrame | None:
    """What each frame counts for in the window centred on frame ``at``, where the head weighs them (attention_pool).

    Rows of frame, time_sec, crop and weight, whose sum is 1; of several members the mean. None for other heads.
    """
    parts = []
    for adapter in embedder.adapters:
        if not hasattr(adapter.head, "frame_weights"):
            return None
        inputs, valid, numbers = _window(embedder, adapter, rows, at, fps)
        with torch.inference_mode():
            weights = adapter.head.frame_weights(inputs, valid)[0].cpu().numpy()
        parts.append(pd.Series(weights, numbers)[numbers >= 0].groupby(level=0).sum())
    weights = pd.concat(parts, axis=1).fillna(0).mean(axis=1)
    return rows.loc[weights.index, ["frame", "time_sec", "crop"]].assign(weight=weights.to_numpy())


def place_weights(embedder: Embedder, rows: pd.DataFrame, at: int) -> np.ndarray | None:
    """What each place of the picture counts for in frame ``at``, where the head weighs them (pair_gate on a grid).

    (G, G), whose sum is 1; of several members the mean. None for other heads and without a grid.
    """
    parts = []
    for adapter in embedder.adapters:
        if not pair_attention.weighs_places(adapter.head):
            return None
        values = torch.from_numpy(np.asarray(rows["features"].iloc[at], np.float32))[None].to(embedder.device)
        with torch.inference_mode():
            parts.append(pair_attention.place_weights(adapter, adapter.front(values))[0])
    return np.mean(parts, axis=0)


def _window(
    embedder: Embedder, adapter: Adapter, rows: pd.DataFrame, at: int, fps: float | None
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Inputs (1, T, K), valid (1, T), and the rows (T,) that they are of, -1 for none."""
    code, frame = np.zeros(len(rows), np.int64), rows["frame"].to_numpy()
    numbers = adapter.window.over(code, frame, [""], fps).centred(np.array([at]))
    values = torch.from_numpy(np.stack(rows["features"].tolist()).astype(np.float16)).to(embedder.device)
    source = InMemory(adapter.front(values))
    return *source.gather(torch.from_numpy(numbers).to(embedder.device)), numbers[0]


def members(names: Sequence[str]) -> str:
    """'seed 0', 'seeds 0 and 1', 'fold 1, seed 0, ...': which adapters of a run are used together."""
    return ", ".join(name.replace("_", " ").replace("/", ", ") for name in names)


def vectors(table: pd.DataFrame) -> np.ndarray:
    """The embeddings (n, E) of a table."""
    return unit(table)


def entry_name(entry: Entry, with_video: bool = True) -> str:
    """'clip, left' of a clip with several people, 'clip' of one with one."""
    return ", ".join(part for part in (entry[0] if with_video else "", entry[1]) if part) or entry[0]


def numbered(table: pd.DataFrame, found: Sequence[Entry]) -> pd.DataFrame:
    """The rows of these people, in the order of the table. ``frame`` counts them from 1, ``name`` says who it is."""
    rows = table[[entry in set(found) for entry in zip(table["video"], table["person"], strict=True)]]
    rows = rows.reset_index(drop=True)
    names = [entry_name(entry) for entry in zip(rows["video"], rows["person"], strict=True)]
    return rows.assign(frame=np.arange(1, len(rows) + 1), name=names)


def plain(rows: pd.DataFrame, more: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """``rows`` as numbers and texts, for a CSV file: the box as four columns, no vectors and pictures, and ``more``."""
    boxes = pd.DataFrame(np.stack(rows["box"].tolist()), columns=BOX, index=rows.index)
    first = rows[["video", "person", "frame", "time_sec"]].join(boxes)
    rest = rows.drop(columns=[*first, *HIDDEN], errors="ignore")
    return first.join(rest).assign(**more)
