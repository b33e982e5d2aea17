"""Images that are one file byte for byte, in two splits or two groups."""

import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.tables import Frames, Labels
from pipeline.datasets import readers
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.copies import copies
from pipeline.datasets.index import report_of, summary


def made(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def read(root: Path, compare: int = 1000, **others) -> dict:
    return report_of(readers.read(DatasetConfig(name="folder", root=root, **others)), compare)


def test_a_picture_in_train_and_in_val_is_named_and_one_in_two_groups_of_train_is_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    one, two, other = rng.bytes(9000), rng.bytes(9000), rng.bytes(500)
    same_end = rng.bytes(100) + one[100:]  # as two pictures with one last part
    files = {"train/a/1.jpg": one, "val/b/2.jpg": one, "train/a/3.jpg": other, "train/b/4.jpg": other}
    files |= {"val/a/5.jpg": two, "val/a/6.jpg": same_end, "train/a/7.jpg": b"", "val/a/8.jpg": b""}
    report = read(made(tmp_path, files))
    assert report["identical_images_in_two_splits"] == {
        "count": 1,
        "first": ["'train/a/1.jpg' (train) and 'val/b/2.jpg' (val)"],
    }
    assert report["identical_images_in_two_groups"] == {
        "count": 1,
        "first": ["'train/a/3.jpg' (train/a/3) and 'train/b/4.jpg' (train/b/4)"],
    }
    assert report["files_of_equal_size"] == {"compared": 6, "in_all": 6}
    assert "WARNING: 1 pictures stand in two splits byte for byte, such as 'train/a/1.jpg'" in summary(report)
    assert "looked for identical images: all 6 files" in summary(report)


def test_frames_of_one_video_may_be_alike_and_what_stands_in_two_folds_is_named(tmp_path):
    made(tmp_path, {f"a/still/{n}.jpg": b"still" for n in range(3)} | {"a/1.jpg": b"x", "a/2.jpg": b"y"})
    assert read(tmp_path)["files_of_equal_size"]["in_all"] == 2
    made(tmp_path, {f"b/{n}.jpg": b"same" for n in range(8)})
    report = read(tmp_path, folds=2)
    assert report["identical_images_in_two_splits"]["first"][0].count("fold ") == 2
    assert "identical_images_in_two_splits" not in read(tmp_path, compare=0)


def test_of_a_large_set_all_files_of_some_sizes_are_compared_so_that_the_share_found_is_the_share_read(tmp_path):
    """40 sizes of 10 files, in each of which two are one: each pair of all files is compared by hand."""
    rng = np.random.default_rng(0)
    files = {f"{'train' if n % 2 else 'val'}/{s}/{n}.jpg": rng.bytes(50 + s) for s in range(40) for n in range(10)}
    files |= {f"train/{s}/1.jpg": files[f"val/{s}/0.jpg"] for s in range(40)}
    made(tmp_path, files)
    report = read(tmp_path, compare=105)
    assert report["files_of_equal_size"] == {"compared": 100, "in_all": 400}
    assert report["identical_images_in_two_splits"]["count"] == 10
    assert "expect 4 times as many copies" in summary(report)
    assert read(tmp_path, compare=105) == report  # nothing by chance
    same = [(a, b) for a, b in combinations(files, 2) if files[a] == files[b] and a.split("/")[0] != b.split("/")[0]]
    assert read(tmp_path, compare=400)["identical_images_in_two_splits"]["count"] == len(same) == 40


def test_files_that_all_have_one_size_are_compared_in_part(tmp_path):
    root = made(tmp_path, {f"{n}.bmp": hashlib.sha256(str(n // 2).encode()).digest() for n in range(50)})
    paths = [f"{n}.bmp" for n in range(50)]
    frames = pd.DataFrame({"video": paths, "frame": 0, "path": paths, "size": 32})
    labels = frames[["video", "frame"]].assign(group=paths, expression="x", expression_split=["train", "val"] * 25)
    tables = Frames(frames, root, "x", "y"), Labels(labels, ["x"], "x")
    assert copies(*tables, 20)["files_of_equal_size"] == {"compared": 20, "in_all": 50}
    assert copies(*tables, 50)["identical_images_in_two_splits"]["count"] == 25
    (root / "0.bmp").unlink()
    assert copies(*tables, 50)["identical_images_in_two_splits"]["count"] == 24
