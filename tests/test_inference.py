import numpy as np
import pytest
import torch
from conftest import adapter_of

from pipeline.adapter import inference
from pipeline.adapter.inference import Some, judge, per_frame
from pipeline.adapter.sources import InMemory
from pipeline.adapter.windows import Window

# Videos of 5, 1 and 40 frames; the last starts late and has gaps.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 6, 1721, 1722, 1723, 1724, *range(1726, 1750), *range(1790, 1802)])
FEATURES = torch.from_numpy(np.random.default_rng(0).standard_normal((46, 4)).astype(np.float32))
FACTS = {
    "loss": {"cross_entropy": 1, "ccc": 1, "bce": 1}, "num_features": 4, "num_components": None, "embedding_size": 6,
    "dropout": 0.5, "classes": ["a", "b", "c"], "temperature": 15.0, "margin": None, "window": {"frames": 5, "step": 1},
    "pooling": "mean", "model_options": {}, "loss_options": {}, "class_counts": [5] * 3, "num_aus": 2,
    "made_by": {},
}  # fmt: skip
CPU = torch.device("cpu")


def adapter(**changes):
    torch.manual_seed(0)
    return adapter_of(FACTS | changes)


def found(made, stride, rows=None, source=None):
    rows = np.arange(46) if rows is None else rows
    return per_frame(made, source or InMemory(FEATURES), made.window.over(VIDEO, FRAME), rows, stride, CPU)


def said_of(made, z):
    of = made.predict
    return {"classes": of("classes", z).softmax(1), "va": of("va", z), "aus": of("aus", z).sigmoid()}


@torch.inference_mode()
def by_a_loop(made, stride):
    """Each window of each video cut out by frame number, without padding; then each frame's mean over its windows."""
    made.head.eval()
    num_frames = made.window.frames
    parts = [[] for _ in VIDEO]
    for video in np.unique(VIDEO):
        rows = np.flatnonzero(video == VIDEO)
        start, last = FRAME[rows[0]], FRAME[rows[-1]]
        while True:
            held = rows[(FRAME[rows] >= start) & (FRAME[rows] < start + num_frames)]
            if len(held):
                # Missing frames keep their places, as the distance of frames counts for some heads.
                x, valid = torch.zeros(1, num_frames, 4), torch.zeros(1, num_frames, dtype=torch.bool)
                x[0, FRAME[held] - start], valid[0, FRAME[held] - start] = FEATURES[held], True
                z = made.head(x, valid)
                for row in held:
                    of_frame = z[0, [FRAME[row] - start]]
                    parts[row].append({"z": of_frame} | said_of(made, of_frame))
            if start + num_frames > last:
                break
            start += stride
    joined = [{name: torch.cat([p[name] for p in of]).mean(0) for name in of[0]} for of in parts]
    mean = {name: torch.stack([of[name] for of in joined]) for name in joined[0]}
    return mean.pop("z").numpy(), {name: values.numpy() for name, values in mean.items()}


@pytest.mark.parametrize("stride", [1, 3, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {"model": "tcn", "pooling": "centre"},
        {"model": "gru", "pooling": "centre"},
        {
            "model": "transformer",
            "pooling": "centre",
            "window": {"frames": 6, "step": 1},
            "model_options": {"num_heads": 2},
        },
    ],
    ids=lambda c: c["model"],
)
def test_a_frame_with_an_embedding_of_its_own_is_its_mean_over_the_windows_that_hold_it(changes, stride):
    made = adapter(**changes)
    z, said = found(made, stride)
    expected, of_loss = by_a_loop(made, stride)
    np.testing.assert_allclose(z, expected, atol=1e-5)
    for what, values in of_loss.items():
        np.testing.assert_allclose(said[what], values, atol=1e-6)
    np.testing.assert_allclose(said["classes"].sum(1), 1)
    assert np.abs(z - found(made, None)[0]).max() > 1e-3  # which is something else than one window around it


def test_a_frame_is_no_mean_over_its_mirror_images():
    """Windows of 5 frames, 5 apart, over 7 frames: the second holds frames 5 and 6, mirrored three times over."""
    made = adapter(model="tcn", pooling="centre", window={"frames": 5, "step": 1, "edge": "mirror"})
    video, frame, source = np.zeros(7, dtype=int), np.arange(7), InMemory(FEATURES[:7])
    z, said = per_frame(made, source, made.window.over(video, frame), np.arange(7), 5, CPU)
    windows = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 5, 4, 3]])
    of_windows = made.embed_frames(source, windows)
    expected = torch.cat([of_windows[0], of_windows[1, :2]])
    np.testing.assert_allclose(z, expected, atol=1e-6)
    np.testing.assert_allclose(said["va"], said_of(made, expected)["va"].detach(), atol=1e-6)


def between_by_a_loop(made, stride):
    """What numpy interpolates between the frames that one walks past in strides, and each video's last one."""
    (z, said), (expected, of_loss) = found(made, None), ([], [])
    for video in np.unique(VIDEO):
        rows = np.flatnonzero(video == VIDEO)
        kept, bins = [], set()
        for row in rows:
            which = (FRAME[row] - FRAME[rows[0]]) // stride
            if which not in bins or row == rows[-1]:
                kept.append(row)
            bins.add(which)
        for values, out in ((z, expected), (np.hstack(list(said.values())), of_loss)):
            out += np.stack([np.interp(FRAME[rows], FRAME[kept], column[kept]) for column in values.T], axis=1).tolist()
    return np.array(expected), np.array(of_loss)


@pytest.mark.parametrize("stride", [1, 3, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {"model": "tcn", "pooling": "mean"},
        {"model": "gru", "pooling": "hann", "window": {"frames": 6, "step": 1}},
        {"model": "attention_pool", "window": {"frames": 9, "step": 1}},
    ],
    ids=lambda c: c["model"],
)
def test_where_a_window_has_one_embedding_a_frame_is_between_the_windows_next_to_it(changes, stride):
    """And no mean over windows, which would be a second mean in time: with a stride of 1 it is its own window."""
    made = adapter(**changes)
    z, said = found(made, stride)
    expected, of_loss = between_by_a_loop(made, stride)
    np.testing.assert_allclose(z, expected, atol=1e-5)
    np.testing.assert_allclose(np.hstack(list(said.values())), of_loss, atol=1e-6)
    np.testing.assert_allclose(said["classes"].sum(1), 1)
    assert (np.abs(z - found(made, None)[0]).max() < 1e-5) == (stride == 1)


@pytest.mark.parametrize("pooling", ["mean", "hann", "centre"])
def test_a_head_of_single_frames_says_the_same_at_every_stride(pooling):
    made = adapter(model="mlp", pooling=pooling)
    (z, said), (alone, of_one) = found(made, 4), found(made, None)
    np.testing.assert_array_equal(z, alone)
    np.testing.assert_array_equal(said["classes"], of_one["classes"])


@pytest.mark.parametrize(
    "changes",
    [{"model": "tcn", "window": {"frames": 1}}, {"model": "tcn", "window": {"frames": 1}, "pooling": "centre"}],
)
def test_where_windows_say_the_same_of_a_frame_their_mean_is_that(changes):
    made = adapter(**changes)
    (z, said), (alone, of_one) = found(made, 3), found(made, None)
    np.testing.assert_allclose(z, alone, atol=1e-6)
    np.testing.assert_allclose(said["va"], of_one["va"], atol=1e-6)


def test_a_stride_wider_than_the_window_is_the_window():
    made = adapter(model="tcn")
    np.testing.assert_array_equal(found(made, 5)[0], found(made, 100)[0])


@pytest.mark.parametrize("pooling", ["centre", "mean"])
@pytest.mark.parametrize("stride", [None, 1, 4])
def test_some_frames_are_what_they_are_among_all(stride, pooling, monkeypatch):
    made = adapter(model="tcn", pooling=pooling)
    z, said = found(made, stride)
    monkeypatch.setattr(inference, "BLOCK", 7)  # windows across its edges are needed on both sides
    monkeypatch.setattr(inference, "BATCH", 11)
    for rows in (np.arange(46), np.array([4, 5, 20, 21, 45])):
        some, of_some = found(made, stride, rows)
        np.testing.assert_allclose(some, z[rows], atol=1e-6)
        np.testing.assert_allclose(of_some["classes"], said["classes"][rows], atol=1e-6)


class Garbage(InMemory):
    """Something else than zeros where there is no frame."""

    def gather(self, rows):
        features, valid = super().gather(rows)
        return features.masked_fill(~valid.unsqueeze(-1), 1e3), valid


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize(("model", "pooling"), [("tcn", "centre"), ("gru", "mean"), ("attention_pool", "mean")])
def test_what_is_not_valid_changes_nothing(model, pooling, stride):
    made = adapter(model=model, pooling=pooling, window={"frames": 7, "step": 1})
    (z, said), (other, of_other) = found(made, stride), found(made, stride, source=Garbage(FEATURES))
    np.testing.assert_array_equal(z, other)
    np.testing.assert_array_equal(said["aus"], of_other["aus"])


def test_of_some_frames_windows_are_those_of_all_and_a_frame_that_is_not_kept_is_no_zero():
    made, rows = adapter(model="tcn"), np.array([2, 5, 18, 44])
    kept = np.array([0, 1, 2, 3, 4, 5, *range(12, 26), *range(36, 46)])
    source = Some(InMemory(FEATURES[kept]), kept, 46)
    (z, said), (z_all, said_all) = found(made, None, rows, source), found(made, None, rows)
    np.testing.assert_allclose(z, z_all, atol=1e-6)
    np.testing.assert_allclose(said["classes"], said_all["classes"], atol=1e-6)
    np.testing.assert_array_equal(source.take(torch.tensor([5, 18])), FEATURES[[5, 18]])
    with pytest.raises(AssertionError, match="not kept"):
        source.gather(torch.tensor([[30, -1]]))


@pytest.mark.parametrize("stride", [None, 2])
def test_no_frames_are_no_rows(stride):
    z, said = found(adapter(model="tcn"), stride, np.zeros(0, dtype=int))
    assert (z.shape, said["classes"].shape, said["va"].shape) == ((0, 6), (0, 3), (0, 2))


@pytest.mark.parametrize("inputs", [1, 28, 100_000])
def test_a_head_for_pairs_judges_the_windows_around_two_frames(inputs, monkeypatch):
    made = adapter(model="pair_gate", loss="pair_bce")
    monkeypatch.setattr(inference, "PAIR_INPUTS", inputs)
    threads = torch.get_num_threads()
    monkeypatch.setattr(inference, "BATCH", 10)
    rows = np.array([45, 5, 0, 20, 21])
    logits = judge(made, InMemory(FEATURES), made.window.over(VIDEO, FRAME), rows, CPU)
    found = logits(np.array([0, 3]), np.array([4, 1, 0]))
    windows = torch.from_numpy(Window(5, 1).over(VIDEO, FRAME).centred(rows))
    for i, a in enumerate([0, 3]):
        for j, b in enumerate([4, 1, 0]):
            expected = made.compare(InMemory(FEATURES), windows[[a]], windows[[b]])
            assert found[i, j] == pytest.approx(float(expected), abs=1e-5)
    assert found.std() > 0.01
    assert logits(np.zeros(0, dtype=int), np.array([1])).shape == (0, 1)
    assert torch.get_num_threads() == threads


def test_a_comparison_reads_each_window_once():
    made = adapter(model="pair_gate", loss="pair_bce")
    windows = torch.from_numpy(Window(5, 1).over(VIDEO, FRAME).centred(np.array([45, 5, 20])))
    left, right, read = windows[[0, 0, 1, 2]], windows[[1, 2, 2, 2]], []

    class Counted(InMemory):
        def gather(self, rows):
            read.append(len(rows))
            return super().gather(rows)

    found = made.compare(Counted(FEATURES), left, right, batch_size=2)
    plain = InMemory(FEATURES)
    expected = made.head.pair(*plain.gather(left), *plain.gather(right))
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)
    assert sum(read) == 3
