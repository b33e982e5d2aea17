"""Dilated convolutions over time."""

import torch
from torch import nn

from pipeline.adapter.heads.common import Dropout, Projected, check_count, mask

MOST_DILATED = 20  # layers: then the receptive field is two million frames


class TCN(Projected):
    """Dilated residual convolutions over time: linear D -> E, ``num_layers`` layers of E channels, linear E -> E.

    One stage of MS-TCN (Farha and Gall, CVPR 2019, section 3.1, https://arxiv.org/abs/1903.01945), whose layer l is
    ``h + drop(W2 * ReLU(W1 *_d h))``: a convolution of width 3 and dilation d = 2^l, acausal, then one of width 1; the
    dropout is ours, of whole channels of a window. An embedding sees ``receptive_field`` = 2^(num_layers + 1) - 1
    frames, centred on its own: 15 with 3 layers. The mask is applied again after every layer, since biases would
    otherwise fill padded frames: they count as absent, exactly like the zeros beyond the window's ends.
    """

    source = "one stage of MS-TCN, Farha and Gall 2019, https://arxiv.org/abs/1903.01945"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0, num_layers: int = 3):
        super().__init__(num_features, embedding_size)
        check_count(num_layers=num_layers)
        if num_layers > MOST_DILATED:
            raise ValueError(f"num_layers must be at most {MOST_DILATED}, and is {num_layers}: it sees no more frames")
        self.receptive_field = 2 ** (num_layers + 1) - 1
        self.project_in = nn.Linear(num_features, embedding_size)
        self.layers = nn.ModuleList(_DilatedResidual(embedding_size, 2**i, dropout) for i in range(num_layers))
        self.project_out = nn.Linear(embedding_size, embedding_size)

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden = mask(self.project_in(mask(features.float(), valid)), valid)
        for layer in self.layers:
            hidden = mask(layer(hidden), valid)
        return hidden

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.project_out(hidden)


class _DilatedResidual(nn.Module):
    """(B, T, C) -> (B, T, C); the convolutions transpose inside."""

    def __init__(self, num_channels: int, dilation: int, dropout: float):
        super().__init__()
        self.dilated = nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(num_channels, num_channels, kernel_size=1)
        self.dropout = Dropout(dropout, whole=2)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        change = self.pointwise(torch.relu(self.dilated(hidden.transpose(1, 2))))
        return hidden + self.dropout(change).transpose(1, 2)
