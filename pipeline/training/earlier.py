"""A run that another one starts from: its head's weights, or its trained backbone's, are the first ones there."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.adapter.adapter import Adapter, load_adapter, read_adapter
from pipeline.adapter.own import BACKBONE
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, joined, refuse_seen

SHAPE = ("model", "model_options", "embedding_size", "num_features", "num_components", "normalise")


@dataclass(frozen=True)
class Earlier:
    """The best epochs of a run by seed; of a run of one seed, which all seeds start from, its number does not count.

    ``seen`` is all that its training looked at, ``files`` are where the weights lie that are taken.
    """

    folder: Path
    adapters: dict[int, Adapter]
    seen: Seen
    files: dict[int, Path]

    def of(self, seed: int) -> Adapter:
        """The adapter that a seed starts from. Raises ``UserError`` where the run has several, and not this one."""
        return self.adapters[self._number(seed)]

    def file(self, seed: int) -> Path:
        """The file that a seed starts from; raises as ``of``."""
        return self.files[self._number(seed)]

    def facts(self, seed: int) -> dict[str, str]:
        """What the checkpoint of the new run says of it."""
        return {"run": self.folder.as_posix(), "sha256": hashlib.sha256(self.file(seed).read_bytes()).hexdigest()}

    def _number(self, seed: int) -> int:
        if len(self.adapters) > 1 and seed not in self.adapters:
            raise UserError(f"start: {self.folder} has the seeds {sorted(self.adapters)}, and seed {seed} is asked for")
        return seed if seed in self.adapters else next(iter(self.adapters))


def load(
    folder: Path, facts: dict[str, Any], fold: int | None, alike: Collection[str], held: tuple[list[str], list[str]],
    select: tuple[list[str], list[str]],
) -> Earlier:  # fmt: skip
    """The run in ``folder``, for a run with these ``facts`` that holds out groups and videos, and selects on others.

    Raises ``UserError`` where there is none, where its features are not those of the store, where its head is of
    another shape, and where it was trained on what is held out or selected on now.
    """
    files = _files("start", folder, fold, "best.safetensors")
    adapters = {seed: load_adapter(path, facts["made_by"], alike) for seed, path in files.items()}
    for seed, path in files.items():
        adapter = adapters[seed]
        for name in SHAPE:
            if adapter.facts[name] != facts[name]:
                raise UserError(
                    f"start: the head of {path} is of another shape: {name} is {adapter.facts[name]} there, and "
                    f"{facts[name]} here"
                )
    return Earlier(folder, adapters, _seen("start", files, adapters, held, select), files)


def load_backbones(
    folder: Path, fold: int | None, held: tuple[list[str], list[str]], select: tuple[list[str], list[str]]
) -> Earlier:
    """The run in ``folder`` for its trained backbones: ``files`` are these. Its heads are not taken.

    Raises ``UserError`` where there are none, and where it was trained on what is held out or selected on now.
    """
    files = _files("backbone_start", folder, fold, BACKBONE)
    adapters = {seed: read_adapter(path.parent) for seed, path in files.items()}
    return Earlier(folder, adapters, _seen("backbone_start", files, adapters, held, select), files)


def _files(parameter: str, folder: Path, fold: int | None, name: str) -> dict[int, Path]:
    """The file ``name`` of each seed; a seed that has not been trained to its end is none."""
    place = folder if fold is None else folder / f"fold_{fold}"
    found = sorted((int(path.parent.name[5:]), path) for path in place.glob(f"seed_*/{name}"))
    files = {seed: path for seed, path in found if path.with_name("last.safetensors").is_file()}
    if not files:
        raise UserError(f"{parameter}: there is no trained run in {place}: seed_*/{name} is what train.py makes")
    return files


def _seen(
    parameter: str, files: dict[int, Path], adapters: dict[int, Adapter], held: tuple[list[str], list[str]],
    select: tuple[list[str], list[str]],
) -> Seen:  # fmt: skip
    """All that the trainings looked at. Raises ``UserError`` where that is held out, or selected on, now."""
    seen, way_out = [], "Start from a run of the same labels and split"
    for seed, path in files.items():
        has = adapters[seed].seen
        refuse_seen(f"{parameter}: {path}", has, held, "validation", way_out)
        of_training = {part: has[part] for part in ("train", "start", "backbone") if part in has}
        refuse_seen(f"{parameter}: {path}", of_training, select, "selection", f"{way_out}, and with its select_split")
        seen += [has[part] for part in ("train", "select", "start", "backbone") if part in has]
    return joined(seen)
