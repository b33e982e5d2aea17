"""A run that another one starts from: its head's weights are the first weights of the new run's head."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.adapter.adapter import Adapter, load_adapter
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, joined, refuse_seen

SHAPE = ("model", "model_options", "embedding_size", "num_features", "num_components", "normalise")


@dataclass(frozen=True)
class Earlier:
    """The best epochs of a run by seed; of a run of one seed, which all seeds start from, its number does not count.

    ``seen`` is all that its training looked at.
    """

    folder: Path
    adapters: dict[int, Adapter]
    seen: Seen
    files: dict[int, str]

    def of(self, seed: int) -> Adapter:
        """The adapter that a seed starts from. Raises ``UserError`` where the run has several, and not this one."""
        return self.adapters[self._number(seed)]

    def facts(self, seed: int) -> dict[str, str]:
        """What the checkpoint of the new run says of it."""
        return {"run": self.folder.as_posix(), "sha256": self.files[self._number(seed)]}

    def _number(self, seed: int) -> int:
        if len(self.adapters) > 1 and seed not in self.adapters:
            raise UserError(f"start: {self.folder} has the seeds {sorted(self.adapters)}, and seed {seed} is to start")
        return seed if seed in self.adapters else next(iter(self.adapters))


def load(
    folder: Path, facts: dict[str, Any], fold: int | None, alike: Collection[str], held: tuple[list[str], list[str]],
    select: tuple[list[str], list[str]],
) -> Earlier:  # fmt: skip
    """The run in ``folder``, for a run with these ``facts`` that holds out groups and videos, and selects on others.

    Raises ``UserError`` where there is none, where its features are not those of the store, where its head is of
    another shape, and where it was trained on what is held out or selected on now.
    """
    place = folder if fold is None else folder / f"fold_{fold}"
    files = {int(path.parent.name[5:]): path for path in place.glob("seed_*/best.safetensors")}
    if not files:
        raise UserError(f"start: there is no trained run in {place}: seed_*/best.safetensors is what train.py makes")
    adapters, seen = {}, []
    for seed, path in sorted(files.items()):
        adapter = adapters[seed] = load_adapter(path, facts["made_by"], alike)
        for name in SHAPE:
            if adapter.facts[name] != facts[name]:
                raise UserError(
                    f"start: the head of {path} is of another shape: {name} is {adapter.facts[name]} there, and "
                    f"{facts[name]} here"
                )
        way_out = "Start from a run of the same labels and split"
        refuse_seen(f"start: {path}", adapter.seen, held, "validation", way_out)
        of_training = {part: adapter.seen[part] for part in ("train", "start") if part in adapter.seen}
        refuse_seen(f"start: {path}", of_training, select, "selection", f"{way_out}, and with its select_split")
        seen += [adapter.seen[part] for part in ("train", "select", "start") if part in adapter.seen]
    digests = {seed: hashlib.sha256(path.read_bytes()).hexdigest() for seed, path in files.items()}
    return Earlier(folder, adapters, joined(seen), digests)
