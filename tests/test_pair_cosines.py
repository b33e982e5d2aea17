import itertools
import math

import formulas
import numpy as np
import pytest

from pipeline.metrics.pair_cosines import cosine_matrix, mean_cosines, pair_cosines, pairs_by_kind

# Videos of 5, 1 and 40 frames and two more, D = 4; three classes and one that no frame has; a row of zeros.
GROUP = np.repeat([0, 1, 2, 3, 4], [5, 1, 40, 17, 30])
LABEL = np.r_[[0, 0, 1, 1, 2], [0], np.arange(87) % 3]
ROWS = np.random.default_rng(0).standard_normal((93, 4)) + 0.8 * np.eye(4)[LABEL]
ROWS[3] = 0
OPPOSITES = [(0, 2)]
ONCE = np.ones((1, 5))
WEIGHTS = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 3, 1], [0, 0, 5, 0, 0], [0, 1, 0, 2, 1]])


def copies(weights):
    """Rows as often as their group is drawn, the copies of a group with its own code."""
    return np.concatenate([np.flatnonzero(g == GROUP) for g in np.repeat(np.arange(5), weights)])


def cosines(rows, label, group, opposites=()):
    return pair_cosines(rows, pairs_by_kind(label, group, opposites))


def test_the_cosines_of_pairs_are_those_found_on_paper():
    rows = np.array([[2.0, 0], [0, 3], [5, 5], [-1, 0]])
    found = cosines(rows, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 2]), [(0, 1)])
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found["same"], [half, 0], atol=1e-6)  # rows 0 and 2, 1 and 3
    np.testing.assert_allclose(found["different"], [-1, half, -half], atol=1e-6)  # 0 and 3, 1 and 2, 2 and 3
    np.testing.assert_allclose(found["opposite"], found["different"])


@pytest.mark.parametrize("opposites", [[], [(0, 2)], [(2, 0), (1, 2)]])
def test_pairs_inside_a_group_are_left_out_and_all_others_are_compared(opposites):
    found = cosines(ROWS, LABEL, GROUP, opposites)
    expected = formulas.cosines_of_pairs(ROWS, LABEL, GROUP, opposites)
    sizes = [5, 1, 40, 17, 30]
    assert sum(map(len, (found["same"], found["different"]))) == (sum(sizes) ** 2 - sum(n**2 for n in sizes)) / 2
    for kind, values in expected.items():
        np.testing.assert_allclose(np.sort(found[kind]), np.sort(values), atol=1e-6)


def test_a_row_of_zeros_has_the_cosine_zero_to_everything():
    found = cosines(np.array([[0, 0], [1, 0]]), np.array([0, 0]), np.array([0, 1]))
    assert found["same"].tolist() == [0]


def test_opposites_of_a_class_that_no_row_has_give_no_pairs():
    found = cosines(ROWS, LABEL, GROUP, [(0, 7), (8, 9)])
    assert len(found["opposite"]) == 0


def test_a_class_is_never_its_own_opposite():
    assert len(cosines(ROWS, LABEL, GROUP, [(1, 1)])["opposite"]) == 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_mean_cosines_of_a_resample_are_those_of_all_pairs_of_the_rows_copied(weights):
    rows = copies(weights)
    of_pairs = formulas.cosines_of_pairs(ROWS[rows], LABEL[rows], GROUP[rows], OPPOSITES)
    expected = {k: v for k, v in formulas.separation(of_pairs).items() if not k.startswith("auc")}
    found = mean_cosines(ROWS, LABEL, GROUP, 4, OPPOSITES)(weights[None])
    assert {k: float(v[0]) for k, v in found.items()} == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert math.isnan(expected["cosine_same"]) == (weights.sum() == weights[2])


def test_the_criterion_is_solved_by_hand():
    rows = np.array([[1.0, 0], [0.6, 0.8], [0, 2]])
    found = mean_cosines(rows, np.array([0, 0, 1]), np.array([0, 1, 2]), 2, [(0, 1)])(np.ones((1, 3)))
    assert found["cosine_same"] == pytest.approx([0.6])
    assert found["gap_same_opposite"] == pytest.approx([0.6 - (0 + 0.8) / 2])


def test_the_matrix_has_the_mean_cosine_of_each_two_classes_by_a_double_loop():
    found = cosine_matrix(ROWS, LABEL, GROUP, 4)
    z = ROWS / np.maximum(np.linalg.norm(ROWS, axis=1, keepdims=True), 1e-12)
    cells = {}
    for i, j in itertools.permutations(range(93), 2):
        if GROUP[i] != GROUP[j]:
            cells.setdefault((LABEL[i], LABEL[j]), []).append(z[i] @ z[j])
    expected = [[np.mean(cells[a, b]) for b in range(3)] for a in range(3)]
    np.testing.assert_allclose(found[:3, :3], expected, atol=1e-6)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()


def test_the_mean_cosine_of_a_class_with_its_own_opposite_is_none():
    assert np.isnan(mean_cosines(ROWS, LABEL, GROUP, 4, [(1, 1)])(ONCE)["cosine_opposite"][0])


def test_no_rows_at_all_give_no_pairs_and_no_error():
    nothing = np.zeros(0, dtype=int)
    found = cosines(np.zeros((0, 4)), nothing, nothing, [(0, 1)])
    assert [len(found[kind]) for kind in ("same", "different", "opposite")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("label", "group", "missing"),
    [([0, 0, 0], [0, 1, 2], "different"), ([0, 1, 2], [0, 1, 2], "same"), ([0, 0, 1], [0, 0, 0], "same")],
    ids=["one_class", "no_class_twice", "one_video"],
)
def test_what_there_are_no_pairs_for_is_not_a_number(label, group, missing):
    once = np.ones((1, len(np.unique(group))))
    found = mean_cosines(ROWS[:3], np.array(label), np.array(group), 4, OPPOSITES)(once)
    assert np.isnan(found[f"cosine_{missing}"][0])
    assert np.isnan(found["gap_same_different"][0])
