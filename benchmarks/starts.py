"""What a start of the backbone is worth: a classifier from random weights, from SimSiam, and from ready-made ones.

    python benchmarks/starts.py --pictures FOLDER -o starts        class folders below train and val (or validation)
    python benchmarks/starts.py --pictures FOLDER -o starts --size 64 --pretrain 50 --epochs 20

For each seed SimSiam trains drawn weights on the training pictures, without their labels (Chen and He's rule: SGD of
0.05 times the batch / 256, weight decay 1e-4, cosine; the last epoch). Then a classifier, a linear layer on the
backbone, is trained from each start, backbone and all, with the same parameters; its best epoch is chosen on a part of
train. Two numbers more are of each start as it is: 20 neighbours, and a linear probe. All are of the validation part.
What is there already is not made again, and the table is written after each seed.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
STILL = ["--window", "1", "--pooling", "centre", "--no-reduce", "--no-evaluate", "-r", "1"]
TRAINED = [
    *STILL,
    "--unfreeze",
    "all",
    "--batch-norm",
    "train",
    "--backbone-rate",
    "1",
    "--layer-decay",
    "1",
    "--augment",
]
FROZEN = [*STILL, "--model", "identity", "-e", "0"]
NUMBERS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "knn_accuracy": "20-NN accuracy",
    "probe_macro_f1": "probe F1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="everything is made in this folder")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--pretrain", type=int, default=16, help="epochs of SimSiam, each of half of the pictures, twice"
    )
    parser.add_argument("--epochs", type=int, default=6, help="of the classifier")
    parser.add_argument("--batch-size", type=int, default=128, help="of SimSiam, both views counted; classifier: half")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    pictures = args.pictures.resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    os.chdir(args.output)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    if not Path("data/features.zarr").exists():
        call("-m", "pipeline.datasets.index", "--name", "folder", "--root", str(pictures))
        call(str(ROOT / "extract.py"), "--backbone", args.backbone, "--input-size", str(args.size), "--fit", "squash",
             "--device", args.device)  # fmt: skip
    for seed in range(args.seeds):
        one_seed(args, seed)
        table(range(seed + 1))


def one_seed(args: argparse.Namespace, seed: int) -> None:
    simsiam = f"pretrained-{seed}"
    rate = 0.05 * args.batch_size / 256
    train(args, simsiam, seed, *TRAINED, "--backbone-start", "random", "--loss", "simsiam", "--sampler", "views",
          "--model-options", "{hidden_size: 512}", "--embedding-size", "512", "--dropout", "0", "--optimizer", "sgd",
          "--learning-rate", str(rate), "--weight-decay", "1e-4", "--batch-size", str(args.batch_size),
          "-e", str(args.pretrain), "--keep", "last")  # fmt: skip
    # A step of no size, for the features of drawn weights.
    train(args, f"drawn-{seed}", seed, *TRAINED, "--backbone-start", "random", "--loss", "cross_entropy", "--model",
          "identity", "--steps", "1", "--learning-rate", "1e-30")  # fmt: skip
    starts = {"random": ("random", f"runs/manual/drawn-{seed}/seed_{seed}/features.zarr"),
              "SimSiam": (f"runs/manual/{simsiam}", f"runs/manual/{simsiam}/seed_{seed}/features.zarr"),
              "ready-made": ("weights", "data/features.zarr")}  # fmt: skip
    for start, (weights, store) in starts.items():
        name = f"{start}-{seed}"
        train(args, name, seed, *TRAINED, "--backbone-start", weights, "--loss", "cross_entropy", "--model", "identity",
              "--batch-size", str(args.batch_size // 2), "-e", str(args.epochs))  # fmt: skip
        evaluate(args, name)
        train(args, f"{name}-frozen", seed, *FROZEN, "-d", store, "--labels", "data/labels.parquet")
        evaluate(args, f"{name}-frozen", "-d", store, "--labels", "data/labels.parquet")


def train(args: argparse.Namespace, name: str, seed: int, *flags: str) -> None:
    if not Path(f"runs/manual/{name}/seed_{seed}/last.safetensors").exists():
        call(str(ROOT / "train.py"), "--name", name, "--seed", str(seed), "--device", args.device, *flags)


def evaluate(args: argparse.Namespace, name: str, *flags: str) -> None:
    if not Path(f"reports/{name}/metrics.json").exists():
        call("-m", "pipeline.evaluation.evaluate", "--run", f"runs/manual/{name}", "-o", f"reports/{name}",
             "--device", args.device, "--resamples", "20", "--timelines", "0", *flags)  # fmt: skip


def call(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def table(seeds: range) -> None:
    lines = [f"| start, {len(seeds)} seeds | {' | '.join([*NUMBERS.values()])} |", "| --- " * 5 + "|"]
    for start in ("random", "SimSiam", "ready-made"):
        cells = []
        for name in NUMBERS:
            frozen = "-frozen" if name.startswith(("knn", "probe")) else ""
            values = [
                json.loads(Path(f"reports/{start}-{seed}{frozen}/metrics.json").read_text())[name] for seed in seeds
            ]
            cells.append(f"{mean(values):.3f}" + (f" ({stdev(values):.3f})" if len(values) > 1 else ""))
        lines.append(f"| {start} | {' | '.join(cells)} |")
    Path("table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
