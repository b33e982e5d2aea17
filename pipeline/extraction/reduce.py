"""The reduce stage: principal components of the stored features, fitted on the training split only.

python -m pipeline.extraction.reduce -n 256
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import projection
from pipeline.params import UserError, entry, option, parse
from pipeline.store import FeatureStore
from pipeline.tables import KEY, read_labels


@dataclass(frozen=True)
class ReduceConfig:
    """Section ``reduce`` of params.yaml."""

    components: int = option(256, "-n", help="principal components to keep")
    store: Path = option(Path("data/features.zarr"), "-s", help="the feature store")
    labels: Path = option(Path("data/labels.parquet"), help="the label table, which says what is training data")
    output: Path = option(Path("data/projection.safetensors"), "-o", help="where the projection is written")

    def __post_init__(self) -> None:
        if self.components < 1:
            raise UserError(f"reduce: components must be at least 1, and is {self.components}")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReduceConfig, argv, sections=["reduce"], description=__doc__)
    store = FeatureStore(config.store)
    rows = training_rows(store, config.labels)
    fitted = projection.fit(_blocks(store, rows), config.components)
    projection.save(config.output, fitted, store.made_by)
    share = 100 * float(fitted.explained.sum())
    print(f"{config.components} of {store.num_features} components keep {share:.1f} % of {len(rows):,} rows' variance")


def training_rows(store: FeatureStore, labels: Path) -> np.ndarray:
    """Rows of the store whose frame is training data in one track, and whose group is held out in none."""
    table = read_labels(labels).table
    splits = table[[c for c in table if c.endswith("_split")]]
    held_out = table.loc[splits.isin(["val", "test"]).any(axis=1), "group"].unique()
    train = table.loc[(splits == "train").any(axis=1) & ~table["group"].isin(held_out), KEY]
    keys = store.keys.astype({"video": "str"})
    rows = np.sort(keys.merge(train, on=KEY)["row"].to_numpy())
    if len(rows) == 0:
        raise UserError(f"no frame of {store.path} is training data in {labels}: nothing to fit a projection on")
    return rows


def _blocks(store: FeatureStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), store.chunk_rows):
        yield store.read(rows[start : start + store.chunk_rows])


if __name__ == "__main__":
    entry(main)
