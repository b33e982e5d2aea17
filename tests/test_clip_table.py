"""The reader of a table of clips, and frames of times in seconds."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core.clips import read_clips, write_clips
from pipeline.core.files import write_table
from pipeline.core.params import UserError
from pipeline.datasets import clip_table, readers, times
from pipeline.datasets.config import DatasetConfig


def made(root: Path, table: str, *, name: str = "t.csv", crops: str = "", **videos: range) -> Path:
    for video, frames in videos.items():
        for frame in frames:
            path = root / crops / video.replace("__", "/") / f"{frame:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"xyz")
    root.mkdir(exist_ok=True)
    (root / name).write_text(table, encoding="utf-8")
    return root


def read(root: Path, name: str = "t.csv", **others):
    return clip_table.read(DatasetConfig(name="clips", root=root, annotations=root / name, **others))


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    values = table[list(columns)].itertuples(index=False, name=None)
    return [tuple(None if pd.isna(v) else v for v in row) for row in values]


def test_a_row_is_a_clip_with_bounds_labels_group_and_split(tmp_path):
    table = (
        "clip,video,start,end,label,valence,arousal,au1,au12,group,split,note\n"
        "one,a.mp4,3,5,happy,0.5,-1,1,0,anna,train,x\n,a.mp4,5,,sad,,,,-1,anna,Training,\n"
        ",b,,,,0,0,,1,,val,\n,b,2.0,4,NA,0,0,,,,,\n"
    )
    found = read(made(tmp_path, table, a=range(1, 9), b=range(1, 4)))
    assert rows(found.clips.table, "clip", "video", "start", "end", "expression", "group", "split") == [
        ("one", "a", 3, 5, "happy", "anna", "train"),
        ("a:5-", "a", 5, None, "sad", "anna", "train"),
        ("b", "b", None, None, None, "b", "val"),
        ("b:2-4", "b", 2, 4, None, "b", None),
    ]
    assert rows(found.clips.table, "valence", "arousal", "au1", "au12") == [
        (0.5, -1.0, 1, 0), (None, None, None, None), (0.0, 0.0, None, 1), (0.0, 0.0, None, None),
    ]  # fmt: skip
    assert found.clips.classes == ["happy", "sad"]
    assert sorted(rows(found.frames.table, "video", "frame"))[-3:] == [("b", 1), ("b", 2), ("b", 3)]
    assert found.report["warnings"][0].startswith("labels that stand for none: 'NA': 1")
    assert found.skipped == 0
    write_clips(tmp_path / "x" / "clips.parquet", found.clips)


def test_columns_may_have_other_names_and_outputs_are_named(tmp_path):
    table = "file;emotion;joy;note\nb.avi;sad;0,5;\na;happy;1e-3;0.3\n"
    found = read(
        made(tmp_path, table, a=range(1), b=range(2)), columns={"video": "file", "label": "emotion"}, outputs=["joy"]
    )
    assert rows(found.clips.table, "clip", "expression", "joy") == [("b", "sad", 0.5), ("a", "happy", 0.001)]
    assert found.clips.outputs == ["joy"]
    with pytest.raises(UserError, match=r"outputs 'joi' is not one of .*did you mean 'joy'"):
        read(tmp_path, columns={"video": "file", "label": "emotion"}, outputs=["joi"])


def test_a_fold_is_a_number_and_goes_without_a_split(tmp_path):
    table = "video,label,fold,split\na,x,1,\nb,y,2.0,\nc,x,,test\nd,x,1,train\ne,x,one,\n"
    found = read(made(tmp_path, table, **{v: range(2) for v in "abcde"}))
    assert rows(found.clips.table, "clip", "split", "fold") == [("a", "fold", 1), ("b", "fold", 2), ("c", "test", None)]
    assert found.report["malformed_lines"]["first"] == [
        "line 5: split and fold are both given",
        "line 6: fold is not a whole number from 0",
    ]
    write_clips(tmp_path / "clips.parquet", found.clips)


def test_rows_that_cannot_be_understood_are_named_with_their_line(tmp_path):
    table = """clip,video,start,end,label,valence,arousal,au1,split
x,a,1,3,k,0,0,1,train
y,,1,3,k,0,0,1,train
y,a,one,3,k,0,0,1,train
y,a,3,3,k,0,0,1,train
y,a,1,3,k,2,0,1,train
y,a,1,3,k,0,0,0.5,train
y,a,1,3,k,0,0,1,later
y,a,1
z,a,1,3,k,0,0,1,train
x,a,4,6,k,0,0,1,train
y,a,4,6,k,0,0,1,train
"""
    found = read(made(tmp_path, table, a=range(1, 9)))
    assert found.report["malformed_lines"]["first"] == [
        "line 9: 3 fields instead of 9",
        "line 3: video is empty",
        "line 4: start is not a frame number from 0",
        "line 5: end is not after start",
        "line 6: valence is not in [-1, 1]",
        "line 7: au1 is not 0 or 1",
        "line 8: split is not train, val or test",
        "line 10: its clip is there twice",
        "line 11: its clip's name is there twice",
    ]
    assert rows(found.clips.table, "clip", "start") == [("x", 1), ("y", 4)]
    assert (found.report["rows"], found.skipped) == (11, 9)


def test_the_folder_of_a_video_is_found_by_the_end_of_its_path(tmp_path):
    table = "video,label\n/home/me/raw/x/clip.mp4,k\nc:\\raw\\y\\clip.MP4,k\nonly.avi,k\n./z/a.b,k\nnowhere.mp4,k\n"
    root = made(tmp_path, table, crops="cropped_aligned", x__clip=range(1, 3), y__clip=range(1, 3), deep__only=range(3))
    made(tmp_path, table, crops="cropped_aligned", **{"z__a.b": range(1)})
    found = read(root)
    assert rows(found.clips.table, "clip") == [("x/clip",), ("y/clip",), ("deep/only",), ("z/a.b",), ("nowhere.mp4",)]
    assert set(found.frames.table["video"]) == {"x/clip", "y/clip", "deep/only", "z/a.b"}
    assert found.skipped == 0  # the clip without frames is kept


def test_a_video_that_may_be_several_folders_is_named_and_left_out(tmp_path):
    root = made(tmp_path, "video,label\nclip.mp4,k\nx/clip,k\n", x__clip=range(2), y__clip=range(2))
    found = read(root)
    assert rows(found.clips.table, "clip") == [("x/clip",)]
    assert found.report["malformed_lines"]["first"] == ["line 2: several folders may be 'clip.mp4': x/clip and y/clip"]


def test_of_several_people_of_a_video_the_one_seen_most_is_its_clip(tmp_path):
    seen = {"v_left": range(2), "v_right": range(5), "w_left": range(2), "w_right": range(5)}
    root = made(tmp_path, "video,label\nv.mp4,k\nw_left,k\n", crops="cropped_aligned", **seen)
    for name in "vw":
        (root / ".faces").mkdir(exist_ok=True)
        (root / ".faces" / f"{name}.parquet").write_bytes(b"")
    found = read(root)
    assert rows(found.clips.table, "clip", "video", "group") == [("v_right", "v_right", "v"), ("w_left", "w_left", "w")]


def test_a_table_of_which_nothing_is_there_says_why(tmp_path):
    root = made(tmp_path, "video,label\na.mp4,k\n,k\n", b=range(2))
    (root / "a.mp4").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"none of the 2 rows .*'a.mp4'; 1 of them were not .*; there are 1 videos .*faces"
    ):
        read(root)
    with pytest.raises(UserError, match="cannot read the table"):
        read(root, "other.csv")
    with pytest.raises(UserError, match=r"no column \['video'\]"):
        read(made(tmp_path, "path,label\na,k\n"))


def test_a_clip_table_of_ours_is_read_back_as_it_was(tmp_path, hand_made_clips, keys_of_clips):
    for video, frame in keys_of_clips[["video", "frame"]].itertuples(index=False):
        made(tmp_path, "", **{video: range(frame, frame + 1)})
    write_clips(tmp_path / "clips.parquet", hand_made_clips)
    found = read(tmp_path, "clips.parquet")
    write_clips(tmp_path / "again.parquet", found.clips)
    pd.testing.assert_frame_equal(
        read_clips(tmp_path / "again.parquet").table, read_clips(tmp_path / "clips.parquet").table, check_like=True
    )
    assert (found.clips.classes, found.clips.outputs, found.skipped) == (["happy", "sad"], ["joy"], 0)


def test_any_parquet_table_is_read_and_its_further_numbers_are_outputs(tmp_path):
    root = made(tmp_path, "", a=range(2), b=range(2))
    content = {
        "file": ["a.mp4", "b.mp4"],
        "label": ["x", None],
        "joy": [0.5, None],
        "note": ["n", "m"],
        "start": [0, 1],
    }
    pd.DataFrame(content).to_parquet(root / "t.parquet")
    found = read(root, "t.parquet", columns={"video": "file"})
    assert rows(found.clips.table, "clip", "start", "expression", "joy") == [
        ("a:0-", 0, "x", 0.5), ("b:1-", 1, None, None),
    ]  # fmt: skip
    assert found.clips.outputs == ["joy"]
    (root / "broken.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="no parquet table that can be read"):
        read(root, "broken.parquet")


# --- seconds ---------------------------------------------------------------------------------------


def faces(path: Path, *rows: tuple) -> None:
    table = pd.DataFrame(rows, columns=["video", "frame", "time_sec", "fps"])
    write_table(path, pa.Table.from_pandas(table, preserve_index=False), {})


@pytest.mark.parametrize(
    ("text", "value"),
    [("3.5", 3.5), ("3,5", 3.5), ("00:00:02.200", 2.2), ("1:02:03", 3723.0), ("02:03,5", 123.5), ("0", 0.0)],
)
def test_a_time_is_seconds_or_a_clock(text, value):
    assert times.seconds_of(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "a", "1:-2", "1;2", "nan"])
def test_what_is_no_time_is_nan(text):
    assert pd.isna(times.seconds_of(text))


def test_seconds_become_frames_by_the_rate_so_that_a_frame_counts_from_its_own_time_on(tmp_path):
    # frame n is at (n - 1) / 10 s: from 0.1 to 0.35 s are the frames 2, 3 and 4
    table = "video,start_sec,end_sec,label\na,0.1,0.35,x\na,0.3,0.4,x\na,00:00:00.4,,x\na,,0.1,x\n"
    root = made(tmp_path, table, a=range(1, 9))
    assert rows(read(root, fps=10.0).clips.table, "start", "end") == [(2, 5), (4, 5), (5, None), (None, 2)]
    assert rows(read(root, fps=10.0).clips.table, "clip")[0] == ("a:2-5",)
    made(tmp_path, table, a=[0])
    with pytest.raises(UserError, match=r"counted from frame 1, and there is a frame 0: set dataset\.first_frame: 0"):
        read(root, fps=10.0)
    assert rows(read(root, fps=10.0, first_frame=0).clips.table, "start", "end")[0] == (1, 4)


@pytest.mark.parametrize("fps", [30.0, 29.97, 24.0, 23.976, 25.0])
def test_a_time_that_is_a_frames_own_begins_with_that_frame_whatever_the_rounding(tmp_path, fps):
    bounds = [(n / fps, (n + 3) / fps) for n in range(0, 400, 7)]
    table = "video,start_sec,end_sec,label\n" + "".join(f"a,{a!r},{b!r},x\n" for a, b in bounds)
    found = read(made(tmp_path, table, a=range(1, 3)), fps=fps).clips.table
    assert rows(found, "start", "end") == [(n + 1, n + 4) for n in range(0, 400, 7)]


def test_rates_may_be_a_table_and_each_video_in_seconds_needs_one(tmp_path):
    root = made(tmp_path, "video,start_sec,label\na,1,x\nb,1,x\nc,,x\n", **{v: range(1, 3) for v in "abc"})
    (root / "rates.csv").write_text("video,fps\na,10\nb,25\n")
    assert rows(read(root, fps=root / "rates.csv").clips.table, "start") == [(11,), (26,), (None,)]
    (root / "rates.csv").write_text("video,fps\na,10\n")
    with pytest.raises(UserError, match="has no rate for 1 of the videos, such as b"):
        read(root, fps=root / "rates.csv")
    with pytest.raises(UserError, match=r"nothing says when the frames are: set dataset.fps"):
        read(root)


def test_the_times_of_the_faces_go_before_any_rate_and_are_found_beside_them(tmp_path):
    # Frames without a face, and a rate that changes: 1 at 0 s, 2 at 0.1 s, 5 at 1 s, 6 at 1.5 s.
    root = made(tmp_path, "video,start_sec,end_sec,label\na,0.1,1.5,x\na,0.2,0.9,x\na,1.2,9,x\na,5,9,x\n",
                crops="cropped_aligned", a=[1, 2, 5, 6])  # fmt: skip
    faces(root / "faces.parquet", ("a", 1, 0.0, 8.0), ("a", 2, 0.1, 8.0), ("a", 5, 1.0, 8.0), ("a", 6, 1.5, 8.0))
    expected = [(2, 6), (5, 5), (6, 7), (7, 7)]  # of the second and the last no face is inside
    assert rows(read(root).clips.table, "start", "end") == expected
    assert rows(read(root, fps=root / "faces.parquet").clips.table, "start", "end") == expected
    assert rows(read(root, fps=4.0).clips.table, "start", "end")[0] == (2, 7)  # a number goes before what lies there
    inner = clip_table.read(DatasetConfig(name="clips", root=root / "cropped_aligned", annotations=root / "t.csv"))
    assert rows(inner.clips.table, "start", "end") == expected


def test_faces_without_times_are_an_error_that_says_what_to_do(tmp_path):
    root = made(tmp_path, "video,start_sec,label\na,1,x\nb,1,x\n", a=range(1, 3), b=range(1, 3))
    faces(root / "faces.parquet", ("a", 1, 0.0, 8.0), ("b", 1, None, None))
    with pytest.raises(UserError, match="no times of 1 videos, such as b: cut faces with --fps"):
        read(root)


def test_frames_and_seconds_of_one_bound_contradict_each_other(tmp_path):
    table = "video,start,start_sec,end_sec,label\na,1,,2,x\na,1,1,,x\na,,soon,,x\na,,3,2,x\n"
    found = read(made(tmp_path, table, a=range(1, 3)), fps=10.0)
    assert rows(found.clips.table, "start", "end") == [(1, 21)]
    assert found.report["malformed_lines"]["first"] == [
        "line 3: start and start_sec are both given",
        "line 4: start_sec is not a time from 0",
        "line 5: end_sec is not after start_sec",
    ]


def test_clips_of_two_data_sets_are_kept_apart(tmp_path):
    one = made(tmp_path / "one", "video,label,split\na,happy,train\nb,sad,val\n", a=range(2), b=range(2))
    two = made(tmp_path / "two", "video,label,fold\na,happy,1\nb,sad,2\n", a=range(2), b=range(2))
    third = tmp_path / "three"
    made(third, "", train__happy__v=range(2), val__sad__w=range(2), name="x.txt")
    also = [
        {"name": "clips", "root": str(two), "annotations": str(two / "t.csv")},
        {"name": "folder", "root": str(third)},
    ]
    found = readers.read(DatasetConfig(name="clips", root=one, annotations=one / "t.csv", also=also))
    assert rows(found.clips.table, "clip", "video", "group", "dataset", "split", "fold") == [
        ("clips/a", "clips/a", "clips/a", "clips", "train", None),
        ("clips/b", "clips/b", "clips/b", "clips", "val", None),
        ("clips-2/a", "clips-2/a", "clips-2/a", "clips-2", "fold", 1),
        ("clips-2/b", "clips-2/b", "clips-2/b", "clips-2", "fold", 2),
    ]
    assert set(found.labels.table["dataset"]) == {"clips", "clips-2", "folder"}
    write_clips(tmp_path / "clips.parquet", found.clips)


def test_a_class_map_holds_for_clips_too(tmp_path):
    table = "video,label,valence,arousal\na,happy,,\nb,odd,,\nc,odd,0,0\nd,,,\ne,sad,,\n"
    root = made(tmp_path, table, **{v: range(2) for v in "abcde"})
    config = DatasetConfig(name="clips", root=root, annotations=root / "t.csv", class_map="abaw")
    found = readers.read(config)
    assert rows(found.clips.table, "clip", "expression") == [
        ("a", "Happiness"),
        ("c", None),
        ("d", None),
        ("e", "Sadness"),
    ]
    assert found.clips.classes == found.labels.classes
    assert found.report["classes_dropped_by_class_map"]["labels"] == 4  # frames
