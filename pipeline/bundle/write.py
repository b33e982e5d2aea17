"""A trained run packed into a folder that works elsewhere, with neither the run, its data nor this place."""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.adapter.adapter import Adapter, save_adapter
from pipeline.bundle import card, graphs, licences
from pipeline.core.files import read_json, save_json, write_text, writing
from pipeline.core.params import UserError
from pipeline.embed.bundled import FACTS, FORMAT, adapter_file, sha256, weights_file
from pipeline.embed.frozen import Frozen
from pipeline.embed.loading import Trained, chosen, load_run
from pipeline.extraction.weights.file import load, tensors_sha256

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Bundled:
    """What was written: bytes by file, and lines about what was left out."""

    folder: Path
    sizes: Mapping[str, int]
    notes: list[str]


def write_bundle(
    run: Path, folder: Path, *, onnx: bool = False, with_weights: bool = False, weights: Path | None = None,
    evaluation: Path | None = None,
) -> Bundled:  # fmt: skip
    """Packs the ``run`` into a new ``folder``: all seeds, and as graphs the one with the best selection score.

    ``with_weights`` includes the weights of the backbone whatever is known of their licence. ``weights`` is their file,
    where it is not where it was in training; ``evaluation`` is the folder of the run's evaluation, where it is not
    where 'dvc repro' or train.py leave it. Equal runs give equal bytes. Raises ``UserError`` before anything is
    written, and leaves nothing behind where it cannot end.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already: name a new folder with -o, or delete it")
    results, trained = _read_run(run)
    several = [of["name"] for of in trained.facts.get("stores", [])]
    if several and (onnx or with_weights or weights is not None):
        raise UserError(
            f"the run {run} was trained on the stores {', '.join(several)} side by side: its bundle takes the features "
            "of all, and has no backbone and no graphs, so leave --onnx, --weights and --with-weights out"
        )
    if weights is not None:
        trained = Trained(run, trained.adapters, weights, trained.examples)
    if onnx:
        graphs.check_packages()
    best = chosen(run, results, None)[0]
    facts = trained.facts
    one_backbone = trained.weights is not None and not several
    licence = licences.of_weights(facts["made_by"]) if one_backbone else None
    packed = licence is not None and (licence.passed_on or with_weights)
    if packed:
        _check_weights(run, trained.weights, facts["made_by"])
    made = _graphs(trained, best, packed) if onnx else {}
    described = describe(run.name, results, trained.adapters[best], licence, packed)
    described["onnx"] = graphs.described(trained.adapters[best], best, list(made)) if onnx else None
    scores = card.evaluated(run, evaluation)

    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)  # of a command that was killed
        partial.mkdir(parents=True)
        try:
            for name, adapter in trained.adapters.items():
                save_adapter(partial / adapter_file(name), _without_this_place(adapter))
            if packed:
                shutil.copyfile(trained.weights, partial / weights_file(facts["made_by"]["backbone"]))
            for name, graph in made.items():
                (partial / name).write_bytes(graph)
            write_text(partial / "README.md", card.text(described, scores))
            files = sorted(partial.iterdir())
            save_json(partial / FACTS, described | {"files": {file.name: sha256(file) for file in files}})
            sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return Bundled(folder, sizes, _notes(trained, licence, packed, onnx))


def describe(
    run: str, results: list[dict[str, Any]], adapter: Adapter, licence: licences.Licence | None, packed: bool
) -> dict[str, Any]:
    """What bundle.json says, but for the graphs and the hashes; ``adapter`` is that of the best seed."""
    facts, made_by = adapter.facts, adapter.facts["made_by"]
    by = "classifier" if "classes" in adapter.predicts else "class centres"
    return {
        "format": FORMAT,
        "run": run,
        "results": results,
        **{name: facts[name] for name in ("model", "loss", "pooling", "temperature", "window", "classes", "au_names")},
        **{name: facts[name] for name in ("clips", "output_names", "thresholds_of") if name in facts},
        **({} if adapter.au_thresholds is None else {"au_thresholds": adapter.au_thresholds.tolist()}),
        "trained_on": facts["trained_on"],
        "classes_by": by if facts["classes"] else None,
        "num_features": facts["num_features"],
        "embedding_size": adapter.head.embedding_size,
        "made_by": made_by,
        "weights": None
        if licence is None
        else {
            "backbone": made_by["backbone"],
            "source": made_by["source"],
            "tensors_sha256": made_by["weights_sha256"],
            "licence": licence.name,
            "address": licence.address,
            "file": weights_file(made_by["backbone"]) if packed else None,
        },
    }


def _read_run(run: Path) -> tuple[list[dict[str, Any]], Trained]:
    """The results of all seeds, and all adapters; ``UserError`` where it is no finished run."""
    if not run.is_dir():
        is_file = "is a file: name" if run.exists() else "is not there: name"
        raise UserError(f"{run} {is_file} the folder of a run, as train.py makes it")
    if (run / FACTS).is_file():
        raise UserError(f"{run} is a bundle already: name the folder of a run")
    if not (run / SUMMARY).is_file():
        raise UserError(
            f"the run {run} is not finished, or is no run: there is no {run / SUMMARY}; go on with it by 'python "
            f"train.py --resume {run}'"
        )
    trained = load_run(run, "all")
    summary = read_json(run / SUMMARY, "the summary of a run", f"Write it again with 'python train.py --resume {run}'")
    return summary["seeds"], trained


def _check_weights(run: Path, weights: Path, made_by: dict[str, Any]) -> None:
    """Raises ``UserError`` where the file is gone, or holds other weights than the run was trained with."""
    if not weights.is_file():
        raise UserError(
            f"the weights of the backbone are not at {weights}: make that file again with 'python -m "
            f"pipeline.extraction.weights --backbone {made_by['backbone']}', or name it with --weights"
        )
    tensors, _ = load(weights)
    if tensors_sha256(tensors) != made_by["weights_sha256"]:
        raise UserError(f"{weights} holds other weights than the run {run} was trained with")


def _graphs(trained: Trained, best: str, packed: bool) -> dict[str, bytes]:
    """The graphs by file; that of the backbone, which holds its weights, only where these are in the bundle."""
    import torch

    adapter, made = trained.adapters[best], {}
    if packed:
        made_by = trained.facts["made_by"]
        frozen = Frozen(trained.path, made_by, trained.weights, torch.device("cpu"))
        made[graphs.IMAGES] = graphs.images_graph(frozen.backbone)
    made[graphs.WINDOWS] = graphs.windows_graph(adapter)
    if adapter.head.pairs:
        made[graphs.PAIRS] = graphs.pairs_graph(adapter)
    return made


def _without_this_place(adapter: Adapter) -> Adapter:
    """The adapter without the place of the weights, and without the hashes of the names of the videos it has seen."""
    facts = {name: value for name, value in adapter.facts.items() if name not in ("seen", "weights")}
    return Adapter(
        adapter.front, adapter.head, adapter.predictors, copy.deepcopy(facts) | {"weights": None}, None, adapter.centres
    )


def _notes(trained: Trained, licence: licences.Licence | None, packed: bool, onnx: bool) -> list[str]:
    if "stores" in trained.facts:
        names = ", ".join(of["name"] for of in trained.facts["stores"])
        return [f"the backbones of the stores {names} are no part of it: it takes the features of all, side by side"]
    if licence is None:
        return ["no backbone is known that makes the features: they were imported" + _no_images(onnx)]
    if packed:
        return []
    backbone = trained.facts["made_by"]["backbone"]
    return [
        f"the weights of the backbone are left out: their licence is {licence.name}. They are at {licence.address}; "
        f"with --with-weights they are put in, by your word{_no_images(onnx)}",
        f"whoever gets the bundle makes them with 'python -m pipeline.extraction.weights --backbone {backbone} "
        "--folder BUNDLE'",
    ]


def _no_images(onnx: bool) -> str:
    return f", and so there is no {graphs.IMAGES}" if onnx else ""
