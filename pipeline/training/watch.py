"""What is looked at after each epoch: evenly spaced frames of a part, through the adapter as it is.

The numbers are those that the catalogue of metrics shows on TensorBoard, by the functions that evaluation uses, on the
watched frames alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from pipeline.adapter.adapter import Adapter, Source
from pipeline.core.frame_set import FrameSet
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.pair_cosines import pair_cosines
from pipeline.metrics.vectors import evenly, normalised
from pipeline.metrics.verification import exact_counts

MOST_PAIRS = 4000  # of each kind, whose logits a head for pairs is asked for

Inputs = dict[str, dict[str, Any]]  # of the catalogue's functions, by source


def watched_frames(frames: FrameSet, part: str, most: int) -> np.ndarray:
    """About ``most`` evenly spaced labelled frames (n,) of a part; where its labels name pairs, whole pairs."""
    pairs, _ = frames.pairs_of(part)
    if len(pairs):
        return np.unique(pairs[evenly(len(pairs), most // 2)])
    centres = frames.centres(part)
    return centres[evenly(len(centres), most)]


@dataclass
class Watched:
    """Evenly spaced frames of one part, and their windows.

    ``centres`` (n,) are rows of the frame set, ``rows`` (n, T) those of their windows.
    """

    frames: FrameSet
    centres: np.ndarray
    rows: torch.Tensor
    opposites: Sequence[tuple[int, int]]

    def look(self, adapter: Adapter, source: Source) -> tuple[dict[str, float], dict[str, np.ndarray], torch.Tensor]:
        """Metrics, the cosines of same, different and opposite pairs, and the embeddings (n, E).

        A metric without labels, without predictions or without a value is left out. Pairs are those of two groups, as
        neighbouring frames of a video are twins; the cosines have those that the label table names as well.
        """
        embeddings = adapter.embed(source, self.rows)
        z, label = embeddings.cpu().numpy(), self.frames.label[self.centres]
        inputs: Inputs = {}
        cosines: dict[str, np.ndarray] = {}
        if (label >= 0).any():
            cosines = self._add_pairs(inputs, z)
            if adapter.head.pairs:
                self._add_logits_of_pairs(inputs, adapter, source)
        self._add_predictions(inputs, adapter, embeddings)
        return METRICS.numbers(inputs, "board"), cosines, embeddings

    def predicted(self, adapter: Adapter, what: str, embeddings: torch.Tensor) -> np.ndarray:
        """What the adapter predicts of the embeddings: logits (n, C) or (n, A), or values (n, 2)."""
        with torch.inference_mode():
            return adapter.predict(what, embeddings).cpu().numpy()

    def _add_pairs(self, inputs: Inputs, z: np.ndarray) -> dict[str, np.ndarray]:
        """Adds what is measured of the embeddings (n, E) of pairs, and gives the cosines."""
        frames = self.frames
        rows = np.flatnonzero(frames.label[self.centres] >= 0)
        labels, groups = frames.label[self.centres[rows]], frames.group[self.centres[rows]]
        classes = {"num_classes": len(frames.classes), "opposites": self.opposites}
        inputs["embeddings"] = {"embeddings": z[rows], "labels": labels, "groups": groups} | classes
        cosines = pair_cosines(z[rows], labels, groups, self.opposites, most=len(rows))
        inputs["pairs"] = _counted(cosines)
        if not len(frames.pairs):
            return cosines
        named, same = self._named_pairs()
        left, right = (normalised(z[named[:, side]]) for side in (0, 1))
        cosine = (left * right).sum(axis=1)
        for kind, of_named in (("same", cosine[same]), ("different", cosine[~same])):
            cosines[kind] = np.concatenate([cosines[kind], of_named])
        inputs["pairs_with_named"] = _counted(cosines)
        if len(named):
            both = same.any() and not same.all()  # else those of two groups are among them
            kinds = (cosine[same], cosine[~same]) if both else (cosines["same"], cosines["different"])
            inputs["named_pairs"] = dict(zip(("same_scores", "different_scores"), kinds, strict=True))
            inputs["named_pairs"]["groups"] = np.arange(2)
        return cosines

    def _add_logits_of_pairs(self, inputs: Inputs, adapter: Adapter, source: Source) -> None:
        """Adds what is measured of the logits of a head for pairs."""
        label, group = self.frames.label[self.centres], self.frames.group[self.centres]
        first, second = np.triu_indices(len(label), k=1)
        apart = (group[first] != group[second]) & (label[first] >= 0) & (label[second] >= 0)
        pairs = np.stack([first[apart], second[apart]], axis=1)
        same = label[pairs[:, 0]] == label[pairs[:, 1]]
        inputs["pair_head"] = _counted(self._logits_by_kind(adapter, source, pairs, same))
        if not len(self.frames.pairs):
            return
        named, named_same = self._named_pairs()
        every, every_same = np.concatenate([named, pairs]), np.concatenate([named_same, same])
        inputs["pair_head_with_named"] = _counted(self._logits_by_kind(adapter, source, every, every_same))
        if named_same.any() and not named_same.all():
            logits, groups = self._logits(adapter, source, named), np.zeros(len(named), dtype=np.int64)
            inputs["pair_head_named"] = {"logits": logits, "same": named_same, "groups": groups}

    def _add_predictions(self, inputs: Inputs, adapter: Adapter, embeddings: torch.Tensor) -> None:
        """Adds what is measured of the adapter's predictions, and of embeddings against valence and arousal."""
        frames, predicts = self.frames, adapter.predicts
        label, va, aus = frames.label[self.centres], frames.va[self.centres], frames.aus[self.centres]
        together = np.zeros(len(label), dtype=np.int64)  # nothing is resampled here: all frames are one group
        if (label >= 0).any() and "classes" in predicts:
            predicted = self.predicted(adapter, "classes", embeddings).argmax(1)
            inputs["classes"] = {"labels": label, "predicted": predicted, "groups": together, "classes": frames.classes}
        if (known := np.isfinite(va).all(axis=1)).any():
            z, group = embeddings.cpu().numpy(), frames.group[self.centres]
            inputs["va_embeddings"] = {"embeddings": z[known], "truth": va[known], "groups": group[known]}
            if "va" in predicts:
                predicted = self.predicted(adapter, "va", embeddings)
                inputs["va"] = {"truth": va, "predicted": predicted, "groups": together}
        if aus.shape[1] and "aus" in predicts:
            probabilities = expit(self.predicted(adapter, "aus", embeddings).astype(np.float64))
            inputs["aus"] = {"truth": aus, "probabilities": probabilities, "groups": together, "units": frames.au_names}

    def _named_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (p, 2) that the label table names, as numbers into ``centres``, and whether each is the same."""
        there = np.isin(self.frames.pairs, self.centres).all(axis=1)
        return np.searchsorted(self.centres, self.frames.pairs[there]), self.frames.same[there]

    def _logits_by_kind(
        self, adapter: Adapter, source: Source, pairs: np.ndarray, same: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The head's logits of as many same as different ``pairs`` (P, 2), evenly spaced ones of each kind."""
        kinds = pairs[same], pairs[~same]
        count = min(MOST_PAIRS, *map(len, kinds))
        chosen = np.concatenate([kind[evenly(len(kind), count)] for kind in kinds])
        logits = self._logits(adapter, source, chosen)
        return {"same": logits[:count], "different": logits[count:], "opposite": logits[:0]}

    def _logits(self, adapter: Adapter, source: Source, pairs: np.ndarray) -> np.ndarray:
        if not len(pairs):
            return np.zeros(0, dtype=np.float32)
        return adapter.compare(source, self.rows[pairs[:, 0]], self.rows[pairs[:, 1]]).cpu().numpy()


def _counted(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of pairs as the catalogue's functions take them; all pairs count as those of two groups."""
    return {"counts": exact_counts(scores), "groups": np.arange(2)}
