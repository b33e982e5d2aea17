"""One line of the catalogue puts a metric everywhere: metrics.json, the tables, the report, TensorBoard, select_by."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_evaluate import MADE_BY, evaluated, place, run  # noqa: F401 - a fixture
from test_watch import Plain, Rows, frame_set
from torch import nn

from pipeline.adapter.adapter import Adapter, load_adapter
from pipeline.adapter.sources import open_inputs
from pipeline.core.emotions import opposites
from pipeline.core.frame_set import PARTS
from pipeline.core.frame_set import frame_set as frame_set_of
from pipeline.core.store import FeatureStore
from pipeline.core.tables import read_labels
from pipeline.metrics import protocol
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.grouped import Measure, summed, sums_by
from pipeline.metrics.metric import PLACES, SOURCES, Catalogue, Metric
from pipeline.report import __main__ as report
from pipeline.training.board import Board
from pipeline.training.watch import Watched, watched_frames


def mean_recall(labels, predicted, groups, classes) -> Measure:
    """Measures ``mean_recall`` over the classes that are true, as somebody would add it to ``protocol``."""
    num_groups = int(groups.max(initial=-1)) + 1
    known = labels >= 0
    labels, predicted, groups = labels[known], predicted[known], groups[known]
    right = labels == predicted
    hits, true = (sums_by(groups[rows], labels[rows], num_groups, len(classes)) for rows in (right, labels >= 0))

    def measure(weights):
        with np.errstate(invalid="ignore"):
            return {"mean_recall": np.nanmean(summed(weights, hits) / summed(weights, true), axis=1)}

    return measure


LINE = Metric(
    "mean recall", "higher", "protocol.mean_recall", "classes knn", report="classes", headline="classes",
    terminal="classes", board="classes",
)  # fmt: skip


@pytest.fixture
def added(monkeypatch):
    """One function in a module of metrics, and one line in the catalogue."""
    monkeypatch.setattr(protocol, "mean_recall", mean_recall, raising=False)
    monkeypatch.setitem(METRICS._lines, "mean_recall", LINE)


def test_a_function_and_a_line_are_all_that_an_evaluation_and_the_report_need(place, added, capsys):  # noqa: F811
    run(place, seeds=[0])
    metrics, details = evaluated(place)
    said = table_of_predictions(place)
    truth, predicted = said["truth"], said["predicted"]
    assert metrics["mean_recall"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert {"knn_mean_recall"} == {name for name in metrics if "mean_recall" in name} - {"mean_recall"}
    assert details["estimates"]["mean_recall"]["low"] < metrics["mean_recall"]
    headline = json.loads(Path("out/headline.json").read_text("utf-8"))
    assert headline["mean_recall"] == metrics["mean_recall"]
    assert "mean_recall" in Path("out/per_video.csv").read_text("utf-8").splitlines()[0].split(",")
    assert f"mean_recall                  {metrics['mean_recall']:.3f}" in capsys.readouterr().out
    Path("evaluation").mkdir()
    Path("out").rename("evaluation/tried")
    Path("params.yaml").write_text(yaml.safe_dump({"report": {}, "runs": {"tried": {}}}), encoding="utf-8")
    report.main([])
    page = Path("report/report.md").read_text("utf-8")
    assert "| classifier mean recall |" in page
    assert "kNN mean recall" not in page  # the line shows that nowhere
    assert "mean_recall_low" in Path("report/metrics.csv").read_text("utf-8").splitlines()[0].split(",")


def table_of_predictions(place):  # noqa: F811
    return pd.read_parquet(place / "out/predictions.parquet").dropna(subset="truth")


class Classifier(nn.Module):
    """Predicts the embeddings themselves as logits of classes."""

    by_what = property(lambda self: {"classes": self})

    def predict(self, embeddings):
        return embeddings


def test_the_same_line_is_a_curve_of_tensorboard(tmp_path, added):
    rng = np.random.default_rng(0)
    features, label = rng.standard_normal((30, 4)).astype(np.float32), rng.integers(0, 4, 30)
    frames = frame_set(label, np.arange(30))
    centres = watched_frames(frames, "val", 20)
    watched = Watched(frames, centres, torch.from_numpy(centres)[:, None], [])
    scores, _, _ = watched.look(Adapter(nn.Identity(), Plain(), Classifier(), {}), Rows(features))
    with Board(tmp_path, {"model": "mlp"}) as board:
        board.scalars(scores, "val", 3, len(centres))
    events = EventAccumulator(str(tmp_path)).Reload()
    expected = balanced_accuracy_score(label[centres], features[centres].argmax(1))
    assert [e.value for e in events.Scalars("mean_recall/val")] == pytest.approx([expected])
    description = events.summary_metadata["mean_recall/val"].summary_description
    assert description.startswith(
        "classifier mean recall, higher is better. Measured on those of 20 evenly spaced frames of"
    )


def test_where_all_frames_are_watched_tensorboard_has_the_numbers_of_the_evaluation(place):  # noqa: F811
    run(place, seeds=[0])
    metrics, _ = evaluated(place, "--most-pairs-of", "4000")
    adapter = load_adapter(Path("runs/tried/seed_0/best.safetensors"), MADE_BY)
    store = FeatureStore(place / "features.zarr")
    frames = frame_set_of(store, read_labels(place / "labels.parquet"), test_split=None, select_split=0.2, split_seed=0)
    centres = watched_frames(frames, "val", 1000)
    assert len(centres) == (frames.part == PARTS.index("val")).sum()
    rows = torch.from_numpy(adapter.window.over(frames.video, frames.frame).centred(centres))
    source = open_inputs(store, frames.row, adapter.front, torch.device("cpu"))
    watched = Watched(frames, centres, rows, opposites(["plutchik"], frames.classes))
    scores, _, _ = watched.look(adapter, source)
    assert set(scores) == {"auc_same_different", "macro_f1", "cosine_same", "cosine_different", "cosine_opposite"}
    for name, value in scores.items():
        # The AUC of an evaluation, which is resampled, is counted in bins.
        assert metrics[name] == pytest.approx(value, abs=2e-4 if name.startswith("auc") else 1e-5), name


def test_every_number_of_an_evaluation_has_a_line_and_every_line_a_function(place):  # noqa: F811
    run(place, seeds=[0])
    _, details = evaluated(place)
    for name in details["estimates"]:
        entry = METRICS.entry(name)
        assert entry.metric.better in ("higher", "lower", "neither")
    for metric in METRICS.values():
        module, _, function = metric.function.rpartition(".")
        assert callable(getattr(import_module(f"pipeline.metrics.{module}"), function))
        assert metric.title


def test_names_are_the_sources_affixes_and_the_lines_name():
    assert METRICS.entry("knn_macro_f1_smoothed").title == "kNN macro-F1, smoothed"
    assert METRICS.entry("pair_auc_same_different").title == "pair head's AUC same/different"
    assert METRICS.entry("f1_Anger_smoothed").source == SOURCES["classes_smoothed"]
    assert METRICS.entry("recall_at_5").metric is METRICS["recall_at_{k}"]
    assert METRICS.entry("recall_at_1").metric is METRICS["recall_at_1"]
    assert METRICS.entry("tpr_at_fpr_1e-2_same_opposite").metric.better == "higher"
    with pytest.raises(KeyError, match="'macro_f2'"):
        METRICS.entry("macro_f2")


def test_what_select_by_may_be_is_on_tensorboard_too():
    assert set(METRICS.shown("select")) <= set(METRICS.shown("board"))


def test_a_line_of_an_unknown_source_or_shown_of_one_that_it_is_not_measured_of_is_refused():
    with pytest.raises(ValueError, match=r"of \['clases'\], and sources are"):
        Metric("x", "higher", "protocol.expression", "clases")
    for shown in PLACES:
        with pytest.raises(ValueError, match=rf"not measured of \['knn'\], which {shown} names"):
            Metric("x", "higher", "protocol.expression", "classes", **{shown: "knn"})


def test_a_function_that_takes_what_a_source_has_not_is_named():
    catalogue = Catalogue({"ccc": Metric("CCC", "higher", "protocol.valence_arousal", "classes")})
    groups = np.zeros(3, dtype=int)
    with pytest.raises(TypeError, match=r"protocol\.valence_arousal takes \['truth'\], and source 'classes' has"):
        catalogue.measure({"classes": {"labels": groups, "predicted": groups, "groups": groups}})
