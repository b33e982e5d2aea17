"""What it costs to train on thousands of people, and to measure identification among 200 and 1,000 others.

    python benchmarks/identities.py --people 10000 --pictures 10

makes features of so many people, in half of which a person can be recognised, trains one epoch of each loss in a
process of its own, evaluates it, and prints seconds and the most memory of that process. The features show nothing of
how well real faces are told apart.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd

from pipeline.core.store import StoreWriter
from pipeline.core.tables import Frames, Labels, write_labels
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.identities import with_sets

LOSSES = {
    "arcface": ["--loss", "arcface"],
    "triplet": ["--loss", "triplet", "--loss-options", "{mining: batch_hard}"],
    "arcface + triplet": ["--loss", "{arcface: 1, triplet: 0.5}"],
}
HELD = 1200  # people of the validation part
CHUNK = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=10_000, help="people that are classes")
    parser.add_argument("--pictures", type=int, default=10, help="of each")
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        people = round(args.people / 0.85)  # of whom select_split 0.15 takes the others
        make(root, people + HELD, args.pictures, args.features)
        size = args.people * args.pictures
        print(f"about {args.people:,} classes, {size:,} training pictures of {args.features} features, batches of 256")
        for name in args.losses:
            flags = [
                "--data",
                str(root / "features.zarr"),
                "--labels",
                str(root / "labels.parquet"),
                "--output",
                folder,
            ]
            flags += [
                "--name",
                name.replace(" ", ""),
                "--window",
                "1",
                "--pooling",
                "centre",
                "--no-reduce",
                "--runs",
                "1",
            ]
            flags += ["--epochs", str(args.epochs), "--au-threshold-folds", "null", "--no-evaluate", *LOSSES[name]]
            train = timed([sys.executable, "train.py", *flags])
            run = root / name.replace(" ", "")
            words = ["--run", str(run), "--data", flags[1], "--labels", flags[3], "--output", str(run / "evaluation")]
            evaluate = timed([sys.executable, "-m", "pipeline.evaluation.evaluate", *words])
            print(f"{name:18} training {train}; evaluation {evaluate}")


def timed(command: list[str]) -> str:
    """Seconds and memory of a process of its own; what it prints is shown where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said)
    seconds = time.perf_counter() - started
    return f"{seconds:.0f} s ({usage.ru_utime + usage.ru_stime:.0f} s of processors), {usage.ru_maxrss / 1e6:.2f} GB"


def make(root: Path, people: int, pictures: int, features: int) -> None:
    """A store and a label table."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(people), pictures)
    keys = pd.DataFrame({"video": [f"{n:07d}" for n in range(len(person))], "frame": 0, "size": 10})
    centres = rng.normal(size=(people, features // 2)).astype(np.float32)
    made_by = {"backbone": "made", "source": "random", "input_size": 112, "outputs": []}
    with StoreWriter(root / "features.zarr", made_by, {"original": features}, CHUNK) as writer:
        for start in range(0, len(keys), CHUNK):
            part = keys.iloc[start : start + CHUNK]
            own = centres[person[part.index]]
            noise = rng.normal(size=(2, *own.shape)).astype(np.float32)
            writer.write(part, {"original": np.concatenate([own + 0.5 * noise[0], 2 * noise[1]], axis=1)})
    names = [f"p{n}" for n in person]
    split = np.where(person < people - HELD, "train", "val")
    table = keys[["video", "frame"]].assign(group=names, expression=names, expression_split=split, identity_set=None)
    labels = Labels(table, sorted(set(names), key=lambda name: (len(name), name)), "made")
    frames = Frames(keys.assign(path="none"), root, "made", "none")
    write_labels(root / "labels.parquet", with_sets(labels, frames, DatasetConfig(name="celeba"))[0])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
