import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from pipeline import projection
from pipeline.params import UserError
from pipeline.store import FeatureStore, StoreWriter
from pipeline.tables import Labels, write_labels
from pipeline.training.adapter import load_adapter
from pipeline.training.samplers import build_sampler

D, CLASSES = 12, ["Neutral", "Anger", "Happiness"]
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """18 videos of 12 frames: features = the class in three channels, the person in nine louder ones, noise."""
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    rows, labels = [], []
    for number in range(18):
        video, person = f"v{number:02d}", rng.normal(size=9) * 3
        for frame in range(1, 13):
            label = (number + frame // 5) % 3
            rows.append((video, frame, 10, np.r_[2.0 * np.eye(3)[label], person] + rng.normal(size=D) * 0.5))
            labels.append((video, frame, video, CLASSES[label], "val" if number >= 12 else "train"))
    keys = pd.DataFrame([r[:3] for r in rows], columns=["video", "frame", "size"])
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D}, 64) as writer:
        for start in range(0, len(keys), 64):
            part = keys.iloc[start : start + 64]
            writer.write(part, {"original": np.array([rows[i][3] for i in part.index])})
    table = pd.DataFrame(labels, columns=["video", "frame", "group", "expression", "expression_split"])
    write_labels(root / "labels.parquet", Labels(table, CLASSES, "tiny"))
    return root


@pytest.fixture
def place(made, workplace):
    shutil.copytree(made, workplace / "data")
    return workplace


def run(*flags: str) -> Path:
    common = ["--cpu", "-e", "3", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce"]
    common += ["-r", "1", "--normalise", "standardise", "--dropout", "0.1", "--learning-rate", "0.01"]
    train.main([*common, "--no-evaluate", *flags])
    return max(Path("runs/manual").iterdir(), key=lambda p: p.stat().st_mtime_ns)


def test_training_separates_what_was_hidden_behind_persons(place):
    folder = run("--name", "x", "-e", "12", "--loss", "supcon")
    board = EventAccumulator(str(folder / "seed_0")).Reload()
    val = [e.value for e in board.Scalars("auc_same_different/val")]
    assert val[0] < 0.7
    assert max(val) > val[0] + 0.2
    loss = [e.value for e in board.Scalars("loss/train")]
    assert loss[-1] < 0.8 * loss[0]


@pytest.mark.parametrize("loss", ["contrastive_cross_entropy", "triplet", "arcface", "supcon", "cross_entropy"])
@pytest.mark.parametrize("model", ["original", "mlp", "tcn"])
def test_every_head_trains_with_every_loss_and_opens_again(place, model, loss):
    folder = run("--model", model, "--loss", loss, "-t", "15")
    assert folder.name == f"{model}-{loss}-balanced"
    for name in ("best", "last"):
        adapter = load_adapter(
            folder / "seed_0" / f"{name}.safetensors", FeatureStore(Path("data/features.zarr")).made_by
        )
        assert (adapter.facts["model"], adapter.facts["loss"], adapter.facts["classes"]) == (model, loss, CLASSES)


def test_frozen_features_need_no_training(place):
    folder = run("--model", "identity", "-e", "0", "--window", "1", "--normalise", "none")
    store = FeatureStore(Path("data/features.zarr"))
    adapter = load_adapter(folder / "seed_0" / "best.safetensors", store.made_by)
    features = torch.from_numpy(store.read(np.arange(5)).astype(np.float32))
    assert torch.equal(adapter.embed(adapter.front(features), torch.arange(5)[:, None]), features)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(place):
    one, two, three = (
        load_file(run("--name", name, "--seed", seed, "--dropout", "0.2") / f"seed_{seed}" / "last.safetensors")
        for name, seed in (("one", "0"), ("two", "0"), ("three", "1"))
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["head.layers.0.weight"], three["head.layers.0.weight"])


def test_another_seed_draws_other_batches_from_the_first_epoch_on(place):
    labels, videos = np.arange(60) % 3, np.arange(60) // 4
    for name in ("uniform", "balanced"):
        a, b = (build_sampler(name, labels=labels, videos=videos, batch_size=12, seed=s).epoch(0) for s in (0, 1))
        assert any((x != y).any() for x, y in zip(a, b, strict=True))


def test_several_seeds_make_a_folder_each_and_one_summary(place, capsys):
    folder = run("-r", "3", "--seed", "5")
    assert sorted(p.name for p in folder.iterdir()) == ["seed_5", "seed_6", "seed_7", "summary.json"]
    summary = json.loads((folder / "summary.json").read_text())
    assert [s["seed"] for s in summary["seeds"]] == [5, 6, 7]
    assert "±" in capsys.readouterr().out


def test_a_run_is_never_written_over(place):
    first, second = run(), run()
    assert (first.name, second.name) == ("mlp-contrastive_cross_entropy-balanced", first.name + "-2")
    run("--name", "mine")
    with pytest.raises(UserError, match=r"the run runs/manual/mine is there already"):
        run("--name", "mine")


def test_what_is_reported_was_not_chosen_for(place):
    """The best epoch is chosen on training groups that are held out, never on validation groups."""
    folder = run("-e", "4")
    board = EventAccumulator(str(folder / "seed_0")).Reload()
    select = {e.step: e.value for e in board.Scalars("auc_same_different/select")}
    best = json.loads((folder / "summary.json").read_text())["seeds"][0]
    assert best["select"] == pytest.approx(max(v for step, v in select.items() if step > 0))
    assert select[best["epoch"]] == pytest.approx(best["select"])


def test_every_run_shows_the_same_hyperparameters_and_no_stray_run(place):
    for flags in (["--name", "a"], ["--name", "b", "--model", "tcn", "--loss", "arcface", "--margin", "0.3"]):
        run(*flags)
    events = sorted(Path("runs").rglob("events.*"))
    assert [str(e.parent) for e in events] == ["runs/manual/a/seed_0", "runs/manual/b/seed_0"]
    keys = []
    for event in events:
        content = EventAccumulator(str(event.parent)).Reload().summary_metadata["_hparams_/session_start_info"]
        keys.append([name for name in train.HPARAMS if name.encode() in content.plugin_data.content])
    assert keys[0] == keys[1] == list(train.HPARAMS)


def test_a_projection_of_other_features_is_refused(place):
    fitted = projection.fit([np.random.default_rng(0).normal(size=(50, D))], 4)
    projection.save(Path("data/projection.safetensors"), fitted, MADE_BY | {"input_size": 64})
    with pytest.raises(UserError, match="input_size 64 there, 32 here"):
        run("--reduce")
    projection.save(Path("data/projection.safetensors"), fitted, MADE_BY)
    folder = run("--reduce")
    assert load_file(folder / "seed_0" / "best.safetensors")["front.components"].shape == (4, D)


@pytest.mark.parametrize("more", [[], ["--test-split", "0.25"]])
def test_a_reduce_stage_of_no_components_trains_on_the_features_as_they_are(place, more):
    projection.save(Path("data/projection.safetensors"), projection.nothing(D), MADE_BY)
    folders = [run(flag, *more) for flag in ("--reduce", "--no-reduce")]
    kept, plain = (load_file(folder / "seed_0" / "best.safetensors") for folder in folders)
    assert kept.keys() == plain.keys()
    assert all(torch.equal(kept[name], plain[name]) for name in plain)


def test_with_a_test_split_the_projection_is_fitted_again_without_the_held_out_groups(place):
    fitted = projection.fit([np.random.default_rng(0).normal(size=(50, D))], 4)
    projection.save(Path("data/projection.safetensors"), fitted, MADE_BY)
    folder = run("--reduce", "--test-split", "0.25")
    used = load_file(folder / "seed_0" / "best.safetensors")["front.components"].numpy()
    assert used.shape == (4, D)
    assert np.abs(used - fitted.components).max() > 0.1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "supcom"], r"'supcom' is not one of .*'supcon'.*did you mean 'supcon'"),
        (["--model", "mpl"], r"'mpl' is not one of .*'identity'.*'tcn'"),
        (["--sampler", "hard"], r"'hard' is not one of \['balanced', 'uniform'\]"),
        (["-d", "features.npy"], "no feature store at features.npy"),
        (["--labels", "none.parquet"], "no label table at none.parquet"),
        (["--select-by", "macro_f1"], "loss 'contrastive_cross_entropy' gives no classes"),
        (["--reduce"], "no projection at"),
        (["--batch-size", "3"], "batch_size must be at least 4"),
        (["--learning-rate", "1e30", "--loss", "cross_entropy"], "not finite in epoch"),
        (["--run", "nonesuch"], "section 'nonesuch' is not in"),
        (["--test-split", "1.5"], "test_split must be between 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_words(place, flags, words):
    with pytest.raises(UserError, match=words):
        run(*flags)


def test_an_unknown_parameter_in_the_file_is_refused_with_the_nearest(place):
    text = (place / "params.yaml").read_text().replace("  temperature: 15", "  temprature: 15")
    (place / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"'temprature' is not one of .*did you mean 'temperature'"):
        run()


def test_the_command_of_the_readme_trains_and_evaluates(place):
    """python train.py -e 150 -t 15, with fewer epochs."""
    command = [sys.executable, ROOT / "train.py", "-e", "2", "-t", "15", "--cpu", "--no-reduce", "-k", "1", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(Path("runs/manual/mlp-contrastive_cross_entropy-balanced/metrics.json").read_text())
    assert 0 <= metrics["recall_at_3"] <= 1
    assert "recall_at_3" in done.stdout
