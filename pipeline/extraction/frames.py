"""Image files to batches of pixels."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

cv2.setNumThreads(1)  # the threads are ours: one image a thread
CPU = torch.device("cpu")
AHEAD = 2  # batches that are being decoded, or wait to be taken, besides the one that was taken last


class UnreadableImage(Exception):
    """Why an image file could not be read."""


def decode(path: Path) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, turned upright as its EXIF says; grey and CMYK become RGB, 16 bit become 8.

    Raises ``UnreadableImage`` with the reason.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)  # cv2.imread cannot open every name on every system
    except OSError as error:
        raise UnreadableImage(error.strerror or type(error).__name__) from None
    if len(content) == 0:
        raise UnreadableImage("the file is empty")
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        large = "MAX_IMAGE" in str(error)  # OpenCV allocates nothing above 2^30 pixels, or 2^20 in width or height
        raise UnreadableImage("claims to be too large" if large else f"cannot be decoded: {error.err}") from None
    if image is None:
        raise UnreadableImage("not an image, or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def resize(images: Sequence[np.ndarray], size: int, interpolation: str, device: torch.device = CPU) -> torch.Tensor:
    """Images (H, W, 3) as a (B, 3, size, size) uint8 tensor on ``device``, aspect ignored, in channels-last memory.

    Antialiased as PIL's resize is ('bilinear' or 'bicubic'); images of one shape are resized as one batch. On a CUDA
    device the images are copied as they are, and nothing is waited for.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(i)
    scale = resize_bytes if device.type == "cpu" else resize_in_float
    batches = [
        scale(_together([images[i] for i in places], device).permute(0, 3, 1, 2), size, interpolation)
        for places in by_shape.values()
    ]
    if len(batches) == 1:
        return batches[0].contiguous(memory_format=torch.channels_last)
    out = torch.empty((len(images), 3, size, size), dtype=torch.uint8, device=device)
    out = out.contiguous(memory_format=torch.channels_last)
    for places, batch in zip(by_shape.values(), batches, strict=True):
        out[places] = batch
    return out


def resize_bytes(images: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, size, size) uint8 in whole numbers, as PIL does; for the CPU."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode=interpolation, antialias=True, align_corners=False)


def resize_in_float(images: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    """The same by way of float32, rounded at the end, for devices that have no other way."""
    if images.shape[2:] == (size, size):
        return images
    return resize_bytes(images.float(), size, interpolation).round_().clamp_(0, 255).byte()


def _together(images: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Images of one shape as (B, H, W, 3) on ``device``, through page-locked memory if that is a CUDA device."""
    if device.type == "cpu":
        return torch.from_numpy(np.stack(images))
    pinned = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
    np.stack(images, out=pinned.numpy())
    return pinned.to(device, non_blocking=True)


def read_batches(
    paths: Iterable[Path], batch_size: int, workers: int
) -> Iterator[tuple[list[int], list[np.ndarray], dict[int, str]]]:
    """Batches of decoded images, at most two of them ahead: (places in ``paths``, images, {place: why it failed}).

    A batch covers ``batch_size`` consecutive paths; what could not be read is missing from its images. ``paths`` are
    taken only as they are needed.
    """
    share = -(-batch_size // workers)  # images a task: one task each would cost more than a small image
    left = iter(paths)
    ahead: deque[list[Future[list[np.ndarray | str]]]] = deque()
    start = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(ahead) < AHEAD and (batch := list(islice(left, batch_size))):
                    ahead.append([pool.submit(_decode_all, batch[i : i + share]) for i in range(0, len(batch), share)])
                if not ahead:
                    return
                batch = _collect(ahead.popleft(), start)
                start += len(batch[0]) + len(batch[2])
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_all(paths: Sequence[Path]) -> list[np.ndarray | str]:
    """The image of each path, or why there is none."""
    found: list[np.ndarray | str] = []
    for path in paths:
        try:
            found.append(decode(path))
        except UnreadableImage as error:
            found.append(str(error))
    return found


def _collect(
    tasks: list[Future[list[np.ndarray | str]]], start: int
) -> tuple[list[int], list[np.ndarray], dict[int, str]]:
    places, images, failed = [], [], {}
    for place, found in enumerate(chain.from_iterable(task.result() for task in tasks), start):
        if isinstance(found, str):
            failed[place] = found
        else:
            images.append(found)
            places.append(place)
    return places, images, failed
