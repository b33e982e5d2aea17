import inspect
import time

import numpy as np
import pytest

from pipeline.core.params import UserError
from pipeline.training.samplers import SAMPLERS
from pipeline.training.samplers.build import build_sampler, options_of
from pipeline.training.samplers.common import Sampler

# 8 uneven classes in 30 videos of very different lengths; class 6 is one video, class 7 one window.
RNG = np.random.default_rng(0)
LABELS = RNG.choice(6, 1003, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
VIDEOS = np.minimum(RNG.geometric(0.08, 1003), 30) * 7
LABELS[VIDEOS == 7 * 5] = 6
LABELS[17] = 7
GROUPS = VIDEOS // 21  # of about three videos each
FRAMES = np.zeros(1003, dtype=int)
for number in np.unique(VIDEOS):
    FRAMES[number == VIDEOS] = RNG.permutation(np.flatnonzero(number == VIDEOS))  # gaps, and not in order
EMBEDDINGS = RNG.standard_normal((1003, 6)).astype(np.float32)
BATCH_SIZE = 64
OPPOSITES = [(0, 1), (2, 0), (3, 4), (6, 99)]
# Which windows have a label of each track, by chance.
KNOWN = {track: RNG.random(1003) < 0.4 for track in ("expression", "va", "aus")}
KNOWN["expression"][17] = True
BY_CLASS = ["balanced", "opposite", "per_class_negatives", "hard_negative", "semi_hard"]


def make(name, labels=LABELS, videos=VIDEOS, batch_size=BATCH_SIZE, seed=0, refresh=True, **others):
    n = len(labels)
    others = {"groups": GROUPS[:n], "frames": FRAMES[:n], "opposites": OPPOSITES} | others
    others = {"known": {track: of[:n] for track, of in KNOWN.items()}} | others
    sampler = build_sampler(name, labels=labels, videos=videos, batch_size=batch_size, seed=seed, **others)
    if sampler.needs_embeddings and refresh:
        sampler.refresh(np.resize(EMBEDDINGS, (n, 6)))
    return sampler


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
    assert [len(sampler.epoch(e)) for e in (0, 1)] == [num_batches] * 2 == [sampler.num_batches] * 2


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sampler_says_where_it_is_from_and_what_an_epoch_is(name):
    assert SAMPLERS[name].source
    assert "epoch" in inspect.getdoc(SAMPLERS[name]) or SAMPLERS[name].__mro__[1] is not Sampler
    assert inspect.getdoc(SAMPLERS[name]).splitlines()[0].endswith(".")


@pytest.mark.parametrize(
    "name", sorted(name for name, sampler in SAMPLERS.items() if not sampler.needs_classes and name != "tracks")
)
def test_samplers_that_need_no_classes_do_without_labels(name):
    available = {"videos": VIDEOS, "frames": FRAMES, "batch_size": BATCH_SIZE, "seed": 0}
    assert same(build_sampler(name, **available).epoch(1), make(name).epoch(1))


@pytest.mark.parametrize("positives", ["any", "other_video", "other_group"])
@pytest.mark.parametrize("batch_size", [32, 50, 64, 100])
@pytest.mark.parametrize("name", BY_CLASS)
def test_anchors_and_positives_stand_side_by_side_and_apart(name, batch_size, positives):
    """Those of classes that have two videos, or groups; class 6 has one video and class 7 one window."""
    assert SAMPLERS[name].paired
    drawn = np.concatenate(make(name, batch_size=batch_size, positives=positives).epoch(0))
    anchors, partners = drawn[0::2], drawn[1::2]
    assert (LABELS[anchors] == LABELS[partners]).all()
    apart = VIDEOS if positives == "other_video" else GROUPS
    if positives == "any":
        assert (anchors != partners)[LABELS[anchors] < 6].mean() > 0.99
    else:
        assert (apart[anchors] != apart[partners])[LABELS[anchors] < 6].all()
    assert (VIDEOS[anchors] == VIDEOS[partners])[LABELS[anchors] == 6].all()


def test_balanced_alternates_between_the_two_videos_of_a_class():
    labels, videos = np.repeat([0, 1], 20), np.r_[np.repeat([0, 1], 10), np.repeat([0, 1, 2, 3], 5)]
    drawn = np.concatenate(make("balanced", labels=labels, videos=videos, batch_size=12).epoch(0))
    of_class = videos[drawn[labels[drawn] == 0]]
    assert (of_class[1:] != of_class[:-1]).all()


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


@pytest.mark.parametrize(("positives", "units"), [("any", VIDEOS), ("other_video", VIDEOS), ("other_group", GROUPS)])
def test_balanced_draws_the_videos_or_groups_of_a_class_equally_often(positives, units):
    drawn = np.concatenate(make("balanced", positives=positives).epoch(0))
    for label in range(8):
        of_class = drawn[LABELS[drawn] == label]
        counts = [np.sum(units[of_class] == unit) for unit in np.unique(units[label == LABELS])]
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


@pytest.mark.parametrize("n", [1, 2, 3])
def test_per_class_negatives_gives_each_anchor_n_negatives_of_each_other_class(n):
    sampler = make("per_class_negatives", batch_size=100, options={"negatives_per_class": n})
    num_anchors = (100 - (n % 2) * 8) // (2 + 7 * n)
    for batch in sampler.epoch(0):
        anchors = LABELS[batch[: 2 * num_anchors : 2]]
        negatives = np.bincount(LABELS[batch[2 * num_anchors :]], minlength=8)
        expected = [n * sum(a != label for a in anchors) for label in range(8)]
        assert negatives.tolist() == [count + count % 2 for count in expected]


def test_per_class_negatives_never_takes_a_positive_of_the_same_video():
    for positives in (None, "any", "other_video"):
        assert same(
            make("per_class_negatives", positives=positives).epoch(0),
            make("per_class_negatives", positives="other_video").epoch(0),
        )


@pytest.mark.parametrize(
    ("name", "options", "block"),
    [("per_class_negatives", {}, 16), ("hard_negative", {}, 4), ("semi_hard", {"negatives": 2}, 6)],
)
def test_every_window_is_an_anchor_once_before_any_is_it_again(name, options, block):
    sampler = make(name, options=options, positives="other_video")
    num_anchors = BATCH_SIZE // block
    step = 2 if name == "per_class_negatives" else block  # where the next anchor stands
    eligible = np.flatnonzero(LABELS < 6)
    anchors = np.concatenate([b[: num_anchors * step : step] for e in range(70) for b in sampler.epoch(e)])
    for start in range(0, len(anchors) - len(eligible), len(eligible)):
        assert np.array_equal(np.sort(anchors[start : start + len(eligible)]), eligible)
    assert len(anchors) > 3 * len(eligible)


def by_cosine(window, embeddings=EMBEDDINGS):
    """All windows, the nearest first."""
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return np.argsort(-(unit @ unit[window])), unit @ unit[window]


def test_hard_negatives_are_the_nearest_of_other_classes():
    for batch in make("hard_negative", options={"nearest": 3}).epoch(0)[:4]:
        for anchor, positive, beside, negative in batch.reshape(-1, 4):
            nearest = [w for w in by_cosine(anchor)[0] if LABELS[w] != LABELS[anchor]][:3]
            assert negative in nearest
            assert LABELS[positive] == LABELS[anchor]
            assert LABELS[beside] == LABELS[negative]


def test_each_of_the_nearest_has_its_turn_as_a_hard_negative():
    sampler = make("hard_negative", options={"nearest": 3})
    blocks = np.concatenate([np.concatenate(sampler.epoch(e)) for e in range(40)]).reshape(-1, 4)
    of_one = blocks[blocks[:, 0] == blocks[0, 0], 3]
    assert set(of_one) == set(sampler.state()["negative"][blocks[0, 0]])


def test_the_hard_negatives_of_a_block_are_different_ones():
    for batch in make("hard_negative", options={"negatives": 3, "nearest": 3}).epoch(0):
        blocks = batch.reshape(-1, 8)
        for anchor, *negatives in blocks[:, [0, 3, 5, 7]][:3]:
            nearest = [w for w in by_cosine(anchor)[0] if LABELS[w] != LABELS[anchor]][:3]
            assert sorted(negatives) == sorted(nearest)


def test_semi_hard_negatives_are_the_nearest_that_are_farther_than_the_positive():
    seen = set()
    for batch in make("semi_hard", positives="other_video", options={"nearest": 2}).epoch(0):
        for anchor, positive, _, negative in batch.reshape(-1, 4):
            order, cosine = by_cosine(anchor)
            wrong = [w for w in order if LABELS[w] != LABELS[anchor]]
            farther = [w for w in wrong if cosine[w] < cosine[positive]]
            assert negative in (farther[:2] or wrong[-1:])
            seen.add(min(len(farther), 2))
    assert 2 in seen


def test_semi_hard_takes_the_farthest_of_other_classes_where_none_is_farther_than_the_positive():
    """For 0 and 1 both of the other class are nearer than the positive, for 2 and 3 the positive is the nearest."""
    labels, videos = np.array([0, 0, 1, 1]), np.arange(4)
    angles = np.radians([0, 170, 12, 20])
    sampler = make("semi_hard", labels, videos, batch_size=4, refresh=False, options={"nearest": 1})
    sampler.refresh(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    blocks = np.concatenate([np.concatenate(sampler.epoch(e)) for e in range(8)]).reshape(-1, 4)
    assert {(int(a), int(n)) for a, _, _, n in blocks} == {(0, 3), (1, 2), (2, 0), (3, 0)}


def test_neighbours_are_looked_for_among_so_many_candidates_of_all_classes_alike():
    sampler = make("hard_negative", options={"candidates": 40, "nearest": 8})
    found = np.unique(sampler.state()["negative"])
    assert len(found) <= 40
    assert set(LABELS[found]) == set(range(8))
    sampler.refresh(EMBEDDINGS)
    assert set(np.unique(sampler.state()["negative"])) != set(found)


def test_fewer_wrong_windows_than_neighbours_asked_for_come_again():
    labels = np.array([0, 0, 0, 0, 1])
    sampler = make("hard_negative", labels=labels, videos=np.arange(5), batch_size=4, options={"nearest": 4})
    assert (sampler.state()["negative"][:4] == 4).all()


@pytest.mark.parametrize("name", ["hard_negative", "semi_hard"])
def test_other_embeddings_give_other_negatives_and_a_restored_sampler_goes_on_alike(name):
    first = make(name)
    before = first.epoch(3)
    first.refresh(EMBEDDINGS[:, ::-1] ** 3)
    assert not same(first.epoch(3), before)
    second = make(name, refresh=False)
    assert second.state() == {}
    second.restore(first.state())
    assert same(second.epoch(3), first.epoch(3))
    for sampler in (first, second):
        sampler.refresh(-EMBEDDINGS)
    assert same(second.epoch(4), first.epoch(4))


def test_the_length_of_an_embedding_does_not_matter():
    one, other = make("hard_negative"), make("hard_negative", refresh=False)
    other.refresh(EMBEDDINGS * RNG.uniform(0.1, 50, (len(EMBEDDINGS), 1)))
    assert same(one.epoch(0), other.epoch(0))


def test_embeddings_are_asked_for_and_checked():
    sampler = make("hard_negative", refresh=False)
    with pytest.raises(RuntimeError, match="refresh"):
        sampler.epoch(0)
    with pytest.raises(ValueError, match="an embedding for each of 1003 windows, and has 7"):
        sampler.refresh(EMBEDDINGS[:7])
    with pytest.raises(UserError, match="not finite"):
        sampler.refresh(np.where(EMBEDDINGS > 2, np.nan, EMBEDDINGS))
    with pytest.raises(UserError, match=r"saved with \(1003, 4\) .* and here are \(1003, 2\)"):
        make("hard_negative", options={"nearest": 2}).restore(make("hard_negative").state())


@pytest.mark.parametrize("classes_per_batch", [2, 3, 4])
def test_opposite_puts_a_class_together_with_its_opposites_first(classes_per_batch):
    opposite = {0: {1, 2}, 1: {0}, 2: {0}, 3: {4}, 4: {3}}
    sampler = make("opposite", options={"classes_per_batch": classes_per_batch})
    turns = []
    for batch in sampler.epoch(0):
        counts = np.bincount(LABELS[batch], minlength=8)
        assert set(counts[counts > 0]) == {BATCH_SIZE // classes_per_batch // 2 * 2}
        anchor, present = LABELS[batch[0]], set(LABELS[batch])
        turns.append(anchor)
        assert len(present) == classes_per_batch
        wanted = opposite.get(anchor, set())
        assert len(present & wanted) == min(len(wanted), classes_per_batch - 1)
    assert np.ptp(np.bincount(turns, minlength=8)) <= 1


def test_opposites_that_do_not_all_fit_come_in_other_choices():
    drawn = [b for e in range(9) for b in make("opposite", options={"classes_per_batch": 2}).epoch(e)]
    assert {tuple(np.unique(LABELS[b])) for b in drawn if LABELS[b[0]] == 0} == {(0, 1), (0, 2)}


def test_temporal_pairs_are_neighbours_in_time_on_both_sides():
    options = {"max_distance": 40, "min_distance": 3}
    gaps = []
    for batch in make("temporal", options=options).epoch(0):
        assert (VIDEOS[batch[0::2]] == VIDEOS[batch[1::2]]).all()
        gaps.append(FRAMES[batch[1::2]] - FRAMES[batch[0::2]])
    gaps = np.concatenate(gaps)
    assert set(np.abs(gaps)) <= set(range(3, 41))
    assert 0.4 < np.mean(gaps > 0) < 0.6


def test_temporal_draws_all_neighbours_and_only_windows_that_have_one():
    """Video 1: frames 1, 2, 4, 50; video 2: frames 3, 5; video 3: frame 4. Solved by hand for distances 1 to 3."""
    videos, frames = np.array([1, 1, 2, 1, 3, 2, 1]), np.array([2, 50, 3, 1, 4, 5, 4])
    sampler = make("temporal", labels=videos, videos=videos, frames=frames, batch_size=4, options={"max_distance": 3})
    drawn = np.concatenate([np.concatenate(sampler.epoch(e)) for e in range(200)])
    pairs = {(int(a), int(b)) for a, b in drawn.reshape(-1, 2)}
    assert pairs == {(3, 0), (0, 3), (0, 6), (6, 0), (3, 6), (6, 3), (2, 5), (5, 2)}


@pytest.mark.parametrize("name", ["temporal", "views"])
def test_a_batch_without_labels_is_of_different_videos_where_there_are_enough(name):
    videos = np.repeat(np.arange(90), RNG.integers(2, 40, 90))
    frames = np.arange(len(videos))
    for batch in make(name, labels=videos, videos=videos, frames=frames, groups=None).epoch(0):
        assert len(np.unique(videos[batch[0::2]])) == BATCH_SIZE // 2


@pytest.mark.parametrize("name", ["temporal", "views"])
def test_few_videos_share_a_batch_without_labels_as_equally_as_their_windows_allow(name):
    videos = np.repeat([0, 1, 2, 3], [3, 50, 200, 2])
    for batch in make(name, labels=videos, videos=videos, frames=np.arange(255)).epoch(0):
        anchors = batch[0::2]
        assert len(np.unique(anchors)) == len(anchors) == 32
        counts = np.bincount(videos[anchors])
        assert counts[[0, 3]].tolist() == [3, 2]
        assert sorted(counts[[1, 2]]) == [13, 14]


def test_views_pairs_a_window_with_itself_to_be_shown_in_two_views():
    assert [name for name, sampler in SAMPLERS.items() if sampler.two_views] == ["views"]
    for batch in make("views").epoch(0):
        assert (batch[0::2] == batch[1::2]).all()


@pytest.mark.parametrize("name", ["temporal", "views"])
def test_samplers_without_labels_reach_all_windows_in_the_long_run(name):
    videos = np.repeat(np.arange(10), 30)
    sampler = make(name, labels=videos, videos=videos, frames=np.arange(300))
    drawn = np.concatenate([b[0::2] for e in range(20) for b in sampler.epoch(e)])
    assert len(np.unique(drawn)) == 300


@pytest.mark.parametrize("positives", ["any", "other_video", "other_group"])
@pytest.mark.parametrize("batch_size", [4, 6, 64])
def test_pairs_are_half_of_one_class_and_half_of_two(batch_size, positives):
    apart = {"any": np.arange(len(LABELS)), "other_video": VIDEOS, "other_group": GROUPS}[positives]
    for batch in make("pairs", batch_size=batch_size, positives=positives).epoch(0):
        left, right = batch[0::2], batch[1::2]
        same_class = LABELS[left] == LABELS[right]
        assert same_class.sum() == batch_size // 2 // 2
        assert len(batch) == batch_size // 2 * 2
        assert (apart[left] != apart[right])[same_class].all()


def test_neither_side_of_a_pair_alone_tells_whether_it_is_of_one_class():
    labels, videos = LABELS[LABELS < 6], VIDEOS[LABELS < 6]
    drawn = np.concatenate([np.concatenate(make("pairs", labels, videos).epoch(e)) for e in range(30)])
    left, right = labels[drawn[0::2]], labels[drawn[1::2]]
    for half in (left == right, left != right):
        for side in (left, right):
            counts = np.bincount(side[half])
            assert counts.min() > 0.85 * counts.max()


def test_pairs_of_one_class_leave_out_the_classes_that_have_no_two_videos():
    drawn = np.concatenate(make("pairs", positives="other_video").epoch(0))
    left, right = LABELS[drawn[0::2]], LABELS[drawn[1::2]]
    assert set(left[left == right]) == set(range(6))
    assert set(left[left != right]) == set(right[left != right]) == set(range(8))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_an_epoch_of_a_large_data_set_takes_a_second_at_most(name):
    rng = np.random.default_rng(0)
    videos = np.sort(rng.integers(0, 250, 600_000))
    sampler = make(
        name, labels=rng.integers(0, 8, 600_000), videos=videos, groups=videos // 2, frames=np.arange(600_000),
        batch_size=256, refresh=False, known={track: rng.random(600_000) < 0.4 for track in KNOWN},
    )  # fmt: skip
    if sampler.needs_embeddings:
        found = rng.integers(0, 600_000, (600_000, 5), dtype=np.int32)
        sampler.restore({"refreshes": np.array([1]), "positive": found[:, 0], "negative": found[:, 1:]})
    start = time.process_time()
    sampler.epoch(0)
    assert time.process_time() - start < 3  # 0.03 to 0.8 s alone on one core


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
        ("balanced", {"positives": "others"}, r"positives must be one of \['any', .*and is 'others'"),
        ("balanced", {"positives": "other_group", "groups": None}, "needs the group of each window"),
        ("balanced", {"positives": "other_video", "videos": LABELS}, "no class has two videos"),
        ("pairs", {"positives": "other_group", "groups": LABELS}, "no class has two groups"),
        ("hard_negative", {"labels": np.arange(100), "videos": np.arange(100)}, "no class has two windows"),
        ("per_class_negatives", {"videos": LABELS}, "no class has two videos"),
        ("per_class_negatives", {"batch_size": 15}, "at least 16 for 2 negatives from each of 7 other classes"),
        ("per_class_negatives", {"options": {"negatives_per_class": 0}}, "negatives_per_class must be a whole number"),
        ("per_class_negatives", {"options": {"negatives_per_class": "two"}}, "and is 'two'"),
        ("per_class_negatives", {"options": {"negatives": 1}}, r"no option 'negatives': it has \['negatives_per_class"),
        ("uniform", {"options": {"seed": 1}}, "no option 'seed': it has none"),
        ("hard_negative", {"batch_size": 3}, "batch_size must be at least 4"),
        ("hard_negative", {"options": {"nearest": 2, "negatives": 3}}, "nearest must be a whole number of at least 3"),
        ("hard_negative", {"options": {"candidates": 7}}, "candidates must be a whole number of at least 8"),
        ("semi_hard", {"options": {"refresh_every": 0}}, "refresh_every must be .* at least 1"),
        ("opposite", {"opposites": []}, "needs opposites among the 8 classes"),
        ("opposite", {"opposites": [(6, 99), (3, 3)]}, "needs opposites among the 8 classes"),
        ("opposite", {"options": {"classes_per_batch": 1}}, "classes_per_batch must be .* at least 2"),
        ("temporal", {"frames": None}, "sampler 'temporal' needs frames"),
        ("temporal", {"frames": FRAMES * 50}, "no two windows of a video are 1 to 30 frame numbers apart"),
        ("temporal", {"options": {"min_distance": 31}}, "max_distance must be .* at least 31, and is 30"),
        ("temporal", {"batch_size": 3}, "batch_size must be at least 4"),
        ("views", {"batch_size": 3}, "batch_size must be at least 4"),
        ("pairs", {"batch_size": 3}, "batch_size must be at least 4"),
    ],
)
def test_what_a_sampler_cannot_use_is_refused(name, values, message):
    with pytest.raises(UserError, match=message):
        make(name, **values)


def test_options_are_the_arguments_that_are_the_samplers_own():
    assert options_of("balanced") == []
    assert options_of("temporal") == ["max_distance", "min_distance"]
    assert options_of("semi_hard") == options_of("hard_negative")


# --- shares by track


def of_tracks(batch_size=60, labels=None, **options):
    labels = np.where(KNOWN["expression"], LABELS, -1) if labels is None else labels
    return make("tracks", labels=labels, batch_size=batch_size, **options)


@pytest.mark.parametrize(
    ("shares", "least"),
    [
        (None, {"expression": 20, "va": 20, "aus": 20}),
        ({"expression": 2, "va": 1, "aus": 1}, {"expression": 30, "va": 15, "aus": 15}),
        ({"va": 1, "aus": 3}, {"va": 15, "aus": 45}),
    ],
)
def test_each_batch_has_its_share_of_windows_of_each_track(shares, least):
    for batch in of_tracks(shares=shares).epoch(0):
        start = 0
        for track, count in least.items():  # the parts stand in their order
            size = 16 if track == "expression" else count  # of 20 or 30 windows 8 classes x 2
            assert KNOWN[track][batch[start : start + size]].all()
            if track != "expression":
                assert len(set(batch[start : start + size])) == size
            start += size
        assert start == len(batch)


def test_the_part_of_the_classes_is_of_all_classes_equally_and_in_pairs():
    for batch in of_tracks(shares={"expression": 3, "va": 1}, batch_size=64).epoch(1):
        some = LABELS[batch[:48]]
        assert (some[0::2] == some[1::2]).all()
        counts = np.bincount(some, minlength=8)
        assert set(counts[np.unique(LABELS[KNOWN["expression"]])]) == {
            48 // len(np.unique(LABELS[KNOWN["expression"]]))
        }


def test_windows_without_a_class_are_reached_by_tracks_and_are_one_class_more_to_the_others():
    without = ~KNOWN["expression"] & (KNOWN["va"] | KNOWN["aus"])
    drawn = np.unique(np.concatenate([np.concatenate(of_tracks().epoch(epoch)) for epoch in range(12)]))
    assert without[drawn].sum() > 0.9 * without.sum()
    labels = np.where(KNOWN["expression"], LABELS, -1)
    for batch in make("balanced", labels=labels, batch_size=90).epoch(0):
        assert len(set(np.unique(labels[batch], return_counts=True)[1])) == 1  # -1 as often as each class
        assert -1 in labels[batch]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shares": {"va": 1}}, "shares must be of two tracks or more"),
        ({"shares": {"va": 1, "au": 1}}, "shares name 'au', and the losses look at"),
        ({"shares": {"va": 1, "aus": 0}}, "the share of aus must be above 0, and is 0"),
        ({"shares": {"va": 1, "aus": True}}, "the share of aus must be above 0, and is True"),
        ({"known": {"va": KNOWN["va"]}}, "shares must be of two tracks or more"),
        ({"batch_size": 9}, "batch_size 9 leaves 3 windows for classes, and 4 are needed"),
        ({"shares": {"va": 1, "aus": 60}}, "batch_size 60 leaves 0 windows for va, and 2 are needed"),
    ],
)
def test_shares_that_make_no_batch_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        of_tracks(**options)
