"""Losses that compare the embeddings of a batch: which shall be near, which far."""

import math

import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners

from pipeline.training.losses.common import Loss, choice, in_range, positive, zero


class ContrastiveCrossEntropy(Loss):
    """Symmetric cross-entropy between anchors (even positions) and partners (odd positions), several positives allowed.

    logits = t · (A Bᵀ - margin on the positives) of the normalised embeddings; the target of a row is uniform over the
    positives, that of a column likewise; (mean over rows + mean over columns) / 2. Two of a label in the same half
    are never compared: pair them by position, as the ``balanced`` sampler does.

    With labels = pair ids and the pairs interleaved this is the loss of CLIP (Radford et al. 2021, figure 3,
    https://arxiv.org/abs/2103.00020) and of Risser-Maroix et al. 2021 (https://arxiv.org/abs/2206.01417), who use
    t = 15. ``margin``, on the cosine, is that of additive margin softmax (Yang et al. 2019,
    https://arxiv.org/abs/1902.08564).

    ``positives``: 'label', all of the same label in the other half; 'position', the own partner only, while others of
    the label are left out of the denominator. ``negatives_per_class`` n: only the n nearest partners of each other
    class stay in a row's denominator, and the n nearest anchors in a column's; None: all.

    Edges: rows and columns without a positive are dropped; none left is zero. With one class in the batch the targets
    are uniform: then the loss pulls all cosines to be equal.
    """

    takes = ("labels", "groups")
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
        logits = self.temperature * (cosines - self.margin * positives)
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
    """Cross-entropy of each row, over its positives and negatives, with a uniform target over its positives.

    The mean over the rows that have any positive. What is neither takes no part.
    """
    num_positives = positives.sum(dim=1)
    # Not -inf, whose gradient is NaN in a row that has neither.
    log_total = logits.masked_fill(~(positives | negatives), torch.finfo(logits.dtype).min).logsumexp(dim=1)
    per_row = (positives * (log_total[:, None] - logits)).sum(dim=1) / num_positives.clamp(min=1)
    return per_row.sum() / (num_positives > 0).sum().clamp(min=1)


class SupCon(Loss):
    """SupCon, positives outside of the logarithm (Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362).

    For an anchor: the mean over its positives of -log softmax(t · cos) over all its positives and negatives.
    pytorch-metric-learning's ``SupConLoss``.

    Edges: the mean is over the anchors whose loss is above zero. So an anchor without a positive is dropped (the
    authors' first code counted it as zero), and so is one that float32 finds perfect. A batch of one class only, or
    without a positive, is zero; for the one class the paper's sum would be log(B - 1) at least.
    """

    takes = ("labels", "groups")
    source = "Khosla 2020, arxiv.org/abs/2004.11362"

    def __init__(self, temperature: float = 15.0):
        super().__init__()
        self.loss = losses.SupConLoss(temperature=1 / positive("temperature", temperature))

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.loss(embeddings, labels, _indices(*_pairs(labels, groups)))


class Triplet(Loss):
    """max(0, margin + cos(anchor, negative) - cos(anchor, positive)), over the mined triplets of the batch.

    1 - cos is half the squared distance of normalised embeddings. pytorch-metric-learning's loss and miners.
    ``mining``:

    - 'semi_hard': for each positive pair the nearest of the negatives that are farther from the anchor than the
      positive (Schroff et al. 2015, eq. 4, https://arxiv.org/abs/1503.03832)
    - 'batch_all': all that violate the margin (Hermans et al. 2017, eq. 6, https://arxiv.org/abs/1703.07737)
    - 'batch_hard': for each anchor the farthest positive and the nearest negative (the same, eq. 5)
    - 'distance_weighted': for each positive of an anchor (drawn at random, too) a negative, drawn with a probability
      inverse to the density of its distance (Wu et al. 2017, section 4, https://arxiv.org/abs/1706.07567), never one
      below a cosine of 0.02; drawn from torch's global generator

    Semi-hard is the default because batch-hard collapses where classes are hard to tell apart: where every anchor has
    a negative nearer than its farthest positive, one point for all is better than what is, and near it the slope of
    the cosine fades (as Hermans et al. found for squared distances). On made features in which identity outweighs
    expression, ten epochs of batch-hard ended at mean cosines of 0.990 (same) and 0.986 (different) on the training
    windows, with a soft margin at 0.988 and 0.984; semi-hard and batch-all at 0.94 and -0.16.

    Edges: the mean is over the triplets that violate the margin (the papers', over all, fades as they become few);
    anchors without a positive or without a negative have no triplet; none left is zero. 'batch_all' takes time and
    memory with the cube of the batch.
    """

    takes = ("labels", "groups")
    source = "mining: Schroff 2015, arxiv.org/abs/1503.03832; Hermans 2017, 1703.07737; Wu 2017, 1706.07567"
    MININGS = ("semi_hard", "batch_all", "batch_hard", "distance_weighted")

    def __init__(self, margin: float = 0.2, mining: str = "semi_hard"):
        super().__init__()
        cosine = distances.CosineSimilarity()
        self.loss = losses.TripletMarginLoss(margin=positive("margin", margin), distance=cosine)
        self.mining = choice("mining", mining, self.MININGS)
        self.miner = {
            "batch_all": miners.TripletMarginMiner(margin, type_of_triplets="all", distance=cosine),
            "distance_weighted": miners.DistanceWeightedMiner(),
        }.get(mining)

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        positives, negatives = _pairs(labels, groups)
        if self.miner is None:
            # The library's own know no groups, and what they find can't be filtered: the next hardest is wanted.
            find = {"semi_hard": _semi_hard, "batch_hard": _batch_hard}[self.mining]
            triplets = find(_cosines(embeddings.detach()), positives, negatives)
        else:
            found = self.miner(embeddings, labels)
            kept = positives[found[0], found[1]]
            triplets = tuple(index[kept] for index in found)
        return self.loss(embeddings, labels, triplets)


Triplets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # anchors, positives, negatives


def _semi_hard(cosines: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> Triplets:
    nearer, order = cosines.masked_fill(~negatives, torch.inf).sort(dim=1)
    below = torch.searchsorted(nearer, cosines) - 1  # the largest that is smaller; -1: there is none
    anchors, positive = torch.where(positives & (below >= 0))
    return anchors, positive, order[anchors, below[anchors, positive]]


def _batch_hard(cosines: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> Triplets:
    anchors = (positives.any(dim=1) & negatives.any(dim=1)).nonzero().squeeze(1)
    farthest = cosines.masked_fill(~positives, torch.inf).argmin(dim=1)
    nearest = cosines.masked_fill(~negatives, -torch.inf).argmax(dim=1)
    return anchors, farthest[anchors], nearest[anchors]


class MultiSimilarity(Loss):
    """Positives pulled above and negatives pushed below a cosine λ, each the more the harder it is.

    For an anchor log(1 + Σ exp(-α (cos - λ))) / α over its mined positives, and log(1 + Σ exp(β (cos - λ))) / β over
    its mined negatives. A positive is mined where its cosine is less than ``epsilon`` above the nearest negative's, a
    negative where its is less than ``epsilon`` below the farthest positive's. Wang et al. 2019,
    https://arxiv.org/abs/1904.06627; pytorch-metric-learning's ``MultiSimilarityLoss``. ``base`` is λ. There are two
    scales, α and β, so it takes no ``temperature``.

    Edges: the mean is over all of the batch; an anchor without a positive or without a negative counts as zero, and a
    batch in which one pair of each kind is mined, or fewer, is zero.
    """

    takes = ("labels", "groups")
    source = "Wang 2019, arxiv.org/abs/1904.06627"

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1):
        super().__init__()
        self.epsilon = in_range("epsilon", epsilon, 0, math.inf)
        self.loss = losses.MultiSimilarityLoss(
            alpha=positive("alpha", alpha), beta=positive("beta", beta), base=in_range("base", base, -1, 1)
        )

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        positives, negatives = _pairs(labels, groups)
        cosines = _cosines(embeddings.detach())
        nearest_negative = cosines.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
        farthest_positive = cosines.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
        positives = positives & (cosines - self.epsilon < nearest_negative)
        negatives = negatives & (cosines + self.epsilon > farthest_positive)
        return self.loss(embeddings, labels, _indices(positives, negatives))


class Circle(Loss):
    """For an anchor log(1 + Σ exp(t · αₙ (cosₙ - m)) · Σ exp(-t · αₚ (cosₚ - (1 - m)))) over its negatives, positives.

    αₙ = max(0, cosₙ + m) and αₚ = max(0, 1 + m - cosₚ), without a gradient: Sun et al. 2020, eq. 6,
    https://arxiv.org/abs/2002.10857; pytorch-metric-learning's ``CircleLoss``. ``margin`` is m, a cosine: a pair of one
    class is wanted above 1 - m, of two below m. The paper's t is 80 for images of fine classes and 256 for faces.

    Edges: the mean is over the anchors that have both kinds; none is zero.
    """

    takes = ("labels", "groups")
    source = "Sun 2020, arxiv.org/abs/2002.10857"

    def __init__(self, temperature: float = 80.0, margin: float = 0.4):
        super().__init__()
        self.loss = losses.CircleLoss(m=in_range("margin", margin, 0, 1), gamma=positive("temperature", temperature))

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.loss(embeddings, labels, _indices(*_pairs(labels, groups)))


class PairBCE(Loss):
    """Binary cross-entropy of a pair head's logits, that the two of a pair (positions 2i, 2i + 1) have one label."""

    takes = ("pair_logits", "labels")
    positional = True
    source = "binary cross-entropy on same/different pairs, for heads that compare two windows"

    def forward(self, embeddings: torch.Tensor, pair_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        n = len(pair_logits)
        same = labels[0 : 2 * n : 2] == labels[1 : 2 * n : 2]
        return F.binary_cross_entropy_with_logits(pair_logits, same.float())


class RankNContrast(Loss):
    """Nearer in valence and arousal, nearer in cosine: each other window j is the positive of an anchor i in its turn.

    -log(exp(t · cosᵢⱼ) / Σₖ exp(t · cosᵢₖ)) over all k no nearer to i in valence and arousal than j is; the mean over
    all i and j ≠ i. Zha et al. 2023, section 3, https://arxiv.org/abs/2210.01189, with the cosine in place of their
    negative distance, since embeddings are compared by it, and the distance in the plane for that of two labels.

    Edges: ties count as no nearer. Fewer than two rows are zero; where all have the same target, the loss pulls all
    cosines to be equal.
    """

    takes = ("va",)
    source = "Zha 2023, arxiv.org/abs/2210.01189"

    def __init__(self, temperature: float = 15.0):
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def forward(self, embeddings: torch.Tensor, va: torch.Tensor) -> torch.Tensor:
        if len(embeddings) < 2:
            return zero(embeddings)
        distance = (va[:, None] - va[None]).square().sum(dim=2)  # squared, which ranks alike
        distance.fill_diagonal_(-1.0)  # oneself: sorted last, and cut off
        descending, order = distance.sort(dim=1, descending=True)
        nearness, order = -descending[:, :-1].contiguous(), order[:, :-1]
        logits = (self.temperature * _cosines(embeddings)).gather(1, order)
        last_tied = torch.searchsorted(nearness, nearness, right=True) - 1
        return (logits.logcumsumexp(dim=1).gather(1, last_tied) - logits).mean()


def _pairs(labels: torch.Tensor, groups: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Who is a positive and who a negative of whom, as two masks (B, B); nobody is either of oneself."""
    same = labels[:, None] == labels[None]
    positives = same.clone().fill_diagonal_(False)
    if groups is not None:
        positives &= groups[:, None] != groups[None]
    return positives, ~same


def _indices(positives: torch.Tensor, negatives: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The two masks as pytorch-metric-learning takes them: anchors, positives, anchors, negatives."""
    return (*torch.where(positives), *torch.where(negatives))


def _cosines(embeddings: torch.Tensor) -> torch.Tensor:
    normalised = F.normalize(embeddings)
    return normalised @ normalised.T
