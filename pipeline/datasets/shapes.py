"""Draws pairs of images, each of a circle or a square, and reads them: the smallest task for a head that compares.

    python -m pipeline.datasets.shapes --out data/shapes --pairs 2000

Place, size and both colours are random, so that nothing but the shape tells same from different. Half of the pairs
are of one shape. What is read is the table ``pairs.csv`` beside the images; see ``pairs``. The group is the pair.

The figures are small, 9 to 31 of 112 pixels across, so that there is something to learn: with 27 to 67 pixels even an
untrained projection of ``tf_efficientnet_lite0``'s features ranks same above different in 99 of 100 cases. With
``--hard`` they are smaller still, squares are turned, and there is noise over all.
"""

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.params import UserError, entry, option, parse
from pipeline.datasets import pairs
from pipeline.datasets.config import DatasetConfig, check_config, nothing_found
from pipeline.datasets.dataset import Dataset

SHAPES = ("circle", "square")
TABLE = "pairs.csv"
HEADER = ["left", "right", "same", "left_label", "right_label"]
RADIUS = (0.04, 0.14)  # of the image's side
HARD_RADIUS = (3 / 112, 7 / 112)
NOISE = 20.0  # standard deviation of a hard image's noise, in grey levels, of each pixel and colour by itself
LEAST_CONTRAST = 100  # Euclidean distance of the two colours, of at most 442: a shape must be there to be seen
WANTED = f"drawn pairs: ROOT/{TABLE}, ROOT/left/00001.png, ROOT/right/00001.png"


@dataclass(frozen=True)
class ShapesConfig:
    out: Path = option(Path("data/shapes"), help="folder to draw into; new or empty")
    pairs: int = option(2000, help="number of pairs, 4 or more", within="[4, 10_000_000]")
    size: int = option(112, help="side of the square images in pixels, 32 or more", within="[32, 4096]")
    hard: bool = option(False, help="smaller figures (a radius of 3 to 7 of 112 pixels), turned squares, and noise")
    seed: int = option(0, help="everything follows from it", within="[0, inf)")


def read(config: DatasetConfig) -> Dataset:
    """The drawn pairs. Raises ``UserError`` where nothing was drawn yet."""
    check_config(config, WANTED)
    if not (config.root / TABLE).is_file():
        raise nothing_found(config, f"there is no {TABLE} in {config.root}", WANTED)
    crop_source = config.crop_source or "drawn"  # whole: a figure may lie at the edge, so nothing is to be cut off
    return pairs.read(dataclasses.replace(config, annotations=config.root / TABLE, crop_source=crop_source))


def main(argv: Sequence[str] | None = None) -> int:
    config = parse(ShapesConfig, argv, sections=[], description=__doc__)
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UserError(f"shapes: {config.out} is there and not empty: give another --out, or delete it")
    write(config)
    print(f"{config.pairs} pairs of {config.size} x {config.size} pixels: {config.out}")
    return 0


def write(config: ShapesConfig) -> None:
    """Draws all pairs; the same seed gives the same pixels, whatever the number of pairs."""
    for side in pairs.SIDES:
        (config.out / side).mkdir(parents=True, exist_ok=True)
    rows = []
    for pair in range(config.pairs):
        rng = np.random.default_rng([config.seed, pair])
        left = SHAPES[rng.integers(2)]
        right = left if pair % 2 == 0 else SHAPES[1 - SHAPES.index(left)]
        paths = [f"{side}/{pair + 1:05d}.png" for side in pairs.SIDES]
        for path, shape in zip(paths, (left, right), strict=True):
            done, data = cv2.imencode(".png", draw(shape, config.size, rng, config.hard))
            assert done
            (config.out / path).write_bytes(data.tobytes())
        rows.append([*paths, int(left == right), left, right])
    with (config.out / TABLE).open("w", encoding="utf-8", newline="") as file:  # last: a set cut off has no table
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def draw(shape: str, size: int, rng: np.random.Generator, hard: bool = False) -> np.ndarray:
    """(size, size, 3) uint8 with one whole shape; a circle and a square of one radius have one area.

    A ``hard`` one is smaller, a square is turned by any angle, and there is noise over all.
    """
    radius = rng.uniform(*(HARD_RADIUS if hard else RADIUS)) * size
    half = radius if shape == "circle" else radius * np.sqrt(np.pi) / 2
    angle = rng.uniform(0, np.pi / 2) if hard else 0.0
    reach = half if shape == "circle" else half * (np.cos(angle) + np.sin(angle))
    x, y = rng.uniform(reach + 2, size - reach - 3, 2)  # its smoothed edge stays inside
    ground, colour = rng.integers(0, 256, (2, 3))
    while np.linalg.norm(ground - colour) < LEAST_CONTRAST:
        ground, colour = rng.integers(0, 256, (2, 3))
    image = np.full((size, size, 3), ground, np.uint8)
    fill = tuple(colour.tolist())
    if shape == "circle":
        cv2.circle(image, (round(x * 16), round(y * 16)), round(half * 16), fill, -1, cv2.LINE_AA, 4)
    else:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ turn + [x, y]
        cv2.fillPoly(image, [np.round(corners * 16).astype(np.int32)], fill, cv2.LINE_AA, 4)
    if hard:
        image = np.clip(np.rint(image + rng.normal(0, NOISE, image.shape)), 0, 255).astype(np.uint8)
    return image


if __name__ == "__main__":
    entry(main)
