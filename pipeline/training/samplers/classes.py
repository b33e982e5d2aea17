"""Windows by class, and in a class by video or group, for the samplers that draw by class."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.positives import POSITIVES
from pipeline.training.samplers.common import counted, starts


class Classes:
    """Windows by class, and in a class by cell. A cell is the windows of a class that are of one video, or one group.

    ``values`` are the label values, and ``label`` (W,) is the number of each window's value. ``has_partner`` (W,) says
    whether there is a positive for a window. Raises ``ValueError`` for fewer than 2 classes, and where no window has a
    positive.
    """

    def __init__(self, labels: NDArray, videos: NDArray, groups: NDArray | None, positives: str):
        if positives not in POSITIVES:
            raise ValueError(f"positives must be one of {list(POSITIVES)}, and is '{positives}'")
        if positives == "other_group" and groups is None:
            raise ValueError("positives 'other_group' needs the group of each window")
        self.values, self.label = np.unique(labels, return_inverse=True)
        self.num_classes = len(self.values)
        if self.num_classes < 2:
            raise ValueError(f"needs at least 2 classes, and all {len(labels)} windows are of class {self.values[0]}")
        unit = np.unique(groups if positives == "other_group" else videos, return_inverse=True)[1]
        # Cells are numbered class after class.
        cells, self._cell = np.unique(self.label * (unit.max() + 1) + unit, return_inverse=True)
        self._cell_size = np.bincount(self._cell)
        self._cell_start = starts(self._cell_size)
        self._num_cells = np.bincount(cells // (unit.max() + 1))  # of each class
        self._first_cell = starts(self._num_cells)
        self._order = np.argsort(self._cell, kind="stable")  # cell after cell, so class after class
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(labels))
        self._size = np.bincount(self.label)  # of each class
        self._start = starts(self._size)

        self._apart = positives != "any"
        self.has_partner = ((self._num_cells if self._apart else self._size) > 1)[self.label]
        if not self.has_partner.any():
            two = {"any": "windows", "other_video": "videos", "other_group": "groups"}[positives]
            raise ValueError(f"there are no pairs to learn from: no class has two {two}")

    def partners(self, rng: np.random.Generator, windows: NDArray) -> NDArray[np.int64]:
        """A positive for each of ``windows``, of any shape.

        Every other cell of the class is equally likely; where ``positives`` is 'any', every other window is. A window
        without a positive gets another one of its class, or itself.
        """
        label = self.label[windows]
        shift = 1 + rng.integers(np.maximum(self._size[label] - 1, 1))
        place = self._start[label] + (self._place[windows] - self._start[label] + shift) % self._size[label]
        if self._apart:
            shift = 1 + rng.integers(np.maximum(self._num_cells[label] - 1, 1))
            nth = (self._cell[windows] - self._first_cell[label] + shift) % self._num_cells[label]
            place = np.where(self._num_cells[label] > 1, self._inside(rng, self._first_cell[label] + nth), place)
        return self._order[place]

    def one_of_each(self, rng: np.random.Generator, classes: NDArray) -> NDArray[np.int64]:
        """A window of each of ``classes``, of any shape: all cells of a class equally likely."""
        return self._order[self._inside(rng, self._first_cell[classes] + rng.integers(self._num_cells[classes]))]

    def _inside(self, rng: np.random.Generator, cells: NDArray) -> NDArray[np.int64]:
        return self._cell_start[cells] + rng.integers(self._cell_size[cells])

    def sample(self, rng: np.random.Generator, most: int) -> NDArray[np.int64]:
        """At most ``most`` different windows, in order: all classes equally often as far as they have windows."""
        shuffled = np.lexsort((rng.random(len(self.label)), self.label))
        return np.sort(shuffled[np.argsort(counted(self._size), kind="stable")[:most]])

    def take(self, rng: np.random.Generator, classes: NDArray, counts: NDArray) -> NDArray[np.int64]:
        """Windows end to end: for each of ``classes`` (M,) in turn as many as ``counts`` (M,) says.

        A class goes on where it stopped at its last turn. It is drawn in rounds: a round is all its cells in a new
        order. A cell gives its windows in a random order, and starts over when they are used up. Two windows drawn one
        after the other from a class are never of one cell, unless the class has only one.
        """
        num_draws = np.bincount(classes, weights=counts, minlength=self.num_classes).astype(np.int64)
        draws, first_draw = self._draws(rng, num_draws)
        by_class = np.argsort(classes, kind="stable")
        first = np.empty(len(classes), dtype=np.int64)
        first[by_class] = starts(counts[by_class]) + (first_draw - starts(num_draws))[classes[by_class]]
        return draws[np.repeat(first, counts) + counted(counts)]

    def _draws(self, rng: np.random.Generator, num_draws: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Window numbers, class after class, at least ``num_draws`` of each, and where each class begins."""
        shuffled = np.lexsort((rng.random(len(self._cell)), self._cell))  # cell after cell
        num_rounds = -(-num_draws // self._num_cells)
        num_drawn = num_rounds * self._num_cells
        position = counted(num_drawn)
        num_cells = np.repeat(self._num_cells, num_drawn)
        round_number, nth_cell = position // num_cells, position % num_cells
        order = rng.random(len(position))
        # Two cells must alternate: all rounds have the order of the first.
        order = np.where(num_cells == 2, order[np.repeat(starts(num_drawn), num_drawn) + nth_cell], order)
        sorting = np.lexsort((order, np.repeat(starts(num_rounds), num_drawn) + round_number))  # inside each round
        cell = (np.repeat(self._first_cell, num_drawn) + nth_cell)[sorting]
        # A round that begins with the cell that ended the last one has its first two exchanged.
        seam = np.flatnonzero((cell[1:] == cell[:-1]) & (num_cells[1:] > 1)) + 1
        cell[seam], cell[seam + 1] = cell[seam + 1], cell[seam]
        return shuffled[self._cell_start[cell] + round_number % self._cell_size[cell]], starts(num_drawn)
