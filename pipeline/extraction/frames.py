"""Image files to batches of pixels."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

cv2.setNumThreads(1)  # the threads are ours: one image a thread


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
        raise UnreadableImage(f"cannot be decoded: {error.err}") from None
    if image is None:
        raise UnreadableImage("not an image, or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def resize(images: Sequence[np.ndarray], size: int, interpolation: str) -> torch.Tensor:
    """Images (H, W, 3) as a (B, 3, size, size) uint8 tensor, aspect ignored, in channels-last memory.

    Antialiased as PIL's resize is ('bilinear' or 'bicubic'); images of one shape are resized as one batch.
    """
    out = torch.empty((len(images), 3, size, size), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(i)
    for shape, places in by_shape.items():
        batch = torch.from_numpy(np.stack([images[i] for i in places])).permute(0, 3, 1, 2)
        if shape[:2] != (size, size):
            batch = F.interpolate(batch, (size, size), mode=interpolation, antialias=True, align_corners=False)
        out[places] = batch
    return out


def read_batches(
    paths: Sequence[Path], batch_size: int, workers: int
) -> Iterator[tuple[list[int], list[np.ndarray], dict[int, str]]]:
    """Batches of decoded images, at most two of them ahead: (places in ``paths``, images, {place: why it failed}).

    A batch covers ``batch_size`` consecutive paths; what could not be read is missing from its images.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        ahead: deque[list[Future[np.ndarray]]] = deque()
        starts = range(0, len(paths), batch_size)
        try:
            for number in range(len(starts) + 2):
                if number < len(starts):
                    batch = paths[starts[number] : starts[number] + batch_size]
                    ahead.append([pool.submit(decode, path) for path in batch])
                if number >= 2 and ahead:
                    yield _collect(ahead.popleft(), starts[number - 2])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _collect(futures: list[Future[np.ndarray]], start: int) -> tuple[list[int], list[np.ndarray], dict[int, str]]:
    places, images, failed = [], [], {}
    for place, future in enumerate(futures, start):
        try:
            images.append(future.result())
            places.append(place)
        except UnreadableImage as error:
            failed[place] = str(error)
    return places, images, failed
