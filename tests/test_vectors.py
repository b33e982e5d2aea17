import formulas
import numpy as np
import pytest

from pipeline.metrics.vectors import cosines, evenly, normalised

ROWS = np.random.default_rng(0).standard_normal((46, 4))
ROWS[3] = 0


def test_a_row_of_zeros_stays_zero():
    assert (normalised(ROWS)[3] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(normalised(ROWS), axis=1), np.arange(46) != 3, atol=1e-6)


def test_the_cosines_of_rows_are_those_of_each_two():
    first, second = np.array([0, 3, 5]), np.array([1, 1, 9])
    found = cosines(normalised(ROWS), first, second)
    expected = [formulas.cosine(ROWS[i], ROWS[j]) for i, j in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_features_in_half_precision_do_not_overflow():
    rows = np.full((2, 4), 60_000, dtype=np.float16)
    np.testing.assert_allclose(normalised(rows), 0.5, rtol=1e-6)


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
