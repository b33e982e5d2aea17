"""The steps of videos; and the same frames under other numbers: everything comes out the same, bit for bit."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import train
from pipeline.adapter.adapter import load_adapter
from pipeline.adapter.windows import Window
from pipeline.core import numbering
from pipeline.core.params import UserError
from pipeline.core.store import StoreWriter
from pipeline.core.tables import ABAW_CLASSES, Labels, write_labels
from pipeline.evaluation import baselines, evaluate
from pipeline.submission import predict

pytestmark = pytest.mark.usefixtures("undrawn")

NUM_VIDEOS, NUM_FRAMES, D = 20, 24, 12
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}
COMMON = ["--data", "features.zarr", "--labels", "labels.parquet"]
TRAIN = ["--cpu", "-e", "2", "--window", "7", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-r", "1"]
EVALUATE = ["--device", "cpu", "--width", "5", "--width-aus", "3", "--resamples", "20", "--timelines", "1"]


# Videos of 5, 1 and 40 frames; the last starts late and lacks frame 1725.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 2, 1721, 1722, 1723, 1724, *range(1726, 1762)])


def spacing_by_a_loop(video, frame):
    """Counts every gap of every video by itself, and then looks up what the text says."""
    gaps = {}
    for v in dict.fromkeys(video):
        numbers = [f for w, f in zip(video, frame, strict=True) if w == v]
        gaps[v] = Counter(b - a for a, b in pairwise(numbers))
    shown = {}
    for v, counter in gaps.items():
        often = max(counter.values(), default=0)
        if often > 1:
            shown[v] = min(gap for gap, count in counter.items() if count == often)
    votes = Counter(shown.values()) if shown else sum(gaps.values(), Counter())
    most = min((gap for gap, count in votes.items() if count == max(votes.values())), default=1)
    return [shown.get(v, most) for v in video]


@pytest.mark.parametrize(
    ("video", "frame", "steps"),
    [
        (VIDEO, FRAME, [1] * 46),
        ([0, 1, 2], [5, 9, 40], [1] * 3),
        ([0, 0, 0], [1, 2, 12], [1] * 3),
        ([0, 0, 0, 0], [1, 2, 12, 22], [10] * 4),
        ([0, 0, 1, 1], [100, 125, 1, 26], [25] * 4),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 6, 11, 7, 8, 9], [1] * 3 + [5] * 3 + [1] * 3),
        ([0, 0, 0, 1, 1], [1, 2, 3, 1, 900], [1] * 5),
        ([0] * 6, [1, 6, 16, 21, 23, 28], [5] * 6),
        ([], [], []),
    ],
    ids=["gaps", "one_frame_each", "none_twice", "mostly_ten", "stride_25", "own", "a_pair_shows_none", "gap", "none"],
)
def test_the_step_is_each_videos_own(video, frame, steps):
    assert numbering.spacing(np.array(video), np.array(frame)).tolist() == steps == spacing_by_a_loop(video, frame)
    assert numbering.common_step(np.array(video), np.array(frame)) == (
        1 if not steps else Counter(steps).most_common()[0][0]
    )


def test_the_steps_of_many_videos_are_those_of_a_loop():
    rng = np.random.default_rng(3)
    for _ in range(20):
        keys = np.unique(np.stack([rng.integers(0, 9, 60) * 10**9, rng.integers(0, 25, 60)], axis=1), axis=0)
        keys[:, 1] *= 1 + keys[:, 0] // 10**9 % 3
        assert numbering.spacing(*keys.T).tolist() == spacing_by_a_loop(*keys.T.tolist())


@pytest.mark.parametrize("step", [1, 5, 3])
def test_the_same_frames_get_the_same_numbers_however_they_are_called(step):
    """Windows by a loop over the places of each video, a missing frame included, whatever its numbers are."""
    rng, num_frames = np.random.default_rng(4), 7
    keys = [(v, 1 + p * (1, 5, 2)[v % 3]) for v in range(9) for p in range(30) if p in (0, 1, 2) or rng.random() < 0.8]
    places = {(v, f): (f - 1) // (1, 5, 2)[v % 3] for v, f in keys}
    row_of = {(v, places[v, f]): row for row, (v, f) in enumerate(keys)}
    video, frame = np.array(keys).T
    number = numbering.numbered_alike(video, frame, step)
    rows = Window(num_frames, spacing=step).over(video, frame).centred(np.arange(len(keys)))
    for row, (v, f) in enumerate(keys):
        wanted = [row_of.get((v, places[v, f] + j - num_frames // 2), -1) for j in range(num_frames)]
        assert rows[row].tolist() == wanted
    same = (1, 5, 2)[0] == step
    assert (number[video % 3 == 0] == frame[video % 3 == 0]).all() == same


def test_numbers_between_two_places_are_rounded_and_never_meet():
    video, frame = np.zeros(8, dtype=int), np.array([10, 15, 17, 18, 20, 25, 38, 43])
    assert numbering.numbered_alike(video, frame, 1).tolist() == [10, 11, 12, 13, 14, 15, 18, 19]
    assert numbering.numbered_alike(video, frame, 5).tolist() == frame.tolist()
    assert numbering.numbered_alike(video[:0], frame[:0], 5).tolist() == []


def test_every_tenth_frame_is_one_in_ten_of_each_video_whatever_its_numbers_are():
    video, place = np.repeat([0, 1, 2], 100), np.arange(100)
    frame = np.concatenate([1 + place, 1 + 5 * place, 9 * place])
    for nth in (1, 2, 10, 25):
        chosen = numbering.every_nth(video, frame, nth)
        assert np.bincount(video[chosen]).tolist() == [100 // nth] * 3
    assert frame[:100][numbering.every_nth(video, frame, 10)[:100]].tolist() == list(range(10, 101, 10))


def test_every_twentieth_frame_is_one_of_every_tenth_and_further_frames_move_nothing():
    video, frame = np.zeros(60, dtype=int), 1 + 5 * np.arange(60)
    tenth, twentieth = (set(frame[numbering.every_nth(video, frame, nth)]) for nth in (10, 20))
    assert twentieth < tenth
    assert set(frame[:40][numbering.every_nth(video[:40], frame[:40], 10)]) == {f for f in tenth if f <= frame[39]}


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


def evaluated(root, monkeypatch, workplace, *more, fps=()):
    """Trained and evaluated; gives all numbers."""
    monkeypatch.chdir(root)
    Path("params.yaml").write_text((workplace / "params.yaml").read_text("utf-8"), encoding="utf-8")
    train.main([*COMMON, *TRAIN, "--output", "runs", "--name", "tried", "--no-evaluate", *more, *fps])
    evaluate.main([*COMMON, *EVALUATE, *fps, "--run", "runs/tried", "-o", "out"])
    return numbers(Path("out"))


def compared(root, monkeypatch, workplace):
    """The baselines, which are of single frames."""
    monkeypatch.chdir(root)
    Path("params.yaml").write_text((workplace / "params.yaml").read_text("utf-8"), encoding="utf-8")
    train.main([*COMMON, *TRAIN, "--output", "runs", "--name", "alone", "--no-evaluate", "--loss", "cross_entropy",
                "--window", "1", "--pooling", "centre"])  # fmt: skip
    baselines.main(
        [*COMMON, *EVALUATE, "--run", "runs/alone", "-o", "baselines", "--smoothings", "{box: [5], hann: [7]}"]
    )
    return {name: numbers(Path("baselines", name)) for name in ("alone_box_5", "alone_hann_7")}


def everything(root, monkeypatch, workplace, *more, fps=()):
    """Trained, evaluated and predicted."""
    found = {"out": evaluated(root, monkeypatch, workplace, *more, fps=fps)}
    predict.main(["--run", "runs/tried", "-d", "features.zarr", "--list", "list.txt", "--task", "expr", "--by", "knn",
                  "--labels", "labels.parquet", "--labelled", "features.zarr", "--smooth", "box", "--width", "5",
                  "--device", "cpu", *fps])  # fmt: skip
    submission = Path("submission/predictions.txt").read_text("utf-8").splitlines()
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


def test_the_baselines_of_a_video_that_counts_by_fives_are_those_of_one_that_counts_by_ones(
    tmp_path, workplace, monkeypatch
):
    found = []
    for name, numbered in (("ones", lambda video, frame: frame), ("mixed", renumbered)):
        made(tmp_path / name, numbered)
        found.append(compared(tmp_path / name, monkeypatch, workplace))
    np.testing.assert_equal(*found)


@pytest.mark.parametrize("edge", ["mask", "mirror"])
def test_videos_of_25_and_125_frames_a_second_are_alike_where_the_step_is_in_seconds(
    tmp_path, workplace, monkeypatch, edge
):
    """Those of 125 a second have the same frames, every fifth of theirs: in frame numbers that is another step."""
    found = []
    for name, numbered, fast in (("slow", lambda video, frame: frame, []), ("mixed", renumbered, [0, 1])):
        made(tmp_path / name, numbered)
        rates = [(f"v{number:02d}", 125 if number % 5 in fast else 25) for number in range(NUM_VIDEOS)]
        pd.DataFrame(rates, columns=["video", "fps"]).to_csv(tmp_path / name / "fps.csv", index=False)
        more = ["--model", "tcn", "--loss", "supcon", "--step", "0.08s", "--edge", edge]
        found.append(everything(tmp_path / name, monkeypatch, workplace, *more, fps=["--fps", "fps.csv"]))
    slow, mixed = found
    for name, values in slow.items():
        np.testing.assert_equal(mixed[name], values, err_msg=name)
    facts = load_adapter(Path("runs/tried/seed_0/best.safetensors"), MADE_BY).facts
    assert facts["window"] == {"frames": 7, "step": "0.08s", "edge": edge, "spacing": 1}
    with pytest.raises(UserError, match=r"the step of the windows is 0.08s, and seconds need --fps"):
        evaluate.main([*COMMON, *EVALUATE, "--run", "runs/tried", "-o", "again"])
    with pytest.raises(UserError, match=r"the step of the windows is 0.08s, and seconds need --fps"):
        train.main([*COMMON, *TRAIN, "--step", "0.08s"])


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
    assert [(facts[name]["window"]["step"], facts[name]["window"]["spacing"]) for name in said] == [(None, 1), (1, 1)]


def test_labels_at_another_rate_than_frames_are_the_centres_of_windows_of_frames(tmp_path, workplace, monkeypatch):
    """Every third frame of two videos of five has a label: windows are full all the same, and flips are counted."""
    made(tmp_path / "some", lambda video, frame: frame, lambda video, frame: video % 5 > 1 or frame % 3 == 0)
    evaluated(tmp_path / "some", monkeypatch, workplace, "--model", "tcn", "--loss", "cross_entropy")
    videos = pd.read_csv(tmp_path / "some/out/per_video.csv").set_index("video")
    assert videos["frames"].loc[["v15", "v16"]].max() <= 8 < videos["frames"].loc["v12"]
    assert videos["flips_per_100"].notna().all()
    assert videos["cosine_neighbours"].notna().all()
