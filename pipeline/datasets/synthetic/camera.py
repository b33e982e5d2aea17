"""How a clip is filmed: light, background, pose, what covers the face, and the JPEG of each frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.datasets.synthetic.acting import slow_noise
from pipeline.datasets.synthetic.drawing import CANVAS, SKINS, SUPERSAMPLING, Colour, Identity, Pose, ellipse


@dataclass(frozen=True)
class Camera:
    """Light and picture quality of one clip: ``light`` (112, 112, 3) multiplies the image."""

    background: np.ndarray
    light: np.ndarray
    noise: float
    blur: float
    quality: int


def sample_camera(who: Identity, rng: np.random.Generator) -> Camera:
    side = SUPERSAMPLING * CANVAS
    share = np.linspace(0, 1, side)[:, None, None]
    background = (1 - share) * who.background[0] + share * who.background[1] + np.zeros((side, side, 1))
    background = np.ascontiguousarray(background.astype(np.uint8))
    for _ in range(rng.integers(2)):
        corner, extent = rng.integers(-40, side, 2), rng.integers(30, 140, 2)
        colour = tuple(int(c) for c in rng.integers(60, 190) + rng.integers(-20, 20, 3))
        cv2.rectangle(background, corner.tolist(), (corner + extent).tolist(), colour, -1)
    background = cv2.GaussianBlur(background, (0, 0), rng.uniform(2, 8))
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.2)
    y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j]
    direction = strength * (np.cos(angle) * x + np.sin(angle) * y)
    cast = rng.uniform(0.9, 1.05) * (1 + rng.normal(0, 0.015, 3))
    light = ((1 + direction)[:, :, None] * cast).astype(np.float32)
    quality = int(rng.integers(55, 92))
    return Camera(background, light, rng.uniform(1.0, 3.0), rng.uniform(0.2, 0.5), quality)


def sample_poses(length: int, rng: np.random.Generator) -> list[Pose]:
    """(L) poses: the head wanders slowly, and the crop jitters from frame to frame, as a detector's box does."""
    slow = slow_noise(length, 8, 18, rng) * [2.5, 0.015, 1.0, 0.8, 0.2, 0.15, 0.7, 0.3] + rng.normal(
        0, [1.5, 0.02, 0.7, 0.7, 0.15, 0.1, 0.2, 0.1]
    )
    slow[:, :4] += rng.standard_normal((length, 4)) * [0.4, 0.006, 0.35, 0.35]
    slow[:, 4:6] = np.clip(slow[:, 4:6], -0.6, 0.6)
    slow[:, 6:8] = np.clip(slow[:, 6:8], -2, 2)
    return [Pose(r, 1 + s, (x, y), (tx, ty), (gx, gy)) for r, s, x, y, tx, ty, gx, gy in slow.tolist()]


def sample_occlusions(length: int, rng: np.random.Generator) -> dict[int, tuple[np.ndarray, Colour]]:
    """Row -> a shape over the face and its colour: a hand or a microphone, a few frames long, in every third clip."""
    covered = {}
    for _ in range(rng.choice([0, 0, 1, 2])):
        start, count = int(rng.integers(length)), int(rng.integers(3, 11))
        shape = ellipse((rng.uniform(-25, 25), rng.uniform(15, 60)), (rng.uniform(7, 16), rng.uniform(12, 30)))
        colour = (SKINS[rng.integers(len(SKINS))], (40, 40, 44))[rng.integers(2)]
        covered |= {t: (shape, colour) for t in range(start, min(start + count, length))}
    return covered


def cover(image: np.ndarray, shape: np.ndarray, colour: Colour, shift: np.ndarray) -> np.ndarray:
    """The image with the shape painted over it, its edge smoothed."""
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round((shape + shift) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(mask, (0, 0), 0.6).astype(np.float32)[:, :, None] / 255
    return image * (1 - share) + share * np.array(colour, np.float32)


def photograph(image: np.ndarray, camera: Camera, size: int, rng: np.random.Generator) -> bytes:
    """The JPEG file of a drawn face under this camera, with one frame's exposure, blur and noise."""
    image = image * camera.light * rng.normal(1, 0.025)
    if size != CANVAS:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < CANVAS else cv2.INTER_CUBIC)
    blur = camera.blur + (rng.uniform(0.3, 0.8) if rng.random() < 0.08 else 0)
    image = cv2.GaussianBlur(image, (0, 0), blur * size / CANVAS)
    image += rng.standard_normal(image.shape, np.float32) * camera.noise
    pixels = np.clip(image, 0, 255).astype(np.uint8)[:, :, ::-1]
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    assert done
    return data.tobytes()
