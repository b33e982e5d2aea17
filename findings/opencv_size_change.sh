#!/usr/bin/env bash
# OpenCV squeezes a video whose picture changes its size
#
# A phone that is turned, or a video call, changes the size on the way: VP8, VP9 and H.264 allow it. OpenCV 5.0.0.93 gives
# every later frame in the size of the first, whatever its shape: a circle becomes an ellipse. Nothing tells of it.
# PyAV 18.1.0 gives each frame its own size.
# Seen: a circle of 60 x 60 in 160 x 96, and then in 96 x 160.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$folder"
env/bin/python - <<'PYTHON'
from fractions import Fraction

import av
import cv2
import numpy as np

with av.open("a.webm", "w") as container:
    stream = container.add_stream("libvpx", rate=25)
    stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
    for part, (width, height) in enumerate([(160, 96), (96, 160)]):
        encoder = av.CodecContext.create("libvpx", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
        image = cv2.circle(np.full((height, width, 3), 60, np.uint8), (48, 48), 30, (230, 20, 20), -1)
        packets = []
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 5 * part + i, Fraction(1, 25)
            packets += encoder.encode(frame)
        for packet in packets + encoder.encode(None):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            container.mux(packet)


def seen(image):
    rows, columns = np.nonzero((image[:, :, 0] > 150) & (image[:, :, 2] < 120))
    return image.shape[1::-1], (int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)


capture, opencv = cv2.VideoCapture("a.webm"), []
while (read := capture.read())[0]:
    opencv.append(seen(read[1][:, :, ::-1]))
pyav = [seen(frame.to_ndarray(format="rgb24")) for frame in av.open("a.webm").decode(video=0)]
for i in (0, 5):
    print(f"frame {i + 1}: OpenCV {cv2.__version__} {opencv[i]}, PyAV {av.__version__} {pyav[i]} (size, circle)")
assert [size for size, _ in pyav] == [(160, 96)] * 5 + [(96, 160)] * 5
assert [size for size, _ in opencv] == [(160, 96)] * 10
assert opencv[5][1][0] > 2.5 * opencv[5][1][1]
PYTHON
