"""Same or different, for heads that compare two windows."""

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss


class PairBCE(Loss):
    """Binary cross-entropy of a pair head's logits, that the two of a pair (positions 2i, 2i + 1) have one label."""

    takes = ("pair_logits", "labels")
    likelihood = "classification"
    positional = True
    source = "binary cross-entropy on same/different pairs, for heads that compare two windows"

    def forward(self, embeddings: torch.Tensor, pair_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        n = len(pair_logits)
        same = labels[0 : 2 * n : 2] == labels[1 : 2 * n : 2]
        return F.binary_cross_entropy_with_logits(pair_logits, same.float())
