"""VICReg: agreement of a pair, with columns that vary and do not repeat each other."""

import math

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss, in_range, zero


class VICReg(Loss):
    """25 · invariance + 25 · variance + 1 · covariance of pairs (positions 2i, 2i + 1), of the embeddings as they are.

    Invariance: the mean squared difference of the two. Variance: max(0, 1 - deviation), the mean over the E columns.
    Covariance: the squared entries off the diagonal of the E x E covariance matrix, summed, divided by E. Variance is
    the mean of the two sides, covariance their sum: Bardes et al. 2022, https://arxiv.org/abs/2105.04906, as in the
    authors' code (https://github.com/facebookresearch/vicreg); the paper's eq. 5 and 6 sum the squared difference over
    the columns, and the variance over the sides.

    Edge: fewer than two pairs, of which no variance can be taken, are zero.
    """

    takes = ()
    positional = True
    source = "Bardes 2022, arxiv.org/abs/2105.04906"

    def __init__(self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0):
        super().__init__()
        self.invariance = in_range("invariance", invariance, 0, math.inf)
        self.variance = in_range("variance", variance, 0, math.inf)
        self.covariance = in_range("covariance", covariance, 0, math.inf)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        n = len(embeddings) // 2
        if n < 2:
            return zero(embeddings)
        a, b = embeddings[0 : 2 * n : 2], embeddings[1 : 2 * n : 2]
        return (
            self.invariance * F.mse_loss(a, b)
            + self.variance * (_lack_of_variance(a) + _lack_of_variance(b)) / 2
            + self.covariance * (_covariance(a) + _covariance(b))
        )


def _lack_of_variance(z: torch.Tensor) -> torch.Tensor:
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def _covariance(z: torch.Tensor) -> torch.Tensor:
    covariance = z.T.cov().reshape(z.shape[1], z.shape[1])
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
