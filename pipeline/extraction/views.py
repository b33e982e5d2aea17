"""Views of a frame: what is stored beside the original, each in an array of its own.

    original        the image as it is
    flipped         its mirror image, left and right exchanged
    augmented_1..K  the image turned, cut, mirrored and lit otherwise, each number in its own way

An augmented view depends on the name of the frame's video and on the view's number, and on nothing else: not on batch,
order, worker or machine. All frames of a video are changed alike, as if it had been filmed so. Otherwise a view would
flicker from frame to frame, and steadiness could not be learnt from it. A single image is a video of its own.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

MOST_TURN = 10.0  # degrees to either side
LEAST_SIDE = 0.8  # of the square that is cut out, as a share of the image's side
LIGHT = 0.2  # contrast and brightness are multiplied by 1 - LIGHT to 1 + LIGHT
AUGMENTATION = (
    f"by video: turned by up to {MOST_TURN:.0f} degrees, a square of {LEAST_SIDE} to 1 of the side cut out, mirrored "
    f"or not, contrast and brightness times {1 - LIGHT} to {1 + LIGHT}"
)
_NUMBERED = re.compile(r"augmented_(\d+)")


@dataclass(frozen=True)
class Change:
    """One way to see an image: degrees, share of the side, place of the cut (0 to 1, across and down), ..."""

    turn: float
    side: float
    across: float
    down: float
    mirrored: bool
    contrast: float
    brightness: float


def view_names(flipped: bool, augmented: int) -> list[str]:
    """The original first."""
    return ["original"] + ["flipped"] * flipped + [f"augmented_{n}" for n in range(1, augmented + 1)]


def augmentation_number(name: str) -> int | None:
    """3 for 'augmented_3', None for a view that is not augmented."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else None


def view_batch(pixels: torch.Tensor, videos: Sequence[str], name: str) -> torch.Tensor:
    """The view ``name`` of resized images (B, 3, S, S) uint8 in channels-last memory, which it is in too.

    ``videos`` are the names of the first images' videos; images beyond them are padding and are left as they are. All
    views but the original and 'flipped' want the images on the CPU.
    """
    if name == "original":
        return pixels
    if name == "flipped":
        return pixels.flip(3).contiguous(memory_format=torch.channels_last)
    out = pixels.clone(memory_format=torch.channels_last)
    for image, video in zip(out.permute(0, 2, 3, 1).numpy(), videos, strict=False):
        image[:] = view_image(image, video, name)
    return out


def view_image(image: np.ndarray, video: str, name: str) -> np.ndarray:
    """The view ``name`` of one resized image (S, S, 3) uint8 of ``video``."""
    if name == "original":
        return image
    if name == "flipped":
        return image[:, ::-1]
    way = augmentation_number(name)
    if way is None:
        raise ValueError(f"there is no view '{name}'")
    return apply(change(video, way), image)


def change(video: str, way: int) -> Change:
    """The same for the same video and number, on any machine: drawn from a hash of both."""
    digest = hashlib.blake2b(f"{way}/{video}".encode("utf-8", "surrogateescape"), digest_size=56).digest()
    u = (np.frombuffer(digest, dtype="<u8") / 2.0**64).tolist()  # 7 numbers in [0, 1)
    return Change(
        turn=MOST_TURN * (2 * u[0] - 1),
        side=1 - (1 - LEAST_SIDE) * u[1],
        across=u[2],
        down=u[3],
        mirrored=u[4] < 0.5,
        contrast=1 + LIGHT * (2 * u[5] - 1),
        brightness=1 + LIGHT * (2 * u[6] - 1),
    )


def apply(change: Change, image: np.ndarray) -> np.ndarray:
    """An image (S, S, 3) uint8, changed. What a turn brings in from outside is a mirror image of what is inside.

    Contrast is scaled about the middle grey, 127.5, and brightness about black.
    """
    size = len(image)
    angle = np.deg2rad(change.turn)
    scale = change.side * np.array([-1.0 if change.mirrored else 1.0, 1.0])
    # Where each pixel of the result comes from: turned and scaled about the centre of the square that is cut out.
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    middle = (size - 1) / 2
    centre = middle + (np.array([change.across, change.down]) - 0.5) * size * (1 - change.side)
    matrix = np.column_stack([matrix, centre - matrix @ [middle, middle]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    grey = np.arange(256)
    table = ((grey - 127.5) * change.contrast + 127.5) * change.brightness
    return cv2.LUT(turned, np.clip(np.rint(table), 0, 255).astype(np.uint8))
