"""Heads, or adapters: features of windows (B, T, D), ``valid`` (B, T) -> embeddings.

One for each frame (B, T, E), or one for each window (B, E) where the head ``pools``. A frame where ``valid`` is False
never influences anything; its own embedding is zero, and so is that of a window without any valid frame. Embeddings are
not normalised: whoever compares them (loss, metric) does that. To add one: the class, a line in ``HEADS``, a test.
"""

import inspect
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.core.choices import build
from pipeline.core.params import UserError, one_of


class Head(nn.Module):
    """What is known of a head before it runs; D is ``num_features``, E ``embedding_size``."""

    framewise = False  # the embedding of a frame depends on that frame alone
    pools = False  # gives (B, E)
    # Has pair(left, left_valid, right, right_valid) -> logits (P,) of 'same', in two steps: side, then judge.
    pairs = False
    learns = True  # has weights
    source = ""

    def __init__(self, num_features: int, embedding_size: int):
        super().__init__()
        self.num_features, self.embedding_size = num_features, embedding_size
        self.num_channels = num_features  # of what a head for pairs compares


class Identity(Head):
    """The features themselves, float32: what the backbone gives without any adapter. E = D, nothing to learn.

    There is no projection, so an ``embedding_size`` asked of ``build_head`` is ignored: read it from the head.
    """

    framewise = True
    learns = False
    source = "the backbone alone"

    def __init__(self, num_features: int):
        super().__init__(num_features, num_features)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(features.float(), valid)


class Peterson(Head):
    """The features, each channel times a weight that is never negative and starts at 1. E = D.

    Peterson, Abbott, Griffiths, "Evaluating (and improving) the correspondence between deep neural networks and human
    representations", Cognitive Science 2018. Their similarity of features x and y is ``sum_k w_k x_k y_k``; here it is
    the dot product of embeddings, and w_k the square of the weight. The weight is the absolute value of what is
    learned: after a ReLU, a channel once at zero would get no gradient and stay there.

    As published it has no dropout, so a ``dropout`` asked of ``build_head`` is ignored; the option ``input_dropout`` is
    one on the features. An ``embedding_size`` is ignored too.
    """

    framewise = True
    source = "Peterson et al. 2018, https://arxiv.org/abs/1706.02417"

    def __init__(self, num_features: int, input_dropout: float = 0.0):
        super().__init__(num_features, num_features)
        _check_number(0, 1, input_dropout=input_dropout)
        self.dropout = nn.Dropout(input_dropout)
        self.weight = nn.Parameter(torch.ones(num_features))

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.dropout(mask(features.float(), valid)) * self.weight.abs()


class Original(Head):
    """ReLU(W x), no bias: the published adapter, at 1024 outputs.

    Risser-Maroix, Kurtz, Lomenie, "Learning an adaptation function to assess image visual similarities", ICIP 2021
    (https://github.com/VieVie31/visual-similarity). The cosine of two embeddings is never negative.

    As published it has no dropout, so a ``dropout`` asked of ``build_head`` is ignored; the option ``input_dropout`` is
    one on the features.
    """

    framewise = True
    source = "Risser-Maroix et al. 2021, https://arxiv.org/abs/2206.01417"

    def __init__(self, num_features: int, embedding_size: int = 1024, input_dropout: float = 0.0):
        super().__init__(num_features, embedding_size)
        _check_number(0, 1, input_dropout=input_dropout)
        self.dropout = nn.Dropout(input_dropout)
        self.linear = nn.Linear(num_features, embedding_size, bias=False)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(torch.relu(self.linear(self.dropout(mask(features.float(), valid)))), valid)


class MLP(Head):
    """Linear D -> E, LayerNorm, GELU, dropout, linear E -> E.

    LayerNorm and not BatchNorm: statistics over a batch would mix frames, padded ones among them, and a batch holds
    many near copies of one face.
    """

    framewise = True
    source = "LayerNorm: Ba et al. 2016, https://arxiv.org/abs/1607.06450"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0):
        super().__init__(num_features, embedding_size)
        self.layers = nn.Sequential(
            nn.Linear(num_features, embedding_size),
            nn.LayerNorm(embedding_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(embedding_size, embedding_size),
        )

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(self.layers(mask(features.float(), valid)), valid)


class TCN(Head):
    """Dilated residual convolutions over time: linear D -> E, ``num_layers`` layers of E channels, linear E -> E.

    One stage of MS-TCN (Farha and Gall, CVPR 2019, section 3.1, https://arxiv.org/abs/1903.01945), whose layer l is
    ``h + drop(W2 * ReLU(W1 *_d h))``: a convolution of width 3 and dilation d = 2^l, acausal, then one of width 1; the
    dropout is ours, of whole channels of a window. An embedding sees ``receptive_field`` = 2^(num_layers + 1) - 1
    frames, centred on its own: 15 with 3 layers. The mask is applied again after every layer, since biases would
    otherwise fill padded frames: they count as absent, exactly like the zeros beyond the window's ends.
    """

    source = "one stage of MS-TCN, Farha and Gall 2019, https://arxiv.org/abs/1903.01945"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0, num_layers: int = 3):
        super().__init__(num_features, embedding_size)
        _check_count(num_layers=num_layers)
        if num_layers > MOST_DILATED:
            raise ValueError(f"num_layers must be at most {MOST_DILATED}, and is {num_layers}: it sees no more frames")
        self.receptive_field = 2 ** (num_layers + 1) - 1
        self.project_in = nn.Linear(num_features, embedding_size)
        self.layers = nn.ModuleList(_DilatedResidual(embedding_size, 2**i, dropout) for i in range(num_layers))
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden = mask(self.project_in(mask(features.float(), valid)), valid)
        for layer in self.layers:
            hidden = mask(layer(hidden), valid)
        return mask(self.project_out(hidden), valid)


class _DilatedResidual(nn.Module):
    """(B, T, C) -> (B, T, C); the convolutions transpose inside."""

    def __init__(self, num_channels: int, dilation: int, dropout: float):
        super().__init__()
        self.dilated = nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(num_channels, num_channels, kernel_size=1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        change = self.pointwise(torch.relu(self.dilated(hidden.transpose(1, 2))))
        return hidden + self.dropout(change).transpose(1, 2)


class GRU(Head):
    """A bidirectional GRU of E units a direction over the valid frames, then dropout and linear 2E -> E.

    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP
    2014, in PyTorch's form (the reset gate after the recurrent product). Frames that are not valid are absent: both
    directions step from one valid frame to the next, over a gap of any length as over none. With ``num_layers`` above 1
    dropout sits between the layers too.
    """

    source = "Cho et al. 2014, https://arxiv.org/abs/1406.1078"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0, num_layers: int = 1):
        super().__init__(num_features, embedding_size)
        _check_count(num_layers=num_layers)
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(
            num_features, embedding_size, num_layers, batch_first=True, dropout=between, bidirectional=True
        )
        self.dropout = nn.Dropout(dropout)
        self.project_out = nn.Linear(2 * embedding_size, embedding_size)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        places = torch.argsort(~valid, dim=1, stable=True)  # of the valid frames, in their order, then of the others
        frames = _take(mask(features.float(), valid), places)
        lengths = valid.sum(dim=1).clamp(min=1).cpu()  # packing knows no empty sequence; the last mask empties it
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=valid.shape[1])
        hidden = _take(hidden, torch.argsort(places, dim=1))
        return mask(self.project_out(self.dropout(hidden)), valid)


class Transformer(Head):
    """Linear D -> E, pre-norm self-attention layers over the valid frames, LayerNorm, linear E -> E.

    A layer is ``h + drop(attention(norm(h)))``, then ``h + drop(W2 GELU(W1 norm(h)))`` with 4E hidden units (Vaswani et
    al., "Attention is all you need", NeurIPS 2017, https://arxiv.org/abs/1706.03762; the norms first as in Xiong et al.
    2020). Dropout ``drop`` sits there, and on the input once the positions are in it.

    ``positions``: 'relative', a learned number for each head and distance in frames, added to the logits of attention
    (Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683, but without their buckets: distances beyond
    ``max_distance`` count as that; zeros at the start); or 'sinusoidal', sines and cosines of the place in the window
    added to the input (Vaswani et al., section 3.5). Gaps keep their places: a frame after one is as far away as it is.

    Raises ``ValueError`` where E is not a multiple of ``num_heads``, or is odd with sinusoidal positions.
    """

    source = "Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; pre-norm: https://arxiv.org/abs/2002.04745"

    def __init__(
        self,
        num_features: int,
        embedding_size: int,
        dropout: float = 0.0,
        num_layers: int = 4,
        num_heads: int = 4,
        positions: str = "relative",
        max_distance: int = 64,
    ):
        super().__init__(num_features, embedding_size)
        _check_count(num_layers=num_layers, num_heads=num_heads, max_distance=max_distance)
        if embedding_size % num_heads:
            raise ValueError(f"embedding_size {embedding_size} is not a multiple of num_heads {num_heads}")
        if positions not in ("relative", "sinusoidal"):
            raise ValueError(f"positions must be 'relative' or 'sinusoidal', and is {positions!r}")
        if positions == "sinusoidal" and embedding_size % 2:
            raise ValueError(f"sinusoidal positions need an even embedding_size, and it is {embedding_size}")
        self.positions, self.max_distance = positions, max_distance
        self.project_in = nn.Linear(num_features, embedding_size)
        self.dropout = nn.Dropout(dropout)
        if positions == "relative":
            self.distance_logits = nn.Parameter(torch.zeros(num_heads, 2 * max_distance + 1))
        self.layers = nn.ModuleList(_AttentionLayer(embedding_size, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embedding_size)
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden = self.project_in(mask(features.float(), valid))
        if self.positions == "sinusoidal":
            hidden = hidden + sinusoids(hidden.shape[1], self.embedding_size, hidden.device)
        hidden = self.dropout(hidden)
        logits = self._added_logits(valid)
        for layer in self.layers:
            hidden = layer(hidden, logits)
        return mask(self.project_out(self.norm(hidden)), valid)

    def _added_logits(self, valid: torch.Tensor) -> torch.Tensor:
        """(B, heads or 1, T or 1, T): what attention from frame i to frame j has added; -inf where j is not valid."""
        seen = valid | ~valid.any(dim=1, keepdim=True)  # over no frame at all some kernels give NaN
        logits = torch.zeros(1, 1, 1, 1, device=valid.device)
        if self.positions == "relative":
            place = torch.arange(valid.shape[1], device=valid.device)
            distance = (place - place[:, None]).clamp(-self.max_distance, self.max_distance)
            logits = self.distance_logits[:, distance + self.max_distance].unsqueeze(0)
        return logits.masked_fill(~seen[:, None, None, :], -math.inf)


class _AttentionLayer(nn.Module):
    """(B, T, C), added logits (B, heads or 1, T or 1, T) -> (B, T, C)."""

    def __init__(self, num_channels: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(num_channels)
        self.queries_keys_values = nn.Linear(num_channels, 3 * num_channels)
        self.attention_out = nn.Linear(num_channels, num_channels)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(num_channels),
            nn.Linear(num_channels, 4 * num_channels),
            nn.GELU(),
            nn.Linear(4 * num_channels, num_channels),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        projected = self.queries_keys_values(self.attention_norm(hidden))
        queries, keys, values = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=logits.to(queries.dtype))
        hidden = hidden + self.dropout(self.attention_out(attended.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.feedforward(hidden))


class AttentionPool(Head):
    """One embedding a window: the frames' hidden vectors averaged by weights that are learned from them.

    A frame is linear D -> E, LayerNorm, GELU, dropout; its weight ``softmax_t(w . tanh(V h_t))`` over the valid frames
    (Ilse, Tomczak, Welling, "Attention-based deep multiple instance learning", ICML 2018, equations 7 and 8); the
    average goes through linear E -> E. The order of the frames does not matter.
    """

    pools = True
    source = "Ilse et al. 2018, eq. 7-8, https://arxiv.org/abs/1802.04712"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0):
        super().__init__(num_features, embedding_size)
        self.layers = nn.Sequential(
            nn.Linear(num_features, embedding_size), nn.LayerNorm(embedding_size), nn.GELU(), nn.Dropout(dropout)
        )
        self.attention = nn.Sequential(
            nn.Linear(embedding_size, embedding_size, bias=False), nn.Tanh(), nn.Linear(embedding_size, 1, bias=False)
        )
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden = mask(self.layers(mask(features.float(), valid)), valid)
        logits = self.attention(hidden).squeeze(-1).float()
        weights = logits.masked_fill(~valid, torch.finfo(logits.dtype).min).softmax(dim=1)  # -inf: NaN without a frame
        pooled = (weights.unsqueeze(-1) * hidden).sum(dim=1)
        return mask(self.project_out(pooled), valid.any(dim=1))


class PairGate(Head):
    """Two windows -> the logit that they show the same: a gate exchanges features, then a projection and a cosine.

    a and b (D) are the means over the valid frames of the two sides. A gate computed from both,
    ``g = most * sigmoid(W2 GELU(W1 [a + b, |a - b|]))``, is the share of each channel that changes sides:
    ``a' = a + g (b - a)`` and ``b' = b + g (a - b)``, a cross-stitch unit (Misra et al., CVPR 2016, equation 1) whose
    shares depend on the pair. The logit is ``scale * cos(P a', P b') + bias``: P is linear D -> E with dropout before
    it, scale and bias are learned. Swapping the sides changes nothing. In every channel at least ``1 - 2 most`` of the
    difference stays (half of it at the default): a ``most`` of 1/2 could make any two sides equal.

    A window gated with itself exchanges nothing: its embedding is P a, and retrieval compares those. A side without any
    valid frame has embedding zero, and the logit is then ``bias``.

    Features of a ``grid`` of cells (D = C * grid * grid, column c * grid * grid + place) first pass a gate over places:
    a frame is the mean of its cells x_p (C), weighted by ``softmax_p(w . (tanh(V x_p) * sigmoid(U x_p)))``, the gated
    attention of Ilse et al. 2018. All above is then of C channels. So a small thing counts wherever it lies.
    """

    pools = True
    pairs = True
    source = (
        "ours; the exchange is a gated cross-stitch unit, Misra et al. 2016, https://arxiv.org/abs/1604.03539, the "
        "gate over places that of Ilse et al. 2018, https://arxiv.org/abs/1802.04712"
    )

    def __init__(
        self, num_features: int, embedding_size: int, dropout: float = 0.0, grid: int = 1, most: float = 0.25,
        scale: float = 10.0,
    ):  # fmt: skip
        super().__init__(num_features, embedding_size)
        _check_number(0, 0.5, most=most)
        _check_number(0, math.inf, scale=scale)
        num_channels, rest = divmod(num_features, grid * grid)
        if rest:
            raise ValueError(f"{num_features} features are not those of a grid of {grid} x {grid} cells")
        self.most, self.grid, self.num_channels = most, grid, num_channels
        if grid > 1:
            self.content = nn.Linear(num_channels, embedding_size)
            self.openness = nn.Linear(num_channels, embedding_size)
            self.weight = nn.Linear(embedding_size, 1, bias=False)
        self.gate = nn.Sequential(
            nn.Linear(2 * num_channels, embedding_size), nn.GELU(), nn.Linear(embedding_size, num_channels)
        )
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_channels, embedding_size))
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        vector, there = self.side(features, valid)
        return mask(self.project(vector), there)

    def attend(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., C * grid * grid) -> (..., C) after the gate over places."""
        cells = features.unflatten(-1, (-1, self.grid * self.grid)).transpose(-1, -2)
        share = self.weight(torch.tanh(self.content(cells)) * torch.sigmoid(self.openness(cells))).softmax(dim=-2)
        return (share * cells).sum(dim=-2)

    def pair(
        self, left: torch.Tensor, left_valid: torch.Tensor, right: torch.Tensor, right_valid: torch.Tensor
    ) -> torch.Tensor:
        """Logits (P,) float32 of windows (P, T, D) and (P, S, D)."""
        return self.judge(*self.side(left, left_valid), *self.side(right, right_valid))

    def side(self, features: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All that ``judge`` is told of windows: (B, C), and whether there is anything (B,)."""
        frames = features.float()
        if self.grid > 1:
            pooled = frames.new_zeros(*valid.shape, self.num_channels)
            frames = pooled.masked_scatter(valid.unsqueeze(-1), self.attend(frames[valid]))  # padding costs nothing
        return pool(frames, valid), valid.any(dim=1)

    def judge(
        self, left: torch.Tensor, left_there: torch.Tensor, right: torch.Tensor, right_there: torch.Tensor
    ) -> torch.Tensor:
        """Logits (P,) float32 of what ``side`` gave for both: asked of many pairs, each window is pooled but once."""
        a, b = self.exchange(left, right)
        a, b = mask(self.project(a), left_there), mask(self.project(b), right_there)
        return self.scale * F.cosine_similarity(a.float(), b.float(), dim=-1) + self.bias

    def exchange(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, D) twice, after the gate."""
        share = self.most * torch.sigmoid(self.gate(torch.cat([a + b, (a - b).abs()], dim=-1)))
        moved = share * (b - a)
        return a + moved, b - moved


def sinusoids(num_frames: int, num_channels: int, device: torch.device | None = None) -> torch.Tensor:
    """(T, C) float32: ``sin(t / 10000^(2i/C))`` in channel 2i, the cosine in channel 2i + 1. C is even."""
    rates = torch.exp(torch.arange(0, num_channels, 2, device=device) * (-math.log(10000.0) / num_channels))
    angles = torch.arange(num_frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def mask(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(..., C) with zeros where ``valid`` (...) is False, NaN included; no gradient passes there."""
    return values.masked_fill(~valid.unsqueeze(-1), 0.0)


def _take(frames: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, T, C): frame ``places[b, t]`` of window b at t."""
    return frames.gather(1, places.unsqueeze(-1).expand(-1, -1, frames.shape[-1]))


def _check_count(**named: Any) -> None:
    for name, value in named.items():
        if type(value) is not int or not 1 <= value <= MOST:
            raise ValueError(f"{name} must be a whole number from 1 to {MOST:,}, and is {value!r}")


def _check_number(low: float, high: float, **named: Any) -> None:
    for name, value in named.items():
        if type(value) not in (int, float) or not low <= value < high:
            raise ValueError(f"{name} must be a number in [{low}, {high}), and is {value!r}")


def pool(embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The mean over the valid frames (B, E); zeros for a window that has none."""
    counts = valid.sum(dim=1, keepdim=True).clamp(min=1)
    return mask(embeddings, valid).sum(dim=1) / counts


def pool_hann(embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The mean over the valid frames (B, E), frame j of T weighted by Hann's sin²(pi (j + 1) / (T + 1)).

    A plain mean changes from one frame to the next by the two frames at its ends; this one fades them in and out, and
    changes much less while it looks as far. (Harris, "On the use of windows for harmonic analysis with the discrete
    Fourier transform", Proc. IEEE 1978.) Zeros for a window that has no valid frame.
    """
    num_frames = embeddings.shape[1]
    place = torch.arange(1, num_frames + 1, device=embeddings.device, dtype=embeddings.dtype)
    weights = torch.sin(torch.pi * place / (num_frames + 1)).square() * valid
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return (mask(embeddings, valid) * weights.unsqueeze(-1)).sum(dim=1)


def centre(embeddings: torch.Tensor) -> torch.Tensor:
    """The embedding (B, E) of frame T // 2, which is the one that ``windows.centred`` was asked for."""
    return embeddings[:, embeddings.shape[1] // 2]


def build_head(
    name: str, num_features: int, embedding_size: int | None = None, dropout: float | None = None,
    grid: int | None = None, **options: Any,
) -> Head:  # fmt: skip
    """The named head; it gets those of the arguments that its constructor names, and None is its own default.

    ``embedding_size``, ``dropout`` and ``grid`` (cells a side that the features are of) are for every head, and one
    that has none ignores them; ``options`` it must name.
    Raises ``UserError`` for an unknown name or option, a missing argument and a value out of range.
    """
    one_of("head", name, HEADS)
    known = [key for key in inspect.signature(HEADS[name]).parameters if key not in _FOR_ALL]
    for key in options:
        one_of(f"head '{name}': option", key, known)
    if embedding_size is not None and embedding_size < 1:
        raise UserError(f"head '{name}': embedding_size must be at least 1, and is {embedding_size}")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"head '{name}': dropout must be in [0, 1), and is {dropout}")
    given = dict(zip(_FOR_ALL, (num_features, embedding_size, dropout, grid), strict=True))
    return build("head", HEADS, name, options | given)


MOST = 1000  # of layers, attention heads and frames of distance: far above any use, and still made in seconds
MOST_DILATED = 20  # then the receptive field is two million frames
_FOR_ALL = ("num_features", "embedding_size", "dropout", "grid")

HEADS: dict[str, type[Head]] = {
    "identity": Identity,
    "peterson": Peterson,
    "original": Original,
    "mlp": MLP,
    "tcn": TCN,
    "gru": GRU,
    "transformer": Transformer,
    "attention_pool": AttentionPool,
    "pair_gate": PairGate,
}
