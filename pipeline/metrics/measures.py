"""All that is measured of a run on the validation part: what a seed makes of its frames, as measures by group."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.core.numbering import spacing
from pipeline.metrics.probes import linear_probe
from pipeline.metrics.protocol import au_by_group, expression_by_group, va_by_group
from pipeline.metrics.retrieval import found_at_k, knn_votes, pair_ranks, precision_at_r
from pipeline.metrics.separability import PairCounts, mean_cosines, pair_counts, separability
from pipeline.metrics.separation import evenly
from pipeline.metrics.smoothing import changes, fit_class_bias, in_frames, smooth
from pipeline.metrics.steadiness import neighbours, steadiness_by_group, switches
from pipeline.metrics.uncertainty import Measure, of_means

STEADY = ("cosine_neighbours", "cosine_strangers", "cosine_same_video", "steadiness", "steadiness_in_video")
SUFFIXES = ("", "_smoothed")
MOST_JUDGED = 300_000_000  # inputs of pairs that a head for pairs is asked of: 3 to 4 s on two cores
STEPS = ("flips_per_100", "frames_late", "switches_missed")


@dataclass(frozen=True)
class Part:
    """The n frames of the videos that are validated on, sorted by (video, frame), and m training frames.

    ``frame`` (n,) are the numbers that a frame is called by, ``number`` (n,) the same as if neighbours were ``step``
    apart in every video: smoothing and steadiness count by these.
    ``label`` (n,) is a class code or -1, ``va`` (n, 2) and ``aus`` (n, A) have NaN where there is no label: such frames
    are smoothed over, not scored. ``group`` (n,) are codes into ``groups``, whole persons or raw videos; ``video`` (n,)
    codes into ``videos``, of which ``fps`` (V,) are the frames a second, None where nobody says. ``pairs``
    (P, 2) are rows of the two sides of pairs, None where the data are no pairs.
    """

    video: np.ndarray
    frame: np.ndarray
    number: np.ndarray
    group: np.ndarray
    label: np.ndarray
    va: np.ndarray
    aus: np.ndarray
    videos: list[str]
    groups: list[str]
    classes: list[str]
    au_names: list[str]
    step: int
    opposites: list[tuple[int, int]]
    train_label: np.ndarray
    pairs: np.ndarray | None = None
    fps: np.ndarray | None = None

    @cached_property
    def has(self) -> np.ndarray:
        """Rows whose expression is scored; none where each class is one group's own, as with pairs of images."""
        rows = np.flatnonzero(self.label >= 0)
        if self.pairs is not None:
            groups_of = np.unique(np.stack([self.label[rows], self.group[rows]]), axis=1)[0]
            if not (np.bincount(groups_of) > 1).any():
                return rows[:0]
        return rows


@dataclass(frozen=True)
class Settings:
    """What is measured, where there is a choice: fields of ``EvaluateConfig``."""

    top_k: Sequence[int]
    neighbours: int
    most_pairs_of: int
    smoothing: str
    width: int | str
    width_aus: int | str
    class_bias: bool


@dataclass(frozen=True)
class Judged:
    """What a head for pairs says itself, by its logits of 'the same'.

    ``counts`` are of pairs of two groups of ``judged_frames``, None where there are none; ``ranks`` (q, 2) of the
    ``compared_pairs`` numbered ``asked`` (q,), as ``pair_ranks`` has them; ``logits`` (Q,) those of the pairs that the
    label table names in the part, of ``group`` (Q,), of which ``same`` (Q,) show the same.
    """

    counts: PairCounts | None
    asked: np.ndarray
    ranks: np.ndarray
    logits: np.ndarray
    same: np.ndarray
    group: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What one seed makes of the frames of a ``Part``.

    ``z`` (n, E) and ``z_train`` (m, E) are embeddings, None where there are only predictions. ``said`` has what a
    loss predicts: 'classes' (n, C) and 'aus' (n, A) as probabilities, 'va' (n, 2); ``said_train`` (m, C) are the
    classes of the training frames, for class biases. ``judged`` is there where the head is one for pairs.
    """

    z: np.ndarray | None
    z_train: np.ndarray | None
    said: dict[str, np.ndarray]
    said_train: np.ndarray | None = None
    judged: Judged | None = None


@dataclass(frozen=True)
class Seen:
    """What the tables and plots of a seed are made of.

    ``predicted``: of each of 'classes', 'va', 'aus' and 'knn' the values (n, .) as said, and smoothed with the class
    biases added, where that is asked for and changes anything. ``pairs`` are None where there are no pairs of
    embeddings. ``probe`` are the classes that a linear probe says of the rows ``Part.has``, None where there is none.
    """

    predicted: dict[str, list[np.ndarray]]
    pairs: PairCounts | None
    probe: np.ndarray | None = None


def measured(part: Part, answers: Answers, settings: Settings) -> tuple[Measure, Seen]:
    """All measures of one seed in one, and what else it takes to report them."""
    measures, said, pairs, probe = [], dict(answers.said), None, None
    has, known = part.has, part.train_label >= 0
    if len(has) and answers.z is not None:
        z, label, group = _of_rows(answers.z, has), part.label[has], part.group[has]
        pairs = pair_counts(z, label, group, len(part.classes), part.opposites, settings.most_pairs_of)
        measures += [
            _of(mean_cosines(z, label, group, len(part.classes), part.opposites), group),
            _of(separability(pairs), group),
            _retrieved(z, label, group, settings, len(part.groups)),
        ]
        if known.any():
            z_train, y_train = answers.z_train[known], part.train_label[known]
            said["knn"] = knn_votes(z_train, y_train, answers.z, settings.neighbours, len(part.classes))
            probe = linear_probe(z_train, y_train, z)
    asked = compared_pairs(part, settings.most_pairs_of)
    if len(asked) and answers.z is not None:
        ranks = pair_ranks(*(answers.z[rows] for rows in asked.T))
        measures.append(_partners_found(part, asked, ranks, settings.top_k))
    if answers.judged is not None:
        measures.append(_prefixed(_of_judged(part, asked, answers.judged, settings.top_k), "pair_"))
    bias = np.zeros(len(part.classes))
    if settings.class_bias and answers.said_train is not None and known.any():
        bias = fit_class_bias(_log(answers.said_train[known]), part.train_label[known])[0]
    predicted = {what: [values] for what, values in said.items()}
    if settings.class_bias or any(_is_smoothed(part, what, settings) for what in said):
        for what, values in said.items():
            predicted[what].append(_smoothed(part, what, values, bias, settings))
    seen = Seen(predicted, pairs, probe)
    return joined([*measures, by_groups(part, answers.z, seen, part.group)]), seen


def by_groups(part: Part, z: np.ndarray | None, seen: Seen, group: np.ndarray) -> Measure:
    """Measures predictions and steadiness for any ``group`` (n,): the codes of the part's own, or its videos.

    Its weights may be sparse, so that each video can be measured by itself: ``grouped.one_by_one``.

    The name of what the nearest neighbours say begins with ``knn_``; of what was smoothed it ends in ``_smoothed``.
    """
    measures, has, num_groups = [], part.has, int(group.max(initial=-1)) + 1
    label, video, number, of = part.label[has], part.video[has], part.number[has], group[has]
    step = spacing(video, number)  # of frames that are scored: labels may be at another rate than frames
    if z is not None and len(has):
        steady = steadiness_by_group(_of_rows(z, has), label, label, video, number, step, of)
        measures.append(_named(_of(steady, of), {name: name for name in STEADY}))
    if seen.probe is not None:
        scores = expression_by_group(label, seen.probe, of, part.classes)
        measures.append(_named(_of(scores, of), {"macro_f1": "probe_macro_f1"}))
    for what, values in seen.predicted.items():
        for scores, suffix in zip(values, SUFFIXES, strict=False):
            if what == "va":
                names = {name: f"{name}{suffix}" for name in ("ccc", "ccc_valence", "ccc_arousal")}
                measures.append(_named(_of(va_by_group(part.va, scores, group), group), names))
            elif what == "aus":
                of_units = au_by_group(part.aus, scores, group, part.au_names)
                names = {"au_f1": f"au_f1{suffix}"} | {f"f1_{u}": f"f1_{u}{suffix}" for u in part.au_names}
                measures.append(_named(_of(of_units, group), names))
            elif len(has):
                prefix, said = "knn_" if what == "knn" else "", scores[has].argmax(1)
                names = ["macro_f1", "accuracy", *(f"f1_{c}" for c in part.classes)]
                measures.append(
                    _named(
                        _of(expression_by_group(label, said, of, part.classes), of),
                        {name: f"{prefix}{name}{suffix}" for name in names},
                    )
                )
                for found in _steps(said, label, video, number, step, of, num_groups):
                    measures.append(_named(found, {name: f"{prefix}{name}{suffix}" for name in STEPS}))
    return joined(measures)


def _of_rows(z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``z[rows]`` of ascending rows, and no copy where that is all of it."""
    return z if len(rows) == len(z) else z[rows]


def joined(measures: Sequence[Measure]) -> Measure:
    """All of them as one."""
    return lambda weights: {name: value for measure in measures for name, value in measure(weights).items()}


def best_source(seen: Seen) -> str | None:
    """Whose classes are shown: the classifier's where there is one, else the nearest neighbours', else nobody's."""
    return next((what for what in ("classes", "knn") if what in seen.predicted), None)


def compared_pairs(part: Part, most: int) -> np.ndarray:
    """Those ``pairs`` (P, 2) of a part, at most so many and evenly spaced, whose partners are looked for."""
    return np.zeros((0, 2), dtype=np.int64) if part.pairs is None else part.pairs[evenly(len(part.pairs), most)]


def judged_frames(part: Part, most: int, width: int) -> np.ndarray:
    """Rows whose pairs a head for pairs judges: those whose cosines are compared, or fewer evenly spaced ones.

    All pairs of them have no more than ``MOST_JUDGED`` inputs, ``width`` a pair.
    """
    return part.has[evenly(len(part.has), min(most, int(np.sqrt(2 * MOST_JUDGED / width))))]


def judged_partners(part: Part, most: int, width: int) -> np.ndarray:
    """Numbers (q,) of ``compared_pairs`` whose partners a head for pairs looks for, among the sides of all of them.

    Evenly spaced where they are fewer than all, so that the pairs judged have no more than ``MOST_JUDGED`` inputs.
    """
    num_pairs = len(compared_pairs(part, most))
    return evenly(num_pairs, max(1, MOST_JUDGED // (2 * max(num_pairs, 1) * width)))


def _partners_found(part: Part, pairs: np.ndarray, ranks: np.ndarray, ks: Sequence[int]) -> Measure:
    found = {f"paired_recall_at_{k}": (ranks.min(axis=1) < k).astype(np.float64) for k in ks}
    return of_means(found, part.group[pairs[:, 0]], len(part.groups))


def _of_judged(part: Part, pairs: np.ndarray, judged: Judged, ks: Sequence[int]) -> Measure:
    """What is measured of cosines, of the logits; and ``f1`` of the label table's own pairs at a logit of 0."""
    measures = []
    if judged.counts is not None:
        measures.append(_of(separability(judged.counts), part.group[part.has]))
    if len(pairs):
        measures.append(_partners_found(part, pairs[judged.asked], judged.ranks, ks))
    if judged.same.any() and not judged.same.all():
        said, num_groups = judged.logits > 0, len(part.groups)
        kinds = said & judged.same, said, judged.same
        sums = np.stack([np.bincount(judged.group, kind, num_groups) for kind in kinds], axis=1)

        def f1(weights: np.ndarray) -> dict[str, np.ndarray]:
            hits, positive, true = (weights @ sums).T
            return {"f1": np.where(true > 0, 2 * hits / np.maximum(positive + true, 1), np.nan)}

        measures.append(f1)
    return joined(measures)


def _prefixed(measure: Measure, prefix: str) -> Measure:
    return lambda weights: {f"{prefix}{name}": value for name, value in measure(weights).items()}


def _of(measure: Measure, groups: np.ndarray) -> Measure:
    """For weights of all groups, also where ``groups`` are only the first of them: the others have no such frames."""
    num_groups = int(groups.max(initial=-1)) + 1
    return lambda weights: measure(weights[:, :num_groups])


def _named(measure: Measure, names: dict[str, str]) -> Measure:
    """Only what ``names`` has, under another name where it is there."""

    def chosen(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {names[name]: value for name, value in measure(weights).items() if name in names}

    return chosen


def _retrieved(z: np.ndarray, label: np.ndarray, group: np.ndarray, settings: Settings, num_groups: int) -> Measure:
    few = evenly(len(label), settings.most_pairs_of)
    z, label, group = z[few], label[few], group[few]
    hits = found_at_k(z, label, group, settings.top_k)
    found = {f"recall_at_{k}": hits[:, place] for place, k in enumerate(settings.top_k)}
    return of_means(found | {"map_at_r": precision_at_r(z, label, group)}, group, num_groups)


def _steps(
    said: np.ndarray, label: np.ndarray, video: np.ndarray, number: np.ndarray, step: np.ndarray, group: np.ndarray,
    num_groups: int,
) -> list[Measure]:  # fmt: skip
    """Flips inside segments of one label, and what happens at true changes: ``STEPS``."""
    first, second = neighbours(video, number, step)
    first, second = (rows[label[first] == label[second]] for rows in (first, second))
    flips = {"flips_per_100": 100.0 * (said[first] != said[second])}
    change = switches(said, label, video, number, step)
    late = {"frames_late": change["late"], "switches_missed": np.isnan(change["late"]).astype(np.float64)}
    return [of_means(flips, group[first], num_groups), of_means(late, group[change["row"]], num_groups)]


def _smoothed(part: Part, what: str, values: np.ndarray, bias: np.ndarray, settings: Settings) -> np.ndarray:
    smoothed = smooth_part(part, values, settings.smoothing, _width(what, settings))
    if what != "classes" or not bias.any():
        return smoothed
    weighted = np.exp(_log(smoothed) + bias)
    return weighted / weighted.sum(1, keepdims=True)


def _width(what: str, settings: Settings) -> int | str:
    return settings.width_aus if what == "aus" else settings.width


def _is_smoothed(part: Part, what: str, settings: Settings) -> bool:
    return changes(part.video, *_counted(part, settings.smoothing, _width(what, settings)))


def smooth_part(part: Part, values: np.ndarray, kind: str, width: int | str) -> np.ndarray:
    """Values (n, C) of the part's frames smoothed, by a width in seconds or in frames, as many in every video."""
    return smooth(values, part.video, *_counted(part, kind, width))


def _counted(part: Part, kind: str, width: int | str) -> tuple[np.ndarray, str, int | np.ndarray]:
    """Numbers (n,), kind and width as ``smooth`` takes them: seconds are counted in the frames' own numbers."""
    if isinstance(width, str):
        return part.frame, kind, in_frames(width, part.fps[part.video])
    return part.number, kind, width


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, 1e-12))
