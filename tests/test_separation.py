import itertools
import math

import numpy as np
import pytest

from pipeline.metrics.separation import auc, evenly, normalised, pair_cosines, separation

# Videos of 5, 1 and 40 frames, D = 4; three classes, and one frame whose features are all zero.
GROUP = np.repeat([0, 1, 2], [5, 1, 40])
LABEL = np.r_[[0, 0, 1, 1, 2], [0], np.arange(40) % 3]
ROWS = np.random.default_rng(0).standard_normal((46, 4))
ROWS[3] = 0


def cosine(a, b):
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def pairs_by_a_double_loop(opposites):
    found = {"same": [], "different": [], "opposite": []}
    for i, j in itertools.combinations(range(len(ROWS)), 2):
        if GROUP[i] != GROUP[j]:
            kind = "same" if LABEL[i] == LABEL[j] else "different"
            found[kind].append(cosine(ROWS[i], ROWS[j]))
            if {LABEL[i], LABEL[j]} in opposites:
                found["opposite"].append(cosine(ROWS[i], ROWS[j]))
    return found


def test_the_cosines_of_pairs_are_those_found_on_paper():
    rows = np.array([[2.0, 0], [0, 3], [5, 5], [-1, 0]])
    found = pair_cosines(rows, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 2]), [(0, 1)])
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found["same"], [half, 0], atol=1e-6)  # rows 0 and 2, 1 and 3
    np.testing.assert_allclose(found["different"], [-1, half, -half], atol=1e-6)  # 0 and 3, 1 and 2, 2 and 3
    np.testing.assert_allclose(found["opposite"], found["different"])


@pytest.mark.parametrize("opposites", [[], [(0, 2)], [(2, 0), (1, 2)]])
def test_pairs_inside_a_group_are_left_out_and_all_others_are_compared(opposites):
    found = pair_cosines(ROWS, LABEL, GROUP, opposites)
    expected = pairs_by_a_double_loop([set(pair) for pair in opposites])
    assert sum(map(len, (found["same"], found["different"]))) == 5 * 1 + 5 * 40 + 1 * 40
    for kind, values in expected.items():
        np.testing.assert_allclose(np.sort(found[kind]), np.sort(values), atol=1e-6)


def test_a_row_of_zeros_has_the_cosine_zero_to_everything():
    assert (normalised(ROWS)[3] == 0).all()
    found = pair_cosines(np.array([[0, 0], [1, 0]]), np.array([0, 0]), np.array([0, 1]))
    assert found["same"].tolist() == [0]


def test_features_in_half_precision_do_not_overflow():
    rows = np.full((2, 4), 60_000, dtype=np.float16)
    np.testing.assert_allclose(normalised(rows), 0.5, rtol=1e-6)


def test_opposites_of_a_class_that_no_row_has_give_no_pairs():
    found = pair_cosines(ROWS, LABEL, GROUP, [(0, 7), (8, 9)])
    assert len(found["opposite"]) == 0
    assert math.isnan(separation(found)["auc_same_opposite"])


def test_a_class_is_never_its_own_opposite():
    assert len(pair_cosines(ROWS, LABEL, GROUP, [(1, 1)])["opposite"]) == 0


@pytest.mark.parametrize(
    ("num_rows", "most"), [(46, 10), (46, 45), (46, 46), (5, 100), (7, 1), (0, 3), (100_000, 2000)]
)
def test_evenly_spaced_rows_span_all_rows_without_repeats(num_rows, most):
    chosen = evenly(num_rows, most)
    assert len(chosen) == min(num_rows, most)
    if most > 1 and num_rows:
        assert (chosen[0], chosen[-1]) == (0, num_rows - 1)
        assert np.diff(chosen).min() >= 1
        assert np.ptp(np.diff(chosen)) <= 1


def test_of_many_rows_only_the_evenly_spaced_ones_are_compared():
    chosen = evenly(46, 20)
    found = pair_cosines(ROWS, LABEL, GROUP, [(0, 1)], most=20)
    expected = pair_cosines(ROWS[chosen], LABEL[chosen], GROUP[chosen], [(0, 1)])
    for kind in expected:
        np.testing.assert_array_equal(found[kind], expected[kind])
    assert len(found["same"]) < len(pair_cosines(ROWS, LABEL, GROUP)["same"])


def test_the_auc_is_the_share_of_ordered_pairs_with_ties_half():
    assert auc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == (1 + 1 + 0.5 + 1) / 4
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 9, 30) / 8, rng.integers(0, 7, 50) / 8
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(sum(wins) / len(wins))


def test_without_one_of_the_sides_there_is_no_auc():
    assert math.isnan(auc(np.array([]), np.array([0.1])))
    assert math.isnan(auc(np.array([0.1]), np.array([])))


def test_gaps_are_differences_of_mean_cosines():
    cosines = {"same": np.array([0.8, 0.6]), "different": np.array([0.1, 0.3, 0.8]), "opposite": np.array([0.1])}
    found = separation(cosines)
    expected = {
        "cosine_same": 0.7, "cosine_different": 0.4, "cosine_opposite": 0.1,
        "gap_same_different": 0.3, "gap_same_opposite": 0.6,
        "auc_same_different": 4.5 / 6,  # 0.8 beats two and ties with one, 0.6 beats two
        "auc_same_opposite": 1.0,
    }  # fmt: skip
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("label", "group", "missing"),
    [([0, 0, 0], [0, 1, 2], "different"), ([0, 1, 2], [0, 1, 2], "same"), ([0, 0, 1], [4, 4, 4], "same")],
    ids=["one_class", "no_class_twice", "one_video"],
)
def test_what_there_are_no_pairs_for_is_not_a_number(label, group, missing):
    found = separation(pair_cosines(ROWS[:3], np.array(label), np.array(group)))
    assert math.isnan(found[f"cosine_{missing}"])
    assert math.isnan(found["gap_same_different"])
    assert math.isnan(found["auc_same_different"])


def test_no_rows_at_all_give_no_numbers_and_no_error():
    nothing = np.zeros(0, dtype=int)
    assert all(map(math.isnan, separation(pair_cosines(np.zeros((0, 4)), nothing, nothing, [(0, 1)])).values()))
