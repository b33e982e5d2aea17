"""What several stores side by side cost beside one store of their summed width, in one run, by turns.

    python benchmarks/stores.py                              three stores of 512, 256 and 256 columns, 20,000 frames
    python benchmarks/stores.py --windows 1 15 --models mlp tcn
    python benchmarks/stores.py --frames 100000 --lacks 0.1  a tenth of the rows of each store but the first is missing

The stores are drawn, and written to a temporary folder; the one store has their columns beside each other, and zeros
where one lacks a row. Both are read through the same code (``adapter.sources``), and trained by the same head, loss and
batches:

    load      all frames from disk (warm: the files are in the system's cache) to memory, MB/s
    train     windows/s from memory: a batch gathered, forward, backward, update, as train.py does
    disk      windows/s where the frames do not fit into memory and are read in shards (``training.feed``)

Processor seconds count, which other work on the machine disturbs least. The rounds of both alternate; a ratio is the
median of the rounds' own.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
import torch

from pipeline.adapter import sources
from pipeline.adapter.front import NORMALISATIONS, Front, Fronts
from pipeline.adapter.heads.build import build_head
from pipeline.adapter.pooling import mean
from pipeline.adapter.windows import Window
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.stores import Stores, side_by_side
from pipeline.training.feed import feed
from pipeline.training.losses.build import build_loss
from pipeline.training.samplers.build import build_sampler

NUM_CLASSES, VIDEO_FRAMES, CPU = 8, 1000, torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 256, 256])
    parser.add_argument("--lacks", type=float, default=0.0, help="share of rows that each store but the first lacks")
    parser.add_argument("--normalise", default="centre", choices=NORMALISATIONS)
    parser.add_argument("--windows", type=int, nargs="+", default=[15])
    parser.add_argument("--models", nargs="+", default=["mlp"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=20, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sides = opened(given, Path(folder))
        lacks = f"{given.lacks:.0%} of rows lack" if given.lacks else "no row lacks"
        print(f"{given.frames:,} frames, columns {given.widths}, {lacks}, {given.normalise}, 1 CPU thread\n")
        print("| what | several | one | several / one |")
        print("| --- | --- | --- | --- |")
        size = given.frames * sum(given.widths) * 2 / 1e6
        line("load, MB/s", size, given.rounds, {side: loading(of) for side, of in sides.items()})
        for model in given.models:
            for length in given.windows:
                count = given.batches * given.batch_size
                train = {side: training(given, of, model, length, None) for side, of in sides.items()}
                line(f"train, {model}, window {length}, windows/s", count, given.rounds, train)
        rounds = {side: training(given, of, given.models[0], given.windows[0], size / 4) for side, of in sides.items()}
        line("disk, windows/s, a pass", given.frames, max(3, given.rounds // 3), rounds)


def opened(given: argparse.Namespace, folder: Path) -> dict[str, tuple]:
    """Source, front and row numbers of both sides."""
    rng = np.random.default_rng(0)
    number = np.arange(given.frames)
    keys = pd.DataFrame({"video": [f"v{n:05}" for n in number // VIDEO_FRAMES], "frame": number % VIDEO_FRAMES})
    each, paths = [], []
    for k, width in enumerate(given.widths):
        values = rng.standard_normal((given.frames, width), dtype=np.float32).astype(np.float16)
        there = rng.random(given.frames) >= (given.lacks if k else 0)
        values[~there] = 0
        paths.append(write(folder / f"store_{k}.zarr", keys[there], values[there], f"store {k}"))
        each.append(values)
    one = write(folder / "one.zarr", keys, np.concatenate(each, axis=1), "one")
    with contextlib.redirect_stdout(io.StringIO()):
        several = side_by_side([FeatureStore(path) for path in paths])
    sides = {"several": several, "one": FeatureStore(one)}
    return {
        side: (store, fitted(store, given.normalise), store.keys["row"].to_numpy()) for side, store in sides.items()
    }


def fitted(store: FeatureStore | Stores, normalise: str) -> Front | Fronts:
    rows = np.arange(2000)
    if isinstance(store, FeatureStore):
        front = Front(store.num_features, None)
        front.fit([store.read(rows)], normalise)
        return front
    blocks = [Front(of.num_features, None) for of in store.stores]
    for k, (block, of) in enumerate(zip(blocks, store.stores, strict=True)):
        own = store.own_rows(rows, k)
        block.fit([of.read(own[own >= 0])], normalise, to_unit=True)
    return Fronts(blocks)


def write(path: Path, keys: pd.DataFrame, values: np.ndarray, name: str) -> Path:
    with StoreWriter(path, {"backbone": name}, {"original": values.shape[1]}) as writer:
        for start in range(0, len(keys), writer.chunk_rows):
            some = slice(start, start + writer.chunk_rows)
            writer.write(keys[some].assign(size=1), {"original": values[some]})
    return path


def loading(side: tuple) -> Callable[[], None]:
    store, front, rows = side
    return lambda: sources.load(store, rows, front, CPU)


def training(
    given: argparse.Namespace, side: tuple, model: str, length: int, megabytes: float | None
) -> Callable[[], None]:
    """Trains so many batches from memory; or, within ``megabytes``, all windows once, from disk."""
    store, front, rows = side
    number = np.arange(given.frames)
    windows = Window(length).over(number // VIDEO_FRAMES, number % VIDEO_FRAMES).centred(number)
    labels = np.random.default_rng(1).integers(0, NUM_CLASSES, given.frames)
    room = sys.maxsize if megabytes is None else int(megabytes * 1e6)
    source = sources.open_inputs(store, rows, front, CPU, room=room)
    shards = feed(source, windows, given.frames, seed=0)
    torch.manual_seed(0)
    head = build_head(model, num_features=front.num_inputs, embedding_size=128, dropout=0.4)
    loss = build_loss("supcon", {}, num_classes=NUM_CLASSES, embedding_size=128, temperature=15.0)
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)

    def run() -> None:
        left = given.batches if megabytes is None else sys.maxsize
        for shard in shards(0):
            sampler = build_sampler(
                "uniform", labels=labels[shard.windows], videos=shard.windows // VIDEO_FRAMES,
                batch_size=given.batch_size, seed=0,
            )  # fmt: skip
            for numbers in sampler.epoch(0):
                if left == 0:
                    return
                left -= 1
                if head.frames_once and length > 1:
                    embeddings = head.pooled_frames(*shard.frames(numbers), mean)
                else:
                    embeddings = head.pooled(*shard.batch(numbers), mean)
                chosen = torch.from_numpy(labels[shard.windows[numbers]])
                total, _ = loss(embeddings, {"labels": chosen}, {})
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                optimizer.step()

    return run


def line(what: str, count: float, rounds: int, sides: dict[str, Callable[[], None]]) -> None:
    """Times both in turns, each first in every second round; the first round does not count."""
    took: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side in ordered(list(sides), number):
            start = time.process_time()
            sides[side]()
            took[side].append(time.process_time() - start)
    rates = {side: count / median(times[1:]) for side, times in took.items()}
    ratio = median(b / a for a, b in zip(took["several"][1:], took["one"][1:], strict=True))
    print(f"| {what} | {rates['several']:,.0f} | {rates['one']:,.0f} | {ratio:.3f} |", flush=True)


def ordered(sides: Sequence[str], number: int) -> Sequence[str]:
    return sides if number % 2 else sides[::-1]


if __name__ == "__main__":
    main()
