"""A face turned, scaled and moved to the usual place in a square picture, by five points.

The template is ArcFace's for 112 x 112 (https://github.com/deepinsight/insightface, ``arcface_dst``): eyes, tip of the
nose and corners of the mouth, "left" being left in the picture. ABAW's ``cropped_aligned`` has the same size.
"""

import cv2
import numpy as np

SIZE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
FAINT = 1e-3  # points whose spread is below this part of a pixel are one point: no turn or scale can be read from them


def align_from(image: np.ndarray, points: np.ndarray, size: int = SIZE, enlarge: float = 0.0) -> np.ndarray:
    """The aligned face (size, size, 3) uint8 of an image (H, W, 3) uint8; black beyond the image's edge.

    ``points`` are (5, 2) in the order of ``datasets.points.POINTS``, or the 68 (or 51, without the jaw) landmarks of
    iBUG; x and y in pixels, (0, 0) the centre of the first. With ``enlarge`` 0.2 the picture shows 1.2 times the usual
    width and height, around the same centre, in as many pixels. Raises ``ValueError`` for anything else, and where the
    points are one.
    """
    return warp(image, similarity(five_points(points), template(size, enlarge)), size)


def warp(image: np.ndarray, matrix: np.ndarray, size: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """The picture (size, size, 3) to which a (2, 3) matrix moves the pixels of an image; ``border`` is OpenCV's.

    A bilinear warp that shrinks leaves pixels out: it goes to a picture n times larger, then areas are averaged.
    """
    times = max(1, int(np.ceil(1 / np.hypot(*matrix[:, 0]))))
    if times == 1:
        return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    larger = times * matrix
    larger[:, 2] += (times - 1) / 2  # the centre of the first pixel is at (0, 0) in both
    large = cv2.warpAffine(image, larger, (times * size,) * 2, flags=cv2.INTER_LINEAR, borderMode=border)
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """(5, 2) float64 in the order of ``POINTS`` from 5, 51 or 68 landmarks; the centre of an eye is its six points'."""
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.shape not in {(5, 2), (51, 2), (68, 2)} or not np.isfinite(landmarks).all():
        raise ValueError(f"landmarks must be 5, 51 or 68 finite pairs of x and y, and have shape {landmarks.shape}")
    if len(landmarks) == 5:
        return landmarks
    inner = landmarks[-51:]  # without the 17 of the jaw: brows 0 to 9, nose 10 to 18, eyes 19 to 30, mouth from 31
    return np.stack([inner[19:25].mean(0), inner[25:31].mean(0), inner[13], inner[31], inner[37]])


def template(size: int, enlarge: float = 0.0) -> np.ndarray:
    """``TEMPLATE`` (5, 2) for a picture of another size; the picture's edges stay its edges, or move out by a share."""
    usual, centre = (TEMPLATE + 0.5) * (size / SIZE) - 0.5, (size - 1) / 2
    return centre + (usual - centre) / (1 + enlarge) if enlarge else usual


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (2, 3) turn, scale and shift that brings points (n, 2) nearest to others, in least squares; no mirroring.

    Umeyama 1991 (https://doi.org/10.1109/34.88573), eq. 40 to 42, in two dimensions, where points are complex numbers
    and turn and scale are one factor. Raises ``ValueError`` where the source, or the result, is a single point.
    """
    one, other = (np.ascontiguousarray(p, dtype=np.float64).view(np.complex128)[:, 0] for p in (source, target))
    centre, goal = one.mean(), other.mean()
    spread = np.square(np.abs(one - centre)).sum()
    if spread <= FAINT**2:
        raise ValueError(f"the {len(one)} points are one point, {centre.real:.1f}, {centre.imag:.1f}")
    factor = np.vdot(one - centre, other - goal) / spread
    if factor == 0:
        raise ValueError("no turn brings the points nearer to the others")
    shift = goal - factor * centre
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) under a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]
