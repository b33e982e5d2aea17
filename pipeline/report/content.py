"""What the page draws, as JSON: the numbers of all runs, their differences, curves, matrices, strips and faces."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core.colours import COLOURS
from pipeline.core.params import UserError
from pipeline.evaluation import files
from pipeline.evaluation.files import Evaluation
from pipeline.evaluation.shown import BINS, RATES, Shown
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.identification import CURVE
from pipeline.metrics.metric import Entry
from pipeline.report.tables import is_measured, shown_in

MOST_CHARACTERS = 3_700_000  # of numbers and faces in the page, which is to stay below 4 MB
NUMBERS_OF_A_RUN = 75_000  # characters, of three long videos
NEEDS = {"classes": "classes", "va": "VA", "aus": "AUs", "pairs": "pairs"}  # what a run predicts, in words
CHOICES = ("model", "loss", "sampler", "pooling", "window", "epochs", "temperature", "reduce")


def content(runs: Sequence[Evaluation], shown: Mapping[str, Shown], beside: str | None = None) -> dict[str, Any]:
    """What the page's script gets. ``shown`` is by the names of runs; ``beside``: the run that others stand beside."""
    measures = {name: entry for name, entry in shown_in(runs, "report").items() if entry.metric.better != "neither"}
    faces = _Faces(max(0, MOST_CHARACTERS - NUMBERS_OF_A_RUN * len(runs)))
    classes = next((list(of.names["classes"]) for of in shown.values() if of.names.get("classes")), [])
    for run in runs:
        if shown[run.name].names.get("classes", classes) not in ([], classes):
            raise UserError(f"the runs {run.name} and {runs[0].name} cannot stand on one page: their classes differ")
    adapters = [run.name for run in runs if not run.about["baseline"]]
    first = (adapters or [runs[0].name])[0]
    others = [run.name for run in runs if run.name != first]
    timelines = _timelines(runs, shown, faces)  # these first: the faces of all runs must not crowd them out
    queries = next((of.names["queries"] for of in shown.values() if of.names.get("queries")), [])
    return {
        "classes": classes,
        "colours": COLOURS,
        "measures": [_measure(entry) for entry in measures.values()],
        "rates": _numbers(RATES, 3),
        "bins": _numbers(BINS, 3),
        "identificationRates": _numbers(CURVE, 7),
        "start": [first, beside if beside in others else (others or [first])[-1]],
        "timelines": timelines,
        "queries": [_frame(shown, faces, *query) for query in queries],
        "runs": [_run(run, shown, measures, timelines, queries, faces) for run in runs],
        "differences": _differences(runs, measures),
        "faces": faces.files,
        "faces_left_out": faces.left_out,
    }


def as_script(found: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def does(run: Evaluation) -> list[str]:
    """What a run predicts by itself, in words: 'classes', 'VA', 'AUs', 'pairs'."""
    measured = {need for name in run.estimates if is_measured(run, name) for need in METRICS.entry(name).source.needs}
    return [word for need, word in NEEDS.items() if need in measured]


def best_seed(run: Evaluation) -> tuple[int, str, float] | None:
    """The number of the seed that is best by the first measure of the report that seeds have, and that number.

    None of a single seed, and of the test part, on which nothing may be chosen.
    """
    if len(run.seeds) < 2 or run.about.get("part") == "test":
        return None
    for name, entry in shown_in([run], "report").items():
        values = [seed.get(name) for seed in run.seeds]
        if entry.metric.better != "neither" and all(value is not None for value in values):
            best = int((np.argmax if entry.metric.better == "higher" else np.argmin)(values))
            return run.about["seed"] + best, entry.title, values[best]
    return None


def _measure(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "title": entry.title, "better": entry.metric.better, "says": entry.metric.says}


def _run(
    run: Evaluation, shown: Mapping[str, Shown], measures: Mapping[str, Entry], timelines: Sequence[Mapping[str, Any]],
    queries: Sequence[Sequence[Any]], faces: "_Faces",
) -> dict[str, Any]:  # fmt: skip
    of = shown[run.name]
    arrays, names = of.arrays, of.names
    found: dict[str, Any] = {
        "name": run.name,
        "baseline": run.about["baseline"],
        "does": does(run),
        "chosen": {k: v for k in CHOICES if (v := run.about.get(k)) is not None},
        "values": {
            name: _numbers([run.estimates[name].value, *run.estimates[name].interval()], 5)
            for name in measures
            if is_measured(run, name)
        },
        "roc": {
            kind: _numbers(arrays[f"roc/{kind}"], 4) for kind in ("different", "opposite") if f"roc/{kind}" in arrays
        },
        "density": {key.partition("/")[2]: _numbers(arrays[key], 3) for key in arrays if key.startswith("density/")},
    }
    if "identification" in arrays:
        found["identification"] = _numbers(arrays["identification"], 4)
        found["pairs"] = run.about.get("identification")
    cosines = files.read_emotions(run.folder)
    if cosines is not None:
        found["emotions"] = [_numbers(row, 3) for row in cosines]
    if (costs := files.read_costs(run.folder)) is not None:
        found["costs"] = costs
    if "confusion" in arrays:
        found["confusion"] = [_numbers(row, 1) for row in arrays["confusion"]]
    if "similarity" in arrays:
        cells = base64.b64encode(arrays["similarity"].tobytes()).decode()
        found["similarity"] = {"cells": cells, "label": arrays["similarity/label"].tolist()}
    if "points" in arrays:
        found["points"] = {"at": [_numbers(p, 3) for p in arrays["points"]], "label": arrays["points/label"].tolist()}
    if "nearest/cosine" in arrays and names["queries"] == queries:
        rows = zip(names["nearest"], arrays["nearest/cosine"], strict=True)
        found["nearest"] = [
            [[*_frame(shown, faces, *near), round(float(c), 3)] for near, c in zip(row, cosine, strict=True)]
            for row, cosine in rows
        ]
    if names.get("worst"):
        rows = zip(names["worst"], arrays["worst/predicted"], arrays["worst/share"], strict=True)
        found["worst"] = [
            [*_frame(shown, faces, *frame), int(code), round(float(share), 2)] for frame, code, share in rows
        ]
    if names.get("attention"):
        found["attention"] = _attention(of, shown, faces)
    found["timelines"] = [_of_timeline(of, line["video"]) for line in timelines]
    return found


def _attention(of: Shown, shown: Mapping[str, Shown], faces: "_Faces") -> dict[str, Any]:
    """Pairs with what their places count for: two frames, logit, whether it is the same, weights of each."""
    keys = ("weights", "within", "logit", "same")
    rows = zip(of.names["attention"], *(of.arrays[f"attention/{key}"] for key in keys), strict=True)
    pairs = [
        {
            "frames": [_frame(shown, faces, *frame) for frame in pair],
            "weights": [[_numbers(line, 4) for line in each] for each in weights],
            "within": [_numbers(each, 4) for each in within],
            "logit": round(float(logit), 2),
            "same": bool(same),
        }
        for pair, weights, within, logit, same in rows
    ]
    return {"pairs": pairs, "leftOut": of.names["attention_left_out"]}


def _timelines(runs: Sequence[Evaluation], shown: Mapping[str, Shown], faces: "_Faces") -> list[dict[str, Any]]:
    """The videos that are drawn as strips: frames, true classes, and some faces; the same for all runs."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        of = shown[run.name]
        for number, video in enumerate(of.names.get("videos", [])):
            if video in found:
                continue
            frames = of.arrays[f"timeline/{number}/frame"]
            own = sorted(frame for name, frame in of.faces if name == video)
            within = [frame for frame in own if frames[0] <= frame <= frames[-1]]
            some = (
                [within[k] for k in np.unique(np.linspace(0, len(within) - 1, 12).round().astype(int))]
                if within
                else []
            )
            found[video] = {
                "video": video,
                "frames": frames.tolist(),
                "step": float(of.arrays[f"timeline/{number}/step"]),
                "truth": of.arrays[f"timeline/{number}/truth"].tolist(),
                "faces": [[frame, faces.number(of, video, frame, keep=True)] for frame in some],
            }
    return list(found.values())


def _of_timeline(of: Shown, video: str) -> dict[str, Any] | None:
    if video not in of.names.get("videos", []):
        return None
    name = f"timeline/{of.names['videos'].index(video)}"
    return {
        "predicted": of.arrays[f"{name}/predicted"].tolist(),
        "near": _numbers(of.arrays[f"{name}/near"], 5),
    }


def _frame(shown: Mapping[str, Shown], faces: "_Faces", video: str, frame: int, label: int) -> list[Any]:
    """Number of the face or None, class, and what the frame is called."""
    of = next((of for of in shown.values() if (video, frame) in of.faces), None)
    return [None if of is None else faces.number(of, video, frame), label, f"{video}, frame {frame}"]


def _differences(runs: Sequence[Evaluation], measures: Mapping[str, Entry]) -> dict[str, dict[str, list[float | None]]]:
    """Of each measure the paired difference with its interval of each two runs, by 'i,j': places in ``runs``, i < j."""
    found = {}
    for name in measures:
        known = [k for k, run in enumerate(runs) if is_measured(run, name)]
        found[name] = {}
        for at, i in enumerate(known):
            for j in known[at + 1 :]:
                gain = runs[i].estimates[name] - runs[j].estimates[name]
                found[name][f"{i},{j}"] = _numbers([gain.value, *gain.interval()], 5)
    return found


def _numbers(values: Any, digits: int) -> list[float | None]:
    return [round(float(v), digits) if np.isfinite(v) else None for v in values]


class _Faces:
    """Faces as addresses that hold them, each once, and no more than the page can take."""

    def __init__(self, most: int) -> None:
        """``most`` characters, and those that are to be kept whatever there is."""
        self._most = most
        self.files: list[str] = []
        self.left_out = 0
        self._known: dict[tuple[str, int], int | None] = {}
        self._size = 0

    def number(self, of: Shown, video: str, frame: int, keep: bool = False) -> int | None:
        """The place in ``files``; None where the page is full, unless it is one to ``keep``."""
        key = (video, frame)
        if self._known.get(key) is None and (keep or key not in self._known):
            file = base64.b64encode(of.faces[key]).decode()
            if not keep and self._size + len(file) > self._most:
                self._known[key] = None
                self.left_out += 1
            else:
                self._known[key] = len(self.files)
                self.files.append(file)
                self._size += len(file)
        return self._known[key]
