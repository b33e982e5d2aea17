"""What a stage's hash of its code changes with, and what not: on a small project, and on this one."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from forks import python

from pipeline import code
from pipeline.core.params import UserError

FILES = {
    "train.py": """
        \"\"\"Trains.\"\"\"
        from pipeline.core.params import option
        from pipeline.training import board
        from pipeline.metrics.catalogue import METRICS
        from pipeline.training.losses import LOSSES

        class Config:
            epochs: int = option(10, help="passes")

        def main():
            \"\"\"Reads top to bottom.\"\"\"
            from pipeline.training.late import later
            return later(LOSSES["supcon"])
        """,
    "pipeline/__init__.py": "",
    "pipeline/core/__init__.py": "",
    "pipeline/core/params.py": "from pipeline.core import progress\n\ndef option(default, help): return default\n",
    "pipeline/core/progress.py": "def say(): pass\n",
    "pipeline/core/choices.py": "class Choices(dict): pass\n",
    "pipeline/adapter/__init__.py": "",
    "pipeline/adapter/heads/__init__.py": """
        from pipeline.core.choices import Choices
        HEADS = Choices({"mlp": "pipeline.adapter.heads.mlp.MLP"})
        """,
    "pipeline/adapter/heads/mlp.py": "class MLP: pass\n",
    "pipeline/training/__init__.py": "",
    "pipeline/training/board.py": "from pipeline.training import drawing\n",
    "pipeline/training/drawing.py": "def draw(): pass\n",
    "pipeline/training/late.py": "from .later_still import it\n\ndef later(loss): return it\n",
    "pipeline/training/later_still.py": "it = 1\n",
    "pipeline/training/losses/__init__.py": """
        \"\"\"The losses.\"\"\"
        from pipeline.core.choices import Choices
        LOSSES: Choices = Choices(
            {"supcon": "pipeline.training.losses.supcon.SupCon", "triplet": "pipeline.training.losses.triplet.Triplet"},
        )
        """,
    "pipeline/training/losses/common.py": "def zero(): return 0\n",
    "pipeline/training/losses/supcon.py": "from pipeline.training.losses.common import zero\n\nclass SupCon: pass\n",
    "pipeline/training/losses/triplet.py": "class Triplet: pass\n",
    "pipeline/training/samplers/__init__.py": """
        from pipeline.core.choices import Choices
        SAMPLERS = Choices({"balanced": "pipeline.training.samplers.balanced.Balanced"})
        """,
    "pipeline/training/samplers/balanced.py": "class Balanced: pass\n",
    "pipeline/evaluation/__init__.py": "",
    "pipeline/evaluation/evaluate.py": """
        from pipeline.adapter.heads import HEADS
        from pipeline.core import params
        from pipeline.metrics.catalogue import METRICS
        """,
    "pipeline/metrics/__init__.py": "",
    "pipeline/metrics/catalogue.py": """
        METRICS = Catalogue(
            {
                "auc": Metric("AUC", "higher", "pairs.auc", "pairs", board="pairs", select="pairs"),
                "recall": Metric("recall", "higher", "retrieval.recall", "gallery", board="gallery"),
            }
        )
        """,
    "pipeline/metrics/pairs.py": "def auc(): pass\n",
    "pipeline/metrics/retrieval.py": "def recall(): pass\n",
}
PARAMS = {
    "train": {"model": "mlp", "loss": "supcon", "sampler": "balanced"},
    "evaluate": {"neighbours": 20},
    "baselines": {"run": "runs/plain"},
    "runs": {"plain": {}, "mined": {"loss": {"triplet": 1, "supcon": {"weight": 0.5}}}, "hard": {"loss": "triplet"}},
}
ALL = {f"{stage}/{run}" for stage in ("train", "evaluate") for run in PARAMS["runs"]}
TRAIN = {name for name in ALL if name.startswith("train")}
EVALUATE = ALL - TRAIN


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "STAGES", {})
    root = tmp_path / "project"
    for name, text in FILES.items():
        write(root / name, re.sub(r"^        ", "", text, flags=re.MULTILINE).lstrip("\n"))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def changed(root: Path, path: str, old: str, new: str) -> set[str]:
    """The hashes that change when ``old`` becomes ``new`` in a file."""
    before = code.hashes(root, PARAMS)
    text = (root / path).read_text(encoding="utf-8")
    assert old in text
    write(root / path, text.replace(old, new, 1))
    after = code.hashes(root, PARAMS)
    assert set(before) == set(after) == ALL
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("train.py", '"""Trains."""', '"""Trains a head."""\n# and says so'),
        ("train.py", '    """Reads top to bottom."""\n', ""),
        ("train.py", "10, help", "10,\n    help"),
        ("train.py", '"passes"', '"passes over the training part"'),
        ("train.py", 'help="passes")', 'help="passes")\n    """Of which there are several."""'),
        ("pipeline/training/losses/__init__.py", "The losses.", "All losses."),
        ("pipeline/core/progress.py", "pass", "print()"),
        ("pipeline/training/board.py", "drawing", "drawing, late"),
        ("pipeline/training/drawing.py", "pass", "print()"),
    ],
)
def test_what_decides_no_number_changes_no_hash(project, path, old, new):
    assert changed(project, path, old, new) == set()


@pytest.mark.parametrize(
    ("path", "old", "new", "stages"),
    [
        ("train.py", "10", "11", TRAIN),
        ("train.py", "epochs: int", "epochs: float", TRAIN),
        ("pipeline/core/params.py", "return default", "return [default]", ALL),
        ("pipeline/training/late.py", "return it", "return -it", TRAIN),
        ("pipeline/training/later_still.py", "1", "2", TRAIN),
        ("pipeline/training/__init__.py", "", "it = 1\n", TRAIN),
        ("pipeline/adapter/heads/mlp.py", "pass", "x = 1", EVALUATE),
        ("pipeline/training/losses/triplet.py", "pass", "x = 1", {"train/mined", "train/hard"}),
        ("pipeline/training/losses/supcon.py", "pass", "x = 1", {"train/mined", "train/plain"}),
        ("pipeline/training/losses/common.py", "0", "1", {"train/mined", "train/plain"}),
        ("pipeline/metrics/pairs.py", "pass", "x = 1", ALL),
        ("pipeline/metrics/retrieval.py", "pass", "x = 1", EVALUATE),
        ("pipeline/metrics/catalogue.py", '"AUC"', '"area under the curve"', EVALUATE),
        ("pipeline/metrics/catalogue.py", '"recall":', '"recall_at_1":', EVALUATE),
        ("pipeline/metrics/catalogue.py", "pairs.auc", "retrieval.auc", ALL),
        ("pipeline/training/losses/__init__.py", "triplet.Triplet", "supcon.SupCon", {"train/mined", "train/hard"}),
    ],
)
def test_code_changes_the_hashes_of_what_runs_it_and_no_others(project, path, old, new, stages):
    assert changed(project, path, old, new) == stages


def test_a_new_loss_in_a_file_of_its_own_changes_nothing_until_a_run_names_it(project):
    write(project / "pipeline/training/losses/mine.py", "class Mine: pass\n")
    new = '"mine": "pipeline.training.losses.mine.Mine", "supcon"'
    assert changed(project, "pipeline/training/losses/__init__.py", '"supcon"', new) == set()
    runs = PARAMS["runs"] | {"hard": {"loss": "mine"}}
    before, after = (code.hashes(project, PARAMS | {"runs": each}) for each in (PARAMS["runs"], runs))
    assert {name for name in before if before[name] != after[name]} == {"train/hard"}


def test_a_file_of_another_name_is_another_one(project):
    (project / "pipeline/training/later_still.py").rename(project / "pipeline/training/later.py")
    late = project / "pipeline/training/late.py"
    before = code.hashes(project, PARAMS)
    assert "later_still" not in "".join(before["train/plain"])
    write(late, late.read_text().replace("later_still", "later"))
    assert any(line.endswith("  pipeline/training/later.py") for line in code.hashes(project, PARAMS)["train/plain"])


def test_the_place_of_the_project_does_not_count(project, tmp_path):
    before = code.hashes(project, PARAMS)
    project.rename(tmp_path / "elsewhere")
    assert code.hashes(tmp_path / "elsewhere", PARAMS) == before


def test_of_a_run_that_is_not_known_every_choice_counts(project):
    names = code.chosen(PARAMS, None)
    lines = "".join(code.reached(project, "train", names))
    assert "losses/triplet.py" in lines
    assert "losses/supcon.py" in lines


@pytest.mark.parametrize("more", ["x = 1", "import os", "def build(): pass"])
def test_a_table_that_holds_more_is_refused_since_that_would_not_be_hashed(project, more):
    table = project / "pipeline/training/losses/__init__.py"
    write(table, table.read_text() + more + "\n")
    with pytest.raises(
        UserError, match=r"losses/__init__\.py:\d+: a module that holds a table of choices holds nothing"
    ):
        code.hashes(project, PARAMS)


@pytest.mark.parametrize("old", ["pipeline.training.losses.triplet.Triplet", "pairs.auc"])
def test_a_name_that_leads_nowhere_is_refused_since_nothing_would_be_hashed(project, old):
    for path in ("pipeline/training/losses/__init__.py", "pipeline/metrics/catalogue.py"):
        text = (project / path).read_text(encoding="utf-8")
        write(project / path, text.replace(old, old.replace("triplet.", "tripletts.").replace("pairs.", "pears.")))
    with pytest.raises(UserError, match=r"no module 'pipeline\.(training\.losses\.tripletts|metrics\.pears)' to hash"):
        code.hashes(project, PARAMS)


def test_a_run_without_changes_is_hashed_by_the_choices_of_section_train(project):
    found = code.hashes(project, PARAMS | {"runs": {"empty": None}})["train/empty"]
    assert found == code.hashes(project, PARAMS)["train/plain"]


@pytest.mark.parametrize(
    ("section", "changes", "stages"),
    [
        ("train", {"model": "gru"}, ALL),  # another head, which evaluation runs too
        ("train", {"loss": "triplet"}, {"train/plain"}),  # the other two have a loss of their own
        ("train", {"epochs": 6}, TRAIN),
        ("evaluate", {"neighbours": 5}, EVALUATE),
        ("runs", {"plain": {"dropout": 0.1}}, {"train/plain"}),
        ("runs", {"plain": {"loss": "supcon"}}, set()),  # what section train says too
    ],
)
def test_parameters_make_the_runs_again_that_they_are_of_and_no_others(project, section, changes, stages):
    after = code.hashes(project, PARAMS | {section: PARAMS[section] | changes})
    before = code.hashes(project, PARAMS)
    assert {name for name in before if before[name] != after[name]} == stages
    assert 'sampler: "balanced"' in before["train/hard"]


def test_a_value_that_only_yaml_knows_is_no_trace_here_since_the_run_itself_refuses_it():
    values = yaml.safe_load("{temperature: 2026-11-30, 1: x}")
    assert code.parameters(values) == ['1: "x"', 'temperature: "2026-11-30"']


# On this project -----------------------------------------------------------------------------------------------------

OWN = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


# The stages of trained backbones, and those that run the same command.
CHAIN = {"train_backbone": "train", "extract_trained": "extract", "reduce_trained": "reduce",
         "evaluate_backbone": "evaluate"}  # fmt: skip


def test_every_stage_that_makes_something_depends_on_its_code_and_on_no_source_file():
    for name, stage in DVC.items():
        body = stage.get("do", stage)
        if name in ("code", "index"):  # one is what finds out, the other runs every time
            continue
        name = CHAIN.get(name, name)
        module = code.STAGES_OF_RUNS.get(name) or code.STAGES[name]
        command = re.match(r"python (-m )?(\S+)", body["cmd"])[2].removesuffix(".py")
        assert module.removesuffix(".__main__") == command
        assert f"data/code/{name}" + ("/${key}" if name in code.STAGES_OF_RUNS else "") in body["deps"]
        ours = [Path(dep) for dep in body["deps"] if dep.startswith("pipeline") or dep.endswith(".py")]
        assert not [path for path in ours if path.suffix not in (".css", ".js")]  # which no hash of code covers
    assert {"code", "index", *code.STAGES, *code.STAGES_OF_RUNS, *CHAIN} == set(DVC)
    assert set(DVC["code"]["deps"]) == {"pipeline", "extract.py", "train.py"}


def test_the_parameters_of_runs_reach_them_through_the_stage_that_writes_them_beside_the_code():
    assert set(DVC["code"]["params"]) == {"backbones", "baselines.run", "evaluate", "runs", "train"}
    of_runs = [DVC[name]["do"] for name in DVC if CHAIN.get(name, name) in code.STAGES_OF_RUNS]
    assert len(of_runs) == 4
    assert not [body for body in of_runs if "params" in body]
    found = code.hashes(ROOT, OWN)
    assert "dropout: 0.4" in found["train/tcn_supcon"]
    assert f"resamples: {OWN['evaluate']['resamples']}" in found["evaluate/tcn_supcon"]


def test_only_the_tables_of_choices_and_metrics_import_by_a_name_that_no_hash_can_follow():
    files = [*(ROOT / "pipeline").rglob("*.py"), ROOT / "extract.py", ROOT / "train.py"]
    dynamic = {
        file.relative_to(ROOT).as_posix()
        for file in files
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Name | ast.Attribute)
        and getattr(node, "attr", getattr(node, "id", "")) in ("import_module", "__import__", "exec", "run_module")
    }
    assert dynamic == {"pipeline/core/choices.py", "pipeline/metrics/metric.py"}


PROGRAM = """
import importlib, sys
importlib.import_module(sys.argv[1])
from pipeline import code
for key, module in code.TABLES.items():
    if module in sys.modules:
        (table,) = (x for x in vars(importlib.import_module(module)).values() if type(x).__name__ == "Choices")
        [table[name] for name in sys.argv[2].split(",") if name in table]
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("pipeline", "train", "extract")))
"""


@pytest.mark.parametrize("stage", code.STAGES_OF_RUNS)
def test_what_a_stage_has_imported_when_it_runs_is_in_its_hash(stage):
    module = code.STAGES_OF_RUNS[stage]
    names = code.chosen(OWN, {"model": "tcn", "loss": {"arcface": 1, "triplet": 1}})
    words = ",".join(name for each in names.values() for name in each)
    done = python("-c", PROGRAM, module, words, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ran = {file for name in done.stdout.split() if (file := code.module_file(ROOT, name))}
    hashed = {ROOT / line.split("  ")[1].split(" ")[0] for line in code.reached(ROOT, module, names)}
    shows = {code.module_file(ROOT, name) for name in code.SHOWS}
    of_shows = {ROOT / line.split("  ")[1] for name in code.SHOWS for line in code.reached(ROOT, name, names)}
    assert ran - hashed - shows - of_shows - {ROOT / "pipeline/code.py"} == set()
    picked = {path.stem for path in hashed if path.parent.name in ("heads", "losses", "samplers")}
    assert {"tcn"} <= picked
    assert "gru" not in picked
