"""What the metrics cost: each of them once on embeddings of as many frames as ABAW's validation part, with resamples.

    python benchmarks/evaluation.py                     280,000 frames of 70 videos, 128 wide
    python benchmarks/evaluation.py --frames 20000 --width 1280

And what a trained TCN of 31 frames takes for its predictions of all frames, by a window for each and by sliding ones.

The embeddings are drawn, eight emotions in stretches of 300 frames; a metric costs the same whatever they are worth.
What the commands themselves cost on data of this size ``scale.py`` says.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

from pipeline.adapter.adapter import build_adapter
from pipeline.adapter.inference import per_frame
from pipeline.adapter.sources import InMemory
from pipeline.metrics.pair_cosines import mean_cosines
from pipeline.metrics.probes import linear_probe
from pipeline.metrics.protocol import expression
from pipeline.metrics.retrieval import knn_votes, mean_average_precision, recall
from pipeline.metrics.smoothing import fit_class_bias, smooth
from pipeline.metrics.steadiness import flips, lateness, steadiness
from pipeline.metrics.uncertainty import group_weights
from pipeline.metrics.vectors import evenly
from pipeline.metrics.verification import pair_counts, verification

CLASSES = ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"]
OPPOSITES = [(4, 5), (1, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=280_000)
    parser.add_argument("--videos", type=int, default=70)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--pairs-of", type=int, default=4000, help="frames whose pairs are counted")
    parser.add_argument("--neighbours-of", type=int, default=20_000, help="candidates, and rows of the linear probe")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    video = np.sort(rng.integers(0, given.videos, given.frames))
    frame = np.arange(given.frames) - np.searchsorted(video, video)
    label = (frame // 300 + video) % 8
    z = rng.standard_normal((given.frames, given.width), dtype=np.float32)
    z += 2 * np.eye(8, given.width, dtype=np.float32)[label]
    predicted = np.where(rng.random(given.frames) < 0.3, rng.integers(0, 8, given.frames), label)
    scores = rng.random((given.frames, 8)) + 0.3 * np.eye(8)[predicted]
    weights = group_weights(given.videos, given.resamples)
    few, train = evenly(given.frames, given.pairs_of), evenly(given.frames, given.neighbours_of)

    title = f"{given.frames:,} frames of {given.videos} videos, {given.width} wide"
    print(f"| {title} | s | resamples, s |\n| --- | --- | --- |")
    row("mean cosines and gaps, all pairs", lambda: mean_cosines(z, label, video, 8, OPPOSITES), weights)
    row(
        f"AUC, EER, F1, d', TPR, pairs of {len(few):,} frames",
        lambda: verification(pair_counts(z, label, video, 8, OPPOSITES, most=given.pairs_of)), weights,
    )  # fmt: skip
    row("steadiness", lambda: steadiness(z, label, video, frame, 1, video), weights)
    row("expressions", lambda: expression(label, predicted, video, CLASSES), weights)
    row("flips", lambda: flips(label, predicted, video, frame, 1, video), weights)
    row("switches", lambda: lateness(label, predicted, video, frame, 1, video), weights)
    row(f"recall@k, {len(few):,} frames", lambda: recall(z[few], label[few], video[few], [1, 5, 10]), weights)
    row(f"mAP@R, {len(few):,} frames", lambda: mean_average_precision(z[few], label[few], video[few]), weights)
    row(f"20 nearest of {len(train):,}", lambda: knn_votes(z[train], label[train], z, 20, 8))
    row(f"linear probe, {len(train):,} rows", lambda: linear_probe(z, label, z, given.neighbours_of))
    for kind in ("box", "gaussian", "median"):
        row(f"smoothing, {kind} of 101", lambda kind=kind: smooth(scores, video, frame, kind, 101))
    row("class biases", lambda: fit_class_bias(scores, label))
    adapter, source = build_adapter(tcn(given.width)), InMemory(torch.from_numpy(z))
    frames, windows = np.arange(given.frames), adapter.window.over(video, frame)
    for stride, words in {None: "a window for each frame", 8: "windows 8 frames apart"}.items():
        row(
            f"predictions of a TCN of 31, {words}",
            lambda stride=stride: per_frame(adapter, source, windows, frames, stride, torch.device("cpu")),
        )
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def tcn(width: int) -> dict[str, Any]:
    return {
        "model": "tcn", "model_options": {}, "num_features": width, "num_components": None, "embedding_size": 128,
        "dropout": 0.0, "classes": CLASSES, "window": {"frames": 31, "step": 1}, "pooling": "mean", "made_by": {},
        "predictors": {"cross_entropy": {"kind": "linear", "num_outputs": len(CLASSES)}},
    }  # fmt: skip


def row(name: str, make: Callable[[], Any], weights: np.ndarray | None = None) -> None:
    start = time.perf_counter()
    made = make()
    made_at = time.perf_counter()
    if weights is not None:
        made(weights)
    resampled = f"{time.perf_counter() - made_at:.2f}" if weights is not None else ""
    print(f"| {name} | {made_at - start:.2f} | {resampled} |", flush=True)


if __name__ == "__main__":
    main()
