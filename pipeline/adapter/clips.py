"""What a trained adapter makes of a whole clip: one embedding and one prediction, pooled over the clip's windows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.adapter.adapter import Adapter, Source
from pipeline.adapter.windows import Windows
from pipeline.core.params import one_of

# What a clip's prediction is, of those of its windows:
# - logits: the mean of their logits; of values, such as valence, the mean of the values.
# - probabilities: the mean of their probabilities; of values the mean as well.
# - top_k: of each class, or action unit, the mean of its ``top_k`` largest logits. Values have no largest ones.
# - attention: the prediction of one embedding, in which a window counts by the weight that the head gives its frames.
POOLINGS = ("logits", "probabilities", "top_k", "attention")


@dataclass(frozen=True)
class ClipRule:
    """How clips become windows, and windows a clip: all that a run on clips has beside the window itself.

    The windows of a clip lie ``stride`` frames apart, and the last one ends with the clip. In an epoch of training
    ``windows`` of each clip are drawn, or all where that is None. ``pooling`` is one of ``POOLINGS``; ``top_k`` counts
    where it is that.
    """

    stride: int
    windows: int | None = None
    pooling: str = "logits"
    top_k: int = 3

    def __post_init__(self) -> None:
        one_of("clip_pooling", self.pooling, POOLINGS)


def rule_of(adapter: Adapter) -> ClipRule | None:
    """How a run on clips pools; None for a run on frames."""
    return ClipRule(**adapter.facts["clips"]) if "clips" in adapter.facts else None


def windows_of_clips(
    windows: Windows, sequence: np.ndarray, centres: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (W, T) of the windows of n clips, and the number (W,), rising, of the clip that each is of.

    ``windows`` are those of N frames that never leave a clip, ``sequence`` (N,) codes of the clips, and ``centres``
    (n,), rising, a row of each wanted one. Every frame of a clip is in a window. A clip that is no longer than a window
    is one window, which begins with it.
    """
    of_centres = sequence[centres]
    rows, _ = windows.sliding(np.flatnonzero(np.isin(sequence, of_centres)), stride, within=True)
    return rows, np.searchsorted(of_centres, sequence[rows.max(axis=1)]) if len(rows) else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class OfWindows:
    """What an adapter makes of n windows, each of which is scored by itself: ``embeddings`` (n, E)."""

    adapter: Adapter
    embeddings: torch.Tensor

    def predict(self, what: str) -> torch.Tensor:
        """As ``Adapter.predict``: logits of classes (n, C) or action units, or values."""
        with torch.inference_mode():
            return self.adapter.predict(what, self.embeddings)


@dataclass(frozen=True)
class OfClips:
    """What an adapter makes of n clips.

    ``windows`` (W, E) are the embeddings of their windows, ``clip`` (W,), rising, the number of the clip of each; every
    clip has one at least. ``weights`` (W,) say how much each counts in its clip, where the pooling is 'attention'; they
    sum to 1 in each clip.
    """

    adapter: Adapter
    rule: ClipRule
    windows: torch.Tensor
    clip: torch.Tensor
    weights: torch.Tensor | None = None

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """Embeddings (n, E) of length one: the mean of those of the windows, each of length one before it counts."""
        return F.normalize(self._mean(F.normalize(self.windows.float())))

    def predict(self, what: str) -> torch.Tensor:
        """Logits (n, C) of 'classes' and (n, A) of 'aus', or values of 'va' (n, 2) and 'outputs' (n, K); float32.

        Logits of mean probabilities are their logarithms, or log(p / (1 - p)) of an action unit.
        """
        with torch.inference_mode():
            if self.rule.pooling == "attention":
                return self.adapter.predict(what, self._mean(self.windows.float()))
            values = self.adapter.predict(what, self.windows)
            if what not in ("classes", "aus") or self.rule.pooling == "logits":
                return self._mean(values)
            if self.rule.pooling == "top_k":
                return self._mean(values, _among_largest(values, self.clip, self.rule.top_k))
            if what == "classes":
                return self._mean(values.double().softmax(1)).log().float()
            return torch.logit(self._mean(values.double().sigmoid()), eps=1e-12).float()

    def _mean(self, values: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """Means (n, C) of values (W, C) over the windows of each clip, weighted; of those that ``counts`` (W, C)."""
        num_clips = int(self.clip[-1]) + 1 if len(self.clip) else 0
        weights = torch.ones_like(values[:, :1]) if self.weights is None else self.weights[:, None].to(values.dtype)
        weights = weights if counts is None else weights * counts
        total, share = (values.new_zeros(num_clips, x.shape[1]) for x in (values, weights))
        return total.index_add_(0, self.clip, values * weights) / share.index_add_(0, self.clip, weights)


def embed_clips(adapter: Adapter, source: Source, rows: torch.Tensor, clip: torch.Tensor) -> OfClips:
    """The windows ``rows`` (W, T) into ``source`` of clips, through the adapter; ``clip`` (W,) as in ``OfClips``."""
    rule = rule_of(adapter)
    weights = _weights(adapter, source, rows, clip) if rule.pooling == "attention" else None
    return OfClips(adapter, rule, adapter.embed(source, rows), clip, weights)


def per_clip(
    adapter: Adapter, source: Source, windows: Windows, sequence: np.ndarray, centres: np.ndarray, device: torch.device
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Embeddings (n, E) float32 of length one of n clips, and what the adapter predicts of them, as ``per_frame``.

    The arguments are as for ``windows_of_clips`` and ``per_frame``.
    """
    rows, clip = windows_of_clips(windows, sequence, centres, rule_of(adapter).stride)
    clips = embed_clips(adapter, source, torch.from_numpy(rows).to(device), torch.from_numpy(clip).to(device))
    to_values: dict[str, Any] = {"classes": lambda x: x.softmax(1), "aus": torch.sigmoid}
    predicted = {what: to_values.get(what, lambda x: x)(clips.predict(what).double()) for what in adapter.predicts}
    return clips.embeddings.cpu().numpy(), {what: values.cpu().numpy() for what, values in predicted.items()}


def _weights(adapter: Adapter, source: Source, rows: torch.Tensor, clip: torch.Tensor) -> torch.Tensor:
    """The share (W,) of its clip's attention that each window has: the softmax of the heads' logits over all frames."""
    with torch.inference_mode():
        logits = torch.cat([adapter.head.attention_of(*source.gather(part)) for part in rows.split(1024)]).double()
    largest = torch.full((int(clip[-1]) + 1,), -torch.inf, dtype=logits.dtype, device=logits.device)
    largest.scatter_reduce_(0, clip, logits, "amax")
    shares = (logits - largest[clip]).exp()
    return (shares / torch.zeros_like(largest).index_add_(0, clip, shares)[clip]).float()


def _among_largest(values: torch.Tensor, clip: torch.Tensor, num: int) -> torch.Tensor:
    """Which values (W, C) are among the ``num`` largest of their clip and column; of equal ones the first."""
    order = values.argsort(dim=0, descending=True, stable=True)
    order = order.gather(0, clip[order].argsort(dim=0, stable=True))  # clip by clip, the largest first
    count = torch.bincount(clip)
    place = torch.arange(len(clip), device=clip.device) - (count.cumsum(0) - count)[clip]
    return torch.zeros_like(values).scatter_(0, order, (place < num).to(values.dtype)[:, None].expand_as(values))
