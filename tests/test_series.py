"""A series with times, such as sound, onto the frames of a frame table."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.tables import Frames, write_frames
from pipeline.extraction import series

# Videos a (25 a second, with a gap) and b (30 a second); c has no series.
FRAMES = [("a", f) for f in [*range(1, 31), *range(41, 61)]] + [("b", f) for f in range(1, 21)] + [("c", 1)]
FPS = {"a": 25.0, "b": 30.0, "c": 25.0}


@pytest.fixture
def place(workplace):
    table = pd.DataFrame(FRAMES, columns=["video", "frame"])
    table["path"], table["size"] = table["video"] + table["frame"].astype(str), 7
    write_frames(Path("data/frames.parquet"), Frames(table, Path("faces"), "made", "cropped"))
    pd.DataFrame({"video": FPS.keys(), "fps": FPS.values()}).to_csv("fps.csv", index=False)
    return workplace


def sound(rate, seconds=2.0, shift=0.0):
    """(video, time, features) of a and b, and of a video that has no frame: features are the time and its square."""
    rows = [(v, n / rate + shift) for v in ("b", "a", "d") for n in range(round(seconds * rate))]
    keys = pd.DataFrame(rows, columns=["video", "time_sec"])
    return keys, np.stack([keys["time_sec"], keys["time_sec"] ** 2, np.arange(len(keys)) % 7], axis=1)


def save(keys, features, file="sound.h5"):
    if file.endswith(".npz"):
        columns = {"video": keys["video"].to_numpy().astype(str), "time_sec": keys["time_sec"].to_numpy()}
        np.savez_compressed(file, features=features, **columns)
        return
    with h5py.File(file, "w") as handle:
        handle["features"], handle["time_sec"] = features, keys["time_sec"].to_numpy()
        handle.create_dataset("video", data=keys["video"].tolist(), dtype=h5py.string_dtype())


def imported(*flags, file="sound.h5"):
    assert extract.main(["--import", file, "-s", "sound.zarr", "--fps", "fps.csv", "--chunk-rows", "16", *flags]) == 0
    store = FeatureStore(Path("sound.zarr"))
    keys = list(zip(store.keys["video"].astype(str), store.keys["frame"], strict=True))
    return store, dict(zip(keys, store.read(store.keys["row"].to_numpy()).astype(float), strict=True))


def by_hand(keys, features, rule, rate):
    """The rule as a slow loop over frames."""
    found = {}
    for video, frame in FRAMES:
        time, half = (frame - 1) / FPS[video], 0.5 / FPS[video]
        own = np.flatnonzero(keys["video"] == video)
        times = keys["time_sec"].to_numpy()[own]
        if rule == "mean":
            rows = own[(times >= time - half - 1e-6) & (times < time + half - 1e-6)]
        else:
            near = own[[np.abs(times - time).argmin()]] if len(own) else own
            rows = near[np.abs(keys["time_sec"].to_numpy()[near] - time) <= max(half, 0.5 / rate) + 1e-6]
        if len(rows):
            found[video, frame] = features[rows].mean(axis=0)
    return found


@pytest.mark.parametrize(
    ("rule", "rate", "file"),
    [
        ("nearest", 100, "sound.h5"),
        ("nearest", 7, "sound.npz"),
        ("mean", 100, "sound.npz"),
        ("mean", 40, "sound.h5"),
        ("mean", 7, "sound.h5"),
    ],
)
def test_a_frame_gets_what_the_rule_says_and_what_is_missing_is_counted_and_named(
    place, monkeypatch, capsys, rule, rate, file
):
    monkeypatch.setattr(series, "SOURCE_BYTES", 400)  # many pieces
    keys, features = sound(rate, seconds=1.9, shift=0.003)
    save(keys, features, file)
    store, found = imported("--resample", rule, file=file)
    expected = by_hand(keys, features, rule, rate)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert np.allclose(found[key], values, atol=2e-3), key
    assert store.made_by["resampled"] == rule
    said, lacking = capsys.readouterr().out, len(FRAMES) - 1 - len(expected)
    assert (f"{lacking:,} of {len(FRAMES) - 1} frames have no row of the series" in said) == (lacking > 0)
    assert "1 videos of the series are not in data/frames.parquet: d" in said
    assert "1 of 3 videos of data/frames.parquet have no series: c" in said


@pytest.mark.parametrize("rule", series.RULES)
def test_a_series_of_the_frames_own_rate_comes_out_as_it_is(place, rule):
    """Also where its times are rounded, as they are in a table of milliseconds."""
    keys = pd.DataFrame([k for k in FRAMES if k[0] != "c"], columns=["video", "frame"])
    keys["time_sec"] = np.round((keys["frame"] - 1) / keys["video"].map(FPS), 3)
    features = np.random.default_rng(0).standard_normal((len(keys), 3))
    save(keys, features)
    _, found = imported("--resample", rule)
    assert list(found) == [k for k in FRAMES if k[0] != "c"]
    assert np.array_equal(np.array(list(found.values())), features.astype(np.float16))


def test_times_of_faces_count_where_they_are_known(place):
    """faces.parquet has the time of each frame: of a video whose rate varies no fps says it."""
    table = pd.DataFrame([k for k in FRAMES if k[0] == "b"], columns=["video", "frame"])
    table["time_sec"], table["fps"] = 0.5 + table["frame"] * 0.07, 30.0
    Path("faces").mkdir()
    table[table["frame"] != 3].to_parquet("faces/faces.parquet")
    keys, features = sound(100, seconds=3)
    save(keys[keys["video"] == "b"], features[keys["video"] == "b"])
    extract.main(["--import", "sound.h5", "-s", "sound.zarr"])  # the table beside the frames, without a flag
    store = FeatureStore(Path("sound.zarr"))
    assert store.keys["frame"].tolist() == [f for f in range(1, 21) if f != 3]
    expected = 0.5 + store.keys["frame"].to_numpy() * 0.07
    assert np.allclose(store.read(store.keys["row"].to_numpy())[:, 0], expected, atol=0.006)


def test_rows_without_a_time_are_counted_and_no_part_of_a_mean(place, capsys):
    keys, features = sound(100)
    lost = (keys["video"] == "a") & (keys.index % 3 == 0)
    keys.loc[lost, "time_sec"], features[lost.to_numpy()] = np.nan, 1000.0
    save(keys, features)
    _, found = imported("--resample", "mean")
    assert max(values.max() for values in found.values()) < 100
    assert f"{int(lost.sum())} of {len(keys)} rows have no time, in a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "flags", "words"),
    [
        (lambda k: k[::-1], [], "must lie together with rising times"),
        (lambda k: k.assign(video=["a", "b"] * (len(k) // 2)), [], "must lie together with rising times"),
        (lambda k: k[:200].assign(video="z"), [], "no frame of data/frames.parquet has a row"),
        (lambda k: k.assign(time_sec=k["time_sec"] + 1000), [], "no frame of data/frames.parquet has a row"),
        (lambda k: k, ["--fps", "null"], "nothing says when the frames are: give --fps"),
        (lambda k: k, ["--fps", "-1"], "fps must be above 0"),
        (lambda k: k, ["--first-frame", "5"], "frame 5 is at 0 s"),
        (lambda k: k, ["--resample", "linear"], "'linear' is not one of"),
    ],
)
def test_a_series_that_cannot_be_put_onto_the_frames_is_refused_in_one_line(place, change, flags, words):
    keys, features = sound(100)
    changed = change(keys)
    save(changed, features[: len(changed)])
    with pytest.raises(UserError, match=words) as refusal:
        imported(*flags)
    assert "\n" not in str(refusal.value)
    assert not Path("sound.zarr").exists()
