"""Commands are killed for real while one that they started is at work: it ends too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, draw_folder
from test_train import made, place  # noqa: F401 - fixtures

from pipeline import children

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the number of the parent")
KILLS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
TRAIN = ["--cpu", "-e", "1", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-r", "1"]


def below(process: int) -> list[int]:
    """The ids of the processes that a process started, and of those that they started."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(of) for pid, of, state in map(str.split, table.splitlines()) if not state.startswith("Z")}
    found, todo = [], [process]
    while todo:
        mine = [pid for pid, of in parents.items() if of == todo[0]]
        found, todo = found + mine, todo[1:] + mine
    return found


def there(processes: list[int]) -> list[int]:
    words = ["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, processes))]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if not line.split()[1].startswith("Z")]


def killed(command: list[str], how: signal.Signals, generations: int = 1) -> list[int]:
    """Starts a command, kills it alone as soon as so many are below it, and gives those that are left after a while."""
    process, started = subprocess.Popen([sys.executable, *command], start_new_session=True), []
    try:
        while len(started) < generations:
            assert process.poll() is None, "it has ended before it could be killed"
            time.sleep(0.02)
            started = below(process.pid)
        process.send_signal(how)
        assert process.wait(60) != 0
        end = time.monotonic() + 60
        while there(started) and time.monotonic() < end:
            time.sleep(0.1)
        return there(started)
    finally:
        process.kill()
        for left in there(started):
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("how", KILLS)
def test_a_child_ends_with_its_parent_and_its_own_child_with_it(workplace, how):
    """Each starts the next and waits, the last one for a minute: all of them are gone within seconds."""
    script = workplace / "command.py"
    script.write_text(
        "import sys, time\n"
        "from pipeline import children\n"
        "from pipeline.params import entry\n"
        "deep = int(sys.argv[1])\n"
        "entry(lambda: children.run([sys.executable, __file__, str(deep - 1)]) if deep else time.sleep(60))\n"
    )
    assert killed([str(script), "2"], how, generations=2) == []


def test_the_exit_status_is_the_childs_and_no_more_is_handed_on(monkeypatch):
    monkeypatch.setenv(children.PARENT, "1")  # of somebody else: nobody's child takes it for its own
    look = (
        f"import os, sys; from pipeline import children; sys.exit(os.environ['{children.PARENT}'] != '{os.getpid()}')"
    )
    monkeypatch.chdir(ROOT)
    assert children.run([sys.executable, "-c", look]) == 0
    assert children.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    ended = "from pipeline.children import *; end_with_parent(); time.sleep(20)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ended], env=os.environ | {children.PARENT: "1"}, check=False)
    assert done.returncode == 128 + signal.SIGTERM  # its parent is gone already
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("how", KILLS[:2])
def test_the_evaluation_of_a_training_that_is_killed_ends(place, how):  # noqa: F811
    command = [str(ROOT / "train.py"), *TRAIN, "--output", "runs", "--name", "tried"]
    assert killed(command, how) == []
    assert Path("runs/tried/summary.json").is_file()
    assert not Path("runs/tried/metrics.json").exists()


def test_what_an_extraction_or_a_prediction_started_ends(workplace):
    draw_folder(workplace / "faces", {"train/happy/v1": 3, "val/happy/v2": 3})
    extraction = ["-m", "extract", "-d", "faces", "-s", "e.zarr", "--device", "cpu"]
    assert killed(extraction, signal.SIGTERM) == []
    assert not (workplace / "e.zarr").exists()
    (workplace / "run/seed_0").mkdir(parents=True)
    (workplace / "run/seed_0/best.safetensors").touch()  # is read when the frames are extracted
    prediction = ["-m", "pipeline.evaluation.predict", "--run", "run", "--list", "list.txt", "--task", "va"]
    assert killed([*prediction, "--frames", "faces", "--device", "cpu"], signal.SIGTERM, generations=2) == []
    assert not (workplace / "submission.zarr").exists()


@pytest.mark.parametrize("kind", ["Pool(2, end_with_pool)", "ProcessPoolExecutor(2, spawn, end_with_pool)"])
def test_the_workers_of_a_pool_end_with_it(workplace, kind):
    """As of Python 3.11 the workers of a ProcessPoolExecutor stay for ever when its process is killed."""
    script = workplace / "command.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from pipeline.children import end_with_pool\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        f"    with {'spawn.' * kind.startswith('Pool')}{kind} as pool:\n"
        "        list(pool.map(time.sleep, [60] * 4))\n"
    )
    assert killed([str(script)], signal.SIGTERM, generations=3) == []  # two workers and the tracker of their resources
