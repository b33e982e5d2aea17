"""What the face of a clip does: emotions in time, as intensities of facial action units, valence and arousal."""

from dataclasses import dataclass

import numpy as np

from pipeline.core.tables import ABAW_CLASSES
from pipeline.datasets.synthetic.plan import Clip

BETWEEN = {  # which emotions come between those of the video's theme
    "Neutral": 0.34, "Other": 0.26, "Happiness": 0.19, "Sadness": 0.13, "Surprise": 0.05,
    "Fear": 0.01, "Disgust": 0.01, "Anger": 0.01,
}  # fmt: skip
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
    expression = np.repeat([ABAW_CLASSES.index(c) for c in classes], np.diff([*starts, length]))
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
        other = rng.choice(ABAW_CLASSES[1:])
        prototype = PROTOTYPES[other][rng.integers(len(PROTOTYPES[other]))]
        rows = slice(t, t + rng.integers(1, 4))
        drawn[rows] *= 0.5
        for au, weight in prototype.units.items():
            drawn[rows, COLUMN[au]] += 0.6 * weight
    return drawn
