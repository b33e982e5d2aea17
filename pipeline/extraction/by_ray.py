"""``--ray`` of extract.py: the frames that a store lacks, computed by workers on the machines of a Ray cluster.

A worker holds one backbone and is given the frames of one chunk after the other. It leaves the rows beside the store,
or sends them back where it does not see the store's disk. This process alone writes the store.
"""

import dataclasses
import json
import queue
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core import cluster
from pipeline.core.cluster import Crew, Mark, Size
from pipeline.core.device import pick_device
from pipeline.core.store import differences
from pipeline.core.tables import Frames, weights_file
from pipeline.extraction import loop, pieces
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.parts import check
from pipeline.extraction.pieces import Bench, Rows
from pipeline.extraction.plan import load_backbone_of, make_forward
from pipeline.extraction.run import Need, Supply


@dataclass(frozen=True)
class Job:
    """What all workers are told. ``frames`` has no rows; ``bench`` is the driver's.

    ``probe`` are a few frames, and ``expected`` (n, D) what the driver makes of them.
    """

    config: ExtractConfig
    frames: Frames
    num_wanted: int
    bench: Bench
    mark: Mark
    probe: pd.DataFrame
    expected: np.ndarray
    size: Size


@dataclass(frozen=True)
class Answer:
    """A share that is done: the name of its piece, or ``rows`` where the worker does not see the store's disk.

    ``kept`` and ``failed`` are places in the share.
    """

    name: str | None
    kept: list[int]
    failed: dict[int, str]
    faint: dict[str, int]
    rows: Rows | None


def on_ray(config: ExtractConfig) -> Supply:
    """What ``fill`` takes rows from: the cluster at ``config.ray``."""

    def supply(need: Need) -> Iterator[pieces.Some]:
        with cluster.connected(config.ray) as ray:
            yield from _supply(ray, config, need)

    return supply


def _supply(ray: Any, config: ExtractConfig, need: Need) -> Iterator[pieces.Some]:
    """The rows in the order of ``need.places``. A share that is done before its turn waits on the disk."""
    writer, progress = need.plan.writer, need.progress
    size = Size(1, 0) if config.device == "cpu" else cluster.size_of_workers(ray, config.gpus_per_worker)
    folder = pieces.folder_of(need.path).absolute()
    bench = Bench(folder, writer.made_by, writer.widths, writer.chunk_rows, "this machine")
    mark = Mark.put(folder)
    frames = dataclasses.replace(need.plan.frames, table=need.todo[:0], root=need.plan.frames.root.absolute())
    job = Job(config, frames, len(need.plan.wanted), bench, mark, *_probe(need), size)
    weights = ray.put(np.fromfile(weights_file(writer.made_by), np.uint8))
    shares = [places for _, places in pieces.shares(need.places, writer.chunk_rows)]
    tables = _Tables(need.todo, shares)
    crew = Crew(ray, Extractor, (job, weights), size, config.ray_workers, ahead=True)

    def show() -> None:
        progress.workers = crew.in_words()
        progress.show(progress.done)

    ready: dict[int, Answer] = {}
    turn = 0
    try:
        for number, answer in crew.run(tables, [len(places) for places in shares], show):
            ready[number] = _on_disk(answer, bench, tables, number)
            places = shares[number]
            progress.done += len(places)
            need.outcome.skipped |= {need.todo["path"].iloc[places[at]]: why for at, why in answer.failed.items()}
            need.used.add(int(places[-1]), folder / ready[number].name)
            while turn in ready:
                answer, places = ready.pop(turn), shares[turn]
                turn += 1
                if answer.kept:
                    yield places[answer.kept], pieces.Stored(_piece(answer, bench), 0, len(answer.kept))
    finally:
        mark.path.unlink(missing_ok=True)


class _Tables:
    """The frames of each share, cut out when they are asked for."""

    def __init__(self, todo: pd.DataFrame, shares: list[np.ndarray]) -> None:
        self.todo, self.shares = todo[[*pieces.FRAME, "path"]], shares

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, number: int) -> pd.DataFrame:
        return pieces.rows_at(self.todo, self.shares[number]).reset_index(drop=True)


def _on_disk(answer: Answer, bench: Bench, tables: _Tables, number: int) -> Answer:
    """The answer with the name of its piece, which is written now where its rows came along."""
    if answer.rows is None:
        return answer
    name = bench.write(tables[number], answer.kept, answer.failed, answer.rows, answer.faint)
    return dataclasses.replace(answer, name=name, rows=None)


def _piece(answer: Answer, bench: Bench) -> pieces.Piece:
    facts = {"widths": bench.widths, "chunk_rows": bench.chunk_rows, "faint": answer.faint}
    return pieces.Piece(bench.folder / answer.name, len(answer.kept), facts)


def _probe(need: Need) -> tuple[pd.DataFrame, np.ndarray]:
    """The frames of the first batch that this process can read, and their features (n, D)."""
    plan = need.plan
    some = need.todo.iloc[need.places[: plan.forward.batch_size]].reset_index(drop=True)
    places, rows = loop.first_features(plan.frames, some, plan.forward)
    width = plan.forward.backbone.num_features
    return some.iloc[places].reset_index(drop=True), np.empty((0, width), np.float16) if rows is None else rows


class Extractor:
    """A worker. Shares go through one pass after the other, and the next begins while the one before ends."""

    def __init__(self, job: Job, weights: np.ndarray) -> None:
        self.job, self.weights = job, weights
        self.queue: queue.Queue[tuple[pd.DataFrame, Future[Answer]]] = queue.Queue()
        self.checked = 0

    def ready(self) -> tuple[str, str | None]:
        """The name of this machine, and why it cannot work or None."""
        job, self.machine = self.job, cluster.name_of_machine()
        self.bench = dataclasses.replace(job.bench, maker=f"machine {self.machine}")
        if why := cluster.refusal_of_folder(job.frames.root):
            return self.machine, why
        device = "cpu" if not job.size.gpus and job.config.device == "auto" else job.config.device
        torch.set_num_threads(int(job.size.cpus))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "backbone.safetensors"
            self.weights.tofile(file)
            backbone = load_backbone_of(job.config, file)
        self.forward, made_by = make_forward(job.config, backbone, job.frames, job.num_wanted, pick_device(device))
        if other := differences(job.bench.made_by, json.loads(json.dumps(made_by))):
            return self.machine, f"would make features by something else: {other}"
        if why := self._differs():
            return self.machine, why
        self.shares_disk = job.mark.is_seen()
        self.finishing = ThreadPoolExecutor(1, thread_name_prefix="finish")
        threading.Thread(target=self._work, daemon=True).start()
        return self.machine, None

    def _differs(self) -> str | None:
        """Why this machine cannot work: it cannot read the frames that the driver could, or makes other features."""
        job = self.job
        if not len(job.probe):
            return None
        cosine = loop.least_cosine_to_stored(job.frames, job.probe, job.expected, self.forward)
        if cosine is None:
            return f"does not see {job.frames.root / job.probe['path'].iloc[0]}"
        if not cosine >= loop.SAME_COSINE:
            return f"gives other features for the same frames (least cosine {cosine:.4f}): its code or libraries differ"
        return None

    def do(self, table: pd.DataFrame) -> Answer:
        """Computes a share; called from as many threads as there are shares on their way."""
        future: Future[Answer] = Future()
        self.queue.put((table, future))
        return future.result()

    def _work(self) -> None:
        torch.set_num_threads(int(self.job.size.cpus))  # a setting of the thread
        workers = self.job.config.workers or max(1, int(self.job.size.cpus))
        while True:
            begun: deque[Future[Answer]] = deque()
            tables = self._tables(*self.queue.get(), begun)
            try:
                for share in loop.by_share(
                    self.job.frames.root, tables, self.bench.widths, self.forward, workers, loop.Progress(0)
                ):
                    self.finishing.submit(self._finish, share, begun.popleft())
            except BaseException as error:
                for future in begun:
                    future.set_exception(error)

    def _tables(self, table: pd.DataFrame, future: "Future[Answer]", begun: deque) -> Iterator[pd.DataFrame]:
        """The first table, and those that have come meanwhile, whenever the next one is asked for."""
        while True:
            begun.append(future)
            yield table
            try:
                table, future = self.queue.get_nowait()
            except queue.Empty:
                return

    def _finish(self, share: loop.Share, future: "Future[Answer]") -> None:
        try:
            found = check(share, self.forward, first=self.checked == 0)
            self.checked += len(share.kept)
            name = None
            if self.shares_disk:
                name = self.bench.write(share.table, share.kept, share.failed, share.rows, found.faint)
            rows = None if self.shares_disk else share.rows
            future.set_result(Answer(name, share.kept, share.failed, found.faint, rows))
        except BaseException as error:
            future.set_exception(error)
