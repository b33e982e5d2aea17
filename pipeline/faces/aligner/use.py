"""A trained aligner in use: in the square around the points that a detector gives, it finds them anew."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from pipeline.core.files import load_tensors, save_tensors
from pipeline.core.params import UserError, build
from pipeline.faces.align import move
from pipeline.faces.aligner.augment import MIRRORED, crop
from pipeline.faces.aligner.config import Shape
from pipeline.faces.aligner.heatmaps import read_out
from pipeline.faces.aligner.network import StackedHourglass, to_picture
from pipeline.faces.detect import Detector, Faces

KIND = "aligner"
WHAT, WAY_OUT = "a trained aligner", "Train one with 'python -m pipeline.faces.aligner train'"
PASSES = 2  # the second one in the square around the points of the first: so the detector's matter less
LEAST_APART = 1.0  # pixels between the eyes: nearer ones are no face


class Aligner:
    """Points (n, 5, 2) near faces in an image (H, W, 3) uint8 RGB -> their points (n, 5, 2), in its pixels."""

    def __init__(self, network: StackedHourglass, shape: Shape, facts: dict[str, Any]) -> None:
        self.network, self.shape, self.facts = network.eval(), shape, facts

    @classmethod
    def load(cls, path: Path) -> Self:
        """What ``save`` wrote; raises ``UserError`` where ``path`` is none of them, or is damaged."""
        tensors, facts = load_tensors(path, WHAT, WAY_OUT, "pt")
        if facts.get("kind") != KIND:
            raise UserError(f"{path} is not {WHAT}. {WAY_OUT}")
        shape = build(Shape, facts["shape"], str(path))
        network = StackedHourglass(shape.stacks, shape.channels, shape.depth)
        network.load_state_dict(tensors)
        return cls(network, shape, facts)

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        for _ in range(PASSES if len(points) else 0):
            crops, matrices = zip(*(crop(image, of, self.shape.size, self.shape.margin) for of in points), strict=True)
            points = np.stack(
                [move(of, inverse(m)) for of, m in zip(self.find(np.stack(crops)), matrices, strict=True)]
            )
        return points

    def find(self, pictures: np.ndarray) -> np.ndarray:
        """Points (n, 5, 2) float64 in pictures (n, S, S, 3) uint8: the mean over each and its mirror image."""
        both = np.concatenate([pictures, pictures[:, :, ::-1]])
        found = predict(self.network, torch.from_numpy(both)).numpy().astype(np.float64)
        plain, mirrored = found[: len(pictures)], found[len(pictures) :]
        return (plain + (mirrored * [-1, 1] + [self.shape.size - 1, 0])[:, MIRRORED]) / 2


@torch.inference_mode()
def predict(network: StackedHourglass, pictures: torch.Tensor) -> torch.Tensor:
    """Points (n, 5, 2) in pictures (n, S, S, 3) uint8, by the last stack."""
    return to_picture(read_out(network(pictures)[:, -1])).cpu()


def save(path: Path, network: StackedHourglass, shape: Shape, facts: dict[str, Any]) -> None:
    save_tensors(path, network.state_dict(), {"kind": KIND, "shape": asdict(shape)} | facts)


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix that moves points back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def with_points_of(aligner: Aligner, detect: Detector) -> Detector:
    """A detector of the same boxes, with the aligner's points. A face whose eyes it finds in one place is none."""

    def both(image: np.ndarray) -> Faces:
        found = detect(image)
        found = replace(found, points=aligner(image, found.points))
        apart = np.linalg.norm(found.points[:, 0] - found.points[:, 1], axis=1) >= LEAST_APART
        return Faces(found.boxes[apart], found.points[apart], found.confidence[apart])

    return both
