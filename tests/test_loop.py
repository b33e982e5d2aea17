import io
import itertools
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import draw
from PIL import Image
from torch import nn

from pipeline.core.store import FeatureStore, StoreWriter
from pipeline.core.tables import Frames
from pipeline.extraction import forward as forward_module
from pipeline.extraction import frames as frames_module
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.forward import PRECISIONS, Forward, compile_or_say_why_not, fold_batch_norms
from pipeline.extraction.frames import decode, resize_image
from pipeline.extraction.weights.prepare import prepare

CPU = torch.device("cpu")
LEAST_COSINE = 0.9995


def lively(module: nn.Module) -> nn.Module:
    """Batch norms that do something: random weights come with means of 0 and variances of 1."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.1, generator=generator)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    weights = prepare("test_efficientnet", "random", tmp_path_factory.mktemp("weights"))
    backbone = load_backbone(weights, 32)
    lively(backbone.module)
    return backbone


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for number in range(23):
        draw(root / f"{number:03d}.jpg", number)
    return root


def frames_of(root: Path) -> Frames:
    paths = sorted(root.glob("*.jpg"))
    rows = [("v", i, path.name, path.stat().st_size) for i, path in enumerate(paths)]
    return Frames(pd.DataFrame(rows, columns=["video", "frame", "path", "size"]), root, "tiny", "cropped_aligned")


def extracted(store: Path, backbone, root: Path, batch_size=4, workers=2, views=("original",), device=CPU):
    frames, outcome = frames_of(root), loop.Outcome(done_before=0)
    forward = Forward(backbone, batch_size, "float32", views, device)
    with StoreWriter(store, {}, loop.widths(backbone, views), chunk_rows=8) as writer:
        loop.extract(frames, frames.table, writer, forward, workers, outcome)
    return FeatureStore(store), outcome


def square(path: Path, backbone) -> np.ndarray:
    return resize_image(decode(path), backbone.input_size, backbone.interpolation)


def least_cosine(a, b) -> float:
    a, b = (torch.as_tensor(np.asarray(x)).float() for x in (a, b))
    return F.cosine_similarity(a, b).min().item()


def reference(backbone, paths: list[Path]) -> torch.Tensor:
    """PIL's decoding and resize, float32, the module as it was loaded."""
    way = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[backbone.interpolation]
    size, mean, std = backbone.input_size, torch.tensor(backbone.mean), torch.tensor(backbone.std)
    images = [Image.open(path).convert("RGB").resize((size, size), way) for path in paths]
    x = (torch.from_numpy(np.stack(images)) / 255 - mean) / std
    with torch.inference_mode():
        return torch.cat([backbone.module(part)[0] for part in x.permute(0, 3, 1, 2).split(50)])


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_gives_the_features_of_float32_and_pil(tiny, pictures, precision):
    paths = sorted(pictures.glob("*.jpg"))
    forward = Forward(tiny, 23, precision, ["original"], CPU)
    rows = forward([square(path, tiny) for path in paths], ["v"] * 23)["original"]
    assert rows.dtype == np.float16
    assert least_cosine(rows, reference(tiny, paths)) >= LEAST_COSINE


REFERENCES = {}  # of the photographs, by their size and number: they cost as much as what is tested


@pytest.mark.slow
@pytest.mark.skipif("PHOTOGRAPHS" not in os.environ, reason="PHOTOGRAPHS does not say where they are")
@pytest.mark.parametrize(
    ("precision", "size", "frames", "count"),
    [
        ("float32", 112, 0, 1000),
        ("float32", 112, 10**9, 1000),
        ("float32", 224, 10**9, 240),  # each takes 4 times as long
        ("float16", 112, 0, 200),  # 20 times
    ],
)
def test_every_precision_gives_the_features_of_float32_and_pil_on_photographs(tmp_path, precision, size, frames, count):
    paths = sorted(Path(os.environ["PHOTOGRAPHS"]).rglob("*.jpg"))
    paths = random.Random(0).sample(paths, 1000)[:count]
    backbone = load_backbone(prepare("tf_efficientnet_lite0", "auto", tmp_path), size)
    forward = Forward(backbone, 20, precision, ["original"], CPU, frames)
    forward.prepare()
    assert bool(forward.by_image) == bool(frames)
    rows = [
        forward([square(p, backbone) for p in paths[i : i + 20]], ["v"] * 20)["original"] for i in range(0, count, 20)
    ]
    if (size, count) not in REFERENCES:
        REFERENCES[size, count] = reference(backbone, paths)
    least = least_cosine(np.concatenate(rows), REFERENCES[size, count])
    print(f"\n{precision} at {size}, a job of {frames:,}: least cosine {least:.6f}")
    assert least >= LEAST_COSINE


def test_a_row_hangs_on_its_image_alone_to_the_last_bit(tiny, pictures):
    images = [square(path, tiny) for path in sorted(pictures.glob("*.jpg"))]
    forward = Forward(tiny, 8, "float32", ["original"], CPU)
    together = forward(images[:8], ["v"] * 8)["original"]
    for place in range(8):
        others = forward([images[i] for i in (9, 10, place, 11)], ["v"] * 4)["original"]
        np.testing.assert_array_equal(others[2], together[place])


def test_bytes_do_not_hang_on_workers_and_features_hardly_on_the_batch_size(tmp_path, tiny, pictures):
    store, outcome = extracted(tmp_path / "one.zarr", tiny, pictures, workers=1)
    assert (outcome.extracted, outcome.skipped) == (23, {})
    rows = store.read(np.arange(23))
    for workers in (2, 3, 8):
        other, _ = extracted(tmp_path / f"{workers}.zarr", tiny, pictures, workers=workers)
        np.testing.assert_array_equal(other.read(np.arange(23)), rows)
    for batch_size in (1, 5, 32):
        other, _ = extracted(tmp_path / f"b{batch_size}.zarr", tiny, pictures, batch_size=batch_size)
        assert least_cosine(other.read(np.arange(23)), rows) > 0.999999


def test_frames_that_cannot_be_read_leave_no_hole_in_a_chunk(tmp_path, tiny):
    for number in range(23):
        draw(tmp_path / "p" / f"{number:03d}.jpg", number)
    whole, _ = extracted(tmp_path / "whole.zarr", tiny, tmp_path / "p")
    for number in (0, 5, 9, 10, 22):
        (tmp_path / "p" / f"{number:03d}.jpg").write_bytes(b"")
    store, outcome = extracted(tmp_path / "holes.zarr", tiny, tmp_path / "p")
    assert sorted(outcome.skipped) == ["000.jpg", "005.jpg", "009.jpg", "010.jpg", "022.jpg"]
    kept = [i for i in range(23) if i not in (0, 5, 9, 10, 22)]
    assert store.keys["frame"].tolist() == kept
    assert store.keys["row"].tolist() == list(range(18))
    np.testing.assert_array_equal(store.read(np.arange(18)), whole.read(np.array(kept)))


def test_of_stored_rows_the_worst_counts_zeros_equal_zeros_and_what_is_not_a_number_is_not_the_same(
    tmp_path, tiny, pictures
):
    frames = frames_of(pictures)
    forward = Forward(tiny, 4, "float32", ["original"], CPU)
    stored = extracted(tmp_path / "s.zarr", tiny, pictures)[0].read(np.arange(4))
    some = frames.table.head(4)
    assert loop.least_cosine_to_stored(frames, some, stored, forward) == pytest.approx(1)
    assert loop.least_cosine_to_stored(frames, some, stored * [[1], [-1], [1], [1]], forward) == pytest.approx(-1)
    for bad in (np.nan, np.inf):
        harmed = stored.copy()
        harmed[2, 5] = bad
        assert not loop.least_cosine_to_stored(frames, some, harmed, forward) >= loop.SAME_COSINE
    zeros = np.zeros_like(stored)
    silent = lambda *_: {"original": zeros}  # noqa: E731
    silent.batch_size, silent.resize_image = 4, forward.resize_image
    assert loop.least_cosine_to_stored(frames, some, zeros, silent) == 1


# --- what goes on beside the forward pass ----------------------------------------------------------------------------


def test_waiting_for_a_slow_disk_counts_as_decoding(tmp_path, tiny, pictures, monkeypatch):
    read = frames_module._content
    monkeypatch.setattr(frames_module, "_content", lambda path: time.sleep(0.01) or read(path))
    _, outcome = extracted(tmp_path / "s.zarr", tiny, pictures, workers=1)
    waited = outcome.seconds["decode"]
    assert waited + outcome.seconds["forward"] > 23 * 0.01  # what is read while a batch is under way is not waited for
    assert waited > outcome.seconds["forward"]


# --- batch norms and compiling ---------------------------------------------------------------------------------------


def test_every_batch_norm_is_folded_and_the_numbers_stay(tiny):
    folded = fold_batch_norms(tiny.module, 32)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in tiny.module.modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(folded(x)[0], tiny.module(x)[0], rtol=1e-4, atol=1e-5)


def test_a_layer_whose_output_is_asked_for_keeps_its_numbers(tmp_path):
    weights = prepare("test_efficientnet", "random", tmp_path)
    backbone = load_backbone(weights, 32, ["conv_stem", "bn1", "features"])
    lively(backbone.module)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features, _ = fold_batch_norms(backbone.module, 32)(x)
        torch.testing.assert_close(features, backbone.module(x)[0], rtol=1e-4, atol=1e-5)


class Forked(nn.Module):
    """The convolution's output goes past its batch norm too, so that it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.convolution(x)
        return (self.norm(y) + y).flatten(1), None


def test_what_cannot_be_folded_is_left_as_it_is():
    module = lively(Forked()).eval().requires_grad_(False)
    folded = fold_batch_norms(module, 8)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(folded(x)[0], module(x)[0])


def test_on_cuda_only_a_long_job_is_compiled_and_each_is_captured_once(tiny, monkeypatch):
    seen, captured = [], []
    monkeypatch.setattr(forward_module, "compile_or_say_why_not", lambda module, x: seen.append(x.shape) or module)
    monkeypatch.setattr(forward_module, "Captured", lambda module, x: captured.append(x.shape) or module)
    for frames, compiled in ((forward_module.COMPILE_FROM - 1, []), (forward_module.COMPILE_FROM, [(4, 3, 32, 32)])):
        forward = Forward(tiny, 4, "float32", ["original"], CPU, frames)
        forward.on_cuda = True  # as prepare sees it; nothing is computed
        forward.prepare()
        forward.prepare()
        assert seen == compiled
        assert captured == [(4, 3, 32, 32)]
        captured.clear()


@pytest.mark.parametrize("broken", ["no compiler", "it fails", "other numbers"])
def test_without_a_compiler_the_backbone_runs_as_it_is_and_says_so(tiny, monkeypatch, capsys, broken):
    def fails(*args, **more):
        raise RuntimeError("no\nway")

    monkeypatch.setenv("CXX", "no-such-compiler" if broken == "no compiler" else "true")
    if broken != "no compiler":
        wrong = lambda module, **more: lambda x: (module(x)[0].flip(1), None)  # noqa: E731
        monkeypatch.setattr(torch, "compile", fails if broken == "it fails" else wrong)
    why = {"no compiler": "'no-such-compiler'", "it fails": "RuntimeError: no way", "other numbers": "other numbers"}
    assert compile_or_say_why_not(tiny.module, torch.zeros(2, 3, 32, 32)) is tiny.module
    _, line = capsys.readouterr().err.splitlines()
    assert line.startswith("the backbone is not compiled")
    assert why[broken] in line


@pytest.mark.slow
def test_a_compiled_backbone_gives_the_same_features(tiny, capsys):
    """On a CPU, where nothing asks for it, since that is where it can be tried everywhere."""
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=torch.channels_last)
    module = fold_batch_norms(tiny.module, 32).to(memory_format=torch.channels_last)
    compiled = compile_or_say_why_not(module, x)
    assert "not compiled" not in capsys.readouterr().err
    assert compiled is not module
    with torch.inference_mode():
        assert least_cosine(compiled(x)[0], module(x)[0]) > 0.999999


# --- by ONNX Runtime, an image a core --------------------------------------------------------------------------------


def long_job(backbone, views=("original",), threads=None, frames=forward_module.EXPORT_FROM) -> Forward:
    if threads:
        torch.set_num_threads(threads)
    try:
        forward = Forward(backbone, 4, "float32", views, CPU, frames)
        forward.prepare()
        return forward
    finally:
        torch.set_num_threads(1)


def test_only_a_long_job_of_float32_on_a_cpu_runs_by_onnx_runtime(tiny, monkeypatch):
    monkeypatch.setattr(forward_module, "ByImage", lambda *args: pytest.fail("a short job"))
    assert long_job(tiny, frames=forward_module.EXPORT_FROM - 1).by_image is None
    half = Forward(tiny, 4, "float16", ["original"], CPU, forward_module.EXPORT_FROM)
    half.prepare()
    assert half.by_image is None


@pytest.mark.parametrize("layers", [[], ["blocks.0", "blocks.1"]])
def test_onnx_runtime_gives_the_rows_of_pytorch_in_every_view(tmp_path, pictures, layers):
    weights = prepare("test_efficientnet", "random", tmp_path)
    backbone = load_backbone(weights, 64, layers, grid=2)
    lively(backbone.module)
    images = [square(path, backbone) for path in sorted(pictures.glob("*.jpg"))]
    videos, views = [f"v{i % 3}" for i in range(23)], ["original", "flipped", "augmented_1"]
    by_torch = Forward(backbone, 23, "float32", views, CPU)(images, videos)
    by_onnx = long_job(backbone, views, threads=3)(images, videos)
    assert set(by_torch) == set(by_onnx) == set(views)
    for name, rows in by_torch.items():
        assert by_onnx[name].dtype == np.float16
        assert by_onnx[name].shape == rows.shape
        assert least_cosine(by_onnx[name], rows) > 0.999999
        np.testing.assert_allclose(by_onnx[name], rows, rtol=0.01, atol=1e-4)


def test_a_row_of_onnx_runtime_hangs_on_its_image_alone_to_the_last_bit(tiny, pictures):
    images = [square(path, tiny) for path in sorted(pictures.glob("*.jpg"))]
    rows = long_job(tiny)(images, ["v"] * 23)["original"]
    many = long_job(tiny, threads=5)
    under_way = [many.start(images[i : i + 3], ["v"] * 3) for i in range(0, 21, 3)]
    np.testing.assert_array_equal(np.concatenate([wait()["original"] for wait in under_way]), rows[:21])
    np.testing.assert_array_equal(many(images[::-1], ["v"] * 23)["original"], rows[::-1])


def test_batches_are_long_enough_to_keep_many_cores_at_work(tiny):
    assert long_job(tiny, threads=1).batch_size == 4
    assert long_job(tiny, threads=8).batch_size == 32


@pytest.mark.parametrize("broken", ["it fails", "other numbers"])
def test_a_backbone_that_onnx_runtime_cannot_run_goes_on_by_pytorch_and_says_so(
    tiny, pictures, monkeypatch, capsys, broken
):
    def fails(*args, **more):
        raise RuntimeError("no\nway")

    if broken == "it fails":
        monkeypatch.setattr(torch.onnx, "export", fails)
    else:
        monkeypatch.setattr(forward_module.ByImage, "__call__", lambda self, image: [np.arange(256.0)])
    forward = long_job(tiny)
    assert forward.by_image is None
    (line,) = capsys.readouterr().err.splitlines()
    why = {"it fails": "RuntimeError: no way", "other numbers": "other numbers"}[broken]
    assert line == f"the backbone does not run by ONNX Runtime, and is about a third slower: {why}".replace(
        "other numbers", "it gives other numbers"
    )
    images = [square(path, tiny) for path in sorted(pictures.glob("*.jpg"))[:4]]
    expected = Forward(tiny, 4, "float32", ["original"], CPU)(images, ["v"] * 4)
    np.testing.assert_array_equal(forward(images, ["v"] * 4)["original"], expected["original"])


def test_a_store_of_a_long_job_is_that_of_a_short_one(tmp_path, tiny, pictures, monkeypatch):
    short, _ = extracted(tmp_path / "short.zarr", tiny, pictures)
    monkeypatch.setattr(forward_module, "EXPORT_FROM", 0)
    long, outcome = extracted(tmp_path / "long.zarr", tiny, pictures)
    assert outcome.extracted == 23
    assert long.keys.equals(short.keys)
    assert least_cosine(long.read(np.arange(23)), short.read(np.arange(23))) > 0.999999
    again, _ = extracted(tmp_path / "again.zarr", tiny, pictures, batch_size=9, workers=5)
    np.testing.assert_array_equal(again.read(np.arange(23)), long.read(np.arange(23)))


# --- chunks and the thread that writes -------------------------------------------------------------------------------


class Widths:
    chunk_rows, widths = 4, {"original": 2, "logits": 1}


@pytest.mark.parametrize("sizes", [[], [3], [4], [5], [1, 0, 2, 9, 3], [4, 4, 1]])
def test_batches_of_any_size_become_full_chunks_in_the_same_order(sizes):
    places = list(range(100, 100 + sum(sizes)))
    batches = []
    for start, end in itertools.pairwise(np.cumsum([0, *sizes])):
        column = np.array(places[start:end], np.float16).reshape(-1, 1)
        batches.append((places[start:end], {"original": column.repeat(2, 1), "logits": column}))
    chunks = list(loop.into_chunks(batches, Widths))
    assert [len(p) for p, _ in chunks] == [4] * (sum(sizes) // 4) + [sum(sizes) % 4] * (sum(sizes) % 4 > 0)
    assert [place for p, _ in chunks for place in p] == places
    for p, rows in chunks:
        assert rows["original"].tolist() == [[place, place] for place in p]
        assert rows["logits"][:, 0].tolist() == p


def test_writing_goes_on_behind_in_order_and_one_at_a_time():
    done, under_way, go = [], [], threading.Event()

    def write(number):
        under_way.append(number)
        assert len(under_way) == 1
        go.wait(5)
        time.sleep(0.01)
        done.append(under_way.pop())

    with loop.Behind(write) as behind:
        behind(0)
        assert done == []  # nobody waited for it
        go.set()
        for number in range(1, 5):
            behind(number)
            assert done == list(range(number))
    assert done == [0, 1, 2, 3, 4]


def test_an_error_while_writing_comes_out_and_nothing_is_written_after_it():
    seen = []

    def write(number):
        seen.append(number)
        if number == 1:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), loop.Behind(write) as behind:  # noqa: PT012
        for number in range(5):
            behind(number)
        behind.wait()
    assert seen == [0, 1]


def test_an_error_elsewhere_lets_the_chunk_under_way_be_finished():
    done = []
    with pytest.raises(KeyboardInterrupt), loop.Behind(lambda: time.sleep(0.05) or done.append(1)) as behind:  # noqa: PT012
        behind()
        raise KeyboardInterrupt
    assert done == [1]


# --- the progress line -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_line_says_what_is_done_how_fast_how_long_and_what_takes_the_time():
    show = loop.Progress(1_000_000)
    show.done = 250_000
    show.seconds = {"decode": 100.0, "forward": 850.0, "write": 50.0}
    assert show.line(1000.0).strip() == (
        "250,000 of 1,000,000 frames, 250 frames/s, 0:50:00 left (decode 10 %, forward 85 %, write 5 %)"
    )


def test_progress_is_shown_on_a_terminal_and_nowhere_else(tmp_path, tiny, pictures, monkeypatch):
    for name, stream in {"terminal": Terminal(), "file": io.StringIO()}.items():
        monkeypatch.setattr("sys.stderr", stream)
        _, outcome = extracted(tmp_path / f"{name}.zarr", tiny, pictures)
        assert set(outcome.seconds) == {"decode", "forward", "write"}
        last = stream.getvalue().split("\r")[-1]
        assert last.startswith("23 of 23 frames") if name == "terminal" else last == ""


# --- CUDA ------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_on_cuda_every_precision_gives_the_features_of_float32_and_pil(tiny, pictures, precision):
    paths = sorted(pictures.glob("*.jpg"))
    forward = Forward(tiny, 8, precision, ["original", "flipped"], torch.device("cuda"))
    forward.prepare()
    images = [square(path, tiny) for path in paths]
    started = [forward.start(images[i : i + 8], ["v"] * 8) for i in range(0, 23, 8)]  # several under way
    rows = [wait()["original"] for wait in started]
    assert least_cosine(np.concatenate(rows), reference(tiny, paths)) >= LEAST_COSINE
    tiny.module.cpu()


@pytest.mark.gpu
def test_on_cuda_the_store_is_as_on_the_cpu(tmp_path, tiny, pictures):
    views = ("original", "flipped", "augmented_1")
    by_cuda, _ = extracted(tmp_path / "cuda.zarr", tiny, pictures, views=views, device=torch.device("cuda"))
    by_cpu, _ = extracted(tmp_path / "cpu.zarr", tiny, pictures, views=views)
    for name in views:
        assert least_cosine(by_cuda.read(np.arange(23), name), by_cpu.read(np.arange(23), name)) >= LEAST_COSINE
