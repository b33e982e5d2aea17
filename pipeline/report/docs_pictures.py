"""The pictures in docs/pictures, made again from the evaluations of the default runs: they show drawn faces alone.

python -m pipeline.report.docs_pictures
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from PIL import Image

from pipeline.core.colours import COLOURS
from pipeline.core.files import whole
from pipeline.core.params import UserError, entry, option, parse
from pipeline.evaluation import files, shown
from pipeline.evaluation.shown import Shown
from pipeline.metrics.catalogue import METRICS
from pipeline.report.tables import rounded

DPI = 100
TONES = 256  # of a picture: a third of the size


@dataclass(frozen=True)
class PicturesConfig:
    """Flags alone: params.yaml has no section for them."""

    evaluations: Path = option(Path("evaluation"), "-d", help="the folder with a folder for each evaluated run")
    output: Path = option(Path("docs/pictures"), "-o", help="where the pictures are written")
    adapter: str = option("mlp_hann", help="the run that is shown")
    beside: str = option("frozen", help="the run that it is shown beside")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(PicturesConfig, argv, sections=[], description=__doc__)
    folders = {name: config.evaluations / name for name in (config.beside, config.adapter)}
    runs = {name: files.read(folder) for name, folder in folders.items()}
    for name, run in runs.items():
        if not run.about["dataset"].startswith("synthetic"):
            raise UserError(f"{name} was evaluated on {run.about['dataset']}: only drawn faces may be shown in docs/")
    drawn = {name: shown.read(folder) for name, folder in folders.items()}
    values = {name: {m: e.value for m, e in run.estimates.items()} for name, run in runs.items()}
    pictures = {
        "overview": overview(drawn[config.adapter], values[config.adapter]),
        "timeline": timeline(drawn),
        "similarity": similarity(drawn, {name: of["auc_same_different"] for name, of in values.items()}),
    }
    for name, figure in pictures.items():
        with whole(config.output / f"{name}.png") as file:
            file.write(_small(figure))
    print(f"{', '.join(pictures)}: {config.output}")


def overview(drawn: Shown, values: dict[str, float]) -> Figure:
    """Frames, store, adapters, report: from left to right."""
    figure = Figure(figsize=(10, 2.05), dpi=DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(0, 10)
    axis.set_ylim(0.1, 2.15)
    axis.set_axis_off()
    faces = [_image(file) for file in list(drawn.faces.values())[:3]]
    for k, face in enumerate(faces):
        axis.imshow(face, extent=(0.25 + 0.3 * k, 1.05 + 0.3 * k, 0.75 + 0.2 * k, 1.55 + 0.2 * k), zorder=2 + k)
    grid = np.random.default_rng(0).random((8, 12))
    axis.imshow(grid, extent=(3.15, 4.45, 0.75, 1.95), cmap="Blues", zorder=2, aspect="auto")
    for k, name in enumerate(("mlp", "tcn", "transformer")):
        axis.add_patch(Rectangle((5.75, 0.75 + 0.42 * k), 1.3, 0.34, facecolor="#e8f1fa", edgecolor="#0072B2"))
        axis.text(6.4, 0.92 + 0.42 * k, name, ha="center", va="center", fontsize=9)
    axis.add_patch(Rectangle((8.3, 0.7), 1.45, 1.3, facecolor="white", edgecolor="0.4"))
    few = [(title, values[name]) for name, title in _claimed() if name in values][:3]
    for k, (title, value) in enumerate(few):
        axis.text(8.38, 1.82 - 0.37 * k, title, fontsize=7.5, va="center", color="0.35")
        axis.text(8.38, 1.66 - 0.37 * k, rounded(value), fontsize=8.5, va="center", weight="bold")
    for left, right, words in (
        (1.85, 3.05, "extract.py\nonce"),
        (4.55, 5.65, "train.py\nminutes"),
        (7.15, 8.2, "report"),
    ):
        axis.add_patch(FancyArrowPatch((left, 1.35), (right, 1.35), arrowstyle="-|>", mutation_scale=14, color="0.3"))
        axis.text((left + right) / 2, 1.5, words, ha="center", va="bottom", fontsize=8.5)
    below = ((0.95, "frames"), (3.8, "feature store"), (6.4, "adapters"), (9.02, "report"))
    for x, words in below:
        axis.text(x, 0.45, words, ha="center", fontsize=11, weight="bold")
    notes = ((0.95, "faces of videos"), (3.8, "a row a frame"), (6.4, "on windows of frames"), (9.02, "with intervals"))
    for x, words in notes:
        axis.text(x, 0.2, words, ha="center", fontsize=8.5, color="0.35")
    return figure


def timeline(drawn: dict[str, Shown]) -> Figure:
    """The first video of all: faces, true classes, each run's predictions, and the cosine to the frame before."""
    first = next(iter(drawn.values()))
    video = first.names["videos"][0]
    frames, truth = first.arrays["timeline/0/frame"], first.arrays["timeline/0/truth"]
    step = float(first.arrays["timeline/0/step"])
    figure = Figure(figsize=(10, 3.6), dpi=DPI, layout="constrained")
    above, strips, below = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.5, 1.2])
    above.set_axis_off()
    above.set_ylim(0, 1)
    width = (frames[-1] - frames[0]) / 14
    last = -np.inf
    for frame in sorted(frame for name, frame in first.faces if name == video):
        if frame - last >= width:
            side = above.inset_axes((frame - width / 2, 0, width, 1), transform=above.transData)
            side.imshow(_image(first.faces[video, frame]))
            side.set_axis_off()
            last = frame
    names = ["true", *drawn]
    codes = [truth, *(of.arrays["timeline/0/predicted"] for of in drawn.values())]
    for place, of in enumerate(codes):
        _strip(strips, frames, of, step, len(codes) - 1 - place)
    strips.set_yticks(range(len(names)), names[::-1], fontsize=9)
    strips.tick_params(length=0)
    strips.spines[:].set_visible(False)
    broken = np.flatnonzero(np.diff(frames) > 1.5 * step) + 1
    for (name, of), colour in zip(drawn.items(), ("#D55E00", "#0072B2"), strict=False):
        x, y = (np.insert(v.astype(float), broken, np.nan) for v in (frames, of.arrays["timeline/0/near"]))
        below.plot(x, y, color=colour, linewidth=1, label=name)
    below.set_xlabel("frame", fontsize=9)
    below.set_ylabel("cosine to the\nframe before", fontsize=9)
    below.tick_params(labelsize=8)
    below.legend(fontsize=8, loc="lower right", ncols=2, framealpha=0.9)
    below.grid(axis="y", alpha=0.3)
    below.set_xlim(frames[0] - step / 2, frames[-1] + step / 2)
    present = [code for code in np.unique(np.concatenate(codes)) if code >= 0]
    patches = [Patch(color=COLOURS[code % len(COLOURS)], label=first.names["classes"][code]) for code in present]
    figure.legend(handles=patches, loc="outside lower center", ncols=8, fontsize=8.5, frameon=False)
    return figure


def similarity(drawn: dict[str, Shown], auc: dict[str, float]) -> Figure:
    """The cosines of frames sorted by emotion, of each run, with one colour bar."""
    figure = Figure(figsize=(10, 4.2), dpi=DPI, layout="compressed")
    axes = figure.subplots(1, len(drawn))
    for axis, (name, of) in zip(axes, drawn.items(), strict=True):
        label = of.arrays["similarity/label"]
        image = axis.imshow(of.arrays["similarity"] / 127, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        present, starts = np.unique(label, return_index=True)
        for start in starts[1:] - 0.5:
            axis.axhline(start, color="black", linewidth=0.6)
            axis.axvline(start, color="black", linewidth=0.6)
        centres = (starts + np.append(starts[1:], len(label)) - 1) / 2
        names = [of.names["classes"][code] for code in present]
        axis.set_yticks(centres, names if axis is axes[0] else [""] * len(names), fontsize=8)
        axis.set_xticks([])
        axis.set_title(f"{name}: AUC same/different {auc[name]:.2f}", fontsize=10)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, label="cosine")
    return figure


def _claimed() -> list[tuple[str, str]]:
    return [(name, entry.title) for name, entry in METRICS.shown("claims").items()]


def _strip(axis: Axes, frames: np.ndarray, codes: np.ndarray, step: float, place: int) -> None:
    for frame, code in zip(frames, codes, strict=True):
        colour = "0.85" if code < 0 else COLOURS[code % len(COLOURS)]
        axis.add_patch(Rectangle((frame - step / 2, place - 0.4), step, 0.8, facecolor=colour, linewidth=0))
    axis.set_ylim(-0.5, max(axis.get_ylim()[1], place + 0.5))


def _image(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def _small(figure: Figure) -> bytes:
    """A PNG of few colours."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    Image.open(drawn).convert("RGB").quantize(TONES, Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    entry(main)
