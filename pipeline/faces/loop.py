"""Videos to JPEGs and tables of faces, one after the other or several at once; each is done wholly or not at all."""

import multiprocessing
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from pipeline.core.children import end_with_pool
from pipeline.core.files import read_table, read_table_facts, write_table
from pipeline.core.params import UserError
from pipeline.core.progress import FrameCounter
from pipeline.datasets.numbered import CROPS, RECORDS
from pipeline.datasets.points import POINTS
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import Detector
from pipeline.faces.find import make_detector
from pipeline.faces.tracks import SAME_PERSON_LOOK, SUFFIX, Sighting, follow, people, placed, suffixes
from pipeline.faces.video import STILLS, UnreadableVideo, read, read_stills

PARTIAL = ".partial"  # hidden, as ``RECORDS`` are
WHAT, WAY_OUT = "the record of a video", "Run 'python -m pipeline.faces' again, which cuts that video again"
PLACES = ["left", "top", "right", "bottom", *(f"{point}_{axis}" for point in POINTS for axis in "xy"), "confidence"]
SCHEMA = pa.schema(
    [("video", pa.string()), ("frame", pa.int64()), ("time_sec", pa.float64()), ("fps", pa.float64())]
    + [("source", pa.string()), ("track", pa.int64())]
    + [(name, pa.float32()) for name in PLACES]
)


@dataclass(frozen=True)
class FrameSequence:
    """A video in the form of images: their paths below the root and their landmarks, by frame number.

    Without ``landmarks`` the faces are looked for. ``fps`` is None where it is not known.
    """

    paths: dict[int, str]
    landmarks: dict[int, np.ndarray] | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Task:
    """One file to cut: ``source`` relative to ``root``, to be known as ``video`` below ``out``.

    With a ``sequence``, that is what is cut, and ``source`` is the file of its landmarks, or its folder.
    """

    root: Path
    source: str
    video: str
    out: Path
    settings: CutSettings
    sequence: FrameSequence | None = None

    @property
    def record(self) -> Path:
        return self.out / RECORDS / f"{self.video}.parquet"

    @property
    def placed(self) -> bool:
        """Whether the faces are not looked for."""
        return self.sequence is not None and self.sequence.landmarks is not None

    def facts(self) -> dict[str, Any]:
        """What tells that the file, or all images of a folder, are still the same."""
        if self.sequence is not None and not self.placed:
            every = [(self.root / path).stat() for path in self.sequence.paths.values()]
            size, modified = sum(s.st_size for s in every), max(s.st_mtime_ns for s in every)
            return {"source": self.source, "size": size, "modified": modified, "fps": self.sequence.fps}
        status = (self.root / self.source).stat()
        return {"source": self.source, "size": status.st_size, "modified": status.st_mtime_ns}


def read_record(path: Path) -> dict[str, Any]:
    """What was found in a video: its file's facts, ``fps``, ``frames``, ``folders`` {name: faces}, ``problems``.

    Raises ``UserError`` where the record is damaged.
    """
    return read_table_facts(path, WHAT, WAY_OUT)


def read_record_table(path: Path) -> pa.Table:
    """The faces of a video, one row each."""
    return read_table(path, WHAT, WAY_OUT)[0]


def find_record(path: Path) -> dict[str, Any] | None:
    """The record; None where there is none, or what is there is empty, cut off or damaged."""
    try:
        return read_record(path)
    except UserError:
        return None


def is_done(task: Task) -> bool:
    """Whether the file was cut as it is now and all that was cut is still there."""
    record = find_record(task.record)
    if record is None or any(record.get(key) != value for key, value in task.facts().items()):
        return False
    return stands(task.out, record)


def stands(out: Path, record: dict[str, Any]) -> bool:
    """Whether all faces that the record names are there."""
    folders = {out / CROPS / name: faces for name, faces in record["folders"].items()}
    return all(f.is_dir() and sum(1 for _ in f.iterdir()) == faces for f, faces in folders.items())


def cut(task: Task, detect: Detector, step: Callable[[], None] = lambda: None) -> str | None:
    """Cuts one video; why it could not, or None. ``step`` is called after each frame.

    The faces are written into a folder aside. The record, which names the folders of faces, is written before they are
    renamed into place. So a folder that no record names was not made here, and is left alone; and what a killed run
    left is known and cut again.
    """
    damaged = task.record.is_file() and not remove(task)
    aside = task.out / PARTIAL / task.video
    shutil.rmtree(aside, ignore_errors=True)
    try:
        if task.sequence:
            video = read_stills(task.root, task.sequence.paths, task.sequence.fps)
        else:
            video = read(task.root / task.source)
        frames = _with_count(video.frames, step, count := [0])
        if task.placed:
            seen = placed(frames, task.sequence.landmarks, task.settings.size, task.settings.enlarge)
        else:
            seen = follow(frames, detect, task.settings.every, task.settings.size, task.settings.enlarge)
        table, looks = _write_crops(seen, task.settings.quality, aside)
    except UnreadableVideo as error:
        shutil.rmtree(aside, ignore_errors=True)
        return str(error)
    table, problems = _name_people(table, looks, task)
    folders = table["video"].value_counts(sort=False).to_dict()
    foreign = [name for name in folders if (task.out / CROPS / name).exists()]
    if foreign:
        shutil.rmtree(aside)
        return f"folder {CROPS}/{foreign[0]} is there already and was not made from this file"
    for name in folders:
        (aside / name).mkdir(parents=True)
    for row in table[["video", "frame", "track"]].itertuples(index=False):
        (aside / _aside(row.track) / _file(row.frame)).rename(aside / row.video / _file(row.frame))
    table = table.assign(time_sec=table["frame"].map(video.times), fps=video.fps, source=task.source)
    record = {
        "fps": None if np.isnan(video.fps) else video.fps,
        "frames": len(task.sequence.paths) if task.sequence else count[0],
        "folders": folders,
        "problems": video.problems + problems,
        "notes": video.notes + ["its record was damaged, and it was cut again"] * damaged,
    }
    _write_record(task, table, record)
    (task.out / CROPS / task.video).parent.mkdir(parents=True, exist_ok=True)
    for name in folders:
        (aside / name).rename(task.out / CROPS / name)
    shutil.rmtree(aside, ignore_errors=True)
    return None


def _write_crops(
    sightings: Iterator[Sighting], quality: int, aside: Path
) -> tuple[pd.DataFrame, dict[int, np.ndarray]]:
    """The table of all sightings and the sum of looks of each track; the crops lie in ``aside``, a folder a track."""
    rows: list[tuple] = []
    looks: dict[int, np.ndarray] = {}
    for seen in sightings:
        if seen.track not in looks:
            (aside / _aside(seen.track)).mkdir(parents=True)
        looks[seen.track] = looks.get(seen.track, 0) + seen.look
        (aside / _aside(seen.track) / _file(seen.frame)).write_bytes(encode_crop(seen.crop, quality))
        rows.append((seen.frame, seen.time_sec, seen.track, *seen.box, *seen.points.ravel(), seen.confidence))
    return pd.DataFrame(rows, columns=["frame", "time_sec", "track", *PLACES]), looks


def encode_crop(crop: np.ndarray, quality: int) -> bytes:
    """The JPEG of an aligned face (S, S, 3) uint8 RGB."""
    bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _name_people(table: pd.DataFrame, looks: dict[int, np.ndarray], task: Task) -> tuple[pd.DataFrame, list[str]]:
    """The sightings of those who stay, with ``video`` as each is called, and what was left out."""
    problems = []
    if task.placed and len(table) < len(task.sequence.paths):
        problems.append(f"{len(task.sequence.paths) - len(table)} of {len(task.sequence.paths)} frames have no face")
    still = task.sequence is None and Path(task.source).suffix.lower() in STILLS
    least = 1 if task.placed or still else task.settings.min_frames
    table, more = name_people(table, looks, least, task.settings.most_people)
    return table.assign(video=task.video + table["suffix"]).sort_values(["video", "frame"]), problems + more


def name_people(
    table: pd.DataFrame,
    looks: dict[int, np.ndarray],
    least: int,
    most_people: int | None,
    least_alike: float = SAME_PERSON_LOOK,
) -> tuple[pd.DataFrame, list[str]]:
    """The sightings of those who stay, with the ``suffix`` that tells each of them apart, and what was left out.

    ``table`` has frame, track and box, ``looks`` the sum of looks of each track, or another vector of it. Two tracks
    may be one person from a cosine of ``least_alike`` on. Those stay who are seen in ``least`` frames, and of them the
    ``most_people`` with the most and largest faces.
    """
    nobody = table.assign(suffix=pd.Series(dtype="str"))
    if table.empty:
        return nobody, ["no face was found"]
    problems = []
    groups = people({t: rows["frame"].to_numpy() for t, rows in table.groupby("track")}, looks, least_alike)
    table = table.assign(person=table["track"].map({t: p for p, tracks in enumerate(groups) for t in tracks}))
    seen = table["person"].value_counts()
    # Those who are seen most stay, measured by the area of all their faces: it also tells a speaker from passers-by.
    area = ((table["right"] - table["left"]) * (table["bottom"] - table["top"])).groupby(table["person"]).sum()
    long = [p for p in area.sort_values(ascending=False).index if seen[p] >= least]
    staying = long[:most_people]
    if short := len(groups) - len(long):
        faces = int(seen.drop(long).sum())
        problems.append(f"{short} people in fewer than {least} frames were left out, with {faces} faces")
    if more := len(long) - len(staying):
        problems.append(
            f"{more} people beyond most_people were left out, with {int(seen[long[len(staying) :]].sum())} faces"
        )
    table = table[table["person"].isin(staying)]
    if table.empty:
        return nobody[:0], [*problems, "no face was kept"]
    return table.assign(suffix=table["person"].map(suffixes(table))), problems


def _write_record(task: Task, table: pd.DataFrame, record: dict[str, Any]) -> None:
    arrow = pa.Table.from_pandas(table[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    write_table(task.record, arrow.replace_schema_metadata(None), task.facts() | record)


def remove(task: Task) -> bool:
    """Deletes the faces of a video, and its record last, so that a run killed here finds them again.

    False where the record is damaged. Then folders that are named like the video's are deleted, unless another record
    names them.
    """
    record = find_record(task.record)
    for name in record["folders"] if record else _folders_called_so(task):
        shutil.rmtree(task.out / CROPS / name, ignore_errors=True)
    task.record.unlink()
    return record is not None


def _folders_called_so(task: Task) -> list[str]:
    parent = (task.out / CROPS / task.video).parent
    records = (find_record(path) for path in (task.out / RECORDS).rglob("*.parquet") if path != task.record)
    others = {name for record in records if record for name in record["folders"]}
    paths = parent.iterdir() if parent.is_dir() else ()
    names = (path.relative_to(task.out / CROPS).as_posix() for path in paths)
    ours = re.compile(re.escape(task.video) + SUFFIX)
    return [name for name in names if ours.fullmatch(name) and name not in others]


def _aside(track: int) -> str:
    return f".{track}"  # hidden, as no video is: one may be called 1


def _file(frame: int) -> str:
    return f"{frame:05d}.jpg"


def _with_count(frames: Iterator, step: Callable[[], None], count: list[int]) -> Iterator:
    for frame in frames:
        yield frame
        count[0] = frame.number
        step()


# --- several at once -------------------------------------------------------------------------------------------------


def cut_all(tasks: list[Task], expected: int, workers: int) -> dict[str, str]:
    """{source: why it could not be cut}. One process a video at a time, or none but this one where ``workers`` is 1."""
    if not tasks:
        return {}
    settings = tasks[0].settings
    if workers == 1:
        progress, failed = FrameCounter(expected, about=True), {}
        detect = make_detector(settings)
        for task in tasks:
            if why := cut(task, detect, lambda: progress.show(progress.done + 1)):
                failed[task.source] = why
        progress.end()
        return failed
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    done = spawn.Value("q", 0)
    progress, failed = FrameCounter(expected, about=True), {}
    with ProcessPoolExecutor(workers, spawn, _start, (settings, done)) as pool:
        under_way = {pool.submit(_cut, task): task for task in tasks}
        try:
            while under_way:
                ready, _ = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in ready:
                    task = under_way.pop(future)
                    if why := future.result():
                        failed[task.source] = why
                progress.show(done.value)
        except BrokenProcessPool:
            torn = sorted(p.name for p in (tasks[0].out / PARTIAL).glob("*"))
            raise UserError(
                f"a process died, for lack of memory or of a damaged file, while cutting one of {torn}: "
                "run again to go on, with fewer --workers, or without that file"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    progress.end()
    return failed


_detect: Detector
_done: Any  # multiprocessing's shared number of frames


def _start(settings: CutSettings, done: Any) -> None:
    """Makes the detector of a worker process, once, and lets the process end with the one that started it."""
    global _detect, _done
    end_with_pool()
    cv2.setNumThreads(1)  # the processes are ours
    torch.set_num_threads(1)
    _detect, _done = make_detector(settings), done


def _cut(task: Task) -> str | None:
    def step() -> None:
        with _done.get_lock():
            _done.value += 1

    return cut(task, _detect, step)
