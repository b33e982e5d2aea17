"""What is shown of a run's best epoch: histograms of cosines, matrices of similarity and confusion, a projector."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.adapter.adapter import Adapter
from pipeline.adapter.pair_attention import pairs_seen
from pipeline.core.colours import COLOURS
from pipeline.core.join import frame_table
from pipeline.core.pictures import pictures_of, thumbnail
from pipeline.core.tables import read_frames
from pipeline.metrics.vectors import evenly
from pipeline.training.board import Board
from pipeline.training.data import TrainingData

SHOWN = 400  # frames of the validation part that TensorBoard's projector gets
GREY = 128
SIZE = 48  # pixels of a face in the projector


def show(data: TrainingData, adapter: Adapter, board: Board, epoch: int) -> None:
    """Puts the validation windows of epoch ``epoch``, whose ``adapter`` this is, onto the board."""
    watched, frames = data.watched["val"], data.frames
    _, cosines, made = watched.look(adapter, data.source)
    z, label, video = made.embeddings.cpu().numpy(), frames.label[watched.centres], frames.video[watched.centres]
    if cosines:
        board.cosines(**cosines, part="val", epoch=epoch)
    if frames.classes:
        labelled = label >= 0
        board.similarity(z[labelled], label[labelled], video[labelled], frames.classes, "val", epoch)
        if "classes" in adapter.predicts:
            predicted = made.predict("classes").argmax(1).cpu().numpy()
            board.confusion(label[labelled], predicted[labelled], frames.classes, "val", epoch)
    table = frame_table(data.config.data, data.config.frames)
    _attention(data, adapter, board, epoch, table)
    some = evenly(len(z), SHOWN)
    columns = {
        "emotion": [frames.label_names[k] if k >= 0 else "" for k in label[some]],
        "video": [frames.videos[v] for v in video[some]],
        "frame": frames.frame[watched.centres][some].tolist(),
    }
    faces = _faces(table, columns["video"], columns["frame"])
    board.projector(z[some], columns, framed(faces, label[some]))


def _attention(data: TrainingData, adapter: Adapter, board: Board, epoch: int, table: Path | None) -> None:
    """Puts pairs with what their places count for onto the board, where the head weighs places."""
    seen = pairs_seen(adapter, data.source, data.windows, data.frames, "val")
    if seen is None:
        return
    there, pictures = seen.readable(pictures_of(table))
    if line := seen.left_out(there):
        print(line)
    board.attention(there, pictures, "val", epoch)


def _faces(table: Path | None, videos: list[str], numbers: list[int]) -> np.ndarray | None:
    """The pictures of these frames, small; None without a frame table, and where none can be read."""
    if table is None:
        return None
    frames = read_frames(table)
    path = frames.table.set_index(["video", "frame"])["path"]
    return thumbnails(frames.root, path.reindex(list(zip(videos, numbers, strict=True))).fillna("").tolist())


def framed(squares: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """The squares (n, size, size, 3), each in a frame of its class's colour; without pictures, squares of that colour.

    The projector opens uncoloured, and no file of its own can change that. Rows with ``labels`` (n,) of -1 are grey.
    """
    colours = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in COLOURS], dtype=np.uint8)
    plain = np.where(labels[:, None] < 0, np.uint8(GREY), colours[labels % len(colours)])
    of_colour = np.broadcast_to(plain[:, None, None], (len(labels), SIZE, SIZE, 3)).copy()
    if squares is not None:
        edge = max(1, squares.shape[1] // 10)
        of_colour = np.broadcast_to(plain[:, None, None], squares.shape).copy()
        of_colour[:, edge:-edge, edge:-edge] = squares[:, edge:-edge, edge:-edge]
    return of_colour


def thumbnails(root: Path, paths: Sequence[str], size: int = SIZE) -> np.ndarray | None:
    """The images at ``paths`` under ``root``, letterboxed: (n, size, size, 3) uint8 RGB.

    One that cannot be read is a grey square; None where none can be.
    """
    squares = np.full((len(paths), size, size, 3), GREY, dtype=np.uint8)
    read = [_letterbox(root / path, square) for path, square in zip(paths, squares, strict=True)]
    return squares if any(read) else None


def _letterbox(path: Path, square: np.ndarray) -> bool:
    """Draws the image into the middle of ``square`` (size, size, 3), aspect kept; False where it cannot be read."""
    small = thumbnail(path, len(square))
    if small is None:
        return False
    height, width = small.shape[:2]
    top, left = (len(square) - height) // 2, (len(square) - width) // 2
    square[top : top + height, left : left + width] = small
    return True
