"""Stage one: every frame once through the frozen backbone, into the feature store.

    python extract.py                                    as params.yaml says
    python extract.py -d /data/abaw -s abaw.zarr -b 256  a folder of frames, another store
    python extract.py --dry-run                          what would be done
    python extract.py --processor pca 256                and then the principal components of its training frames
    python extract.py --processor adapt-pca 256          the same with --grid 4: layers averaged over a 4 x 4 grid
    python extract.py --verify                           what in the store is damaged; --repair extracts it again
    python extract.py --compact                          the store without holes and vanished frames
    python extract.py --import other.h5 -s other.zarr    features made elsewhere; --export FILE.h5 the other way

What is in the store already is not computed again; a run that was cut off goes on where it was.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from pipeline.core import children
from pipeline.core.device import pick_device
from pipeline.core.files import write_json
from pipeline.core.numbering import every_nth
from pipeline.core.params import UserError, entry, given_params, option, parse
from pipeline.core.store import CHUNK_ROWS, FeatureStore, StoreDamaged, StoreMismatch, StoreWriter, differences, spans
from pipeline.core.tables import (
    KEY,
    STORE,
    Frames,
    Labels,
    is_training,
    of_fold,
    of_store,
    read_frames,
    read_labels,
)
from pipeline.extraction import loop
from pipeline.extraction.backbones import Backbone, load_backbone
from pipeline.extraction.frames import FITS
from pipeline.extraction.transfer import export_features, import_features
from pipeline.extraction.upkeep import Damage, compact, drop, settle, start_over, verify
from pipeline.extraction.views import view_names
from pipeline.extraction.weights.prepare import prepare

PROCESSORS = {"pca": 1, "adapt-pca": 4}  # the grid of each


@dataclass(frozen=True)
class ExtractConfig:
    """Section ``extract`` of params.yaml."""

    data: Path = option(Path("data/frames.parquet"), "-d", help="the frame table, or a folder of frames to index first")
    dataset: str | None = option(
        None, help="of a folder: which data set lies in it; default: as params.yaml says of it, else recognised"
    )
    store: Path = option(STORE, "-s", help="the feature store")
    batch_size: int = option(16, "-b", help="images handed to the backbone at a time", within="[1, 65_536]")
    backbone: str = option("tf_efficientnet_lite0", help="an HSEmotion name, or any timm name")
    weights: str = option("auto", help="auto, random, or a .pt, .pth or .safetensors file")
    input_size: int | None = option(
        None, help="pixels a side that images are resized to; default: the backbone's own", within="[1, 16_384]"
    )
    fit: str | None = option(
        None, help="how images become square; default: as the backbone's own, and faces are squashed", choices=FITS
    )
    crop_pct: float | None = option(
        None, help="share of the resized side that is kept; default: the backbone's own", within="[0.1, 1]"
    )
    layers: list[str] = option([], help="modules of the backbone whose features are joined; 'features': its last ones")
    grid: int = option(
        1, help="features are averaged over a grid of so many cells a side; 1: over the whole map", within="[1, 1024]"
    )
    data_aug: bool = option(False, help="also store the features of the mirrored image, as view 'flipped'")
    views: int = option(0, help="also store so many augmented views: augmented_1, augmented_2, ...", within="[0, 1000]")
    stride: int = option(1, help="only every n-th frame of each video", within="[1, inf)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    workers: int = option(0, help="threads that decode images; 0: one a core", within="[0, 1024]")
    precision: str = option("float32", help="of the forward pass", choices=loop.PRECISIONS)
    crop_source: str | None = option(None, help="how faces were cut, if not as the frame table says; one name: alike")
    scale: float = option(
        1.0, help="features are multiplied by this, also imported ones: float16 ends at 65,504", within="[1e-30, 1e30]"
    )
    report: Path | None = option(None, help="what was skipped and why, as JSON; default: beside the store")
    dry_run: bool = option(False, help="say what would be done, and do nothing")
    rebuild: bool = option(False, help="make a store of something else again from nothing; repair a damaged one")
    strict: bool = option(False, help="exit status 1 if a frame was skipped")
    chunk_rows: int = option(CHUNK_ROWS, help="rows a chunk, of a store that is made now", within="[1, 1_000_000]")
    verify: bool = option(False, help="read the whole store, name what is damaged; exit status 1 if anything is")
    repair: bool = option(False, help="drop the damaged chunks, and extract (or --import) their frames again")
    compact: bool = option(False, help="rewrite the store without holes and without frames not in the frame table")
    import_from: Path | None = option(None, "--import", help="take features made elsewhere, from an .h5, .npz or .npy")
    made_by: dict | None = option(None, help="with --import: what made it, such as '{backbone: x, input_size: 224}'")
    export_to: Path | None = option(None, "--export", help="write the store's features to a new .h5 or .npz")

    def __post_init__(self) -> None:
        if self.made_by is not None:
            _check_made_by(self.made_by, bool(self.import_from))
        works = {"import_from": "--import", "repair": "--repair", "dry_run": "--dry-run", "verify": "--verify"}
        works |= {"compact": "--compact", "export_to": "--export"}
        given = [flag for name, flag in works.items() if getattr(self, name)]
        if len(given) > 1 and given != ["--import", "--repair"]:
            raise UserError(f"extract: {' and '.join(given)} do not go together")


def _check_made_by(made_by: dict, for_import: bool) -> None:
    if not for_import:
        raise UserError("extract: --made-by goes with --import alone")
    try:
        plain = json.loads(json.dumps(made_by, allow_nan=False)) == made_by
    except (TypeError, ValueError):
        plain = False
    if not plain or not made_by or {"scale", "provenance", "outputs"} & {*made_by}:
        raise UserError(
            "extract: --made-by must name what made the features by plain values, such as '{backbone: x, input_size: "
            f"224}}', without scale, outputs and provenance, and is {made_by}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    argv, reduce_flags = _processor(sys.argv[1:] if argv is None else list(argv))
    params = given_params(argv)
    config = parse(ExtractConfig, argv, sections=["extract"], description=__doc__)
    if reduce_flags and (config.verify or config.compact or config.export_to or config.import_from):
        raise UserError("extract: --processor goes with an extraction alone")
    if config.verify:
        return _verify(config)
    if config.export_to:
        return _export(config, config.export_to)
    if config.import_from:
        return _import(config, config.import_from)
    frames, labels = _tables(config, params, bool(reduce_flags))
    if config.compact:
        return _compact(config, frames)
    video, frame = pd.factorize(frames.table["video"])[0], frames.table["frame"].to_numpy()
    table = frames.table[every_nth(video, frame, config.stride)]
    if labels:
        _check_training(config, labels, table, int(reduce_flags[-1]))
    device = pick_device(config.device)
    backbone = _backbone(config)
    views = view_names(config.data_aug, config.views)
    crops = config.crop_source or frames.crop_source
    backbone = backbone.fitted(config.fit, config.crop_pct, crops)
    identity = loop.made_by(backbone, replace(frames, crop_source=crops), config.precision, views)
    forward = loop.Forward(backbone, config.batch_size, config.precision, views, device, len(table))
    writer = StoreWriter(config.store, identity, loop.widths(backbone, views), config.chunk_rows)
    how = f"{backbone.input_size} pixels ({backbone.fit})"
    print(f"{config.backbone} ({backbone.num_features} features) at {how} on {device}")
    if config.dry_run:
        return _say_what_would_be_done(config, table, identity)
    if config.repair:
        _repair(config)
    outcome = _run(config, frames, table, writer, forward)
    settle(config.store, table)
    _report(config, outcome, len(table))
    if reduce_flags:
        _reduce(config, [*reduce_flags, *params])
    return 1 if config.strict and outcome.skipped else 0


def _processor(argv: list[str]) -> tuple[list[str], list[str]]:
    """``--processor none | pca N | adapt-pca N`` as what it is short for: flags of extraction, and of the reduce stage.

    A ``--grid`` that is given too stands.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--processor", nargs="+")
    known, rest = early.parse_known_args(argv)
    if known.processor is None:
        return rest, []
    name, *number = " ".join(known.processor).split()
    if [name, *number] == ["none"]:
        return ["--grid", "1", *rest], []
    if name not in PROCESSORS or len(number) != 1 or not number[0].isdecimal() or int(number[0]) < 1:
        raise UserError(f"--processor is none, pca N or adapt-pca N, and not '{' '.join(known.processor)}'")
    return ["--grid", str(PROCESSORS[name]), *rest], ["--components", number[0]]


def _reduce(config: ExtractConfig, flags: list[str]) -> None:
    """In a process of its own: what extraction imports, DVC extracts again for."""
    tables = []
    if not config.data.is_dir():
        tables = ["--labels", str(_labels(config)), "--frames", str(config.data)]
    command = [sys.executable, "-m", "pipeline.extraction.reduce", "--data", str(config.store), *flags, *tables]
    if children.run(command):
        raise UserError(f"the features are stored, but no projection could be fitted on {config.store}")
    said = tables if config.data.absolute() != of_store(STORE, "frames.parquet").absolute() else []
    print(f"train on it with: python train.py {' '.join(['-d', str(config.store), *said])}")


def _labels(config: ExtractConfig) -> Path:
    """The label table that belongs to the frame table that was given."""
    return config.data.with_name("labels.parquet")


def _check_training(config: ExtractConfig, labels: Labels, table: pd.DataFrame, components: int) -> None:
    """Says before hours of extraction what a projection of the training frames cannot have."""
    every = [of_fold(labels, fold) for fold in labels.folds or [None]]
    count = min(len(of.table.loc[is_training(of), KEY].merge(table[KEY])) for of in every)
    if count < 2:
        raise UserError(
            f"--processor fits a projection on labelled training frames, and of {config.data} {count} are to be "
            "extracted: leave it out, and train with --no-reduce"
        )
    if count <= components:
        print(f"{count:,} training frames have {count - 1:,} principal components at most, not {components:,}")


def _run(
    config: ExtractConfig, frames: Frames, table: pd.DataFrame, writer: StoreWriter, forward: loop.Forward
) -> loop.Outcome:
    """Extracts what the store lacks; with --rebuild, whatever the store was made by, and though some of it is damaged.

    Damage is never taken for a store that was made by something else: the damaged chunks alone are extracted again.
    --rebuild reads the whole store for that, since DVC takes what its stage leaves for whole.
    """
    if config.rebuild and (config.store / "zarr.json").is_file() and verify(config.store).damaged:
        _repair(config)
    while True:
        try:
            return _extract(config, frames, table, writer, forward)
        except StoreMismatch as mismatch:
            if not config.rebuild:
                raise
            print(f"making the store again from nothing: {mismatch}")
            start_over(writer, len(table))


def _extract(
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
    if cosine is not None and not cosine >= loop.SAME_COSINE:  # a comparison with NaN is False
        raise StoreMismatch(
            f"the store {store.path} says that it was made as now, but the same frames give other features "
            f"(least cosine {cosine:.4f}): code, library or images have changed. Make it again with --rebuild"
        )


def _report(config: ExtractConfig, outcome: loop.Outcome, wanted: int) -> None:
    report = config.report or of_store(config.store, "extract.json")
    print(
        f"{outcome.extracted:,} frames extracted, {outcome.done_before:,} were there, "
        f"{len(outcome.skipped):,} of {wanted:,} could not be read"
    )
    if outcome.vanished:
        print(
            f"{outcome.vanished:,} frames in the store are no longer in the frame table: no projection, training, "
            "evaluation or prediction takes them, and --compact deletes them"
        )
    for view, faint in outcome.faint.items():
        if faint:
            print(f"{faint:,} rows of '{view}' are zeros, or lose over 1 % of their length in float16 (see --scale)")
    for path, why in list(outcome.skipped.items())[:10]:
        print(f"  skipped {path}: {why}")
    if len(outcome.skipped) > 10:
        print(f"  ... all are in {report}")
    content = {"frames": wanted, "skipped": dict(sorted(outcome.skipped.items()))}
    try:
        write_json(report, content)
    except UserError as error:
        raise UserError(f"{error}. The store is finished; that is only its report") from None


def _verify(config: ExtractConfig) -> int:
    try:
        found = verify(config.store)
    except StoreDamaged as error:
        print(error)
        return 1
    _name(found.damaged)
    if found.unfinished:
        print(f"unfinished: {found.unfinished} chunks at the end, where a run was cut off or is going on; run again")
    for group in found.consolidated:
        print(
            f"{group / 'zarr.json'} holds consolidated metadata, which other readers trust and which does not grow "
            "with the store; the next extraction takes it away"
        )
    if found.strangers:
        print(f"none of the store's, and not looked at: {', '.join(found.strangers)}")
    print(f"{config.store}: {found.files:,} chunk files read, {len(found.damaged):,} chunks damaged")
    return 1 if found.damaged else 0


def _name(damaged: Sequence[Damage]) -> None:
    for damage in damaged:
        print(f"chunk {damage.chunk}, rows {damage.rows.start:,} to {damage.rows.stop - 1:,}:")
        for file, why in damage.files.items():
            print(f"  {file}: {why}")
        print(f"  frames: {_spans(damage)}")


def _spans(damage: Damage) -> str:
    """The frames of a damaged chunk, neighbours together."""
    if damage.frames is None:
        return "not known, since the keys cannot be read; --repair finds them in the frame table"
    return spans(sorted(damage.frames))


def _repair(config: ExtractConfig) -> None:
    damaged = verify(config.store).damaged
    _name(damaged)
    drop(config.store, damaged)
    print(f"{len(damaged):,} damaged chunks dropped from {config.store}")


def _compact(config: ExtractConfig, frames: Frames) -> int:
    done = compact(config.store, frames.table)
    before = f"{done.frames_before:,} frames in {done.bytes_before / 1e6:,.1f} MB before"
    print(f"{config.store}: {before}, {done.frames:,} in {done.bytes / 1e6:,.1f} MB now")
    return 0


def _import(config: ExtractConfig, file: Path) -> int:
    if config.repair:
        _repair(config)
    done = import_features(file, config.store, config.chunk_rows, config.rebuild, config.scale, config.made_by)
    print(f"{done.written:,} rows of {file} imported into {config.store}, {done.there:,} were there")
    if done.left_out:
        print(f"left out of {file}: {done.left_out}")
    for note in done.notes:
        print(note)
    return 0


def _export(config: ExtractConfig, file: Path) -> int:
    print(f"{export_features(FeatureStore(config.store), file):,} rows of {config.store} written to {file}")
    return 0


def _tables(config: ExtractConfig, params: Sequence[str], with_labels: bool) -> tuple[Frames, Labels | None]:
    """The frame table, and the label table if wanted.

    A folder is indexed first, beside the store, or for a dry run where nothing stays.
    """
    if not config.data.is_dir():
        return read_frames(config.data), read_labels(_labels(config)) if with_labels else None
    with TemporaryDirectory() as folder:
        store = Path(folder) / config.store.name if config.dry_run else config.store
        _index(config, store, params)
        labels = read_labels(of_store(store, "labels.parquet")) if with_labels else None
        return read_frames(of_store(store, "frames.parquet")), labels


def _index(config: ExtractConfig, store: Path, params: Sequence[str]) -> None:
    """Makes the tables beside ``store``, by the index stage in a process of its own.

    Extraction must not import the readers: DVC would have to extract again whenever one of them is edited.
    """
    outputs = {
        "--frames": of_store(store, "frames.parquet"),
        "--labels": of_store(store, "labels.parquet"),
        "--report": of_store(store, "index.json"),
    }
    command = [sys.executable, "-m", "pipeline.datasets.index", "--root", str(config.data), *params]
    command += ["--dataset", config.dataset] if config.dataset else []
    for flag, path in outputs.items():
        command += [flag, str(path)]
    print(f"{config.data} is a folder: indexing it into {outputs['--frames']}", flush=True)
    if children.run(command):
        raise UserError(f"{config.data} could not be indexed")


def _backbone(config: ExtractConfig) -> Backbone:
    """The backbone with its weights, which are converted into ``weights`` first; for a dry run where nothing stays."""

    def load(folder: Path) -> Backbone:
        weights = prepare(config.backbone, config.weights, folder)
        return load_backbone(weights, config.input_size, config.layers, config.grid, config.scale)

    if not config.dry_run:
        return load(Path("weights"))
    with TemporaryDirectory() as folder:
        if (made := Path("weights", f"{config.backbone}.safetensors")).is_file():
            shutil.copy(made, folder)
        return load(Path(folder))


def _say_what_would_be_done(config: ExtractConfig, table: pd.DataFrame, identity: dict[str, Any]) -> int:
    todo = table
    if config.store.exists():
        store = FeatureStore(config.store)
        if other := differences(store.made_by, identity):
            then = "it would be made again from nothing" if config.rebuild else "it would be refused, without --rebuild"
            print(f"the store {config.store} was made by something else: {other}; {then}")
        else:
            todo = loop.pending(table, store.keys)
    print(f"would extract {len(todo):,} of {len(table):,} frames into {config.store}")
    return 0


if __name__ == "__main__":
    entry(main)
