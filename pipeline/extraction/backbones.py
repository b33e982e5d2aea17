"""A frozen timm model that gives features and, where its classifier has a meaning here, logits in the same pass."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn

from pipeline.core.params import UserError
from pipeline.extraction.frames import SQUASH, Fit
from pipeline.extraction.weights.file import load, read_facts, tensors_sha256
from pipeline.extraction.weights.fit import fit_tensors

TF_EPS = 1e-3
WAYS = {"squash": "squash", "center": "crop", "border": "pad"}  # timm's crop modes
# Crop sources of pictures in which something is to be found somewhere; all others are faces, cut out already, or drawn.
PICTURES = ("as given", "whole frames")

LAST = "features"
TOKEN_POOLINGS = ("cls", "mean", "cls+mean")
# Parameters of timm's transformers that are tokens before those of the patches, of which the first is the class token.
CLASS_TOKEN, PREFIX_TOKENS = "cls_token", ("cls_token", "dist_token", "reg_token")


class FrozenBackbone(nn.Module):
    """(B,3,H,W) normalised images -> features (B,D) and logits (B,C), or None where there is no classifier.

    The features are those of ``layers``, one after the other in the order given. 'features' are the last ones, on which
    the classifier stands; any other name is a module of the model, and gives its output: a map averaged over its
    height and width, or the patch tokens of a transformer averaged (class and register tokens left out).

    With ``grid`` n > 1 each layer is averaged over n x n cells (adaptive average pooling) instead, and (B,C,n,n) is
    flattened: column c*n*n + y*n + x. 'features' is then the last map, before the model's own pooling and what follows
    it. Layers are not scaled to each other: what varies most has the first principal components. On disk a column is
    two bytes: 1,280 channels averaged are 2.6 kB a frame and view, on a 4 x 4 grid 41 kB.

    ``token_pooling`` takes of a transformer, and of each layer, the class token ('cls'), the mean of the patch tokens
    ('mean': class, distillation and register tokens left out) or one after the other ('cls+mean'). Of 'features' they
    are what timm's ``forward_head`` gives with that pooling, the norm behind the pooling included; None is the model's
    own pooling. With a grid the cells take the place of the mean.

    Features, but not logits, are multiplied by ``scale``, which brings them into the range of the store's float16.
    """

    def __init__(
        self, model: nn.Module, num_outputs: int, layers: Sequence[str] = (LAST,), grid: int = 1, scale: float = 1.0,
        token_pooling: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale = scale
        self.token_pooling = token_pooling
        self.model = model
        self.num_outputs = num_outputs
        self.layers = list(layers)
        self.grid = grid
        self.pooled: dict[str, list[torch.Tensor]] = {}
        self._pool = partial(
            pool,
            grid=grid,
            channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
            prefix_tokens=getattr(model, "num_prefix_tokens", 0),
        )
        if token_pooling:
            has_class, prefix_tokens = tokens_before_patches(model)
            self._pool = partial(
                pool_tokens, way=token_pooling, average=self._pool, has_class=has_class, prefix_tokens=prefix_tokens
            )
        for name in self.layers:
            if name != LAST:  # pooled at once: a layer after it may work in place
                model.get_submodule(name).register_forward_hook(partial(_keep, name, self.pooled, self._pool))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.pooled.clear()
        last = self.model.forward_features(images)
        if LAST in self.layers and self.token_pooling:
            behind = _norm_behind_pooling(self.model) if self.grid == 1 else None
            self.pooled[LAST] = [self._pool(LAST, last, behind=behind)]
        elif LAST in self.layers and self.grid > 1:
            self.pooled[LAST] = [self._pool(LAST, last)]
        head = self.model.forward_head(last, pre_logits=True)
        self.pooled.setdefault(LAST, [head])
        features = torch.cat([self._only(name) for name in self.layers], dim=1)
        self.pooled.clear()
        features = features if self.scale == 1 else features * self.scale
        return features, self.model.get_classifier()(head) if self.num_outputs else None

    def _only(self, name: str) -> torch.Tensor:
        found = self.pooled.get(name, [])
        if len(found) == 0:
            raise UserError(f"layers: '{name}' is not on the way from image to features, and so gives none")
        if len(found) > 1:
            raise UserError(f"layers: '{name}' runs {len(found)} times in a pass, so it is not clear what it gives")
        return found[0]


def pool(name: str, x: torch.Tensor, grid: int, channels_last: bool = False, prefix_tokens: int = 0) -> torch.Tensor:
    """A layer's output -> (B, C * grid * grid), averaged over a grid of cells: column c*grid*grid + y*grid + x.

    ``x``: a square map (B,C,S,S) or (B,S,S,C), which ``channels_last`` tells apart only where C is S; or tokens
    (B,L,C), which are those of a square of patches, after ``prefix_tokens`` others or none. Raises ``UserError``, with
    ``name``, for anything else, and where the map is smaller than the grid.

    The sides say where the channels are, since a model does not: in timm 1.0.31 ``output_fmt`` is that of Swin's stages
    and not of its ``patch_embed.proj``, and MaxViT, ConvNeXt and ViT have layers of both kinds and no ``output_fmt``.
    """
    if not isinstance(x, torch.Tensor) or x.ndim not in (3, 4):
        what = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
        raise UserError(f"layers: '{name}' gives no map and no tokens to average, but {what}")
    if x.ndim == 3:
        x = _map_of_tokens(name, x, prefix_tokens)
    else:
        first, last = x.shape[2] == x.shape[3], x.shape[1] == x.shape[2]
        if not first and not last:
            raise UserError(f"layers: '{name}' gives no square map, but a tensor of shape {tuple(x.shape)}")
        if last and (channels_last or not first):
            x = x.permute(0, 3, 1, 2)
    if grid == 1:
        return x.mean(dim=(2, 3))
    if grid > min(x.shape[2:]):
        raise UserError(f"grid {grid}: the map of '{name}' is {x.shape[2]} x {x.shape[3]} at this input size")
    return F.adaptive_avg_pool2d(x, grid).flatten(1)


def tokens_before_patches(model: nn.Module) -> tuple[bool, int]:
    """Whether a timm model has a class token, the first of all, and how many tokens stand before those of the patches.

    What the model says of itself (``num_prefix_tokens``) counts; some models say nothing, and are known by the names
    of their parameters.
    """
    found = {name.rpartition(".")[2]: p for name, p in model.named_parameters() if p.ndim == 3}
    by_name = sum(found[name].shape[1] for name in PREFIX_TOKENS if name in found)
    return CLASS_TOKEN in found, getattr(model, "num_prefix_tokens", by_name)


def pool_tokens(
    name: str, x: torch.Tensor, way: str, average: partial, has_class: bool, prefix_tokens: int,
    behind: nn.Module | None = None,
) -> torch.Tensor:  # fmt: skip
    """A layer's tokens (B,L,C) -> the class token, the mean of the patch tokens or both (B, 2 * C), by ``way``.

    ``prefix_tokens`` stand before those of a square of patches. ``average`` is ``pool``, with the grid. ``behind`` is a
    norm (B,C) -> (B,C) of each part. 'mean' of an inner layer is what ``average`` gives of it, also of a map. Raises
    ``UserError``, with ``name``, for what is no such tokens, and where a class token is wanted and there is none.
    """
    refused = f"token_pooling '{way}'"
    if name != LAST and way == "mean":
        return average(name, x)
    if not isinstance(x, torch.Tensor) or x.ndim != 3:
        what = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
        raise UserError(f"{refused}: '{name}' gives no tokens (B, L, C), but {what}")
    if "cls" in way and not has_class:
        raise UserError(f"{refused}: the backbone has no class token; 'mean' is that of its patches")
    patches = x.shape[1] - prefix_tokens
    if not (way == "cls" and patches == 0) and (patches < 1 or math.isqrt(patches) ** 2 != patches):
        raise UserError(f"{refused}: '{name}' gives {x.shape[1]} tokens, not {prefix_tokens} and a square of patches")
    parts = {"cls": lambda: x[:, 0], "mean": lambda: average(name, x[:, prefix_tokens:], prefix_tokens=0)}
    pooled = [parts[part]() for part in way.split("+")]
    return torch.cat([behind(part) if behind else part for part in pooled], dim=1)


def _norm_behind_pooling(model: nn.Module) -> nn.Module | None:
    """What timm's transformers do to pooled tokens before the classifier: ``fc_norm``, or Hiera's ``head.norm``."""
    return getattr(model, "fc_norm", None) or getattr(getattr(model, "head", None), "norm", None)


def pooling_words(grid: int, token_pooling: str | None) -> str:
    """What ``made_by`` says of the pooling; ``pooling_of`` reads it."""
    cells = f"grid {grid} x {grid}"
    if token_pooling is None:
        return cells if grid > 1 else "average"
    return f"tokens {token_pooling}" + (f", {cells}" if grid > 1 else "")


def pooling_of(words: str) -> tuple[int, str | None]:
    """Grid and token pooling of what ``pooling_words`` gave."""
    grid, tokens = re.search(r"grid (\d+)", words), re.search(r"tokens (\S+?)(,|$)", words)
    return int(grid[1]) if grid else 1, tokens[1] if tokens else None


def _map_of_tokens(name: str, tokens: torch.Tensor, prefix_tokens: int) -> torch.Tensor:
    """(B,L,C) -> (B,C,h,h). Layers before the class token is put in have none, so both counts are tried."""
    for skip in (prefix_tokens, 0):
        side = math.isqrt(max(tokens.shape[1] - skip, 0))
        if side and side * side == tokens.shape[1] - skip:
            return tokens[:, skip:].transpose(1, 2).unflatten(2, (side, side))
    raise UserError(f"layers: the {tokens.shape[1]} tokens of '{name}' are not those of a square")


def _keep(name: str, pooled: dict, pool_layer: partial, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
    pooled.setdefault(name, []).append(pool_layer(name, output))


@dataclass(frozen=True)
class Backbone:
    """What extraction needs to know of a backbone. ``facts`` goes into the store: what the features hang on.

    ``input_size`` in pixels (square), ``mean`` and ``std`` for RGB in [0, 1], ``interpolation`` timm's word for it.
    ``outputs`` names the logits, in their order; empty where there are none. ``layers``, ``grid``, ``scale`` and
    ``token_pooling``: see ``FrozenBackbone``. ``own_fit`` is how images were made square by those who published the
    weights, ``fit`` how it is done here. ``map_shape`` (C, h, w) where the features are maps (``stages.before_cut``).
    """

    module: FrozenBackbone
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    num_features: int
    outputs: list[str]
    facts: dict[str, str]
    layers: list[str]
    grid: int
    own_fit: Fit
    fit: Fit = SQUASH
    scale: float = 1.0
    token_pooling: str | None = None
    map_shape: tuple[int, ...] | None = None

    def fitted(self, way: str | None, crop_pct: float | None, crop_source: str) -> "Backbone":
        """With the ``fit`` that is asked for, or, for None, with the backbone's own.

        Crops of faces are square already, and are not cropped again unless that is asked for.
        """
        usual = crop_source.partition(", ")[0]  # behind it stands how the command ``faces`` cut them
        own = self.own_fit if usual in PICTURES else replace(self.own_fit, way="squash", crop_pct=1.0)
        way = way or own.way
        if crop_pct is None:
            crop_pct = self.own_fit.crop_pct if way == "crop" else own.crop_pct if way == own.way else 1.0
        return replace(self, fit=replace(own, way=way, crop_pct=crop_pct))


def load_backbone(
    weights: Path, input_size: int | None = None, layers: Sequence[str] = (), grid: int = 1, scale: float = 1.0,
    token_pooling: str | None = None,
) -> Backbone:  # fmt: skip
    """The backbone of a file that ``prepare`` made: frozen, on the CPU.

    ``input_size`` None is the weights' own; no ``layers`` are the last features alone. One pass over a blank image
    tells the number of features.

    Raises ``UserError`` for a file of another maker, tensors of another architecture, an input size that the
    architecture cannot take, and layers that it does not have or that cannot be pooled, or not as ``token_pooling``
    says.
    """
    if not weights.is_file():
        raise UserError(f"weights: '{weights}' is not a file; python -m pipeline.extraction.weights makes it")
    facts = read_facts(weights)
    if not {"architecture", "outputs", "crop_pct"} <= facts.keys():
        raise UserError(
            f"weights: {weights.name} does not say what it is for; "
            f"python -m pipeline.extraction.weights --weights {weights} makes a file that does"
        )
    tensors, _ = load(weights)
    outputs, architecture, own_size = facts["outputs"], facts["architecture"], facts["input_size"]
    _, model = fit_tensors(tensors, architecture, len(outputs), weights.name)
    _check_tensorflow_ways(model, architecture)
    size = own_size if input_size is None else input_size
    _check_size(model, facts["backbone"], own_size, size)
    layers = list(layers) or [LAST]
    _check_layers(model, facts["backbone"], layers)
    module = FrozenBackbone(model, len(outputs), layers, grid, scale, token_pooling).eval().requires_grad_(False)
    with torch.inference_mode():
        features, _ = module(torch.zeros(1, 3, size, size))
    return Backbone(
        module=module,
        input_size=size,
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        interpolation=facts["interpolation"],
        num_features=features.shape[1],
        outputs=outputs,
        facts={key: facts[key] for key in ("backbone", "architecture", "source", "trained_from") if key in facts}
        | {"weights_sha256": tensors_sha256(tensors)},
        layers=layers,
        grid=grid,
        scale=scale,
        token_pooling=token_pooling,
        own_fit=Fit(WAYS[facts["crop_mode"]], facts["crop_pct"], _colour(facts["mean"])),
    )


def _colour(mean: Sequence[float]) -> tuple[int, int, int]:
    """The mean colour, which timm's borders have."""
    return tuple(round(255 * value) for value in mean)


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


def _check_layers(model: nn.Module, backbone: str, layers: Sequence[str]) -> None:
    if twice := sorted({name for name in layers if list(layers).count(name) > 1}):
        raise UserError(f"layers: {twice} are named more than once")
    known = [name for name, _ in model.named_modules() if name]
    for name in layers:
        if name != LAST and name not in known:
            sensible = [LAST, *_blocks(model)]
            near = difflib.get_close_matches(name, [*sensible, *known], n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise UserError(
                f"layers: '{name}' is not a module of {backbone}{hint}. Blocks and stages are {', '.join(sensible)}; "
                "any module inside them may be named too"
            )


def _blocks(model: nn.Module) -> list[str]:
    """The modules that follow one another up to the classifier, with those of ``blocks`` or ``stages`` apart."""
    names = []
    for name, child in model.named_children():
        if name in ("blocks", "stages", "layers"):
            names += [f"{name}.{key}" for key, _ in child.named_children()]
        elif any(True for _ in child.parameters()) and model.get_classifier() not in child.modules():
            names.append(name)
    return names
