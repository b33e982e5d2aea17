"""The pictures of one evaluated run, by ``plots``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.adapter.pair_attention import PairsSeen
from pipeline.core.numbering import spacing
from pipeline.core.pictures import pair_figure
from pipeline.evaluation import plots
from pipeline.evaluation.files import confusion, emotion_cosines
from pipeline.evaluation.folds import FoldResult
from pipeline.metrics.identification import RATES
from pipeline.metrics.measures import SeedResult, Subset, best_source
from pipeline.metrics.steadiness import neighbours
from pipeline.metrics.uncertainty import Estimate
from pipeline.metrics.vectors import cosines, evenly, normalised

THUMBNAILS = 10  # a timeline


def drawn(
    subset: Subset, folds: Sequence[FoldResult], result: SeedResult, estimates: Mapping[str, Estimate],
    about: Mapping[str, Any], costs: Mapping[str, Any] | None, picture: Callable[[str, int], np.ndarray | None],
    timelines: int, attention: PairsSeen | None = None,
) -> Iterator[tuple[str, Figure]]:  # fmt: skip
    """Names and figures of the first seed; what there is nothing of is left out. F1 and its intervals are of all seeds,
    and so are the ``costs``, as ``costly.named`` says them.

    Predictions are those of all folds (``subset``, ``result``). Embeddings are those of the first fold, since two
    folds are two spaces, and so is the ``attention``.
    """
    seeds = about["seeds"]
    name = about["run"] if seeds == 1 else f"{about['run']}, seed {about['seed']} alone of {seeds} seeds"
    of = "" if folds[0].number is None else f", fold {folds[0].number}"
    heading = plots.heading(name + of, about["dataset"], len(folds[0].subset.labelled), subset.unit)
    if result.identity is not None:
        marked = {rate: estimates[f"identification_at_{name}"] for name, rate in RATES.items()}
        points = {rate: (e.value, *e.interval()) for rate, e in marked.items() if np.isfinite(e.value)}
        of = plots.heading(name, about["dataset"], sum(result.identity.pictures), "pictures")
        yield "identification", plots.identification_curve(result.identity.curve, points, of)
    yield from _of_embeddings(folds[0], heading, _reported(estimates, seeds, len(folds)))
    if attention is not None:
        there, pictures = attention.readable(picture)
        if pictures:
            of = f"Where the head looks, first in pairs most surely wrong\n{heading}"
            within = there.within_each(pictures)
            yield "attention", pair_figure(pictures, within, there.weights, there.logits, there.same, of)
    title = plots.heading(name, about["dataset"], len(subset.labelled), subset.unit)
    labelled, source = subset.labelled, best_source(result)
    if len(labelled) == 0 or source is None:
        return
    whose = "" if source == "classes" else f" · by {about['neighbours']} nearest neighbours"
    yield "confusion", plots.confusion_matrix(confusion(subset, [result]), subset.classes, title + whose)
    of = [estimates[f"{'knn_' if source == 'knn' else ''}f1_{c}"] for c in subset.classes]
    f1, intervals = np.array([e.value for e in of]), np.array([e.interval() for e in of])
    heading = plots.heading(about["run"], about["dataset"], len(labelled), subset.unit) + whose
    yield "f1", plots.f1_bars(f1, subset.classes, heading, intervals)
    if costs is not None:
        yield "costs", plots.costs(costs, heading)
    predicted, z = result.predictions[source][""].argmax(1), [fold.outputs[0].z for fold in folds]
    # Embeddings are compared inside a video, which is in one fold.
    z = None if z[0] is None else z[0] if len(z) == 1 else np.concatenate(z)
    for number, code in enumerate(chosen_videos(subset, timelines), start=1):
        yield f"timeline_{number}", _timeline(subset, code, predicted, z, picture, title + whose)


def _reported(estimates: Mapping[str, Estimate], seeds: int, folds: int) -> dict[str, str]:
    """The AUCs of all seeds and folds in words, where a picture is of one of several: the tables have these."""
    of = [*([f"{seeds} seeds"] if seeds > 1 else []), *([f"{folds} folds"] if folds > 1 else [])]
    names = {kind: f"auc_same_{kind}" for kind in ("different", "opposite")}
    auc = {kind: estimates[name].value for kind, name in names.items() if name in estimates}
    return {kind: f"{value:.3f}, of {' and '.join(of)}" for kind, value in auc.items() if of}


def _of_embeddings(fold: FoldResult, title: str, reported: Mapping[str, str]) -> Iterator[tuple[str, Figure]]:
    subset, z, pairs, rows = fold.subset, fold.outputs[0].z, fold.seeds[0][1].pairs, fold.subset.labelled
    label, video = subset.label[rows], subset.video[rows]
    if pairs is not None:
        same, other, opposite = pairs.histogram(np.ones((1, len(subset.groups))))[0]
        counts = (pairs.edges, same, other + opposite, opposite)
        yield "cosines", plots.cosine_histograms(*counts, title)
        yield "roc", plots.roc_curves(*counts, title, reported)
        yield "emotions", plots.emotion_matrix(emotion_cosines([fold], most_seeds=1), subset.classes, title)
        yield "similarity", plots.similarity_matrix(z[rows], label, video, subset.classes, title)
        yield "projection", plots.projection_2d(z[rows], label, subset.classes, title)


def chosen_videos(subset: Subset, most: int) -> list[int]:
    """Codes of the videos with the most changes of label, of equal ones the longest: the same for every run."""
    changed = (
        (np.diff(subset.label) != 0) & (np.diff(subset.video) == 0) & (subset.label[1:] >= 0) & (subset.label[:-1] >= 0)
    )
    changes = np.bincount(subset.video[1:][changed], minlength=len(subset.videos))
    length = np.bincount(subset.video[subset.labelled], minlength=len(subset.videos))
    return [code for code in np.lexsort((-length, -changes)) if length[code]][:most]


def _timeline(
    subset: Subset, code: int, predicted: np.ndarray, z: np.ndarray | None,
    picture: Callable[[str, int], np.ndarray | None], title: str,
) -> Figure:  # fmt: skip
    rows = np.flatnonzero(subset.video == code)
    frames, near, name = subset.frame[rows], np.full(len(rows), np.nan), subset.videos[code]
    if z is not None:
        first, second = neighbours(subset.video[rows], subset.number[rows], subset.step)
        near[second] = cosines(normalised(z[rows]), first, second)
    step = int(spacing(subset.video[rows], frames)[0])
    wanted = frames[evenly(len(frames), THUMBNAILS)]
    shown = [(int(frame), image) for frame in wanted if (image := picture(name, int(frame))) is not None]
    return plots.timeline(name, frames, subset.label[rows], predicted[rows], near, subset.classes, step, title, shown)
