"""By hand, on a folder that params.yaml does not know: the data set in it is recognised, or asked for."""

import json
from pathlib import Path

import pandas as pd
import pytest
import test_check as layouts
import yaml

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.tables import read_frames, read_labels
from pipeline.datasets import index

TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--device", "cpu", "-b", "4"]
KNOWN = {
    "abaw": layouts.abaw,
    "afew_va": layouts.afew_va,
    "bah": layouts.bah_tree,
    "caer": layouts.caer_tree,
    "ckplus": layouts.ckplus,
    "clips": layouts.clip_table,
    "csv": layouts.table,
    "dfew": layouts.dfew_tree,
    "ferv39k": layouts.ferv39k_tree,
    "folder": layouts.folder,
    "mafw": layouts.mafw_tree,
    "pairs": layouts.pairs,
    "ravdess": layouts.ravdess,
    "shapes": layouts.drawn_shapes,
}


@pytest.fixture
def other(workplace) -> Path:
    """A folder beside the one of params.yaml, whose settings would break any other data set."""
    params = yaml.safe_load((workplace / "params.yaml").read_text())
    params["dataset"] |= {
        "root": "data/mine",
        "annotations": "data/mine/t",
        "columns": {"path": "p"},
        "class_map": "abaw",
    }
    (workplace / "params.yaml").write_text(yaml.safe_dump(params))
    (workplace / "other").mkdir()
    return workplace / "other"


def report(*flags: str) -> dict:
    assert index.main(["--root", "other", *flags]) == 0
    return json.loads(Path("data/index.json").read_text())


@pytest.mark.parametrize("name", KNOWN)
def test_extract_by_hand_on_a_folder_of_each_layout_finds_frames_and_labels(other, name):
    KNOWN[name](other)
    assert extract.main([*TINY, "-d", "other", "-s", "by_hand.zarr"]) == 0
    frames, labels = read_frames(Path("by_hand.frames.parquet")), read_labels(Path("by_hand.labels.parquet"))
    assert frames.dataset == name
    keys = FeatureStore(Path("by_hand.zarr")).keys
    assert len(keys.astype({"video": "str"}).merge(frames.table, on=["video", "frame"])) == len(frames.table) > 0
    tracks = labels.table.reindex(columns=["expression", "valence"])
    assert tracks.notna().any(axis=1).all()
    assert len(tracks) > 0


@pytest.mark.parametrize(
    ("make", "recognised"),
    [
        (layouts.multi_task, "name abaw"),
        (layouts.loose_crops, "name abaw"),
        (layouts.ck48, "name ckplus"),
        (layouts.pair_table, "name pairs, annotations other/p.csv"),
        (
            layouts.table,
            "name csv, annotations other/labels.csv, columns {'path': 'image', 'label': 'emotion', 'group': ",
        ),
    ],
)
def test_what_was_recognised_is_said(other, capsys, make, recognised):
    make(other)
    assert report()["recognised"].startswith(recognised)
    assert f"recognised: {recognised}" in capsys.readouterr().out


def test_of_the_folder_of_params_yaml_everything_holds_that_it_says(other):
    layouts.images(other, "hat/a.jpg", "hat/b.jpg")
    layouts.file(other, "t.csv", "p,label\nhat/a.jpg,joy\n")
    section = {"name": "csv", "root": "other", "annotations": "other/t.csv", "columns": {"path": "p"}}
    Path("params.yaml").write_text(yaml.safe_dump({"dataset": section | {"class_map": {"joy": "Happiness"}}}))
    assert report()["class_map"] == {"joy": "Happiness"}
    assert "recognised" not in report()


def test_how_to_split_holds_for_any_folder(other):
    layouts.images(other, *(f"hat/{n}.jpg" for n in range(6)), *(f"cap/{n}.jpg" for n in range(6)))
    assert report()["split"] == "drawn by group, val_fraction 0.2, seed 0"
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("folds: null", "folds: 3"))
    assert report()["split"] == "3 folds by group, seed 0"
    assert report("--folds", "null")["split"] == "drawn by group, val_fraction 0.2, seed 0"


@pytest.mark.parametrize(
    ("makers", "candidates"),
    [
        ([layouts.ravdess, layouts.ckplus], "ravdess or ckplus"),
        ([lambda root: layouts.images(root, "a/00001.jpg", "b/00001.jpg")], "folder or abaw"),
        ([layouts.abaw, layouts.table], r"abaw or csv \(table labels.csv\)"),
        ([lambda root: layouts.images(root, "train/hat/1.jpg"), layouts.table], r"csv \(table labels.csv\) or folder"),
        (
            [layouts.table, lambda root: layouts.file(root, "test.csv", "image,label\ni/a.jpg,sad\n")],
            r"csv \(table labels.csv\) or csv \(table test.csv\)",
        ),
    ],
)
def test_where_several_data_sets_may_be_meant_the_user_is_asked_and_an_answer_decides(other, makers, candidates):
    for make in makers:
        make(other)
    with pytest.raises(UserError, match=rf"it may be {candidates}: say which with --dataset NAME"):
        index.main(["--root", "other"])
    last = ["--annotations", "other/labels.csv", "--columns", "{path: image, label: emotion}"]
    first = candidates.split()[0]
    assert report("--dataset", first, *(last if first == "csv" else []))["dataset"] == first


def test_the_name_alone_is_enough_where_one_table_is_there(other):
    layouts.abaw(other)
    layouts.table(other)
    assert report("--dataset", "csv")["recognised"].startswith("name csv, annotations other/labels.csv")
    assert extract.main([*TINY, "-d", "other", "-s", "x.zarr", "--dataset", "abaw"]) == 0
    assert read_frames(Path("x.frames.parquet")).dataset == "abaw"


def test_a_folder_of_nothing_known_is_an_error_that_says_how_to_look(other):
    layouts.file(other, "notes.txt")
    with pytest.raises(UserError, match=r"no data set that is known lies in it.*--check other"):
        index.main(["--root", "other"])


def test_a_table_in_utf_16_is_recognised_and_one_that_is_no_text_is_passed_over(other):
    layouts.images(other, "i/a.jpg")
    (other / "t.csv").write_bytes("image,label\ni/a.jpg,x\n".encode("utf-16"))
    (other / "u.csv").write_bytes(b"\x00\xff" * 100_000)
    assert report()["recognised"] == "name csv, annotations other/t.csv, columns {'path': 'image'}"
    assert pd.read_parquet("data/frames.parquet")["path"].tolist() == ["i/a.jpg"]
