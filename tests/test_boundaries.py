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
    return ROOT / (found["file"] or found["module"].replace(".", "/") + ".py")


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
            file = ROOT / (name.replace(".", "/") + ".py")
            if name and file.is_file():
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
        for path in (ROOT / "pipeline" / stage).glob("*.py"):
            assert other not in packages(path), path
    assert not {"training", "evaluation", "datasets"} & packages(ROOT / "extract.py")
    assert not {"extraction", "datasets"} & packages(ROOT / "train.py")


@pytest.mark.parametrize("name", ["heads", "losses", "samplers", "windows"])
def test_the_choices_of_training_know_no_other_part_of_the_project(name):
    known = {str(p.relative_to(ROOT)) for p in imported(ROOT / "pipeline" / "training" / f"{name}.py")}
    of_losses = {str(p.relative_to(ROOT)) for p in (ROOT / "pipeline" / "training").glob("losses_*.py")}
    assert known <= {"pipeline/params.py", "pipeline/training/choices.py"} | (of_losses if name == "losses" else set())


def test_metrics_know_no_store_and_no_training():
    for name in ("separation", "retrieval", "steadiness", "protocol"):
        names = {p.parent.name for p in closure(ROOT / "pipeline" / "evaluation" / f"{name}.py")}
        assert names == {"evaluation"}


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
