"""Losses with weights of their own, which say what an embedding shows: class, valence and arousal, action units."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses
from torch import nn

from pipeline.training.losses.common import Loss, choice, in_range, is_number, positive


class ArcFace(Loss):
    """Cross-entropy of t · cos(θ + margin) for the own class against t · cos θ, θ the angle to a class weight.

    Deng et al. 2019, eq. 3, https://arxiv.org/abs/1801.07698; pytorch-metric-learning's ``ArcFaceLoss``, whose margin
    is in degrees: here it is in **radians**, as in the paper (0.5, which is 28.6 degrees). Where θ + margin would pass
    π, the own logit is t · (cos θ - margin · sin margin), which keeps it falling. The default scale is far under the
    paper's 64, which was for 85,000 identities: eq. 3 is then flat over a few classes.

    Edge: an embedding that lies on its class weight is held 1e-6 away in cosine, where arccos still has a slope.
    """

    predicts = "classes"
    source = "Deng 2019, arxiv.org/abs/1801.07698"

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 30.0, margin: float = 0.5):
        super().__init__()
        if not is_number(margin) or not 0 <= margin < math.pi / 2:
            raise ValueError(f"margin is an angle in radians, from 0 to π/2, and is {margin!r}")
        self.loss = _FiniteArcFace(
            num_classes, embedding_size, margin=math.degrees(margin), scale=positive("temperature", temperature)
        )

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(embeddings, labels)

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """t · cos θ (B, C), without the margin, which is for training only."""
        return self.loss.get_logits(embeddings)


class _FiniteArcFace(losses.ArcFaceLoss):
    def get_angles(self, cosine_of_target_classes: torch.Tensor) -> torch.Tensor:
        # arccos has an infinite slope at 1 and -1, which clamp(-1, 1) lets through before torch 2.15 or so
        # (pytorch/pytorch#184574); one NaN gradient would end the run.
        return super().get_angles(cosine_of_target_classes.clamp(-1 + 1e-6, 1 - 1e-6))


class CosFace(Loss):
    """Cross-entropy of t · (cos θ - margin) for the own class against t · cos θ, θ the angle to a class weight.

    Wang et al. 2018, eq. 4, https://arxiv.org/abs/1801.09414; pytorch-metric-learning's ``CosFaceLoss``. ``margin`` is
    a cosine. The scale is smaller than the paper's 64, as in ``arcface``.
    """

    predicts = "classes"
    source = "Wang 2018, arxiv.org/abs/1801.09414"

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 30.0, margin: float = 0.35):
        super().__init__()
        self.loss = losses.CosFaceLoss(
            num_classes, embedding_size, margin=in_range("margin", margin, 0, 2),
            scale=positive("temperature", temperature),
        )  # fmt: skip

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(embeddings, labels)

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """t · cos θ (B, C), without the margin."""
        return self.loss.get_logits(embeddings)


class ProxyAnchor(Loss):
    """Each class has a proxy, and each proxy pulls its own embeddings and pushes all others, the hardest the most.

    mean over the classes in the batch of log(1 + Σ exp(-t (cos - margin))) over the class's embeddings + mean over all
    classes of log(1 + Σ exp(t (cos + margin))) over the others': Kim et al. 2020, eq. 4,
    https://arxiv.org/abs/2003.13911; pytorch-metric-learning's ``ProxyAnchorLoss``. ``margin`` is a cosine.
    """

    predicts = "classes"
    source = "Kim 2020, arxiv.org/abs/2003.13911"

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 32.0, margin: float = 0.1):
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.loss = losses.ProxyAnchorLoss(
            num_classes, embedding_size, margin=in_range("margin", margin, 0, 1), alpha=temperature
        )

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(embeddings, labels)

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """t times the cosine to each proxy (B, C)."""
        return self.temperature * self.loss.get_logits(embeddings)


class CrossEntropy(Loss):
    """Cross-entropy of a linear classifier on the embeddings as they are: their length counts here.

    ``class_weights`` 'balanced': a row weighs W / (C · n_y), n_y being the training windows of its class, and the mean
    is a weighted one. ``label_smoothing`` ε: the target is 1 - ε for the label and ε / C for all. ``focal_gamma`` γ:
    each row times (1 - p_y)^γ (Lin et al. 2017, eq. 4, https://arxiv.org/abs/1708.02002). ``logit_adjustment`` τ: in
    training τ · log(n_c / W) is added to the logits (Menon et al. 2021, eq. 10, https://arxiv.org/abs/2007.07314), so
    that those of ``predict`` are for classes of equal frequency. The τ of ``logit_adjustment`` is 1 in the paper; it is
    no temperature.

    Edge: a class that has no training window counts as having one.
    """

    predicts = "classes"
    source = "focal: Lin 2017, arxiv.org/abs/1708.02002; logit adjustment: Menon 2021, arxiv.org/abs/2007.07314"

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        class_counts: Sequence[int] | None = None,
        class_weights: str = "none",
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        logit_adjustment: float = 0.0,
    ):
        super().__init__()
        balanced = choice("class_weights", class_weights, ("none", "balanced")) == "balanced"
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1)
        self.focal_gamma = in_range("focal_gamma", focal_gamma, 0, math.inf)
        in_range("logit_adjustment", logit_adjustment, 0, math.inf)
        if (balanced or logit_adjustment) and (class_counts is None or len(class_counts) != num_classes):
            raise ValueError(f"class_weights and logit_adjustment need {num_classes} class_counts, not {class_counts}")
        counts = torch.ones(num_classes) if class_counts is None else torch.tensor(class_counts).float().clamp(min=1)
        # Not persistent: they follow from class_counts.
        weights = counts.sum() / (num_classes * counts) if balanced else torch.ones(num_classes)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("adjustment", logit_adjustment * (counts / counts.sum()).log(), persistent=False)
        self.classifier = nn.Linear(embedding_size, num_classes)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.predict(embeddings) + self.adjustment
        per_row = F.cross_entropy(logits, labels, self.weights, reduction="none", label_smoothing=self.label_smoothing)
        if self.focal_gamma:
            log_p = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
            per_row = per_row * (-log_p.expm1()).clamp(min=1e-12) ** self.focal_gamma  # at 0 a γ < 1 has no slope
        return per_row.sum() / self.weights[labels].sum()

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The classifier's logits (B, C)."""
        return self.classifier(embeddings)


class CCC(Loss):
    """1 - the mean of the concordance correlation coefficients of valence and arousal, over the batch.

    tanh of a linear map of the embeddings predicts both. CCC = 2 cov / (var + var + (difference of means)²), the
    variances those of the batch itself (Lin 1989, https://doi.org/10.2307/2532051; the measure of ABAW).

    Edge: where prediction or target is constant in the batch its CCC is 0, and 1e-8 in the denominator keeps it so.
    """

    takes = ("va",)
    predicts = "va"
    source = "Lin 1989, doi.org/10.2307/2532051"

    def __init__(self, embedding_size: int):
        super().__init__()
        self.regressor = nn.Linear(embedding_size, 2)

    def forward(self, embeddings: torch.Tensor, va: torch.Tensor) -> torch.Tensor:
        predicted = self.predict(embeddings)
        mean, target_mean = predicted.mean(dim=0), va.mean(dim=0)
        covariance = ((predicted - mean) * (va - target_mean)).mean(dim=0)
        spread = (predicted - mean).square().mean(dim=0) + (va - target_mean).square().mean(dim=0)
        return 1 - (2 * covariance / (spread + (mean - target_mean).square() + 1e-8)).mean()

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Valence and arousal (B, 2), within (-1, 1)."""
        return self.regressor(embeddings).tanh()


class BCE(Loss):
    """Binary cross-entropy of a linear map of the embeddings, one logit an action unit; the mean over all known cells.

    NaN cells are unknown, and left out.
    """

    takes = ("aus",)
    predicts = "aus"
    source = "binary cross-entropy, one an action unit"

    def __init__(self, num_aus: int, embedding_size: int):
        super().__init__()
        self.classifier = nn.Linear(embedding_size, num_aus)

    def forward(self, embeddings: torch.Tensor, aus: torch.Tensor) -> torch.Tensor:
        known = ~aus.isnan()
        return F.binary_cross_entropy_with_logits(self.predict(embeddings)[known], aus[known])

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (B, A); the sigmoid is the probability that a unit is active."""
        return self.classifier(embeddings)
