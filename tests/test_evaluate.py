import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import f1_score

from pipeline.evaluation import evaluate
from pipeline.evaluation.retrieval import knn_predict, recall_at_k
from pipeline.evaluation.separation import pair_cosines, separation
from pipeline.evaluation.steadiness import steadiness
from pipeline.params import UserError
from pipeline.store import StoreWriter
from pipeline.tables import Labels, write_labels
from pipeline.training.adapter import build_adapter, save_adapter

MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32}
CLASSES = ["Neutral", "Happiness", "Sadness", "Fear"]  # Fear is labelled nowhere
SECTION = {
    "top_k": [1, 3], "neighbours": 5, "most_pairs_of": 60, "most_neighbours": 50, "device": "cpu",
    "opposites": ["plutchik"],
}  # fmt: skip
FACTS = {
    "model": "mlp", "loss": "cross_entropy", "sampler": "balanced", "num_features": 4, "num_components": None,
    "embedding_size": 8, "dropout": 0.1, "classes": CLASSES, "temperature": 15.0, "margin": None, "window": 5,
    "step": 1, "pooling": "mean", "epochs": 3, "reduce": False, "test_split": None, "select_split": 0.2,
    "split_seed": 0, "made_by": MADE_BY, "tracks": ["expression"], "model_options": {}, "loss_options": {},
    "class_counts": [5, 5, 5, 5], "num_aus": None,
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
        adapter = build_adapter(FACTS | changes)
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
    adapter = build_adapter(FACTS)
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
    knn = knn_predict(database, label[train], z.numpy(), 5, 4)
    predicted = adapter.loss.terms["cross_entropy"].classifier(z).argmax(1).numpy()
    return (
        separation(pair_cosines(z.numpy()[sixty], y[sixty], who[sixty], [(1, 2)]))
        | recall_at_k(z.numpy()[sixty], y[sixty], who[sixty], [1, 3])[0]
        | {"knn_accuracy": (knn == y).mean(), "knn_macro_f1": f1_score(y, knn, average="macro", labels=[0, 1, 2])}
        | {"macro_f1": f1_score(y, predicted, average="macro", labels=[0, 1, 2])}
        | steadiness(z.numpy(), knn, y, who, frames["frame"].to_numpy()[val], 1)
    )


def test_the_metrics_are_those_of_the_functions_called_by_hand(place, capsys):
    run(place)
    metrics, details = evaluated(place)
    # All that is not for validation may be a neighbour, also the people on whom the best epoch was chosen.
    train = (table()["expression"].notna() & (table()["expression_split"] == "train")).to_numpy()
    seeds = [expected_of_seed(seed, train) for seed in (0, 1)]
    for found, expected in zip(details["seeds"], seeds, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    one, two = seeds
    assert metrics == details["mean"] == pytest.approx({k: (one[k] + two[k]) / 2 for k in one}, abs=1e-5)
    deviation = {k: abs(one[k] - two[k]) / 2**0.5 for k in one}  # of two values
    assert details["deviation"] == pytest.approx(deviation, abs=1e-5)
    assert metrics["macro_f1"] != metrics["knn_macro_f1"]
    assert max(deviation.values()) > 0.01

    val = table()[table()["expression"].notna() & (table()["expression_split"] == "val")]
    about = details["about"]
    assert about == {
        "run": "tried", "dataset": "by hand", "backbone": "tiny", "backbone_weights": "random", "input_size": 32,
        "model": "mlp", "loss": "cross_entropy", "sampler": "balanced", "temperature": 15.0, "window": 5,
        "pooling": "mean", "epochs": 3, "reduce": False, "seeds": 2, "val_split": "official",
        "train_frames": int(train.sum()), "val_frames": len(val), "val_videos": 4, "pairs_of": 60, "knn_candidates": 50,
        "opposites": [["Happiness", "Sadness"]],  # there is no Anger
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"{len(val)} validation frames of 4 videos (by hand)" in printed
    assert f"auc_same_different       {metrics['auc_same_different']:.3f} ± " in printed


def test_one_seed_has_no_deviation(place, capsys):
    run(place, seeds=[3])
    metrics, details = evaluated(place)
    assert set(details["deviation"].values()) == {None}
    assert details["seeds"] == [metrics]
    assert "±" not in capsys.readouterr().out


def test_valence_arousal_and_action_units_are_evaluated_where_a_loss_predicts_them(place):
    rng, frames = np.random.default_rng(5), table()
    frames["valence"], frames["arousal"] = rng.uniform(-1, 1, (2, len(frames))).astype(np.float32)
    frames["au1"], frames["au12"] = rng.integers(0, 2, (2, len(frames)))
    frames["va_split"] = frames["au_split"] = frames["expression_split"]
    write_labels(place / "labels.parquet", Labels(frames, CLASSES, "by hand"))
    more = {"tracks": ["expression", "va", "aus"], "num_aus": 2, "loss": {"cross_entropy": 1, "ccc": 1, "bce": 1}}
    run(place, seeds=[0], **more)
    metrics, _ = evaluated(place)

    torch.manual_seed(0)
    adapter = build_adapter(FACTS | more)
    adapter.front.fit([FEATURES], "standardise")
    val = (frames["expression_split"] == "val").to_numpy()
    z = embeddings_by_hand(adapter, val)
    said = adapter.loss.predict("va", z).detach().numpy()
    for number, name in enumerate(("valence", "arousal")):
        x, y = frames.loc[val, name].to_numpy(), said[:, number]
        ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert metrics[f"ccc_{name}"] == pytest.approx(ccc, abs=1e-4)
    units = adapter.loss.predict("aus", z).detach().numpy() >= 0
    f1 = [f1_score(frames.loc[val, name], units[:, k]) for k, name in enumerate(("au1", "au12"))]
    assert metrics["au_f1"] == pytest.approx(np.mean(f1), abs=1e-6)


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
    assert measured == opposite | {"knn_accuracy", "knn_macro_f1", "macro_f1"}


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
    run(place, step=1, model="identity", window=1, pooling="centre")
    one = evaluated(place)[0]
    run(place, step=3, model="identity", window=1, pooling="centre")
    assert evaluated(place)[0] == one
    assert one["flips_per_100"] is not None


def test_the_split_that_was_drawn_is_named(place):
    run(place, test_split=0.4, split_seed=7)
    about = evaluated(place)[1]["about"]
    assert about["val_split"] == "0.4 of the groups, drawn with seed 7"
    store, labels = evaluate.FeatureStore(place / "features.zarr"), evaluate.read_labels(place / "labels.parquet")
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


def test_an_adapter_of_other_classes_is_refused(place):
    run(place, classes=CLASSES[:3])
    with pytest.raises(UserError, match=r"knows the classes .*, and labels.parquet has .*'Fear'"):
        evaluated(place)


def test_opposites_that_are_no_pairs_are_refused(place):
    params(SECTION | {"opposites": [["Happiness", "Sadness", "Fear"]]})
    run(place)
    with pytest.raises(UserError, match=r"opposites must be names of sets .*, and \['Happiness'.* is none"):
        evaluated(place)
