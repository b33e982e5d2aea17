"""Predictions made steady in time, by video and frame number, and biases that weigh classes against each other.

A *width* is an odd number of frames, such as 101, or seconds, such as '3.4s'. Seconds need ``fps``: a number, or
a table (.csv, else Parquet; faces.parquet is one) whose columns ``video`` and ``fps`` say it for each video.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.params import UserError, one_of
from pipeline.core.rates import FPS, check_rate, seconds

SMOOTHINGS = ("none", "box", "gaussian", "hann", "median")
MOST_AT_ONCE = 2**24  # numbers that are smoothed at a time, 134 MB


def check_width(what: str, width: int | str, fps: float | Path | None) -> None:
    """Raises ``UserError``, which begins with ``what``, for what is no width, and for seconds without ``fps``."""
    if isinstance(width, str):
        if seconds(width) is None:
            raise UserError(f"{what} must be an odd number of frames, or seconds such as 3.4s, and is '{width}'")
        if fps is None:
            raise UserError(f"{what} is {width}, and seconds need fps: {FPS}")
    elif width < 1 or width % 2 == 0:
        raise UserError(f"{what} must be odd and at least 1, so that its middle is a frame, and is {width}")
    check_rate(fps)


def in_frames(width: int | str, fps: np.ndarray | None) -> int | np.ndarray:
    """A width in frame numbers; of seconds one (n,) for each ``fps`` (n,).

    As many as lie up to half of the seconds before and behind a frame, and it: an odd number. 1 where fps is NaN.
    """
    if not isinstance(width, str):
        return width
    half = np.floor(seconds(width) * fps / 2 + 1e-6)  # 0.2 s * 30 are 6 frames, not 5.999...
    return 2 * np.nan_to_num(half).astype(np.int64) + 1


def worded(width: int | str) -> str:
    return width if isinstance(width, str) else f"{width} frames"


def smooth(values: np.ndarray, video: np.ndarray, frame: np.ndarray, kind: str, width: int | np.ndarray) -> np.ndarray:
    """Values (n, C) smoothed over the frames of their video that lie up to ``width`` // 2 numbers away, float64.

    Rows are sorted by (video, frame), ``video`` (n,) are codes; a ``width`` (n,) is one for each video. 'box' is the
    mean and 'median' the median of each column of what is there; 'gaussian' the mean with weights of deviation
    sqrt((width² - 1) / 12), that of a box of this width, cut off at 4 deviations; 'hann' that with the weights of an
    adapter's pooling of this name, which fall off to both ends of the width. A missing frame has no weight, and
    neither has what would lie beyond an end of the video: windows shrink there. Medians of probabilities need not sum
    to 1. Width 1 and 'none' change nothing.

    Raises ``UserError`` for an unknown kind or a width that is no odd number, ``ValueError`` for rows out of order.
    """
    one_of("smoothing", kind, SMOOTHINGS)
    if isinstance(width, np.ndarray):
        out = np.empty(values.shape)
        for each in np.unique(width):
            rows = width == each
            out[rows] = smooth(values[rows], video[rows], frame[rows], kind, int(each))
        return out
    if width < 1 or width % 2 == 0:
        raise UserError(f"the width of a smoothing must be odd, so that its middle is a frame, and is {width}")
    values = values.astype(np.float64)
    if kind == "none" or width == 1 or len(values) == 0:
        return values
    deviation = np.sqrt((width**2 - 1) / 12)
    half = {"gaussian": int(4 * deviation), "hann": width // 2 + 1}.get(kind, width // 2)  # Hann's ends are zeros
    _check_order(video, frame)
    begins = np.diff(video, prepend=-1) != 0
    several = np.flatnonzero(~(begins & np.append(begins[1:], True)))  # a frame alone in its video stays as it is
    if len(several) == 0:
        return values
    place = _apart(video[several], frame[several], half)
    options = {"window": 2 * half + 1, "center": True, "min_periods": 1}
    more = {"std": deviation} if kind == "gaussian" else {}
    columns = max(1, MOST_AT_ONCE // (place[-1] + 1))
    for start in range(0, values.shape[1], columns):
        some = slice(start, start + columns)
        axis = np.full((place[-1] + 1, values[:, some].shape[1]), np.nan)
        axis[place] = values[several, some]
        if kind in ("gaussian", "hann"):
            smoothed = pd.DataFrame(axis).rolling(win_type=kind, **options).mean(**more)
        else:
            rolling = pd.DataFrame(axis).rolling(**options)
            smoothed = rolling.median() if kind == "median" else rolling.mean()
        values[several, some] = smoothed.to_numpy()[place]
    return values


def changes(video: np.ndarray, frame: np.ndarray, kind: str, width: int | np.ndarray) -> bool:
    """Whether ``smooth`` can change anything: whether a frame has another of its video within its width.

    It has none in a data set of single pictures. Arguments as for ``smooth``.
    """
    if kind == "none":
        return False
    width = np.broadcast_to(width, len(video))
    half = (4 * np.sqrt((width**2 - 1) / 12)).astype(np.int64) if kind == "gaussian" else width // 2
    return bool(((np.diff(video) == 0) & (np.diff(frame) <= half[1:])).any())


def _apart(video: np.ndarray, frame: np.ndarray, margin: int) -> np.ndarray:
    """Places (n,) on one axis for all videos: frame numbers keep their distances, videos are ``margin`` apart."""
    step = np.where(np.diff(video) != 0, margin + 1, np.diff(frame))
    return np.concatenate([[0], np.cumsum(step)])


def _check_order(video: np.ndarray, frame: np.ndarray) -> None:
    if (np.diff(video) < 0).any() or ((np.diff(video) == 0) & (np.diff(frame) < 1)).any():
        raise ValueError("smoothing needs rows sorted by (video, frame), each key once")


def fit_class_bias(
    scores: np.ndarray, truth: np.ndarray, most: int = 100_000, most_rounds: int = 20
) -> tuple[np.ndarray, float]:
    """Biases (C,) for which argmax(scores + bias) has the greatest macro-F1, and that macro-F1; to be fitted on train.

    ``scores`` (n, C) are logits or log-probabilities; the mean is over the classes that ``truth`` (n,) has. One class
    after the other is moved to its best value among all there are, the middle of the widest stretch of those; rounds go
    on until none gains. A local optimum, the same every time. Starting from none, it is never worse than no bias on
    the rows it saw: at most ``most`` evenly spaced ones. A class that truth lacks is not moved; the mean is 0. Raises
    ``ValueError`` without rows.
    """
    if len(truth) == 0:
        raise ValueError("class biases need frames with a label to be fitted on, and there are none")
    rows = np.arange(len(truth)) if len(truth) <= most else np.linspace(0, len(truth) - 1, most).round().astype(int)
    scores, truth = scores[rows].astype(np.float64), truth[rows]
    bias = np.zeros(scores.shape[1])
    present = np.unique(truth)
    best = _macro_f1((scores + bias).argmax(1), truth, len(bias), present)
    for _ in range(most_rounds):
        before = best
        for c in present:
            bias[c], best = _best_value(scores + bias, truth, c, present, best, bias[c])
        if best <= before + 1e-12:
            break
    return bias - bias.mean(), best


def log_of(probabilities: np.ndarray) -> np.ndarray:
    """Their logarithms; of 0 that of 1e-12."""
    return np.log(np.maximum(probabilities, 1e-12))


def with_bias(probabilities: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) with biases (C,) added to their logits."""
    weighted = np.exp(log_of(probabilities) + bias)
    return weighted / weighted.sum(1, keepdims=True)


def _macro_f1(predicted: np.ndarray, truth: np.ndarray, num_classes: int, present: np.ndarray) -> float:
    true, positive = np.bincount(truth, minlength=num_classes), np.bincount(predicted, minlength=num_classes)
    hits = np.bincount(truth[predicted == truth], minlength=num_classes)
    return float((2 * hits[present] / (true + positive)[present]).mean())


def _best_value(
    scores: np.ndarray, truth: np.ndarray, c: int, present: np.ndarray, now: float, bias: float
) -> tuple[float, float]:
    """The bias of class c with the greatest macro-F1, others held, and that; ``bias``, ``now`` where none is greater.

    As the bias grows, rows go over to class c one by one, in the order of what they lack: after each step the counts of
    hits and predictions of all classes are known from running sums.
    """
    num_classes = scores.shape[1]
    rest = scores.copy()
    rest[:, c] = -np.inf
    loser = rest.argmax(1)
    lacking = rest[np.arange(len(rest)), loser] - scores[:, c]
    order = np.argsort(lacking, kind="stable")
    lacking, loser, truth = lacking[order], loser[order], truth[order]

    true = np.bincount(truth, minlength=num_classes)
    f1 = np.zeros(len(order) + 1)  # after the first 0, 1, ..., n rows went over
    for k in present:
        if k == c:
            positive, hits = np.arange(len(order) + 1), _running(truth == c)
        else:
            lost, lost_hits = _running(loser == k), _running((loser == k) & (truth == k))
            positive, hits = lost[-1] - lost, lost_hits[-1] - lost_hits
        f1 += 2 * hits / (true[k] + positive)
    f1 /= len(present)

    low, high = np.append(lacking[0] - 2, lacking), np.append(lacking, lacking[-1] + 2)
    width = high - low  # of the stretch of values at which just so many went over
    f1[width < 1e-9] = -1
    top = f1.max()
    if top <= now + 1e-12:
        return bias, now
    widest = np.flatnonzero(f1 >= top - 1e-12)[width[f1 >= top - 1e-12].argmax()]
    return bias + (low[widest] + high[widest]) / 2, float(top)


def _running(mask: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(mask)])
