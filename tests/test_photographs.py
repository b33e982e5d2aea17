"""Real photographs, real weights: the numbers that docs/evaluation.md gives for the 'clothing dataset (small)'.

Where the photographs lie is told by the environment variable PHOTOGRAPHS: {train,validation}/<class>/*.jpg, 3,409 CC0
images of 10 classes.
"""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import extract
import train
from pipeline.datasets import index
from pipeline.evaluation import evaluate
from pipeline.extraction import reduce

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("undrawn"),
    pytest.mark.skipif("PHOTOGRAPHS" not in os.environ, reason="PHOTOGRAPHS does not say where they are"),
]
STILLS = ["-e", "40", "-r", "1", "--window", "1", "--pooling", "centre", "--loss", "supcon", "-t", "8"]
STILLS += ["--learning-rate", "0.002", "--dropout", "0.2", "--refit", "all"]
STILLS += ["--model-options", "{hidden_size: 512, input_dropout: 0.5}"]
ADAPTER = ["--model", "mlp", "--loss", "{supcon: 1, arcface: 0.5}", "-e", "30", "-t", "10", "-r", "3"]
ADAPTER += ["--embedding-size", "512", "--dropout", "0.5", "--window", "1", "--pooling", "centre"]
ADAPTER += ["--select-split", "0.1"]
FROZEN = ["--model", "identity", "-e", "0", "--window", "1", "--pooling", "centre", "--no-reduce"]
FROZEN += ["--normalise", "none", "-r", "1"]


def metrics(name: str, *flags: str) -> dict[str, float]:
    train.main(["--name", name, "--no-evaluate", "--device", "cpu", *flags])
    evaluate.main(["--run", f"runs/manual/{name}", "--output", name, "--device", "cpu"])
    return json.loads(Path(name, "metrics.json").read_text())


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """The features of all photographs, extracted once."""
    place = tmp_path_factory.mktemp("photographs")
    with contextlib.chdir(place):
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        index.main(["--name", "folder", "--root", os.environ["PHOTOGRAPHS"]])
        assert extract.main(["--input-size", "224", "--fit", "squash", "--strict"]) == 0
    return place


@pytest.fixture
def extracted(features, workplace):
    shutil.copytree(features, workplace, dirs_exist_ok=True)


def test_the_defaults_are_good_on_photographs_and_what_docs_stills_says_is_better(extracted, capsys):
    reduce.main([])
    assert "no projection, training takes all 1,280 features as they are" in capsys.readouterr().out
    flags = ["-e", "30", "-r", "3", "--window", "1", "--pooling", "centre", "--loss", "supcon"]
    adapted = metrics("defaults", *flags)
    print(f"\ndefaults {adapted}", file=sys.stderr)
    assert adapted["knn_accuracy"] >= 0.82
    assert adapted["auc_same_different"] >= 0.955
    assert adapted["tpr_at_fpr_1e-2_same_different"] >= 0.47
    better = metrics("stills", *STILLS)  # without views, which would take four times as long to extract
    print(f"stills {better}", file=sys.stderr)
    assert better["knn_accuracy"] >= 0.84
    assert better["auc_same_different"] >= 0.966
    assert better["tpr_at_fpr_1e-2_same_different"] >= 0.58


def test_an_adapter_on_photographs_beats_the_frozen_features_by_the_stated_margin(extracted):
    reduce.main(["-n", "256"])
    frozen, adapted = metrics("frozen", *FROZEN), metrics("adapted", *ADAPTER)
    print(f"\nfrozen {frozen}\nadapted {adapted}", file=sys.stderr)
    assert 0.80 < frozen["knn_accuracy"] < 0.85
    assert 0.79 < frozen["auc_same_different"] < 0.84
    assert adapted["knn_accuracy"] >= 0.85
    assert adapted["auc_same_different"] >= 0.955
