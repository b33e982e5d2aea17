"""What a run leaves behind and goes on from: the state of a seed, its finished checkpoints, the run's summary."""

from pathlib import Path
from typing import Any

from pipeline.adapter.adapter import Adapter, checkpoints_of, load_adapter, load_state, read_adapter
from pipeline.adapter.own import TIME, seconds_of
from pipeline.core.files import write_json
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, refuse_seen, some
from pipeline.core.stores import vouched_for
from pipeline.training.data import TrainingData
from pipeline.training.loop import Trainer

# The result of a seed: its best epoch, the score that this was chosen by, and the score before training.
RESULT = ("seed", "epoch", "select_by", "select", "untrained")


def finished(data: TrainingData, folder: Path) -> dict[str, Any] | None:
    """The result of a seed that is trained to its end; None where it is not.

    Raises ``UserError`` where it was trained on other features, or with other parts than the labels have now.
    """
    if not (folder / "last.safetensors").is_file() or (folder / "state.safetensors").is_file():
        return None
    best = load_own(data, folder / "best.safetensors")
    _refuse_other_parts(data, folder, best.seen)
    last = load_own(data, folder / "last.safetensors").facts
    result = _with_nan({name: best.facts[name] for name in RESULT})
    return result | {"epochs": last["epoch"], "steps": last["steps"]}


def load_own(data: TrainingData, path: Path) -> Adapter:
    """An adapter of this run. Raises ``UserError`` where it was trained on other features than those of ``data``.

    One whose backbone was trained too knows the features that it started from.
    """
    if data.trunk is None:
        return load_adapter(path, data.facts["made_by"], data.config.alike)
    adapter = read_adapter(path)
    there = adapter.facts.get("trained", adapter.facts)["made_by"]
    refusal = f"the backbone of {path} was trained from another one than the one that made this store"
    vouched_for(refusal, there, data.facts["made_by"], data.config.alike)
    return adapter


def restore(data: TrainingData, trainer: Trainer, folder: Path) -> tuple[int, dict[str, Any], int, dict[str, str]]:
    """Puts the stored state of a seed back.

    Gives its epoch, its best epoch so far, the epochs since that one, and what the user vouched for until then and now.
    """
    tensors, facts, seen = load_state(folder / "state.safetensors")
    refusal = f"{folder} was trained on other features than this store has"
    difference = vouched_for(refusal, facts["made_by"], data.facts["made_by"], data.config.alike)
    vouched = facts.get("vouched", {}) | ({"the epochs before": difference} if difference else {})
    _refuse_other_parts(data, folder, seen)
    if "progress.steps" not in tensors:
        raise UserError(f"{folder} was begun by an older version of the code: delete it, and go on with the run")
    began, begins = facts.get("backbone_start"), trainer.adapter.facts.get("backbone_start")
    if began != begins:
        raise UserError(f"{folder} was begun with another backbone: backbone_start {began} then, {begins} now")
    trainer.restore(tensors)
    print(f"{folder}: goes on after epoch {facts['epoch']}")
    return facts["epoch"], _with_nan(facts["best"]), facts["waited"], vouched


def add_seconds(folder: Path, seconds: float) -> None:
    """Adds to what ``time.json`` says of a seed: how long it was trained, by the clock, in all its calls.

    Only of runs that train a backbone: two trainings of any other run leave the same bytes.
    """
    before = seconds_of(folder) or 0.0
    write_json(folder / TIME, {"seconds": before + seconds})


def _with_nan(result: dict[str, Any]) -> dict[str, Any]:
    """A result as a file has it, where a score that is not a number is null."""
    scores = ("select", "untrained")
    return result | {name: float("nan") if result[name] is None else result[name] for name in scores}


def _refuse_other_parts(data: TrainingData, folder: Path, seen: dict[str, Seen] | None) -> None:
    """Raises ``UserError`` where the labels put other videos into a part than when the seed was trained up to here."""
    way_out = "Put the earlier labels and split back, or train a new run"
    refuse_seen(str(folder), seen, data.held_out, "validation", way_out)
    for part in ("train", "select"):
        if part in seen and seen[part] != data.seen.get(part):
            groups, videos = data.frames.names_of(part)
            known_groups, known_videos = seen[part].known(groups, videos)
            new = sorted({*videos} - {*known_videos}) + sorted({*groups} - {*known_groups})
            gone = len(seen[part].videos) - len(known_videos)
            more = f"{len(new):,} videos or groups are new ({some(new)})" if new else "no video or group is new"
            raise UserError(
                f"{folder} cannot go on: its {part} part has changed since it was begun: {more}, and {gone:,} "
                f"videos are gone. {way_out}"
            )


def write_summary(folder: Path, results: list[dict[str, Any]]) -> None:
    """The results of all seeds, and the hashes of their best checkpoints: what DVC's evaluate stage depends on.

    It cannot depend on the run's folder: TensorBoard's event files tell the time, and are other bytes in each training.
    """
    summary = {"run": folder.name, "seeds": results, "checkpoints": checkpoints_of(folder)}
    write_json(folder / "summary.json", summary, sort_keys=True)
