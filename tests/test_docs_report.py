"""What docs/report.md and docs/platforms.md show is done as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import ROOT
from test_report import place  # noqa: F401 - a fixture

from pipeline.core.params import UserError
from pipeline.report import __main__ as report
from pipeline.training import browse
from pipeline.training.board import Board


def commands(name):
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]


def test_each_command_of_the_page_is_one_that_is_tested():
    """The first is run by test_changes.py, ``make`` below."""
    assert commands("report") == [
        "python -m pipeline.report --against HEAD~1",
        "python -m pipeline.report --against old",
        "make board",
        "make repro PROFILE=small",
    ]


def test_the_report_against_a_folder_as_on_the_page(place):  # noqa: F811
    shutil.copytree(place / "evaluation", place / "old")
    command = commands("report")[1].split()
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "written to report_against.md" in done.stdout
    report.main([])  # and the page is made beside it
    assert (place / "report_against.md").is_file()


@pytest.mark.parametrize("command", ["make board", "make repro PROFILE=small"])
def test_make_runs_what_the_page_says(command):
    done = subprocess.run([*command.split(), "--dry-run", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    wanted = {
        "make board": ["python -m pipeline.training.browse --runs runs"],
        "make repro PROFILE=small": ["python -m pipeline.profile --name small", "cd profiles/small && dvc repro"],
    }
    assert [line for line in done.stdout.splitlines() if line in wanted[command]] == wanted[command]


def test_the_line_that_says_what_torch_sees():
    (line,) = commands("platforms")
    program = re.fullmatch(r'python -c "(.*)"', line)[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"(None|\d+\.\d+) (True|False)\n", done.stdout)


def test_the_boards_address_sets_what_is_set_by_hand_otherwise():
    where = urlsplit(browse.address("http://localhost:6006/"))
    query = parse_qs(where.query)
    assert (query["smoothing"], query["runColorGroup"]) == (["0"], ["regex:(.*)/seeds?_"])
    assert '{"plugin": "scalars", "tag": "auc_same_different/val"}' in query["pinnedCards"][0]
    group = re.compile(browse.COLOUR_BY.removeprefix("regex:"))
    names = ["tcn/seed_0", "tcn/seed_12", "tcn/seeds_mean", "mlp/fold_1/seed_0"]
    assert [group.match(name)[1] for name in names] == ["tcn", "tcn", "tcn", "mlp/fold_1"]


def test_the_board_serves_what_there_is_and_refuses_an_empty_folder(workplace, capsys):
    (workplace / "runs").mkdir()
    with pytest.raises(UserError, match="there is nothing to show in runs"):
        browse.main([])
    with Board(workplace / "runs/one/seed_0", {"model": "mlp", "epochs": 1}) as board:
        board.scalars({"loss": 1.0}, "train", 1)
    browse.main(["--port", "0", "--no-wait", "--no-open"])
    assert re.search(r"TensorBoard: http://\S+:\d+/\?smoothing=0&\S+#timeseries", capsys.readouterr().out)


def test_the_boards_browser_needs_a_screen(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert browse.has_screen() == (sys.platform in ("win32", "darwin"))
    monkeypatch.setitem(os.environ, "DISPLAY", ":0")
    assert browse.has_screen()
