"""One data set's classes as another's."""

from typing import Any

from pipeline.core.clips import Clips
from pipeline.core.params import UserError, one_of
from pipeline.core.tables import ABAW_CLASSES, IDENTITY_SET, KEY, Labels, unit_columns
from pipeline.datasets.dataset import counted

# What RAVDESS, CK+ and folders of emotions call ABAW's classes, in lower case. RAVDESS has calm as a second neutral
# (Livingstone and Russo 2018, https://doi.org/10.1371/journal.pone.0196391); ABAW's Other is any further emotion.
ABAW = {
    "neutral": "Neutral", "calm": "Neutral",
    "anger": "Anger", "angry": "Anger",
    "disgust": "Disgust", "disgusted": "Disgust",
    "fear": "Fear", "fearful": "Fear",
    "happiness": "Happiness", "happy": "Happiness", "joy": "Happiness",
    "sadness": "Sadness", "sad": "Sadness",
    "surprise": "Surprise", "surprised": "Surprise",
    "other": "Other", "contempt": "Other",
}  # fmt: skip
NO_LABELS = (*KEY, "group", "fold", "dataset", "pair", "side", "same", IDENTITY_SET)


def alike(classes: list[str]) -> list[str]:
    """The warning that some classes differ by case or blanks alone; none where none do."""
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(" ".join(name.split()).casefold(), []).append(name)
    several = [" and ".join(map(repr, names)) for names in same.values() if len(names) > 1]
    if not several:
        return []
    return [
        f"classes that differ by case or blanks alone, and are probably one: {'; '.join(several)}: put them together "
        "with dataset.class_map"
    ]


def mapped(labels: Labels, class_map: str | dict[str, str] | None) -> tuple[Labels, dict[str, Any]]:
    """The labels under the map's classes, and what became of which class, for the report.

    Rows of a class that the map does not name lose their expression, and are deleted where they have no other label.
    The classes are those of ABAW for 'abaw', whether found or not, else the map's values in its order. Raises
    ``UserError`` for labels without classes, for a class that the data set does not have, and for a map that leaves
    nothing.
    """
    if class_map is None:
        return labels, {}
    table = labels.table
    if "expression" not in table:
        raise UserError(f"dataset: class_map is given, and data set '{labels.dataset}' has no classes")
    partner, classes = _partners(labels, class_map)
    counts = table["expression"].value_counts()
    dropped = {name: int(counts.get(name, 0)) for name in labels.classes if name not in partner}
    table = table.assign(expression=table["expression"].map(partner))
    labelled = [c for c in table if c not in NO_LABELS and not c.endswith("_split")]
    table = table[table[labelled].notna().any(axis=1)].reset_index(drop=True)
    report = {
        "class_map": {name: partner[name] for name in labels.classes if name in partner},
        "classes_dropped_by_class_map": counted(f"{name}: {rows} labels" for name, rows in dropped.items())
        | {"labels": sum(dropped.values())},
    }
    return Labels(table, classes, labels.dataset), report


def mapped_clips(clips: Clips, class_map: str | dict[str, str] | None) -> Clips:
    """The clips under the map's classes; a clip whose class the map does not name is there no more if it has no other.

    What was dropped is in the report that ``mapped`` gives of the frames.
    """
    table = clips.table
    if class_map is None or "expression" not in table:
        return clips
    partner, classes = _partners(clips, class_map)
    theirs = table["expression"].map(partner)
    others = [c for c in table if c in ("valence", *clips.outputs) or c in unit_columns(table)]
    lost = table["expression"].notna() & theirs.isna() & ~table[others].notna().any(axis=1)
    return Clips(table.assign(expression=theirs)[~lost].reset_index(drop=True), classes, clips.dataset)


def _partners(labels: Labels | Clips, class_map: str | dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Class -> its partner, and the classes that there are then."""
    if isinstance(class_map, str):
        one_of("dataset: class_map", class_map, ["abaw"])
        partner, classes = {c: ABAW[c.lower()] for c in labels.classes if c.lower() in ABAW}, ABAW_CLASSES
    else:
        for name in class_map:
            one_of("dataset: class_map: class", name, labels.classes)
        for value in class_map.values():
            if not isinstance(value, str):
                raise UserError(f"dataset: class_map must give names, and gives {value!r}")
        partner, classes = class_map, list(dict.fromkeys(class_map.values()))
    if not partner:
        raise UserError(f"dataset: class_map knows none of the classes {labels.classes} of data set '{labels.dataset}'")
    return partner, list(classes)
