import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr
from conftest import ROOT
from forks import python, start
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from pipeline.adapter.adapter import load_adapter
from pipeline.adapter.heads import HEADS
from pipeline.adapter.sources import InMemory
from pipeline.core import projection
from pipeline.core.files import digest_of, load_tensors
from pipeline.core.params import UserError
from pipeline.core.seen import Seen
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Labels, of_fold, read_labels, write_labels
from pipeline.extraction import reduce
from pipeline.training import run as run_module
from pipeline.training.board import HPARAMS, Board
from pipeline.training.config import from_flags
from pipeline.training.loop import Schedule, Trainer
from pipeline.training.losses import LOSSES
from pipeline.training.samplers import SAMPLERS
from pipeline.training.samplers.build import build_sampler

pytestmark = pytest.mark.usefixtures("undrawn")

D, CLASSES = 12, ["Neutral", "Anger", "Happiness"]
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}
NOTHING = Seen.of([], [])


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
            part = "val" if number >= 12 else "train"
            va = np.array([[0, 0], [-0.8, 0.5], [0.8, 0.3]])[label] + rng.normal(size=2) * 0.05
            labels.append((video, frame, video, CLASSES[label], part, *va, part, label == 1, label == 2, part))
    keys = pd.DataFrame([r[:3] for r in rows], columns=["video", "frame", "size"])
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D, "flipped": D}, 64) as writer:
        for start in range(0, len(keys), 64):
            part = keys.iloc[start : start + 64]
            features = np.array([rows[i][3] for i in part.index])
            writer.write(part, {"original": features, "flipped": features + rng.normal(size=features.shape) * 0.1})
    names = ["video", "frame", "group", "expression", "expression_split", "valence", "arousal", "va_split"]
    table = pd.DataFrame(labels, columns=[*names, "au4", "au12", "au_split"])
    table = table.astype({"valence": "float32", "arousal": "float32", "au4": "Int8", "au12": "Int8"})
    write_labels(root / "labels.parquet", Labels(table, CLASSES, "tiny"))
    return root


@pytest.fixture
def place(made, workplace):
    shutil.copytree(made, workplace / "data")
    return workplace


def run(*flags: str) -> Path:
    common = ["--cpu", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce"]
    common += [] if "--steps" in flags else ["-e", "3"]
    common += ["-r", "1", "--normalise", "standardise", "--dropout", "0.1", "--learning-rate", "0.01"]
    train.main([*common, "--no-evaluate", *flags])
    return max(Path("runs/manual").iterdir(), key=lambda p: p.stat().st_mtime_ns)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_does_not_import_the_compiler_of_pytorch(place, optimizer):
    """Its import takes nearly as long as that of PyTorch, and the first optimiser of a process would begin it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import train; train.main(sys.argv[1:])"
    code += '; print(sorted({"torch", "torch._dynamo"} & set(sys.modules)))'
    flags = ["--cpu", "-e", "1", "-r", "1", "--no-reduce", "--no-evaluate", "--optimizer", optimizer]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['torch']", done.stderr


def test_a_temperature_or_margin_that_somebody_asked_for_in_vain_is_named(place, capsys):
    def said(*flags):
        run("-e", "0", *flags)
        return [line for line in capsys.readouterr().out.splitlines() if "has no effect" in line]

    assert said("--loss", "triplet", "-t5") == ["temperature 5.0 has no effect: loss 'triplet' takes none"]
    assert said("--loss", "{vicreg: 1, supcon: 1}", "--sampler", "balanced", "--margin=0.2", "-t", "5") == [
        "margin 0.2 has no effect: loss 'vicreg + supcon' takes none"
    ]
    assert said("--loss", "triplet", "--margin", "0.2") == []
    assert said("--loss", "triplet") == []  # the temperature that all runs share is nobody's wish
    runs = yaml.safe_load(Path("params.yaml").read_text())
    runs["runs"]["odd"] = {"loss": "triplet", "temperature": 7}
    Path("params.yaml").write_text(yaml.safe_dump(runs))
    assert said("--run", "odd") == ["temperature 7.0 has no effect: loss 'triplet' takes none"]


def test_training_separates_what_was_hidden_behind_persons(place):
    folder = run("--name", "x", "-e", "12", "--loss", "supcon")
    board = EventAccumulator(str(folder / "seed_0")).Reload()
    val = [e.value for e in board.Scalars("auc_same_different/val")]
    assert val[0] < 0.7
    assert max(val) > val[0] + 0.2
    loss = [e.value for e in board.Scalars("loss/train")]
    assert loss[-1] < 0.8 * loss[0]


# A head with each loss, a loss with each head, a sampler with each of its kinds: all of each, not all with all.
TRAINED = [
    *(("mlp", name, "balanced") for name in ("contrastive_cross_entropy", "supcon", "multi_similarity", "circle")),
    *(("mlp", name, "balanced") for name in ("arcface", "cosface", "proxy_anchor", "cross_entropy")),
    *(
        (name, "triplet", "balanced")
        for name in ("peterson", "original", "tcn", "gru", "transformer", "attention_pool")
    ),
    ("identity", "cross_entropy", "uniform"),
    ("pair_gate", "pair_bce", "pairs"),
    *(("mlp", name, "uniform") for name in ("rank_n_contrast", "ccc", "bce")),
    *(("mlp", "supcon", name) for name in ("per_class_negatives", "hard_negative", "semi_hard", "opposite")),
    *(("tcn", name, "temporal") for name in ("simsiam", "vicreg")),
    ("mlp", "supcon", "views"),
]
SEVERAL = ["{arcface: 1.0, triplet: {weight: 0.5, mining: semi_hard}}", "{supcon: 1, steadiness: 0.5}"]
SEVERAL += ["{cross_entropy: 1, ccc: 0.5, bce: 0.5}", "{ccc: 1, steadiness: 0.1}"]


def test_nothing_that_can_be_chosen_is_left_untried():
    heads, losses, samplers = (set(kind) for kind in zip(*TRAINED, strict=True))
    assert heads == set(HEADS)
    assert losses == set(LOSSES) - {"steadiness", "mse", "pearson"}  # of clips: test_clip_training.py
    assert samplers == set(SAMPLERS) - {"tracks"}  # of several tracks: test_multitask.py


@pytest.mark.parametrize(("model", "loss", "sampler"), TRAINED)
def test_a_head_a_loss_and_a_sampler_train_and_open_again(place, model, loss, sampler):
    folder = run(
        "--model", model, "--loss", loss, "--sampler", sampler, "-e", "2", "--opposites", "[[Anger, Happiness]]"
    )
    assert folder.name == f"{model}-{loss}-{sampler}"
    made_by = FeatureStore(Path("data/features.zarr")).made_by
    for name in ("best", "last"):
        facts = load_adapter(folder / "seed_0" / f"{name}.safetensors", made_by).facts
        assert (facts["model"], facts["loss"], facts["sampler"]) == (model, loss, sampler)
    first, last = (load_file(folder / "seed_0" / f"{name}.safetensors") for name in ("best", "last"))
    assert first.keys() - {"centres"} == last.keys()
    assert (folder / "seed_0/examples.parquet").is_file()


def test_a_wrong_flag_is_answered_before_the_large_libraries_are_loaded():
    script = "import json, sys, train; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
    assert not {"sklearn", "matplotlib", "tensorboard", "pytorch_metric_learning", "cv2", "scipy"} & set(modules)


def test_a_run_imports_its_own_loss_and_sampler_and_no_others(place):
    """So an edit of one of the others is no edit of what this run is made with."""
    flags = ["--cpu", "-e", "1", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce"]
    script = "import json, sys, train; train.main(sys.argv[1:]); json.dump(sorted(sys.modules), sys.stderr)"
    done = python("-c", script, *flags, "-r", "1", "--loss", "supcon", "--no-evaluate", check=True)
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    for room, choices, chosen in (("losses", LOSSES, "supcon"), ("samplers", SAMPLERS, "balanced")):
        files = {p.stem for p in (ROOT / "pipeline/training" / room).glob("*.py")} - {"__init__"}
        of_choices = {place.split(".")[-2] for place in choices.places.values()}
        loaded = {name for name in files if f"pipeline.training.{room}.{name}" in modules}
        assert of_choices < files
        assert loaded & of_choices == {chosen}


@pytest.mark.parametrize("loss", SEVERAL)
def test_a_sum_of_losses_shows_each_of_its_terms(place, loss):
    folder = run("--loss", loss, "--sampler", "balanced" if "arcface" in loss or "supcon" in loss else "uniform")
    board = EventAccumulator(str(folder / "seed_0")).Reload()
    for name in yaml.safe_load(loss):
        assert len(board.Scalars(f"loss_{name}/train")) == 3
    total = [e.value for e in board.Scalars("loss/train")]
    weights = {k: v["weight"] if isinstance(v, dict) else v for k, v in yaml.safe_load(loss).items()}
    parts = {name: [e.value for e in board.Scalars(f"loss_{name}/train")] for name in weights}
    assert total == pytest.approx([sum(weights[k] * parts[k][i] for k in weights) for i in range(3)], rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "tag", "least"),
    [("ccc", "ccc", 0.35), ("rank_n_contrast", "rank_correlation_va", 0.3), ("bce", "au_f1", 0.5)],
)
def test_valence_arousal_and_action_units_are_learnt_and_chosen_by_their_own_metric(place, loss, tag, least):
    folder = run("--loss", loss, "--sampler", "uniform", "-e", "15", "--pooling", "centre", "--select-split", "0.3")
    values = [e.value for e in EventAccumulator(str(folder / "seed_0")).Reload().Scalars(f"{tag}/val")]
    assert max(values) > max(least, values[0] + 0.1)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seeds"][0]["select"] == pytest.approx(
        max(e.value for e in EventAccumulator(str(folder / "seed_0")).Reload().Scalars(f"{tag}/select")[1:])
    )


def with_views(*names: str, sign: int = 1) -> None:
    """The store again with these views beside the original: the mirrored one times ``sign``, of a column more if wide.

    'augmented_1' comes before 'original' in the order of names.
    """
    store, path = FeatureStore(Path("data/features.zarr")), Path("data/again.zarr")
    every = np.arange(len(store.keys))
    features = {"original": store.read(every)} | dict.fromkeys(names, sign * store.read(every, "flipped"))
    features = {name: np.pad(x, ((0, 0), (0, name == "wide"))) for name, x in features.items()}
    with StoreWriter(path, MADE_BY, {name: x.shape[1] for name, x in features.items()}, 64) as writer:
        for some in np.split(every, range(64, len(every), 64)):
            keys = store.keys.sort_values("row").iloc[some].drop(columns="row").astype({"video": str})
            writer.write(keys, {name: x[some] for name, x in features.items()})


@pytest.mark.parametrize("flags", ["--augment", "--augment --memory-gb 0.000003", "--sampler views"])
def test_views_are_trained_on_and_what_is_scored_and_kept_is_of_the_originals(place, monkeypatch, flags):
    """Of another second view the loss is another one. Scores and centres stay, of a head that hardly moves."""
    monkeypatch.setattr("pipeline.training.feed.SEGMENT_WINDOWS", 4)
    monkeypatch.setattr("pipeline.training.feed.MIN_SEGMENTS", 4)
    folders = []
    for name, sign in (("one", 1), ("two", -1)):
        shutil.rmtree("data/again.zarr", ignore_errors=True)
        with_views("augmented_1", sign=sign)
        flags_of = ["-d", "data/again.zarr", "--labels", "data/labels.parquet", "--learning-rate", "1e-12", "-e", "2"]
        folders.append(run(*flags.split(), *flags_of, "--name", name) / "seed_0")
    loss, scores = ([_curve(folder, tag) for folder in folders] for tag in ("loss/train", "auc_same_different/val"))
    assert (np.abs(np.subtract(*loss)) > 1e-3).all()
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    centres = [load_file(folder / "best.safetensors")["centres"] for folder in folders]
    torch.testing.assert_close(*centres, rtol=1e-4, atol=1e-6)


def _curve(folder: Path, tag: str) -> list[float]:
    return [e.value for e in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def test_views_that_are_not_there_are_asked_for_in_words(place, capsys):
    with_views("wide")
    flags = ["-d", "data/again.zarr", "--labels", "data/labels.parquet", "-e", "1"]
    for asked, what in (("--augment", "augment"), ("--sampler views", "sampler 'views'")):
        with pytest.raises(UserError, match=f"^{what} needs augmented views .*has the original alone.*--views 3"):
            run(*asked.split(), *flags)
    run("--augment", "--model", "identity", *flags, "-e", "0")  # nothing is trained: nothing is asked for
    shutil.rmtree("data/again.zarr")
    with_views("wide", "augmented_1")
    run("--augment", *flags)
    assert f"left out: wide ({D + 1} columns)" in capsys.readouterr().out


def test_frozen_features_need_no_training(place):
    folder = run("--model", "identity", "-e", "0", "--window", "1", "--normalise", "none")
    store = FeatureStore(Path("data/features.zarr"))
    adapter = load_adapter(folder / "seed_0" / "best.safetensors", store.made_by)
    features = torch.from_numpy(store.read(np.arange(5)).astype(np.float32))
    assert torch.equal(adapter.embed(InMemory(adapter.front(features)), torch.arange(5)[:, None]), features)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(place):
    one, two, three = (
        load_file(run("--name", name, "--seed", seed, "--dropout", "0.2") / f"seed_{seed}" / "last.safetensors")
        for name, seed in (("one", "0"), ("two", "0"), ("three", "1"))
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["head.layers.0.weight"], three["head.layers.0.weight"])


@pytest.mark.parametrize("model", ["mlp", "tcn", "gru", "transformer"])
def test_a_run_ends_in_the_weights_of_plain_steps_but_for_rounding(place, monkeypatch, model):
    """A plain step takes every frame of every window, and AdamW without fused kernels. Tolerance: 1e-4 of a weight."""
    flags = ["--model", model, "--window", "5", "--dropout", "0.3", "-e", "5"]
    fast = run("--name", "fast", *flags) / "seed_0"

    def plain_step(self, shard, numbers, windows, pairs):
        if not hasattr(self, "plain"):
            schedule = self.schedule
            self.plain = torch.optim.AdamW(
                self.parameters, betas=schedule.betas, weight_decay=schedule.weight_decay, foreach=False
            )
        self.plain.param_groups[0]["lr"] = self.optimizer.param_groups[0]["lr"]
        features, valid = shard.batch(numbers)
        frames = self.adapter.head(features, valid)
        embeddings = frames.where(valid[..., None], 0).sum(1) / valid.sum(1, keepdim=True)
        targets = {k: v[torch.from_numpy(windows)] for k, v in self.targets.items()}
        loss, _ = self.loss(embeddings, targets, self.adapter.predictors)
        self.plain.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip_norm)
        self.plain.step()
        return {"loss": loss.detach(), "gradient_norm": norm.detach()}

    monkeypatch.setattr(Trainer, "_step", plain_step)
    slow = run("--name", "slow", *flags) / "seed_0"
    one, two = (load_file(folder / "last.safetensors") for folder in (fast, slow))
    for name in one:
        if name.endswith("queries_keys_values.bias"):  # attention does not depend on that of the keys: its gradient is
            one[name][8:16] = two[name][8:16]  # rounding, which AdamW scales up
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=0)
    summaries = [json.loads((folder.parent / "summary.json").read_text()) for folder in (fast, slow)]
    assert summaries[0]["seeds"][0]["epoch"] == summaries[1]["seeds"][0]["epoch"]


def test_sgd_takes_the_steps_of_its_formula(place, monkeypatch):
    """v = 0.9 v + gradient + decay * w; w = w - rate * v."""
    flags = ["--optimizer", "sgd", "--learning-rate", "0.1", "--weight-decay", "0.01", "-e", "3"]
    fast = run("--name", "fast", *flags) / "seed_0"

    class ByHand:
        def __init__(self, groups, lr, weight_decay, **_):
            self.param_groups, self.decay, self.velocity = list(groups), weight_decay, {}
            self.state = {}

        def zero_grad(self, set_to_none):
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.grad = None

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for weight in group["params"]:
                    change = weight.grad + self.decay * weight
                    self.velocity[weight] = 0.9 * self.velocity.get(weight, 0) + change
                    weight -= group["lr"] * self.velocity[weight]

    monkeypatch.setattr(torch.optim, "SGD", ByHand)
    slow = run("--name", "slow", *flags) / "seed_0"
    start = run("--name", "start", *flags[:2], "--learning-rate", "1e-30", "-e", "1") / "seed_0"
    one, two, before = (load_file(folder / "last.safetensors") for folder in (fast, slow, start))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
    weight = "head.layers.0.weight"
    assert (one[weight] - before[weight]).abs().max() > 1e-2


@pytest.mark.parametrize(("options", "collapses"), [("{variance: 0, covariance: 0}", True), ("{}", False)])
def test_a_run_whose_embeddings_collapse_says_so(place, capsys, options, collapses):
    """VICReg without what holds embeddings apart makes all of them alike, and with it does not."""
    flags = ["--loss", "vicreg", "--loss-options", options, "--sampler", "temporal", "--learning-rate", "0.05"]
    folder = run(*flags, "-e", "40", "--clip-norm", "0", "--name", "v")
    said = [line for line in capsys.readouterr().out.splitlines() if "the embeddings have collapsed" in line]
    assert len(said) == collapses
    assert all(line.startswith(f"{folder}/seed_0: ") and "after epoch 40 their spread is 0.0" in line for line in said)
    events = EventAccumulator(str(folder / "seed_0")).Reload()
    spreads = [e.value for e in events.Scalars("spread/select")]
    assert spreads[0] > 0.2
    assert (spreads[-1] < 0.1) == collapses


def test_keep_last_takes_the_last_epoch_whatever_it_scores(place):
    for keep in ("best", "last"):
        folder = run("--name", keep, "--keep", keep, "-e", "6", "--learning-rate", "0.05")
        result = json.loads((folder / "summary.json").read_text())["seeds"][0]
        best, last = (load_file(folder / f"seed_0/{name}.safetensors") for name in ("best", "last"))
        same = torch.equal(best["head.layers.0.weight"], last["head.layers.0.weight"])
        assert same == (result["epoch"] == 6)
        assert same == (keep == "last")
    with pytest.raises(UserError, match="patience waits for a better epoch, and keep takes the last"):
        run("--keep", "last", "--patience", "3")


def test_all_is_looked_at_at_some_epochs_and_what_selects_at_each(place):
    folder = run("-e", "5", "--look-every", "2") / "seed_0"
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0}).Reload()
    steps = {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["auc_same_different/select"] == [0, 1, 2, 3, 4, 5]
    assert steps["auc_same_different/val"] == steps["cosine_same/select"] == [0, 2, 4, 5]
    assert steps["loss/train"] == [1, 2, 3, 4, 5]
    best = load_tensors(folder / "best.safetensors", "a trained adapter", "", "pt")[1]["epoch"]
    assert {e.step for e in events.Tensors("cosines/same/val")} == {best}


def test_another_seed_draws_other_batches_from_the_first_epoch_on(place):
    labels, videos = np.arange(60) % 3, np.arange(60) // 4
    for name in ("uniform", "balanced"):
        a, b = (build_sampler(name, labels=labels, videos=videos, batch_size=12, seed=s).epoch(0) for s in (0, 1))
        assert any((x != y).any() for x, y in zip(a, b, strict=True))


def test_several_seeds_make_a_folder_each_and_one_summary(place, capsys):
    folder = run("-r", "3", "--seed", "5")
    made = ["config.json", "seed_5", "seed_6", "seed_7", "seeds_mean", "summary.json"]
    assert sorted(p.name for p in folder.iterdir()) == made
    tag = "auc_same_different/val"
    mean, *seeds = (EventAccumulator(str(folder / name)).Reload() for name in ("seeds_mean", *made[1:4]))
    last = [events.Scalars(tag)[-1].value for events in seeds]
    assert mean.Scalars(tag)[-1].value == pytest.approx(np.mean(last), rel=1e-6)
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
        keys.append([name for name in HPARAMS if name.encode() in content.plugin_data.content])
    empty = {"step", "steps"}  # None is an empty cell
    assert keys[1] == [name for name in HPARAMS if name not in empty]
    assert keys[0] == [name for name in keys[1] if name != "margin"]


def test_a_projection_of_other_features_is_refused(place):
    fitted = dataclasses.replace(projection.fit([np.random.default_rng(0).normal(size=(50, D))], 4), seen=NOTHING)
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


class Killed(BaseException):
    pass


# --- folds


def folded(num_folds=3):
    """The label table of the place, cut into folds of whole videos instead of its own split."""
    labels = read_labels(Path("data/labels.parquet"))
    table = labels.table.assign(fold=pd.Series(pd.factorize(labels.table["group"])[0] % num_folds, dtype="Int16"))
    table[["expression_split", "va_split", "au_split"]] = "fold"
    write_labels(Path("data/labels.parquet"), Labels(table, labels.classes, labels.dataset))
    return table


def test_each_fold_is_trained_as_alone_with_its_own_frames_held_out(place, capsys):
    table = folded()
    folder = run("--name", "all", "-r", "2")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "fold_0", "fold_1", "fold_2", "summary.json"]
    summary = json.loads((folder / "summary.json").read_text())["seeds"]
    assert [(s["fold"], s["seed"]) for s in summary] == [(k, s) for k in range(3) for s in range(2)]
    assert "on the selection part of 3 folds" in capsys.readouterr().out
    for k in range(3):
        one = of_fold(read_labels(Path("data/labels.parquet")), k)
        assert set(one.table.loc[one.table["expression_split"] == "val", "group"]) == set(
            table.loc[table["fold"] == k, "group"]
        )
        write_labels(Path("one.parquet"), one)
        alone = load_file(run("--name", f"one_{k}", "--labels", "one.parquet") / "seed_0" / "best.safetensors")
        found = load_file(folder / f"fold_{k}" / "seed_0" / "best.safetensors")
        assert all(torch.equal(found[name], alone[name]) for name in alone)
        assert load_adapter(folder / f"fold_{k}/seed_1/best.safetensors", MADE_BY).facts["fold"] == k


def test_each_fold_is_projected_by_its_own_components(place):
    folded()
    fitted = {k: projection.fit([np.random.default_rng(k).normal(size=(50, D))], 4) for k in range(3)}
    fitted = {k: dataclasses.replace(components, seen=NOTHING) for k, components in fitted.items()}
    projection.save(Path("data/projection.safetensors"), fitted, MADE_BY)
    folder = run("--reduce")
    for k in range(3):
        used = load_file(folder / f"fold_{k}" / "seed_0" / "best.safetensors")["front.components"].numpy()
        np.testing.assert_array_equal(used, fitted[k].components)
    projection.save(Path("data/projection.safetensors"), fitted[0], MADE_BY)
    with pytest.raises(UserError, match="was fitted for one split, and fold 0 is trained"):
        run("--reduce")


def test_folds_and_a_share_held_out_are_two_splits(place):
    folded()
    with pytest.raises(UserError, match="is cut into 3 folds: leave --test-split out"):
        run("--test-split", "0.25")


def test_a_run_of_folds_that_was_cut_off_goes_on_with_those_that_are_left(place, monkeypatch):
    folded()
    whole = run("--name", "whole")
    plain = run_module.train_seed

    def cut(data, folder, seed):
        if folder.name == "fold_1":
            raise Killed
        return plain(data, folder, seed)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "train_seed", cut)
        with pytest.raises(Killed):
            run("--name", "cut")
    train.main(["--resume", "runs/manual/cut"])
    both = whole, Path("runs/manual/cut")
    scores = [json.loads((folder / "summary.json").read_text())["seeds"] for folder in both]
    assert scores[0] == scores[1]
    for k in range(3):
        one, other = (load_file(folder / f"fold_{k}/seed_0/best.safetensors") for folder in both)
        assert all(torch.equal(one[name], other[name]) for name in one)


# --- cut off and gone on with


def killed_after(epoch: int, monkeypatch, *flags: str) -> Path:
    """A run that is cut off when it has shown the scores of an epoch, with a state stored after each epoch."""
    plain = Board.scalars

    def cut(self, values, part, at, *num_frames):
        plain(self, values, part, at, *num_frames)
        if part == "val" and at == epoch:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "STATE_EVERY", 0.0)
        patched.setattr(Board, "scalars", cut)
        with pytest.raises(Killed):
            run(*flags, "--look-every", "1")  # so often, or not: that makes no difference to weights
    return max(Path("runs/manual").iterdir(), key=lambda p: p.stat().st_mtime_ns)


@pytest.mark.parametrize(
    ("sampler", "epoch"), [("balanced", 0), ("balanced --augment", 2), ("hard_negative", 1), ("hard_negative", 4)]
)
def test_a_run_that_was_cut_off_goes_on_to_the_weights_of_one_that_was_not(place, monkeypatch, sampler, epoch):
    flags = [
        "-e",
        "5",
        "--dropout",
        "0.3",
        "--sampler",
        *sampler.split(),
        "--loss",
        "{arcface: 1, simsiam: 1}",
        "-r",
        "2",
    ]
    flags += ["--sampler-options", "{refresh_every: 3}"] if sampler == "hard_negative" else []
    whole = run(*flags, "--name", "whole")
    folder = killed_after(epoch, monkeypatch, *flags, "--name", "cut")
    train.main(["--resume", str(folder)])
    for seed in (0, 1):
        for name in ("best", "last"):
            one, two = (load_file(f / f"seed_{seed}" / f"{name}.safetensors") for f in (whole, folder))
            assert all(torch.equal(one[k], two[k]) for k in one)
    assert (
        json.loads((folder / "summary.json").read_text())["seeds"]
        == (json.loads((whole / "summary.json").read_text())["seeds"])
    )
    assert not list(folder.rglob("state.safetensors"))
    curves = [EventAccumulator(str(f / "seed_0")).Reload().Scalars("loss/train") for f in (whole, folder)]
    assert [e.step for e in curves[1]] == [1, 2, 3, 4, 5]
    assert [e.value for e in curves[0]] == [e.value for e in curves[1]]


def test_what_can_go_on_is_said_where_a_name_is_taken(place):
    run("--name", "mine")
    with pytest.raises(UserError, match="go on with it by --resume runs/manual/mine"):
        run("--name", "mine")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--resume", "runs/manual/none"], "no run to go on with in runs/manual/none"),
        (["--resume", "runs/manual/none", "-e", "3"], "give no other flags"),
    ],
)
def test_a_run_that_cannot_go_on_is_answered_in_words(place, flags, words):
    with pytest.raises(UserError, match=words):
        train.main(flags)


def made_otherwise(**changes) -> None:
    attributes = zarr.open_group("data/features.zarr").attrs
    facts = {"made_by": attributes["made_by"] | changes, "arrays": attributes["arrays"]}
    attributes.update(facts | {"sha256": digest_of(facts)})


def test_a_run_goes_on_with_other_crops_where_the_user_calls_them_alike(place, monkeypatch):
    whole = run("-e", "5", "--name", "whole")
    folder = killed_after(2, monkeypatch, "-e", "5", "--name", "cut")
    made_otherwise(crop_source="loose")
    with pytest.raises(UserError, match=r"crop_source None there, 'loose' here. .* --alike crop_source"):
        train.main(["--resume", str(folder)])
    train.main(["--resume", str(folder), "--alike", "crop_source"])
    one, two = (load_file(f / "seed_0/last.safetensors") for f in (whole, folder))
    assert all(torch.equal(one[k], two[k]) for k in one)
    last = load_adapter(folder / "seed_0/last.safetensors", FeatureStore(Path("data/features.zarr")).made_by)
    assert last.facts["vouched"] == {"the epochs before": "crop_source None there, 'loose' here"}
    train.main(["--resume", str(folder)])  # config.json holds the user's word from now on


@pytest.mark.usefixtures("quick_children")
def test_a_projection_of_other_crops_is_taken_where_the_user_calls_them_alike(place):
    reduce.main(["-n", "4", "-d", "data/features.zarr", "--labels", "data/labels.parquet"])
    made_otherwise(crop_source="loose")
    with pytest.raises(UserError, match=r"the projection .* crop_source None there, 'loose' here. .* --alike"):
        run("--reduce")
    folder = run("--reduce", "--alike", "crop_source", "--evaluate")
    said = {"the projection": "crop_source None there, 'loose' here"}
    assert json.loads((folder / "details.json").read_text())["about"]["vouched"] == said


def test_a_run_does_not_go_on_with_features_of_another_backbone(place, monkeypatch):
    folder = killed_after(2, monkeypatch, "-e", "5", "--name", "cut")
    made_otherwise(backbone="huge")
    with pytest.raises(UserError, match="backbone 'tiny' there, 'huge' here"):
        train.main(["--resume", str(folder)])


def wait_for_states(folder: Path, count: int) -> None:
    """Until so many states have been written, or for a minute: a run that ends before is found out by its status."""
    until, seen = time.monotonic() + 60, {None}
    while len(seen) <= count and time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            seen |= {(path, path.stat().st_mtime_ns) for path in folder.glob("seed_*/state.safetensors")}
        time.sleep(0.001)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(place):
    """SIGKILL, ten times: some states after the start, and some milliseconds."""
    flags = ["--cpu", "-e", "40", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce"]
    flags += ["--dropout", "0.3", "--no-evaluate"]
    script = "import sys, train; from pipeline.training import run; run.STATE_EVERY = 0.0; train.main(sys.argv[1:])"
    python("-c", script, *flags, "--name", "whole", check=True)
    rng, folder, kills, goes_on = np.random.default_rng(0), Path("runs/manual/cut"), 0, 0
    for _ in range(10):
        more = ["--resume", str(folder)] if (folder / "config.json").is_file() else [*flags, "--name", "cut"]
        if more[0] != "--resume":
            shutil.rmtree(folder, ignore_errors=True)
        process = start(["-c", script, *more], 1, 2)
        wait_for_states(folder, int(rng.integers(0, 6)))
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        kills += process.wait() < 0  # else it had come to its end
        goes_on += any(folder.glob("seed_*/state.safetensors"))
    assert kills > 5
    assert goes_on > 2
    train.main(["--resume", str(folder)])
    one, two = (load_file(Path("runs/manual", name, "seed_0/last.safetensors")) for name in ("whole", "cut"))
    assert all(torch.equal(one[k], two[k]) for k in one)


# --- how long


@pytest.mark.parametrize("more", [[], ["--memory-gb", "0.000003"]])
def test_steps_are_kept_exactly_and_cut_the_last_epoch_short(place, capsys, monkeypatch, more):
    monkeypatch.setattr("pipeline.training.feed.SEGMENT_WINDOWS", 4)
    monkeypatch.setattr("pipeline.training.feed.MIN_SEGMENTS", 4)
    folder = run("--steps", "12", "--warm-up", "0.9", *more)
    (seed,) = json.loads((folder / "summary.json").read_text())["seeds"]
    per_epoch = 5 if not more else -(-12 // seed["epochs"])  # in parts an epoch has some batches more
    assert seed["steps"] == 12
    assert seed["epochs"] == -(-12 // per_epoch)
    assert f"{seed['epochs']} epochs, 12 steps in all; best epoch {seed['epoch']} of " in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert (config["epochs"], config["steps"]) == (None, 12)
    board = EventAccumulator(str(folder / "seed_0")).Reload()
    select = [e.value for e in board.Scalars("auc_same_different/select")]
    assert len(select) == 1 + seed["epochs"]
    assert seed["select"] == pytest.approx(max(select[1:]))
    if not more:  # the rate of the last batch before each look, by the formula
        rates = [0.01 * min(s / 12 / 0.9, 0.5 * (1 + np.cos(np.pi * (s - 1) / 12))) for s in (5, 10, 12)]
        assert [e.value for e in board.Scalars("learning_rate/train")] == pytest.approx(rates)


def test_as_many_steps_as_some_epochs_have_train_the_same_weights(place):
    epochs, steps = (
        load_file(run(*flags, "--name", name) / "seed_0/last.safetensors")
        for name, flags in (("epochs", ["-e", "3"]), ("steps", ["--steps", "15"]))
    )
    for name in epochs:
        torch.testing.assert_close(epochs[name], steps[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_of_steps_that_was_cut_off_goes_on_to_the_same_weights(place, monkeypatch, epoch):
    whole = run("--steps", "13", "--dropout", "0.3", "--name", "whole")
    folder = killed_after(epoch, monkeypatch, "--steps", "13", "--dropout", "0.3", "--name", "cut")
    assert (folder / "seed_0/state.safetensors").is_file() == (epoch > 1)
    train.main(["--resume", str(folder)])
    for name in ("best", "last"):
        one, two = (load_file(f / "seed_0" / f"{name}.safetensors") for f in (whole, folder))
        assert all(torch.equal(one[k], two[k]) for k in one)
    results = [json.loads((f / "summary.json").read_text())["seeds"] for f in (whole, folder)]
    assert results[0] == results[1]
    assert (results[0][0]["epochs"], results[0][0]["steps"]) == (3, 13)


@pytest.mark.parametrize(
    ("shared", "own", "flags", "length"),
    [
        ({}, {}, [], (6, None)),
        ({}, {}, ["-e", "2"], (2, None)),
        ({}, {}, ["--steps", "50"], (None, 50)),
        ({}, {"epochs": 3}, [], (3, None)),
        ({}, {"epochs": 0}, ["--steps=50"], (None, 50)),
        ({}, {"steps": 70}, [], (None, 70)),
        ({}, {"steps": 70}, ["--epochs", "2"], (2, None)),
        ({"steps": 90}, {}, [], (None, 90)),
        ({"steps": 90}, {}, ["-e2"], (2, None)),
        ({"steps": 90}, {}, ["--steps", "null"], (6, None)),
        ({"steps": 90}, {"epochs": 0}, [], (0, None)),
        ({"steps": 90}, {"steps": None}, [], (6, None)),
        ({"steps": 90, "epochs": None}, {}, [], (None, 90)),
        ({}, {}, ["-e", "2", "--steps", "50"], "epochs 2 or steps 50 say how long to train: give one of the two"),
        ({}, {"epochs": 3, "steps": 70}, [], "epochs 3 or steps 70 say how long to train: give one of the two"),
        ({"epochs": None}, {}, [], "one of epochs and steps must be null, and they are None and None"),
        ({}, {}, ["--steps", "0"], "steps must be from 1 to 1,000,000,000, and is 0"),
    ],
)
def test_of_epochs_and_steps_the_one_that_was_set_last_counts(workplace, shared, own, flags, length):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train"] |= shared
    params["runs"]["mine"] = own
    Path("params.yaml").write_text(yaml.safe_dump(params))
    if isinstance(length, str):
        with pytest.raises(UserError, match=re.escape(length)):
            from_flags(["--run", "mine", *flags], "")
    else:
        config, _ = from_flags(["--run", "mine", *flags], "")
        assert (config.epochs, config.steps) == length


def test_training_ends_when_nothing_gets_better(place, monkeypatch):
    scores = iter([0.5, 0.6, 0.7, 0.65, 0.7, 0.9])
    monkeypatch.setattr(run_module, "_selected", lambda *_: next(scores))
    folder = run("-e", "50", "--patience", "2")
    assert json.loads((folder / "summary.json").read_text())["seeds"] == [
        {
            "epoch": 2,
            "epochs": 4,
            "seed": 0,
            "select": 0.7,
            "select_by": "auc_same_different",
            "steps": 20,
            "untrained": 0.5,
        }
    ]
    assert len(EventAccumulator(str(folder / "seed_0")).Reload().Scalars("loss/train")) == 4


def test_a_loss_that_is_not_finite_stops_with_its_batch_and_videos_named(place, monkeypatch):
    zarr.open_group("data/features.zarr", mode="r+")["views/original"][0] = np.nan  # frame 1 of v00
    monkeypatch.setattr("pipeline.core.store.all_finite", lambda values: True)  # which stops it before
    with pytest.raises(UserError, match=r"not finite in epoch 1, batch \d+ \(videos .*v00.*\): lower --learning-rate"):
        run("--normalise", "none", "--window", "1", "--sampler", "uniform", "--select-split", "0.3")


def test_features_that_do_not_fit_are_trained_on_from_disk_to_the_same_quality(place, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.training.feed.SEGMENT_WINDOWS", 4)
    monkeypatch.setattr("pipeline.training.feed.MIN_SEGMENTS", 4)
    flags = ["-e", "12", "--loss", "supcon", "--name"]
    scores = {}
    for name, more in (("memory", []), ("disk", ["--memory-gb", "0.000003"])):
        folder = run(*flags, name, *more)
        board = EventAccumulator(str(folder / "seed_0")).Reload()
        scores[name] = max(e.value for e in board.Scalars("auc_same_different/val"))
    assert "they are read from disk in every epoch" in capsys.readouterr().out
    assert scores["disk"] > scores["memory"] - 0.05


def test_bfloat16_is_the_heads_and_trains_as_well(place):
    scores, weights = {}, {}
    for precision in ("float32", "bfloat16"):
        folder = run("-e", "12", "--loss", "supcon", "--precision", precision, "--name", precision)
        board = EventAccumulator(str(folder / "seed_0")).Reload()
        scores[precision] = max(e.value for e in board.Scalars("auc_same_different/val"))
        weights[precision] = load_file(folder / "seed_0/last.safetensors")["head.layers.0.weight"]
    assert scores["bfloat16"] == pytest.approx(scores["float32"], abs=0.05)
    assert weights["bfloat16"].dtype == torch.float32
    assert not torch.equal(weights["bfloat16"], weights["float32"])


def test_the_rate_rises_and_falls(place):
    schedule = Schedule(epochs=10, learning_rate=1.0, warm_up=0.1)
    factors = [schedule.factor(step / 100, 0.01) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10, abs=0.03)
    assert (np.diff(factors[10:]) < 0).all()
    assert factors[-1] < 0.01
    assert Schedule(10, 1.0, warm_up=0.0, decay="constant").factor(0.5, 0.01) == 1


def test_the_list_names_everything_with_a_line_and_its_source(place, capsys):
    train.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    for name in [*HEADS, *LOSSES, *SAMPLERS]:
        (line,) = [x for x in lines if x.split() and x.split()[0] == name and x.startswith(" ")]
        assert len(line) > 60
        assert line.endswith("]")


def test_the_best_epoch_of_pairs_may_be_that_of_the_best_f1(place):
    labels = read_labels(Path("data/labels.parquet"))
    frames = labels.table.sort_values(["video", "frame"], ignore_index=True)
    pair = frames.assign(pair=frames["video"] + "/" + ((frames["frame"] + 1) // 2).astype("str"))
    pair["side"] = np.where(frames["frame"] % 2 == 1, "left", "right")
    alike = pair.groupby("pair")["expression"].transform("nunique") == 1
    table = pair.assign(same=alike.astype("int8"))
    assert 0 < alike.mean() < 1
    write_labels(Path("data/labels.parquet"), Labels(table, labels.classes, labels.dataset))
    folder = run("--select-by", "paired_best_f1", "-e", "6", "--loss", "supcon")
    scalars = EventAccumulator(str(folder / "seed_0")).Reload().Scalars("paired_best_f1/select")
    score = {event.step: event.value for event in scalars}
    best = load_adapter(folder / "seed_0/best.safetensors", MADE_BY).facts
    assert score[best["epoch"]] == pytest.approx(max(score[epoch] for epoch in range(1, 7)))
    assert best["select"] == pytest.approx(score[best["epoch"]])
    assert best["select_by"] == "paired_best_f1"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "supcom"], r"'supcom' is not one of .*'supcon'.*did you mean 'supcon'"),
        (["--model", "mpl"], r"'mpl' is not one of .*'identity'.*'tcn'"),
        (["--sampler", "hard"], r"'hard' is not one of \['balanced', 'hard_negative', "),
        (["-d", "features.npy"], "no feature store at features.npy"),
        (["--labels", "none.parquet"], "no label table at none.parquet"),
        (["--select-by", "macro_f1"], "loss 'contrastive_cross_entropy' predicts no classes"),
        (["--select-by", "paired_best_f1"], "'paired_best_f1' needs pairs, .* 'tiny' the label table names none"),
        (
            ["--select-by", "pair_f1"],
            "select_by 'pair_f1' is for a head for pairs; with model 'mlp' it may be .*paired_",
        ),
        (["--reduce"], "no projection at"),
        (["--batch-size", "3"], "batch_size must be at least 4"),
        (["--learning-rate", "1e30", "--loss", "cross_entropy"], "not finite in epoch"),
        (["--run", "nonesuch"], "section 'nonesuch' is not in"),
        (["--model-options", "{num_layer: 2}"], "num_layer"),
        (["--model-options", "{dropout: 0.1}"], "model_options cannot hold dropout"),
        (["--loss-options", "{mining: hard}"], "no loss of this run takes 'mining'"),
        (["--loss", "{arcface: -1}"], "loss 'arcface': its weight must be 0 or more"),
        (["--loss", "{}"], "loss names no loss"),
        (["--sampler-options", "{refresh: 1}"], "refresh"),
        (["--sampler", "temporal", "--loss", "arcface"], "sampler 'temporal' looks at no labels"),
        (["--opposites", "[[Anger, Angst]]"], r"'Angst' is not one of .*did you mean 'Anger'"),
        (["--memory-gb", "0.0000001"], "memory"),
        (["--test-split", "1.5"], r"test_split must be in \(0, 1\), and is 1.5"),
    ],
)
def test_bad_input_is_refused_in_words(place, flags, words):
    with pytest.raises(UserError, match=words):
        run(*flags)


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "transformer", "--embedding-size", "10", "--model-options", "{num_heads: 4}"],
        ["--model", "gru", "--model-options", "{num_layers: two}"],
        ["--loss", "triplet", "--loss-options", "{mining: hardest}"],
        ["--loss", "{supcon: 1, arcface: {weight: 1, margin: 30}}"],
        ["--sampler-options", "{refresh_every: 1}"],
        ["--sampler", "temporal", "--loss", "arcface"],
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(workplace, flags):
    with pytest.raises(UserError, match=r"head|loss|sampler"):
        train.main(flags)  # there is no data here, which would be the next complaint
    with pytest.raises(UserError, match="no feature store"):
        train.main([])


def test_an_unknown_parameter_in_the_file_is_refused_with_the_nearest(place):
    text = (place / "params.yaml").read_text().replace("  temperature: 15", "  temprature: 15")
    (place / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"'temprature' is not one of .*did you mean 'temperature'"):
        run()


def test_the_command_of_the_readme_trains_and_evaluates(place):
    """python train.py -e 150 -t 15, with fewer epochs."""
    done = python(ROOT / "train.py", "-e", "2", "-t", "15", "--cpu", "--no-reduce", "-k", "1", "3")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(Path("runs/manual/mlp-contrastive_cross_entropy-balanced/metrics.json").read_text())
    assert 0 <= metrics["recall_at_3"] <= 1
    assert "all metrics (or --all): runs/manual/" in done.stdout
    assert len(done.stdout.splitlines()) < 15


@pytest.mark.parametrize("refit", ["best", "all"])
def test_a_refitted_run_is_trained_anew_with_the_selection_part_for_as_many_epochs(place, monkeypatch, refit):
    trained, plain = [], Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", lambda self, n: trained.append((self.num_windows, n)) or plain(self, n))
    flags = ["-e", "8", "--learning-rate", "0.05", "--select-split", "0.25", "--name"]
    once, num_train = run(*flags, "once"), trained[0][0]
    assert trained == [(num_train, n) for n in range(8)]
    trained.clear()
    again = run(*flags, "again", "--refit", refit)
    made_by = FeatureStore(Path("data/features.zarr")).made_by
    facts = load_adapter(once / "seed_0/best.safetensors", made_by).facts
    refitted = load_adapter(again / "seed_0/best.safetensors", made_by)
    epochs = 8 if refit == "all" else facts["epoch"]
    assert trained == [(num_train, n) for n in range(8)] + [(12 * 12, n) for n in range(epochs)]
    assert facts["epoch"] < 8
    assert [refitted.facts[name] for name in ("epoch", "select")] == [facts[name] for name in ("epoch", "select")]
    assert refitted.facts["trained_on"] == {"dataset": "tiny", "videos": 12, "groups": 12, "frames": 144}
    assert facts["trained_on"]["groups"] == 9
    assert refitted.seen["train"] == Seen.of(*([f"v{n:02d}" for n in range(12)],) * 2)
    first, last = (
        [load_file(folder / f"seed_0/{name}.safetensors")["head.layers.0.weight"] for folder in (once, again)]
        for name in ("best", "last")
    )
    assert not torch.equal(*first)
    assert torch.equal(*last)  # as that was chosen without it
    trained.clear()
    train.main(["--resume", str(again)])
    assert trained == []  # it is finished
    with pytest.raises(UserError, match=r"trained on"):
        run("--name", "next", "--start", str(again), "--select-split", "0.25")
