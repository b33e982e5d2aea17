"""The drawn data set: its layout and annotation files are read here line by line, not by the reader of the project."""

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from pipeline.core.params import UserError
from pipeline.core.tables import ABAW_CLASSES
from pipeline.datasets.points import read_points
from pipeline.datasets.synthetic.__main__ import main
from pipeline.datasets.synthetic.acting import AU_ON, AUS, COLUMN, perform
from pipeline.datasets.synthetic.drawing import Pose, draw_face, face_points, sample_identity
from pipeline.datasets.synthetic.plan import Clip, SyntheticConfig, plan

VIDEOS = 12
MTL = "8th_ABAW_Annotations/MTL_Challenge"
EXPR, VA, AU = "EXPR_Recognition_Challenge", "VA_Estimation_Challenge", "AU_Detection_Challenge"


def drawn(out: Path, *flags: str, root: Path | None = None) -> Path:
    params = out.parent / "params.yaml"
    params.write_text(f"dataset: {{root: {root or out}, other: 1}}\nsynthetic: {{videos: {VIDEOS}, frames: 12}}\n")
    assert main(["--params", str(params), "--out", str(out), "--workers", "1", *flags]) == 0
    return out


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("drawn") / "clips")


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def frames(root: Path) -> dict[str, list[int]]:
    """Video -> the numbers of its frames."""
    found: dict[str, list[int]] = {}
    for path in sorted(root.glob("batch*/*/*/*.jpg")):
        found.setdefault(path.parent.name, []).append(int(path.stem))
    return found


def annotations(root: Path, track: str) -> dict[str, tuple[str, list[str]]]:
    """Video -> split folder and lines, header first; fails on a video annotated twice."""
    found = {}
    for path in sorted((root / "8th_ABAW_Annotations" / track).glob("*/*.txt")):
        assert path.stem not in found
        text = path.read_text()
        assert text.endswith("\n")
        found[path.stem] = path.parent.name, text.removesuffix("\n").split("\n")
    return found


def base(video: str) -> str:
    return video.removesuffix("_left").removesuffix("_right")


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(clips: Path, tmp_path: Path):
    assert hashes(drawn(tmp_path / "again", "--workers", "2")) == hashes(clips)


def test_another_seed_gives_other_frames_and_other_annotations(clips: Path, tmp_path: Path):
    other, ours = hashes(drawn(tmp_path / "other", "--seed", "1")), hashes(clips)
    assert not {h for f, h in other.items() if f.endswith(".jpg")} & {h for f, h in ours.items() if f.endswith(".jpg")}
    assert not {h for f, h in other.items() if VA in f and f.endswith(".txt")} & set(ours.values())


def test_frames_lie_where_abaw_has_them_and_are_faces_of_112_pixels(clips: Path):
    paths = [p.relative_to(clips).as_posix() for p in clips.rglob("*.jpg")]
    folder = r"(batch1/cropped_aligned|batch2/cropped_aligned_new_50_vids)"
    assert all(re.fullmatch(folder + r"/[\w-]+/\d{5}\.jpg", p) for p in paths)
    assert {p.split("/")[0] for p in paths} == {"batch1", "batch2"}
    assert len(frames(clips)) == VIDEOS
    assert all(numbers[0] >= 1 for numbers in frames(clips).values())
    image = cv2.imread(str(clips / paths[0]))
    assert image.shape == (112, 112, 3)
    assert image.std() > 15


def test_a_table_beside_them_says_where_the_points_of_each_face_are(clips: Path):
    paths, points, groups = read_points(clips / "points.parquet")
    assert sorted(paths) == sorted(p.relative_to(clips).as_posix() for p in clips.rglob("*.jpg"))
    assert points.shape == (len(paths), 5, 2)
    assert {group: base(Path(path).parent.name) for path, group in zip(paths, groups, strict=True)} == {
        group: group for group in groups
    }
    usual = points.mean(axis=0)  # upright, near the middle
    assert np.abs(usual - [[35, 47], [75, 47], [56, 69], [40, 90], [72, 90]]).max() < 8


@pytest.mark.parametrize(
    "pose",
    [Pose(), Pose(roll=25, scale=0.9, shift=(4, -3)), Pose(turn=(0.6, -0.5)), Pose(-20, 1.1, (-5, 6), (-0.5, 0.6))],
)
def test_the_points_are_where_pupils_and_corners_of_the_mouth_are_drawn(pose):
    def drawn(**changes):
        face = dataclasses.replace(who, **changes)
        return draw_face(face, units, 0.4, 0.1, pose, ground)

    def changed(one, other):
        return np.abs(one - other).max(axis=2)

    who = dataclasses.replace(sample_identity(np.random.default_rng(1)), glasses=None, beard=0.0)
    units, ground = dict.fromkeys(AUS, 0.0) | {12: 0.7}, np.full((224, 224, 3), 120, np.uint8)
    points = face_points(who, units, 0.4, 0.1, pose)
    iris = changed(drawn(iris=(255, 0, 0)), drawn(iris=(0, 0, 255)))  # a ring around each pupil
    y, x = np.nonzero(iris > 20)
    for eye, side in zip(points[:2], (x < points[2, 0], x > points[2, 0]), strict=True):
        assert np.abs(np.average(np.column_stack([x, y])[side], axis=0, weights=iris[y, x][side]) - eye).max() < 1
    y, x = np.nonzero(changed(drawn(lips=(255, 0, 0)), drawn(lips=(0, 0, 255))) > 20)
    places, across = np.column_stack([x, y]), points[1] - points[0]
    along = places @ across
    for corner, at in zip(points[3:], (along.argmin(), along.argmax()), strict=True):
        assert np.abs(places[at] - corner).max() < 2


def test_the_mean_number_of_frames_is_the_one_asked_for(clips: Path):
    assert np.mean([len(n) for n in frames(clips).values()]) == pytest.approx(12, abs=1.5)


def test_expression_files_hold_one_class_number_a_line(clips: Path):
    seen = Counter()
    for _, lines in annotations(clips, EXPR).values():
        assert lines[0] == "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
        assert all(re.fullmatch(r"-1|[0-7]", line) for line in lines[1:])
        seen.update(lines[1:])
    assert set(seen) == {"-1", *"01234567"}


def test_affect_files_hold_two_numbers_a_line_in_range_or_minus_five(clips: Path):
    seen = []
    for _, lines in annotations(clips, VA).values():
        assert lines[0] == "valence,arousal"
        seen += [[float(cell) for cell in line.split(",")] for line in lines[1:]]
    values = np.array(seen)
    assert values.shape[1] == 2
    assert np.all((np.abs(values) <= 1) | (values == -5))
    assert np.any(np.all(values == -5, axis=1))
    assert values[np.all(values > -5, axis=1)].std(axis=0).min() > 0.1


def test_unit_files_hold_twelve_cells_a_line(clips: Path):
    seen = Counter()
    for _, lines in annotations(clips, AU).values():
        assert lines[0] == "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
        cells = [line.split(",") for line in lines[1:]]
        assert all(len(row) == 12 for row in cells)
        seen.update(cell for row in cells for cell in row)
    assert set(seen) == {"-1", "0", "1"}


def test_happy_frames_have_higher_valence_than_angry_and_sad_ones(tmp_path: Path):
    played, rng = [], np.random.default_rng(3)
    for theme in ABAW_CLASSES:
        clip = Clip(0, "a", "a", None, theme, {}, frozenset(), 300)
        played.append(perform(clip, 1, 300, rng))
    expression = np.concatenate([p.expression for p in played])
    valence = np.concatenate([p.affect[:, 0] for p in played])
    mean = {name: valence[expression == k].mean() for k, name in enumerate(ABAW_CLASSES)}
    assert mean["Happiness"] > 0.2 > 0.1 > mean["Neutral"] > -0.1 > -0.2 > max(mean["Anger"], mean["Sadness"])


def test_the_action_units_annotated_are_those_of_the_emotion():
    clip = Clip(0, "a", "a", None, "Happiness", {}, frozenset(), 300)
    played = perform(clip, 1, 300, np.random.default_rng(0))
    happy = played.expression == ABAW_CLASSES.index("Happiness")
    on = played.units[happy][:, [COLUMN[12], COLUMN[15]]] > AU_ON
    assert on[:, 0].mean() > 0.7
    assert on[:, 1].mean() < 0.1


@pytest.mark.parametrize("track", [EXPR, VA, AU])
def test_a_person_stands_on_one_side_of_each_track(clips: Path, track: str):
    sides: dict[str, set[str]] = {}
    for video, (split, _) in annotations(clips, track).items():
        sides.setdefault(base(video), set()).add(split)
    assert all(len(s) == 1 for s in sides.values())
    assert set.union(*sides.values()) == {"Train_Set", "Validation_Set"}


def test_splits_differ_between_tracks_and_some_videos_have_no_label(clips: Path):
    expr, va, au = (annotations(clips, track) for track in (EXPR, VA, AU))
    assert any(va[v][0] == "Validation_Set" for v in va if v in expr and expr[v][0] == "Train_Set")
    assert set(va) - set(expr)
    assert set(frames(clips)) - set(expr) - set(va) - set(au)
    assert set(expr) - set(frames(clips))


def test_every_class_is_in_the_train_and_the_validation_videos_of_a_set_of_usual_size():
    clips = plan(SyntheticConfig())
    for split in ("train", "val"):
        themes = Counter(c.theme for c in clips if c.splits["expr"] == split)
        assert min(themes[c] for c in ABAW_CLASSES if c != "Neutral") >= 4
    share = Counter(c.splits["expr"] for c in clips)
    assert share["train"] / len(clips) == pytest.approx(0.6, abs=0.03)
    assert share["val"] / len(clips) == pytest.approx(0.3, abs=0.03)


def test_pairs_share_a_video_and_an_unsuffixed_folder_stands_beside_a_suffixed_one(clips: Path):
    names = set(frames(clips))
    assert any({b + "_left", b + "_right"} <= names for b in map(base, names))
    assert any(b in names and b + "_left" in names for b in map(base, names))


def test_frames_start_late_have_gaps_and_end_early(clips: Path):
    found = frames(clips)
    assert any(numbers[0] > 1 for numbers in found.values())
    assert any(max(np.diff(numbers)) > 5 for numbers in found.values())
    assert any(np.any(np.diff(numbers) == 2) for numbers in found.values())


def test_annotations_are_longer_by_one_line_or_far_too_long_or_short(clips: Path):
    found = frames(clips)
    surplus = [
        len(lines) - 1 - found[video][-1]
        for track in (EXPR, VA, AU)
        for video, (_, lines) in annotations(clips, track).items()
        if video in found
    ]
    assert {0, 1} <= set(surplus)
    assert max(surplus) > 40
    assert min(surplus) < -2


def test_stray_files_lie_beside_the_folders(clips: Path):
    beside = {p.name for p in (clips / "batch1" / "cropped_aligned").iterdir() if p.is_file()}
    assert {".DS_Store", "notes.txt"} <= beside


def test_a_folder_of_ones_own_is_never_overwritten(tmp_path: Path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "README.txt").write_text("my thesis")
    (out / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match="was not drawn by this project"):
        drawn(out)
    assert {p.name: p.read_text() for p in out.iterdir()} == {
        "README.txt": "my thesis",
        "thesis.txt": "ten years of work",
    }


def test_drawing_again_replaces_what_was_drawn(tmp_path: Path):
    out = drawn(tmp_path / "clips", "--videos", "8")
    (out / "batch1" / "cropped_aligned" / "left over").mkdir()
    before = hashes(out)
    assert hashes(drawn(out, "--videos", "8")) == before
    assert not (out / "batch1" / "cropped_aligned" / "left over").exists()


def test_nothing_is_drawn_where_the_data_set_in_use_is_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = drawn(tmp_path / "clips", root=tmp_path / "licensed")
    assert [p.name for p in out.iterdir()] == ["README.txt"]
    assert "Nothing was drawn" in (out / "README.txt").read_text()
    assert "Nothing was drawn" in capsys.readouterr().out
    assert not (tmp_path / "licensed").exists()


def test_help_says_how_the_package_is_started():
    command = [sys.executable, "-m", "pipeline.datasets.synthetic", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("usage: python -m pipeline.datasets.synthetic [-h] [--out X]")


def test_a_set_too_small_for_its_splits_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="videos must be from 8 to 100,000, and is 3"):
        drawn(tmp_path / "clips", "--videos", "3")


def test_the_multi_task_lists_hold_all_labels_of_the_expressions_split_and_lack_60_percent_of_each_track(
    tmp_path: Path,
):
    out = drawn(tmp_path / "more", "--videos", "40", "--frames", "30", "--size", "16")
    numbers, expr = frames(out), annotations(out, EXPR)
    missing, rows = np.zeros(3), 0
    for split, name in (("Train_Set", "training"), ("Validation_Set", "validation")):
        header, *lines = (out / MTL / f"{name}_set_annotations.txt").read_text().splitlines()
        assert header == "image,valence,arousal,expression,aus"
        seen = set()
        for line in lines:
            image, *fields = line.split(",")
            video, file = image.split("/")
            assert expr[video][0] == split
            assert int(file.removesuffix(".jpg")) in numbers[video]
            assert image not in seen
            seen.add(image)
            assert len(fields) == 15
            affect, expression, units = fields[:2], int(fields[2]), fields[3:]
            lacks = [affect == ["-5", "-5"], expression == -1, units == ["-1"] * 12]
            assert lacks[0] or all(-1 <= float(value) <= 1 for value in affect)
            assert lacks[1] or 0 <= expression < 8
            assert lacks[2] or set(units) <= {"0", "1"}
            assert not all(lacks)
            at = int(file.removesuffix(".jpg"))
            of_track = expr[video][1]
            if not lacks[1] and at < len(of_track) and of_track[at] != "-1":
                assert of_track[at] == fields[2]
            missing += lacks
            rows += 1
    # Of all frames of these videos 60 % lack a label; those that lack all three stand in no list.
    in_all = sum(len(numbers[video]) for video in expr if video in numbers)
    np.testing.assert_allclose((missing + in_all - rows) / in_all, 0.6, atol=0.05)
    assert abs((in_all - rows) / in_all - 0.6**3) < 0.05
