"""Extraction in parts (--part, --join): the store of one process, whoever made which piece of it and when."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import draw
from test_extract import index
from test_kill import child, counted, ended
from test_store import bytes_of

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.extraction import forward, pieces
from pipeline.extraction.config import numbers_of
from pipeline.extraction.upkeep import verify

TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--device", "cpu", "-b", "4"]
RUN = [*TINY, "--chunk-rows", "8", "--workers", "1"]
PARTS = Path("s.zarr.parts")


@pytest.fixture
def frames(workplace):
    """40 frames of three videos: five chunks."""
    for frame in range(1, 41):
        draw(workplace / "faces" / f"v{frame % 3}" / f"{frame:05d}.jpg", frame)
    return index(workplace / "faces")


def run(*more: str, store: str = "s.zarr") -> int:
    return extract.main([*RUN, "-s", store, *more])


def report(store: str = "s") -> dict:
    return json.loads(Path(f"{store}.extract.json").read_text())


def test_parts_in_any_order_give_the_store_of_one_process_to_the_last_byte(frames, capsys):
    run(store="whole.zarr")
    for part in (3, 1, 2):
        assert run("--part", f"{part}/3") == 0
        assert not Path("s.zarr").exists()
    assert "part 2/3: 16 frames extracted, 0 were there, 0 could not be read" in capsys.readouterr().out
    assert len(list(PARTS.iterdir())) == 5
    assert run("--join") == 0
    assert bytes_of(Path("s.zarr")) == bytes_of(Path("whole.zarr"))
    assert FeatureStore(Path("s.zarr")).keys.equals(FeatureStore(Path("whole.zarr")).keys)
    assert not PARTS.exists()
    assert "40 frames extracted, 0 were there" in capsys.readouterr().out


def test_a_chunk_that_a_part_made_is_renamed_into_the_store_and_not_copied(frames):
    run("--part", "1/1")
    made = {file.stat().st_ino for file in PARTS.glob("*/original.rows")}
    run("--join")
    assert {file.stat().st_ino for file in Path("s.zarr/views/original/c").glob("*/0")} == made


def test_broken_pictures_move_what_is_behind_them_as_in_one_process_and_are_in_the_report(frames, workplace):
    for place in (0, 9, 10, 39):
        (workplace / "faces" / pd.read_parquet(frames)["path"][place]).write_bytes(b"")
    run(store="whole.zarr")
    assert len(FeatureStore(Path("whole.zarr")).keys) == 36
    for part in (2, 1):
        run("--part", f"{part}/2")
    run("--join")
    assert bytes_of(Path("s.zarr")) == bytes_of(Path("whole.zarr"))
    assert report() == report("whole")
    assert len(report()["skipped"]) == 4


def test_a_chunk_in_which_nothing_can_be_read_is_a_finished_piece_of_no_rows(frames, workplace):
    for path in pd.read_parquet(frames)["path"][8:16]:
        (workplace / "faces" / path).write_bytes(b"")
    run(store="whole.zarr")
    run("--part", "1/1")
    run("--join")
    assert bytes_of(Path("s.zarr")) == bytes_of(Path("whole.zarr"))
    assert len(report()["skipped"]) == 8


def test_more_views_and_frames_that_come_later_are_joined_as_one_process_adds_them(frames, workplace):
    for store in ("s.zarr", "whole.zarr"):
        run("--data-aug", store=store)
    for frame in range(1, 20):
        draw(workplace / "faces" / "v00" / f"{frame:05d}.jpg", 1000 + frame)
    index(workplace / "faces")
    run("--data-aug", store="whole.zarr")
    for part in (1, 2):
        run("--data-aug", "--part", f"{part}/2")
    run("--data-aug", "--join")
    assert bytes_of(Path("s.zarr")) == bytes_of(Path("whole.zarr"))


def test_missing_parts_and_unfinished_ones_are_named_and_nothing_is_joined(frames):
    with pytest.raises(UserError, match=r"no part of this extraction lies in .*s\.zarr\.parts: make them first"):
        run("--join")
    run("--part", "1/3")
    piece = next(PARTS.iterdir())
    shutil.rmtree(piece)
    with pytest.raises(
        UserError,
        match=r"part 1/3 is not finished, 1 of its 2 chunks are missing; part 2/3 is missing; part 3/3 is missing. Run",
    ):
        run("--join")
    assert not Path("s.zarr").exists()
    for part in (1, 2, 3):
        run("--part", f"{part}/3")
    assert run("--join") == 0


def test_a_part_goes_on_with_what_it_has_and_an_extraction_takes_what_parts_have_made(frames, tmp_path, capsys):
    run(store="whole.zarr")
    run("--part", "2/2")
    shutil.rmtree(sorted(PARTS.iterdir())[0])
    capsys.readouterr()
    run("--part", "2/2")
    assert "part 2/2: 8 frames extracted, 8 were there" in capsys.readouterr().out
    count = tmp_path / "count"
    count.touch()
    assert ended(child(lambda: counted([*RUN, "-s", "s.zarr"], count), Path("out.txt"))) == 0
    assert count.stat().st_size == 40 - 16 + 4  # a batch of what the part made is computed again, to be compared
    assert bytes_of(Path("s.zarr")) == bytes_of(Path("whole.zarr"))


def test_parts_of_frames_that_an_extraction_does_not_ask_for_stay(frames, capsys):
    run(store="whole.zarr")
    run("--part", "1/2")
    run("--stride", "3")
    assert "3 parts of frames that were not asked for stay in s.zarr.parts" in capsys.readouterr().out
    for part in (1, 2):  # the frames that are missing now are cut into other chunks
        run("--part", f"{part}/2")
    run("--join")
    assert not PARTS.exists()
    stores = [FeatureStore(Path(name)) for name in ("s.zarr", "whole.zarr")]
    one, other = (store.read(store.keys["row"].to_numpy()) for store in stores)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("flags", [["--scale", "2"], ["--input-size", "48"]])
def test_parts_made_by_something_else_are_refused_with_both_sides_named(frames, flags):
    run("--part", "1/2")
    with pytest.raises(UserError, match=r"part 1/2 on \S+ made features in .*s\.zarr\.parts by something else: \w+"):
        run("--part", "2/2", *flags)
    assert len(list(PARTS.iterdir())) == 3
    run("--part", "2/2", *flags, "--rebuild")
    with pytest.raises(UserError, match=r"part 2/2 on .* something else"):
        run("--join")


def test_parts_of_other_weights_are_refused(frames):
    run("--part", "1/2")
    state = __import__("timm").create_model("test_efficientnet", num_classes=0).state_dict()
    __import__("torch").save(state, "other.pt")
    with pytest.raises(UserError, match=r"weights_sha256 '\w+' there, '\w+' here"):
        run("--part", "2/2", "--weights", "other.pt")


def test_parts_of_code_that_gives_other_features_are_refused(frames, monkeypatch):
    real = forward.resize_image
    run("--part", "2/2")
    monkeypatch.setattr("pipeline.extraction.forward.resize_image", lambda image, *how: real(image[::-1], *how))
    with pytest.raises(
        UserError, match=r"part 2/2 on .* other features here \(least cosine .*the code or a library differs"
    ):
        run("--part", "1/2")


def test_parts_against_a_store_of_something_else_need_rebuild_and_replace_it_when_joined(frames):
    run("--input-size", "48")
    run(store="whole.zarr")
    with pytest.raises(UserError, match="give --rebuild to each part and to --join"):
        run("--part", "1/2")
    for part in (1, 2):
        run("--part", f"{part}/2", "--rebuild")
    assert FeatureStore(Path("s.zarr")).made_by["input_size"] == 48
    run("--join", "--rebuild")
    assert bytes_of(Path("s.zarr")) == bytes_of(Path("whole.zarr"))


def test_a_damaged_piece_is_named(frames, workplace):
    (workplace / "faces" / pd.read_parquet(frames)["path"][0]).write_bytes(b"")  # so that the pieces are read
    run("--part", "1/1")
    file = next(PARTS.glob("*/original.rows"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"original\.rows is damaged: delete .* and make that part again"):
        run("--join")


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_part_is_refused(part):
    with pytest.raises(UserError, match="part must say which of how many, such as 3/16, and is"):
        numbers_of(part)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--part", "1/2", "--join"], "--part and --join do not go together"),
        (["--part", "1/2", "-d", "faces"], "--part takes a frame table"),
        (["--part", "1/2", "--processor", "pca", "2"], "--processor goes with an extraction alone"),
    ],
)
def test_what_does_not_go_with_a_part_is_refused_before_anything_is_done(frames, flags, words):
    with pytest.raises(UserError, match=words):
        run(*flags)
    assert not PARTS.exists()


def test_pieces_and_what_is_computed_come_in_the_order_of_the_table():
    """Against a list of single rows, for pieces of another cut than the chunks, with gaps and unreadable frames."""
    rng = random.Random(0)
    for _ in range(50):
        n = rng.randrange(1, 30)
        todo = pd.DataFrame({"video": "v", "frame": range(n), "size": 1, "path": "p"})
        found, made = [], {}
        for number in range(rng.randrange(4)):
            places = sorted(rng.sample(range(n), rng.randrange(1, n + 1)))
            why = [rng.choice(["broken", None, None]) for _ in places]
            keys = todo.iloc[places][pieces.FRAME].assign(why=pd.array(why, dtype="str"))
            found.append(pieces.Piece(Path(str(number)), why.count(None), {}, keys.reset_index(drop=True)))
            readable = [place for place, reason in zip(places, why, strict=True) if reason is None]
            for place, reason in zip(places, why, strict=True):
                made.setdefault(place, None if reason else (number, readable.index(place)))
        cover = pieces.cover(todo, found)
        assert cover.open.tolist() == [place for place in range(n) if place not in made]
        rest = [place for place in cover.open.tolist() if rng.random() < 0.8]
        batches, start = [], 0
        while start < len(rest):
            stop = start + rng.randrange(1, 5)
            batches.append((rest[start:stop], {"original": np.array(rest[start:stop])}))
            start = stop
        came = []
        for places, rows in pieces.in_order(cover.stored(), iter(batches)):
            if isinstance(rows, pieces.Stored):
                which = [(int(rows.piece.folder.name), row) for row in range(rows.start, rows.stop)]
            else:
                which = rows["original"].tolist()
            came += list(zip(list(places), which, strict=True))
        expected = [(place, made.get(place, place)) for place in range(n) if made.get(place) or place in rest]
        assert came == expected


@pytest.mark.slow
def test_parts_and_the_join_killed_at_random_end_in_the_store_of_one_process(frames):
    """Nothing is lost, and nothing is computed twice but the pieces on their way."""
    run(store="whole.zarr")
    whole, rng, kills = bytes_of(Path("whole.zarr")), random.Random(1), 0
    while kills < 12:
        shutil.rmtree("s.zarr", ignore_errors=True)
        assert not PARTS.exists()
        for part in ("1/2", "2/2", None):
            flags = ["--part", part] if part else ["--join"]
            while True:
                before = len(list(PARTS.glob("[0-9a-f]*")))
                count = Path("count")
                count.write_bytes(b"")
                argv = [*RUN, "-s", "s.zarr", *flags]
                process = child(lambda argv=argv, count=count: counted(argv, count), Path("out.txt"))
                time.sleep(rng.uniform(0, 0.6))
                os.kill(process, signal.SIGKILL)
                code = ended(process)
                assert code in (0, -signal.SIGKILL), Path("out.txt").read_text()
                if part:
                    done = len(list(PARTS.glob("[0-9a-f]*"))) - before
                    assert count.stat().st_size <= 8 * done + 2 * 8 + 2 * 4 + 4
                if code == 0:
                    break
                kills += 1
        assert bytes_of(Path("s.zarr")) == whole
        assert verify(Path("s.zarr")).damaged == []
