import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from test_store import MADE_BY, WIDTHS, bytes_of, features, keys, written

from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreDamaged, StoreWriter
from pipeline.extraction.upkeep import compact, delete_replaced, drop, start_over, verify

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
    assert (done.frames_before, done.frames, done.rows_before, done.rows) == (6, 5, 40, 8)
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


def test_a_store_half_swapped_is_put_back_by_the_next_writer(store, monkeypatch):
    monkeypatch.setattr("pipeline.core.store._REPLACING_SEC", 0.1)
    before = bytes_of(store)
    store.rename(store.with_name(".s.zarr.old"))
    (store.with_name(".s.zarr.new")).mkdir()
    with pytest.raises(UserError, match=r"no feature store at .* a --compact or --rebuild was cut off"):
        FeatureStore(store)
    with StoreWriter(store, MADE_BY, WIDTHS):
        pass
    assert bytes_of(store) == before
    assert not list(store.parent.glob(".s.zarr.*"))


# --- unfinished, stale, of others ------------------------------------------------------------------------------------


def test_chunk_folders_without_a_file_are_no_chunks(store):
    """zarr deletes a chunk's file, and leaves its folder."""
    for array in ARRAYS[:2]:
        (store / array / "c" / "3").mkdir()
    found = verify(store)
    assert (found.files, found.damaged, found.unfinished) == (15, [], 0)
    with StoreWriter(store, MADE_BY, WIDTHS):
        pass
    assert not list(store.glob("**/c/3"))


def test_what_others_put_into_the_store_is_named_and_not_lost_by_compacting(tmp_path):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, {}, {"original": 4}, 8) as writer:
        writer.write(keys("a", [1, 2, 3]), {"original": np.ones((3, 4))})
    group = zarr.open_group(path, mode="r+")
    group.create_array("views/umap", data=np.ones((2, 2), np.float32))
    (path / "notes.txt").write_text("mine")
    assert verify(path).foreign_files == ["notes.txt", "views/umap"]
    before = bytes_of(path)
    with pytest.raises(UserError, match=r"\['notes.txt', 'views/umap'\] in .* would be lost: move them away"):
        compact(path, keys("a", [1]))
    assert bytes_of(path) == before


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("where", [None, "views"])
def test_consolidated_metadata_is_named_and_compacting_takes_it_away(store, where):
    zarr.consolidate_metadata(store, path=where)
    assert verify(store).consolidated == [store / (where or "")]
    compact(store, table(*(keys(v, list(range(1, 9))) for v in "abc")))  # which is compact already
    assert verify(store).consolidated == []


def test_a_store_behind_a_link_is_compacted_repaired_and_verified_where_it_lies(store):
    link = store.parent / "home" / "link.zarr"
    link.parent.mkdir()
    link.symlink_to(store)
    done = compact(link, keys("a", [1, 2]))
    assert done.frames == 2
    assert link.is_symlink()
    assert {p.name for p in link.parent.iterdir()} == {"link.zarr"}
    flip(file_of(store, "logits", 0), 0)
    (damage,) = verify(link).damaged
    drop(link, [damage])
    written(link, keys("b", [1]))
    start_over(StoreWriter(link, {"backbone": "huge"}, WIDTHS), 1, [].append)
    assert link.is_symlink()
    assert store.with_name("s.zarr.replaced").is_dir()
    assert len(FeatureStore(link).keys) == 0


# --- starting over ---------------------------------------------------------------------------------------------------

OTHER = MADE_BY | {"input_size": 64}


def refill(path: Path, *chunks: pd.DataFrame) -> None:
    with StoreWriter(path, OTHER, WIDTHS, 8) as writer:
        for chunk in chunks:
            writer.write(chunk, features(chunk, offset=0.5))


EVERYTHING = [keys("a", list(range(1, 9))), keys("b", [1, 2, 3, 4, 5]), keys("c", list(range(1, 9)))]


def test_the_old_store_stays_until_the_new_one_is_whole_and_all_is_said_before(store):
    before, said = bytes_of(store), []
    aside = store.with_name("s.zarr.replaced")

    def say(words: str) -> None:
        assert bytes_of(aside if aside.is_dir() else store) == before  # nothing has happened yet
        said.append(words)

    start_over(StoreWriter(store, OTHER, WIDTHS, 8), 21, say)
    assert said == [f"{store} (0.0 MB) is renamed to {aside}, and deleted when the new store is whole"]
    assert bytes_of(aside) == before
    assert FeatureStore(store).made_by == OTHER
    refill(store, *EVERYTHING[:2])
    delete_replaced(store, table(*EVERYTHING), say)
    assert (
        said[1]
        == f"{aside} stays, for it has 8 frames that the new store lacks; delete it yourself if you do not need it"
    )
    refill(store, EVERYTHING[2])
    delete_replaced(store, table(*EVERYTHING), say)
    assert said[2] == f"the new store is whole: {aside} (0.0 MB) is deleted"
    assert {p.name for p in store.parent.iterdir()} == {"s.zarr", "s.zarr.lock"}
    delete_replaced(store, table(*EVERYTHING), say)
    assert len(said) == 3


def test_frames_that_are_no_longer_wanted_hold_no_old_store_up(store):
    start_over(StoreWriter(store, OTHER, WIDTHS, 8), 21, [].append)
    refill(store, EVERYTHING[0])
    delete_replaced(store, EVERYTHING[0], [].append)
    assert not store.with_name("s.zarr.replaced").exists()


def test_starting_over_again_keeps_the_store_that_was_whole_and_puts_it_back_where_it_is_asked_for(store):
    before, said = bytes_of(store), []
    aside = store.with_name("s.zarr.replaced")
    start_over(StoreWriter(store, OTHER, WIDTHS, 8), 21, said.append)
    refill(store, EVERYTHING[0])
    third = MADE_BY | {"input_size": 96}
    start_over(StoreWriter(store, third, WIDTHS, 8), 21, said.append)
    assert (
        said[1] == f"{store} (0.0 MB), which was never finished, is deleted. {aside} stays until the new store is whole"
    )
    assert bytes_of(aside) == before
    assert (len(FeatureStore(store).keys), FeatureStore(store).made_by) == (0, third)
    start_over(StoreWriter(store, MADE_BY, WIDTHS, 8), 21, said.append)
    assert said[2].endswith(f"is deleted. {aside} is what is asked for, and is put back")
    assert bytes_of(store) == before
    assert {p.name for p in store.parent.iterdir()} == {"s.zarr", "s.zarr.lock"}


def test_without_room_for_two_stores_nothing_is_touched_and_the_way_out_is_said(store, monkeypatch):
    before = bytes_of(store)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 20_000_000))
    rows = 20_000_000 // 12
    start_over(StoreWriter(store, OTHER, WIDTHS, 8), rows, [].append)
    with pytest.raises(UserError, match=r"takes 24.0 MB, and the disk has 20.0 MB beside the old one"):
        start_over(StoreWriter(store, MADE_BY | {"precision": "x"}, WIDTHS, 8), 2_000_000, pytest.fail)
    assert bytes_of(store.with_name("s.zarr.replaced")) == before


def test_an_old_store_that_cannot_be_read_or_holds_more_than_a_store_stays(store):
    start_over(StoreWriter(store, OTHER, WIDTHS, 8), 21, [].append)
    aside, said = store.with_name("s.zarr.replaced"), []
    (aside / "thesis.tex").write_text("years of work")
    refill(store, *EVERYTHING)
    delete_replaced(store, table(*EVERYTHING), said.append)
    flip(aside / "frame" / "c" / "0", 0)
    delete_replaced(store, table(*EVERYTHING), said.append)
    assert [words.split(" stays, for ")[1].split(": ")[0] for words in said] == [
        "it has ['thesis.tex']; delete it yourself if you do not need it", "it cannot be read",
    ]  # fmt: skip
    assert (aside / "thesis.tex").exists()


def test_a_store_that_is_being_written_is_not_started_over(store):
    with StoreWriter(store, MADE_BY, WIDTHS), pytest.raises(UserError, match="being written by"):
        start_over(StoreWriter(store, OTHER, WIDTHS, 8), 21)
