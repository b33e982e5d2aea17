"""The store and the label table as arrays to train on: sorted by (video, frame), each labelled frame in one part."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.params import UserError
from pipeline.store import FeatureStore
from pipeline.tables import KEY, Labels

PARTS = ("train", "select", "val")


@dataclass(frozen=True)
class FrameSet:
    """All frames of the labelled videos, N rows sorted by (video, frame).

    ``row`` (N,) is the place in the store, ``video`` (N,) a code into ``videos``, ``frame`` (N,) the number,
    ``group`` (N,) a code, ``label`` (N,) a code into ``classes`` or -1, ``part`` (N,) a code into ``PARTS`` or -1:
    a frame has a part where it has a label; the others are context for their neighbours.
    """

    row: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    group: np.ndarray
    label: np.ndarray
    part: np.ndarray
    videos: list[str]
    classes: list[str]
    labels_without_features: int

    def centres(self, part: str) -> np.ndarray:
        """Row numbers of the labelled frames of a part, in order."""
        return np.flatnonzero(self.part == PARTS.index(part))


def frame_set(
    store: FeatureStore, labels: Labels, *, test_split: float | None, select_split: float, split_seed: int
) -> FrameSet:
    """The labelled videos in the store, cut into parts by group.

    ``val`` is the official validation split, or, with ``test_split``, that share of all groups whatever the official
    split says. ``select`` is a share of the training groups, on which the best epoch is chosen, so that what is
    reported was not chosen for. Both cuts are stratified by class and the same for every training seed. Frames that the
    official split calls test, or puts nowhere, are left out; with ``test_split`` they are used like all others. Raises
    ``UserError`` where a part would be empty or a group stand on both sides.
    """
    table = labels.table
    if "expression" not in table:
        raise UserError(f"the labels of data set '{labels.dataset}' have no expressions to train on")
    table = table.loc[table["expression"].notna()].reindex(columns=[*KEY, "group", "expression", "expression_split"])
    keys = store.keys.astype({"video": "str"})
    frames = keys[keys["video"].isin(table["video"].unique())]
    frames = frames.merge(table, on=KEY, how="left")
    if frames["expression"].notna().sum() == 0:
        raise UserError(
            f"none of the {len(table):,} labelled frames is in the store {store.path}: "
            "are store and labels of one data set?"
        )
    video, videos = pd.factorize(frames["video"])
    label = pd.Categorical(frames["expression"], categories=labels.classes).codes.astype(np.int64)
    group_names = frames["group"].fillna(frames.groupby("video")["group"].transform("first"))
    group = pd.factorize(group_names)[0]
    part = _parts(frames["expression_split"], label, group, test_split, select_split, split_seed)
    return FrameSet(
        row=frames["row"].to_numpy(), video=video.astype(np.int64), frame=frames["frame"].to_numpy(), group=group,
        label=label, part=part, videos=list(videos), classes=labels.classes,
        labels_without_features=len(table) - int((label >= 0).sum()),
    )  # fmt: skip


def _parts(
    split: pd.Series, label: np.ndarray, group: np.ndarray, test_split: float | None, select_split: float, seed: int
) -> np.ndarray:
    labelled = label >= 0
    if test_split is None:
        train, val = labelled & (split == "train").to_numpy(), labelled & (split == "val").to_numpy()
        shared = np.intersect1d(group[train], group[val])
        if len(shared):
            raise UserError(f"{len(shared)} groups (persons or videos) stand on both sides of the official split")
    else:
        val = held_out(label, group, labelled, test_split, seed, "test_split")
        train = labelled & ~val
    if not train.any() or not val.any():
        raise UserError(
            f"{int(train.sum())} training and {int(val.sum())} validation frames have labels and features: "
            "both are needed (give --test-split where the data set has no official split)"
        )
    part = np.full(len(label), -1, dtype=np.int8)
    part[train], part[val] = PARTS.index("train"), PARTS.index("val")
    if select_split > 0:
        part[held_out(label, group, train, select_split, seed + 1, "select_split")] = PARTS.index("select")
    return part


def held_out(label: np.ndarray, group: np.ndarray, among: np.ndarray, share: float, seed: int, what: str) -> np.ndarray:
    """Mask (N,) of about ``share`` of the rows of ``among``, in whole groups, classes as equal as they come."""
    if not 0 < share < 1:
        raise UserError(f"{what} must be between 0 and 1, and is {share}")
    folds = round(1 / share) if share <= 0.5 else round(1 / (1 - share))
    rows = np.flatnonzero(among)
    if len(np.unique(group[rows])) < max(folds, 2):
        raise UserError(f"{what} {share}: {len(np.unique(group[rows]))} groups cannot be cut into {folds} folds")
    if np.bincount(label[rows]).max() < folds:
        raise UserError(f"{what} {share}: no class has the {folds} frames that {folds} folds need")
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    # The shuffle only orders groups of equal make-up, so where no two are equal all seeds have the same folds: the seed
    # also says which fold.
    rest, fold = list(splitter.split(np.zeros(len(rows)), label[rows], group[rows]))[seed % folds]
    mask = np.zeros(len(label), dtype=bool)
    mask[rows[fold if share <= 0.5 else rest]] = True
    return mask
