"""A profile is the project with other parameters, in a folder of its own."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from pipeline import profile
from pipeline.core.params import UserError, read


@pytest.fixture
def project(workplace):
    """A copy of the project's sources and profiles."""
    for name in (*profile.COPIED, "profiles/small.yaml"):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, workplace / name)
    return workplace


def test_the_small_profile_differs_from_the_project_in_what_it_says_and_in_nothing_else(project):
    profile.main([])
    params, small = (yaml.safe_load((project / p / "params.yaml").read_text("utf-8")) for p in (".", "profiles/small"))
    said = yaml.safe_load((project / "profiles/small.yaml").read_text("utf-8"))
    assert small["runs"] == {name: params["runs"][name] for name in said["runs"]}
    differing = {
        section: {key: value for key, value in small[section].items() if value != params[section].get(key)}
        for section in small
        if section != "runs" and small[section] != params[section]
    }
    wanted = {s: {k: v for k, v in of.items() if v != params[s][k]} for s, of in said["params"].items()}
    assert differing == {section: values for section, values in wanted.items() if values}
    assert list(small) == list(params)


def test_the_copy_follows_the_project_and_keeps_its_own_results(project):
    profile.main([])
    copy = project / "profiles/small"
    (copy / "runs").mkdir()
    (copy / "runs/result").write_text("kept")
    old = (copy / "pipeline/code.py").stat().st_mtime_ns
    (project / "pipeline/training/losses/mine.py").write_text("MINE = 1\n")
    (project / "pipeline/training/losses/supcon.py").unlink()
    profile.main([])
    assert (copy / "pipeline/training/losses/mine.py").read_text() == "MINE = 1\n"
    assert not (copy / "pipeline/training/losses/supcon.py").exists()
    assert (copy / "pipeline/code.py").stat().st_mtime_ns == old  # what is the same is not written again
    assert (copy / "runs/result").read_text() == "kept"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"runs": ["frozem"]}, r"profile odd: run 'frozem' is not one of .*did you mean 'frozen'"),
        ({"params": {"trian": {}}}, r"profile odd: section 'trian' is not one of .*'train'"),
        ({"params": {"train": {"epoch": 3}}}, r"profile odd: parameter of train 'epoch' is not one of .*'epochs'"),
        ({"params": {"train": 3}}, "profile odd: section 'train' must be a mapping, and is 3"),
        ({"train": {}}, r"profile odd: key 'train' is not one of \['params', 'runs'\]"),
    ],
)
def test_a_profile_with_a_wrong_name_is_one_line(project, content, words):
    (project / "profiles/odd.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=words):
        profile.main(["--name", "odd"])
    assert not (project / "profiles/odd").exists()
    with pytest.raises(UserError, match=r"profile 'smal' is not one of .*did you mean 'small'"):
        profile.main(["--name", "smal"])


@pytest.mark.slow
def test_dvc_takes_the_copy_for_a_project_of_its_own(project):
    pytest.importorskip("dvc")

    def dvc(place, *words):
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        env["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), env["PATH"]])
        done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=place, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dvc(project, "init", "--no-scm", "-f", "-q")
    profile.main([])
    copy = project / "profiles/small"
    assert dvc(copy, "root").strip() == "."
    dvc(copy, "repro", "synthesize")
    count = read(copy / "params.yaml", "synthetic")["videos"]
    assert len([path for path in (copy / "data/synthetic").glob("batch*/*/*") if path.is_dir()]) >= count
    assert not (project / "data").exists()
    assert not (project / "dvc.lock").exists()
    assert "profiles" not in dvc(project, "status")
