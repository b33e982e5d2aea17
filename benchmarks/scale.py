"""Data as large as the field's largest sets, drawn in seconds: tables and a feature store, to measure scale by.

    python benchmarks/scale.py abaw data/scale/abaw      594 videos, 2.94 M frames, 168,000 labelled to validate on
    python benchmarks/scale.py videos data/scale/videos  100,000 videos of 30 frames, 20,000 of them to validate on
    python benchmarks/scale.py stills data/scale/stills  60,000 images, each its own video; half to validate on
    python benchmarks/scale.py pairs data/scale/pairs    4,800 pairs of images, half to validate on; 5,488 columns
    python benchmarks/scale.py abaw data/scale/wide --width 1280 --chunks 8

Writes features.zarr, labels.parquet and frames.parquet; there are no images. Features are drawn: a direction for each
class and video, and noise. With ``--chunks`` only so many chunks are drawn and each of the others is a hard link to one
of them, so that a store of 7.5 GB takes 84 MB of the disk: for what reads features and does not compare them.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd

from pipeline.store import CHUNK_ROWS, FeatureStore, StoreWriter, chunk_file
from pipeline.tables import ABAW_CLASSES, Frames, Labels, write_frames, write_labels

SEGMENT = 150  # frames of one expression


@dataclass(frozen=True)
class Scale:
    """Sizes of a data set. ``train`` and ``val`` of its ``videos`` are labelled, a share of their frames each."""

    videos: int
    frames: int
    train: int
    val: int
    train_share: float = 1.0
    val_share: float = 1.0
    pairs: bool = False
    width: int = 128


SCALES = {
    # As Aff-Wild2: 587,000 of 1.23 M frames of the training videos have an expression, 168,000 of 346,000.
    "abaw": Scale(594, 2_940_000, 248, 70, 0.478, 0.485),
    "videos": Scale(100_000, 3_000_000, 80_000, 20_000),
    "stills": Scale(60_000, 60_000, 30_000, 30_000),
    "pairs": Scale(9_600, 9_600, 4_800, 4_800, pairs=True, width=112 * 7 * 7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("folder", type=Path, help="new or empty")
    parser.add_argument("--width", type=int, help="columns of the features")
    parser.add_argument("--chunks", type=int, help="that are drawn; the others are links to them")
    given = parser.parse_args()
    write(SCALES[given.scale], given.folder, given.width, given.chunks)


def write(scale: Scale, folder: Path, width: int | None = None, drawn_chunks: int | None = None) -> None:
    """The tables and the store of a scale; always the same."""
    width = width or scale.width
    rng = np.random.default_rng(0)
    table = frame_table(scale)
    code, label = table.pop("code").to_numpy(), table["label"].to_numpy()
    folder.mkdir(parents=True, exist_ok=True)
    labels = label_table(scale, table)
    write_frames(folder / "frames.parquet", Frames(table[["video", "frame", "path", "size"]], folder, "drawn", "drawn"))
    write_labels(folder / "labels.parquet", Labels(labels, ABAW_CLASSES, "drawn"))
    directions = 0.25 * rng.standard_normal((len(ABAW_CLASSES), width), dtype=np.float32)
    of_video = 0.5 * rng.standard_normal((4096, width), dtype=np.float32)
    drawn_chunks = drawn_chunks or -(-len(table) // CHUNK_ROWS)
    made_by = {"backbone": "drawn", "source": "drawn", "input_size": 112}
    with StoreWriter(folder / "features.zarr", made_by, {"original": width}) as writer:
        for start in range(0, drawn_chunks * CHUNK_ROWS, CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            values = rng.standard_normal((len(code[rows]), width), dtype=np.float32)
            values += directions[label[rows]] + of_video[code[rows] % len(of_video)]
            writer.write(table[rows], {"original": values.astype(np.float16)})
        for start in range(drawn_chunks * CHUNK_ROWS, len(table), CHUNK_ROWS):
            writer.write(table[start : start + CHUNK_ROWS], {"original": np.zeros((0, width), dtype=np.float16)})
    _link(folder / "features.zarr", drawn_chunks)


def frame_table(scale: Scale) -> pd.DataFrame:
    """Every frame: video (of names that sort as their ``code``), frame, path, size and ``label``."""
    code = np.arange(scale.frames) * scale.videos // scale.frames
    frame = np.arange(scale.frames) - np.searchsorted(code, code) + 1
    names = np.array([f"video_{k:06d}" for k in range(scale.videos)], dtype=object)
    if scale.pairs:
        names = np.array([f"{side}/{k:05d}" for side in ("left", "right") for k in range(scale.videos // 2)])
        code, label = np.arange(scale.videos), np.arange(scale.videos) % (scale.videos // 2) // 3 % len(ABAW_CLASSES)
    else:
        label = (frame // SEGMENT + code) % len(ABAW_CLASSES)
    video = pd.Series(names[code], dtype="str")
    path = video + "/" + pd.Series(frame).astype("str").str.zfill(5) + ".jpg"
    return pd.DataFrame({"video": video, "frame": frame, "path": path, "size": 4000, "code": code, "label": label})


def label_table(scale: Scale, table: pd.DataFrame) -> pd.DataFrame:
    """The labelled frames: the first videos train, those after them validate."""
    code = pd.factorize(table["video"])[0]
    if scale.pairs:
        pair = code % (scale.videos // 2)
        split = np.where(pair < scale.train // 2, "train", "val")
        side = np.where(code < scale.videos // 2, "left", "right")
        more = {"pair": pair.astype(str), "side": side, "same": 1, "dataset": "drawn"}
        group = pair.astype(str)
    else:
        split = np.select([code < scale.train, code < scale.train + scale.val], ["train", "val"], "none")
        more, group = {}, table["video"]
    share = np.select([split == "train", split == "val"], [scale.train_share, scale.val_share], 0)
    turn = table["frame"].to_numpy() % 1000 / 1000  # labelled and unlabelled stretches take turns
    labels = table[["video", "frame"]].assign(
        group=group, expression=np.array(ABAW_CLASSES, dtype=object)[table["label"]], expression_split=split, **more
    )
    return labels[turn < share]


def _link(path: Path, drawn: int) -> None:
    store = FeatureStore(path)
    array = store.group["views/original"]
    files = [chunk_file(path, array, index) for index in range(array.shape[0] // array.chunks[0])]
    for index in range(drawn, len(files)):
        linked = files[index].with_suffix(".link")
        os.link(files[index % drawn], linked)
        linked.replace(files[index])


if __name__ == "__main__":
    main()
