"""What a backbone that is trained takes in: frames decoded from their files, or stored maps."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.frame_set import FrameSet, rows_of
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, differences
from pipeline.core.tables import Frames
from pipeline.extraction.backbones import Backbone
from pipeline.extraction.frames import UnreadableImage, decode, middle_of, resize_image, stacked
from pipeline.extraction.views import Change, apply, change

LET_GO = 1 << 30  # bytes of maps that are read before the memory that they were mapped into is given back


class Inputs(Protocol):
    """Where frames come from, by their numbers in a frame set."""

    def read(self, rows: NDArray, changes: Sequence[Change] | None = None) -> torch.Tensor:
        """What the network takes in of the frames ``rows`` (n,), each changed as ``changes`` says, where given."""


def drawn_change(seed: int, epoch: int, batch: int, window: int) -> Change:
    """How the frames of a window are changed: the same for all of them, and a pure function of these numbers."""
    return change(f"{seed}/{epoch}/{batch}/{window}", 0)


class Pixels:
    """Frames (n, 3, S, S) uint8, decoded and resized as extraction does, by ``workers`` threads.

    ``paths`` (N,) are the files of a frame set below ``root``. ``share`` is the middle of each image that is taken.
    """

    def __init__(self, root: Path, paths: Sequence[str], backbone: Backbone, share: float = 1.0, workers: int = 0):
        self.root, self.paths, self.backbone, self.share = root, paths, backbone, share
        self._threads = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="decode")

    def read(self, rows: NDArray, changes: Sequence[Change] | None = None) -> torch.Tensor:
        images = self._threads.map(self._image, rows.tolist(), changes or [None] * len(rows))
        return stacked(list(images))

    def _image(self, row: int, how: Change | None) -> np.ndarray:
        path = self.root / self.paths[row]
        try:
            image = middle_of(decode(path), self.share)
        except UnreadableImage as error:
            raise UserError(f"{path} cannot be read any more: {error}. Extract again, which leaves it out") from None
        of = self.backbone
        image = resize_image(image, of.input_size, of.interpolation, of.fit)
        return image if how is None else apply(how, image)


class Maps:
    """Maps (n, C, h, w) float16 of ``store``, read by memory mapping; ``rows_in_store`` (N,) of a frame set."""

    def __init__(self, store: FeatureStore, rows_in_store: NDArray) -> None:
        self.store, self._rows, self._read = store, rows_in_store, 0

    def read(self, rows: NDArray, changes: Sequence[Change] | None = None) -> torch.Tensor:
        stored = self._rows[rows]
        found = self.store.read(stored)
        self._read += found.nbytes
        if self._read > LET_GO:
            self.store.let_go(self._rows)
            self._read = 0
        return torch.from_numpy(found.reshape(len(found), *self.store.map_shape))


def open_pixels(frames: FrameSet, table: Frames, made_by: dict[str, Any], backbone: Backbone) -> Pixels:
    """The files of a frame set by the frame table. Raises ``UserError`` for frames of another crop source."""
    cut = re.fullmatch(r"(.*), middle (\S+)", made_by["crop_source"])
    source, share = (cut[1], float(cut[2])) if cut else (made_by["crop_source"], 1.0)
    if source != table.crop_source:
        raise UserError(
            f"the store's features are of '{source}', and the frames of the frame table '{table.crop_source}'"
        )
    path = table.table.set_index(["video", "frame"])["path"]
    names = np.array(frames.videos, dtype=object)[frames.video]
    paths = path.reindex(list(zip(names, frames.frame, strict=True)))
    if paths.isna().any():
        raise UserError(f"{int(paths.isna().sum()):,} of {len(paths):,} frames are not in the frame table")
    return Pixels(table.root, paths.tolist(), backbone, share)


def open_maps(path: Path, frames: FrameSet, made_by: dict[str, Any], cut: str) -> Maps:
    """The maps of a frame set at ``cut``. Raises ``UserError`` for maps of other images, another backbone or cut."""
    store = FeatureStore(path)
    if store.map_shape is None:
        raise UserError(f"{path} holds features, not maps: make maps with 'python extract.py --maps {cut}'")
    if store.made_by["layers"] != [f"input of {cut}"]:
        raise UserError(
            f"{path} holds the {store.made_by['layers'][0]}, and {cut} is the first stage that is trained: make its "
            f"maps with 'python extract.py --maps {cut}', or train another number of stages"
        )
    ours = ("layers", "pooling", "map_shape", "outputs", "scale", "views", "augmentation")
    plain = [{k: v for k, v in of.items() if k not in ours} for of in (store.made_by, made_by)]
    if other := differences(*plain):
        raise UserError(f"the maps {path} and the features are of two makings: {other}")
    rows = rows_of(store, frames)
    if (rows < 0).any():
        raise UserError(
            f"{int((rows < 0).sum()):,} of {len(rows):,} frames have no map in {path}: add them with "
            f"'python extract.py --maps {cut}'"
        )
    return Maps(store, rows)
