"""What is looked at after each epoch: evenly spaced frames of a part, through the adapter as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.protocol import au_scores, expression_scores, va_scores
from pipeline.evaluation.separation import evenly, pair_cosines, separation
from pipeline.training.adapter import Adapter, Source
from pipeline.training.data import FrameSet

MOST_PAIRS = 4000  # that a head for pairs is asked about


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

        A score whose labels or predictions there are not is left out.
        """
        embeddings = adapter.embed(source, self.rows)
        scores, cosines = {}, {}
        label, group = self.frames.label[self.centres], self.frames.group[self.centres]
        has = label >= 0
        if has.any():
            z = embeddings.cpu().numpy()[has]
            cosines = pair_cosines(z, label[has], group[has], self.opposites, most=len(z))
            found = separation(cosines)
            scores = {k: found[k] for k in ("cosine_same", "cosine_different", "cosine_opposite", "auc_same_different")}
            if adapter.head.pairs:
                scores["auc_same_different"] = self._auc_of_pairs(adapter, source)
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

    def _auc_of_pairs(self, adapter: Adapter, source: Source) -> float:
        """As AUC same/different, of the head's own logits, over as many same as different pairs."""
        label, group = self.frames.label[self.centres], self.frames.group[self.centres]
        first, second = np.triu_indices(len(label), k=1)
        apart = (group[first] != group[second]) & (label[first] >= 0) & (label[second] >= 0)
        first, second = first[apart], second[apart]
        same = label[first] == label[second]
        chosen = np.concatenate([np.flatnonzero(kind)[evenly(int(kind.sum()), MOST_PAIRS)] for kind in (same, ~same)])
        if same[chosen].all() or not same[chosen].any():
            return float("nan")
        logits = adapter.compare(source, self.rows[first[chosen]], self.rows[second[chosen]])
        return float(roc_auc_score(same[chosen], logits.cpu().numpy()))


def rank_correlation(embeddings: np.ndarray, va: np.ndarray, groups: np.ndarray) -> float:
    """Spearman's correlation of cosine and nearness in valence and arousal, over all pairs from two groups."""
    first, second = np.triu_indices(len(va), k=1)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    if len(first) < 2:
        return float("nan")
    z = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    nearness = -np.linalg.norm(va[first] - va[second], axis=1)
    return float(spearmanr((z @ z.T)[first, second], nearness).statistic)
