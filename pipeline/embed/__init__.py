"""A trained run for anybody's video: ``from pipeline.embed import Embedder, similarity``; see docs/embed.md."""

from typing import Any

__all__ = ["Embedder", "by_clip", "by_person", "similarity"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for, so that ``python -m pipeline.embed --help`` does not wait for torch."""
    if name == "Embedder":
        from pipeline.embed.embedder import Embedder

        return Embedder
    if name in __all__:
        from pipeline.embed import compare

        return getattr(compare, name)
    raise AttributeError(f"module '{__name__}' has no '{name}'")
