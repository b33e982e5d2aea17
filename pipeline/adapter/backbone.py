"""What the frozen backbone itself predicts: its stored outputs, known by their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.emotions import partners
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores

VA = ("valence", "arousal")


@dataclass(frozen=True)
class BackboneOutputs:
    """Which of a backbone's outputs are classes, valence and arousal, or action units of a run.

    ``names`` are those of the outputs (K,). ``place`` (K,) are the run's classes that they stand for, None for every
    other output. ``va`` are the two places of valence and arousal, empty unless both are there. ``units`` are the
    places of the run's action units, None where a unit has no output.
    """

    names: Sequence[str]
    place: Sequence[int | None]
    va: Sequence[int]
    units: Sequence[int | None]
    num_classes: int

    @property
    def has(self) -> list[str]:
        """What the outputs predict: some of 'classes' (two of them at least), 'va' and 'aus'."""
        there = {
            "classes": len(self._known) >= 2,
            "va": len(self.va) == 2,
            "aus": any(unit is not None for unit in self.units),
        }
        return [what for what, is_there in there.items() if is_there]

    @property
    def _known(self) -> list[int]:
        return [k for k, c in enumerate(self.place) if c is not None]

    @property
    def strangers(self) -> list[int]:
        """Outputs that are classes of the backbone alone, such as contempt where the run has no such class."""
        return [
            k
            for k, name in enumerate(self.names)
            if self.place[k] is None and name.lower() not in VA and not re.fullmatch(r"au\d+", name.lower())
        ]

    @property
    def known_classes(self) -> np.ndarray:
        """Which of the run's classes (C,) have an output."""
        return np.isin(np.arange(self.num_classes), [self.place[k] for k in self._known])

    def of(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """What the outputs (n, K) predict, and what it takes to combine that with an adapter's predictions.

        'classes' (n, C) with 'sure' (n,) and 'known' (C,), 'va' (n, 2), 'aus' (n, A): what there is of these. A row of
        NaN is one of NaN.
        """
        found = {}
        if "classes" in self.has:
            found |= {"classes": self.classes(values), "sure": self.sureness(values), "known": self.known_classes}
        if "va" in self.has:
            found["va"] = self.valence_arousal(values)
        if "aus" in self.has:
            found["aus"] = self.action_units(values)
        return found

    def classes(self, values: np.ndarray) -> np.ndarray:
        """Probabilities (n, C) of outputs (n, K), over those that are classes of the run; 0 of a class without one."""
        return _shares(values, self._known, self.place, self.num_classes)

    def sureness(self, values: np.ndarray) -> np.ndarray:
        """The backbone's own probability (n,) of its class, over all its classes; 0 where that is none of the run's."""
        known, strangers = self._known, self.strangers
        place = [*self.place]
        for number, k in enumerate(strangers):
            place[k] = self.num_classes + number
        shares = _shares(values, [*known, *strangers], place, self.num_classes + len(strangers))
        best = shares.argmax(1)
        return np.where(best < self.num_classes, shares[np.arange(len(shares)), best], 0)

    def valence_arousal(self, values: np.ndarray) -> np.ndarray:
        """Valence and arousal (n, 2), as they come."""
        return values[:, self.va].astype(np.float64)

    def action_units(self, values: np.ndarray) -> np.ndarray:
        """Probabilities (n, A) of outputs that are logits; NaN of a unit without one."""
        found = np.full((len(values), len(self.units)), np.nan)
        for unit, k in enumerate(self.units):
            if k is not None:
                found[:, unit] = 1 / (1 + np.exp(-values[:, k].astype(np.float64)))
        return found


def outputs_by_name(names: Sequence[str], classes: Sequence[str], au_names: Sequence[str]) -> BackboneOutputs:
    """``names`` are those of the backbone's outputs. Case does not matter, and an emotion may have another word."""
    column = {name.lower(): k for k, name in enumerate(names)}
    va = [column[name] for name in VA] if set(VA) <= set(column) else []
    units = [column.get(name.lower()) for name in au_names]
    return BackboneOutputs(names, partners(names, classes), va, units, len(classes))


def stored_logits(store: FeatureStore | Stores, rows: np.ndarray) -> np.ndarray:
    """Logits (n, K) float64 of rows (n,); NaN where of several stores the one that has logits lacks a row."""
    values = store.read(rows, "logits").astype(np.float64)
    if isinstance(store, Stores):
        values[~store.has_logits(rows)] = np.nan
    return values


def outputs_of_store(store: FeatureStore | Stores, classes: Sequence[str], au_names: Sequence[str]) -> BackboneOutputs:
    """Those of the backbone that made the store; none where the store has no logits."""
    names = (store.made_by.get("outputs") or []) if "logits" in store.widths else []
    return outputs_by_name(names, classes, au_names)


def _shares(values: np.ndarray, columns: Sequence[int], place: Sequence[int | None], num: int) -> np.ndarray:
    """The softmax of some columns of logits (n, K), summed (n, num) by their places."""
    chosen = values[:, columns].astype(np.float64)
    e = np.exp(chosen - chosen.max(1, keepdims=True))
    found = np.zeros((len(e), num))
    np.add.at(found.T, [place[k] for k in columns], e.T)
    return found / found.sum(1, keepdims=True)
