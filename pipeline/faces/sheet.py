"""A sheet to look at: originals with the box and the points that they were cut by, and beside each its cut face."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.files import whole
from pipeline.datasets.numbered import CROPS
from pipeline.datasets.points import POINTS
from pipeline.faces.loop import Task, find_record, read_record_table
from pipeline.faces.video import UnreadableVideo, read, read_stills

CELL = 224  # pixels of a picture's side
A_ROW = 4  # originals and their faces
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167))  # of POINTS
LINE = 18  # pixels of a name


def write(path: Path, tasks: Sequence[Task], most: int) -> int:
    """Draws the first face of ``most`` evenly spaced files that have one; gives how many are on the sheet."""
    cut = [task for task in tasks if (record := find_record(task.record)) and record["folders"]]
    some = [cut[k] for k in np.unique(np.linspace(0, len(cut) - 1, most).round().astype(int))] if cut else []
    cells = [cell for task in some if (cell := _cell(task)) is not None]
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


def _cell(task: Task) -> np.ndarray | None:
    """(CELL + LINE, 2 * CELL, 3) of a file's first face; None where it can no longer be read."""
    face = read_record_table(task.record).slice(0, 1).to_pylist()[0]
    image, crop = _frame(task, face["frame"]), task.out / CROPS / face["video"] / f"{face['frame']:05d}.jpg"
    small = cv2.imread(str(crop), cv2.IMREAD_COLOR_RGB)
    if image is None or small is None:
        return None
    drawn, scale = image.copy(), max(image.shape[:2]) / CELL
    thick = max(1, round(scale))
    corners = [(round(face[x]), round(face[y])) for x, y in (("left", "top"), ("right", "bottom"))]
    cv2.rectangle(drawn, *corners, (255, 255, 255), thick)
    for name, colour in zip(POINTS, COLOURS, strict=True):
        place = round(face[f"{name}_x"]), round(face[f"{name}_y"])
        cv2.circle(drawn, place, max(2, round(3 * scale)), colour, -1)
    cell = np.full((CELL + LINE, 2 * CELL, 3), 255, np.uint8)
    for number, picture in enumerate((drawn, small)):
        times = (CELL - 4) / max(picture.shape[:2])
        size = tuple(max(1, round(side * times)) for side in picture.shape[1::-1])
        left = number * CELL
        cell[: size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    words = f"{face['video']}, {face['frame']}"
    cv2.putText(cell, words, (2, CELL + LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return cell


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
