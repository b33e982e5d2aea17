"""Samplers: which windows make up the batches of an epoch, as a pure function of (seed, epoch).

A constructor gets those that it names of ``labels`` (W,), ``videos`` (W,) and ``groups`` (W,), integers of any value,
``frames`` (W,), the frame number of each window's centre, ``batch_size``, ``seed``, ``positives``, ``opposites``,
``num_views``, and options of its own. ``epoch(n)`` gives ``num_batches`` arrays of window numbers, one a batch: with
every sampler as many as one pass over the windows has, so that an epoch costs the same with each. Whoever wants some
windows left out (unlabelled ones, other splits) leaves them out before.

``positives`` says which windows of a class may stand together as anchor and positive: 'any' two, those of different
videos ('other_video') or of different groups ('other_group'). A class without two such windows still gives negatives;
what it does beside is in each docstring. Where no class has two, a sampler raises ``ValueError``.

To add one: the class, a line in ``SAMPLERS``, a test.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.choices import build
from pipeline.core.params import UserError, one_of

Batches = list[NDArray[np.int64]]
POSITIVES = ("any", "other_video", "other_group")
# What training hands to each that names it; all further arguments of a constructor are options of the user.
HANDED = ("labels", "videos", "groups", "frames", "batch_size", "seed", "positives", "opposites", "num_views")
BLOCK = 256  # rows of cosines at a time: with 4096 columns they stay in the cache


class Sampler:
    """What training asks of a sampler beside its batches; each says where it differs from this."""

    source = ""  # paper and link, or who uses it
    needs_classes = False  # labels must be classes
    self_supervised = False  # positives are the windows 2i and 2i + 1 of a batch; no label is looked at
    paired = False  # 2i and 2i + 1 are anchor and positive
    uses_views = False  # numbers run to num_views · W: number // W is the view, number % W the window
    positives = "any"  # where the user does not say
    needs_embeddings = False  # has refresh_every, refresh(embeddings), state() and restore(state)
    num_batches: int


class Uniform(Sampler):
    """Every window once, in a new order: an epoch is one pass over the windows, whatever their labels are.

    The last batch is smaller where the batch size does not divide their number; a single window left over is dropped
    (another one each epoch), since no loss on pairs can use it.
    """

    source = "plain shuffling"

    def __init__(self, videos: NDArray, batch_size: int, seed: int):
        self.num_windows, self.batch_size, self.seed = len(videos), batch_size, seed
        self.num_batches = _num_batches(self.num_windows, batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
        return [order[n * self.batch_size : (n + 1) * self.batch_size] for n in range(self.num_batches)]


class Balanced(Sampler):
    """P classes x K windows in each batch, and in a class all videos equally often.

    An epoch has as many batches as ``uniform``. P = min(number of classes, batch_size // 2) and K is the largest even
    number with P · K <= batch_size. Where there are more than P classes they take turns, no class twice in a batch,
    and over an epoch their numbers of turns differ by one at most.

    The videos of a class (its groups, with ``positives`` 'other_group') take turns as well, in a new order each time
    round, so that a batch is not one face; a video gives its windows one after another in a random order and starts
    over when they are used up. Classes with few windows are thus drawn again and again; of a long video an epoch
    shows only a part, another one each time.

    The K of a class stand side by side, so 2i and 2i + 1 are always of one class, and never of one video (group)
    where the class has two. A class of one video gives pairs of that video, a class of one window that window twice.

    Raises ``ValueError`` for fewer than 2 classes and for a batch size under 4.
    """

    source = "P x K batches: Hermans et al. 2017, section 2, https://arxiv.org/abs/1703.07737"
    needs_classes = True
    paired = True

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "any",
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = _num_batches(len(labels), batch_size)
        self.windows = _Classes(labels, videos, groups, positives)
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 classes x 2 windows), and is {batch_size}")
        self.classes_per_batch = min(self.windows.num_classes, batch_size // 2)
        self.windows_per_class = _even(batch_size // self.classes_per_batch)

    def epoch(self, epoch: int) -> Batches:
        """The batches (P · K,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        turns = self._class_turns(rng).ravel()  # (batches · P,)
        chosen = self.windows.take(rng, turns, np.full(len(turns), self.windows_per_class))
        return list(chosen.reshape(self.num_batches, -1))

    def _class_turns(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The classes of each batch (batches, P)."""
        return _decks(rng, self.windows.num_classes, self.classes_per_batch, self.num_batches)


class Opposite(Balanced):
    """``balanced`` over few classes a batch: one class, its opposite emotions first, and then others.

    An epoch has as many batches as ``uniform``. The first class of a batch is each class in turn; then come its
    opposites, in a new order for each batch, and then other classes at random, ``classes_per_batch`` in all. So a
    class with few opposites gets all of them and some others, one with more opposites than fit another choice of them
    each time, and one without opposites random classes. All classes of a batch have equally many windows, drawn as
    ``balanced`` does it; a class that is the opposite of many is drawn more often than others.

    ``opposites`` are pairs of label values; those of classes without windows are left out. Raises ``ValueError``
    where none is left, and as ``balanced`` does.
    """

    source = "ours; the opposites of Plutchik 1980, or of the sign of valence (pipeline/core/emotions.py)"

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, opposites: Sequence[tuple[int, int]],
        groups: NDArray | None = None, positives: str = "any", classes_per_batch: int = 4,
    ):  # fmt: skip
        super().__init__(labels, videos, batch_size, seed, groups, positives)
        _check_whole("classes_per_batch", classes_per_batch, 2)
        self.classes_per_batch = min(self.classes_per_batch, classes_per_batch)
        self.windows_per_class = _even(batch_size // self.classes_per_batch)
        place = {value: number for number, value in enumerate(self.windows.values.tolist())}
        pairs = [(place[a], place[b]) for a, b in opposites if a in place and b in place and a != b]
        if not pairs:
            raise ValueError(f"needs opposites among the {len(place)} classes of the training windows, and has none")
        self._is_opposite = np.zeros((len(place), len(place)), dtype=bool)
        for a, b in pairs:
            self._is_opposite[a, b] = self._is_opposite[b, a] = True

    def _class_turns(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The classes of each batch (batches, P), the one whose opposites are there at the front."""
        anchors = _decks(rng, self.windows.num_classes, 1, self.num_batches)[:, 0]
        rank = rng.random((self.num_batches, self.windows.num_classes)) - self._is_opposite[anchors]
        rank[np.arange(self.num_batches), anchors] = -2
        return np.argsort(rank, axis=1)[:, : self.classes_per_batch]


class PerClassNegatives(Sampler):
    """For each anchor a positive of another video and n negatives from each other class.

    An epoch has as many batches as ``uniform``, of as many anchors as fit with what belongs to them; every window is
    an anchor once before any is it again, over as many epochs as that takes. So anchors come as often as the data has
    them, and the larger n, the rarer classes outweigh that: with n = 2 all classes are equally often in a batch.

    A batch is (anchor, positive) pairs, then the negatives class after class; all of a batch are negatives of all its
    anchors of other classes. Negatives stand in pairs of one class and different videos, which serve each other as
    positives; an odd number of a class is made even by one more. Videos take turns as in ``balanced``.

    ``positives`` 'any' is the same as 'other_video' here; with 'other_group' positives are of another group. A class
    without two videos (groups) has no anchors and gives negatives only.

    Raises ``ValueError`` for fewer than 2 classes, and where not a single anchor with its negatives fits into a batch.
    """

    source = "after N-pair batches: Sohn 2016, section 3.2, https://papers.nips.cc/paper/6200"
    needs_classes = True
    paired = True
    positives = "other_video"

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "other_video", negatives_per_class: int = 2,
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = _num_batches(len(labels), batch_size)
        self.windows = _Classes(labels, videos, groups, "other_video" if positives == "any" else positives)
        self.negatives_per_class = _check_whole("negatives_per_class", negatives_per_class, 1)
        num_classes, odd = self.windows.num_classes, negatives_per_class % 2
        size = 2 + negatives_per_class * (num_classes - 1)  # an anchor and all that belongs to it
        self.anchors_per_batch = (batch_size - odd * num_classes) // size
        if self.anchors_per_batch < 1:
            raise ValueError(
                f"batch_size must be at least {size + odd * num_classes} for {negatives_per_class} negatives from "
                f"each of {num_classes - 1} other classes, and is {batch_size}"
            )
        self._anchors = np.flatnonzero(self.windows.has_partner)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        shape = (self.num_batches, self.anchors_per_batch)
        anchors = self._anchors[_passes(self.seed, epoch, len(self._anchors), shape[0] * shape[1])]
        pairs = np.stack([anchors, self.windows.partners(rng, anchors)], axis=1).reshape(shape[0], -1)

        num_classes = self.windows.num_classes
        batch = np.repeat(np.arange(shape[0]), shape[1])
        num_anchors = np.bincount(batch * num_classes + self.windows.label[anchors], minlength=shape[0] * num_classes)
        num_negatives = self.negatives_per_class * (shape[1] - num_anchors)  # of each class in each batch
        num_negatives += num_negatives % 2
        negatives = self.windows.take(rng, np.tile(np.arange(num_classes), shape[0]), num_negatives)
        ends = np.cumsum(num_negatives.reshape(shape[0], num_classes).sum(axis=1))
        return [np.concatenate(parts) for parts in zip(pairs, np.split(negatives, ends[:-1]), strict=True)]


class HardNegative(Sampler):
    """For each anchor a positive and its nearest windows of other classes, by the current embeddings.

    An epoch has as many batches as ``uniform``, of batch_size // (2 + 2 · ``negatives``) anchors each; every window
    is an anchor once before any is it again, over as many epochs as that takes. A batch is a row of blocks

        anchor, its positive,   positive of a negative, that negative,   ... (``negatives`` times)

    so that all of a batch stand in pairs, and a negative stands where a loss that splits by position has partners.

    ``refresh(embeddings)``, before epoch 0 and then every ``refresh_every`` epochs, draws a positive for each window
    and finds its ``nearest`` windows of other classes by cosine; each epoch takes ``negatives`` of these at random.
    The search is exact among at most ``candidates`` windows, a random sample for each refresh with all classes as
    equally often as they have windows; no more than 256 rows of cosines exist at a time.

    A class without two windows that ``positives`` lets stand together has no anchors; its windows are negatives, each
    beside another of its class, or itself. A negative may be of the anchor's own video.

    Raises ``ValueError`` for fewer than 2 classes and for options that contradict each other.
    """

    source = "negatives from the model's own neighbours: Xiong et al. 2020 (ANCE), https://arxiv.org/abs/2007.00808"
    needs_classes = True
    paired = True
    needs_embeddings = True
    farther_than_positive = False

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "any", negatives: int = 1, nearest: int = 4, candidates: int = 4096, refresh_every: int = 2,
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = _num_batches(len(labels), batch_size)
        self.windows = _Classes(labels, videos, groups, positives)
        self.negatives = _check_whole("negatives", negatives, 1)
        self.nearest = _check_whole("nearest", nearest, negatives)
        self.candidates = _check_whole("candidates", candidates, max(self.windows.num_classes, nearest))
        self.refresh_every = _check_whole("refresh_every", refresh_every, 1)
        self.anchors_per_batch = batch_size // (2 + 2 * negatives)
        if self.anchors_per_batch < 1:
            raise ValueError(f"batch_size must be at least {2 + 2 * negatives}, and is {batch_size}")
        self._anchors = np.flatnonzero(self.windows.has_partner)
        self._num_refreshes = 0
        self._positive = np.empty(0, dtype=np.int32)  # (W,), of each window
        self._negative = np.empty((0, nearest), dtype=np.int32)  # (W, nearest), the nearest first

    def refresh(self, embeddings: NDArray) -> None:
        """Looks for the neighbours of each window in ``embeddings`` (W, E), which need not be normalised.

        Raises ``UserError`` where an embedding is not finite.
        """
        label = self.windows.label
        if len(embeddings) != len(label):
            raise ValueError(f"needs an embedding for each of {len(label)} windows, and has {len(embeddings)}")
        if not np.isfinite(embeddings).all():
            raise UserError("the embeddings are not finite: there are no nearest ones (lower --learning-rate)")
        rng = np.random.default_rng([self.seed, self._num_refreshes, 2])
        self._num_refreshes += 1
        self._positive = self.windows.partners(rng, np.arange(len(label))).astype(np.int32)
        self._negative = np.empty((len(label), self.nearest), dtype=np.int32)
        candidates = self.windows.sample(rng, self.candidates)
        columns = _normalised(embeddings[candidates]).T
        for start in range(0, len(label), BLOCK):
            rows = slice(start, start + BLOCK)
            anchors = _normalised(embeddings[rows])
            cosine = anchors @ columns
            allowed = label[rows, None] != label[candidates]
            if self.farther_than_positive:
                to_positive = np.sum(anchors * _normalised(embeddings[self._positive[rows]]), axis=1, keepdims=True)
                allowed = _farther(cosine, allowed, to_positive)
            self._negative[rows] = candidates[_largest(cosine, allowed, self.nearest)]

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        if not self._num_refreshes:
            raise RuntimeError("refresh(embeddings) comes before the first epoch")
        rng = np.random.default_rng([self.seed, epoch])
        num_anchors = self.num_batches * self.anchors_per_batch
        anchors = self._anchors[_passes(self.seed, epoch, len(self._anchors), num_anchors)]
        which = np.argsort(rng.random((num_anchors, self.nearest)), axis=1)[:, : self.negatives]
        negatives = self._negative[anchors[:, None], which]
        blocks = [anchors, self._positive[anchors]]
        for negative in negatives.T:
            blocks += [self._positive[negative], negative]
        return list(np.stack(blocks, axis=1).astype(np.int64).reshape(self.num_batches, -1))

    def state(self) -> dict[str, NDArray]:
        """What the last refresh found, for ``restore``; empty before the first."""
        if not self._num_refreshes:
            return {}
        return {"refreshes": np.array([self._num_refreshes]), "positive": self._positive, "negative": self._negative}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Goes on from a ``state``. Raises ``UserError`` for one of other windows or another ``nearest``."""
        if not state:
            return
        wanted = (len(self.windows.label), self.nearest)
        if state["negative"].shape != wanted or state["positive"].shape != wanted[:1]:
            raise UserError(
                f"the sampler was saved with {state['negative'].shape} (windows, nearest), and here are {wanted}"
            )
        self._num_refreshes = int(state["refreshes"][0])
        self._positive, self._negative = state["positive"], state["negative"]


class SemiHard(HardNegative):
    """``hard_negative``, but of the windows of other classes only those farther from the anchor than its positive.

    Of these the nearest, as in FaceNet's semi-hard triplets. Where fewer than ``nearest`` candidates are farther than
    the positive, the nearest of them comes again; where none is, the farthest of other classes stands in.

    With neighbouring frames of one video as positives hardly any negative is nearer than the positive, so that this
    is ``hard_negative``: give ``positives`` 'other_video' for videos.
    """

    source = "Schroff et al. 2015 (FaceNet), eq. 4, https://arxiv.org/abs/1503.03832"
    farther_than_positive = True


class Temporal(Sampler):
    """Self-supervised: pairs of neighbours in time, from as many different videos as a batch can hold.

    The windows 2i and 2i + 1 are of one video, their frame numbers at least ``min_distance`` and at most
    ``max_distance`` apart; the first is an anchor, the second drawn evenly from its neighbours on both sides.

    An epoch has as many batches as ``uniform``, of batch_size // 2 pairs (fewer only where there are fewer anchors):
    about half of the windows are anchors. Videos take turns: with enough of them none is twice in a batch, otherwise
    all are equally often in it as far as they have anchors, no anchor twice. A window without a neighbour at such a
    distance is never drawn.

    Raises ``ValueError`` where no window has such a neighbour, and for a batch size under 4.
    """

    source = "single-view time-contrastive: Sermanet et al. 2018, https://arxiv.org/abs/1704.06888"
    self_supervised = True
    paired = True

    def __init__(
        self, videos: NDArray, frames: NDArray, batch_size: int, seed: int, max_distance: int = 30,
        min_distance: int = 1,
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = _num_batches(len(videos), batch_size)
        _check_whole("min_distance", min_distance, 1)
        _check_whole("max_distance", max_distance, min_distance)
        video = np.unique(videos, return_inverse=True)[1]
        frame = np.asarray(frames, dtype=np.int64) - np.min(frames)
        key = video * (frame.max() + max_distance + 1) + frame  # neighbours in time are neighbours here, videos apart
        self._order = np.argsort(key)
        in_order = key[self._order]
        # Neighbours before and after a window: the first of each side in this order, and how many they are.
        self._first = np.searchsorted(in_order, np.stack([key - max_distance, key + min_distance]))
        ends = np.searchsorted(in_order, np.stack([key - min_distance, key + max_distance]), side="right")
        self._num_before, self._num_after = ends - self._first
        anchors = np.flatnonzero(self._num_before + self._num_after)
        if len(anchors) == 0:
            raise ValueError(f"no two windows of a video are {min_distance} to {max_distance} frame numbers apart")
        self._anchors = _Spread(anchors, video[anchors], batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        anchors = self._anchors.draw(rng, self.num_batches)
        before = self._num_before[anchors]
        which = rng.integers(before + self._num_after[anchors])
        first, second = self._first[:, anchors]
        partners = self._order[np.where(which < before, first + which, second + which - before)]
        return list(np.stack([anchors, partners], axis=2).reshape(self.num_batches, -1))


class Views(Sampler):
    """Self-supervised: the original and an augmented view of the same window side by side.

    2i is the window as it is, 2i + 1 the same window (its number + W · view) in one of the other views, at random.

    An epoch has as many batches as ``uniform``, of batch_size // 2 windows in two views: about half of the windows.
    They are of as many different videos as a batch can hold, as with ``temporal``, and no window is twice in a batch.

    Raises ``ValueError`` where there is only one view, and for a batch size under 4.
    """

    source = "Chen et al. 2020 (SimCLR), https://arxiv.org/abs/2002.05709"
    self_supervised = True
    paired = True
    uses_views = True

    def __init__(self, videos: NDArray, num_views: int, batch_size: int, seed: int):
        if num_views < 2:
            raise ValueError("needs augmented views in the store: extract with views 1 or more, or data_aug")
        self.seed, self.num_windows, self.num_views = seed, len(videos), num_views
        self.num_batches = _num_batches(len(videos), batch_size)
        self._windows = _Spread(np.arange(len(videos)), videos, batch_size)

    def epoch(self, epoch: int) -> Batches:
        """The batches (at most batch_size,) of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        windows = self._windows.draw(rng, self.num_batches)
        others = windows + self.num_windows * rng.integers(1, self.num_views, windows.shape)
        return list(np.stack([windows, others], axis=2).reshape(self.num_batches, -1))


class Pairs(Sampler):
    """Left and right at 2i and 2i + 1: half of the pairs of one class, the other half of two.

    An epoch has as many batches as ``uniform``, of batch_size // 2 pairs: those of one class first (one fewer than
    the others where the number is odd), apart as ``positives`` says. In both halves the classes take turns on the
    left, and on the right of a different pair stands each other class equally likely, so that neither side alone
    tells which half a pair is of. Videos (or groups) take turns on the left and are equally likely on the right.

    A class without two windows that ``positives`` lets stand together is only in pairs of two classes. Raises
    ``ValueError`` for fewer than 2 classes and for a batch size under 4.
    """

    source = "same and different pairs: Chopra et al. 2005, https://doi.org/10.1109/CVPR.2005.202"
    needs_classes = True

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "any",
    ):  # fmt: skip
        self.seed = seed
        self.num_batches = _num_batches(len(labels), batch_size)
        self.windows = _Classes(labels, videos, groups, positives)
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 pairs), and is {batch_size}")
        self.num_different = -(-(batch_size // 2) // 2)
        self.num_same = batch_size // 2 - self.num_different
        self._of_two = np.unique(self.windows.label[self.windows.has_partner])  # classes

    def epoch(self, epoch: int) -> Batches:
        """The batches of epoch number ``epoch``, which starts at 0."""
        rng = np.random.default_rng([self.seed, epoch])
        same = self._of_two[_decks(rng, len(self._of_two), self.num_same, self.num_batches)]
        different = _decks(rng, self.windows.num_classes, self.num_different, self.num_batches)
        turns = np.concatenate([same, different], axis=1)
        left = self.windows.take(rng, turns.ravel(), np.ones(turns.size, dtype=np.int64)).reshape(turns.shape)
        others = (different + rng.integers(1, self.windows.num_classes, different.shape)) % self.windows.num_classes
        right = [self.windows.partners(rng, left[:, : self.num_same]), self.windows.one_of_each(rng, others)]
        return list(np.stack([left, np.concatenate(right, axis=1)], axis=2).reshape(self.num_batches, -1))


class _Classes:
    """Windows by class, and in a class by cell: a cell is what a class has of one video, or of one group.

    ``values`` are the label values, ``label`` (W,) numbers into them, ``has_partner`` (W,) says whether there is a
    positive for a window. Raises ``ValueError`` for fewer than 2 classes and where no window has a positive.
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
        self._cell_start = _starts(self._cell_size)
        self._num_cells = np.bincount(cells // (unit.max() + 1))  # of each class
        self._first_cell = _starts(self._num_cells)
        self._order = np.argsort(self._cell, kind="stable")  # cell after cell, so class after class
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(labels))
        self._size = np.bincount(self.label)  # of each class
        self._start = _starts(self._size)

        self._apart = positives != "any"
        self.has_partner = ((self._num_cells if self._apart else self._size) > 1)[self.label]
        if not self.has_partner.any():
            two = {"any": "windows", "other_video": "videos", "other_group": "groups"}[positives]
            raise ValueError(f"there are no pairs to learn from: no class has two {two}")

    def partners(self, rng: np.random.Generator, windows: NDArray) -> NDArray[np.int64]:
        """A positive for each of ``windows``, of any shape: every other cell of the class equally likely, or, where
        ``positives`` is 'any', every other window. Without a positive: another window of the class, or itself.
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
        return np.sort(shuffled[np.argsort(_counted(self._size), kind="stable")[:most]])

    def take(self, rng: np.random.Generator, classes: NDArray, counts: NDArray) -> NDArray[np.int64]:
        """Windows, for each of ``classes`` (M,) in turn so many as ``counts`` (M,), end to end.

        Each turn of a class goes on where its last one stopped. A class is drawn in rounds, and a round is all its
        cells in a new order; a cell gives its windows in a random order and starts over when they are used up. Of
        two neighbours in the draws of a class no two are of one cell where the class has more.
        """
        num_draws = np.bincount(classes, weights=counts, minlength=self.num_classes).astype(np.int64)
        draws, first_draw = self._draws(rng, num_draws)
        by_class = np.argsort(classes, kind="stable")
        first = np.empty(len(classes), dtype=np.int64)
        first[by_class] = _starts(counts[by_class]) + (first_draw - _starts(num_draws))[classes[by_class]]
        return draws[np.repeat(first, counts) + _counted(counts)]

    def _draws(self, rng: np.random.Generator, num_draws: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Window numbers, class after class, at least ``num_draws`` of each, and where each class begins."""
        shuffled = np.lexsort((rng.random(len(self._cell)), self._cell))  # cell after cell
        num_rounds = -(-num_draws // self._num_cells)
        num_drawn = num_rounds * self._num_cells
        position = _counted(num_drawn)
        num_cells = np.repeat(self._num_cells, num_drawn)
        round_number, nth_cell = position // num_cells, position % num_cells
        order = rng.random(len(position))
        # Two cells must alternate: all rounds have the order of the first.
        order = np.where(num_cells == 2, order[np.repeat(_starts(num_drawn), num_drawn) + nth_cell], order)
        sorting = np.lexsort((order, np.repeat(_starts(num_rounds), num_drawn) + round_number))  # inside each round
        cell = (np.repeat(self._first_cell, num_drawn) + nth_cell)[sorting]
        # A round that begins with the cell that ended the last one has its first two exchanged.
        seam = np.flatnonzero((cell[1:] == cell[:-1]) & (num_cells[1:] > 1)) + 1
        cell[seam], cell[seam + 1] = cell[seam + 1], cell[seam]
        return shuffled[self._cell_start[cell] + round_number % self._cell_size[cell]], _starts(num_drawn)


class _Spread:
    """Different windows for each batch of pairs, of as many videos as possible; ``videos`` is of each of ``windows``.

    P = batch_size // 2 a batch, or all windows where they are fewer. Each video gives ``level`` of its windows to
    every batch, or all where it has fewer; for the rest of the P the videos that have more take turns.
    """

    def __init__(self, windows: NDArray, videos: NDArray, batch_size: int):
        if batch_size < 4:
            raise ValueError(f"batch_size must be at least 4 (2 pairs), and is {batch_size}")
        if len(windows) < 2:
            raise ValueError(f"needs at least 2 windows to make pairs of, and there are {len(windows)}")
        per_batch = min(batch_size // 2, len(windows))
        self._windows, self._video = windows, np.unique(videos, return_inverse=True)[1]
        self._size = np.bincount(self._video)
        num_of_size = np.bincount(np.minimum(self._size, per_batch), minlength=per_batch + 1)
        num_at_least = np.cumsum(num_of_size[::-1])[::-1]  # videos of 0, 1, 2, ... windows or more
        given = np.cumsum(num_at_least[1:])  # by all videos together, when each gives at most 1, 2, ... windows
        level = np.searchsorted(given, per_batch, side="right")
        self._always = np.repeat(np.arange(len(self._size)), np.minimum(self._size, level))
        self._in_turn = np.flatnonzero(self._size > level)
        self._num_in_turn = per_batch - len(self._always)

    def draw(self, rng: np.random.Generator, num_batches: int) -> NDArray[np.int64]:
        """Windows (num_batches, P), none twice in a batch; those of a video in a new random order, over and over."""
        turns = np.tile(self._always, (num_batches, 1))
        if self._num_in_turn:
            decks = _decks(rng, len(self._in_turn), self._num_in_turn, num_batches)
            turns = np.concatenate([turns, self._in_turn[decks]], axis=1)
        shuffled = np.lexsort((rng.random(len(self._video)), self._video))
        video = turns.ravel()
        turn_number = np.empty(len(video), dtype=np.int64)
        turn_number[np.argsort(video, kind="stable")] = _counted(np.bincount(video, minlength=len(self._size)))
        chosen = shuffled[_starts(self._size)[video] + turn_number % self._size[video]]
        return self._windows[chosen].reshape(turns.shape)


def _decks(rng: np.random.Generator, num_items: int, per_batch: int, num_batches: int) -> NDArray[np.int64]:
    """Items (num_batches, per_batch): shuffled decks of all of them, dealt out one after another.

    No item is twice in a batch where there are as many as it holds.
    """
    size = num_batches * per_batch
    decks = np.tile(np.arange(num_items), (-(-size // num_items), 1))
    decks = rng.permuted(decks, axis=1)
    if num_items > per_batch > 1:
        for number in range(1, len(decks)):
            # A batch across two decks: what it has of the last one goes behind its share of the next.
            held = number * num_items % per_batch
            if held:
                again = np.isin(decks[number], decks[number - 1][-held:])
                decks[number] = np.concatenate([decks[number][~again], decks[number][again]])
    return decks.ravel()[:size].reshape(num_batches, per_batch)


def _passes(seed: int, epoch: int, num_items: int, per_epoch: int) -> NDArray[np.int64]:
    """What epoch ``epoch`` gets (per_epoch,) of an endless row of shuffles of the items: each comes once before any
    comes again, however many epochs that takes.
    """
    first = epoch * per_epoch
    numbers = range(first // num_items, -(-(first + per_epoch) // num_items))
    row = np.concatenate([np.random.default_rng([seed, number, 1]).permutation(num_items) for number in numbers])
    return row[first % num_items :][:per_epoch]


def _largest(cosine: NDArray, allowed: NDArray, num: int) -> NDArray[np.int64]:
    """Columns (B, num) of the largest allowed cosines of each row, the largest first; it overwrites ``cosine``.

    A row with fewer repeats the largest of them.
    """
    # Subtracting costs a tenth of writing through a random mask, and a few argmax a tenth of a partition.
    cosine -= ~allowed * np.float32(4)
    rows = np.arange(len(cosine))
    found = np.empty((len(cosine), num), dtype=np.int64)
    for nth in range(num):
        column = cosine.argmax(axis=1)
        found[:, nth] = np.where(cosine[rows, column] > -2, column, found[:, 0] if nth else column)
        cosine[rows, column] = -4
    return found


def _farther(cosine: NDArray, allowed: NDArray, limit: NDArray) -> NDArray[np.bool_]:
    """Those of ``allowed`` (B, n) that are less than ``limit`` (B, 1); in a row without any, the least."""
    farther = allowed & (cosine < limit)
    rows = np.flatnonzero(~farther.any(axis=1))
    least = np.where(allowed[rows], cosine[rows], np.inf).argmin(axis=1)
    farther[rows, least] = True
    return farther


def _normalised(vectors: NDArray) -> NDArray[np.float32]:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _starts(sizes: NDArray) -> NDArray[np.int64]:
    """Where each of the pieces laid end to end begins: [2, 3, 1] -> [0, 2, 5]."""
    return np.cumsum(sizes) - sizes


def _counted(sizes: NDArray) -> NDArray[np.int64]:
    """Each piece counted from 0, end to end: [2, 3, 1] -> [0, 1, 0, 1, 2, 0]."""
    return np.arange(sizes.sum()) - np.repeat(_starts(sizes), sizes)


def _even(number: int) -> int:
    return number - number % 2


def _num_batches(num_windows: int, batch_size: int) -> int:
    """How many batches one pass over the windows has; a single window left over makes none."""
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, and is {batch_size}")
    if num_windows < 2:
        raise ValueError(f"needs at least 2 windows, and there are {num_windows}")
    return num_windows // batch_size + (num_windows % batch_size > 1)


def _check_whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, and is {value!r}")
    return value


def options_of(name: str) -> list[str]:
    """The options that the named sampler has of its own."""
    return [key for key in inspect.signature(SAMPLERS[name]).parameters if key not in HANDED]


def build_sampler(name: str, options: Mapping[str, Any] | None = None, **available: Any) -> Sampler:
    """The named sampler; it gets those of ``available`` that its constructor names, and None is its own default.

    Raises ``UserError`` for an unknown name, an option that the sampler has not, a missing argument and data that the
    sampler cannot use.
    """
    one_of("sampler", name, SAMPLERS)
    for key in options or {}:
        if key not in options_of(name):
            takes = f"has {options_of(name)}" if options_of(name) else "has none"
            raise UserError(f"sampler '{name}' has no option '{key}': it {takes}")
    return build("sampler", SAMPLERS, name, available | dict(options or {}))


SAMPLERS: dict[str, type[Sampler]] = {
    "uniform": Uniform,
    "balanced": Balanced,
    "per_class_negatives": PerClassNegatives,
    "hard_negative": HardNegative,
    "semi_hard": SemiHard,
    "opposite": Opposite,
    "temporal": Temporal,
    "views": Views,
    "pairs": Pairs,
}
