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
from pipeline.emotions import opposites
from pipeline.evaluation.protocol import au_scores, expression_scores, va_scores
from pipeline.evaluation.retrieval import knn_predict, recall_at_k
from pipeline.evaluation.separation import evenly, pair_cosines, separation
from pipeline.evaluation.steadiness import steadiness
from pipeline.params import UserError, entry, option, parse
from pipeline.store import FeatureStore
from pipeline.tables import Labels, read_labels
from pipeline.training import features
from pipeline.training.adapter import Adapter, load_adapter
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
    opposites: list = option(["plutchik", "valence"], help="sets or pairs of opposite emotions")
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
            store, labels, tracks=facts["tracks"], test_split=facts["test_split"], select_split=facts["select_split"],
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
    source = features.open_inputs(store, frames.row, adapter.front, device)
    val, embedded = frames.centres("val"), {}
    train = np.union1d(frames.centres("train"), frames.centres("select"))
    train = train[frames.label[train] >= 0] if frames.classes else train
    train = train[evenly(len(train), config.most_neighbours)]
    for part, centres in (("train", train), ("val", val)):
        rows = centred(frames.video, frames.frame, centres, adapter.facts["window"], adapter.facts["step"])
        embedded[part] = adapter.embed(source, torch.from_numpy(rows).to(device))
    said = {}
    for what in adapter.loss.predictors:
        with torch.inference_mode():
            said[what] = adapter.loss.predict(what, embedded["val"]).cpu().numpy()
    found = {}
    if (has := frames.label[val] >= 0).any():
        step = typical_step(frames.video, frames.frame)
        z = {part: x.cpu().numpy() for part, x in embedded.items()}
        found |= _of_expressions(config, frames, train, z["train"], val[has], z["val"][has], step)
        if "classes" in said:
            found["macro_f1"] = expression_scores(frames.label[val], said["classes"].argmax(1), frames.classes)[
                "macro_f1"
            ]
    if "va" in said:
        found |= {k: v for k, v in va_scores(frames.va[val], said["va"]).items() if k != "frames_scored"}
    if "aus" in said:
        found["au_f1"] = au_scores(frames.aus[val], said["aus"], frames.au_names, threshold=0.0)["au_f1"]
    return {name: None if math.isnan(value) else float(value) for name, value in found.items()}


def _of_expressions(
    config: EvaluateConfig, frames: FrameSet, train: np.ndarray, z_train: np.ndarray, val: np.ndarray, z: np.ndarray,
    step: int,
) -> dict[str, float]:  # fmt: skip
    label, group = frames.label[val], frames.group[val]
    opposite = opposites(config.opposites, frames.classes)
    found = separation(pair_cosines(z, label, group, opposite, config.most_pairs_of))
    chosen = evenly(len(val), config.most_pairs_of)
    found |= recall_at_k(z[chosen], label[chosen], group[chosen], config.top_k)[0]
    knn = knn_predict(z_train, frames.label[train], z, config.neighbours, len(frames.classes))
    found["knn_accuracy"] = accuracy_score(label, knn)
    found["knn_macro_f1"] = f1_score(label, knn, labels=np.unique(label), average="macro")
    return found | steadiness(z, knn, label, frames.video[val], frames.frame[val], step)


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
        "opposites": [[frames.classes[a], frames.classes[b]] for a, b in opposites(config.opposites, frames.classes)],
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
