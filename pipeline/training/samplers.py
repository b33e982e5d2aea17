"""Samplers: which windows make up the batches of an epoch, as a pure function of (seed, epoch).

``labels`` (W,) and ``videos`` (W,) are the class and the video of each window, as integers of any value;
``epoch(n)`` gives lists of window numbers, one array a batch. Whoever wants some windows left out (unlabelled ones,
other splits) leaves them out before. To add one: the class, a line in ``SAMPLERS``, a test.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.training.choices import build

Batches = list[NDArray[np.int64]]


class Uniform:
    """Every window once, in a new order: an epoch is one pass over the windows.

    The last batch is smaller where the batch size does not divide their number; a single window left over is dropped
    (another one each epoch), since no loss on pairs can use it.
    """

    def __init__(self, labels: NDArray, videos: NDArray, batch_size: int, seed: int):
        _check_sizes(len(labels), batch_size)
        self.num_windows, self.batch_size, self.seed = len(labels), batch_size, seed

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
        batches = [order[start : start + self.batch_size] for start in range(0, self.num_windows, self.batch_size)]
        return batches if len(batches[-1]) > 1 else batches[:-1]


class Balanced:
    """P classes x K windows in each batch, and in a class all videos equally often.

    An epoch has as many batches as ``Uniform`` would make. P = min(number of classes, batch_size // 2) and
    K = batch_size // P, so a batch has P · K <= batch_size windows. Where there are more than P classes they take
    turns, no class twice in a batch, and over an epoch their numbers of turns differ by one at most.

    The videos of a class take turns as well, in a new order each time round, so that a batch is not one face; a video
    gives its windows one after another in a random order and starts over when they are used up. Classes with few
    windows are thus drawn again and again; of a long video an epoch shows only a part, another one each time.

    The K of a class stand side by side, so even and odd positions both contain every class of the batch:
    ``contrastive_cross_entropy`` splits by position.

    Raises ``ValueError`` for fewer than 2 classes and for a batch size under 4.
    """

    def __init__(self, labels: NDArray, videos: NDArray, batch_size: int, seed: int):
        _check_sizes(len(labels), batch_size)
        self.seed = seed
        classes, label = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"needs at least 2 classes, and all {len(labels)} windows are of class {classes[0]}")
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 classes x 2 windows), and is {batch_size}")
        self.num_classes = len(classes)
        self.classes_per_batch = min(self.num_classes, batch_size // 2)
        self.windows_per_class = batch_size // self.classes_per_batch
        self.num_batches = len(labels) // batch_size + (len(labels) % batch_size > 1)

        # A group is one video of one class; groups are numbered class after class.
        video = np.unique(videos, return_inverse=True)[1]
        groups, self._group = np.unique(label * (video.max() + 1) + video, return_inverse=True)
        self._group_size = np.bincount(self._group)
        self._group_start = _starts(self._group_size)
        self._num_videos = np.bincount(groups // (video.max() + 1), minlength=self.num_classes)  # of each class

    def epoch(self, epoch: int) -> Batches:
        """The batches (P · K,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        turns = self._class_turns(rng)  # (batches, P)
        num_turns = np.bincount(turns.ravel(), minlength=self.num_classes)
        draws, first_draw = self._draws(rng, num_turns * self.windows_per_class)

        # The n-th turn of a class takes its draws n·K to n·K + K - 1.
        by_class = np.argsort(turns.ravel(), kind="stable")
        turn_number = np.empty(turns.size, dtype=np.int64)
        turn_number[by_class] = _counted(num_turns)
        first = (first_draw[turns.ravel()] + turn_number * self.windows_per_class).reshape(turns.shape)
        chosen = draws[first[..., None] + np.arange(self.windows_per_class)]  # (batches, P, K)

        return list(chosen.reshape(len(turns), -1))

    def _class_turns(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The classes of each batch (batches, P): shuffled decks of all classes, dealt out one after another."""
        size = self.num_batches * self.classes_per_batch
        decks = np.tile(np.arange(self.num_classes), (-(-size // self.num_classes), 1))
        decks = rng.permuted(decks, axis=1)
        if self.num_classes > self.classes_per_batch:
            for number in range(1, len(decks)):
                # A batch across two decks: what it has of the last one goes behind its share of the next.
                held = number * self.num_classes % self.classes_per_batch
                if held:
                    again = np.isin(decks[number], decks[number - 1][-held:])
                    decks[number] = np.concatenate([decks[number][~again], decks[number][again]])
        return decks.ravel()[:size].reshape(self.num_batches, self.classes_per_batch)

    def _draws(self, rng: np.random.Generator, num_draws: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Window numbers, class after class, at least ``num_draws`` of each, and where each class begins.

        A class is drawn in rounds; a round is all its videos in a random order, and round r takes of a video the
        window number r of that video's own random order.
        """
        shuffled = np.lexsort((rng.random(len(self._group)), self._group))  # group after group
        num_rounds = -(-num_draws // self._num_videos)
        num_drawn = num_rounds * self._num_videos
        position = _counted(num_drawn)
        num_videos = np.repeat(self._num_videos, num_drawn)
        round_number, nth_video = position // num_videos, position % num_videos
        group = np.repeat(_starts(self._num_videos), num_drawn) + nth_video
        window = shuffled[self._group_start[group] + round_number % self._group_size[group]]
        round_id = np.repeat(_starts(num_rounds), num_drawn) + round_number
        return window[np.argsort(round_id + rng.random(len(window)))], _starts(num_drawn)


def _starts(sizes: NDArray) -> NDArray[np.int64]:
    """Where each of the pieces laid end to end begins: [2, 3, 1] -> [0, 2, 5]."""
    return np.cumsum(sizes) - sizes


def _counted(sizes: NDArray) -> NDArray[np.int64]:
    """Each piece counted from 0, end to end: [2, 3, 1] -> [0, 1, 0, 1, 2, 0]."""
    return np.arange(sizes.sum()) - np.repeat(_starts(sizes), sizes)


def _check_sizes(num_windows: int, batch_size: int) -> None:
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, and is {batch_size}")
    if num_windows < 2:
        raise ValueError(f"needs at least 2 windows, and there are {num_windows}")


def build_sampler(name: str, **available: Any) -> Any:
    """The named sampler; it gets those of ``available`` that its constructor names, and None is its own default.

    Raises ``UserError`` for an unknown name, a missing argument and data that the sampler cannot use.
    """
    return build("sampler", SAMPLERS, name, available)


SAMPLERS: dict[str, type] = {
    "uniform": Uniform,
    "balanced": Balanced,
}
