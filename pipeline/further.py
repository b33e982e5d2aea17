"""Which stores each run of params.yaml names itself, with what is in them now: DVC trains it again when that changes.

    python -m pipeline.further            writes data/stores/RUN for each run of params.yaml

The default store is a dependency of every run. What a run names beside it (``data: [data/features.zarr, audio.zarr]``)
and its maps are not, for DVC's stages cannot depend on what only some runs have. Such a file has a line for each of
these stores, its projection and the maps: a hash and the path. The hash of a store is of the checksum in which each of
its chunks ends, so that a store of gigabytes takes a moment.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.files import write_text
from pipeline.core.params import entry, read

OUTPUT = Path("data/stores")
STORE = Path("data/features.zarr")  # the default one, as in core.tables
CHECKSUM_BYTES = 4


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    params = read(Path("params.yaml"), "")
    for run, changes in params["runs"].items():
        write_text(OUTPUT / run, "".join(f"{line}\n" for line in lines_of(params["train"] | (changes or {}))))


def lines_of(run: Mapping[str, Any]) -> list[str]:
    """A line for each store that a run names, but the default one, for its projection, and for its maps."""
    data = run.get("data") or []
    stores = [Path(of) for of in (data if isinstance(data, list) else [data])]
    stores = [store for store in stores if store != STORE]
    paths = [Path(run["maps"])] if run.get("maps") else []
    if stores:
        from pipeline.core.join import FILES  # here: pandas comes with these, and most runs name no store
        from pipeline.core.tables import beside_store

        paths = [path for of in stores for path in (of, beside_store(of, FILES["projection"]))] + paths
    return [f"{digest(path)}  {path.as_posix()}" for path in paths] or [f"nothing but {STORE.as_posix()}"]


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
