"""Words that stand for no value: what pandas, R, SQL and annotation tools write where there is no label."""

from typing import Any

import pandas as pd

from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.dataset import counted

# In lower case. pandas writes nan and <NA>, R NA, Python None, SQL null, Excel #N/A; -1 is ABAW's and many others'.
WORDS = ("", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "-1", "-1.0")


def is_missing(values: pd.Series, config: DatasetConfig) -> pd.Series:
    """Which texts stand for no value: those of ``config.missing`` where it is given, else ``WORDS``.

    Case does not matter. The empty text always stands for no value. A word that ``class_map`` names is always a class.
    """
    given = WORDS if config.missing is None else ["", *(w for word in config.missing for w in _spelled(word))]
    words = {word.strip().lower() for word in given}
    classes = config.class_map if isinstance(config.class_map, dict) else {}
    return values.str.strip().str.lower().isin(words) & (~values.isin(list(classes)) | (values == ""))


def missing_labels(labels: pd.Series, missing: pd.Series) -> dict[str, Any]:
    """For the report: how many labels are missing, and by which word."""
    counts = labels[missing].value_counts().sort_index()
    return counted(f"{word!r}: {n:,}" if word else f"empty: {n:,}" for word, n in counts.items()) | {
        "count": int(counts.sum())
    }


def in_words(missing: dict[str, Any]) -> list[str]:
    """The warning that a word was taken for no label; none where they are empty."""
    words = [text for text in missing["first"] if not text.startswith("empty: ")]
    if not words:
        return []
    return [
        f"labels that stand for none: {', '.join(words)}: they are left out; where such a word is a class, set "
        "dataset.missing in params.yaml, or --missing, to the words that are none: '[]' for no word at all"
    ]


def _spelled(word: object) -> list[str]:
    """A list item of YAML as the words it may have been meant for: ``[null]`` has no text."""
    return ["null", "none"] if word is None else [str(word)]
