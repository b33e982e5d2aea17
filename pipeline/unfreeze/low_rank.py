"""Low-rank updates of a transformer's attention: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685.

timm has none of its own. PEFT's takes the place of the linear layer, and timm's BEiT, EVA and Swin v2 never call that:
they read its weight. So the weight itself is what is updated here, and they see it.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from pipeline.core.params import UserError

# How timm calls the linear layer for the queries, alone or joined with those for keys and values, and the others.
QUERIES = ("qkv", "q", "q_proj", "wq")
OTHERS = ("kv", "k", "v", "k_proj", "v_proj", "wk", "wv", "proj", "out_proj")

# What a weight that is updated is called in a state dict, and what its update is.
ORIGINAL = ".parametrizations.weight.original"
UPDATES = (".parametrizations.weight.0.up", ".parametrizations.weight.0.down")


class LowRank(nn.Module):
    """W (out, in) -> W + up @ down, of ``up`` (out, rank) and ``down`` (rank, in)."""

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.down = nn.Parameter(weight.new_zeros(rank, columns))

    def restart(self) -> None:
        """First values: ``up`` zero, so that nothing is added; ``down`` drawn, as a linear layer's weight is."""
        nn.init.zeros_(self.up)
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def attention_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers, by name, of all modules that have one for queries: those for keys, values and output too."""
    found = {}
    for name, module in model.named_modules():
        linear = {key: child for key, child in module.named_children() if isinstance(child, nn.Linear)}
        if linear.keys() & {*QUERIES}:
            found |= {f"{name}.{key}": child for key, child in linear.items() if key in QUERIES + OTHERS}
    return found


def add_updates(model: nn.Module, backbone: str, rank: int, unused: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """Adds an update of ``rank`` to each layer of ``attention_layers``, which it gives. All else is frozen.

    Modules that are ``unused``, since the features do not come through them, get none.

    Raises ``UserError`` for a backbone without attention, and for a rank that saves nothing.
    """
    layers = attention_layers(model)
    layers = {name: of for name, of in layers.items() if not any(name.startswith(f"{part}.") for part in unused)}
    if not layers:
        raise UserError(f"lora {rank}: the backbone '{backbone}' has no attention of linear layers: take unfreeze")
    most = min(min(layer.weight.shape) for layer in layers.values())
    if rank >= most:
        raise UserError(f"lora must be below {most}, the least side of a weight of {backbone}, and is {rank}")
    model.requires_grad_(False)
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
        layer.parametrizations.weight.original.requires_grad_(False)
    return layers


def update_of(layer: nn.Linear) -> LowRank:
    """The update that ``add_updates`` has given a layer."""
    return layer.parametrizations.weight[0]
