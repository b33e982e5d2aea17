"""Images through the frozen backbone as fast as the device goes, with the same numbers however it is done.

On a CUDA device the pass is compiled where the job is long, captured as one graph, and images are copied on a stream of
their own, beside the batch before. On a CPU a long job runs by ONNX Runtime, an image a core (``ByImage``), and a short
one by PyTorch, with batch norms folded into the convolutions (tf_efficientnet_b0, 224 pixels, 2 cores: 175 -> 205
images/s).

bfloat16 is not offered. Against float32 with tf_efficientnet_lite0 its least cosine over 200 photographs is 0.994 at
112 pixels and 0.996 at 224, mostly because of the first depthwise convolution; kept to the last three of seven stages
it is 0.9996 over 400, and then hardly faster than float32 compiled.
"""

import copy
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.extraction.backbones import Backbone
from pipeline.extraction.bounds import one_line
from pipeline.extraction.by_image import ByImage
from pipeline.extraction.frames import middle_of, resize_image, stacked
from pipeline.extraction.views import view_batch, view_image

PRECISIONS = {"float32": torch.float32, "float16": torch.float16}
# Compiling for CUDA takes up to a minute and makes a pass 5 to 20 % faster; going over to ONNX Runtime takes 2 seconds
# and makes it half as fast again: with 200 frames a second, earned back by then.
COMPILE_FROM, EXPORT_FROM = 100_000, 2_000
SAME_FUNCTION = 0.99999  # least cosine between two ways to compute one function in float32

Rows = dict[str, np.ndarray]  # array of the store -> (B, width) float16
Pending = Callable[[], Rows]  # waits for the rows of a batch that is under way, and gives them


class Forward:
    """Images (S, S, 3) and the names of their videos -> rows of every array of the store, in float16.

    The images are what ``resize_image`` gives.

    A row depends on its image alone, and not on its place, its neighbours or the number of threads. PyTorch gets
    batches that are padded to ``batch_size``, so that the last one is computed as all the others are. ONNX Runtime gets
    one image at a time.

    ``frames`` counts all frames of the job, also those already done. So a run that is resumed computes in the same way
    as the run before.
    """

    def __init__(
        self,
        backbone: Backbone,
        batch_size: int,
        precision: str,
        views: Sequence[str],
        device: torch.device,
        frames: int = 0,
    ) -> None:
        self.backbone, self.batch_size, self.device, self.views = backbone, batch_size, device, list(views)
        self.dtype, self.frames, self.on_cuda = PRECISIONS[precision], frames, device.type == "cuda"
        module = fold_batch_norms(backbone.module, backbone.input_size)
        self.module = module.to(device, self.dtype, memory_format=torch.channels_last)
        self.by_image: ByImage | None = None
        self.prepared = False
        self.share = 1.0  # of an image's height and width, which is cut out of its middle
        # Of a whole line of pixels (3 * S,), since over 3 numbers at a time nothing is vectorised.
        mean, std = (torch.tensor(values).repeat(backbone.input_size) for values in (backbone.mean, backbone.std))
        self.shift, self.scale = (-mean / std).to(device), (1 / (255 * std)).to(device)
        self.copying = torch.cuda.Stream(device) if self.on_cuda else None
        if self.on_cuda and self.dtype == torch.float32:
            torch.backends.cudnn.allow_tf32 = False
        if not self.on_cuda and self.dtype == torch.float16:
            print("float16 on a CPU is about 20 times slower than float32", file=sys.stderr)

    def prepare(self) -> None:
        """Chooses once how the backbone runs, see the top of this file. May make batches larger for many cores."""
        if self.prepared:
            return
        self.prepared = True
        if self.on_cuda:
            example = torch.zeros((self.batch_size, 3, self.backbone.input_size, self.backbone.input_size))
            example = example.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
            if self.frames >= COMPILE_FROM:
                self.module = compile_or_say_why_not(self.module, example)
            self.module = Captured(self.module, example)
        elif self.device.type == "cpu" and self.dtype == torch.float32 and self.frames >= EXPORT_FROM:
            self.by_image = self._by_image_or_say_why_not(torch.get_num_threads())
            if self.by_image:
                self.batch_size = max(self.batch_size, 4 * self.by_image.threads)  # none waits for a batch to end

    def __call__(self, images: Sequence[np.ndarray], videos: Sequence[str]) -> Rows:
        return self.start(images, videos)()

    def start(self, images: Sequence[np.ndarray], videos: Sequence[str]) -> Pending:
        """Starts a batch. With PyTorch on a CPU it is finished on return, otherwise it may still be running."""
        if self.by_image:
            return _gathered([self.by_image.submit(self._row, *one) for one in zip(images, videos, strict=True)])
        return self._start_batch(images, videos)

    def resize_image(self, image: np.ndarray) -> np.ndarray:
        """An image (H, W, 3) as the backbone takes it, (S, S, 3); for the threads that decode."""
        image = middle_of(image, self.share)
        return resize_image(image, self.backbone.input_size, self.backbone.interpolation, self.backbone.fit)

    def of_cut(self, share: float, backbone: Backbone) -> "Forward":
        """The same for the middle ``share`` of each image, fitted as ``backbone`` says; the module is this one's."""
        cut = copy.copy(self)
        cut.share, cut.backbone = share, backbone
        return cut

    def _row(self, image: np.ndarray, video: str) -> Rows:
        """(width,) of each array, for one image."""
        row = {}
        for name in self.views:
            features, *logits = self.by_image(view_image(image, video, name))
            row[name] = features
            if logits and name == "original":
                row["logits"] = logits[0]
        return row

    def _by_image_or_say_why_not(self, threads: int) -> ByImage | None:
        backbone, size = self.backbone, self.backbone.input_size
        try:
            by_image = ByImage(self.module, size, backbone.mean, backbone.std, threads)
            noise = torch.randint(0, 256, (2, size, size, 3), generator=torch.Generator().manual_seed(0))
            noise = noise.to(torch.uint8)
            other = [torch.from_numpy(np.stack(rows)) for rows in zip(*map(by_image, noise.numpy()), strict=True)]
            if _least_cosine(self._run(noise.permute(0, 3, 1, 2)), other) >= SAME_FUNCTION:
                return by_image
            why = "it gives other numbers"
        except Exception as error:  # whatever the exporter stumbles over: the run goes on without it
            why = one_line(error)
        print(f"the backbone does not run by ONNX Runtime, and is about a third slower: {why}", file=sys.stderr)
        return None

    @torch.inference_mode()
    def _start_batch(self, images: Sequence[np.ndarray], videos: Sequence[str]) -> Pending:
        pixels = self._pixels(images)
        features, logits = self._run(pixels)
        rows = {"original": features}
        if logits is not None:
            rows["logits"] = logits
        for name in self.views[1:]:
            source = pixels if name == "flipped" else pixels.cpu()
            rows[name] = self._run(view_batch(source, videos, name).to(self.device))[0]
        return self._send_back({name: row[: len(images)].half() for name, row in rows.items()})

    def _pixels(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """(batch_size, 3, S, S) uint8 on the device; black beyond the images."""
        with torch.cuda.stream(self.copying):  # does nothing for None
            pixels = stacked(images, self.device)
            if len(images) < self.batch_size:
                pixels = F.pad(pixels, (0, 0) * 3 + (0, self.batch_size - len(images)))
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        if self.copying is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self.copying)
            pixels.record_stream(now)
        return pixels

    @torch.inference_mode()
    def _run(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        lines = pixels.permute(0, 2, 3, 1).flatten(2).float()  # (B, S, 3 * S)
        x = torch.addcmul(self.shift, lines, self.scale).unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
        return self.module(x.to(self.dtype))

    def _send_back(self, rows: dict[str, torch.Tensor]) -> Pending:
        if not self.on_cuda:
            return lambda: {name: row.numpy() for name, row in rows.items()}
        here = {name: torch.empty(row.shape, dtype=row.dtype, pin_memory=True) for name, row in rows.items()}
        for name, row in rows.items():
            here[name].copy_(row, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))

        def wait() -> Rows:
            arrived.synchronize()
            return {name: row.numpy() for name, row in here.items()}

        return wait


def _gathered(tasks: list[Future[Rows]]) -> Pending:
    def wait() -> Rows:
        rows = [task.result() for task in tasks]
        with np.errstate(over="ignore"):  # what is too large is infinite, and is refused by name later
            return {name: np.stack([row[name] for row in rows]).astype(np.float16) for name in rows[0]}

    return wait


class Captured:
    """A module as one CUDA graph, for inputs of the shape of ``example``: launched at once, not kernel by kernel."""

    @torch.inference_mode()
    def __init__(self, module: Callable, example: torch.Tensor) -> None:
        self.input = example.clone(memory_format=torch.channels_last)
        warm_up = torch.cuda.Stream(example.device)
        warm_up.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(warm_up):
            for _ in range(3):
                module(self.input)
        torch.cuda.current_stream(example.device).wait_stream(warm_up)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = module(self.input)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.input.copy_(x)
        self.graph.replay()
        features, logits = self.outputs
        return features.clone(), None if logits is None else logits.clone()  # the next replay writes over them


@torch.no_grad()
def fold_batch_norms(module: nn.Module, input_size: int) -> nn.Module:
    """A copy of ``module`` in which each batch norm that takes what a convolution gives is part of that convolution.

    Who takes what is seen in a pass over noise. Layers that somebody listens to (forward hooks) stay as they are. Where
    the copy gives other numbers, because a convolution's output goes elsewhere too, it is a plain copy.
    """
    noise = torch.randn((2, 3, input_size, input_size), generator=torch.Generator().manual_seed(0))
    folded = copy.deepcopy(module)
    for norm, convolution in _convolutions_before_norms(folded, noise).items():
        layer = folded.get_submodule(norm)
        _fold(layer, folded.get_submodule(convolution))
        parent, _, name = norm.rpartition(".")
        setattr(folded.get_submodule(parent), name, getattr(layer, "act", nn.Identity()))
    return folded if _same(module, folded, noise) else copy.deepcopy(module)


def _convolutions_before_norms(module: nn.Module, images: torch.Tensor) -> dict[str, str]:
    """Batch norm -> the convolution whose output it takes, by name."""
    made: list[tuple[torch.Tensor, str]] = []
    pairs: dict[str, str] = {}

    def gave(name: str) -> Callable:
        return lambda layer, inputs, output: made.append((output, name))

    def took(name: str) -> Callable:
        return lambda layer, inputs: pairs.update((name, conv) for output, conv in made if output is inputs[0])

    hooks = []
    for name, layer in module.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            continue
        if isinstance(layer, nn.Conv2d):
            hooks.append(layer.register_forward_hook(gave(name)))
        elif isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None and layer.affine:
            hooks.append(layer.register_forward_pre_hook(took(name)))
    module(images)
    for hook in hooks:
        hook.remove()
    return pairs


def _fold(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = 0 if convolution.bias is None else convolution.bias.double()
    bias = (bias - norm.running_mean.double()) * gain + norm.bias.double()
    weight = convolution.weight.double() * gain.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(weight.float(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.float(), requires_grad=False)


def compile_or_say_why_not(module: nn.Module, example: torch.Tensor) -> Callable:
    """``module`` compiled for inputs like ``example``, or itself and a line on stderr."""
    print("compiling the backbone: takes up to a minute", file=sys.stderr)
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return _not_compiled(module, f"there is no C++ compiler '{compiler}'")
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    noise = noise.to(example).contiguous(memory_format=torch.channels_last)
    try:
        compiled = torch.compile(module, dynamic=False, options={"freezing": True})
        if not _same(module, compiled, noise):
            return _not_compiled(module, "it gives other numbers")
    except Exception as error:  # whatever the compiler stumbles over: the run goes on without it
        return _not_compiled(module, one_line(error))
    return compiled


def _not_compiled(module: nn.Module, why: str) -> nn.Module:
    print(f"the backbone is not compiled, and 5 to 20 % slower: {why}", file=sys.stderr)
    return module


@torch.inference_mode()
def _same(module: Callable, other: Callable, images: torch.Tensor) -> bool:
    least = SAME_FUNCTION if images.dtype == torch.float32 else 0.9995
    return _least_cosine(module(images), other(images)) >= least


def _least_cosine(outputs: Sequence[torch.Tensor | None], others: Sequence[torch.Tensor | None]) -> float:
    """Over all rows of all outputs; those that are None are left out."""
    some, more = ([x.float() for x in given if x is not None] for given in (outputs, others))
    return min(F.cosine_similarity(a, b).min().item() for a, b in zip(some, more, strict=True))
