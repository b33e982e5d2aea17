import itertools
import math

import formulas
import numpy as np
import pytest

from pipeline.metrics.steadiness import flips, lateness, neighbours, steadiness, switches

# Videos of 5, 1 and 40 frames, D = 4; the last starts late and lacks frame 1725.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 6, 1721, 1722, 1723, 1724, *range(1726, 1762)])
LABEL = np.r_[[0, 0, 1, 1, 1], [0], [2] * 20, [1] * 20]
ROWS = np.random.default_rng(0).standard_normal((46, 4)) + 1
PREDICTED = np.random.default_rng(1).integers(0, 3, 46)


def once(measure, *arguments):
    """The numbers where each video is a group and counts once; ``arguments`` are those of the measure's function."""
    video = arguments[2]
    groups = np.unique(video, return_inverse=True)[1]
    return {
        name: float(value[0])
        for name, value in measure(*arguments, groups=groups)(np.ones((1, groups.max(initial=-1) + 1))).items()
    }


@pytest.mark.parametrize("step", [1, 2, 3, 39, 40, 1000])
def test_neighbours_are_a_step_apart_in_one_video_and_never_across_a_gap(step):
    first, second = neighbours(VIDEO, FRAME, step)
    expected = [
        (i, j) for i, j in itertools.combinations(range(46), 2) if VIDEO[i] == VIDEO[j] and FRAME[j] - FRAME[i] == step
    ]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


def test_the_last_frame_of_a_video_is_no_neighbour_of_the_next_video():
    for frame in ([1, 2, 3, 4], [1, 2, 1, 2]):
        first, second = neighbours(np.array([0, 0, 1, 1]), np.array(frame), 1)
        assert (first.tolist(), second.tolist()) == ([0, 2], [1, 3])


def test_no_frames_have_no_neighbours():
    nothing = np.zeros(0, dtype=np.int64)
    assert [len(rows) for rows in neighbours(nothing, nothing, 1)] == [0, 0]


def test_steadiness_is_that_of_a_double_loop():
    expected = formulas.steadiness(ROWS, LABEL, VIDEO, FRAME, 1)
    assert once(steadiness, ROWS, LABEL, VIDEO, FRAME, 1) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("step", [1, 2])
def test_flips_and_lateness_are_those_of_a_loop(step):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        label = np.where(rng.random(46) < 0.3, rng.integers(0, 3, 46), LABEL)
        predicted = np.where(rng.random(46) < 0.5, label, rng.integers(0, 3, 46))
        arguments = (predicted, label, VIDEO, FRAME, step)
        found = once(flips, label, predicted, VIDEO, FRAME, step) | once(lateness, label, predicted, VIDEO, FRAME, step)
        expected = {"flips_per_100": formulas.flips_per_100(*arguments)} | formulas.lateness(*arguments)
        assert found == pytest.approx(expected, nan_ok=True)


def test_two_videos_that_each_stand_still_at_a_right_angle_are_as_steady_as_can_be():
    rows = np.repeat(np.eye(4)[:2], [5, 40], axis=0) * np.arange(1, 46)[:, None]  # lengths do not count
    video, frame = np.repeat([0, 1], [5, 40]), np.r_[np.arange(5), np.arange(40)]
    label, predicted = np.zeros(45, dtype=int), np.r_[[0, 1, 0, 1, 0], [1] * 40]
    found = once(steadiness, rows, label, video, frame, 1)
    expected = {
        "cosine_neighbours": 1, "cosine_strangers": 0, "cosine_same_video": 1, "steadiness": 1,
        "steadiness_in_video": math.nan,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert once(flips, label, predicted, video, frame, 1) == pytest.approx({"flips_per_100": 100 * 4 / 43})


def test_frames_like_strangers_have_no_steadiness():
    rows = np.random.default_rng(2).standard_normal((2000, 4)) + 3 * np.eye(4)[0]
    video, frame = np.repeat([0, 1], 1000), np.tile(np.arange(1000), 2)
    label = np.zeros(2000, dtype=int)
    found = once(steadiness, rows, label, video, frame, 1)
    assert found["cosine_neighbours"] > 0.7
    assert abs(found["steadiness"]) < 0.05


def test_a_network_that_gives_one_point_for_everything_is_not_called_steady():
    found = once(steadiness, np.full((46, 4), 0.3), LABEL, VIDEO, FRAME, 1)
    assert found["cosine_strangers"] == pytest.approx(1)
    assert math.isnan(found["steadiness"])


def test_a_single_video_has_neighbours_but_no_strangers():
    found = once(steadiness, ROWS[:5], LABEL[:5], VIDEO[:5], FRAME[:5], 1)
    assert found["cosine_neighbours"] == pytest.approx(
        np.mean(
            [formulas.cosine(ROWS[0], ROWS[1]), formulas.cosine(ROWS[2], ROWS[3]), formulas.cosine(ROWS[3], ROWS[4])]
        )
    )
    flipped = once(flips, LABEL[:5], np.array([0, 1, 1, 2, 2]), VIDEO[:5], FRAME[:5], 1)
    assert flipped["flips_per_100"] == pytest.approx(200 / 3)
    assert math.isnan(found["cosine_strangers"])
    assert math.isnan(found["steadiness"])


def test_videos_of_one_frame_have_strangers_but_no_neighbours():
    found = once(steadiness, ROWS[:3], LABEL[:3], np.array([0, 1, 2]), np.array([1, 2, 3]), 1)
    assert found["cosine_strangers"] == pytest.approx(
        np.mean([formulas.cosine(ROWS[a], ROWS[b]) for a, b in itertools.combinations(range(3), 2)])
    )
    assert [name for name, value in found.items() if math.isnan(value)] == [
        "cosine_neighbours", "cosine_same_video", "steadiness", "steadiness_in_video",
    ]  # fmt: skip


@pytest.mark.parametrize("weights", [[1, 1], [2, 0], [0, 3], [3, 2]])
def test_a_resample_counts_the_videos_of_a_group_as_often_as_it_is_drawn(weights):
    group = np.repeat([0, 1, 1], [5, 1, 40])  # a person with one video and one with two
    measures = [
        steadiness(ROWS, LABEL, VIDEO, FRAME, 1, group), flips(LABEL, PREDICTED, VIDEO, FRAME, 1, group),
    ]  # fmt: skip
    copies = [(np.flatnonzero(group == g), c) for g, w in enumerate(weights) for c in range(w)]
    near, far, own, flipped = [], [], [], []
    for (a, c), (b, d) in itertools.product(copies, copies):
        for i, j in itertools.product(a, b):
            value = formulas.cosine(ROWS[i], ROWS[j])
            if group[i] != group[j] or (c == d and VIDEO[i] != VIDEO[j]):
                far.append(value)
            elif c == d and FRAME[j] - FRAME[i] == 1 and LABEL[i] == LABEL[j]:
                near.append(value)
                flipped.append(PREDICTED[i] != PREDICTED[j])
            if c == d and VIDEO[i] == VIDEO[j] and i != j:
                own.append((value, 1 / (np.count_nonzero(VIDEO[i] == VIDEO) - 1)))
    found = {k: float(v[0]) for measure in measures for k, v in measure(np.array([weights])).items()}
    assert found["cosine_neighbours"] == pytest.approx(np.mean(near), rel=1e-5)
    assert found["flips_per_100"] == pytest.approx(100 * np.mean(flipped))
    assert found["cosine_same_video"] == pytest.approx(
        np.average([o[0] for o in own], weights=[o[1] for o in own]), rel=1e-5
    )
    assert found["cosine_strangers"] == pytest.approx(np.mean(far) if far else math.nan, rel=1e-5, nan_ok=True)
    assert math.isnan(found["cosine_strangers"]) == (weights == [2, 0])


def test_frames_of_a_still_scene_are_steady_against_strangers_but_not_inside_their_video():
    rng = np.random.default_rng(3)
    rows = np.repeat(3 * np.eye(4)[:2], 200, axis=0) + rng.standard_normal((400, 4)) * 0.3
    video, frame = np.repeat([0, 1], 200), np.tile(np.arange(200), 2)
    found = once(steadiness, rows, video, video, frame, 1)
    assert found["steadiness"] > 0.9
    assert abs(found["steadiness_in_video"]) < 0.1


def changes(predicted, labels, video=None, frame=None, step=1):
    video = np.zeros(len(labels), dtype=int) if video is None else np.array(video)
    frame = np.arange(len(labels)) * step if frame is None else np.array(frame)
    found = switches(np.array(predicted), np.array(labels), video, frame, step)
    return [tuple(None if math.isnan(x) else int(x) for x in row) for row in zip(*found.values(), strict=True)]


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], (3, 0, 0)),
        ([0, 0, 0, 0, 0, 1], (3, 2, None)),
        ([0, 0, 0, 2, 1, 0], (3, 1, None)),
        ([0, 0, 0, 0, 2, 0], (3, None, None)),  # never
        ([0, 1, 1, 1, 0, 0], (3, 0, 2)),
        ([1, 0, 1, 1, 1, 1], (3, 0, 1)),  # early without a break
        ([1, 1, 1, 1, 1, 1], (3, 0, 3)),  # as early as the segment before
    ],
)
def test_how_late_a_switch_comes(predicted, expected):
    assert changes(predicted, [0, 0, 0, 1, 1, 1]) == [expected]


def test_late_is_in_frame_numbers_and_ends_with_the_segment():
    labels = [0, 0, 1, 1, 0, 0, 0]
    assert changes([0, 0, 0, 0, 1, 1, 0], labels, step=10) == [(2, None, None), (4, 20, None)]
    assert changes([0, 0, 0, 1, 1, 1, 1], labels, step=10) == [(2, 10, None), (4, None, None)]


def test_a_new_video_and_a_gap_are_no_change_and_a_segment_goes_on_over_a_gap():
    video, labels = [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]
    assert changes([0] * 6, labels, video, [1, 2, 1, 2, 5, 6]) == []
    assert changes([1] * 5 + [0], labels, video, [1, 2, 1, 2, 3, 9]) == [(4, 6, None)]
    assert changes([1, 1, 0, 0, 0, 0], labels, video, [1, 2, 1, 2, 3, 4]) == [(4, 0, 2)]  # not early by the last video


def test_no_changes_have_no_lateness():
    for n in (0, 5):
        rows = np.zeros(n, dtype=int)
        assert all(map(math.isnan, once(lateness, rows, rows, rows, np.arange(n), 1).values()))


def test_lateness_is_of_the_changes_that_are_followed_and_misses_are_counted_apart():
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 0, 0, 0])
    predicted = np.array([0, 0, 1, 1, 1, 1, 1, 2, 2, 0])  # at once, never, two frames late
    found = once(lateness, labels, predicted, np.zeros(10, dtype=int), np.arange(10), 1)
    assert found == pytest.approx({"frames_late": 1, "switches_missed": 1 / 3})


def test_each_video_may_have_neighbours_at_a_distance_of_its_own():
    video, frame = np.repeat([0, 1], 5), np.r_[1:6, 1:26:5]
    step = np.repeat([1, 5], 5)
    assert [rows.tolist() for rows in neighbours(video, frame, step)] == [
        [0, 1, 2, 3, 5, 6, 7, 8],
        [1, 2, 3, 4, 6, 7, 8, 9],
    ]
    labels, predicted = np.tile([0, 0, 1, 1, 1], 2), np.tile([0, 0, 0, 1, 1], 2)
    found = switches(predicted, labels, video, frame, step)
    assert {name: values.tolist() for name, values in found.items() if name != "early"} == {
        "row": [2, 7],
        "late": [1, 5],
    }
    assert switches(predicted, labels, video, frame, 1)["row"].tolist() == [2]
