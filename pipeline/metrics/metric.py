"""What a line of the catalogue says of a metric, and how its function is found and called.

A metric is measured of a *source*: embeddings, pairs, or one of several predictions of the same frames. The name of a
number in metrics.json, in the tables and in TensorBoard is the source's prefix, the name of the line, and the source's
suffix: ``knn_macro_f1_smoothed`` is line ``macro_f1`` of source ``knn_smoothed``.
"""

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:  # who only names metrics, such as the flags of training, shall not wait for scipy
    from pipeline.metrics.grouped import Measure


@dataclass(frozen=True)
class Source:
    """What metrics are measured of.

    ``title`` puts a metric's own title into words. ``tracks`` are the kinds of labels ('expression', 'va', 'aus',
    'outputs'), and ``needs`` what an adapter must predict: 'classes', 'va', 'aus', 'outputs', or 'pairs', which is a
    head for pairs. ``named_pairs``: only where the label table names pairs. ``clips``: only where labels are of clips,
    and not of frames. ``identities``: only where the labels are people.
    """

    tracks: tuple[str, ...] = ("expression",)
    needs: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""
    title: str = "{}"
    named_pairs: bool = False
    clips: bool = False
    identities: bool = False


# By the arrays that a function may take from them, by these names. n rows; ``groups`` are always there.
SOURCES = {
    # embeddings (n, E), labels (n,), num_classes, opposites: all frames with an expression
    "embeddings": Source(),
    # counts: IdentityCounts of the pictures of people
    "identification": Source(identities=True),
    # counts: PairCounts of the cosines of pairs of frames
    "pairs": Source(),
    # the same, with the pairs that the label table names
    "pairs_with_named": Source(named_pairs=True),
    # embeddings (n, E), labels (n,), ks: evenly spaced frames with an expression, which are queries and gallery
    "gallery": Source(),
    # ranks (q, 2), ks: of the partners in the pairs that the label table names, by cosine
    "partners": Source(named_pairs=True),
    # same_scores (p,), different_scores (q,): cosines of the pairs that the label table names
    "named_pairs": Source(named_pairs=True),
    # the like, by the logits of a head for pairs; of named pairs logits (Q,), same (Q,)
    "pair_head": Source(needs=("pairs",), prefix="pair_", title="pair head's {}"),
    "pair_head_with_named": Source(needs=("pairs",), prefix="pair_", title="pair head's {}", named_pairs=True),
    "pair_head_partners": Source(needs=("pairs",), prefix="pair_", title="pair head's {}", named_pairs=True),
    "pair_head_named": Source(needs=("pairs",), prefix="pair_", title="pair head's {}", named_pairs=True),
    # embeddings (n, E), labels, video, frame (n,), step: frames with an expression, in the order of their videos
    "sequences": Source(),
    # labels, predicted, video, frame (n,), step, classes: a linear probe's predictions, the classifier's, and those of
    # the nearest neighbours, as they are and smoothed
    "probe": Source(prefix="probe_", title="linear probe {}"),
    "classes": Source(needs=("classes",), title="classifier {}"),
    "classes_smoothed": Source(needs=("classes",), suffix="_smoothed", title="classifier {}, smoothed"),
    # combined with the backbone's own predictions, smoothed as fitted
    "classes_combined": Source(needs=("classes",), suffix="_combined", title="classifier {}, combined"),
    # truth (n, 2), predicted (n, 2)
    "va": Source(("va",), ("va",)),
    "va_smoothed": Source(("va",), ("va",), suffix="_smoothed", title="{}, smoothed"),
    "va_combined": Source(("va",), ("va",), suffix="_combined", title="{}, combined"),
    # embeddings (n, E), truth (n, 2)
    "va_embeddings": Source(("va",)),
    # truth (n, A), probabilities (n, A), units, thresholds: one number, (A,), or (n, A)
    "aus": Source(("aus",), ("aus",)),
    "aus_smoothed": Source(("aus",), ("aus",), suffix="_smoothed", title="{}, smoothed"),
    "aus_combined": Source(("aus",), ("aus",), suffix="_combined", title="{}, combined"),
    # the predictions of all three tracks, by the classifier, on all frames: labels (n,) or -1, predicted (n,), classes;
    # va_truth, va_predicted (n, 2); au_truth, probabilities (n, A), units, thresholds
    "mtl": Source(("expression", "va", "aus"), ("classes", "va", "aus")),
    "mtl_smoothed": Source(
        ("expression", "va", "aus"), ("classes", "va", "aus"), suffix="_smoothed", title="{}, smoothed"
    ),
    "mtl_combined": Source(
        ("expression", "va", "aus"), ("classes", "va", "aus"), suffix="_combined", title="{}, combined"
    ),
    "knn": Source(prefix="knn_", title="kNN {}"),
    "knn_smoothed": Source(prefix="knn_", suffix="_smoothed", title="kNN {}, smoothed"),
    # the same arrays, where each row is a clip
    "clips": Source(needs=("classes",), title="classifier {}", clips=True),
    "clips_knn": Source(prefix="knn_", title="kNN {}", clips=True),
    "clips_probe": Source(prefix="probe_", title="linear probe {}", clips=True),
    # truth (n, K), predicted (n, K), outputs: of clips
    "outputs": Source(("outputs",), ("outputs",), clips=True),
}
PLACES = ("report", "claims", "headline", "terminal", "board", "select")


@dataclass(frozen=True)
class Metric:
    """A line of the catalogue.

    ``function`` is 'module.function' below ``pipeline.metrics``; it takes arrays of its source by name and gives a
    measure (``grouped``) in which this metric has the name of the line. ``of`` are the sources, in words separated by
    blanks. What is measured in an evaluation is in metrics.json, resampled.npz and the report's metrics.csv, unless it
    is a ``detail``, which is in details.json alone. Where else it is shown, of some of the sources:

    ``report``: a column of the report's tables. ``claims``: its table against each baseline.
    ``headline``: headline.json, for 'dvc metrics diff'. ``terminal``: what evaluation prints.
    ``board``: TensorBoard, after each epoch. ``select``: what ``train.select_by`` may be.
    ``says`` is a sentence on what the number means, for whoever points at its title.
    """

    title: str
    better: Literal["higher", "lower", "neither"]
    function: str
    of: str
    report: str = ""
    claims: str = ""
    headline: str = ""
    terminal: str = ""
    board: str = ""
    select: str = ""
    detail: bool = False
    says: str = ""

    def __post_init__(self) -> None:
        for place in PLACES:
            if stray := set(getattr(self, place).split()) - set(self.of.split()):
                raise ValueError(f"metric '{self.title}' is not measured of {sorted(stray)}, which {place} names")
        if stray := set(self.of.split()) - set(SOURCES):
            raise ValueError(f"metric '{self.title}' is of {sorted(stray)}, and sources are {list(SOURCES)}")


@dataclass(frozen=True)
class Entry:
    """A metric of one source, under its full name; ``of`` is the name of the source."""

    name: str
    metric: Metric
    of: str

    @property
    def source(self) -> Source:
        return SOURCES[self.of]

    @property
    def title(self) -> str:
        return self.source.title.format(self.metric.title)


class Catalogue(Mapping[str, Metric]):
    """Metrics by the names of their lines. Braces stand for anything: ``recall_at_{k}``."""

    def __init__(self, lines: Mapping[str, Metric]) -> None:
        self._lines = dict(lines)

    def __getitem__(self, name: str) -> Metric:
        return self._lines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def shown(self, place: str) -> dict[str, Entry]:
        """What a place shows, by full names, in the order of the lines and of the sources that each names."""
        entries = {}
        for line, metric in self._lines.items():
            for source in getattr(metric, place).split():
                name = _full(line, SOURCES[source])
                entries[name] = Entry(name, metric, source)
        return entries

    def entry(self, name: str) -> Entry:
        """The metric of a full name, such as 'knn_f1_Anger'. Raises ``KeyError`` for a name that no line gives."""
        fitting = []
        for line, metric in self._lines.items():
            for source in metric.of.split():
                pattern = _full(line, SOURCES[source])
                if _matches(pattern, name):
                    fitting.append((len(re.sub(r"\{\w+\}", "", pattern)), source, metric))
        if not fitting:
            raise KeyError(f"no line of the catalogue is called '{name}'")
        _, source, metric = max(fitting, key=lambda each: each[0])  # the pattern that says most
        return Entry(name, metric, source)

    def measure(self, inputs: Mapping[str, Mapping[str, Any]], place: str | None = None) -> "Measure":
        """One measure of all metrics of these sources, or of those that a place shows, under their full names.

        ``inputs`` are the arrays of each source, by name.
        """
        measures = []
        for source in (name for name in SOURCES if name in inputs):
            lines: dict[str, list[str]] = {}
            for line, metric in self._lines.items():
                if source in (metric.of if place is None else getattr(metric, place)).split():
                    lines.setdefault(metric.function, []).append(line)
            for function, names in lines.items():
                measure = _called(function, source, inputs[source])
                measures.append(_named(measure, inputs[source]["groups"], names, SOURCES[source]))
        return joined(measures)

    def numbers(self, inputs: Mapping[str, Mapping[str, Any]], place: str | None = None) -> dict[str, float]:
        """The numbers of ``measure`` where each group counts once, without those that cannot be measured."""
        num_groups = max((int(arrays["groups"].max(initial=-1)) + 1 for arrays in inputs.values()), default=0)
        once = self.measure(inputs, place)(np.ones((1, num_groups)))
        return {name: float(value[0]) for name, value in once.items() if np.isfinite(value[0])}


def joined(measures: Collection["Measure"]) -> "Measure":
    """All of them as one."""
    return lambda weights: {name: value for measure in measures for name, value in measure(weights).items()}


def _called(function: str, source: str, arrays: Mapping[str, Any]) -> "Measure":
    """The measure that a metric's function gives for those arrays of a source that it takes."""
    module, _, name = function.rpartition(".")
    metric = getattr(import_module(f"pipeline.metrics.{module}"), name)
    parameters = inspect.signature(metric).parameters
    lacking = [key for key, p in parameters.items() if p.default is p.empty and key not in arrays]
    if lacking:
        raise TypeError(f"{function} takes {lacking}, and source '{source}' has {sorted(arrays)}")
    return metric(**{key: arrays[key] for key in parameters if key in arrays})


def _named(measure: "Measure", groups: np.ndarray, lines: Collection[str], source: Source) -> "Measure":
    """Those numbers of a measure that ``lines`` name, under their full names.

    ``groups`` may be only the first of all groups: the others have no such rows.
    """
    num_groups = int(groups.max(initial=-1)) + 1

    def chosen(weights: Any) -> dict[str, np.ndarray]:
        values = measure(weights[:, :num_groups])
        return {
            _full(name, source): value for name, value in values.items() if any(_matches(line, name) for line in lines)
        }

    return chosen


def _full(name: str, source: Source) -> str:
    return f"{source.prefix}{name}{source.suffix}"


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or ("{" in pattern and _compiled(pattern).fullmatch(name) is not None)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".+".join(map(re.escape, re.split(r"\{\w+\}", pattern))))
