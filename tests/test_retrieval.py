import math

import formulas
import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.neighbors import KNeighborsClassifier

from pipeline.metrics import retrieval
from pipeline.metrics.retrieval import (
    hits_at_k,
    knn_votes,
    mean_average_precision,
    pair_ranks,
    paired_recall,
    partner_ranks,
    precision_at_r,
    recall,
)

# Videos of 5, 1 and 40 frames and one more, D = 4.
GROUP = np.repeat([0, 1, 2, 3], [5, 1, 40, 20])
LABEL = np.r_[[0, 0, 1, 1, 2], [0], np.arange(40) % 3, [3] * 3, [0] * 17]
ROWS = np.random.default_rng(0).standard_normal((66, 4)) + 0.7 * np.eye(4)[LABEL]


def once(measure, groups):
    """The numbers where each group counts once."""
    return {name: float(value[0]) for name, value in measure(np.ones((1, int(max(groups)) + 1))).items()}


def recall_of(rows, label, group, ks):
    """And how many rows are queries."""
    num_queries = int((~np.isnan(hits_at_k(rows, label, group, ks)[:, 0])).sum())
    return once(recall(rows, label, group, ks), group), num_queries


def paired_recall_of(left, right, ks):
    groups = np.zeros(len(left), dtype=int)
    values = paired_recall(pair_ranks(left, right), groups, ks)(np.ones((1, min(1, len(left)))))
    return {name: float(value[0]) for name, value in values.items()}


def predicted(train, train_labels, queries, neighbours, num_classes):
    return knn_votes(train, train_labels, queries, neighbours, num_classes).argmax(axis=1)


@pytest.fixture(params=[7, 1024], ids=["blocks_of_7", "one_block"])
def block(request, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", request.param)


def test_recall_is_that_of_a_double_loop_over_other_groups(block):
    found, num_queries = recall_of(ROWS, LABEL, GROUP, [1, 3, 10, 60])
    expected, queries = formulas.recall_at_k(ROWS, LABEL, GROUP, [1, 3, 10, 60])
    assert found == pytest.approx(expected)
    assert num_queries == queries
    assert 0 < found["recall_at_1"] < found["recall_at_10"] < 1
    assert num_queries == 66 - 3  # class 3 is in one video only, so nobody can find it


def test_a_twin_in_the_own_video_is_no_answer():
    rows = np.array([[1, 0], [1, 0], [0, 1], [0.8, 0.6]])
    # Row 0's twin is row 1; of the other group, row 3 (class 1) is nearer than row 2 (class 0).
    found, num_queries = recall_of(rows, np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), [1, 2])
    assert num_queries == 3
    assert found == {"recall_at_1": 1 / 3, "recall_at_2": 1.0}  # row 2 has only rows of its class to find


def test_asking_for_more_than_there_are_candidates_finds_whoever_is_there():
    found, num_queries = recall_of(ROWS[:6], LABEL[:6], GROUP[:6], [1, 5, 1000])
    assert num_queries == 3  # rows 0 and 1 can find row 5, and row 5 them
    assert found["recall_at_1000"] == found["recall_at_5"] == 1


@pytest.mark.parametrize(
    ("label", "group"), [([0, 1, 2], [0, 1, 2]), ([0, 0, 0], [1, 1, 1])], ids=["no_class_twice", "one_video"]
)
def test_where_there_is_no_query_recall_is_not_a_number(label, group):
    found, num_queries = recall_of(ROWS[:3], np.array(label), np.array(group), [1, 2])
    assert num_queries == 0
    assert all(map(math.isnan, found.values()))


def test_with_one_class_every_answer_is_right():
    assert recall_of(ROWS, np.zeros(66, dtype=int), GROUP, [1])[0] == {"recall_at_1": 1.0}


def test_of_equally_near_rows_the_first_are_taken():
    cosine = np.random.default_rng(0).integers(0, 4, (50, 40)).astype(np.float32)
    cosine[::3, ::2] = -np.inf
    for most in (1, 5, 39, 40, 1000):
        expected = [sorted(range(40), key=lambda j: (-row[j], j))[:most] for row in cosine]
        assert retrieval._nearest(cosine, most).tolist() == expected


def test_a_single_neighbour_votes_as_in_sklearn(block):
    peer = KNeighborsClassifier(1, metric="cosine").fit(ROWS[:40], LABEL[:40])
    assert predicted(ROWS[:40], LABEL[:40], ROWS[40:], 1, 4).tolist() == peer.predict(ROWS[40:]).tolist()


def test_an_odd_number_of_neighbours_votes_on_two_classes_as_in_sklearn(block):
    label = (LABEL > 0).astype(int)
    peer = KNeighborsClassifier(9, metric="cosine").fit(ROWS[:40], label[:40])
    codes = predicted(ROWS[:40], label[:40], ROWS[40:], 9, 2)
    assert codes.tolist() == peer.predict(ROWS[40:]).tolist()
    assert set(codes) == {0, 1}


def test_of_equal_votes_the_greater_sum_of_cosines_wins(block):
    codes = predicted(ROWS[:40], LABEL[:40], ROWS[40:], 6, 5)
    tied = 0
    for row, found in zip(ROWS[40:], codes, strict=True):
        cosine = formulas.unit(ROWS[:40]) @ formulas.unit(row[None])[0]
        nearest = np.argsort(-cosine)[:6]
        votes = {c: (int((LABEL[nearest] == c).sum()), cosine[nearest][LABEL[nearest] == c].sum()) for c in range(5)}
        tied += sorted(v for v, _ in votes.values())[-2:] == [max(votes.values())[0]] * 2
        assert found == max(votes, key=votes.get)
    assert tied > 3


def test_a_difference_in_the_fifth_digit_of_a_cosine_still_breaks_a_tie():
    angle = np.array([0.1000, 0.0999])  # cosines that differ by 1e-5
    train = np.stack([np.cos(angle), np.sin(angle)], axis=1).repeat(10, axis=0)
    label = np.array([0, 1]).repeat(10)
    assert predicted(train, label, np.array([[1.0, 0.0]]), 20, 2).tolist() == [1]
    assert predicted(train, 1 - label, np.array([[1.0, 0.0]]), 20, 2).tolist() == [0]


def test_fewer_rows_than_neighbours_all_vote():
    assert predicted(ROWS[:3], np.array([2, 0, 2]), ROWS[3:6], 20, 3).tolist() == [2, 2, 2]


def test_a_row_of_zeros_gets_the_most_frequent_class_and_no_error():
    assert predicted(ROWS[:5], np.array([1, 0, 1, 1, 0]), np.zeros((1, 4)), 5, 2).tolist() == [1]


def test_no_query_has_no_answer():
    assert predicted(ROWS, LABEL, ROWS[:0], 5, 4).shape == (0,)


def test_precision_at_r_is_that_of_a_double_loop_over_other_groups(block):
    expected = formulas.precision_at_r(ROWS, LABEL, GROUP)
    np.testing.assert_allclose(precision_at_r(ROWS, LABEL, GROUP), expected)
    assert np.isnan(expected).sum() == 66 - 63
    assert once(mean_average_precision(ROWS, LABEL, GROUP), GROUP) == pytest.approx({"map_at_r": np.nanmean(expected)})


def test_in_a_resample_a_group_counts_as_often_as_it_is_drawn_and_the_gallery_is_held():
    weights = np.array([[2, 0, 1, 3], [0, 1, 0, 0]])
    hits, precision = hits_at_k(ROWS, LABEL, GROUP, [3])[:, 0], formulas.precision_at_r(ROWS, LABEL, GROUP)
    found = recall(ROWS, LABEL, GROUP, [3])(weights) | mean_average_precision(ROWS, LABEL, GROUP)(weights)
    for row, drawn in enumerate(weights):
        known = ~np.isnan(hits)
        for name, values in (("recall_at_3", hits), ("map_at_r", precision)):
            assert found[name][row] == pytest.approx(np.average(values[known], weights=drawn[GROUP][known]))


def test_map_at_r_without_groups_is_that_of_pytorch_metric_learning():
    peer = AccuracyCalculator(
        include=("mean_average_precision_at_r",), k="max_bin_count", device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()),
    )  # fmt: skip
    z, label = torch.from_numpy(formulas.unit(ROWS)), torch.from_numpy(LABEL)
    expected = peer.get_accuracy(z, label)["mean_average_precision_at_r"]
    found = once(mean_average_precision(ROWS, LABEL, np.arange(66)), range(66))
    assert found["map_at_r"] == pytest.approx(expected, abs=1e-6)


def test_map_at_r_is_solved_by_hand():
    angle = np.array([0, 0.1, 0.2, 0.3, 3])
    rows, label = np.stack([np.cos(angle), np.sin(angle)], axis=1), np.array([0, 0, 1, 0, 0])
    # The first asks for R = 3: right, wrong, right: (1 + 0 + 2/3) / 3.
    assert precision_at_r(rows, label, np.arange(5))[0] == pytest.approx(5 / 9)
    assert math.isnan(precision_at_r(rows, label, np.arange(5))[2])


def test_where_there_is_no_query_there_is_no_precision():
    assert math.isnan(once(mean_average_precision(ROWS[:3], np.array([0, 1, 2]), np.arange(3)), range(3))["map_at_r"])


def test_a_pair_is_found_from_either_side(block):
    rng = np.random.default_rng(1)
    left = rng.standard_normal((40, 4))
    right = left + 0.8 * rng.standard_normal((40, 4))
    cosine = formulas.unit(left) @ formulas.unit(right).T
    forth = [sorted(range(40), key=lambda j: -cosine[i, j]).index(i) for i in range(40)]
    back = [sorted(range(40), key=lambda j: -cosine[j, i]).index(i) for i in range(40)]
    np.testing.assert_array_equal(pair_ranks(left, right), np.transpose([forth, back]))
    found = paired_recall_of(left, right, [1, 5, 40])
    for k in (1, 5, 40):
        assert found[f"paired_recall_at_{k}"] == np.mean([a < k or b < k for a, b in zip(forth, back, strict=True)])
    assert found["paired_recall_at_1"] > max(np.mean(np.array(forth) < 1), np.mean(np.array(back) < 1))
    assert found["paired_recall_at_40"] == 1


def test_partners_are_ranked_by_any_score(block):
    table = np.random.default_rng(2).standard_normal((40, 40)) + np.eye(40)
    table[3] = table[3, 3]  # of equal ones the partner comes last
    expected = [[(table[i] >= table[i, i]).sum() - 1, (table[:, i] >= table[i, i]).sum() - 1] for i in range(40)]
    assert partner_ranks(lambda a, b: table[np.ix_(a, b)], 40).tolist() == expected
    assert expected[3][0] == 39
    assert partner_ranks(lambda a, b: table[np.ix_(a, b)], 0).shape == (0, 2)


def test_one_point_for_everything_finds_no_pair():
    rows = np.tile([1.0, 0], (5, 1))
    assert paired_recall_of(rows, rows, [1, 4, 5]) == {
        "paired_recall_at_1": 0, "paired_recall_at_4": 0, "paired_recall_at_5": 1
    }  # fmt: skip


def test_no_pairs_have_no_recall():
    assert math.isnan(paired_recall_of(ROWS[:0], ROWS[:0], [1])["paired_recall_at_1"])


@pytest.mark.parametrize("strip", [2, 7, 32])
@pytest.mark.parametrize("most", [1, 5, 20, 99])
def test_the_nearest_are_those_of_a_stable_sort_with_and_without_equal_ones(strip, most, monkeypatch):
    """Rows of 300 columns: all apart, of five values only, all equal, and with some that are no candidates."""
    monkeypatch.setattr(retrieval, "STRIP", strip)
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [
            rng.standard_normal((20, 300)),
            rng.integers(0, 5, (20, 300)),
            np.zeros((2, 300)),
            np.where(rng.random((20, 300)) < 0.9, -np.inf, rng.standard_normal((20, 300))),
        ]
    ).astype(np.float32)
    expected = np.argsort(-rows, axis=1, kind="stable")[:, :most]
    np.testing.assert_array_equal(retrieval._nearest(rows, most), expected)


def test_votes_are_those_of_a_loop_where_many_candidates_are_one_point():
    train = np.repeat(np.eye(4)[[0, 1]], 60, axis=0)  # of equal ones the first vote
    label = np.r_[np.arange(60) % 3, np.full(60, 3)]
    votes = knn_votes(train, label, np.eye(4)[[0, 1]] + 0.1, 7, 4)
    assert votes == pytest.approx(np.array([[3, 2, 2, 0], [0, 0, 0, 7]]) / 7, abs=1e-3)
