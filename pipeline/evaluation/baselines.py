"""Baselines that no training makes: predictions of single frames smoothed in time, and the backbone's own outputs.

python -m pipeline.evaluation.baselines

The others (frozen features, centred, principal components, untrained heads) are runs of params.yaml with 0 epochs.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapter import sources as features
from pipeline.adapter.adapter import Adapter, Source
from pipeline.adapter.inference import per_frame
from pipeline.adapter.windows import Window
from pipeline.core.clips import Clips
from pipeline.core.device import pick_device
from pipeline.core.files import all_or_none
from pipeline.core.numbering import numbered_alike, spacing
from pipeline.core.params import UserError, entry, one_of, option, parse
from pipeline.core.rates import frame_rates
from pipeline.evaluation.evaluate import (
    EvaluateConfig,
    FoldData,
    fold_data,
    frames_scored,
    load_run,
    opened,
    outputs_of,
    own_predictions,
    refuse_other_part,
    report,
    with_data,
)
from pipeline.metrics import combine, thresholds
from pipeline.metrics.measures import Outputs, smooth_subset
from pipeline.metrics.smoothing import changes, check_width, in_frames

POOLINGS = {"box": "mean", "hann": "hann"}  # of an adapter's window, by the smoothing that is the same


@dataclass(frozen=True)
class BaselinesConfig(EvaluateConfig):
    """Sections ``evaluate`` and ``baselines`` of params.yaml."""

    run: Path = option(Path("runs/mlp_classifier"), help="a run with windows of one frame")
    output: Path = option(
        Path("evaluation/baselines"), "-o", help="the folder to write: it gets a folder for each baseline"
    )
    smoothings: dict = option({"box": [15, 101]}, help="widths (odd numbers of frames, or seconds) by kind: box, hann")

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, widths in self.smoothings.items():
            one_of("baselines: smoothing", kind, POOLINGS)
            if not isinstance(widths, list):
                raise UserError(f"baselines: smoothings need a list of widths for {kind}, and have {widths}")
            for width in widths:
                check_width(f"baselines: widths of {kind}", width, self.fps)

    @property
    def each(self) -> dict[str, tuple[str, int | str]]:
        """Kind and width, by the name that the baseline gets."""
        kinds = self.smoothings.items()
        return {f"{self.run.name}_{kind}_{width}": (kind, width) for kind, widths in kinds for width in widths}


def main(argv: Sequence[str] | None = None) -> None:
    config = with_data(parse(BaselinesConfig, argv, sections=["baselines"], borrow=["evaluate"], description=__doc__))
    refuse_other_part(config.part, [path.parent for path in config.output.glob("*/details.json")])
    store, labels = opened(config)
    device = pick_device(config.device)
    folds = load_run(config.run, store, labels, config.alike)
    facts = folds[0][0].facts
    of_clips = isinstance(labels, Clips)
    if ((num_frames := folds[0][0].window.frames) != 1 or not folds[0][0].head.framewise) and not of_clips:
        raise UserError(f"baselines: run must have windows of one frame, and {config.run} has window {num_frames}")
    facts_of_all = [adapter.facts for adapters in folds for adapter in adapters]
    way = combine.way_of(config.run, store, config.combine, facts_of_all)
    data = [fold_data(config, store, labels, adapters, way) for adapters in folds]
    each = {name: of for name, of in config.each.items() if any(_changed(of_fold, *of) for of_fold in data)}
    if of_clips:
        each = {}
        print("nothing is smoothed over clips: the only baseline here is the backbone itself")
    elif len(each) < len(config.each):
        left_out = ", ".join(name for name in config.each if name not in each)
        print(f"left out, since no frame has another one of its video within that width: {left_out}")
    names = [*each, *([] if way == "none" else [f"{config.run.name}_{way}"])]
    outputs: dict[str, list[list[Outputs]]] = {name: [[] for _ in folds] for name in names}
    for k, (of_fold, adapters) in enumerate(zip(data, folds, strict=True)):
        for adapter in adapters if names else []:
            adapter.modules().to(device)
            source = features.open_inputs(store, of_fold.frames.row, adapter.front, device)
            single = outputs_of(of_fold, adapter, source, device)
            for name, (kind, width) in each.items():
                outputs[name][k].append(smoothed(of_fold, adapter, source, single, kind, width))
            if way != "none":
                outputs[names[-1]][k].append(_combined(single))
    with all_or_none(config.output.parent, config.output.name) as aside:  # in the place of those of other widths
        _write(dataclasses.replace(config, output=aside / config.output.name), facts, data, outputs)


def _write(
    config: BaselinesConfig, facts: dict[str, Any], data: list[FoldData], outputs: dict[str, list[list[Outputs]]]
) -> None:
    """Measures what was smoothed and what the backbone predicts, and writes a folder for each."""
    config.output.mkdir(parents=True)  # also where there is no baseline to be put into it
    # What is smoothed already is not smoothed again.
    once, about = dataclasses.replace(config, smoothing="none"), {"baseline": True}
    combined = data[0].combine != "none"
    plain = about | ({"combine": None} if combined else {})
    for name, of_folds in outputs.items():
        about_it = {"run": name, "seeds": len(of_folds[0]), "seed": facts["seed"]}
        if name in config.each:
            before = dict(zip(("kind", "width"), config.each[name], strict=True))
            about_it |= plain | {"smoothed_before": before}
        about_it = about | about_it
        report(dataclasses.replace(once, output=config.output / name), data, of_folds, about_it)
    backbone = [backbone_outputs(of_fold) for of_fold in data]
    if None in backbone:
        name = data[0].store.made_by["backbone"]
        print(f"the backbone {name} predicts nothing that has labels here: it is no baseline")
    else:
        about_it = plain | {"run": "backbone", "seeds": 1, "seed": 0, "model": None, "loss": None}
        scored = Counter()
        for of_fold, of_backbone in zip(data, backbone, strict=True):
            scored.update(frames_scored(of_fold.subset, of_backbone.predictions))
        about_it |= {"frames_scored": dict(scored), "au_thresholds": None}
        if any("aus" in of_backbone.predictions for of_backbone in backbone):
            about_it["au_thresholds"] = {"which": thresholds.in_words([], config.au_threshold)}
        if combined:
            backbone = [_beside_combined(of, of_fold, config) for of, of_fold in zip(backbone, data, strict=True)]
        of_folds = [[of_backbone] for of_backbone in backbone]
        report(dataclasses.replace(config, output=config.output / "backbone"), data, of_folds, about_it)


def _changed(data: FoldData, kind: str, width: int | str) -> bool:
    """Whether smoothing changes any frame of the run's videos, those of training too, which are neighbours."""
    frames = data.frames
    if isinstance(width, str):
        wide = in_frames(width, frame_rates(data.config.fps, frames.videos, frames.video)[frames.video])
        return changes(frames.video, frames.frame, kind, wide)
    return changes(frames.video, numbered_alike(frames.video, frames.frame, data.subset.step), kind, width)


def smoothed(data: FoldData, adapter: Adapter, source: Source, single: Outputs, kind: str, width: int | str) -> Outputs:
    """A frame's embedding and predictions as means of this kind over the frames up to half of ``width`` away.

    Embeddings of training frames, which are a frame's neighbours, are means as well.
    """
    frames = data.frames
    half = np.broadcast_to(_half(data, width), len(frames.row))
    z, gallery_z = (_means(data, adapter, source, rows, kind, half[rows]) for rows in (data.rows, data.gallery))
    predictions = {what: smooth_subset(data.subset, values, kind, width) for what, values in single.predictions.items()}
    found = Outputs(z, gallery_z, predictions, single.gallery_classes, thresholds=single.thresholds)
    return found if data.combine == "none" else _beside_combined(found)


def _combined(single: Outputs) -> Outputs:
    """Single frames whose predictions are combined with the backbone's: what is combined is what it predicts."""
    predictions = single.predictions | single.combined
    return dataclasses.replace(single, predictions=predictions, thresholds=single.combined_thresholds)


def _beside_combined(outputs: Outputs, data: FoldData | None = None, config: BaselinesConfig | None = None) -> Outputs:
    """A baseline that combines nothing, in what is measured of combined predictions: its own count there.

    Of the backbone, whose outputs are not smoothed yet, they are smoothed as ``config`` says. So what a combination
    gains is over the best that any baseline predicts, and not only over others that combine.
    """
    final = {what: of for what, of in outputs.predictions.items() if what in combine.WHAT}
    if config is not None and data.subset.clips is None:
        widths = {what: config.width_aus if what == "aus" else config.width for what in final}
        final = {what: smooth_subset(data.subset, of, config.smoothing, widths[what]) for what, of in final.items()}
    return dataclasses.replace(outputs, combined=final, combined_thresholds=outputs.thresholds)


def _half(data: FoldData, width: int | str) -> int | np.ndarray:
    """How many frames of a video lie in half of ``width``: of seconds (N,), as videos differ in their rates."""
    if isinstance(width, int):
        return width // 2 // data.subset.step
    frames = data.frames
    wide = in_frames(width, frame_rates(data.config.fps, frames.videos, frames.video)[frames.video])
    return wide // 2 // spacing(frames.video, frames.frame)


def _means(
    data: FoldData, adapter: Adapter, source: Source, rows: np.ndarray, kind: str, half: np.ndarray
) -> np.ndarray:
    """Means (m, E) of the embeddings of the frames up to ``half`` (m,) frames away from each of ``rows`` (m,)."""
    frames, device = data.frames, next(adapter.front.buffers()).device
    out = np.empty((len(rows), adapter.head.embedding_size), np.float32)
    for each in np.unique(half):
        windows = Window(int(2 * each + 1), spacing=data.subset.step).over(frames.video, frames.frame)
        pooling = Adapter(adapter.front, adapter.head, adapter.predictors, adapter.facts | {"pooling": POOLINGS[kind]})
        some = half == each
        out[some] = per_frame(pooling, source, windows, rows[some], None, device)[0]
    return out


def backbone_outputs(data: FoldData) -> Outputs | None:
    """The backbone's own predictions of classes, valence and arousal, and action units; None where it has none of them.

    Its outputs are known by their names. Only what the subset has labels of is predicted. A class or action unit that
    has no output is never predicted, and any other output is left out. Valence and arousal need both their outputs, and
    are taken as they come; an action unit's output is a logit. Of a clip the outputs are means over its frames.
    """
    subset = data.subset
    own, predictions = own_predictions(data), {}
    if "classes" in own and len(subset.labelled):
        predictions["classes"] = np.nan_to_num(own["classes"])
    if "va" in own and np.isfinite(subset.va).all(1).any():
        predictions["va"] = np.nan_to_num(own["va"])
    if "aus" in own and (np.isfinite(own["aus"]).any(0) & np.isfinite(subset.aus).any(0)).any():
        predictions["aus"] = np.nan_to_num(own["aus"])
    cut = thresholds.DEFAULT if data.config.au_threshold is None else data.config.au_threshold
    return Outputs(None, None, predictions, thresholds=cut) if predictions else None


if __name__ == "__main__":
    entry(main)
