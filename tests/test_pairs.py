import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import draw

import extract
import train
from pipeline.core.params import UserError
from pipeline.datasets import index, pairs, readers
from pipeline.datasets.config import DatasetConfig
from pipeline.extraction import reduce

pytestmark = pytest.mark.usefixtures("undrawn")

COLUMNS = ["video", "frame", "group", "expression", "pair", "side", "same"]


def made(root: Path, *paths: str, table: str | None = None) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * len(path))
    if table:
        (root / "t.csv").write_text(table)
    return root


def read(root: Path, table: bool = False, **others):
    return pairs.read(DatasetConfig(name="pairs", root=root, annotations=root / "t.csv" if table else None, **others))


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    return sorted(table[list(columns)].itertuples(index=False, name=None))


def test_a_pair_is_two_images_of_one_name_each_a_video_and_both_one_class_and_group(tmp_path):
    found = read(made(tmp_path, "left/1.jpg", "right/1.png", "left/2.jpg", "right/2.jpg"))
    assert rows(found.labels.table, *COLUMNS) == [
        ("left/1", 0, "1", "1", "1", "left", 1),
        ("left/2", 0, "2", "2", "2", "left", 1),
        ("right/1", 0, "1", "1", "1", "right", 1),
        ("right/2", 0, "2", "2", "2", "right", 1),
    ]
    assert rows(found.frames.table, "video", "path", "size")[2] == ("right/1", "right/1.png", 11)
    assert found.report["pairs"] == {"same": 2, "different": 0}
    assert found.skipped == 0


def test_images_without_partner_and_outside_are_counted_and_named(tmp_path):
    found = read(made(tmp_path, "Left/1.jpg", "right/1.jpg", "Left/2.jpg", "right/3.jpg", "4.jpg", "right/deep/1.jpg"))
    assert rows(found.frames.table, "path") == [("Left/1.jpg",), ("right/1.jpg",)]
    assert found.report["images_without_partner"]["first"] == ["Left/2.jpg", "right/3.jpg"]
    assert found.report["images_outside_left_and_right"]["first"] == ["4.jpg", "right/deep/1.jpg"]
    assert found.skipped == 4


def test_pairs_of_a_table_that_share_an_image_are_one_group_and_same_ones_one_class(tmp_path):
    """a = b and b = c: one class. d differs from a: a class of its own, in their group. e = f apart."""
    made(
        tmp_path,
        *(f"{n}.jpg" for n in "abcdef"),
        table="left,right,same\na.jpg,b.jpg,1\nb.jpg,c.jpg,1\na.jpg,d.jpg,0\ne.jpg,f.jpg,1\n",
    )
    found = read(tmp_path, table=True)
    assert rows(found.labels.table, "pair", "side", "group", "expression", "same") == [
        ("00001", "left", "00001", "00001", 1),
        ("00001", "right", "00001", "00001", 1),
        ("00002", "left", "00001", "00001", 1),
        ("00002", "right", "00001", "00001", 1),
        ("00003", "left", "00001", "00001", 0),
        ("00003", "right", "00001", "00003/right", 0),
        ("00004", "left", "00004", "00004", 1),
        ("00004", "right", "00004", "00004", 1),
    ]
    assert found.report["images_in_several_pairs"]["first"] == ["a.jpg", "b.jpg"]


def test_labels_of_a_table_are_the_classes_and_say_what_is_the_same(tmp_path):
    made(
        tmp_path,
        "a.jpg",
        "b.jpg",
        "c.jpg",
        table="left,right,left_label,right_label,pair\na.jpg,b.jpg,x,y,p\nb.jpg,c.jpg,y,y,q\n",
    )
    assert rows(read(tmp_path, table=True).labels.table, "pair", "side", "expression", "same") == [
        ("p", "left", "x", 0), ("p", "right", "y", 0), ("q", "left", "y", 1), ("q", "right", "y", 1),
    ]  # fmt: skip


def test_bad_lines_and_missing_images_are_named(tmp_path):
    table = """left,right,same,left_label,right_label,split
a.jpg,b.jpg,1,x,x,train
a.jpg,,1,x,x,train
a.jpg,b.jpg,maybe,x,x,train
a.jpg,b.jpg,1,x,,train
a.jpg,b.jpg,1,x,y,train
a.jpg,b.jpg,1,x,x,soon
a.jpg,z.jpg,1,x,x,train
"""
    found = read(made(tmp_path, "a.jpg", "b.jpg", table=table), table=True)
    assert sorted(found.report["malformed_lines"]["first"]) == [
        "line 3: a path is empty, or leads out of root",
        "line 4: same is not 1 or 0",
        "line 5: a label is empty",
        "line 6: same contradicts the labels",
        "line 7: split is not train, val or test",
    ]
    assert found.report["images_missing"]["first"] == ["z.jpg: No such file or directory"]
    assert (found.skipped, len(found.frames.table)) == (6, 2)


def test_a_label_that_stands_for_none_makes_no_class_of_pairs_and_minus_one_is_no_answer_to_same(tmp_path):
    table = "left,right,same,left_label,right_label,split\na,b,1,x,x,\na,b,1,NA,NA,\nc,d,-1,x,y,\n"
    found = read(made(tmp_path, "a", "b", "c", "d", table=table), table=True)
    assert found.labels.classes == ["x"]
    assert found.report["malformed_lines"]["first"] == ["line 4: same is not 1 or 0", "line 3: a label is empty"]
    assert read(tmp_path, table=True, missing=[]).labels.classes == ["NA", "x"]


def test_a_shared_image_on_both_sides_of_a_given_split_is_an_error(tmp_path):
    made(tmp_path, "a.jpg", "b.jpg", "c.jpg", table="left,right,split\na.jpg,b.jpg,train\nb.jpg,c.jpg,val\n")
    with pytest.raises(UserError, match="groups stand in two splits"):
        read(tmp_path, table=True)


def test_the_drawn_split_cuts_no_pair(tmp_path):
    made(tmp_path, *(f"{side}/{n}.jpg" for side in ("left", "right") for n in range(20)))
    table = readers.read(DatasetConfig(name="pairs", root=tmp_path)).labels.table
    assert table.groupby("pair")["expression_split"].nunique().max() == 1
    assert table["expression_split"].value_counts().to_dict() == {"train": 32, "val": 8}


def test_no_pairs_names_twice_and_columns_without_a_table_are_errors(tmp_path):
    with pytest.raises(UserError, match="no image in 'left' has its like"):
        read(tmp_path)
    made(tmp_path, "left/1.jpg", "left/1.png", "right/1.jpg")
    with pytest.raises(UserError, match=r"'left/1\.(jpg|png)' and 'left/1\.(jpg|png)' have one name"):
        read(tmp_path)
    with pytest.raises(UserError, match="for a table"):
        read(tmp_path, columns={"left": "a"})
    made(tmp_path, "a.jpg", table="left,right,pair\na.jpg,a.jpg,p\na.jpg,a.jpg,p\n")
    with pytest.raises(UserError, match=r"1 pairs stand twice, such as \['p'\]"):
        read(tmp_path, table=True)


TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--workers", "1"]


def test_the_readmes_command_trains_on_pairs_and_evaluates_them(workplace):
    for i in range(60):
        for side in pairs.SIDES:
            draw(Path(f"tll/{side}/{i:05d}.jpg"), i)
    index.main(["--name", "pairs", "--root", "tll"])
    extract.main(TINY)
    reduce.main(["--components", "16"])
    command = "--model original -e 150 -r 1 -t 15 --test-split 0.25 -k 1 3 5"
    train.main(["--cpu", *command.split()])
    (folder,) = Path("runs/manual").iterdir()
    about = json.loads((folder / "details.json").read_text())["about"]
    assert (about["train_frames"], about["val_frames"]) == (90, 30)
    (seed,) = json.loads((folder / "summary.json").read_text())["seeds"]
    assert seed["select"] == pytest.approx(1)  # left and right are the same picture
    assert set(json.loads((folder / "metrics.json").read_text())) >= {f"paired_recall_at_{k}" for k in (1, 3, 5)}
