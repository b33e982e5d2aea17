"""Which stores each run of params.yaml names itself, with what is in them now: DVC trains it again when that changes.

    python -m pipeline.further            writes data/stores/RUN for each run of params.yaml
    python -m pipeline.further --outside  writes data/outside.txt, of what lies outside data/trained

The default store is a dependency of every run. What a run names beside it (``data: [data/features.zarr, audio.zarr]``)
and its maps are not, for DVC's stages cannot depend on what only some runs have. Such a file has a line for each of
these stores, its projection and the maps: a hash and the path. The hash of a store is of the checksum in which each of
its chunks ends, so that a store of gigabytes takes a moment.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.files import write_text
from pipeline.core.params import entry, option, parse, read

OUTPUT, OUTSIDE = Path("data/stores"), Path("data/outside.txt")
TRAINED = Path("data/trained")  # what the stages of 'backbones' make
STORE = Path("data/features.zarr")  # the default one, as in core.tables
NOTHING = f"nothing but {STORE.as_posix()}"
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class FurtherConfig:
    """Flags alone: params.yaml has no section for them."""

    outside: bool = option(False, help=f"write {OUTSIDE} instead: what lies outside {TRAINED}")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(FurtherConfig, argv, sections=[], description=__doc__)
    params = read(Path("params.yaml"), "")
    runs = {run: params["train"] | (changes or {}) for run, changes in params["runs"].items()}
    if config.outside:
        named = {path for values in runs.values() for path in named_by(values) if TRAINED not in path.parents}
        lines = [f"{digest(path)}  {path.as_posix()}" for path in sorted(named)]
        write_text(OUTSIDE, "".join(f"{line}\n" for line in lines or [NOTHING]))  # DVC warns of an empty file
    else:
        shutil.rmtree(OUTPUT, ignore_errors=True)
        for run, values in runs.items():
            write_text(OUTPUT / run, "".join(f"{line}\n" for line in lines_of(values)))


def lines_of(run: Mapping[str, Any]) -> list[str]:
    """A line for each path that a run names: what is in it now, and the path."""
    return [f"{digest(path)}  {path.as_posix()}" for path in named_by(run)] or [NOTHING]


def named_by(run: Mapping[str, Any]) -> list[Path]:
    """Each store that a run names, but the default one, its projection, and the run's maps."""
    data = run.get("data") or []
    stores = [Path(of) for of in (data if isinstance(data, list) else [data])]
    stores = [store for store in stores if store != STORE]
    paths = [Path(run["maps"])] if run.get("maps") else []
    if stores:
        from pipeline.core.join import FILES  # here: pandas comes with these, and most runs name no store
        from pipeline.core.tables import beside_store

        paths = [path for of in stores for path in (of, beside_store(of, FILES["projection"]))] + paths
    return paths


def digest(path: Path) -> str:
    """16 hex digits of what is in a store, or in a file; 'not there' where there is neither."""
    if not path.exists():
        return "not there"
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.suffix != ".partial":
            whole = file.suffix in (".json", ".safetensors")
            found.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size} ".encode())
            found.update(file.read_bytes() if whole else _end(file))
    return found.hexdigest()[:16]


def _end(file: Path) -> bytes:
    with file.open("rb") as handle:
        handle.seek(-min(CHECKSUM_BYTES, file.stat().st_size), 2)
        return handle.read()


if __name__ == "__main__":
    entry(main)
