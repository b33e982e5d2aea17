"""Binary cross-entropy of action units."""

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss


class BCE(Loss):
    """Binary cross-entropy of logits (B, A), one for each action unit: the mean over all known cells.

    A cell whose label is NaN is not known, and left out.
    """

    takes = ("aus",)
    predicts = "aus"
    likelihood = "classification"
    source = "binary cross-entropy, one an action unit"

    def __init__(self, num_aus: int):
        super().__init__()
        self.trains = {"kind": "aus", "num_outputs": num_aus}

    def forward(self, logits: torch.Tensor, aus: torch.Tensor) -> torch.Tensor:
        known = ~aus.isnan()
        return F.binary_cross_entropy_with_logits(logits[known], aus[known])
