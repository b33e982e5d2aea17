"""Pictures with known points from tables and from CelebA, and the part of them that is held out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.params import UserError
from pipeline.datasets import celeba
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.points import read_points

CLOSEST = 1.0  # pixels between the eyes: nearer ones are one point, and nothing can be measured by them


@dataclass(frozen=True)
class Examples:
    """n pictures: ``paths``, points (n, 5, 2) in their pixels, and the ``groups`` that are on one side of a split."""

    paths: list[Path]
    points: np.ndarray
    groups: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def some(self, rows: np.ndarray) -> "Examples":
        return Examples([self.paths[i] for i in rows], self.points[rows], [self.groups[i] for i in rows])

    def image(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises ``UserError`` for a file that is no picture."""
        image = cv2.imread(str(self.paths[row]), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise UserError(f"aligner: {self.paths[row]} cannot be read as a picture: take it out of the table")
        return image

    @property
    def digest(self) -> str:
        """16 digits that are others for other pictures or points."""
        found = hashlib.sha256(self.points.astype("<f8").tobytes())
        found.update("\n".join(map(str, [*self.paths, *self.groups])).encode())
        return found.hexdigest()[:16]


def gather(sources: Sequence[Path]) -> tuple[Examples, list[str]]:
    """All pictures of all sources, each a table (``datasets.points``) or the folder of CelebA; and what was left out.

    Of CelebA a group is a person; where no list says who is in which photograph, each stands alone. Raises
    ``UserError`` for a source that is neither, and where no picture is there.
    """
    paths, points, groups, problems = [], [], [], []
    for source in sources:
        if source.is_dir():
            found = celeba.landmarks(DatasetConfig(name="celeba", root=source))
            of = [
                (source / path, xy[number], str(number) if who == celeba.NO_PERSON else who)
                for who, (_, listed, xy) in sorted(found.items())
                for number, path in sorted(listed.items())
                if number in xy
            ]
        else:
            of = [(source.parent / p, xy, group) for p, xy, group in zip(*read_points(source), strict=True)]
        gone = [str(path) for path, _, _ in of if not path.is_file()]
        flat = [str(path) for path, xy, _ in of if np.linalg.norm(xy[0] - xy[1]) < CLOSEST]
        for what, left_out in (("is not there", gone), ("has both eyes in one place", flat)):
            if left_out:
                problems.append(f"{source}: {len(left_out):,} pictures left out, such as {left_out[0]}, which {what}")
        skip = {*gone, *flat}
        of = [each for each in of if str(each[0]) not in skip]
        paths += [path for path, _, _ in of]
        points += [xy for _, xy, _ in of]
        groups += [f"{source}/{group}" for _, _, group in of]
    if not paths:
        why = f": {'; '.join(problems)}" if problems else ""
        raise UserError(f"aligner: no picture with points in {[str(source) for source in sources]}{why}")
    return Examples(paths, np.array(points, dtype=np.float64), groups), problems


def split(examples: Examples, val_fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Training and held-out examples: whole groups are held out, ``val_fraction`` of them, drawn by ``seed``.

    Raises ``UserError`` where there are fewer than two groups.
    """
    names = sorted(set(examples.groups))
    if len(names) < 2:
        raise UserError("aligner: all pictures are of one group, so none can be held out: say who is who in 'group'")
    held = max(1, min(len(names) - 1, round(val_fraction * len(names))))
    out = {names[i] for i in np.random.default_rng([seed, 1]).permutation(len(names))[:held]}
    is_out = np.array([group in out for group in examples.groups])
    return examples.some(np.flatnonzero(~is_out)), examples.some(np.flatnonzero(is_out))


def evenly(count: int, most: int) -> np.ndarray:
    """At most ``most`` evenly spaced row numbers of ``count``."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
