"""Two states of all runs side by side: did a change help, beyond noise?"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.core.params import UserError
from pipeline.evaluation import files
from pipeline.evaluation.files import Evaluation
from pipeline.metrics.metric import Entry
from pipeline.report.facts import differing
from pipeline.report.page import Bold, Section
from pipeline.report.tables import is_measured, rounded, shown_in


@contextmanager
def state(against: str, evaluations: Path) -> Iterator[Path]:
    """The folder of evaluations that ``against`` means: itself, or ``evaluations`` as it was at a git revision.

    Of a revision the files are fetched by DVC, out of its cache or remote, into a folder that is gone at the end.
    Raises ``UserError`` where it is neither, and where DVC has not the files.
    """
    if Path(against).is_dir():
        yield Path(against)
        return
    if _ran("git", "rev-parse", "--verify", "--quiet", f"{against}^{{commit}}") is None:
        raise UserError(f"--against {against} is neither a folder of evaluations nor a git revision of this project")
    if find_spec("dvc") is None:
        raise UserError(f"--against {against}: fetching what a revision had needs DVC (pip install dvc)")
    if _ran("git", "cat-file", "-e", f"{against}:./dvc.lock") is None:
        raise UserError(
            f"--against {against}: that revision has no dvc.lock, which says what its results were: commit dvc.lock "
            "after each 'dvc repro'"
        )
    with TemporaryDirectory() as place:
        folder = Path(place, "evaluation")
        command = [sys.executable, "-m", "dvc", "get", ".", evaluations.as_posix(), "--rev", against, "-o", str(folder)]
        done = subprocess.run([*command, "--quiet"], capture_output=True, text=True)
        if done.returncode or not folder.is_dir():
            lines = done.stderr.strip().splitlines() or ["it gave no reason"]
            raise UserError(
                f"--against {against}: DVC cannot give {evaluations} of that revision, since its cache lacks files or "
                f"it had none: {lines[-1].removeprefix('ERROR: ')}"
            )
        yield folder


def changes(before: Sequence[Evaluation], now: Sequence[Evaluation]) -> tuple[list[str], Section]:
    """What changed in words, and a table: of each run and measure the number before and now, and the difference.

    A difference is paired where both were resampled by the same groups. Then it has an interval, and is bold where it
    is better beyond noise.
    """
    older = {run.name: run for run in before}
    newer = {run.name: run for run in now}
    both = [name for name in newer if name in older]
    if not both:
        raise UserError(f"there is no run to compare: before {sorted(older)}, now {sorted(newer)}")
    shown = {name: e for name, e in shown_in([*before, *now], "report").items() if e.metric.better != "neither"}
    rows, better, worse, compared, lines = [], [], [], 0, []
    for name in both:
        old, new = older[name], newer[name]
        reason = "; ".join(differing(new, old))
        if reason:
            lines.append(f"{name} has no intervals, since the two states cannot be paired: {reason}.")
        for metric, entry in shown.items():
            if not (is_measured(old, metric) and is_measured(new, metric)):
                continue
            cell, sign = _difference(old, new, entry, paired=not reason)
            rows.append(
                [name, entry.title, *(rounded(run.estimates[metric].value) for run in (old, new)), cell]
            )  # fmt: skip
            compared += not reason
            (better if sign > 0 else worse if sign < 0 else []).append(f"{name} in {entry.title}")
    for word, missing in (("now", set(older) - set(newer)), ("before", set(newer) - set(older))):
        if missing:
            lines.append(f"Not there {word}: {', '.join(sorted(missing))}.")
    words = [_verdict(better, worse, compared), *lines]
    head = ["run", "measure", "before", "now", "difference"]
    note = "Now minus before, paired, with its 95 % interval. Bold: better beyond noise; ~: within noise."
    return words, Section("Before and now", [note], [head, *rows])


def _difference(old: Evaluation, new: Evaluation, entry: Entry, paired: bool) -> tuple[str, int]:
    """The cell, and 1 where it is better beyond noise, -1 where it is worse, else 0."""
    first, second = old.estimates[entry.name], new.estimates[entry.name]
    if not paired:
        return rounded(second.value - first.value, "+"), 0
    gain = second - first
    low, high = gain.interval()
    text = f"{rounded(gain.value, '+')} ({rounded(low, '+')} to {rounded(high, '+')})"
    if not gain.beyond_noise():
        return f"~ {text}", 0
    sign = 1 if (gain.value > 0) == (entry.metric.better == "higher") else -1
    return (Bold(text) if sign > 0 else text), sign


def _verdict(better: Sequence[str], worse: Sequence[str], compared: int) -> str:
    """'Better beyond noise: 2 of 40 ...', with what chance alone would give."""
    if not compared:
        return "Nothing can be compared beyond noise: no two states can be paired."
    words = [
        f"{word} beyond noise: {', '.join(names)}." for word, names in (("Better", better), ("Worse", worse)) if names
    ]
    by_chance = f"Of {compared} differences about {max(1, round(0.05 * compared))} would be beyond noise by chance."
    return " ".join([*(words or ["No difference is beyond noise."]), by_chance])


def _ran(*words: str) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def read_all(folder: Path, names: Sequence[str]) -> list[Evaluation]:
    """The evaluations in ``folder`` of runs with these names, and all baselines; raises where there are none."""
    places = [folder / name for name in names if (folder / name / "details.json").is_file()]
    places += sorted(path.parent for path in (folder / "baselines").glob("*/details.json"))
    if not places:
        raise UserError(f"there are no evaluations in {folder} of the runs {list(names)}")
    return [files.read(place) for place in places]
