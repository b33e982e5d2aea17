"""Killed with SIGKILL, at random and at every change of the file system, everything goes on to the same end."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, draw
from test_extract import index
from test_store import MADE_BY, WIDTHS, bytes_of, features, keys, written
from test_upkeep import flip, rows

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter, locked
from pipeline.extraction import forward, loop
from pipeline.extraction.transfer import export_features, import_features
from pipeline.extraction.upkeep import compact, delete_replaced, drop, start_over, verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
every = pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 31])
CHUNKS = [keys("b", [1, 2, 3]), keys("a", [1, 2])]


def child(work: Callable[[], object], out: Path) -> int:
    """The id of a fork that does ``work`` and ends; what it says and where it fails is in ``out``."""
    process = os.fork()
    if process:
        return process
    handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1), os.dup2(handle, 2)
    code = 1
    try:
        sys.stdout = sys.stderr = os.fdopen(handle, "w", buffering=1)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """The exit status of a child, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_at(change: int, work: Callable[[], object], out: Path) -> bool:
    """Does ``work`` in a process that dies just before the given change of a file or folder; False where it ended."""

    def armed() -> None:
        seen = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal seen
            written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGES or written:
                if seen == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(hook)
        work()

    code = ended(child(armed, out))
    assert code in (0, -signal.SIGKILL), out.read_text()
    return code != 0


def leftovers(folder: Path) -> list[Path]:
    return [*folder.rglob("*.partial"), *folder.rglob(".*.new"), *folder.rglob(".*.old"), *folder.rglob(".*.removed")]


def everywhere(
    tmp_path: Path, base: Path | None, work: Callable[[Path], object], after: Callable[[Path], None], step: int
) -> int:
    """Kills ``work`` on a copy of ``base`` at every ``step``-th of its changes, each time looks with ``after``.

    Gives the number of changes.
    """
    for change in range(0, 10_000, step):
        folder = tmp_path / str(change)
        folder.mkdir()
        path = folder / "s.zarr"
        if base:
            shutil.copytree(base, path)
        if not killed_at(change, lambda path=path: work(path), tmp_path / "out.txt"):
            return change
        after(path)
        assert leftovers(folder) == []
        shutil.rmtree(folder)
    raise AssertionError("it never ends")


def finish(path: Path, made_by: dict = MADE_BY) -> None:
    """Writes those of ``CHUNKS`` that are not there yet, as a run that goes on does."""
    with StoreWriter(path, made_by, WIDTHS, 4) as writer:
        there = set(FeatureStore(path).keys["video"])
        for chunk in CHUNKS:
            if chunk["video"].iloc[0] not in there:
                writer.write(chunk, features(chunk))


@every
def test_a_writer_killed_at_any_change_goes_on_to_the_same_store(tmp_path, step):
    whole = bytes_of(written(tmp_path / "whole.zarr", *CHUNKS, chunk_rows=4))

    def after(path):
        if path.exists():
            assert set(FeatureStore(path).keys["video"]) <= {"a", "b"}
            assert verify(path).damaged == []
        finish(path)
        assert bytes_of(path) == whole

    assert everywhere(tmp_path, None, finish, after, step) > 40


@every
def test_compacting_killed_at_any_change_leaves_a_whole_store(tmp_path, step):
    base = written(tmp_path / "base.zarr", *CHUNKS, keys("b", [2], size=99), chunk_rows=4)
    wanted = pd.concat([keys("a", [1, 2]), keys("b", [1, 2])])
    old, new = rows(base), {key: value for key, value in rows(base).items() if key != ("b", 3)}

    def after(path):
        with StoreWriter(path, MADE_BY, WIDTHS, 4):
            pass
        assert rows(path) in (old, new)
        assert verify(path).damaged == []
        compact(path, wanted)
        assert rows(path) == new
        assert FeatureStore(path).keys["row"].tolist() == [0, 1, 2, 3]

    assert everywhere(tmp_path, base, lambda path: compact(path, wanted), after, step) > 40


@every
def test_appending_to_a_store_cut_off_before_is_never_damage_and_mended_where_nothing_is_left_to_do(tmp_path, step):
    """As a run that was killed leaves it: a chunk begun behind the last whole one."""
    base = written(tmp_path / "base.zarr", CHUNKS[0], keys("c", [1, 2]), chunk_rows=4)
    (base / "frame" / "c" / "1").unlink()
    before, exports = rows(base), [0]

    def after(path):
        assert verify(path).damaged == []
        unfinished = path.with_name("unfinished.zarr")
        shutil.copytree(path, unfinished)
        assert compact(unfinished, CHUNKS[0]).frames == 3
        export_features(FeatureStore(path), path.with_name(f"{len(exports)}.npz"))
        exports.append(1)
        with StoreWriter(path, MADE_BY, WIDTHS, 4):  # a run with nothing left to extract
            pass
        found = verify(path)
        assert (found.damaged, found.unfinished) == ([], 0)
        assert rows(path).items() >= before.items()
        finish(path)
        assert bytes_of(path) == whole

    whole = bytes_of(written(tmp_path / "whole.zarr", *CHUNKS, chunk_rows=4))
    assert everywhere(tmp_path, base, finish, after, step) > 20


@pytest.mark.parametrize("step", [pytest.param(5, marks=pytest.mark.slow), 89])
def test_starting_over_killed_at_any_change_leaves_the_old_store_where_it_is_found(tmp_path, step):
    base = written(tmp_path / "base.zarr", *CHUNKS, chunk_rows=4)
    old, new, third = rows(base), MADE_BY | {"input_size": 64}, MADE_BY | {"input_size": 96}

    def work(path):
        for made_by in (new, third, new):  # the second and third time what the one before began stands there
            start_over(StoreWriter(path, made_by, WIDTHS, 4), 5)
        with StoreWriter(path, new, WIDTHS, 4) as writer:
            for chunk in CHUNKS:
                writer.write(chunk, features(chunk))
        delete_replaced(path, pd.concat(CHUNKS))

    def after(path):
        kept = [p for p in (path, path.with_name("s.zarr.replaced"), path.with_name(".s.zarr.removed")) if p.is_dir()]
        assert any(intact(p, old) for p in kept)
        with locked(path):
            pass
        aside = path.with_name("s.zarr.replaced")
        assert rows(path) == old or rows(aside) == old
        if FeatureStore(path).made_by != new:
            start_over(StoreWriter(path, new, WIDTHS, 4), 5)
        finish(path, new)
        delete_replaced(path, pd.concat(CHUNKS))
        assert rows(path) == old
        assert FeatureStore(path).made_by == new
        assert not aside.exists()

    assert everywhere(tmp_path, base, work, after, step) > 60


def intact(path: Path, expected: dict) -> bool:
    try:
        return rows(path) == expected
    except UserError:
        return False


@every
def test_repair_killed_at_any_change_goes_on(tmp_path, step):
    base = written(tmp_path / "base.zarr", *CHUNKS, chunk_rows=4)
    whole = rows(base)
    flip(base / "logits" / "c" / "0" / "0", 0)

    def repair(path):
        drop(path, verify(path).damaged)
        finish(path)

    def after(path):
        repair(path)
        assert rows(path) == whole
        assert verify(path).damaged == []

    assert everywhere(tmp_path, base, repair, after, step) > 10


@every
def test_an_import_killed_at_any_change_goes_on_to_the_same_store(tmp_path, step):
    np.save(tmp_path / "bare.npy", np.arange(24).reshape(6, 4))
    import_features(tmp_path / "bare.npy", tmp_path / "whole.zarr", 4, False)
    whole = bytes_of(tmp_path / "whole.zarr")

    def work(path):
        import_features(tmp_path / "bare.npy", path, 4, False)

    def after(path):
        work(path)
        assert bytes_of(path) == whole

    assert everywhere(tmp_path, None, work, after, step) > 40


CHUNK_ROWS, BATCH = 8, 4
TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--device", "cpu"]
RUN = [*TINY, "-b", str(BATCH), "--chunk-rows", str(CHUNK_ROWS), "--workers", "2"]


def counted(argv: list[str], count: Path) -> None:
    """An extraction that adds a byte to ``count`` for every image that goes through the backbone."""
    real = loop.Forward.start

    def call(self, images, *rest):
        with count.open("ab", buffering=0) as handle:
            handle.write(b"." * len(images))
        return real(self, images, *rest)

    loop.Forward.start = call
    extract.main(argv)


def wait_for(count: Path, images: int) -> None:
    """Until so many bytes are in ``count``, or for a minute: a process that ends before is found out by its status."""
    until = time.monotonic() + 60
    while count.stat().st_size < images and time.monotonic() < until:
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("by", "kills_least", "stores_least"), [("PyTorch", 30, 4), ("ONNX Runtime", 20, 2)])
def test_extraction_killed_at_random_ends_with_the_same_keys_and_bytes_and_computes_nothing_twice(
    workplace, monkeypatch, by, kills_least, stores_least
):
    """Half of the kills come at any time, the others when some images have been through the backbone."""
    if by == "ONNX Runtime":
        monkeypatch.setattr(forward, "EXPORT_FROM", 0)
    for frame in range(1, 201):
        draw(workplace / "faces" / f"{frame % 7}" / f"{frame:05d}.jpg", frame)
    index(workplace / "faces")
    start = time.monotonic()
    assert ended(child(lambda: extract.main([*RUN, "-s", "whole.zarr"]), Path("whole.txt"))) == 0
    seconds = time.monotonic() - start
    whole = rows(Path("whole.zarr"))
    assert len(whole) == 200
    rng, kills, inside, stores = random.Random(0), 0, 0, 0
    while kills < kills_least or stores < stores_least:
        path, stores, there = Path(f"{stores}.zarr"), stores + 1, 0
        while True:
            count = Path("count")
            count.write_bytes(b"")
            process = child(lambda path=path, count=count: counted([*RUN, "-s", str(path)], count), Path("out.txt"))
            if kills % 2:
                time.sleep(rng.uniform(0, seconds))
            else:
                # The kill before can have come when everything was stored: then only the check of stored ones is left.
                wait_for(count, rng.randint(1, max(1, 200 - there)))
            os.kill(process, signal.SIGKILL)
            code = ended(process)
            assert code in (0, -signal.SIGKILL), Path("out.txt").read_text()
            before, there = there, len(FeatureStore(path).keys) if path.exists() else 0
            checked = min(BATCH, before)  # that the stored ones would come out the same now
            in_flight = count.stat().st_size - checked - (there - before)
            # A chunk is being written, the next one is full, and batches are on their way.
            assert in_flight <= 2 * CHUNK_ROWS + 2 * BATCH
            if code == 0:
                break
            kills += 1
            inside += 0 < there < 200
        assert count.stat().st_size == 200 - before + checked
        assert rows(path) == whole
        assert verify(path).damaged == []
        assert leftovers(workplace) == []
        assert not Path(f"{path}.writer").exists()
    assert inside >= kills_least // 3


@pytest.mark.slow
def test_dvc_repro_killed_in_the_middle_goes_on_when_called_again(tmp_path):
    pytest.importorskip("dvc")
    place = tmp_path / "place"
    for name in ["dvc.yaml", "params.yaml", "extract.py", "train.py", ".dvcignore", ".dvc/config", "pipeline"]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place / name)
    params = yaml.safe_load((place / "params.yaml").read_text())
    params["synthetic"] |= {"videos": 24, "frames": 30}
    params["extract"] |= {"backbone": "test_efficientnet", "weights": "random", "input_size": 32, "chunk_rows": 16}
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    there = {"cwd": place, "env": os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}}

    def dvc(*words: str) -> list[str]:
        return [sys.executable, "-m", "dvc", *words]

    subprocess.run(dvc("config", "--local", "core.no_scm", "true"), **there, check=True)
    subprocess.run(dvc("repro", "index", "weights"), **there, check=True, capture_output=True)
    store = place / "data" / "features.zarr"
    for committed in (2, 6):
        process = subprocess.Popen(
            dvc("repro", "extract"),
            **there,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while len(list(store.glob("frame/c/*"))) < committed:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert 16 * (committed - 1) <= len(FeatureStore(store).keys)
    kept = len(FeatureStore(store).keys)
    done = subprocess.run(dvc("repro", "extract"), **there, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    frames = len(list((place / "data" / "synthetic").rglob("*.jpg")))
    assert f"{frames - kept:,} frames extracted, {kept:,} were there" in done.stdout
    assert len(FeatureStore(store).keys) == frames
    assert leftovers(place / "data") == []
    again = subprocess.run(dvc("repro", "extract"), **there, capture_output=True, text=True)
    assert "frames extracted" not in again.stdout


@pytest.mark.slow
def test_an_orphan_of_a_killed_dvc_is_named_and_does_no_harm(tmp_path):
    path = tmp_path / "s.zarr"

    def orphan():
        with StoreWriter(path, MADE_BY, WIDTHS, 4) as writer:
            writer.write(CHUNKS[0], features(CHUNKS[0]))
            time.sleep(60)

    process = child(orphan, tmp_path / "out.txt")
    while not (path / "frame" / "c" / "0").exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"is being written by process {process} on"):
        finish(path)
    os.kill(process, signal.SIGKILL)
    ended(process)
    finish(path)
    assert bytes_of(path) == bytes_of(written(tmp_path / "whole.zarr", *CHUNKS, chunk_rows=4))
