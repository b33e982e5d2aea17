"""What training the last stages of a backbone costs: from maps, from pixels, and as an ordinary script does it.

    python benchmarks/unfreeze.py                                            lite0 at 112 pixels, its last stage
    python benchmarks/unfreeze.py --backbone tf_efficientnet_b0 --size 224   random weights: the work is the same
    python benchmarks/unfreeze.py --device cuda --batch-size 64 --frames 5000
    python benchmarks/unfreeze.py --memory --unfreeze all --batch-size 256   one step of 256 windows of 15 frames
    python benchmarks/unfreeze.py --growth --frames 20000                    the memory of 'train.py' from so many maps

The same trained stages, head (mlp), loss (SupCon) and update (AdamW) four times, on drawn JPEGs:

    (a) alone    forward, backward and update on a batch of maps that lies there: as fast as it can be
    (b) maps     every batch read from a store of maps by memory mapping, as 'train.py --unfreeze N --maps STORE' does
    (c) pixels   every batch decoded, and the frozen stages computed again, as 'train.py --unfreeze N' does
    (d) script   a timm model, its frozen stages without a gradient, and a DataLoader with workers, a window an item:
                 PIL's decoding and resize, ToTensor, Normalize

The windows of a batch are drawn at random and do not overlap, so that no way can take a frame once for two of them.
The rounds of the four take turns. Rates are by the clock and by processor seconds, those of workers included; the
ratios are medians of the rounds' own ratios. The workers' start is not timed by the clock, and counts as processor
seconds.
"""

import argparse
import contextlib
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import train
from pipeline.adapter.heads.build import build_head
from pipeline.adapter.pooling import mean
from pipeline.core.device import pick_device
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Frames, Labels, write_frames, write_labels
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.loop import made_by
from pipeline.extraction.plan import rows_of_maps
from pipeline.extraction.stages import before_cut
from pipeline.extraction.weights.prepare import prepare
from pipeline.training.losses.build import build_loss
from pipeline.unfreeze.inputs import Maps, Pixels
from pipeline.unfreeze.network import Network
from pipeline.unfreeze.parts import first_trained
from pipeline.unfreeze.trunk import LiveShard, Options

VIDEO_FRAMES, NUM_CLASSES = 100, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=112, help="pixels a side, of the files too")
    parser.add_argument("--unfreeze", default="1", help="stages, or all (with --memory alone)")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--window", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16, help="windows")
    parser.add_argument("--batches", type=int, default=3, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader, threads that decode")
    parser.add_argument("--slice-gb", type=float, default=2.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", action="store_true", help="one step from pixels, and the memory that it took")
    parser.add_argument("--growth", action="store_true", help="a run from maps of random numbers, and its memory")
    given = parser.parse_args()
    given.device = pick_device(given.device)
    if given.growth:
        return growth(given)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        weights = prepare(given.backbone, "auto" if "lite0" in given.backbone else "random", place)
        paths = draw(place / "frames", given.frames, given.size)
        of = SimpleNamespace(given=given, place=place, weights=weights, paths=paths)
        of.backbone = load_backbone(weights, given.size)
        (one_step if given.memory else compare)(of)


def draw(folder: Path, count: int, size: int) -> list[str]:
    """Smooth random pictures, as JPEGs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = cv2.resize(
            rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC
        )
        (folder / f"{number:05d}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    return [f"{number:05d}.jpg" for number in range(count)]


def network(of: SimpleNamespace, from_maps: bool) -> Network:
    unfreeze = of.given.unfreeze if of.given.unfreeze == "all" else int(of.given.unfreeze)
    how = {"slice_bytes": of.given.slice_gb * 1e9, "device": of.given.device}
    return Network(of.backbone, of.weights, unfreeze, from_maps=from_maps, **how)


def drawn(of: SimpleNamespace, seed: int) -> list[np.ndarray]:
    """Rows (B, T) of the windows of each batch of a round."""
    rng, given = np.random.default_rng(seed), of.given
    places = given.frames // given.window
    starts = [given.window * rng.choice(places, given.batch_size, replace=False) for _ in range(given.batches)]
    return [start[:, None] + np.arange(given.window) for start in starts]


class Step:
    """The head, the loss and the update of everything that is trained."""

    def __init__(self, of: SimpleNamespace, parameters: list[torch.Tensor]) -> None:
        torch.manual_seed(0)
        width, device = of.backbone.num_features, of.given.device
        self.head = build_head("mlp", num_features=width, embedding_size=128, dropout=0.4, grid=1).to(device)
        self.loss = build_loss(
            "supcon", {}, num_classes=NUM_CLASSES, embedding_size=128, num_aus=None, num_outputs=None,
            class_counts=None, temperature=15.0, margin=None,
        )  # fmt: skip
        self.labels = torch.arange(of.given.batch_size, device=device) % NUM_CLASSES
        self.optimizer = torch.optim.AdamW([*self.head.parameters(), *parameters], lr=1e-4, fused=True)

    def __call__(self, features: torch.Tensor) -> None:
        """One update by features (B, T, D)."""
        valid = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        embeddings = self.head.pooled(features, valid, mean) if not self.head.pools else self.head(features, valid)
        loss, _ = self.loss(embeddings, {"labels": self.labels}, {})
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def trained_of(net: Network) -> list[torch.Tensor]:
    return [p for p in net.model.parameters() if p.requires_grad]


def live(of: SimpleNamespace, net: Network, inputs: Maps | Pixels) -> Callable[[int], None]:
    """A round of batches as ``train.py`` reads them."""
    step = Step(of, trained_of(net))
    trunk = SimpleNamespace(
        network=net, inputs=inputs, front=lambda features: features, options=Options(0.1, 0.75, False)
    )

    def round_of(seed: int) -> None:
        rows = np.concatenate(drawn(of, seed))
        shard = LiveShard(np.arange(len(rows)), rows, trunk, 0)
        numbers = list(np.arange(len(rows)).reshape(-1, of.given.batch_size))
        for batch in shard.in_views(numbers, seed):
            step(shard.batch(batch)[0])

    return round_of


def alone(of: SimpleNamespace, net: Network, maps: Maps) -> Callable[[int], None]:
    step = Step(of, trained_of(net))

    def prepared(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        kept, place = np.unique(drawn(of, seed)[0], return_inverse=True)
        place = torch.from_numpy(place.reshape(-1, of.given.window)).to(of.given.device)
        return maps.read(kept).to(of.given.device), place

    def round_of(seed: int) -> None:
        inputs, place = ready[seed]
        for _ in range(of.given.batches):
            step(net.trained(inputs)[place])

    ready = {seed: prepared(seed) for seed in range(of.given.rounds + 1)}
    return round_of


class Windows(Dataset):
    """A window an item: its frames by PIL and torchvision."""

    def __init__(self, folder: Path, paths: list[str], rows: np.ndarray, backbone) -> None:
        self.folder, self.paths, self.rows = folder, paths, rows
        way = transforms.InterpolationMode(backbone.interpolation)
        self.transform = transforms.Compose(
            [
                transforms.Resize((backbone.input_size, backbone.input_size), way),
                transforms.ToTensor(),
                transforms.Normalize(backbone.mean, backbone.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> torch.Tensor:
        images = (Image.open(self.folder / self.paths[row]).convert("RGB") for row in self.rows[number])
        return torch.stack([self.transform(image) for image in images])


def script(of: SimpleNamespace, first: str) -> Callable[[int], float]:
    """An ordinary script; a round gives when its first batch was there."""
    model = timm.create_model(of.backbone.facts["architecture"], num_classes=0)
    model.load_state_dict(Network(of.backbone, of.weights, "all").whole())
    model.to(of.given.device).eval().requires_grad_(False)
    parts = [name for name, _ in model.named_parameters()]
    start = next(number for number, name in enumerate(parts) if name.startswith(f"{first}."))
    trained = list(model.parameters())[start:]
    for parameter in trained:
        parameter.requires_grad_(True)
    step = Step(of, trained)

    def round_of(seed: int) -> float:
        data = Windows(of.place / "frames", of.paths, np.concatenate(drawn(of, seed)), of.backbone)
        loader = DataLoader(data, of.given.batch_size, num_workers=of.given.workers)
        batches: Iterator[torch.Tensor] = iter(loader)
        begun = time.perf_counter()
        for batch in batches:
            images = batch.to(of.given.device).flatten(0, 1)
            step(model(images).view(*batch.shape[:2], -1))
        return begun

    return round_of


def stored(of: SimpleNamespace, net: Network) -> Maps:
    """The maps of all frames, in a store."""
    shape = net.map_shape
    pixels = Pixels(of.place / "frames", of.paths, of.backbone, workers=of.given.workers)
    width = int(np.prod(shape))
    path, rows = of.place / "maps.zarr", rows_of_maps(width, 4096)
    with StoreWriter(path, {}, {"original": width}, rows, shape) as writer:
        for start in range(0, of.given.frames, rows):
            places = np.arange(start, min(start + rows, of.given.frames))
            with torch.no_grad():
                parts = [net._at_cut(pixels.read(part)) for part in np.array_split(places, -(-len(places) // 64))]
            keys = pd.DataFrame({"video": "v", "frame": places, "size": 1})
            writer.write(keys, {"original": torch.cat(parts).flatten(1).cpu().half().numpy()})
    store = FeatureStore(path)
    found = Maps(store, store.keys["row"].to_numpy())
    found.read(np.arange(of.given.frames))  # a chunk's checksum is read once
    print(f"{of.given.frames:,} maps {shape}: {2 * width:,} bytes a frame")
    return found


def compare(of: SimpleNamespace) -> None:
    given = of.given
    from_pixels, from_maps = network(of, False), network(of, True)
    maps = stored(of, from_pixels)
    pixels = Pixels(of.place / "frames", of.paths, of.backbone, workers=given.workers)
    ways = {
        "alone": alone(of, network(of, True), maps),
        "maps": live(of, from_maps, maps),
        "pixels": live(of, from_pixels, pixels),
        "script": script(of, from_pixels.cut),
    }
    clock: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(given.rounds + 1):
        for way, round_of in ways.items():
            start, used = time.perf_counter(), processor_seconds()
            start = round_of(seed) or start
            if given.device.type == "cuda":
                torch.cuda.synchronize()
            if seed:  # the first round warms up
                clock[way].append(time.perf_counter() - start)
                busy[way].append(processor_seconds() - used)
    windows = given.batches * given.batch_size
    print(f"{given.backbone} at {given.size} pixels, behind {from_pixels.cut}, {given.batch_size} windows a batch")
    print("| | windows/s by the clock | windows a processor second | maps are as fast so many times: both |")
    print("| --- | --- | --- | --- |")
    for way in ways:
        times = [median(b / m for b, m in zip(of_way[way], of_way["maps"], strict=True)) for of_way in (clock, busy)]
        rates = (windows / median(of_way[way]) for of_way in (clock, busy))
        print(f"| {way} | {' | '.join(f'{rate:.1f}' for rate in rates)} | {times[0]:.2f}, {times[1]:.2f} |")


def one_step(of: SimpleNamespace) -> None:
    """One step from pixels, and the most memory that the process ever had."""
    net = network(of, False)
    before = resident()
    size = net.slice_frames(Pixels(of.place / "frames", of.paths, of.backbone).read(np.arange(1)))
    of.given.batches = 1
    start = time.perf_counter()
    live(of, net, Pixels(of.place / "frames", of.paths, of.backbone, workers=of.given.workers))(1)
    took, frames = time.perf_counter() - start, of.given.batch_size * of.given.window
    print(f"{of.given.backbone} at {of.given.size} pixels, unfreeze {of.given.unfreeze}: one step of {frames:,} frames")
    print(f"in slices of {size:,}: {took:.0f} s; {before / 1e9:.2f} GB before, {resident() / 1e9:.2f} GB at most")


def growth(given: argparse.Namespace) -> None:
    """A whole run of train.py on drawn maps and features, and the most anonymous memory that it had (Linux).

    Maps are mapped files: what is read of them counts as file memory, which is printed apart.
    """
    params = (Path(__file__).parent.parent / "params.yaml").read_text(encoding="utf-8")
    most = {"RssAnon": 0, "RssFile": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in most:
                    most[name] = max(most[name], int(value.split()[0]) * 1024)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("params.yaml").write_text(params, encoding="utf-8")
        drawn_stores(given)
        threading.Thread(target=watch).start()
        try:
            train.main(
                ["--unfreeze", given.unfreeze, "--maps", "data/maps.zarr", "--loss", "supcon", "-r", "1", "--steps",
                 str(given.batches), "--batch-size", str(given.batch_size), "--window", str(given.window), "--device",
                 str(given.device), "--no-reduce", "--no-evaluate", "--slice-gb", str(given.slice_gb)]
            )  # fmt: skip
        finally:
            over.set()
    print(f"{given.frames:,} frames: {most['RssAnon'] / 1e6:,.0f} MB anonymous, {most['RssFile'] / 1e6:,.0f} MB mapped")


def drawn_stores(given: argparse.Namespace) -> None:
    """Feature store, maps, tables and weights in ``data`` and ``weights``, of videos that have a class each."""
    rng = np.random.default_rng(0)
    source = "auto" if "lite0" in given.backbone else "random"
    backbone = load_backbone(prepare(given.backbone, source, Path("weights")), given.size)
    half = before_cut(backbone, first_trained(backbone.module.model, given.backbone, int(given.unfreeze)))
    number = np.arange(given.frames)
    video = np.char.add("v", (number // VIDEO_FRAMES).astype(str))
    keys = pd.DataFrame({"video": video, "frame": number % VIDEO_FRAMES + 1})
    frames = Frames(keys.assign(path="none.jpg", size=1), Path("frames"), "drawn", "as given")
    Path("data").mkdir()
    write_frames(Path("data/frames.parquet"), frames)
    classes = [f"c{k}" for k in range(NUM_CLASSES)]
    of = number // VIDEO_FRAMES
    split = np.where(of % 4 == 3, "val", "train")
    labels = keys.assign(group=video, expression=np.array(classes)[of // 4 % NUM_CLASSES], expression_split=split)
    write_labels(Path("data/labels.parquet"), Labels(labels, classes, "drawn"))
    for name, made in (("features", backbone), ("maps", half)):
        width = made.num_features
        rows = rows_of_maps(width, 4096) if made is half else 4096
        said = made_by(made, frames, "float32", ["original"])
        with StoreWriter(Path(f"data/{name}.zarr"), said, {"original": width}, rows, made.map_shape) as writer:
            for start in range(0, given.frames, rows):
                part = keys.iloc[start : start + rows].assign(size=1)
                writer.write(part, {"original": rng.standard_normal((len(part), width), np.float32).astype(np.float16)})


def processor_seconds() -> float:
    """Of this process and of workers that have ended."""
    each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(of.ru_utime + of.ru_stime for of in each)


def resident() -> int:
    """The most bytes that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
