"""A search: what is drawn, what is trained, what is scored, and what a killed one goes on from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from forks import python
from test_train import made, place  # noqa: F401 - fixtures

import train
from pipeline.adapter import sources
from pipeline.core.params import UserError
from pipeline.core.tables import Labels, read_labels, write_labels
from pipeline.training import search
from pipeline.training.config import TrainConfig
from pipeline.training.data import Kept, load_data
from pipeline.training.space import Between, Draws, OneOf, read_space

pytestmark = pytest.mark.usefixtures("undrawn")

BASE = ["--cpu", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "--normalise", "centre"]
BASE += ["--loss", "supcon", "-e", "2", "-r", "2", "--dropout", "0.1", "--select-split", "0.3"]
SPACE = {"learning_rate": {"log": [0.001, 0.05]}, "dropout": {"range": [0, 0.5]}, "window": {"range": [1, 5]}}


def searched(*flags: str, space: dict = SPACE, trials: int = 3, name: str = "x") -> Path:
    Path("space.yaml").write_text(yaml.safe_dump(space))
    search.main(["--search", "space.yaml", "-n", str(trials), *BASE, "--name", name, *flags])
    return Path("runs/manual", name)


def lines(folder: Path) -> list[dict]:
    """The results, without what they took."""
    found = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found[1:]]


def test_the_lines_for_params_yaml_train_to_the_scores_that_the_search_prints(place, capsys):  # noqa: F811
    folder = searched(trials=5)
    said = capsys.readouterr().out
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["runs"] = yaml.safe_load((folder / "runs.yaml").read_text())
    assert list(params["runs"]) == [f"space_{n}" for n in range(1, 6)]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    means = []
    for place_of, name in enumerate(params["runs"], 1):
        if place_of in (1, 5):
            train.main(["--run", name, "--cpu", "--no-evaluate"])
            seeds = json.loads(Path("runs/manual", name, "summary.json").read_text())["seeds"]
            scores = np.array([seed["select"] for seed in seeds])
            assert f"  {place_of}  {scores.mean():.3f} ± {scores.std(ddof=1):.3f}  trial " in said
            means.append(scores.mean())
    assert means[0] > means[1]
    assert "as it stands" in said


def test_halving_trains_the_best_third_three_times_as_long(place):  # noqa: F811
    assert search.rounds(40) == [40, 14, 5]
    assert search.rounds(100) == [100, 34, 12, 5]
    assert search.rounds(3) == [3]
    found = [line for line in lines(searched("-e", "3", trials=7)) if line["trial"]]
    first = {line["trial"]: line["score"] for line in found if line["epochs"] == 1}
    longer = {line["trial"] for line in found if line["epochs"] == 3}
    assert len(first) == 7
    assert longer == {trial for trial, _ in sorted(first.items(), key=lambda item: -item[1])[:5]}
    assert sum(line["epochs"] == 3 for line in found) == 2 * 5  # each with two seeds


def test_a_killed_search_goes_on_to_the_same_results_and_trains_nothing_twice(place, monkeypatch):  # noqa: F811
    whole = searched(name="whole")
    cut = Path("runs/manual/cut")
    cut.mkdir()
    there = (whole / "trials.jsonl").read_text().splitlines(keepends=True)
    (cut / "trials.jsonl").write_text("".join(there[:4]) + there[4][:40])  # killed while it wrote
    trained = []
    real = search.train_trial
    monkeypatch.setattr(search, "train_trial", lambda *given: trained.append(1) or real(*given))
    searched(name="cut")
    assert len(trained) == len(there) - 4
    assert lines(cut) == lines(whole)
    assert (cut / "runs.yaml").read_text() == (whole / "runs.yaml").read_text()


def test_the_validation_part_decides_nothing(place):  # noqa: F811
    before = searched(name="before")
    labels = read_labels(Path("data/labels.parquet"))
    table, rng = labels.table, np.random.default_rng(0)
    val = (table["expression_split"] == "val").to_numpy()
    shuffled = table["expression"].to_numpy(dtype=object).copy()
    shuffled[val] = rng.permutation(shuffled[val])
    write_labels(Path("data/labels.parquet"), Labels(table.assign(expression=shuffled), labels.classes, labels.dataset))
    after = searched(name="after")
    assert [line["score"] for line in lines(after)] == [line["score"] for line in lines(before)]
    with pytest.raises(UserError, match="was begun with other labels: give another --name"):
        searched(name="before")


def test_combinations_that_are_refused_are_drawn_again_and_counted(place, capsys):  # noqa: F811
    space = SPACE | {"model": ["mlp", "identity"], "sampler": ["balanced", "pairs", "tracks"]}
    folder = searched(space=space, trials=4)
    said = capsys.readouterr().out
    tried = {line["trial"]: line["values"] for line in lines(folder) if line["trial"]}
    assert len(tried) == 4
    assert {values["model"] for values in tried.values()} == {"mlp"}
    counted = [line for line in said.splitlines() if "model 'identity' has nothing to learn" in line]
    assert len(counted) == 1
    total = int(next(line for line in said.splitlines() if "refused and drawn again" in line).split()[0])
    of_each = [int(line.split(" x ")[0]) for line in said.splitlines() if " x " in line]
    assert total == sum(of_each) > 0


def test_what_only_the_data_refuses_is_drawn_again_too_and_what_diverges_is_the_worst(place, monkeypatch, capsys):  # noqa: F811
    def refusing(config, *rest):
        if config.batch_size == 48:
            raise UserError("too few windows")
        return load_data(config, *rest)

    monkeypatch.setattr(search, "load_data", refusing)
    folder = searched("-e", "1", space={"dropout": {"range": [0, 0.5]}, "batch_size": [24, 48]}, trials=4)
    tried = [line for line in lines(folder) if line["trial"]]
    refused = [line for line in tried if line["refused"]]
    assert {line["refused"] for line in refused} == {"too few windows"}
    assert len({line["trial"] for line in tried if not line["refused"]}) == 4
    assert f"  {len(refused)} x too few windows" in capsys.readouterr().out
    folder = searched(space={"learning_rate": [0.01, 1e30], "temperature": [10, 20]}, trials=4, name="diverges")
    scores = {line["values"]["learning_rate"]: line["score"] for line in lines(folder) if line["trial"]}
    assert scores[1e30] is None
    assert scores[0.01] > 0.5
    best = yaml.safe_load((folder / "runs.yaml").read_text())
    assert [run["learning_rate"] for run in best.values()] == [0.01, 0.01, 1e30, 1e30]


def test_features_are_read_once_and_a_trial_is_what_it_is_alone(place, monkeypatch):  # noqa: F811
    opened = []
    real = sources.open_inputs
    monkeypatch.setattr(sources, "open_inputs", lambda *given, **named: opened.append(1) or real(*given, **named))
    searched()
    assert len(opened) == 1
    space = SPACE | {"normalise": ["none", "standardise"], "loss": ["supcon", {"supcon": 1, "ccc": 1}]}
    opened.clear()
    tried = lines(searched("-e", "1", space=space, name="more", trials=7))
    ways = {(line["values"].get("normalise"), str(line["values"].get("loss"))) for line in tried}
    assert 3 < len(ways) <= 5
    assert len(opened) <= 3 * len(ways)  # in each of the rounds once


def test_what_is_kept_changes_no_score(place):  # noqa: F811
    from pipeline.core.join import open_labelled

    base = TrainConfig(
        labels=Path("data/labels.parquet"), device="cpu", reduce=False, window=3, embedding_size=8, batch_size=24,
        loss="supcon", epochs=2, select_split=0.3, normalise="standardise",
    )  # fmt: skip
    store, labels = open_labelled(base.data, base, None, "frame")
    space = {"normalise": OneOf(["none", "centre"]), "window": OneOf([1, 4]), "sampler": OneOf(["balanced", "uniform"])}
    space["loss"] = OneOf(["supcon", "arcface", {"supcon": 1, "ccc": 1}])
    kept = Kept()
    for _, (_, config) in zip(range(5), Draws(space, base, 1), strict=False):
        scores = [
            search.train_trial(load_data(config, store, labels, None, of), 0, "auc_same_different")
            for of in (kept, None)
        ]
        assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-r", "1"], "needs -r 2 or more seeds"),
        (["--resume", "runs/x"], "goes on by itself after a kill"),
        (["-n", "0"], "-n must be at least 1 trial"),
        (["--select-split", "0.01"], "too small to be scored|select"),
    ],
)
def test_what_cannot_be_searched_is_refused(place, flags, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        searched(*flags)


def test_a_table_of_folds_leaves_no_group_to_choose_on(place):  # noqa: F811
    labels = read_labels(Path("data/labels.parquet"))
    folds = (pd.factorize(labels.table["group"])[0] % 2 + 1).astype("int16")
    splits = {f"{track}_split": "fold" for track in ("expression", "va", "au")}
    folded = labels.table.assign(fold=pd.array(folds, dtype="Int16"), **splits)
    write_labels(Path("data/labels.parquet"), Labels(folded, labels.classes, labels.dataset))
    with pytest.raises(UserError, match="cut into 2 folds: each group is reported on in one of them"):
        searched()


def test_train_py_hands_a_search_over(monkeypatch):
    handed = []
    monkeypatch.setattr(train.children, "run", lambda command: handed.append(command) or 2)
    for words in (["--search", "space.yaml", "-n", "4"], ["-r", "3", "--search=space.yaml"]):
        assert train.main(words) == 2
        assert handed[-1][1:] == ["-m", "pipeline.training.search", *words]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no parameter to draw"),
        ("dropuot: [0.1]", r"'dropuot' is not one of .*did you mean 'dropout'"),
        ("select_by: [macro_f1]", "parameter 'select_by' is not one of"),
        ("test_split: {range: [0.1, 0.2]}", "parameter 'test_split' is not one of"),
        ("dropout: [0.1, 1.5]", r"dropout must be in \[0, 1\), and is 1.5"),
        ("dropout: {range: [0.1, 1]}", r"dropout must be in \[0, 1\), and is 1"),
        ("window: [3, three]", "window must be int, and is 'three'"),
        ("loss: [supcon, supcom]", "loss 'supcom' is not one of .*did you mean 'supcon'"),
        ("model: mlp", "model must be a list, {range"),
        ("loss: {supcon: 1}", "loss must be a list, {range"),
        ("dropout: {log: [0, 0.5]}", "the lower one above 0"),
        ("dropout: {range: [0.5, 0.1]}", "from a lower to a higher end"),
        ("dropout: {range: [0.5]}", "must have two ends"),
        ("learning_rate: {log: [low, 1]}", "an end must be a number, and is 'low'"),
        ("dropout.rate: [1]", "entries have model_options"),
    ],
)
def test_a_space_is_checked_before_anything_is_loaded(tmp_path, content, message):
    (tmp_path / "space.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_space(tmp_path / "space.yaml")


def test_numbers_are_drawn_evenly_between_their_ends(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "learning_rate: {log: [1e-4, 1.0e-1]}\nwindow: {range: [1, 4]}\nbatch_size: {log: [16, 1024]}\n"
        "dropout: {range: [0, 0.5]}\nmodel_options.num_layers: [2, 3]\n"
    )
    space = read_space(tmp_path / "space.yaml")
    assert space["dropout"] == Between(0, 0.5, log=False, whole=False)
    rng = np.random.default_rng(0)
    drawn = {name: np.array([of.draw(rng) for _ in range(4000)]) for name, of in space.items()}
    decade = np.floor(np.log10(drawn["learning_rate"])).astype(int)
    np.testing.assert_allclose(np.bincount(decade + 4, minlength=3) / 4000, 1 / 3, atol=0.03)
    np.testing.assert_allclose(np.bincount(drawn["window"])[1:] / 4000, 1 / 4, atol=0.03)
    assert drawn["batch_size"].dtype.kind == "i"
    assert abs(np.median(drawn["batch_size"]) - 128) < 12  # of 16 and 1024 the geometric mean
    assert abs(drawn["dropout"].mean() - 0.25) < 0.01
    assert {float(f"{value:.3g}") == value for value in drawn["learning_rate"]} == {True}


def test_draws_are_those_of_the_seed_none_twice_and_options_are_merged():
    base = TrainConfig(model="transformer", model_options={"num_heads": 2})
    space = {"model_options.num_layers": OneOf([1, 2]), "steps": OneOf([10, 20]), "dropout": OneOf([0.1, 0.2])}
    some, again, other = ([config for _, config in Draws(space, base, seed)] for seed in (0, 0, 1))
    assert len(some) == 8  # all there are
    assert some == again
    assert some != other
    assert all(config.epochs is None for config in some)
    assert {config.model_options["num_layers"] for config in some} == {1, 2}
    assert {config.model_options["num_heads"] for config in some} == {2}
    with pytest.raises(
        UserError, match="each of 1 draws from the space was refused, most of them so: model 'identity'"
    ):
        next(iter(Draws({"model": OneOf(["identity"])}, TrainConfig(), 0)))


@pytest.mark.slow
def test_the_search_is_a_command_and_ends_with_one_line_where_it_is_refused(place):  # noqa: F811
    Path("space.yaml").write_text("dropout: [0.1, 0.2, 0.3]\n")
    command = [ROOT / "train.py", "--search", "space.yaml", "-n", "2", *BASE, "-e", "1"]
    done = python(*command, check=True)
    assert "As lines for 'runs:' of params.yaml, in runs/manual/search-space/runs.yaml:" in done.stdout
    shutil.rmtree("runs")
    done = python(*command, "-r", "1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
