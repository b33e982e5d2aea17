"""What an extraction would do: which frames, through which backbone, into which store."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from pipeline.core.device import pick_device
from pipeline.core.store import FeatureStore, StoreWriter, differences
from pipeline.core.tables import WEIGHTS, Frames, weights_name
from pipeline.extraction import loop
from pipeline.extraction.backbones import Backbone, load_backbone
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.forward import Forward
from pipeline.extraction.stages import before_cut
from pipeline.extraction.views import view_names
from pipeline.extraction.weights.prepare import prepare


@dataclass(frozen=True)
class Plan:
    """``frames`` is the whole frame table, ``wanted`` its rows that are to be in the store at the end.

    ``made_by`` is what will have made the features. ``rebuild``: a store that something else made is made again.
    """

    frames: Frames
    wanted: pd.DataFrame
    forward: Forward
    writer: StoreWriter
    made_by: Mapping[str, Any]
    workers: int
    rebuild: bool

    def __str__(self) -> str:
        backbone = self.forward.backbone
        how = f"{backbone.input_size} pixels ({backbone.fit})"
        what = f"{backbone.num_features} features" if backbone.map_shape is None else backbone.layers[0]
        return f"{backbone.facts['backbone']} ({what}) at {how} on {self.forward.device}"


def make_plan(config: ExtractConfig, frames: Frames, wanted: pd.DataFrame) -> Plan:
    """Loads the backbone, whose weights are fetched and converted first. The store is not touched."""
    device = pick_device(config.device)
    forward, made_by = make_forward(config, _load_backbone(config), frames, len(wanted), device)
    widths, map_shape = loop.widths(forward.backbone, forward.views), forward.backbone.map_shape
    chunk_rows = config.chunk_rows if map_shape is None else rows_of_maps(widths["original"], config.chunk_rows)
    writer = StoreWriter(config.store, made_by, widths, chunk_rows, map_shape)
    workers = config.workers or os.cpu_count() or 1
    return Plan(frames, wanted, forward, writer, made_by, workers, config.rebuild)


def make_forward(
    config: ExtractConfig, backbone: Backbone, frames: Frames, num_wanted: int, device: torch.device
) -> tuple[Forward, dict[str, Any]]:
    """The backbone as it is run on so many frames, and what its features are made by. Of ``frames`` no row is read."""
    crop_source = config.crop_source or frames.crop_source
    backbone = backbone.fitted(config.fit, config.crop_pct, crop_source)
    views = view_names(config.data_aug, config.views)
    made_by = loop.made_by(backbone, replace(frames, crop_source=crop_source), config.precision, views)
    return Forward(backbone, config.batch_size, config.precision, views, device, num_wanted), made_by


def rows_of_maps(width: int, most: int) -> int:
    """How many maps of ``width`` numbers are a chunk: the bytes of ``most`` rows of 1,280 features, one at least."""
    return max(1, min(most, most * 1280 // width))


def _load_backbone(config: ExtractConfig) -> Backbone:
    """The backbone with its weights, which are converted into ``weights``; for a dry run where nothing stays."""
    if not config.dry_run:
        return load_backbone_of(config, prepare(config.backbone, config.weights, WEIGHTS))
    return load_and_leave_nothing(config)


def load_and_leave_nothing(config: ExtractConfig) -> Backbone:
    """The same, without a file of weights that stays."""
    with TemporaryDirectory() as folder:
        if (made := WEIGHTS / weights_name(config.backbone)).is_file():
            shutil.copy(made, folder)
        return load_backbone_of(config, prepare(config.backbone, config.weights, Path(folder)))


def load_backbone_of(config: ExtractConfig, weights: Path) -> Backbone:
    """The backbone that ``config`` asks for, of a file of weights that ``prepare`` made; with ``maps`` up to a cut."""
    whole = load_backbone(weights, config.input_size, config.layers, config.grid, config.scale, config.token_pooling)
    return before_cut(whole, config.maps) if config.maps else whole


def print_dry_run(plan: Plan, path: Path) -> None:
    """Says what the plan would do to the store at ``path``."""
    todo = plan.wanted
    if path.exists():
        store = FeatureStore(path)
        if other := differences(store.made_by, plan.made_by):
            then = "it would be made again from nothing" if plan.rebuild else "it would be refused, without --rebuild"
            print(f"the store {path} was made by something else: {other}; {then}")
        else:
            todo = loop.missing_frames(plan.wanted, store.keys)
    print(f"would extract {len(todo):,} of {len(plan.wanted):,} frames into {path}")
