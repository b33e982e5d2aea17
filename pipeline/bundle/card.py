"""The model card of a bundle: what was trained on what, how good it is, what it is not for, and whose it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapter.adapter import checkpoints_of
from pipeline.bundle import licences
from pipeline.core.params import UserError
from pipeline.evaluation import files
from pipeline.evaluation.files import Evaluation
from pipeline.metrics.catalogue import METRICS

PARTS = {"val": "validation", "test": "test"}
NOT_FOR = """\
- Not to decide about people: hiring, schooling, insurance, policing, borders, credit, medicine. A face does not tell
  what a person feels. The labels say what others saw in it.
- Not to infer the emotions of people at work or in education: the law of the European Union forbids that (Regulation
  2024/1689, article 5 (1) f), but for medical or safety reasons.
- Not to recognise who somebody is, and not to tell lies from truth, or health from illness.
- Not on people who did not agree to it, and not on other data than it was measured on without measuring again: another
  camera, crop, age or culture moves the numbers."""


def evaluated(run: Path, folder: Path | None) -> Evaluation | None:
    """The evaluation of a run: in ``folder``, in the run's own folder (train.py), or in evaluation/NAME (dvc repro).

    None where there is none. Raises ``UserError`` where it is one of other weights, and where ``folder`` has none.
    """
    run = run.absolute()
    places = [run, run.parent.parent / "evaluation" / run.name] if folder is None else [folder]
    place = next((place for place in places if (place / "details.json").is_file()), None)
    if place is None and folder is None:
        return None
    found = files.read(place or folder)
    if found.about.get("checkpoints") != checkpoints_of(run):
        raise UserError(
            f"the evaluation in {found.folder} is of other weights than the run {run} has: evaluate the run again"
        )
    return found


def text(facts: Mapping[str, Any], evaluation: Evaluation | None) -> str:
    """README.md; ``facts`` are those of bundle.json."""
    made_by, window = facts["made_by"], facts["window"]
    parts = [f"# {facts['run']}", _what(facts), "## Use", _use(facts), "## Trained on", _trained_on(facts)]
    parts += ["## Measured", text_of_measures(evaluation), "## Not for", NOT_FOR, "## Licences", _licences(facts)]
    parts += [
        "## Details",
        _table(
            [
                ("head", f"{facts['model']}, loss {_words(facts['loss'])}"),
                ("window", f"{window['frames']} frames, step {_step(window)}, beyond the ends: {window['edge']}"),
                ("pooling", facts["pooling"]),
                ("backbone", f"{made_by['backbone']}, frozen"),
                ("pictures", f"{made_by.get('input_size')} pixels a side, faces cut as '{made_by.get('crop_source')}'"),
                ("features", facts["num_features"]),
                ("embedding", f"{facts['embedding_size']} numbers, of length one"),
                ("seeds", _seeds(facts["results"])),
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _what(facts: Mapping[str, Any]) -> str:
    classes = f" It knows the classes {', '.join(facts['classes'])}, by its {facts['classes_by']}."
    return (
        "An adapter: embeddings of the frames of face videos, by the features of a frozen backbone. Two frames are as "
        f"alike as the cosine of their embeddings says.{classes if facts['classes'] else ''}"
    )


def _use(facts: Mapping[str, Any]) -> str:
    lines = [
        "```python",
        "from pipeline.embed import Embedder",
        "",
        'table = Embedder.load("THIS FOLDER").video("clip.mp4")',
        "```",
        "",
        "Nothing here is a pickle. A changed byte in a file that bundle.json names is refused.",
    ]
    if facts["onnx"]:
        graphs, member = ", ".join(facts["onnx"]["graphs"]), facts["onnx"]["member"]
        lines += ["", f"Without torch: {graphs}, of {member}. docs/bundle.md of the project shows how."]
    return "\n".join(lines)


def _trained_on(facts: Mapping[str, Any]) -> str:
    on, folds = facts["trained_on"], {result.get("fold") for result in facts["results"]}
    of = (
        f" Its {len(folds)} folds were trained on different videos; these are the numbers of one."
        if len(folds) > 1
        else ""
    )
    labels = f" Classes: {', '.join(facts['classes'])}." if facts["classes"] else ""
    units = f" Action units: {', '.join(name.upper() for name in facts['au_names'])}." if facts["au_names"] else ""
    return (
        f"{on['frames']:,} labelled frames of {on['videos']:,} videos ({on['groups']:,} persons or groups) of the data "
        f"set '{on['dataset']}'.{of}{labels}{units} No picture, name or embedding of them is here, and no hash of "
        "their names: so this bundle cannot tell which videos it has seen."
    )


def text_of_measures(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "This run has not been evaluated, so nothing is known of how good it is."
    about, shown = evaluation.about, METRICS.shown("report")
    rows = []
    for name, entry in shown.items():
        estimate = evaluation.estimates.get(name)
        if estimate is None or np.isnan(estimate.value):
            continue
        low, high = estimate.interval()
        rows.append(
            (entry.title, f"{estimate.value:.3f}", f"{low:.3f} to {high:.3f}", f"{entry.metric.better} is better")
        )
    scored = ", ".join(f"{count:,} {what}" for what, count in about["frames_scored"].items())
    part = PARTS[about.get("part", "val")]
    seeds = f" and {about['seeds']} seeds" if about["seeds"] > 1 else ""
    drawn = about["dataset"].startswith("synthetic")
    of_drawn = "The faces are drawn, so these numbers say nothing about people. " if drawn else ""
    combined = any(entry.of.endswith("_combined") for name, entry in shown.items() if name in evaluation.estimates)
    alone = " What is called combined takes the backbone's own outputs as well; this bundle predicts without them."
    return of_drawn + (
        f"On the {part} part of '{about['dataset']}': {scored} frames of {about['val_videos']:,} videos that it was "
        f"not trained on ({about['val_split']}). The intervals hold 95 % of the values when whole persons{seeds} are "
        "drawn again." + (alone if combined else "") + "\n\n" + _table(rows, ("", "", "95 % interval", ""))
    )


def _licences(facts: Mapping[str, Any]) -> str:
    data = [("data", sentence) for sentence in licences.of_data(facts["trained_on"]["dataset"])]
    return _table(
        [
            ("code", licences.CODE),
            ("weights of the backbone", _weights(facts["weights"])),
            *data,
            ("the adapter", "trained on these data: what their licence says of that holds"),
        ]
    )


def _weights(weights: Mapping[str, Any] | None) -> str:
    if weights is None:
        return "the features were imported: no backbone is known"
    where = f"in {weights['file']}" if weights["file"] else "not here"
    return (
        f"{weights['licence']}; {where}; from {weights['address']}; SHA-256 of the tensors {weights['tensors_sha256']}"
    )


def _seeds(results: list[Mapping[str, Any]]) -> str:
    return ", ".join(
        (f"fold {r['fold']} " if "fold" in r else "") + f"seed {r['seed']} (epoch {r['epoch']})" for r in results
    )


def _step(window: Mapping[str, Any]) -> str:
    return "as far apart as the frames of a video are" if window["step"] is None else str(window["step"])


def _words(loss: str | dict[str, float]) -> str:
    return loss if isinstance(loss, str) else " + ".join(loss)


def _table(rows: list[tuple[Any, ...]], head: tuple[str, ...] | None = None) -> str:
    head = head or ("",) * len(rows[0])
    cells = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)
