import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import draw_folder
from sklearn.decomposition import PCA

import extract
from pipeline.core import projection
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Labels, of_fold, read_labels, write_labels
from pipeline.extraction import reduce

MADE_BY = {"backbone": "tiny", "input_size": 32}
# video: (group, its frames' splits for expression, its frames' splits for valence)
VIDEOS = {
    "both": ("anna", ["train"] * 40, ["train"] * 40),
    "first_only": ("ben", ["train"] * 5, [None] * 5),
    "second_only": ("cleo", [None], ["train"]),
    "partly": ("dora", ["train", "train", None, None, None], [None] * 5),
    "held_out_in_one": ("emil", ["train"] * 5, ["val"] * 5),
    "of_who_is_held_out": ("emil", ["train"] * 5, ["train"] * 5),
    "tested_in_one": ("fay", ["train"] * 5, ["test"] * 5),
    "validation": ("gus", ["val"] * 5, ["val"] * 5),
    "unlabelled": ("hal", [None] * 5, [None] * 5),
}
FITTED_ON = {("both", f) for f in range(40)} | {("first_only", f) for f in range(5)} | {
    ("second_only", 0), ("partly", 0), ("partly", 1),
}  # fmt: skip


def table():
    rows = [
        (video, frame, group, "Anger", one, two)
        for video, (group, first, second) in VIDEOS.items()
        for frame, (one, two) in enumerate(zip(first, second, strict=True))
    ]
    return pd.DataFrame(rows, columns=["video", "frame", "group", "expression", "expression_split", "va_split"])


@pytest.fixture
def place(tmp_path):
    """A store with all frames of VIDEOS and of a video without labels, in chunks of 16, and the label table."""
    frames = pd.concat([table()[["video", "frame"]], pd.DataFrame({"video": "stray", "frame": range(5)})])
    frames = frames.sample(frac=1, random_state=0, ignore_index=True).assign(size=1)  # as they happen to be read
    features = np.random.default_rng(0).standard_normal((len(frames), 4)) * [4, 3, 2, 1] + 5
    with StoreWriter(tmp_path / "s.zarr", MADE_BY, {"original": 4}, chunk_rows=16) as writer:
        for start in range(0, len(frames), 16):
            writer.write(frames[start : start + 16], {"original": features[start : start + 16].astype(np.float16)})
    write_labels(tmp_path / "labels.parquet", Labels(table(), ["Anger"], "by hand"))
    (tmp_path / "params.yaml").write_text("reduce: {components: 2}\n", encoding="utf-8")
    return tmp_path


def labels_of(place):
    return read_labels(place / "labels.parquet")


def arguments(place, *more):
    return [
        "--params", str(place / "params.yaml"), "-d", str(place / "s.zarr"), "--labels", str(place / "labels.parquet"),
        "-o", str(place / "p.safetensors"), *more,
    ]  # fmt: skip


def test_a_group_held_out_in_any_track_is_not_fitted_on(place):
    store = FeatureStore(place / "s.zarr")
    rows = reduce.training_rows(store, labels_of(place))
    keys = store.keys.set_index("row").loc[rows]
    assert {(str(v), int(f)) for v, f in zip(keys["video"], keys["frame"], strict=True)} == FITTED_ON
    assert len(rows) == len(FITTED_ON)
    assert (np.diff(rows) > 0).all()


def test_the_stage_writes_the_components_of_the_training_frames(place, capsys):
    reduce.main(arguments(place))
    store = FeatureStore(place / "s.zarr")
    fitted = projection.load(place / "p.safetensors", MADE_BY)
    training = [(str(v), int(f)) in FITTED_ON for v, f in zip(store.keys["video"], store.keys["frame"], strict=True)]
    features = store.read(store.keys["row"].to_numpy()[training]).astype(np.float64)
    peer = PCA(2, svd_solver="full").fit(features)
    np.testing.assert_allclose(np.abs(fitted.components), np.abs(peer.components_), atol=1e-6)
    np.testing.assert_allclose(fitted.mean, peer.mean_, rtol=1e-6)
    share = 100 * peer.explained_variance_ratio_.sum()
    one = 100 * peer.explained_variance_ratio_[0]
    said = f"2 of 4 components keep {share:.1f} % of 48 rows' variance (1 of them {one:.1f} %)\n"
    assert capsys.readouterr().out == f"{place}/s.zarr: there is no frame table, so all of its 81 frames count\n" + said


def test_a_flag_beats_the_parameter_file(place):
    reduce.main(arguments(place, "-n", "3"))
    assert projection.load(place / "p.safetensors", MADE_BY).components.shape == (3, 4)


def scattered(place, loud: int):
    """A store of 48 + 33 frames of 200 columns, the first ``loud`` of them twenty times as loud."""
    frames = pd.concat([table()[["video", "frame"]], pd.DataFrame({"video": "stray", "frame": range(5)})])
    features = np.random.default_rng(0).standard_normal((len(frames), 200)) * np.where(np.arange(200) < loud, 20, 1)
    with StoreWriter(place / "s.zarr", MADE_BY, {"original": 200}, chunk_rows=len(frames)) as writer:
        writer.write(frames.assign(size=1), {"original": features.astype(np.float16)})


@pytest.mark.parametrize(("loud", "few"), [(3, True), (60, False)])
def test_by_default_there_is_a_projection_only_where_few_components_keep_most_of_the_variance(
    place, monkeypatch, capsys, loud, few
):
    """3 loud columns of 200 are most of the variance, 60 are not; the number of components is patched to 20."""
    monkeypatch.setattr(reduce, "COMPONENTS", 20)
    shutil.rmtree(place / "s.zarr")
    scattered(place, loud)
    (place / "params.yaml").write_text("reduce: {components: null}\n", encoding="utf-8")
    store = FeatureStore(place / "s.zarr")
    rows = store.read(reduce.training_rows(store, labels_of(place))).astype(np.float64)
    peer = PCA(20, svd_solver="full").fit(rows)
    kept = peer.explained_variance_ratio_.sum()
    assert (kept >= 0.9) == few
    reduce.main(arguments(place))
    fitted = projection.load(place / "p.safetensors", MADE_BY)
    assert fitted.components.shape == (20, 200) if few else fitted is None
    said = capsys.readouterr().out
    none = f"{100 * kept:.1f} % is less than 90 %: no projection, training takes all 200 features as they are (-n 20 "
    assert (none in said) != few
    # A fold of 7 rows, whose 6 components are all there is, and one of 56: that there is none holds for both.
    write_labels(place / "labels.parquet", Labels(folded(), ["Anger"], "by hand"))
    reduce.main(arguments(place))
    of_folds = [projection.load(place / "p.safetensors", MADE_BY, fold) for fold in (0, 1)]
    assert [each and len(each.components) for each in of_folds] == ([6, 20] if few else [None, None])
    reduce.main(arguments(place, "-n", "20"))
    assert len(projection.load(place / "p.safetensors", MADE_BY, 1).components) == 20


def test_of_more_rows_than_asked_for_evenly_spaced_ones_are_fitted_on(place, capsys):
    reduce.main(arguments(place, "--most-rows", "6"))
    store = FeatureStore(place / "s.zarr")
    rows = reduce.training_rows(store, labels_of(place))[[0, 9, 18, 28, 37, 47]]
    peer = PCA(2).fit(store.read(rows).astype(np.float64))
    np.testing.assert_allclose(projection.load(place / "p.safetensors", MADE_BY).mean, peer.mean_, rtol=1e-6)
    assert "fitted on 6 of 48 training rows, evenly spaced" in capsys.readouterr().out


def test_labelled_frames_that_were_not_extracted_are_no_error(place):
    more = pd.concat([table(), table()[:40].assign(frame=range(100, 140))])
    write_labels(place / "labels.parquet", Labels(more, ["Anger"], "by hand"))
    assert len(reduce.training_rows(FeatureStore(place / "s.zarr"), labels_of(place))) == len(FITTED_ON)


def nobody_trains(frames):
    return frames.replace({"expression_split": {"train": "val"}, "va_split": {"train": "val"}})


@pytest.mark.parametrize(
    "change",
    [nobody_trains, lambda f: f[["video", "frame", "group"]], lambda f: f.assign(video=f["video"] + "_other")],
    ids=["no_training_split", "no_split_columns", "another_data_set"],
)
def test_nothing_to_fit_on_is_said_before_anything_is_written(place, change):
    write_labels(place / "labels.parquet", Labels(change(table()), ["Anger"], "by hand"))
    with pytest.raises(UserError, match=r"no frame of .*s\.zarr is training data of 'by hand'"):
        reduce.main(arguments(place))
    assert not (place / "p.safetensors").exists()


def folded():
    """Two folds of whole groups."""
    frames = table().replace({column: {"train": "fold", "val": "fold"} for column in ("expression_split", "va_split")})
    return frames.assign(fold=pd.Series(pd.factorize(frames["group"])[0] % 2, dtype="Int16"))


def test_of_folds_each_has_components_that_do_not_depend_on_the_frames_it_validates_on(place, capsys):
    write_labels(place / "labels.parquet", Labels(folded(), ["Anger"], "by hand"))
    reduce.main(arguments(place))
    store, printed = FeatureStore(place / "s.zarr"), capsys.readouterr().out
    fitted = [projection.load(place / "p.safetensors", MADE_BY, k) for k in (0, 1)]
    for k in (0, 1):
        assert f"fold {k}: 2 of 4 components keep" in printed
        rows = reduce.training_rows(store, of_fold(labels_of(place), k))
        peer = PCA(2).fit(store.read(rows).astype(np.float64))
        np.testing.assert_allclose(np.abs(fitted[k].components), np.abs(peer.components_), atol=1e-6)
        np.testing.assert_allclose(fitted[k].mean, peer.mean_, rtol=1e-6)

    keys = store.keys.astype({"video": "str"})
    features = store.read(keys["row"].to_numpy())
    features[keys["video"].isin(folded().query("fold == 0")["video"])] = 99
    with StoreWriter(place / "other.zarr", MADE_BY, {"original": 4}, chunk_rows=16) as writer:
        for start in range(0, len(keys), 16):
            part = slice(start, start + 16)
            writer.write(keys[["video", "frame"]].assign(size=1)[part], {"original": features[part]})
    reduce.main(arguments(place, "-d", str(place / "other.zarr")))
    again = [projection.load(place / "p.safetensors", MADE_BY, k) for k in (0, 1)]
    np.testing.assert_array_equal(again[0].components, fitted[0].components)
    np.testing.assert_array_equal(again[0].mean, fitted[0].mean)
    assert np.abs(again[1].mean - fitted[1].mean).max() > 1


def test_a_projection_for_one_split_is_none_for_folds_and_the_other_way_round(place):
    reduce.main(arguments(place))
    with pytest.raises(UserError, match="was fitted for one split, and fold 1 is trained"):
        projection.load(place / "p.safetensors", MADE_BY, 1)
    write_labels(place / "labels.parquet", Labels(folded(), ["Anger"], "by hand"))
    reduce.main(arguments(place))
    for fold, words in ((None, "one split"), (2, "fold 2")):
        with pytest.raises(UserError, match=rf"was fitted for the folds \[0, 1\], and {words} is trained"):
            projection.load(place / "p.safetensors", MADE_BY, fold)
    reduce.main(arguments(place, "-n", "0"))
    assert projection.load(place / "p.safetensors", MADE_BY, 1) is None


def test_a_number_of_components_below_none_is_refused(place):
    with pytest.raises(UserError, match="components must be at least 0, and is -1"):
        reduce.main(arguments(place, "-n", "-1"))


def test_more_components_than_there_are_become_as_many_as_there_are_and_that_is_said(place, capsys):
    reduce.main(arguments(place, "-n", "256"))
    assert projection.load(place / "p.safetensors", MADE_BY).components.shape == (4, 4)
    assert "256 components were asked for: so many rows and features have no more" in capsys.readouterr().out


def test_a_projection_lies_beside_its_store_and_only_that_of_the_default_store_in_data(place, monkeypatch):
    monkeypatch.chdir(place)
    shutil.copytree("s.zarr", "data/features.zarr")
    shutil.copy("labels.parquet", "data/labels.parquet")
    reduce.main([])
    reduce.main(["-d", "s.zarr", "-n", "3"])
    found = {path.as_posix() for path in Path().rglob("*.safetensors")}
    assert found == {"data/projection.safetensors", "s.projection.safetensors"}
    assert projection.load(Path("s.projection.safetensors"), MADE_BY).components.shape == (3, 4)


def test_no_components_leave_the_features_as_they_are_and_need_no_training_data(place, capsys):
    write_labels(place / "labels.parquet", Labels(nobody_trains(table()), ["Anger"], "by hand"))
    reduce.main(arguments(place, "-n", "0"))
    assert projection.load(place / "p.safetensors", MADE_BY) is None
    assert "all 4 features are kept as they are" in capsys.readouterr().out


def test_the_rows_are_gone_through_as_often_as_asked_in_blocks_of_bounded_size(place, monkeypatch):
    monkeypatch.setattr(reduce, "BLOCK", 4 * 10)
    store = FeatureStore(place / "s.zarr")
    rows = reduce.training_rows(store, labels_of(place))
    blocks = reduce.Blocks(store, rows)
    for _ in range(2):
        read = list(blocks)
        assert [len(block) for block in read] == [10, 10, 10, 10, 8]
        np.testing.assert_array_equal(np.concatenate(read), store.read(rows))
    assert blocks.passes == 2


# --- extract.py --processor ------------------------------------------------------------------------------------------

TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--device", "cpu", "-b", "4"]


@pytest.fixture
def pictures(workplace, quick_children):
    """A folder of single images of two classes: 12 to train on, 2 to validate."""
    videos = {f"train/{name}/{i}": 1 for name in ("happy", "sad") for i in range(6)}
    draw_folder(workplace / "faces", videos | {"val/happy/v": 1, "val/sad/v": 1})
    text = Path("params.yaml").read_text(encoding="utf-8").replace("name: abaw", "name: folder")
    Path("params.yaml").write_text(text, encoding="utf-8")
    return workplace / "faces"


@pytest.mark.parametrize(("processor", "columns"), [("pca", 48), ("adapt-pca", 48 * 16)])
def test_a_processor_is_a_pooling_and_a_projection_of_the_training_frames(pictures, processor, columns, capfd):
    flags = ["--layers", "blocks.3", "--input-size", "64", "--processor", processor, "3"]
    extract.main([*TINY, "-d", str(pictures), "-s", "f.zarr", *flags])
    store = FeatureStore(Path("f.zarr"))
    assert store.num_features == columns
    fitted = projection.load(Path("f.projection.safetensors"), store.made_by)
    train = store.keys["video"].astype("str").str.startswith("train").to_numpy()
    assert train.sum() == 12
    peer = PCA(3).fit(store.read(store.keys["row"].to_numpy()[train]).astype(np.float64))
    np.testing.assert_allclose(fitted.mean, peer.mean_, atol=1e-6)
    np.testing.assert_allclose(fitted.explained, peer.explained_variance_ratio_, rtol=1e-3)
    out = capfd.readouterr().out
    assert (
        f"3 of {columns:,} components keep {100 * peer.explained_variance_ratio_.sum():.1f} % of 12 rows' variance"
        in out
    )
    assert "train on it with: python train.py -d f.zarr\n" in out


def test_a_grid_that_is_given_beats_that_of_the_processor(pictures):
    extract.main(
        [*TINY, "-d", str(pictures), "-s", "f.zarr", "--input-size", "64", "--processor", "none", "--grid", "2"]
    )
    assert FeatureStore(Path("f.zarr")).num_features == 256 * 4
    assert not Path("f.projection.safetensors").exists()


@pytest.mark.parametrize("words", [["pca"], ["pca", "0"], ["pca", "x"], ["none", "3"], ["adaptpca", "3"], ["pca 3 4"]])
def test_a_processor_that_is_none_is_refused_before_any_work(workplace, words):
    with pytest.raises(UserError, match=f"--processor is none, pca N or adapt-pca N, and not '{' '.join(words)}'"):
        extract.main([*TINY, "--processor", *words])
    with pytest.raises(UserError, match="--processor goes with an extraction alone"):
        extract.main(["--verify", "--processor", "pca", "3"])
