"""Stage two: trains a temporal adapter on the stored features. What is not said here is as params.yaml says.

    python train.py -e 150 -t 15                     150 epochs at temperature 15, into runs/manual/
    python train.py --model tcn --loss supcon -r 3   another head and loss, three seeds
    python train.py --run tcn_supcon                 one of the runs of params.yaml, with any flag on top
    python train.py --cpu                            the same as --device cpu; --gpu as --device cuda

The temperature is the scale on cosines: logits = t * cos. (The literature's tau is 1/t.)
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from pipeline import projection
from pipeline.device import pick_device
from pipeline.evaluation.separation import evenly, pair_cosines, separation
from pipeline.params import UserError, entry, option, parse
from pipeline.store import FeatureStore
from pipeline.tables import read_labels
from pipeline.training import loop
from pipeline.training.adapter import NORMALISATIONS, POOLINGS, Adapter, Front, build_adapter, inputs, save_adapter
from pipeline.training.data import PARTS, FrameSet, frame_set
from pipeline.training.heads import HEADS
from pipeline.training.losses import LOSSES
from pipeline.training.samplers import SAMPLERS, build_sampler
from pipeline.training.windows import centred, typical_step

WATCHED = 1000  # evenly spaced frames of a part that are looked at after each epoch
SELECT_BY = ("auc_same_different", "macro_f1")
# The columns of TensorBoard's table of runs; the same for every run, or it cannot compare them.
HPARAMS = (
    "model", "loss", "sampler", "temperature", "margin", "window", "pooling", "embedding_size", "normalise", "reduce",
    "dropout", "batch_size", "learning_rate", "weight_decay", "epochs", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Section ``train`` of params.yaml, with a run's own changes on top."""

    data: Path = option(Path("data/features.zarr"), "-d", help="the feature store")
    labels: Path = option(Path("data/labels.parquet"), help="the label table")
    output: Path = option(Path("runs/manual"), "-s", help="the folder of runs that this one is put into")
    name: str | None = option(None, help="the run's folder; default: model, loss and sampler")
    model: str = option("mlp", help="the head", choices=HEADS)
    loss: str = option("contrastive_cross_entropy", help="the loss", choices=LOSSES)
    sampler: str = option("balanced", help="what a batch is made of", choices=SAMPLERS)
    epochs: int = option(10, "-e", help="passes; what one pass is depends on the sampler; 0: the head as it starts")
    runs: int = option(1, "-r", help="seeds to train, from --seed on; their mean and deviation are the result")
    temperature: float = option(15.0, "-t", help="scale on cosines in the loss")
    margin: float | None = option(None, help="of the loss that has one; default: the loss's own")
    window: int = option(15, help="frames in a window around each labelled frame")
    step: int | None = option(None, help="frame numbers between neighbours in a window; default: as the store has them")
    pooling: str = option("mean", help="a window's embedding: mean of its frames, or its centre", choices=POOLINGS)
    embedding_size: int = option(128, help="columns of an embedding")
    dropout: float = option(0.4, help="in the head")
    normalise: str = option("centre", help="of the head's inputs, on training frames", choices=NORMALISATIONS)
    reduce: bool = option(True, help="project the features with --projection first")
    projection: Path = option(Path("data/projection.safetensors"), help="what the reduce stage made")
    test_split: float | None = option(None, help="hold out this share of groups, instead of the official validation")
    select_split: float = option(0.15, help="share of the training groups on which the best epoch is chosen")
    split_seed: int = option(0, help="of these two cuts; the training seed does not move them")
    select_by: str = option("auc_same_different", help="what the best epoch is best at", choices=SELECT_BY)
    top_k: list[int] = option([1, 5, 10], "-k", help="recall at these, in the evaluation after the training")
    batch_size: int = option(256, help="windows in a batch")
    learning_rate: float = option(1e-3, help="of AdamW")
    optim_betas: list[float] = option([0.9, 0.999], help="of AdamW")
    weight_decay: float = option(0.05, help="of AdamW")
    seed: int = option(0, help="of weights, dropout and batch order")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    evaluate: bool = option(True, help="evaluate the run when it is trained")

    def __post_init__(self) -> None:
        for name in ("runs", "window", "embedding_size"):
            if getattr(self, name) < 1:
                raise UserError(f"train: {name} must be at least 1, and is {getattr(self, name)}")
        if self.epochs < 0 or self.learning_rate <= 0 or len(self.optim_betas) != 2:
            raise UserError("train: epochs must be 0 or more, learning_rate above 0, optim_betas two numbers")
        if self.select_by == "macro_f1" and not LOSSES[self.loss].classifies:
            raise UserError(f"train: loss '{self.loss}' gives no classes, so select_by cannot be macro_f1")
        if self.select_split == 0 and self.epochs > 0:
            raise UserError("train: select_split 0 leaves nothing to choose the best epoch on")


def main(argv: Sequence[str] | None = None) -> None:
    config = _config(sys.argv[1:] if argv is None else list(argv))
    device = pick_device(config.device)
    store = FeatureStore(config.data)
    frames = frame_set(
        store, read_labels(config.labels), test_split=config.test_split, select_split=config.select_split,
        split_seed=config.split_seed,
    )  # fmt: skip
    folder = _folder(config)
    print(_found(frames, store))
    front, head_inputs = _inputs(config, store, frames, device)
    step = config.step or typical_step(frames.video, frames.frame)
    facts = _facts(config, frames, store, front, step)
    scores = []
    for seed in range(config.seed, config.seed + config.runs):
        scores.append(_train_one(config, facts, seed, folder, frames, front, head_inputs))
    summary = {"run": folder.name, "seeds": scores, "config": _plain(dataclasses.asdict(config))}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{folder}: {_mean_and_deviation([s['select'] for s in scores])} {config.select_by} on the selection part")
    if config.evaluate:
        _evaluate(config, folder)


def _config(argv: list[str]) -> TrainConfig:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--run")
    known, rest = early.parse_known_args(argv)
    sections = ["train"] + ([f"runs.{known.run}"] if known.run else [])
    short = {"--gpu": ["--device", "cuda"], "--cpu": ["--device", "cpu"]}
    rest = [word for given in rest for word in short.get(given, [given])]
    config = parse(TrainConfig, rest, sections=sections, description=__doc__)
    return config if config.name or not known.run else dataclasses.replace(config, name=known.run)


def _folder(config: TrainConfig) -> Path:
    """A new folder for the run: one that stands is never written over."""
    name = config.name or f"{config.model}-{config.loss}-{config.sampler}"
    folder = config.output / name
    if config.name and folder.exists() and any(folder.iterdir()):
        raise UserError(f"the run {folder} is there already: give another --name, or delete it")
    number = 2
    while folder.exists() and any(folder.iterdir()):
        folder, number = config.output / f"{name}-{number}", number + 1
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _found(frames: FrameSet, store: FeatureStore) -> str:
    counts = []
    for part in PARTS:
        centres = frames.centres(part)
        counts.append(f"{part} {len(centres):,} frames of {len(np.unique(frames.video[centres]))} videos")
    missing = f"; {frames.labels_without_features:,} labels have no features" if frames.labels_without_features else ""
    return f"{store.path} ({store.made_by['backbone']}): {', '.join(counts)}{missing}"


def _inputs(
    config: TrainConfig, store: FeatureStore, frames: FrameSet, device: torch.device
) -> tuple[Front, torch.Tensor]:
    features = store.read(frames.row)
    train = frames.centres("train")
    components = None
    if config.reduce:
        components = projection.load(config.projection, store.made_by)
        if components and config.test_split is not None:  # the stored one has seen frames that are now held out
            components = projection.fit(np.array_split(features[train], 16), len(components.components))
    front = Front(store.num_features, len(components.components) if components else None)
    if components:
        front.project_with(components)
    front.fit(torch.from_numpy(features[train]), config.normalise)
    return front, inputs(front, features, device)


def _facts(config: TrainConfig, frames: FrameSet, store: FeatureStore, front: Front, step: int) -> dict[str, Any]:
    """All that it takes to use the adapter without its command line."""
    return {
        **{name: getattr(config, name) for name in HPARAMS if name != "seed"},
        "step": step,
        "classes": frames.classes,
        "num_features": store.num_features,
        "num_components": len(front.components) if hasattr(front, "components") else None,
        "test_split": config.test_split,
        "select_split": config.select_split,
        "split_seed": config.split_seed,
        "made_by": store.made_by,
    }


def _train_one(
    config: TrainConfig, facts: dict[str, Any], seed: int, folder: Path, frames: FrameSet, front: Front,
    head_inputs: torch.Tensor,
) -> dict[str, Any]:  # fmt: skip
    device = head_inputs.device
    torch.manual_seed(seed)
    adapter = build_adapter(facts | {"seed": seed})
    adapter.front.load_state_dict(front.state_dict())
    adapter.modules().to(device)
    centres = {part: frames.centres(part) for part in PARTS}
    for part in ("select", "val"):
        centres[part] = centres[part][evenly(len(centres[part]), WATCHED)]
    rows = {
        part: torch.from_numpy(centred(frames.video, frames.frame, at, config.window, facts["step"])).to(device)
        for part, at in centres.items()
    }
    train = centres["train"]
    labels = torch.from_numpy(frames.label[train]).to(device)
    sampler = build_sampler(
        config.sampler, labels=frames.label[train], videos=frames.video[train], batch_size=config.batch_size, seed=seed
    )
    place = folder / f"seed_{seed}"
    best: dict[str, Any] = {"seed": seed, "epoch": None, "select": float("nan")}
    started = time.monotonic()
    with SummaryWriter(place) as board:
        _write_hparams(board, config, seed)

        def watch(epoch: int, parts: Mapping[str, float]) -> None:
            scores = {p: _scores(adapter, head_inputs, rows[p], frames, centres[p]) for p in ("select", "val")}
            for tag, value in parts.items():
                board.add_scalar(f"{tag}/train", value, epoch)
            for part, values in scores.items():
                for tag, value in values.items():
                    board.add_scalar(f"{tag}/{part}", value, epoch)
            score = scores["select"].get(config.select_by, float("nan"))
            if epoch == 0 and config.epochs > 0:
                return  # an untrained head is a baseline, not a candidate
            if best["epoch"] is None or math.isnan(best["select"]) or score > best["select"]:
                best.update(epoch=epoch, select=score)
                save_adapter(place / "best.safetensors", adapter, epoch=epoch, select=score)
            if epoch == config.epochs:
                save_adapter(place / "last.safetensors", adapter, epoch=epoch, select=score)

        def batches(epoch: int) -> list[np.ndarray]:
            return sampler.epoch(epoch)

        schedule = loop.Schedule(
            config.epochs, config.learning_rate, (config.optim_betas[0], config.optim_betas[1]), config.weight_decay
        )
        loop.train(adapter, head_inputs, rows["train"], labels, batches, schedule, watch)
    print(
        f"  seed {seed}: best epoch {best['epoch']} of {config.epochs}, {config.select_by} {best['select']:.3f} "
        f"({time.monotonic() - started:.0f} s)"
    )
    return best


def _scores(
    adapter: Adapter, head_inputs: torch.Tensor, rows: torch.Tensor, frames: FrameSet, centres: np.ndarray
) -> dict[str, float]:
    if len(centres) == 0:
        return {}
    embeddings = adapter.embed(head_inputs, rows)
    label = frames.label[centres]
    found = separation(pair_cosines(embeddings.cpu().numpy(), label, frames.group[centres], most=WATCHED))
    scores = {name: found[name] for name in ("cosine_same", "cosine_different", "auc_same_different")}
    if adapter.loss.classifies:
        with torch.inference_mode():
            predicted = adapter.loss.logits(embeddings).argmax(1).cpu().numpy()
        scores["macro_f1"] = float(
            f1_score(label, predicted, average="macro", labels=np.unique(label), zero_division=0)
        )
    return scores


def _write_hparams(board: SummaryWriter, config: TrainConfig, seed: int) -> None:
    # add_hparams would open a run of its own for this
    values = {name: _board_value(getattr(config, name)) for name in HPARAMS} | {"seed": seed}
    for summary in hparams(values, {f"{tag}/{part}": 0 for tag in SELECT_BY for part in ("select", "val")}):
        board.file_writer.add_summary(summary)


def _board_value(value: Any) -> Any:
    return "default" if value is None else value


def _evaluate(config: TrainConfig, folder: Path) -> None:
    """In a process of its own: training that imported the evaluation would be trained again whenever that is edited."""
    command = [sys.executable, "-m", "pipeline.evaluation.evaluate", "--run", str(folder), "--data", str(config.data)]
    command += ["--labels", str(config.labels), "--output", str(folder), "--device", config.device]
    command += ["--top-k", *map(str, config.top_k)]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"the run is trained, but could not be evaluated: {' '.join(command[1:])}")


def _mean_and_deviation(values: list[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.as_posix() if isinstance(value, Path) else value


if __name__ == "__main__":
    entry(main)
