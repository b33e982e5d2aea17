import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from conftest import ROOT, adapter_of, draw_folder

import extract
from pipeline.adapter.adapter import save_adapter
from pipeline.core.files import digest_of, write_json
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import ABAW_AUS, ABAW_CLASSES, Labels, write_labels
from pipeline.submission import predict

MADE_BY = {"backbone": "tiny", "input_size": 32}
# A late start, gaps, one frame alone, every frame; and one that the list does not name.
FRAMES = {"a": [2, 3, 5, 9], "b": [4], "c": list(range(1, 41)), "unlisted": [1, 2, 3]}
LISTED = {"c": 40, "a": 11, "ghost": 3, "b": 5}
KEYS = pd.DataFrame([(v, f) for v, of in FRAMES.items() for f in of], columns=["video", "frame"])
FEATURES = np.random.default_rng(0).standard_normal((len(KEYS), 4)).astype(np.float16)
CLASSES = sorted(ABAW_CLASSES)  # as a reader of class folders has them: in another order
AUS = ["au26", "au9", *ABAW_AUS[:-1]]  # one more than ABAW has
FACTS = {
    "model": "identity", "loss": {"cross_entropy": 1, "ccc": 1, "bce": 1}, "sampler": "balanced", "num_features": 4,
    "num_components": None, "embedding_size": 4, "dropout": 0.0, "classes": CLASSES, "temperature": 15.0,
    "margin": None, "window": {"frames": 1, "step": 1}, "pooling": "mean", "test_split": None, "select_split": 0.5,
    "split_seed": 0, "made_by": MADE_BY, "tracks": ["expression", "va", "aus"], "model_options": {},
    "loss_options": {}, "class_counts": [5] * 8, "au_names": AUS, "num_aus": 13,
}  # fmt: skip


def untrained(seed, **changes):
    torch.manual_seed(seed)
    return adapter_of(FACTS | changes)


def run(place, seeds=(0,), **changes):
    """Adapters as train.py would leave them, of untrained weights."""
    for seed in seeds:
        (place / f"run/seed_{seed}").mkdir(parents=True, exist_ok=True)
        save_adapter(place / f"run/seed_{seed}/best.safetensors", untrained(seed, **changes), epoch=2)


def store(path, keys, values, made_by=MADE_BY):
    with StoreWriter(path, made_by, {"original": 4}, chunk_rows=16) as writer:
        for start in range(0, len(keys), 16):
            writer.write(keys[start : start + 16].assign(size=1), {"original": values[start : start + 16]})


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shuffled = np.random.default_rng(1).permutation(len(KEYS))
    store(tmp_path / "data/features.zarr", KEYS.iloc[shuffled], FEATURES[shuffled])
    Path("params.yaml").write_text("evaluate: {frames: data/frames.parquet}  # is not meant\n", encoding="utf-8")
    lines = [f"{video}/{frame:05d}.jpg,\n" for video, most in LISTED.items() for frame in range(1, most + 1)]
    Path("list.txt").write_text("image_location,whatever\n" + "".join(lines), encoding="utf-8")
    return tmp_path


def predicted(*more, run="run", out="out"):
    """The fields of the lines of predictions.txt, by the name of the frame, in their order."""
    predict.main(["--run", run, "--list", "list.txt", "-o", out, "--device", "cpu", "--most-extrapolated", "1", *more])
    lines = Path(out, "predictions.txt").read_text().splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[1:] for line in lines}


def logits(what, seed=0, features=FEATURES, **changes):
    """By hand, for window 1 and model 'identity': the loss's linear map of each row of features."""
    adapter = untrained(seed, **changes)
    with torch.inference_mode():
        return adapter.predict(what, torch.from_numpy(features).float()).double().numpy()


def on_all(values):
    """Values (n, C) of KEYS on frames 1 to the listed number, by video: np.interp, which holds its ends."""
    every = {}
    for video, most in LISTED.items():
        mine = (KEYS["video"] == video).to_numpy()
        if mine.any():
            wanted = np.arange(1, most + 1)
            every[video] = np.stack([np.interp(wanted, KEYS["frame"][mine], x) for x in values[mine].T], axis=1)
    return every


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_video(found, video):
    return [fields for name, fields in found.items() if name.startswith(f"{video}/")]


@pytest.mark.parametrize("by", ["loss", "knn"])
def test_predictions_are_made_a_block_of_frames_at_a_time_and_are_the_same(place, monkeypatch, by):
    """The embeddings of 3 M frames are never in memory together."""
    run(place, (0, 1))
    labels(place)
    knn = ["--by", "knn", "--labels", "labels.parquet", "--labelled", "labelled.zarr", "--neighbours", "3"]
    more = knn if by == "knn" else []
    whole = predicted("--task", "expr", *more)
    sizes, per_frame = [], predict.per_frame

    def noted(adapter, source, windows, rows, *rest):
        sizes.append(len(rows))
        return per_frame(adapter, source, windows, rows, *rest)

    monkeypatch.setattr(predict, "BLOCK", 7)
    monkeypatch.setattr(predict, "per_frame", noted)
    assert predicted("--task", "expr", *more, out="again") == whole
    assert max(sizes) == 7


def test_every_listed_frame_gets_its_own_or_its_neighbours_valence_and_arousal(place, capsys):
    run(place)
    found = predicted("--task", "va")
    assert list(found) == [f"{v}/{f:05d}.jpg" for v, most in LISTED.items() for f in range(1, most + 1)]
    said = logits("va")
    for video, expected in on_all(said).items():
        np.testing.assert_allclose(np.array(by_video(found, video), dtype=float), expected, atol=1e-6)
    a = np.array(by_video(found, "a"), dtype=float)
    two, three, five, nine = said[:4]
    by_hand = [two, two, three, (three + five) / 2, five, 0.75 * five + 0.25 * nine, (five + nine) / 2]
    by_hand += [0.25 * five + 0.75 * nine, nine, nine, nine]
    np.testing.assert_allclose(a, by_hand, atol=1e-6)
    assert by_video(found, "ghost") == [["0.000000", "0.000000"]] * 3
    assert a.std() > 0.05
    printed = capsys.readouterr().out
    assert "out: 59 frames of 4 videos, checked" in printed
    assert "11 frames of 2 videos have no features: interpolated" in printed  # 7 of a, 4 of b
    assert "have that frame's prediction: b 80 %, a 27 % of the listed frames" in printed  # 1, 10 and 11 of a
    assert "1 videos have no features at all: they are Neutral, or 0: ghost" in printed
    assert sorted(p.name for p in place.iterdir()) == ["data", "list.txt", "out", "params.yaml", "run"]


def test_classes_are_those_of_abaw_whatever_the_order_of_the_runs_own(place):
    run(place)
    found = predicted("--task", "expr")
    for video, expected in on_all(softmax(logits("classes"))).items():
        names = [CLASSES[k] for k in expected.argmax(1)]
        assert [ABAW_CLASSES[int(field)] for (field,) in by_video(found, video)] == names
    assert by_video(found, "ghost") == [["0"]] * 3  # Neutral
    assert len({field for (field,) in found.values()}) >= 4


def test_action_units_are_abaws_twelve_where_the_probability_is_a_half(place):
    run(place)
    found = predicted("--task", "au")
    for video, expected in on_all(1 / (1 + np.exp(-logits("aus")))).items():
        by_name = dict(zip(AUS, expected.T, strict=True))
        np.testing.assert_array_equal(
            np.array(by_video(found, video), dtype=int), np.stack([by_name[au] >= 0.5 for au in ABAW_AUS], axis=1)
        )
    assert by_video(found, "ghost") == [["0"] * 12] * 3


def test_the_multi_task_file_is_the_three_side_by_side(place):
    run(place)
    found = predicted("--task", "mtl")
    alone = [predicted("--task", task, out=task) for task in ("va", "expr", "au")]
    assert found == {name: [*alone[0][name], *alone[1][name], *alone[2][name]] for name in found}
    header = Path("out/predictions.txt").read_text().splitlines()[0]
    assert header == "image,valence,arousal,expression,aus"


def test_seeds_are_averaged_as_probabilities_and_each_can_stand_alone(place):
    run(place, seeds=(3, 10))
    mean = (softmax(logits("classes", 3)) + softmax(logits("classes", 10))) / 2
    both, found = on_all(mean), predicted("--task", "expr")
    for video in both:
        assert [CLASSES.index(ABAW_CLASSES[int(f)]) for (f,) in by_video(found, video)] == both[video].argmax(
            1
        ).tolist()
    ten = predicted("--task", "va", "--seed", "10", out="ten")
    np.testing.assert_allclose(np.array(by_video(ten, "c"), dtype=float), on_all(logits("va", 10))["c"], atol=1e-6)
    three = predicted("--task", "expr", "--seed", "3", out="three")
    assert three != found
    with pytest.raises(UserError, match=r"run has no seed 4, but \[3, 10\]"):
        predicted("--task", "va", "--seed", "4", out="four")


def test_the_networks_of_all_folds_are_averaged(place):
    for fold, seeds in ((0, (1, 2)), (10, (1, 2))):
        run(place, seeds=[10 * fold + seed for seed in seeds])
        for seed in seeds:
            target = place / f"run/fold_{fold}/seed_{seed}"
            target.parent.mkdir(exist_ok=True)
            (place / f"run/seed_{10 * fold + seed}").rename(target)
    found = np.array(by_video(predicted("--task", "va"), "c"), dtype=float)
    expected = np.mean([logits("va", seed) for seed in (1, 2, 101, 102)], axis=0)
    np.testing.assert_allclose(found, on_all(expected)["c"], atol=1e-6)
    found = np.array(by_video(predicted("--task", "va", "--seed", "2", out="two"), "c"), dtype=float)
    expected = np.mean([logits("va", seed) for seed in (2, 102)], axis=0)
    np.testing.assert_allclose(found, on_all(expected)["c"], atol=1e-6)


def test_a_window_is_of_the_frames_that_are_there_and_mean_pooled(place):
    changes = {"model": "mlp", "window": {"frames": 5, "step": 2}, "embedding_size": 8}
    run(place, **changes)
    found = predicted("--task", "va")
    adapter = untrained(0, **changes)
    place_of = {key: i for i, key in enumerate(zip(KEYS["video"], KEYS["frame"], strict=True))}
    said = []
    for video, frame in place_of:
        window = [place_of[video, f] for f in range(frame - 4, frame + 5, 2) if (video, f) in place_of]
        x = torch.from_numpy(FEATURES[window]).float()[None]
        with torch.inference_mode():
            z = adapter.head.eval()(x, torch.ones(1, len(window), dtype=torch.bool))[0].mean(0, keepdim=True)
            said.append(adapter.predict("va", z)[0].numpy())
    for video, expected in on_all(np.array(said)).items():
        np.testing.assert_allclose(np.array(by_video(found, video), dtype=float), expected, atol=2e-6)


def test_with_a_window_stride_a_frame_is_between_the_windows_next_to_it(place):
    """Frames 2, 3, 5, 9 of video a: windows of 3 around 2, 5 and 9, and frame 3 is a third of the way from 2 to 5."""
    changes = {"model": "gru", "window": {"frames": 3, "step": 1}, "embedding_size": 8}
    run(place, **changes)
    found = np.array(by_video(predicted("--task", "va", "--window-stride", "2"), "a"), dtype=float)
    adapter = untrained(0, **changes)
    adapter.head.eval()
    with torch.inference_mode():
        x = torch.from_numpy(FEATURES[:4]).float()
        held = [x[:2], x[2:3], x[3:]]  # without what is missing, which a GRU steps over
        z = [adapter.head(some[None], torch.ones(1, len(some), dtype=torch.bool))[0].mean(0) for some in held]
        first, second, last = adapter.predict("va", torch.stack(z)).numpy()
    np.testing.assert_allclose(found[[1, 4, 8]], [first, second, last], atol=2e-6)
    np.testing.assert_allclose(found[2], (2 * first + second) / 3, atol=2e-6)
    with pytest.raises(UserError, match="window_stride must be at least 1, and is 0"):
        predicted("--task", "va", "--window-stride", "0", out="none")


def test_what_is_smoothed_is_the_interpolated_axis(place):
    run(place)
    found = predicted("--task", "mtl", "--smooth", "box", "--width", "5", "--width-aus", "3")
    for video, every in on_all(logits("va")).items():
        expected = [every[max(i - 2, 0) : i + 3].mean(0) for i in range(len(every))]
        said = np.array([fields[:2] for fields in by_video(found, video)], dtype=float)
        np.testing.assert_allclose(said, expected, atol=1e-6)
    order = [AUS.index(au) for au in ABAW_AUS]
    for video, every in on_all(1 / (1 + np.exp(-logits("aus"))[:, order])).items():
        expected = np.array([every[max(i - 1, 0) : i + 2].mean(0) for i in range(len(every))])
        said = np.array([fields[3:] for fields in by_video(found, video)], dtype=int)
        np.testing.assert_array_equal(said, expected >= 0.5)


def test_seconds_are_smoothed_over_by_the_frame_rate_of_each_video(place):
    run(place)
    Path("fps.csv").write_text("video,fps\na,30\nc,10\n", encoding="utf-8")  # b has one frame: no rate matters to it
    found = predicted("--task", "va", "--smooth", "box", "--width", "0.2s", "--fps", "fps.csv")
    for video, half in {"a": 3, "b": 1, "c": 1}.items():
        every = on_all(logits("va"))[video]
        expected = [every[max(i - half, 0) : i + half + 1].mean(0) for i in range(len(every))]
        np.testing.assert_allclose(np.array(by_video(found, video), dtype=float), expected, atol=1e-6)
    same = predicted("--task", "va", "--smooth", "box", "--width", "0.2s", "--fps", "10", out="same")
    assert by_video(same, "c") == by_video(found, "c")
    assert by_video(same, "a") != by_video(found, "a")


def test_a_sparse_list_is_smoothed_over_the_frames_between(place):
    Path("list.txt").write_text("c/00020.jpg,\na/00007.jpg\nc/00010.jpg,\n", encoding="utf-8")
    run(place)
    found = predicted("--task", "va", "--smooth", "box", "--width", "5")
    c = on_all(logits("va"))["c"]
    np.testing.assert_allclose(np.array(found["c/00020.jpg"], dtype=float), c[17:22].mean(0), atol=1e-6)
    np.testing.assert_allclose(np.array(found["c/00010.jpg"], dtype=float), c[7:12].mean(0), atol=1e-6)
    five, nine = logits("va")[2:4]
    mean = (five + (five + nine) / 2 + nine) / 3  # frames 5, 7 and 9: no other is wanted or there
    np.testing.assert_allclose(np.array(found["a/00007.jpg"], dtype=float), mean, atol=1e-6)


def test_files_per_video_hold_the_same_values(place):
    run(place)
    single = predicted("--task", "va")
    predict.main(
        [
            "--run",
            "run",
            "--list",
            "list.txt",
            "--task",
            "va",
            "--format",
            "per-video",
            "-o",
            "each",
            "--most-extrapolated",
            "1",
        ]
    )
    for video in LISTED:
        header, *lines = Path("each", f"{video}.txt").read_text().splitlines()
        assert header == "valence,arousal"
        assert [line.split(",") for line in lines] == by_video(single, video)
    assert len(list(Path("each").iterdir())) == 4


def labels(place):
    """Of c (train), and of further people who are not listed: one for each part, at least."""
    rng, rows = np.random.default_rng(7), []
    keys = KEYS[KEYS["video"] == "c"]
    others = pd.DataFrame([(f"p{n}", f) for n in range(5) for f in range(1, 25)], columns=["video", "frame"])
    rows = pd.concat([keys, others], ignore_index=True)
    values = rng.standard_normal((len(others), 4)).astype(np.float16)
    store(place / "labelled.zarr", rows, np.concatenate([FEATURES[(KEYS["video"] == "c").to_numpy()], values]))
    rows["group"] = rows["video"]
    rows["expression"] = [CLASSES[k] for k in rng.integers(0, 8, len(rows))]
    rows["valence"], rows["arousal"] = rng.uniform(-1, 1, (2, len(rows))).astype(np.float32)
    for au in AUS:
        rows[au] = pd.array((rng.random(len(rows)) < 0.2).astype(int), dtype="Int8")
    rows.loc[::3, "au4"] = pd.NA  # labelled in part: no example of all twelve
    rows["expression_split"] = rows["va_split"] = rows["au_split"] = np.where(rows["video"] == "p4", "val", "train")
    write_labels(place / "labels.parquet", Labels(rows, CLASSES, "by hand"))
    x = FeatureStore(place / "labelled.zarr")
    keys = x.keys.astype({"video": "str"})
    rows = keys.merge(rows, on=["video", "frame"])
    return rows, x.read(rows["row"].to_numpy()).astype(np.float64)


def test_a_run_without_a_classifier_asks_its_training_frames(place):
    run(place, loss="supcon", classes=CLASSES, tracks=["expression"])
    with pytest.raises(UserError, match=r"run predicts no classes, for its loss is supcon: .* or --by knn"):
        predicted("--task", "expr")
    table, x = labels(place)
    knn = ["--by", "knn", "--labels", "labels.parquet", "--labelled", "labelled.zarr", "--neighbours", "3"]
    train = (table["video"] != "p4").to_numpy()
    z, database = FEATURES / np.linalg.norm(FEATURES.astype(float), axis=1, keepdims=True), x[train]
    cosine = z @ (database / np.linalg.norm(database, axis=1, keepdims=True)).T
    nearest = np.argsort(-cosine, axis=1)[:, :3]

    va = table.loc[train, ["valence", "arousal"]].to_numpy(dtype=float)[nearest].mean(1)
    found = predicted("--task", "va", *knn, out="va")
    for video, expected in on_all(va).items():
        np.testing.assert_allclose(np.array(by_video(found, video), dtype=float), expected, atol=1e-5)
    code = table.loc[train, "expression"].map(ABAW_CLASSES.index).to_numpy()
    found = predicted("--task", "expr", *knn, out="expr")
    for video, votes in on_all(np.eye(8)[code][nearest].mean(1)).items():
        for (field,), share in zip(by_video(found, video), votes, strict=True):
            assert share[int(field)] == pytest.approx(share.max())
    known = table.loc[train, "au4"].notna().to_numpy()
    nearest = np.argsort(-cosine[:, known], axis=1)[:, :3]
    aus = table.loc[train, ABAW_AUS].to_numpy(dtype=float, na_value=np.nan)[known][nearest].mean(1)
    found = predicted("--task", "au", *knn, out="au")
    for video, expected in on_all(aus).items():
        clear = np.abs(expected - 0.5) > 1e-9
        np.testing.assert_array_equal((np.array(by_video(found, video)) == "1")[clear], (expected > 0.5)[clear])
    one = predicted("--task", "va", *knn, "--neighbours", "1", out="one")
    first = table.loc[train, ["valence", "arousal"]].to_numpy(dtype=float)[cosine.argmax(axis=1)]
    np.testing.assert_allclose(np.array(by_video(one, "c"), dtype=float), on_all(first)["c"], atol=1e-5)


def test_the_runs_that_predict_what_is_wanted_are_named(place):
    for name, loss in {"all": FACTS["loss"], "va": {"ccc": 1}, "foreign": FACTS["loss"], "asked": "supcon"}.items():
        run(place, loss=loss, made_by=MADE_BY | ({"backbone": "huge"} if name == "foreign" else {}))
        Path("runs").mkdir(exist_ok=True)
        Path("run").rename(f"runs/{name}")
    for task, named in {"va": "runs/all, runs/va", "expr": "runs/all", "mtl": "runs/all"}.items():
        with pytest.raises(UserError, match=f"for its loss is supcon: take {named}, or --by knn"):
            predicted("--task", task, run="runs/asked")
    for name in ("all", "va"):
        shutil.rmtree(f"runs/{name}")
    with pytest.raises(UserError, match=r"take a run whose loss does \(there is none beside runs/asked\), or --by knn"):
        predicted("--task", "va", run="runs/asked")


def test_neighbours_of_other_features_are_refused(place):
    run(place)
    store(place / "other.zarr", KEYS, FEATURES, MADE_BY | {"input_size": 64})
    with pytest.raises(UserError, match=r"other features than other\.zarr has: input_size 32 there, 64 here"):
        predicted("--task", "va", "--by", "knn", "--labelled", "other.zarr")


def test_other_crops_are_predicted_from_where_the_user_calls_them_alike_and_that_is_written(place, capsys):
    run(place, made_by=MADE_BY | {"crop_source": "cropped"})
    with pytest.raises(UserError, match=r"there, None here. If these are alike all the same, .* --alike crop_source"):
        predicted("--task", "va")
    vouched = predicted("--task", "va", "--alike", "crop_source")
    said = "crop_source 'cropped' there, None here"
    assert f"alike by your word (--alike), the adapter and the store: {said}" in capsys.readouterr().out
    assert json.loads(Path("out/vouched.json").read_text()) == {"the adapter": said}
    run(place)
    assert predicted("--task", "va", "--alike", "crop_source", out="same") == vouched
    assert not Path("same/vouched.json").exists()  # nothing differs
    with pytest.raises(UserError, match=r"alike 'backbone' is not one of \['crop_source'\]"):
        predicted("--task", "va", "--alike", "backbone", out="other")


def test_what_was_vouched_for_is_no_part_of_a_submission_of_files_per_video(place):
    run(place, made_by=MADE_BY | {"crop_source": "cropped"})
    common = ["--list", "list.txt", "--task", "va", "--format", "per-video"]
    more = ["--alike", "crop_source", "--most-extrapolated", "1", "--device", "cpu"]
    predict.main(["--run", "run", "-o", "out", *common, *more])
    assert Path("out/vouched.json").is_file()
    assert predict.main(["--validate", "out", *common]) == 0


def test_neighbours_are_by_default_the_frames_that_the_run_was_trained_on(place, capsys):
    run(place)
    labels(place)
    knn = ["--task", "va", "--by", "knn"]
    given = predicted(*knn, "--labels", "labels.parquet", "--labelled", "labelled.zarr")
    with pytest.raises(UserError, match=r"data/labels\.parquet"):  # no config.json: what lies in data/
        predicted(*knn, out="two")
    plain = {"data": "labelled.zarr", "labels": "labels.parquet"}
    write_json(place / "run/config.json", plain, sealed=True)
    assert predicted(*knn, out="two") == given
    assert "run/config.json: the labelled frames are those of labelled.zarr\n" in capsys.readouterr().out
    write_json(place / "run/config.json", plain | {"labels": "other.parquet"}, sealed=True)
    assert predicted(*knn, "--labels", "labels.parquet", out="three") == given
    (place / "run/config.json").write_text(json.dumps(plain | {"sha256": "0"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        predicted(*knn, out="four")


def test_neighbours_of_other_crops_count_where_the_user_calls_them_alike(place):
    run(place)
    labels(place)
    knn = ["--task", "va", "--by", "knn", "--labels", "labels.parquet", "--labelled", "labelled.zarr"]
    mine = predicted(*knn)
    attributes = zarr.open_group("labelled.zarr").attrs
    facts = {"made_by": MADE_BY | {"crop_source": "cropped"}, "arrays": attributes["arrays"]}
    attributes.update(facts | {"sha256": digest_of(facts)})
    with pytest.raises(UserError, match=r"other features than labelled\.zarr has: .* --alike crop_source"):
        predicted(*knn, out="two")
    assert predicted(*knn, "--alike", "crop_source", out="two") == mine
    there = json.loads(Path("two/vouched.json").read_text())
    assert there == {"the adapter's training": "crop_source None there, 'cropped' here"}


def test_a_class_that_abaw_lacks_or_misses_is_named(place):
    run(place, classes=["Contempt", *CLASSES[:-1]])
    with pytest.raises(
        UserError, match=r"it lacks Surprise and it has Contempt, which ABAW does not have; index .* --class-map"
    ):
        predicted("--task", "expr")
    run(place, au_names=["au9", "au17", *ABAW_AUS[1:]])
    with pytest.raises(UserError, match=r"run does not have ABAW's action units: it lacks au1$"):
        predicted("--task", "au")
    assert len(predicted("--task", "va")) == 59


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--task must be given"),
        (["--task", "exp"], r"predict: task 'exp' is not one of .* \(did you mean 'expr'\?\)"),
        (["--task", "va", "--format", "one"], "predict: format 'one' is not one of"),
        (["--task", "va", "--width", "10"], "predict: width must be odd .*, and is 10"),
        (["--task", "va", "--width", "3.4 m"], "predict: width must be .* seconds such as 3.4s, and is '3.4 m'"),
        (["--task", "va", "--width", "3.4s"], "predict: width is 3.4s, and seconds need fps"),
        (["--task", "va", "--width-aus", "-1"], "^width_aus must be from 1 to 1,000,000, and is -1"),
        (["--task", "va", "--smooth", "boxes"], "predict: smoothing 'boxes' is not one of"),
        (["--task", "va", "--neighbours", "0"], "must be at least 1"),
        (["--task", "mtl", "--format", "per-video"], "give --format single"),
        (["--task", "va", "-o", "data"], "data is there already"),
        (["--task", "va", "--run", "nowhere"], "no trained run in nowhere"),
        (["--task", "va", "--list", "nowhere.txt"], r"cannot read nowhere\.txt"),
        (["--task", "va", "-d", "other.zarr"], "other features than this store has: input_size 32 there, 64 here"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(place, flags, message):
    run(place)
    store(place / "other.zarr", KEYS, FEATURES, MADE_BY | {"input_size": 64})
    with pytest.raises(UserError, match=message):
        predicted(*flags)
    assert not Path("out").exists()


def test_a_list_of_another_data_set_is_refused(place):
    run(place)
    Path("list.txt").write_text("x,3\ny,4\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"none of the 2 videos in list\.txt is in data/features\.zarr"):
        predicted("--task", "va")


def test_a_list_that_goes_far_beyond_the_frames_with_features_is_refused_unless_asked_for(place, capsys):
    run(place)
    Path("list.txt").write_text("c,40\na,11\nb,1000\nunlisted,4\nghost,9\n", encoding="utf-8")
    said = r"list.txt names frames far beyond those with features: b 100 %, a 27 %; those of b are frames 4 to 4\. "
    with pytest.raises(UserError, match=said + r"If the list is right, give --most-extrapolated 1 \(now 0\.25\)"):
        predicted("--task", "va", "--most-extrapolated", "0.25")
    assert not Path("out").exists()
    Path("list.txt").write_text("c,80\nunlisted,4\n", encoding="utf-8")
    assert len(predicted("--task", "va", "--most-extrapolated", "0.5")) == 84
    assert "c 50 %, unlisted 25 % of the listed frames" in capsys.readouterr().out
    Path("list.txt").write_text("c,81\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--most-extrapolated 0\.51 \(now 0\.5\)"):
        predicted("--task", "va", "--most-extrapolated", "0.5", out="more")
    with pytest.raises(UserError, match=r"most_extrapolated must be from 0 to 1, and is 50\.0"):
        predicted("--task", "va", "--most-extrapolated", "50", out="more")


SMOOTHED = ["--smooth", "box", "--width", "3"]


def test_a_store_of_every_tenth_frame_is_no_good_to_windows_of_neighbours(place, capsys):
    tenth = pd.DataFrame({"video": "c", "frame": range(10, 50, 10)})
    store(place / "tenth.zarr", tenth, FEATURES[:4])
    run(place, window={"frames": 19, "step": 1})
    apart = r"frames 1 apart, and in tenth\.zarr they are 10 apart in 1 of 1 videos, such as c"
    with pytest.raises(UserError, match=f"{apart}: no window has more than one frame"):
        predicted("--task", "va", "-d", "tenth.zarr")
    run(place, window={"frames": 21, "step": 1})
    predicted("--task", "va", "-d", "tenth.zarr", out="some")
    printed = capsys.readouterr().out
    assert "the run looks at frames 1 apart, and in tenth.zarr they are 10 apart" in printed
    assert "windows of 21 hold 2.5 frames on average; less than half in 1 of 1 videos, such as c" in printed
    run(place, window={"frames": 3, "step": 20})
    predicted("--task", "va", "-d", "tenth.zarr", out="twentieth")
    assert "apart" not in capsys.readouterr().out
    run(place, window={"frames": 3})
    predicted("--task", "va", "-d", "tenth.zarr", *SMOOTHED, out="own")
    printed = capsys.readouterr().out
    assert "the run was trained on frames 1 apart, and in tenth.zarr they are 10 apart in 1 of 1 videos" in printed
    assert "windows of 3 hold 2.5 frames on average" in printed  # two of four are at an end
    assert "a width of 3 frames is 21 frame numbers in 1 of 1 videos, such as c" in printed
    run(place, window={"frames": 1})
    found = predicted("--task", "va", "-d", "tenth.zarr", out="alone")
    said = logits("va")
    expected = np.stack([np.interp(range(1, 41), [10, 20, 30, 40], x) for x in said[:4].T], axis=1)
    np.testing.assert_allclose(np.array(by_video(found, "c"), dtype=float), expected, atol=1e-6)


def test_features_that_are_not_finite_are_refused_with_their_file(place):
    values = FEATURES.copy()
    values[KEYS.index[KEYS["video"] == "b"][0], 0] = np.inf
    store(place / "spoilt.zarr", KEYS, values)
    run(place)
    with pytest.raises(UserError, match=r"spoilt.zarr/views/original/c/0/0: it holds values that are not"):
        predicted("--task", "expr", "-d", "spoilt.zarr")


def test_nothing_half_written_stays(place, monkeypatch):
    run(place)
    Path(".out.new/old").mkdir(parents=True)  # of a run that was killed
    with monkeypatch.context() as patch:
        patch.setattr(predict, "problems", lambda *_: ["line 3 is wrong"])
        with pytest.raises(UserError, match="make no submission, and are not kept: line 3 is wrong"):
            predicted("--task", "va")
    assert not Path("out").exists()
    assert not Path(".out.new").exists()
    Path(".out.new/old").mkdir(parents=True)
    predicted("--task", "va")
    assert [p.name for p in Path("out").iterdir()] == ["predictions.txt"]
    Path("file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write file: Not a directory"):
        predicted("--task", "va", out="file/out")


def test_the_validator_names_the_first_wrong_lines_and_fails(place, capsys):
    run(place)
    predicted("--task", "expr")
    check = ["--validate", "out", "--list", "list.txt", "--task", "expr"]
    assert predict.main(check) == 0
    assert "out: valid, 59 frames of 4 videos" in capsys.readouterr().out
    file = Path("out/predictions.txt")
    file.write_text(file.read_text().replace(".jpg,", ".jpg,9"))
    assert predict.main(["--validate", "out/predictions.txt", *check[2:]]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "out/predictions.txt: 59 problems"
    assert printed[1].startswith("  out/predictions.txt:2: '9")
    assert len(printed) == 11
    with pytest.raises(UserError, match="--list must be given"):
        predict.main(["--validate", "out", "--task", "expr"])


def test_videos_that_are_only_named_end_with_their_last_frame_in_the_store(place):
    run(place)
    Path("list.txt").write_text("c\na\n", encoding="utf-8")
    found = predicted("--task", "va")
    assert [len(by_video(found, video)) for video in "ac"] == [9, 40]
    assert predict.main(["--validate", "out", "--list", "list.txt", "--task", "va"]) == 0


@pytest.mark.usefixtures("quick_children")
def test_a_folder_of_frames_is_extracted_first_into_the_folder_that_is_made(workplace, capfd):
    tiny = ["backbone: tf_efficientnet_lite0", "backbone: test_efficientnet"]
    params = (ROOT / "params.yaml").read_text().replace(*tiny).replace("weights: auto", "weights: random")
    Path("params.yaml").write_text(params)
    draw_folder(workplace / "old/batch1/cropped_aligned", {"v1": 3})
    draw_folder(workplace / "new/batch1/cropped_aligned", {"t1": 4, "t2": 2})
    extract.main(["-d", "old", "-s", "old.zarr", "--device", "cpu"])
    made_by = FeatureStore(workplace / "old.zarr").made_by
    width = FeatureStore(workplace / "old.zarr").num_features
    run(workplace, made_by=made_by, num_features=width, embedding_size=width)
    Path("list.txt").write_text("t2,3\nt1,4\n")
    before = {path.name for path in workplace.iterdir()}
    Path("list.txt").write_text("nobody,3\n")
    with pytest.raises(UserError, match="none of the 1 videos"):
        predicted("--task", "va", "--frames", "new")
    assert not Path("out").exists()
    Path("list.txt").write_text("t2,3\nt1,4\n")
    found = predicted("--task", "va", "--frames", "new")
    assert "0 frames extracted, 6 were there" in capfd.readouterr().out  # what was there is gone on with
    assert predict.main(["--validate", "out", "--list", "list.txt", "--task", "va"]) == 0
    assert list(found) == [f"t2/0000{i}.jpg" for i in (1, 2, 3)] + [f"t1/0000{i}.jpg" for i in (1, 2, 3, 4)]
    assert {path.name for path in workplace.iterdir()} == before | {"out"}  # one folder, and nothing else
    stored = FeatureStore(workplace / "out/features/features.zarr")
    x = stored.read(stored.keys["row"].to_numpy())
    changes = {"made_by": made_by, "num_features": width, "embedding_size": width}
    said = logits("va", features=x, **changes)  # t1, then t2
    expected = said[[4, 5, 5, 0, 1, 2, 3]]
    np.testing.assert_allclose(np.array(list(found.values()), dtype=float), expected, atol=1e-6)


def test_what_cannot_be_extracted_is_not_predicted(place, monkeypatch):
    run(place)
    asked = []
    failed = subprocess.CompletedProcess([], 2)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command) or failed)
    with pytest.raises(UserError, match=r"new could not be extracted: -m extract --data new --store mine\.zarr "):
        predicted("--task", "va", "--frames", "new", "-d", "mine.zarr")
    assert len(asked) == 1
