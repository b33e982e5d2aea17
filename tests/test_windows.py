import time

import numpy as np
import pytest

from pipeline.adapter import windows
from pipeline.core import numbering

# Row 0 1 2 3 4 | 5 | 6 .. 45: videos of 5, 1 and 40 frames; the last starts late and lacks frame 1725.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 2, 1721, 1722, 1723, 1724, *range(1726, 1762)])


def test_windows_are_the_ones_found_by_hand():
    table = {
        0: [-1, -1, 0, 1, 2],
        2: [0, 1, 2, 3, 4],
        4: [2, 3, 4, -1, -1],
        5: [-1, -1, 5, -1, -1],
        6: [-1, -1, 6, 7, 8],
        9: [7, 8, 9, -1, 10],
        10: [9, -1, 10, 11, 12],
        45: [43, 44, 45, -1, -1],
    }
    rows = windows.centred(VIDEO, FRAME, np.array(list(table)), 5)
    assert rows.dtype == np.int64
    assert rows.tolist() == list(table.values())


def test_an_even_window_has_one_frame_more_before_its_centre():
    assert windows.centred(VIDEO, FRAME, np.array([2, 6]), 4).tolist() == [[0, 1, 2, 3], [-1, -1, 6, 7]]


def test_a_step_counts_frame_numbers_and_not_rows():
    # Around frame 1727 (row 11) by 2: 1723, 1725 (missing), 1727, 1729, 1731.
    assert windows.centred(VIDEO, FRAME, np.array([11]), 5, step=2).tolist() == [[8, -1, 11, 13, 15]]


def test_a_window_of_one_frame_is_its_centre():
    assert windows.centred(VIDEO, FRAME, np.array([45, 0, 5]), 1).tolist() == [[45], [0], [5]]


def test_frames_extracted_every_tenth_are_neighbours_at_step_ten():
    video, frame = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 11, 31, 41, 1, 11])
    assert numbering.common_step(video, frame) == 10
    assert windows.centred(video, frame, np.arange(6), 3, step=10).tolist() == [
        [-1, 0, 1], [0, 1, -1], [-1, 2, 3], [2, 3, -1], [-1, 4, 5], [4, 5, -1],
    ]  # fmt: skip
    assert (windows.centred(video, frame, np.arange(6), 3)[:, [0, 2]] == -1).all()


def test_windows_wider_than_every_video_stay_in_their_video():
    video, frame = np.array([0, 0, 1, 1]), np.array([5, 6, 5, 6])
    rows = windows.centred(video, frame, np.arange(4), 101, step=3)
    assert (np.sort(rows, axis=1)[:, :-1] == -1).all()
    assert rows[:, 50].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 64])
def test_windows_equal_a_lookup_of_each_frame(num_frames, step):
    rng = np.random.default_rng(0)
    keys = np.unique(np.stack([rng.integers(-3, 6, 300) * 10**12, rng.integers(-40, 60, 300)], axis=1), axis=0)
    row_of = {tuple(key): row for row, key in enumerate(keys.tolist())}
    centres = rng.integers(0, len(keys), 200)
    rows = windows.centred(keys[:, 0], keys[:, 1], centres, num_frames, step)
    for centre, window in zip(centres, rows.tolist(), strict=True):
        video, frame = keys[centre].tolist()
        assert window == [row_of.get((video, frame + (j - num_frames // 2) * step), -1) for j in range(num_frames)]


def test_no_centres_give_no_windows():
    assert windows.centred(VIDEO, FRAME, np.array([], dtype=int), 5).shape == (0, 5)


@pytest.mark.parametrize(
    ("video", "frame"), [([0, 0], [2, 1]), ([1, 0], [1, 2]), ([0, 0], [1, 1])], ids=["frames", "videos", "twice"]
)
def test_rows_out_of_order_are_refused(video, frame):
    with pytest.raises(ValueError, match="sorted"):
        windows.centred(np.array(video), np.array(frame), np.array([0]), 3)


def test_sliding_windows_are_the_ones_found_by_hand():
    every = np.arange(len(VIDEO))
    few = every < 13  # videos of 5, 1 and 7 frames: 1721 to 1724 and 1726 to 1728
    found = windows.sliding(VIDEO[few], FRAME[few], every[few], 4, stride=2)
    assert found.tolist() == [
        [0, 1, 2, 3], [2, 3, 4, -1], [5, -1, -1, -1], [6, 7, 8, 9], [8, 9, -1, 10], [-1, 10, 11, 12],
    ]  # fmt: skip
    assert found.dtype == np.int64


def test_sliding_windows_of_some_rows_are_those_that_hold_them():
    every = windows.sliding(VIDEO, FRAME, np.arange(46), 5, stride=3)
    for wanted in ([4], [5, 9], [0, 20, 45], []):
        found = windows.sliding(VIDEO, FRAME, np.array(wanted, dtype=int), 5, stride=3)
        assert found.tolist() == [w for w in every.tolist() if set(w) & set(wanted)]


@pytest.mark.parametrize(("num_frames", "step", "stride"), [(1, 1, 1), (5, 1, 1), (5, 1, 5), (6, 3, 4), (64, 2, 7)])
def test_sliding_windows_equal_a_loop_over_videos_and_places(num_frames, step, stride):
    rng = np.random.default_rng(1)
    keys = np.unique(np.stack([rng.integers(0, 6, 300) * 10**12, rng.integers(-40, 90, 300)], axis=1), axis=0)
    row_of = {tuple(key): row for row, key in enumerate(keys.tolist())}
    expected = []
    for video in np.unique(keys[:, 0]):
        mine = keys[keys[:, 0] == video, 1]
        for rest in range(step):
            series = mine[(mine - mine[0]) % step == rest]
            start = series[0] if len(series) else np.inf
            while start <= (series[-1] if len(series) else -np.inf):
                window = [row_of.get((int(video), int(start) + j * step), -1) for j in range(num_frames)]
                if max(window) >= 0:
                    expected.append(window)
                if start + (num_frames - 1) * step >= series[-1]:
                    break
                start += stride * step
    found = windows.sliding(keys[:, 0], keys[:, 1], np.arange(len(keys)), num_frames, step, stride)
    assert found.tolist() == expected
    held = np.bincount(found[found >= 0], minlength=len(keys))
    assert held.min() >= 1
    assert held.max() <= -(-num_frames // stride)


def test_a_long_gap_costs_no_windows():
    video, frame = np.zeros(6, dtype=int), np.array([1, 2, 3, 10**12, 10**12 + 1, 10**12 + 2])
    found = windows.sliding(video, frame, np.arange(6), 3, stride=3)
    assert sorted(found[found >= 0]) == [0, 1, 2, 3, 4, 5]
    assert len(found) <= 3


@pytest.mark.parametrize(("num_frames", "step", "stride"), [(0, 1, 1), (3, 0, 1), (3, 1, 0), (3, 1, 4)])
def test_sliding_windows_that_would_miss_frames_are_refused(num_frames, step, stride):
    with pytest.raises(ValueError, match=f"have {num_frames}, {step} and {stride}"):
        windows.sliding(VIDEO, FRAME, np.array([0]), num_frames, step, stride)


@pytest.mark.parametrize(("num_frames", "step"), [(0, 1), (3, 0)])
def test_a_window_without_frames_or_step_is_refused(num_frames, step):
    with pytest.raises(ValueError, match=f"{num_frames} and {step}"):
        windows.centred(VIDEO, FRAME, np.array([0]), num_frames, step)


def test_the_windows_of_a_large_data_set_take_seconds_at_most():
    video, frame = np.repeat(np.arange(200), 5000), np.tile(np.arange(5000), 200)
    start = time.perf_counter()
    rows = windows.centred(video, frame, np.arange(0, 600_000), 15)
    assert time.perf_counter() - start < 8  # 1 s alone on one core
    assert rows.shape == (600_000, 15)


def test_windows_that_lack_frames_are_said_with_the_videos_that_lack_most():
    count, video = np.array([5, 4, 3, 1, 2, 1]), np.array([0, 0, 0, 4, 4, 2])
    said = windows.held(count, 5, video, ["a", "b", "c", "d", "e"])
    assert said == "windows of 5 hold 2.7 frames on average; less than half in 2 of 3 videos, such as c"
    assert windows.held(count[:3], 5, video[:3], ["a"]) == "windows of 5 hold 4.0 frames on average"
    assert windows.held(np.full(3, 5), 5, np.zeros(3, dtype=int), ["a"]) is None
