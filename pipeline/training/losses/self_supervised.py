"""Losses that need no label of a window: of two views or neighbours as a pair, and of frames in time."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.training.losses.common import Loss, in_range, zero


class SimSiam(Loss):
    """-(cos(predictor(a), b) + cos(predictor(b), a)) / 2 of a pair a, b, the side without the predictor held fixed.

    A pair stands at positions 2i and 2i + 1. Chen and He 2021, algorithm 1, https://arxiv.org/abs/2011.10566. The
    predictor is theirs: linear E -> E / 4, batch norm, ReLU, linear E / 4 -> E; with the stop-gradient it is what keeps
    this from collapse. Its batch norm sees both sides at once. Perfect agreement is -1.

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


class Steadiness(Loss):
    """(1 - c + ε) / (1 - s + ε): how far neighbouring frames are apart, as a share of how far strangers are.

    c is the mean cosine of neighbouring valid frames of a window with one label, s that of the centre frames of
    windows of different videos: 1 less the ``steadiness`` of the evaluation. A share, because 1 - c alone is won by
    putting everything into one point; here that gives 1, the value where neighbours are no nearer than strangers, and
    shrinking towards it gains nothing. It says nothing about classes: a term beside another loss.

    Edge: without neighbours, or without two videos, it is zero.
    """

    takes = ("frames", "valid", "frame_labels", "videos")
    source = "our own: 1 - c over 1 - s, c of neighbouring frames, s of strangers"
    EPSILON = 1e-4  # well above the rounding of a mean cosine, well below any 1 - s worth having

    def forward(
        self,
        embeddings: torch.Tensor,
        frames: torch.Tensor,
        valid: torch.Tensor,
        frame_labels: torch.Tensor,
        videos: torch.Tensor,
    ) -> torch.Tensor:
        z = F.normalize(frames.masked_fill(~valid[..., None], 0.0), dim=2)
        near = valid[:, :-1] & valid[:, 1:]
        near = near & (frame_labels[:, :-1] >= 0) & (frame_labels[:, :-1] == frame_labels[:, 1:])
        middle = frames.shape[1] // 2
        seen = valid[:, middle]
        strangers = seen[:, None] & seen[None] & (videos[:, None] != videos[None])
        c = _mean_where(near, (z[:, :-1] * z[:, 1:]).sum(dim=2))
        s = _mean_where(strangers, z[:, middle] @ z[:, middle].T)
        return (1 - c + self.EPSILON) / (1 - s + self.EPSILON) * (near.any() & strangers.any())


def _mean_where(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return (mask * values).sum() / mask.sum().clamp(min=1)
