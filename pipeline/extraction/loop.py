"""Frames through the frozen backbone into the store."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.extraction.backbones import Backbone
from pipeline.extraction.frames import read_batches, resize
from pipeline.params import UserError
from pipeline.store import StoreWriter
from pipeline.tables import Frames

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The least cosine between what is stored and what is computed now, below which the two are different things. Another
# batch size or CPU moves a float32 feature by 1e-6, float16 storage by 1e-7; a changed resize by more than 1e-3.
SAME_COSINE = 0.9995


@dataclass
class Outcome:
    """What a run of ``extract`` did: numbers of frames, and why each skipped one was skipped."""

    done_before: int
    extracted: int = 0
    vanished: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def made_by(backbone: Backbone, frames: Frames, precision: str, data_aug: bool) -> dict[str, Any]:
    """What decides the numbers in a store, and so must be the same for all of them."""
    return {
        **backbone.facts,
        "outputs": backbone.outputs,
        "input_size": backbone.input_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "interpolation": backbone.interpolation,
        "pooling": "average of the last layer",
        "crop_source": frames.crop_source,
        "decoder": "opencv, antialiased resize",
        "precision": precision,
        "views": ["original", "flipped"] if data_aug else ["original"],
    }


def widths(backbone: Backbone, data_aug: bool) -> dict[str, int]:
    """Columns of each array of the store."""
    columns = {"original": backbone.num_features}
    if data_aug:
        columns["flipped"] = backbone.num_features
    if backbone.outputs:
        columns["logits"] = len(backbone.outputs)
    return columns


def pending(frames: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """The frames that the store lacks, or holds from a file of another size; in the order of the frame table."""
    there = frames.merge(
        keys.astype({"video": "str"})[["video", "frame", "size"]], on=["video", "frame", "size"], how="left",
        indicator=True,
    )  # fmt: skip
    return frames[(there["_merge"] == "left_only").to_numpy()]


class Forward:
    """Images (H, W, 3) -> rows of every array of the store, in float16.

    Batches are padded to ``batch_size``, so that the last one is computed as all the others are.
    """

    def __init__(
        self, backbone: Backbone, batch_size: int, precision: str, data_aug: bool, device: torch.device
    ) -> None:
        self.backbone, self.batch_size, self.device, self.data_aug = backbone, batch_size, device, data_aug
        self.dtype = PRECISIONS[precision]
        self.module = backbone.module.to(device, memory_format=torch.channels_last)
        self.mean = torch.tensor(backbone.mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(backbone.std, device=device).view(1, 3, 1, 1) * 255

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> dict[str, np.ndarray]:
        pixels = resize(images, self.backbone.input_size, self.backbone.interpolation)
        if len(images) < self.batch_size:
            blank = torch.zeros((self.batch_size - len(images), *pixels.shape[1:]), dtype=torch.uint8)
            pixels = torch.cat([pixels, blank]).contiguous(memory_format=torch.channels_last)
        x = pixels.to(self.device, non_blocking=True).float().sub_(self.mean).div_(self.std)
        features, logits = self._run(x)
        rows = {"original": features}
        if logits is not None:
            rows["logits"] = logits
        if self.data_aug:
            rows["flipped"] = self._run(x.flip(3))[0]
        return {name: row[: len(images)].half().cpu().numpy() for name, row in rows.items()}

    def _run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return self.module(x)


def extract(
    frames: Frames, todo: pd.DataFrame, writer: StoreWriter, forward: Forward, workers: int, outcome: Outcome
) -> None:
    """Fills ``outcome`` while it goes, a chunk at a time, so that it is true wherever the run ends.

    A frame that cannot be read is noted and left out. Raises ``UserError`` where a feature is not finite.
    """
    show = Progress(len(todo))
    for start in range(0, len(todo), writer.chunk_rows):
        chunk = todo.iloc[start : start + writer.chunk_rows]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in writer.widths}
        kept: list[int] = []
        for places, images, failed in _timed(_batches(frames, chunk, forward.batch_size, workers), show):
            for place, why in failed.items():
                outcome.skipped[chunk["path"].iloc[place]] = why
            if images:
                with show.clock("forward"):
                    for name, rows in forward(images).items():
                        parts[name].append(rows)
                kept += places
            show.step(len(images) + len(failed))
        if not kept:
            continue
        rows = {name: np.concatenate(part) for name, part in parts.items()}
        _check_finite(rows, chunk.iloc[kept])
        with show.clock("write"):
            writer.write(chunk.iloc[kept], rows)
        outcome.extracted += len(kept)
    show.end()


def check_same(frames: Frames, done: pd.DataFrame, stored: np.ndarray, forward: Forward) -> float | None:
    """The least cosine between ``stored`` features and the same frames computed now; None where none can be read.

    ``made_by`` says what should have made the store; this shows that it still would. ``done`` has the frames' paths.
    """
    places, images, _ = next(_batches(frames, done, forward.batch_size, 1))
    if not images:
        return None
    old, new = stored[places].astype(np.float32), forward(images)["original"].astype(np.float32)
    cosine = (old * new).sum(1) / np.maximum(np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1), 1e-12)
    return float(cosine.min())


def _batches(
    frames: Frames, chunk: pd.DataFrame, batch_size: int, workers: int
) -> Iterator[tuple[list[int], list[np.ndarray], dict[int, str]]]:
    return read_batches([frames.root / p for p in chunk["path"]], batch_size, workers)


def _check_finite(rows: Mapping[str, np.ndarray], keys: pd.DataFrame) -> None:
    for name, values in rows.items():
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            some = keys.loc[bad, "path"].head(3).tolist()
            raise UserError(
                f"{int(bad.sum())} rows of '{name}' are not finite, such as {some}: try --precision float32"
            )


class Progress:
    """One line on a terminal: frames done, frames a second, time left and where the time goes; else silent."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.started, self.shown = total, 0, time.monotonic(), 0.0
        self.seconds = {"decode": 0.0, "forward": 0.0, "write": 0.0}
        self.live = sys.stderr.isatty()

    def clock(self, what: str) -> "_Clock":
        return _Clock(lambda seconds: self.seconds.__setitem__(what, self.seconds[what] + seconds))

    def step(self, frames: int) -> None:
        self.done += frames
        now = time.monotonic()
        if self.live and now - self.shown > 0.5:
            self.shown = now
            print(f"\r{self.line(now - self.started)}", end="", file=sys.stderr, flush=True)

    def line(self, elapsed: float) -> str:
        rate = self.done / max(elapsed, 1e-9)
        left = int((self.total - self.done) / max(rate, 1e-9))
        shares = ", ".join(f"{what} {100 * s / max(elapsed, 1e-9):.0f} %" for what, s in self.seconds.items())
        clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return f"{self.done:,} of {self.total:,} frames, {rate:,.0f} frames/s, {clock} ({shares})  "

    def end(self) -> None:
        if self.live:
            print(f"\r{self.line(time.monotonic() - self.started)}", file=sys.stderr)


class _Clock:
    def __init__(self, add: Callable[[float], None]) -> None:
        self.add = add

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.add(time.monotonic() - self.start)


def _timed(batches: Iterator, show: Progress) -> Iterator:
    """The same batches; the time spent waiting for one counts as decoding."""
    while True:
        with show.clock("decode"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
