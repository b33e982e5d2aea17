"""A backbone cut in two at the input of one of its stages.

A *stage* is what timm calls a block of blocks: ``blocks.0`` to ``blocks.6`` of an EfficientNet, ``stages.0`` to
``stages.3`` of a ConvNeXt, ``layer1`` to ``layer4`` of a ResNet. A *cut* is named by the first stage behind it; what
crosses it is a *map* (C, h, w).
"""

import copy
import re
from dataclasses import dataclass, replace

import torch
from torch import nn

from pipeline.core.params import UserError, one_of
from pipeline.extraction.backbones import LAST, Backbone, FrozenBackbone

CONTAINERS = ("blocks", "stages", "layers")
SAME = 1e-4  # largest difference of features by both halves and by the whole, as a share of the largest feature


def stages(model: nn.Module) -> list[str]:
    """The names of the stages of a timm model in their order; none where it has no such parts."""
    for name, child in model.named_children():
        if name in CONTAINERS:
            return [f"{name}.{key}" for key, _ in child.named_children()]
    return [name for name, _ in model.named_children() if re.fullmatch(r"layer\d+", name)]


class Before(nn.Module):
    """(B,3,H,W) normalised images -> the map at the cut, as rows (B, C * h * w), and no logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.model.forward_features(images).flatten(1), None


@dataclass(frozen=True)
class Halves:
    """What stands before a cut, and what behind it: maps (B, C, h, w) of ``map_shape`` -> features, as the whole."""

    before: Before
    behind: FrozenBackbone
    map_shape: tuple[int, ...]


def halves(backbone: Backbone, cut: str) -> Halves:
    """The backbone cut at the input of stage ``cut``; both halves are copies, frozen, in evaluation mode.

    In each half the modules of the other one pass on what they get. That both together are the whole is seen in a
    pass over noise. Raises ``UserError`` for a stage that is not there, for layers that are taken before the cut, and
    for a backbone that is no chain of its stages, such as a transformer, which adds positions before them.
    """
    whole, name = backbone.module, backbone.facts["backbone"]
    known = stages(whole.model)
    if not known:
        raise UserError(f"the backbone '{name}' has no stages, so that there is no map to store")
    one_of(f"stage of {name}", cut, known)
    if getattr(whole.model, "output_fmt", "NCHW") != "NCHW":
        raise UserError(
            f"the maps of '{name}' have their channels last, and are not stored. It can be trained from pixels"
        )
    parts = chain(whole.model)
    behind_cut = parts[parts.index(cut) :]
    for layer in backbone.layers:
        if layer != LAST and not any(layer == part or layer.startswith(f"{part}.") for part in behind_cut):
            raise UserError(f"the features are of the layer '{layer}' too, which stands before the cut at {cut}")
    before, behind = (_plain_copy(whole.model) for _ in range(2))
    for part in parts:
        _pass_on(before if part in behind_cut else behind, part)
    rest = FrozenBackbone(behind, 0, backbone.layers, backbone.grid, backbone.scale, backbone.token_pooling)
    found = Before(before).eval().requires_grad_(False), rest.eval().requires_grad_(False)
    size = backbone.input_size
    noise = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            at_cut = found[0].model.forward_features(noise)
            expected, got = whole(noise)[0], found[1](at_cut)[0]
            same = at_cut.ndim == 4 and bool((got - expected).abs().max() <= SAME * expected.abs().max())
    except Exception:  # whatever a model does with what it did not expect
        same = False
    if not same:
        raise UserError(
            f"the backbone '{name}' cannot be cut at {cut}: it is more than a chain of its stages. It can be trained "
            "from pixels"
        )
    return Halves(*found, tuple(at_cut.shape[1:]))


def before_cut(backbone: Backbone, cut: str) -> Backbone:
    """The half before a cut as a backbone whose features are maps."""
    half = halves(backbone, cut)
    width = int(torch.Size(half.map_shape).numel())
    return replace(
        backbone, module=half.before, num_features=width, outputs=[], layers=[f"input of {cut}"], grid=1,
        scale=1.0, token_pooling=None, map_shape=half.map_shape,
    )  # fmt: skip


def every_cut(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """The shape of the map at each cut, by one pass over noise; those at which it cannot be cut are left out."""
    found = {}
    for cut in stages(backbone.module.model):
        try:
            found[cut] = halves(backbone, cut).map_shape
        except UserError:
            continue
    return found


def _plain_copy(model: nn.Module) -> nn.Module:
    """A copy without forward hooks, by which ``FrozenBackbone`` takes inner layers."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        module._forward_hooks.clear()
    return plain


def chain(model: nn.Module) -> list[str]:
    """The modules of a model in the order in which it names them, with those of a container of stages apart."""
    names: list[str] = []
    for name, child in model.named_children():
        names += [f"{name}.{key}" for key, _ in child.named_children()] if name in CONTAINERS else [name]
    return names


def _pass_on(model: nn.Module, part: str) -> None:
    if model.get_submodule(part) is _classifier(model):
        return
    parent, _, name = part.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def _classifier(model: nn.Module) -> nn.Module | None:
    return model.get_classifier() if hasattr(model, "get_classifier") else None
