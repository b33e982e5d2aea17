from pathlib import Path

import pytest

from pipeline.core.params import UserError
from pipeline.datasets import ravdess, readers
from pipeline.datasets.config import DatasetConfig


def clip(root: Path, folder: str, frames: int = 2) -> None:
    for frame in range(1, frames + 1):
        file(root, f"{folder}/{frame:05d}.jpg")


def file(root: Path, path: str, content: bytes = b"xyz") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def read(root: Path, **others):
    return ravdess.read(DatasetConfig(name="ravdess", root=root, **others))


def test_all_frames_of_a_clip_have_its_label_and_its_actor_nested_or_flat(tmp_path):
    clip(tmp_path, "Actor_12/02-01-06-01-02-01-12")
    clip(tmp_path, "cropped_aligned/01-02-01-01-01-02-24", frames=1)
    found = read(tmp_path)
    assert list(found.labels.table.itertuples(index=False, name=None)) == [
        ("01-02-01-01-01-02-24", 1, "Actor_24", "neutral"),
        ("02-01-06-01-02-01-12", 1, "Actor_12", "fearful"),
        ("02-01-06-01-02-01-12", 2, "Actor_12", "fearful"),
    ]
    assert list(found.frames.table["path"])[1] == "Actor_12/02-01-06-01-02-01-12/00001.jpg"
    assert (found.frames.crop_source, found.skipped) == ("cropped_aligned", 0)


@pytest.mark.parametrize(
    ("code", "emotion"),
    [
        ("01", "neutral"),
        ("02", "calm"),
        ("03", "happy"),
        ("04", "sad"),
        ("05", "angry"),
        ("06", "fearful"),
        ("07", "disgust"),
        ("08", "surprised"),
    ],
)
def test_the_third_number_is_the_emotion(tmp_path, code, emotion):
    clip(tmp_path, f"01-01-{code}-01-02-01-03")
    assert set(read(tmp_path).labels.table["expression"]) == {emotion}


def test_a_clip_has_one_row_of_the_clip_table_which_is_all_of_its_video(tmp_path):
    clip(tmp_path, "Actor_12/02-01-06-01-02-01-12")
    clip(tmp_path, "cropped_aligned/01-02-01-01-01-02-24_left", frames=3)
    clip(tmp_path, "cropped_aligned/01-02-01-01-01-02-24_right", frames=1)
    found = readers.read(DatasetConfig(name="ravdess", root=tmp_path))
    columns = ["clip", "video", "group", "expression"]
    assert found.clips.table[columns].to_numpy().tolist() == [
        ["01-02-01-01-01-02-24_left", "01-02-01-01-01-02-24_left", "Actor_24", "neutral"],
        ["02-01-06-01-02-01-12", "02-01-06-01-02-01-12", "Actor_12", "fearful"],
    ]
    assert found.clips.table[["start", "end"]].isna().all(axis=None)
    assert found.clips.classes == ravdess.CLASSES
    split = dict(zip(found.clips.table["group"], found.clips.table["split"], strict=True))
    of_frames = found.labels.table[["group", "expression_split"]].drop_duplicates()
    assert split == dict(of_frames.to_numpy().tolist())  # a clip and its frames are on one side


def test_of_a_take_in_both_modalities_one_is_read_and_the_other_named(tmp_path):
    clip(tmp_path, "Actor_01/01-01-03-01-01-01-01")
    clip(tmp_path, "Actor_01/02-01-03-01-01-01-01", frames=5)
    clip(tmp_path, "Actor_01/02-01-03-01-01-02-01")
    found = read(tmp_path)
    assert set(found.frames.table["video"]) == {"01-01-03-01-01-01-01", "02-01-03-01-01-02-01"}
    left_out = found.report["takes_left_out_as_the_same_in_another_modality"]
    assert left_out == {"count": 1, "first": ["Actor_01/02-01-03-01-01-01-01"]}
    assert found.skipped == 0


def test_of_several_tracks_the_longest_is_read(tmp_path):
    clip(tmp_path, "02-01-03-01-01-01-01_left", frames=2)
    clip(tmp_path, "02-01-03-01-01-01-01_right", frames=9)
    found = read(tmp_path)
    assert set(found.frames.table["video"]) == {"02-01-03-01-01-01-01_right"}
    assert found.report["shorter_tracks_left_out"]["first"] == ["02-01-03-01-01-01-01_left"]


@pytest.mark.parametrize(
    "name", ["03-01-03-01-01-01-01", "02-01-09-01-01-01-01", "02-01-00-01-01-01-01", "02-03-03-01-01-01-01", "01-01-03"]
)
def test_images_in_folders_of_no_possible_clip_are_counted_and_left_out(tmp_path, name):
    clip(tmp_path, "02-01-03-01-01-01-01")
    clip(tmp_path, name, frames=3)
    found = read(tmp_path)
    assert set(found.frames.table["video"]) == {"02-01-03-01-01-01-01"}
    assert found.report["images_outside_clips"]["count"] == found.skipped == 3


def test_videos_that_were_not_cut_are_named_and_those_of_clips_and_sound_are_not(tmp_path):
    clip(tmp_path, "frames/02-01-03-01-01-01-01")
    for name in ("01-01-03-01-01-01-01", "02-01-03-01-01-01-01", "03-01-04-01-01-01-01", "02-01-04-01-01-01-01"):
        file(tmp_path, f"raw/{name}.mp4")
    file(tmp_path, "raw/readme.txt")
    report = read(tmp_path).report
    assert report["videos_not_cut_into_frames"] == {"count": 1, "first": ["raw/02-01-04-01-01-01-01.mp4"]}
    assert report["stray_files"] == {"count": 1, "first": ["raw/readme.txt"]}


def test_raw_videos_alone_are_an_error_that_says_how_to_cut_them(tmp_path):
    file(tmp_path, "Actor_01/02-01-03-01-01-01-01.mp4")
    with pytest.raises(UserError, match=r"1 such as 'Actor_01/.*python -m pipeline.faces"):
        read(tmp_path)


def test_a_clip_in_two_places_is_an_error_that_names_both(tmp_path):
    clip(tmp_path, "Actor_01/02-01-03-01-01-01-01")
    clip(tmp_path, "copy/Actor_01/02-01-03-01-01-01-01")
    with pytest.raises(UserError, match=r"'Actor_01/02.*' and 'copy/Actor_01/02.*'; keep one"):
        read(tmp_path)


def test_actors_are_held_out_whole(tmp_path):
    for actor in range(1, 11):
        for emotion in range(1, 9):
            clip(tmp_path, f"Actor_{actor:02d}/02-01-{emotion:02d}-01-01-01-{actor:02d}", frames=1)
    table = readers.read(DatasetConfig(name="ravdess", root=tmp_path)).labels.table
    assert table.groupby("group")["expression_split"].nunique().max() == 1
    assert table.drop_duplicates("group")["expression_split"].value_counts().to_dict() == {"train": 8, "val": 2}
