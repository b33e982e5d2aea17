"""What all seeds of a fold are trained on: frames, windows, features, and what stands before the head."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adapter import sources
from pipeline.adapter.adapter import Adapter, Source
from pipeline.adapter.backbone import BackboneOutputs, outputs_of_store
from pipeline.adapter.clips import OfClips, OfWindows, embed_clips, windows_of_clips
from pipeline.adapter.front import Front, Fronts
from pipeline.adapter.heads import HEADS
from pipeline.adapter.predictors import PREDICTORS
from pipeline.adapter.windows import Window, Windows, held
from pipeline.core import projection
from pipeline.core.clips import Clips
from pipeline.core.device import pick_device
from pipeline.core.emotions import opposites
from pipeline.core.files import load_facts
from pipeline.core.frame_set import PARTS, FrameSet, frame_set, held_names
from pipeline.core.numbering import common_step, numbered_alike
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, from_lists, joined, refuse_seen
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores, made_by_each
from pipeline.core.tables import Labels, weights_file
from pipeline.metrics.combine import check_logits
from pipeline.training import earlier
from pipeline.training.combinations import SELECT_BY, select_by_of, tracks_of
from pipeline.training.config import BACKBONE_STARTS, TrainConfig
from pipeline.training.earlier import Earlier
from pipeline.training.losses.build import WeightedSum, build_loss
from pipeline.training.messages import counts_of_parts
from pipeline.training.samplers import SAMPLERS
from pipeline.training.trunks import TRUNKS
from pipeline.training.watch import Watched, watched_frames

# Of the config, what changes neither which frames count nor what is read of them (``Kept``).
UNREAD = (
    "output", "name", "model", "model_options", "loss_options", "loss_weights", "sampler_options", "positives",
    "opposites", "epochs", "steps", "runs", "temperature", "margin", "window", "step", "edge", "fps", "pooling",
    "clip_windows", "clip_stride", "clip_pooling", "clip_top_k", "embedding_size", "dropout", "select_by", "keep",
    "au_threshold_folds", "patience", "look_every", "top_k", "batch_size", "optimizer", "learning_rate", "optim_betas",
    "weight_decay", "warm_up", "decay", "clip_norm", "precision", "modality_dropout", "combine", "combine_folds",
    "refit", "seed", "evaluate", "all",
)  # fmt: skip
WATCHED = 1000  # evenly spaced frames, or clips, of a part that are scored after each epoch
# Of the config, what it takes to use the adapter without it.
FACTS = (
    "model", "loss", "sampler", "temperature", "margin", "pooling", "embedding_size", "normalise", "reduce", "dropout",
    "positives", "batch_size", "optimizer", "learning_rate", "weight_decay", "epochs", "model_options", "loss_options",
    "loss_weights", "sampler_options", "augment", "test_split", "select_split", "split_seed",
    "refit",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingData:
    """What all seeds of a fold are trained on, and scored on after each epoch."""

    config: TrainConfig
    facts: dict[str, Any]
    frames: FrameSet
    frame_numbers: np.ndarray  # (N,) as if all videos had one step
    front: Front | Fronts
    source: Source
    views: list[str]
    device: torch.device
    windows: Windows
    rows: np.ndarray  # (W, T) of the training windows
    centres: np.ndarray  # (W,) of each, the frame whose labels are its own: that in its centre, or the clip's first
    watched: dict[str, Watched]  # by part
    opposites: list[tuple[int, int]]  # pairs of class numbers
    seen: dict[str, Seen]
    held_out: tuple[list[str], list[str]]  # groups and videos of the validation part
    store: FeatureStore | Stores
    backbone: BackboneOutputs  # those of its outputs that the run has classes or units for
    earlier: Earlier | None = None  # the run that it starts from
    trunk: Any = None  # the backbone, where it is trained too: an ``unfreeze.trunk.Trunk``
    earlier_backbone: Earlier | None = None  # the run whose backbone that starts as
    references: Watched | None = None  # training windows that neighbours and a probe know, where a backbone learns


class Kept:
    """What was read last, for the next config that has the same read: frames, projection and features.

    Of each one thing is kept, and let go before another is read, so that features lie in memory once.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, Any]] = {}

    def get(self, what: str, key: Any, read: Callable[[], Any]) -> Any:
        if what not in self._kept or self._kept[what][0] != key:
            self._kept.pop(what, None)
            self._kept[what] = key, read()
        return self._kept[what][1]


def load_data(
    config: TrainConfig, store: FeatureStore | Stores, labels: Labels | Clips, fold: int | None,
    kept: Kept | None = None,
) -> TrainingData:  # fmt: skip
    """Opens features and labels; prints how many frames each part has.

    With ``kept``, of the same store, labels and fold, it takes from there what was read of them for a config before.
    Raises ``UserError`` where the data cannot be trained on as ``config`` says.
    """
    device, views = pick_device(config.device), _views(config, store)
    kept, read = kept or Kept(), what_is_read(config)
    frames = kept.get("frames", read, lambda: _frames(config, store, labels, fold))
    if config.refit != "none" and frames.identity_set is not None:
        raise UserError(
            "refit trains on the selection part too, whose people are none of the run's classes: leave it out"
        )
    _refuse_select_by(config.select_by, frames, labels.dataset)
    _refuse_without_pairs(config.select_by, frames, labels.dataset)
    held_out = held_names(frames, labels, "val")
    front, fitted_on, vouched = kept.get("front", read, lambda: _front(config, store, frames, held_out, fold))
    common = common_step(frames.sequence, frames.frame)
    alike = numbered_alike(frames.sequence, frames.frame, common)
    window = Window(config.window, config.step, config.edge, common)
    windows = window.over(frames.sequence, frames.frame, frames.sequence_videos, config.fps)
    opposite = opposites(config.opposites, frames.classes) if frames.classes else []

    def watch(part: str) -> Watched:
        centres = watched_frames(frames, part, WATCHED)
        rows, of = windows_of(config, frames, windows, centres)
        clip = None if config.clip_rule is None else torch.from_numpy(of).to(device)
        return Watched(frames, centres, torch.from_numpy(rows).to(device), opposite, clip)

    watched = {part: watch(part) for part in ("select", "val")}
    key = (read, views, SAMPLERS[config.sampler].needs_embeddings)
    trunk = None
    if not config.trains_backbone:
        source = kept.get("source", key, lambda: _source(config, store, frames, front, device, views))
    else:
        trunk = TRUNKS["unfreeze"](config, store, frames, front, device)
        source = trunk.source
    train = frames.centres("train")
    rows, of = windows_of(config, frames, windows, train)
    if incomplete := held((rows >= 0).sum(axis=1), config.window, frames.video[train][of], frames.videos):
        print(incomplete)
    most = config.clip_windows or len(rows)
    drawn = np.minimum(np.bincount(of, minlength=len(train)), most)  # windows of each clip in an epoch
    facts = _facts(config, frames, labels.dataset, store, front, window, fold, np.repeat(train, drawn))
    backbone = outputs_of_store(store, frames.classes, frames.au_names)
    if config.combine != "none" and config.trains:
        _check_combination(config.combine, store, backbone, facts["predictors"], frames)
    facts["vouched"] = vouched
    of_backbones = _of_backbones(facts["made_by"], held_out, frames.names_of("select"))
    seen = _seen(config, frames) | fitted_on | of_backbones
    before = of_backbone = None
    if config.start is not None:
        before = earlier.load(config.start, facts, fold, config.alike, held_out, frames.names_of("select"))
        seen["start"] = before.seen
    if config.backbone_start not in BACKBONE_STARTS:
        of_backbone = earlier.load_backbones(Path(config.backbone_start), fold, held_out, frames.names_of("select"))
        seen["start"] = of_backbone.seen
    return TrainingData(
        config,
        facts,
        frames,
        alike,
        front,
        source,
        views,
        device,
        windows,
        rows,
        train[of],
        watched,
        opposite,
        seen,
        held_out,
        store,
        backbone,
        before,
        trunk,
        of_backbone,
        watch("train") if trunk is not None and frames.classes else None,
    )


def what_is_read(config: TrainConfig) -> dict[str, Any]:
    """What decides frames, projection and features, but for the views that the sampler takes."""
    fields = {name: value for name, value in vars(config).items() if name not in (*UNREAD, "loss", "sampler")}
    return fields | {"tracks": tracks_of(config.loss), "trains": config.trains}


def _frames(config: TrainConfig, store: FeatureStore | Stores, labels: Labels | Clips, fold: int | None) -> FrameSet:
    frames = frame_set(
        store, labels, tracks=tracks_of(config.loss), test_split=config.test_split,
        select_split=config.select_split, split_seed=config.split_seed,
    )  # fmt: skip
    print(counts_of_parts(frames, store, fold))
    return frames


def windows_of(
    config: TrainConfig, frames: FrameSet, windows: Windows, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (W, T) of the windows that ``centres`` (n,) are trained on or scored by, and which of them (W,)."""
    if config.clip_rule is None:
        return windows.centred(centres), np.arange(len(centres))
    return windows_of_clips(windows, frames.sequence, centres, config.clip_rule.stride)


def made_of(data: TrainingData, adapter: Adapter, centres: np.ndarray) -> OfWindows | OfClips:
    """What the adapter makes of frames, or of clips by their first frames: rows ``centres`` (n,), rising."""
    rows, of = windows_of(data.config, data.frames, data.windows, centres)
    around = torch.from_numpy(rows).to(data.device)
    if data.config.clip_rule is None:
        return OfWindows(adapter, adapter.embed(data.source, around))
    return embed_clips(adapter, data.source, around, torch.from_numpy(of).to(data.device))


def trained_on(data: TrainingData, rows: np.ndarray) -> TrainingData:
    """The same, with these rows (n,) of its frames as the training part."""
    part = np.full_like(data.frames.part, -1)
    part[rows] = PARTS.index("train")
    around, of = windows_of(data.config, data.frames, data.windows, rows)
    frames = dataclasses.replace(data.frames, part=part)
    return dataclasses.replace(data, frames=frames, rows=around, centres=rows[of])


def _refuse_select_by(select_by: str | None, frames: FrameSet, dataset: str) -> None:
    """Raises ``UserError`` where ``select_by`` is of people and the labels are not, or the other way round."""
    if select_by is None:
        return
    of_people = frames.identity_set is not None
    if SELECT_BY[select_by].source.identities != of_people:
        fitting = [name for name, entry in SELECT_BY.items() if entry.source.identities]
        have = f"people, and it may be {fitting}" if of_people else "no people (dataset.identities)"
        raise UserError(f"select_by '{select_by}' cannot be measured: the labels of data set '{dataset}' are {have}")


def _refuse_without_pairs(select_by: str | None, frames: FrameSet, dataset: str) -> None:
    """Raises ``UserError`` where ``select_by`` needs pairs that the label table names, and the selection part has none.

    An F1 at a logit of 0 needs same and different ones.
    """
    if select_by is None or not SELECT_BY[select_by].source.named_pairs:
        return
    pairs, same = frames.pairs_of("select")
    if not len(pairs):
        lacking = "none of them is in the selection part" if len(frames.pairs) else "names none"
        raise UserError(f"select_by '{select_by}' needs pairs, and of data set '{dataset}' the label table {lacking}")
    if select_by == "pair_f1" and (same.all() or not same.any()):
        kinds = "same" if same.all() else "different"
        raise UserError(f"select_by 'pair_f1' needs same and different pairs, and all of '{dataset}' are {kinds}")


def _check_combination(
    way: str, store: FeatureStore | Stores, backbone: BackboneOutputs, predictors: Mapping[str, Mapping[str, Any]],
    frames: FrameSet,
) -> None:  # fmt: skip
    """Says which classes have no partner. Raises ``UserError`` where nothing can be combined as ``way`` says."""
    check_logits(way, store)
    predicts = {PREDICTORS[of["kind"]].what for of in predictors.values()}
    both = [what for what in backbone.has if what in predicts]
    if not both or (way == "gate" and "classes" not in both):
        needs = "a class" if way == "gate" else "a class, valence and arousal, or an action unit"
        named = ", ".join(backbone.names[:10]) or "not named"
        raise UserError(f"combine '{way}' needs {needs} that both run and backbone predict; its outputs are {named}")
    if "classes" in both:
        strangers = [backbone.names[k] for k in backbone.strangers]
        lacking = [name for name, known in zip(frames.classes, backbone.known_classes, strict=True) if not known]
        if strangers:
            print(
                f"classes of the backbone that the run does not have, and that are never taken: {', '.join(strangers)}"
            )
        if lacking:
            print(f"classes without an output of the backbone, which the adapter alone predicts: {', '.join(lacking)}")


def _views(config: TrainConfig, store: FeatureStore | Stores) -> list[str]:
    """The views that are trained on, the original first; a view of another width is left out, and named.

    A backbone that is trained draws its own views. Raises ``UserError`` where views are asked for and the store has
    none.
    """
    if not config.trains or config.trains_backbone or not (config.augment or SAMPLERS[config.sampler].two_views):
        return ["original"]
    others = [name for name in store.views if name != "original"]
    views = ["original", *(name for name in others if store.widths[name] == store.num_features)]
    if len(views) < 2:
        asked = "augment" if config.augment else f"sampler '{config.sampler}'"
        raise UserError(
            f"{asked} needs augmented views of the frames, and {store.path} has the original alone: extract with "
            "--views 3, or with --data-aug for the mirrored image"
        )
    if left_out := [f"{name} ({store.widths[name]:,} columns)" for name in others if name not in views]:
        print(f"views of another width than the original's {store.num_features:,} are left out: {', '.join(left_out)}")
    return views


def _source(
    config: TrainConfig, store: FeatureStore | Stores, frames: FrameSet, front: Front | Fronts, device: torch.device,
    views: list[str],
) -> sources.InMemory | sources.FromDisk:  # fmt: skip
    """The features in memory where they fit, else from disk."""
    room = sources.allowance(device, config.memory_gb)
    source = sources.open_inputs(store, frames.row, front, device, views, room)
    if isinstance(source, sources.FromDisk):
        print(f"the features do not fit into {room / 1e9:.3g} GB (--memory-gb): they are read from disk in every epoch")
        if SAMPLERS[config.sampler].needs_embeddings:
            raise UserError(f"sampler '{config.sampler}' needs all features in memory: give --memory-gb or --reduce")
    return source


def _seen(config: TrainConfig, frames: FrameSet) -> dict[str, Seen]:
    """What the run is made with, by part.

    A run of 0 epochs takes no more of the training part than mean and deviation, or a projection. One that is refitted
    is trained on its selection part too.
    """
    trained = config.trains or config.normalise != "none" or (config.reduce and config.test_split is not None)
    parts = [*(["train"] if trained else []), *(["select"] if config.trains else []), "val"]
    return {part: Seen.of(*frames.names_of(*(_taught(config) if part == "train" else [part]))) for part in parts}


def _taught(config: TrainConfig) -> list[str]:
    """The parts that the weights of a finished run are from."""
    return ["train", "select"] if config.refit != "none" and config.trains else ["train"]


def _front(
    config: TrainConfig, store: FeatureStore | Stores, frames: FrameSet, held_out: tuple[list[str], list[str]],
    fold: int | None,
) -> tuple[Front | Fronts, dict[str, Seen], dict[str, str]]:  # fmt: skip
    """What stands before the head, what a projection of the reduce stage was fitted on, and what is vouched for."""
    rows = frames.stored_rows("train")
    if not isinstance(store, Stores):
        front, seen, vouched = _front_of(config, store, rows, config.projection, held_out, fold)
        return front, _fitted_on([seen]), {"the projection": vouched} if vouched else {}
    blocks, fitted_on, vouched = [], [], {}
    given = config.projection or [None] * len(store.stores)
    for number, (of, name, projected) in enumerate(zip(store.stores, store.names, given, strict=True)):
        own = store.own_rows(rows, number)
        if not (own >= 0).any():
            raise UserError(f"the store {of.path} has none of the {len(rows):,} training frames")
        front, seen, said = _front_of(config, of, own[own >= 0], projected, held_out, fold, to_unit=True)
        blocks.append(front)
        fitted_on.append(seen)
        vouched |= {f"the projection of {name}": said} if said else {}
    return Fronts(blocks), _fitted_on(fitted_on), vouched


def _fitted_on(each: Sequence[Seen | None]) -> dict[str, Seen]:
    """What any of the projections has seen; nothing where there is none."""
    known = [seen for seen in each if seen is not None]
    return {"projection": joined(known)} if known else {}


def _of_backbones(
    made_by: Mapping[str, Any], held_out: tuple[list[str], list[str]], select: tuple[list[str], list[str]]
) -> dict[str, Seen]:
    """What those of the backbones that were trained here have seen; nothing where there are none.

    Raises ``UserError`` where one was trained on what is held out or selected on now, or does not say on what.
    """
    found = []
    for _, of in made_by_each(made_by):
        if "trained_from" not in of:
            continue
        path = weights_file(of)
        way_out = (
            f"Weights of the same labels and split are wanted, as 'python -m pipeline.extraction.weights --backbone "
            f"{of['backbone']} --weights FILE' makes them of the backbone.safetensors of a training"
        )
        if not path.is_file():
            raise UserError(
                f"the weights of the trained backbone, which say what it was trained on, are not at {path}. {way_out}"
            )
        facts = load_facts(path, "the weights of a backbone", way_out)
        seen = from_lists(facts["seen"]) if "seen" in facts else None
        whose = f"the trained backbone {path}"
        refuse_seen(whose, seen, held_out, "validation", way_out)
        refuse_seen(whose, {"train": seen["train"]}, select, "selection", f"{way_out}, and of the same select_split")
        found += seen.values()
    return {"backbone": joined(found)} if found else {}


def _front_of(
    config: TrainConfig, store: FeatureStore, rows: np.ndarray, path: Path | None,
    held_out: tuple[list[str], list[str]], fold: int | None, to_unit: bool = False,
) -> tuple[Front, Seen | None, str]:  # fmt: skip
    """The front of one store, fitted on its training ``rows`` (n,): as ``_front``."""
    train = sources.Blocks(store, rows)
    components, seen, vouched = None, None, ""
    if config.reduce:
        components = projection.load(path, store.made_by, fold, config.alike)
    if components and config.test_split is not None:  # the stored one has seen frames that are now held out
        components = _fitted_again(train, len(components.components))
    elif components:
        fitted = None if components.seen is None else {"fitted": components.seen}
        way_out = f"Fit it again with 'python -m pipeline.extraction.reduce -d {store.path}'"
        refuse_seen(f"the projection {path}", fitted, held_out, "validation", way_out)
        seen, vouched = components.seen, components.vouched
    front = Front(store.num_features, len(components.components) if components else None)
    if components:
        front.project_with(components)
    front.fit(train, config.normalise, to_unit)
    return front, seen, vouched


def _fitted_again(train: sources.Blocks, num_components: int) -> projection.Projection:
    """Principal components of this training part, as many as the stored projection has, or as there are."""
    fitted = projection.fit(train, num_components)
    if (have := len(fitted.components)) < num_components:
        print(
            f"the projection is fitted again on this training part, whose {len(train.rows):,} frames have {have:,} of "
            f"its {num_components:,} components"
        )
    return fitted


def _facts(
    config: TrainConfig, frames: FrameSet, dataset: str, store: FeatureStore | Stores, front: Front | Fronts,
    window: Window, fold: int | None, centres: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """All that it takes to use the adapter without its command line; ``centres`` are those of an epoch's windows."""
    label = frames.label[centres]
    facts = {
        **{name: getattr(config, name) for name in FACTS},
        "window": dataclasses.asdict(window),
        **({} if config.clip_rule is None else {"clips": dataclasses.asdict(config.clip_rule)}),
        "tracks": tracks_of(config.loss),
        "classes": frames.classes,
        **({} if frames.identity_set is None else {"num_people": frames.num_learned}),
        "class_counts": np.bincount(label[label >= 0], minlength=len(frames.classes)).tolist() or None,
        "au_names": frames.au_names,
        "num_aus": len(frames.au_names) or None,
        **({"output_names": frames.output_names} if frames.output_names else {}),
        "num_features": store.num_features,
        "num_components": None if isinstance(front, Fronts) else _num_components(front),
        **(_facts_of_stores(config, store, front) if isinstance(store, Stores) else {}),
        "select_by": config.select_by
        or select_by_of(config.loss, HEADS[config.model].pairs, len(frames.pairs) > 0, frames.identity_set is not None),
        **({} if fold is None else {"fold": fold}),
        "trained_on": {
            "dataset": dataset,
            "videos": len(frames.names_of(*_taught(config))[1]),
            "groups": len(frames.names_of(*_taught(config))[0]),
            "frames": sum(len(frames.centres(part)) for part in _taught(config)),
        },
        "made_by": store.made_by,
    }
    return facts | {"predictors": loss_of(facts, config.embedding_size).trains}


def _num_components(front: Front) -> int | None:
    return len(front.components) if front.projects else None


def _facts_of_stores(config: TrainConfig, store: Stores, front: Fronts) -> dict[str, Any]:
    """What an adapter of several stores says of each; what made them is in ``made_by``."""
    each = zip(store.names, store.columns, front.blocks, strict=True)
    stores = [
        {"name": name, "columns": [of.start, of.stop], "num_components": _num_components(block)}
        for name, of, block in each
    ]
    return {"stores": stores, "modality_dropout": config.modality_dropout}


def loss_of(facts: dict[str, Any], embedding_size: int) -> WeightedSum:
    """The loss of a run, with its first weights where it has any."""
    return build_loss(
        facts["loss"], facts["loss_options"], facts["loss_weights"],
        num_classes=facts.get("num_people") or len(facts["classes"]) or None,
        num_aus=facts["num_aus"], num_outputs=len(facts.get("output_names", ())) or None,
        class_counts=facts["class_counts"], embedding_size=embedding_size, temperature=facts["temperature"],
        margin=facts["margin"],
    )  # fmt: skip
