"""What a trained run does as ONNX graphs, for programs without torch.

    images.onnx     images (N, S, S, 3) uint8 RGB -> features (N, D)
    windows.onnx    windows (B, T, D) of features, valid (B, T) -> embeddings (B, E) of unit length, and what the run
                    predicts of them: classes (B, C) and aus (B, A), probabilities; va (B, 2), valence and arousal;
                    outputs (B, K), further continuous ones. Of a run on clips a window is a part of a clip.
    pairs.onnx      of a head for pairs: left (P, T, D), left_valid, right (P, U, D), right_valid -> logits (P,) of
                    'the same'

All numbers are float32 and ``valid`` is bool. N, B, P, T and U are free. A frame that is not valid may hold anything. A
window without any valid frame has an embedding of zeros.

Features are rounded to float16, as they are in the store: the run was trained on those. Class probabilities are those
of the run's classifier, or, where it has none, by the class centres, as an embedder has them.
"""

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.adapter.adapter import Adapter
from pipeline.adapter.heads.common import mask
from pipeline.adapter.inference import as_values
from pipeline.core.params import UserError
from pipeline.extraction.bounds import one_line

if TYPE_CHECKING:
    import onnx

    from pipeline.extraction.backbones import Backbone

IMAGES, WINDOWS, PAIRS = "images.onnx", "windows.onnx", "pairs.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MOST_OFF = 1e-4  # 1 - cosine to what torch gives
# Windows that the graph is compared on, as (B, T). The example that it was made of is another size.
EXAMPLE, TRIED = (3, 7), ((9, 12), (2, 1), (1, 5))


def check_packages() -> None:
    """Raises ``UserError`` where a package is missing that the graphs are written or tried with."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx needs the packages {', '.join(missing)}: pip install {' '.join(missing)}")


class Features(nn.Module):
    """(N, S, S, 3) uint8 -> features (N, D) float32, rounded as they are in the store."""

    def __init__(self, backbone: "Backbone") -> None:
        super().__init__()
        from pipeline.extraction.by_image import OfBytes

        self.of_bytes = OfBytes(backbone.module, backbone.mean, backbone.std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.of_bytes(images)[0].half().float()


class Embeddings(nn.Module):
    """Windows (B, T, D), valid (B, T) -> a tuple of what ``names`` says, embeddings first."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = _on_cpu(adapter)
        self.parts = self.adapter.modules()
        self.classes_by_centres = "classes" not in adapter.predicts and adapter.centres is not None
        if self.classes_by_centres:
            centres = adapter.centres.float().cpu()
            known = ~centres.isnan().any(dim=1)
            self.register_buffer("centres", F.normalize(centres.nan_to_num(), dim=1))
            self.register_buffer("added", torch.where(known, 0.0, -torch.inf))

    @property
    def names(self) -> list[str]:
        return ["embeddings", *(["classes"] if self.classes_by_centres else []), *self.adapter.predicts]

    def forward(self, windows: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = self.adapter.windows(mask(self.adapter.front(windows), valid), valid).float()
        unit = F.normalize(z, dim=1)
        outputs = [unit]
        if self.classes_by_centres:
            logits = self.adapter.facts["temperature"] * (unit @ self.centres.T) + self.added
            outputs.append(logits.softmax(dim=1))
        outputs += [as_values(what, self.adapter.predictors.by_what[what].predict(z)) for what in self.adapter.predicts]
        return tuple(outputs)


class Pairs(nn.Module):
    """Two windows (P, T, D) and (P, U, D), each with its valid frames -> logits (P,) of a head for pairs."""

    names = ("logits",)

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = _on_cpu(adapter)
        self.parts = self.adapter.modules()

    def forward(
        self, left: torch.Tensor, left_valid: torch.Tensor, right: torch.Tensor, right_valid: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        front = self.adapter.front
        left, right = mask(front(left), left_valid), mask(front(right), right_valid)
        return (self.adapter.head.pair(left, left_valid, right, right_valid),)


def _on_cpu(adapter: Adapter) -> Adapter:
    adapter = copy.deepcopy(adapter)
    adapter.modules().cpu().eval().requires_grad_(False)
    return adapter


def images_graph(backbone: "Backbone") -> bytes:
    """images.onnx; raises ``UserError`` where it would not give the features of the backbone."""
    size, who = backbone.input_size, f"the backbone '{backbone.facts['backbone']}'"
    module = Features(backbone)
    noise = torch.Generator().manual_seed(0)
    tried = torch.randint(0, 256, (3, size, size, 3), generator=noise, dtype=torch.uint8)
    graph = _graph(who, module, (tried[:2],), ["images"], ["features"], [{0: "N"}])
    _compare(who, module, ["features"], graph, [(tried,), (tried[:1],)])
    return graph


def windows_graph(adapter: Adapter) -> bytes:
    """windows.onnx; raises ``UserError`` where it would not give the embeddings and predictions of the adapter."""
    who, module = f"the head '{adapter.facts['model']}'", Embeddings(adapter)
    dynamic = [{0: "B", 1: "T"}] * 2
    graph = _graph(who, module, _windows(adapter, *EXAMPLE), ["windows", "valid"], module.names, dynamic)
    _compare(who, module, module.names, graph, [_windows(adapter, *size) for size in TRIED])
    return graph


def pairs_graph(adapter: Adapter) -> bytes:
    """pairs.onnx, of a head for pairs; raises ``UserError`` where it would not give the logits of the head."""
    who, module = f"the head '{adapter.facts['model']}'", Pairs(adapter)
    names = ["left", "left_valid", "right", "right_valid"]
    dynamic = [{0: "P", 1: "T"}] * 2 + [{0: "P", 1: "U"}] * 2

    def pairs(count: int, left: int, right: int) -> tuple[torch.Tensor, ...]:
        return *_windows(adapter, count, left), *_windows(adapter, count, right, seed=1)

    graph = _graph(who, module, pairs(3, 7, 5), names, module.names, dynamic)
    _compare(who, module, module.names, graph, [pairs(9, 12, 4), pairs(2, 1, 3)])
    return graph


def _windows(adapter: Adapter, count: int, frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of noise: one with all its frames, one without any, and others with gaps, which hold NaN."""
    noise = torch.Generator().manual_seed(seed)
    valid = torch.rand((count, frames), generator=noise) < 0.6
    valid[0] = True
    valid[1:2] = False
    width = adapter.facts["num_features"]
    windows = torch.randn((count, frames, width), generator=noise).masked_fill(~valid.unsqueeze(-1), torch.nan)
    return windows, valid


def _graph(
    who: str, module: nn.Module, examples: tuple[torch.Tensor, ...], inputs: Sequence[str], outputs: Sequence[str],
    dynamic: Sequence[dict[int, str]],
) -> bytes:  # fmt: skip
    from pipeline.extraction.by_image import exported

    free = {axis: torch.export.Dim(axis) for axes in dynamic for axis in axes.values()}
    shapes = tuple({place: free[axis] for place, axis in axes.items()} for axes in dynamic)
    try:
        model = exported(module, examples, input_names=list(inputs), output_names=list(outputs), dynamic_shapes=shapes)
    except Exception as error:  # whatever the exporter stumbles over
        raise UserError(f"{who} cannot be written as an ONNX graph: {one_line(error)}") from None
    _forget_where_it_was_made(model)
    return model.SerializeToString(deterministic=True)


def _forget_where_it_was_made(model: "onnx.ModelProto") -> None:
    """Takes the lines of source that each node came from away, with their paths on this machine."""
    for graph in (model.graph, *model.functions):
        for part in (graph, *graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.ClearField("metadata_props")


@torch.inference_mode()
def _compare(
    who: str, module: nn.Module, names: Sequence[str], graph: bytes, tried: Sequence[tuple[torch.Tensor, ...]]
) -> None:
    """Raises ``UserError`` where the graph gives other numbers than the module, or cannot take one of ``tried``."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        inputs = [each.name for each in session.get_inputs()]
        found = [session.run(None, {n: x.numpy() for n, x in zip(inputs, given, strict=True)}) for given in tried]
    except Exception as error:  # onnxruntime has no error of its own that all others come from
        raise UserError(f"{who} does not run as an ONNX graph: {one_line(error)}") from None
    for given, outputs in zip(tried, found, strict=True):
        expected = module(*given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for name, theirs, ours in zip(names, outputs, expected, strict=True):
            off = _off(theirs, ours.numpy())
            if not off <= MOST_OFF:  # also where it is not a number
                raise UserError(f"{who} gives other {name} as an ONNX graph: they differ by {off:.2g}")


def _off(found: np.ndarray, expected: np.ndarray) -> float:
    """Half the squared distance of two rows of one length 1: that is 1 - cosine, and more where their lengths differ.

    The largest over all rows. What has one number a row, such as logits (P,), is one row.
    """
    if found.shape != expected.shape:
        return np.inf
    a, b = (np.atleast_2d(x.astype(np.float64)) for x in (found, expected))
    apart, length = np.linalg.norm(a - b, axis=1), np.linalg.norm(b, axis=1)
    if (apart[length == 0] > 0).any():
        return np.inf
    share = apart[length > 0] / length[length > 0]
    return float((share**2 / 2).max(initial=0))


def described(adapter: Adapter, member: str, graphs: Sequence[str]) -> dict[str, Any]:
    """What bundle.json says of the graphs: of which member they are, and what each gives."""
    module = Embeddings(adapter)
    return {
        "member": member,
        "graphs": list(graphs),
        "outputs": module.names,
        "offsets": None if adapter.window.in_seconds else offsets(adapter),
    }


def offsets(adapter: Adapter) -> list[int]:
    """How many frame numbers from its centre each frame of a window is, in a video whose frames count 1, 2, 3."""
    window = adapter.window
    step = 1 if window.step is None else window.step
    return [(place - window.frames // 2) * step for place in range(window.frames)]
