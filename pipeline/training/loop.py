"""Training one adapter on features that lie on the device."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.params import UserError
from pipeline.training.adapter import POOLINGS, Adapter
from pipeline.training.windows import gather

CLIP_NORM = 1.0
WARM_UP = 0.05  # of all steps


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, its rate raised over the first steps and then lowered along a cosine to zero."""

    epochs: int
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float


Batches = Callable[[int], list[np.ndarray]]
Watch = Callable[[int, Mapping[str, float]], None]


def train(
    adapter: Adapter,
    inputs: torch.Tensor,
    rows: torch.Tensor,
    labels: torch.Tensor,
    batches: Batches,
    schedule: Schedule,
    watch: Watch,
) -> None:
    """Trains head and loss on windows ``rows`` (W, T) into ``inputs`` (N, K), with a label (W,) each.

    ``batches(epoch)`` gives lists of window numbers. ``watch(epoch, {'loss': ..., 'learning_rate': ...})`` is called
    after each epoch, and before the first one as epoch 0 without a loss. Raises ``UserError`` where the loss is not
    finite, naming the epoch.
    """
    watch(0, {})
    parameters = [p for module in (adapter.head, adapter.loss) for p in module.parameters()]
    if not parameters or schedule.epochs == 0:
        return
    pooling = POOLINGS[adapter.facts["pooling"]]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=schedule.betas, weight_decay=schedule.weight_decay
    )
    per_epoch = len(batches(0))
    factor = _warm_up_and_cosine(schedule.epochs * per_epoch)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for epoch in range(schedule.epochs):
        adapter.head.train()
        adapter.loss.train()
        total = torch.zeros((), device=inputs.device)
        drawn = batches(epoch)
        for numbers in drawn:
            chosen = torch.from_numpy(numbers).to(inputs.device)
            features, valid = gather(inputs, rows[chosen])
            loss = adapter.loss(pooling(adapter.head(features, valid), valid), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            rate.step()
            total += loss.detach()
        mean = float(total) / len(drawn)  # the only wait for the device in an epoch; NaN in any batch shows here
        if not math.isfinite(mean):
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1}: lower --learning-rate (now {schedule.learning_rate}) "
                "or --temperature"
            )
        watch(epoch + 1, {"loss": mean, "learning_rate": rate.get_last_lr()[0]})


def _warm_up_and_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, round(WARM_UP * steps))
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))
