"""The store and the label table as arrays to train on: sorted by (video, frame), each labelled frame in one part."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.params import UserError, one_of
from pipeline.store import FeatureStore
from pipeline.tables import KEY, Labels

PARTS = ("train", "select", "val")
# Kinds of labels, and the column of the label table that holds their official split.
TRACKS = {"expression": "expression_split", "va": "va_split", "aus": "au_split"}
PAIR = ["dataset", "pair", "side", "same"]  # of the label tables that name pairs, and whose pair it is among several


@dataclass(frozen=True)
class FrameSet:
    """All frames of the labelled videos, N rows sorted by (video, frame).

    ``row`` (N,) is the place in the store, ``video`` (N,) a code into ``videos``, ``frame`` (N,) the number,
    ``group`` (N,) a code, ``label`` (N,) a code into ``classes`` or -1, ``va`` (N, 2) valence and arousal or NaN,
    ``aus`` (N, A) 0, 1 or NaN, ``part`` (N,) a code into ``PARTS`` or -1: a frame has a part where it has a label of
    one of ``tracks``; the others are context for their neighbours. ``pairs`` (P, 2) are the pairs that the label table
    itself names, left and right, as row numbers, and ``same`` (P,) says which show the same: none for most data sets.
    """

    row: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    group: np.ndarray
    label: np.ndarray
    va: np.ndarray
    aus: np.ndarray
    part: np.ndarray
    pairs: np.ndarray
    same: np.ndarray
    videos: list[str]
    classes: list[str]
    au_names: list[str]
    labels_without_features: int

    def centres(self, part: str) -> np.ndarray:
        """Row numbers of the labelled frames of a part, in order."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def pairs_of(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The ``pairs`` (p, 2) of which both frames are in a part, and their ``same`` (p,)."""
        there = (self.part[self.pairs] == PARTS.index(part)).all(axis=1)
        return self.pairs[there], self.same[there]


def frame_set(
    store: FeatureStore, labels: Labels, *, tracks: Sequence[str] = ("expression",), test_split: float | None,
    select_split: float, split_seed: int,
) -> FrameSet:  # fmt: skip
    """The videos in the store that are labelled for one of ``tracks``, cut into parts by group.

    ``val`` are the labelled frames of the groups that the official split of the first of ``tracks`` validates on, or,
    with ``test_split``, of that share of all groups whatever the official split says. ``train`` are the frames that
    one of the tracks calls training, and whose group is not in ``val``; of such a frame only the labels count whose
    own track calls it training. ``select`` is a share of the training groups, on which the best epoch is chosen, so
    that what is reported was not chosen for. Both cuts are stratified (by class, or, where the label table names pairs,
    each of which may be a class, by same and different; by the quadrant of valence and arousal; by the number of action
    units) and the same for every training seed. Frames that the official split calls test, or puts nowhere, are left
    out; with ``test_split`` they are used like all others. Raises ``UserError`` where a track has no labels, a part
    would be empty, or a group stands on both sides of a track's official split.
    """
    table, columns = labels.table, {track: _columns(labels, track) for track in tracks}
    used = [c for names in columns.values() for c in names]
    has = {track: table[names].notna().any(axis=1) for track, names in columns.items()}
    table = table.loc[np.logical_or.reduce(list(has.values()))]
    table = table.reindex(columns=[*KEY, "group", *used, *(TRACKS[track] for track in tracks), *PAIR])
    keys = store.keys.astype({"video": "str"})
    frames = keys[keys["video"].isin(table["video"].unique())]
    frames = frames.merge(table, on=KEY, how="left")
    there = {track: frames[names].notna().any(axis=1).to_numpy() for track, names in columns.items()}
    num_labels = int(np.logical_or.reduce(list(there.values())).sum())
    if num_labels == 0:
        raise UserError(
            f"none of the {len(table):,} labelled frames is in the store {store.path}: "
            "are store and labels of one data set?"
        )
    video, videos = pd.factorize(frames["video"])
    group = pd.factorize(frames["group"].fillna(frames.groupby("video")["group"].transform("first")))[0]
    target = {track: _values(frames, track, names, labels.classes) for track, names in columns.items()}
    splits = {track: frames[TRACKS[track]].to_numpy() for track in tracks}
    strata = _strata(tracks, target)
    paired = frames["pair"].notna().to_numpy()
    strata[paired] = strata.max() + 1 + frames.loc[paired, "same"].to_numpy(dtype=np.int64)
    part = _parts(there, splits, strata, group, test_split, select_split, split_seed)
    if test_split is None:
        training = np.isin(part, [PARTS.index("train"), PARTS.index("select")])
        for track in tracks:
            target[track][training & (splits[track] != "train")] = -1 if track == "expression" else np.nan
    return FrameSet(
        row=frames["row"].to_numpy(), video=video.astype(np.int64), frame=frames["frame"].to_numpy(), group=group,
        label=target.get("expression", np.full(len(frames), -1, dtype=np.int64)),
        va=target.get("va", np.full((len(frames), 2), np.nan, dtype=np.float32)),
        aus=target.get("aus", np.zeros((len(frames), 0), dtype=np.float32)),
        part=part, **_pairs(frames), videos=list(videos), classes=labels.classes if "expression" in tracks else [],
        au_names=columns.get("aus", []), labels_without_features=len(table) - num_labels,
    )  # fmt: skip


def _columns(labels: Labels, track: str) -> list[str]:
    """The columns of the label table that a track's labels are in."""
    names = {
        "expression": [c for c in labels.table if c == "expression"],
        "va": [c for c in ("valence", "arousal") if c in labels.table],
        "aus": [c for c in labels.table if re.fullmatch(r"au\d+", c)],
    }[one_of("track", track, TRACKS)]
    if not names or labels.table[names].isna().all(axis=None):
        raise UserError(f"the labels of data set '{labels.dataset}' have no {_WORDS[track]} to train on")
    return names


_WORDS = {"expression": "expressions", "va": "valence and arousal", "aus": "action units"}


def _values(frames: pd.DataFrame, track: str, names: list[str], classes: list[str]) -> np.ndarray:
    if track == "expression":
        return pd.Categorical(frames["expression"], categories=classes).codes.astype(np.int64)
    return frames[names].to_numpy(dtype=np.float32, na_value=np.nan).copy()  # may be a view that cannot be written


def _strata(tracks: Sequence[str], target: dict[str, np.ndarray]) -> np.ndarray:
    """A code (N,) for each frame: frames of one code are to stand in all parts alike."""
    first = target[tracks[0]]
    if tracks[0] == "expression":
        return first + 1
    if tracks[0] == "va":
        return (2 * (first[:, 0] > 0) + (first[:, 1] > 0)).astype(np.int64)
    return np.minimum(np.nansum(first, axis=1), 4).astype(np.int64)


def _pairs(frames: pd.DataFrame) -> dict[str, np.ndarray]:
    """``pairs`` and ``same`` of a frame set; a pair of which one image is not in the store is none."""
    table = frames[PAIR].assign(row=np.arange(len(frames))).dropna(subset="pair")
    left, right = (table[table["side"] == side] for side in ("left", "right"))
    both = left.merge(right, on=["dataset", "pair"], suffixes=("", "_right"))
    return {"pairs": both[["row", "row_right"]].to_numpy(), "same": both["same"].to_numpy(dtype=np.int64) == 1}


def _parts(
    there: dict[str, np.ndarray], splits: dict[str, np.ndarray], strata: np.ndarray, group: np.ndarray,
    test_split: float | None, select_split: float, seed: int,
) -> np.ndarray:  # fmt: skip
    labelled = np.logical_or.reduce(list(there.values()))
    if test_split is None:
        first = next(iter(there))
        val = labelled & np.isin(group, group[there[first] & (splits[first] == "val")]) & (splits[first] != "test")
        train = np.zeros(len(labelled), dtype=bool)
        for track, has in there.items():
            of_track = has & (splits[track] == "train")
            shared = np.intersect1d(group[of_track], group[has & (splits[track] == "val")])
            if len(shared):
                raise UserError(
                    f"{len(shared)} groups (persons or videos) stand on both sides of the official split of '{track}'"
                )
            train |= of_track
        train &= ~np.isin(group, group[val])
    else:
        val = held_out(strata, group, labelled, test_split, seed, "test_split")
        train = labelled & ~val
    if not train.any() or not val.any():
        raise UserError(
            f"{int(train.sum())} training and {int(val.sum())} validation frames have labels and features: "
            "both are needed (give --test-split where the data set has no official split)"
        )
    part = np.full(len(labelled), -1, dtype=np.int8)
    part[train], part[val] = PARTS.index("train"), PARTS.index("val")
    if select_split > 0:
        part[held_out(strata, group, train, select_split, seed + 1, "select_split")] = PARTS.index("select")
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # it is in as many folds as it can
        rest, fold = list(splitter.split(np.zeros(len(rows)), label[rows], group[rows]))[seed % folds]
    mask = np.zeros(len(label), dtype=bool)
    mask[rows[fold if share <= 0.5 else rest]] = True
    return mask
