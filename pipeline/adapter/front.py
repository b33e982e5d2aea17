"""What stands before the head, for each store: a projection, and the centring or standardising of its outputs."""

from collections.abc import Iterable, Sequence

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

    @property
    def projects(self) -> bool:
        return hasattr(self, "components")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.float()
        if self.projects:
            x = (x - self.mean) @ self.components.T
        return (x - self.shift) / self.scale

    def project_with(self, projection: Projection) -> None:
        self.components.copy_(torch.from_numpy(projection.components))
        self.mean.copy_(torch.from_numpy(projection.mean))

    def fit(self, blocks: Iterable[np.ndarray], normalise: str, to_unit: bool = False) -> None:
        """Sets shift and scale from training features, in blocks of (n, D). 'none' leaves them at 0 and 1.

        ``to_unit``: what is centred is divided by one number besides, the root of the mean variance of its columns.
        """
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
        variance = (squares / count - mean.square()).clamp_min(0)
        if normalise == "centre" and to_unit:
            self.scale.fill_(max(float(variance.mean()) ** 0.5, 1e-12))
        if normalise == "standardise":
            deviation = variance.sqrt()
            self.scale.copy_(deviation.clamp_min(max(DEVIATION_FLOOR * float(deviation.mean()), 1e-12)))


class Fronts(nn.Module):
    """Features of several stores side by side (n, D) -> inputs (n, K) float32: each store's columns by its own front.

    ``columns`` are those of each store in the inputs. A store that a row lacks is zeros there: ``hide_`` puts them.
    Centred columns of a store are divided by one number (``to_unit`` of ``Front.fit``), as the stores' units have
    nothing to do with each other.
    """

    def __init__(self, blocks: Sequence[Front]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self._widths = [len(block.mean) if block.projects else block.num_inputs for block in blocks]
        ends = np.cumsum([block.num_inputs for block in blocks]).tolist()
        self.columns = [slice(end - block.num_inputs, end) for end, block in zip(ends, blocks, strict=True)]
        self.num_inputs = ends[-1]

    @property
    def projects(self) -> bool:
        return any(block.projects for block in self.blocks)

    @property
    def shift(self) -> torch.Tensor:
        return torch.cat([block.shift for block in self.blocks])

    @property
    def scale(self) -> torch.Tensor:
        return torch.cat([block.scale for block in self.blocks])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        parts = features.split(self._widths, dim=-1)
        return torch.cat([block(part) for block, part in zip(self.blocks, parts, strict=True)], dim=-1)


def hide_(values: torch.Tensor, columns: Sequence[slice], hidden: torch.Tensor) -> torch.Tensor:
    """Puts zeros, in place, where ``hidden`` (n, S) says so of the columns of a store in ``values`` (n, ..., K)."""
    for number, of_store in enumerate(columns):
        part, rows = values[..., of_store], hidden[:, number]
        if values.is_cuda:  # counting what is hidden would mean waiting for the device
            part.masked_fill_(rows.view(-1, *[1] * (values.ndim - 1)), 0.0)
        elif len(at := rows.nonzero().flatten()):
            part.index_fill_(0, at, 0.0)
    return values
