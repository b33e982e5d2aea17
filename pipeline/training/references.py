"""What a trained seed leaves for those who use it: the centres of its classes, and example windows.

Both are of the best epoch and cost no more than a hundredth of an epoch on large data, since they are of evenly spaced
frames: ``MOST_OF_CLASS`` of each class for its centre, ``examples.MOST`` over all videos for the examples.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from pipeline.adapter import examples
from pipeline.adapter.adapter import Adapter
from pipeline.adapter.examples import Examples, save_examples
from pipeline.core.join import frame_table
from pipeline.core.tables import read_frames
from pipeline.metrics.vectors import evenly, of_people
from pipeline.training.data import TrainingData
from pipeline.training.watch import PICTURES

MOST_OF_CLASS = 1000


def class_centres(data: TrainingData, adapter: Adapter) -> torch.Tensor | None:
    """Means (C, E) float32 of the unit embeddings of each class's training windows, ``MOST_OF_CLASS`` at most.

    NaN for a class without training frames; None where the labels have no classes, or are people. The adapter is on the
    device.
    """
    if not data.frames.classes:
        return None
    label = data.frames.label[data.centres]
    means = []
    for number in range(len(data.frames.classes)):
        windows = np.flatnonzero(label == number)
        means.append(_embedded(data, adapter, windows[evenly(len(windows), MOST_OF_CLASS)]).mean(0))
    return torch.stack(means).float()


def leave_examples(data: TrainingData, adapter: Adapter, folder: Path) -> None:
    """Writes the examples of a seed into its ``folder``, beside its best checkpoint."""
    frames = data.frames
    if frames.identity_set is None:
        windows = spread(frames.video[data.centres], examples.MOST)
    else:
        windows = of_people(frames.label[data.centres], examples.MOST, PICTURES)
    around = data.rows[windows]
    rows = around[:, around.shape[1] // 2]
    rows = np.where(rows >= 0, rows, around.max(axis=1))  # a window of a clip may have no frame in its middle
    label, names = frames.label[rows], np.array([*frames.label_names, None], dtype=object)
    table = pd.DataFrame({"video": np.array(frames.videos, dtype=object)[frames.video[rows]]})
    table = table.assign(frame=frames.frame[rows], **{"class": names[label]}, path=None)
    root, given = None, frame_table(data.config.data, data.config.frames)
    if given is not None:
        listed = read_frames(given)
        path = listed.table.set_index(["video", "frame"])["path"]
        table["path"] = path.reindex(list(zip(table["video"], table["frame"], strict=True))).to_numpy()
        root = listed.root
    embeddings = _embedded(data, adapter, windows).cpu().numpy().astype(np.float32)
    save_examples(folder, Examples(table, embeddings), root)


def spread(video: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` places (k,) in ``video`` (n,), rising codes: as many of each video, evenly spaced in it.

    Of more videos than that, one place each of evenly spaced videos.
    """
    start = np.flatnonzero(np.diff(video, prepend=-1))
    length = np.diff(np.append(start, len(video)))
    chosen = evenly(len(start), most)
    each = max(1, most // max(len(chosen), 1))
    # The middles of as many equal parts.
    parts = [s + ((2 * np.arange(k) + 1) * n) // (2 * k) for s, n in zip(start[chosen], length[chosen], strict=True)
             for k in [min(each, n)]]  # fmt: skip
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _embedded(data: TrainingData, adapter: Adapter, windows: np.ndarray) -> torch.Tensor:
    """Unit embeddings (n, E) float64, on the CPU, of training windows by their numbers."""
    z = adapter.embed(data.source, torch.from_numpy(data.rows[windows]).to(data.device))
    return F.normalize(z.double().cpu(), dim=1)
