"""A search for good parameters of training, in one process on features that are read once.

    python train.py --search space.yaml -n 40             40 trials around what params.yaml says
    python train.py --search space.yaml -n 40 --run tcn_supcon -r 3 --name tcn
    the same command again                                 goes on with a search that was killed

The file names parameters and what each may be: pipeline/training/space.py shows how. Trials are drawn at random. All
are trained for a part of their epochs; the best third goes on to three times as many, and so on (successive halving,
Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943). Each round trains from the start, so that a short
training has a whole schedule of the learning rate. The best five, and the parameters as they stand, are trained in full
with each of -r seeds.

A trial's score is that of its best epoch on the selection part: groups of the training split that are held out. The
validation part is never scored. The scores of a search are too good, since they are the best of many on one part. Only
'train.py' and evaluation say what a found run is worth.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.adapter.heads import HEADS
from pipeline.core.alone import alone
from pipeline.core.clips import Clips
from pipeline.core.files import digest_of, write_text
from pipeline.core.join import open_labelled, with_files
from pipeline.core.params import UserError, entry, given_params
from pipeline.core.store import FeatureStore
from pipeline.core.tables import Labels
from pipeline.training.combinations import select_by_of
from pipeline.training.config import TrainConfig, from_flags
from pipeline.training.data import Kept, TrainingData, load_data, what_is_read
from pipeline.training.loop import NotFinite
from pipeline.training.space import Draws, Space, changed, read_space
from pipeline.training.start import first

KEEP = 3  # one of so many goes on to the next round, which is so many times as long
FINALISTS = 5
AS_IT_STANDS = 0  # the number of the trial in which nothing is changed


@dataclass
class Trial:
    """A config to be tried: ``values`` are what it changes, ``score`` that of its last round."""

    number: int
    values: dict[str, Any]
    config: TrainConfig
    score: float = math.nan


@dataclass(frozen=True)
class Result:
    """What training one trial gave: the score of its best epoch, NaN where it became infinite, or why it is refused."""

    score: float
    epoch: int
    refused: str | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Searches, prints the best and writes them as lines for params.yaml."""
    argv = sys.argv[1:] if argv is None else list(argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--search", type=Path, required=True)
    early.add_argument("-n", "--trials", type=int, default=40)
    early.add_argument("--resume")
    given, flags = early.parse_known_args(argv)
    if given.resume:
        raise UserError("--search goes on by itself after a kill: give the same command again, without --resume")
    if given.trials < 1:
        raise UserError(f"-n must be at least 1 trial, and is {given.trials}")
    wanted, _ = from_flags(flags, __doc__)
    if wanted.runs < 2:
        raise UserError("--search needs -r 2 or more seeds: without them a best trial has no deviation")
    if wanted.trains_backbone:
        raise UserError("--search is for heads on stored features: leave unfreeze and lora out")
    space = read_space(given.search)
    folder = wanted.output / (wanted.name or f"search-{given.search.stem}")
    base = with_files(wanted, wanted.data, *wanted.tables)
    store, labels = open_labelled(base.data, base, base.frames, base.unit)
    if labels.folds:
        raise UserError(
            f"the label table is cut into {len(labels.folds)} folds: each group is reported on in one of them, so none "
            "is left to choose on. Search on one of them (dataset.fold in params.yaml)"
        )
    with alone(folder / "search.lock", lambda: f"another search writes into {folder}: give another --name"):
        search = Search(base, store, labels, folder, space)
        best = search.run(given.trials)
        section, _ = from_flags(given_params(argv), __doc__)
        lines = runs_of([search.config_of(trial, wanted) for trial, _ in best], section, given.search.stem)
        write_text(folder / "runs.yaml", lines)
    print(f"\nAs lines for 'runs:' of params.yaml, in {folder / 'runs.yaml'}:\n\n{lines}", end="")


class Search:
    """Trials around ``base``, and their results, which stand in ``folder``/trials.jsonl.

    The numbers depend on the data, the space, ``base`` and its seed alone: a killed search that goes on gives what one
    that was never killed gives (on a CPU).
    """

    def __init__(
        self, base: TrainConfig, store: FeatureStore, labels: Labels | Clips, folder: Path, space: Space
    ) -> None:
        self.store, self.labels, self.kept = store, labels, Kept()
        data = load_data(base, store, labels, None, self.kept)
        self.select_by, self.named_pairs = data.facts["select_by"], len(data.frames.pairs) > 0
        self.base = dataclasses.replace(base, select_by=self.select_by, combine="none")  # which changes no score
        self.scored = (
            f"{len(data.watched['select'].centres):,} {base.unit}s, {len(data.frames.names_of('select')[0])} groups"
        )
        self.draws = Draws(space, self.base, base.seed)
        self.file = TrialFile(folder / "trials.jsonl", _of(self.base, space, data))
        self.best = -math.inf

    def run(self, num_trials: int) -> list[tuple[Trial, np.ndarray]]:
        """The best trials and their scores over the seeds, the best first; without that in which nothing is changed."""
        sizes = rounds(num_trials)
        scored = f"scored by {self.select_by} ({self.scored})"
        print(f"{num_trials} trials in rounds of {', '.join(map(str, sizes))}, {scored}")
        standing = Trial(AS_IT_STANDS, {}, self.base)
        shares = [KEEP**-before for before in reversed(range(len(sizes)))]
        trials = self._first_round(num_trials, standing, shares[0])
        for size, share in zip(sizes[1:], shares[1:], strict=True):
            trials = self._round(sorted(trials, key=_by_score)[:size], share)
        seeds = range(self.base.seed, self.base.seed + self.base.runs)
        final = [*sorted(trials, key=_by_score)[:FINALISTS], standing]
        scores = {
            trial.number: np.array([self._result(trial, 1, seed).score for seed in seeds])
            for trial in by_features(final)
        }
        best = [(trial, scores[trial.number]) for trial in final[:-1]]
        best.sort(key=lambda found: _worst_last(found[1].mean()))
        print(self._table(best, scores[AS_IT_STANDS]))
        return best

    def config_of(self, trial: Trial, wanted: TrainConfig) -> TrainConfig:
        """The config to train it by hand: ``wanted``, as it was asked for, with what the trial changes."""
        config = changed(wanted, trial.values)
        own = config.select_by or select_by_of(config.loss, HEADS[config.model].pairs, self.named_pairs)
        return config if own == self.select_by else dataclasses.replace(config, select_by=self.select_by)

    def _first_round(self, num_trials: int, standing: Trial, share: float) -> list[Trial]:
        """As many trials as are wanted, with their scores. What cannot be trained is drawn again."""
        if not self._round([standing], share):
            raise UserError(next(iter(self.draws.refused)))
        trials: list[Trial] = []
        numbered = enumerate(self.draws, AS_IT_STANDS + 1)
        while some := [Trial(n, *found) for n, found in islice(numbered, num_trials - len(trials))]:
            trials += self._round(some, share)
        if len(trials) < num_trials:
            print(f"the space has {len(trials):,} trials that are not refused, as far as was drawn")
        return trials

    def _round(self, trials: Sequence[Trial], share: float) -> list[Trial]:
        """Those that are not refused, with their scores."""
        scored = []
        for trial in by_features(trials):
            result = self._result(trial, share, self.base.seed)
            if result.refused:
                self.draws.refused[result.refused] += 1
                continue
            trial.score = result.score
            scored.append(trial)
        return scored

    def _result(self, trial: Trial, share: float, seed: int) -> Result:
        """The result of training ``share`` of it, from the file where it stands there; one line is printed."""
        config = shortened(trial.config, share)
        known = self.file.get(trial.values, config, seed)
        started = time.monotonic()
        result = known or self._trained(config, seed)
        if known is None:
            self.file.add(trial, config, seed, result, time.monotonic() - started)
        length = f"{config.steps} steps" if config.steps else f"{config.epochs} epochs"
        what = f"refused: {result.refused}" if result.refused else f"{result.score:.3f}"
        self.best = max(self.best, -math.inf if math.isnan(result.score) else result.score)
        again = "" if known is None else ", known"
        line = f"trial {trial.number}, {length}, seed {seed}{again}: {what} (best {self.best:.3f})"
        print(f"{line}  {_words(trial.values)}", flush=True)
        return result

    def _trained(self, config: TrainConfig, seed: int) -> Result:
        said = io.StringIO()  # what loading says has been said of the parameters as they stand
        try:
            with redirect_stdout(said):
                data = load_data(config, self.store, self.labels, None, self.kept)
            return train_trial(data, seed, self.select_by)
        except NotFinite:
            return Result(math.nan, 0)
        except UserError as error:
            return Result(math.nan, 0, str(error))

    def _table(self, best: Sequence[tuple[Trial, np.ndarray]], standing: np.ndarray) -> str:
        lines = [
            f"\nThe best {len(best)} by {self.select_by} of the selection part ({self.scored}), {len(standing)} seeds:"
        ]
        for place, (trial, scores) in enumerate(best, 1):
            lines.append(f"  {place}  {_mean(scores)}  trial {trial.number}: {_words(trial.values)}")
        lines.append(f"  -  {_mean(standing)}  {_words({})}")
        lines.append("They are the best of many on one part, so these scores are too good: train and evaluate them.")
        if refused := self.draws.refused:
            lines.append(f"{sum(refused.values()):,} draws were refused and drawn again:")
            lines += [f"  {count:,} x {why}" for why, count in refused.most_common(5)]
            lines += [f"  and {len(refused) - 5:,} more reasons"] if len(refused) > 5 else []
        return "\n".join(lines)


def train_trial(data: TrainingData, seed: int, select_by: str) -> Result:
    """The best epoch of one seed by its score on the selection part, as ``train.py`` would keep it.

    Raises ``UserError`` where the selection part is too small to be scored.
    """
    adapter, trainer = first(data, seed)
    watched, config = data.watched["select"], data.config

    def score() -> float:
        value = watched.select(adapter, data.source, select_by) if len(watched.centres) else math.nan
        if math.isnan(value):
            raise UserError(f"the selection part is too small to be scored by {select_by}: see select_split")
        return value

    if trainer is None:
        return Result(score(), 0)
    epoch, best = 0, Result(-math.inf, 0)
    while trainer.share_done(epoch) < 1 and (config.patience is None or epoch - best.epoch < config.patience):
        trainer.epoch(epoch)
        epoch += 1
        if (value := score()) > best.score:
            best = Result(value, epoch)
    return best


class TrialFile:
    """A line of JSON a result, appended as soon as it is there; the first line says what all of them are of.

    Raises ``UserError`` where the file is of another search. A last line that was cut off is dropped.
    """

    def __init__(self, path: Path, of: Mapping[str, str]) -> None:
        self.path = path
        self._known: dict[str, Result] = {}
        lines = self._whole_lines()
        if not lines:
            self._append({"of": of})
        for number, line in enumerate(lines):
            try:
                content = json.loads(line)
                if number == 0:
                    self._refuse_another(content["of"], of)
                else:
                    score = math.nan if content["score"] is None else content["score"]
                    self._known[content["key"]] = Result(score, content["epoch"], content["refused"])
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path}, line {number + 1}, is no result of a search: delete it, or give another --name"
                ) from None

    def get(self, values: Mapping[str, Any], config: TrainConfig, seed: int) -> Result | None:
        return self._known.get(self._key(values, config, seed))

    def add(self, trial: Trial, config: TrainConfig, seed: int, result: Result, seconds: float) -> None:
        key = self._key(trial.values, config, seed)
        self._known[key] = result
        score = None if math.isnan(result.score) else result.score
        length = {"epochs": config.epochs, "steps": config.steps}
        content = {"trial": trial.number, "values": trial.values, **length, "seed": seed, "score": score}
        content |= {"epoch": result.epoch, "refused": result.refused, "seconds": round(seconds, 2), "key": key}
        self._append(content)

    def _key(self, values: Mapping[str, Any], config: TrainConfig, seed: int) -> str:
        return digest_of({"values": values, "epochs": config.epochs, "steps": config.steps, "seed": seed})

    def _append(self, content: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")

    def _whole_lines(self) -> list[str]:
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        return whole.decode("utf-8", "replace").splitlines()

    def _refuse_another(self, there: Mapping[str, str], now: Mapping[str, str]) -> None:
        if other := [name for name in now if there.get(name) != now[name]]:
            raise UserError(
                f"the search in {self.path.parent} was begun with other {' and '.join(other)}: give another --name, or "
                "delete that folder"
            )


def _of(base: TrainConfig, space: Space, data: TrainingData) -> dict[str, str]:
    """What the results of a search depend on, beside a trial's own values, length and seed, as hashes."""
    params = {name: value for name, value in dataclasses.asdict(base).items() if name not in NOT_OF_RESULTS}
    parts = {
        part: [names.tolist() for names in map(np.asarray, data.frames.names_of(part))] for part in ("train", "select")
    }
    labels = [data.frames.label, data.frames.va, data.frames.aus, data.frames.outputs]
    return {
        "parameters": digest_of(json.loads(json.dumps(params, default=str))),
        "space": digest_of({name: str(of) for name, of in space.items()}),
        "features": digest_of(data.facts["made_by"]),
        "labels": digest_of([parts, [hashlib.sha256(values.tobytes()).hexdigest() for values in labels]]),
    }


def by_features(trials: Sequence[Trial]) -> list[Trial]:
    """Trials of the same features one after the other, so that these are read once for them."""
    return sorted(trials, key=lambda trial: (str(what_is_read(trial.config)), trial.config.sampler))


def rounds(num_trials: int) -> list[int]:
    """How many trials each round has: the last one ``FINALISTS``, or fewer where there are no more."""
    sizes = [num_trials]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, math.ceil(sizes[-1] / KEEP)))
    return sizes


def shortened(config: TrainConfig, share: float) -> TrainConfig:
    """The config with a share of its epochs or steps, 1 at least where it trains at all."""
    name = "steps" if config.steps else "epochs"
    length = getattr(config, name)
    return dataclasses.replace(config, **{name: max(min(1, length), round(length * share))})


def runs_of(configs: Sequence[TrainConfig], section: TrainConfig, stem: str) -> str:
    """Lines for 'runs:' of params.yaml: of each config what differs from ``section``, which is 'train' there."""
    lines = []
    for number, config in enumerate(configs, 1):
        named = {name: getattr(config, name) for name in vars(config) if name not in NOT_IN_RUNS}
        own = {name: value for name, value in named.items() if value != getattr(section, name)}
        own = json.loads(json.dumps(own, default=lambda path: path.as_posix()))
        lines.append(f"  {stem}_{number}: {yaml.safe_dump(own, default_flow_style=True, sort_keys=False, width=10**6)}")
    return "".join(lines)


# What changes no result, or is told apart by the results themselves.
NOT_OF_RESULTS = (
    "data", "labels", "clips", "frames", "projection", "output", "name", "runs", "epochs", "steps", "seed", "memory_gb",
    "device", "look_every", "top_k", "au_threshold_folds", "combine", "combine_folds", "evaluate", "all",
)  # fmt: skip
# What a run of params.yaml does not say: where it is put, how it is watched, and what the machine is.
NOT_IN_RUNS = ("output", "name", "device", "memory_gb", "look_every", "top_k", "evaluate", "all")


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "as it stands"


def _mean(scores: np.ndarray) -> str:
    return f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}"


def _by_score(trial: Trial) -> float:
    return _worst_last(trial.score)


def _worst_last(score: float) -> float:
    """Sorts the best first, and what became infinite last."""
    return math.inf if math.isnan(score) else -score


if __name__ == "__main__":
    entry(main)
