"""What it takes to use a trained run, wherever it lies."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.adapter.adapter import Adapter, read_adapter
from pipeline.adapter.examples import to_path
from pipeline.core.choices import Choices
from pipeline.core.files import digest_of, read_json
from pipeline.core.params import UserError

Seed = int | Literal["all"] | None


@dataclass(frozen=True)
class Trained:
    """The adapters of a run that are used together, by the names of their folders: 'seed_0', 'fold_1/seed_0'.

    Facts and class centres are theirs (``Adapter.facts``, ``Adapter.centres``). ``weights`` is the backbone's file, as
    ``extraction.weights.prepare`` makes it: None where the features were made elsewhere. Of a run on several stores it
    is a list of those of each, or None where none is known. It may be gone, which counts only for who needs it.
    ``examples`` are the folders in which the adapters' example windows lie; none in a bundle.
    """

    path: Path
    adapters: dict[str, Adapter]
    weights: Path | list[Path | None] | None
    examples: dict[str, Path]

    @property
    def facts(self) -> dict[str, Any]:
        """Those that all members share: window, classes, made_by, ..."""
        return next(iter(self.adapters.values())).facts


def load_trained(path: str | Path, seed: Seed = None) -> Trained:
    """The run, or the bundle, in the folder ``path``.

    ``seed`` None is the one that has the best selection score, a number is that seed, 'all' are all of them. Each fold
    has seeds of its own; a number is that seed of each fold. Raises ``UserError`` where there is no such thing, where
    the training is not finished, and for a damaged file.
    """
    folder = Path(path)
    if seed is not None and seed != "all" and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise UserError(f"seed must be a number, 'all' or None, and is {seed!r}")
    for name in LOADERS:
        if (folder / name).is_file():
            return LOADERS[name](folder, seed)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name that of a run, as train.py makes it, or of a bundle")
    begun = [*folder.glob("seed_*/"), *folder.glob("fold_*/")]
    if begun or (folder / "config.json").is_file():
        raise UserError(
            f"the run {folder} is not finished, for it has no summary.json: go on with 'python train.py --resume "
            f"{folder}'"
        )
    raise UserError(f"{folder} is no run and no bundle: there is none of {', '.join(LOADERS)} in it")


def load_run(folder: Path, seed: Seed) -> Trained:
    """What train.py left in ``folder``."""
    summary = read_json(
        folder / "summary.json", "the summary of a run", f"Write it again with 'python train.py --resume {folder}'"
    )
    names = chosen(folder, summary["seeds"], seed)
    adapters = {name: read_adapter(folder / name / "best.safetensors") for name in names}
    if len({digest_of(adapter.facts["made_by"]) for adapter in adapters.values()}) > 1:
        raise UserError(f"each seed of {folder} has trained a backbone of its own: take one of {list(names)} by seed=N")
    places = [_weights(a.facts["weights"], folder / name) for name, a in adapters.items()]
    weights = next((place for place in places if place is not None), None)
    return Trained(folder, adapters, weights, {name: folder / name for name in names})


def _weights(place: str | list[str | None] | None, seed: Path) -> Path | list[Path | None] | None:
    if isinstance(place, list):
        return [_weights(each, seed) for each in place]
    return None if place is None else to_path(place, seed)


def chosen(folder: Path, results: list[dict[str, Any]], seed: Seed) -> list[str]:
    """The names of the members that ``seed`` asks for, by the results of all (``seed``, ``select``, maybe ``fold``)."""
    of = {(f"fold_{r['fold']}/" if "fold" in r else "") + f"seed_{r['seed']}": r for r in results}
    if seed == "all":
        return list(of)
    if seed is None:
        return [max(of, key=lambda name: -math.inf if of[name]["select"] is None else of[name]["select"])]
    names = [name for name, result in of.items() if result["seed"] == seed]
    if not names:
        raise UserError(f"{folder} has no seed {seed}, but {sorted({r['seed'] for r in results})}")
    return names


# The file by which each kind of folder is known, and what loads it: (folder, seed) -> Trained.
LOADERS = Choices(
    {"summary.json": "pipeline.embed.loading.load_run", "bundle.json": "pipeline.embed.bundled.load_bundle"}
)
