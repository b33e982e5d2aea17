"""A run that is combined with its backbone: trained, evaluated, beside the baselines, in the report, and submitted."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from sklearn.metrics import f1_score

import train
from pipeline.adapter.adapter import load_adapter
from pipeline.bundle import card
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES, Labels, write_labels
from pipeline.evaluation import baselines, drawing, evaluate, files
from pipeline.metrics import combine, combine_fit
from pipeline.report import __main__ as report
from pipeline.submission import predict
from pipeline.training import out_of_fold
from pipeline.training.config import TrainConfig

pytestmark = pytest.mark.usefixtures("undrawn")

OUTPUTS = ["Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise", "valence", "arousal"]
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": OUTPUTS}
VIDEOS, FRAMES, D = 24, 24, 12


def made(root: Path, made_by=MADE_BY) -> np.ndarray:
    """24 videos of 24 frames; the last 8 are for validation. Where the backbone is sure, which is often, it is right.

    Gives its logits (n, 10).
    """
    rng, rows, features, logits = np.random.default_rng(3), [], [], []
    for number in range(VIDEOS):
        for frame in range(1, FRAMES + 1):
            label = (number + frame // 6) % 8
            units = ((label + np.arange(12)) % 5 < 2).astype(int)
            va = np.clip([math.cos(label), math.sin(label)] + rng.normal(size=2) * 0.05, -1, 1)
            split = "val" if number >= 16 else "train"
            rows.append((f"v{number:02d}", frame, f"v{number:02d}", ABAW_CLASSES[label], *va, *units, *[split] * 3))
            features.append(np.r_[1.5 * np.eye(8)[label], np.zeros(D - 8)] + rng.normal(size=D))
            said = rng.normal(size=10)
            if rng.random() < 0.6 and ABAW_CLASSES[label] in OUTPUTS:
                said[OUTPUTS.index(ABAW_CLASSES[label])] += 8
            said[8:] = va + rng.normal(size=2) * 0.3
            logits.append(said)
    names = ["video", "frame", "group", "expression", "valence", "arousal", *ABAW_AUS]
    table = pd.DataFrame(rows, columns=[*names, "expression_split", "va_split", "au_split"])
    table.loc[table["frame"] % 11 == 0, "expression"] = None
    table = table.astype(dict.fromkeys(ABAW_AUS, "Int8") | {"valence": "float32", "arousal": "float32"})
    with_logits = {"logits": np.array(logits)} if "outputs" in made_by else {}
    widths = {"original": D} | ({"logits": 10} if with_logits else {})
    with StoreWriter(root / "features.zarr", made_by, widths, 1024) as writer:
        writer.write(table[["video", "frame"]].assign(size=10), {"original": np.array(features), **with_logits})
    write_labels(root / "labels.parquet", Labels(table, ABAW_CLASSES, "tiny"))
    return np.array(logits).astype(np.float16).astype(float)


@pytest.fixture(autouse=True, scope="module")
def fast():
    """A tenth of the candidates, and no pictures: these have tests of their own."""
    few = {"WIDTHS": (1, 5), "WIDTHS_AUS": (1, 5), "THRESHOLDS": (1.0, 0.9, 0.7, 0.5, 0.0)}
    few |= {"WEIGHTS": (0.0, 0.3, 0.6, 1.0), "WEIGHTS_AUS": (0.0, 0.5)}
    with pytest.MonkeyPatch.context() as patched:
        for name, values in few.items():
            patched.setattr(combine_fit, name, values)
        patched.setattr(drawing, "drawn", lambda *arguments: iter(()))
        yield


def trained(*flags: str, name: str = "joint", loss: str = "{cross_entropy: 1, ccc: 1, bce: 1}") -> Path:
    small = ["--cpu", "--window", "1", "--embedding-size", "8", "--batch-size", "48", "--no-reduce", "-e", "6"]
    small += ["--normalise", "standardise", "--dropout", "0.1", "--learning-rate", "0.01", "--select-split", "0.25"]
    small += ["--sampler", "uniform", "--pooling", "centre", "--loss", loss, "--name", name, "--no-evaluate"]
    train.main([*small, "--combine-folds", "2", "--au-threshold-folds", "2", "-r", "1", *flags])
    return Path("runs/manual") / name


@pytest.fixture(scope="module")
def once(tmp_path_factory, fast):
    """Data, a run that is combined, and its logits."""
    root = tmp_path_factory.mktemp("combined")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        shutil.copy(Path(train.__file__).with_name("params.yaml"), root)
        logits = made(root / "data")
        trained("--combine", "gate")
    return root, logits


@pytest.fixture
def place(once, tmp_path):
    shutil.copytree(once[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def facts_of(folder: Path, seed: int = 0, name: str = "best") -> dict:
    made_by = FeatureStore(Path("data/features.zarr")).made_by
    return load_adapter(folder / f"seed_{seed}/{name}.safetensors", made_by).facts


def evaluated(*more: str, run: str = "runs/manual/joint", out: str = "evaluation/joint") -> dict[str, float]:
    evaluate.main(["--run", run, "-o", out, "--device", "cpu", "--resamples", "50", "--timelines", "0", *more])
    return json.loads(Path(out, "metrics.json").read_text("utf-8"))


def by_hand(p: pd.DataFrame, logits: np.ndarray, fitted: dict) -> np.ndarray:
    """Probabilities (n, 8) as the file of the run says, frame by frame."""
    of_classes, out = [ABAW_CLASSES.index(name) if name in ABAW_CLASSES else None for name in OUTPUTS[:8]], []
    for own, logit in zip(p[[f"p_{c}" for c in ABAW_CLASSES]].to_numpy(), logits[:, :8], strict=True):
        share = np.exp(logit) / np.exp(logit).sum()
        said = np.zeros(8)
        for output, place in enumerate(of_classes):
            if place is not None:
                said[place] = share[output]
        knows = of_classes[share.argmax()] is not None
        if fitted["threshold"] is not None:
            sure = knows and share.max() > fitted["threshold"]
            out.append(said / said.sum() if sure else own)
        else:
            known = said > 0
            mixed = np.where(known, said ** fitted["weight"] * own ** (1 - fitted["weight"]), 0)
            out.append(np.where(known, mixed / mixed.sum() * own[known].sum(), own))
    mean = pd.DataFrame(out).groupby(p["video"].to_numpy()).rolling(fitted["width"], center=True, min_periods=1).mean()
    weighted = mean.to_numpy() * np.exp(fitted["bias"])
    return weighted / weighted.sum(axis=1, keepdims=True)


def test_both_ways_are_fitted_on_training_groups_and_change_no_weight(place, monkeypatch, capsys):
    facts = facts_of(Path("runs/manual/joint"))["combine"]
    assert facts == facts_of(Path("runs/manual/joint"), name="last")["combine"]
    assert (facts["way"], facts["folds"], facts["groups"]) == ("gate", 2, 16)
    assert facts["frames"] == 16 * FRAMES  # those without a label too, over which predictions are smoothed
    assert set(facts["ways"]) == set(combine.WAYS) - {"none"}
    gate, blend = facts["ways"]["gate"], facts["ways"]["blend"]
    assert 0 < gate["classes"]["threshold"] < 1
    assert gate["classes"]["score"] > gate["classes"]["alone"] + 0.05
    assert blend["classes"]["weight"] > 0
    assert blend["va"]["weight"] > 0
    assert blend["aus"]["weight"] == 0  # the backbone has none
    assert len(blend["aus"]["thresholds"]) == 12

    parts, plain = [], out_of_fold.first

    def noted(data, seed):
        parts.append(set(data.frames.names_of("train")[0]))
        return plain(data, seed)

    monkeypatch.setattr(out_of_fold, "first", noted)
    without, with_it = trained(name="without"), trained("--combine", "blend", name="with")
    training = {f"v{n:02d}" for n in range(16)}
    assert [part == training for part in parts] == [False] * 4  # two of each run: the same serve units and classes
    assert parts[2] | parts[3] == training
    assert not parts[2] & parts[3]
    assert "combine" not in facts_of(without)
    for name in ("best", "last"):
        one, other = (load_file(folder / f"seed_0/{name}.safetensors") for folder in (without, with_it))
        assert all(np.array_equal(one[key], other[key]) for key in one)
    printed = capsys.readouterr().out
    assert "classes of the backbone that the run does not have, and that are never taken: Contempt" in printed
    assert "classes without an output of the backbone, which the adapter alone predicts: Other" in printed
    assert "runs/manual/with/seed_0: combined with the backbone, blend: classes 0." in printed
    assert f"(cross-validated {blend['classes']['score']:.3f}, and {blend['classes']['alone']:.3f} as the" in printed


@pytest.mark.parametrize("way", ["gate", "blend"])
def test_evaluation_scores_combined_predictions_beside_those_as_they_are(place, once, way, capsys):
    found = evaluated(*([] if way == "gate" else ["--combine", way]))  # the gate is what it was trained with
    p = pd.read_parquet("evaluation/joint/predictions.parquet")
    val = np.arange(16 * FRAMES, VIDEOS * FRAMES)
    truth, has = p["truth"], p["truth"].notna()
    fitted = facts_of(Path("runs/manual/joint"))["combine"]["ways"][way]
    expected = by_hand(p, once[1][val], fitted["classes"])
    np.testing.assert_allclose(p[[f"p_{c}_combined" for c in ABAW_CLASSES]].to_numpy(), expected, atol=1e-5)
    said = np.array(ABAW_CLASSES)[expected.argmax(1)]
    assert found["macro_f1_combined"] == pytest.approx(f1_score(truth[has], said[has], average="macro"))
    assert found["macro_f1_combined"] > found["macro_f1"] + 0.05
    weight = fitted["va"]["weight"]
    mixed = (weight * once[1][val, 8] + (1 - weight) * p["valence"]).clip(-1, 1)
    mean = mixed.groupby(p["video"]).rolling(fitted["va"]["width"], center=True, min_periods=1).mean()
    np.testing.assert_allclose(p["valence_combined"], mean.to_numpy(), atol=1e-5)
    of_units = [
        f1_score(p[f"{unit}_truth"], p[f"{unit}_combined"] >= cut)
        for unit, cut in zip(ABAW_AUS, fitted["aus"]["thresholds"], strict=True)
    ]
    assert found["au_f1_combined"] == pytest.approx(np.mean(of_units), abs=1e-6)
    parts = found["macro_f1_combined"] + found["ccc_combined"] + found["au_f1_combined"]
    assert found["p_mtl_combined"] == pytest.approx(parts)
    per_class = pd.read_csv("evaluation/joint/per_class.csv")
    assert per_class["f1_combined"].mean() == pytest.approx(found["macro_f1_combined"])
    printed = capsys.readouterr().out
    assert "macro_f1_combined " in printed
    assert f"combined with the backbone, seed 0: {way}: classes" in printed
    assert "this bundle predicts without them" in card.text_of_measures(files.read(Path("evaluation/joint")))
    if way == "gate":
        predicts_the_same(p, fitted)


def predicts_the_same(table: pd.DataFrame, fitted: dict) -> None:
    """Of one network; of several the probabilities are averaged before they are smoothed."""
    Path("list.txt").write_text("".join(f"v{n},{FRAMES}\n" for n in range(16, 24)), encoding="utf-8")
    found = submitted("mtl")
    np.testing.assert_allclose(found[:, :2], table[["valence_combined", "arousal_combined"]], atol=1e-4)
    codes = table["predicted_combined"].map(ABAW_CLASSES.index)
    np.testing.assert_array_equal(found[:, 2], codes)
    active = table[[f"{unit}_combined" for unit in ABAW_AUS]].to_numpy() >= fitted["aus"]["thresholds"]
    np.testing.assert_array_equal(found[:, 3:], active)
    plain = submitted("expr", "--combine", "none", out="plain")[:, 0]
    np.testing.assert_array_equal(plain, table["predicted"].map(ABAW_CLASSES.index))
    assert (plain != found[:, 2]).any()
    with pytest.raises(UserError, match="leave --smooth box out, or give --combine none"):
        submitted("expr", "--smooth", "box", out="other")
    with pytest.raises(UserError, match="--combine gate is for the run's own classifier, not for --by knn"):
        submitted("expr", "--combine", "gate", "--by", "knn", out="other")
    assert not Path("other").exists()


def submitted(task: str, *more: str, out: str = "submission") -> np.ndarray:
    args = ["--run", "runs/manual/joint", "--list", "list.txt", "--task", task, "--device", "cpu", "-o", out]
    predict.main([*args, *more])
    lines = Path(out, "predictions.txt").read_text("utf-8").splitlines()[1:]
    return np.array([line.split(",")[1:] for line in lines], dtype=float)


@pytest.mark.slow
def test_baselines_and_report_have_it_and_every_baseline_counts_in_its_column(place):
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    params["evaluate"] |= {"resamples": 50, "timelines": 0, "width": 5, "device": "cpu"}
    params["baselines"] = {"run": "runs/manual/joint", "smoothings": {"box": [5]}}
    params["runs"] = {"joint": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run = evaluated()
    baselines.main(["-o", "evaluation/baselines"])
    found = {
        path.parent.name: json.loads((path.parent / "metrics.json").read_text("utf-8"))
        for path in Path("evaluation/baselines").glob("*/details.json")
    }
    assert set(found) == {"joint_box_5", "joint_gate", "backbone"}
    assert found["joint_gate"]["macro_f1"] == pytest.approx(run["macro_f1_combined"])
    assert found["joint_gate"]["ccc_combined"] == pytest.approx(run["ccc_combined"])
    assert found["joint_box_5"]["macro_f1_combined"] == pytest.approx(found["joint_box_5"]["macro_f1"])
    assert found["backbone"]["macro_f1_combined"] == pytest.approx(found["backbone"]["macro_f1_smoothed"])
    about = json.loads(Path("evaluation/baselines/joint_box_5/details.json").read_text("utf-8"))["about"]
    assert about["combine"] is None
    report.main([])
    page = Path("report/report.md").read_text("utf-8")
    assert "classifier macro-F1, combined" in page
    assert "Combined with the backbone's own predictions" in page
    assert "gate: classes the backbone's where its probability is above" in page
    assert not [name for name in evaluated("--combine", "none") if name.endswith("_combined")]


def test_what_cannot_be_combined_is_refused_in_one_line(place):
    trained(name="plain", loss="cross_entropy")
    with pytest.raises(UserError, match=r"runs/manual/plain has not fitted .*: train it with --combine blend"):
        evaluated("--combine", "blend", run="runs/manual/plain")
    with pytest.raises(UserError, match="combine 'gate' needs a class that both run and backbone predict"):
        trained("--combine", "gate", name="other", loss="ccc")
    with pytest.raises(UserError, match="combine 'gate' is for frames, and unit is clip"):
        TrainConfig(unit="clip", combine="gate")
    with pytest.raises(UserError, match=r"combine 'some' is not one of"):
        trained("--combine", "some", name="other")
    shutil.rmtree("data")
    made(Path("data"), {name: value for name, value in MADE_BY.items() if name != "outputs"})
    with pytest.raises(UserError, match=r"needs the backbone's logits, and the store data/features\.zarr has none"):
        trained("--combine", "gate", name="other", loss="cross_entropy")
    assert not list(Path("runs/manual").glob("other/seed_*"))
