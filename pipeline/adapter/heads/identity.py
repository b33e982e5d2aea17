"""The features as they are."""

import torch

from pipeline.adapter.heads.common import Head, mask


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
