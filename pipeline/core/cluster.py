"""Work on the machines of a Ray cluster: workers that are given one thing after the other, until all is done.

Ray (https://docs.ray.io) starts the workers, finds room for them and says which of them has died. What was given to a
worker that died is given to another. A machine that joins the cluster gets workers too. Workers run the code of this
process, which is sent to them; they need the same libraries. Nothing is reported to anyone: telemetry and dashboard are
off.
"""

import logging
import os
import re
import secrets
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pipeline
from pipeline.core.files import write_text
from pipeline.core.params import UserError

DEATHS = 8  # of workers, one after the other with nothing done between: then it is no accident
CONNECT_SEC = 10.0
# Of a cluster that is started here: nobody else is to reach it. Ray takes 127.0.0.1 for the machine's outward address.
LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
LOOK_SEC = 2.0  # between two looks at how much room there is


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module ``ray``, connected to the cluster at an address. 'auto': the one that runs, else one of this machine.

    A cluster that was started here ends here. Raises ``UserError`` where Ray is not installed or there is no cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # of workers that are started here; Ray's 15 yields to all others
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning of what will change in Ray
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed: pip install 'emotion-adapters[ray]'") from None
    # Ray 2.60 prints the last lines of a lost machine's log on stdout, whatever ``log_to_driver`` says.
    ray._private.worker.listen_error_messages = lambda *_: None
    how = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
        "runtime_env": {"py_modules": [str(Path(pipeline.__file__).parent)]},
    }
    try:
        if found := re.fullmatch(r"([\w.-]+):(\d{1,5})", address):  # Ray itself would try for a minute
            socket.create_connection((found[1], int(found[2])), timeout=CONNECT_SEC).close()
        try:
            ray.init(address=address, **how)
        except ConnectionError:
            if address != "auto":
                raise
            ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **how)
    except (ValueError, RuntimeError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"no Ray cluster at '{address}': {why}. 'ray start --head' starts one") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Size:
    """What one worker takes of a machine. Ray counts both, and keeps workers within them by nothing but that."""

    cpus: float
    gpus: float

    def room(self, resources: dict[str, float]) -> int:
        """How many of this size a machine has room for."""
        of_cpus = resources.get("CPU", 0) / self.cpus if self.cpus else float("inf")
        of_gpus = resources.get("GPU", 0) / self.gpus if self.gpus else float("inf")
        return int(min(of_cpus, of_gpus) + 1e-9)


def machines(ray: Any) -> list[dict[str, float]]:
    """The resources of each machine that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def size_of_workers(ray: Any, gpus: float | None) -> Size:
    """A worker with so many ``gpus``, and its share of the cores of the machine that has the fewest a GPU.

    None: one GPU where there is any in the cluster. A worker without one takes a core. Raises ``UserError`` where no
    machine has that many.
    """
    most = max((machine.get("GPU", 0) for machine in machines(ray)), default=0)
    gpus = min(1.0, most) if gpus is None else gpus
    if gpus > most:
        raise UserError(f"gpus_per_worker is {gpus:g}, and no machine of the cluster has more than {most:g} GPUs")
    if not gpus:
        return Size(1, 0)
    cores = [m.get("CPU", 0) * gpus / m["GPU"] for m in machines(ray) if m.get("GPU", 0) >= gpus]
    return Size(max(1, int(min(cores))), gpus)


def name_of_machine() -> str:
    """Of the machine on which a worker runs: its name, and Ray's number for it, since two may have one name."""
    import ray

    return f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:6]})"


@dataclass(frozen=True)
class Mark:
    """A file by which a worker finds out whether it sees the same disk."""

    path: Path
    words: str

    @classmethod
    def put(cls, folder: Path) -> "Mark":
        """A new one in ``folder``, which is made."""
        words = secrets.token_hex(8)
        path = folder / f".seen-{words}"
        write_text(path, words)
        return cls(path.absolute(), words)

    def is_seen(self) -> bool:
        try:
            return self.path.read_text(encoding="utf-8") == self.words
        except OSError:
            return False


def refusal_of_folder(path: Path) -> str | None:
    """Why this machine cannot work: it has no such folder."""
    return None if path.is_dir() else f"does not see {path}"


@dataclass(eq=False)
class Member:
    """A worker: ``given`` {reference: number} is what it works on; it is ``ready`` once it has said so."""

    actor: Any
    ready: Any
    name: str = "?"
    is_ready: bool = False
    refused: str | None = None
    given: dict[Any, int] = field(default_factory=dict)
    since: float = 0.0
    done: float = 0.0


class Crew:
    """Workers of one ``kind``, a class. ``kind(*arguments)`` is made on some machine for each of them.

    It has two methods. ``ready()`` gives the name of its machine, and why it cannot work there or None. ``do(item)`` is
    called with one thing after the other, and from a second thread with the next one while the one before is done,
    where ``ahead`` is set. Its ``UserError`` ends all. ``count`` None: as many as there is room for, now and later.
    """

    def __init__(
        self, ray: Any, kind: type, arguments: Sequence[Any], size: Size, count: int | None, ahead: bool = False
    ) -> None:
        self.ray, self.count, self.size, self.ahead = ray, count, size, ahead
        self._make = ray.remote(kind).options(
            num_cpus=size.cpus, num_gpus=size.gpus, max_concurrency=3 if ahead else 1, scheduling_strategy="SPREAD"
        )
        self._arguments = arguments
        self.members: list[Member] = []
        self._deaths, self._looked, self._room = 0, 0.0, 0

    def run(
        self, items: Sequence[Any], amounts: Sequence[float], show: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, Any]]:
        """The place of each item and what ``do`` gave for it, in the order in which they are done.

        ``amounts`` of work tell who is slow. ``show`` is called now and then. Workers are stopped at the end, however
        it comes.
        """
        try:
            for number, value, member in self._run(items, show):
                member.done += amounts[number]
                yield number, value
        finally:
            for member in self.members:
                with suppress(Exception):  # of a cluster that has gone
                    self.ray.kill(member.actor)
            self.members = []

    def _run(self, items: Sequence[Any], show: Callable[[], None]) -> Iterator[tuple[int, Any, Member]]:
        waiting, left = deque(range(len(items))), len(items)
        while left:
            self._fill_up(len(waiting))
            self._give(items, waiting)
            expected = {m.ready: m for m in self.members if not m.is_ready and m.refused is None}
            expected |= {ref: m for m in self.members for ref in m.given}
            done, _ = self.ray.wait([*expected], timeout=0.5) if expected else ([], time.sleep(0.2))
            for ref in done:
                member = expected[ref]
                if member not in self.members:  # it died of something else in this round
                    continue
                found = self._found(ref, member, waiting)
                if found is not None:
                    left -= 1
                    yield *found, member
            show()

    def _found(self, ref: Any, member: Member, waiting: deque[int]) -> tuple[int, Any] | None:
        """What a reference has come to; None where it is no result."""
        try:
            value = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            self._lost(member, f"{type(error.cause).__name__}: {error.cause}", waiting)
            return None
        except self.ray.exceptions.RayError as error:
            self._lost(member, str(error), waiting)
            return None
        if ref is member.ready:
            member.name, member.refused = value
            member.is_ready, member.since = member.refused is None, time.monotonic()
            if member.refused:
                _say(f"machine {member.name} {member.refused}: it is left out")
                self._check_any_left()
            return None
        self._deaths = 0
        return member.given.pop(ref), value

    def _lost(self, member: Member, why: str, waiting: deque[int]) -> None:
        """Gives back what a worker had that has died; raises ``UserError`` where all die."""
        self.members.remove(member)
        with suppress(Exception):
            self.ray.kill(member.actor)
        waiting.extendleft(sorted(member.given.values(), reverse=True))
        lines = [line.strip() for line in why.splitlines() if line.strip()]
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise UserError(
                f"{self._deaths} workers died one after the other, and nothing was done between, the last on machine "
                f"{member.name}: {' '.join(lines)[:500]}"
            )

    def _check_any_left(self) -> None:
        if all(member.refused for member in self.members) and len(self.members) >= self._target():
            why = "; ".join(sorted({f"machine {m.name} {m.refused}" for m in self.members}))
            raise UserError(f"no worker can do it: {why}")

    def _target(self) -> int:
        if self.count is not None:
            return self.count
        if not self._looked or time.monotonic() - self._looked > LOOK_SEC:
            self._looked, self._room = time.monotonic(), sum(map(self.size.room, machines(self.ray)))
        return self._room

    def _fill_up(self, waiting: int) -> None:
        """Asks Ray for the workers that are missing. Those without room stay asked for until a machine joins."""
        free = sum(not m.given and m.refused is None for m in self.members)
        for _ in range(min(self._target() - len(self.members), waiting - free)):
            actor = self._make.remote(*self._arguments)
            self.members.append(Member(actor, actor.ready.remote()))

    def _give(self, items: Sequence[Any], waiting: deque[int]) -> None:
        able = [member for member in self.members if member.is_ready]
        for depth in (1, 2) if self.ahead else (1,):
            for member in able:
                if len(member.given) < depth and waiting and (depth == 1 or len(waiting) >= len(able)):
                    number = waiting.popleft()
                    member.given[member.actor.do.remote(items[number])] = number

    def in_words(self) -> str:
        """How many workers there are, and which of them is much slower than the others."""
        able = [member for member in self.members if member.is_ready]
        now = time.monotonic()
        rates = {member: member.done / max(now - member.since, 1e-9) for member in able if member.done}
        said = f"{len(able)} worker{'s' if len(able) != 1 else ''}"
        if len(rates) > 1:
            slow, middle = min(rates, key=rates.get), statistics.median(rates.values())
            if rates[slow] < 0.8 * middle:
                said += f", slowest on {slow.name}: {rates[slow]:,.1f}/s, median {middle:,.1f}/s"
        return said


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
