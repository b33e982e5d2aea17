"""Images that are the same file byte for byte, in two splits or in two groups, as popular copies of FER2013 have them.

Only files of one size can be the same, so only those are read: their last 4 KB, since the headers of one camera are
alike, and all of it where these agree. Of a large data set some sizes are chosen, and all their files compared: a
share of the copies is found then, and the report says how large it is.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.tables import KEY, Frames, Labels
from pipeline.datasets.dataset import counted
from pipeline.datasets.splits import tracks_of

TAIL = 4096  # bytes
BLOCK = 1 << 18  # bytes at a time
A_TIME = 256  # files a thread takes at a time
THREADS = 8  # they wait for the disk, not for the processor


def copies(frames: Frames, labels: Labels, most: int) -> dict[str, Any]:
    """For the report: files compared, at most ``most``; pictures in two splits of a track, or else in two groups.

    Only labelled frames are compared. Those of one group may be the same, as neighbours in a still scene are. A file
    that cannot be read is passed over: the extraction will report it.
    """
    table, splits = _labelled(frames, labels)
    chosen = _of_equal_size(table)
    read = _sample(chosen, most).drop_duplicates()
    digest = _digests(frames.root, read["path"].to_numpy(), read["size"].to_numpy())
    read = read.assign(digest=digest)[digest != ""].sort_values("path")
    in_splits, in_groups = [], []
    for _, same in read[read.duplicated("digest", keep=False)].groupby("digest", sort=False):
        if pair := _first_two(same, splits):
            in_splits.append(pair)
        elif same["group"].nunique() > 1:
            in_groups.append(_first_two(same, ["group"]))
    return {
        "files_of_equal_size": {"compared": len(read), "in_all": len(chosen)},
        "identical_images_in_two_splits": counted(sorted(in_splits)),
        "identical_images_in_two_groups": counted(sorted(in_groups)),
    }


def warnings(report: dict[str, Any]) -> list[str]:
    """What to make of pictures in two splits; none where there are none."""
    of, files = report["identical_images_in_two_splits"], report["files_of_equal_size"]
    if not of["count"]:
        return []
    part = f" ({_share(files)})" if files["compared"] < files["in_all"] else ""
    return [
        f"{of['count']:,} pictures stand in two splits byte for byte{part}, such as {of['first'][0]}: a run is "
        "scored on what it was trained on. Delete all but one file of each, or give them one group (a table's column "
        "'group')"
    ]


def compared(report: dict[str, Any]) -> list[str]:
    """The line that says how many files were compared."""
    files = report.get("files_of_equal_size")
    return [f"looked for identical images: {_share(files)}"] if files and files["in_all"] else []


def _share(files: dict[str, int]) -> str:
    """``compared`` are whole classes of equal size, so that copies are found in proportion."""
    if files["compared"] == files["in_all"]:
        return f"all {files['in_all']:,} files whose size another group has too were compared"
    return (
        f"{files['compared']:,} of {files['in_all']:,} files whose size another group has too were compared, so expect "
        f"{files['in_all'] / max(files['compared'], 1):.0f} times as many copies"
    )


def _labelled(frames: Frames, labels: Labels) -> tuple[pd.DataFrame, list[str]]:
    """path, size, group and a column for each track's split, a row a labelled frame; and the names of those columns."""
    splits = [f"{track}_split" for track in tracks_of(labels.table) if f"{track}_split" in labels.table]
    own = labels.table[[*KEY, "group", *splits]]
    if "fold" in labels.table:  # what is in another fold is trained on
        own = own.assign(
            **{s: own[s].mask(own[s] == "fold", "fold " + labels.table["fold"].astype("str")) for s in splits}
        )
    table = frames.table.merge(own, on=KEY)
    return table.loc[table["size"] > 0, ["path", "size", "group", *splits]], splits


def _of_equal_size(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose size files of another group have too."""
    group = pd.factorize(table["group"])[0]
    pairs = pd.DataFrame({"size": table["size"].to_numpy(), "group": group}).drop_duplicates()
    shared = pairs["size"].value_counts()
    return table[table["size"].isin(shared.index[shared > 1])]


def _sample(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """All rows of as many sizes as make at most ``most``; where the first size has more, some of its rows.

    The choice depends on the sizes and paths alone.
    """
    if len(table) <= most:
        return table
    counts = table["size"].value_counts()
    order = sorted(counts.index, key=lambda size: hashlib.sha256(str(size).encode()).digest())
    fitting = np.cumsum(counts[order].to_numpy()) <= most
    if fitting[0]:
        return table[table["size"].isin(np.array(order)[fitting])]
    rows = table[table["size"] == order[0]]
    return rows.iloc[pd.util.hash_array(rows["path"].to_numpy(object)).argsort(kind="stable")[:most]]


def _digests(root: Path, paths: Sequence[str], sizes: Sequence[int]) -> np.ndarray:
    """(N,) str: equal for files that are the same, and for no others; '' for those that cannot be read."""
    files = pd.DataFrame({"path": paths, "size": sizes}).drop_duplicates("path")
    files["digest"] = _hashed(root, files["path"], [max(size - TAIL, 0) for size in files["size"]])
    alike = files.duplicated(["size", "digest"], keep=False) & (files["digest"] != "") & (files["size"] > TAIL)
    files.loc[alike, "digest"] = _hashed(root, files.loc[alike, "path"], [0] * int(alike.sum()))
    of = {path: digest and f"{size} {digest}" for path, size, digest in files.itertuples(index=False)}
    return np.array([of[path] for path in paths], dtype=object)


def _hashed(root: Path, paths: Sequence[str], starts: Sequence[int]) -> list[str]:
    todo = list(zip((os.path.join(root, path) for path in paths), starts, strict=True))
    parts = [todo[i : i + A_TIME] for i in range(0, len(todo), A_TIME)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [digest for part in pool.map(lambda files: [_hash(*file) for file in files], parts) for digest in part]


def _hash(place: str, start: int) -> str:
    """The digest of a file from byte ``start`` on; '' where it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        file = os.open(place, os.O_RDONLY)
        try:
            while block := os.pread(file, BLOCK, start):
                digest.update(block)
                start += len(block)
        finally:
            os.close(file)
    except OSError:
        return ""
    return digest.hexdigest()


def _first_two(same: pd.DataFrame, columns: list[str]) -> str | None:
    """``'a' (train) and 'b' (val)``: the first two files that differ in one of the ``columns``; None where none do."""
    for column in columns:
        different = same.dropna(subset=column).drop_duplicates(column)
        if len(different) > 1:
            rows = zip(different["path"].iloc[:2], different[column].iloc[:2], strict=True)
            return " and ".join(f"'{path}' ({value})" for path, value in rows)
    return None
