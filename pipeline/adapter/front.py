"""What stands before the head: a projection, and the centring or standardising of its outputs."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from pipeline.core.params import one_of
from pipeline.core.projection import Projection

NORMALISATIONS = ("none", "centre", "standardise")
# A channel that hardly ever moves is divided by a share of the mean deviation, not by its own: else its noise becomes
# as large as every signal, and training collapses onto it.
DEVIATION_FLOOR = 0.1


class Front(nn.Module):
    """Stored features (n, D) -> inputs of the head (n, K) float32: projected, then centred or standardised."""

    def __init__(self, num_features: int, num_components: int | None) -> None:
        super().__init__()
        self.num_inputs = num_components or num_features
        if num_components:
            self.register_buffer("components", torch.zeros(num_components, num_features))
            self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("shift", torch.zeros(self.num_inputs))
        self.register_buffer("scale", torch.ones(self.num_inputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.float()
        if hasattr(self, "components"):
            x = (x - self.mean) @ self.components.T
        return (x - self.shift) / self.scale

    def project_with(self, projection: Projection) -> None:
        self.components.copy_(torch.from_numpy(projection.components))
        self.mean.copy_(torch.from_numpy(projection.mean))

    def fit(self, blocks: Iterable[np.ndarray], normalise: str) -> None:
        """Sets shift and scale from training features, in blocks of (n, D). 'none' leaves them at 0 and 1."""
        one_of("normalise", normalise, NORMALISATIONS)
        if normalise == "none":
            return
        count, total, squares = 0, 0.0, 0.0
        first: torch.Tensor | float | None = None
        for block in blocks:
            x = self(torch.from_numpy(block)).double()
            first = x.mean(0) if first is None else first  # keeps the sums small, and so exact
            count, total, squares = count + len(x), total + (x - first).sum(0), squares + (x - first).square().sum(0)
        mean = total / count
        self.shift.copy_(first + mean)
        if normalise == "standardise":
            deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
            self.scale.copy_(deviation.clamp_min(max(DEVIATION_FLOOR * float(deviation.mean()), 1e-12)))
