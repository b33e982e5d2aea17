"""What a clip table means for frames, how clips are split, and what is said of them."""

from dataclasses import replace

import pandas as pd
import pytest

from pipeline.core.clips import Clips
from pipeline.core.params import UserError
from pipeline.core.tables import Labels, is_training, of_fold, write_labels
from pipeline.datasets.clip_labels import describe_clips, frame_labels, with_clip_split
from pipeline.datasets.config import DatasetConfig


def none(clips: Clips) -> Labels:
    return Labels(pd.DataFrame(columns=["video", "frame", "group"]), clips.classes, clips.dataset)


def table_of(*rows: tuple, **columns) -> Clips:
    """Clips (clip, video, start, end, expression), each of a group of its own unless ``columns`` say otherwise."""
    table = pd.DataFrame(rows, columns=["clip", "video", "start", "end", "expression"])
    table = table.astype({"start": "Int64", "end": "Int64"}).assign(**{"group": table["clip"], **columns})
    return Clips(table, ["happy", "sad"], "by hand")


def frames_of(**videos: range) -> pd.DataFrame:
    rows = [(video, frame) for video, of in videos.items() for frame in of]
    return pd.DataFrame(rows[::-1], columns=["video", "frame"])  # in no order


def test_a_frame_has_the_label_of_its_clip_and_none_where_clips_differ(hand_made_clips, keys_of_clips):
    frames = keys_of_clips[["video", "frame"]].astype({"video": "str"})[::-1]
    labels = frame_labels(hand_made_clips, frames, none(hand_made_clips))
    found = labels.table.set_index(["video", "frame"]).sort_index()
    assert found.loc["a", "expression"].to_dict() == (
        dict.fromkeys(range(1, 11), "happy") | dict.fromkeys(range(16, 31), "sad") | {40: "happy"}
    )  # 11 to 15 are in two clips that differ, 31 to 39 in none
    assert found.loc["b", "expression"].to_dict() == dict.fromkeys(range(1, 6), "sad")
    assert found.loc["d", "expression"].to_dict() == {4: "sad"}  # the clip of frame 9 has no label
    assert found.loc[("a", 1), ["group", "valence", "au1", "expression_split", "va_split", "au_split"]].tolist() == [
        "anna", 0.5, 1, "fold", "fold", "fold",
    ]  # fmt: skip
    assert found.loc["a", "fold"].to_dict() == dict.fromkeys([*range(1, 11), *range(16, 31)], 1) | {40: 2}
    assert "joy" not in found
    assert of_fold(labels, 2).table["expression_split"].value_counts().to_dict() == {"train": 25, "val": 7}


def test_clips_that_overlap_and_agree_label_their_frames(tmp_path):
    clips = table_of(("1", "a", 1, 6, "happy"), ("2", "a", 4, None, "happy"), split="train")
    clips.table["group"] = "anna"
    labels = frame_labels(clips, frames_of(a=range(1, 9)), none(clips))
    assert labels.table["frame"].tolist() == list(range(1, 9))
    for other in ({"group": ["anna", "ben"]}, {"split": ["train", "val"]}, {"expression": ["happy", "sad"]}):
        differ = replace(clips, table=clips.table.assign(**other))
        labels = frame_labels(differ, frames_of(a=range(1, 9)), none(clips))
        assert labels.table["frame"].tolist() == [1, 2, 3, 6, 7, 8], other
        write_labels(tmp_path / "labels.parquet", labels)


def test_three_clips_of_a_frame_do_not_agree_again_by_the_third():
    clips = table_of(("1", "a", 1, 9, "happy"), ("2", "a", 1, 9, "sad"), ("3", "a", 1, 9, "sad"), group="anna")
    assert frame_labels(clips, frames_of(a=range(1, 9)), none(clips)).table.empty


def test_labels_that_the_data_set_has_for_frames_stand_in_the_place_of_the_clips():
    clips = table_of(("1", "a", None, None, "happy"), ("2", "b", None, None, "happy"), split=["train", "val"])
    own = pd.DataFrame({"video": ["a", "a", "x"], "frame": [2, 3, 1], "expression": ["sad", "happy", "sad"]})
    labels = frame_labels(clips, frames_of(a=range(1, 5), b=range(1, 3)), Labels(own, clips.classes, clips.dataset))
    columns = ["video", "frame", "group", "expression", "expression_split"]
    assert labels.table[columns].to_numpy().tolist() == [["a", 2, "1", "sad", "train"], ["a", 3, "1", "happy", "train"]]


def test_clips_with_further_outputs_alone_say_which_frames_are_training_data(tmp_path):
    clips = table_of(("1", "a", None, None, None), ("2", "b", None, None, None), split=["train", "val"], joy=[0.5, 1.0])
    clips = replace(clips, table=clips.table.drop(columns="expression"), classes=[])
    labels = frame_labels(clips, frames_of(a=range(1, 4), b=range(1, 3)), none(clips))
    assert labels.table["clip_split"].tolist() == ["train"] * 3 + ["val"] * 2
    assert is_training(labels).tolist() == [True] * 3 + [False] * 2
    write_labels(tmp_path / "labels.parquet", labels)


def test_what_is_odd_about_clips_is_counted_and_named(hand_made_clips, keys_of_clips):
    frames = keys_of_clips[["video", "frame"]].astype({"video": "str"})
    frames = pd.concat([frames, pd.DataFrame({"video": ["e"], "frame": [7]})], ignore_index=True)
    found = describe_clips(hand_made_clips, frames)
    assert found == {
        "clips": 7,
        "clips_per_split": {"test": 1, "fold 1": 3, "fold 2": 3},
        "clips_per_class": {"fold 1": {"happy": 2, "sad": 1}, "fold 2": {"happy": 1, "sad": 2}},
        "clip_outputs": ["joy"],
        "frames_per_clip": {"least": 1, "median": 3, "most": 20},
        "clips_without_label": {"count": 1, "first": ["d-1"]},
        "clips_without_frames": {"count": 1, "first": ["c-0"]},
        "clips_of_one_frame": {"count": 3, "first": ["a-2", "d-0", "d-1"]},
        "clips_that_overlap": {"count": 2, "first": ["a-0 and a-1", "d-0 and d-1"]},
        "frames_of_clips_that_differ": {"count": 5, "first": [f"a/{n}" for n in range(11, 16)]},
        "frames_outside_clips": 11,  # a 31 to 39, d 3, and e 7
        "videos_without_clip": {"count": 1, "first": ["e"]},
        "groups_of_clips_in_two_splits": {
            "count": 2,
            "first": ["anna: fold 1 and fold 2", "dora: fold 2 and test"],
        },
    }


def test_clips_that_only_touch_or_hold_no_frame_do_not_overlap():
    clips = table_of(
        ("1", "a", None, 5, "sad"), ("2", "a", 5, 9, "sad"), ("3", "a", 9, None, "sad"), ("4", "a", 6, 6, "sad"),
        ("5", "b", 1, 3, "sad"), ("6", "c", 1, 3, "sad"),
    )  # fmt: skip
    assert describe_clips(clips, frames_of(a=range(1, 12)))["clips_that_overlap"] == {"count": 0, "first": []}
    inside = table_of(("1", "a", 1, 90, "sad"), ("2", "a", 2, 3, "sad"), ("3", "a", 80, 99, "sad"))
    assert describe_clips(inside, frames_of(a=range(1, 12)))["clips_that_overlap"]["first"] == ["1 and 2", "1 and 3"]


def test_an_empty_clip_table_can_be_described():
    from pipeline.core.clips import no_clips

    found = describe_clips(no_clips("x"), frames_of(a=range(3)))
    assert (found["clips"], found["frames_per_clip"], found["clips_per_class"]) == (0, {}, {})


def many(split=None) -> Clips:
    names = [f"{n:02d}" for n in range(20)]
    table = pd.DataFrame({"clip": names, "video": names, "group": [f"p{n // 2}" for n in range(20)]})
    table = table.assign(start=pd.array([pd.NA] * 20, "Int64"), end=pd.array([pd.NA] * 20, "Int64"))
    table["expression"] = ["happy", "happy", "sad", "sad"] * 5
    return Clips(table if split is None else table.assign(split=split), ["happy", "sad"], "by hand")


def test_a_split_is_drawn_by_group_where_there_is_none_and_folds_are_cut_by_group():
    clips, how = with_clip_split(many(), DatasetConfig(name="clips"))
    assert how == "drawn by group, val_fraction 0.2, seed 0"
    assert clips.table.groupby("group")["split"].nunique().max() == 1
    assert clips.table["split"].value_counts().to_dict() == {"train": 16, "val": 4}
    clips, how = with_clip_split(
        many(["train"] * 14 + ["val"] * 2 + ["test"] * 4), DatasetConfig(name="clips", folds=4)
    )
    assert how == "4 folds by group, seed 0"
    assert clips.table["split"].tolist() == ["fold"] * 16 + ["test"] * 4
    assert clips.table["fold"].isna().tolist() == [False] * 16 + [True] * 4
    assert clips.table.groupby("group")["fold"].nunique().max() == 1
    clips, how = with_clip_split(many(), DatasetConfig(name="clips", folds=4, fold=1))
    assert how == "fold 1 of 4 by group, seed 0"
    assert set(clips.table["split"]) == {"train", "val"}
    assert clips.folds == []


def test_a_split_of_the_data_set_is_kept_and_a_fold_without_folds_is_an_error():
    given = many(["train"] * 10 + ["val"] * 10)
    assert with_clip_split(given, DatasetConfig(name="clips")) == (given, "official")
    with pytest.raises(UserError, match="fold is 1, and folds is not given"):
        with_clip_split(given, DatasetConfig(name="clips", fold=1))
