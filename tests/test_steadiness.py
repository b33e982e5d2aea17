import itertools
import math

import numpy as np
import pytest

from pipeline.evaluation.steadiness import neighbours, steadiness

# Videos of 5, 1 and 40 frames, D = 4; the last starts late and lacks frame 1725.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 6, 1721, 1722, 1723, 1724, *range(1726, 1762)])
LABEL = np.r_[[0, 0, 1, 1, 1], [0], [2] * 20, [1] * 20]
ROWS = np.random.default_rng(0).standard_normal((46, 4)) + 1
PREDICTED = np.random.default_rng(1).integers(0, 3, 46)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


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
    near, far, flips = [], [], []
    for i, j in itertools.combinations(range(46), 2):
        if VIDEO[i] != VIDEO[j]:
            far.append(cosine(ROWS[i], ROWS[j]))
        elif FRAME[j] - FRAME[i] == 1 and LABEL[i] == LABEL[j]:
            near.append(cosine(ROWS[i], ROWS[j]))
            flips.append(PREDICTED[i] != PREDICTED[j])
    n, f = np.mean(near), np.mean(far)
    assert len(near) == 3 + 18 + 19  # 4 and 38 neighbours, less one change of label in each video
    expected = {"cosine_neighbours": n, "cosine_strangers": f, "steadiness": (n - f) / (1 - f)}
    found = steadiness(ROWS, PREDICTED, LABEL, VIDEO, FRAME, 1)
    assert found == pytest.approx(expected | {"flips_per_100": 100 * np.mean(flips)}, rel=1e-5)


def test_two_videos_that_each_stand_still_at_a_right_angle_are_as_steady_as_can_be():
    rows = np.repeat(np.eye(4)[:2], [5, 40], axis=0) * np.arange(1, 46)[:, None]  # lengths do not count
    video, frame = np.repeat([0, 1], [5, 40]), np.r_[np.arange(5), np.arange(40)]
    label, predicted = np.zeros(45, dtype=int), np.r_[[0, 1, 0, 1, 0], [1] * 40]
    found = steadiness(rows, predicted, label, video, frame, 1)
    expected = {"cosine_neighbours": 1, "cosine_strangers": 0, "steadiness": 1, "flips_per_100": 100 * 4 / 43}
    assert found == pytest.approx(expected, abs=1e-6)


def test_frames_like_strangers_have_no_steadiness():
    rows = np.random.default_rng(2).standard_normal((2000, 4)) + 3 * np.eye(4)[0]
    video, frame = np.repeat([0, 1], 1000), np.tile(np.arange(1000), 2)
    label = np.zeros(2000, dtype=int)
    found = steadiness(rows, label, label, video, frame, 1)
    assert found["cosine_neighbours"] > 0.7
    assert abs(found["steadiness"]) < 0.05
    assert found["flips_per_100"] == 0


def test_a_network_that_gives_one_point_for_everything_is_not_called_steady():
    found = steadiness(np.full((46, 4), 0.3), PREDICTED, LABEL, VIDEO, FRAME, 1)
    assert found["cosine_strangers"] == pytest.approx(1)
    assert math.isnan(found["steadiness"])


def test_a_single_video_has_neighbours_but_no_strangers():
    found = steadiness(ROWS[:5], np.array([0, 1, 1, 2, 2]), LABEL[:5], VIDEO[:5], FRAME[:5], 1)
    assert found["cosine_neighbours"] == pytest.approx(
        np.mean([cosine(ROWS[0], ROWS[1]), cosine(ROWS[2], ROWS[3]), cosine(ROWS[3], ROWS[4])])
    )
    assert found["flips_per_100"] == pytest.approx(200 / 3)
    assert math.isnan(found["cosine_strangers"])
    assert math.isnan(found["steadiness"])


def test_videos_of_one_frame_have_strangers_but_no_neighbours():
    found = steadiness(ROWS[:3], PREDICTED[:3], LABEL[:3], np.array([0, 1, 2]), np.array([1, 2, 3]), 1)
    assert found["cosine_strangers"] == pytest.approx(
        np.mean([cosine(ROWS[a], ROWS[b]) for a, b in itertools.combinations(range(3), 2)])
    )
    assert [name for name, value in found.items() if math.isnan(value)] == [
        "cosine_neighbours", "steadiness", "flips_per_100",
    ]  # fmt: skip
