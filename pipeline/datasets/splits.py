"""A split into train and val for data sets that bring none."""

import hashlib

import pandas as pd

from pipeline.params import UserError


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
    return pd.Series(["val" if group in held_out else "train" for group in groups], index=groups.index)
