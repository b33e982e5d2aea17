"""Says what lies in a folder, what is odd about it, and what to write into params.yaml for it.

    python -m pipeline.datasets --check FOLDER

It lists names, opens a few images, and reads annotations where there are at most 200,000 images (``--whole``: always).
The exit status is 1 if the folder holds no data set that is known.
"""

import argparse
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import yaml
from PIL import Image

from pipeline.core.params import UserError, entry
from pipeline.datasets.config import CUT_FIRST, DatasetConfig
from pipeline.datasets.index import report_of, summary
from pipeline.datasets.readers import read
from pipeline.datasets.recognise import Survey, candidates, survey_folder

MOST_IMAGES = 200_000  # read as a whole without --whole: some seconds
NUM_OPENED = 25
OWN_CLASSES = (
    "bah",
    "caer",
    "celeba",
    "dfew",
    "ferv39k",
    "mafw",
)  # scores are published of their own classes: no class_map
LARGE = 400  # pixels: faces are cut smaller than this, film frames are not


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.datasets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", type=Path, required=True, metavar="FOLDER", help="the folder to look into")
    parser.add_argument("--whole", action="store_true", help="read all annotations, however many images there are")
    args = parser.parse_args(argv)
    survey = survey_folder(args.check)
    fitting = candidates(survey)
    print(
        f"{args.check}: {survey.num_images:,} images in {len(survey.images):,} folders, {len(survey.videos):,} videos"
    )
    for line in oddities(survey, [fit.name for fit in fitting]):
        print(f"odd: {line}")
    if not fitting:
        print("no data set that is known lies here: docs/datasets.md shows how each must lie")
        return 1
    if len(fitting) > 1:
        print(f"it may be read as {', '.join(map(str, fitting))}: the first fits best")
    name, settings = fitting[0].name, fitting[0].settings
    if survey.num_images <= MOST_IMAGES or args.whole:
        config = DatasetConfig(**{k: Path(v) if k in ("root", "annotations") else v for k, v in settings.items()})
        try:
            dataset = read(config)
        except UserError as error:
            print(f"it looks like {name}, and cannot be read as that:\n  {error}")
            return 1
        print(summary(report_of(dataset, survey.num_images)))
        has_classes = "expression" in dataset.labels.table and name not in OWN_CLASSES
        if has_classes and {"happy", "sad", "angry", "anger"} & set(dataset.labels.classes):
            settings = settings | {"class_map": "abaw"}
    else:
        print(f"it looks like {name}; its annotations were not read (--whole reads them)")
    print("\nfor params.yaml:\n")
    print(yaml.safe_dump({"dataset": settings}, sort_keys=False, allow_unicode=True))
    return 0


def oddities(survey: Survey, fitting: Collection[str]) -> list[str]:
    """What should be looked at before anything is run: videos, broken images, sizes, frames that are not cut yet."""
    lines = []
    if survey.videos:
        lines.append(f"{len(survey.videos)} videos, such as '{survey.videos[0]}': {CUT_FIRST}")
    if survey.images.get(""):
        lines.append(f"{len(survey.images[''])} images lie in the folder itself")
    if survey.scanned.unreadable:
        lines.append(f"{len(survey.scanned.unreadable)} could not be read, such as '{survey.scanned.unreadable[0]}'")
    if survey.scanned.repeated:
        lines.append(f"{len(survey.scanned.repeated)} links to folders read already, '{survey.scanned.repeated[0]}'")
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


if __name__ == "__main__":
    entry(main)
