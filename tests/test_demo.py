"""The page by Streamlit's AppTest, which runs no browser, and the charts. Faces are drawn squares, found as such.

What a click does in a browser: test_demo_browser.py.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_faces import COLOURS, film, find_squares, picture

import extract
import train
from pipeline.core import colours
from pipeline.core.files import load_tensors, save_tensors
from pipeline.core.tables import ABAW_CLASSES
from pipeline.datasets import index
from pipeline.datasets.synthetic import __main__ as synthetic
from pipeline.extraction.weights.__main__ import main as weights_main
from pipeline.faces.detect import DETECTORS

pytest.importorskip("streamlit", reason="the extra 'demo' is not installed")

import cv2
from streamlit.testing.v1 import AppTest

from pipeline.demo import charts, page, work
from pipeline.embed.embedder import Embedder

FLAGS = ["--cpu", "-e", "1", "-r", "1", "--no-reduce", "--embedding-size", "8", "--batch-size", "16", "--no-evaluate",
         "--select-split", "0.5", "--output", "runs"]  # fmt: skip


def scene(number: int, **places: int) -> np.ndarray:
    """Squares that change their texture from frame to frame."""
    image = picture(**places)
    for colour, left in places.items():
        rng = np.random.default_rng([number, len(colour)])
        texture = cv2.resize(rng.integers(-45, 46, (4, 4, 3)).astype(np.float32), (32, 32))
        image[40:72, left : left + 32] = np.clip(COLOURS[colour] + texture, 0, 255)
    return image


def clip(name: str, frames: int, **places: int) -> bytes:
    film(Path(name), [scene(number, **places) for number in range(frames)])
    return Path(name).read_bytes()


def still(number: int, **places: int) -> bytes:
    return cv2.imencode(".png", scene(number, **places)[..., ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three runs on drawn faces: one that predicts all there is, one by class centres, one that weighs its frames."""
    place = tmp_path_factory.mktemp("project")
    with contextlib.chdir(place):
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        assert synthetic.main(["--videos", "10", "--frames", "8", "--size", "32", "--workers", "1"]) == 0
        index.main([])
        weights_main(["--backbone", "test_efficientnet", "--weights", "random"])
        small = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--workers", "1"]
        assert extract.main([*small, "--device", "cpu"]) == 0
        every = [
            "--loss",
            "{cross_entropy: 1, ccc: 1, bce: 1}",
            "--sampler",
            "uniform",
            "--select-by",
            "macro_f1",
            "--au-threshold-folds",
            "2",
        ]
        train.main([*FLAGS, *every, "--window", "3", "--name", "everything"])
        train.main([*FLAGS, "--model", "mlp", "--loss", "supcon", "--window", "3", "--name", "centres"])
        more = ["--model", "attention_pool", "--loss", "supcon", "--window", "5", "--output", "runs/deeper"]
        train.main([*FLAGS, *more, "--name", "attention"])
    return place


@pytest.fixture
def opened(project, monkeypatch, tmp_path):
    """The page in the folder of the project; its sample are two squares for 12 frames."""
    content = clip("two.mp4", 12, red=20, blue=100)
    monkeypatch.setattr(work, "sample", lambda: content)
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
    monkeypatch.chdir(project)
    work._kept().clear()
    return AppTest.from_file(str(ROOT / "pipeline" / "demo" / "app.py"), default_timeout=120)


def well(app: AppTest) -> AppTest:
    assert [error.message for error in app.exception] == []
    return app


def said(app: AppTest) -> list[str]:
    """The lines that say that something could not be done."""
    return [line.value for line in [*app.error, *app.warning]]


def headings(app: AppTest) -> list[str]:
    return [heading.value for heading in [*app.header, *app.subheader]]


def charts_of(app: AppTest) -> int:
    return len(app.get("vega_lite_chart"))


def choose(app: AppTest, label: str, value: str) -> AppTest:
    group = next(group for group in app.button_group if group.label == label)
    return group.set_value(value).run()


def upload(app: AppTest, **files: bytes) -> AppTest:
    app = choose(app.run(), "What to look at", page.UPLOAD)
    kinds = {".mp4": "video/mp4", ".png": "image/png"}
    given = [(name, content, kinds[Path(name).suffix]) for name, content in files.items()]
    return well(app.file_uploader[0].set_value(given).run())


def with_runs(app: AppTest, *names: str) -> AppTest:
    return well(app.run().multiselect[0].set_value(list(names)).run())


def frame_said(app: AppTest) -> int:
    text = next(line.value for line in app.markdown if "Now it is" in line.value)
    return int(text.split("**frame ")[1].split("**")[0])


def as_another_cut(run: Path, copy: Path) -> None:
    """A copy of a run whose training faces were cut in another way."""
    shutil.copytree(run, copy, dirs_exist_ok=True)
    file = copy / "seed_0" / "best.safetensors"
    tensors, facts = load_tensors(file, "an adapter", "", "pt")
    facts["made_by"]["crop_source"] = "cropped"
    facts["weights"] = "../" + facts["weights"]  # seen from the folder of the seed
    save_tensors(file, tensors, facts)


# --- the page


def test_the_sample_is_shown_person_by_person(opened):
    app = well(opened.run())
    assert said(app) == []
    assert app.multiselect[0].options == ["centres", "deeper/attention", "everything"]
    assert app.multiselect[0].value == ["centres"]
    assert [h for h in headings(app) if h != "Trained runs"] == [
        "drawn_sample, left", "Similarity of people and pictures", "Similarity of every frame to frame 7",
        "Map of the frames", "Training clips nearest to frame 7",
    ]  # fmt: skip
    assert charts_of(app) == 2 + 2 + 2 + 2  # faces, probabilities; frozen, run; map; two matrices
    assert any("nearest class centre" in line.value for line in app.caption)
    assert "drawn_sample, right" in headings(well(choose(app, "Person", "right")))
    assert len(app.image) > 0  # training clips


def test_another_frame_is_compared_with_and_nothing_is_computed_again(opened, monkeypatch):
    calls = []
    video = Embedder.video
    monkeypatch.setattr(Embedder, "video", lambda *a, **k: calls.append(a) or video(*a, **k))
    app = well(opened.run())
    assert frame_said(app) == 7
    app.session_state["frame of ('drawn_sample', 'left')"] = 2
    assert frame_said(well(app.run())) == 2
    assert len(calls) == 1


def test_a_run_that_predicts_more_shows_more(opened):
    app = with_runs(opened, "everything")
    assert {"Valence and arousal", "Action units"} <= set(headings(app))
    assert any("own classifier" in line.value for line in app.caption)
    assert "Attention to the frames of its window" not in headings(app)


def test_attention_is_shown_where_the_run_has_it(opened):
    app = with_runs(opened, "deeper/attention")
    assert "Attention to the frames of its window" in headings(app)
    assert "Valence and arousal" not in headings(app)


def test_runs_are_compared_on_faces_that_are_found_once(opened, monkeypatch):
    calls = []
    video = Embedder.video
    monkeypatch.setattr(Embedder, "video", lambda *a, **k: calls.append(a) or video(*a, **k))
    app = with_runs(opened, "centres", "everything")
    lines = [line.value.split(" · ")[0] for line in app.markdown if "mean cosine of" in line.value]
    assert lines == ["**frozen features**", "**centres**", "**everything**"]
    assert len(calls) == 1
    app = well(choose(app, "Run", "everything"))
    assert "Valence and arousal" in headings(app)


def test_a_second_run_gives_what_it_gives_alone(opened, project):
    with_runs(opened, "centres", "everything")
    shared = next(t for key, t in work._kept().items() if key[0].path == "runs/everything")
    Path("two.mp4").write_bytes(work.sample())
    alone = Embedder.load("runs/everything").video("two.mp4", name="drawn_sample", every=3)
    assert shared["person"].tolist() == alone["person"].tolist()
    np.testing.assert_allclose(np.stack(shared["embedding"]), np.stack(alone["embedding"]), atol=1e-5)
    predicted = [name for name in alone if name.startswith(("p_", "AU", "valence"))]
    np.testing.assert_allclose(shared[predicted], alone[predicted], atol=1e-5)
    assert shared["class"].tolist() == alone["class"].tolist()


def test_clips_and_pictures_are_shown_together(opened):
    files = {"a.png": still(1, red=30), "b.png": still(2, blue=60), "c.png": still(3, red=20, blue=100)}
    app = upload(opened, **files, **{"film.mp4": clip("film.mp4", 12, red=40)})
    assert said(app) == []
    assert {"film", "4 faces in pictures", "Similarity of people and pictures"} <= set(headings(app))


def test_snapshots_of_the_camera_are_kept_and_compared(opened):
    app = choose(opened.run(), "What to look at", page.CAMERA)
    for number, left in enumerate((20, 60)):
        photo = cv2.imencode(".jpg", scene(number, red=left)[..., ::-1])[1].tobytes()
        app = well(app.camera_input[0].set_value(("shot.jpg", photo, "image/jpeg")).run())
    assert {"2 faces in pictures", "Similarity of people and pictures"} <= set(headings(app))
    forget = next(button for button in app.button if button.label == "Forget the pictures")
    app = well(forget.click().run())
    assert headings(app) == ["Trained runs"]
    assert headings(well(app.run())) == ["Trained runs"]  # the camera does not hold the last one


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.mp4", b"this is a text, and no video\n" * 40, "notes.mp4: "),
        ("empty.mp4", b"", "empty.mp4: "),
        ("empty.png", b"", "empty.png: "),
        ("torn.png", still(1, red=20)[:200], "torn.png: "),
        ("nobody.png", still(1), "nobody.png: no face was found"),
    ],
)
def test_what_cannot_be_shown_is_one_line(opened, name, content, words):
    app = upload(opened, **{name: content})
    (line,) = said(app)
    assert line.startswith(words)
    assert "\n" not in line
    assert "/tmp" not in line
    assert charts_of(app) == 0


def test_a_clip_without_a_face_is_one_line_and_the_others_are_shown(opened):
    app = upload(opened, **{"none.mp4": clip("none.mp4", 12), "film.mp4": clip("film.mp4", 12, red=40)})
    assert said(app) == ["none.mp4: no face was found"]
    assert "film" in headings(app)


def test_without_a_run_the_page_says_how_to_get_one(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = well(opened.run())
    assert "python train.py" in app.info[0].value


def test_a_folder_that_is_no_run_is_one_line(opened):
    app = opened.run()
    app = well(app.text_input[0].set_value("nowhere").run())
    assert any(line.startswith("there is no folder nowhere") for line in said(app))


def test_a_run_on_other_crops_is_refused_until_the_user_vouches(opened, project):
    with contextlib.chdir(project):
        as_another_cut(Path("runs/centres"), Path("copies/of/loose"))
    app = opened.run()
    app = well(app.multiselect[0].set_value([]).run())
    app = well(app.text_input[0].set_value("copies/of/loose").run())
    (line,) = said(app)
    assert "crop_source" in line
    assert charts_of(app) == 0
    app = well(app.checkbox[0].check().run())
    assert charts_of(app) > 0, said(app)


# --- how it is started


def test_make_demo_is_the_command_of_the_page():
    command = "streamlit run pipeline/demo/app.py"
    assert f"    {command}\n" in (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    said = subprocess.run(
        ["make", "-n", "--no-print-directory", "-o", "setup", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [command]


def test_it_is_private_unless_told_otherwise():
    with (ROOT / "pipeline/demo/.streamlit/config.toml").open("rb") as file:
        config = tomllib.load(file)
    assert config["server"]["address"] == "127.0.0.1"
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"


# --- the files


def test_files_get_names_that_no_other_has():
    found = work.media([(name, b"") for name in ("a.mp4", "x/a.mp4", "a.PNG", "../..", "ü: *.mov", "n" * 300)])
    assert [m.name for m in found] == ["a", "a (2)", "a (3)", "clip", "ü_ _", "n" * 60]
    assert [m.ending for m in found] == [".mp4", ".mp4", ".png", "", ".mov", ""]
    assert found[2].still


def test_what_is_kept_has_an_end(monkeypatch):
    work._kept().clear()
    monkeypatch.setattr(work, "KEPT", 2)
    monkeypatch.setattr(work, "_table", lambda job, others, report: pd.DataFrame())
    chosen = work.Choice("runs/x", None, (), 0)
    three = [work.Job(chosen, (medium,), 1) for medium in work.media([("a.mp4", b""), ("b.mp4", b""), ("c.mp4", b"")])]
    for job in three:
        work.make(job, [], lambda done, total: None)
    assert [work.made(job) is None for job in three] == [True, False, False]


# --- the charts


def test_an_emotion_has_the_colour_of_the_report_whatever_it_is_called_and_wherever_it_stands():
    found = charts.class_colours(["sad", "Happiness", "boredom", "calm"])
    assert found["sad"] == colours.COLOURS[ABAW_CLASSES.index("Sadness")]
    assert found["Happiness"] == colours.COLOURS[ABAW_CLASSES.index("Happiness")]
    assert len(set(found.values())) == 4
    assert charts.class_colours(ABAW_CLASSES) == dict(zip(ABAW_CLASSES, colours.COLOURS, strict=True))


def test_probabilities_end_where_a_segment_ends():
    rows = pd.DataFrame({
        "frame": [1, 2, 9], "time_sec": [0.0, 0.1, 0.8], "end_sec": [0.1, 0.2, 0.9], "segment": [0, 0, 1],
        "p_Fear": [0.2, 0.3, 0.4], "p_Anger": [0.8, 0.7, 0.6], "class": "Anger",
    })  # fmt: skip
    spec = charts.probabilities(rows, ["Fear", "Anger"], (0, 1), 0.1).to_dict(validate=True)
    data = pd.DataFrame(spec["datasets"][spec["layer"][0]["data"]["name"]])
    fear = data[data["emotion"] == "Fear"].sort_values(["segment", "time_sec"])
    assert fear[["time_sec", "probability"]].to_numpy().tolist() == [
        [0.0, 0.2], [0.1, 0.3], [0.2, 0.0], [0.8, 0.4], [0.9, 0.0],
    ]  # fmt: skip


def test_the_matrix_has_a_face_at_each_row_and_column():
    spec = charts.matrix(["a", "b"], ["one", "two"], np.array([[1, 0.25], [0.25, 1]])).to_dict(validate=True)
    cells = pd.DataFrame(spec["datasets"][spec["layer"][0]["data"]["name"]])
    assert cells[["a", "b", "cosine"]].to_numpy().tolist() == [
        ["a", "a", 1.0], ["a", "b", 0.25], ["b", "a", 0.25], ["b", "b", 1.0],
    ]  # fmt: skip
    images = [layer for layer in spec["layer"] if layer["mark"]["type"] == "image"]
    assert len(images) == 2
    for layer in images:
        assert [row["picture"] for row in spec["datasets"][layer["data"]["name"]]] == ["one", "two"]


def test_a_picture_in_a_chart_is_small_and_keeps_its_look():
    given = cv2.imencode(".jpg", np.full((112, 112, 3), (10, 100, 200), np.uint8))[1].tobytes()
    kind, _, data = charts.picture_of(given).partition(",")
    assert kind == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (charts.THUMBNAIL, charts.THUMBNAIL, 3)
    np.testing.assert_allclose(image.mean((0, 1)), [10, 100, 200], atol=3)


def test_a_run_without_classes_is_drawn_in_one_colour():
    rows = pd.DataFrame({"frame": [1], "time_sec": [0.0], "end_sec": [0.1], "segment": [0], "cosine": [1.0]})
    text = json.dumps(charts.similarity(rows, [], (0, 1), 0.0, -1).to_dict(validate=True))
    assert "class" not in text


def test_charts_that_can_be_clicked_select_a_frame():
    rows = pd.DataFrame({"frame": [1], "time_sec": [0.0], "end_sec": [0.1], "segment": [0], "cosine": [1.0],
                         "class": ["Fear"], "x": [0.0], "y": [0.0]})  # fmt: skip
    for chart in (
        charts.similarity(rows, ["Fear"], (0, 1), 0.0, -1),
        charts.plane(rows, (0.5, 0.1), ["Fear"], 1),
        charts.plane(rows, (0.5, 0.1), ["Fear"], 1, by_time=True),
        charts.face_strip(rows.assign(picture="data:,"), (0, 1), 0.0),
    ):
        (selection,) = [p for p in chart.to_dict(validate=True)["params"] if p["name"] == charts.PICK]
        assert selection["select"]["fields"] == ["frame"]
        assert isinstance(chart, charts.Drawn)
