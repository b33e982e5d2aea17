"""Which groups and videos something was fitted on, so that it is never scored on them, whatever the labels say later.

Kept are hashes of the names, 64 bits each, sorted: 100,000 videos are 0.8 MB, and no name of a person is in the file. A
name that was not seen passes for one that was with a chance of (number seen) / 2^64; of 100,000 asked against 100,000
seen any one does with a chance of 5e-10.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.params import UserError

FIRST = 3  # names in a message
# What a part is to a run that has seen it.
USES = {
    "train": "was trained on",
    "select": "chose its best epoch on",
    "start": "started from a run that was trained on",
    "projection": "uses a projection that was fitted on",
    "backbone": "uses a backbone that was trained on",
    "fitted": "was fitted on",
}


@dataclass(frozen=True, eq=False)
class Seen:
    """Hashes of the names of groups (G,) and of videos (V,), int64, sorted, each once."""

    groups: np.ndarray
    videos: np.ndarray

    @classmethod
    def of(cls, groups: Iterable[str], videos: Iterable[str]) -> "Seen":
        return cls(np.unique(hashes(groups)), np.unique(hashes(videos)))

    def known(self, groups: Sequence[str], videos: Sequence[str]) -> tuple[list[str], list[str]]:
        """Which of the groups, and which of the videos, were seen."""
        pairs = ((groups, self.groups), (videos, self.videos))
        there = [np.flatnonzero(np.isin(hashes(names), has)) for names, has in pairs]
        return [groups[i] for i in there[0]], [videos[i] for i in there[1]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Seen):
            return NotImplemented
        return np.array_equal(self.groups, other.groups) and np.array_equal(self.videos, other.videos)


def hashes(names: Iterable[str]) -> np.ndarray:
    """BLAKE2b of each name's UTF-8, its first 8 bytes as int64."""
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def to_arrays(seen: Mapping[str, Seen], prefix: str = "seen.") -> dict[str, np.ndarray]:
    """``seen`` by its parts as arrays by name, for a safetensors file."""
    return {f"{prefix}{part}.{of}": getattr(s, of) for part, s in seen.items() for of in ("groups", "videos")}


def from_arrays(arrays: Mapping[str, np.ndarray], prefix: str = "seen.") -> dict[str, Seen]:
    """What ``to_arrays`` was given, out of arrays among which there may be others."""
    parts = sorted({name.removeprefix(prefix).rsplit(".", 1)[0] for name in arrays if name.startswith(prefix)})
    return {part: Seen(*(np.asarray(arrays[f"{prefix}{part}.{of}"]) for of in ("groups", "videos"))) for part in parts}


def to_lists(seen: Mapping[str, Seen]) -> dict[str, dict[str, list[int]]]:
    """``seen`` by its parts as JSON takes it, for the facts of a file."""
    return {part: {"groups": s.groups.tolist(), "videos": s.videos.tolist()} for part, s in seen.items()}


def from_lists(lists: Mapping[str, Mapping[str, list[int]]]) -> dict[str, Seen]:
    """What ``to_lists`` was given."""
    return {part: Seen(*(np.array(of[name], np.int64) for name in ("groups", "videos"))) for part, of in lists.items()}


def joined(each: Sequence[Seen]) -> Seen:
    """What any of them has seen."""
    return Seen(*(np.unique(np.concatenate([getattr(s, of) for s in each])) for of in ("groups", "videos")))


def without(seen: Seen, other: Seen) -> Seen:
    """What ``seen`` has and ``other`` has not."""
    return Seen(*(np.setdiff1d(getattr(seen, of), getattr(other, of)) for of in ("groups", "videos")))


def refuse_seen(
    whose: str, seen: Mapping[str, Seen] | None, names: tuple[Sequence[str], Sequence[str]], part: str, way_out: str
) -> None:
    """Raises ``UserError`` where any of ``names``, groups and videos of a ``part``, was seen in one of ``USES``.

    Both are compared: a person may have got another name, and so may a video. ``seen`` None is not known, and refused.
    """
    if seen is None:
        raise UserError(f"{whose} does not say which videos it was made with, and may have seen any. {way_out}")
    groups, videos = names
    found = []
    for of, use in USES.items():
        of_groups, of_videos = seen[of].known(groups, videos) if of in seen else ([], [])
        counts = [f"{len(of_videos):,} of {len(videos):,} videos ({some(of_videos)})"] if of_videos else []
        counts += [f"{len(of_groups):,} of {len(groups):,} groups ({some(of_groups)})"] if of_groups else []
        if counts:
            found.append(f"it {use} {' and '.join(counts)}")
    if found:
        raise UserError(
            f"{whose} has seen what is the {part} part now: {', '.join(found)} of that part. The labels or their split "
            f"have changed since (or other persons have the same names). {way_out}"
        )


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - FIRST:,} more" if len(names) > FIRST else ""
    return ", ".join(map(str, names[:FIRST])) + more
