"""What a trained adapter makes of each frame, by the windows that hold it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from pipeline.adapter.adapter import Adapter, Source
from pipeline.adapter.windows import Windows

BLOCK = 65_536  # frames whose windows are in memory at a time
BATCH = 65_536  # frames that the head gets at a time, in overlapping windows
PAIR_INPUTS = 2**20  # values that a head for pairs compares at a time, as many a pair as a side has: 4 MB a tensor
MOST_THREADS = 8
WINDOW_STRIDE = "fewer windows, so many frames apart; default: one centred on each frame"


class Some:
    """Inputs of the head for some of N frames, by their numbers among all N.

    ``kept`` (k,) are the numbers of the frames that ``source`` holds. Evaluation needs few of the training frames, and
    reading them all would take most of its memory.
    """

    def __init__(self, source: Source, kept: np.ndarray, num_frames: int) -> None:
        self._source, self._kept, self._num_frames = source, kept, num_frames
        self._place: torch.Tensor | None = None

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """As ``InMemory.take``."""
        return self._source.take(self._places(rows))

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``InMemory.gather``."""
        return self._source.gather(torch.where(rows >= 0, self._places(rows.clamp(min=0), rows >= 0), -1))

    def _places(self, rows: torch.Tensor, needed: torch.Tensor | bool = True) -> torch.Tensor:
        if self._place is None:
            place = np.full(self._num_frames, -1)
            place[self._kept] = np.arange(len(self._kept))
            self._place = torch.from_numpy(place).to(rows.device)
        places = self._place[rows]
        assert not ((places < 0) & needed).any(), "a frame that is not kept"
        return places


def per_frame(
    adapter: Adapter, source: Source, windows: Windows, rows: np.ndarray, stride: int | None, device: torch.device
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Embeddings (m, E) float32 of the frames ``rows`` (m,), ascending, and what the adapter predicts of them.

    Predictions are float64: probabilities of 'classes' (m, C) and 'aus' (m, A), values of 'va' (m, 2). ``source`` has
    all N frames, and ``windows`` are theirs, by the adapter's window. The adapter is on the device.

    Without a ``stride`` the embedding of a frame is that of the window centred on it, as in training. With a stride
    there are fewer windows, so many steps apart, or as many as they are wide where that is less. Where the adapter
    gives one embedding a window (a head that pools, or pooling 'mean' or 'hann'), windows are centred on frames so far
    apart and on the last frame of a video. A frame between two of them lies on the straight line between their
    embeddings, and so do its predictions: a mean over all windows that hold a frame would be a second mean in time.
    Where the adapter gives one embedding for each frame, a frame's is the mean of its own over all windows that hold
    it. A ``framewise`` head sees each frame once in any case, so that the stride makes no difference.
    """
    if adapter.head.framewise:
        stride = None
    by_frame = not adapter.head.pools and adapter.facts["pooling"] == "centre"
    parts = []
    for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
        if stride is None:
            z = adapter.embed(source, torch.from_numpy(windows.centred(block)).to(device))
            parts.append((z, predictions(adapter, z)))
        else:
            several = _over_windows if by_frame else _between_windows
            parts.append(several(adapter, source, windows, block, min(stride, windows.num_frames), device))
    predicted = {what: np.concatenate([p[what].cpu().numpy() for _, p in parts]) for what in adapter.predicts}
    return np.concatenate([z.cpu().numpy() for z, _ in parts]), predicted


def predictions(adapter: Adapter, z: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is predicted of embeddings (n, E), float64: probabilities of classes and action units, else values."""
    with torch.inference_mode():
        return {what: as_values(what, adapter.predict(what, z).double()) for what in adapter.predicts}


def as_values(what: str, predicted: torch.Tensor) -> torch.Tensor:
    """Probabilities of what an adapter predicts as logits (n, C): of classes they sum to 1; of values themselves."""
    if what == "classes":
        return predicted.softmax(dim=1)
    return predicted.sigmoid() if what == "aus" else predicted


def judge(
    adapter: Adapter, source: Source, windows: Windows, rows: np.ndarray, device: torch.device
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of numbers a (r,) and b (c,) into ``rows`` (m,): the logits (r, c) float32 of a head for pairs.

    A logit says how likely the windows centred on frame a and on frame b show the same. ``source`` and ``windows`` are
    as for ``per_frame``.
    """
    adapter.head.eval()
    with torch.inference_mode():
        around = torch.from_numpy(windows.centred(rows)).to(device)
        parts = around.split(max(1, BATCH // windows.num_frames))
        sides = [
            torch.cat(values) for values in zip(*(adapter.head.side(*source.gather(p)) for p in parts), strict=True)
        ]

    at_once = max(1, PAIR_INPUTS // sides[0][0].numel()) if len(rows) else 1

    def judged(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return adapter.head.judge(*(x[first] for x in sides), *(x[second] for x in sides))

    def logits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pairs = (torch.from_numpy(x.ravel()).to(device) for x in np.broadcast_arrays(a[:, None], b[None, :]))
        with _a_thread_each(device) as each:
            return (
                torch.cat(list(each(judged, *(x.split(at_once) for x in pairs)))).cpu().numpy().reshape(len(a), len(b))
            )

    return logits


@contextmanager
def _a_thread_each(device: torch.device) -> Iterator[Callable]:
    """``map``; on a CPU by a thread a core with products of one thread each, which for short work is twice as fast."""
    if device.type != "cpu":
        yield map
        return
    before = torch.get_num_threads()
    try:
        initializer = partial(torch.set_num_threads, 1)
        with ThreadPoolExecutor(min(before, MOST_THREADS), initializer=initializer) as threads:
            yield threads.map
    finally:
        torch.set_num_threads(before)


def _between_windows(
    adapter: Adapter, source: Source, windows: Windows, rows: np.ndarray, stride: int, device: torch.device
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Embeddings (m, E) and predictions (m, .) of each of ``rows``, on the line between the windows next to it."""
    video, number = windows.video, windows.number
    new = np.diff(video, prepend=-1) != 0
    centres = np.flatnonzero(new | np.append(new[1:], True) | (np.diff(windows.every(stride), prepend=-1) != 0))
    before, after = np.searchsorted(centres, rows, side="right") - 1, np.searchsorted(centres, rows)
    used, at = np.unique(np.stack([before, after]), return_inverse=True)
    at = at.reshape(2, -1)
    before, after = torch.from_numpy(at).to(device)
    z = adapter.embed(source, torch.from_numpy(windows.centred(centres[used])).to(device))
    low, high = number[centres[used]][at]
    share = torch.from_numpy((number[rows] - low) / np.maximum(high - low, 1))[:, None].to(device)

    def between(values: torch.Tensor) -> torch.Tensor:
        return torch.lerp(values[before], values[after], share.to(values.dtype))

    return between(z), {what: between(values) for what, values in predictions(adapter, z).items()}


def _over_windows(
    adapter: Adapter, source: Source, windows: Windows, rows: np.ndarray, stride: int, device: torch.device
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Means (m, E) and (m, C) of a frame's own over all windows that hold it; windows of one block of rows alone."""
    if len(rows) == 0:
        z = adapter.embed(source, torch.empty((0, 1), dtype=torch.int64, device=device))
        return z, predictions(adapter, z)
    around, inside = windows.sliding(rows, stride)
    # Places in ``rows`` (W, T): -1 where a frame is missing, of another block, or stands beyond the end of its video.
    place = np.searchsorted(rows, around).clip(max=len(rows) - 1)
    place[~inside | (rows[place] != around)] = -1
    total: dict[str, torch.Tensor] = {}
    count = torch.zeros(len(rows), 1, dtype=torch.float64, device=device)
    num_parts = -(-around.size // BATCH)
    for some, place_of_some in zip(np.array_split(around, num_parts), np.array_split(place, num_parts), strict=True):
        here = torch.from_numpy(place_of_some).to(device)
        held = here >= 0
        at = here[held]
        count.index_add_(0, at, torch.ones(len(at), 1, dtype=torch.float64, device=device))
        z = adapter.embed_frames(source, torch.from_numpy(some).to(device))[held]
        for name, values in ({"z": z} | predictions(adapter, z)).items():
            total.setdefault(name, torch.zeros(len(rows), values.shape[1], dtype=values.dtype, device=device))
            total[name].index_add_(0, at, values)
    means = {name: values / count.to(values.dtype) for name, values in total.items()}
    return means.pop("z"), means
