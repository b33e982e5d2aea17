"""A sheet to look at: what was around each face, with its box and the points it was cut by, and beside it its crop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.core.files import whole
from pipeline.datasets.numbered import CROPS
from pipeline.datasets.points import POINTS
from pipeline.faces.align import warp
from pipeline.faces.loop import Task, find_record, read_record_table
from pipeline.faces.video import UnreadableVideo, read, read_stills

CELL = 224  # pixels of a picture's side
A_ROW = 4  # originals and their faces
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (240, 228, 66))  # of POINTS
LINE = 18  # pixels of a name
AROUND = 1.6  # times the longer side of a face's box that is shown of its frame


def write(path: Path, tasks: Sequence[Task], most: int) -> int:
    """Draws the first face of ``most`` evenly spaced folders of faces; gives how many are on the sheet."""
    records = [(task, find_record(task.record)) for task in tasks]
    cut = [(task, name) for task, record in records if record for name in record["folders"]]
    some = [cut[k] for k in np.unique(np.linspace(0, len(cut) - 1, most).round().astype(int))] if cut else []
    cells = [cell for task, name in some if (cell := _cell(task, name)) is not None]
    if not cells:
        return 0
    drawn = len(cells)
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % min(A_ROW, len(cells)))
    width = min(A_ROW, len(cells))
    rows = [np.concatenate(cells[start : start + width], axis=1) for start in range(0, len(cells), width)]
    done, data = cv2.imencode(path.suffix or ".png", np.concatenate(rows)[..., ::-1])
    assert done
    with whole(path) as file:
        file.write(data.tobytes())
    return drawn


def _cell(task: Task, name: str) -> np.ndarray | None:
    """(CELL + LINE, 2 * CELL, 3) of a folder's first face; None where it can no longer be read."""
    face = next(row for row in read_record_table(task.record).to_pylist() if row["video"] == name)
    image, file = _frame(task, face["frame"]), task.out / CROPS / name / f"{face['frame']:05d}.jpg"
    small = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    if image is None or small is None:
        return None
    cell = np.full((CELL + LINE, 2 * CELL, 3), 255, np.uint8)
    for number, picture in enumerate((_original(image, face), small)):
        side = CELL - 4
        way = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_LINEAR
        cell[:side, number * CELL : number * CELL + side] = cv2.resize(picture, (side, side), interpolation=way)
    words = f"{name}, {face['frame']}"
    cv2.putText(cell, words, (2, CELL + LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return cell


def _original(image: np.ndarray, face: Mapping[str, Any]) -> np.ndarray:
    """(CELL - 4, CELL - 4, 3): what is around the face in its frame, with its box and its points."""
    box = np.array([face[name] for name in ("left", "top", "right", "bottom")])
    points = np.array([[face[f"{name}_{axis}"] for axis in "xy"] for name in POINTS])
    side, centre = AROUND * max((box[2:] - box[:2]).max(), 1.0), (box[:2] + box[2:]) / 2 - 0.5
    scale = (CELL - 4) / side
    shift = (CELL - 5) / 2 - scale * centre
    drawn = warp(image, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), CELL - 4)
    corners = [tuple(int(v) for v in np.rint(scale * (corner - 0.5) + shift)) for corner in (box[:2], box[2:])]
    cv2.rectangle(drawn, *corners, (255, 255, 255), 1)
    for point, colour in zip(points, COLOURS, strict=True):
        place = tuple(int(v) for v in np.rint(16 * (scale * point + shift)))
        cv2.circle(drawn, place, 16 * 3, (0, 0, 0), -1, cv2.LINE_AA, 4)
        cv2.circle(drawn, place, 16 * 2, colour, -1, cv2.LINE_AA, 4)
    return drawn


def _frame(task: Task, number: int) -> np.ndarray | None:
    """The original (H, W, 3) uint8 RGB with this number."""
    try:
        if task.sequence is not None:
            frames = read_stills(task.root, {number: task.sequence.paths[number]}).frames
        else:
            frames = read(task.root / task.source).frames
        return next((frame.image for frame in frames if frame.number == number), None)
    except UnreadableVideo:
        return None
