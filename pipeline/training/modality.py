"""Modality dropout: in training, whole stores are hidden from windows, so that the head learns to do without each."""

from collections.abc import Sequence

import torch


class ModalityDropout:
    """Hides each store from a window with a chance of ``share``, but never all that the window has.

    ``columns`` are those of each store in the inputs of the head. Where the draw hides all, one of them, each with the
    same chance, is shown. Hidden is as absent: zeros, on all frames of the window. Neverova et al. 2016 (ModDrop),
    https://arxiv.org/abs/1501.00102.
    """

    def __init__(self, share: float, columns: Sequence[slice]) -> None:
        self.share, self.columns = share, list(columns)

    def draw(self, num_windows: int, present: torch.Tensor | None) -> torch.Tensor:
        """Which stores (B, S) are hidden from each window; ``present`` (B, S) are those it has, None: all of them.

        By torch's global generator of the CPU, whose state is part of what a killed training goes on from.
        """
        draws = torch.rand(num_windows, len(self.columns))
        if present is not None:
            draws = draws.to(present.device).masked_fill(~present, -1.0)  # what is not there cannot be what stays
        hidden = draws < self.share
        return hidden.scatter(1, draws.argmax(dim=1, keepdim=True), False)
