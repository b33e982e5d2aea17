"""What heads share: what is known of one before it runs, the mask, and the checks of their options."""

from typing import Any

import torch
from torch import nn

MOST = 1000  # of layers, attention heads and frames of distance: far above any use, and still made in seconds


class Head(nn.Module):
    """What is known of a head before it runs; D is ``num_features``, E ``embedding_size``."""

    framewise = False  # the embedding of a frame depends on that frame alone
    pools = False  # gives (B, E)
    # Has pair(left, left_valid, right, right_valid) -> logits (P,) of 'same', in two steps: side, then judge.
    pairs = False
    learns = True  # has weights
    source = ""

    def __init__(self, num_features: int, embedding_size: int):
        super().__init__()
        self.num_features, self.embedding_size = num_features, embedding_size
        self.num_channels = num_features  # of what a head for pairs compares


def mask(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(..., C) with zeros where ``valid`` (...) is False, NaN included; no gradient passes there."""
    return values.masked_fill(~valid.unsqueeze(-1), 0.0)


def check_count(**named: Any) -> None:
    for name, value in named.items():
        if type(value) is not int or not 1 <= value <= MOST:
            raise ValueError(f"{name} must be a whole number from 1 to {MOST:,}, and is {value!r}")


def check_number(low: float, high: float, **named: Any) -> None:
    for name, value in named.items():
        if type(value) not in (int, float) or not low <= value < high:
            raise ValueError(f"{name} must be a number in [{low}, {high}), and is {value!r}")
