"""What training costs beside the arithmetic alone, and beside an ordinary DataLoader, in one run.

    python benchmarks/training.py                                    50,000 frames, frames and windows of 15
    python benchmarks/training.py --frames 587000 --windows 15       ABAW's labelled training frames (1.5 GB)
    python benchmarks/training.py --device cuda --frames 587000 --batches 200
    python benchmarks/training.py --checkout ../old --models mlp tcn gru             beside another checkout, in turns
    python benchmarks/training.py --checkout ../old --epochs 150                     the whole command
    python benchmarks/training.py --views 3 --width 128              epochs with and without 'augment', in turns

The same head (mlp), loss (SupCon) and update (AdamW, gradients clipped) three times:

    (a) alone    forward, backward and update on one batch that lies there: as fast as it can be
    (b) ours     every batch gathered from the features in memory, centred, as train.py does
    (c) loader   the same batches from a torch DataLoader with workers over the same array, a window an item

(c) is spared the centring. The rounds of the three alternate and the median counts, since other work on the machine
comes and goes; the ratios are medians of the rounds' own ratios. The workers' start is not timed.

With ``--checkout`` it is ``train.py`` of both checkouts, each on the store, tables and projection in its own folder
``--data`` (made by 'dvc repro reduce', say), without evaluation, one seed and one thread. Of its epochs the fastest
counts, and processor seconds, which other work on the machine disturbs less. Looking is what is measured of watched
frames while it trains, spread over the epochs.

With ``--views`` it is whole epochs as ``train.py`` reads them, of the original alone and with the view of each window
drawn from so many more, on a made store: from memory, and from disk with room for a quarter of the original. Median of
the turns' own ratios of processor seconds; opening and holding the features is not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.adapter.front import Front
from pipeline.adapter.heads.build import build_head
from pipeline.adapter.pooling import mean
from pipeline.adapter.sources import FromDisk, InMemory
from pipeline.adapter.windows import Window
from pipeline.core.device import pick_device
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.training.feed import Shards, feed
from pipeline.training.losses.build import build_loss
from pipeline.training.samplers.build import build_sampler
from pipeline.training.view_draw import NEIGHBOURS, ViewDraw

# Features (B, T, D), valid (B, T) and labels (B,); or, of frames that are there once, (n, D), place (B, T) and labels.
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
NUM_CLASSES, VIDEO_FRAMES = 8, 1000
EPOCHS, ABAW_WINDOWS = 150, 587_000
UNTIMED = 5  # batches at the start of a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 15], help="frames in a window; 1: frames alone")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=30, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--checkout", type=Path, help="another checkout of this project, to compare 'train.py' with")
    parser.add_argument("--data", type=Path, default=Path("data"), help="in both checkouts: features.zarr and tables")
    parser.add_argument("--models", nargs="+", default=["mlp"], help="heads that are compared")
    parser.add_argument("--epochs", type=int, default=5, help="of each run that is compared")
    parser.add_argument("--turns", type=int, default=3, help="of each run that is compared")
    parser.add_argument("--views", type=int, help="augmented views, to compare epochs with and without them")
    given = parser.parse_args()
    if given.checkout:
        return compare(given)
    device = pick_device(given.device)
    if given.views:
        return compare_views(given, device)
    features = made(given.frames, given.width)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{given.frames:,} x {given.width:,} float16 in memory, batch {given.batch_size}, {name}\n")
    print("| window | (a) alone, windows/s | (b) ours | (c) loader | (b) time of (a)'s | (b) faster than (c) |")
    print("| --- | --- | --- | --- | --- | --- |")
    hours = {}
    for length in given.windows:
        a, b, c = measured(given, features, length, device)
        rate = {way: given.batches * given.batch_size / median(times) for way, times in (("a", a), ("b", b), ("c", c))}
        of_a, of_c = (median(x / y for x, y in zip(p, q, strict=True)) for p, q in ((b, a), (c, b)))
        print(f"| {length} | {rate['a']:,.0f} | {rate['b']:,.0f} | {rate['c']:,.0f} | {of_a:.2f} | {of_c:.2f} |")
        hours[length] = EPOCHS * ABAW_WINDOWS / rate["b"] / 3600
    print(f"\n{EPOCHS} epochs of {ABAW_WINDOWS:,} windows at the rate of (b): ", end="")
    print(", ".join(f"{took:.2g} hours with windows of {length}" for length, took in hours.items()))


# Runs train.py of the checkout it is started in, and says what its epochs and looks took; both have had these names
# since there was a benchmark.
PROBE = """
import json, sys, time
sys.path.insert(0, ".")
import train
from pipeline.training.loop import Trainer
from pipeline.training.watch import Watched

took = {"epoch": [], "look": [], "windows": 0}

def timed(function, key):
    def run(self, *given, **named):
        start = time.process_time()
        result = function(self, *given, **named)
        took[key].append(time.process_time() - start)
        took["windows"] = getattr(self, "num_windows", took["windows"])
        return result
    return run

Trainer.epoch = timed(Trainer.epoch, "epoch")
for name in {"look", "select"} & {*vars(Watched)}:
    setattr(Watched, name, timed(getattr(Watched, name), "look"))
train.main(sys.argv[1:])
print("took" + json.dumps(took | {"all": time.process_time()}))
"""


def compare(given: argparse.Namespace) -> None:
    """Prints what training costs here and in the other checkout, a line for each head and length of windows."""
    sides = {"here": Path(__file__).resolve().parent.parent, "there": given.checkout.resolve()}
    print(f"{given.epochs} epochs, batches of {given.batch_size}, processor seconds of one thread\n")
    print(
        "| head | window | windows/s here | there | times | look/epoch here | there | whole here, s | there | share |"
    )
    print("|" + " --- |" * 10)
    for model in given.models:
        for length in given.windows:
            runs: dict[str, list[dict]] = {side: [] for side in sides}
            for _ in range(given.turns):
                for side, root in sides.items():
                    runs[side].append(probed(root, given, model, length))
            rate, look, whole = {}, {}, {}
            for side, of in runs.items():
                rate[side] = of[0]["windows"] / min(seconds for run in of for seconds in run["epoch"])
                look[side] = min(sum(run["look"]) / sum(run["epoch"]) for run in of)
                whole[side] = min(run["all"] for run in of)
            speeds = [f"{rate['here']:,.0f}", f"{rate['there']:,.0f}", f"{rate['here'] / rate['there']:.2f}"]
            shares = [f"{look['here']:.0%}", f"{look['there']:.0%}"]
            wholes = [f"{whole['here']:.1f}", f"{whole['there']:.1f}", f"{whole['here'] / whole['there']:.2f}"]
            print("| " + " | ".join([model, str(length), *speeds, *shares, *wholes]) + " |", flush=True)


def probed(root: Path, given: argparse.Namespace, model: str, length: int) -> dict:
    """What the epochs and looks of a run took; a failure ends the benchmark."""
    files = {"-d": "features.zarr", "--labels": "labels.parquet", "--frames": "frames.parquet"}
    flags = [word for flag, name in files.items() for word in (flag, str(given.data / name))]
    if (root / given.data / "projection.safetensors").is_file():
        flags += ["--projection", str(given.data / "projection.safetensors")]
    else:
        flags += ["--no-reduce"]
    flags += ["--model", model, "--window", str(length), "--batch-size", str(given.batch_size)]
    flags += ["-e", str(given.epochs), "-r", "1", "--device", "cpu", "--no-evaluate"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *flags, "-s", folder], cwd=root, capture_output=True, text=True, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"train.py in {root}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.rpartition("took")[2])


def compare_views(given: argparse.Namespace, device: torch.device) -> None:
    """Prints what an epoch costs with ``augment`` beside one without, a line for each place and length of windows."""
    frames, views = np.arange(given.frames), ["original", *(f"augmented_{n + 1}" for n in range(given.views))]
    front = Front(given.width, None)
    print(f"{given.frames:,} x {given.width:,} float16 in {len(views)} views, batch {given.batch_size}\n")
    print("| from | window | windows/s | with augment | time of an epoch |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        store = made_store(Path(folder) / "s.zarr", given, views)
        for place, room in (("memory", sys.maxsize), ("disk", given.frames * given.width // 2)):
            for length in given.windows:
                rows = Window(length).over(frames // VIDEO_FRAMES, frames % VIDEO_FRAMES).centred(frames)
                ways = []
                together = 1 if length == 1 else NEIGHBOURS
                drawn = ViewDraw(len(views), 0, augment=True, paired=False, together=together)
                for of, draw in ((views[:1], None), (views, drawn)):
                    source = FromDisk(store, frames, front, device, of, room)
                    step = step_of(given.width, device, length > 1 and device.type != "cuda")
                    ways.append((feed(source, rows, given.frames, 0, None, draw), step))
                took: list[list[float]] = [[], []]
                for turn in range(given.turns + 1):
                    for (shards, step), seconds in zip(ways, took, strict=True):
                        seconds.append(epoch_of(shards, step, turn, given, length, device))
                rate = [given.frames / median(seconds[1:]) for seconds in took]
                ratio = median(b / a for a, b in zip(*(seconds[1:] for seconds in took), strict=True))
                print(f"| {place} | {length} | {rate[0]:,.0f} | {rate[1]:,.0f} | {ratio:.2f} |", flush=True)


def made_store(path: Path, given: argparse.Namespace, views: list[str]) -> FeatureStore:
    """One video a ``VIDEO_FRAMES`` frames; every view is of the same random numbers."""
    features, size = made(given.frames, given.width), 8192
    with StoreWriter(path, {"backbone": "none"}, dict.fromkeys(views, given.width), size) as writer:
        for start in range(0, given.frames, size):
            number = np.arange(start, min(start + size, given.frames))
            video = [f"{n:06d}" for n in number // VIDEO_FRAMES]
            keys = pd.DataFrame({"video": video, "frame": number % VIDEO_FRAMES, "size": 1})
            writer.write(keys, dict.fromkeys(views, features[number]))
    return FeatureStore(path)


def epoch_of(
    shards: Shards, step: Callable[[Batch], None], epoch: int, given: argparse.Namespace, length: int,
    device: torch.device,
) -> float:  # fmt: skip
    """Processor seconds of one pass over all windows, every window once."""
    labels = torch.arange(given.frames, device=device) % NUM_CLASSES
    start = time.process_time()
    for shard in shards(epoch):
        sampler = build_sampler("uniform", videos=shard.windows, batch_size=given.batch_size, seed=0)
        for numbers in shard.in_views(sampler.epoch(epoch), epoch):
            taken = shard.frames(numbers) if length > 1 and device.type != "cuda" else shard.batch(numbers)
            step((*taken, labels[torch.from_numpy(shard.windows[numbers % len(shard.windows)]).to(device)]))
    wait(device)
    return time.process_time() - start


def made(frames: int, width: int) -> np.ndarray:
    """(N, D) float16, a block at a time: all of it in float32 would be as large again, twice."""
    rng, values = np.random.default_rng(0), np.empty((frames, width), dtype=np.float16)
    for start in range(0, frames, 8192):
        values[start : start + 8192] = rng.standard_normal((min(8192, frames - start), width), dtype=np.float32)
    return values


def measured(given: argparse.Namespace, features: np.ndarray, length: int, device: torch.device) -> list[list[float]]:
    """Seconds of each round of (a), (b) and (c); the first round does not count."""
    frames = np.arange(len(features))
    rows = Window(length).over(frames // VIDEO_FRAMES, frames % VIDEO_FRAMES).centred(frames)
    labels = np.random.default_rng(1).integers(0, NUM_CLASSES, len(frames))
    front = Front(given.width, None)
    front.fit([features[: 8 * given.batch_size]], "centre")
    (shard,) = feed(InMemory(torch.from_numpy(features).to(device), front.to(device)), rows, len(frames), seed=0)(0)
    on_device = torch.from_numpy(labels).to(device)
    sampler = build_sampler(
        "uniform", labels=labels, videos=frames // VIDEO_FRAMES, batch_size=given.batch_size, seed=0
    )
    count = given.batches + UNTIMED
    batches = [batch for batch in sampler.epoch(0) if len(batch) == given.batch_size]
    batches = [batches[i % len(batches)] for i in range((given.rounds + 1) * count)]
    order = Listed([])
    loader = DataLoader(
        Windows(features, rows, labels), batch_sampler=order, num_workers=given.workers,
        persistent_workers=given.workers > 0, pin_memory=device.type == "cuda",
    )  # fmt: skip

    def ours(drawn: list[np.ndarray]) -> Iterator[Batch]:
        for numbers in drawn:
            taken = shard.frames(numbers) if once else shard.batch(numbers)
            yield *taken, on_device[torch.from_numpy(numbers).to(device, non_blocking=True)]

    def loaded(drawn: list[np.ndarray]) -> Iterator[Batch]:
        order.batches = drawn
        for batch in loader:
            yield tuple(x.to(device, non_blocking=True) for x in batch)

    once = length > 1 and device.type != "cuda"  # as train.py does
    there = next(ours(batches))
    feeds = [lambda drawn: iter([there] * len(drawn)), ours, loaded]
    steps = [step_of(given.width, device, once and of != loaded) for of in feeds]
    took: list[list[float]] = [[], [], []]
    for number in range(given.rounds + 1):
        drawn = batches[number * count : (number + 1) * count]
        for way, times, step in zip(feeds, took, steps, strict=True):
            seconds = timed(way(drawn), step, device)
            if number:
                times.append(seconds)
    return took


class Windows(Dataset):
    """What one writes: an item is a window, cut from the array, float32, zeros where the video has no frame."""

    def __init__(self, features: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
        self.features, self.rows, self.labels = features, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        rows = self.rows[number]
        valid = rows >= 0
        if valid.all():
            window = self.features[rows[0] : rows[-1] + 1].astype(np.float32)
        else:
            window = np.where(valid[:, None], self.features[rows], 0).astype(np.float32)
        return torch.from_numpy(window), torch.from_numpy(valid), self.labels[number]


class Listed:
    """A batch sampler that gives ``batches``, which may be others in the next round."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def step_of(width: int, device: torch.device, once: bool) -> Callable[[Batch], None]:
    """One step of training a head of its own; all are made alike."""
    torch.manual_seed(0)
    head = build_head("mlp", num_features=width, embedding_size=128, dropout=0.4).to(device)
    loss = build_loss(
        "supcon", {}, num_classes=NUM_CLASSES, embedding_size=128, num_aus=0, class_counts=None, temperature=15.0,
        margin=None,
    ).to(device)  # fmt: skip
    parameters = [*head.parameters(), *loss.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step(batch: Batch) -> None:
        features, valid, labels = batch
        total, _ = loss((head.pooled_frames if once else head.pooled)(features, valid, mean), {"labels": labels}, {})
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def timed(batches: Iterator[Batch], step: Callable[[Batch], None], device: torch.device) -> float:
    """Seconds from batch ``UNTIMED`` on to the end."""
    start = 0.0
    for number, batch in enumerate(batches):
        if number == UNTIMED:
            wait(device)
            start = time.perf_counter()
        step(batch)
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
