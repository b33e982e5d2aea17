"""SimSiam: agreement of a pair, without negatives."""

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.training.losses.common import Loss, zero


class SimSiam(Loss):
    """-(cos(predictor(a), b) + cos(predictor(b), a)) / 2 of a pair a, b; no gradient passes the side without predictor.

    A pair stands at positions 2i and 2i + 1. Chen and He 2021, algorithm 1, https://arxiv.org/abs/2011.10566. The
    predictor is theirs: linear E -> E / 4, batch norm, ReLU, linear E / 4 -> E. The predictor and the stopped gradient
    keep this from collapse. The predictor's batch norm sees both sides at once. Perfect agreement is -1.

    Edge: no pair is zero.
    """

    takes = ()
    positional = True
    source = "Chen and He 2021, arxiv.org/abs/2011.10566"

    def __init__(self, embedding_size: int):
        super().__init__()
        hidden = max(embedding_size // 4, 1)
        self.predictor = nn.Sequential(
            nn.Linear(embedding_size, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, embedding_size),
        )

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        n = len(embeddings) // 2
        if n == 0:
            return zero(embeddings)
        z = embeddings[: 2 * n]
        partners = z.detach().view(n, 2, -1).flip(1).reshape(2 * n, -1)
        return -F.cosine_similarity(self.predictor(z), partners).mean()
