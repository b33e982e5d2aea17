"""What the network sees of a picture: a square around the points, turned, grey, dark, small and covered at random.

Everything is a function of the picture, its points and a generator of random numbers. The points move with the pixels.
"""

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.faces.align import move, warp

MIRRORED = [1, 0, 2, 4, 3]  # of POINTS in a mirrored picture: left and right are those of the picture
TURN_DEGREES, SCALE, SHIFT = 40.0, 0.25, 0.12  # at most; a factor of e ** SCALE, and parts of the square's side
NARROWEST = 0.7  # of the width, as of a head that is turned aside
BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)
DARKEST, BRIGHTEST = 0.06, 1.3
SMALLEST, LARGEST = 10, 40  # pixels of the side of a picture that was small
COVERED = (0.15, 0.5)  # parts of the side
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def square(points: np.ndarray, margin: float) -> tuple[np.ndarray, float]:
    """Centre (2,) and side of the square around points (5, 2): their extent, and ``margin`` of it on each side.

    Points that are one have the extent of a pixel.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, max(1.0, float((high - low).max())) * (1 + 2 * margin)


def crop_matrix(centre: np.ndarray, side: float, size: int, turned: np.ndarray | None = None) -> np.ndarray:
    """(2, 3): the square to a picture of ``size`` pixels a side, ``turned`` (2, 2) around its centre."""
    linear = size / side * (np.eye(2) if turned is None else turned)
    return np.column_stack([linear, (size - 1) / 2 - linear @ centre])


def crop(image: np.ndarray, points: np.ndarray, size: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture (size, size, 3) around the points, as it is used, and the (2, 3) matrix that made it."""
    matrix = crop_matrix(*square(points, margin), size)
    return warp(image, matrix, size), matrix


def moved_at_random(
    image: np.ndarray, points: np.ndarray, size: int, margin: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A picture (size, size, 3) and the points in it (5, 2): jittered, turned, narrowed and mirrored."""
    centre, side = square(points, margin)
    centre, side = centre + rng.uniform(-SHIFT, SHIFT, 2) * side, side * np.exp(rng.uniform(-SCALE, SCALE))
    angle = np.deg2rad(np.clip(rng.normal(0, TURN_DEGREES / 2), -TURN_DEGREES, TURN_DEGREES))
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    narrow = rng.uniform(NARROWEST, 1) if rng.random() < 0.3 else 1.0
    matrix = crop_matrix(centre, side, size, turned @ np.diag([narrow, 1.0]))
    picture, there = warp(image, matrix, size, int(rng.choice(BORDERS))), move(points, matrix)
    return mirror(picture, there) if rng.random() < 0.5 else (picture, there)


def jittered(
    image: np.ndarray, points: np.ndarray, size: int, margin: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same, with a square that is somewhat off, as that around found points is, and nothing else."""
    centre, side = square(points, margin)
    centre, side = centre + rng.uniform(-SHIFT, SHIFT, 2) * side / 2, side * np.exp(rng.uniform(-SCALE, SCALE) / 2)
    matrix = crop_matrix(centre, side, size)
    return warp(image, matrix, size), move(points, matrix)


def mirror(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From left to right; a left point is then a right one."""
    there = points * [-1, 1] + [picture.shape[1] - 1, 0]
    return np.ascontiguousarray(picture[:, ::-1]), there[MIRRORED]


def grey(picture: np.ndarray) -> np.ndarray:
    """All three channels are the luma."""
    return np.repeat((picture.astype(np.float32) @ GREY)[..., None], 3, axis=2)


def dark(picture: np.ndarray, times: float = 0.15) -> np.ndarray:
    return picture.astype(np.float32) * times


def small(picture: np.ndarray, pixels: int) -> np.ndarray:
    """As large as before, of no more than ``pixels`` a side."""
    fewer = cv2.resize(picture, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return cv2.resize(fewer, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def covered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ellipse or a rectangle of one colour somewhere over it: a hand, hair, a microphone."""
    side = picture.shape[0]
    centre, half = rng.integers(0, side, 2), np.maximum(1, rng.uniform(*COVERED, 2) * side / 2).astype(int)
    colour, over = rng.uniform(0, 255, 3).tolist(), np.ascontiguousarray(picture, dtype=np.float32).copy()
    if rng.random() < 0.5:
        cv2.ellipse(over, centre.tolist(), half.tolist(), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    else:
        cv2.rectangle(over, (centre - half).tolist(), (centre + half).tolist(), colour, -1)
    return over


def seen_at_random(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) uint8: covered, in other light, grey, small, dark and with noise, each at times."""
    x = picture.astype(np.float32)
    steps: list[tuple[float, Callable[[np.ndarray], np.ndarray]]] = [
        (0.35, lambda x: covered(x, rng)),
        (0.5, lambda x: x * rng.uniform(0.7, BRIGHTEST, 3).astype(np.float32)),
        (0.3, grey),
        (0.3, lambda x: small(x, int(rng.integers(SMALLEST, min(LARGEST, x.shape[0]) + 1)))),
        (0.2, lambda x: cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.2))),
        (0.3, lambda x: dark(x, rng.uniform(DARKEST, 0.6))),
        (0.7, lambda x: x + rng.normal(0, rng.uniform(0, 4), x.shape).astype(np.float32)),
    ]
    for likely, step in steps:
        if rng.random() < likely:
            x = step(x)
    return quantised(x)


def quantised(picture: np.ndarray) -> np.ndarray:
    """As a file holds it."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
