"""Proxy-anchor: each class has a proxy, which is compared with the embeddings."""

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss, in_range, positive


class ProxyAnchor(Loss):
    """Each class has a proxy. It pulls its own embeddings and pushes all others, the hardest the most.

    mean over the classes in the batch of log(1 + Σ exp(-t (cos - margin))) over the class's embeddings + mean over all
    classes of log(1 + Σ exp(t (cos + margin))) over the others': Kim et al. 2020, eq. 4,
    https://arxiv.org/abs/2003.13911. ``margin`` is a cosine.
    """

    predicts = "classes"
    source = "Kim 2020, arxiv.org/abs/2003.13911"

    def __init__(self, num_classes: int, temperature: float = 32.0, margin: float = 0.1):
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.margin = in_range("margin", margin, 0, 1)
        self.trains = {"kind": "proxies", "num_outputs": num_classes, "scale": temperature}

    def forward(self, cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        own = F.one_hot(labels, cosines.shape[1]).bool()
        pull = _log_one_plus_sum(self.temperature * (self.margin - cosines), own)
        push = _log_one_plus_sum(self.temperature * (cosines + self.margin), ~own)
        return pull.sum() / own.any(dim=0).sum() + push.sum() / cosines.shape[1]


def _log_one_plus_sum(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """log(1 + Σ exp) (C,) over those of the rows of ``values`` (B, C) that are ``kept`` (B, C)."""
    values = values.masked_fill(~kept, torch.finfo(values.dtype).min)
    return torch.cat([values, values.new_zeros(1, values.shape[1])]).logsumexp(dim=0)
