import copy
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from matplotlib import pyplot as plt

from pipeline.evaluation import report
from pipeline.params import UserError

ABOUT = {
    "dataset": "by hand", "backbone": "tiny", "backbone_weights": "random", "input_size": 32, "seeds": 1,
    "val_split": "official", "train_frames": 30, "val_frames": 12000, "val_videos": 9, "pairs_of": 2000,
    "knn_candidates": 30, "opposites": [["Happiness", "Sadness"]],
}  # fmt: skip
ADAPTER = {
    "auc_same_different": 0.8, "auc_same_opposite": None, "gap_same_different": 0.25, "recall_at_1": 0.5,
    "recall_at_5": 0.75, "knn_macro_f1": 0.4, "macro_f1": 0.41, "steadiness": 0.9, "flips_per_100": 12.34,
}  # fmt: skip
FROZEN = {k: v for k, v in ADAPTER.items() if k != "macro_f1"} | {"auc_same_different": 0.6, "flips_per_100": 3.21}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two evaluated runs: 'frozen', one seed and no classifier, and 'adapter', better and of three seeds."""
    monkeypatch.chdir(tmp_path)
    evaluated("frozen", FROZEN)
    evaluated("adapter", ADAPTER, seeds=3, deviation=0.0125)
    named("frozen", "adapter")
    yield tmp_path
    plt.close("all")


def evaluated(name, mean, deviation=None, folder="evaluation", **about):
    details = {
        "about": ABOUT | {"run": name} | about,
        "mean": mean,
        "deviation": {metric: None if value is None else deviation for metric, value in mean.items()},
    }
    Path(folder, name).mkdir(parents=True, exist_ok=True)
    Path(folder, name, "details.json").write_text(json.dumps(details), encoding="utf-8")


def named(*runs):
    content = {"report": {}, "runs": {name: {"model": "mlp"} for name in runs}, "train": {"epochs": 1}}
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def table_of_page(place):
    page = (place / "report/report.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set(cells[1]) == {"---"}
    assert {len(row) for row in cells} == {9}
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_the_page_holds_every_run_with_the_best_one_first(place):
    report.main([])
    assert table_of_page(place) == [
        {
            "run": "adapter (3 seeds)", "AUC same/different": "0.800 ± 0.013", "AUC same/opposite": "",
            "cosine gap": "0.250 ± 0.013", "recall@1": "0.500 ± 0.013", "kNN macro-F1": "0.400 ± 0.013",
            "classifier macro-F1": "0.410 ± 0.013", "steadiness": "0.900 ± 0.013", "flips/100": "12.3 ± 0.0",
        },
        {
            "run": "frozen", "AUC same/different": "0.600", "AUC same/opposite": "", "cosine gap": "0.250",
            "recall@1": "0.500", "kNN macro-F1": "0.400", "classifier macro-F1": "", "steadiness": "0.900",
            "flips/100": "3.210",
        },
    ]  # fmt: skip


def test_the_page_says_what_the_numbers_are_of(place):
    report.main([])
    page = (place / "report/report.md").read_text(encoding="utf-8")
    assert page.startswith("# Adapters on by hand, frozen tiny at 32 pixels\n")
    assert "12,000 validation frames of 9 videos; pairs of 2,000 and neighbours among 30 evenly" in page
    assert "![all runs](runs.png)" in page


def test_the_terminal_shows_the_same_table_in_columns(place, capsys):
    report.main([])
    lines = capsys.readouterr().out.splitlines()
    head, adapter, frozen = lines[lines.index("") + 1 :][:3]
    for title, one, two in [("AUC same/different", "0.800 ± 0.013", "0.600"), ("flips/100", "12.3 ± 0.0", "3.210")]:
        at = head.index(title)
        assert adapter[at:].startswith(one)
        assert frozen[at:].startswith(two)


def test_the_csv_holds_every_metric_unrounded(place):
    report.main([])
    with (place / "report/metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["adapter", "frozen"]
    assert set(rows["frozen"]) == {"run", "seeds"} | {c for m in ADAPTER for c in (m, f"{m}_deviation")}
    for name, mean, deviation in [("adapter", ADAPTER, 0.0125), ("frozen", FROZEN, None)]:
        for metric in ADAPTER:
            value = mean.get(metric)
            assert rows[name][metric] == ("" if value is None else repr(value))
            assert rows[name][f"{metric}_deviation"] == ("" if value is None or deviation is None else repr(deviation))
    assert (rows["adapter"]["seeds"], rows["frozen"]["seeds"]) == ("3", "1")


def test_the_picture_opens_and_is_not_empty(place):
    report.main([])
    picture = cv2.imread(str(place / "report/runs.png"))
    assert min(picture.shape[:2]) > 200
    assert len(np.unique(picture)) > 20


def test_the_figure_has_a_panel_for_each_metric_that_any_run_has(place):
    runs = [json.loads((place / f"evaluation/{n}/details.json").read_text("utf-8")) for n in ("adapter", "frozen")]
    panels = [axis for axis in report.figure(runs, "title").axes if axis.axison]
    titles = [axis.get_title() for axis in panels]
    assert titles == [f"{t} ({b} is better)" for m, (t, b) in report.COLUMNS.items() if m != "auc_same_opposite"]
    dots = [[c.lines[0].get_xydata().tolist() for c in axis.containers] for axis in panels]
    assert dots[titles.index("AUC same/different (higher is better)")] == [[[0.8, 0]], [[0.6, 1]]]
    assert dots[titles.index("classifier macro-F1 (higher is better)")] == [[[0.41, 0]]]  # 'frozen' has none
    bars = panels[0].containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bars, [[0.7875, 0], [0.8125, 0]])


def test_a_run_that_left_the_parameters_leaves_the_report(place):
    report.main([])
    named("frozen")
    report.main([])
    assert [row["run"] for row in table_of_page(place)] == ["frozen"]
    assert "adapter" not in (place / "report/metrics.csv").read_text(encoding="utf-8")


def test_a_run_that_was_not_evaluated_is_named(place):
    named("frozen", "adapter", "new")
    with pytest.raises(UserError, match=r"the run 'new' is not evaluated: there is no .*'dvc repro'"):
        report.main([])
    assert not (place / "report").exists()


@pytest.mark.parametrize("runs", [[], None], ids=["empty", "null"])
def test_a_report_on_no_runs_is_refused(place, runs):
    (place / "params.yaml").write_text(yaml.safe_dump({"report": {}, "runs": runs or {}}), encoding="utf-8")
    with pytest.raises(UserError, match="names no runs"):
        report.main([])


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("dataset", "abaw", "'abaw' and 'by hand'"),
        ("backbone", "huge", "'huge' and 'tiny'"),
        ("backbone_weights", "timm", "'timm' and 'random'"),
        ("input_size", 224, "224 and 32"),
        ("val_split", "0.25 of the groups, drawn with seed 1", "seed 1' and 'official'"),
        ("val_frames", 11999, "11999 and 12000"),
        ("val_videos", 8, "8 and 9"),
        ("pairs_of", 500, "500 and 2000"),
        ("opposites", [], r"\[\] and \[\['Happiness', 'Sadness'\]\]"),
    ],
)
def test_runs_of_other_data_cannot_stand_in_one_table(place, fact, value, words):
    evaluated("frozen", FROZEN, **{fact: value})
    with pytest.raises(UserError, match=f"the runs frozen and adapter cannot stand in one table: {fact} .*{words}$"):
        report.main([])
    assert not (place / "report").exists()


def test_runs_may_differ_in_how_they_were_trained(place):
    evaluated("frozen", FROZEN, model="identity", loss="triplet", train_frames=10)
    report.main([])
    assert len(table_of_page(place)) == 2


def test_a_run_without_any_pairs_stands_last(place):
    mean = copy.deepcopy(ADAPTER) | {"auc_same_different": None}
    evaluated("adapter", mean, seeds=3, deviation=0.01)
    report.main([])
    assert [row["run"] for row in table_of_page(place)] == ["frozen", "adapter (3 seeds)"]


def test_other_folders_can_be_given(place):
    evaluated("frozen", FROZEN, folder="elsewhere")
    named("frozen")
    report.main(["-i", "elsewhere", "-o", "out/deep"])
    assert sorted(p.name for p in (place / "out/deep").iterdir()) == ["metrics.csv", "report.md", "runs.png"]
