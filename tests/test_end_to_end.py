"""The whole pipeline under DVC, small: a tiny backbone with random weights on a few drawn clips."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from forks import bin_folder, python

SHIPPED = ["dvc.yaml", "params.yaml", "extract.py", "train.py", ".dvcignore", ".dvc/config", "pipeline"]

pytestmark = pytest.mark.slow
pytest.importorskip("dvc")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What a user unpacks, without git, with everything in it made small."""
    place = tmp_path_factory.mktemp("unpacked")
    for name in SHIPPED:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    change(place, synthetic={"videos": 24, "frames": 30}, reduce={"components": 8})
    change(place, extract={"backbone": "test_efficientnet", "weights": "random", "input_size": 32})
    change(place, train={"epochs": 1, "runs": 1, "select_split": 0.25, "window": 3, "batch_size": 64})
    change(place, evaluate={"resamples": 50, "timelines": 1}, baselines={"smoothings": {"box": [101]}})
    runs = yaml.safe_load((place / "params.yaml").read_text())["runs"]
    change(place, runs={name: None for name in runs if name not in ("frozen", "mlp_classifier", "tcn_supcon")})
    dvc(place, "config", "--local", "core.no_scm", "true")
    return place


def change(place: Path, **sections: dict) -> None:
    """Sets values in params.yaml; None takes a key away."""
    params = yaml.safe_load((place / "params.yaml").read_text())
    for section, values in sections.items():
        params[section] = {k: v for k, v in (params[section] | values).items() if v is not None}
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def dvc(place: Path, *words: str) -> str:
    """What DVC says. It and its stages start at once; 'make repro' starts them as a user does."""
    environment = os.environ | {"PATH": os.pathsep.join([str(bin_folder()), os.environ["PATH"]])}
    done = python("-m", "dvc", *words, cwd=place, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(output: str) -> list[str]:
    """The stages that ran, in their order, without those that hash the code and the further stores of runs."""
    return [stage for stage in every_stage(output) if stage not in ("code", "stores")]


def every_stage(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_one_command_rebuilds_everything_and_nothing_twice(place):
    first = dvc(place, "repro")
    assert ran(first)[:5] == ["synthesize", "index", "weights", "extract", "reduce"]
    runs = ("frozen", "mlp_classifier", "tcn_supcon")
    of_runs = {f"{stage}@{run}" for stage in ("train", "evaluate") for run in runs}
    assert set(ran(first)[5:]) == of_runs | {"baselines", "report"}
    report = (place / "report" / "report.md").read_text()
    assert "synthetic abaw" in report
    assert all(f"| {run} |" in report for run in ("baseline: frozen", *runs[1:], "baseline: mlp_classifier_box_101"))
    assert (place / "report" / "index.html").stat().st_size > 100_000
    assert (place / "report" / "runs.png").stat().st_size > 10_000
    assert "AUC same/different" in first
    assert len(list((place / "runs").glob("*/seed_0/events.*"))) == 3

    assert every_stage(dvc(place, "repro")) == ["index"]  # which looks every time

    comment(place / "pipeline/training/losses/supcon.py")
    comment(place / "train.py")
    assert ran(dvc(place, "repro")) == ["index"]

    change(place, runs={"tcn_supcon": {"model": "tcn", "loss": "triplet"}})
    assert ran(dvc(place, "repro")) == ["index", "train@tcn_supcon", "evaluate@tcn_supcon", "report"]

    change(place, runs={"mlp_supcon": {"loss": "supcon"}})
    assert ran(dvc(place, "repro")) == ["index", "train@mlp_supcon", "evaluate@mlp_supcon", "report"]

    change(place, train={"model": "gru"}, runs={"mlp_supcon": {"loss": "supcon", "model": "mlp"}})  # of it as before
    dvc(place, "repro", "code")
    stale = set(json.loads(dvc(place, "status", "--json")))
    assert "train@mlp_classifier" in stale
    assert {"train@frozen", "train@mlp_supcon", "train@tcn_supcon"} & stale == set()
    change(place, train={"model": "mlp"})

    change(place, runs={"mlp_supcon": None})
    assert ran(dvc(place, "repro")) == ["index", "report"]
    assert "mlp_supcon" not in (place / "report" / "report.md").read_text()

    frames = len(list((place / "data" / "synthetic").rglob("*.jpg")))
    change(place, extract={"input_size": 48})
    output = dvc(place, "repro")
    assert "input_size 32 there, 48 here" in output
    assert f"{frames:,} frames extracted, 0 were there" in output
    assert "train@frozen" in ran(output)

    change(place, extract={"batch_size": 8})  # decides nothing about the numbers: looked at, nothing extracted
    assert "0 frames extracted" in dvc(place, "repro", "extract")


RUNS = ("frozen", "mlp_classifier", "tcn_supcon")
LOOK = {"index"}  # which looks every time
TRAIN, EVALUATE = ({f"{stage}@{run}" for run in RUNS} for stage in ("train", "evaluate"))
EDITS = {
    "pipeline/training/losses/vicreg.py": set(),  # that no run uses
    "pipeline/training/losses/triplet.py": {"train@tcn_supcon"},
    "pipeline/adapter/heads/tcn.py": {"train@tcn_supcon", "evaluate@tcn_supcon"},
    "pipeline/training/board.py": set(),
    "pipeline/core/progress.py": set(),
    "pipeline/evaluation/evaluate.py": {*EVALUATE, "baselines"},
    "pipeline/report/page.py": {"report"},
    "pipeline/training/loop.py": TRAIN,
    "pipeline/extraction/forward.py": {"extract"},
    "pipeline/core/store.py": {"extract", "reduce", "stores", *TRAIN, *EVALUATE, "baselines", "report"},
}


def test_an_edit_of_the_code_makes_stale_what_runs_it_and_nothing_else(place):
    change(place, runs={"tcn_supcon": {"model": "tcn", "loss": "triplet"}})  # as the test before leaves it
    dvc(place, "repro")
    for path, stages in EDITS.items():
        file = place / path
        text = file.read_text(encoding="utf-8")
        file.write_text(text + "\n\nEDITED = True\n", encoding="utf-8")
        python("-m", "pipeline.code", cwd=place, check=True)
        assert set(json.loads(dvc(place, "status", "--json"))) - LOOK == {"code", *stages}, path
        file.write_text(text, encoding="utf-8")
    dvc(place, "repro", "code")
    assert set(json.loads(dvc(place, "status", "--json"))) == LOOK


def comment(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# A line that says why.\n", encoding="utf-8")


def test_another_cut_of_the_frames_trains_the_run_on_it_again_at_once(place):
    """The store of a cut is no out of a stage: 'index' sees it before 'extract' makes it, and 'stores' behind that."""
    data = ["data/features.zarr", "data/features.tight.zarr"]
    change(place, extract={"cuts": {"tight": 0.8}}, runs={"cut": {"data": data, "reduce": False}})
    assert {"extract", "train@cut"} <= set(ran(dvc(place, "repro", "train@cut")))
    assert ran(dvc(place, "repro", "train@cut")) == ["index"]
    change(place, extract={"cuts": {"tight": 0.6}})
    assert ran(dvc(place, "repro", "train@cut")) == ["index", "extract", "train@cut"]
    assert ran(dvc(place, "repro", "train@cut")) == ["index"]
    change(place, extract={"cuts": {}}, runs={"cut": None})


def test_the_metrics_are_what_dvc_reads(place):
    dvc(place, "repro")
    shown = dvc(place, "metrics", "show")
    assert "auc_same_different" in shown
    assert "mlp_classifier" in shown
    assert "about" not in shown
    dvc(place, "plots", "show")
    assert [path for path in (place / "dvc_plots").rglob("*.png") if "tcn_supcon" in path.name and "roc" in path.name]


def test_folds_are_trained_one_after_the_other_and_reported_as_one(place):
    dvc(place, "repro", "reduce")
    change(place, dataset={"folds": 3}, runs={"tcn_supcon": None})
    params = yaml.safe_load((place / "params.yaml").read_text())
    done = ran(dvc(place, "repro"))
    assert done[:2] == ["index", "reduce"]  # nothing is extracted again
    assert done[-1] == "report"
    for run in params["runs"]:
        assert {p.parent.name for p in (place / "runs" / run).glob("fold_*/seed_0")} == {"fold_0", "fold_1", "fold_2"}
    report = (place / "report" / "report.md").read_text()
    assert "(3 folds by group: each frame once" in report
    assert "| baseline: mlp_classifier_box_101" in report
    assert ran(dvc(place, "repro")) == ["index"]


def test_the_commented_matrix_trains_every_loss_with_every_sampler(place):
    text = re.sub(r"^#(  .*)$", r"\1", (place / "dvc.yaml").read_text(), flags=re.MULTILINE)
    text = re.sub(r"loss: \[contrastive.*\]", "loss: [supcon, cosface]", text)
    text = re.sub(r"sampler: \[balanced.*\]", "sampler: [opposite]", text)
    (place / "dvc.yaml").write_text(text)
    assert set(ran(dvc(place, "repro", "matrix"))[-2:]) == {"matrix@supcon-opposite", "matrix@cosface-opposite"}
    assert (place / "matrix" / "supcon-opposite" / "metrics.json").is_file()
