"""A drawn video: people side by side whose emotions change, to try what takes videos without a video of one's own.

The faces are acted and drawn as those of the drawn data set are, and are other people than any of it. The file is a
usual MP4 (H.264, 640 x 360 pixels, 25 frames a second).
"""

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.core.files import whole
from pipeline.core.tables import ABAW_CLASSES
from pipeline.datasets.synthetic.acting import AUS, Performance, perform
from pipeline.datasets.synthetic.camera import photograph, sample_camera, sample_poses
from pipeline.datasets.synthetic.drawing import draw_face, sample_identity
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
    length = round(seconds * FPS)
    played = [_film(seed, theme, length) for seed, theme in ACTORS[:people]]
    middles = [WIDTH * (2 * place + 1) // (2 * people) for place in range(people)]
    top = (HEIGHT - FACE) // 2
    with whole(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = WIDTH, HEIGHT, "yuv420p", 1
        for number, faces in enumerate(zip(*(pictures for _, pictures in played), strict=True)):
            picture = np.full((HEIGHT, WIDTH, 3), WALL, dtype=np.uint8)
            for middle, face in zip(middles, faces, strict=True):
                picture[top : top + FACE, middle - FACE // 2 : middle + FACE // 2] = face
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return [[ABAW_CLASSES[code] for code in acted.expression] for acted, _ in played]


def _film(seed: int, theme: str, length: int) -> tuple[Performance, list[np.ndarray]]:
    """What one person acts, and the pictures (FACE, FACE, 3) uint8 RGB of it."""
    rng = np.random.default_rng([seed, 0])
    acted = perform(Clip(0, "", "", None, theme, {}, frozenset(), length), 1, length, rng)
    who = sample_identity(rng)
    camera, poses, pictures = sample_camera(who, rng), sample_poses(length, rng), []
    for t, pose in enumerate(poses):
        units = dict(zip(AUS, acted.drawn[t].tolist(), strict=True))
        skin = tuple(float(c) for c in np.clip(np.array(who.skin) * (1 + acted.flush[t]), 0, 255))
        turned = dataclasses.replace(pose, turn=(pose.turn[0], pose.turn[1] + acted.nod[t]))
        coloured = dataclasses.replace(who, skin=skin)
        face = draw_face(coloured, units, acted.lopsided[t], acted.pucker[t], turned, camera.background)
        jpeg = np.frombuffer(photograph(face, camera, FACE, rng), dtype=np.uint8)
        pictures.append(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])
    return acted, pictures
