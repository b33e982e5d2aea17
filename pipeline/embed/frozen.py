"""The frozen backbone of a run: pictures to the features that it was trained on."""

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core.params import UserError
from pipeline.core.store import vouched_for
from pipeline.core.tables import Frames
from pipeline.extraction import loop
from pipeline.extraction.backbones import Backbone, load_backbone, pooling_of
from pipeline.extraction.forward import Forward

BATCH = 16  # pictures at a time, as extract.py has by default
# Of what made a store, what is needed to make its features of pictures again.
NEEDED = ("backbone", "weights_sha256", "input_size", "layers", "pooling", "precision", "views", "crop_source")


class Frozen:
    """Pictures (H, W, 3) uint8 RGB -> features (n, D) float16, as they are in the store that the run was trained on.

    ``made_by`` is what made that store, ``weights`` the backbone's file. Loaded when it is first used. Fewer pictures
    than ``batch_size`` cost as much as so many: 1 is for pictures that come one by one. ``frames`` are how many
    pictures there will be: many of them are worth the seconds that it takes to prepare a faster way (``Forward``).
    """

    def __init__(
        self, run: Path, made_by: dict[str, Any], weights: Path | None, device: torch.device,
        alike: Collection[str] = (), batch_size: int = BATCH, frames: int = 0,
    ) -> None:  # fmt: skip
        self.run, self.made_by, self.weights, self.device = run, made_by, weights, device
        self.alike, self.batch_size, self.frames = alike, batch_size, frames

    def check(self, crop_source: str) -> str:
        """What the user vouches for (``store.vouched_for``) of pictures of this ``crop_source``; '' for nothing.

        Raises ``UserError`` where they would give other features than the run was trained on: other weights, other
        pictures.
        """
        none_listed = Frames(pd.DataFrame(), Path(), "", crop_source)
        now = loop.made_by(self.backbone, none_listed, self.made_by["precision"], self.made_by["views"])
        refusal = f"the run {self.run} was trained on other features than these pictures and {self.weights} give"
        return vouched_for(refusal, self.made_by, now, self.alike)

    @cached_property
    def backbone(self) -> Backbone:
        """Raises ``UserError`` where the file of its weights is gone, damaged or no such file."""
        if self.weights is None or not set(NEEDED) <= self.made_by.keys():
            raise UserError(
                f"the features that the run {self.run} was trained on were imported: no backbone is known that makes "
                "them from pictures, so give it features"
            )
        if not self.weights.is_file():
            raise UserError(
                f"the weights of the backbone are not at {self.weights}: make that file again with 'python -m "
                f"pipeline.extraction.weights --backbone {self.made_by['backbone']}', or name it with weights=FILE"
            )
        made_by = self.made_by
        grid, token_pooling = pooling_of(made_by["pooling"])
        way, crop_pct = made_by.get("fit", "squash 1").split()
        backbone = load_backbone(
            self.weights, made_by["input_size"], made_by["layers"], grid, made_by.get("scale", 1.0), token_pooling
        )
        return backbone.fitted(way, float(crop_pct), made_by["crop_source"])

    @cached_property
    def forward(self) -> Forward:
        precision = self.made_by["precision"]
        forward = Forward(self.backbone, self.batch_size, precision, ["original"], self.device, self.frames)
        if self.frames:
            forward.prepare()
        return forward

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Features of pictures of any size. Raises ``UserError`` where some are not finite."""
        resized = [self.forward.resize_image(picture) for picture in pictures]
        size = self.forward.batch_size  # a way that was prepared may take more at a time
        parts = [resized[i : i + size] for i in range(0, len(resized), size)]
        rows = [self.forward(part, [""] * len(part))["original"] for part in parts]
        features = np.concatenate(rows) if rows else np.empty((0, self.backbone.num_features), np.float16)
        if not np.isfinite(features).all():
            raise UserError(f"the backbone {self.made_by['backbone']} gives features that are not finite")
        return features


class FrozenTogether:
    """The frozen backbones of several stores: pictures to the features of all side by side, as a ``Frozen``.

    ``each`` is by the name of the store. They must be backbones of pictures of one cut.
    """

    def __init__(self, run: Path, each: dict[str, Frozen]) -> None:
        self.run, self.each = run, each
        self.batch_size = max(frozen.batch_size for frozen in each.values())

    def check(self, crop_source: str) -> str:
        """As ``Frozen.check``; raises ``UserError`` too where pictures cannot give the features of each store."""
        trained = f"the run {self.run} was trained on the stores {', '.join(self.each)} side by side"
        unknown = [n for n, f in self.each.items() if f.weights is None or not set(NEEDED) <= f.made_by.keys()]
        if unknown:
            raise UserError(
                f"{trained}, and no backbone is known that makes those of {', '.join(unknown)} from pictures: give it "
                "the features of all"
            )
        cuts = {name: frozen.made_by["crop_source"] for name, frozen in self.each.items()}
        if len({*cuts.values()}) > 1:
            named = ", ".join(f"{name}: {cut}" for name, cut in cuts.items())
            raise UserError(
                f"{trained}, of pictures that were cut in several ways ({named}): give it the features of all"
            )
        said = {name: frozen.check(crop_source) for name, frozen in self.each.items()}
        return "; ".join(f"{name}: {words}" for name, words in said.items() if words)

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Features of pictures of any size. Raises ``UserError`` where some are not finite."""
        return np.concatenate([frozen(pictures) for frozen in self.each.values()], axis=1)


class Batches:
    """Features of pictures that come one by one, ``frozen.batch_size`` at a time; only so many wait in memory."""

    def __init__(self, frozen: Frozen | FrozenTogether) -> None:
        self._frozen, self._waiting, self._done = frozen, list[np.ndarray](), list[np.ndarray]()

    def add(self, picture: np.ndarray) -> None:
        self._waiting.append(picture)
        if len(self._waiting) == self._frozen.batch_size:
            self._run()

    def features(self) -> np.ndarray:
        """(n, D) float16, of all pictures that were added."""
        self._run()
        return np.concatenate(self._done)

    def _run(self) -> None:
        self._done.append(self._frozen(self._waiting))
        self._waiting = []
