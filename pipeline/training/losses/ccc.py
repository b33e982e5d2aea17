"""1 - CCC, of valence and arousal."""

import torch

from pipeline.training.losses.common import Loss


class CCC(Loss):
    """1 - the mean of the concordance correlation coefficients of valence and arousal, over the batch.

    CCC = 2 cov / (var + var + (difference of means)²), the
    variances those of the batch itself (Lin 1989, https://doi.org/10.2307/2532051; the measure of ABAW).

    Edge: where prediction or target is constant in the batch its CCC is 0, and 1e-8 in the denominator keeps it so.
    """

    takes = ("va",)
    predicts = "va"
    likelihood = "regression"
    source = "Lin 1989, doi.org/10.2307/2532051"

    def __init__(self) -> None:
        super().__init__()
        self.trains = {"kind": "va"}

    def forward(self, predicted: torch.Tensor, va: torch.Tensor) -> torch.Tensor:
        mean, target_mean = predicted.mean(dim=0), va.mean(dim=0)
        covariance = ((predicted - mean) * (va - target_mean)).mean(dim=0)
        spread = (predicted - mean).square().mean(dim=0) + (va - target_mean).square().mean(dim=0)
        return 1 - (2 * covariance / (spread + (mean - target_mean).square() + 1e-8)).mean()
