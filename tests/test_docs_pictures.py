"""The pictures of the docs can be made again, and the committed ones are those that the command makes."""

import io

import pytest
from conftest import ROOT
from PIL import Image
from test_page import drawn
from test_report import ADAPTER, FROZEN, evaluated

from pipeline.core.params import UserError
from pipeline.report import docs_pictures

# Those of the demo are made by another command: test_demo_browser.py.
COMMITTED = sorted(path for path in (ROOT / "docs/pictures").glob("*") if not path.name.startswith("demo_"))


@pytest.fixture
def evaluations(workplace):
    of = {"dataset": "synthetic abaw"}
    evaluated("frozen", FROZEN, baseline=True, drawn=drawn(0, [0, 1] * 15), **of)
    evaluated("mlp_hann", ADAPTER, drawn=drawn(1, [0] * 10 + [1] * 20), **of)
    return workplace


def test_the_command_makes_each_committed_picture_again_as_large_and_no_other(evaluations):
    docs_pictures.main([])
    made = {path.name: path for path in (evaluations / "docs/pictures").iterdir()}
    assert {path.name for path in COMMITTED} == set(made)
    for path in COMMITTED:
        old, new = (Image.open(io.BytesIO(p.read_bytes())) for p in (path, made[path.name]))
        assert old.size == new.size
        assert path.stat().st_size < 100_000
        assert len(old.convert("RGB").getcolors(1 << 24)) > 20  # not empty
    first = {name: path.read_bytes() for name, path in made.items()}
    docs_pictures.main([])
    assert first == {name: path.read_bytes() for name, path in made.items()}


def test_faces_of_people_are_not_put_into_the_docs(evaluations):
    evaluated("mlp_hann", ADAPTER, dataset="abaw", drawn=drawn(1, [0] * 30))
    with pytest.raises(UserError, match="mlp_hann was evaluated on abaw: only drawn faces may be shown in docs/"):
        docs_pictures.main([])
    assert not (evaluations / "docs").exists()
