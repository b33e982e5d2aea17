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
BETWEEN = 128  # images decoded at a time between the caller's batches, and read ahead of that; or one larger batch
READ_BYTES = 1 << 20  # of file content an image so read ahead, on average; what is beyond is read when it is decoded
Source = Path | np.ndarray  # an image file, or its content (n,) uint8


class UnreadableImage(Exception):
    """Why an image file could not be read."""


def decode(source: Source) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, turned upright as its EXIF says; grey and CMYK become RGB, 16 bit become 8.

    Raises ``UnreadableImage`` with the reason.
    """
    content = _content(source) if isinstance(source, Path) else source
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


def _content(path: Path) -> np.ndarray:
    try:
        return np.fromfile(path, dtype=np.uint8)  # cv2.imread cannot open every name on every system
    except OSError as error:
        raise UnreadableImage(error.strerror or type(error).__name__) from None


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


Batch = tuple[list[int], list[np.ndarray], dict[int, str]]  # places in the paths, images, {place: why it failed}
Then = Callable[[np.ndarray], np.ndarray]
Decoded = list[np.ndarray | str]  # the image of each file, or why there is none


def read_batches(
    paths: Iterable[Path], batch_size: int, workers: int, then: Then | None = None, between: bool = False
) -> Iterator[Batch]:
    """Batches of decoded images: (places in ``paths``, images, {place: why it failed}).

    A batch covers ``batch_size`` consecutive paths; what could not be read is missing from its images. ``paths`` are
    taken only as they are needed. ``then`` is done to each image by the thread that decoded it.

    Two batches are decoded ahead, beside what the caller does with the one before. With ``between`` that is left alone,
    for a caller that needs all cores itself: batches of 128 images together, or one larger batch, are decoded while it
    waits, and beside it the next files are only read, so that a slow disk is still hidden.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            decoded = _decoded_between if between else _decoded_beside
            start = 0
            for batch in decoded(iter(paths), batch_size, workers, then, pool):
                yield _sorted_out(batch, start)
                start += len(batch)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decoded_beside(
    paths: Iterator[Path], batch_size: int, workers: int, then: Then | None, pool: ThreadPoolExecutor
) -> Iterator[Decoded]:
    share = -(-batch_size // workers)  # images a task: one task each would cost more than a small image
    ahead: deque[list[Future[Decoded]]] = deque()
    while True:
        while len(ahead) < AHEAD and (batch := list(islice(paths, batch_size))):
            ahead.append([pool.submit(_decode_all, some, then) for some in _split(batch, share)])
        if not ahead:
            return
        yield _joined(ahead.popleft())


def _decoded_between(
    paths: Iterator[Path], batch_size: int, workers: int, then: Then | None, pool: ThreadPoolExecutor
) -> Iterator[Decoded]:
    # Whole batches. Fewer images at a time cost more each: PyTorch's threads spin for 10 ms before they sleep.
    images = -(-BETWEEN // batch_size) * batch_size
    share = -(-images // (4 * workers))  # images a task: several tasks a thread end together, even if one is held up

    def read() -> list[Future[list[Source]]]:
        return [pool.submit(_read_all, some) for some in _split(list(islice(paths, images)), share)]

    reading = read()
    while reading:
        # Threads take tasks in order, so what a task waits for here is done, or another thread is at it.
        found = _joined([pool.submit(lambda task: _decode_all(task.result(), then), task) for task in reading])
        reading = read()
        yield from _split(found, batch_size)


def _read_all(paths: Sequence[Path]) -> list[Source]:
    """The content of each file, or its path still where there is no room for it or it cannot be read."""
    room = READ_BYTES * len(paths)
    sources: list[Source] = []
    for path in paths:
        try:
            source = _content(path) if room > 0 else path
        except UnreadableImage:
            source = path  # decoding will say why
        room -= 0 if isinstance(source, Path) else source.nbytes
        sources.append(source)
    return sources


def _decode_all(sources: Sequence[Source], then: Then | None) -> Decoded:
    found: Decoded = []
    for source in sources:
        try:
            image = decode(source)
            found.append(then(image) if then else image)
        except UnreadableImage as error:
            found.append(str(error))
    return found


def _split(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _joined(tasks: list[Future[Decoded]]) -> Decoded:
    return list(chain.from_iterable(task.result() for task in tasks))


def _sorted_out(batch: Decoded, start: int) -> Batch:
    places, images, failed = [], [], {}
    for place, found in enumerate(batch, start):
        if isinstance(found, str):
            failed[place] = found
        else:
            images.append(found)
            places.append(place)
    return places, images, failed
