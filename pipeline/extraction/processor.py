"""``--processor none | pca N | adapt-pca N`` of extract.py: the flags it is short for, and the projection it fits."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.core import children
from pipeline.core.params import UserError
from pipeline.core.tables import KEY, STORE, Labels, beside_store, is_training, of_fold
from pipeline.extraction.inputs import labels_beside

GRIDS = {"pca": 1, "adapt-pca": 4}  # the grid of each


def split_processor(argv: Sequence[str]) -> tuple[list[str], int | None]:
    """The flags of extraction that ``argv`` stands for, and the number of components to fit; None for no projection.

    A ``--grid`` that is given too stands.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--processor", nargs="+")
    known, rest = early.parse_known_args(argv)
    if known.processor is None:
        return rest, None
    name, *number = " ".join(known.processor).split()
    if [name, *number] == ["none"]:
        return ["--grid", "1", *rest], None
    if name not in GRIDS or len(number) != 1 or not number[0].isdecimal() or int(number[0]) < 1:
        raise UserError(f"--processor is none, pca N or adapt-pca N, and not '{' '.join(known.processor)}'")
    return ["--grid", str(GRIDS[name]), *rest], int(number[0])


def check_training_frames(data: Path, labels: Labels, wanted: pd.DataFrame, components: int) -> None:
    """Says before hours of extraction what a projection of the training frames cannot have.

    ``wanted`` are the frames to extract. Raises ``UserError`` where less than two of them are training frames.
    """
    splits = [of_fold(labels, fold) for fold in labels.folds or [None]]
    count = min(len(split.table.loc[is_training(split), KEY].merge(wanted[KEY])) for split in splits)
    if count < 2:
        raise UserError(
            f"--processor fits a projection on labelled training frames, and of {data} {count} are to be "
            "extracted: leave it out, and train with --no-reduce"
        )
    if count <= components:
        print(f"{count:,} training frames have {count - 1:,} principal components at most, not {components:,}")


def fit_projection(store: Path, data: Path, components: int, params: Sequence[str]) -> None:
    """Runs the reduce stage on ``store``, and says how to train on it. ``data`` is what was extracted.

    The stage runs in a process of its own: extraction must not import it, or DVC would extract again when it changes.
    """
    tables = [] if data.is_dir() else ["--labels", str(labels_beside(data)), "--frames", str(data)]
    flags = ["--data", str(store), "--components", str(components), *params, *tables]
    if children.run([sys.executable, "-m", "pipeline.extraction.reduce", *flags]):
        raise UserError(f"the features are stored, but no projection could be fitted on {store}")
    shown = tables if data.absolute() != beside_store(STORE, "frames.parquet").absolute() else []
    print(f"train on it with: python train.py {' '.join(['-d', str(store), *shown])}")
