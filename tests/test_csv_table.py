import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.params import UserError
from pipeline.core.tables import read_labels, write_labels
from pipeline.datasets import csv_table, readers
from pipeline.datasets.config import DatasetConfig


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
    table = f'\ufeffimage{mark}"the emotion"\r\n"a{mark}1.jpg"{mark}none of us\r\n'
    found = read(made(tmp_path, table, f"a{mark}1.jpg"), columns={"path": "image", "label": "the emotion"})
    assert rows(found.labels.table, "video", "expression") == [(f"a{mark}1", "none of us")]


def test_frames_of_a_video_are_numbered_by_column_by_name_or_by_order(tmp_path):
    images = ["v/f_10.jpg", "v/f_9.jpg", "w/b.jpg", "w/a.jpg"]
    table = "path,video,label\n" + "".join(f"{p},{p[0]},x\n" for p in images)
    assert rows(read(made(tmp_path, table, *images)).labels.table, "video", "frame") == [
        ("v", 9), ("v", 10), ("w", 0), ("w", 1),
    ]  # fmt: skip
    found = read(tmp_path)
    assert {rule: of["count"] for rule, of in found.report["frame_numbers"].items()} == {
        "the number in the name": 1,
        "the order of the rows, from 0": 1,
    }
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
        (
            "path,label\nb.jpg,x\n",
            {},
            r"none of the 1 rows .*; 1 images were looked for, such as b.jpg: .*\('.*/b.jpg'\)",
        ),
        ("", {}, "has no column"),
    ],
)
def test_a_table_of_another_kind_is_an_error_that_says_what_it_is(tmp_path, table, columns, error):
    made(tmp_path, table, "a.jpg")
    with pytest.raises(UserError, match=error):
        read(tmp_path, columns=columns)


def test_no_table_at_all_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"name the table to read by dataset\.annotations"):
        csv_table.read(DatasetConfig(name="csv", root=tmp_path))
    with pytest.raises(UserError, match="cannot read the table"):
        read(tmp_path)
    (tmp_path / "t.csv").write_bytes(b"path\n\xff\n")
    with pytest.raises(UserError, match=r"is not UTF-8 text \(byte 0xff in line 2\): save it as UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_is_read_in_every_encoding_that_its_first_bytes_tell(tmp_path, encoding):
    made(tmp_path, "", "é.jpg")
    (tmp_path / "t.csv").write_bytes("path,label\r\né.jpg,fröhlich\r\n".encode(encoding))
    assert rows(read(tmp_path).labels.table, "video", "expression") == [("é", "fröhlich")]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("path,label\né.jpg,x\n".encode("cp1252"), r"not UTF-8 text \(byte 0xe9 in line 2\)"),
        ("path,label\na.jpg,x\n".encode("utf-16-le"), "has no column|no row of a table"),
        (b"path,label\na\0.jpg,x\n", r"(?s)none of the 1 rows .*line 2: .*perhaps: the table is no text"),
        (b'path,label\na.jpg,"' + b"x" * 200_000, "line 2 is no row of a table .*field larger than field limit"),
        (b"\xff\xfep", "not UTF-16 text"),
    ],
)
def test_a_table_that_is_no_text_is_one_line_and_no_trace(tmp_path, content, error):
    made(tmp_path, "", "a.jpg")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=error):
        read(tmp_path)


def test_a_line_separator_inside_a_name_ends_no_row(tmp_path):
    """str.splitlines of Python 3.11 ends lines at ten characters, csv rows end at two.

    Beside LF and CR it cuts at VT, FF, FS, GS, RS, NEL, LS and PS, so that a label with one of these lost its row:
    https://docs.python.org/3.11/library/stdtypes.html#str.splitlines
    """
    assert "x\u2028y\x0bz\x85".splitlines() == ["x", "y", "z"]
    found = read(made(tmp_path, "sep=;\npath;label\na.jpg;x\u2028y\x0bz\nb.jpg\n", "a.jpg"))
    assert rows(found.labels.table, "expression") == [("x\u2028y\x0bz",)]
    assert found.report["malformed_lines"]["first"] == ["line 4: 1 fields instead of 2"]


def test_no_label_and_no_group_are_none_whatever_word_says_so(tmp_path):
    words = ["NA", "nan", "None", "null", "-1", "", "N/A", "x"]
    table = "path,label,group,split\n" + "".join(f"{i}.jpg,{w},{w},{w if i < 7 else ''}\n" for i, w in enumerate(words))
    found = read(made(tmp_path, table, *(f"{i}.jpg" for i in range(8))))
    assert found.labels.classes == ["x"]
    assert rows(found.labels.table, "video", "expression", "group") == [("7", "x", "x")]
    assert len(found.frames.table) == 8
    assert found.report["labels_missing"]["count"] == 7
    assert "'-1': 1" in found.report["labels_missing"]["first"]
    assert "--missing" in found.report["warnings"][0]
    table = "path,label,group\na.jpg,x,NA\nb.jpg,x,NA\n"
    assert rows(read(made(tmp_path, table, "a.jpg", "b.jpg")).labels.table, "group") == [("a",), ("b",)]


def test_a_class_may_be_called_none_where_the_user_says_so_and_stays_so_in_the_label_table(tmp_path):
    table = "path,label\na.jpg,None\nb.jpg,null\nc.jpg,NA\nd.jpg,-9\n"
    found = read(made(tmp_path, table, "a.jpg", "b.jpg", "c.jpg", "d.jpg"), missing=[-9])
    assert found.labels.classes == ["NA", "None", "null"]
    write_labels(tmp_path / "labels.parquet", found.labels)
    again = read_labels(tmp_path / "labels.parquet")
    assert rows(again.table, "expression") == [("NA",), ("None",), ("null",)]
    mapped = readers.read(
        DatasetConfig(name="csv", root=tmp_path, annotations=tmp_path / "t.csv", class_map={"None": "nobody"})
    )
    assert "nobody" in mapped.labels.classes
    assert rows(mapped.labels.table, "video", "expression") == [("a", "nobody")]


def test_paths_of_another_machine_decimal_commas_and_whole_floats_are_taken_as_they_are_meant(tmp_path):
    table = """path;video;frame;valence;arousal
/home/ann/set/v/1.jpg;v;0,0;0,5;-1
C:\\ann\\set\\v\\2.jpg;v;1.0;NA;nan
/home/ann/set/v/3.jpg;v;2;-0,25;0
/home/ann/set/v/../../4.jpg;v;3;0;0
"""
    found = read(made(tmp_path, table, "v/1.jpg", "v/2.jpg", "v/3.jpg"))
    assert rows(found.frames.table, "frame", "path") == [(0, "v/1.jpg"), (1, "v/2.jpg"), (2, "v/3.jpg")]
    assert rows(found.labels.table, "frame", "valence", "arousal") == [(0, 0.5, -1.0), (2, -0.25, 0.0)]
    assert found.report["absolute_paths_taken_to_start_in_root"] == {
        "count": 2,
        "first": ["'/home/ann/set': 2 rows", "'C:/ann/set': 1 rows"],
    }
    assert found.report["malformed_lines"]["first"] == ["line 5: the path is empty, or leads out of root"]


def test_two_paths_of_another_machine_never_become_one_image(tmp_path):
    """Which of the folders root is cannot be known, where their files have the same names."""
    table = "path,label\n" + "".join(f"/home/ann/{part}/{n}.jpg,x\n" for part in ("train", "val") for n in range(2))
    found = read(made(tmp_path, table, "0.jpg", "1.jpg"))
    assert found.report["absolute_paths_taken_to_start_in_root"]["first"] == ["'/home/ann/train': 2 rows"]
    assert found.report["malformed_lines"]["count"] == 2
    made(tmp_path / "whole", table, *(f"{part}/{n}.jpg" for part in ("train", "val") for n in range(2)))
    assert len(read(tmp_path / "whole").frames.table) == 4


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/home/ann/set/x.jpg", "the paths are those of another machine"),
        ("data/a.jpg", "the paths start in .*: name it as dataset.root"),
        ("b.jpg", r"the paths start in .*/inner: name it as dataset\.root"),
        ("a", r"the paths lack the end of the files' names, '\.jpg'"),
        ("old/place/a.jpg", "the paths begin with 'old/place/'"),
    ],
)
def test_where_no_image_is_there_rows_are_counted_truly_and_the_cause_is_suspected(tmp_path, path, cause):
    root = made(tmp_path / "data", f"path,label,video,frame\n{path},x,v,one\n{path},x,v,1\n", "a.jpg", "inner/b.jpg")
    with pytest.raises(UserError) as error:
        read(root)
    assert re.search(r"none of the 2 rows of .*t\.csv", str(error.value))
    assert re.search("such as line 2: (the path|frame is not)", str(error.value))
    assert re.search(f"perhaps: {cause}", str(error.value))


def test_times_in_seconds_are_frames_in_even_steps_with_their_gaps(tmp_path):
    images = [f"v/{i}.jpg" for i in range(4)] + ["w/0.jpg", "w/1.jpg", "w/2.jpg"]
    times = ["0.04", "0.08", "0.12", "1.00", "0.5", "1.25", "2.0"]
    table = "path,video,frame,label\n" + "".join(f"{p},{p[0]},{t},x\n" for p, t in zip(images, times, strict=True))
    found = read(made(tmp_path, table, *images))
    assert rows(found.frames.table, "video", "frame") == [
        ("v", 0), ("v", 1), ("v", 2), ("v", 24), ("w", 0), ("w", 1), ("w", 2),
    ]  # fmt: skip
    assert list(found.report["frame_numbers"]) == ["the column frame, a decimal in even steps, from 0"]
