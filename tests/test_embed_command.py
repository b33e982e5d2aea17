"""``python -m pipeline.embed``: many files to one table, and the similarity matrix of pictures."""

import contextlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_faces import film, find_squares, picture
from untrained_run import CLASSES, make_run

from pipeline.core.params import UserError
from pipeline.embed import Embedder, matrix, similarity
from pipeline.embed.__main__ import main, units
from pipeline.faces.detect import DETECTORS


@pytest.fixture(scope="module", autouse=True)
def squares():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("command") / "run", seeds=2)


def scene(number: int, **places: int) -> np.ndarray:
    image = picture(**places)
    for left in places.values():
        texture = cv2.resize(np.random.default_rng(number).integers(-40, 41, (4, 4, 3)).astype(np.float32), (32, 32))
        image[40:72, left : left + 32] = np.clip(image[40:72, left : left + 32] + texture, 0, 255)
    return image


def still(path: str, image: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


@pytest.fixture
def clips():
    """One clip, and a folder: another of two people, two pictures, and what is none of all this."""
    film(Path("one.mp4"), [scene(i, red=20) for i in range(4)])
    film(Path("more/in/two.mp4"), [scene(9 + i, red=100, blue=20) for i in range(3)])
    still("more/a.png", scene(20, red=30))
    still("more/b.png", scene(21, blue=30))
    still("more/nobody.png", picture())
    Path("more/broken.mp4").write_text("text")
    Path("more/notes.txt").write_text("text")


def command(run: Path, *flags: str) -> int:
    return main(["--run", str(run), "--device", "cpu", "--min-frames", "2", *flags])


def flat(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        name: np.stack(list(column)) if name in ("box", "embedding") else column.to_numpy()
        for name, column in table.items()
    }


def test_three_formats_hold_what_the_embedder_gives_and_problems_are_named(run, clips, capsys):
    for ending in ("parquet", "csv", "npz"):
        assert command(run, "one.mp4", "more", "-o", f"out.{ending}") == 0
    said = capsys.readouterr().out
    for line in ("more/broken.mp4: cannot be opened", "more/nobody.png: no face was found", "more/notes.txt: no video"):
        assert line in said
    embedder = Embedder.load(run, device="cpu")
    expected = pd.concat(
        [
            embedder.video("one.mp4", min_frames=2),
            embedder.images(["more/a.png", "more/b.png"]),
            embedder.video("more/in/two.mp4", min_frames=2),
        ]
    )
    kept = pq.read_table("out.parquet")
    assert kept.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert kept.schema.field("box").type == pa.list_(pa.float32(), 4)
    wanted = flat(expected)
    assert [*wanted] == kept.column_names
    with np.load("out.npz", allow_pickle=False) as arrays:
        for found in (flat(kept.to_pandas()), {name: arrays[name] for name in arrays.files}):
            assert [*found] == [*wanted]
            for name, values in wanted.items():
                if values.dtype.kind == "f":
                    np.testing.assert_allclose(found[name], values, atol=1e-6)
                else:
                    assert found[name].tolist() == values.tolist()
    sheet = pd.read_csv("out.csv", keep_default_na=False, dtype={"person": str})
    ends = ("left", "top", "right", "bottom")
    assert [*sheet.columns][:4] == ["video", "person", "frame", "time_sec"]
    np.testing.assert_array_equal(
        sheet[[f"box_{end}" for end in ends]].to_numpy(np.float32), flat(kept.to_pandas())["box"]
    )
    columns = [f"embedding_{i}" for i in range(8)]
    np.testing.assert_array_equal(sheet[columns].to_numpy(np.float32), flat(kept.to_pandas())["embedding"])
    assert sheet["person"].tolist() == expected["person"].tolist()


def test_what_is_alike_by_your_word_is_noted_of_each_file(clips, tmp_path):
    other = make_run(tmp_path / "other", crop_source="cropped")
    with pytest.raises(UserError, match="cropped"):
        command(other, "one.mp4", "more", "-o", "out.parquet")
    assert command(other, "one.mp4", "more", "-o", "out.parquet", "--alike", "crop_source") == 0
    report = json.loads(Path("out.parquet.json").read_text(encoding="utf-8"))
    noted = {Path(of["file"]).name for of in report["files"] if "alike by your word" in " ".join(of["notes"])}
    assert noted == {"one.mp4", "two.mp4", "a.png", "b.png"}  # those that gave rows


def test_strict_says_by_its_exit_status_that_there_were_problems(run, clips):
    assert command(run, "more", "-o", "out.csv", "--strict") == 1
    assert command(run, "one.mp4", "-o", "well.csv", "--strict") == 0


def test_a_killed_command_goes_on_and_ends_as_if_it_had_not_been_killed(run, clips, monkeypatch, capsys):
    assert command(run, "one.mp4", "more", "-o", "whole.parquet") == 0
    video, taken = Embedder.video, []

    def cut_short(self, path, **given):
        taken.append(Path(path).name)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return video(self, path, **given)

    monkeypatch.setattr(Embedder, "video", cut_short)
    with pytest.raises(KeyboardInterrupt):
        command(run, "one.mp4", "more", "-o", "out.parquet")
    assert taken == ["one.mp4", "broken.mp4", "two.mp4"]
    assert not Path("out.parquet").exists()
    for flags, words in (
        (["--seed", "0"], "half made and was made otherwise .*run/seed_1.*run/seed_0"),
        (["--every", "2"], "every 1 -> 2"),
    ):
        with pytest.raises(UserError, match=words):
            command(run, "one.mp4", "more", "-o", "out.parquet", *flags)
    assert command(run, "one.mp4", "more", "-o", "out.parquet") == 0
    assert taken[3:] == ["two.mp4"]
    assert Path("out.parquet").read_bytes() == Path("whole.parquet").read_bytes()


def test_more_files_are_added_and_changed_ones_made_again_and_none_is_lost(run, clips, monkeypatch):
    video, taken = Embedder.video, []
    monkeypatch.setattr(Embedder, "video", lambda self, path, **g: taken.append(str(path)) or video(self, path, **g))
    assert command(run, "one.mp4", "-o", "out.parquet") == 0
    assert command(run, "one.mp4", "more/in", "-o", "out.parquet") == 0
    assert taken == ["one.mp4", "more/in/two.mp4"]
    with pytest.raises(UserError, match=r"has 1 files that are not among those given, such as .*one\.mp4"):
        command(run, "more/in", "-o", "out.parquet")
    film(Path("one.mp4"), [scene(i, red=40) for i in range(5)])
    assert command(run, "one.mp4", "more/in", "-o", "out.parquet") == 0
    assert taken[2:] == ["one.mp4"]
    assert pd.read_parquet("out.parquet")["video"].value_counts().to_dict() == {"one": 5, "two": 6}


def test_a_file_of_something_else_is_not_written_over(run, clips):
    Path("out.csv").write_text("mine")
    with pytest.raises(UserError, match="is there already, and nothing says that it was made by this command"):
        command(run, "one.mp4", "-o", "out.csv")
    assert Path("out.csv").read_text() == "mine"
    assert command(run, "one.mp4", "-o", "out.csv", "--rebuild") == 0
    assert len(pd.read_csv("out.csv")) == 4


def test_two_files_of_one_name_keep_their_paths(run):
    film(Path("a/clip.mp4"), [scene(0, red=20)] * 2)
    film(Path("b/clip.mp4"), [scene(1, red=20)] * 2)
    assert command(run, "a", "b", "-o", "out.parquet") == 0
    assert pd.read_parquet("out.parquet")["video"].tolist() == ["a/clip.mp4"] * 2 + ["b/clip.mp4"] * 2


def test_where_no_file_shows_a_face_the_table_is_empty_and_has_all_columns(run):
    still("a/nobody.png", picture())
    still("a/no_one.png", picture())
    for ending in ("parquet", "csv", "npz"):
        assert command(run, "a", "-o", f"out.{ending}") == 0
    assert pd.read_parquet("out.parquet").shape == (0, 8 + len(CLASSES))
    assert pd.read_csv("out.csv").shape == (0, 6 - 1 + 4 + 8 + 1 + len(CLASSES))
    with np.load("out.npz", allow_pickle=False) as arrays:
        assert arrays["embedding"].shape == (0, 8)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nowhere.mp4", "-o", "out.csv"], "no file or folder nowhere.mp4"),
        (["one.mp4"], "name the file to write with -o"),
        (["one.mp4", "-o", "out.txt"], "and not out.txt"),
        (["-o", "out.csv"], "name videos, pictures or folders"),
        (["one.mp4", "-o", "out.csv", "--seed", "7"], "no seed 7"),
        (["one.mp4", "-o", "out.csv", "--threshold", "0.5"], "--threshold is for --matrix"),
        (["one.mp4", "--matrix", "more"], "takes its folder alone"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(run, clips, flags, words):
    with pytest.raises(UserError, match=words):
        command(run, *flags)


def test_pictures_are_kept_some_at_a_time_and_videos_one_by_one():
    pictures = [Path(f"{i}.jpg") for i in range(65)]
    assert [len(u) for u in units([*pictures, Path("a.mp4"), Path("b.MP4"), Path("z.PNG")])] == [64, 1, 1, 1, 1]


# --- the matrix


def table_of(names: list[str], crops: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((len(names), 8)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    jpeg = cv2.imencode(".jpg", np.full((20, 20, 3), 99, np.uint8))[1].tobytes()
    table = pd.DataFrame({"video": names, "person": "", "embedding": list(z)})
    return table.assign(crop=[jpeg] * len(names)) if crops else table


def test_pairs_at_or_above_the_threshold_are_listed_by_name_the_most_alike_first():
    table = table_of(["zoe", "ann", "bob"])
    table.loc[0, "person"] = "left"
    faces = matrix.rows_of(table)
    assert faces["name"].tolist() == ["ann", "bob", "zoe (left)"]
    cosines = {
        (a, b): float(x @ y)
        for (a, x), (b, y) in [((faces["name"][i], faces["embedding"][i]), (faces["name"][j], faces["embedding"][j]))
                               for i, j in ((0, 1), (0, 2), (1, 2))]
    }  # fmt: skip
    least = sorted(cosines.values())[1]
    pairs = matrix.pairs_of(faces, least)
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {
        k for k, v in cosines.items() if v >= least - 1e-6
    }
    assert pairs["cosine"].is_monotonic_decreasing


@pytest.mark.parametrize("count", [2, 3, 61, 301])
def test_a_figure_is_drawn_of_few_and_of_many_faces(count):
    figure, pairs = matrix.draw(table_of([f"face {i:03d}" for i in range(count)], crops=count < 20), 0.5, "as given")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ([f"face {i:03d}" for i in range(count)] if count <= matrix.SHOWN else [])
    faces = len(figure.axes) - 2
    assert faces == (2 * count if count < 20 else 0)
    assert f"{len(pairs):,} of" in " ".join(text.get_text() for text in figure.texts)


def test_one_face_makes_no_matrix():
    with pytest.raises(UserError, match="of 2 to 2000 faces, and there are 1"):
        matrix.draw(table_of(["one"]), 0.5, "as given")


def test_the_best_threshold_is_that_of_a_slow_search():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((30, 4)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    classes = pd.Series(rng.choice(["a", "b", None], 30))
    videos = pd.Series([f"v{i // 2}" for i in range(30)])
    pairs = [
        (float(z[i] @ z[j]), classes[i] == classes[j])
        for i in range(30) for j in range(i)
        if videos[i] != videos[j] and classes[i] is not None and classes[j] is not None
    ]  # fmt: skip
    same, different = [c for c, s in pairs if s], [c for c, s in pairs if not s]

    def f1(threshold: float) -> float:
        hits, false = np.mean([c >= threshold for c in same]), np.mean([c >= threshold for c in different])
        return 2 * hits / (hits + false + 1)

    found = matrix.best_f1_threshold(z, classes, videos)
    assert f1(found - 1e-6) == pytest.approx(max(f1(c - 1e-6) for c, _ in pairs))
    assert matrix.best_f1_threshold(z, pd.Series(["a"] * 30), videos) is None


def test_the_matrix_of_a_folder_is_a_picture_and_a_list_of_pairs(run, clips, capsys):
    still("more/people/c.png", scene(20, red=30))
    still("more/people/d.png", scene(22, red=100, blue=20))
    assert main(["--run", str(run), "--device", "cpu", "--matrix", "more", "--threshold", "0.999"]) == 0
    said = capsys.readouterr().out
    assert cv2.imread("more.png").shape[0] > 300
    pairs = pd.read_csv("more.csv")
    assert ("a", "c") in set(zip(pairs["first"], pairs["second"], strict=True))  # the same picture
    assert "more/nobody.png: no face was found" in said
    embedder = Embedder.load(run, device="cpu")
    table = embedder.images(["more/a.png", "more/b.png", "more/people/c.png", "more/people/d.png"])
    above = np.triu(similarity(table) >= 0.999, 1).sum()
    assert len(pairs) == above
    assert f"5 faces of 5 pictures; {above} pairs at or above 0.999 (as given)" in said
    threshold, whose = matrix.threshold_of(embedder)
    centres = embedder.adapters[0].centres.numpy()
    between = (centres @ centres.T)[~np.eye(3, dtype=bool)].mean()
    assert (threshold, whose) == (pytest.approx((1 + between) / 2), "half-way from two class centres to 1")


def test_each_command_on_the_page_runs(run, clips, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "docs" / "embed_command.md").read_text(encoding="utf-8")
    start = "    python -m pipeline.embed "
    lines = [line.removeprefix(start).split("#")[0].split() for line in page.splitlines() if line.startswith(start)]
    assert len(lines) >= 4
    os.symlink(run.parent, "runs")
    with contextlib.suppress(FileExistsError):
        os.symlink(run, run.parent / "tcn_supcon")
    film(Path("clip.mp4"), [scene(i, red=20) for i in range(12)])
    for name in "abc":
        still(f"people/{name}.png", scene(ord(name), red=30))
    for line in lines:
        assert main([*line, "--device", "cpu"]) == 0
