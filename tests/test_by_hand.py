"""Two commands on a folder of one's own, with params.yaml as it is: extract.py -d FOLDER, then train.py -d STORE."""

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, draw, draw_folder
from forks import python
from sklearn.decomposition import PCA

import extract
import train
from pipeline.core import children, join, projection
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.tables import read_labels
from pipeline.evaluation import baselines, evaluate
from pipeline.extraction import reduce
from pipeline.extraction.config import ExtractConfig
from pipeline.report.__main__ import ReportConfig
from pipeline.submission.predict import PredictConfig
from pipeline.training.config import TrainConfig

pytestmark = pytest.mark.usefixtures("undrawn")

EXTRACT = ["-d", "mine", "-s", "emb.zarr", "-b", "2048", "--data-aug", "--processor", "adapt-pca", "256"]
TRAIN = [
    "-d",
    "emb.zarr",
    "--model",
    "original",
    "-s",
    "tb",
    "-e",
    "150",
    "-r",
    "1",
    "-t",
    "15",
    "--test-split",
    "0.25",
    "-k",
    "1",
    "3",
    "5",
]
TINY = [
    "--backbone", "test_efficientnet", "--weights", "random", "--layers", "blocks.3", "--input-size", "64",
    "--device", "cpu", "--workers", "1",
]  # fmt: skip
FEW = ["-e", "2", "--device", "cpu"]
RUN = Path("tb/original-contrastive_cross_entropy-balanced")


def text(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


def abaw() -> None:
    for number in range(16):
        for frame in (1, 2, 3):
            draw(Path(f"mine/batch1/cropped_aligned/{number}-1/{frame:05d}.jpg"), 10 * number + frame)
        part = "Validation_Set" if number > 12 else "Train_Set"
        text(f"mine/6th/EXPR_Challenge/{part}/{number}-1.txt", f"Neutral,Anger\n{number % 2}\n{number % 2}\n0\n")


def ckplus() -> None:
    for number in range(16):
        name = f"cohn-kanade-images/S{number:03d}/001/S{number:03d}_001"
        for frame in range(1, 6):
            draw(Path(f"mine/{name}_{frame:08d}.png"), 10 * number + frame)
        emotion = 3.0 if number % 2 else 5.0
        text(f"mine/Emotion/S{number:03d}/001/S{number:03d}_001_00000005_emotion.txt", f"   {emotion}\n")


def csv() -> None:
    lines = [f"i/{n}.jpg;{('happy', 'sad')[n % 2]};{n // 4}" for n in range(64)]
    for n in range(64):
        draw(Path(f"mine/i/{n}.jpg"), n)
    text("mine/labels.csv", "\n".join(["image;emotion;subject", *lines]) + "\n")


def folder() -> None:
    draw_folder(Path("mine"), {f"{name}/{name[0]}{n}": 2 for name in ("happy", "sad") for n in range(16)})


@pytest.fixture
def in_process(monkeypatch):
    """The commands that a command starts, without starting Python again for each."""

    def run(command: list[str]) -> int:
        assert command[:2] == [sys.executable, "-m"]
        return import_module(command[2]).main(command[3:]) or 0

    monkeypatch.setattr(children, "run", run)


@pytest.mark.parametrize("make", [abaw, ckplus, csv, folder])
def test_the_two_commands_work_on_a_folder_of_each_layout(workplace, in_process, capsys, make):
    make()
    extract.main([*EXTRACT, *TINY])
    out = capsys.readouterr().out
    assert out.endswith("train on it with: python train.py -d emb.zarr\n")
    store = FeatureStore(Path("emb.zarr"))
    assert set(store.views) == {"original", "flipped"}
    train.main([*TRAIN, *FEW, "--no-evaluate"])
    assert "emb.zarr: with emb.labels.parquet and emb.projection.safetensors\n" in capsys.readouterr().out
    config = json.loads((RUN / "config.json").read_text())
    assert (config["labels"], config["projection"]) == ("emb.labels.parquet", "emb.projection.safetensors")
    assert read_labels(Path("emb.labels.parquet")).dataset == make.__name__
    assert (RUN / "seed_0/best.safetensors").is_file()
    assert not Path("data").exists()
    report = {p.name for p in Path().iterdir() if p.name.startswith("emb.")} - {"emb.zarr", "emb.zarr.lock"}
    assert report == {f"emb.{name}" for name in (
        "frames.parquet", "labels.parquet", "clips.parquet", "index.json", "extract.json", "projection.safetensors"
    )}  # fmt: skip


@pytest.mark.slow
def test_the_two_commands_as_a_user_types_them_and_evaluation_and_reduction_by_the_stores_name_alone(workplace):
    folder()
    for words in (
        ["extract.py", *EXTRACT, *TINY],
        ["train.py", *TRAIN, *FEW],
        ["-m", "pipeline.evaluation.evaluate", "--run", str(RUN), "-d", "emb.zarr", "-o", "again", "--device", "cpu"],
        ["-m", "pipeline.extraction.reduce", "-d", "emb.zarr", "-n", "3"],
    ):
        at = [str(ROOT / word) if word.endswith(".py") else word for word in words]
        done = python(*at)
        assert done.returncode == 0, done.stdout + done.stderr
    metrics, again = (json.loads((folder / "metrics.json").read_text()) for folder in (RUN, Path("again")))
    assert {"recall_at_1", "recall_at_3", "recall_at_5"} <= set(metrics)
    assert again["auc_same_different"] == metrics["auc_same_different"]
    headline = json.loads((RUN / "headline.json").read_text())
    assert headline.items() <= metrics.items()
    assert 0 < len(headline) <= 8
    fitted = projection.load(Path("emb.projection.safetensors"), FeatureStore(Path("emb.zarr")).made_by)
    assert len(fitted.components) == 3


def test_of_few_frames_the_projection_has_as_many_components_as_there_are_and_this_is_said_before(
    workplace, in_process, capsys
):
    draw_folder(
        Path("mine"), {f"train/{name}/{n}": 1 for name in ("happy", "sad") for n in range(6)} | {"val/sad/v": 1}
    )
    extract.main([*EXTRACT, *TINY])
    out = capsys.readouterr().out
    said = "12 training frames have 11 principal components at most, not 256"
    assert out.index(said) < out.index("13 frames extracted")
    store = FeatureStore(Path("emb.zarr"))
    fitted = projection.load(Path("emb.projection.safetensors"), store.made_by)
    train_rows = store.keys["row"].to_numpy()[store.keys["video"].astype("str").str.startswith("train")]
    peer = PCA(11).fit(store.read(train_rows).astype(np.float64))
    np.testing.assert_allclose(fitted.explained, peer.explained_variance_ratio_, rtol=1e-3)


def test_a_folder_without_labels_is_refused_before_anything_is_extracted(workplace, in_process):
    for frame in range(3):
        draw(Path(f"mine/cropped_aligned/v/{frame + 1:05d}.jpg"), frame)
    with pytest.raises(UserError, match="--processor fits a projection on labelled training frames, and of mine 0 are"):
        extract.main([*EXTRACT, *TINY])
    assert not Path("emb.zarr").exists()


def test_a_dry_run_of_the_first_command_writes_nothing(workplace, in_process, capsys):
    folder()
    before = sorted(Path().rglob("*"))
    extract.main([*EXTRACT, *TINY, "--dry-run"])
    assert "would extract 64 of 64 frames into emb.zarr" in capsys.readouterr().out
    assert sorted(Path().rglob("*")) == before


def test_what_is_missing_beside_a_store_with_tables_of_its_own_is_never_taken_from_another_data_set(workplace):
    """data/ holds the default data: its labels would be joined by whatever names are alike."""
    for name in ("data/frames.parquet", "data/labels.parquet", "data/projection.safetensors"):
        text(name, "")
    assert join.find_beside(Path("emb.zarr"), "labels.parquet") == Path("data/labels.parquet")
    text("emb.frames.parquet", "")
    assert join.find_beside(Path("emb.zarr"), "labels.parquet") == Path("emb.labels.parquet")
    text("there/frames.parquet", "")
    text("there/labels.parquet", "")
    assert join.find_beside(Path("there/x.zarr"), "labels.parquet") == Path("there/labels.parquet")
    assert join.find_beside(Path("there/x.zarr"), "projection.safetensors") == Path("there/x.projection.safetensors")
    assert join.find_beside(Path("data/features.zarr"), "labels.parquet") == Path("data/labels.parquet")
    assert join.find_beside(Path("nowhere.zarr").absolute(), "frames.parquet") == Path("data/frames.parquet")


def test_a_flag_beats_what_lies_beside_the_store(workplace, in_process):
    csv()
    extract.main([*EXTRACT, *TINY])
    Path("emb.labels.parquet").rename("other.parquet")
    with pytest.raises(UserError, match=r"no label table at emb\.labels\.parquet"):
        train.main([*TRAIN, *FEW])
    train.main([*TRAIN, *FEW, "--labels", "other.parquet", "--no-evaluate"])
    assert len(read_labels(Path("other.parquet")).table) == 64


def test_d_is_what_is_read_and_s_and_o_are_what_is_written_in_all_commands():
    configs = (
        ExtractConfig, TrainConfig, reduce.ReduceConfig, evaluate.EvaluateConfig,
        baselines.BaselinesConfig, PredictConfig, ReportConfig,
    )  # fmt: skip
    of: dict[str, set[str]] = {}
    for config in configs:
        fields = config.__dataclass_fields__.values()
        for letter, name in ((f, field.name) for field in fields for f in field.metadata.get("flags", ())):
            of.setdefault(letter, set()).add(name)
    assert of.pop("-d") == {"data", "evaluations"}
    assert of.pop("-s") == {"store", "output"}
    assert {letter: names for letter, names in of.items() if len(letter) == 2 and len(names) > 1} == {}
