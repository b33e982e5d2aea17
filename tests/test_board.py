import dataclasses
import math
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from forks import python
from google.protobuf import text_format
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util import tensor_util

from pipeline.training import board
from pipeline.training.board import Board
from pipeline.training.pictures import framed, thumbnails

CLASSES = ["Neutral", "Anger", "Fear"]
HPARAMS = {
    "model": "mlp", "loss": "supcon", "sampler": "balanced", "temperature": 15.0, "margin": 0.2, "reduce": True,
    "model_options": {}, "epochs": 3,
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Calls ``what`` with a board of the run ``name`` and gives all that is in its event files."""

    def _write(what=lambda b: None, name="run", hparams=HPARAMS, **options):
        with Board(tmp_path / name, hparams, **options) as b:
            what(b)
        return EventAccumulator(str(tmp_path / name), size_guidance={"images": 0, "histograms": 0}).Reload()

    return _write


def table(events, tag):
    content = events.summary_metadata[f"_hparams_/{tag}"].plugin_data.content
    return HParamsPluginData.FromString(content)


def cells(events):
    found = table(events, "session_start_info").session_start_info.hparams
    return {name: getattr(cell, cell.WhichOneof("kind")) for name, cell in found.items()}


def image(events, tag):
    (found,) = events.Images(tag)
    return found, cv2.imdecode(np.frombuffer(found.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)


def ramp(n, width=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def test_scalars_are_curves_named_metric_first(write):
    def what(b):
        for epoch in (0, 1):
            b.scalars({"loss": 3.5 - epoch, "cosine_opposite": float("nan")}, "train", epoch)
        b.scalars({"loss": 7}, "val", 1)

    events = write(what)
    assert set(events.Tags()["scalars"]) == {"loss/train", "loss/val", "cosine_opposite/train"}
    assert [(e.step, e.value) for e in events.Scalars("loss/train")] == [(0, 3.5), (1, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("loss/val")] == [(1, 7.0)]
    assert [math.isnan(e.value) for e in events.Scalars("cosine_opposite/train")] == [True, True]


def test_a_metric_says_beside_its_curve_what_it_is_of_and_on_how_many_frames(write):
    def what(b):
        b.scalars({"macro_f1": 0.5, "cosine_same": 0.9}, "val", 1, 1000)
        b.scalars({"loss": 1.0}, "train", 1)

    events, where = (
        write(what),
        "Measured on those of 1,000 evenly spaced frames of the run's val part that have labels for it.",
    )
    length = "The x axis counts epochs; this run has 3."
    assert {tag: events.summary_metadata[tag].summary_description for tag in events.Tags()["scalars"]} == {
        "macro_f1/val": f"classifier macro-F1, higher is better. {where} {length}",
        "cosine_same/val": f"mean cosine of pairs. {where} {length}",
        "loss/train": length,
    }
    assert {events.summary_metadata[tag].plugin_data.plugin_name for tag in events.Tags()["scalars"]} == {"scalars"}


def test_what_was_given_is_on_disk_before_the_board_is_closed(tmp_path):
    """So that a run killed after its checkpoint loses no curve."""
    code = "import os, sys; from pathlib import Path; from pipeline.training.board import Board; "
    code += "Board(Path(sys.argv[1]), {'a': 1}).scalars({'loss': 2.0}, 'train', 1); os._exit(9)"
    assert python("-c", code, tmp_path).returncode == 9
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/train")] == [(1, 2.0)]
    assert cells(events) == {"a": 1}


def test_cosines_are_counted_in_bins_that_do_not_move(write):
    same = np.array([0.96, 0.99, 1.0000001, 0.51], dtype=np.float32)
    different = np.array([-1.0, 0.0126])
    events = write(lambda b: b.cosines(same, different, np.array([]), "val", 2))
    tags = {tag for tag in events.Tags()["tensors"] if tag.startswith("cosines/")}
    assert tags == {"cosines/same/val", "cosines/different/val"}
    for kind, values in (("same", same.clip(-1, 1)), ("different", different)):
        tag = f"cosines/{kind}/val"
        assert events.summary_metadata[tag].plugin_data.plugin_name == "histograms"
        (event,) = events.Tensors(tag)
        left, right, count = tensor_util.make_ndarray(event.tensor_proto).T
        assert event.step == 2
        # the same bins whatever the values, empty ones too: TensorBoard's axis begins and ends with them
        np.testing.assert_allclose(left, np.arange(-40, 40) / 40, atol=1e-9)
        np.testing.assert_allclose(right, np.arange(-39, 41) / 40, atol=1e-9)
        wanted = [np.sum((values >= a) & ((values < b) | (b == 1))) for a, b in zip(left, right.round(9), strict=True)]
        assert count.tolist() == wanted
        assert count.sum() == len(values)


def shown_columns(folder):
    """The columns of TensorBoard's table as its server makes them, and which are in sight."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    tags = context.hparams_metadata(RequestContext(), "")
    found = context.experiment_from_metadata(
        RequestContext(), "", False, tags, context.hparams_from_data_provider(RequestContext(), "", 0), 0
    )
    return {info.name: info.differs for info in found.hparam_infos}


def test_the_table_shows_what_differs_between_runs_and_hides_what_is_constant(tmp_path, write):
    write(name="one")
    other = dict(HPARAMS, loss={"arcface": 1.0, "triplet": {"weight": 0.5, "margin": 0.2}}, margin=None, reduce=False)
    write(name="two", hparams=other | {"model": "tcn", "epochs": 10})
    found = shown_columns(tmp_path)
    differing = [name for name, differs in found.items() if differs]
    assert differing == ["epochs", "loss", "model", "reduce"]
    assert list(found)[:4] == differing
    assert {name for name, differs in found.items() if not differs} == {
        "margin", "model_options", "sampler", "temperature"
    }  # fmt: skip


def test_the_table_holds_numbers_as_numbers_and_the_rest_as_short_text(write):
    given = {
        "text": "mlp", "int": 3, "numpy": np.int64(4), "float": 1e-3, "none": None, "yes": True, "empty": {},
        "sum": {"arcface": 1.0, "triplet": {"weight": 0.5, "margin": 0.2}}, "pairs": [["a", "b"], ["c", "d"]],
        "path": Path("runs/x"), "lines": "a\tb\nc", "long": "x" * 200,
    }  # fmt: skip
    events = write(hparams=given)
    found = cells(events)
    assert "none" not in found  # TensorBoard leaves such a cell empty, and can still sort the column
    assert found == {
        "text": "mlp", "int": 3.0, "numpy": 4.0, "float": 1e-3, "yes": "true", "empty": "",
        "sum": "arcface: 1.0, triplet: {weight: 0.5, margin: 0.2}", "pairs": "a, b, c, d", "path": "runs/x",
        "lines": "a b c", "long": "x" * 59 + "…",
    }  # fmt: skip


def test_a_row_of_the_table_is_finished(write):
    assert table(write(), "session_end_info").session_end_info.status == 1  # STATUS_SUCCESS


def test_seeds_have_a_mean_with_a_band_over_the_epochs_that_all_have(tmp_path, write):
    def curve(values, what="auc_same_different"):
        def written(b):
            for epoch, value in enumerate(values):
                b.scalars({what: value, "gradient_norm": 7.0}, "val", epoch)
            b.similarity(ramp(4), np.array([0, 0, 1, 1]), np.arange(4), CLASSES, "val", 1)

        return written

    write(curve([0.25, 0.5, 0.75]), name="run/seed_0")
    board.write_mean(tmp_path / "run")
    assert not (tmp_path / "run" / board.OVER_SEEDS).exists()  # one seed has no mean
    write(curve([0.75, 1.0]), name="run/seed_1")
    for _ in range(2):  # again, as after a run that was cut off
        board.write_mean(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / board.OVER_SEEDS)).Reload()
    tag = "auc_same_different/val"
    found = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert found == {
        tag: [(0, 0.5), (1, 0.75)],
        f"seeds/{tag}/lowest": [(0, 0.25), (1, 0.5)],
        f"seeds/{tag}/highest": [(0, 0.75), (1, 1.0)],
    }
    (event,) = events.Tensors(custom_scalars.CONFIG_SUMMARY_TAG)
    layout = Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
    (category,) = layout.category
    assert category.title == "mean of 2 seeds"
    (chart,) = category.chart
    (band,) = chart.margin.series
    assert (band.value, band.lower, band.upper) == (tag, f"seeds/{tag}/lowest", f"seeds/{tag}/highest")


def test_the_projector_shows_each_class_in_a_colour():
    """A frame around the face, or a square where there is none; a point without class is grey."""
    white = np.full((3, 48, 48, 3), 255, dtype=np.uint8)
    orange, blue, grey = [0xE6, 0x9F, 0x00], [0x56, 0xB4, 0xE9], [128] * 3
    found = framed(white, np.array([0, 1, -1]))
    assert found[:, 0, 0].tolist() == found[:, 20, 47].tolist() == [orange, blue, grey]
    assert (found[:, 10:-10, 10:-10] == 255).all()
    alone = framed(None, np.array([1, 9, -1]))  # the ninth class has the colour of the first again
    assert alone.shape == (3, 48, 48, 3)
    assert alone[:, 24, 24].tolist() == [blue, blue, grey]
    assert (alone == alone[:, :1, :1]).all()


def test_a_resumed_run_hides_what_the_killed_one_wrote_from_there_on(tmp_path, write):
    for epoch in (1, 2, 3):  # a writer a file; those of one second are read in the order of their numbers
        write(lambda b, epoch=epoch: b.scalars({"loss": epoch, "late": epoch}, "train", epoch))
    for number, file in enumerate(sorted((tmp_path / "run").glob("events.*"), key=lambda f: f.stat().st_mtime_ns)):
        file.rename(file.with_name(f"events.out.tfevents.000000000{number}.host"))
    events = write(lambda b: b.scalars({"loss": 20}, "train", 2), purge_from=2)
    assert [(e.step, e.value) for e in events.Scalars("loss/train")] == [(1, 1.0), (2, 20.0)]
    assert [e.step for e in events.Scalars("late/train")] == [1]


def test_the_similarity_matrix_is_sorted_by_class_then_video_and_thinned(write, monkeypatch):
    """Class 2 has no row, one row has no class; 9 of 12 rows may be shown."""
    labels = np.array([1, 0, 1, -1, 0, 0, 1, 0, 1, 1, 0, 0, 0])
    videos = np.array([2, 3, 1, 9, 1, 3, 4, 1, 2, 4, 3, 1, 2])
    z, seen = ramp(13), {}
    monkeypatch.setattr(board, "MOST_ROWS", 9)
    real = board.similarity_figure

    def spy(rows, codes, classes, title):
        seen.update(rows=rows, codes=codes, title=title)
        return real(rows, codes, classes, title)

    monkeypatch.setattr(board, "similarity_figure", spy)
    events = write(lambda b: b.similarity(z, labels, videos, CLASSES, "val", 3))
    order = sorted(np.flatnonzero(labels >= 0), key=lambda i: (labels[i], videos[i], i))
    kept = [order[i] for i in np.linspace(0, 11, 9).round().astype(int)]
    assert seen["codes"].tolist() == [labels[i] for i in kept]
    np.testing.assert_allclose(seen["rows"], [z[i] / np.linalg.norm(z[i]) for i in kept], rtol=1e-5)
    assert seen["title"].startswith("cosine, val: 9 of 12 windows")
    found, pixels = image(events, "similarity/val")
    assert found.step == 3
    assert pixels.shape == (found.height, found.width, 3) == (648, 756, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_the_similarity_figure_shows_the_cosines_and_marks_the_classes():
    labels = np.array([0, 0, 0, 2, 2])
    z = ramp(5) / np.linalg.norm(ramp(5), axis=1, keepdims=True)
    axis = board.similarity_figure(z, labels, CLASSES, "title").axes[0]
    wanted = [[float(np.dot(a, b)) for b in z] for a in z]
    np.testing.assert_allclose(axis.images[0].get_array(), wanted, atol=1e-6)
    assert axis.images[0].get_clim() == (-1, 1)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["Neutral", "Fear"]
    boundaries, names = axis.lines[:2], axis.lines[2:]
    assert sorted([*map(tuple, line.get_xydata().tolist())] for line in boundaries) == [
        [(0, 2.5), (1, 2.5)],
        [(2.5, 0), (2.5, 1)],
    ]
    assert [line.get_ydata()[0] for line in names] == [1, 3.5]  # middles of rows 0..2 and 3..4


def test_names_of_narrow_bands_stand_near_them_and_apart():
    centres = np.array([30.0, 61, 63, 65, 98.5, 99])
    places = board.apart(centres, 100)
    gap = 100 * 0.05
    assert (np.diff(places) >= gap - 1e-9).all()
    assert places[0] == 30
    assert places.max() <= 99.5
    assert np.abs(places - centres).max() < 2.5 * gap
    many = board.apart(np.full(40, 99.0), 100)
    assert (np.diff(many) > 0).all()
    assert many.min() >= -0.5


def test_the_confusion_matrix_counts_each_known_window_once(write, monkeypatch):
    truth, predicted = np.array([0, 0, 1, -1, 1, 0]), np.array([0, 1, 1, 2, 2, 0])
    seen, real = {}, board.confusion_figure
    monkeypatch.setattr(board, "confusion_figure", lambda *given: real(*seen.setdefault("given", given)))
    found, pixels = image(write(lambda b: b.confusion(truth, predicted, CLASSES, "val", 1)), "confusion/val")
    counts, _, title = seen["given"]
    assert counts.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert title == "predictions, val: 5 windows"
    assert found.step == 1
    assert pixels.shape == (found.height, found.width, 3)
    assert min(pixels.shape[:2]) >= 400


def test_the_confusion_figure_colours_shares_and_writes_counts():
    counts = np.array([[3, 1, 0], [0, 2000, 0], [0, 0, 0]])
    axis = board.confusion_figure(counts, ["a$b$", "b\tc", "d"], "title").axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [t.get_text() for t in axis.texts] == ["3", "1", "·", "·", "2,000", "·", "·", "·", "·"]
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [t.get_text() for t in labels] == ["a$b$", "b c", "d"]
    axis.figure.savefig(os.devnull, format="png")  # the dollars are not taken for a formula


@pytest.mark.parametrize("num_classes", [2, 8, 30])
def test_pictures_hold_all_their_names(num_classes):
    """Everything drawn lies inside the picture, for few classes and many."""
    names = [f"Happily Surprised {i}" for i in range(num_classes)]
    labels = np.sort(np.arange(100) ** 3 % num_classes)
    z = ramp(100) / np.linalg.norm(ramp(100), axis=1, keepdims=True)
    counts = np.full((num_classes, num_classes), 12345)
    for figure in (board.similarity_figure(z, labels, names, "t"), board.confusion_figure(counts, names, "t")):
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01


def test_no_picture_is_made_of_nothing(write):
    none, no_embeddings = np.full(4, -1), ramp(0)

    def what(b):
        b.similarity(ramp(4), none, np.arange(4), CLASSES, "val", 1)
        b.similarity(no_embeddings, np.array([], dtype=int), np.array([], dtype=int), CLASSES, "val", 1)
        b.confusion(none, np.zeros(4, dtype=int), CLASSES, "val", 1)

    assert write(what).Tags()["images"] == []


@dataclasses.dataclass
class Projected:
    header: list[str]
    rows: list[list[str]]
    points: np.ndarray
    sprite: np.ndarray | None


def projected(folder):
    """The projector's files as the browser reads them, from the config on."""
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (about,) = config.embeddings
    points = np.loadtxt(folder / about.tensor_path, delimiter="\t", ndmin=2)
    header, *rows = [line.split("\t") for line in (folder / about.metadata_path).read_text("utf-8").split("\n")[:-1]]
    sprite = None
    if about.sprite.image_path:
        sprite = cv2.imread(str(folder / about.sprite.image_path))[..., ::-1]
        assert len(set(about.sprite.single_image_dim)) == 1
    return Projected(header, rows, points, sprite)


def test_the_projector_has_points_columns_and_faces(tmp_path, write):
    z = ramp(7)
    pictures = np.random.default_rng(1).integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)
    given = {"emotion": ["A", "B", "A", "B", "A", "B", "A"], "valence": [0.5, float("nan"), None, 0, 1, -1, 0.25]}
    write(lambda b: b.projector(z, given, pictures))
    found = projected(tmp_path / "run")
    np.testing.assert_allclose(found.points, [row / np.linalg.norm(row) for row in z], atol=1e-5)
    assert found.header == ["emotion", "valence", "row"]
    assert found.rows[:3] == [["A", "0.5", "0"], ["B", "", "1"], ["A", "", "2"]]
    assert [row[1] for row in found.rows[3:]] == ["0", "1", "-1", "0.25"]
    assert found.sprite.shape == (18, 18, 3)  # three by three
    for number, picture in enumerate(pictures):
        top, left = 6 * (number // 3), 6 * (number % 3)
        np.testing.assert_array_equal(found.sprite[top : top + 6, left : left + 6], picture)


def test_a_tab_or_a_line_break_in_a_name_moves_no_column(tmp_path, write):
    given = {"the\temotion": ["An\tger", "Fe\nar", "Sad\r\nness"], "video": ["a", " b ", "c\u2028d"]}
    write(lambda b: b.projector(ramp(3), given))
    found = projected(tmp_path / "run")
    assert found.header == ["the emotion", "video", "row"]
    assert found.rows == [["An ger", "a", "0"], ["Fe ar", "b", "1"], ["Sad ness", "c d", "2"]]
    assert found.sprite is None


def test_one_column_without_any_text_still_has_a_line_a_point(tmp_path, write):
    write(lambda b: b.projector(ramp(3), {"emotion": [None, "", "A"]}))
    found = projected(tmp_path / "run")
    assert found.header == ["emotion", "row"]
    assert found.rows == [["", "0"], ["", "1"], ["A", "2"]]


@pytest.mark.parametrize(("size", "kept"), [(2, 20), (4, 16), (5, 9)])
def test_more_points_than_a_sprite_can_hold_are_thinned_evenly(tmp_path, write, monkeypatch, size, kept):
    """A sprite of 16 pixels holds 64, 16 or 9 faces of 2, 4 or 5 pixels; never are there more than 20 points."""
    monkeypatch.setattr(board, "SPRITE_PIXELS", 16)
    monkeypatch.setattr(board, "MOST_POINTS", 20)
    pictures = np.repeat(np.arange(40, dtype=np.uint8), size * size * 3).reshape(40, size, size, 3)
    write(lambda b: b.projector(ramp(40), {"video": list(range(40))}, pictures))
    found = projected(tmp_path / "run")
    numbers = [int(row[0]) for row in found.rows]
    assert numbers == np.linspace(0, 39, kept).round().astype(int).tolist()
    assert max(found.sprite.shape) <= 16
    across = found.sprite.shape[1] // size
    for place, number in enumerate(numbers):
        assert found.sprite[size * (place // across), size * (place % across), 0] == number
    np.testing.assert_allclose(found.points[-1], ramp(40)[39] / np.linalg.norm(ramp(40)[39]), atol=1e-5)


def test_a_sprite_of_the_usual_faces_is_one_that_the_browser_takes():
    across = math.ceil(math.sqrt(board.MOST_POINTS))
    assert across * 48 <= board.SPRITE_PIXELS == 8192


@pytest.mark.parametrize("entries", [2, 4])
def test_columns_and_faces_of_another_length_are_refused(write, entries):
    with pytest.raises(ValueError, match=f"3 embeddings have {entries} entries of 'emotion'"):
        write(lambda b: b.projector(ramp(3), {"video": [1, 2, 3], "emotion": ["A"] * entries}))
    with pytest.raises(ValueError, match=f"3 embeddings have {entries} entries of 'thumbnails'"):
        write(lambda b: b.projector(ramp(3), {"video": [1, 2, 3]}, np.zeros((entries, 4, 4, 3), np.uint8)))


def test_a_run_is_one_folder_of_events_also_when_it_is_projected_twice(tmp_path, write, capsys):
    def what(b):
        b.scalars({"loss": 1.0}, "train", 1)
        b.cosines(np.array([0.5]), np.array([0.1]), np.array([-0.5]), "val", 1)
        b.similarity(ramp(4), np.array([0, 0, 1, 1]), np.arange(4), CLASSES, "val", 1)
        b.confusion(np.array([0, 1]), np.array([0, 0]), CLASSES, "val", 1)
        b.projector(ramp(4), {"emotion": list("ABAB")}, np.zeros((4, 4, 4, 3), np.uint8))

    write(what)
    write(what, purge_from=1)
    assert {str(f.parent.relative_to(tmp_path)) for f in tmp_path.rglob("*tfevents*")} == {"run"}
    assert len(projected(tmp_path / "run").rows) == 4
    assert capsys.readouterr().out == ""


def test_thumbnails_are_letterboxed_and_a_missing_one_is_grey(tmp_path):
    """A wide, a tall and a small picture, each of one colour; a damaged and a missing one."""
    for name, size, colour in [("a/wide.png", (20, 80), 250), ("tall.png", (60, 30), 10), ("small.png", (3, 3), 90)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((*size, 3), (colour, 40, 60), dtype=np.uint8))  # blue first
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    names = ["a/wide.png", "tall.png", "small.png", "damaged.jpg", "empty.jpg", "missing.jpg"]
    wanted = np.full((6, 48, 48, 3), 128, dtype=np.uint8)
    wanted[0, 18:30] = (60, 40, 250)
    wanted[1, :, 12:36] = (60, 40, 10)
    wanted[2] = (60, 40, 90)
    np.testing.assert_array_equal(thumbnails(tmp_path, names), wanted)
    assert thumbnails(tmp_path, ["a/wide.png"], size=16).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("names", [[], ["missing.jpg", "other.jpg"]])
def test_without_any_readable_picture_there_are_no_thumbnails(tmp_path, names):
    assert thumbnails(tmp_path, names) is None


def test_pictures_leave_nothing_open(write):
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    write(lambda b: b.confusion(np.array([0, 1]), np.array([0, 0]), CLASSES, "val", 1))
    assert plt.get_fignums() == before


def test_every_tag_is_metric_first_so_that_curves_share_a_card(write):
    def what(b):
        for part in ("select", "val"):
            b.scalars({"loss": 1.0}, part, 1)
            b.cosines(np.array([0.5]), np.array([0.1]), np.array([-0.5]), part, 1)
            b.confusion(np.array([0, 1]), np.array([0, 0]), CLASSES, part, 1)

    tags = write(what).Tags()
    cosines = [tag for tag in tags["tensors"] if tag.startswith("cosines/")]
    for tag in (*tags["scalars"], *cosines, *tags["images"]):
        assert re.fullmatch(r"[a-z_]+(/[a-z]+)?/(select|val)", tag), tag
