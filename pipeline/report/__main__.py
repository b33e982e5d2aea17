"""The report stage: all evaluated runs side by side, in the terminal and as a page.

    report/index.html    tables and plots in one file, which needs no network
    report/report.md     the tables
    report/metrics.csv   every metric of every run, unrounded, with its interval
    report/runs.png      the main metrics

python -m pipeline.report
python -m pipeline.report --against HEAD~1    before and now, and what changed beyond noise: report_against.md
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.files import all_or_none, settle, write_text
from pipeline.core.params import UserError, entry, option, parse
from pipeline.evaluation import files
from pipeline.report.changes import changes, read_all, state
from pipeline.report.facts import check, headline
from pipeline.report.page import columns, html_page, markdown_page, terminal
from pipeline.report.tables import (
    against,
    costly_confusions,
    costly_groups,
    criterion,
    csv_text,
    gains,
    main_table,
    notes,
    ordered,
    over_folds,
    results,
)
from pipeline.report.verdict import verdict


@dataclass(frozen=True)
class ReportConfig:
    """Section ``report`` of params.yaml."""

    evaluations: Path = option(Path("evaluation"), "-d", help="the folder with a folder for each evaluated run")
    output: Path = option(Path("report"), "-o", help="where the report is written")
    against: str | None = option(
        None, help="compare with an earlier state instead: a git revision, or a folder of evaluations"
    )
    # Those of params.yaml; one that left it leaves the report.
    runs: dict = dataclasses.field(default_factory=dict)
    backbones: dict = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.runs, *self.backbones]


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReportConfig, argv, sections=["report"], borrow=[""], description=__doc__)
    if not config.runs:
        raise UserError("params.yaml names no runs to report on")
    settle(config.evaluations, "baselines")
    if config.against is not None:
        return compare_with(config)
    extra = sorted(path.parent for path in (config.evaluations / "baselines").glob("*/details.json"))
    runs = [files.read(folder) for folder in [*(config.evaluations / name for name in config.names), *extra]]
    check(runs)
    runs = ordered(runs)
    title, facts = headline(runs)
    sections = [results(runs), over_folds(runs), gains(runs), criterion(runs), against(runs)]
    sections += [costly_groups(runs), costly_confusions(runs), notes(runs)]
    sections = [section for section in sections if section is not None]
    baselines = [run.name for run in runs if run.about["baseline"]]
    beside = next((name for name in config.runs if name in baselines), None)  # the first: frozen features
    judged = verdict(runs, beside)
    # Here: matplotlib and OpenCV take most of a second to import.
    from pipeline.evaluation import shown
    from pipeline.report.content import as_script, best_seed, content, does
    from pipeline.report.pictures import figure

    drawn = {run.name: shown.read(run.folder) for run in runs}
    script = as_script(content(runs, drawn, beside))
    abilities = {run.name: does(run) for run in runs}
    heads, rows = main_table(runs, abilities, {run.name: best_seed(run) for run in runs})
    with all_or_none(config.output, "report") as folder:
        write_text(folder / "metrics.csv", csv_text(runs))
        figure(runs, title).savefig(folder / "runs.png")
        write_text(folder / "report.md", markdown_page(title, judged, facts, sections))
        write_text(folder / "index.html", html_page(title, judged, facts, heads, rows, sections[1:], script))
    print(terminal(title, judged, facts, sections) + f"\n\nwritten to {config.output}/: open index.html")


def compare_with(config: ReportConfig) -> None:
    """Prints and writes what changed in all runs since an earlier state."""
    now = read_all(config.evaluations, config.names)
    with state(config.against, config.evaluations) as folder:
        words, table = changes(read_all(folder, config.names), now)
    page = markdown_page(f"Now against {config.against}", words, [], [table], picture=None)
    place = config.output.with_name(f"{config.output.name}_against.md")  # the folder itself is an output of DVC
    write_text(place, page)
    print("\n".join([*columns(table.table), "", *words, "", f"written to {place}"]))


if __name__ == "__main__":
    entry(main)
