"""Principal components of the stored features: fitted on training frames, kept with mean and explained variance."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.params import UserError
from pipeline.store import differences


@dataclass(frozen=True)
class Projection:
    """``(x - mean) @ components.T``: ``mean`` (D,), ``components`` (K, D) orthonormal rows, float32.

    ``explained`` (K,) is each component's share of the total variance, in falling order.
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (n, D) -> (n, K) float32."""
        return (features.astype(np.float32) - self.mean) @ self.components.T


def fit(blocks: Iterable[np.ndarray], num_components: int) -> Projection:
    """The first components of all rows in ``blocks`` of (n, D), by the eigenvectors of their covariance in float64.

    Exact like sklearn's PCA(svd_solver='covariance_eigh'), but with one block in memory. The largest entry of a
    component is positive, so that the same data gives the same signs. Raises ``UserError`` where there are fewer rows
    or columns than components.
    """
    count, total, square, shift = 0, 0.0, 0.0, None
    for block in blocks:
        if len(block) == 0:
            continue
        block = block.astype(np.float64)
        shift = block.mean(0) if shift is None else shift  # keeps the sums small, and so exact
        block -= shift
        count, total, square = count + len(block), total + block.sum(0), square + block.T @ block
    if shift is None or num_components > min(count - 1, len(shift)):
        have = "no rows" if shift is None else f"{count} rows of {len(shift)} features"
        raise UserError(f"reduce: {num_components} components cannot be had from {have}")
    mean = total / count
    values, vectors = np.linalg.eigh((square - count * np.outer(mean, mean)) / (count - 1))
    components = vectors[:, ::-1][:, :num_components].T
    components *= np.sign(components[np.arange(num_components), np.abs(components).argmax(1)])[:, None]
    explained = np.maximum(values[::-1], 0) / max(values.sum(), np.finfo(float).tiny)
    return Projection(
        (mean + shift).astype(np.float32), components.astype(np.float32), explained[:num_components].astype(np.float32)
    )


def save(path: Path, projection: Projection, made_by: dict[str, Any]) -> None:
    """Writes the projection with the ``made_by`` of the store that it was fitted on."""
    tensors = {name: np.ascontiguousarray(getattr(projection, name)) for name in ("mean", "components", "explained")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"made_by": json.dumps(made_by, sort_keys=True)})


def load(path: Path, made_by: dict[str, Any]) -> Projection:
    """Raises ``UserError`` where there is none, or where it was fitted on features that something else made."""
    if not path.is_file():
        raise UserError(f"no projection at {path}: make one with 'python -m pipeline.extraction.reduce'")
    try:
        with safe_open(path, framework="np") as file:
            fitted_on = json.loads((file.metadata() or {}).get("made_by", "null"))
            tensors = {name: file.get_tensor(name) for name in ("mean", "components", "explained")}
    except SafetensorError as error:
        raise UserError(f"{path} is not a projection: {error}") from None
    if other := differences(fitted_on or {}, made_by):
        raise UserError(f"the projection {path} was fitted on other features than this store has: {other}")
    return Projection(**tensors)
