"""Where a head for pairs looks: some pairs of a part, with what each place of both pictures counts for."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.adapter.adapter import Adapter, Source
from pipeline.adapter.windows import Windows
from pipeline.core.frame_set import PARTS, FrameSet

SHOWN = 4  # wrong pairs, and right ones
UNNAMED = 40  # frames that are paired where the label table names no pairs

Picture = Callable[[str, int], np.ndarray | None]


@dataclass(frozen=True)
class PairsSeen:
    """P pairs of frames: names (video, frame, class code), what the head says, and the weights of the places.

    ``weights`` (P, 2, G, G) sum to 1 in each frame. ``logits`` (P,) are those of the windows around the frames, and
    ``same`` (P,) is what is true. ``way``, ``share`` and ``middle`` say which part of a picture the backbone was given.
    """

    frames: list[tuple[tuple[str, int, int], tuple[str, int, int]]]
    weights: np.ndarray
    logits: np.ndarray
    same: np.ndarray
    way: str = "squash"
    share: float = 1.0
    middle: float = 1.0

    def within(self, height: int, width: int) -> tuple[float, float]:
        """The share of the height and of the width of a picture, around its middle, that the places are of.

        It is above 1 where the picture got a border.
        """
        if self.way == "squash":
            both = self.share, self.share
        else:
            side = self.share * (min if self.way == "crop" else max)(height, width)
            both = side / height, side / width
        return both[0] * self.middle, both[1] * self.middle

    def readable(self, picture: Picture) -> tuple["PairsSeen", list[tuple[np.ndarray, np.ndarray]]]:
        """The pairs of which both pictures are there, and these; ``picture`` is asked by video and frame."""
        found = [tuple(picture(video, frame) for video, frame, _ in pair) for pair in self.frames]
        kept = [number for number, pair in enumerate(found) if all(image is not None for image in pair)]
        seen = replace(
            self, frames=[self.frames[k] for k in kept], weights=self.weights[kept], logits=self.logits[kept],
            same=self.same[kept],
        )  # fmt: skip
        return seen, [found[k] for k in kept]

    def left_out(self, kept: "PairsSeen") -> str:
        """The line that says how many pairs are not among ``kept``, which ``readable`` gave; nothing of none."""
        number = len(self.frames) - len(kept.frames)
        of = f"{number} of {len(self.frames)} pairs"
        return f"attention: {of} are not drawn, as their pictures cannot be read" if number else ""

    def within_each(self, pictures: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """``within`` of each picture: (P, 2, 2)."""
        return np.array([[self.within(*image.shape[:2]) for image in pair] for pair in pictures]).reshape(-1, 2, 2)


def weighs_places(head: nn.Module) -> bool:
    """Whether a head counts the places of a picture, as pair_gate on a grid does."""
    return hasattr(head, "place_weights") and head.grid > 1


def place_weights(adapter: Adapter, inputs: torch.Tensor) -> np.ndarray | None:
    """What each place counts for in frames (n, K), where the head weighs them (pair_gate on a grid).

    (n, G, G), row by row; the sum of a frame is 1. None for other heads and without a grid.
    """
    head = adapter.head
    if not weighs_places(head):
        return None
    with torch.inference_mode():
        return head.place_weights(inputs).unflatten(-1, (head.grid, head.grid)).cpu().numpy()


def pairs_seen(adapter: Adapter, source: Source, windows: Windows, frames: FrameSet, part: str) -> PairsSeen | None:
    """The pairs of a part that are most surely wrong, and some that are right, as many same as different.

    They are those that the label table names, else some of two groups. None where the head weighs no places, and where
    there are no pairs.
    """
    if not weighs_places(adapter.head):
        return None
    pairs, same = frames.pairs_of(part) if len(frames.pairs) else _of_two_groups(frames, part)
    if not len(pairs):
        return None
    device = next(adapter.head.parameters()).device
    left, right = (torch.from_numpy(windows.centred(rows)).to(device) for rows in pairs.T)
    logits = adapter.compare(source, left, right).float().cpu().numpy()
    chosen = chosen_pairs(logits, same)
    pairs = pairs[chosen]
    weights = place_weights(adapter, source.take(torch.from_numpy(pairs.ravel()).to(device)))
    names = [
        tuple((frames.videos[frames.video[row]], int(frames.frame[row]), int(frames.label[row])) for row in pair)
        for pair in pairs
    ]
    weights = weights.reshape(len(pairs), 2, *weights.shape[1:])
    return PairsSeen(names, weights, logits[chosen], same[chosen], **_fit(adapter.facts["made_by"]))


def chosen_pairs(logits: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Which pairs are shown: the ``SHOWN`` most surely wrong ones, then evenly spaced right ones of both kinds."""
    right = (logits >= 0) == same
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-np.abs(logits[wrong]), kind="stable")][:SHOWN]
    some = [_evenly(np.flatnonzero(right & (same == kind)), SHOWN // 2) for kind in (True, False)]
    return np.concatenate([worst, *some])


def _evenly(numbers: np.ndarray, most: int) -> np.ndarray:
    return numbers[np.linspace(0, len(numbers) - 1, min(len(numbers), most)).round().astype(np.int64)]


def _of_two_groups(frames: FrameSet, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P, 2) of two groups among evenly spaced labelled frames of a part, and whether each is the same."""
    rows = np.flatnonzero((frames.part == PARTS.index(part)) & (frames.label >= 0))
    rows = _evenly(rows, UNNAMED)
    first, second = (rows[of] for of in np.triu_indices(len(rows), k=1))
    apart = frames.group[first] != frames.group[second]
    pairs = np.stack([first[apart], second[apart]], axis=1)
    return pairs, frames.label[pairs[:, 0]] == frames.label[pairs[:, 1]]


def _fit(made_by: dict[str, Any]) -> dict[str, Any]:
    """How the pictures of a store became square, by what the store says."""
    way, share = made_by.get("fit", "squash 1").split()
    middle = re.fullmatch(r".*, middle (\S+)", made_by["crop_source"])
    return {"way": way, "share": float(share), "middle": float(middle[1]) if middle else 1.0}
