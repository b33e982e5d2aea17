"""Scans a data set into its frame, label and clip tables, and reports what was found and what was not.

    python -m pipeline.datasets.index                               the data set of params.yaml
    python -m pipeline.datasets.index --root FOLDER                 another, which is recognised
    python -m pipeline.datasets.index --root FOLDER --dataset abaw  another, which you name

writes data/frames.parquet (names and sizes of the frames), data/labels.parquet (annotations of frames),
data/clips.parquet (those of clips; no rows where there are none) and data/index.json. All are the same bytes whenever
the files are the same: nothing in them tells the time, nor the order of a listing.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.clips import no_clips, write_clips
from pipeline.core.files import write_json
from pipeline.core.params import entry, parse
from pipeline.core.params import read as read_params
from pipeline.core.tables import KEY, SPLITS, Frames, Labels, unit_columns, write_frames, write_labels
from pipeline.datasets.clip_labels import describe_clips
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.copies import compared, copies
from pipeline.datasets.copies import warnings as copies_in_words
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.readers import OF_A_DATA_SET, read
from pipeline.datasets.splits import in_two_splits

MOST_CLASSES = 50  # printed one by one


def main(argv: Sequence[str] | None = None) -> int:
    """0; or 1 with ``--strict`` where anything had to be skipped. All outputs are written in either case."""
    started = time.perf_counter()
    config = _config(argv)
    dataset = read(config)
    write_frames(config.frames, dataset.frames)
    write_labels(config.labels, dataset.labels)
    if config.labels_mtl is not None:
        write_labels(config.labels_mtl, dataset.multi_task or dataset.labels)
    write_clips(config.clips, dataset.clips or no_clips(dataset.labels.dataset))
    report = report_of(dataset, config.compare)
    write_json(config.report, report)
    print(summary(report))
    if config.labels_mtl is not None:
        print(multi_task_line(config.labels_mtl, dataset.multi_task))
    tables = f"{config.frames}, {config.labels}, {config.clips}"
    print(f"wrote {tables} and {config.report} in {time.perf_counter() - started:.1f} s")
    if dataset.skipped:
        print(f"{dataset.skipped} lines, files or folders were skipped: they are named above and in {config.report}")
    return 1 if config.strict and dataset.skipped else 0


def _config(argv: Sequence[str] | None) -> DatasetConfig:
    """The section ``dataset`` with the flags on top.

    Where the flags give another root or another name than the section, they are of another data set. Then what the
    section says of its own data set is dropped, and a name that no flag gives is recognised. How to split stays.
    """
    whole = parse(DatasetConfig, argv, sections=["dataset"], description=__doc__)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--params", type=Path, default=Path("params.yaml"))
    section = read_params(early.parse_known_args(argv)[0].params, "dataset")
    same_root = os.path.realpath(whole.root) == os.path.realpath(section.get("root", whole.root))
    if same_root and whole.name == section.get("name", whole.name):
        return whole
    flags = parse(DatasetConfig, argv, sections=[], description=__doc__)
    dropped = ("name", "class_map", "also", "identities", "top_people", *OF_A_DATA_SET)
    return replace(whole, **{key: getattr(flags, key) for key in dropped})


def multi_task_line(path: Path, labels: Labels | None) -> str:
    """What is in the label table of the multi-task edition."""
    if labels is None:
        return f"{path}: the same labels again (no multi-task lists beside files by video, or folds, or also)"
    valid = _valid(labels.table)
    counts = ", ".join(f"{track} {int(valid[track].sum()):,}" for track in valid if track not in KEY)
    return f"{path}: the multi-task lists, {len(valid):,} label rows: {counts}"


def report_of(dataset: Dataset, compare: int) -> dict[str, Any]:
    """All there is to say of a data set; ``compare`` is how many files are looked into for identical images."""
    report = describe(dataset.frames, dataset.labels) | dataset.report | {"skipped": dataset.skipped}
    if dataset.clips is not None:
        report |= describe_clips(dataset.clips, dataset.frames.table)
    if compare > 0:
        report |= copies(dataset.frames, dataset.labels, compare)
        report["warnings"] = report.get("warnings", []) + copies_in_words(report)
    return report


def describe(frames: Frames, labels: Labels) -> dict[str, Any]:
    """What two tables hold, as JSON values: counts, how frames and labels match, gaps, groups in two splits.

    A *late* video starts after frame 1. ``labelled_frames`` and ``frames_per_class`` count labels that have a frame;
    a split is 'none' where the track is labelled and has no split, and 'fold 0' and so on where it is cut into folds.
    """
    table, valid = frames.table, _valid(labels.table)
    tracks = [column for column in valid if column not in KEY]
    of_labels = labels.table[KEY].merge(table[KEY].assign(found=True), on=KEY, how="left")["found"].notna().to_numpy()
    labelled = table[KEY].merge(valid, on=KEY, how="left")
    extent = table.groupby("video")["frame"].agg(["min", "max", "count"])
    missing = extent["max"] - extent["min"] + 1 - extent["count"]
    late = extent.loc[extent["min"] > 1, "min"]
    return {
        "dataset": frames.dataset,
        "crop_source": frames.crop_source,
        "videos": len(extent),
        "frames": len(table),
        "bytes": int(table["size"].sum()),
        "empty_files": counted(table.loc[table["size"] == 0, "path"].sort_values()),
        "label_rows": len(valid),
        "videos_per_split": {track: _videos_per_split(labels.table, track) for track in tracks},
        "labelled_frames": {track: _per_split(labels.table, track, of_labels & valid[track]) for track in tracks},
        "frames_per_class": _per_class(labels, of_labels),
        "labels_without_frame": {"any": int((~of_labels).sum())}
        | {track: int((valid[track] & ~of_labels).sum()) for track in tracks},
        "frames_without_label": {"any": int(labelled[tracks].isna().all(axis=1).sum())}
        | {track: len(labelled) - int((labelled[track] == True).sum()) for track in tracks},  # noqa: E712
        "videos_with_gaps": counted(f"{video}: {n} frames" for video, n in missing[missing > 0].items())
        | {"missing_frames": int(missing.sum())},
        "videos_starting_late": counted(f"{video}: at {n}" for video, n in late.items()),
        "groups_in_two_splits": {track: counted(in_two_splits(labels.table, track)) for track in tracks},
    }


def summary(report: dict[str, Any]) -> str:
    """The report for reading; what was counted and is zero is left out."""
    lines = [
        f"{report['dataset']}, {report['crop_source']}: {report['videos']:,} videos, {report['frames']:,} frames, "
        f"{report['bytes'] / 1e9:.2f} GB, {report['label_rows']:,} label rows"
    ]
    if not report["label_rows"]:
        which = "NO LABELS of frames were found" if report.get("clips") else "NO LABELS were found"
        lines.append(f"{which}: the label table is empty")
    lines += [f"WARNING: {text}" for text in report.get("warnings", [])]
    for track, splits in report["videos_per_split"].items():
        counts = [f"{s}: {report['labelled_frames'][track].get(s, 0):,} in {n:,} videos" for s, n in splits.items()]
        lines.append(f"{track}, labelled frames: {'; '.join(counts)}")
    lines += _class_lines(report["frames_per_class"], "frames")
    lines += _clip_lines(report) if "clips" in report else []
    for key in ("recognised", "split", "top_people", "identity_sets", "class_map"):
        if report.get(key) and (report["label_rows"] or key == "recognised"):
            lines.append(f"{_words(key)}: {_shown(report[key])}")
    for key in ("frames_without_label", "labels_without_frame"):
        lines.append(f"{_words(key)}: {', '.join(f'{track} {n:,}' for track, n in report[key].items())}")
    for track, groups in report["groups_in_two_splits"].items():
        if groups["count"]:
            lines.append(f"WARNING: {_count_line(f'groups in two splits of {track}', groups)}")
    lines += _rules(report) + compared(report) + _counts(report)
    for name, own in report.get("data_sets", {}).items():
        warnings = [f"WARNING: {text}" for text in own.get("warnings", [])]
        lines += [f"{name}: {line}" for line in [*warnings, f"split: {own['split']}", *_rules(own), *_counts(own)]]
    return "\n".join(lines)


def _valid(table: pd.DataFrame) -> pd.DataFrame:
    """The key and, for each track that the table has, whether the row is labelled for it."""
    valid = table[KEY].copy()
    if "expression" in table:
        valid["expression"] = table["expression"].notna()
    if "valence" in table:
        valid["va"] = table["valence"].notna() & table["arousal"].notna()
    if units := unit_columns(table):
        valid["au"] = table[units].notna().any(axis=1)
    return valid


def _split(table: pd.DataFrame, track: str) -> pd.Series:
    if f"{track}_split" not in table:
        return pd.Series("none", index=table.index)
    split = table[f"{track}_split"].fillna("none")
    return split.mask(split == "fold", "fold " + table["fold"].astype("str")) if "fold" in table else split


def _videos_per_split(table: pd.DataFrame, track: str) -> dict[str, int]:
    """A video without this track's split belongs to none, and is not counted."""
    videos = pd.DataFrame({"video": table["video"], "split": _split(table, track)}).drop_duplicates()
    return _in_order(videos["split"].value_counts().drop("none", errors="ignore"))


def _per_split(table: pd.DataFrame, track: str, rows: pd.Series) -> dict[str, int]:
    return _in_order(_split(table, track)[rows].value_counts())


def _in_order(counts: pd.Series) -> dict[str, int]:
    return {split: int(counts[split]) for split in _ordered(counts.index)}


def _ordered(splits: pd.Index) -> list[str]:
    """Train, val and test, folds by their numbers, and none at all."""
    folds = sorted((s for s in splits if s.startswith("fold ")), key=lambda s: int(s.removeprefix("fold ")))
    return [split for split in (*SPLITS, *folds, "none") if split in splits]


def _per_class(labels: Labels, rows: Any) -> dict[str, dict[str, int]]:
    """split -> class -> frames, zeros included, in the order of the classes."""
    if "expression" not in labels.table:
        return {}
    table = pd.DataFrame({"split": _split(labels.table, "expression"), "class": labels.table["expression"]})
    counts = table[rows].dropna().value_counts()
    return {
        split: {name: int(counts.get((split, name), 0)) for name in labels.classes}
        for split in _ordered(counts.index.get_level_values(0).unique())
    }


def _clip_lines(report: dict[str, Any]) -> list[str]:
    splits = "; ".join(f"{name}: {n:,}" for name, n in report["clips_per_split"].items())
    of = report["frames_per_clip"]
    length = f"; {of['least']:,} to {of['most']:,} frames, half of them at most {of['median']:,}" if of else ""
    lines = [f"clips: {report['clips']:,} ({splits}){length}"]
    if report["clip_outputs"]:
        lines.append(f"continuous labels of clips: {', '.join(report['clip_outputs'])}")
    return [*lines, *_class_lines(report["clips_per_class"], "clips")]


def _class_lines(per_class: dict[str, dict[str, int]], what: str) -> list[str]:
    if not per_class:
        return []
    table = pd.DataFrame(per_class)
    if len(table) > MOST_CLASSES:
        sizes = table.sum(axis=1)
        return [f"{len(table):,} classes, of {sizes.min():,} to {sizes.max():,} {what}"]
    width = max(len(str(name)) for name in table.index)
    lines = [" " * (width + 2) + "".join(f"{split:>12}" for split in table)]
    return lines + [f"  {name:<{width}}" + "".join(f"{n:>12,}" for n in row) for name, *row in table.itertuples()]


def _counts(report: dict[str, Any]) -> list[str]:
    """A line for each thing of a report that was counted and is not zero."""
    return [_count_line(_words(k), v) for k, v in report.items() if isinstance(v, dict) and v.get("count")]


def _rules(report: dict[str, Any]) -> list[str]:
    """A line for each rule that gave frame numbers."""
    return [
        f"frame numbers: {rule}, in {of['count']:,} videos ({'; '.join(of['first'][:2])})"
        for rule, of in report.get("frame_numbers", {}).items()
    ]


def _shown(value: Any) -> str:
    return ", ".join(f"{a} -> {b}" for a, b in value.items()) if isinstance(value, dict) else str(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _count_line(words: str, value: dict[str, Any]) -> str:
    shown = value["first"][:3]
    more = ", ..." if value["count"] > len(shown) else ""
    return f"{words}: {value['count']:,} ({', '.join(shown)}{more})"


if __name__ == "__main__":
    entry(main)
