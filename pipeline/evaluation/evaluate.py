"""The evaluate stage: what the embeddings and predictions of a trained run are worth on the validation part.

python -m pipeline.evaluation.evaluate --run runs/tcn_supcon
"""

import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.adapter import sources as features
from pipeline.adapter.adapter import Adapter, Source, checkpoints_of, load_adapter, trained_on_clips
from pipeline.adapter.backbone import outputs_of_store, stored_logits
from pipeline.adapter.clips import per_clip
from pipeline.adapter.inference import WINDOW_STRIDE, Some, judge, per_frame
from pipeline.adapter.own import own_features, own_store, seconds_of
from pipeline.adapter.pair_attention import PairsSeen, pairs_seen
from pipeline.adapter.windows import Windows
from pipeline.core.clips import Clips
from pipeline.core.device import pick_device
from pipeline.core.emotions import opposites
from pipeline.core.files import all_or_none
from pipeline.core.frame_set import FrameSet, frame_set, held_names, rows_of
from pipeline.core.join import (
    ALIKE_HELP,
    CLIPS,
    DATA_HELP,
    FRAMES,
    LABELS,
    frame_table,
    one_fold,
    open_labelled,
    stores_of_run,
    with_files,
)
from pipeline.core.numbering import numbered_alike
from pipeline.core.params import UserError, entry, option, parse
from pipeline.core.progress import Line
from pipeline.core.rates import FPS, frame_rates
from pipeline.core.seen import refuse_seen, some
from pipeline.core.store import ALIKE, FeatureStore
from pipeline.core.stores import Stores
from pipeline.core.tables import IDENTITY_SETS, KEY, STORE, Labels
from pipeline.evaluation import files
from pipeline.evaluation.costly import costs_of, named
from pipeline.evaluation.folds import FoldResult, pooled, together
from pipeline.metrics import combine, thresholds
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.identification import in_words
from pipeline.metrics.measures import (
    MetricOptions,
    Outputs,
    PairOutputs,
    Subset,
    compared_pairs,
    judged_frames,
    judged_partners,
    measured,
    smooth_subset,
)
from pipeline.metrics.retrieval import partner_ranks
from pipeline.metrics.smoothing import SMOOTHINGS, check_width
from pipeline.metrics.uncertainty import estimates, group_weights
from pipeline.metrics.vectors import evenly
from pipeline.metrics.verification import Score, counts_of

SUMMED = ("val_frames", "val_videos", "compared", "val_videos_new", "val_videos_gone")  # over folds
PART_WORDS = {"val": "validation", "test": "test"}
WAY_OUT = "Train it again, or evaluate it with the labels that it was trained with"


@dataclass(frozen=True)
class EvaluateConfig:
    """Section ``evaluate`` of params.yaml."""

    run: Path = option(Path("runs/manual"), help="the folder of the run")
    output: Path = option(Path("evaluation"), "-o", help="the folder for metrics.json and all else")
    data: Path | list[Path] | None = option(
        None, "-d", help=f"{DATA_HELP}; default: {STORE}, or the several that the run was trained on"
    )
    labels: Path | None = option(None, help=LABELS)
    clips: Path | None = option(None, help=CLIPS.replace("unit clip", "a run on clips"))
    frames: Path | None = option(None, help=FRAMES)
    alike: list[str] = option([], help=ALIKE_HELP, choices=ALIKE)
    part: str = option(
        "val", help="the part that is scored; nothing of a run is ever chosen on test", choices=PART_WORDS
    )
    top_k: list[int] = option(
        [1, 5, 10], "-k", help="recall is measured at these numbers of neighbours", within="[1, inf)"
    )
    neighbours: int = option(20, help="neighbours that vote on a frame's class", within="[1, inf)")
    most_pairs_of: int = option(
        4000, help="evenly spaced validation frames that are compared with each other", within="[1, 1_000_000]"
    )
    most_neighbours: int = option(
        20000, help="evenly spaced training frames that are candidates for neighbours", within="[1, inf)"
    )
    smoothing: str = option("box", help="how predictions are smoothed in time", choices=SMOOTHINGS)
    width: int | str = option(
        101, help="width of the smoothing: an odd number of frames, or seconds, such as 3.4s", within="[1, 1_000_000]"
    )
    width_aus: int | str = option(11, help="width of the smoothing of action units", within="[1, 1_000_000]")
    fps: float | Path | None = option(None, help=FPS)
    window_stride: int | None = option(None, help=WINDOW_STRIDE, within="[1, inf)")
    au_threshold: float | None = option(None, help=thresholds.HELP, within="(0, 1)")
    combine: str | None = option(None, help=combine.HELP, choices=combine.WAYS)
    class_bias: bool = option(
        False, help="add class biases to smoothed predictions; they are fitted on train for macro-F1"
    )
    opposites: list = option(["plutchik", "valence"], help="sets or pairs of opposite emotions")
    resamples: int = option(1000, help="resamples of whole groups, for the intervals", within="[1, 1_000_000]")
    timelines: int = option(3, help="validation videos that are drawn as a strip", within="[0, 1000]")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    all: bool = option(False, help="print every metric, not just the main ones")

    def __post_init__(self) -> None:
        if not self.top_k:
            raise UserError("evaluate: top_k must be one number or more")
        for name in ("width", "width_aus"):
            check_width(f"evaluate: {name}", getattr(self, name), self.fps)

    @property
    def metric_options(self) -> MetricOptions:
        return MetricOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(MetricOptions)})


@dataclass(frozen=True)
class FoldData:
    """What all seeds of a fold are evaluated on.

    ``rows`` (n,) are the frames of ``subset``, ``gallery`` (m,) are training frames, both as rows of ``frames``; of
    clips they are the first frames. ``combine`` is how predictions are combined with the backbone's.
    """

    store: FeatureStore | Stores
    frames: FrameSet
    rows: np.ndarray
    gallery: np.ndarray
    subset: Subset
    about: dict[str, Any]
    fold: int | None
    config: EvaluateConfig
    combine: str = "none"


def main(argv: Sequence[str] | None = None) -> None:
    config = with_data(parse(EvaluateConfig, argv, sections=["evaluate"], description=__doc__))
    refuse_other_part(config.part, [config.output])
    store, labels = opened(config)
    device = pick_device(config.device)
    folds = load_run(config.run, store, labels, config.alike)
    facts_of_all = [adapter.facts for adapters in folds for adapter in adapters]
    way = combine.way_of(config.run, store, config.combine, facts_of_all)
    data = [fold_data(config, store, labels, adapters, way) for adapters in folds]
    del labels  # 0.2 GB of three million frames
    outputs: list[list[Outputs]] = [[] for _ in folds]
    line = Line()
    for fold, adapters, of_seeds in zip(data, folds, outputs, strict=True):
        for adapter in adapters:
            done = sum(map(len, outputs))
            line.say(
                f"{config.run}: network {done + 1} of {sum(map(len, folds))}, {len(fold.rows):,} {fold.subset.unit}"
            )
            adapter.modules().to(device)
            source = inputs(fold, adapter, device)
            of_seeds.append(outputs_of(fold, adapter, source, device))
            if done == 0:
                attention = pairs_seen(adapter, source, windows_of(fold, adapter), fold.frames, config.part)
    line.end()
    facts = folds[0][0].facts
    about = {"run": config.run.name, "seeds": len(folds[0]), "seed": facts["seed"], "baseline": facts["epochs"] == 0}
    about["checkpoints"] = checkpoints_of(config.run)
    seconds = [of for file in _checkpoints(config.run) if (of := seconds_of(file.parent)) is not None]
    if seconds:
        about["hours"] = round(sum(seconds) / 3600, 3)
    report(config, data, outputs, about, attention)
    which = "" if config.all else "all metrics (or --all): "
    print(f"  {which}{config.output}/metrics.json; pictures: {config.output}/plots")


def with_data(config: EvaluateConfig) -> EvaluateConfig:
    """With the stores that the run was trained on, where none are given: of a trained backbone its own."""
    if config.data is not None:
        return config
    own = next((path for file in _checkpoints(config.run) if (path := own_features(file)) is not None), None)
    return dataclasses.replace(config, data=own or stores_of_run(config.run))


def _checkpoints(folder: Path) -> list[Path]:
    """The best checkpoint of each seed of a run, in the order of folds and seeds."""
    found = [*folder.glob("seed_*/best.safetensors"), *folder.glob("fold_*/seed_*/best.safetensors")]
    return sorted(found, key=lambda p: [int(place[5:]) for place in p.relative_to(folder).parts[:-1]])


def opened(config: EvaluateConfig) -> tuple[FeatureStore | Stores, Labels | Clips]:
    """The store, and the table by whose labels the run is evaluated: that of clips where it was trained on clips."""
    unit = "clip" if trained_on_clips(config.run) else "frame"
    if unit == "clip" and config.window_stride is not None:
        raise UserError(
            f"window_stride is for frames: {config.run} was trained on clips, with a clip_stride of its own"
        )
    config = with_files(config, config.data, "clips" if unit == "clip" else "labels")
    return open_labelled(config.data, config, config.frames, unit)


def refuse_other_part(part: str, folders: Sequence[Path]) -> None:
    """Raises ``UserError`` where a folder holds the evaluation of another part, which would be written over."""
    for folder in folders:
        about = files.read_about(folder)
        if about is not None and (there := about.get("part", "val")) != part:
            raise UserError(
                f"{folder} holds the numbers of the {PART_WORDS[there]} part: give another --output for the "
                f"{PART_WORDS[part]} part"
            )


def load_run(
    folder: Path, store: FeatureStore | Stores, labels: Labels | Clips, alike: Collection[str] = ()
) -> list[list[Adapter]]:
    """The trained adapters of a run: those of each fold, or of the only split, by seed; ``alike`` as ``load_adapter``.

    Raises ``UserError`` where there is none, where they are not of one kind, and where they are not of the folds that
    the labels are cut into, all with the same seeds.
    """
    paths = _checkpoints(folder)
    if not paths:
        raise UserError(f"no trained run in {folder}: seed_*/best.safetensors is what train.py makes")
    of_own = any(store.path == own_features(path) for path in paths)
    stores = [own_store(path) or store if of_own else store for path in paths]
    adapters = [load_adapter(path, of.made_by, alike) for path, of in zip(paths, stores, strict=True)]
    for path, of, adapter in zip(paths, stores, adapters, strict=True):
        adapter.facts["seed"] = int(path.parent.name[5:])
        adapter.facts["own_store"] = of if of_own else None
        first = adapters[0].facts
        for name in ("tracks", "classes", "test_split", "select_split", "split_seed"):
            if adapter.facts[name] != first[name]:
                raise UserError(f"{path} and {paths[0]} are of two runs: {name} {adapter.facts[name]}, {first[name]}")
    folds: dict[int | None, list[Adapter]] = {}
    for adapter in adapters:
        folds.setdefault(adapter.facts.get("fold"), []).append(adapter)
    if list(folds) != (labels.folds or [None]):
        have = "one split" if list(folds) == [None] else f"the folds {list(folds)}"
        wanted = f"the folds {labels.folds}" if labels.folds else "one split"
        raise UserError(
            f"{folder} has been trained on {have}, and the labels have {wanted}: train it again, or, if it was cut "
            f"off, go on with 'python train.py --resume {folder}'"
        )
    seeds = [[adapter.facts["seed"] for adapter in of] for of in folds.values()]
    if any(of != seeds[0] for of in seeds):
        raise UserError(
            f"{folder} does not have the same seeds in each fold: go on with 'python train.py --resume {folder}'"
        )
    return list(folds.values())


def fold_data(
    config: EvaluateConfig, store: FeatureStore | Stores, labels: Labels | Clips, adapters: Sequence[Adapter],
    way: str = "none",
) -> FoldData:  # fmt: skip
    """Frames, or clips, of the part that is scored, as the labels have it now, with every label the table has of them.

    ``adapters`` are those of one fold, ``way`` is how their predictions are combined. Raises ``UserError`` where the
    labels have other classes than they learned, where any of them has seen a group or a video of the part, and where
    there is no test part to be scored.
    """
    facts = adapters[0].facts
    fold = facts.get("fold")
    labels = one_fold(labels, fold)
    frames = frame_set(
        store, labels, tracks=facts["tracks"], test_split=facts["test_split"], select_split=facts["select_split"],
        split_seed=facts["split_seed"],
    )  # fmt: skip
    if frames.classes != facts["classes"]:
        table = f"the table of data set '{labels.dataset}'"
        raise UserError(f"{config.run} knows the classes {facts['classes']}, and {table} has {frames.classes}")
    if "aus" in adapters[0].predicts and frames.au_names != facts["au_names"]:
        table = f"the table of data set '{labels.dataset}'"
        raise UserError(f"{config.run} knows the units {facts['au_names']}, and {table} has {frames.au_names}")
    if frames.output_names != facts.get("output_names", []):
        raise UserError(
            f"{config.run} knows the outputs {facts.get('output_names', [])}, and the clip table of data set "
            f"'{labels.dataset}' has {frames.output_names}"
        )
    val = frames.centres(config.part)
    if not len(val):
        drawn_split = facts["test_split"] is not None
        why = "the split was drawn (--test-split)" if drawn_split else "the labels' official split has no test frames"
        raise UserError(f"{config.run} cannot be scored on a test part: {why}")
    held = held_names(frames, labels, config.part)
    for adapter in adapters:
        whose = f"{config.run}{'' if fold is None else f', fold {fold}'}, seed {adapter.facts['seed']}"
        refuse_seen(whose, adapter.seen, held, PART_WORDS[config.part], WAY_OUT)
    frames = _with_all_labels(frames, labels)
    rows = np.flatnonzero(np.isin(frames.video, frames.video[val])) if frames.clip is None else val
    scored = np.isin(rows, val)
    group = np.unique(frames.group[rows], return_inverse=True)[1]
    first_of = rows[np.unique(group, return_index=True)[1]]
    train = np.union1d(frames.centres("train"), frames.centres("select"))
    train = train[frames.label[train] >= 0] if (frames.label[train] >= 0).any() else train
    gallery = train[evenly(len(train), config.most_neighbours)]
    video, videos = np.unique(frames.sequence[rows], return_inverse=True)[1], np.unique(frames.sequence[rows])
    names = frames.videos if frames.clips is None else frames.clips["clip"].tolist()
    videos = [names[v] for v in videos]
    step = adapters[0].window.spacing
    subset = Subset(
        video=video,
        frame=frames.frame[rows],
        number=numbered_alike(frames.sequence, frames.frame, step)[rows],
        group=group,
        label=np.where(scored, frames.label[rows], -1),
        va=np.where(scored[:, None], frames.va[rows], np.nan),
        aus=np.where(scored[:, None], frames.aus[rows], np.nan),
        videos=videos,
        groups=[frames.videos[frames.video[row]] for row in first_of],
        classes=frames.classes,
        au_names=frames.au_names,
        step=step,
        opposites=opposites(config.opposites, frames.classes) if frames.classes else [],
        gallery_label=frames.label[gallery],
        pairs=_pairs(frames, rows, scored, labels),
        fps=frame_rates(config.fps, videos, video) if frames.clips is None else None,
        outputs=frames.outputs[rows],
        output_names=frames.output_names,
        clips=None if frames.clips is None else frames.clips.iloc[frames.clip[rows]].reset_index(drop=True),
        identity_set=None if frames.identity_set is None else np.where(scored, frames.identity_set[rows], -1),
    )
    if subset.identity_set is not None and not (subset.identity_set == IDENTITY_SETS.index("query")).any():
        raise UserError(
            f"{config.run} cannot be scored on the {PART_WORDS[config.part]} part: there is no query person in it; "
            "identification is measured among people of the validation part (dataset.query_people)"
        )
    about = _about(config, facts, labels, subset, len(val), len(train))
    if "aus" in adapters[0].predicts:
        about["au_thresholds"] = _about_thresholds(config, adapters)
    if way != "none":
        of = {} if fold is None else {"fold": fold}
        words = [combine.in_words([adapter.facts], way) for adapter in adapters]
        seeds = [{"seed": adapter.facts["seed"]} | of for adapter in adapters]
        about["combine"] = [each | {"way": way, "words": said} for each, said in zip(seeds, words, strict=True)]
    if vouched := {k: said for adapter in adapters for k, said in adapter.facts["vouched"].items()}:
        about["vouched"] = vouched
    if frames.clips is not None:
        about |= {"unit": "clip", "clips": facts["clips"], "val_videos": subset.clips["video"].nunique()}
        about["clips_left_out"] = _left_out(frames, labels, config.part, facts["test_split"])
    if config.part == "val":
        about |= _since(adapters[0], frames)
    if adapters[0].head.pairs:
        most, width = config.most_pairs_of, adapters[0].head.num_channels
        frames_judged, pairs_judged = (len(of(subset, most, width)) for of in (judged_frames, judged_partners))
        about["judged"] = {"frames": frames_judged, "pairs": pairs_judged}
    return FoldData(store, frames, rows, gallery, subset, about, fold, config, way)


def _about_thresholds(config: EvaluateConfig, adapters: Sequence[Adapter]) -> dict[str, Any]:
    """From which probabilities action units are called active: in words, and of each seed by unit."""
    words = thresholds.in_words([adapter.facts.get("thresholds_of") for adapter in adapters], config.au_threshold)
    used = [np.broadcast_to(thresholds_of(config, adapter), len(adapter.facts["au_names"])) for adapter in adapters]
    names = adapters[0].facts["au_names"]
    of_units = {name: [round(float(of_seed[k]), 4) for of_seed in used] for k, name in enumerate(names)}
    return {"which": words, "of_seeds": of_units}


def _left_out(frames: FrameSet, labels: Clips, part: str, test_split: float | None) -> list[str]:
    """The clips of a part that have no feature, so that they are not scored; of all parts where the cut is drawn."""
    absent = labels.table[labels.table["clip"].isin(frames.clips_without_features)]
    if test_split is None and "split" in absent:
        absent = absent[absent["split"] == part]
    return absent["clip"].tolist()


def _since(adapter: Adapter, frames: FrameSet) -> dict[str, int]:
    """How many validation videos were not in that part when the run was trained, and how many of then are gone."""
    if "val" not in (adapter.seen or {}):
        return {}
    videos = frames.names_of("val")[1]
    known = len(adapter.seen["val"].known([], videos)[1])
    return {"val_videos_new": len(videos) - known, "val_videos_gone": len(adapter.seen["val"].videos) - known}


def _with_all_labels(frames: FrameSet, labels: Labels | Clips) -> FrameSet:
    """With those labels of the label table that the run's own tracks lack. The parts stay as they are."""

    def named_in_table(columns: list[str]) -> pd.DataFrame:
        if frames.clips is not None:
            return labels.table.set_index("clip")[columns].loc[frames.clips["clip"].iloc[frames.clip]]
        keys = pd.DataFrame({"video": np.array(frames.videos, dtype=object)[frames.video], "frame": frames.frame})
        return keys.merge(labels.table[[*KEY, *columns]], on=KEY, how="left")[columns]

    lacking: dict[str, Any] = {}
    if not frames.label_names and labels.classes and "expression" in labels.table:
        named = named_in_table(["expression"])["expression"]
        label = pd.Categorical(named, categories=labels.classes).codes.astype(np.int64)
        lacking |= {"label": label, "classes": labels.classes}
    units = [c for c in labels.table if re.fullmatch(r"au\d+", c)]
    absent = {
        "va": ["valence", "arousal"] if np.isnan(frames.va).all() else [],
        "aus": [] if frames.au_names else units,
    }
    for name, columns in absent.items():
        if columns and set(columns) <= set(labels.table):
            lacking[name] = named_in_table(columns).to_numpy(dtype=np.float32, na_value=np.nan)
    if "aus" in lacking:
        lacking["au_names"] = units
    return dataclasses.replace(frames, **lacking)


def _pairs(frames: FrameSet, rows: np.ndarray, scored: np.ndarray, labels: Labels | Clips) -> np.ndarray | None:
    """Places (P, 2) in ``rows`` of the two sides of each pair of the same; None where the labels have no pairs."""
    if frames.clips is not None or not {"pair", "side"} <= set(labels.table):
        return None
    keys = pd.DataFrame({"video": np.array(frames.videos, dtype=object)[frames.video[rows]]})
    keys = keys.assign(frame=frames.frame[rows], place=np.arange(len(rows)))[scored]
    table = keys.merge(labels.table, on=KEY)
    table = table[table["same"] == 1] if "same" in table else table
    sides = table.pivot(index="pair", columns="side", values="place").reindex(columns=["left", "right"]).dropna()
    return sides.to_numpy(dtype=np.int64)


def inputs(data: FoldData, adapter: Adapter, device: torch.device) -> Source:
    """Inputs for the windows that hold the frames of the subset and of the gallery.

    Where each frame has its own window, training frames that are in none are not read; of clips only the clips' own.
    """
    frames, stride = data.frames, data.config.window_stride
    store, row = data.store, frames.row
    if (own := adapter.facts.get("own_store")) is not None:
        store, row = own, _rows_in(own, frames)
    if frames.clip is not None:
        kept = np.flatnonzero(np.isin(frames.clip, frames.clip[np.concatenate([data.rows, data.gallery])]))
        return Some(features.open_inputs(store, row[kept], adapter.front, device), kept, len(row))
    if stride is not None and not adapter.head.framewise:
        return features.open_inputs(store, row, adapter.front, device)
    around = windows_of(data, adapter).centred(data.gallery)
    kept = np.union1d(data.rows, around[around >= 0])  # of the subset's videos all frames are rows
    return Some(features.open_inputs(store, row[kept], adapter.front, device), kept, len(row))


def _rows_in(store: FeatureStore, frames: FrameSet) -> np.ndarray:
    """Where all frames (N,) lie in the features of one seed. Raises ``UserError`` where it lacks any."""
    rows = rows_of(store, frames)
    if (rows < 0).any():
        raise UserError(f"{store.path} lacks {int((rows < 0).sum()):,} frames that another seed has: train it again")
    return rows


def windows_of(data: FoldData, adapter: Adapter) -> Windows:
    """The windows of all frames, by the adapter's window."""
    frames = data.frames
    return adapter.window.over(frames.sequence, frames.frame, frames.sequence_videos, data.config.fps)


def outputs_of(data: FoldData, adapter: Adapter, source: Source, device: torch.device) -> Outputs:
    """The outputs of an adapter on the device for the frames of the subset, by the windows that hold them."""
    windows, stride = windows_of(data, adapter), data.config.window_stride
    each = (
        per_frame(adapter, source, windows, rows, stride, device)
        if data.frames.clip is None
        else per_clip(adapter, source, windows, data.frames.sequence, rows, device)
        for rows in (data.rows, data.gallery)
    )
    (z, predictions), (gallery_z, of_gallery) = each
    pair_head = _pair_outputs(data, adapter, source, device) if adapter.head.pairs else None
    cut, combined = thresholds_of(data.config, adapter), {}
    if data.combine != "none":
        combined = {"combined": combined_predictions(data, adapter, predictions)}
        combined["combined_thresholds"] = combined_thresholds_of(data, adapter)
    return Outputs(z, gallery_z, predictions, of_gallery.get("classes"), pair_head, cut, **combined)


def combined_predictions(
    data: FoldData, adapter: Adapter, predictions: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Predictions combined with the backbone's, smoothed, and with class biases, as the adapter's file says."""
    fitted = combine.fitted_of(adapter.facts, data.combine)
    found = combine.combine(fitted, predictions, own_predictions(data))
    smoothed = {what: smooth_subset(data.subset, of, "box", fitted[what].width) for what, of in found.items()}
    return {what: combine.decided(fitted[what], of) for what, of in smoothed.items()}


def combined_thresholds_of(data: FoldData, adapter: Adapter) -> np.ndarray | float:
    """The probabilities (A,) from which action units are called active in combined predictions, or one for all."""
    fitted = combine.fitted_of(adapter.facts, data.combine)
    if data.config.au_threshold is not None or "aus" not in fitted:
        return thresholds_of(data.config, adapter)
    return np.array(fitted["aus"].thresholds)


def own_predictions(data: FoldData) -> dict[str, np.ndarray]:
    """What the backbone itself predicts of the subset's frames, as ``BackboneOutputs.of``; of clips of their means."""
    frames, subset = data.frames, data.subset
    outputs = outputs_of_store(data.store, subset.classes, subset.au_names)
    if not outputs.has:
        return {}
    if frames.clip is None:
        return outputs.of(stored_logits(data.store, frames.row[data.rows]))
    rows = np.flatnonzero(np.isin(frames.clip, frames.clip[data.rows]))
    stored, place = np.unique(frames.row[rows], return_inverse=True)  # a frame may be in two clips
    values = data.store.read(stored, "logits").astype(np.float64)[place]
    starts = np.flatnonzero(np.diff(frames.clip[rows], prepend=-1))
    return outputs.of(np.add.reduceat(values, starts) / np.diff(np.append(starts, len(rows)))[:, None])


def thresholds_of(config: EvaluateConfig, adapter: Adapter) -> np.ndarray | float:
    """The probabilities (A,) from which action units are called active, or one for all."""
    if config.au_threshold is not None:
        return config.au_threshold
    own = adapter.au_thresholds
    return thresholds.DEFAULT if own is None else own.cpu().numpy()


def _pair_outputs(data: FoldData, adapter: Adapter, source: Source, device: torch.device) -> PairOutputs:
    """Logits of a head for pairs: of the frames whose cosines are compared, and of the pairs that the table names."""
    frames, subset, most = data.frames, data.subset, data.config.most_pairs_of
    windows = windows_of(data, adapter)

    def logits_of(places: np.ndarray) -> Score:
        return judge(adapter, source, windows, data.rows[places], device)

    some, counts = judged_frames(subset, most, adapter.head.num_channels), None
    if len(some):
        label, group = subset.label[some], subset.group[some]
        counts = counts_of(logits_of(some), label, group, len(subset.classes), subset.opposites, looked_at=64)
    left, right = compared_pairs(subset, most).T
    score, queries = logits_of(np.concatenate([left, right])), judged_partners(subset, most, adapter.head.num_channels)
    ranks = partner_ranks(lambda a, b: score(a, b + len(left)), len(left), queries)
    named, same = frames.pairs_of(data.config.part)
    sides = (torch.from_numpy(windows.centred(rows)) for rows in named.T)
    logits = adapter.compare(source, *(rows.to(device) for rows in sides)).cpu().numpy()
    group = subset.group[np.searchsorted(data.rows, named[:, 0])]
    return PairOutputs(counts, queries, ranks, logits, same, group)


def report(
    config: EvaluateConfig, data: Sequence[FoldData], outputs: Sequence[Sequence[Outputs]], about: dict[str, Any],
    attention: PairsSeen | None = None,
) -> None:  # fmt: skip
    """Measures all seeds of all folds, writes the files and prints the numbers; ``about`` is what the run is.

    ``attention`` is that of the first seed of the first fold, where the head weighs places.
    """
    options = config.metric_options
    if data[0].subset.clips is not None:
        options = dataclasses.replace(options, smoothing="none", width=1, width_aus=1)
    folds = [
        FoldResult(of.fold, of.subset, of_seeds, [measured(of.subset, o, options) for o in of_seeds])
        for of, of_seeds in zip(data, outputs, strict=True)
    ]
    about = _about_all(data) | about
    if config.part == "test" and len(folds) > 1:  # the same frames for all networks, which so are as further seeds
        outputs_of_all = [of_seed for fold in folds for of_seed in fold.outputs]
        folds = [FoldResult(None, folds[0].subset, outputs_of_all, [seed for fold in folds for seed in fold.seeds])]
        about["seeds"] = len(outputs_of_all)
    subsets = [fold.subset for fold in folds]
    subset = together(subsets)
    seeds = [pooled(subsets, of_seed) for of_seed in zip(*(fold.seeds for fold in folds), strict=True)]
    if seeds[0][1].identity is not None:
        about["identification"] = seeds[0][1].identity.facts()
    weights = group_weights(len(subset.groups), config.resamples)
    estimated = estimates(about["run"], [measure for measure, _ in seeds], weights)
    costs = costs_of(subset, [result for _, result in seeds])
    with all_or_none(config.output, files.NAME) as folder:
        files.write(folder, subset, folds, seeds, estimated, about, costs)
        (folder / "plots").mkdir()
        # Here: matplotlib and OpenCV take most of a second to import.
        from pipeline.core.pictures import pictures_of
        from pipeline.evaluation import drawing, shown

        thumbnails = pictures_of(frame_table(config.data, config.frames))
        timelines = config.timelines if subset.clips is None else 0
        pictures = drawing.drawn(
            subset, folds, seeds[0][1], estimated, about, None if costs is None else named(subset, costs), thumbnails,
            timelines, attention,
        )  # fmt: skip
        for name, figure in pictures:
            figure.savefig(folder / "plots" / f"{name}.png")
        videos = drawing.chosen_videos(subset, timelines)
        shown.write(folder / shown.FILE, shown.collected(subset, folds, seeds[0][1], videos, thumbnails, attention))
    if attention is not None and (line := attention.left_out(attention.readable(thumbnails)[0])):
        print(line)
    scored = ", ".join(f"{count:,} {what}" for what, count in about["frames_scored"].items())
    of_folds = f", {about['val_split']}" if len(data) > 1 else ""
    which = "test " if config.part == "test" else ""
    print(
        f"{about['run']}: scored on {scored} {subset.unit} of {about['val_videos']} {which}videos ({about['dataset']}"
        f"{of_folds}); "
        f"intervals by {config.resamples:,} resamples of {len(subset.groups)} groups"
    )
    if of := about.get("identification"):
        print(f"  {in_words(of)}")
    if absent := about.get("clips_left_out"):
        print(f"  not scored, as they have no features: {len(absent):,} clips ({some(absent)})")
    if about.get("val_videos_new") or about.get("val_videos_gone"):
        print(
            f"  not the validation part of its training: {about['val_videos_new']:,} videos are new, and "
            f"{about['val_videos_gone']:,} are gone; the run has seen none of them"
        )
    if about.get("au_thresholds"):
        print(f"  action units count as active from a probability {about['au_thresholds']['which']}")
    for of in about.get("combine") or []:
        which = f"seed {of['seed']}" + (f" of fold {of['fold']}" if "fold" in of else "")
        print(f"  combined with the backbone, {which}: {of['words']}")
    for whose, said in about.get("vouched", {}).items():
        print(f"  alike by your word (--alike), {whose} and the store: {said}")
    known = [name for name, e in estimated.items() if not np.isnan(e.value) and not files.is_detail(name)]
    for name in known if config.all else [name for name in METRICS.shown("terminal") if name in known]:
        low, high = estimated[name].interval()
        beside = "" if about["baseline"] or config.all else _baseline(config, about, name)
        print(
            f"  {name:28} {estimated[name].value:.3f}"
            + ("" if np.isnan(low) else f"  {low:.3f} to {high:.3f}")
            + (f"  best baseline {beside}" if beside else "")
        )


def _baseline(config: EvaluateConfig, about: dict[str, Any], metric: str) -> str:
    """The best baseline that is known in a metric, on the same frames: '.712 of pca'; nothing where there is none."""
    places = [config.output.parent, Path("evaluation"), Path("evaluation/baselines")]
    same = ("dataset", "part", "backbone", "input_size", "val_split", "val_frames", "val_videos")
    values = []
    for folder in sorted({path.parent for place in places for path in place.glob("*/details.json")}):
        there, value = files.read_about(folder), files.read_value(folder, metric)
        if there and there.get("baseline") and value is not None and all(there.get(k) == about.get(k) for k in same):
            values.append((value, there["run"]))
    best = min if METRICS.entry(metric).metric.better == "lower" else max
    return "{:.3f} of {}".format(*best(values)) if values else ""


def _about(
    config: EvaluateConfig, facts: dict[str, Any], labels: Labels | Clips, subset: Subset, num_val: int, num_train: int
) -> dict[str, Any]:
    split = facts["test_split"]
    scored = frames_scored(subset, facts["tracks"])
    return {
        "dataset": labels.dataset,
        "backbone": facts["made_by"]["backbone"],
        "backbone_weights": facts["made_by"].get("trained_from", facts["made_by"]["source"]),
        **({"trained_weights": facts["made_by"]["source"]} if "trained_from" in facts["made_by"] else {}),
        "input_size": facts["made_by"]["input_size"],
        **{k: facts[k] for k in ("model", "loss", "sampler", "temperature", "pooling", "epochs", "reduce")},
        "window": facts["window"]["frames"],
        "part": config.part,
        "val_split": "official" if split is None else f"{split} of the groups, drawn with seed {facts['split_seed']}",
        "train_frames": num_train,
        "val_frames": num_val,
        "val_videos": len(subset.videos),
        "frames_scored": scored,
        "compared": min(len(subset.labelled), config.most_pairs_of),
        "knn_candidates": len(subset.gallery_label),
        "neighbours": config.neighbours,
        "smoothing": {
            "kind": config.smoothing,
            "width": config.width,
            "width_aus": config.width_aus,
            "fps": config.fps.as_posix() if isinstance(config.fps, Path) else config.fps,
        },
        "window_stride": config.window_stride,
        "class_bias": config.class_bias,
        "opposites": [[subset.classes[a], subset.classes[b]] for a, b in subset.opposites],
        "commit": commit(),
    }


def frames_scored(subset: Subset, whats: Collection[str]) -> dict[str, int]:
    """How many frames have a label of each kind; of VA and action units only where ``whats`` has 'va' and 'aus'."""
    scored = {"expression": len(subset.labelled)}
    if "va" in whats:
        scored["valence and arousal"] = int((~np.isnan(subset.va).any(1)).sum())
    if "aus" in whats:
        scored["action unit"] = int((~np.isnan(subset.aus)).any(1).sum())
    if "outputs" in whats:
        scored["continuous"] = int((~np.isnan(subset.outputs)).any(1).sum())
    if subset.identity_set is not None:
        scored["identity"] = int((subset.identity_set >= 0).sum())
    if subset.pairs is not None:
        scored["paired"] = 2 * len(subset.pairs)
    return {what: count for what, count in scored.items() if count}


def _about_all(data: Sequence[FoldData]) -> dict[str, Any]:
    """The facts of all folds together: counts are sums over them, those of training frames are means."""
    about = [of.about for of in data]
    if len(about) == 1:
        return about[0]
    if "au_thresholds" in about[0]:
        of_seeds = [of["au_thresholds"]["of_seeds"] for of in about]
        of_units = {unit: [value for of in of_seeds for value in of[unit]] for unit in of_seeds[0]}
        about[0] = about[0] | {"au_thresholds": about[0]["au_thresholds"] | {"of_seeds": of_units}}
    if "combine" in about[0]:
        about[0] = about[0] | {"combine": [each for of in about for each in of["combine"]]}
    if data[0].config.part == "test":
        return about[0] | {"val_split": f"official test part, by the networks of each of {len(about)} folds"}
    scored = Counter()
    for of in about:
        scored.update(of["frames_scored"])
    judged = [of["judged"] for of in about if "judged" in of]
    return about[0] | {
        "folds": len(about),
        **({"judged": {what: sum(of[what] for of in judged) for what in judged[0]}} if judged else {}),
        "val_split": f"{len(about)} folds by group",
        **{name: sum(of[name] for of in about) for name in SUMMED if name in about[0]},
        **{name: round(np.mean([of[name] for of in about])) for name in ("train_frames", "knn_candidates")},
        "frames_scored": dict(scored),
        **({"clips_left_out": sorted({c for of in about for c in of["clips_left_out"]})} if "unit" in about[0] else {}),
    }


def commit() -> str | None:
    """The commit of the working tree here, '+' behind it where files were changed since; None without git."""
    words = ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    entry(main)
