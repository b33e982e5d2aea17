"""What extraction costs, beside what one would do instead: a Markdown table, all measured in one run.

    python benchmarks/extraction.py                                  tf_efficientnet_b0 with random weights
    python benchmarks/extraction.py --device cuda --precision float16 -b 256 --images 50000

It draws its own JPEGs. Each way runs in a process of its own, as it would elsewhere; the processes take turns, and the
best turn of each counts. The forward pass alone and ours, which are near each other, have one before each of the
others. What the ways are is said by their docstrings.
"""

import argparse
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))
from pipeline.device import pick_device
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.forward import PRECISIONS, Forward
from pipeline.extraction.frames import decode, read_batches, resize
from pipeline.extraction.weights import prepare
from pipeline.store import CHUNK_ROWS, StoreWriter, remove
from pipeline.tables import Frames

ABAW_FRAMES = 2_940_000
DRAWN = 1024  # different files; more images are these again, under other names
Rounds = Callable[[int], dict[str, float]]  # images -> what was measured; 'seconds' always


@dataclass(frozen=True)
class Job:
    """What all ways share: the files, the backbone and how it is run."""

    folder: Path
    backbone: str
    size: int
    batch_size: int
    device: str
    precision: str
    compiled: bool

    @property
    def paths(self) -> list[Path]:
        return sorted((self.folder / "frames").glob("*.jpg"))

    def table(self, images: int) -> pd.DataFrame:
        paths = self.paths
        rows = [(f"v{i // len(paths)}", i, f"frames/{paths[i % len(paths)].name}", 1) for i in range(images)]
        return pd.DataFrame(rows, columns=["video", "frame", "path", "size"])

    def forward(self) -> Forward:
        backbone = load_backbone(prepare(self.backbone, "random", self.folder / "weights"), self.size)
        frames = 10**9 if self.compiled else 0
        return Forward(backbone, self.batch_size, self.precision, ["original"], pick_device(self.device), frames)

    def peer(self) -> torch.nn.Module:
        return timm.create_model(self.backbone, pretrained=False, num_classes=0).eval().to(self.torch_device)

    @property
    def torch_device(self) -> torch.device:
        """Without what ``pick_device`` does to the process beside."""
        return torch.device(
            "cuda" if self.device == "auto" and torch.cuda.is_available() else self.device.replace("auto", "cpu")
        )


# --- the ways --------------------------------------------------------------------------------------------------------


def forward_alone(job: Job) -> Rounds:
    """The backbone as we run it, on a batch that is on the device and ready."""
    forward = job.forward()
    forward.prepare()
    size = job.size
    x = torch.randn(job.batch_size, 3, size, size, device=forward.device, dtype=forward.dtype)
    x = x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: int) -> dict[str, float]:
        start = time.perf_counter()
        for _ in range(images // job.batch_size):
            forward.module(x)
        if forward.on_cuda:
            torch.cuda.synchronize()
        return {"seconds": time.perf_counter() - start}

    return run


def end_to_end(job: Job) -> Rounds:
    """Ours: JPEG files on disk -> decoded, resized, through the backbone -> rows in the store."""
    forward = job.forward()
    forward.prepare()

    def run(images: int) -> dict[str, float]:
        store = job.folder / "features.zarr"
        table = job.table(images)
        outcome = loop.Outcome(done_before=0)
        start = time.perf_counter()
        with StoreWriter(store, {}, {"original": forward.backbone.num_features}) as writer:
            loop.extract(_frames(job, table), table, writer, forward, os.cpu_count() or 1, outcome)
        seconds = time.perf_counter() - start
        assert outcome.extracted == images
        remove(store)
        return {"seconds": seconds, **outcome.seconds}

    return run


def timm_loader(job: Job) -> Rounds:
    """timm's own dataset, transforms and loader with a worker a core, and the model in inference mode, float32."""
    model, device = job.peer(), job.torch_device
    dataset = timm.data.ImageDataset(str(job.folder / "frames"))
    config = timm.data.resolve_model_data_config(model)
    loader_of = lambda data: timm.data.create_loader(  # noqa: E731
        data, (3, job.size, job.size), job.batch_size, is_training=False, use_prefetcher=device.type == "cuda",
        interpolation=config["interpolation"], mean=config["mean"], std=config["std"], crop_pct=1.0,
        num_workers=os.cpu_count() or 1, device=device,
    )  # fmt: skip

    @torch.inference_mode()
    def run(images: int) -> dict[str, float]:
        loader = loader_of(torch.utils.data.Subset(dataset, [i % len(dataset) for i in range(images)]))
        start = time.perf_counter()
        features = [model(x.to(device)).half().cpu() for x, _ in loader]
        assert sum(map(len, features)) == images
        return {"seconds": time.perf_counter() - start}

    dataset.transform = timm.data.create_transform(
        (3, job.size, job.size), interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
        crop_pct=1.0,
    )  # fmt: skip
    return run


def one_at_a_time(job: Job) -> Rounds:
    """The published notebooks' way: open, transform and run one image after the other, without gradients, float32."""
    model, transform, paths = job.peer(), _transform(job.size), job.paths

    @torch.no_grad()
    def run(images: int) -> dict[str, float]:
        start = time.perf_counter()
        for i in range(images):
            with Image.open(paths[i % len(paths)]) as image:
                model(transform(image.convert("RGB"))[None].to(job.torch_device)).cpu().numpy()
        return {"seconds": time.perf_counter() - start}

    return run


def lists_of_images(job: Job, length: int) -> Rounds:
    """EmotiEffLib's way: a list of images, transformed one by one, through the model at once; gradients on, float32.

    As ``extract_features`` and ``predict_emotions`` of EmotiEffLib 1.1.1 do it. The list is all that they are given,
    such as the faces of a video, so its length is that of the user's videos; every image in it takes 0.1 GB.
    """
    model, transform, paths = job.peer(), _transform(job.size), job.paths

    def run(images: int) -> dict[str, float]:
        start = time.perf_counter()
        for first in range(0, images, length):
            files = [str(paths[i % len(paths)]) for i in range(first, first + length)]
            pictures = [cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB) for file in files]
            batch = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
            model(batch.to(job.torch_device)).data.cpu().numpy()
        return {"seconds": time.perf_counter() - start}

    return run


WAYS = {
    "forward pass alone": (forward_alone, 1.0, 1),
    "ours, files to store": (end_to_end, 1.0, 1),
    "timm's loader, inference mode": (timm_loader, 0.5, 1),
    "one image at a time": (one_at_a_time, 0.125, 1),
    "EmotiEffLib's way, lists of 64": (partial(lists_of_images, length=64), 0.125, 64),
    "EmotiEffLib's way, lists of 96": (partial(lists_of_images, length=96), 0.125, 96),
}  # name -> way, the share of the images that it gets, and what their number is a multiple of


def _transform(size: int) -> transforms.Compose:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )  # fmt: skip


def _frames(job: Job, table: pd.DataFrame) -> Frames:
    return Frames(table, job.folder, "benchmark", "cropped_aligned")


# --- the stages, each alone ------------------------------------------------------------------------------------------


def stages(job: Job, images: int) -> dict[str, float]:
    """Images a second of each stage if it had the machine for itself."""
    forward = job.forward()
    images = max(images // job.batch_size, 1) * job.batch_size
    paths, workers = job.paths, os.cpu_count() or 1
    names = [paths[i % len(paths)] for i in range(images)]
    some = [forward.resize_image(decode(path)) for path in names[: job.batch_size]]
    rows = {"original": np.ones((min(images, CHUNK_ROWS), forward.backbone.num_features), np.float16)}
    table = job.table(len(rows["original"]))
    store = job.folder / "stages.zarr"

    def decoding() -> None:
        for _ in read_batches(
            names, job.batch_size, workers, forward.resize_image, between=forward.device.type == "cpu"
        ):
            pass

    def copying() -> None:
        for _ in range(images // job.batch_size):
            resize(some, job.size, "bicubic", forward.device)
        if forward.on_cuda:
            torch.cuda.synchronize()

    def writing() -> None:
        with StoreWriter(store, {}, {"original": forward.backbone.num_features}) as writer:
            writer.write(table, rows)
        remove(store)

    works = {"decode and resize": (decoding, images), "copy": (copying, images), "write": (writing, len(table))}
    return {name: count / min(_seconds(work) for _ in range(3)) for name, (work, count) in works.items()}


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- processes -------------------------------------------------------------------------------------------------------


def serve(job: Job, name: str, pipe: Connection) -> None:
    """Runs a way whenever a number of images comes through the pipe; 0 ends it.

    Each turn begins with a few images that do not count: memory that lay idle is slow at first. On a virtual machine
    that gives it back to its host, lists of 64 went at half their speed without them.
    """
    way, share, step = WAYS[name]
    run = way(job)
    step = math.lcm(job.batch_size, step)
    pipe.send("ready")
    while images := pipe.recv():
        run(step)
        images = max(int(images * share) // step, 1) * step
        found = run(images)
        pipe.send({name: value / images for name, value in found.items()})


def side_by_side(job: Job, images: int, rounds: int) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """For each way its best turn: seconds an image, by what was measured.

    And our speed against the forward pass alone in the turn just before, for each of our turns (n,): what else runs on
    a shared machine meets both.
    """
    pipes = {}
    for name in WAYS:
        pipes[name] = child(serve, job, name)
        pipes[name].recv()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    near, others = list(WAYS)[:2], list(WAYS)[2:]
    for number in range(rounds):
        for name in [name for other in others for name in (*near, other)]:
            pipes[name].send(images)
            found[name].append(pipes[name].recv())
            rate = 1 / found[name][-1]["seconds"]
            print(f"round {number + 1} of {rounds}, {name}: {rate:,.1f} images/s", file=sys.stderr)
    for pipe in pipes.values():
        pipe.send(0)
    alone, ours = (np.array([turn["seconds"] for turn in found[name]]) for name in near)
    return {name: min(turns, key=lambda turn: turn["seconds"]) for name, turns in found.items()}, alone / ours


def peak_memory(job: Job, images: int, pipe: Connection) -> None:
    """Sends the most memory (MB) that a process took which extracted so many images, in chunks of 512 rows."""
    forward, table = job.forward(), job.table(images)
    outcome = loop.Outcome(done_before=0)
    widths = {"original": forward.backbone.num_features}
    with StoreWriter(job.folder / f"{images}.zarr", {}, widths, chunk_rows=512) as writer:
        loop.extract(_frames(job, table), table, writer, forward, os.cpu_count() or 1, outcome)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def child(target: Callable, job: Job, what: str | int) -> Connection:
    """A pipe to a new process; it is closed, and reading from it raises, when that process ends."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    context.Process(target=target, args=(job, what, other)).start()
    other.close()
    return mine


# --- the report ------------------------------------------------------------------------------------------------------


def draw(folder: Path, count: int) -> None:
    """Smooth random pictures, 112 pixels a side, as JPEGs of quality 95."""
    (folder / "frames").mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_CUBIC)
        grain = rng.integers(-6, 7, picture.shape)
        picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "frames" / f"{number:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])


def report(job: Job, images: int, rounds: int) -> None:
    prepare(job.backbone, "random", job.folder / "weights")
    found, of_alone = side_by_side(job, images, rounds)
    rate = {name: 1 / measured["seconds"] for name, measured in found.items()}
    alone, ours = rate["forward pass alone"], rate["ours, files to store"]
    print(
        f"\n{job.backbone}, 112-pixel JPEGs resized to {job.size}, {job.precision}, batches of {job.batch_size}, ",
        end="",
    )
    print(f"{'compiled' if job.compiled else 'not compiled'}, {where(job)}\n")
    print("| way | images/s | of the forward pass alone | ours is |\n| --- | --- | --- | --- |")
    for name, value in rate.items():
        print(f"| {name} | {value:,.0f} | {value / alone:.2f} | {ours / value:.1f} times |")
    low, middle, high = np.percentile(of_alone, [25, 50, 75])
    print(f"\nOurs of the forward pass, turn by turn: median {middle:.2f}, quartiles {low:.2f} and {high:.2f}.")
    each = {**stages(job, images), "forward": alone}
    print("\n| stage by itself | images/s |\n| --- | --- |")
    for name, value in each.items():
        print(f"| {name} | {value:,.0f} |")
    whole = found["ours, files to store"]
    shares = ", ".join(f"{what} {whole[what] / whole['seconds']:.1%}" for what in ("decode", "forward", "write"))
    print(f"\nOurs, time spent waiting for: {shares}. The slowest stage is {min(each, key=each.get)}.")
    hours = ABAW_FRAMES / ours / 3600
    print(f"All of ABAW ({ABAW_FRAMES / 1e6:.2f} M frames) at this rate: {hours:.1f} h.")
    few = max(images // 4, 1024)
    print("\n| frames | peak memory, MB |\n| --- | --- |")
    for count in (few, 8 * few):
        print(f"| {count:,} | {child(peak_memory, job, count).recv():,.0f} |")


def where(job: Job) -> str:
    device = torch.cuda.get_device_name() if job.torch_device.type == "cuda" else "no GPU"
    return f"{os.cpu_count()} cores, {device}, PyTorch {torch.__version__.split('+')[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="a round of the fast ways; slow ones get fewer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backbone", default="tf_efficientnet_b0", help="any timm name; its weights are random")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("-b", "--batch-size", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--compiled", action="store_true", help="as a job of 100,000 frames and more would be")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), min(DRAWN, flags.images))
        job = Job(
            Path(folder), flags.backbone, flags.size, flags.batch_size, flags.device, flags.precision, flags.compiled
        )  # fmt: skip
        report(job, flags.images, flags.rounds)


if __name__ == "__main__":
    main()
