"""A copy of the project with other parameters in a folder of its own, where 'dvc repro' makes results of its own.

    python -m pipeline.profile --name small

profiles/NAME.yaml says what differs from params.yaml. Code, data, runs, cache and report of the copy lie in
profiles/NAME, so nothing is mixed up with the results of the project. Called again, it brings the copy up to date;
'dvc repro' there makes again what changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.files import whole
from pipeline.core.params import UserError, entry, one_of, option, parse, read

PROFILES = Path("profiles")
COPIED = ("dvc.yaml", "extract.py", "train.py", ".dvcignore", ".dvc/config", "pipeline")
NO_GIT = b"[core]\n    no_scm = true\n"  # DVC shall take the copy for a project of its own


@dataclass(frozen=True)
class ProfileConfig:
    """Flags alone: params.yaml has no section for them."""

    name: str = option("small", help="a file profiles/NAME.yaml")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ProfileConfig, argv, sections=[], description=__doc__)
    name = one_of("profile", config.name, sorted(path.stem for path in PROFILES.glob("*.yaml")))
    profile, params = read(PROFILES / f"{name}.yaml", ""), read(Path("params.yaml"), "")
    wanted = {Path("params.yaml"): yaml.safe_dump(changed(params, profile, name), sort_keys=False).encode()}
    wanted[Path(".dvc/config.local")] = NO_GIT
    wanted |= {path: path.read_bytes() for path in _sources()}
    folder = PROFILES / name
    for path, content in wanted.items():
        if not (folder / path).is_file() or (folder / path).read_bytes() != content:
            with whole(folder / path) as file:
                file.write(content)
    for path in [path for path in (folder / "pipeline").rglob("*") if path.is_file()]:
        if path.relative_to(folder) not in wanted and "__pycache__" not in path.parts:
            path.unlink()  # it left the project
    print(f"{folder}: {', '.join(read(folder / 'params.yaml', 'runs'))}; 'dvc repro' there makes its report")


def changed(params: Mapping[str, Any], profile: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters of a profile: those of the project with its values in the place of others, and only its runs."""
    where = f"profile {name}"
    for key in profile:
        one_of(f"{where}: key", key, ("params", "runs"))
    runs = [one_of(f"{where}: run", run, params["runs"]) for run in profile.get("runs", params["runs"])]
    merged = dict(params) | {"runs": {run: params["runs"][run] for run in runs}}
    for section, values in (profile.get("params") or {}).items():
        one_of(f"{where}: section", section, params)
        if not isinstance(values, dict):
            raise UserError(f"{where}: section '{section}' must be a mapping, and is {values!r}")
        for key in values:
            one_of(f"{where}: parameter of {section}", key, params[section])
        merged[section] = params[section] | values
    return merged


def _sources() -> Iterator[Path]:
    """The project's files that its stages need."""
    for path in map(Path, COPIED):
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


if __name__ == "__main__":
    entry(main)
