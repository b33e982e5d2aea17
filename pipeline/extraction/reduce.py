"""The reduce stage: principal components of the stored features, fitted on the training split only; of folds, on each.

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
from pipeline.core.join import FILES, FRAMES, LABELS, codes_of, open_both, places_of, with_files
from pipeline.core.params import UserError, entry, option, parse
from pipeline.core.seen import Seen
from pipeline.core.store import FeatureStore
from pipeline.core.tables import STORE, Labels, beside_store, is_training, of_fold

BLOCK = 2**24  # values read at a time, 34 MB


@dataclass(frozen=True)
class ReduceConfig:
    """Section ``reduce`` of params.yaml."""

    components: int = option(
        256,
        "-n",
        help="principal components to keep, or as many as there are; 0: none, features stay as they are",
        within="[0, inf)",
    )
    most_rows: int = option(
        100_000, help="evenly spaced training frames that they are fitted on, if there are more", within="[2, inf)"
    )
    data: Path = option(STORE, "-d", help="the feature store")
    labels: Path | None = option(None, help=LABELS)
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
    config = with_files(config, config.data, "labels")
    store, labels = open_both(config.data, config.labels, config.frames)
    if not labels.folds:
        projection.save(config.output, _fitted(config, store, labels, ""), store.made_by)
        return
    every = {k: _fitted(config, store, of_fold(labels, k), f"fold {k}: ") for k in labels.folds}
    projection.save(config.output, every, store.made_by)


def _fitted(config: ReduceConfig, store: FeatureStore, labels: Labels, whose: str) -> projection.Projection:
    rows = training_rows(store, labels)
    blocks = Blocks(store, _evenly(rows, config.most_rows))
    fitted = projection.fit(blocks, config.components)
    num_components = len(fitted.components)
    print(
        f"{whose}{num_components:,} of {store.num_features:,} components keep {100 * fitted.explained.sum():.1f} % "
        f"of {len(blocks.rows):,} rows' variance{_fewer(fitted.explained)}"
    )
    if num_components < config.components:
        print(f"{whose}{config.components:,} components were asked for: so many rows and features have no more")
    if len(blocks.rows) < len(rows):
        print(f"fitted on {len(blocks.rows):,} of {len(rows):,} training rows, evenly spaced")
    return replace(fitted, seen=_seen(store, labels, rows))


def _seen(store: FeatureStore, labels: Labels, rows: np.ndarray) -> Seen:
    """The groups and videos of rows of the store that are labelled."""
    keys = store.keys[store.keys["row"].isin(rows)]
    videos = keys["video"].unique().astype("str")
    return Seen.of(labels.table.loc[labels.table["video"].isin(videos), "group"].unique(), videos)


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _fewer(explained: np.ndarray) -> str:
    """What half and a quarter of the components would keep: a help in choosing their number."""
    numbers = [n for n in (len(explained) // 2, len(explained) // 4) if n > 0]
    kept = [f"{n:,} of them {100 * explained[:n].sum():.1f} %" for n in numbers]
    return f" ({', '.join(kept)})" if kept else ""


def training_rows(store: FeatureStore, labels: Labels) -> np.ndarray:
    """Rows of the store whose frames are training data, see ``is_training``."""
    table, train = labels.table, is_training(labels)
    code = codes_of(store.keys, table["video"])[train]
    at = places_of(store.keys, code, table["frame"].to_numpy()[train])
    rows = np.sort(store.keys["row"].to_numpy()[at[at >= 0]])
    if len(rows) == 0:
        raise UserError(
            f"no frame of {store.path} is training data of '{labels.dataset}': nothing to fit a projection on"
        )
    return rows


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
