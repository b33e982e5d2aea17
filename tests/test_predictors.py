import subprocess
import sys

import pytest
import torch
from conftest import ROOT, adapter_of

from pipeline.adapter.adapter import read_adapter, save_adapter
from pipeline.adapter.predictors import PREDICTORS, Predictors

B, E = 7, 6
KINDS = {
    "cosine": ({"num_outputs": 4, "scale": 12.0}, "classes", 4),
    "proxies": ({"num_outputs": 4, "scale": 12.0}, "classes", 4),
    "linear": ({"num_outputs": 4}, "classes", 4),
    "va": ({}, "va", 2),
    "aus": ({"num_outputs": 3}, "aus", 3),
    "outputs": ({"num_outputs": 3}, "outputs", 3),
}
FACTS = {
    "model": "mlp", "model_options": {}, "num_features": 5, "num_components": None, "embedding_size": E, "dropout": 0.0,
    "classes": ["a", "b", "c"], "num_aus": 2, "class_counts": [1, 2, 3], "window": {"frames": 3}, "pooling": "mean",
    "made_by": {"backbone": "tiny"},
}  # fmt: skip


def embeddings():
    return torch.randn(B, E, generator=torch.Generator().manual_seed(1))


def test_every_kind_is_tried_here():
    assert set(KINDS) == set(PREDICTORS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_says_what_it_predicts_and_gives_it(kind):
    options, what, num_outputs = KINDS[kind]
    torch.manual_seed(0)
    made = Predictors({"mine": {"kind": kind, **options}}, E)
    assert made.by_what == {what: made["mine"]}
    predicted = made["mine"].predict(embeddings())
    assert predicted.shape == (B, num_outputs)
    scale = options.get("scale", 1)
    torch.testing.assert_close(predicted, scale * made["mine"](embeddings()))
    if "scale" in options:
        assert predicted.abs().max() <= scale
        torch.testing.assert_close(made["mine"].predict(3 * embeddings()), predicted)
    if kind == "va":
        assert predicted.abs().max() < 1


def test_of_several_that_predict_the_same_the_first_one_does():
    adapter = adapter_of(FACTS | {"loss": {"supcon": 1, "cosface": 1, "cross_entropy": 1, "ccc": 1, "bce": 1}})
    assert list(adapter.predictors) == ["cosface", "cross_entropy", "ccc", "bce"]
    assert set(adapter.predicts) == {"classes", "va", "aus"}
    torch.testing.assert_close(
        adapter.predict("classes", embeddings()), adapter.predictors["cosface"].predict(embeddings())
    )
    assert adapter_of(FACTS | {"loss": "supcon"}).predicts == ()


def test_of_two_predictors_of_classes_the_first_by_name_predicts_before_and_after_loading(tmp_path):
    adapter = adapter_of(FACTS | {"loss": {"cosface": 1, "arcface": 1}})
    save_adapter(tmp_path / "best.safetensors", adapter)
    loaded = read_adapter(tmp_path / "best.safetensors")
    expected = adapter.predictors["arcface"].predict(embeddings())
    assert torch.equal(adapter.predict("classes", embeddings()), expected)
    assert torch.equal(loaded.predict("classes", embeddings()), expected)


@pytest.mark.parametrize("loss", ["arcface", "proxy_anchor", "cross_entropy", "ccc", "bce"])
def test_predictions_are_in_float32_whatever_the_embeddings_and_autocast(loss):
    adapter = adapter_of(FACTS | {"loss": loss})
    (what,) = adapter.predicts
    half = embeddings().half()
    expected = adapter.predict(what, half.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(adapter.predict(what, half), expected, rtol=0, atol=0)
    assert expected.dtype == torch.float32


USED = """
import sys, torch
from pipeline.adapter.adapter import load_adapter
adapter = load_adapter("a.safetensors", {"backbone": "tiny"})
print(sorted(adapter.predicts), adapter.predict("classes", torch.ones(1, 6)).shape[1])
print([name for name in sys.modules if name.startswith(("pipeline.training", "pytorch_metric_learning"))])
"""


def test_a_checkpoint_is_loaded_and_predicts_without_any_loss(tmp_path):
    save_adapter(tmp_path / "a.safetensors", adapter_of(FACTS | {"loss": {"arcface": 1, "ccc": 1}}))
    command = [sys.executable, "-c", USED]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert ran.stdout.splitlines() == ["['classes', 'va'] 3", "[]"]
