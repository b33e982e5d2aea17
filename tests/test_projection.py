import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.decomposition import PCA

from pipeline.core import projection
from pipeline.core.files import save_tensors
from pipeline.core.params import UserError

MADE_BY = {"backbone": "tiny", "input_size": 32}


@pytest.fixture
def rows():
    """200 frames of 12 correlated features, far from zero, as the store gives them."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((200, 12)) * np.linspace(3, 0.2, 12) @ rng.standard_normal((12, 12))
    return (mixed + 20).astype(np.float16)


@pytest.mark.parametrize("solver", ["covariance_eigh", "full"])
def test_components_are_those_of_sklearn_with_their_largest_entry_positive(rows, solver):
    peer = PCA(5, svd_solver=solver).fit(rows.astype(np.float64))
    signs = [np.sign(c[np.abs(c).argmax()]) for c in peer.components_]
    fitted = projection.fit([rows], 5)
    np.testing.assert_allclose(fitted.mean, peer.mean_, rtol=1e-6)
    np.testing.assert_allclose(fitted.components, peer.components_ * np.array(signs)[:, None], atol=1e-6)
    np.testing.assert_allclose(fitted.explained, peer.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(fitted(rows), peer.transform(rows.astype(np.float64)) * signs, atol=1e-4)
    assert {a.dtype for a in (fitted.mean, fitted.components, fitted.explained, fitted(rows))} == {np.dtype(np.float32)}


def test_the_largest_entry_of_every_component_is_positive_whatever_the_sign_of_the_data(rows):
    for data in (rows, -rows):
        components = projection.fit([data], 12).components
        assert (components[np.arange(12), np.abs(components).argmax(1)] > 0).all()
    np.testing.assert_allclose(projection.fit([-rows], 5).components, projection.fit([rows], 5).components, atol=1e-6)


def test_a_diagonal_covariance_has_the_axes_as_components():
    rows = np.array([[9.0, 1, 0], [-9, 1, 0], [0, 4, 0], [0, -2, 0]])
    fitted = projection.fit([rows], 3)
    np.testing.assert_allclose(fitted.components, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(fitted.mean, [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(fitted.explained, [162 / 180, 18 / 180, 0], atol=1e-6)


@pytest.mark.parametrize("bounds", [[1], [7, 100], [50, 100, 150], [0, 3], [200]], ids=str)
def test_how_rows_are_cut_into_blocks_does_not_matter(rows, bounds):
    whole, cut = projection.fit([rows], 6), projection.fit(np.split(rows, bounds), 6)
    for name in ("mean", "components", "explained"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), atol=1e-6)


def test_blocks_that_are_given_are_left_as_they_were(rows):
    block = rows.astype(np.float64)
    projection.fit([block], 3)
    np.testing.assert_array_equal(block, rows)


def test_components_are_exact_for_features_far_from_zero():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((100, 4)) * [4, 3, 2, 1]
    near, far = projection.fit([rows], 4), projection.fit(np.array_split(rows + 1e6, 7), 4)
    np.testing.assert_allclose(far.components, near.components, atol=1e-6)


def test_features_that_never_change_have_nothing_to_explain():
    fitted = projection.fit([np.full((5, 4), 3.0)], 2)
    assert fitted.explained.tolist() == [0, 0]
    assert np.isfinite(fitted.components).all()


@pytest.mark.parametrize(("blocks", "count"), [([], 0), ([np.zeros((0, 4))], 0), ([np.eye(4)[:1]], 1)])
def test_less_than_two_rows_have_no_components(blocks, count):
    with pytest.raises(UserError, match=f"there are no principal components of {count} rows"):
        projection.fit(blocks, 1)


@pytest.mark.parametrize(("num_rows", "columns"), [(7, 30), (50, 4), (12, 5000)])
def test_of_few_rows_or_columns_there_are_as_many_components_as_scikit_learn_finds_with_variance(num_rows, columns):
    x = np.random.default_rng(0).standard_normal((num_rows, columns)) * np.linspace(1, 3, columns)
    fitted = projection.fit([x[:5], x[5:]], 256)
    peer = PCA().fit(x)
    has = peer.explained_variance_ratio_ > 1e-9
    assert len(fitted.components) == has.sum() == min(num_rows - 1, columns)
    np.testing.assert_allclose(fitted.explained, peer.explained_variance_ratio_[has], rtol=1e-3)
    np.testing.assert_allclose(fitted.components @ fitted.components.T, np.eye(has.sum()), atol=1e-5)


def test_what_was_saved_is_loaded_bit_for_bit(rows, tmp_path):
    fitted, path = projection.fit([rows], 5), tmp_path / "new" / "p.safetensors"
    projection.save(path, fitted, MADE_BY)
    loaded = projection.load(path, MADE_BY)
    for name in ("mean", "components", "explained"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))


def test_a_projection_of_other_features_is_refused_and_both_are_named(rows, tmp_path):
    path = tmp_path / "p.safetensors"
    projection.save(path, projection.fit([rows], 2), MADE_BY)
    with pytest.raises(UserError, match=r"backbone 'tiny' there, 'huge' here") as caught:
        projection.load(path, MADE_BY | {"backbone": "huge"})
    assert "input_size" not in str(caught.value)


def test_a_missing_projection_is_answered_with_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"no projection at .*python -m pipeline.extraction.reduce"):
        projection.load(tmp_path / "p.safetensors", MADE_BY)


@pytest.mark.parametrize(
    "length", [0, 4, 100, -1], ids=["empty", "cut_in_the_length", "cut_in_the_header", "cut_at_end"]
)
def test_a_damaged_file_is_named(rows, tmp_path, length):
    path = tmp_path / "p.safetensors"
    projection.save(path, projection.fit([rows], 2), MADE_BY)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        UserError, match=r"p\.safetensors is (not|damaged: it is) a projection.*'python -m pipeline.extraction.reduce'"
    ):
        projection.load(path, MADE_BY)


def test_another_safetensors_file_is_no_projection(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file({"weight": np.ones(3)}, path)
    with pytest.raises(UserError, match="is not a projection: there is no digest of ours"):
        projection.load(path, {})
    save_tensors(path, {"weight": np.ones(3)}, {"made_by": {}})
    with pytest.raises(UserError, match="is not a projection: it holds other tensors"):
        projection.load(path, {})


@pytest.fixture
def wide():
    """400 rows of 300 features whose variances fall slowly, as those of real maps do, far from zero."""
    rng = np.random.default_rng(2)
    axes = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    return (rng.standard_normal((400, 300)) * np.arange(1, 301.0) ** -0.7 @ axes + 3).astype(np.float16)


def test_wide_features_give_the_exact_components_but_for_the_last_ones(wide, monkeypatch):
    exact = projection.fit([wide], 40)
    monkeypatch.setattr(projection, "EXACT", 299)
    monkeypatch.setattr(projection, "SPARE", 20)
    monkeypatch.setattr(projection, "PIECE", 300 * 7)
    turned = projection.fit([wide], 40)
    assert not np.array_equal(turned.components, exact.components)
    assert 0.999 * exact.explained.sum() < turned.explained.sum() <= exact.explained.sum() * (1 + 1e-6)
    np.testing.assert_allclose(turned.explained[:20], exact.explained[:20], rtol=1e-3)
    assert (turned.components[:10] * exact.components[:10]).sum(1).min() > 0.999
    np.testing.assert_allclose(turned.components @ turned.components.T, np.eye(40), atol=1e-5)
    np.testing.assert_allclose(turned.mean, exact.mean, rtol=1e-6)
    projected = turned(wide)
    shares = projected.var(0) / wide.astype(np.float64).var(0).sum()
    np.testing.assert_allclose(shares, turned.explained, rtol=1e-3)


def test_wide_features_are_exact_where_the_basis_holds_all_of_them(wide, monkeypatch):
    few = wide[:50]  # rank 49
    exact = projection.fit([few], 30)
    monkeypatch.setattr(projection, "EXACT", 299)
    turned = projection.fit(np.array_split(few, 7), 30)
    np.testing.assert_allclose(turned.explained, exact.explained, rtol=1e-4)
    np.testing.assert_allclose(turned.components, exact.components, atol=1e-3)


def test_wide_features_give_the_same_components_every_time_and_hold_no_square_of_their_columns(monkeypatch):
    rows = np.random.default_rng(3).standard_normal((60, 20000)).astype(np.float16)
    tracemalloc.start()
    first = projection.fit([rows], 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 20000 * (8 + projection.SPARE) * 8 + 3 * projection.PIECE * 8
    assert peak < 20000 * 20000 * 8 / 10
    np.testing.assert_array_equal(projection.fit([rows], 8).components, first.components)


def test_wide_features_that_never_change_have_nothing_to_explain(monkeypatch):
    monkeypatch.setattr(projection, "EXACT", 3)
    fitted = projection.fit([np.full((5, 4), 3.0)], 2)
    assert fitted.explained.tolist() == [0, 0]
    assert np.isfinite(fitted.components).all()


def test_blocks_that_can_be_gone_through_once_only_are_refused(rows):
    with pytest.raises(TypeError, match="give a list of them, not an iterator"):
        projection.fit(iter([rows]), 3)


def test_no_projection_is_saved_and_loaded_as_none(tmp_path):
    path = tmp_path / "p.safetensors"
    projection.save(path, projection.nothing(12), MADE_BY)
    assert projection.load(path, MADE_BY) is None
    with pytest.raises(UserError, match="other features"):
        projection.load(path, MADE_BY | {"backbone": "huge"})
