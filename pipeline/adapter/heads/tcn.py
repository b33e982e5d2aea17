"""Dilated convolutions over time."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from pipeline.adapter.heads.common import Dropout, Projected, check_count, mask

if TYPE_CHECKING:
    from pipeline.adapter.pooling import Pooling

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
        hidden, valid = self._projected_in(features, valid), valid.T
        for layer in self.layers:
            hidden = mask(layer(hidden), valid)
        return hidden.transpose(0, 1)

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.project_out(hidden)

    def pooled(self, features: torch.Tensor, valid: torch.Tensor, pooling: "Pooling") -> torch.Tensor:
        """The same embeddings, but for rounding: the last layer's ``W2`` is a map of each frame alone too."""
        hidden, weights = self._projected_in(features, valid), pooling.weights(valid)
        *layers, last = self.layers
        for layer in layers:
            hidden = mask(layer(hidden), valid.T)
        by_frame = weights.T.to(hidden.dtype).unsqueeze(2)
        sums = [(of * by_frame).sum(dim=0, keepdim=True) for of in (hidden, last.looked(hidden))]
        return mask(self.project(last.added(*sums).squeeze(0)), weights.any(dim=1))

    def _projected_in(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """(T, B, C): time comes first, so that all frames that are d before or after others lie in one block."""
        inputs = mask(features.float(), valid).transpose(0, 1).contiguous()
        return mask(self.project_in(inputs), valid.T)


class _DilatedResidual(nn.Module):
    """(T, B, C) -> (T, B, C): ``looked`` sees the frames around each, ``added`` is of each frame alone."""

    def __init__(self, num_channels: int, dilation: int, dropout: float):
        super().__init__()
        self.dilated = nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(num_channels, num_channels, kernel_size=1)
        self.dropout = Dropout(dropout, whole=0)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.added(hidden, self.looked(hidden))

    def looked(self, hidden: torch.Tensor) -> torch.Tensor:
        """``ReLU(W1 *_d h)``."""
        # CUDA has kernels of its own for convolutions, and neither a graph (ONNX) nor autocast knows ours.
        if hidden.is_cuda or torch.compiler.is_exporting() or torch.is_autocast_enabled(hidden.device.type):
            return torch.relu(self.dilated(hidden.permute(1, 2, 0))).permute(2, 0, 1)
        return _Dilated.apply(hidden, self.dilated.weight, self.dilated.bias, self.dilated.dilation[0])

    def added(self, hidden: torch.Tensor, looked: torch.Tensor) -> torch.Tensor:
        """``h + drop(W2 * looked)``."""
        return hidden + self.dropout(F.linear(looked, self.pointwise.weight.squeeze(2), self.pointwise.bias))


class _Dilated(torch.autograd.Function):
    """``ReLU(W *_d h + b)`` of (T, B, C), W (C, C, 3), by a product of matrices for each of the three taps.

    A tap leaves out the frames beyond the window's ends. Nothing is copied, as time comes first. In windows of 15
    frames a step takes 0.7 of that with PyTorch's convolution (torch 2.15 on a CPU).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dilation: int
    ) -> torch.Tensor:
        taps = weight.permute(2, 1, 0).contiguous()  # (3, in, out)
        rows = hidden.reshape(-1, hidden.shape[2])
        out = torch.addmm(bias, rows, taps[1])
        ctx.away = away = dilation * hidden.shape[1]  # rows between a frame and the one that a tap looks at
        if away < len(rows):
            out[away:].addmm_(rows[:-away], taps[0])
            out[:-away].addmm_(rows[away:], taps[2])
        out.relu_()
        ctx.save_for_backward(rows, taps, out)
        return out.view(*hidden.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, taps, out = ctx.saved_tensors
        away = ctx.away
        of_sum = grad.reshape(out.shape) * (out > 0)
        of_rows = of_sum @ taps[1].T
        of_taps = torch.zeros_like(taps)
        torch.mm(rows.T, of_sum, out=of_taps[1])
        if away < len(rows):
            of_rows[:-away].addmm_(of_sum[away:], taps[0].T)
            of_rows[away:].addmm_(of_sum[:-away], taps[2].T)
            torch.mm(rows[:-away].T, of_sum[away:], out=of_taps[0])
            torch.mm(rows[away:].T, of_sum[:-away], out=of_taps[2])
        return of_rows.view(*grad.shape[:2], -1), of_taps.permute(2, 1, 0), of_sum.sum(dim=0), None
