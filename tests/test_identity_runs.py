"""Runs whose labels are people: trained, chosen, scored and reported on people that nobody was trained on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train
from pipeline.adapter.adapter import read_adapter
from pipeline.adapter.examples import load_examples
from pipeline.core.frame_set import frame_set
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Frames, Labels, read_labels, write_labels
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.identities import with_sets
from pipeline.evaluation import evaluate
from pipeline.metrics.identification import identity_counts

pytestmark = pytest.mark.usefixtures("undrawn")

D, PEOPLE, PICTURES = 16, 60, 6
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}
HELD = 20  # people of the validation part
TINY = ["--window", "1", "--pooling", "centre", "--embedding-size", "8", "--dropout", "0", "--no-reduce",
        "--batch-size", "64", "--au-threshold-folds", "null", "--runs", "1", "--look-every", "100"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photographs of 60 people. Half of the features are the person; the other, louder half is noise."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), PICTURES)
    own = rng.normal(size=(PEOPLE, D // 2))[person] + 0.2 * rng.normal(size=(len(person), D // 2))
    values = np.concatenate([own, 2 * rng.normal(size=own.shape)], axis=1)
    keys = pd.DataFrame({"video": [f"{n:06d}" for n in range(len(person))], "frame": 0, "size": 10})
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D}, 512) as writer:
        writer.write(keys, {"original": values})
    names = [f"p{number}" for number in person]
    table = keys[["video", "frame"]].assign(group=names, expression=names, identity_set=None)
    table["expression_split"] = np.where(person < PEOPLE - HELD, "train", "val")
    classes = sorted(set(names), key=lambda name: (len(name), name))
    config = DatasetConfig(name="celeba", query_people=8, distractor_people=12)
    frames = Frames(keys.assign(path="x"), root, "people", "as given")
    labels, words, warnings = with_sets(Labels(table, classes, "people"), frames, config)
    assert words == "query 8 people, 48 pictures; distractor 12 people, 72 pictures; seed 0"
    assert warnings == []
    write_labels(root / "labels.parquet", labels)
    return root


@pytest.fixture
def place(made, workplace):
    Path("data").mkdir()
    for name in ("features.zarr", "labels.parquet"):
        Path("data", name).symlink_to(made / name)
    return workplace


def run(name: str, *flags: str) -> Path:
    train.main(["--name", name, *TINY, *flags, "--no-evaluate"])
    return Path("runs/manual", name)


def numbers(name: str, out: str) -> dict:
    evaluate.main(["--run", f"runs/manual/{name}", "--output", out, "--resamples", "50"])
    return json.loads(Path(out, "metrics.json").read_text())


def test_only_people_of_the_training_part_are_classes_and_come_first(place):
    labels = read_labels(Path("data/labels.parquet"))
    frames = frame_set(
        FeatureStore(Path("data/features.zarr")), labels, test_split=None, select_split=0.2, split_seed=0
    )
    trained = set(frames.label[frames.part == 0])
    assert trained == set(range(frames.num_learned))
    assert frames.num_learned == 32  # a fifth of 40 people is the selection part
    assert frames.classes == []
    held = {part: {frames.people[k] for k in frames.label[frames.centres(part)]} for part in ("train", "select", "val")}
    assert not held["train"] & held["select"] and not (held["train"] | held["select"]) & held["val"]  # noqa: PT018
    names = labels.table["expression"].to_numpy()
    assert [frames.people[k] for k in frames.label] == names.tolist()
    query = labels.table["identity_set"].to_numpy() == "query"
    np.testing.assert_array_equal(frames.identity_set == 0, query)


def test_training_finds_people_that_nobody_was_trained_on(place, capsys):
    run("untrained", "--loss", "arcface", "--epochs", "0", "--model", "mlp", "--normalise", "none")
    folder = run("arc", "--loss", "arcface", "--epochs", "25", "--learning-rate", "0.02")
    said = capsys.readouterr().out
    assert "identification_at_1e-2" in said
    before, after = numbers("untrained", "ev/untrained"), numbers("arc", "ev/arc")
    said = capsys.readouterr().out
    genuine, impostor = 8 * 15, 48 * 48 // 2 - 8 * 36 // 2 + 48 * 72
    assert (
        f"identification: 8 query people (48 pictures) among 12 distractors (72 pictures): {genuine} genuine and "
        f"{impostor:,} impostor pairs"
    ) in said
    assert after["identification_at_1e-2"] > before["identification_at_1e-2"] + 0.1
    # Nothing of a closed set: no classifier, no nearest neighbours among people that were trained on.
    assert {name.partition("_at_")[0] for name in after} == {"identification"}
    adapter = read_adapter(folder)
    assert adapter.predicts == ()
    assert adapter.centres is None
    assert adapter.facts["classes"] == []
    assert adapter.facts["num_people"] == 34
    details = json.loads(Path("ev/arc/details.json").read_text())
    low, high = (details["estimates"]["identification_at_1e-2"][end] for end in ("low", "high"))
    assert low <= after["identification_at_1e-2"] <= high and high > low  # noqa: PT018
    assert Path("ev/arc/plots/identification.png").is_file()
    assert {path.stem for path in Path("ev/arc/plots").iterdir()} == {"identification"}
    examples = load_examples(folder / "seed_0")
    counts = examples.table["class"].value_counts()
    assert counts.min() >= 2  # pairs of one person, of which the matrix has its threshold


@pytest.mark.parametrize(
    ("loss", "more"),
    [
        ("triplet", ["--loss-options", "{mining: batch_hard}"]),
        ("triplet", ["--sampler", "hard_negative"]),
        ("{arcface: 1, triplet: 0.5}", []),
    ],
)
def test_triplets_and_sums_train_on_people(place, loss, more):
    folder = run("some", "--loss", loss, "--epochs", "2", *more)
    assert read_adapter(folder).facts["select_by"] == "identification_at_1e-2"


def test_what_chooses_the_best_epoch_must_fit_the_labels(place):
    with pytest.raises(UserError, match=r"select_by 'macro_f1' cannot be measured: the labels .* are people, and it"):
        run("x", "--loss", "arcface", "--select-by", "macro_f1", "--epochs", "1")
    labels = read_labels(Path("data/labels.parquet"))
    number = labels.table["group"].str[1:].astype(int)
    table = labels.table.drop(columns="identity_set").assign(expression=(number % 2).map(str))
    write_labels(Path("others.parquet"), Labels(table, ["0", "1"], labels.dataset))
    with pytest.raises(UserError, match=r"are no people \(dataset.identities\)"):
        run("y", "--loss", "arcface", "--select-by", "identification_at_1e-2", "--labels", "others.parquet")


def test_a_refit_is_refused_since_people_of_the_selection_part_are_no_classes(place):
    with pytest.raises(UserError, match="refit trains on the selection part too, whose people are none of the run's"):
        run("x", "--loss", "arcface", "--epochs", "1", "--refit", "all")


def test_a_part_without_query_people_is_not_scored(place):
    labels = read_labels(Path("data/labels.parquet"))
    table = labels.table.copy()
    some = table["identity_set"] == "distractor"
    table.loc[some & (table["group"] == table.loc[some, "group"].iloc[0]), ["identity_set", "expression_split"]] = None
    table["expression_split"] = table["expression_split"].fillna("test")
    write_labels(Path("with_test.parquet"), Labels(table, labels.classes, labels.dataset))
    run("arc", "--loss", "arcface", "--epochs", "1", "--labels", "with_test.parquet")
    with pytest.raises(UserError, match="there is no query person in it"):
        evaluate.main(["--run", "runs/manual/arc", "--part", "test", "--labels", "with_test.parquet", "-o", "ev"])


def test_the_evaluation_is_the_metric_on_the_runs_embeddings(place):
    run("frozen", "--model", "identity", "--epochs", "0", "--normalise", "none", "--loss", "arcface")
    got = numbers("frozen", "ev")
    labels = read_labels(Path("data/labels.parquet")).table
    features = FeatureStore(Path("data/features.zarr"))
    rows = labels["identity_set"].notna().to_numpy()
    z = features.read(np.flatnonzero(rows)).astype(np.float32)
    people, query = pd.factorize(labels["group"][rows])[0], (labels["identity_set"][rows] == "query").to_numpy()
    counts = identity_counts(z, people, query)
    expected = counts.genuine[counts.at["1e-2"]].sum() / counts.genuine[0].sum()
    assert got["identification_at_1e-2"] == pytest.approx(expected)


def head_of(folder: Path, seed: int = 0) -> dict:
    return {k: v for k, v in read_adapter(folder / f"seed_{seed}").modules().state_dict().items() if "head" in k}


def test_a_run_starts_with_the_heads_weights_of_another(place):
    first = run("first", "--loss", "arcface", "--epochs", "2", "--learning-rate", "0.01")
    still = ["--learning-rate", "1e-30", "--weight-decay", "0", "--epochs", "1"]
    then = run("then", "--loss", "triplet", "--start", str(first), *still, "--runs", "2")
    apart = run("apart", "--loss", "triplet", *still)
    for name, value in head_of(first).items():
        for seed in (0, 1):  # the only seed that there is starts all
            assert torch.equal(head_of(then, seed)[name], value), name
    assert any(not torch.equal(head_of(apart)[name], value) for name, value in head_of(first).items())
    facts = read_adapter(then / "seed_1").facts["start"]
    assert facts["run"] == "runs/manual/first"
    assert facts["sha256"] == hashlib.sha256((first / "seed_0/best.safetensors").read_bytes()).hexdigest()


def test_a_start_of_another_shape_other_features_or_that_saw_too_much_is_refused(place, made):
    first = run("first", "--loss", "arcface", "--epochs", "1", "--runs", "2")
    arc = ["--loss", "triplet", "--epochs", "1", "--start", str(first)]
    with pytest.raises(UserError, match="is of another shape: embedding_size is 8 there, and 4 here"):
        run("a", *arc, "--embedding-size", "4")
    with pytest.raises(UserError, match=r"has the seeds \[0, 1\], and seed 2 is asked for"):
        run("b", *arc, "--seed", "2")
    with pytest.raises(UserError, match="has seen what is the selection part now"):
        run("c", *arc, "--split-seed", "3")
    labels = read_labels(Path("data/labels.parquet"))
    other = labels.table["expression_split"].map({"train": "val", "val": "train"})
    sets = np.where(other == "val", "query", None)
    write_labels(Path("o.parquet"), Labels(labels.table.assign(expression_split=other, identity_set=sets),
                                           labels.classes, labels.dataset))  # fmt: skip
    with pytest.raises(UserError, match="has seen what is the validation part now"):
        run("d", *arc, "--labels", "o.parquet")
    with pytest.raises(UserError, match=r"start: there is no trained run in nowhere"):
        run("e", *arc[:-1], "nowhere")
    with pytest.raises(UserError, match="with 0 epochs there is none"):
        run("f", *arc, "--epochs", "0")
    store = FeatureStore(Path("data/features.zarr"))
    keys = store.keys.sort_values("row")[["video", "frame"]].astype({"video": "str"}).assign(size=10)
    with StoreWriter(Path("other.zarr"), MADE_BY | {"input_size": 64}, {"original": D}, 512) as writer:
        writer.write(keys, {"original": store.read(np.arange(len(keys)))})
    with pytest.raises(UserError, match="was trained on other features than this store has"):
        run("g", *arc, "--data", "other.zarr", "--labels", "data/labels.parquet")
