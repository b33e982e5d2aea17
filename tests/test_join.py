"""The frame table decides which frames of a store count."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_train
from test_seen import parts, scored
from test_train import CLASSES, run

from pipeline.core import projection
from pipeline.core.join import codes_of, open_both, open_store, places_of
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Frames, read_labels, write_frames
from pipeline.extraction import reduce
from pipeline.submission import predict

made, place = test_train.made, test_train.place  # fixtures
STORE, TABLE = Path("data/features.zarr"), Path("data/frames.parquet")


def joined(path, given=None):
    return open_both(path, Path("data/labels.parquet"), given)[0]


def table(path=TABLE, without=(), changed=(), dataset="tiny", names=None):
    """A frame table of the place's store, without some videos, and with other sizes of some."""
    keys = FeatureStore(STORE).keys.astype({"video": "str"})[["video", "frame", "size"]]
    keys = keys.assign(size=keys["size"].where(~keys["video"].isin(changed), 11))
    keys = keys[~keys["video"].isin(without)]
    keys = keys if names is None else keys.assign(video=names + keys["video"])
    frames = keys.assign(path=keys["video"] + "/" + keys["frame"].astype("str") + ".jpg")
    write_frames(path, Frames(frames, Path("nowhere"), dataset, "by hand"))


def test_videos_that_left_the_frame_table_are_neither_trained_on_nor_scored_nor_projected(place, capsys):
    """The number that was wrong: removed as bad crops, these frames stayed in training and in every score."""
    train, val = sorted(parts()["train"])[0], "v13"
    table(without=[train, val])
    reduce.main(["-n", "4"])
    fitted = projection.load(Path("data/projection.safetensors"), FeatureStore(STORE).made_by)
    assert fitted.seen.known([], [f"v{i:02}" for i in range(18)])[1] == [
        f"v{i:02}" for i in range(12) if f"v{i:02}" != train
    ]
    folder = run("--reduce")
    about = scored(folder)
    assert about["val_videos"] == 5
    assert about["train_frames"] == 11 * 12
    out = capsys.readouterr().out
    assert out.count("24 of its 216 frames do not count: 24 are not in data/frames.parquet") == 3  # in each command
    assert "val 60 frames of 5 videos" in out


def test_a_frame_whose_image_has_changed_does_not_count_until_it_is_extracted_again(place, capsys):
    table(without=["v00"], changed=["v01", "v02"])
    store = joined(STORE)
    assert set(store.keys["video"].astype("str")) == {f"v{i:02}" for i in range(3, 18)}
    said = "36 of its 216 frames do not count: 12 are not in data/frames.parquet, 24 have another image file now"
    assert said in capsys.readouterr().out
    assert (store.read(store.keys["row"].to_numpy()) == FeatureStore(STORE).read(store.keys["row"].to_numpy())).all()


def test_an_import_that_knows_no_sizes_is_matched_by_its_names(place):
    keys = pd.DataFrame({"video": ["a", "a", "b"], "frame": [1, 2, 1], "size": 0})
    with StoreWriter(Path("i.zarr"), {"backbone": "imported"}, {"original": 2}, 4) as writer:
        writer.write(keys, {"original": np.zeros((3, 2))})
    frames = keys.iloc[:2].assign(path=["a/1", "a/2"], size=[5, 6])
    write_frames(Path("i.frames.parquet"), Frames(frames, Path("x"), "any", "by hand"))
    assert open_store(Path("i.zarr"), None).keys["frame"].tolist() == [1, 2]


def test_without_a_frame_table_all_frames_count_and_that_is_said(place, capsys):
    assert len(joined(STORE).keys) == 216
    assert "data/features.zarr: there is no frame table, so all of its 216 frames count" in capsys.readouterr().out


def test_a_table_of_another_data_set_empties_nothing_and_that_is_said(place, capsys):
    table(names="other/", dataset="others")
    assert len(joined(STORE).keys) == 216
    said = "data/frames.parquet is of another data set ('others'): all 216 frames of data/features.zarr count"
    assert said in capsys.readouterr().out
    with pytest.raises(UserError, match=r"none of the 216 frames of data/features\.zarr is in the frame table"):
        joined(STORE, TABLE)  # it was named


@pytest.mark.parametrize("how", [{"names": "x"}, {"changed": [f"v{i:02}" for i in range(18)]}])
def test_a_table_of_the_same_data_set_that_has_none_of_the_frames_is_refused(place, how):
    table(**how)
    with pytest.raises(UserError, match=r"none of the 216 frames .*: extract again, or name the table of this store"):
        run()


def test_the_table_beside_the_store_is_taken_before_that_in_data(place):
    table()
    STORE.rename("emb.zarr")
    assert len(joined(Path("emb.zarr")).keys) == 216
    Path("data/frames.parquet").rename("emb.frames.parquet")
    (place / "data/features.zarr").symlink_to(place / "emb.zarr")
    table(without=["v00"])
    assert len(joined(Path("emb.zarr")).keys) == 216
    assert len(joined(Path("data/features.zarr")).keys) == 204


def test_a_listed_frame_that_left_the_table_is_interpolated_as_one_without_features(place, capsys):
    labels = read_labels(Path("data/labels.parquet"))
    folder = run("--loss", "ccc", "--sampler", "uniform", "--pooling", "centre")
    table(without=["v12"])
    assert labels.classes == CLASSES
    Path("list.txt").write_text("v12,12\nv13,12\n")
    flags = ["--run", str(folder), "--list", "list.txt", "--task", "va", "-o", "said", "--device", "cpu"]
    assert predict.main(flags) == 0
    out = capsys.readouterr().out
    assert "1 videos have no features at all" in out
    assert "12 of its 216 frames do not count" in out


def test_places_are_those_of_a_merge_by_name_and_number():
    rng = np.random.default_rng(0)
    names = np.array(["b", "a", "é", "10", "9"])
    keys = pd.DataFrame({"video": names[rng.integers(0, 5, 300)], "frame": rng.integers(0, 10**12, 300) // 10**10})
    keys = keys.drop_duplicates().sort_values(["video", "frame"], ignore_index=True)
    keys["video"] = pd.Categorical(keys["video"], categories=sorted(names), ordered=True)
    asked = pd.DataFrame(
        {"video": np.array([*names, "c", None])[rng.integers(0, 7, 500)], "frame": rng.integers(0, 120, 500)}
    )
    place = {(v, f): i for i, (v, f) in enumerate(zip(keys["video"], keys["frame"], strict=True))}
    expected = [place.get((v, f), -1) for v, f in zip(asked["video"], asked["frame"], strict=True)]
    assert places_of(keys, codes_of(keys, asked["video"]), asked["frame"].to_numpy()).tolist() == expected
    assert min(expected) == -1 < max(expected)
    assert places_of(keys[:0], np.zeros(500, int), np.ones(500, int)).tolist() == [-1] * 500


def test_a_million_frames_of_many_videos_are_joined_in_seconds():
    names = [f"video_{i:06}" for i in range(30_000)]
    codes, frame = np.repeat(np.arange(30_000), 33), np.tile(np.arange(33), 30_000)
    keys = pd.DataFrame({"video": pd.Categorical.from_codes(codes, names, ordered=True), "frame": frame})
    video = pd.Series(np.array(names)[codes], dtype="str")
    started = time.process_time()
    assert (places_of(keys, codes_of(keys, video), frame) == np.arange(len(keys))).all()
    assert time.process_time() - started < 10
