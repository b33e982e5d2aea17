import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from pipeline.metrics.probes import linear_probe

RNG = np.random.default_rng(0)
LABEL = RNG.choice(3, 900, p=[0.85, 0.1, 0.05])
ROWS = RNG.standard_normal((900, 6)) + 1.5 * np.eye(6)[LABEL]
TRAIN, ASKED = slice(None, 600), slice(600, None)


def test_the_probe_is_the_logistic_regression_of_the_formula():
    mean, deviation = ROWS[TRAIN].mean(0), ROWS[TRAIN].std(0)
    x, y = (ROWS[TRAIN] - mean) / deviation, LABEL[TRAIN]
    weight = (len(y) / 3 / np.bincount(y))[y]

    def cost(parameters):
        w, b = parameters[:18].reshape(6, 3), parameters[18:]
        return (weight * -log_softmax(x @ w + b, axis=1)[np.arange(len(y)), y]).sum() + np.square(w).sum() / 2

    best = minimize(cost, np.zeros(21)).x
    expected = ((ROWS[ASKED] - mean) / deviation @ best[:18].reshape(6, 3) + best[18:]).argmax(1)
    found = linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[ASKED])
    assert (found == expected).mean() > 0.99
    assert np.bincount(found).min() > 20


def test_rare_classes_are_predicted_as_often_as_they_weigh():
    predicted = linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[ASKED])
    recall = [(predicted[LABEL[ASKED] == c] == c).mean() for c in range(3)]
    assert min(recall) > 0.6


def test_scale_and_place_of_columns_do_not_count():
    scale, shift = np.array([1e-3, 1, 1e3, 1, 50, 1]), np.arange(6) * 100
    one = linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[ASKED])
    other = linear_probe(ROWS[TRAIN] * scale + shift, LABEL[TRAIN], ROWS[ASKED] * scale + shift)
    assert (one == other).mean() > 0.99


def test_of_many_rows_the_evenly_spaced_ones_are_fitted_on():
    few = linear_probe(ROWS[:599], LABEL[:599], ROWS[ASKED], most=300)
    np.testing.assert_array_equal(few, linear_probe(ROWS[:599:2], LABEL[:599:2], ROWS[ASKED]))
    assert (few != linear_probe(ROWS[:599], LABEL[:599], ROWS[ASKED])).any()


def test_a_column_that_never_moves_is_no_error():
    constant = np.c_[ROWS, np.full(900, 3.0)]
    found = linear_probe(constant[TRAIN], LABEL[TRAIN], constant[ASKED])
    np.testing.assert_array_equal(found, linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[ASKED]))


def test_with_one_class_that_is_the_answer():
    assert linear_probe(ROWS[:9], np.full(9, 2), ROWS[9:12]).tolist() == [2, 2, 2]


def test_nobody_asked_is_nobody_answered():
    assert linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[:0]).shape == (0,)


def test_a_fit_that_was_cut_off_is_said_in_a_line_and_by_no_warning(capsys, recwarn):
    linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[ASKED])
    assert capsys.readouterr().out == ""
    linear_probe(ROWS[TRAIN], LABEL[TRAIN], ROWS[ASKED], most_iterations=1)
    assert "the linear probe did not converge in 1 iterations" in capsys.readouterr().out
    assert not recwarn.list
