"""How far a number would move with other videos and other seeds: intervals by resampling whole groups.

``groups`` are codes 0 to G - 1 everywhere, the same for all metrics and runs that are compared. Measures keep sums for
the groups and classes that occur (``grouped``), and resamples are measured some at a time, so that memory grows with
the number of groups and no faster.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.grouped import Measure

MOST_AT_ONCE = 2**24  # weights in float64 that are measured at a time, 134 MB


def group_weights(num_groups: int, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each group is drawn (R, G): G - 1 draws with replacement, the same for the same arguments.

    G draws would make intervals too narrow by sqrt((G - 1) / G), which matters where there are few groups; G - 1 do not
    (Rao & Wu 1988, https://doi.org/10.1080/01621459.1988.10478591). Nothing is drawn of a single group: one video
    says nothing about another.
    """
    if num_groups < 1 or num_resamples < 1:
        raise ValueError(f"there must be groups and resamples, and there are {num_groups} and {num_resamples}")
    rng, share = np.random.default_rng(seed), np.full(num_groups, 1 / num_groups)
    weights = np.empty((num_resamples, num_groups), dtype=np.int32)
    for rows in _blocks(weights):
        weights[rows] = rng.multinomial(num_groups - 1, share, size=len(weights[rows]))
    return weights


def _blocks(weights: np.ndarray) -> Iterator[slice]:
    rows = max(1, MOST_AT_ONCE // weights.shape[1])
    return (slice(start, start + rows) for start in range(0, len(weights), rows))


@dataclass(frozen=True)
class Estimate:
    """A number, and what it was in each resample (R,). The difference of two is paired: resample by resample."""

    value: float
    resampled: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Percentiles of the resamples, without those where it cannot be measured; NaN where these are over half."""
        if np.isnan(self.value) or np.isnan(self.resampled).mean() > 0.5:
            return float("nan"), float("nan")
        low, high = np.nanquantile(self.resampled, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def beyond_noise(self, level: float = 0.95) -> bool:
        """Whether zero lies outside of the interval; False where there is no interval."""
        low, high = self.interval(level)
        return low > 0 or high < 0

    def __sub__(self, other: "Estimate") -> "Estimate":
        if len(self.resampled) != len(other.resampled):
            raise ValueError(f"{len(self.resampled)} and {len(other.resampled)} resamples are no pairs")
        return Estimate(self.value - other.value, self.resampled - other.resampled)


def estimates(run: str, seeds: Sequence[Measure], weights: np.ndarray) -> dict[str, Estimate]:
    """The metrics of a run, mean over its S seeds, resampled over groups and seeds.

    In a resample all seeds see the same groups, and S - 1 of the seeds are drawn with replacement: both kinds of chance
    are in the interval, each counted once (both factors resampled: Owen 2007, https://doi.org/10.1214/07-AOAS122).
    The draws of seeds hang on the name of the run, since seed 0 of two runs has nothing in common. With one seed the
    interval is that of this one network: how it would differ after another training is not in it.
    """
    if not seeds:
        raise ValueError(f"run '{run}' has no seeds to be estimated from")
    num_groups, num_seeds = weights.shape[1], len(seeds)
    values = [measure(np.ones((1, num_groups))) for measure in seeds]
    names = list(values[0])
    resampled: list[dict[str, list[np.ndarray]]] = [{name: [] for name in names} for _ in seeds]
    for rows in _blocks(weights):
        # By columns: products with sparse sums take the weights of a group, those of all resamples, one after another.
        some = np.asfortranarray(weights[rows], dtype=np.float64)
        for measure, kept in zip(seeds, resampled, strict=True):
            drawn_values = measure(some)
            for name in names:
                kept[name].append(drawn_values[name])
    rng = np.random.default_rng(zlib.crc32(run.encode()))
    drawn = rng.multinomial(max(1, num_seeds - 1), np.full(num_seeds, 1 / num_seeds), size=len(weights))
    share = drawn / drawn.sum(1, keepdims=True)
    return {
        name: Estimate(
            float(np.mean([v[name][0] for v in values])),
            _dot(share, np.stack([np.concatenate(r[name]) for r in resampled], 1)),
        )
        for name in names
    }


def _dot(share: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Row sums of share * values; a NaN of a seed that was not drawn does not count."""
    return np.where(share > 0, share * values, 0).sum(1)


def best_beyond_noise(runs: Mapping[str, Estimate], higher_is_better: bool = True, level: float = 0.95) -> str | None:
    """The run that is better than every other beyond noise, or None.

    Each of the m comparisons is made at 1 - (1 - level) / m (Bonferroni): the best of many is often best by luck. So
    twenty runs need some 2,000 resamples for the percentiles to be there.
    """
    known = {name: run for name, run in runs.items() if not np.isnan(run.value)}
    if len(known) < 2:
        return None
    best = (max if higher_is_better else min)(known, key=lambda name: known[name].value)
    others = [known[best] - run for name, run in known.items() if name != best]
    strict = 1 - (1 - level) / len(others)
    return best if all(difference.beyond_noise(strict) for difference in others) else None
