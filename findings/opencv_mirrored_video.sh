#!/usr/bin/env bash
# OpenCV shows a mirrored video turned, or upside down
#
# A display matrix of MP4, MOV or MKV can mirror, as front cameras and screen recorders do. OpenCV 5.0.0.93 takes the angle
# out of it and leaves the mirroring: four of the eight orientations come out wrong. PyAV 18.1.0 tells the same angle,
# VideoFrame.rotation: -180 for a picture mirrored from left to right. The matrix itself is right: it is in
# frame.side_data, nine little-endian int32, of which 0, 1, 3 and 4 tell x -> a x + c y, y -> b x + d y.
# Seen: where the red corner is, by the matrix and by OpenCV.
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

WRONG = {(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)}
RIGHT = {(1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0)}
for matrix in [*RIGHT, *WRONG]:
    film("a.mp4", matrix=matrix)
    a, b, c, d = matrix
    x, y = a * -1 + c * -1, b * -1 + d * -1  # of the corner at left and up, (-1, -1) from the middle
    true = ("left" if x < 0 else "right", "up" if y < 0 else "down")
    image = cv2.VideoCapture("a.mp4").read()[1]
    rows, columns = np.nonzero((image[:, :, 2] > 180) & (image[:, :, 1] < 90))
    shown = (
        "left" if columns.mean() < image.shape[1] / 2 else "right", "up" if rows.mean() < image.shape[0] / 2 else "down"
    )
    rotation = next(av.open("a.mp4").decode(video=0)).rotation
    print(f"a, b, c, d = {matrix}: corner {true} by the matrix, {shown} by OpenCV {cv2.__version__}; rotation {rotation}")
    assert (true == shown) == (matrix in RIGHT)
film("a.mp4", matrix=(-1, 0, 0, 1))
assert next(av.open("a.mp4").decode(video=0)).rotation == -180
PYTHON
