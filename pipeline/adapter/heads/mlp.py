"""Two linear maps, for each frame alone."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.adapter.heads.common import Dropout, Projected, check_number, mask

if TYPE_CHECKING:
    from pipeline.adapter.pooling import Pooling

MOST_HIDDEN = 65_536


class MLP(Projected):
    """Linear D -> H, LayerNorm, GELU, dropout, linear H -> E; H, ``hidden_size``, is E where it is not given.

    ``input_dropout`` is one on the features, for data of few samples, such as photographs (docs/stills.md).
    LayerNorm and not BatchNorm: statistics over a batch would mix frames, padded ones among them, and a batch holds
    many near copies of one face.
    """

    framewise = True
    frames_once = True
    source = "LayerNorm: Ba et al. 2016, https://arxiv.org/abs/1607.06450"

    def __init__(
        self, num_features: int, embedding_size: int, dropout: float = 0.0, hidden_size: int | None = None,
        input_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__(num_features, embedding_size)
        width = embedding_size if hidden_size is None else hidden_size
        if type(width) is not int or not 1 <= width <= MOST_HIDDEN:
            raise ValueError(f"hidden_size must be a whole number from 1 to {MOST_HIDDEN:,}, and is {width!r}")
        check_number(0, 1, input_dropout=input_dropout)
        self.input_dropout = Dropout(input_dropout)
        self.layers = nn.Sequential(
            nn.Linear(num_features, width),
            nn.LayerNorm(width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(width, embedding_size),
        )

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.layers[:-1](self.input_dropout(mask(features.float(), valid)))

    def pooled_frames(self, frames: torch.Tensor, place: torch.Tensor, pooling: "Pooling") -> torch.Tensor:
        """Embeddings (B, E), as ``pooled`` has them, of windows whose frames are the rows ``place`` (B, T) of (n, D).

        -1 is a missing frame. All before the dropout is computed once for each of the n frames. The dropout is one for
        each place in a window, from the same random numbers as that of ``pooled``; that on the features is one for each
        of the n frames.
        """
        hidden = self.layers[:-2](self.input_dropout(frames.float())).index_select(0, place.clamp(min=0).flatten())
        return self._projected(self.layers[-2](hidden.view(*place.shape, -1)), pooling.weights(place >= 0))

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layers[-1](hidden)
