"""What belongs to a store, and which of its frames count: those that the frame table lists.

The one place where a store, its tables and its projection are put together. A store that is named alone goes with the
files beside it: emb.zarr with emb.frames.parquet, emb.labels.parquet and emb.projection.safetensors, or with
frames.parquet and so on. Where no frame table lies beside it, it goes with the files of ``data/``.

Of several stores side by side (``core.stores``) the first says where the labels are. Each goes with its own frame
table, and has a projection of its own name: audio.projection.safetensors by audio.zarr.

A store keeps frames that have left the frame table until ``extract.py --compact``: bad crops that were removed, say. It
also keeps features of an image file that has changed, until ``extract.py`` runs again. Neither counts.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from pipeline.core.clips import Clips, clips_of_fold, read_clips, spans
from pipeline.core.files import read_json
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Data, Stores, each_store, side_by_side
from pipeline.core.tables import DATA, STORE, Labels, beside_store, of_fold, read_frames, read_labels

T = TypeVar("T")
FILES = {
    "clips": "clips.parquet",
    "frames": "frames.parquet",
    "labels": "labels.parquet",
    "projection": "projection.safetensors",
}
LABELS = "the label table; default: the one beside the store"
CLIPS = "with unit clip: the clip table; default: the one beside the store"
DATA_HELP = "the feature store, or several that are joined by video and frame"
UNITS = ("frame", "clip")  # what has a label
ALIKE_HELP = "what may differ between the store's features and those of training; you say that they are alike"
FRAMES = "the frame table, which says which frames of the store count; default: the one beside the store"


def frame_table(data: Data, given: Path | None) -> Path | None:
    """The frame table that is ``given``, or lies beside the first store, or in ``data/``; None where there is none."""
    found = given or find_beside(each_store(data)[0], FILES["frames"])
    return found if given or found.is_file() else None


def find_beside(store: Path, name: str) -> Path:
    """Where the file ``name`` of a store is; where there is none, where it should be.

    ``data/`` is searched only where no frame table lies beside the store: otherwise it holds another data set.
    """
    places = [[beside_store(store, file), store.parent / file] for file in (name, FILES["frames"])]
    found = next((path for path in places[0] if path.is_file()), None)
    own = any(path.is_file() for path in places[1])
    return found or (places[0][0] if own or not (DATA / name).is_file() else DATA / name)


def with_files(config: T, data: Data, *fields: str) -> T:
    """``config`` with those of its ``fields`` ('labels', 'projection') that are None as they lie beside the store.

    Of several stores, the tables are those of the first, and there is a projection of each. Says what is taken, where
    it is not in ``data/``.
    """
    stores = each_store(data)
    found: dict[str, Any] = {f: find_beside(stores[0], FILES[f]) for f in fields if getattr(config, f) is None}
    shown = [str(path) for f, path in found.items() if path.is_file() and path != DATA / FILES[f]]
    if "projection" in found and len(stores) > 1:
        found["projection"] = [beside_store(store, FILES["projection"]) for store in stores]
    if shown:
        print(f"{stores[0]}: with {' and '.join(shown)}")
    return dataclasses.replace(config, **found)


def stores_of_run(run: Path) -> Data:
    """The store that a run was trained on, or several, as its config.json says; ``STORE`` where there is none."""
    path = run / "config.json"
    if not path.is_file():
        return STORE
    data = read_json(path, "the parameters of a run", "Put back a copy, or give --data")["data"]
    return [Path(each) for each in data] if isinstance(data, list) else Path(data)


def data_of_run(run: Path) -> Data:
    """The same where they are several, which only such a run can take; else ``STORE``."""
    found = stores_of_run(run)
    return found if isinstance(found, list) else STORE


def open_both(data: Data, labels: Path, given: Path | None) -> tuple[FeatureStore | Stores, Labels]:
    """The store, or several side by side, without the frames that do not count, and the label table."""
    stores, table = _opened(data), read_labels(labels)
    return _together(stores, given, table.dataset), table


def open_labelled(
    data: Data, tables: Any, given: Path | None, unit: str
) -> tuple[FeatureStore | Stores, Labels | Clips]:
    """The same, by the label table ``tables.labels``; or, of the unit 'clip', by the clip table ``tables.clips``.

    Raises ``UserError`` where the clip table has no clips.
    """
    if unit == "frame":
        return open_both(data, tables.labels, given)
    clips = read_clips(tables.clips)
    if clips.table.empty:
        raise UserError(f"{tables.clips} has no clips: data set '{clips.dataset}' labels frames, so unit must be frame")
    return _together(_opened(data), given, clips.dataset), clips


def one_fold(labels: Labels | Clips, fold: int | None) -> Labels | Clips:
    """The table with the split of one fold, as ``of_fold`` and ``clips_of_fold``."""
    return clips_of_fold(labels, fold) if isinstance(labels, Clips) else of_fold(labels, fold)


def open_store(data: Data, given: Path | None) -> FeatureStore | Stores:
    """The store, or several, without the frames that do not count, for those who have no labels."""
    return _together(_opened(data), given, None)


def open_whole(data: Data) -> FeatureStore | Stores:
    """The store, or several, with all frames, for those who only ask what made it."""
    return side_by_side(_opened(data))


def _opened(data: Data) -> list[FeatureStore]:
    stores = [FeatureStore(path) for path in each_store(data)]
    for store in stores:
        if store.map_shape is not None:
            raise UserError(f"{store.path} holds maps, not features: name it as --maps of a run with --unfreeze")
    return stores


def _together(stores: list[FeatureStore], given: Path | None, dataset: str | None) -> FeatureStore | Stores:
    return side_by_side([_joined(store, given, dataset) for store in stores])


def _joined(store: FeatureStore, given: Path | None, dataset: str | None) -> FeatureStore:
    """The store, with only those ``keys`` that its frame table lists with the same file size.

    Prints how many frames do not count. Where there is no frame table all of them count, and that is printed too. A
    table that was found, and not ``given``, may be of another data set: then it lists none of the frames, and names
    another data set than ``dataset``, that of the labels. Such a table is ignored, and all frames count. Raises
    ``UserError`` where no frame would be left.
    """
    path, table = store.path, frame_table(store.path, given)
    if table is None:
        print(f"{path}: there is no frame table, so all of its {len(store.keys):,} frames count")
        return store
    frames = read_frames(table)
    at = places_of(store.keys, codes_of(store.keys, frames.table["video"]), frames.table["frame"].to_numpy())
    size = np.full(len(store.keys), -1)
    size[at[at >= 0]] = frames.table["size"].to_numpy()[at >= 0]
    stored = store.keys["size"].to_numpy()
    there = size >= 0
    same = there & ((size == stored) | (stored <= 0))  # an import knows no sizes
    if not same.any() and frames.dataset != dataset and given is None:
        print(f"{table} is of another data set ('{frames.dataset}'): all {len(stored):,} frames of {path} count")
        return store
    if not same.any():
        raise UserError(
            f"none of the {len(stored):,} frames of {path} is in the frame table {table}, with the size that its image "
            "has now: extract again, or name the table of this store"
        )
    if not same.all():
        gone, changed = int((~there).sum()), int((there & ~same).sum())
        why = [f"{gone:,} are not in {table}"] if gone else []
        why += [f"{changed:,} have another image file now ('python extract.py' takes it)"] if changed else []
        print(f"{path}: {gone + changed:,} of its {len(stored):,} frames do not count: {', '.join(why)}")
        store.keys = store.keys[same].reset_index(drop=True)
    return store


def codes_of(keys: pd.DataFrame, video: pd.Series) -> np.ndarray:
    """The code (n,) of each video among the categories of a store's ``keys``; -1 where the store has no such video."""
    codes, names = pd.factorize(video)
    return np.append(keys["video"].cat.categories.get_indexer(names), -1)[codes]


def places_of(keys: pd.DataFrame, code: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Where in a store's ``keys`` each frame (n,), of the video ``code`` (n,), stands; -1 where it does not.

    ``keys`` are sorted by video, a categorical of sorted names, and frame. Numbers are compared instead of names: 3 M
    frames of 100,000 videos take a second, a merge on two columns of which one is text half a minute.
    """
    if not len(keys):
        return np.full(len(code), -1)
    numbers = np.sort(pd.unique(keys["frame"]))
    rank = np.searchsorted(numbers, frame).clip(max=len(numbers) - 1)
    of_keys = keys["video"].cat.codes.to_numpy(np.int64) * len(numbers) + np.searchsorted(numbers, keys["frame"])
    wanted = code * len(numbers) + rank
    at = np.searchsorted(of_keys, wanted).clip(max=len(of_keys) - 1)
    return np.where((code >= 0) & (numbers[rank] == frame) & (of_keys[at] == wanted), at, -1)


def rows_of_clips(keys: pd.DataFrame, clips: pd.DataFrame) -> np.ndarray:
    """The rows (n, 2) of ``keys`` that are each clip's frames: the first, and the one after the last.

    ``keys`` are those of a store: sorted by video, a categorical of sorted names, and frame. A clip none of whose
    frames is there has two equal numbers.
    """
    code = codes_of(keys, clips["video"])
    return spans(keys["video"].cat.codes.to_numpy(np.int64), keys["frame"].to_numpy(), code, clips)
