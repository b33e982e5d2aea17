"""Which clips there are: names, splits of the three tracks, themes, lengths and faults, and who is in which video."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.params import option


@dataclass(frozen=True)
class SyntheticConfig:
    out: Path = option(Path("data/synthetic"), help="folder to draw into; made from nothing each time")
    root: Path = option(Path("data/synthetic"), help="the data set in use: nothing is drawn if it is not --out")
    seed: int = option(0, help="everything follows from it", within="[0, inf)")
    videos: int = option(150, help="number of face folders, 8 or more", within="[8, 100_000]")
    frames: int = option(88, help="mean number of frames a video, 8 or more", within="[8, 100_000]")
    size: int = option(112, help="side of the square JPEGs in pixels", within="[16, 4096]")
    workers: int = option(0, help="processes that draw; 0 is one a core", within="[0, 1024]")


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
    names = sample_names(config.videos + 1, rng)
    num_pairs, num_mixed = max(1, round(0.06 * config.videos)), max(1, round(0.02 * config.videos))
    singles = config.videos - 2 * (num_pairs + num_mixed)
    bases = [["_left", "_right"]] * num_pairs + [["", "_left"]] * num_mixed + [[""]] * singles
    splits = expression_splits([len(b) for b in bases], config.videos)
    themes = {s: iter(sample_themes(splits.count(s) * 2 + 2, rng)) for s in ("train", "val", None)}
    turn = {"train": 0, "val": 0, None: 0}
    faults, lengths = sample_faults(config.videos, rng), sample_lengths(config, rng)
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


def sample_names(count: int, rng: np.random.Generator) -> list[str]:
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


def sample_themes(count: int, rng: np.random.Generator) -> list[str]:
    """``count`` themes, any first n of which are in about the proportions of ``THEMES``."""
    names, due = list(THEMES), np.array(list(THEMES.values()))
    owed, themes = due + 0.02 * rng.random(len(due)), []
    for _ in range(count):
        k = int(np.argmax(owed))
        themes.append(names[k])
        owed[k] -= 1.0
        owed += due
    return themes


def sample_faults(videos: int, rng: np.random.Generator) -> list[frozenset[str]]:
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


def sample_lengths(config: SyntheticConfig, rng: np.random.Generator) -> list[int]:
    """The number of frames of each video, skewed as such sets are, with the mean asked for."""
    lengths = rng.lognormal(sigma=0.35, size=config.videos)
    return [max(8, round(x)) for x in lengths / lengths.mean() * config.frames]


def sample_frame_numbers(clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The numbers of the frames that exist, and how many frames the raw video has: faces are not found in all."""
    steps = np.ones(clip.frames, int)
    if "starts late" in clip.faults:
        steps[0] = rng.integers(60, 200)
    if "gaps" in clip.faults:
        steps[rng.integers(1, clip.frames, rng.integers(2, 6))] += 1
        steps[rng.integers(1, clip.frames)] += rng.integers(6, 25)
    numbers = np.cumsum(steps)
    return numbers, int(numbers[-1]) + (int(rng.integers(20, 60)) if "ends early" in clip.faults else 0)
