"""Pictures of frames: small ones, and two side by side with the weights of their places over them."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.core.colours import WEIGHTS
from pipeline.core.tables import read_frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 96  # pixels
RIGHT, WRONG = "#0072B2", "#D55E00"
ACROSS = 2  # pairs in a line
DPI = 150


def thumbnail(path: Path, longest: int = LONGEST) -> np.ndarray | None:
    """The image (H, W, 3) uint8 RGB, its longer side ``longest`` pixels; None where it cannot be read."""
    try:
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # no such file; an empty or too large one
        return None
    if image is None:
        return None
    scale = longest / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)[..., ::-1]


def pictures_of(table: Path | None) -> Callable[[str, int], np.ndarray | None]:
    """The ``thumbnail`` of a frame by video and frame number, by a frame table; None for those that are not there."""
    if table is None:
        return lambda video, frame: None
    frames = read_frames(table)

    @cache
    def of_video(video: str) -> dict[int, str]:
        own = frames.table[frames.table["video"] == video]
        return dict(zip(own["frame"], own["path"], strict=True))

    def picture(video: str, frame: int) -> np.ndarray | None:
        own = of_video(video).get(frame)
        return None if own is None else thumbnail(frames.root / own)

    return picture


def pair_figure(
    pictures: Sequence[tuple[np.ndarray, np.ndarray]], within: np.ndarray, weights: np.ndarray, logits: np.ndarray,
    same: np.ndarray, title: str,
) -> "Figure":  # fmt: skip
    """P pairs of ``pictures`` (h, w, 3) uint8, each with what its places count for as colours over it.

    ``weights`` (P, 2, G, G) of a picture sum to 1: white is the mean, red more, blue less. They are of the middle of
    the picture, of which ``within`` (P, 2, 2) gives the share of its height and width; beyond 1 there was a border.
    ``logits`` (P,) and ``same`` (P,) are what the head says and what is true.
    """
    from matplotlib.cm import ScalarMappable  # here: a run draws when it is over, and may never get there
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
    from matplotlib.figure import Figure

    times = weights * weights.shape[-1] * weights.shape[-2]
    colours = LinearSegmentedColormap.from_list("weights", WEIGHTS)
    norm = TwoSlopeNorm(1, 0, max(2.0, float(times.max())))
    lines = -(-len(logits) // ACROSS)
    figure = Figure(figsize=(3.4 * ACROSS, 1.1 + 1.95 * lines), dpi=DPI, layout="constrained")
    figure.suptitle(title.replace("$", r"\$"), fontsize=9)
    above, below = figure.subfigures(2, 1, height_ratios=[1.95 * lines, 0.6])
    blocks = above.subfigures(lines, ACROSS, squeeze=False)
    for number in range(len(logits)):
        block = blocks.flat[number]
        colour = RIGHT if (logits[number] >= 0) == same[number] else WRONG
        block.suptitle(pair_words(float(logits[number]), bool(same[number])), fontsize=8, color=colour)
        for axis, picture, share, of in zip(
            block.subplots(1, 2), pictures[number], within[number], times[number], strict=True
        ):
            height, width = picture.shape[:2]
            axis.imshow(picture, extent=(-width / 2, width / 2, height / 2, -height / 2))
            far = share / 2 * (height, width)
            axis.imshow(
                of, extent=(-far[1], far[1], far[0], -far[0]), cmap=colours, norm=norm, alpha=0.5,
                interpolation="nearest",
            )  # fmt: skip
            most = np.maximum(far, (height / 2, width / 2))
            axis.set_xlim(-most[1], most[1])
            axis.set_ylim(most[0], -most[0])
            axis.set_axis_off()
    mappable = ScalarMappable(norm, colours)
    bar = below.colorbar(mappable, cax=below.add_axes((0.25, 0.6, 0.5, 0.15)), orientation="horizontal", alpha=0.5)
    bar.set_label("weight of a place, times the mean", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def pair_words(logit: float, same: bool) -> str:
    """What a head says of a pair, and what is true: 'wrong: same, taken for different', and by which logit."""
    said, truth = ("same" if is_same else "different" for is_same in (logit >= 0, same))
    probability = 1 / (1 + np.exp(-logit))
    judged = f"right: {truth}" if said == truth else f"wrong: {truth}, taken for {said}"
    return f"{judged}\nprobability of same {probability:.3f}, logit {logit:.1f}"
