from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import tables
from pipeline.core.params import UserError
from pipeline.core.tables import Frames, Labels


def frame_table(*keys: tuple[str, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [(video, frame, f"{video}/{frame:05d}.jpg", 10 * frame) for video, frame in keys],
        columns=["video", "frame", "path", "size"],
    )


def frames(*keys: tuple[str, int]) -> Frames:
    return Frames(frame_table(*keys), Path("data/ä b"), "abaw", "cropped_aligned")


def labels(**columns) -> Labels:
    table = pd.DataFrame({"video": ["b", "a"], "frame": [1, 7], "group": ["b", "a"], **columns})
    return Labels(table, ["Neutral", "Anger"], "abaw")


def test_frames_come_back_sorted_by_video_and_number_with_their_facts(tmp_path):
    given = frames(("b", 2), ("a", 10), ("a", 9), ("b", 1))
    tables.write_frames(tmp_path / "new" / "frames.parquet", given)
    back = tables.read_frames(tmp_path / "new" / "frames.parquet")
    pd.testing.assert_frame_equal(back.table, frame_table(("a", 9), ("a", 10), ("b", 1), ("b", 2)))
    assert (back.root, back.dataset, back.crop_source) == (Path("data/ä b"), "abaw", "cropped_aligned")


def test_labels_come_back_sorted_with_classes_and_types_and_missing_values(tmp_path):
    given = labels(
        expression=["Anger", None],
        valence=np.array([0.5, np.nan], np.float32),
        arousal=np.array([-0.5, np.nan], np.float32),
        au1=pd.array([1, None], dtype="Int8"),
        expression_split=["val", None],
    )
    tables.write_labels(tmp_path / "labels.parquet", given)
    back = tables.read_labels(tmp_path / "labels.parquet")
    assert (back.classes, back.dataset) == (["Neutral", "Anger"], "abaw")
    assert list(back.table["video"]) == ["a", "b"]
    assert list(back.table["frame"]) == [7, 1]
    assert list(back.table["expression"].isna()) == list(back.table["expression_split"].isna()) == [True, False]
    assert back.table["expression"][1] == "Anger"
    assert back.table["valence"].dtype == back.table["arousal"].dtype == np.float32
    assert str(back.table["au1"].dtype) == "Int8"
    assert back.table["au1"][1] == 1
    assert back.table["au1"].isna()[0]


def test_the_same_rows_in_another_order_are_the_same_bytes(tmp_path):
    keys = [("a", 1), ("a", 2), ("b", 1)]
    tables.write_frames(tmp_path / "one.parquet", frames(*keys))
    tables.write_frames(tmp_path / "two.parquet", frames(*keys[::-1]))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_writing_leaves_the_given_table_alone_and_no_temporary_file(tmp_path):
    given = frames(("b", 2), ("a", 1))
    before = given.table.copy()
    tables.write_frames(tmp_path / "frames.parquet", given)
    pd.testing.assert_frame_equal(given.table, before)
    assert [path.name for path in tmp_path.iterdir()] == ["frames.parquet"]


def test_a_frame_table_without_rows_is_an_error_that_names_the_root(tmp_path):
    with pytest.raises(UserError, match="no frame of data set 'abaw' was found under data/ä b"):
        tables.write_frames(tmp_path / "frames.parquet", frames())


def test_a_key_that_stands_twice_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"frame table of data set 'abaw' holds 1 keys twice, such as \['a/1'\]"):
        tables.write_frames(tmp_path / "frames.parquet", frames(("a", 1), ("b", 1), ("a", 1)))


def test_a_missing_column_is_an_error_that_names_it(tmp_path):
    table = frame_table(("a", 1)).drop(columns="size")
    with pytest.raises(UserError, match=r"lacks the columns \['size'\]; it has \['video', 'frame', 'path'\]"):
        tables.write_frames(tmp_path / "frames.parquet", Frames(table, Path("r"), "abaw", "whole"))
    with pytest.raises(UserError, match=r"label table .* lacks the columns \['group'\]"):
        tables.write_labels(tmp_path / "l.parquet", Labels(frame_table(("a", 1)), [], "abaw"))


def test_an_expression_that_is_no_class_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"expressions \['Boredom'\] are not among the classes \['Neutral', 'Anger'\]"):
        tables.write_labels(tmp_path / "labels.parquet", labels(expression=["Boredom", None]))


def test_a_split_of_another_name_is_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r"va_split holds \['validation'\], and may only hold \['train', 'val', 'test'\]"
    ):
        tables.write_labels(tmp_path / "labels.parquet", labels(va_split=["validation", None]))


def test_a_split_by_folds_needs_the_column_that_says_which(tmp_path):
    with pytest.raises(UserError, match=r"va_split holds \['fold'\], and may only hold"):
        tables.write_labels(tmp_path / "labels.parquet", labels(va_split=["fold", None]))
    fold = pd.array([1, None], dtype="Int16")
    tables.write_labels(tmp_path / "labels.parquet", labels(va_split=["fold", None], fold=fold))
    assert tables.read_labels(tmp_path / "labels.parquet").folds == [1]


def test_a_label_table_may_be_empty(tmp_path):
    empty = Labels(labels().table.head(0), [], "abaw")
    tables.write_labels(tmp_path / "labels.parquet", empty)
    assert tables.read_labels(tmp_path / "labels.parquet").table.empty


def test_a_table_that_is_missing_is_an_error_that_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"no frame table at .*frames.parquet.*pipeline.datasets.index"):
        tables.read_frames(tmp_path / "frames.parquet")


def test_another_file_is_not_taken_for_a_table(tmp_path):
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UserError, match="is not a frame table: there is no digest of ours"):
        tables.read_frames(tmp_path / "text.parquet")
    frame_table(("a", 1)).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(UserError, match="is not a frame table: there is no digest of ours"):
        tables.read_frames(tmp_path / "foreign.parquet")
    tables.write_labels(tmp_path / "labels.parquet", labels())
    with pytest.raises(UserError, match=r"is not a frame table: it lacks the columns \['path', 'size'\]"):
        tables.read_frames(tmp_path / "labels.parquet")


def test_the_classes_and_action_units_are_those_of_abaw():
    assert ",".join(tables.ABAW_CLASSES) == "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    assert ",".join(tables.ABAW_AUS) == "au1,au2,au4,au6,au7,au10,au12,au15,au23,au24,au25,au26"
