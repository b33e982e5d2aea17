"""A full disk in the middle of any stage: one line, exit status 2, and what was made before is as it was."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from forks import python
from test_same_bytes import hashes, stages

from pipeline.core.tables import read_frames

pytestmark = pytest.mark.slow
BACKBONE = ["--backbone", "test_efficientnet", "--weights", "random"]
TRAIN = ["--cpu", "-e", "1", "--window", "1", "--embedding-size", "8", "--batch-size", "16", "--no-reduce"]
TRAIN += ["--select-split", "0.4", "--output", "runs", "--no-evaluate"]
COMMANDS = {
    "weights": ["pipeline.extraction.weights", *BACKBONE, "--folder", "other"],
    "index": ["pipeline.datasets.index", "--root", "faces", "--name", "folder", "--class-map", "abaw"],
    "reduce": ["pipeline.extraction.reduce", "-n", "3"],
    "train": ["train", *TRAIN, "--name"],
    "evaluate": ["pipeline.evaluation.evaluate", "--run", "runs/x", "--output", "evaluation/x", "--resamples", "9"],
    "report": ["pipeline.report"],
    "export": ["extract", *BACKBONE, "--export", "out.h5"],
    "predict": [
        "pipeline.submission.predict",
        "--run",
        "runs/x",
        "--list",
        "list.txt",
        "--task",
        "expr",
        "--by",
        "knn",
    ],
    "faces": ["pipeline.faces", "--input", "faces", "--workers", "1", "--names", "path"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        Path("params.yaml").write_text(yaml.safe_dump(params | {"runs": {"x": {}}}), encoding="utf-8")
        stages()
        Path("list.txt").write_text(read_frames(Path("data/frames.parquet")).table["video"].iloc[0] + "\n")
    return place


@pytest.mark.parametrize(
    ("stage", "limit"),
    [*((stage, 40) for stage in COMMANDS), *(("train", limit) for limit in (1500, 6000, 19_000, 24_000))],
)
def test_a_full_disk_is_one_line_and_nothing_made_is_lost(made, stage, limit):
    """A limit on the size of files stands for the disk: the kernel fails the write in the same place."""
    before = hashes(made)
    name = [f"y{limit}"] if stage == "train" else []
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = python("-m", *COMMANDS[stage], *name, cwd=made, env=env, largest_file=limit)
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stdout + done.stderr
    assert lines[-1].startswith("error: ")
    assert "File too large" in lines[-1]
    assert "Traceback" not in done.stderr
    assert {name: hashes(made).get(name) for name in before} == before
