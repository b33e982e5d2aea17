from pathlib import Path

import pytest

from pipeline.core.params import UserError
from pipeline.datasets import ckplus
from pipeline.datasets.config import DatasetConfig


def file(root: Path, path: str, content: str = "x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def sequence(root: Path, name: str, frames: int) -> None:
    for frame in range(1, frames + 1):
        file(root, f"cohn-kanade-images/{name.replace('_', '/')}/{name}_{frame:08d}.png")


def emotion(root: Path, name: str, peak: int, text: str) -> None:
    file(root, f"Emotion/{name.replace('_', '/')}/{name}_{peak:08d}_emotion.txt", text)


def read(root: Path, **others):
    return ckplus.read(DatasetConfig(name="ckplus", root=root, **others))


def labels(found) -> list[tuple]:
    return sorted(found.labels.table[["video", "frame", "group", "expression"]].itertuples(index=False, name=None))


def test_the_first_frame_is_neutral_and_the_last_three_are_the_emotions(tmp_path):
    sequence(tmp_path, "S005_001", 11)
    emotion(tmp_path, "S005_001", 11, "   3.0000000e+00\n")
    found = read(tmp_path)
    assert labels(found) == [
        ("S005_001", 1, "S005", "neutral"),
        ("S005_001", 9, "S005", "disgust"),
        ("S005_001", 10, "S005", "disgust"),
        ("S005_001", 11, "S005", "disgust"),
    ]
    assert len(found.frames.table) == 11
    assert found.frames.table["path"].max() == "cohn-kanade-images/S005/001/S005_001_00000011.png"
    assert found.labels.classes[3] == "disgust"
    assert (found.skipped, found.report["stray_files"]["count"]) == (0, 0)


def test_short_sequences_never_have_two_labels_for_a_frame(tmp_path):
    for name, frames in (("S005_001", 1), ("S005_002", 3)):
        sequence(tmp_path, name, frames)
        emotion(tmp_path, name, frames, "7")
    assert [(v, f, e) for v, f, _, e in labels(read(tmp_path))] == [
        ("S005_001", 1, "neutral"),
        ("S005_002", 1, "neutral"),
        ("S005_002", 2, "surprise"),
        ("S005_002", 3, "surprise"),
    ]


def test_a_sequence_without_emotion_is_frames_without_labels_and_named(tmp_path):
    sequence(tmp_path, "S005_001", 4)
    sequence(tmp_path, "S010_002", 4)
    emotion(tmp_path, "S005_001", 4, "1")
    found = read(tmp_path)
    assert {v for v, *_ in labels(found)} == {"S005_001"}
    assert len(found.frames.table) == 8
    assert found.report["sequences_without_emotion"] == {"count": 1, "first": ["S010_002"]}


def test_a_peak_that_is_not_the_last_frame_is_taken_at_its_word_and_named(tmp_path):
    sequence(tmp_path, "S005_001", 8)
    emotion(tmp_path, "S005_001", 6, "5")
    found = read(tmp_path)
    assert [(f, e) for _, f, _, e in labels(found)] == [(1, "neutral"), (4, "happy"), (5, "happy"), (6, "happy")]
    moved = found.report["sequences_whose_peak_is_not_their_last_frame"]
    assert moved["first"] == ["S005_001: 6, and the last frame is 8"]


@pytest.mark.parametrize("text", ["", "happy", "8", "-1", "2.5", "nan", "1 2"])
def test_an_emotion_file_without_an_emotion_is_skipped_and_named(tmp_path, text):
    sequence(tmp_path, "S005_001", 4)
    sequence(tmp_path, "S010_002", 4)
    emotion(tmp_path, "S005_001", 4, "1")
    emotion(tmp_path, "S010_002", 4, text)
    found = read(tmp_path)
    assert {v for v, *_ in labels(found)} == {"S005_001"}
    assert found.report["emotion_files_skipped"]["first"][0].startswith(
        "Emotion/S010/002/S010_002_00000004_emotion.txt"
    )
    assert found.skipped == 1


def test_emotions_may_lie_elsewhere_and_faces_may_be_cut(tmp_path):
    for frame in range(1, 6):
        file(tmp_path / "cut", f"cropped_aligned/S005_001/{frame:05d}.jpg")
    emotion(tmp_path / "ck", "S005_001", 5, "4")
    emotion(tmp_path / "ck", "S999_001", 5, "4")
    found = read(tmp_path / "cut", annotations=tmp_path / "ck", crop_source="cropped_aligned")
    assert [(f, e) for _, f, _, e in labels(found)] == [(1, "neutral"), (3, "fear"), (4, "fear"), (5, "fear")]
    assert found.report["emotions_without_sequence"]["first"] == ["S999_001"]
    assert found.frames.crop_source == "cropped_aligned"


def test_annotations_asked_for_and_not_there_are_an_error(tmp_path):
    sequence(tmp_path, "S005_001", 2)
    with pytest.raises(UserError, match="there is no folder"):
        read(tmp_path, annotations=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no '..._emotion.txt' was found"):
        read(tmp_path, annotations=tmp_path / "cohn-kanade-images")


def test_ck48_has_the_label_of_the_folder_and_the_sequence_of_the_name(tmp_path):
    for frame in (15, 16, 17):
        file(tmp_path, f"CK+48/happy/S010_004_{frame:08d}.png")
    file(tmp_path, "CK+48/Anger/S011_001_00000003.png")
    file(tmp_path, "CK+48/happy/Thumbs.db")
    found = read(tmp_path)
    assert labels(found) == [
        ("S010_004", 15, "S010", "happy"),
        ("S010_004", 16, "S010", "happy"),
        ("S010_004", 17, "S010", "happy"),
        ("S011_001", 3, "S011", "anger"),
    ]
    assert found.frames.crop_source == "ck48"
    assert found.report["stray_files"]["count"] == 1


def test_both_forms_at_once_one_frame_twice_and_no_sequence_at_all_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"S005_001_00000011.png.*\n.*dataset.root"):
        read(tmp_path)
    file(tmp_path, "a/S010_004_00000015.png")
    file(tmp_path, "b/S010_004_00000015.png")
    with pytest.raises(UserError, match=r"'a/S010.*' and 'b/S010.*' are the same frame"):
        read(tmp_path)
    file(tmp_path, "happy/S010_004_00000017.png")
    with pytest.raises(UserError, match="both CK\\+48 and whole sequences"):
        read(tmp_path)


def test_images_of_no_sequence_are_counted_and_named(tmp_path):
    sequence(tmp_path, "S005_001", 2)
    file(tmp_path, "cohn-kanade-images/S005/001/face.png")
    found = read(tmp_path)
    assert found.report["images_outside_sequences"]["first"] == ["cohn-kanade-images/S005/001/face.png"]
    assert (found.skipped, found.labels.table.empty) == (1, True)
