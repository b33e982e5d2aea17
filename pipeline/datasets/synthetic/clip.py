"""A drawn video: people side by side whose emotions change, to try what takes videos without a video of one's own.

The faces are acted and drawn as those of the drawn data set are, and are other people than any of it. The file is a
usual MP4 (H.264, 640 x 360 pixels, 25 frames a second).
"""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.core.files import whole
from pipeline.core.tables import ABAW_CLASSES
from pipeline.datasets.points import scaled
from pipeline.datasets.synthetic.acting import AUS, Performance, perform
from pipeline.datasets.synthetic.camera import photograph, sample_camera, sample_poses
from pipeline.datasets.synthetic.drawing import CANVAS, draw_face, face_points, sample_identity
from pipeline.datasets.synthetic.plan import Clip

WIDTH, HEIGHT, FPS = 640, 360, 25
FACE = 240  # pixels of a drawn face in the video
# Seed and theme of each person: chosen so that several emotions follow each other and all faces can be detected.
ACTORS = ((57, "Anger"), (34, "Surprise"))
WALL = (92, 100, 112)


def draw_clip(path: Path, seconds: float = 8, people: int = 2) -> list[list[str]]:
    """Writes the video, and gives the emotion that each person acts in each frame.

    The same arguments give the same emotions and pictures. ``people`` is 1 or 2.
    """
    emotions: list[list[str]] = [[] for _ in range(people)]
    with whole(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = WIDTH, HEIGHT, "yuv420p", 1
        for number, (picture, _, shown) in enumerate(acted(seconds, people)):
            for of, emotion in zip(emotions, shown, strict=True):
                of.append(emotion)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return emotions


def acted(seconds: float, people: int = 2) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Each frame (HEIGHT, WIDTH, 3) uint8 RGB, before it is encoded, with the points and the emotion of each person.

    Points are (people, 5, 2), as ``datasets.points.POINTS`` names them.
    """
    length = round(seconds * FPS)
    played = [_film(seed, theme, length) for seed, theme in ACTORS[:people]]
    lefts = [WIDTH * (2 * place + 1) // (2 * people) - FACE // 2 for place in range(people)]
    top = (HEIGHT - FACE) // 2
    for number in range(length):
        picture, points = np.full((HEIGHT, WIDTH, 3), WALL, dtype=np.uint8), []
        for left, (_, faces, places) in zip(lefts, played, strict=True):
            picture[top : top + FACE, left : left + FACE] = faces[number]
            points.append(places[number] + [left, top])
        yield picture, np.stack(points), [ABAW_CLASSES[of.expression[number]] for of, _, _ in played]


def _film(seed: int, theme: str, length: int) -> tuple[Performance, list[np.ndarray], list[np.ndarray]]:
    """What one person acts, the pictures (FACE, FACE, 3) uint8 RGB of it, and the points (5, 2) in each."""
    rng = np.random.default_rng([seed, 0])
    played = perform(Clip(0, "", "", None, theme, {}, frozenset(), length), 1, length, rng)
    who = sample_identity(rng)
    camera, poses, pictures, points = sample_camera(who, rng), sample_poses(length, rng), [], []
    for t, pose in enumerate(poses):
        units = dict(zip(AUS, played.drawn[t].tolist(), strict=True))
        skin = tuple(float(c) for c in np.clip(np.array(who.skin) * (1 + played.flush[t]), 0, 255))
        turned = dataclasses.replace(pose, turn=(pose.turn[0], pose.turn[1] + played.nod[t]))
        coloured = dataclasses.replace(who, skin=skin)
        face = draw_face(coloured, units, played.lopsided[t], played.pucker[t], turned, camera.background)
        points.append(scaled(face_points(who, units, played.lopsided[t], played.pucker[t], turned), FACE / CANVAS))
        jpeg = np.frombuffer(photograph(face, camera, FACE, rng), dtype=np.uint8)
        pictures.append(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])
    return played, pictures, points
