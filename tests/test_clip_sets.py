"""DFEW, MAFW, FERV39k, CAER and BAH, on small trees laid out as they are published, with faults."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, draw

from pipeline.core.params import UserError, build
from pipeline.datasets import bah, caer, clip_folders, dfew, ferv39k, mafw, readers
from pipeline.datasets.config import DatasetConfig

NOTHING = {"count": 0, "first": []}


def file(root: Path, path: str, content: str | bytes = "xyz") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())


def frames(root: Path, folder: str, *names: str) -> None:
    for name in names:
        draw(root / folder / name, seed=len(folder))


def read(name: str, root: Path, **others):
    return readers.read(DatasetConfig(name=name, root=root, **others))


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    values = table[list(columns)].itertuples(index=False, name=None)
    return sorted((tuple(None if pd.isna(v) else v for v in row) for row in values), key=str)


def sets(
    root: Path,
    folds: dict[int, dict[str, dict[str, int]]],
    form: str = "EmoLabel_DataSplit/{0}(single-labeled)/set_{1}",
):
    for fold, parts in folds.items():
        for part, clips in parts.items():
            text = "video_name,label\n" + "".join(f"{clip},{label}\n" for clip, label in clips.items())
            file(root, form.format(part, fold) + ".csv", text)


FOLDS = {1: {"train": {"2": 2, "3": 7}, "test": {"1": 1}}, 2: {"train": {"1": 1, "3": 7}, "test": {"2": 2}},
         3: {"train": {"1": 1, "2": 2}, "test": {"3": 7}}}  # fmt: skip


def dfew_tree(root: Path) -> None:
    sets(root, FOLDS)
    for clip, part in (("00001", 1), ("00002", 1), ("00003", 2), ("16000", 11)):
        frames(root, f"Clip/clip_224x224/clip_224x224_part_{part}/{clip}", f"{clip}_00001.jpg", f"{clip}_00005.jpg")


def test_dfew_has_the_published_folds_and_frames_numbered_as_in_the_video(tmp_path):
    dfew_tree(tmp_path)
    found = read("dfew", tmp_path)
    assert rows(found.clips.table, "clip", "video", "start", "end", "group", "expression", "split", "fold") == [
        ("00001", "00001", None, None, "00001", "Happy", "fold", 1),
        ("00002", "00002", None, None, "00002", "Sad", "fold", 2),
        ("00003", "00003", None, None, "00003", "Fear", "fold", 3),
    ]
    assert found.clips.classes == ["Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear"]
    assert rows(found.frames.table, "video", "frame", "path")[:2] == [
        ("00001", 1, "Clip/clip_224x224/clip_224x224_part_1/00001/00001_00001.jpg"),
        ("00001", 5, "Clip/clip_224x224/clip_224x224_part_1/00001/00001_00005.jpg"),
    ]
    assert rows(found.labels.table, "video", "frame", "group", "expression", "expression_split", "fold")[2:4] == [
        ("00002", 1, "00002", "Sad", "fold", 2),
        ("00002", 5, "00002", "Sad", "fold", 2),
    ]
    assert "16000" in set(found.frames.table["video"])  # not single-labelled: frames without a clip
    assert found.report["split"] == "official, folds 1, 2, 3"
    assert (found.skipped, found.report["warnings"]) == (0, [])


def test_one_published_fold_may_be_taken_alone_or_others_cut(tmp_path):
    dfew_tree(tmp_path)
    one = read("dfew", tmp_path, fold=2)
    assert rows(one.clips.table, "clip", "split") == [("00001", "train"), ("00002", "val"), ("00003", "train")]
    assert "fold" not in one.clips.table
    assert dict(rows(one.labels.table, "video", "expression_split")) == {
        "00001": "train", "00002": "val", "00003": "train",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"has the folds \[1, 2, 3\], and fold 5 is asked for"):
        read("dfew", tmp_path, fold=5)
    cut = read("dfew", tmp_path, folds=2)
    assert cut.clips.folds == [0, 1]
    assert cut.report["split"] == "2 folds by group, seed 0"


@pytest.mark.parametrize(
    "form",
    ["EmoLabel_DataSplit/{0}(single-labeled)/{0}_set_{1}", "EmoLabel_DataSplit/{0}(single_labeled)/set_{1}",
     "label/single_{0}set_{1}"],
)  # fmt: skip
def test_dfews_tables_are_found_by_each_name_that_they_have_and_beside_cut_faces_too(tmp_path, form):
    sets(tmp_path / "tables", FOLDS, form)
    frames(tmp_path / "faces", "cropped_aligned/1", "00001.jpg")
    frames(tmp_path / "faces", "cropped_aligned/2_left", "00001.jpg")
    frames(tmp_path / "faces", "cropped_aligned/2_right", "00001.jpg", "00002.jpg")
    found = read("dfew", tmp_path / "faces", annotations=tmp_path / "tables")
    assert rows(found.clips.table, "clip", "video", "fold") == [
        ("00001", "1", 1), ("00002", "2_right", 2), ("00003", "00003", 3),
    ]  # fmt: skip
    assert found.report["shorter_tracks_left_out"] == {"count": 1, "first": ["cropped_aligned/2_left"]}
    assert found.frames.crop_source == "cropped_aligned"


def test_dfews_faults_are_named_and_what_is_whole_is_read(tmp_path):
    dfew_tree(tmp_path)
    test = "EmoLabel_DataSplit/test(single-labeled)/set_1.csv"
    content = "\ufeffvideo_name,label\r\n1,1\r\n1,1\r\n00002,2\r\n3,9\r\n4,0\r\n,1\r\n77,3.0\r\n78\r\n"
    file(tmp_path, test, content)
    found = read("dfew", tmp_path)
    assert found.report["malformed_lines"] == {
        "count": 5,
        "first": [
            f"{test} line 5: the label '9' is not one of 1 to 7",
            f"{test} line 6: the label '0' is not one of 1 to 7",
            f"{test} line 7: it names no clip",
            f"{test} line 9: it names no clip",
            f"{test} line 3: '00001' is there twice",
        ],
    }
    assert found.skipped == 5
    assert ("00077", "00077", "Neutral", 1) in rows(found.clips.table, "clip", "video", "expression", "fold")
    assert found.report["clips_tested_by_two_folds"] == {"count": 1, "first": ["00002"]}
    assert found.report["clips_on_both_sides_of_a_fold"] == {"count": 1, "first": ["00002"]}
    assert found.report["clips_that_a_fold_leaves_out"] == {"count": 1, "first": ["00077"]}


def test_a_clip_whose_labels_differ_between_the_tables_is_named(tmp_path):
    dfew_tree(tmp_path)
    sets(tmp_path, {2: {"train": {"1": 4, "3": 7}}})
    found = read("dfew", tmp_path)
    assert found.report["clips_with_two_labels"] == {"count": 1, "first": ["00001"]}
    assert ("00001", "Happy") in rows(found.clips.table, "clip", "expression")


def test_a_single_set_is_an_ordinary_split(tmp_path):
    dfew_tree(tmp_path)
    for path in tmp_path.rglob("set_[23].csv"):
        path.unlink()
    found = read("dfew", tmp_path)
    assert rows(found.clips.table, "clip", "split") == [("00001", "val"), ("00002", "train"), ("00003", "train")]
    assert found.report["published_folds"] == "1"


def test_two_crops_of_a_clip_are_asked_about_and_crop_source_answers(tmp_path):
    dfew_tree(tmp_path)
    frames(tmp_path, "Clip/clip_224x224_16f/00001", "00001_00001.jpg", "00001_00002.jpg", "00001_00003.jpg")
    with pytest.raises(UserError, match=r"'00001' lies in two places: .*crop_source"):
        read("dfew", tmp_path)
    found = read("dfew", tmp_path, crop_source="clip_224x224_16f")
    assert rows(found.frames.table, "video", "frame") == [("00001", 1), ("00001", 2), ("00001", 3)]
    assert found.frames.crop_source == "clip_224x224_16f"
    assert (found.report["folders_of_another_crop"]["count"], found.skipped) == (4, 0)
    assert len(read("dfew", tmp_path, crop_source="clip_224x224").frames.table) == 8


def test_videos_that_were_not_cut_are_an_error_that_says_how(tmp_path):
    sets(tmp_path, FOLDS)
    file(tmp_path, "Clip/original/part_1/1.mp4")
    with pytest.raises(
        UserError, match=r"the table has 3 clips, .* 1 videos such as 'Clip/original/part_1/1.mp4': .*faces"
    ):
        read("dfew", tmp_path)


def test_without_tables_the_error_says_what_was_wanted(tmp_path):
    frames(tmp_path, "00001", "00001_00001.jpg")
    with pytest.raises(UserError, match=r"no table such as 'test\(single-labeled\)/set_1.csv' was found under"):
        read("dfew", tmp_path)


# --- MAFW ------------------------------------------------------------------------------------------


def mafw_tree(root: Path, caption: str = "no_caption") -> None:
    lists = {1: ("00002.mp4 anger\r\n00003.mp4 helplessness\r\n", "00001.mp4 neutral\r\n"),
             2: ("00001.mp4 neutral\n", "00002.mp4 anger\n00003.mp4 helplessness")}  # fmt: skip
    for fold, (train, test) in lists.items():
        file(root, f"Train & Test Set/single/{caption}/set_{fold}/train.txt", train)
        file(root, f"Train & Test Set/single/{caption}/set_{fold}/test.txt", test)
    for clip in ("00001", "00002", "00003"):
        frames(root, f"data/frames/{clip}", "1.png", "2.png")


def test_mafw_has_eleven_classes_and_the_published_folds(tmp_path):
    mafw_tree(tmp_path)
    file(tmp_path, "Train & Test Set/compound/no_caption/set_1/test.txt", "00001.mp4 anger_fear\n")
    found = read("mafw", tmp_path)
    assert rows(found.clips.table, "clip", "group", "expression", "split", "fold") == [
        ("00001", "00001", "neutral", "fold", 1),
        ("00002", "00002", "anger", "fold", 2),
        ("00003", "00003", "helplessness", "fold", 2),
    ]
    assert len(found.clips.classes) == 11
    assert (found.skipped, found.report["lists"]) == (0, "single/no_caption")


def test_mafws_captions_in_any_encoding_do_not_hide_the_label(tmp_path):
    mafw_tree(tmp_path, "with_caption")
    train = "00002.mp4\tanger\t一个男人\tA man\n".encode("gb18030") + b"00003.mp4\tfear_surprise\tx\ty\n00004\tjoy\n"
    file(tmp_path, "Train & Test Set/single/with_caption/set_1/train.txt", train + b"clip.mp4 fear\n")
    found = read("mafw", tmp_path)
    assert ("00002", "anger") in rows(found.clips.table, "clip", "expression")
    where = "Train & Test Set/single/with_caption/set_1/train.txt line"
    assert found.report["malformed_lines"]["first"] == [
        f"{where} 2: the label 'fear_surprise' is not one of the 11 emotions",
        f"{where} 3: the label 'joy' is not one of the 11 emotions",
        f"{where} 4: it names no clip",
    ]
    assert found.report["lists"].startswith("single/with_caption, which lack")


# --- FERV39k ---------------------------------------------------------------------------------------


def ferv39k_tree(root: Path) -> None:
    for path in ("Action/Happy/0267", "Action/Sad/0267", "War/Fear/0001"):
        frames(root, f"2_ClipsforFaceCrop/{path}", "01.jpg", "02.jpg")
    file(root, "4_setups/All_scenes/train_All.csv", "Action/Happy/0267 Happy\nAction/Sad/0267 Sad\n")
    file(root, "4_setups/All_scenes/test_All.csv", "War/Fear/0001 Fear\n")
    file(root, "4_setups/22_scenes/train_War.csv", "War/Fear/0001 Fear\n")


def test_ferv39ks_test_part_is_what_is_validated_on(tmp_path):
    ferv39k_tree(tmp_path)
    found = read("ferv39k", tmp_path)
    assert rows(found.clips.table, "clip", "video", "expression", "split") == [
        ("Action/Happy/0267", "Action/Happy/0267", "Happy", "train"),
        ("Action/Sad/0267", "Action/Sad/0267", "Sad", "train"),
        ("War/Fear/0001", "War/Fear/0001", "Fear", "val"),
    ]
    assert rows(found.frames.table, "video", "frame")[:2] == [("Action/Happy/0267", 1), ("Action/Happy/0267", 2)]
    assert found.skipped == 0


def test_ferv39ks_faults_are_named(tmp_path):
    ferv39k_tree(tmp_path)
    train = "4_setups/All_scenes/train_All.csv"
    lines = "path label\nAction/Happy/0267 Sad\nAction/Sad/0267 Joy\nWar/Fear/0001 Fear\nWar/Fear/0002 Fear\n"
    file(tmp_path, train, lines + "Action/Happy/0267 Happy\n")
    found = read("ferv39k", tmp_path)
    assert found.report["malformed_lines"]["first"] == [
        f"{train} line 1: it names no clip",
        f"{train} line 3: the label 'Joy' is not one of Angry, Disgust, Fear, Happy, Neutral, Sad, Surprise",
        f"{train} line 6: 'Action/Happy/0267' is there twice",
    ]
    assert found.report["clips_in_the_folder_of_another_label"] == {"count": 1, "first": ["Action/Happy/0267"]}
    assert found.report["clips_in_train_and_test"] == {"count": 1, "first": ["War/Fear/0001"]}
    assert rows(found.clips.table, "clip", "expression", "split") == [
        ("Action/Happy/0267", "Sad", "train"),
        ("War/Fear/0001", "Fear", "val"),
        ("War/Fear/0002", "Fear", "train"),
    ]


# --- CAER ------------------------------------------------------------------------------------------


def caer_tree(root: Path) -> None:
    for split in caer.SPLITS:
        for number, emotion in enumerate(caer.CLASSES, start=1):
            frames(root, f"cropped_aligned/{split}/{emotion}/{number:04d}", "00001.jpg", "00002.jpg")


def test_caers_folders_say_split_and_emotion_and_videos_without_a_face_are_clips_without_frames(tmp_path):
    caer_tree(tmp_path)
    file(tmp_path, "train/Anger/0009.avi")
    frames(tmp_path, "cropped_aligned/train/Joy/0001", "00001.jpg")
    found = read("caer", tmp_path)
    assert len(found.clips.table) == 22
    assert rows(found.clips.table, "clip", "expression", "split")[:2] == [
        ("test/Anger/0001", "Anger", "test"),
        ("test/Disgust/0002", "Disgust", "test"),
    ]
    assert ("train/Anger/0009", "Anger", "train") in rows(found.clips.table, "clip", "expression", "split")
    assert found.report["folders_of_no_known_emotion"] == {"count": 1, "first": ["train/Joy"]}
    assert found.report["images_outside_clips"] == {"count": 1, "first": ["cropped_aligned/train/Joy/0001/00001.jpg"]}


def test_caers_videos_alone_are_an_error_that_says_how_to_cut_them(tmp_path):
    file(tmp_path, "train/Anger/0001.avi")
    with pytest.raises(UserError, match=r"but 1 videos such as 'train/Anger/0001.avi': .*--names tree"):
        read("caer", tmp_path)


# --- BAH -------------------------------------------------------------------------------------------

ONE = "Videos/82553/Visite_1/82553_Question_1_2024-08-22 12-11-55_Video.mp4"
TWO = "Videos/82553/Visite_2/82553_Question_7_2025-02-27_09-27-57_Video.mp4"
THREE = "Videos/82904/Visite_1/82904_Question_2_2025-02-27_09-27-57_Video-DESKTOP-X.mp4"


def bah_tree(root: Path) -> None:
    for path, count in ((ONE, 6), (TWO, 3), (THREE, 12)):
        frames(root, f"cropped-aligned-faces/{path}", *(f"frame-{n}.jpg" for n in range(count)))
    file(root, "split/train.txt", f"{ONE},0,Well, when I wake up, I get ready.\n{TWO},1,\n")
    file(root, "split/val.txt", f"{THREE},1,It's “hard”, really\r\n".encode())
    file(root, "split/test.txt", "")


def test_a_clip_of_bah_is_a_video_and_its_group_the_person_of_all_visits(tmp_path):
    bah_tree(tmp_path)
    found = read("bah", tmp_path)
    names = [path.rpartition("/")[2].removesuffix(".mp4") for path in (ONE, TWO, THREE)]
    assert rows(found.clips.table, "clip", "video", "group", "expression", "split") == [
        (names[0].replace(" ", "_"), names[0], "82553", "No A-H", "train"),
        (names[1], names[1], "82553", "With A-H", "train"),
        (names[2], names[2], "82904", "With A-H", "val"),
    ]
    assert rows(found.frames.table, "video", "frame")[-12:] == sorted(((names[2], n) for n in range(12)), key=str)
    assert found.clips.classes == ["No A-H", "With A-H"]
    assert found.report["frame_labels"] == "those of the videos"
    assert (found.skipped, found.report["videos_in_two_lists"]) == (0, NOTHING)


def labels_of(found, part: str) -> dict[int, str]:
    return {
        frame: label
        for video, frame, label in rows(found.labels.table, "video", "frame", "expression")
        if part in video
    }


@pytest.mark.parametrize("name", ["video_annotation_transcript.yaml", "annotation.yml"])
def test_the_intervals_of_bah_label_its_frames_and_leave_the_clips_alone(tmp_path, name):
    bah_tree(tmp_path)
    content = {
        ONE.removeprefix("Videos/").replace("Visite_1", "Visite 1"): {"global_ah": 0, "fr_detailed_ah": []},
        TWO: {
            "all_cues": [{"audio": None}],
            "fr_detailed_ah": [[1, 1]],
            "frame_annotation": [[f"{TWO}/frame-{n}.jpg", int(n == 1)] for n in range(3)],
            "time_detailed_ah": [["00:00:00.040", "00:00:00.080"]],
            "transcript": {
                "text": "a long text, " * 20 + "fr_detailed_ah: none",
                "chunks": [{"timestamp": (0.0, 1.5)}],
            },
        },
        THREE: {"fr_detailed_ah": [[0, 2], [10, 11]]},
    }
    file(tmp_path, name, yaml.dump(content))  # with its tuples, as the published file has them
    found = read("bah", tmp_path)
    assert labels_of(found, "82553_Question_1") == dict.fromkeys(range(6), "No A-H")
    assert labels_of(found, "82553_Question_7") == {0: "No A-H", 1: "With A-H", 2: "No A-H"}
    assert [n for n, label in labels_of(found, "82904").items() if label == "With A-H"] == [0, 1, 10, 11, 2]
    assert set(found.clips.table["expression"]) == {"No A-H", "With A-H"}
    assert dict(rows(found.labels.table, "group", "expression_split")) == {"82553": "train", "82904": "val"}
    assert found.report["frame_labels"] == f"the intervals of {name}, both ends included"


def test_the_lists_of_frames_of_bah_go_before_its_intervals(tmp_path):
    bah_tree(tmp_path)
    file(tmp_path, "annotation.yml", yaml.dump({TWO: {"fr_detailed_ah": [[0, 2]]}}))
    file(tmp_path, "split-frames/train.txt", f"{TWO}/frame-0.jpg,0\n{TWO}/frame-2.jpg,1\n{TWO}/frame-9.jpg,1\n")
    found = read("bah", tmp_path)
    assert labels_of(found, "82553_Question_7") == {0: "No A-H", 2: "With A-H"}
    assert found.report["frame_labels"] == "the lists split-frames/train.txt"


def test_a_yaml_file_of_something_else_is_an_error_of_one_line(tmp_path):
    bah_tree(tmp_path)
    for content in ("- a\n- b\n", f"{TWO}:\n  fr_detailed_ah: [[a, b]]\n", "a: [\n"):
        file(tmp_path, "annotation.yml", content)
        with pytest.raises(UserError, match="is not laid out as the published one"):
            read("bah", tmp_path)


def test_bahs_faults_are_named_and_a_person_in_two_lists_is_a_warning(tmp_path):
    bah_tree(tmp_path)
    lines = f"{TWO},1,again\n{THREE},2,x\nVideos/x.mp4,0\n{ONE.replace('Question_1', 'Question_5')}\n{THREE},1,x\n"
    file(tmp_path, "split/val.txt", lines)
    found = read("bah", tmp_path)
    assert found.report["malformed_lines"]["first"] == [
        "split/val.txt line 2: the label '2' is not 0 or 1",
        "split/val.txt line 3: it names no video",
    ]
    assert found.report["videos_in_two_lists"]["count"] == 1
    assert rows(found.clips.table, "expression", "group", "split") == [
        ("No A-H", "82553", "train"), ("With A-H", "82553", "train"), ("With A-H", "82904", "val"),
        (None, "82553", "val"),
    ]  # fmt: skip
    assert found.report["warnings"][0].startswith(
        "1 groups have clips in two splits or folds, such as 82553: train and val:"
    )


@pytest.mark.parametrize("reader", [bah, caer, dfew, ferv39k, mafw])
def test_a_reader_of_clips_calls_no_other_folder_a_clip(reader):
    for path in ("", "x", "notes/final", "train/Happy", "a/b/c", "Action/Joyful/x1", "Videos/person", "123456"):
        assert reader.named(path.split("/") if path else []) is None


def test_people_of_one_clip_are_told_by_the_end_of_their_name():
    assert [clip_folders.without_track(name) for name in ("1_left", "1_p12", "a_right", "1", "left", "_p1")] == [
        "1", "1", "a", "1", "left", "_p1",
    ]  # fmt: skip


# --- the page --------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("heading", "make"),
    [("DFEW", dfew_tree), ("MAFW", mafw_tree), ("FERV39k", ferv39k_tree), ("CAER", caer_tree), ("BAH", bah_tree)],
)
def test_what_the_page_says_to_set_reads_the_data_set(tmp_path, heading, make):
    make(tmp_path)
    (block,) = re.findall(r"```yaml\n(.*?)```", section(heading), flags=re.DOTALL)
    config = build(DatasetConfig, yaml.safe_load(block)["dataset"] | {"root": tmp_path}, "docs")
    found = readers.read(config)
    assert len(found.clips.table) > 2
    assert found.skipped == 0
    for name in found.clips.classes:
        assert name.lower() in section(heading).lower(), name


def test_the_table_of_clips_of_the_page_is_read_as_the_page_says(tmp_path):
    (table,) = re.findall(r"```csv\n(.*?)```", section("A table of clips"), flags=re.DOTALL)
    (block,) = re.findall(r"```yaml\n(.*?)```", section("A table of clips"), flags=re.DOTALL)
    frames(tmp_path, "talks/a", *(f"{n:05d}.jpg" for n in range(1, 201)))
    names = "emotion,subject,split,admiration,amusement"
    file(tmp_path, "clips.csv", table.replace("label,group,split", names).replace("train\n", "train,0.5,1\n"))
    values = yaml.safe_load(block)["dataset"] | {"root": tmp_path, "annotations": tmp_path / "clips.csv"}
    found = readers.read(build(DatasetConfig, values, "docs"))
    columns = ["clip", "start", "end", "expression", "group", "split", "admiration", "amusement"]
    assert rows(found.clips.table, *columns) == [
        ("talks/a:1-106", 1, 106, "happy", "anna", "train", 0.5, 1.0),  # 4.2 s at 25 frames/s are 105 frames
        ("talks/a:106-", 106, None, "sad", "anna", "train", 0.5, 1.0),
    ]
