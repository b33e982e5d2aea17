"""Making a head, loss or sampler by its name."""

import inspect
from collections.abc import Mapping
from typing import Any

from pipeline.params import UserError, one_of


def build(kind: str, choices: Mapping[str, type], name: str, available: Mapping[str, Any]) -> Any:
    """``choices[name]`` with those of ``available`` that its constructor names; None is the constructor's own default.

    Raises ``UserError``, which names kind and choice, for an unknown name, an argument that is missing, and a
    ``ValueError`` of the constructor.
    """
    chosen = choices[one_of(kind, name, choices)]
    parameters = inspect.signature(chosen).parameters
    given = {key: value for key, value in available.items() if key in parameters and value is not None}
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        raise UserError(f"{kind} '{name}' needs {', '.join(missing)}")
    try:
        return chosen(**given)
    except ValueError as error:
        raise UserError(f"{kind} '{name}': {error}") from None
