"""Each loss against its paper's formula, written out as a slow loop in float64; then what holds for all of them."""

import math
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as peers
from pytorch_metric_learning.miners import DistanceWeightedMiner
from torch import nn

from pipeline.adapter.predictors import Predictors
from pipeline.core.params import UserError
from pipeline.training.losses import LOSSES
from pipeline.training.losses.build import build_loss, target_of
from pipeline.training.losses.common import Loss

B, E, C, T, A, K = 12, 8, 4, 5, 3, 2
LABELS = torch.tensor([0, 0, 1, 1, 0, 2, 2, 1, 2, 0, 3, 0])  # 3 stands alone: an anchor without a positive
GROUPS = torch.tensor([0, 0, 1, 2, 3, 4, 5, 1, 5, 6, 7, 8])  # 0-1, 2-7 and 6-8 are of one label and one group
SAME = torch.zeros(B, dtype=torch.int64)
DISTINCT = torch.arange(B)

WITH_CLASSES = ["arcface", "cosface", "cross_entropy", "proxy_anchor"]
OF_PAIRS = ["circle", "contrastive_cross_entropy", "multi_similarity", "supcon", "triplet"]
BY_COSINE = [*OF_PAIRS, "arcface", "cosface", "proxy_anchor", "rank_n_contrast", "steadiness"]


def draw(seed=0, size=(B, E)):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


class Made(nn.Module):
    """A loss and the predictors that it trains."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.predictors = loss, Predictors(loss.trains, E)

    def forward(self, embeddings, batch):
        return self.loss(embeddings, batch, self.predictors)

    def predict(self, what, embeddings):
        return self.predictors.by_what[what].predict(embeddings)


def make(name, num_classes=C, **values):
    torch.manual_seed(0)
    options = {k: values.pop(k) for k in list(values) if k not in ("class_counts", "temperature", "margin")}
    given = {"num_classes": num_classes, "embedding_size": E, "num_aus": A, "num_outputs": K, **values}
    return Made(build_loss(name, options, **given))


def batch_of(embeddings, labels=LABELS, groups=None, **entries):
    """A batch with everything; frames and pair logits hang on the embeddings, so that a gradient reaches them."""
    n = len(embeddings)
    aus = (draw(2, (n, A)) > 0).float()
    aus[1:2, 0] = math.nan
    return {
        "labels": labels,
        "groups": groups,
        "va": draw(1, (n, 2)).tanh(),
        "aus": aus,
        "outputs": draw(4, (n, K)),
        "frames": embeddings[:, None] + 0.5 * draw(3, (n, T, E)),
        "valid": torch.ones(n, T, dtype=torch.bool),
        "frame_labels": labels[:, None].expand(n, T),
        "videos": torch.arange(n) // 2,
        "pair_logits": embeddings[1::2, 0] - embeddings[: n // 2 * 2 : 2, 1],
        **entries,
    }


def value(loss, embeddings, labels=LABELS, groups=None, **entries):
    return loss(embeddings, batch_of(embeddings, labels, groups, **entries))[0]


def parameters(loss):
    return {name.split(".")[-1]: p.detach() for name, p in loss.named_parameters()}


def cosines(a, b):
    a, b = a.double(), b.double()
    return [[float(x @ y / (x.norm() * y.norm())) for y in b] for x in a]


def log_sum_exp(values):
    return math.log(sum(math.exp(v) for v in values))


def mean(values):
    return sum(values) / len(values) if values else 0.0


def relations(labels, groups):
    """Positives and negatives of each row, as lists."""
    labels, rows = labels.tolist(), range(len(labels))
    groups = list(rows) if groups is None else groups.tolist()
    positives = [[j for j in rows if j != i and labels[j] == labels[i] and groups[j] != groups[i]] for i in rows]
    return positives, [[j for j in rows if labels[j] != labels[i]] for i in rows]


def contrastive_by_hand(embeddings, labels, t, groups=None, margin=0.0, nearest=None, by_position=False):
    n = len(labels) // 2
    cos = cosines(embeddings[0 : 2 * n : 2], embeddings[1 : 2 * n : 2])
    a, b = labels[0 : 2 * n : 2].tolist(), labels[1 : 2 * n : 2].tolist()
    groups = torch.arange(2 * n) if groups is None else groups
    a_groups, b_groups = groups[0 : 2 * n : 2].tolist(), groups[1 : 2 * n : 2].tolist()

    def one_direction(cos, a, b, a_groups, b_groups):
        each = []
        for i in range(n):
            positives = [j for j in range(n) if a[i] == b[j] and a_groups[i] != b_groups[j]]
            if by_position:
                positives = [j for j in positives if j == i]
            negatives = [j for j in range(n) if b[j] != a[i]]
            if nearest:
                taken, kept = Counter(), []
                for j in sorted(negatives, key=lambda j: -cos[i][j]):
                    taken[b[j]] += 1
                    if taken[b[j]] <= nearest:
                        kept.append(j)
                negatives = kept
            if positives:
                logits = {j: t * (cos[i][j] - margin) for j in positives} | {j: t * cos[i][j] for j in negatives}
                each.append(mean([log_sum_exp(logits.values()) - logits[j] for j in positives]))
        return mean(each)

    transposed = [list(column) for column in zip(*cos, strict=True)]
    rows = one_direction(cos, a, b, a_groups, b_groups)
    return (rows + one_direction(transposed, b, a, b_groups, a_groups)) / 2


def supcon_by_hand(embeddings, labels, t, groups=None):
    cos, anchors = cosines(embeddings, embeddings), []
    for i, (positives, negatives) in enumerate(zip(*relations(labels, groups), strict=True)):
        if positives:
            total = log_sum_exp([t * cos[i][j] for j in positives + negatives])
            anchors.append(-mean([t * cos[i][p] - total for p in positives]))
    return mean(anchors)


def triplets_by_hand(cos, labels, groups, mining):
    triplets = []
    for i, (positives, negatives) in enumerate(zip(*relations(labels, groups), strict=True)):
        if mining == "batch_hard" and positives and negatives:
            triplets.append((i, min(positives, key=lambda p: cos[i][p]), max(negatives, key=lambda n: cos[i][n])))
        if mining == "batch_all":
            triplets += [(i, p, n) for p in positives for n in negatives]
        if mining == "semi_hard":
            for p in positives:
                farther = [n for n in negatives if cos[i][n] < cos[i][p]]
                triplets += [(i, p, max(farther, key=lambda n: cos[i][n]))] if farther else []
    return triplets


def triplet_by_hand(cos, triplets, margin):
    return mean([v for v in (margin + cos[i][n] - cos[i][p] for i, p, n in triplets) if v > 0])


def multi_similarity_by_hand(embeddings, labels, groups, alpha, beta, base, epsilon):
    cos, anchors = cosines(embeddings, embeddings), []
    for i, (positives, negatives) in enumerate(zip(*relations(labels, groups), strict=True)):
        hardest_negative = max((cos[i][n] for n in negatives), default=-math.inf)
        hardest_positive = min((cos[i][p] for p in positives), default=math.inf)
        positives = [p for p in positives if cos[i][p] < hardest_negative + epsilon]
        negatives = [n for n in negatives if cos[i][n] > hardest_positive - epsilon]
        pull = math.log(1 + sum(math.exp(-alpha * (cos[i][p] - base)) for p in positives)) / alpha
        anchors.append(pull + math.log(1 + sum(math.exp(beta * (cos[i][n] - base)) for n in negatives)) / beta)
    return mean(anchors)


def circle_by_hand(embeddings, labels, groups, t, m):
    cos, anchors = cosines(embeddings, embeddings), []
    for i, (positives, negatives) in enumerate(zip(*relations(labels, groups), strict=True)):
        if positives and negatives:
            push = sum(math.exp(t * max(0, cos[i][n] + m) * (cos[i][n] - m)) for n in negatives)
            pull = sum(math.exp(-t * max(0, 1 + m - cos[i][p]) * (cos[i][p] - (1 - m))) for p in positives)
            anchors.append(math.log(1 + push * pull))
    return mean(anchors)


def rank_n_contrast_by_hand(embeddings, va, t):
    cos, each = cosines(embeddings, embeddings), []
    distance = [[math.dist(a, b) for b in va.tolist()] for a in va.tolist()]
    for i in range(len(va)):
        others = [j for j in range(len(va)) if j != i]
        for j in others:
            no_nearer = [k for k in others if distance[i][k] >= distance[i][j]]
            each.append(log_sum_exp([t * cos[i][k] for k in no_nearer]) - t * cos[i][j])
    return mean(each)


def own_class_by_hand(embeddings, labels, weights, t, own):
    """Cross-entropy of t · cos, the own class's cosine replaced by ``own`` of it."""
    cos, each = cosines(embeddings, weights), []
    for i, label in enumerate(labels.tolist()):
        logits = [t * (own(cos[i][c]) if c == label else cos[i][c]) for c in range(len(weights))]
        each.append(log_sum_exp(logits) - logits[label])
    return mean(each)


def arcface_by_hand(embeddings, labels, weights, t, margin):
    def own(cosine):
        angle = math.acos(cosine) + margin
        return math.cos(angle) if angle <= math.pi else cosine - margin * math.sin(margin)

    return own_class_by_hand(embeddings, labels, weights, t, own)


def proxy_anchor_by_hand(embeddings, labels, proxies, t, margin):
    cos, pull, push = cosines(embeddings, proxies), [], []
    for c in range(len(proxies)):
        own = [i for i, label in enumerate(labels.tolist()) if label == c]
        if own:
            pull.append(math.log(1 + sum(math.exp(-t * (cos[i][c] - margin)) for i in own)))
        push.append(math.log(1 + sum(math.exp(t * (cos[i][c] + margin)) for i in range(len(cos)) if i not in own)))
    return mean(pull) + mean(push)


def cross_entropy_by_hand(logits, labels, counts, weighted, smoothing, gamma, tau):
    """Weighted and smoothed as torch documents ``cross_entropy``, times the focal factor."""
    num_classes, losses, total = len(counts), 0.0, 0.0
    weights = [sum(counts) / (num_classes * n) if weighted else 1.0 for n in counts]
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        adjusted = [z + tau * math.log(n / sum(counts)) for z, n in zip(row, counts, strict=True)]
        log_p = [z - log_sum_exp(adjusted) for z in adjusted]
        targets = [smoothing / num_classes + (1 - smoothing) * (c == label) for c in range(num_classes)]
        entropy = -sum(w * target * lp for w, target, lp in zip(weights, targets, log_p, strict=True))
        losses += (1 - math.exp(log_p[label])) ** gamma * entropy
        total += weights[label]
    return losses / total


def ccc_by_hand(x, y):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    rho, sx, sy = np.corrcoef(x, y)[0, 1], x.std(), y.std()
    return 2 * rho * sx * sy / (sx**2 + sy**2 + (x.mean() - y.mean()) ** 2)


def vicreg_by_hand(a, b, invariance, variance, covariance):
    a, b = a.double().numpy(), b.double().numpy()
    n, size = a.shape
    loss = invariance * sum((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / (n * size)
    for side in (a, b):
        c = np.cov(side, rowvar=False)
        loss += variance * sum(max(0, 1 - math.sqrt(c[j, j] + 1e-4)) for j in range(size)) / size / 2
        loss += covariance * sum(c[i, j] ** 2 for i in range(size) for j in range(size) if i != j) / size
    return loss


def steadiness_by_hand(frames, valid, frame_labels, videos):
    near, far = [], []
    for w in range(len(frames)):
        cos = cosines(frames[w], frames[w])
        for t in range(T - 1):
            if valid[w, t] and valid[w, t + 1] and frame_labels[w, t] == frame_labels[w, t + 1] >= 0:
                near.append(cos[t][t + 1])
    cos = cosines(frames[:, T // 2], frames[:, T // 2])
    for v in range(len(frames)):
        for w in range(v):
            if videos[v] != videos[w] and valid[v, T // 2] and valid[w, T // 2]:
                far.append(cos[v][w])
    return (1 - mean(near) + 1e-4) / (1 - mean(far) + 1e-4)


GROUPED = pytest.mark.parametrize("groups", [None, GROUPS], ids=["no_groups", "groups"])


@GROUPED
@pytest.mark.parametrize("t", [1.0, 15.0])
@pytest.mark.parametrize("size", [B, B - 1])
def test_contrastive_cross_entropy_is_its_formula(size, t, groups):
    embeddings, labels, groups = draw()[:size], LABELS[:size], groups if groups is None else groups[:size]
    expected = contrastive_by_hand(embeddings, labels, t, groups)
    loss = make("contrastive_cross_entropy", temperature=t)
    assert value(loss, embeddings, labels, groups).item() == pytest.approx(expected, rel=1e-5)


@GROUPED
@pytest.mark.parametrize("positives", ["label", "position"])
@pytest.mark.parametrize("nearest", [None, 1, 2, 50])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_contrastive_cross_entropy_with_its_options_is_its_formula(margin, nearest, positives, groups):
    embeddings, labels = draw(5, (40, E)), torch.arange(40) // 3 % 4
    groups = groups if groups is None else torch.arange(40) % 7
    expected = contrastive_by_hand(embeddings, labels, 15.0, groups, margin, nearest, positives == "position")
    loss = make("contrastive_cross_entropy", margin=margin, negatives_per_class=nearest, positives=positives)
    assert value(loss, embeddings, labels, groups).item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_cross_entropy_of_interleaved_pairs_is_that_of_clip():
    left, right = draw(1, (6, E)), draw(2, (6, E))
    logits = 15 * F.normalize(left) @ F.normalize(right).T
    expected = (F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2
    interleaved = torch.stack([left, right], dim=1).flatten(0, 1)
    pair_ids = torch.tensor([4, 7, 0, 99, 12, 5]).repeat_interleave(2)
    torch.testing.assert_close(value(make("contrastive_cross_entropy"), interleaved, pair_ids), expected)


def test_the_last_of_an_odd_batch_takes_no_part_in_contrastive_cross_entropy():
    embeddings = draw()[:11].requires_grad_()
    value(make("contrastive_cross_entropy"), embeddings, LABELS[:11]).backward()
    assert (embeddings.grad[10] == 0).all()
    assert (embeddings.grad[:10] != 0).any(1).sum() == 10


def test_contrastive_cross_entropy_of_one_class_wants_all_cosines_equal():
    loss = make("contrastive_cross_entropy")
    assert value(loss, draw(), SAME).item() == pytest.approx(contrastive_by_hand(draw(), SAME, 15.0), rel=1e-5)
    assert value(loss, torch.ones(B, E), SAME).item() == pytest.approx(math.log(B // 2), rel=1e-6)


@GROUPED
@pytest.mark.parametrize("t", [1.0, 15.0])
def test_supcon_is_its_formula_with_anchors_without_positive_dropped(t, groups):
    expected = supcon_by_hand(draw(), LABELS, t, groups)
    assert value(make("supcon", temperature=t), draw(), groups=groups).item() == pytest.approx(expected, rel=1e-5)


def test_supcon_of_one_class_is_zero():
    assert value(make("supcon"), draw(), SAME).item() == 0


@GROUPED
@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("mining", ["semi_hard", "batch_all", "batch_hard"])
def test_triplet_is_its_formula_over_the_triplets_that_violate_the_margin(mining, margin, groups):
    cos = cosines(draw(), draw())
    expected = triplet_by_hand(cos, triplets_by_hand(cos, LABELS, groups, mining), margin)
    assert expected > 0
    loss = make("triplet", margin=margin, mining=mining)
    assert value(loss, draw(), groups=groups).item() == pytest.approx(expected, rel=1e-5)


def test_a_negative_as_near_as_the_positive_is_not_semi_hard():
    labels = torch.tensor([0, 0, 1])
    assert value(make("triplet", mining="semi_hard"), torch.eye(3, E), labels).item() == 0
    assert value(make("triplet", mining="batch_all"), torch.eye(3, E), labels).item() == pytest.approx(0.2)


@GROUPED
def test_triplet_draws_distance_weighted_negatives_for_positives_of_other_groups(groups):
    positives, negatives = relations(LABELS, groups)
    torch.manual_seed(3)
    drawn = zip(*(x.tolist() for x in DistanceWeightedMiner()(draw(), LABELS)), strict=True)
    kept = [(i, p, n) for i, p, n in drawn if p in positives[i]]
    assert all(n in negatives[i] for i, _, n in kept)
    loss = make("triplet", mining="distance_weighted", margin=0.5)
    torch.manual_seed(3)
    expected = triplet_by_hand(cosines(draw(), draw()), kept, 0.5)
    assert value(loss, draw(), groups=groups).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [SAME, DISTINCT], ids=["no_negative", "no_positive"])
@pytest.mark.parametrize("mining", ["semi_hard", "batch_all", "batch_hard", "distance_weighted"])
def test_triplet_of_a_batch_without_triplets_is_zero(mining, labels):
    embeddings = draw().requires_grad_()
    total = value(make("triplet", mining=mining), embeddings, labels)
    total.backward()
    assert total.item() == 0
    assert (embeddings.grad == 0).all()


def test_triplet_of_classes_farther_apart_than_the_margin_is_zero_with_a_gradient():
    embeddings = torch.eye(E)[LABELS].requires_grad_()
    total = value(make("triplet"), embeddings)
    total.backward()
    assert total.item() == 0
    assert (embeddings.grad == 0).all()


@GROUPED
@pytest.mark.parametrize("options", [(2.0, 50.0, 0.5, 0.1), (5.0, 8.0, 0.0, 0.0), (1.0, 10.0, 0.3, 3.0)])
def test_multi_similarity_is_its_formula_with_its_mining(options, groups):
    alpha, beta, base, epsilon = options
    expected = multi_similarity_by_hand(draw(), LABELS, groups, *options)
    loss = make("multi_similarity", alpha=alpha, beta=beta, base=base, epsilon=epsilon)
    assert value(loss, draw(), groups=groups).item() == pytest.approx(expected, rel=1e-5)


@GROUPED
@pytest.mark.parametrize(("t", "margin"), [(80.0, 0.4), (15.0, 0.25)])
def test_circle_is_its_formula(t, margin, groups):
    expected = circle_by_hand(draw(), LABELS, groups, t, margin)
    loss = make("circle", temperature=t, margin=margin)
    assert value(loss, draw(), groups=groups).item() == pytest.approx(expected, rel=1e-5)


def test_circle_takes_no_gradient_of_its_weights():
    embeddings = draw(size=(3, E)).requires_grad_()
    value(make("circle", temperature=15.0, margin=0.4), embeddings, torch.tensor([0, 1, 0])).backward()
    again = embeddings.detach().double().requires_grad_()
    x = F.normalize(again)
    positive, expected = x[0] @ x[2], 0.0
    for negative in (x[0] @ x[1], x[2] @ x[1]):
        push, pull = max(0, negative.item() + 0.4), max(0, 1.4 - positive.item())
        expected += F.softplus(15 * (push * (negative - 0.4) - pull * (positive - 0.6))) / 2
    expected.backward()
    torch.testing.assert_close(embeddings.grad.double(), again.grad, rtol=1e-4, atol=1e-6)


def test_pair_bce_is_its_formula():
    logits = torch.tensor([3.0, -2.0, 0.5])
    labels = torch.tensor([1, 1, 1, 2, 0, 0])  # same, different, same
    expected = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-0.5))) / 3
    total = value(make("pair_bce"), draw(size=(6, E)), labels, pair_logits=logits)
    assert total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("t", [1.0, 15.0])
def test_rank_n_contrast_is_its_formula_ties_included(t):
    va = (4 * draw(7, (B, 2))).round() / 4
    va[3] = va[8] = va[0]
    expected = rank_n_contrast_by_hand(draw(), va, t)
    assert value(make("rank_n_contrast", temperature=t), draw(), va=va).item() == pytest.approx(expected, rel=1e-5)


def test_rank_n_contrast_where_all_targets_are_one_wants_all_cosines_equal():
    total = value(make("rank_n_contrast"), torch.ones(B, E), va=torch.full((B, 2), 0.3))
    assert total.item() == pytest.approx(math.log(B - 1), rel=1e-6)


@pytest.mark.parametrize(("t", "margin"), [(30.0, 0.5), (15.0, 0.0), (8.0, 1.2)])
def test_arcface_is_its_formula_with_the_margin_in_radians(t, margin):
    loss = make("arcface", temperature=t, margin=margin)
    weights = parameters(loss)["weight"].T
    embeddings = draw()
    embeddings[0] = -weights[LABELS[0]] + 0.1 * embeddings[0]  # θ + margin beyond π
    expected = arcface_by_hand(embeddings, LABELS, weights, t, margin)
    assert value(loss, embeddings).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_arcface_on_its_own_class_weight_has_a_finite_gradient(sign, monkeypatch):
    monkeypatch.setattr(torch, "clamp", lambda x, *_: x)  # at its ends, an older torch's lets the gradient through
    loss = make("arcface")
    (weights,) = loss.parameters()
    weights.data.copy_(torch.eye(E, C))  # so that the cosines are 1 and -1 to the last bit
    embeddings = (sign * weights.detach().T[LABELS]).requires_grad_()
    value(loss, embeddings).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(weights.grad).all()


@pytest.mark.parametrize(("t", "margin"), [(30.0, 0.35), (15.0, 0.0)])
def test_cosface_is_its_formula(t, margin):
    loss = make("cosface", temperature=t, margin=margin)
    expected = own_class_by_hand(draw(), LABELS, parameters(loss)["weight"].T, t, lambda cosine: cosine - margin)
    assert value(loss, draw()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [LABELS, SAME], ids=["four_classes", "one_class"])
@pytest.mark.parametrize(("t", "margin"), [(32.0, 0.1), (15.0, 0.0)])
def test_proxy_anchor_is_its_formula(t, margin, labels):
    loss = make("proxy_anchor", temperature=t, margin=margin)
    expected = proxy_anchor_by_hand(draw(), labels, parameters(loss)["proxies"], t, margin)
    assert value(loss, draw(), labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "weights"), [("arcface", "weight"), ("cosface", "weight"), ("proxy_anchor", "proxies")]
)
def test_classes_are_predicted_by_cosine_without_the_margin(name, weights):
    loss = make(name, temperature=10.0)
    classes = parameters(loss)[weights]
    expected = 10 * torch.tensor(cosines(draw(), classes if weights == "proxies" else classes.T))
    torch.testing.assert_close(loss.predict("classes", draw()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labels", [LABELS, SAME], ids=["four_classes", "one_class"])
@pytest.mark.parametrize(
    ("name", "options", "peer"),
    [
        ("arcface", {"temperature": 30.0, "margin": 0.5}, peers.ArcFaceLoss(C, E, math.degrees(0.5), 30.0)),
        ("cosface", {"temperature": 15.0, "margin": 0.35}, peers.CosFaceLoss(C, E, margin=0.35, scale=15.0)),
        ("proxy_anchor", {"temperature": 32.0, "margin": 0.1}, peers.ProxyAnchorLoss(C, E, 0.1, 32.0)),
    ],
)
def test_losses_of_class_weights_and_their_gradients_are_those_of_pytorch_metric_learning(name, options, peer, labels):
    loss, embeddings = make(name, **options), draw().requires_grad_()
    (weights,) = loss.parameters()
    (theirs,) = peer.parameters()
    theirs.data.copy_(weights)
    total = value(loss, embeddings, labels)
    gradients = torch.autograd.grad(total, [embeddings, weights])
    again = draw().requires_grad_()
    expected = peer(again, labels)
    torch.testing.assert_close(total, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, [again, theirs]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_cross_entropy_is_its_formula(weighted, smoothing, gamma, tau):
    counts = [50, 7, 20, 1]
    loss = make(
        "cross_entropy", class_counts=counts, class_weights="balanced" if weighted else "none",
        label_smoothing=smoothing, focal_gamma=gamma, logit_adjustment=tau,
    )  # fmt: skip
    expected = cross_entropy_by_hand(loss.predict("classes", draw()), LABELS, counts, weighted, smoothing, gamma, tau)
    assert value(loss, draw()).item() == pytest.approx(expected, rel=1e-5)


def test_a_class_without_training_windows_counts_as_having_one():
    options = {"class_weights": "balanced", "logit_adjustment": 1.0, "label_smoothing": 0.1}
    none, one = ([9, 3, 5, 0], [9, 3, 5, 1])
    total = value(make("cross_entropy", class_counts=none, **options), draw())
    torch.testing.assert_close(total, value(make("cross_entropy", class_counts=one, **options), draw()))
    assert torch.isfinite(total)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_gradient_is_finite_where_a_class_is_certain(gamma):
    embeddings = (1e4 * draw()).requires_grad_()
    total = value(make("cross_entropy", focal_gamma=gamma), embeddings)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(embeddings.grad).all()


def test_ccc_is_its_formula():
    loss, va = make("ccc"), draw(1, (B, 2)).tanh()
    predicted = loss.predict("va", draw()).detach()
    expected = 1 - (ccc_by_hand(predicted[:, 0], va[:, 0]) + ccc_by_hand(predicted[:, 1], va[:, 1])) / 2
    assert value(loss, draw(), va=va).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rows", [1, B])
@pytest.mark.parametrize("constant", ["prediction", "target", "both"])
def test_ccc_of_a_constant_is_zero(constant, rows):
    embeddings = draw(size=(1, E)).expand(rows, E) if constant != "target" else draw(size=(rows, E))
    va = torch.full((rows, 2), 0.25) if constant != "prediction" else draw(1, (rows, 2)).tanh()
    embeddings = embeddings.clone().requires_grad_()
    total = value(make("ccc"), embeddings, LABELS[:rows], va=va)
    total.backward()
    assert total.item() == pytest.approx(1, abs=1e-4)
    assert torch.isfinite(embeddings.grad).all()


def test_ccc_of_a_constant_that_is_met_exactly_is_zero_too():
    loss, embeddings = make("ccc"), draw().requires_grad_()
    for parameter in loss.parameters():
        parameter.data.zero_()
    total = value(loss, embeddings, va=torch.zeros(B, 2))
    total.backward()
    assert total.item() == 1
    assert torch.isfinite(embeddings.grad).all()


def test_bce_is_its_formula_over_the_known_cells():
    loss, aus = make("bce"), (draw(2, (B, A)) > 0).double()
    aus[0], aus[4, 1] = math.nan, math.nan
    logits, cells = loss.predict("aus", draw()).double(), []
    for row, targets in zip(logits.tolist(), aus.tolist(), strict=True):
        for logit, target in zip(row, targets, strict=True):
            if not math.isnan(target):
                p = 1 / (1 + math.exp(-logit))
                cells.append(-target * math.log(p) - (1 - target) * math.log(1 - p))
    assert len(cells) == B * A - A - 1
    assert value(loss, draw(), aus=aus).item() == pytest.approx(mean(cells), rel=1e-5)


def test_simsiam_is_its_formula():
    loss = make("simsiam")
    p = {name: weight.double() for name, weight in loss.loss.terms["simsiam"].predictor.state_dict().items()}
    hidden = draw().double() @ p["0.weight"].T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt() * p["1.weight"] + p["1.bias"]
    predicted = hidden.clamp(min=0) @ p["3.weight"].T + p["3.bias"]
    cos = cosines(predicted, draw())
    expected = -mean([(cos[i][i + 1] + cos[i + 1][i]) / 2 for i in range(0, B, 2)])
    assert value(loss, draw()).item() == pytest.approx(expected, rel=1e-5)


def test_simsiam_has_no_gradient_but_through_the_predictor():
    loss, embeddings = make("simsiam"), draw().requires_grad_()
    for parameter in loss.loss.terms["simsiam"].predictor[:3].parameters():
        parameter.data.zero_()
    value(loss, embeddings).backward()
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 2.0, 0.5)])
def test_vicreg_is_its_formula(weights):
    loss = make("vicreg", **dict(zip(("invariance", "variance", "covariance"), weights, strict=True)))
    embeddings = draw() * torch.linspace(0.2, 3, E)
    expected = vicreg_by_hand(embeddings[0::2], embeddings[1::2], *weights)
    assert value(loss, embeddings).item() == pytest.approx(expected, rel=1e-5)


def test_vicreg_of_embeddings_in_one_point_is_the_lack_of_variance():
    embeddings = torch.ones(B, E, requires_grad=True)
    total = value(make("vicreg"), embeddings)
    total.backward()
    assert total.item() == pytest.approx(25 * (1 - math.sqrt(1e-4)), rel=1e-6)
    assert torch.isfinite(embeddings.grad).all()


def test_losses_of_outputs_are_their_formulas_over_the_known_cells():
    outputs = draw(5, (B, K)).double()
    outputs[0], outputs[4, 1] = math.nan, math.nan
    loss = make("mse")
    predicted = loss.predict("outputs", draw()).double().detach()
    known = [(row, k) for row in range(B) for k in range(K) if not math.isnan(outputs[row, k])]
    assert len(known) == B * K - K - 1
    found = mean([float(predicted[cell] - outputs[cell]) ** 2 for cell in known])
    assert value(loss, draw(), outputs=outputs).item() == pytest.approx(found, rel=1e-5)
    loss = make("pearson")
    predicted, correlations = loss.predict("outputs", draw()).double().detach(), []
    for k in range(K):
        rows = [row for row, column in known if column == k]
        correlations.append(np.corrcoef(predicted[rows, k], outputs[rows, k])[0, 1])
    assert value(loss, draw(), outputs=outputs).item() == pytest.approx(1 - mean(correlations), rel=1e-4)


def test_pearson_of_a_constant_is_one_with_a_finite_gradient():
    embeddings = draw()[:1].repeat(B, 1).requires_grad_()
    total = value(make("pearson"), embeddings)
    total.backward()
    assert total.item() == pytest.approx(1, abs=1e-3)
    assert torch.isfinite(embeddings.grad).all()


def test_steadiness_is_its_formula():
    frames, valid = draw(size=(B, T, E)), draw(4, (B, T)) > -0.5
    frame_labels = (draw(5, (B, T)) > -1).long() - (draw(6, (B, T)) > 1.5).long()
    assert {-1, 0, 1} <= set(frame_labels.flatten().tolist())
    assert not valid[:, T // 2].all()
    videos = torch.arange(B) // 3
    entries = {"frames": frames, "valid": valid, "frame_labels": frame_labels, "videos": videos}
    expected = steadiness_by_hand(**entries)
    assert value(make("steadiness"), draw(), **entries).item() == pytest.approx(expected, rel=1e-5)
    frames = torch.where(valid[..., None], frames, math.nan)
    assert value(make("steadiness"), draw(), **{**entries, "frames": frames}).item() == pytest.approx(expected)


@pytest.mark.parametrize("point", [1.0, 0.0])
def test_steadiness_of_a_collapse_is_one_with_a_finite_gradient(point):
    frames = torch.full((B, T, E), point, requires_grad=True)
    total = value(make("steadiness"), draw(), frames=frames)
    total.backward()
    assert total.item() == pytest.approx(1, abs=0.01)
    assert torch.isfinite(frames.grad).all()


def test_steadiness_is_not_won_by_moving_all_frames_towards_one_point():
    frames, centre = F.normalize(draw(size=(B, T, E)), dim=2), torch.zeros(E)
    centre[0] = 1.0
    totals = [value(make("steadiness"), draw(), frames=frames + shift * centre).item() for shift in (3, 10, 30)]
    near = [1 - mean(cosines((frames + s * centre)[0], (frames + s * centre)[0])[0]) for s in (3, 10, 30)]
    assert near[2] < near[0] / 50
    assert totals[2] > 0.8 * totals[0]
    steady = frames[:, :1] + 0.1 * frames
    assert value(make("steadiness"), draw(), frames=steady).item() < 0.1


@pytest.mark.parametrize(
    "entries", [{"videos": SAME}, {"frame_labels": torch.full((B, T), -1)}], ids=["videos", "near"]
)
def test_steadiness_without_strangers_or_neighbours_is_zero_with_a_gradient(entries):
    embeddings = draw().requires_grad_()
    total = value(make("steadiness"), embeddings, **entries)
    total.backward()
    assert total.item() == 0
    assert (embeddings.grad == 0).all()


# ---- What holds for all


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_gradient_is_finite_and_reaches_embeddings_and_weights(name):
    loss, embeddings = make(name), draw().requires_grad_()
    value(loss, embeddings).backward()
    for tensor in (embeddings, *loss.parameters()):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "what", "size"),
    [
        *((name, "classes", C) for name in WITH_CLASSES),
        ("ccc", "va", 2),
        ("bce", "aus", A),
        ("mse", "outputs", K),
        ("pearson", "outputs", K),
    ],
)
def test_a_loss_that_predicts_says_what_and_gives_it(name, what, size):
    loss = make(name)
    assert loss.predictors.by_what == {what: loss.predictors[name]}
    assert LOSSES[name].predicts == what
    assert loss.predict(what, draw()).shape == (B, size)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {*WITH_CLASSES, "ccc", "bce", "mse", "pearson"}))
def test_all_other_losses_predict_nothing(name):
    assert make(name).loss.trains == {}
    assert LOSSES[name].predicts is None


@pytest.mark.parametrize("name", BY_COSINE)
def test_the_length_of_embeddings_does_not_matter_where_cosines_are_compared(name):
    lengths = torch.linspace(0.1, 50, B).unsqueeze(1)
    entries = {"frames": draw(size=(B, T, E)) * lengths[..., None]}
    stretched = value(make(name), draw() * lengths, **entries)
    torch.testing.assert_close(stretched, value(make(name), draw(), frames=draw(size=(B, T, E))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_autocast_does_not_reach_into_a_loss(name):
    loss, embeddings = make(name).eval(), draw()
    batch = batch_of(embeddings)
    expected = loss(embeddings, batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(embeddings, batch)[0]
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)
    assert inside.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_embeddings_in_half_precision_are_computed_in_float32(name, dtype):
    loss = make(name)
    scale = 1 if name == "vicreg" else 300  # whose squares overflow float16; in VICReg the gradient would
    half = (scale * draw()).to(dtype).requires_grad_()
    batch = {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch_of(half).items()}
    total, _ = loss(half, batch)
    assert total.dtype == torch.float32
    in_full = {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}
    torch.testing.assert_close(total, loss(half.float(), in_full)[0], rtol=0, atol=0)
    total.backward()
    assert torch.isfinite(half.grad).all()
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("case", ["distinct_labels", "one_group"])
def test_a_batch_without_any_positive_is_zero_with_a_gradient(name, case):
    embeddings = draw().requires_grad_()
    labels, groups = (DISTINCT, None) if case == "distinct_labels" else (LABELS, SAME)
    total = value(make(name), embeddings, labels, groups)
    total.backward()
    assert total.item() == 0
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("name", OF_PAIRS)
def test_groups_of_one_window_each_change_nothing(name):
    assert value(make(name), draw(), groups=DISTINCT).item() == value(make(name), draw()).item() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_one_class_in_the_batch_gives_a_finite_loss_and_gradient(name):
    embeddings = draw().requires_grad_()
    total = value(make(name), embeddings, SAME)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_tiny_batch_gives_a_finite_loss_and_gradient(name, size):
    embeddings = draw(size=(size, E)).requires_grad_()
    total = value(make(name), embeddings, LABELS[:size])
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_embeddings_in_one_point_give_a_finite_loss_and_gradient(name):
    embeddings = torch.ones(B, E, requires_grad=True)
    total = value(make(name), embeddings)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(embeddings.grad).all()


# ---- Rows without a target


def without(name, dropped):
    """The batch with the targets of the ``dropped`` rows taken away, and the batch without those rows."""
    embeddings = draw()
    batch = batch_of(embeddings, groups=GROUPS)
    kept = torch.ones(B, dtype=torch.bool)
    kept[dropped] = False
    fewer = {k: v[kept] for k, v in batch.items() if k != "pair_logits"} | {
        "pair_logits": batch["pair_logits"][kept[1::2]]
    }
    missing = {"labels": -1, "va": math.nan, "aus": math.nan, "outputs": math.nan}
    targets = {k: torch.where((kept if batch[k].ndim == 1 else kept[:, None]), batch[k], v) for k, v in missing.items()}
    return make(name)(embeddings, batch | targets)[0], make(name)(embeddings[kept], fewer)[0]


@pytest.mark.parametrize("name", [n for n in sorted(LOSSES) if target_of(n)])
def test_rows_without_the_target_are_left_out(name):
    with_missing, without_rows = without(name, [2, 3, 8, 9])
    torch.testing.assert_close(with_missing, without_rows, rtol=1e-6, atol=1e-6)
    assert with_missing.item() != make(name)(draw(), batch_of(draw(), groups=GROUPS))[0].item()


@pytest.mark.parametrize("name", ["contrastive_cross_entropy", "pair_bce"])
def test_a_pair_is_left_out_where_one_of_the_two_has_no_label(name):
    labels = LABELS.clone()
    labels[[3, 8]] = -1
    both = LABELS.clone()
    both[[2, 3, 8, 9]] = -1
    assert value(make(name), draw(), labels).item() == value(make(name), draw(), both).item()


def test_a_window_with_valence_only_is_left_out_and_one_with_some_action_units_is_not():
    va, aus = draw(1, (B, 2)).tanh(), torch.ones(B, A)
    va[3, 1], aus[3, 1] = math.nan, math.nan
    kept = [i for i in range(B) if i != 3]
    expected = value(make("ccc"), draw()[kept], LABELS[kept], va=va[kept])
    torch.testing.assert_close(value(make("ccc"), draw(), va=va), expected)
    embeddings = draw().requires_grad_()
    value(make("bce"), embeddings, aus=aus).backward()
    assert (embeddings.grad[3] != 0).any()


@pytest.mark.parametrize("name", [n for n in sorted(LOSSES) if target_of(n)])
def test_a_batch_without_any_target_is_zero_with_a_gradient(name):
    embeddings = draw().requires_grad_()
    nothing = {name: torch.full((B, n), math.nan) for name, n in (("va", 2), ("aus", A), ("outputs", K))}
    total = value(make(name), embeddings, torch.full((B,), -1), **nothing)
    total.backward()
    assert total.item() == 0
    assert (embeddings.grad == 0).all()


# ---- Sums


def test_a_sum_is_weighted_and_gives_its_terms_unweighted_and_detached():
    loss = make({"arcface": 2.0, "supcon": {"weight": 0.5, "temperature": 5.0}, "ccc": 1})
    embeddings = draw().requires_grad_()
    total, parts = loss(embeddings, batch_of(embeddings))
    alone = {name: value(make(name, temperature=t), draw()) for name, t in (("arcface", None), ("supcon", 5.0))}
    assert list(parts) == ["arcface", "supcon", "ccc"]
    assert parts["supcon"].item() == pytest.approx(alone["supcon"].item(), rel=1e-6)
    assert parts["arcface"].item() == pytest.approx(alone["arcface"].item(), rel=1e-6)
    assert total.item() == pytest.approx(
        2 * parts["arcface"].item() + 0.5 * parts["supcon"].item() + parts["ccc"].item(), rel=1e-6
    )
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


def test_a_sum_takes_what_its_terms_take_and_predicts_what_they_predict():
    loss = make({"triplet": 1.0, "cosface": 1.0, "cross_entropy": 1.0, "ccc": 1.0})
    assert loss.loss.takes == ("labels", "groups", "va")
    assert list(loss.loss.trains) == ["cosface", "cross_entropy", "ccc"]
    assert loss.predictors.by_what == {"classes": loss.predictors["cosface"], "va": loss.predictors["ccc"]}


def test_a_term_of_its_own_target_does_not_see_the_rows_of_another():
    labels = torch.where(torch.arange(B) < 6, LABELS, -1)
    va = torch.where(torch.arange(B)[:, None] < 6, math.nan, draw(1, (B, 2)).tanh())
    _, parts = make({"supcon": 1.0, "ccc": 1.0})(draw(), batch_of(draw(), labels, va=va))
    assert parts["supcon"].item() == pytest.approx(supcon_by_hand(draw()[:6], LABELS[:6], 15.0), rel=1e-5)
    expected = value(make("ccc"), draw()[6:], LABELS[6:], va=va[6:])
    assert make({"ccc": 1.0})(draw(), batch_of(draw(), labels, va=va))[1]["ccc"].item() == expected.item()


def test_only_what_a_sum_takes_need_be_in_the_batch():
    total, _ = make("supcon")(draw(), {"labels": LABELS})
    assert total.item() == value(make("supcon"), draw()).item()


def test_options_go_to_the_terms_that_name_them_and_a_terms_own_come_first():
    spec = {"triplet": {"margin": 0.7}, "cosface": 1.0}
    terms = build_loss(spec, {"margin": 0.4}, num_classes=C, embedding_size=E, margin=0.1, temperature=9.0).terms
    assert terms["triplet"].loss.margin == 0.7
    assert (terms["cosface"].margin, terms["cosface"].temperature) == (0.4, 9.0)


def test_none_is_the_default_of_the_loss_and_what_it_does_not_know_is_left_out():
    values = {"num_classes": C, "embedding_size": E, "temperature": None, "margin": None, "class_counts": [1] * C}
    assert build_loss("triplet", {}, **values).terms["triplet"].loss.margin == 0.2
    assert build_loss("arcface", {}, **values).terms["arcface"].margin == 0.5
    assert build_loss("contrastive_cross_entropy", {}, **values).terms["contrastive_cross_entropy"].temperature == 15


def test_temperature_is_the_scale_on_cosines():
    assert make("supcon", temperature=20.0).loss.terms["supcon"].loss.temperature == pytest.approx(1 / 20)


def test_a_loss_of_ones_own_is_a_class_and_a_line(monkeypatch):
    class Mine(Loss):
        def forward(self, embeddings, labels):
            assert embeddings.dtype == torch.float32
            return (embeddings.mean(dim=1) - labels).square().mean()

    monkeypatch.setitem(LOSSES.places, "mine", "mine_of_ones_own.Mine")
    monkeypatch.setitem(sys.modules, "mine_of_ones_own", SimpleNamespace(Mine=Mine))
    embeddings = draw().half()
    expected = mean([(row.mean().item() - label.item()) ** 2 for row, label in zip(draw(), LABELS, strict=True)])
    assert value(make("mine"), embeddings).item() == pytest.approx(expected, rel=1e-2)
    assert target_of("mine") == "expression"


def test_a_loss_says_what_it_learns_from():
    targets = {name: target_of(name) for name in LOSSES}
    assert {name for name, target in targets.items() if target is None} == {"simsiam", "vicreg", "steadiness"}
    assert (targets["ccc"], targets["rank_n_contrast"], targets["bce"]) == ("va", "va", "aus")
    assert (targets["mse"], targets["pearson"]) == ("outputs", "outputs")
    assert all(targets[name] == "expression" for name in [*OF_PAIRS, *WITH_CLASSES, "pair_bce"])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_names_its_source_in_one_line(name):
    assert 10 < len(LOSSES[name].source) < 110
    assert "\n" not in LOSSES[name].source


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("supcom", {}, r"loss 'supcom' is not one of \['arcface', .*\(did you mean 'supcon'\?\)"),
        ({"supcom": 1.0}, {}, r"loss 'supcom' is not one of"),
        ({}, {}, r"loss must be a name, or a mapping of names to weights, and is {}"),
        (["triplet"], {}, "loss must be a name, or a mapping"),
        ({"triplet": -1.0}, {}, "loss 'triplet': its weight must be 0 or more, and is -1.0"),
        ({"triplet": "much"}, {}, "loss 'triplet': its weight must be 0 or more, and is 'much'"),
        ({"triplet": {"tau": 1.0}}, {}, r"loss 'triplet': option 'tau' is not one of \['margin', 'mining'\]"),
        ("triplet", {"tau": 1.0}, r"no loss of this run takes 'tau'. They take: triplet \['margin', 'mining'\]"),
        ("arcface", {"num_classes": None}, "loss 'arcface' needs num_classes"),
        ("arcface", {"margin": 28.6}, "loss 'arcface': margin is an angle in radians"),
        ("arcface", {"margin": "a"}, "loss 'arcface': margin is an angle in radians"),
        ("arcface", {"temperature": 0.0}, "temperature must be above 0, and is 0.0"),
        ("supcon", {"temperature": 0.0}, "temperature must be above 0"),
        ("supcon", {"temperature": "warm"}, "temperature must be above 0, and is 'warm'"),
        ("contrastive_cross_entropy", {"temperature": -1.0}, "temperature must be above 0"),
        ("contrastive_cross_entropy", {"negatives_per_class": 0}, "negatives_per_class must be a whole number from 1"),
        ("contrastive_cross_entropy", {"positives": "video"}, r"positives must be one of \['label', 'position'\]"),
        ("triplet", {"margin": 0.0}, "margin must be above 0"),
        ("triplet", {"mining": "semihard"}, r"mining must be one of \['semi_hard', .*\], and is 'semihard'"),
        ("circle", {"margin": 1.5}, r"margin must be in \[0, 1\), and is 1.5"),
        ("cross_entropy", {"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ("cross_entropy", {"focal_gamma": -1.0}, r"focal_gamma must be in \[0, inf\)"),
        ("cross_entropy", {"class_weights": "balanced"}, "class_weights and logit_adjustment need 4 class_counts"),
        ("cross_entropy", {"logit_adjustment": 1.0, "class_counts": [1, 2]}, r"need 4 class_counts, not \[1, 2\]"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(name, values, message):
    with pytest.raises(UserError, match=message):
        make(name, **values)
