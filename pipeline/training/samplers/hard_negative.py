"""Anchors with their nearest windows of other classes, by the embeddings as they are."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.core.params import UserError
from pipeline.training.samplers.classes import Classes
from pipeline.training.samplers.common import Batches, Sampler, count_batches, passes, whole_number

BLOCK = 256  # rows of cosines at a time: with 4096 columns they stay in the cache


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
        self.num_batches = count_batches(len(labels), batch_size)
        self.windows = Classes(labels, videos, groups, positives)
        self.negatives = whole_number("negatives", negatives, 1)
        self.nearest = whole_number("nearest", nearest, negatives)
        self.candidates = whole_number("candidates", candidates, max(self.windows.num_classes, nearest))
        self.refresh_every = whole_number("refresh_every", refresh_every, 1)
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
        anchors = self._anchors[passes(self.seed, epoch, len(self._anchors), num_anchors)]
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


def _largest(cosine: NDArray, allowed: NDArray, num: int) -> NDArray[np.int64]:
    """Columns (B, num) of the largest allowed cosines of each row, the largest first. Overwrites ``cosine``.

    A row with fewer allowed ones repeats the largest.
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
    """The ``allowed`` (B, n) whose cosine is less than ``limit`` (B, 1); in a row without any, the least one."""
    farther = allowed & (cosine < limit)
    rows = np.flatnonzero(~farther.any(axis=1))
    least = np.where(allowed[rows], cosine[rows], np.inf).argmin(axis=1)
    farther[rows, least] = True
    return farther


def _normalised(vectors: NDArray) -> NDArray[np.float32]:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
