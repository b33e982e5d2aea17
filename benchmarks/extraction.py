"""What extraction costs, beside what one would do instead: a Markdown table, all measured in one run.

    python benchmarks/extraction.py                                  tf_efficientnet_b0 with random weights
    python benchmarks/extraction.py --device cuda --precision float16 -b 256 --images 50000

It draws its own JPEGs. Each way runs in a process of its own, with no other alive, as it would elsewhere; the best of
its turns counts. The forward pass alone and ours, which are near each other, take turns in one process, once before
each of the other ways and once at the end. What the ways are is said by their docstrings.
"""

import argparse
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
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
from pipeline.core.device import pick_device
from pipeline.core.store import CHUNK_ROWS, StoreWriter
from pipeline.core.tables import Frames
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.forward import PRECISIONS, Forward
from pipeline.extraction.frames import decode, read_batches, stacked
from pipeline.extraction.weights.prepare import prepare

ABAW_FRAMES = 2_940_000
DRAWN = 1024  # different files; more images are these again, under other names
LISTS = (32, 64, 128)  # images in a list; every image takes 0.1 GB
Turn = dict[str, float]  # seconds an image, by what they were spent on; of a peer 'seconds' alone
Turns = Callable[[int], Turn]  # of so many images


@dataclass(frozen=True)
class Job:
    """What all ways share: the files, the backbone and how it is run."""

    folder: Path
    backbone: str
    size: int
    batch_size: int
    device: str
    precision: str
    long: bool

    @property
    def paths(self) -> list[Path]:
        return sorted((self.folder / "frames").glob("*.jpg"))

    def table(self, images: int) -> pd.DataFrame:
        paths = self.paths
        rows = [(f"v{i // len(paths)}", i, f"frames/{paths[i % len(paths)].name}", 1) for i in range(images)]
        return pd.DataFrame(rows, columns=["video", "frame", "path", "size"])

    def forward(self) -> Forward:
        backbone = load_backbone(prepare(self.backbone, "random", self.folder / "weights"), self.size)
        frames = 10**9 if self.long else 0
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


def ours(job: Job) -> Turns:
    """The backbone as we run it on images that are ready, and all of it: JPEG files on disk -> rows in the store."""
    forward = job.forward()
    forward.prepare()
    ready = [forward.resize_image(decode(path)) for path in job.paths[: job.batch_size]]
    size = job.size
    x = torch.randn(job.batch_size, 3, size, size, device=forward.device, dtype=forward.dtype)
    x = x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def alone(images: int) -> float:
        start = time.perf_counter()
        if forward.by_image:
            tasks = [forward.by_image.submit(forward.by_image, ready[i % len(ready)]) for i in range(images)]
            for task in tasks:
                task.result()
        else:
            for _ in range(images // job.batch_size):
                forward.module(x)
        if forward.on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def run(images: int) -> Turn:
        store = job.folder / "features.zarr"
        table = job.table(images)
        outcome = loop.Outcome(done_before=0)
        before = alone(images // 2)  # half before and half after: a machine changes its speed
        start = time.perf_counter()
        with StoreWriter(store, {}, {"original": forward.backbone.num_features}) as writer:
            loop.extract(_frames(job, table), table, writer, forward, os.cpu_count() or 1, outcome)
        seconds = time.perf_counter() - start
        assert outcome.extracted == images
        shutil.rmtree(store)
        found = {ALONE: before + alone(images // 2), OURS: seconds, **outcome.seconds}
        return {name: value / images for name, value in found.items()}

    return run


def timm_loader(job: Job) -> Turns:
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
    def run(images: int) -> Turn:
        loader = loader_of(torch.utils.data.Subset(dataset, [i % len(dataset) for i in range(images)]))
        start = time.perf_counter()
        features = [model(x.to(device)).half().cpu() for x, _ in loader]
        assert sum(map(len, features)) == images
        return {"seconds": (time.perf_counter() - start) / images}

    dataset.transform = timm.data.create_transform(
        (3, job.size, job.size), interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
        crop_pct=1.0,
    )  # fmt: skip
    return run


def one_at_a_time(job: Job) -> Turns:
    """The published notebooks' way: open, transform and run one image after the other, without gradients, float32."""
    model, transform, paths = job.peer(), _transform(job.size), job.paths

    @torch.no_grad()
    def run(images: int) -> Turn:
        start = time.perf_counter()
        for i in range(images):
            with Image.open(paths[i % len(paths)]) as image:
                model(transform(image.convert("RGB"))[None].to(job.torch_device)).cpu().numpy()
        return {"seconds": (time.perf_counter() - start) / images}

    return run


def lists_of_images(job: Job, length: int) -> Turns:
    """EmotiEffLib's way: a list of images, transformed one by one, through the model at once; gradients on, float32.

    As ``extract_features`` and ``predict_emotions`` of EmotiEffLib 1.1.1 do it. The list is all that they are given,
    such as the faces of a video, so its length is that of the user's videos; every image in it takes 0.1 GB.
    """
    model, transform, paths = job.peer(), _transform(job.size), job.paths

    def run(images: int) -> Turn:
        start = time.perf_counter()
        for first in range(0, images, length):
            files = [str(paths[i % len(paths)]) for i in range(first, first + length)]
            pictures = [cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB) for file in files]
            batch = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
            model(batch.to(job.torch_device)).data.cpu().numpy()
        return {"seconds": (time.perf_counter() - start) / images}

    return run


ALONE, OURS = "forward pass alone", "ours, files to store"
PEERS = {
    "timm's loader, inference mode": (timm_loader, 1),
    "one image at a time": (one_at_a_time, 1),
    **{f"EmotiEffLib's way, lists of {n}": (partial(lists_of_images, length=n), n) for n in LISTS},
}  # name -> way, and what the number of its images is a multiple of


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
        for _ in read_batches(names, job.batch_size, workers, forward.resize_image):
            pass

    def copying() -> None:
        for _ in range(images // job.batch_size):
            stacked(some, forward.device)
        torch.cuda.synchronize()

    def writing() -> None:
        with StoreWriter(store, {}, {"original": forward.backbone.num_features}) as writer:
            writer.write(table, rows)
        shutil.rmtree(store)

    works = {"decode and resize": (decoding, images), "write": (writing, len(table))}
    works |= {"copy": (copying, images)} if forward.on_cuda else {}
    return {name: count / min(_seconds(work) for _ in range(3)) for name, (work, count) in works.items()}


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- processes -------------------------------------------------------------------------------------------------------


def take_turns(job: Job, name: str, images: int, turns: int, pipe: Connection) -> None:
    """Sends so many turns of a way.

    The first one does not count: memory that lay idle is slow at first. On a virtual machine that gives it back to its
    host, lists of 64 went at half their speed in it.
    """
    way, step = PEERS.get(name, (ours, 1))
    run, step = way(job), math.lcm(2 * job.batch_size, step)
    run(step)
    pipe.send([run(max(images // step, 1) * step) for _ in range(turns)])


def side_by_side(job: Job, images: int, rounds: int) -> tuple[dict[str, list[Turn]], list[str]]:
    """The turns of each way, ours with those of the forward pass; and what has ended before its turns were over."""
    found: dict[str, list[Turn]] = {name: [] for name in (OURS, *PEERS)}
    ended = []
    for name in [*chain.from_iterable((OURS, peer) for peer in PEERS), OURS]:
        count = images if name == OURS else images // 4
        try:
            turns = alone_in_a_process(take_turns, job, name, count, rounds)
        except EOFError:
            ended.append(name)
            continue
        found[name] += turns
        rates = {what: 1 / value for what, value in best(turns).items() if what in (ALONE, OURS, "seconds")}
        print(f"{name}: {', '.join(f'{rate:,.1f}' for rate in rates.values())} images/s", file=sys.stderr)
    return found, ended


def best(turns: list[Turn]) -> Turn:
    """The least of each number."""
    return {name: min(turn[name] for turn in turns) for name in turns[0]}


def peak_memory(job: Job, images: int, pipe: Connection) -> None:
    """Sends the most memory (MB) that a process took which extracted so many images, in chunks of 512 rows."""
    forward, table = job.forward(), job.table(images)
    outcome = loop.Outcome(done_before=0)
    widths = {"original": forward.backbone.num_features}
    with StoreWriter(job.folder / f"{images}.zarr", {}, widths, chunk_rows=512) as writer:
        loop.extract(_frames(job, table), table, writer, forward, os.cpu_count() or 1, outcome)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def alone_in_a_process(target: Callable, *what: object) -> object:
    """What ``target`` sends from a process of its own, which has ended then; ``EOFError`` if it sends nothing."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=target, args=(*what, other))
    process.start()
    other.close()
    sent = mine.recv()
    process.join()
    return sent


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
    found, ended = side_by_side(job, images, rounds)
    whole = best(found[OURS])
    rate = {ALONE: 1 / whole[ALONE], OURS: 1 / whole[OURS]}
    rate |= {name: 1 / best(found[name])["seconds"] for name in PEERS if found[name]}
    print(f"\n{job.backbone}, 112-pixel JPEGs resized to {job.size}, {job.precision}, ", end="")
    print(f"batches of {job.batch_size}, {'a long job' if job.long else 'a short job'}, {where(job)}\n")
    print("| way | images/s | of the forward pass alone | ours is |\n| --- | --- | --- | --- |")
    for name, value in rate.items():
        print(f"| {name} | {value:,.0f} | {value / rate[ALONE]:.2f} | {rate[OURS] / value:.1f} times |")
    for name in ended:
        print(f"| {name} | ended before its turn was over: killed for want of memory? | | |")
    low, middle, high = np.percentile([turn[ALONE] / turn[OURS] for turn in found[OURS]], [25, 50, 75])
    print(f"\nOurs of the forward pass, {len(found[OURS])} turns: median {middle:.2f}, ", end="")
    print(f"quartiles {low:.2f} and {high:.2f}.")
    each = {**stages(job, images), "forward": rate[ALONE]}
    print("\n| stage by itself | images/s |\n| --- | --- |")
    for name, value in each.items():
        print(f"| {name} | {value:,.0f} |")
    fastest = min(found[OURS], key=lambda turn: turn[OURS])
    shares = ", ".join(f"{what} {fastest[what] / fastest[OURS]:.1%}" for what in ("decode", "forward", "write"))
    print(f"\nOurs, time spent waiting for: {shares}. The slowest stage is {min(each, key=each.get)}.")
    hours = ABAW_FRAMES / rate[OURS] / 3600
    print(f"All of ABAW ({ABAW_FRAMES / 1e6:.2f} M frames) at this rate: {hours:.1f} h.")
    few = max(images // 4, 1024)
    print("\n| frames | peak memory, MB |\n| --- | --- |")
    for count in (few, 8 * few):
        print(f"| {count:,} | {alone_in_a_process(peak_memory, job, count):,.0f} |")


def where(job: Job) -> str:
    device = torch.cuda.get_device_name() if job.torch_device.type == "cuda" else "no GPU"
    return f"{os.cpu_count()} cores, {device}, PyTorch {torch.__version__.split('+')[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="a turn of ours; the others get a quarter")
    parser.add_argument("--rounds", type=int, default=3, help="turns that a process takes")
    parser.add_argument("--backbone", default="tf_efficientnet_b0", help="any timm name; its weights are random")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("-b", "--batch-size", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--short", action="store_true", help="as a job of few frames is run: by PyTorch, not compiled")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), min(DRAWN, flags.images))
        job = Job(
            Path(folder), flags.backbone, flags.size, flags.batch_size, flags.device, flags.precision, not flags.short
        )  # fmt: skip
        report(job, flags.images, flags.rounds)


if __name__ == "__main__":
    main()
