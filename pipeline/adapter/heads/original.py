"""The published adapter: one linear map and a ReLU."""

import torch
from torch import nn

from pipeline.adapter.heads.common import Dropout, Head, check_number, mask


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
        check_number(0, 1, input_dropout=input_dropout)
        self.dropout = Dropout(input_dropout)
        self.linear = nn.Linear(num_features, embedding_size, bias=False)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(torch.relu(self.linear(self.dropout(mask(features.float(), valid)))), valid)
