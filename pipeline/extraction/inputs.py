"""The frame table and the label table that extract.py works on; a folder is indexed into them first."""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.core import children
from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels, beside_store, read_frames, read_labels
from pipeline.extraction.config import ExtractConfig


def read_tables(config: ExtractConfig, params: Sequence[str], with_labels: bool) -> tuple[Frames, Labels | None]:
    """The frame table, and the label table where it is wanted. ``params`` are the flags that name a parameter file.

    The tables of a folder are made beside the store. Those of a dry run are made where nothing stays.
    """
    if not config.data.is_dir():
        return read_frames(config.data), read_labels(labels_beside(config.data)) if with_labels else None
    with TemporaryDirectory() as folder:
        store = Path(folder) / config.store.name if config.dry_run else config.store
        _index(config, store, params)
        labels = read_labels(beside_store(store, "labels.parquet")) if with_labels else None
        return read_frames(beside_store(store, "frames.parquet")), labels


def labels_beside(frames: Path) -> Path:
    """The label table that belongs to a frame table."""
    return frames.with_name("labels.parquet")


def _index(config: ExtractConfig, store: Path, params: Sequence[str]) -> None:
    """Makes the tables beside ``store``, by the index stage in a process of its own.

    Extraction must not import the readers of data sets: DVC would extract again whenever one of them is edited.
    """
    outputs = {
        "--frames": beside_store(store, "frames.parquet"),
        "--labels": beside_store(store, "labels.parquet"),
        "--clips": beside_store(store, "clips.parquet"),
        "--report": beside_store(store, "index.json"),
    }
    command = [sys.executable, "-m", "pipeline.datasets.index", "--root", str(config.data), *params]
    command += ["--dataset", config.dataset] if config.dataset else []
    for flag, path in outputs.items():
        command += [flag, str(path)]
    print(f"{config.data} is a folder: indexing it into {outputs['--frames']}", flush=True)
    if children.run(command):
        raise UserError(f"{config.data} could not be indexed")
