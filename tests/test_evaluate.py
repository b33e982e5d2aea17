import hashlib
import json
from pathlib import Path

import formulas
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import adapter_of
from sklearn.metrics import f1_score, roc_auc_score

from pipeline.adapter.adapter import load_adapter, save_adapter
from pipeline.core.params import UserError
from pipeline.core.seen import Seen
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Labels, read_labels, write_labels
from pipeline.evaluation import evaluate, files
from pipeline.metrics import measures
from pipeline.metrics.probes import linear_probe
from pipeline.metrics.smoothing import smooth
from pipeline.metrics.uncertainty import group_weights
from pipeline.metrics.vectors import evenly

pytestmark = pytest.mark.usefixtures("undrawn")

MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32}
CLASSES = ["Neutral", "Happiness", "Sadness", "Fear"]  # Fear is labelled nowhere
SECTION = {
    "top_k": [1, 3], "neighbours": 5, "most_pairs_of": 60, "most_neighbours": 50, "device": "cpu",
    "opposites": ["plutchik"], "width": 3, "width_aus": 5, "resamples": 50, "timelines": 1,
}  # fmt: skip
FACTS = {
    "model": "mlp", "loss": "cross_entropy", "sampler": "balanced", "num_features": 4, "num_components": None,
    "embedding_size": 8, "dropout": 0.1, "classes": CLASSES, "temperature": 15.0, "margin": None,
    "window": {"frames": 5, "step": 1}, "pooling": "mean", "epochs": 3, "reduce": False, "test_split": None,
    "select_split": 0.2, "split_seed": 0, "made_by": MADE_BY, "tracks": ["expression"], "model_options": {},
    "loss_options": {}, "class_counts": [5, 5, 5, 5], "num_aus": None,
}  # fmt: skip


def table():
    """Videos of 5, 1 and 40 frames of as many people, the last third for validation; some frames have no label."""
    rows = []
    for number, length in enumerate([5, 1, 40, 30, 25, 12, 30, 1, 40, 5, 30]):
        for frame in range(length):
            expression = None if frame % 7 == 6 else CLASSES[(number + frame // 15) % 3]
            split = "val" if number >= 7 else "train"
            rows.append((f"v{number:02}", frame + 100, f"p{number}", expression, split))
    return pd.DataFrame(rows, columns=["video", "frame", "group", "expression", "expression_split"])


FEATURES = (np.random.default_rng(0).standard_normal((len(table()), 4)) * 2).astype(np.float16)
FEATURES += (
    np.float16(1.5)
    * np.eye(4, dtype=np.float16)[table()["expression"].map(CLASSES.index, "ignore").fillna(3).astype(int)]
)


def run(place, seeds=(0, 1), **changes):
    """Adapters as train.py would leave them, of untrained weights."""
    for seed in seeds:
        folder = place / f"runs/tried/seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        adapter = adapter_of(FACTS | changes)
        adapter.front.fit([FEATURES], "standardise")
        save_adapter(folder / "best.safetensors", adapter, epoch=2)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = table()[["video", "frame"]].assign(size=1)
    with StoreWriter(tmp_path / "features.zarr", MADE_BY, {"original": 4}, chunk_rows=64) as writer:
        for start in range(0, len(keys), 64):
            writer.write(keys[start : start + 64], {"original": FEATURES[start : start + 64]})
    write_labels(tmp_path / "labels.parquet", Labels(table(), CLASSES, "by hand"))
    params(SECTION)
    return tmp_path


def params(section):
    Path("params.yaml").write_text(yaml.safe_dump({"evaluate": section}), encoding="utf-8")


def evaluated(place, *more):
    evaluate.main(["--run", "runs/tried", "-o", "out", "-d", "features.zarr", "--labels", "labels.parquet", *more])
    return [json.loads((place / f"out/{name}.json").read_text(encoding="utf-8")) for name in ("metrics", "details")]


def of_label(found):
    """Without the F1 of each class and what pairs are counted for by bins: for these there are other tests."""
    rough = ("eer", "best_f1", "d_prime", "tpr", "f1_", "knn_f1_")
    return {name: value for name, value in found.items() if not name.startswith(rough)}


def embeddings_by_hand(adapter, chosen):
    """Each labelled frame's window of 5, its missing frames left out, mean of the head's outputs."""
    frames, out = table(), []
    row_of = {key: i for i, key in enumerate(zip(frames["video"], frames["frame"], strict=True))}
    x = adapter.front(torch.from_numpy(FEATURES))
    for row in np.flatnonzero(chosen):
        video, frame = frames.loc[row, ["video", "frame"]]
        window = [row_of[video, f] for f in range(frame - 2, frame + 3) if (video, f) in row_of]
        out.append(adapter.head.eval()(x[window][None], torch.ones(1, len(window), dtype=torch.bool))[0].mean(0))
    return torch.stack(out).detach()


def expected_of_seed(seed, train_chosen):
    torch.manual_seed(seed)
    adapter = adapter_of(FACTS)
    adapter.front.fit([FEATURES], "standardise")
    frames = table()
    label = frames["expression"].map({c: i for i, c in enumerate(CLASSES)}).fillna(-1).to_numpy(dtype=int)
    video = pd.factorize(frames["video"])[0]
    val = (frames["expression_split"] == "val").to_numpy() & (label >= 0)
    train = np.flatnonzero(train_chosen)
    train = train[np.linspace(0, len(train) - 1, 50).round().astype(int)]
    z = embeddings_by_hand(adapter, val)
    database = embeddings_by_hand(adapter, np.isin(np.arange(len(label)), train)).numpy()
    sixty = np.linspace(0, val.sum() - 1, 60).round().astype(int)
    y, who = label[val], video[val]  # a person has one video here
    knn = formulas.knn(database, label[train], z.numpy(), 5, 4)
    probability = adapter.predictors["cross_entropy"](z).softmax(1).detach().numpy()
    frame, few = frames["frame"].to_numpy()[val], (z.numpy()[sixty], y[sixty], who[sixty])
    of_few = formulas.separation(formulas.cosines_of_pairs(*few, [(1, 2)]))
    every = formulas.separation(formulas.cosines_of_pairs(z.numpy(), y, who, [(1, 2)]))  # of means, all pairs are taken
    found = {k: of_few[k] if k.startswith("auc") else v for k, v in every.items()}
    found |= formulas.recall_at_k(*few, [1, 3])[0]
    found["map_at_r"] = np.nanmean(formulas.precision_at_r(*few))
    found["probe_macro_f1"] = f1(y, linear_probe(database, label[train], z.numpy()))
    for prefix, said in (("", probability.argmax(1)), ("knn_", knn)):
        found |= {f"{prefix}macro_f1": f1(y, said), f"{prefix}accuracy": (said == y).mean()}
        found |= {f"{prefix}{k}": v for k, v in formulas.lateness(said, y, who, frame, 1).items()}
        found[f"{prefix}flips_per_100"] = formulas.flips_per_100(said, y, who, frame, 1)
    return found | formulas.steadiness(z.numpy(), y, who, frame, 1)


def f1(truth, said):
    return f1_score(truth, said, average="macro", labels=[0, 1, 2])


def test_the_metrics_are_those_of_the_functions_called_by_hand(place, capsys):
    run(place)
    metrics, details = evaluated(place)
    # All that is not for validation may be a neighbour, also the people on whom the best epoch was chosen.
    train = (table()["expression"].notna() & (table()["expression_split"] == "train")).to_numpy()
    seeds = [expected_of_seed(seed, train) for seed in (0, 1)]
    for found, expected in zip(details["seeds"], seeds, strict=True):
        found = {k: v for k, v in of_label(found).items() if not k.endswith("_smoothed")}
        assert set(found) == set(expected)
        for name, value in expected.items():
            rough = 2e-3 if name.startswith("auc") else 1e-5  # an AUC is counted in bins
            assert found[name] == pytest.approx(value, abs=rough), name
    one, two = details["seeds"]
    assert metrics == pytest.approx({k: (one[k] + two[k]) / 2 for k in metrics}, abs=1e-9)
    assert {k: e["value"] for k, e in details["estimates"].items() if k in metrics} == metrics
    assert metrics["macro_f1"] != metrics["knn_macro_f1"]

    val = table()[table()["expression"].notna() & (table()["expression_split"] == "val")]
    about = details["about"]
    assert about == {
        "run": "tried", "dataset": "by hand", "backbone": "tiny", "backbone_weights": "random", "input_size": 32,
        "model": "mlp", "loss": "cross_entropy", "sampler": "balanced", "temperature": 15.0, "window": 5,
        "pooling": "mean", "epochs": 3, "reduce": False, "seeds": 2, "seed": 0, "val_split": "official",
        "train_frames": int(train.sum()), "val_frames": len(val), "val_videos": 4, "compared": 60,
        "frames_scored": {"expression": len(val)}, "knn_candidates": 50, "neighbours": 5, "class_bias": False,
        "window_stride": None, "part": "val",
        "smoothing": {"kind": "box", "width": 3, "width_aus": 5, "fps": None}, "commit": None, "baseline": False,
        "opposites": [["Happiness", "Sadness"]],  # there is no Anger
        "checkpoints": {
            f"seed_{n}/best.safetensors": hashlib.sha256(
                Path(f"runs/tried/seed_{n}/best.safetensors").read_bytes()
            ).hexdigest()
            for n in (0, 1)
        },
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"scored on {len(val)} expression frames of 4 videos (by hand)" in printed
    assert f"auc_same_different           {metrics['auc_same_different']:.3f}  " in printed


def probabilities_of_seed(seed):
    """Of all frames of the validation videos, unlabelled ones too."""
    torch.manual_seed(seed)
    adapter = adapter_of(FACTS)
    adapter.front.fit([FEATURES], "standardise")
    frames = table()
    val = (frames["expression_split"] == "val").to_numpy()
    logits = adapter.predictors["cross_entropy"](embeddings_by_hand(adapter, val))
    return frames[val].reset_index(drop=True), logits.softmax(1).detach().numpy()


def test_predictions_are_smoothed_over_all_frames_and_scored_on_the_labelled_ones(place):
    run(place, seeds=[0])
    metrics, _ = evaluated(place)
    frames, probability = probabilities_of_seed(0)
    # frame numbers of a video have no gaps here, so a mean of 3 is the frame and its neighbours
    smoothed = pd.DataFrame(probability).groupby(frames["video"]).rolling(3, center=True, min_periods=1).mean()
    said, has = smoothed.to_numpy().argmax(1), frames["expression"].notna().to_numpy()
    truth = frames["expression"].map(CLASSES.index, "ignore")[has].astype(int)
    assert metrics["macro_f1_smoothed"] == pytest.approx(f1(truth, said[has]), abs=1e-9)
    assert metrics["macro_f1_smoothed"] != metrics["macro_f1"]
    assert metrics["flips_per_100_smoothed"] < metrics["flips_per_100"]


FPS = {"v07": 30, "v08": 30, "v09": 10, "v10": 15}  # of 0.2 s: 3 frames to either side, 1 and 1


def test_a_width_in_seconds_is_wider_in_frames_where_a_video_has_more_a_second(place):
    run(place, seeds=[0])
    pd.DataFrame(FPS.items(), columns=["video", "fps"]).to_csv(place / "fps.csv", index=False)
    _, details = evaluated(place, "--width", "0.2s", "--fps", "fps.csv")
    frames, probability = probabilities_of_seed(0)
    expected = []
    for video, rows in frames.groupby("video").indices.items():
        mean = pd.DataFrame(probability[rows]).rolling(2 * (FPS[video] // 10) + 1, center=True, min_periods=1).mean()
        expected.append(mean)
    found = pd.read_parquet(place / "out/predictions.parquet")
    np.testing.assert_allclose(found[[f"p_{c}_smoothed" for c in CLASSES]], np.concatenate(expected), atol=1e-5)
    assert details["about"]["smoothing"] == {"kind": "box", "width": "0.2s", "width_aus": 5, "fps": "fps.csv"}
    with pytest.raises(UserError, match="evaluate: width_aus is 1s, and seconds need fps"):
        evaluated(place, "--width-aus", "1s")


def test_the_predictions_of_each_frame_are_written_as_the_mean_over_seeds(place):
    run(place)
    evaluated(place)
    (frames, one), (_, two) = probabilities_of_seed(0), probabilities_of_seed(1)
    found = pd.read_parquet(place / "out/predictions.parquet")
    assert found["video"].tolist() == frames["video"].tolist()
    assert found["frame"].tolist() == frames["frame"].tolist()
    assert found["truth"].isna().tolist() == frames["expression"].isna().tolist()
    assert found["truth"].dropna().tolist() == frames["expression"].dropna().tolist()
    columns = [f"p_{c}" for c in CLASSES]
    np.testing.assert_allclose(found[columns], (one + two) / 2, atol=1e-5)
    assert found["predicted"].tolist() == [CLASSES[k] for k in ((one + two) / 2).argmax(1)]
    mean = smooth((one + two) / 2, pd.factorize(found["video"])[0], found["frame"].to_numpy(), "box", 3)
    np.testing.assert_allclose(found[[f"{c}_smoothed" for c in columns]], mean, atol=1e-5)


def test_with_a_window_stride_a_frame_is_between_the_windows_next_to_it(place):
    run(place, seeds=[0], model="tcn")
    evaluated(place, "--window-stride", "3")
    frames = table()
    torch.manual_seed(0)
    adapter = adapter_of(FACTS | {"model": "tcn"})
    adapter.front.fit([FEATURES], "standardise")
    x, expected = adapter.front(torch.from_numpy(FEATURES)), []
    for video in ("v07", "v08", "v09", "v10"):  # of 1, 40, 5 and 30 frames, without gaps
        rows = np.flatnonzero(frames["video"] == video)
        centres, said = sorted({*range(0, len(rows), 3), len(rows) - 1}), []
        for centre in centres:
            mine, valid = torch.zeros(1, 5, 4), torch.zeros(1, 5, dtype=torch.bool)
            for j in range(5):
                if 0 <= centre + j - 2 < len(rows):
                    mine[0, j], valid[0, j] = x[rows[centre + j - 2]], True
            with torch.inference_mode():
                z = adapter.head.eval()(mine, valid)[0][valid[0]].mean(0, keepdim=True)
                said.append(adapter.predict("classes", z).softmax(1)[0].numpy())
        every = np.arange(len(rows))
        expected += np.stack([np.interp(every, centres, column) for column in np.array(said).T], axis=1).tolist()
    found = pd.read_parquet(place / "out/predictions.parquet")
    np.testing.assert_allclose(found[[f"p_{c}" for c in CLASSES]], expected, atol=1e-6)
    with pytest.raises(UserError, match="window_stride must be at least 1, and is 0"):
        evaluated(place, "--window-stride", "0")


def test_the_tables_of_videos_and_classes_add_up_to_the_metrics(place):
    run(place, seeds=[0])
    _, details = evaluated(place)
    found = pd.read_parquet(place / "out/predictions.parquet").dropna(subset="truth")
    videos = pd.read_csv(place / "out/per_video.csv").set_index("video")
    right = (found["truth"] == found["predicted"]).groupby(found["video"]).mean()
    assert videos["accuracy"].to_dict() == pytest.approx(right.to_dict())
    assert videos["frames"].to_dict() == found["video"].value_counts().to_dict()
    classes = pd.read_csv(place / "out/per_class.csv").set_index("class")
    for name in CLASSES[:3]:
        truth, said = found["truth"] == name, found["predicted"] == name
        assert classes.loc[name, "f1"] == pytest.approx(f1_score(truth, said))
        assert classes.loc[name, "f1"] == pytest.approx(details["estimates"][f"f1_{name}"]["value"])
        assert classes.loc[name, "recall"] == pytest.approx((truth & said).sum() / truth.sum())
    assert np.isnan(classes.loc["Fear", "f1"])
    own = [details["emotions"]["cosines"][k][k] for k in range(3)]
    assert classes["cosine_to_own_class"][:3].tolist() == pytest.approx(own)


def test_intervals_are_of_resampled_groups_and_what_was_resampled_can_be_read_again(place):
    run(place, seeds=[0])
    _, details = evaluated(place)
    found = files.read(place / "out")
    assert found.groups == ["v07", "v08", "v09", "v10"]
    assert found.name == "tried"
    table = pd.read_parquet(place / "out/predictions.parquet").dropna(subset="truth")
    right = [(of["truth"] == of["predicted"]) for _, of in table.groupby("video")]
    weights = group_weights(4, 50)
    expected = weights @ [x.sum() for x in right] / (weights @ [len(x) for x in right])
    np.testing.assert_allclose(found.estimates["accuracy"].resampled, expected, atol=1e-6)
    entry = details["estimates"]["accuracy"]
    assert (entry["low"], entry["high"]) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def test_the_criterion_is_same_at_least_opposite(place):
    run(place, seeds=[0])
    metrics, details = evaluated(place)
    criterion = details["criterion"]
    assert criterion["gap"] == pytest.approx(metrics["cosine_same"] - metrics["cosine_opposite"])
    assert criterion["passed"] == (criterion["gap"] >= 0)
    assert criterion["beyond_noise"] == (criterion["low"] > 0 or criterion["high"] < 0)


def test_class_biases_are_added_to_smoothed_predictions_only(place):
    run(place, seeds=[0])
    plain = evaluated(place)[0]
    biased = evaluated(place, "--class-bias")[0]
    assert biased["macro_f1"] == plain["macro_f1"]
    assert biased["macro_f1_smoothed"] != plain["macro_f1_smoothed"]


def test_plots_of_an_earlier_evaluation_do_not_stay(place):
    run(place, seeds=[0])
    evaluated(place)
    drawn = {"cosines", "roc", "emotions", "similarity", "projection", "confusion", "f1", "costs", "timeline_1"}
    assert {path.stem for path in (place / "out/plots").glob("*.png")} == drawn
    evaluated(place, "--timelines", "0")
    assert {path.stem for path in (place / "out/plots").glob("*.png")} == drawn - {"timeline_1"}


def test_expressions_are_measured_of_a_run_that_learned_something_else(place):
    frames = table()
    frames["valence"], frames["arousal"] = np.random.default_rng(1).uniform(-1, 1, (2, len(frames)))
    frames["va_split"] = frames["expression_split"]
    write_labels(place / "labels.parquet", Labels(frames, CLASSES, "by hand"))
    run(place, seeds=[0], tracks=["va"], loss="ccc", classes=[], class_counts=None)
    metrics, details = evaluated(place)
    assert metrics["ccc"] is not None
    assert metrics["knn_macro_f1"] > 0
    assert details["about"]["frames_scored"] == {
        "expression": int((frames["expression"].notna() & (frames["expression_split"] == "val")).sum()),
        "valence and arousal": int((frames["expression_split"] == "val").sum()),
    }


def test_pairs_are_found_from_either_side(place):
    """Eight pairs, each a class and a person of its own: no expression to separate, but partners to find."""
    names = [f"{side}/{pair}" for pair in range(8) for side in ("left", "right")]
    pairs = pd.DataFrame({"video": names, "frame": 0, "pair": [n[-1] for n in names]})
    pairs = pairs.assign(side=pairs["video"].str.split("/").str[0], same=1, group=pairs["pair"])
    pairs = pairs.assign(expression=pairs["pair"], expression_split=["train"] * 8 + ["val"] * 8)
    features = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float16)
    with StoreWriter(place / "pairs.zarr", MADE_BY, {"original": 4}) as writer:
        writer.write(pairs[["video", "frame"]].assign(size=1), {"original": features})
    classes = sorted(set(pairs["pair"]))
    write_labels(place / "pairs.parquet", Labels(pairs, classes, "pairs"))
    run(place, seeds=[0], model="identity", loss="triplet", classes=classes, window={"frames": 1},
        class_counts=[2] * 4 + [0] * 4, select_split=0.0)  # fmt: skip
    metrics, details = evaluated(place, "-d", "pairs.zarr", "--labels", "pairs.parquet", "-k", "1", "2")
    assert set(metrics) == {"paired_recall_at_1", "paired_recall_at_2"}
    assert details["about"]["frames_scored"] == {"paired": 8}
    torch.manual_seed(0)
    adapter = adapter_of(FACTS | {"model": "identity", "loss": "triplet"})
    adapter.front.fit([FEATURES], "standardise")
    z = adapter.front(torch.from_numpy(features[8:])).numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosine = z[::2] @ z[1::2].T
    found = [
        min((cosine[i] >= cosine[i, i]).sum(), (cosine[:, i] >= cosine[i, i]).sum()) <= 1 for i in range(4)
    ]  # fmt: skip
    assert metrics["paired_recall_at_1"] == pytest.approx(np.mean(found))


GATE = {"model": "pair_gate", "loss": "pair_bce", "sampler": "pairs", "window": {"frames": 1}, "select_split": 0.0,
        "model_options": {"most": 0.49}}  # fmt: skip


def logits_by_hand(features, **changes):
    """(n, n) of an untrained gate, a pair at a time."""
    torch.manual_seed(0)
    adapter = adapter_of(FACTS | GATE | changes)
    adapter.front.fit([FEATURES], "standardise")
    adapter.head.eval()
    x, there = adapter.front(torch.from_numpy(features))[:, None, None], torch.ones(1, 1, dtype=torch.bool)
    with torch.inference_mode():
        return np.array([[float(adapter.head.pair(a, there, b, there)) for b in x] for a in x])


def written_pairs(place, classes, **columns):
    """Sixteen pairs of images, the last ten for validation."""
    names = [f"{side}/{pair:02}" for pair in range(16) for side in ("left", "right")]
    pairs = pd.DataFrame({"video": names, "frame": 0, "pair": [n[-2:] for n in names]})
    pairs = pairs.assign(side=pairs["video"].str.split("/").str[0], group=pairs["pair"], **columns)
    pairs["expression_split"] = ["train"] * 12 + ["val"] * 20
    features = np.random.default_rng(3).standard_normal((32, 4)).astype(np.float16)
    with StoreWriter(place / "pairs.zarr", MADE_BY, {"original": 4}) as writer:
        writer.write(pairs[["video", "frame"]].assign(size=1), {"original": features})
    write_labels(place / "pairs.parquet", Labels(pairs, classes, "pairs"))
    run(place, seeds=[0], classes=classes, class_counts=None, **GATE)
    metrics, details = evaluated(place, "-d", "pairs.zarr", "--labels", "pairs.parquet", "-k", "1", "2")
    return metrics, details, logits_by_hand(features[12:], classes=classes, class_counts=None)


def test_a_head_for_pairs_is_measured_by_its_own_logits(place):
    """Circles and squares: pairs of two groups by class; the table's own pairs by a logit of 0; and its partners."""
    same = np.repeat([1, 0] * 8, 2)
    shape = np.where(np.arange(32) % 2 & (same == 0), "square", "circle")
    metrics, details, logits = written_pairs(place, ["circle", "square"], same=same, expression=shape)
    pair, label = np.repeat(np.arange(10), 2), shape[12:]
    a, b = np.array([(i, j) for i in range(20) for j in range(i) if pair[i] != pair[j]]).T
    is_same = label[a] == label[b]
    auc = roc_auc_score(is_same, logits[a, b])
    assert metrics["pair_auc_same_different"] == pytest.approx(auc, abs=5e-3)
    assert metrics["pair_auc_same_different"] != pytest.approx(metrics["auc_same_different"], abs=5e-3)
    assert {"pair_eer_same_different", "pair_best_f1_same_different", "pair_tpr_at_fpr_1e-1_same_different"} <= set(
        metrics
    )
    own = logits[np.arange(0, 20, 2), np.arange(1, 20, 2)]
    assert metrics["pair_f1"] == pytest.approx(f1_score(same[12::2], own > 0))
    low, high = details["estimates"]["pair_f1"]["low"], details["estimates"]["pair_f1"]["high"]
    assert low < metrics["pair_f1"] < high
    partners = logits[0::4, 1::4]  # lefts and rights of the pairs of the same, every second one
    ranks = np.stack([(partners >= np.diag(partners)[:, None]).sum(1), (partners >= np.diag(partners)).sum(0)]).min(0)
    for k in (1, 2):
        assert metrics[f"pair_paired_recall_at_{k}"] == pytest.approx((ranks <= k).mean())


def test_of_more_pairs_than_can_be_judged_a_head_for_pairs_is_asked_of_some_and_that_is_said(place, monkeypatch):
    """Of 128 inputs of four columns: the pairs of 8 frames, and the partners of 3 pairs among the sides of all 5."""
    monkeypatch.setattr(measures, "MOST_JUDGED", 128)
    same = np.repeat([1, 0] * 8, 2)
    shape = np.where(np.arange(32) % 2 & (same == 0), "square", "circle")
    metrics, details, logits = written_pairs(place, ["circle", "square"], same=same, expression=shape)
    assert details["about"]["judged"] == {"frames": 8, "pairs": 3}
    by_video = np.r_[0:20:2, 1:20:2]  # left/06, left/07, ..., right/06, ...
    few, pair, label = by_video[evenly(20, 8)], np.repeat(np.arange(10), 2), shape[12:]
    a, b = np.array([(i, j) for i in few for j in few if i > j and pair[i] != pair[j]]).T
    assert metrics["pair_auc_same_different"] == pytest.approx(
        roc_auc_score(label[a] == label[b], logits[a, b]), abs=5e-3
    )
    partners, asked = logits[0::4, 1::4], evenly(5, 3)
    ranks = np.stack([(partners >= np.diag(partners)[:, None]).sum(1), (partners >= np.diag(partners)).sum(0)]).min(0)
    for k in (1, 2):
        assert metrics[f"pair_paired_recall_at_{k}"] == pytest.approx((ranks[asked] <= k).mean())


def test_pairs_without_classes_are_found_by_the_heads_own_logits_too(place):
    names = [f"{k:02}" for k in range(16)]
    metrics, _, logits = written_pairs(place, names, same=1, expression=np.repeat(names, 2))
    assert set(metrics) == {f"{who}paired_recall_at_{k}" for who in ("", "pair_") for k in (1, 2)}
    partners = logits[0::2, 1::2]
    ranks = np.stack([(partners >= np.diag(partners)[:, None]).sum(1), (partners >= np.diag(partners)).sum(0)]).min(0)
    assert metrics["pair_paired_recall_at_2"] == pytest.approx((ranks <= 2).mean())


def test_of_many_frames_a_head_for_pairs_judges_those_whose_cosines_are_counted(place):
    """Sixty, evenly spaced, of people on video, each in a window of 5."""
    run(place, seeds=[0], **GATE | {"window": {"frames": 5, "step": 1}})
    metrics, _ = evaluated(place)
    frames = table()
    val = np.flatnonzero((frames["expression_split"] == "val") & frames["expression"].notna())
    few = val[np.linspace(0, len(val) - 1, 60).round().astype(int)]
    means = np.zeros((60, 4), np.float32)
    for i, row in enumerate(few):
        near = (frames["video"] == frames["video"][row]) & ((frames["frame"] - frames["frame"][row]).abs() <= 2)
        means[i] = FEATURES[near].astype(np.float32).mean(0)
    logits, video, label = logits_by_hand(means), frames["video"][few].to_numpy(), frames["expression"][few].to_numpy()
    a, b = np.array([(i, j) for i in range(60) for j in range(i) if video[i] != video[j]]).T
    auc = roc_auc_score(label[a] == label[b], logits[a, b])
    assert metrics["pair_auc_same_different"] == pytest.approx(auc, abs=2e-3)
    assert "pair_f1" not in metrics
    assert "paired_recall_at_1" not in metrics


def test_valence_arousal_and_action_units_are_evaluated_where_a_loss_predicts_them(place):
    rng, frames = np.random.default_rng(5), table()
    frames["valence"], frames["arousal"] = rng.uniform(-1, 1, (2, len(frames))).astype(np.float32)
    frames["au1"], frames["au12"] = rng.integers(0, 2, (2, len(frames)))
    frames["va_split"] = frames["au_split"] = frames["expression_split"]
    write_labels(place / "labels.parquet", Labels(frames, CLASSES, "by hand"))
    more = {"tracks": ["expression", "va", "aus"], "num_aus": 2, "loss": {"cross_entropy": 1, "ccc": 1, "bce": 1}}
    more["au_names"] = ["au1", "au12"]
    run(place, seeds=[0], **more)
    metrics, _ = evaluated(place)

    torch.manual_seed(0)
    adapter = adapter_of(FACTS | more)
    adapter.front.fit([FEATURES], "standardise")
    val = (frames["expression_split"] == "val").to_numpy()
    z = embeddings_by_hand(adapter, val)
    said = adapter.predict("va", z).detach().numpy()
    for number, name in enumerate(("valence", "arousal")):
        x, y = frames.loc[val, name].to_numpy(), said[:, number]
        ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert metrics[f"ccc_{name}"] == pytest.approx(ccc, abs=1e-4)
    units = adapter.predict("aus", z).detach().numpy() >= 0
    f1s = [f1_score(frames.loc[val, name], units[:, k]) for k, name in enumerate(("au1", "au12"))]
    assert metrics["au_f1"] == pytest.approx(np.mean(f1s), abs=1e-6)
    assert {"ccc_smoothed", "au_f1_smoothed"} <= set(metrics)


def test_a_loss_without_classes_has_no_macro_f1(place):
    run(place, loss="supcon")
    assert "macro_f1" not in evaluated(place)[0]


def test_what_cannot_be_measured_is_null(place):
    """Two people of one class each: no pair of one label, nobody to find, no neighbour in the next frame."""
    few = table().iloc[:7].assign(group=list("abcdefg"), video=list("abcdefg"), frame=1)
    few["expression"], few["expression_split"] = (
        [*["Neutral", "Happiness"] * 3, "Sadness"],
        [*["train"] * 5, *["val"] * 2],
    )
    with StoreWriter(place / "few.zarr", MADE_BY, {"original": 4}) as writer:
        writer.write(few[["video", "frame"]].assign(size=1), {"original": FEATURES[:7]})
    write_labels(place / "few.parquet", Labels(few, CLASSES, "few"))
    run(place, select_split=0.0)
    metrics, _ = evaluated(place, "-d", "few.zarr", "--labels", "few.parquet")
    measured = {name for name, value in metrics.items() if value is not None}
    opposite = {"cosine_different", "cosine_opposite", "cosine_strangers"}  # the one pair there is
    said = {f"{who}{what}" for who in ("", "knn_") for what in ("accuracy", "macro_f1")}  # nothing can be smoothed
    assert measured == opposite | said | {"probe_macro_f1"}


def test_seeds_are_taken_in_the_order_of_their_numbers(place):
    run(place, seeds=[2, 10])
    both = evaluated(place)[1]["seeds"]
    run(place, seeds=[0])
    for seed in (2, 10):
        (place / f"runs/tried/seed_{seed}").rename(place / f"runs/tried/kept_{seed}")
    (place / "runs/tried/seed_0").rename(place / "runs/tried/kept_0")
    (place / "runs/tried/kept_10").rename(place / "runs/tried/seed_10")
    assert evaluated(place)[1]["seeds"] == both[1:]


def test_steadiness_is_of_frames_as_they_were_extracted_whatever_the_window_steps_over(place):
    run(place, window={"frames": 1, "step": 1}, model="identity", pooling="centre")
    one = evaluated(place)[0]
    run(place, window={"frames": 1, "step": 3}, model="identity", pooling="centre")
    assert evaluated(place)[0] == one
    assert one["flips_per_100"] is not None


def test_the_split_that_was_drawn_is_named(place):
    run(place, test_split=0.4, split_seed=7)
    about = evaluated(place)[1]["about"]
    assert about["val_split"] == "0.4 of the groups, drawn with seed 7"
    store, labels = FeatureStore(place / "features.zarr"), read_labels(place / "labels.parquet")
    frames = [
        len(evaluate.frame_set(store, labels, test_split=0.4, select_split=0.2, split_seed=seed).centres("val"))
        for seed in (7, 0)
    ]
    assert about["val_frames"] == frames[0] != frames[1]


def test_a_run_without_a_trained_adapter_is_refused(place):
    with pytest.raises(UserError, match=r"no trained run in runs/tried: .*seed_\*/best\.safetensors"):
        evaluated(place)


def test_an_adapter_of_another_backbone_is_refused(place):
    run(place, made_by=MADE_BY | {"backbone": "huge"})
    with pytest.raises(UserError, match="backbone 'huge' there, 'tiny' here"):
        evaluated(place)


def test_other_crops_are_scored_where_the_user_calls_them_alike_and_that_is_written(place, capsys):
    run(place, made_by=MADE_BY | {"crop_source": "loose"})
    with pytest.raises(UserError, match=r"crop_source 'loose' there, .* --alike crop_source"):
        evaluated(place)
    metrics, details = evaluated(place, "--alike", "crop_source")
    said = "crop_source 'loose' there, None here"
    assert details["about"]["vouched"] == {"the adapter": said}
    assert f"alike by your word (--alike), the adapter and the store: {said}\n" in capsys.readouterr().out
    run(place)
    own, details = evaluated(place, "--alike", "crop_source")
    assert own == metrics
    assert "vouched" not in details["about"]


def test_an_adapter_of_other_classes_is_refused(place):
    run(place, classes=CLASSES[:3])
    with pytest.raises(UserError, match=r"knows the classes .*, and the table of data set 'by hand' has .*'Fear'"):
        evaluated(place)


def test_opposites_that_are_no_pairs_are_refused(place):
    params(SECTION | {"opposites": [["Happiness", "Sadness", "Fear"]]})
    run(place)
    with pytest.raises(UserError, match=r"opposites must be names of sets .*, and \['Happiness'.* is none"):
        evaluated(place)


# --- the test part


def with_test():
    """The table with the last three videos as test."""
    frames = table()
    return frames.assign(expression_split=frames["expression_split"].mask(frames["video"] >= "v08", "test"))


def test_the_test_part_is_scored_as_if_it_were_the_validation_part(place, capsys):
    """Against the same run on labels in which it is that, and validation is nothing."""
    run(place)
    write_labels(place / "labels.parquet", Labels(with_test(), CLASSES, "by hand"))
    metrics, details = evaluated(place, "--part", "test")
    assert "frames of 3 test videos (by hand)" in capsys.readouterr().out
    assert details["about"]["part"] == "test"
    said = pd.read_parquet(place / "out/predictions.parquet")
    assert set(said["video"]) == {"v08", "v09", "v10"}
    as_val = with_test()
    as_val["expression_split"] = as_val["expression_split"].replace({"val": None, "test": "val"})
    write_labels(place / "labels.parquet", Labels(as_val, CLASSES, "by hand"))
    Path("out/details.json").unlink()
    expected, of_val = evaluated(place)
    assert metrics == pytest.approx(expected, nan_ok=True)
    assert of_val["about"]["part"] == "val"


def test_a_test_part_that_there_is_not_is_named_and_nothing_is_written_over(place):
    run(place)
    with pytest.raises(
        UserError, match="cannot be scored on a test part: the labels' official split has no test frames"
    ):
        evaluated(place, "--part", "test")
    run(place, test_split=0.4)
    with pytest.raises(UserError, match=r"cannot be scored on a test part: the split was drawn \(--test-split\)"):
        evaluated(place, "--part", "test")
    run(place)
    write_labels(place / "labels.parquet", Labels(with_test(), CLASSES, "by hand"))
    evaluated(place)
    with pytest.raises(UserError, match="out holds the numbers of the validation part: give another --output"):
        evaluated(place, "--part", "test")


def test_a_test_video_that_was_trained_on_is_refused(place):
    write_labels(place / "labels.parquet", Labels(with_test(), CLASSES, "by hand"))
    run(place, seeds=[0])
    path = place / "runs/tried/seed_0/best.safetensors"
    adapter = load_adapter(path, MADE_BY)
    adapter.seen = {"train": Seen.of(["p9"], ["v09"])}
    save_adapter(path, adapter)
    with pytest.raises(
        UserError, match=r"seed 0 has seen what is the test part now: it was trained on 1 of 3 videos \(v09"
    ):
        evaluated(place, "--part", "test")
    evaluated(place)
