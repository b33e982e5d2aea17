"""Stage two: trains a temporal adapter on the stored features. What is not said here is as params.yaml says.

    python train.py -e 150 -t 15                     150 epochs at temperature 15, into runs/manual/
    python train.py --model tcn --loss supcon -r 3   another head and loss, three seeds
    python train.py --loss '{arcface: 1, triplet: {weight: 0.5, mining: semi_hard}}'
    python train.py --run tcn_supcon                 one of the runs of params.yaml, with any flag on top
    python train.py --resume runs/manual/NAME        goes on with a run that was killed, to exactly its weights
    python train.py --all                            and print every metric in the end, not just the main ones
    python train.py --list                           the heads, losses and samplers there are
    python train.py --cpu                            the same as --device cpu; --gpu as --device cuda

The temperature is the scale on cosines: logits = t * cos. (The literature's tau is 1/t.)

Of a label table that is cut into folds every seed is trained on each of them, into RUN/fold_0/seed_0 and so on.
"""

import argparse
import dataclasses
import hashlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adapter import sources as features
from pipeline.adapter.adapter import (
    NORMALISATIONS,
    POOLINGS,
    Adapter,
    Front,
    build_adapter,
    load_adapter,
    load_state,
    save_adapter,
    save_state,
)
from pipeline.adapter.heads import HEADS, build_head
from pipeline.adapter.windows import centred, held
from pipeline.core import children, projection
from pipeline.core.choices import listed
from pipeline.core.device import pick_device
from pipeline.core.emotions import opposites
from pipeline.core.files import read_json, write_json
from pipeline.core.frame_set import PARTS, FrameSet, frame_set, held_names
from pipeline.core.join import FRAMES, LABELS, frame_table, open_both, with_files
from pipeline.core.numbering import common_step, numbered_alike
from pipeline.core.params import UserError, build, entry, given_params, one_of, option, parse, read
from pipeline.core.progress import Line, clock
from pipeline.core.seen import Seen, refuse_seen, some
from pipeline.core.store import FeatureStore, differences
from pipeline.core.tables import STORE, Labels, of_fold, read_frames
from pipeline.metrics.separation import evenly
from pipeline.training.board import Board, thumbnails
from pipeline.training.combinations import (
    SELECT_BY,
    check,
    names_of,
    select_by_of,
    tracks_of,
    without_effect,
)
from pipeline.training.loop import DECAYS, PRECISIONS, NotFinite, Schedule, Trainer
from pipeline.training.losses import LOSSES
from pipeline.training.losses.build import build_loss
from pipeline.training.positives import POSITIVES
from pipeline.training.samplers import SAMPLERS
from pipeline.training.samplers.build import build_sampler, options_of
from pipeline.training.watch import Watched, watched_frames

WATCHED = 1000  # evenly spaced frames of a part that are looked at after each epoch
SHOWN = 400  # of them, that TensorBoard's projector gets
STATE_EVERY = 10.0  # seconds between two states that a killed run can go on from
# The columns of TensorBoard's table of runs; the same for every run, or it cannot compare them.
HPARAMS = (
    "model", "loss", "sampler", "temperature", "margin", "window", "pooling", "embedding_size", "normalise", "reduce",
    "dropout", "positives", "batch_size", "learning_rate", "weight_decay", "epochs", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Section ``train`` of params.yaml, with a run's own changes on top."""

    data: Path = option(STORE, "-d", help="the feature store")
    labels: Path | None = option(None, help=LABELS)
    frames: Path | None = option(None, help=FRAMES)
    output: Path = option(Path("runs/manual"), "-s", help="the folder of runs that this one is put into")
    name: str | None = option(None, help="the run's folder; default: model, loss and sampler")
    model: str = option("mlp", help="the head", choices=HEADS)
    model_options: dict = option({}, help="more arguments of the head, such as {num_layers: 2}")
    loss: str | dict = option("contrastive_cross_entropy", help="the loss, or a sum, as {arcface: 1, triplet: 0.5}")
    loss_options: dict = option({}, help="more arguments of the losses, such as {mining: semi_hard}")
    sampler: str = option("balanced", help="what a batch is made of", choices=SAMPLERS)
    sampler_options: dict = option({}, help="more arguments of the sampler, such as {refresh_every: 5}")
    positives: str = option("any", help="which frames of one class may be a positive pair", choices=POSITIVES)
    opposites: list = option(["plutchik", "valence"], help="sets or pairs of opposite emotions")
    epochs: int = option(
        10,
        "-e",
        help="passes; what one pass is depends on the sampler; 0: the head as it starts",
        within="[0, 1_000_000]",
    )
    runs: int = option(
        1, "-r", help="seeds to train, from --seed on; their mean and deviation are the result", within="[1, 1000]"
    )
    temperature: float = option(15.0, "-t", help="scale on cosines in the loss")
    margin: float | None = option(None, help="of the loss that has one; default: the loss's own")
    window: int = option(15, help="frames in a window around each labelled frame", within="[1, 100_000]")
    step: int | None = option(
        None,
        help="frame numbers from one frame of a window to the next; default: each video's own",
        within="[1, 1_000_000]",
    )
    pooling: str = option("mean", help="a window's embedding: mean of its frames, or its centre", choices=POOLINGS)
    embedding_size: int = option(128, help="columns of an embedding", within="[1, 65_536]")
    dropout: float = option(0.4, help="in the head", within="[0, 1)")
    normalise: str = option("centre", help="of the head's inputs, on training frames", choices=NORMALISATIONS)
    reduce: bool = option(True, help="project the features with --projection first")
    projection: Path | None = option(None, help="what the reduce stage made; default: the one beside the store")
    test_split: float | None = option(
        None, help="hold out this share of groups, instead of the official validation", within="(0, 1)"
    )
    select_split: float = option(
        0.15, help="share of the training groups on which the best epoch is chosen", within="[0, 1)"
    )
    split_seed: int = option(
        0, help="of these two cuts; the training seed does not move them", within="[0, 4_294_967_294]"
    )
    select_by: str | None = option(None, help="what the best epoch is best at; default: by the loss", choices=SELECT_BY)
    patience: int | None = option(
        None, help="epochs without a better score after which training ends", within="[1, inf)"
    )
    top_k: list[int] = option(
        [1, 5, 10], "-k", help="recall at these, in the evaluation after the training", within="[1, inf)"
    )
    batch_size: int = option(256, help="windows in a batch", within="[1, 10_000_000]")
    learning_rate: float = option(1e-3, help="of AdamW", within="(0, inf)")
    optim_betas: list[float] = option([0.9, 0.999], help="of AdamW", within="[0, 1)")
    weight_decay: float = option(0.05, help="of AdamW", within="[0, inf)")
    warm_up: float = option(0.05, help="share of the training over which the rate rises", within="[0, 1)")
    decay: str = option("cosine", help="of the rate after that", choices=DECAYS)
    clip_norm: float = option(1.0, help="to which gradients are clipped; 0: not", within="[0, inf)")
    precision: str = option("float32", help="of the head; losses are always in float32", choices=PRECISIONS)
    memory_gb: float | None = option(
        None, help="for features; more are read from disk; default: by what is free", within="(0, inf)"
    )
    seed: int = option(0, help="of weights, dropout and batch order", within="[0, inf)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    evaluate: bool = option(True, help="evaluate the run when it is trained")
    all: bool = option(False, help="print every metric of the evaluation, not just the main ones")

    def __post_init__(self) -> None:
        if len(self.optim_betas) != 2:
            raise UserError(f"train: optim_betas must be two numbers, and are {self.optim_betas}")
        if not names_of(self.loss):
            raise UserError("train: loss names no loss")
        for name in names_of(self.loss):
            one_of("train: loss", name, LOSSES)
        for name in ("num_features", "embedding_size", "dropout", "grid"):
            if name in self.model_options:
                raise UserError(f"train: model_options cannot hold {name}: it is a parameter of its own, or given")
        if self.select_split == 0 and self.epochs > 0:
            raise UserError("train: select_split 0 leaves nothing to choose the best epoch on")
        check(
            self.model, self.loss, self.sampler, pooling=self.pooling, window=self.window, epochs=self.epochs,
            positives=self.positives, select_by=self.select_by,
        )  # fmt: skip
        # Made once for nothing, so that a wrong option is refused before anything is loaded.
        build_head(self.model, 8, self.embedding_size, self.dropout, **self.model_options)
        build_loss(
            self.loss, self.loss_options, num_classes=2, num_aus=1, class_counts=[1, 1], embedding_size=8,
            temperature=self.temperature, margin=self.margin,
        )  # fmt: skip
        for name in self.sampler_options:
            one_of(f"sampler '{self.sampler}': option", name, options_of(self.sampler))


@dataclass(frozen=True)
class Material:
    """What all seeds of a run are trained on."""

    config: TrainConfig
    facts: dict[str, Any]
    frames: FrameSet
    number: np.ndarray  # (N,) frame numbers as if all videos had one step
    front: Front
    source: features.InMemory | features.FromDisk
    views: list[str]
    device: torch.device
    rows: np.ndarray  # (W, T) of the training windows
    watched: dict[str, Watched]
    seen: dict[str, Seen]
    held: tuple[list[str], list[str]]  # groups and videos of the validation part


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--list" in argv:
        return print(listed({"heads": HEADS, "losses": LOSSES, "samplers": SAMPLERS}))
    config, resumed = _config(argv)
    config = with_files(config, config.data, "labels", *(["projection"] if config.reduce else []))
    folder = resumed or _folder(config)
    store, labels = open_both(config.data, config.labels, config.frames)
    if labels.folds and config.test_split is not None:
        raise UserError(f"{config.labels} is cut into {len(labels.folds)} folds: leave --test-split out")
    scores = [score for fold in labels.folds or [None] for score in _train_fold(config, folder, store, labels, fold)]
    _write_summary(folder, scores)
    select_by = config.select_by or select_by_of(config.loss)
    print("\n".join(_verdict(config, folder, scores, select_by, len(labels.folds))))
    if config.evaluate:
        _evaluate(config, folder, given_params(argv))


def _verdict(
    config: TrainConfig, folder: Path, scores: Sequence[dict[str, Any]], select_by: str, num_folds: int
) -> list[str]:
    """How the training went, in a few lines: steps, the score against that of the untrained head, the best epochs."""
    of_folds = f" of {num_folds} folds" if num_folds else ""
    score = f"{_mean_and_deviation([s['select'] for s in scores])} {select_by} on the selection part{of_folds}"
    if not config.epochs:
        return [f"{folder}: {score}, nothing is trained"]
    before = _mean_and_deviation([s["untrained"] for s in scores])
    epochs, steps = [s["epochs"] for s in scores], [s["steps"] for s in scores]
    networks = f" in each of {len(scores)} networks" if len(scores) > 1 else ""
    best = _range([s["epoch"] for s in scores])
    lines = [
        f"{folder}: {score}; {before} before training",
        f"  {_range(epochs)} epochs, {_range(steps)} steps in all{networks}; best epoch {best} of {config.epochs}",
    ]
    late = float(np.mean([s["epoch"] / s["epochs"] for s in scores]))
    after = [s["epochs"] - s["epoch"] for s in scores]
    if late <= 0.5 and min(after) >= 3 and config.patience is None:
        patience = min(max(3, *(s["epoch"] for s in scores)), 20)
        lines.append(f"  the last {_range(after)} epochs made nothing better (overfitting): try --patience {patience}")
    elif late > 0.95 and not config.patience:
        lines.append("  the best epoch is among the last: more --epochs may be better still")
    return [*lines, f"  curves: tensorboard --logdir {folder}"]


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _train_fold(
    config: TrainConfig, folder: Path, store: FeatureStore, labels: Labels, fold: int | None
) -> list[dict[str, Any]]:
    """All seeds of a fold, or of the only split."""
    material = _material(config, store, of_fold(labels, fold), fold)
    _write_config(folder, config)
    place, of = (folder, {}) if fold is None else (folder / f"fold_{fold}", {"fold": fold})
    return [of | _train_one(material, place, seed) for seed in range(config.seed, config.seed + config.runs)]


def _config(argv: list[str]) -> tuple[TrainConfig, Path | None]:
    """What to train, and the folder of a run to go on with."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--run")
    early.add_argument("--resume", type=Path)
    known, rest = early.parse_known_args(argv)
    if known.resume:
        if known.run or rest:
            raise UserError("--resume takes everything from the run's own config.json: give no other flags")
        return _read_config(known.resume), known.resume
    sections = ["train"] + ([f"runs.{known.run}"] if known.run else [])
    short = {"--gpu": ["--device", "cuda"], "--cpu": ["--device", "cpu"]}
    rest = [word for given in rest for word in short.get(given, [given])]
    config = parse(TrainConfig, rest, sections=sections, description=__doc__)
    for name in without_effect(config.loss, _given(rest, known.run)):
        print(f"{name} {getattr(config, name)} has no effect: loss '{' + '.join(names_of(config.loss))}' takes none")
    return (config if config.name or not known.run else dataclasses.replace(config, name=known.run)), None


def _given(flags: Sequence[str], run: str | None) -> list[str]:
    """Which of temperature and margin somebody asked for: by a flag, or in the run's own line of params.yaml."""
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    asked.add_argument("--params", type=Path)
    asked.add_argument("-t", "--temperature")
    asked.add_argument("--margin")
    found = vars(asked.parse_known_args(flags)[0])
    path = found.pop("params", Path("params.yaml"))
    return sorted(found.keys() | ({"temperature", "margin"} & read(path, f"runs.{run}").keys() if run else set()))


def _read_config(folder: Path) -> TrainConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"no run to go on with in {folder}: there is no {path}")
    values = read_json(path, "the parameters of a run", "Put back a copy, or train the run again")
    return build(TrainConfig, values, str(path))


def _folder(config: TrainConfig) -> Path:
    """A new folder for the run: one that stands is never written over."""
    name = config.name or f"{config.model}-{'+'.join(names_of(config.loss))}-{config.sampler}"
    folder = config.output / name
    if config.name and folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"the run {folder} is there already: give another --name, delete it, or go on with it by --resume {folder}"
        )
    number = 2
    while folder.exists() and any(folder.iterdir()):
        folder, number = config.output / f"{name}-{number}", number + 1
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _material(config: TrainConfig, store: FeatureStore, labels: Labels, fold: int | None) -> Material:
    device = pick_device(config.device)
    frames = frame_set(
        store, labels, tracks=tracks_of(config.loss), test_split=config.test_split,
        select_split=config.select_split, split_seed=config.split_seed,
    )  # fmt: skip
    print(_found(frames, store, fold))
    if config.select_by == "pair_f1" and not len(frames.pairs_of("select")[0]):
        has = "none of them is in the selection part" if len(frames.pairs) else "names none"
        raise UserError(f"select_by 'pair_f1' needs pairs, and of data set '{labels.dataset}' the label table {has}")
    held_out = held_names(frames, labels, "val")
    front, fitted_on = _front(config, store, frames, held_out, fold)
    common = common_step(frames.video, frames.frame)
    alike = numbered_alike(frames.video, frames.frame, common)
    number, step = (frames.frame, config.step) if config.step else (alike, common)
    opposite = _opposites(config, frames)
    watched = {}
    for part in ("select", "val"):
        at = watched_frames(frames, part, WATCHED)
        rows = torch.from_numpy(centred(frames.video, number, at, config.window, step)).to(device)
        watched[part] = Watched(frames, at, rows, opposite)
    views = store.views if SAMPLERS[config.sampler].uses_views else ["original"]
    room = features.allowance(device, config.memory_gb)
    source = features.open_inputs(store, frames.row, front, device, views, room)
    if isinstance(source, features.FromDisk):
        print(f"the features do not fit into {room / 1e9:.3g} GB (--memory-gb): they are read from disk in every epoch")
        if SAMPLERS[config.sampler].needs_embeddings:
            raise UserError(f"sampler '{config.sampler}' needs all features in memory: give --memory-gb or --reduce")
    train = frames.centres("train")
    rows = centred(frames.video, number, train, config.window, step)
    if said := held((rows >= 0).sum(axis=1), config.window, frames.video[train], frames.videos):
        print(said)
    facts, seen = _facts(config, frames, store, front, common, fold), _seen(config, frames) | fitted_on
    return Material(config, facts, frames, alike, front, source, views, device, rows, watched, seen, held_out)


def _seen(config: TrainConfig, frames: FrameSet) -> dict[str, Seen]:
    """What the run is made with, by part. A head without an epoch takes at most mean and deviation of training data."""
    trained = config.epochs > 0 or config.normalise != "none" or (config.reduce and config.test_split is not None)
    parts = [*(["train"] if trained else []), *(["select"] if config.epochs else []), "val"]
    return {part: Seen.of(*frames.names_of(part)) for part in parts}


def _opposites(config: TrainConfig, frames: FrameSet) -> list[tuple[int, int]]:
    return opposites(config.opposites, frames.classes) if frames.classes else []


def _found(frames: FrameSet, store: FeatureStore, fold: int | None) -> str:
    counts = []
    for part in PARTS:
        centres = frames.centres(part)
        if part == "test" and not len(centres):
            continue
        counts.append(f"{part} {len(centres):,} frames of {len(np.unique(frames.video[centres]))} videos")
    missing = f"; {frames.labels_without_features:,} labels have no features" if frames.labels_without_features else ""
    of = "" if fold is None else f", fold {fold}"
    return f"{store.path} ({store.made_by['backbone']}){of}: {', '.join(counts)}{missing}"


def _front(
    config: TrainConfig, store: FeatureStore, frames: FrameSet, held: tuple[list[str], list[str]], fold: int | None
) -> tuple[Front, dict[str, Seen]]:
    """What stands before the head, and what a projection of the reduce stage was fitted on."""
    train = features.Blocks(store, frames.row[frames.centres("train")])
    components, fitted_on = projection.load(config.projection, store.made_by, fold) if config.reduce else None, {}
    if components and config.test_split is not None:  # the stored one has seen frames that are now held out
        components = _fitted_again(train, len(components.components))
    elif components:
        seen = None if components.seen is None else {"fitted": components.seen}
        way_out = f"Fit it again with 'python -m pipeline.extraction.reduce -d {config.data}'"
        refuse_seen(f"the projection {config.projection}", seen, held, "validation", way_out)
        fitted_on = {"projection": components.seen}
    front = Front(store.num_features, len(components.components) if components else None)
    if components:
        front.project_with(components)
    front.fit(train, config.normalise)
    return front, fitted_on


def _fitted_again(train: features.Blocks, number: int) -> projection.Projection:
    """Principal components of this training part, as many as the stored projection has, or as there are."""
    fitted = projection.fit(train, number)
    if (have := len(fitted.components)) < number:
        print(
            f"the projection is fitted again on this training part, whose {len(train.rows):,} frames have {have:,} of "
            f"its {number:,} components"
        )
    return fitted


def _facts(
    config: TrainConfig, frames: FrameSet, store: FeatureStore, front: Front, spacing: int, fold: int | None
) -> dict[str, Any]:
    """All that it takes to use the adapter without its command line."""
    label = frames.label[frames.centres("train")]
    return {
        **{name: getattr(config, name) for name in HPARAMS if name != "seed"},
        **{name: getattr(config, name) for name in ("model_options", "loss_options", "sampler_options")},
        "step": config.step,
        "spacing": spacing,
        "tracks": tracks_of(config.loss),
        "classes": frames.classes,
        "class_counts": np.bincount(label[label >= 0], minlength=len(frames.classes)).tolist() or None,
        "au_names": frames.au_names,
        "num_aus": len(frames.au_names) or None,
        "num_features": store.num_features,
        "num_components": len(front.components) if hasattr(front, "components") else None,
        "select_by": config.select_by or select_by_of(config.loss),
        "test_split": config.test_split,
        "select_split": config.select_split,
        "split_seed": config.split_seed,
        **({} if fold is None else {"fold": fold}),
        "made_by": store.made_by,
    }


def _train_one(material: Material, folder: Path, seed: int) -> dict[str, Any]:
    """One seed, from its start or from where a killed run left it; gives its best epoch."""
    config, device = material.config, material.device
    place, facts = folder / f"seed_{seed}", material.facts | {"seed": seed}
    best: dict[str, Any] = {"seed": seed, "epoch": None, "select": float("nan"), "untrained": float("nan")}
    if (place / "last.safetensors").is_file() and not (place / "state.safetensors").is_file():
        done = load_adapter(place / "best.safetensors", facts["made_by"])
        _refuse_other_parts(material, place, done.seen)
        last = load_adapter(place / "last.safetensors", facts["made_by"]).facts
        known = _scored({name: done.facts[name] for name in best})
        return known | {"epochs": last["epoch"], "steps": last["steps"]}
    torch.manual_seed(seed)
    adapter = build_adapter(facts)
    adapter.seen = material.seen
    adapter.front.load_state_dict(material.front.state_dict())
    adapter.modules().to(device)
    trainer = _trainer(material, adapter, seed) if config.epochs else None
    first, waited, purge_from = 0, 0, 0 if place.exists() else None
    if (place / "state.safetensors").is_file():
        first, best, waited = _restored(material, trainer, place / "state.safetensors")
        purge_from = first + 1
    started = stored = time.monotonic()
    epoch = first
    hparams = {name: facts[name] for name in HPARAMS}
    tags = [f"{name}/{part}" for name in SELECT_BY for part in material.watched]
    with Board(place, hparams, tags, purge_from=purge_from) as board, Line() as line:
        if first == 0:
            score = best["untrained"] = _watch(material, adapter, board, 0)
            if math.isnan(score) and config.epochs:
                print(f"the selection part is too small to be scored by {facts['select_by']}: the last epoch is taken")
            if trainer is None:
                best |= {"epoch": 0, "select": score}
                save_adapter(place / "best.safetensors", adapter, **best)
        for epoch in range(first + 1, config.epochs + 1):
            means = _epoch(trainer, epoch, material)
            board.scalars(means, "train", epoch)
            score = _watch(material, adapter, board, epoch)
            waited += 1
            # an untrained head is a baseline, not a candidate, so the first epoch is the first best one
            if best["epoch"] is None or score > best["select"] or math.isnan(best["select"]):
                best, waited = best | {"epoch": epoch, "select": score}, 0
                save_adapter(place / "best.safetensors", adapter, **best)
            left = (time.monotonic() - started) / (epoch - first) * (config.epochs - epoch)
            line.say(
                f"{place}: epoch {epoch} of {config.epochs}, loss {means['loss']:.4g}, {facts['select_by']} "
                f"{score:.3f}, best {best['select']:.3f} of epoch {best['epoch']}, {clock(left)} left"
            )
            if config.patience and waited >= config.patience:
                break
            if time.monotonic() - stored >= STATE_EVERY and epoch < config.epochs:
                done = {"epoch": epoch, "best": best, "waited": waited, "made_by": facts["made_by"]}
                save_state(place / "state.safetensors", trainer.state(), done, material.seen)
                stored = time.monotonic()
        steps = epoch * trainer.steps if trainer else 0
        save_adapter(place / "last.safetensors", adapter, epoch=epoch, select=score, steps=steps)
        (place / "state.safetensors").unlink(missing_ok=True)
        _draw(material, load_adapter(place / "best.safetensors", facts["made_by"]), board, best["epoch"])
    of, seconds = f"best epoch {best['epoch']} of {epoch}", time.monotonic() - started
    print(f"{place}: {of}, {best['select']:.3f} {facts['select_by']}, {seconds:.0f} s")
    return best | {"epochs": epoch, "steps": steps}


def _trainer(material: Material, adapter: Adapter, seed: int) -> Trainer:
    config, frames, device = material.config, material.frames, material.device
    train = frames.centres("train")
    on_device = {
        "labels": frames.label[train], "groups": frames.group[train], "videos": frames.video[train],
        "va": frames.va[train], "aus": frames.aus[train],
    }  # fmt: skip
    apart = SAMPLERS[config.sampler].positives if config.positives == "any" else config.positives
    if apart == "any":
        on_device.pop("groups")
    elif apart == "other_video":
        on_device["groups"] = frames.video[train]
    if "frame_labels" in adapter.loss.takes:
        labels = frames.label if frames.classes else np.zeros_like(frames.label)
        on_device["frame_labels"] = np.where(material.rows < 0, -1, labels[material.rows])
    targets = {k: torch.from_numpy(v).to(device) for k, v in on_device.items() if k in adapter.loss.takes}
    parts = features.feed(material.source, material.rows, len(frames.row), seed)

    opposite = _opposites(config, frames)

    def make_sampler(windows: np.ndarray) -> Any:
        at = train[windows]
        return build_sampler(
            config.sampler, config.sampler_options, labels=frames.label[at], videos=frames.video[at],
            groups=frames.group[at], frames=material.number[at], batch_size=config.batch_size, seed=seed,
            positives=config.positives, opposites=opposite, num_views=len(material.views),
        )  # fmt: skip

    def embed() -> np.ndarray:
        return adapter.embed(material.source, torch.from_numpy(material.rows).to(device)).cpu().numpy()

    schedule = Schedule(
        config.epochs, config.learning_rate, (config.optim_betas[0], config.optim_betas[1]), config.weight_decay,
        config.warm_up, config.decay, config.clip_norm, config.precision,
    )  # fmt: skip
    return Trainer(adapter, schedule, parts, make_sampler, targets, len(train), embed)


def _epoch(trainer: Trainer, epoch: int, material: Material) -> dict[str, float]:
    frames, config = material.frames, material.config
    try:
        return trainer.epoch(epoch - 1)
    except NotFinite as error:
        names = [frames.videos[v] for v in np.unique(frames.video[frames.centres("train")[error.windows]])]
        some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise UserError(
            f"{error} (videos {some}): lower --learning-rate (now {config.learning_rate:g}) or --temperature "
            f"(now {config.temperature:g}); what was made up to epoch {epoch - 1} is kept"
        ) from None


def _watch(material: Material, adapter: Adapter, board: Board, epoch: int) -> float:
    """Writes the scores of both parts, and gives the one that the best epoch is chosen by."""
    found = {}
    for part, watched in material.watched.items():
        if len(watched.centres):
            found[part], cosines, _ = watched.look(adapter, material.source)
            board.scalars(found[part], part, epoch)
            board.cosines(**cosines, part=part, epoch=epoch) if cosines else None
    return found.get("select", {}).get(adapter.facts["select_by"], float("nan"))


def _draw(material: Material, adapter: Adapter, board: Board, epoch: int) -> None:
    """The best epoch's validation windows as pictures and in the projector."""
    watched, frames, config = material.watched["val"], material.frames, material.config
    adapter.modules().to(material.device)
    _, _, embeddings = watched.look(adapter, material.source)
    z, label, video = embeddings.cpu().numpy(), frames.label[watched.centres], frames.video[watched.centres]
    if frames.classes:
        has = label >= 0
        board.similarity(z[has], label[has], video[has], frames.classes, "val", epoch)
        if "classes" in adapter.loss.predictors:
            predicted = watched.predicted(adapter, "classes", embeddings).argmax(1)
            board.confusion(label[has], predicted[has], frames.classes, "val", epoch)
    some = evenly(len(z), SHOWN)
    columns = {
        "emotion": [frames.classes[k] if k >= 0 else "" for k in label[some]],
        "video": [frames.videos[v] for v in video[some]],
        "frame": frames.frame[watched.centres][some].tolist(),
    }
    table = frame_table(config.data, config.frames)
    board.projector(z[some], columns, _pictures(table, columns["video"], columns["frame"]))


def _pictures(table: Path | None, videos: list[str], numbers: list[int]) -> np.ndarray | None:
    if table is None:
        return None
    frames = read_frames(table)
    path = frames.table.set_index(["video", "frame"])["path"]
    return thumbnails(frames.root, path.reindex(list(zip(videos, numbers, strict=True))).fillna("").tolist())


def _restored(material: Material, trainer: Trainer, path: Path) -> tuple[int, dict[str, Any], int]:
    """Puts the stored state back; gives its epoch, the best one till then, and the epochs since."""
    tensors, facts, seen = load_state(path)
    if other := differences(facts["made_by"], material.facts["made_by"]):
        raise UserError(f"{path.parent} was trained on other features than this store has: {other}")
    _refuse_other_parts(material, path.parent, seen)
    trainer.restore(tensors)
    print(f"{path.parent}: goes on after epoch {facts['epoch']}")
    return facts["epoch"], _scored(facts["best"]), facts["waited"]


def _scored(best: dict[str, Any]) -> dict[str, Any]:
    """The best epoch as a file has it, where a score that is not a number is null."""
    scores = ("select", "untrained")
    return best | {name: float("nan") if best[name] is None else best[name] for name in scores}


def _write_summary(folder: Path, scores: list[dict[str, Any]]) -> None:
    """The best epochs, and which checkpoints they are: what DVC's evaluate stage depends on.

    The run's folder itself would be other bytes after each training: TensorBoard's event files tell the time.
    """
    found = sorted(folder.rglob("best.safetensors"))
    checkpoints = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    write_json(
        folder / "summary.json", {"run": folder.name, "seeds": scores, "checkpoints": checkpoints}, sort_keys=True
    )


def _refuse_other_parts(material: Material, place: Path, seen: dict[str, Seen] | None) -> None:
    """Raises ``UserError`` where the labels put other videos into a part than when the seed was trained up to here."""
    way_out = "Put the labels and the split of then back, or train a new run"
    refuse_seen(str(place), seen, material.held, "validation", way_out)
    for part in ("train", "select"):
        if part in seen and seen[part] != material.seen.get(part):
            groups, videos = material.frames.names_of(part)
            known_groups, known_videos = seen[part].known(groups, videos)
            new = sorted({*videos} - {*known_videos}) + sorted({*groups} - {*known_groups})
            gone = len(seen[part].videos) - len(known_videos)
            more = f"{len(new):,} videos or groups are new ({some(new)})" if new else "no video or group is new"
            raise UserError(
                f"{place} cannot go on: its {part} part is another now than when it was begun: {more}, and {gone:,} "
                f"videos are gone. {way_out}"
            )


def _write_config(folder: Path, config: TrainConfig) -> None:
    plain = {k: v.as_posix() if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    write_json(folder / "config.json", plain, sort_keys=True, sealed=True)


def _evaluate(config: TrainConfig, folder: Path, params: list[str]) -> None:
    """In a process of its own: training that imported the evaluation would be trained again whenever that is edited."""
    command = [sys.executable, "-m", "pipeline.evaluation.evaluate", "--run", str(folder), "--data", str(config.data)]
    command += ["--labels", str(config.labels), "--output", str(folder), "--device", config.device]
    command += ["--top-k", *map(str, config.top_k)] + (["--frames", str(config.frames)] if config.frames else [])
    command += [*(["--all"] if config.all else []), *params]
    if children.run(command):
        raise UserError(f"the run is trained, but could not be evaluated: {' '.join(command[1:])}")


def _mean_and_deviation(values: list[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    entry(main)
