"""The table that an embedder gives: its columns, and how they are filled."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

BOX = ["left", "top", "right", "bottom"]


def make_table(
    keys: pd.DataFrame, embeddings: np.ndarray, predicted: Mapping[str, np.ndarray], classes: list[str],
    au_names: list[str],
) -> pd.DataFrame:  # fmt: skip
    """``keys`` (n rows: video, person, frame, ...) with embeddings (n, E), and with what is predicted in ABAW's words.

    The columns after the keys: embedding, class and p_<class> of each class, valence and arousal, AU1 and so on.
    """
    columns = {"embedding": rows(embeddings.astype(np.float32))}
    if "classes" in predicted:
        shares = predicted["classes"]
        columns["class"] = np.array(classes, dtype=object)[shares.argmax(axis=1)] if len(shares) else []
        columns |= {f"p_{name}": shares[:, i].astype(np.float32) for i, name in enumerate(classes)}
    if "va" in predicted:
        columns |= {name: predicted["va"][:, i].astype(np.float32) for i, name in enumerate(("valence", "arousal"))}
    if "aus" in predicted:
        columns |= {name.upper(): predicted["aus"][:, i].astype(np.float32) for i, name in enumerate(au_names)}
    return keys.assign(**columns)


def rows(values: np.ndarray) -> pd.Series:
    """A column whose cells are the rows of an array (n, k)."""
    return np.fromiter(values, dtype=object, count=len(values))
