"""Draws all clips into a folder, by several processes.

``write_clip`` and ``_start`` are not in ``__main__``: a spawned process does not import a package's ``__main__``.
"""

import dataclasses
import functools
import multiprocessing
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.core.children import end_with_pool
from pipeline.core.params import UserError
from pipeline.datasets.config import SYNTHETIC_MARKER
from pipeline.datasets.points import POINT_TABLE, point_table, scaled, write_points
from pipeline.datasets.synthetic.acting import AUS, perform
from pipeline.datasets.synthetic.annotations import (
    ANNOTATIONS,
    TRACK_FOLDERS,
    annotation_lines,
    multi_task_rows,
    write_annotations,
    write_multi_task,
)
from pipeline.datasets.synthetic.camera import cover, photograph, sample_camera, sample_occlusions, sample_poses
from pipeline.datasets.synthetic.drawing import CANVAS, CENTRE, draw_face, face_points, sample_identity
from pipeline.datasets.synthetic.plan import Clip, SyntheticConfig, sample_frame_numbers


def make_empty(folder: Path, fact: str) -> None:
    """An empty folder that holds only our README.txt; what an earlier run drew there is deleted.

    Raises ``UserError``, and deletes nothing, where the folder holds anything and its README.txt is not ours.
    """
    readme = folder / "README.txt"
    if folder.exists():
        ours = readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SYNTHETIC_MARKER)
        if not folder.is_dir() or (any(folder.iterdir()) and not ours):
            raise UserError(f"synthetic: {folder} is there and was not drawn by this project; delete it or set --out")
        for child in folder.iterdir():
            if child != readme:  # overwritten below: a run that is killed here can still be told from foreign data
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    readme.write_text(
        f"{SYNTHETIC_MARKER}\n{fact}\n\nNo person is shown: faces, emotions and annotations are made up, laid out\n"
        "as ABAW lays out Aff-Wild2, to try the pipeline without licensed data. Numbers measured on them\n"
        "say nothing about people.\n"
        "This folder is deleted and drawn anew by every run. Keep nothing of yours in it.\n",
        encoding="utf-8",
    )


def draw_all(clips: list[Clip], config: SyntheticConfig) -> list[int]:
    """The number of frames of each clip, drawn by ``config.workers`` processes; writes the multi-task lists as well."""
    write = functools.partial(write_clip, config=config)
    workers = min(config.workers or os.cpu_count() or 1, len(clips))
    if workers == 1:
        done = [write(clip) for clip in clips]
    else:  # spawned, not forked: a fork copies the locks of whatever threads the caller has
        with multiprocessing.get_context("spawn").Pool(workers, _start) as pool:
            done = pool.map(write, clips, chunksize=1)
    num_frames, rows, tables = zip(*done, strict=True)
    write_multi_task(clips, list(rows), config.out / ANNOTATIONS)
    write_points(config.out / POINT_TABLE, pd.concat(tables, ignore_index=True))
    return list(num_frames)


def _start() -> None:
    end_with_pool()
    cv2.setNumThreads(1)


def write_clip(clip: Clip, config: SyntheticConfig) -> tuple[int, list[str], pd.DataFrame]:
    """Draws one clip and writes its frames and annotations.

    How many frames it has, its multi-task rows, and where the points of each face are, as ``write_points`` takes it.
    """
    rng = np.random.default_rng([config.seed, clip.index])
    numbers, length = sample_frame_numbers(clip, rng)
    num_lines = annotation_lines(clip, numbers, length, rng)
    rows = max(length, num_lines)
    played = perform(clip, int(numbers[0]), rows, rng)
    write_annotations(clip, played, num_lines, config.out / ANNOTATIONS, rng)
    if clip.folder is None:
        return 0, [], point_table([], [], [])
    who = sample_identity(rng)
    camera, poses, covered = sample_camera(who, rng), sample_poses(rows, rng), sample_occlusions(rows, rng)
    folder = config.out / clip.folder
    folder.mkdir(parents=True)
    points = []
    for number in numbers.tolist():
        t = number - 1
        au = dict(zip(AUS, played.drawn[t].tolist(), strict=True))
        skin = tuple(float(c) for c in np.clip(np.array(who.skin) * (1 + played.flush[t]), 0, 255))
        turn = (poses[t].turn[0], poses[t].turn[1] + played.nod[t])
        pose, coloured = dataclasses.replace(poses[t], turn=turn), dataclasses.replace(who, skin=skin)
        image = draw_face(coloured, au, played.lopsided[t], played.pucker[t], pose, camera.background)
        points.append(scaled(face_points(who, au, played.lopsided[t], played.pucker[t], pose), config.size / CANVAS))
        if t in covered:
            image = cover(image, *covered[t], shift=CENTRE + rng.normal(0, 1.0, 2))
        (folder / f"{number:05d}.jpg").write_bytes(photograph(image, camera, config.size, rng))
    mtl = multi_task_rows(clip, played, numbers, np.random.default_rng([config.seed, clip.index, 1]))
    paths = [f"{clip.folder}/{number:05d}.jpg" for number in numbers.tolist()]
    return len(numbers), mtl, point_table(paths, points, [clip.group] * len(paths))


def write_stray_files(out: Path) -> None:
    """What lies about beside the folders of such releases."""
    faces = out / "batch1" / "cropped_aligned"
    (faces / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\x00")
    (faces / "notes.txt").write_text("not a video\n", encoding="utf-8")
    (out / "batch2" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    (out / ANNOTATIONS / TRACK_FOLDERS["expr"] / "Train_Set" / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\x00")
