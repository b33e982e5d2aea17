"""Videos and stills to upright RGB pictures, one at a time, with their numbers and exact times."""

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.filter
import cv2
import numpy as np
import PIL.Image
from av.format import Flags
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import ColorTrc

VIDEOS = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ts",
    ".ogv", ".asf", ".mxf", ".vob", ".gif",
)  # fmt: skip
STILLS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SEVERAL = (".png", ".webp", ".tif", ".tiff")  # of these, which may be animated or have pages
MISSING_END = 0.5  # seconds by which a video may end before its header says so
SAME_RATE = 0.02  # part by which a rate may differ from another and count as the same
MOST_FAULTY = 0.05  # part of the frames whose times may be filled in from their neighbours'
PAUSE_SEC, PAUSE_STEPS = 1.0, 10  # a step longer than both, the second in median steps, is a pause and no frame rate
HOLE_STEPS, UNEVEN = 1.5, 0.25  # in median steps: a longer one skips frames, where all others are this even
OBLIQUE = math.sin(math.radians(1))  # a display matrix turned by less is a quarter turn
WIDEST = 10  # times wider or narrower than high: a pixel of another shape is an error of the file
HD = (1280, 577)  # from this width or height on, players such as mpv take colours without a tag for BT.709
HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
CLOCK_FPS = 25  # of frames whose times and rate nobody knows, for the clock only
av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines name no file; what matters is counted and reported here
av.logging.set_skip_repeated(False)  # PyAV 18.1 would tell what is repeated of an earlier file with the next one


def _unnamed(cls: type[Type], value: int) -> Type:
    """A kind of side data that PyAV has no name for. PyAV 18.1 raises ``ValueError`` instead, and shows none at all.

    FFmpeg 8.1 gives pictures with EXIF such a kind: any video of Motion JPEG or PNG out of a camera may have it.
    """
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return cls._value2member_map_.setdefault(value, member)


Type._missing_ = classmethod(_unnamed)


class UnreadableVideo(Exception):
    """Why no picture could be had from a file."""


@dataclass(frozen=True)
class Frame:
    """``number`` counts decoded frames from 1; ``image`` (H, W, 3) uint8 RGB, each frame at its own size.

    ``time_sec`` is from the first frame and rises: a clock while the video is read. The time to keep is that of
    ``Video.times``. NaN for images without fps.
    """

    number: int
    time_sec: float
    image: np.ndarray


@dataclass
class Video:
    """A file that is being read: iterate ``frames`` once. All else is complete at its end.

    ``fps`` is the average rate, pauses left out; NaN where nothing says it. ``times`` {number: seconds from the first}
    rise; NaN where nobody knows them. ``problems`` are what was lost or guessed, ``notes`` what else was decided.
    """

    fps: float
    expected_frames: int  # by the header; 0 where it does not say
    frames: Iterator[Frame]
    times: dict[int, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(path: Path) -> Video:
    """A video or picture, to be read frame by frame. A file that breaks off on the way has a problem.

    Raises ``UnreadableVideo`` where there is nothing to decode.
    """
    if path.suffix.lower() in STILLS:
        video = Video(float("nan"), 1, iter([Frame(1, 0.0, _still(path))]), {1: 0.0})
        if path.suffix.lower() in SEVERAL and (count := _pictures(path)) > 1:
            video.problems.append(f"it holds {count} pictures, of which the first was read")
        return video
    container, stream = _open(path)
    video = Video(_header_rate(stream), _expected(container, stream), iter(()))
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
            video.times[number] = (number - first) / video.fps
            yield Frame(number, video.times[number], image)
    if unreadable:
        video.problems.append(f"{len(unreadable)} of {len(paths)} images cannot be read, such as {unreadable[0]}")


def _pictures(path: Path) -> int:
    try:
        with PIL.Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return 1  # what OpenCV can read, and Pillow not


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


# --- the file and its header -----------------------------------------------------------------------------------------


def _open(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """The file, and of its videos the one that the ffmpeg program takes: the default one, then the largest."""
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")  # 'file:', since a name may hold a colon
    except (av.FFmpegError, OSError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        raise UnreadableVideo("the file is empty" if empty else f"cannot be opened: {error.strerror}") from None
    streams = _videos(container)
    # A stream without a decoder has no codec context.
    able = [stream for stream in streams if stream.codec_context is not None]
    if not able:
        kinds = sorted({stream.type for stream in container.streams})
        cover = len(container.streams.video) > len(streams)
        container.close()
        if streams:
            raise UnreadableVideo("no decoder for its video, or its header is damaged")
        nothing = f"no video in it, only {kinds}" if kinds else "nothing in it"
        raise UnreadableVideo("its only picture is a cover" if cover else nothing)
    stream = max(able, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
    stream.codec_context.thread_count = 1  # the processes are ours: one video a process
    return container, stream


def _videos(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Its video streams; the cover of an album is none."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _header_rate(stream: av.VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0) or float("nan")


def _expected(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    return stream.frames or round(_duration(container, stream) * float(stream.average_rate or 0))


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds by the header; 0 where it does not say. Without one of the video, that of the file with its sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


# --- frames ----------------------------------------------------------------------------------------------------------


def _frames(container: av.container.InputContainer, stream: av.VideoStream, video: Video) -> Iterator[Frame]:
    """All frames, upright, with square pixels. A damaged one keeps its number and is left out."""
    # All of the header is read first: PyAV 18.1 crashes where a stream is asked after its file is closed.
    others, sounds, index = len(_videos(container)) - 1, list(container.streams.audio), stream.index
    duration, is_own = _duration(container, stream), bool(stream.duration) and "mp4" in container.format.name
    guessed, time_base = float(stream.guessed_rate or 0), stream.time_base
    # Where times may start anew on the way, as in MPEG-TS, the duration is only that of the last time from the first.
    estimated = bool(container.format.flags & Flags.ts_discont.value)
    shape = stream.sample_aspect_ratio or 1
    if not 1 / WIDEST <= shape <= WIDEST:
        video.problems.append(
            f"its header says that pixels are {shape.numerator}:{shape.denominator} wide: they are taken as square"
        )
    stamps, found, clock = [], _Findings(), 0.0
    step = 1 / video.fps if video.fps > 0 else 1 / CLOCK_FPS
    squared = _Squared(stream)
    with container, _errors() as errors:
        for decoded in _decoded(container, stream, sounds, found):
            if decoded is None:
                found.undecoded += 1
                continue
            stamps.append(float("nan") if decoded.pts is None else float(decoded.pts * time_base))
            number, since = len(stamps), stamps[-1] - stamps[0]
            if number > 1:
                clock = since if since > clock else clock + step  # no time, or none that rises
            if decoded.is_corrupt:
                found.damaged += 1
                continue
            image, is_quarter = _upright(squared(decoded), decoded)
            found.add(number, decoded, image, is_quarter)
            yield Frame(number, clock, image)
    if not stamps:
        raise UnreadableVideo("no frame of it could be decoded")
    times, video.fps, doubts, notes = settle_times(np.array(stamps), video.fps, guessed, 0 if estimated else duration)
    video.times = dict(enumerate(times.tolist(), start=1))
    video.problems += found.problems(len(stamps)) + doubts
    video.notes += found.notes() + notes
    if errors:
        _, who, what = errors[0]
        video.notes.append(f"FFmpeg found errors in it, the first one: {who}: {' '.join(what.split())}")
    if others:
        video.notes.append(f"it has {others} more video streams: number {index} was read, the default or largest")
    # A file's own duration may count from 0, and its sound may outlast its picture.
    end = times[-1] if is_own else np.fmax(times[-1], found.reached)
    missing = duration - end - 1 / video.fps
    if missing > MISSING_END:
        video.problems.append(f"it ends {missing:.1f} s before its header says, after {len(stamps)} frames")


@contextmanager
def _errors() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg calls errors meanwhile (level, who, what). Many decoders mend, and show the frame as a whole one."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as lines:
            yield lines
    finally:
        av.logging.set_level(av.logging.PANIC)


@dataclass
class _Findings:
    """What is worth telling of a video's frames."""

    reached: float = -math.inf  # seconds, of the last time of picture or sound
    undecoded: int = 0
    damaged: int = 0
    oblique: int = 0
    tone: str | None = None
    untagged: bool = False
    sizes: list[tuple[int, tuple[int, int]]] = field(default_factory=list)  # from which frame on, width and height

    def add(self, number: int, decoded: av.VideoFrame, image: np.ndarray, is_quarter: bool) -> None:
        size = image.shape[1], image.shape[0]
        if not self.sizes or self.sizes[-1][1] != size:
            self.sizes.append((number, size))
        self.oblique += not is_quarter
        self.tone = self.tone or HDR.get(decoded.color_trc)
        hd = decoded.width >= HD[0] or decoded.height >= HD[1]
        self.untagged |= hd and decoded.colorspace == UNSPECIFIED and not decoded.format.is_rgb

    def problems(self, count: int) -> list[str]:
        problems = []
        if self.undecoded:
            problems.append(
                f"{self.undecoded} pieces of it could not be decoded: frames behind them may have too low a number"
            )
        if self.damaged:
            problems.append(f"{self.damaged} of {count} frames are damaged and were left out")
        if self.oblique:
            problems.append(
                f"the header turns {self.oblique} of {count} frames by no multiple of 90 degrees: the nearest is taken"
            )
        if self.tone:
            problems.append(f"it is HDR ({self.tone}): its brightness is taken as it is, so the pictures look pale")
        return problems

    def notes(self) -> list[str]:
        notes = []
        if len(self.sizes) > 1:
            (_, first), (number, other) = self.sizes[:2]
            more = f", and {len(self.sizes) - 2} times more" if len(self.sizes) > 2 else ""
            notes.append(
                f"its picture changes from {first[0]} x {first[1]} to {other[0]} x {other[1]} at frame {number}{more}"
            )
        if self.untagged:
            notes.append(
                "it does not name the matrix of its colours: BT.601 is taken, though players take BT.709 at this size"
            )
        return notes


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, sounds: list[av.AudioStream], found: _Findings
) -> Iterator[av.VideoFrame | None]:
    """Frames in the order in which they are shown; None for each piece of the stream that could not be decoded.

    The sound is not decoded: it only tells how far the file reaches.
    """
    packets = container.demux([stream, *sounds])
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError):  # the file breaks off inside the container's own structure
            yield None
            yield from _flushed(stream)
            return
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            found.reached = max(found.reached, float(stamp * packet.stream.time_base))
        if packet.stream.index != stream.index:
            continue
        try:
            yield from packet.decode()
        except (av.FFmpegError, OSError):
            yield None


def _flushed(stream: av.VideoStream) -> Iterator[av.VideoFrame | None]:
    try:
        yield from stream.codec_context.decode(None)
    except (av.FFmpegError, OSError):
        yield None


class _Squared:
    """Frames to RGB at which a circle is one, by FFmpeg's scale filter.

    The shape of a pixel is the container's where it says one, as in the ffmpeg program, else the frame's own. PyAV has
    no name for the latter, but the filter knows it. Another size or format makes a new filter.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        of_file, of_codec = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
        self.shape = of_file if of_file and of_file != of_codec else None
        self.time_base, self.made_for, self.graph = stream.time_base, None, None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8."""
        kind = frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
        try:
            if kind != self.made_for:
                self.graph, self.made_for = self._graph(frame), kind
            self.graph.push(frame)
            return self.graph.vpull().to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise UnreadableVideo(f"its pictures, of format {frame.format.name}, become no RGB: {error}") from None

    def _graph(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format.name, time_base=self.time_base
        )
        parts = [source]
        if self.shape:
            parts.append(graph.add("setsar", f"{self.shape.numerator}/{self.shape.denominator}"))
        width = f"if(between(sar,1/{WIDEST},{WIDEST}),max(round(iw*sar),1),iw)"
        parts.append(graph.add("scale", w=width, h="ih", eval="frame", flags="bicubic"))
        parts.append(graph.add("format", "rgb24"))
        parts.append(graph.add("buffersink"))
        for one, next_one in itertools.pairwise(parts):
            one.link_to(next_one)
        graph.configure()
        return graph


def _upright(image: np.ndarray, frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
    """The image turned and mirrored as the frame's display matrix says, by quarters; False where it is none of them.

    The matrix, nine little-endian int32, begins with a, b, u, c, d: x goes to a x + c y, y to b x + d y, downwards.
    PyAV's ``rotation`` is the angle of a and b alone: a picture mirrored from left to right is turned by 180 to it.
    """
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return image, True
    a, b, _, c, d = np.frombuffer(matrix, dtype="<i4")[:5].tolist()
    across = abs(b) + abs(c) > abs(a) + abs(d)
    on, off = ((b, c), (a, d)) if across else ((a, d), (b, c))
    if across:
        image = image.swapaxes(0, 1)
    right, down = (c, b) if across else (a, d)  # whether what grows to the right, and down, still does
    image = image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return np.ascontiguousarray(image), max(map(abs, off)) < OBLIQUE * min(map(abs, on))


# --- times -----------------------------------------------------------------------------------------------------------


def settle_times(
    stamps: np.ndarray, header: float, guessed: float, duration: float
) -> tuple[np.ndarray, float, list[str], list[str]]:
    """Times that rise from 0, frames a second, problems and notes, of ``stamps`` (n,) in seconds, NaN for none.

    Few stamps that do not rise are filled in from their neighbours'. Where they are many, as in an AVI with B-frames,
    times are the frames' numbers by a rate: the ``guessed`` one of FFmpeg or the ``header``'s where it agrees with the
    stamps' range or with the count and the ``duration``, else that of these two; 0 is not known. Where times are
    believed, the header's rate is taken if it agrees with them, else theirs.
    """
    count, problems = len(stamps), []
    if count == 1:
        return np.zeros(1), header, [], []
    rises = rising(stamps)
    faulty = count - int(rises.sum())
    if faulty > MOST_FAULTY * count:
        fps, doubt = _rate(stamps, header, guessed, duration)
        problems.append(
            f"{faulty} of {count} frames have no time stamp, or one that does not rise: all times are counted from "
            f"{fps:g} frames/s{doubt}"
        )
        return np.arange(count) / fps, fps, problems, []
    step = np.diff(stamps[rises]) / np.diff(np.flatnonzero(rises))
    usual = float(np.median(step))
    if faulty:
        problems.append(
            f"{faulty} of {count} frames have no time stamp, or one that does not rise: filled in from their neighbours"
        )
        stamps = _filled(stamps, rises, usual)
    times = stamps - stamps[0]
    steps = np.diff(times)
    pauses = steps > max(PAUSE_SEC, PAUSE_STEPS * usual)
    if pauses.any():
        longest = int(steps.argmax())
        problems.append(
            f"its times have {pauses.sum()} pauses, the longest of {steps[longest]:.1f} s behind frame {longest + 1}"
        )
    notes, holes = [], (steps > HOLE_STEPS * usual) & ~pauses
    even = np.abs(steps[~holes & ~pauses] - usual) < UNEVEN * usual
    if 0 < holes.sum() <= MOST_FAULTY * count and even.all():
        lost, first = round(float((steps[holes] / usual - 1).sum())), int(holes.argmax()) + 1
        notes.append(
            f"its times skip {lost} frames, the first behind frame {first}: if they are lost, later numbers are too low"
        )
        pauses |= holes
    flowing = int((~pauses).sum()), float(steps[~pauses].sum())
    if _agree(header, *flowing):
        return times, header, problems, notes
    fps = flowing[0] / flowing[1]
    if header > 0 and not _agree(header, count - 1, times[-1]):
        notes.append(f"its header says {header:g} frames/s, its times say {fps:g}: the times are taken")
    return times, fps, problems, notes


def _agree(rate: float, steps: int, seconds: float) -> bool:
    """Whether so many steps take so long at the rate, give or take one, or 2 %."""
    return abs(rate * seconds - steps) <= max(1, SAME_RATE * steps)


def _rate(stamps: np.ndarray, header: float, guessed: float, duration: float) -> tuple[float, str]:
    """Frames a second of a video without times, and a doubt; NaN where nothing says it."""
    known = stamps[~np.isnan(stamps)]
    spans = [(len(known), float(np.ptp(known)))] if len(known) > 1 else []
    spans += [(len(stamps), duration)] if duration else []
    likely = [rate for rate in (guessed, header) if rate > 0]
    if not duration:
        return (*likely, float("nan"))[0], ""
    fitting = [rate for rate in likely if any(_agree(rate, *span) for span in spans)]
    doubt = f", by count and duration, though its header says {likely[0]:g}" if likely and not fitting else ""
    return (*fitting, len(stamps) / duration)[0], doubt


def rising(stamps: np.ndarray) -> np.ndarray:
    """Which (n,) make the longest series that rises; no NaN does."""
    ends, at, before = [], [], np.full(len(stamps), -1)  # the least end of a series of each length, and where it is
    for i in np.flatnonzero(~np.isnan(stamps)).tolist():
        length = bisect.bisect_left(ends, stamps[i])
        before[i] = at[length - 1] if length else -1
        ends[length : length + 1], at[length : length + 1] = [stamps[i]], [i]
    rises, i = np.zeros(len(stamps), dtype=bool), at[-1] if at else -1
    while i >= 0:
        rises[i], i = True, before[i]
    return rises


def _filled(stamps: np.ndarray, rises: np.ndarray, step: float) -> np.ndarray:
    """Those that do not rise on the straight way between those that do; beyond the ends, a step a frame."""
    number = np.arange(len(stamps))
    known = number[rises]
    filled = np.interp(number, known, stamps[known])
    filled += step * (np.minimum(number - known[0], 0) + np.maximum(number - known[-1], 0))
    return filled
