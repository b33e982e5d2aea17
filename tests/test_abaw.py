import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.params import UserError
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES, write_labels
from pipeline.datasets import abaw
from pipeline.datasets.config import DatasetConfig

EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
VA = "valence,arousal"
AU = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
MTL = "image,valence,arousal,expression,aus"
EXPR_TRAIN = "6th ABAW Annotations/EXPR_Classification_Challenge/Train_Set"
EXPR_VAL = "6th ABAW Annotations/EXPR_Classification_Challenge/Validation_Set"
VA_TRAIN = "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set"
VA_VAL = "6th ABAW Annotations/VA_Estimation_Challenge/Validation_Set"
AU_TRAIN = "6th ABAW Annotations/AU_Detection_Challenge/Train_Set"


def video(root: Path, folder: str, frames, size: int = 3) -> None:
    for frame in frames:
        file(root, f"{folder}/{frame:05d}.jpg", b"x" * size)


def file(root: Path, path: str, content: bytes | str = b"") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content.encode() if isinstance(content, str) else content)


def lines(*texts: object) -> str:
    return "".join(f"{text}\n" for text in texts)


def read(root: Path, **others):
    return abaw.read(DatasetConfig(name="abaw", root=root, **others))


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    """The rows as plain values, None for anything missing."""
    return [
        tuple(None if pd.isna(v) else v for v in row) for row in table[list(columns)].itertuples(index=False, name=None)
    ]


def test_frames_of_both_batches_are_found_with_number_path_and_size(tmp_path):
    video(tmp_path, "batch1/cropped_aligned/10-60-1280x720", range(1, 41))
    video(tmp_path, "batch1/cropped_aligned/video10_1", [1], size=7)
    video(tmp_path, "batch2/cropped_aligned_new_50_vids/461", [3, 4, 5, 7, 8])
    found = read(tmp_path)
    table = found.frames.table
    assert len(table) == 46
    assert rows(table[table["video"] != "10-60-1280x720"], "video", "frame", "path", "size") == [
        ("461", 3, "batch2/cropped_aligned_new_50_vids/461/00003.jpg", 3),
        ("461", 4, "batch2/cropped_aligned_new_50_vids/461/00004.jpg", 3),
        ("461", 5, "batch2/cropped_aligned_new_50_vids/461/00005.jpg", 3),
        ("461", 7, "batch2/cropped_aligned_new_50_vids/461/00007.jpg", 3),
        ("461", 8, "batch2/cropped_aligned_new_50_vids/461/00008.jpg", 3),
        ("video10_1", 1, "batch1/cropped_aligned/video10_1/00001.jpg", 7),
    ]
    assert list(table.loc[table["video"] == "10-60-1280x720", "frame"]) == list(range(1, 41))
    assert found.frames.crop_source == "cropped_aligned"
    assert found.skipped == 0


def test_a_data_set_without_annotations_has_frames_and_an_empty_label_table(tmp_path):
    video(tmp_path, "cropped_aligned/461", [1])
    found = read(tmp_path)
    assert found.labels.table.empty
    assert found.report["videos_without_annotation"] == {"count": 1, "first": ["461"]}
    write_labels(tmp_path / "labels.parquet", found.labels)


@pytest.mark.parametrize(
    ("crop_source", "expected"),
    [
        ("cropped", ["cropped/a", "cropped_new_50_vids/b"]),
        ("cropped_aligned", ["cropped_aligned/a", "cropped_aligned_new_50_vids/b"]),
        ("cropped_aligned_224", ["cropped_aligned_224/a"]),
    ],
)
def test_a_crop_source_takes_its_own_folders_and_no_longer_name(tmp_path, crop_source, expected):
    for folder in ("cropped/a", "cropped_new_50_vids/b", "cropped_aligned/a", "cropped_aligned_new_50_vids/b"):
        video(tmp_path, folder, [1])
    if crop_source == "cropped_aligned_224":
        video(tmp_path, "cropped_aligned_224/a", [1])
    found = read(tmp_path, crop_source=crop_source)
    assert [Path(path).parent.as_posix() for path in found.frames.table["path"]] == expected
    assert found.report["folders_of_other_crops"]["count"] > 0


def test_without_any_folder_called_cropped_all_videos_are_taken(tmp_path):
    video(tmp_path, "faces/461", [1, 2])
    video(tmp_path, "deep/er/462", [1])
    assert rows(read(tmp_path).frames.table, "video", "frame") == [("461", 1), ("461", 2), ("462", 1)]


def test_root_may_be_the_crop_folder_itself(tmp_path):
    video(tmp_path, "cropped_aligned/461", [1])
    assert rows(read(tmp_path / "cropped_aligned").frames.table, "video", "path") == [("461", "461/00001.jpg")]


def test_frames_beside_the_crop_folders_are_passed_over_and_named(tmp_path):
    video(tmp_path, "cropped_aligned/461", [1])
    video(tmp_path, "thumbnails/461", [1])
    found = read(tmp_path)
    assert len(found.frames.table) == 1
    assert found.report["folders_of_other_crops"] == {"count": 1, "first": ["thumbnails/461"]}


def test_a_crop_source_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path):
    video(tmp_path, "batch1/cropped/461", [1])
    with pytest.raises(UserError, match=r"'cropped_aligned' is not among \['cropped'\].*dataset.crop_source"):
        read(tmp_path)


def test_a_video_in_two_places_is_an_error_that_names_both(tmp_path):
    video(tmp_path, "batch1/cropped_aligned/461", [1])
    video(tmp_path, "batch2/cropped_aligned/461", [1])
    with pytest.raises(UserError, match=r"'461'.*batch1/cropped_aligned/461' and 'batch2/cropped_aligned/461'"):
        read(tmp_path)


def test_one_frame_in_two_files_is_an_error_that_names_both(tmp_path):
    video(tmp_path, "461", [1, 2])
    file(tmp_path, "461/00002.png")
    with pytest.raises(UserError, match=r"'461/00002.jpg' and '461/00002.png' are the same frame"):
        read(tmp_path)


@pytest.mark.parametrize("made", [[], ["readme.txt"], ["00001.jpg"], ["461/face.jpg"]])
def test_a_root_without_frames_is_an_error_that_says_where_the_data_comes_from(tmp_path, made):
    for path in made:
        file(tmp_path, path)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    for words in (str(tmp_path), "on request", "ibug.doc.ic.ac.uk", "dataset.root", "params.yaml", "--root"):
        assert words in str(error.value)


def test_a_root_that_is_missing_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        read(tmp_path / "nowhere")


def test_stray_files_are_counted_and_are_no_frames(tmp_path):
    video(tmp_path, "cropped_aligned/461", [1])
    for path in ("cropped_aligned/.DS_Store", "cropped_aligned/461/face.jpg", "cropped_aligned/461/._00001.jpg"):
        file(tmp_path, path)
    for path in ("read me.txt", "cropped_aligned/461/00002.mp4", "__MACOSX/461/00001.jpg", "00009.jpg"):
        file(tmp_path, path)
    found = read(tmp_path)
    assert rows(found.frames.table, "video", "frame") == [("461", 1)]
    assert found.report["stray_files"] == {
        "count": 6,
        "first": [
            "00009.jpg",
            "__MACOSX/",
            "cropped_aligned/.DS_Store",
            "cropped_aligned/461/._00001.jpg",
            "cropped_aligned/461/00002.mp4",
            "read me.txt",
        ],
    }
    assert found.skipped == 0


def test_names_with_spaces_and_beyond_ascii_are_kept(tmp_path):
    video(tmp_path, "Erste Hälfte/cropped_aligned/vidéo 1 é", [1])
    file(tmp_path, f"{EXPR_TRAIN}/vidéo 1 é.txt", lines(EXPR, 4))
    found = read(tmp_path)
    assert rows(found.frames.table, "video", "path") == [
        ("vidéo 1 é", "Erste Hälfte/cropped_aligned/vidéo 1 é/00001.jpg")
    ]
    assert rows(found.labels.table, "video", "expression") == [("vidéo 1 é", "Happiness")]


def test_a_loop_of_links_ends(tmp_path):
    video(tmp_path, "cropped_aligned/461", [1])
    (tmp_path / "cropped_aligned" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cropped_aligned" / "self").symlink_to("self")
    found = read(tmp_path)
    assert rows(found.frames.table, "path") == [("cropped_aligned/461/00001.jpg",)]
    assert found.report["links_to_folders_already_read"]["first"] == ["cropped_aligned/again"]


def test_a_linked_folder_is_read_and_a_second_way_to_a_folder_is_not(tmp_path):
    video(tmp_path / "elsewhere", "461", [1])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cropped_aligned").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "root" / "batch").symlink_to(tmp_path / "root" / "cropped_aligned", target_is_directory=True)
    found = read(tmp_path / "root", crop_source="cropped_aligned")
    assert len(found.frames.table) == 1


def test_a_frame_that_is_a_broken_link_is_skipped_and_named(tmp_path):
    video(tmp_path, "461", [1])
    (tmp_path / "461" / "00002.jpg").symlink_to("nowhere.jpg")
    found = read(tmp_path)
    assert len(found.frames.table) == 1
    assert found.report["unreadable"] == {"count": 1, "first": ["461/00002.jpg: No such file or directory"]}
    assert found.skipped == 1


def test_a_root_whose_frames_cannot_be_read_is_an_error_that_says_why(tmp_path):
    (tmp_path / "461").mkdir()
    (tmp_path / "461" / "00001.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UserError, match=r"1 could not be read, such as '461/00001.jpg: No such file or directory'"):
        read(tmp_path)


def test_line_i_belongs_to_frame_i_whatever_frames_there_are(tmp_path):
    """Starts late at 3, lacks 5, and the annotation is one line longer than the video."""
    video(tmp_path, "cropped_aligned/461", [3, 4, 6, 7])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, 0, 1, 2, 3, 4, 5, -1, 7))
    table = read(tmp_path).labels.table
    assert list(table.columns) == ["video", "frame", "group", "expression", "expression_split"]
    assert rows(table, "frame", "expression", "expression_split") == [
        (1, "Neutral", "train"),
        (2, "Anger", "train"),
        (3, "Disgust", "train"),
        (4, "Fear", "train"),
        (5, "Happiness", "train"),
        (6, "Sadness", "train"),
        (8, "Other", "train"),
    ]


def test_tracks_meet_in_one_row_and_keep_their_own_splits_and_invalid_marks(tmp_path):
    video(tmp_path, "cropped_aligned/461", range(1, 6))
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, 6, -1, -1, -1, 0))
    file(tmp_path, f"{VA_VAL}/461.txt", lines(VA, "0.5,-0.25", "-5,0.1", "0.1,-5", "-5,-5", "-1,1"))
    file(
        tmp_path,
        f"{AU_TRAIN}/461.txt",
        lines(
            AU,
            "0,1,0,0,0,0,0,0,0,0,0,1",
            ",".join(["-1"] * 12),
            "-1,1" + ",-1" * 10,
            ",".join(["-1"] * 12),
            ",".join(["-1"] * 12),
        ),
    )
    found = read(tmp_path)
    table = found.labels.table
    splits = ("expression_split", "va_split", "au_split")
    assert list(table.columns) == [
        "video", "frame", "group", "expression", "valence", "arousal", *ABAW_AUS, *splits,
    ]  # fmt: skip
    assert rows(table, "frame", "expression", "valence", "arousal", "au1", "au2", "au26", *splits) == [
        (1, "Surprise", 0.5, -0.25, 0, 1, 1, "train", "val", "train"),
        (3, None, None, None, None, 1, None, "train", "val", "train"),
        (5, "Neutral", -1.0, 1.0, None, None, None, "train", "val", "train"),
    ]
    assert table["valence"].dtype == table["arousal"].dtype == np.float32
    assert {str(table[au].dtype) for au in ABAW_AUS} == {"Int8"}
    assert found.report["annotated_videos"] == {"au": {"train": 1}, "expression": {"train": 1}, "va": {"val": 1}}


def test_a_video_that_one_track_does_not_know_has_no_split_there(tmp_path):
    video(tmp_path, "a", [1])
    video(tmp_path, "b", [1])
    file(tmp_path, f"{EXPR_TRAIN}/a.txt", lines(EXPR, 3))
    file(tmp_path, f"{VA_TRAIN}/b.txt", lines(VA, "0,0"))
    table = read(tmp_path).labels.table
    assert rows(table, "video", "expression", "valence", "expression_split", "va_split") == [
        ("a", "Fear", None, "train", None),
        ("b", None, 0.0, None, "train"),
    ]


def test_left_and_right_of_a_video_are_one_group_and_a_number_at_the_end_is_no_side(tmp_path):
    names = [
        "7_left",
        "7_right",
        "7",
        "video10_1",
        "10-60-1280x720_right",
        "left_7",
        "my_left_foot",
        "_left",
        "a_Left",
        "c_p2",
    ]
    assert [abaw.group_of(tmp_path, f"cropped_aligned/{name}", name) for name in names] == [
        "7", "7", "7", "video10_1", "10-60-1280x720", "left_7", "my_left_foot", "_left", "a", "c_p2",
    ]  # fmt: skip


def test_twelve_people_called_study_p1_to_study_p12_are_twelve_groups_and_said_to_be(tmp_path):
    """The stage faces ends names in _p1, _p2, ... too, but nothing here was cut by it."""
    for person in range(1, 13):
        video(tmp_path, f"cropped_aligned/study_p{person}", [1, 2])
        file(tmp_path, f"{EXPR_TRAIN}/study_p{person}.txt", lines(EXPR, 0, 4))
    found = read(tmp_path)
    assert found.labels.table["group"].nunique() == 12
    assert found.report["videos_named_like_one_of_several_people"]["count"] == 12


def test_people_whom_the_stage_faces_cut_out_of_one_video_are_one_group(tmp_path):
    for name in ("study_p1", "study_p2", "other_p1", "own_p1"):
        video(tmp_path, f"cropped_aligned/{name}", [1])
        file(tmp_path, f"{EXPR_TRAIN}/{name}.txt", lines(EXPR, 0))
    for record in ("study", "own_p1", "own"):  # own_p1.mp4 was a video itself
        file(tmp_path, f".faces/{record}.parquet")
    assert rows(read(tmp_path).labels.table, "video", "group") == [
        ("other_p1", "other_p1"), ("own_p1", "own_p1"), ("study_p1", "study"), ("study_p2", "study"),
    ]  # fmt: skip
    assert abaw.group_of(tmp_path / "cropped_aligned" / "study", "", "other_p1") == "other_p1"


def test_a_frame_0_beside_annotations_whose_first_line_is_frame_1_is_said_with_the_way_out(tmp_path):
    video(tmp_path, "cropped_aligned/a", [0, 1, 2])
    video(tmp_path, "cropped_aligned/b", [1, 2])
    video(tmp_path, "cropped_aligned/c", [0, 1])
    for name in "ab":
        file(tmp_path, f"{EXPR_TRAIN}/{name}.txt", lines(EXPR, 0, 1, 2))
    report = read(tmp_path).report
    assert report["videos_numbered_from_0"] == {"count": 1, "first": ["a"]}  # c has no annotation
    assert re.search(r"1 of 2 annotated videos have a frame 0, such as 'a'.*--first-frame 0", report["warnings"][0])
    found = read(tmp_path, first_frame=0)
    assert rows(found.labels.table, "video", "frame", "expression")[:3] == [
        ("a", 0, "Neutral"), ("a", 1, "Anger"), ("a", 2, "Disgust"),
    ]  # fmt: skip
    assert found.report["warnings"] == []


def test_images_that_are_called_by_more_than_their_number_are_counted_and_can_be_read(tmp_path):
    video(tmp_path, "cropped_aligned/a", [1])
    for name in ("b/frame_00001.jpg", "b/frame_00002.jpg", "a/x_2.jpg"):
        file(tmp_path, f"cropped_aligned/{name}", b"x")
    found = read(tmp_path)
    assert rows(found.frames.table, "video", "frame") == [("a", 1)]
    assert found.report["folders_whose_images_have_no_number"]["first"] == [
        "cropped_aligned/b: 2 images such as 'frame_00001.jpg'"
    ]
    assert found.report["images_without_number"]["first"] == ["cropped_aligned/a/x_2.jpg"]
    assert "2 images such as 'frame_00001.jpg'" in found.report["warnings"][0]
    assert "1 images in the others" in found.report["warnings"][0]
    assert rows(read(tmp_path, frame_number=-1).frames.table, "video", "frame") == [
        ("a", 1), ("a", 2), ("b", 1), ("b", 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match="frame_number must be 1 for the first"):
        read(tmp_path, frame_number="order")
    for path in tmp_path.rglob("0*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match=r"images such as '\w+.jpg'; if these are frames, say which.*--frame-number"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("Third ABAW Annotations/EXPR_Classification_Challenge/Train_Set", "train"),
        ("8th_ABAW_Annotations/EXPR_Recognition_Challenge/Validation_Set", "val"),
        ("annotations/EXPR_Set/Training_Set", "train"),
        ("ABAW VA AU EXPR/expr classification (2)/validation set", "val"),
        ("x/EXPR_Train_Set", "train"),
        ("Train_Set/EXPR", "train"),
        ("x/EXPRChallenge/TrainSet", "train"),
        ("annotations/Expression_Set/Validation_Set", "val"),
        ("5th ABAW Annotations/Expr_Challenge/validation", "val"),
    ],
)
def test_the_folders_of_every_edition_are_understood(tmp_path, folder, split):
    video(tmp_path, "cropped_aligned/461", [1])
    file(tmp_path, f"{folder}/461.txt", lines(EXPR, 1))
    assert rows(read(tmp_path).labels.table, "expression", "expression_split") == [("Anger", split)]


def test_annotations_may_lie_outside_root(tmp_path):
    video(tmp_path / "frames", "cropped_aligned/461", [1])
    file(tmp_path / "elsewhere", "EXPR_Challenge/Train_Set/461.txt", lines(EXPR, 1))
    found = read(tmp_path / "frames", annotations=tmp_path / "elsewhere")
    assert rows(found.labels.table, "video", "expression") == [("461", "Anger")]
    track_alone = read(tmp_path / "frames", annotations=tmp_path / "elsewhere" / "EXPR_Challenge")
    assert rows(track_alone.labels.table, "video", "expression") == [("461", "Anger")]


def test_of_two_editions_below_root_one_is_chosen_by_name(tmp_path):
    video(tmp_path, "cropped_aligned/461", [1])
    file(tmp_path, "3rd/EXPR_Challenge/Train_Set/461.txt", lines(EXPR, 1))
    file(tmp_path, "6th/EXPR_Challenge/Train_Set/461.txt", lines(EXPR, 2))
    with pytest.raises(UserError, match=r"two annotations for expression: '3rd.*' and '6th.*dataset.annotations"):
        read(tmp_path)
    found = read(tmp_path, annotations=tmp_path / "6th")
    assert rows(found.labels.table, "expression") == [("Disgust",)]
    assert found.report["stray_files"]["first"] == ["3rd/EXPR_Challenge/Train_Set/461.txt"]


def test_annotations_asked_for_and_not_there_are_an_error(tmp_path):
    video(tmp_path, "461", [1])
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        read(tmp_path, annotations=tmp_path / "nowhere")
    with pytest.raises(UserError, match="no annotation file was found under"):
        read(tmp_path, annotations=tmp_path / "461")


def test_a_video_in_train_and_validation_of_one_track_is_an_error(tmp_path):
    video(tmp_path, "461", [1])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, 1))
    file(tmp_path, f"{EXPR_VAL}/461.txt", lines(EXPR, 1))
    with pytest.raises(UserError, match=r"'461' is in train and in val of expression.*Train_Set.*Validation_Set"):
        read(tmp_path)


def test_malformed_lines_are_skipped_and_named_and_the_lines_around_them_keep_their_frames(tmp_path):
    video(tmp_path, "461", range(1, 6))
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, 1, "x", 8, "", "2,3", "1.5", "nan", -2, 3))
    file(tmp_path, f"{VA_TRAIN}/461.txt", lines(VA, "0.1,0.2", "0.3", "1.5,0", "-5,2", "0,-0.5"))
    file(tmp_path, f"{AU_TRAIN}/461.txt", lines(AU, ",".join("1" * 12), ",".join("1" * 11), ",".join("2" * 12)))
    found = read(tmp_path)
    assert rows(found.labels.table, "frame", "expression", "valence", "au1") == [
        (1, "Anger", float(np.float32(0.1)), 1),
        (5, None, 0.0, None),
        (9, "Fear", None, None),
    ]
    assert found.report["malformed_lines"] == {
        "count": 12,
        "first": [
            f"{AU_TRAIN}/461.txt:3: 11 values instead of 12: '1,1,1,1,1,1,1,1,1,1,1'",
            f"{AU_TRAIN}/461.txt:4: not an integer from 0 to 1 or -1: '2,2,2,2,2,2,2,2,2,2,2,2'",
            f"{EXPR_TRAIN}/461.txt:3: not a number: 'x'",
            f"{EXPR_TRAIN}/461.txt:4: not an integer from 0 to 7 or -1: '8'",
            f"{EXPR_TRAIN}/461.txt:5: empty: ''",
            f"{EXPR_TRAIN}/461.txt:6: 2 values instead of 1: '2,3'",
            f"{EXPR_TRAIN}/461.txt:7: not an integer from 0 to 7 or -1: '1.5'",
            f"{EXPR_TRAIN}/461.txt:8: not a number: 'nan'",
            f"{EXPR_TRAIN}/461.txt:9: not an integer from 0 to 7 or -1: '-2'",
            f"{VA_TRAIN}/461.txt:3: 1 values instead of 2: '0.3'",
            f"{VA_TRAIN}/461.txt:4: not in [-1, 1] or -5: '1.5,0'",
            f"{VA_TRAIN}/461.txt:5: not in [-1, 1] or -5: '-5,2'",
        ],
    }
    assert found.skipped == 12


def test_the_first_fifty_malformed_lines_are_named_and_all_are_counted(tmp_path):
    video(tmp_path, "461", [1])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, *["?"] * 60))
    malformed = read(tmp_path).report["malformed_lines"]
    assert malformed["count"] == 60
    assert len(malformed["first"]) == 50


@pytest.mark.parametrize("header", ["0", VA, "Neutral,Anger,Disgust,Boredom", ""])
def test_a_file_with_an_unknown_header_is_skipped_as_a_whole_and_named(tmp_path, header):
    video(tmp_path, "461", [1])
    video(tmp_path, "462", [1])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(header, 1))
    file(tmp_path, f"{EXPR_TRAIN}/462.txt", lines(EXPR, 1))
    found = read(tmp_path)
    assert rows(found.labels.table, "video", "frame") == [("462", 1)]
    assert found.report["annotation_files_skipped"]["count"] == 1
    assert (
        f"{EXPR_TRAIN}/461.txt:1: not a header of expression: " in found.report["annotation_files_skipped"]["first"][0]
    )
    assert found.skipped == 1


def test_a_header_is_read_by_its_names_and_windows_line_ends_and_byte_order_marks_do_no_harm(tmp_path):
    video(tmp_path, "461", [1])
    seven = "neutral, anger, disgust, fear, happiness, sadness, surprise"
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", b"\xef\xbb\xbf" + f"{seven}\r\n6\r\n7\r\n".encode())
    file(tmp_path, f"{VA_TRAIN}/461.txt", lines("arousal,valence", "0.5,-0.5"))
    found = read(tmp_path)
    assert rows(found.labels.table, "frame", "expression", "valence", "arousal") == [(1, "Surprise", -0.5, 0.5)]
    assert found.report["malformed_lines"]["first"] == [
        f"{EXPR_TRAIN}/461.txt:3: not an integer from 0 to 6 or -1: '7'"
    ]


def test_annotations_without_video_and_videos_without_annotation_are_both_named(tmp_path):
    video(tmp_path, "461", [1])
    file(tmp_path, f"{EXPR_TRAIN}/999.txt", lines(EXPR, 1, 1))
    report = read(tmp_path).report
    assert report["videos_without_annotation"] == {"count": 1, "first": ["461"]}
    assert report["annotated_videos_without_frames"] == {"count": 1, "first": ["999"]}


def test_multi_task_lists_are_read_where_there_are_no_files_for_videos(tmp_path):
    video(tmp_path, "cropped_aligned/461", range(1, 6))
    video(tmp_path, "cropped_aligned/462_left", [1])
    units = "0,1,0,0,-1,0,0,0,0,0,0,1"
    none = ",".join(["-1"] * 12)
    file(
        tmp_path,
        "MTL_Challenge/training_set_annotations.txt",
        lines(
            MTL,
            f"461/00004.jpg,-5,-5,-1,{units}",
            f"461/00002.jpg,0.5,-0.5,4,{none}",
            f"461/00003.jpg,-5,-5,-1,{none}",
            f"461/00005.jpg,-5,-5,9,{none}",
            f"461/00002.jpg,0,0,4,{none}",
            f"face.jpg,0,0,4,{none}",
            "461/00001.jpg,0,0",
        ),
    )
    file(tmp_path, "MTL_Challenge/validation_set_annotations.txt", lines(MTL, f"462_left/00001.jpg,0,0,-1,{none}"))
    found = read(tmp_path)
    columns = ["video", "frame", "group", "expression", "valence", "au2", "au7", "expression_split", "va_split"]
    assert rows(found.labels.table, *columns, "au_split") == [
        ("461", 2, "461", "Happiness", 0.5, None, None, "train", "train", "train"),
        ("461", 4, "461", None, None, 1, None, "train", "train", "train"),
        ("462_left", 1, "462", None, 0.0, None, None, "val", "val", "val"),
    ]
    path = "MTL_Challenge/training_set_annotations.txt"
    assert [text.partition(": '")[0] for text in found.report["malformed_lines"]["first"]] == [
        f"{path}:5: not an integer from 0 to 7 or -1",
        f"{path}:6: as in line 3",
        f"{path}:7: not <video>/<frame>.jpg",
        f"{path}:8: 2 values instead of 15",
    ]


def test_multi_task_lists_beside_files_for_videos_are_not_needed_and_named(tmp_path):
    video(tmp_path, "461", [1])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, 1))
    file(tmp_path, "training_set_annotations.txt", lines(MTL, "461/00001.jpg,0,0,4," + ",".join("0" * 12)))
    found = read(tmp_path)
    assert rows(found.labels.table, "expression") == [("Anger",)]
    assert found.report["annotation_lists_not_needed"]["first"] == ["training_set_annotations.txt"]


def test_multi_task_lists_beside_files_for_videos_are_a_label_table_of_their_own_where_one_is_wanted(tmp_path):
    video(tmp_path, "461", [1, 2])
    video(tmp_path, "462", [1])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, 1))
    units = ",".join("0" * 12)
    train = lines(MTL, f"461/00002.jpg,-5,-5,4,{units}", "461/00001.jpg,x,0,4")
    file(tmp_path, "MTL_Challenge/training_set_annotations.txt", train)
    file(tmp_path, "MTL_Challenge/validation_set_annotations.txt", lines(MTL, f"462/00001.jpg,0.5,0,-1,{units}"))
    alone, both = read(tmp_path), read(tmp_path, labels_mtl=tmp_path / "mtl.parquet")
    assert alone.multi_task is None
    pd.testing.assert_frame_equal(both.labels.table, alone.labels.table)
    columns = ["video", "frame", "group", "expression", "valence", "au26", "expression_split", "au_split"]
    assert rows(both.multi_task.table, *columns) == [
        ("461", 2, "461", "Happiness", None, 0, "train", "train"),
        ("462", 1, "462", None, 0.5, 0, "val", "val"),
    ]
    assert both.report["multi_task_lists_beside_them"]["count"] == 2
    assert both.report["annotation_lists_not_needed"]["count"] == 0
    assert (alone.skipped, both.skipped) == (0, 1)  # the line that is not right is counted
    assert read(tmp_path, labels_mtl=tmp_path / "mtl.parquet", folds=2).multi_task is None


def test_a_video_in_both_multi_task_lists_is_an_error(tmp_path):
    video(tmp_path, "461", [1])
    for name in ("training", "validation"):
        file(tmp_path, f"{name}_set_annotations.txt", lines(MTL, "461/00001.jpg,0,0,4," + ",".join("0" * 12)))
    with pytest.raises(UserError, match="'461' is in train and in val"):
        read(tmp_path)


def test_the_quick_way_and_the_careful_way_read_the_same_numbers():
    rng = np.random.default_rng(0)
    numbers = rng.uniform(-1, 1, (50, 2)).round(4)
    texts = [f" {v} , {a}".encode() for v, a in numbers]
    quick, none = abaw.parse_numbers(texts, 2)
    careful, one = abaw.parse_numbers([*texts, b"x,0"], 2)
    np.testing.assert_array_equal(quick, numbers)
    np.testing.assert_array_equal(careful[:-1], numbers)
    assert (none, one) == ({}, {50: "not a number"})


def test_the_order_of_a_listing_changes_nothing(tmp_path, monkeypatch):
    for name in ("7_left", "7_right", "461"):
        video(tmp_path, f"cropped_aligned/{name}", range(1, 6))
        file(tmp_path, f"{EXPR_TRAIN}/{name}.txt", lines(EXPR, 0, "?", 2, 3, 4))
    first, listing = read(tmp_path), os.scandir

    class Backwards(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(
        os, "scandir", lambda path: Backwards(sorted(listing(path), key=lambda e: e.name, reverse=True))
    )
    second = read(tmp_path)
    pd.testing.assert_frame_equal(first.frames.table, second.frames.table)
    pd.testing.assert_frame_equal(first.labels.table, second.labels.table)
    assert first.report == second.report


def test_classes_are_those_of_abaw_in_its_order(tmp_path):
    video(tmp_path, "461", [1])
    file(tmp_path, f"{EXPR_TRAIN}/461.txt", lines(EXPR, *range(8)))
    found = read(tmp_path)
    assert list(found.labels.table["expression"]) == found.labels.classes == ABAW_CLASSES == EXPR.split(",")
