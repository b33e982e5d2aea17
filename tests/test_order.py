"""Which number in a file's name is its frame's."""

import random

import numpy as np
import pytest

from pipeline.core.params import UserError
from pipeline.datasets import readers
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.index import describe, summary
from pipeline.datasets.order import frame_numbers, in_steps


def order(names: list[str], choice=None) -> list[str]:
    """The names of one video by the frame numbers that they get; the order in which they come is random."""
    mixed = random.Random(0).sample(names, len(names))
    numbers, _ = frame_numbers("x", {"v": mixed}, choice)
    assert len(set(numbers["v"])) == len(names)
    return [name for _, name in sorted(zip(numbers["v"], mixed, strict=True))]


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}_0.jpg" for i in range(1, 13)],  # frame_face, as OpenFace and many scripts write them
        [f"frame{i}of12.jpg" for i in range(1, 13)],
        [f"S010_004_{i:08d}.png" for i in (1, 2, 9, 10, 11)],
        [f"{i / 25:.2f}.jpg" for i in range(1, 26)],
        ["0.5.jpg", "1.25.jpg", "2.0.jpg"],
        [f"{i / 4}.jpg" for i in range(45)],  # 0.0, 0.25, ..., 10.75, 11.0
        [f"shot3.{i}.jpg" for i in range(8, 12)],  # 3.8, 3.9, 3.10, 3.11: a point that marks no decimal
        [f"clip.{i:04d}.jpg" for i in (1, 2, 10)],
        [f"2023.01.05_{i}.jpg" for i in (9, 10, 100)],
        [f"IMG_20230105_1200{i:02d}_{n}.jpg" for n, i in enumerate([1, 1, 2, 59], start=8)],
        [f"{1672531200033333333 + 33333333 * i}.png" for i in range(12)],  # nanoseconds
        ["a.jpg", "b.jpg", "c9.jpg", "c10.jpg"],
    ],
)
def test_frames_come_in_the_order_that_people_count_in(names):
    assert order(names) == names


def test_numbers_stay_as_they_are_and_only_decimals_become_steps():
    numbers, rules = frame_numbers("x", {"v": ["12_0.jpg", "7_0.jpg"], "w": ["3_1.jpg"]}, None)
    assert numbers == {"v": [12, 7], "w": [3]}
    assert rules == {"number 1 of 2 in the name": {"count": 2, "first": ["v: '7_0.jpg' is 7", "w: '3_1.jpg' is 3"]}}


def test_times_rounded_to_milliseconds_over_an_hour_count_every_frame_and_every_gap():
    frames = np.delete(np.arange(0, 108_000), [5, 6, 7, 60_000])  # of 29.97 a second
    numbers, how = in_steps([round(float(frame) / 29.97, 3) for frame in frames])
    assert numbers == frames.tolist()
    assert how == "in even steps, from 0"
    assert in_steps([round(frame / 30, 2) for frame in frames.tolist()])[0] == frames.tolist()
    numbers, how = in_steps([0.1, 0.25, 0.73, 0.3])  # no step is common to them
    assert numbers == [0, 1, 3, 2]
    assert "counted one by one" in how


@pytest.mark.parametrize(
    ("videos", "shown"),
    [
        ({"v": ["1_0.jpg", "2_0.jpg"], "w": ["5_0.jpg", "5_1.jpg"]}, "'w' with 5_0.jpg, 5_1.jpg"),  # two faces
        (
            {"v": ["0.87_12.jpg", "0.93_3.jpg", "0.55_5.jpg"]},
            "number 1 gives 0.55, 0.87, 0.93; number 2 gives 5, 12, 3",
        ),
        ({"v": ["f1 (1).jpg", "f2.jpg"]}, "number 1 gives 1, 2; number 2 gives 1, none"),
        ({"v": ["1_1.jpg", "1_2.jpg", "2_1.jpg"]}, "number 1 gives 1, 1, 2; number 2 gives 1, 2, 1"),  # part_frame
    ],
)
def test_where_it_is_not_clear_which_number_counts_the_user_is_asked(videos, shown):
    with pytest.raises(UserError) as error:
        frame_numbers("x", videos, None)
    assert shown in str(error.value)
    assert "dataset.frame_number in params.yaml, or --frame-number" in str(error.value)


def test_what_the_user_says_decides():
    videos = {"v": ["0.87_12.jpg", "0.93_3.jpg", "0.55_5.jpg"]}
    assert frame_numbers("x", videos, 2)[0] == frame_numbers("x", videos, -1)[0] == {"v": [12, 3, 5]}
    assert frame_numbers("x", videos, "order") == (
        {"v": [1, 2, 0]},
        {"the order of the names, from 0": {"count": 1, "first": ["v: '0.55_5.jpg' is 0"]}},
    )
    assert frame_numbers("x", {"v": ["a.jpg", "2.jpg"]}, 1)[0] == {"v": [None, 2]}
    for wrong in (0, "first", 1.5):
        with pytest.raises(UserError, match="frame_number must be 1 for the first number"):
            frame_numbers("x", videos, wrong)
    with pytest.raises(UserError, match=r"'1_1.jpg' and '1_2.jpg' are the same frame of 'v'"):
        frame_numbers("x", {"v": ["1_2.jpg", "1_1.jpg"]}, 1)


def test_class_folders_are_read_in_that_order_and_the_rule_is_printed(tmp_path):
    for i in range(1, 13):
        (tmp_path / "happy" / "clip").mkdir(parents=True, exist_ok=True)
        (tmp_path / "happy" / "clip" / f"{i}_0.jpg").write_bytes(b"x")
    found = readers.read(DatasetConfig(name="folder", root=tmp_path))
    assert found.frames.table.sort_values("frame")["path"].tolist() == [f"happy/clip/{i}_0.jpg" for i in range(1, 13)]
    printed = summary(describe(found.frames, found.labels) | found.report)
    assert "frame numbers: number 1 of 2 in the name, in 1 videos (happy/clip: '1_0.jpg' is 1)" in printed
