import itertools
import os
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from av.bitstream import BitStreamFilterContext

from pipeline.core.alone import alone
from pipeline.core.params import UserError
from pipeline.datasets import abaw
from pipeline.datasets.config import DatasetConfig
from pipeline.faces import __main__ as script
from pipeline.faces import detect, loop, tracks
from pipeline.faces.align import TEMPLATE, align_from, five_points, similarity
from pipeline.faces.detect import DETECTORS, Faces
from pipeline.faces.tracks import follow, people, suffixes
from pipeline.faces.video import Frame, UnreadableVideo, read, rising, settle_times

REAL = Path(os.environ.get("FACES", "not given"))
COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}


# --- things to look at -----------------------------------------------------------------------------------------------


def picture(size=(96, 160), **places: int | None) -> np.ndarray:
    """Grey, with a square of 32 pixels for each colour, its left edge at the place given; none where that is None."""
    image = np.full((*size, 3), 110, np.uint8)
    for colour, left in places.items():
        if left is not None:
            image[40:72, left : left + 32] = COLOURS[colour]
            image[48:52, left + 4 : left + 12] = 20  # an eye
    return image


def find_squares(image: np.ndarray) -> Faces:
    """A detector of those squares, with the template's points in them."""
    boxes = []
    for colour in COLOURS.values():
        mask = (np.abs(image.astype(int) - colour) < 60).all(axis=2)
        if mask.sum() > 200:
            y, x = np.nonzero(mask)
            boxes.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    points = boxes[:, None, :2] + TEMPLATE / 112 * (boxes[:, 2:] - boxes[:, :2])[:, None]
    return Faces(boxes, points, np.ones(len(boxes)))


def frames_of(pictures: list[np.ndarray]) -> list[Frame]:
    return [Frame(i, (i - 1) / 25, image) for i, image in enumerate(pictures, start=1)]


def film(
    path: Path,
    pictures: list[np.ndarray],
    milliseconds=None,
    matrix=None,
    shape=None,
    codec="libx264",
    bf=None,
    pix_fmt="yuv420p",
    **options,
):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = {"bf": bf} if bf else {}
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if matrix:
            a, b, c, d = (round(65536 * part) for part in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for i, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = milliseconds[i] if milliseconds else i
            frame.time_base = Fraction(1, 1000) if milliseconds else Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def noise(count: int, size=(96, 160)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8))


# --- alignment -------------------------------------------------------------------------------------------------------


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's way, by a singular value decomposition."""
    one, other = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(other.T @ one / len(one))
    s = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ s @ vt
    scale = np.trace(np.diag(d) @ s) / one.var(axis=0).sum()
    return np.column_stack([scale * turn, target.mean(0) - scale * turn @ source.mean(0)])


def test_the_similarity_is_that_of_umeyama():
    rng = np.random.default_rng(0)
    for _ in range(20):
        source = rng.normal(size=(5, 2)) * 30 + 100
        assert np.allclose(similarity(source, TEMPLATE), umeyama(source, TEMPLATE))


def test_a_picture_whose_points_are_the_template_stays_as_it_is():
    image = noise(1, (112, 112))[0]
    assert np.array_equal(align_from(image, TEMPLATE), image)


def test_a_face_four_times_as_large_is_averaged_over_areas_and_its_edges_stay_edges():
    image = noise(1, (448, 448))[0]
    aligned = align_from(image, (TEMPLATE + 0.5) * 4 - 0.5)
    mean = image.reshape(112, 4, 112, 4, 3).mean(axis=(1, 3))
    assert np.abs(aligned - mean).max() <= 1


def test_a_turned_face_stands_upright():
    image = cv2.GaussianBlur(noise(1, (112, 112))[0], (0, 0), 3)
    turned = np.ascontiguousarray(np.rot90(image))  # counter-clockwise: (x, y) goes to (y, 111 - x)
    points = np.column_stack([TEMPLATE[:, 1], 111 - TEMPLATE[:, 0]])
    assert np.abs(align_from(turned, points).astype(int) - image).max() <= 1


def test_what_lies_beyond_the_picture_is_black():
    aligned = align_from(np.full((112, 112, 3), 255, np.uint8), TEMPLATE - [50, 0])
    assert (aligned[:, :49] == 0).all()
    assert (aligned[1:-1, 51:] == 255).all()


def test_68_landmarks_give_the_middle_of_the_eyes_the_nose_and_the_corners_of_the_mouth():
    landmarks = np.random.default_rng(0).uniform(0, 100, (68, 2))
    expected = [landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]]
    assert np.allclose(five_points(landmarks), expected)
    assert np.allclose(five_points(landmarks[17:]), expected)


@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.zeros((5, 3)), np.full((5, 2), np.nan), np.full((5, 2), 7.0)])
def test_points_that_place_no_face_are_refused(points):
    with pytest.raises(ValueError, match=r"landmarks must be|one point"):
        align_from(picture(), points)


# --- detection -------------------------------------------------------------------------------------------------------


def test_the_last_network_gives_what_opencvs_classic_engine_gave():
    """The numbers are of ENGINE_CLASSIC; the default engine of OpenCV 5.0.0.93 gives 0.0703, ... instead."""
    drawn = np.random.default_rng(0).standard_normal((2, 48, 48, 3)).astype(np.float32)
    patches = drawn.transpose(0, 2, 1, 3) * 128 + 127.5
    shifts, places, scores = detect._Network("onet", (3, 3, 2))(patches)
    assert np.allclose(shifts[0], [0.1212, 0.0598, -0.1274, 0.0269], atol=1e-4)
    assert np.allclose(places[0, :4], [0.3035, 0.6922, 0.4949, 0.3072], atol=1e-4)
    assert np.allclose(scores[0], [0.9994, 0.0006], atol=1e-4)


def test_of_overlapping_boxes_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [2, 2, 5, 5]], dtype=float)
    scores = np.array([0.8, 0.9, 0.7, 0.6])
    assert list(detect._suppress(boxes, scores, 0.7)) == [1, 2, 3]
    assert list(detect._suppress(boxes, scores, 0.7, of_smaller=True)) == [1, 2]
    assert list(detect._suppress(boxes[:0], scores[:0], 0.7)) == []


def test_a_patch_is_black_where_its_box_leaves_the_picture():
    image = np.full((20, 30, 3), 200, np.uint8)
    boxes = np.array([[-6, 0, 6, 12], [25, 15, 37, 27], [40, 40, 52, 52], [-9, -9, -1, -1]])
    patches = detect._patches(image, boxes, 12)
    assert (patches[0, :, 6:] == 200).all() and (patches[0, :, :6] == 0).all()  # noqa: PT018
    assert patches[1].astype(bool).all(axis=2).sum() == 25
    assert not patches[2:].any()


@pytest.mark.parametrize("size", [(5, 7), (60, 70), (1, 400)])
def test_an_empty_or_tiny_picture_has_no_face(size):
    faces = DETECTORS["mtcnn"](20, 0.9)(np.full((*size, 3), 90, np.uint8))
    assert (faces.boxes.shape, faces.points.shape, len(faces)) == ((0, 4), (0, 5, 2), 0)


# --- decoding --------------------------------------------------------------------------------------------------------


QUARTERS = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0),
            (0, -1, -1, 0)]  # fmt: skip


def moved(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Each pixel from x, y to a x + c y, b x + d y, counted from the corner that comes out left and up."""
    height, width = image.shape[:2]
    places = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(height) for x in range(width)}
    left, up = (min(place[i] for place in places) for i in (0, 1))
    out = np.zeros((height, width, 3) if a else (width, height, 3), np.uint8)
    for (x, y), pixel in places.items():
        out[y - up, x - left] = pixel
    return out


@pytest.mark.parametrize("matrix", QUARTERS)
def test_a_display_matrix_turns_and_mirrors_as_its_numbers_say(tmp_path, matrix):
    """PyAV 18.1's ``rotation`` is -180 for a picture that is only mirrored, and 0 for one that is upside down."""
    path = film(tmp_path / "a.mp4", [picture(red=10)], matrix=matrix)
    video = read(path)
    (ours,) = [f.image for f in video.frames]
    plain = next(read(film(tmp_path / "plain.mp4", [picture(red=10)])).frames).image
    assert np.array_equal(ours, moved(plain, *matrix))
    assert video.problems == video.notes == []


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="there is no ffmpeg program to compare with")
@pytest.mark.parametrize("matrix", QUARTERS)
def test_a_turned_or_mirrored_video_is_what_the_ffmpeg_program_shows(tmp_path, matrix):
    path = film(tmp_path / "a.mp4", [cv2.resize(noise(1, (6, 10))[0], (160, 96))], matrix=matrix)
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    ours = next(read(path).frames).image
    assert np.array_equal(ours, np.frombuffer(raw, np.uint8).reshape(ours.shape))


def test_a_video_of_pictures_with_exif_is_upright_as_they_say(tmp_path):
    """FFmpeg 8.1 makes a display matrix of it, and side data that PyAV 18.1 has no name for and so raises an error."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    PIL.Image.fromarray(picture(red=10)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuvj420p"
        for i in range(2):
            packet = av.Packet((tmp_path / "a.jpg").read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    frames = list(read(tmp_path / "a.mkv").frames)
    upright = cv2.imread(str(tmp_path / "a.jpg"))[:, :, ::-1]
    assert [frame.image.shape for frame in frames] == [(160, 96, 3)] * 2
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 1


def test_a_display_matrix_that_is_no_quarter_turn_is_named_and_the_nearest_one_taken(tmp_path):
    plain = [f.image for f in read(film(tmp_path / "plain.mp4", [picture(red=10)] * 2)).frames]
    for matrix, nearest in [
        ((0.87, 0.5, -0.5, 0.87), (1, 0, 0, 1)),
        ((0.5, -0.87, 0.87, 0.5), (0, -1, 1, 0)),
        ((0, 0, 0, 0), (1, 0, 0, 1)),
    ]:
        video = read(film(tmp_path / "a.mp4", [picture(red=10)] * 2, matrix=matrix))
        assert np.array_equal([f.image for f in video.frames], [moved(p, *nearest) for p in plain])
        assert video.problems == ["the header turns 2 of 2 frames by no multiple of 90 degrees: the nearest is taken"]


def test_the_times_of_a_variable_frame_rate_are_those_of_the_file(tmp_path):
    path = film(tmp_path / "a.mp4", [picture()] * 5, milliseconds=[1000, 1050, 1500, 1510, 3000])
    frames = list(read(path).frames)
    assert [f.number for f in frames] == [1, 2, 3, 4, 5]
    assert [round(f.time_sec, 4) for f in frames] == [0, 0.05, 0.5, 0.51, 2.0]


def copied(source: Path, path: Path) -> Path:
    """The packets of H.264 in another container."""
    with av.open(str(source)) as one, av.open(str(path), "w") as other:
        stream = other.add_stream_from_template(one.streams.video[0])
        in_stream = BitStreamFilterContext("h264_mp4toannexb", one.streams.video[0])
        for packet in (after for before in one.demux(video=0) for after in in_stream.filter(before)):
            packet.stream = stream
            other.mux(packet)
    return path


def told(path: Path) -> tuple[list[float], float, list[str]]:
    """Times, rate and problems of a video, read to its end."""
    video = read(path)
    clock = [frame.time_sec for frame in video.frames]
    assert (np.diff(clock) > 0).all()
    assert list(video.times) == list(range(1, len(clock) + 1))
    return list(video.times.values()), video.fps, video.problems


def test_times_that_go_back_and_forth_are_counted_from_the_rate_instead_and_that_is_named(tmp_path):
    """FFmpeg 8.1 gives H.264 with B-frames in .avi times in the order of decoding, and a copy the rate of 600 or so."""
    pictures = [picture(red=20 + i) for i in range(40)]
    made = film(tmp_path / "made.avi", pictures, bf="3")
    mp4 = film(tmp_path / "a.mp4", pictures, bf="3")
    assert told(mp4) == (pytest.approx([i / 25 for i in range(40)]), 25, [])
    for path in (made, copied(mp4, tmp_path / "copy.avi")):
        stamps = [frame.pts for frame in av.open(str(path)).decode(video=0)]
        assert stamps != sorted(stamps)
        times, fps, problems = told(path)
        assert (times, fps) == (pytest.approx([i / 25 for i in range(40)]), 25)
        assert [p.partition(" of 40 frames")[2] for p in problems] == [
            " have no time stamp, or one that does not rise: all times are counted from 25 frames/s"
        ]


def settled(stamps, header=25.0, guessed=25.0, duration=0.0) -> tuple[list[float], float, list[str]]:
    times, fps, problems, notes = settle_times(np.array(stamps, dtype=float), header, guessed, duration)
    return times.tolist(), fps, problems + notes


def test_a_few_times_that_do_not_rise_are_filled_in_and_many_are_not_believed():
    right = np.arange(100) / 25
    for place, wrong in [(50, np.nan), (50, 0.0), (50, 9000.0), (50, right[49]), (0, 7.0), (99, np.nan), (99, 1.0)]:
        stamps = right.copy() + 3
        stamps[place] = wrong
        times, fps, problems = settled(stamps)
        assert times == pytest.approx(right)
        assert (fps, len(problems)) == (25, 1)
        assert "1 of 100 frames have no time stamp, or one that does not rise: filled in" in problems[0]
    restart = np.concatenate([right[:60], right[:40]])
    assert settled(restart)[:2] == (pytest.approx(right), 25)
    assert settled(restart, header=50.0, duration=4.0)[:2] == (pytest.approx(right), 25)
    times, fps, problems = settled(restart, header=75.0, guessed=75.0, duration=4.0)
    assert (times, fps) == (pytest.approx(right), 25)
    assert problems[0].endswith("from 25 frames/s, by count and duration, though its header says 75")
    jumbled = right.reshape(-1, 4)[:, [0, 3, 1, 2]].ravel() + 5  # as in an AVI that begins late
    assert settled(jumbled, duration=9.0)[:2] == (pytest.approx(right), 25)
    assert settled(jumbled, header=50.0, guessed=50.0, duration=4.0)[:2] == (pytest.approx(right), 25)
    assert settled(restart, header=30.0, guessed=30.0)[1] == 30
    assert settled(restart, header=np.nan, guessed=0.0, duration=10.0)[1] == 10
    times, fps, problems = settled(restart, header=np.nan, guessed=0.0)
    assert np.isnan([*times, fps]).all()


def test_the_rate_is_that_of_the_times_where_the_header_says_another():
    right = np.arange(100) / 25
    assert settled(right, header=600.0) == (
        pytest.approx(right), pytest.approx(25), ["its header says 600 frames/s, its times say 25: the times are taken"]
    )  # fmt: skip
    assert settled(right, header=float("nan"))[1:] == (pytest.approx(25), [])
    assert settled(right, header=24.9)[1:] == (24.9, [])
    assert settled([0.0, 0.1], header=25.0)[1] == pytest.approx(10)
    assert settled([5.0])[:2] == ([0], 25)


def test_a_pause_is_named_and_does_not_change_the_rate():
    stamps = np.concatenate([np.arange(50) / 25, 90 + np.arange(50) / 25])
    times, fps, problems = settled(stamps, header=99 / stamps[-1])
    assert (times, fps) == (pytest.approx(stamps), pytest.approx(25))
    assert problems == ["its times have 1 pauses, the longest of 88.0 s behind frame 50"]
    assert settled(np.arange(20) * 5.0, header=0.2)[2] == []  # a slow series is no row of pauses


def test_frames_that_an_even_video_skips_are_told_and_do_not_change_the_rate():
    stamps = np.delete(np.arange(100) / 25, [30, 31, 32, 70])
    told_of = "its times skip 4 frames, the first behind frame 30: if they are lost, later numbers are too low"
    assert settled(stamps) == (pytest.approx(stamps), 25, [told_of])
    uneven = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.08, 100))
    assert not any("skip" in line for line in settled(uneven)[2])


def test_the_longest_series_that_rises_is_as_long_as_a_slow_search_finds():
    rng = np.random.default_rng(0)
    for _ in range(200):
        stamps = rng.integers(0, 6, rng.integers(1, 9)).astype(float)
        stamps[rng.random(len(stamps)) < 0.2] = np.nan
        chosen = rising(stamps)
        assert (np.diff(stamps[chosen]) > 0).all()
        sets = itertools.product([False, True], repeat=len(stamps))
        series = (stamps[list(take)] for take in sets)
        assert chosen.sum() == max(len(s) for s in series if not np.isnan(s).any() and (np.diff(s) > 0).all())


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = film(tmp_path / "a.mp4", [picture()] * 2, shape=Fraction(2, 1))
    assert next(read(path).frames).image.shape == (96, 320, 3)


def pieces(path: Path, parts: list[tuple[list[np.ndarray], Fraction | None]], codec="libx264") -> Path:
    """One stream of several encoders after each other: pictures, and the shape of their pixels."""
    with av.open(str(path), "w") as container:
        stream, start = None, 0
        for pictures, shape in parts:
            encoder = av.CodecContext.create(codec, "w")
            encoder.height, encoder.width = pictures[0].shape[:2]
            encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
            encoder.sample_aspect_ratio = shape or Fraction(1)
            if stream is None:
                stream = container.add_stream(codec, rate=25)
                stream.height, stream.width = pictures[0].shape[:2]
                stream.pix_fmt = "yuv420p"
            for i, image in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = start + i, Fraction(1, 25)
                send(container, stream, encoder.encode(frame))
            send(container, stream, encoder.encode(None))
            start += len(pictures)
    return path


def send(container, stream, packets) -> None:
    for packet in packets:
        packet.stream, packet.time_base = stream, Fraction(1, 25)
        container.mux(packet)


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.webm", "libvpx"), ("a.mkv", "libvpx-vp9")])
def test_each_frame_has_its_own_size_where_the_picture_turns_or_shrinks_on_the_way(tmp_path, name, codec):
    wide, high, small = picture((96, 160), red=40), picture((160, 96), red=40), picture((80, 128), red=40)
    path = pieces(tmp_path / name, [([wide] * 5, None), ([high] * 5, None), ([small] * 5, None)], codec)
    video = read(path)
    images = [frame.image for frame in video.frames]
    assert [image.shape[:2] for image in images] == [(96, 160)] * 5 + [(160, 96)] * 5 + [(80, 128)] * 5
    for image in images:  # a square stays one
        assert np.abs(find_squares(image).boxes - [[40, 40, 72, 72]]).max() <= 2
    assert video.notes == ["its picture changes from 160 x 96 to 96 x 160 at frame 6, and 1 times more"]
    assert video.problems == []


def test_the_shape_of_pixels_is_each_frames_own(tmp_path):
    """In broadcasts 16:9 follows 4:3. PyAV 18.1 tells one shape of a stream, and the decoder's changes too early."""
    narrow, wide = (([picture(red=40)] * 5, Fraction(4, 5)), ([picture(red=40)] * 5, Fraction(16, 15)))
    parts = [narrow, wide, narrow]
    images = [frame.image for frame in read(pieces(tmp_path / "a.ts", parts, "mpeg2video")).frames]
    assert [image.shape[1] for image in images] == [128] * 5 + [171] * 5 + [128] * 5


def test_a_shape_of_pixels_that_cannot_be_is_not_believed(tmp_path):
    path = film(tmp_path / "a.mp4", [picture()] * 2, shape=Fraction(30, 1))
    video = read(path)
    assert {frame.image.shape for frame in video.frames} == {(96, 160, 3)}
    assert video.problems == ["its header says that pixels are 30:1 wide: they are taken as square"]


def yuv_film(path: Path, yuv, size=(64, 64), pix_fmt="yuv444p", codec="libx264", colorspace=2, color_range=1, trc=2):
    """Two frames of one colour, without loss, and with the tags given: AVColorSpace, AVColorRange and so on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qp": "0"} if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc = colorspace, color_range, trc
        for i in range(2):
            frame = av.VideoFrame(size[1], size[0], pix_fmt)
            for plane, value in zip(frame.planes, yuv, strict=True):
                deep = "10" in pix_fmt
                plane.update(np.full(plane.buffer_size // (1 + deep), value, np.uint16 if deep else np.uint8).tobytes())
            frame.colorspace, frame.color_range, frame.color_trc, frame.pts = colorspace, color_range, trc, i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("colorspace", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (9, 0.2627, 0.0593), (2, 0.299, 0.114)]
)
@pytest.mark.parametrize("depth", [8, 10])
def test_colours_are_those_of_the_matrix_and_range_that_the_video_names(tmp_path, colorspace, red, blue, full, depth):
    """BT.709, 601, 2020 by their formulas; 601 where none is named, as the ffmpeg program and OpenCV have it."""
    yuv = np.array([120, 100, 150])
    pix_fmt = "yuv444p10le" if depth == 10 else "yuv444p"
    path = yuv_film(
        tmp_path / "a.mkv", yuv * 2 ** (depth - 8), pix_fmt=pix_fmt, colorspace=colorspace, color_range=1 + full
    )
    y, cb, cr = (yuv - [0 if full else 16, 128, 128]) / ([255, 255, 255] if full else [219, 224, 224])
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    expected = np.array([r, (y - red * r - blue * b) / (1 - red - blue), b]) * 255
    assert np.abs(next(read(path).frames).image[32, 32] - expected).max() <= 2


def test_colours_without_a_name_at_hd_and_hdr_are_told(tmp_path):
    for size, tag, told_of in (((720, 1280), 2, 1), ((720, 1280), 1, 0), ((480, 640), 2, 0)):
        video = read(yuv_film(tmp_path / "a.mkv", [120, 100, 150], size, colorspace=tag))
        list(video.frames)
        assert video.problems == []
        assert ["BT.601 is taken, though players take BT.709" in note for note in video.notes] == [True] * told_of
    video = read(yuv_film(tmp_path / "a.mkv", [480, 400, 600], pix_fmt="yuv444p10le", colorspace=9, trc=16))
    list(video.frames)
    assert video.problems == ["it is HDR (PQ): its brightness is taken as it is, so the pictures look pale"]


def test_odd_sizes_are_kept(tmp_path):
    path = film(tmp_path / "a.mkv", [picture((47, 63))] * 2, codec="ffv1")
    assert next(read(path).frames).image.shape == (47, 63, 3)


def test_a_broken_tail_is_decoded_as_far_as_it_goes_and_named(tmp_path):
    path = film(tmp_path / "a.mp4", noise(50), movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = read(path)
    numbers = [f.number for f in video.frames]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 10 < len(numbers) < 35
    assert any("before its header says" in problem for problem in video.problems)


def test_a_whole_video_has_no_problem(tmp_path):
    video = read(film(tmp_path / "a.mp4", noise(30)))
    assert (len(list(video.frames)), video.problems, video.expected_frames, video.fps) == (30, [], 30, 25.0)


def test_sound_that_outlasts_the_picture_or_a_late_start_is_no_missing_end(tmp_path):
    for name, codec in (("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.mp4", "libx264"), ("a.ts", "libx264")):
        with av.open(str(tmp_path / name), "w") as container:
            sound = container.add_stream("libopus", rate=48000)
            sound.layout = "mono"
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 96, 160, "yuv420p"
            for i in range(25):
                frame = av.VideoFrame.from_ndarray(picture(red=20 + i), format="rgb24")
                frame.pts, frame.time_base = 50 + i, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            for i in range(250):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="flt", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, i * 960, Fraction(1, 48000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        assert told(tmp_path / name) == (pytest.approx([i / 25 for i in range(25)], abs=1e-3), 25, [])


def test_what_ffmpeg_finds_wrong_in_a_file_is_told_of_that_file(tmp_path):
    """Motion JPEG with a hole in it is decoded without an error and not marked as damaged."""
    path, whole = (film(tmp_path / name, noise(9), codec="mjpeg", pix_fmt="yuvj420p") for name in ("a.avi", "b.avi"))
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8", len(data) // 2) + 2000
    data[at : at + 300] = b"\xff\xd0" * 150
    path.write_bytes(data)
    videos = [read(path), read(path), read(whole)]
    assert [len(list(video.frames)) for video in videos] == [9, 9, 9]
    assert [len(video.notes) for video in videos] == [1, 1, 0]
    assert "FFmpeg found errors in it, the first one: mjpeg: " in videos[0].notes[0]


def test_a_still_with_several_pictures_says_that_one_was_read(tmp_path):
    images = [PIL.Image.fromarray(image) for image in noise(3)]
    for name in ("a.webp", "a.png", "a.tif"):
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:])
        video = read(tmp_path / name)
        assert (len(list(video.frames)), video.problems) == (1, ["it holds 3 pictures, of which the first was read"])
    images[0].save(tmp_path / "one.png")
    assert read(tmp_path / "one.png").problems == []


def test_of_two_videos_in_a_file_the_larger_is_read_and_that_is_said(tmp_path):
    with av.open(str(tmp_path / "a.ts"), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        sizes = [(64, 96), (96, 160)]
        for stream, size in zip(streams, sizes, strict=True):
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(5):
            for stream, size in zip(streams, sizes, strict=True):
                frame = av.VideoFrame.from_ndarray(picture(size), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    video = read(tmp_path / "a.ts")
    assert [frame.image.shape for frame in video.frames] == [(96, 160, 3)] * 5
    assert video.notes == ["it has 1 more video streams: number 1 was read, the default or largest"]


def test_what_holds_no_video_says_why(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"hello" * 100)
    (tmp_path / "text.jpg").write_bytes(b"hello" * 100)
    headless = film(tmp_path / "headless.mp4", noise(20))
    headless.write_bytes(headless.read_bytes()[: headless.stat().st_size // 2])
    expected = {
        "sound.mp4": "no video in it, only \\['audio'\\]",
        "empty.mp4": "the file is empty",
        "text.mp4": "cannot be opened",
        "text.jpg": "not an image",
        "headless.mp4": "cannot be opened",
    }
    for name, why in expected.items():
        with pytest.raises(UnreadableVideo, match=why):
            list(read(tmp_path / name).frames)


# --- tracks and people -----------------------------------------------------------------------------------------------


def seen(pictures: list[np.ndarray], every: int = 1) -> list[tuple[int, int, float, bool]]:
    """(frame, track, left edge, detected) of each sighting."""
    found = follow(frames_of(pictures), find_squares, every)
    return [(s.frame, s.track, round(float(s.box[0]), 3), not np.isnan(s.confidence)) for s in found]


def test_two_who_stay_apart_are_two_tracks_and_a_face_that_is_gone_leaves_a_gap():
    pictures = [picture(red=10 + i, blue=None if i == 2 else 100 - i) for i in range(4)]
    assert seen(pictures) == [
        (1, 1, 10, True), (1, 2, 100, True), (2, 1, 11, True), (2, 2, 99, True), (3, 1, 12, True),
        (4, 1, 13, True), (4, 2, 97, True),
    ]  # fmt: skip


def test_another_face_in_the_same_place_is_another_track():
    assert [track for _, track, _, _ in seen([picture(red=50), picture(red=51), picture(blue=51)])] == [1, 1, 2]


def test_a_face_unseen_for_long_begins_a_new_track():
    pictures = [picture(red=50)] + [picture()] * 14 + [picture(red=50)]  # 15 / 25 s
    assert [track for _, track, _, _ in seen(pictures)] == [1, 2]
    assert [track for _, track, _, _ in seen([picture(red=50)] + [picture()] * 10 + [picture(red=50)])] == [1, 1]


def test_between_two_detections_of_one_track_the_face_is_on_the_straight_way():
    assert seen([picture(red=10 + 3 * i) for i in range(6)], every=4) == [
        (1, 1, 10, True), (2, 1, 13, False), (3, 1, 16, False), (4, 1, 19, False), (5, 1, 22, True), (6, 1, 25, True),
    ]  # fmt: skip


def test_where_a_track_begins_or_ends_every_frame_is_looked_at():
    pictures = [picture(red=50 if 3 <= i <= 10 else None) for i in range(1, 14)]
    with_every, plain = seen(pictures, every=4), seen(pictures)
    assert [s[:3] for s in with_every] == [s[:3] for s in plain]
    assert [frame for frame, _, _, detected in with_every if not detected] == [6, 7, 8]


def test_each_detection_is_asked_for_once():
    calls = []
    list(follow(frames_of([picture(red=50)] * 9), lambda image: calls.append(1) or find_squares(image), 4))
    assert len(calls) == 3


@pytest.mark.parametrize("every", [1, 4])
def test_no_track_goes_on_over_a_change_of_the_pictures_size(every):
    """Places mean something else then: nothing is put between them, and the people are found again by their looks."""
    pictures = [picture(red=50 + i) for i in range(6)] + [picture((160, 96), red=50 + i) for i in range(6)]
    found = seen(pictures, every)
    assert [(frame, track, left) for frame, track, left, _ in found] == [
        (i + 1, 1 if i < 6 else 2, 50 + i % 6) for i in range(12)
    ]
    assert [frame for frame, _, _, detected in found if detected] == (
        list(range(1, 13)) if every == 1 else [1, 5, 6, 7, 11, 12]
    )


def test_people_are_tracks_that_look_alike_and_are_never_in_one_frame():
    looks = {1: np.array([1.0, 0, 0]), 2: np.array([0, 1.0, 0]), 3: np.array([5, 0.1, 0]), 4: np.array([3, 0.2, 0])}
    frames = {1: np.arange(5), 2: np.arange(5), 3: np.arange(10, 12), 4: np.arange(11, 20)}
    assert people(frames, looks) == [[1, 3], [2], [4]]  # 4 looks like 1 and 3, but 3 is there beside it
    assert people({}, {}) == []


def rows(**people: dict[int, tuple[int, int]]) -> pd.DataFrame:
    """``a={frame: (left, top)}``."""
    return pd.DataFrame(
        [(p, f, x, y, x + 10, y + 10) for p, places in people.items() for f, (x, y) in places.items()],
        columns=["person", "frame", "left", "top", "right", "bottom"],
    )


def test_two_side_by_side_are_left_and_right_and_others_are_numbered():
    left, right, below = ({f: place for f in range(10)} for place in ((0, 0), (50, 3), (0, 50)))
    assert suffixes(rows(a=left)) == {"a": ""}
    assert suffixes(rows(b=right, a=left)) == {"a": "_left", "b": "_right"}
    assert suffixes(rows(b=below, a=left)) == {"a": "_p2", "b": "_p1"}
    assert suffixes(rows(b=right, a={f + 10: p for f, p in left.items()})) == {"b": "_p1", "a": "_p2"}
    assert suffixes(rows(c=below, b=right, a={9: (0, 0)})) == {"c": "_p1", "b": "_p2", "a": "_p3"}
    crossing = {f: (100 if f > 4 else 0, 0) for f in range(10)}
    assert suffixes(rows(a=crossing, b=right)) == {"a": "_p1", "b": "_p2"}


# --- the script ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cut(workplace, monkeypatch):
    """Runs the script with squares for faces; gives its report."""
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)

    def run(*argv: str, status: int = 0) -> dict:
        assert script.main(["--input", "in", "--out", "out", "--workers", "1", "--min-frames", "3", *argv]) == status
        return pd.read_json("out/faces.json", typ="series").to_dict()

    return run


def folders() -> dict[str, list[str]]:
    return {f.name: sorted(p.name for p in f.iterdir()) for f in sorted(Path("out/cropped_aligned").iterdir())}


def test_faces_are_written_in_abaws_layout_with_the_frames_numbers(cut):
    film(Path("in/one.mp4"), [picture(red=None if i == 2 else 40 + i) for i in range(5)])
    film(Path("in/deep/two.mp4"), [picture(red=100, blue=20)] * 4)
    cv2.imwrite("in/still.png", picture(blue=60)[:, :, ::-1])
    film(Path("in/nobody.mp4"), [picture()] * 4)
    Path("in/notes.txt").write_text("x")
    Path("in/text.mp4").write_text("x" * 500)
    report = cut()
    four = [f"{i:05d}.jpg" for i in range(1, 5)]
    assert folders() == {
        "one": ["00001.jpg", "00002.jpg", "00004.jpg", "00005.jpg"],
        "still": ["00001.jpg"],
        "two_left": four,
        "two_right": four,
    }
    assert [(p["file"], p["problem"][:16]) for p in report["problems"]] == [
        ("nobody.mp4", "no face was foun"),
        ("text.mp4", "cannot be opened"),
    ]
    assert report["other_files"] == {"count": 1, "first": ["notes.txt"]}
    table = pd.read_parquet("out/faces.parquet")
    assert len(table) == report["faces"] == 13
    one = table[table["video"] == "one"]
    assert one["frame"].tolist() == [1, 2, 4, 5]
    assert np.allclose(one["time_sec"], [0, 0.04, 0.12, 0.16])
    assert np.abs(one["left"] - [40, 41, 43, 44]).max() <= 2
    assert one[["fps", "source"]].drop_duplicates().to_numpy().tolist() == [[25.0, "one.mp4"]]
    right = cv2.imread("out/cropped_aligned/two_right/00001.jpg")
    assert right.shape == (112, 112, 3)
    assert right[60, 60, 2] > 180 > 60 > right[60, 60, 0]  # red, BGR


def test_what_was_cut_is_read_as_abaw(cut):
    film(Path("in/one.mp4"), [picture(red=40)] * 5)
    film(Path("in/two.mp4"), [picture(red=100, blue=20)] * 4)
    cut()
    found = abaw.read(DatasetConfig(name="abaw", root=Path("out")))
    assert found.frames.table.groupby("video").size().to_dict() == {"one": 5, "two_left": 4, "two_right": 4}
    assert (found.skipped, found.frames.crop_source) == (0, "cropped_aligned")


def test_a_second_run_cuts_only_what_is_new_changed_or_gone(cut, monkeypatch):
    for name in ("a", "b", "c", "d"):
        film(Path(f"in/{name}.mp4"), [picture(red=40)] * 4)
    cut()
    film(Path("in/b.mp4"), [picture(red=40)] * 6)
    film(Path("in/e.mp4"), [picture(red=40)] * 4)
    Path("out/cropped_aligned/c/00002.jpg").unlink()
    done, real = [], loop.cut
    monkeypatch.setattr(loop, "cut", lambda task, *others: done.append(task.video) or real(task, *others))
    report = cut()
    assert done == ["b", "c", "e"]
    assert {name: len(files) for name, files in folders().items()} == {"a": 4, "b": 6, "c": 4, "d": 4, "e": 4}
    assert report["faces"] == 22


@pytest.mark.parametrize("dies_in", ["detect", "rename"])
def test_a_run_cut_off_in_a_video_goes_on_with_that_video(cut, monkeypatch, dies_in):
    film(Path("in/a.mp4"), [picture(red=40)] * 4)
    film(Path("in/b.mp4"), [picture(red=100, blue=20)] * 4)
    with monkeypatch.context() as patch:
        if dies_in == "detect":
            calls = []

            def detector(image):
                calls.append(1)
                if len(calls) == 6:
                    raise KeyboardInterrupt
                return find_squares(image)

            patch.setitem(DETECTORS, "mtcnn", lambda *_: detector)
        else:
            rename = Path.rename

            def dying(self, target):
                if Path(target).name == "b_right":
                    raise KeyboardInterrupt
                return rename(self, target)

            patch.setattr(Path, "rename", dying)
        with pytest.raises(KeyboardInterrupt):
            cut()
    assert cut()["faces"] == 12
    assert list(folders()) == ["a", "b_left", "b_right"]
    assert not Path("out/.partial").exists()


DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "something else": lambda data: b"PAR1" * 99,
    "zeros within": lambda data: data[:60] + bytes(40) + data[100:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_video_whose_record_is_empty_cut_off_or_damaged_is_cut_again(cut, damage):
    for name in ("a", "a_p1", "b"):
        film(Path(f"in/{name}.mp4"), [picture(red=100, blue=20 if name == "a" else None)] * 4)
    before = cut()
    record = Path("out/.faces/a.parquet")
    record.write_bytes(damage(record.read_bytes()))
    kept = {path: path.stat().st_mtime_ns for path in Path("out/cropped_aligned").glob("*/*.jpg")}
    report = cut()
    assert report.pop("notes") == [{"file": "a.mp4", "note": "its record was damaged, and it was cut again"}]
    before.pop("notes")
    assert report == before
    again = {path.parent.name for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert again == {"a_left", "a_right"}
    assert len(pd.read_parquet("out/faces.parquet")) == 16


def test_one_file_may_be_given_and_what_was_cut_before_stays_in_the_tables(cut):
    for name in ("a", "b"):
        film(Path(f"in/{name}.mp4"), [picture(red=40)] * 4)
    cut()
    film(Path("more/c.clip.MP4"), [picture(red=40)] * 5)
    report = cut("--input", "more/c.clip.MP4")
    assert {name: len(files) for name, files in folders().items()} == {"a": 4, "b": 4, "c.clip": 5}
    assert (report["files"], report["of_earlier_inputs"]) == (1, {"count": 2, "first": ["a", "b"]})
    assert pd.read_parquet("out/faces.parquet").groupby("video").size().to_dict() == {"a": 4, "b": 4, "c.clip": 5}
    shutil.rmtree("out/cropped_aligned/a")
    shutil.copy("more/c.clip.MP4", "more/without")  # of which nothing says that it is a video
    report = cut("--input", "more/without")
    assert sorted(report["videos"]) == ["b", "c.clip", "without"]
    cv2.imwrite("more/one.png", picture(red=60)[:, :, ::-1])
    assert cut("--input", "more/one.png")["videos"]["one"]["folders"] == {"one": 1}


def test_an_avi_with_b_frames_gets_rising_times_and_its_true_rate_in_the_table(cut):
    film(Path("in/a.avi"), [picture(red=20 + i) for i in range(40)], bf="3")
    report = cut("--strict", status=1)
    table = pd.read_parquet("out/faces.parquet")
    assert table["time_sec"].tolist() == pytest.approx([(n - 1) / 25 for n in table["frame"]])
    assert set(table["fps"]) == {25.0}
    assert "all times are counted from 25 frames/s" in report["problems"][0]["problem"]


def test_two_runs_into_one_folder_are_refused(cut):
    film(Path("in/a.mp4"), [picture(red=40)] * 4)
    held = alone(Path("out") / script.RECORDS / "lock", lambda: "held by this test")
    with held, pytest.raises(UserError, match="another run is writing to out"):
        cut()
    cut()


def test_a_folder_that_was_not_made_here_is_left_alone_and_named(cut):
    film(Path("in/a.mp4"), [picture(red=40)] * 4)
    foreign = Path("out/cropped_aligned/a/00001.jpg")
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    report = cut("--strict", status=1)
    assert "was not made from this file" in report["problems"][0]["problem"]
    assert foreign.read_bytes() == b"mine"


def test_other_settings_are_refused_until_one_says_rebuild(cut):
    film(Path("in/a.mp4"), [picture(red=40)] * 4)
    cut()
    with pytest.raises(UserError, match=r"out was cut with other settings \(size 112 -> 64\)"):
        cut("--size", "64")
    cut("--size", "64", "--rebuild")
    assert cv2.imread("out/cropped_aligned/a/00001.jpg").shape == (64, 64, 3)


def test_people_seen_too_briefly_or_beyond_the_number_wanted_are_left_out_and_reported(cut):
    film(Path("in/a.mp4"), [picture(red=40, blue=100 if i < 2 else None) for i in range(6)])
    film(Path("in/b.mp4"), [picture(red=40, blue=100 if i < 4 else None) for i in range(6)])
    report = cut("--most-people", "1")
    assert list(folders()) == ["a", "b"]
    assert [p["problem"] for p in report["problems"]] == [
        "1 people in fewer than 3 frames were left out, with 2 faces",
        "1 people beyond most_people were left out, with 4 faces",
    ]


def test_two_files_of_one_name_are_an_error_and_told_apart_by_their_path(cut):
    for folder in ("x", "y"):
        film(Path(f"in/{folder}/a.mp4"), [picture(red=40)] * 4)
    with pytest.raises(UserError, match=r"'x/a.mp4' and 'y/a.mp4' would both be called 'a': rename one, or set names"):
        cut()
    cut("--names", "path")
    assert list(folders()) == ["x_a", "y_a"]


def test_wrong_values_and_empty_inputs_are_one_line(cut):
    with pytest.raises(UserError, match="there is no file or folder in"):
        cut()
    Path("in").mkdir()
    with pytest.raises(UserError, match="no video"):
        cut()
    with pytest.raises(UserError, match="every must be from 1 to 100, and is 0"):
        cut("--every", "0", "--quality", "101")
    with pytest.raises(UserError, match="is not one of"):
        cut("--detector", "mtcn")


def stills(folder: str, numbers, **places) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for n in numbers:
        cv2.imwrite(f"{folder}/{n:05d}.png", picture(**places)[:, :, ::-1])


def test_numbered_pictures_of_a_folder_are_one_video_where_one_says_so(cut):
    stills("in/deep/a.b", [0, 1, 2, 5, 6], red=100, blue=20)
    stills("in/deep/a.b", [7, 40, 41, 42], red=100)
    cv2.imwrite("in/deep/a.b/poster.png", picture(red=60)[:, :, ::-1])
    film(Path("in/one.mp4"), [picture(red=40)] * 4)
    report = cut("--stills", "frames", "--fps", "10")
    assert {name: len(files) for name, files in folders().items()} == {
        "a.b_left": 5, "a.b_right": 9, "one": 4, "poster": 1,
    }  # fmt: skip
    assert folders()["a.b_left"] == [f"{n:05d}.jpg" for n in (0, 1, 2, 5, 6)]
    assert report["problems"] == []
    assert report["videos"]["a.b"] == {
        "source": "deep/a.b",
        "frames": 9,
        "fps": 10.0,
        "folders": {"a.b_left": 5, "a.b_right": 9},
    }
    table = pd.read_parquet("out/faces.parquet").set_index("video")
    assert table.loc["a.b_left", "time_sec"].tolist() == pytest.approx([0, 0.1, 0.2, 0.5, 0.6])
    assert table.loc["a.b_right", "track"].nunique() == 2  # 3 s unseen, and then found to be the same person
    assert set(table.loc["a.b_left", "fps"]) == {10.0}


def test_frames_of_which_nobody_knows_the_rate_have_no_times_and_are_followed_all_the_same(cut):
    stills("in/a", range(1, 9), red=40)
    report = cut("--stills", "frames", "--every", "3")
    table = pd.read_parquet("out/faces.parquet")
    assert table["time_sec"].isna().all()
    assert table["fps"].isna().all()
    assert table["track"].nunique() == 1
    assert (report["videos"]["a"]["fps"], report["faces"]) == (None, 8)


def test_a_folder_of_frames_is_cut_again_when_one_of_them_or_the_rate_is_another(cut, monkeypatch):
    for name in ("a", "b"):
        stills(f"in/{name}", range(1, 5), red=40)
    cut("--stills", "frames")
    done, real = [], loop.cut
    monkeypatch.setattr(loop, "cut", lambda task, *others: done.append(task.video) or real(task, *others))
    cut("--stills", "frames")
    assert done == []
    stills("in/b", [3], red=90)
    cut("--stills", "frames")
    assert done == ["b"]
    assert cut("--stills", "frames", "--fps", "30")["faces"] == 8
    assert done == ["b", "a", "b"]


def test_the_input_itself_may_be_the_folder_of_frames(cut):
    stills("in", range(1, 5), red=40)
    cut("--stills", "frames")
    assert list(folders()) == ["in"]


def test_numbered_pictures_that_are_no_video_are_told_how_to_be_one(cut):
    for name in ("a", "b"):
        stills(f"in/{name}", [1, 2], red=40)
    with pytest.raises(
        UserError, match=r"would both be called '00001'.*where they are the frames of videos, set stills"
    ):
        cut()
    cv2.imwrite("in/a/1.jpg", picture(red=40))
    with pytest.raises(UserError, match=r"'a/00001.png' and 'a/1.jpg' are the same frame; keep one"):
        cut("--stills", "frames")
    with pytest.raises(UserError, match="stills must be 'frames', with fps, and is single"):
        cut("--fps", "25")


# --- real faces ------------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not REAL.is_dir(), reason="FACES names no folder of real clips")


@real
@pytest.mark.slow
def test_the_points_of_a_mirrored_picture_are_the_mirrored_points():
    image = next(read(REAL / "multi_face.jpg").frames).image
    detector = DETECTORS["mtcnn"](40, 0.9)
    faces, mirrored = detector(image), detector(np.ascontiguousarray(image[:, ::-1]))
    points = mirrored.points[:, [1, 0, 2, 4, 3]]
    points[..., 0] = image.shape[1] - 1 - points[..., 0]
    assert len(faces) == len(mirrored) == 5
    nearest = [points[np.abs(points - p).sum((1, 2)).argmin()] for p in faces.points]
    eyes = np.linalg.norm(faces.points[:, 0] - faces.points[:, 1], axis=1)
    assert (np.linalg.norm((nearest - faces.points).mean(axis=1), axis=1) < 0.06 * eyes).all()


@real
@pytest.mark.slow
def test_real_clips_give_their_faces_with_several_processes(workplace):
    argv = ["--input", str(REAL), "--out", "out", "--workers", "2", "--every", "5"]
    assert script.main(argv) == 0
    counts = {name: len(files) for name, files in folders().items()}
    assert counts["single_face"] == 72
    assert 65 <= counts["face_noface"] <= 80
    assert len([name for name in counts if name.startswith("multi_face_p")]) == 5
    assert not [name for name in counts if name.startswith("no_face")]


@real
@pytest.mark.slow
def test_a_run_killed_outright_leaves_no_process_behind_and_the_next_one_ends_like_a_whole_one(workplace):
    Path("in").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(REAL / "single_face.mp4", f"in/{name}.mp4")
    argv = [sys.executable, "-m", "pipeline.faces", "--input", "in", "--workers", "2", "--every", "5", "--out"]
    subprocess.run([*argv, "whole"], check=True)
    process = subprocess.Popen([*argv, "killed"])
    partial = Path("killed/.partial")
    while not partial.is_dir() or len(list(partial.iterdir())) < 2:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while alive := [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < until, alive
        time.sleep(0.1)
    subprocess.run([*argv, "killed"], check=True)
    one, other = ({p.relative_to(out): p.read_bytes() for p in Path(out).rglob("*.jpg")} for out in ("whole", "killed"))
    assert one == other
    assert len(one) > 200
    pd.testing.assert_frame_equal(*(pd.read_parquet(f"{out}/faces.parquet") for out in ("whole", "killed")))


def test_the_thresholds_of_appearance_are_in_order():
    assert 0 < tracks.SAME_TRACK_LOOK < tracks.SAME_PERSON_LOOK < 1
