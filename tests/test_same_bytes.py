"""The same content is the same bytes: what DVC would hash of two makings is equal, event files aside."""

import hashlib
import os
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, draw_folder

import extract
import train
from pipeline.datasets import index
from pipeline.evaluation import evaluate
from pipeline.extraction import reduce
from pipeline.extraction.weights.__main__ import main as weights_main
from pipeline.training.checkpoints import write_summary

VIDEOS = {f"{split}/{emotion}/{split}{n}{emotion}": 6 for split in ("train", "val") for emotion in ("happy", "sad")
          for n in range(3)}  # fmt: skip


def stages() -> None:
    """All stages but the report, in the folder where we are."""
    draw_folder(Path("faces"), VIDEOS)
    assert index.main(["--root", "faces", "--name", "folder", "--class-map", "abaw"]) == 0
    backbone = ["--backbone", "test_efficientnet", "--weights", "random"]
    weights_main(backbone)
    assert extract.main([*backbone, "--input-size", "32", "--device", "cpu", "--workers", "1"]) == 0
    reduce.main(["-n", "4"])
    flags = ["--cpu", "-e", "2", "-r", "2", "--window", "3", "--embedding-size", "8", "--batch-size", "16"]
    flags += ["--select-split", "0.4", "--loss", "cross_entropy", "--dropout", "0.3"]
    train.main([*flags, "--name", "x", "--output", "runs", "--no-evaluate"])
    evaluate.main(["--run", "runs/x", "--output", "evaluation/x", "--resamples", "20", "--device", "cpu"])


def hashes(place: Path) -> dict[str, str]:
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.startswith("events.out.tfevents")
    }


def test_all_stages_made_twice_give_equal_files(tmp_path, monkeypatch):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        stages()
        found.append(hashes(Path()))
    kinds = {"data/labels.parquet", "data/index.json", "weights/test_efficientnet.safetensors", "data/extract.json"}
    kinds |= {"data/projection.safetensors", "runs/x/seed_1/best.safetensors", "evaluation/x/details.json"}
    assert kinds <= found[0].keys()
    different = [name for name in found[0].keys() | found[1].keys() if found[0].get(name) != found[1].get(name)]
    assert sorted(different) == []


def test_summary_names_the_checkpoints_by_their_content(tmp_path, monkeypatch):
    """So DVC's evaluate stage runs again for another checkpoint, and not for other event files."""
    monkeypatch.chdir(tmp_path)
    for name in ("seed_0", "fold_1/seed_2"):
        Path("run", name).mkdir(parents=True)
        Path("run", name, "best.safetensors").write_bytes(name.encode())
        Path("run", name, "events.out.tfevents.1").write_bytes(os.urandom(8))
    write_summary(Path("run"), [])
    before = Path("run/summary.json").read_bytes()
    Path("run/seed_0/events.out.tfevents.1").write_bytes(os.urandom(9))
    write_summary(Path("run"), [])
    assert Path("run/summary.json").read_bytes() == before
    for name in ("seed_0", "fold_1/seed_2"):
        path = Path("run", name, "best.safetensors")
        path.write_bytes(path.read_bytes() + b"x")
        write_summary(Path("run"), [])
        assert Path("run/summary.json").read_bytes() != before
        before = Path("run/summary.json").read_bytes()


@pytest.mark.parametrize("stage", ["evaluate", "baselines"])
def test_what_evaluation_depends_on_of_a_run_is_its_summary(stage):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = stages[stage].get("do", stages[stage])["deps"]
    assert [d for d in deps if d.startswith(("runs/", "${baselines.run}"))] == [
        {"evaluate": "runs/${key}/summary.json", "baselines": "${baselines.run}/summary.json"}[stage]
    ]
