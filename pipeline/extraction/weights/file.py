"""The file of a backbone's weights that ``prepare`` makes: safetensors, with the facts that go with them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.core import files
from pipeline.extraction.weights.common import Tensors

WHAT = "the weights of a backbone"
WAY_OUT = "Delete it and make it again with 'python -m pipeline.extraction.weights'"


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that ``prepare`` wrote; empty for a file of another maker.

    Raises ``UserError`` for a file that is damaged.
    """
    return files.load_facts(path, WHAT, WAY_OUT) if files.has_digest(path) else {}


def load(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and facts that ``prepare`` wrote; raises ``UserError`` for a damaged file, and one of another maker."""
    return files.load_tensors(path, WHAT, WAY_OUT, "pt")


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of names, types, shapes and values, in the order of the names.

    Not that of a safetensors file, whose facts may change while the tensors are the same.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
