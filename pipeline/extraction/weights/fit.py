"""Tensors put into an architecture of today's timm, with every difference named."""

from collections.abc import Sequence
from typing import Any

import timm
import torch

from pipeline.core.params import UserError
from pipeline.extraction.weights.common import Layers, Tensors, fault


def fit_tensors(
    tensors: Tensors, architecture: str, num_outputs: int, words: str, layers: Layers | None = None
) -> tuple[Tensors, torch.nn.Module]:
    """The tensors as the architecture of today's timm names them, and the module (eval) that holds them.

    ``num_outputs`` 0 leaves the classifier out. ``layers`` (name -> stride, padding, eps, ...) is what a pickled module
    says of its layers. They are compared too: ``efficientnet_b0`` has the names and shapes of ``tf_efficientnet_b0``,
    but other padding and eps, and so other features. Raises ``UserError`` where a name, a shape or one of these
    differs.
    """
    with torch.random.fork_rng(devices=[]):  # its first values are drawn, and then replaced
        model = timm.create_model(architecture, pretrained=False, num_classes=num_outputs).eval()
    wanted = model.state_dict()
    came = _clean(tensors)
    if num_outputs == 0:
        heads = tuple(f"{name}." for name in _classifier_names(architecture))
        came = {name: t for name, t in came.items() if name in wanted or not name.startswith(heads)}
    faults = [
        *fault("missing", [name for name in wanted if name not in came]),
        *fault("not of this architecture", [name for name in came if name not in wanted]),
        *fault(
            "of another shape",
            [
                f"{name} {tuple(came[name].shape)} for {tuple(wanted[name].shape)}"
                for name in wanted
                if name in came and came[name].shape != wanted[name].shape
            ],
        ),
        *fault("built otherwise", _other_layers(model, _clean(layers or {}))),
    ]
    if faults:
        raise UserError(f"weights: {words} does not fit {architecture}: {'; '.join(faults)}")
    model.load_state_dict(came, strict=True)
    return {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}, model


def _clean(named: dict[str, Any]) -> dict[str, Any]:
    """Names without DataParallel's ``module.``, and with ``classifier`` for the ``classifier.0`` of a Sequential."""
    if all(name == "" or name.split(".")[0] == "module" for name in named):
        named = {name.removeprefix("module").removeprefix("."): value for name, value in named.items()}
    if "classifier.0" in named:  # a layer: the Sequential itself says nothing
        named = {name: value for name, value in named.items() if name != "classifier"}
    return {_unwrapped(name): value for name, value in named.items()}


def _unwrapped(name: str) -> str:
    return "classifier" + name.removeprefix("classifier.0") if f"{name}.".startswith("classifier.0.") else name


def _classifier_names(architecture: str) -> Sequence[str]:
    config = timm.get_pretrained_cfg(architecture)
    names = (config.classifier if config else None) or "classifier"
    return [names] if isinstance(names, str) else names


def _other_layers(model: torch.nn.Module, layers: Layers) -> list[str]:
    return [
        f"{name}.{key} is {value} for {getattr(layer, key)}"
        for name, layer in model.named_modules()
        for key, value in layers.get(name, {}).items()
        if getattr(layer, key, value) != value
    ]
