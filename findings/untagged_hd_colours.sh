#!/usr/bin/env bash
# FFmpeg takes HD without colour tags for BT.601, players take it for BT.709
#
# A video whose colours name no matrix is converted by BT.601 at every size, in the ffmpeg program (9.0.2 of imageio-ffmpeg
# here), PyAV 18.1.0 (FFmpeg 8.1.2) and OpenCV 5.0.0.93. Players such as mpv take BT.709 for HD (1280 wide, or more than
# 576 high), and cameras mean that. A red of 200, 30, 30 made by BT.709 comes out as 186, 12, 32.
# Seen: the pixel in the middle, at 720p and 1080p.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6 opencv-python-headless==5.0.0.93 imageio-ffmpeg==0.8.1
cd "$folder"
env/bin/python - <<'PYTHON'
import subprocess

import av
import cv2
import imageio_ffmpeg
import numpy as np

rgb = np.array([200, 30, 30]) / 255
y = rgb @ [0.2126, 0.7152, 0.0722]
yuv = np.rint([16 + 219 * y, 128 + 224 * (rgb[2] - y) / 1.8556, 128 + 224 * (rgb[0] - y) / 1.5748]).astype(int)
luma, blue, red = (yuv - [16, 128, 128]) / [219, 224, 224]
r, b = luma + 1.402 * red, luma + 1.772 * blue
by_601 = 255 * np.array([r, (luma - 0.299 * r - 0.114 * b) / 0.587, b])
print("by BT.601:", by_601.round(1))
for width, height in ((1280, 720), (1920, 1080)):
    with av.open("a.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        frame = av.VideoFrame(width, height, "yuv444p")
        for plane, value in zip(frame.planes, yuv):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    decoded = next(av.open("a.mkv").decode(video=0))
    assert decoded.colorspace == 2  # AVCOL_SPC_UNSPECIFIED
    program = imageio_ffmpeg.get_ffmpeg_exe()
    raw = subprocess.check_output([program, "-v", "error", "-i", "a.mkv", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
    found = {
        f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}": np.frombuffer(raw, np.uint8).reshape(height, width, 3),
        f"PyAV {av.__version__}": decoded.to_ndarray(format="rgb24"),
        f"OpenCV {cv2.__version__}": cv2.VideoCapture("a.mkv").read()[1][:, :, ::-1],
    }
    for name, image in found.items():
        pixel = image[height // 2, width // 2].astype(int)
        print(f"{width} x {height}, {name}: {pixel}")
        assert np.abs(pixel - by_601).max() <= 3
        assert np.abs(pixel - [200, 30, 30]).max() > 10
PYTHON
