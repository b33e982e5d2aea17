"""The project installed as a package: importable from any folder, with all its modules."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def python(tmp_path):
    """The interpreter of a new environment in which the project is installed, from a copy; its libraries are ours."""
    source, environment = tmp_path / "source", tmp_path / "environment"
    ignored = shutil.ignore_patterns("__pycache__")
    source.mkdir()
    for name in ("pipeline", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("extract.py", "train.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--no-index", "--target", packages, source], check=True, capture_output=True)
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


@pytest.mark.slow
def test_an_installed_project_is_whole_and_works_from_any_folder(python, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def ran(*words: str) -> str:
        return subprocess.run([python, *words], cwd=elsewhere, capture_output=True, text=True, check=True).stdout

    where = Path(ran("-c", "import pipeline; print(pipeline.__file__)").strip()).parent
    assert where.is_relative_to(tmp_path / "environment")
    ours = {path.relative_to(ROOT / "pipeline") for path in (ROOT / "pipeline").rglob("*") if path.is_file()}
    assert {path for path in ours if "__pycache__" not in path.parts} == {
        path.relative_to(where) for path in where.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path.name for path in where.parent.iterdir() if path.suffix == ".py"} == {"extract.py", "train.py"}
    assert not (where.parent / "benchmarks").exists()
    assert not (where.parent / "tests").exists()
    assert ran("-c", "import extract, train; from pipeline.embed import Embedder; print(Embedder.load.__name__)")
    assert "usage:" in ran("-m", "train", "--help")


def test_dvc_reads_yaml_by_the_parser_in_c():
    """It reads params.yaml for each stage: in Python that was much of the time of a 'dvc repro' with nothing to do."""
    pytest.importorskip("dvc")
    from dvc.utils.serialize import parse_yaml
    from ruamel.yaml import YAML, main

    assert YAML(typ="safe").Parser is main.CParser is not None
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert repr(parse_yaml(text, "params.yaml")) == repr(YAML(typ="safe", pure=True).load(text))
