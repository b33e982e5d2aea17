"""A frozen timm model that gives features and, where its classifier has a meaning here, logits in the same pass."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from pipeline.extraction import weights as weights_module
from pipeline.params import UserError

TF_EPS = 1e-3


class FrozenBackbone(nn.Module):
    """(B,3,H,W) normalised images -> features (B,D) and logits (B,C), or None where there is no classifier."""

    def __init__(self, model: nn.Module, num_outputs: int):
        super().__init__()
        self.model = model
        self.num_outputs = num_outputs

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return features, self.model.get_classifier()(features) if self.num_outputs else None


@dataclass(frozen=True)
class Backbone:
    """What extraction needs to know of a backbone. ``facts`` goes into the store: what the features hang on.

    ``input_size`` in pixels (square), ``mean`` and ``std`` for RGB in [0, 1], ``interpolation`` timm's word for it.
    ``outputs`` names the logits, in their order; empty where there are none.
    """

    module: FrozenBackbone
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    num_features: int
    outputs: list[str]
    facts: dict[str, str]


def load_backbone(weights: Path, input_size: int | None = None) -> Backbone:
    """The backbone of a file that ``weights.prepare`` made: frozen, on the CPU.

    ``input_size`` None is the weights' own. One pass over a blank image tells the number of features.

    Raises ``UserError`` for a file of another maker, tensors of another architecture, and an input size that the
    architecture cannot take.
    """
    if not weights.is_file():
        raise UserError(f"weights: '{weights}' is not a file; python -m pipeline.extraction.weights makes it")
    facts = weights_module.read_facts(weights)
    if "architecture" not in facts or "outputs" not in facts:
        raise UserError(
            f"weights: {weights.name} does not say what it is for; "
            f"python -m pipeline.extraction.weights --weights {weights} makes a file that does"
        )
    tensors = safetensors.torch.load_file(weights)
    outputs = json.loads(facts["outputs"])
    architecture, own_size = facts["architecture"], json.loads(facts["input_size"])
    _, model = weights_module.fit(tensors, architecture, len(outputs), weights.name)
    _check_tensorflow_ways(model, architecture)
    size = own_size if input_size is None else input_size
    _check_size(model, facts["backbone"], own_size, size)
    module = FrozenBackbone(model, len(outputs)).eval().requires_grad_(False)
    with torch.inference_mode():
        features, _ = module(torch.zeros(1, 3, size, size))
    return Backbone(
        module=module,
        input_size=size,
        mean=tuple(json.loads(facts["mean"])),
        std=tuple(json.loads(facts["std"])),
        interpolation=json.loads(facts["interpolation"]),
        num_features=features.shape[1],
        outputs=outputs,
        facts={key: facts[key] for key in ("backbone", "architecture", "source")}
        | {"weights_sha256": weights_module.tensors_sha256(tensors)},
    )


def _check_tensorflow_ways(model: nn.Module, architecture: str) -> None:
    """``tf_`` weights need TensorFlow's padding and eps; the same tensors load without them, to other features."""
    if not architecture.startswith("tf_efficientnet"):
        return
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and 2 in layer.stride:
            assert isinstance(layer, Conv2dSame), f"{architecture}.{name} pads as PyTorch (timm {timm.__version__})"
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.eps == TF_EPS, f"{architecture}.{name} has eps {layer.eps} (timm {timm.__version__})"


def _check_size(model: nn.Module, backbone: str, own_size: int, size: int) -> None:
    if size < 1:
        raise UserError(f"input_size must be at least 1, and is {size}")
    if model.pretrained_cfg.get("fixed_input_size") and size != own_size:
        raise UserError(f"input_size {size}: the backbone '{backbone}' takes images of {own_size} pixels only")
