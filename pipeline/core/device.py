"""The device to compute on."""

import ctypes
import sys

import torch

from pipeline.core.params import UserError


def pick_device(name: str) -> torch.device:
    """'auto' is CUDA where there is one, else the CPU; raises ``UserError`` for a device that cannot be used here."""
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        _keep_freed_memory()
    return device


def _keep_freed_memory() -> None:
    """Lets glibc keep what a layer frees for the next one; other C libraries are left as they are.

    By default a large tensor goes back to the system when it is freed, and the next one is cleared page by page: half
    of the CPU time of a forward pass (tf_efficientnet_lite0, 224 pixels, 2 cores: 81 images/s so, 171 with this).
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 256 << 20)
