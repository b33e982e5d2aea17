"""A backbone is trained, extracted with again, and heads are trained on that: the stages of DVC, and what they run."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from forks import bin_folder, python
from test_end_to_end import change, dvc, ran
from test_end_to_end import place as project  # noqa: F401  (a fixture: the project, small)
from test_unfreeze import NAME, extracted, made, place, run  # noqa: F401  (the first three are used by fixtures)

import train
from pipeline import code
from pipeline.adapter.adapter import read_adapter
from pipeline.core.files import load_facts
from pipeline.core.join import stores_of_run
from pipeline.core.params import UserError
from pipeline.core.seen import from_lists, joined
from pipeline.core.store import FeatureStore
from pipeline.core.tables import weights_file
from pipeline.embed import Embedder
from pipeline.extraction.weights import __main__ as weights
from pipeline.training.config import from_flags

CHAIN = {"mine": {"unfreeze": 1, "loss": "supcon"}}
STAGES = {"train_backbone", "extract_trained", "reduce_trained", "evaluate_backbone"}
HEAD = {"data": "data/trained/mine.zarr", "loss": "cross_entropy"}


# --- the graph -------------------------------------------------------------------------------------------------------


def edges(folder: Path) -> set[tuple[str, str]]:
    """What DVC says of params.yaml in ``folder``: (a stage, one that it depends on)."""
    pytest.importorskip("dvc")
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    environment = os.environ | {"PATH": os.pathsep.join([str(bin_folder()), os.environ["PATH"]])}
    done = python("-m", "dvc", "dag", "--dot", cwd=folder, env=environment, check=True)
    return {(after, before) for before, after in re.findall(r'"(.*?)" -> "(.*?)"', done.stdout)}


def test_the_chain_is_off_by_default_and_on_by_one_entry_and_its_stages_follow_each_other(workplace):
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    assert params["backbones"] == {}
    off = edges(workplace)
    stages = {name.split("@")[0] for pair in off for name in pair}
    assert stages == {*yaml.safe_load(Path("dvc.yaml").read_text())["stages"]} - STAGES
    params["backbones"], params["runs"]["on_mine"] = CHAIN, HEAD
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    on = edges(workplace)
    assert off <= on
    chain = ["extract", "train_backbone@mine", "extract_trained@mine", "reduce_trained@mine", "stores", "train@on_mine"]
    assert {*zip(chain[1:], chain[:-1], strict=True)} <= on
    assert {("evaluate@on_mine", "train@on_mine"), ("evaluate_backbone@mine", "train_backbone@mine")} <= on
    assert {("report", "evaluate@on_mine"), ("report", "evaluate_backbone@mine")} <= on
    assert {before for after, before in on if after == "train_backbone@mine"} == {
        "code", "extract", "index", "reduce", "weights",
    }  # fmt: skip
    new = {stage for stage, _ in on} - {stage for stage, _ in off}
    assert new == {*chain[1:4], "evaluate_backbone@mine", "train@on_mine", "evaluate@on_mine"}


def test_a_trained_backbone_has_the_code_of_a_run_and_its_name_in_a_file(workplace, monkeypatch):
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["runs"] = {"frozen": params["runs"]["frozen"]}
    params["baselines"]["run"] = "runs/frozen"
    for backbones, names in ((CHAIN, "mine\n"), ({}, "no backbones\n")):
        monkeypatch.setattr(code, "read", lambda *_, of=backbones: params | {"backbones": of})
        monkeypatch.setattr(code, "hashes", lambda root, params: {"extract": ["x"]})
        code.main()
        assert Path("data/trained/names.txt").read_text() == names
    monkeypatch.undo()
    found = code.hashes(ROOT, params | {"backbones": CHAIN})
    assert any("pipeline/unfreeze/" in line for line in found["train/mine"])
    assert any("losses/supcon.py" in line for line in found["train/mine"])
    assert {name for name in found if "/" in name} == {
        "train/frozen", "evaluate/frozen", "train/mine", "evaluate/mine",
    }  # fmt: skip


# --- what its commands do --------------------------------------------------------------------------------------------


def backbones(**lines: dict) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(yaml.safe_dump(params | {"backbones": lines}), encoding="utf-8")


def test_a_line_of_backbones_is_trained_by_one_seed_under_its_name(workplace):
    backbones(mine={"unfreeze": 2, "loss": "triplet"}, low={"lora": 4})
    config, _ = from_flags(["--backbone", "mine", "--output", "runs"], "")
    assert (config.name, config.runs, config.unfreeze, config.loss) == ("mine", 1, 2, "triplet")
    assert yaml.safe_load(Path("params.yaml").read_text())["train"]["runs"] == 2
    assert from_flags(["--backbone", "low"], "")[0].lora == 4


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"loss": "triplet"}, "backbones.mine: nothing of the backbone is trained: give unfreeze or lora"),
        (
            {"unfreeze": 1, "data": "x.zarr"},
            r"backbones.mine: leave data out: it is trained from data/features.zarr, with",
        ),
        ({"unfreeze": 1, "runs": 3}, "backbones.mine: leave runs out: .* with one seed, train.seed"),
        ({"unfreeze": 1, "seed": 3}, "backbones.mine: leave seed out"),
    ],
)
def test_a_line_that_the_stages_could_not_go_on_with_is_refused(workplace, line, why):
    backbones(mine=line)
    with pytest.raises(UserError, match=why):
        from_flags(["--backbone", "mine"], "")


def test_a_name_that_is_no_backbone_is_refused_and_so_are_a_run_and_a_backbone_at_once(workplace):
    with pytest.raises(UserError, match="section 'mine' is not in"):
        from_flags(["--backbone", "mine"], "")
    with pytest.raises(UserError, match="--run and --backbone each name what is trained: give one of the two"):
        from_flags(["--backbone", "mine", "--run", "frozen"], "")


def test_folds_are_refused_before_the_training(place, monkeypatch):  # noqa: F811
    backbones(mine={"unfreeze": 1})

    monkeypatch.setattr(train, "open_labelled", lambda *_: (None, SimpleNamespace(folds=[0, 1])))
    with pytest.raises(UserError, match="backbones: the labels are cut into 2 folds, and each would need a backbone"):
        train.main(["--backbone", "mine"])


def test_first_and_trained_weights_lie_side_by_side_and_each_store_finds_its_own(place, monkeypatch):  # noqa: F811
    first = Path(f"weights/{NAME}.safetensors")
    before = first.read_bytes()
    trained = run("--learning-rate", "0.01") / "seed_0/backbone.safetensors"
    Path("data/trained").mkdir()
    extracted("--weights", str(trained), "-s", "data/trained/mine.zarr")
    assert first.read_bytes() == before
    stores = [FeatureStore(Path(path)) for path in ("data/features.zarr", "data/trained/mine.zarr")]
    files = [weights_file(store.made_by) for store in stores]
    assert files[0] == first != files[1]
    facts = load_facts(files[1], "weights", "")
    assert (facts["source"], facts["trained_from"]) == ("file backbone.safetensors", "random")
    # From either store a run finds the weights that made it: to train them further, and to name them for the embedder.
    again = run(name="again") / "seed_0"
    further = run("-d", "data/trained/mine.zarr", name="further") / "seed_0"
    head = run("-d", "data/trained/mine.zarr", "--unfreeze", "null", name="head") / "seed_0"
    names = [load_facts(seed / "best.safetensors", "", "")["weights"] for seed in (again, further, head)]
    assert names[:2] == ["backbone.safetensors"] * 2
    assert (head / names[2]).resolve() == files[1].resolve()
    embedder = Embedder.load(head.parent)
    assert embedder.facts["made_by"] == stores[1].made_by
    assert embedder.frozen.check(stores[1].made_by["crop_source"]) == ""  # the file's backbone makes these features
    assert load_facts(further / "backbone.safetensors", "", "")["trained_from"] == "random"
    # The file itself, whatever it is called, is the same backbone.
    extracted("--weights", str(files[1]), "-s", "data/trained/mine.zarr")
    assert len([*Path("weights").iterdir()]) == 2
    # DVC's stage of the weights has one name for what it makes.
    monkeypatch.setattr("sys.argv", ["weights"])
    weights.main(["--backbone", NAME, "--weights", str(trained)])
    assert first.read_bytes() == files[1].read_bytes()


def test_a_head_is_not_scored_or_selected_on_what_its_backbone_was_trained_on(place):  # noqa: F811
    trained = run() / "seed_0/backbone.safetensors"
    extracted("--weights", str(trained), "-s", "mine.zarr")
    head = ["-d", "mine.zarr", "--unfreeze", "null", "-e", "1"]
    seed = run(*head, name="same") / "seed_0"
    seen, of_run = (
        read_adapter(seed / "best.safetensors").seen,
        read_adapter(trained.with_name("best.safetensors")).seen,
    )
    assert seen["backbone"] == joined([of_run["train"], of_run["select"]])
    with pytest.raises(
        UserError, match=r"trained-.* has seen what is the validation part now: it was trained on \d+ of"
    ):
        run(*head, "--test-split", "0.5", name="held")
    with pytest.raises(UserError, match=r"has seen what is the selection part now: .* and of the same select_split"):
        run(*head, "--split-seed", "1", name="selected")
    further = run("-d", "mine.zarr", "-e", "1", name="further") / "seed_0"  # a backbone of that one has seen as much
    of_further = from_lists(load_facts(further / "backbone.safetensors", "", "")["seen"])
    assert of_further == {part: of_run[part] for part in ("train", "select")}
    weights_file(FeatureStore(Path("mine.zarr")).made_by).unlink()
    with pytest.raises(
        UserError, match=r"which say what it was trained on, are not at weights/.*trained-.* --weights FILE' makes"
    ):
        run(*head, name="lost")


def test_a_run_is_evaluated_on_the_store_that_it_was_trained_on(tmp_path):
    for data, expected in (("a.zarr", Path("a.zarr")), (["a.zarr", "b.zarr"], [Path("a.zarr"), Path("b.zarr")])):
        Path("config.json").write_text(json.dumps({"data": data}))
        assert stores_of_run(Path()) == expected


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_chain_runs_in_its_order_and_again_only_what_a_change_is_of(project):  # noqa: F811
    runs = yaml.safe_load((project / "params.yaml").read_text())["runs"]
    others = {name: None for name in runs if name != "mlp_classifier"}
    change(project, evaluate={"resamples": 10, "timelines": 0})
    change(project, synthetic={"frames": 8}, runs=others | {"on_mine": HEAD}, backbones=CHAIN)
    chain = ["train_backbone@mine", "extract_trained@mine", "reduce_trained@mine"]
    first = ran(dvc(project, "repro", "train", "evaluate@on_mine", "evaluate_backbone"))
    at = [first.index(stage) for stage in [*chain, "train@on_mine", "evaluate@on_mine"]]
    assert at == sorted(at)
    metrics = [json.loads((project / f"evaluation/{name}/details.json").read_text()) for name in ("mine", "on_mine")]
    assert "hours" in metrics[0]["about"]
    assert metrics[1]["about"]["trained_weights"] == "file backbone.safetensors"
    assert ran(dvc(project, "repro", "train")) == ["index"]
    change(project, runs={"on_mine": HEAD | {"loss": "supcon"}})
    assert ran(dvc(project, "repro", "train")) == ["index", "train@on_mine"]
    change(project, backbones={"mine": {"unfreeze": 1, "loss": "triplet"}})
    assert ran(dvc(project, "repro", "train")) == ["index", *chain, "train@on_mine"]
