"""Heads, or adapters: features of a window (B, T, D), ``valid`` (B, T) -> embeddings (B, T, E), one for each frame.

A frame where ``valid`` is False never influences another, and its own output is zero. Each head has ``num_features``
(D), ``embedding_size`` (E) and ``framewise``: True when a frame's embedding depends on that frame alone. Embeddings are
not normalised: whoever compares them (loss, metric) does that. To add one: the class, a line in ``HEADS``, a test.
"""

from typing import Any

import torch
from torch import nn

from pipeline.params import UserError
from pipeline.training.choices import build


class Identity(nn.Module):
    """The features themselves, float32: what the backbone gives without any adapter. E = D, nothing to learn.

    There is no projection, so an ``embedding_size`` asked of ``build_head`` is ignored: read it from the head.
    """

    framewise = True

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = self.embedding_size = num_features

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(features.float(), valid)


class Original(nn.Module):
    """ReLU(W x), no bias: the published adapter, at 1024 outputs.

    Risser-Maroix, Kurtz, Lomenie, "Learning an adaptation function to assess image visual similarities", ICIP 2021
    (https://arxiv.org/abs/2206.01417, https://github.com/VieVie31/visual-similarity). The cosine of two embeddings is
    never negative. It has no dropout, so a ``dropout`` asked of ``build_head`` is ignored.
    """

    framewise = True

    def __init__(self, num_features: int, embedding_size: int = 1024):
        super().__init__()
        self.num_features, self.embedding_size = num_features, embedding_size
        self.linear = nn.Linear(num_features, embedding_size, bias=False)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(torch.relu(self.linear(mask(features.float(), valid))), valid)


class MLP(nn.Module):
    """Linear D -> E, LayerNorm, GELU, dropout, linear E -> E.

    LayerNorm and not BatchNorm: statistics over a batch would mix frames, padded ones among them, and a batch holds
    many near copies of one face.
    """

    framewise = True

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0):
        super().__init__()
        self.num_features, self.embedding_size = num_features, embedding_size
        self.layers = nn.Sequential(
            nn.Linear(num_features, embedding_size),
            nn.LayerNorm(embedding_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(embedding_size, embedding_size),
        )

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(self.layers(mask(features.float(), valid)), valid)


class TCN(nn.Module):
    """Dilated residual convolutions over time: linear D -> E, ``num_layers`` layers of E channels, linear E -> E.

    One stage of MS-TCN (Farha and Gall, CVPR 2019, section 3.1, https://arxiv.org/abs/1903.01945), whose layer l is
    ``h + W2 * ReLU(W1 *_d h)``: a convolution of width 3 and dilation d = 2^l, acausal, then one of width 1 (and
    dropout). An embedding sees ``receptive_field`` = 2^(num_layers + 1) - 1 frames, centred on its own: 15 with 3
    layers. The mask is applied again after every layer, since biases would otherwise fill padded frames: they count
    as absent, exactly like the zeros beyond the window's ends.
    """

    framewise = False

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0, num_layers: int = 3):
        super().__init__()
        self.num_features, self.embedding_size = num_features, embedding_size
        self.receptive_field = 2 ** (num_layers + 1) - 1
        self.project_in = nn.Linear(num_features, embedding_size)
        self.layers = nn.ModuleList(_DilatedResidual(embedding_size, 2**i, dropout) for i in range(num_layers))
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden = mask(self.project_in(mask(features.float(), valid)), valid)
        for layer in self.layers:
            hidden = mask(layer(hidden), valid)
        return mask(self.project_out(hidden), valid)


class _DilatedResidual(nn.Module):
    """(B, T, C) -> (B, T, C); the convolutions transpose inside."""

    def __init__(self, num_channels: int, dilation: int, dropout: float):
        super().__init__()
        self.dilated = nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(num_channels, num_channels, kernel_size=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        change = self.pointwise(torch.relu(self.dilated(hidden.transpose(1, 2))))
        return hidden + self.dropout(change).transpose(1, 2)


def mask(frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, T, C) with zeros where ``valid`` (B, T) is False, NaN included; no gradient passes there."""
    return frames.masked_fill(~valid.unsqueeze(-1), 0.0)


def pool(embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The mean over the valid frames (B, E); zeros for a window that has none."""
    counts = valid.sum(dim=1, keepdim=True).clamp(min=1)
    return mask(embeddings, valid).sum(dim=1) / counts


def centre(embeddings: torch.Tensor) -> torch.Tensor:
    """The embedding (B, E) of frame T // 2, which is the one that ``windows.centred`` was asked for."""
    return embeddings[:, embeddings.shape[1] // 2]


def build_head(
    name: str, num_features: int, embedding_size: int | None = None, dropout: float | None = None, **options: Any
) -> nn.Module:
    """The named head; it gets those of the arguments that its constructor names, and None is its own default.

    Raises ``UserError`` for an unknown name, a missing argument and a size or dropout out of range.
    """
    if embedding_size is not None and embedding_size < 1:
        raise UserError(f"head '{name}': embedding_size must be at least 1, and is {embedding_size}")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"head '{name}': dropout must be in [0, 1), and is {dropout}")
    options |= {"num_features": num_features, "embedding_size": embedding_size, "dropout": dropout}
    return build("head", HEADS, name, options)


HEADS: dict[str, type[nn.Module]] = {
    "identity": Identity,
    "original": Original,
    "mlp": MLP,
    "tcn": TCN,
}
