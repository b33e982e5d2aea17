"""From which probability on an action unit is called active."""

import numpy as np

DEFAULT = 0.5  # of a unit about which the labels say nothing
# Of evaluation and predict: the threshold of all units, or null.
HELP = "probability from which an action unit counts as active; default: the run's own of each unit, else 0.5"


def best_thresholds(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The thresholds (U,) by which the F1 of each unit is the largest, of (n, U); NaN in the truth is left out.

    Active is predicted at or above a threshold. It lies half way between the least probability that is called active
    and the next smaller one, or 0. Of several equal F1 the one whose threshold is nearest to 0.5 counts. Edge: a unit
    that is never active in the truth keeps 0.5, since each threshold gives it an F1 of 0.
    """
    return np.array([_best(*of_unit) for of_unit in zip(truth.T, probabilities.T, strict=True)])


def in_words(fitted: list[dict[str, int] | None], fixed: float | None) -> str:
    """From which probability on action units are called active; ``fitted`` is ``thresholds_of`` of each network."""
    if fixed is not None:
        return f"of {fixed:g}, fixed for all units"
    known = [each for each in fitted if each]
    if not known:
        return f"of {DEFAULT:g} for all units"
    frames, groups = (sum(each[what] for each in known) / len(known) for what in ("frames", "groups"))
    folds = max(each["folds"] for each in known)
    words = (
        f"of its own for each unit, fitted on {frames:,.0f} training frames of {groups:,.0f} groups in {folds} folds"
    )
    return words if len(known) == len(fitted) else f"{words}; of {DEFAULT:g} in {len(fitted) - len(known)} networks"


def _best(truth: np.ndarray, probability: np.ndarray) -> float:
    known = ~np.isnan(truth)
    active, probability = truth[known] > 0.5, probability[known]
    if not active.any():
        return DEFAULT
    values, place = np.unique(-probability, return_inverse=True)  # the largest first
    values = -values
    hits = np.cumsum(np.bincount(place, active))
    called = np.cumsum(np.bincount(place))
    f1 = 2 * hits / (called + active.sum())
    thresholds = (values + np.append(values[1:], 0)) / 2
    best = np.flatnonzero(f1 == f1.max())
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - DEFAULT))]])
