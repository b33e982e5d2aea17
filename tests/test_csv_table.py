from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.datasets import csv_table
from pipeline.datasets.found import DatasetConfig
from pipeline.params import UserError


def made(root: Path, table: str, *images: str, name: str = "t.csv") -> Path:
    for path in images:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * len(path))
    (root / name).write_text(table, encoding="utf-8")
    return root


def read(root: Path, name: str = "t.csv", **others):
    return csv_table.read(DatasetConfig(name="csv", root=root, annotations=root / name, **others))


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    values = table[list(columns)].itertuples(index=False, name=None)
    return sorted(tuple(None if pd.isna(v) else v for v in row) for row in values)


def test_a_row_is_an_image_with_its_label_group_and_split(tmp_path):
    table = (
        "path,label,group,split,note\na/1.jpg,Happiness,anna,train,x\na/2.jpg,Fear,ben,Validation,\nb.jpg,Fear,ben,,\n"
    )
    found = read(made(tmp_path, table.replace("b.jpg,Fear,ben,,", "b.jpg,,carl,,"), "a/1.jpg", "a/2.jpg", "b.jpg"))
    assert rows(found.frames.table, "video", "frame", "path", "size") == [
        ("a/1", 0, "a/1.jpg", 7),
        ("a/2", 0, "a/2.jpg", 7),
        ("b", 0, "b.jpg", 5),
    ]
    assert rows(found.labels.table, "video", "group", "expression", "expression_split") == [
        ("a/1", "anna", "Happiness", "train"),
        ("a/2", "ben", "Fear", "val"),
    ]
    assert found.labels.classes == ["Fear", "Happiness"]
    assert found.skipped == 0


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_may_have_other_names_marks_quotes_and_a_byte_order_mark(tmp_path, mark):
    table = f'\ufeffimage{mark}"the emotion"\r\n"a{mark}1.jpg"{mark}None\r\n'
    found = read(made(tmp_path, table, f"a{mark}1.jpg"), columns={"path": "image", "label": "the emotion"})
    assert rows(found.labels.table, "video", "expression") == [(f"a{mark}1", "None")]


def test_frames_of_a_video_are_numbered_by_column_by_name_or_by_order(tmp_path):
    images = ["v/f_10.jpg", "v/f_9.jpg", "w/b.jpg", "w/a.jpg"]
    table = "path,video,label\n" + "".join(f"{p},{p[0]},x\n" for p in images)
    assert rows(read(made(tmp_path, table, *images)).labels.table, "video", "frame") == [
        ("v", 9), ("v", 10), ("w", 0), ("w", 1),
    ]  # fmt: skip
    table = "path,video,frame,label\n" + "".join(f"{p},{p[0]},{7 - i},x\n" for i, p in enumerate(images))
    assert rows(read(made(tmp_path, table, *images)).labels.table, "video", "frame") == [
        ("v", 6), ("v", 7), ("w", 4), ("w", 5),
    ]  # fmt: skip


def test_images_whose_names_differ_in_the_extension_alone_keep_it(tmp_path):
    found = read(made(tmp_path, "path,label\na.jpg,x\na.png,x\nb.jpg,x\n", "a.jpg", "a.png", "b.jpg"))
    assert rows(found.frames.table, "video") == [("a.jpg",), ("a.png",), ("b",)]


def test_valence_and_arousal_are_a_track_of_their_own(tmp_path):
    table = "path,label,valence,arousal,split\na.jpg,x,0.5,-1,train\nb.jpg,,0.1,,val\nc.jpg,,0,0,val\n"
    found = read(made(tmp_path, table, "a.jpg", "b.jpg", "c.jpg"))
    assert rows(found.labels.table, "video", "expression", "valence", "arousal", "va_split") == [
        ("a", "x", 0.5, -1.0, "train"),
        ("c", None, 0.0, 0.0, "val"),
    ]
    assert found.labels.table["valence"].dtype == np.float32


def test_rows_that_cannot_be_understood_are_named_with_their_line(tmp_path):
    table = """path,video,frame,valence,arousal,split
a.jpg,v,1,0,0,train
,v,2,0,0,train
../b.jpg,v,2,0,0,train
a.jpg,,2,0,0,train
a.jpg,v,x,0,0,train
a.jpg,v,2,1.5,0,train
a.jpg,v,2,0,low,train
a.jpg,v,2,0,0,later
a.jpg,v,2
a.jpg,v,1,0,0,train
b.jpg,v,3,0,0,train
"""
    found = read(made(tmp_path, table, "a.jpg"))
    assert found.report["malformed_lines"]["first"] == [
        "line 10: 3 fields instead of 6",
        "line 3: the path is empty, or leads out of root",
        "line 4: the path is empty, or leads out of root",
        "line 5: video is empty",
        "line 6: frame is not a number from 0",
        "line 7: valence is not in [-1, 1]",
        "line 8: arousal is not in [-1, 1]",
        "line 9: split is not train, val or test",
        "line 11: 'a.jpg' is there twice",
    ]
    assert found.report["images_missing"] == {"count": 1, "first": ["b.jpg: No such file or directory"]}
    assert found.skipped == 10
    assert rows(found.frames.table, "frame") == [(1,)]
    assert rows(found.labels.table, "frame") == [(1,), (3,)]


def test_absolute_paths_and_backslashes_are_understood(tmp_path):
    found = read(made(tmp_path, f"path,label\n{tmp_path}/a/1.jpg,x\na\\2.jpg,x\n", "a/1.jpg", "a/2.jpg"))
    assert rows(found.frames.table, "path") == [("a/1.jpg",), ("a/2.jpg",)]


def test_a_group_in_two_splits_is_an_error_that_names_it(tmp_path):
    made(tmp_path, "path,label,group,split\na.jpg,x,anna,train\nb.jpg,x,anna,val\n", "a.jpg", "b.jpg")
    with pytest.raises(UserError, match=r"1 groups stand in two splits of expression, such as anna: train and val"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("table", "columns", "error"),
    [
        ("image,label\na.jpg,x\n", {}, r"has no column \['path'\], but \['image', 'label'\].*\{path: image\}"),
        ("image,label\na.jpg,x\n", {"path": "imag"}, r"column 'imag' is not one of .*did you mean 'image'"),
        ("path,label\na.jpg,x\n", {"lable": "label"}, r"columns 'lable' is not one of .*did you mean 'label'"),
        ("path,frame\na.jpg,1\n", {}, "'frame' needs 'video'"),
        ("path,valence\na.jpg,1\n", {}, "'valence' and 'arousal' need each other"),
        ("path,label\nb.jpg,x\n", {}, "none of the 1 images .* such as b.jpg: No such file"),
        ("", {}, "has no column"),
    ],
)
def test_a_table_of_another_kind_is_an_error_that_says_what_it_is(tmp_path, table, columns, error):
    made(tmp_path, table, "a.jpg")
    with pytest.raises(UserError, match=error):
        read(tmp_path, columns=columns)


def test_no_table_at_all_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"set dataset\.annotations"):
        csv_table.read(DatasetConfig(name="csv", root=tmp_path))
    with pytest.raises(UserError, match="cannot read the table"):
        read(tmp_path)
    (tmp_path / "t.csv").write_bytes(b"path\n\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read(tmp_path)
