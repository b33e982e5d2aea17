"""A trained run's predictions for every frame of a list, as ABAW's submission files.

    python -m pipeline.submission.predict --run runs/NAME --list LIST.txt --task expr -o submission
    ... --task va --smooth box --width 101           means over the 50 frames before and after
    ... --task va --smooth box --width 3.4s --fps data/faces/faces.parquet     over 1.7 seconds of each video
    ... --task au --format per-video --seed 0        the files of the early editions, from one seed alone
    ... --frames FOLDER                              frames that are in no store yet: they are extracted first, into
                                                     submission/features; after a kill the same command goes on
    ... --by knn                                     for a run without a classifier: by its nearest training frames
    python -m pipeline.submission.predict --validate submission --list LIST.txt --task expr

The list's lines are '<video>/00001.jpg,' as in the challenge's samples, or '<video>,<number of frames>', or '<video>'.
The formats are in pipeline/submission/formats.py.

Each frame that has features is predicted from the window around it, or with --window-stride N from windows N frames
apart; several seeds, and folds, are averaged, as probabilities. An action unit is active from the run's own threshold
of it (its mean over seeds), which was fitted on training groups, or from --au-threshold. A run that was trained with
--combine is combined with the frozen backbone's own predictions, and smoothed, as it has fitted, but not with --combine
none. Frames without features (no face was found) are interpolated between their neighbours. Frames before the first and
after the last one with features get that frame's prediction; they may be --most-extrapolated of a video's listed
frames. Then all are smoothed. A video without any features is Neutral, with valence, arousal and action units 0. The
files are checked before the folder gets its name: a folder that is there is finished.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.adapter import sources as features
from pipeline.adapter.adapter import Adapter, load_adapter
from pipeline.adapter.backbone import outputs_of_store, stored_logits
from pipeline.adapter.inference import BLOCK, WINDOW_STRIDE, per_frame
from pipeline.adapter.windows import held
from pipeline.core import children
from pipeline.core.device import pick_device
from pipeline.core.files import all_or_none, read_json, write_json, writing
from pipeline.core.frame_set import frame_set, held_names
from pipeline.core.join import ALIKE_HELP, DATA_HELP, FRAMES, data_of_run, open_both, open_store, open_whole, with_files
from pipeline.core.numbering import numbered_alike, spacing
from pipeline.core.params import UserError, entry, given_params, one_of, option, parse
from pipeline.core.progress import Line
from pipeline.core.rates import FPS, frame_rates
from pipeline.core.seen import USES, refuse_seen, some
from pipeline.core.store import ALIKE, FeatureStore
from pipeline.core.stores import Data, Stores, store_names, vouched_for
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES, STORE, of_fold
from pipeline.metrics import combine, thresholds
from pipeline.metrics.protocol import on_every_frame
from pipeline.metrics.smoothing import SMOOTHINGS, check_width, in_frames, smooth, with_bias
from pipeline.metrics.vectors import evenly, normalised
from pipeline.submission.formats import (
    FEATURES,
    FORMATS,
    TASKS,
    VOUCHED,
    check_format,
    problems,
    read_list,
    shortened,
    write,
)

BY = ("loss", "knn")
MOST_PROBLEMS = 10  # of a submission that are printed
OFFICIAL = {"classes": ABAW_CLASSES, "va": ["valence", "arousal"], "aus": ABAW_AUS}
TRACKS = {"classes": "expression", "va": "va", "aus": "aus"}
WORDS = {"classes": "classes", "va": "valence and arousal", "aus": "action units"}

# Embeddings (n, E) and the adapter's predictions of them -> values (n, C), in ABAW's order.
Predictor = Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class PredictConfig:
    """The flags; params.yaml has no section for them."""

    run: Path | None = option(None, help="the folder of the run")
    list_of: Path | None = option(None, "--list", help="the list of frames, or of videos")
    task: str | None = option(None, help=f"one of {', '.join(TASKS)}")
    output: Path = option(Path("submission"), "-o", help="the folder to make")
    format: str = option("single", help="a single file, or per-video: one a video, as in the early editions")
    data: Path | list[Path] | None = option(
        None, "-d", help=f"{DATA_HELP}; default: {STORE}, or the several that the run was trained on"
    )
    frames: Path | None = option(None, help="a folder of frames to extract first, into --data or OUTPUT/features")
    table: Path | None = option(None, help=FRAMES)
    alike: list[str] = option([], help=ALIKE_HELP, choices=ALIKE)
    seed: int | None = option(None, help="this seed of the run alone; default: the mean of all")
    window_stride: int | None = option(None, help=WINDOW_STRIDE, within="[1, inf)")
    smoothing: str = option(
        "none", "--smooth", help=f"how predictions are smoothed over time, at the end: {', '.join(SMOOTHINGS)}"
    )
    width: int | str = option(
        101, help="width of the smoothing: an odd number of frames, or seconds, such as 3.4s", within="[1, 1_000_000]"
    )
    width_aus: int | str = option(11, help="width of the smoothing of action units", within="[1, 1_000_000]")
    fps: float | Path | None = option(None, help=FPS)
    dataset: str | None = option(
        None, help="with --frames: the data set in that folder; default: as extract.py -d finds it"
    )
    by: str = option(
        "loss", help="who predicts: loss, the run's classifier; or knn, the labels of the nearest training frames"
    )
    labels: Path | None = option(None, help="with --by knn: the label table; default: the one beside --labelled")
    labelled: Path | list[Path] | None = option(
        None,
        help=f"with --by knn: the store of the labelled frames; default: the one in the run's config.json, or {STORE}",
    )
    neighbours: int = option(
        20, help="with --by knn: nearest training frames whose mean is the prediction", within="[1, inf)"
    )
    most_neighbours: int = option(
        20000, help="with --by knn: evenly spaced training frames that are candidates", within="[1, inf)"
    )
    most_extrapolated: float = option(
        0.5,
        help="share of a video's listed frames that may lie beyond its first and last frame with features; 1: all",
        within="[0, 1]",
    )
    combine: str | None = option(None, help=combine.HELP, choices=combine.WAYS)
    au_threshold: float | None = option(None, help=thresholds.HELP, within="(0, 1)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    validate: Path | None = option(None, help="a submission to check against --list and --task; nothing is predicted")

    def __post_init__(self) -> None:
        wanted = {"--list": self.list_of, "--task": self.task} | ({} if self.validate else {"--run": self.run})
        if missing := [flag for flag, value in wanted.items() if value is None]:
            raise UserError(f"predict: {' and '.join(missing)} must be given")
        for name, known in {"task": TASKS, "format": FORMATS, "smoothing": SMOOTHINGS, "by": BY}.items():
            one_of(f"predict: {name}", getattr(self, name), known)
        for name in ("width", "width_aus"):
            check_width(f"predict: {name}", getattr(self, name), self.fps)
        several = self.data if isinstance(self.data, list) else data_of_run(self.run) if self.run else None
        if self.frames and isinstance(several, list):
            raise UserError(
                f"predict: --frames extracts into one store, and {len(several)} are needed "
                f"({', '.join(store_names(several))}): extract each, then name them with --data"
            )
        if self.by == "knn" and self.combine not in (None, "none"):
            raise UserError(
                f"predict: --combine {self.combine} is for the run's own classifier, not for --by knn: leave one out"
            )

    @property
    def widths(self) -> dict[str, int | str]:
        return {"classes": self.width, "va": self.width, "aus": self.width_aus}

    @property
    def store(self) -> Data:
        if self.data or self.frames:
            return self.data or self.aside / STORE.name
        return data_of_run(self.run) if self.run else STORE

    @property
    def aside(self) -> Path:
        """Where new features lie until the predictions are there: a killed extraction goes on with what it has."""
        return self.output.with_name(self.output.name + ".features")

    @property
    def wants(self) -> tuple[str, ...]:
        return TASKS[self.task]


@dataclass(frozen=True)
class Finish:
    """What is done to the mean predictions of all networks in the end.

    ``kind`` is that of the smoothing, ``widths`` that of each of what is predicted, and ``bias`` (8,) is added to the
    logits of classes, in ABAW's order, where there is one.
    """

    kind: str
    widths: dict[str, int | str]
    bias: np.ndarray | None = None

    @classmethod
    def fitted(cls, networks: Sequence[dict[str, combine.Fitted]], order: Sequence[int]) -> "Finish":
        """As the networks have fitted it: the median of their widths (of an even number the lower one), mean biases.

        ``order`` (8,) says where ABAW's classes are among theirs.
        """
        of = {what: sorted(each[what].width for each in networks) for what in networks[0]}
        widths = {what: each[(len(each) - 1) // 2] for what, each in of.items()}
        biases = [np.array(each["classes"].bias)[order] for each in networks if "classes" in each]
        return cls("box", widths, np.mean(biases, axis=0) if biases else None)


@dataclass(frozen=True)
class Rows:
    """The frames of the listed videos that have features, sorted by (video, frame).

    ``video`` (n,) are codes into ``videos``, of which ``fps`` (V,) are the frames a second, None where nothing says it,
    and ``step`` (V,) how far apart its frames are; ``trained_at`` is that of most videos that the run was trained on,
    None where it does not say.
    """

    row: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    videos: pd.Index
    step: np.ndarray
    fps: np.ndarray | None = None
    trained_at: int | None = None


def main(argv: Sequence[str] | None = None) -> int:
    config = parse(PredictConfig, argv, sections=[], description=__doc__)
    if config.validate:
        return _validate(config, config.validate)
    if config.output.exists():
        raise UserError(f"{config.output} is there already: give another --output, or delete it")
    checkpoints = _checkpoints(config)
    if config.by == "knn":
        config = _with_labelled(config)
        config = with_files(config, config.labelled, "labels")
    if config.frames:
        _extract(config, given_params(argv))
    wanted = read_list(config.list_of, config.store)
    check_format(wanted, config.task, config.format)
    store = open_store(config.store, config.table)
    rows = _rows(store, wanted, config)
    beyond = _check_reach(config, rows, wanted)
    predictions, active_from, trained_at, vouched, finish = _mean_of_seeds(config, checkpoints, store, rows)
    rows = replace(rows, trained_at=trained_at)
    _check_width(config, finish, rows)
    code, frame = _codes(rows, wanted), wanted["frame"].to_numpy()
    every = {what: _at(finish, what, rows, predictions[what], code, frame) for what in config.wants}
    if "classes" in every and finish.bias is not None:
        every["classes"] = with_bias(every["classes"], finish.bias)
    values = {what: _decided(what, of_frames, active_from) for what, of_frames in every.items()}
    with all_or_none(config.output.parent, config.output.name) as aside:
        folder = aside / config.output.name
        write(folder, wanted, values, config.task, config.format)
        if wrong := problems(folder, wanted, config.task, config.format):
            raise UserError(f"the predictions make no submission, and are not kept: {'; '.join(wrong[:MOST_PROBLEMS])}")
        if vouched:
            write_json(folder / VOUCHED, vouched)
    _print_gaps(config, rows, wanted, code, beyond)
    for whose, what in vouched.items():
        print(f"  alike by your word (--alike), {whose} and the store: {what}")
    if config.frames and not config.data:
        with writing(config.output):
            config.aside.rename(config.output / FEATURES)
        print(f"  the new features: {config.output / FEATURES / STORE.name}, for another --task with -d")
    return 0


def _with_labelled(config: PredictConfig) -> PredictConfig:
    """With the store and, where none are given, the labels that the run was trained on, as its config.json says."""
    if config.labelled is not None:
        return config
    path = config.run / "config.json"
    if not path.is_file():
        return replace(config, labelled=STORE)
    trained = read_json(path, "the parameters of a run", "Put back a copy, or give --labelled")
    labels = config.labels or (Path(trained["labels"]) if trained["labels"] else None)
    data = trained["data"]
    print(f"{path}: the labelled frames are those of {', '.join(data) if isinstance(data, list) else data}")
    return replace(config, labelled=list(map(Path, data)) if isinstance(data, list) else Path(data), labels=labels)


def _checkpoints(config: PredictConfig) -> list[Path]:
    folds = sorted(config.run.glob("fold_*"), key=lambda p: int(p.name[5:])) or [config.run]
    of_seed: dict[int, list[Path]] = {}
    for path in (path for fold in folds for path in fold.glob("seed_*/best.safetensors")):
        of_seed.setdefault(int(path.parent.name[5:]), []).append(path)
    if not of_seed:
        raise UserError(f"no trained run in {config.run}: seed_*/best.safetensors is what train.py makes")
    if config.seed is None:
        return [path for seed in sorted(of_seed) for path in of_seed[seed]]
    if config.seed not in of_seed:
        raise UserError(f"{config.run} has no seed {config.seed}, but {sorted(of_seed)}")
    return of_seed[config.seed]


def _extract(config: PredictConfig, params: Sequence[str]) -> None:
    """In a process of its own, as section ``extract`` says: evaluation never imports extraction."""
    command = [sys.executable, "-m", "extract", "--data", str(config.frames), "--store", str(config.store)]
    command += ["--device", config.device, *params]
    command += ["--dataset", config.dataset] if config.dataset else []
    if children.run(command):
        raise UserError(f"{config.frames} could not be extracted: {' '.join(command[1:])}")


def _rows(store: FeatureStore | Stores, wanted: pd.DataFrame, config: PredictConfig) -> Rows:
    names = store.keys["video"].cat.categories
    is_listed = names.isin(wanted["video"].unique())
    keys = store.keys[is_listed[store.keys["video"].cat.codes]]
    if keys.empty:
        raise UserError(f"none of the {wanted['video'].nunique():,} videos in {config.list_of} is in {store.path}")
    video, known = pd.factorize(keys["video"].cat.codes.to_numpy())
    videos = names[known]
    fps = frame_rates(config.fps, videos, video)
    return _as_rows(keys["row"].to_numpy(), video, keys["frame"].to_numpy(), videos, fps)


def _as_rows(
    row: np.ndarray, video: np.ndarray, frame: np.ndarray, videos: Sequence[str], fps: np.ndarray | None = None
) -> Rows:
    step = spacing(video, frame)[np.flatnonzero(np.diff(video, prepend=-1))]
    return Rows(row, video, frame, pd.Index(videos), step, fps)


def _codes(rows: Rows, wanted: pd.DataFrame) -> np.ndarray:
    """The code (m,) of each wanted frame's video among ``rows.videos``, -1 where it has no features."""
    code, names = pd.factorize(wanted["video"])
    return rows.videos.get_indexer(names)[code]


def _check_reach(config: PredictConfig, rows: Rows, wanted: pd.DataFrame) -> pd.Series:
    """The share of each video's listed frames that lie beyond its first and last frame with features, largest first.

    There the prediction of that frame is held. Videos without any such frame are left out. Raises ``UserError`` where
    it is more than ``most_extrapolated`` in a video that has features at all: of most such lists the numbers are wrong.
    """
    code = _codes(rows, wanted)
    frame, code = wanted["frame"].to_numpy()[code >= 0], code[code >= 0]
    first = np.flatnonzero(np.diff(rows.video, prepend=-1))
    last = np.append(first[1:], len(rows.video)) - 1
    outside = (frame < rows.frame[first][code]) | (frame > rows.frame[last][code])
    share = pd.Series(outside).groupby(code).mean()
    share = share.set_axis(rows.videos[share.index]).sort_index()
    share = share[share > 0].sort_values(ascending=False, kind="stable")
    if len(too_far := share[share > config.most_extrapolated]):
        video = too_far.index[0]
        place = rows.videos.get_loc(video)
        raise UserError(
            f"{config.list_of} names frames far beyond those with features: {_shares(too_far)}; those of {video} are "
            f"frames {rows.frame[first[place]]:,} to {rows.frame[last[place]]:,}. If the list is right, give "
            f"--most-extrapolated {np.ceil(100 * too_far.iloc[0]) / 100:g} (now {config.most_extrapolated:g})"
        )
    return share


def _shares(share: pd.Series) -> str:
    return shortened([f"{video} {100 * value:.0f} %" for video, value in share.items()])


def _mean_of_seeds(
    config: PredictConfig, checkpoints: list[Path], store: FeatureStore | Stores, rows: Rows
) -> tuple[dict[str, np.ndarray], np.ndarray, int | None, dict[str, str], Finish]:
    """Predictions of each frame in ``rows``: probabilities of classes (n, 8) and units (n, 12), or values (n, 2).

    And the probabilities (12,) from which units are active; how far apart the frames of most videos were that the run
    was trained on, None where it does not say; what the user vouched for; and how they are finished.
    """
    device, total, seen_videos, line = pick_device(config.device), {}, set(), Line()
    vouched: dict[str, str] = {}
    active_from, fitted, combined = [], [], []
    way = _way(config, checkpoints, store)
    predictor = {"loss": _by_loss, "knn": _by_neighbours}[config.by]
    for number, path in enumerate(checkpoints, 1):
        line.say(f"{config.run}: network {number} of {len(checkpoints)}, {len(rows.row):,} frames")
        adapter = load_adapter(path, store.made_by, config.alike)
        adapter.modules().to(device)
        seen_videos.update(_seen_videos(adapter, rows.videos))
        predictors = {what: predictor(config, adapter, what, device) for what in config.wants}
        if path == checkpoints[0]:
            _check_spacing(config, adapter, store, rows)
        vouched |= adapter.facts["vouched"]
        if "aus" in config.wants:
            active_from.append(_thresholds(config, adapter, way))
            fitted.append(adapter.facts.get("thresholds_of") if config.by == "loss" else None)
        if way != "none":
            combined.append({what: combine.fitted_of(adapter.facts, way)[what] for what in config.wants})
            print(f"{path.parent}: combined with the backbone, {combine.in_words([adapter.facts], way)}")
        for block, z, predictions in _per_frame(config, adapter, store, rows, np.arange(len(rows.row)), device):
            if way != "none":
                own = _own(adapter, store, rows, block)
                predictions = predictions | combine.combine(combined[-1], predictions, own)
            for what, predict in predictors.items():
                values = predict(z, predictions)
                total.setdefault(what, np.zeros((len(rows.row), values.shape[1])))[block] += values / len(checkpoints)
    line.end()
    if seen_videos:
        print(
            f"{config.run} has seen {len(seen_videos):,} of the {len(rows.videos):,} videos in training or selection "
            f"({some(sorted(seen_videos))}): its predictions of them do not test it"
        )
    for what, values in total.items():
        if len(bad := np.unique(rows.video[~np.isfinite(values).all(axis=1)])):
            raise UserError(f"{config.run} predicts {WORDS[what]} that are not finite in {shortened(rows.videos[bad])}")
    if fitted and way == "none":
        print(f"  action units count as active from a probability {thresholds.in_words(fitted, config.au_threshold)}")
    active_from = np.mean(active_from, axis=0) if fitted else np.zeros(0)
    finish = Finish(config.smoothing, config.widths)
    if combined:
        order = _order("classes", adapter.facts["classes"], config.run) if "classes" in config.wants else []
        finish = Finish.fitted(combined, order)
    return total, active_from, adapter.window.spacing, vouched, finish


def _way(config: PredictConfig, checkpoints: list[Path], store: FeatureStore | Stores) -> str:
    """How predictions are combined with the backbone's own; raises ``UserError`` where they cannot be as wanted."""
    if config.by == "knn":
        return "none"
    facts = [load_adapter(path, store.made_by, config.alike).facts for path in checkpoints]
    way = combine.way_of(config.run, store, config.combine, facts)
    if way == "none":
        return way
    if config.smoothing != "none":
        raise UserError(
            f"predict: {config.run} is combined with the backbone by {way}, and smoothed as that was fitted: leave "
            f"--smooth {config.smoothing} out, or give --combine none"
        )
    return way


def _own(adapter: Adapter, store: FeatureStore | Stores, rows: Rows, block: np.ndarray) -> dict[str, np.ndarray]:
    """What the backbone itself predicts of a block of the rows."""
    outputs = outputs_of_store(store, adapter.facts["classes"], adapter.facts["au_names"])
    return outputs.of(stored_logits(store, rows.row[block]))


def _thresholds(config: PredictConfig, adapter: Adapter, way: str) -> np.ndarray:
    """The probabilities (12,) from which ABAW's units are active; the run's own are for its own predictions alone."""
    if config.au_threshold is not None:
        return np.full(len(ABAW_AUS), config.au_threshold)
    if config.by == "knn":
        return np.full(len(ABAW_AUS), thresholds.DEFAULT)
    order = _order("aus", adapter.facts["au_names"], config.run)
    if way != "none":
        return np.array(combine.fitted_of(adapter.facts, way)["aus"].thresholds)[order]
    return adapter.au_thresholds.double().cpu().numpy()[order]


def _seen_videos(adapter: Adapter, videos: pd.Index) -> list[str]:
    """Those of the videos that the adapter was made with, in any of ``USES``."""
    parts = [adapter.seen[part] for part in USES if adapter.seen and part in adapter.seen]
    return [video for part in parts for video in part.known([], list(videos))[1]]


def _per_frame(
    config: PredictConfig, adapter: Adapter, store: FeatureStore | Stores, rows: Rows, wanted: np.ndarray,
    device: torch.device,
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:  # fmt: skip
    """Embeddings and predictions, as ``per_frame`` has them, of ``wanted`` (m,), which are numbers into ``rows``.

    A block of ``wanted`` at a time, which comes with them: the embeddings of 3 M frames take 1.5 GB.
    """
    source = features.open_inputs(store, rows.row, adapter.front, device)
    windows = adapter.window.over(rows.video, rows.frame, rows.videos, config.fps)
    for block in np.split(wanted, range(BLOCK, len(wanted), BLOCK)):
        yield block, *per_frame(adapter, source, windows, block, config.window_stride, device)


def _check_spacing(config: PredictConfig, adapter: Adapter, store: FeatureStore | Stores, rows: Rows) -> None:
    """Says where frames are not as far apart as in training, and how many windows hold where it is not all.

    Raises ``UserError`` where all are empty but for their centre, though the step is none of the videos'.
    """
    window, own = adapter.window, spacing(rows.video, rows.frame)
    if window.frames == 1:
        return
    first, given = np.flatnonzero(np.diff(rows.video, prepend=-1)), window.step
    step = window.spacing if given is None else given
    other = np.zeros(0, dtype=np.int64)  # of a time the frames are the nearest, however far apart they are
    if not window.in_seconds:
        other = first[own[first] != step if given is None else step % own[first] != 0]
    windows, count, alone = window.over(rows.video, rows.frame, rows.videos, config.fps), [], True
    for centres in np.split(np.arange(len(rows.row)), range(BLOCK, len(rows.row), BLOCK)):
        around = windows.centred(centres)
        count.append((around >= 0).sum(axis=1))
        alone &= bool(((around < 0) | (around == centres[:, None])).all())
    count = np.concatenate(count)
    if len(other):
        named = f"{len(other):,} of {len(first):,} videos, such as {rows.videos[rows.video[other[0]]]}"
        apart = f"frames {step} apart, and in {store.path} they are {own[other[0]]} apart in {named}"
        if given is None:
            print(f"the run was trained on {apart}: a window has the same number of frames, over another time")
        elif alone:
            raise UserError(
                f"the run looks at {apart}: no window has more than one frame. Extract with another --stride"
            )
        else:
            print(f"the run looks at {apart}")
    if incomplete := held(count, window.frames, rows.video, rows.videos):
        print(incomplete)


def _check_width(config: PredictConfig, finish: Finish, rows: Rows) -> None:
    """Says where a width in frames covers other frame numbers than it did in training."""
    first = np.flatnonzero(np.diff(rows.video, prepend=-1))
    other = np.flatnonzero(rows.step != (rows.trained_at or rows.step))
    if finish.kind == "none" or not other.size:
        return
    named = f"{len(other):,} of {len(first):,} videos, such as {rows.videos[rows.video[first[other[0]]]]}"
    for what, width in finish.widths.items():
        if what in config.wants and isinstance(width, int):
            numbers = int(_scaled(width, rows.step[other[0]] / rows.trained_at))
            print(
                f"{WORDS[what]}: as the run was trained on frames {rows.trained_at} apart, a width of {width} frames "
                f"is {numbers:,} frame numbers in {named}"
            )


def _scaled(width: int, factor: np.ndarray | float) -> np.ndarray:
    """An odd width whose half is ``factor`` times as wide."""
    return 2 * np.rint(width // 2 * factor).astype(np.int64) + 1


def _by_loss(config: PredictConfig, adapter: Adapter, what: str, device: torch.device) -> Predictor:
    facts = adapter.facts
    if what not in adapter.predicts:
        raise UserError(
            f"{config.run} predicts no {WORDS[what]}, for its loss is {facts['loss']}: take "
            f"{_others(config, facts['made_by'])}, or --by knn, which asks the labels of the nearest training frames"
        )
    names = {"classes": facts["classes"], "va": OFFICIAL["va"], "aus": facts.get("au_names")}[what]
    order = _order(what, names, config.run)

    return lambda z, predictions: predictions[what][:, order]


def _others(config: PredictConfig, made_by: dict[str, Any]) -> str:
    """The runs beside this one that predict all that is wanted, in words."""
    others = []
    for run in sorted(path for path in config.run.absolute().parent.iterdir() if path.is_dir()):
        paths = [*run.glob("seed_*/best.safetensors"), *run.glob("fold_*/seed_*/best.safetensors")]
        with suppress(UserError):  # of other features
            if paths and set(config.wants) <= set(load_adapter(paths[0], made_by).predicts):
                others.append(str(config.run.parent / run.name))
    return shortened(others) if others else f"a run whose loss does (there is none beside {config.run})"


def _by_neighbours(config: PredictConfig, adapter: Adapter, what: str, device: torch.device) -> Predictor:
    """Means over the nearest frames by cosine, out of all that were not held out: of classes, the shares of votes."""
    from sklearn.neighbors import KNeighborsRegressor  # here: scikit-learn takes a second to import

    facts = adapter.facts
    whole = open_whole(config.labelled)
    refusal = f"{config.run} was trained on other features than {whole.path} has"
    said = vouched_for(refusal, facts["made_by"], whole.made_by, config.alike)
    facts["vouched"] |= {"the adapter's training": said} if said else {}
    store, labels = open_both(config.labelled, config.labels, None)
    labels = of_fold(labels, facts.get("fold"))
    frames = frame_set(
        store, labels, tracks=[TRACKS[what]],
        test_split=facts["test_split"], select_split=facts["select_split"], split_seed=facts["split_seed"],
    )  # fmt: skip
    refuse_seen(
        str(config.run), adapter.seen, held_names(frames, labels, "val"), "validation",
        "Train it again, or give the --labels that it was trained with",
    )  # fmt: skip
    names = {"classes": frames.classes, "va": OFFICIAL["va"], "aus": frames.au_names}[what]
    order = _order(what, names, config.labels)
    target = {"classes": np.eye(len(names))[frames.label], "va": frames.va, "aus": frames.aus}[what][:, order]
    train = np.union1d(frames.centres("train"), frames.centres("select"))
    train = train[~np.isnan(target[train]).any(axis=1)]  # where only some of the action units are known
    train = train[evenly(len(train), config.most_neighbours)]
    if len(train) == 0:
        raise UserError(f"no training frame in {config.labels} has all of ABAW's {WORDS[what]}")
    rows = _as_rows(frames.row, frames.video, frames.frame, frames.videos)
    database = np.concatenate([z for _, z, _ in _per_frame(config, adapter, store, rows, train, device)])
    # Of rows of length one the nearest by distance is the nearest by cosine.
    nearest = KNeighborsRegressor(min(config.neighbours, len(train)), algorithm="brute")
    nearest.fit(normalised(database), target[train])

    return lambda z, said: nearest.predict(normalised(z))


def _order(what: str, names: Sequence[str], whose: Path) -> list[int]:
    """Where ABAW's classes, or action units, are among ``names``; further action units are passed over."""
    lacking = [name for name in OFFICIAL[what] if name not in names]
    foreign = [name for name in names if name not in OFFICIAL[what]] if what == "classes" else []
    if lacking or foreign:
        differs = [f"lacks {', '.join(lacking)}"] if lacking else []
        differs += [f"has {', '.join(foreign)}, which ABAW does not have"] if foreign else []
        hint = "; index the data set with --class-map abaw" if what == "classes" else ""
        raise UserError(f"{whose} does not have ABAW's {WORDS[what]}: it {' and it '.join(differs)}{hint}")
    return [list(names).index(name) for name in OFFICIAL[what]]


def _at(
    finish: Finish, what: str, rows: Rows, predictions: np.ndarray, video: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """``predictions`` (n, C) of ``rows`` at wanted frames (m,), interpolated and smoothed; NaN where ``video`` is -1.

    Smoothed is over all frames that are wanted or have features, so that a sparse list loses nothing.
    """
    stretch = int(max(rows.frame.max(), frame.max())) + 1
    key, known = rows.video * stretch + rows.frame, video >= 0
    wanted = (video * stretch + frame)[known]
    axis = np.sort(np.concatenate([key, wanted]), kind="stable")  # two sorted halves, mostly, which it merges
    axis = axis[np.diff(axis, prepend=-1) != 0]
    of_video, number = np.divmod(axis, stretch)
    every = on_every_frame(rows.video, rows.frame, predictions, of_video, number)
    width = finish.widths[what]
    if isinstance(width, str):
        width = in_frames(width, rows.fps[of_video])
    elif rows.trained_at is not None:  # as many frames in every video
        width = _scaled(width, rows.step[of_video] / spacing(of_video, number))
        number = numbered_alike(of_video, number, rows.trained_at)
    out = np.full((len(video), predictions.shape[1]), np.nan)
    out[known] = smooth(every, of_video, number, finish.kind, width)[np.searchsorted(axis, wanted)]
    return out


def _decided(what: str, values: np.ndarray, active_from: np.ndarray) -> np.ndarray:
    """What is written, (m, columns), for values (m, C); without any, NaN, it is Neutral and zeros."""
    values = np.where(np.isnan(values), 0, values)
    if what == "classes":
        return values.argmax(axis=1)[:, None]  # of equal ones the first, which is Neutral
    return (values >= active_from).astype(int) if what == "aus" else values


def _print_gaps(config: PredictConfig, rows: Rows, wanted: pd.DataFrame, video: np.ndarray, beyond: pd.Series) -> None:
    print(f"{config.output}: {len(wanted):,} frames of {wanted['video'].nunique():,} videos, checked")
    frame = wanted["frame"].to_numpy()
    stretch = int(max(rows.frame.max(), frame.max())) + 1
    has, keys = rows.video * stretch + rows.frame, video * stretch + frame
    gap = (video >= 0) & (has[np.searchsorted(has, keys).clip(max=len(has) - 1)] != keys)
    if gap.any():
        print(f"  {int(gap.sum()):,} frames of {len(np.unique(video[gap])):,} videos have no features: interpolated")
    if len(beyond):
        print(
            f"  of these, frames before the first or after the last one with features have that frame's prediction: "
            f"{_shares(beyond)} of the listed frames"
        )
    if len(faceless := wanted["video"][video < 0].unique()):
        print(f"  {len(faceless):,} videos have no features at all: they are Neutral, or 0: {shortened(faceless)}")


def _validate(config: PredictConfig, path: Path) -> int:
    wanted = read_list(config.list_of, config.store)
    check_format(wanted, config.task, config.format)
    if wrong := problems(path, wanted, config.task, config.format):
        print("\n".join([f"{path}: {len(wrong):,} problems", *(f"  {problem}" for problem in wrong[:MOST_PROBLEMS])]))
        return 1
    print(f"{path}: valid, {len(wanted):,} frames of {wanted['video'].nunique():,} videos")
    return 0


if __name__ == "__main__":
    entry(main)
