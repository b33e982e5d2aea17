"""The same frames, features and labels under other frame numbers: everything comes out the same, bit for bit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import train
from pipeline.evaluation import baselines, evaluate, predict
from pipeline.store import StoreWriter
from pipeline.tables import ABAW_CLASSES, Labels, write_labels
from pipeline.training.adapter import load_adapter

NUM_VIDEOS, NUM_FRAMES, D = 20, 24, 12
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}
COMMON = ["--data", "features.zarr", "--labels", "labels.parquet"]
TRAIN = ["--cpu", "-e", "2", "--window", "7", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-r", "1"]
EVALUATE = ["--device", "cpu", "--width", "5", "--width-aus", "3", "--resamples", "20", "--timelines", "1"]


def renumbered(video, frame):
    """Two videos of five count 1, 6, 11, ..."""
    return 1 + 5 * (frame - 1) if video % 5 < 2 else frame


def made(root, numbered, labelled=lambda video, frame: True):
    """Features are the class, lasting 6 frames, in noise and a person's own offset; some frames are missing."""
    root.mkdir()
    rng, keys, features, labels = np.random.default_rng(0), [], [], []
    for number in range(NUM_VIDEOS):
        video, person = f"v{number:02d}", rng.normal(size=D)
        for frame in range(1, NUM_FRAMES + 1):
            label = (number + frame // 6) % 3
            x = 2.0 * np.eye(D)[label] + person + rng.normal(size=D)
            if rng.random() < 0.1 and frame > 3:
                continue
            keys.append((video, numbered(number, frame), 10))
            features.append(x)
            if labelled(number, frame):
                part = "val" if number >= 12 else "train"
                labels.append((video, numbered(number, frame), video, ABAW_CLASSES[label], part))
    table = pd.DataFrame(keys, columns=["video", "frame", "size"])
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D}, 64) as writer:
        for start in range(0, len(table), 64):
            writer.write(table[start : start + 64], {"original": np.array(features[start : start + 64])})
    labels = pd.DataFrame(labels, columns=["video", "frame", "group", "expression", "expression_split"])
    write_labels(root / "labels.parquet", Labels(labels, list(ABAW_CLASSES), "tiny"))
    (root / "list.txt").write_text("".join(f"{v}/{f:05d}.jpg,\n" for v, f, _ in keys), encoding="utf-8")


def numbers(folder):
    """All that was written of a run, without what names frames."""
    found = {"metrics": json.loads((folder / "metrics.json").read_text("utf-8"))}
    found["videos"] = pd.read_csv(folder / "per_video.csv").to_dict()
    found["said"] = pd.read_parquet(folder / "predictions.parquet").drop(columns="frame").to_dict()
    return found


def everything(root, monkeypatch, workplace, *more):
    """Trained, evaluated, compared with baselines and predicted."""
    monkeypatch.chdir(root)
    Path("params.yaml").write_text((workplace / "params.yaml").read_text("utf-8"), encoding="utf-8")
    train.main([*COMMON, *TRAIN, "--output", "runs", "--name", "tried", "--no-evaluate", *more])
    evaluate.main([*COMMON, *EVALUATE, "--run", "runs/tried", "-o", "out"])
    train.main([*COMMON, *TRAIN, "--output", "runs", "--name", "alone", "--no-evaluate", "--loss", "cross_entropy",
                "--window", "1", "--pooling", "centre"])  # fmt: skip
    baselines.main(
        [*COMMON, *EVALUATE, "--run", "runs/alone", "-o", "baselines", "--smoothings", "{box: [5], hann: [7]}"]
    )
    predict.main(["--run", "runs/tried", "-d", "features.zarr", "--list", "list.txt", "--task", "expr", "--by", "knn",
                  "--labels", "labels.parquet", "--labelled", "features.zarr", "--smooth", "box", "--width", "5",
                  "--device", "cpu"])  # fmt: skip
    submission = Path("submission/predictions.txt").read_text("utf-8").splitlines()
    found = {name: numbers(Path(name)) for name in ("out", "baselines/alone_box_5", "baselines/alone_hann_7")}
    found["submission"] = [line.split(",")[1] for line in submission]
    found["weights"] = {k: v.tolist() for k, v in load_file("runs/tried/seed_0/best.safetensors").items()}
    return found


@pytest.mark.parametrize(
    "more",
    [
        ["--model", "tcn", "--loss", "supcon", "--pooling", "hann"],
        ["--model", "mlp", "--loss", "supcon", "--sampler", "temporal", "--sampler-options", "{max_distance: 4}"],
    ],
    ids=["tcn_hann", "temporal"],
)
def test_a_video_that_counts_by_fives_is_as_good_as_one_that_counts_by_ones(tmp_path, workplace, monkeypatch, more):
    found = []
    for name, numbered in (("ones", lambda video, frame: frame), ("mixed", renumbered)):
        made(tmp_path / name, numbered)
        found.append(everything(tmp_path / name, monkeypatch, workplace, *more))
    ones, mixed = found
    for name, values in ones.items():
        np.testing.assert_equal(mixed[name], values, err_msg=name)


def test_a_run_says_how_many_frames_its_windows_hold_and_keeps_what_it_was_trained_with(
    tmp_path, workplace, monkeypatch, capsys
):
    made(tmp_path / "mixed", renumbered)
    monkeypatch.chdir(tmp_path / "mixed")
    Path("params.yaml").write_text((workplace / "params.yaml").read_text("utf-8"), encoding="utf-8")
    said = {}
    for name, more in {"own": [], "fixed": ["--step", "1"]}.items():
        train.main([*COMMON, *TRAIN, "--output", "runs", "--name", name, "--no-evaluate", "-e", "0", *more])
        said[name] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("windows of 7 hold")]
    counts = {name: float(lines[0].split()[4]) for name, lines in said.items()}
    assert counts["own"] > counts["fixed"] + 1
    assert "less than half" not in said["own"][0]
    assert "; less than half in 4 of 10 videos, such as v00" in said["fixed"][0]
    facts = {name: load_adapter(Path(f"runs/{name}/seed_0/best.safetensors"), MADE_BY).facts for name in said}
    assert [(facts[name]["step"], facts[name]["spacing"]) for name in said] == [(None, 1), (1, 1)]


def test_labels_at_another_rate_than_frames_are_the_centres_of_windows_of_frames(tmp_path, workplace, monkeypatch):
    """Every third frame of two videos of five has a label: windows are full all the same, and flips are counted."""
    made(tmp_path / "some", lambda video, frame: frame, lambda video, frame: video % 5 > 1 or frame % 3 == 0)
    everything(tmp_path / "some", monkeypatch, workplace, "--model", "tcn", "--loss", "cross_entropy")
    videos = pd.read_csv(tmp_path / "some/out/per_video.csv").set_index("video")
    assert videos["frames"].loc[["v15", "v16"]].max() <= 8 < videos["frames"].loc["v12"]
    assert videos["flips_per_100"].notna().all()
    assert videos["cosine_neighbours"].notna().all()
