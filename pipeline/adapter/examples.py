"""A few training windows of a run with their embeddings: what a new frame is nearest to.

    examples.parquet    beside a seed's best.safetensors, one row a window: video, frame (the centre), class or null,
                        path (the picture, relative to the ``root`` of its facts) or null, embedding (E float16, of
                        length one but for rounding)

They are made of the training data: names of videos and embeddings of faces. So they fall under the licence of the data,
as a feature store does, and are not passed on with a run.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.files import read_table, write_table
from pipeline.core.params import UserError

FILE = "examples.parquet"
MOST = 2000  # windows
NOTICE = "names and embeddings of training data: under the licence of the data, not to be passed on"
WHAT = "the example windows of a run"


@dataclass(frozen=True)
class Examples:
    """``table`` has the columns video, frame, class and path, ``embeddings`` (n, E) float32 are of length one.

    ``path`` is the picture's full path, or None where there was no frame table. Nothing says that it is still there.
    """

    table: pd.DataFrame
    embeddings: np.ndarray


def save_examples(folder: Path, examples: Examples, root: Path | None) -> None:
    """Writes them into the ``folder`` of a seed. The paths in their table are relative to ``root``."""
    flat = pa.array(examples.embeddings.astype(np.float16).ravel())
    columns = {name: examples.table[name].to_numpy() for name in ("video", "frame", "class", "path")}
    table = pa.table(
        {
            "video": pa.array(columns["video"], pa.string()),
            "frame": pa.array(columns["frame"], pa.int64()),
            "class": pa.array(columns["class"], pa.string(), from_pandas=True),
            "path": pa.array(columns["path"], pa.string(), from_pandas=True),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, examples.embeddings.shape[1]),
        }
    )
    facts = {"root": None if root is None else from_folder(root, folder), "notice": NOTICE}
    write_table(folder / FILE, table, facts)


def load_examples(folder: Path) -> Examples:
    """What ``save_examples`` wrote; raises ``UserError`` where it is missing or damaged."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"there are no example windows at {path}: train.py makes them, and a bundle has none")
    found, facts = read_table(path, WHAT, f"Delete {folder} and train this seed again")
    embeddings = found["embedding"].combine_chunks()
    width = embeddings.type.list_size
    values = embeddings.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    table = found.drop_columns("embedding").to_pandas()
    if facts["root"] is not None:
        root = to_path(facts["root"], folder)
        table["path"] = [str(root / part) if isinstance(part, str) else None for part in table["path"]]
    return Examples(table, values)


def from_folder(path: Path, folder: Path) -> str:
    """``path`` as it is written into a file of ``folder``: relative to that, so that both may move together.

    Absolute where that cannot be, as on another drive of Windows.
    """
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def to_path(written: str, folder: Path) -> Path:
    """What ``from_folder`` was given, as an absolute path."""
    return Path(os.path.normpath(folder.absolute() / written))
