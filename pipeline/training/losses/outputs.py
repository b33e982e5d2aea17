"""Losses of continuous outputs, such as the intensities of several emotions."""

import torch

from pipeline.training.losses.common import Loss


class MSE(Loss):
    """The mean of (prediction - target)² over all known cells (B, K); one whose target is NaN is not known."""

    takes = ("outputs",)
    predicts = "outputs"
    likelihood = "regression"
    source = "mean squared error"

    def __init__(self, num_outputs: int):
        super().__init__()
        self.trains = {"kind": "outputs", "num_outputs": num_outputs}

    def forward(self, predicted: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        known = ~outputs.isnan()
        return (predicted[known] - outputs[known]).square().mean()


class Pearson(Loss):
    """1 - the mean over the K outputs of Pearson's correlation of prediction and target (B, K) over the batch.

    It is the measure of the emotional mimicry challenges, and knows nothing of the level of the predictions: sum it
    with ``mse`` where that matters. A cell whose target is NaN is not known, and left out.

    Edge: where prediction or target is constant in the batch the correlation is 0; an output without two known cells
    counts so, too.
    """

    takes = ("outputs",)
    predicts = "outputs"
    likelihood = "regression"
    source = "1 - Pearson's correlation, over the batch"

    def __init__(self, num_outputs: int):
        super().__init__()
        self.trains = {"kind": "outputs", "num_outputs": num_outputs, "bias": False}  # it would change nothing

    def forward(self, predicted: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        known = ~outputs.isnan()
        count = known.sum(dim=0).clamp(min=1)
        x, y = (values.where(known, 0.0) for values in (predicted, outputs))
        x, y = ((values - values.sum(dim=0) / count) * known for values in (x, y))
        spread = x.square().sum(dim=0) * y.square().sum(dim=0)
        return 1 - ((x * y).sum(dim=0) / (spread + 1e-8).sqrt()).mean()
