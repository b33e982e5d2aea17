import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.params import UserError
from pipeline.datasets import afew_va, readers
from pipeline.datasets.config import DatasetConfig

POINTS = np.arange(136.0).reshape(68, 2)


def frames(root: Path, folder: str, numbers) -> None:
    for number in numbers:
        file(root, f"{folder}/{number:05d}.png", "x")


def file(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def annotation(root: Path, path: str, values: dict, points=POINTS, **others) -> None:
    entries = {f"{n:05d}": {"landmarks": points.tolist(), "valence": v, "arousal": a} for n, (v, a) in values.items()}
    file(root, path, json.dumps({"frames": entries, **others}))


def read(root: Path, **others):
    return afew_va.read(DatasetConfig(name="afew_va", root=root, **others))


def rows(found) -> list[tuple]:
    table = found.labels.table.round(4)
    return sorted((v, f, g, round(float(a), 4), round(float(b), 4)) for v, f, g, a, b in table.itertuples(index=False))


def test_values_are_divided_by_ten_and_frames_count_from_zero(tmp_path):
    frames(tmp_path, "001", [0, 1])
    frames(tmp_path, "part 2/002", [0])
    annotation(tmp_path, "001/001.json", {0: (-10, 10), 1: (3, 0)}, video_id="001")
    annotation(tmp_path, "part 2/002/002.json", {0: (1, -1)}, actor="somebody")
    found = read(tmp_path)
    assert rows(found) == [
        ("001", 0, "001", -1.0, 1.0),
        ("001", 1, "001", 0.3, 0.0),
        ("002", 0, "somebody", 0.1, -0.1),
    ]
    assert list(found.frames.table["path"]) == ["001/00000.png", "001/00001.png", "part 2/002/00000.png"]
    assert found.labels.table["valence"].dtype == np.float32
    assert (found.frames.crop_source, found.skipped, found.report["stray_files"]["count"]) == ("whole frames", 0, 0)


def test_missing_images_and_missing_annotations_are_both_named(tmp_path):
    frames(tmp_path, "001", [0])
    frames(tmp_path, "003", [0])
    annotation(tmp_path, "001/001.json", {0: (1, 1), 1: (1, 1)})
    annotation(tmp_path, "002/002.json", {0: (1, 1)})
    found = read(tmp_path)
    assert len(found.labels.table) == 3
    assert found.report["clips_without_annotation"] == {"count": 1, "first": ["003"]}
    assert found.report["annotated_clips_without_frames"] == {"count": 1, "first": ["002"]}


@pytest.mark.parametrize("value", [11, -10.5, None, "3", True, float("nan")])
def test_a_frame_with_an_impossible_value_is_left_out_and_named(tmp_path, value):
    frames(tmp_path, "001", [0, 1])
    annotation(tmp_path, "001/001.json", {0: (value, 0), 1: (2, 2)})
    found = read(tmp_path)
    assert [frame for _, frame, *_ in rows(found)] == [1]
    assert found.report["malformed_frames"]["count"] == found.skipped == 1
    assert found.report["malformed_frames"]["first"][0].startswith("001/001.json: frame '00000'")


@pytest.mark.parametrize("content", ["{", "[]", '{"frames": []}', '{"other": {}}', ""])
def test_a_broken_annotation_file_is_skipped_and_named(tmp_path, content):
    frames(tmp_path, "001", [0])
    file(tmp_path, "001/001.json", content)
    found = read(tmp_path)
    assert found.report["annotation_files_skipped"]["first"] == ["001/001.json: not JSON with 'frames'"]
    assert (found.skipped, len(found.labels.table)) == (1, 0)


def test_landmarks_are_given_frame_by_frame_and_those_that_are_not_68_are_named(tmp_path):
    frames(tmp_path, "001", [0])
    frames(tmp_path, "002", [4])
    annotation(tmp_path, "001/001.json", {0: (1, 1)})
    annotation(tmp_path, "002/002.json", {4: (1, 1)}, points=POINTS[:49])
    config = DatasetConfig(name="afew_va", root=tmp_path)
    found = afew_va.landmarks(config)
    assert {video: (path, list(points)) for video, (path, points) in found.items()} == {
        "001": ("001/001.json", [0]),
        "002": ("002/002.json", []),
    }
    np.testing.assert_array_equal(found["001"][1][0], POINTS)
    assert afew_va.read(config).report["frames_without_68_points"]["first"] == ["002/002.json: frame '00004'"]
    assert len(afew_va.read(config).labels.table) == 2


def test_cut_faces_are_read_with_the_annotations_of_the_whole_frames(tmp_path):
    frames(tmp_path / "cut", "cropped_aligned/001", [0])
    annotation(tmp_path / "afew", "001/001.json", {0: (5, 5)})
    found = read(tmp_path / "cut", annotations=tmp_path / "afew", crop_source="cropped_aligned")
    assert rows(found) == [("001", 0, "001", 0.5, 0.5)]
    assert found.frames.crop_source == "cropped_aligned"
    with pytest.raises(UserError, match=r"no annotation such as 001\.json"):
        read(tmp_path / "cut", annotations=tmp_path / "cut")


def test_two_annotations_for_a_clip_and_an_empty_root_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"ROOT/\.\.\./001/001\.json"):
        read(tmp_path)
    frames(tmp_path, "001", [0])
    annotation(tmp_path, "001/001.json", {0: (1, 1)})
    annotation(tmp_path, "old/001.json", {0: (2, 1)})
    with pytest.raises(UserError, match=r"'001/001.json' and 'old/001.json' both label '001'"):
        read(tmp_path)


def test_clips_are_held_out_whole_and_alike_in_valence_and_arousal(tmp_path):
    for clip in range(20):
        frames(tmp_path, f"{clip:03d}", [0, 1])
        sign = 1 if clip < 10 else -1
        annotation(tmp_path, f"{clip:03d}/{clip:03d}.json", {0: (4 * sign, 4), 1: (5 * sign, 4)})
    table = readers.read(DatasetConfig(name="afew_va", root=tmp_path)).labels.table
    val = table[table["va_split"] == "val"]
    assert set(val.groupby("video").size()) == {2}
    assert (val["valence"] > 0).sum() == (val["valence"] < 0).sum() == 4
