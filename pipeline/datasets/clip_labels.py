"""What a clip table means for frames, how it is split, and what is odd about it."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.clips import Clips, clips_of_fold, output_columns, spans
from pipeline.core.params import UserError
from pipeline.core.tables import KEY, SPLITS, Labels, unit_columns
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.dataset import counted
from pipeline.datasets.splits import by_fold, by_group, strata, tracks_of


def with_clip_split(clips: Clips, config: DatasetConfig) -> tuple[Clips, str]:
    """The clips with a split, and where it is from: as ``with_split`` gives it to the rows of a label table.

    Folds that the data set brings are kept, unless ``config.folds`` cuts others.
    """
    table = clips.table
    if config.folds is None and config.fold is not None and not clips.folds:
        raise UserError(f"dataset: fold is {config.fold}, and folds is not given: give both")
    if config.folds is None and clips.folds:
        how = f"official, folds {', '.join(map(str, clips.folds))}"
        return (
            (clips, how) if config.fold is None else (clips_of_fold(clips, config.fold), f"fold {config.fold}; {how}")
        )
    if config.folds is None and ("split" in table or table.empty):
        return clips, "official"
    if config.folds is None:
        drawn = by_group(table["group"], strata(table), config.val_fraction, config.seed)
        how = f"drawn by group, val_fraction {config.val_fraction}, seed {config.seed}"
        return Clips(table.assign(split=drawn), clips.classes, clips.dataset), how
    given = table.get("split", pd.Series("train", index=table.index, dtype="str"))
    taken = given.isin(["train", "val", "fold"])
    fold = by_fold(table.loc[taken, "group"], strata(table)[taken], config.folds, config.seed)
    table = table.assign(split=given.mask(taken, "fold"), fold=fold.astype("Int16").reindex(table.index))
    cut = Clips(table, clips.classes, clips.dataset)
    if config.fold is None:
        return cut, f"{config.folds} folds by group, seed {config.seed}"
    return clips_of_fold(cut, config.fold), f"fold {config.fold} of {config.folds} by group, seed {config.seed}"


def frame_labels(clips: Clips, frames: pd.DataFrame, own: Labels) -> Labels:
    """The label table of a data set of clips: on each frame the label, group, split and fold of its clip.

    A frame in several clips has them where all of these agree, and else no row. Labels of single frames that the data
    set has itself, ``own``, stand in the place of the clip's; then only the frames that have one are in the table.
    Where clips have none but further outputs, all their frames are in the table with 'clip_split', so that it is known
    which are training data.
    """
    frames = _in_order(frames)
    of_frame = _agreed(clips, frames)
    there = of_frame >= 0
    of_clip = clips.table.drop(columns=[*["clip", "start", "end"], *output_columns(clips.table)])
    rows = of_clip.iloc[of_frame[there]].reset_index(drop=True)
    table = pd.concat([frames.loc[there, KEY].reset_index(drop=True), rows.drop(columns="video")], axis=1)
    if len(own.table):
        labels = [c for c in own.table if c in ("expression", "valence", "arousal") or c in unit_columns(own.table)]
        table = table.drop(
            columns=[c for c in ("expression", "valence", "arousal", *unit_columns(table)) if c in table]
        )
        table = table.merge(own.table[[*KEY, *labels]], on=KEY)
    split = table.pop("split") if "split" in table else None
    tracks = tracks_of(table)
    if split is not None:
        table = table.assign(**{f"{track}_split": split for track in tracks})
    if not tracks:
        return Labels(table if split is None else table.assign(clip_split=split), clips.classes, clips.dataset)
    labelled = [c for c in table if c in ("expression", "valence") or c in unit_columns(table)]
    has = table[labelled].notna().any(axis=1)
    return Labels(table[has].reset_index(drop=True), clips.classes, clips.dataset)


def describe_clips(clips: Clips, frames: pd.DataFrame) -> dict[str, Any]:
    """What a clip table holds, as JSON values, and by name all that is odd about it."""
    table, frames = clips.table, _in_order(frames)
    rows = _rows(clips, frames)
    length = rows[:, 1] - rows[:, 0]
    side = sides(table)
    inside = np.zeros(len(frames) + 1, dtype=np.int64)
    np.add.at(inside, rows[:, 0], 1)
    np.add.at(inside, rows[:, 1], -1)
    inside = np.cumsum(inside)[:-1]
    differ = np.flatnonzero((_agreed(clips, frames) < 0) & (inside > 0))
    labelled = [c for c in ("expression", "valence", *unit_columns(table), *clips.outputs) if c in table]
    some = table.loc[~table[labelled].notna().any(axis=1), "clip"] if labelled else table["clip"]
    known = length[length > 0]
    return {
        "clips": len(table),
        "clips_per_split": {name: int((side == name).sum()) for name in ordered_sides(side)},
        "clips_per_class": _per_class(clips, side),
        "clip_outputs": clips.outputs,
        "frames_per_clip": dict(
            zip(("least", "median", "most"), map(int, np.quantile(known, [0, 0.5, 1])), strict=True)
        )
        if len(known)
        else {},
        "clips_without_label": counted(sorted(some)),
        "clips_without_frames": counted(sorted(table.loc[length == 0, "clip"])),
        "clips_of_one_frame": counted(sorted(table.loc[length == 1, "clip"])),
        "clips_that_overlap": counted(_overlaps(table)),
        "frames_of_clips_that_differ": counted(
            f"{video}/{frame}" for video, frame in frames.loc[differ, KEY].itertuples(index=False)
        ),
        "frames_outside_clips": int((inside == 0).sum()),
        "videos_without_clip": counted(sorted(set(frames["video"].unique()) - set(table["video"]))),
        "groups_of_clips_in_two_splits": counted(in_two_sides(table)),
    }


def sides(table: pd.DataFrame) -> pd.Series:
    """'train', 'val', 'test', 'fold 1', or 'none', for each clip."""
    if "split" not in table:
        return pd.Series("none", index=table.index)
    side = table["split"].astype("object").where(table["split"].notna(), "none")
    return side.mask(side == "fold", "fold " + table["fold"].astype("str")) if "fold" in table else side


def ordered_sides(side: pd.Series) -> list[str]:
    """The values of ``sides``: train, val and test, folds by their numbers, and none."""
    there = set(side)
    folds = sorted((s for s in there if s.startswith("fold ")), key=lambda s: int(s.removeprefix("fold ")))
    return [name for name in (*SPLITS, *folds, "none") if name in there]


def in_two_sides(table: pd.DataFrame) -> list[str]:
    """``group: its splits and folds``, for each group whose clips stand in more than one."""
    pairs = pd.DataFrame({"group": table["group"], "side": sides(table)}).drop_duplicates()
    pairs = pairs[pairs["side"] != "none"]
    pairs = pairs[pairs.duplicated("group", keep=False)].sort_values(["group", "side"])
    return [f"{group}: {' and '.join(of)}" for group, of in pairs.groupby("group")["side"]]


def _in_order(frames: pd.DataFrame) -> pd.DataFrame:
    """Sorted by video and frame; by numbers, since a million names take seconds."""
    code = pd.factorize(frames["video"], sort=True)[0]
    return frames.iloc[np.lexsort((frames["frame"], code))].reset_index(drop=True)


def _rows(clips: Clips, frames: pd.DataFrame) -> np.ndarray:
    """The rows (C, 2) of the sorted frame table that are each clip's."""
    code, videos = pd.factorize(frames["video"])
    return spans(code, frames["frame"].to_numpy(), pd.Index(videos).get_indexer(clips.table["video"]), clips.table)


def _agreed(clips: Clips, frames: pd.DataFrame) -> np.ndarray:
    """A clip (n,) of each row of the sorted frame table, where all its clips agree on label, group, split and fold.

    -1 where it is in no clip, or they do not agree.
    """
    rows = _rows(clips, frames)
    said = [c for c in clips.table if c not in ("clip", "video", "start", "end", *clips.outputs)]
    what = clips.table.groupby(said, dropna=False, sort=False).ngroup().to_numpy()
    length = rows[:, 1] - rows[:, 0]
    clip = np.repeat(np.arange(len(rows)), length)
    at = np.arange(length.sum()) + np.repeat(rows[:, 0] - np.cumsum(length) + length, length)
    lowest, highest = np.full(len(frames), len(rows)), np.full(len(frames), -1)
    np.minimum.at(lowest, at, what[clip])
    np.maximum.at(highest, at, what[clip])
    found = np.full(len(frames), -1)
    found[at] = clip
    return np.where(lowest == highest, found, -1)


def _overlaps(table: pd.DataFrame) -> list[str]:
    """``a and b`` for each clip b that starts before an earlier one of its video ends, by their bounds."""
    found = []
    repeated = table[table.duplicated("video", keep=False)]
    bounds = repeated.assign(
        first=repeated["start"].astype("float64").fillna(-np.inf), last=repeated["end"].astype("float64").fillna(np.inf)
    ).sort_values(["video", "first", "last", "clip"])
    for _, own in bounds.groupby("video", sort=True):
        longest, end = None, -np.inf
        for clip, first, last in own[["clip", "first", "last"]].itertuples(index=False):
            if first < end and first < last:
                found.append(f"{longest} and {clip}")
            if last > end:
                longest, end = clip, last
    return found


def _per_class(clips: Clips, side: pd.Series) -> dict[str, dict[str, int]]:
    """split -> class -> clips, zeros included, in the order of the classes."""
    if "expression" not in clips.table:
        return {}
    counts = pd.DataFrame({"side": side, "class": clips.table["expression"]}).dropna().value_counts()
    return {
        name: {c: int(counts.get((name, c), 0)) for c in clips.classes}
        for name in ordered_sides(counts.index.get_level_values(0))
    }
