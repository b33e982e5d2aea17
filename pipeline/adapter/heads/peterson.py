"""A weight for each channel."""

import torch
from torch import nn

from pipeline.adapter.heads.common import Dropout, Head, check_number, mask


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
        check_number(0, 1, input_dropout=input_dropout)
        self.dropout = Dropout(input_dropout)
        self.weight = nn.Parameter(torch.ones(num_features))

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.dropout(mask(features.float(), valid)) * self.weight.abs()
