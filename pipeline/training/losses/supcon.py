"""Supervised contrastive learning."""

import torch
from pytorch_metric_learning import losses

from pipeline.training.losses.common import Loss, indices, pair_masks, positive


class SupCon(Loss):
    """SupCon, positives outside of the logarithm (Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362).

    For an anchor: the mean over its positives of -log softmax(t · cos) over all its positives and negatives.
    pytorch-metric-learning's ``SupConLoss``.

    Edges: the mean is over the anchors whose loss is above zero. So an anchor without a positive is dropped (the
    authors' first code counted it as zero), and so is one that float32 finds perfect. A batch of one class only, or
    without a positive, is zero; for the one class the paper's sum would be log(B - 1) at least.
    """

    takes = ("labels", "groups")
    likelihood = "classification"
    source = "Khosla 2020, arxiv.org/abs/2004.11362"

    def __init__(self, temperature: float = 15.0):
        super().__init__()
        self.loss = losses.SupConLoss(temperature=1 / positive("temperature", temperature))

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.loss(embeddings, labels, indices(*pair_masks(labels, groups)))
