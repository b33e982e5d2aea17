import base64
import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from pipeline.core.params import UserError
from pipeline.evaluation import files, shown
from pipeline.metrics.catalogue import METRICS
from pipeline.report import __main__ as report
from pipeline.report.content import NUMBERS_OF_A_RUN, as_script, best_seed, content, does

ABOUT = {
    "dataset": "by hand", "backbone": "tiny", "backbone_weights": "random", "input_size": 32, "seeds": 1, "seed": 0,
    "val_split": "official", "train_frames": 30, "val_frames": 12000, "val_videos": 9, "compared": 2000,
    "knn_candidates": 30, "neighbours": 20, "opposites": [["Happiness", "Sadness"]], "commit": "abc123",
    "frames_scored": {"expression": 12000}, "window_stride": None, "class_bias": False, "baseline": False,
    "smoothing": {"kind": "box", "width": 101, "width_aus": 11},
}  # fmt: skip
GROUPS = [f"person {k}" for k in range(9)]
NOISE = np.random.default_rng(0).normal(0, 0.05, 400)  # what groups do to all runs alike
FROZEN = {"auc_same_different": 0.6, "gap_same_opposite": 0.1, "steadiness": 0.8, "knn_flips_per_100": 38.45}
ADAPTER = {"auc_same_different": 0.8, "gap_same_opposite": 0.3, "steadiness": 0.995, "knn_flips_per_100": 4.3}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two evaluated runs: 'frozen', a baseline, and 'adapter', better and of three seeds."""
    monkeypatch.chdir(tmp_path)
    evaluated("frozen", FROZEN, baseline=True)
    evaluated("adapter", ADAPTER, seeds=3)
    named("frozen", "adapter")
    return tmp_path


def evaluated(
    name,
    values,
    own_noise=0.001,
    folder="evaluation",
    groups=GROUPS,
    resamples=400,
    drawn=None,
    seed_values=None,
    costs=None,
    **about,
):
    """As evaluate.py leaves it: each metric moves with the groups as all others do, and a little by itself."""
    rng = np.random.default_rng(len(name))
    place = Path(folder, about.pop("folder_name", name))
    place.mkdir(parents=True, exist_ok=True)
    resampled = {k: v + (NOISE[:resamples] + rng.normal(0, own_noise, resamples)) * v for k, v in values.items()}
    details = {
        "about": ABOUT | {"run": name} | about, "seeds": seed_values or [values], "criterion": None,
        "estimates": {k: {"value": v, "low": None, "high": None} for k, v in values.items()},
    }  # fmt: skip
    details |= {} if costs is None else {"costs": costs}
    (place / "details.json").write_text(json.dumps(details), encoding="utf-8")
    np.savez(place / "resampled.npz", groups=np.array(groups), **{f"metric/{k}": v for k, v in resampled.items()})
    shown.write(place / shown.FILE, drawn if drawn is not None else shown.Shown({}, {"classes": []}, {}))


def named(*runs):
    content = {"report": {}, "runs": {name: {"model": "mlp"} for name in runs}, "train": {"epochs": 1}}
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def table_of_page(place, section):
    page = (place / "report/report.md").read_text(encoding="utf-8")
    part = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert set(cells[1]) == {"---"}
    assert len({len(row) for row in cells}) == 1
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def interval(name, metric):
    low, high = files.read(Path("evaluation", name)).estimates[metric].interval()
    return low, high


def test_the_page_holds_every_run_adapters_first_and_with_intervals(place):
    report.main([])
    adapter, frozen = table_of_page(place, "Results")
    assert adapter["run"] == "adapter (3 seeds)"
    assert frozen["run"] == "baseline: frozen"
    low, high = interval("frozen", "auc_same_different")
    assert frozen["AUC same/different"] == f"0.600 ({low:.3f} to {high:.3f})"
    assert set(adapter) == {"run", "AUC same/different", "cosine same - opposite", "steadiness", "kNN flips/100"}


def test_the_best_is_bold_only_where_it_is_beyond_noise(place):
    evaluated("near", ADAPTER | {"auc_same_different": 0.8001, "knn_flips_per_100": 9.0}, own_noise=0.01)
    named("frozen", "adapter", "near")
    report.main([])
    rows = {row["run"]: row for row in table_of_page(place, "Results")}
    bold = {(run, k) for run, row in rows.items() for k, cell in row.items() if cell.startswith("**")}
    assert bold == {("adapter (3 seeds)", "kNN flips/100")}  # fewer flips are better
    page = (place / "report/report.md").read_text(encoding="utf-8")
    assert "AUC same/different: near is best; within noise of it: adapter." in page
    assert "kNN flips/100: adapter is best; beyond noise of all others, one by one." in page


def test_a_gain_is_over_the_best_baseline_of_each_metric(place):
    evaluated("steady", {"auc_same_different": 0.5, "steadiness": 0.996}, baseline=True, folder_name="baselines/steady")
    report.main([])
    best, adapter = table_of_page(place, "Gains")
    assert best["AUC same/different"] == "frozen: 0.600"
    assert best["steadiness"] == "steady: 0.9960"
    assert adapter["AUC same/different"] == "**+0.200**"
    assert adapter["steadiness"] == "~ -0.0010"
    assert adapter["kNN flips/100"] == "**-34.2**"
    rows = {row["baseline"]: row for row in table_of_page(place, "Against each baseline")}
    assert set(rows) == {"frozen", "steady"}
    assert rows["steady"]["kNN flips/100"] == ""  # it has none


def test_what_is_worse_beyond_noise_is_neither_bold_nor_within_noise(place):
    evaluated("adapter", ADAPTER | {"auc_same_different": 0.4})
    report.main([])
    assert table_of_page(place, "Gains")[1]["AUC same/different"] == "-0.200"


def test_the_criterion_says_how_much_and_not_only_whether(place):
    evaluated("frozen", FROZEN | {"auc_same_opposite": 0.61}, baseline=True)
    evaluated("adapter", ADAPTER | {"gap_same_opposite": -0.3, "auc_same_opposite": 0.43})
    report.main([])
    adapter, frozen = table_of_page(place, "Criterion")
    low, high = interval("frozen", "gap_same_opposite")
    assert frozen["criterion"] == "passed"
    assert frozen["cosine same - opposite"] == f"0.100 ({low:.3f} to {high:.3f})"
    assert frozen["AUC same/opposite"].startswith("0.610 (")
    assert adapter["criterion"] == "failed"
    assert adapter["AUC same/opposite"].startswith("0.430 (")


def sentences(place):
    page = (place / "report/report.md").read_text(encoding="utf-8")
    return page.split("\n\nScored on")[0].split("\n\n")[1:]


def test_the_verdict_says_the_gain_the_criterion_and_the_steadiness_in_three_sentences(place):
    evaluated("frozen", FROZEN | {"auc_same_opposite": 0.61}, baseline=True)
    evaluated("blurred", FROZEN | {"auc_same_opposite": 0.52, "steadiness": 0.996}, own_noise=0.01, baseline=True)
    evaluated("adapter", ADAPTER | {"auc_same_opposite": 0.93}, seeds=3)
    evaluated("worse", ADAPTER | {"auc_same_different": 0.601, "steadiness": 0.9, "gap_same_opposite": -0.1})
    named("frozen", "blurred", "adapter", "worse")
    report.main([])
    gain, criterion, steady = sentences(place)
    difference = files.read(Path("evaluation/adapter")).estimates["auc_same_different"]
    best = files.read(Path("evaluation/frozen")).estimates["auc_same_different"]
    low, high = (difference - best).interval()
    assert gain.startswith("AUC same/different: adapter is the best adapter with 0.800 (")
    assert f", 0.200 ({low:.3f} to {high:.3f}) better than the best baseline, frozen (beyond noise); 1 of 2" in gain
    assert criterion == (
        "Same emotions are on average at least as close as opposite ones in 3 of 4 runs, so passing says little. By "
        "how much: of 100 pairs of the same emotion, 93 are closer than a pair of opposite emotions for adapter, and "
        "61 for frozen (50 is chance)."
    )
    assert steady == (
        "From frame to frame adapter is the steadiest adapter (in parentheses the best baseline): steadiness 0.9950 "
        "(blurred 0.9960), kNN flips/100 4.300 (frozen 38.5)."
    )


def test_the_verdict_on_other_labels_is_of_what_is_measured(place):
    evaluated("frozen", {"ccc": 0.5}, baseline=True)
    evaluated("adapter", {"ccc": 0.3, "au_f1": 0.2})
    report.main([])
    ccc, units = sentences(place)
    assert ccc.startswith("CCC: adapter is the best adapter with 0.300 (")
    assert " worse than the best baseline, frozen (beyond noise); 0 of 1 adapters are better beyond noise." in ccc
    assert units.endswith("; no baseline has this measure.")


def test_baselines_alone_get_no_verdict(place):
    named("frozen")
    report.main([])
    assert sentences(place) == ["Only baselines were evaluated: there is no adapter to judge."]


def test_the_page_says_what_the_numbers_are_of(place):
    report.main([])
    page = (place / "report/report.md").read_text(encoding="utf-8")
    assert page.startswith("# Adapters on by hand, frozen tiny at 32 pixels\n")
    assert "Scored on 12,000 expression frames of 9 validation videos (official split)" in page
    assert "400 resamples of the 9 persons" in page
    assert "Backbone's weights: random. Commit: abc123." in page
    assert "synthetic" not in page
    for name in ("frozen", "adapter"):
        evaluated(name, FROZEN, dataset="synthetic abaw")
    report.main([])
    assert "**The data are synthetic**" in (place / "report/report.md").read_text(encoding="utf-8")


def test_nothing_is_said_of_pairs_where_no_expressions_are_scored(place):
    for name in ("frozen", "adapter"):
        evaluated(name, {"ccc": 0.3}, compared=0, frames_scored={"valence and arousal": 70})
    report.main([])
    page = (place / "report/report.md").read_text(encoding="utf-8")
    assert "Scored on 70 valence and arousal frames" in page
    assert "nearest neighbours" not in page
    assert "cosine(same)" not in page
    assert set(table_of_page(place, "Results")[0]) == {"run", "CCC"}


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses, self.open, self.text, self.names = [], [], "", []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta", "input", "wbr"):
            self.open.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.names += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(place):
    page = Page()
    page.feed((place / "report/index.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_html_page_is_whole_and_needs_nothing_else(place):
    report.main([])
    page = page_of(place)
    assert all(address.startswith("#") for address in page.addresses)
    contents = [address for address in page.addresses if not address.startswith("#compare=")]
    assert len(contents) > 6
    assert {address[1:] for address in contents} <= set(page.names)
    assert {"#compare=adapter&frozen", "#compare=frozen&adapter"} <= set(page.addresses)
    assert len(set(page.names)) == len(page.names)
    text = (place / "report/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=.?https?:|url\(|@import|fetch\(", text)


def test_each_measure_in_the_table_of_the_page_is_explained(place):
    report.main([])
    text = html.unescape((place / "report/index.html").read_text(encoding="utf-8"))
    for name in ADAPTER:
        entry = METRICS.entry(name)
        assert len(entry.metric.says) > 20
        assert f'title="{entry.metric.says} {entry.metric.better.capitalize()} is better."' in text
        assert f"<dt>{entry.title}</dt><dd>{entry.metric.says}" in text


def test_every_measure_of_the_report_has_an_explanation():
    assert [name for name, entry in METRICS.shown("report").items() if not entry.metric.says.endswith(".")] == []


def content_of(*names):
    runs = [files.read(Path("evaluation", name)) for name in names]
    return content(runs, {run.name: shown.read(run.folder) for run in runs}, "frozen")


def test_the_page_has_the_paired_difference_of_any_two_runs(place):
    found = content_of("adapter", "frozen")
    one, other = (files.read(Path("evaluation", name)).estimates for name in ("adapter", "frozen"))
    for name in ADAPTER:
        difference = one[name].resampled - other[name].resampled
        wanted = [one[name].value - other[name].value, *np.quantile(difference, [0.025, 0.975])]
        np.testing.assert_allclose(found["differences"][name]["0,1"], wanted, atol=1e-5)
    assert found["start"] == ["adapter", "frozen"]


def test_a_run_says_what_it_predicts_and_which_seed_is_best(place):
    seeds = [{"auc_same_different": 0.78}, {"auc_same_different": 0.83}, {"auc_same_different": 0.79}]
    evaluated("adapter", ADAPTER | {"ccc": 0.3, "macro_f1": 0.4}, seeds=3, seed=5, seed_values=seeds)
    run, frozen = (files.read(Path("evaluation", name)) for name in ("adapter", "frozen"))
    assert does(run) == ["classes", "VA"]
    assert does(frozen) == []
    assert best_seed(run) == (6, "AUC same/different", 0.83)
    assert best_seed(frozen) is None
    evaluated("adapter", ADAPTER, seeds=3, seed_values=seeds, part="test")
    assert best_seed(files.read(Path("evaluation/adapter"))) is None  # nothing may be chosen on test


def test_faces_stand_in_the_page_once_and_no_more_of_them_than_fit(place, monkeypatch):
    faces = {("v", frame): bytes([frame]) * 30 for frame in range(6)}
    names = {"classes": ["a", "b"], "queries": [["v", 0, 0]], "nearest": [[["v", 1, 0], ["v", 2, 1]]]}
    drawn = shown.Shown({"nearest/cosine": np.array([[0.9, 0.8]])}, names, faces)
    evaluated("frozen", FROZEN, baseline=True, drawn=drawn)
    evaluated("adapter", ADAPTER, drawn=drawn)
    found = content_of("adapter", "frozen")
    assert len(found["faces"]) == 3  # both runs show the same
    assert found["faces_left_out"] == 0
    assert found["runs"][0]["nearest"] == [[[1, 0, "v, frame 1", 0.9], [2, 1, "v, frame 2", 0.8]]]
    assert base64.b64decode(found["faces"][2]) == faces["v", 2]
    monkeypatch.setattr("pipeline.report.content.NUMBERS_OF_A_RUN", 0)
    monkeypatch.setattr("pipeline.report.content.MOST_CHARACTERS", 80)  # of 40 each
    found = content_of("adapter", "frozen")
    assert (len(found["faces"]), found["faces_left_out"]) == (2, 1)
    assert found["runs"][1]["nearest"][0][1][0] is None


def test_the_page_of_thirty_runs_on_long_videos_is_below_four_megabytes(place):
    """Each with strips of 800 columns and a hundred faces of its own."""
    rng, names = np.random.default_rng(0), [f"run {k}" for k in range(30)]
    for name in names:
        faces = {(name, frame): rng.bytes(1700) for frame in range(100)}
        arrays = {"similarity": np.zeros((120, 120), np.int8), "similarity/label": np.zeros(120, int)}
        arrays |= {"points": rng.normal(size=(400, 2)), "points/label": np.zeros(400, int)}
        arrays |= {"worst/predicted": np.zeros(100, int), "worst/share": rng.random(100)}
        for k in range(3):
            arrays |= {f"timeline/{k}/frame": np.arange(800) * 7 + 10_000, f"timeline/{k}/step": np.array(7.0)}
            arrays |= {f"timeline/{k}/{what}": rng.integers(0, 8, 800) for what in ("truth", "predicted")}
            arrays[f"timeline/{k}/near"] = rng.random(800)
        worst = [[name, frame, 0] for frame in range(100)]
        named_so = {"classes": ["a"] * 8, "videos": ["u", "v", "w"], "worst": worst}
        evaluated(name, ADAPTER, drawn=shown.Shown(arrays, named_so, faces))
    named(*names)
    report.main([])
    size = (place / "report/index.html").stat().st_size
    assert 3_000_000 < size < 4_000_000
    found = content_of(*names)
    assert found["faces_left_out"] > 0
    without = len(as_script({**found, "faces": []}))
    assert without < 30 * NUMBERS_OF_A_RUN


def test_runs_with_other_classes_cannot_stand_on_one_page(place):
    for name, classes in (("frozen", ["a", "b"]), ("adapter", ["a", "c"])):
        evaluated(name, FROZEN, drawn=shown.Shown({}, {"classes": classes}, {}))
    with pytest.raises(UserError, match="cannot stand on one page: their classes differ"):
        report.main([])


def test_a_name_is_no_markup(place):
    evaluated("a|b<i>*c*", ADAPTER, folder_name="odd")
    named("frozen", "odd")
    report.main([])
    assert table_of_page(place, "Results")[0]["run"] == r"a\|b\<i>\*c\*"
    assert "a|b<i>*c*" in page_of(place).text


def test_the_terminal_shows_the_table_in_columns(place, capsys):
    report.main([])
    lines = capsys.readouterr().out.splitlines()
    head, adapter, frozen = lines[lines.index("") + 1 :][:3]
    for title, one, two in [("AUC same/different", "0.800 ", "0.600 "), ("kNN flips/100", "4.300", "38.5")]:
        at = head.index(title)
        assert adapter[at:].startswith(one)
        assert frozen[at:].startswith(two)


def test_the_csv_holds_every_metric_unrounded(place):
    evaluated("adapter", ADAPTER | {"recall_at_7": 1 / 3}, seeds=3)
    report.main([])
    with (place / "report/metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["adapter", "frozen"]
    assert (rows["adapter"]["seeds"], rows["adapter"]["baseline"]) == ("3", "0")
    assert rows["frozen"]["baseline"] == "1"
    assert rows["adapter"]["recall_at_7"] == repr(1 / 3)
    assert rows["frozen"]["recall_at_7"] == ""
    low, high = interval("adapter", "steadiness")
    assert (float(rows["adapter"]["steadiness_low"]), float(rows["adapter"]["steadiness_high"])) == (low, high)


def test_the_picture_opens_and_is_not_empty(place):
    report.main([])
    picture = cv2.imread(str(place / "report/runs.png"))
    assert min(picture.shape[:2]) > 200
    assert len(np.unique(picture)) > 20


def test_a_run_that_left_the_parameters_leaves_the_report(place):
    report.main([])
    named("frozen")
    report.main([])
    assert [row["run"] for row in table_of_page(place, "Results")] == ["baseline: frozen"]
    assert "adapter" not in (place / "report/metrics.csv").read_text(encoding="utf-8")
    assert "## Gains" not in (place / "report/report.md").read_text(encoding="utf-8")


def test_a_run_that_was_not_evaluated_is_named(place):
    named("frozen", "adapter", "new")
    with pytest.raises(UserError, match=r"the run 'new' is not evaluated: there is no .*'dvc repro'"):
        report.main([])
    assert not (place / "report").exists()


@pytest.mark.parametrize("name", ["details.json", "resampled.npz", "shown.npz"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"about": {}, "estimates": {"x": 3}, "seeds": []}'])
def test_a_damaged_file_is_one_line(place, name, content):
    (place / "evaluation/adapter" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"adapter/{name} is (damaged|not) .*valuate the run again") as error:
        report.main([])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("runs", [{}, None], ids=["empty", "null"])
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
        ("val_videos", 8, "8 and 9"),
        ("compared", 500, "500 and 2000"),
        ("window_stride", 8, "8 and None"),
        ("smoothing", {"kind": "none"}, "'none'} and .*'box'.*"),
        ("opposites", [], r"\[\] and \[\['Happiness', 'Sadness'\]\]"),
    ],
)
def test_runs_of_other_data_cannot_stand_in_one_table(place, fact, value, words):
    evaluated("adapter", ADAPTER, **{fact: value})
    with pytest.raises(UserError, match=f"the runs adapter and frozen cannot stand in one table: {fact} .*{words}$"):
        report.main([])
    assert not (place / "report").exists()


def test_runs_that_predict_more_kinds_of_labels_stand_in_one_table_and_other_frames_do_not(place):
    evaluated("adapter", ADAPTER, frames_scored={"expression": 12000, "valence and arousal": 800})
    report.main([])
    text = (place / "report/report.md").read_text(encoding="utf-8")
    assert "Scored on 12,000 expression, 800 valence and arousal frames" in text
    evaluated("adapter", ADAPTER, frames_scored={"expression": 1, "valence and arousal": 800})
    with pytest.raises(UserError, match=r"adapter and frozen cannot .*: expression frames scored 1 and 12,000$"):
        report.main([])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": [*GROUPS[:8], "else"]}, "9 and 9 groups, with different names"),
        ({"resamples": 300}, "resamples 300 and 400"),
    ],
)
def test_runs_that_were_resampled_otherwise_are_no_pairs(place, change, words):
    evaluated("adapter", ADAPTER, **change)
    with pytest.raises(UserError, match=words):
        report.main([])


def test_two_runs_of_one_name_are_refused(place):
    evaluated("frozen", FROZEN, folder_name="again")
    named("frozen", "again")
    with pytest.raises(UserError, match="two evaluations are of a run called frozen"):
        report.main([])


def test_runs_may_differ_in_how_they_were_trained(place):
    evaluated("frozen", FROZEN, model="identity", loss="triplet", train_frames=10, commit=None)
    report.main([])
    page = (place / "report/report.md").read_text(encoding="utf-8")
    assert "Commit: abc123, not known (no git)." in page


def test_a_run_without_any_pairs_stands_last(place):
    evaluated("adapter", {k: v for k, v in ADAPTER.items() if not k.startswith("auc")})
    evaluated("other", ADAPTER | {"auc_same_different": 0.3})
    named("adapter", "frozen", "other")
    report.main([])
    assert [row["run"] for row in table_of_page(place, "Results")] == ["other", "adapter", "baseline: frozen"]


def test_other_folders_can_be_given(place):
    evaluated("frozen", FROZEN, folder="elsewhere")
    named("frozen")
    report.main(["-d", "elsewhere", "-o", "out/deep"])
    made = ["index.html", "metrics.csv", "report.md", "runs.png"]
    assert sorted(p.name for p in (place / "out/deep").iterdir()) == made


def test_an_evaluation_that_a_kill_left_half_replaced_is_completed_before_it_is_read(place):
    """The new files are ready, some are in place already: the report takes the new ones, and no old one."""
    folder = place / "evaluation/adapter"
    report.main([])
    wanted = {p.name: p.read_bytes() for p in (place / "report").iterdir()}
    ready = folder / ".evaluation.ready"
    ready.mkdir()
    for name in ("details.json", "resampled.npz"):
        (folder / name).rename(ready / name)
        (folder / name).write_bytes(b"old")
    report.main([])
    assert {p.name: p.read_bytes() for p in (place / "report").iterdir()} == wanted
    assert not ready.exists()


def test_where_nothing_could_be_smoothed_the_report_says_so(place):
    report.main([])
    said = (place / "report/report.md").read_text("utf-8")
    assert "Nothing is smoothed: no frame has another of its video near enough" in said
    for name, values in {"frozen": FROZEN, "adapter": ADAPTER}.items():
        evaluated(name, values | {"macro_f1_smoothed": 0.5}, baseline=name == "frozen")
    report.main([])
    assert "Smoothed: box, 101 frames wide, for action units 11 frames." in (place / "report/report.md").read_text(
        "utf-8"
    )


def test_what_the_user_vouched_for_stands_on_the_page(place):
    said = "crop_source 'loose' there, 'cropped' here"
    evaluated("frozen", FROZEN, baseline=True, vouched={"the adapter": said})
    evaluated("adapter", ADAPTER, seeds=3, vouched={"the adapter": said, "the projection": said})
    report.main([])
    for name in ("report.md", "index.html"):
        page = html.unescape(Path("report", name).read_text(encoding="utf-8"))
        for whose in ("the adapter", "the projection"):
            assert page.count(f"Taken as alike by the user's word (--alike), {whose} and the store: {said}.") == 1


COSTS = {
    "macro_f1": 0.5,
    "unit": "frames",
    "groups": [
        {
            "group": "10-60", "videos": ["10-60_left", "10-60_right"], "frames": 1234, "leave": [], "without": 0.562,
            "worst": {"true": "Fear", "predicted": "Sad|ness", "frames": 812.0, "gain": 0.03},
        },
        {"group": "v7", "videos": ["v7"], "frames": 90, "leave": ["Disgust"], "without": 0.44, "worst": None},
    ],
    "confusions": [
        {
            "true": "Fear", "predicted": "Sad|ness", "frames": 900.0, "gain": 0.041, "in": 5,
            "mostly_in": [["10-60", 812.0], ["v7", 50.0]],
        }
    ],
}  # fmt: skip


def test_the_videos_and_confusions_that_cost_most_are_named_with_the_score_without_them(place):
    evaluated("adapter", ADAPTER, seeds=3, costs=COSTS)
    report.main([])
    of_groups = table_of_page(place, "Videos that cost most")
    assert [list(row.values()) for row in of_groups] == [
        ["adapter", "10-60_left, 10-60_right", "1,234", "0.500", "0.562", "+0.062", "Fear taken for Sad\\|ness (812)"],
        ["adapter", "v7", "90", "0.500", "0.440", "-0.060", "no other group has Disgust"],
    ]
    of_confusions = table_of_page(place, "Confusions that cost most")
    assert [list(row.values()) for row in of_confusions] == [
        ["adapter", "Fear", "Sad\\|ness", "900", "+0.041", "10-60 (812), v7 (50) of 5 groups"]
    ]
    assert "Videos that cost most" in (place / "report/index.html").read_text(encoding="utf-8")
    found = {run["name"]: run.get("costs") for run in content_of("frozen", "adapter")["runs"]}
    assert found == {"frozen": None, "adapter": COSTS}


def test_where_nothing_is_known_to_cost_nothing_is_said(place):
    report.main([])
    assert "cost most" not in (place / "report/report.md").read_text(encoding="utf-8")
