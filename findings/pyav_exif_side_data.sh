#!/usr/bin/env bash
# PyAV shows no side data of a frame that has EXIF
#
# FFmpeg 8.1.2 gives frames of Motion JPEG or PNG their EXIF, and the orientation in it as a display matrix. PyAV 18.1.0 has
# no name for this kind of side data (31): reading frame.side_data raises ValueError, so the matrix cannot be had either.
# frame.rotation works, but does not tell of mirroring.
# A way out: a _missing_ method for av.sidedata.sidedata.Type that makes a member of what has no name.
# Seen: a Motion JPEG whose pictures say "turn me clockwise" (orientation 6).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
env/bin/python - <<'PYTHON'
import io
from fractions import Fraction

import av
import numpy as np
import PIL.Image
from av.sidedata.sidedata import Type

exif = PIL.Image.Exif()
exif[0x0112] = 6
PIL.Image.fromarray(np.full((96, 160, 3), 90, np.uint8)).save(file := io.BytesIO(), "jpeg", exif=exif)
with av.open("a.mkv", "w") as container:
    stream = container.add_stream("mjpeg", rate=25)
    stream.width, stream.height, stream.pix_fmt = 160, 96, "yuvj420p"
    packet = av.Packet(file.getvalue())
    packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
    container.mux(packet)
frame = next(av.open("a.mkv").decode(video=0))
print(f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}: rotation {frame.rotation}")
assert frame.rotation == -90
try:
    frame.side_data
except ValueError as error:
    print(f"frame.side_data: ValueError: {error}")
    assert str(error) == "31 is not a valid Type"
else:
    raise SystemExit("frame.side_data can be read")


def unnamed(cls, value):
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return cls._value2member_map_.setdefault(value, member)


Type._missing_ = classmethod(unnamed)
print("with _missing_:", [data.type.name for data in frame.side_data])
assert {data.type.name for data in frame.side_data} == {"DISPLAYMATRIX", "UNNAMED_31"}
PYTHON
