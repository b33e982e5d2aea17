import numpy as np
import pandas as pd
import pytest

from pipeline.core.params import UserError
from pipeline.core.store import StoreWriter
from pipeline.submission import formats
from pipeline.submission.formats import FORMATS, TASKS, check_format, problems, read_list, write

NAMES = [f"7_left/0000{i}.jpg" for i in (1, 2, 3)] + [f"10-60-1280x720/0000{i}.jpg" for i in (1, 2)]
WANTED = pd.DataFrame({"video": [name.split("/")[0] for name in NAMES], "frame": [1, 2, 3, 1, 2], "name": NAMES})
VALUES = {
    "classes": np.array([[0], [7], [3], [4], [0]]),
    "va": np.array([[0.5, -1.0], [1 / 3, 0], [-0.25, 1e-9], [1, -1], [0, 0]]),
    "aus": np.array([[1] + [0] * 11, [0] * 12, [0, 1] * 6, [1] * 12, [0] * 11 + [1]]),
}
AUS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


def listed(place, text):
    path = place / "list.txt"
    path.write_text(text, encoding="utf-8")
    return read_list(path, place / "features.zarr")


def names(wanted):
    assert [f"{v}/{f}" for v, f in zip(wanted["video"], wanted["frame"], strict=True)] == [
        f"{name.rpartition('/')[0]}/{int(name.rpartition('/')[2][:-4])}" for name in wanted["name"]
    ]
    return wanted["name"].tolist()


def store(place, keys):
    with StoreWriter(place / "features.zarr", {"backbone": "tiny"}, {"original": 2}) as writer:
        table = pd.DataFrame(keys, columns=["video", "frame"]).assign(size=1)
        writer.write(table, {"original": np.zeros((len(keys), 2), dtype=np.float16)})


# --- the list --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "image_location,valence,arousal\n", "image,valence,arousal,expression,aus\n"])
@pytest.mark.parametrize("ending", ["", ",", ",0.1,-0.2"])
def test_a_list_of_frames_keeps_its_names_and_its_order(tmp_path, header, ending):
    order = ["b/00002.jpg", "b/00001.jpg", "a/1.png", "batch/a/00007.JPG", "b/00009.jpg"]
    wanted = listed(tmp_path, header + "".join(f"{name}{ending}\n" for name in order))
    assert names(wanted) == order
    assert wanted["video"].tolist() == ["b", "b", "a", "batch/a", "b"]


def test_numbers_of_frames_and_names_of_videos_stand_for_frames_from_1_on(tmp_path):
    found = names(listed(tmp_path, "b,2\na, 3\n"))
    assert found == ["b/00001.jpg", "b/00002.jpg", "a/00001.jpg", "a/00002.jpg", "a/00003.jpg"]
    store(tmp_path, [("a", 2), ("a", 3), ("b", 1), ("c", 9)])
    assert names(listed(tmp_path, "b\r\na\r\n")) == ["b/00001.jpg", "a/00001.jpg", "a/00002.jpg", "a/00003.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/00001.jpg,\na/1.jpg,\n", "names 1 frames or videos more than once, such as a/1.jpg"),
        ("a,3\nb,2\na,4\n", "names 1 frames or videos more than once, such as a"),
        ("a/00001.jpg,\nb,3\n", r"list.txt:2: 'b,3' is of another kind than the lines before: \['frames', 'numbers'\]"),
        ("a,3\n,3\n", "list.txt:2: ',3' is no '<video>/00001.jpg,'"),
        ("a,3\n\n;b\n", "list.txt:3: ';b' is no '<video>/00001.jpg,'"),
        ("a.mp4,3\na,3\n", "names 1 frames or videos more than once, such as a"),
        ("a,3\nb,many\n", "list.txt:2: 'b,many' is no"),
        ("a,3\nb,12345678\n", "list.txt:2: 'b,12345678' is no"),
        ("a\nb,-1\n", "list.txt:2: 'b,-1' is no"),
        ("image_location,valence,arousal\n", "names nothing"),
        ("a,3\nb,0\n", "how many frames these 1 videos have, and no store does: b; write a line such as 'b,300'"),
        ("a\nghost\nb\n", "how many frames these 1 videos have, and no store does: ghost; "),
    ],
)
def test_a_list_that_cannot_be_understood_is_refused(tmp_path, text, message):
    store(tmp_path, [("a", 2), ("b", 1)])
    with pytest.raises(UserError, match=message):
        listed(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "a,3\nb/c,2",
        "\ufeffa,3\nb/c,2\n",
        "\n\na,3\n\n  \nb/c,2\n\n",
        "a\t3\nb/c\t2\n",
        "a;3\r\nb/c;2;\r\n",
        "a.mp4,3\nb/c.AVI,2\n",
        "a,3\nb\\c,2\n",
        '"a","3"\n"b/c","2"\n',
        "video,frames\n./a , 3\nb/c/, 2,,\n",
    ],
    ids=["plain", "bom", "blank_lines", "tabs", "semicolons", "mp4", "backslashes", "quotes", "header"],
)
def test_a_list_is_understood_however_it_was_written(tmp_path, text):
    for encoding, written in {"utf-8": text, "utf-16": text.removeprefix("\ufeff")}.items():
        (tmp_path / "list.txt").write_text(written, encoding=encoding)
        wanted = read_list(tmp_path / "list.txt", tmp_path)
        assert wanted["video"].tolist() == ["a"] * 3 + ["b/c"] * 2
        assert wanted["frame"].tolist() == [1, 2, 3, 1, 2]
        assert names(wanted)[3] == "b/c/00001.jpg"


def test_a_list_of_frames_is_understood_however_it_was_written(tmp_path):
    text = '\ufeffimage_location;valence\r\n\r\na\\00002.jpg;\r\n"b c/00001.jpg"\t0.5\r\n ./a/00001.png ,\r\n'
    assert names(listed(tmp_path, text)) == ["a/00002.jpg", "b c/00001.jpg", "a/00001.png"]
    store(tmp_path, [("video", 2), ("image.v2", 1)])
    assert listed(tmp_path, "video,2\n")["video"].tolist() == ["video"] * 2  # with a number it is no header
    assert listed(tmp_path, "image.v2\n")["video"].tolist() == ["image.v2"]


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.txt: No such file"):
        read_list(tmp_path / "nowhere.txt", tmp_path)


# --- the formats -----------------------------------------------------------------------------------------------------


def test_a_single_file_has_the_names_in_front(tmp_path):
    expected = {
        "expr": (
            "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n7_left/00001.jpg,0\n"
            "7_left/00002.jpg,7\n7_left/00003.jpg,3\n10-60-1280x720/00001.jpg,4\n10-60-1280x720/00002.jpg,0\n"
        ),
        "va": (
            "image_location,valence,arousal\n7_left/00001.jpg,0.500000,-1.000000\n7_left/00002.jpg,0.333333,0.000000\n"
            "7_left/00003.jpg,-0.250000,0.000000\n10-60-1280x720/00001.jpg,1.000000,-1.000000\n"
            "10-60-1280x720/00002.jpg,0.000000,0.000000\n"
        ),
    }
    for task, text in expected.items():
        write(tmp_path / task, WANTED, VALUES, task, "single")
        assert (tmp_path / task / "predictions.txt").read_text() == text
    write(tmp_path / "au", WANTED, VALUES, "au", "single")
    lines = (tmp_path / "au" / "predictions.txt").read_text().splitlines()
    assert lines[0] == f"image_location,{AUS}"
    assert lines[3] == "7_left/00003.jpg,0,1,0,1,0,1,0,1,0,1,0,1"
    write(tmp_path / "mtl", WANTED, VALUES, "mtl", "single")
    lines = (tmp_path / "mtl" / "predictions.txt").read_text().splitlines()
    assert lines[0] == "image,valence,arousal,expression,aus"
    assert lines[2] == "7_left/00002.jpg,0.333333,0.000000,7,0,0,0,0,0,0,0,0,0,0,0,0"


def test_files_per_video_have_a_line_for_each_frame(tmp_path):
    write(tmp_path / "expr", WANTED, VALUES, "expr", "per-video")
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"
    files = {p.name: p.read_text() for p in (tmp_path / "expr").iterdir()}
    assert files == {"7_left.txt": header + "0\n7\n3\n", "10-60-1280x720.txt": header + "4\n0\n"}
    write(tmp_path / "va", WANTED, VALUES, "va", "per-video")
    assert (
        tmp_path / "va/10-60-1280x720.txt"
    ).read_text() == "valence,arousal\n1.000000,-1.000000\n0.000000,0.000000\n"
    write(tmp_path / "au", WANTED, VALUES, "au", "per-video")
    assert (tmp_path / "au/10-60-1280x720.txt").read_text().splitlines() == [AUS, ",".join("1" * 12), "0," * 11 + "1"]


def test_what_cannot_be_written_per_video_is_refused():
    with pytest.raises(UserError, match="multi-task challenge has no files per video"):
        check_format(WANTED, "mtl", "per-video")
    for rows in ([0, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4]):
        with pytest.raises(UserError, match=rf"{WANTED['name'][rows[rows[0] == 0]]} is out of place"):
            check_format(WANTED.iloc[rows], "va", "per-video")
        check_format(WANTED.iloc[rows], "va", "single")
    check_format(WANTED.iloc[[0, 3, 1, 4, 2]], "va", "per-video")  # each in order, whatever stands between
    for video in ("../7", "/7"):
        with pytest.raises(UserError, match=f"for the video '{video}'"):
            check_format(WANTED.assign(video=video).iloc[:3], "va", "per-video")


# --- the validator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_has_no_problems(tmp_path, task, form):
    if (task, form) != ("mtl", "per-video"):
        write(tmp_path, WANTED, VALUES, task, form)
        assert problems(tmp_path, WANTED, task, form) == []
        if form == "single":
            assert problems(tmp_path / "predictions.txt", WANTED, task, form) == []


def broken(place, task, change):
    """The problems of a single file after ``change`` has been made to its list of lines; line 1 is the header."""
    write(place, WANTED, VALUES, task, "single")
    file = place / "predictions.txt"
    lines = [None, *file.read_text().splitlines()]
    change(lines)
    file.write_text("\n".join(lines[1:]) + "\n")
    return [problem.removeprefix(str(file)) for problem in problems(place, WANTED, task, "single")]


def put(number, text):
    return lambda lines: lines.__setitem__(number, text)


@pytest.mark.parametrize(
    ("task", "change", "expected"),
    [
        ("va", put(1, "image_location,arousal,valence"),
         [":1: the header is 'image_location,arousal,valence', and must be 'image_location,valence,arousal'"]),
        ("va", lambda lines: lines.pop(1), [
            ":1: the header is '7_left/00001.jpg,0.500000,-1.000000', and must be 'image_location,valence,arousal'",
            ": 4 lines after the header, and 5 frames want one",
            ":2: '7_left/00002.jpg', where the list has '7_left/00001.jpg'",
            ":3: '7_left/00003.jpg', where the list has '7_left/00002.jpg'",
            ":4: '10-60-1280x720/00001.jpg', where the list has '7_left/00003.jpg'",
            ":5: '10-60-1280x720/00002.jpg', where the list has '10-60-1280x720/00001.jpg'",
        ]),
        ("expr", lambda lines: lines.pop(), [": 4 lines after the header, and 5 frames want one"]),
        ("expr", lambda lines: lines.append("7_left/00004.jpg,3"),
         [": 6 lines after the header, and 5 frames want one", ":7: '7_left/00004.jpg', where the list has ended"]),
        ("expr", lambda lines: lines.append(""),
         [": 6 lines after the header, and 5 frames want one", ":7: '', where the list has ended",
          ":7: 0 values instead of 1: ''"]),
        ("expr", put(4, "7_left/00002.jpg,3"), [":4: '7_left/00002.jpg' is there already, in line 3"]),
        ("expr", put(3, "7_left/2.jpg,3"), [":3: '7_left/2.jpg', where the list has '7_left/00002.jpg'"]),
        ("expr", put(3, "7_left/00002.jpg,"), [":3: '' is not an integer from 0 to 7"]),
        ("expr", put(3, "7_left/00002.jpg,8"), [":3: '8' is not an integer from 0 to 7"]),
        ("expr", put(3, "7_left/00002.jpg,-1"), [":3: '-1' is not an integer from 0 to 7"]),
        ("expr", put(3, "7_left/00002.jpg,3.0"), [":3: '3.0' is not an integer from 0 to 7"]),
        ("expr", put(3, "7_left/00002.jpg"), [":3: 0 values instead of 1: '7_left/00002.jpg'"]),
        ("expr", put(3, "7_left/00002.jpg,3,"), [":3: 2 values instead of 1: '7_left/00002.jpg,3,'"]),
        ("va", put(3, "7_left/00002.jpg,0.1,nan"), [":3: 'nan' is not a number from -1 to 1"]),
        ("va", put(3, "7_left/00002.jpg,0.1,1.000001"), [":3: '1.000001' is not a number from -1 to 1"]),
        ("va", put(3, "7_left/00002.jpg,-5,0"), [":3: '-5' is not a number from -1 to 1"]),
        ("va", put(3, "7_left/00002.jpg,1e-3,-1"), []),
        ("va", put(3, "7_left/00002.jpg,inf,0"), [":3: 'inf' is not a number from -1 to 1"]),
        ("va", put(3, "7_left/00002.jpg,0.1"), [":3: 1 values instead of 2: '7_left/00002.jpg,0.1'"]),
        ("au", put(6, "10-60-1280x720/00002.jpg," + "0," * 11 + "0.7"), [":6: '0.7' is not 0 or 1"]),
        ("au", put(6, "10-60-1280x720/00002.jpg,-1" + ",0" * 11), [":6: '-1' is not 0 or 1"]),
        ("mtl", put(5, "10-60-1280x720/00001.jpg,0,0,8" + ",0" * 12), [":5: '8' is not an integer from 0 to 7"]),
        ("mtl", put(5, "10-60-1280x720/00001.jpg,0,0,7" + ",0" * 11),
         [":5: 14 values instead of 15: '10-60-1280x720/00001.jpg,0,0,7" + ",0" * 11 + "'"]),
    ],
)  # fmt: skip
def test_each_fault_of_a_single_file_is_named_with_its_line(tmp_path, task, change, expected):
    assert broken(tmp_path, task, change) == expected


def test_faults_of_files_per_video_are_named(tmp_path):
    write(tmp_path, WANTED, VALUES, "au", "per-video")
    (tmp_path / "7_left.txt").unlink()
    (tmp_path / "7.txt").write_text("")
    (tmp_path / "10-60-1280x720.txt").write_text(f"{AUS},\n" + "1," * 11 + "1\n2" + ",0" * 11 + "\n" + "0\n")
    found = [problem.removeprefix(f"{tmp_path}/") for problem in problems(tmp_path, WANTED, "au", "per-video")]
    assert found == [
        "7.txt: no video of the list",
        "7_left.txt: there is no such file",
        f"10-60-1280x720.txt:1: the header is '{AUS},', and must be '{AUS}'",
        "10-60-1280x720.txt: 3 lines after the header, and 2 frames want one",
        "10-60-1280x720.txt:3: '2' is not 0 or 1",
        "10-60-1280x720.txt:4: 1 values instead of 12: '0'",
    ]
    (found,) = problems(tmp_path / "7.txt", WANTED, "au", "per-video")
    assert found == f"{tmp_path}/7.txt: not a folder of files, one a video"
    assert problems(tmp_path, WANTED, "au", "single") == [f"{tmp_path}/predictions.txt: there is no such file"]


@pytest.mark.parametrize("task", TASKS)
def test_whole_columns_and_single_lines_agree_on_what_is_right(tmp_path, task, monkeypatch):
    """``problems`` looks at lines where a file is not right by its columns: 3,000 files with a byte changed."""
    write(tmp_path, WANTED, VALUES, task, "single")
    file, rng = tmp_path / "predictions.txt", np.random.default_rng(0)
    whole, verdicts = file.read_bytes(), set()
    for _ in range(750):
        at, byte = rng.integers(len(whole)), rng.choice([*b'0178.,-+e"\n\r x', 0xFF])
        file.write_bytes(whole[:at] + bytes([byte]) * rng.integers(3) + whole[at + 1 :])
        found = problems(file, WANTED, task, "single")
        by_columns = formats._is_right(file, WANTED["name"], len(WANTED), task, "single")
        with monkeypatch.context() as patch:
            patch.setattr(formats, "_is_right", lambda *_: False)
            assert problems(file, WANTED, task, "single") == found
        verdicts.add((not found, by_columns))
    assert (False, False) in verdicts
    assert (True, True) in verdicts
    assert (False, True) not in verdicts
