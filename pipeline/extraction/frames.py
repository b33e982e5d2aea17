"""Image files to batches of pixels."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

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


def resize_image(image: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """An image (H, W, 3) uint8 as (size, size, 3), aspect ignored, by PIL ('bilinear', 'bicubic' or 'lanczos').

    By PIL and nothing like it: torch's antialiased resize differs in one value of a hundred, by up to 4 grey levels,
    and that moved the features of photographs (tf_efficientnet_lite0, 112 pixels) to a cosine of 0.9985.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling[interpolation.upper()]))


def resize(images: Sequence[np.ndarray], size: int, interpolation: str, device: torch.device = CPU) -> torch.Tensor:
    """Images (H, W, 3) as a (B, 3, size, size) uint8 tensor on ``device``, in channels-last memory.

    To a CUDA device they go through page-locked memory, and nothing is waited for.
    """
    batch = torch.empty((len(images), size, size, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack([resize_image(image, size, interpolation) for image in images], out=batch.numpy())
    return batch.to(device, non_blocking=True).permute(0, 3, 1, 2)


def read_batches(
    paths: Iterable[Path], batch_size: int, workers: int, then: Callable[[np.ndarray], np.ndarray] | None = None
) -> Iterator[tuple[list[int], list[np.ndarray], dict[int, str]]]:
    """Batches of decoded images, at most two of them ahead: (places in ``paths``, images, {place: why it failed}).

    A batch covers ``batch_size`` consecutive paths; what could not be read is missing from its images. ``paths`` are
    taken only as they are needed. ``then`` is done to each image by the thread that decoded it.
    """
    share = -(-batch_size // workers)  # images a task: one task each would cost more than a small image
    left = iter(paths)
    ahead: deque[list[Future[list[np.ndarray | str]]]] = deque()
    start = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(ahead) < AHEAD and (batch := list(islice(left, batch_size))):
                    ahead.append(
                        [pool.submit(_decode_all, batch[i : i + share], then) for i in range(0, len(batch), share)]
                    )
                if not ahead:
                    return
                batch = _collect(ahead.popleft(), start)
                start += len(batch[0]) + len(batch[2])
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_all(paths: Sequence[Path], then: Callable[[np.ndarray], np.ndarray] | None) -> list[np.ndarray | str]:
    """The image of each path, or why there is none."""
    found: list[np.ndarray | str] = []
    for path in paths:
        try:
            image = decode(path)
            found.append(then(image) if then else image)
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
