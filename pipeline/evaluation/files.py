"""The files of an evaluated run: written here, and read again for the report.

headline.json        the few numbers that a run is judged by, for 'dvc metrics diff'
metrics.json         one number a metric
details.json         what was evaluated ('about'), each metric with its interval, the numbers of each seed and fold
resampled.npz        each metric in each resample, for differences between runs
per_video.csv        the same metrics of each video, where it has them; mean over seeds
per_class.csv        frames, precision, recall, F1, cosine to the own class; mean over seeds
predictions.parquet  truth and prediction of each frame, as said and smoothed; mean over seeds

Several folds are put together as ``folds`` says; videos and predictions have a column that says which they are of.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.files import read_json, settle, whole, write_json, write_table
from pipeline.core.params import UserError
from pipeline.evaluation.folds import Fold, averaged, labelled
from pipeline.metrics import protocol
from pipeline.metrics.grouped import one_by_one
from pipeline.metrics.measures import SUFFIXES, Part, Seen, best_source, by_groups
from pipeline.metrics.separability import cosine_matrix
from pipeline.metrics.uncertainty import Estimate, Measure

NAME = "evaluation"  # of what is written together
# In headline.json, those that are known: a screen holds them for all default runs, of which most have the first three.
HEADLINE = ("auc_same_different", "knn_macro_f1", "steadiness", "ccc", "au_f1", "pair_f1")


@dataclass(frozen=True)
class Evaluation:
    """One evaluated run, as its files have it. ``seeds`` are the numbers of each; ``groups`` were resampled."""

    folder: Path
    about: dict[str, Any]
    estimates: dict[str, Estimate]
    seeds: list[dict[str, float | None]]
    groups: list[str]

    @property
    def name(self) -> str:
        return self.about["run"]


def write(
    folder: Path, part: Part, folds: Sequence[Fold], seeds: Sequence[tuple[Measure, Seen]],
    found: Mapping[str, Estimate], about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Writes all files but the plots into ``folder``; ``part`` and ``seeds`` are those of all folds."""
    once = np.ones((1, len(part.groups)))
    each = [{name: float(value[0]) for name, value in measure(once).items()} for measure, _ in seeds]
    flat = {name: float(estimate.value) for name, estimate in found.items() if not is_of_one_class(name)}
    write_json(folder / "metrics.json", flat)
    write_json(folder / "headline.json", {name: flat[name] for name in HEADLINE if np.isfinite(flat.get(name, np.nan))})
    intervals = {name: (estimate.value, *estimate.interval()) for name, estimate in found.items()}
    of = {
        name: dict(zip(("value", "low", "high"), map(float, values), strict=True)) for name, values in intervals.items()
    }
    details = {"about": about, "criterion": criterion(found), "estimates": of, "seeds": each}
    cosines = emotion_cosines(folds)
    if cosines is not None:
        details["emotions"] = {"classes": part.classes, "cosines": cosines.tolist()}
    if len(folds) > 1:
        details["folds"] = [_of_fold(fold) for fold in folds]
    write_json(folder / "details.json", details, sealed=True)
    resampled = {f"metric/{name}": estimate.resampled.astype(np.float32) for name, estimate in found.items()}
    with whole(folder / "resampled.npz") as file:
        np.savez_compressed(file, groups=np.array(part.groups), **resampled)
    videos = pd.concat([_per_video(fold) for fold in folds], ignore_index=True).dropna(axis=1, how="all")
    _write_csv(folder / "per_video.csv", videos)
    seen = [seen for _, seen in seeds]
    _write_csv(folder / "per_class.csv", _per_class(part, cosines, seen, found))
    predictions = _predictions(part, seen)
    if len(folds) > 1:
        of = np.repeat([fold.number for fold in folds], [len(fold.part.frame) for fold in folds])
        predictions.insert(2, "fold", of)
    write_table(folder / "predictions.parquet", pa.Table.from_pandas(predictions, preserve_index=False), {})


def read(folder: Path) -> Evaluation:
    """Raises ``UserError`` where there is no evaluation, or a file of it is damaged."""
    settle(folder, NAME)
    path = folder / "details.json"
    if not path.is_file():
        raise UserError(f"the run '{folder.name}' is not evaluated: there is no {path} ('dvc repro' makes it)")
    details = read_json(path, "the details of an evaluation", "Evaluate the run again")
    try:
        values = {name: np.nan if e["value"] is None else e["value"] for name, e in details["estimates"].items()}
        about, seeds = details["about"], details["seeds"]
        path = folder / "resampled.npz"
        with np.load(path) as file:
            resampled, groups = {name: file[f"metric/{name}"] for name in values}, file["groups"].tolist()
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error, NotImplementedError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{path} is damaged ({why}): evaluate the run again") from None
    return Evaluation(folder, about, {n: Estimate(v, resampled[n]) for n, v in values.items()}, seeds, groups)


def criterion(found: Mapping[str, Estimate]) -> dict[str, Any] | None:
    """Whether mean cosine(same) >= mean cosine(opposite), by how much, and whether that is beyond noise.

    None where there are no such pairs.
    """
    gap = found.get("gap_same_opposite")
    if gap is None or np.isnan(gap.value):
        return None
    low, high = map(float, gap.interval())
    return {
        "gap": gap.value, "low": low, "high": high, "passed": gap.value >= 0, "beyond_noise": gap.beyond_noise(),
    }  # fmt: skip


def emotion_cosines(folds: Sequence[Fold], most_seeds: int | None = None) -> np.ndarray | None:
    """Mean cosines (C, C) of classes, over the seeds and within folds; over these by their labelled frames.

    None where there are no embeddings of labelled frames.
    """
    asked = [fold for fold in folds if len(fold.part.has) and fold.answers[0].z is not None]
    if not asked:
        return None
    matrices = []
    for fold in asked:
        part, has = fold.part, fold.part.has
        label, group = part.label[has], part.group[has]
        of_seeds = [cosine_matrix(a.z[has], label, group, len(part.classes)) for a in fold.answers[:most_seeds]]
        matrices.append(np.mean(of_seeds, axis=0))
    return averaged(np.stack(matrices), np.array([labelled(fold.part).sum() for fold in asked])[:, None, None])


def _of_fold(fold: Fold) -> dict[str, Any]:
    """What a fold is by itself; its numbers are means over the seeds."""
    part, once = fold.part, np.ones((1, len(fold.part.groups)))
    seeds = [measure(once) for measure, _ in fold.seeds]
    metrics = {name: float(np.mean([s[name][0] for s in seeds])) for name in seeds[0] if not is_of_one_class(name)}
    facts = {"fold": fold.number, "val_videos": len(part.videos), "val_groups": len(part.groups)}
    return facts | {"labelled_frames": int(labelled(part).sum()), "metrics": metrics}


def confusion(part: Part, seen: Sequence[Seen]) -> np.ndarray:
    """Mean numbers of frames (C, C) by true and predicted class, of ``best_source``."""
    source = best_source(seen[0])
    said = [s.predicted[source][0][part.has].argmax(1) for s in seen]
    return np.mean([protocol.confusion(part.label[part.has], x, len(part.classes)) for x in said], axis=0)


def is_of_one_class(name: str) -> bool:
    """Whether a metric is the F1 of one class or action unit."""
    return name.removeprefix("knn_").startswith("f1_")


def _per_video(fold: Fold) -> pd.DataFrame:
    part, found = fold.part, []
    for answer, (_, seen) in zip(fold.answers, fold.seeds, strict=True):
        measure = by_groups(part, answer.z, seen, part.video)
        with np.errstate(invalid="ignore", divide="ignore"):
            some = [measure(weights) for weights in one_by_one(len(part.videos))]
        found.append({name: np.concatenate([values[name] for values in some]) for name in some[0]})
    scored = (part.label >= 0) | ~np.isnan(part.va).any(1) | (~np.isnan(part.aus)).any(1)
    group = np.array(part.groups)[part.group[np.unique(part.video, return_index=True)[1]]]
    of = {} if fold.number is None else {"fold": fold.number}
    table = {"video": part.videos, "group": group, **of, "frames": np.bincount(part.video, scored).astype(int)}
    means = {name: np.mean([f[name] for f in found], axis=0) for name in found[0] if not is_of_one_class(name)}
    return pd.DataFrame(table | means)


def _per_class(
    part: Part, cosines: np.ndarray | None, seen: Sequence[Seen], found: Mapping[str, Estimate]
) -> pd.DataFrame:
    label = part.label[part.has]
    table = pd.DataFrame({"class": part.classes, "frames": np.bincount(label, minlength=len(part.classes))})
    if (source := best_source(seen[0])) and len(label):
        counts, prefix = confusion(part, seen), "knn_" if source == "knn" else ""
        with np.errstate(invalid="ignore"):
            table["precision"] = np.diag(counts) / counts.sum(0)
            table["recall"] = np.diag(counts) / counts.sum(1)
        for suffix in SUFFIXES[: len(seen[0].predicted[source])]:
            of = [found[f"{prefix}f1_{c}{suffix}"] for c in part.classes]
            table[f"f1{suffix}"] = [e.value for e in of]
            table[[f"f1{suffix}_low", f"f1{suffix}_high"]] = [e.interval() for e in of]
    if cosines is not None:
        table["cosine_to_own_class"] = np.diag(cosines)
    return table


def _predictions(part: Part, seen: Sequence[Seen]) -> pd.DataFrame:
    """Every frame of the validation videos; an empty truth is a frame without label, which is not scored."""
    table = pd.DataFrame({"video": np.array(part.videos, dtype=object)[part.video], "frame": part.frame})
    if source := best_source(seen[0]):
        names = np.array([*part.classes, None], dtype=object)
        table["truth"] = names[part.label]
        for k, suffix in enumerate(SUFFIXES[: len(seen[0].predicted[source])]):
            mean = np.mean([s.predicted[source][k] for s in seen], axis=0).astype(np.float32)
            table[f"predicted{suffix}"] = names[np.where(np.isnan(mean).any(1), -1, mean.argmax(1))]
            table[[f"p_{c}{suffix}" for c in part.classes]] = mean
    for what, names, truth in (("va", ["valence", "arousal"], part.va), ("aus", part.au_names, part.aus)):
        if what in seen[0].predicted:
            table[[f"{name}_truth" for name in names]] = truth
            for k, suffix in enumerate(SUFFIXES[: len(seen[0].predicted[what])]):
                mean = np.mean([s.predicted[what][k] for s in seen], axis=0).astype(np.float32)
                table[[f"{name}{suffix}" for name in names]] = mean
    return table


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with whole(path) as file:
        table.to_csv(file, index=False)
