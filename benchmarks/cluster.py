"""What extraction on a Ray cluster costs: the workers beside one process, and the driver's own work.

    python benchmarks/cluster.py                     both, with tf_efficientnet_b0 at 112 pixels
    python benchmarks/cluster.py --only driver       2.94 M frames in 720 chunks, whose features are made already

Workers: extraction without Ray, with one worker and with two, by turns, each in a process of its own. A worker has one
thread that computes and one that decodes. Both are held on one core, which no other worker has (Linux), as are those
of extraction without Ray. The rate is that between the fourth chunk and the last: the start of Ray and of its workers,
some seconds, is left out.

Driver: workers that answer at once, with pieces that lie on the disk. What is left is what the driver does for them:
the table is read and planned, each share is cut out and packed for its worker, 720 chunks are put into the store.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))
from pipeline.core.params import build
from pipeline.core.store import FeatureStore, StoreWriter, raw_chunk
from pipeline.core.tables import Frames, read_frames, write_frames
from pipeline.extraction import by_ray, pieces, run
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.plan import make_plan

ROOT = Path(__file__).parent.parent
FRAMES, CHUNK_ROWS, VIDEOS = 2_940_000, 4096, 600
WAYS = {"without Ray": [], "one worker": ["--ray-workers", "1"], "two workers": ["--ray-workers", "2"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["workers", "driver"], help="only this part")
    parser.add_argument("--images", type=int, default=6144, help="of each turn (6144)")
    parser.add_argument("--turns", type=int, default=3, help="of each way (3)")
    parser.add_argument("--one-turn", nargs="+", help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.one_turn:
        return one_turn(known.one_turn)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shutil.copy(ROOT / "params.yaml", "params.yaml")
        if known.only != "workers":
            driver()
        if known.only != "driver":
            workers(known.images, known.turns)
    return None


# --- the workers -----------------------------------------------------------------------------------------------------


def workers(images: int, turns: int) -> None:
    """A line for each way: images a second, and how it stands to the others turn by turn."""
    draw(images)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way, flags in WAYS.items():
            rates[way].append(rate_of([*flags, *(["--ray", "auto"] if flags else [])]))
            print(f"{way}: {rates[way][-1]:.1f} images/s", file=sys.stderr, flush=True)
    print("| way | images/s, median |\n| --- | --- |")
    for way, found in rates.items():
        print(f"| {way} | {statistics.median(found):.1f} |")
    plain, one, two = (np.array(found) for found in rates.values())
    for words, ratio in (
        ("one worker, of extraction without Ray", one / plain),
        ("two workers, of one", two / one),
        ("each of two workers, of extraction without Ray", two / 2 / plain),
    ):
        print(f"{words}: median {np.median(ratio):.3f}, from {ratio.min():.3f} to {ratio.max():.3f}, {turns} turns")


def rate_of(flags: list[str]) -> float:
    """Images a second of an extraction in a process of its own."""
    shutil.rmtree("s.zarr", ignore_errors=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--one-turn", "-d", "frames.parquet", "-s", "s.zarr"]
    command += ["--backbone", "tf_efficientnet_b0", "--weights", "random", "--input-size", "112", "--chunk-rows", "256"]
    command += ["--workers", "1", "--device", "cpu", *flags]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command[:3], " ".join(command[3:])], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def one_turn(argv: list[str]) -> None:
    """Prints the rate of an extraction from its fourth chunk on."""
    import extract

    written: list[tuple[float, int]] = []
    real = StoreWriter.write

    def write(self: StoreWriter, keys: pd.DataFrame, features: dict) -> None:
        real(self, keys, features)
        if not written:
            one_core_each()
        written.append((time.perf_counter(), len(keys)))

    with patch.object(StoreWriter, "write", write):
        extract.main(argv[0].split())
    counted = written[3 : 2 * (len(written) // 2)]  # an even number on: chunks of two workers may come in pairs
    print(sum(rows for _, rows in counted[1:]) / (counted[-1][0] - counted[0][0]))


def one_core_each() -> None:
    """Each worker stays on a core of its own from now on; without workers, this process."""
    here = psutil.Process()
    crew = [process for process in here.children(recursive=True) if process.name().startswith("ray::Extractor")]
    for core, process in enumerate(crew or [here]):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {core})


def draw(count: int) -> None:
    """A frame table of smooth random pictures, 112 pixels a side; after 512 of them the same again."""
    rng = np.random.default_rng(0)
    Path("frames").mkdir()
    for number in range(min(count, 512)):
        picture = cv2.resize(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8), (112, 112))
        cv2.imwrite(f"frames/{number:05d}.jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    rows = [("v", number, f"{number % 512:05d}.jpg", 1) for number in range(count)]
    table = pd.DataFrame(rows, columns=["video", "frame", "path", "size"])
    write_frames(Path("frames.parquet"), Frames(table, Path("frames").absolute(), "drawn", "cropped_aligned"))


# --- the driver ------------------------------------------------------------------------------------------------------


def driver() -> None:
    """Seconds of each thing that the driver does for 2.94 M frames."""
    video = np.arange(FRAMES) * VIDEOS // FRAMES
    names = pd.Series([f"video_{number:05d}" for number in range(VIDEOS)])[video].reset_index(drop=True)
    number = pd.Series(np.arange(FRAMES) % (FRAMES // VIDEOS) + 1)
    path = names + "/" + number.astype(str).str.zfill(5) + ".jpg"
    table = pd.DataFrame({"video": names, "frame": number, "path": path, "size": 4000})
    write_frames(Path("frames.parquet"), Frames(table, Path("nowhere").absolute(), "drawn", "cropped_aligned"))
    values = {"backbone": "test_efficientnet", "weights": "random", "input_size": 32, "device": "cpu", "ray": "auto"}
    config = build(ExtractConfig, values | {"store": Path("s.zarr")}, "")
    made_ready(config)

    start = time.perf_counter()
    frames = read_frames(Path("frames.parquet"))
    read = time.perf_counter() - start
    plan = make_plan(config, frames, frames.table)
    with patch.object(by_ray.cluster, "connected", no_ray), patch.object(by_ray, "Crew", AtOnce):
        start, cpu = time.perf_counter(), time.process_time()
        outcome = run.fill(plan, config.store, by_ray.on_ray(config))
        filled, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert outcome.extracted == FRAMES == len(FeatureStore(config.store).keys)
    print(
        f"driver, {FRAMES:,} frames in {AtOnce.shares} chunks: {read:.1f} s to read the table; {filled:.1f} s to plan,"
    )
    print(f"to give out ({AtOnce.packing:.1f} s of these) and to put into the store; {read + filled:.1f} s in all,")
    print(f"with {cpu:.1f} s of processors for all but the table")


def made_ready(config: ExtractConfig) -> None:
    """Pieces as workers leave them; their rows are one file, linked, since nobody looks into it."""
    folder = pieces.folder_of(config.store).absolute()
    folder.mkdir()
    with Path("rows").open("wb") as file:
        file.writelines(raw_chunk(np.ones((CHUNK_ROWS, 256), np.float16), CHUNK_ROWS))
    for number in range(-(-FRAMES // CHUNK_ROWS)):
        (folder / f"piece-{number}").mkdir()
        os.link("rows", folder / f"piece-{number}" / "original.rows")


@contextlib.contextmanager
def no_ray(address: str) -> Iterator[SimpleNamespace]:
    """In the place of Ray: a cluster of one machine without GPUs, where nothing is sent."""
    yield SimpleNamespace(put=lambda value: value, nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])


class AtOnce:
    """In the place of the workers: every share is packed as for a worker, and is done."""

    packing, shares = 0.0, 0

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def in_words(self) -> str:
        return "no worker"

    def run(self, items: object, amounts: list[int], show: object) -> Iterator[tuple[int, by_ray.Answer]]:
        import cloudpickle

        AtOnce.shares = len(items)
        for number in range(len(items)):
            start = time.perf_counter()
            cloudpickle.dumps(items[number])
            AtOnce.packing += time.perf_counter() - start
            show()
            yield number, by_ray.Answer(f"piece-{number}", list(range(amounts[number])), {}, {}, None)


if __name__ == "__main__":
    main()
