"""The reduce stage: principal components of the stored features, fitted on the training split, or that of each fold.

python -m pipeline.extraction.reduce                 128, or none where these keep less than 90 % of the variance
python -m pipeline.extraction.reduce -n 256
python -m pipeline.extraction.reduce -n 0            none: training takes the features as they are
python -m pipeline.extraction.reduce -d emb.zarr     of another store, into emb.projection.safetensors
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.core import projection
from pipeline.core.clips import Clips, no_clips, read_clips
from pipeline.core.join import (
    FILES,
    FRAMES,
    LABELS,
    codes_of,
    one_fold,
    open_both,
    places_of,
    rows_of_clips,
    with_files,
)
from pipeline.core.params import UserError, entry, option, parse
from pipeline.core.seen import Seen
from pipeline.core.store import FeatureStore
from pipeline.core.tables import STORE, Labels, beside_store, is_training

BLOCK = 2**24  # values read at a time, 34 MB
COMPONENTS = 128  # where nobody says how many
# The share of the variance that these must keep, else training takes the features as they are. Of frames of one kind,
# such as faces that follow each other, few components are nearly all; of photographs what they leave out is missed:
# docs/stills.md has the numbers.
LEAST_KEPT = 0.9


@dataclass(frozen=True)
class ReduceConfig:
    """Section ``reduce`` of params.yaml."""

    components: int | None = option(
        None,
        "-n",
        help="principal components to keep, or as many as there are; 0: none, features stay as they are; null: "
        f"{COMPONENTS}, or none where these keep less than {100 * LEAST_KEPT:.0f} % of the variance",
        within="[0, inf)",
    )
    most_rows: int = option(
        100_000, help="most training frames to fit them on; of more, evenly spaced ones are taken", within="[2, inf)"
    )
    data: Path = option(STORE, "-d", help="the feature store")
    labels: Path | None = option(None, help=LABELS)
    clips: Path | None = option(None, help="the clip table, where there is one; default: the one beside the store")
    frames: Path | None = option(None, help=FRAMES)
    output: Path | None = option(None, "-o", help="where the projection is written; default: beside the store")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReduceConfig, argv, sections=["reduce"], description=__doc__)
    if config.output is None:
        config = replace(config, output=beside_store(config.data, FILES["projection"]))
    if config.components == 0:
        store = FeatureStore(config.data)
        projection.save(config.output, projection.nothing(store.num_features), store.made_by)
        print(f"no projection: all {store.num_features:,} features are kept as they are")
        return
    config = with_files(config, config.data, "labels", "clips")
    store, labels = open_both(config.data, config.labels, config.frames)
    clips = read_clips(config.clips) if config.clips.is_file() else no_clips(labels.dataset)
    folds = clips.folds or labels.folds
    every = {
        k: _fitted(config, store, *(one_fold(of, k) if of.folds else of for of in (labels, clips)), f"fold {k}: ")
        for k in folds
    } or {None: _fitted(config, store, labels, clips, "")}
    if config.components is None and (kept := min(float(p.explained.sum()) for p in every.values())) < LEAST_KEPT:
        print(
            f"{100 * kept:.1f} % is less than {100 * LEAST_KEPT:.0f} %: no projection, training takes all "
            f"{store.num_features:,} features as they are (-n {COMPONENTS} projects all the same)"
        )
        every = dict.fromkeys(every, projection.nothing(store.num_features))
    projection.save(config.output, every if folds else every[None], store.made_by)


def _fitted(
    config: ReduceConfig, store: FeatureStore, labels: Labels, clips: Clips, whose: str
) -> projection.Projection:
    rows = training_rows(store, labels, clips)
    blocks = Blocks(store, _evenly(rows, config.most_rows))
    wanted = COMPONENTS if config.components is None else config.components
    fitted = projection.fit(blocks, wanted)
    num_components = len(fitted.components)
    print(
        f"{whose}{num_components:,} of {store.num_features:,} components keep {100 * fitted.explained.sum():.1f} % "
        f"of {len(blocks.rows):,} rows' variance{_fewer(fitted.explained)}"
    )
    if config.components is not None and num_components < wanted:
        print(f"{whose}{wanted:,} components were asked for: so many rows and features have no more")
    if len(blocks.rows) < len(rows):
        print(f"fitted on {len(blocks.rows):,} of {len(rows):,} training rows, evenly spaced")
    return replace(fitted, seen=_seen(store, labels, clips, rows))


def _seen(store: FeatureStore, labels: Labels, clips: Clips, rows: np.ndarray) -> Seen:
    """The groups and videos of rows of the store that are labelled, in either table."""
    keys = store.keys[store.keys["row"].isin(rows)]
    videos = keys["video"].unique().astype("str")
    groups = [of.table.loc[of.table["video"].isin(videos), "group"].unique() for of in (labels, clips)]
    return Seen.of(np.unique(np.concatenate(groups).astype("str")), videos)


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _fewer(explained: np.ndarray) -> str:
    """What half and a quarter of the components would keep: a help in choosing their number."""
    numbers = [n for n in (len(explained) // 2, len(explained) // 4) if n > 0]
    kept = [f"{n:,} of them {100 * explained[:n].sum():.1f} %" for n in numbers]
    return f" ({', '.join(kept)})" if kept else ""


def training_rows(store: FeatureStore, labels: Labels, clips: Clips | None = None) -> np.ndarray:
    """Rows of the store whose frames are training data, see ``is_training``; of clips all frames of training clips.

    Where there are clips, no frame is of a group that either table holds out.
    """
    table, train = labels.table, is_training(labels)
    code = codes_of(store.keys, table["video"])[train]
    at = places_of(store.keys, code, table["frame"].to_numpy()[train])
    at = at[at >= 0]
    if clips is not None and len(clips.table):
        at = np.union1d(at, _of_clips(store, clips))
        at = at[~store.keys["video"].iloc[at].isin(_held_out(labels, clips)).to_numpy()]
    rows = np.sort(store.keys["row"].to_numpy()[at])
    if len(rows) == 0:
        raise UserError(
            f"no frame of {store.path} is training data of '{labels.dataset}': nothing to fit a projection on"
        )
    return rows


def _of_clips(store: FeatureStore, clips: Clips) -> np.ndarray:
    """Places in the store's keys of the frames of training clips."""
    split = clips.table.get("split")
    train = clips.table.iloc[:0] if split is None else clips.table[split == "train"]
    spans = rows_of_clips(store.keys, train)
    return np.unique(np.concatenate([np.arange(0), *(np.arange(*span) for span in spans)]))


def _held_out(labels: Labels, clips: Clips) -> set[str]:
    """The videos, in either table, of the groups that one of them holds out in any of its splits."""
    groups, tables = set(), (labels.table, clips.table)
    for table in tables:
        splits = [c for c in table if c == "split" or c.endswith("_split")]
        groups |= set(table.loc[table[splits].isin(["val", "test"]).any(axis=1), "group"])
    return {video for table in tables for video in table.loc[table["group"].isin(groups), "video"].unique()}


class Blocks:
    """The rows' features in blocks (n, D) float16, read from the store at each pass.

    On a terminal it shows which pass that is, and how far it is.
    """

    def __init__(self, store: FeatureStore, rows: np.ndarray) -> None:
        self.store, self.rows, self.passes = store, rows, 0
        self.block_rows = max(min(store.chunk_rows, BLOCK // store.num_features), 1)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.passes += 1
        for start in range(0, len(self.rows), self.block_rows):
            rows = self.rows[start : start + self.block_rows]
            block = self.store.read(rows)
            self.store.let_go(rows)
            if sys.stderr.isatty():
                done = f"pass {self.passes}: {start + len(block):,} of {len(self.rows):,} rows"
                print(f"\r{done}", end="", file=sys.stderr, flush=True)
            yield block
        if sys.stderr.isatty():
            print(file=sys.stderr)


if __name__ == "__main__":
    entry(main)
