"""The files of an evaluated run: written here, and read again for the report.

headline.json        the few numbers that a run is judged by, for 'dvc metrics diff'
metrics.json         one number a metric
details.json         what was evaluated ('about'), each metric with its interval, the numbers of each seed and fold,
                     and the videos and confusions that cost most ('costs')
resampled.npz        each metric in each resample, for differences between runs
per_video.csv        the same metrics of each video, where it has them, and the macro-F1 of all but its group; mean over
                     seeds
per_class.csv        frames, precision, recall, F1, cosine to the own class; mean over seeds
predictions.parquet  truth and prediction of each frame or clip: as it is, smoothed, combined; mean over seeds
shown.npz            curves, matrices, strips and faces that the report draws: ``shown``

Several folds are put together as ``folds`` says; videos and predictions have a column that says which they are of.
"""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.files import read_json, settle, whole, write_json, write_table
from pipeline.core.params import UserError
from pipeline.evaluation.costly import Costs, named
from pipeline.evaluation.folds import FoldResult, averaged, labelled_frames
from pipeline.metrics import protocol
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.grouped import Measure, one_by_one
from pipeline.metrics.measures import SeedResult, Subset, best_source, by_groups
from pipeline.metrics.pair_cosines import cosine_matrix
from pipeline.metrics.uncertainty import Estimate

NAME = "evaluation"  # of what is written together


@dataclass(frozen=True)
class Evaluation:
    """One evaluated run, as its files have it. ``seeds`` are the numbers of each; ``groups`` were resampled.

    ``over_folds`` are mean and deviation of each metric over folds that are scored one by one; empty without folds.
    """

    folder: Path
    about: dict[str, Any]
    estimates: dict[str, Estimate]
    seeds: list[dict[str, float | None]]
    groups: list[str]
    over_folds: dict[str, dict[str, float | None]]

    @property
    def name(self) -> str:
        return self.about["run"]


def write(
    folder: Path, subset: Subset, folds: Sequence[FoldResult], seeds: Sequence[tuple[Measure, SeedResult]],
    estimates: Mapping[str, Estimate], about: Mapping[str, Any], costs: Costs | None,
) -> None:  # fmt: skip
    """Writes all files but the plots into ``folder``; ``subset``, ``seeds`` and ``costs`` are those of all folds."""
    once = np.ones((1, len(subset.groups)))
    each = [{name: float(value[0]) for name, value in measure(once).items()} for measure, _ in seeds]
    flat = {name: float(estimate.value) for name, estimate in estimates.items() if not is_detail(name)}
    write_json(folder / "metrics.json", flat)
    headline = METRICS.shown("headline")  # few: a screen holds them for all default runs
    write_json(folder / "headline.json", {name: flat[name] for name in headline if np.isfinite(flat.get(name, np.nan))})
    intervals = {name: (estimate.value, *estimate.interval()) for name, estimate in estimates.items()}
    of = {
        name: dict(zip(("value", "low", "high"), map(float, values), strict=True)) for name, values in intervals.items()
    }
    details = {"about": about, "criterion": criterion(estimates), "estimates": of, "seeds": each}
    cosines = emotion_cosines(folds)
    if cosines is not None:
        details["emotions"] = {"classes": subset.classes, "cosines": cosines.tolist()}
    if len(folds) > 1:
        details["folds"] = [_of_fold(fold) for fold in folds]
        details["over_folds"] = _over_folds([of["metrics"] for of in details["folds"]])
    results = [result for _, result in seeds]
    if costs is not None:
        details["costs"] = named(subset, costs)
    write_json(folder / "details.json", details, sealed=True)
    resampled = {f"metric/{name}": estimate.resampled.astype(np.float32) for name, estimate in estimates.items()}
    with whole(folder / "resampled.npz") as file:
        np.savez_compressed(file, groups=np.array(subset.groups), **resampled)
    videos = pd.concat([_per_video(fold) for fold in folds], ignore_index=True).dropna(axis=1, how="all")
    if costs is not None:
        videos["macro_f1_without_group"] = videos["group"].map(dict(zip(subset.groups, costs.without, strict=True)))
    _write_csv(folder / "per_video.csv", videos)
    _write_csv(folder / "per_class.csv", _per_class(subset, cosines, results, estimates))
    predictions = _predictions(subset, results)
    if len(folds) > 1:
        of = np.repeat([fold.number for fold in folds], [len(fold.subset.frame) for fold in folds])
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
    estimates = {name: Estimate(value, resampled[name]) for name, value in values.items()}
    return Evaluation(folder, about, estimates, seeds, groups, details.get("over_folds", {}))


def read_about(folder: Path) -> dict[str, Any] | None:
    """What was evaluated into ``folder``; None where there is no such file, or it is damaged or somebody else's."""
    return _detail(folder, "about")


def read_value(folder: Path, metric: str) -> float | None:
    """A number of the evaluation in ``folder``; None where it is not there or not measured."""
    return ((_detail(folder, "estimates") or {}).get(metric) or {}).get("value")


def read_costs(folder: Path) -> dict[str, Any] | None:
    """What its macro-F1 hangs on, as ``costly.named`` says it; None where there is nothing of the kind."""
    return _detail(folder, "costs")


def read_emotions(folder: Path) -> list[list[float]] | None:
    """The mean cosines (C, C) of classes, NaN where there are no pairs; None where the run has no embeddings."""
    cosines = (_detail(folder, "emotions") or {}).get("cosines")
    return None if cosines is None else [[np.nan if value is None else value for value in row] for row in cosines]


def _detail(folder: Path, key: str) -> dict[str, Any] | None:
    with suppress(UserError):
        details = read_json(folder / "details.json", "the details of an evaluation", "Evaluate the run again")
        return details[key] if isinstance(details.get(key), dict) else None
    return None


def criterion(estimates: Mapping[str, Estimate]) -> dict[str, Any] | None:
    """Whether mean cosine(same) >= mean cosine(opposite), by how much, and whether that is beyond noise.

    None where there are no such pairs.
    """
    gap = estimates.get("gap_same_opposite")
    if gap is None or np.isnan(gap.value):
        return None
    low, high = map(float, gap.interval())
    return {
        "gap": gap.value, "low": low, "high": high, "passed": gap.value >= 0, "beyond_noise": gap.beyond_noise(),
    }  # fmt: skip


def emotion_cosines(folds: Sequence[FoldResult], most_seeds: int | None = None) -> np.ndarray | None:
    """Mean cosines (C, C) of classes, over the seeds and within folds; over these by their labelled frames.

    None where there are no embeddings of labelled frames.
    """
    known = [fold for fold in folds if len(fold.subset.labelled) and fold.outputs[0].z is not None]
    if not known:
        return None
    matrices = []
    for fold in known:
        subset, rows = fold.subset, fold.subset.labelled
        label, group = subset.label[rows], subset.group[rows]
        of_seeds = [cosine_matrix(o.z[rows], label, group, len(subset.classes)) for o in fold.outputs[:most_seeds]]
        matrices.append(np.mean(of_seeds, axis=0))
    frames = np.array([labelled_frames(fold.subset).sum() for fold in known])
    return averaged(np.stack(matrices), frames[:, None, None])


def _of_fold(fold: FoldResult) -> dict[str, Any]:
    """What a fold is by itself; its numbers are means over the seeds."""
    subset, once = fold.subset, np.ones((1, len(fold.subset.groups)))
    seeds = [measure(once) for measure, _ in fold.seeds]
    metrics = {name: float(np.mean([s[name][0] for s in seeds])) for name in seeds[0] if not is_detail(name)}
    facts = {"fold": fold.number, "val_videos": len(subset.videos), "val_groups": len(subset.groups)}
    return facts | {"labelled_frames": int(labelled_frames(subset).sum()), "metrics": metrics}


def _over_folds(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each metric over the folds; NaN where one of them does not have it."""
    each = {name: [of.get(name, np.nan) for of in metrics] for name in dict.fromkeys(n for of in metrics for n in of)}
    return {n: {"mean": float(np.mean(v)), "deviation": float(np.std(v, ddof=1))} for n, v in each.items()}


def confusion(subset: Subset, results: Sequence[SeedResult]) -> np.ndarray:
    """Mean numbers of frames (C, C) by true and predicted class, of ``best_source``."""
    source = best_source(results[0])
    predicted = [each.predictions[source][""][subset.labelled].argmax(1) for each in results]
    label = subset.label[subset.labelled]
    return np.mean([protocol.confusion(label, codes, len(subset.classes)) for codes in predicted], axis=0)


def is_detail(name: str) -> bool:
    """Whether a metric is in details.json alone, such as the F1 of one class or action unit."""
    return METRICS.entry(name).metric.detail


def _per_video(fold: FoldResult) -> pd.DataFrame:
    subset, of_seeds = fold.subset, []
    video, videos = subset.video, subset.videos
    if subset.clips is not None:
        video, videos = pd.factorize(subset.clips["video"])
    for outputs, (_, result) in zip(fold.outputs, fold.seeds, strict=True):
        measure = by_groups(subset, outputs.z, result, video)
        with np.errstate(invalid="ignore", divide="ignore"):
            some = [measure(weights) for weights in one_by_one(len(videos))]
        of_seeds.append({name: np.concatenate([values[name] for values in some]) for name in some[0]})
    scored = (subset.label >= 0) | ~np.isnan(subset.va).any(1) | (~np.isnan(subset.aus)).any(1)
    scored |= False if subset.outputs is None else (~np.isnan(subset.outputs)).any(1)
    group = np.array(subset.groups)[subset.group[np.unique(video, return_index=True)[1]]]
    of = {} if fold.number is None else {"fold": fold.number}
    table = {"video": videos, "group": group, **of, subset.unit: np.bincount(video, scored).astype(int)}
    means = {name: np.mean([each[name] for each in of_seeds], axis=0) for name in of_seeds[0] if not is_detail(name)}
    return pd.DataFrame(table | means)


def _per_class(
    subset: Subset, cosines: np.ndarray | None, results: Sequence[SeedResult], estimates: Mapping[str, Estimate]
) -> pd.DataFrame:
    label = subset.label[subset.labelled]
    table = pd.DataFrame({"class": subset.classes, subset.unit: np.bincount(label, minlength=len(subset.classes))})
    if (source := best_source(results[0])) and len(label):
        counts, prefix = confusion(subset, results), "knn_" if source == "knn" else ""
        with np.errstate(invalid="ignore"):
            table["precision"] = np.diag(counts) / counts.sum(0)
            table["recall"] = np.diag(counts) / counts.sum(1)
        for suffix in results[0].predictions[source]:
            of = [estimates[f"{prefix}f1_{c}{suffix}"] for c in subset.classes]
            table[f"f1{suffix}"] = [e.value for e in of]
            table[[f"f1{suffix}_low", f"f1{suffix}_high"]] = [e.interval() for e in of]
    if cosines is not None:
        table["cosine_to_own_class"] = np.diag(cosines)
    return table


def _predictions(subset: Subset, results: Sequence[SeedResult]) -> pd.DataFrame:
    """Every frame of the validation videos, or every clip; an empty truth has no label, and is not scored."""
    table = pd.DataFrame({"video": np.array(subset.videos, dtype=object)[subset.video], "frame": subset.frame})
    if subset.clips is not None:
        table = subset.clips.copy()
    if source := best_source(results[0]):
        names = np.array([*subset.classes, None], dtype=object)
        table["truth"] = names[subset.label]
        for suffix in results[0].predictions[source]:
            mean = np.mean([each.predictions[source][suffix] for each in results], axis=0).astype(np.float32)
            table[f"predicted{suffix}"] = names[np.where(np.isnan(mean).any(1), -1, mean.argmax(1))]
            table[[f"p_{c}{suffix}" for c in subset.classes]] = mean
    others = {"va": (["valence", "arousal"], subset.va), "aus": (subset.au_names, subset.aus)}
    for what, (names, truth) in (others | {"outputs": (subset.output_names, subset.outputs)}).items():
        if what in results[0].predictions:
            table[[f"{name}_truth" for name in names]] = truth
            for suffix in results[0].predictions[what]:
                mean = np.mean([each.predictions[what][suffix] for each in results], axis=0).astype(np.float32)
                table[[f"{name}{suffix}" for name in names]] = mean
    return table


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with whole(path) as file:
        table.to_csv(file, index=False)
