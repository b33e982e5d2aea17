"""What a reader of a data set gives back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.core.clips import Clips
from pipeline.core.tables import Frames, Labels


@dataclass(frozen=True)
class Dataset:
    """The tables; ``report`` is what only the reader can tell, as JSON values that do not change between runs.

    A data set that labels ``clips`` gives the labels of its frames only where it has such labels beside: ``readers``
    puts the label of a clip on the frames of all others.

    ``multi_task`` are the labels of multi-task lists that lie beside files by video. ``skipped`` counts what should
    have been read and could not be (malformed lines, unreadable folders), not what is no part of the data set (stray
    files).
    """

    frames: Frames
    labels: Labels
    report: dict[str, Any]
    skipped: int
    multi_task: Labels | None = None
    clips: Clips | None = None


def counted(items: Iterable[str], most: int = 20) -> dict[str, Any]:
    """``{"count": how many, "first": the first ``most``}``, in the order given."""
    items = list(items)
    return {"count": len(items), "first": items[:most]}
