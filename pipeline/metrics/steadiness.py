"""How steady embeddings and predictions are from one frame to the next."""

import numpy as np

from pipeline.metrics.grouped import Measure, Weights, of_means, squared, summed
from pipeline.metrics.vectors import cosines, normalised


def neighbours(video: np.ndarray, frame: np.ndarray, step: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of all pairs of frames that are ``step`` apart in one video; rows are sorted by (video, frame).

    A ``step`` (n,) is that of each row's video.
    """
    stretch = int(np.ptp(frame) + np.max(step)) + 1 if len(frame) else 1  # of numbers for each video: one key does
    key = np.asarray(video, dtype=np.int64) * stretch + frame
    second = np.searchsorted(key, key + step)
    first = np.flatnonzero(key[np.minimum(second, len(key) - 1)] == key + step)
    return first, second[first]


def steadiness(
    embeddings: np.ndarray,
    labels: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    step: int | np.ndarray,
    groups: np.ndarray,
) -> Measure:
    """Measures how alike the embeddings of neighbouring frames of one label are (n rows, sorted by video and frame).

    ``cosine_neighbours`` says nothing by itself (a random network has 0.998): ``cosine_strangers`` is the mean cosine
    of all pairs of different videos, and ``steadiness`` is (neighbours - strangers) / (1 - strangers): 1 when
    neighbours are the same point, 0 when they are no nearer than strangers. ``cosine_same_video`` is that of a frame
    and another of its video, mean over frames; ``steadiness_in_video`` has it in the place of strangers. NaN where
    there are no such pairs, and where those compared with are the same point.

    ``groups`` (n,) hold whole videos. Two copies of a group are no strangers to each other.
    """
    z, rows = normalised(embeddings), np.arange(len(video))
    num_groups = int(groups.max(initial=-1)) + 1
    first, second = neighbours(video, frame, step)
    constant = labels[first] == labels[second]
    first, second = first[constant], second[constant]
    near = _totals(num_groups, groups[first], cosines(z, first, second), np.ones(len(first)))

    starts = np.flatnonzero(np.diff(video, prepend=-1))
    size, owner = np.diff(np.append(starts, len(video))).astype(np.float64), groups[starts]
    of_video = _sums(z, starts)
    pairs_of_video = np.square(of_video).sum(1)  # the cosines of all ordered pairs of a video, own ones too
    itself = np.bincount(np.repeat(np.arange(len(starts)), size.astype(int)), cosines(z, rows, rows), len(starts))
    long = size > 1
    within = _totals(num_groups, owner[long], (pairs_of_video - itself)[long] / (size[long] - 1), size[long])
    total = np.zeros((num_groups, z.shape[1] + 1))  # of rows, and in the last column how many
    np.add.at(total, owner, np.column_stack([of_video, size]))
    inside = _totals(num_groups, owner, pairs_of_video, np.square(size))  # pairs inside a video
    # All pairs of groups, each with each but not with a copy of itself; and those of two videos inside a group.
    own = np.stack([np.square(total[:, :-1]).sum(1), np.square(total[:, -1])], axis=1)
    by_group = np.column_stack([near, within, own - inside])

    def measure(weights: Weights) -> dict[str, np.ndarray]:
        sums, drawn = summed(weights, by_group), summed(weights, total)
        cosine, pairs, *same = sums[:, :4].T
        apart = np.stack([np.square(drawn[:, :-1]).sum(1), np.square(drawn[:, -1])], axis=1)
        apart = apart - summed(squared(weights), own) + sums[:, 4:]
        with np.errstate(invalid="ignore", divide="ignore"):
            near_mean, same_mean = cosine / pairs, same[0] / same[1]
            far = np.where(apart[:, 1] > 0.5, apart[:, 0] / apart[:, 1], np.nan)
            return {
                "cosine_neighbours": near_mean,
                "cosine_strangers": far,
                "cosine_same_video": same_mean,
                "steadiness": _nearer(near_mean, far),
                "steadiness_in_video": _nearer(near_mean, same_mean),
            }

    return measure


def flips(
    labels: np.ndarray,
    predicted: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    step: int | np.ndarray,
    groups: np.ndarray,
) -> Measure:
    """Measures ``flips_per_100``: how often the prediction changes between 100 pairs of neighbours of one label."""
    first, second = neighbours(video, frame, step)
    constant = labels[first] == labels[second]
    first, second = first[constant], second[constant]
    flipped = {"flips_per_100": 100.0 * (predicted[first] != predicted[second])}
    return of_means(flipped, groups[first], int(groups.max(initial=-1)) + 1)


def lateness(
    labels: np.ndarray,
    predicted: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    step: int | np.ndarray,
    groups: np.ndarray,
) -> Measure:
    """Measures ``switches_missed``, the share of true changes that the prediction never follows, and ``frames_late``.

    ``frames_late`` is the mean over the changes that it follows, in frame numbers; see ``switches``. Read it beside
    ``switches_missed``: who never switches is never late. NaN where there are no changes.
    """
    change = switches(predicted, labels, video, frame, step)
    values = {"frames_late": change["late"], "switches_missed": np.isnan(change["late"]).astype(np.float64)}
    return of_means(values, groups[change["row"]], int(groups.max(initial=-1)) + 1)


def _nearer(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    return np.where(far < 1 - 1e-6, (near - far) / (1 - far), np.nan)


def _sums(z: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums (V, E) float64 of the rows of each video."""
    ends = np.append(starts, len(z))[1:]
    return np.array([z[a:b].sum(0, dtype=np.float64) for a, b in zip(starts, ends, strict=True)]).reshape(
        -1, z.shape[1]
    )


def _totals(num_groups: int, owner: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums (G, 2) of values and of counts by their owner."""
    return np.stack([np.bincount(owner, x, num_groups) for x in (values, counts)], axis=1)


def switches(
    predicted: np.ndarray, labels: np.ndarray, video: np.ndarray, frame: np.ndarray, step: int | np.ndarray
) -> dict[str, np.ndarray]:
    """The true changes of label between neighbouring frames, and when the prediction went along; K of them.

    ``row`` (K,) is the first row of the new label. Its segment goes on to the next row of another label or video, over
    gaps. ``late`` is how many frame numbers after the change the prediction is first the new label, up to the end of
    the segment; 0 where it is already, NaN where it never is. ``early``, where late is 0, is how many frame numbers it
    had been by then without a break, back to the start of the segment before at most; else NaN. ``step`` is the spacing
    of neighbours, of all videos or (n,) of each row's: a change across a gap is none, since nobody knows when it was.
    """
    rows, step = np.arange(len(labels)), np.broadcast_to(step, len(labels))
    change = np.flatnonzero((np.diff(labels) != 0) & (np.diff(video) == 0) & (np.diff(frame) == step[1:])) + 1
    borders = np.flatnonzero((np.diff(labels) != 0) | (np.diff(video) != 0)) + 1
    borders = np.concatenate([[0], borders, [len(labels)]])
    place = np.searchsorted(borders, change)
    start, end = borders[place - 1], borders[np.minimum(place + 1, len(borders) - 1)]

    right = predicted == labels
    following = np.minimum.accumulate(np.where(right, rows, len(rows))[::-1])[::-1]  # first right row from here on
    caught = following[change] < end
    late = np.where(caught, frame[np.where(caught, following[change], change)] - frame[change], np.nan)
    run = np.maximum.accumulate(np.where(np.diff(predicted, prepend=-1) != 0, rows, 0))  # where this prediction began
    early = np.where(late == 0, frame[change] - frame[np.maximum(run[change], start)], np.nan)
    return {"row": change, "late": late, "early": early}
