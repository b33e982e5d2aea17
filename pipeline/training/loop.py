"""Training one adapter: the schedule, and a trainer that goes through it epoch by epoch."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.adapter.adapter import Adapter
from pipeline.core.params import UserError
from pipeline.training.losses.build import WeightedSum
from pipeline.training.modality import ModalityDropout
from pipeline.training.optimizers import without_compiler


@dataclass(frozen=True)
class Schedule:
    """How long and how fast an adapter is trained, and by which ``optimizer``.

    The training lasts ``epochs`` epochs, or ``steps`` steps of the optimiser: one of both is None. ``steps`` is kept
    exactly: the last epoch is cut short. The rate rises over the first ``warm_up`` of the training; with ``decay``
    'cosine' it falls to zero after that. Gradients are clipped to the norm ``clip_norm`` (0: not). ``precision``
    'bfloat16' is that of the head under autocast; losses are always computed in float32.

    Weights of losses that are learned have ``RATE_OF_LOSS_WEIGHTS`` times the rate and no weight decay, and their
    gradients are neither clipped nor counted in the norm.

    'adamw' decays weights apart from the gradient (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101). 'sgd'
    has the momentum ``MOMENTUM``, adds the decay to the gradient, and looks at no ``betas``.
    """

    epochs: int | None
    learning_rate: float
    _: KW_ONLY
    steps: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warm_up: float = 0.05
    decay: str = "cosine"
    clip_norm: float = 1.0
    precision: str = "float32"
    optimizer: str = "adamw"

    def factor(self, progress: float, step: float) -> float:
        """The share of ``learning_rate`` when ``progress`` in [0, 1) of the training is done, steps of ``step``."""
        warm = max(self.warm_up, step)
        falling = 0.5 * (1 + math.cos(math.pi * progress)) if self.decay == "cosine" else 1.0
        return min((progress + step) / warm, falling)


DECAYS = ("cosine", "constant")
OPTIMIZERS = ("adamw", "sgd")
MOMENTUM = 0.9  # of SGD
# AdamW moves a parameter by about the rate in each step. The weights of a network are about 0.1, the logarithms of loss
# weights about 1: at the same rate they would have moved by a few tenths when a training is over.
RATE_OF_LOSS_WEIGHTS = 10.0
PRECISIONS = ("float32", "bfloat16")


class Shard(Protocol):
    """Windows that are trained on together: all of an epoch, or as many as fit into memory.

    ``windows`` (W',) are their numbers among all.
    """

    windows: np.ndarray

    def in_views(self, batches: list[np.ndarray], epoch: int) -> list[np.ndarray]:
        """A sampler's batches with the view of each window: from number W' on in the next view."""

    def batch(self, numbers: np.ndarray, hides: ModalityDropout | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, T, K) and valid (B, T); ``numbers`` count within the shard, from W' on in the next view."""

    def frames(self, numbers: np.ndarray, hides: ModalityDropout | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as features (n, K) of each frame once, and place (B, T) in these, -1 where a frame is missing."""


class Trunk(Protocol):
    """A backbone that is trained with the head."""

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for the optimiser: 'params', 'weight_decay', and 'times', their share of the rate."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is trained of it, and what changes with it."""

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts back what ``state_dict`` gave."""


class NotFinite(UserError):
    """A loss or its gradient is not a number; ``windows`` are the numbers of the batch's windows."""

    def __init__(self, epoch: int, batch: int, windows: np.ndarray) -> None:
        super().__init__(f"the loss or its gradient is not finite in epoch {epoch + 1}, batch {batch + 1}")
        self.windows = windows


class Trainer:
    """Head and predictors of ``adapter`` in training by ``loss``, one ``epoch`` after another.

    ``shards(epoch)`` gives the shards of an epoch, ``make_sampler(windows)`` what draws batches from a shard's windows.
    ``targets`` are the labels of all windows (W, ...), by the names that the losses take; ``embed()`` gives the present
    embeddings (W, E) of all windows to a sampler that looks at them. ``hides`` draws which of several stores are hidden
    from a window. ``trunk`` is the backbone, where it is trained too; its shards give features with a gradient. All
    that an epoch depends on, beside these and the schedule, is its number and ``state``: whoever restores that goes on
    to exactly the same weights (on a CPU).
    """

    def __init__(
        self, adapter: Adapter, loss: WeightedSum, schedule: Schedule, shards: Callable[[int], Iterable[Shard]],
        make_sampler: Callable[[np.ndarray], Any], targets: Mapping[str, torch.Tensor], num_windows: int,
        embed: Callable[[], np.ndarray] | None = None, hides: ModalityDropout | None = None,
        trunk: Trunk | None = None,
    ) -> None:  # fmt: skip
        self.adapter, self.loss = adapter, loss
        self.schedule, self.shards, self.targets, self.embed = schedule, shards, targets, embed
        self.num_windows, self.hides, self.trunk = num_windows, hides, trunk
        self._make_sampler, self._sampler, self._sampled = make_sampler, None, None
        self.steps = 0  # of the optimiser, so far
        network = [p for module in (adapter.head, adapter.predictors, loss.terms) for p in module.parameters()]
        weights = list(loss.log_variances.values())
        groups: list[dict[str, Any]] = [{"params": network, "times": 1.0}]
        if weights:
            groups.append({"params": weights, "weight_decay": 0.0, "times": RATE_OF_LOSS_WEIGHTS})
        of_trunk = trunk.groups(schedule.weight_decay) if trunk is not None else []
        in_trunk = [p for group in of_trunk for p in group["params"]]
        self._clipped, self.parameters = [*network, *in_trunk], [*network, *weights, *in_trunk]
        groups += of_trunk
        how = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay, "fused": True}
        if schedule.optimizer == "sgd":
            self.optimizer = without_compiler(torch.optim.SGD)(groups, momentum=MOMENTUM, **how)
        else:
            self.optimizer = without_compiler(torch.optim.AdamW)(groups, betas=schedule.betas, **how)

    def share_done(self, epochs: int) -> float:
        """The share of the training that is over after ``epochs`` epochs; 1 at its end."""
        schedule = self.schedule
        return self.steps / schedule.steps if schedule.steps else epochs / schedule.epochs

    def epoch(self, epoch: int) -> dict[str, float]:
        """Trains epoch number ``epoch``, from 0, and gives the mean of the loss and of each of its terms.

        Raises ``NotFinite``, when the epoch is over, for the first batch whose loss or gradient is not finite.
        """
        self.adapter.head.train()
        self.loss.train()
        drawn, values = [], []  # looked at when the epoch is over: a look at each would be a wait for the device
        for shard, sampler, numbers, progress, share in self._batches(epoch):
            self._set_rate(progress, share)
            windows = shard.windows[numbers % len(shard.windows)]
            values.append(self._step(shard, numbers, windows, sampler.self_supervised))
            self.steps += 1
            drawn.append(windows)
        if not values:
            raise UserError("an epoch without a batch: there are too few windows for this sampler and batch_size")
        names = list(values[0])
        table = torch.stack([torch.stack([v[name] for name in names]) for v in values]).cpu().numpy()
        if len(bad := np.flatnonzero(~np.isfinite(table).all(axis=1))):
            raise NotFinite(epoch, int(bad[0]), drawn[bad[0]])
        return dict(zip(names, table.mean(0).tolist(), strict=True)) | {"learning_rate": self._rate()}

    def state(self) -> dict[str, torch.Tensor]:
        """Weights, the optimiser's moments, the random state and what the sampler remembers."""
        tensors = {f"weights.{name}": value for name, value in self.adapter.modules().state_dict().items()}
        tensors |= {f"loss.{name}": value for name, value in self.loss.state_dict().items()}
        if self.trunk is not None:
            tensors |= {f"trunk.{name}": value for name, value in self.trunk.state_dict().items()}
        for number, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{number}.{name}"] = value
        tensors["progress.steps"] = torch.tensor(self.steps)
        tensors["random.cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        if self._sampler is not None and self._sampler.needs_embeddings:
            tensors |= {f"sampler.{name}": torch.from_numpy(value) for name, value in self._sampler.state().items()}
        return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts back what ``state`` gave."""
        of = {kind: {} for kind in ("weights", "loss", "trunk", "optimizer", "progress", "random", "sampler")}
        for name, value in state.items():
            kind, rest = name.split(".", 1)
            of[kind][rest] = value
        self.adapter.modules().load_state_dict(of["weights"])
        self.loss.load_state_dict(of["loss"])
        if self.trunk is not None:
            self.trunk.load_state_dict(of["trunk"])
        for name, value in of["optimizer"].items():
            number, key = name.split(".")
            parameter = self.parameters[int(number)]
            # In memory as their parameter, of a convolution channels last: fused optimisers (torch 2.15) assume it.
            like = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
            self.optimizer.state[parameter][key] = like.to(self._device)
        self.steps = int(of["progress"]["steps"])
        torch.set_rng_state(of["random"]["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(of["random"]["cuda"], self._device)
        if of["sampler"]:
            shard = next(iter(self.shards(0)))
            self._sampler, self._sampled = self._make_sampler(shard.windows), shard.windows
            self._sampler.restore({name: value.numpy() for name, value in of["sampler"].items()})

    def let_go(self) -> None:
        """Gives the features back. No further epoch can be trained."""
        self.shards = self.embed = self._make_sampler = self._sampler = None

    @property
    def _device(self) -> torch.device:
        return self.parameters[0].device

    def _step(self, shard: Shard, numbers: np.ndarray, windows: np.ndarray, pairs: bool) -> dict[str, torch.Tensor]:
        head, takes = self.adapter.head, self.loss.takes
        device = self._device
        # Single frames are hardly ever twice in a batch; on a CUDA device finding them would mean waiting for it.
        # A trunk takes each frame once whatever the head does.
        once = head.frames_once and "frames" not in takes and device.type != "cuda" and self.adapter.window.frames > 1
        once = once and self.trunk is None
        features, valid = (shard.frames if once else shard.batch)(numbers, self.hides)
        chosen = torch.from_numpy(windows).to(device, non_blocking=True)
        batch = {name: target[chosen] for name, target in self.targets.items()}
        if pairs:
            batch["labels"] = torch.arange(len(numbers), device=device) // 2
        half = torch.autocast(device.type, torch.bfloat16) if self.schedule.precision == "bfloat16" else nullcontext()
        with half:
            if "frames" in takes:
                batch |= {"frames": head(features, valid), "valid": valid}
                embeddings = self.adapter.pool(batch["frames"], valid)
            else:
                embeddings = (self.adapter.windows_of if once else self.adapter.windows)(features, valid)
            if head.pairs:
                batch["pair_logits"] = head.pair(features[0::2], valid[0::2], features[1::2], valid[1::2])
        loss, terms = self.loss(embeddings, batch, self.adapter.predictors)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.schedule.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._clipped, limit)
        of_terms = {f"loss_{name}": value for name, value in terms.items()} if len(terms) > 1 else {}
        of_terms |= {f"loss_weight_{name}": value for name, value in self.loss.present_weights().items()}
        self.optimizer.step()
        return {"loss": loss.detach(), "gradient_norm": norm.detach(), **of_terms}

    def _batches(self, epoch: int) -> Iterator[tuple[Shard, Any, np.ndarray, float, float]]:
        """Each batch of an epoch: shard, sampler, numbers, the share of the training before it, and its own share."""
        epochs, steps = self.schedule.epochs, self.schedule.steps
        for shard, done, share in self._shards(epoch):
            sampler = self._sampler_of(shard.windows, epoch)
            batches = shard.in_views(sampler.epoch(epoch), epoch)
            for number, numbers in enumerate(batches):
                if steps is None:
                    progress = (epoch + done + share * number / len(batches)) / epochs
                    yield shard, sampler, numbers, progress, share / len(batches) / epochs
                elif self.steps < steps:
                    yield shard, sampler, numbers, self.steps / steps, 1 / steps
                else:
                    return

    def _shards(self, epoch: int) -> Iterator[tuple[Shard, float, float]]:
        """Each shard, the share of the epoch before it, and its own share."""
        done = 0
        for shard in self.shards(epoch):
            yield shard, done / self.num_windows, len(shard.windows) / self.num_windows
            done += len(shard.windows)

    def _sampler_of(self, windows: np.ndarray, epoch: int) -> Any:
        if self._sampled is not windows:  # all windows in one shard: one sampler for all epochs
            self._sampler, self._sampled = self._make_sampler(windows), windows
        if self._sampler.needs_embeddings and epoch % self._sampler.refresh_every == 0:
            self._sampler.refresh(self.embed())
            self.adapter.head.train()
        return self._sampler

    def _set_rate(self, progress: float, step: float) -> None:
        rate = self.schedule.learning_rate * self.schedule.factor(progress, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]

    def _rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]
