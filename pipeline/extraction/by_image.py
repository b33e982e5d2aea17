"""A backbone on the cores of a CPU, an image a core, by ONNX Runtime.

What that buys (2 cores with AVX-512, float32): tf_efficientnet_b0 at 224 pixels 310 images/s, where PyTorch gives 205
in batches of 16 and 217 compiled; of ten timm models none was slower. A core that works on one image of its own
keeps it in its cache, and waits for no other core at the end of each layer.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

onnxruntime.disable_telemetry_events()  # on Windows it tells its maker what it does


class ByImage:
    """(S, S, 3) uint8 -> the outputs of ``module``, (D,) float32 each, by so many ``threads`` at a time.

    ``module`` takes (B, 3, S, S) images that are normalised by ``mean`` and ``std`` (of RGB in [0, 1]), and gives a
    tuple of (B, D) tensors, or None for one that it has not. Whatever the exporter or the runtime stumbles over is
    raised as it is.
    """

    def __init__(
        self, module: nn.Module, input_size: int, mean: tuple[float, ...], std: tuple[float, ...], threads: int
    ) -> None:
        example = torch.zeros((1, input_size, input_size, 3), dtype=torch.uint8)
        graph = exported(OfBytes(module, mean, std), (example,)).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.threads = threads
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="forward")

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        return [output[0] for output in self._session.run(None, {self._name: np.ascontiguousarray(image)[None]})]

    def submit(self, work: Callable, *args: Any) -> Future:
        """Does ``work(*args)``, which calls this, in one of the threads."""
        return self._pool.submit(work, *args)


class OfBytes(nn.Module):
    """``module`` behind the normalisation, for (B, S, S, 3) uint8; without the outputs that are None."""

    def __init__(self, module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)  # the exporter gives it other dictionaries than its hooks write to
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("scale", 1 / (255 * std))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.module(images.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return tuple(output for output in outputs if output is not None)


def exported(module: nn.Module, examples: tuple[torch.Tensor, ...], **names: Any) -> onnx.ModelProto:
    """``module`` as a graph; ``names`` are input_names, output_names and dynamic_shapes of ``torch.onnx.export``."""
    with _quiet():
        program = torch.onnx.export(module.eval(), examples, dynamo=True, verbose=False, external_data=False, **names)
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks to those who develop it."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
