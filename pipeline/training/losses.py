"""Losses: ``loss(embeddings (B, E), labels (B,) int64) -> scalar``, float32 inside whatever comes in.

Embeddings need not be normalised: a loss that compares by cosine does that itself. A loss with class weights has
``classifies = True`` and ``logits(embeddings) -> (B, C)``; its weights are ordinary parameters, to be optimised and
checkpointed with the head's. A batch without any positive pair gives zero, with a gradient (of zeros).

``temperature`` is the *scale* t on cosines everywhere: logits = t · cos. The literature's τ, and
pytorch-metric-learning's ``temperature``, is 1/t.

To add one: the class, with constructor arguments named as those of the others, a line in ``LOSSES``, a test.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners
from torch import nn

from pipeline.training.choices import build


def in_float32(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A method of (self, embeddings, ...) that gets float32 embeddings and runs outside of autocast."""

    @functools.wraps(method)
    def wrapper(self: nn.Module, embeddings: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return method(self, embeddings.float(), *args)

    return wrapper


class ContrastiveCrossEntropy(nn.Module):
    """Symmetric cross-entropy between anchors (even positions) and partners (odd positions), several positives allowed.

    logits = t · A Bᵀ of the normalised embeddings; the target of a row is uniform over the partners with the anchor's
    label, that of a column likewise; (mean over rows + mean over columns) / 2. Two of a label in the same half are
    never compared: pair them by position, as the ``balanced`` sampler does.

    With labels = pair ids and the pairs interleaved this is the loss of CLIP (Radford et al. 2021, figure 3,
    https://arxiv.org/abs/2103.00020) and of Risser-Maroix et al. 2021 (https://arxiv.org/abs/2206.01417), who use
    t = 15.

    Edges: the last embedding of an odd batch is dropped; so are rows and columns without a positive; none left is
    zero. With one class in the batch the targets are uniform: then the loss pulls all cosines to be equal.
    """

    classifies = False

    def __init__(self, temperature: float = 15.0):
        super().__init__()
        self.temperature = _positive("temperature", temperature)

    @in_float32
    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        partners, partner_labels = F.normalize(embeddings[1::2]), labels[1::2]
        anchors, anchor_labels = F.normalize(embeddings[0::2][: len(partners)]), labels[0::2][: len(partners)]
        logits = self.temperature * anchors @ partners.T
        positives = (anchor_labels[:, None] == partner_labels[None, :]).float()
        return (
            _multi_positive_cross_entropy(logits, positives) + _multi_positive_cross_entropy(logits.T, positives.T)
        ) / 2


def _multi_positive_cross_entropy(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row with a uniform target over its positives; the mean over the rows that have any."""
    num_positives = positives.sum(dim=1)
    per_row = -(positives * logits.log_softmax(dim=1)).sum(dim=1) / num_positives.clamp(min=1)
    return per_row.sum() / (num_positives > 0).sum().clamp(min=1)


class SupCon(nn.Module):
    """SupCon, positives outside of the logarithm (Khosla et al. 2020, eq. 2, https://arxiv.org/abs/2004.11362).

    For an anchor: the mean over its positives of -log softmax(t · cos) over all others of the batch.
    pytorch-metric-learning's ``SupConLoss``.

    Edges: the mean is over the anchors whose loss is above zero. So an anchor without a positive is dropped (the
    authors' first code counted it as zero), and so is one that float32 finds perfect. A batch of one class only, or
    without a positive, is zero; for the one class the paper's sum would be log(B - 1) at least.
    """

    classifies = False

    def __init__(self, temperature: float = 15.0):
        super().__init__()
        self.loss = losses.SupConLoss(temperature=1 / _positive("temperature", temperature))

    @in_float32
    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(embeddings, labels)


class Triplet(nn.Module):
    """max(0, margin + cos(anchor, negative) - cos(anchor, positive)), the hardest of both for each anchor of the batch.

    Batch-hard mining: Hermans et al. 2017, eq. 5, https://arxiv.org/abs/1703.07737, with 1 - cos as the distance,
    which is half the squared distance of normalised embeddings. pytorch-metric-learning's miner and loss.

    Edges: the mean is over the triplets that violate the margin (the paper's, over all, fades as they become few);
    anchors without a positive or without a negative have no triplet; none left is zero.
    """

    classifies = False

    def __init__(self, margin: float = 0.2):
        super().__init__()
        cosine = distances.CosineSimilarity()
        self.miner = miners.BatchHardMiner(distance=cosine)
        self.loss = losses.TripletMarginLoss(margin=_positive("margin", margin), distance=cosine)

    @in_float32
    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(embeddings, labels, self.miner(embeddings, labels))


class ArcFace(nn.Module):
    """Cross-entropy of t · cos(θ + margin) for the own class against t · cos θ, θ the angle to a class weight.

    Deng et al. 2019, eq. 3, https://arxiv.org/abs/1801.07698; pytorch-metric-learning's ``ArcFaceLoss``, whose margin
    is in degrees: here it is in **radians**, as in the paper (0.5, which is 28.6 degrees). Where θ + margin would pass
    π, the own logit is t · (cos θ - margin · sin margin), which keeps it falling. The default scale is far under the
    paper's 64, which was for 85,000 identities: eq. 3 is then flat over a few classes.

    Edge: an embedding that lies on its class weight is held 1e-6 away in cosine, where arccos still has a slope.
    """

    classifies = True

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 30.0, margin: float = 0.5):
        super().__init__()
        if not 0 <= margin < math.pi / 2:
            raise ValueError(f"margin is an angle in radians, from 0 to π/2, and is {margin}")
        self.loss = _FiniteArcFace(
            num_classes, embedding_size, margin=math.degrees(margin), scale=_positive("temperature", temperature)
        )

    @in_float32
    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(embeddings, labels)

    @in_float32
    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """t · cos θ (B, C), without the margin, which is for training only."""
        return self.loss.get_logits(embeddings)


class _FiniteArcFace(losses.ArcFaceLoss):
    def get_angles(self, cosine_of_target_classes: torch.Tensor) -> torch.Tensor:
        # arccos has an infinite slope at 1 and -1, which clamp(-1, 1) lets through before torch 2.15 or so
        # (pytorch/pytorch#184574); one NaN gradient would end the run.
        return super().get_angles(cosine_of_target_classes.clamp(-1 + 1e-6, 1 - 1e-6))


class CrossEntropy(nn.Module):
    """Cross-entropy of a linear classifier on the embeddings as they are: their length counts here."""

    classifies = True

    def __init__(self, num_classes: int, embedding_size: int, label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), and is {label_smoothing}")
        self.classifier = nn.Linear(embedding_size, num_classes)
        self.label_smoothing = label_smoothing

    @in_float32
    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.classifier(embeddings), labels, label_smoothing=self.label_smoothing)

    @in_float32
    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The classifier's logits (B, C)."""
        return self.classifier(embeddings)


def _positive(what: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{what} must be above 0, and is {value}")
    return value


def build_loss(name: str, **available: Any) -> nn.Module:
    """The named loss; it gets those of ``available`` that its constructor names, and None is its own default.

    Raises ``UserError`` for an unknown name, a missing argument (``num_classes`` where labels are no classes) and a
    value out of range.
    """
    return build("loss", LOSSES, name, available)


LOSSES: dict[str, type[nn.Module]] = {
    "contrastive_cross_entropy": ContrastiveCrossEntropy,
    "triplet": Triplet,
    "arcface": ArcFace,
    "supcon": SupCon,
    "cross_entropy": CrossEntropy,
}
