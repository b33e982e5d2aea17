import time

import numpy as np
import pytest

from pipeline.params import UserError
from pipeline.training.samplers import SAMPLERS, build_sampler

# 8 uneven classes in 30 videos of very different lengths; class 6 is one video, class 7 one window.
RNG = np.random.default_rng(0)
LABELS = RNG.choice(6, 1003, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
VIDEOS = np.minimum(RNG.geometric(0.08, 1003), 30) * 7
LABELS[VIDEOS == 7 * 5] = 6
LABELS[17] = 7
BATCH_SIZE = 64


def make(name, labels=LABELS, videos=VIDEOS, batch_size=BATCH_SIZE, seed=0):
    return build_sampler(name, labels=labels, videos=videos, batch_size=batch_size, seed=seed)


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_same_seed_gives_the_same_batches_in_any_order_of_asking(name):
    first, second = make(name, seed=3), make(name, seed=3)
    epochs = {epoch: first.epoch(epoch) for epoch in (0, 1, 2)}
    for epoch in (2, 0, 1):
        assert same(second.epoch(epoch), epochs[epoch])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_another_seed_gives_other_batches_from_epoch_0_on(name):
    for epoch in (0, 1):
        assert not same(make(name, seed=0).epoch(epoch), make(name, seed=1).epoch(epoch))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_another_epoch_gives_other_batches(name):
    sampler = make(name)
    assert not same(sampler.epoch(0), sampler.epoch(1))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_batches_hold_window_numbers_and_no_more_than_asked(name):
    for batch in make(name).epoch(0):
        assert batch.dtype == np.int64
        assert 2 <= len(batch) <= BATCH_SIZE
        assert batch.min() >= 0
        assert batch.max() < len(LABELS)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize(("num_windows", "num_batches"), [(640, 10), (641, 10), (642, 11), (40, 1)])
def test_an_epoch_has_the_batches_that_one_pass_over_the_windows_has(name, num_windows, num_batches):
    sampler = make(name, labels=LABELS[:num_windows], videos=VIDEOS[:num_windows])
    assert [len(sampler.epoch(e)) for e in (0, 1)] == [num_batches] * 2


def test_uniform_takes_every_window_once():
    assert sorted(np.concatenate(make("uniform").epoch(0))) == list(range(len(LABELS)))


def test_uniform_drops_a_single_window_left_over_and_another_one_each_epoch():
    sampler = make("uniform", labels=LABELS[:65], videos=VIDEOS[:65])
    taken = [np.concatenate(sampler.epoch(epoch)) for epoch in (0, 1)]
    assert [len(set(epoch)) for epoch in taken] == [64, 64]
    assert set(range(65)) - set(taken[0]) != set(range(65)) - set(taken[1])


@pytest.mark.parametrize("batch_size", [16, 64, 100])
def test_balanced_has_every_class_equally_often_in_each_batch(batch_size):
    for batch in make("balanced", batch_size=batch_size).epoch(0):
        assert np.bincount(LABELS[batch]).tolist() == [batch_size // 8] * 8


@pytest.mark.parametrize("batch_size", [16, 24, 64, 100])
def test_balanced_has_every_class_at_even_and_at_odd_positions(batch_size):
    for batch in make("balanced", batch_size=batch_size).epoch(0):
        assert set(LABELS[batch[0::2]]) == set(LABELS[batch[1::2]]) == set(range(8))


def test_balanced_draws_the_videos_of_a_class_equally_often():
    drawn = np.concatenate(make("balanced").epoch(0))
    for label in range(8):
        of_class = drawn[LABELS[drawn] == label]
        counts = [np.sum(VIDEOS[of_class] == video) for video in np.unique(VIDEOS[label == LABELS])]
        assert max(counts) - min(counts) <= 1


def test_balanced_does_not_fill_a_batch_with_one_face():
    for batch in make("balanced").epoch(0):
        for label in range(6):
            num_videos = len(np.unique(VIDEOS[label == LABELS]))
            # 8 draws in a row touch two rounds at most, and no video comes twice in a round.
            assert len(np.unique(VIDEOS[batch[LABELS[batch] == label]])) >= min(4, num_videos)


def test_balanced_takes_the_videos_of_a_class_in_a_new_order_each_round():
    videos = np.unique(VIDEOS[LABELS == 0])
    drawn = np.concatenate(make("balanced").epoch(0))
    of_class = VIDEOS[drawn[LABELS[drawn] == 0]]
    rounds = [tuple(of_class[start : start + len(videos)]) for start in range(0, len(of_class), len(videos))][:-1]
    assert all(sorted(one_round) == videos.tolist() for one_round in rounds)
    assert len(set(rounds)) == len(rounds) > 2


def test_balanced_uses_up_a_video_before_it_repeats_a_window():
    drawn = np.concatenate(make("balanced").epoch(0))
    counts = np.bincount(drawn, minlength=len(LABELS))
    for label, video in {*zip(LABELS.tolist(), VIDEOS.tolist(), strict=True)}:
        of_video = counts[(label == LABELS) & (video == VIDEOS)]
        assert of_video.max() - of_video.min() <= 1


def test_balanced_reaches_all_windows_in_the_long_run():
    sampler = make("balanced")
    drawn = np.concatenate([np.concatenate(sampler.epoch(epoch)) for epoch in range(300)])
    assert len(np.unique(drawn)) == len(LABELS)


@pytest.mark.parametrize("batch_size", [4, 6, 8, 14])
def test_balanced_lets_more_classes_than_fit_take_turns(batch_size):
    labels, videos = RNG.integers(0, 9, 300), RNG.integers(0, 20, 300)
    batches = make("balanced", labels=labels, videos=videos, batch_size=batch_size).epoch(0)
    for batch in batches:
        counts = np.unique(labels[batch], return_counts=True)[1]
        assert counts.tolist() == [2] * (batch_size // 2)
    turns = np.bincount(labels[np.concatenate(batches)], minlength=9) // 2
    assert turns.max() - turns.min() <= 1


def test_balanced_keeps_pairs_together_where_labels_are_pair_ids():
    pair_ids = RNG.permutation(np.repeat(np.arange(50) * 3, 2))
    batches = make("balanced", labels=pair_ids, videos=np.arange(100), batch_size=20).epoch(0)
    assert all((pair_ids[batch[0::2]] == pair_ids[batch[1::2]]).all() for batch in batches)
    assert sorted(np.concatenate(batches)) == list(range(100))


def test_balanced_does_not_depend_on_the_values_of_labels_and_videos():
    renamed = make("balanced", labels=LABELS * 10**9 - 5, videos=VIDEOS * 10**9 - 5)
    assert same(renamed.epoch(0), make("balanced").epoch(0))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_an_epoch_of_a_large_data_set_takes_a_second_at_most(name):
    rng = np.random.default_rng(0)
    sampler = make(name, labels=rng.integers(0, 8, 600_000), videos=rng.integers(0, 250, 600_000), batch_size=256)
    start = time.perf_counter()
    sampler.epoch(0)
    assert time.perf_counter() - start < 3  # 0.15 s alone on one core


def test_a_wrong_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"sampler 'balance' is not one of \['balanced', .*\(did you mean 'balanced'"):
        make("balance")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("balanced", {"labels": np.full(100, 4), "videos": np.arange(100)}, "at least 2 classes.*of class 4"),
        ("balanced", {"batch_size": 3}, "batch_size must be at least 4"),
        ("uniform", {"batch_size": 1}, "batch_size must be at least 2"),
        ("uniform", {"labels": LABELS[:1], "videos": VIDEOS[:1]}, "at least 2 windows, and there are 1"),
        ("balanced", {"labels": LABELS[:0], "videos": VIDEOS[:0]}, "at least 2 windows, and there are 0"),
        ("uniform", {"seed": None}, "sampler 'uniform' needs seed"),
    ],
)
def test_what_a_sampler_cannot_use_is_refused(name, values, message):
    with pytest.raises(UserError, match=message):
        make(name, **values)
