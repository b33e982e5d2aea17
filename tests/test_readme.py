"""What the README shows is done as it stands there."""

import re
import shutil
import subprocess
import sys

import numpy as np
import yaml
from conftest import ROOT
from test_train import made, place  # noqa: F401 - fixtures

README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAGS = ["--cpu", "-e", "2", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-r", "1"]


def test_a_loss_of_ones_own_is_the_ten_lines_that_the_readme_shows(place):  # noqa: F811
    (block,) = re.findall(r"```python\n(class Mine.*?)```", README, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 10
    for name in ("train.py", "pipeline"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    module = place / "pipeline" / "training" / "losses" / "__init__.py"
    module.write_text(module.read_text(encoding="utf-8") + "\n\n" + block, encoding="utf-8")
    command = [sys.executable, "train.py", "--loss", "mine", "--no-evaluate", *FLAGS]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "", "OMP_NUM_THREADS": "1"}, cwd=place)
    assert done.returncode == 0, done.stderr
    assert (place / "runs/manual/mlp-mine-balanced/seed_0/best.safetensors").is_file()
    listed = subprocess.run([sys.executable, "train.py", "--list"], capture_output=True, text=True, cwd=place)
    assert re.search(r"mine +What it is, in a line\. \[where it comes from\]", listed.stdout)


def test_the_store_opens_as_the_readme_shows_and_its_names_become_str(place):  # noqa: F811
    (block,) = re.findall(r"```python\n(import zarr.*?)```", README, flags=re.DOTALL)
    scope = {}
    exec(block, scope)
    assert isinstance(scope["video"].dtype, np.dtypes.StringDType)
    assert {type(name) for name in scope["names"]} == {str}
    assert scope["features"].shape == (len(scope["names"]), 12)
    assert scope["names"][0] == "v00"


def test_the_matrix_of_losses_and_samplers_is_a_stage_when_its_hashes_are_taken_away():
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    stages = yaml.safe_load(re.sub(r"^#(  .*)$", r"\1", text, flags=re.MULTILINE))["stages"]
    matrix, trained = stages["matrix"], stages["train"]["do"]
    assert matrix["deps"] == trained["deps"]
    assert set(matrix["matrix"]) == {"loss", "sampler"}
    assert "matrix" not in yaml.safe_load(text)["stages"]
