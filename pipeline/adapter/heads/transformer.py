"""Self-attention over the frames of a window."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.adapter.heads.common import Dropout, Projected, check_count, mask


class Transformer(Projected):
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
        check_count(num_layers=num_layers, num_heads=num_heads, max_distance=max_distance)
        if embedding_size % num_heads:
            raise ValueError(f"embedding_size {embedding_size} is not a multiple of num_heads {num_heads}")
        if positions not in ("relative", "sinusoidal"):
            raise ValueError(f"positions must be 'relative' or 'sinusoidal', and is {positions!r}")
        if positions == "sinusoidal" and embedding_size % 2:
            raise ValueError(f"sinusoidal positions need an even embedding_size, and it is {embedding_size}")
        self.positions, self.max_distance = positions, max_distance
        self.project_in = nn.Linear(num_features, embedding_size)
        self.dropout = Dropout(dropout)
        if positions == "relative":
            self.distance_logits = nn.Parameter(torch.zeros(num_heads, 2 * max_distance + 1))
        self.layers = nn.ModuleList(_AttentionLayer(embedding_size, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embedding_size)
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden = self.project_in(mask(features.float(), valid))
        if self.positions == "sinusoidal":
            hidden = hidden + sinusoids(hidden.shape[1], self.embedding_size, hidden.device)
        hidden = self.dropout(hidden)
        logits = self._added_logits(valid)
        for layer in self.layers:
            hidden = layer(hidden, logits)
        return self.norm(hidden)

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.project_out(hidden)

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
        self.dropout = Dropout(dropout)

    def forward(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        projected = self.queries_keys_values(self.attention_norm(hidden))
        queries, keys, values = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=logits.to(queries.dtype))
        # Not transposed and flattened: that exports to no ONNX graph (torch 2.15), since strides are guessed wrongly.
        attended = torch.cat(attended.unbind(1), dim=-1)
        hidden = hidden + self.dropout(self.attention_out(attended))
        return hidden + self.dropout(self.feedforward(hidden))


def sinusoids(num_frames: int, num_channels: int, device: torch.device | None = None) -> torch.Tensor:
    """(T, C) float32: ``sin(t / 10000^(2i/C))`` in channel 2i, the cosine in channel 2i + 1. C is even."""
    rates = torch.exp(torch.arange(0, num_channels, 2, device=device) * (-math.log(10000.0) / num_channels))
    angles = torch.arange(num_frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
