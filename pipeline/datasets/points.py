"""Tables of faces whose five points are known: what an aligner is trained on.

The first column is the picture's path, relative to the folder of the table. The next ten are x and y of ``POINTS``, in
pixels, (0, 0) being the centre of the first one. A column ``group`` (or ``video``) says which pictures must stand on
one side of a split; without it each picture stands alone. Other columns are not read. A .csv has a line of names.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.files import write_table
from pipeline.core.params import UserError

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # left is left in the picture
POINT_COLUMNS = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
POINT_TABLE = "points.parquet"  # beside the drawn faces
GROUPS = ("group", "video")  # the first of these columns that there is


def scaled(points: np.ndarray, times: float | np.ndarray) -> np.ndarray:
    """Points (..., 2) in a picture that is ``times`` as large, or (2,) as wide and as high."""
    return (points + 0.5) * times - 0.5


def point_table(paths: Sequence[str], points: Sequence[np.ndarray], groups: Sequence[str]) -> pd.DataFrame:
    """A table of pictures with points (n, 5, 2)."""
    values = np.asarray(points, dtype=np.float32).reshape(-1, len(POINT_COLUMNS))
    table = pd.DataFrame(values, columns=POINT_COLUMNS)
    table.insert(0, "path", pd.Series(list(paths), dtype="str"))
    return table.assign(group=pd.Series(list(groups), dtype="str"))


def write_points(path: Path, table: pd.DataFrame) -> None:
    """Writes what ``point_table`` gives."""
    write_table(path, pa.Table.from_pandas(table, preserve_index=False), {})


def read_points(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Paths, points (n, 5, 2) float64 and groups of a table, .csv or .parquet.

    Raises ``UserError`` where it cannot be read, has fewer columns, or a value that is no number.
    """
    try:
        table = pq.read_table(path).to_pandas() if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except OSError as error:
        raise UserError(f"points: cannot read {path}: {error.strerror or 'it is no table'}") from None
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"points: {path} is no table: {' '.join(str(error).split())}") from None
    wanted = f"wanted are a column of paths, then ten of points: {', '.join(POINT_COLUMNS)}"
    if table.shape[1] <= len(POINT_COLUMNS):
        raise UserError(f"points: {path} has {table.shape[1]} columns; {wanted}")
    values = table.iloc[:, 1 : 1 + len(POINT_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    if bad := int((~np.isfinite(values.to_numpy(dtype=np.float64))).any(axis=1).sum()):
        raise UserError(f"points: {path} has {bad} rows with a point that is no number; {wanted}")
    paths = table.iloc[:, 0].astype("str").tolist()
    column = next((name for name in GROUPS if name in table), None)
    groups = paths if column is None else table[column].astype("str").tolist()
    return paths, values.to_numpy(dtype=np.float64).reshape(-1, len(POINTS), 2), groups
