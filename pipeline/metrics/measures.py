"""What the catalogue's metrics are measured of in an evaluation: the evaluated frames, and a network's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.numbering import spacing
from pipeline.core.tables import IDENTITY_SETS
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.grouped import Measure
from pipeline.metrics.identification import IdentityCounts, identity_counts
from pipeline.metrics.metric import joined
from pipeline.metrics.probes import linear_probe
from pipeline.metrics.retrieval import knn_votes, pair_ranks
from pipeline.metrics.smoothing import changes, fit_class_bias, in_frames, log_of, smooth, with_bias
from pipeline.metrics.vectors import evenly
from pipeline.metrics.verification import PairCounts, pair_counts

# Of names of sources and columns of tables: predictions as they are, smoothed, and combined with the backbone's.
SUFFIXES = ("", "_smoothed", "_combined")
MOST_JUDGED = 300_000_000  # inputs of pairs that a head for pairs gets: 3 to 4 s on two cores


@dataclass(frozen=True)
class Subset:
    """The n frames of the videos that a run is evaluated on, sorted by (video, frame), and labels of m gallery frames.

    ``frame`` (n,) are the numbers that a frame is called by, ``number`` (n,) the same as if neighbours were ``step``
    apart in every video: smoothing and steadiness count by these.
    ``label`` (n,) is a class code or -1, ``va`` (n, 2) and ``aus`` (n, A) have NaN where there is no label: such frames
    are smoothed over, not scored. ``group`` (n,) are codes into ``groups``, whole persons or raw videos; ``video`` (n,)
    codes into ``videos``, of which ``fps`` (V,) are the frames a second, None where nothing says them.
    ``gallery_label`` (m,) are those of the training frames that are candidates for neighbours. ``pairs`` (P, 2) are
    rows of the two sides of pairs, None where the data are no pairs.

    Where clips are evaluated, each row is a clip, ``clips`` are their rows (n) of the clip table, and a clip stands for
    a video of one frame: so nothing is smoothed over clips, and none is another's neighbour in time. ``outputs`` (n, K)
    are their further continuous labels, called ``output_names``.

    Where people are the labels, ``identity_set`` (n,) are codes into ``IDENTITY_SETS`` or -1, and identification of the
    groups is measured, and nothing else: no classifier knows them, since nobody of them was trained on.
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
    gallery_label: np.ndarray
    pairs: np.ndarray | None = None
    fps: np.ndarray | None = None
    outputs: np.ndarray | None = None
    output_names: Sequence[str] = ()
    clips: pd.DataFrame | None = None
    identity_set: np.ndarray | None = None

    @property
    def unit(self) -> str:
        """What a row is, in words: 'frames' or 'clips'."""
        return "frames" if self.clips is None else "clips"

    @cached_property
    def labelled(self) -> np.ndarray:
        """Rows whose expression is scored; none where each class is one group's own, as people or pairs of images."""
        if self.identity_set is not None:
            return np.zeros(0, dtype=np.int64)
        rows = np.flatnonzero(self.label >= 0)
        if self.pairs is not None:
            groups_of = np.unique(np.stack([self.label[rows], self.group[rows]]), axis=1)[0]
            if not (np.bincount(groups_of) > 1).any():
                return rows[:0]
        return rows


@dataclass(frozen=True)
class MetricOptions:
    """What is measured, where there is a choice: fields of ``EvaluateConfig``."""

    top_k: Sequence[int]
    neighbours: int
    most_pairs_of: int
    smoothing: str
    width: int | str
    width_aus: int | str
    class_bias: bool


@dataclass(frozen=True)
class PairOutputs:
    """The logits of 'the same' of a head for pairs.

    ``counts`` are of pairs of two groups of ``judged_frames``, None where there are none. ``ranks`` (q, 2) are those of
    the ``compared_pairs`` numbered ``queries`` (q,), as ``pair_ranks`` has them. ``logits`` (Q,) are those of the pairs
    that the label table names in the subset, of ``group`` (Q,), of which ``same`` (Q,) show the same.
    """

    counts: PairCounts | None
    queries: np.ndarray
    ranks: np.ndarray
    logits: np.ndarray
    same: np.ndarray
    group: np.ndarray


@dataclass(frozen=True)
class Outputs:
    """What one seed gives for the frames of a ``Subset``.

    ``z`` (n, E) and ``gallery_z`` (m, E) are embeddings, None where there are only predictions. ``predictions`` are
    those of the adapter: 'classes' (n, C) and 'aus' (n, A) as probabilities, 'va' (n, 2), 'outputs' (n, K).
    ``gallery_classes`` (m, C)
    are the probabilities of the gallery frames, for class biases. ``pair_head`` is there where the head is one for
    pairs. ``thresholds`` are the probabilities from which an action unit is called active: (A,), or one for all.
    ``combined`` are predictions combined with the backbone's, smoothed and with all that belongs to that, empty where
    nothing is combined; ``combined_thresholds`` are those of their action units.
    """

    z: np.ndarray | None
    gallery_z: np.ndarray | None
    predictions: dict[str, np.ndarray]
    gallery_classes: np.ndarray | None = None
    pair_head: PairOutputs | None = None
    thresholds: np.ndarray | float = 0.5
    combined: dict[str, np.ndarray] = field(default_factory=dict)
    combined_thresholds: np.ndarray | float = 0.5


@dataclass(frozen=True)
class SeedResult:
    """What the tables and plots of a seed are made of.

    ``predictions``: of each of 'classes', 'va', 'aus', 'outputs' and 'knn' the values (n, .) by ``SUFFIXES``: as they
    are, smoothed with the class biases added, where that is wanted and changes anything, and combined, where they are.
    ``pairs`` are None where there are no pairs of embeddings. ``probe`` are a linear probe's classes of the rows
    ``Subset.labelled``, None where there is none. ``thresholds`` are those of the action units, as in ``Outputs``, or
    (n, A) where networks of several folds differ; ``combined_thresholds`` those of combined ones.
    ``identity`` is there where people are the labels.
    """

    predictions: dict[str, dict[str, np.ndarray]]
    pairs: PairCounts | None
    probe: np.ndarray | None = None
    thresholds: np.ndarray | float = 0.5
    combined_thresholds: np.ndarray | float = 0.5
    identity: IdentityCounts | None = None


def measured(subset: Subset, outputs: Outputs, options: MetricOptions) -> tuple[Measure, SeedResult]:
    """All metrics of one seed as one measure, and what else it takes to report them."""
    predictions, pairs, probe = dict(outputs.predictions), None, None
    labelled, known = subset.labelled, subset.gallery_label >= 0
    inputs: dict[str, dict[str, Any]] = {}
    if len(labelled) and outputs.z is not None:
        z, labels, groups = rows_of(outputs.z, labelled), subset.label[labelled], subset.group[labelled]
        classes = {"num_classes": len(subset.classes), "opposites": subset.opposites}
        few = evenly(len(labels), options.most_pairs_of)
        pairs = pair_counts(z, labels, groups, **classes, most=options.most_pairs_of)
        inputs["embeddings"] = {"embeddings": z, "labels": labels, "groups": groups} | classes
        inputs["pairs"] = {"counts": pairs, "groups": groups}
        inputs["gallery"] = {"embeddings": z[few], "labels": labels[few], "groups": groups[few], "ks": options.top_k}
        if known.any():
            gallery, gallery_labels = outputs.gallery_z[known], subset.gallery_label[known]
            predictions["knn"] = knn_votes(gallery, gallery_labels, outputs.z, options.neighbours, len(subset.classes))
            probe = linear_probe(gallery, gallery_labels, z)
    identity = None
    if subset.identity_set is not None and outputs.z is not None:
        rows = np.flatnonzero(subset.identity_set >= 0)
        query = subset.identity_set[rows] == IDENTITY_SETS.index("query")
        identity = identity_counts(rows_of(outputs.z, rows), subset.group[rows], query)
        inputs |= {} if identity is None else {"identification": {"counts": identity, "groups": subset.group}}
    named = compared_pairs(subset, options.most_pairs_of)
    if len(named) and outputs.z is not None:
        ranks = pair_ranks(*(outputs.z[rows] for rows in named.T))
        inputs["partners"] = {"ranks": ranks, "groups": subset.group[named[:, 0]], "ks": options.top_k}
    if outputs.pair_head is not None:
        inputs |= _of_pair_head(subset, named, outputs.pair_head, options.top_k)
    bias = np.zeros(len(subset.classes))
    if options.class_bias and outputs.gallery_classes is not None and known.any():
        bias = fit_class_bias(log_of(outputs.gallery_classes[known]), subset.gallery_label[known])[0]
    by_suffix = {what: {"": values} for what, values in predictions.items()}
    if options.class_bias or any(_is_smoothed(subset, what, options) for what in predictions):
        for what, values in predictions.items():
            by_suffix[what]["_smoothed"] = _smoothed(subset, what, values, bias, options)
    for what, values in outputs.combined.items():
        by_suffix[what]["_combined"] = values
    result = SeedResult(by_suffix, pairs, probe, outputs.thresholds, outputs.combined_thresholds, identity)
    return joined([METRICS.measure(inputs), by_groups(subset, outputs.z, result, subset.group)]), result


def by_groups(subset: Subset, z: np.ndarray | None, result: SeedResult, group: np.ndarray) -> Measure:
    """Measures predictions and steadiness for any ``group`` (n,): the codes of the subset's own, or its videos.

    Its weights may be sparse, so that each video can be measured by itself: ``grouped.one_by_one``.
    """
    labelled = subset.labelled
    labels, video, number, groups = (
        subset.label[labelled],
        subset.video[labelled],
        subset.number[labelled],
        group[labelled],
    )
    # Labels may be at another rate than frames: neighbours are frames that are scored.
    rows = {"labels": labels, "video": video, "frame": number, "step": spacing(video, number), "groups": groups}
    inputs: dict[str, dict[str, Any]] = {}
    if z is not None and len(labelled) and subset.clips is None:
        inputs["sequences"] = rows | {"embeddings": rows_of(z, labelled)}
    if result.probe is not None:
        inputs["probe"] = rows | {"predicted": result.probe, "classes": subset.classes}
        inputs |= {"clips_probe": inputs["probe"]} if subset.clips is not None else {}
    for what, values in result.predictions.items():
        for suffix, scores in values.items():
            if what == "va":
                inputs[f"va{suffix}"] = {"truth": subset.va, "predicted": scores, "groups": group}
            elif what == "aus":
                units = {"probabilities": scores, "units": subset.au_names, "thresholds": _thresholds(result, suffix)}
                inputs[f"aus{suffix}"] = {"truth": subset.aus, "groups": group} | units
            elif what == "outputs":
                inputs[what] = {"truth": subset.outputs, "predicted": scores, "groups": group}
                inputs[what] |= {"outputs": subset.output_names}
            elif len(labelled):
                predicted = scores[labelled].argmax(1)
                inputs[f"{what}{suffix}"] = rows | {"predicted": predicted, "classes": subset.classes}
                if subset.clips is not None and not suffix:
                    inputs[{"classes": "clips", "knn": "clips_knn"}[what]] = inputs[what]
    for suffix in SUFFIXES:
        if arrays := _of_all_tracks(subset, result, suffix):
            inputs[f"mtl{suffix}"] = arrays | {"groups": group}
    return METRICS.measure(inputs)


def _thresholds(result: SeedResult, suffix: str) -> np.ndarray | float:
    return result.combined_thresholds if suffix == "_combined" else result.thresholds


def _of_all_tracks(subset: Subset, result: SeedResult, suffix: str) -> dict[str, Any]:
    """What P_MTL is measured of, of the predictions of one of ``SUFFIXES``; empty where it cannot be."""
    there = [what for what in ("classes", "va", "aus") if suffix in result.predictions.get(what, ())]
    labelled = len(subset.labelled) and np.isfinite(subset.va).all(1).any() and np.isfinite(subset.aus).any()
    if len(there) < 3 or not labelled:
        return {}
    classes, va, aus = (result.predictions[what][suffix] for what in there)
    label = np.full(len(subset.label), -1)
    label[subset.labelled] = subset.label[subset.labelled]
    return {
        "labels": label, "predicted": classes.argmax(1), "classes": subset.classes, "va_truth": subset.va,
        "va_predicted": va, "au_truth": subset.aus, "probabilities": aus, "units": subset.au_names,
        "thresholds": _thresholds(result, suffix),
    }  # fmt: skip


def rows_of(z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``z[rows]`` of ascending rows, and no copy where that is all of it."""
    return z if len(rows) == len(z) else z[rows]


def best_source(result: SeedResult) -> str | None:
    """Whose classes are shown: the classifier's where there is one, else the nearest neighbours', else nobody's."""
    return next((what for what in ("classes", "knn") if what in result.predictions), None)


def compared_pairs(subset: Subset, most: int) -> np.ndarray:
    """Those ``pairs`` (P, 2) of a subset, at most so many and evenly spaced, whose partners are looked for."""
    if subset.pairs is None:
        return np.zeros((0, 2), dtype=np.int64)
    return subset.pairs[evenly(len(subset.pairs), most)]


def judged_frames(subset: Subset, most: int, width: int) -> np.ndarray:
    """Rows whose pairs a head for pairs judges: those whose cosines are compared, or fewer evenly spaced ones.

    All pairs of them have no more than ``MOST_JUDGED`` inputs, ``width`` a pair.
    """
    return subset.labelled[evenly(len(subset.labelled), min(most, int(np.sqrt(2 * MOST_JUDGED / width))))]


def judged_partners(subset: Subset, most: int, width: int) -> np.ndarray:
    """Numbers (q,) of ``compared_pairs`` whose partners a head for pairs looks for, among the sides of all of them.

    Evenly spaced where they are fewer than all, so that the pairs judged have no more than ``MOST_JUDGED`` inputs.
    """
    num_pairs = len(compared_pairs(subset, most))
    return evenly(num_pairs, max(1, MOST_JUDGED // (2 * max(num_pairs, 1) * width)))


def _of_pair_head(
    subset: Subset, pairs: np.ndarray, outputs: PairOutputs, ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """What is measured of the logits of a head for pairs; its F1 where the label table names same and different."""
    inputs: dict[str, dict[str, Any]] = {}
    if outputs.counts is not None:
        inputs["pair_head"] = {"counts": outputs.counts, "groups": subset.group[subset.labelled]}
    if len(pairs):
        groups = subset.group[pairs[outputs.queries][:, 0]]
        inputs["pair_head_partners"] = {"ranks": outputs.ranks, "groups": groups, "ks": ks}
    if outputs.same.any() and not outputs.same.all():
        inputs["pair_head_named"] = {"logits": outputs.logits, "same": outputs.same, "groups": outputs.group}
    return inputs


def _smoothed(subset: Subset, what: str, values: np.ndarray, bias: np.ndarray, options: MetricOptions) -> np.ndarray:
    smoothed = smooth_subset(subset, values, options.smoothing, _width(what, options))
    if what != "classes" or not bias.any():
        return smoothed
    return with_bias(smoothed, bias)


def _width(what: str, options: MetricOptions) -> int | str:
    return options.width_aus if what == "aus" else options.width


def _is_smoothed(subset: Subset, what: str, options: MetricOptions) -> bool:
    return changes(subset.video, *_smoothing(subset, options.smoothing, _width(what, options)))


def smooth_subset(subset: Subset, values: np.ndarray, kind: str, width: int | str) -> np.ndarray:
    """Values (n, C) of the subset's frames smoothed, by a width in seconds or in frames, as many in every video."""
    return smooth(values, subset.video, *_smoothing(subset, kind, width))


def _smoothing(subset: Subset, kind: str, width: int | str) -> tuple[np.ndarray, str, int | np.ndarray]:
    """Numbers (n,), kind and width as ``smooth`` takes them: seconds are counted in the frames' own numbers."""
    if isinstance(width, str):
        return subset.frame, kind, in_frames(width, subset.fps[subset.video])
    return subset.number, kind, width
