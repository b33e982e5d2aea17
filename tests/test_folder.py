from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.params import UserError
from pipeline.datasets import readers, splits
from pipeline.datasets.config import DatasetConfig


def made(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * len(path))
    return root


def read(root: Path, **others):
    return readers.read(DatasetConfig(name="folder", root=root, **others))


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    return sorted(table[list(columns)].itertuples(index=False, name=None))


def test_an_official_split_is_kept_and_every_image_is_a_video(tmp_path):
    made(tmp_path, "train/hat/a.jpg", "train/hat/b c.PNG", "Validation/hat/a.jpg", "Validation/shirt/é.webp")
    found = read(tmp_path)
    assert rows(found.frames.table, "video", "frame", "path", "size") == [
        ("Validation/hat/a", 0, "Validation/hat/a.jpg", 20),
        ("Validation/shirt/é", 0, "Validation/shirt/é.webp", 23),
        ("train/hat/a", 0, "train/hat/a.jpg", 15),
        ("train/hat/b c", 0, "train/hat/b c.PNG", 17),
    ]
    assert rows(found.labels.table, "video", "frame", "group", "expression", "expression_split") == [
        ("Validation/hat/a", 0, "Validation/hat/a", "hat", "val"),
        ("Validation/shirt/é", 0, "Validation/shirt/é", "shirt", "val"),
        ("train/hat/a", 0, "train/hat/a", "hat", "train"),
        ("train/hat/b c", 0, "train/hat/b c", "hat", "train"),
    ]
    assert found.labels.classes == ["hat", "shirt"]
    assert found.report["classes_missing_in_a_split"] == {"count": 1, "first": ["train: shirt"]}
    assert found.report["split"] == "official"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("TRAIN", "train"),
        ("training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Test", "test"),
        ("testing", "test"),
    ],
)
def test_split_folders_are_known_by_several_names_in_any_case(tmp_path, name, split):
    assert list(read(made(tmp_path, f"{name}/a/1.jpg")).labels.table["expression_split"]) == [split]


def test_two_folders_for_one_split_are_an_error_that_names_both(tmp_path):
    made(tmp_path, "val/a/1.jpg", "validation/a/1.jpg")
    with pytest.raises(UserError, match=r"\['val', 'validation'\] all stand for the split 'val'"):
        read(tmp_path)


def test_the_extension_is_in_the_name_only_where_the_stem_is_not_unique(tmp_path):
    made(tmp_path, "a/1.jpg", "a/1.png", "a/2.jpg", "b/1.jpg", "b/3.jpg", "b/3/001.jpg")
    assert rows(read(tmp_path).frames.table, "video", "frame") == [
        ("a/1.jpg", 0),
        ("a/1.png", 0),
        ("a/2", 0),
        ("b/1", 0),
        ("b/3", 1),
        ("b/3.jpg", 0),
    ]


def test_a_folder_in_a_class_folder_is_a_video_numbered_by_its_names_or_else_by_their_order(tmp_path):
    made(tmp_path, *(f"happy/S010/S010_004_{n:08d}.png" for n in (15, 16, 19)))
    made(tmp_path, "happy/words/b.jpg", "happy/words/a.jpg", "happy/half/x1.jpg", "happy/half/y.jpg")
    made(tmp_path, "happy/twice/a1.jpg", "happy/twice/b1.jpg")
    assert rows(read(tmp_path).frames.table, "video", "frame", "path") == [
        ("happy/S010", 15, "happy/S010/S010_004_00000015.png"),
        ("happy/S010", 16, "happy/S010/S010_004_00000016.png"),
        ("happy/S010", 19, "happy/S010/S010_004_00000019.png"),
        ("happy/half", 0, "happy/half/x1.jpg"),
        ("happy/half", 1, "happy/half/y.jpg"),
        ("happy/twice", 0, "happy/twice/a1.jpg"),
        ("happy/twice", 1, "happy/twice/b1.jpg"),
        ("happy/words", 0, "happy/words/a.jpg"),
        ("happy/words", 1, "happy/words/b.jpg"),
    ]


def test_images_outside_class_folders_are_skipped_and_named_and_empty_classes_reported(tmp_path):
    made(tmp_path, "train/a/1.jpg", "train/loose.jpg", "top.jpg", "spare/a/2.jpg", "train/a/notes.txt")
    (tmp_path / "train" / "empty").mkdir()
    found = read(tmp_path)
    assert rows(found.frames.table, "path") == [("train/a/1.jpg",)]
    assert found.report["images_outside_class_folders"]["first"] == ["spare/a/2.jpg", "top.jpg", "train/loose.jpg"]
    assert found.report["empty_class_folders"] == {"count": 1, "first": ["train/empty"]}
    assert found.report["stray_files"] == {"count": 1, "first": ["train/a/notes.txt"]}
    assert found.skipped == 3
    assert found.labels.classes == ["a"]


def test_a_class_whose_images_are_all_in_videos_is_not_empty(tmp_path):
    assert read(made(tmp_path, "a/v1/1.jpg")).report["empty_class_folders"]["count"] == 0


def test_without_an_official_split_the_fraction_is_held_out_of_every_class(tmp_path):
    made(
        tmp_path, *(f"a/{i}.jpg" for i in range(10)), *(f"b/{i}.jpg" for i in range(5)), "c/1.jpg", "d/1.jpg", "d/2.jpg"
    )
    table = read(tmp_path, val_fraction=0.2, seed=3).labels.table
    counts = table.groupby(["expression", "expression_split"]).size()
    assert counts.to_dict() == {
        ("a", "train"): 8, ("a", "val"): 2,
        ("b", "train"): 4, ("b", "val"): 1,
        ("c", "train"): 1,
        ("d", "train"): 1, ("d", "val"): 1,
    }  # fmt: skip


def test_the_same_seed_holds_out_the_same_groups_and_another_seed_others(tmp_path):
    made(tmp_path, *(f"a/{i}.jpg" for i in range(40)))

    def held_out(seed):
        table = read(tmp_path, seed=seed).labels.table
        return set(table.loc[table["expression_split"] == "val", "video"])

    assert held_out(0) == held_out(0)
    assert held_out(0) != held_out(1)


def test_a_video_is_never_on_both_sides(tmp_path):
    made(tmp_path, *(f"a/{v}/{i}.jpg" for v in range(5) for i in range(40)))
    table = read(tmp_path).labels.table
    assert table.groupby("group")["expression_split"].nunique().max() == 1
    assert set(table["expression_split"]) == {"train", "val"}


def test_a_drawn_split_does_not_depend_on_the_order_of_rows_and_moves_little_when_a_group_comes():
    table = pd.DataFrame({"group": [f"g{i}" for i in range(50)], "stratum": ["x"] * 50})
    first = splits.by_group(table["group"], table["stratum"], 0.2, 0)
    turned = table[::-1]
    pd.testing.assert_series_equal(first, splits.by_group(turned["group"], turned["stratum"], 0.2, 0).sort_index())
    more = pd.concat([table, pd.DataFrame({"group": ["new"], "stratum": ["x"]})], ignore_index=True)
    assert (splits.by_group(more["group"], more["stratum"], 0.2, 0)[:50] != first).sum() <= 1


def test_a_group_with_several_classes_counts_for_its_most_frequent():
    """g1 and g2 are x (2 of 3 rows), g3 and g4 are y: one of each pair is held out."""
    groups = pd.Series([g for g in ("g1", "g2", "g3", "g4") for _ in range(3)])
    strata = pd.Series([*"xxy", *"xyx", *"yyx", *"yyy"])
    split = splits.by_group(groups, strata, 0.5, 0)
    val = set(groups[split == "val"])
    assert len(val & {"g1", "g2"}) == len(val & {"g3", "g4"}) == 1


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_outside_0_to_1_is_an_error(tmp_path, fraction):
    with pytest.raises(UserError, match="val_fraction must be at least 0 and less than 1"):
        read(made(tmp_path, "a/1.jpg"), val_fraction=fraction)


def test_a_fraction_of_zero_holds_nothing_out(tmp_path):
    assert set(read(made(tmp_path, "a/1.jpg", "a/2.jpg"), val_fraction=0.0).labels.table["expression_split"]) == {
        "train"
    }


@pytest.mark.parametrize("paths", [(), ("1.jpg",), ("train/1.jpg",), ("a/notes.txt",)])
def test_a_root_without_class_folders_is_an_error_that_says_what_was_wanted(tmp_path, paths):
    with pytest.raises(UserError, match=r"(?s)ROOT/<class>/\*.jpg.*dataset.root.*--root"):
        read(made(tmp_path, *paths))


def test_a_setting_that_the_reader_has_no_use_for_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"does not use dataset\.annotations: leave it out"):
        read(made(tmp_path, "a/1.jpg"), annotations=tmp_path)


def test_hidden_folders_are_no_classes(tmp_path):
    found = read(made(tmp_path, "a/1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/a/1.jpg"))
    assert found.labels.classes == ["a"]
    assert found.report["stray_files"]["first"] == [".ipynb_checkpoints/", "__MACOSX/"]


def test_two_people_cut_out_of_one_video_are_one_group(tmp_path):
    names = ["hat/1_left/00001.jpg", "hat/1_right/00001.jpg", "hat/2/00001.jpg", "hat/a_left.jpg"]
    root = made(tmp_path / "faces" / "cropped_aligned", *names)
    assert rows(read(root).labels.table, "group") == [
        ("hat/1_left",), ("hat/1_right",), ("hat/2",), ("hat/a_left",),
    ]  # fmt: skip
    made(tmp_path / "faces", ".faces/hat/1.parquet")
    assert rows(read(root).labels.table, "video", "group") == [
        ("hat/1_left", "hat/1"), ("hat/1_right", "hat/1"), ("hat/2", "hat/2"), ("hat/a_left", "hat/a_left"),
    ]  # fmt: skip


def test_a_class_folder_called_nan_holds_frames_without_label_unless_it_is_said_to_be_a_class(tmp_path):
    made(tmp_path, "hat/1.jpg", "nan/2.jpg", "None/3.jpg", "-1/4/5.jpg")
    found = read(tmp_path)
    assert len(found.frames.table) == 4
    assert rows(found.labels.table, "video", "expression") == [("hat/1", "hat")]
    assert found.labels.classes == ["hat"]
    assert found.report["labels_missing"] == {"count": 3, "first": ["'-1': 1", "'None': 1", "'nan': 1"]}
    assert "labels that stand for none: '-1': 1, 'None': 1, 'nan': 1" in found.report["warnings"][0]
    assert read(tmp_path, missing=["nan"]).labels.classes == ["-1", "None", "hat"]
    assert read(tmp_path, class_map={"None": "no hat", "hat": "hat"}).labels.classes == ["no hat", "hat"]


def test_class_folders_whose_names_differ_by_case_or_blanks_are_named_as_probably_one(tmp_path):
    made(tmp_path, "happy/1.jpg", "Happy /2.jpg", "sad/3.jpg")
    assert "probably one: 'Happy ' and 'happy'" in " ".join(read(tmp_path).report["warnings"])
    mapped = read(tmp_path, class_map={"happy": "joy", "Happy ": "joy", "sad": "sad"})
    assert not [text for text in mapped.report["warnings"] if "probably" in text]


def test_a_data_set_of_which_no_group_can_be_held_out_is_said_to_have_no_validation_part(tmp_path):
    made(tmp_path, *(f"hat/one/{n}.jpg" for n in range(5)))
    assert read(tmp_path).report["warnings"] == [
        "expression has NO VALIDATION PART: its 5 label rows are of one group, 'hat/one', and one group of each class "
        "stays in train"
    ]
    made(tmp_path, "train/hat/1.jpg", "test/hat/2.jpg")
    assert "its own split is test and train: set dataset.folds: 5" in read(tmp_path).report["warnings"][0]
