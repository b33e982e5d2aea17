"""Image files to batches of pixels."""

import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse
import torch
from PIL import Image

cv2.setNumThreads(1)  # the threads are ours: one image a thread
CPU = torch.device("cpu")
AHEAD = 2  # batches that are being decoded, or wait to be taken, besides the one that was taken last
MOST_SIDE = 2048  # pixels of an image that is resized by our own product; floats of more would take much room
_COEFFICIENT = 2.0**22  # PIL's weights are whole multiples of 1 / this
_HALF_UP = 2.0**-15  # added before rounding, so that what lies in the middle goes up, as PIL's does


@dataclass(frozen=True)
class Fit:
    """How an image of any shape becomes ``size`` x ``size`` pixels; ``way`` is one of ``FITS``.

    The image is resized so that with 'squash' both sides have ``size / crop_pct`` pixels, with 'crop' the short side,
    with 'pad' the long one. Then its middle is cut out; where it is too small it gets a border of the colour ``fill``.
    These are timm's crop modes 'squash', 'center' and 'border', with the same rounding. With ``crop_pct`` 1 'squash'
    and 'pad' lose nothing.
    """

    way: str = "squash"
    crop_pct: float = 1.0
    fill: tuple[int, int, int] = (0, 0, 0)

    def __str__(self) -> str:
        return f"{self.way} {self.crop_pct:g}"

    def resized(self, height: int, width: int, size: int) -> tuple[int, int]:
        """Height and width that the image is resized to, before its middle is cut out."""
        side = math.floor(size / self.crop_pct)
        if self.way == "squash":
            return side, side
        if self.way == "crop":
            return tuple(int(side * x / min(height, width)) for x in (height, width))
        return tuple(max(1, round(x / (max(height, width) / side))) for x in (height, width))


FITS = ("squash", "crop", "pad")
SQUASH = Fit()


class UnreadableImage(Exception):
    """Why an image file could not be read."""


def decode(path: Path) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, turned upright as its EXIF says; grey and CMYK become RGB, 16 bit become 8.

    Raises ``UnreadableImage`` with the reason.
    """
    return decode_bytes(_content(path))


def decode_bytes(content: bytes) -> np.ndarray:
    """The same of what an image file holds."""
    if not content:
        raise UnreadableImage("the file is empty")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        large = "MAX_IMAGE" in str(error)  # OpenCV allocates nothing above 2^30 pixels, or 2^20 in width or height
        raise UnreadableImage("claims to be too large" if large else f"cannot be decoded: {error.err}") from None
    if image is None:
        raise UnreadableImage("not an image, or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # cv2.imread cannot open every name on every system
            return file.read()
    except OSError as error:
        raise UnreadableImage(error.strerror or type(error).__name__) from None


def resize_image(image: np.ndarray, size: int, interpolation: str, fit: Fit = SQUASH) -> np.ndarray:
    """An image (H, W, 3) uint8 as (size, size, 3), resized as by PIL ('bilinear', 'bicubic' or 'lanczos').

    With PIL's own weights, and rounded to bytes between the two directions as there, but as a product of a sparse
    matrix with all columns of a line at once: a third of PIL's time (112 to 224 pixels, bicubic: 0.14 ms for 0.39). A
    value may be one grey level off where PIL's falls in the middle of two. Some images that become lower are resized
    downwards first by PIL 13: all of those, and very large ones, are left to PIL.

    Nothing less like PIL's will do: the other order of directions differs by one grey level in one value of seven, and
    moved the features of photographs (tf_efficientnet_lite0, 112 pixels) to a cosine of 0.9985; so did torch's resize
    of bytes, with up to 4 grey levels in one value of a hundred.
    """
    height, width = image.shape[:2]
    rows, columns = fit.resized(height, width, size)
    (top, bottom), (left, right) = _middle(rows, size), _middle(columns, size)
    if (height, width) == (rows, columns):
        image = image[top:bottom, left:right]
    elif height > max(width, rows) or max(height, width) > MOST_SIDE:
        whole = Image.fromarray(image).resize((columns, rows), Image.Resampling[interpolation.upper()])
        image = np.asarray(whole)[top:bottom, left:right]
    else:
        across = _mix(_weights(width, columns, left, right, interpolation), cv2.transpose(image))
        image = _mix(_weights(height, rows, top, bottom, interpolation), cv2.transpose(across))
    return image if image.shape[:2] == (size, size) else _bordered(image, size, fit.fill)


def middle_of(image: np.ndarray, share: float) -> np.ndarray:
    """The middle of an image (H, W, 3): a ``share`` of its height and of its width, a pixel at least."""
    if share == 1:
        return image
    (top, bottom), (left, right) = (_middle(n, max(1, round(n * share))) for n in image.shape[:2])
    return image[top:bottom, left:right]


def _middle(length: int, size: int) -> tuple[int, int]:
    """Begin and end of the ``size`` lines in the middle of ``length``, or of all where they are fewer."""
    start = round((length - size) / 2) if length > size else 0
    return start, min(start + size, length)


def _bordered(image: np.ndarray, size: int, fill: tuple[int, int, int]) -> np.ndarray:
    out = np.empty((size, size, 3), np.uint8)
    out[:] = fill
    top, left = (size - image.shape[0]) // 2, (size - image.shape[1]) // 2
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


@functools.lru_cache(1024)
def _weights(before: int, after: int, start: int, stop: int, interpolation: str) -> scipy.sparse.csr_array:
    """(stop - start, before) float32: how much of each old line is in each new one, which PIL shows by resizing points.

    ``start`` to ``stop`` are those of the ``after`` new lines that are wanted.
    """
    points = Image.fromarray(np.eye(before, dtype=np.float32))
    shares = np.asarray(points.resize((after, before), Image.Resampling[interpolation.upper()]), np.float64).T
    return scipy.sparse.csr_array(np.rint(shares[start:stop] * _COEFFICIENT) / _COEFFICIENT).astype(np.float32)


def _mix(weights: scipy.sparse.csr_array, lines: np.ndarray) -> np.ndarray:
    """Lines (before, n, 3) uint8 as (after, n, 3)."""
    mixed = weights @ lines.reshape(len(lines), -1).astype(np.float32)
    return cv2.add(mixed, _HALF_UP, dtype=cv2.CV_8U).reshape(len(mixed), -1, 3)  # rounds, and stays in 0 to 255


def stacked(images: Sequence[np.ndarray], device: torch.device = CPU) -> torch.Tensor:
    """Images (S, S, 3) uint8 as a (B, 3, S, S) tensor on ``device``, in channels-last memory.

    To a CUDA device they go through page-locked memory, and nothing is waited for.
    """
    batch = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(images, out=batch.numpy())
    return batch.to(device, non_blocking=True).permute(0, 3, 1, 2)


Batch = tuple[list[int], list[np.ndarray], dict[int, str]]  # places in the paths, images, {place: why it failed}
Then = Callable[[np.ndarray], np.ndarray]
Decoded = list[np.ndarray | str]  # the image of each file, or why there is none


def read_batches(paths: Iterable[Path], batch_size: int, workers: int, then: Then | None = None) -> Iterator[Batch]:
    """Batches of decoded images: (places in ``paths``, images, {place: why it failed}).

    A batch covers ``batch_size`` consecutive paths; what could not be read is missing from its images. ``paths`` are
    taken only as they are needed. ``then`` is done to each image by the thread that decoded it. Two batches are decoded
    ahead, beside what the caller does with the one before.
    """
    rest, start = iter(paths), 0
    share = -(-batch_size // workers)  # images a task: one task each would cost more than a small image
    ahead: deque[list[Future[Decoded]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(ahead) < AHEAD and (batch := list(islice(rest, batch_size))):
                    some = [batch[i : i + share] for i in range(0, len(batch), share)]
                    ahead.append([pool.submit(_decode_all, part, then) for part in some])
                if not ahead:
                    return
                found = list(chain.from_iterable(task.result() for task in ahead.popleft()))
                yield _sorted_out(found, start)
                start += len(found)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_all(paths: Sequence[Path], then: Then | None) -> Decoded:
    found: Decoded = []
    for path in paths:
        try:
            image = decode(path)
            found.append(then(image) if then else image)
        except UnreadableImage as error:
            found.append(str(error))
    return found


def _sorted_out(batch: Decoded, start: int) -> Batch:
    places, images, failed = [], [], {}
    for place, found in enumerate(batch, start):
        if isinstance(found, str):
            failed[place] = found
        else:
            images.append(found)
            places.append(place)
    return places, images, failed
