"""Cross-entropy between the two halves of a batch, several positives a row allowed: of CLIP's kind."""

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss, choice, in_range, positive


class ContrastiveCrossEntropy(Loss):
    """Symmetric cross-entropy between anchors (even positions) and partners (odd positions), several positives allowed.

    logits = t · (A Bᵀ - margin on the positives) of the normalised embeddings; the target of a row is uniform over the
    positives, that of a column likewise; (mean over rows + mean over columns) / 2. Two of a label in the same half
    are never compared: pair them by position, as the ``balanced`` sampler does.

    With labels = pair ids and the pairs interleaved this is the loss of CLIP (Radford et al. 2021, figure 3,
    https://arxiv.org/abs/2103.00020) and of Risser-Maroix et al. 2021 (https://arxiv.org/abs/2206.01417), who use
    t = 15. ``margin`` is on the cosine, as in additive margin softmax (Yang et al. 2019,
    https://arxiv.org/abs/1902.08564).

    ``positives``: 'label', all of the same label in the other half; 'position', the own partner only, while others of
    the label are left out of the denominator. ``negatives_per_class`` n: only the n nearest partners of each other
    class stay in a row's denominator, and the n nearest anchors in a column's; None: all.

    Edges: rows and columns without a positive are dropped; none left is zero. With one class in the batch the targets
    are uniform: then the loss pulls all cosines to be equal.
    """

    takes = ("labels", "groups")
    likelihood = "classification"
    positional = True
    source = "CLIP, Radford 2021, arxiv.org/abs/2103.00020; margin: Yang 2019, arxiv.org/abs/1902.08564"

    def __init__(
        self,
        temperature: float = 15.0,
        margin: float = 0.0,
        negatives_per_class: int | None = None,
        positives: str = "label",
    ):
        super().__init__()
        if negatives_per_class is not None and (type(negatives_per_class) is not int or negatives_per_class < 1):
            raise ValueError(f"negatives_per_class must be a whole number from 1, and is {negatives_per_class!r}")
        self.temperature, self.margin = positive("temperature", temperature), in_range("margin", margin, 0, 2)
        self.negatives_per_class = negatives_per_class
        self.by_position = choice("positives", positives, ("label", "position")) == "position"

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        n = len(embeddings) // 2
        even, odd = slice(0, 2 * n, 2), slice(1, 2 * n, 2)
        cosines = F.normalize(embeddings[even]) @ F.normalize(embeddings[odd]).T
        positives = labels[even, None] == labels[None, odd]
        negatives = ~positives
        if self.by_position:
            positives = positives & torch.eye(n, dtype=torch.bool, device=labels.device)
        if groups is not None:
            positives = positives & (groups[even, None] != groups[None, odd])
        logits = self.temperature * (cosines - self.margin * positives if self.margin else cosines)
        rows, columns = negatives, negatives.T
        if self.negatives_per_class:
            rows = rows & _nearest_of_each_class(cosines, labels[odd], self.negatives_per_class)
            columns = columns & _nearest_of_each_class(cosines.T, labels[even], self.negatives_per_class)
        return (
            _multi_positive_cross_entropy(logits, positives, rows)
            + _multi_positive_cross_entropy(logits.T, positives.T, columns)
        ) / 2


def _nearest_of_each_class(cosines: torch.Tensor, labels: torch.Tensor, n: int) -> torch.Tensor:
    """Mask (R, C): in each row the ``n`` columns of each label with the largest cosines; ``labels`` (C,)."""
    nearest_first = cosines.argsort(dim=1, descending=True)
    class_by_class = nearest_first.gather(1, labels[nearest_first].argsort(dim=1, stable=True))
    sorted_labels = labels.sort().values  # of every row of class_by_class
    rank = torch.arange(len(labels), device=labels.device) - torch.searchsorted(sorted_labels, sorted_labels)
    return torch.zeros_like(cosines, dtype=torch.bool).scatter(1, class_by_class, (rank < n).expand_as(cosines))


def _multi_positive_cross_entropy(
    logits: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of each row over its positives and negatives, with a uniform target over its positives.

    The mean is over the rows that have a positive. Columns that are neither positive nor negative are left out.
    """
    num_positives = positives.sum(dim=1)
    # Not -inf, whose gradient is NaN in a row that has neither.
    left_out = ~(positives | negatives)
    if logits.is_cuda or left_out.any():
        log_total = logits.masked_fill(left_out, torch.finfo(logits.dtype).min).logsumexp(dim=1)
    else:
        log_total = logits.logsumexp(dim=1)
    weights = positives / num_positives.clamp(min=1)[:, None]
    has_positive = num_positives > 0
    return (log_total * has_positive - (weights * logits).sum(dim=1)).sum() / has_positive.sum().clamp(min=1)
