"""What is looked at while a run trains: evenly spaced frames, or clips, of a part, through the adapter as it is.

The numbers are those that the catalogue of metrics shows on TensorBoard, by the functions that evaluation uses, on what
is watched alone. After each epoch it is only the one that the best epoch is chosen by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from pipeline.adapter.adapter import Adapter, Source
from pipeline.adapter.clips import OfClips, OfWindows, embed_clips
from pipeline.core.frame_set import FrameSet
from pipeline.core.tables import IDENTITY_SETS
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.identification import identity_counts
from pipeline.metrics.pair_cosines import pair_cosines, pairs_by_kind
from pipeline.metrics.probes import linear_probe
from pipeline.metrics.retrieval import knn_votes
from pipeline.metrics.vectors import evenly, normalised, of_people
from pipeline.metrics.verification import ListedScores

PICTURES = 8  # of a person, at most
NEIGHBOURS = 20  # that vote, as in an evaluation that is asked for no other number
COLLAPSED = 0.1  # a spread below this; wherever the mean cosine of two embeddings is above 0.99, it is
MOST_PAIRS = 4000  # of each kind, whose logits a head for pairs is asked for

# The catalogue's sources of what is looked at.
_OF_COSINES = ("embeddings", "pairs", "pairs_with_named", "named_pairs")
_OF_PAIR_HEADS = ("pair_head", "pair_head_with_named", "pair_head_named")
_SOURCES = (
    "identification",
    *_OF_COSINES,
    *_OF_PAIR_HEADS,
    "classes",
    "clips",
    "va_embeddings",
    "va",
    "aus",
    "mtl",
    "outputs",
)


def watched_frames(frames: FrameSet, part: str, most: int) -> np.ndarray:
    """About ``most`` evenly spaced centres (n,) of a part; where its labels name pairs, whole pairs.

    Of people a few pictures each, and of a part with query people as many of these as of distractors.
    """
    if frames.identity_set is not None:
        centres = frames.centres(part)
        sets = frames.identity_set[centres]
        of_sets = [centres[sets == code] for code in range(len(IDENTITY_SETS)) if (sets == code).any()] or [centres]
        of = [c[of_people(frames.label[c], most // len(of_sets), PICTURES)] for c in of_sets]
        return np.sort(np.concatenate(of))
    pairs, _ = frames.pairs_of(part)
    if len(pairs):
        return np.unique(pairs[evenly(len(pairs), most // 2)])
    centres = frames.centres(part)
    return centres[evenly(len(centres), most)]


@dataclass
class Watched:
    """Evenly spaced frames or clips of one part, and their windows.

    ``centres`` (n,) are rows of the frame set, ``rows`` (n, T) those of their windows. Of clips there are several
    windows each: ``rows`` (W, T), and ``clip`` (W,) says which of ``centres`` each is of.
    """

    frames: FrameSet
    centres: np.ndarray
    rows: torch.Tensor
    opposites: Sequence[tuple[int, int]]
    clip: torch.Tensor | None = None

    def look(
        self, adapter: Adapter, source: Source
    ) -> tuple[dict[str, float], dict[str, np.ndarray], OfWindows | OfClips]:
        """Metrics, the cosines of same, different and opposite pairs, and what the adapter makes of ``centres``.

        A metric without labels, without predictions or without a value is left out. Pairs are those of two groups, as
        neighbouring frames of a video are twins; the cosines have those that the label table names as well.
        """
        made = self.made(adapter, source)
        cosines = self._cosines(made.embeddings)
        inputs = {name: self._input(name, adapter, source, made, cosines) for name in _SOURCES}
        numbers = METRICS.numbers({name: arrays for name, arrays in inputs.items() if arrays}, "board")
        return numbers, cosines | self._cosines_with_named(made.embeddings, cosines), made

    def made(self, adapter: Adapter, source: Source) -> OfWindows | OfClips:
        """What the adapter makes of ``centres``."""
        if self.clip is None:
            return OfWindows(adapter, adapter.embed(source, self.rows))
        return embed_clips(adapter, source, self.rows, self.clip)

    def told(self, of: OfWindows | OfClips, by: "Watched", of_these: OfWindows | OfClips) -> dict[str, float]:
        """How well nearest neighbours, and a linear probe, tell the classes of ``of``, which ``made`` gave.

        Both know what ``by`` made of its own, ``of_these``, and the labels of these. Nothing where either has none.
        """
        if not (len(self._labelled) and len(by._labelled)):
            return {}
        known, labels = of_these.embeddings.cpu().numpy()[by._labelled], by._label[by._labelled]
        asked, classes = of.embeddings.cpu().numpy()[self._labelled], self.frames.classes
        votes = knn_votes(known, labels, asked, NEIGHBOURS, len(classes))
        groups = np.zeros(len(asked), dtype=np.int64)
        truth = {"labels": self._label[self._labelled], "groups": groups, "classes": classes}
        predicted = {"knn": votes.argmax(1), "probe": linear_probe(known, labels, asked)}
        return METRICS.numbers({name: truth | {"predicted": value} for name, value in predicted.items()}, "board")

    def select(self, adapter: Adapter, source: Source, name: str) -> float:
        """One metric of those that a best epoch can be chosen by, as ``look`` has it; NaN where it has none."""
        of = METRICS.shown("select")[name].of
        made = self.made(adapter, source)
        cosines = self._cosines(made.embeddings) if of in _OF_COSINES else {}
        arrays = self._input(of, adapter, source, made, cosines)
        return METRICS.numbers({of: arrays}, "select").get(name, float("nan")) if arrays else float("nan")

    def _input(
        self, name: str, adapter: Adapter, source: Source, made: OfWindows | OfClips, cosines: dict[str, np.ndarray]
    ) -> dict[str, Any] | None:
        """The arrays of one source of the catalogue; None where there are no labels or no predictions for it."""
        if (self.frames.identity_set is not None) != (name == "identification"):
            return None
        if name == "identification":
            return self._of_people(made.embeddings)
        if name in _OF_COSINES:
            return self._of_cosines(name, made.embeddings, cosines) if len(self._labelled) else None
        if name in _OF_PAIR_HEADS:
            return self._of_pair_head(name, adapter, source) if adapter.head.pairs and len(self._labelled) else None
        return self._of_predictions(name, adapter, made)

    def _of_people(self, embeddings: torch.Tensor) -> dict[str, Any] | None:
        """What identification is measured of; where no query people were drawn, as in training, all are queries."""
        query = self.frames.identity_set[self.centres] == IDENTITY_SETS.index("query")
        people = np.unique(self._label, return_inverse=True)[1]
        counts = identity_counts(embeddings.cpu().numpy(), people, query if query.any() else ~query)
        return None if counts is None else {"counts": counts, "groups": people}

    def _of_cosines(self, name: str, embeddings: torch.Tensor, cosines: dict[str, np.ndarray]) -> dict[str, Any] | None:
        if name == "embeddings":
            z, labels = embeddings.cpu().numpy()[self._labelled], self._label[self._labelled]
            classes = {"num_classes": len(self.frames.classes), "opposites": self.opposites}
            return {"embeddings": z, "labels": labels, "groups": self._group[self._labelled]} | classes
        if name == "pairs":
            return _listed(cosines)
        if not len(self.frames.pairs):
            return None
        if name == "pairs_with_named":
            return _listed(self._cosines_with_named(embeddings, cosines))
        named, same = self._named_cosines(embeddings)
        if not len(named):
            return None
        every = {"same": named[same], "different": named[~same]}
        if same.all() or not same.any():  # then those of two groups are among them
            every = self._cosines_with_named(embeddings, cosines)
        return {"same_scores": every["same"], "different_scores": every["different"], "groups": np.arange(2)}

    def _of_pair_head(self, name: str, adapter: Adapter, source: Source) -> dict[str, Any] | None:
        """What is measured of the logits of a head for pairs."""
        pairs, same = self._pairs_of_groups
        if name == "pair_head":
            return _listed(self._logits_by_kind(adapter, source, pairs, same))
        if not len(self.frames.pairs):
            return None
        named, named_same = self._named_pairs
        if name == "pair_head_with_named":
            every, every_same = np.concatenate([named, pairs]), np.concatenate([named_same, same])
            return _listed(self._logits_by_kind(adapter, source, every, every_same))
        if not named_same.any() or named_same.all():
            return None
        logits = self._logits(adapter, source, named)
        return {"logits": logits, "same": named_same, "groups": np.zeros(len(named), dtype=np.int64)}

    def _of_predictions(self, name: str, adapter: Adapter, made: OfWindows | OfClips) -> dict[str, Any] | None:
        """The adapter's predictions, and embeddings against valence and arousal."""
        frames, predicts = self.frames, adapter.predicts
        va, aus = frames.va[self.centres], frames.aus[self.centres]
        together = np.zeros(len(self.centres), dtype=np.int64)  # nothing is resampled here: all frames are one group
        known = np.isfinite(va).all(axis=1)
        if name == "clips" and self.clip is None:
            return None
        if name in ("classes", "clips") and len(self._labelled) and "classes" in predicts:
            predicted = made.predict("classes").argmax(1).cpu().numpy()
            return {"labels": self._label, "predicted": predicted, "groups": together, "classes": frames.classes}
        if name == "va_embeddings" and known.any():
            z = made.embeddings.cpu().numpy()[known]
            return {"embeddings": z, "truth": va[known], "groups": self._group[known]}
        if name == "va" and known.any() and "va" in predicts:
            return {"truth": va, "predicted": made.predict("va").cpu().numpy(), "groups": together}
        if name == "aus" and aus.shape[1] and "aus" in predicts:
            return {"truth": aus, "groups": together, **self._units(adapter, made)}
        if name == "mtl" and {"classes", "va", "aus"} <= {*predicts}:
            if not (len(self._labelled) and known.any() and np.isfinite(aus).any()):
                return None
            classes = {"labels": self._label, "classes": frames.classes, "groups": together}
            classes["predicted"] = made.predict("classes").argmax(1).cpu().numpy()
            of_va = {"va_truth": va, "va_predicted": made.predict("va").cpu().numpy()}
            return classes | of_va | {"au_truth": aus, **self._units(adapter, made)}
        if name == "outputs" and "outputs" in predicts:
            truth, predicted = frames.outputs[self.centres], made.predict("outputs").cpu().numpy()
            return {"truth": truth, "predicted": predicted, "groups": together, "outputs": frames.output_names}
        return None

    def _units(self, adapter: Adapter, made: OfWindows | OfClips) -> dict[str, Any]:
        """Probabilities (n, A) of action units, their names and thresholds."""
        return {
            "probabilities": expit(made.predict("aus").cpu().numpy().astype(np.float64)),
            "units": self.frames.au_names,
            "thresholds": adapter.au_thresholds.cpu().numpy(),
        }

    def _cosines(self, embeddings: torch.Tensor) -> dict[str, np.ndarray]:
        """The cosines of pairs of two groups, by kind; empty where no frame has an expression."""
        if not len(self._labelled):
            return {}
        return pair_cosines(embeddings.cpu().numpy()[self._labelled], self._kinds)

    def _cosines_with_named(self, embeddings: torch.Tensor, cosines: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same, and those of the pairs that the label table names."""
        if not cosines or not len(self.frames.pairs):
            return cosines
        named, same = self._named_cosines(embeddings)
        more = {"same": named[same], "different": named[~same]}
        return cosines | {kind: np.concatenate([cosines[kind], values]) for kind, values in more.items()}

    def _named_cosines(self, embeddings: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The cosines (p,) of the pairs that the label table names, and whether each is the same."""
        named, same = self._named_pairs
        left, right = (normalised(embeddings.cpu().numpy()[named[:, side]]) for side in (0, 1))
        return (left * right).sum(axis=1), same

    @cached_property
    def _label(self) -> np.ndarray:
        return self.frames.label[self.centres]

    @cached_property
    def _group(self) -> np.ndarray:
        return self.frames.group[self.centres]

    @cached_property
    def _labelled(self) -> np.ndarray:
        """Which of ``centres`` have an expression."""
        return np.flatnonzero(self._label >= 0)

    @cached_property
    def _kinds(self) -> dict[str, np.ndarray]:
        """The pairs of the labelled frames: found once, since labels and groups never change."""
        apart = (
            self._group[self._labelled] if self.frames.identity_set is None else self._labelled
        )  # a person is a group
        return pairs_by_kind(self._label[self._labelled], apart, self.opposites)

    @cached_property
    def _pairs_of_groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (P, 2) of labelled ``centres`` from two groups, and whether each is the same."""
        first, second = np.triu_indices(len(self._label), k=1)
        apart = (self._group[first] != self._group[second]) & (self._label[first] >= 0) & (self._label[second] >= 0)
        pairs = np.stack([first[apart], second[apart]], axis=1)
        return pairs, self._label[pairs[:, 0]] == self._label[pairs[:, 1]]

    @cached_property
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
        return {"same": logits[:count], "different": logits[count:]}

    def _logits(self, adapter: Adapter, source: Source, pairs: np.ndarray) -> np.ndarray:
        if not len(pairs):
            return np.zeros(0, dtype=np.float32)
        return adapter.compare(source, self.rows[pairs[:, 0]], self.rows[pairs[:, 1]]).cpu().numpy()


def spread(embeddings: torch.Tensor) -> float:
    """How evenly ``embeddings`` (n, E) point into all directions: about 1 at most, 0 where all point the same way.

    The mean over columns of the deviation of embeddings of length one, times the root of E: Chen and He 2021, section
    4.1, https://arxiv.org/abs/2011.10566. NaN of none.
    """
    if not len(embeddings):
        return float("nan")
    return float(normalised(embeddings.cpu().numpy()).std(axis=0).mean() * embeddings.shape[1] ** 0.5)


def _listed(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of pairs as the catalogue's functions take them; all pairs count as those of two groups."""
    return {"counts": ListedScores(scores["same"], scores["different"]), "groups": np.arange(2)}
