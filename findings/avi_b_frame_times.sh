#!/usr/bin/env bash
# The times of H.264 with B-frames in .avi go back and forth
#
# AVI stores no time for a frame, only its place, and B-frames are stored out of order. FFmpeg 8.1.2, as in PyAV 18.1.0,
# gives the frames the times of the places: frame.pts goes back and forth. OpenCV 5.0.0.93 (CAP_PROP_POS_MSEC) gives times
# that rise, from 0.08 s on, but the last two are 0. No error, no warning; the same packets in .mp4 are right.
# Seen: the order of the times of 40 frames.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$folder"
env/bin/python - <<'PYTHON'
from fractions import Fraction

import av
import numpy as np


def film(path, codec="libx264", matrix=None, count=3, **options):
    """A dark picture of 160 x 96 with a red corner at its upper left, and a grey bar that moves."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        if matrix:
            a, b, c, d = (65536 * part for part in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for i in range(count):
            image = np.full((96, 160, 3), 60, np.uint8)
            image[:24, :40] = 230, 20, 20
            image[50:60, i : i + 30] = 200
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


import cv2

for name in ("a.mp4", "a.avi"):
    film(name, count=40, bf="3")
    times = [round(float(frame.pts * frame.time_base), 2) for frame in av.open(name).decode(video=0)]
    capture, opencv = cv2.VideoCapture(name), []
    while capture.read()[0]:
        opencv.append(round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 2))
    print(f"{name}: PyAV {av.__version__} {times[:8]} ...; OpenCV {cv2.__version__} {opencv[:3]} ... {opencv[-4:]}")
    rises = [bool((np.diff(t) > 0).all()) for t in (times, opencv)]
    assert rises == ([True, True] if name == "a.mp4" else [False, False])
    assert opencv[0] == (0 if name == "a.mp4" else 0.08)
PYTHON
