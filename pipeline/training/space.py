"""What a search draws its trials from: a file that names parameters of training, and for each what it may be.

loss: [supcon, contrastive_cross_entropy, {supcon: 1, steadiness: 0.1}]     one of a list
dropout: {range: [0, 0.6]}                                                 evenly between two ends
learning_rate: {log: [1.0e-4, 1.0e-2]}                                     evenly in its logarithm
window: {range: [1, 47]}                                                   whole numbers, as the parameter is one
model_options.hidden_size: [null, 256]                                     one entry of a mapping
"""

import dataclasses
import json
import math
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.params import UserError, build, one_of, read
from pipeline.training.combinations import names_of
from pipeline.training.config import TrainConfig
from pipeline.training.losses import LOSSES

# What trials share: where things lie, which frames count and are scored, by what, and how the search itself goes.
SHARED = (
    "data", "labels", "unit", "clips", "frames", "output", "name", "runs", "projection", "alike", "test_split",
    "select_split", "split_seed", "select_by", "au_threshold_folds", "look_every", "top_k", "memory_gb", "seed",
    "combine", "combine_folds", "refit", "device", "evaluate", "all",
)  # fmt: skip
MAPPINGS = ("model_options", "loss_options", "sampler_options")
DIGITS = 3  # of a number between two ends, so that the lines of params.yaml stay short
MOST_MISSES = 1000  # draws in a row that give no new trial, after which there are taken to be no more


@dataclass(frozen=True)
class Between:
    """Evenly drawn numbers from ``low`` to ``high``, or with ``log`` evenly in their logarithm."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, rng: np.random.Generator) -> float | int:
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        if self.whole and not self.log:
            return int(rng.integers(self.low, self.high, endpoint=True))
        value = rng.uniform(*ends)
        value = math.exp(value) if self.log else value
        value = round(value) if self.whole else float(f"{value:.{DIGITS}g}")
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class OneOf:
    values: list[Any]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]


Space = Mapping[str, Between | OneOf]


class _Values(TrainConfig):
    """Of each value only type, range and choices are checked: what goes together is a matter of whole draws."""

    def __post_init__(self) -> None:
        for name in names_of(self.loss):
            one_of("loss", name, LOSSES)


def read_space(path: Path) -> Space:
    """The parameters of a file and what each may be.

    Raises ``UserError`` for a name that is no parameter, or one that all trials share, and for a value that the
    parameter cannot have.
    """
    content = read(path, "")
    if not content:
        raise UserError(f"{path} names no parameter to draw")
    return {name: _of_parameter(str(path), name, given) for name, given in content.items()}


def _of_parameter(path: str, name: str, given: Any) -> Between | OneOf:
    parameter, _, entry = str(name).partition(".")
    kinds = typing.get_type_hints(TrainConfig)
    one_of(f"{path}: parameter", parameter, [known for known in kinds if known not in SHARED])
    if entry and parameter not in MAPPINGS:
        raise UserError(f"{path}: '{name}' is not known: entries have {', '.join(MAPPINGS)}")
    at = f"{path}: {name}"
    if isinstance(given, list) and given:
        found, values = OneOf(given), given
    elif isinstance(given, dict) and len(given) == 1 and {*given} <= {"range", "log"}:
        ((kind, ends),) = given.items()
        if not (isinstance(ends, list) and len(ends) == 2):
            raise UserError(f"{at} must have two ends, as {{{kind}: [1, 10]}}, and is {given}")
        low, high = values = [_number(at, end) for end in ends]
        if not low < high or (kind == "log" and low <= 0):
            above = " and the lower one above 0" if kind == "log" else ""
            raise UserError(f"{at} must be from a lower to a higher end{above}, and is {given}")
        whole = all(isinstance(end, int) for end in values) and (bool(entry) or kinds[parameter] not in _REAL)
        found = Between(low, high, kind == "log", whole)
    else:
        raise UserError(f"{at} must be a list, {{range: [a, b]}} or {{log: [a, b]}}, and is {given!r}")
    for value in values:
        build(_Values, {parameter: {entry: value} if entry else value}, path)
    return found


_REAL = (float, float | None)


def _number(at: str, end: Any) -> float | int:
    """An end of a range; YAML 1.1 reads 1e-3 as a text."""
    try:
        value = float(end) if isinstance(end, str) else end
    except ValueError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{at}: an end must be a number, and is {end!r}")
    return value


@dataclass
class Draws:
    """Trials that are drawn from a space around the config ``base``: which ones is a pure function of ``seed``.

    ``refused`` counts the draws that were refused, by why. One that was drawn before is drawn again too.
    """

    space: Space
    base: TrainConfig
    seed: int
    refused: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], TrainConfig]]:
        """What was drawn, and the config with it; ends where ``MOST_MISSES`` draws in a row gave nothing new.

        Raises ``UserError`` where nothing was ever found.
        """
        known, misses, number, found = {_text({})}, 0, 0, False
        while misses < MOST_MISSES:
            rng = np.random.default_rng([self.seed, number])
            values = {name: of.draw(rng) for name, of in self.space.items()}
            number, misses = number + 1, misses + 1
            if _text(values) in known:
                continue
            known.add(_text(values))
            try:
                config = changed(self.base, values)
            except UserError as error:
                self.refused[str(error)] += 1
                continue
            misses, found = 0, True
            yield values, config
        if not found:
            why, _ = self.refused.most_common(1)[0]
            raise UserError(f"each of {len(known) - 1:,} draws from the space was refused, most of them so: {why}")


def changed(base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """``base`` with what was drawn; raises ``UserError`` where that does not go together.

    Of epochs and steps, the one that was drawn says how long to train.
    """
    fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    for name, value in values.items():
        parameter, _, entry = name.partition(".")
        fields[parameter] = {**fields[parameter], entry: value} if entry else value
    for name, other in (("epochs", "steps"), ("steps", "epochs")):
        if values.get(name) is not None and other not in values:
            fields[other] = None
    return build(TrainConfig, fields, "")


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
