"""Reads CelebA: photographs of celebrities, who is in each, and five points of each face.

    .../img_celeba/000001.jpg  or  .../img_align_celeba/000001.jpg                               at any depth
    .../identity_CelebA.txt             000001.jpg 2880                     who it is; its authors give it on request
    .../list_eval_partition.txt         000001.jpg 0                        0 train, 1 val, 2 test: whole people
    .../list_landmarks_celeba.txt       202599                              points of the photographs; a second file,
                                        lefteye_x lefteye_y righteye_x ...  list_landmarks_align_celeba.txt, has those
                                        000001.jpg 165  184  244  176 ...   of the aligned pictures

The lists of points begin with two lines, the number of rows and the names of the columns, which do not name the first
column; the other two have no header. Columns stand apart by one or more blanks. Copies with commas (.csv) are read too.
The left eye is the one to the left in the picture.

Each photograph is a video of its own, with frame 0, called by its number. The label and the group are the person. Faces
cut by ``python -m pipeline.faces --landmarks celeba`` lie in a folder a person, ``cropped_aligned/2880/00001.jpg``, and
are read in the same way; ``annotations`` then names the folder of the lists.
Liu et al. 2015, https://arxiv.org/abs/1411.7766; lists as in https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline.core.params import UserError, one_of
from pipeline.core.tables import Frames, Labels
from pipeline.datasets.config import DatasetConfig, check_config, display_name, nothing_found
from pipeline.datasets.dataset import Dataset, counted
from pipeline.datasets.numbered import CROPS, frame_digits
from pipeline.datasets.scan import Scan, scan
from pipeline.datasets.sheet import read_text

EXTENSIONS = (".jpg", ".jpeg", ".png")
ALIGNED, WILD = "img_align_celeba", "img_celeba"
SOURCES = (ALIGNED, WILD, CROPS)  # the first that is there is read
WANTED = "CelebA: ROOT/.../img_align_celeba/000001.jpg or ROOT/.../img_celeba/000001.jpg, and identity_CelebA.txt"
LISTS = {
    "identity": re.compile(r"identity_celeba\.(txt|csv)", re.I),
    "partition": re.compile(r"list_eval_partition\.(txt|csv)", re.I),
    "landmarks": re.compile(r"list_landmarks_celeba\.(txt|csv)", re.I),
    "landmarks_align": re.compile(r"list_landmarks_align_celeba\.(txt|csv)", re.I),
}
SPLIT = {"0": "train", "1": "val", "2": "test"}
NO_PERSON = "photographs"  # the one folder of cut faces where no list says who is in which
_NAME = re.compile(r"(\d+)\.(?:jpg|jpeg|png)", re.I | re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?", re.ASCII)


@dataclass
class Listed:
    """The rows of a list, image number -> values as text, and what was odd about it, each with its line."""

    path: str | None = None
    rows: dict[int, list[str]] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    contradicting: dict[int, str] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)


def read(config: DatasetConfig) -> Dataset:
    """All photographs of one folder, and who is in them.

    A person with photographs in two splits is in that of most of them; the others are in none, and are named. A
    photograph that two lines give to two people, or to two splits, has no label, or no split. Raises ``UserError``
    where no photograph is found, where two have one number, and for a list that is there twice.
    """
    check_config(config, WANTED, uses=["annotations"])
    scanned = scan(config.root, EXTENSIONS)
    base, paths = _lists(config, scanned.others)
    source, frames, others = _photographs(config, scanned)
    lists = {name: _read_list(base, paths.get(name), name) for name in LISTS}
    people = {number: values[0] for number, values in lists["identity"].rows.items()}
    table = pd.DataFrame({"number": sorted(people)})
    table["group"] = table["number"].map(people).astype("str")
    in_two: list[str] = []
    if lists["partition"].path:
        split, in_two = _one_split(table, {n: SPLIT[v[0]] for n, v in lists["partition"].rows.items()})
        table["expression_split"] = split
    table = table.assign(video=[_video(n) for n in table["number"]], frame=0, expression=table["group"])
    numbers = set(frames["number"])
    points = lists["landmarks_align" if source == ALIGNED else "landmarks"]
    named = {n for name in ("identity", "partition") for n in lists[name].rows}
    warnings = _warnings(config, lists, in_two, source)
    faults = {
        "malformed_lines": counted((line for of in lists.values() for line in of.malformed), most=50),
        "lines_of_an_image_that_had_one": counted((line for of in lists.values() for line in of.twice), most=50),
        "images_of_two_people_or_splits": counted(
            text for name in ("identity", "partition") for _, text in sorted(lists[name].contradicting.items())
        ),
        "list_headers": counted(line for of in lists.values() for line in of.header),
        "people_in_two_splits": counted(in_two),
        "images_missing": counted(_video(n) for n in sorted(named - numbers)),
        "images_without_person": counted(_video(n) for n in sorted(numbers - set(people)) if lists["identity"].path),
        "images_without_split": counted(
            _video(n) for n in sorted(numbers - set(lists["partition"].rows)) if lists["partition"].path
        ),
    }
    if points.path and source != CROPS:
        faults["points_without_image"] = counted(_video(n) for n in sorted(set(points.rows) - numbers))
        faults["images_without_points"] = counted(_video(n) for n in sorted(numbers - set(points.rows)))
    used = {paths[name] for name in paths} if base == config.root else set()
    columns = ["video", "frame", "group", "expression", *(["expression_split"] if "expression_split" in table else [])]
    classes = sorted(table["expression"].unique(), key=lambda name: (len(name), name))
    lost = ("malformed_lines", "images_of_two_people_or_splits", "images_missing")
    return Dataset(
        Frames(frames.drop(columns="number"), config.root, display_name(config), source),
        Labels(table[columns], classes, display_name(config)),
        {"warnings": warnings}
        | faults
        | {
            "images_outside": counted(others),
            "unreadable": counted(scanned.unreadable),
            "links_to_folders_already_read": counted(scanned.repeated),
            "stray_files": counted((path for path in scanned.others if path not in used), most=10),
        },
        skipped=sum(faults[name]["count"] for name in lost) + len(scanned.unreadable),
    )


def landmarks(config: DatasetConfig) -> dict[str, tuple[str, dict[int, str], dict[int, np.ndarray]]]:
    """Person -> the list of points, and by image number the photographs' paths and their five points (5, 2) in pixels.

    Points are in the order of ``faces.align.POINTS``. Photographs of one person stand together. Where no list says who
    is in which they are all of ``NO_PERSON``. Raises ``UserError`` where there is no list for the photographs.
    """
    check_config(config, WANTED, uses=["annotations"])
    scanned = scan(config.root, EXTENSIONS)
    base, paths = _lists(config, scanned.others)
    source, frames, _ = _photographs(config, scanned)
    which = "landmarks_align" if source == ALIGNED else "landmarks"
    if source == CROPS or which not in paths:
        wanted = "list_landmarks_align_celeba.txt" if source == ALIGNED else "list_landmarks_celeba.txt"
        raise UserError(f"data set 'celeba': there is no {wanted} below {base}, which cutting {source} needs")
    points = _read_list(base, paths[which], which)
    people = _read_list(base, paths.get("identity"), "identity").rows
    found: dict[str, tuple[str, dict[int, str], dict[int, np.ndarray]]] = {}
    for number, path in zip(frames["number"], frames["path"], strict=True):
        person = people[number][0] if number in people else NO_PERSON
        of = found.setdefault(person, (paths[which], {}, {}))
        of[1][number] = path
        if number in points.rows:
            of[2][number] = np.array(points.rows[number], dtype=np.float64).reshape(5, 2)
    return found


def _lists(config: DatasetConfig, others: list[str]) -> tuple[Path, dict[str, str]]:
    """The folder that holds the lists, and the path of each below it."""
    base = config.root
    if config.annotations is not None:
        base = config.annotations
        if not base.is_dir():
            raise UserError(f"data set 'celeba': there is no folder {base} (dataset.annotations)")
        others = scan(base, ()).others
    found: dict[str, str] = {}
    for path in others:
        for name, pattern in LISTS.items():
            if pattern.fullmatch(path.rpartition("/")[2]):
                if name in found:
                    raise UserError(f"data set 'celeba': '{found[name]}' and '{path}' are the same list; keep one")
                found[name] = path
    if config.annotations is not None and not found:
        raise UserError(f"data set 'celeba': no list such as identity_CelebA.txt was found under {base}")
    return base, found


def source_of(path: str, root: Path) -> str | None:
    """The one of ``SOURCES`` that a folder of images below ``root`` is of; None for any other."""
    around = [part.removesuffix("_png").lower() for part in (*root.resolve().parts[-2:], *path.split("/"))]
    return next((source for source in SOURCES if source in around), None)


def _photographs(config: DatasetConfig, scanned: Scan) -> tuple[str, pd.DataFrame, list[str]]:
    """Which folder is read; a row a photograph: number, video, frame, path, size; and the images that are none."""
    of_source: dict[str, list[tuple[int, str, int]]] = {}
    others = []
    for folder in scanned.folders:
        source = source_of(folder.path, config.root)
        for name, size in zip(folder.names, folder.sizes, strict=True):
            path = f"{folder.path}/{name}".lstrip("/")
            digits = frame_digits(name)
            if source is None or digits is None:
                others.append(path)
            else:
                of_source.setdefault(source, []).append((int(digits), path, size))
    if not of_source:
        raise nothing_found(config, f"no photograph was found under {config.root}", WANTED, scanned.unreadable)
    there = [source for source in SOURCES if source in of_source]
    source = one_of("data set 'celeba': crop_source", config.crop_source or there[0], there)
    frames = pd.DataFrame(of_source[source], columns=["number", "path", "size"]).sort_values("path", ignore_index=True)
    twice = frames[frames.duplicated("number", keep=False)]
    if len(twice):
        pair = sorted(twice.loc[twice["number"] == twice["number"].min(), "path"])[:2]
        raise UserError(f"data set 'celeba': '{pair[0]}' and '{pair[1]}' have the same number; keep one")
    frames = frames.assign(video=[_video(n) for n in frames["number"]], frame=0)
    return source, frames[["number", "video", "frame", "path", "size"]], sorted(others)


def _video(number: int) -> str:
    return f"{number:06d}"


def _read_list(base: Path, path: str | None, name: str) -> Listed:
    """A list's rows; a second line of an image that says the same is passed over, one that says otherwise unsays it."""
    found = Listed(path)
    if path is None:
        return found
    has_points = name.startswith("landmarks")
    width = 10 if has_points else 1
    file = PurePosixPath(path).name
    said: int | None = None
    header = False
    for line, text in enumerate(read_text(base / path, "data set 'celeba'").splitlines(), start=1):
        words = [word for word in re.split(r"[\s,;]+", text) if word]
        where = f"{file}, line {line}"
        if not words:
            continue
        match = _NAME.fullmatch(PurePosixPath(words[0]).name)
        if match is None and line <= 2 and not found.rows:
            if len(words) == 1 and words[0].isdecimal():
                said = int(words[0])
            else:
                header = True
            continue
        values = words[1:]
        good = len(values) == width and all(_NUMBER.fullmatch(value) for value in values)
        if match is None or not good or (name == "partition" and values[0] not in SPLIT):
            found.malformed.append(f"{where}: '{text.strip()[:60]}'")
            continue
        number = int(match[1])
        before = found.rows.get(number)
        if before is None and number not in found.contradicting:
            found.rows[number] = values
        else:
            found.twice.append(f"{where}: {words[0]}")
            if before is not None and before != values:
                found.contradicting[number] = f"{where}: {words[0]} is {values[0]}, and was {before[0]}"
                del found.rows[number]
    if has_points and said is None and not path.lower().endswith(".csv"):
        found.header.append(f"{file}: the line that says how many rows there are is missing")
    if has_points and not header:
        found.header.append(f"{file}: the line that names the columns is missing")
    if said is not None and said != (count := len(found.rows) + len(found.malformed) + len(found.twice)):
        found.header.append(f"{file}: its first line says {said:,} rows, and there are {count:,}")
    return found


def _one_split(table: pd.DataFrame, split_of: dict[int, str]) -> tuple[pd.Series, list[str]]:
    """The split of each row (number, group), None outside of the split that its person has most photographs in."""
    split = table["number"].map(split_of)
    counts: dict[str, Counter] = {}
    for person, of in zip(table["group"], split, strict=True):
        if isinstance(of, str):
            counts.setdefault(person, Counter())[of] += 1
    order = list(SPLIT.values())
    own = {person: max(of, key=lambda name: (of[name], -order.index(name))) for person, of in counts.items()}
    in_two = [
        f"{person}: {', '.join(f'{name} {of[name]}' for name in order if of[name])}"
        for person, of in sorted(counts.items(), key=lambda item: (len(item[0]), item[0]))
        if len(of) > 1
    ]
    keep = split == table["group"].map(own)
    return split.where(keep, None).astype(object), in_two


def _warnings(config: DatasetConfig, lists: dict[str, Listed], in_two: list[str], source: str) -> list[str]:
    found = []
    if not lists["identity"].path:
        found.append(
            "there is no identity_CelebA.txt, which its authors give on request: nobody is named, and no label"
        )
    elif not lists["partition"].path:
        found.append("there is no list_eval_partition.txt: the split is drawn, by person")
    if in_two:
        found.append(
            f"{len(in_two):,} people have photographs in two splits, such as {in_two[0]}: each is in the split "
            "of most of their photographs, and the other photographs are in none"
        )
    if source == WILD:
        found.append(
            "img_celeba are whole photographs, not faces: cut them by their points first (python -m pipeline.faces "
            f"--landmarks celeba --input {config.root} --out data/celeba_faces)"
        )
    return found
