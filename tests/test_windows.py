import time

import numpy as np
import pandas as pd
import pytest

from pipeline.adapter.windows import Window, held
from pipeline.core import numbering
from pipeline.core.params import UserError

# Row 0 1 2 3 4 | 5 | 6 .. 45: videos of 5, 1 and 40 frames; the last starts late and lacks frame 1725.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 2, 1721, 1722, 1723, 1724, *range(1726, 1762)])


def centred(video, frame, centres, num_frames, step=1, edge="mask"):
    return Window(num_frames, step, edge).over(video, frame).centred(centres)


def sliding(video, frame, wanted, num_frames, step=1, stride=1, edge="mask"):
    return Window(num_frames, step, edge).over(video, frame).sliding(wanted, stride)[0]


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
    rows = centred(VIDEO, FRAME, np.array(list(table)), 5)
    assert rows.dtype == np.int64
    assert rows.tolist() == list(table.values())


def test_an_even_window_has_one_frame_more_before_its_centre():
    assert centred(VIDEO, FRAME, np.array([2, 6]), 4).tolist() == [[0, 1, 2, 3], [-1, -1, 6, 7]]


def test_a_step_counts_frame_numbers_and_not_rows():
    # Around frame 1727 (row 11) by 2: 1723, 1725 (missing), 1727, 1729, 1731.
    assert centred(VIDEO, FRAME, np.array([11]), 5, step=2).tolist() == [[8, -1, 11, 13, 15]]


def test_a_window_of_one_frame_is_its_centre():
    assert centred(VIDEO, FRAME, np.array([45, 0, 5]), 1).tolist() == [[45], [0], [5]]


def test_frames_extracted_every_tenth_are_neighbours_at_step_ten():
    video, frame = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 11, 31, 41, 1, 11])
    assert numbering.common_step(video, frame) == 10
    assert centred(video, frame, np.arange(6), 3, step=10).tolist() == [
        [-1, 0, 1], [0, 1, -1], [-1, 2, 3], [2, 3, -1], [-1, 4, 5], [4, 5, -1],
    ]  # fmt: skip
    assert (centred(video, frame, np.arange(6), 3)[:, [0, 2]] == -1).all()


def test_windows_wider_than_every_video_stay_in_their_video():
    video, frame = np.array([0, 0, 1, 1]), np.array([5, 6, 5, 6])
    rows = centred(video, frame, np.arange(4), 101, step=3)
    assert (np.sort(rows, axis=1)[:, :-1] == -1).all()
    assert rows[:, 50].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 64])
def test_windows_equal_a_lookup_of_each_frame(num_frames, step):
    rng = np.random.default_rng(0)
    keys = np.unique(np.stack([rng.integers(-3, 6, 300) * 10**12, rng.integers(-40, 60, 300)], axis=1), axis=0)
    row_of = {tuple(key): row for row, key in enumerate(keys.tolist())}
    centres = rng.integers(0, len(keys), 200)
    rows = centred(keys[:, 0], keys[:, 1], centres, num_frames, step)
    for centre, window in zip(centres, rows.tolist(), strict=True):
        video, frame = keys[centre].tolist()
        assert window == [row_of.get((video, frame + (j - num_frames // 2) * step), -1) for j in range(num_frames)]


def test_no_centres_give_no_windows():
    assert centred(VIDEO, FRAME, np.array([], dtype=int), 5).shape == (0, 5)


@pytest.mark.parametrize(
    ("video", "frame"), [([0, 0], [2, 1]), ([1, 0], [1, 2]), ([0, 0], [1, 1])], ids=["frames", "videos", "twice"]
)
def test_rows_out_of_order_are_refused(video, frame):
    with pytest.raises(ValueError, match="sorted"):
        centred(np.array(video), np.array(frame), np.array([0]), 3)


def test_sliding_windows_are_the_ones_found_by_hand():
    every = np.arange(len(VIDEO))
    few = every < 13  # videos of 5, 1 and 7 frames: 1721 to 1724 and 1726 to 1728
    found = sliding(VIDEO[few], FRAME[few], every[few], 4, stride=2)
    assert found.tolist() == [
        [0, 1, 2, 3], [2, 3, 4, -1], [5, -1, -1, -1], [6, 7, 8, 9], [8, 9, -1, 10], [-1, 10, 11, 12],
    ]  # fmt: skip
    assert found.dtype == np.int64


def test_sliding_windows_of_some_rows_are_those_that_hold_them():
    every = sliding(VIDEO, FRAME, np.arange(46), 5, stride=3)
    for wanted in ([4], [5, 9], [0, 20, 45], []):
        found = sliding(VIDEO, FRAME, np.array(wanted, dtype=int), 5, stride=3)
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
    found = sliding(keys[:, 0], keys[:, 1], np.arange(len(keys)), num_frames, step, stride)
    assert found.tolist() == expected
    held = np.bincount(found[found >= 0], minlength=len(keys))
    assert held.min() >= 1
    assert held.max() <= -(-num_frames // stride)


def test_a_long_gap_costs_no_windows():
    video, frame = np.zeros(6, dtype=int), np.array([1, 2, 3, 10**12, 10**12 + 1, 10**12 + 2])
    found = sliding(video, frame, np.arange(6), 3, stride=3)
    assert sorted(found[found >= 0]) == [0, 1, 2, 3, 4, 5]
    assert len(found) <= 3


@pytest.mark.parametrize("stride", [0, 4])
def test_sliding_windows_that_would_miss_frames_are_refused(stride):
    with pytest.raises(ValueError, match=f"windows of 3 frames need a stride of 1 to as many, and it is {stride}"):
        sliding(VIDEO, FRAME, np.array([0]), 3, 1, stride)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": 0}, "1 or more frames and spacing, and has 0 and 1"),
        ({"frames": 3, "spacing": 0}, "1 or more frames and spacing, and has 3 and 0"),
        ({"frames": 3, "step": 0}, "a step of 1 or more, and has 0"),
    ],
)
def test_a_window_without_frames_or_step_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Window(**fields)


@pytest.mark.parametrize("step", ["0.04", "-1s", "0s", "s"])
def test_a_step_that_is_no_time_is_refused(step):
    with pytest.raises(UserError, match=f"step must be a number of frames, or seconds such as 0.04s, and is '{step}'"):
        Window(3, step)


def test_an_edge_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"edge 'mirrored' is not one of \['mask', 'mirror'\]"):
        Window(3, edge="mirrored")


def test_mirrored_windows_are_the_ones_found_by_hand():
    """Beyond an end the video runs backwards; the gap at frame 1725 is masked, in the reflection too."""
    table = {
        0: [2, 1, 0, 1, 2],
        2: [0, 1, 2, 3, 4],
        4: [2, 3, 4, 3, 2],
        5: [5, 5, 5, 5, 5],
        6: [8, 7, 6, 7, 8],
        8: [6, 7, 8, 9, -1],
        10: [9, -1, 10, 11, 12],
        45: [43, 44, 45, 44, 43],
    }
    assert centred(VIDEO, FRAME, np.array(list(table)), 5, edge="mirror").tolist() == list(table.values())
    assert centred(VIDEO, FRAME, [2], 13, edge="mirror").tolist() == [[4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]]
    assert centred(VIDEO, FRAME, [0], 5, step=2, edge="mirror").tolist() == [[4, 2, 0, 2, 4]]
    assert centred(VIDEO, FRAME, [6], 11, edge="mirror").tolist() == [[10, -1, 9, 8, 7, 6, 7, 8, 9, -1, 10]]


@pytest.mark.parametrize("num_frames", [1, 6, 40])
def test_mirrored_windows_equal_numpys_reflection(num_frames):
    video, frame = np.repeat([0, 1, 2], [2, 7, 30]), np.concatenate([np.arange(n) for n in (2, 7, 30)])
    rows = centred(video, frame, np.arange(39), num_frames, edge="mirror")
    for centre, window in enumerate(rows.tolist()):
        mine = np.flatnonzero(video == video[centre])
        padded = np.pad(mine, num_frames, mode="reflect")
        start = centre - mine[0] + num_frames - num_frames // 2
        assert window == padded[start : start + num_frames].tolist()


def test_a_sliding_window_is_mirrored_at_the_end_of_its_video_and_says_which_places_lie_beyond():
    few = np.arange(13)
    found, inside = Window(4, 1, "mirror").over(VIDEO[few], FRAME[few]).sliding(few, 2)
    assert found.tolist() == [
        [0, 1, 2, 3], [2, 3, 4, 3], [5, 5, 5, 5], [6, 7, 8, 9], [8, 9, -1, 10], [-1, 10, 11, 12],
    ]  # fmt: skip
    assert inside.tolist() == [[True] * 4, [True] * 3 + [False], [True] + [False] * 3, *[[True] * 4] * 3]


# --- steps in seconds

FPS = {"a": 25, "b": 60, "c": 25, "d": 60}
# a and b have all their frames, c every fifth, d every second.
TIMED = [("a", f) for f in range(1, 13)] + [("b", f) for f in range(1, 41)]
TIMED += [("c", f) for f in range(1, 100, 5)] + [("d", f) for f in range(1, 60, 2)]


@pytest.fixture
def timed(tmp_path):
    """Codes, frame numbers, names and the table of rates."""
    pd.DataFrame(FPS.items(), columns=["video", "fps"]).to_csv(tmp_path / "fps.csv", index=False)
    video, frame = zip(*TIMED, strict=True)
    return np.array(["abcd".index(v) for v in video]), np.array(frame), list("abcd"), tmp_path / "fps.csv"


@pytest.mark.parametrize(
    ("step", "around", "frames"),
    [
        ("0.04s", ("a", 5), [3, 4, 5, 6, 7]),
        ("0.04s", ("b", 10), [5, 8, 10, 12, 15]),  # 2.4 frames a step
        ("0.04s", ("c", 51), [51, 51, 51, 51, 51]),  # which has a frame every 0.2 s
        ("0.04s", ("d", 21), [17, 19, 21, 23, 25]),  # 1.2 frames a step
        ("0.2 s", ("a", 12), [2, 7, 12, None, None]),
        ("0.2 s", ("b", 25), [1, 13, 25, 37, None]),
        ("0.2 s", ("c", 51), [41, 46, 51, 56, 61]),
        ("0.02s", ("a", 5), [4, 5, 5, 5, 6]),  # half a frame is nearer to the centre
    ],
)
def test_a_step_in_seconds_takes_the_nearest_frame_of_each_video(timed, step, around, frames):
    video, frame, videos, fps = timed
    (rows,) = Window(5, step).over(video, frame, videos, fps).centred([TIMED.index(around)])
    assert [None if row < 0 else TIMED[row] for row in rows] == [f and (around[0], f) for f in frames]


@pytest.mark.parametrize("step", [0.013, 0.053, 0.113])
def test_frames_at_a_step_in_seconds_equal_a_search_by_time(timed, step):
    """Over all places of a video where a frame could be: the nearest in time, missing where it is missing."""
    video, frame, videos, fps = timed
    kept = np.random.default_rng(0).random(len(video)) < 0.9
    kept[::7] = True
    video, frame = video[kept], frame[kept]
    unit = dict(zip("abcd", (1, 1, 5, 2), strict=True))
    row_of = {key: row for row, key in enumerate(zip(video, frame, strict=True))}
    rows = Window(7, f"{step}s").over(video, frame, videos, fps).centred(np.arange(len(video)))
    for centre, window in enumerate(rows.tolist()):
        name = videos[video[centre]]
        places = frame[centre] + unit[name] * np.arange(-60, 61)
        for j, row in enumerate(window):
            late = np.abs((places - frame[centre]) / FPS[name] - (j - 3) * step)
            assert row == row_of.get((video[centre], places[late.argmin()]), -1)


@pytest.mark.parametrize("step", ["0.013s", "0.05s", "0.11s"])
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_windows_that_slide_by_seconds_hold_every_frame_and_are_windows_of_that_step(timed, step, stride):
    video, frame, videos, fps = timed
    found, inside = Window(7, step).over(video, frame, videos, fps).sliding(np.arange(len(video)), stride)
    assert set(found[found >= 0]) == set(range(len(video)))
    assert ((found < 0) | inside).all()
    rates, units = np.array(list(FPS.values())), np.array([1, 1, 5, 2])
    for window in found:
        places, rows = np.flatnonzero(window >= 0), window[window >= 0]
        assert len(set(video[rows])) == 1
        seconds = (frame[rows] - frame[rows[0]]) / rates[video[rows]]
        expected = (places - places[0]) * float(step[:-1])
        assert np.abs(seconds - expected).max() <= (units / rates)[video[rows[0]]] + 1e-9


def test_a_step_in_seconds_without_the_rate_of_a_video_is_refused_with_the_way_out(timed, tmp_path):
    video, frame, videos, _ = timed
    with pytest.raises(UserError, match=r"the step of the windows is 0.04s, and seconds need --fps: .*columns video"):
        Window(5, "0.04s").over(video, frame, videos)
    pd.DataFrame([("a", 25), ("c", 25)], columns=["video", "fps"]).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(UserError, match=r"few.csv has no rate for 2 of the videos, such as b: add a row for each"):
        Window(5, "0.04s").over(video, frame, videos, tmp_path / "few.csv")
    alone = Window(3, "0.04s").over([0, 1, 1], [1, 1, 2], ["alone", "a"], tmp_path / "few.csv")
    assert alone.centred([0, 1]).tolist() == [[-1, 0, -1], [-1, 1, 2]]


def test_the_windows_of_a_large_data_set_take_seconds_at_most():
    video, frame = np.repeat(np.arange(200), 5000), np.tile(np.arange(5000), 200)
    start = time.process_time()
    rows = centred(video, frame, np.arange(0, 600_000), 15)
    assert time.process_time() - start < 8  # 1 s alone on one core
    assert rows.shape == (600_000, 15)


def test_windows_that_lack_frames_are_said_with_the_videos_that_lack_most():
    count, video = np.array([5, 4, 3, 1, 2, 1]), np.array([0, 0, 0, 4, 4, 2])
    said = held(count, 5, video, ["a", "b", "c", "d", "e"])
    assert said == "windows of 5 hold 2.7 frames on average; less than half in 2 of 3 videos, such as c"
    assert held(count[:3], 5, video[:3], ["a"]) == "windows of 5 hold 4.0 frames on average"
    assert held(np.full(3, 5), 5, np.zeros(3, dtype=int), ["a"]) is None
