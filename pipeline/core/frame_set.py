"""The store and the table of labels as arrays to train on: each labelled frame, or each labelled clip, in one part."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.clips import Clips
from pipeline.core.join import codes_of, places_of, rows_of_clips
from pipeline.core.params import UserError, one_of
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores
from pipeline.core.tables import IDENTITY_SET, IDENTITY_SETS, SPLITS, Labels

PARTS = ("train", "select", "val", "test")
TRAIN, VAL, TEST = range(len(SPLITS))  # codes of the official split
# Kinds of labels, and the column of the label table that holds their official split. A clip has one for all of them.
TRACKS = {"expression": "expression_split", "va": "va_split", "aus": "au_split", "outputs": None}
PAIR = ["dataset", "pair", "side", "same"]  # of the label tables that name pairs, and whose pair it is among several


@dataclass(frozen=True)
class FrameSet:
    """All frames of the labelled videos, N rows sorted by (video, frame).

    ``row`` (N,) is the place in the store, ``video`` (N,) a code into ``videos``, ``frame`` (N,) the number,
    ``group`` (N,) a code into ``groups``, ``label`` (N,) a code into ``classes`` or -1, ``va`` (N, 2) valence and
    arousal or NaN, ``aus`` (N, A) 0, 1 or NaN, ``part`` (N,) a code into ``PARTS`` or -1: a frame has a part where it
    has a label of one of ``tracks``; the others are context for their neighbours. ``pairs`` (P, 2) are the pairs that
    the label table itself names, left and right, as row numbers, and ``same`` (P,) says which show the same: none for
    most data sets.

    Where people are the labels, ``label`` are codes into ``people``, of whom the first ``num_learned`` are those of the
    training part, and there are no ``classes``: nobody is asked for the name of a person it was trained on.
    ``identity_set`` (N,) are codes into ``IDENTITY_SETS`` or -1.
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
    groups: list[str]
    classes: list[str]
    au_names: list[str]
    labels_without_features: int
    outputs: np.ndarray
    output_names: list[str]
    clip: np.ndarray | None = None
    clips: pd.DataFrame | None = None
    clips_without_features: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    num_learned: int = 0
    identity_set: np.ndarray | None = None

    @property
    def label_names(self) -> list[str]:
        """What ``label`` are codes into: the classes, or people."""
        return list(self.people) if self.identity_set is not None else self.classes

    @property
    def sequence(self) -> np.ndarray:
        """What no window crosses, as codes (N,) that never decrease: the video, or the clip where it has the labels."""
        return self.video if self.clip is None else self.clip

    @property
    def sequence_videos(self) -> list[str]:
        """The name of the video of each ``sequence``."""
        return self.videos if self.clips is None else self.clips["video"].tolist()

    @property
    def known(self) -> dict[str, np.ndarray]:
        """Which frames (N,) have a label of each track: a class, valence and arousal both, at least one action unit."""
        va = np.isfinite(self.va).all(axis=1)
        known = {"expression": self.label >= 0, "va": va, "aus": (~np.isnan(self.aus)).any(axis=1)}
        return known | ({"outputs": (~np.isnan(self.outputs)).any(axis=1)} if self.output_names else {})

    def centres(self, part: str) -> np.ndarray:
        """Row numbers of the labelled frames of a part, in order; of clips, those of their first frames."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def stored_rows(self, part: str) -> np.ndarray:
        """Where the labelled frames of a part lie in the store, each once; of clips, all their frames."""
        centres = self.centres(part)
        if self.clip is None:
            return self.row[centres]
        return np.unique(self.row[np.isin(self.clip, self.clip[centres])])

    def pairs_of(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The ``pairs`` (p, 2) of which both frames are in a part, and their ``same`` (p,)."""
        there = (self.part[self.pairs] == PARTS.index(part)).all(axis=1)
        return self.pairs[there], self.same[there]

    def names_of(self, *parts: str) -> tuple[list[str], list[str]]:
        """The groups and the videos that have labelled frames in any of the parts."""
        at = np.isin(self.part, [PARTS.index(part) for part in parts])
        groups, videos = np.unique(self.group[at]), np.unique(self.video[at])
        return [self.groups[g] for g in groups], [self.videos[v] for v in videos]


def held_names(frames: FrameSet, labels: Labels | Clips, part: str) -> tuple[list[str], list[str]]:
    """The groups of a part that is held out, and all videos that the label table has of them.

    A group's other videos count too: whoever was trained on them has seen the person.
    """
    groups, videos = frames.names_of(part)
    theirs = labels.table.loc[labels.table["group"].isin(groups), "video"].unique()
    return groups, sorted({*videos, *theirs})


def frame_set(
    store: FeatureStore | Stores, labels: Labels | Clips, *, tracks: Sequence[str] = ("expression",),
    test_split: float | None, select_split: float, split_seed: int,
) -> FrameSet:  # fmt: skip
    """The videos, or the clips, in the store that are labelled for one of ``tracks``, cut into parts by group.

    ``val`` are the labelled frames of the groups that the official split of the first of ``tracks`` validates on, or,
    with ``test_split``, of that share of all groups whatever the official split says. ``train`` are the frames that
    one of the tracks calls training, and whose group is not in ``val``; of such a frame only the labels count whose
    own track calls it training. ``select`` is a share of the training groups, on which the best epoch is chosen, so
    that what is reported was not chosen for. Both cuts are stratified (by class, or, where the label table names pairs,
    each of which may be a class, by same and different; by the quadrant of valence and arousal; by the number of action
    units) and the same for every training seed. ``test`` are the frames that the first track's official split calls so:
    nothing is chosen on them. Frames that it puts nowhere are left out; with ``test_split`` there is no test part, and
    all are used alike. Of clips all this is said of clips in the place of frames; a clip that has no frame in the store
    is in no part, and named in ``clips_without_features``. Raises ``UserError`` where a track has no labels, a part
    would be empty, or a group stands on both sides of a track's official split.
    """
    of_clips = isinstance(labels, Clips)
    table, columns = labels.table, {track: _columns(labels, track) for track in tracks}
    has = {track: _has(table[names], track) for track, names in columns.items()}
    labelled = np.flatnonzero(np.logical_or.reduce(list(has.values())))
    rows, of, clip = (frames_of_clips if of_clips else _frames_of)(store.keys, table, labelled)
    first = np.ones(len(rows), dtype=bool) if clip is None else np.diff(clip, prepend=-1) != 0
    keys = store.keys.iloc[rows]
    there = {track: _taken(labels_of, of, False) & first for track, labels_of in has.items()}
    num_labels = int(np.logical_or.reduce(list(there.values())).sum())
    if num_labels == 0:
        raise UserError(
            f"none of the {len(labelled):,} labelled {'clips' if of_clips else 'frames'} is in the store {store.path}: "
            "are store and labels of one data set?"
        )
    video, known = pd.factorize(keys["video"].cat.codes.to_numpy())
    videos = list(keys["video"].cat.categories[known])
    group, groups = _groups(table["group"], of, video, len(videos))
    target = {track: _values(table, track, names, labels.classes, of) for track, names in columns.items()}
    splits = {track: _split(table, "split" if of_clips else TRACKS[track], of) for track in tracks}
    of_people = "expression" in tracks and IDENTITY_SET in table
    strata = np.zeros(len(rows), dtype=np.int64) if of_people else _strata(tracks, target)
    pairs = table.reindex(columns=PAIR).iloc[of[of >= 0]].assign(row=np.flatnonzero(of >= 0)).dropna(subset="pair")
    if len(pairs):
        strata[pairs["row"]] = strata.max() + 1 + pairs["same"].to_numpy(dtype=np.int64)
    part = _parts(there, splits, strata, group, test_split, select_split, split_seed)
    if test_split is None:
        training = np.isin(part, [PARTS.index("train"), PARTS.index("select")])
        for track in tracks:
            target[track][training & (splits[track] != TRAIN)] = -1 if track == "expression" else np.nan
    people, num_learned, identity_set = [], 0, None
    if of_people:
        people, num_learned, target["expression"] = _learned_first(labels.classes, target["expression"], part)
        identity_set = _taken(pd.Categorical(table[IDENTITY_SET], categories=IDENTITY_SETS).codes, of, -1)
    return FrameSet(
        row=keys["row"].to_numpy(), video=video.astype(np.int64), frame=keys["frame"].to_numpy(), group=group,
        label=target.get("expression", np.full(len(rows), -1, dtype=np.int64)),
        va=target.get("va", np.full((len(rows), 2), np.nan, dtype=np.float32)),
        aus=target.get("aus", np.zeros((len(rows), 0), dtype=np.float32)),
        part=part, **_pairs(pairs), videos=videos, groups=groups,
        classes=labels.classes if "expression" in tracks and not of_people else [], people=tuple(people),
        num_learned=num_learned, identity_set=identity_set,
        au_names=columns.get("aus", []), labels_without_features=len(labelled) - num_labels,
        outputs=target.get("outputs", np.zeros((len(rows), 0), dtype=np.float32)),
        output_names=columns.get("outputs", []), **({} if clip is None else _clips(table, labelled, of, clip)),
    )  # fmt: skip


def _frames_of(keys: pd.DataFrame, table: pd.DataFrame, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    """Places in ``keys`` (N,) of all frames of the labelled videos, and the label row (N,) of each, or -1."""
    code = codes_of(keys, table["video"])[labelled]
    is_labelled = np.zeros(len(keys["video"].cat.categories), dtype=bool)
    is_labelled[code[code >= 0]] = True
    rows = np.flatnonzero(is_labelled[keys["video"].cat.codes])
    at, of = places_of(keys, code, table["frame"].to_numpy()[labelled]), np.full(len(keys), -1)
    of[at[at >= 0]] = labelled[at >= 0]
    return rows, of[rows], None


def frames_of_clips(
    keys: pd.DataFrame, table: pd.DataFrame, labelled: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in ``keys`` (N,) of the frames of the labelled clips, the row (N,) of each one's clip in the table, and
    the number (N,) of that clip, counted from 0 in the order of videos and of the clips in them."""
    span = rows_of_clips(keys, table.iloc[labelled])
    span, clips = span[span[:, 0] < span[:, 1]], labelled[span[:, 0] < span[:, 1]]
    order = np.lexsort((clips, span[:, 1], span[:, 0]))  # a video's frames lie together in the keys
    span, clips = span[order], clips[order]
    length = span[:, 1] - span[:, 0]
    clip = np.repeat(np.arange(len(clips)), length)
    before = np.cumsum(length) - length
    return np.arange(len(clip)) - before[clip] + span[clip, 0], clips[clip], clip


def _clips(table: pd.DataFrame, labelled: np.ndarray, of: np.ndarray, clip: np.ndarray) -> dict[str, Any]:
    """What a frame set of clips says of them; ``of`` (N,) are rows of the clip table, ``clip`` (N,) their numbers."""
    there = of[np.flatnonzero(np.diff(clip, prepend=-1))]
    absent = table["clip"].iloc[np.setdiff1d(labelled, there)]
    return {
        "clip": clip, "clips": table.iloc[there][["clip", "video", "start", "end"]].reset_index(drop=True),
        "clips_without_features": tuple(absent),
    }  # fmt: skip


def _taken(values: np.ndarray, of: np.ndarray, nothing: Any) -> np.ndarray:
    """``values`` of label rows ``of`` (N,); ``nothing`` where that is -1."""
    taken = values[of]
    taken[of < 0] = nothing
    return taken


def _groups(named: pd.Series, of: np.ndarray, video: np.ndarray, num_videos: int) -> tuple[np.ndarray, list[str]]:
    """Codes (N,) of the groups in the order in which they appear; a frame without label is of its video's first one."""
    codes, names = pd.factorize(named)
    group = _taken(codes, of, -1)
    first = np.full(num_videos, -1)
    has = np.flatnonzero(group >= 0)[::-1]
    first[video[has]] = group[has]  # the first frame is written last
    group = np.where(group >= 0, group, first[video])
    order, known = pd.factorize(group[group >= 0])
    out = np.full(len(group), -1, dtype=np.int64)
    out[group >= 0] = order
    return out, list(names[known])


def _split(table: pd.DataFrame, column: str, of: np.ndarray) -> np.ndarray:
    """Codes (N,) into ``SPLITS`` of each frame's official split, -1 where it has none."""
    if column not in table:
        return np.full(len(of), -1)
    return _taken(pd.Categorical(table[column], categories=SPLITS).codes, of, -1)


def _columns(labels: Labels | Clips, track: str) -> list[str]:
    """The columns of the label table, or of the clip table, that a track's labels are in."""
    names = {
        "expression": [c for c in labels.table if c == "expression"],
        "va": [c for c in ("valence", "arousal") if c in labels.table],
        "aus": [c for c in labels.table if re.fullmatch(r"au\d+", c)],
        "outputs": labels.outputs if isinstance(labels, Clips) else [],
    }[one_of("track", track, TRACKS)]
    if not names or labels.table[names].isna().all(axis=None):
        whose = "clips" if isinstance(labels, Clips) else "labels"
        raise UserError(f"the {whose} of data set '{labels.dataset}' have no {_WORDS[track]} to train on")
    return names


def _has(columns: pd.DataFrame, track: str) -> np.ndarray:
    """Which label rows a loss can learn from: of valence and arousal those that have both."""
    there = columns.notna()
    return (there.all(axis=1) if track == "va" else there.any(axis=1)).to_numpy()


_WORDS = {
    "expression": "expressions",
    "va": "valence and arousal",
    "aus": "action units",
    "outputs": "continuous outputs",
}


def _values(table: pd.DataFrame, track: str, names: list[str], classes: list[str], of: np.ndarray) -> np.ndarray:
    if track == "expression":
        return _taken(pd.Categorical(table["expression"], categories=classes).codes, of, -1).astype(np.int64)
    return _taken(table[names].to_numpy(dtype=np.float32, na_value=np.nan), of, np.nan)


def _strata(tracks: Sequence[str], target: dict[str, np.ndarray]) -> np.ndarray:
    """A code (N,) for each frame: frames of one code are to stand in all parts alike."""
    first = target[tracks[0]]
    if tracks[0] == "expression":
        return first + 1
    if tracks[0] == "outputs":
        known = ~np.isnan(first)
        mean = np.where(known, first, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return (mean > np.median(mean)).astype(np.int64)
    if tracks[0] == "va":
        return (2 * (first[:, 0] > 0) + (first[:, 1] > 0)).astype(np.int64)
    return np.minimum(np.nansum(first, axis=1), 4).astype(np.int64)


def _learned_first(names: list[str], label: np.ndarray, part: np.ndarray) -> tuple[list[str], int, np.ndarray]:
    """People in the order of ``names``, those of the training part first; how many these are; ``label`` (N,) by it."""
    learned = np.isin(np.arange(len(names)), label[part == PARTS.index("train")])
    order = np.argsort(~learned, kind="stable")
    place = np.argsort(order)
    return [names[code] for code in order], int(learned.sum()), np.where(label >= 0, place[label], -1)


def _pairs(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """``pairs`` and ``same`` of a frame set; a pair of which one image is not in the store is none."""
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
        val = labelled & np.isin(group, group[there[first] & (splits[first] == VAL)]) & (splits[first] != TEST)
        train = np.zeros(len(labelled), dtype=bool)
        for track, has in there.items():
            of_track = has & (splits[track] == TRAIN)
            shared = np.intersect1d(group[of_track], group[has & (splits[track] == VAL)])
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
    if test_split is None:
        part[there[first] & (splits[first] == TEST)] = PARTS.index("test")
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
    # The shuffle only orders groups of equal make-up, so where no two are equal all seeds have the same folds: the seed
    # also says which fold.
    held = folds_of(label[rows], group[rows], folds, seed) == seed % folds
    mask = np.zeros(len(label), dtype=bool)
    mask[rows[held if share <= 0.5 else ~held]] = True
    return mask


def folds_of(label: np.ndarray, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold (n,) of each row, in whole groups, each class spread as evenly as they allow.

    These are the very folds of scikit-learn 1.9's ``StratifiedGroupKFold(folds, shuffle=True, random_state=seed)``,
    which goes through rows and through folds one by one: 100,000 groups take it over a minute, and this five seconds.
    The groups are dealt out one after another, those of the most uneven classes first, each to the fold that leaves the
    least mean deviation of a class's share over the folds; among equal ones, to that of the fewest rows.
    """
    of_class, num_of_class = np.unique(label, return_inverse=True, return_counts=True)[1:]
    of_group = np.unique(group, return_inverse=True)[1]
    num_classes, num_groups = len(num_of_class), int(of_group.max()) + 1
    counts = np.bincount(of_group * num_classes + of_class, minlength=num_groups * num_classes)
    counts = counts.reshape(num_groups, num_classes).astype(np.float64)
    shuffled = np.arange(num_groups)
    np.random.RandomState(seed).shuffle(shuffled)  # scikit-learn's own draws
    order = shuffled[np.argsort(-np.std(counts[shuffled], axis=1), kind="stable")]
    dealt, dealt_shares = np.zeros((folds, num_classes)), np.zeros((folds, num_classes))
    sizes, sizes_of_groups = [0.0] * folds, counts.sum(axis=1).tolist()
    shares = np.empty((folds, folds, num_classes))  # [i] are all folds' shares, were the group dealt to fold i
    own = shares.reshape(-1, num_classes)[:: folds + 1]  # (i, i), to be written to
    mean, deviation = np.empty((folds, 1, num_classes)), np.empty((folds, num_classes))
    fold_of = np.empty(num_groups, dtype=np.int64)
    for number in order.tolist():
        shares[:] = dealt_shares
        np.divide(dealt + counts[number], num_of_class, out=own)
        # np.std and np.mean in their own steps, so that the numbers are scikit-learn's to the last bit
        np.add.reduce(shares, axis=1, keepdims=True, out=mean)
        mean /= folds
        np.subtract(shares, mean, out=shares)
        np.multiply(shares, shares, out=shares)
        np.add.reduce(shares, axis=1, out=deviation)
        deviation /= folds
        np.sqrt(deviation, out=deviation)
        best, least, fewest = 0, math.inf, math.inf
        for fold, value in enumerate((np.add.reduce(deviation, axis=1) / num_classes).tolist()):
            if value < least or (sizes[fold] < fewest and abs(value - least) <= 1e-8 + 1e-5 * least):  # np.isclose
                best, least, fewest = fold, value, sizes[fold]
        dealt[best] += counts[number]
        np.divide(dealt[best], num_of_class, out=dealt_shares[best])
        sizes[best] += sizes_of_groups[number]
        fold_of[number] = best
    return fold_of[of_group]


def rows_of(store: FeatureStore, frames: FrameSet) -> np.ndarray:
    """Where the frames (N,) of a frame set lie in a store that may be another than theirs; -1 where it lacks one."""
    video = pd.Series(np.array(frames.videos, dtype=object)[frames.video])
    at = places_of(store.keys, codes_of(store.keys, video), frames.frame)
    return np.append(store.keys["row"].to_numpy(), -1)[at]
