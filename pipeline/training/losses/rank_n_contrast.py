"""Contrast by rank, for labels that are numbers."""

import torch

from pipeline.training.losses.common import Loss, cosine_matrix, positive, zero


class RankNContrast(Loss):
    """Nearer in valence and arousal, nearer in cosine: each other window j is the positive of an anchor i in its turn.

    -log(exp(t · cosᵢⱼ) / Σₖ exp(t · cosᵢₖ)) over all k no nearer to i in valence and arousal than j is; the mean over
    all i and j ≠ i. Zha et al. 2023, section 3, https://arxiv.org/abs/2210.01189, with the cosine in place of their
    negative distance, since embeddings are compared by it, and the distance in the plane for that of two labels.

    Edges: ties count as no nearer. Fewer than two rows are zero; where all have the same target, the loss pulls all
    cosines to be equal.
    """

    takes = ("va",)
    likelihood = "classification"
    source = "Zha 2023, arxiv.org/abs/2210.01189"

    def __init__(self, temperature: float = 15.0):
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def forward(self, embeddings: torch.Tensor, va: torch.Tensor) -> torch.Tensor:
        if len(embeddings) < 2:
            return zero(embeddings)
        distance = (va[:, None] - va[None]).square().sum(dim=2)  # squared, which ranks alike
        distance.fill_diagonal_(-1.0)  # oneself: sorted last, and cut off
        descending, order = distance.sort(dim=1, descending=True)
        nearness, order = -descending[:, :-1].contiguous(), order[:, :-1]
        logits = (self.temperature * cosine_matrix(embeddings)).gather(1, order)
        last_tied = torch.searchsorted(nearness, nearness, right=True) - 1
        return (logits.logcumsumexp(dim=1).gather(1, last_tied) - logits).mean()
