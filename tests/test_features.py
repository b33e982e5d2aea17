import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.adapter import sources as features
from pipeline.adapter.front import Front
from pipeline.adapter.sources import Blocks, FromDisk, InMemory, allowance, fits, free_memory, load, open_inputs
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreWriter

CPU = torch.device("cpu")
D, N = 4, 46
# Videos of 5, 1 and 40 frames, as in test_windows: the last starts late and lacks a frame.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 2, 1721, 1722, 1723, 1724, *range(1726, 1762)])
VIEWS = ("original", "flipped")
STORE_ROWS = np.random.default_rng(3).permutation(60)[:N]  # the store was not written in the order of training


def make_store(path, num_rows: int, width: int, views=("original",), chunk_rows: int = 8) -> FeatureStore:
    rng = np.random.default_rng(0)
    with StoreWriter(path, {"backbone": "tiny"}, {view: width for view in views}, chunk_rows) as writer:
        for start in range(0, num_rows, chunk_rows):
            size = min(chunk_rows, num_rows - start)
            keys = pd.DataFrame({"video": "v", "frame": range(start, start + size), "size": 1})
            writer.write(keys, {view: rng.standard_normal((size, width)).astype(np.float16) for view in views})
    return FeatureStore(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("features") / "s.zarr", 60, D, VIEWS)


def front(kind: str) -> Front:
    made = Front(D, 3 if kind == "projected" else None)
    generator = torch.Generator().manual_seed(1)
    if kind != "none":
        for name, buffer in made.named_buffers():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name == "scale" else 0.0))
    return made


def by_hand(store: FeatureStore, made: Front, rows: np.ndarray) -> torch.Tensor:
    """Windows (B, T, K), a frame at a time, read by zarr alone; rows from N on are those of the second view."""
    group, out = store.group, torch.zeros(*rows.shape, made.num_inputs)
    for (b, t), row in np.ndenumerate(rows):
        if row >= 0:
            x = group[f"views/{VIEWS[row // N]}"][:][STORE_ROWS[row % N]]
            out[b, t] = made(torch.from_numpy(x)[None])[0]
    return out


ROWS = np.array([[-1, 0, 1], [45, -1, 3], [7, 7, 7], [-1, -1, -1], [N, 2 * N - 1, 20]])


@pytest.mark.parametrize("kind", ["none", "shifted", "projected"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_windows_hold_what_the_front_makes_of_the_stored_rows_and_zeros_where_there_is_none(store, kind, where):
    made = front(kind)
    source = (load if where == "memory" else FromDisk)(store, STORE_ROWS, made, CPU, VIEWS)
    taken, valid = source.gather(torch.from_numpy(ROWS))
    assert taken.dtype == torch.float32
    assert valid.tolist() == (ROWS >= 0).tolist()
    torch.testing.assert_close(taken, by_hand(store, made, ROWS))
    flat = torch.tensor([50, 3, 3, 0])
    torch.testing.assert_close(source.take(flat), by_hand(store, made, flat.numpy()[:, None])[:, 0])
    if kind != "projected":  # whose sums may be taken in another order
        assert torch.equal(source.take(flat), by_hand(store, made, flat.numpy()[:, None])[:, 0])


def test_without_a_projection_half_precision_is_kept_and_with_one_only_its_components(store):
    plain, projected = (load(store, STORE_ROWS, front(kind), CPU, VIEWS).values for kind in ("shifted", "projected"))
    assert (plain.dtype, plain.shape) == (torch.float16, (2 * N, D))
    assert (projected.dtype, projected.shape) == (torch.float32, (2 * N, 3))


def test_gathering_changes_nothing_that_is_held_and_gives_a_tensor_of_its_own(store):
    for kind in ("none", "projected"):
        source = load(store, STORE_ROWS, front(kind), CPU)
        before = source.values.clone()
        first, _ = source.gather(torch.tensor([[0, -1]]))
        source.gather(torch.tensor([[5, 6]]))[0].add_(1.0)
        torch.testing.assert_close(first, source.gather(torch.tensor([[0, -1]]))[0], rtol=0, atol=0)
        assert torch.equal(source.values, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_gathered_windows_hold_the_rows_and_zeros_where_there_is_none(dtype):
    source = InMemory(torch.arange(24, dtype=dtype).view(6, 4) + 1)
    taken, valid = source.gather(torch.tensor([[-1, 0, 1], [3, -1, 5]]))
    zeros = [0, 0, 0, 0]
    assert taken.dtype == torch.float32
    assert taken.tolist() == [
        [zeros, [1, 2, 3, 4], [5, 6, 7, 8]],
        [[13, 14, 15, 16], zeros, [21, 22, 23, 24]],
    ]
    assert valid.tolist() == [[False, True, True], [True, False, True]]


def test_a_broken_first_row_does_not_reach_padded_frames():
    source = InMemory(torch.full((2, D), float("nan")))
    assert source.gather(torch.tensor([[-1, -1]]))[0].tolist() == [[[0.0] * D] * 2]


def test_weights_learn_from_gathered_features(store):
    taken, _ = load(store, STORE_ROWS, front("shifted"), CPU, VIEWS).gather(torch.from_numpy(ROWS))
    layer = torch.nn.Linear(D, 2)
    layer(taken).sum().backward()
    torch.testing.assert_close(layer.weight.grad, taken.sum((0, 1)).expand(2, D))


@pytest.mark.parametrize("size", [1, 2 * D * 3, 10**6], ids=["a_row", "three_rows", "all"])
def test_blocks_hold_every_row_once_in_the_order_of_the_store_and_can_be_had_again(store, size):
    rows = np.array([40, 3, 4, 5, 3, 59, 0, 20, 22])
    values = store.group["views/flipped"][:]
    blocks = Blocks(store, rows, "flipped", size)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(blocks)), values[np.sort(rows)])
    places = list(blocks.places())
    parts = list(map(blocks.read, places))
    assert max(len(part) for part in parts) <= max(size // (2 * D), 1)
    assert all(np.ptp(rows[p]) < features.SPREAD * max(size // (2 * D), 1) for p in places)
    np.testing.assert_array_equal(np.concatenate(parts), values[rows[np.concatenate(places)]])
    assert sorted(np.concatenate(places)) == list(range(len(rows)))
    assert list(Blocks(store, rows[:0])) == []


@pytest.mark.parametrize("rows", [np.arange(2 * N), np.r_[3:9, 12:20, N + 1], np.r_[7, 2, N + 4, 3, 3]])
@pytest.mark.parametrize("size", [3, 10**6])
def test_frames_are_held_in_the_order_asked_for_be_they_read_in_place_or_moved_there(store, rows, size, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_BYTES", 2 * D * size)
    stored = np.concatenate([store.group[f"views/{name}"][:][STORE_ROWS] for name in VIEWS])
    for given in (None, torch.full((2 * N, D), -1, dtype=torch.float16)):
        held = FromDisk(store, STORE_ROWS, front("none"), CPU, VIEWS).hold(rows, given)
        np.testing.assert_array_equal(held.values.numpy(), stored[rows])
        assert given is None or (given[len(rows) :] == -1).all()


def test_rows_of_the_store_that_follow_each_other_are_read_to_their_place_at_once(store, monkeypatch):
    def moved(*_):
        raise AssertionError("a block was copied once more")

    monkeypatch.setattr(torch.Tensor, "index_copy_", moved)
    rows = np.arange(20, 50)
    np.testing.assert_array_equal(load(store, rows, front("none"), CPU).values.numpy(), store.read(rows))


def test_a_front_fitted_on_blocks_is_fitted_on_all_their_rows(store):
    rows = np.arange(1, 60, 2)
    made = Front(D, None)
    made.fit(Blocks(store, rows, size=7 * 2 * D), "standardise")
    x = store.group["views/original"][:][rows].astype(np.float64)
    np.testing.assert_allclose(made.shift, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(made.scale, x.std(0), rtol=1e-5)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_what_fits_the_room_is_held_and_what_does_not_stays_on_disk(store):
    need = 2 * N * D * 2
    assert fits(2 * N, 2 * D, need * 8 // 7 + 1)
    assert not fits(2 * N, 2 * D, need)
    assert isinstance(open_inputs(store, STORE_ROWS, front("none"), CPU, VIEWS, need * 8 // 7 + 1), InMemory)
    assert isinstance(open_inputs(store, STORE_ROWS, front("none"), CPU, VIEWS, need), FromDisk)
    assert isinstance(open_inputs(store, STORE_ROWS, front("none"), CPU, VIEWS), InMemory)


def test_memory_that_an_earlier_fold_left_with_the_process_counts_as_free(monkeypatch):
    """As torch keeps it on a CUDA device: 30 free there, 50 held, of which 10 are in use."""
    for name, value in {"mem_get_info": (30, 80), "memory_reserved": 50, "memory_allocated": 10}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert allowance(torch.device("cuda")) == int(features.SHARE * 70)


def test_the_allowance_is_what_was_asked_for_or_a_share_of_what_is_free():
    assert allowance(CPU, 1.5) == 1_500_000_000
    assert 0 < allowance(CPU) <= features.SHARE * free_memory() * 1.2
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UserError, match="above 0"):
            allowance(CPU, wrong)


GROUPS = {
    "version_2": ("0::/a/b", "", "memory.max", "memory.current", ""),
    "version_1": ("7:memory:/a/b", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


@pytest.mark.parametrize("version", GROUPS)
def test_the_tightest_control_group_above_the_process_limits_what_is_free(tmp_path, version):
    line, controllers, limit, used, prefix = GROUPS[version]

    def group(path: str, limit_bytes: object) -> None:
        folder = tmp_path / "sys/fs/cgroup" / controllers / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{limit_bytes}\n")
        (folder / used).write_text("600\n")
        (folder / "memory.stat").write_text(f"anon 250\n{prefix}active_file 50\n{prefix}inactive_file 300\n")

    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: 3 kB\n")
    assert free_memory(tmp_path) == 3 * 1024
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpuset:/x\n{line}\n")
    assert free_memory(tmp_path) == 3 * 1024  # in a container the path may be one of the host's
    group("a/b", "max" if version == "version_2" else 9223372036854771712)
    assert free_memory(tmp_path) == 3 * 1024
    group("a", 2000)
    assert free_memory(tmp_path) == 2000 - 600 + 350
    group("a/b", 700)
    assert free_memory(tmp_path) == 700 - 600 + 350
