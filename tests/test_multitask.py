"""One run of three tracks, whose frames lack most labels: losses, P_MTL, thresholds, learned weights, outputs."""

import json
import math
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
from sklearn.metrics import f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from pipeline.adapter.adapter import load_adapter
from pipeline.adapter.predictors import Predictors
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES, Labels, write_labels
from pipeline.evaluation import evaluate
from pipeline.metrics.protocol import action_units, expression, multi_task, valence_arousal
from pipeline.metrics.thresholds import best_thresholds
from pipeline.report import __main__ as report
from pipeline.submission import predict
from pipeline.training import fitting, out_of_fold
from pipeline.training import run as run_module
from pipeline.training.board import Board
from pipeline.training.loop import RATE_OF_LOSS_WEIGHTS
from pipeline.training.losses.build import build_loss

pytestmark = pytest.mark.usefixtures("undrawn")

TRAINING = (ROOT / "docs/training.md").read_text(encoding="utf-8")
SHOWN = [
    shlex.split(line)[2:] for line in TRAINING.splitlines() if line.startswith("    python train.py --run mlp_mtl")
]
JOINT = {"cross_entropy": 1.0, "ccc": 1.0, "bce": 1.0, "supcon": 0.5}
RNG = np.random.default_rng(0)

# --- which rows count for which loss


def loss_and_predictors(spec, weights="fixed"):
    loss = build_loss(spec, {}, weights, num_classes=3, embedding_size=6, num_aus=2)
    predictors = Predictors(loss.trains, 6)
    for name, predictor in predictors.items():  # the same whatever others there are
        generator = torch.Generator().manual_seed(len(name))
        for parameter in predictor.parameters():
            parameter.data.normal_(generator=generator)
    return loss, predictors


def batch(rows):
    """A row of each of ``rows``, which name the labels that it has: 'e', 'v' and 'a' for the three tracks."""
    n = len(rows)
    has = {letter: torch.tensor([letter in row for row in rows]) for letter in "eva"}
    labels = torch.where(has["e"], torch.arange(n) % 3, -1)
    va = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (n, 2))).float()
    aus = (torch.arange(n)[:, None] + torch.arange(2)) % 2.0
    va[~has["v"]], aus[~has["a"]] = math.nan, math.nan
    return {"labels": labels, "va": va, "aus": aus}


def gradients(spec, rows, weights="fixed"):
    """The gradient of the embeddings (n, E), and of each predictor's weights."""
    loss, predictors = loss_and_predictors(spec, weights)
    embeddings = torch.from_numpy(np.random.default_rng(2).standard_normal((len(rows), 6))).float().requires_grad_()
    loss(embeddings, batch(rows), predictors)[0].backward()
    of_predictors = {
        name: torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in of.parameters()])
        for name, of in predictors.items()
    }
    return embeddings.grad, of_predictors


BASE = ["eva", "e", "ev", "ea", "va", "v", "a", "eva", "e", "v", "a", "e"]


@pytest.mark.parametrize(("row", "moved"), [("v", {"ccc"}), ("a", {"bce"}), ("e", {"cross_entropy"}), ("", set())])
def test_a_further_row_changes_the_losses_of_its_own_labels_and_no_other(row, moved):
    """Supcon trains no predictor: it is seen in the embeddings of the rows that were there before."""
    before, of_before = gradients(JOINT, BASE)
    after, of_after = gradients(JOINT, [*BASE, row])
    changed = {name for name in of_before if not torch.allclose(of_before[name], of_after[name], rtol=0, atol=1e-7)}
    assert changed == moved
    own = {"": [], "v": ["v"], "a": ["a"], "e": ["e"]}[row]
    shared = torch.tensor([any(letter in base for letter in own) for base in BASE])
    assert torch.equal(before[~shared], after[: len(BASE)][~shared])
    assert shared.any() == ((before - after[: len(BASE)]).abs().amax(1) > 0).any()
    assert (after[len(BASE)].abs().sum() > 0) == bool(row)


@pytest.mark.parametrize(
    ("kind", "alone"), [("e", {"cross_entropy": 1.0, "supcon": 0.5}), ("v", {"ccc": 1.0}), ("a", {"bce": 1.0})]
)
def test_where_rows_have_one_kind_of_label_the_sum_is_the_losses_of_that_kind(kind, alone):
    joint, of_joint = gradients(JOINT, [kind] * 9)
    expected, _ = gradients(alone, [kind] * 9)
    torch.testing.assert_close(joint, expected, rtol=1e-6, atol=0)
    others = set(of_joint) - set(alone)
    assert all((of_joint[name] == 0).all() for name in others)


# --- weights that are learned


def test_the_learned_sum_is_the_formula_of_the_paper_and_starts_at_the_given_weights():
    loss, predictors = loss_and_predictors(JOINT, "learned")
    embeddings, rows = torch.randn(12, 6), batch(BASE)
    total, parts = loss(embeddings, rows, predictors)
    at_start = {name: float(value) for name, value in loss.present_weights().items()}
    assert at_start == pytest.approx(JOINT, rel=1e-6)
    variances = {"cross_entropy": 0.7, "ccc": 1.9, "bce": 0.3, "supcon": 4.0}  # σ²
    with torch.no_grad():
        for name, variance in variances.items():
            loss.log_variances[name].fill_(math.log(variance))
    total, parts = loss(embeddings, rows, predictors)
    expected = sum(math.log(math.sqrt(variance)) for variance in variances.values())
    expected += float(parts["ccc"]) / (2 * variances["ccc"])
    expected += sum(float(parts[name]) / variances[name] for name in ("cross_entropy", "bce", "supcon"))
    assert total.item() == pytest.approx(expected, rel=1e-6)
    total.backward()
    for name, variance in variances.items():
        divisor = 2 * variance if name == "ccc" else variance
        slope = 0.5 - float(parts[name]) / divisor
        assert float(loss.log_variances[name].grad) == pytest.approx(slope, rel=1e-5)


def test_a_batch_without_a_row_of_a_loss_leaves_its_variance_alone():
    loss, predictors = loss_and_predictors({"cross_entropy": 1, "ccc": 2}, "learned")
    embeddings = torch.randn(6, 6)
    total, parts = loss(embeddings, batch(["v"] * 6), predictors)
    total.backward()
    assert total.item() == pytest.approx(2 * float(parts["ccc"]) + math.log(1 / 4) / 2, rel=1e-6)  # 1 / (2 σ²) is 2
    assert loss.log_variances["cross_entropy"].grad is None
    assert loss.log_variances["ccc"].grad is not None


def test_a_weight_of_0_cannot_be_learned():
    with pytest.raises(UserError, match="loss 'ccc': its weight is to be learned, and must start above 0"):
        build_loss({"bce": 1, "ccc": 0}, {}, "learned", num_aus=2)


# --- P_MTL


def test_p_mtl_of_a_case_on_paper():
    """Seven frames; each part is of those that have its label.

    Expressions: truth A A B - C - -, said A B B A A C D. F1 of A 2·1/(2 + 2), of B 2·1/(1 + 2), of C 0; D is not true.
    Valence of frames 0 and 3: 0, .4 said .2, .4: 2·.02 / (.04 + .01 + .01) = 2/3; arousal -.2, .2 said the other way
    round: -1. Frame 5 has valence alone. Units: the first F1 2·1/(2 + 2) at .5, the second 2·1/(2 + 1) at .3; the third
    is never active.
    """
    labels, predicted = np.array([0, 0, 1, -1, 2, -1, -1]), np.array([0, 1, 1, 0, 0, 2, 3])
    va_truth, va_said = np.full((7, 2), np.nan), np.zeros((7, 2))
    va_truth[[0, 3]], va_said[[0, 3]] = [[0, -0.2], [0.4, 0.2]], [[0.2, 0.2], [0.4, -0.2]]
    va_truth[5, 0] = 1.0
    nan = np.nan
    au_truth = np.array([[1, 0, 0], [0, 1, 0], [nan, 1, nan], [1, nan, 0], [nan, nan, nan], [nan] * 3, [nan] * 3])
    said = np.array([[0.6, 0.29, 0.9], [0.7, 0.3, 0], [0.9, 0.1, 0], [0.4, 0.9, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]])
    groups = np.array([0, 0, 1, 1, 0, 1, 1])
    units = ["au1", "au2", "au4"]
    measure = multi_task(
        labels, predicted, list("ABCD"), va_truth, va_said, au_truth, said, units, np.array([0.5, 0.3, 0.5]), groups
    )
    expected = (2 / 3 - 1) / 2 + (1 / 2 + 2 / 3 + 0) / 3 + (1 / 2 + 2 / 3) / 2
    assert expected == pytest.approx(29 / 36, abs=1e-15)
    assert measure(np.ones((1, 2)))["p_mtl"][0] == pytest.approx(expected, abs=1e-9)
    weights = np.array([[1.0, 1.0], [3.0, 2.0], [0.0, 1.0]])
    parts = expression(labels, predicted, groups, list("ABCD")), valence_arousal(va_truth, va_said, groups)
    of_units = action_units(au_truth, said, groups, units, np.array([0.5, 0.3, 0.5]))
    summed = parts[0](weights)["macro_f1"] + parts[1](weights)["ccc"] + of_units(weights)["au_f1"]
    np.testing.assert_allclose(measure(weights)["p_mtl"], summed, atol=1e-12)


# --- thresholds


def test_thresholds_are_those_of_the_largest_f1_of_all_there_are():
    truth = RNG.integers(0, 2, (60, 3)).astype(float)
    probabilities = np.round(RNG.random((60, 3)) * 0.6 + 0.3 * truth, 2)  # with ties
    truth[RNG.random((60, 3)) < 0.3] = np.nan
    found = best_thresholds(truth, probabilities)
    for unit in range(3):
        known = ~np.isnan(truth[:, unit])
        y, p = truth[known, unit], probabilities[known, unit]
        every = [2 * (y * (p >= cut)).sum() / (y.sum() + (p >= cut).sum()) for cut in np.linspace(0.0005, 0.9995, 1000)]
        assert f1_score(y, p >= found[unit]) == pytest.approx(max(every), abs=1e-12)


def test_a_threshold_lies_half_way_between_two_probabilities_and_stays_a_half_where_nothing_says_more():
    truth = np.array([[1, 0, np.nan, 1], [0, 0, np.nan, 1], [1, 0, np.nan, np.nan]], dtype=float)
    probabilities = np.array([[0.9, 0.9, 0.9, 0.8], [0.2, 0.1, 0.1, 0.6], [0.4, 0.2, 0.1, 0.1]])
    # The third unit has no labels, the second is never active; of the fourth all are, and 0.3 is half way to 0.
    np.testing.assert_allclose(best_thresholds(truth, probabilities), [0.3, 0.5, 0.5, 0.3])


# --- a run of all three tracks, on hand-made data

MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}
D, VIDEOS, FRAMES = 16, 24, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """24 videos of 12 frames. Features are class and units behind noise; 60 % of the labels of each track are missing.

    ``all.parquet`` has all labels; in ``lists.parquet`` most are missing. The last 8 videos are for validation.
    """
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(3)
    rows, features = [], []
    for number in range(VIDEOS):
        for frame in range(1, FRAMES + 1):
            label = (number + frame // 3) % 8
            units = ((label + np.arange(12)) % 5 < 2).astype(int)
            va = np.clip([math.cos(label), math.sin(label)] + rng.normal(size=2) * 0.05, -1, 1)
            split = "val" if number >= 16 else "train"
            rows.append((f"v{number:02d}", frame, f"v{number:02d}", ABAW_CLASSES[label], *va, *units, *[split] * 3))
            features.append(np.r_[3.0 * np.eye(8)[label], np.zeros(D - 8)] + rng.normal(size=D))
    names = ["video", "frame", "group", "expression", "valence", "arousal", *ABAW_AUS]
    table = pd.DataFrame(rows, columns=[*names, "expression_split", "va_split", "au_split"])
    table = table.astype(dict.fromkeys(ABAW_AUS, "Int8") | {"valence": "float32", "arousal": "float32"})
    keys = table[["video", "frame"]].assign(size=10)
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D}, 64) as writer:
        for start in range(0, len(keys), 64):
            part = keys.iloc[start : start + 64]
            writer.write(part, {"original": np.array(features[start : start + 64])})
    write_labels(root / "all.parquet", Labels(table, ABAW_CLASSES, "tiny"))
    lists, missing = table.copy(), rng.random((len(table), 3)) < 0.6
    lists.loc[missing[:, 0], "expression"] = None
    lists.loc[missing[:, 1], ["valence", "arousal"]] = np.nan
    lists.loc[missing[:, 2], ABAW_AUS] = pd.NA
    assert missing.all(axis=1).sum() > 20  # such rows stay in the table here
    write_labels(root / "lists.parquet", Labels(lists, ABAW_CLASSES, "tiny"))
    return root


@pytest.fixture
def place(made, workplace):
    shutil.copytree(made, workplace / "data")
    return workplace


def trained(*flags: str, name: str = "joint", labels: str = "lists") -> Path:
    """Run mlp_mtl of params.yaml, or what docs/training.md shows of it, small."""
    small = ["--cpu", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-e", "3"]
    small += ["--normalise", "standardise", "--dropout", "0.1", "--learning-rate", "0.01", "--select-split", "0.25"]
    small += ["--au-threshold-folds", "2", "--labels", f"data/{labels}.parquet", "--name", name, "--no-evaluate"]
    train.main(["--run", "mlp_mtl", *small, *flags])
    return Path("runs/manual") / name


def adapter_of(folder: Path):
    return load_adapter(folder / "seed_0/best.safetensors", FeatureStore(Path("data/features.zarr")).made_by)


@pytest.mark.slow
def test_the_default_run_is_trained_evaluated_reported_and_predicts_every_task(place, capsys):
    folder = trained(*SHOWN[0])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    wanted = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))["runs"]["mlp_mtl"]
    assert {key: config[key] for key in ("loss", "sampler", "select_by")} == {
        key: wanted[key] for key in ("loss", "sampler", "select_by")
    }
    assert wanted["labels"] == "data/labels_mtl.parquet"
    cut = adapter_of(folder).au_thresholds.double().numpy()
    assert len(set(cut.round(3))) > 2  # fitted, a threshold for each unit

    board = EventAccumulator(str(folder / "seed_0")).Reload()
    assert {"p_mtl/select", "p_mtl/val", "loss_supcon/train"} <= set(board.Tags()["scalars"])
    summary = json.loads((folder / "summary.json").read_text("utf-8"))["seeds"][0]
    assert summary["select_by"] == "p_mtl"
    assert summary["select"] == pytest.approx(max(e.value for e in board.Scalars("p_mtl/select")[1:]), abs=1e-6)

    args = ["--run", str(folder), "-o", "evaluation/joint", "--device", "cpu", "--resamples", "50", "--timelines", "0"]
    args += ["-d", "data/features.zarr", "--labels", "data/all.parquet", "--width", "3", "--width-aus", "3"]
    evaluate.main(args)
    printed = capsys.readouterr().out
    metrics = json.loads(Path("evaluation/joint/metrics.json").read_text("utf-8"))
    details = json.loads(Path("evaluation/joint/details.json").read_text("utf-8"))
    parts = metrics["macro_f1"] + metrics["ccc"] + metrics["au_f1"]
    assert metrics["p_mtl"] == pytest.approx(parts, abs=1e-9)
    smoothed = metrics["macro_f1_smoothed"] + metrics["ccc_smoothed"] + metrics["au_f1_smoothed"]
    assert metrics["p_mtl_smoothed"] == pytest.approx(smoothed, abs=1e-9)
    assert details["estimates"]["p_mtl"]["low"] < metrics["p_mtl"] < details["estimates"]["p_mtl"]["high"]
    assert json.loads(Path("evaluation/joint/headline.json").read_text("utf-8"))["p_mtl"] == metrics["p_mtl"]
    assert re.search(r"p_mtl +\d\.\d{3}  \d\.\d{3} to", printed)
    labels = pd.read_parquet("data/lists.parquet")
    count = int(((labels["au_split"] == "train") & labels["au1"].notna()).sum())
    fitted_on = f"of its own for each unit, fitted on {count} training frames of 16 groups in 2 folds"
    assert f"action units count as active from a probability {fitted_on}" in printed

    table = pd.read_parquet("evaluation/joint/predictions.parquet")
    of_units = []
    for name, threshold in zip(ABAW_AUS, cut, strict=True):
        known = table[f"{name}_truth"].notna()
        of_units.append(f1_score(table.loc[known, f"{name}_truth"], table.loc[known, name] >= threshold))
    assert metrics["au_f1"] == pytest.approx(np.mean(of_units), abs=1e-9)
    used = details["about"]["au_thresholds"]["of_seeds"]
    assert [used[name] for name in ABAW_AUS] == [[round(value, 4)] for value in cut.tolist()]

    fixed = [*args, "--au-threshold", "0.5"]
    fixed[fixed.index("evaluation/joint")] = "evaluation/half"
    evaluate.main(fixed)
    of_half = json.loads(Path("evaluation/half/metrics.json").read_text("utf-8"))
    at_half = [f1_score(table[f"{name}_truth"], table[name] >= 0.5) for name in ABAW_AUS]
    assert of_half["au_f1"] == pytest.approx(np.mean(at_half), abs=1e-9)
    assert "from a probability of 0.5, fixed for all units" in capsys.readouterr().out

    Path("params.yaml").write_text(yaml.safe_dump({"report": {}, "runs": {"joint": {}}}), encoding="utf-8")
    report.main([])
    page = Path("report/report.md").read_text("utf-8")
    assert "| P_MTL | P_MTL, smoothed |" in page
    assert f"Action units count as active from a probability {fitted_on} (joint)." in page
    assert "p_mtl_low" in Path("report/metrics.csv").read_text("utf-8").splitlines()[0].split(",")

    Path("list.txt").write_text("".join(f"v{n},{FRAMES}\n" for n in (20, 21)), encoding="utf-8")
    said = {}
    capsys.readouterr()
    for task in ("va", "expr", "au", "mtl"):
        predict.main(["--run", str(folder), "--list", "list.txt", "--task", task, "-o", task, "--device", "cpu"])
        lines = Path(task, "predictions.txt").read_text("utf-8").splitlines()[1:]
        said[task] = [line.split(",")[1:] for line in lines]
        assert (fitted_on in capsys.readouterr().out) == (task in ("au", "mtl"))
    together = [a + b + c for a, b, c in zip(said["va"], said["expr"], said["au"], strict=True)]
    assert said["mtl"] == together
    own = table[table["video"].isin(["v20", "v21"])]
    np.testing.assert_array_equal(np.array(said["au"], dtype=int), own[ABAW_AUS].to_numpy() >= cut)
    half = ["--au-threshold", "0.5", "-o", "half"]
    predict.main(["--run", str(folder), "--list", "list.txt", "--task", "au", "--device", "cpu", *half])
    lines = Path("half", "predictions.txt").read_text("utf-8").splitlines()[1:]
    found = np.array([line.split(",")[1:] for line in lines], dtype=int)
    np.testing.assert_array_equal(found, own[ABAW_AUS].to_numpy() >= 0.5)


def test_a_frame_without_any_label_is_never_drawn(place, monkeypatch):
    drawn, plain = set(), run_module.first

    def noted(data, seed, **facts):
        adapter, trainer = plain(data, seed, **facts)
        step = trainer._step

        def watched(shard, numbers, windows, pairs):
            rows = data.frames.centres("train")[windows]
            drawn.update(zip(data.frames.video[rows].tolist(), data.frames.frame[rows].tolist(), strict=True))
            known = np.stack([data.frames.known[track][rows] for track in ("expression", "va", "aus")])
            assert known.any(axis=0).all()
            assert (known.sum(axis=1) >= [12, 6, 6]).all()  # as the shares of the page say, of a batch of 24
            return step(shard, numbers, windows, pairs)

        trainer._step = watched
        return adapter, trainer

    monkeypatch.setattr(run_module, "first", noted)
    trained(*SHOWN[2], "--au-threshold-folds", "null", "-e", "6")
    assert len(drawn) > 50
    labels = pd.read_parquet("data/lists.parquet")
    without_class = labels[(labels["expression_split"] == "train") & labels["expression"].isna()]
    others = without_class[["valence", "au1"]].notna().any(axis=1)
    names = {f"v{video:02d}": video for video in range(16)}
    keys = set(zip(without_class[others]["video"].map(names), without_class[others]["frame"], strict=True))
    assert len(keys & drawn) > 20  # rows without a class are reached


def test_thresholds_never_see_validation_and_predict_each_group_without_it(place, monkeypatch):
    """Fold networks are trained on the groups of the other fold; what validation holds changes nothing."""
    plain, parts, seen = out_of_fold.first, [], []

    def noted(data, seed):
        parts.append(set(data.frames.names_of("train")[0]))
        assert not len(data.frames.centres("val"))
        return plain(data, seed)

    def fitted(truth, probabilities):
        seen.append(truth)
        return best_thresholds(truth, probabilities)

    monkeypatch.setattr(out_of_fold, "first", noted)
    monkeypatch.setattr(fitting, "best_thresholds", fitted)
    folder = trained("--au-threshold-folds", "4")
    training = {f"v{n:02d}" for n in range(16)}
    assert len(parts) == 4
    assert set.union(*parts) == training
    held = [training - part for part in parts]
    assert sum(map(len, held)) == 16
    assert set.union(*held) == training  # each group is held out once
    labels = pd.read_parquet("data/lists.parquet")
    of_training = labels[(labels["au_split"] == "train") & labels["au1"].notna()]
    assert len(seen[0]) == len(of_training)
    assert seen[0].sum() == of_training[ABAW_AUS].to_numpy(dtype=float).sum()
    facts = adapter_of(folder).facts["thresholds_of"]
    assert facts == {"folds": 4, "frames": len(of_training), "groups": 16}

    changed = labels.copy()
    of_val = (labels["au_split"] == "val") & labels["au1"].notna()
    changed.loc[of_val, ABAW_AUS] = 1 - changed.loc[of_val, ABAW_AUS]
    write_labels(Path("data/changed.parquet"), Labels(changed, ABAW_CLASSES, "tiny"))
    other = trained("--au-threshold-folds", "4", name="other", labels="changed")
    for name in ("best", "last"):
        one, two = (load_file(run / f"seed_0/{name}.safetensors") for run in (folder, other))
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert len(one["predictors.bce.thresholds"].unique()) > 2


def test_thresholds_change_nothing_else_and_null_leaves_a_half(place):
    with_them, without = trained(), trained("--au-threshold-folds", "null", name="without")
    for name in ("best", "last"):
        one, other = (load_file(folder / f"seed_0/{name}.safetensors") for folder in (with_them, without))
        assert [key for key in one if not torch.equal(one[key], other[key])] == ["predictors.bce.thresholds"]
        assert (other["predictors.bce.thresholds"] == 0.5).all()


class Killed(Exception):
    pass


def test_learned_weights_move_are_shown_and_go_on_to_the_same_bits_after_a_kill(place, monkeypatch):
    assert len(SHOWN) == 3
    flags = ["--weight-decay", "0.5"]
    whole = trained(*SHOWN[1], *flags, name="learned")
    flags += ["--loss-weights", "learned"]
    plain = Board.scalars

    def cut(self, values, part, at, *num_frames):
        plain(self, values, part, at, *num_frames)
        if part == "select" and at == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "STATE_EVERY", 0.0)
        patched.setattr(Board, "scalars", cut)
        with pytest.raises(Killed):
            trained(*flags, name="cut")
    state = load_file("runs/manual/cut/seed_0/state.safetensors")
    assert {key for key in state if key.startswith("loss.")} == {f"loss.log_variances.{name}" for name in JOINT}
    train.main(["--resume", "runs/manual/cut"])
    for name in ("best", "last"):
        one, other = (load_file(f"runs/manual/{run}/seed_0/{name}.safetensors") for run in ("learned", "cut"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    board = EventAccumulator(str(whole / "seed_0")).Reload()
    for name, start in JOINT.items():
        curve = [e.value for e in board.Scalars(f"loss_weight_{name}/train")]
        assert len(curve) == 3
        assert len(set(curve)) == 3
        assert curve[0] == pytest.approx(start, rel=0.5)


def test_learned_weights_have_their_own_rate_no_decay_and_no_part_in_the_norm(place, monkeypatch):
    made, plain = [], run_module.first
    monkeypatch.setattr(run_module, "first", lambda *a, **b: made.append(plain(*a, **b)) or made[-1])
    trained("--loss-weights", "learned", "--au-threshold-folds", "null", "--weight-decay", "0.5")
    _, trainer = made[0]
    network, weights = trainer.optimizer.param_groups
    assert [len(network["params"]), len(weights["params"])] == [len(trainer.parameters) - 4, 4]
    assert network["weight_decay"] == 0.5
    assert weights["weight_decay"] == 0
    assert weights["lr"] == RATE_OF_LOSS_WEIGHTS * network["lr"]
    assert {id(p) for p in weights["params"]} == {id(p) for p in trainer.loss.log_variances.values()}
