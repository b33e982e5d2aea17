import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.datasets import abaw
from pipeline.datasets.found import DatasetConfig
from pipeline.faces import __main__ as script
from pipeline.faces import detect, loop, tracks
from pipeline.faces.align import TEMPLATE, align_from, five_points, similarity
from pipeline.faces.detect import DETECTORS, Faces
from pipeline.faces.tracks import follow, people, suffixes
from pipeline.faces.video import Frame, UnreadableVideo, read
from pipeline.params import UserError

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


def film(path: Path, pictures: list[np.ndarray], milliseconds=None, rotation=0, shape=None, codec="libx264", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if rotation:
            stream.set_display_rotation(rotation)
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


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_turned_phones_video_is_upright_as_opencv_shows_it(tmp_path, rotation):
    path = film(tmp_path / "a.mp4", [picture(red=10)], rotation=rotation)
    ours = next(read(path).frames).image
    theirs = cv2.VideoCapture(str(path)).read()[1][:, :, ::-1]
    assert ours.shape == ((160, 96, 3) if rotation in (90, 270) else (96, 160, 3))
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_the_times_of_a_variable_frame_rate_are_those_of_the_file(tmp_path):
    path = film(tmp_path / "a.mp4", [picture()] * 5, milliseconds=[1000, 1050, 1500, 1510, 3000])
    frames = list(read(path).frames)
    assert [f.number for f in frames] == [1, 2, 3, 4, 5]
    assert [round(f.time_sec, 4) for f in frames] == [0, 0.05, 0.5, 0.51, 2.0]


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = film(tmp_path / "a.mp4", [picture()] * 2, shape=Fraction(2, 1))
    assert next(read(path).frames).image.shape == (96, 320, 3)


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
    with pytest.raises(UserError, match="there is no folder in"):
        cut()
    Path("in").mkdir()
    with pytest.raises(UserError, match="no video"):
        cut()
    with pytest.raises(UserError, match="every must be from 1 to 100, and is 0; quality must be"):
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


def test_the_thresholds_of_appearance_are_in_order():
    assert 0 < tracks.SAME_TRACK_LOOK < tracks.SAME_PERSON_LOOK < 1
