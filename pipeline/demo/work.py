"""What the page waits for: loading runs, and making tables of uploads, once each, with progress and a way to stop."""

import contextlib
import hashlib
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import streamlit as st

from pipeline.core.params import UserError
from pipeline.core.progress import clock
from pipeline.datasets.synthetic.clip import draw_clip
from pipeline.embed import view
from pipeline.embed.embedder import Embedder
from pipeline.embed.loading import LOADERS
from pipeline.faces.video import STILLS, VIDEOS

RUNS = Path("runs")
KEPT = 16  # tables of clips, each of one run: a minute of one face takes about 12 MB
REDRAWN = 0.25  # seconds between two looks of the progress bar
SAMPLE = "drawn_sample.mp4"
LONGEST_NAME = 60  # characters

Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Choice:
    """A run, and how it is used; ``changed`` is when it was written: a run that is trained again is loaded again."""

    path: str
    seed: int | str | None
    alike: tuple[str, ...]
    changed: int

    @property
    def label(self) -> str:
        """What no other run on the page is called: its folder, seen from that of all runs."""
        path = Path(self.path)
        return (path.relative_to(RUNS) if path.is_relative_to(RUNS) else path).as_posix()


@dataclass(frozen=True)
class Medium:
    """An uploaded clip or picture; ``name`` is unique on the page and has no ending, ``digest`` tells its content."""

    name: str
    ending: str
    content: bytes
    digest: str

    @property
    def still(self) -> bool:
        return self.ending in STILLS


def choice(path: Path, seed: int | str | None, alike: tuple[str, ...]) -> Choice:
    changed = max((path / name).stat().st_mtime_ns for name in LOADERS if (path / name).is_file())
    return Choice(str(path), seed, alike, changed)


@st.cache_resource(max_entries=8, show_spinner="Loading the run")
def load(chosen: Choice) -> Embedder:
    return Embedder.load(chosen.path, seed=chosen.seed, alike=chosen.alike)


@st.cache_resource(show_spinner="Drawing the sample")
def sample() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        draw_clip(Path(folder) / SAMPLE)
        return (Path(folder) / SAMPLE).read_bytes()


def media(files: Sequence[tuple[str, bytes]]) -> list[Medium]:
    """Each file (its name, and what is in it) by a name that a file system takes, and that no other has."""
    found: dict[str, Medium] = {}
    for name, content in files:
        path = PurePath(name.replace("\\", "/"))
        stem = re.sub(r"[^\w .()+-]", "_", path.stem)[:LONGEST_NAME].strip(" .") or "clip"
        own, number = stem, 1
        while own in found:
            number += 1
            own = f"{stem} ({number})"
        found[own] = Medium(own, path.suffix.lower(), content, hashlib.sha256(content).hexdigest())
    return list(found.values())


@dataclass(frozen=True)
class Job:
    """One table to make: by ``chosen`` of a clip, or of all pictures together."""

    chosen: Choice
    of: tuple[Medium, ...]
    every: int

    @property
    def key(self) -> tuple[Any, ...]:
        return self.chosen, self.every, tuple((m.name, m.ending, m.digest) for m in self.of)

    @property
    def title(self) -> str:
        return self.of[0].name if len(self.of) == 1 else f"{len(self.of)} pictures"


def jobs(chosen: Sequence[Choice], files: Sequence[Medium], every: int) -> list[list[Job]]:
    """For each clip, and for all pictures together, a job for each run."""
    groups = [(medium,) for medium in files if not medium.still]
    stills = tuple(medium for medium in files if medium.still)
    return [[Job(each, group, every) for each in chosen] for group in [*groups, *([stills] if stills else [])]]


Result = pd.DataFrame | str  # a table, or the line that says why there is none


@st.cache_resource
def _kept() -> OrderedDict[tuple[Any, ...], Result]:
    """What was made, the last used at the end; shared by all who look at the demo."""
    return OrderedDict()


def made(job: Job) -> Result | None:
    """The table of a job, or why it has none; None where it is still to be made."""
    found = _kept().get(job.key)
    if found is not None:
        _kept().move_to_end(job.key)
    return found


def make(job: Job, others: Sequence[Job], report: Report) -> None:
    """Makes the table of a job, and keeps it.

    Where one of ``others``, which are of the same files, has made a table by the same backbone, its faces and features
    are taken.
    """
    try:
        result: Result = _table(job, others, report)
    except (UserError, OSError) as error:
        result = " ".join(str(error).split())
    _kept()[job.key] = result
    while len(_kept()) > KEPT:
        _kept().popitem(last=False)


def _table(job: Job, others: Sequence[Job], report: Report) -> pd.DataFrame:
    embedder = load(job.chosen)
    embedder.check_pictures()
    for other in others:
        table = made(other)
        if isinstance(table, pd.DataFrame) and view.same_features(embedder, load(other.chosen)):
            return view.through(embedder, table, 1.0 if job.of[0].still else table.attrs["fps"])
    wanted = {"every": job.every, "with_features": True, "with_crops": True, "on_progress": report}
    with _files(job.of) as paths:
        if job.of[0].still:
            return embedder.images(paths, names=[medium.name for medium in job.of], **wanted)
        return embedder.video(paths[0], **wanted)


@contextlib.contextmanager
def _files(of: Sequence[Medium]) -> Iterator[list[Path]]:
    """The files in a folder that is removed at the end; a ``UserError`` inside does not name that folder."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{medium.name}{medium.ending}" for medium in of]
        for path, medium in zip(paths, of, strict=True):
            path.write_bytes(medium.content)
        try:
            yield paths
        except UserError as error:
            raise UserError(str(error).replace(f"{Path(folder)}/", "")) from None


class Progress:
    """A bar with the time that is left, and a button that stops."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._place = st.empty()
        with self._place.container(border=True):
            self._bar = st.progress(0.0, "Starting")
            st.button("Stop", on_click=stop, key="stop")
        self._redrawn = 0.0

    def of(self, title: str) -> Report:
        """A function of frames done and of how many; it raises, by Streamlit, where the page was stopped."""
        started = time.monotonic()

        def report(done: int, total: int | None) -> None:
            now = time.monotonic()
            if now - self._redrawn < REDRAWN:
                return
            self._redrawn = now
            if total:
                left = clock((now - started) / done * max(total - done, 0))
                self._bar.progress(min(done / total, 1.0), f"{title}: {done:,} of {total:,}, {left} left")
            else:
                self._bar.progress(0.0, f"{title}: {done:,}")

        self._bar.progress(0.0, f"{title}: starting")
        return report

    def end(self) -> None:
        self._place.empty()


ENDINGS = [ending.removeprefix(".") for ending in (*VIDEOS, *STILLS)]
