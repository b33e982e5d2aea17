"""From video files, or whole frames with landmarks, to aligned faces, tables and features."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_faces import film, find_squares, picture

import extract
from pipeline.core.clips import read_clips
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.tables import read_frames, read_labels
from pipeline.datasets import index
from pipeline.faces import __main__ as faces
from pipeline.faces.align import TEMPLATE
from pipeline.faces.detect import DETECTORS

TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--workers", "1"]


@pytest.fixture
def cut(workplace, monkeypatch):
    """Runs the stage with squares for faces; gives its report."""
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)

    def run(*argv: str, out: str = "faces") -> dict:
        flags = ["--input", "in", "--out", out, "--workers", "1", "--min-frames", "3"]
        assert faces.main([*flags, *argv]) == 0
        return json.loads(Path(f"{out}/faces.json").read_text())

    return run


def extracted() -> dict[tuple[str, int], np.ndarray]:
    assert extract.main(TINY) == 0
    store = FeatureStore(Path("data/features.zarr"))
    keys = store.keys
    features = store.read(keys["row"].to_numpy())
    return {(str(v), int(f)): x for v, f, x in zip(keys["video"], keys["frame"], features, strict=True)}


def test_a_folder_of_videos_for_each_class_becomes_features_with_labels(cut):
    """Red squares are angry, blue ones sad; one clip shows both, one loses its face, one has none."""
    film(Path("in/angry/1.mp4"), [picture(red=30 + i) for i in range(5)])
    film(Path("in/angry/2.mp4"), [picture(red=None if i == 2 else 60) for i in range(5)])
    film(Path("in/sad/1.mp4"), [picture(blue=40)] * 4)
    film(Path("in/sad/two.mp4"), [picture(blue=20, red=100)] * 4)
    film(Path("in/sad/none.mp4"), [picture()] * 4)
    report = cut("--names", "tree")
    assert report["problems"] == [{"file": "sad/none.mp4", "problem": "no face was found"}]
    assert report["folders_of_no_file"]["count"] == 0
    assert cut("--names", "tree") == report
    index.main(["--name", "folder", "--root", "faces/cropped_aligned", "--crop-source", "cropped_aligned"])
    table = read_labels(Path("data/labels.parquet")).table
    assert table.groupby("video")["frame"].agg(list).to_dict() == {
        "angry/1": [1, 2, 3, 4, 5], "angry/2": [1, 2, 4, 5], "sad/1": [1, 2, 3, 4],
        "sad/two_left": [1, 2, 3, 4], "sad/two_right": [1, 2, 3, 4],
    }  # fmt: skip
    assert set(table.loc[table["video"].str.contains("two"), "group"]) == {"sad/two"}
    assert table.set_index("video")["expression"].to_dict()["angry/2"] == "angry"
    features = extracted()
    assert set(features) == set(table[["video", "frame"]].itertuples(index=False, name=None))
    same = np.linalg.norm(features["sad/1", 1] - features["sad/two_left", 1])
    assert 5 * same < np.linalg.norm(features["sad/1", 1] - features["sad/two_right", 1])


def test_ravdess_videos_become_one_clip_a_take_with_the_names_the_reader_knows(cut):
    clips = ["01-01-05-01-01-01-01", "02-01-05-01-01-01-01", "02-01-04-01-01-01-02"]
    for clip, colour in zip(clips, ("red", "red", "blue"), strict=True):
        film(Path(f"in/Actor_{clip[-2:]}/{clip}.mp4"), [picture(**{colour: 40})] * 4)
    cut()
    index.main(["--name", "ravdess", "--root", "faces", "--class-map", "abaw", "--val-fraction", "0.5"])
    table = read_labels(Path("data/labels.parquet")).table
    found = table.drop_duplicates("video").set_index("video")[["group", "expression"]]
    assert found.to_dict("index") == {
        "01-01-05-01-01-01-01": {"group": "Actor_01", "expression": "Anger"},
        "02-01-04-01-01-01-02": {"group": "Actor_02", "expression": "Sadness"},
    }
    assert len(extracted()) == 8


def landmarks_at(left: float, top: float, side: float) -> np.ndarray:
    """68 points whose eyes, nose and corners of the mouth are the template's in a square of an image."""
    five = left + side / 112 * TEMPLATE[:, :1], top + side / 112 * TEMPLATE[:, 1:]
    five, points = np.hstack(five), np.full((68, 2), [left + side / 2, top + side / 2])
    points[36:42], points[42:48], points[30], points[48], points[54] = five
    return points


def afew_clip(video: str, numbers: list[int], places: dict[int, np.ndarray]) -> None:
    folder = Path("in") / video
    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:05d}.png"), picture(red=40)[:, :, ::-1])
    entries = {f"{n:05d}": {"landmarks": points.tolist(), "valence": 5, "arousal": -5} for n, points in places.items()}
    (folder / f"{video}.json").write_text(json.dumps({"frames": entries, "actor": "somebody"}))


def test_afew_va_is_cut_by_its_own_landmarks_with_its_own_numbers_and_read_back(cut):
    square = landmarks_at(40, 40, 32)
    afew_clip("001", [0, 1, 3], {n: square for n in range(4)})  # an image is missing
    afew_clip("002", [0, 1], {0: square, 1: square[:49]})  # 49 points
    afew_clip("003", [0, 1], {0: square, 1: np.full((68, 2), 7.0)})  # all points are one
    Path("in/002/00000.png").write_bytes(b"x")
    report = cut("--landmarks", "afew_va")
    assert {(p["file"], p["problem"]) for p in report["problems"]} == {
        ("002/002.json", "2 of 2 frames have no face"),
        ("002/002.json", "no face was found"),
        ("002/002.json", "1 of 2 images cannot be read, such as 002/00000.png: not an image, or damaged"),
        ("003/003.json", "1 of 2 frames have no face"),
    }
    aligned = cv2.imread("faces/cropped_aligned/001/00003.jpg")
    assert aligned.shape == (112, 112, 3)
    assert (aligned[20:, :, 2] > 150).mean() > 0.9  # the red square, and nothing of the grey around it
    table = pd.read_parquet("faces/faces.parquet")
    assert table["video"].tolist() == ["001", "001", "001", "003"]
    assert table["frame"].tolist() == [0, 1, 3, 0]
    assert table[["left_eye_x", "nose_y"]].iloc[0].tolist() == pytest.approx([square[36, 0], square[30, 1]], abs=1e-4)
    index.main(["--name", "afew_va", "--root", "faces", "--annotations", "in", "--crop-source", "cropped_aligned"])
    assert read_frames(Path("data/frames.parquet")).table["path"].tolist() == [
        f"cropped_aligned/{v}/{f:05d}.jpg" for v, f in (("001", 0), ("001", 1), ("001", 3), ("003", 0))
    ]
    labels = read_labels(Path("data/labels.parquet")).table
    assert set(labels[["valence", "arousal", "group"]].itertuples(index=False, name=None)) == {(0.5, -0.5, "somebody")}
    assert len(extracted()) == 4


def test_a_changed_annotation_is_cut_again_and_the_rest_is_left_alone(cut):
    square = landmarks_at(40, 40, 32)
    afew_clip("001", [0], {0: square})
    afew_clip("002", [0], {0: square})
    cut("--landmarks", "afew_va")
    before = {path: path.stat().st_mtime_ns for path in Path("faces/cropped_aligned").rglob("*.jpg")}
    content = json.loads(Path("in/002/002.json").read_text())
    content["frames"]["00000"]["landmarks"] = (square + 5).tolist()
    Path("in/002/002.json").write_text(json.dumps(content) + "\n")
    cut("--landmarks", "afew_va")
    changed = [path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["002"]
    with pytest.raises(UserError, match=r"other settings \(landmarks afew_va -> None\)"):
        cut("--names", "path")


def test_without_afew_va_there_the_landmarks_are_asked_for_in_its_readers_words(cut):
    Path("in").mkdir()
    with pytest.raises(UserError, match=r"ROOT/\.\.\./001/001\.json"):
        cut("--landmarks", "afew_va")


def test_a_video_called_like_a_folder_beside_it_is_refused_where_folders_are_kept(cut):
    film(Path("in/a.mp4"), [picture(red=40)] * 4)
    film(Path("in/a/b.mp4"), [picture(red=40)] * 4)
    with pytest.raises(UserError, match=r"the folder of 'a\.mp4' would hold that of 'a/b\.mp4': rename one"):
        cut("--names", "tree")


def test_a_video_may_be_called_by_a_number(cut):
    film(Path("in/1.mp4"), [picture(red=100, blue=20)] * 4)
    film(Path("in/2.mp4"), [picture(red=100)] * 4)
    film(Path("in/1/1.mp4"), [picture(red=100)] * 4)
    with pytest.raises(UserError, match="would both be called '1'"):
        cut()
    Path("in/1/1.mp4").unlink()
    cut()
    assert sorted(path.name for path in Path("faces/cropped_aligned").iterdir()) == ["1_left", "1_right", "2"]


def test_videos_of_clips_become_clips_by_the_commands_of_the_page(cut):
    """CAER's by their folders; DFEW's by their numbers; and a table's, in seconds, by the times of the faces."""
    for split in ("train", "validation", "test"):
        film(Path(f"in/{split}/Anger/0001.avi"), [picture(red=30)] * 4)
    cut("--names", "tree")
    index.main(["--name", "caer", "--root", "faces"])
    clips = read_clips(Path("data/clips.parquet")).table
    assert clips.set_index("video")["split"].to_dict() == {
        "test/Anger/0001": "test", "train/Anger/0001": "train", "validation/Anger/0001": "val",
    }  # fmt: skip

    shutil.rmtree("in")
    film(Path("in/part_1/1.mp4"), [picture(red=30)] * 4)
    film(Path("in/part_1/2.mp4"), [picture()] * 4)
    cut(out="dfew_faces")
    for part in ("train", "test"):
        table = Path(f"dfew/EmoLabel_DataSplit/{part}(single-labeled)/set_1.csv")
        table.parent.mkdir(parents=True)
        table.write_text("video_name,label\n" + ("1,3\n" if part == "test" else "2,4\n"))
    index.main(["--name", "dfew", "--root", "dfew_faces", "--annotations", "dfew"])
    clips = read_clips(Path("data/clips.parquet")).table
    assert clips[["clip", "video", "expression", "split"]].to_numpy().tolist() == [
        ["00001", "1", "Neutral", "val"], ["00002", "00002", "Angry", "train"],
    ]  # fmt: skip
    report = json.loads(Path("data/index.json").read_text())
    assert report["clips_without_frames"] == {"count": 1, "first": ["00002"]}

    shutil.rmtree("in")
    film(Path("in/talk.mp4"), [picture(red=None if i in (3, 4) else 30) for i in range(10)])
    Path("in/clips.csv").write_text("video,start_sec,end_sec,label\nin/talk.mp4,0,0.2,a\nin/talk.mp4,0.2,9,b\n")
    cut(out="talk_faces")
    index.main(["--name", "clips", "--root", "talk_faces", "--annotations", "in/clips.csv"])
    times = pd.read_parquet("talk_faces/faces.parquet").set_index("frame")["time_sec"]
    labels = read_labels(Path("data/labels.parquet")).table.set_index("frame")["expression"]
    assert labels.to_dict() == {n: "a" if t < 0.2 else "b" for n, t in times.items()}
    assert len(labels) == 8
    assert set(labels) == {"a", "b"}
