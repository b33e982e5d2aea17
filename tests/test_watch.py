import dataclasses
from types import SimpleNamespace

import formulas
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from pipeline.adapter.adapter import Adapter
from pipeline.adapter.predictors import Predictor, Predictors
from pipeline.core.frame_set import FrameSet
from pipeline.metrics.vectors import evenly
from pipeline.training.watch import Watched, spread, watched_frames


class Nearness(nn.Module):
    """A head for pairs without weights: the logit is 1 less the distance."""

    pools, pairs, framewise, embedding_size = True, True, False, 2

    def forward(self, features, valid):
        return features[:, 0]

    def side(self, features, valid):
        return features[:, 0], valid.any(dim=1)

    def judge(self, left, left_there, right, right_there):
        return 1 - (left - right).norm(dim=1)


class Rows:
    """Features (N, D) as a source."""

    def __init__(self, features):
        self.features = torch.tensor(np.asarray(features, dtype=np.float32))

    def gather(self, rows):
        return self.features[rows], rows >= 0


class Plain(Nearness):
    pairs = False


def frame_set(label, group, pairs=(), same=()) -> FrameSet:
    """All frames in ``val``, a video each."""
    n = len(label)
    return FrameSet(
        row=np.arange(n), video=np.arange(n), frame=np.zeros(n, int), group=np.asarray(group), label=np.asarray(label),
        va=np.full((n, 2), np.nan), aus=np.zeros((n, 0)), part=np.full(n, 2, np.int8),
        pairs=np.asarray(pairs, dtype=np.int64).reshape(-1, 2), same=np.asarray(same, dtype=bool),
        videos=[f"v{i}" for i in range(n)], groups=[f"g{g}" for g in np.unique(group)],
        classes=["a", "b", "c", "d"], au_names=[], labels_without_features=0,
            outputs=np.zeros((n, 0)), output_names=[],
    )  # fmt: skip


def look(frames: FrameSet, features, head: nn.Module):
    centres = watched_frames(frames, "val", 1000)
    scores, cosines, _ = Watched(frames, centres, torch.from_numpy(centres)[:, None], []).look(
        Adapter(nn.Identity(), head, Predictors({}, 1), {}), Rows(features)
    )
    return scores, cosines


def test_the_f1_of_a_pair_head_is_that_of_the_tables_own_pairs_at_logit_0():
    """Four pairs; the distances 0.5 (same), 2 (same), 0.5 (different), 3 (different): one hit, one miss, one false."""
    features = np.array([[0, 0], [0.5, 0], [10, 0], [12, 0], [20, 0], [20.5, 0], [30, 0], [33, 0]])
    pairs = np.arange(8).reshape(4, 2)
    frames = frame_set([0, 0, 0, 0, 0, 1, 0, 1], pairs[:, 0].repeat(2), pairs, [True, True, False, False])
    scores, _ = look(frames, features, Nearness())
    assert scores["pair_f1"] == pytest.approx(0.5)


def test_without_named_pairs_a_pair_head_has_an_auc_of_as_many_same_as_different_pairs_of_two_groups():
    """Class a at 0, 0.5 and 0.6, class b at 0.2: 3 same and 3 different pairs."""
    features = np.array([[0, 0], [0.5, 0], [0.6, 0], [0.2, 0]])
    scores, _ = look(frame_set([0, 0, 0, 1], [0, 1, 2, 3]), features, Nearness())
    # logits of same: .5 .4 .9; of different: .8 .7 .6: 3 of 9 comparisons won
    assert scores["pair_auc_same_different"] == pytest.approx(1 / 3)
    assert not {"pair_f1", "pair_paired_auc", "paired_auc"} & set(scores)
    twins, _ = look(frame_set([0, 0, 0, 1], [0, 0, 0, 0]), features, Nearness())
    assert not [name for name in twins if "auc" in name]


def test_the_auc_by_the_cosine_and_that_by_the_logit_of_a_pair_head_have_names_of_their_own():
    rng = np.random.default_rng(3)
    label, group = np.arange(30) % 3, np.arange(30) // 2
    features = rng.standard_normal((30, 2)) + 3 * np.eye(3, 2)[label]
    scores, _ = look(frame_set(label, group), features, Nearness())
    cosines = formulas.cosines_of_pairs(features, label, group)
    assert scores["auc_same_different"] == pytest.approx(formulas.auc(cosines["same"], cosines["different"]), abs=1e-6)
    plain, _ = look(frame_set(label, group), features, Plain())
    assert plain["auc_same_different"] == scores["auc_same_different"] != scores["pair_auc_same_different"]
    assert "pair_auc_same_different" not in plain


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
    assert scores["paired_auc"] == pytest.approx(np.mean(won))
    assert "auc_same_different" not in scores  # of two groups there are no same ones
    assert 0 < scores["paired_best_f1"] < 1
    of_head, _ = look(frames, features, Nearness())
    logits = 1 - np.linalg.norm(features[:, None] - features[None], axis=2)
    same = logits[np.arange(0, 6, 2), np.arange(1, 6, 2)]
    strangers = [(i, j) for i in range(6) for j in range(i + 1, 6) if i // 2 != j // 2]
    few = [strangers[k] for k in evenly(12, 3)]  # as many as there are same ones
    won = [float(a > logits[i, j]) + 0.5 * float(a == logits[i, j]) for a in same for i, j in few]
    assert of_head["pair_paired_auc"] == pytest.approx(np.mean(won))
    assert "pair_f1" not in of_head  # the table names no different ones


def test_the_best_f1_of_named_pairs_is_that_of_the_best_threshold_on_their_cosines():
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
    assert scores["paired_best_f1"] == pytest.approx(expected)
    assert "pair_f1" not in scores


def test_without_named_pairs_there_is_no_f1_of_pairs():
    scores, _ = look(frame_set([0, 0, 1, 1], [0, 1, 2, 3]), np.eye(4)[:, :2] + 0.1, Plain())
    assert set(scores) == {"auc_same_different", "cosine_same", "cosine_different"}


class Echo(Predictor):
    """The features are the predictions: classes, valence and arousal, or the logits of two action units."""

    thresholds = torch.tensor([0.5, 0.4])

    def forward(self, embeddings):
        return embeddings


def test_the_numbers_are_those_of_the_catalogue_on_the_watched_frames():
    rng = np.random.default_rng(4)
    features, label = rng.standard_normal((40, 2)), rng.integers(-1, 2, 40)
    va, aus = np.tanh(features + rng.standard_normal((40, 2))), rng.integers(0, 2, (40, 2)).astype(float)
    va[::5], aus[::7] = np.nan, np.nan
    frames = dataclasses.replace(
        frame_set(label, np.arange(40) // 4), classes=["a", "b"], va=va, aus=aus, au_names=["au1", "au2"]
    )
    centres = watched_frames(frames, "val", 20)
    assert len(centres) == 20
    predictors = SimpleNamespace(by_what=dict.fromkeys(("classes", "va", "aus"), Echo()))
    adapter = Adapter(nn.Identity(), Plain(), predictors, {})
    watched = Watched(frames, centres, torch.from_numpy(centres)[:, None], [])
    scores, _, _ = watched.look(adapter, Rows(features))
    y, x, v = label[centres], features[centres].astype(np.float32), va[centres]
    assert scores["macro_f1"] == pytest.approx(f1_score(y[y >= 0], x[y >= 0].argmax(1), average="macro"))
    known = ~np.isnan(v).any(1)
    assert scores["ccc"] == pytest.approx(np.mean([formulas.ccc(v[known, k], x[known, k]) for k in (0, 1)]), abs=1e-6)
    logits = np.array([0, np.log(0.4 / 0.6)])  # of the two thresholds
    units = [(aus[centres][:, k], x[:, k] >= logits[k]) for k in (0, 1)]
    expected = [f1_score(truth[~np.isnan(truth)], said[~np.isnan(truth)]) for truth, said in units]
    assert scores["au_f1"] == pytest.approx(np.mean(expected))
    assert scores["p_mtl"] == pytest.approx(scores["macro_f1"] + scores["ccc"] + scores["au_f1"], abs=1e-12)
    first, second = np.triu_indices(20, 1)
    apart = (centres[first] // 4 != centres[second] // 4) & known[first] & known[second]
    first, second = first[apart], second[apart]
    z = formulas.unit(x)
    expected = spearmanr((z[first] * z[second]).sum(1), -np.linalg.norm(v[first] - v[second], axis=1)).statistic
    assert scores["rank_correlation_va"] == pytest.approx(expected, abs=1e-6)


def test_whole_pairs_are_watched_where_there_are_more_than_can_be():
    pairs = np.stack([np.arange(50), 50 + np.arange(50)], axis=1)
    frames = frame_set(np.zeros(100, int), np.tile(np.arange(50), 2), pairs, np.ones(50, bool))
    chosen = watched_frames(frames, "val", 20)
    assert len(chosen) == 20
    assert set(chosen[:10] + 50) == set(chosen[10:])
    assert len(watched_frames(frames, "val", 1000)) == 100
    assert len(watched_frames(frame_set([0] * 30, range(30)), "val", 20)) == 20


def test_the_spread_is_1_of_directions_everywhere_and_0_of_one():
    """Chen and He 2021, section 4.1: the deviation of a column is 1 / sqrt(E) where directions are random."""
    rng = np.random.default_rng(0)
    everywhere = torch.from_numpy(rng.standard_normal((2000, 64)) * rng.uniform(1, 9, (2000, 1)))
    assert spread(everywhere) == pytest.approx(1, abs=0.01)
    one = torch.from_numpy(rng.uniform(1, 9, (50, 1)) * rng.standard_normal(64))
    assert spread(one) == pytest.approx(0, abs=1e-6)
    axes = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.0, 2.0], [0.0, -1.0]])  # a deviation of sqrt(1 / 2) in each column
    assert spread(axes) == pytest.approx(1)
    assert np.isnan(spread(torch.zeros((0, 3))))


def test_neighbours_and_a_probe_tell_the_classes_of_others_by_the_training_part():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 90)
    features = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3]])[label] + rng.standard_normal((90, 3))
    frames = dataclasses.replace(frame_set(label, np.arange(90)), part=np.repeat(np.int8([0, 2]), [60, 30]))
    adapter = Adapter(nn.Identity(), Plain(), Predictors({}, 1), {})
    train, val = (Watched(frames, centres, torch.from_numpy(centres)[:, None], [])
                  for centres in (frames.centres("train"), frames.centres("val")))  # fmt: skip
    made = [of.made(adapter, Rows(features)) for of in (train, val)]
    told = val.told(made[1], train, made[0])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    nearest = np.argsort(-(unit[60:] @ unit[:60].T), axis=1)[:, :20]
    votes = np.stack([(label[nearest] == k).sum(1) for k in range(3)], axis=1)
    assert told["knn_accuracy"] == pytest.approx((votes.argmax(1) == label[60:]).mean())
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    predicted = probe.fit(features[:60].astype(np.float32), label[:60]).predict(features[60:].astype(np.float32))
    labels = np.arange(4)  # class d has no frame, and is not counted
    expected = f1_score(label[60:], predicted, labels=labels[:3], average="macro")
    assert told["probe_macro_f1"] == pytest.approx(expected)
    nobody = dataclasses.replace(frames, label=np.where(frames.part == 0, -1, label))
    assert (
        Watched(nobody, val.centres, val.rows, []).told(made[1], dataclasses.replace(train, frames=nobody), made[0])
        == {}
    )
