import tracemalloc

import numpy as np
import pytest

from pipeline.metrics.grouped import one_by_one, squared, summed, sums_by
from pipeline.metrics.measures import SeedResult, Subset, by_groups
from pipeline.metrics.pair_cosines import mean_cosines
from pipeline.metrics.protocol import expression

RNG = np.random.default_rng(0)


def subset_of(video, classes=4):
    """One group a video, expressions, valence and arousal, and two action units, with frames that have none."""
    n = len(video)
    frame = np.arange(n) - np.searchsorted(video, video)
    va, aus = RNG.uniform(-1, 1, (n, 2)), RNG.integers(0, 2, (n, 2)).astype(float)
    va[::7], aus[::5] = np.nan, np.nan
    names = [str(v) for v in range(video.max() + 1)]
    return Subset(
        video=video, frame=frame, number=frame, group=video, va=va, aus=aus, videos=names, groups=names,
        label=np.where(np.arange(n) % 9 == 8, -1, RNG.integers(0, classes, n)), classes=list("abcd")[:classes],
        au_names=["au1", "au4"], step=1, opposites=[(0, 1)], gallery_label=np.zeros(0, dtype=int),
    )  # fmt: skip


def result_of(subset):
    n = len(subset.video)
    said = {"classes": RNG.random((n, 4)), "va": RNG.uniform(-1, 1, (n, 2)), "aus": RNG.random((n, 2))}
    predictions = {what: {"": values, "_smoothed": values[::-1]} for what, values in said.items()}
    return SeedResult(predictions, None, RNG.integers(0, 4, len(subset.labelled)))


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_each_video_measured_by_itself_is_a_row_of_the_identity(at_once):
    video = np.repeat(np.arange(9), [5, 1, 40, 2, 1, 13, 9, 30, 4])
    subset, z = subset_of(video), RNG.standard_normal((105, 6)).astype(np.float32)
    measure = by_groups(subset, z, result_of(subset), subset.video)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = measure(np.eye(9))
        parts = [measure(weights) for weights in one_by_one(9, at_once)]
    assert {"macro_f1", "ccc_smoothed", "au_f1", "steadiness", "flips_per_100", "probe_macro_f1"} <= set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(np.concatenate([p[name] for p in parts]), values, err_msg=name)


def test_sums_over_sparse_and_dense_weights_are_those_of_a_loop():
    groups, columns = RNG.integers(0, 5, 50), RNG.integers(0, 3, 50)
    weights = RNG.integers(0, 4, (7, 5)).astype(float)
    expected = np.zeros((7, 3))
    for r in range(7):
        for g, c in zip(groups, columns, strict=True):
            expected[r, c] += weights[r, g]
    counts = sums_by(groups, columns, 5, 3)
    np.testing.assert_array_equal(summed(weights, counts), expected)
    np.testing.assert_array_equal(summed(weights, counts.toarray()), expected)
    sparse = next(one_by_one(5)) * 3
    np.testing.assert_array_equal(summed(squared(sparse), counts), 9 * counts.toarray())


def test_memory_grows_with_photographs_and_classes_and_not_with_their_product():
    """3,000 photographs of 400 classes, each its own group: a table of groups and classes twice would take 3.8 GB."""
    n, classes = 3000, 400
    label, said = RNG.integers(0, classes, n), RNG.integers(0, classes, n)
    z, group = RNG.standard_normal((n, 8)).astype(np.float32), np.arange(n)
    names, weights = [f"c{k}" for k in range(classes)], RNG.multinomial(n - 1, np.full(n, 1 / n), size=2).astype(float)
    tracemalloc.start()
    expression(label, said, group, names)(weights)
    mean_cosines(z, label, group, classes)(weights)
    for some in one_by_one(n, 512):
        expression(label, said, group, names)(some)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
