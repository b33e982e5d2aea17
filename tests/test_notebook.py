"""The notebook's cells run one after the other, as they stand, and it is stored without outputs."""

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT
from test_train import made, place  # noqa: F401 - fixtures

NOTEBOOK = json.loads((ROOT / "notebooks/first_steps.ipynb").read_text(encoding="utf-8"))


def cells():
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs():
    found = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(found) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in found)


@pytest.mark.slow
def test_its_cells_load_the_store_train_and_plot(place, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    before, figures = set(Path("runs").rglob("*")), []
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()))
    (place / "notebooks").mkdir()
    os.chdir("notebooks")  # where a notebook program starts it
    scope = {}
    for cell in cells():
        exec(cell, scope)
    assert Path.cwd() == place
    assert "216 frames of 12 features, 216 with an expression" in capsys.readouterr().out
    assert before == set()
    assert (place / "runs/manual/notebook_1/seed_0/best.safetensors").is_file()
    (figure,) = figures
    (axis,) = figure.axes
    assert sum(len(points.get_offsets()) for points in axis.collections) == 72  # validation frames: 6 videos of 12
    plt.close(figure)
