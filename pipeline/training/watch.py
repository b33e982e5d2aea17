"""What is looked at after each epoch: evenly spaced frames of a part, through the adapter as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score

from pipeline.adapter.adapter import Adapter, Source
from pipeline.core.frame_set import FrameSet
from pipeline.metrics.protocol import au_scores, expression_scores, va_scores
from pipeline.metrics.separation import evenly, normalised, pair_cosines, separation

MOST_PAIRS = 4000  # of each kind, that a head for pairs is asked about


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
        """Scores, the cosines of same, different and opposite pairs, and the embeddings (n, E).

        A score whose labels or predictions there are not is left out. ``pair_f1`` is that of a head for pairs, which
        says "the same" above a logit of 0; of another head, where the label table names pairs, that of the best
        threshold on their cosines. Pairs inside a group are left out, as neighbouring frames are twins, but for
        those that the label table names.
        """
        embeddings = adapter.embed(source, self.rows)
        scores, cosines = {}, {}
        label, group = self.frames.label[self.centres], self.frames.group[self.centres]
        has = label >= 0
        if has.any():
            z = embeddings.cpu().numpy()[has]
            cosines = pair_cosines(z, label[has], group[has], self.opposites, most=len(z))
            pairs, same = self._own_pairs()
            if len(pairs):
                left, right = (normalised(embeddings.cpu().numpy()[pairs[:, side]]) for side in (0, 1))
                cosine = (left * right).sum(axis=1)
                for kind, own in (("same", cosine[same]), ("different", cosine[~same])):
                    cosines[kind] = np.concatenate([cosines[kind], own])
            found = separation(cosines)
            scores = {k: found[k] for k in ("cosine_same", "cosine_different", "cosine_opposite", "auc_same_different")}
            if adapter.head.pairs:
                scores |= self._scores_of_pairs(adapter, source)
            elif len(pairs):
                named = same.any() and not same.all()
                both = (cosine[same], cosine[~same]) if named else (cosines["same"], cosines["different"])
                scores["pair_f1"] = best_f1(*both)
            if "classes" in adapter.loss.predictors:
                predicted = self.predicted(adapter, "classes", embeddings).argmax(1)
                scores["macro_f1"] = expression_scores(label, predicted, self.frames.classes)["macro_f1"]
        va, aus = self.frames.va[self.centres], self.frames.aus[self.centres]
        if (known := np.isfinite(va).all(axis=1)).any():
            z, values = embeddings.cpu().numpy()[known], va[known]
            scores["rank_correlation_va"] = rank_correlation(z, values, group[known])
            if "va" in adapter.loss.predictors:
                scores["ccc"] = va_scores(va, self.predicted(adapter, "va", embeddings))["ccc"]
        if aus.shape[1] and "aus" in adapter.loss.predictors:
            logits = self.predicted(adapter, "aus", embeddings)
            scores["au_f1"] = au_scores(aus, logits, self.frames.au_names, threshold=0.0)["au_f1"]
        return {k: v for k, v in scores.items() if np.isfinite(v)}, cosines, embeddings

    def predicted(self, adapter: Adapter, what: str, embeddings: torch.Tensor) -> np.ndarray:
        """What the loss that predicts ``what`` makes of the embeddings: logits (n, C) or (n, A), or values (n, 2)."""
        with torch.inference_mode():
            return adapter.loss.predict(what, embeddings).cpu().numpy()

    def _own_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (p, 2) that the label table names, as numbers into ``centres``, and whether each is the same."""
        there = np.isin(self.frames.pairs, self.centres).all(axis=1)
        return np.searchsorted(self.centres, self.frames.pairs[there]), self.frames.same[there]

    def _scores_of_pairs(self, adapter: Adapter, source: Source) -> dict[str, float]:
        """AUC same/different and F1 of the head's own logits, each over as many same as different pairs.

        The AUC is that of pairs of two groups and of the label table's own, the F1 that of the table's own alone where
        it names same and different ones.
        """
        label, group = self.frames.label[self.centres], self.frames.group[self.centres]
        first, second = np.triu_indices(len(label), k=1)
        apart = (group[first] != group[second]) & (label[first] >= 0) & (label[second] >= 0)
        own, own_same = self._own_pairs()
        pairs = np.concatenate([own, np.stack([first[apart], second[apart]], axis=1)])
        same = np.concatenate([own_same, label[first[apart]] == label[second[apart]]])
        truth, logits = self._asked(adapter, source, pairs, same)
        if not len(truth):
            return {"auc_same_different": float("nan")}
        auc = float(roc_auc_score(truth, logits))
        if own_same.any() and not own_same.all():
            truth, logits = self._asked(adapter, source, own, own_same)
        return {"auc_same_different": auc, "pair_f1": float(f1_score(truth, logits > 0))}

    def _asked(
        self, adapter: Adapter, source: Source, pairs: np.ndarray, same: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The truth (p,) and the head's logits (p,) of as many same as different ``pairs`` (P, 2), evenly spaced."""
        kinds = pairs[same], pairs[~same]
        count = min(MOST_PAIRS, *map(len, kinds))
        if not count:
            return np.zeros(0, dtype=bool), np.zeros(0)
        pairs = np.concatenate([kind[evenly(len(kind), count)] for kind in kinds])
        logits = adapter.compare(source, self.rows[pairs[:, 0]], self.rows[pairs[:, 1]])
        return np.arange(2 * count) < count, logits.cpu().numpy()


def best_f1(positive: np.ndarray, negative: np.ndarray) -> float:
    """F1 of calling the same what is at a threshold or above, at the best threshold; NaN where one side is empty.

    Each over as many evenly spaced ones as there are of the fewer: F1 hangs on how many of each there are.
    """
    count = min(len(positive), len(negative))
    if not count:
        return float("nan")
    values = np.concatenate([side[evenly(len(side), count)] for side in (positive, negative)])
    precision, recall, _ = precision_recall_curve(np.arange(2 * count) < count, values)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def rank_correlation(embeddings: np.ndarray, va: np.ndarray, groups: np.ndarray) -> float:
    """Spearman's correlation of cosine and nearness in valence and arousal, over all pairs from two groups."""
    first, second = np.triu_indices(len(va), k=1)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    if len(first) < 2:
        return float("nan")
    z = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    cosine, nearness = (z @ z.T)[first, second], -np.linalg.norm(va[first] - va[second], axis=1)
    if np.ptp(cosine) == 0 or np.ptp(nearness) == 0:  # a constant has no ranks
        return float("nan")
    return float(spearmanr(cosine, nearness).statistic)
