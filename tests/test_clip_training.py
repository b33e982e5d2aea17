"""Clips as what is trained on, selected by and scored: a small made data set through training, evaluation, report."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from pipeline.adapter.adapter import load_adapter
from pipeline.adapter.clips import ClipRule, OfClips, windows_of_clips
from pipeline.adapter.windows import Window
from pipeline.core.clips import Clips, clips_of_fold, no_clips, read_clips, write_clips
from pipeline.core.frame_set import frame_set
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Labels, write_labels
from pipeline.evaluation import evaluate
from pipeline.extraction import reduce
from pipeline.metrics.clips import pearson, recalls
from pipeline.report import __main__ as report
from pipeline.submission import clips as predict
from pipeline.training.feed import Drawn

pytestmark = pytest.mark.usefixtures("undrawn")

D, CLASSES = 12, ["Neutral", "Anger", "Happiness"]
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """24 videos of 12 persons, 24 frames each: one feature moves, the others are the person, and noise.

    Each half of a video is a clip. Its class is how fast the one feature goes up and down. It is as often up as down in
    each clip, so that the mean of a clip says nothing. Beside these: a clip of one frame, one that overlaps two others
    and has its own label, one of three frames around a hole, and two without any frame. Three folds by person.
    """
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    persons = rng.normal(size=(12, D - 3))
    rows, clips = [], []
    for number in range(24):
        video, person = f"v{number:02d}", number % 12
        for half in (0, 1):
            label = (number + half) % 3
            frames = range(1 + 12 * half, 13 + 12 * half)
            for frame in frames:
                if (video, frame) != ("v05", 2):
                    move = 3 if (frame - 1) // (1, 2, 6)[label] % 2 else -3
                    values = np.r_[move, 0, 0, persons[person]] + rng.normal(size=D) * 0.5
                    rows.append((video, frame, 10, values))
            clips.append((f"{video}-{half}", video, frames[0], frames[-1] + 1, person, CLASSES[label]))
    clips += [
        ("one", "v03", 7, 8, 3, "Neutral"),
        ("over", "v04", 7, 19, 4, "Anger"),
        ("hole", "v05", 1, 4, 5, "Happiness"),
        ("gone-0", "v06", 90, 99, 6, "Anger"),
        ("gone-1", "lost", None, None, 7, "Neutral"),
    ]
    keys = pd.DataFrame([r[:3] for r in rows], columns=["video", "frame", "size"])
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D}, 64) as writer:
        for start in range(0, len(keys), 64):
            part = keys.iloc[start : start + 64]
            writer.write(part, {"original": np.array([rows[i][3] for i in part.index])})
    table = pd.DataFrame(clips, columns=["clip", "video", "start", "end", "person", "expression"])
    table = table.assign(
        group="p" + table["person"].astype(str), split="fold", fold=(table["person"] // 4).astype("Int16")
    )
    joy = (table["expression"] == "Happiness") + rng.normal(size=len(table)) * 0.1
    table = table.assign(joy=joy, calm=np.where(table["clip"] == "one", np.nan, -joy)).drop(columns="person")
    write_clips(root / "clips.parquet", Clips(table, CLASSES, "tiny"))
    return root


@pytest.fixture
def place(made, workplace):
    (workplace / "data").symlink_to(made)
    return workplace


SPLIT = ("--select-split", "0.25")


def clips(place, fold=None, **columns):
    """The clip table; of one fold with its official split."""
    table = read_clips(place / "data/clips.parquet")
    table = clips_of_fold(table, fold) if table.folds and fold is not None else table
    return Clips(table.table.assign(**columns), table.classes, table.dataset)


def run(name, *flags) -> Path:
    common = ["--unit", "clip", "--cpu", "--window", "5", "--embedding-size", "8", "--batch-size", "24", "--no-reduce"]
    common += ["-r", "1", "--dropout", "0", "--learning-rate", "0.02", "--no-evaluate", "--look-every", "1"]
    train.main([*common, *([] if "-e" in flags else ["-e", "3"]), "--name", name, *flags])
    return Path("runs/manual") / name


def frames_of(place, fold=0):
    return frame_set(
        FeatureStore(place / "data/features.zarr"), clips(place, fold), test_split=None, select_split=0.25, split_seed=0
    )


# --- which frames, which windows


def test_a_clip_is_its_frames_and_a_frame_of_two_clips_stands_in_both(place):
    frames = frames_of(place)
    assert sorted(frames.clips_without_features) == ["gone-0", "gone-1"]
    of = dict(zip(frames.clips["clip"], range(len(frames.clips)), strict=True))
    numbers = {name: frames.frame[frames.clip == code].tolist() for name, code in of.items()}
    assert numbers["v00-0"] == list(range(1, 13))
    assert numbers["one"] == [7]
    assert numbers["hole"] == [1, 3]
    assert numbers["over"] == list(range(7, 19))
    label = {name: {CLASSES[k] for k in frames.label[frames.clip == code]} for name, code in of.items()}
    assert label["over"] == {"Anger"}
    shared = np.intersect1d(frames.row[frames.clip == of["over"]], frames.row[frames.clip == of["v04-0"]])
    assert len(shared) == 6
    assert label["v04-0"] == {"Anger"}
    assert label["v04-1"] == {"Happiness"}
    for part in ("train", "select", "val"):
        centres = frames.centres(part)
        assert len(set(frames.clip[centres])) == len(centres)
    parts = [set(frames.clip[frames.centres(part)]) for part in ("train", "select", "val")]
    assert set.union(*parts) == set(range(len(of)))
    assert sum(map(len, parts)) == len(of)
    groups = [set(frames.names_of(part)[0]) for part in ("train", "select", "val")]
    assert groups[2] == {"p0", "p1", "p2", "p3"}
    assert not groups[0] & groups[1]


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_windows_stay_in_their_clip_and_hold_each_frame_and_the_last_one_is_full(place, stride):
    frames = frames_of(place)
    centres = np.sort(np.concatenate([frames.centres(part) for part in ("train", "select", "val")]))
    windows = Window(5).over(frames.sequence, frames.frame, frames.sequence_videos)
    rows, clip = windows_of_clips(windows, frames.sequence, centres, stride)
    for number, centre in enumerate(centres):
        mine = rows[clip == number]
        its = np.flatnonzero(frames.clip == frames.clip[centre])
        assert set(mine[mine >= 0]) == set(its)
        span = frames.frame[its[-1]] - frames.frame[its[0]] + 1
        assert len(mine) == 1 + max(0, -(-(span - 5) // stride))
        if span > 5:  # full, but for the frame that is missing
            assert (mine < 0).sum() <= 5 * (frames.videos[frames.video[centre]] == "v05")
    one = next(i for i, c in enumerate(centres) if frames.clips["clip"][frames.clip[c]] == "one")
    assert rows[clip == one].tolist() == [[centres[one], -1, -1, -1, -1]]
    some, of = windows_of_clips(windows, frames.sequence, centres[[3, one]], stride)
    np.testing.assert_array_equal(some, rows[np.isin(clip, [3, one])])
    assert set(of) == {0, 1}


def test_drawn_windows_are_so_many_of_each_clip_by_seed_and_epoch():
    clip = np.repeat([5, 7, 9], [1, 4, 10])
    drawn = Drawn(clip, 3, seed=1)
    for epoch in range(4):
        assert np.bincount(np.searchsorted([5, 7, 9], clip[drawn(epoch)])).tolist() == [1, 3, 3]
    assert drawn.num_windows == 7
    np.testing.assert_array_equal(drawn(2), Drawn(clip, 3, seed=1)(2))
    assert not np.array_equal(drawn(0), drawn(1))
    assert not np.array_equal(drawn(0), Drawn(clip, 3, seed=2)(0))
    seen = np.logical_or.reduce([drawn(epoch) for epoch in range(40)])
    assert seen.all()


# --- one embedding and one prediction a clip


class Plain:
    """An adapter whose logits are the embeddings themselves."""

    def predict(self, what, embeddings):
        return embeddings


def pooled(pooling, what="classes", weights=None, top_k=2):
    values = torch.tensor([[3.0, 0.0], [1.0, 2.0], [-1.0, 5.0], [0.5, 0.25]])
    rule = ClipRule(stride=1, pooling=pooling, top_k=top_k)
    weights = None if weights is None else torch.tensor(weights)
    return OfClips(Plain(), rule, values, torch.tensor([0, 0, 0, 1]), weights).predict(what).numpy(), values.numpy()


def test_the_poolings_of_a_clip_are_those_found_by_hand():
    logits, values = pooled("logits")
    np.testing.assert_allclose(logits, [[1.0, 7 / 3], [0.5, 0.25]], rtol=1e-6)
    largest, _ = pooled("top_k")
    np.testing.assert_allclose(largest, [[2.0, 3.5], [0.5, 0.25]], rtol=1e-6)
    softmax = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    found = np.exp(pooled("probabilities")[0])
    np.testing.assert_allclose(found, [softmax[:3].mean(0), softmax[3]], rtol=1e-5)
    sigmoid = 1 / (1 + np.exp(-values))
    found = 1 / (1 + np.exp(-pooled("probabilities", "aus")[0]))
    np.testing.assert_allclose(found, [sigmoid[:3].mean(0), sigmoid[3]], rtol=1e-5)
    np.testing.assert_allclose(pooled("probabilities", "va")[0], [[1.0, 7 / 3], [0.5, 0.25]], rtol=1e-6)
    weighed, _ = pooled("attention", weights=[0.5, 0.25, 0.25, 1.0])
    np.testing.assert_allclose(weighed, [[1.5, 1.75], [0.5, 0.25]], rtol=1e-6)


def test_a_clip_embedding_has_length_one_and_is_the_mean_direction_of_its_windows():
    windows = torch.tensor([[3.0, 0.0], [0.0, 0.5], [2.0, 2.0], [0.0, 0.0]])
    z = OfClips(Plain(), ClipRule(1), windows, torch.tensor([0, 0, 1, 2])).embeddings.numpy()
    np.testing.assert_allclose(z, [[0.5**0.5] * 2, [0.5**0.5] * 2, [0.0, 0.0]], atol=1e-6)


def test_attention_over_windows_is_attention_over_all_their_frames():
    from pipeline.adapter.heads.attention_pool import AttentionPool

    torch.manual_seed(0)
    head = AttentionPool(6, 4).eval()
    frames, valid = torch.randn(1, 6, 6), torch.tensor([[True, True, True, True, False, True]])
    with torch.inference_mode():
        whole = head(frames, valid)
        features, parts = frames.view(2, 3, 6), valid.view(2, 3)
        share = head.attention_of(features, parts).softmax(0)
        np.testing.assert_allclose((share[:, None] * head(features, parts)).sum(0), whole[0], atol=1e-6)


# --- measures


def test_war_uar_and_f1_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 43, 300), rng.integers(0, 43, 300)
    predicted[::2] = labels[::2]
    labels[labels == 7] = 8  # a class that the truth lacks
    labels[:5] = -1
    measure = recalls(labels, predicted, np.arange(300) // 4, [f"c{k}" for k in range(43)])
    once = {name: value[0] for name, value in measure(np.ones((1, 75))).items()}
    known = labels >= 0
    assert once["war"] == pytest.approx(accuracy_score(labels[known], predicted[known]), abs=1e-12)
    found = recall_score(labels[known], predicted[known], labels=np.unique(labels[known]), average="macro")
    assert once["uar"] == pytest.approx(found, abs=1e-12)
    assert np.isnan(once["recall_of_c7"])
    weights = np.random.default_rng(1).integers(0, 3, (1, 75))
    rows = np.repeat(np.arange(300), weights[0][np.arange(300) // 4])
    rows = rows[labels[rows] >= 0]
    again = measure(weights.astype(float))
    assert again["war"][0] == pytest.approx(accuracy_score(labels[rows], predicted[rows]), abs=1e-12)
    found = recall_score(labels[rows], predicted[rows], labels=np.unique(labels[rows]), average="macro")
    assert again["uar"][0] == pytest.approx(found, abs=1e-12)


def test_pearson_is_scipys_mean_over_outputs_also_far_from_zero_and_with_unknown_cells():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 3)) + 1000
    predicted = 0.5 * truth + rng.normal(size=(60, 3))
    truth[:7, 1] = np.nan
    predicted[:, 2] = 4.0
    measure = pearson(truth, predicted, np.arange(60) // 3, ["a", "b", "c"])
    once = {name: value[0] for name, value in measure(np.ones((1, 20))).items()}
    each = [pearsonr(truth[:, 0], predicted[:, 0]).statistic, pearsonr(truth[7:, 1], predicted[7:, 1]).statistic, 0]
    assert [once[f"pearson_{name}"] for name in "abc"] == pytest.approx(each, abs=1e-9)
    assert once["pearson"] == pytest.approx(np.mean(each), abs=1e-9)


# --- training


@pytest.fixture
def single(made, place):
    """The same with one official split, that of fold 0, in a folder of its own."""
    (place / "data").unlink()
    (place / "data").mkdir()
    for path in made.iterdir():
        if path.name != "clips.parquet":
            (place / "data" / path.name).symlink_to(path)
    write_clips(place / "data/clips.parquet", clips_of_fold(read_clips(made / "clips.parquet"), 0))
    return place


@pytest.mark.parametrize(
    ("model", "loss", "sampler", "more"),
    [
        ("mlp", "cross_entropy", "uniform", ["--clip-pooling", "top_k", "--clip-windows", "2"]),
        ("gru", "arcface", "balanced", ["--clip-pooling", "probabilities", "--select-by", "uar"]),
        ("attention_pool", "{cross_entropy: 1, pearson: 1}", "uniform", ["--clip-pooling", "attention"]),
        ("transformer", "{mse: 1, pearson: 1}", "uniform", ["--edge", "mirror"]),
        ("tcn", "supcon", "hard_negative", ["--positives", "other_video"]),
        ("mlp", "{contrastive_cross_entropy: 1, steadiness: 0.5}", "opposite", ["--opposites", "[[Anger, Happiness]]"]),
        ("mlp", "supcon", "per_class_negatives", ["--positives", "other_group", "--clip-windows", "3"]),
        ("mlp", "vicreg", "temporal", ["--clip-stride", "1"]),
    ],
)
def test_heads_losses_and_samplers_train_on_clips_and_open_again(single, model, loss, sampler, more):
    folder = run("x", "--model", model, "--loss", loss, "--sampler", sampler, "-e", "2", *more, *SPLIT)
    adapter = load_adapter(folder / "seed_0", MADE_BY)
    scalars = EventAccumulator(str(folder / "seed_0")).Reload()
    losses = [event.value for event in scalars.Scalars("loss/train")]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert np.isfinite([e.value for e in scalars.Scalars(f"{adapter.facts['select_by']}/select")]).all()
    assert set(adapter.seen) == {"train", "select", "val"}
    if "outputs" in adapter.predicts:
        assert adapter.facts["output_names"] == ["joy", "calm"]


def test_positives_of_another_video_and_group_are_of_the_clips_video_and_person(single, monkeypatch):
    from pipeline.training import start

    handed = {}
    build = start.build_sampler
    monkeypatch.setattr(start, "build_sampler", lambda *a, **k: handed.update(k) or build(*a, **k))
    run("x", "-e", "1", "--sampler", "balanced", "--positives", "other_video", *SPLIT)
    assert len(handed["videos"]) > 90
    frames = frames_of(single)
    train_clips = np.flatnonzero(np.isin(np.arange(len(frames.clips)), frames.clip[frames.centres("train")]))
    counts = frames.clips["video"].iloc[train_clips].nunique()
    assert len(np.unique(handed["videos"])) == counts < len(train_clips)
    assert len(np.unique(handed["groups"])) == 6


def test_a_run_with_drawn_windows_that_was_cut_off_goes_on_to_the_same_weights(single, monkeypatch):
    from pipeline.training import run as run_module

    flags = ["--loss", "cross_entropy", "--sampler", "uniform", "--clip-windows", "1", "--dropout", "0.2", *SPLIT]
    whole = run("whole", "-e", "4", *flags)
    monkeypatch.setattr(run_module, "STATE_EVERY", 0.0)
    epoch = run_module._epoch

    def cut(trainer, number, data):
        if number == 3:
            raise KeyboardInterrupt
        return epoch(trainer, number, data)

    monkeypatch.setattr(run_module, "_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        run("cut", "-e", "4", *flags)
    monkeypatch.setattr(run_module, "_epoch", epoch)
    train.main(["--resume", "runs/manual/cut"])
    one, two = (load_file(folder / "seed_0/last.safetensors") for folder in (whole, Path("runs/manual/cut")))
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = load_file(run("other", "-e", "4", *flags, "--seed", "1") / "seed_1/last.safetensors")
    assert not torch.equal(one["head.layers.0.weight"], other["head.layers.0.weight"])


def test_features_of_clips_are_centred_on_all_frames_of_training_clips(single):
    run("x", "-e", "0", "--model", "identity", "--normalise", "centre", *SPLIT)
    frames = frames_of(single)
    rows = np.unique(frames.row[np.isin(frames.clip, frames.clip[frames.centres("train")])])
    features = FeatureStore("data/features.zarr").read(rows).astype(np.float64)
    shift = load_adapter("runs/manual/x", MADE_BY).front.shift.numpy()
    np.testing.assert_allclose(shift, features.mean(0), atol=1e-5)
    assert len(rows) > 5 * len(frames.centres("train"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clip-stride", "6"], "clip_stride must be at most window, 5, or frames would be in no window; it is 6"),
        (["--clip-pooling", "mean"], "argument --clip-pooling|clip_pooling"),
        (["--loss", "mse", "--sampler", "uniform"], "have no continuous outputs to train on"),
    ],
)
def test_what_cannot_be_is_refused(single, flags, message, capsys):
    table = clips(single)
    write_clips(single / "data/clips.parquet", Clips(table.table.drop(columns=["joy", "calm"]), CLASSES, "tiny"))
    with pytest.raises((UserError, SystemExit)) as error:
        run("x", *flags, *SPLIT)
    assert re.search(message, str(error.value) + capsys.readouterr().err)


def test_a_data_set_that_labels_frames_has_no_clips_to_train_on(single):
    write_clips(single / "data/clips.parquet", no_clips("abaw"))
    with pytest.raises(UserError, match=r"data/clips\.parquet has no clips: data set 'abaw' labels frames"):
        run("x")


def test_a_person_on_both_sides_of_the_official_split_is_refused(single):
    table = clips(single).table
    table.loc[table["clip"] == "v00-0", "split"] = "train"
    write_clips(single / "data/clips.parquet", Clips(table, CLASSES, "tiny"))
    with pytest.raises(UserError, match=r"1 groups .* stand on both sides of the official split of 'expression'"):
        run("x")


# --- the projection


def test_the_projection_is_fitted_on_training_clips_and_frames_and_never_on_a_video_that_either_holds_out(place):
    store = FeatureStore(place / "data/features.zarr")
    of_fold = clips(place, 0)
    table = of_fold.table
    empty = pd.DataFrame({"video": [], "frame": [], "group": []}).astype({"video": "str", "group": "str"})
    rows = reduce.training_rows(store, Labels(empty, CLASSES, "tiny"), of_fold)
    keys = store.keys.set_index("row").loc[rows]
    trained = set(table.loc[table["split"] == "train", "video"]) - {"lost"}
    assert set(keys["video"].astype("str")) == trained
    assert len(rows) == store.keys["video"].astype("str").isin(trained).sum()
    frames = pd.DataFrame({"video": ["v04", "v05", "v05"], "frame": [1, 2, 3], "group": ["p4", "p5", "p5"]})
    frames = frames.assign(expression="Anger", expression_split=["train", "val", "val"])
    rows = reduce.training_rows(store, Labels(frames, CLASSES, "tiny"), of_fold)
    assert set(store.keys.set_index("row").loc[rows, "video"].astype("str")) == trained - {"v05", "v17"}


@pytest.mark.slow
def test_folds_of_clips_have_a_projection_each_that_training_takes(place):
    empty = pd.DataFrame({"video": ["v00"], "frame": [1], "group": ["p0"]}).astype({"group": "str"})
    write_labels(place / "labels.parquet", Labels(empty, [], "tiny"))
    files = ["--labels", "labels.parquet", "-d", "data/features.zarr"]
    reduce.main([*files, "-n", "6", "-o", "p.safetensors"])
    run("x", "--reduce", "--projection", "p.safetensors", "-e", "1", *SPLIT)
    seen = load_adapter("runs/manual/x/fold_1/seed_0", MADE_BY).seen
    assert set(seen) == {"train", "select", "val", "projection"}


# --- training, evaluation, report


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """A run over three folds and a baseline, evaluated, with the project's params.yaml."""
    place, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    (place / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (place / "data").symlink_to(made)
    os.chdir(place)
    run(
        "tcn",
        "--model",
        "tcn",
        "--loss",
        "cross_entropy",
        "--sampler",
        "uniform",
        "--select-by",
        "uar",
        "-e",
        "12",
        *SPLIT,
    )
    run(
        "frozen",
        "--model",
        "identity",
        "-e",
        "0",
        *SPLIT,
        "--window",
        "1",
        "--pooling",
        "centre",
        "--normalise",
        "none",
    )
    for name in ("tcn", "frozen"):
        evaluate.main(["--run", f"runs/manual/{name}", "-o", f"evaluation/{name}"])
    os.chdir(before)
    return place


@pytest.fixture
def evaluated(trained, tmp_path):
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.slow
def test_clips_are_trained_on_scored_and_reported_over_official_folds(evaluated, capsys):
    predictions = pd.read_parquet("evaluation/tcn/predictions.parquet")
    table = clips(evaluated).table
    there = table[~table["clip"].isin(["gone-0", "gone-1"])].set_index("clip")
    assert sorted(predictions["clip"]) == sorted(there.index)
    assert (predictions["truth"].to_numpy() == there.loc[predictions["clip"], "expression"].to_numpy()).all()
    assert (predictions["fold"].to_numpy() == there.loc[predictions["clip"], "fold"].to_numpy()).all()
    metrics = json.loads(Path("evaluation/tcn/metrics.json").read_text())
    truth, said = predictions["truth"], predictions["predicted"]
    assert metrics["war"] == pytest.approx(accuracy_score(truth, said), abs=1e-9)
    assert metrics["uar"] == pytest.approx(balanced_accuracy_score(truth, said), abs=1e-9)
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"), abs=1e-9)
    assert "steadiness" not in metrics or metrics["steadiness"] is None
    details = json.loads(Path("evaluation/tcn/details.json").read_text())
    assert details["about"]["clips_left_out"] == ["gone-0", "gone-1"]
    assert details["estimates"]["war"]["low"] < metrics["war"] < details["estimates"]["war"]["high"]
    for of in details["folds"]:
        mine = predictions[predictions["fold"] == of["fold"]]
        assert of["metrics"]["war"] == pytest.approx(accuracy_score(mine["truth"], mine["predicted"]))
        assert of["metrics"]["uar"] == pytest.approx(balanced_accuracy_score(mine["truth"], mine["predicted"]))
    found = details["over_folds"]["uar"]
    each = [of["metrics"]["uar"] for of in details["folds"]]
    assert (found["mean"], found["deviation"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    counts = confusion_matrix(truth, said, labels=CLASSES)
    per_class = pd.read_csv("evaluation/tcn/per_class.csv").set_index("class")
    assert per_class["recall"].tolist() == pytest.approx((np.diag(counts) / counts.sum(1)).tolist())
    assert per_class["clips"].tolist() == counts.sum(1).tolist()
    assert len(pd.read_csv("evaluation/tcn/per_video.csv")) == 24
    board = EventAccumulator("runs/manual/tcn/fold_0/seed_0").Reload()
    assert {"war/select", "uar/select", "uar/val", "auc_same_different/val"} <= set(board.Tags()["scalars"])
    best = load_adapter("runs/manual/tcn/fold_0/seed_0", MADE_BY).facts
    assert best["clips"] == {"stride": 3, "windows": None, "pooling": "logits", "top_k": 3}
    assert best["select"] == pytest.approx(max(e.value for e in board.Scalars("uar/select")[1:]))
    frozen = json.loads(Path("evaluation/frozen/metrics.json").read_text())
    assert metrics["uar"] > max(frozen["knn_uar"], frozen["probe_uar"])
    params = yaml.safe_load(Path("params.yaml").read_text()) | {"runs": {"tcn": {}, "frozen": {}}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    report.main([])
    page = Path("report/index.html").read_text()
    for words in ("classifier WAR", "kNN UAR", "linear probe WAR", "2 clips have no features", "Mean over folds"):
        assert words in page, words
    assert "Scored on 51 expression clips of 24 validation videos" in Path("report/report.md").read_text()


@pytest.mark.slow
def test_outputs_of_clips_are_predicted_and_scored_by_pearson(single):
    run("x", "--loss", "{mse: 1, pearson: 1}", "--sampler", "uniform", "--model", "tcn", "-e", "6", *SPLIT)
    evaluate.main(["--run", "runs/manual/x", "-o", "out"])
    said = pd.read_parquet("out/predictions.parquet")
    metrics = json.loads(Path("out/metrics.json").read_text())
    each = []
    for name in ("joy", "calm"):
        known = said[f"{name}_truth"].notna()
        each.append(pearsonr(said.loc[known, f"{name}_truth"], said.loc[known, name]).statistic)
    assert metrics["pearson"] == pytest.approx(np.mean(each), abs=1e-5)
    assert metrics["pearson"] > 0.5
    assert "pearson/val" in EventAccumulator("runs/manual/x/seed_0").Reload().Tags()["scalars"]


@pytest.mark.slow
def test_clips_are_predicted_without_labels_as_the_evaluation_does(evaluated, capsys):
    table = clips(evaluated)
    plain = table.table[["clip", "video", "start", "end", "group"]]
    write_clips(Path("hidden.parquet"), Clips(plain, [], "tiny"))
    flags = ["--run", "runs/manual/tcn/fold_0", "--clips", "hidden.parquet"]
    predict.main([*flags, "-o", "p.csv", "--embeddings", "z.npz"])
    words = capsys.readouterr().out
    assert "p.csv: 51 clips, by 1 networks" in words
    assert "without a prediction: 2 clips (gone-0, gone-1)" in words
    assert "has seen 16 of their videos" in words
    said = pd.read_csv("p.csv").set_index("clip")
    assert said.loc[["gone-0", "gone-1"], ["predicted", "p_Anger"]].isna().all(axis=None)
    there = pd.read_parquet("evaluation/tcn/predictions.parquet")
    there = there[there["fold"] == 0].set_index("clip")
    columns = [f"p_{name}" for name in CLASSES]
    np.testing.assert_allclose(said.loc[there.index, columns], there[columns], atol=1e-5)
    assert said.loc[there.index, "predicted"].tolist() == there["predicted"].tolist()
    with np.load("z.npz") as file:
        assert file["clip"].tolist() != sorted(file["clip"].tolist()) or len(file["clip"]) == 51
        np.testing.assert_allclose(np.linalg.norm(file["embeddings"], axis=1), 1, atol=1e-5)
    predict.main(["--run", "runs/manual/tcn", "--clips", "hidden.parquet", "-o", "mean.parquet"])
    mean = pd.read_parquet("mean.parquet").set_index("clip").drop(index=["gone-0", "gone-1"])
    np.testing.assert_allclose(mean[columns].sum(axis=1), 1, atol=1e-5)
    with pytest.raises(UserError, match="has no clips of the part 'test'"):
        predict.main([*flags, "--part", "test", "-o", "q.csv"])


@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(single):
    page = (ROOT / "docs/clips.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in page.splitlines() if line.startswith("    python ")]
    assert len(commands) == 4
    mains = {
        "train.py": train.main,
        "pipeline.evaluation.evaluate": evaluate.main,
        "pipeline.submission.clips": predict.main,
    }
    for _, *words in commands:
        name = words[1] if words[0] == "-m" else words[0]
        flags = words[2:] if words[0] == "-m" else words[1:]
        if name == "train.py":
            flags += ["--cpu", "-r", "1", "--no-evaluate", *SPLIT]
            flags += [] if "--no-reduce" in flags else ["--no-reduce", "-e", "2"]
        mains[name](flags)
    said = pd.read_csv("predictions.csv").set_index("clip")
    assert len(said) == len(clips(single).table)
    scored = pd.read_parquet("evaluation/tcn_clips/predictions.parquet").set_index("clip")
    assert (said.loc[scored.index, "predicted"] == scored["predicted"]).all()
    assert set(load_file("runs/manual/frozen_clips/seed_0/best.safetensors")) >= {"front.shift"}
