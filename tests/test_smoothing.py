import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.metrics import f1_score

from pipeline.core.params import UserError
from pipeline.metrics import smoothing
from pipeline.metrics.smoothing import changes, check_width, fit_class_bias, in_frames, smooth, worded

# Videos of 5, 1 and 40 frames; the last starts late and has gaps.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 6, 1721, 1722, 1723, 1724, *range(1726, 1750), *range(1790, 1802)])
VALUES = np.random.default_rng(0).random((46, 3))


def by_a_loop(kind, width):
    deviation = np.sqrt((width**2 - 1) / 12)
    reach = int(4 * deviation) if kind == "gaussian" else width // 2
    out = []
    for v, f in zip(VIDEO, FRAME, strict=True):
        near = (v == VIDEO) & (np.abs(FRAME - f) <= reach)
        if kind == "median":
            out.append(np.median(VALUES[near], axis=0))
        else:
            far = (FRAME[near] - f) / deviation
            weight = {
                "box": np.ones(near.sum()),
                "gaussian": np.exp(-0.5 * far**2),
                "hann": np.cos(np.pi * (FRAME[near] - f) / (width + 1)) ** 2,
            }[kind]
            out.append(weight @ VALUES[near] / weight.sum())
    return np.array(out)


@pytest.mark.parametrize("kind", ["box", "gaussian", "hann", "median"])
@pytest.mark.parametrize("width", [3, 5, 31, 1001])
def test_smoothing_is_that_of_a_loop_over_frame_numbers(kind, width):
    np.testing.assert_allclose(smooth(VALUES, VIDEO, FRAME, kind, width), by_a_loop(kind, width), atol=1e-9)


def test_the_gaussian_inside_of_a_long_video_is_that_of_scipy():
    values = np.random.default_rng(1).standard_normal((300, 2))
    found = smooth(values, np.zeros(300, dtype=int), np.arange(300), "gaussian", 31)
    expected = gaussian_filter1d(values, np.sqrt((31**2 - 1) / 12), axis=0, truncate=4 - 1e-9)
    np.testing.assert_allclose(found[40:-40], expected[40:-40], atol=1e-4)


def test_a_box_of_three_is_solved_by_hand():
    found = smooth(
        np.array([[3.0], [6], [0], [9], [1]]), np.array([0, 0, 0, 0, 2]), np.array([1, 2, 3, 5, 6]), "box", 3
    )
    assert found[:, 0].tolist() == [4.5, 3, 3, 9, 1]  # frame 4 is missing; the next video does not leak in


@pytest.mark.parametrize(("kind", "width"), [("none", 51), ("box", 1), ("gaussian", 1), ("hann", 1), ("median", 1)])
def test_no_smoothing_changes_nothing(kind, width):
    np.testing.assert_array_equal(smooth(VALUES, VIDEO, FRAME, kind, width), VALUES)


def test_smoothed_probabilities_still_sum_to_one():
    p = VALUES / VALUES.sum(1, keepdims=True)
    for kind in ("box", "gaussian", "hann"):
        np.testing.assert_allclose(smooth(p, VIDEO, FRAME, kind, 7).sum(1), 1)


def test_no_frames_are_smoothed_to_none():
    nothing = np.zeros(0, dtype=int)
    assert smooth(VALUES[:0], nothing, nothing, "box", 5).shape == (0, 3)


def test_a_wrong_smoothing_is_refused():
    with pytest.raises(UserError, match="smoothing 'boxes' is not one of"):
        smooth(VALUES, VIDEO, FRAME, "boxes", 5)
    for width in (0, 4, -3):
        with pytest.raises(UserError, match=f"must be odd.* is {width}"):
            smooth(VALUES, VIDEO, FRAME, "box", width)
    with pytest.raises(ValueError, match=r"sorted by \(video, frame\)"):
        smooth(VALUES, VIDEO, FRAME[::-1], "box", 5)


def test_seconds_are_as_many_frames_as_each_video_has_in_them():
    """Of 0.4 s, the two tenths before and behind: 6 and 6 frames at 30 a second, 2 and 2 at 10, none at 4."""
    assert in_frames("0.4s", np.array([30.0, 10, 4, 25, np.nan])).tolist() == [13, 5, 1, 11, 1]
    assert in_frames("3.4 s", np.array([29.97])).tolist() == [101]
    assert in_frames(101, None) == 101


@pytest.mark.parametrize("kind", ["box", "gaussian", "hann", "median"])
def test_each_video_is_smoothed_by_its_own_width(kind):
    width = np.array([3] * 5 + [7] + [31] * 40)
    found = smooth(VALUES, VIDEO, FRAME, kind, width)
    for each in (3, 7, 31):
        expected = smooth(VALUES, VIDEO, FRAME, kind, each)
        np.testing.assert_allclose(found[width == each], expected[width == each], atol=1e-12)


def test_two_videos_of_other_frame_rates_are_solved_by_hand():
    values = np.array([[0.0], [3], [6], [0], [9], [0.0], [3], [6], [0], [9]])
    video, frame = np.repeat([0, 1], 5), np.tile(np.arange(5), 2)
    width = in_frames("0.2s", np.array([30.0, 15.0])[video])
    found = smooth(values, video, frame, "box", width)
    assert found[:5, 0].tolist() == pytest.approx([2.25, 3.6, 3.6, 3.6, 4.5])  # three to either side
    assert found[5:, 0].tolist() == pytest.approx([1.5, 3, 3, 5, 4.5])  # one


@pytest.mark.parametrize(
    ("width", "fps", "message"),
    [
        (4, None, "here must be odd and at least 1, so that its middle is a frame, and is 4"),
        (-1, 30.0, "here must be odd"),
        ("3.4", 30.0, r"here must be an odd number of frames, or seconds such as 3\.4s, and is '3\.4'"),
        ("-2s", 30.0, "here must be an odd number of frames, or seconds"),
        ("3.4s", None, "here is 3.4s, and seconds need fps"),
        ("3.4s", 0.0, "fps must be above 0, and is 0"),
    ],
)
def test_what_is_no_width_is_refused(width, fps, message):
    with pytest.raises(UserError, match=message):
        check_width("here", width, fps)


def test_a_width_is_said_with_its_unit():
    check_width("here", "3.4s", 30.0)
    check_width("here", "2 s", Path("fps.csv"))
    assert (worded(101), worded("3.4s")) == ("101 frames", "3.4s")


def drawn(num_rows, num_classes, seed):
    """Scores that lean towards the first class, and a truth of unequal classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(num_classes, num_rows, p=np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum())
    scores = rng.standard_normal((num_rows, num_classes)) + 1.2 * np.eye(num_classes)[truth]
    scores[:, 0] += 1.5
    return scores, truth


def test_for_two_classes_the_bias_is_the_best_there_is():
    scores, truth = drawn(60, 2, 0)
    bias, best = fit_class_bias(scores, truth)
    lacking = np.sort(scores[:, 0] - scores[:, 1])
    steps = np.r_[lacking[0] - 1, (lacking[1:] + lacking[:-1]) / 2, lacking[-1] + 1]
    tried = [f1_score(truth, (scores[:, 1] + step > scores[:, 0]).astype(int), average="macro") for step in steps]
    assert best == pytest.approx(max(tried))
    assert best > f1_score(truth, scores.argmax(1), average="macro") + 0.1
    assert best == pytest.approx(f1_score(truth, (scores + bias).argmax(1), average="macro"))


def test_for_three_classes_it_is_as_good_as_a_fine_grid():
    scores, truth = drawn(80, 3, 1)
    bias, best = fit_class_bias(scores, truth)
    assert best == pytest.approx(f1_score(truth, (scores + bias).argmax(1), average="macro"))
    grid = np.linspace(-3, 3, 25)
    tried = max(
        f1_score(truth, (scores + np.array([0, a, b])).argmax(1), average="macro")
        for a, b in itertools.product(grid, grid)
    )
    assert best >= tried - 0.02
    assert bias.sum() == pytest.approx(0)


def test_a_bias_is_never_worse_than_none_on_what_it_saw_and_the_same_every_time():
    for seed in range(20):
        scores, truth = drawn(50, 4, seed)
        bias, best = fit_class_bias(scores, truth)
        assert best >= f1_score(truth, scores.argmax(1), labels=np.unique(truth), average="macro")
        np.testing.assert_array_equal(bias, fit_class_bias(scores, truth)[0])


def test_a_bias_that_was_taken_away_is_found_again_on_other_rows():
    scores, truth = drawn(20_000, 4, 2)
    bias, _ = fit_class_bias(scores[:10_000], truth[:10_000])
    before = f1_score(truth[10_000:], scores[10_000:].argmax(1), average="macro")
    assert f1_score(truth[10_000:], (scores[10_000:] + bias).argmax(1), average="macro") > before + 0.02


def test_a_class_that_the_truth_lacks_is_not_helped():
    scores, truth = drawn(100, 3, 3)
    scores = np.c_[scores, np.full(100, -9.0)]
    bias, best = fit_class_bias(scores, truth)
    assert not ((scores + bias).argmax(1) == 3).any()
    assert best == pytest.approx(f1_score(truth, (scores + bias).argmax(1), average="macro"))


def test_of_many_rows_evenly_spaced_ones_are_fitted_on():
    scores, truth = drawn(101, 3, 4)
    np.testing.assert_array_equal(fit_class_bias(scores, truth, most=51)[0], fit_class_bias(scores[::2], truth[::2])[0])


def test_biases_need_rows():
    with pytest.raises(ValueError, match="there are none"):
        fit_class_bias(np.zeros((0, 3)), np.zeros(0, dtype=int))


@pytest.mark.parametrize("kind", ["box", "median", "hann", "gaussian", "none"])
def test_smoothing_changes_something_just_where_a_frame_has_another_within_the_width(kind):
    rng, seen = np.random.default_rng(5), set()
    for _ in range(40):
        keys = np.unique(np.stack([rng.integers(0, 6, 8), rng.integers(0, 40, 8)], axis=1), axis=0)
        width = int(rng.choice([1, 3, 5, 9]))
        values = rng.standard_normal((len(keys), 2))
        told = changes(*keys.T, kind, width)
        assert told == (not np.allclose(smooth(values, *keys.T, kind, width), values, atol=1e-12))
        seen.add(told)
    assert seen == ({False} if kind == "none" else {True, False})
    video, frame = np.array([0, 0, 1, 1]), np.array([1, 4, 1, 2])
    assert changes(video, frame, "box", np.array([7, 7, 1, 1]))
    assert not changes(video, frame, "box", np.array([5, 5, 1, 1]))


@pytest.mark.parametrize("kind", ["box", "gaussian", "hann", "median"])
def test_frames_alone_in_their_video_stay_and_the_others_are_smoothed_as_without_them(kind, monkeypatch):
    monkeypatch.setattr(smoothing, "MOST_AT_ONCE", 100)  # some columns at a time
    video = np.repeat([0, 1, 2, 3, 4], [1, 20, 1, 1, 9])
    frame = np.arange(32) - np.searchsorted(video, video)
    values = np.random.default_rng(0).random((32, 5))
    found = smooth(values, video, frame, kind, 7)
    several = np.isin(video, [1, 4])
    np.testing.assert_array_equal(found[~several], values[~several])
    for code in (1, 4):
        own = video == code
        np.testing.assert_allclose(found[own], smooth(values[own], video[own], frame[own], kind, 7))
    with pytest.raises(ValueError, match="sorted"):
        smooth(values[:3], np.array([0, 1, 0]), np.zeros(3, dtype=int), kind, 7)
