"""What a run is trained with: section ``train`` of params.yaml, a run's own section, and the command line on top."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.adapter.clips import POOLINGS as CLIP_POOLINGS
from pipeline.adapter.clips import ClipRule
from pipeline.adapter.front import NORMALISATIONS
from pipeline.adapter.heads import HEADS
from pipeline.adapter.heads.build import build_head
from pipeline.adapter.pooling import POOLINGS
from pipeline.adapter.windows import EDGES, Window
from pipeline.core.files import read_json, write_json
from pipeline.core.join import ALIKE_HELP, CLIPS, DATA_HELP, FRAMES, LABELS, UNITS
from pipeline.core.params import UserError, build, one_of, option, parse, read
from pipeline.core.rates import FPS
from pipeline.core.store import ALIKE
from pipeline.core.stores import each_store
from pipeline.core.tables import STORE
from pipeline.metrics.combine import WAYS
from pipeline.training.combinations import SELECT_BY, Combination, names_of, refuse_combination, without_effect
from pipeline.training.loop import DECAYS, MOMENTUM, OPTIMIZERS, PRECISIONS
from pipeline.training.losses import LOSSES
from pipeline.training.losses.build import LOSS_WEIGHTS, build_loss
from pipeline.training.positives import POSITIVES
from pipeline.training.samplers import SAMPLERS
from pipeline.training.samplers.build import options_of

BATCH_NORMS = ("frozen", "train")
BACKBONE_STARTS = ("weights", "random")  # anything else is a run
REFITS = ("none", "best", "all")
KEPT = ("best", "last")


@dataclass(frozen=True)
class TrainConfig:
    """Section ``train`` of params.yaml, with a run's own changes on top."""

    data: Path | list[Path] = option(STORE, "-d", help=DATA_HELP)
    labels: Path | None = option(None, help=LABELS)
    unit: str = option("frame", help="what has a label, and is scored: each frame, or a whole clip", choices=UNITS)
    clips: Path | None = option(None, help=CLIPS)
    frames: Path | None = option(None, help=FRAMES)
    output: Path = option(Path("runs/manual"), "-s", help="the folder of runs that this one is put into")
    name: str | None = option(None, help="the run's folder; default: model, loss and sampler")
    model: str = option("mlp", help="the head", choices=HEADS)
    model_options: dict = option({}, help="more arguments of the head, such as {num_layers: 2}")
    loss: str | dict = option("contrastive_cross_entropy", help="the loss, or a sum such as {arcface: 1, triplet: 0.5}")
    loss_options: dict = option({}, help="more arguments of the losses, such as {mining: semi_hard}")
    loss_weights: str = option(
        "fixed",
        help="weights in a sum of losses; learned: by uncertainty, starting from those given",
        choices=LOSS_WEIGHTS,
    )
    sampler: str = option("balanced", help="what a batch is made of", choices=SAMPLERS)
    sampler_options: dict = option({}, help="more arguments of the sampler, such as {refresh_every: 5}")
    augment: bool = option(False, help="train on the store's augmented views too; the view of a window is random")
    positives: str = option("any", help="which frames of one class may be a positive pair", choices=POSITIVES)
    opposites: list = option(["plutchik", "valence"], help="sets or pairs of opposite emotions")
    unfreeze: int | str | None = option(
        None,
        help="train the last n stages of the backbone with the head, or all of it; default: it stays frozen "
        "(docs/unfreeze.md)",
        within="[1, inf)",
    )
    lora: int | None = option(
        None,
        help="instead of unfreeze: train low-rank updates of this rank of a transformer's attention with the head",
        within="[1, inf)",
    )
    maps: Path | None = option(
        None, help="with unfreeze: train from this store of maps (extract.py --maps) instead of pixels"
    )
    batch_norm: str = option(
        "frozen", help="with unfreeze: the statistics of the backbone's batch norms", choices=BATCH_NORMS
    )
    backbone_rate: float = option(
        0.1,
        help="with unfreeze or lora: the learning rate of the backbone's last layer, as a share of the head's",
        within="(0, inf)",
    )
    layer_decay: float = option(
        0.75, help="with unfreeze or lora: the rate of a layer, as a share of that of the next one", within="(0, 1]"
    )
    slice_gb: float = option(
        2.0,
        help="with unfreeze or lora: memory for the frames that go through the backbone at a time",
        within="(0, inf)",
    )
    backbone_start: str = option(
        "weights",
        help="with unfreeze or lora: how the backbone starts. weights: those that made the store; random: drawn from "
        "the seed; the folder of such a run: its trained backbone, of the same seed or of its only one",
    )
    start: Path | None = option(
        None,
        help="a trained run whose head training starts from: that of the same seed, or of its only one",
    )
    epochs: int | None = option(
        10,
        "-e",
        help="passes over the data, as the sampler defines them; 0: the head stays untrained",
        within="[0, 1_000_000]",
    )
    steps: int | None = option(
        None, help="steps of the optimiser, instead of epochs; the last epoch is cut short", within="[1, 1_000_000_000]"
    )
    runs: int = option(
        1, "-r", help="seeds to train, from --seed on; their mean and deviation are the result", within="[1, 1000]"
    )
    temperature: float = option(15.0, "-t", help="scale on cosines in the loss")
    margin: float | None = option(None, help="margin of the loss, where it has one; default: the loss's own")
    window: int = option(15, help="frames in a window around each labelled frame", within="[1, 100_000]")
    step: int | str | None = option(
        None,
        help="distance of frames in a window: frame numbers, or seconds, such as 0.04s; default: each video's own",
        within="[1, 1_000_000]",
    )
    edge: str = option("mask", help="what a window holds beyond the ends of a video", choices=EDGES)
    fps: float | Path | None = option(None, help=FPS)
    pooling: str = option("mean", help="a window's embedding: mean of its frames, or its centre", choices=POOLINGS)
    clip_windows: int | None = option(
        None, help="with unit clip: windows that an epoch draws from a clip; default: all", within="[1, inf)"
    )
    clip_stride: int | None = option(
        None, help="with unit clip: frames from one window to the next; default: half a window", within="[1, inf)"
    )
    clip_pooling: str = option(
        "logits", help="with unit clip: how a clip's windows become one prediction", choices=CLIP_POOLINGS
    )
    clip_top_k: int = option(3, help="with clip_pooling top_k: windows that count for a class", within="[1, inf)")
    embedding_size: int = option(128, help="columns of an embedding", within="[1, 65_536]")
    dropout: float = option(0.4, help="dropout in the head", within="[0, 1)")
    normalise: str = option(
        "centre",
        help="how the head's inputs are normalised, by the statistics of training frames",
        choices=NORMALISATIONS,
    )
    reduce: bool = option(True, help="project the features with --projection first")
    projection: Path | list[Path] | None = option(
        None, help="the projection of each store, by the reduce stage; default: the one beside it"
    )
    modality_dropout: float = option(
        0.0, help="with several stores: chance that training hides a store from a window; never all", within="[0, 1)"
    )
    alike: list[str] = option([], help=ALIKE_HELP, choices=ALIKE)
    test_split: float | None = option(
        None, help="hold out this share of the groups, instead of the official validation split", within="(0, 1)"
    )
    select_split: float = option(
        0.15, help="share of the training groups on which the best epoch is chosen", within="[0, 1)"
    )
    split_seed: int = option(
        0, help="seed of these two splits; the training seed does not change them", within="[0, 4_294_967_294]"
    )
    select_by: str | None = option(
        None, help="measure that chooses the best epoch; default: by the loss", choices=SELECT_BY
    )
    keep: str = option(
        "best",
        help="the epoch whose weights the run has: the best on the selection part, or the last, which needs no labels",
        choices=KEPT,
    )
    au_threshold_folds: int | None = option(
        5,
        help="number of further networks to fit the thresholds of action units: each is trained without a part of the "
        "training groups, and predicts that part; null: 0.5 for all units",
        within="[2, 100]",
    )
    combine: str = option(
        "none",
        help="combine predictions with the frozen backbone's own, as fitted on training groups: gate takes the "
        "backbone's class where it is sure, blend a mean of both logits",
        choices=WAYS,
    )
    combine_folds: int = option(
        5,
        help="with combine: number of further networks to fit it: each is trained without a part of the training "
        "groups, and predicts that part",
        within="[2, 100]",
    )
    refit: str = option(
        "none",
        help="in the end, train a new network on the training groups and the selection part, which is then the run's: "
        "up to the number of the best epoch (best), or for all epochs (all)",
        choices=REFITS,
    )
    patience: int | None = option(
        None, help="end training after so many epochs without a better score", within="[1, inf)"
    )
    look_every: int = option(
        10,
        help="measure all that TensorBoard shows in every n-th epoch; the score that selects is measured in each",
        within="[1, inf)",
    )
    top_k: list[int] = option(
        [1, 5, 10],
        "-k",
        help="numbers of neighbours for recall@k, in the evaluation after the training",
        within="[1, inf)",
    )
    batch_size: int = option(256, help="windows in a batch", within="[1, 10_000_000]")
    optimizer: str = option("adamw", help=f"AdamW, or SGD with a momentum of {MOMENTUM}", choices=OPTIMIZERS)
    learning_rate: float = option(1e-3, help="largest learning rate", within="(0, inf)")
    optim_betas: list[float] = option([0.9, 0.999], help="betas of AdamW; SGD has none", within="[0, 1)")
    weight_decay: float = option(
        0.05, help="weight decay; with sgd it is added to the gradient, and 1e-4 is usual", within="[0, inf)"
    )
    warm_up: float = option(0.05, help="share of the training over which the rate rises", within="[0, 1)")
    decay: str = option("cosine", help="how the rate falls after the warm-up", choices=DECAYS)
    clip_norm: float = option(1.0, help="largest norm of the gradients; 0: no clipping", within="[0, inf)")
    precision: str = option("float32", help="precision of the head; losses are always in float32", choices=PRECISIONS)
    memory_gb: float | None = option(
        None,
        help="memory for features; if they need more, they are read from disk; default: by what is free",
        within="(0, inf)",
    )
    seed: int = option(0, help="seed of weights, dropout and batch order", within="[0, inf)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    evaluate: bool = option(True, help="evaluate the run when it is trained")
    all: bool = option(False, help="print every metric of the evaluation, not just the main ones")

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UserError(f"train: one of epochs and steps must be null, and they are {self.epochs} and {self.steps}")
        if len(self.optim_betas) != 2:
            raise UserError(f"train: optim_betas must be two numbers, and are {self.optim_betas}")
        if not names_of(self.loss):
            raise UserError("train: loss names no loss")
        for name in names_of(self.loss):
            one_of("train: loss", name, LOSSES)
        for name in ("num_features", "embedding_size", "dropout", "grid"):
            if name in self.model_options:
                raise UserError(
                    f"train: model_options cannot hold {name}: it is a parameter of its own, or the store gives it"
                )
        self._check_stores()
        self._check_unfreeze()
        if self.start is not None and not self.trains:
            raise UserError("train: start gives first weights to a training, and with 0 epochs there is none")
        if self.start is not None and not HEADS[self.model].learns:
            raise UserError(f"train: start gives weights to a head, and model '{self.model}' has none")
        if self.select_split == 0 and self.trains:
            raise UserError("train: select_split 0 leaves nothing to choose the best epoch on")
        if self.keep == "last" and self.patience is not None:
            raise UserError("train: patience waits for a better epoch, and keep takes the last: leave one out")
        refuse_combination(
            Combination(
                self.model, self.loss, self.sampler, self.pooling, self.window, self.positives, self.select_by,
                self.trains, self.loss_weights, self.unit, self.clip_pooling, self.clip_windows,
                self.trains_backbone,
            )
        )  # fmt: skip
        Window(self.window, self.step, self.edge).check_fps(self.fps)
        # Made once for nothing, so that a wrong option is refused before anything is loaded.
        build_head(self.model, 8, self.embedding_size, self.dropout, **self.model_options)
        build_loss(
            self.loss, self.loss_options, self.loss_weights, num_classes=2, num_aus=1, num_outputs=1,
            class_counts=[1, 1],
            embedding_size=8, temperature=self.temperature, margin=self.margin,
        )  # fmt: skip
        for name in self.sampler_options:
            one_of(f"sampler '{self.sampler}': option", name, options_of(self.sampler))
        if self.unit == "clip" and self.combine != "none":
            raise UserError(f"train: combine '{self.combine}' is for frames, and unit is clip: leave it out")
        if self.unit == "clip" and (self.clip_stride or 1) > self.window:
            raise UserError(
                f"train: clip_stride must be at most window, {self.window}, or frames would be in no window; it is "
                f"{self.clip_stride}"
            )

    def _check_stores(self) -> None:
        """Raises ``UserError`` for stores, projections and a modality dropout that do not go together."""
        num_stores = len(each_store(self.data))
        num_given = len(self.projection) if isinstance(self.projection, list) else 1
        if self.reduce and self.projection is not None and num_given != num_stores:
            raise UserError(f"train: {num_stores} stores need as many projections, in their order, and not {num_given}")
        if self.modality_dropout and num_stores == 1:
            raise UserError(f"train: modality_dropout {self.modality_dropout} hides stores, and data names one alone")

    def _check_unfreeze(self) -> None:
        """Raises ``UserError`` for what does not go with a backbone that is trained, or not without one."""
        usual = {"maps": None, "batch_norm": "frozen"}
        given = [name for name, value in usual.items() if getattr(self, name) != value]
        if self.unfreeze is None and given:
            instead = "too" if self.lora is None else "instead of lora"
            raise UserError(f"train: {given[0]} is for stages that are trained: give unfreeze {instead}")
        if not self.trains_backbone:
            if self.backbone_start != "weights":
                raise UserError("train: backbone_start is for a backbone that is trained: give unfreeze or lora too")
            return
        if self.unfreeze is not None and self.lora is not None:
            raise UserError(
                "train: unfreeze trains weights, and lora updates of weights that stay: give one of the two"
            )
        word = "unfreeze" if self.lora is None else "lora"
        if isinstance(self.unfreeze, str) and self.unfreeze != "all":
            raise UserError(f"train: unfreeze must be a number of stages, or all, and is '{self.unfreeze}'")
        if not self.trains:
            raise UserError(f"train: {word} trains the backbone, and with 0 epochs there is no training")
        if len(each_store(self.data)) > 1:
            raise UserError(f"train: {word} trains one backbone, and data names several stores")
        if self.combine != "none":
            raise UserError(f"train: combine needs a backbone that stays frozen: leave combine or {word} out")
        if self.refit != "none":
            raise UserError(f"train: refit would train a second backbone from the start: leave refit or {word} out")
        if self.augment and self.maps is not None:
            raise UserError("train: augment changes pixels, and maps are of the frames as they are: leave one out")
        if SAMPLERS[self.sampler].two_views and not self.augment:
            raise UserError(f"train: sampler '{self.sampler}' pairs two views, and with {word} augment makes them")
        self._check_backbone_start()

    def _check_backbone_start(self) -> None:
        """Raises ``UserError`` for what was made with the store's weights, where the backbone starts with others."""
        begins = f"train: backbone_start '{self.backbone_start}'"
        if self.backbone_start == "weights":
            return
        if self.maps is not None:
            raise UserError(f"{begins} differs from the weights that made the maps: leave maps out")
        if self.reduce:
            raise UserError(f"{begins} gives other features than the projection was fitted on: give --no-reduce")
        if self.start is not None:
            raise UserError(f"{begins} gives other features than the head of start takes: leave one of them out")
        if self.backbone_start == "random" and self.unfreeze != "all":
            raise UserError(f"{begins} would leave random stages untrained: unfreeze must be all")

    @property
    def clip_rule(self) -> ClipRule | None:
        """How clips become windows and windows a clip; None where frames are trained on."""
        if self.unit != "clip":
            return None
        stride = self.clip_stride or (self.window + 1) // 2
        return ClipRule(stride, self.clip_windows, self.clip_pooling, self.clip_top_k)

    @property
    def tables(self) -> list[str]:
        """The tables that it takes, by the names of their fields."""
        return ["clips" if self.unit == "clip" else "labels", *(["projection"] if self.reduce else [])]

    @property
    def trains_backbone(self) -> bool:
        """Whether the backbone is trained with the head."""
        return self.unfreeze is not None or self.lora is not None

    @property
    def trains(self) -> bool:
        """Whether there is anything to train; False with 0 epochs."""
        return self.epochs != 0


def from_flags(argv: Sequence[str], description: str) -> tuple[TrainConfig, Path | None]:
    """What to train, and the folder of the run that is to be gone on with, or None for a new one."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--run")
    early.add_argument("--backbone")
    early.add_argument("--resume", type=Path)
    known, flags = early.parse_known_args(argv)
    if known.resume:
        word = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        word.add_argument("--alike", nargs="+")
        flags_of_now, flags = word.parse_known_args(flags)
        if known.run or known.backbone or flags:
            raise UserError(
                "--resume takes everything from the run's own config.json: give no other flags (but --alike, for a "
                "store that was made again)"
            )
        return read_config(known.resume, vars(flags_of_now)), known.resume
    if known.run and known.backbone:
        raise UserError("--run and --backbone each name what is trained: give one of the two")
    called = known.run or known.backbone
    section = f"{'runs' if known.run else 'backbones'}.{called}" if called else None
    sections = ["train"] + ([section] if section else [])
    short = {"--gpu": ["--device", "cuda"], "--cpu": ["--device", "cpu"]}
    flags = [word for flag in flags for word in short.get(flag, [flag])]
    if {"-h", "--help"} & {*flags}:  # before any file is read
        parse(TrainConfig, flags, sections=sections, description=description)
    flags += ["--runs", "1"] if known.backbone else []
    layers = _layers(flags, section)
    flags += _either_epochs_or_steps(layers)
    config = parse(TrainConfig, flags, sections=sections, description=description)
    if known.backbone:
        _check_backbone(section, layers["run"], config)
    own = {name for layer in ("run", "flags") for name in layers[layer] if name in ("temperature", "margin")}
    for name in without_effect(config.loss, sorted(own)):
        print(f"{name} {getattr(config, name)} has no effect: loss '{' + '.join(names_of(config.loss))}' takes none")
    return (config if config.name or not called else dataclasses.replace(config, name=called)), None


# What section 'train' sets, what the run's own section sets, what the flags set: the later on top of the earlier.
Layers = dict[str, dict[str, Any]]


def _check_backbone(section: str, own: Mapping[str, Any], config: TrainConfig) -> None:
    """Raises ``UserError`` where the stages of DVC would not find what they go on with, or there is nothing of it."""
    for key in ("data", "name", "output", "runs", "seed"):
        if key in own:
            raise UserError(f"{section}: leave {key} out: it is trained from {STORE}, with one seed, train.seed")
    if not config.trains_backbone:
        raise UserError(f"{section}: nothing of the backbone is trained: give unfreeze or lora")


def _layers(flags: Sequence[str], section: str | None) -> Layers:
    """The parameters by who sets them; of the flags only the few that are looked at here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--params", type=Path)
    parser.add_argument("-t", "--temperature")
    parser.add_argument("--margin")
    parser.add_argument("-e", "--epochs")
    parser.add_argument("--steps")
    of_flags = vars(parser.parse_known_args(flags)[0])
    of_flags = {name: None if value == "null" else value for name, value in of_flags.items()}
    path = of_flags.pop("params", Path("params.yaml"))
    return {"train": read(path, "train"), "run": read(path, section) if section else {}, "flags": of_flags}


def _either_epochs_or_steps(layers: Layers) -> list[str]:
    """The flag that leaves one of epochs and steps: the one that was set last counts, the other is null.

    In section ``train``, which has both, steps count where they are not null. Raises ``UserError`` where a run's own
    section, or the command line, sets both.
    """
    merged, counts = {}, "epochs"
    for layer, values in layers.items():
        both = {name: values[name] for name in ("epochs", "steps") if name in values}
        merged |= both
        named = [name for name, value in both.items() if value is not None]
        if len(named) == 2 and layer != "train":
            raise UserError(
                f"epochs {both['epochs']} or steps {both['steps']} say how long to train: give one of the two"
            )
        if named:
            counts = named[-1]
        elif merged.get(counts, 0) is None:
            counts = {"epochs": "steps", "steps": "epochs"}[counts]
    return ["--epochs", "null"] if counts == "steps" else ["--steps", "null"]


def read_config(folder: Path, changes: dict[str, Any]) -> TrainConfig:
    """The config of a run that was begun in ``folder``, with ``changes``. ``UserError``: there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"no run to go on with in {folder}: there is no {path}")
    values = read_json(path, "the parameters of a run", "Put back a copy, or train the run again")
    return build(TrainConfig, values | changes, str(path))


def write_config(folder: Path, config: TrainConfig) -> None:
    """``config.json`` in the run's folder, from which ``--resume`` goes on."""
    plain = {k: _plain(v) for k, v in dataclasses.asdict(config).items()}
    # Not sorted: the first of several losses says whose official split counts, and the run is gone on with from this.
    write_json(folder / "config.json", plain, sealed=True)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.as_posix() if isinstance(value, Path) else value


def new_folder(config: TrainConfig) -> Path:
    """A new folder for the run. No run is ever written over: a second one of the same parts gets a number."""
    name = config.name or f"{config.model}-{'+'.join(names_of(config.loss))}-{config.sampler}"
    folder = config.output / name
    if config.name and folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"the run {folder} is there already: give another --name, delete it, or go on with it by --resume {folder}"
        )
    number = 2
    while folder.exists() and any(folder.iterdir()):
        folder, number = config.output / f"{name}-{number}", number + 1
    folder.mkdir(parents=True, exist_ok=True)
    return folder
