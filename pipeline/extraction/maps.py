"""``extract.py --maps``: what the first trained stage of a backbone takes in, stored for training what lies behind it.

The store is one of ``core.store``, with a map (C, h, w) in the place of a row of features: the same writer, keys,
checksums and resume.
"""

import dataclasses
import math
import shutil
from pathlib import Path

from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.extraction.backbones import Backbone
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.loop import missing_frames
from pipeline.extraction.plan import Plan, load_and_leave_nothing
from pipeline.extraction.stages import every_cut

LIST = "list"


def of_maps(config: ExtractConfig) -> ExtractConfig:
    """The config with the store of the maps as its store; as it is where no maps are asked for."""
    if config.maps in (None, LIST):
        return config
    return dataclasses.replace(config, store=store_of_maps(config.store, config.maps))


def store_of_maps(store: Path, cut: str) -> Path:
    """``features.blocks.5.maps.zarr`` of ``features.zarr``."""
    return store.with_name(f"{store.stem}.{cut}.maps{store.suffix}")


def print_cuts(config: ExtractConfig, num_frames: int) -> None:
    """Says what the maps at each cut would take for so many frames. Nothing is written."""
    print(in_words(_whole(config), num_frames))


def in_words(backbone: Backbone, num_frames: int) -> str:
    """A line a cut: shape, bytes a frame, and the total of so many frames; the smallest is named.

    Raises ``UserError`` where the backbone cannot be cut.
    """
    cuts = every_cut(backbone)
    name = backbone.facts["backbone"]
    if not cuts:
        raise UserError(f"the backbone '{name}' cannot be cut at a stage: it can be trained from pixels alone")
    lines = [f"maps of {name} at {backbone.input_size} pixels, float16, for {num_frames:,} frames:"]
    smallest = min(cuts, key=lambda cut: _bytes(cuts[cut]))
    for number, (cut, shape) in enumerate(cuts.items()):
        size = " x ".join(map(str, shape))
        total = _total(num_frames * _bytes(shape))
        note = "  <- smallest" if cut == smallest else ""
        lines.append(
            f"  --maps {cut:10} {size:>14}  {_bytes(shape):>11,} bytes a frame  {total:>10} in all"
            f"  for --unfreeze {len(cuts) - number}{note}"
        )
    return "\n".join(lines)


def say_size(plan: Plan, config: ExtractConfig) -> None:
    """Says what the plan will add to the disk. Raises ``UserError`` where the disk has no room for that."""
    shape, path = plan.forward.backbone.map_shape, config.store
    todo = plan.wanted
    if path.exists():
        todo = missing_frames(plan.wanted, FeatureStore(path).keys)
    needed, free = len(todo) * _bytes(shape), _free(path)
    print(
        f"{path}: maps of {' x '.join(map(str, shape))}, {_bytes(shape):,} bytes a frame, {_total(needed)} for "
        f"{len(todo):,} frames that are lacking; the disk has {_total(free)}"
    )
    if needed > free:
        print(in_words(_whole(config), len(plan.wanted)))
        raise UserError(
            f"the maps of {len(todo):,} frames take {_total(needed)}, and the disk of {path} has {_total(free)}: the "
            "list above says what each cut would take"
        )


def _whole(config: ExtractConfig) -> Backbone:
    return load_and_leave_nothing(dataclasses.replace(config, maps=None))


def _bytes(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)


def _free(path: Path) -> int:
    there = next(folder for folder in [path.absolute(), *path.absolute().parents] if folder.is_dir())
    return shutil.disk_usage(there).free


def _total(size: int) -> str:
    of, unit = next((of, unit) for of, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= of or unit == "kB")
    return f"{size / of:,.1f} {unit}"
