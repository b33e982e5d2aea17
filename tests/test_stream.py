"""Frames one by one: what is given at once, and what later, against the same embeddings of the whole clip."""

import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_faces import COLOURS, film, find_squares, picture
from untrained_run import make_run

from pipeline.core.params import UserError
from pipeline.embed import Embedder
from pipeline.embed import embedder as embedder_module
from pipeline.faces.detect import DETECTORS, Faces
from pipeline.faces.live import LiveFaces, flowed
from pipeline.faces.tracks import follow
from pipeline.faces.video import Frame, read

REAL = Path(os.environ.get("FACES", "not given"))
WINDOWS = [
    {"frames": 5, "step": None, "edge": "mask", "spacing": 1},
    {"frames": 5, "step": None, "edge": "mirror", "spacing": 3},
    {"frames": 4, "step": 2, "edge": "mirror", "spacing": 1},
    {"frames": 5, "step": "0.06s", "edge": "mask", "spacing": 1},
]


def scene(number: int, **places: int | None) -> np.ndarray:
    """Squares with a texture that is another in each frame."""
    image = picture(**places)
    for colour, left in places.items():
        if left is not None:
            texture = cv2.resize(np.random.default_rng([number, len(colour)]).normal(0, 25, (4, 4, 3)), (32, 32))
            image[40:72, left : left + 32] = np.clip(COLOURS[colour] + texture.clip(-45, 45), 0, 255)
    return image


@pytest.fixture(scope="module", autouse=True)
def squares_by_pytorch():
    """Squares are faces; and the backbone runs by PyTorch, as in the table of a short clip, and needs no preparing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
        patch.setattr(embedder_module, "EXPORT_FROM", 0)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("live") / "run")


@pytest.fixture
def embedder(run):
    return Embedder.load(run, device="cpu")


def clip(pictures: list[np.ndarray]) -> tuple[Path, list[np.ndarray]]:
    """A film, and its pictures as they are decoded."""
    film(Path("clip.mp4"), pictures)
    return Path("clip.mp4"), [frame.image for frame in read(Path("clip.mp4")).frames]


def pushed(of, pictures: list[np.ndarray]) -> pd.DataFrame:
    rows = [row for image in pictures for row in of.push(image)]
    return pd.DataFrame(rows + of.close())


def vectors(table: pd.DataFrame) -> np.ndarray:
    return np.stack(list(table["embedding"]))


# --- what comes at once, and what comes later


@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w['step']} {w['edge']}")
def test_an_embedding_is_that_of_the_last_frame_of_the_video_so_far(tmp_path, window):
    embedder = Embedder.load(make_run(tmp_path / "run", window=window), device="cpu")
    path, pictures = clip([scene(i, red=20 + i) for i in range(12)])
    features = np.stack(list(embedder.video(path, with_features=True)["features"]))
    live = embedder.stream(25, every=1)
    for end, image in enumerate(pictures, start=1):
        (row,) = live.push(image)
        expected = embedder.features(features[:end], fps=25).iloc[-1]
        assert row["frame"] == end
        np.testing.assert_allclose(row["embedding"], expected["embedding"], atol=1e-5)
        assert row["class"] == expected["class"]
        assert row["p_Anger"] == pytest.approx(expected["p_Anger"], abs=1e-4)
    assert live.close() == []


@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w['step']} {w['edge']}")
def test_after_half_a_window_embeddings_are_those_of_the_whole_clip(tmp_path, window):
    embedder = Embedder.load(make_run(tmp_path / "run", seeds=2, window=window), seed="all", device="cpu")
    hidden = [None if i in (6, 7) else 100 + i for i in range(16)]
    path, pictures = clip([scene(i, red=20 + i, blue=place) for i, place in enumerate(hidden)])
    whole = embedder.video(path, min_frames=1).sort_values(["person", "frame"])
    live = embedder.stream(25, every=1, delay_frames="window")
    assert live.delay_frames == {None: 2, 2: 4, "0.06s": 3}[window["step"]]
    table = pushed(live, pictures)
    assert list(table.columns) == [name for name in whole.columns if name != "video"]
    called = table.groupby("person")["frame"].count().sort_values()
    assert called.tolist() == [14, 16]  # blue is away for two frames, and the same when it is back
    names = dict(zip(called.index, ("right", "left"), strict=True))
    table = table.assign(person=table["person"].map(names)).sort_values(["person", "frame"])
    assert table[["person", "frame"]].values.tolist() == whole[["person", "frame"]].values.tolist()
    np.testing.assert_allclose(vectors(table), vectors(whole), atol=1e-5)
    np.testing.assert_allclose(table["p_Anger"], whole["p_Anger"], atol=1e-4)
    np.testing.assert_allclose(np.stack(list(table["box"])), np.stack(list(whole["box"])))
    np.testing.assert_allclose(table["time_sec"], whole["time_sec"], atol=1e-9)


def test_with_a_delay_a_row_comes_so_many_frames_later_and_its_window_has_these(embedder):
    path, pictures = clip([scene(i, red=20 + i) for i in range(8)])
    features = np.stack(list(embedder.video(path, min_frames=1, with_features=True)["features"]))
    live = embedder.stream(25, every=1, delay_frames=1)
    assert live.push(pictures[0]) == []
    for end, image in enumerate(pictures[1:], start=2):
        (row,) = live.push(image)
        assert row["frame"] == end - 1
        expected = embedder.features(features[:end])["embedding"].iloc[-2]
        np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)
    (last,) = live.close()
    np.testing.assert_allclose(last["embedding"], embedder.features(features)["embedding"].iloc[-1], atol=1e-5)


def test_frames_that_were_dropped_are_missing_in_the_windows(embedder):
    path, pictures = clip([scene(i, red=20 + i) for i in range(9)])
    features = np.stack(list(embedder.video(path, min_frames=1, with_features=True)["features"]))
    kept = [0, 1, 2, 5, 6, 8]
    live = embedder.stream(25, every=1)
    rows = [row for i in kept for row in live.push(pictures[i], time_sec=100 + i / 25 + 0.004 * (i % 2))]
    assert [row["frame"] for row in rows] == [i + 1 for i in kept]
    assert [row["time_sec"] for row in rows] == pytest.approx([i / 25 + 0.004 * (i % 2) for i in kept])
    for end, row in enumerate(rows, start=1):
        numbers = [i + 1 for i in kept[:end]]
        expected = embedder.features(features[kept[:end]], frame=numbers)["embedding"].iloc[-1]
        if len(numbers) != 4:  # after 1, 2, 3, 6 all agree; of two frames far apart nobody knows the spacing
            np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)


def test_people_stay_apart_and_who_has_gone_is_forgotten(embedder):
    there = {"red": range(40), "blue": range(10)}
    pictures = [scene(0, **{c: 100 if c == "blue" else 20 for c in there if i in there[c]}) for i in range(40)]
    live = embedder.stream(25, every=5, delay_frames="window")
    rows, people = [], []
    for image in pictures:
        rows += live.push(image)
        people.append(len(live._people))
    table = pd.DataFrame(rows + live.close())
    assert table.groupby("person")["frame"].agg(["min", "max", "count"]).values.tolist() in (
        [[1, 40, 40], [1, 10, 10]], [[1, 10, 10], [1, 40, 40]],
    )  # fmt: skip
    assert people[:10] == [2] * 10
    assert people[30:] == [1] * 10
    again = embedder.stream(25, every=1)
    away = [scene(0, red=20 if i % 16 == 0 else None) for i in range(17)]
    names = [row["person"] for image in away for row in again.push(image)]
    assert names == ["p1", "p2"]  # away for more than half a second


def test_what_is_kept_does_not_grow(embedder):
    live = embedder.stream(25, every=5)
    pictures = [scene(0, red=20 + abs(10 - i)) for i in range(20)]
    for number in range(120):
        live.push(pictures[number % 20])
        (person,) = live._people.values()
        assert len(person.frames) == len(person.features) <= 4
        assert not person.waiting


def test_a_camera_may_write_over_its_picture(embedder):
    pictures = [scene(i, red=20 + 2 * i) for i in range(8)]
    expected = pushed(embedder.stream(25), pictures)
    live, camera, rows = embedder.stream(25), np.empty_like(pictures[0]), []
    for image in pictures:
        camera[:] = image
        rows += live.push(camera)
        camera[:] = 0
    np.testing.assert_array_equal(vectors(pd.DataFrame(rows)), vectors(expected))
    turned = [np.ascontiguousarray(image[..., ::-1])[..., ::-1] for image in pictures]  # as BGR of OpenCV, made RGB
    np.testing.assert_array_equal(vectors(pushed(embedder.stream(25), turned)), vectors(expected))


def test_a_run_of_pictures_as_given_takes_each_frame_whole(tmp_path):
    embedder = Embedder.load(make_run(tmp_path / "run", crop_source="as given"), device="cpu")
    path, pictures = clip([scene(i, red=20 + i) for i in range(7)])
    whole, table = embedder.video(path), pushed(embedder.stream(25, delay_frames="window"), pictures)
    assert set(table["person"]) == {""}
    np.testing.assert_allclose(vectors(table), vectors(whole), atol=1e-5)


@pytest.mark.parametrize(
    ("image", "time_sec", "words"),
    [
        (np.zeros((4, 4), np.uint8), None, r"\(H, W, 3\) uint8, and is \(4, 4\) uint8"),
        (np.zeros((4, 4, 3), np.float32), None, "float32"),
        ("a.jpg", None, "and is str"),
        (np.zeros((0, 4, 3), np.uint8), None, "must have pixels"),
        (scene(0, red=20), 0.1, "of each frame or of none"),
    ],
)
def test_what_is_no_frame_is_refused_and_the_stream_goes_on(embedder, image, time_sec, words):
    live = embedder.stream(25)
    live.push(scene(0, red=20))
    with pytest.raises(UserError, match=words):
        live.push(image, time_sec)
    (row,) = live.push(scene(1, red=20))
    assert row["frame"] == 2
    live.close()
    with pytest.raises(UserError, match="closed"):
        live.push(scene(2, red=20))


def test_times_must_rise_and_settings_must_be_possible(embedder):
    live = embedder.stream(25)
    live.push(scene(0, red=20), 3.0)
    for time in (3.0, 2.0, float("nan")):
        with pytest.raises(UserError, match="time_sec must rise"):
            live.push(scene(1, red=20), time)
    with pytest.raises(UserError, match="fps must be"):
        embedder.stream(0)
    with pytest.raises(UserError, match="delay_frames must be 0 or more"):
        embedder.stream(25, delay_frames=-1)
    with pytest.raises(UserError, match="a stream cannot have most_people"):
        embedder.stream(25, most_people=1)
    with pytest.raises(UserError, match="every must be"):
        embedder.stream(25, every=0)


def test_the_program_on_the_page_runs(run, monkeypatch, capsys):
    """With a camera of four frames."""
    page = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    program = page.split("```python\n")[1].split("```")[0]
    pictures = iter([(True, scene(i, red=20)[..., ::-1].copy()) for i in range(4)] + [(False, None)])
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: SimpleNamespace(read=lambda: next(pictures)))
    Path("runs").mkdir()
    os.symlink(run, "runs/tcn_supcon")
    os.symlink(run.parent / "weights", "runs/weights")
    exec(program, {})
    assert capsys.readouterr().out.count("p1 ") == 4


# --- faces in between two detections


class Counting:
    """``find_squares``, and the frames that it has seen."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: np.ndarray) -> Faces:
        self.calls += 1
        return find_squares(image)


def seen(detect, every: int, pictures: list[np.ndarray]) -> tuple[list[list], list[int]]:
    """The faces of each picture, and how often the detector had looked by then."""
    live, faces, calls = LiveFaces(detect, every, 32), [], []
    for number, image in enumerate(pictures, start=1):
        faces.append(live.see(Frame(number, (number - 1) / 25, image)))
        calls.append(detect.calls)
    return faces, calls


def test_the_detector_looks_at_every_nth_frame_and_faces_move_with_the_picture_in_between():
    pictures = [scene(0, red=20 + 2 * i) for i in range(12)]
    faces, calls = seen(Counting(), 5, pictures)
    assert calls == [1] * 5 + [2] * 5 + [3] * 2
    for i, (face,) in enumerate(faces):
        assert face.track == 1
        assert np.isnan(face.confidence) == (i % 5 != 0)
        np.testing.assert_allclose(face.points, find_squares(pictures[i]).points[0], atol=1.0)
        np.testing.assert_allclose(face.box, find_squares(pictures[i]).boxes[0], atol=1.0)


def test_in_every_frame_it_sees_what_follow_sees():
    hidden = [None if i in (3, 4) else 100 for i in range(30)]
    pictures = [scene(i, red=20 if i < 15 else None, blue=place) for i, place in enumerate(hidden)]
    faces, _ = seen(Counting(), 1, pictures)
    frames = [Frame(i, (i - 1) / 25, image) for i, image in enumerate(pictures, start=1)]
    expected = list(follow(frames, find_squares, 1, 32))
    found = [face for of_frame in faces for face in of_frame]
    assert [(f.frame, f.track, f.confidence) for f in found] == [(f.frame, f.track, f.confidence) for f in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.crop, other.crop)


def test_at_a_cut_the_detector_looks_at_once_and_the_other_face_is_another_person():
    pictures = [scene(0, red=20)] * 3 + [scene(0, blue=20)] * 3
    faces, calls = seen(Counting(), 10, pictures)
    assert calls == [1, 1, 1, 2, 3, 4]  # the other one may come back
    assert [face.track for (face,) in faces] == [1, 1, 1, 2, 2, 2]


def test_while_a_face_is_missing_that_may_come_back_the_detector_looks_at_each_frame():
    pictures = [scene(0, red=20)] * 2 + [scene(0)] * 3 + [scene(0, red=20)] * 3 + [scene(0)] * 30
    faces, calls = seen(Counting(), 5, pictures)
    assert [len(of_frame) for of_frame in faces[:8]] == [1, 1, 0, 0, 0, 1, 1, 1]
    assert {face.track for of_frame in faces for face in of_frame} == {1}
    assert calls[:8] == [1, 1, 2, 3, 4, 5, 5, 5]
    looked = np.diff(calls)
    assert looked[-10:].sum() == 2  # nobody is awaited any more


def test_another_size_of_the_picture_ends_all_tracks():
    larger = cv2.resize(scene(0, red=20), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    faces, calls = seen(Counting(), 5, [scene(0, red=20)] * 2 + [larger] * 2)
    assert calls == [1, 1, 2, 2]
    assert [face.track for (face,) in faces] == [1, 1, 2, 2]


def test_flow_finds_a_turn_of_the_face():
    rng = np.random.default_rng(0)
    before = cv2.resize(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    matrix = cv2.getRotationMatrix2D((160, 120), 3, 1.02)
    now = cv2.warpAffine(before, matrix, (320, 240))
    points = np.array([[140, 105], [180, 105], [160, 120], [145, 140], [175, 140]], float)
    found = flowed(before, now, np.array([110.0, 70, 210, 170]), points)
    np.testing.assert_allclose(found, points @ matrix[:, :2].T + matrix[:, 2], atol=0.5)


# --- for long, and for real


@pytest.mark.slow
def test_memory_is_flat_over_many_frames(embedder):
    live = embedder.stream(25, every=5, delay_frames="window")
    pictures = [scene(0, red=20 + abs(40 - i) // 2, blue=None if i // 20 % 2 else 100) for i in range(80)]
    tracemalloc.start()
    for number in range(2000):
        live.push(pictures[number % 80])
        if number == 500:
            before = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="FACES names no folder of real clips")
def test_a_real_clip_one_frame_at_a_time_gives_what_it_gives_as_a_whole(embedder, monkeypatch):
    from pipeline.extraction.forward import EXPORT_FROM
    from pipeline.faces.detect import mtcnn

    monkeypatch.setitem(DETECTORS, "mtcnn", mtcnn)
    monkeypatch.setattr(embedder_module, "EXPORT_FROM", EXPORT_FROM)  # by ONNX Runtime, as it is used
    pictures = [frame.image for frame in read(REAL / "single_face.mp4").frames]
    whole = embedder.video(REAL / "single_face.mp4")
    table = pushed(embedder.stream(30, every=1, delay_frames="window"), pictures)
    assert (vectors(whole) * vectors(table)).sum(axis=1).min() > 0.9999
    followed = pushed(embedder.stream(30, every=5), pictures)
    assert followed["frame"].tolist() == whole["frame"].tolist()
    far = np.linalg.norm(np.stack(list(followed["box"])) - np.stack(list(whole["box"])), axis=1)
    assert far.max() < 0.15 * np.ptp(whole["box"].iloc[0][::2])
