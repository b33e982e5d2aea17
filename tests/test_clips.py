from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.core import clips as clip_table
from pipeline.core.clips import Clips
from pipeline.core.join import rows_of_clips
from pipeline.core.params import UserError


def written(folder, clips: Clips) -> Clips:
    clip_table.write_clips(folder / "clips.parquet", clips)
    return clip_table.read_clips(folder / "clips.parquet")


def changed(clips: Clips, which: str, values: dict) -> Clips:
    table = clips.table.copy()
    for column, value in values.items():
        table.loc[clips.table["clip"] == which, column] = value
    return replace(clips, table=table)


def test_clips_come_back_sorted_by_name_with_their_types_and_missing_values(tmp_path, hand_made_clips):
    back = written(tmp_path, replace(hand_made_clips, table=hand_made_clips.table[::-1]))
    table = back.table.set_index("clip")
    assert list(table.index) == ["a-0", "a-1", "a-2", "b-0", "c-0", "d-0", "d-1"]
    assert table["start"].tolist() == [1, 11, 40, pd.NA, pd.NA, 4, 8]
    assert table["end"].tolist() == [16, 31, 41, pd.NA, 9, 9, pd.NA]
    assert table["expression"].tolist()[:6] == ["happy", "sad", "happy", "sad", "happy", "sad"]
    assert pd.isna(table.loc["d-1", "expression"])
    assert (str(table["au1"].dtype), str(table["joy"].dtype), str(table["start"].dtype)) == ("Int8", "float32", "Int64")
    assert table["au1"].tolist() == [1, 0, pd.NA, 1, 0, pd.NA, pd.NA]
    assert np.isnan(table.loc["d-0", "joy"])
    assert table.loc["a-0", "valence"] == 0.5
    assert (back.classes, back.dataset, back.outputs, back.folds) == (["happy", "sad"], "by hand", ["joy"], [1, 2])


def test_equal_tables_are_equal_bytes_whatever_their_order(tmp_path, hand_made_clips):
    clip_table.write_clips(tmp_path / "1", hand_made_clips)
    clip_table.write_clips(tmp_path / "2", replace(hand_made_clips, table=hand_made_clips.table[::-1]))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_data_set_without_labels_of_clips_has_a_table_of_no_rows(tmp_path):
    back = written(tmp_path, clip_table.no_clips("abaw"))
    assert (len(back.table), back.classes, back.folds, back.outputs, back.dataset) == (0, [], [], [], "abaw")
    assert list(back.table) == ["clip", "video", "start", "end", "group"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"clip": "a-1"}, r"holds clips twice: 1, such as \['a-1'\]"),
        ({"video": None}, r"without video or group: 1, such as \['a-0'\]"),
        ({"end": 0}, r"end before they start: 1, such as \['a-0'\]"),
        ({"start": -1}, r"start before frame 0, or end before they start: 1, such as \['a-0'\]"),
        ({"expression": "glad"}, r"expressions \['glad'\] are not among the classes \['happy', 'sad'\]"),
        ({"split": "dev"}, r"split holds \['dev'\], and may only hold \['train', 'val', 'test', 'fold'\]"),
        ({"fold": None}, r"the split 'fold' and no fold, or the other way round: 1, such as \['a-0'\]"),
        ({"split": "train"}, r"the split 'fold' and no fold, or the other way round: 1, such as \['a-0'\]"),
    ],
)
def test_a_table_with_a_fault_is_not_written(tmp_path, hand_made_clips, values, problem):
    with pytest.raises(UserError, match=problem):
        written(tmp_path, changed(hand_made_clips, "a-0", values))
    assert not (tmp_path / "clips.parquet").exists()


def test_an_output_that_is_no_number_is_not_written(tmp_path, hand_made_clips):
    table = hand_made_clips.table.assign(joy="much")
    with pytest.raises(UserError, match=r"one of \['valence', 'arousal', 'joy', 'au1'\] holds no numbers"):
        written(tmp_path, replace(hand_made_clips, table=table))


def test_a_table_without_its_columns_is_neither_written_nor_read(tmp_path, hand_made_clips):
    with pytest.raises(UserError, match=r"lacks the columns \['group'\]"):
        written(tmp_path, replace(hand_made_clips, table=hand_made_clips.table.drop(columns="group")))
    with pytest.raises(UserError, match="there is no clip table at"):
        clip_table.read_clips(tmp_path / "clips.parquet")


def test_a_fold_validates_on_its_own_clips_and_trains_on_the_others_and_test_stays(hand_made_clips):
    of_one = clip_table.clips_of_fold(hand_made_clips, 1)
    assert of_one.table["split"].tolist() == ["val", "val", "train", "train", "val", "train", "test"]
    assert of_one.folds == []
    assert clip_table.clips_of_fold(of_one, None) is of_one
    for fold in (None, 3):
        with pytest.raises(UserError, match=r"has the folds \[1, 2\]"):
            clip_table.clips_of_fold(hand_made_clips, fold)


def test_the_frames_of_a_clip_are_found_by_their_numbers_also_where_some_or_all_are_missing(
    hand_made_clips, keys_of_clips
):
    rows = rows_of_clips(keys_of_clips, hand_made_clips.table)
    numbers = [keys_of_clips["frame"].iloc[a:b].tolist() for a, b in rows]
    videos = [set(keys_of_clips["video"].iloc[a:b]) for a, b in rows]
    assert numbers == [[*range(1, 16)], [*range(11, 31)], [40], [1, 2, 3, 4, 5], [], [4], [9]]
    assert videos == [{"a"}, {"a"}, {"a"}, {"b"}, set(), {"d"}, {"d"}]
