import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from pipeline.evaluation import retrieval
from pipeline.evaluation.retrieval import knn_predict, recall_at_k

# Videos of 5, 1 and 40 frames and one more, D = 4.
GROUP = np.repeat([0, 1, 2, 3], [5, 1, 40, 20])
LABEL = np.r_[[0, 0, 1, 1, 2], [0], np.arange(40) % 3, [3] * 3, [0] * 17]
ROWS = np.random.default_rng(0).standard_normal((66, 4)) + 0.7 * np.eye(4)[LABEL]


@pytest.fixture(params=[7, 1024], ids=["blocks_of_7", "one_block"])
def block(request, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", request.param)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recall_by_a_double_loop(rows, label, group, k):
    hits = []
    for i, row in enumerate(unit(rows)):
        others = [j for j in range(len(rows)) if group[j] != group[i]]
        if not any(label[j] == label[i] for j in others):
            continue
        nearest = sorted(others, key=lambda j: -float(row @ unit(rows)[j]))[:k]
        hits.append(any(label[j] == label[i] for j in nearest))
    return sum(hits) / len(hits), len(hits)


def test_recall_is_that_of_a_double_loop_over_other_groups(block):
    found, asked = recall_at_k(ROWS, LABEL, GROUP, [1, 3, 10, 60])
    for k in (1, 3, 10, 60):
        assert (found[f"recall_at_{k}"], asked) == recall_by_a_double_loop(ROWS, LABEL, GROUP, k)
    assert 0 < found["recall_at_1"] < found["recall_at_10"] < 1
    assert asked == 66 - 3  # class 3 is in one video only, so nobody can find it


def test_a_twin_in_the_own_video_is_no_answer():
    rows = np.array([[1, 0], [1, 0], [0, 1], [0.8, 0.6]])
    # Row 0's twin is row 1; of the other group, row 3 (class 1) is nearer than row 2 (class 0).
    found, asked = recall_at_k(rows, np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), [1, 2])
    assert asked == 3
    assert found == {"recall_at_1": 1 / 3, "recall_at_2": 1.0}  # row 2 has only rows of its class to find


def test_asking_for_more_than_there_are_candidates_finds_whoever_is_there():
    found, asked = recall_at_k(ROWS[:6], LABEL[:6], GROUP[:6], [1, 5, 1000])
    assert asked == 3  # rows 0 and 1 can find row 5, and row 5 them
    assert found["recall_at_1000"] == found["recall_at_5"] == 1


@pytest.mark.parametrize(
    ("label", "group"), [([0, 1, 2], [0, 1, 2]), ([0, 0, 0], [1, 1, 1])], ids=["no_class_twice", "one_video"]
)
def test_where_nobody_can_be_asked_recall_is_not_a_number(label, group):
    found, asked = recall_at_k(ROWS[:3], np.array(label), np.array(group), [1, 2])
    assert asked == 0
    assert all(map(math.isnan, found.values()))


def test_with_one_class_every_answer_is_right():
    assert recall_at_k(ROWS, np.zeros(66, dtype=int), GROUP, [1])[0] == {"recall_at_1": 1.0}


def test_of_equally_near_rows_the_first_are_taken():
    cosine = np.random.default_rng(0).integers(0, 4, (50, 40)).astype(np.float32)
    cosine[::3, ::2] = -np.inf
    for most in (1, 5, 39, 40, 1000):
        expected = [sorted(range(40), key=lambda j: (-row[j], j))[:most] for row in cosine]
        assert retrieval._nearest(cosine, most).tolist() == expected


def test_a_single_neighbour_votes_as_in_sklearn(block):
    peer = KNeighborsClassifier(1, metric="cosine").fit(ROWS[:40], LABEL[:40])
    assert knn_predict(ROWS[:40], LABEL[:40], ROWS[40:], 1, 4).tolist() == peer.predict(ROWS[40:]).tolist()


def test_an_odd_number_of_neighbours_votes_on_two_classes_as_in_sklearn(block):
    label = (LABEL > 0).astype(int)
    peer = KNeighborsClassifier(9, metric="cosine").fit(ROWS[:40], label[:40])
    predicted = knn_predict(ROWS[:40], label[:40], ROWS[40:], 9, 2)
    assert predicted.tolist() == peer.predict(ROWS[40:]).tolist()
    assert set(predicted) == {0, 1}


def test_of_equal_votes_the_greater_sum_of_cosines_wins(block):
    predicted = knn_predict(ROWS[:40], LABEL[:40], ROWS[40:], 6, 5)
    tied = 0
    for row, found in zip(ROWS[40:], predicted, strict=True):
        cosine = unit(ROWS[:40]) @ unit(row[None])[0]
        nearest = np.argsort(-cosine)[:6]
        votes = {c: (int((LABEL[nearest] == c).sum()), cosine[nearest][LABEL[nearest] == c].sum()) for c in range(5)}
        tied += sorted(v for v, _ in votes.values())[-2:] == [max(votes.values())[0]] * 2
        assert found == max(votes, key=votes.get)
    assert tied > 3


def test_a_difference_in_the_fifth_digit_of_a_cosine_still_breaks_a_tie():
    angle = np.array([0.1000, 0.0999])  # cosines that differ by 1e-5
    train = np.stack([np.cos(angle), np.sin(angle)], axis=1).repeat(10, axis=0)
    label = np.array([0, 1]).repeat(10)
    assert knn_predict(train, label, np.array([[1.0, 0.0]]), 20, 2).tolist() == [1]
    assert knn_predict(train, 1 - label, np.array([[1.0, 0.0]]), 20, 2).tolist() == [0]


def test_fewer_rows_than_neighbours_all_vote():
    assert knn_predict(ROWS[:3], np.array([2, 0, 2]), ROWS[3:6], 20, 3).tolist() == [2, 2, 2]


def test_a_row_of_zeros_gets_the_most_frequent_class_and_no_error():
    assert knn_predict(ROWS[:5], np.array([1, 0, 1, 1, 0]), np.zeros((1, 4)), 5, 2).tolist() == [1]


def test_nobody_asked_is_nobody_answered():
    assert knn_predict(ROWS, LABEL, ROWS[:0], 5, 4).shape == (0,)
