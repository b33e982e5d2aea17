"""The table that an embedder gives, and what it is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

BOX = ["left", "top", "right", "bottom"]


def with_embeddings(
    table: pd.DataFrame, embeddings: np.ndarray, predicted: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> pd.DataFrame:
    """``table`` (n rows) with embeddings (n, E) and with what is predicted, as ``Embedder.embed`` gives them.

    New columns: embedding; class and p_<class> of each class; valence and arousal; AU1 and so on; the
    further outputs of a run on clips by their names. All float32.
    """
    return table.assign(**new_columns(embeddings, predicted, facts))


def new_columns(
    embeddings: np.ndarray, predicted: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The new columns of ``with_embeddings``, n cells each."""
    columns: dict[str, Any] = {"embedding": rows(embeddings)}
    if "classes" in predicted:
        classes = facts["classes"]
        columns["class"] = np.array(classes, dtype=object)[predicted["classes"].argmax(axis=1)]
        columns |= _each([f"p_{name}" for name in classes], predicted["classes"])
    if "va" in predicted:
        columns |= _each(["valence", "arousal"], predicted["va"])
    if "aus" in predicted:
        columns |= _each([name.upper() for name in facts["au_names"]], predicted["aus"])
    if "outputs" in predicted:
        columns |= _each(facts["output_names"], predicted["outputs"])
    return columns


def rows(values: np.ndarray) -> np.ndarray:
    """A column whose cells are the rows of ``values`` (n, k)."""
    cells = np.empty(len(values), dtype=object)
    for i, row in enumerate(values):
        cells[i] = row
    return cells


def _each(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names, values.T.astype(np.float32), strict=True))
