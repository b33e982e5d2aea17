"""Commands that a command starts: they end with it, however it ends.

Without this, killing train.py would leave its evaluation running. A process cannot see its own SIGKILL, so it is the
child that looks: it is told who its parent is, and ends itself when that one is gone. That needs no signal handlers, no
process groups (Ctrl-C on a terminal reaches all of one) and nothing that only Linux has, such as PR_SET_PDEATHSIG.
"""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

PARENT = "EMOTION_ADAPTERS_PARENT"
SECONDS = 0.2  # between two looks


def run(command: Sequence[str]) -> int:
    """The exit status of one of our own commands; it ends when this process does."""
    return subprocess.run(command, check=False, env=os.environ | {PARENT: str(os.getpid())}).returncode


def end_with_parent() -> None:
    """From now on this process ends soon after the one that started it by ``run``, as by SIGTERM."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None and os.name == "posix":  # elsewhere a process keeps the number of a parent that is gone
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os._exit(128 + signal.SIGTERM)


def end_with_pool() -> None:
    """The same for a worker process of a pool, as its initializer: an executor's workers would wait for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(128 + signal.SIGTERM)
