"""Each loss against its paper's formula, written out as a slow loop in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.params import UserError
from pipeline.training.losses import LOSSES, build_loss

B, E, C = 12, 8, 4
LABELS = torch.tensor([0, 0, 1, 1, 0, 2, 2, 1, 2, 0, 3, 0])  # 3 stands alone: an anchor without a positive
SAME = torch.zeros(B, dtype=torch.int64)
DISTINCT = torch.arange(B)


def draw(seed=0, size=(B, E)):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def make(name, num_classes=C, **values):
    torch.manual_seed(0)
    return build_loss(name, **{"num_classes": num_classes, "embedding_size": E, **values})


def cosines(a, b):
    a, b = a.double(), b.double()
    return [[float(x @ y / (x.norm() * y.norm())) for y in b] for x in a]


def log_sum_exp(values):
    return math.log(sum(math.exp(v) for v in values))


def mean(values):
    return sum(values) / len(values) if values else 0.0


def contrastive_by_hand(embeddings, labels, t):
    n = len(labels) // 2
    anchors, partners = embeddings[0 : 2 * n : 2], embeddings[1 : 2 * n : 2]
    a_labels, b_labels = labels[0 : 2 * n : 2].tolist(), labels[1 : 2 * n : 2].tolist()
    cos = cosines(anchors, partners)
    rows, columns = [], []
    for i in range(n):
        targets = [j for j in range(n) if b_labels[j] == a_labels[i]]
        if targets:
            total = log_sum_exp([t * cos[i][j] for j in range(n)])
            rows.append(mean([total - t * cos[i][j] for j in targets]))
    for j in range(n):
        targets = [i for i in range(n) if a_labels[i] == b_labels[j]]
        if targets:
            total = log_sum_exp([t * cos[i][j] for i in range(n)])
            columns.append(mean([total - t * cos[i][j] for i in targets]))
    return (mean(rows) + mean(columns)) / 2


def supcon_by_hand(embeddings, labels, t):
    cos, anchors = cosines(embeddings, embeddings), []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            total = log_sum_exp([t * cos[i][j] for j in others])
            anchors.append(-mean([t * cos[i][p] - total for p in positives]))
    return mean(anchors)


def triplet_by_hand(embeddings, labels, margin):
    cos, violations = cosines(embeddings, embeddings), []
    for i in range(len(labels)):
        positives = [cos[i][j] for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        negatives = [cos[i][j] for j in range(len(labels)) if labels[j] != labels[i]]
        if positives and negatives and margin + max(negatives) - min(positives) > 0:
            violations.append(margin + max(negatives) - min(positives))
    return mean(violations)


def arcface_by_hand(embeddings, labels, weights, t, margin):
    cos, each = cosines(embeddings, weights), []
    for i, label in enumerate(labels.tolist()):
        angle = math.acos(cos[i][label])
        own = math.cos(angle + margin) if angle + margin <= math.pi else cos[i][label] - margin * math.sin(margin)
        logits = [t * (own if c == label else cos[i][c]) for c in range(len(weights))]
        each.append(log_sum_exp(logits) - logits[label])
    return mean(each)


def smoothed_cross_entropy_by_hand(logits, labels, smoothing):
    each = []
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        total = log_sum_exp(row)
        targets = [smoothing / len(row) + (1 - smoothing) * (c == label) for c in range(len(row))]
        each.append(sum(target * (total - logit) for target, logit in zip(targets, row, strict=True)))
    return mean(each)


@pytest.mark.parametrize("t", [1.0, 15.0])
@pytest.mark.parametrize("size", [B, B - 1])
def test_contrastive_cross_entropy_is_its_formula(size, t):
    embeddings, labels = draw()[:size], LABELS[:size]
    expected = contrastive_by_hand(embeddings, labels, t)
    assert make("contrastive_cross_entropy", temperature=t)(embeddings, labels).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_contrastive_cross_entropy_of_interleaved_pairs_is_that_of_clip():
    left, right = draw(1, (6, E)), draw(2, (6, E))
    logits = 15 * F.normalize(left) @ F.normalize(right).T
    expected = (F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2
    interleaved = torch.stack([left, right], dim=1).flatten(0, 1)
    pair_ids = torch.tensor([4, 7, 0, 99, 12, 5]).repeat_interleave(2)
    torch.testing.assert_close(make("contrastive_cross_entropy")(interleaved, pair_ids), expected)


def test_the_last_of_an_odd_batch_takes_no_part_in_contrastive_cross_entropy():
    embeddings = draw()[:11].requires_grad_()
    make("contrastive_cross_entropy")(embeddings, LABELS[:11]).backward()
    assert (embeddings.grad[10] == 0).all()
    assert (embeddings.grad[:10] != 0).any(1).sum() == 10


@pytest.mark.parametrize("size", [0, 1])
def test_contrastive_cross_entropy_of_no_pair_is_zero(size):
    embeddings = draw()[:size].requires_grad_()
    loss = make("contrastive_cross_entropy")(embeddings, LABELS[:size])
    loss.backward()
    assert loss.item() == 0


def test_contrastive_cross_entropy_of_one_class_wants_all_cosines_equal():
    loss = make("contrastive_cross_entropy")
    assert loss(draw(), SAME).item() == pytest.approx(contrastive_by_hand(draw(), SAME, 15.0), rel=1e-5)
    assert loss(torch.ones(B, E), SAME).item() == pytest.approx(math.log(B // 2), rel=1e-6)


@pytest.mark.parametrize("t", [1.0, 15.0])
def test_supcon_is_its_formula_with_anchors_without_positive_dropped(t):
    expected = supcon_by_hand(draw(), LABELS, t)
    assert make("supcon", temperature=t)(draw(), LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_supcon_of_one_class_is_zero():
    assert make("supcon")(draw(), SAME).item() == 0


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_triplet_is_its_formula_over_the_triplets_that_violate_the_margin(margin):
    expected = triplet_by_hand(draw(), LABELS, margin)
    assert expected > 0
    assert make("triplet", margin=margin)(draw(), LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [SAME, DISTINCT], ids=["no_negative", "no_positive"])
def test_triplet_of_a_batch_without_triplets_is_zero(labels):
    assert make("triplet")(draw(), labels).item() == 0


def test_triplet_of_classes_farther_apart_than_the_margin_is_zero_with_a_gradient():
    embeddings = torch.eye(E)[LABELS].requires_grad_()
    loss = make("triplet")(embeddings, LABELS)
    loss.backward()
    assert loss.item() == 0
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize(("t", "margin"), [(30.0, 0.5), (15.0, 0.0), (8.0, 1.2)])
def test_arcface_is_its_formula_with_the_margin_in_radians(t, margin):
    loss = make("arcface", temperature=t, margin=margin)
    (weights,) = loss.parameters()
    embeddings = draw()
    embeddings[0] = -weights[:, LABELS[0]].detach() + 0.1 * embeddings[0]  # θ + margin beyond π
    expected = arcface_by_hand(embeddings, LABELS, weights.detach().T, t, margin)
    assert loss(embeddings, LABELS).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_arcface_on_its_own_class_weight_has_a_finite_gradient(sign, monkeypatch):
    monkeypatch.setattr(torch, "clamp", lambda x, *_: x)  # at its ends, an older torch's lets the gradient through
    loss = make("arcface")
    (weights,) = loss.parameters()
    weights.data.copy_(torch.eye(E, C))  # so that the cosines are 1 and -1 to the last bit
    embeddings = (sign * weights.detach().T[LABELS]).requires_grad_()
    loss(embeddings, LABELS).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(weights.grad).all()


def test_arcface_gives_logits_without_the_margin():
    loss = make("arcface", temperature=10.0)
    (weights,) = loss.parameters()
    expected = 10 * torch.tensor(cosines(draw(), weights.detach().T))
    torch.testing.assert_close(loss.logits(draw()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_formula(smoothing):
    loss = make("cross_entropy", label_smoothing=smoothing)
    expected = smoothed_cross_entropy_by_hand(loss.logits(draw()), LABELS, smoothing)
    assert loss(draw(), LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_gradient_is_finite_and_reaches_embeddings_and_weights(name):
    loss, embeddings = make(name), draw().requires_grad_()
    loss(embeddings, LABELS).backward()
    for tensor in (embeddings, *loss.parameters()):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_has_logits_and_weights_where_it_classifies(name):
    loss = make(name)
    assert loss.classifies is hasattr(loss, "logits")
    assert loss.classifies is (len(list(loss.parameters())) > 0)
    if loss.classifies:
        assert loss.logits(draw()).shape == (B, C)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"cross_entropy"}))
def test_the_length_of_embeddings_does_not_matter_where_cosines_are_compared(name):
    loss, lengths = make(name), torch.linspace(0.1, 50, B).unsqueeze(1)
    torch.testing.assert_close(loss(draw() * lengths, LABELS), loss(draw(), LABELS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_autocast_does_not_reach_into_a_loss(name):
    loss, embeddings = make(name), draw()
    expected = loss(embeddings, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(embeddings, LABELS)
        logits = loss.logits(embeddings) if loss.classifies else expected
    assert expected.dtype == inside.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_embeddings_in_half_precision_are_computed_in_float32(name, dtype):
    loss = make(name)
    half = (300 * draw()).to(dtype).requires_grad_()  # their squares overflow float16
    value = loss(half, LABELS)
    torch.testing.assert_close(value, loss(half.detach().float(), LABELS), rtol=0, atol=0)
    value.backward()
    assert torch.isfinite(half.grad).all()
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_batch_without_any_positive_is_zero_with_a_gradient(name):
    loss, embeddings = make(name, num_classes=B), draw().requires_grad_()
    value = loss(embeddings, DISTINCT)
    value.backward()
    if loss.classifies:
        assert value.item() > 0  # the class weights are its positives
    else:
        assert value.item() == 0
        assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_one_class_in_the_batch_gives_a_finite_loss_and_gradient(name):
    embeddings = draw().requires_grad_()
    value = make(name)(embeddings, SAME)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(embeddings.grad).all()


def test_temperature_is_the_scale_on_cosines():
    loss = make("supcon", temperature=20.0)
    assert loss.loss.temperature == pytest.approx(1 / 20)


def test_a_wrong_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"loss 'supcom' is not one of \['arcface', .*\(did you mean 'supcon'\?\)"):
        build_loss("supcom")


def test_none_is_the_default_of_the_loss_and_what_it_does_not_know_is_left_out():
    values = {"num_classes": C, "embedding_size": E, "temperature": None, "margin": None, "label_smoothing": 0.1}
    assert build_loss("triplet", **values).loss.margin == 0.2
    assert build_loss("arcface", **values).loss.margin == pytest.approx(0.5)
    assert build_loss("contrastive_cross_entropy", **values).temperature == 15


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("arcface", {"num_classes": None}, "loss 'arcface' needs num_classes"),
        ("arcface", {"margin": 28.6}, "loss 'arcface': margin is an angle in radians"),
        ("arcface", {"temperature": 0.0}, "temperature must be above 0, and is 0.0"),
        ("supcon", {"temperature": 0.0}, "temperature must be above 0"),
        ("contrastive_cross_entropy", {"temperature": -1.0}, "temperature must be above 0"),
        ("triplet", {"margin": 0.0}, "margin must be above 0"),
        ("cross_entropy", {"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, values, message):
    with pytest.raises(UserError, match=message):
        make(name, **values)
