"""Predictors: embeddings (B, E) -> classes, valence and arousal, action units, or further continuous outputs.

They are part of an adapter, and a loss trains each: ``forward`` gives what this loss is computed from, ``predict`` what
is predicted.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Predictor(nn.Module):
    """``num_outputs`` numbers for each embedding; ``what`` they are is 'classes', 'va', 'aus' or 'outputs'."""

    what: str

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of classes or (B, A) of units; values (B, 2) of valence and arousal or (B, K) of outputs."""
        return self(embeddings)


class CosineClassifier(Predictor):
    """cos θ (B, C), θ the angle between an embedding and the weight of a class; the logits are ``scale`` · cos θ."""

    what = "classes"

    def __init__(self, embedding_size: int, num_outputs: int, scale: float):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(embedding_size, num_outputs).normal_())

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return F.normalize(embeddings) @ F.normalize(self.weight.t()).t()

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """scale · cos θ (B, C), without the margin that a loss may add in training."""
        return self.scale * self(embeddings)


class ProxyClassifier(Predictor):
    """The cosines (B, C) of an embedding to the proxies of the classes; the logits are ``scale`` times as much."""

    what = "classes"

    def __init__(self, embedding_size: int, num_outputs: int, scale: float):
        super().__init__()
        self.scale = scale
        self.proxies = nn.Parameter(torch.empty(num_outputs, embedding_size))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return F.normalize(embeddings) @ F.normalize(self.proxies).t()

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """scale · cosine (B, C)."""
        return self.scale * self(embeddings)


class LinearClassifier(Predictor):
    """Logits (B, C) of a linear map of the embeddings as they are: their length counts here."""

    what = "classes"

    def __init__(self, embedding_size: int, num_outputs: int):
        super().__init__()
        self.linear = nn.Linear(embedding_size, num_outputs)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.linear(embeddings)


class VARegressor(Predictor):
    """Valence and arousal (B, 2), within (-1, 1): tanh of a linear map of the embeddings."""

    what = "va"

    def __init__(self, embedding_size: int):
        super().__init__()
        self.linear = nn.Linear(embedding_size, 2)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.linear(embeddings).tanh()


class AUDetector(Predictor):
    """Logits (B, A) of a linear map of the embeddings; the sigmoid of one is the probability that a unit is active.

    ``thresholds`` (A,) are the probabilities from which a unit is called active: 0.5 each, until training has fitted
    them.
    """

    what = "aus"

    def __init__(self, embedding_size: int, num_outputs: int):
        super().__init__()
        self.linear = nn.Linear(embedding_size, num_outputs)
        self.register_buffer("thresholds", torch.full((num_outputs,), 0.5))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.linear(embeddings)


class Regressor(Predictor):
    """Continuous outputs (B, K): a linear map of the embeddings."""

    what = "outputs"

    def __init__(self, embedding_size: int, num_outputs: int, bias: bool = True):
        super().__init__()
        self.linear = nn.Linear(embedding_size, num_outputs, bias=bias)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.linear(embeddings)


PREDICTORS = {
    "cosine": CosineClassifier,
    "proxies": ProxyClassifier,
    "linear": LinearClassifier,
    "va": VARegressor,
    "aus": AUDetector,
    "outputs": Regressor,
}


class Predictors(nn.ModuleDict):
    """The predictors of an adapter, by the name of the loss that trains each.

    ``specs``: what each of them is, as a checkpoint has it: {'arcface': {'kind': 'cosine', 'num_outputs': 8, 'scale':
    15.0}}. Where several predict the same, the first by name does: a file keeps no order of the losses.
    """

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], embedding_size: int):
        made = {}
        for name, spec in specs.items():
            options = {key: value for key, value in spec.items() if key != "kind"}
            made[name] = PREDICTORS[spec["kind"]](embedding_size, **options)
        super().__init__(made)

    @property
    def by_what(self) -> dict[str, Predictor]:
        """What can be predicted, and by which predictor."""
        return {self[name].what: self[name] for name in sorted(self, reverse=True)}
