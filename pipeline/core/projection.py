"""Principal components of the stored features: fitted on training frames, kept with mean and explained variance.

Up to ``EXACT`` columns the covariance (D, D) is made and taken apart: exact, D * D * 8 bytes (134 MB at most). Wider
features, such as the 20,480 columns of a 4 x 4 grid, have a covariance of gigabytes. For them a basis (D, K + SPARE) is
turned towards the components, once through the rows a turn, until a turn explains no more (block power iteration:
Halko, Martinsson and Tropp 2011, https://arxiv.org/abs/0909.4061). In memory are about five times D * (K + SPARE) * 8
bytes, 260 MB for 256 of 20,480, however many rows there are.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import load_tensors, save_tensors
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, from_arrays, to_arrays
from pipeline.core.store import vouched_for

EXACT = 4096
MOST_TURNS = 20
GAIN = 1e-4  # the least share by which a turn must explain more to be followed by another
SPARE = 64
PIECE = 2**22  # values that are worked on at a time


@dataclass(frozen=True)
class Projection:
    """``(x - mean) @ components.T``: ``mean`` (D,), ``components`` (K, D) orthonormal rows, float32.

    ``explained`` (K,) is each component's share of the total variance, in falling order. ``seen`` says which groups and
    videos it was fitted on; None where that is not known. ``vouched`` says what it was taken for alike in when it was
    read.
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray
    seen: Seen | None = None
    vouched: str = ""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (n, D) -> (n, K) float32."""
        return (features.astype(np.float32) - self.mean) @ self.components.T


def fit(blocks: Iterable[np.ndarray], num_components: int) -> Projection:
    """The first components, ``num_components`` at most, of all rows in ``blocks`` of (n, D).

    The blocks are gone through more than once: no iterator.

    Exact like sklearn's PCA(svd_solver='covariance_eigh') up to ``EXACT`` columns. Above, the components together miss
    less than a thousandth of the variance that the exact ones explain; the last of them may be mixed with those that
    come after. The same data gives the same components: the basis starts from one seed, and the largest entry of a
    component is positive. Of few rows or columns there are fewer: one less than rows, and as many as columns. Raises
    ``UserError`` where there are less than two rows.
    """
    if iter(blocks) is blocks:
        raise TypeError("blocks are gone through more than once: give a list of them, not an iterator")
    count, mean, variance = _moments(blocks)
    num_components = min(num_components, count - 1, len(mean))
    if num_components < 1:
        raise UserError(f"reduce: there are no principal components of {count} rows: two or more are needed")
    solve = _exact if len(mean) <= EXACT else _turned
    values, vectors = solve(blocks, mean, num_components)
    components = vectors.T
    components *= np.sign(components[np.arange(num_components), np.abs(components).argmax(1)])[:, None]
    explained = np.maximum(values, 0) / max(variance, np.finfo(float).tiny)
    return Projection(mean.astype(np.float32), components.astype(np.float32), explained.astype(np.float32))


def _moments(blocks: Iterable[np.ndarray]) -> tuple[int, np.ndarray, float]:
    """Number of rows, their mean (D,), and the sum of their squared distances from it, in float64."""
    count, total, squares, shift = 0, np.zeros(0), 0.0, np.zeros(0)
    for piece in _pieces(blocks):
        if count == 0:
            shift, total = piece.mean(0), np.zeros(piece.shape[1])  # keeps the sums small, and so exact
        piece = piece - shift
        count, total, squares = count + len(piece), total + piece.sum(0), squares + float(np.vdot(piece, piece))
    mean = total / max(count, 1)
    return count, mean + shift, squares - count * float(mean @ mean)


def _exact(blocks: Iterable[np.ndarray], mean: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares (num,) along the first components, falling, and these as columns (D, num)."""
    scatter = np.zeros((len(mean), len(mean)))
    for piece in _pieces(blocks):
        piece = piece - mean
        scatter += piece.T @ piece
    values, vectors = np.linalg.eigh(scatter)
    return values[::-1][:num], vectors[:, ::-1][:, :num]


def _turned(blocks: Iterable[np.ndarray], mean: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """As ``_exact``, without the scatter matrix (D, D)."""
    basis = np.random.default_rng(0).standard_normal((len(mean), min(num + SPARE, len(mean))))
    found = 0.0
    for _ in range(MOST_TURNS):
        basis = np.linalg.qr(basis)[0]
        narrow, turned = basis.astype(np.float32), np.zeros_like(basis)
        for piece in _pieces(blocks):
            piece = (piece - mean).astype(np.float32)
            turned += piece.T @ (piece @ narrow)  # float32 is twice as fast; the sum over all pieces is in float64
        values, vectors = np.linalg.eigh(basis.T @ turned)
        components = basis @ vectors[:, ::-1][:, :num]
        before, found, basis = found, values[-num:].sum(), turned
        if found <= before * (1 + GAIN):
            break
    return values[::-1][:num], components


def _pieces(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        rows = max(PIECE // max(block.shape[1], 1), 1)
        for start in range(0, len(block), rows):
            yield block[start : start + rows].astype(np.float64)


def nothing(num_features: int) -> Projection:
    """In place of a projection, where features are to be kept as they are: no components."""
    return Projection(
        np.zeros(num_features, np.float32), np.zeros((0, num_features), np.float32), np.zeros(0, np.float32)
    )


NAMES = ("mean", "components", "explained")
_REDUCE = "python -m pipeline.extraction.reduce"


def save(path: Path, fitted: Projection | Mapping[int, Projection], made_by: dict[str, Any]) -> None:
    """Writes the projection, or one for each fold, with the ``made_by`` of the store that it was fitted on."""
    each = {f"fold_{k}/": p for k, p in fitted.items()} if isinstance(fitted, Mapping) else {"": fitted}
    tensors = {f"{of}{name}": getattr(p, name) for of, p in each.items() for name in NAMES}
    for of, p in each.items():
        tensors |= to_arrays({"projection": p.seen}, f"{of}seen.") if p.seen else {}
    save_tensors(path, tensors, {"made_by": made_by})


def load(
    path: Path, made_by: dict[str, Any], fold: int | None = None, alike: Collection[str] = ()
) -> Projection | None:
    """The projection for a fold, or the only one; None where the file says that features are kept (``nothing``).

    ``alike`` is what the user vouches for where the makings differ (``store.vouched_for``).

    Whether it has seen what is held out now is for the caller to ask, of its ``seen``. Raises ``UserError`` where there
    is none, where it is damaged, where it was fitted on features that something else made, and where the labels are cut
    into folds and it was fitted as if they were not, or the other way round: it would have seen frames that are held
    out now.
    """
    if not path.is_file():
        raise UserError(f"no projection at {path}: make one with '{_REDUCE} -d STORE', or train with --no-reduce")
    tensors, facts = load_tensors(path, "a projection", f"Fit it again with '{_REDUCE}'")
    folds = sorted(int(key[5:].split("/")[0]) for key in tensors if key.endswith("/mean"))
    of = f"fold_{fold}/" if folds else ""
    if not folds and not set(tensors) >= set(NAMES):
        raise UserError(f"{path} is not a projection: it holds other tensors. Fit it again with '{_REDUCE}'")
    found, refusal = None, f"the projection {path} was fitted on other features than this store has"
    vouched = vouched_for(refusal, facts["made_by"], made_by, alike)
    if not folds or fold in folds:
        seen = from_arrays(tensors, f"{of}seen.").get("projection")
        found = Projection(**{name: tensors[f"{of}{name}"] for name in NAMES}, seen=seen, vouched=vouched)
    if found is not None and not len(found.components):
        return None
    if found is None or (fold is not None and not folds):
        fitted = f"for the folds {folds}" if folds else "for one split"
        wanted = "one split" if fold is None else f"fold {fold}"
        raise UserError(
            f"the projection {path} was fitted {fitted}, and {wanted} is trained: fit it again with '{_REDUCE}'"
        )
    return found
