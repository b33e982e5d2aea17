"""How alike frames, persons and clips are: cosines of their embeddings."""

import numpy as np
import pandas as pd

from pipeline.core.params import UserError

Embeddings = pd.DataFrame | pd.Series | np.ndarray  # a table, its column or row, or an array (n, E) or (E,)


def similarity(a: Embeddings, b: Embeddings | None = None) -> np.ndarray | float:
    """Cosines (n, m) of all of ``a`` with all of ``b`` (None: with each other); a float for two single embeddings.

    Of frames it takes tables as an embedder gives them, of persons and clips what ``by_person`` and ``by_clip`` give.
    A single embedding (E,) drops its axis.
    """
    b = a if b is None else b
    first, second = unit(a), unit(b)
    if first.shape[-1] != second.shape[-1]:
        raise UserError(
            f"embeddings of {first.shape[-1]} and {second.shape[-1]} numbers cannot be compared: they are of two runs"
        )
    cosines = np.clip(first @ second.T, -1, 1)
    return float(cosines) if cosines.ndim == 0 else cosines


def by_person(table: pd.DataFrame) -> pd.DataFrame:
    """One row a person of each video: video, person, frames (how many), embedding.

    The embedding is the mean of those of the person's frames, which are of the windows around them as the run was
    trained, and of length one again.
    """
    return _grouped(table, ["video", "person"])


def by_clip(table: pd.DataFrame) -> pd.DataFrame:
    """One row a video, of all faces in it: video, frames (how many faces), embedding as in ``by_person``."""
    return _grouped(table, ["video"])


def _grouped(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    keys, groups = [], table.groupby(by, sort=True)
    for key, of in groups:
        keys.append((*key, len(of), unit(unit(of).mean(axis=0))))
    return pd.DataFrame(keys, columns=[*by, "frames", "embedding"])


def unit(of: Embeddings) -> np.ndarray:
    """Embeddings (n, E) or (E,) float32 of length one; one of zeros stays zero."""
    if isinstance(of, pd.DataFrame | pd.Series) and "embedding" in of:
        of = of["embedding"]
    if isinstance(of, pd.Series):
        of = np.stack(list(of)) if len(of) else np.empty((0, 0), np.float32)
    values = np.asarray(of, dtype=np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
