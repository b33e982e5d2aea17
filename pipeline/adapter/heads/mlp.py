"""Two linear maps, for each frame alone."""

import torch
from torch import nn

from pipeline.adapter.heads.common import Projected, mask


class MLP(Projected):
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

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.layers[:-1](mask(features.float(), valid))

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layers[-1](hidden)
