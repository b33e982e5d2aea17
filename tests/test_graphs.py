"""The ONNX graphs of a bundle: the same as torch for every head, and used without torch as docs/bundle.md shows it."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, adapter_of, draw
from packaging.requirements import Requirement
from test_bundle import CLASSES, clip, commands_of_the_page, make_run  # noqa: F401 - fixture

from pipeline.adapter.heads import HEADS
from pipeline.adapter.heads.common import Head
from pipeline.bundle import __main__ as command
from pipeline.bundle import graphs
from pipeline.bundle.write import write_bundle
from pipeline.core.params import UserError
from pipeline.embed import Embedder
from pipeline.embed.embedder import by_centres
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.forward import Forward
from pipeline.extraction.weights.prepare import prepare

D, E, T = 18, 8, 9
VARIANTS = {
    "identity": {"pooling": "hann"},
    "peterson": {"pooling": "mean", "model_options": {"input_dropout": 0.3}},
    "original": {
        "pooling": "mean",
        "predictors": {
            "va": {"kind": "va"},
            "bce": {"kind": "aus", "num_outputs": 4},
            "mse": {"kind": "outputs", "num_outputs": 2},
        },
    },
    "mlp": {"pooling": "centre", "num_components": 5, "predictors": {"ce": {"kind": "linear", "num_outputs": 3}}},
    "tcn": {"pooling": "mean", "predictors": {"arcface": {"kind": "cosine", "num_outputs": 3, "scale": 15.0}}},
    "gru": {"pooling": "centre", "model_options": {"num_layers": 2}},
    "transformer": {"pooling": "centre", "model_options": {"num_layers": 2, "max_distance": 3}},
    "transformer, sinusoidal": {"pooling": "mean", "model_options": {"num_layers": 1, "positions": "sinusoidal"}},
    "attention_pool": {"predictors": {"proxies": {"kind": "proxies", "num_outputs": 3, "scale": 15.0}}},
    "pair_gate, grid": {"made_by": {"pooling": "grid 3 x 3"}},
}


def made(name, **changes):
    """An adapter with random weights; relative positions and the front too, where zeros and ones would hide much."""
    torch.manual_seed(0)
    options = VARIANTS[name] | changes
    facts = {
        "model": name.split(",")[0], "num_features": D, "num_components": None, "embedding_size": E, "dropout": 0.3,
        "model_options": {}, "pooling": "mean", "made_by": {}, "classes": CLASSES, "temperature": 15.0,
        "loss": "supcon", "predictors": {}, "window": {"frames": T}, "loss_options": {}, "class_counts": None,
        "num_aus": None,
        "margin": None,
    } | options  # fmt: skip
    adapter = adapter_of(facts)
    if facts["predictors"]:
        from pipeline.adapter.adapter import build_adapter

        adapter = build_adapter(facts)
    for value in (*adapter.front.buffers(), *(p for n, p in adapter.head.named_parameters() if "distance" in n)):
        value.data.copy_(torch.rand(value.shape) + 0.5)
    adapter.centres = torch.randn(len(CLASSES), adapter.head.embedding_size)
    adapter.centres[1] = torch.nan  # a class without training frames
    adapter.modules().eval()
    return adapter


def windows(count, frames, seed):
    """Windows and ``valid``: the first is whole, the second has nothing, the others have gaps filled with NaN."""
    rng = np.random.default_rng(seed)
    valid = rng.random((count, frames)) < 0.7
    valid[0], valid[1:2] = True, False
    values = rng.standard_normal((count, frames, D)).astype(np.float32)
    values[~valid] = np.nan
    return values, valid


@torch.inference_mode()
def by_torch(adapter, values, valid):
    """Unit embeddings and class probabilities, by the steps that evaluation takes."""
    x = adapter.front(torch.from_numpy(np.nan_to_num(values)))
    valid = torch.from_numpy(valid)
    x[~valid] = 0
    z = adapter.pool(adapter.head(x, valid), valid)
    found = {"embeddings": F.normalize(z, dim=1).numpy()}
    to_values = {"classes": lambda x: x.softmax(1), "va": lambda x: x, "outputs": lambda x: x, "aus": torch.sigmoid}
    found |= {what: to_values[what](adapter.predict(what, z)).numpy() for what in adapter.predicts}
    if "classes" not in found:
        found["classes"] = by_centres(found["embeddings"], adapter.centres.numpy(), 15.0)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_the_graph_of_every_head_gives_what_torch_gives(name):
    adapter = made(name)
    session = onnxruntime.InferenceSession(graphs.windows_graph(adapter))
    names = [output.name for output in session.get_outputs()]
    assert set(names) == {"embeddings", "classes", *adapter.predicts}
    for count, frames in ((40, T), (1, 1), (3, 2 * T + 1)):
        values, valid = windows(count, frames, seed=frames)
        found = dict(zip(names, session.run(None, {"windows": values, "valid": valid}), strict=True))
        expected = by_torch(adapter, values, valid)
        assert set(found) == set(expected)
        there = np.linalg.norm(expected["embeddings"], axis=1) > 0
        assert there.any()
        assert there[1:2].any() == False  # noqa: E712 - also where there is no second one
        cosine = (found["embeddings"] * expected["embeddings"]).sum(axis=1)
        assert (1 - cosine[there] <= 1e-4).all()
        np.testing.assert_allclose(np.linalg.norm(found["embeddings"], axis=1), there, atol=1e-5)
        for what in found:
            np.testing.assert_allclose(found[what], expected[what], atol=1e-4)


def test_every_head_is_tried():
    assert {name.split(",")[0] for name in VARIANTS} == set(HEADS)


@pytest.mark.slow
def test_what_a_head_for_pairs_says_of_two_windows():
    adapter = made("pair_gate, grid")
    session = onnxruntime.InferenceSession(graphs.pairs_graph(adapter))
    (left, left_valid), (right, right_valid) = windows(12, 9, 1), windows(12, 4, 2)
    given = {"left": left, "left_valid": left_valid, "right": right, "right_valid": right_valid}
    (found,) = session.run(None, given)
    with torch.inference_mode():
        sides = [
            (adapter.front(torch.from_numpy(x)).masked_fill(~torch.from_numpy(v)[..., None], 0), torch.from_numpy(v))
            for x, v in ((left, left_valid), (right, right_valid))
        ]
        expected = adapter.head.pair(*sides[0], *sides[1])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found) > 0.1


@pytest.mark.slow
def test_features_are_those_of_extraction():
    backbone = load_backbone(prepare("test_efficientnet", "random", Path("weights")), 64)
    session = onnxruntime.InferenceSession(graphs.images_graph(backbone))
    for seed in range(5):
        draw(Path(f"{seed}.png"), seed, (64, 64))
    pictures = [onnx_picture(Path(f"{seed}.png")) for seed in range(5)]
    expected = Forward(backbone, 4, "float32", ["original"], torch.device("cpu"))(pictures[:4], [""] * 4)["original"]
    (found,) = session.run(None, {"images": np.stack(pictures[:4])})
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(found, found.astype(np.float16))  # rounded as in the store
    assert np.linalg.norm(found[0] - found[1]) > 0.01
    (alone,) = session.run(None, {"images": np.stack(pictures[:1])})
    np.testing.assert_allclose(alone[0], found[0], rtol=2e-3, atol=2e-3)


def onnx_picture(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


class Odd(Head):
    """A head that does something else in a graph, or that no graph can hold."""

    source = "here"

    def __init__(self, num_features: int, how: str = "other"):
        super().__init__(num_features, num_features)
        self.how = how

    def forward(self, features, valid):
        if self.how == "no graph" and valid.sum().item() > 3:
            return features.float() * 2
        return features.float().roll(1 if torch.compiler.is_exporting() else 0, dims=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("other", "the head 'odd' gives other embeddings as an ONNX graph: they differ by 0."),
        ("no graph", "the head 'odd' cannot be written as an ONNX graph: "),
    ],
)
def test_a_head_whose_graph_is_not_the_head_is_refused_by_name(monkeypatch, how, why):
    monkeypatch.setitem(HEADS.places, "odd", f"{__name__}.Odd")
    monkeypatch.setitem(VARIANTS, "odd", {"model_options": {"how": how}})
    with pytest.raises(UserError) as refused:
        graphs.windows_graph(made("odd"))
    assert str(refused.value).startswith(why)
    assert "\n" not in str(refused.value)


# --- without torch, by the lines of docs/bundle.md


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory):
    """Python that has onnxruntime, numpy, pillow and what they need, and nothing else: links to those alone."""
    folder = tmp_path_factory.mktemp("only")
    todo, done = ["onnxruntime", "numpy", "pillow"], set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        package = importlib.metadata.distribution(name)
        wanted = [Requirement(line) for line in package.requires or []]
        todo += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
        for top in {Path(file).parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(package.locate_file(top))

    def run(code):
        # -I: no PYTHONPATH, no folder of the script; -S: no site-packages
        begin = f"import sys; sys.path.append({str(folder)!r})\n"
        return subprocess.run([sys.executable, "-I", "-S", "-c", begin + code], capture_output=True, text=True)

    return run


def lines_of_the_page():
    """The ten lines with their imports, what is put behind 'wanted' for mirrored windows, and before it for seconds."""
    page = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")
    ten, mirror, seconds = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    return ten, mirror, seconds


def test_the_lines_are_ten_and_import_no_more_than_they_say():
    lines = [line for line in lines_of_the_page()[0].splitlines() if line]
    imports = [line for line in lines if re.match("import|from", line)]
    assert len(lines) - len(imports) == 10
    assert {line.split()[1].split(".")[0] for line in imports} == {"json", "pathlib", "numpy", "onnxruntime", "PIL"}


def test_there_is_no_torch(without_torch):
    done = without_torch("import onnxruntime, PIL, numpy\nimport torch")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"


WINDOWS = {
    "a step of its own": {"window": {"frames": 5, "step": None, "edge": "mask", "spacing": 5}},
    "every second frame, mirrored": {"window": {"frames": 7, "step": 2, "edge": "mirror", "spacing": 1}},
    "seconds, a classifier": {
        "window": {"frames": 4, "step": "0.06s", "edge": "mask", "spacing": 1},
        "loss": "arcface",
    },
}


@pytest.mark.parametrize("name", [n if "mirrored" in n else pytest.param(n, marks=pytest.mark.slow) for n in WINDOWS])
def test_the_lines_of_the_page_give_the_embeddings_of_an_embedder_without_torch(without_torch, clip, name):  # noqa: F811
    make_run(Path("runs/tcn_supcon"), **WINDOWS[name])
    command.main(commands_of_the_page()[1])
    assert {"images.onnx", "windows.onnx"} < {path.name for path in Path("with_graphs").iterdir()}
    ten, mirror, seconds = lines_of_the_page()
    before, line, after = re.split(r"(wanted = .*\n)", ten)
    if "mirrored" in name:
        after = mirror + after
    if "seconds" in name:
        before += seconds
    table = Embedder.load("with_graphs").frames(clip, fps=25)
    shutil.rmtree("runs")
    done = without_torch(f"{before}{line}{after}\nnp.save('found.npy', embeddings)\nassert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
    found, expected = np.load("found.npy"), np.stack(list(table["embedding"]))
    assert found.shape == expected.shape == (7, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert ((found * expected).sum(axis=1) >= 0.9999).all()
    assert (found @ expected.T).min() < 0.999  # frames differ by more than the two ways do


@pytest.mark.slow
def test_equal_runs_give_equal_graphs_which_say_nothing_of_this_place():
    for place in ("one", "a_longer_name/two"):
        write_bundle(make_run(Path(place, "runs/tried")), Path(place, "made"), onnx=True)
    for name in ("images.onnx", "windows.onnx", "README.md", "bundle.json"):
        first, second = (Path(place, "made", name).read_bytes() for place in ("one", "a_longer_name/two"))
        assert first == second, name
        for word in (str(ROOT), str(Path.cwd()), "site-packages", ".py"):
            assert word.encode() not in first or name.endswith(".md"), (name, word)
    onnx.checker.check_model(onnx.load("one/made/windows.onnx"), full_check=True)
    whole = Path("one/made/images.onnx").read_bytes()
    Path("one/made/images.onnx").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"images.onnx is damaged or edited"):
        Embedder.load("one/made")


def test_weights_that_are_left_out_are_in_no_graph(monkeypatch):
    monkeypatch.setattr(graphs, "windows_graph", lambda adapter: b"another test's")
    made = write_bundle(make_run(Path("here/runs/tried"), source="EmotiEffLib tiny.pt"), Path("made"), onnx=True)
    assert "windows.onnx" in made.sizes
    assert "images.onnx" not in made.sizes
    assert "and so there is no images.onnx" in made.notes[0]
