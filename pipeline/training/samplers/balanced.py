"""P classes x K windows a batch."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.samplers.common import deal
from pipeline.training.samplers.p_by_k import PByK


class Balanced(PByK):
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

    def __init__(
        self, labels: NDArray, videos: NDArray, batch_size: int, seed: int, groups: NDArray | None = None,
        positives: str = "any",
    ):  # fmt: skip
        super().__init__(labels, videos, batch_size, seed, groups, positives)

    def class_turns(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The classes of each batch (batches, P): all in a new order, dealt out until every class has had its turn."""
        return deal(rng, self.windows.num_classes, self.classes_per_batch, self.num_batches)
