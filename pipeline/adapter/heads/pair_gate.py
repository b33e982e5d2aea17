"""Two windows that look at each other before they are compared."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.adapter.heads.common import Dropout, Head, check_number, mask
from pipeline.adapter.pooling import mean


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
        check_number(0, 0.5, most=most)
        check_number(0, math.inf, scale=scale)
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
        self.project = nn.Sequential(Dropout(dropout), nn.Linear(num_channels, embedding_size))
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        vector, there = self.side(features, valid)
        return mask(self.project(vector), there)

    def attend(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., C * grid * grid) -> (..., C) after the gate over places."""
        cells = self._cells(features)
        return (self._shares(cells) * cells).sum(dim=-2)

    def place_weights(self, features: torch.Tensor) -> torch.Tensor:
        """What each place counts for in frames (..., C * grid * grid): (..., grid * grid), row by row; the sum is 1."""
        return self._shares(self._cells(features)).squeeze(-1)

    def _cells(self, features: torch.Tensor) -> torch.Tensor:
        return features.unflatten(-1, (-1, self.grid * self.grid)).transpose(-1, -2)

    def _shares(self, cells: torch.Tensor) -> torch.Tensor:
        return self.weight(torch.tanh(self.content(cells)) * torch.sigmoid(self.openness(cells))).softmax(dim=-2)

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
        return mean(frames, valid), valid.any(dim=1)

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
