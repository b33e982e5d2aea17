"""What a stream costs: frames a second and latency, beside EmotiEffLib's way, a frame at a time.

    python benchmarks/live.py clip.mp4                                the clip, scaled to 640 x 360
    python benchmarks/live.py clip.mp4 --peers /tmp/peers             beside EmotiEffLib, from a folder of its own:
    pip install --no-deps --target /tmp/peers emotiefflib==1.1.1 facenet-pytorch==2.6.0

Frames are decoded beforehand. A frame's time is that from its pixels to its embedding: detection, alignment, backbone,
window. The ways take turns, a round of the clip each, in one process with the same number of threads; the first round
does not count.

A run is made here, with random weights in the backbone and in the head, which take as long as others. EmotiEffLib's
own weights are not needed either: in the place of the file that it would download it gets a timm model of the same
architecture, pickled or as ONNX, with random weights. Its way is that of its tutorial: facenet-pytorch's MTCNN with
faces from 40 pixels on in each frame, the box cut out, ``extract_features``, by PyTorch (its default) or by ONNX. The
tutorial makes the detector anew in each frame, which is a line of its own here. EmotiEffLib looks at single frames and
has no windows.

Then: how much an embedding at once differs from that of the whole clip, and how much faces tremble.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np
import pandas as pd
import timm
import torch

from pipeline.adapter.adapter import build_adapter, save_adapter
from pipeline.core.tables import Frames
from pipeline.embed import Embedder
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.weights.prepare import prepare
from pipeline.faces.detect import mtcnn
from pipeline.faces.live import LiveFaces
from pipeline.faces.tracks import follow
from pipeline.faces.video import Frame, read

Way = Callable[[np.ndarray], object]  # takes a frame, and is done with it
SIZES = {
    "tf_efficientnet_lite0": 112,
    "tf_efficientnet_b0": 224,
}  # of the default run, and of EmotiEffLib's weights
CLASSES = 8
RULE = "| --- | --- | --- | --- | --- |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--peers", type=Path, help="the folder with emotiefflib and facenet_pytorch")
    parser.add_argument("--size", type=int, nargs=2, default=[640, 360], help="width and height")
    parser.add_argument("--frames", type=int, help="the first so many of the clip")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 5, 10], help="detection in every n-th frame")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbones", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--run", type=Path, help="a trained run: how far its live embeddings are from those afterwards")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    frames = [
        Frame(f.number, f.time_sec, cv2.resize(f.image, tuple(given.size), interpolation=cv2.INTER_AREA))
        for f in itertools.islice(read(given.clip).frames, given.frames)
    ]
    print(f"{len(frames)} frames of {given.size[0]} x {given.size[1]}, {given.threads} threads\n")
    for name in given.backbones:
        speed(name, frames, given)
    trembles(frames, given.every)
    if given.run:
        agreement(given.run, frames, given)


# --- how fast --------------------------------------------------------------------------------------------------------


def speed(name: str, frames: list[Frame], given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        embedder = Embedder.load(untrained(name, SIZES[name], Path(folder)), device="cpu")
        ways: dict[str, Way] = {f"stream, every={n}": embedder.stream(given.fps, every=n).push for n in given.every}
        if given.peers:
            sys.path.append(str(given.peers))
            ways |= emotiefflib(name, SIZES[name], Path(folder))
        seconds = {way: [] for way in ways}
        for turn in range(given.rounds + 1):
            for way, take in ways.items():
                took = [timed(take, frame.image) for frame in frames]
                if turn:
                    seconds[way].append(took)
    print(f"| {name}, {SIZES[name]} pixels | frames/s | latency, ms: median | 95 % | most |\n{RULE}")
    for way, rounds in seconds.items():
        rate, every = median(len(frames) / sum(took) for took in rounds), 1e3 * np.concatenate(rounds)
        print(
            f"| {way} | {rate:.1f} | {np.median(every):.1f} | {np.quantile(every, 0.95):.1f} | {every.max():.1f} |",
            flush=True,
        )
    print()


def timed(take: Way, image: np.ndarray) -> float:
    start = time.perf_counter()
    take(image)
    return time.perf_counter() - start


def untrained(name: str, size: int, folder: Path) -> Path:
    """A run as train.py leaves it, a TCN over 15 frames, with random weights."""
    weights = prepare(name, "random", folder / "weights")
    backbone = load_backbone(weights, size)
    frames = Frames(pd.DataFrame(), Path(), "", "cropped_aligned")
    adapter = build_adapter(
        {
            "model": "tcn", "model_options": {}, "num_features": backbone.num_features, "num_components": None,
            "embedding_size": 128, "dropout": 0.0, "predictors": {}, "temperature": 15.0, "pooling": "mean",
            "window": {"frames": 15, "step": None, "edge": "mask", "spacing": 1},
            "classes": [f"class {i}" for i in range(CLASSES)], "au_names": [],
            "weights": f"../../weights/{weights.name}",
            "made_by": loop.made_by(backbone, frames, "float32", ["original"]),
        }
    )  # fmt: skip
    adapter.centres = torch.randn(CLASSES, 128)
    save_adapter(folder / "run" / "seed_0" / "best.safetensors", adapter)
    (folder / "run" / "summary.json").write_text(json.dumps({"seeds": [{"seed": 0, "select": 1.0}]}))
    return folder / "run"


def emotiefflib(name: str, size: int, folder: Path) -> dict[str, Way]:
    """Its ways, with a model of the same architecture at the same size as ours."""
    from emotiefflib import facial_analysis
    from facenet_pytorch import MTCNN

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES).eval()
    torch.nn.init.normal_(model.classifier.bias)  # the exporter drops one of zeros, and EmotiEffLib asks for it
    torch.save(model, folder / "model.pt")
    example = torch.zeros(1, 3, size, size)
    torch.onnx.export(
        model, (example,), folder / "model.onnx", dynamo=True, external_data=False, verbose=False, input_names=["input"]
    )
    facial_analysis.get_model_path_torch = lambda _: str(folder / "model.pt")
    facial_analysis.get_model_path_onnx = lambda _: str(folder / "model.onnx")

    def detector() -> MTCNN:
        return MTCNN(keep_all=False, post_process=False, min_face_size=40, device="cpu")

    def way(engine: str, detector_of: Callable[[], MTCNN]) -> Way:
        recognizer = facial_analysis.EmotiEffLibRecognizer(engine=engine, model_name="enet_b0_8_best_vgaf")
        recognizer.img_size = size

        def take(image: np.ndarray) -> None:
            boxes, confidence = detector_of().detect(image, landmarks=False)
            assert boxes is not None, "no face in a frame: the clip must show one in each"
            left, top, right, bottom = boxes[confidence > 0.9][0].astype(int).clip(min=0)
            recognizer.extract_features(image[top:bottom, left:right])

        return take

    once = detector()
    return {
        "EmotiEffLib, PyTorch": way("torch", lambda: once),
        "EmotiEffLib, ONNX": way("onnx", lambda: once),
        "EmotiEffLib, PyTorch, a new detector in each frame": way("torch", detector),
    }


# --- how well --------------------------------------------------------------------------------------------------------


def trembles(frames: list[Frame], every: list[int]) -> None:
    """The root mean square of the points' second difference in time, in hundredths of the distance of the eyes."""
    detect = mtcnn(40, 0.9)
    print("| faces | tremble, % | the same afterwards (tracks.follow) |\n| --- | --- | --- |")
    for n in every:
        live = LiveFaces(detect, n)
        now = [seen for frame in frames for seen in live.see(frame)]
        print(f"| every={n} | {tremble(now):.1f} | {tremble(list(follow(frames, detect, n))):.1f} |", flush=True)
    print()


def tremble(sightings: list) -> float:
    tracks = [seen.track for seen in sightings]
    points = np.array([seen.points for seen in sightings if seen.track == max(set(tracks), key=tracks.count)])
    eyes = np.median(np.linalg.norm(points[:, 0] - points[:, 1], axis=1))
    return float(100 * np.sqrt(np.square(np.diff(points / eyes, 2, axis=0)).mean()))


def agreement(run: Path, frames: list[Frame], given: argparse.Namespace) -> None:
    """Cosines of live embeddings with those of the whole clip, detected in each frame; the scale they are on."""
    embedder = Embedder.load(run, device="cpu")
    whole, classes = streamed(embedder, frames, given.fps, 1, "window")
    between = whole @ whole.T
    between = between[~np.eye(len(whole), dtype=bool)].mean()
    print(f"{run}: two frames of the clip have a cosine of {between:.4f} on average")
    print(f"| stream | delay, frames | cosine with the whole clip's: mean | least | same class |\n{RULE}")
    for n in given.every:
        for delay in (0, 2, 4, "window"):
            now, named = streamed(embedder, frames, given.fps, n, delay)
            cosine, same = (now * whole).sum(axis=1), np.mean(np.array(named) == np.array(classes))
            print(
                f"| every={n} | {delay} | {cosine.mean():.4f} | {cosine.min():.4f} | {100 * same:.0f} % |", flush=True
            )


def streamed(
    embedder: Embedder, frames: list[Frame], fps: float, every: int, delay: int | str
) -> tuple[np.ndarray, list[str | None]]:
    """Embeddings of the clip's frames in a stream, and the class of each."""
    stream = embedder.stream(fps, every=every, delay_frames=delay)
    rows = [row for frame in frames for row in stream.push(frame.image)] + stream.close()
    if [row["frame"] for row in rows] != [frame.number for frame in frames]:
        raise SystemExit("the clip must show one face in each frame")
    return np.stack([row["embedding"] for row in rows]), [row.get("class") for row in rows]


if __name__ == "__main__":
    main()
