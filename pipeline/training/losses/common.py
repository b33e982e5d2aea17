"""What the losses share: what a term is, and the checks of its options."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Loss(nn.Module):
    """One term: ``forward(embeddings, *entries)`` gives a scalar, with the entries of the batch that ``takes`` names.

    labels (B,) int64 >= 0; groups (B,) int64 or None; va (B, 2), aus (B, A) 0/1, outputs (B, K), with NaN for unknown;
    frames (B, T, E), valid (B, T), frame_labels (B, T) (-1: none), videos (B,); pair_logits (B // 2,).

    A pair of one label is positive, a pair of two labels negative. With ``groups`` (who a window shows) a pair of one
    label and one group is neither.
    """

    takes: tuple[str, ...] = ("labels",)
    # 'classes', 'va', 'aus' or 'outputs', for a loss that ``trains`` a predictor of them. Its first argument is then
    # what this predictor gives, and not the embeddings.
    predicts: str | None = None
    trains: dict[str, Any] | None = None  # what the predictor is: see adapter.predictors.Predictors
    # 'classification' or 'regression', where it is, or stands for, the negative logarithm of a likelihood, so that its
    # weight can be learned: see build.WeightedSum. None for others, such as hinges, which are 0 when they are content.
    likelihood: str | None = None
    positional: bool = False  # anchors at even, partners at odd positions; the last row of an odd batch is left out
    source: str = ""  # one line: paper and link

    def __init__(self) -> None:  # nn.Module's own takes *args, and its signature would be read as options
        super().__init__()


def zero(*tensors: torch.Tensor) -> torch.Tensor:
    """Zero, with a gradient of zeros to each of the tensors."""
    return sum((x.sum() * 0.0 for x in tensors), torch.zeros(()))


def positive(what: str, value: float) -> float:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{what} must be above 0, and is {value!r}")
    return value


def in_range(what: str, value: float, low: float, high: float) -> float:
    if not is_number(value) or not low <= value < high:
        raise ValueError(f"{what} must be in [{low}, {high}), and is {value!r}")
    return value


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choice(what: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{what} must be one of {list(known)}, and is {value!r}")
    return value


def pair_masks(labels: torch.Tensor, groups: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows are positives and which negatives of each row, as two masks (B, B); a row is neither of itself.

    Rows of one label are positives, except those of one group. Rows of two labels are negatives.
    """
    same = labels[:, None] == labels[None]
    positives = same.clone().fill_diagonal_(False)
    if groups is not None:
        positives &= groups[:, None] != groups[None]
    return positives, ~same


def indices(positives: torch.Tensor, negatives: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The two masks as pytorch-metric-learning takes them: anchors, positives, anchors, negatives."""
    return (*torch.where(positives), *torch.where(negatives))


def cosine_matrix(embeddings: torch.Tensor) -> torch.Tensor:
    """The cosines (B, B) of all pairs of embeddings (B, E)."""
    normalised = F.normalize(embeddings)
    return normalised @ normalised.T
