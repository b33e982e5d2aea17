"""Steadiness of an embedding in time."""

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss


class Steadiness(Loss):
    """(1 - c + ε) / (1 - s + ε): how far neighbouring frames are apart, as a share of how far strangers are.

    c is the mean cosine of neighbouring valid frames of a window that have one label. s is the mean cosine of the
    centre frames of windows of different videos. The loss is 1 less the ``steadiness`` of the evaluation. It is a share
    because 1 - c alone would be zero where all embeddings are one point. Here that point gives 1, as do neighbours that
    are no nearer than strangers, so shrinking towards it gains nothing. It says nothing about classes: it is a term
    beside another loss.

    Edge: without neighbours, or without two videos, it is zero.
    """

    takes = ("frames", "valid", "frame_labels", "videos")
    source = "our own: 1 - c over 1 - s, c of neighbouring frames, s of strangers"
    EPSILON = 1e-4  # well above the rounding of a mean cosine, well below any 1 - s worth having

    def forward(
        self,
        embeddings: torch.Tensor,
        frames: torch.Tensor,
        valid: torch.Tensor,
        frame_labels: torch.Tensor,
        videos: torch.Tensor,
    ) -> torch.Tensor:
        z = F.normalize(frames.masked_fill(~valid[..., None], 0.0), dim=2)
        near = valid[:, :-1] & valid[:, 1:]
        near = near & (frame_labels[:, :-1] >= 0) & (frame_labels[:, :-1] == frame_labels[:, 1:])
        middle = frames.shape[1] // 2
        seen = valid[:, middle]
        strangers = seen[:, None] & seen[None] & (videos[:, None] != videos[None])
        c = _mean_where(near, (z[:, :-1] * z[:, 1:]).sum(dim=2))
        s = _mean_where(strangers, z[:, middle] @ z[:, middle].T)
        return (1 - c + self.EPSILON) / (1 - s + self.EPSILON) * (near.any() & strangers.any())


def _mean_where(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return (mask * values).sum() / mask.sum().clamp(min=1)
