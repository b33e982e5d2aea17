"""Python that starts at once: commands run in forks of a server that has loaded the large libraries.

``python("-m", "pipeline.report", cwd=place)`` gives what ``subprocess.run([sys.executable, ...])`` does. The server
knows nothing of the project, so a command imports the project's modules from where it would find them otherwise.
A command that starts Python, by ``sys.executable`` or by the folder ``bin_folder()`` on its PATH, starts a fork too.
A command ends with whoever asked for it. Tests of imports and of memory need a real process.
"""

import array
import atexit
import contextlib
import gc
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PARENT = "EMOTION_ADAPTERS_PARENT"  # as in pipeline.core.children
LOADED = [
    *("cv2", "filelock", "h5py", "matplotlib.backends.backend_agg", "matplotlib.figure", "multiprocessing.spawn"),
    *("numpy", "pandas", "PIL.Image", "pyarrow.parquet", "pytorch_metric_learning.losses"),
    *("pytorch_metric_learning.miners", "safetensors.torch", "scipy.stats", "sklearn.decomposition"),
    *("sklearn.linear_model", "sklearn.metrics", "tensorboard.backend.event_processing.event_accumulator", "timm"),
    *("torch", "torch._dynamo", "torch.utils.tensorboard", "yaml", "zarr"),
]
OPTIONAL = ["dvc.cli.parser", "dvc.repo", "dvc.repo.reproduce", "dvc.repo.status"]


class Started:
    """A command in a fork: its process, and how it ended."""

    def __init__(self, socket_: socket.socket) -> None:
        self._answers = socket_.makefile("r")
        self._socket = socket_
        self.pid = int(self._answers.readline())

    def kill(self) -> None:
        """By SIGKILL; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit status, negative where a signal ended it."""
        with self._socket, self._answers:
            return int(self._answers.readline())


_folders: dict[int, Path] = {}  # by the process that asks: a fork of this one has its own


def bin_folder() -> Path:
    """The folder with the command ``python``; its server is started when it is first needed, and ends with us."""
    if os.getpid() not in _folders:
        folder = Path(tempfile.mkdtemp(prefix="forks"))
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--serve", folder], env=env, cwd="/", stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(shutil.rmtree, folder)
        atexit.register(process.stdin.close)
        assert process.stdout.readline() == b"ready\n"
        _folders[os.getpid()] = folder
    return _folders[os.getpid()]


def start(
    words: list[str], out: int, err: int, cwd: str | Path | None = None, env: Mapping[str, str] | None = None,
    largest_file: int | None = None, folder: Path | None = None,
) -> Started:  # fmt: skip
    """Starts ``python WORDS`` with these files for its output; ``largest_file`` limits what it may write, in bytes."""
    asked = {"words": [str(word) for word in words], "cwd": str(cwd or Path.cwd()), "largest_file": largest_file}
    asked["env"] = dict(os.environ if env is None else env)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str((folder or bin_folder()) / "socket"))
    body = json.dumps(asked).encode()
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [out, err]))]
    connection.sendmsg([f"{len(body):16d}".encode()], files)
    connection.sendall(body)
    return Started(connection)


def python(
    *words: str | Path, cwd: str | Path | None = None, env: Mapping[str, str] | None = None,
    largest_file: int | None = None, check: bool = False,
) -> subprocess.CompletedProcess:  # fmt: skip
    """What ``subprocess.run([sys.executable, *words], capture_output=True, text=True, ...)`` gives."""
    reads, writes = zip(os.pipe(), os.pipe(), strict=True)
    started = start([*words], *writes, cwd, env, largest_file)
    for end in writes:
        os.close(end)
    with ThreadPoolExecutor(2) as pool:  # a full pipe would wait for us
        said = list(pool.map(_all_of, reads))
    code = started.wait()
    done = subprocess.CompletedProcess([sys.executable, *words], code, *said)
    if check:
        done.check_returncode()
    return done


def _all_of(end: int) -> str:
    with open(end, encoding="utf-8") as file:
        return file.read()


def serve(folder: Path) -> None:
    """Answers until its input ends: it is that of the process which started it, and closes with it."""
    command = folder / "python"
    script = f'exec {sys.executable} -S -E {Path(__file__).resolve()} --ask {folder} "$@"'
    command.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    command.chmod(0o755)
    for name in LOADED:
        __import__(name)
    with contextlib.suppress(ImportError):
        for name in OPTIONAL:
            __import__(name)
    gc.collect()
    gc.freeze()  # so that no fork's collector touches, and so copies, what all of them share
    sys.executable = str(command)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    listening.listen(16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    if not os.fork():  # the one that ends with the input
        sys.stdin.read()
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(0)
    print("ready", flush=True)
    while True:
        connection, _ = listening.accept()
        if not os.fork():
            listening.close()
            answer(connection)
            os._exit(0)
        connection.close()


def answer(connection: socket.socket) -> None:
    head, files, _, _ = connection.recvmsg(16, socket.CMSG_SPACE(8))
    out, err = array.array("i", files[0][2])
    body = b""
    while len(body) < int(head):
        body += connection.recv(int(head) - len(body))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if not process:
        connection.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(out, 1), os.dup2(err, 2)
        os.closerange(3, max(out, err) + 1)
        os._exit(run(**json.loads(body)))
    connection.sendall(f"{process}\n".encode())
    ended, status = os.waitpid(process, os.WNOHANG)
    while not ended:
        if select.select([connection], [], [], 0.005)[0]:  # who asked is gone
            os.kill(process, signal.SIGKILL)
        ended, status = os.waitpid(process, os.WNOHANG)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def run(words: list[str], cwd: str, env: dict[str, str], largest_file: int | None) -> int:
    """The exit status of ``python WORDS``, done here."""
    os.environ.clear()
    os.environ.update(env | ({PARENT: str(os.getppid())} if PARENT in env else {}))
    os.chdir(cwd)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    kind, *rest = words
    first = {"-m": cwd, "-c": ""}.get(kind, str(Path(kind).resolve().parent))
    sys.path[:0] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        if kind == "-m":
            sys.argv = rest
            runpy._run_module_as_main(rest[0])
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            sys.argv = words
            runpy.run_path(kind, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


if __name__ == "__main__":
    what, folder, *words = sys.argv[1:]
    if what == "--serve":
        serve(Path(folder))
    status = start(words, 1, 2, folder=Path(folder)).wait()
    sys.exit(status if status >= 0 else 128 - status)
