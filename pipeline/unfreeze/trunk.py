"""The backbone of a run in training: what it gives the trainer, and what is kept of it.

``Trunk`` is all that ``pipeline.training`` knows of this room, which it finds by name (``training.trunks``).
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.adapter import sources
from pipeline.adapter.front import Front
from pipeline.adapter.own import BACKBONE, FEATURES
from pipeline.core.frame_set import FrameSet, rows_of
from pipeline.core.join import frame_table
from pipeline.core.params import UserError
from pipeline.core.progress import Line
from pipeline.core.seen import Seen, joined, without
from pipeline.core.store import CHUNK_ROWS, FeatureStore, StoreWriter, resolved
from pipeline.core.tables import read_frames, weights_file
from pipeline.extraction.backbones import load_backbone, pooling_of
from pipeline.extraction.views import Change
from pipeline.extraction.weights.file import load, tensors_sha256
from pipeline.unfreeze.inputs import Inputs, drawn_change, open_maps, open_pixels
from pipeline.unfreeze.network import AT_ONCE, Network

MOST_FITTED = 10_000  # frames, by which what stands before the head is fitted to another start
BLOCK = 256  # frames that are read at a time where nothing is trained
ROOM = 1 << 26  # bytes for features that are looked at when a seed is trained; more are read from the disk
NEEDED = ("backbone", "weights_sha256", "input_size", "layers", "pooling", "crop_source")


def open_trunk(config: Any, store: FeatureStore, frames: FrameSet, front: Front, device: torch.device) -> "Trunk":
    """The backbone that made ``store``, to be trained as the ``TrainConfig`` says.

    Raises ``UserError`` where no backbone is known that made the store, where its weights are gone or are others, and
    where frames or maps do not fit the store.
    """
    made_by = store.made_by
    if not set(NEEDED) <= made_by.keys():
        raise UserError(f"{store.path} was imported: no backbone is known that makes its features, so none is trained")
    weights = weights_file(made_by)
    if not weights.is_file():
        source = " --weights FILE', of a training's backbone.safetensors" if "trained_from" in made_by else "'"
        raise UserError(
            f"the weights of the backbone are not at {weights}: make that file with 'python -m "
            f"pipeline.extraction.weights --backbone {made_by['backbone']}{source}"
        )
    grid, token_pooling = pooling_of(made_by["pooling"])
    way, crop_pct = made_by.get("fit", "squash 1").split()
    backbone = load_backbone(
        weights, made_by["input_size"], made_by["layers"], grid, made_by.get("scale", 1.0), token_pooling
    ).fitted(way, float(crop_pct), made_by["crop_source"])
    if backbone.facts["weights_sha256"] != made_by["weights_sha256"]:
        raise UserError(
            f"{weights} holds other weights ({backbone.facts['source']}) than made {store.path} ({made_by['source']}): "
            "make that file again with 'python -m pipeline.extraction.weights --weights SOURCE', or extract again"
        )
    network = Network(
        backbone, weights, config.unfreeze, from_maps=config.maps is not None,
        train_norms=config.batch_norm == "train", slice_bytes=config.slice_gb * 1e9, device=device,
        half=config.precision == "bfloat16", lora=config.lora,
    )  # fmt: skip
    if config.maps is not None:
        inputs: Inputs = open_maps(config.maps, frames, made_by, network.cut)
    else:
        table = frame_table(config.data, config.frames)
        if table is None:
            raise UserError(f"there is no frame table beside {store.path}, which says where the frames lie: --frames")
        inputs = open_pixels(frames, read_frames(table), made_by, backbone)
    options = Options(config.backbone_rate, config.layer_decay, config.augment, config.backbone_start, config.normalise)
    return Trunk(network, inputs, store, frames, front.to(device), options)


class Earlier(Protocol):
    """A run whose trained backbones another one starts with. (``training.earlier.Earlier``)"""

    def file(self, seed: int) -> Path:
        """The backbone that a seed starts with."""

    def facts(self, seed: int) -> dict[str, str]:
        """What the checkpoint of the new run says of it."""


@dataclass(frozen=True)
class Options:
    """Rate of the last layer as a share of the head's, its fall a layer, and whether pixels are augmented.

    ``start`` is what the backbone starts with: 'weights', 'random', or a run; ``normalise`` what is done to its
    features before the head.
    """

    rate: float
    layer_decay: float
    augment: bool
    start: str = "weights"
    normalise: str = "centre"


class Trunk:
    """``network`` and the frames that it takes; what stands before the head, ``front``, is applied to its features."""

    def __init__(
        self, network: Network, inputs: Inputs, store: FeatureStore, frames: FrameSet, front: Front, options: Options
    ) -> None:
        self.network, self.inputs, self.front, self.options = network, inputs, front, options
        self.made_by, self.frames = store.made_by, frames
        self.source = Live(network, inputs, front)
        size = store.keys.set_index("row")["size"]
        kept, self._place = np.unique(frames.row, return_index=True)  # a frame may be in two clips
        self._keys = pd.DataFrame({"video": np.array(frames.videos, dtype=object)[frames.video[self._place]]})
        self._keys = self._keys.assign(frame=frames.frame[self._place], size=size.reindex(kept).to_numpy())

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """As ``training.loop.Trunk`` says."""
        return self.network.groups(weight_decay, self.options.rate, self.options.layer_decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.network.state_dict()

    def load_state_dict(self, tensors: dict[str, torch.Tensor]) -> None:
        self.network.load_state_dict(tensors)

    def restart(self, seed: int, earlier: Earlier | None = None) -> dict[str, Any]:
        """Puts in the first weights of a seed; gives what its checkpoint says of them.

        Where these are not those that made the store, ``front`` is fitted to what they give: to at most ``MOST_FITTED``
        evenly spaced training frames. The batch norms of drawn weights are set by the same frames, in an order that
        hangs on the seed.
        """
        if self.options.start == "weights":
            self.network.restart()
            return {}
        rows = np.flatnonzero(np.isin(self.frames.row, self.frames.stored_rows("train")))
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_FITTED)).round().astype(np.int64)]
        if self.options.start == "random":
            self.network.start_with_drawn(seed)
            mixed = np.random.default_rng(seed).permutation(rows)
            parts = np.array_split(mixed, -(-len(rows) // AT_ONCE))
            self.network.settle(_one_ahead(self.inputs.read, [(part,) for part in parts]))
        else:
            self.network.start_with(earlier.file(seed))
        front = Front(self.network.backbone.num_features, None)
        front.fit((block.cpu().numpy() for block in self.source.features(rows)), self.options.normalise)
        self.front.load_state_dict(front.state_dict())
        return {"backbone_start": "random" if earlier is None else earlier.facts(seed)}

    def feed(self, rows: NDArray, seed: int, drawn: Callable[[int], NDArray] | None) -> Callable[[int], Iterable]:
        """The shard of windows ``rows`` (W, T) of each epoch; ``drawn`` says which windows (W,) an epoch has."""
        if drawn is not None:
            return lambda epoch: [LiveShard(some := np.flatnonzero(drawn(epoch)), rows[some], self, seed)]
        whole = [LiveShard(np.arange(len(rows)), rows, self, seed)]
        return lambda epoch: whole

    def save(self, folder: Path, seen: Mapping[str, Seen]) -> None:
        """Writes the backbone as it is now beside the checkpoint of a seed, with what the run has ``seen`` by part."""
        of_training = joined([seen[part] for part in ("train", "start", "backbone") if part in seen])
        # Of an earlier run it has all that was looked at, so also what that one chose its best epoch on.
        self.network.save(folder, {"train": without(of_training, seen["select"]), "select": seen["select"]})

    def finish(self, folder: Path) -> dict[str, Any]:
        """Writes the features of the best backbone, which lies in the folder of a seed, beside it.

        Gives what changes in the facts of the adapter: it takes these features from now on. What was written before
        a run was killed is not computed again.
        """
        tensors, facts = load(folder / BACKBONE)
        self.network.load_whole(tensors)
        made_by = _made_by_trained(self.made_by, facts, tensors)
        self._write(folder / FEATURES, made_by)
        return {"made_by": made_by, "weights": BACKBONE, "trained": {"made_by": self.made_by, "cut": self.network.cut}}

    def stored(self, folder: Path) -> sources.InMemory | sources.FromDisk:
        """The inputs of the head by the features that ``finish`` wrote, in the place of ``source``.

        They are few in memory: a run whose maps do not fit there may have as many features.
        """
        store = FeatureStore(folder / FEATURES)
        rows = rows_of(store, self.frames)
        assert (rows >= 0).all()
        return sources.open_inputs(store, rows, self.front, self.network.device, room=ROOM)

    def _write(self, path: Path, made_by: dict[str, Any]) -> None:
        if path.is_dir() and FeatureStore(path).made_by != json.loads(json.dumps(made_by)):
            shutil.rmtree(resolved(path))  # of an earlier best epoch
        width = self.network.backbone.num_features
        with StoreWriter(path, made_by, {"original": width}, CHUNK_ROWS) as writer, Line() as line:
            done = len(FeatureStore(path).keys)
            for start in range(done, len(self._keys), writer.chunk_rows):
                part = self._place[start : start + writer.chunk_rows]
                line.say(f"{path}: {start:,} of {len(self._keys):,} frames")
                features = torch.cat(list(self.source.features(part))).cpu().numpy()
                if not np.isfinite(features.astype(np.float16)).all():
                    raise UserError("the trained backbone gives features that float16 cannot hold: lower backbone_rate")
                writer.write(self._keys.iloc[start : start + len(part)], {"original": features})


def _made_by_trained(
    made_by: dict[str, Any], facts: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """What ``extract.py --weights`` would say of features of the trained backbone."""
    own = {"source": facts["source"], "trained_from": facts["trained_from"], "weights_sha256": tensors_sha256(tensors)}
    return {k: v for k, v in made_by.items() if k not in ("views", "augmentation")} | own | {"views": ["original"]}


class Live:
    """A source (``adapter.Source``) whose inputs are computed by the network as it is now, without a gradient."""

    present = None

    def __init__(self, network: Network, inputs: Inputs, front: Front) -> None:
        self.network, self.inputs, self.front = network, inputs, front
        self.device = network.device

    def features(self, rows: NDArray) -> Iterator[torch.Tensor]:
        """Features (m, D) of the frames ``rows`` (n,), block by block; the next is read beside."""
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
        for read in _one_ahead(self.inputs.read, [(block,) for block in blocks]):
            yield self.network.features(read)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Inputs (n, K) float32 of the frames ``rows`` (n,); each frame is computed once a call."""
        kept, place = np.unique(rows.cpu().numpy(), return_inverse=True)
        found = [self.front(features) for features in self.features(kept)]
        taken = torch.cat(found) if found else torch.zeros((0, self.front.num_inputs), device=self.device)
        return taken[torch.from_numpy(place).to(self.device)]

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``InMemory.gather``."""
        valid = rows >= 0
        out = torch.zeros((*rows.shape, self.front.num_inputs), device=self.device)
        out[valid] = self.take(rows[valid])
        return out, valid


class LiveShard:
    """The windows of an epoch, whose features have a gradient. (``training.loop.Shard``)

    The frames of the next batch are read while one is trained on. With augmentation each window of a batch is changed
    in a way of its own, and all its frames alike.
    """

    def __init__(self, windows: NDArray, rows: NDArray, trunk: Trunk, seed: int) -> None:
        self.windows, self.rows, self.trunk, self.seed = windows, rows, trunk, seed
        self._coming: Iterator[tuple[NDArray, torch.Tensor]] = iter(())

    def in_views(self, batches: list[NDArray], epoch: int) -> list[NDArray]:
        """The batches as they are, which are read from now on in their order."""
        asked = [(self.rows[numbers], epoch, number) for number, numbers in enumerate(batches)]
        self._coming = _one_ahead(self._read, asked)
        return batches

    def batch(self, numbers: NDArray, hides: None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, T, K) and valid (B, T) of the next batch."""
        place, inputs = next(self._coming)
        device = self.trunk.network.device
        taken = self.trunk.front(self.trunk.network.trained(inputs))
        at = torch.from_numpy(place).to(device)
        found = taken.index_select(0, at.clamp(min=0).flatten()).view(*at.shape, -1)
        return found.masked_fill((at < 0)[..., None], 0.0), at >= 0

    def _read(self, rows: NDArray, epoch: int, batch: int) -> tuple[NDArray[np.int64], torch.Tensor]:
        """Places (B, T) of the frames of windows ``rows`` (B, T) in what is read of them, -1 where one is missing."""
        changes: list[Change] | None = None
        number_of_window = np.zeros_like(rows)
        if self.trunk.options.augment:
            number_of_window += np.arange(len(rows))[:, None]
        count = int(rows.max()) + 1
        key = np.where(rows >= 0, number_of_window * count + rows, -1)
        kept, place = np.unique(key, return_inverse=True)
        place = place.reshape(rows.shape)
        if kept[0] < 0:
            kept, place = kept[1:], place - 1
        window, row = np.divmod(kept, count)
        if self.trunk.options.augment:
            each = [drawn_change(self.seed, epoch, batch, number) for number in range(len(rows))]
            changes = [each[number] for number in window]
        return place, self.trunk.inputs.read(row, changes)


def _one_ahead(read: Callable[..., Any], calls: list[tuple]) -> Iterator[Any]:
    """What ``read`` gives for each call, in order; the next call is under way while one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        coming: Future | None = thread.submit(read, *calls[0]) if calls else None
        for number in range(len(calls)):
            found = coming.result()
            coming = thread.submit(read, *calls[number + 1]) if number + 1 < len(calls) else None
            yield found
