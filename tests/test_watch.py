import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from pipeline.adapter.adapter import Adapter
from pipeline.core.frame_set import FrameSet
from pipeline.training.watch import Watched, best_f1, watched_frames


class Nearness(nn.Module):
    """A head for pairs without weights: the logit is 1 less the distance."""

    pools, pairs, framewise, embedding_size = True, True, False, 2

    def forward(self, features, valid):
        return features[:, 0]

    def pair(self, left, left_valid, right, right_valid):
        return 1 - (left - right)[:, 0].norm(dim=1)


class Rows:
    """Features (N, D) as a source."""

    def __init__(self, features):
        self.features = torch.tensor(np.asarray(features, dtype=np.float32))

    def gather(self, rows):
        return self.features[rows], rows >= 0


class Plain(Nearness):
    pairs = False


class NoLoss(nn.Module):
    predictors = ()


def frame_set(label, group, pairs=(), same=()) -> FrameSet:
    """All frames in ``val``, a video each."""
    n = len(label)
    return FrameSet(
        row=np.arange(n), video=np.arange(n), frame=np.zeros(n, int), group=np.asarray(group), label=np.asarray(label),
        va=np.full((n, 2), np.nan), aus=np.zeros((n, 0)), part=np.full(n, 2, np.int8),
        pairs=np.asarray(pairs, dtype=np.int64).reshape(-1, 2), same=np.asarray(same, dtype=bool),
        videos=[f"v{i}" for i in range(n)], groups=[f"g{g}" for g in np.unique(group)],
        classes=["a", "b", "c", "d"], au_names=[], labels_without_features=0,
    )  # fmt: skip


def look(frames: FrameSet, features, head: nn.Module):
    centres = watched_frames(frames, "val", 1000)
    scores, cosines, _ = Watched(frames, centres, torch.from_numpy(centres)[:, None], []).look(
        Adapter(nn.Identity(), head, NoLoss(), {}), Rows(features)
    )
    return scores, cosines


def test_the_f1_of_a_pair_head_is_that_of_the_tables_own_pairs_at_logit_0():
    """Four pairs; the distances 0.5 (same), 2 (same), 0.5 (different), 3 (different): one hit, one miss, one false."""
    features = np.array([[0, 0], [0.5, 0], [10, 0], [12, 0], [20, 0], [20.5, 0], [30, 0], [33, 0]])
    pairs = np.arange(8).reshape(4, 2)
    frames = frame_set([0, 0, 0, 0, 0, 1, 0, 1], pairs[:, 0].repeat(2), pairs, [True, True, False, False])
    scores, _ = look(frames, features, Nearness())
    assert scores["pair_f1"] == pytest.approx(0.5)


def test_without_pairs_of_its_own_a_pair_head_is_asked_about_as_many_same_as_different_of_two_groups():
    """Class a at 0, 0.5 and 0.6, class b at 0.2: 3 same and 3 different pairs, all nearer than 1: precision a half."""
    features = np.array([[0, 0], [0.5, 0], [0.6, 0], [0.2, 0]])
    scores, _ = look(frame_set([0, 0, 0, 1], [0, 1, 2, 3]), features, Nearness())
    assert scores["pair_f1"] == pytest.approx(2 / 3)
    # logits of same: .5 .4 .9; of different: .8 .7 .6: 3 of 9 comparisons won
    assert scores["auc_same_different"] == pytest.approx(1 / 3)
    twins, _ = look(frame_set([0, 0, 0, 1], [0, 0, 0, 0]), features, Nearness())
    assert "pair_f1" not in twins
    assert "auc_same_different" not in twins


def test_where_each_pair_is_a_class_the_same_ones_are_the_tables_pairs_and_different_ones_any_two_others():
    features = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0], [1, 0.2]])
    pairs = np.arange(6).reshape(3, 2)
    frames = frame_set([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], pairs, [True] * 3)
    scores, cosines = look(frames, features, Plain())
    assert [len(cosines[kind]) for kind in ("same", "different")] == [3, 12]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert sorted(cosines["same"]) == pytest.approx(sorted((unit[::2] * unit[1::2]).sum(1)))
    # the last pair looks opposite ways, and all 12 strangers but one of them are nearer than that
    strangers = [unit[i] @ unit[j] for i in range(6) for j in range(i) if i // 2 != j // 2]
    won = [float(a > b) + 0.5 * float(a == b) for a in cosines["same"] for b in strangers]
    assert scores["auc_same_different"] == pytest.approx(np.mean(won))
    asked, _ = look(frames, features, Nearness())  # no different ones in the table: those of two groups
    assert 0 < asked["pair_f1"] < 1


def test_the_f1_of_another_head_is_that_of_the_best_threshold_on_the_cosines_of_the_tables_pairs():
    rng = np.random.default_rng(0)
    features, same = rng.normal(size=(40, 2)), np.arange(20) < 10
    features[1:20:2] = features[:20:2] + rng.normal(size=(10, 2))
    pairs = np.arange(40).reshape(20, 2)
    frames = frame_set(np.zeros(40, int), pairs[:, 0].repeat(2), pairs, same)
    scores, _ = look(frames, features, Plain())
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = (unit[::2] * unit[1::2]).sum(1)
    expected = max(f1_score(same, cosine >= threshold - 1e-6) for threshold in cosine)
    assert 2 / 3 < expected < 1  # better than to call everything the same
    assert scores["pair_f1"] == pytest.approx(expected)


def test_where_the_table_names_only_same_pairs_as_many_strangers_are_the_different_ones():
    positive, negative = np.array([0.9, 0.5]), np.array([0.1, 0.8, 0.7, 0.6, 0.2])
    # two of the five, evenly spaced: 0.1 and 0.2; all of them would make it 2/3
    assert best_f1(positive, negative) == 1
    # above 0.8: one of two found, none wrong, 2/3; at 0.5 and above: both found, two wrong, 2/3
    assert best_f1(positive, np.array([0.8, 0.6])) == pytest.approx(2 / 3)
    assert np.isnan(best_f1(positive, negative[:0]))


def test_without_pairs_there_is_no_f1_of_pairs():
    assert "pair_f1" not in look(frame_set([0, 0, 1, 1], [0, 1, 2, 3]), np.eye(4)[:, :2] + 0.1, Plain())[0]


def test_whole_pairs_are_watched_where_there_are_more_than_can_be():
    pairs = np.stack([np.arange(50), 50 + np.arange(50)], axis=1)
    frames = frame_set(np.zeros(100, int), np.tile(np.arange(50), 2), pairs, np.ones(50, bool))
    chosen = watched_frames(frames, "val", 20)
    assert len(chosen) == 20
    assert set(chosen[:10] + 50) == set(chosen[10:])
    assert len(watched_frames(frames, "val", 1000)) == 100
    assert len(watched_frames(frame_set([0] * 30, range(30)), "val", 20)) == 20
