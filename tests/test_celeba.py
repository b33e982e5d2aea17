"""CelebA's reader on small trees of its format, with the faults that such trees have; and data sets of people."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import draw

from pipeline.core.params import UserError
from pipeline.core.tables import read_labels
from pipeline.datasets import __main__ as check
from pipeline.datasets import celeba, index, readers
from pipeline.datasets.config import DatasetConfig
from pipeline.faces import __main__ as faces
from pipeline.faces.align import TEMPLATE, align_from, similarity, template

HEADER = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
PEOPLE = [2880, 2937, 2880, 612, 612, 2937, 2880, 7, 7, 30, 612, 30]  # of photographs 1, 2, ...
PARTITION = {2880: 0, 2937: 0, 612: 1, 7: 1, 30: 2}


def points(number: int) -> str:
    """A row as the real files have it: numbers set in columns of blanks."""
    base = [69, 109, 106, 113, 77, 142, 73, 152, 108, 154]
    return f"{number:06d}.jpg " + "  ".join(f"{value + number % 3:3d}" for value in base)


def celeba_tree(root: Path, images: str = "Img/img_align_celeba", end: str = "\n") -> None:
    """All that CelebA gives, in its own folders."""
    for number in range(1, len(PEOPLE) + 1):
        draw(root / images / f"{number:06d}.jpg", number, (44, 36))
    (root / "Anno").mkdir(parents=True, exist_ok=True)
    (root / "Eval").mkdir(parents=True, exist_ok=True)

    def write(path: str, lines: list[str]) -> None:
        (root / path).write_bytes("".join(line + end for line in lines).encode())

    numbers = range(1, len(PEOPLE) + 1)
    write("Anno/identity_CelebA.txt", [f"{n:06d}.jpg {p}" for n, p in zip(numbers, PEOPLE, strict=True)])
    write("Eval/list_eval_partition.txt", [f"{n:06d}.jpg {PARTITION[p]}" for n, p in zip(numbers, PEOPLE, strict=True)])
    rows = [points(n) for n in numbers]
    for name in ("list_landmarks_celeba.txt", "list_landmarks_align_celeba.txt"):
        write(f"Anno/{name}", [f"{len(rows)}", HEADER + " ", *rows])


def config(root: Path, **more) -> DatasetConfig:
    return DatasetConfig(**{"name": "celeba", "root": root, "query_people": 1, "distractor_people": 2} | more)


def edit(path: Path, change) -> None:
    path.write_bytes("".join(change(path.read_bytes().decode().splitlines(keepends=True))).encode())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_photograph_is_labelled_by_its_person_who_is_the_group(tmp_path, end):
    celeba_tree(tmp_path, end=end)
    dataset = readers.read(config(tmp_path))
    table = dataset.labels.table
    assert table["video"].tolist() == [f"{n:06d}" for n in range(1, 13)]
    assert table["expression"].tolist() == table["group"].tolist() == [str(p) for p in PEOPLE]
    assert dataset.labels.classes == ["7", "30", "612", "2880", "2937"]
    assert dataset.frames.table["path"].iloc[0] == "Img/img_align_celeba/000001.jpg"
    assert dataset.frames.crop_source == "img_align_celeba"
    assert dataset.skipped == 0
    counts = {key for key, value in dataset.report.items() if isinstance(value, dict) and value.get("count")}
    assert counts == set()


def test_the_sets_are_drawn_of_val_then_of_test_and_say_so(tmp_path):
    celeba_tree(tmp_path)
    dataset = readers.read(config(tmp_path))
    table = dataset.labels.table
    by_person = table.drop_duplicates("group").set_index("group")
    assert by_person["identity_set"].dropna().value_counts().to_dict() == {"distractor": 2, "query": 1}
    assert set(by_person.index[by_person["identity_set"].notna()]) == {"612", "7", "30"}
    assert (by_person.loc[["612", "7", "30"], "expression_split"] == "val").all()  # 30 was of test
    assert "1 people of test are in val for it" in dataset.report["identity_sets"]
    other = readers.read(config(tmp_path, query_people=2, distractor_people=0, seed=1)).labels.table
    left = other.drop_duplicates("group").set_index("group")
    assert left.loc["30", "expression_split"] == "test"  # val has two people: nobody of test is needed
    again = readers.read(config(tmp_path)).labels.table
    pd.testing.assert_frame_equal(table, again)


def test_too_few_people_lower_both_numbers_by_one_factor(tmp_path):
    celeba_tree(tmp_path)
    dataset = readers.read(config(tmp_path, query_people=200, distractor_people=1000))
    sets = dataset.labels.table.drop_duplicates("group")["identity_set"].value_counts()
    assert sets.to_dict() == {
        "query": 1,
        "distractor": 2,
    }  # of 3 people: 3 * 200 / 1200 is half of one, and one is least
    assert any("not 200 and 1,000: 3 people are held out" in line for line in dataset.report["warnings"])


def test_a_query_has_two_pictures_or_more(tmp_path):
    celeba_tree(tmp_path)
    for number in (8, 10):  # one picture each is left of 7 and 30
        (tmp_path / f"Img/img_align_celeba/{number:06d}.jpg").unlink()
    for seed in range(4):
        table = readers.read(config(tmp_path, seed=seed)).labels.table
        assert set(table.loc[table["identity_set"] == "query", "group"]) == {"612"}


def test_faults_of_the_lists_are_counted_by_name(tmp_path):
    celeba_tree(tmp_path)
    identity, partition = tmp_path / "Anno/identity_CelebA.txt", tmp_path / "Eval/list_eval_partition.txt"
    aligned = tmp_path / "Anno/list_landmarks_align_celeba.txt"
    edit(identity, lambda lines: [*lines, lines[0], "000002.jpg 30\n", "nobody\n", "000099.jpg 5\n"])
    edit(partition, lambda lines: [line.replace("000003.jpg 0", "000003.jpg 1") for line in lines] + ["000098.jpg 9\n"])
    edit(aligned, lambda lines: [*lines[2:], points(97) + "\n", "000096.jpg 1 2 3\n"])
    (tmp_path / "Img/img_align_celeba/000004.jpg").unlink()
    (tmp_path / "Img/other.jpg").write_bytes(b"x")
    dataset = readers.read(config(tmp_path))
    report = {key: value for key, value in dataset.report.items() if isinstance(value, dict)}
    assert report["lines_of_an_image_that_had_one"]["first"] == [
        "identity_CelebA.txt, line 13: 000001.jpg",
        "identity_CelebA.txt, line 14: 000002.jpg",
    ]
    assert report["images_of_two_people_or_splits"]["first"] == [
        "identity_CelebA.txt, line 14: 000002.jpg is 30, and was 2937"
    ]
    assert [line.partition(":")[0] for line in report["malformed_lines"]["first"]] == [
        "identity_CelebA.txt, line 15",
        "list_eval_partition.txt, line 13",
        "list_landmarks_align_celeba.txt, line 14",
    ]
    assert report["people_in_two_splits"]["first"] == ["2880: train 2, val 1"]
    assert report["images_missing"]["first"] == ["000004", "000099"]
    assert report["points_without_image"]["first"] == ["000004", "000097"]
    assert report["list_headers"]["count"] == 2
    assert report["images_without_person"]["first"] == ["000002"]
    assert report["images_outside"]["first"] == ["Img/other.jpg"]
    table = dataset.labels.table.set_index("video")
    assert "000002" not in table.index
    assert pd.isna(table.loc["000003", "expression_split"])
    assert table.loc["000001", "expression_split"] == "train"
    assert dataset.skipped == 3 + 1 + 2


def test_a_first_line_that_counts_otherwise_is_named(tmp_path):
    celeba_tree(tmp_path)
    edit(tmp_path / "Anno/list_landmarks_align_celeba.txt", lambda lines: ["202599\n", *lines[1:]])
    found = readers.read(config(tmp_path)).report["list_headers"]["first"]
    assert found == ["list_landmarks_align_celeba.txt: its first line says 202,599 rows, and there are 12"]


def test_top_people_are_those_of_the_training_part_with_the_most_pictures(tmp_path):
    celeba_tree(tmp_path)
    dataset = readers.read(config(tmp_path, top_people=None))
    assert set(dataset.labels.table["group"]) == {"7", "30", "612", "2880", "2937"}
    celeba_tree(tmp_path / "b")
    edit(tmp_path / "b/Eval/list_eval_partition.txt", lambda lines: [line.replace(" 1", " 0") for line in lines])
    kept = readers.read(config(tmp_path / "b", top_people=2))
    table = kept.labels.table
    assert set(table.loc[table["expression_split"] == "train", "group"]) == {"612", "2880"}  # 3 each; the others have 2
    assert set(kept.frames.table["video"]) == set(table["video"])  # nobody else is extracted
    assert kept.report["top_people"] == "2 people of 3 pictures or more; 2 left out"


def test_without_a_partition_people_are_held_out_whole(tmp_path):
    celeba_tree(tmp_path)
    (tmp_path / "Eval/list_eval_partition.txt").unlink()
    dataset = readers.read(config(tmp_path, val_fraction=0.4))
    split = dataset.labels.table.groupby("group")["expression_split"].agg(set)
    assert sorted(map(len, split)) == [1] * 5
    assert sum(of == {"val"} for of in split) == 2
    assert any("the split is drawn, by person" in line for line in dataset.report["warnings"])


def test_without_the_list_of_people_there_are_no_labels(tmp_path, monkeypatch, capsys):
    celeba_tree(tmp_path / "c")
    (tmp_path / "c/Anno/identity_CelebA.txt").unlink()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dataset: {}\n")
    assert index.main(["--root", "c"]) == 0
    said = capsys.readouterr().out
    assert "NO LABELS of frames were found" in said or "NO LABELS were found" in said
    assert "identity_CelebA.txt, which its authors give on request" in said
    assert len(read_labels(Path("data/labels.parquet")).table) == 0


def test_kaggles_commas_and_its_folder_in_a_folder_are_read(tmp_path):
    celeba_tree(tmp_path, images="img_align_celeba/img_align_celeba")
    text = (tmp_path / "Eval/list_eval_partition.txt").read_text().replace(" ", ",")
    (tmp_path / "Eval/list_eval_partition.txt").unlink()
    (tmp_path / "list_eval_partition.csv").write_text("image_id,partition\n" + text)
    assert readers.read(config(tmp_path)).report["split"] == "official"


def test_of_both_folders_the_aligned_one_is_read_unless_the_other_is_asked_for(tmp_path):
    celeba_tree(tmp_path)
    celeba_tree(tmp_path, images="Img/img_celeba")
    assert readers.read(config(tmp_path)).frames.crop_source == "img_align_celeba"
    wild = readers.read(config(tmp_path, crop_source="img_celeba"))
    assert wild.frames.table["path"].iloc[0] == "Img/img_celeba/000001.jpg"
    assert any("--landmarks celeba" in line for line in wild.report["warnings"])
    with pytest.raises(UserError, match="crop_source 'cropped' is not one of"):
        readers.read(config(tmp_path, crop_source="cropped"))


def test_what_is_there_twice_is_refused_by_name(tmp_path):
    celeba_tree(tmp_path)
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 1\n")
    with pytest.raises(UserError, match=r"'Anno/identity_CelebA\.txt' and 'identity_CelebA\.txt' are the same list"):
        readers.read(config(tmp_path))
    (tmp_path / "identity_CelebA.txt").unlink()
    draw(tmp_path / "Img/img_align_celeba/000001.png", 1, (40, 40))
    with pytest.raises(UserError, match=r"000001\.jpg' and 'Img/img_align_celeba/000001\.png' have the same number"):
        readers.read(config(tmp_path))


def test_check_tells_celeba_and_names_what_is_odd(tmp_path, capsys):
    celeba_tree(tmp_path, images="Img/img_celeba")
    edit(tmp_path / "Eval/list_eval_partition.txt", lambda lines: [lines[0].replace(" 0", " 1"), *lines[1:]])
    assert check.main(["--check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "people in two splits: 1 (2880: train 2, val 1)" in said
    assert f"python -m pipeline.faces --landmarks celeba --input {tmp_path}" in said
    assert "name: celeba" in said


def test_points_of_a_person_stand_together_in_pixels(tmp_path):
    celeba_tree(tmp_path)
    found = celeba.landmarks(config(tmp_path))
    assert {person: sorted(paths) for person, (_, paths, _) in found.items()}["2880"] == [1, 3, 7]
    np.testing.assert_array_equal(found["2880"][2][3][0], [69, 109])
    np.testing.assert_array_equal(
        found["2880"][2][1], np.array([70, 110, 107, 114, 78, 143, 74, 153, 109, 155]).reshape(5, 2)
    )
    (tmp_path / "Anno/list_landmarks_align_celeba.txt").unlink()
    with pytest.raises(UserError, match=r"there is no list_landmarks_align_celeba\.txt below"):
        celeba.landmarks(config(tmp_path))


def test_any_data_set_can_be_one_of_people(tmp_path):
    for person in ("anna", "bert", "carl", "dora"):
        for number in range(3):
            draw(tmp_path / person / f"{number}.jpg", number, (20, 20))
    of_labels = DatasetConfig(name="folder", root=tmp_path, identities="label", val_fraction=0.5, query_people=1,
                              distractor_people=1)  # fmt: skip
    table = readers.read(of_labels).labels.table
    assert (table["group"] == table["expression"]).all()
    assert table.groupby("group")["expression_split"].nunique().max() == 1
    assert set(table.loc[table["identity_set"].notna(), "expression_split"]) == {"val"}
    for changes, words in (
        ({"folds": 2}, "folds is not for a data set of people"),
        ({"class_map": {"anna": "a"}}, "class_map is not for a data set of people"),
        ({"identities": None, "top_people": 2}, "set dataset.identities too"),
    ):
        with pytest.raises(UserError, match=words):
            readers.read(DatasetConfig(**vars(of_labels) | changes))


def test_the_index_of_people_is_the_same_bytes_again_and_has_their_sets(tmp_path, monkeypatch):
    celeba_tree(tmp_path / "c")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dataset: {}\n")
    assert index.main(["--root", "c", "--query-people", "1", "--distractor-people", "2"]) == 0
    first = Path("data/labels.parquet").read_bytes()
    report = json.loads(Path("data/index.json").read_text())
    assert report["identity_sets"].startswith("query 1 people")
    assert index.main(["--root", "c", "--query-people", "1", "--distractor-people", "2"]) == 0
    assert Path("data/labels.parquet").read_bytes() == first
    assert set(read_labels(Path("data/labels.parquet")).table["identity_set"].dropna()) == {"query", "distractor"}


def test_photographs_are_cut_by_their_own_points_enlarged_and_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("faces: {}\n")
    celeba_tree(tmp_path / "c", images="Img/img_celeba")
    assert faces.main(["--landmarks", "celeba", "--input", "c", "--out", "cut", "--enlarge", "0.5", "--workers", "1",
                       "--sheet", "sheet.png"]) == 0  # fmt: skip
    assert sorted(p.name for p in Path("cut/cropped_aligned/2880").iterdir()) == ["00001.jpg", "00003.jpg", "00007.jpg"]
    table = pd.read_parquet("cut/faces.parquet")
    assert len(table) == len(PEOPLE)
    row = table[table["frame"] == 3].iloc[0]
    assert (row["left_eye_x"], row["left_eye_y"], row["mouth_right_y"]) == (69, 109, 154)
    sheet = cv2.imread("sheet.png")
    assert sheet.shape == (2 * 242, 4 * 448, 3)  # five people, four a row
    dataset = readers.read(config(Path("cut"), annotations=Path("c"), crop_source="cropped_aligned"))
    assert dataset.labels.table["video"].tolist() == [f"{n:06d}" for n in range(1, 13)]
    paths = dataset.frames.table.set_index("video")["path"]
    assert paths["000003"] == "cropped_aligned/2880/00003.jpg"
    assert dataset.report["images_missing"]["count"] == 0
    with pytest.raises(UserError, match=r"was cut with other settings \(enlarge 0.5 -> 0.0\)"):
        faces.main(["--landmarks", "celeba", "--input", "c", "--out", "cut", "--workers", "1"])


def test_an_enlarged_face_shows_so_much_more_around_the_same_centre():
    usual, larger = template(112), template(112, 0.25)
    np.testing.assert_allclose(usual, TEMPLATE)
    np.testing.assert_allclose(larger - 55.5, (usual - 55.5) / 1.25)
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8), (0, 0), 8)
    points = (TEMPLATE - 55.5) * 1.1 + 150
    crop = align_from(image, points, 140, 0.25)  # as many pixels a pixel of the image as 112 without
    inside = align_from(image, points, 112)
    assert np.abs(crop[14:126, 14:126].astype(int) - inside).max() <= 2
    assert similarity(points, larger)[0, 0] == pytest.approx(similarity(points, usual)[0, 0] / 1.25)
