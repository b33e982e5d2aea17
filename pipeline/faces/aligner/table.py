"""Two tables in Markdown: how far the detector's points and the aligner's are off, and how much they tremble.

Held-out pictures of the aligner's own training, each in the middle of a plain wall, are tried as they are, grey, dark
and small. Tremble is measured on a drawn video of people who are in no data set. It is against the true points, since a
drawn head trembles by itself. With --clips it is also measured on other videos, whose true points nobody knows.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.params import UserError, option, parse
from pipeline.datasets.points import scaled
from pipeline.datasets.synthetic.clip import acted
from pipeline.faces.aligner import augment
from pipeline.faces.aligner.examples import Examples, evenly, gather, split
from pipeline.faces.aligner.measures import eye_distance, nme, tremble
from pipeline.faces.aligner.use import Aligner
from pipeline.faces.detect import DETECTORS, Detector
from pipeline.faces.tracks import follow
from pipeline.faces.video import VIDEOS, read

TIMES = 2  # a held-out picture is enlarged by this, and stands in the middle of a wall twice as wide
WALL = (92, 100, 112)
DARK = 0.15
SMALL = 5  # times smaller than the frame: the eyes of a drawn face are then some 15 pixels apart
MIN_FACE, CONFIDENCE = 20, 0.9
NEAR = 1.0  # eye distances that the middle of the detected points may be off, to be the face that is looked for
WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda image: image,
    "grey": lambda image: augment.quantised(augment.grey(image)),
    "dark": lambda image: augment.quantised(augment.dark(image, DARK)),
    "small": lambda image: smaller(image, SMALL),
}


@dataclass(frozen=True)
class TableConfig:
    points: Path | None = option(None, help="the trained aligner: best.safetensors")
    pictures: int = option(200, help="held-out pictures, evenly spaced", within="[1, inf)")
    seconds: float = option(4.0, help="length of the drawn video", within="[0.2, 600]")
    clips: Path | None = option(None, help="a folder of videos in which the tremble of points is measured too")
    frames: int = option(72, help="number of frames of each of these videos, the first ones", within="[3, inf)")


def main(argv: Sequence[str]) -> int:
    config = parse(TableConfig, argv, sections=[], description=__doc__)
    if config.points is None:
        raise UserError("aligner: name the trained aligner with --points")
    aligner = Aligner.load(config.points)
    detect = DETECTORS["mtcnn"](MIN_FACE, CONFIDENCE)
    examples = held_out_of(aligner)
    some = examples.some(evenly(len(examples), config.pictures))
    print(
        f"{len(some)} held-out pictures; a drawn video of {config.seconds:g} s, 2 people. In % of the eye distance.\n"
    )
    print("| pictures | faces detected, % | NME, detector | NME, aligner | tremble, detector | tremble, aligner |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, way in WAYS.items():
        found, theirs, ours = errors(aligner, detect, some, way)
        trembles = drawn_tremble(aligner, detect, config.seconds, way)
        print(
            f"| {name} | {found:.0f} | {theirs:.1f} | {ours:.1f} | {trembles[0]:.1f} | {trembles[1]:.1f} |", flush=True
        )
    if config.clips is not None:
        print("\n| clip | frames | tremble, detector | tremble, aligner |\n| --- | --- | --- | --- |")
        for path in sorted(p for p in config.clips.iterdir() if p.suffix.lower() in VIDEOS):
            if (line := clip_tremble(aligner, path, config.frames)) is not None:
                print(f"| {path.name} | {line[0]} | {line[1]:.1f} | {line[2]:.1f} |", flush=True)
    return 0


def held_out_of(aligner: Aligner) -> Examples:
    """The pictures that its training held out; raises ``UserError`` where they are no longer those."""
    of = aligner.facts["trained"]
    examples, _ = gather([Path(source) for source in of["data"]])
    held_out = split(examples, of["val_fraction"], of["seed"])[1]
    if held_out.digest != of["pictures_digest"][1]:
        raise UserError(
            f"aligner: the pictures or points of {of['data']} are not those of its training: train it again"
        )
    return held_out


def errors(
    aligner: Aligner, detect: Detector, examples: Examples, way: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float, float]:
    """Detected faces in %, and on these the mean error of the detector's points and of the aligner's, in %."""
    theirs, ours, true = [], [], []
    for row in range(len(examples)):
        whole, points = on_a_wall(examples.image(row), examples.points[row])
        frame = way(whole)
        points = moved_as(points, whole, frame)
        found = nearest(detect(frame).points, points)
        if found is not None:
            theirs.append(found)
            ours.append(aligner(frame, found[None])[0])
            true.append(points)
    if not true:
        return 0.0, float("nan"), float("nan")
    both = [100 * float(nme(np.stack(of), np.stack(true)).mean()) for of in (theirs, ours)]
    return 100 * len(true) / len(examples), *both


def on_a_wall(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture TIMES as large in the middle of one that is twice as wide and high."""
    large = cv2.resize(image, None, fx=TIMES, fy=TIMES, interpolation=cv2.INTER_CUBIC)
    height, width = large.shape[:2]
    frame = np.full((2 * height, 2 * width, 3), WALL, dtype=np.uint8)
    frame[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = large
    return frame, scaled(points, TIMES) + np.array([width // 2, height // 2])


def smaller(image: np.ndarray, times: int) -> np.ndarray:
    size = [max(1, round(side / times)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def moved_as(points: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Points (..., 2) of an image in another one of another size."""
    return scaled(points, np.array(after.shape[1::-1]) / before.shape[1::-1])


def nearest(found: np.ndarray, true: np.ndarray) -> np.ndarray | None:
    """The (5, 2) of ``found`` (n, 5, 2) that are of this face; None where there are none."""
    off = np.linalg.norm(found.mean(axis=1) - true.mean(axis=0), axis=1)
    if not len(off) or off.min() > NEAR * eye_distance(true):
        return None
    return found[off.argmin()]


def drawn_tremble(
    aligner: Aligner, detect: Detector, seconds: float, way: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """Of the detector's points and the aligner's, less the true ones, in % of the eyes; the mean over people."""
    off, eyes = [], []  # of each frame and person: (2, 5, 2), NaN where it is not detected
    for picture, points, _ in acted(seconds):
        frame = way(picture)
        true = moved_as(points, picture, frame)
        faces = detect(frame).points
        each = np.full((len(true), 2, 5, 2), np.nan)
        for k, of in enumerate(true):
            if (found := nearest(faces, of)) is not None:
                each[k] = found - of, aligner(frame, found[None])[0] - of
        off.append(each)
        eyes.append(eye_distance(true))
    errors, eyes = np.array(off), np.median(eyes, axis=0)
    people = range(errors.shape[1])
    theirs, ours = (100 * float(np.mean([tremble(errors[:, k, of], eyes[k]) for k in people])) for of in range(2))
    return theirs, ours


def clip_tremble(aligner: Aligner, path: Path, frames: int) -> tuple[int, float, float] | None:
    """Frames of the face that is seen most, and how much its points tremble by each, in %; None where there is none."""
    clip = list(itertools.islice(read(path).frames, frames))
    seen = list(follow(clip, DETECTORS["mtcnn"](40, CONFIDENCE)))
    tracks = [of.track for of in seen]
    longest = [of for of in seen if of.track == max(set(tracks), key=tracks.count)] if seen else []
    if len(longest) < 3:
        return None
    images = {frame.number: frame.image for frame in clip}
    number = np.array([of.frame for of in longest])
    theirs = np.full((number[-1] - number[0] + 1, 5, 2), np.nan)
    ours = theirs.copy()
    for of in longest:
        theirs[of.frame - number[0]] = of.points
        ours[of.frame - number[0]] = aligner(images[of.frame], of.points[None])[0]
    return len(longest), *(100 * tremble(of, float(np.nanmedian(eye_distance(of)))) for of in (theirs, ours))
