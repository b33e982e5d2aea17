"""Maps: what the first trained stage takes in, stored like features."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import zarr
from conftest import draw
from PIL import Image
from safetensors.torch import load_file
from test_extract import TINY, index

import extract
import train
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreDamaged, StoreMismatch
from pipeline.extraction import maps, stages
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.weights.prepare import prepare
from pipeline.unfreeze import parts

CUT = "blocks.2"
STORE = Path("data/features.blocks.2.maps.zarr")


@pytest.fixture
def frames(workplace):
    """Videos of 5 and 1 frames, as a frame table."""
    for video, count in {"a": 5, "b": 1}.items():
        for frame in range(1, count + 1):
            draw(workplace / "faces" / video / f"{frame:05d}.jpg", ord(video) * 1000 + frame)
    return index(workplace / "faces")


def run(*more: str) -> int:
    return extract.main([*TINY, *more])


def model() -> torch.nn.Module:
    network = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    network.load_state_dict(load_file("weights/test_efficientnet.safetensors"))
    return network


def test_a_map_is_what_the_stage_takes_in(frames):
    assert run("--maps", CUT) == 0
    store = FeatureStore(STORE)
    seen = []
    network = model()
    network.get_submodule(CUT).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (torch.tensor(store.made_by[k]).view(3, 1, 1) for k in ("mean", "std"))
    path = Path("faces/a/00003.jpg")
    way = Image.Resampling[store.made_by["interpolation"].upper()]
    image = Image.open(path).convert("RGB").resize((32, 32), way)
    with torch.no_grad():
        network(((torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std)[None])
    row = store.keys.query("video == 'a' and frame == 3")["row"].to_numpy()
    got = store.read(row).reshape(store.map_shape)
    assert got.shape == tuple(seen[0].shape[1:])
    assert np.abs(got - seen[0][0].numpy()).max() < 0.02 * float(seen[0].abs().max())


def test_a_store_of_maps_is_a_zarr_array_of_maps_and_says_its_making(frames):
    run("--maps", CUT)
    store, array = FeatureStore(STORE), zarr.open_group(STORE, mode="r")["views/original"]
    assert array.shape[1:] == store.map_shape
    assert array.dtype == np.float16
    assert array.chunks == (store.chunk_rows, *store.map_shape)
    assert list(array.metadata.dimension_names) == ["row", "channel", "y", "x"]
    assert store.made_by["layers"] == [f"input of {CUT}"]
    assert store.made_by["map_shape"] == list(store.map_shape)
    # A chunk has the bytes of 4,096 rows of 1,280 features, at most.
    assert store.chunk_rows * np.prod(store.map_shape) <= 4096 * 1280
    assert np.array_equal(array[:6].reshape(6, -1), store.read(np.arange(6)))
    shutil.copytree(STORE, "data/features.blocks.1.maps.zarr")
    with pytest.raises(StoreMismatch, match=r"layers \['input of blocks.2'\] there, \['input of blocks.1'\] here"):
        run("--maps", "blocks.1")


def test_maps_are_resumed_verified_repaired_and_made_in_parts_like_features(frames, capsys):
    run("--maps", CUT, "--chunk-rows", "1", "--stride", "2")  # 1 row of 1,280 features: one map or more
    rows = FeatureStore(STORE).chunk_rows
    assert "2 frames extracted" in capsys.readouterr().out
    assert run("--maps", CUT, "--chunk-rows", "1") == 0
    assert "4 frames extracted, 2 were there" in capsys.readouterr().out
    store = FeatureStore(STORE)
    assert (len(store.keys), store.chunk_rows) == (6, rows)
    whole = {tuple(k): store.read(np.array([r])).tobytes() for *k, _, r in store.keys.itertuples(index=False)}
    assert run("--maps", CUT, "--verify") == 0
    chunk = STORE / "views/original/c/0/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    assert run("--maps", CUT, "--verify") == 1
    with pytest.raises(StoreDamaged, match="does not match its checksum"):
        FeatureStore(STORE).read(np.array([0]))
    assert run("--maps", CUT, "--repair") == 0
    assert run("--maps", CUT, "--compact") == 0
    store = FeatureStore(STORE)
    again = {tuple(k): store.read(np.array([r])).tobytes() for *k, _, r in store.keys.itertuples(index=False)}
    assert again == whole
    shutil.rmtree(STORE)
    for part in ("1/2", "2/2"):
        run("--maps", CUT, "--chunk-rows", "1", "--part", part)
    assert run("--maps", CUT, "--chunk-rows", "1", "--join") == 0
    store = FeatureStore(STORE)
    assert {tuple(k): store.read(np.array([r])).tobytes() for *k, _, r in store.keys.itertuples(index=False)} == whole


def test_list_says_shape_bytes_and_the_smallest_cut_and_writes_nothing(frames, workplace, capsys):
    before = sorted(workplace.rglob("*"))
    assert run("--maps", "list") == 0
    assert sorted(workplace.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    backbone = load_backbone(prepare("test_efficientnet", "random", Path("weights")), 32)
    cuts = stages.every_cut(backbone)
    assert [line.split()[1] for line in lines[1:]] == list(cuts) == stages.stages(backbone.module.model)
    smallest = min(cuts, key=lambda cut: np.prod(cuts[cut]))
    for line, (cut, shape) in zip(lines[1:], cuts.items(), strict=True):
        assert " x ".join(map(str, shape)) in line
        assert f" {2 * int(np.prod(shape)):,} bytes a frame" in line
        assert ("smallest" in line) == (cut == smallest)


def test_of_features_of_an_inner_layer_the_list_counts_the_stages_that_they_come_through(frames, capsys):
    """And training with as many stages cuts where the list says."""
    assert run("--maps", "list", "--layers", "blocks.2", "--grid", "2") == 0
    listed = {
        line.split()[1]: int(line.split("--unfreeze ")[1].split()[0])
        for line in capsys.readouterr().out.splitlines()[1:]
    }
    assert listed == {"blocks.0": 3, "blocks.1": 2, "blocks.2": 1}
    whole = load_backbone(prepare("test_efficientnet", "random", Path("weights")), 32).module.model
    for cut, number in listed.items():
        assert parts.first_trained(whole, "it", number, ["blocks.2"]) == cut
    with pytest.raises(UserError, match=r"from 1 to 3, the stages of it up to blocks.2, which the features are of"):
        parts.first_trained(whole, "it", 4, ["blocks.2"])
    assert parts.behind_layers(whole, ["blocks.2.0", "blocks.0"])[:3] == ["blocks.3", "blocks.4", "conv_head"]
    assert parts.behind_layers(whole, ["blocks"])[0] == "conv_head"
    assert parts.behind_layers(whole, ["blocks.2", "features"]) == []


def test_maps_that_the_disk_has_no_room_for_are_refused_before_anything_is_stored(frames, monkeypatch, capsys):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(maps.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(
        UserError, match=r"the maps of 6 frames take 18\.4 kB, and the disk of .* has 1\.0 kB: the list above"
    ):
        run("--maps", CUT)
    assert "--maps blocks.4" in capsys.readouterr().out
    assert not STORE.exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--maps", "blocks.9"], r"stage of test_efficientnet 'blocks.9' is not one of .*did you mean 'blocks"),
        (["--maps", CUT, "--views", "2"], "maps are made of the frames as they are: leave views out"),
        (["--maps", CUT, "--processor", "pca", "2"], "--processor goes with an extraction alone"),
        (["--backbone", "test_vit", "--input-size", "160", "--maps", "blocks.1"], "more than a chain of its stages"),
        (["--backbone", "test_mambaout", "--input-size", "64", "--maps", "stages.1"], "channels last"),
    ],
)
def test_what_is_no_map_is_refused_in_a_line(frames, flags, line):
    with pytest.raises(UserError, match=line):
        run(*flags)


def test_maps_are_not_taken_for_features(frames):
    run("--maps", CUT)
    Path("data/labels.parquet").touch()
    with pytest.raises(UserError, match="holds maps, not features"):
        train.main(["-d", str(STORE), "--labels", "data/labels.parquet"])


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_both_halves_are_the_whole(workplace, name):
    backbone = load_backbone(prepare(name, "random", Path("weights")), 64)
    images = torch.randn(3, 3, 64, 64)
    cuts = stages.stages(backbone.module.model)
    assert len(cuts) >= 3
    for cut in cuts:
        half = stages.halves(backbone, cut)
        with torch.no_grad():
            rows, logits = half.before(images)
            features, _ = half.behind(rows.view(3, *half.map_shape))
            expected, _ = backbone.module(images)
        assert logits is None
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_layer_before_the_cut_are_refused(workplace):
    weights = prepare("test_efficientnet", "random", Path("weights"))
    with pytest.raises(UserError, match=r"of the layer 'blocks.0' too, which stands before the cut at blocks.2"):
        stages.halves(load_backbone(weights, 32, ["blocks.0", "features"]), CUT)
    half = stages.halves(load_backbone(weights, 32, ["blocks.3", "features"]), CUT)
    assert dataclasses.is_dataclass(half)
