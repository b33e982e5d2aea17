"""What heads share: what is known of one before it runs, the mask, and the checks of their options."""

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from pipeline.adapter.pooling import Pooling

MOST = 1000  # of layers, attention heads and frames of distance: far above any use, and still made in seconds


class Head(nn.Module):
    """What is known of a head before it runs; D is ``num_features``, E ``embedding_size``."""

    framewise = False  # the embedding of a frame depends on that frame alone
    # Framewise, and trains with each frame of a batch once: has pooled_frames(frames, place, pooling).
    frames_once = False
    pools = False  # gives (B, E)
    # Has pair(left, left_valid, right, right_valid) -> logits (P,) of 'same', in two steps: side, then judge.
    pairs = False
    attends = False  # has attention_of(features, valid) -> (B,), by which windows of one clip are weighed
    learns = True  # has weights
    source = ""

    def __init__(self, num_features: int, embedding_size: int):
        super().__init__()
        self.num_features, self.embedding_size = num_features, embedding_size
        self.num_channels = num_features  # of what a head for pairs compares

    def pooled(self, features: torch.Tensor, valid: torch.Tensor, pooling: "Pooling") -> torch.Tensor:
        """Embeddings (B, E) of windows (B, T, D), by a head that gives one for each frame."""
        return pooling(self(features, valid), valid)


class Projected(Head):
    """A head whose last step, ``project``, is an affine map of each frame alone; ``hidden`` is all before it.

    A weighted mean of frames may be taken before such a map as well as after it: so a window is projected and not each
    of its frames. ``hidden`` (B, T, H) must be finite where ``valid`` is False too, and may be anything there.
    """

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return mask(self.project(self.hidden(features, valid)), valid)

    def pooled(self, features: torch.Tensor, valid: torch.Tensor, pooling: "Pooling") -> torch.Tensor:
        """The same embeddings, but for rounding, by a product of B rows and not of B * T."""
        return self._projected(self.hidden(features, valid), pooling.weights(valid))

    def _projected(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, E) of hidden (B, T, H) and the weights (B, T) of a pooling; zeros where no frame counts."""
        pooled = (weights.to(hidden.dtype).unsqueeze(1) @ hidden).squeeze(1)
        return mask(self.project(pooled), weights.any(dim=1))


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) of probability ``p``, whose draws on a CPU depend on the seed alone.

    PyTorch may draw other numbers from the same seed on another CPU: by its ``DistributionKernels.cpp`` MKL draws them
    on one of Intel (read, not run; see https://github.com/pytorch/pytorch/issues/121595). On others it takes five times
    as long as this, which takes 16 bits of torch's generator for each value. So ``p`` counts as the nearest multiple of
    1 / 65,536. ``whole`` is a dimension along which all is dropped or kept, such as the frames of (B, C, T): then whole
    channels of a window are dropped. On a CUDA device it is PyTorch's.
    """

    def __init__(self, p: float, whole: int | None = None) -> None:
        super().__init__()
        self.p, self.whole = p, whole

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return values
        shape = list(values.shape)
        if self.whole is not None:
            shape[self.whole] = 1
        if values.is_cuda:
            alike = self.whole is None
            return F.dropout(values, self.p) if alike else values * F.dropout(values.new_ones(shape), self.p)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        count = math.prod(shape)
        # From the least number on: else torch leaves the sign out, and with it one bit in 64.
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        kept = bits.view(torch.int16)[:count].view(shape) >= dropped - _LEVELS // 2
        return values * kept.to(values.dtype).mul_(_LEVELS / (_LEVELS - dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"


_LEVELS = 1 << 16


def mask(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(..., C) with zeros where ``valid`` (...) is False, NaN included; no gradient passes there.

    Where all is valid these are the ``values`` themselves.
    """
    # Counting what is missing would mean waiting for a CUDA device, and a graph (ONNX) cannot hang on it.
    if values.is_cuda or torch.compiler.is_exporting():
        return values.masked_fill(~valid.unsqueeze(-1), 0.0)
    missing = (~valid).flatten().nonzero().flatten()
    if not len(missing):
        return values
    return values.reshape(-1, values.shape[-1]).index_fill(0, missing, 0.0).view(values.shape)


def check_count(**named: Any) -> None:
    for name, value in named.items():
        if type(value) is not int or not 1 <= value <= MOST:
            raise ValueError(f"{name} must be a whole number from 1 to {MOST:,}, and is {value!r}")


def check_number(low: float, high: float, **named: Any) -> None:
    for name, value in named.items():
        if type(value) not in (int, float) or not low <= value < high:
            raise ValueError(f"{name} must be a number in [{low}, {high}), and is {value!r}")
