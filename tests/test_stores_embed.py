"""A run on several stores in use: its embedder and its bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_folder

import extract
import train
from pipeline.adapter import sources
from pipeline.adapter.adapter import read_adapter
from pipeline.adapter.inference import per_frame
from pipeline.bundle.write import write_bundle
from pipeline.core.join import open_store
from pipeline.core.params import UserError
from pipeline.datasets import index
from pipeline.embed.embedder import Embedder
from pipeline.extraction.weights.__main__ import main as weights_main

pytestmark = pytest.mark.usefixtures("undrawn")

VIDEOS = {f"{split}/{emotion}/{split}{n}{emotion}": 3 for split in ("train", "val") for emotion in ("happy", "sad")
          for n in range(3)}  # fmt: skip
BACKBONES = {"faces": "test_efficientnet", "context": "test_resnet"}


@pytest.fixture
def place(workplace):
    """Two stores of the same pictures by two backbones, and a run on both."""
    draw_folder(Path("cropped_aligned"), VIDEOS)
    index.main(
        ["--root", "cropped_aligned", "--name", "folder", "--crop-source", "cropped_aligned", "--class-map", "abaw"]
    )
    for name, backbone in BACKBONES.items():
        flags = ["--backbone", backbone, "--weights", "random"]
        weights_main(flags)
        extract.main([*flags, "--input-size", "32", "--device", "cpu", "--workers", "1", "-s", f"{name}.zarr"])
    flags = ["--cpu", "-e", "1", "-r", "1", "--window", "3", "--embedding-size", "8", "--batch-size", "16"]
    flags += ["--select-split", "0.4", "--loss", "cross_entropy", "--no-reduce", "--no-evaluate", "-s", "runs"]
    train.main([*flags, "-d", "faces.zarr", "context.zarr", "--name", "both", "--normalise", "standardise"])
    return workplace


def of_store(path, rows):
    """Embeddings of all rows as evaluation has them, by the stores on disk."""
    store = open_store(path, None)
    adapter, keys = read_adapter("runs/both"), store.keys
    source = sources.load(store, keys["row"].to_numpy(), adapter.front, torch.device("cpu"))
    code = keys["video"].cat.codes.to_numpy().astype(np.int64)
    z, _ = per_frame(adapter, source, adapter.window.over(code, keys["frame"].to_numpy()), rows, None,
                     torch.device("cpu"))  # fmt: skip
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_pictures_go_through_the_backbones_of_all_stores_and_features_may_lack_one(place):
    embedder = Embedder.load("runs/both", device="cpu")
    table = embedder.frames("cropped_aligned")
    found = np.stack(table.sort_values(["video", "frame"])["embedding"].tolist())
    expected = of_store([Path("faces.zarr"), Path("context.zarr")], np.arange(len(table)))
    assert np.allclose(found, expected, atol=2e-3)

    store = open_store([Path("faces.zarr"), Path("context.zarr")], None)
    keys = store.keys
    x = store.read(keys["row"].to_numpy())
    width = store.columns[0].stop
    given = embedder.features(x, keys["video"].astype(str), keys["frame"])
    assert np.allclose(np.stack(given["embedding"].tolist()), expected, atol=1e-5)
    lacking = x.copy()
    lacking[5, width:] = np.nan
    other = embedder.features(lacking, keys["video"].astype(str), keys["frame"])
    z = np.stack(other["embedding"].tolist())
    changed = ~np.isclose(z, expected, atol=1e-5).all(axis=1)
    assert changed.any()
    assert set(np.flatnonzero(changed)) <= {3, 4, 5}  # its video's windows alone
    shifted = x.copy()  # what is absent is the mean of training
    front = embedder.adapters[0].front.blocks[1]
    shifted[5, width:] = front.shift.half().numpy()
    mean = embedder.features(shifted, keys["video"].astype(str), keys["frame"])
    assert np.allclose(z, np.stack(mean["embedding"].tolist()), atol=5e-3)
    lacking[5, width] = 0.0  # some of its columns only
    with pytest.raises(UserError, match="not finite"):
        embedder.features(lacking, keys["video"].astype(str), keys["frame"])

    with pytest.raises(
        UserError, match="weights names one file, and the run runs/both was trained on several stores, faces"
    ):
        Embedder.load("runs/both", weights="x.safetensors")
    embedder.trained.facts["made_by"]["stores"][1]["made_by"]["crop_source"] = "cropped"
    with pytest.raises(UserError, match=r"cut in several ways \(faces: cropped_aligned, context: cropped\)"):
        Embedder(embedder.trained, embedder.device).frames("cropped_aligned")

    made = write_bundle(Path("runs/both"), Path("bundle"))
    assert made.notes == [
        "the backbones of the stores faces, context are no part of it: it takes the features of all, side by side"
    ]
    packed = Embedder.load("bundle", device="cpu")
    again = packed.features(x, keys["video"].astype(str), keys["frame"])
    assert np.array_equal(np.stack(again["embedding"].tolist()), np.stack(given["embedding"].tolist()))
    with pytest.raises(UserError, match="no backbone is known that makes those of faces, context from pictures"):
        packed.frames("cropped_aligned")
    with pytest.raises(UserError, match="its bundle takes the features of all, and has no backbone and no graphs"):
        write_bundle(Path("runs/both"), Path("other"), onnx=True)
