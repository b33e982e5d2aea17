"""The circle loss."""

import torch
from pytorch_metric_learning import losses

from pipeline.training.losses.common import Loss, in_range, indices, pair_masks, positive


class Circle(Loss):
    """For an anchor log(1 + Σ exp(t · αₙ (cosₙ - m)) · Σ exp(-t · αₚ (cosₚ - (1 - m)))) over its negatives, positives.

    αₙ = max(0, cosₙ + m) and αₚ = max(0, 1 + m - cosₚ), without a gradient: Sun et al. 2020, eq. 6,
    https://arxiv.org/abs/2002.10857; pytorch-metric-learning's ``CircleLoss``. ``margin`` is m, a cosine: a pair of one
    class is wanted above 1 - m, of two below m. The paper's t is 80 for images of fine classes and 256 for faces.

    Edges: the mean is over the anchors that have both kinds; none is zero.
    """

    takes = ("labels", "groups")
    source = "Sun 2020, arxiv.org/abs/2002.10857"

    def __init__(self, temperature: float = 80.0, margin: float = 0.4):
        super().__init__()
        self.loss = losses.CircleLoss(m=in_range("margin", margin, 0, 1), gamma=positive("temperature", temperature))

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.loss(embeddings, labels, indices(*pair_masks(labels, groups)))
