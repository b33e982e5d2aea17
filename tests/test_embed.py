"""A trained run in a program. The faces are drawn squares, which ``find_squares`` finds; real clips are at the end."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, adapter_of
from test_faces import COLOURS, film, find_squares, picture

import extract
import train
from pipeline.adapter.adapter import load_adapter
from pipeline.adapter.inference import per_frame
from pipeline.adapter.sources import open_inputs
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.tables import ABAW_CLASSES, read_labels
from pipeline.datasets import index
from pipeline.embed import Embedder, by_clip, by_person, matrix, similarity
from pipeline.embed import embedder as module
from pipeline.embed.embedder import by_centres
from pipeline.embed.loading import Trained, chosen
from pipeline.extraction import reduce
from pipeline.extraction.weights.__main__ import main as weights_main
from pipeline.faces import __main__ as faces
from pipeline.faces.detect import DETECTORS, mtcnn
from pipeline.faces.video import Frame, Video

REAL = Path(os.environ.get("FACES", "not given"))
CPU = torch.device("cpu")
TINY = ["--backbone", "test_efficientnet", "--input-size", "32", "--workers", "1", "--device", "cpu"]
FLAGS = ["--cpu", "--window", "3", "--embedding-size", "8", "--batch-size", "16", "--select-split", "0.4",
         "--normalise", "standardise", "--output",
         "runs", "--no-evaluate"]  # fmt: skip


def scene(number: int, **places: int) -> np.ndarray:
    """A picture of squares with a texture that is another in each frame."""
    image = picture(**places)
    for colour, left in places.items():
        rng = np.random.default_rng([number, len(colour)])
        texture = cv2.resize(rng.integers(-45, 46, (4, 4, 3)).astype(np.float32), (32, 32))
        image[40:72, left : left + 32] = np.clip(COLOURS[colour] + texture, 0, 255)
    return image


def clip(path: str, frames: int, start: int = 0, **places: int) -> Path:
    film(Path(path), [scene(start + i, **places) for i in range(frames)])
    return Path(path)


@pytest.fixture(scope="module", autouse=True)
def squares():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two trained runs: 'classified' of two seeds, behind a projection, and 'tcn_supcon', which has no classifier."""
    place = tmp_path_factory.mktemp("project")
    with contextlib.chdir(place):
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        for number in range(6):
            split, start = ("train", "val")[number % 2], 100 * number
            clip(f"in/{split}/happy/h{number}.mp4", 8, start, red=20 + number)
            clip(f"in/{split}/sad/s{number}.mp4", 8, start + 50, blue=40 + number)
        faces.main(["--input", "in", "--out", "data/faces", "--names", "tree", "--workers", "1", "--min-frames", "3"])
        index.main(["--name", "folder", "--root", "data/faces/cropped_aligned", "--crop-source", "cropped_aligned",
                    "--class-map", "abaw"])  # fmt: skip
        weights_main(["--backbone", "test_efficientnet", "--weights", "random"])
        assert extract.main([*TINY, "--weights", "random"]) == 0
        reduce.main(["-n", "6"])
        train.main([*FLAGS, "-e", "2", "-r", "2", "--loss", "cross_entropy", "--name", "classified"])
        train.main([*FLAGS, "-e", "2", "--no-reduce", "--model", "tcn", "--loss", "supcon", "--name", "tcn_supcon"])
    return place


@pytest.fixture
def embedder(project):
    """In an empty folder: nothing but the run says what is needed."""
    return Embedder.load(project / "runs/classified", device="cpu")


def through_the_pipeline(project: Path, file: Path, run: str, *flags: str) -> dict[tuple[str, int], np.ndarray]:
    """Unit embeddings by (video, frame): cut by the command, extracted into a store, embedded as evaluation does."""
    shutil.copy(project / "params.yaml", "params.yaml")
    shutil.copytree(project / "weights", "weights")
    faces.main(["--input", str(file), "--out", "cut", "--workers", "1", "--min-frames", "3", *flags])
    assert extract.main([*TINY, "--weights", "random", "-d", "cut", "-s", "cut.zarr"]) == 0
    store = FeatureStore(Path("cut.zarr"))
    adapter = load_adapter(project / "runs" / run / "seed_0", store.made_by)
    keys = store.keys
    code, names = pd.factorize(keys["video"].astype("str"))
    windows = adapter.window.over(code, keys["frame"].to_numpy(), names)
    source = open_inputs(store, keys["row"].to_numpy(), adapter.front, CPU)
    z, _ = per_frame(adapter, source, windows, np.arange(len(keys)), None, CPU)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return {(str(v), int(f)): row for v, f, row in zip(keys["video"], keys["frame"], z, strict=True)}


def least_cosine(table: pd.DataFrame, expected: dict[tuple[str, int], np.ndarray]) -> float:
    """Of the rows of a table with what is expected of the same faces; all must be there."""
    names = table["video"] + np.where(table["person"] == "", "", "_" + table["person"])
    found = dict(zip(zip(names, table["frame"], strict=True), table["embedding"], strict=True))
    assert found.keys() == expected.keys()
    return min(float(found[key] @ expected[key]) for key in expected)


def vectors(table: pd.DataFrame) -> np.ndarray:
    return np.stack(list(table["embedding"]))


# --- what a table holds


def test_a_video_gives_a_row_a_face_and_frame(embedder):
    clip("films/two.mp4", 6, 7, red=100, blue=20)
    table = embedder.video("films/two.mp4", min_frames=3)
    assert list(table.columns) == [
        "video", "person", "frame", "time_sec", "box", "confidence", "embedding", "class",
        *(f"p_{name}" for name in ABAW_CLASSES),
    ]  # fmt: skip
    assert table["video"].unique().tolist() == ["two"]
    assert list(zip(table["person"], table["frame"], strict=True)) == [(p, f) for p in ("left", "right")
                                                                       for f in range(1, 7)]  # fmt: skip
    np.testing.assert_allclose(table["time_sec"], np.tile(np.arange(6) / 25, 2), atol=1e-6)
    assert (table["confidence"] == 1).all()
    np.testing.assert_allclose(np.stack(table["box"])[[0, 6]], [[20, 40, 52, 72], [100, 40, 132, 72]], atol=3)
    z = vectors(table)
    assert z.dtype == np.float32
    assert z.shape == (12, 8)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    shares = table[[f"p_{name}" for name in ABAW_CLASSES]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert table["class"].tolist() == np.array(ABAW_CLASSES)[shares.argmax(axis=1)].tolist()
    assert table.attrs == {"problems": [], "notes": table.attrs["notes"], "classes_by": "classifier", "fps": 25.0}


def test_frames_without_a_face_are_absent_and_those_who_are_seen_too_little_are_named(embedder):
    pictures = [scene(i, red=30) if i not in (3, 4) else picture() for i in range(9)]
    pictures[8] = scene(8, red=30, blue=100)
    film(Path("gap.mp4"), pictures)
    table = embedder.video("gap.mp4", name="mine", min_frames=3)
    assert table["frame"].tolist() == [1, 2, 3, 6, 7, 8, 9]
    assert (table["video"] == "mine").all()
    assert (table["person"] == "").all()
    left_out = "1 people in fewer than 3 frames were left out, with 1 faces"
    assert table.attrs["problems"] == [{"file": "gap.mp4", "problem": left_out}]


@pytest.mark.parametrize("run", ["classified", "tcn_supcon"])
def test_a_clip_has_the_embeddings_that_the_pipeline_gives_it(project, run):
    """By commands, files and a store in one way, in memory in the other."""
    file = clip("two.mp4", 8, 900, red=100, blue=20)
    table = Embedder.load(project / "runs" / run, seed=0, device="cpu").video(file, min_frames=3)
    expected = through_the_pipeline(project, file, run)
    assert least_cosine(table, expected) >= 0.9999
    assert similarity(table).min() < 0.99  # frames differ, so this was no comparison of equals


def test_frames_that_are_cut_already_give_the_same_and_are_not_cut_again(project, embedder):
    file = clip("two.mp4", 8, 900, red=100, blue=20)
    expected = through_the_pipeline(project, file, "classified")
    loaded = Embedder.load(project / "runs/classified", seed=0, device="cpu")
    for folder in ("cut", "cut/cropped_aligned"):
        table = loaded.frames(folder, fps=25, with_crops=True)
        assert table["video"].tolist() == ["two_left"] * 8 + ["two_right"] * 8
        assert least_cosine(table, expected) >= 0.9999
    np.testing.assert_allclose(table["time_sec"], np.tile(np.arange(8) / 25, 2))
    assert table["box"].iloc[0].tolist() == [0, 0, 112, 112]
    assert table["confidence"].isna().all()
    assert table["crop"].iloc[3] == Path("cut/cropped_aligned/two_left/00004.jpg").read_bytes()


def test_crops_are_the_files_that_the_command_writes_and_features_those_of_the_store(project, embedder):
    file = clip("one.mp4", 5, 31, red=64)
    table = embedder.video(file, min_frames=3, with_crops=True, with_features=True)
    through_the_pipeline(project, file, "classified")
    for frame, crop in zip(table["frame"], table["crop"], strict=True):
        assert crop == Path(f"cut/cropped_aligned/one/{frame:05d}.jpg").read_bytes()
    store = FeatureStore(Path("cut.zarr"))
    np.testing.assert_array_equal(np.stack(table["features"]), store.read(store.keys["row"].to_numpy()))


def test_features_give_what_their_video_gives(project, embedder):
    """In any order; the index says which row of the features is which."""
    table = embedder.video(clip("two.mp4", 7, 5, red=100, blue=20), min_frames=3, with_features=True)
    features, order = np.stack(table["features"]), np.random.default_rng(0).permutation(14)
    again = embedder.features(
        features[order], video=(table["video"] + table["person"]).to_numpy()[order], frame=table["frame"][order]
    )
    assert again["frame"].tolist() == [*range(1, 8)] * 2
    np.testing.assert_allclose(vectors(again.sort_index())[np.argsort(order)], vectors(table), atol=1e-6)
    alone = embedder.features(features[:7])
    assert list(alone.columns[:4]) == ["video", "person", "frame", "embedding"]
    np.testing.assert_allclose(vectors(alone), vectors(table)[:7], atol=1e-6)


# --- pictures


def test_pictures_are_files_bytes_or_arrays_and_each_face_is_a_row(embedder):
    image = scene(3, red=100, blue=20)
    Path("a").mkdir()
    cv2.imwrite("a/x.png", image[..., ::-1])
    cv2.imwrite("empty.png", picture())
    Path("text.jpg").write_text("no picture")
    given = ["a/x.png", Path("a/x.png").read_bytes(), image, "empty.png", "text.jpg", "gone.png"]
    table = embedder.images(given)
    assert table["video"].unique().tolist() == ["image_2", "image_3", "x"]
    assert table["person"].tolist() == ["left", "right"] * 3
    z = vectors(table).reshape(3, 2, 8)
    np.testing.assert_allclose(z, z[:1].repeat(3, axis=0), atol=1e-6)
    assert table.attrs["problems"] == [
        {"file": "empty.png", "problem": "no face was found"},
        {"file": "text.jpg", "problem": "not an image, or damaged"},
        {"file": "gone.png", "problem": "No such file or directory"},
    ]
    named = embedder.images([image, image], names=["one", "other"], with_crops=True)
    assert named["video"].tolist() == ["one", "one", "other", "other"]
    assert cv2.imdecode(np.frombuffer(named["crop"][0], np.uint8), cv2.IMREAD_COLOR).shape == (112, 112, 3)


def test_pictures_of_one_name_are_called_by_their_paths(embedder):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        cv2.imwrite(f"{folder}/x.png", scene(1, red=50)[..., ::-1])
    assert embedder.images(["a/x.png", "b/x.png"])["video"].tolist() == ["a/x.png", "b/x.png"]
    with pytest.raises(UserError, match=r"two pictures are called 'a/x.png': give each once"):
        embedder.images(["a/x.png", "a/x.png"])


def test_a_picture_is_a_clip_of_one_frame(embedder):
    """The window around it holds nothing else, however many pictures there are."""
    pictures = [scene(i, red=50) for i in range(20)]
    together = embedder.images(pictures)
    alone = vectors(embedder.images(pictures[7]))
    np.testing.assert_allclose(vectors(together)[together["video"] == "image_8"], alone, atol=1e-6)


# --- seeds


def test_the_mean_of_all_seeds_is_the_mean_of_their_cosines_and_probabilities(project):
    file = clip("two.mp4", 6, 60, red=100, blue=20)
    of = {seed: Embedder.load(project / "runs/classified", seed=seed, device="cpu") for seed in (0, 1, "all")}
    tables = {seed: each.video(file, min_frames=3) for seed, each in of.items()}
    assert of["all"].embedding_size == 16
    np.testing.assert_allclose(np.linalg.norm(vectors(tables["all"]), axis=1), 1, atol=1e-6)
    mean = (similarity(tables[0]) + similarity(tables[1])) / 2
    np.testing.assert_allclose(similarity(tables["all"]), mean, atol=1e-5)
    np.testing.assert_allclose(
        tables["all"]["p_Sadness"], (tables[0]["p_Sadness"] + tables[1]["p_Sadness"]) / 2, atol=1e-6
    )


def test_the_best_seed_is_taken_where_none_is_named(project):
    results = [{"seed": 4, "select": 0.5}, {"seed": 5, "select": 0.7}, {"seed": 6, "select": None}]
    assert chosen(Path("run"), results, None) == ["seed_5"]
    assert chosen(Path("run"), results, 6) == ["seed_6"]
    assert chosen(Path("run"), [results[2]], None) == ["seed_6"]
    folds = [{"fold": fold} | result for fold in (0, 1) for result in results]
    assert chosen(Path("run"), folds, 4) == ["fold_0/seed_4", "fold_1/seed_4"]
    assert len(chosen(Path("run"), folds, "all")) == 6
    with pytest.raises(UserError, match=r"run has no seed 3, but \[4, 5, 6\]"):
        chosen(Path("run"), results, 3)
    with pytest.raises(UserError, match="seed must be a number, 'all' or None, and is 'best'"):
        Embedder.load(project / "runs/classified", seed="best")


# --- classes, valence and arousal, action units


def test_without_a_classifier_classes_are_those_of_the_nearest_centres(project):
    """Centres are the means of the unit embeddings of each class's training frames, as they are in the store."""
    loaded = Embedder.load(project / "runs/tcn_supcon", device="cpu")
    assert loaded.classes_by == "class centres"
    store, labels = FeatureStore(project / "data/features.zarr"), read_labels(project / "data/labels.parquet").table
    rows = store.keys.astype({"video": "str"}).merge(labels, on=["video", "frame"])
    z = vectors(loaded.features(store.read(rows["row"].to_numpy()), rows["video"], rows["frame"]).sort_index())
    held_out = loaded.adapters[0].seen["select"].known([], rows["video"].unique().tolist())[1]
    trained = (rows["expression_split"] == "train") & ~rows["video"].isin(held_out)
    assert 0 < trained.sum() < 24 * 2
    two = ["Happiness", "Sadness"]
    centres = np.stack([z[trained & (rows["expression"] == name)].mean(axis=0) for name in two])
    at = [loaded.classes.index(name) for name in two]
    np.testing.assert_allclose(loaded.adapters[0].centres.numpy()[at], centres, atol=1e-5)
    assert np.isnan(np.delete(loaded.adapters[0].centres.numpy(), at, axis=0)).all()
    table = loaded.video(clip("x.mp4", 5, 77, red=60), min_frames=3)
    logits = 15 * vectors(table) @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(table[["p_Happiness", "p_Sadness"]], expected, atol=1e-4)
    assert (table["p_Fear"] == 0).all()
    assert table.attrs["classes_by"] == "class centres"


def test_a_class_that_was_never_trained_on_has_probability_0():
    shares = by_centres(np.eye(2, dtype=np.float32), np.array([[2, 0], [np.nan] * 2, [0, 3]], np.float32), 1.0)
    e = np.e
    np.testing.assert_allclose(shares, [[e / (e + 1), 0, 1 / (e + 1)], [1 / (e + 1), 0, e / (e + 1)]])


def test_valence_arousal_action_units_and_further_outputs_have_their_columns():
    facts = {
        "model": "identity", "loss": {"cross_entropy": 1, "ccc": 1, "bce": 1, "mse": 1}, "num_features": 4,
        "num_aus": 2, "num_components": None, "embedding_size": 4, "dropout": 0.0, "classes": ["Fear", "Other"],
        "temperature": 15.0, "margin": None, "window": {"frames": 1}, "pooling": "centre", "made_by": {},
        "model_options": {}, "loss_options": {}, "class_counts": [5, 5], "au_names": ["au4", "au26"],
        "output_names": ["amusement"],
    }  # fmt: skip
    torch.manual_seed(0)
    adapter = adapter_of(facts)
    adapter.set_thresholds(np.array([0.25, 0.75]), {"folds": 5})
    embedder = Embedder(Trained(Path("run"), {"seed_0": adapter}, None, {}), CPU)
    features = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float16)
    table = embedder.features(features)
    x = torch.from_numpy(features).float()
    va = adapter.predictors["ccc"].linear(x).tanh().detach()
    aus = adapter.predictors["bce"].linear(x).sigmoid().detach()
    assert list(table.columns[3:]) == [
        "embedding", "class", "p_Fear", "p_Other", "valence", "arousal", "AU4", "AU26", "amusement"
    ]  # fmt: skip
    outputs = adapter.predictors["mse"].linear(x).detach()
    np.testing.assert_allclose(table[["amusement"]], outputs, atol=1e-6)
    assert table.attrs["au_thresholds"] == {"AU4": 0.25, "AU26": 0.75}
    np.testing.assert_allclose(table[["valence", "arousal"]], va, atol=1e-6)
    np.testing.assert_allclose(table[["AU4", "AU26"]], aus, atol=1e-6)
    with pytest.raises(UserError, match="the features that the run run was trained on were imported"):
        embedder.images([np.zeros((50, 50, 3), np.uint8)])


# --- similarity


def test_similarity_is_the_cosine_of_frames_persons_and_clips():
    unit = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    table = pd.DataFrame({"video": ["a", "a", "a", "b"], "person": ["", "", "left", ""], "embedding": list(unit)})
    np.testing.assert_allclose(similarity(table), unit @ unit.T, atol=1e-6)
    np.testing.assert_allclose(similarity(table, table[3:]), unit @ unit[3:].T, atol=1e-6)
    np.testing.assert_allclose(similarity(table["embedding"][0], table), unit @ unit[0], atol=1e-6)
    assert similarity(np.array([3.0, 0]), np.array([3.0, 4])) == pytest.approx(0.6)
    persons = by_person(table)
    assert persons[["video", "person", "frames"]].to_numpy().tolist() == [["a", "", 2], ["a", "left", 1], ["b", "", 1]]
    np.testing.assert_allclose(persons["embedding"][0], np.array([1.6, 0.8]) / np.hypot(1.6, 0.8), atol=1e-6)
    clips = by_clip(table)
    assert clips[["video", "frames"]].to_numpy().tolist() == [["a", 3], ["b", 1]]
    np.testing.assert_allclose(similarity(clips)[0, 1], -1.6 / np.hypot(1.6, 1.8), atol=1e-6)
    with pytest.raises(UserError, match="embeddings of 2 and 3 numbers cannot be compared: they are of two runs"):
        similarity(table, np.eye(3))


def test_the_nearest_training_windows_are_those_of_the_largest_cosine(project):
    loaded = Embedder.load(project / "runs/classified", seed="all", device="cpu")
    store = FeatureStore(project / "data/features.zarr")
    keys = store.keys.astype({"video": "str"})
    table = loaded.features(store.read(keys["row"].to_numpy()), keys["video"], keys["frame"])
    wanted = table.iloc[20]
    videos = Embedder.load(project / "runs/classified", device="cpu").nearest(np.ones(8), most=99)["video"]
    trained = table[table["video"].isin(videos)].copy()
    trained["cosine"] = np.float64(similarity(trained, wanted["embedding"]))
    expected = trained.sort_values("cosine", ascending=False).drop_duplicates("video")
    nearest = loaded.nearest(wanted["embedding"], most=3)
    assert nearest["video"].tolist() == expected["video"][:3].tolist()
    np.testing.assert_allclose(nearest["cosine"], expected["cosine"][:3], atol=1e-3)  # they are kept in float16
    for row in nearest.itertuples():
        assert Path(row.path) == project / f"data/faces/cropped_aligned/{row.video}/{row.frame:05d}.jpg"
        assert Path(row.path).is_file()
    assert nearest["class"].isin(["Happiness", "Sadness"]).all()


# --- what is refused


def refused(call, *words: str) -> None:
    """One line that holds the ``words``."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_what_is_no_run_is_refused_by_name(project):
    refused(lambda: Embedder.load("nowhere"), "there is no folder nowhere")
    Path("empty").mkdir()
    refused(lambda: Embedder.load("empty"), "empty is no run and no bundle")
    shutil.copytree(project / "runs/classified", "begun")
    Path("begun/summary.json").unlink()
    refused(lambda: Embedder.load("begun"), "begun is not finished", "python train.py --resume begun")
    shutil.copytree(project / "runs/classified", "damaged")
    file = Path("damaged/seed_0/best.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    refused(lambda: Embedder.load("damaged", seed=0), "damaged/seed_0/best.safetensors is damaged")
    refused(lambda: Embedder.load(project / "runs/classified", alike=["weights"]), "alike 'weights' is not one of")


def test_weights_that_are_gone_or_others_are_refused_by_name(project):
    shutil.copytree(project / "runs/classified", "far/away/run")
    moved = Embedder.load("far/away/run", device="cpu")
    image = scene(0, red=60)
    refused(lambda: moved.images(image), "weights of the backbone are not at", "weights=FILE")
    found = Embedder.load("far/away/run", weights=project / "weights/test_efficientnet.safetensors", device="cpu")
    assert len(found.images(image)) == 1
    shutil.copy(project / "params.yaml", "params.yaml")
    weights_main(["--backbone", "test_efficientnet_gn", "--weights", "random"])
    other = Embedder.load("far/away/run", weights="weights/test_efficientnet_gn.safetensors", device="cpu")
    refused(lambda: other.images(image), "weights_sha256", "'test_efficientnet' there, 'test_efficientnet_gn' here")


def test_another_crop_source_is_refused_by_name_and_taken_by_your_word(project):
    Path("data/cropped/clip").mkdir(parents=True)
    cv2.imwrite("data/cropped/clip/00001.jpg", scene(0, red=60))
    run = project / "runs/classified"
    refused(lambda: Embedder.load(run, device="cpu").frames("data"), "'cropped_aligned' there, 'cropped' here")
    table = Embedder.load(run, alike=["crop_source"], device="cpu").frames("data")
    assert len(table) == 1
    assert table.attrs["notes"] == [
        {"file": "data", "note": "alike by your word: crop_source 'cropped_aligned' there, 'cropped' here"}
    ]


def test_what_shows_nothing_is_one_line(embedder):
    film(Path("nobody.mp4"), [picture()] * 4)
    refused(lambda: embedder.video("nobody.mp4"), "nobody.mp4: no face was found")
    clip("short.mp4", 4, red=30)
    refused(lambda: embedder.video("short.mp4"), "short.mp4: 1 people in fewer than 10 frames", "no face was kept")
    Path("text.mp4").write_text("not a video at all")
    refused(lambda: embedder.video("text.mp4"), "text.mp4: cannot be opened")
    refused(lambda: embedder.video("gone.mp4"), "gone.mp4: cannot be opened: No such file or directory")
    refused(lambda: embedder.images([]), "no picture was given")
    refused(lambda: embedder.images([picture(), picture()]), "image_1: no face was found; 1 others fail too")
    refused(lambda: embedder.frames("gone"), "there is no folder gone")
    Path("some").mkdir()
    refused(lambda: embedder.frames("some"), "there is no numbered picture in some")
    Path("some/00001.jpg").write_text("x")
    refused(lambda: embedder.frames("some"), "some/00001.jpg: not an image, or damaged")
    refused(lambda: embedder.video("short.mp4", evry=3), "parameter 'evry' is not one of", "did you mean 'every'?")
    refused(lambda: embedder.video("short.mp4", every=0), "every must be from 1 to 100, and is 0")


def test_features_that_are_no_such_features_are_one_line(embedder):
    width = embedder.facts["num_features"]
    refused(lambda: embedder.features(np.zeros((3, 5))), f"features must be (n, {width})", "(3, 5)")
    refused(lambda: embedder.features(np.zeros((0, width))), "no features were given")
    refused(lambda: embedder.features(np.full((2, width), np.nan)), "some features are not finite")
    refused(lambda: embedder.features(np.full((2, width), 1e9)), "beyond 65,504")
    refused(
        lambda: embedder.features(np.zeros((2, width)), frame=[1, 1]), "frame 1 of video '' is among the features twice"
    )


# --- progress, and how it is used


def test_progress_is_told_and_can_stop_it(embedder):
    file, told = clip("one.mp4", 6, red=30), []
    embedder.video(file, min_frames=3, on_progress=lambda *how_far: told.append(how_far))
    assert told == [(n, 6) for n in range(1, 7)]

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedder.video(file, on_progress=stop)
    assert len(embedder.video(file, min_frames=3)) == 6


def test_a_long_video_is_never_in_memory_as_pixels(embedder, monkeypatch):
    alive: set[int] = set()
    most = [0]

    def frames():
        for number in range(1, 61):
            image = scene(number, red=30)
            alive.add(number)
            weakref.finalize(image, alive.discard, number)
            most[0] = max(most[0], len(alive))
            yield Frame(number, number / 25, image)
            del image

    times = {number: number / 25 for number in range(1, 61)}
    monkeypatch.setattr(module, "read", lambda path: Video(25.0, 60, frames(), times))
    assert len(embedder.video("long.mp4")) == 60
    assert 1 <= most[0] <= 4


def test_pictures_as_given_are_taken_whole(project):
    """By a run that was trained on such: no face is looked for."""
    shutil.copytree(project / "data/faces/cropped_aligned", "pictures")
    shutil.copytree(project / "weights", "weights")
    shutil.copy(project / "params.yaml", "params.yaml")
    index.main(["--name", "folder", "--root", "pictures", "--crop-source", "as given", "--class-map", "abaw"])
    assert extract.main([*TINY, "--weights", "random"]) == 0
    train.main([*FLAGS, "--model", "identity", "-e", "0", "--window", "1", "--no-reduce", "--name", "whole"])
    loaded = Embedder.load("runs/whole", device="cpu")
    store = FeatureStore(Path("data/features.zarr"))
    key = store.keys.iloc[3]
    path = f"pictures/{key['video']}/{key['frame']:05d}.jpg"
    table = loaded.images([path], with_features=True, with_crops=True)
    np.testing.assert_array_equal(np.stack(table["features"]), store.read(np.array([key["row"]])))
    assert table["box"][0].tolist() == [0, 0, 112, 112]
    film(Path("x.mp4"), [picture()] * 3)
    table = loaded.video("x.mp4")
    assert table[["person", "frame"]].to_numpy().tolist() == [["", 1], ["", 2], ["", 3]]
    assert table["box"][0].tolist() == [0, 0, 160, 96]
    assert table["confidence"].isna().all()


def test_a_run_without_a_frame_table_has_examples_without_pictures(project):
    shutil.copytree(project / "data", "data")
    Path("data/frames.parquet").unlink()
    shutil.copy(project / "params.yaml", "params.yaml")
    train.main([*FLAGS, "--model", "identity", "-e", "0", "--window", "1", "--no-reduce", "--name", "x"])
    loaded = Embedder.load("runs/x", device="cpu")
    nearest = loaded.nearest(np.ones(loaded.embedding_size), most=2)
    assert len(nearest) == 2
    assert nearest["path"].isna().all()


def test_the_page_is_done_as_it_stands_there(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    clip("clip.mp4", 12, 3, red=100, blue=20)
    cv2.imwrite("anna.jpg", scene(5, red=60)[..., ::-1])
    cv2.imwrite("ben.png", scene(6, blue=30)[..., ::-1])
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/embed.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 6
    assert names["table"]["person"].unique().tolist() == ["left", "right"]
    assert names["faces"]["video"].tolist() == ["anna", "ben"]
    assert names["frames"].shape == (24, 24)
    np.testing.assert_allclose(vectors(names["same"].sort_index()), vectors(names["cut"]), atol=1e-6)
    whole = {(r.person, r.frame): r.embedding for r in names["table"].itertuples()}
    assert len(names["embeddings"]) == 24
    assert max(float(z @ whole["left", 5]) for z in names["embeddings"]) > 0.999


def test_importing_it_waits_for_nothing():
    code = "import sys, pipeline.embed; print({'torch', 'cv2', 'pandas', 'timm'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- real faces ------------------------------------------------------------------------------------------------------


@pytest.fixture
def real_faces(monkeypatch):
    if not REAL.is_dir():
        pytest.skip("FACES names no folder of real clips")
    monkeypatch.setitem(DETECTORS, "mtcnn", mtcnn)


@pytest.mark.slow
def test_a_real_clip_has_the_embeddings_that_the_pipeline_gives_it(project, real_faces):
    file = REAL / "single_face.mp4"
    table = Embedder.load(project / "runs/tcn_supcon", device="cpu").video(file, every=3, min_frames=3)
    assert len(table) == 72
    expected = through_the_pipeline(project, file, "tcn_supcon", "--every", "3")
    assert least_cosine(table, expected) >= 0.9999
    assert similarity(table).min() < 0.99


@pytest.mark.slow
def test_five_people_of_a_real_photograph_stay_apart(project, real_faces):
    table = Embedder.load(project / "runs/tcn_supcon", device="cpu").images(REAL / "multi_face.jpg")
    assert table["person"].tolist() == ["p1", "p2", "p3", "p4", "p5"]
    boxes = np.stack(table["box"])
    assert (np.diff(boxes[:, 0]) > 0).all()  # from the left
    assert np.triu(similarity(table), 1).max() < 0.999
    with pytest.raises(UserError, match="no face was found"):
        Embedder.load(project / "runs/tcn_supcon", device="cpu").video(REAL / "no_face.mp4", every=5)


def test_who_is_who_in_a_video_is_told_by_a_run_of_people_where_one_is_named(project):
    film(Path("two.mp4"), [scene(i, red=20) for i in range(12)] + [scene(i, blue=90) for i in range(12)])
    looks = Embedder.load(project / "runs/classified", device="cpu")
    assert sorted(set(looks.video("two.mp4")["person"])) == ["p1", "p2"]
    run = Embedder.load(project / "runs/tcn_supcon", device="cpu")
    with pytest.raises(UserError, match="cannot tell people apart: it was not trained on people"):
        looks.with_identity(run)
    run.facts["num_people"] = 2
    table = run.video("two.mp4")  # its own embeddings of the two tracks
    means = [np.mean(vectors(table[table["person"] == person]), axis=0) for person in ("p1", "p2")]
    cosine = float(np.dot(*(mean / np.linalg.norm(mean) for mean in means)))
    for threshold, people in ((cosine - 0.01, [""]), (min(cosine + 0.01, 1.01), ["p1", "p2"])):
        told = Embedder.load(project / "runs/classified", device="cpu").with_identity(run, threshold)
        assert sorted(set(told.video("two.mp4")["person"])) == people
    assert -1 <= looks.with_identity(run).identity[1] <= 1
    run.facts["made_by"] = run.facts["made_by"] | {"input_size": 64}
    with pytest.raises(UserError, match="tells people apart by other features"):
        looks.with_identity(run)


def test_a_run_of_people_has_its_threshold_from_pictures_of_one_video_too(project):
    run = Embedder.load(project / "runs/tcn_supcon", device="cpu")
    run.facts["num_people"] = 2
    threshold, whose = matrix.threshold_of(run)
    assert whose == "the best F1 of the run's example windows"
    assert -1 < threshold < 1
