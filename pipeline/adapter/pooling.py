"""Poolings: what the head gives for each frame of a window (B, T, E), and ``valid`` (B, T) -> one embedding (B, E).

Each is a weighted mean over the valid frames, and zeros for a window where none of them counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.adapter.heads.common import mask


@dataclass(frozen=True)
class Pooling:
    """Embeddings (B, T, E), valid (B, T) -> (B, E), by ``weights``: valid (B, T) -> (B, T) float32.

    Weights are zero where a frame is missing, and their sum is 1, or 0 where no frame counts.
    """

    weights: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        weights = self.weights(valid).to(embeddings.dtype)
        return (weights.unsqueeze(1) @ mask(embeddings, valid)).squeeze(1)


def _mean(valid: torch.Tensor) -> torch.Tensor:
    return valid / valid.sum(dim=1, keepdim=True).clamp(min=1)


def _hann(valid: torch.Tensor) -> torch.Tensor:
    """Frame j of T weighted by Hann's sin²(pi (j + 1) / (T + 1)).

    From one frame to the next a plain mean changes by the two frames at its ends. This one fades them in and out, so it
    changes much less and looks as far. (Harris, "On the use of windows for harmonic analysis with the discrete
    Fourier transform", Proc. IEEE 1978.)
    """
    num_frames = valid.shape[1]
    place = torch.arange(1, num_frames + 1, device=valid.device, dtype=torch.float32)
    weights = torch.sin(torch.pi * place / (num_frames + 1)).square() * valid
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _centre(valid: torch.Tensor) -> torch.Tensor:
    """All of it frame T // 2, which is the one that the window is centred on."""
    place = torch.arange(valid.shape[1], device=valid.device)
    return (valid & (place == valid.shape[1] // 2)).float()


mean, hann, centre = Pooling(_mean), Pooling(_hann), Pooling(_centre)
POOLINGS = {"centre": centre, "mean": mean, "hann": hann}
