#!/usr/bin/env bash
# The shape of pixels that PyAV tells is not that of the frame in hand
#
# In broadcasts (MPEG-TS) 16:9 follows 4:3 in one stream. A frame of PyAV 18.1.0 does not tell the shape of its pixels. The
# stream tells one for all; the decoder's (codec_context) changes as the new part comes in, before the last frame of the old
# part comes out. FFmpeg's scale filter does know the frame's, by w=round(iw*sar), but only with eval=frame.
# Seen: widths of 10 frames of 160 x 96 pixels, five of shape 4:5 and five of 16:15: 128 and 171 are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$folder"
env/bin/python - <<'PYTHON'
from fractions import Fraction

import av
import av.filter

with av.open("a.ts", "w") as container:
    stream = container.add_stream("mpeg2video", rate=25)
    stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
    for part, shape in enumerate([Fraction(4, 5), Fraction(16, 15)]):
        encoder = av.CodecContext.create("mpeg2video", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 160, 96, "yuv420p"
        encoder.time_base, encoder.framerate, encoder.sample_aspect_ratio = Fraction(1, 25), Fraction(25), shape
        packets = []
        for i in range(5):
            frame = av.VideoFrame(160, 96, "yuv420p")
            frame.pts, frame.time_base = 5 * part + i, Fraction(1, 25)
            packets += encoder.encode(frame)
        for packet in packets + encoder.encode(None):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            container.mux(packet)


def scaled(stream, **options):
    graph = av.filter.Graph()
    source, scale, sink = graph.add_buffer(template=stream), graph.add("scale", **options), graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(sink)
    graph.configure()
    return graph


def widths(of):
    container = av.open("a.ts")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    graphs = {name: scaled(stream, w="round(iw*sar)", h="ih", eval=name) for name in ("init", "frame")}
    found = []
    for packet in container.demux(stream):
        for frame in packet.decode():
            if of in graphs:
                graphs[of].push(frame)
                found.append(graphs[of].vpull().width)
            else:
                found.append(round(160 * (stream if of == "stream" else stream.codec_context).sample_aspect_ratio))
    return found


print(f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
seen = {of: widths(of) for of in ("stream", "codec_context", "init", "frame")}
for of, found in seen.items():
    print(f"{'filter, eval=' + of if of in ('init', 'frame') else of}: {found}")
right = [128] * 5 + [171] * 5
assert seen["frame"] == right
assert len(set(seen["stream"])) == 1
assert seen["codec_context"] == [128] * 4 + [171] * 6
assert len(set(seen["init"])) == 1
PYTHON
