"""Features and logits of a frozen backbone, and the files and sizes that it refuses."""

import lzma
import re
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
from conftest import ROOT
from fixtures import make_hsemotion
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.hiera import Hiera
from timm.models.vision_transformer import VisionTransformer

import extract
from pipeline.core import files
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreMismatch
from pipeline.core.tables import Frames, write_frames
from pipeline.embed.frozen import Frozen
from pipeline.extraction import backbones, forward
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.weights.catalogue import AFFECTNET
from pipeline.extraction.weights.file import read_facts
from pipeline.extraction.weights.prepare import prepare


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small models: several threads only wait for each other where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in ("test_efficientnet", "test_vit"):
        prepare(name, "random", folder)
    return folder


@pytest.fixture(scope="module")
def emotion(tmp_path_factory):
    return prepare("enet_b0_8_best_vgaf", "random", tmp_path_factory.mktemp("emotion"))


@pytest.mark.parametrize(("name", "width"), [("test_efficientnet", 256), ("test_vit", 64)])
def test_features_are_those_of_timm_before_its_classifier(name, width, folder):
    backbone = backbones.load_backbone(folder / f"{name}.safetensors")
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    peer = timm.create_model(name, pretrained=False, num_classes=0).eval()
    peer.load_state_dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))
    with torch.inference_mode():
        features, logits = backbone.module(images)
        torch.testing.assert_close(features, peer(images))
    assert features.shape == (2, width) == (2, backbone.num_features)
    assert logits is None
    assert backbone.outputs == []


def test_logits_are_those_of_the_whole_model_in_the_same_pass(emotion):
    backbone = backbones.load_backbone(emotion)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    passes = []
    backbone.module.model.conv_stem.register_forward_hook(lambda *_: passes.append(1))
    with torch.inference_mode():
        features, logits = backbone.module(images)
        assert len(passes) == 1
        torch.testing.assert_close(logits, backbone.module.model(images))
    assert features.shape == (2, 1280)
    assert logits.shape == (2, 8)
    assert backbone.outputs == list(AFFECTNET)
    assert (backbone.input_size, backbone.interpolation) == (224, "bilinear")
    assert backbone.mean == (0.485, 0.456, 0.406)


def test_the_module_is_frozen_and_stays_in_evaluation(folder):
    module = backbones.load_backbone(folder / "test_efficientnet.safetensors").module
    assert not module.training
    assert not any(layer.training for layer in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_facts_say_what_the_features_hang_on(folder, tmp_path):
    facts = backbones.load_backbone(folder / "test_efficientnet.safetensors").facts
    assert {key: facts[key] for key in ("backbone", "architecture", "source")} == {
        "backbone": "test_efficientnet",
        "architecture": "test_efficientnet",
        "source": "random",
    }
    again = prepare("test_efficientnet", "random", tmp_path)
    assert backbones.load_backbone(again).facts == facts
    tensors = safetensors.torch.load_file(again)
    tensors["bn2.bias"][0] += 1
    files.save_tensors(again, tensors, read_facts(again))
    assert backbones.load_backbone(again).facts["weights_sha256"] != facts["weights_sha256"]


def test_an_input_size_is_the_weights_own_unless_given(folder):
    path = folder / "test_efficientnet.safetensors"
    assert backbones.load_backbone(path).input_size == 160
    assert backbones.load_backbone(path, input_size=64).input_size == 64
    with pytest.raises(UserError, match="at least 1, and is 0"):
        backbones.load_backbone(path, input_size=0)
    with pytest.raises(UserError, match="'test_vit' takes images of 160 pixels only"):
        backbones.load_backbone(folder / "test_vit.safetensors", input_size=224)


def test_files_that_are_missing_foreign_or_of_another_architecture_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="is not a file; python -m"):
        backbones.load_backbone(tmp_path / "none.safetensors")
    tensors = safetensors.torch.load_file(folder / "test_efficientnet.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="does not say what it is for"):
        backbones.load_backbone(tmp_path / "foreign.safetensors")
    facts = read_facts(folder / "test_vit.safetensors")
    files.save_tensors(tmp_path / "mixed.safetensors", tensors, facts)
    with pytest.raises(UserError, match="does not fit test_vit: missing: cls_token"):
        backbones.load_backbone(tmp_path / "mixed.safetensors")


def test_the_same_tensors_in_efficientnet_b0_would_give_other_features(emotion):
    """The trap: 360 equal names and shapes, other padding and eps, and no complaint from a strict load."""
    backbone = backbones.load_backbone(emotion)
    twin = timm.create_model("efficientnet_b0", pretrained=False, num_classes=8).eval()
    twin.load_state_dict(safetensors.torch.load_file(emotion), strict=True)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features, _ = backbone.module(images)
        others = twin.forward_head(twin.forward_features(images), pre_logits=True)
    assert (features - others).norm() > 0.05 * features.norm()
    with pytest.raises(AssertionError, match=r"conv_stem pads as PyTorch"):
        backbones._check_tensorflow_ways(twin, "tf_efficientnet_b0")
    twin.conv_stem, twin.blocks = backbone.module.model.conv_stem, backbone.module.model.blocks
    with pytest.raises(AssertionError, match=r"has eps 1e-05"):
        backbones._check_tensorflow_ways(twin, "tf_efficientnet_b0")


def test_b2_takes_260_pixels_and_gives_1408_features(tmp_path):
    backbone = backbones.load_backbone(prepare("enet_b2_8", "random", tmp_path))
    assert (backbone.input_size, backbone.num_features, len(backbone.outputs)) == (260, 1408, 8)
    assert read_facts(tmp_path / "enet_b2_8.safetensors")["outputs"] == backbone.outputs


# --- layers and grids ------------------------------------------------------------------------------------------------


def noise(size: int, images: int = 2) -> torch.Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "numbers"), [("test_efficientnet", [1, 3]), ("test_vit", [0, 4])])
def test_layers_are_timms_own_intermediate_maps_averaged_and_joined_in_the_order_given(name, numbers, folder):
    path = folder / f"{name}.safetensors"
    last = backbones.load_backbone(path)
    layers = [f"blocks.{numbers[1]}", "features", f"blocks.{numbers[0]}"]
    backbone = backbones.load_backbone(path, layers=layers)
    with torch.inference_mode():
        maps = last.module.model.forward_intermediates(noise(160), indices=numbers, intermediates_only=True)
        low, high = (m.mean(dim=(2, 3)) for m in maps)  # without class token
        expected = torch.cat([high, last.module(noise(160))[0], low], dim=1)
        features, _ = backbone.module(noise(160))
    torch.testing.assert_close(features, expected)
    assert backbone.num_features == features.shape[1] == expected.shape[1]
    assert backbone.layers == layers
    assert last.layers == ["features"]


def test_a_grid_is_averaged_cell_by_cell_and_laid_out_channel_by_channel(folder):
    backbone = backbones.load_backbone(folder / "test_efficientnet.safetensors", None, ["blocks.3", "features"], grid=2)
    model = backbone.module.model
    with torch.inference_mode():
        features = backbone.module(noise(160))[0].numpy()
        blocks = model.forward_intermediates(noise(160), indices=[3], intermediates_only=True)[0].numpy()
        last = model.forward_features(noise(160)).numpy()
    assert (blocks.shape[2], last.shape[2]) == (10, 5)  # 5 columns in 2 cells: the middle one is in both
    column = 0
    for maps, bounds in ((blocks, [(0, 5), (5, 10)]), (last, [(0, 3), (2, 5)])):
        for channel in range(maps.shape[1]):
            for top, bottom in bounds:
                for left, right in bounds:
                    cell = maps[:, channel, top:bottom, left:right].mean(axis=(1, 2))
                    np.testing.assert_allclose(features[:, column], cell, atol=1e-6)
                    column += 1
    assert column == features.shape[1] == backbone.num_features


def test_tokens_are_laid_out_as_the_square_of_their_patches():
    patches = torch.arange(16.0).reshape(1, 16, 1) * torch.tensor([1.0, -1.0])  # (1, 4 x 4, 2)
    expected = torch.tensor([[2.5, 4.5, 10.5, 12.5, -2.5, -4.5, -10.5, -12.5]])
    others = torch.full((1, 5, 2), 1e6)
    torch.testing.assert_close(backbones.pool("x", patches, 2, prefix_tokens=5), expected)
    torch.testing.assert_close(backbones.pool("x", torch.cat([others, patches], 1), 2, prefix_tokens=5), expected)
    channels_last = patches.reshape(1, 4, 4, 2)
    torch.testing.assert_close(backbones.pool("x", channels_last, 2, channels_last=True), expected)
    torch.testing.assert_close(backbones.pool("x", patches, 1), torch.tensor([[7.5, -7.5]]))


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("test_vit", "patch_embed", (4, 4, 64)),  # channels last, and the model says nothing
        ("test_convnext", "stages.0.blocks.0.norm", (8, 8, 24)),
        ("test_convnext", "stages.0", (24, 8, 8)),
        ("swin_tiny_patch4_window7_224", "patch_embed.proj", (96, 16, 16)),  # channels first, where the model says last
        ("swin_tiny_patch4_window7_224", "layers.0", (16, 16, 96)),
    ],
)
def test_the_channels_of_a_map_are_where_its_sides_say_and_not_where_the_model_says(name, layer, shape):
    sized = {"img_size": 64} if name.startswith(("test_vit", "swin")) else {}
    model = timm.create_model(name, pretrained=False, num_classes=0, **sized).eval()
    images = torch.rand(2, 3, 64, 64) if "vit" in name or "swin" in name else torch.rand(2, 3, 32, 32)
    maps = []
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: maps.append(output))
    features, _ = backbones.FrozenBackbone(model, 0, [layer])(images)
    assert maps[0].shape == (2, *shape)
    space = (1, 2) if shape[0] == shape[1] else (2, 3)
    torch.testing.assert_close(features, maps[0].mean(space))
    assert features.shape == (2, max(shape))


def test_a_map_of_as_many_channels_as_it_is_wide_has_them_where_the_model_says():
    x = torch.rand(2, 4, 4, 4)
    torch.testing.assert_close(backbones.pool("x", x, 1), x.mean((2, 3)))
    torch.testing.assert_close(backbones.pool("x", x, 1, channels_last=True), x.mean((1, 2)))
    with pytest.raises(UserError, match=r"'x' gives no square map, but a tensor of shape \(2, 3, 4, 5\)"):
        backbones.pool("x", torch.rand(2, 3, 4, 5), 1)


def test_a_layer_is_taken_before_the_next_one_works_in_place():
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    assert model.act1.inplace
    module = backbones.FrozenBackbone(model, 0, ["bn1"]).eval()
    with torch.inference_mode():
        features, _ = module(noise(64))
        torch.testing.assert_close(features, model.bn1(model.conv1(noise(64))).mean(dim=(2, 3)))
    assert (features < 0).any()  # as ReLU would not leave it


def test_layers_and_logits_come_from_one_pass(emotion):
    backbone = backbones.load_backbone(emotion, 64, ["blocks.2", "conv_head"], grid=2)
    passes = []
    backbone.module.model.conv_stem.register_forward_hook(lambda *_: passes.append(1))
    with torch.inference_mode():
        features, logits = backbone.module(noise(64))
        assert len(passes) == 1
        torch.testing.assert_close(logits, backbone.module.model(noise(64)))
        again, _ = backbone.module(noise(64).flip(0))
    assert features.shape == (2, (40 + 1280) * 4)
    torch.testing.assert_close(again, features.flip(0))  # nothing is left over from the pass before


@pytest.mark.parametrize(
    ("layers", "grid", "message"),
    [
        (["block.2"], 1, r"'block.2' is not a module of test_efficientnet \(did you mean 'blocks.2'\?\)"),
        (["nonsense"], 1, "stages are features, conv_stem, bn1, blocks.0, .*blocks.4, conv_head, bn2; any module"),
        (["bn1", "bn1"], 1, r"\['bn1'\] are named more than once"),
        (["global_pool"], 1, r"'global_pool' gives no map and no tokens to average, but a tensor of shape \(1, 256\)"),
        (["classifier"], 1, "'classifier' is not on the way"),
        ([], 6, "grid 6: the map of 'features' is 5 x 5 at this input size"),
        (["blocks.3"], 11, "grid 11: the map of 'blocks.3' is 10 x 10"),
    ],
)
def test_layers_that_cannot_be_had_are_refused_before_any_work(folder, layers, grid, message):
    with pytest.raises(UserError, match=message):
        backbones.load_backbone(folder / "test_efficientnet.safetensors", None, layers, grid)


def test_a_module_that_runs_twice_in_a_pass_is_refused():
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    model.layer1 = torch.nn.Sequential(model.layer1, shared := torch.nn.ReLU(), shared)
    module = backbones.FrozenBackbone(model, 0, ["layer1.1"]).eval()
    with pytest.raises(UserError, match=r"'layer1.1' runs 2 times in a pass"):
        module(noise(64))


# --- tokens of transformers ------------------------------------------------------------------------------------------


def vit(**arguments) -> torch.nn.Module:
    return VisionTransformer(32, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0, **arguments)


TRANSFORMERS = {  # small ones of the kinds that published weights are of: a class token, registers, norms and poolings
    "ViT": lambda: vit(),
    "DINOv2": lambda: vit(reg_tokens=4),
    "registers alone": lambda: vit(class_token=False, reg_tokens=2, global_pool="avg"),
    "SigLIP": lambda: vit(class_token=False, global_pool="map"),
    "BEiT": lambda: Beit(32, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0),
    "DINOv3": lambda: Eva(32, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0, num_reg_tokens=4),
    "Hiera": lambda: Hiera((64, 64), embed_dim=8, num_heads=1, stages=(1, 1, 1, 1), num_classes=0),
}  # fmt: skip


def of_random_weights(name: str) -> torch.nn.Module:
    """The same weights at each call, also norms that are no identity."""
    torch.manual_seed(0)
    model = TRANSFORMERS[name]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def by_timm(name: str, pooling: str, images: torch.Tensor) -> torch.Tensor:
    """What timm's own head gives before its classifier, with its pooling set to 'token' or 'avg'."""
    model = of_random_weights(name)
    if name == "BEiT":
        model.global_pool = pooling
    elif name != "Hiera":  # which has no other pooling than the mean
        model.reset_classifier(0, pooling)
    return model.forward_head(model.forward_features(images), pre_logits=True)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_token_pooling_is_timms_own_head_with_that_pooling(name):
    images = noise(64 if name == "Hiera" else 32)
    has_class = name in ("ViT", "DINOv2", "BEiT", "DINOv3")

    def pooled(way: str) -> torch.Tensor:
        return backbones.FrozenBackbone(of_random_weights(name), 0, token_pooling=way)(images)[0]

    with torch.inference_mode():
        mean = by_timm(name, "avg", images)
        torch.testing.assert_close(pooled("mean"), mean)
        if has_class:
            cls = by_timm(name, "token", images)
            torch.testing.assert_close(pooled("cls"), cls)
            torch.testing.assert_close(pooled("cls+mean"), torch.cat([cls, mean], dim=1))
            assert not torch.allclose(cls, mean, atol=0.1)
        else:
            for way in ("cls", "cls+mean"):
                with pytest.raises(UserError, match=f"'{re.escape(way)}': the backbone has no class token"):
                    pooled(way)


def test_inner_layers_give_their_own_class_token_and_mean_and_a_grid_takes_the_place_of_the_mean():
    model = of_random_weights("DINOv2")
    tokens = {}
    model.blocks[0].register_forward_hook(lambda module, inputs, output: tokens.update(block=output))
    with torch.inference_mode():
        tokens["features"] = model.forward_features(noise(32))
        features, _ = backbones.FrozenBackbone(model, 0, ["blocks.0", "features"], token_pooling="cls+mean")(noise(32))
        grid, _ = backbones.FrozenBackbone(model, 0, ["features"], 2, token_pooling="cls+mean")(noise(32))
    expected = [part for x in (tokens["block"], tokens["features"]) for part in (x[:, 0], x[:, 5:].mean(1))]
    torch.testing.assert_close(features, torch.cat(expected, dim=1))
    torch.testing.assert_close(grid[:, :16], tokens["features"][:, 0])
    quarter = tokens["features"][:, 5:].unflatten(1, (4, 4))[:, :2, 2:].mean(dim=(1, 2))
    torch.testing.assert_close(grid[:, 16:].unflatten(1, (16, 4))[:, :, 1], quarter)


def test_what_has_no_tokens_or_no_class_token_yet_is_refused(folder):
    path = folder / "test_efficientnet.safetensors"
    for way in backbones.TOKEN_POOLINGS:
        with pytest.raises(
            UserError, match=rf"'{re.escape(way)}': 'features' gives no tokens .* shape \(1, 256, 5, 5\)"
        ):
            backbones.load_backbone(path, token_pooling=way)
    before = backbones.FrozenBackbone(of_random_weights("ViT"), 0, ["patch_embed"], token_pooling="cls")
    with pytest.raises(UserError, match="'patch_embed' gives 16 tokens, not 1 and a square of patches"):
        before(noise(32))
    with pytest.raises(UserError, match="token_pooling may be 'cls\\+mean' or null, and not 'cls'"):
        ExtractConfig(token_pooling="cls", grid=2)


def test_models_that_do_not_count_their_tokens_are_known_by_names():
    """timm 1.0.31: VOLO and PiT have no num_prefix_tokens; PiT's class and distillation tokens are one parameter."""
    volo = timm.create_model("volo_d1_224", pretrained=False, num_classes=0)
    assert not hasattr(volo, "num_prefix_tokens")
    assert backbones.tokens_before_patches(volo) == (True, 1)
    pit = timm.create_model("pit_ti_distilled_224", pretrained=False, num_classes=0)
    assert backbones.tokens_before_patches(pit) == (True, 2)
    assert backbones.tokens_before_patches(of_random_weights("DINOv3")) == (True, 5)
    assert backbones.tokens_before_patches(of_random_weights("SigLIP")) == (False, 0)


def test_nine_patches_behind_five_other_tokens_are_all_averaged():
    """Of nine patches, four are a square behind five tokens: those five are patches all the same."""
    tokens = torch.arange(14.0).reshape(1, 14, 1)
    average = partial(backbones.pool, grid=1, prefix_tokens=5)
    pooled = backbones.pool_tokens("features", tokens, "cls+mean", average, has_class=True, prefix_tokens=5)
    torch.testing.assert_close(pooled, torch.tensor([[0.0, 9.0]]))


@pytest.mark.parametrize(("grid", "tokens"), [(1, None), (4, None), (1, "cls"), (1, "cls+mean"), (3, "cls+mean")])
def test_a_pooling_is_read_from_the_words_that_a_store_has_of_it(grid, tokens):
    words = backbones.pooling_words(grid, tokens)
    assert backbones.pooling_of(words) == (grid, tokens)
    assert (words == "average") == (grid == 1 and tokens is None)


# --- through extract.py ----------------------------------------------------------------------------------------------


def write_images(images: np.ndarray) -> None:
    """(n, H, W, 3) RGB as the frames of one video, without loss."""
    rows = []
    for number, image in enumerate(images):
        Path("v").mkdir(exist_ok=True)
        file = Path("v", f"{number}.png")
        file.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        rows.append(("v", number, str(file), file.stat().st_size))
    table = pd.DataFrame(rows, columns=["video", "frame", "path", "size"])
    write_frames(Path("data/frames.parquet"), Frames(table, Path.cwd(), "by hand", "cropped"))


@pytest.mark.parametrize("export_from", [forward.EXPORT_FROM, 0])
def test_an_old_pickle_of_hsemotion_gives_its_logits_and_their_names_in_the_store(
    workplace, monkeypatch, capsys, export_from
):
    monkeypatch.setattr(forward, "EXPORT_FROM", export_from)
    fixtures, name = ROOT / "tests" / "fixtures" / "hsemotion", "timm_0.6.13"
    Path("old.pt").write_bytes(lzma.decompress((fixtures / f"{name}.pt.xz").read_bytes()))
    images = make_hsemotion.images()
    write_images(((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    prepared = prepare("enet_b0_8_best_vgaf", "old.pt", Path("weights"))
    # The fixture's images are normalised to [-1, 1]; with the same mean and std, extraction sees the same numbers.
    facts = read_facts(prepared) | {"mean": [0.5] * 3, "std": [0.5] * 3}
    files.save_tensors(prepared, safetensors.torch.load_file(prepared), facts)

    flags = ["--backbone", "enet_b0_8_best_vgaf", "--weights", "old.pt", "--input-size", "224", "--device", "cpu"]
    assert extract.main([*flags, "-b", "2"]) == 0
    assert "ONNX Runtime" not in capsys.readouterr().err  # that it could not be used
    store = FeatureStore(Path("data/features.zarr"))
    expected = np.load(fixtures / "expected.npz")
    rows = store.keys["row"].to_numpy()
    assert store.keys["frame"].tolist() == [0, 1]
    for view, key in (("logits", "logits"), ("original", "features")):
        np.testing.assert_allclose(store.read(rows, view), expected[f"{name}/{key}"], rtol=2e-3, atol=2e-3)
    assert store.made_by["outputs"] == [
        "Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise",
    ]  # fmt: skip


def test_layers_and_grid_are_in_the_identity_and_a_store_of_others_is_refused(workplace):
    write_images(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    flags = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "64", "--device", "cpu"]
    extract.main([*flags, "-b", "2"])
    with pytest.raises(StoreMismatch, match=r"layers \['features'\] there, \['blocks.1', 'features'\] here"):
        extract.main([*flags, "--layers", "blocks.1", "features"])
    with pytest.raises(StoreMismatch, match="pooling 'average' there, 'grid 2 x 2' here"):
        extract.main([*flags, "--grid", "2"])
    assert extract.main([*flags, "--layers", "blocks.1", "features", "--grid", "2", "-s", "other.zarr"]) == 0
    store, other = FeatureStore(Path("data/features.zarr")), FeatureStore(Path("other.zarr"))
    assert other.made_by["layers"] == ["blocks.1", "features"]
    width = other.num_features - 4 * store.num_features
    assert width > 0
    cells = other.read(other.keys["row"].to_numpy())[:, width:].astype(np.float32).reshape(3, -1, 4)
    # A 2 x 2 map in a 2 x 2 grid is the map itself, and its mean is the average pooling.
    np.testing.assert_allclose(cells.mean(2), store.read(store.keys["row"].to_numpy()), atol=2e-5)


def test_the_token_pooling_is_in_the_identity_of_a_store(workplace):
    write_images(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    flags = ["--backbone", "test_vit", "--weights", "random", "--device", "cpu", "-b", "2", "--input-size", "160"]
    extract.main([*flags, "--token-pooling", "cls+mean"])
    store = FeatureStore(Path("data/features.zarr"))
    assert (store.made_by["pooling"], store.num_features) == ("tokens cls+mean", 128)
    with pytest.raises(StoreMismatch, match=r"pooling 'tokens cls\+mean' there, 'tokens cls' here"):
        extract.main([*flags, "--token-pooling", "cls"])
    extract.main([*flags, "-s", "own.zarr"])  # test_vit's own pooling is its class token
    own = FeatureStore(Path("own.zarr"))
    assert own.made_by["pooling"] == "average"
    np.testing.assert_array_equal(own.read(np.arange(2)), store.read(np.arange(2))[:, :64])
    frozen = Frozen(Path("run"), store.made_by, Path("weights/test_vit.safetensors"), torch.device("cpu"))
    images = [cv2.imread(f"v/{n}.png")[..., ::-1] for n in range(2)]
    np.testing.assert_allclose(frozen(images), store.read(np.arange(2)), atol=2e-3)
