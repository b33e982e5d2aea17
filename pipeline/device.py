"""The device to compute on."""

import torch

from pipeline.params import UserError


def pick_device(name: str) -> torch.device:
    """'auto' is CUDA where there is one, else the CPU; raises ``UserError`` for a device that cannot be used here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from None
    return device
