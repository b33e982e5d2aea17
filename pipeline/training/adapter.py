"""A trained adapter: everything between a stored feature and an embedding, in one file without pickles."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pipeline.params import UserError, one_of
from pipeline.projection import Projection
from pipeline.store import differences
from pipeline.training.heads import build_head, centre, pool
from pipeline.training.losses import build_loss
from pipeline.training.windows import gather

POOLINGS = {"centre": lambda embeddings, valid: centre(embeddings), "mean": pool}
NORMALISATIONS = ("none", "centre", "standardise")
# A channel that hardly ever moves is divided by a share of the mean deviation, not by its own: else its noise becomes
# as large as every signal, and training collapses onto it.
DEVIATION_FLOOR = 0.1


class Front(nn.Module):
    """Stored features (n, D) -> inputs of the head (n, K) float32: projected, then centred or standardised."""

    def __init__(self, num_features: int, num_components: int | None) -> None:
        super().__init__()
        self.num_inputs = num_components or num_features
        if num_components:
            self.register_buffer("components", torch.zeros(num_components, num_features))
            self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("shift", torch.zeros(self.num_inputs))
        self.register_buffer("scale", torch.ones(self.num_inputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.float()
        if hasattr(self, "components"):
            x = (x - self.mean) @ self.components.T
        return (x - self.shift) / self.scale

    def project_with(self, projection: Projection) -> None:
        self.components.copy_(torch.from_numpy(projection.components))
        self.mean.copy_(torch.from_numpy(projection.mean))

    def fit(self, features: torch.Tensor, normalise: str) -> None:
        """Takes shift and scale from training features (n, D); 'none' leaves them."""
        one_of("normalise", normalise, NORMALISATIONS)
        if normalise == "none":
            return
        blocks = features.split(8192)  # all rows in float64 would not fit where the features just do
        mean = sum(self(block).double().sum(0) for block in blocks) / len(features)
        variance = sum((self(block).double() - mean).square().sum(0) for block in blocks) / len(features)
        self.shift.copy_(mean)
        if normalise == "standardise":
            deviation = variance.sqrt()
            self.scale.copy_(deviation.clamp_min(max(DEVIATION_FLOOR * float(deviation.mean()), 1e-12)))


@dataclass
class Adapter:
    """``front``, ``head`` and ``loss`` (for its class weights), and what it takes to make them again.

    ``facts``: model, loss and their arguments, window, step, pooling, classes, made_by of the features, ...
    """

    front: Front
    head: nn.Module
    loss: nn.Module
    facts: dict[str, Any] = field(default_factory=dict)

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"front": self.front, "head": self.head, "loss": self.loss})

    def embed(self, inputs: torch.Tensor, rows: torch.Tensor, batch_size: int = 1024) -> torch.Tensor:
        """Embeddings (W, E) float32 of windows ``rows`` (W, T) into ``inputs`` (N, K), the outputs of the front."""
        self.head.eval()
        pooling = POOLINGS[self.facts["pooling"]]
        out = []
        with torch.inference_mode():
            if self.head.framewise:  # each frame once, however many windows it is in
                every = torch.ones((1, 1), dtype=torch.bool, device=inputs.device)
                frames = torch.cat([self.head(x[:, None], every.expand(len(x), 1))[:, 0] for x in inputs.split(8192)])
                for part in rows.split(batch_size):
                    out.append(pooling(*gather(frames, part)))
            else:
                for part in rows.split(batch_size):
                    features, valid = gather(inputs, part)
                    out.append(pooling(self.head(features, valid), valid))
        return torch.cat(out) if out else inputs.new_zeros((0, self.head.embedding_size))


def build_adapter(facts: dict[str, Any]) -> Adapter:
    """An untrained adapter; ``facts`` as in ``Adapter``. Raises ``UserError`` for an unknown head or loss."""
    front = Front(facts["num_features"], facts["num_components"])
    head = build_head(
        facts["model"], num_features=front.num_inputs, embedding_size=facts["embedding_size"], dropout=facts["dropout"]
    )
    loss = build_loss(
        facts["loss"], num_classes=len(facts["classes"]), embedding_size=head.embedding_size,
        temperature=facts["temperature"], margin=facts["margin"],
    )  # fmt: skip
    return Adapter(front, head, loss, facts)


def save_adapter(path: Path, adapter: Adapter, **more: Any) -> None:
    """Writes tensors and facts (and ``more`` facts, such as the epoch) as safetensors, by a temporary file."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in adapter.modules().state_dict().items()}
    temporary = path.with_name(path.name + ".partial")
    save_file(tensors, temporary, metadata={"facts": json.dumps(adapter.facts | more, sort_keys=True)})
    temporary.replace(path)


def load_adapter(path: Path, made_by: dict[str, Any]) -> Adapter:
    """The adapter in ``path``; raises ``UserError`` where it was trained on features that something else made."""
    if not path.is_file():
        raise UserError(f"no trained adapter at {path}: make one with 'python train.py'")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UserError(f"{path} is not a trained adapter: {error}") from None
    if facts is None:
        raise UserError(f"{path} is not a trained adapter: it does not say what it is")
    if other := differences(facts["made_by"], made_by):
        raise UserError(f"the adapter {path} was trained on other features than this store has: {other}")
    adapter = build_adapter(facts)
    adapter.modules().load_state_dict(tensors)
    return adapter


def inputs(front: Front, features: np.ndarray, device: torch.device) -> torch.Tensor:
    """Stored features (N, D) through the front, in blocks, onto the device: (N, K) float32."""
    front.to(device)
    out = torch.empty((len(features), front.num_inputs), device=device)
    with torch.inference_mode():
        for start in range(0, len(features), 8192):
            block = torch.from_numpy(np.ascontiguousarray(features[start : start + 8192])).to(device)
            out[start : start + len(block)] = front(block)
    return out
