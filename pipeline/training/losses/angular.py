"""Cross-entropy of cosines to class weights, with a margin for the own class: ArcFace and CosFace."""

import math

import torch
import torch.nn.functional as F

from pipeline.training.losses.common import Loss, in_range, is_number, positive


class Angular(Loss):
    """Cross-entropy of t · cos θ, where the cosine of the own class is replaced by ``with_margin`` of it."""

    predicts = "classes"
    likelihood = "classification"

    def __init__(self, num_classes: int, temperature: float):
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.trains = {"kind": "cosine", "num_outputs": num_classes, "scale": temperature}

    def forward(self, cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        own_class = F.one_hot(labels, cosines.shape[1])
        own = cosines[own_class == 1]
        cosines = cosines + own_class * (self.with_margin(own) - own).unsqueeze(1)
        return F.cross_entropy(cosines * self.temperature, labels, reduction="none").mean()

    def with_margin(self, cosine: torch.Tensor) -> torch.Tensor:
        """The cosines (B,) of the own classes, made harder."""
        raise NotImplementedError


class ArcFace(Angular):
    """Cross-entropy of t · cos(θ + margin) for the own class against t · cos θ, θ the angle to a class weight.

    Deng et al. 2019, eq. 3, https://arxiv.org/abs/1801.07698. ``margin`` is an angle in **radians**, as in the paper
    (0.5, which is 28.6 degrees). Where θ + margin would pass π, the own logit is t · (cos θ - margin · sin margin),
    which keeps it falling. The default scale is far under the paper's 64, which was for 85,000 identities: eq. 3 is
    then flat over a few classes.

    Edge: an embedding that lies on its class weight is held 1e-6 away in cosine, where arccos still has a slope.
    """

    source = "Deng 2019, arxiv.org/abs/1801.07698"

    def __init__(self, num_classes: int, temperature: float = 30.0, margin: float = 0.5):
        if not is_number(margin) or not 0 <= margin < math.pi / 2:
            raise ValueError(f"margin is an angle in radians, from 0 to π/2, and is {margin!r}")
        super().__init__(num_classes, temperature)
        self.margin = margin

    def with_margin(self, cosine: torch.Tensor) -> torch.Tensor:
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        beyond = angle.cos() - self.margin * math.sin(self.margin)
        return torch.where(angle <= math.pi - self.margin, (angle + self.margin).cos(), beyond)


class CosFace(Angular):
    """Cross-entropy of t · (cos θ - margin) for the own class against t · cos θ, θ the angle to a class weight.

    Wang et al. 2018, eq. 4, https://arxiv.org/abs/1801.09414. ``margin`` is a cosine. The scale is smaller than the
    paper's 64, as in ``arcface``.
    """

    source = "Wang 2018, arxiv.org/abs/1801.09414"

    def __init__(self, num_classes: int, temperature: float = 30.0, margin: float = 0.35):
        super().__init__(num_classes, temperature)
        self.margin = in_range("margin", margin, 0, 2)

    def with_margin(self, cosine: torch.Tensor) -> torch.Tensor:
        return cosine - self.margin
