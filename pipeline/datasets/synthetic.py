"""Drawn face clips, laid out on disk as ABAW lays out Aff-Wild2, with its annotation files and its faults.

    python -m pipeline.datasets.synthetic

so that a clone without any licensed data runs the whole pipeline, through the reader that real data goes through. The
labels are true by construction: the same action units move the face and write the annotation files. Nothing that is
measured here says anything about people; it says whether the pipeline can learn what was put in.

A clip is one person under one light, going through segments of differing emotions. An emotion is a prototype of
facial action units (AUs) after FACS and EMFACS (Ekman, Friesen and Hager 2002; Ekman and Friesen 1983), with onset,
apex and offset; valence and arousal lie where Russell's circumplex (1980) puts the emotion, as far out as the
envelope goes. Over that lie speech, blinks, flicker of single AUs, the crop's jitter, blur, noise and JPEG, so that
a single frame is often ambiguous where its neighbours decide. The constants of that noise are set so that a linear
probe on frozen ImageNet features gets a macro-F1 of about one half on unseen people, and averaging its
probabilities over seven frames to either side adds 0.05 to 0.08.

The same seed gives the same bytes whatever the number of workers; another build of OpenCV may round otherwise.
"""

import dataclasses
import functools
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.children import end_with_pool
from pipeline.core.params import UserError, entry, option, parse
from pipeline.datasets.found import SYNTHETIC_MARKER

ANNOTATIONS = "8th_ABAW_Annotations"
TRACK_FOLDERS = {"expr": "EXPR_Recognition_Challenge", "va": "VA_Estimation_Challenge", "au": "AU_Detection_Challenge"}
SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}
HEADERS = {
    "expr": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "va": "valence,arousal",
    "au": "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
}
CLASSES = HEADERS["expr"].split(",")
LABELLED_AUS = [int(name.removeprefix("AU")) for name in HEADERS["au"].split(",")]


@dataclass(frozen=True)
class SyntheticConfig:
    out: Path = option(Path("data/synthetic"), help="folder to draw into; made from nothing each time")
    root: Path = option(Path("data/synthetic"), help="the data set in use: nothing is drawn when that is not --out")
    seed: int = option(0, help="everything follows from it", within="[0, inf)")
    videos: int = option(150, help="number of face folders, 8 or more", within="[8, 100_000]")
    frames: int = option(88, help="mean number of frames a video, 8 or more", within="[8, 100_000]")
    size: int = option(112, help="side of the square JPEGs in pixels", within="[16, 4096]")
    workers: int = option(0, help="processes that draw; 0 is one a core", within="[0, 1024]")


def main(argv: Sequence[str] | None = None) -> int:
    config = parse(
        SyntheticConfig, argv, sections=["synthetic"], borrow=["dataset"], description=__doc__.split("\n\n")[0]
    )
    if config.out.resolve() != config.root.resolve():
        why = f"Nothing was drawn: dataset.root is {config.root.as_posix()}, not {config.out.as_posix()}."
        make_empty(config.out, why)
        print(why)
        return 0
    started = time.perf_counter()
    clips = plan(config)
    make_empty(config.out, f"Seed {config.seed}, {config.videos} videos of about {config.frames} frames.")
    num_frames = sum(draw_all(clips, config))
    write_stray_files(config.out)
    people = len(clips) - 1  # the last clip has annotations and no frames
    print(
        f"{people} videos, {num_frames} frames, {people} people in {time.perf_counter() - started:.1f} s: {config.out}"
    )
    return 0


def make_empty(folder: Path, fact: str) -> None:
    """An empty folder that holds only our README.txt; what an earlier run drew there is deleted.

    Raises ``UserError``, and deletes nothing, where the folder holds anything and its README.txt is not ours.
    """
    readme = folder / "README.txt"
    if folder.exists():
        ours = readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SYNTHETIC_MARKER)
        if not folder.is_dir() or (any(folder.iterdir()) and not ours):
            raise UserError(f"synthetic: {folder} is there and was not drawn by this project; delete it or set --out")
        for child in folder.iterdir():
            if child != readme:  # overwritten below: a run that is killed here can still be told from foreign data
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    readme.write_text(
        f"{SYNTHETIC_MARKER}\n{fact}\n\nNo person is shown: faces, emotions and annotations are made up, laid out\n"
        "as ABAW lays out Aff-Wild2, to try the pipeline without licensed data. Numbers measured on them\n"
        "say nothing about people.\n"
        "This folder is deleted and drawn anew by every run. Keep nothing of yours in it.\n",
        encoding="utf-8",
    )


# ---------------------------------------------------------------- who is in which video, which split, with which fault


@dataclass(frozen=True)
class Clip:
    """What is decided about a video before it is drawn; ``folder`` is None for annotations without frames."""

    index: int
    name: str
    group: str
    folder: str | None
    theme: str
    splits: dict[str, str | None]
    faults: frozenset[str]
    frames: int


THEMES = {  # which emotion a video is mostly about
    "Fear": 0.12, "Disgust": 0.12, "Anger": 0.12, "Surprise": 0.13,
    "Happiness": 0.17, "Sadness": 0.14, "Other": 0.12, "Neutral": 0.08,
}  # fmt: skip
BETWEEN = {  # and which come between
    "Neutral": 0.34, "Other": 0.26, "Happiness": 0.19, "Sadness": 0.13, "Surprise": 0.05,
    "Fear": 0.01, "Disgust": 0.01, "Anger": 0.01,
}  # fmt: skip
# For the videos of each EXPR split in turn: their splits in the other tracks, which differ, as ABAW's do.
OTHER_TRACKS = {
    "train": {"va": ["val", "train", "train", None, "train", "train"], "au": ["train", "train", None, "val", "train"]},
    "val": {"va": ["val", "train", "val", None], "au": ["val", None, "val", "train"]},
    None: {"va": ["train", None, "val", None], "au": [None, None, "train", None]},
}
# Every n-th video, counted in an order of the fault's own, so that each fault occurs in the smallest set.
FAULT_EVERY = {
    "starts late": 15, "ends early": 10, "gaps": 2, "annotation short": 25, "annotation long": 25, "batch2": 12,
    "one line more": 2,
}  # fmt: skip


def plan(config: SyntheticConfig) -> list[Clip]:
    """All videos of the set, and last a clip that has annotations and no frames."""
    rng = np.random.default_rng(config.seed)
    names = base_names(config.videos + 1, rng)
    num_pairs, num_mixed = max(1, round(0.06 * config.videos)), max(1, round(0.02 * config.videos))
    singles = config.videos - 2 * (num_pairs + num_mixed)
    bases = [["_left", "_right"]] * num_pairs + [["", "_left"]] * num_mixed + [[""]] * singles
    splits = expression_splits([len(b) for b in bases], config.videos)
    themes = {s: iter(theme_list(splits.count(s) * 2 + 2, rng)) for s in ("train", "val", None)}
    turn = {"train": 0, "val": 0, None: 0}
    faults, lengths = draw_faults(config.videos, rng), draw_lengths(config, rng)
    clips = []
    for name, suffixes, split in zip(names, bases, splits, strict=False):
        tracks = {"expr": split} | {t: c[turn[split] % len(c)] for t, c in OTHER_TRACKS[split].items()}
        turn[split] += 1
        for suffix in suffixes:
            index = len(clips)
            batch = "batch2/cropped_aligned_new_50_vids" if "batch2" in faults[index] else "batch1/cropped_aligned"
            clips.append(
                Clip(
                    index, name + suffix, name, f"{batch}/{name}{suffix}",
                    next(themes[split]), tracks, faults[index], lengths[index],
                )
            )  # fmt: skip
    without_frames = {"expr": "train", "va": "train", "au": None}
    return [*clips, Clip(len(clips), names[-1], names[-1], None, "Neutral", without_frames, frozenset(), config.frames)]


def base_names(count: int, rng: np.random.Generator) -> list[str]:
    """Distinct names of the kinds that ABAW has: 461, 10-60-1280x720, 122-60-1920x1080-5, video45_7, video62."""
    numbers = rng.permutation(max(600, 2 * count))[:count] + 1
    names = []
    for k, number in enumerate(numbers):
        fps, take = rng.choice([15, 24, 25, 30, 60]), rng.integers(1, 9)
        shape = rng.choice(["640x360", "1280x720", "1920x1080", "406x720"])
        kinds = [f"video{number}", f"{number}", f"{number}-{fps}-{shape}", f"video{number}_{take}"]
        kinds.append(f"{number}-{fps}-{shape}-{take}")
        names.append(str(kinds[k % len(kinds)]))
    return names


def expression_splits(widths: list[int], videos: int) -> list[str | None]:
    """Of each base video, by its number of folders, its EXPR split: about 60 % train, 30 % val, 10 % none.

    Bases with several folders go to train and val in turn, as a whole; the unlabelled ones are single.
    """
    room = {None: max(2, round(0.1 * videos)), "val": max(2, round(0.3 * videos))}
    splits: list[str | None] = ["train"] * len(widths)
    several = [i for i, width in enumerate(widths) if width > 1]
    for i in several[2::3]:
        splits[i] = "val"
        room["val"] -= widths[i]
    single = iter(i for i, width in enumerate(widths) if width == 1)
    for split, count in room.items():
        for _ in range(count):
            splits[next(single)] = split
    return splits


def theme_list(count: int, rng: np.random.Generator) -> list[str]:
    """``count`` themes, any first n of which are in about the proportions of ``THEMES``."""
    names, due = list(THEMES), np.array(list(THEMES.values()))
    owed, themes = due + 0.02 * rng.random(len(due)), []
    for _ in range(count):
        k = int(np.argmax(owed))
        themes.append(names[k])
        owed[k] -= 1.0
        owed += due
    return themes


def draw_faults(videos: int, rng: np.random.Generator) -> list[frozenset[str]]:
    """The faults of each video; its annotation is either short or long or neither."""
    faults: list[set[str]] = [set() for _ in range(videos)]
    for fault, every in FAULT_EVERY.items():
        for i in rng.permutation(videos)[: max(1, round(videos / every))]:
            faults[i].add(fault)
    for each in faults:
        if "annotation short" in each:
            each.discard("annotation long")
    if not any("annotation long" in each for each in faults):
        next(each for each in faults if "annotation short" not in each).add("annotation long")
    return [frozenset(each) for each in faults]


def draw_lengths(config: SyntheticConfig, rng: np.random.Generator) -> list[int]:
    """The number of frames of each video, skewed as such sets are, with the mean asked for."""
    lengths = rng.lognormal(sigma=0.35, size=config.videos)
    return [max(8, round(x)) for x in lengths / lengths.mean() * config.frames]


# ---------------------------------------------------------------------------- what the face does: action units in time

AUS = [1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43]
COLUMN = {au: i for i, au in enumerate(AUS)}
AU_ON = 0.3  # an intensity above this counts as present in the AU annotation


@dataclass(frozen=True)
class Prototype:
    """Valence and arousal at full intensity, the action units, and how much stronger the left side moves."""

    valence: float
    arousal: float
    units: dict[int, float]
    lopsided: float = 0.0


PROTOTYPES = {
    "Neutral": [Prototype(0.0, -0.05, {}), Prototype(0.02, 0.0, {24: 0.15}), Prototype(-0.02, -0.1, {43: 0.2})],
    "Anger": [
        Prototype(-0.65, 0.7, {4: 1.0, 5: 0.5, 7: 0.7, 23: 0.8}),
        Prototype(-0.55, 0.55, {4: 0.9, 7: 0.8, 24: 0.9, 17: 0.4}),
        Prototype(-0.75, 0.85, {4: 1.0, 5: 0.6, 7: 0.6, 10: 0.5, 25: 0.9, 26: 0.3}),
    ],
    "Disgust": [
        Prototype(-0.7, 0.35, {9: 1.0, 10: 0.8, 4: 0.4, 7: 0.4}),
        Prototype(-0.6, 0.3, {9: 0.7, 10: 1.0, 25: 0.6}),
        Prototype(-0.65, 0.25, {9: 0.9, 15: 0.6, 17: 0.7, 4: 0.3}),
    ],
    "Fear": [
        Prototype(-0.6, 0.75, {1: 1.0, 2: 0.6, 4: 0.6, 5: 1.0, 20: 0.9, 25: 0.7}),
        Prototype(-0.55, 0.65, {1: 0.9, 4: 0.7, 5: 0.8, 7: 0.3, 20: 0.7}),
        Prototype(-0.65, 0.85, {1: 0.9, 2: 0.8, 4: 0.5, 5: 1.0, 20: 0.7, 25: 0.8, 26: 0.4}),
    ],
    "Happiness": [
        Prototype(0.75, 0.35, {6: 0.8, 12: 1.0, 25: 0.7}),
        Prototype(0.6, 0.15, {6: 0.5, 12: 0.8}),
        Prototype(0.9, 0.65, {6: 1.0, 7: 0.3, 12: 1.0, 25: 1.0, 26: 0.5}),
    ],
    "Sadness": [
        Prototype(-0.65, -0.3, {1: 0.9, 4: 0.6, 15: 0.9, 17: 0.4}),
        Prototype(-0.55, -0.4, {1: 0.7, 15: 0.8, 43: 0.35}),
        Prototype(-0.75, 0.1, {1: 1.0, 4: 0.7, 6: 0.4, 15: 1.0, 25: 0.4}),
    ],
    "Surprise": [
        Prototype(0.15, 0.75, {1: 0.9, 2: 1.0, 5: 0.8, 25: 0.8, 26: 0.9}),
        Prototype(0.3, 0.6, {1: 0.8, 2: 0.9, 5: 0.5, 25: 0.6, 26: 0.4}),
        Prototype(-0.05, 0.7, {1: 1.0, 2: 1.0, 5: 1.0, 25: 0.5}),
    ],
    "Other": [
        Prototype(-0.25, 0.1, {12: 0.5, 14: 0.8}, lopsided=0.9),  # contempt
        Prototype(-0.1, 0.2, {4: 0.6, 2: 0.6, 7: 0.4}, lopsided=0.8),  # doubt
        Prototype(0.05, 0.15, {1: 0.5, 2: 0.6, 24: 0.7, 17: 0.5}),  # "who knows"
        Prototype(0.2, -0.35, {43: 0.55, 12: 0.3, 14: 0.3}),  # drowsy
        Prototype(-0.2, 0.3, {4: 0.5, 10: 0.4, 12: 0.5, 7: 0.5}),  # pained smile
    ],
}

# How far the head is lowered, and how skin colour changes in red, green and blue (Benitez-Quiroz, Srinivasan and
# Martinez 2018, "Facial color is an efficient mechanism to visually transmit emotion").
MANNERS = {
    "Neutral": (0.0, (0.0, 0.0, 0.0)),
    "Anger": (0.30, (0.06, -0.08, -0.08)),
    "Disgust": (-0.20, (-0.05, 0.03, -0.08)),
    "Fear": (-0.10, (-0.05, 0.02, 0.05)),
    "Happiness": (-0.15, (0.07, 0.0, -0.02)),
    "Sadness": (0.40, (-0.09, -0.06, 0.0)),
    "Surprise": (-0.35, (0.04, 0.03, 0.03)),
    "Other": (0.05, (0.0, 0.0, 0.0)),
}


@dataclass(frozen=True)
class Performance:
    """One row a frame of the raw video, frame 1 first: what is annotated, and what is drawn."""

    expression: np.ndarray  # (L,) class numbers
    affect: np.ndarray  # (L, 2) valence and arousal
    units: np.ndarray  # (L, len(AUS)) intensities as annotated
    drawn: np.ndarray  # (L, len(AUS)) intensities as drawn: with flicker, jitter and blinks
    lopsided: np.ndarray  # (L,)
    pucker: np.ndarray  # (L,) the rounding of the mouth in speech
    nod: np.ndarray  # (L,)
    flush: np.ndarray  # (L, 3) relative change of skin colour


def perform(clip: Clip, first: int, length: int, rng: np.random.Generator) -> Performance:
    """The emotions of one clip in time; segments begin anew at ``first``, its first frame that is drawn."""
    starts, classes = segments(clip, first, length, rng)
    expression = np.repeat([CLASSES.index(c) for c in classes], np.diff([*starts, length]))
    affect, units = np.zeros((length, 2)), np.zeros((length, len(AUS)))
    lopsided, nod, flush = np.zeros(length), np.zeros(length), np.zeros((length, 3))
    for start, stop, name in zip(starts, [*starts[1:], length], classes, strict=True):
        prototype = PROTOTYPES[name][rng.integers(len(PROTOTYPES[name]))]
        envelope = segment_envelope(start, stop, length, rng)
        affect += envelope[:, None] * [prototype.valence, prototype.arousal]
        lopsided += np.minimum(envelope, 1) * prototype.lopsided * rng.choice([-1, 1])
        nod += envelope * MANNERS[name][0]
        flush += envelope[:, None] * MANNERS[name][1]
        for au, weight in prototype.units.items():
            units[:, COLUMN[au]] += envelope * weight * np.clip(rng.normal(1, 0.2), 0.4, 1.4)
    affect = np.clip(affect + 0.05 * slow_noise(length, 2, 25, rng), -1, 1)
    units *= rng.lognormal(0, 0.18, len(AUS))  # how much this person shows
    talk, pucker = speech(length, rng)
    units[:, COLUMN[25]] = np.maximum(units[:, COLUMN[25]], talk)
    units[:, COLUMN[26]] += 0.5 * talk
    resting = 0.08 * rng.standard_normal(len(AUS))  # a face that looks a little stern or sad at rest
    drawn = flicker(units, rng) + resting * np.isin(AUS, [1, 2, 4, 7, 12, 15, 24])
    drawn[:, COLUMN[43]] = np.maximum(drawn[:, COLUMN[43]], blinks(length, rng))
    return Performance(expression, affect, units, np.clip(drawn, 0, 1.25), lopsided, pucker, nod, flush)


def segments(clip: Clip, first: int, length: int, rng: np.random.Generator) -> tuple[list[int], list[str]]:
    """First rows and emotions of the segments; the clip's theme is among the first two that are drawn."""
    shortest = min(15, clip.frames // 2)
    longest = max(shortest + 1, min(60, clip.frames * 2 // 3))
    theme_at, starts, classes = int(rng.integers(2)), [], []
    if first > 1:
        starts, classes = [0], ["Neutral"]
    at, k = first - 1, 0
    while at < length:
        name = (
            clip.theme if k == theme_at or rng.random() < 0.35 else rng.choice(list(BETWEEN), p=list(BETWEEN.values()))
        )
        if not classes or name != classes[-1]:
            starts.append(at)
            classes.append(str(name))
        at += int(rng.integers(shortest, longest + 1))
        k += 1
    return starts, classes


def segment_envelope(start: int, stop: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """(L,) intensity of one segment: onset around ``start``, a wavering apex, offset around ``stop``."""
    t = np.arange(length)
    peak, onset, offset = rng.uniform(0.7, 1.15), rng.uniform(4, 10), rng.uniform(5, 12)
    rise, fall = smoothstep((t - start) / onset + 0.5), smoothstep((stop - t) / offset + 0.5)
    return peak * rise * fall * np.clip(1 + 0.2 * slow_noise(length, 1, 8, rng)[:, 0], 0.4, 1.3)


def smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def slow_noise(length: int, columns: int, frames: float, rng: np.random.Generator) -> np.ndarray:
    """(L, columns) Gaussian noise of unit variance that forgets itself in about ``frames`` frames."""
    keep = np.exp(-1 / frames)
    noise = rng.standard_normal((length, columns))
    noise[1:] *= np.sqrt(1 - keep**2)
    for t in range(1, length):
        noise[t] += keep * noise[t - 1]
    return noise


def speech(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(L,) how far speech opens the mouth, and how round: syllables of 4 to 8 frames, in utterances, with pauses."""
    speaks = slow_noise(length, 1, 20, rng)[:, 0] > rng.uniform(0.0, 1.5)
    phase = 2 * np.pi * np.cumsum(1 / rng.uniform(4, 8, length))
    opening = speaks * rng.uniform(0.25, 0.5) * np.abs(np.sin(phase / 2)) * rng.uniform(0.6, 1, length)
    return opening, speaks * 0.8 * np.clip(slow_noise(length, 1, 4, rng)[:, 0], 0, 1)


def blinks(length: int, rng: np.random.Generator) -> np.ndarray:
    closed = np.zeros(length)
    at = rng.integers(5, 60)
    while at < length:
        shape = [0.6, 1.0, 0.9, 0.4][: length - at]
        closed[at : at + len(shape)] = shape
        at += rng.integers(25, 100)
    return closed


def flicker(units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The intensities with what makes single frames ambiguous: jitter, moments of less, flashes of something else."""
    length = len(units)
    drawn = units * np.clip(1 + 0.20 * slow_noise(length, len(AUS), 1.0, rng), 0.1, 2)
    drawn += 0.06 * slow_noise(length, len(AUS), 1.0, rng)
    for t in np.flatnonzero(rng.random(length) < 0.06):
        drawn[t : t + rng.integers(1, 4)] *= rng.uniform(0.0, 0.5)
    for t in np.flatnonzero(rng.random(length) < 0.04):
        other = rng.choice(CLASSES[1:])
        prototype = PROTOTYPES[other][rng.integers(len(PROTOTYPES[other]))]
        rows = slice(t, t + rng.integers(1, 4))
        drawn[rows] *= 0.5
        for au, weight in prototype.units.items():
            drawn[rows, COLUMN[au]] += 0.6 * weight
    return drawn


# -------------------------------------------------------------------------------------------- what the face looks like

SUPERSAMPLING = 2
CANVAS = 112  # lengths below are relative to the point between the eyes, in 1 / (112 / ZOOM) of the image
CENTRE = np.array([56.0, 48.0])
ZOOM = 1.15  # aligned crops are tight
SKINS = [(242, 208, 184), (236, 196, 166), (226, 182, 148), (210, 163, 128), (186, 138, 104), (160, 113, 82)]
HAIRS = [
    *[(28, 22, 20), (52, 36, 26), (86, 58, 36), (112, 76, 46)],
    *[(150, 112, 66), (180, 146, 98), (126, 62, 38), (134, 132, 130)],
]
IRISES = [(70, 44, 28), (92, 62, 36), (70, 92, 60), (76, 106, 136), (96, 108, 116)]
STYLES = ["bald", "cropped", "fringe", "parted", "long"]

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """What stays of a person over a clip; colours are RGB."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    background: tuple[Colour, Colour]
    clothes: Colour
    face_width: float
    jaw_width: float
    chin: float
    style: str
    hairline: float
    eye_distance: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    beard: float
    glasses: Colour | None
    age: float


def draw_identity(rng: np.random.Generator) -> Identity:
    def near(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -2, 2))

    def vary(colour: Sequence[float], spread: float) -> Colour:
        return tuple(float(c) for c in np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255))

    def grey(rng: np.random.Generator) -> Colour:
        return (rng.uniform(90, 170),) * 3

    skin = vary(SKINS[rng.integers(len(SKINS))], 6)
    dark = sum(skin) < 430
    hair = vary(HAIRS[rng.integers(3 if dark else len(HAIRS))], 8)
    style = str(rng.choice(STYLES, p=[0.06, 0.34, 0.15, 0.25, 0.2]))
    return Identity(
        skin=skin,
        hair=hair,
        iris=vary(IRISES[rng.integers(2 if dark else len(IRISES))], 8),
        lips=mix(skin, vary((176, 60, 66), 18), rng.uniform(0.3, 0.75)),
        background=(vary(grey(rng), 8), vary(grey(rng), 8)),
        clothes=vary(rng.uniform(20, 230, 3), 5),
        face_width=near(37, 1.3),
        jaw_width=near(27.5, 1.8),
        chin=near(55, 2.2),
        style=style,
        hairline=near(-32, 3),
        eye_distance=near(16.5, 1.0),
        eye_width=near(8.6, 0.5),
        eye_height=near(4.5, 0.4),
        eye_tilt=near(0.4, 0.7),
        brow_height=near(11.5, 1.2),
        brow_thickness=near(2.3, 0.6),
        brow_arch=near(2.0, 0.9),
        nose_length=near(20, 1.5),
        nose_width=near(7.2, 0.9),
        mouth_width=near(14.5, 1.0),
        mouth_height=near(35, 1.3),
        lip_thickness=near(1.0, 0.18),
        beard=float(rng.uniform(0.25, 0.9)) if style != "long" and rng.random() < 0.2 else 0.0,
        glasses=vary((40, 36, 40), 25) if rng.random() < 0.12 else None,
        age=float(rng.random()),
    )


def mix(a: Sequence[float], b: Sequence[float], share: float) -> Colour:
    return tuple(float((1 - share) * x + share * y) for x, y in zip(a, b, strict=True))


def dim(colour: Sequence[float], factor: float) -> Colour:
    return tuple(float(np.clip(c * factor, 0, 255)) for c in colour)


@dataclass(frozen=True)
class Pose:
    """How the head stands in one frame: ``turn`` moves what stands out, by its depth; degrees, pixels of 112."""

    roll: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    turn: tuple[float, float] = (0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)


class Sketch:
    """An image to draw flat shapes on, and two layers of shade, in the head's own coordinates."""

    def __init__(self, background: np.ndarray, pose: Pose) -> None:
        self.image = background.copy()  # (SUPERSAMPLING * 112) squared, RGB
        self.creases = np.zeros((CANVAS, CANVAS), np.uint8)
        self.shades = np.zeros((CANVAS, CANVAS), np.uint8)
        angle = np.deg2rad(pose.roll)
        turned = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        self.scale = ZOOM * pose.scale
        self.turning, self.shift, self.turn = self.scale * np.array(turned), CENTRE + pose.shift, np.array(pose.turn)

    def place(self, points: np.ndarray, depth: float, factor: int) -> np.ndarray:
        """Image coordinates in 1/16 pixel, as OpenCV's ``shift=4`` wants them."""
        points = (np.asarray(points, float) + self.turn * depth) @ self.turning + self.shift
        return np.round((points + 0.5) * factor * 16 - 8).astype(np.int32)

    def fill(self, points: np.ndarray, colour: Sequence[float], depth: float = 0.0) -> None:
        cv2.fillPoly(self.image, [self.place(points, depth, SUPERSAMPLING)], colour, cv2.LINE_AA, 4)

    def line(self, points: np.ndarray, colour: Sequence[float], width: float, depth: float = 0.0) -> None:
        thick = max(1, round(width * SUPERSAMPLING * self.scale))
        cv2.polylines(self.image, [self.place(points, depth, SUPERSAMPLING)], False, colour, thick, cv2.LINE_AA, 4)

    def crease(self, points: np.ndarray, strength: float, depth: float = 0.0) -> None:
        """A thin soft line, ``strength`` from 0 to 1."""
        if strength > 0.02:
            value = int(255 * min(strength, 1))
            cv2.polylines(self.creases, [self.place(points, depth, 1)], False, value, 1, cv2.LINE_AA, 4)

    def shade(self, points: np.ndarray, strength: float, depth: float = 0.0) -> None:
        """A wide soft spot."""
        if strength > 0.02:
            cv2.fillPoly(self.shades, [self.place(points, depth, 1)], int(255 * min(strength, 1)), cv2.LINE_AA, 4)

    def finished(self) -> np.ndarray:
        """(112, 112, 3) float32 RGB."""
        small = cv2.resize(self.image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA).astype(np.float32)
        dark = 0.55 * cv2.GaussianBlur(self.creases, (0, 0), 0.7).astype(np.float32)
        dark += 0.45 * cv2.GaussianBlur(self.shades, (0, 0), 2.6).astype(np.float32)
        return small * (1 - np.minimum(dark / 255, 0.9))[:, :, None]


@functools.lru_cache(maxsize=32)
def _catmull_rom(count: int, closed: bool, steps: int = 6) -> np.ndarray:
    """(M, count) weights that run a smooth curve through ``count`` points."""
    u = np.linspace(0, 1, steps, endpoint=False)
    basis = 0.5 * np.stack([-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2], 1)
    rows = []
    for k in range(count if closed else count - 1):
        weights = np.zeros((steps, count))
        for j, offset in enumerate((-1, 0, 1, 2)):
            i = (k + offset) % count if closed else min(max(k + offset, 0), count - 1)
            weights[:, i] += basis[:, j]
        rows.append(weights)
    if not closed:
        rows.append(np.eye(count)[-1:])
    return np.concatenate(rows)


def curve(points: Sequence[Sequence[float]], closed: bool = False) -> np.ndarray:
    return _catmull_rom(len(points), closed) @ np.asarray(points, float)


def mirrored(half: Sequence[Sequence[float]]) -> np.ndarray:
    """The points of the right half from bottom to top, then those of the left from top to bottom."""
    half = np.asarray(half, float)
    return np.concatenate([half, half[::-1] * [-1, 1]])


def ellipse(centre: Sequence[float], radii: Sequence[float], count: int = 20) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.asarray(centre) + np.stack([np.cos(angle), np.sin(angle)], 1) * radii


def draw_face(
    who: Identity, au: dict[int, float], lopsided: float, pucker: float, pose: Pose, background: np.ndarray
) -> np.ndarray:
    """(112, 112, 3) float32 RGB: one face with the given action unit intensities, before light, blur and noise."""
    sketch = Sketch(background, pose)
    draw_head(sketch, who, au)
    left = {k: v * np.clip(1 - lopsided, 0, 1.5) for k, v in au.items()}
    right = {k: v * np.clip(1 + lopsided, 0, 1.5) for k, v in au.items()}
    for side, own in ((-1, left), (1, right)):
        draw_eye(sketch, who, side, own | {43: au[43], 5: au[5]}, pose.gaze)
        draw_brow(sketch, who, side, own)
    draw_nose(sketch, who, au)
    draw_mouth(sketch, who, left, right, pucker)
    draw_creases(sketch, who, left, right)
    draw_front_hair(sketch, who)
    if who.glasses:
        draw_glasses(sketch, who)
    return sketch.finished()


def draw_head(sketch: Sketch, who: Identity, au: dict[int, float]) -> None:
    w, jaw, chin = who.face_width, who.jaw_width, who.chin + 7 * au[26] - 1.5 * au[17]
    shadow = dim(who.skin, 0.72)
    if who.style == "long":
        sketch.fill(
            curve(mirrored([(w, 75), (w + 7, 40), (w + 8, 0), (w * 0.9, -40), (12, -53)]), True), dim(who.hair, 0.8), -3
        )
    elif who.style != "bald":
        sketch.fill(
            curve(mirrored([(w - 2, 8), (w + 3.5, -10), (w * 0.93, -38), (12, -51)]), True), dim(who.hair, 0.85), -2
        )
    sketch.fill(np.array([(-20, 40), (20, 40), (24, 90), (-24, 90)]), shadow, -2)
    sketch.fill(curve([(-70, 90), (-50, 66), (-22, 59), (0, 66), (22, 59), (50, 66), (70, 90)]), who.clothes, -3)
    for side in (-1, 1):
        sketch.fill(ellipse((side * (w + 0.5), 7), (4.5, 8.5)), dim(who.skin, 0.85), -3)
    outline = [(7, chin), (jaw * 0.66, chin - 5), (jaw, chin - 17), (w * 0.95, 14), (w, -8), (w * 0.88, -32), (14, -47)]
    sketch.fill(curve(mirrored(outline), True), who.skin)
    if who.beard:
        mouth = who.mouth_height
        edge = [(-w * 0.95, 10), (-w * 0.72, 24), (-14, mouth - 9), (14, mouth - 9), (w * 0.72, 24), (w * 0.95, 10)]
        under = [(w * 0.95, 16), (jaw, chin - 16), (jaw * 0.66, chin - 4), (7, chin + 1)]
        sketch.fill(
            curve([*edge, *under, *[(-x, y) for x, y in under[::-1]]], True), mix(who.skin, who.hair, who.beard), 1
        )
    for side in (-1, 1):
        sketch.shade(
            curve(
                [
                    (side * w, -10),
                    (side * w * 0.94, 16),
                    (side * jaw, chin - 16),
                    (side * (jaw + 8), chin),
                    (side * (w + 6), 10),
                ],
                True,
            ),
            0.35,
        )
        sketch.shade(ellipse((side * who.eye_distance, -3), (who.eye_width + 1.5, 5)), 0.22 + 0.2 * who.age, 3)


def draw_eye(sketch: Sketch, who: Identity, side: int, au: dict[int, float], gaze: tuple[float, float]) -> None:
    centre = np.array([side * who.eye_distance, 0.0])
    lids = 1 - min(au[43], 1)
    upper = who.eye_height * (1 + 0.7 * au[5] - 0.35 * au[7] - 0.25 * au[6] - 0.25 * au[9] - 0.15 * au[4]) * lids
    lower = 0.72 * who.eye_height * (1 + 0.1 * au[5] - 0.5 * au[7] - 0.6 * au[6] - 0.35 * au[9]) * (0.25 + 0.75 * lids)
    upper, lower = max(upper, -0.6 * max(lower, 0.3)), max(lower, 0.3)
    x = np.linspace(-1, 1, 15)
    tilt = -who.eye_tilt * x * side

    def lid(height: float) -> np.ndarray:
        return centre + np.stack([x * who.eye_width, height * (1 - x**2) ** 0.8 + tilt], 1)

    top, bottom = lid(-upper), lid(lower)
    sketch.fill(np.concatenate([top, bottom[::-1]]), (236, 232, 228), 3)
    if upper + lower > 0.8:
        for radius, colour in ((4.5, who.iris), (2.1, (14, 12, 14))):
            disc = ellipse((centre[0] + gaze[0], gaze[1] - 0.4), (radius, radius))
            within = np.interp(disc[:, 0], top[:, 0], top[:, 1]), np.interp(disc[:, 0], top[:, 0], bottom[:, 1])
            disc[:, 1] = np.clip(disc[:, 1], *within)
            sketch.fill(disc, colour, 3.2)
        glint = (centre[0] + gaze[0] - 1.2, gaze[1] - 1.6)
        if glint[1] > -upper:
            sketch.fill(ellipse(glint, (0.7, 0.7), 8), (250, 250, 250), 3.2)
    sketch.line(top, dim(who.skin, 0.25), 1.1, 3)
    sketch.line(bottom, dim(who.skin, 0.6), 0.5, 3)
    sketch.crease(lid(-upper - 2.4 + 1.2 * au[5])[2:-2], 0.5, 3)
    sketch.crease(lid(lower + 2.2)[3:-3], 0.15 + 0.25 * who.age + 0.6 * au[6] + 0.35 * au[7], 3)


def draw_brow(sketch: Sketch, who: Identity, side: int, au: dict[int, float]) -> None:
    y = -who.brow_height
    inner = (who.eye_distance - 8.5 - 3.0 * au[4], y + 0.6 - 6.5 * au[1] + 6.0 * au[4] + 2.0 * au[9])
    middle = (who.eye_distance - 0.5, y - who.brow_arch - 3.5 * au[1] - 5.5 * au[2] + 4.4 * au[4] + 1.5 * au[9])
    outer = (who.eye_distance + 9.0, y + 1.6 - 6.0 * au[2] + 1.2 * au[4] + 0.6 * au[1])
    spine = curve([inner, middle, outer]) * [side, 1]
    thickness = who.brow_thickness * np.interp(
        np.arange(len(spine)), [0, len(spine) * 0.4, len(spine) - 1], [0.85, 1.0, 0.25]
    )
    half = np.stack([np.zeros(len(spine)), thickness / 2], 1)
    colour = mix(who.hair, who.skin, 0.1 if who.style != "bald" else 0.3)
    sketch.fill(np.concatenate([spine - half, (spine + half)[::-1]]), dim(colour, 0.85), 4)


def draw_nose(sketch: Sketch, who: Identity, au: dict[int, float]) -> None:
    tip, w = who.nose_length - 1.8 * au[9] - 0.8 * au[10], who.nose_width * (1 + 0.12 * au[9] + 0.06 * au[12])
    for side in (-1, 1):
        sketch.shade(
            curve(
                [
                    (side * 2.5, -4),
                    (side * 3.4, 6),
                    (side * (w * 0.75), tip - 4),
                    (side * (w * 0.95), tip),
                    (side * (w * 0.45), tip - 3),
                    (side * 1.8, 4),
                ],
                True,
            ),
            0.4,
            6,
        )
        sketch.fill(ellipse((side * w * 0.48, tip + 1.4), (1.7, 0.95), 12), dim(who.skin, 0.35), 8)
        wing = curve([(side * w * 0.8, tip - 4.2), (side * w * 1.02, tip - 1), (side * w * 0.75, tip + 1.6)])
        sketch.crease(wing, 0.65 + 0.3 * au[9], 7)
    sketch.fill(ellipse((0, tip - 2.2), (1.5, 1.2), 12), dim(who.skin, 1.08), 9)
    sketch.shade(ellipse((0, tip + 4.5), (w * 0.7, 2)), 0.3, 6)


def draw_mouth(sketch: Sketch, who: Identity, left: dict[int, float], right: dict[int, float], pucker: float) -> None:
    """Lips as curves over u in [-1, 1] from corner to corner; each side's own action units move its corner."""
    u = np.linspace(-1, 1, 17)
    both = {k: (left[k] + right[k]) / 2 for k in left}
    tight = np.clip(1 - 0.5 * both[23] - 0.65 * both[24] - 0.2 * both[12] - 0.2 * both[20], 0.2, 1.2)
    gap = max(0.0, (4.5 * both[25] + 11.0 * both[26]) * (1 - 0.8 * min(both[24], 1)))
    lift = 4.0 * both[10] + 1.2 * both[9] + 0.15 * gap
    push = 1.8 * both[17] + 0.6 * both[24]

    def corner(au: dict[int, float]) -> tuple[float, float]:
        x = 1 + 0.32 * au[12] + 0.36 * au[20] + 0.08 * au[14] - 0.24 * au[23] - 0.08 * au[26] - 0.28 * pucker
        return who.mouth_width * x, -6.5 * au[12] + 6.5 * au[15] + 1.4 * au[20] - 1.0 * au[14] + 2.2 * au[26]

    (lx, ly), (rx, ry) = corner(left), corner(right)
    x, ends = np.where(u < 0, lx, rx) * u, np.where(u < 0, ly, ry) * u**2
    open_ = (1 - u**2) ** 0.7
    y = who.mouth_height - 0.3 * push + 0.8 * both[12] + ends
    upper_in, lower_in = y - lift * open_, y + (gap - lift * (gap > 0) * 0.5 - push * 0.5) * open_
    lower_in = np.maximum(lower_in, upper_in)
    bow = open_ * (1 - 0.3 * np.exp(-((u / 0.16) ** 2)))
    upper_out = upper_in - 3.6 * who.lip_thickness * tight * (1 + 0.3 * pucker) * bow
    lower_out = lower_in + 4.6 * who.lip_thickness * tight * (1 + 0.3 * pucker) * open_
    if who.beard > 0.4:
        sketch.fill(band(x * 1.12, upper_out - 4, upper_out + 1), mix(who.skin, who.hair, who.beard), 5)
    sketch.fill(band(x, upper_out, upper_in), dim(who.lips, 0.88), 5.5)
    sketch.fill(band(x, lower_in, lower_out), who.lips, 5.5)
    if gap > 0.5:
        sketch.fill(band(x * 0.97, upper_in, lower_in), (58, 20, 22), 5.5)
        teeth = np.minimum(upper_in + (1.6 + 1.6 * both[12] + 1.2 * both[10] + 1.0 * both[20]) * open_, lower_in)
        sketch.fill(band(x * 0.88, upper_in, teeth), (232, 226, 214), 5.5)
        if gap > 4:
            tongue = np.maximum(lower_in - 0.35 * gap * open_, teeth)
            sketch.fill(band(x * 0.7, tongue, lower_in), (168, 82, 84), 5.5)
    else:
        sketch.line(np.stack([x, upper_in], 1), dim(who.lips, 0.42), 0.9, 5.5)
    for cx, cy, au in ((-lx, ly, left), (rx, ry, right)):
        dent = 0.3 + 0.5 * au[14] + 0.3 * au[12] + 0.3 * au[15]
        at = who.mouth_height + cy
        sketch.crease(np.array([(cx * 1.04, at - 1.2), (cx * 1.09, at + 0.2 + 1.5 * au[15])]), dent, 5)
    sketch.shade(ellipse((0, float(lower_out.max()) + 3), (8, 1.8)), 0.35 + 0.3 * both[17], 5)


def band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The closed shape between two curves over the same x."""
    return np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])


def draw_creases(sketch: Sketch, who: Identity, left: dict[int, float], right: dict[int, float]) -> None:
    """The folds by which action units are told: brow furrow, forehead, crow's feet, nose root, cheek, chin."""
    old, mouth, w = 0.25 * who.age, who.mouth_height, who.nose_width
    for side, au in ((-1, left), (1, right)):
        fold = max(au[9], au[10], 0.9 * au[12], 0.4 * au[15])
        out = who.mouth_width * (1.25 + 0.3 * au[12])
        path = curve(
            [
                (side * (w + 1.5), who.nose_length - 3),
                (side * (w + 5.5), 0.6 * who.nose_length + 0.4 * mouth),
                (side * out, mouth - 3),
            ]
        )
        sketch.crease(path, 0.15 + old + 0.75 * fold, 4)
        sketch.shade(ellipse((side * (out + 5), mouth - 12 - 2 * au[12]), (6, 4)), 0.3 * max(au[6], au[12]), 3)
        x = side * (who.eye_distance + who.eye_width + 2)
        for dy in (-2.5, 0, 2.5):
            sketch.crease(np.array([(x, dy * 0.5), (x + side * 4, dy * 1.5)]), (0.5 + old) * au[6], 2)
        sketch.crease(curve([(side * 2.8, -16), (side * 2.2, -11), (side * 3, -6)]), 0.95 * au[4], 4)
        for dy in (-1, 2):
            sketch.crease(np.array([(side * 5, dy - 1), (0, dy + 1)]), 0.9 * au[9], 6)
    high = (left[1] + left[2] + right[1] + right[2]) / 4
    for dy in (0, -4.5, -9):
        y = -who.brow_height - 9 - 2 * high + dy
        if y > who.hairline + {"fringe": 11, "parted": 11}.get(who.style, 2):
            sketch.crease(curve([(-16, y + 1), (0, y), (16, y + 1)]), 0.15 * old + 0.75 * high, 2)
    chin = (left[17] + right[17]) / 2
    sketch.shade(ellipse((0, who.chin - 8), (6, 3)), 0.45 * chin, 3)


def draw_front_hair(sketch: Sketch, who: Identity) -> None:
    if who.style == "bald":
        return
    w, line = who.face_width, who.hairline
    over = [
        (w * 1.04, -6),
        (w * 0.98, -28),
        (w * 0.6, -46),
        (0, -53),
        (-w * 0.6, -46),
        (-w * 0.98, -28),
        (-w * 1.04, -6),
    ]
    under = {
        "cropped": [(-w * 0.93, -14), (-w * 0.72, line + 4), (0, line), (w * 0.72, line + 4), (w * 0.93, -14)],
        "fringe": [(-w * 0.9, -10), (-w * 0.68, line + 13), (0, line + 11), (w * 0.68, line + 13), (w * 0.9, -10)],
        "parted": [(-w * 0.93, -8), (-w * 0.8, line + 14), (-6, line + 6), (w * 0.5, line - 6), (w * 0.93, -16)],
        "long": [(-w * 0.95, 10), (-w * 0.78, line + 10), (0, line - 6), (w * 0.78, line + 10), (w * 0.95, 10)],
    }[who.style]
    sketch.fill(curve([*over, *under], True), who.hair, 1)
    sketch.line(curve([(-w * 0.5, -40), (0, -46), (w * 0.5, -40)]), dim(who.hair, 1.25), 2, 1)


def draw_glasses(sketch: Sketch, who: Identity) -> None:
    for side in (-1, 1):
        rim = ellipse((side * who.eye_distance, 1), (who.eye_width + 4, 8.5), 28)
        sketch.line(np.concatenate([rim, rim[:1]]), who.glasses, 1.2, 5)
        sketch.line(
            np.array([(side * (who.eye_distance + who.eye_width + 4), 0), (side * who.face_width, -1)]),
            who.glasses,
            1.2,
            2,
        )
    bridge = who.eye_distance - who.eye_width - 4
    sketch.line(np.array([(-bridge, 0), (0, -1.2), (bridge, 0)]), who.glasses, 1.2, 6)


# ------------------------------------------------------------------------------------------- the camera and the frames


@dataclass(frozen=True)
class Camera:
    """Light and picture quality of one clip: ``light`` (112, 112, 3) multiplies the image."""

    background: np.ndarray
    light: np.ndarray
    noise: float
    blur: float
    quality: int


def draw_camera(who: Identity, rng: np.random.Generator) -> Camera:
    side = SUPERSAMPLING * CANVAS
    share = np.linspace(0, 1, side)[:, None, None]
    background = (1 - share) * who.background[0] + share * who.background[1] + np.zeros((side, side, 1))
    background = np.ascontiguousarray(background.astype(np.uint8))
    for _ in range(rng.integers(2)):
        corner, extent = rng.integers(-40, side, 2), rng.integers(30, 140, 2)
        colour = tuple(int(c) for c in rng.integers(60, 190) + rng.integers(-20, 20, 3))
        cv2.rectangle(background, corner.tolist(), (corner + extent).tolist(), colour, -1)
    background = cv2.GaussianBlur(background, (0, 0), rng.uniform(2, 8))
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.2)
    y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j]
    direction = strength * (np.cos(angle) * x + np.sin(angle) * y)
    cast = rng.uniform(0.9, 1.05) * (1 + rng.normal(0, 0.015, 3))
    light = ((1 + direction)[:, :, None] * cast).astype(np.float32)
    quality = int(rng.integers(55, 92))
    return Camera(background, light, rng.uniform(1.0, 3.0), rng.uniform(0.2, 0.5), quality)


def draw_poses(length: int, rng: np.random.Generator) -> list[Pose]:
    """(L) poses: the head wanders slowly, and the crop jitters from frame to frame, as a detector's box does."""
    slow = slow_noise(length, 8, 18, rng) * [2.5, 0.015, 1.0, 0.8, 0.2, 0.15, 0.7, 0.3] + rng.normal(
        0, [1.5, 0.02, 0.7, 0.7, 0.15, 0.1, 0.2, 0.1]
    )
    slow[:, :4] += rng.standard_normal((length, 4)) * [0.4, 0.006, 0.35, 0.35]
    slow[:, 4:6] = np.clip(slow[:, 4:6], -0.6, 0.6)
    slow[:, 6:8] = np.clip(slow[:, 6:8], -2, 2)
    return [Pose(r, 1 + s, (x, y), (tx, ty), (gx, gy)) for r, s, x, y, tx, ty, gx, gy in slow.tolist()]


def occlusions(length: int, rng: np.random.Generator) -> dict[int, tuple[np.ndarray, Colour]]:
    """Row -> a shape over the face and its colour: a hand or a microphone, a few frames long, in every third clip."""
    covered = {}
    for _ in range(rng.choice([0, 0, 1, 2])):
        start, count = int(rng.integers(length)), int(rng.integers(3, 11))
        shape = ellipse((rng.uniform(-25, 25), rng.uniform(15, 60)), (rng.uniform(7, 16), rng.uniform(12, 30)))
        colour = (SKINS[rng.integers(len(SKINS))], (40, 40, 44))[rng.integers(2)]
        covered |= {t: (shape, colour) for t in range(start, min(start + count, length))}
    return covered


def cover(image: np.ndarray, shape: np.ndarray, colour: Colour, shift: np.ndarray) -> np.ndarray:
    """The image with the shape painted over it, its edge smoothed."""
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round((shape + shift) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(mask, (0, 0), 0.6).astype(np.float32)[:, :, None] / 255
    return image * (1 - share) + share * np.array(colour, np.float32)


def photograph(image: np.ndarray, camera: Camera, size: int, rng: np.random.Generator) -> bytes:
    """The JPEG file of a drawn face under this camera, with one frame's exposure, blur and noise."""
    image = image * camera.light * rng.normal(1, 0.025)
    if size != CANVAS:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < CANVAS else cv2.INTER_CUBIC)
    blur = camera.blur + (rng.uniform(0.3, 0.8) if rng.random() < 0.08 else 0)
    image = cv2.GaussianBlur(image, (0, 0), blur * size / CANVAS)
    image += rng.standard_normal(image.shape, np.float32) * camera.noise
    pixels = np.clip(image, 0, 255).astype(np.uint8)[:, :, ::-1]
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    assert done
    return data.tobytes()


def write_clip(clip: Clip, config: SyntheticConfig) -> int:
    """Draws one clip and writes its frames and annotations; how many frames it has."""
    rng = np.random.default_rng([config.seed, clip.index])
    numbers, length = frame_numbers(clip, rng)
    num_lines = annotation_lines(clip, numbers, length, rng)
    rows = max(length, num_lines)
    played = perform(clip, int(numbers[0]), rows, rng)
    write_annotations(clip, played, num_lines, config.out / ANNOTATIONS, rng)
    if clip.folder is None:
        return 0
    who = draw_identity(rng)
    camera, poses, covered = draw_camera(who, rng), draw_poses(rows, rng), occlusions(rows, rng)
    folder = config.out / clip.folder
    folder.mkdir(parents=True)
    for number in numbers.tolist():
        t = number - 1
        au = dict(zip(AUS, played.drawn[t].tolist(), strict=True))
        skin = tuple(float(c) for c in np.clip(np.array(who.skin) * (1 + played.flush[t]), 0, 255))
        turn = (poses[t].turn[0], poses[t].turn[1] + played.nod[t])
        pose, coloured = dataclasses.replace(poses[t], turn=turn), dataclasses.replace(who, skin=skin)
        image = draw_face(coloured, au, played.lopsided[t], played.pucker[t], pose, camera.background)
        if t in covered:
            image = cover(image, *covered[t], shift=CENTRE + rng.normal(0, 1.0, 2))
        (folder / f"{number:05d}.jpg").write_bytes(photograph(image, camera, config.size, rng))
    return len(numbers)


def frame_numbers(clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The numbers of the frames that exist, and how many frames the raw video has: faces are not found in all."""
    steps = np.ones(clip.frames, int)
    if "starts late" in clip.faults:
        steps[0] = rng.integers(60, 200)
    if "gaps" in clip.faults:
        steps[rng.integers(1, clip.frames, rng.integers(2, 6))] += 1
        steps[rng.integers(1, clip.frames)] += rng.integers(6, 25)
    numbers = np.cumsum(steps)
    return numbers, int(numbers[-1]) + (int(rng.integers(20, 60)) if "ends early" in clip.faults else 0)


# ---------------------------------------------------------------------------------------------------- annotation files


def annotation_lines(clip: Clip, numbers: np.ndarray, length: int, rng: np.random.Generator) -> int:
    """How many frames the annotation files speak of: one more than there are is common, far too few or many is not."""
    if "annotation short" in clip.faults:
        return int(numbers[len(numbers) // 2]) - int(rng.integers(0, 3))
    if "annotation long" in clip.faults:
        return length + int(rng.integers(50, 250))
    return length + ("one line more" in clip.faults)


def write_annotations(clip: Clip, played: Performance, lines: int, parent: Path, rng: np.random.Generator) -> None:
    """One file for each track the clip is labelled in; line i, the header being line 0, is frame i."""
    rows = {"expr": expression_rows, "va": affect_rows, "au": unit_rows}
    for track, split in clip.splits.items():
        text = "\n".join([HEADERS[track], *rows[track](played, lines, rng)]) + "\n"
        if split is not None:
            path = parent / TRACK_FOLDERS[track] / SPLIT_FOLDERS[split] / f"{clip.name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def invalid_run(lines: int, likely: float, rng: np.random.Generator) -> slice:
    """Rows that annotators left out: up to a quarter of the clip, or none."""
    start, count = int(rng.integers(lines)), int(rng.integers(2, max(3, min(20, lines // 4))))
    return slice(start, start + count) if rng.random() < likely else slice(0, 0)


def expression_rows(played: Performance, lines: int, rng: np.random.Generator) -> list[str]:
    values = played.expression[:lines].copy()
    values[invalid_run(lines, 0.6, rng)] = -1
    return [str(v) for v in values]


def affect_rows(played: Performance, lines: int, rng: np.random.Generator) -> list[str]:
    """-5 in both columns of a run, and now and then in one column of one row."""
    values = np.round(played.affect[:lines], 3) + 0.0  # no minus zero
    values[invalid_run(lines, 0.6, rng)] = -5
    if rng.random() < 0.3:
        values[rng.integers(lines), rng.integers(2)] = -5
    return [f"{v:g},{a:g}" for v, a in values]


def unit_rows(played: Performance, lines: int, rng: np.random.Generator) -> list[str]:
    """-1 in whole rows of a run, and now and then in one column throughout."""
    values = (played.units[:lines, [COLUMN[au] for au in LABELLED_AUS]] > AU_ON).astype(int)
    values[invalid_run(lines, 0.6, rng)] = -1
    if rng.random() < 0.2:
        values[:, rng.integers(len(LABELLED_AUS))] = -1
    return [",".join(map(str, row)) for row in values.tolist()]


def write_stray_files(out: Path) -> None:
    """What lies about beside the folders of such releases."""
    faces = out / "batch1" / "cropped_aligned"
    (faces / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\x00")
    (faces / "notes.txt").write_text("not a video\n", encoding="utf-8")
    (out / "batch2" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    (out / ANNOTATIONS / TRACK_FOLDERS["expr"] / "Train_Set" / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\x00")


# --------------------------------------------------------------------------------------------------------- all of them


def draw_all(clips: list[Clip], config: SyntheticConfig) -> list[int]:
    """The number of frames of each clip, drawn by ``config.workers`` processes."""
    write = functools.partial(write_clip, config=config)
    workers = min(config.workers or os.cpu_count() or 1, len(clips))
    if workers == 1:
        return [write(clip) for clip in clips]
    # Spawned, not forked: a fork copies the locks of whatever threads the caller has.
    with multiprocessing.get_context("spawn").Pool(workers, _start) as pool:
        return pool.map(write, clips, chunksize=1)


def _start() -> None:
    end_with_pool()
    cv2.setNumThreads(1)


if __name__ == "__main__":
    entry(main)
