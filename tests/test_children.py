"""Commands are killed for real while one that they started is at work: it ends too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, draw_folder
from test_train import made, place  # noqa: F401 - fixtures

from pipeline.core import children

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the number of the parent")
KILLS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
TRAIN = ["--cpu", "-e", "1", "--window", "3", "--embedding-size", "8", "--batch-size", "24", "--no-reduce", "-r", "1"]


def below(process: int) -> dict[int, str]:
    """The processes that a process started, and those that they started: their ids and command lines."""
    words = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split(None, 3) for line in lines]
    found, todo = {}, [str(process)]
    while todo:
        mine = [row for row in rows if row[1] == todo[0] and not row[2].startswith("Z")]
        found |= {int(pid): args for pid, _, _, args in mine}
        todo = todo[1:] + [row[0] for row in mine]
    return found


def there(processes: Iterable[int]) -> list[int]:
    words = ["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, processes))]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if not line.split()[1].startswith("Z")]


def killed(command: list[str], how: signal.Signals, last: str) -> list[int]:
    """Starts a command and kills it alone when one with the word ``last`` is below it; gives who is left in the end."""
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job is deaf to it
    process = subprocess.Popen([sys.executable, *command], start_new_session=True, preexec_fn=heard)
    started: dict[int, str] = {}
    try:
        while not any(last in args for args in started.values()):
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
        "from pipeline.core import children\n"
        "from pipeline.core.params import entry\n"
        "deep = int(sys.argv[1])\n"
        "entry(lambda: children.run([sys.executable, __file__, str(deep - 1)]) if deep else time.sleep(60))\n"
    )
    assert killed([str(script), "2"], how, "command.py 0") == []


def test_the_exit_status_is_the_childs_and_no_more_is_handed_on(monkeypatch):
    monkeypatch.setenv(children.PARENT, "1")  # of somebody else: nobody's child takes it for its own
    is_handed_on = f"os.environ['{children.PARENT}'] == '{os.getpid()}'"
    look = f"import os, sys; from pipeline.core import children; sys.exit(not {is_handed_on})"
    monkeypatch.chdir(ROOT)
    assert children.run([sys.executable, "-c", look]) == 0
    assert children.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    ended = "from pipeline.core.children import *; end_with_parent(); time.sleep(20)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ended], env=os.environ | {children.PARENT: "1"}, check=False)
    assert done.returncode == 128 + signal.SIGTERM  # its parent is gone already
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("how", KILLS[:2])
def test_the_evaluation_of_a_training_that_is_killed_ends(place, how):  # noqa: F811
    command = [str(ROOT / "train.py"), *TRAIN, "--output", "runs", "--name", "tried"]
    assert killed(command, how, "pipeline.evaluation.evaluate") == []
    assert Path("runs/tried/summary.json").is_file()
    assert not Path("runs/tried/metrics.json").exists()


def test_what_an_extraction_or_a_prediction_started_ends(workplace):
    draw_folder(workplace / "faces", {"train/happy/v1": 3, "val/happy/v2": 3})
    extraction = ["-m", "extract", "-d", "faces", "-s", "e.zarr", "--device", "cpu"]
    assert killed(extraction, signal.SIGTERM, "pipeline.datasets.index") == []
    assert not (workplace / "e.zarr").exists()
    (workplace / "run/seed_0").mkdir(parents=True)
    (workplace / "run/seed_0/best.safetensors").touch()  # is read when the frames are extracted
    prediction = ["-m", "pipeline.submission.predict", "--run", "run", "--list", "list.txt", "--task", "va"]
    assert (
        killed([*prediction, "--frames", "faces", "--device", "cpu"], signal.SIGTERM, "pipeline.datasets.index") == []
    )
    assert not (workplace / "submission").exists()


@pytest.mark.parametrize("kind", ["Pool(2, end_with_pool)", "ProcessPoolExecutor(2, spawn, end_with_pool)"])
def test_the_workers_of_a_pool_end_with_it(workplace, kind):
    """As of Python 3.11 the workers of a ProcessPoolExecutor stay for ever when its process is killed."""
    script = workplace / "command.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from pipeline.core.children import end_with_pool\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        f"    with {'spawn.' * kind.startswith('Pool')}{kind} as pool:\n"
        "        list(pool.map(time.sleep, [60] * 4))\n"
    )
    assert killed([str(script)], signal.SIGTERM, "spawn_main") == []
