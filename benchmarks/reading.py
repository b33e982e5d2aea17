"""What reading costs: the feature store beside numpy, zarr, h5py and a plain .npy, in one run.

    python benchmarks/reading.py                        100,000 x 1,280 float16 (256 MB in each of five forms)
    python benchmarks/reading.py --rows 20000 --folder /data/tmp

Everything is read once before it is timed, so it comes from the page cache: what is compared is the way, not the disk.
Rounds alternate between the ways and the median of them counts, since other work on the machine comes and goes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import h5py
import numpy as np
import pandas as pd
import torch
import zarr

from pipeline.adapter import sources as features
from pipeline.adapter.front import Front
from pipeline.core.store import FeatureStore, StoreWriter

Read = Callable[[np.ndarray], np.ndarray]  # rows (n,) -> (n, D)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--chunk-rows", type=int, default=4096)
    parser.add_argument("--window", type=int, default=15, help="rows of a window")
    parser.add_argument("--windows", type=int, default=300, help="in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Path(folder), given.rows, given.width, given.chunk_rows)
        load(Path(folder), given.rows, given.width, given.rounds)
        checks(Path(folder), given.rows, given.width, given.rounds)
        windows(Path(folder), given.rows, given.window, given.windows, given.rounds)


def write(folder: Path, rows: int, width: int, chunk_rows: int) -> None:
    """The same features as a store, a raw file, a .npy, and in HDF5 contiguous and chunked."""
    rng = np.random.default_rng(0)
    values = np.empty((rows, width), dtype=np.float16)
    for start in range(0, rows, chunk_rows):
        values[start : start + chunk_rows] = rng.standard_normal(
            (min(chunk_rows, rows - start), width), dtype=np.float32
        )
    with StoreWriter(folder / "s.zarr", {"backbone": "none"}, {"original": width}, chunk_rows) as writer:
        for start in range(0, rows, chunk_rows):
            part = values[start : start + chunk_rows]
            keys = pd.DataFrame({"video": "v", "frame": range(start, start + len(part)), "size": 0})
            writer.write(keys, {"original": part})
    values.tofile(folder / "raw.bin")
    np.save(folder / "plain.npy", values)
    with h5py.File(folder / "contiguous.h5", "w") as file:
        file.create_dataset("features", data=values)
    with h5py.File(folder / "chunked.h5", "w") as file:
        file.create_dataset("features", data=values, chunks=(min(chunk_rows, rows), width))


def load(folder: Path, rows: int, width: int, rounds: int) -> None:
    """All rows into memory, and four fifths of them as a training split is: whole videos of 50 to 500 rows."""
    store = FeatureStore(folder / "s.zarr")
    array = zarr.open_group(folder / "s.zarr", mode="r")["views/original"]
    everything, split = np.arange(rows), videos(rows)
    expected = np.load(folder / "plain.npy", mmap_mode="r")
    ways: dict[str, Callable[[], np.ndarray]] = {
        "`np.fromfile`, the same bytes": lambda: np.fromfile(folder / "raw.bin", np.float16, rows * width),
        "`FeatureStore.read`, all rows": lambda: store.read(everything),
        "zarr's own `array[:]`": lambda: array[:rows],
        "h5py, contiguous": lambda: h5py.File(folder / "contiguous.h5")["features"][:],
        "h5py, chunked": lambda: h5py.File(folder / "chunked.h5")["features"][:],
        "`.npy` memory map, copied": lambda: np.array(np.load(folder / "plain.npy", mmap_mode="r")),
        "`np.fromfile`, as many bytes as the split": lambda: np.fromfile(
            folder / "raw.bin", np.float16, len(split) * width
        ),
        "`FeatureStore.read`, the split": lambda: store.read(split),
        "`.npy` memory map, the split": lambda: np.load(folder / "plain.npy", mmap_mode="r")[split],
    }
    for name, way in ways.items():
        got = way().reshape(-1, width)
        assert np.array_equal(got[-1], expected[split[-1] if "split" in name and "bytes" not in name else len(got) - 1])
    seconds = timed(ways, rounds)
    print(f"\n| whole load, {rows:,} x {width:,} float16, from the page cache | GB/s | of `np.fromfile` |")
    print("| --- | --- | --- |")
    for name, took in seconds.items():
        count = len(split) if "split" in name else rows
        whole = "`np.fromfile`, as many bytes as the split" if "split" in name else "`np.fromfile`, the same bytes"
        print(f"| {name} | {count * width * 2 / took / 1e9:.2f} | {seconds[whole] / took:.2f} |")


def checks(folder: Path, rows: int, width: int, rounds: int) -> None:
    """What it costs that a chunk's checksum is checked when it is first read: processor time with and without.

    The least processor time and not seconds: other work on the machine moves these by more than what is measured.
    """
    torch.set_num_threads(1)
    everything, split, device = np.arange(rows), videos(rows), torch.device("cpu")
    plain, projected = Front(width, None), Front(width, min(128, width))
    ways: dict[str, Callable[[FeatureStore], object]] = {
        "`FeatureStore.read`, all rows": lambda store: store.read(everything),
        "`FeatureStore.read`, the split": lambda store: store.read(split),
        "training's load of the split, as it is": lambda store: features.load(store, split, plain, device),
        "training's load of the split, PCA 128": lambda store: features.load(store, split, projected, device),
    }
    print(f"\n| store opened, rows first read, {rows:,} x {width:,} float16 | without checksums, ms | with | more |")
    print("| --- | --- | --- | --- |")
    for name, way in ways.items():
        took: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * (rounds + 1)):
            start = time.process_time()
            store = FeatureStore(folder / "s.zarr")
            if number % 2 == 0:
                store._checked = {("original", index) for index in range(-(-rows // store.chunk_rows))}
            way(store)
            if number > 1:
                took[number % 2 == 1].append(time.process_time() - start)
        without, checked = min(took[False]), min(took[True])
        print(f"| {name} | {1e3 * without:,.0f} | {1e3 * checked:,.0f} | {100 * (checked / without - 1):.0f} % |")


def windows(folder: Path, rows: int, length: int, count: int, rounds: int) -> None:
    """Windows of ``length`` rows at random places, one at a time."""
    store = FeatureStore(folder / "s.zarr")
    array = zarr.open_group(folder / "s.zarr", mode="r")["views/original"]
    contiguous, chunked = (h5py.File(folder / f"{n}.h5")["features"] for n in ("contiguous", "chunked"))
    plain = np.load(folder / "plain.npy", mmap_mode="r")
    starts = np.random.default_rng(1).integers(0, rows - length, count)
    reads: dict[str, Callable[[int], np.ndarray]] = {
        "`FeatureStore.read`": lambda start: store.read(np.arange(start, start + length)),
        "zarr's own `array[a:b]`": lambda start: array[start : start + length],
        "h5py, contiguous": lambda start: contiguous[start : start + length],
        "h5py, chunked": lambda start: chunked[start : start + length],
        "`.npy` memory map, copied": lambda start: np.array(plain[start : start + length]),
    }
    for read in reads.values():
        assert all(np.array_equal(read(int(s)), plain[s : s + length]) for s in starts[:20])

    def all_of(read: Callable[[int], np.ndarray]) -> Callable[[], None]:
        return lambda: [read(int(start)) for start in starts] and None

    seconds = timed({name: all_of(read) for name, read in reads.items()}, rounds)
    print(f"\n| random windows of {length} rows, from the page cache | µs a window | times the store's |")
    print("| --- | --- | --- |")
    ours = seconds["`FeatureStore.read`"]
    for name, took in seconds.items():
        print(f"| {name} | {1e6 * took / count:,.0f} | {took / ours:.1f} |")


def videos(rows: int) -> np.ndarray:
    """Rows of about four fifths of the videos."""
    rng, parts, start = np.random.default_rng(2), [], 0
    while start < rows:
        end = min(rows, start + int(rng.integers(50, 500)))
        if rng.random() < 0.8:
            parts.append(np.arange(start, end))
        start = end
    return np.concatenate(parts)


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; the first round does not count."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:
                took[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in took.items()}


if __name__ == "__main__":
    main()
