"""Identification rate: how many pairs of pictures of one person a threshold finds that passes few pairs of strangers.

*Query* people have several pictures each, *distractors* are nobody of them. Genuine pairs are all pairs of two pictures
of one query person. Impostor pairs are all pairs of pictures of two query people, and all of a query person's with a
distractor's; pairs of two distractors do not count. TPR at an FPR of 1e-4, say, is the share of genuine pairs above the
lowest threshold that at most 1e-4 of the impostor pairs are above. This is the protocol of MegaFace's verification
(Kemelmacher-Shlizerman et al. 2016, https://arxiv.org/abs/1512.00596), with the pairs among the queries besides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.grouped import Measure
from pipeline.metrics.vectors import evenly, normalised
from pipeline.metrics.verification import crossing

RATES = {"1e-1": 0.1, "1e-2": 0.01, "1e-3": 0.001, "1e-4": 0.0001}
CURVE = np.geomspace(1e-5, 1, 101)  # false positive rates of the curve
MOST_PICTURES = 40  # of a person, evenly spaced: CelebA has at most 35, a video thousands
CELLS = 2**16  # of the cosines from -1 to 1, in which thresholds are looked for first
BLOCK = 256  # pictures whose cosines with all others are in memory at a time
AROUND = 12  # thresholds from half to twice each rate, between which the ROC of a resample is interpolated


@dataclass(frozen=True)
class IdentityCounts:
    """Numbers of pairs above some thresholds, by people.

    Q query people come first, then the distractors, P in all: ``people`` (P,) are their codes. ``genuine`` (K, Q) and
    ``impostor`` (K, Q, P) are numbers of pairs above each of K rising thresholds, the first of which all pass.
    ``impostor`` has each pair of two query people once. ``at`` says which threshold each of ``RATES`` has on the data
    as it is; a rate that allows less than one impostor pair has none. ``curve`` (101,) is the TPR at ``CURVE``, NaN
    below the rate of one impostor pair. ``pictures`` are those of the query people and of the distractors.
    """

    people: np.ndarray
    thresholds: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray
    at: dict[str, int]
    curve: np.ndarray
    pictures: tuple[int, int]

    @property
    def num_query(self) -> int:
        return self.genuine.shape[1]

    def facts(self) -> dict[str, int]:
        """How many people, pictures and pairs there are."""
        return {
            "query_people": self.num_query,
            "query_pictures": self.pictures[0],
            "distractor_people": len(self.people) - self.num_query,
            "distractor_pictures": self.pictures[1],
            "genuine_pairs": int(self.genuine[0].sum()),
            "impostor_pairs": int(self.impostor[0].sum()),
        }


def identity_counts(embeddings: np.ndarray, people: np.ndarray, query: np.ndarray) -> IdentityCounts | None:
    """Counts of the cosines of rows (n, E), of ``people`` (n,) codes, of whom some are ``query`` (n,).

    Of a person at most ``MOST_PICTURES`` evenly spaced rows are compared. In blocks of rows, three times over them: the
    thresholds are exact cosines, and the memory is that of a block and of the counts. None without a genuine pair or
    without an impostor pair.
    """
    order = np.lexsort((people, ~query))
    starts = np.flatnonzero(np.diff(people[order], prepend=-1))
    of_person = np.split(order, starts[1:]) if len(order) else []
    of_person = [rows[evenly(len(rows), MOST_PICTURES)] for rows in of_person]
    if not of_person:
        return None
    rows = np.concatenate(of_person)
    z = normalised(embeddings[rows])
    person = np.repeat(np.arange(len(of_person)), [len(of) for of in of_person])
    num_query = int(sum(query[of[0]] for of in of_person))
    num_rows = int((person < num_query).sum())
    cells, scores, owner = np.zeros(CELLS, dtype=np.int64), [], []
    for first, _, cosine, same in _pairs(z, person, num_rows):
        cells += np.bincount(_cell(cosine[~same]), minlength=CELLS)
        scores.append(cosine[same])
        owner.append(first[same])
    genuine, owner = np.concatenate(scores), np.concatenate(owner)
    total = int(cells.sum())
    if not len(genuine) or not total:
        return None
    thresholds, exact = _thresholds(z, person, num_rows, cells)
    place = np.searchsorted(thresholds, genuine)  # thresholds that a pair is above
    size, num_people = len(thresholds), len(of_person)
    above = np.bincount(owner * (size + 1) + place, minlength=num_query * (size + 1)).reshape(num_query, size + 1)
    impostor = np.zeros((size, num_query, num_people), dtype=np.uint16)  # at most MOST_PICTURES squared
    for first, second, cosine, same in _pairs(z, person, num_rows):
        if not len(first):
            continue
        least, most = int(first.min()), int(first.max()) + 1
        key = (first - least) * num_people + second
        key = key * (size + 1) + np.searchsorted(thresholds, cosine)
        counts = np.bincount(key[~same], minlength=(most - least) * num_people * (size + 1))
        counts = counts.reshape(most - least, num_people, size + 1)
        impostor[:, least:most] += _from_above(counts).transpose(2, 0, 1).astype(np.uint16)
    ordered = np.sort(genuine)
    curve = 1 - np.searchsorted(ordered, _near_thresholds(cells, CURVE), side="right") / len(ordered)
    curve[CURVE * total < 1] = np.nan
    at = {name: int(np.searchsorted(thresholds, exact[name])) for name in exact}
    codes = people[[of[0] for of in of_person]]
    return IdentityCounts(
        codes, thresholds, _from_above(above).T, impostor, at, curve, (num_rows, len(rows) - num_rows)
    )  # fmt: skip


def in_words(facts: Mapping[str, int]) -> str:
    """The people, pictures and pairs of ``IdentityCounts.facts``."""
    of = {name: f"{number:,}" for name, number in facts.items()}
    return (
        f"identification: {of['query_people']} query people ({of['query_pictures']} pictures) among "
        f"{of['distractor_people']} distractors ({of['distractor_pictures']} pictures): {of['genuine_pairs']} genuine "
        f"and {of['impostor_pairs']} impostor pairs"
    )


def identification(counts: IdentityCounts) -> Measure:
    """Measures ``identification_at_1e-1`` to ``identification_at_1e-4``: the TPR at these FPRs, each (R,).

    On the data as it is they are exact. In a resample of people a pair counts as often as both of its people, one of
    its own person's as often as that person; the ROC is interpolated between thresholds that lie near together around
    each rate. NaN where a rate allows less than one impostor pair of the data.
    """

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        every = np.asarray(weights, dtype=np.float64)[:, counts.people]
        of_query = every[:, : counts.num_query]
        passed = np.stack([((of_query @ above) * every).sum(1) for above in counts.impostor.astype(np.float32)], 1)
        found = of_query @ counts.genuine.T.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            fpr, tpr = passed / passed[:, :1], found / found[:, :1]
        as_it_is = (every == every[:, :1]).all(axis=1)
        values = {}
        for name, rate in RATES.items():
            value = np.full(len(every), np.nan)
            if name in counts.at:
                value = crossing(fpr[:, ::-1], rate, tpr[:, ::-1])
                value[as_it_is] = tpr[as_it_is, counts.at[name]]
            values[f"identification_at_{name}"] = value
        return values

    return measure


def _pairs(
    z: np.ndarray, person: np.ndarray, num_rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs of a query's row with a later row: two people (k,), the cosine (k,), and whether they are one."""
    for start in range(0, num_rows, BLOCK):
        stop = min(start + BLOCK, num_rows)
        cosine = z[start:stop] @ z[start:].T
        row, column = np.nonzero(np.arange(start, len(z)) > np.arange(start, stop)[:, None])
        first, second = person[start + row], person[start + column]
        yield first, second, cosine[row, column], first == second


def _cell(cosine: np.ndarray) -> np.ndarray:
    return ((cosine + 1) * (CELLS / 2)).astype(np.int64).clip(0, CELLS - 1)


def _near_thresholds(cells: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """The lower ends of the cells in which the thresholds of rates (k,) are, by numbers of impostor pairs (cells,)."""
    ranks = (np.asarray(rates) * cells.sum() + 1e-9).astype(np.int64)
    return 2 * _cells_of_ranks(cells, ranks) / CELLS - 1


def _cells_of_ranks(cells: np.ndarray, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
    """The cells (k,) of the impostor pairs that so many others are above."""
    return CELLS - 1 - np.searchsorted(np.cumsum(cells[::-1]), ranks, side="right").clip(0, CELLS - 1)


def _thresholds(
    z: np.ndarray, person: np.ndarray, num_rows: int, cells: np.ndarray
) -> tuple[np.ndarray, dict[str, np.float32]]:
    """The thresholds (K,), rising, and the exact one of each rate that allows one impostor pair or more."""
    total = int(cells.sum())
    ranks = {name: int(rate * total + 1e-9) for name, rate in RATES.items() if rate * total >= 1 - 1e-9}
    ranks["none"] = 0  # the largest of all: nothing is above
    wanted = dict(zip(ranks, _cells_of_ranks(cells, [*ranks.values()]).tolist(), strict=True))
    kept: dict[int, list[np.ndarray]] = {cell: [] for cell in wanted.values()}
    for _, _, cosine, same in _pairs(z, person, num_rows):
        cell = _cell(cosine)
        for number, parts in kept.items():
            parts.append(cosine[(cell == number) & ~same])
    above = np.concatenate([np.cumsum(cells[::-1])[::-1], [0]])
    exact = {}
    for name, number in wanted.items():
        descending = np.sort(np.concatenate(kept[number]))[::-1]
        exact[name] = descending[ranks[name] - above[number + 1]]
    rates = [rate * 2.0**power for rate in RATES.values() for power in np.linspace(-1, 1, AROUND)]
    between = _near_thresholds(cells, [rate for rate in [*rates, 0.3, 0.5, 0.75] if rate * total >= 1])
    thresholds = np.unique(np.array([-2.0, *exact.values(), *between], dtype=np.float32))
    exact.pop("none")
    return thresholds, exact


def _from_above(counts: np.ndarray) -> np.ndarray:
    """Of numbers (..., K + 1) of pairs that are above so many thresholds, those above each of the K."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1][..., 1:]
