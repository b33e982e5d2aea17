"""``--ray`` of python -m pipeline.faces: a video at a time for each worker of a Ray cluster, on a disk that all see."""

import dataclasses
from pathlib import Path

import cv2
import torch

from pipeline.core import cluster
from pipeline.core.cluster import Crew, Mark, Size
from pipeline.core.params import UserError
from pipeline.core.progress import FrameCounter
from pipeline.faces.config import CutSettings
from pipeline.faces.find import make_detector
from pipeline.faces.loop import PARTIAL, Task, cut


def cut_on_ray(tasks: list[Task], expected: int, address: str, workers: int | None) -> dict[str, str]:
    """{source: why it could not be cut}, as of ``cut_all``, by workers on the machines of the cluster at an address.

    Each takes a core. Raises ``UserError`` where no machine sees both the videos and the folder for the faces.
    """
    if not tasks:
        return {}
    settings = tasks[0].settings
    if settings.points is not None:
        settings = dataclasses.replace(settings, points=settings.points.absolute())
    tasks = [
        dataclasses.replace(task, root=task.root.absolute(), out=task.out.absolute(), settings=settings)
        for task in tasks
    ]
    progress, failed = FrameCounter(expected, about=True), {}
    mark = Mark.put(tasks[0].out / PARTIAL)
    try:
        with cluster.connected(address) as ray:
            of_worker = (settings, settings.points_digest, tasks[0].root, mark)
            crew = Crew(ray, Cutter, of_worker, Size(1, 0), workers)
            progress.details = lambda elapsed: f" ({crew.in_words()})"
            for number, (why, frames) in crew.run(tasks, [1] * len(tasks), lambda: progress.show(progress.done)):
                progress.show(progress.done + frames)
                if why:
                    failed[tasks[number].source] = why
    finally:
        mark.path.unlink(missing_ok=True)
    progress.end()
    return failed


class Cutter:
    """A worker with a detector of its own."""

    def __init__(self, settings: CutSettings, points_digest: str | None, root: Path, mark: Mark) -> None:
        self.settings, self.points_digest, self.root, self.mark = settings, points_digest, root, mark

    def ready(self) -> tuple[str, str | None]:
        """The name of this machine, and why it cannot work or None."""
        machine = cluster.name_of_machine()
        if why := cluster.refusal_of_folder(self.root):
            return machine, why
        if not self.mark.is_seen():
            return machine, f"does not see {self.mark.path.parents[1]}"
        if self.settings.points is not None and not self.settings.points.is_file():
            return machine, f"does not see {self.settings.points}"
        if self.settings.points_digest != self.points_digest:
            return machine, f"has another aligner at {self.settings.points}"
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        self.detect = make_detector(self.settings)
        return machine, None

    def do(self, task: Task) -> tuple[str | None, int]:
        """Why a video could not be cut, or None, and its frames."""
        frames = 0

        def step() -> None:
            nonlocal frames
            frames += 1

        try:
            return cut(task, self.detect, step), frames
        except OSError as error:
            raise UserError(f"faces: cannot write {error.filename or task.out}: {error.strerror}") from None
