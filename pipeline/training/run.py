"""Training the seeds of a run, each from its start or from where a killed run left it."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapter.adapter import Adapter, save_adapter, save_state
from pipeline.adapter.examples import from_folder
from pipeline.core.clips import Clips
from pipeline.core.join import one_fold
from pipeline.core.params import UserError
from pipeline.core.progress import Line
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores, made_by_each
from pipeline.core.tables import Labels, weights_file
from pipeline.metrics import combine
from pipeline.training import checkpoints
from pipeline.training.board import Board, hparams_of, write_mean
from pipeline.training.config import TrainConfig, write_config
from pipeline.training.data import TrainingData, load_data, trained_on
from pipeline.training.fitting import Fitted, fit_out_of_fold, wanted_of
from pipeline.training.loop import NotFinite, Trainer
from pipeline.training.messages import how_far, progress_line
from pipeline.training.pictures import show
from pipeline.training.references import class_centres, leave_examples
from pipeline.training.start import first
from pipeline.training.watch import COLLAPSED, spread

STATE_EVERY = 10.0  # seconds between two states that a killed run can go on from


def train_fold(
    config: TrainConfig, folder: Path, store: FeatureStore | Stores, labels: Labels | Clips, fold: int | None
) -> list[dict[str, Any]]:
    """Trains all seeds of a fold, or of the only split where ``fold`` is None; gives the result of each."""
    data = load_data(config, store, one_fold(labels, fold), fold)
    write_config(folder, config)
    seeds = range(config.seed, config.seed + config.runs)
    place, of = (folder, {}) if fold is None else (folder / f"fold_{fold}", {"fold": fold})
    results = [of | train_seed(data, place, seed) for seed in seeds]
    write_mean(place)
    return results


@dataclass
class SeedRun:
    """A seed on its way: what is trained, and how far it is."""

    data: TrainingData
    folder: Path
    adapter: Adapter
    trainer: Trainer | None  # None where nothing is to be trained: 0 epochs
    result: dict[str, Any]  # of the best epoch so far; see checkpoints.RESULT
    epoch: int = 0  # how many are done
    waited: int = 0  # epochs since the best one
    score: float = math.nan  # after the last epoch
    spread: float = math.nan  # of the embeddings of the selection part, when it was looked at last
    noted: float = dataclasses.field(default_factory=time.monotonic)  # until when its time is written down


def train_seed(data: TrainingData, folder: Path, seed: int) -> dict[str, Any]:
    """Trains one seed into ``folder``/seed_N; gives its best epoch, and how many epochs and steps it was trained for.

    A seed that is finished is left as it is. One that was killed goes on to the same weights.
    """
    folder = folder / f"seed_{seed}"
    if result := checkpoints.finished(data, folder):
        return result
    begun = folder.exists()
    started = time.monotonic()
    run = _start(data, folder, seed)
    # What a killed run has shown of the epochs that come now is taken off the board.
    purge_from = (run.epoch + 1 if run.epoch else 0) if begun else None
    hparams = hparams_of(vars(data.config) | {"seed": seed})
    with Board(folder, hparams, purge_from=purge_from) as board:
        if run.epoch == 0:
            _score_untrained(run, board)
        if run.trainer:
            _train(run, board)
        _finish(run, board)
    epoch, score = run.result["epoch"], run.result["select"]
    seconds = time.monotonic() - started
    _note_time(run)
    print(f"{folder}: best epoch {epoch} of {run.epoch}, {score:.3f} {data.facts['select_by']}, {seconds:.0f} s")
    if run.trainer and run.spread < COLLAPSED:
        print(
            f"{folder}: the embeddings have collapsed: after epoch {run.epoch} their spread is {run.spread:.2g} "
            f"(0: all alike, 1: they point everywhere; below {COLLAPSED} is called collapsed)"
        )
    return run.result | {"epochs": run.epoch, "steps": _steps(run)}


def _start(data: TrainingData, folder: Path, seed: int) -> SeedRun:
    """The seed with its first weights, or as it was when its state was stored last."""
    adapter, trainer = first(data, seed)
    adapter.facts["weights"] = _weights(data, folder)
    select_by = data.facts["select_by"]
    result = {"seed": seed, "epoch": None, "select_by": select_by, "select": math.nan, "untrained": math.nan}
    run = SeedRun(data, folder, adapter, trainer, result)
    if (folder / "state.safetensors").is_file():
        run.epoch, run.result, run.waited, vouched = checkpoints.restore(data, trainer, folder)
        adapter.facts["vouched"] = adapter.facts["vouched"] | vouched
    return run


def _weights(data: TrainingData, folder: Path) -> str | list[str | None] | None:
    """Where the weights of the backbone lie, as seen from the seed's folder; None where the features were imported.

    Of several stores, those of each.
    """
    places = [
        from_folder(weights_file(made_by), folder) if "weights_sha256" in made_by else None
        for _, made_by in made_by_each(data.facts["made_by"])
    ]
    return places if "stores" in data.facts else places[0]


def _score_untrained(run: SeedRun, board: Board) -> None:
    """Scores the head as it starts: a baseline, and the result where nothing is to be trained."""
    run.score = run.result["untrained"] = _selected(run)
    _look(run, board)
    if run.trainer is None:
        run.result |= {"epoch": 0, "select": run.score}
        save_adapter(run.folder / "best.safetensors", run.adapter, **run.result)
    elif math.isnan(run.score):
        select_by = run.data.facts["select_by"]
        print(f"the selection part is too small to be scored by {select_by}: the last epoch is taken")


def _train(run: SeedRun, board: Board) -> None:
    """Trains the epochs that are left; keeps the best one, and now and then a state to go on from."""
    config, trainer = run.data.config, run.trainer
    started = stored = time.monotonic()
    done = before = trainer.share_done(run.epoch)
    with Line() as line:
        while done < 1:
            run.epoch += 1
            means = _epoch(trainer, run.epoch, run.data)
            done = trainer.share_done(run.epoch)
            board.scalars(means, "train", run.epoch)
            run.score = _selected(run)
            _keep_best(run)
            over = done >= 1 or (config.patience is not None and run.waited >= config.patience)
            if over or run.epoch % config.look_every == 0:
                _look(run, board)
            elif not math.isnan(run.score):
                board.scalars({run.data.facts["select_by"]: run.score}, "select", run.epoch, *_watched(run, "select"))
            left = (time.monotonic() - started) / (done - before) * (1 - done)
            select_by = run.data.facts["select_by"]
            where = how_far(config, run.epoch, trainer.steps)
            line.say(progress_line(run.folder, where, means["loss"], select_by, run.score, run.result, left))
            if over:
                break
            if time.monotonic() - stored >= STATE_EVERY:
                _store_state(run)
                stored = time.monotonic()


def _keep_best(run: SeedRun) -> None:
    """Saves the adapter where no epoch before was better. Any epoch is better than the untrained head.

    With ``keep`` 'last' each epoch takes the place of the one before.
    """
    best = run.result["select"]
    last = run.data.config.keep == "last"
    if run.result["epoch"] is None or run.score > best or math.isnan(best) or last:
        run.result, run.waited = run.result | {"epoch": run.epoch, "select": run.score}, 0
        if run.data.trunk is not None:
            run.data.trunk.save(run.folder, run.data.seen)
        save_adapter(run.folder / "best.safetensors", run.adapter, **run.result)
    else:
        run.waited += 1


def _note_time(run: SeedRun) -> None:
    """Writes down how long a seed has been trained whose backbone is trained too."""
    if run.data.trunk is not None:
        now = time.monotonic()
        checkpoints.add_seconds(run.folder, now - run.noted)
        run.noted = now


def _store_state(run: SeedRun) -> None:
    _note_time(run)
    of_features = {name: run.adapter.facts[name] for name in ("made_by", "vouched")}
    begun_with = {"backbone_start": run.adapter.facts.get("backbone_start")}
    facts = {"epoch": run.epoch, "best": run.result, "waited": run.waited, **of_features, **begun_with}
    save_state(run.folder / "state.safetensors", run.trainer.state(), facts, run.data.seen)


def _finish(run: SeedRun, board: Board) -> None:
    """Saves the last epoch, and of the best one what its users need; shows that."""
    best, data = checkpoints.load_own(run.data, run.folder / "best.safetensors"), run.data
    best.modules().to(data.device)
    if data.trunk is not None:
        best.facts |= data.trunk.finish(run.folder)
        data = dataclasses.replace(data, source=data.trunk.stored(run.folder))
    taught = data
    if data.config.refit != "none" and run.trainer:
        taught, best = _refitted(run, best)
    best.centres = class_centres(taught, best)
    fitted = _fitted(run)
    for adapter in (best, run.adapter):
        if fitted.thresholds:
            adapter.set_thresholds(*fitted.thresholds)
        if fitted.combine:
            adapter.facts["combine"] = fitted.combine
    save_adapter(run.folder / "best.safetensors", best)
    leave_examples(taught, best, run.folder)
    last = {"epoch": run.epoch, "select": run.score, "steps": _steps(run)}
    save_adapter(run.folder / "last.safetensors", run.adapter, **last)
    (run.folder / "state.safetensors").unlink(missing_ok=True)
    show(data, best, board, run.result["epoch"])


def _refitted(run: SeedRun, best: Adapter) -> tuple[TrainingData, Adapter]:
    """What ``best`` is once more, trained on the groups of the selection part too, and what it is trained on.

    It has the seed's first weights, the same schedule, and as many epochs as the best one had, or with ``refit`` 'all'
    as the run had. Nothing is left but the validation part that it was not trained on, so nothing more is chosen.
    """
    run.trainer.let_go()  # the memory of features that are read from disk
    frames = run.data.frames
    data = trained_on(run.data, np.union1d(frames.centres("train"), frames.centres("select")))
    adapter, trainer = first(data, best.facts["seed"])
    epoch, wanted = 0, run.epoch if data.config.refit == "all" else run.result["epoch"]
    with Line() as line:
        while epoch < wanted and trainer.share_done(epoch) < 1:  # steps of the optimiser may be over before
            epoch += 1
            means = _epoch(trainer, epoch, data)
            of = f"epoch {epoch} of {wanted}"
            line.say(f"{run.folder}: trains anew with the selection part, {of}, loss {means['loss']:.4g}")
    trainer.let_go()
    adapter.facts = best.facts
    return data, adapter


def _fitted(run: SeedRun) -> Fitted:
    """What is fitted on the training groups; what cannot be fitted stays as it is, which is said."""
    data = run.data
    wanted = [] if run.trainer is None else wanted_of(data, run.adapter.predicts)
    if wanted and data.trunk is not None:
        print(f"{run.folder}: the thresholds of action units stay 0.5: no further backbones are trained to fit them")
        wanted = []
    if not wanted:
        return Fitted()
    run.trainer.let_go()  # the memory of features that are read from disk
    fitted, why = Fitted(), "there is one training group alone"
    with Line() as line:
        try:
            fitted = fit_out_of_fold(
                data, run.adapter.predicts, run.adapter.facts["seed"], run.result["epoch"],
                lambda words: line.say(f"{run.folder}: {words}"),
            )  # fmt: skip
        except UserError as error:  # few groups may lack what the sampler needs; the run itself is trained
            why = f"a network without a part of the training groups cannot be trained: {error}"
    unfitted = {
        "thresholds": "the thresholds of action units stay 0.5",
        "combine": "how to combine with the backbone is not fitted, so that nothing is combined",
    }
    for what in wanted:
        if getattr(fitted, what) is None:
            print(f"{run.folder}: {unfitted[what]}: {why}")
    if fitted.combine:
        words = combine.in_words([{"combine": fitted.combine}], fitted.combine["way"])
        print(f"{run.folder}: combined with the backbone, {words}")
    return fitted


def _steps(run: SeedRun) -> int:
    return run.trainer.steps if run.trainer else 0


def _epoch(trainer: Trainer, epoch: int, data: TrainingData) -> dict[str, float]:
    """The means over one epoch, counted from 1; what is not finite raises ``UserError`` that names its videos."""
    frames, config = data.frames, data.config
    try:
        return trainer.epoch(epoch - 1)
    except NotFinite as error:
        names = [frames.videos[v] for v in np.unique(frames.video[data.centres[error.windows]])]
        some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise UserError(
            f"{error} (videos {some}): lower --learning-rate (now {config.learning_rate:g}) or --temperature "
            f"(now {config.temperature:g}); what was made up to epoch {epoch - 1} is kept"
        ) from None


def _selected(run: SeedRun) -> float:
    """The score that the best epoch is chosen by; NaN where the selection part is too small for it."""
    watched = run.data.watched["select"]
    if not len(watched.centres):
        return math.nan
    return watched.select(run.adapter, run.data.source, run.data.facts["select_by"])


def _look(run: SeedRun, board: Board) -> None:
    """Shows all that is measured of the selection and validation parts."""
    by, source = run.data.references, run.data.source
    of_these = None if by is None else by.made(run.adapter, source)
    for part, watched in run.data.watched.items():
        if len(watched.centres):
            numbers, _, made = watched.look(run.adapter, source)
            numbers["spread"] = spread(made.embeddings)
            if by is not None:
                numbers |= watched.told(made, by, of_these)
            if part == "select":
                run.spread = numbers["spread"]
            board.scalars(numbers, part, run.epoch, *_watched(run, part))


def _watched(run: SeedRun, part: str) -> tuple[int, str]:
    """How many are looked at of a part, and what they are."""
    return len(run.data.watched[part].centres), run.data.config.unit
