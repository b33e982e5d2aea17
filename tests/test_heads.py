import pytest
import torch

from pipeline.params import UserError
from pipeline.training.heads import HEADS, TCN, Identity, Original, build_head, centre, pool

B, T, D, E = 3, 40, 4, 16


@pytest.fixture(params=sorted(HEADS))
def head(request):
    torch.manual_seed(0)
    return build_head(request.param, D, E, dropout=0.3).eval()


@pytest.fixture
def window():
    """Features and ``valid``: one window full, one with holes and edges missing, one of a single frame."""
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, :9] = valid[1, 20] = valid[1, 33:] = False
    valid[2] = torch.arange(T) == T // 2
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(1)), valid


def test_a_head_gives_an_embedding_for_each_frame(head, window):
    embeddings = head(*window)
    assert head.num_features == D
    assert head.embedding_size == (D if isinstance(head, Identity) else E)
    assert embeddings.shape == (B, T, head.embedding_size)
    assert embeddings.dtype == torch.float32


def test_padded_frames_change_nothing_and_give_zeros(head, window):
    features, valid = window
    for filling in (100.0, float("nan")):
        filled = features.masked_fill(~valid.unsqueeze(-1), filling)
        torch.testing.assert_close(head(filled, valid), head(features, valid), rtol=0, atol=0)
        assert (head(filled, valid)[~valid] == 0).all()


def test_padded_frames_leave_the_gradients_finite(head, window):
    features, valid = window
    features = features.masked_fill(~valid.unsqueeze(-1), float("nan")).requires_grad_()
    head(features, valid).square().sum().backward()
    assert (features.grad[~valid] == 0).all()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in head.parameters())


def test_framewise_says_whether_neighbours_matter(head, window):
    features, _ = window
    valid = torch.ones(B, T, dtype=torch.bool)
    changed = features.clone()
    changed[:, 20] += 1
    differs = (head(changed, valid) != head(features, valid)).any(-1)
    assert differs[:, 20].all()
    others = torch.arange(T) != 20
    assert differs[:, others].any().item() is not head.framewise


def test_a_head_in_eval_mode_gives_the_same_twice(head, window):
    torch.testing.assert_close(head(*window), head(*window), rtol=0, atol=0)


def test_features_stored_in_half_precision_are_taken(head, window):
    features, valid = window
    torch.testing.assert_close(head(features.half(), valid), head(features.half().float(), valid), rtol=0, atol=0)


def test_a_head_runs_under_autocast(head, window):
    features, valid = window
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = head(features, valid)
    assert (embeddings[~valid] == 0).all()
    torch.testing.assert_close(embeddings.float(), head(features, valid), rtol=0.1, atol=0.1)


def test_a_window_of_one_frame_is_enough(head):
    embeddings = head(torch.randn(2, 1, D), torch.tensor([[True], [False]]))
    assert embeddings.shape == (2, 1, head.embedding_size)
    assert (embeddings[1] == 0).all()


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


def test_the_tcn_takes_padding_for_the_end_of_the_video(window):
    head, features = TCN(D, E).eval(), window[0]
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, 30:] = False
    short = head(features[:, :30], valid[:, :30])
    torch.testing.assert_close(head(features, valid)[:, :30], short)


def test_pooling_is_the_mean_over_valid_frames():
    embeddings = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [float("nan")] * 2], [[9.0, 9.0]] * 3], requires_grad=True)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    pooled = pool(embeddings, valid)
    assert pooled.tolist() == [[2.0, 3.0], [0.0, 0.0]]
    pooled.sum().backward()
    assert embeddings.grad[..., 0].tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("num_frames", "place"), [(1, 0), (4, 2), (5, 2)])
def test_the_centre_is_the_frame_that_the_window_was_made_around(num_frames, place):
    embeddings = torch.arange(num_frames).view(1, -1, 1)
    assert centre(embeddings).tolist() == [[place]]


def test_a_wrong_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"head 'mpl' is not one of \['identity', 'mlp', .*\(did you mean 'mlp'\?\)"):
        build_head("mpl", D, E, 0.0)


def test_none_is_the_default_of_the_head():
    assert build_head("original", D).embedding_size == 1024


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mlp", {}, "'mlp' needs embedding_size"),
        ("mlp", {"embedding_size": 0}, "embedding_size must be at least 1"),
        ("tcn", {"embedding_size": E, "dropout": 1.0}, r"dropout must be in \[0, 1\), and is 1.0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, values, message):
    with pytest.raises(UserError, match=message):
        build_head(name, D, **values)
