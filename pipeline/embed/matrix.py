"""The similarity matrix of faces: cosines of all with all, the faces at both axes, and the pairs that are alike."""

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.adapter.examples import FILE, load_examples
from pipeline.core.files import whole
from pipeline.core.params import UserError
from pipeline.embed.compare import similarity
from pipeline.embed.embedder import Embedder

MOST = 2000  # faces that are drawn
SHOWN = 300  # up to so many faces have names and pictures at the axes: more would be too small to see
LARGEST = 60  # inches of a side
NUMBERS, OUTLINES = 25, 60  # up to so many faces, cosines are written into the cells, and pairs that are alike outlined
NAMED = 24  # characters of a name; the list of pairs has all of it
THUMBNAIL = 96  # pixels
DPI = 100


def rows_of(table: pd.DataFrame) -> pd.DataFrame:
    """One row a face, by name: name, embedding and crop (None where the table has none).

    ``table`` is one of ``Embedder.images(..., with_crops=True)``. Of several faces in a picture each has a row, called
    'picture (left)', 'picture (p1)', ...
    """
    who = zip(table["video"], table["person"], strict=True)
    names = [f"{video} ({person})" if person else video for video, person in who]
    crops = table["crop"] if "crop" in table else [None] * len(table)
    found = pd.DataFrame({"name": names, "embedding": list(table["embedding"]), "crop": list(crops)})
    return found.sort_values("name", kind="stable", ignore_index=True)


def pairs_of(faces: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The pairs of ``faces`` (``rows_of``) whose cosine is at or above the threshold: first, second, cosine.

    The most alike come first.
    """
    cosines = similarity(faces)
    first, second = np.nonzero(np.triu(cosines >= threshold, 1))
    names = faces["name"].to_numpy()
    found = pd.DataFrame({"first": names[first], "second": names[second], "cosine": cosines[first, second]})
    return found.sort_values("cosine", ascending=False, kind="stable", ignore_index=True)


def draw(table: pd.DataFrame, threshold: float, whose: str) -> tuple[Figure, pd.DataFrame]:
    """The matrix of the faces in ``table`` (see ``rows_of``), and its pairs at or above the ``threshold``.

    ``whose`` says where the threshold is from. Raises ``UserError`` for less than two faces, and for more than
    ``MOST``.
    """
    faces = rows_of(table)
    count = len(faces)
    if not 2 <= count <= MOST:
        raise UserError(f"a similarity matrix is drawn of 2 to {MOST} faces, and there are {count}")
    cosines, pairs = similarity(faces), pairs_of(faces, threshold)
    cell = min(float(np.clip(16 / count, 0.3, 0.9)), LARGEST / count)  # inches
    points = float(np.clip(24 * cell, 5, 9))
    words = 0.65 * points / 72 * (3 + min(NAMED, faces["name"].str.len().max()))  # inches of the longest name
    before, size = words + cell + 0.15, count * cell
    width, height = max(before + size + 1.3, 7.5), 0.75 + cell + size + words + 0.1
    figure = Figure(figsize=(width, height), dpi=DPI)

    def place(left: float, top: float, wide: float, high: float) -> list[float]:
        """Of inches from the left and the top."""
        return [left / width, 1 - (top + high) / height, wide / width, high / height]

    axes = figure.add_axes(place(before, 0.65 + cell, size, size))
    off_diagonal = cosines[~np.eye(count, dtype=bool)]
    low = min(float(off_diagonal.min()), threshold)
    shown = axes.imshow(cosines, cmap="viridis", vmin=low, vmax=1, aspect="equal")
    labels = [_short(name) for name in faces["name"]] if count <= SHOWN else []
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)))
    axes.set_xticklabels(labels, rotation=90, fontsize=points)
    axes.set_yticklabels(labels, fontsize=points)
    axes.tick_params(length=0, pad=2)
    axes.tick_params(axis="y", pad=2 + 72 * cell)
    for i, j in np.ndindex(count, count) if count <= OUTLINES else ():
        above = i != j and cosines[i, j] >= threshold
        if above:
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.5))
        if count <= NUMBERS:
            dark = (cosines[i, j] - low) / max(1 - low, 1e-6) < 0.6
            axes.text(
                j, i, f"{cosines[i, j]:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black",
                fontweight="bold" if above else "normal",
            )  # fmt: skip
    for number, crop in enumerate(faces["crop"]):
        if crop is not None and count <= SHOWN:
            image = _thumbnail(crop)
            for left, top in ((before - cell, 0.65 + cell + number * cell), (before + number * cell, 0.65)):
                face = figure.add_axes(place(left + 0.03 * cell, top + 0.03 * cell, 0.94 * cell, 0.94 * cell))
                face.imshow(image)
                face.set_axis_off()
    bar = figure.colorbar(shown, cax=figure.add_axes(place(before + size + 0.2, 0.65 + cell, 0.18, min(size, 4.0))))
    bar.ax.axhline(threshold, color="white", linewidth=2)
    bar.ax.axhline(threshold, color="black", linewidth=1, linestyle="--")
    bar.set_label("cosine", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    at_or_above = f"{len(pairs):,} of {count * (count - 1) // 2:,} pairs at or above {threshold:.3f} ({whose})"
    figure.text(0.1 / width, 1 - 0.28 / height, f"Similarity of {count} faces", fontsize=12, va="center")
    figure.text(0.1 / width, 1 - 0.5 / height, at_or_above, fontsize=9, va="center")
    return figure, pairs


def threshold_of(embedder: Embedder) -> tuple[float, str]:
    """A cosine that tells two faces of one class from two of different ones, and where it is from.

    It is the one with the best F1 over pairs of the run's example windows (``best_f1_threshold``). They are training
    data: on other faces a lower one is often better. A bundle, or a run passed on without them, has no examples. There
    it is half-way between 1 and the mean cosine of two class centres; and 0.5 where there are no classes either. Of
    several seeds it is the mean.
    """
    found, ways = [], set()
    for name, adapter in embedder.trained.adapters.items():
        threshold, way = None, "the best F1 of the run's example windows"
        folder = embedder.trained.examples.get(name)
        if folder is not None and (folder / FILE).is_file():
            examples = load_examples(folder)
            of_people = adapter.facts.get("num_people")  # pictures of one person may be of one video
            videos = pd.Series(range(len(examples.table))) if of_people else examples.table["video"]
            threshold = best_f1_threshold(examples.embeddings, examples.table["class"], videos)
        if threshold is None and adapter.centres is not None:
            centres = adapter.centres[~adapter.centres.isnan().any(dim=1)].cpu().numpy()
            if len(centres) > 1:
                between = np.asarray(similarity(centres))[~np.eye(len(centres), dtype=bool)]
                threshold, way = (1 + float(between.mean())) / 2, "half-way from two class centres to 1"
        if threshold is None:
            threshold, way = 0.5, "for want of classes"
        found.append(threshold)
        ways.add(way)
    return float(np.mean(found)), " and ".join(sorted(ways))


def best_f1_threshold(embeddings: np.ndarray, classes: pd.Series, videos: pd.Series) -> float | None:
    """The cosine at or above which two windows (n, E) of length one are best called of one class, by F1.

    Pairs are of two videos. Those of one class count as much, together, as those of two classes: an F1 depends on how
    many of each there are. None where one kind is missing.
    """
    known = classes.notna().to_numpy()
    of_class, of_video = (pd.factorize(values[known])[0] for values in (classes, videos))
    one, other = np.triu_indices(len(of_class), 1)
    apart = of_video[one] != of_video[other]
    one, other = one[apart], other[apart]
    same = of_class[one] == of_class[other]
    if not same.any() or same.all():
        return None
    cosines = (embeddings[known] @ embeddings[known].T)[one, other]
    order = np.argsort(-cosines, kind="stable")
    hits, false = np.cumsum(same[order]) / same.sum(), np.cumsum(~same[order]) / (~same).sum()
    f1 = 2 * hits / (hits + false + 1)
    last = np.append(np.diff(cosines[order]) != 0, True)  # of equal cosines, which a threshold passes together
    return float(cosines[order][last][f1[last].argmax()])


def save(output: Path, figure: Figure, pairs: pd.DataFrame) -> None:
    """The picture as ``output``, and the pairs as a .csv beside it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    with whole(output) as file:
        file.write(content.getvalue())
    with whole(output.with_suffix(".csv")) as file:
        pairs.to_csv(file, index=False, lineterminator="\n")


def _thumbnail(crop: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def _short(name: str) -> str:
    return name if len(name) <= NAMED else f"…{name[1 - NAMED :]}"
