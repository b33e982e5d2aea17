"""A backbone of which the last stages, all, or low-rank updates are trained: what is frozen, and how fast it goes.

Frames go through it in slices: first all of them without keeping what a gradient needs, then, when the gradient of the
loss with respect to the features is known, slice by slice again with it. So the gradient is that of one large pass, at
the memory of a slice: GradCache, Gao et al. 2021, https://arxiv.org/abs/2101.06983. Each slice is a checkpoint of
torch (``torch.utils.checkpoint``), which also gives the second pass the random numbers of the first.
"""

import copy
import hashlib
import logging
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.optim.swa_utils import update_bn
from torch.utils.checkpoint import checkpoint

from pipeline.adapter.own import BACKBONE
from pipeline.core.files import save_tensors
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, to_lists
from pipeline.extraction.backbones import Backbone
from pipeline.extraction.stages import Halves, halves
from pipeline.extraction.weights.file import load, tensors_sha256
from pipeline.unfreeze.low_rank import ORIGINAL, UPDATES, add_updates, update_of
from pipeline.unfreeze.parts import ALL, behind_layers, first_trained, trained_parts

logging.getLogger("timm.optim").setLevel(logging.ERROR)  # it warns of a part of one layer, where no rate falls
AT_ONCE = 64  # frames without a gradient
# A backward pass holds, beside what the forward pass has kept, about as much again in gradients.
OF_BACKWARD = 2


class Network:
    """``backbone`` with the weights of a file, of which the last ``unfreeze`` stages, or 'all', are trained.

    With ``lora`` it is updates of that rank of the attention's weights that are trained, in all of the backbone.

    Inputs are pixels (n, 3, S, S) uint8, or, ``from_maps``, maps (n, C, h, w) at ``cut``, the first stage that is
    trained. Features are (n, D) float32. The statistics of batch norms stay as they are unless ``train_norms``.
    ``slice_bytes`` is what a slice of frames may take in training. Raises ``UserError`` for stages that are not there,
    and for maps of a backbone that cannot be cut.
    """

    def __init__(
        self, backbone: Backbone, weights: Path, unfreeze: int | str | None, *, from_maps: bool = False,
        train_norms: bool = False, slice_bytes: float = 2e9, device: torch.device | str = "cpu", half: bool = False,
        lora: int | None = None,
    ) -> None:  # fmt: skip
        self.start, self.facts = load(weights)
        self.trained_from = _root(self.facts)
        self.backbone, self.device, self.half = backbone, torch.device(device), half
        self.train_norms, self.slice_bytes, self.from_maps = train_norms, slice_bytes, from_maps
        name, whole = backbone.facts["backbone"], backbone.module.model
        self.cut = first_trained(whole, name, ALL if lora else unfreeze, backbone.layers)
        if from_maps and self.cut is None:
            raise UserError("maps are what the first trained stage takes in, and with unfreeze all there is none")
        cut = self._halves()
        self.map_shape = cut.map_shape if cut else None
        self.before = cut.before.model.to(self.device) if cut and not from_maps else None
        self.behind = (cut.behind if cut else copy.deepcopy(backbone.module)).to(self.device)
        self.behind.num_outputs = 0
        self.model = self.behind.model
        if backbone.outputs:  # its own predictions are not trained, and would shift the layers' rates by one
            self.model.reset_classifier(0)
        self._parts = [""] if self.cut is None else trained_parts(whole, self.cut)
        there, unused = {name for name, _ in self.model.named_modules()}, behind_layers(whole, backbone.layers)
        self._unused = [part for part in unused if part in there]  # without the classifier
        for key, parameter in self.model.named_parameters():
            of = {part for part in (*self._parts, *self._unused) if part == "" or key.startswith(f"{part}.")}
            parameter.requires_grad_(bool(of) and not of & {*self._unused})
        self.behind.to(memory_format=torch.channels_last)
        self._updated = add_updates(self.model, name, lora, self._unused) if lora else {}
        if self.before is not None:
            self.before.to(memory_format=torch.channels_last)
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (backbone.mean, backbone.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._frame_bytes: float | None = None

    def _halves(self) -> Halves | None:
        """Cut at the first trained stage; None where all is trained, or where it cannot be cut, which pixels allow."""
        if self.cut is None:
            return None
        try:
            return halves(self.backbone, self.cut)
        except UserError:
            if self.from_maps:
                raise
            return None

    def groups(self, weight_decay: float, rate: float, layer_decay: float) -> list[dict[str, Any]]:
        """Groups of parameters as timm makes them: the rate falls by ``layer_decay`` a layer, towards the input.

        'times' is the share of the head's rate, ``rate`` for the last layer. Biases and norms have no weight decay.
        """
        without = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ()
        groups = param_groups_layer_decay(self.model, weight_decay, without, layer_decay=layer_decay)
        most = max(group["lr_scale"] for group in groups)
        return [
            {"params": g["params"], "weight_decay": g["weight_decay"], "times": rate * g["lr_scale"] / most}
            for g in groups
        ]

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, D) without a gradient, as the backbone is now, in evaluation mode."""
        self._set_mode(False)
        with torch.no_grad():
            return torch.cat([self._whole_way(part) for part in inputs.split(AT_ONCE)])

    def trained(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, D) with a gradient; in slices where ``slice_bytes`` cannot hold all at once.

        Raises ``UserError`` for slices where batch norms are trained, whose statistics are those of all frames.
        """
        size = self.slice_frames(inputs[:1])
        if self.train_norms and len(inputs) > size:
            raise UserError(
                f"batch_norm train takes all {len(inputs):,} frames of a batch at once, and slice_gb "
                f"{self.slice_bytes / 1e9:g} holds {size:,}: raise it, lower batch_size, or leave batch norms frozen"
            )
        work = self._whole_way
        if self.before is not None:  # what stays frozen is computed once, and not again with the gradient
            with torch.no_grad():
                inputs, work = torch.cat([self._at_cut(part) for part in inputs.split(AT_ONCE)]), self._behind
        self._set_mode(True)
        if len(inputs) <= size:
            return work(inputs)
        return torch.cat([checkpoint(work, part, use_reentrant=False) for part in inputs.split(size)])

    def slice_frames(self, first: torch.Tensor) -> int:
        """How many frames ``slice_bytes`` can hold, by what a pass with the ``first`` one keeps for its gradient."""
        if self._frame_bytes is None:
            self._frame_bytes = OF_BACKWARD * max(1, self._kept(first))
        return max(1, int(self.slice_bytes // self._frame_bytes))

    def _kept(self, inputs: torch.Tensor) -> int:
        """The bytes that a pass keeps for its gradient, without weights, also updated ones."""
        kept: dict[int, int] = {}
        own = {p.untyped_storage().data_ptr() for p in self.behind.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        self._set_mode(False)
        with torch.enable_grad(), parametrize.cached():
            own |= {layer.weight.untyped_storage().data_ptr() for layer in self._updated.values()}
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                out = self._whole_way(inputs)
        del out
        return sum(kept.values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All tensors of the part that is trained; of low-rank updates these alone."""
        if not self._updated:
            return self.model.state_dict()
        updates = {name: update_of(layer).state_dict() for name, layer in self._updated.items()}
        return {f"{name}.{key}": value for name, update in updates.items() for key, value in update.items()}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts back what ``state_dict`` gave."""
        if not self._updated:
            self.model.load_state_dict({name: tensors[name] for name in self.model.state_dict()})
        for name, layer in self._updated.items():
            update_of(layer).load_state_dict({key: tensors[f"{name}.{key}"] for key in ("up", "down")})

    def restart(self) -> None:
        """Puts the weights back that the training starts from; of low-rank updates one side is drawn."""
        self.load_whole(self.start)
        for layer in self._updated.values():
            update_of(layer).restart()

    def load_whole(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts in what the whole backbone has under its names. A low-rank update adds nothing to that."""
        for model in (self.model, *([] if self.before is None else [self.before])):
            own = model.state_dict()
            of_updates = {name: value for name, value in own.items() if name.endswith(UPDATES)}
            rest = {name: tensors[name.replace(ORIGINAL, ".weight")] for name in own if name not in of_updates}
            model.load_state_dict(rest | of_updates)
        for layer in self._updated.values():
            nn.init.zeros_(update_of(layer).up)

    def start_with(self, path: Path) -> None:
        """Starts from a backbone that ``save`` wrote; raises ``UserError`` for one of another architecture."""
        tensors, facts = load(path)
        here, there = ({name: t.shape for name, t in of.items()} for of in (self.start, tensors))
        if here != there:
            raise UserError(
                f"backbone_start: {path} is a '{facts.get('backbone')}', and the features are of a "
                f"'{self.facts['backbone']}' with tensors of other names or shapes"
            )
        self.start, self.trained_from = tensors, _root(facts)
        self.restart()

    def start_with_drawn(self, seed: int) -> None:
        """Starts from weights as timm draws them for a new network, a pure function of ``seed``.

        Raises ``UserError`` for batch norms that are to stay as they are: no data has set their statistics.
        """
        if not self.train_norms and any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            raise UserError("backbone_start 'random' has batch norms that saw no data: give --batch-norm train")
        with torch.random.fork_rng(devices=[]):
            digest = hashlib.sha256(f"backbone {seed}".encode()).digest()  # not the numbers that the head is drawn from
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            of, outputs = self.backbone.facts["architecture"], len(self.backbone.outputs)
            drawn = timm.create_model(of, pretrained=False, num_classes=outputs)
        self.start, self.trained_from = drawn.state_dict(), f"random, seed {seed}"
        self.restart()

    def settle(self, blocks: Iterable[torch.Tensor]) -> None:
        """Sets the statistics of all batch norms to the mean of those of each of these blocks of inputs."""
        update_bn((self._at_cut(block) for block in blocks), self.behind)

    def whole(self) -> dict[str, torch.Tensor]:
        """The state dict of the whole backbone, with what is trained as it is now, on the CPU. Updates are added."""
        now = self.state_dict()
        if self._updated:
            now = {f"{name}.weight": layer.weight for name, layer in self._updated.items()}
        return self.start | {name: value.detach().cpu().contiguous().clone() for name, value in now.items()}

    def save(self, folder: Path, seen: Mapping[str, Seen]) -> None:
        """Writes the whole backbone into the folder of a seed, as a file that ``extract.py --weights`` takes.

        ``seen`` says what it was trained and its best epoch chosen on, so that no head is scored on that.
        """
        tensors = self.whole()
        own = {"source": f"file {BACKBONE}", "source_sha256": tensors_sha256(tensors)}
        facts = self.facts | own | {"trained_from": self.trained_from, "seen": to_lists(seen)}
        save_tensors(folder / BACKBONE, tensors, facts)

    def _at_cut(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps float32 at the cut, where there is one, else normalised pixels; of a part of the inputs."""
        inputs = inputs.to(self.device, non_blocking=True)
        if self.from_maps:
            return inputs.float().contiguous(memory_format=torch.channels_last)
        pixels = torch.addcmul(self._shift, inputs.float(), self._scale)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if self.before is None:
            return pixels
        with torch.no_grad(), self._precision():
            return self.before.forward_features(pixels).float()

    def _whole_way(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._behind(self._at_cut(inputs))

    def _behind(self, at_cut: torch.Tensor) -> torch.Tensor:
        with self._precision():
            return self.behind(at_cut)[0].float()

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()

    def _set_mode(self, training: bool) -> None:
        """What is trained in training mode, all else in evaluation mode; batch norms only where they are trained."""
        self.behind.eval()
        if not training:
            return
        for part in self._parts:
            self.model.get_submodule(part).train()
        for part in self._unused:
            self.model.get_submodule(part).eval()
        if not self.train_norms:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()


def _root(facts: Mapping[str, Any]) -> str:
    """Where the weights of a file are from; of trained ones, those that the first training began with."""
    return facts.get("trained_from", facts["source"])
