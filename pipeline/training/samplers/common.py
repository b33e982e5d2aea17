"""What samplers share: what training asks of one, and how items take turns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Batches = list[NDArray[np.int64]]


class Sampler:
    """What training must know of a sampler beside its batches. A sampler says where it differs from these.

    ``epoch(n)`` gives the batches of epoch ``n``, from 0.
    """

    source = ""  # paper and link, or who uses it
    needs_classes = False  # labels must be classes
    self_supervised = False  # positives are the windows 2i and 2i + 1 of a batch; no label is looked at
    paired = False  # 2i and 2i + 1 are anchor and positive
    two_views = False  # 2i and 2i + 1 are one window, which training shows in two views
    positives = "any"  # its own rule, where the config's is 'any'
    needs_embeddings = False  # has refresh_every, refresh(embeddings), state() and restore(state)
    num_batches: int


def deal(rng: np.random.Generator, num_items: int, per_batch: int, num_batches: int) -> NDArray[np.int64]:
    """Items (num_batches, per_batch): all items are shuffled like a deck of cards and dealt out, deck after deck.

    No item is twice in a batch, unless a batch holds more than there are.
    """
    size = num_batches * per_batch
    decks = np.tile(np.arange(num_items), (-(-size // num_items), 1))
    decks = rng.permuted(decks, axis=1)
    if num_items > per_batch > 1:
        for number in range(1, len(decks)):
            # A batch that takes from two decks: what it has of the first goes to the end of the second.
            held = number * num_items % per_batch
            if held:
                again = np.isin(decks[number], decks[number - 1][-held:])
                decks[number] = np.concatenate([decks[number][~again], decks[number][again]])
    return decks.ravel()[:size].reshape(num_batches, per_batch)


def passes(seed: int, epoch: int, num_items: int, per_epoch: int) -> NDArray[np.int64]:
    """Items (per_epoch,) of epoch ``epoch``; each item comes once before any comes again, over many epochs.

    The epochs take their items, one epoch after another, from an endless row of shuffles.
    """
    first = epoch * per_epoch
    numbers = range(first // num_items, -(-(first + per_epoch) // num_items))
    row = np.concatenate([np.random.default_rng([seed, number, 1]).permutation(num_items) for number in numbers])
    return row[first % num_items :][:per_epoch]


def starts(sizes: NDArray) -> NDArray[np.int64]:
    """Where each of the pieces laid end to end begins: [2, 3, 1] -> [0, 2, 5]."""
    return np.cumsum(sizes) - sizes


def counted(sizes: NDArray) -> NDArray[np.int64]:
    """Each piece counted from 0, end to end: [2, 3, 1] -> [0, 1, 0, 1, 2, 0]."""
    return np.arange(sizes.sum()) - np.repeat(starts(sizes), sizes)


def even(number: int) -> int:
    return number - number % 2


def count_batches(num_windows: int, batch_size: int) -> int:
    """How many batches one pass over the windows has; a single window left over makes none."""
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, and is {batch_size}")
    if num_windows < 2:
        raise ValueError(f"needs at least 2 windows, and there are {num_windows}")
    return num_windows // batch_size + (num_windows % batch_size > 1)


def whole_number(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, and is {value!r}")
    return value
