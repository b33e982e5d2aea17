import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import google_crc32c
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from numcodecs import zstd

import pipeline.core.store
from pipeline.core.params import UserError
from pipeline.core.store import (
    FeatureStore,
    StoreDamaged,
    StoreMismatch,
    StoreReplaced,
    StoreWriter,
    all_finite,
    differences,
    vouched_for,
)

MADE_BY = {"backbone": "tiny", "input_size": 32, "mean": [0.5, 0.5, 0.5]}
WIDTHS = {"original": 4, "logits": 2}


def keys(video: str, frames: list[int], size: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"video": [video] * len(frames), "frame": frames, "size": [size] * len(frames)})


def features(keys: pd.DataFrame, offset: float = 0.0) -> dict[str, np.ndarray]:
    """Features that tell which frame they are of."""
    rows = keys["frame"].to_numpy()[:, None] + np.arange(4)[None, :] / 8 + offset
    return {"original": rows.astype(np.float16), "logits": -rows[:, :2].astype(np.float16)}


def written(path: Path, *chunks: pd.DataFrame, chunk_rows: int = 8) -> Path:
    with StoreWriter(path, MADE_BY, WIDTHS, chunk_rows) as writer:
        for chunk in chunks:
            writer.write(chunk, features(chunk))
    return path


def bytes_of(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_what_is_written_is_read_by_its_key(tmp_path):
    path = written(tmp_path / "s.zarr", keys("b", [1, 2, 3]), keys("a", [7, 5]), keys("é ü", [1]))
    store = FeatureStore(path)
    assert store.keys[["video", "frame"]].astype({"video": str}).to_numpy().tolist() == [
        ["a", 5], ["a", 7], ["b", 1], ["b", 2], ["b", 3], ["é ü", 1],
    ]  # fmt: skip
    assert store.read(store.keys["row"].to_numpy())[:, 0].tolist() == [5, 7, 1, 2, 3, 1]
    assert store.read(store.keys["row"].to_numpy(), "logits")[:, 0].tolist() == [-5, -7, -1, -2, -3, -1]
    assert (store.num_features, store.views, store.made_by) == (4, ["original"], MADE_BY)


def test_rows_come_in_the_order_asked_for_with_repeats_and_across_chunks(tmp_path):
    store = FeatureStore(written(tmp_path / "s.zarr", keys("a", list(range(8))), keys("b", list(range(8)))))
    rows = np.array([15, 0, 3, 4, 5, 3, 8, 9, 10, 1])
    by_zarr = store.group["views/original"][:][rows]
    np.testing.assert_array_equal(store.read(rows), by_zarr)
    assert store.read(np.array([], dtype=int)).shape == (0, 4)


def test_a_chunk_file_is_read_through_a_memory_map_and_another_codec_through_zarr(tmp_path):
    store = FeatureStore(written(tmp_path / "s.zarr", keys("a", [1, 2])))
    assert isinstance(store.chunk(0), np.memmap)
    group = zarr.open_group(store.path, mode="r+")
    values = group["views/original"][:]
    del group["views/original"]
    group.create_array("views/original", data=values, chunks=(8, 4))  # zarr's default codecs compress
    again = FeatureStore(store.path)
    assert not isinstance(again.chunk(0), np.memmap)
    np.testing.assert_array_equal(again.read(np.array([1, 0])), values[[1, 0]])


def test_the_store_can_be_read_with_zarr_alone(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]), keys("b", [3]))
    group = zarr.open_group(path, mode="r")
    there = group["frame"][:] >= 0
    assert group["video"][:][there].tolist() == ["a", "a", "b"]
    assert group["views/original"][:][there][:, 0].tolist() == [1, 2, 3]
    assert group.attrs["made_by"] == MADE_BY


def test_a_later_run_starts_a_new_chunk_and_leaves_every_old_byte(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2, 3]))
    before = {name: content for name, content in bytes_of(path).items() if "/c/" in name}
    written(path, keys("b", [1]))
    after = bytes_of(path)
    assert len(before) == 5
    assert {name: after[name] for name in before} == before
    assert len(FeatureStore(path).keys) == 4


def test_of_two_rows_with_one_key_the_later_one_counts(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2], size=10), keys("a", [2], size=99))
    with StoreWriter(path, MADE_BY, WIDTHS) as writer:
        again = keys("a", [1], size=77)
        writer.write(again, features(again, offset=100))
    store = FeatureStore(path)
    assert store.keys["size"].tolist() == [77, 99]
    assert store.read(store.keys["row"].to_numpy())[:, 0].tolist() == [101, 2]


def test_rows_count_only_once_their_frame_numbers_are_written(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]), keys("b", [1, 2]))
    whole = bytes_of(path)
    (path / "frame" / "c" / "1").unlink()  # as if killed before the commit mark of the second chunk
    assert FeatureStore(path).keys["video"].tolist() == ["a", "a"]
    (path / "views" / "original" / "c" / "1" / "abc.partial").write_bytes(b"torn")
    written(path, keys("b", [1, 2]))
    assert bytes_of(path) == whole


def test_a_store_of_something_else_is_refused_with_both_sides_and_the_way_out(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    other = MADE_BY | {"backbone": "huge", "crop_source": "cropped"}
    with pytest.raises(StoreMismatch, match=r"backbone 'tiny' there, 'huge' here.*'cropped' here.*--rebuild"):
        StoreWriter(path, other, WIDTHS).__enter__()
    written(path, keys("b", [1]))  # the refused writer holds no lock


def test_equal_facts_as_tuples_and_lists_are_no_difference(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    with StoreWriter(path, MADE_BY | {"mean": (0.5, 0.5, 0.5)}, WIDTHS):
        pass
    assert differences({"a": 1}, {"a": 1}) == ""


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 3, 9, 11], [11, 2, 2, 9]])
def test_rows_are_read_into_the_array_that_is_given(tmp_path, rows):
    path = written(tmp_path / "s.zarr", keys("a", list(range(8))), keys("b", list(range(4))))
    whole = np.full((6, 4), -1, np.float16)
    store = FeatureStore(path)
    for _ in range(2):  # when a chunk is first read, and again
        whole[1:5] = -1
        assert store.read(np.array(rows), out=whole[1:5]).base is whole
        np.testing.assert_array_equal(whole[1:5], zarr.open_group(path)["views/original"][:][rows])
        assert (whole[[0, 5]] == -1).all()


def test_what_the_user_vouches_for_is_taken_as_alike_and_nothing_else_is():
    mine = {"backbone": "tiny", "input_size": 32, "crop_source": "cropped"}
    said = "crop_source 'cropped' there, {} here"
    assert vouched_for("no", mine, dict(mine), []) == vouched_for("no", mine, dict(mine), ["crop_source"]) == ""
    for other, there in ((mine | {"crop_source": "loose"}, "'loose'"), ({**mine, "crop_source": None}, "None")):
        assert vouched_for("no", mine, other, ["crop_source"]) == said.format(there)
        with pytest.raises(UserError, match=rf"^no: {said.format(there)}\. If these are .* --alike crop_source$"):
            vouched_for("no", mine, other, [])
    lacking = {"backbone": "tiny", "input_size": 32}  # an import that does not say how its images were cut
    assert vouched_for("no", lacking, mine, ["crop_source"]) == "crop_source None there, 'cropped' here"
    for alike in ([], ["crop_source"]):  # then the user's word is no way out, and is not named as one
        with pytest.raises(UserError, match=r"^no: .*input_size 32 there, 64 here$"):
            vouched_for("no", mine, mine | {"crop_source": "loose", "input_size": 64}, alike)


def test_a_second_writer_is_refused_at_once_and_told_who_writes(tmp_path):
    path = tmp_path / "s.zarr"
    code = (
        "import sys; from pathlib import Path; from pipeline.core.store import StoreWriter\n"
        f"with StoreWriter(Path(sys.argv[1]), {MADE_BY!r}, {WIDTHS!r}): print('in', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(UserError, match=f"is being written by process {holder.pid} on"):
        StoreWriter(path, MADE_BY, WIDTHS).__enter__()
    holder.kill()
    holder.communicate()
    written(path, keys("a", [1]))  # the lock of a dead process holds nobody up


@pytest.mark.parametrize("name", ["features.npy", "nothing.zarr", "features.h5"])
def test_what_is_no_store_is_refused_in_words(tmp_path, name):
    with pytest.raises(UserError, match="no feature store at"):
        FeatureStore(tmp_path / name)


def test_a_zarr_group_of_another_kind_is_not_read(tmp_path):
    zarr.create_group(tmp_path / "g.zarr").create_array("x", data=np.arange(3))
    with pytest.raises(UserError, match="not a feature store"):
        FeatureStore(tmp_path / "g.zarr")


def test_an_unknown_view_is_refused_with_those_there_are(tmp_path):
    store = FeatureStore(written(tmp_path / "s.zarr", keys("a", [1])))
    with pytest.raises(UserError, match=r"'flipped' is not in the store .* which has \['original', 'logits'\]"):
        store.read(np.array([0]), "flipped")


def test_a_missing_or_short_chunk_file_is_damage_that_is_named(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    file = path_of(FeatureStore(path), 0)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="damaged"):
        FeatureStore(path).read(np.array([0]))
    file.unlink()
    with pytest.raises(UserError, match="damaged"):
        FeatureStore(path).read(np.array([0]))


def test_a_chunk_of_too_many_rows_is_a_programming_error(tmp_path):
    with StoreWriter(tmp_path / "s.zarr", MADE_BY, WIDTHS, 2) as writer, pytest.raises(ValueError, match="1 to 2 rows"):
        writer.write(keys("a", [1, 2, 3]), features(keys("a", [1, 2, 3])))


def test_a_place_that_cannot_be_written_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        StoreWriter(tmp_path / "file" / "s.zarr", MADE_BY, WIDTHS).__enter__()


def test_features_that_are_all_zero_are_stored_like_others(tmp_path):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, MADE_BY, WIDTHS, 2) as writer:
        writer.write(keys("a", [1]), {"original": np.zeros((1, 4)), "logits": np.zeros((1, 2))})
    assert FeatureStore(path).read(np.array([0])).tolist() == [[0, 0, 0, 0]]


def test_made_by_is_plain_json(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    assert json.loads((path / "zarr.json").read_text())["attributes"]["made_by"] == MADE_BY


def test_every_chunk_file_ends_in_a_checksum(tmp_path):
    store = FeatureStore(written(tmp_path / "s.zarr", keys("a", [1])))
    for name in ("views/original", "logits", "video", "size", "frame"):
        assert type(store.group[name].metadata.codecs[-1]).__name__ == "Crc32cCodec", name


def names_of_chunks() -> dict[str, list[str]]:
    """The names of 300 rows: what decoding by stretches of equal names could get wrong."""
    rng = random.Random(0)
    return {
        "one video": ["v"] * 300,
        "some videos": ["aa"] * 100 + ["a"] * 1 + ["aaaa"] * 150 + ["aa"] * 49,
        "a name of zeros": ["\0"] * 150 + ["\0\0\0\0\0"] * 150,
        "a name like its own length": ["\1\0\0\0\1"] * 200 + ["\1"] * 100,
        "no letters of ASCII": ["é ü"] * 100 + ["日本"] * 200,
        "each its own, of one length": [f"{n:03}" for n in rng.sample(range(300), 300)],
        "each its own": [str(n) for n in rng.sample(range(300), 300)],
        "turns": ["a", "b"] * 150,
    }


@pytest.mark.parametrize("names", names_of_chunks().values(), ids=names_of_chunks())
def test_keys_are_those_that_zarr_reads(tmp_path, names):
    """``FeatureStore`` decodes the chunks of keys itself; the last one is not full."""
    frame = np.random.default_rng(0).permutation(300)
    table = pd.DataFrame({"video": names, "frame": frame, "size": frame + 10})
    path = written(tmp_path / "s.zarr", table[:128], table[128:256], table[256:], chunk_rows=128)
    group = zarr.open_group(path, mode="r")
    there = np.flatnonzero(group["frame"][:] >= 0)
    columns = {name: group[name][:][there] for name in ("video", "frame", "size")}
    expected = sorted(zip(*(columns[name].tolist() for name in columns), there.tolist(), strict=True))
    found = FeatureStore(path).keys
    assert list(zip(*(found[name].tolist() for name in found), strict=True)) == expected
    assert found["video"].cat.categories.tolist() == sorted(set(names))
    assert found["video"].cat.ordered


def test_keys_of_a_store_with_other_codecs_are_read_by_zarr(tmp_path):
    """As a copy made by another tool may have."""
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]), keys("b", [7]))
    expected = FeatureStore(path).keys
    group = zarr.open_group(path, mode="r+")
    for name in ("video", "frame", "size"):
        values, array = group[name][:], group[name]
        fill = {"fill_value": array.fill_value, "dtype": array.dtype if name != "video" else str}
        group.create_array(name, shape=values.shape, chunks=array.chunks, compressors=None, overwrite=True, **fill)
        group[name].with_config({"write_empty_chunks": True})[:] = values
    pd.testing.assert_frame_equal(FeatureStore(path).keys, expected)


def test_opening_asks_zarr_for_no_chunk_of_keys(tmp_path, monkeypatch):
    """It takes zarr a millisecond a chunk: 2 s for the 2,200 of 3 M frames."""
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]), keys("b", [7]))
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda *_: pytest.fail("a chunk was read by zarr"))
    assert FeatureStore(path).keys["frame"].tolist() == [1, 2, 7]


def test_a_store_keeps_the_chunk_rows_that_it_was_made_with(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]), chunk_rows=4)
    written(path, keys("b", [1, 2, 3, 4]), chunk_rows=100)
    assert FeatureStore(path).chunk_rows == 4
    assert FeatureStore(path).keys["row"].tolist() == [0, 1, 4, 5, 6, 7]


def test_a_chunk_that_a_killed_run_had_begun_is_taken_away_where_nothing_comes_after_it(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]))
    whole = bytes_of(path)
    written(path, keys("b", [1]))
    (path / "frame" / "c" / "1").unlink()
    with StoreWriter(path, MADE_BY, WIDTHS):
        pass
    assert bytes_of(path) == whole


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="only Linux says what is mapped")
def test_rows_that_are_let_go_take_no_memory_and_can_be_read_again(tmp_path):
    def mapped():
        """kB of the store's chunks that are with this process."""
        maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
        return sum(int(re.search(r"Rss: +(\d+)", text)[1]) for text in maps if str(tmp_path) in text)

    values = np.random.default_rng(0).standard_normal((2048, 1024)).astype(np.float16)
    with StoreWriter(tmp_path / "s.zarr", MADE_BY, {"original": 1024}, 1024) as writer:
        for start in (0, 1024):
            keys = pd.DataFrame({"video": "v", "frame": range(start, start + 1024), "size": 1})
            writer.write(keys, {"original": values[start : start + 1024]})
    store, rows = FeatureStore(tmp_path / "s.zarr"), np.arange(0, 2048, 5)
    store.read(rows)  # checks the chunks, a piece at a time
    np.testing.assert_array_equal(store.read(rows), values[rows])
    assert mapped() > 1000
    store.let_go(rows)
    assert mapped() == 0
    np.testing.assert_array_equal(store.read(rows), values[rows])


def test_long_runs_of_rows_are_read_like_short_ones(tmp_path, monkeypatch):
    store = FeatureStore(written(tmp_path / "s.zarr", keys("a", list(range(8))), keys("b", list(range(7)))))
    by_zarr = store.group["views/original"][:]
    monkeypatch.setattr("pipeline.core.store._STREAM_BYTES", 8)
    for rows in (np.arange(15), np.arange(3, 12), np.array([2, 3, 4, 9, 9, 8, 0]), np.array([7, 6, 5])):
        np.testing.assert_array_equal(store.read(rows), by_zarr[rows])
    file = path_of(store, 0)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(StoreDamaged, match="too short"):
        FeatureStore(store.path).read(np.arange(8))
    file.unlink()
    with pytest.raises(StoreDamaged, match="missing"):
        FeatureStore(store.path).read(np.arange(8))


def path_of(store: FeatureStore, index: int) -> Path:
    return store.path / "views" / "original" / "c" / str(index) / "0"


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        ("12 elsewhere", r"process 12 on elsewhere, another machine \(if it has died .* delete .*s\.zarr\.lock\)"),
        ("{dead} {here}", "by another process; one writer"),
        ("{alive} {here}", "by process {alive} on {here}; one writer"),
        ("", "by another process; one writer"),
    ],
)
def test_the_holder_of_the_lock_is_named_as_far_as_its_note_can_be_true(tmp_path, holder, words):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    facts = {"dead": done.pid, "alive": os.getpid(), "here": socket.gethostname()}
    path = tmp_path / "s.zarr"
    with StoreWriter(path, MADE_BY, WIDTHS):
        (tmp_path / "s.zarr.writer").write_text(holder.format(**facts))
        with pytest.raises(UserError, match=words.format(**facts)):
            StoreWriter(path, MADE_BY, WIDTHS).__enter__()


def test_a_note_left_by_a_dead_writer_holds_nobody_up(tmp_path):
    (tmp_path / "s.zarr.writer").write_text("12 elsewhere\n")
    written(tmp_path / "s.zarr", keys("a", [1]))
    assert {p.name for p in tmp_path.iterdir()} == {"s.zarr", "s.zarr.lock"}


# --- damage is found where it is read --------------------------------------------------------------------------------


def flipped_bit(file: Path, place: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    file.write_bytes(content)


WAYS = {
    "a row": lambda store: store.read(np.array([9])),
    "rows out of order": lambda store: store.read(np.array([9, 8])),
    "a whole chunk": lambda store: store.read(np.arange(8, 16)),
    "all": lambda store: store.read(np.arange(24)),
    "the map": lambda store: store.chunk(1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])  # the last byte is one of the checksum
@pytest.mark.parametrize("streamed", [False, True])
def test_a_flipped_bit_is_an_error_that_names_file_frames_and_way_out_however_it_is_read(
    tmp_path, monkeypatch, way, place, streamed
):
    path = written(tmp_path / "s.zarr", *(keys(v, list(range(8))) for v in "abc"))
    monkeypatch.setattr("pipeline.core.store._STREAM_BYTES", 8 if streamed else 1 << 20)
    flipped_bit(path / "views/original/c/1/0", place)
    store = FeatureStore(path)
    with pytest.raises(
        StoreDamaged, match=r"s.zarr/views/original/c/1/0: .* its checksum \(frames b 0-7\).*--verify.*--repair"
    ):
        WAYS[way](store)
    assert store.read(np.arange(8))[:, 0].tolist() == list(range(8))  # the others are as they were
    assert store.read(np.arange(8, 16), "logits")[:, 0].tolist() == [-i for i in range(8)]


def test_every_chunk_that_is_read_is_checked_and_only_once(tmp_path, monkeypatch):
    store = FeatureStore(written(tmp_path / "s.zarr", *(keys(v, list(range(8))) for v in "abc")))
    real, seen = google_crc32c.extend, []
    monkeypatch.setattr(google_crc32c, "extend", lambda crc, piece: seen.append(bytes(piece)) or real(crc, piece))
    files = [
        (store.path / f"{name}/c/{i}/0").read_bytes()[:-4] for name in ("views/original", "logits") for i in range(3)
    ]
    store.read(np.array([0, 20]))
    assert seen == [files[0], files[2]]
    store.read(np.arange(24))
    store.chunk(0)
    store.read(np.arange(24))
    store.read(np.array([0]), "logits")
    assert seen == [files[0], files[2], files[1], files[3]]


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_finite_is_damage_though_its_checksum_fits(tmp_path, way, value):
    """zarr gives whatever somebody writes into the store a fitting checksum."""
    path = written(tmp_path / "s.zarr", *(keys(v, list(range(8))) for v in "abc"))
    zarr.open_group(path, mode="r+")["views/original"][12, 3] = value
    with pytest.raises(StoreDamaged, match=r"original/c/1/0: it holds values that are not finite \(frames b 0-7\)"):
        WAYS[way](FeatureStore(path))


def test_every_float16_is_told_finite_or_not():
    every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    assert [all_finite(every[i : i + 1]) for i in range(2**16)] == np.isfinite(every).tolist()
    assert all_finite(every[np.isfinite(every)])
    assert all_finite(np.empty((0, 4), np.float16))
    assert not all_finite(np.array([1, np.nan], np.float32))


def test_of_many_stretches_of_frames_in_a_damaged_chunk_three_are_named(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2, 4, 6, 8, 9]))
    flipped_bit(path / "views/original/c/0/0")
    with pytest.raises(StoreDamaged, match=r"\(frames a 1-2, a 4, a 6, and 1 more\)"):
        FeatureStore(path).read(np.array([0]))


# --- what is stale in the group --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("where", [None, "views"])
def test_a_store_with_consolidated_metadata_loses_no_row_and_is_freed_of_it(tmp_path, where):
    """zarr 3.1.6: ``open_group`` trusts the copy in zarr.json, and a group opened without it trusts its sub-groups'."""
    path = written(tmp_path / "s.zarr", keys("a", list(range(8))))
    zarr.consolidate_metadata(path, path=where)
    file = path / (where or "") / "zarr.json"
    stale = file.read_bytes()
    for video in "bc":
        file.write_bytes(stale)  # the copy that still says 8 rows
        written(path, keys(video, list(range(8))))
        assert len(FeatureStore(path).keys) == 8 * (ord(video) - ord("a") + 1)
        plain = zarr.open_group(path, mode="r")
        assert (plain["frame"][:] >= 0).sum() == plain["views"]["original"].shape[0] == len(FeatureStore(path).keys)
    assert rows_of(FeatureStore(path)) == [*range(8)] * 3
    zarr.consolidate_metadata(path, path=where)
    with StoreWriter(path, MADE_BY, WIDTHS) as writer:
        writer.write(keys("d", [1]), features(keys("d", [1])))
        zarr.consolidate_metadata(path, path=where)  # in mid-run, and then more rows
        writer.write(keys("e", [1]), features(keys("e", [1])))
    assert rows_of(FeatureStore(path)) == [*range(8)] * 3 + [1, 1]
    assert (zarr.open_group(path, mode="r")["frame"][:] >= 0).sum() == 26


def rows_of(store: FeatureStore) -> list[float]:
    return store.read(store.keys["row"].to_numpy())[:, 0].tolist()


def test_arrays_of_others_in_the_group_are_neither_read_nor_changed(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]))
    group = zarr.open_group(path, mode="r+")
    group.create_array("views/umap", data=np.ones((2, 2), np.float32))
    group.create_array("clusters", data=np.arange(2))
    theirs = {k: v for k, v in bytes_of(path).items() if "umap" in k or "clusters" in k}
    written(path, keys("b", [1]))
    store = FeatureStore(path)
    assert store.views == ["original"]
    assert rows_of(store) == [1, 2, 1]
    assert {k: v for k, v in bytes_of(path).items() if k in theirs} == theirs


def test_a_view_that_the_store_was_made_with_and_that_is_gone_is_damage(tmp_path):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, {}, {"original": 4, "flipped": 4}, 8) as writer:
        writer.write(keys("a", [1]), {"original": np.ones((1, 4)), "flipped": np.ones((1, 4))})
    shutil.rmtree(path / "views" / "flipped")
    with pytest.raises(StoreDamaged, match=r"views/flipped/zarr.json: the file is missing"):
        FeatureStore(path)


def test_a_zarr_json_older_than_the_rows_is_damage_and_nothing_is_written_over(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    old = (path / "frame" / "zarr.json").read_bytes()
    written(path, keys("b", [1]))
    (path / "frame" / "zarr.json").write_bytes(old)
    before = bytes_of(path)
    with pytest.raises(StoreDamaged, match=r"frame/zarr.json: it says 8 rows, and there are more"):
        FeatureStore(path)
    with pytest.raises(StoreDamaged, match="there are more"):
        written(path, keys("c", [1]))
    assert bytes_of(path) == before


def test_features_of_another_width_are_refused_in_words(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    with pytest.raises(StoreMismatch, match="original 4 there, 5 here"):
        StoreWriter(path, MADE_BY, WIDTHS | {"original": 5}).__enter__()


def test_every_array_names_its_axes_so_that_xarray_opens_the_store(tmp_path):
    """xarray refuses a Zarr v3 array without dimension_names, and a group in which a name has two lengths."""
    path = tmp_path / "s.zarr"
    widths = {"original": 4, "flipped": 4, "small": 3, "logits": 2}
    with StoreWriter(path, {}, widths, 8) as writer:
        writer.write(keys("a", [1, 2]), {name: np.ones((2, width)) for name, width in widths.items()})
    names, lengths = {}, {}
    for file in path.rglob("zarr.json"):
        facts = json.loads(file.read_text())
        if facts["node_type"] == "array":
            names[str(file.parent.relative_to(path))] = facts["dimension_names"]
            for name, length in zip(facts["dimension_names"], facts["shape"], strict=True):
                lengths.setdefault((file.parent.parent, name), set()).add(length)
    assert names == {
        "video": ["row"], "frame": ["row"], "size": ["row"], "logits": ["row", "output"],
        "views/original": ["row", "feature"], "views/flipped": ["row", "feature"],
        "views/small": ["row", "feature of small"],
    }  # fmt: skip
    assert all(len(found) == 1 for found in lengths.values())


def test_xarray_opens_the_store(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]))
    root, views = xarray.open_zarr(path, consolidated=False), xarray.open_zarr(path, group="views", consolidated=False)
    assert root["frame"].values[:2].tolist() == [1, 2]
    assert views["original"].values[:2, 0].tolist() == [1, 2]


def test_a_store_made_before_axes_and_arrays_were_named_is_read_and_grows(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]))
    for file in path.rglob("zarr.json"):
        facts = json.loads(file.read_text())
        facts.pop("dimension_names", None)
        for name in ("arrays", "sha256"):
            facts["attributes"].pop(name, None)
        file.write_text(json.dumps(facts))
    written(path, keys("b", [3]))
    assert rows_of(FeatureStore(path)) == [1, 2, 3]


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_link_and_what_it_leads_to_are_one_store_with_one_writer(tmp_path):
    (tmp_path / "scratch").mkdir()
    link, real = tmp_path / "s.zarr", tmp_path / "scratch" / "real.zarr"
    link.symlink_to(real)
    written(link, keys("a", [1]))  # where nothing is yet
    assert link.is_symlink()
    for one, other in ((link, real), (real, link)):
        with StoreWriter(one, MADE_BY, WIDTHS), pytest.raises(UserError, match="is being written by"):
            StoreWriter(other, MADE_BY, WIDTHS).__enter__()
    written(real, keys("b", [1]))
    assert rows_of(FeatureStore(link)) == rows_of(FeatureStore(real)) == [1, 1]
    assert FeatureStore(link).path == link  # beside which its tables lie
    assert {p.name for p in tmp_path.iterdir()} == {"scratch", "s.zarr"}
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(UserError, match="a link that leads to itself"):
        FeatureStore(link)


# --- readers while the store is replaced -----------------------------------------------------------------------------


def replace(path: Path, other: Path) -> None:
    """As --compact does it."""
    path.rename(path.with_name(f".{path.name}.old"))
    other.rename(path)
    shutil.rmtree(path.with_name(f".{path.name}.old"))


def test_an_open_reader_never_reads_from_a_store_that_took_the_place_of_its_own(tmp_path):
    old, new = keys("a", list(range(8))), keys("b", list(range(100, 108)))
    path = written(tmp_path / "s.zarr", old, keys("c", [1]))
    store = FeatureStore(path)
    mapped = store.read(np.arange(8))
    replace(path, written(tmp_path / "new.zarr", new, keys("c", [1])))
    np.testing.assert_array_equal(store.read(np.array([3, 2])), mapped[[3, 2]])  # which it has mapped
    for rows, name in ((np.array([8]), "original"), (np.arange(8), "logits"), (np.arange(3, 5), "logits")):
        with pytest.raises(StoreReplaced, match=r"was replaced .* while it was read: run again"):
            store.read(rows, name)
    assert rows_of(FeatureStore(path)) == [*range(100, 108), 1]


def test_an_open_reader_goes_on_while_the_old_store_is_only_renamed(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", list(range(8))))
    store = FeatureStore(path)
    path.rename(tmp_path / "s.zarr.replaced")
    written(path, keys("b", list(range(100, 108))))
    assert store.read(np.arange(8))[:, 0].tolist() == list(range(8))


def test_a_reader_that_opens_while_stores_are_replaced_sees_a_whole_one_each_time(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [0]))
    many = [written(tmp_path / f"{n}.zarr", keys(f"v{n}", [n])) for n in range(1, 20)]
    rng = random.Random(0)
    thread = threading.Thread(
        target=lambda: [time.sleep(rng.uniform(0, 0.04)) or replace(path, other) for other in many]
    )
    thread.start()
    seen = []
    while thread.is_alive():
        store = FeatureStore(path)
        assert len(store.keys) == 1
        seen.append(int(store.keys["frame"].iloc[0]))
        with suppress(StoreReplaced):
            assert rows_of(store) == [seen[-1]]
    thread.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert FeatureStore(path).keys["frame"].tolist() == [19]


def test_a_reader_never_takes_some_of_the_old_store_and_some_of_the_new(tmp_path, monkeypatch):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    new = written(tmp_path / "new.zarr", keys("b", [2]), chunk_rows=4)
    real = pipeline.core.store._keys

    def replaced_meanwhile(*what):
        found = real(*what)
        if new.exists():
            replace(path, new)
        return found

    monkeypatch.setattr("pipeline.core.store._keys", replaced_meanwhile)
    store = FeatureStore(path)
    assert (store.keys["frame"].tolist(), store.chunk_rows, rows_of(store)) == ([2], 4, [2])


def test_a_store_that_is_replaced_as_soon_as_it_is_open_keeps_its_own_chunk_rows(tmp_path, monkeypatch):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    new = written(tmp_path / "new.zarr", keys("b", [2]), chunk_rows=4)
    real = pipeline.core.store._opened

    def then_replaced(*what):
        found = real(*what)
        replace(path, new)
        return found

    monkeypatch.setattr("pipeline.core.store._opened", then_replaced)
    assert FeatureStore(path).chunk_rows == 8


def test_a_reader_that_opens_in_the_gap_waits_for_the_new_store(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1]))
    path.rename(tmp_path / ".s.zarr.old")
    timer = threading.Timer(0.2, lambda: written(tmp_path / "new.zarr", keys("b", [2])).rename(path))
    timer.start()
    assert FeatureStore(path).keys["frame"].tolist() == [2]
    timer.join()


def test_names_that_are_no_text_though_their_checksum_fits_are_damage_and_never_other_names(tmp_path):
    path = written(tmp_path / "s.zarr", keys("video", [1, 2]))
    (file,) = (path / "video" / "c").glob("*")
    plain = bytearray(zstd.decompress(file.read_bytes()[:-4]))
    plain[plain.index(b"video")] = 0xFF
    content = zstd.compress(bytes(plain))
    file.write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
    with pytest.raises(StoreDamaged, match="utf-8"):
        FeatureStore(path)
