"""One embedding a window, by weights that are learned."""

import torch
from torch import nn

from pipeline.adapter.heads.common import Dropout, Head, mask


class AttentionPool(Head):
    """One embedding a window: the frames' hidden vectors averaged by weights that are learned from them.

    A frame is linear D -> E, LayerNorm, GELU, dropout; its weight ``softmax_t(w . tanh(V h_t))`` over the valid frames
    (Ilse, Tomczak, Welling, "Attention-based deep multiple instance learning", ICML 2018, equations 7 and 8); the
    average goes through linear E -> E. The order of the frames does not matter.
    """

    pools = True
    attends = True
    source = "Ilse et al. 2018, eq. 7-8, https://arxiv.org/abs/1802.04712"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0):
        super().__init__(num_features, embedding_size)
        self.layers = nn.Sequential(
            nn.Linear(num_features, embedding_size), nn.LayerNorm(embedding_size), nn.GELU(), Dropout(dropout)
        )
        self.attention = nn.Sequential(
            nn.Linear(embedding_size, embedding_size, bias=False), nn.Tanh(), nn.Linear(embedding_size, 1, bias=False)
        )
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden, logits = self._attended(features, valid)
        pooled = (logits.softmax(dim=1).unsqueeze(-1) * hidden).sum(dim=1)
        return mask(self.project_out(pooled), valid.any(dim=1))

    def attention_of(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """log Σ exp(logits of the valid frames) (B,) of each window.

        Windows weighed by the softmax of these average to what one window of all their frames would give.
        """
        return self._attended(features, valid)[1].logsumexp(dim=1)

    def frame_weights(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """What each frame of windows (B, T, D) counts for: (B, T), whose sum is 1 where there is any valid frame."""
        return self._attended(features, valid)[1].softmax(dim=1)

    def _attended(self, features: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden vectors (B, T, E), and the logits (B, T) of their weights."""
        hidden = mask(self.layers(mask(features.float(), valid)), valid)
        logits = self.attention(hidden).squeeze(-1).float()
        return hidden, logits.masked_fill(~valid, torch.finfo(logits.dtype).min)  # -inf: NaN without a frame
