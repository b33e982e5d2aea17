"""How the command 'faces' cut its pictures is part of the crop source: what is of another cut is refused."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw
from test_aligner import aligner_file
from test_faces import film, find_squares, picture
from untrained_run import make_run

from pipeline.core.params import UserError
from pipeline.core.store import vouched_for
from pipeline.datasets import readers
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.numbered import how_cut, usual_and_how
from pipeline.embed import __main__ as command
from pipeline.embed.embedder import Embedder
from pipeline.extraction.cuts import _in_folder
from pipeline.faces import __main__ as faces
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import DETECTORS

LARGER = "cropped_aligned, enlarged 0.2"


@pytest.fixture(autouse=True)
def squares(monkeypatch):
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)


@pytest.fixture
def clip(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text("faces: {}\n")
    return film(tmp_path / "videos/clip.mp4", [picture(red=20 + i) for i in range(10)])


def cut(out: str, *flags: str) -> Path:
    assert faces.main(["--input", "videos", "--out", out, "--workers", "1", *flags]) == 0
    return Path(out)


def crop_source(**config) -> str:
    return readers.read(DatasetConfig(**config)).frames.crop_source


@pytest.mark.parametrize("usual", ["cropped_aligned", "as given", "cropped_aligned, enlarged 0.2, middle 0.8", "None"])
@pytest.mark.parametrize(
    ("enlarge", "points"), [(0.0, None), (0.2, None), (1e-05, "0123456789abcdef"), (0.0, "f" * 16)]
)
def test_how_faces_were_cut_is_read_as_it_is_written(usual, enlarge, points):
    assert usual_and_how(usual + how_cut(enlarge, points)) == (usual, enlarge, points)


def test_the_crop_source_of_faces_says_how_they_were_cut_and_of_usual_ones_what_it_always_said(clip, tmp_path):
    aligner = aligner_file(tmp_path / "a.safetensors")
    digest = CutSettings(points=aligner).points_digest
    usual, larger = cut("usual"), cut("larger", "--enlarge", "0.2")
    both = cut("both", "--enlarge", "0.2", "--points", str(aligner), "--min-frames", "1")
    assert crop_source(name="abaw", root=usual) == "cropped_aligned"
    assert crop_source(name="abaw", root=larger) == LARGER
    assert crop_source(name="abaw", root=both) == f"{LARGER}, points {digest}"
    assert crop_source(name="folder", root=larger / "cropped_aligned") == "as given, enlarged 0.2"
    also = [{"name": "abaw", "root": "larger"}]
    assert crop_source(name="abaw", root=usual, also=also) == f"cropped_aligned + {LARGER}"
    settings = json.loads((usual / ".faces/settings.json").read_text())
    for new in ("enlarge", "points"):
        settings.pop(new)
    (usual / ".faces/settings.json").write_text(json.dumps(settings))  # as an older version wrote it
    assert crop_source(name="abaw", root=usual) == "cropped_aligned"
    (usual / ".faces/settings.json").write_text("{")
    with pytest.raises(UserError, match="is not the settings of the faces: it is not JSON"):
        crop_source(name="abaw", root=usual)


def test_features_of_another_enlargement_are_refused_in_one_line():
    with pytest.raises(
        UserError, match=f"^no: crop_source 'cropped_aligned' there, '{LARGER}' here. If these are alike"
    ):
        vouched_for("no", {"crop_source": "cropped_aligned"}, {"crop_source": LARGER}, [])


def test_a_run_cuts_videos_as_its_store_was_cut_and_refuses_another_way(clip, tmp_path):
    usual, larger = make_run(tmp_path / "usual"), make_run(tmp_path / "larger", crop_source=LARGER)
    of_usual, of_larger = (Embedder.load(run, device="cpu") for run in (usual, larger))
    crops = {}
    for name, embedder, given in (
        ("usual", of_usual, {}),
        ("larger", of_larger, {}),
        ("said", of_larger, {"enlarge": 0.2}),
    ):
        crops[name] = embedder.video(clip, with_crops=True, **given)["crop"].tolist()
    assert crops["larger"] == crops["said"] != crops["usual"]
    by_command = cut("cut", "--enlarge", "0.2") / "cropped_aligned/clip/00001.jpg"
    assert crops["larger"][0] == by_command.read_bytes()
    with pytest.raises(UserError, match=f"crop_source '{LARGER}' there, 'cropped_aligned' here"):
        of_larger.video(clip, enlarge=0)
    with pytest.raises(UserError, match=f"crop_source 'cropped_aligned' there, '{LARGER}' here"):
        of_usual.images(picture(red=20), enlarge=0.2)
    with pytest.raises(UserError, match=f"crop_source 'cropped_aligned' there, '{LARGER}' here"):
        of_usual.stream(25, enlarge=0.2)
    assert len(Embedder.load(usual, device="cpu", alike=["crop_source"]).video(clip, enlarge=0.2)) == 10
    seen = [row for image in [picture(red=20 + i) for i in range(3)] for row in of_larger.stream(25).push(image)]
    assert len(seen) == 3


def test_a_run_of_an_aligners_points_wants_that_aligner(clip, tmp_path):
    aligner, other = aligner_file(tmp_path / "a.safetensors"), aligner_file(tmp_path / "b.safetensors", 1)
    digest = CutSettings(points=aligner).points_digest
    run = make_run(tmp_path / "run", crop_source=f"cropped_aligned, points {digest}")
    embedder = Embedder.load(run, device="cpu")
    with pytest.raises(UserError, match=rf"cut by the points of an aligner \({digest}\): name its file with points"):
        embedder.video(clip)
    with pytest.raises(UserError, match=rf"crop_source 'cropped_aligned, points {digest}' there, .* here"):
        embedder.video(clip, points=other)
    assert len(embedder.video(clip, points=aligner, min_frames=1)) == 10
    assert len(Embedder.load(run, device="cpu", alike=["crop_source"]).video(clip)) == 10


def test_cut_faces_of_another_way_are_refused(clip, tmp_path):
    larger, usual = cut("larger", "--enlarge", "0.2"), cut("usual")
    of_usual = Embedder.load(make_run(tmp_path / "run"), device="cpu")
    of_larger = Embedder.load(make_run(tmp_path / "other", crop_source=LARGER), device="cpu")
    for embedder, mine, theirs in ((of_usual, usual, larger), (of_larger, larger, usual)):
        assert len(embedder.frames(mine)) == len(embedder.frames(mine / "cropped_aligned/clip")) == 10
        for folder in (theirs, theirs / "cropped_aligned", theirs / "cropped_aligned/clip"):
            with pytest.raises(UserError, match=r"crop_source '.*' there, '.*' here"):
                embedder.frames(folder)
    shutil.copytree(usual / "cropped_aligned", "plain/somewhere")  # nothing says how these were cut
    assert len(of_larger.frames("plain")) == 10


def test_the_command_cuts_as_the_run_was_and_says_so_in_its_report(clip, tmp_path):
    run = make_run(tmp_path / "run", crop_source=LARGER)
    assert command.main(["--run", str(run), str(clip), "-o", "out.parquet", "--device", "cpu"]) == 0
    assert json.loads(Path("out.parquet.json").read_text())["enlarge"] == 0.2
    with pytest.raises(UserError, match=f"crop_source '{LARGER}' there, 'cropped_aligned' here"):
        command.main(["--run", str(run), str(clip), "-o", "no.parquet", "--device", "cpu", "--enlarge", "0"])
    usual = make_run(tmp_path / "usual")
    assert command.main(["--run", str(usual), str(clip), "-o", "usual.parquet", "--device", "cpu"]) == 0
    assert not {"enlarge", "points"} & set(json.loads(Path("usual.parquet.json").read_text()))  # as of older jobs


def test_a_run_on_pictures_as_given_takes_them_whole_however_they_were_cut(tmp_path):
    embedder = Embedder.load(make_run(tmp_path / "run", crop_source="as given, enlarged 0.2"), device="cpu")
    assert not embedder.cuts
    draw(tmp_path / "a.png", 1)
    table = embedder.images([tmp_path / "a.png"], with_crops=False)
    assert np.array_equal(table["box"][0], [0, 0, *cv2.imread(str(tmp_path / "a.png")).shape[1::-1]])


def test_the_folder_of_another_cut_is_found_however_the_faces_were_cut():
    assert _in_folder("b/cropped_aligned/v/1.jpg", LARGER.partition(",")[0], "cropped") == "b/cropped/v/1.jpg"
