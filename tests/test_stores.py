"""Several stores side by side: rows joined by key, columns put together, and masked where a store lacks a row."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.adapter import sources
from pipeline.adapter.front import Front, Fronts
from pipeline.core import projection
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.stores import Stores, each_store, side_by_side, store_names, vouched_for

CPU = torch.device("cpu")


def table(rows, width, seed):
    """Keys and features by hand: ``rows`` are (video, frame), in the order in which they are appended."""
    values = np.random.default_rng(seed).standard_normal((len(rows), width)).astype(np.float16)
    return pd.DataFrame(rows, columns=["video", "frame"]), values


def write(path, keys, values, made_by, more=None, chunk_rows=4):
    arrays = {"original": values} | (more or {})
    with StoreWriter(path, made_by, {name: of.shape[1] for name, of in arrays.items()}, chunk_rows) as writer:
        for start in range(0, len(keys), chunk_rows):
            some = slice(start, start + chunk_rows)
            writer.write(keys[some].assign(size=1), {name: of[some] for name, of in arrays.items()})
    return path


# Three stores of overlapping rows, each appended in another order; the second has a further view and logits.
FACES = [("b", f) for f in range(1, 8)] + [("a", f) for f in (1, 2, 5)]
CONTEXT = [("c", 3), ("a", 5), ("a", 1), ("b", 6), ("b", 2), ("b", 100)]
AUDIO = [("a", f) for f in range(0, 7)] + [("b", f) for f in range(3, 6)]
EACH = {"faces": (FACES, 3, {}), "context": (CONTEXT, 2, {"flipped": 2, "logits": 4}), "audio": (AUDIO, 5, {})}


@pytest.fixture
def by_hand(tmp_path):
    paths, tables = [], {}
    for seed, (name, (rows, width, more)) in enumerate(EACH.items()):
        keys, values = table(rows, width, seed)
        arrays = {of: table(rows, wide, 10 + seed)[1] for of, wide in more.items()}
        paths.append(write(tmp_path / f"{name}.zarr", keys, values, {"backbone": name, "outputs": [*more]}, arrays))
        tables[name] = keys, values, arrays
    return Stores([FeatureStore(path) for path in paths]), tables


def joined(tables, array="original"):
    """The outer join of all tables by pandas, NaN where a store lacks a row; of another view, where a store has it."""
    whole = None
    for name, (keys, values, arrays) in tables.items():
        values = arrays.get(array, values)
        columns = [f"{name}{k}" for k in range(values.shape[1])]
        of_one = pd.concat([keys, pd.DataFrame(values.astype(float), columns=columns)], axis=1)
        whole = of_one if whole is None else whole.merge(of_one, on=["video", "frame"], how="outer")
    return whole.sort_values(["video", "frame"], ignore_index=True)


@pytest.mark.parametrize("view", ["original", "flipped"])
def test_rows_are_the_outer_join_by_video_and_frame_with_zeros_where_a_store_lacks_them(by_hand, view):
    stores, tables = by_hand
    expected = joined(tables, view)
    assert stores.keys["video"].tolist() == expected["video"].tolist()
    assert stores.keys["frame"].tolist() == expected["frame"].tolist()
    assert sorted(stores.keys["row"]) == list(range(len(expected)))
    values = expected.drop(columns=["video", "frame"])
    rows = stores.keys["row"].to_numpy()
    assert np.array_equal(stores.read(rows, view), values.fillna(0).to_numpy().astype(np.float16))
    shuffled = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(stores.read(rows[shuffled], view), stores.read(rows, view)[shuffled])
    there = values[["faces0", "context0", "audio0"]].notna().to_numpy()
    assert np.array_equal(stores.present(rows), there)
    assert stores.present(rows[there.all(axis=1)]) is None
    assert stores.lacking() == (~there).sum(axis=0).tolist()


def test_rows_are_numbered_in_the_order_of_the_first_store_so_that_reading_is_sequential(by_hand):
    stores, _ = by_hand
    own = stores.own_rows(np.arange(len(stores.keys)), 0)
    assert own[: len(FACES)].tolist() == list(range(len(FACES)))
    assert (own[len(FACES) :] == -1).all()


def test_logits_are_those_of_the_store_that_has_some_and_zeros_in_rows_that_it_lacks(by_hand):
    stores, tables = by_hand
    keys, _, arrays = tables["context"]
    expected = {key: row for key, row in zip(keys.itertuples(index=False, name=None), arrays["logits"], strict=True)}
    assert stores.made_by["outputs"] == ["flipped", "logits"]
    found = stores.read(stores.keys["row"].to_numpy(), "logits")
    for key, row in zip(stores.keys[["video", "frame"]].itertuples(index=False, name=None), found, strict=True):
        assert np.array_equal(row, expected.get(key, np.zeros(4)))


def test_one_store_is_itself(by_hand):
    store = by_hand[0].stores[0]
    assert side_by_side([store]) is store


def test_stores_that_share_no_frame_or_are_named_twice_are_refused(by_hand, tmp_path):
    faces = by_hand[0].stores[0]
    other = write(tmp_path / "other.zarr", *table([("a.mp4", 1)], 2, 0), {"backbone": "x"})
    with pytest.raises(UserError, match=r"faces and other have no frame in common.*a/1, the other a\.mp4/1"):
        side_by_side([faces, FeatureStore(other)])
    with pytest.raises(UserError, match="more than once"):
        each_store([tmp_path / "faces.zarr", tmp_path / "faces.zarr"])


def test_stores_of_one_name_are_told_apart_by_their_folders(tmp_path):
    assert store_names([tmp_path / "x/features.zarr", tmp_path / "y/features.zarr"]) == ["x/features", "y/features"]


def test_an_adapter_refuses_other_stores_fewer_stores_and_another_order(by_hand):
    stores, _ = by_hand
    ours = stores.made_by
    assert vouched_for("no", ours, ours, []) == ""
    renamed = ours | {"stores": [of | {"name": "test_" + of["name"]} for of in ours["stores"]]}
    assert vouched_for("no", ours, renamed, []) == ""  # a test set has stores of its own
    with pytest.raises(UserError, match=r"needs 3 stores \(faces, context, audio\), and here is one store"):
        vouched_for("no", ours, {"backbone": "faces"}, [])
    with pytest.raises(UserError, match="needs one store, and here is 3 stores"):
        vouched_for("no", {"backbone": "faces"}, ours, [])
    turned = ours | {"stores": ours["stores"][::-1]}
    with pytest.raises(UserError, match="the same in another order, which is faces, context, audio"):
        vouched_for("no", ours, turned, [])
    other = {"name": "audio", "made_by": {"backbone": "wav2vec2", "outputs": []}}
    with pytest.raises(UserError, match="in the store audio: backbone 'audio' there, 'wav2vec2' here"):
        vouched_for("no", ours, ours | {"stores": [*ours["stores"][:2], other]}, [])
    loose = {"name": "audio", "made_by": ours["stores"][2]["made_by"] | {"crop_source": "loose"}}
    said = vouched_for("no", ours, ours | {"stores": [*ours["stores"][:2], loose]}, ["crop_source"])
    assert said == "audio: crop_source None there, 'loose' here"


@pytest.mark.parametrize("normalise", ["none", "centre", "standardise"])
@pytest.mark.parametrize("projected", [False, True])
def test_each_store_has_a_front_of_its_own_from_memory_and_from_disk_and_what_is_absent_is_zero(
    by_hand, projected, normalise
):
    stores, tables = by_hand
    blocks, expected = [], []
    for number, (name, (_, values, _)) in enumerate(tables.items()):
        components = projection.fit([values], 2) if projected and name == "audio" else None
        front = Front(values.shape[1], 2 if components else None)
        if components:
            front.project_with(components)
        front.fit([values], normalise, to_unit=True)
        blocks.append(front)
        x = values.astype(np.float64)
        x = (x - components.mean) @ components.components.T if components else x
        x = x - x.mean(axis=0) if normalise != "none" else x
        if normalise == "centre":
            x /= np.sqrt(x.var(axis=0).mean())
        if normalise == "standardise":
            x /= np.maximum(x.std(axis=0), 0.1 * x.std(axis=0).mean())
        own = stores.own_rows(stores.keys["row"].to_numpy(), number)
        order = np.append(x, np.zeros((1, x.shape[1])), axis=0)
        expected.append(order[own])
    expected = np.concatenate(expected, axis=1)
    fronts, rows = Fronts(blocks), stores.keys["row"].to_numpy()
    disk = sources.FromDisk(stores, rows, fronts, CPU)
    every = torch.arange(len(rows))
    for source in (disk, disk.hold(np.arange(len(rows)))):
        found = source.take(every)
        assert torch.allclose(found, torch.from_numpy(expected).float(), atol=2e-5)
        for number, of_store in enumerate(fronts.columns):
            absent = stores.own_rows(rows, number) < 0
            assert (found[torch.from_numpy(absent)][:, of_store] == 0).all()  # not nearly: as if nothing were there
        windows, valid = source.gather(torch.tensor([[0, -1, 3]]))
        assert torch.equal(windows[0], torch.stack([found[0], torch.zeros_like(found[0]), found[3]]))
        assert valid.tolist() == [[True, False, True]]
    assert fronts.num_inputs == expected.shape[1]


def test_the_unit_of_a_store_does_not_matter(by_hand):
    """Sound a hundred times as loud is the same sound: centred columns of a store are divided by one number."""
    _, tables = by_hand
    values = tables["audio"][1].astype(np.float32)
    found = []
    for times in (1, 100):
        front = Front(5, None)
        front.fit([values * times], "centre", to_unit=True)
        found.append(front(torch.from_numpy(values * times)))
    assert torch.allclose(*found, atol=1e-4)


def test_each_store_is_read_in_blocks_as_large_as_those_of_one_store_alone(by_hand, monkeypatch):
    stores, tables = by_hand
    fronts = Fronts([Front(values.shape[1], None) for _, values, _ in tables.values()])
    rows, read, plain = stores.keys["row"].to_numpy(), [], FeatureStore.read

    def counted(store, wanted, *rest):
        read.append((store.path.stem, len(wanted)))
        return plain(store, wanted, *rest)

    monkeypatch.setattr(FeatureStore, "read", counted)
    held = sources.FromDisk(stores, rows, fronts, CPU, room=40 * 64).hold(np.arange(len(rows)))  # blocks of 40 bytes
    expected = joined(tables).drop(columns=["video", "frame"]).fillna(0).to_numpy().astype(np.float16)
    assert np.array_equal(torch.cat(held.values, dim=1).numpy(), expected)
    assert read == [*(("faces", n) for n in (6, 4)), ("context", 6), *(("audio", n) for n in (4, 4, 2))]
