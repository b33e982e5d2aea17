"""A seed at its first epoch: the adapter with its first weights, and what trains it."""

from typing import Any

import numpy as np
import torch

from pipeline.adapter.adapter import Adapter, build_adapter
from pipeline.training.data import TrainingData, loss_of
from pipeline.training.feed import Drawn, feed
from pipeline.training.loop import Schedule, Trainer
from pipeline.training.losses.build import WeightedSum
from pipeline.training.modality import ModalityDropout
from pipeline.training.positives import groups_apart
from pipeline.training.samplers import SAMPLERS
from pipeline.training.samplers.build import build_sampler
from pipeline.training.view_draw import NEIGHBOURS, ViewDraw


def first(data: TrainingData, seed: int) -> tuple[Adapter, Trainer | None]:
    """An adapter with the first weights of a seed, on the device, and its trainer; None where nothing is trained.

    Where the run starts from an earlier one, the head or the backbone has the weights of that. Sets the seed of torch's
    global generator.
    """
    torch.manual_seed(seed)
    adapter = build_adapter(data.facts | {"seed": seed})
    loss = loss_of(data.facts, adapter.head.embedding_size)
    adapter.seen = data.seen
    if data.trunk is not None:  # before the front is taken, which may be fitted on what the backbone starts with
        adapter.facts |= data.trunk.restart(seed, data.earlier_backbone)
    adapter.front.load_state_dict(data.front.state_dict())
    if data.earlier is not None:
        adapter.head.load_state_dict(data.earlier.of(seed).head.state_dict())
        adapter.facts["start"] = data.earlier.facts(seed)
    adapter.modules().to(data.device)
    return adapter, make_trainer(data, adapter, loss.to(data.device), seed) if data.config.trains else None


def make_trainer(data: TrainingData, adapter: Adapter, loss: WeightedSum, seed: int) -> Trainer:
    """The trainer of one seed, at its first epoch."""
    config, frames = data.config, data.frames
    train = data.centres
    targets = {"labels": frames.label[train], "va": frames.va[train], "aus": frames.aus[train]}
    targets |= {"videos": frames.video[train], "outputs": frames.outputs[train]}
    groups = groups_apart(config.positives, SAMPLERS[config.sampler].positives, frames.video, frames.group)
    if groups is not None:
        targets["groups"] = groups[train]
    if "frame_labels" in loss.takes:
        labels = frames.label if frames.label_names else np.zeros_like(frames.label)
        targets["frame_labels"] = np.where(data.rows < 0, -1, labels[data.rows])
    targets = {k: torch.from_numpy(v).to(data.device) for k, v in targets.items() if k in loss.takes}

    def make_sampler(windows: np.ndarray) -> Any:
        at = train[windows]
        known = {track: has[at] for track, has in frames.known.items() if track in data.facts["tracks"]}
        return build_sampler(
            config.sampler, config.sampler_options, labels=frames.label[at], videos=frames.video[at],
            groups=frames.group[at], frames=data.frame_numbers[at], known=known, batch_size=config.batch_size,
            seed=seed, positives=config.positives, opposites=data.opposites,
        )  # fmt: skip

    def embed() -> np.ndarray:
        return adapter.embed(data.source, torch.from_numpy(data.rows).to(data.device)).cpu().numpy()

    schedule = Schedule(
        config.epochs, config.learning_rate, steps=config.steps, betas=tuple(config.optim_betas),
        weight_decay=config.weight_decay, warm_up=config.warm_up, decay=config.decay, clip_norm=config.clip_norm,
        precision=config.precision, optimizer=config.optimizer,
    )  # fmt: skip
    most = config.clip_rule.windows if config.clip_rule else None
    drawn = Drawn(train, most, seed) if most else None
    paired = SAMPLERS[config.sampler].two_views
    together = 1 if config.window == 1 else NEIGHBOURS
    draw = ViewDraw(len(data.views), seed, config.augment, paired, together) if len(data.views) > 1 else None
    if data.trunk is None:
        shards = feed(data.source, data.rows, len(frames.row), seed, drawn, draw)
    else:
        shards = data.trunk.feed(data.rows, seed, drawn)
    num_windows = drawn.num_windows if drawn else len(train)
    hides = ModalityDropout(config.modality_dropout, adapter.front.columns) if config.modality_dropout else None
    return Trainer(adapter, loss, schedule, shards, make_sampler, targets, num_windows, embed, hides, data.trunk)
