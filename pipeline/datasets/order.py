"""Which number in the name of a file is the number of its frame.

Names such as ``1_0.jpg``, ``frame1of12.jpg`` and ``S010_004_00000015.png`` hold several numbers. The frame's is the one
that differs between all files of every video. Where several do, and put the files in different orders, nobody but the
user can know it: ``dataset.frame_number`` says it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core.params import UserError

HOW_TO_SAY = "say which with dataset.frame_number in params.yaml, or --frame-number"
LARGEST = 2**62  # a longer number is no count of frames, and fits no int64
MOST_JITTER = 0.25  # of a step: times that were rounded to a few digits still count as evenly spaced
_WHOLE = re.compile(r"\d+", re.ASCII)
_DECIMAL = re.compile(r"(?<![\d.,])(\d+)[.,](\d+)(?![.,]?\d)", re.ASCII)
_EITHER = re.compile(r"(?<![\d.,])\d+[.,]\d+(?![.,]?\d)|\d+", re.ASCII)


def check_choice(dataset: str, choice: int | str | None, *, order: bool) -> None:
    """Raises ``UserError`` for a ``frame_number`` that means nothing; ``order``: whether the reader can count files."""
    if (isinstance(choice, int) and choice != 0) or choice is None or (order and choice == "order"):
        return
    words = "or order" if order else "and this reader needs a number"
    raise UserError(
        f"data set '{dataset}': frame_number must be 1 for the first number in a name, 2 for the second, -1 for the "
        f"last, {words}, and is {choice!r}"
    )


def frame_numbers(
    dataset: str, videos: Mapping[str, Sequence[str]], choice: int | str | None, *, by_row: bool = False
) -> tuple[dict[str, list[int | None]], dict[str, Any]]:
    """The frame number of each file of each video; and each rule that was used, with the videos it was used for.

    ``videos`` holds the names of a video's files, none twice. ``choice`` is ``dataset.frame_number``. Files that no
    number tells apart are counted from 0, as their names sort, or with ``by_row`` as they are given. None stands for a
    file without the number that was chosen. Raises ``UserError`` where it is not clear which number counts.
    """
    check_choice(dataset, choice, order=True)
    stems = {video: [_stem(name) for name in names] for video, names in videos.items()}
    field = _EITHER if _has_decimals(stems.values()) else _WHOLE
    fields = {video: _fields(own, field) for video, own in stems.items()}
    if choice is None:
        chosen = _chosen(dataset, videos, fields)
    else:
        chosen = dict.fromkeys(videos, None if choice == "order" else choice - (choice > 0))
    numbers: dict[str, list[int | None]] = {}
    rules: dict[str, list[str]] = {}
    for video, column in chosen.items():
        numbers[video], rule = _numbers(dataset, video, videos[video], fields[video], column, field, by_row)
        rules.setdefault(rule, []).append(video)
    return numbers, {rule: _with_examples(own, videos, numbers) for rule, own in sorted(rules.items())}


def in_steps(values: Sequence[float]) -> tuple[list[int], str]:
    """Whole numbers in the order of ``values``, all different, and how they were made.

    Whole values stay. Others, such as seconds, are counted from 0 in steps of the least distance, so that a gap stays
    a gap; where the distances are no multiples of it, they are counted one by one.
    """
    if all(isinstance(value, int) or value == int(value) for value in values):
        return list(map(int, values)), ""
    values = np.asarray(values, dtype=np.float64)
    rising, place = np.unique(values, return_inverse=True)
    distance = np.diff(rising)
    step = distance[distance < 1.5 * distance.min()].mean() if len(distance) else 1.0  # the mean: they may be rounded
    steps = distance / step
    if (np.abs(steps - np.round(steps)) <= MOST_JITTER).all():
        count, how = np.concatenate([[0], np.cumsum(np.round(steps))]), "in even steps, from 0"
    else:
        count, how = np.arange(len(rising)), "without an even step: counted one by one, from 0"
    return count.astype(np.int64)[place].tolist(), how


def _with_examples(
    own: list[str], videos: Mapping[str, Sequence[str]], numbers: Mapping[str, list[int | None]]
) -> dict[str, Any]:
    """How many videos a rule was used for, and what it made of a name in each of the first three."""
    examples = []
    for video in own[:3]:
        name, number = min(zip(videos[video], numbers[video], strict=True), key=lambda pair: natural(pair[0]))
        examples.append(f"{video}: '{name}' is {number}")
    return {"count": len(own), "first": examples}


def _stem(name: str) -> str:
    """``1_0`` of ``a/1_0.jpg``; every name has an extension."""
    return name.rpartition("/")[2].rpartition(".")[0]


def _has_decimals(stems: Iterable[Sequence[str]]) -> bool:
    """Whether a point between digits marks a decimal, as in ``0.04`` and ``1.00``, and is no separator, as in ``1.10``.

    Programs write decimals with one number of digits after the point, or without zeros at the end. A fixed whole part
    but 0, with as many digits everywhere, is read as a number of its own: that is the same order.
    """
    places: set[int] = set()
    zero_at_end, varies, below_one = False, False, True
    for own in stems:
        text = "\n".join(own)
        if "." not in text and "," not in text:
            continue
        wholes = set()
        for whole, part in _DECIMAL.findall(text):
            wholes.add(int(whole))
            places.add(len(part))
            zero_at_end |= len(part) > 1 and part[-1] == "0"
        varies |= len(wholes) > 1
        below_one &= wholes <= {0}
    return bool(places) and (below_one or varies if len(places) == 1 else not zero_at_end)


def _chosen(
    dataset: str, videos: Mapping[str, Sequence[str]], fields: Mapping[str, list[tuple[float, ...]]]
) -> dict[str, int | None]:
    """Video -> which of the numbers in its names is the frame's, from 0; None where none tells its files apart.

    One choice is made for all videos with as many numbers in their names.
    """
    chosen: dict[str, int | None] = {}
    alike: dict[int, dict[str, np.ndarray]] = {}
    unclear: dict[str, list[int]] = {}
    for video, rows in fields.items():
        lengths = {len(row) for row in rows}
        if max(lengths) <= 1:
            chosen[video] = 0 if lengths == {1} and _all_differ([n for (n,) in rows]) else None
        elif len(lengths) > 1:
            unclear[video] = list(range(max(lengths)))
        else:
            alike.setdefault(lengths.pop(), {})[video] = np.array(rows)
    for count, group in alike.items():
        several = {video: values for video, values in group.items() if len(values) > 1}
        distinct = {
            video: {j for j in range(count) if _all_differ(values[:, j].tolist())} for video, values in several.items()
        }
        fitting = sorted(set(range(count)).intersection(*distinct.values()))
        orders = {video: {tuple(np.argsort(v[:, j]).tolist()) for j in fitting} for video, v in several.items()}
        if not several:
            column = count - 1
        elif not fitting:
            always = Counter(j for own in distinct.values() for j in own)
            usual = max(always, key=always.get, default=None)
            wrong = [video for video, own in distinct.items() if usual not in own]
            varying = [j for j in range(count) if any(np.ptp(values[:, j]) for values in several.values())]
            unclear |= dict.fromkeys(wrong, varying)
            continue
        elif disagreeing := [video for video, own in orders.items() if len(own) > 1]:
            unclear |= dict.fromkeys(disagreeing, fitting)
            continue
        else:  # all give one order: the one that counts the closest, the last of them if they are alike
            column = min(fitting, key=lambda j: (sum(np.ptp(v[:, j]) for v in several.values()), -j))
        chosen |= dict.fromkeys(group, column)
    if unclear:
        raise _unclear(dataset, videos, fields, unclear)
    return {video: chosen[video] for video in videos}


def _unclear(
    dataset: str,
    videos: Mapping[str, Sequence[str]],
    fields: Mapping[str, list[tuple[float, ...]]],
    unclear: Mapping[str, list[int]],
) -> UserError:
    """The error that asks: one video's names, and what each number in them would make of those."""
    video, columns = next(iter(sorted(unclear.items())))
    few = sorted(zip(videos[video], fields[video], strict=True), key=lambda pair: natural(pair[0]))[:4]
    candidates = [
        f"{j + 1} gives {', '.join(str(row[j]) if j < len(row) else 'none' for _, row in few)}" for j in columns
    ]
    return UserError(
        f"data set '{dataset}': it is not clear which number in a file's name is its frame's, in {len(unclear):,} of "
        f"{len(videos):,} videos, such as '{video}' with {', '.join(name for name, _ in few)}\n"
        f"  number {'; number '.join(candidates)}; -1 is the last; order counts the files from 0\n  {HOW_TO_SAY}"
    )


def _numbers(
    dataset: str,
    video: str,
    names: Sequence[str],
    fields: list[tuple[float, ...]],
    column: int | None,
    field: re.Pattern,
    by_row: bool,
) -> tuple[list[int | None], str]:
    """The frame numbers of one video, and the rule in words."""
    if column is None and by_row:
        return list(range(len(names))), "the order of the rows, from 0"
    if column is None:
        rank = {name: i for i, name in enumerate(sorted(names, key=lambda name: natural(name, field)))}
        return [rank[name] for name in names], "the order of the names, from 0"
    there = [-len(row) <= column < len(row) and row[column] < LARGEST for row in fields]
    whole, how = in_steps([row[column] for row, has in zip(fields, there, strict=True) if has])
    if len(set(whole)) < len(whole):
        named_first: dict[int, str] = {}
        for name, n in zip((name for name, has in zip(names, there, strict=True) if has), whole, strict=True):
            if named_first.setdefault(n, name) != name:
                one, other = sorted([named_first[n], name])
                raise UserError(
                    f"data set '{dataset}': '{one}' and '{other}' are the same frame of '{video}'; keep one, or "
                    f"{HOW_TO_SAY}"
                )
    rest = iter(whole)
    numbers = [next(rest) if has else None for has in there]
    most = max(map(len, fields))
    which = "the last number" if column == -1 else "the number" if most == 1 else f"number {column + 1} of {most}"
    return numbers, f"{which} in the name{', a decimal ' + how if how else ''}"


def _fields(stems: list[str], field: re.Pattern) -> list[tuple[float, ...]]:
    """The numbers in each name; a name that is one alone, as most are, needs no search."""
    together = "".join(stems)
    if together.isdecimal() and together.isascii() and all(stems):
        return [(n,) for n in map(int if max(map(len, stems)) <= 19 else _value, stems)]
    return [tuple(map(_value, texts)) for texts in map(field.findall, stems)]


def _all_differ(values: list[float]) -> bool:
    return len(set(values)) == len(values) and max(values) < LARGEST


def natural(name: str, field: re.Pattern = _WHOLE) -> tuple:
    """A key by which names sort as people count: ``a9`` before ``a10``."""
    texts, numbers = field.split(name.lower()), field.findall(name)
    return *(x for pair in zip(texts, map(_value, numbers), strict=False) for x in pair), texts[-1], name


def _value(text: str) -> float | int:
    if len(text) <= 19 and text.isdecimal():
        return int(text)
    return float(text.replace(",", "."))
