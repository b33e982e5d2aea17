"""Reads pairs of images, for retrieval of the one by the other and for heads that compare two.

    left/00001.jpg  and  right/00001.jpg                             a pair where the names are the same
    left,right,same,left_label,right_label,split                     or a table, all but the first two as wanted

An image of a pair is a video of its own, ``left/00001`` or ``right/00001``, frame 0, so that no window shows both. The
label table has three more columns: ``pair`` (name), ``side`` (left, right) and ``same`` (1, or 0 for a pair of
different ones). The class is the image's label where the table gives labels; else images that a pair calls the same,
directly or by others between, are one class, so that each pair of a folder is a class of its own.
The group is all pairs that share an image, so that no image is on both sides of a split.
"""

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.missing import is_missing
from pipeline.datasets.scan import scan
from pipeline.datasets.sheet import below_root, none_there, read_sheet, sizes_of, split_of
from pipeline.datasets.splits import refuse_overlap

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SIDES = ["left", "right"]
KNOWN = ("left", "right", "pair", "same", "left_label", "right_label", "split")
WANTED = "pairs of images: ROOT/left/00001.jpg and ROOT/right/00001.jpg, or a table as dataset.annotations"


def read(config: DatasetConfig) -> Dataset:
    """All pairs of the folder or of the table, an image being a video of one frame.

    Raises ``UserError`` where no pair is found, a name stands twice, or a group stands in two splits.
    """
    check_config(config, WANTED, uses=["annotations", "columns", "missing"])
    if config.annotations is None:
        pairs, sizes, facts, skipped = _from_folders(config)
    else:
        pairs, sizes, facts, skipped = _from_table(config)
    twice = pairs["pair"][pairs["pair"].duplicated()].unique()
    if len(twice):
        raise UserError(f"data set '{config.name}': {len(twice)} pairs stand twice, such as {list(twice[:3])}")
    images = _images(pairs)
    labels = images[["video", "frame", "group", "expression", "pair", "side", "same"]]
    if "split" in pairs:
        labels = labels.assign(expression_split=images["split"])
        refuse_overlap(labels, display_name(config))
    frames = images[["video", "frame", "path"]].assign(size=images["path"].map(sizes))
    used_in = images.groupby("path")["pair"].nunique()
    return Dataset(
        Frames(frames, config.root, display_name(config), config.crop_source or "as given"),
        Labels(labels, sorted(images["expression"].unique()), display_name(config)),
        {
            "pairs": {"same": int(pairs["same"].sum()), "different": int((pairs["same"] == 0).sum())},
            "images_in_several_pairs": counted(used_in.index[used_in > 1]),
        }
        | facts,
        skipped,
    )


def _from_folders(config: DatasetConfig) -> tuple[pd.DataFrame, dict[str, int], dict, int]:
    """Pairs (pair, left, right, same), the sizes of their images, what else to report, and how much was skipped."""
    if config.columns:
        raise UserError(f"data set '{config.name}': dataset.columns is for a table, and dataset.annotations names none")
    scanned = scan(config.root, EXTENSIONS)
    sides: dict[str, dict[str, str]] = {side: {} for side in SIDES}
    sizes, outside = {}, []
    for folder in scanned.folders:
        for name, size in zip(folder.names, folder.sizes, strict=True):
            path = f"{folder.path}/{name}".lstrip("/")
            if folder.path.lower() not in SIDES:
                outside.append(path)
                continue
            side, stem = sides[folder.path.lower()], name.rpartition(".")[0]
            if stem in side:
                raise UserError(f"data set '{config.name}': '{side[stem]}' and '{path}' have one name; keep one")
            side[stem], sizes[path] = path, size
    both = sorted(set(sides["left"]) & set(sides["right"]))
    if not both:
        problem = f"no image in 'left' has its like in 'right' under {config.root}"
        raise nothing_found(config, problem, WANTED, scanned.unreadable)
    alone = sorted(path for side in SIDES for stem, path in sides[side].items() if stem not in set(both))
    table = {"pair": both} | {side: [sides[side][stem] for stem in both] for side in SIDES} | {"same": 1}
    facts = {
        "images_without_partner": counted(alone),
        "images_outside_left_and_right": counted(sorted(outside)),
        "unreadable": counted(scanned.unreadable),
        "stray_files": counted(scanned.others, most=10),
    }
    return pd.DataFrame(table), sizes, facts, len(alone) + len(outside) + len(scanned.unreadable)


def _from_table(config: DatasetConfig) -> tuple[pd.DataFrame, dict[str, int], dict, int]:
    """As ``_from_folders``; a pair has its number in the table as name, from 00001, where the table gives none."""
    sheet, malformed = read_sheet(config, KNOWN, SIDES)
    labelled = "left_label" in sheet
    if labelled != ("right_label" in sheet):
        raise UserError(f"data set '{config.name}': the columns 'left_label' and 'right_label' need each other")
    given_paths, num_rows = pd.concat([sheet[side] for side in SIDES]), len(sheet) + len(malformed)
    paths = below_root(given_paths, config.root)
    sheet = sheet.assign(**{side: sheet[side].map(paths.of) for side in SIDES})
    for name in ("left_label", "right_label", "split"):
        if name in sheet:
            sheet[name] = sheet[name].mask(is_missing(sheet[name], config), "")
    if "pair" not in sheet:
        sheet["pair"] = [f"{n:05d}" for n in range(1, len(sheet) + 1)]
    given = sheet["same"] if "same" in sheet else pd.Series("", index=sheet.index)
    alike = (sheet["left_label"] == sheet["right_label"]) if labelled else pd.Series(True, index=sheet.index)
    same = given.map({"1": True, "0": False, "true": True, "false": False, "": None}.get).astype(object)
    same = same.where(given != "", alike)
    faults = {
        "a path is empty, or leads out of root": sheet[SIDES].isna().any(axis=1),
        "the pair has no name": sheet["pair"] == "",
        "same is not 1 or 0": same.isna(),
        "a label is empty": (sheet[["left_label", "right_label"]] == "").any(axis=1) if labelled else ~alike,
        "same contradicts the labels": (same != alike) & same.notna() if labelled else ~alike,
    }
    if "split" in sheet:
        split = sheet["split"].map(split_of)
        faults["split is not train, val or test"] = split.isna() & (sheet["split"] != "")
        sheet["split"] = split
    bad = pd.Series(False, index=sheet.index)
    for words, rows in faults.items():
        malformed += [f"line {n}: {words}" for n in sheet.loc[rows & ~bad, "line"]]
        bad |= rows
    sheet = sheet.assign(same=same)[~bad]
    sizes, missing = sizes_of(config.root, pd.concat([sheet[side] for side in SIDES]))
    whole = sheet["left"].isin(sizes) & sheet["right"].isin(sizes)
    if not whole.any():
        raise nothing_found(config, none_there(config, num_rows, given_paths, malformed, missing), WANTED)
    facts = {
        "absolute_paths_taken_to_start_in_root": paths.taken,
        "malformed_lines": counted(malformed, most=50),
        "images_missing": counted(missing),
    }
    pairs = sheet[whole].drop(columns="line").assign(same=sheet.loc[whole, "same"].astype("int8"))
    return pairs.reset_index(drop=True), sizes, facts, len(malformed) + len(missing)


def _images(pairs: pd.DataFrame) -> pd.DataFrame:
    """Two rows a pair, left and right: video, frame, path, group, expression, pair, side, same, and split if given."""
    codes, paths = pd.factorize(pd.concat([pairs["left"], pairs["right"]], ignore_index=True))
    left, right = codes[: len(pairs)], codes[len(pairs) :]
    together = _components(left, right, len(paths))
    alike = pairs["same"].to_numpy() == 1
    one = _components(left[alike], right[alike], len(paths))
    both = pd.concat([pairs.assign(side=side, path=pairs[side]) for side in SIDES], ignore_index=True)
    both["video"], both["frame"] = both["side"] + "/" + both["pair"], 0
    both["group"] = _first_of(together[codes], both["pair"])
    if "left_label" in pairs:
        both["expression"] = pd.concat([pairs["left_label"], pairs["right_label"]], ignore_index=True)
    else:
        name = both["pair"].where(both["same"] == 1, both["pair"] + "/" + both["side"])
        both["expression"] = _first_of(one[codes], name, by=both["same"] == 0)
    return both.astype({"same": "Int8"})


def _components(left: np.ndarray, right: np.ndarray, number: int) -> np.ndarray:
    """(number,) which component of the graph with these edges each node is in."""
    from scipy.sparse import coo_array  # here: other data sets shall not wait for it, each time they are looked at
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(left)), (left, right)), shape=(number, number))
    return connected_components(edges, directed=False)[1]


def _first_of(component: np.ndarray, names: pd.Series, by: pd.Series | None = None) -> pd.Series:
    """For each row the first name in its component, those with a lower ``by`` first."""
    table = pd.DataFrame({"component": component, "name": names, "by": 0 if by is None else by})
    first = table.sort_values(["by", "name"]).drop_duplicates("component").set_index("component")["name"]
    return table["component"].map(first)
