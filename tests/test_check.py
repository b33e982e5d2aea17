"""python -m pipeline.datasets --check FOLDER"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import draw
from test_afew_va import annotation
from test_celeba import celeba_tree
from test_clip_sets import bah_tree, caer_tree, dfew_tree, ferv39k_tree, mafw_tree

from pipeline.core.params import UserError, build
from pipeline.datasets import __main__ as check
from pipeline.datasets import readers, shapes
from pipeline.datasets.config import DatasetConfig


def file(root: Path, path: str, content: str = "x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def images(root: Path, *paths: str, size: tuple[int, int] = (40, 40)) -> None:
    for seed, path in enumerate(paths):
        draw(root / path, seed, size)


def abaw(root: Path) -> None:
    images(root, "batch1/cropped_aligned/461/00001.jpg", "batch1/cropped/461/00001.jpg")
    file(root, "6th/EXPR_Challenge/Train_Set/461.txt", "Neutral,Anger\n1\n")


def multi_task(root: Path) -> None:
    images(root, "faces/461/00001.jpg")
    file(root, "training_set_annotations.txt", "image,valence,arousal,expression,aus\n461/00001.jpg,0,0,1" + ",0" * 12)


def loose_crops(root: Path) -> None:
    images(root, "cropped/461/00001.jpg")


def afew_va(root: Path) -> None:
    images(root, "001/00000.png")
    annotation(root, "001/001.json", {0: (1, 1)})


def ravdess(root: Path) -> None:
    images(root, "cropped_aligned/02-01-06-01-02-01-12/00001.jpg")


def ckplus(root: Path) -> None:
    images(root, *(f"cohn-kanade-images/S005/001/S005_001_{n:08d}.png" for n in range(1, 6)))
    file(root, "Emotion/S005/001/S005_001_00000005_emotion.txt", "3.0")


def ck48(root: Path) -> None:
    images(root, "happy/S010_004_00000017.png", "anger/S011_004_00000017.png")


def pairs(root: Path) -> None:
    images(root, "left/1.jpg", "right/1.jpg")


def pair_table(root: Path) -> None:
    images(root, "a.jpg", "b.jpg")
    file(root, "p.csv", "left,right\na.jpg,b.jpg\n")


def drawn_shapes(root: Path) -> None:
    shapes.write(shapes.ShapesConfig(out=root, pairs=4))


def table(root: Path) -> None:
    images(root, "i/a.jpg", "i/b.jpg")
    file(root, "labels.csv", "image;emotion;subject\ni/a.jpg;happy;1\ni/b.jpg;sad;2\n")


def clip_table(root: Path) -> None:
    images(root, "cropped_aligned/a/00001.jpg", "cropped_aligned/a/00002.jpg", "cropped_aligned/b/00001.jpg")
    file(root, "clips.csv", "clip_file,start,end,emotion,person\na.mp4,1,2,happy,x\nb.mp4,,,sad,y\n")


def clip_parquet(root: Path) -> None:
    clip_table(root)
    (root / "clips.csv").unlink()
    pd.DataFrame({"video": ["a", "b"], "label": ["x", "y"]}).to_parquet(root / "clips.parquet")


def folder(root: Path) -> None:
    images(root, "hat/1.jpg", "shirt/1.jpg")


@pytest.mark.parametrize(
    ("make", "name", "settings"),
    [
        (abaw, "abaw", {}),
        (multi_task, "abaw", {}),
        (loose_crops, "abaw", {"crop_source": "cropped"}),
        (afew_va, "afew_va", {}),
        (ravdess, "ravdess", {"class_map": "abaw"}),
        (ckplus, "ckplus", {"class_map": "abaw"}),
        (ck48, "ckplus", {"class_map": "abaw"}),
        (pairs, "pairs", {}),
        (pair_table, "pairs", {"annotations": "p.csv"}),
        (drawn_shapes, "shapes", {}),
        (
            table,
            "csv",
            {
                "annotations": "labels.csv",
                "columns": {"path": "image", "label": "emotion", "group": "subject"},
                "class_map": "abaw",
            },
        ),
        (folder, "folder", {}),
        (bah_tree, "bah", {}),
        (caer_tree, "caer", {}),
        (celeba_tree, "celeba", {}),
        (dfew_tree, "dfew", {}),
        (ferv39k_tree, "ferv39k", {}),
        (mafw_tree, "mafw", {}),
        (
            clip_table,
            "clips",
            {
                "annotations": "clips.csv",
                "columns": {"video": "clip_file", "label": "emotion", "group": "person"},
                "class_map": "abaw",
            },
        ),
        (clip_parquet, "clips", {"annotations": "clips.parquet"}),
    ],
)
def test_each_layout_is_told_and_what_is_printed_for_params_yaml_reads_it(tmp_path, capsys, make, name, settings):
    root = tmp_path / "set"
    root.mkdir()
    make(root)
    assert check.main(["--check", str(root)]) == 0
    printed = capsys.readouterr().out
    section = yaml.safe_load(printed.partition("for params.yaml:")[2])["dataset"]
    expected = {"name": name, "root": root.as_posix()} | settings
    if "annotations" in settings:
        expected["annotations"] = (root / settings["annotations"]).as_posix()
    assert section == expected
    assert len(readers.read(build(DatasetConfig, section, "dataset")).frames.table) > 0


def test_a_list_of_another_data_set_that_bah_and_ferv39k_have_too_tells_neither(tmp_path, capsys):
    images(tmp_path, "train/hat/1.jpg", "val/cap/1.jpg")
    for path in ("split/train.txt", "train_All.csv", "test_All.csv"):
        file(tmp_path, path)
    assert check.main(["--check", str(tmp_path)]) == 0
    assert "name: folder" in capsys.readouterr().out


def test_a_root_made_of_links_is_told_as_index_reads_it(tmp_path, capsys):
    abaw(tmp_path / "disk")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("batch1", "6th"):
        (root / name).symlink_to(tmp_path / "disk" / name)
    (root / "again").symlink_to(tmp_path / "disk" / "batch1")
    (root / "loop").symlink_to(root)
    assert check.main(["--check", str(root)]) == 0
    printed = capsys.readouterr().out
    assert f"{root}: 2 images in 2 folders" in printed
    assert "abaw, cropped_aligned: 1 videos, 1 frames" in printed
    assert "odd: 2 links to folders read already, 'batch1'" in printed


def test_raw_videos_grey_broken_and_mixed_images_are_odd(tmp_path, capsys):
    images(tmp_path, "a/1.jpg", "a/2.jpg")
    images(tmp_path, "b/3.jpg", size=(500, 600))
    file(tmp_path, "b/broken.jpg")
    file(tmp_path, "raw/clip.mp4")
    (tmp_path / "a" / "4.png").write_bytes(cv2.imencode(".png", np.zeros((40, 40), np.uint8))[1].tobytes())
    check.main(["--check", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "odd: 1 videos, such as 'raw/clip.mp4'" in printed
    assert "odd: 'b/broken.jpg' cannot be opened as an image" in printed
    assert "odd: of 4 images that were opened, 2 sizes: 40 x 40 (3), 600 x 500 (1)" in printed
    assert "odd: 1 of 4 images that were opened are grey" in printed
    assert "odd: images are large" in printed


def test_whole_frames_of_afew_va_are_to_be_cut_by_their_own_points(tmp_path, capsys):
    afew_va(tmp_path)
    hint = f"python -m pipeline.faces --landmarks afew_va --input {tmp_path} --out data/faces"
    for size, hinted in (((576, 720), True), ((112, 112), False)):
        for path in tmp_path.rglob("*.png"):
            images(tmp_path, path.relative_to(tmp_path).as_posix(), size=size)
        check.main(["--check", str(tmp_path)])
        assert (hint in capsys.readouterr().out) == hinted


def test_a_data_set_with_a_fault_is_told_with_the_readers_own_words(tmp_path, capsys):
    abaw(tmp_path)
    file(tmp_path, "5th/EXPR_Challenge/Train_Set/461.txt", "Neutral,Anger\n1\n")
    assert check.main(["--check", str(tmp_path)]) == 1
    assert "it looks like abaw, and cannot be read as that:\n  data set 'abaw': video '461' has two" in (
        capsys.readouterr().out
    )


def test_an_empty_folder_is_status_1_and_a_missing_one_an_error(tmp_path, capsys):
    assert check.main(["--check", str(tmp_path)]) == 1
    assert "no data set that is known lies here" in capsys.readouterr().out
    with pytest.raises(UserError, match="there is no folder"):
        check.main(["--check", str(tmp_path / "nowhere")])


def test_annotations_of_a_large_set_are_read_only_when_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "MOST_IMAGES", 1)
    images(tmp_path, "a/1.jpg", "a/2.jpg")
    assert check.main(["--check", str(tmp_path)]) == 0
    assert "its annotations were not read" in capsys.readouterr().out
    assert check.main(["--check", str(tmp_path), "--whole"]) == 0
    assert "folder, as given: 2 videos" in capsys.readouterr().out
