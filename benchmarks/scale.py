"""What the commands cost on data as large as the field's largest sets, drawn in seconds: tables and a feature store.

    python benchmarks/scale.py abaw       594 videos, 2.94 M frames, 168,000 labelled to validate on
    python benchmarks/scale.py videos     100,000 videos of 30 frames, 20,000 of them to validate on
    python benchmarks/scale.py stills     60,000 images, each its own video; half to validate on
    python benchmarks/scale.py pairs      4,800 pairs of images, half to validate on; 5,488 columns
    python benchmarks/scale.py abaw --only evaluate --checkout ../old --turns 3     beside another checkout, in turns
    python benchmarks/scale.py videos --only reduce --width 1280 --chunks 8
    python benchmarks/scale.py abaw --only                                          only draws

Each command is a process of its own, of which seconds, seconds of all processors (which other work on the machine
disturbs less) and peak memory are said; the run that is evaluated is an untrained head. The data lie in data/scale/,
0.8 GB each at most, without images: a direction for each class and video, and noise. With ``--chunks`` only so many
chunks are drawn and each of the others is a hard link to one of them, so that a store of 7.5 GB takes 84 MB of the
disk: for what reads features and does not compare them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # behind PYTHONPATH, by which another checkout draws its own data

import numpy as np
import pandas as pd

try:
    from pipeline.core.store import CHUNK_ROWS, FeatureStore, StoreWriter, chunk_file
    from pipeline.core.tables import ABAW_CLASSES, Frames, Labels, write_frames, write_labels
except ModuleNotFoundError:  # an older checkout, that draws its own data
    from pipeline.store import CHUNK_ROWS, FeatureStore, StoreWriter, chunk_file
    from pipeline.tables import ABAW_CLASSES, Frames, Labels, write_frames, write_labels

ROOT = Path(__file__).resolve().parent.parent
SEGMENT = 150  # frames of one expression


@dataclass(frozen=True)
class Scale:
    """Sizes of a data set. ``train`` and ``val`` of its ``videos`` are labelled, a share of their frames each."""

    videos: int
    frames: int
    train: int
    val: int
    train_share: float = 1.0
    val_share: float = 1.0
    pairs: bool = False
    width: int = 128


SCALES = {
    # As Aff-Wild2: 587,000 of 1.23 M frames of the training videos have an expression, 168,000 of 346,000.
    "abaw": Scale(594, 2_940_000, 248, 70, 0.478, 0.485),
    "videos": Scale(100_000, 3_000_000, 80_000, 20_000),
    "stills": Scale(60_000, 60_000, 30_000, 30_000),
    "pairs": Scale(9_600, 9_600, 4_800, 4_800, pairs=True, width=112 * 7 * 7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("--folder", type=Path, default=Path("data/scale"), help="holds a folder for each scale")
    parser.add_argument("--width", type=int, help="columns of the features")
    parser.add_argument("--chunks", type=int, help="that are drawn; the others are links to them")
    parser.add_argument(
        "--only", nargs="*", help="these of torch, import, open, reduce, evaluate, report, predict; none: draw alone"
    )
    parser.add_argument("--checkout", type=Path, help="another checkout of this project, to compare with")
    parser.add_argument("--turns", type=int, default=1, help="of each command; the fastest counts")
    given = parser.parse_args()
    folder = (given.folder / (given.scale + (f"_{given.width}" if given.width else ""))).resolve()
    if not (folder / "features.zarr").is_dir():
        write(SCALES[given.scale], folder, given.width, given.chunks)
    if given.only is None or given.only:
        measure(given.scale, folder, given.only, given.checkout, given.turns)


def write(scale: Scale, folder: Path, width: int | None = None, drawn_chunks: int | None = None) -> None:
    """The tables and the store of a scale; always the same."""
    width = width or scale.width
    rng = np.random.default_rng(0)
    table = frame_table(scale)
    code, label = table.pop("code").to_numpy(), table["label"].to_numpy()
    folder.mkdir(parents=True, exist_ok=True)
    labels = label_table(scale, table)
    write_frames(folder / "frames.parquet", Frames(table[["video", "frame", "path", "size"]], folder, "drawn", "drawn"))
    write_labels(folder / "labels.parquet", Labels(labels, ABAW_CLASSES, "drawn"))
    directions = 0.25 * rng.standard_normal((len(ABAW_CLASSES), width), dtype=np.float32)
    of_video = 0.5 * rng.standard_normal((4096, width), dtype=np.float32)
    drawn_chunks = drawn_chunks or -(-len(table) // CHUNK_ROWS)
    made_by = {"backbone": "drawn", "source": "drawn", "input_size": 112}
    with StoreWriter(folder / "features.zarr", made_by, {"original": width}) as writer:
        for start in range(0, drawn_chunks * CHUNK_ROWS, CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            values = rng.standard_normal((len(code[rows]), width), dtype=np.float32)
            values += directions[label[rows]] + of_video[code[rows] % len(of_video)]
            writer.write(table[rows], {"original": values.astype(np.float16)})
        for start in range(drawn_chunks * CHUNK_ROWS, len(table), CHUNK_ROWS):
            writer.write(table[start : start + CHUNK_ROWS], {"original": np.zeros((0, width), dtype=np.float16)})
    _link(folder / "features.zarr", drawn_chunks)
    (folder / "drawn.json").write_text(json.dumps([width, drawn_chunks]), encoding="utf-8")


def frame_table(scale: Scale) -> pd.DataFrame:
    """Every frame: video (of names that sort as their ``code``), frame, path, size and ``label``."""
    code = np.arange(scale.frames) * scale.videos // scale.frames
    frame = np.arange(scale.frames) - np.searchsorted(code, code) + 1
    names = np.array([f"video_{k:06d}" for k in range(scale.videos)], dtype=object)
    if scale.pairs:
        names = np.array([f"{side}/{k:05d}" for side in ("left", "right") for k in range(scale.videos // 2)])
        code, label = np.arange(scale.videos), np.arange(scale.videos) % (scale.videos // 2) // 3 % len(ABAW_CLASSES)
    else:
        label = (frame // SEGMENT + code) % len(ABAW_CLASSES)
    video = pd.Series(names[code], dtype="str")
    path = video + "/" + pd.Series(frame).astype("str").str.zfill(5) + ".jpg"
    return pd.DataFrame({"video": video, "frame": frame, "path": path, "size": 4000, "code": code, "label": label})


def label_table(scale: Scale, table: pd.DataFrame) -> pd.DataFrame:
    """The labelled frames: the first videos train, those after them validate."""
    code = pd.factorize(table["video"])[0]
    if scale.pairs:
        pair = code % (scale.videos // 2)
        split = np.where(pair < scale.train // 2, "train", "val")
        side = np.where(code < scale.videos // 2, "left", "right")
        more = {"pair": pair.astype(str), "side": side, "same": 1, "dataset": "drawn"}
        group = pair.astype(str)
    else:
        split = np.select([code < scale.train, code < scale.train + scale.val], ["train", "val"], "none")
        more, group = {}, table["video"]
    share = np.select([split == "train", split == "val"], [scale.train_share, scale.val_share], 0)
    turn = table["frame"].to_numpy() % 1000 / 1000  # labelled and unlabelled stretches take turns
    labels = table[["video", "frame"]].assign(
        group=group, expression=np.array(ABAW_CLASSES, dtype=object)[table["label"]], expression_split=split, **more
    )
    return labels[turn < share]


def _link(path: Path, drawn: int) -> None:
    store = FeatureStore(path)
    array = store.group["views/original"]
    files = [chunk_file(path, array, index) for index in range(array.shape[0] // array.chunks[0])]
    for index in range(drawn, len(files)):
        linked = files[index].with_suffix(".link")
        os.link(files[index % drawn], linked)
        linked.replace(files[index])


def measure(name: str, folder: Path, only: list[str] | None, checkout: Path | None, turns: int) -> None:
    """Seconds and peak memory of each command, here and in another checkout, which has data of its own making."""
    sides = {"here": (ROOT, folder)}
    if checkout:
        sides["there"] = (checkout.resolve(), folder.with_name(f"{folder.name}_of_{checkout.resolve().name}"))
    commands = {side: prepared(name, root, place, folder) for side, (root, place) in sides.items()}
    units = [f"{what} {side}" for side in sides for what in ("s", "CPU s", "GB")]
    print(f"| {name} | {' | '.join(units)} |\n|{' --- |' * (1 + len(units))}")
    for command in only or commands["here"]:
        found: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
        for _ in range(turns):
            for side, (root, place) in sides.items():
                shutil.rmtree(place / "predictions", ignore_errors=True)
                found[side].append(timed(commands[side][command], root))
        best = [(*map(min, list(zip(*of, strict=True))[:2]), max(peak for *_, peak in of)) for of in found.values()]
        numbers = [f"{seconds:.1f} | {cpu:.1f} | {peak:.2f}" for seconds, cpu, peak in best]
        print(f"| {command} | {' | '.join(numbers)} |", flush=True)


def prepared(name: str, root: Path, place: Path, like: Path) -> dict[str, list[str]]:
    """The commands of a checkout on data in ``place``, which it draws, as those in ``like`` are, with a run on them."""
    if not (place / "features.zarr").is_dir():
        width, chunks = json.loads((like / "drawn.json").read_text())
        drawing = f"import scale; scale.write(scale.SCALES['{name}'], scale.Path('{place}'), {width}, {chunks})"
        timed(["-c", drawing], root)
    data = ["-d", f"{place}/features.zarr", "--labels", f"{place}/labels.parquet"]
    data += ["--frames", f"{place}/frames.parquet"]
    kind = ["--model", "mlp", "--loss", "cross_entropy", "--window", "1", "--pooling", "centre"]
    if SCALES[name].pairs:
        kind = ["--model", "pair_gate", "--loss", "pair_bce", "--sampler", "pairs", "--window", "1"]
    if not (place / "runs/drawn").is_dir():
        timed(["train.py", "-e", "0", "-r", "1", "--no-reduce", "--no-evaluate", *data, *kind, "-s", f"{place}/runs",
               "--name", "drawn"], root)  # fmt: skip
    store = f"from scale import FeatureStore, Path; FeatureStore(Path('{data[1]}'))"
    report, predict = (
        next(name for name in names if (root / name.replace(".", "/")).with_suffix(".py").is_file())
        for names in (
            ("pipeline.report.__main__", "pipeline.evaluation.report"),
            ("pipeline.submission.predict", "pipeline.evaluation.predict"),
        )
    )
    params, videos = place / "report.yaml", place / "list.txt"
    params.write_text("report: {}\nruns: {drawn: {}}\n", encoding="utf-8")
    videos.write_text("\n".join(FeatureStore(Path(data[1])).keys["video"].cat.categories) + "\n", encoding="utf-8")
    commands = {
        "torch": ["-c", "import torch"],  # which no command but reduce and report can do without
        "import": ["-c", "import pipeline.evaluation.evaluate"],
        "open": ["-c", store],
        "reduce": ["-m", "pipeline.extraction.reduce", "-n", "64", *data, "-o", f"{place}/p.st"],
        "evaluate": ["-m", "pipeline.evaluation.evaluate", "--run", f"{place}/runs/drawn", *data,
                     "-o", f"{place}/evaluation/drawn"],
        "report": ["-m", report.removesuffix(".__main__"), "--params", str(params), "-i", f"{place}/evaluation",
                   "-o", f"{place}/report"],
        "predict": ["-m", predict, "--run", f"{place}/runs/drawn", "-d", data[1], "--list",
                    str(videos), "--task", "expr", "--format", "single", "-o", f"{place}/predictions"],
    }  # fmt: skip
    if SCALES[name].pairs:
        commands.pop("predict")  # a head for pairs predicts no expressions
    return commands


def timed(arguments: list[str], root: Path) -> tuple[float, float, float]:
    """Seconds, those of all processors, and peak GiB of a Python process in ``root``; a failure ends the benchmark."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(ROOT / "benchmarks")])}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # of this child alone
    if status:
        raise SystemExit(f"{' '.join(arguments)}\n{output.decode()}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
