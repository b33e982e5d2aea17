"""The report stage: all evaluated runs in one table, in the terminal and as report/report.md, metrics.csv and runs.png.

python -m pipeline.evaluation.report
"""

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from pipeline.params import UserError, entry, option, parse

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Metric, its title, and what is better.
COLUMNS = {
    "auc_same_different": ("AUC same/different", "higher"),
    "auc_same_opposite": ("AUC same/opposite", "higher"),
    "gap_same_different": ("cosine gap", "higher"),
    "recall_at_1": ("recall@1", "higher"),
    "knn_macro_f1": ("kNN macro-F1", "higher"),
    "macro_f1": ("classifier macro-F1", "higher"),
    "steadiness": ("steadiness", "higher"),
    "flips_per_100": ("flips/100", "lower"),
}


@dataclass(frozen=True)
class ReportConfig:
    """Section ``report`` of params.yaml."""

    evaluations: Path = option(Path("evaluation"), "-i", help="the folder with a folder for each evaluated run")
    output: Path = option(Path("report"), "-o", help="where the report is written")
    runs: dict = dataclasses.field(default_factory=dict)  # those of params.yaml; one that left it leaves the report


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReportConfig, argv, sections=["report"], borrow=[""], description=__doc__)
    runs = [_read(config.evaluations / name / "details.json") for name in config.runs]
    if not runs:
        raise UserError("params.yaml names no runs to report on")
    runs.sort(key=lambda run: -(run["mean"]["auc_same_different"] or 0))
    heading, table = headline(runs), [["run", *(title for title, _ in COLUMNS.values())], *map(_row, runs)]
    config.output.mkdir(parents=True, exist_ok=True)
    page = f"# {heading[0]}\n\n{heading[1]}\n\n{_markdown(table)}\n\n![all runs](runs.png)\n"
    (config.output / "report.md").write_text(page, encoding="utf-8")
    with (config.output / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        _write_csv(csv.writer(file), runs)
    figure(runs, heading[0]).savefig(config.output / "runs.png", dpi=120)
    print(f"{heading[0]}\n{heading[1]}\n\n{_terminal(table)}\n\nwritten to {config.output}/")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"the run '{path.parent.name}' is not evaluated: there is no {path} ('dvc repro' makes it)")
    return json.loads(path.read_text(encoding="utf-8"))


def headline(runs: list[dict[str, Any]]) -> tuple[str, str]:
    """What the numbers are of: data, backbone, frames. Runs of different data or features are not compared."""
    facts = (
        "dataset", "backbone", "backbone_weights", "input_size", "val_split", "val_frames", "val_videos", "pairs_of",
        "opposites",
    )  # fmt: skip
    first = runs[0]["about"]
    for run in runs:
        other = [f"{k} {run['about'][k]!r} and {first[k]!r}" for k in facts if run["about"][k] != first[k]]
        if other:
            names = f"{run['about']['run']} and {first['run']}"
            raise UserError(f"the runs {names} cannot stand in one table: {'; '.join(other)}")
    title = f"Adapters on {first['dataset']}, frozen {first['backbone']} at {first['input_size']} pixels"
    scored = (
        f"{first['val_frames']:,} validation frames of {first['val_videos']} videos; pairs of {first['pairs_of']:,} "
        f"and neighbours among {first['knn_candidates']:,} evenly spaced frames; pairs and neighbours of one person "
        "or video are left out. ± is the standard deviation over seeds, where there are several."
    )
    return title, scored


def figure(runs: list[dict[str, Any]], title: str) -> plt.Figure:
    """A panel a metric, a dot a run with its deviation over seeds."""
    shown = [name for name in COLUMNS if any(run["mean"].get(name) is not None for run in runs)]
    columns = 4
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 0.9 + rows * (0.9 + 0.28 * len(runs))), sharey=True, squeeze=False
    )
    names = [run["about"]["run"] for run in runs]
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, shown, strict=False):
        label, better = COLUMNS[name]
        for place, run in enumerate(runs):
            if (value := run["mean"].get(name)) is not None:
                axis.errorbar(value, place, xerr=run["deviation"].get(name) or 0, fmt="o", color="#0072B2", capsize=3)
        axis.set_yticks(range(len(runs)), names)
        axis.set_ylim(len(runs) - 0.5, -0.5)
        axis.set_title(f"{label} ({better} is better)", fontsize=9)
        axis.grid(axis="x", alpha=0.4)
        axis.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return figure


def _row(run: dict[str, Any]) -> list[str]:
    name = run["about"]["run"] + (f" ({run['about']['seeds']} seeds)" if run["about"]["seeds"] > 1 else "")
    return [name, *(_cell(run["mean"].get(c), run["deviation"].get(c)) for c in COLUMNS)]


def _cell(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    digits = 1 if mean >= 10 else 3
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")


def _markdown(table: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|" + " --- |" * len(table[0]), *body])


def _terminal(table: list[list[str]]) -> str:
    wide = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in table)


def _write_csv(writer: Any, runs: list[dict[str, Any]]) -> None:
    metrics = sorted({name for run in runs for name in run["mean"]})
    writer.writerow(["run", "seeds", *(c for name in metrics for c in (name, f"{name}_deviation"))])
    for run in runs:
        values = [run[part].get(name) for name in metrics for part in ("mean", "deviation")]
        writer.writerow([run["about"]["run"], run["about"]["seeds"], *values])


if __name__ == "__main__":
    entry(main)
