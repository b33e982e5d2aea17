"""A split into train and val for data sets that bring none, and folds for any."""

import hashlib

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import IDENTITY_SET, Labels, of_fold, unit_columns
from pipeline.datasets.config import DatasetConfig

MOST_ROWS = 100_000


def with_split(table: pd.DataFrame, config: DatasetConfig) -> tuple[pd.DataFrame, str]:
    """The label table with a split for each of its tracks, and where the split is from.

    Without ``folds``, a track keeps the split that the data set brings; for a track without one it is drawn. With
    ``folds``, the split of all 'train' and 'val' rows becomes 'fold', and the column ``fold`` says which fold. 'test'
    rows and rows in no split stay as they are. With a single ``fold``, that one is 'val' and the others are 'train'.
    One draw serves all tracks, so that a group is on the same side in each.
    """
    if config.folds is None and config.fold is not None:
        raise UserError(f"dataset: fold is {config.fold}, and folds is not given: give both")
    tracks = tracks_of(table)
    lacking = [track for track in tracks if f"{track}_split" not in table]
    if table.empty or not tracks or not (lacking or config.folds):
        return table, "official"
    if config.folds is None:
        drawn = by_group(table["group"], strata(table), config.val_fraction, config.seed)
        how = f"drawn by group, val_fraction {config.val_fraction}, seed {config.seed}"
        return table.assign(**{f"{track}_split": drawn for track in lacking}), how
    if config.fold is not None and not 0 <= config.fold < config.folds:
        last = config.folds - 1
        raise UserError(f"dataset: fold must be from 0 to {last}, for {config.folds} folds, and is {config.fold}")
    columns, taken = {}, pd.Series(False, index=table.index)
    for track in tracks:
        given = table.get(f"{track}_split", pd.Series("train", index=table.index, dtype="str"))
        columns[f"{track}_split"] = given.mask(given.isin(["train", "val"]), "fold")
        taken |= columns[f"{track}_split"] == "fold"
    fold = by_fold(table.loc[taken, "group"], strata(table)[taken], config.folds, config.seed)
    table = table.assign(**columns, fold=fold.astype("Int16").reindex(table.index))
    if config.fold is None:
        return table, f"{config.folds} folds by group, seed {config.seed}"
    of_one = of_fold(Labels(table, [], config.name), config.fold).table
    return of_one, f"fold {config.fold} of {config.folds} by group, seed {config.seed}"


def without_val(table: pd.DataFrame, drawn: bool) -> list[str]:
    """A warning for each track without a validation part; ``drawn``: its split is no official one."""
    warnings = []
    for track in tracks_of(table):
        split = table.get(f"{track}_split", pd.Series(dtype="str")).dropna()
        if split.empty or split.isin(["val", "fold"]).any():
            continue
        if drawn:
            groups = table.loc[split.index, "group"].unique()
            what = f"one group, '{groups[0]}'" if len(groups) == 1 else f"{len(groups)} groups, one a class"
            why = f"its {len(split):,} label rows are of {what}, and one group of each class stays in train"
        else:
            own = " and ".join(sorted(set(split)))
            why = f"its own split is {own}: set dataset.folds: 5, which leaves test as it is"
        warnings.append(f"{track} has NO VALIDATION PART: {why}")
    return warnings


def tracks_of(table: pd.DataFrame) -> list[str]:
    """What a label table has labels for."""
    labelled = {"expression": "expression" in table, "va": "valence" in table, "au": bool(unit_columns(table))}
    return [track for track, is_there in labelled.items() if is_there]


def strata(table: pd.DataFrame) -> pd.Series:
    """What a split keeps equal on both sides: same or different of a pair, else the class, else the signs of affect.

    Nothing, where the classes are people: each is on one side.
    """
    if IDENTITY_SET in table:
        return pd.Series("", index=table.index)
    if "pair" in table:
        return table["same"].astype("str")
    if "expression" in table and table["expression"].notna().any():
        return table["expression"].fillna("")
    if "valence" in table:
        return (table["valence"] >= 0).astype("str") + (table["arousal"] >= 0).astype("str")
    return pd.Series("", index=table.index)


def by_group(groups: pd.Series, strata: pd.Series, val_fraction: float, seed: int) -> pd.Series:
    """'train' or 'val' for each row, the same for all rows of a group; ``val_fraction`` of the groups of each stratum.

    A group's stratum is its most frequent one. Of a stratum with two groups or more at least one goes to each side,
    unless ``val_fraction`` is 0; a stratum of one group stays in train. Groups are drawn by a hash of (seed, group):
    neither the order of the rows nor a further group moves more groups than it must.
    """
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and less than 1, and is {val_fraction}")
    counts = pd.DataFrame({"group": groups.to_numpy(), "stratum": strata.to_numpy()}).value_counts()
    table = counts.rename("rows").reset_index().sort_values(["rows", "stratum"], ascending=[False, True])
    table = table.drop_duplicates("group")
    table["rank"] = [hashlib.sha256(f"{seed}/{group}".encode()).hexdigest() for group in table["group"]]
    held_out: set[str] = set()
    for _, members in table.groupby("stratum"):
        num_val = round(val_fraction * len(members))
        if val_fraction > 0:
            num_val = min(max(num_val, 1), len(members) - 1)
        held_out |= set(members.sort_values("rank")["group"].head(num_val))
    return pd.Series(np.where(groups.isin(held_out), "val", "train"), index=groups.index, dtype="str")


def by_fold(groups: pd.Series, strata: pd.Series, folds: int, seed: int) -> pd.Series:
    """The number, from 0, of the fold that each row's group is in.

    The folds are scikit-learn's StratifiedGroupKFold: each group in just one, each stratum's rows as equal as whole
    groups allow. A stratum with fewer rows than folds counts with the largest. Above 100,000 rows they are counted in
    proportion, since scikit-learn goes through them one by one (30 s for ABAW's).
    """
    from sklearn.model_selection import StratifiedGroupKFold  # half of the time that a look for changes would take

    num_groups = groups.nunique()
    if not 2 <= folds <= num_groups:
        raise UserError(f"dataset: folds must be from 2 to the number of groups, {num_groups}, and is {folds}")
    counts = pd.DataFrame({"group": groups.to_numpy(), "stratum": strata.to_numpy()}).value_counts(sort=False)
    counts = np.ceil(counts * min(1, MOST_ROWS / len(groups))).astype("int64").rename("rows").reset_index()
    table = counts.loc[counts.index.repeat(counts["rows"]), ["group", "stratum"]]
    rows = table["stratum"].value_counts().sort_index()
    stratum = table["stratum"].where(table["stratum"].map(rows) >= folds, rows.idxmax())
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    cuts = splitter.split(np.zeros(len(table)), stratum.to_numpy(object), table["group"].to_numpy(object))
    number = {group: k for k, (_, held_out) in enumerate(cuts) for group in table["group"].iloc[held_out].unique()}
    return groups.map(number).astype("int64")


def refuse_overlap(table: pd.DataFrame, dataset: str) -> None:
    """Raises ``UserError`` where a group stands in two splits of a track."""
    for track in tracks_of(table):
        overlapping = in_two_splits(table, track)
        if overlapping:
            raise UserError(
                f"data set '{dataset}': {len(overlapping)} groups stand in two splits of {track}, such as "
                f"{'; '.join(overlapping[:3])}: a group, a person or a video, belongs to one"
            )


def in_two_splits(table: pd.DataFrame, track: str) -> list[str]:
    """``group: its splits``, for each group that stands in more than one."""
    if f"{track}_split" not in table:
        return []
    pairs = table[["group", f"{track}_split"]].dropna().drop_duplicates().sort_values(["group", f"{track}_split"])
    splits = pairs.groupby("group")[f"{track}_split"].agg(list)
    return [f"{group}: {' and '.join(of)}" for group, of in splits.items() if len(of) > 1]
