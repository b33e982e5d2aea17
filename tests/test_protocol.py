import math

import formulas
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipeline.metrics.protocol import (
    action_units,
    confusion,
    expression,
    on_every_frame,
    valence_arousal,
)

CLASSES = ["Neutral", "Anger", "Happiness", "Fear"]  # Fear is never true
UNITS = ["AU1", "AU4", "AU12"]  # AU12 is never there
RNG = np.random.default_rng(0)
GROUP = np.repeat([0, 1, 2, 3, 4], [5, 1, 40, 17, 30])
TRUTH = np.where(np.arange(93) % 10 == 9, -1, RNG.integers(0, 3, 93))
PREDICTED = np.where(RNG.random(93) < 0.4, RNG.integers(0, 4, 93), TRUTH.clip(0))
VA = RNG.uniform(-1, 1, (93, 2))
VA_PREDICTED = 0.5 * VA + RNG.normal(0, 0.3, (93, 2)) + 0.1
VA[::6, RNG.integers(0, 2)] = np.nan
AU = RNG.integers(0, 2, (93, 3)).astype(float)
AU[:, 2] = 0
AU_PROBABILITIES = (0.6 * AU + 0.5 * RNG.random((93, 3))).clip(0, 1)
AU[RNG.random((93, 3)) < 0.1] = np.nan
AU[7] = np.nan
WEIGHTS = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 3, 1], [0, 0, 5, 0, 0], [0, 3, 0, 0, 0]])


def once(measure, *arguments):
    """The numbers of all frames, as one group."""
    groups = np.zeros(len(arguments[0]), dtype=int)
    values = measure(*arguments[:2], groups, *arguments[2:])(np.ones((1, int(groups.max(initial=-1)) + 1)))
    return {name: float(value[0]) for name, value in values.items()}


def copies(weights):
    return np.concatenate([np.flatnonzero(g == GROUP) for g in np.repeat(np.arange(5), weights)])


def test_expressions_are_scored_as_by_sklearn_over_the_classes_that_are_true():
    found = once(expression, TRUTH, PREDICTED, CLASSES)
    valid = TRUTH >= 0
    truth, predicted = TRUTH[valid], PREDICTED[valid]
    assert (predicted == 3).any()
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, labels=[0, 1, 2], average="macro"))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    each = f1_score(truth, predicted, labels=[0, 1, 2], average=None)
    assert [found[f"f1_{name}"] for name in CLASSES[:3]] == pytest.approx(each)
    assert math.isnan(found["f1_Fear"])


def test_with_all_classes_in_the_truth_it_is_the_official_mean():
    truth, predicted = np.arange(40) % 8, np.r_[np.arange(20) % 8, np.arange(20) % 3]
    found = once(expression, truth, predicted, list("abcdefgh"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))


@pytest.mark.parametrize("row", range(4))
def test_scores_of_a_resample_are_those_of_the_frames_copied(row):
    rows = copies(WEIGHTS[row])
    found = (
        expression(TRUTH, PREDICTED, GROUP, CLASSES),
        valence_arousal(VA, VA_PREDICTED, GROUP),
        action_units(AU, AU_PROBABILITIES, GROUP, UNITS),
    )
    expected = (
        once(expression, TRUTH[rows], PREDICTED[rows], CLASSES),
        once(valence_arousal, VA[rows], VA_PREDICTED[rows]),
        once(action_units, AU[rows], AU_PROBABILITIES[rows], UNITS),
    )
    for measure, scores in zip(found, expected, strict=True):
        assert {k: float(v[row]) for k, v in measure(WEIGHTS).items()} == pytest.approx(scores, nan_ok=True)


def test_a_confusion_matrix_has_the_truth_in_its_rows():
    found = confusion(np.array([0, 0, 1, -1, 1]), np.array([0, 1, 1, 0, 1]), 2)
    assert found.tolist() == [[1, 1], [0, 2]]


@pytest.mark.parametrize("predicted", [[0, 1, -1], [0, 1, 4]])
def test_a_frame_with_a_truth_needs_a_prediction(predicted):
    with pytest.raises(ValueError, match="needs a prediction among them"):
        once(expression, np.array([0, 1, 1]), np.array(predicted), CLASSES)


def test_the_concordance_is_that_of_the_formula_on_frames_where_both_are_valid():
    valid = ~np.isnan(VA).any(1)
    found = once(valence_arousal, VA, VA_PREDICTED)
    expected = [formulas.ccc(VA[valid, k], VA_PREDICTED[valid, k]) for k in (0, 1)]
    assert [found["ccc_valence"], found["ccc_arousal"]] == pytest.approx(expected)
    assert found["ccc"] == pytest.approx(np.mean(expected))


def test_the_concordance_is_solved_by_hand():
    truth = np.array([[0.0, 0.5], [1, 0.5]])
    # Valence: cov 1/4, variances 1/4 and 1/4, means 1/2 apart. Arousal: the truth never moves.
    found = once(valence_arousal, truth, np.array([[0.5, 0.1], [1.5, 0.2]]))
    assert found["ccc_valence"] == pytest.approx(2 * 0.25 / (0.25 + 0.25 + 0.25))
    assert found["ccc_arousal"] == 0


def test_the_same_constant_on_both_sides_has_no_concordance():
    found = once(valence_arousal, np.full((9, 2), 0.3), np.full((9, 2), 0.3))
    assert math.isnan(found["ccc"])


def test_action_units_are_scored_cell_by_cell_as_by_sklearn():
    found = once(action_units, AU, AU_PROBABILITIES, UNITS)
    expected = []
    for u in (0, 1):
        valid = ~np.isnan(AU[:, u])
        expected.append(f1_score(AU[valid, u], AU_PROBABILITIES[valid, u] >= 0.5))
    assert [found["f1_AU1"], found["f1_AU4"]] == pytest.approx(expected)
    assert math.isnan(found["f1_AU12"])
    assert found["au_f1"] == pytest.approx(np.mean(expected))


def test_the_threshold_itself_counts_as_there():
    assert once(action_units, np.ones((2, 1)), np.array([[0.5], [0.4]]), ["AU1"])["au_f1"] == pytest.approx(2 / 3)


def test_missing_predictions_of_values_are_named():
    with pytest.raises(ValueError, match="2 frames with a truth have no prediction"):
        once(valence_arousal, np.zeros((3, 2)), np.array([[0, np.nan], [np.nan, np.nan], [0, 0]]))
    with pytest.raises(ValueError, match="1 frames with a truth have no prediction"):
        once(action_units, np.array([[1.0], [np.nan]]), np.array([[np.nan], [np.nan]]), ["AU1"])


def test_without_frames_there_are_no_scores():
    nothing = np.zeros((0, 2))
    assert math.isnan(once(expression, np.full(3, -1), np.zeros(3, dtype=int), CLASSES)["macro_f1"])
    assert math.isnan(once(valence_arousal, nothing, nothing)["ccc"])
    assert math.isnan(once(action_units, nothing, nothing, UNITS[:2])["au_f1"])


def test_every_frame_gets_a_value_by_hand():
    video, frame = np.array(["b", "a", "b", "b"]), np.array([14, 5, 10, 20])
    values = np.array([[4.0, 1], [7, 7], [0, 1], [10, -5]])
    found = on_every_frame(
        video, frame, values, np.array(["a", "b", "b", "b", "b", "a"]), np.array([9, 1, 11, 17, 99, 5])
    )
    np.testing.assert_allclose(found, [[7, 7], [0, 1], [1, 1], [7, -2], [10, -5], [7, 7]])


def test_filling_is_that_of_numpy_for_each_video_and_column():
    rng = np.random.default_rng(5)
    video = np.repeat([4, 0, 9], [5, 1, 40])
    frame = np.concatenate([rng.choice(200, n, replace=False) for n in (5, 1, 40)])
    values = rng.standard_normal((46, 3))
    wanted_video, wanted_frame = np.repeat([0, 4, 9], 230), np.tile(np.arange(-10, 220), 3)
    found = on_every_frame(video, frame, values, wanted_video, wanted_frame)
    for v in (0, 4, 9):
        order = np.flatnonzero(video == v)[np.argsort(frame[video == v])]
        expected = [np.interp(np.arange(-10, 220), frame[order], values[order, c]) for c in range(3)]
        np.testing.assert_allclose(found[wanted_video == v], np.stack(expected, axis=1), atol=1e-12)


def test_a_video_without_predictions_and_a_frame_with_two_are_named():
    one = np.zeros((1, 2))
    with pytest.raises(ValueError, match="1 videos have no prediction to fill from, such as b"):
        on_every_frame(np.array(["a"]), np.array([1]), one, np.array(["a", "b"]), np.array([1, 1]))
    with pytest.raises(ValueError, match="1 frames have more than one prediction"):
        on_every_frame(np.array([0, 0]), np.array([1, 1]), np.zeros((2, 2)), np.array([0]), np.array([1]))


def test_nothing_wanted_is_nothing_filled():
    nothing = np.zeros(0, dtype=int)
    assert on_every_frame(np.array([0]), np.array([1]), np.zeros((1, 2)), nothing, nothing).shape == (0, 2)
