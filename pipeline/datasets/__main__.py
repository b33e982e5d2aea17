"""Says what lies in a folder, what is odd about it, and what to write into params.yaml for it.

    python -m pipeline.datasets --check FOLDER

It lists names, opens a few images, and reads annotations where there are at most 200,000 images (``--whole``: always).
Exit status 1 where no data set is known in it.
"""

import argparse
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from PIL import Image

from pipeline.datasets import abaw, ckplus, ravdess, shapes
from pipeline.datasets.found import CUT_FIRST, VIDEOS, DatasetConfig
from pipeline.datasets.index import report_of, summary
from pipeline.datasets.numbered import number
from pipeline.datasets.readers import read
from pipeline.params import UserError, entry

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MOST_IMAGES = 200_000  # read as a whole without --whole: some seconds
NUM_OPENED = 25
LARGE = 400  # pixels: faces are cut smaller than this, film frames are not
_AFEW = re.compile(r"(?:.*/)?(\d+)/\1\.json")


@dataclass
class Survey:
    """Names below a folder: ``images`` and ``videos`` per folder ('' is the top), all other files in ``others``."""

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        return sum(map(len, self.images.values()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.datasets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", type=Path, required=True, metavar="FOLDER", help="the folder to look into")
    parser.add_argument("--whole", action="store_true", help="read all annotations, however many images there are")
    args = parser.parse_args(argv)
    survey = look(args.check)
    fitting = fits(survey)
    print(
        f"{args.check}: {survey.num_images:,} images in {len(survey.images):,} folders, {len(survey.videos):,} videos"
    )
    for line in oddities(survey, fitting):
        print(f"odd: {line}")
    if not fitting:
        print("no data set that is known lies here: docs/datasets.md shows how each must lie")
        return 1
    if len(fitting) > 1:
        print(f"it may be read as {', '.join(fitting)}: the first fits best")
    name, *_ = fitting
    settings = fitting[name]
    if survey.num_images <= MOST_IMAGES or args.whole:
        config = DatasetConfig(**{k: Path(v) if k in ("root", "annotations") else v for k, v in settings.items()})
        try:
            found = read(config)
        except UserError as error:
            print(f"it looks like {name}, and cannot be read as that:\n  {error}")
            return 1
        print(summary(report_of(found, survey.num_images)))
        if "expression" in found.labels.table and {"happy", "sad", "angry", "anger"} & set(found.labels.classes):
            settings = settings | {"class_map": "abaw"}
    else:
        print(f"it looks like {name}; its annotations were not read (--whole reads them)")
    print("\nfor params.yaml:\n")
    print(yaml.safe_dump({"dataset": settings}, sort_keys=False, allow_unicode=True))
    return 0


def look(root: Path) -> Survey:
    """Raises ``UserError`` where ``root`` is no folder. Links are not followed, hidden folders not entered."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    survey = Survey(root)
    for where, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        path = os.path.relpath(where, root).replace(os.sep, "/")
        prefix = "" if path == "." else f"{path}/"
        images = [name for name in names if name.lower().endswith(IMAGES) and not name.startswith(".")]
        if images:
            survey.images[prefix.rstrip("/")] = sorted(images)
        for name in sorted(set(names) - set(images)):
            (survey.videos if name.lower().endswith(VIDEOS) else survey.others).append(prefix + name)
    return survey


def fits(survey: Survey) -> dict[str, dict[str, object]]:
    """Data set -> its section of params.yaml, the likeliest first; {} where nothing is known."""
    found: dict[str, dict[str, object]] = {}

    def add(name: str, **settings: object) -> None:
        found[name] = {"name": name, "root": survey.root.as_posix(), **settings}

    last = Counter(path.rpartition("/")[2] for path in survey.images)
    if shapes.TABLE in survey.others and {"left", "right"} <= set(survey.images):
        add("shapes")
    if any(ravdess.CLIP.fullmatch(name) for name in last):
        add("ravdess")
    if any(ckplus.IMAGE.fullmatch(name.rpartition(".")[0]) for names in survey.images.values() for name in names[:3]):
        add("ckplus")
    if any(_AFEW.fullmatch(path) for path in survey.others):
        add("afew_va")
    cropped = any(part.startswith("cropped") for path in survey.images for part in path.split("/"))
    numbered = any(number(name) for path, names in survey.images.items() if path for name in names[:3])
    if numbered and (cropped or _has_abaw_annotations(survey)):
        add("abaw", **_crop_source(survey))
    if {"left", "right"} <= {path.lower() for path in survey.images} and "shapes" not in found:
        add("pairs")
    for path in [p for p in survey.others if p.lower().endswith((".csv", ".tsv")) and "/" not in p]:
        if columns := _columns(survey, path):
            name, theirs = columns
            if name not in found and "shapes" not in found:
                add(name, annotations=(survey.root / path).as_posix(), **({"columns": theirs} if theirs else {}))
    if not found and any("/" in path or path for path in survey.images):
        add("folder")
    return found


def oddities(survey: Survey, fitting: Collection[str]) -> list[str]:
    """What should be looked at before anything is run: videos, broken images, sizes, frames that are not cut yet."""
    lines = []
    if survey.videos:
        lines.append(f"{len(survey.videos)} videos, such as '{survey.videos[0]}': {CUT_FIRST}")
    if survey.images.get(""):
        lines.append(f"{len(survey.images[''])} images lie in the folder itself")
    paths = [f"{path}/{name}".lstrip("/") for path, names in survey.images.items() for name in names]
    opened = [paths[i * len(paths) // NUM_OPENED] for i in range(NUM_OPENED)] if len(paths) > NUM_OPENED else paths
    sizes: Counter[tuple[int, int]] = Counter()
    grey = 0
    for path in opened:
        try:
            with Image.open(survey.root / path) as image:
                sizes[image.size] += 1
                grey += image.mode in ("1", "L", "I;16")
        except (OSError, ValueError, Image.DecompressionBombError):
            lines.append(f"'{path}' cannot be opened as an image")
    if len(sizes) > 1:
        few = ", ".join(f"{w} x {h} ({n})" for (w, h), n in sizes.most_common(3))
        lines.append(f"of {sum(sizes.values())} images that were opened, {len(sizes)} sizes: {few}")
    if grey:
        lines.append(f"{grey} of {sum(sizes.values())} images that were opened are grey")
    if "afew_va" in fitting and any(width != height for width, height in sizes):  # faces are cut square
        lines.append(
            "these are whole film frames: cut the faces by the points that come with them (python -m pipeline.faces "
            f"--landmarks afew_va --input {survey.root} --out data/faces), and read them with root: data/faces, "
            f"annotations: {survey.root}, crop_source: cropped_aligned"
        )
    elif any(min(size) > LARGE for size in sizes):
        lines.append("images are large: if they show more than a face, cut faces first (python -m pipeline.faces)")
    return lines


def _has_abaw_annotations(survey: Survey) -> bool:
    try:
        per_video, lists, _ = abaw.find_annotations(survey.root, [p for p in survey.others if p.endswith(".txt")])
    except UserError:  # a video annotated twice: the reader will say which
        return True
    return bool(per_video or lists)


def _crop_source(survey: Survey) -> dict[str, str]:
    """The setting for ABAW's crop source, where it is not the default."""
    crops = {part for path in survey.images for part in path.split("/")[:-1] if part.startswith("cropped")}
    aligned = any(abaw.belongs(crop, "cropped_aligned") for crop in crops)
    return {} if aligned or not crops else {"crop_source": "cropped"}


def _columns(survey: Survey, path: str) -> tuple[str, dict[str, str]] | None:
    """The reader for a table, 'csv' or 'pairs', and what it calls its columns; None for a table of no images."""
    with (survey.root / path).open(encoding="utf-8-sig", errors="replace") as file:
        header, row = file.readline(), file.readline()
    mark = max(",;\t", key=header.count)
    names = [name.strip() for name in header.split(mark)]
    if {"left", "right"} <= set(names):
        return "pairs", {}
    fields = [text.strip().lower() for text in row.split(mark)]
    images = [name for name, text in zip(names, fields, strict=False) if text.endswith(IMAGES)]
    if not images:
        return None
    theirs = {} if "path" in names else {"path": images[0]}
    guesses = {
        "label": ("emotion", "expression", "class"),
        "group": ("subject", "person", "actor"),
        "split": ("usage",),
    }
    for ours, words in guesses.items():
        like = [name for name in names if name.lower() in words]
        if ours not in names and like:
            theirs[ours] = like[0]
    return "csv", theirs


if __name__ == "__main__":
    entry(main)
