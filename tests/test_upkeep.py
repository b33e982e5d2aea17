import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_store import MADE_BY, WIDTHS, bytes_of, features, keys, written

from pipeline.extraction.upkeep import compact, drop, verify
from pipeline.params import UserError
from pipeline.store import FeatureStore, StoreDamaged, StoreWriter

ARRAYS = ["views/original", "logits", "video", "size", "frame"]


@pytest.fixture
def store(tmp_path) -> Path:
    """Three chunks: a 1-8, b 1-5, c 1-8."""
    return written(
        tmp_path / "s.zarr", keys("a", list(range(1, 9))), keys("b", [1, 2, 3, 4, 5]), keys("c", list(range(1, 9)))
    )


def file_of(store: Path, array: str, chunk: int) -> Path:
    return store / array / "c" / f"{chunk}/0" if array in ARRAYS[:2] else store / array / "c" / str(chunk)


def flip(file: Path, seed: int) -> None:
    content = bytearray(file.read_bytes())
    place = random.Random(seed).randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def cut(file: Path, seed: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: random.Random(seed).randrange(len(content))])


def delete(file: Path, seed: int) -> None:
    file.unlink()


def grow(file: Path, seed: int) -> None:
    file.write_bytes(file.read_bytes() + random.Random(seed).randbytes(1 + seed))


def rows(path: Path) -> dict[tuple[str, int], bytes]:
    store = FeatureStore(path)
    place = store.keys["row"].to_numpy()
    values = np.concatenate([store.read(place, name) for name in store.widths], axis=1)
    names = zip(store.keys["video"], store.keys["frame"], strict=True)
    return {key: value.tobytes() for key, value in zip(names, values, strict=True)}


def table(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def test_a_whole_store_has_no_damage(store):
    found = verify(store)
    assert (found.files, found.damaged, found.unfinished) == (15, [], 0)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("harm", [flip, cut, delete, grow])
def test_any_damage_of_any_array_is_found_and_only_it(store, array, harm):
    for seed in range(8):
        other = store.with_name(f"{seed}.zarr")
        shutil.copytree(store, other)
        harm(file_of(other, array, 1), seed)
        before = bytes_of(other)
        (damage,) = verify(other).damaged
        assert damage.chunk == 1
        assert list(damage.rows) == list(range(8, 16))
        assert list(damage.files) == [file_of(other, array, 1)]
        known = array not in ("video", "frame")
        assert damage.frames == ([("b", i) for i in range(1, 6)] if known else None)
        assert bytes_of(other) == before


@pytest.mark.parametrize("array", ["video", "size", "frame"])
@pytest.mark.parametrize("harm", [flip, cut])
def test_damaged_keys_are_never_read_as_if_they_were_whole(store, array, harm):
    harm(file_of(store, array, 1), 3)
    with pytest.raises(StoreDamaged, match=rf"{array}/c/1: .*--repair"):
        FeatureStore(store)


@pytest.mark.parametrize("array", ["video", "size"])
def test_a_missing_key_file_is_damage_and_no_frame_without_a_name(store, array):
    delete(file_of(store, array, 1), 0)
    with pytest.raises(StoreDamaged, match=rf"{array}/c/1: the file is missing"):
        FeatureStore(store)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_what_is_dropped_is_written_again_and_all_else_keeps_its_bytes(store, array, chunk):
    whole, before = rows(store), bytes_of(store)
    flip(file_of(store, array, chunk), chunk)
    drop(store, verify(store).damaged)
    assert verify(store).damaged == []
    gone = keys("abc"[chunk], [[*range(1, 9)], [*range(1, 6)], [*range(1, 9)]][chunk])
    assert set(whole) - set(rows(store)) == {("abc"[chunk], f) for f in gone["frame"]}
    written(store, gone)
    assert rows(store) == whole
    after = bytes_of(store)
    others = [name for name in before if "/c/" in name and f"/c/{chunk}" not in name]
    assert len(others) == 10
    assert {name: after[name] for name in others} == {name: before[name] for name in others}


def test_the_chunk_that_a_killed_run_had_begun_is_no_damage(store):
    file_of(store, "frame", 2).unlink()
    found = verify(store)
    assert (found.damaged, found.unfinished) == ([], 1)
    assert set(rows(store)) == {("a", i) for i in range(1, 9)} | {("b", i) for i in range(1, 6)}


@pytest.mark.parametrize("place", ["zarr.json", "frame/zarr.json", "views/original/zarr.json", "logits/zarr.json"])
def test_a_damaged_zarr_json_is_named_with_what_to_do(store, place):
    whole = (store / place).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\xff" + whole[1:], whole.replace(b'"shape"', b'"shaqe"')):
        if content == whole:
            continue
        (store / place).write_bytes(content)
        for act in (FeatureStore, verify, lambda path: StoreWriter(path, MADE_BY, WIDTHS).__enter__()):
            with pytest.raises(StoreDamaged, match=rf"{place}: .*delete the folder and extract again"):
                act(store)


@pytest.mark.parametrize("place", ["views/original/zarr.json", "frame/zarr.json", "size/zarr.json"])
def test_a_zarr_json_that_says_another_length_or_width_is_damage(store, place):
    whole = (store / place).read_text()
    for old, new in (("24", "16"), ("24", "25"), ("8", "7")):
        (store / place).write_text(whole.replace(f" {old}", f" {new}", 1))
        assert (store / place).read_text() != whole
        with pytest.raises(StoreDamaged, match=place.split("/")[0]):
            verify(store)


def test_compacting_keeps_just_the_wanted_frames_sorted_and_says_what_it_saved(tmp_path):
    path = written(
        tmp_path / "s.zarr", keys("b", [1, 2, 3]), keys("a", [7, 5]), keys("b", [2], size=99), keys("c", [1])
    )
    with StoreWriter(path, MADE_BY, WIDTHS) as writer:
        again = keys("b", [3], size=77)
        writer.write(again, features(again, offset=100))
    before = rows(path)
    done = compact(path, table(keys("a", [5, 7]), keys("b", [1, 2, 3, 4])))
    store = FeatureStore(path)
    assert store.keys["row"].tolist() == [0, 1, 2, 3, 4]
    assert store.keys["size"].tolist() == [10, 10, 10, 99, 77]
    assert rows(path) == {key: value for key, value in before.items() if key != ("c", 1)}
    assert store.read(np.array([4]))[0, 0] == 103
    assert (done.rows_before, done.rows) == (40, 8)
    assert done.bytes == sum(len(content) for content in bytes_of(path).values()) < done.bytes_before
    assert store.made_by == MADE_BY
    assert store.chunk_rows == 8
    assert verify(path).damaged == []
    assert {p.name for p in tmp_path.iterdir()} == {"s.zarr", "s.zarr.lock"}
    written(path, keys("d", [1]))  # and it goes on growing


def test_a_compact_store_is_left_as_it_is(store):
    everything = table(keys("a", list(range(1, 9))), keys("b", [1, 2, 3, 4, 5]), keys("c", list(range(1, 9))))
    compact(store, everything)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in store.rglob("*")}
    done = compact(store, everything)
    assert done.bytes == done.bytes_before
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in store.rglob("*")} == before


def test_damage_is_not_copied_into_a_compact_store(store):
    flip(file_of(store, "views/original", 0), 0)
    before = bytes_of(store)
    with pytest.raises(StoreDamaged, match="--repair"):
        compact(store, keys("a", [1]))
    assert bytes_of(store) == before


def test_compacting_to_nothing_is_refused(store):
    with pytest.raises(UserError, match="nothing of it would be left"):
        compact(store, keys("elsewhere", [1]))
    assert len(FeatureStore(store).keys) == 21


def test_a_disk_that_is_full_while_compacting_leaves_the_old_store_and_takes_the_new_one_away(store, monkeypatch):
    before = bytes_of(store)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.extraction.upkeep.write_chunk", full)
    with pytest.raises(UserError, match="No space left on device"):
        compact(store, keys("a", [1, 2]))
    assert bytes_of(store) == before
    assert not list(store.parent.glob(".s.zarr.*"))


def test_a_store_half_swapped_is_put_back_by_the_next_writer(store):
    before = bytes_of(store)
    store.rename(store.with_name(".s.zarr.old"))
    (store.with_name(".s.zarr.new")).mkdir()
    with pytest.raises(UserError, match=r"no feature store at .* a --compact was cut off"):
        FeatureStore(store)
    with StoreWriter(store, MADE_BY, WIDTHS):
        pass
    assert bytes_of(store) == before
    assert not list(store.parent.glob(".s.zarr.*"))
