"""A trained run for anybody's video: ``from pipeline.embed import Embedder, similarity``; see docs/embed.md."""

from importlib import import_module
from typing import Any

_PLACES = {
    "Embedder": "pipeline.embed.embedder",
    "similarity": "pipeline.embed.compare",
    "by_person": "pipeline.embed.compare",
    "by_clip": "pipeline.embed.compare",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: ``python -m pipeline.embed --help`` shall not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
