import math

import numpy as np
import pytest

from pipeline.metrics import uncertainty
from pipeline.metrics.grouped import of_means
from pipeline.metrics.uncertainty import (
    Estimate,
    best_beyond_noise,
    estimates,
    group_weights,
)

# Five videos of unequal length; a number a row.
GROUP = np.repeat([0, 1, 2, 3, 4], [5, 1, 40, 17, 30])
VALUE = np.random.default_rng(0).standard_normal(93) + GROUP


def test_the_draws_are_a_function_of_the_seed_and_never_the_same_for_another():
    one = group_weights(5, 200, seed=0)
    assert one.shape == (200, 5)
    assert (one.sum(1) == 4).all()
    np.testing.assert_array_equal(one, group_weights(5, 200, seed=0))
    assert (one != group_weights(5, 200, seed=1)).any()


@pytest.mark.parametrize("num_groups", [3, 8, 50])
def test_the_spread_of_a_mean_over_resamples_is_its_standard_error(num_groups):
    """Of few groups too: the deviation of the mean of n draws is s / sqrt(n), s² with n - 1."""
    value = np.random.default_rng(num_groups).standard_normal(num_groups)
    measure = of_means({"mean": value}, np.arange(num_groups))
    found = estimates("run", [measure], group_weights(num_groups, 40_000))["mean"]
    assert found.value == pytest.approx(value.mean())
    assert found.resampled.std() == pytest.approx(value.std(ddof=1) / math.sqrt(num_groups), rel=0.03)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    weights, held = group_weights(40, 400), 0
    for _ in range(300):
        value = np.repeat(rng.standard_normal(40), 5) + 0.1 * rng.standard_normal(200)  # rows of a video are alike
        found = estimates("run", [of_means({"x": value}, np.repeat(np.arange(40), 5))], weights)["x"]
        low, high = found.interval(0.9)
        held += low <= 0 <= high
    assert 0.85 < held / 300 < 0.94


def test_means_of_rows_are_those_of_the_rows_copied():
    value = np.where(np.arange(93) % 7 == 0, np.nan, VALUE)
    weights = group_weights(5, 20)
    fast = of_means({"mean": value}, GROUP)(weights)["mean"]
    slow = []
    for drawn in weights:
        copies = [value[g == GROUP] for g in range(5) for _ in range(drawn[g])]
        slow.append(np.nanmean(np.concatenate(copies)))
    np.testing.assert_allclose(fast, slow)


def test_groups_without_a_known_row_have_no_mean():
    value = np.where(GROUP == 1, np.nan, VALUE)
    assert np.isnan(of_means({"mean": value}, GROUP)(np.array([[0, 3, 0, 0, 0]]))["mean"][0])


def test_a_sample_of_rows_has_the_groups_of_all_rows():
    found = of_means({"mean": VALUE[:6]}, GROUP[:6], num_groups=5)(np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 2]]))["mean"]
    assert found[0] == pytest.approx(VALUE[:6].mean())
    assert np.isnan(found[1])


def measure(values):
    return of_means({"x": np.asarray(values, dtype=float)}, np.arange(len(values)))


def test_seeds_that_agree_add_nothing_to_the_interval_and_seeds_that_do_not_widen_it():
    value, weights = np.random.default_rng(1).standard_normal(30), group_weights(30, 20_000)
    one = estimates("run", [measure(value)], weights)["x"]
    agree = estimates("run", [measure(value)] * 3, weights)["x"]
    np.testing.assert_allclose(agree.resampled, one.resampled)
    shifts = np.array([-1, 0.2, 0.8])
    apart = estimates("run", [measure(value + s) for s in shifts], weights)["x"]
    assert apart.value == pytest.approx(value.mean())
    expected = one.resampled.var() + shifts.var(ddof=1) / 3  # both kinds of chance, each with its standard error
    assert apart.resampled.var() == pytest.approx(expected, rel=0.03)


def test_the_seeds_of_two_runs_are_drawn_apart_and_those_of_a_run_always_alike():
    weights = group_weights(5, 50)
    seeds = [measure([s] * 5) for s in (0, 1, 2)]
    one, again, other = (estimates(name, seeds, weights)["x"].resampled for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_difference_is_paired_so_that_what_both_runs_share_is_no_noise():
    hard = np.random.default_rng(2).standard_normal(30) * 10  # some videos are hard for all
    weights = group_weights(30)
    better = estimates("better", [measure(hard + 0.5 + 0.1 * np.arange(30) % 2)], weights)["x"]
    worse = estimates("worse", [measure(hard)], weights)["x"]
    assert better.interval()[0] < worse.interval()[1]  # the intervals overlap by far
    assert (better - worse).beyond_noise()
    assert (worse - better).beyond_noise()
    assert (better - worse).value == pytest.approx(better.value - worse.value)
    assert not (better - better).beyond_noise()


def test_resamples_of_unequal_number_are_no_pairs():
    with pytest.raises(ValueError, match="3 and 4 resamples"):
        Estimate(0.0, np.zeros(3)) - Estimate(0.0, np.zeros(4))


def test_an_interval_is_of_percentiles_without_those_that_cannot_be_measured():
    values = np.r_[np.arange(101.0), [np.nan] * 50]
    assert Estimate(50, values).interval(0.9) == pytest.approx((5, 95))
    assert all(map(math.isnan, Estimate(50, np.r_[1.0, np.nan, np.nan]).interval()))
    assert not Estimate(50, np.full(9, np.nan)).beyond_noise()


def test_a_single_video_has_a_value_and_no_interval():
    found = estimates("run", [measure([3.0])], group_weights(1))["x"]
    assert found.value == 3
    assert all(map(math.isnan, found.interval()))


def test_the_best_is_named_only_where_it_beats_every_other_beyond_noise():
    rng = np.random.default_rng(4)
    runs = {name: Estimate(mean, mean + rng.standard_normal(2000)) for name, mean in (("a", 0), ("b", 9), ("c", 10))}
    assert best_beyond_noise(runs) is None  # b is too near to c
    assert best_beyond_noise({k: runs[k] for k in "ac"}) == "c"
    assert best_beyond_noise(runs, higher_is_better=False) == "a"
    assert best_beyond_noise({"a": runs["a"]}) is None
    assert best_beyond_noise({"a": runs["a"], "nothing": Estimate(math.nan, np.full(2000, np.nan))}) is None


def test_among_many_runs_one_must_stand_out_more():
    shift = np.linspace(-0.1, 9.9, 2001)  # above zero in 99 % of the resamples
    best, other = Estimate(1, shift), Estimate(0, np.zeros(2001))
    assert best_beyond_noise({"best": best, "other": other}) == "best"
    assert best_beyond_noise({"best": best} | {str(i): other for i in range(20)}) is None


def test_nothing_to_resample_is_said():
    with pytest.raises(ValueError, match="there are 0 and 1000"):
        group_weights(0)
    with pytest.raises(ValueError, match="run 'a' has no seeds"):
        estimates("a", [], group_weights(3))


def test_weights_and_estimates_are_the_same_however_many_are_measured_at_a_time(monkeypatch):
    value, groups = np.random.default_rng(2).standard_normal(60), np.repeat(np.arange(12), 5)
    measure = of_means({"x": value}, groups)
    weights = group_weights(12, 50)
    whole = estimates("run", [measure, measure], weights)["x"]
    monkeypatch.setattr(uncertainty, "MOST_AT_ONCE", 7 * 12)
    np.testing.assert_array_equal(group_weights(12, 50), weights)
    drawn = np.random.default_rng(0).multinomial(11, np.full(12, 1 / 12), size=50)
    np.testing.assert_array_equal(weights, drawn)
    np.testing.assert_allclose(estimates("run", [measure, measure], weights)["x"].resampled, whole.resampled)
