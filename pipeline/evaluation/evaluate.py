"""The evaluate stage: what the embeddings of a trained run are worth on the validation part.

python -m pipeline.evaluation.evaluate --run runs/tcn_supcon
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score

from pipeline.device import pick_device
from pipeline.evaluation.retrieval import knn_predict, recall_at_k
from pipeline.evaluation.separation import evenly, pair_cosines, separation
from pipeline.evaluation.steadiness import steadiness
from pipeline.params import UserError, entry, option, parse
from pipeline.store import FeatureStore
from pipeline.tables import Labels, read_labels
from pipeline.training.adapter import Adapter, inputs, load_adapter
from pipeline.training.data import FrameSet, frame_set
from pipeline.training.windows import centred, typical_step


@dataclass(frozen=True)
class EvaluateConfig:
    """Section ``evaluate`` of params.yaml."""

    run: Path = option(Path("runs/manual"), help="the folder of the run")
    output: Path = option(Path("evaluation"), "-o", help="the folder for metrics.json and details.json")
    data: Path = option(Path("data/features.zarr"), "-d", help="the feature store")
    labels: Path = option(Path("data/labels.parquet"), help="the label table")
    top_k: list[int] = option([1, 5, 10], "-k", help="recall at these")
    neighbours: int = option(20, help="that vote on a frame's class")
    most_pairs_of: int = option(2000, help="evenly spaced validation frames whose pairs are compared")
    most_neighbours: int = option(20000, help="evenly spaced training frames that are candidates for neighbours")
    opposites: list[list] = option([], help="pairs of opposite classes")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EvaluateConfig, argv, sections=["evaluate"], description=__doc__)
    checkpoints = sorted(config.run.glob("seed_*/best.safetensors"), key=lambda p: int(p.parent.name[5:]))
    if not checkpoints:
        raise UserError(f"no trained run in {config.run}: seed_*/best.safetensors is what train.py makes")
    store, labels = FeatureStore(config.data), read_labels(config.labels)
    device = pick_device(config.device)
    seeds = []
    for path in checkpoints:
        adapter = load_adapter(path, store.made_by)
        facts = adapter.facts
        frames = frame_set(
            store, labels, test_split=facts["test_split"], select_split=facts["select_split"],
            split_seed=facts["split_seed"],
        )  # fmt: skip
        if frames.classes != facts["classes"]:
            raise UserError(f"{path} knows the classes {facts['classes']}, and {config.labels} has {frames.classes}")
        seeds.append(scores(config, adapter, store, frames, device))
    metrics = {name: _over(np.mean, [s[name] for s in seeds]) for name in seeds[0]}
    deviation = {name: _over(_deviation, [s[name] for s in seeds]) for name in seeds[0]}
    about = _about(config, facts, labels, frames, len(seeds))
    config.output.mkdir(parents=True, exist_ok=True)
    _write(config.output / "metrics.json", metrics)
    _write(config.output / "details.json", {"about": about, "mean": metrics, "deviation": deviation, "seeds": seeds})
    print(f"{config.run}: {about['val_frames']:,} validation frames of {about['val_videos']} videos ({labels.dataset})")
    for name, value in metrics.items():
        if value is not None:
            spread = f" ± {deviation[name]:.3f}" if deviation[name] is not None else ""
            print(f"  {name:24} {value:.3f}{spread}")


def scores(
    config: EvaluateConfig, adapter: Adapter, store: FeatureStore, frames: FrameSet, device: torch.device
) -> dict[str, float | None]:
    """All metrics of one trained adapter; None where a metric has nothing to be measured on."""
    adapter.modules().to(device)
    head_inputs = inputs(adapter.front, store.read(frames.row), device)
    train, val = np.union1d(frames.centres("train"), frames.centres("select")), frames.centres("val")
    train = train[evenly(len(train), config.most_neighbours)]
    embedded = {}
    for part, centres in (("train", train), ("val", val)):
        rows = centred(frames.video, frames.frame, centres, adapter.facts["window"], adapter.facts["step"])
        embedded[part] = adapter.embed(head_inputs, torch.from_numpy(rows).to(device))
    z, label = embedded["val"].cpu().numpy(), frames.label[val]
    chosen = evenly(len(val), config.most_pairs_of)
    found = separation(
        pair_cosines(z, label, frames.group[val], _opposites(config, frames.classes), config.most_pairs_of)
    )
    found |= recall_at_k(z[chosen], label[chosen], frames.group[val][chosen], config.top_k)[0]
    knn = knn_predict(
        embedded["train"].cpu().numpy(), frames.label[train], z, config.neighbours, len(frames.classes)
    )  # fmt: skip
    present = np.unique(label)
    found["knn_accuracy"] = accuracy_score(label, knn)
    found["knn_macro_f1"] = f1_score(label, knn, labels=present, average="macro")
    if adapter.loss.classifies:
        with torch.inference_mode():
            predicted = adapter.loss.logits(embedded["val"]).argmax(1).cpu().numpy()
        found["macro_f1"] = f1_score(label, predicted, labels=present, average="macro")
    found |= steadiness(z, knn, label, frames.video[val], frames.frame[val], typical_step(frames.video, frames.frame))
    return {name: None if math.isnan(value) else float(value) for name, value in found.items()}


def _opposites(config: EvaluateConfig, classes: list[str]) -> list[tuple[int, int]]:
    """Class codes; a pair with a class that the data set does not have is left out."""
    for pair in config.opposites:
        if len(pair) != 2:
            raise UserError(f"evaluate: opposites must be pairs of classes, and {pair} is none")
    return [(classes.index(a), classes.index(b)) for a, b in config.opposites if a in classes and b in classes]


def _about(
    config: EvaluateConfig, facts: dict[str, Any], labels: Labels, frames: FrameSet, num_seeds: int
) -> dict[str, Any]:
    val, train = frames.centres("val"), np.union1d(frames.centres("train"), frames.centres("select"))
    split = facts["test_split"]
    return {
        "run": config.run.name,
        "dataset": labels.dataset,
        "backbone": facts["made_by"]["backbone"],
        "backbone_weights": facts["made_by"]["source"],
        "input_size": facts["made_by"]["input_size"],
        **{k: facts[k] for k in ("model", "loss", "sampler", "temperature", "window", "pooling", "epochs", "reduce")},
        "seeds": num_seeds,
        "val_split": "official" if split is None else f"{split} of the groups, drawn with seed {facts['split_seed']}",
        "train_frames": len(train),
        "val_frames": len(val),
        "val_videos": len(np.unique(frames.video[val])),
        "pairs_of": min(len(val), config.most_pairs_of),
        "knn_candidates": min(len(train), config.most_neighbours),
        "opposites": [[frames.classes[a], frames.classes[b]] for a, b in _opposites(config, frames.classes)],
    }


def _over(function: Any, values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return None if not known or (function is _deviation and len(known) < 2) else float(function(known))


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    entry(main)
