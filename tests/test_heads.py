import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.adapter import pooling
from pipeline.adapter.heads import HEADS
from pipeline.adapter.heads.attention_pool import AttentionPool
from pipeline.adapter.heads.build import build_head
from pipeline.adapter.heads.common import Dropout
from pipeline.adapter.heads.gru import GRU
from pipeline.adapter.heads.original import Original
from pipeline.adapter.heads.pair_gate import PairGate
from pipeline.adapter.heads.peterson import Peterson
from pipeline.adapter.heads.tcn import TCN, _Dilated
from pipeline.adapter.heads.transformer import Transformer, sinusoids
from pipeline.core.params import UserError

B, T, D, E = 4, 40, 4, 16
OWN_SIZE = ("identity", "peterson")  # E = D
VARIANTS = {name: (name, {}) for name in HEADS} | {
    "peterson, dropout": ("peterson", {"input_dropout": 0.3}),
    "original, dropout": ("original", {"input_dropout": 0.3}),
    "gru of two layers": ("gru", {"num_layers": 2}),
    "transformer, sinusoidal": ("transformer", {"positions": "sinusoidal"}),
    "transformer, short": ("transformer", {"max_distance": 3, "num_layers": 2}),
}


def made(name, **options):
    torch.manual_seed(0)
    head = build_head(name, D, E, dropout=0.3, **options)
    if name == "transformer" and head.positions == "relative":
        nn.init.normal_(head.distance_logits)  # zeros at the start, which would hide a mistake
    return head


@pytest.fixture(params=VARIANTS)
def head(request):
    name, options = VARIANTS[request.param]
    return made(name, **options).eval()


@pytest.fixture
def window():
    """Features and ``valid``: full, with a hole and both edges missing, of a single frame, without any."""
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, :9] = valid[1, 20] = valid[1, 33:] = False
    valid[2] = torch.arange(T) == T // 2
    valid[3] = False
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(1)), valid


def outputs(head, features, valid):
    """Embeddings, and the logits of each window with the window before it where the head compares two."""
    embeddings = head(features, valid)
    if not head.pairs:
        return [embeddings]
    return [embeddings, head.pair(features, valid, features.roll(1, 0), valid.roll(1, 0))]


def where_embedded(head, valid):
    return valid.any(dim=1) if head.pools else valid


# --- every head


def test_a_head_gives_an_embedding_for_each_frame_or_window(head, window):
    embeddings = head(*window)
    assert head.num_features == D
    assert head.embedding_size == (D if type(head) in [HEADS[name] for name in OWN_SIZE] else E)
    assert embeddings.shape == ((B, head.embedding_size) if head.pools else (B, T, head.embedding_size))
    assert embeddings.dtype == torch.float32


def test_a_head_says_what_it_is(head):
    assert head.source
    assert head.learns is any(True for _ in head.parameters())
    assert head.pairs is hasattr(head, "pair")
    assert not (head.pools and head.framewise)


@pytest.mark.parametrize("training", [False, True])
def test_padded_frames_change_nothing_and_give_zeros(head, window, training):
    head.train(training)
    features, valid = window
    torch.manual_seed(2)
    expected = outputs(head, features, valid)
    for filling in (100.0, math.inf, math.nan):
        torch.manual_seed(2)
        found = outputs(head, features.masked_fill(~valid.unsqueeze(-1), filling), valid)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)
    there = where_embedded(head, valid)
    assert (expected[0][~there] == 0).all()
    assert (expected[0][there] != 0).any(dim=-1).all()


def test_padded_frames_leave_the_gradients_finite(head, window):
    features, valid = window
    features = features.masked_fill(~valid.unsqueeze(-1), math.nan).requires_grad_()
    sum(out.square().sum() for out in outputs(head, features, valid)).backward()
    assert (features.grad[~valid] == 0).all()
    assert torch.isfinite(features.grad).all()
    assert (features.grad[valid] != 0).any(dim=-1).all()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_batch_without_any_valid_frame_gives_zeros_and_finite_gradients(head):
    features, valid = torch.randn(2, 5, D), torch.zeros(2, 5, dtype=torch.bool)
    out = outputs(head.train(), features, valid)
    assert (out[0] == 0).all()
    if head.learns:
        sum(x.sum() for x in out).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in head.parameters())


def test_windows_do_not_influence_each_other(head, window):
    features, valid = window
    together = head(features, valid)
    for i in range(len(features)):
        torch.testing.assert_close(head(features[i : i + 1], valid[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-6)


def test_framewise_says_whether_neighbours_matter(head, window):
    features, _ = window
    valid = torch.ones(features.shape[:2], dtype=torch.bool)
    changed = features.clone()
    changed[:, 20] += 1
    differs = (head(changed, valid) != head(features, valid)).any(-1)
    if head.pools:
        assert differs.all()
        return
    assert differs[:, 20].all()
    others = torch.arange(T) != 20
    assert differs[:, others].any().item() is not head.framewise


def test_a_head_in_eval_mode_gives_the_same_twice(head, window):
    for x, y in zip(outputs(head, *window), outputs(head, *window), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_head_in_training_follows_the_seed_and_drops_something(variant, window):
    name, options = VARIANTS[variant]
    head, found = made(name, **options).train(), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(head(*window))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    drops = any(isinstance(m, Dropout) and m.p > 0 for m in head.modules())
    assert drops is (variant not in ("identity", "peterson", "original"))
    assert torch.equal(found[0], found[2]) is not drops


def test_features_stored_in_half_precision_are_taken(head, window):
    features, valid = window
    found, expected = outputs(head, features.half(), valid), outputs(head, features.half().float(), valid)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_a_head_runs_under_autocast(head, window):
    features, valid = window
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = outputs(head, features, valid)
    assert (found[0][~where_embedded(head, valid)] == 0).all()
    if head.learns:
        sum(out.float().sum() for out in found).backward()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    for x, y in zip(found, outputs(head, features, valid), strict=True):
        torch.testing.assert_close(x.float(), y, rtol=0.1, atol=0.1)


def test_a_window_of_one_frame_is_enough(head):
    embeddings = head(torch.randn(2, 1, D), torch.tensor([[True], [False]]))
    assert embeddings.shape == ((2, head.embedding_size) if head.pools else (2, 1, head.embedding_size))
    assert (embeddings[0] != 0).any()
    assert (embeddings[1] == 0).all()


# --- one channel, one weight


def test_peterson_starts_with_the_features_themselves_and_weighs_each_channel(window):
    features, valid = window
    head = Peterson(D)
    torch.testing.assert_close(head(features, valid), build_head("identity", D)(features, valid), rtol=0, atol=0)
    head.weight.data = torch.tensor([2.0, -3.0, 0.0, 0.5])
    expected = features * torch.tensor([2.0, 3.0, 0.0, 0.5]) * valid.unsqueeze(-1)
    torch.testing.assert_close(head(features, valid), expected)


def test_a_weight_of_peterson_never_turns_negative_and_leaves_zero_again():
    head = Peterson(2)
    features, valid = torch.tensor([[[1.0, 1.0]]]), torch.ones(1, 1, dtype=torch.bool)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.7)
    seen = []
    for aim in (0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0):  # steps that overshoot zero, then a way back
        optimizer.zero_grad()
        (head(features, valid) - aim).square().sum().backward()
        optimizer.step()
        seen.append(head(features, valid)[0, 0])
    assert (torch.stack(seen) >= 0).all()
    assert (seen[-1] > 1.5).all()


# --- original and tcn


def test_the_original_is_the_published_adapter():
    head = Original(D)
    features = torch.randn(2, 3, D)
    assert [tuple(p.shape) for p in head.parameters()] == [(1024, D)]
    expected = torch.einsum("btd,ed->bte", features, head.linear.weight).clamp(min=0)
    torch.testing.assert_close(head(features, torch.ones(2, 3, dtype=torch.bool)), expected)


def test_the_tcn_is_the_formula_of_ms_tcn(window):
    torch.manual_seed(0)
    head = TCN(D, E, num_layers=2).eval()
    features, valid = window[0][1], window[1][1]
    hidden = [features[t] @ head.project_in.weight.T + head.project_in.bias for t in range(T)]
    for layer, d in zip(head.layers, (1, 2), strict=True):
        following = []
        for t in range(T):
            total = layer.dilated.bias
            for k in (-1, 0, 1):
                s = t + k * d
                if 0 <= s < T and valid[s]:  # a frame that is not there adds nothing
                    total = total + layer.dilated.weight[:, :, k + 1] @ hidden[s]
            following.append(hidden[t] + layer.pointwise.weight[:, :, 0] @ total.relu() + layer.pointwise.bias)
        hidden = following
    expected = torch.stack([h @ head.project_out.weight.T + head.project_out.bias for h in hidden])
    torch.testing.assert_close(head(features[None], valid[None])[0][valid], expected[valid], rtol=1e-4, atol=1e-5)


def test_the_tcn_sees_its_receptive_field_and_no_more(window):
    torch.manual_seed(0)
    head, valid = TCN(D, E).eval(), torch.ones(B, T, dtype=torch.bool)
    changed = window[0].clone()
    changed[:, 20] += 1
    differs = (head(changed, valid) - head(window[0], valid)).abs().amax(-1) > 1e-6
    assert head.receptive_field == 15
    assert (differs == ((torch.arange(T) - 20).abs() <= 7)).all()


def test_the_tcn_drops_channels_of_a_whole_window_in_training():
    torch.manual_seed(0)
    head = TCN(D, E, dropout=0.5, num_layers=1)
    hidden = torch.ones(T, B, E)
    change = head.layers[0](hidden) - hidden
    dropped = (change == 0).all(dim=0)
    assert torch.equal(dropped, (change == 0).any(dim=0))
    assert 0.2 < dropped.float().mean() < 0.8


@pytest.mark.parametrize("dilation", [1, 4, 7, 16])  # in windows of 7: the last two see nothing but the frame itself
def test_the_dilated_convolution_of_the_tcn_is_that_of_pytorch(dilation):
    torch.manual_seed(0)
    made = [torch.randn(7, 2, 3), torch.randn(3, 3, 3), torch.randn(3)]
    found, expected = ([value.double().requires_grad_() for value in made] for _ in range(2))
    ours = _Dilated.apply(*found, dilation)
    hidden, weight, bias = expected
    theirs = F.conv1d(hidden.permute(1, 2, 0), weight, bias, padding=dilation, dilation=dilation).relu()
    torch.testing.assert_close(ours, theirs.permute(2, 0, 1))
    grad = torch.randn(7, 2, 3, dtype=torch.float64)
    ours.backward(grad)
    theirs.permute(2, 0, 1).backward(grad)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", pooling.POOLINGS)
def test_a_window_that_the_tcn_pools_early_is_the_mean_of_its_frames(window, name):
    head, pool = made("tcn"), pooling.POOLINGS[name]
    for training in (False, True):  # in training both drop the same channels
        head.train(training)
        torch.manual_seed(3)
        expected = pool(head(*window), window[1])
        torch.manual_seed(3)
        torch.testing.assert_close(head.pooled(*window, pool), expected, rtol=1e-4, atol=1e-6)


def test_the_tcn_is_the_same_under_autocast_which_takes_the_convolution_of_pytorch(window):
    head = made("tcn").eval()
    expected = head.pooled(*window, pooling.mean)
    with torch.autocast("cpu", torch.bfloat16):
        found = head.pooled(*window, pooling.mean)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02)
    found.float().square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


def test_the_tcn_takes_padding_for_the_end_of_the_video(window):
    head, features = TCN(D, E).eval(), window[0]
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, 30:] = False
    short = head(features[:, :30], valid[:, :30])
    torch.testing.assert_close(head(features, valid)[:, :30], short)


# --- gru


def gru_by_torch(head, features):
    """(t, D) frames that are all there -> (t, E), by torch on a single sequence."""
    return head.project_out(head.gru(features[None])[0])[0]


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_gru_sees_the_valid_frames_and_nothing_else(window, num_layers):
    head = made("gru", num_layers=num_layers).eval()
    for features, valid, embeddings in zip(*window, head(*window), strict=True):
        if valid.any():
            torch.testing.assert_close(embeddings[valid], gru_by_torch(head, features[valid]), rtol=1e-4, atol=1e-6)


def test_the_gru_looks_both_ways():
    head, valid = made("gru").eval(), torch.ones(1, T, dtype=torch.bool)
    features = torch.randn(1, T, D)
    changed = features.clone()
    changed[:, 20] += 1
    differs = (head(changed, valid) != head(features, valid)).any(-1)[0]
    assert differs[19]
    assert differs[21]


def test_a_gru_of_one_unit_is_the_formula():
    torch.manual_seed(0)
    head = GRU(1, 1).eval()
    features = torch.tensor([0.5, -1.0, 2.0])

    def steps(frames, suffix):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, u, b, c = (getattr(head.gru, f"{name}_l0{suffix}").flatten() for name in names)
        h, out = torch.zeros(()), []
        for x in frames:
            reset = torch.sigmoid(w[0] * x + b[0] + u[0] * h + c[0])
            update = torch.sigmoid(w[1] * x + b[1] + u[1] * h + c[1])
            proposed = torch.tanh(w[2] * x + b[2] + reset * (u[2] * h + c[2]))
            h = (1 - update) * proposed + update * h
            out.append(h)
        return torch.stack(out)

    both = torch.stack([steps(features, ""), steps(features.flip(0), "_reverse").flip(0)], dim=1)
    expected = both @ head.project_out.weight.T + head.project_out.bias
    found = head(features.view(1, 3, 1), torch.ones(1, 3, dtype=torch.bool))[0]
    torch.testing.assert_close(found, expected)


# --- transformer


def transformer_by_torch(head, features, valid):
    """The same weights in torch's own encoder layers, on windows that each have a valid frame."""
    heads = head.layers[0].num_heads
    hidden, added = head.project_in(features), torch.zeros(len(features) * heads, T, T)
    if head.positions == "sinusoidal":
        hidden = hidden + sinusoids(T, head.embedding_size)
    else:
        for i in range(T):
            for j in range(T):
                distance = max(-head.max_distance, min(j - i, head.max_distance))
                added[:, i, j] = head.distance_logits[:, distance + head.max_distance].repeat(len(features))
    for ours in head.layers:
        layer = nn.TransformerEncoderLayer(
            E, heads, 4 * E, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": ours.queries_keys_values.weight,
                "self_attn.in_proj_bias": ours.queries_keys_values.bias,
                "self_attn.out_proj.weight": ours.attention_out.weight,
                "self_attn.out_proj.bias": ours.attention_out.bias,
                "norm1.weight": ours.attention_norm.weight,
                "norm1.bias": ours.attention_norm.bias,
                "norm2.weight": ours.feedforward[0].weight,
                "norm2.bias": ours.feedforward[0].bias,
                "linear1.weight": ours.feedforward[1].weight,
                "linear1.bias": ours.feedforward[1].bias,
                "linear2.weight": ours.feedforward[3].weight,
                "linear2.bias": ours.feedforward[3].bias,
            }
        )
        absent = torch.zeros(valid.shape).masked_fill(~valid, -math.inf)
        hidden = layer(hidden, src_mask=added, src_key_padding_mask=absent)
    return head.project_out(head.norm(hidden))


@pytest.mark.parametrize("options", [{}, {"max_distance": 5}, {"positions": "sinusoidal", "num_heads": 2}])
def test_the_transformer_is_the_one_of_torch(window, options):
    head = made("transformer", **options).eval()
    for p in head.parameters():  # norms of one and biases of zero would hide a mistake
        p.data += 0.1 * torch.randn_like(p)
    features, valid = window[0][:-1], window[1][:-1]
    expected = transformer_by_torch(head, features, valid)
    torch.testing.assert_close(head(features, valid)[valid], expected[valid], rtol=1e-4, atol=1e-5)


def test_relative_positions_are_the_same_wherever_the_frames_stand():
    head, features = made("transformer").eval(), torch.randn(1, T, D)
    valid = torch.ones(1, T, dtype=torch.bool)
    valid[:, 30:] = False
    moved = head(features.roll(7, 1), valid.roll(7, 1))
    torch.testing.assert_close(moved.roll(-7, 1), head(features, valid), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positions", ["relative", "sinusoidal"])
def test_the_transformer_knows_the_order_of_frames(positions):
    head, features = made("transformer", positions=positions).eval(), torch.randn(1, 5, D)
    valid = torch.ones(1, 5, dtype=torch.bool)
    turned = head(features.flip(1), valid).flip(1)
    assert (turned - head(features, valid)).abs().max() > 1e-3


def test_the_sinusoids_are_those_of_the_paper():
    found = sinusoids(7, 6)
    for t in range(7):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert found[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_the_transformer_has_four_layers_and_four_heads_unless_told():
    head = Transformer(D, E)
    assert (len(head.layers), head.layers[0].num_heads, head.positions) == (4, 4, "relative")


# --- attention pool


def test_the_attention_pool_is_the_formula(window):
    head = made("attention_pool").eval()
    for features, valid, embedding in zip(*window, head(*window), strict=True):
        if not valid.any():
            continue
        hidden = [head.layers(x) for x in features[valid]]
        v, w = head.attention[0].weight, head.attention[2].weight[0]
        shares = torch.stack([torch.exp(w @ torch.tanh(v @ h)) for h in hidden])
        pooled = sum(s * h for s, h in zip(shares / shares.sum(), hidden, strict=True))
        torch.testing.assert_close(embedding, head.project_out(pooled), rtol=1e-4, atol=1e-6)


def test_the_attention_pool_does_not_care_for_order_and_can_pick_one_frame():
    head, features = AttentionPool(D, E).eval(), torch.randn(1, T, D)
    valid = torch.ones(1, T, dtype=torch.bool)
    torch.testing.assert_close(head(features, valid), head(features.flip(1), valid))
    head.attention[2].weight.data *= 1e4
    logits = head.attention(head.layers(features))[0, :, 0]
    alone = head(features[:, logits.argmax()][:, None], valid[:, :1])
    torch.testing.assert_close(head(features, valid), alone)


# --- pair gate


def pairs_of_windows(num_pairs=6):
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(2, num_pairs, T, D, generator=generator)
    left_valid, right_valid = torch.rand(2, num_pairs, T, generator=generator) > 0.3
    return left, left_valid, right, right_valid


def test_the_pair_gate_is_the_formula():
    head = made("pair_gate", most=0.2, scale=7.0).eval()
    head.bias.data.fill_(-1.5)
    left, left_valid, right, right_valid = pairs_of_windows()
    for i, logit in enumerate(head.pair(left, left_valid, right, right_valid)):
        a, b = left[i][left_valid[i]].mean(0), right[i][right_valid[i]].mean(0)
        hidden = F.gelu(head.gate[0].weight @ torch.cat([a + b, (a - b).abs()]) + head.gate[0].bias)
        g = 0.2 / (1 + torch.exp(-(head.gate[2].weight @ hidden + head.gate[2].bias)))
        weight, offset = head.project[1].weight, head.project[1].bias
        p, q = weight @ ((1 - g) * a + g * b) + offset, weight @ ((1 - g) * b + g * a) + offset
        expected = 7.0 * (p @ q) / (p.norm() * q.norm()) - 1.5
        torch.testing.assert_close(logit, expected, rtol=1e-4, atol=1e-5)


def test_the_sides_of_a_pair_may_be_swapped():
    head = made("pair_gate").eval()
    left, left_valid, right, right_valid = pairs_of_windows()
    forth, back = head.pair(left, left_valid, right, right_valid), head.pair(right, right_valid, left, left_valid)
    torch.testing.assert_close(forth, back)


def test_the_sides_of_a_pair_may_differ_in_length():
    head = made("pair_gate").eval()
    left, left_valid, right, right_valid = pairs_of_windows()
    left_valid[:, 9:] = False
    short = head.pair(left[:, :9], left_valid[:, :9], right, right_valid)
    torch.testing.assert_close(short, head.pair(left, left_valid, right, right_valid))


def test_the_gate_moves_features_but_never_so_many_that_the_sides_are_equal():
    head = made("pair_gate").eval()
    a, b = torch.randn(2, 50, D)
    moved_a, moved_b = head.exchange(a, b)
    torch.testing.assert_close(moved_a + moved_b, a + b)
    assert ((moved_a - a).abs() > 0).all()
    for open_gate in (0.0, 1e4):  # as it starts, and wide open
        head.gate[2].bias.data.fill_(open_gate)
        moved_a, moved_b = head.exchange(a, b)
        assert ((moved_a - moved_b).abs() >= 0.5 * (a - b).abs() * (1 - 1e-4)).all()
    torch.testing.assert_close(moved_a - moved_b, 0.5 * (a - b))


def test_a_window_has_the_embedding_of_the_window_gated_with_itself():
    head = made("pair_gate").eval()
    features, valid, *_ = pairs_of_windows()
    a, b = head.exchange(pooling.mean(features, valid), pooling.mean(features, valid))
    torch.testing.assert_close(head(features, valid), head.project(a))
    torch.testing.assert_close(head(features, valid), head.project(b))
    torch.testing.assert_close(head.pair(features, valid, features, valid), torch.full((6,), 10.0))


def test_a_side_without_any_frame_gives_the_bias_alone():
    head = made("pair_gate").eval()
    head.bias.data.fill_(-2.5)
    left, left_valid, right, right_valid = pairs_of_windows()
    left_valid[0] = right_valid[1] = left_valid[2] = right_valid[2] = False
    logits = head.pair(left, left_valid, right, right_valid)
    assert logits[:3].tolist() == [-2.5] * 3
    assert (logits[3:] != -2.5).all()


def test_the_pair_gate_learns_who_is_the_same_and_tells_strangers_apart():
    """Two classes whose sign of the first channel differs, among D channels of louder noise."""
    generator = torch.Generator().manual_seed(4)
    kinds = torch.randint(0, 2, (2, 2000), generator=generator)
    sides = 2 * torch.randn(2, 2000, 1, D, generator=generator)
    sides[..., 0] = (2.0 * kinds - 1).unsqueeze(-1)
    same, valid = (kinds[0] == kinds[1]), torch.ones(1000, 1, dtype=torch.bool)
    torch.manual_seed(0)
    head = PairGate(D, E)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(60):
        logits = head.pair(sides[0, :1000], valid, sides[1, :1000], valid)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, same[:1000].float()).backward()
        optimizer.step()
    held_out = head.eval().pair(sides[0, 1000:], valid, sides[1, 1000:], valid) > 0
    assert (held_out == same[1000:]).float().mean() > 0.97


def test_the_gate_over_places_is_the_formula():
    """Ilse et al. 2018, equation 9, cell by cell, where column c * 9 + place is channel c at that place."""
    head = PairGate(3 * 9, E, grid=3).eval()
    features, valid = torch.randn(2, 4, 27, generator=torch.Generator().manual_seed(6)), torch.ones(2, 4).bool()
    valid[0, 1:3] = False
    expected = torch.zeros(2, 3)
    for b, t in valid.nonzero().tolist():
        cells = [features[b, t, place::9] for place in range(9)]
        score = [
            head.weight.weight[0] @ (torch.tanh(head.content(x)) / (1 + torch.exp(-head.openness(x)))) for x in cells
        ]
        share = torch.stack(score).exp() / torch.stack(score).exp().sum()
        expected[b] += sum(s * x for s, x in zip(share, cells, strict=True)) / valid[b].sum()
    vector, there = head.side(features, valid)
    torch.testing.assert_close(vector, expected)
    assert there.all()


def test_behind_a_gate_over_places_it_does_not_matter_where_a_thing_lies():
    head = PairGate(3 * 9, E, grid=3).eval()
    features, valid = torch.randn(5, 2, 27), torch.rand(5, 2) > 0.3
    moved = features.unflatten(-1, (3, 9))[..., torch.randperm(9)].flatten(-2)
    torch.testing.assert_close(head(features, valid), head(moved, valid))


def test_padding_changes_nothing_behind_a_gate_over_places():
    head = PairGate(3 * 9, E, grid=3).eval()
    features, valid = torch.randn(4, 5, 27), torch.rand(4, 5) > 0.5
    valid[0] = False
    out = head(features, valid)
    features[~valid] = torch.nan
    torch.testing.assert_close(head(features, valid), out)
    assert (out[0] == 0).all()


def test_a_gate_over_places_finds_a_small_thing_anywhere_of_which_a_mean_over_places_shows_little():
    """One of 25 cells says the class, by the sign of a channel; 300 pairs to learn from, others to be told apart."""
    generator = torch.Generator().manual_seed(7)
    kinds, place = (torch.randint(0, most, (2, 1300), generator=generator) for most in (2, 25))
    cells = torch.randn(2, 1300, D, 25, generator=generator)
    side, pair = torch.arange(2)[:, None], torch.arange(1300)
    cells[side, pair, 0, place], cells[side, pair, 1, place] = (2.0 * kinds - 1) * 3, torch.tensor(5.0)
    valid, same = torch.ones(1300, 1, dtype=torch.bool), kinds[0] == kinds[1]
    right = {}
    for grid in (5, 1):
        torch.manual_seed(0)
        features = (cells.flatten(2) if grid > 1 else cells.mean(-1)).unsqueeze(2)
        head = PairGate(features.shape[-1], E, grid=grid)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
        for _ in range(80):
            logits = head.pair(features[0, :300], valid[:300], features[1, :300], valid[:300])
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits, same[:300].float()).backward()
            optimizer.step()
        held_out = head.eval().pair(features[0, 300:], valid[300:], features[1, 300:], valid[300:]) > 0
        right[grid] = float((held_out == same[300:]).float().mean())
    assert right[5] > 0.97
    assert right[1] < 0.8


# --- from frames to windows, and by name


def test_pooling_is_the_mean_over_valid_frames():
    embeddings = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [float("nan")] * 2], [[9.0, 9.0]] * 3], requires_grad=True)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    pooled = pooling.mean(embeddings, valid)
    assert pooled.tolist() == [[2.0, 3.0], [0.0, 0.0]]
    pooled.sum().backward()
    assert embeddings.grad[..., 0].tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_hann_pooling_weights_the_valid_frames_by_scipys_window():
    embeddings = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 7, [False, False, True, True, True, False, True], [False] * 7])
    weights = torch.from_numpy(scipy.signal.windows.hann(9)[1:-1]).float()  # without the two zeros at its ends
    expected = [
        sum(w * e for w, e, v in zip(weights, row, there, strict=True) if v) / max(weights[there].sum(), 1e-9)
        for row, there in zip(embeddings, valid, strict=True)
    ]
    embeddings[1, 0] = float("nan")
    pooled = pooling.hann(embeddings, valid)
    assert torch.allclose(pooled[:2], torch.stack(expected[:2]), atol=1e-6)
    assert pooled[2].tolist() == [0.0, 0.0]
    assert torch.equal(pooling.hann(embeddings[:, 2:3], valid[:, 2:3]), pooling.mean(embeddings[:, 2:3], valid[:, 2:3]))


def test_hann_pooling_of_noise_moves_less_from_frame_to_frame_than_a_mean_of_as_many_frames():
    noise = torch.randn(1, 1000, 8, generator=torch.Generator().manual_seed(0))
    windows = noise.unfold(1, 31, 1)[0].transpose(1, 2)
    valid = torch.ones(windows.shape[:2], dtype=torch.bool)
    moved = {of: of(windows, valid).diff(dim=0).square().mean() for of in (pooling.mean, pooling.hann)}
    assert moved[pooling.hann] < 0.4 * moved[pooling.mean]


@pytest.mark.parametrize(("num_frames", "place"), [(1, 0), (4, 2), (5, 2)])
def test_the_centre_is_the_frame_that_the_window_was_made_around(num_frames, place):
    embeddings = torch.arange(num_frames).view(1, -1, 1)
    assert pooling.centre(embeddings, torch.ones(1, num_frames, dtype=torch.bool)).tolist() == [[place]]


def test_a_wrong_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"head 'mpl' is not one of \[.*'identity', 'mlp', .*\(did you mean 'mlp'\?\)"):
        build_head("mpl", D, E, 0.0)


def test_an_mlp_has_a_hidden_layer_of_its_own_size_and_drops_features_in_training_alone():
    head = build_head("mlp", D, E, 0.0, hidden_size=7, input_dropout=0.5)
    assert [tuple(layer.weight.shape) for layer in (head.layers[0], head.layers[-1])] == [(7, D), (E, 7)]
    seen = []
    head.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, -2)))
    frames, valid = torch.rand(400, 1, D) + 1, torch.ones(400, 1, dtype=torch.bool)
    for way in (
        lambda: head.pooled(frames, valid, pooling.mean),
        lambda: head.pooled_frames(frames[:, 0], torch.arange(400)[:, None], pooling.mean),
    ):
        head.train()
        way()
        dropped = seen[-1] == 0
        assert 0.4 < dropped.float().mean() < 0.6
        assert torch.allclose(seen[-1][~dropped], 2 * frames[:, 0][~dropped])
        head.eval()
        way()
        assert torch.equal(seen[-1], frames[:, 0])


def test_none_is_the_default_of_the_head():
    assert build_head("original", D).embedding_size == 1024


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mlp", {}, "'mlp' needs embedding_size"),
        ("mlp", {"embedding_size": 0}, "embedding_size must be at least 1"),
        ("mlp", {"embedding_size": E, "hidden_size": 0}, "'mlp': hidden_size must be a whole number from 1 to 65,536"),
        ("mlp", {"embedding_size": E, "input_dropout": 1.0}, r"'mlp': input_dropout must be a number in \[0, 1\)"),
        ("tcn", {"embedding_size": E, "dropout": 1.0}, r"dropout must be in \[0, 1\), and is 1.0"),
        (
            "tcn",
            {"embedding_size": E, "num_layers": 0},
            "'tcn': num_layers must be a whole number from 1 to 1,000",
        ),
        ("tcn", {"embedding_size": E, "num_layers": 64}, "'tcn': num_layers must be at most 20, and is 64"),
        ("gru", {"embedding_size": E, "num_layers": 10**9}, "'gru': num_layers must be a whole number .* is 10{9}"),
        ("gru", {"embedding_size": E, "num_layers": "two"}, "'gru': num_layers must be a whole number .* is 'two'"),
        ("transformer", {"embedding_size": E, "max_distance": 1.5}, "max_distance must be a whole number"),
        ("transformer", {"embedding_size": E, "num_layers": True}, "num_layers must be a whole number"),
        ("transformer", {"embedding_size": 18}, "embedding_size 18 is not a multiple of num_heads 4"),
        (
            "transformer",
            {"embedding_size": E, "positions": "abs"},
            "'relative' or 'sinusoidal', and is 'abs",
        ),
        (
            "transformer",
            {"embedding_size": 5, "num_heads": 1, "positions": "sinusoidal"},
            "need an even embedding_size, and it is 5",
        ),
        ("peterson", {"input_dropout": 1}, r"'peterson': input_dropout must be a number in \[0, 1\), and is 1"),
        ("original", {"input_dropout": "0.1"}, "input_dropout must be a number .* is '0.1'"),
        ("pair_gate", {"embedding_size": E, "most": 0.5}, r"most must be a number in \[0, 0.5\), and is 0.5"),
        ("pair_gate", {"embedding_size": E, "scale": math.nan}, "scale must be a number"),
        ("pair_gate", {"embedding_size": E, "grid": 7}, f"{D} features are not those of a grid of 7 x 7 cells"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, values, message):
    with pytest.raises(UserError, match=message):
        build_head(name, D, **values)


def test_an_option_that_the_head_does_not_take_is_refused_with_those_it_takes():
    with pytest.raises(UserError, match=r"head 'tcn': option 'layers' is not one of \['num_layers'\]"):
        build_head("tcn", D, E, layers=2)
    with pytest.raises(UserError, match=r"head 'transformer': option 'num_layer' .*did you mean 'num_layers'"):
        build_head("transformer", D, E, num_layer=2)
    with pytest.raises(UserError, match=r"head 'identity': option 'num_layers' is not one of \[\]"):
        build_head("identity", D, E, num_layers=2)


def test_an_option_reaches_the_head_and_none_is_its_default():
    assert len(build_head("transformer", D, E, num_layers=2).layers) == 2
    assert len(build_head("transformer", D, E, num_layers=None).layers) == 4


# --- dropout


def drawn(dropout, *shape, seed=7):
    """What is left of ones (shape), and the draws (numel,) uint16 of a Mersenne Twister that is not torch's."""
    torch.manual_seed(seed)
    left = dropout(torch.ones(shape))
    words = np.frombuffer(np.random.RandomState(seed).bytes(2 * left.numel() + 8), dtype="<u4")
    words = words[: len(words) // 2 * 2].reshape(-1, 2)[:, ::-1]  # of two the first is the upper half
    return left, np.ascontiguousarray(words).view("<u2").reshape(-1)[: left.numel()]


@pytest.mark.parametrize("p", [0.001, 0.3, 0.5, 0.9])
def test_dropout_follows_from_the_seed_alone_whatever_the_processor(p):
    left, draws = drawn(Dropout(p), 50, 7, 11)
    kept = draws.view("<i2") >= round(p * 65536) - 32768  # as signed numbers
    np.testing.assert_array_equal(left.flatten().numpy() > 0, kept)
    assert left.max() == pytest.approx(1 / (1 - p), rel=1e-4)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.75])
def test_dropout_drops_its_share_and_leaves_the_mean_at_each_of_the_places_that_share_a_draw(p):
    torch.manual_seed(0)
    left = Dropout(p)(torch.ones(100_000, 4))
    assert (left == 0).float().mean(dim=0) == pytest.approx([p] * 4, abs=0.006)
    assert left.mean(dim=0) == pytest.approx([1] * 4, abs=0.03)
    pairs = ((left[:, 0] == 0) & (left[:, 1] == 0)).float().mean()
    assert pairs == pytest.approx(p * p, abs=0.006)  # they are independent


def test_the_gradient_of_dropout_is_what_it_multiplied_by():
    torch.manual_seed(0)
    values = torch.randn(3, 5, 8, requires_grad=True)
    out = Dropout(0.4)(values)
    out.sum().backward()
    torch.testing.assert_close(out, values * values.grad)
    assert values.grad.unique().tolist() == [0.0, pytest.approx(1 / 0.6, rel=1e-4)]


def test_dropout_does_nothing_in_evaluation_or_at_0_and_leaves_the_random_state():
    values, before = torch.randn(3, 8), torch.get_rng_state()
    assert Dropout(0.4).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_next_to_1_drops_almost_all_and_stays_finite():
    left = Dropout(0.9999999)(torch.ones(1000))
    assert left.isfinite().all()
    assert (left == 0).sum() > 990


# --- windows at once


@pytest.mark.parametrize("pooling_name", pooling.POOLINGS)
@pytest.mark.parametrize("name", [name for name in HEADS if HEADS[name].learns and not HEADS[name].pools])
def test_a_pooled_window_is_the_pooling_of_its_frames_and_so_are_the_gradients(name, pooling_name, window):
    """In training too: with the same random state dropout is the same."""
    features, valid = window
    features[~valid] = math.nan
    pool, head = pooling.POOLINGS[pooling_name], made(name)
    found = {}
    for way in ("slow", "fast"):
        torch.manual_seed(3)
        head.zero_grad()
        out = pool(head(features, valid), valid) if way == "slow" else head.pooled(features, valid, pool)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found[way] = [out.detach(), *(p.grad for p in head.parameters() if p.grad is not None)]
    assert len(found["slow"]) == len(found["fast"])
    for slow, fast in zip(found["slow"], found["fast"], strict=True):
        torch.testing.assert_close(slow, fast, atol=1e-5, rtol=1e-4)
    assert (found["fast"][0][3] == 0).all()  # a window without any frame


@pytest.mark.parametrize("name", [name for name in HEADS if HEADS[name].frames_once])
def test_windows_of_frames_that_are_there_once_are_those_of_frames_that_are_repeated(name):
    frames, pool = torch.randn(9, D, generator=torch.Generator().manual_seed(1)), pooling.mean
    place = torch.tensor([[0, 1, 2, 3], [2, 3, 4, -1], [8, 8, 8, 8], [-1, -1, -1, -1]])
    valid, head, found = place >= 0, made(name), {}
    for way in ("repeated", "once"):
        torch.manual_seed(3)
        head.zero_grad()
        repeated = frames[place.clamp(min=0)] * valid[..., None]
        out = head.pooled(repeated, valid, pool) if way == "repeated" else head.pooled_frames(frames, place, pool)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found[way] = [out.detach(), *(p.grad for p in head.parameters())]
    for repeated, once in zip(found["repeated"], found["once"], strict=True):
        torch.testing.assert_close(repeated, once, atol=1e-6, rtol=1e-5)
