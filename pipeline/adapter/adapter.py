"""A trained adapter: everything between a stored feature and an embedding, in one file without pickles."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pipeline.adapter.front import Front, Fronts
from pipeline.adapter.heads.build import build_head
from pipeline.adapter.pooling import POOLINGS
from pipeline.adapter.predictors import Predictors
from pipeline.adapter.sources import InMemory
from pipeline.adapter.windows import Window
from pipeline.core.files import load_tensors, save_tensors
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, from_arrays, to_arrays
from pipeline.core.stores import vouched_for

# Of checkpoints: one more whenever their facts or tensors mean something else than before, so that older ones are
# refused. 2: a window is one value, with its edge; predictors are part of the adapter. 3: the best checkpoint has the
# centres of the classes, and says where the weights of the backbone lie; a predictor of action units holds their
# thresholds.
FORMAT = 3


class Source(Protocol):
    """Where the inputs of the head for N frames come from: memory, or the store."""

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Inputs (n, K) float32 of the frames ``rows`` (n,)."""

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (B, T, K) float32 and ``valid`` (B, T) of ``rows`` (B, T): zeros and False where a row is -1."""


@dataclass
class Adapter:
    """``front``, ``head`` and ``predictors``, and what it takes to make them again.

    ``facts``: model and its arguments, predictors (what each of them is), window (the fields of ``Window``), pooling,
    classes, made_by of the features, thresholds_of (what the thresholds of action units were fitted on: folds, frames,
    groups), clips (of a run on clips alone: the fields of ``clips.ClipRule``), vouched (whose features were made
    otherwise and are alike by the user's word, and what differs), stores (of several side by side alone: the name of
    each, its columns [start, end) of a joined row, and num_components, None where it has no projection; ``made_by`` has
    the making of each), ... ``seen`` says which videos it was made with, by
    use ('train', 'select', 'val', 'projection'); None where its file does not say. ``centres`` (C, E) float32 are the
    means of the unit embeddings of each class's training windows, NaN where it has none; None where there are no
    classes, or the training is not finished.
    """

    front: Front | Fronts
    head: nn.Module
    predictors: Predictors
    facts: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Seen] | None = field(default_factory=dict)
    centres: torch.Tensor | None = None

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"front": self.front, "head": self.head, "predictors": self.predictors})

    @property
    def window(self) -> Window:
        return Window(**self.facts["window"])

    @property
    def predicts(self) -> tuple[str, ...]:
        """What is predicted: some of 'classes', 'va', 'aus' and 'outputs', or nothing.

        A classifier of people has no classes that it could name: it has served in training.
        """
        return tuple(what for what in self.predictors.by_what if what != "classes" or not self.facts.get("num_people"))

    @property
    def au_thresholds(self) -> torch.Tensor | None:
        """The probabilities (A,) from which an action unit is called active; None where none are predicted."""
        return self.predictors.by_what["aus"].thresholds if "aus" in self.predicts else None

    def set_thresholds(self, thresholds: np.ndarray, fitted_on: dict[str, Any]) -> None:
        """Sets the thresholds (A,) of the action units; ``fitted_on`` says what they are from."""
        for predictor in self.predictors.values():
            if predictor.what == "aus":
                predictor.thresholds.copy_(torch.from_numpy(thresholds))
        self.facts["thresholds_of"] = fitted_on

    def predict(self, what: str, embeddings: torch.Tensor) -> torch.Tensor:
        """Float32 logits (B, C) for 'classes' and (B, A) for 'aus', values (B, 2) for 'va' and (B, K) for 'outputs'."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.predictors.by_what[what].predict(embeddings.float())

    def pool(self, out: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, E) from what the head gives, (B, T, E), or (B, E) already."""
        return out if self.head.pools else POOLINGS[self.facts["pooling"]](out, valid)

    def windows(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, E) of windows (B, T, K): ``pool`` of what the head gives, but for rounding."""
        if self.head.pools:
            return self.head(features, valid)
        return self.head.pooled(features, valid, POOLINGS[self.facts["pooling"]])

    def windows_of(self, frames: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """The same of windows whose frames are the rows ``place`` (B, T) of (n, K), by a head that takes them once."""
        return self.head.pooled_frames(frames, place, POOLINGS[self.facts["pooling"]])

    def embed(self, source: Source, rows: torch.Tensor, batch_size: int = 1024) -> torch.Tensor:
        """Embeddings (W, E) float32 of windows ``rows`` (W, T) into ``source``."""
        self.head.eval()
        if len(rows) == 0:
            return torch.zeros((0, self.head.embedding_size), device=rows.device)
        out = []
        with torch.inference_mode():
            if self.head.framewise:  # each frame once, however many windows it is in
                at, place = torch.unique(rows[rows >= 0], return_inverse=True)
                numbered = torch.full_like(rows, -1)
                numbered[rows >= 0] = place
                every = torch.ones((1, 1), dtype=torch.bool, device=rows.device)
                frames = [self.head(source.take(p)[:, None], every.expand(len(p), 1))[:, 0] for p in at.split(8192)]
                embedded = InMemory(torch.cat(frames))
                for part in numbered.split(batch_size):
                    out.append(self.pool(*embedded.gather(part)))
            else:
                for part in rows.split(batch_size):
                    out.append(self.windows(*source.gather(part)))
        return torch.cat(out)

    def embed_frames(self, source: Source, rows: torch.Tensor) -> torch.Tensor:
        """Embeddings (W, T, E) of each frame of windows ``rows`` (W, T), by a head that gives them."""
        self.head.eval()
        with torch.inference_mode():
            return self.head(*source.gather(rows))

    def compare(self, source: Source, left: torch.Tensor, right: torch.Tensor, batch_size: int = 1024) -> torch.Tensor:
        """Logits (P,) of "the same" of windows ``left`` and ``right`` (P, T), by a head for pairs.

        A window that is in many pairs is read once.
        """
        self.head.eval()
        windows, place = torch.unique(torch.cat([left, right]), dim=0, return_inverse=True)
        with torch.inference_mode():
            parts = [self.head.side(*source.gather(part)) for part in windows.split(batch_size)]
            sides = [torch.cat(values) for values in zip(*parts, strict=True)]
            pairs = zip(place[: len(left)].split(batch_size), place[len(left) :].split(batch_size), strict=True)
            return torch.cat([self.head.judge(*(x[a] for x in sides), *(x[b] for x in sides)) for a, b in pairs])


def build_adapter(facts: dict[str, Any]) -> Adapter:
    """An untrained adapter; ``facts`` as in ``Adapter``. Raises ``UserError`` for an unknown head."""
    front = front_of(facts)
    head = build_head(
        facts["model"], num_features=front.num_inputs, embedding_size=facts["embedding_size"], dropout=facts["dropout"],
        grid=_grid(facts), **facts["model_options"],
    )  # fmt: skip
    return Adapter(front, head, Predictors(facts["predictors"], head.embedding_size), facts)


def front_of(facts: dict[str, Any]) -> Front | Fronts:
    """What stands before the head of such an adapter, not fitted yet."""
    if "stores" not in facts:
        return Front(facts["num_features"], facts["num_components"])
    each = [(of["columns"], of["num_components"]) for of in facts["stores"]]
    return Fronts([Front(end - start, num_components) for (start, end), num_components in each])


def _grid(facts: dict[str, Any]) -> int:
    """Cells a side of the grid that the head's inputs are of; 1 behind a projection, which mixes them."""
    of_cells = re.fullmatch(r"grid (\d+) x \1", facts["made_by"].get("pooling") or "")
    return int(of_cells[1]) if of_cells and not facts["num_components"] else 1


def save_adapter(path: Path, adapter: Adapter, **more: Any) -> None:
    """Writes tensors and facts (and ``more`` facts, such as the epoch) as safetensors."""
    tensors, which = _of_seen(adapter.seen)
    tensors |= {} if adapter.centres is None else {"centres": adapter.centres}
    save_tensors(path, {**adapter.modules().state_dict(), **tensors}, adapter.facts | which | more | {"format": FORMAT})


def load_adapter(path: str | Path, made_by: dict[str, Any], alike: Collection[str] = ()) -> Adapter:
    """The adapter that ``read_adapter`` gives, for features of a store whose ``made_by`` this is.

    ``alike`` is what the user vouches for where the two differ (``stores.vouched_for``). Raises ``UserError`` where it
    was trained on features that something else made.
    """
    path = _adapter_file(Path(path))
    adapter = read_adapter(path)
    refusal = f"the adapter {path} was trained on other features than this store has"
    difference = vouched_for(refusal, adapter.facts["made_by"], made_by, alike)
    adapter.facts["vouched"] = adapter.facts.get("vouched", {}) | ({"the adapter": difference} if difference else {})
    return adapter


def read_adapter(path: str | Path) -> Adapter:
    """The adapter in a file, in the folder of a seed (its best epoch), or in that of a run that has one seed.

    Raises ``UserError`` where there is no adapter, or more than one, and where it is damaged or of another format.
    """
    path = _adapter_file(Path(path))
    tensors, facts = load_tensors(path, "a trained adapter", _way_out(path), "pt")
    if "model" not in facts:
        raise UserError(f"{path} is not a trained adapter: it does not say which head it holds")
    _check_format(path, facts)
    tensors, seen = _without_seen(tensors, facts)
    centres = tensors.pop("centres", None)
    adapter = build_adapter(facts)
    adapter.seen, adapter.centres = seen, centres
    adapter.modules().load_state_dict(tensors)
    return adapter


def trained_on_clips(folder: Path) -> bool:
    """Whether the run in ``folder`` was trained on clips; False where it has no checkpoint."""
    paths = [*folder.glob("seed_*/best.safetensors"), *folder.glob("fold_*/seed_*/best.safetensors")]
    if not paths:
        return False
    return "clips" in load_tensors(min(paths), "a trained adapter", _way_out(min(paths)), "pt")[1]


def checkpoints_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of the best checkpoint of each seed of a run: 'seed_0/best.safetensors', ..."""
    found = sorted(folder.rglob("best.safetensors"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _check_format(path: Path, facts: dict[str, Any]) -> None:
    """Raises ``UserError`` for a file whose facts mean something else to this code; takes the format out of them."""
    if (found := facts.pop("format", 1)) != FORMAT:
        raise UserError(
            f"{path} has format {found}, and this version of the code reads format {FORMAT}. {_way_out(path)}"
        )


def _way_out(path: Path) -> str:
    """How to train a seed again whose file ``path`` cannot be used."""
    seed = path.parent
    if not seed.name.startswith("seed_"):
        return "Train it again with 'python train.py'"
    run = seed.parent.parent if seed.parent.name.startswith("fold_") else seed.parent
    return f"Delete {seed} and train this seed again with 'python train.py --resume {run}'"


def _adapter_file(path: Path) -> Path:
    file = path if path.suffix == ".safetensors" else path / "best.safetensors"
    if file.is_file():
        return file
    found = sorted(file for glob in ("seed_*", "fold_*/seed_*") for file in path.glob(f"{glob}/best.safetensors"))
    if len(found) == 1:
        return found[0]
    seeds = ", ".join(str(file.parent) for file in found)
    way_out = f"name one of {seeds}" if found else "make one with 'python train.py'"
    raise UserError(f"no trained adapter at {path}: there is no {file}; {way_out}")


def save_state(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any], seen: dict[str, Seen]) -> None:
    """Writes where a training is."""
    more, which = _of_seen(seen)
    save_tensors(path, tensors | more, facts | which | {"format": FORMAT})


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, Seen] | None]:
    """What ``save_state`` wrote; raises ``UserError`` where it is damaged or of another format."""
    way_out = "Delete it and train this seed again, from its first epoch, by going on with the run"
    tensors, facts = load_tensors(path, "the state of a training", way_out, "pt")
    _check_format(path, facts)
    tensors, seen = _without_seen(tensors, facts)
    return tensors, facts, seen


def _of_seen(seen: dict[str, Seen] | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and facts that say what was seen; no facts where that is not known."""
    if seen is None:
        return {}, {}
    return {name: torch.from_numpy(value) for name, value in to_arrays(seen).items()}, {"seen": sorted(seen)}


def _without_seen(
    tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Seen] | None]:
    """The other tensors, and what was seen; ``facts`` lose what said that it is known."""
    of_seen = {name: value.numpy() for name, value in tensors.items() if name.startswith("seen.")}
    rest = {name: value for name, value in tensors.items() if name not in of_seen}
    return rest, from_arrays(of_seen) if facts.pop("seen", None) is not None else None
