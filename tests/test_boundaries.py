"""Which room may import which, and what dvc.yaml must name. (Which code a stage depends on: test_code.py.)"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from pipeline.code import imported

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
OURS = [*sorted((ROOT / "pipeline").rglob("*.py")), ROOT / "extract.py", ROOT / "train.py"]


def body(stage: dict) -> dict:
    return stage.get("do", stage)


BELOW = {
    "core": set(),
    "adapter": {"core"},
    "metrics": {"core"},
    "datasets": {"core"},
    "faces": {"core", "datasets"},
    "extraction": {"core"},
    "training": {"core", "adapter", "metrics"},
    "unfreeze": {"core", "adapter", "extraction"},
    "evaluation": {"core", "adapter", "metrics"},
    "submission": {"core", "adapter", "metrics", "evaluation"},
    "report": {"core", "metrics", "evaluation"},
    "bundle": {"core", "adapter", "metrics", "evaluation", "extraction", "embed"},
    "embed": {"core", "adapter", "datasets", "faces", "extraction", "metrics"},
    "demo": {"core", "datasets", "embed", "faces"},
}
SCRIPTS = {"extract.py": {"core", "extraction"}, "train.py": {"core", "adapter", "metrics", "training"}}


def rooms(path: Path) -> set[str]:
    """The folders of pipeline/ whose modules a file imports."""
    files = imported(ROOT, path, ast.parse(path.read_bytes()))
    return {file.relative_to(ROOT).parts[1] for file in files}


@pytest.mark.parametrize("room", BELOW)
def test_imports_only_go_down(room):
    for path in (ROOT / "pipeline" / room).rglob("*.py"):
        assert rooms(path) <= BELOW[room] | {room}, path


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_import_their_own_stage_and_what_lies_below(script):
    assert rooms(ROOT / script) <= SCRIPTS[script]


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
    for key in body(STAGES[name]).get("params", ()):
        value = PARAMS | {"backbones": PARAMS["runs"]}  # there are none by default
        for part in key.replace("${key}", next(iter(PARAMS["runs"]))).split("."):
            assert part in value, key
            value = value[part]


def test_only_extraction_keeps_its_output_over_a_run():
    """Any out with persist or cache: false would switch DVC's run cache off for its stage."""
    odd = {name for name, stage in STAGES.items() for out in body(stage)["outs"] if isinstance(out, dict)}
    assert odd == {"extract", "extract_trained"}


def test_raw_frames_of_the_users_are_no_dependency():
    for stage in STAGES.values():
        assert "${dataset.root}" not in body(stage)["deps"]


def test_the_package_itself_is_empty():
    assert (ROOT / "pipeline" / "__init__.py").read_text() == ""


# Libraries that take longer to import than a small command takes to run.
SLOW = {"cv2", "matplotlib", "onnxruntime", "pytorch_metric_learning", "scipy.stats", "sklearn", "tensorboard", "timm"}


@pytest.mark.parametrize(
    ("commands", "slow"),
    [
        (["pipeline.extraction.reduce", "pipeline.datasets.index", "pipeline.report.__main__"], SLOW | {"torch"}),
        (["pipeline.code", "pipeline.further"], SLOW | {"torch", "pandas", "zarr"}),
        (
            ["train", "pipeline.evaluation.evaluate", "pipeline.evaluation.baselines", "pipeline.submission.predict"],
            SLOW,
        ),
    ],
)
def test_slow_libraries_are_imported_where_they_are_used_and_not_at_the_start(commands, slow):
    code = f"import sys, {', '.join(commands)}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not slow & set(modules.stdout.split())
