"""Frames through the frozen backbone into the store."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from pipeline.core.params import UserError
from pipeline.core.progress import FrameCounter
from pipeline.core.store import StoreWriter
from pipeline.core.tables import Frames
from pipeline.extraction.backbones import Backbone, pooling_words
from pipeline.extraction.forward import Forward, Pending, Rows
from pipeline.extraction.frames import SQUASH, read_batches
from pipeline.extraction.pieces import Some, Stored, rows_at
from pipeline.extraction.views import AUGMENTATION, augmentation_number

# The least cosine between what is stored and what is computed now, below which the two are different things. Another
# batch size or CPU moves a float32 feature by 1e-6, float16 storage by 1e-7; a changed resize by more than 1e-3.
SAME_COSINE = 0.9995
# Root mean square of a row below which float16, whose steps are 6e-8 down there, is off by over 1 % of its length.
FAINT = 1.7e-6


@dataclass
class Outcome:
    """What a run of ``extract`` did: numbers of frames, why each skipped one was skipped, and where the time went.

    ``faint`` counts, for each view, the rows that lose over 1 % of their length in float16. ``seconds`` is the time
    spent waiting for decoding, in the forward pass, and waiting for writing.
    """

    done_before: int
    extracted: int = 0
    vanished: int = 0
    faint: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def made_by(backbone: Backbone, frames: Frames, precision: str, views: Sequence[str]) -> dict[str, Any]:
    """What decides the numbers in a store, and so must be the same for all of them.

    ``stride`` is not in it: it says which frames are there, not what their features are, so a store of every tenth
    frame grows into one of all. Batch size, workers and device are left out too: no feature depends on them.
    """
    return {
        **backbone.facts,
        "outputs": backbone.outputs,
        "input_size": backbone.input_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "interpolation": backbone.interpolation,
        **({"fit": str(backbone.fit)} if backbone.fit != replace(SQUASH, fill=backbone.fit.fill) else {}),
        "layers": backbone.layers,
        "pooling": pooling_words(backbone.grid, backbone.token_pooling) if backbone.map_shape is None else "none",
        **({"map_shape": list(backbone.map_shape)} if backbone.map_shape is not None else {}),
        "crop_source": frames.crop_source,
        "decoder": "opencv, resized by PIL",
        "precision": precision,
        **({"scale": backbone.scale} if backbone.scale != 1 else {}),
        "views": list(views),
        **({"augmentation": AUGMENTATION} if any(map(augmentation_number, views)) else {}),
    }


def widths(backbone: Backbone, views: Sequence[str]) -> dict[str, int]:
    """Columns of each array of the store."""
    columns = dict.fromkeys(views, backbone.num_features)
    if backbone.outputs:
        columns["logits"] = len(backbone.outputs)
    return columns


def missing_frames(frames: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """The frames that the store lacks, or holds from a file of another size; in the order of the frame table."""
    there = frames.merge(
        keys.astype({"video": "str"})[["video", "frame", "size"]], on=["video", "frame", "size"], how="left",
        indicator=True,
    )  # fmt: skip
    return frames[(there["_merge"] == "left_only").to_numpy()]


def extract(
    frames: Frames,
    todo: pd.DataFrame,
    writer: StoreWriter,
    forward: Forward,
    workers: int,
    outcome: Outcome,
    source: "Callable[[Progress], Iterator[Some]] | None" = None,
    committed: Callable[[int], None] = lambda place: None,
) -> None:
    """Fills ``outcome`` while it goes, a chunk at a time, so that it is true wherever the run ends.

    Three things go on at once: decoding and resizing, two batches ahead; the forward pass; and the writing of one
    chunk. Chunks are written one after the other in the order of ``todo``, all but the last of them full.

    ``source`` gives the rows, in the order of ``todo``, where they are not, or not all, computed here; else ``here``
    does. ``committed`` is told the last place in ``todo`` of each chunk that is written.

    A frame that cannot be read is noted and left out. Raises ``UserError`` where a feature is not finite, and where
    most rows of the first chunk are too small for float16.
    """
    progress = Progress(len(todo))
    outcome.seconds = progress.seconds

    def write(keys: pd.DataFrame, rows: Rows | dict[str, Path], last: int) -> None:
        writer.write(keys, rows)
        outcome.extracted += len(keys)
        committed(last)

    source = source or (lambda progress: here(frames, todo, forward, workers, outcome, progress))
    with closing(source(progress)) as found, Behind(write) as behind:
        for places, rows in into_chunks(found, writer):
            keys = rows_at(todo, places)
            if isinstance(rows, Stored):
                add_faint(outcome, rows.piece.faint)
                rows = rows.files()
            else:
                check_rows(rows, keys, forward, outcome, first=outcome.extracted == 0)
            with progress.clock("write"):
                behind(keys, rows, int(places[-1]))
        with progress.clock("write"):
            behind.wait()
    progress.end()


def here(
    frames: Frames, todo: pd.DataFrame, forward: Forward, workers: int, outcome: Outcome, progress: "Progress",
    places: np.ndarray | None = None,
) -> Iterator[Some]:  # fmt: skip
    """Batch by batch, places in ``todo`` and their rows, computed in this process; of some ``places`` only, if given.

    What cannot be read is noted in ``outcome``.
    """
    part = todo if places is None else todo.iloc[places]
    for batch in computed(frames.root, zip(part["path"], part["video"], strict=True), forward, workers, progress):
        for place, why in batch.failed.items():
            outcome.skipped[part["path"].iloc[place]] = why
        if batch.places:
            yield (batch.places if places is None else places[batch.places]), batch.rows


@dataclass(frozen=True)
class Computed:
    """A batch: the places of its rows in the stream of frames, ``failed`` {place: why}, and the place behind it."""

    places: list[int]
    rows: Rows
    failed: dict[int, str]
    stop: int


def computed(
    root: Path, wanted: Iterable[tuple[str, str]], forward: Forward, workers: int, progress: "Progress"
) -> Iterator[Computed]:
    """Batch by batch the rows of ``wanted``, (path, video) of each frame, which are taken only as they are needed.

    A batch is waited for only when the next one is on its way: a device has always something to do.
    """
    forward.prepare()
    videos: deque[str] = deque()
    stop = 0

    def paths() -> Iterator[Path]:
        for path, video in wanted:
            videos.append(video)
            yield root / path

    before: Callable[[], Computed] | None = None
    batches = read_batches(paths(), forward.batch_size, workers, forward.resize_image)
    for places, images, failed in _timed(batches, progress):
        start, stop = stop, stop + len(places) + len(failed)
        names = [videos.popleft() for _ in range(start, stop)]
        with progress.clock("forward"):
            pending = forward.start(images, [names[place - start] for place in places]) if images else dict
            done = before() if before else None
        if done:
            yield done
        before = partial(_arrived, places, pending, failed, stop)
        progress.show(progress.done + len(places) + len(failed))
    if before:
        with progress.clock("forward"):
            done = before()
        yield done


def _arrived(places: list[int], pending: Pending, failed: dict[int, str], stop: int) -> Computed:
    return Computed(places, pending(), failed, stop)


@dataclass
class Share:
    """Frames that are computed together, and what came of them so far: ``rows`` of those whose places are ``kept``."""

    table: pd.DataFrame
    rows: Rows
    kept: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


def by_share(
    root: Path,
    tables: Iterable[pd.DataFrame],
    widths: Mapping[str, int],
    forward: Forward,
    workers: int,
    progress: "Progress",
) -> Iterator[Share]:
    """Table by table the rows of its frames. The next table is taken while the one before is computed.

    Where no other table is there at that time, ``tables`` should end: else the last frames would wait for it.
    """
    begun: deque[Share] = deque()

    def wanted() -> Iterator[tuple[str, str]]:
        for table in tables:
            begun.append(Share(table, {name: np.empty((len(table), n), np.float16) for name, n in widths.items()}))
            yield from zip(table["path"], table["video"], strict=True)

    start = 0
    for batch in computed(root, wanted(), forward, workers, progress):
        places, taken = np.array(batch.places, dtype=np.int64), 0
        while begun and start < batch.stop:
            share = begun[0]
            end = start + len(share.table)
            until = int(np.searchsorted(places, end))
            for name in share.rows if until > taken else ():
                share.rows[name][len(share.kept) : len(share.kept) + until - taken] = batch.rows[name][taken:until]
            share.kept += (places[taken:until] - start).tolist()
            share.failed |= {place - start: why for place, why in batch.failed.items() if start <= place < end}
            taken = until
            if batch.stop < end:
                break
            start = end
            begun.popleft()
            share.rows = {name: values[: len(share.kept)] for name, values in share.rows.items()}
            yield share


def into_chunks(batches: Iterable[Some], writer: StoreWriter) -> Iterator[tuple[Sequence[int], Rows | Stored]]:
    """The same rows in the same order, ``writer.chunk_rows`` at a time; fewer in the last.

    What lies on the disk and is such a chunk already is passed on as it is.
    """
    places: list[int] = []
    chunk: Rows = {}
    for more, rows in batches:
        if isinstance(rows, Stored):
            if not places and rows.is_chunk_of(writer):
                yield more, rows
                continue
            rows = rows.read()
        taken = 0
        while taken < len(more):
            if not places:
                chunk = {name: np.empty((writer.chunk_rows, n), np.float16) for name, n in writer.widths.items()}
            filled = len(places)
            places.extend(more[taken : taken + writer.chunk_rows - filled])
            for name, values in chunk.items():
                values[filled : len(places)] = rows[name][taken : taken + len(places) - filled]
            taken += len(places) - filled
            if len(places) == writer.chunk_rows:
                yield places, chunk
                places, chunk = [], {}
    if places:
        yield places, {name: values[: len(places)] for name, values in chunk.items()}


class Behind:
    """Calls ``write`` in a thread of its own, in order, with at most one call under way.

    Handing over the next one waits for the one before, and raises what that raised. Leaving waits too, so that nothing
    is cut off by an error elsewhere.
    """

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def __call__(self, *args: Any) -> None:
        self.wait()
        self._under_way = self._thread.submit(self._write, *args)

    def wait(self) -> None:
        """Raises what the call under way raises; ``extract`` ends with it."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()


def least_cosine_to_stored(frames: Frames, done: pd.DataFrame, stored: np.ndarray, forward: Forward) -> float | None:
    """The least cosine between ``stored`` features and the same frames computed now; None where none can be read.

    It is NaN where a stored feature is not finite.

    ``made_by`` says what should have made the store; this shows that it still would. ``done`` has the frames' paths.
    """
    places, now = first_features(frames, done, forward)
    if not places:
        return None
    old, new = stored[places].astype(np.float32), now.astype(np.float32)
    with np.errstate(invalid="ignore"):
        cosine = (old * new).sum(1) / np.maximum(np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1), 1e-12)
    return float(np.where((old == new).all(1), 1.0, cosine).min())  # of two rows of zeros, too


def first_features(frames: Frames, table: pd.DataFrame, forward: Forward) -> tuple[list[int], np.ndarray | None]:
    """The places in ``table`` of what can be read of its first batch, and the features (n, D); None for no places."""
    paths = (frames.root / path for path in table["path"])
    places, images, _ = next(read_batches(paths, forward.batch_size, 1, forward.resize_image))
    return places, forward(images, table["video"].iloc[places].tolist())["original"] if images else None


def add_faint(outcome: Outcome, faint: Mapping[str, int]) -> None:
    """Adds numbers of faint rows to those of the outcome."""
    for name, count in faint.items():
        outcome.faint[name] = outcome.faint.get(name, 0) + count


def check_rows(
    rows: Mapping[str, np.ndarray], keys: pd.DataFrame, forward: Forward, outcome: Outcome, first: bool
) -> None:
    """Counts the rows of a chunk that float16 is too coarse for.

    Raises ``UserError`` for values that are not finite, and where most rows of the ``first`` chunk are too small.
    """
    for name, values in rows.items():
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            some = keys.loc[bad, "path"].head(3).tolist()
            way_out = _way_out(bool(np.isnan(values).any()), name, forward)
            raise UserError(f"{int(bad.sum())} rows of '{name}' are not finite, such as {some}: {way_out}")
        if name.endswith("logits"):  # of several stores at once, "1/logits"
            continue
        in_half = forward.backbone.scale if forward.dtype == torch.float16 else 1.0  # lost before they were multiplied
        faint = int((np.sqrt(np.square(values, dtype=np.float32).mean(axis=1)) < FAINT * in_half).sum())
        add_faint(outcome, {name: faint})
        if first and 2 * faint > len(values):
            raise UserError(
                f"{faint:,} of the first {len(values):,} rows of '{name}' lose over 1 % of their length in the store's "
                f"float16 (the largest value is {np.abs(values).max():.1e}): {_scaled(forward.backbone.scale * 1e6)}"
            )


def _way_out(is_nan: bool, name: str, forward: Forward) -> str:
    if forward.dtype == torch.float16:
        return "try --precision float32"
    if is_nan:
        return "the backbone itself gives NaN in float32: its weights or its input size are not right"
    if name.endswith("logits"):
        return "they are beyond 65,504, the most that the store's float16 can say"
    return f"they are beyond 65,504, the most that the store's float16 can say: {_scaled(forward.backbone.scale / 100)}"


def _scaled(factor: float) -> str:
    return f"give --scale {factor:g} or so (or scale in params.yaml), which multiplies features and changes no cosine"


class Progress(FrameCounter):
    """Frames done, frames a second, time left and where the time goes, on a terminal.

    The shares are those of the time in which the loop waited for decoding (reading and resizing included), ran the
    forward pass or waited for writing. What is hidden behind something else does not count. The largest is the one to
    make faster.
    """

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.seconds = {"decode": 0.0, "forward": 0.0, "write": 0.0}
        self.workers = ""  # what there is to say of other processes that compute, instead of the shares

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Counts the time inside as that of ``what``."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] += time.monotonic() - start

    def details(self, elapsed: float) -> str:
        if self.workers:
            return f" ({self.workers})"
        shares = (f"{what} {100 * s / max(elapsed, 1e-9):.0f} %" for what, s in self.seconds.items())
        return f" ({', '.join(shares)})"


def _timed(batches: Iterator, progress: Progress) -> Iterator:
    """The same batches; the time spent waiting for one counts as decoding."""
    while True:
        with progress.clock("decode"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
