"""Splits, folds, class maps and several data sets at once: what is done whatever the data set."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.params import UserError
from pipeline.core.tables import ABAW_CLASSES, Labels, of_fold, read_frames, read_labels, write_frames, write_labels
from pipeline.datasets import classes, index, readers, splits
from pipeline.datasets.config import DatasetConfig


def made(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def folder(root: Path, **others) -> DatasetConfig:
    return DatasetConfig(name="folder", root=root, **others)


def table_of(groups: int, rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=rows)
    label = np.where(rng.random(rows) < 0.8, group % 3, rng.integers(3, size=rows))
    names = pd.Series([f"g{g}" for g in group], dtype="str")
    return pd.DataFrame({"video": names, "frame": range(rows), "group": names, "expression": pd.Series(label).map(str)})


def test_each_group_is_val_in_just_one_fold_and_folds_are_of_like_make_up():
    table = table_of(40, 2000)
    fold = splits.by_fold(table["group"], splits.strata(table), 5, 3)
    assert set(fold) == set(range(5))
    assert fold.groupby(table["group"]).nunique().max() == 1
    for name, rows in table.groupby("expression"):
        shares = np.bincount(fold[rows.index], minlength=5) / len(rows)
        assert (np.abs(shares - 0.2) < 0.06).all(), (name, shares)


def test_of_all_folds_each_has_its_own_validation_part_and_together_they_are_everything():
    table = table_of(20, 300)
    done, how = splits.with_split(table, DatasetConfig(folds=4, seed=1))
    assert how == "4 folds by group, seed 1"
    assert set(done["expression_split"]) == {"fold"}
    every = Labels(done, list("012"), "x")
    assert every.folds == [0, 1, 2, 3]
    val = []
    for k in every.folds:
        one = of_fold(every, k).table
        assert "fold" not in one
        groups = one.groupby("expression_split")["group"].unique()
        assert not set(groups["train"]) & set(groups["val"])
        assert set(one["expression_split"]) == {"train", "val"}
        alone, _ = splits.with_split(table, DatasetConfig(folds=4, fold=k, seed=1))
        pd.testing.assert_frame_equal(one, alone)
        val.append(one["expression_split"] == "val")
    assert (np.sum(val, axis=0) == 1).all()


def test_a_fold_that_there_is_not_is_refused():
    plain = Labels(table_of(20, 300), list("012"), "x")
    every = Labels(splits.with_split(plain.table, DatasetConfig(folds=4))[0], list("012"), "x")
    assert of_fold(plain, None) is plain
    for given, fold, words in (
        (every, 4, r"has the folds \[0, 1, 2, 3\], and fold 4"), (every, None, "and no fold is asked for"),
        (plain, 0, "has no folds, and fold 0"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            of_fold(given, fold)


def test_folds_do_not_depend_on_the_order_of_rows():
    table = table_of(20, 300)
    mixed = table.sample(frac=1, random_state=0)
    one, other = (splits.by_fold(t["group"], splits.strata(t), 4, 0) for t in (table, mixed))
    pd.testing.assert_series_equal(one, other.sort_index())


def test_folds_put_official_train_and_val_together_and_leave_test_and_none_alone():
    table = table_of(12, 240)
    official = pd.Series(["train", "val", "test", None], dtype="str").take(table["group"].str[1:].astype(int) % 4)
    table["expression_split"] = official.to_numpy()
    every, _ = splits.with_split(table, DatasetConfig(folds=3))
    assert (every["fold"].notna() == (every["expression_split"] == "fold")).all()
    done, how = splits.with_split(table, DatasetConfig(folds=3, fold=2))
    kept = ~table["expression_split"].isin(["train", "val"])
    assert done.loc[kept, "expression_split"].equals(table.loc[kept, "expression_split"])
    assert set(done.loc[~kept, "expression_split"]) == {"train", "val"}
    assert how == "fold 2 of 3 by group, seed 0"


def test_one_draw_serves_all_tracks():
    table = table_of(20, 200).assign(valence=np.float32(0), arousal=np.float32(0))
    for config in (DatasetConfig(), DatasetConfig(folds=4)):
        done, _ = splits.with_split(table, config)
        assert (done["va_split"] == done["expression_split"]).all()


def test_a_class_rarer_than_folds_is_no_hindrance():
    table = table_of(10, 100)
    table.loc[0, "expression"] = "rare"
    assert set(splits.by_fold(table["group"], splits.strata(table), 5, 0)) == set(range(5))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"folds": 1}, "folds must be from 2 to the number of groups, 10, and is 1"),
        ({"folds": 11}, "and is 11"),
        ({"folds": 5, "fold": 5}, "fold must be from 0 to 4"),
        ({"folds": 5, "fold": -1}, "fold must be from 0 to 4"),
        ({"fold": 0}, "folds is not given"),
    ],
)
def test_impossible_folds_are_errors(settings, error):
    with pytest.raises(UserError, match=error):
        splits.with_split(table_of(10, 100), DatasetConfig(**settings))


def labels(*names: str | None, **others) -> Labels:
    table = pd.DataFrame({"video": [f"v{i}" for i in range(len(names))], "frame": 0, "group": "g", **others})
    table["expression"] = pd.Series(names, dtype="str")
    return Labels(table, sorted({n for n in names if n}), "x")


def test_the_built_in_map_leads_to_abaw_and_what_it_does_not_know_is_dropped_and_counted():
    given = labels("happy", "Surprised", "calm", "contempt", "bored", "bored")
    found, report = classes.mapped(given, "abaw")
    assert list(found.table["expression"]) == ["Happiness", "Surprise", "Neutral", "Other"]
    assert found.classes == ABAW_CLASSES
    assert report["classes_dropped_by_class_map"] == {"count": 1, "first": ["bored: 2 labels"], "labels": 2}


@pytest.mark.parametrize("reader", ["ravdess", "ckplus"])
def test_every_class_of_ravdess_and_ckplus_has_its_partner(reader):
    from importlib import import_module

    assert {c for c in import_module(f"pipeline.datasets.{reader}").CLASSES if c not in classes.ABAW} == set()
    assert set(classes.ABAW.values()) == set(ABAW_CLASSES)


def test_a_map_of_ones_own_gives_its_values_as_classes_in_its_order():
    found, report = classes.mapped(labels("a", "b", "c", "c"), {"c": "bad", "a": "good", "b": "bad"})
    assert list(found.table["expression"]) == ["good", "bad", "bad", "bad"]
    assert found.classes == ["bad", "good"]
    assert report["classes_dropped_by_class_map"] == {"count": 0, "first": [], "labels": 0}


def test_a_row_whose_class_is_dropped_stays_for_its_other_labels():
    given = labels("a", "b", None, valence=[np.nan, 0.5, 0.5], arousal=[np.nan, 0.5, 0.5], va_split="train")
    found, _ = classes.mapped(given, {"a": "x"})
    assert list(found.table["video"]) == ["v0", "v1", "v2"]
    assert list(found.table["expression"].isna()) == [False, True, True]
    found, _ = classes.mapped(labels("a", "b", va_split="train"), {"a": "x"})
    assert list(found.table["video"]) == ["v0"]


@pytest.mark.parametrize(
    ("class_map", "error"),
    [
        ({"hapy": "x"}, "class 'hapy' is not one of .*did you mean 'happy'"),
        ({"happy": 3}, "must give names, and gives 3"),
        ("abav", "class_map 'abav' is not one of"),
        ({}, "knows none of the classes"),
    ],
)
def test_a_wrong_class_map_is_an_error(class_map, error):
    with pytest.raises(UserError, match=error):
        classes.mapped(labels("happy", "sad"), class_map)


def test_a_class_map_without_classes_is_an_error():
    with pytest.raises(UserError, match="has no classes"):
        classes.mapped(Labels(pd.DataFrame({"video": ["v"], "valence": [0.0]}), [], "x"), "abaw")


def test_several_data_sets_keep_their_names_and_splits_and_meet_in_one_root(tmp_path):
    made(tmp_path / "one", "train/happy/1.jpg", "val/sad/1.jpg")
    made(tmp_path / "two" / "frames", *(f"Happiness/{i}.jpg" for i in range(10)))
    also = [{"name": "folder", "root": str(tmp_path / "two" / "frames"), "val_fraction": 0.5}]
    found = readers.read(folder(tmp_path / "one", also=also, class_map="abaw"))
    table = found.labels.table
    assert found.frames.root == tmp_path
    assert all((found.frames.root / path).is_file() for path in found.frames.table["path"])
    assert table["dataset"].value_counts().to_dict() == {"folder": 2, "folder-2": 10}
    assert set(table["video"]) > {"folder/train/happy/1", "folder-2/Happiness/3"}
    assert (table["group"] == table["video"]).all()
    assert set(table["expression"]) == {"Happiness", "Sadness"}
    counts = table.groupby(["dataset", "expression_split"]).size().to_dict()
    assert counts == {
        ("folder", "train"): 1, ("folder", "val"): 1, ("folder-2", "train"): 5, ("folder-2", "val"): 5,
    }  # fmt: skip
    assert found.report["data_sets"]["folder-2"]["split"] == "drawn by group, val_fraction 0.5, seed 0"
    write_frames(tmp_path / "f.parquet", found.frames)
    write_labels(tmp_path / "l.parquet", found.labels)
    assert read_labels(tmp_path / "l.parquet").dataset == read_frames(tmp_path / "f.parquet").dataset
    assert "folder-2: split: drawn" in index.summary(index.describe(found.frames, found.labels) | found.report)


def test_data_sets_of_different_tracks_are_put_together(tmp_path):
    made(tmp_path / "a", "cropped_aligned/461/00001.jpg", "cropped_aligned/462/00001.jpg")
    units = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n" + ",".join("101010101010") + "\n"
    for path, text in {"VA_C/Train_Set": "valence,arousal\n0.5,0.5\n", "AU_C/Train_Set": units}.items():
        (tmp_path / "a" / path).mkdir(parents=True)
        (tmp_path / "a" / path / "461.txt").write_text(text)
    made(tmp_path / "b", "train/x/1.jpg", "val/x/1.jpg")
    config = DatasetConfig(root=tmp_path / "a", also=[{"name": "folder", "root": str(tmp_path / "b")}])
    found = readers.read(config)
    write_labels(tmp_path / "l.parquet", found.labels)
    table = read_labels(tmp_path / "l.parquet").table.set_index("video")
    assert table.loc["abaw/461", ["valence", "au1", "va_split"]].tolist() == [0.5, 1, "train"]
    assert table["expression"].notna().to_dict() == {
        "abaw/461": False, "folder/train/x/1": True, "folder/val/x/1": True,
    }  # fmt: skip
    assert found.frames.crop_source == "cropped_aligned + as given"


def test_different_classes_together_need_a_class_map(tmp_path):
    made(tmp_path / "one", "happy/1.jpg", "sad/1.jpg")
    made(tmp_path / "two", "Happiness/1.jpg")
    with pytest.raises(UserError, match="the classes differ, and need a class_map"):
        readers.read(folder(tmp_path / "one", also=[{"name": "folder", "root": str(tmp_path / "two")}]))


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("ravdess", r"also\[0\] must be like"),
        ({"name": "folder"}, r"also\[0\] must be like"),
        ({"name": "folder", "root": "x", "folds": 3}, r"also\[0\]: parameter 'folds' is not one of"),
        ({"name": "folde", "root": "x"}, "did you mean 'folder'"),
        ({"name": "folder", "root": 3}, r"also\[0\]: root must be Path"),
    ],
)
def test_a_further_data_set_that_is_not_well_named_is_an_error(tmp_path, entry, error):
    with pytest.raises(UserError, match=error):
        readers.read(folder(made(tmp_path, "a/1.jpg"), also=[entry]))


def test_a_setting_that_a_reader_has_no_use_for_is_refused(tmp_path):
    for name in ("abaw", "folder", "ravdess", "ckplus", "afew_va", "shapes"):
        with pytest.raises(UserError, match=r"does not use dataset\.columns: leave it out"):
            readers.read(DatasetConfig(name=name, root=made(tmp_path, "a/1.jpg"), columns={"path": "x"}))


def test_all_of_it_can_be_said_in_params_yaml_and_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "d", *(f"{c}/{i}.jpg" for c in ("happy", "sad", "bored") for i in range(6)))
    (tmp_path / "params.yaml").write_text(
        "dataset: {name: folder, root: d, class_map: {happy: Happiness, sad: Sadness}}\n"
    )
    outputs = ["--frames", "f.parquet", "--labels", "l.parquet", "--report", "i.json"]
    assert index.main([*outputs, "--folds", "3", "--fold", "1"]) == 0
    printed = capsys.readouterr().out
    assert "split: fold 1 of 3 by group, seed 0" in printed
    assert "class map: happy -> Happiness, sad -> Sadness" in printed
    assert "classes dropped by class map: 1 (bored: 6 labels)" in printed
    assert index.main([*outputs, "--folds", "3"]) == 0
    printed = capsys.readouterr().out
    assert "split: 3 folds by group, seed 0" in printed
    assert "expression, labelled frames: fold 0: 4 in 4 videos; fold 1: 4 in 4 videos; fold 2: 4 in 4" in printed
    assert read_labels(tmp_path / "l.parquet").folds == [0, 1, 2]
    index.main([*outputs, "--class-map", "abaw"])
    assert read_labels(tmp_path / "l.parquet").classes == ABAW_CLASSES


def test_a_great_many_classes_are_counted_and_not_listed(tmp_path):
    made(tmp_path, *(f"{side}/{n}.jpg" for side in ("left", "right") for n in range(60)))
    found = readers.read(DatasetConfig(name="pairs", root=tmp_path))
    assert "60 classes, of 2 to 2 frames" in index.summary(index.describe(found.frames, found.labels) | found.report)
