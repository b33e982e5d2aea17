"""Features and logits of a frozen backbone, and the files and sizes that it refuses."""

import json

import pytest
import safetensors.torch
import timm
import torch

from pipeline.extraction import backbones, weights
from pipeline.params import UserError


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
        weights.prepare(name, "random", folder)
    return folder


@pytest.fixture(scope="module")
def emotion(tmp_path_factory):
    return weights.prepare("enet_b0_8_best_vgaf", "random", tmp_path_factory.mktemp("emotion"))


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
    assert backbone.outputs == list(weights.AFFECTNET)
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
    again = weights.prepare("test_efficientnet", "random", tmp_path)
    assert backbones.load_backbone(again).facts == facts  # though the two files may differ in their header
    tensors = safetensors.torch.load_file(again)
    tensors["bn2.bias"][0] += 1
    safetensors.torch.save_file(tensors, again, weights.read_facts(again))
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
    facts = weights.read_facts(folder / "test_vit.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "mixed.safetensors", facts)
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
    backbone = backbones.load_backbone(weights.prepare("enet_b2_8", "random", tmp_path))
    assert (backbone.input_size, backbone.num_features, len(backbone.outputs)) == (260, 1408, 8)
    assert json.loads(weights.read_facts(tmp_path / "enet_b2_8.safetensors")["outputs"]) == backbone.outputs
