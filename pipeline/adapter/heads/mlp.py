"""Two linear maps, for each frame alone."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.adapter.heads.common import Projected, mask

if TYPE_CHECKING:
    from pipeline.adapter.pooling import Pooling


class MLP(Projected):
    """Linear D -> E, LayerNorm, GELU, dropout, linear E -> E.

    LayerNorm and not BatchNorm: statistics over a batch would mix frames, padded ones among them, and a batch holds
    many near copies of one face.
    """

    framewise = True
    frames_once = True
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

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.layers[:-1](mask(features.float(), valid))

    def pooled_frames(self, frames: torch.Tensor, place: torch.Tensor, pooling: "Pooling") -> torch.Tensor:
        """Embeddings (B, E), as ``pooled`` has them, of windows whose frames are the rows ``place`` (B, T) of (n, D).

        -1 is a missing frame. All before the dropout is computed once for each of the n frames. The dropout is one for
        each place in a window, from the same random numbers as that of ``pooled``.
        """
        hidden = self.layers[:-2](frames.float()).index_select(0, place.clamp(min=0).flatten())
        return self._projected(self.layers[-2](hidden.view(*place.shape, -1)), pooling.weights(place >= 0))

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layers[-1](hidden)
