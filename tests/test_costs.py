"""What a macro-F1 hangs on, beside a slow loop with scikit-learn; and in the files, the picture and the report."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from pipeline.metrics import costs
from pipeline.metrics.costs import gain_if_right, without_each

RNG = np.random.default_rng(0)


def made(num_groups=9, n=400, num_classes=5):
    """Class 4 is in the last group alone; -1 has no label; group 3 has no labelled frame."""
    groups = np.sort(RNG.integers(0, num_groups, n))
    labels = RNG.integers(-1, num_classes - 1, n)
    labels[groups == num_groups - 1] = num_classes - 1
    labels[groups == 3] = -1
    predicted = np.where(RNG.random(n) < 0.5, np.maximum(labels, 0), RNG.integers(0, num_classes, n))
    return labels, predicted, groups


def macro_f1(labels, predicted):
    return f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0)


@pytest.mark.parametrize("at_once", [2, 4096])
def test_the_score_without_each_group_is_that_of_the_other_frames(at_once, monkeypatch):
    monkeypatch.setattr(costs, "AT_ONCE", at_once)
    labels, predicted, groups = made()
    found = without_each(labels, predicted, groups, 5)
    for group in range(9):
        others = (groups != group) & (labels >= 0)
        assert found[group] == pytest.approx(macro_f1(labels[others], predicted[others])), group
    assert found[3] == pytest.approx(macro_f1(labels[labels >= 0], predicted[labels >= 0]))


def test_one_group_alone_leaves_nothing():
    assert np.isnan(without_each(np.array([0, 1]), np.array([0, 0]), np.array([0, 0]), 2)).all()


def test_a_confusion_costs_what_is_gained_when_its_frames_are_right():
    labels, predicted, groups = made()
    labels[labels == 2] = 1  # class 2 is only predicted
    known = labels >= 0
    labels, predicted, groups = labels[known], predicted[known], groups[known]
    before, matrix = macro_f1(labels, predicted), confusion_matrix(labels, predicted, labels=range(5)).astype(float)
    cells = [(i, j) for i in range(5) for j in range(5) if i != j]
    true, said = np.array(cells).T
    found = gain_if_right(matrix, true, said, matrix[true, said])
    of_group = np.array([((labels == i) & (predicted == j) & (groups == 1)).sum() for i, j in cells])
    found_of_group = gain_if_right(matrix, true, said, of_group)
    for k, (i, j) in enumerate(cells):
        for gain, chosen in ((found[k], groups >= 0), (found_of_group[k], groups == 1)):
            righted = np.where((labels == i) & (predicted == j) & chosen, labels, predicted)
            assert gain == pytest.approx(macro_f1(labels, righted) - before, abs=1e-12), (i, j)
