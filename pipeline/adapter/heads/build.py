"""Making a head by its name."""

import inspect
from typing import Any

from pipeline.adapter.heads import HEADS
from pipeline.adapter.heads.common import Head
from pipeline.core.choices import build
from pipeline.core.params import UserError, one_of

# Arguments that every head may be given, and ignores where its constructor does not name them.
_FOR_ALL = ("num_features", "embedding_size", "dropout", "grid")


def build_head(
    name: str, num_features: int, embedding_size: int | None = None, dropout: float | None = None,
    grid: int | None = None, **options: Any,
) -> Head:  # fmt: skip
    """The named head; it gets those of the arguments that its constructor names, and None is its own default.

    ``embedding_size``, ``dropout`` and ``grid`` (cells a side that the features are of) are for every head, and one
    that has none ignores them; ``options`` it must name.
    Raises ``UserError`` for an unknown name or option, a missing argument and a value out of range.
    """
    one_of("head", name, HEADS)
    known = [key for key in inspect.signature(HEADS[name]).parameters if key not in _FOR_ALL]
    for key in options:
        one_of(f"head '{name}': option", key, known)
    if embedding_size is not None and embedding_size < 1:
        raise UserError(f"head '{name}': embedding_size must be at least 1, and is {embedding_size}")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"head '{name}': dropout must be in [0, 1), and is {dropout}")
    given = dict(zip(_FOR_ALL, (num_features, embedding_size, dropout, grid), strict=True))
    return build("head", HEADS, name, options | given)
