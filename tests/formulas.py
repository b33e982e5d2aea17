"""Slow formulas, a loop each, that tests hold the metrics against. Nothing of the project is imported here."""

import itertools
import math

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score


def cosine(a, b):
    length = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in b))
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / length if length else 0.0


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def cosines_of_pairs(rows, labels, groups, opposites=()):
    """The cosines of all pairs of two groups: same, different, and those of the different ones that are opposite."""
    z, of = unit(rows), {"same": [], "different": [], "opposite": []}
    opposite = {frozenset(pair) for pair in opposites if pair[0] != pair[1]}
    for i, j in itertools.combinations(range(len(z)), 2):
        if groups[i] != groups[j]:
            value = float(z[i] @ z[j])
            of["same" if labels[i] == labels[j] else "different"].append(value)
            if frozenset((int(labels[i]), int(labels[j]))) in opposite:
                of["opposite"].append(value)
    return {kind: np.array(values) for kind, values in of.items()}


def auc(positive, negative):
    if len(positive) == 0 or len(negative) == 0:
        return math.nan
    return roc_auc_score(np.repeat([1, 0], [len(positive), len(negative)]), np.concatenate([positive, negative]))


def separation(cosines):
    """Mean cosines, their gaps and the AUCs; NaN where there are no such pairs."""
    mean = {kind: float(np.mean(values)) if len(values) else math.nan for kind, values in cosines.items()}
    return {
        **{f"cosine_{kind}": value for kind, value in mean.items()},
        "gap_same_different": mean["same"] - mean["different"],
        "gap_same_opposite": mean["same"] - mean["opposite"],
        "auc_same_different": auc(cosines["same"], cosines["different"]),
        "auc_same_opposite": auc(cosines["same"], cosines["opposite"]),
    }


def ranked(rows, labels, groups):
    """Of each query the gallery in its order, as hits: queries are rows whose label stands in another group."""
    z = unit(rows)
    for i in range(len(z)):
        others = [j for j in range(len(z)) if groups[j] != groups[i]]
        if any(labels[j] == labels[i] for j in others):
            others.sort(key=lambda j: -float(z[i] @ z[j]))
            yield i, [bool(labels[j] == labels[i]) for j in others]


def recall_at_k(rows, labels, groups, ks):
    """Shares of queries with a hit among the first k, and how many queries there are."""
    hits = [hits for _, hits in ranked(rows, labels, groups)]
    shares = {f"recall_at_{k}": float(np.mean([any(h[:k]) for h in hits])) if hits else math.nan for k in ks}
    return shares, len(hits)


def precision_at_r(rows, labels, groups):
    out = np.full(len(rows), math.nan)
    for i, hits in ranked(rows, labels, groups):
        wanted = sum(hits)
        out[i] = sum(sum(hits[: p + 1]) / (p + 1) for p in range(wanted) if hits[p]) / wanted
    return out


def knn(gallery, gallery_labels, queries, neighbours, num_classes):
    """Class codes by the vote of the nearest; of equal votes the greater sum of cosines."""
    out = []
    for query in unit(queries):
        cosines = unit(gallery) @ query
        nearest = np.argsort(-cosines, kind="stable")[:neighbours]
        votes = [
            (int((gallery_labels[nearest] == c).sum()), float(cosines[nearest][gallery_labels[nearest] == c].sum()))
            for c in range(num_classes)
        ]
        out.append(max(range(num_classes), key=lambda c: votes[c]))
    return np.array(out, dtype=int)


def steadiness(rows, labels, video, frame, step):
    """Cosines of neighbours of one label, of strangers and of frames of one video, and both steadiness values."""
    near, far, own = [], [], [[] for _ in rows]
    z = unit(rows)
    for i, j in itertools.combinations(range(len(z)), 2):
        value = float(z[i] @ z[j])
        if video[i] != video[j]:
            far.append(value)
            continue
        own[i].append(value)
        own[j].append(value)
        if frame[j] - frame[i] == step and labels[i] == labels[j]:
            near.append(value)
    means = [np.mean(values) for values in own if values]
    n, f, s = (float(np.mean(values)) if len(values) else math.nan for values in (near, far, means))
    return {
        "cosine_neighbours": n, "cosine_strangers": f, "cosine_same_video": s,
        "steadiness": (n - f) / (1 - f), "steadiness_in_video": (n - s) / (1 - s),
    }  # fmt: skip


def flips_per_100(predicted, labels, video, frame, step):
    flips = [
        predicted[i] != predicted[j]
        for i, j in itertools.combinations(range(len(labels)), 2)
        if video[i] == video[j] and frame[j] - frame[i] == step and labels[i] == labels[j]
    ]
    return 100 * float(np.mean(flips)) if flips else math.nan


def lateness(predicted, labels, video, frame, step):
    """How late the prediction follows a true change, up to the end of the segment, and the share it never follows."""
    late = []
    for i in range(1, len(labels)):
        if video[i] != video[i - 1] or frame[i] - frame[i - 1] != step or labels[i] == labels[i - 1]:
            continue
        j = i
        while j < len(labels) and video[j] == video[i] and labels[j] == labels[i] and predicted[j] != labels[i]:
            j += 1
        caught = j < len(labels) and video[j] == video[i] and labels[j] == labels[i]
        late.append(float(frame[j] - frame[i]) if caught else math.nan)
    caught = [value for value in late if not math.isnan(value)]
    return {
        "frames_late": float(np.mean(caught)) if caught else math.nan,
        "switches_missed": float(np.isnan(late).mean()) if late else math.nan,
    }


def ccc(x, y):
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def macro_f1(truth, predicted):
    """Mean over the classes that are true."""
    return f1_score(truth, predicted, labels=np.unique(truth), average="macro")
