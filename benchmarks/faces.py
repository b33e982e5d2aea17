"""What cutting faces costs: decoding, detection and alignment apart, and detection in every n-th frame only.

    python benchmarks/faces.py videos                  a folder of clips with faces; the first 100 frames of each

One core. Detection in every frame is what the rest is compared with; but it is no truth: its points tremble. The
tremble printed is the root mean square of their second difference in time, in hundredths of the distance of the eyes.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np
import torch

from pipeline.faces.align import align_from
from pipeline.faces.detect import DETECTORS, Detector
from pipeline.faces.tracks import Sighting, follow, overlaps
from pipeline.faces.video import VIDEOS, Frame, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=100, help="of each clip")
    parser.add_argument("--min-face", type=int, default=40)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    paths = sorted(p for p in given.folder.iterdir() if p.suffix.lower() in VIDEOS)
    detector = DETECTORS["mtcnn"](given.min_face, 0.9)
    clips = {path.name: list(itertools.islice(read(path).frames, given.frames)) for path in paths}
    parts(paths, clips, detector, given.frames, given.rounds)
    for name, clip in clips.items():
        whole = list(follow(clip, detector))
        if whole:
            sparse(name, clip, whole, detector, given.every)


def parts(paths: list[Path], clips: dict[str, list[Frame]], detector: Detector, frames: int, rounds: int) -> None:
    print("| clip | | decode, PyAV | decode, OpenCV | detect | align, a face |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in paths:
        clip = clips[path.name]
        height, width = clip[0].image.shape[:2]
        points = next((d.points[0] for f in clip if len(d := detector(f.image))), None)
        rates = [
            rate(lambda path=path: len(list(itertools.islice(read(path).frames, frames))), rounds),
            rate(lambda path=path: with_opencv(path, frames), rounds),
            rate(lambda clip=clip: len([detector(f.image) for f in clip[::5]]), rounds),
        ]
        aligned = "" if points is None else f"{rate(lambda c=clip, p=points: aligning(c, p), rounds):,.0f}"
        print(
            f"| {path.name} | {width} x {height} | {' | '.join(f'{r:,.0f}' for r in rates)} | {aligned} |", flush=True
        )
    print("frames/s on one core\n")


def aligning(clip: list[Frame], points: np.ndarray) -> int:
    return len([align_from(f.image, points) for f in clip])


def with_opencv(path: Path, frames: int) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    while count < frames and capture.read()[0]:
        count += 1
    return count


def rate(work: Callable[[], int], rounds: int) -> float:
    """The median number a second; the first round does not count."""
    rates = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - start))
    return median(rates[1:])


def sparse(name: str, clip: list[Frame], whole: list[Sighting], detector: Detector, every: list[int]) -> None:
    """Against detection in each frame: faces that have no counterpart, and how far those apart are that have one."""
    print(
        f"| {name} | frames/s | faces missing | too many | overlap: mean, least | points off, % of eyes | tremble, % |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    reference = {(s.frame, s.track): s for s in whole}
    for n in every:
        start = time.perf_counter()
        found = list(follow(clip, detector, n))
        speed = len(clip) / (time.perf_counter() - start)
        both = [(s, reference[s.frame, s.track]) for s in found if (s.frame, s.track) in reference]
        boxes = np.array([overlaps(a.box[None], b.box[None])[0, 0] for a, b in both])
        off = np.array([np.linalg.norm(a.points - b.points, axis=1).mean() / eyes(b) for a, b in both])
        print(
            f"| every {n} | {speed:,.0f} | {len(whole) - len(both)} | {len(found) - len(both)} "
            f"| {boxes.mean():.3f}, {boxes.min():.3f} | {100 * off.mean():.1f} | {100 * tremble(found):.1f} |",
            flush=True,
        )
    print()


def eyes(seen: Sighting) -> float:
    return float(np.linalg.norm(seen.points[0] - seen.points[1]))


def tremble(sightings: list[Sighting]) -> float:
    """Of the track seen most."""
    tracks = [s.track for s in sightings]
    longest = [s for s in sightings if s.track == max(set(tracks), key=tracks.count)]
    points = np.array([s.points for s in longest]) / median(map(eyes, longest))
    return float(np.sqrt(np.square(np.diff(points, 2, axis=0)).mean()))


if __name__ == "__main__":
    main()
