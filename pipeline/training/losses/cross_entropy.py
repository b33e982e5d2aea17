"""Cross-entropy of a linear classifier."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss, choice, in_range


class CrossEntropy(Loss):
    """Cross-entropy of the logits (B, C) of a linear classifier.

    ``class_weights`` 'balanced': a row weighs W / (C · n_y), n_y being the training windows of its class, and the mean
    is a weighted one. ``label_smoothing`` ε: the target is 1 - ε for the label and ε / C for all. ``focal_gamma`` γ:
    each row times (1 - p_y)^γ (Lin et al. 2017, eq. 4, https://arxiv.org/abs/1708.02002). ``logit_adjustment`` τ: in
    training τ · log(n_c / W) is added to the logits (Menon et al. 2021, eq. 10, https://arxiv.org/abs/2007.07314), so
    that the logits themselves are for classes of equal frequency. The τ of ``logit_adjustment`` is 1 in the paper; it
    is no temperature.

    Edge: a class that has no training window counts as having one.
    """

    predicts = "classes"
    likelihood = "classification"
    source = "focal: Lin 2017, arxiv.org/abs/1708.02002; logit adjustment: Menon 2021, arxiv.org/abs/2007.07314"

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        class_weights: str = "none",
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        logit_adjustment: float = 0.0,
    ):
        super().__init__()
        balanced = choice("class_weights", class_weights, ("none", "balanced")) == "balanced"
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1)
        self.focal_gamma = in_range("focal_gamma", focal_gamma, 0, math.inf)
        in_range("logit_adjustment", logit_adjustment, 0, math.inf)
        if (balanced or logit_adjustment) and (class_counts is None or len(class_counts) != num_classes):
            raise ValueError(f"class_weights and logit_adjustment need {num_classes} class_counts, not {class_counts}")
        counts = torch.ones(num_classes) if class_counts is None else torch.tensor(class_counts).float().clamp(min=1)
        # Not persistent: they follow from class_counts.
        weights = counts.sum() / (num_classes * counts) if balanced else torch.ones(num_classes)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("adjustment", logit_adjustment * (counts / counts.sum()).log(), persistent=False)
        self.trains = {"kind": "linear", "num_outputs": num_classes}

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = logits + self.adjustment
        per_row = F.cross_entropy(logits, labels, self.weights, reduction="none", label_smoothing=self.label_smoothing)
        if self.focal_gamma:
            log_p = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
            per_row = per_row * (-log_p.expm1()).clamp(min=1e-12) ** self.focal_gamma  # at 0 a γ < 1 has no slope
        return per_row.sum() / self.weights[labels].sum()
