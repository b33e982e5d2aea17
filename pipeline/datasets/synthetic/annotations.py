"""The annotation files of a clip, with the gaps and the wrong lengths that ABAW's have."""

from pathlib import Path

import numpy as np

from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES
from pipeline.datasets.synthetic.acting import AU_ON, COLUMN, Performance
from pipeline.datasets.synthetic.plan import Clip

ANNOTATIONS = "8th_ABAW_Annotations"
TRACK_FOLDERS = {"expr": "EXPR_Recognition_Challenge", "va": "VA_Estimation_Challenge", "au": "AU_Detection_Challenge"}
SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}
HEADERS = {"expr": ",".join(ABAW_CLASSES), "va": "valence,arousal", "au": ",".join(ABAW_AUS).upper()}
MULTI_TASK = "MTL_Challenge"
MULTI_TASK_LISTS = {"train": "training_set_annotations.txt", "val": "validation_set_annotations.txt"}
MULTI_TASK_HEADER = "image,valence,arousal,expression,aus"
MULTI_TASK_MISSING = 0.6  # of the labels of each track, at random
LABELLED_AUS = [int(name.removeprefix("au")) for name in ABAW_AUS]


def annotation_lines(clip: Clip, numbers: np.ndarray, length: int, rng: np.random.Generator) -> int:
    """How many frames the annotation files speak of: one more than there are is common, far too few or many is not."""
    if "annotation short" in clip.faults:
        return int(numbers[len(numbers) // 2]) - int(rng.integers(0, 3))
    if "annotation long" in clip.faults:
        return length + int(rng.integers(50, 250))
    return length + ("one line more" in clip.faults)


def write_annotations(clip: Clip, played: Performance, lines: int, parent: Path, rng: np.random.Generator) -> None:
    """One file for each track the clip is labelled in; line i, the header being line 0, is frame i."""
    rows = {"expr": expression_rows, "va": affect_rows, "au": unit_rows}
    for track, split in clip.splits.items():
        text = "\n".join([HEADERS[track], *rows[track](played, lines, rng)]) + "\n"
        if split is not None:
            path = parent / TRACK_FOLDERS[track] / SPLIT_FOLDERS[split] / f"{clip.name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def invalid_run(lines: int, likely: float, rng: np.random.Generator) -> slice:
    """Rows that annotators left out: up to a quarter of the clip, or none."""
    start, count = int(rng.integers(lines)), int(rng.integers(2, max(3, min(20, lines // 4))))
    return slice(start, start + count) if rng.random() < likely else slice(0, 0)


def expression_rows(played: Performance, lines: int, rng: np.random.Generator) -> list[str]:
    values = played.expression[:lines].copy()
    values[invalid_run(lines, 0.6, rng)] = -1
    return [str(v) for v in values]


def affect_rows(played: Performance, lines: int, rng: np.random.Generator) -> list[str]:
    """-5 in both columns of a run, and now and then in one column of one row."""
    values = np.round(played.affect[:lines], 3) + 0.0  # no minus zero
    values[invalid_run(lines, 0.6, rng)] = -5
    if rng.random() < 0.3:
        values[rng.integers(lines), rng.integers(2)] = -5
    return [f"{v:g},{a:g}" for v, a in values]


def unit_rows(played: Performance, lines: int, rng: np.random.Generator) -> list[str]:
    """-1 in whole rows of a run, and now and then in one column throughout."""
    values = (played.units[:lines, [COLUMN[au] for au in LABELLED_AUS]] > AU_ON).astype(int)
    values[invalid_run(lines, 0.6, rng)] = -1
    if rng.random() < 0.2:
        values[:, rng.integers(len(LABELLED_AUS))] = -1
    return [",".join(map(str, row)) for row in values.tolist()]


def multi_task_rows(clip: Clip, played: Performance, numbers: np.ndarray, rng: np.random.Generator) -> list[str]:
    """The clip's rows of the multi-task lists: its frames with the labels of all tracks, most of them missing.

    Of each track a label is missing by chance, whatever the others are: -5,-5, -1, or -1 of all units. A frame that has
    none is left out. The split is that of the expressions, in which other clips have no row.
    """
    if clip.splits["expr"] is None or clip.folder is None:
        return []
    at = numbers - 1
    missing = rng.random((len(at), 3)) < MULTI_TASK_MISSING
    affect = np.where(missing[:, :1], -5, np.round(played.affect[at], 3) + 0.0)
    expression = np.where(missing[:, 1], -1, played.expression[at])
    units = played.units[at][:, [COLUMN[au] for au in LABELLED_AUS]] > AU_ON
    units = np.where(missing[:, 2:], -1, units.astype(int))
    return [
        ",".join(
            [f"{clip.name}/{numbers[i]:05d}.jpg", *(f"{v:g}" for v in affect[i]), *map(str, [expression[i], *units[i]])]
        )
        for i in np.flatnonzero(~missing.all(axis=1))
    ]


def write_multi_task(clips: list[Clip], rows: list[list[str]], parent: Path) -> None:
    """The two lists of a multi-task edition, of ``multi_task_rows`` of all clips."""
    folder = parent / MULTI_TASK
    folder.mkdir(parents=True)
    for split, name in MULTI_TASK_LISTS.items():
        lines = [row for clip, of in zip(clips, rows, strict=True) if clip.splits["expr"] == split for row in of]
        (folder / name).write_text("\n".join([MULTI_TASK_HEADER, *lines]) + "\n", encoding="utf-8")
