import itertools
import math

import formulas
import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score, roc_curve
from test_pair_cosines import GROUP, LABEL, ONCE, OPPOSITES, ROWS, WEIGHTS, copies

from pipeline.metrics import verification as verification_module
from pipeline.metrics.pair_cosines import pair_cosines, pairs_by_kind
from pipeline.metrics.verification import (
    ListedScores,
    auc,
    best_f1_of_named_pairs,
    counts_of,
    f1_of_named_pairs,
    pair_counts,
    threshold_scores,
    verification,
)


@pytest.fixture(params=[7, 256], ids=["blocks_of_7", "one_block"])
def block(request, monkeypatch):
    for name in ("BLOCK", "PAIRS", "RESAMPLES"):
        monkeypatch.setattr(verification_module, name, request.param)


def test_the_counts_of_pairs_are_all_pairs_of_two_groups(block):
    counts = pair_counts(ROWS, LABEL, GROUP, 4, OPPOSITES, bins=64)
    cosines = formulas.cosines_of_pairs(ROWS, LABEL, GROUP, OPPOSITES)
    same, other, opposite = counts.histogram(ONCE)[0]
    np.testing.assert_array_equal(same, np.histogram(cosines["same"], counts.edges)[0])
    np.testing.assert_array_equal(other + opposite, np.histogram(cosines["different"], counts.edges)[0])
    np.testing.assert_array_equal(opposite, np.histogram(cosines["opposite"], counts.edges)[0])
    assert len(counts.pairs) == 5 * 4 / 2
    assert counts.num_frames == 93


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_resample_counts_the_pairs_of_the_rows_copied(weights, block):
    counts = pair_counts(ROWS, LABEL, GROUP, 4, OPPOSITES, bins=64)
    rows = copies(weights)
    cosines = formulas.cosines_of_pairs(ROWS[rows], LABEL[rows], GROUP[rows], OPPOSITES)
    expected = [np.histogram(cosines[kind], counts.edges)[0] for kind in ("same", "opposite")]
    np.testing.assert_array_equal(counts.histogram(WEIGHTS)[WEIGHTS.tolist().index(weights.tolist())][[0, 2]], expected)


def test_any_score_can_be_counted(block):
    """A head's logits, which no dot product gives; solved by a loop over all pairs of two groups."""
    table = np.random.default_rng(1).standard_normal((93, 93)) * 9 + 3 * (LABEL[:, None] == LABEL)
    table += table.T
    counts = counts_of(lambda a, b: table[np.ix_(a, b)], LABEL, GROUP, 4, OPPOSITES, bins=100_000)
    every = [(i, j) for i, j in itertools.combinations(range(93), 2) if GROUP[i] != GROUP[j]]
    same = np.array([LABEL[i] == LABEL[j] for i, j in every])
    assert counts.histogram(ONCE)[0].sum(1)[0] == same.sum()
    found = verification(counts)(ONCE)
    expected = roc_auc_score(same, [table[i, j] for i, j in every])
    assert found["auc_same_different"] == pytest.approx([expected], abs=1e-4)


def test_of_many_rows_the_evenly_spaced_ones_are_counted():
    counts = pair_counts(ROWS, LABEL, GROUP, 4, OPPOSITES, most=20)
    few = np.linspace(0, 92, 20).round().astype(int)
    expected = formulas.cosines_of_pairs(ROWS[few], LABEL[few], GROUP[few], OPPOSITES)
    same, other, opposite = counts.histogram(ONCE)[0].sum(1)
    assert (same, other + opposite, opposite) == tuple(len(expected[k]) for k in ("same", "different", "opposite"))
    assert counts.num_frames == 20


def test_with_fine_bins_the_scores_are_those_of_sklearn_on_the_cosines_themselves():
    found = verification(pair_counts(ROWS, LABEL, GROUP, 4, OPPOSITES, bins=100_000))(ONCE)
    cosines = formulas.cosines_of_pairs(ROWS, LABEL, GROUP, OPPOSITES)
    for other in ("different", "opposite"):
        p, n = cosines["same"], cosines[other]
        truth, score = np.r_[np.ones(len(p)), np.zeros(len(n))], np.r_[p, n]
        fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
        precision, recall, _ = precision_recall_curve(truth, score)
        expected = {
            "auc": roc_auc_score(truth, score),
            "eer": brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1),  # noqa: B023
            "best_f1": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9)),
            "d_prime": (p.mean() - n.mean()) / math.sqrt((p.var() + n.var()) / 2),
            "tpr_at_fpr_1e-1": tpr[fpr <= 0.1].max(),
            "tpr_at_fpr_1e-2": tpr[fpr <= 0.01].max(),
            "tpr_at_fpr_1e-3": tpr[fpr <= 0.001].max(),
        }
        for name, value in expected.items():
            assert found[f"{name}_same_{other}"][0] == pytest.approx(value, abs=3e-3), name
        assert found[f"auc_same_{other}"][0] == pytest.approx(expected["auc"], abs=1e-5)
        assert 0 < expected["tpr_at_fpr_1e-2"] < expected["tpr_at_fpr_1e-1"] < 0.9


def test_the_usual_bins_do_not_move_an_auc():
    rng = np.random.default_rng(3)
    label, group = rng.integers(0, 3, 400), np.arange(400) // 10
    # A network whose cosines are all above 0.999 has bins of its own; above 0.999999 the digits of float32 end.
    for spread, tolerance in ((1, 1e-4), (0.01, 1e-4), (0.001, 1e-3)):
        rows = 1 + spread * (rng.standard_normal((400, 6)) + 0.7 * np.eye(6)[label])
        expected = formulas.separation(formulas.cosines_of_pairs(rows, label, group, OPPOSITES))
        found = verification(pair_counts(rows, label, group, 3, OPPOSITES))(np.ones((1, 40)))
        assert 0.52 < expected["auc_same_different"] < 0.9
        for name in ("auc_same_different", "auc_same_opposite"):
            assert found[name][0] == pytest.approx(expected[name], abs=tolerance)


def test_threshold_scores_are_solved_by_hand():
    # Cosines of .9 (3 positives, 1 negative), .5 (1 and 1) and .1 (0 and 2).
    found = threshold_scores(np.array([[0, 1, 3]]), np.array([[2, 1, 1]]), np.array([0.1, 0.5, 0.9]))
    # ROC: (0, 0), (1/4, 3/4), (1/2, 1), (1, 1).
    expected = {
        "auc": (0.75 / 2 + 1.75 / 2) / 4 + 0.5,
        "eer": 0.25,
        "best_f1": 2 * 4 / (2 * 4 + 2 + 0),
        "d_prime": (0.8 - 0.4) / math.sqrt((0.03 + 0.11) / 2),
        "tpr_at_fpr_1e-1": 0.3,
        "tpr_at_fpr_1e-2": 0.03,
        "tpr_at_fpr_1e-3": 0.003,
    }
    assert {k: float(v[0]) for k, v in found.items()} == pytest.approx(expected)


def test_what_is_apart_altogether_has_no_errors():
    found = threshold_scores(np.array([[0, 0, 2]]), np.array([[3, 0, 0]]), np.array([0.0, 0.5, 1.0]))
    d_prime = found.pop("d_prime")
    assert np.isnan(d_prime[0])  # neither side has any spread
    assert {k: float(v[0]) for k, v in found.items()} == pytest.approx({k: float(k != "eer") for k in found})


def test_one_point_for_everything_separates_nothing():
    found = verification(pair_counts(np.ones((93, 4)), LABEL, GROUP, 4, OPPOSITES))(ONCE)
    assert found["auc_same_different"] == pytest.approx([0.5])
    assert found["eer_same_different"] == pytest.approx([0.5])
    assert found["tpr_at_fpr_1e-2_same_different"] == pytest.approx([0.01])
    assert np.isnan(found["d_prime_same_different"][0])


@pytest.mark.parametrize(
    ("label", "group"), [([0, 0, 0], [0, 1, 2]), ([0, 1, 2], [0, 1, 2]), ([0, 0, 1], [0, 0, 0]), ([], [])],
    ids=["one_class", "no_class_twice", "one_video", "nothing"],
)  # fmt: skip
def test_what_there_are_no_pairs_for_is_not_a_number(label, group):
    label, group = np.array(label, dtype=int), np.array(group, dtype=int)
    once = np.ones((1, len(np.unique(group))))
    found = verification(pair_counts(ROWS[: len(label)], label, group, 4, OPPOSITES))(once)
    assert all(np.isnan(value[0]) for value in found.values())


def test_the_auc_of_listed_scores_is_the_share_of_comparisons_won_with_ties_half():
    rng = np.random.default_rng(2)
    for top in (9, 3):  # the highest scores are of the same, of the different pairs
        same, different = rng.integers(0, top, 30) / 8, rng.integers(0, 7, 50) / 8
        wins = [(p > n) + 0.5 * (p == n) for p in same for n in different]
        found = verification(ListedScores(same, different))(np.ones((1, 2)))
        assert found == {"auc_same_different": [np.mean(wins)]}
        assert auc(same, different) == pytest.approx(roc_auc_score(np.arange(80) < 30, [*same, *different]), abs=1e-12)


def test_the_auc_of_listed_scores_is_that_of_their_counts():
    """But for the bins: so a curve of TensorBoard tells what evaluation will say."""
    kinds = pairs_by_kind(LABEL, GROUP, OPPOSITES)
    cosines = pair_cosines(ROWS, kinds)
    counted = verification(pair_counts(ROWS, LABEL, GROUP, 4, OPPOSITES))(ONCE)["auc_same_different"]
    assert auc(cosines["same"], cosines["different"]) == pytest.approx(counted[0], abs=1e-3)


def test_what_is_told_apart_altogether_has_an_auc_of_exactly_one():
    """So that of two such epochs the first stays the best one, whatever their scores are."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert auc(1 + rng.random(101), rng.random(77)) == 1


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (0, 0)])
def test_without_one_of_the_sides_there_is_no_auc(sizes):
    assert np.isnan(auc(*map(np.zeros, sizes)))


def test_the_f1_of_named_pairs_at_a_logit_of_0_is_that_of_sklearn_in_each_resample():
    rng = np.random.default_rng(5)
    logits, same, groups = rng.standard_normal(60), rng.random(60) < 0.4, rng.integers(0, 5, 60)
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 3, 1], [0, 1, 0, 2, 1]])
    found = f1_of_named_pairs(logits, same, groups)(weights)["f1"]
    for row, value in zip(weights, found, strict=True):
        assert value == pytest.approx(f1_score(same, logits > 0, sample_weight=row[groups]))


def test_the_best_f1_is_of_as_many_same_as_different_pairs():
    def best(same, different):
        return best_f1_of_named_pairs(same, different)(np.ones((1, 2)))["paired_best_f1"][0]

    positive, negative = np.array([0.9, 0.5]), np.array([0.1, 0.8, 0.7, 0.6, 0.2])
    # two of the five, evenly spaced: 0.1 and 0.2; all of them would make it 2/3
    assert best(positive, negative) == 1
    # above 0.8: one of two found, none wrong, 2/3; at 0.5 and above: both found, two wrong, 2/3
    assert best(positive, np.array([0.8, 0.6])) == pytest.approx(2 / 3)
    assert np.isnan(best(positive, negative[:0]))
