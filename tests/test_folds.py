"""Results over folds: predictions pooled, embeddings compared within each fold."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import adapter_of
from sklearn.metrics import accuracy_score, f1_score
from test_evaluate import CLASSES, FACTS, FEATURES, MADE_BY, SECTION, place, table  # noqa: F401 - a fixture

from pipeline.adapter.adapter import load_adapter, save_adapter
from pipeline.core.params import UserError
from pipeline.core.tables import Labels, of_fold, write_labels
from pipeline.evaluation import baselines, evaluate, files
from pipeline.evaluation.folds import averaged, pooled, together
from pipeline.metrics.measures import MetricOptions, Outputs, Subset, measured
from pipeline.metrics.uncertainty import estimates, group_weights
from pipeline.report import __main__ as report

pytestmark = pytest.mark.usefixtures("undrawn")

FOLDS = 3
OPTIONS = MetricOptions(
    top_k=[1, 2], neighbours=3, most_pairs_of=1000, smoothing="box", width=3, width_aus=3, class_bias=False
)


def folded():
    """The 11 people of ``table`` dealt into three folds."""
    frames = table()
    frames["expression_split"] = "fold"
    return frames.assign(fold=(pd.factorize(frames["group"])[0] % FOLDS).astype("int16"))


def trained(place, seeds=(0, 1), folds=range(FOLDS), **changes):  # noqa: F811
    for fold in folds:
        for seed in seeds:
            folder = place / f"runs/tried/fold_{fold}/seed_{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(10 * fold + seed)
            adapter = adapter_of(FACTS | changes | {"fold": fold})
            adapter.front.fit([FEATURES], "standardise")
            save_adapter(folder / "best.safetensors", adapter, epoch=2)


@pytest.fixture
def cut(place):  # noqa: F811
    write_labels(place / "labels.parquet", Labels(folded(), CLASSES, "by hand"))
    return place


def evaluated(run="runs/tried", labels="labels.parquet", output="out"):
    evaluate.main(["--run", run, "-o", output, "-d", "features.zarr", "--labels", labels])
    return [json.loads(Path(output, f"{name}.json").read_text("utf-8")) for name in ("metrics", "details")]


def alone(place, fold):  # noqa: F811
    """The same fold as a data set's only split, and its adapters as those of a run without folds."""
    write_labels(place / f"{fold}.parquet", of_fold(Labels(folded(), CLASSES, "by hand"), fold))
    for path in place.glob(f"runs/tried/fold_{fold}/seed_*/best.safetensors"):
        seed = int(path.parent.name[5:])
        torch.manual_seed(10 * fold + seed)
        adapter = adapter_of(FACTS)
        adapter.front.fit([FEATURES], "standardise")
        (place / f"runs/{fold}/seed_{seed}").mkdir(parents=True)
        save_adapter(place / f"runs/{fold}/seed_{seed}/best.safetensors", adapter, epoch=2)
    found = evaluated(f"runs/{fold}", f"{fold}.parquet", f"out_{fold}")
    return *found, pd.read_parquet(f"out_{fold}/predictions.parquet")


def test_predictions_of_all_folds_are_scored_as_one_and_embeddings_within_each(cut, capsys):
    trained(cut, seeds=[0])
    metrics, details = evaluated()
    labelled = table()["expression"].notna().sum()
    printed = capsys.readouterr().out
    assert f"tried: scored on {labelled} expression frames of 11 videos (by hand, 3 folds by group)" in printed
    each = [alone(cut, k) for k in range(FOLDS)]
    said = pd.concat([predictions.assign(fold=k) for k, (*_, predictions) in enumerate(each)], ignore_index=True)
    found = pd.read_parquet(cut / "out/predictions.parquet")
    pd.testing.assert_frame_equal(found, said[found.columns], check_dtype=False, rtol=1e-5)
    assert sorted(zip(found["video"], found["frame"], strict=True)) == list(
        table()[["video", "frame"]].itertuples(index=False, name=None)
    )
    scored = said.dropna(subset="truth")
    for suffix in ("", "_smoothed"):
        truth, predicted = scored["truth"], scored[f"predicted{suffix}"]
        f1 = f1_score(truth, predicted, average="macro", labels=CLASSES[:3])
        assert metrics[f"macro_f1{suffix}"] == pytest.approx(f1, abs=1e-9)
        assert metrics[f"accuracy{suffix}"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-9)
        assert f1 != pytest.approx(np.mean([one[f"macro_f1{suffix}"] for one, *_ in each]), abs=1e-3)

    frames = scored["fold"].value_counts().sort_index().to_numpy()
    for name in ("auc_same_different", "gap_same_opposite", "steadiness", "cosine_same"):
        known = [(n, one[name]) for n, (one, *_) in zip(frames, each, strict=True) if one[name] is not None]
        expected = sum(n * value for n, value in known) / sum(n for n, _ in known)
        assert metrics[name] == pytest.approx(expected, abs=1e-9), name
    assert [of["fold"] for of in details["folds"]] == [0, 1, 2]
    for of, (one, *_), n in zip(details["folds"], each, frames, strict=True):
        assert of["metrics"] == pytest.approx(one, nan_ok=True)
        assert of["labelled_frames"] == n
    about = details["about"]
    assert about["folds"] == 3
    assert about["val_split"] == "3 folds by group"
    assert about["val_frames"] == len(scored)
    assert about["val_videos"] == 11
    assert about["frames_scored"] == {"expression": len(scored)}
    cosines = np.ma.masked_invalid([np.array(one["emotions"]["cosines"], dtype=float) for _, one, _ in each])
    expected = np.ma.average(cosines, axis=0, weights=frames).filled(np.nan)
    np.testing.assert_allclose(np.array(details["emotions"]["cosines"], dtype=float), expected, atol=1e-9)
    assert {path.stem for path in (cut / "out/plots").iterdir()} >= {"cosines", "roc", "confusion", "f1", "timeline_1"}


def test_the_tables_say_which_fold_a_video_is_of_and_the_groups_are_all_resampled(cut):
    trained(cut)
    metrics, details = evaluated()
    videos = pd.read_csv(cut / "out/per_video.csv").set_index("video")
    assert videos["fold"].to_dict() == folded().groupby("video")["fold"].first().to_dict()
    found = pd.read_parquet(cut / "out/predictions.parquet").dropna(subset="truth")
    assert videos["frames"][videos["frames"] > 0].to_dict() == found["video"].value_counts().to_dict()
    read = files.read(cut / "out")
    assert sorted(read.groups) == sorted(table()["video"].unique())
    assert details["about"]["seeds"] == 2
    one, two = details["seeds"]
    assert metrics["macro_f1"] == pytest.approx((one["macro_f1"] + two["macro_f1"]) / 2)
    low, high = read.estimates["macro_f1"].interval()
    assert low < metrics["macro_f1"] < high


def test_without_a_classifier_the_nearest_training_frames_of_the_fold_are_pooled(cut):
    trained(cut, seeds=[0], loss="supcon", class_counts=None)
    metrics, _ = evaluated()
    found = pd.read_parquet(cut / "out/predictions.parquet").dropna(subset="truth")
    f1 = f1_score(found["truth"], found["predicted"], average="macro", labels=CLASSES[:3])
    assert metrics["knn_macro_f1"] == pytest.approx(f1, abs=1e-9)
    assert "macro_f1" not in metrics


def test_baselines_are_over_the_same_folds(cut):
    trained(cut, window={"frames": 1}, pooling="centre")
    content = {"evaluate": SECTION, "baselines": {"run": "runs/tried", "smoothings": {"box": [3]}}}
    (cut / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    baselines.main(["-d", "features.zarr", "--labels", "labels.parquet", "-o", "base"])
    details = json.loads((cut / "base/tried_box_3/details.json").read_text("utf-8"))
    evaluated()
    assert (details["about"]["folds"], details["about"]["seeds"], details["about"]["run"]) == (3, 2, "tried_box_3")
    assert files.read(cut / "base/tried_box_3").groups == files.read(cut / "out").groups
    said, single = (pd.read_parquet(cut / f"{f}/predictions.parquet") for f in ("base/tried_box_3", "out"))
    columns = [f"p_{c}" for c in CLASSES]
    np.testing.assert_allclose(said[columns], single[[f"{c}_smoothed" for c in columns]], atol=1e-6)


def test_the_report_says_how_many_folds_there_are(cut):
    trained(cut, seeds=[0])
    evaluated(output="evaluation/tried")
    (cut / "params.yaml").write_text(yaml.safe_dump({"report": {}, "runs": {"tried": {}}}), encoding="utf-8")
    report.main([])
    page = (cut / "report/report.md").read_text(encoding="utf-8")
    assert "(3 folds by group: each frame once, by networks not trained on its group)" in page
    assert "are taken within each fold and averaged" in page


def test_a_run_that_lacks_folds_or_seeds_is_not_evaluated_as_if_it_had_them(cut):
    trained(cut, folds=[0, 2])
    with pytest.raises(UserError, match=r"trained on the folds \[0, 2\], and the labels have the folds \[0, 1, 2\]"):
        evaluated()
    trained(cut, folds=[1], seeds=[0])
    with pytest.raises(UserError, match="does not have the same seeds in each fold: go on with"):
        evaluated()
    write_labels(cut / "labels.parquet", Labels(table(), CLASSES, "by hand"))
    with pytest.raises(UserError, match=r"trained on the folds \[0, 1, 2\], and the labels have one split"):
        evaluated()


# --- the arithmetic


def subset_and_outputs(fold, lengths, seed=0, classes=3, pairs=False):
    """Random frames of videos of some lengths, each its own group, with labels of all tracks, and outputs to them."""
    rng = np.random.default_rng([seed, fold])
    n, video = sum(lengths), np.repeat(np.arange(len(lengths)), lengths)
    label = rng.integers(-1, classes, n)
    va, aus = rng.uniform(-1, 1, (n, 2)), rng.integers(0, 2, (n, 2)).astype(float)
    va[rng.random(n) < 0.2], aus[rng.random(n) < 0.2] = np.nan, np.nan
    frame = np.concatenate([np.arange(k) for k in lengths])
    subset = Subset(
        video, frame, frame, video, label, va, aus,
        [f"{fold}/{v}" for v in range(len(lengths))], [f"{fold}/{v}" for v in range(len(lengths))],
        [f"c{k}" for k in range(classes)], ["au1", "au2"], 1, [(0, 1)], rng.integers(0, classes, 30),
        np.array([[0, n - 1], [1, n - 2]]) if pairs else None,
    )  # fmt: skip
    said = {
        "classes": rng.dirichlet(np.ones(classes), n), "va": rng.uniform(-1, 1, (n, 2)), "aus": rng.random((n, 2)),
    }  # fmt: skip
    return subset, Outputs(rng.standard_normal((n, 4)), rng.standard_normal((30, 4)), said)


def of_folds(all_lengths, **options):
    subsets, outputs = zip(*(subset_and_outputs(k, of, **options) for k, of in enumerate(all_lengths)), strict=True)
    return subsets, outputs, [measured(subset, said, OPTIONS) for subset, said in zip(subsets, outputs, strict=True)]


LENGTHS = [[5, 1, 40], [12, 30], [7, 9, 20, 4]]


def test_valence_and_units_are_scored_on_the_frames_of_all_folds_in_a_row():
    subsets, outputs, seeds = of_folds(LENGTHS)
    measure, _ = pooled(subsets, seeds)
    found = {name: value[0] for name, value in measure(np.ones((1, 9))).items()}
    truth = np.concatenate([subset.va for subset in subsets])
    said = np.concatenate([of_seed.predictions["va"] for of_seed in outputs])
    known = ~np.isnan(truth).any(1)
    for k, name in enumerate(("valence", "arousal")):
        x, y = truth[known, k], said[known, k]
        ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert found[f"ccc_{name}"] == pytest.approx(ccc)
    truth = np.concatenate([subset.aus for subset in subsets])
    said = np.concatenate([of_seed.predictions["aus"] for of_seed in outputs])
    known = ~np.isnan(truth).any(1)
    f1 = [f1_score(truth[known, u], said[known, u] >= 0.5) for u in (0, 1)]
    assert found["au_f1"] == pytest.approx(np.mean(f1))
    label = np.concatenate([subset.label for subset in subsets])
    probe = np.concatenate([result.probe for _, result in seeds])
    assert found["probe_macro_f1"] == pytest.approx(f1_score(label[label >= 0], probe, average="macro"))


def test_what_compares_embeddings_is_the_mean_of_folds_by_the_labelled_frames_that_were_drawn():
    subsets, _, seeds = of_folds(LENGTHS)
    weights = group_weights(9, 40)
    found = pooled(subsets, seeds)[0](weights)
    names = [
        "auc_same_different",
        "gap_same_opposite",
        "cosine_same",
        "map_at_r",
        "steadiness",
        "best_f1_same_opposite",
    ]
    for name in names:
        for r, row in enumerate(weights):
            total, frames, start = 0.0, 0, 0
            for subset, (measure, _) in zip(subsets, seeds, strict=True):
                of = row[start : start + len(subset.groups)]
                start += len(subset.groups)
                value = measure(of[None])[name][0]
                drawn = sum(of[group] for group, label in zip(subset.group, subset.label, strict=True) if label >= 0)
                if drawn and not np.isnan(value):
                    total, frames = total + drawn * value, frames + drawn
            assert found[name][r] == pytest.approx(total / frames if frames else np.nan, nan_ok=True), name


def test_recall_over_folds_is_that_of_all_frames_where_all_are_asked():
    subsets, _, seeds = of_folds([[40, 40, 30], [50, 40]])
    once = [measure(np.ones((1, len(subset.groups)))) for subset, (measure, _) in zip(subsets, seeds, strict=True)]
    hits = sum(m["recall_at_1"][0] * (p.label >= 0).sum() for p, m in zip(subsets, once, strict=True))
    asked = sum((subset.label >= 0).sum() for subset in subsets)
    assert pooled(subsets, seeds)[0](np.ones((1, 5)))["recall_at_1"][0] == pytest.approx(hits / asked)


def test_a_fold_that_was_not_drawn_says_nothing():
    subsets, _, seeds = of_folds(LENGTHS)
    only = np.array([[0, 0, 0, 1, 1, 0, 0, 0, 0]])
    found, expected = pooled(subsets, seeds)[0](only), seeds[1][0](only[:, 3:5])
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9, err_msg=name)


def test_intervals_of_folds_are_as_wide_as_those_of_one_split_with_as_many_groups():
    """Predictions that know nothing of their fold: the folds are one split cut in pieces."""
    subsets, outputs, seeds = of_folds([[20] * 10] * 4)
    whole = together(subsets)
    said = {what: np.concatenate([a.predictions[what] for a in outputs]) for what in outputs[0].predictions}
    of_one = measured(whole, Outputs(None, None, said), OPTIONS)[0]
    weights = group_weights(40, 200)
    one, cut_up = estimates("x", [of_one], weights), estimates("x", [pooled(subsets, seeds)[0]], weights)
    assert set(one) < set(cut_up)
    for name, estimate in one.items():
        assert cut_up[name].value == pytest.approx(estimate.value, nan_ok=True)
        np.testing.assert_allclose(cut_up[name].resampled, estimate.resampled, err_msg=name)


def test_a_fold_without_a_class_is_pooled_with_those_that_have_one():
    subsets, outputs, _ = of_folds(LENGTHS)
    subsets = [subsets[0], dataclasses.replace(subsets[1], label=np.full(42, -1)), subsets[2]]
    seeds = [measured(subset, said, OPTIONS) for subset, said in zip(subsets, outputs, strict=True)]
    measure, result = pooled(subsets, seeds)
    found = measure(np.ones((1, 9)))
    label = np.concatenate([subset.label for subset in subsets])
    has = label >= 0
    assert np.isnan(result.predictions["knn"][""][46:88]).all()
    knn = result.predictions["knn"][""][has].argmax(1)
    assert found["knn_macro_f1"][0] == pytest.approx(f1_score(label[has], knn, average="macro"))
    kept = [measured(subset, said, OPTIONS)[0] for subset, said in ((subsets[0], outputs[0]), (subsets[2], outputs[2]))]
    frames = [(subsets[k].label >= 0).sum() for k in (0, 2)]
    values = [m(np.ones((1, size)))["auc_same_different"][0] for m, size in zip(kept, (3, 4), strict=True)]
    assert found["auc_same_different"][0] == pytest.approx(np.average(values, weights=frames))


def test_pairs_are_those_of_all_folds_with_their_own_rows():
    subsets, _, _ = of_folds(LENGTHS, pairs=True)
    whole = together(subsets)
    for k, (start, subset) in enumerate(zip((0, 46, 88), subsets, strict=True)):
        own = whole.pairs[2 * k : 2 * k + 2]
        np.testing.assert_array_equal(own - start, subset.pairs)
        np.testing.assert_array_equal(whole.va[own], subset.va[subset.pairs])


def test_means_leave_out_what_is_not_known():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    np.testing.assert_array_equal(averaged(values, np.array([[3], [1]])), [1.5, 5.0, np.nan])


def test_a_test_part_is_scored_by_the_networks_of_each_fold_as_by_further_seeds(place, capsys):  # noqa: F811
    """Against each fold alone as an ordinary split: the means over all networks."""
    frames = folded()
    test = frames["video"] >= "v08"
    frames = frames.assign(
        expression_split=frames["expression_split"].mask(test, "test"), fold=frames["fold"].astype("Int16").mask(test)
    )
    write_labels(place / "labels.parquet", Labels(frames, CLASSES, "by hand"))
    trained(place)
    evaluate.main(
        ["--run", "runs/tried", "-o", "out", "-d", "features.zarr", "--labels", "labels.parquet", "--part", "test"]
    )
    said = "frames of 3 test videos (by hand, official test part, by the networks of each of 3 folds)"
    assert said in capsys.readouterr().out
    details = json.loads(Path("out/details.json").read_text("utf-8"))
    assert details["about"]["seeds"] == len(details["seeds"]) == 6
    assert "folds" not in details
    for fold in range(FOLDS):
        write_labels(place / "one.parquet", of_fold(Labels(frames, CLASSES, "by hand"), fold))
        for seed in (0, 1):
            source = place / f"runs/tried/fold_{fold}/seed_{seed}/best.safetensors"
            adapter = load_adapter(source, MADE_BY)
            del adapter.facts["fold"]
            (place / f"runs/{fold}/seed_{seed}").mkdir(parents=True)
            save_adapter(place / f"runs/{fold}/seed_{seed}/best.safetensors", adapter)
        flags = ["-o", f"out_{fold}", "-d", "features.zarr", "--labels", "one.parquet", "--part", "test"]
        evaluate.main(["--run", f"runs/{fold}", *flags])
        alone = json.loads(Path(f"out_{fold}/details.json").read_text("utf-8"))["seeds"]
        for one, expected in zip(details["seeds"][2 * fold : 2 * fold + 2], alone, strict=True):
            assert one == pytest.approx(expected, nan_ok=True)
