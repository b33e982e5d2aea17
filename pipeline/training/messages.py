"""The lines that training prints: how many frames there are, how far it is, how it went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.frame_set import PARTS, FrameSet
from pipeline.core.progress import clock
from pipeline.core.seen import some
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores
from pipeline.training.config import TrainConfig


def counts_of_parts(frames: FrameSet, store: FeatureStore | Stores, fold: int | None) -> str:
    """How many frames, or clips, and videos each part has; clips without any feature are named."""
    counts = []
    for part in PARTS:
        centres = frames.centres(part)
        if part == "test" and not len(centres):
            continue
        unit = "frames" if frames.clip is None else "clips"
        counts.append(f"{part} {len(centres):,} {unit} of {len(np.unique(frames.video[centres]))} videos")
    missing = f"; {frames.labels_without_features:,} labels have no features" if frames.labels_without_features else ""
    if absent := frames.clips_without_features:
        missing = f"; {len(absent):,} clips have no features, and are left out: {some(absent)}"
    of_fold = "" if fold is None else f", fold {fold}"
    return f"{store.path} ({store.made_by['backbone']}){of_fold}: {', '.join(counts)}{missing}"


def how_far(config: TrainConfig, epoch: int, step: int) -> str:
    """'epoch 3 of 10', or, where the steps count, 'epoch 3, step 9 of 30'."""
    return f"epoch {epoch}, step {step:,} of {config.steps:,}" if config.steps else f"epoch {epoch} of {config.epochs}"


def progress_line(
    folder: Path, where: str, loss: float, select_by: str, score: float, best: Mapping[str, Any], seconds_left: float
) -> str:
    """How far a seed is after an epoch; ``where`` is what ``how_far`` says."""
    return (
        f"{folder}: {where}, loss {loss:.4g}, {select_by} {score:.3f}, best {best['select']:.3f} of "
        f"epoch {best['epoch']}, {clock(seconds_left)} left"
    )


def verdict(config: TrainConfig, folder: Path, results: Sequence[Mapping[str, Any]], num_folds: int) -> str:
    """How the training went, in a few lines: steps, the score against that of the untrained head, the best epochs."""
    of_folds, select_by = f" of {num_folds} folds" if num_folds else "", results[0]["select_by"]
    score = f"{_mean_and_deviation([r['select'] for r in results])} {select_by} on the selection part{of_folds}"
    if not config.trains:
        return f"{folder}: {score}, nothing is trained"
    before = _mean_and_deviation([r["untrained"] for r in results])
    trained, steps = [r["epochs"] for r in results], [r["steps"] for r in results]
    networks = f" in each of {len(results)} networks" if len(results) > 1 else ""
    best = _range([r["epoch"] for r in results])
    planned = config.epochs or _range(trained)
    lines = [
        f"{folder}: {score}; {before} before training",
        f"  {_counted(trained, 'epoch')}, {_counted(steps, 'step')} in all{networks}; best epoch {best} of {planned}",
    ]
    if config.keep == "last":
        return "\n".join([*lines, f"  curves: tensorboard --logdir {folder}"])
    late = float(np.mean([r["epoch"] / r["epochs"] for r in results]))
    after = [r["epochs"] - r["epoch"] for r in results]
    if late <= 0.5 and min(after) >= 3 and config.patience is None:
        enough = min(max(3, *(r["epoch"] for r in results)), 20)
        lines.append(
            f"  the last {_counted(after, 'epoch')} brought no better score (overfitting): try --patience {enough}"
        )
    elif late > 0.95 and not config.patience:
        longer = "--steps" if config.steps else "--epochs"
        lines.append(f"  the best epoch is among the last: more {longer} may be better still")
    return "\n".join([*lines, f"  curves: tensorboard --logdir {folder}"])


def _mean_and_deviation(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _counted(numbers: Sequence[int], what: str) -> str:
    """'1 epoch', '3 epochs', '2 to 4 epochs'."""
    return f"{_range(numbers)} {what}" + ("" if {*numbers} == {1} else "s")


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
