"""In which view a window of a batch is: even shares, pairs of two views, and nothing but seed and epoch decides."""

import numpy as np
import pytest

from pipeline.training.view_draw import ViewDraw

BATCHES = [np.repeat(np.random.default_rng(number).permutation(50), 2)[:60] for number in range(40)]


def drawn(num_views=4, seed=0, augment=True, paired=False, epoch=0):
    return [np.divmod(batch, 50) for batch in ViewDraw(num_views, seed, augment, paired)(BATCHES, 50, epoch)]


@pytest.mark.parametrize("paired", [False, True])
def test_windows_stay_and_every_view_comes_as_often_as_any_other(paired):
    views = []
    for (view, window), batch in zip(drawn(paired=paired), BATCHES, strict=True):
        assert (window == batch).all()
        views.append(view)
    shares = np.bincount(np.concatenate(views)) / 2400
    assert shares == pytest.approx([0.25] * 4, abs=4 * np.sqrt(0.25 * 0.75 / 2400))


def test_a_window_that_is_twice_in_a_batch_need_not_be_in_one_view():
    same = [view[0::2] == view[1::2] for view, _ in drawn()]
    assert np.mean(same) == pytest.approx(0.25, abs=0.05)


def test_neighbouring_windows_of_several_frames_share_a_view_in_an_epoch():
    seen = []
    for epoch in range(40):
        drawn = ViewDraw(4, 0, True, False, together=8)([np.arange(50), np.arange(49, -1, -1)], 50, epoch)
        view = drawn[0] // 50
        assert (drawn[0] % 50 == np.arange(50)).all()
        assert (drawn[1][::-1] == drawn[0]).all()
        assert all(len({*some}) == 1 for some in np.split(view, range(8, 50, 8)))
        seen.append(view[::8])
    assert np.bincount(np.concatenate(seen)) / 280 == pytest.approx([0.25] * 4, abs=0.1)


@pytest.mark.parametrize("augment", [False, True])
def test_the_two_of_a_pair_are_in_two_views_and_without_augment_the_first_is_the_original(augment):
    views = np.concatenate([view for view, _ in drawn(num_views=3, augment=augment, paired=True)])
    first, other = views[0::2], views[1::2]
    assert (first != other).all()
    pairs = {(a, b) for a in range(3) for b in range(3) if a != b and (augment or a == 0)}
    assert {*zip(first.tolist(), other.tolist(), strict=True)} == pairs


def test_seed_and_epoch_alone_decide():
    def of(seed, epoch):
        return np.concatenate([view for view, _ in drawn(seed=seed, epoch=epoch)]).tolist()

    assert of(1, 2) == of(1, 2)
    assert len({str(of(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
