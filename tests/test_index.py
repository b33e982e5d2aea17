import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.clips import read_clips
from pipeline.core.params import UserError
from pipeline.core.tables import ABAW_CLASSES, Frames, Labels, read_frames, read_labels
from pipeline.datasets import index
from pipeline.datasets.config import SYNTHETIC_MARKER

EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
OUTPUTS = ("frames.parquet", "labels.parquet", "clips.parquet", "index.json")


def file(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def expressions(root: Path, split: str, video: str, *lines: object) -> None:
    file(root / "EXPR_Challenge" / split / f"{video}.txt", "\n".join(map(str, [EXPR, *lines])) + "\n")


@pytest.fixture
def tree(tmp_path) -> Path:
    """5 frames with a late start and a gap, 1 frame, 40 frames without annotation; annotated without frames: 999."""
    root = tmp_path / "raw"
    for video, frames in {"7_left": [3, 4, 5, 7, 8], "7_right": [1], "10-60-1280x720": range(1, 41)}.items():
        for frame in frames:
            file(root / "cropped_aligned" / video / f"{frame:05d}.jpg", "xx")
    expressions(root, "Train_Set", "7_left", 0, 0, 4, 4, -1, 4, 0, 7, 7)
    expressions(root, "Validation_Set", "7_right", 1)
    expressions(root, "Train_Set", "999", 1, 1)
    file(root / "VA_Challenge" / "Train_Set" / "7_left.txt", "valence,arousal\n0,0\n0,0\n0.5,0.5\n")
    return root


def run(root: Path, out: Path, *flags: str, name: str = "abaw") -> int:
    out.mkdir(parents=True, exist_ok=True)
    file(out / "params.yaml", "dataset:\n")
    outputs = zip(("--frames", "--labels", "--clips", "--report"), OUTPUTS, strict=True)
    places = [word for flag, output in outputs for word in (flag, str(out / output))]
    return index.main(["--params", str(out / "params.yaml"), "--name", name, "--root", str(root), *places, *flags])


def test_the_report_counts_what_is_there_and_what_is_not(tree, tmp_path):
    assert run(tree, tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "index.json").read_text())
    zeros = dict.fromkeys(ABAW_CLASSES, 0)
    nothing = {"count": 0, "first": []}
    assert report == {
        "dataset": "abaw",
        "crop_source": "cropped_aligned",
        "videos": 3,
        "frames": 46,
        "bytes": 92,
        "empty_files": nothing,
        "label_rows": 11,
        "videos_per_split": {"expression": {"train": 2, "val": 1}, "va": {"train": 1}},
        "labelled_frames": {"expression": {"train": 4, "val": 1}, "va": {"train": 1}},
        "frames_per_class": {
            "train": zeros | {"Neutral": 1, "Happiness": 2, "Other": 1},
            "val": zeros | {"Anger": 1},
        },
        "labels_without_frame": {"any": 6, "expression": 6, "va": 2},
        "split": "official",
        "frames_without_label": {"any": 41, "expression": 41, "va": 45},
        "videos_with_gaps": {"count": 1, "first": ["7_left: 1 frames"], "missing_frames": 1},
        "videos_starting_late": {"count": 1, "first": ["7_left: at 3"]},
        "groups_in_two_splits": {"expression": {"count": 1, "first": ["7: train and val"]}, "va": nothing},
        "warnings": [
            "va has NO VALIDATION PART: its own split is train: set dataset.folds: 5, which leaves test as it is"
        ],
        "frame_numbers": {"the name, a number": {"count": 3, "first": ["10-60-1280x720", "7_left", "7_right"]}},
        "videos_numbered_from_0": nothing,
        "folders_whose_images_have_no_number": nothing,
        "images_without_number": nothing,
        "videos_named_like_one_of_several_people": nothing,
        "annotated_videos": {"expression": {"train": 2, "val": 1}, "va": {"train": 1}},
        "videos_without_annotation": {"count": 1, "first": ["10-60-1280x720"]},
        "annotated_videos_without_frames": {"count": 1, "first": ["999"]},
        "malformed_lines": nothing,
        "annotation_files_skipped": nothing,
        "multi_task_lists_beside_them": nothing,
        "annotation_lists_not_needed": nothing,
        "unreadable": nothing,
        "folders_of_other_crops": nothing,
        "links_to_folders_already_read": nothing,
        "stray_files": nothing,
        "files_of_equal_size": {"compared": 0, "in_all": 0},
        "identical_images_in_two_splits": nothing,
        "identical_images_in_two_groups": nothing,
        "skipped": 0,
    }


def test_a_second_label_table_is_that_of_the_multi_task_lists_or_the_same_again(tree, tmp_path, capsys):
    run(tree, tmp_path / "out", "--labels-mtl", str(tmp_path / "out" / "mtl.parquet"))
    first = (tmp_path / "out" / "labels.parquet").read_bytes()
    assert (tmp_path / "out" / "mtl.parquet").read_bytes() == first
    assert "mtl.parquet: the same labels again" in capsys.readouterr().out
    text = "image,valence,arousal,expression,aus\n7_left/00003.jpg,0.5,0.25,-1," + ",".join("0" * 12) + "\n"
    (tree / "training_set_annotations.txt").write_text(text)
    run(tree, tmp_path / "out", "--labels-mtl", str(tmp_path / "out" / "mtl.parquet"))
    assert (tmp_path / "out" / "labels.parquet").read_bytes() == first
    table = read_labels(tmp_path / "out" / "mtl.parquet").table
    assert table[["video", "frame", "valence", "au1", "va_split"]].values.tolist() == [["7_left", 3, 0.5, 0, "train"]]
    said = "mtl.parquet: the multi-task lists, 1 label rows: expression 0, va 1, au 1"
    assert said in capsys.readouterr().out


def test_both_tables_are_written_and_meet_in_their_key(tree, tmp_path):
    run(tree, tmp_path / "out")
    frames = read_frames(tmp_path / "out" / "frames.parquet")
    labels = read_labels(tmp_path / "out" / "labels.parquet")
    assert (frames.dataset, frames.root, frames.crop_source) == ("abaw", tree, "cropped_aligned")
    assert labels.classes == ABAW_CLASSES
    both = frames.table.merge(labels.table, on=["video", "frame"])
    assert list(both[["video", "frame", "expression"]].itertuples(index=False, name=None)) == [
        ("7_left", 3, "Happiness"),
        ("7_left", 4, "Happiness"),
        ("7_left", 7, "Neutral"),
        ("7_left", 8, "Other"),
        ("7_right", 1, "Anger"),
    ]


def test_two_runs_over_the_same_files_write_the_same_bytes(tree, tmp_path):
    expressions(tree, "Train_Set", "10-60-1280x720", "?", 1)
    digests = []
    for out in (tmp_path / "one", tmp_path / "two"):
        run(tree, out)
        digests.append([hashlib.sha256((out / name).read_bytes()).hexdigest() for name in OUTPUTS])
    assert digests[0] == digests[1]


def test_the_summary_names_counts_and_warns_of_a_group_in_two_splits(tree, tmp_path, capsys):
    run(tree, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "abaw, cropped_aligned: 3 videos, 46 frames" in printed
    assert "expression, labelled frames: train: 4 in 2 videos; val: 1 in 1 videos" in printed
    assert "WARNING: groups in two splits of expression: 1 (7: train and val)" in printed
    assert "annotated videos without frames: 1 (999)" in printed
    assert "malformed" not in printed


def test_strict_is_status_1_where_something_was_skipped_and_everything_is_written(tree, tmp_path, capsys):
    assert run(tree, tmp_path / "clean", "--strict") == 0
    expressions(tree, "Train_Set", "10-60-1280x720", "?", 1)
    assert run(tree, tmp_path / "lax") == 0
    assert run(tree, tmp_path / "strict", "--strict") == 1
    assert all((tmp_path / "strict" / name).is_file() for name in OUTPUTS)
    assert "10-60-1280x720.txt:2: not a number: '?'" in capsys.readouterr().out


def test_without_labels_the_run_goes_on_and_says_so(tmp_path, capsys):
    file(tmp_path / "raw" / "461" / "00001.jpg", "x")
    assert run(tmp_path / "raw", tmp_path / "out") == 0
    assert "NO LABELS were found" in capsys.readouterr().out
    assert read_labels(tmp_path / "out" / "labels.parquet").table.empty


def test_a_folder_data_set_is_indexed_by_the_same_command(tmp_path, capsys):
    for path in ("train/hat/a.jpg", "train/shirt/b.jpg", "validation/hat/c.jpg"):
        file(tmp_path / "raw" / path, "x")
    assert run(tmp_path / "raw", tmp_path / "out", name="folder") == 0
    assert "expression, labelled frames: train: 2 in 2 videos; val: 1 in 1 videos" in capsys.readouterr().out
    assert read_labels(tmp_path / "out" / "labels.parquet").classes == ["hat", "shirt"]


def test_a_wrong_reader_is_an_error_that_lists_them(tmp_path):
    with pytest.raises(UserError, match=r"data set 'abav' is not one of \['abaw', 'afew_va'.*did you mean 'abaw'"):
        run(tmp_path, tmp_path / "out", name="abav")


def test_labels_without_a_split_are_counted_as_none():
    frames = pd.DataFrame({"video": ["a", "a"], "frame": [0, 1], "path": ["a/0.png", "a/1.png"], "size": [1, 1]})
    labels = pd.DataFrame({"video": ["a"], "frame": [1], "group": ["a"], "valence": [0.5], "arousal": [0.1]})
    report = index.describe(Frames(frames, Path("r"), "x", "whole"), Labels(labels, [], "x"))
    assert report["labelled_frames"] == {"va": {"none": 1}}
    assert report["frames_without_label"] == {"any": 1, "va": 1}
    assert report["frames_per_class"] == {}


def test_the_script_says_what_is_wrong_in_one_error_and_status_2(tmp_path):
    file(tmp_path / "params.yaml", "dataset:\n  root: nowhere\n")
    command = [sys.executable, "-m", "pipeline.datasets.index", "--params", str(tmp_path / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no folder nowhere: name its folder")
    assert "Traceback" not in done.stderr


def test_drawn_faces_are_called_synthetic_wherever_their_numbers_stand(tree, tmp_path):
    file(tree / "README.txt", f"{SYNTHETIC_MARKER}\nseed 0\n")
    run(tree, tmp_path / "out")
    assert read_frames(tmp_path / "out" / "frames.parquet").dataset == "synthetic abaw"
    assert read_labels(tmp_path / "out" / "labels.parquet").dataset == "synthetic abaw"
    assert json.loads((tmp_path / "out" / "index.json").read_text())["dataset"] == "synthetic abaw"
    file(tree / "README.txt", "Aff-Wild2, as we got it")
    run(tree, tmp_path / "out")
    assert read_frames(tmp_path / "out" / "frames.parquet").dataset == "abaw"


def test_a_data_set_without_clips_has_a_clip_table_of_no_rows_in_the_place_of_an_older_one(tree, tmp_path):
    out = tmp_path / "out"
    file(out / "clips.parquet", "of another data set")
    assert run(tree, out) == 0
    clips = read_clips(out / "clips.parquet")
    assert (len(clips.table), clips.dataset, clips.folds) == (0, "abaw", [])
    assert "clips" not in json.loads((out / "index.json").read_text())


def test_clips_are_written_and_what_is_odd_about_them_is_said(tmp_path, capsys):
    for video in ("a", "b", "c", "d"):
        for frame in range(1, 7):
            file(tmp_path / "set" / video / f"{frame:05d}.jpg", video)
    rows = "a,1,4,x,p,1\na,3,6,y,p,1\nb,2,3,x,p,2\nc,,,y,q,2\nnone.mp4,,,x,r,1\n"
    file(tmp_path / "set" / "t.csv", "video,start,end,label,group,fold\n" + rows)
    flags = ["--annotations", str(tmp_path / "set" / "t.csv")]
    assert run(tmp_path / "set", tmp_path / "out", *flags, name="clips") == 0
    clips = read_clips(tmp_path / "out" / "clips.parquet")
    assert clips.table["clip"].tolist() == ["a:1-4", "a:3-6", "b:2-3", "c", "none.mp4"]
    assert clips.folds == [1, 2]
    labels = read_labels(tmp_path / "out" / "labels.parquet").table
    assert [f"{v}{n}" for v, n in zip(labels["video"], labels["frame"], strict=True)] == [
        "a1", "a2", "a4", "a5", "b2", "c1", "c2", "c3", "c4", "c5", "c6",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    for line in (
        "clips: 5 (fold 1: 3; fold 2: 2); 1 to 6 frames, half of them at most 3",
        "WARNING: 1 groups have clips in two splits or folds, such as p: fold 1 and fold 2",
        "split: official, folds 1, 2",
        "clips that overlap: 1 (a:1-4 and a:3-6)",
        "frames of clips that differ: 1 (a/3)",
        "clips of one frame: 1 (b:2-3)",
        "clips without frames: 1 (none.mp4)",
        "videos without clip: 1 (d)",
        "groups of clips in two splits: 1 (p: fold 1 and fold 2)",
        "  x           2           1",
    ):
        assert line in printed, line


def test_a_long_list_of_classes_is_not_printed_one_by_one(tmp_path, capsys):
    for number in range(120):
        file(tmp_path / "set" / f"v{number}" / "00001.jpg", "x")
    rows = "".join(f"v{n},class {n // 2},{n}\n" for n in range(120))
    file(tmp_path / "set" / "t.csv", "video,label,group\n" + rows)
    assert run(tmp_path / "set", tmp_path / "out", "--annotations", str(tmp_path / "set" / "t.csv"), name="clips") == 0
    printed = capsys.readouterr().out
    assert "60 classes, of 2 to 2 clips" in printed
    assert "class 7" not in printed
    assert len(read_clips(tmp_path / "out" / "clips.parquet").classes) == 60
