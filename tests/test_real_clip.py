"""The commands of docs/real_clip.md parse, its measures are right, and with a real clip it all runs."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from forks import bin_folder, python

from pipeline.core import params
from pipeline.extraction.config import ExtractConfig
from pipeline.faces.__main__ import FacesConfig
from pipeline.submission.predict import PredictConfig
from pipeline.training.config import from_flags

TEXT = (ROOT / "docs/real_clip.md").read_text(encoding="utf-8")
LINES = re.sub(r" \\\n *", " ", TEXT).splitlines()
COMMANDS = [line.strip() for line in LINES if re.match(r"    (python|echo) ", line)]
BLOCKS = dict(zip(("tight.py", "measure.py"), re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL), strict=True))
REAL = Path(os.environ.get("FACES", "not given"))


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python")])
def test_each_command_is_understood(command, workplace):
    _, *words = shlex.split(command)
    name, argv = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
    if name == "train.py":
        assert from_flags(argv, "")[0].name in ("window_1", "window_15")
    elif name == "extract.py":
        params.parse(ExtractConfig, argv, sections=["extract"], description="")
    elif name in BLOCKS:
        compile(BLOCKS[name], name, "exec")
    else:
        config, sections = {
            "pipeline.faces": (FacesConfig, ["faces"]), "pipeline.submission.predict": (PredictConfig, []),
        }[name]  # fmt: skip
        params.parse(config, argv, sections=sections, description="")


def test_the_measures_are_those_that_are_counted_by_hand(tmp_path):
    """12 frames: valence 0 but for a step to 0.5 at frame 5, one tremble of 0.1, three changes of class."""
    valence = [0, 0, 0.1, 0, *[0.5] * 8]
    label = [0, 0, 1, 0, *[4] * 8]
    rows = [f"clip/{i:05d}.jpg,{v},0.0,{label[i]},{','.join('0' * 12)}" for i, v in enumerate(valence)]
    (tmp_path / "predictions.txt").write_text("\n".join(["image,valence,arousal,expression,aus", *rows]))
    done = python("-c", BLOCKS["measure.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    flips, tremble, rise, at = re.search(r"flips (.*), tremble (.*), rise (.*), from frame (.*)", done.stdout).groups()
    assert float(flips) == pytest.approx(100 * 3 / 11, abs=0.05)
    assert float(tremble) == pytest.approx((0.1 + 0.1 + 0.5) / 11, abs=5e-5)
    assert float(rise) == pytest.approx(0.5)
    assert int(at) == 5


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "single_face.mp4").is_file(), reason="FACES names no folder of real clips")
def test_the_commands_run_one_after_the_other_and_width_steadies(workplace):
    """On less drawn data, and with fewer epochs."""
    shutil.copy(REAL / "single_face.mp4", "clip.mp4")
    given = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    given["synthetic"] |= {"videos": 40, "frames": 60}
    given["runs"]["mlp_multitask"]["epochs"] = 3
    Path("params.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    for name, text in BLOCKS.items():
        Path(name).write_text(text, encoding="utf-8")
    before = ["pipeline.datasets.synthetic", "pipeline.datasets.index", "pipeline.extraction.weights", "extract"]
    made = [f"python -m {module}" for module in [*before, "pipeline.extraction.reduce"]]
    path = {"PYTHONPATH": str(ROOT), "PATH": f"{bin_folder()}:{os.environ['PATH']}"}
    for command in [*made, *COMMANDS]:
        command = re.sub(r"python (extract|train)\.py", r"python -m \1", command)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ | path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    numbers = dict(re.findall(r"clip/(\w+): .*tremble ([\d.]+)", done.stdout))
    tremble = {name: float(value) for name, value in numbers.items()}
    assert len(tremble) == 6
    for crops in ("aligned", "tight"):
        assert tremble[f"{crops}_1"] > 3 * tremble[f"{crops}_15"]
    assert tremble["aligned_1"] > 3 * tremble["aligned_1_box_15"]
    assert tremble["aligned_15"] > 3 * tremble["aligned_15_box_101"]
    assert Path("clip/tight_1/vouched.json").is_file()
