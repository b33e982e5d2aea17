"""What a macro-F1 hangs on, beside a slow loop with scikit-learn; and in the files, the picture and the report."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score
from test_evaluate import CLASSES, evaluated, place, run  # noqa: F401 - a fixture

from pipeline.evaluation import plots
from pipeline.evaluation.costly import costs_of, named
from pipeline.metrics import costs
from pipeline.metrics.costs import gain_if_right, without_each
from pipeline.metrics.measures import SeedResult, Subset

RNG = np.random.default_rng(0)


def made(num_groups=9, n=400, num_classes=5):
    """Class 4 is in the last group alone; -1 has no label; group 3 has no labelled frame."""
    groups = np.sort(RNG.integers(0, num_groups, n))
    labels = RNG.integers(-1, num_classes - 1, n)
    labels[groups == num_groups - 1] = num_classes - 1
    labels[groups == 3] = -1
    predicted = np.where(RNG.random(n) < 0.5, np.maximum(labels, 0), RNG.integers(0, num_classes, n))
    return labels, predicted, groups


def macro_f1(labels, predicted):
    return f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0)


@pytest.mark.parametrize("at_once", [2, 4096])
def test_the_score_without_each_group_is_that_of_the_other_frames(at_once, monkeypatch):
    monkeypatch.setattr(costs, "AT_ONCE", at_once)
    labels, predicted, groups = made()
    found = without_each(labels, predicted, groups, 5)
    for group in range(9):
        others = (groups != group) & (labels >= 0)
        assert found[group] == pytest.approx(macro_f1(labels[others], predicted[others])), group
    assert found[3] == pytest.approx(macro_f1(labels[labels >= 0], predicted[labels >= 0]))


def test_one_group_alone_leaves_nothing():
    assert np.isnan(without_each(np.array([0, 1]), np.array([0, 0]), np.array([0, 0]), 2)).all()


def test_a_confusion_costs_what_is_gained_when_its_frames_are_right():
    labels, predicted, groups = made()
    labels[labels == 2] = 1  # class 2 is only predicted
    known = labels >= 0
    labels, predicted, groups = labels[known], predicted[known], groups[known]
    before, matrix = macro_f1(labels, predicted), confusion_matrix(labels, predicted, labels=range(5)).astype(float)
    cells = [(i, j) for i in range(5) for j in range(5) if i != j]
    true, said = np.array(cells).T
    found = gain_if_right(matrix, true, said, matrix[true, said])
    of_group = np.array([((labels == i) & (predicted == j) & (groups == 1)).sum() for i, j in cells])
    found_of_group = gain_if_right(matrix, true, said, of_group)
    for k, (i, j) in enumerate(cells):
        for gain, chosen in ((found[k], groups >= 0), (found_of_group[k], groups == 1)):
            righted = np.where((labels == i) & (predicted == j) & chosen, labels, predicted)
            assert gain == pytest.approx(macro_f1(labels, righted) - before, abs=1e-12), (i, j)


# --- in an evaluation


def subset_of(labels, groups):
    """A video for each half of a group."""
    n, names = len(labels), [f"g{g}" for g in range(groups.max() + 1)]
    video = 2 * groups + np.arange(n) % 2
    order = np.argsort(video, kind="stable")
    return order, Subset(
        video=video[order], frame=np.arange(n), number=np.arange(n), group=groups[order], label=labels[order],
        va=np.full((n, 2), np.nan), aus=np.zeros((n, 0)), videos=[f"{g}_{side}" for g in names for side in "ab"],
        groups=names, classes=list("abcde"), au_names=[], step=1, opposites=[], gallery_label=np.zeros(0, dtype=int),
    )  # fmt: skip


def results_of(predicted):
    return [SeedResult({"classes": {"": np.eye(5)[codes]}}, None) for codes in predicted]


def test_the_groups_and_confusions_that_move_the_score_most_are_named_first():
    labels, predicted, groups = made()
    order, subset = subset_of(labels, groups)
    seeds = [predicted[order], made(n=400)[1][order]]
    known = subset.label >= 0
    found = named(subset, costs_of(subset, results_of(seeds)))
    score = np.mean([macro_f1(subset.label[known], codes[known]) for codes in seeds])
    assert found["macro_f1"] == pytest.approx(score)
    assert len(found["groups"]) == 8  # group 3, which has no label, moves nothing
    moves = [abs(of["without"] - score) for of in found["groups"]]
    assert moves == sorted(moves, reverse=True)
    for of in found["groups"]:
        inside = (subset.group == int(of["group"][1:])) & known
        others = known & ~inside
        without = np.mean([macro_f1(subset.label[others], codes[others]) for codes in seeds])
        assert of["without"] == pytest.approx(without)
        assert (of["videos"], of["frames"]) == ([f"{of['group']}_{side}" for side in "ab"], inside.sum())
        assert of["leave"] == (["e"] if of["group"] == "g8" else [])
        worst = ["abcde".index(of["worst"][name]) for name in ("true", "predicted")]
        counts = [((subset.label == worst[0]) & (codes == worst[1]) & inside).sum() for codes in seeds]
        assert of["worst"]["frames"] == np.mean(counts)
    first = found["confusions"][0]
    cell = ["abcde".index(first[name]) for name in ("true", "predicted")]
    where = [(subset.label == cell[0]) & (codes == cell[1]) for codes in seeds]
    assert first["frames"] == np.mean([at.sum() for at in where])
    in_groups = np.mean([np.bincount(subset.group[at], minlength=9) for at in where], axis=0)
    assert (first["in"], first["mostly_in"][0][1]) == ((in_groups > 0).sum(), in_groups.max())
    gains = [of["gain"] for of in found["confusions"]]
    assert gains == sorted(gains, reverse=True)
    figure = plots.costs(found, "title")
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert len(words) == len(found["groups"]) + len(found["confusions"])
    assert words[0].startswith(f"{found['groups'][0]['without']:.3f} without {found['groups'][0]['frames']} frames")
    json.dumps(found, allow_nan=False)


def test_single_pictures_and_one_group_cost_nothing_by_themselves():
    labels = np.array([0, 1, 2, 3])
    for groups in (np.arange(4), np.zeros(4, dtype=int)):
        order, subset = subset_of(labels, groups)
        assert costs_of(subset, results_of([labels[order]])) is None


def test_an_evaluation_has_them_in_its_details_its_table_of_videos_and_a_picture(place):  # noqa: F811
    run(place, seeds=[0])
    _, details = evaluated(place)
    p = pd.read_parquet(place / "out/predictions.parquet").dropna(subset="truth")
    assert details["costs"]["macro_f1"] == pytest.approx(details["estimates"]["macro_f1"]["value"])
    table = pd.read_csv(place / "out/per_video.csv").set_index("video")
    for video, without in table["macro_f1_without_group"].items():
        truth, said = (p[p["video"] != video][name].map(CLASSES.index) for name in ("truth", "predicted"))
        assert without == pytest.approx(macro_f1(truth, said), abs=1e-9)
    assert (place / "out/plots/costs.png").stat().st_size > 10_000
