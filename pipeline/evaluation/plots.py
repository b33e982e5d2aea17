"""The pictures of an evaluation: arrays in, a matplotlib figure out, which the caller saves.

Scales are fixed, so that pictures of two runs can be laid side by side: cosines from -1 to 1, rates and F1 from 0 to 1.
Classes keep their colour, by code. Figures are made without pyplot: they need no display and nobody has to close them.
``title`` says of what a picture is; see ``heading``.
"""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from pipeline.core.colours import COLOURS
from pipeline.core.projection import fit
from pipeline.metrics.identification import CURVE
from pipeline.metrics.vectors import evenly, normalised
from pipeline.metrics.verification import threshold_scores

HATCHES = (None, "///", "...", "xxx")  # classes beyond the eighth have a colour again, with another hatch and marker
MARKERS = "o^sX"
KINDS = {"same": ("#0072B2", "-"), "different": ("#666666", "--"), "opposite": ("#D55E00", ":")}
ADAPTER = {"color": "#0072B2", "marker": "o", "markersize": 6, "linestyle": "none"}
BASELINE = {"color": "0.4", "marker": "s", "markersize": 5.5, "linestyle": "none", "markerfacecolor": "white"}
CHANGE = {"color": "#D55E00", "linestyle": ":", "linewidth": 1.5}
BEST = {"color": "0.4", "linestyle": "--", "linewidth": 1}
GREY = "0.88"  # not known
COSTS, CARRIES = "#D55E00", "#0072B2"
FONT = 9
DPI = 120
LONGEST_NAME = 28  # characters of a class or run
SHARED_BINS = np.linspace(-1, 1, 101)
ZOOMED_BINS = 60
LOWEST_RATE = 1e-3
THUMBNAIL_POINTS = 46
MOST_TICKS = 200
CHORD_TICKS = (1, 0.95, 0.8, 0.5, 0, -1)


def heading(run: str, dataset: str, count: int, unit: str = "frames") -> str:
    """What all pictures of a run have in their title; ``count`` are the frames or clips that it is of."""
    return f"{run} · {dataset} · {count:,} {unit}"


def cosine_histograms(
    edges: np.ndarray, same: np.ndarray, different: np.ndarray, opposite: np.ndarray, title: str
) -> Figure:
    """Densities of the cosines of three kinds of pairs, from their numbers (bins,) between ``edges`` (bins + 1,).

    Left from -1 to 1, right where there are any. Numbers are spread evenly inside their bin.
    """
    counts = {"same": same, "different": different, "opposite": opposite}
    filled = np.flatnonzero(same + different + opposite)
    ends = (edges[filled[0]], edges[filled[-1] + 1]) if len(filled) else (-1, 1)
    figure = _figure(9, 3.6, "Cosines of pairs", title)
    left, right = figure.subplots(1, 2)
    for axis, bins in ((left, SHARED_BINS), (right, np.linspace(*ends, ZOOMED_BINS + 1))):
        for kind, numbers in counts.items():
            colour, line = KINDS[kind]
            total = numbers.sum()
            if total == 0:
                axis.plot([], color=colour, linestyle=line, label=f"{kind}: no pairs")
                continue
            density = _rebinned(edges, numbers, bins) / total / np.diff(bins)
            if kind != "different":  # it is near the opposite one: two areas on each other are no clearer
                axis.stairs(density, bins, fill=True, color=colour, alpha=0.25)
            mean = float((edges[:-1] + edges[1:]) @ numbers / 2 / total)
            axis.stairs(density, bins, color=colour, linestyle=line, linewidth=1.4, label=f"{kind}: mean {mean:z.3f}")
            axis.axvline(mean, color=colour, linestyle=line, linewidth=1)
        axis.set_xlim(bins[0], bins[-1])
        axis.set_ylim(bottom=0)
        axis.set_xlabel("cosine")
    left.set_xticks(np.linspace(-1, 1, 9))
    left.set_ylabel("density (each area is 1)")
    right.set_title("where the pairs are", fontsize=FONT)
    left.set_title("the same axis for every run", fontsize=FONT)
    figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside lower center", ncols=3, fontsize=FONT)
    return figure


def _rebinned(edges: np.ndarray, numbers: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Numbers between other ``bins``; what lies beyond is in the first and last."""
    below = np.interp(bins[1:-1], edges, np.concatenate([[0], np.cumsum(numbers)]))
    return np.diff(below, prepend=0, append=numbers.sum())


def roc_curves(
    edges: np.ndarray, same: np.ndarray, different: np.ndarray, opposite: np.ndarray, title: str,
    reported: Mapping[str, str] | None = None,
) -> Figure:  # fmt: skip
    """ROC of a threshold on the cosine, from numbers of pairs as in ``cosine_histograms``.

    Right the same over the logarithm of the false positive rate, from 0.001. AUC is that of ``threshold_scores``.
    ``reported`` is what the tables say instead, in words by 'different' and 'opposite', as where there are more seeds.
    """
    figure = _figure(9, 4.5, "Telling pairs of the same emotion from others by their cosine", title)
    left, right = figure.subplots(1, 2)
    rates = np.geomspace(LOWEST_RATE, 1, 301)
    for kind, numbers in (("different", different), ("opposite", opposite)):
        colour, line = KINDS[kind]
        if same.sum() == 0 or numbers.sum() == 0:
            left.plot([], color=colour, linestyle=line, label=f"same / {kind}: no pairs")
            continue
        auc = threshold_scores(same[None], numbers[None], (edges[:-1] + edges[1:]) / 2)["auc"][0]
        tpr, fpr = (np.concatenate([[0], x[::-1].cumsum() / x.sum()]) for x in (same, numbers))
        more = f"\n(in the tables {reported[kind]})" if kind in (reported or {}) else ""
        left.plot(fpr, tpr, color=colour, linestyle=line, label=f"same / {kind}: AUC {auc:.3f}{more}")
        right.plot(rates, np.interp(rates, fpr, tpr), color=colour, linestyle=line)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, label="chance")
    right.plot(rates, rates, color="0.7", linewidth=0.8)
    left.set_xlim(0, 1)
    right.set_xscale("log")
    right.set_xlim(LOWEST_RATE, 1)
    right.set_xticks([1e-3, 1e-2, 1e-1, 1], ["0.001", "0.01", "0.1", "1"])
    for axis in (left, right):
        axis.set_ylim(0, 1)
        axis.set_xlabel("false positive rate")
        axis.set_ylabel("true positive rate")
        axis.set_box_aspect(1)
        axis.grid(alpha=0.3)
    figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside lower center", ncols=3, fontsize=FONT)
    return figure


def identification_curve(curve: np.ndarray, points: Mapping[float, tuple[float, float, float]], title: str) -> Figure:
    """Identification rate: TPR (101,) at ``identification.CURVE``, and some ``points``: FPR -> TPR, and its interval.

    The curve is of one seed, the points are what the tables say.
    """
    figure = _figure(6.4, 4.2, "Finding pairs of one person among pairs of strangers", title)
    axis = figure.subplots()
    known = np.isfinite(curve)
    axis.plot(CURVE[known], curve[known], color=KINDS["same"][0], linewidth=1.5)
    for rate, (value, low, high) in points.items():
        if np.isfinite(low):
            axis.plot([rate, rate], [low, high], color=KINDS["same"][0], linewidth=1)
        axis.plot(rate, value, **ADAPTER)
        axis.annotate(f"{value:.3f}", (rate, value), (6, -10), textcoords="offset points", fontsize=FONT)
    axis.plot(CURVE, CURVE, color="0.7", linewidth=0.8)
    axis.set_xscale("log")
    axis.set(xlim=(CURVE[0], 1), ylim=(0, 1))
    axis.set_xlabel("false positive rate: share of impostor pairs above the threshold")
    axis.set_ylabel("share of genuine pairs above it")
    axis.grid(alpha=0.3)
    return figure


def emotion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Mean cosines (C, C) of every emotion with every emotion, as ``cosine_matrix`` has them; NaN is a dot."""
    texts = [["·" if np.isnan(v) else f"{v:z.2f}" for v in row] for row in matrix]
    return _matrix(matrix, texts, classes, "RdBu_r", (-1, 1), "Mean cosine of emotions", title)[0]


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Numbers of frames (C, C) by true (row) and predicted (column) class, coloured by share of the true class."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    texts = [[f"{v:,.0f}" if v else "·" for v in row] for row in confusion]
    what = "How many by true and predicted class; colour: share of the true class"
    figure, axis = _matrix(shares, texts, classes, "cividis", (0, 1), what, title)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    return figure


def _matrix(
    values: np.ndarray, texts: list[list[str]], classes: Sequence[str], colours: str, limits: tuple[float, float],
    what: str, title: str,
) -> tuple[Figure, Axes]:  # fmt: skip
    side = float(np.clip(2 + 0.46 * len(classes), 4, 12))
    figure = _figure(side + 0.8, side, what, title, "compressed")
    axis = figure.subplots()
    colormap = colormaps[colours].with_extremes(bad=GREY)
    image = axis.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colormap)
    figure.colorbar(image, ax=axis, fraction=0.045, pad=0.02)
    longest = max(len(text) for row in texts for text in row)
    size = min(FONT, 72 * 0.42 / (0.6 * longest))  # points; a cell is 0.42 inches wide or more
    bright = image.to_rgba(values)[..., :3] @ (0.299, 0.587, 0.114) > 0.5
    for (row, column), is_bright in np.ndenumerate(bright):
        colour = "black" if is_bright else "white"
        axis.text(column, row, texts[row][column], color=colour, ha="center", va="center", fontsize=size)
    names = [_name(c) for c in classes]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(labelsize=FONT, length=0)
    return figure, axis


def similarity_matrix(
    embeddings: np.ndarray, labels: np.ndarray, videos: np.ndarray, classes: Sequence[str], title: str, most: int = 600
) -> Figure:
    """Cosines of all pairs of ``embeddings`` (n, E), sorted by class, then video; ticks below are where videos begin.

    Rows whose ``labels`` (n,) are -1 are left out; of more than ``most``, evenly spaced ones of the sorted rows are
    taken, so that each class keeps its share.
    """
    order = np.lexsort((videos, labels))
    order = order[labels[order] >= 0]
    chosen = order[evenly(len(order), most)]
    z, label, video = normalised(embeddings[chosen]), labels[chosen], videos[chosen]
    what = f"Cosines, by emotion and video: {len(chosen):,} of {len(order):,}"
    figure = _figure(6.8, 5.8, what, title, "compressed")
    axis = figure.subplots()
    image = axis.imshow(
        z @ z.T if len(z) else np.full((1, 1), np.nan), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest"
    )
    figure.colorbar(image, ax=axis, fraction=0.045, pad=0.02)
    present, starts = np.unique(label, return_index=True)
    for start in starts[1:] - 0.5:
        axis.axhline(start, color="black", linewidth=0.8)
        axis.axvline(start, color="black", linewidth=0.8)
    centres = (starts + np.append(starts[1:], len(z)) - 1) / 2
    gap = len(z) * min(0.04, 1 / max(1, len(present)))
    places = _apart(centres, gap / 2 - 0.5, len(z) - 0.5 - gap / 2, gap)
    axis.set_yticks(places, [_name(classes[code]) for code in present], fontsize=FONT)
    axis.tick_params(axis="y", length=0, pad=14)
    lines = np.stack([centres, places])
    axis.plot([[0], [-0.025]], lines, color="0.5", linewidth=0.8, transform=axis.get_yaxis_transform(), clip_on=False)
    begins = np.flatnonzero((np.diff(label, prepend=-1) != 0) | (video != np.roll(video, 1)))
    axis.set_xticks(begins - 0.5 if len(begins) <= MOST_TICKS else [], [])  # none where each image is a video
    axis.tick_params(axis="x", length=3, width=0.5)
    return figure


def f1_bars(f1: np.ndarray, classes: Sequence[str], title: str, intervals: np.ndarray | None = None) -> Figure:
    """F1 (C,) of each class, with ``intervals`` (C, 2) where given, and the mean; NaN is a class without frames."""
    figure = _figure(6.5, 1.5 + 0.27 * len(f1), "F1 by class", title)
    axis = figure.subplots()
    places, known = np.arange(len(f1)), ~np.isnan(f1)
    axis.barh(places, np.where(known, f1, 0), height=0.7, color="#56B4E9")
    if intervals is not None:
        axis.hlines(places, *intervals.T, color="black", linewidth=1.2)
    for place, value in zip(places, f1, strict=True):
        text = "" if np.isnan(value) else f"{value:.3f}"
        axis.text(1.01, place, text, transform=axis.get_yaxis_transform(), va="center", fontsize=FONT)
    for place in places[~known]:
        axis.text(0.01, place, "not among them", va="center", fontsize=FONT, color="0.4")
    if known.any():
        mean = float(f1[known].mean())
        axis.axvline(mean, color="#D55E00", linestyle="--", linewidth=1.2, label=f"mean {mean:.3f}")
        figure.legend(loc="outside lower center", fontsize=FONT)
    axis.set_xlim(0, 1)
    axis.set_ylim(len(f1) - 0.4, -0.6)
    axis.set_yticks(places, [_name(c) for c in classes], fontsize=FONT)
    axis.set_xlabel("F1")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    return figure


def costs(found: Mapping[str, Any], title: str) -> Figure:
    """What a macro-F1 hangs on, as ``costly.named`` says it.

    Above how far it moves without each group: to the right it would be higher. Below what it would gain if the frames
    of a confusion were right.
    """
    groups, confusions, unit = found["groups"], found["confusions"], found["unit"]
    rows = len(groups) + len(confusions)
    figure = _figure(9, 2.4 + 0.3 * rows, f"What the macro-F1 of {found['macro_f1']:.3f} hangs on", title)
    above, below = figure.subplots(2, 1, height_ratios=[max(1, len(groups)), max(1, len(confusions))])
    moves = [of["without"] - found["macro_f1"] for of in groups]
    said = [_without(of, unit) for of in groups]
    colours = [COSTS if move > 0 else CARRIES for move in moves]
    _bars(above, [of["group"] for of in groups], moves, colours, said)
    above.set_title("without the videos of: macro-F1 would be higher (right) or lower (left) by", fontsize=FONT)
    names = [f"{of['true']} taken for {of['predicted']}" for of in confusions]
    said = [f"{of['frames']:,.0f} {unit} in {of['in']} groups, most in {of['mostly_in'][0][0]}" for of in confusions]
    _bars(below, names, [of["gain"] for of in confusions], [COSTS] * len(confusions), said)
    below.set_title("if these were right: macro-F1 would gain", fontsize=FONT)
    return figure


def _without(of: Mapping[str, Any], unit: str) -> str:
    """'0.612 without 90 frames; Fear for Sadness (45)', or the class that leaves with the group."""
    worst, words = of["worst"], f"{of['without']:.3f} without {of['frames']:,} {unit}"
    if of["leave"]:
        return f"{words}; no other group has {', '.join(of['leave'])}"
    return words if worst is None else f"{words}; {worst['true']} for {worst['predicted']} ({worst['frames']:,.0f})"


def _bars(
    axis: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str], said: Sequence[str]
) -> None:
    """Horizontal bars, the first on top, with words behind the axis."""
    places = np.arange(len(names))
    axis.barh(places, values, height=0.7, color=colours)
    where = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": FONT - 1}
    for place, words in zip(places, said, strict=True):
        axis.text(1.01, place, _escaped(_short(words, 64)), **where)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(places, [_name(name) for name in names], fontsize=FONT - 1)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=FONT - 1)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.margins(x=0.05)


def timeline(
    video: str, frames: np.ndarray, truth: np.ndarray, predicted: np.ndarray, cosines: np.ndarray,
    classes: Sequence[str], step: int, title: str, thumbnails: Sequence[tuple[int, np.ndarray]] = (),
) -> Figure:  # fmt: skip
    """One video from left to right: true and predicted class, and the embedding's cosine to the frame before.

    ``frames`` (n,) ascend; ``step`` is their spacing, and where it is larger nothing is drawn. ``truth`` and
    ``predicted`` (n,) are class codes, -1 for none. ``cosines`` (n,) are NaN where there is no frame before; their axis
    is even in the distance of the two unit vectors, √(2 - 2 cos), since neighbours are all near 1. ``thumbnails`` are
    frame numbers, ascending, and their images (h, w, 3) uint8.
    """
    figure = _figure(11, 3.6 + 0.75 * bool(thumbnails), f"Emotion along {_short(video, 60)}", title)
    figure.get_layout_engine().set(h_pad=0.02, hspace=0)
    ratios = [0.75] * bool(thumbnails) + [0.7, 1.4]
    *above, bands, below = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    gap = np.diff(frames) > step
    for place, codes in enumerate((predicted, truth)):
        starts = np.flatnonzero(np.concatenate([[True], (np.diff(codes) != 0) | gap]))
        ends = np.append(starts[1:], len(frames)) - 1
        spans = np.stack([frames[starts] - step / 2, frames[ends] - frames[starts] + step], 1)
        for code in np.unique(codes):
            bands.broken_barh(spans[codes[starts] == code], (place - 0.42, 0.84), **_fill(code))
    bands.set_ylim(-0.5, 1.5)
    bands.set_yticks([0, 1], ["predicted", "true"], fontsize=FONT)
    bands.tick_params(length=0)
    bands.spines[:].set_visible(False)

    broken = np.flatnonzero(gap) + 1
    x, y = (np.insert(v.astype(np.float64), broken, np.nan) for v in (frames, cosines))
    below.plot(x, np.clip(y, -1, 1), color="black", linewidth=0.9, marker=".", markersize=3, clip_on=False)
    below.set_yscale("function", functions=(_minus_chord, _cosine))
    below.set_ylim(-1, 1)
    below.set_yticks(CHORD_TICKS, [f"{tick:g}" for tick in CHORD_TICKS], fontsize=FONT - 1)
    below.set_yticks([], minor=True)
    below.grid(axis="y", alpha=0.3)
    changes = np.flatnonzero((np.diff(truth) != 0) & (truth[1:] >= 0) & (truth[:-1] >= 0) & ~gap)
    below.vlines((frames[changes] + frames[changes + 1]) / 2, -1, 1, **CHANGE)
    below.set_xlim(frames[0] - step / 2, frames[-1] + step / 2)
    below.xaxis.get_major_locator().set_params(integer=True)
    below.set_xlabel("frame")
    below.set_ylabel("cosine to the\nframe before", fontsize=FONT)
    for axis in above:
        _thumbnails(axis, thumbnails, frames[0] - step / 2, frames[-1] + step / 2)
    present = [int(c) for c in np.unique(np.concatenate([truth, predicted]))]
    patches = [Patch(**_fill(c), label="none" if c < 0 else _name(classes[c])) for c in present]
    if len(changes):
        patches.append(Line2D([], [], **CHANGE, label="true change"))
    _class_legend(figure, patches)
    return figure


def _minus_chord(cosine: np.ndarray) -> np.ndarray:
    return -np.sqrt(np.maximum(2 - 2 * np.asarray(cosine), 0))


def _cosine(minus_chord: np.ndarray) -> np.ndarray:
    return 1 - np.square(minus_chord) / 2


def _thumbnails(axis: Axes, thumbnails: Sequence[tuple[int, np.ndarray]], low: float, high: float) -> None:
    """A row of images beside each other, each with a line to its frame."""
    axis.set_axis_off()
    axis.set_ylim(0, 1)
    points = 0.88 * 72 * axis.figure.get_figwidth()
    size = min(THUMBNAIL_POINTS, points / len(thumbnails))
    gap = (high - low) * size / points
    places = _apart(np.array([frame for frame, _ in thumbnails]), low + gap / 2, high - gap / 2, gap)
    for place, (frame, image) in zip(places, thumbnails, strict=True):
        box = OffsetImage(image, zoom=0.92 * size / max(image.shape[:2]))
        line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        drawn = AnnotationBbox(box, (frame, 0), (place, 0.58), frameon=False, arrowprops=line, pad=0)
        drawn.set_in_layout(False)
        axis.add_artist(drawn)


def projection_2d(
    embeddings: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str, most: int = 2000
) -> Figure:
    """First two principal components of ``embeddings`` (n, E) at length one, and the mean of each class.

    Rows whose ``labels`` (n,) are -1 are left out; of more than ``most``, evenly spaced ones are taken. The axes are as
    long as the points lie apart. Not t-SNE: it draws an island a video, whatever the embeddings have learned.
    """
    known = np.flatnonzero(labels >= 0)
    chosen = known[evenly(len(known), most)]
    z, label = normalised(embeddings[chosen]), labels[chosen]
    points, explained = np.zeros((len(z), 2)), np.zeros(2)
    count = max(0, min(2, len(z) - 1, z.shape[1]))
    if count:
        projection = fit([z], count)
        points[:, :count], explained[:count] = projection(z), projection.explained
    what = f"First two principal components of {len(z):,} of {len(known):,}"
    figure = _figure(7, 6.8, what, title)
    axis = figure.subplots()
    shuffled = np.random.default_rng(0).permutation(len(z))  # or the last class would lie on top
    for turn, marker in enumerate(MARKERS):
        of = shuffled[label[shuffled] // len(COLOURS) % len(MARKERS) == turn]
        colours = [COLOURS[code % len(COLOURS)] for code in label[of]]
        axis.scatter(*points[of].T, s=11, c=colours, marker=marker, alpha=0.7, linewidths=0)
    handles = []
    for code in np.unique(label):
        style = {
            "color": COLOURS[code % len(COLOURS)], "marker": MARKERS[code // len(COLOURS) % len(MARKERS)],
            "linestyle": "none", "markersize": 10, "markeredgecolor": "black",
        }  # fmt: skip
        handles += axis.plot(*points[label == code].mean(0), **style, label=_name(classes[code]))
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel(f"component 1 ({explained[0]:.0%} of the variance)")
    axis.set_ylabel(f"component 2 ({explained[1]:.0%})")
    if handles:
        _class_legend(figure, handles)
    return figure


def compare(
    runs: Sequence[str],
    metrics: Mapping[str, np.ndarray],
    title: str,
    baselines: Collection[str] = (),
    lower_is_better: Collection[str] = (),
) -> Figure:
    """A panel for each of ``metrics``: (R, 3) of value, low and high of each run; NaN is not drawn.

    ``baselines`` are those of the runs that are grey squares; the dashed line is the best of them. Where all is between
    0 and 1 and something is above 0.99, the axis is one of logits: 0.99 and 0.999 stand as far apart as 0.9 and 0.99.
    """
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = _figure(2 + 2.9 * columns, 1.2 + rows * (0.7 + 0.25 * len(runs)), "All runs", title)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    is_baseline = np.array([run in baselines for run in runs])
    for axis, (name, numbers) in zip(axes.flat, metrics.items(), strict=False):
        for chosen, style in ((~is_baseline, ADAPTER), (is_baseline, BASELINE)):
            places = np.flatnonzero(chosen)
            axis.hlines(places, numbers[chosen, 1], numbers[chosen, 2], color=style["color"], linewidth=1.4)
            axis.plot(numbers[chosen, 0], places, **style)
        held = numbers[is_baseline & ~np.isnan(numbers[:, 0]), 0]
        if len(held):
            axis.axvline(held.min() if name in lower_is_better else held.max(), **BEST)
        if np.isnan(numbers[:, 0]).all():
            axis.set_xticks([])
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", fontsize=FONT, color="0.4")
        better = "lower" if name in lower_is_better else "higher"
        axis.set_title(f"{_name(name)} ({better} is better)", fontsize=FONT)
        axis.set_yticks(range(len(runs)), [_name(run) for run in runs])
        axis.set_ylim(len(runs) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(labelsize=FONT - 1)
        if np.nanmin(numbers, initial=1) > 0 and 0.99 < np.nanmax(numbers, initial=0) < 1:
            axis.set_xscale("logit")
            axis.xaxis.set_major_formatter(lambda x, _: f"{x:.7g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    handles = [Line2D([], [], **ADAPTER, label="adapter")]
    if is_baseline.any():
        handles += [Line2D([], [], **BASELINE, label="baseline"), Line2D([], [], **BEST, label="best baseline")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=FONT)
    return figure


def _figure(width: float, height: float, what: str, title: str, layout: str = "constrained") -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    columns = int(width * 72 / (0.55 * (FONT + 1)))
    lines = [textwrap.fill(_escaped(line), columns) for line in (what, title)]
    figure.suptitle("\n".join(lines), fontsize=FONT + 1)
    return figure


def _fill(code: int) -> dict:
    """Face of a class; the hatch takes the colour of edges, which are not drawn."""
    if code < 0:
        return {"facecolor": GREY}
    turn = code // len(COLOURS) % len(HATCHES)
    return {
        "facecolor": COLOURS[code % len(COLOURS)], "hatch": HATCHES[turn], "edgecolor": "white", "linewidth": 0,
    }  # fmt: skip


def _class_legend(figure: Figure, handles: Sequence) -> None:
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, int(72 * figure.get_figwidth() / (FONT * (0.55 * longest + 4))))
    columns = -(-len(handles) // -(-len(handles) // columns))  # rows of one length
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=FONT)


def _apart(places: np.ndarray, low: float, high: float, gap: float) -> np.ndarray:
    """Ascending ``places`` (k,) moved as little as it takes to be ``gap`` apart, between low and high."""
    number = np.arange(len(places)) * gap
    moved = np.maximum.accumulate(np.maximum(places, low) - number) + number
    return np.minimum(moved, high - number[::-1])


def _name(value: str) -> str:
    return _escaped(_short(value, LONGEST_NAME))


def _short(value: str, longest: int) -> str:
    """One line; of a long one both ends, since names often differ in the last letters."""
    text = " ".join(str(value).split())
    half = longest // 2
    return text if len(text) <= longest else f"{text[: longest - half - 1]}…{text[-half:]}"


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")  # no formula
