"""The multi-similarity loss with its own mining."""

import math

import torch
from pytorch_metric_learning import losses

from pipeline.training.losses.common import Loss, cosine_matrix, in_range, indices, pair_masks, positive


class MultiSimilarity(Loss):
    """Positives pulled above and negatives pushed below a cosine λ, each the more the harder it is.

    For an anchor log(1 + Σ exp(-α (cos - λ))) / α over its mined positives, and log(1 + Σ exp(β (cos - λ))) / β over
    its mined negatives. A positive is mined where its cosine is less than ``epsilon`` above the nearest negative's, a
    negative where its is less than ``epsilon`` below the farthest positive's. Wang et al. 2019,
    https://arxiv.org/abs/1904.06627; pytorch-metric-learning's ``MultiSimilarityLoss``. ``base`` is λ. There are two
    scales, α and β, so it takes no ``temperature``.

    Edges: the mean is over all of the batch; an anchor without a positive or without a negative counts as zero, and a
    batch in which one pair of each kind is mined, or fewer, is zero.
    """

    takes = ("labels", "groups")
    source = "Wang 2019, arxiv.org/abs/1904.06627"

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1):
        super().__init__()
        self.epsilon = in_range("epsilon", epsilon, 0, math.inf)
        self.loss = losses.MultiSimilarityLoss(
            alpha=positive("alpha", alpha), beta=positive("beta", beta), base=in_range("base", base, -1, 1)
        )

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        positives, negatives = pair_masks(labels, groups)
        cosines = cosine_matrix(embeddings.detach())
        nearest_negative = cosines.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
        farthest_positive = cosines.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
        positives = positives & (cosines - self.epsilon < nearest_negative)
        negatives = negatives & (cosines + self.epsilon > farthest_positive)
        return self.loss(embeddings, labels, indices(positives, negatives))
