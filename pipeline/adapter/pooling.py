"""Poolings: what the head gives for each frame of a window (B, T, E), and ``valid`` (B, T) -> one embedding (B, E)."""

import torch

from pipeline.adapter.heads.common import mask


def mean(embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The mean over the valid frames (B, E); zeros for a window that has none."""
    counts = valid.sum(dim=1, keepdim=True).clamp(min=1)
    return mask(embeddings, valid).sum(dim=1) / counts


def hann(embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The mean over the valid frames (B, E), frame j of T weighted by Hann's sin²(pi (j + 1) / (T + 1)).

    From one frame to the next a plain mean changes by the two frames at its ends. This one fades them in and out, so it
    changes much less and looks as far. (Harris, "On the use of windows for harmonic analysis with the discrete
    Fourier transform", Proc. IEEE 1978.) Zeros for a window that has no valid frame.
    """
    num_frames = embeddings.shape[1]
    place = torch.arange(1, num_frames + 1, device=embeddings.device, dtype=embeddings.dtype)
    weights = torch.sin(torch.pi * place / (num_frames + 1)).square() * valid
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return (mask(embeddings, valid) * weights.unsqueeze(-1)).sum(dim=1)


def centre(embeddings: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The embedding (B, E) of frame T // 2, which is the one that the window is centred on."""
    return embeddings[:, embeddings.shape[1] // 2]


POOLINGS = {"centre": centre, "mean": mean, "hann": hann}
