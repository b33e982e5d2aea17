"""Videos and stills to upright RGB pictures, one at a time, with their numbers and exact times."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition

VIDEOS = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ts",
    ".ogv",
)  # fmt: skip
STILLS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MISSING_END = 0.5  # seconds by which a video may end before its header says so
av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines name no file; what matters is counted and reported here


class UnreadableVideo(Exception):
    """Why no picture could be had from a file."""


@dataclass(frozen=True)
class Frame:
    """``number`` counts decoded frames from 1; ``time_sec`` is from the first; ``image`` (H, W, 3) uint8 RGB.

    Frames that were images already have the number of their file's name, and NaN as time where nobody says their fps.
    """

    number: int
    time_sec: float
    image: np.ndarray


@dataclass
class Video:
    """A file that is being read: iterate ``frames`` once. ``fps`` is the average, NaN for stills without it.

    ``problems`` fills while ``frames`` is iterated and is complete at its end.
    """

    fps: float
    expected_frames: int  # by the header; 0 where it does not say
    frames: Iterator[Frame]
    problems: list[str] = field(default_factory=list)


def read(path: Path) -> Video:
    """Raises ``UnreadableVideo`` where there is nothing to decode; a file that breaks off later has a problem."""
    if path.suffix.lower() in STILLS:
        return Video(float("nan"), 1, iter([Frame(1, 0.0, _still(path))]))
    container, stream = _open(path)
    fps = float(stream.average_rate or stream.guessed_rate or 0) or float("nan")
    video = Video(fps, _expected(container, stream), iter(()))
    video.frames = _frames(container, stream, video)
    return video


def read_stills(root: Path, paths: Mapping[int, str], fps: float | None = None) -> Video:
    """Single images as the frames ``paths`` {number: path below ``root``} of a video; without ``fps``, of no times."""
    video = Video(float("nan") if fps is None else fps, len(paths), iter(()))
    video.frames = _stills(root, paths, video)
    return video


def expected_frames(path: Path) -> int:
    """What the header says without decoding; 0 where it does not, or cannot be read."""
    if path.suffix.lower() in STILLS:
        return 1
    try:
        container, stream = _open(path)
    except UnreadableVideo:
        return 0
    with container:
        return _expected(container, stream)


def _stills(root: Path, paths: Mapping[int, str], video: Video) -> Iterator[Frame]:
    unreadable, first = [], min(paths)
    for number in sorted(paths):
        try:
            image = _still(root / paths[number])
        except UnreadableVideo as error:
            unreadable.append(f"{paths[number]}: {error}")
        else:
            yield Frame(number, (number - first) / video.fps, image)
    if unreadable:
        video.problems.append(f"{len(unreadable)} of {len(paths)} images cannot be read, such as {unreadable[0]}")


def _still(path: Path) -> np.ndarray:
    """Upright as the EXIF says."""
    try:
        content = np.fromfile(path, dtype=np.uint8)  # cv2.imread cannot open every name on every system
        image = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB) if len(content) else None
    except (OSError, cv2.error) as error:
        raise UnreadableVideo(getattr(error, "strerror", None) or "cannot be decoded") from None
    if image is None:
        raise UnreadableVideo("not an image, or damaged")
    return image


def _open(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        raise UnreadableVideo("the file is empty" if empty else f"cannot be opened: {error.strerror}") from None
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # a cover is none
    # A stream without a decoder has no codec context.
    if not streams or streams[0].codec_context is None:
        kinds = sorted({stream.type for stream in container.streams})
        container.close()
        raise UnreadableVideo(
            "no decoder for its video, or its header is damaged" if streams else f"no video in it, only {kinds}"
        )
    streams[0].codec_context.thread_count = 1  # the processes are ours: one video a process
    return container, streams[0]


def _expected(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    return stream.frames or round(_duration(container, stream) * float(stream.average_rate or 0))


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds by the header; 0 where it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _frames(container: av.container.InputContainer, stream: av.VideoStream, video: Video) -> Iterator[Frame]:
    """All frames of the size of the first, upright. A damaged one keeps its number and is left out."""
    number, damaged, undecoded, guessed, first, last, size = 0, 0, 0, 0, None, 0.0, None
    duration = _duration(container, stream)
    with container:
        for decoded in _decoded(container, stream):
            if decoded is None:
                undecoded += 1
                continue
            number += 1
            if decoded.pts is None:
                guessed += 1
                time_sec = last + (1 / video.fps if number > 1 and video.fps > 0 else 0.0)
            else:
                seconds = float(decoded.pts * decoded.time_base)
                first = seconds if first is None else first
                time_sec = seconds - first
            last = time_sec
            if decoded.is_corrupt:
                damaged += 1
                continue
            size = size or _square_pixels(decoded, stream)
            image = decoded.to_ndarray(format="rgb24", width=size[0], height=size[1])
            yield Frame(number, time_sec, np.ascontiguousarray(np.rot90(image, round(decoded.rotation / 90))))
    if not number:
        raise UnreadableVideo("no frame of it could be decoded")
    missing = duration - last - (1 / video.fps if video.fps > 0 else 0)
    if undecoded:
        video.problems.append(f"{undecoded} pieces of it could not be decoded")
    if damaged:
        video.problems.append(f"{damaged} of {number} frames are damaged and were left out")
    if guessed:
        video.problems.append(
            f"{guessed} of {number} frames have no time stamp: their times are guessed from {video.fps} fps"
        )
    if missing > MISSING_END:
        video.problems.append(f"it ends {missing:.1f} s before its header says, after {number} frames")


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame | None]:
    """Frames in the order in which they are shown; None for each piece of the stream that could not be decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError):  # the file breaks off inside the container's own structure
            yield None
            yield from _flushed(stream)
            return
        try:
            yield from packet.decode()
        except (av.FFmpegError, OSError):
            yield None


def _flushed(stream: av.VideoStream) -> Iterator[av.VideoFrame | None]:
    try:
        yield from stream.codec_context.decode(None)
    except (av.FFmpegError, OSError):
        yield None


def _square_pixels(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height at which a circle is one."""
    return round(frame.width * float(stream.sample_aspect_ratio or 1)) or frame.width, frame.height
