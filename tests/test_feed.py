import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_features import CPU, FRAME, STORE_ROWS, VIDEO, VIEWS, D, N, by_hand, front, make_store

from pipeline.adapter.front import Front
from pipeline.adapter.sources import FromDisk, load
from pipeline.adapter.windows import Window
from pipeline.core.params import UserError
from pipeline.core.store import StoreDamaged
from pipeline.training import feed as feed_module
from pipeline.training.feed import Drawn, feed
from pipeline.training.view_draw import ViewDraw


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("feed") / "s.zarr", 60, D, VIEWS)


def windows_of(num_frames: int = 3, every: int = 1) -> np.ndarray:
    return Window(num_frames, 1).over(VIDEO, FRAME).centred(np.arange(0, N, every))


def sharded(store, made: Front, seed: int = 0, room: int = 700, rows=None):
    return feed(FromDisk(store, STORE_ROWS, made, CPU, VIEWS, room), windows_of() if rows is None else rows, N, seed)


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(feed_module, "SEGMENT_WINDOWS", 4)
    monkeypatch.setattr(feed_module, "MIN_SEGMENTS", 3)


@pytest.mark.parametrize("kind", ["shifted", "projected"])
def test_a_batch_is_the_same_windows_whether_from_memory_or_in_shards_from_disk(store, kind, short_segments):
    made, rows = front(kind), windows_of()
    (whole,) = feed(load(store, STORE_ROWS, made, CPU, VIEWS), rows, N, 0)(0)
    shards = 0
    for shard in sharded(store, made)(0):
        shards += 1
        numbers = np.random.default_rng(0).permutation(2 * len(shard.windows))
        view, window = np.divmod(numbers, len(shard.windows))
        taken, valid = shard.batch(numbers)
        expected, there = whole.batch(view * len(rows) + shard.windows[window])
        assert torch.equal(valid, there)
        torch.testing.assert_close(taken, expected)
        torch.testing.assert_close(
            taken, by_hand(store, made, np.where(there, rows[shard.windows[window]] + view[:, None] * N, -1))
        )
    assert shards > 2


def test_every_window_is_in_one_shard_of_every_epoch(store, short_segments):
    of = sharded(store, front("shifted"))
    for epoch in range(5):
        shards = of.divide(epoch)
        assert len(shards) == of.num_shards > 2
        assert sorted(np.concatenate(shards)) == list(range(N))
        assert all(len(shard) and (np.diff(shard) > 0).all() for shard in shards)


def test_neighbouring_windows_stay_together(store, short_segments):
    for shard in sharded(store, front("shifted")).divide(0):
        runs = np.split(shard, np.flatnonzero(np.diff(shard) != 1) + 1)
        assert all(run[0] % 4 == 0 and (len(run) % 4 == 0 or run[-1] == N - 1) for run in runs)


def test_the_shards_hang_on_seed_and_epoch_alone(store, short_segments):
    def of(seed: int, epoch: int) -> list[list[int]]:
        return [shard.windows.tolist() for shard in sharded(store, front("shifted"), seed)(epoch)]

    assert of(0, 0) == of(0, 0)
    assert of(0, 1) == of(0, 1)
    assert len({str(of(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize(("num_frames", "every"), [(1, 1), (3, 1), (5, 1), (3, 5)])
def test_two_shards_never_take_more_than_the_room(store, short_segments, num_frames, every):
    made, rows = front("shifted"), windows_of(num_frames, every)
    num_frames_used = len(np.unique(rows[rows >= 0]))
    room = 2 * num_frames_used * 2 * D  # all would just fit, were nothing needed for reading
    source = FromDisk(store, STORE_ROWS, made, CPU, VIEWS, room)
    shards = feed(source, rows, N, 0)
    held = [shard.inputs.values.nbytes for epoch in range(20) for shard in shards(epoch)]
    assert len(held) > 20
    assert 2 * max(held) <= room
    assert sum(buffer.nbytes for buffer in shards._buffers) <= room


def test_windows_whose_own_frames_fit_are_read_once(store, short_segments):
    rows = windows_of()[:5]  # 5 of 46 frames
    shards = sharded(store, front("none"), rows=rows)
    (shard,) = shards(0)
    assert shards(1)[0] is shard
    assert shard.inputs.values.shape == (2 * 5, D)
    expected = by_hand(store, front("none"), rows[[1, 1]] + [[0], [N]])
    torch.testing.assert_close(shard.batch(np.array([1, 6]))[0], expected)


def test_the_next_shard_is_read_while_this_one_is_trained_on(store, short_segments, monkeypatch):
    log, read = [], FromDisk.hold

    def hold(self, rows, out=None):
        log.append(("reads", time.monotonic()))
        held = read(self, rows, out)
        log.append(("has read", time.monotonic()))
        return held

    shards = sharded(store, front("none"))
    monkeypatch.setattr(FromDisk, "hold", hold)
    epoch = shards(0)
    next(epoch)
    deadline = time.monotonic() + 10
    while len(log) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(log) == 4  # the first shard, and the second before anybody asks for it
    time.sleep(0.05)
    assert len(log) == 4  # but not the third: it goes where the first one is
    epoch.close()


def test_a_shard_stays_as_it_is_while_the_next_one_is_read(store, short_segments):
    for shard in sharded(store, front("none"))(0):
        numbers = np.arange(len(shard.windows))
        values = shard.batch(numbers)[0]
        time.sleep(0.1)
        assert torch.equal(shard.batch(numbers)[0], values)


def test_an_error_of_the_reading_thread_ends_the_training(tmp_path, short_segments):
    store = make_store(tmp_path / "s.zarr", 60, D, VIEWS)
    shards = sharded(store, front("none"))
    for file in (store.path / "views/original/c").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(StoreDamaged, match="missing"):
        list(shards(0))


def test_too_little_room_is_refused_with_what_would_do(store, short_segments):
    with pytest.raises(UserError, match=r"memory of 3e-07 GB is too little.* need ([\d.e-]+) GB") as caught:
        sharded(store, front("none"), room=300)
    least = float(str(caught.value).split()[-2])
    assert 300 < least * 1e9 < 1e4
    assert len(list(sharded(store, front("none"), room=int(least * 1.01e9))(0))) > 1


PEAK = """
import sys
import numpy as np, torch
from pipeline.core.store import FeatureStore
from pipeline.adapter.front import Front
from pipeline.adapter.sources import open_inputs
from pipeline.training.feed import Drawn, feed

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

torch.set_num_threads(1)
store, room = FeatureStore(sys.argv[1]), int(sys.argv[2])
n = len(store.keys)
rows = np.clip(np.arange(n)[:, None] + np.arange(5) - 2, -1, n - 1)
front, device = Front(store.num_features, None), torch.device("cpu")
torch.randn(1000, 512).half().index_select(0, torch.arange(9)).float()
before, batches = peak(), 0
source = open_inputs(store, np.arange(n), front, device, room=room)
shards = feed(source, rows, n, 0)
for epoch in range(2):
    for shard in shards(epoch):
        for start in range(0, len(shard.windows) - 64, 64):
            shard.batch(np.arange(start, start + 64))
            batches += 1
print(type(source).__name__, batches, peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_peak_memory_stays_within_the_room_and_without_a_limit_is_all_features(tmp_path):
    store = make_store(tmp_path / "s.zarr", 65536, 512, chunk_rows=4096)  # 67 MB
    peaks = {}
    for room in (16 << 20, 1 << 30):
        command = [sys.executable, "-c", PEAK, str(store.path), str(room)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        source, batches, peak = ran.stdout.split()
        assert int(batches) > 1900
        peaks[source] = int(peak)
    assert peaks["InMemory"] > 65e6
    assert peaks["FromDisk"] < (16 << 20) + 12e6  # batches, window numbers, the reading thread


def test_from_disk_the_drawn_windows_of_an_epoch_are_those_of_memory(store, short_segments):
    rows, clip = windows_of(), np.arange(N) // 5
    drawn = Drawn(clip, 2, seed=3)
    of = feed(FromDisk(store, STORE_ROWS, front("shifted"), CPU, VIEWS, 700), rows, N, 3, drawn)
    memory = feed(load(store, STORE_ROWS, front("shifted"), CPU, VIEWS), rows, N, 3, drawn)
    for epoch in range(3):
        (whole,) = memory(epoch)
        shards = [shard.windows for shard in of(epoch)]
        assert len(shards) > 2
        assert sorted(np.concatenate(shards)) == whole.windows.tolist() == np.flatnonzero(drawn(epoch)).tolist()
        assert len(whole.windows) == drawn.num_windows
        features, valid = whole.batch(np.arange(4))
        torch.testing.assert_close(features, by_hand(store, front("shifted"), rows[whole.windows[:4]]))
        assert torch.equal(valid, torch.from_numpy(rows[whole.windows[:4]] >= 0))


@pytest.mark.parametrize("num_frames", [1, 3])
def test_in_memory_a_window_is_in_the_view_that_is_drawn_with_all_its_frames(store, num_frames):
    rows, made = windows_of(num_frames), front("shifted")
    (shard,) = feed(load(store, STORE_ROWS, made, CPU, VIEWS), rows, N, 0, None, ViewDraw(2, 3, True, False))(0)
    (batch,) = shard.in_views([np.arange(N)], 0)
    view = batch // N
    assert (batch % N == np.arange(N)).all()
    assert 10 < view.sum() < N - 10
    taken, valid = shard.batch(batch)
    torch.testing.assert_close(taken, by_hand(store, made, np.where(rows >= 0, rows + view[:, None] * N, -1)))
    frames, place = shard.frames(batch)
    assert torch.equal(place >= 0, valid)
    torch.testing.assert_close(frames[place] * valid[..., None], taken)


@pytest.mark.parametrize("kind", ["shifted", "projected"])
def test_from_disk_neighbouring_windows_share_a_view_which_is_another_one_in_other_epochs(store, kind, short_segments):
    """Of 4 windows each: the sizes are patched. Every epoch reads each segment in one view alone."""
    made, rows, seen = front(kind), windows_of(), []
    of = feed(FromDisk(store, STORE_ROWS, made, CPU, VIEWS, 500), rows, N, 0, None, ViewDraw(2, 3, True, False))
    for epoch in range(12):
        view = np.full(N, -1)
        for shard in of(epoch):
            numbers = np.arange(len(shard.windows))
            (batch,) = shard.in_views([numbers], epoch)
            assert (batch == numbers).all()  # what is held is in its view already
            taken, valid = shard.batch(batch)
            by_view = [
                by_hand(store, made, np.where(rows[shard.windows] >= 0, rows[shard.windows] + v * N, -1))
                for v in (0, 1)
            ]
            is_view = torch.stack([(taken == each).all(dim=(1, 2)) for each in by_view])
            close = torch.stack([torch.isclose(taken, each, atol=1e-5).all(dim=(1, 2)) for each in by_view])
            assert (close.sum(0) == 1).all() or is_view.any()
            view[shard.windows] = close.int().argmax(0).numpy()
            assert torch.equal(valid, torch.from_numpy(rows[shard.windows] >= 0))
            assert len(shard.inputs.values) <= 500 // (2 * source_bytes(made))
        assert (view >= 0).all()
        segments = np.split(view, range(4, N, 4))
        assert all(len({*segment}) == 1 for segment in segments)
        seen.append([int(segment[0]) for segment in segments])
    assert 0.3 < np.mean(seen) < 0.7
    assert len({str(views) for views in seen}) == 12


def source_bytes(made: Front) -> int:
    return 4 * 3 if hasattr(made, "components") else 2 * D


def test_from_disk_one_view_of_each_window_is_read_and_not_all(store, short_segments, monkeypatch):
    read, plain = [], FromDisk.hold
    monkeypatch.setattr(FromDisk, "hold", lambda self, rows, out=None: read.append(len(rows)) or plain(self, rows, out))
    counts = {}
    for name, views, draw in (
        ("plain", VIEWS[:1], None),
        ("augmented", VIEWS, ViewDraw(2, 3, True, False)),
        ("two views of each", VIEWS, ViewDraw(2, 3, False, True)),
    ):
        read.clear()
        of = feed(FromDisk(store, STORE_ROWS, front("shifted"), CPU, views, 350), windows_of(1), N, 0, None, draw)
        assert len(list(of(0))) > 2
        counts[name] = sum(read)
    assert counts == {"plain": N, "augmented": N, "two views of each": 2 * N}
