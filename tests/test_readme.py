"""What the README and docs/ show is done as it stands there."""

import re
import shutil
import tomllib

import numpy as np
import torch
import yaml
from conftest import ROOT
from forks import python
from safetensors.torch import load_file
from test_train import made, place  # noqa: F401 - fixtures

OF_ALL = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (*(ROOT / name for name in OF_ALL), *sorted((ROOT / "docs").glob("*.md")))
}
FLAGS = ["--cpu", "-e", "2", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-r", "1"]


def page(name: str) -> str:
    return PAGES[ROOT / "docs" / f"{name}.md"]


def headings(text: str) -> set[str]:
    """As a link names them: 'A loss of your own' is a-loss-of-your-own."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_every_link_to_a_page_leads_to_a_heading_of_it():
    links = [
        (path, *m.groups()) for path, text in PAGES.items() for m in re.finditer(r"\]\(([\w./]*)(?:#([\w-]+))?\)", text)
    ]
    assert len(links) > 8
    for path, name, heading in links:
        to = (path.parent / name).resolve() if name else path
        assert to.exists(), (path, name)
        assert heading is None or heading in headings(PAGES[to]), (path, name, heading)


def test_the_readme_is_short_and_names_every_page():
    readme = PAGES[ROOT / "README.md"]
    assert len(readme.splitlines()) < 180
    assert {path.name for path in PAGES} - set(OF_ALL) == set(re.findall(r"\]\(docs/(\w+\.md)", readme))


def test_the_lines_without_torch_are_those_that_the_tests_of_bundles_run():
    (lines,) = re.findall(r"```python\nimport json\n.*?```", PAGES[ROOT / "README.md"], flags=re.DOTALL)
    assert lines in page("bundle")


def test_a_loss_of_ones_own_is_the_file_and_the_line_that_the_page_shows(place):  # noqa: F811
    (file,) = re.findall(r"```python\n(import torch\n.*?class Mine.*?)```", page("code"), flags=re.DOTALL)
    (line,) = re.findall(r"```python\n( +\"mine\": .*\n)```", page("code"))
    assert len([words for words in file.splitlines() if words]) <= 12
    for name in ("train.py", "pipeline"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    losses = place / "pipeline" / "training" / "losses"
    (losses / "mine.py").write_text(file, encoding="utf-8")
    table = (losses / "__init__.py").read_text(encoding="utf-8")
    (losses / "__init__.py").write_text(table.replace("    },\n)", line + "    },\n)"), encoding="utf-8")

    def ran(*flags):
        return python("train.py", *flags, cwd=place, env={"PATH": "", "OMP_NUM_THREADS": "1"})

    mine = ["--loss", "mine", "--no-evaluate", *FLAGS]
    weights = []
    for name, options in (("two", []), ("more", ["--loss-options", "{power: 3}"])):
        done = ran(*mine, "--name", name, *options)
        assert done.returncode == 0, done.stderr
        weights.append(load_file(place / "runs/manual" / name / "seed_0/best.safetensors")["head.layers.0.weight"])
    assert not torch.equal(*weights)
    assert re.search(r"mine +What it is, in a line\. \[where it comes from\]", ran("--list").stdout)
    wrong = ran(*mine, "--loss-options", "{powr: 1.5}")
    assert wrong.stderr == "error: loss_options: no loss of this run takes 'powr'. They take: mine ['power']\n"


def test_the_store_opens_as_the_page_shows_and_its_names_become_str(place):  # noqa: F811
    (block,) = re.findall(r"```python\n(import zarr.*?)```", page("store"), flags=re.DOTALL)
    scope = {}
    exec(block, scope)
    assert isinstance(scope["video"].dtype, np.dtypes.StringDType)
    assert {type(name) for name in scope["names"]} == {str}
    assert scope["features"].shape == (len(scope["names"]), 12)
    assert scope["names"][0] == "v00"


def test_the_matrix_of_losses_and_samplers_is_a_stage_when_its_hashes_are_taken_away():
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    stages = yaml.safe_load(re.sub(r"^#(  .*)$", r"\1", text, flags=re.MULTILINE))["stages"]
    matrix, trained = stages["matrix"], stages["train"]["do"]
    # What a combination reaches is not hashed apart, and a run of params.yaml alone names the multi-task lists.
    other = {"data/code/train/${key}", "data/stores/${key}", "pipeline", "data/labels_mtl.parquet"}
    assert set(matrix["deps"]) ^ set(trained["deps"]) == other
    assert set(matrix["matrix"]) == {"loss", "sampler"}
    assert "matrix" not in yaml.safe_load(text)["stages"]


def test_the_citation_names_the_version_and_the_licence_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for key in ("version", "license"):
        assert citation[key] == project[key]
    assert citation["title"] == project["name"]
    assert f"## {project['version']}\n" in PAGES[ROOT / "CHANGELOG.md"]


def test_the_rooms_that_contributors_are_told_of_are_there():
    named = re.findall(r"`(pipeline/[\w/.]+)`", PAGES[ROOT / "CONTRIBUTING.md"])
    assert len(named) > 6
    assert [name for name in named if not (ROOT / name).exists()] == []
    targets = re.findall(r"^    make (\w+)", PAGES[ROOT / "CONTRIBUTING.md"], flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(targets) == {"setup", "lint", "test", "repro"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
