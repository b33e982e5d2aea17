"""Two states of all runs: python -m pipeline.report --against."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_report import ADAPTER, FROZEN, GROUPS, evaluated, named, place  # noqa: F401 - a fixture

from pipeline.core.params import UserError
from pipeline.evaluation import files
from pipeline.report import __main__ as report


@pytest.fixture
def earlier(place):  # noqa: F811
    """The runs as they were, in 'old': since then 'adapter' separates better and flips more."""
    shutil.copytree(place / "evaluation", place / "old")
    evaluated("adapter", ADAPTER | {"auc_same_different": 0.85, "knn_flips_per_100": 6.0}, seeds=3)
    return place


def rows(place):  # noqa: F811
    text = (place / "report_against.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return {tuple(row[:2]): row[2:] for row in ([c.strip() for c in line.split("|")[1:-1]] for line in lines)}


def test_a_folder_of_evaluations_is_set_beside_those_of_now_in_pairs(earlier, capsys):
    report.main(["--against", "old"])
    auc = "auc_same_different"
    before, now = (files.read(Path(folder, "adapter")).estimates[auc] for folder in ("old", "evaluation"))
    low, high = np.quantile(now.resampled - before.resampled, [0.025, 0.975])
    found = rows(earlier)
    assert found["adapter", "AUC same/different"] == ["0.800", "0.850", f"**+0.050 ({low:+.3f} to {high:+.3f})**"]
    assert found["adapter", "kNN flips/100"][2].startswith("+1.700 (")  # worse: neither bold nor within noise
    assert found["frozen", "AUC same/different"][2].startswith("~ ")
    out = capsys.readouterr().out
    assert "Better beyond noise: adapter in AUC same/different. Worse beyond noise: adapter in kNN flips/100." in out
    assert "Of 8 differences about 1 would be beyond noise by chance." in out
    assert not (earlier / "report").exists()  # an output of DVC, which would make it again


def test_states_of_other_groups_have_no_interval_and_say_why(earlier):
    evaluated("adapter", ADAPTER | {"auc_same_different": 0.9}, groups=[*GROUPS[:8], "else"])
    report.main(["--against", "old"])
    assert rows(earlier)["adapter", "AUC same/different"] == ["0.800", "0.900", "+0.100"]
    text = (earlier / "report_against.md").read_text(encoding="utf-8")
    assert (
        "adapter has no intervals, since the two states cannot be paired: 9 and 9 groups, with different names." in text
    )


def test_runs_of_one_state_alone_are_named(earlier):
    shutil.rmtree(earlier / "old/frozen")
    evaluated("new", ADAPTER)
    evaluated("wide", FROZEN, baseline=True, folder="old", folder_name="baselines/wide")
    named("frozen", "adapter", "new")
    report.main(["--against", "old"])
    text = (earlier / "report_against.md").read_text(encoding="utf-8")
    assert "Not there now: wide." in text
    assert "Not there before: frozen, new." in text


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("nothing", "--against nothing is neither a folder of evaluations nor a git revision of this project"),
        ("empty", r"there are no evaluations in empty of the runs \['frozen', 'adapter'\]"),
    ],
)
def test_what_is_no_state_is_one_line(earlier, against, words):
    (earlier / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        report.main(["--against", against])


DVC_YAML = "stages:\n  evaluate:\n    cmd: 'true'\n    outs:\n" + "".join(
    f"      - evaluation/{run}/{name}\n"
    for run in ("frozen", "adapter")
    for name in ("details.json", "resampled.npz", "shown.npz")
)


@pytest.mark.slow
def test_a_revision_is_what_dvc_kept_of_it(place):  # noqa: F811
    pytest.importorskip("dvc")
    env = os.environ | {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
                        "GIT_COMMITTER_EMAIL": "a@b", "PYTHONPATH": str(ROOT)}  # fmt: skip

    def ran(*words):
        done = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    dvc = [sys.executable, "-m", "dvc"]
    ran("git", "init", "-q")
    ran("git", "commit", "-q", "--allow-empty", "-m", "nothing yet")
    with pytest.raises(UserError, match=r"that revision has no dvc\.lock.*commit dvc\.lock after each 'dvc repro'"):
        report.main(["--against", "HEAD"])
    ran(*dvc, "init", "-q")
    (place / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    ran(*dvc, "commit", "-f", "-q")
    ran("git", "add", ".")
    ran("git", "commit", "-qm", "first")
    evaluated("adapter", ADAPTER | {"auc_same_different": 0.85}, seeds=3)
    report.main(["--against", "HEAD"])
    assert rows(place)["adapter", "AUC same/different"][:2] == ["0.800", "0.850"]
    shutil.rmtree(place / ".dvc/cache")
    with pytest.raises(UserError, match="--against HEAD: DVC cannot give evaluation of that revision") as error:
        report.main(["--against", "HEAD"])
    assert "\n" not in str(error.value)
