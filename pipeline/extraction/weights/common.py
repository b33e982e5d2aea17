"""What the modules of this package share: tensors by name, and errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.core.params import UserError
from pipeline.extraction.bounds import one_line

Tensors = dict[str, torch.Tensor]
Layers = dict[str, dict[str, Any]]  # layer -> its stride, padding, eps, ...
RATIO = 4  # a file of weights is not compressed; a storage may stand under two names


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Names the file in every error that its content gives rise to: a damaged one may break a decoder anywhere."""
    try:
        yield
    except UserError as error:
        raise UserError(f"weights: {name}: {' '.join(str(error).split())}") from error  # names in it may be anything
    except Exception as error:
        raise UserError(f"weights: {name} is damaged or not a file of weights: {one_line(error)}") from error


def fault(what: str, names: list[str]) -> list[str]:
    """One line on the first three names that have a fault, or none where no name has it."""
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]
