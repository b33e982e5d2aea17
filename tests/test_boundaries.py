"""The import boundary is the cache boundary: what a stage imports is what DVC watches for it, and nothing else."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SCRIPT = re.compile(r"python (?:-m (?P<module>[\w.]+)|(?P<file>\w+\.py))")
OURS = [*sorted((ROOT / "pipeline").rglob("*.py")), ROOT / "extract.py", ROOT / "train.py"]


def body(stage: dict) -> dict:
    return stage.get("do", stage)


def script(stage: dict) -> Path:
    found = SCRIPT.match(body(stage)["cmd"])
    place = ROOT / (found["file"] or found["module"].replace(".", "/"))
    return place / "__main__.py" if place.is_dir() else place.with_suffix(".py")


def imported(path: Path) -> set[Path]:
    """Our files that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            place = name.replace(".", "/")
            for file in (ROOT / f"{place}.py", ROOT / place / "__init__.py"):
                if name and file.is_file() and file.read_text(encoding="utf-8"):
                    found.add(file)
    return found


def closure(path: Path) -> set[Path]:
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += imported(file)
    return found


def packages(path: Path) -> set[str]:
    """The folders, below the project's own, of all files that a file imports."""
    return {part for p in closure(path) for part in p.relative_to(ROOT).parts[:-1]}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_just_the_modules_that_its_command_imports(name):
    deps = {d for d in body(STAGES[name])["deps"] if d.endswith(".py")}
    assert deps == {str(p.relative_to(ROOT)) for p in closure(script(STAGES[name]))}


def test_extraction_and_training_never_import_each_other():
    for stage, other in (("extraction", "training"), ("training", "extraction")):
        for path in (ROOT / "pipeline" / stage).rglob("*.py"):
            assert other not in packages(path), path
    assert not {"training", "evaluation", "datasets"} & packages(ROOT / "extract.py")
    assert not {"extraction", "datasets"} & packages(ROOT / "train.py")


BELOW = {
    "core": set(),
    "adapter": {"core", "training"},  # a loss still predicts; the next step takes that out
    "metrics": {"core"},
    "datasets": {"core"},
    "faces": {"core", "datasets"},
    "extraction": {"core"},
    "training": {"core", "adapter", "metrics"},
    "evaluation": {"core", "adapter", "metrics"},
    "submission": {"core", "adapter", "metrics", "evaluation"},
    "report": {"core", "metrics", "evaluation"},
}


@pytest.mark.parametrize("room", BELOW)
def test_imports_only_go_down(room):
    for path in (ROOT / "pipeline" / room).rglob("*.py"):
        rooms = {p.relative_to(ROOT).parts[1] for p in imported(path) if p.relative_to(ROOT).parts[0] == "pipeline"}
        assert rooms <= BELOW[room] | {room}, path


def test_every_room_is_held_to_that():
    assert {p.name for p in (ROOT / "pipeline").iterdir() if p.is_dir() and p.name != "__pycache__"} == set(BELOW)


def test_nothing_of_ours_needs_dvc():
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] == "dvc"], path


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_that_a_stage_names_is_there(name):
    for key in body(STAGES[name])["params"]:
        value = PARAMS
        for part in key.replace("${key}", next(iter(PARAMS["runs"]))).split("."):
            assert part in value, key
            value = value[part]


def test_only_extraction_keeps_its_output_over_a_run():
    """Any out with persist or cache: false would switch DVC's run cache off for its stage."""
    odd = {name for name, stage in STAGES.items() for out in body(stage)["outs"] if isinstance(out, dict)}
    assert odd == {"extract"}


def test_raw_frames_of_the_users_are_no_dependency():
    for stage in STAGES.values():
        assert "${dataset.root}" not in body(stage)["deps"]


def test_the_package_itself_is_empty():
    assert (ROOT / "pipeline" / "__init__.py").read_text() == ""
