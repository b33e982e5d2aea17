"""A stacked hourglass: Newell, Yang and Deng 2016, https://arxiv.org/abs/1603.06937, section 3."""

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.datasets.points import POINTS

STRIDE = 2  # pixels of the picture in one of a heatmap
FLATTEST = 2.0  # grey levels: the deviation of a picture without contrast


def to_input(pictures: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) uint8 as (B, 3, S, S) float32, each picture by its own mean and deviation: a dark one is no other.

    The mean is that of all three channels, so that a colour remains one.
    """
    x = pictures.permute(0, 3, 1, 2).float()
    spread, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
    return (x - mean) / spread.clamp(min=FLATTEST)


def to_picture(points: torch.Tensor) -> torch.Tensor:
    """Points of a heatmap in pixels of the picture: the centre of the first pixel is (0, 0) in both."""
    return (points + 0.5) * STRIDE - 0.5


def to_heatmap(points: torch.Tensor) -> torch.Tensor:
    return (points + 0.5) / STRIDE - 0.5


class StackedHourglass(nn.Module):
    """Pictures (B, S, S, 3) uint8 -> heatmaps (B, stacks, 5, S / 2, S / 2) of ``POINTS``; the last stack's count.

    The paper's network at the size of a face: one convolution in front instead of four, and ``depth`` halvings in an
    hourglass. S / 2 must be a multiple of 2 ** ``depth``.
    """

    def __init__(self, stacks: int, channels: int, depth: int) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(3, channels, 4, STRIDE, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), Residual(channels)
        )
        self.hourglasses = nn.ModuleList(
            nn.Sequential(Hourglass(depth, channels), Residual(channels), _convolution(channels, channels))
            for _ in range(stacks)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, len(POINTS), 1) for _ in range(stacks))
        self.back = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(stacks - 1))
        self.again = nn.ModuleList(nn.Conv2d(len(POINTS), channels, 1) for _ in range(stacks - 1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x, found = self.front(to_input(pictures)), []
        for number, (hourglass, head) in enumerate(zip(self.hourglasses, self.heads, strict=True)):
            features = hourglass(x)
            found.append(head(features))
            if number < len(self.back):
                x = x + self.back[number](features) + self.again[number](found[-1])
        return torch.stack(found, dim=1)


class Hourglass(nn.Module):
    """Down by halves and up again, with a way across at each size; the paper's figure 3."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.across, self.down, self.up = (Residual(channels) for _ in range(3))
        self.inner = Hourglass(depth - 1, channels) if depth > 1 else Residual(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.across(x) + F.interpolate(low, scale_factor=2, mode="nearest")


class Residual(nn.Module):
    """He et al. 2016 (https://arxiv.org/abs/1603.05027): normalised before each convolution; half as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        layers = ((channels, half, 1), (half, half, 3), (half, channels, 1))
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.BatchNorm2d(of), nn.ReLU(), nn.Conv2d(of, to, size, padding=size // 2))
                for of, to, size in layers
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def _convolution(of: int, to: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(of, to, 1, bias=False), nn.BatchNorm2d(to), nn.ReLU())
