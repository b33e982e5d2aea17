#!/usr/bin/env bash
# PyAV's captured log has lines of the file before
#
# av.logging.Capture collects what FFmpeg says meanwhile. PyAV 18.1.0 drops a line that is like the one before and says
# "(repeated n more times)" with the next line, whatever it is about: a file gets the lines of another, and the first error
# of a file may be missing. av.logging.set_skip_repeated(False) mends that.
# Such lines matter: Motion JPEG with a hole is decoded without an error, and no frame of it is_corrupt.
# Seen: the log of a damaged video read twice, and then of another, which breaks off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
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


def damaged(path, codec, pix_fmt):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, pix_fmt
        noise = np.random.default_rng(0)
        for i in range(4):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (96, 160, 3), dtype=np.uint8), format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(open(path, "rb").read())
    at = data.index(b"\xff\xd8", len(data) // 2) + 2000
    data[at : at + 300] = b"\xff\xd0" * 150
    open(path, "wb").write(data)


def log(path, count=4):
    with av.logging.Capture() as lines, av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = list(container.decode(video=0))
    assert len(frames) == count
    assert not any(frame.is_corrupt for frame in frames)
    return [f"{who}: {what.strip()}" for _, who, what in lines]


damaged("a.avi", "mjpeg", "yuvj420p")
film("b.mkv", codec="ffv1")
data = open("b.mkv", "rb").read()
open("b.mkv", "wb").write(data[: len(data) * 5 // 6])
av.logging.set_level(av.logging.ERROR)
print(f"PyAV {av.__version__}")
found = [log("a.avi"), log("a.avi"), log("b.mkv", 2)]
print("a.avi, a.avi, b.mkv:", found)
assert found[0]
assert not found[1]
assert found[2][0].startswith(found[0][0])
av.logging.set_skip_repeated(False)
found = [log("a.avi"), log("a.avi"), log("b.mkv", 2)]
print("without skipping:", found)
assert found[0] == found[1] != []
assert not found[2][0].startswith(found[0][0])
PYTHON
