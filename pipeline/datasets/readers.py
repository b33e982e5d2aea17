"""The readers of data sets by name, and what is done to whatever they found: splits, several at once, class maps."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.choices import Choices
from pipeline.core.clips import Clips
from pipeline.core.params import UserError, build, one_of
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.classes import alike, mapped, mapped_clips
from pipeline.datasets.clip_labels import frame_labels, in_two_sides, with_clip_split
from pipeline.datasets.config import AUTO, DatasetConfig
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.identities import OWN as OF_PEOPLE
from pipeline.datasets.identities import as_identities, refuse, with_sets
from pipeline.datasets.numbered import with_how_cut
from pipeline.datasets.splits import with_split, without_val

OF_A_DATA_SET = ("annotations", "columns", "crop_source", "frame_number", "first_frame", "fps", "missing", "outputs")
OWN = ("name", "root", *OF_A_DATA_SET, "val_fraction", "seed")


def read(config: DatasetConfig) -> Dataset:
    """The data set and those of ``also``, each with its split, under one class map."""
    dataset = _read_one(config)
    if config.also:
        others = [_other(config, entry, f"dataset.also[{i}]") for i, entry in enumerate(config.also)]
        parts = [dataset, *map(_read_one, others)]
        lists = {tuple(part.labels.classes) for part in parts if "expression" in part.labels.table}
        if len(lists) > 1 and config.class_map is None:
            raise UserError(
                f"dataset.also: the classes differ, and need a class_map: {[list(c) for c in sorted(lists)]}"
            )
        dataset = _together(parts)
    labels, report = mapped(dataset.labels, config.class_map)
    report |= {"warnings": dataset.report.get("warnings", []) + alike(labels.classes)}
    multi_task = None if dataset.multi_task is None else mapped(dataset.multi_task, config.class_map)[0]
    clips = dataset.clips and mapped_clips(dataset.clips, config.class_map)
    return replace(dataset, labels=labels, multi_task=multi_task, clips=clips, report=dataset.report | report)


def _read_one(config: DatasetConfig) -> Dataset:
    recognised_as = {}
    if config.name == AUTO or (config.name == "csv" and config.annotations is None):
        from pipeline.datasets.recognise import recognised  # here, since it imports a reader for each guess

        config = recognised(config)
        settings = {"name": config.name, "annotations": config.annotations, "columns": config.columns}
        recognised_as = {"recognised": ", ".join(f"{key} {value}" for key, value in settings.items() if value)}
    refuse(config)
    dataset = READERS[one_of("data set", config.name, READERS)](config)
    dataset = replace(dataset, frames=with_how_cut(dataset.frames))
    warnings = dataset.report.get("warnings", [])
    if config.identities is not None or config.name in OF_PEOPLE:
        return _of_people(dataset, config, recognised_as)
    if dataset.clips is not None:
        clips, split = with_clip_split(dataset.clips, config)
        labels = frame_labels(clips, dataset.frames.table, dataset.labels)
        dataset = replace(dataset, clips=clips)
        warnings += _of_clips(clips)
    else:
        table, split = with_split(dataset.labels.table, config)
        labels = Labels(table, dataset.labels.classes, dataset.labels.dataset)
    warnings += without_val(labels.table, drawn=not split.startswith("official")) if config.val_fraction else []
    report = recognised_as | {"split": split} | dataset.report | {"warnings": warnings}
    return replace(dataset, labels=labels, report=report)


def _of_people(dataset: Dataset, config: DatasetConfig, recognised_as: dict[str, str]) -> Dataset:
    """The data set with people for labels, and the sets of identification."""
    if dataset.clips is not None:
        dataset = replace(dataset, labels=frame_labels(dataset.clips, dataset.frames.table, dataset.labels))
    dataset = as_identities(dataset, config)
    table, split = with_split(dataset.labels.table, config)
    labels, warnings = replace(dataset.labels, table=table), dataset.report.get("warnings", [])
    report = recognised_as | {"split": split}
    if len(table):
        labels, report["identity_sets"], more = with_sets(labels, dataset.frames, config)
        warnings = warnings + more + without_val(labels.table, drawn=not split.startswith("official"))
    return replace(dataset, labels=labels, report=report | dataset.report | {"warnings": warnings})


def _of_clips(clips: Clips) -> list[str]:
    """The warning that a group stands in two splits or folds of the clips; none where none does."""
    both = in_two_sides(clips.table)
    if not both:
        return []
    return [
        f"{len(both):,} groups have clips in two splits or folds, such as {'; '.join(both[:3])}: a run is scored "
        "on groups that it was trained on; dataset.folds: 5 cuts folds by group"
    ]


def _other(config: DatasetConfig, entry: Any, where: str) -> DatasetConfig:
    """The config of one more data set: ``entry`` says what is its own, the rest is as for the first."""
    if not isinstance(entry, dict) or not {"name", "root"} <= set(entry):
        raise UserError(f"{where} must be like {{name: ravdess, root: FOLDER}}, and is {entry!r}")
    for key in entry:
        one_of(f"{where}: parameter", key, OWN)
    if entry["name"] in OF_PEOPLE:
        raise UserError(f"{where}: '{entry['name']}' is a data set of people, which cannot be joined with others")
    alone = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in (*OF_A_DATA_SET, "also")}
    return build(DatasetConfig, alone | entry, where)


def _together(parts: list[Dataset]) -> Dataset:
    """All parts in one, videos and groups as ``<data set>/<name>``, under the nearest folder around all roots.

    The label table's column ``dataset`` says which is whose. A second part of one name is ``<data set>-2``.
    """
    names = _distinct([part.labels.dataset for part in parts])
    roots = [os.path.normpath(part.frames.root) for part in parts]
    if len({os.path.isabs(root) for root in roots}) > 1:
        roots = [os.path.abspath(root) for root in roots]
    try:
        around = os.path.commonpath(roots) or "."
    except ValueError:  # two drives
        raise UserError(f"dataset.also: no folder holds all of {roots}") from None
    frames, labels, clips, classes = [], [], [], []
    for name, root, part in zip(names, roots, parts, strict=True):
        below = os.path.relpath(root, around).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        table, label = part.frames.table, part.labels.table
        frames.append(table.assign(video=name + "/" + table["video"], path=prefix + table["path"]))
        own = {"video": name + "/" + label["video"], "group": name + "/" + label["group"], "dataset": name}
        labels.append(label.assign(**own))
        if part.clips is not None:
            table = part.clips.table
            own = {c: name + "/" + table[c] for c in ("clip", "video", "group")} | {"dataset": name}
            clips.append(table.assign(**own))
        classes += [c for c in part.labels.classes if c not in classes]
    title = " + ".join(names)
    crop_source = " + ".join(dict.fromkeys(part.frames.crop_source for part in parts))
    return Dataset(
        Frames(pd.concat(frames, ignore_index=True), Path(around), title, crop_source),
        Labels(pd.concat(labels, ignore_index=True), classes, title),
        {"data_sets": {name: part.report | {"skipped": part.skipped} for name, part in zip(names, parts, strict=True)}},
        sum(part.skipped for part in parts),
        clips=Clips(pd.concat(clips, ignore_index=True), classes, title) if clips else None,
    )


def _distinct(names: list[str]) -> list[str]:
    earlier = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name}-{n + 1}" if n else name for name, n in zip(names, earlier, strict=True)]


READERS = Choices(
    {
        "abaw": "pipeline.datasets.abaw.read",
        "afew_va": "pipeline.datasets.afew_va.read",
        "bah": "pipeline.datasets.bah.read",
        "caer": "pipeline.datasets.caer.read",
        "celeba": "pipeline.datasets.celeba.read",
        "ckplus": "pipeline.datasets.ckplus.read",
        "clips": "pipeline.datasets.clip_table.read",
        "csv": "pipeline.datasets.csv_table.read",
        "dfew": "pipeline.datasets.dfew.read",
        "ferv39k": "pipeline.datasets.ferv39k.read",
        "folder": "pipeline.datasets.folder.read",
        "mafw": "pipeline.datasets.mafw.read",
        "pairs": "pipeline.datasets.pairs.read",
        "ravdess": "pipeline.datasets.ravdess.read",
        "shapes": "pipeline.datasets.shapes.read",
    },
)
