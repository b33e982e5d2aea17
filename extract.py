"""Stage one: every frame once through the frozen backbone, into the feature store.

    python extract.py                                    as params.yaml says
    python extract.py -d /data/abaw -s abaw.zarr -b 256  a folder of frames, another store
    python extract.py --dry-run                          what would be done

What is in the store already is not computed again; a run that was cut off goes on where it was.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.device import pick_device
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.weights import prepare
from pipeline.params import UserError, entry, option, parse
from pipeline.store import FeatureStore, StoreMismatch, StoreWriter, remove
from pipeline.tables import Frames, read_frames


@dataclass(frozen=True)
class ExtractConfig:
    """Section ``extract`` of params.yaml."""

    data: Path = option(Path("data/frames.parquet"), "-d", help="the frame table, or a folder of frames to index first")
    store: Path = option(Path("data/features.zarr"), "-s", help="the feature store")
    batch_size: int = option(16, "-b", help="images in one forward pass")
    backbone: str = option("tf_efficientnet_lite0", help="an HSEmotion name, or any timm name")
    weights: str = option("auto", help="auto, random, or a .pt, .pth or .safetensors file")
    input_size: int | None = option(None, help="pixels a side that images are resized to; default: the backbone's own")
    data_aug: bool = option(False, help="also store the features of the mirrored image, as view 'flipped'")
    stride: int = option(1, help="only frames whose number is a multiple of this")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    workers: int = option(0, help="threads that decode images; 0: one a core")
    precision: str = option("float32", help="of the forward pass", choices=loop.PRECISIONS)
    report: Path = option(Path("data/extract.json"), help="what was skipped and why, as JSON")
    dry_run: bool = option(False, help="say what would be done, and do nothing")
    rebuild: bool = option(False, help="if the store was made by something else, make it again from nothing")
    strict: bool = option(False, help="exit status 1 if a frame was skipped")

    def __post_init__(self) -> None:
        for name in ("batch_size", "stride"):
            if getattr(self, name) < 1:
                raise UserError(f"extract: {name} must be at least 1, and is {getattr(self, name)}")


def main(argv: Sequence[str] | None = None) -> int:
    config = parse(ExtractConfig, argv, sections=["extract"], description=__doc__)
    frames = _frames(config)
    table = frames.table[frames.table["frame"] % config.stride == 0]
    device = pick_device(config.device)
    backbone = load_backbone(prepare(config.backbone, config.weights, Path("weights")), config.input_size)
    identity = loop.made_by(backbone, frames, config.precision, config.data_aug)
    forward = loop.Forward(backbone, config.batch_size, config.precision, config.data_aug, device)
    writer = StoreWriter(config.store, identity, loop.widths(backbone, config.data_aug))
    print(f"{config.backbone} ({backbone.num_features} features) at {backbone.input_size} pixels on {device}")
    if config.dry_run:
        there = FeatureStore(config.store).keys if config.store.exists() else _no_keys()
        print(f"would extract {len(loop.pending(table, there)):,} of {len(table):,} frames into {config.store}")
        return 0
    try:
        outcome = _run(config, frames, table, writer, forward)
    except StoreMismatch as mismatch:
        if not config.rebuild:
            raise
        print(f"making the store again from nothing: {mismatch}")
        remove(config.store)
        outcome = _run(config, frames, table, writer, forward)
    _report(config, outcome, len(table))
    return 1 if config.strict and outcome.skipped else 0


def _run(
    config: ExtractConfig, frames: Frames, table: pd.DataFrame, writer: StoreWriter, forward: loop.Forward
) -> loop.Outcome:
    with writer:
        store = FeatureStore(config.store)
        keys = store.keys.astype({"video": "str"})
        done = table.merge(keys, on=["video", "frame", "size"])
        if len(done):
            _refuse_another_extraction(frames, done.head(forward.batch_size), store, forward)
        todo = loop.pending(table, keys)
        outcome = loop.Outcome(done_before=len(done))
        outcome.vanished = len(keys) - len(keys.merge(frames.table, on=["video", "frame"]))
        if len(todo):
            workers = config.workers or os.cpu_count() or 1
            loop.extract(frames, todo, writer, forward, workers, outcome)
    return outcome


def _refuse_another_extraction(frames: Frames, done: pd.DataFrame, store: FeatureStore, forward: loop.Forward) -> None:
    cosine = loop.check_same(frames, done, store.read(done["row"].to_numpy()), forward)
    if cosine is not None and cosine < loop.SAME_COSINE:
        raise StoreMismatch(
            f"the store {store.path} says that it was made as now, but the same frames give other features "
            f"(least cosine {cosine:.4f}): code, library or images have changed. Make it again with --rebuild"
        )


def _report(config: ExtractConfig, outcome: loop.Outcome, wanted: int) -> None:
    print(
        f"{outcome.extracted:,} frames extracted, {outcome.done_before:,} were there, "
        f"{len(outcome.skipped):,} of {wanted:,} could not be read"
    )
    if outcome.vanished:
        print(f"{outcome.vanished:,} frames in the store are no longer in the frame table; they are not read")
    for path, why in list(outcome.skipped.items())[:10]:
        print(f"  skipped {path}: {why}")
    if len(outcome.skipped) > 10:
        print(f"  ... all are in {config.report}")
    config.report.parent.mkdir(parents=True, exist_ok=True)
    content = {"frames": wanted, "skipped": dict(sorted(outcome.skipped.items()))}
    config.report.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _frames(config: ExtractConfig) -> Frames:
    """The frame table; a folder is indexed by the index stage first, in a process of its own.

    Extraction must not import the readers: DVC would have to extract again whenever one of them is edited.
    """
    if not config.data.is_dir():
        return read_frames(config.data)
    table = config.store.with_suffix(".frames.parquet")
    outputs = {
        "--frames": table,
        "--labels": config.store.with_suffix(".labels.parquet"),
        "--report": config.store.with_suffix(".index.json"),
    }
    command = [sys.executable, "-m", "pipeline.datasets.index", "--root", str(config.data)]
    for flag, path in outputs.items():
        command += [flag, str(path)]
    print(f"{config.data} is a folder: indexing it into {table}")
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"{config.data} could not be indexed")
    return read_frames(table)


def _no_keys() -> pd.DataFrame:
    return pd.DataFrame({"video": pd.Series(dtype="str"), "frame": [], "size": []}).astype({"frame": int, "size": int})


if __name__ == "__main__":
    entry(main)
