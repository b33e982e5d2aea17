"""ABAW's submission files: the list of frames that want a value each, the two formats, and what is wrong with a file.

    per-video   FOLDER/<video>.txt       'Neutral,Anger,...,Other', then a line a frame: line i (header: 0) is frame i
    single      FOLDER/predictions.txt   'image_location,Neutral,...,Other', then '<video>/00001.jpg,3' for each frame

The first three editions of the challenge took a file a video, those from the fifth (2023) on a single one, in the
order of the list that they hand out; multi-task editions always a single one, under 'image,valence,arousal,expression,
aus'. An expression is an integer into ``ABAW_CLASSES``, valence and arousal are in [-1, 1], action units 0 or 1: the
marks for invalid labels (-1, -5) are no predictions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pipeline.core.files import write_text
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Data, each_store
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES

FORMATS = ("per-video", "single")
PREDICTIONS = "predictions.txt"
FEATURES = "features"  # the folder for what was extracted on the way, which is no part of a submission
VOUCHED = "vouched.json"  # features that differ and that the user called alike; no part of a submission
# What a task predicts, in the order of its columns.
TASKS = {"expr": ("classes",), "va": ("va",), "au": ("aus",), "mtl": ("va", "classes", "aus")}
# The columns as a header says them. A class is one number, whatever the header of the expressions looks like.
HEADERS = {
    "expr": ",".join(ABAW_CLASSES),
    "va": "valence,arousal",
    "au": ",".join(unit.upper() for unit in ABAW_AUS),
    "mtl": "valence,arousal,expression,aus",
}
FIRST_COLUMNS = ("image_location", "image", "video", "")  # what the first column is called, where it has a name
NUM_COLUMNS = {"classes": 1, "va": 2, "aus": len(ABAW_AUS)}

_FRAME = re.compile(r"(.+)/(\d{1,7})\.(?:jpg|jpeg|png)", re.IGNORECASE)
_VIDEO_FILE = re.compile(r"(?<=[^/])\.(?:mp4|avi|mov|mkv|webm|m4v|mpe?g|wmv)$", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;\t]")
_COUNT = re.compile(r"\d{1,7}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")


def read_list(path: Path, store: Path) -> pd.DataFrame:
    """What wants a value each, in the list's order: columns ``video``, ``frame`` and ``name``, '<video>/00001.jpg'.

    A line is a frame (``5/00001.jpg,``, as in the challenge's samples, whose header and values are passed over), a
    video and how many frames it has (``5,300``), or a video (``5``), whose frames are then 1 to its last one in
    ``store``. Fields end at a comma, semicolon or tab; blank lines, blanks, quotation marks, a byte order mark and the
    ending of a video's file (``5.mp4``) say nothing, and a backslash is a slash. Raises ``UserError`` for a line that
    is none of these or not like the others, for a frame or video that is there twice, and for a video whose number of
    frames nothing says.
    """
    kinds, rows = set(), []
    for number, line in enumerate(_text(path).splitlines(), 1):
        name, *rest = (field.strip(" \t\"'") for field in _SEPARATOR.split(line))
        name, rest = name.replace("\\", "/").removeprefix("./").rstrip("/"), rest[0] if rest else ""
        if not line.strip() or (not rows and name in FIRST_COLUMNS and not _COUNT.fullmatch(rest)):
            continue
        if match := _FRAME.fullmatch(name):
            kinds.add("frames")
            rows.append((match[1], int(match[2]), name))
        elif name and (rest == "" or _COUNT.fullmatch(rest)):
            kinds.add("numbers" if rest else "videos")
            rows.append((_VIDEO_FILE.sub("", name), int(rest or 0), name))
        else:
            raise UserError(f"{path}:{number}: {line!r} is no '<video>/00001.jpg,', no '<video>,300' and no '<video>'")
        if len(kinds) > 1:
            raise UserError(f"{path}:{number}: {line!r} is of another kind than the lines before: {sorted(kinds)}")
    if not rows:
        raise UserError(f"the list {path} names nothing")
    wanted = pd.DataFrame(rows, columns=["video", "frame", "name"])
    twice = wanted["name"][wanted.duplicated(["video", "frame"] if kinds == {"frames"} else ["video"])]
    if len(twice):
        raise UserError(f"{path} names {len(twice):,} frames or videos more than once, such as {twice.iloc[0]}")
    return wanted if kinds == {"frames"} else _every_frame(path, wanted, None if kinds == {"numbers"} else store)


def _every_frame(path: Path, videos: pd.DataFrame, data: Data | None) -> pd.DataFrame:
    """Frames 1 to ``frame``, or to the last in a store of ``data``, of each row's video."""
    last = videos["frame"]
    if data is not None:
        keys = [FeatureStore(store).keys.astype({"video": "str"}) for store in each_store(data)]
        of_video = pd.concat(keys).groupby("video")["frame"].max()
        last = videos["video"].map(dict(of_video)).fillna(0).astype(int)
    unknown = videos["video"][last < 1]
    if len(unknown):
        raise UserError(
            f"{path} does not say how many frames these {len(unknown)} videos have, and no store does: "
            f"{shortened(unknown)}; write a line such as '{unknown.iloc[0]},300'"
        )
    last = last.to_numpy()
    video = videos["video"].repeat(last).reset_index(drop=True)
    frame = np.arange(len(video)) - np.repeat(np.cumsum(last) - last, last) + 1
    files = pd.Series([f"/{number:05d}.jpg" for number in range(1, last.max() + 1)], dtype="str")
    return pd.DataFrame({"video": video, "frame": frame, "name": video + files.take(frame - 1).to_numpy()})


def check_format(wanted: pd.DataFrame, task: str, form: str) -> None:
    """Raises ``UserError`` where the list cannot be written in the format."""
    if form == "single":
        return
    if task == "mtl":
        raise UserError("the multi-task challenge has no files per video: give --format single")
    gaps = wanted["frame"] != wanted.groupby("video").cumcount() + 1
    if gaps.any():
        raise UserError(
            f"line i of a file per video is frame i, so the list must name frames 1, 2, 3, ... of each video, and "
            f"{wanted['name'][gaps].iloc[0]} is out of place: give --format single"
        )
    outside = [v for v in wanted["video"].unique() if PurePosixPath(v).is_absolute() or ".." in PurePosixPath(v).parts]
    if outside:
        raise UserError(f"a file of its own cannot be written for the video '{outside[0]}'")


def header(task: str, form: str) -> str:
    return HEADERS[task] if form == "per-video" else f"{'image' if task == 'mtl' else 'image_location'},{HEADERS[task]}"


def write(folder: Path, wanted: pd.DataFrame, values: Mapping[str, np.ndarray], task: str, form: str) -> None:
    """Writes values (m, columns) of each of ``TASKS[task]`` for the m wanted frames into ``folder``."""
    columns = [pa.array(wanted["name"], pa.string())] if form == "single" else []
    for what in TASKS[task]:
        for column in values[what].T:
            text = np.char.mod("%.6f", column) if what == "va" else column.astype(np.int64)
            columns.append(pa.array(text).cast(pa.string()))
    lines = pc.binary_join_element_wise(*columns, ",")
    if form == "single":
        _write(folder / PREDICTIONS, header(task, form), lines)
        return
    for video, rows in wanted.groupby("video", sort=False).indices.items():
        _write(folder / f"{video}.txt", header(task, form), lines.take(pa.array(rows)))


def _write(path: Path, first: str, lines: pa.Array) -> None:
    write_text(path, "\n".join([first, *lines.to_pylist()]) + "\n")


def problems(path: Path, wanted: pd.DataFrame, task: str, form: str) -> list[str]:
    """What is wrong with the submission in ``path``, in the order of its lines: header, count, names, values.

    ``path`` is the folder, or the file of a single one. A line is ``file:line: problem``, lines numbered from 1.
    """
    if form == "single":
        file = path / PREDICTIONS if path.is_dir() else path
        return _problems_of_file(file, wanted["name"], len(wanted), task, form)
    if not path.is_dir():
        return [f"{path}: not a folder of files, one a video"]
    counts = wanted.groupby("video", sort=False).size()
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    files = {file for file in files if file != VOUCHED and not file.startswith(f"{FEATURES}/")}
    strays = sorted(files - {f"{video}.txt" for video in counts.index})
    wrong = [f"{path / file}: no video of the list" for file in strays]
    for video, count in counts.items():
        wrong += _problems_of_file(path / f"{video}.txt", None, count, task, form)
    return wrong


def _problems_of_file(path: Path, names: pd.Series | None, count: int, task: str, form: str) -> list[str]:
    if not path.is_file():
        return [f"{path}: there is no such file"]
    if _is_right(path, names, count, task, form):
        return []
    names = None if names is None else names.tolist()
    first, *lines = _read(path).removesuffix("\n").split("\n")
    wanted = header(task, form)
    wrong = [] if first == wanted else [f"{path}:1: the header is {_cut(first)}, and must be '{wanted}'"]
    if len(lines) != count:
        wrong.append(f"{path}: {len(lines):,} lines after the header, and {count:,} frames want one")
    rules = [RULES[what] for what in TASKS[task] for _ in range(NUM_COLUMNS[what])]
    before: dict[str, int] = {}
    for number, line in enumerate(lines, 2):
        fields = line.split(",")
        if names is not None:
            name = fields.pop(0)
            problem = _problem_of_name(name, names[number - 2] if number - 2 < len(names) else None, before.get(name))
            before.setdefault(name, number)
            wrong += [f"{path}:{number}: {problem}"] if problem else []
        if len(fields) != len(rules):
            wrong.append(f"{path}:{number}: {len(fields)} values instead of {len(rules)}: {_cut(line)}")
            continue
        for field, (good, words) in zip(fields, rules, strict=True):
            if not good(field):
                wrong.append(f"{path}:{number}: {_cut(field)} is not {words}")
                break
    return wrong


def _is_right(path: Path, names: pd.Series | None, count: int, task: str, form: str) -> bool:
    """Whether a file is as it must be, by whole columns. False also says that it is odd: then each line is looked at.

    A list of 3 M frames takes a second so, and half a minute line by line.
    """
    content = path.read_bytes()
    first = header(task, form).encode() + b"\n"
    if not content.startswith(first) or not content.endswith(b"\n") or b"\r" in content or b"\n\n" in content:
        return False
    rules = [what for what in TASKS[task] for _ in range(NUM_COLUMNS[what])]
    columns = [str(number) for number in range(len(rules) + (names is not None))]
    try:
        table = csv.read_csv(
            pa.py_buffer(content[len(first) :]),
            csv.ReadOptions(column_names=columns),
            csv.ParseOptions(quote_char=False),
            csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False),
        )
        names_right = names is None or table.column(0).equals(pa.chunked_array([pa.array(names, pa.string())]))
        found = table.columns[-len(rules) :]
        return table.num_rows == count and names_right and all(map(_all_right, rules, found))
    except pa.ArrowInvalid:
        return False


def _all_right(what: str, column: pa.ChunkedArray) -> bool:
    if what != "va":
        return all(map(RULES[what][0], pc.unique(column).to_pylist()))
    if not pc.all(pc.match_substring_regex(column, f"^({_NUMBER.pattern})$")).as_py():
        return False
    return pc.all(pc.less_equal(pc.abs(column.cast(pa.float64())), 1)).as_py()


def _problem_of_name(name: str, wanted: str | None, before: int | None) -> str | None:
    if before is not None:
        return f"{_cut(name)} is there already, in line {before}"
    if name != wanted:
        return f"{_cut(name)}, where the list " + ("has ended" if wanted is None else f"has '{wanted}'")
    return None


def _in_range(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) <= 1


# What a field must be: the test, and in words.
RULES: dict[str, tuple[Callable[[str], bool], str]] = {
    "classes": (set(map(str, range(len(ABAW_CLASSES)))).__contains__, f"an integer from 0 to {len(ABAW_CLASSES) - 1}"),
    "va": (_in_range, "a number from -1 to 1"),
    "aus": ({"0", "1"}.__contains__, "0 or 1"),
}


def shortened(names: Sequence[str], most: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _text(path: Path) -> str:
    """What a file of somebody else holds, by its byte order mark."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return content.decode("utf-16" if utf_16 else "utf-8-sig", errors="replace")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _cut(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "...")
