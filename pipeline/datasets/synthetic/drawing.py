"""What a face looks like: a person's features, and one frame of that face with given action units."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

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


def sample_identity(rng: np.random.Generator) -> Identity:
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


def in_picture(points: np.ndarray, depth: float | np.ndarray, pose: Pose) -> np.ndarray:
    """Points (n, 2) of the head's own coordinates in pixels of the canvas, (0, 0) being the centre of its first one."""
    angle = np.deg2rad(pose.roll)
    turned = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    turning, shift = ZOOM * pose.scale * np.array(turned), CENTRE + pose.shift
    return (np.asarray(points, float) + np.array(pose.turn) * depth) @ turning + shift


class Sketch:
    """An image to draw flat shapes on, and two layers of shade, in the head's own coordinates."""

    def __init__(self, background: np.ndarray, pose: Pose) -> None:
        self.image = background.copy()  # (SUPERSAMPLING * 112) squared, RGB
        self.creases = np.zeros((CANVAS, CANVAS), np.uint8)
        self.shades = np.zeros((CANVAS, CANVAS), np.uint8)
        self.pose, self.scale = pose, ZOOM * pose.scale

    def place(self, points: np.ndarray, depth: float, factor: int) -> np.ndarray:
        """Image coordinates in 1/16 pixel, as OpenCV's ``shift=4`` wants them."""
        return np.round((in_picture(points, depth, self.pose) + 0.5) * factor * 16 - 8).astype(np.int32)

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
    left, right = both_sides(au, lopsided)
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


def both_sides(au: dict[int, float], lopsided: float) -> tuple[dict[int, float], dict[int, float]]:
    """The action units of the left and of the right half of the picture."""
    left = {k: v * np.clip(1 - lopsided, 0, 1.5) for k, v in au.items()}
    return left, {k: v * np.clip(1 + lopsided, 0, 1.5) for k, v in au.items()}


def face_points(who: Identity, au: dict[int, float], lopsided: float, pucker: float, pose: Pose) -> np.ndarray:
    """(5, 2): where in the picture of ``draw_face`` the points of ``datasets.points.POINTS`` are, in its pixels.

    An eye's is half-way between its two corners, wherever it looks; the nose's is the light spot on its tip.
    """
    left, right = both_sides(au, lopsided)
    corners = [corner(who, left, pucker) * [-1, 1], corner(who, right, pucker)]
    eyes = [(-who.eye_distance, 0.0), (who.eye_distance, 0.0)]
    line = mouth_line(who, left, right)
    points = np.array([*eyes, (0.0, nose_tip(who, au) - 2.2), *((x, y + line) for x, y in corners)])
    return in_picture(points, np.array([3.0, 3.0, 9.0, 5.5, 5.5])[:, None], pose)


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


def nose_tip(who: Identity, au: dict[int, float]) -> float:
    return who.nose_length - 1.8 * au[9] - 0.8 * au[10]


def draw_nose(sketch: Sketch, who: Identity, au: dict[int, float]) -> None:
    tip, w = nose_tip(who, au), who.nose_width * (1 + 0.12 * au[9] + 0.06 * au[12])
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


def corner(who: Identity, au: dict[int, float], pucker: float) -> np.ndarray:
    """(2,): how far out the corner of the mouth is, and how far below ``mouth_line``, by its side's action units."""
    x = 1 + 0.32 * au[12] + 0.36 * au[20] + 0.08 * au[14] - 0.24 * au[23] - 0.08 * au[26] - 0.28 * pucker
    y = -6.5 * au[12] + 6.5 * au[15] + 1.4 * au[20] - 1.0 * au[14] + 2.2 * au[26]
    return np.array([who.mouth_width * x, y])


def pushed(both: dict[int, float]) -> float:
    return 1.8 * both[17] + 0.6 * both[24]


def mouth_line(who: Identity, left: dict[int, float], right: dict[int, float]) -> float:
    """How far below the eyes the mouth is."""
    both = {k: (left[k] + right[k]) / 2 for k in (12, 17, 24)}
    return who.mouth_height - 0.3 * pushed(both) + 0.8 * both[12]


def draw_mouth(sketch: Sketch, who: Identity, left: dict[int, float], right: dict[int, float], pucker: float) -> None:
    """Lips as curves over u in [-1, 1] from corner to corner; each side's own action units move its corner."""
    u = np.linspace(-1, 1, 17)
    both = {k: (left[k] + right[k]) / 2 for k in left}
    tight = np.clip(1 - 0.5 * both[23] - 0.65 * both[24] - 0.2 * both[12] - 0.2 * both[20], 0.2, 1.2)
    gap = max(0.0, (4.5 * both[25] + 11.0 * both[26]) * (1 - 0.8 * min(both[24], 1)))
    lift = 4.0 * both[10] + 1.2 * both[9] + 0.15 * gap
    push = pushed(both)
    (lx, ly), (rx, ry) = corner(who, left, pucker), corner(who, right, pucker)
    x, ends = np.where(u < 0, lx, rx) * u, np.where(u < 0, ly, ry) * u**2
    open_ = (1 - u**2) ** 0.7
    y = mouth_line(who, left, right) + ends
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
