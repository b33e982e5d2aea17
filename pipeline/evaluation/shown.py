"""What the report draws of a run beside its tables: shown.npz, written here and read again.

It holds what all runs of a report can share an axis for: curves, small matrices, points, strips of a few videos, and
faces. Embeddings are those of the first seed, and of the first fold, since two folds are two spaces.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np

from pipeline.adapter.pair_attention import PairsSeen
from pipeline.core.files import whole
from pipeline.core.numbering import spacing
from pipeline.core.params import UserError
from pipeline.core.pictures import LONGEST
from pipeline.core.projection import fit
from pipeline.evaluation.files import confusion
from pipeline.evaluation.folds import FoldResult
from pipeline.metrics.measures import SeedResult, Subset, best_source
from pipeline.metrics.steadiness import neighbours
from pipeline.metrics.vectors import cosines, evenly, normalised

FILE = "shown.npz"
FACE = 56  # pixels
FACE_QUALITY = 80
FACES_OF_TIMELINE = 14
MOST_COLUMNS = 800  # of a strip: a page is some 1,300 pixels wide
MOST_SIMILAR = 120  # frames of the similarity matrix
MOST_POINTS = 400
MOST_COMPARED = 4000  # frames that the neighbours of a query are looked for among
NEAREST = 5
WORST = 8
RATES = np.linspace(0, 1, 201)
BINS = np.linspace(-1, 1, 81)
KINDS = ("same", "different", "opposite")

Picture = Callable[[str, int], np.ndarray | None]


@dataclass(frozen=True)
class Shown:
    """``arrays`` by name, ``names`` (classes, videos, ...), and ``faces``: JPEG files by (video, frame)."""

    arrays: Mapping[str, np.ndarray]
    names: Mapping[str, Any]
    faces: Mapping[tuple[str, int], bytes]


def collected(
    subset: Subset, folds: Sequence[FoldResult], result: SeedResult, videos: Sequence[int], picture: Picture,
    attention: PairsSeen | None = None,
) -> Shown:  # fmt: skip
    """What is shown of the first seed (``result``, pooled over the folds) and of the ``videos`` with these codes.

    Without labelled frames there is nothing. Each kind of array is left out where the run has nothing of it.
    """
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, Any] = {"classes": subset.classes}
    faces = _Faces(picture)
    if result.identity is not None:
        arrays["identification"] = result.identity.curve.astype(np.float32)
    if attention is not None:
        there, pictures = attention.readable(picture)
        arrays |= {"attention/weights": there.weights.astype(np.float32), "attention/logit": there.logits}
        arrays |= {"attention/same": there.same, "attention/within": there.within_each(pictures).astype(np.float32)}
        names |= {"attention": there.frames, "attention_left_out": len(attention.frames) - len(there.frames)}
        for video, frame, _ in (frame for pair in there.frames for frame in pair):
            faces.keep(video, frame, LONGEST)
    if len(subset.labelled):
        arrays |= _of_embeddings(folds[0])
        neighbours_of, queries = _nearest(folds[0], faces)
        arrays |= neighbours_of
        names |= queries
        if source := best_source(result):
            arrays["confusion"] = confusion(subset, [result])
            wrong, of_wrong = _worst(subset, result.predictions[source][""], faces)
            arrays |= wrong
            names |= of_wrong
            names["videos"] = [subset.videos[code] for code in videos]
            z = [fold.outputs[0].z for fold in folds]
            z = None if z[0] is None else np.concatenate(z)
            for number, code in enumerate(videos):
                arrays |= _timeline(subset, code, result.predictions[source][""], z, f"timeline/{number}", faces)
    return Shown(arrays, names, faces.known)


def _of_embeddings(fold: FoldResult) -> dict[str, np.ndarray]:
    """ROC curves, densities of cosines, similarities and principal components; nothing without pairs."""
    subset, z, pairs, rows = fold.subset, fold.outputs[0].z, fold.seeds[0][1].pairs, fold.subset.labelled
    if pairs is None:
        return {}
    same, other, opposite = pairs.histogram(np.ones((1, len(subset.groups))))[0]
    counts = dict(zip(KINDS, (same, other + opposite, opposite), strict=True))
    found = {}
    for kind, numbers in counts.items():
        if numbers.sum():
            below = np.interp(BINS, pairs.edges, np.concatenate([[0], np.cumsum(numbers)]))
            below[[0, -1]] = 0, numbers.sum()
            found[f"density/{kind}"] = (np.diff(below) / numbers.sum() / np.diff(BINS)).astype(np.float32)
            if kind != "same" and same.sum():
                tpr, fpr = (np.concatenate([[0], x[::-1].cumsum() / x.sum()]) for x in (same, numbers))
                found[f"roc/{kind}"] = np.interp(RATES, fpr, tpr).astype(np.float32)
    order = rows[np.lexsort((subset.video[rows], subset.label[rows]))]
    some = order[evenly(len(order), MOST_SIMILAR)]
    near = normalised(z[some])
    found |= {"similarity": np.round(127 * np.clip(near @ near.T, -1, 1)).astype(np.int8)}
    found |= {"similarity/label": subset.label[some].astype(np.int16)}
    some = rows[evenly(len(rows), MOST_POINTS)]
    points = normalised(z[some])
    count = min(2, len(points) - 1, points.shape[1])
    if count > 0:
        projected = np.zeros((len(points), 2), dtype=np.float32)
        projected[:, :count] = fit([points], count)(points)
        found |= {"points": projected, "points/label": subset.label[some].astype(np.int16)}
    return found


def _nearest(fold: FoldResult, faces: "_Faces") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """For a frame of each class, the same for every run: its nearest frames of other groups."""
    subset, z = fold.subset, fold.outputs[0].z
    rows = subset.labelled[evenly(len(subset.labelled), MOST_COMPARED)]
    if z is None or len(rows) < 2:
        return {}, {}
    queries = [of[len(of) // 2] for code in range(len(subset.classes)) if len(of := rows[subset.label[rows] == code])]
    near = normalised(z[queries]) @ normalised(z[rows]).T
    near[subset.group[queries][:, None] == subset.group[rows]] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, :NEAREST]
    cosine = np.take_along_axis(near, order, 1)
    known = [k for k in range(len(queries)) if np.isfinite(cosine[k]).all()]
    shown = {"queries": _named(subset, [queries[k] for k in known], faces)}
    shown["nearest"] = [_named(subset, rows[order[k]], faces) for k in known]
    return {"nearest/cosine": cosine[known].astype(np.float32)}, shown


def _worst(subset: Subset, scores: np.ndarray, faces: "_Faces") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The frames that are most surely taken for a wrong class, one a video."""
    rows = subset.labelled
    predicted = scores[rows].argmax(1)
    wrong = np.flatnonzero(predicted != subset.label[rows])
    sure = scores[rows[wrong], predicted[wrong]]
    order = wrong[np.argsort(-sure, kind="stable")]
    _, first = np.unique(subset.video[rows[order]], return_index=True)
    chosen = order[np.sort(first)][:WORST]
    arrays = {"worst/predicted": predicted[chosen].astype(np.int16)}
    arrays["worst/share"] = scores[rows[chosen], predicted[chosen]].astype(np.float32)
    return arrays, {"worst": _named(subset, rows[chosen], faces)}


def _named(subset: Subset, rows: Sequence[int] | np.ndarray, faces: "_Faces") -> list[list[Any]]:
    """Video, frame and class of rows; their faces are kept."""
    found = [[subset.videos[subset.video[row]], int(subset.frame[row]), int(subset.label[row])] for row in rows]
    for video, frame, _ in found:
        faces.keep(video, frame)
    return found


def _timeline(
    subset: Subset, code: int, scores: np.ndarray, z: np.ndarray | None, name: str, faces: "_Faces"
) -> dict[str, np.ndarray]:
    """A video's frames, classes and cosines to the frame before; of many frames evenly spaced ones.

    A cosine is then the lowest since the frame that is shown before.
    """
    rows = np.flatnonzero(subset.video == code)
    near = np.full(len(rows), np.nan)
    if z is not None:
        first, second = neighbours(subset.video[rows], subset.number[rows], subset.step)
        near[second] = cosines(normalised(z[rows]), first, second)
    kept = evenly(len(rows), MOST_COLUMNS)
    starts = np.concatenate([[0], kept[:-1] + 1])
    lowest = np.array([_lowest(near[start : end + 1]) for start, end in zip(starts, kept, strict=True)])
    for frame in subset.frame[rows][evenly(len(rows), FACES_OF_TIMELINE)]:
        faces.keep(subset.videos[code], int(frame))
    known = np.isfinite(scores[rows]).all(1)
    predicted = np.where(known, scores[rows].argmax(1), -1)
    return {
        f"{name}/frame": subset.frame[rows[kept]],
        f"{name}/truth": subset.label[rows[kept]].astype(np.int16),
        f"{name}/predicted": predicted[kept].astype(np.int16),
        f"{name}/near": lowest.astype(np.float32),
        f"{name}/step": np.array(spacing(subset.video[rows], subset.frame[rows])[0] * max(1, len(rows) / len(kept))),
    }


def _lowest(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.min()) if len(known) else np.nan


class _Faces:
    """JPEG files of the frames that are kept; none of a frame whose picture is not there."""

    def __init__(self, picture: Picture) -> None:
        self.known: dict[tuple[str, int], bytes] = {}
        self._picture = picture

    def keep(self, video: str, frame: int, size: int = FACE) -> None:
        if (video, frame) in self.known or (image := self._picture(video, frame)) is None:
            return
        scale = size / max(image.shape[:2])
        sides = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        small = cv2.resize(np.ascontiguousarray(image[..., ::-1]), sides, interpolation=cv2.INTER_AREA)
        done, coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, FACE_QUALITY])
        if done:
            self.known[video, frame] = coded.tobytes()


def write(path: Path, shown: Shown) -> None:
    files = list(shown.faces.values())
    names = {**shown.names, "faces": [list(key) for key in shown.faces]}
    arrays = {f"array/{name}": value for name, value in shown.arrays.items()}
    with whole(path) as file:
        np.savez_compressed(
            file,
            names=np.frombuffer(json.dumps(names).encode(), dtype=np.uint8),
            faces=np.frombuffer(b"".join(files), dtype=np.uint8),
            ends=np.cumsum([0, *map(len, files)]),
            **arrays,
        )


def read(folder: Path) -> Shown:
    """Raises ``UserError`` where the evaluation in ``folder`` has no such file, or a damaged one."""
    path = folder / FILE
    try:
        with np.load(path) as file:
            names, ends, of_all = json.loads(file["names"].tobytes()), file["ends"], file["faces"].tobytes()
            arrays = {name.removeprefix("array/"): file[name] for name in file.files if name.startswith("array/")}
        keys = [(video, frame) for video, frame in names.pop("faces")]
        faces = {key: of_all[ends[k] : ends[k + 1]] for k, key in enumerate(keys)}
    except FileNotFoundError:
        raise UserError(f"there is no {path}, from which the report draws: evaluate the run again") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, BadZipFile, zlib.error) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{path} is damaged ({why}): evaluate the run again") from None
    return Shown(arrays, names, faces)
