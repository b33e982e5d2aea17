"""What TensorBoard shows of a run: curves, histograms, pictures, the table of hyperparameters, the projector."""

import shutil
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from pipeline.adapter.pair_attention import PairsSeen
from pipeline.core.pictures import pair_figure
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.vectors import evenly, normalised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The columns of TensorBoard's table of runs.
HPARAMS = (
    "model", "loss", "sampler", "temperature", "margin", "window", "step", "edge", "pooling", "embedding_size",
    "normalise", "reduce", "dropout", "augment", "positives", "batch_size", "learning_rate", "weight_decay", "epochs",
    "steps", "seed",
)  # fmt: skip
COSINE_BINS = np.linspace(-1, 1, 81)  # TensorBoard's own grow by a tenth each: everything above 0.5 falls into seven
MOST_ROWS = 400  # of a similarity matrix
MOST_POINTS = 5000  # of the projector, which runs in the browser
SPRITE_PIXELS = 8192  # the projector refuses a larger picture
LONGEST_TEXT = 60  # characters, in the table of hyperparameters
DPI = 180  # TensorBoard shows pictures some 350 pixels wide: small figures for large letters, more dots to enlarge
OVER_SEEDS = "seeds_mean"  # folder of the mean over seeds, beside those of the seeds


class Board:
    """Writer of one run's folder; a context manager.

    Tags are metric first, ``name/part``, the same in every run, and all is in the run's own folder, so that nothing
    else shows up as a run. What a method was given is on disk when it returns: a run killed after its checkpoint
    has all curves up to it.
    """

    def __init__(self, folder: Path, hparams: Mapping[str, Any], purge_from: int | None = None) -> None:
        """Writes the row of the table of hyperparameters at once, so that it fills while the run trains.

        No run says what the columns are. So TensorBoard finds them by itself, shows those first in which runs differ,
        and hides the others. It needs a key to be always numbers (or None) or always something else. A number that is
        None is an empty cell; sequences and mappings become short texts.
        ``purge_from``: a resumed run hides what the killed one wrote at this epoch and after it.
        """
        self._writer = SummaryWriter(folder, purge_step=purge_from)
        self._epochs = hparams.get("epochs")
        for summary in _row(hparams):  # add_hparams would open a run of its own for them
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def scalars(
        self, values: Mapping[str, float], part: str, epoch: int, count: int | None = None, unit: str = "frame"
    ) -> None:
        """A curve for each of ``values``.

        A metric has a description, which TensorBoard shows beside its curve: what the catalogue says of it, and that it
        was measured on ``count`` frames (or clips, as ``unit`` says) of the part, where that is given. Each says how
        many epochs the run has, since runs of other lengths share the axis.
        """
        for name, value in values.items():
            tag = f"{name}/{part}"
            plugin = SummaryMetadata.PluginData(plugin_name="scalars")  # without one, each tag is warned of when read
            words = _description(name, part, count, unit) + self._length()
            described = SummaryMetadata(plugin_data=plugin, summary_description=words.strip())
            point = Summary.Value(tag=tag, simple_value=float(value), metadata=described)
            self._writer.file_writer.add_summary(Summary(value=[point]), epoch)
        self._writer.flush()

    def cosines(self, same: np.ndarray, different: np.ndarray, opposite: np.ndarray, part: str, epoch: int) -> None:
        """Histograms of the cosines of the three kinds of pairs; an empty one is left out.

        All runs have the same bins from -1 to 1, empty ones too, so that they share an axis: those of ``add_histogram``
        are cut where a run has no values.
        """
        for kind, values in (("same", same), ("different", different), ("opposite", opposite)):
            if len(values):
                inside = np.clip(values.astype(np.float64), -1, 1)  # a cosine of twins may round to above 1
                counts = np.histogram(inside, COSINE_BINS)[0]
                bins = np.stack([COSINE_BINS[:-1], COSINE_BINS[1:], counts], axis=1)
                tag = f"cosines/{kind}/{part}"
                metadata = histogram_metadata.create_summary_metadata(display_name=tag, description="")
                value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor_util.make_tensor_proto(bins))
                self._writer.file_writer.add_summary(Summary(value=[value]), epoch)
        self._writer.flush()

    def similarity(
        self, embeddings: np.ndarray, labels: np.ndarray, videos: np.ndarray, classes: Sequence[str], part: str,
        epoch: int,
    ) -> None:  # fmt: skip
        """The cosines of all pairs of ``embeddings`` (n, E) as a picture, sorted by class, then video.

        Rows whose ``labels`` (n,) are -1 are left out; of more than 400, evenly spaced ones of the sorted rows are
        taken, so that each class keeps its share. Without any row no picture is written.
        """
        order = np.lexsort((videos, labels))
        order = order[labels[order] >= 0]
        chosen = order[evenly(len(order), MOST_ROWS)]
        if len(chosen):
            title = f"cosine, {part}: {len(chosen)} of {len(order):,} windows\nby emotion and video"
            picture = similarity_figure(normalised(embeddings[chosen]), labels[chosen], classes, title)
            self._writer.add_figure(f"similarity/{part}", picture, epoch)
            self._writer.flush()

    def confusion(
        self, truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], part: str, epoch: int
    ) -> None:
        """Which class (``truth`` (n,)) was taken for which (``predicted`` (n,)), as a picture.

        Colours are shares of the true class, numbers are counts. Rows whose truth is -1 are left out; without any
        other no picture is written.
        """
        known = truth >= 0
        if known.any():
            counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
            np.add.at(counts, (truth[known], predicted[known]), 1)
            picture = confusion_figure(counts, classes, f"predictions, {part}: {known.sum():,} windows")
            self._writer.add_figure(f"confusion/{part}", picture, epoch)
            self._writer.flush()

    def attention(
        self, seen: PairsSeen, pictures: Sequence[tuple[np.ndarray, np.ndarray]], part: str, epoch: int
    ) -> None:
        """Pairs and their ``pictures``, with what each place counts for, as a picture; without any pair none."""
        if pictures:
            title = f"attention of pairs, {part}: first those most surely wrong"
            within = seen.within_each(pictures)
            picture = pair_figure(pictures, within, seen.weights, seen.logits, seen.same, title)
            self._writer.add_figure(f"attention/{part}", picture, epoch)
            self._writer.flush()

    def projector(
        self, embeddings: np.ndarray, columns: Mapping[str, Sequence], thumbnails: np.ndarray | None = None
    ) -> None:
        """The embedding projector's files: ``embeddings`` (n, E), E > 1, at length one, so that near means cosine.

        ``columns`` (n entries each) are what points can be coloured by (at most 50 texts, or numbers; None and NaN are
        empty) and found by. ``thumbnails`` (n, size, size, 3) uint8 are drawn as the points. Of more points than the
        browser can take (5000, or fewer where the thumbnails are large), evenly spaced ones are shown.
        """
        given = {"thumbnails": thumbnails} if thumbnails is not None else {}
        for name, values in {**columns, **given}.items():
            if len(values) != len(embeddings):
                raise ValueError(f"{len(embeddings)} embeddings have {len(values)} entries of '{name}'")
        most = MOST_POINTS if thumbnails is None else min(MOST_POINTS, (SPRITE_PIXELS // thumbnails.shape[1]) ** 2)
        shown = evenly(len(embeddings), most)
        # the projector takes the first line for a header only where there are two columns, and skips empty lines
        columns = {**columns, "row": range(len(embeddings))}
        rows = list(zip(*([_text(values[i]) for i in shown] for values in columns.values()), strict=True))
        images = None
        if thumbnails is not None:
            images = torch.from_numpy(thumbnails[shown]).permute(0, 3, 1, 2) / 255
        shutil.rmtree(Path(self._writer.log_dir) / "00000" / "embeddings", ignore_errors=True)  # of a killed run
        self._writer.add_embedding(
            normalised(embeddings[shown]).astype(np.float64).round(5), rows, images, tag="embeddings",
            metadata_header=[_text(name) for name in columns],
        )  # fmt: skip

    def _length(self) -> str:
        return "" if self._epochs is None else f" The x axis counts epochs; this run has {self._epochs}."


def write_mean(folder: Path) -> None:
    """The mean over the seeds in ``folder`` of each metric of the catalogue, with its lowest and highest, as a run.

    TensorBoard draws it as a line with a band on its page 'Custom Scalars'. It has the epochs that all seeds have;
    of one seed there is none.
    """
    place = folder / OVER_SEEDS
    shutil.rmtree(place, ignore_errors=True)
    curves = [_curves(seed) for seed in sorted(folder.glob("seed_*")) if seed.is_dir()]
    tags = [tag for tag in curves[0] if all(tag in of for of in curves)] if len(curves) > 1 else []
    if not tags:
        return
    bands = {tag: [tag, f"seeds/{tag}/lowest", f"seeds/{tag}/highest"] for tag in tags}
    with SummaryWriter(place) as writer:
        for tag, names in bands.items():
            for epoch in sorted(set.intersection(*(set(of[tag]) for of in curves))):
                values = np.array([of[tag][epoch] for of in curves])
                for name, value in zip(names, (values.mean(), values.min(), values.max()), strict=True):
                    writer.add_scalar(name, value, epoch, new_style=False)
        writer.add_custom_scalars({f"mean of {len(curves)} seeds": {t: ["Margin", of] for t, of in bands.items()}})


def _curves(folder: Path) -> dict[str, dict[int, float]]:
    """Values by epoch of each metric of the catalogue in a seed's event files."""
    # None of the pictures and histograms, of which 0 would mean all.
    few = {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1, "compressedHistograms": 1, "audio": 1}
    events = EventAccumulator(str(folder), size_guidance=few).Reload()
    known = [tag for tag in events.Tags()["scalars"] if _description(tag.rpartition("/")[0], "", None, "frame")]
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in known}


def hparams_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a run with these parameters in the table of hyperparameters."""
    return {name: params[name] for name in HPARAMS}


def _description(name: str, part: str, count: int | None, unit: str) -> str:
    """What a curve is of; nothing where it is no metric of the catalogue, such as a loss."""
    try:
        entry = METRICS.entry(name)
    except KeyError:
        return ""
    better = "" if entry.metric.better == "neither" else f", {entry.metric.better} is better"
    words = f"{entry.title}{better}."
    if count is None:
        return words
    where = f"of {count:,} evenly spaced {unit}s of the run's {part} part"
    return f"{words} Measured on those {where} that have labels for it."


def similarity_figure(z: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str) -> "Figure":
    """Cosines of ``z`` (n, E), of length one and sorted by ``labels`` (n,), with the classes marked."""
    from matplotlib.figure import Figure  # here: a run draws when it is over, and may never get there

    figure = Figure(figsize=(4.2, 3.6), dpi=DPI, layout="compressed")
    axis = figure.subplots()
    image = axis.imshow(z @ z.T, vmin=-1, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=axis, fraction=0.045, pad=0.02)
    present, starts = np.unique(labels, return_index=True)
    ends = np.append(starts[1:], len(z))
    for start in starts[1:] - 0.5:
        axis.axhline(start, color="white", linewidth=0.8)
        axis.axvline(start, color="white", linewidth=0.8)
    centres = (starts + ends - 1) / 2
    places = apart(centres, len(z))
    names = [_text(classes[code]) for code in present]
    axis.set_yticks(places, names, fontsize=min(10, 180 / len(names)), parse_math=False)
    axis.tick_params(axis="y", length=0, pad=16)
    lines = np.stack([centres, places])
    axis.plot([[0], [-0.03]], lines, color="0.5", linewidth=0.8, transform=axis.get_yaxis_transform(), clip_on=False)
    axis.set_xticks([])
    axis.set_title(title, fontsize=10)
    return figure


def apart(centres: np.ndarray, length: int) -> np.ndarray:
    """Places for the names of bands with these ascending ``centres`` (k,) in 0..length: near them, not overlapping."""
    number = np.arange(len(centres))
    gap = length * min(0.05, 1 / len(centres))
    places = np.maximum.accumulate(centres - gap * number) + gap * number
    return np.minimum(places, length - 0.5 - gap * (len(centres) - 1 - number))


def confusion_figure(counts: np.ndarray, classes: Sequence[str], title: str) -> "Figure":
    """``counts`` (C, C) of true (row) and predicted (column) classes; a class that never was is a row of zeros."""
    side = float(np.clip(1.4 + 0.31 * len(classes), 2.9, 10))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side + 0.6, side), dpi=DPI, layout="compressed")
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="cividis")
    figure.colorbar(image, ax=axis, fraction=0.045, pad=0.02)
    fontsize = min(9, 0.6 * 72 * side / len(classes) / (0.6 * len(f"{counts.max():,}")))  # within a cell
    for (row, column), count in np.ndenumerate(counts):
        colour = "black" if shares[row, column] > 0.5 else "white"
        axis.text(
            column, row, f"{count:,}" if count else "·", color=colour, ha="center", va="center", fontsize=fontsize
        )
    names = [_text(name) for name in classes]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.tick_params(labelsize=10, length=0)
    axis.set_xlabel("predicted", fontsize=10)
    axis.set_ylabel("true", fontsize=10)
    axis.set_title(f"{title}\ncolour: share of the true class", fontsize=10)
    return figure


def _row(hparams: Mapping[str, Any]) -> tuple[Summary, Summary]:
    """This run's values in the table of hyperparameters, and that it is a finished row."""
    cells = {name: _cell(value) for name, value in hparams.items() if value is not None}
    _, start, end = hparams_summaries(cells, {})
    return start, end


def _cell(value: Any) -> float | str:
    """What the table of hyperparameters can hold: a number, or a short text.

    Never a text in a column of numbers: TensorBoard cannot sort that, and answers with an error.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    text = _text(_short(value))
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _short(value: Any) -> str:
    """Nested mappings and sequences as one reads them: 'arcface: 1.0, triplet: {weight: 0.5, margin: 0.2}'."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{k}: {{{_short(v)}}}" if isinstance(v, Mapping) else f"{k}: {_short(v)}" for k, v in value.items()
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_short, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: Any) -> str:
    """One line without tabs, for a table cell or a label; None and NaN are empty."""
    return "" if pd.isna(value) else " ".join(str(value).split())
