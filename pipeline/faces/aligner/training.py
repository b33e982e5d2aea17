"""Training: heatmaps of every stack against Gaussians; a killed training goes on to the same weights.

On a CPU the weights are the same bit for bit, with the same number of threads; CUDA does not promise that.
Which pictures an epoch has, and what is done to each, is a function of the seed, the epoch and the picture's number.
The state after each epoch is kept in last.safetensors, written whole or not at all.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.device import pick_device
from pipeline.core.files import load_tensors, save_tensors
from pipeline.core.params import UserError
from pipeline.core.progress import Line
from pipeline.faces.aligner import augment
from pipeline.faces.aligner.config import AlignerConfig
from pipeline.faces.aligner.examples import Examples, evenly
from pipeline.faces.aligner.heatmaps import draw
from pipeline.faces.aligner.measures import nme
from pipeline.faces.aligner.network import StackedHourglass, to_heatmap
from pipeline.faces.aligner.use import predict, save

BEST, LAST = "best.safetensors", "last.safetensors"
WHAT = "the state of a training of the aligner"
VAL_BATCH = 32


def train(config: AlignerConfig, train_part: Examples, val_part: Examples) -> dict[str, Any]:
    """Trains, or goes on, until ``config.epochs`` are done; what is known of each epoch and which was the best.

    Raises ``UserError`` where the folder holds a training of other settings or pictures, unless ``config.rebuild``, and
    where the loss is no longer finite.
    """
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    network = StackedHourglass(config.stacks, config.channels, config.depth).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    state: dict[str, Any] = {"of": config.facts | {"pictures_digest": [train_part.digest, val_part.digest]}, "log": []}
    last = config.output / LAST
    if last.is_file() and not config.rebuild:
        state = take_up(last, state["of"], network, optimiser)
    looked_at = held_out(config, val_part)
    steps_an_epoch = max(1, min(config.pictures, len(train_part)) // config.batch_size)
    with ThreadPoolExecutor(config.workers) as pool, Line() as line:
        for epoch in range(len(state["log"]), config.epochs):
            started, losses = time.perf_counter(), []
            network.train()
            for step, (pictures, points) in enumerate(batches(config, train_part, epoch, pool)):
                part = (epoch + step / steps_an_epoch) / config.epochs
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * (1 + math.cos(math.pi * part)) / 2
                losses.append(learn(config, network, optimiser, pictures.to(device), points.to(device)))
                line.say(f"epoch {epoch + 1} of {config.epochs}, {step + 1} of {steps_an_epoch} batches")
            if not np.isfinite(losses).all():
                raise UserError(f"aligner: the loss of epoch {epoch + 1} is not finite: try a lower --learning-rate")
            score = float(nme(found_in(network, looked_at[0], device), looked_at[1]).mean())
            state["log"].append({"epoch": epoch + 1, "loss": float(np.mean(losses)), "nme": score})
            best = min(state["log"], key=lambda of: of["nme"])  # the first of equal ones
            if best["epoch"] == epoch + 1:
                save(config.output / BEST, network, config.shape, {"trained": state["of"], "epoch": epoch + 1,
                                                                   "nme": score})  # fmt: skip
            keep(last, network, optimiser, state)
            line.end()
            print(f"epoch {epoch + 1}: loss {state['log'][-1]['loss']:.5f}, NME held out {100 * score:.2f} %, "
                  f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    return {"log": state["log"], "best": min(state["log"], key=lambda of: of["nme"])}


def learn(
    config: AlignerConfig, network: StackedHourglass, optimiser: torch.optim.Optimizer, pictures: torch.Tensor,
    points: torch.Tensor,
) -> float:  # fmt: skip
    """A step on pictures (B, S, S, 3) with points (B, 5, 2) in them; the loss: squared errors, summed over stacks."""
    target = draw(to_heatmap(points), config.heatmap, config.sigma)
    loss = (network(pictures) - target[:, None]).square().mean(dim=(0, 2, 3, 4)).sum()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def batches(
    config: AlignerConfig, examples: Examples, epoch: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures (B, S, S, 3) uint8 and points (B, 5, 2) float32 of an epoch; the next batch is made meanwhile."""
    count = min(config.pictures, len(examples))
    order = np.random.default_rng([config.seed, 2, epoch]).permutation(len(examples))[:count].tolist()
    parts = [order[at : at + config.batch_size] for at in range(0, count, config.batch_size)]
    if len(parts) > 1 and len(parts[-1]) < config.batch_size:
        parts.pop()
    ahead = [pool.submit(_example, config, examples, epoch, row) for row in parts[0]]
    for part in [*parts[1:], []]:
        ready, ahead = ahead, [pool.submit(_example, config, examples, epoch, row) for row in part]
        yield _stacked([each.result() for each in ready])


def _example(config: AlignerConfig, examples: Examples, epoch: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([config.seed, 3, epoch, row])
    image, points = examples.image(row), examples.points[row]
    if not config.augment:
        return augment.jittered(image, points, config.size, config.margin, rng)
    picture, points = augment.moved_at_random(image, points, config.size, config.margin, rng)
    return augment.seen_at_random(picture, rng), points


def held_out(config: AlignerConfig, examples: Examples) -> tuple[torch.Tensor, np.ndarray]:
    """The held-out pictures that choose the epoch, as they are, in squares that are somewhat off; and their points."""
    made = []
    for row in evenly(len(examples), config.val_pictures).tolist():
        rng = np.random.default_rng([config.seed, 4, row])
        made.append(augment.jittered(examples.image(row), examples.points[row], config.size, config.margin, rng))
    pictures, points = _stacked(made)
    return pictures, points.double().numpy()


def _stacked(made: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    pictures, points = zip(*made, strict=True)
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(points)).float()


def found_in(network: StackedHourglass, pictures: torch.Tensor, device: torch.device) -> np.ndarray:
    """(n, 5, 2) float64: the points in pictures (n, S, S, 3)."""
    network.eval()
    parts = [predict(network, part.to(device)) for part in pictures.split(VAL_BATCH)]
    return torch.cat(parts).double().numpy()


# --- the state -------------------------------------------------------------------------------------------------------


def keep(path: Path, network: StackedHourglass, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, of in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in of.items()}
    save_tensors(path, tensors, state)


def take_up(
    path: Path, of: dict[str, Any], network: StackedHourglass, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """The state that was kept; network and optimiser become what they were."""
    tensors, state = load_tensors(path, WHAT, "Start over with --rebuild", "pt")
    before = state["of"]
    changed = ", ".join(f"{key} {before.get(key)} -> {now}" for key, now in of.items() if before.get(key) != now)
    if changed:
        raise UserError(
            f"aligner: {path.parent} was trained otherwise ({changed}): name another --output, or --rebuild"
        )
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
    return state
