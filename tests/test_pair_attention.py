"""Where a head for pairs looks: the weights lie on the right place of the right picture, in every picture of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, adapter_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_watch import frame_set

import extract
import train
from pipeline.adapter.pair_attention import SHOWN, PairsSeen, chosen_pairs, pairs_seen
from pipeline.adapter.sources import InMemory
from pipeline.core.pictures import pair_figure, pair_words
from pipeline.datasets import index, shapes
from pipeline.evaluation import evaluate, shown
from pipeline.extraction.frames import Fit, middle_of, resize_image
from pipeline.report import __main__ as report

GRID = 3
FACTS = {
    "model": "pair_gate", "loss": "pair_bce", "num_features": 2 * GRID**2, "num_components": None, "embedding_size": 2,
    "dropout": 0.0, "model_options": {}, "classes": ["a", "b"], "pooling": "mean",
    "made_by": {"pooling": f"grid {GRID} x {GRID}", "crop_source": "drawn", "fit": "crop 0.5"},
    "window": {"frames": 1, "step": None, "edge": "mask", "spacing": 1},
}  # fmt: skip
LABEL = [0, 0, 0, 1, 1, 1, 0, 1, 1, 1]  # of five pairs
SAME = [True, False, True, False, True]
CELL = [2, 4, 0, 8, 5, 1, 3, 7, 6, 2]  # where the thing lies in each picture


@pytest.fixture
def adapter():
    """All weight on the cell whose first channel is 1; the second, -1 or 1, is the class."""
    made = adapter_of(FACTS)
    head = made.head
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.content.weight[0, 0] = 1
        head.weight.weight[0, 0] = 1000
        head.project[1].weight.copy_(torch.tensor([[0.0, 1.0], [0.01, 0.0]]))
        head.scale.fill_(4)
    return made


def seen_by(adapter, label=LABEL, pairs=True) -> PairsSeen | None:
    """Of ten pictures, of which the label table names five pairs."""
    features = np.zeros((len(label), 2, GRID**2), np.float32)
    features[np.arange(len(label)), 0, CELL] = 1
    features[np.arange(len(label)), 1, CELL] = np.array(label) * 2 - 1
    named = (np.arange(10).reshape(5, 2), SAME) if pairs else ()
    frames = frame_set(LABEL, np.arange(10) // 2, *named)
    source = InMemory(torch.from_numpy(features.reshape(len(label), -1)))
    return pairs_seen(adapter, source, adapter.window.over(frames.video, frames.frame), frames, "val")


def test_the_weights_are_those_of_the_right_cell_of_the_right_picture(adapter):
    found = seen_by(adapter)
    assert len(found.frames) == 4  # of three same ones that are right two are shown
    for pair, weights in zip(found.frames, found.weights, strict=True):
        for (video, _, label), of in zip(pair, weights, strict=True):
            number = int(video[1:])
            assert label == LABEL[number]
            assert of[divmod(CELL[number], GRID)] == pytest.approx(1, abs=1e-3)
    assert (found.way, found.share, found.middle) == ("crop", 0.5, 1.0)
    assert ((found.logits > 0) == found.same).all()


def test_wrong_pairs_come_first_the_surest_at_the_front_and_right_ones_are_of_both_kinds():
    logits = np.array([-1, 9, -3, 2, 5, -4, 8, 7, 6, -9, -8, 0.5], np.float32)
    same = np.array([1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1], bool)
    found = chosen_pairs(logits, same)
    assert found[:SHOWN].tolist() == [1, 6, 7, 2]  # -1 is the fifth
    assert same[found[SHOWN:]].tolist() == [True, True, False, False]
    assert ((logits[found[SHOWN:]] >= 0) == same[found[SHOWN:]]).all()


def test_without_named_pairs_they_are_of_two_groups(adapter):
    found = seen_by(adapter, pairs=False)
    for (a, *_), (b, *_) in found.frames:
        assert int(a[1:]) // 2 != int(b[1:]) // 2
    assert set(found.same) == {True, False}


def test_a_head_that_weighs_no_places_has_no_attention():
    facts = FACTS | {"made_by": {"pooling": "average", "crop_source": "drawn"}}
    assert seen_by(adapter_of(facts)) is None


def test_pairs_whose_pictures_cannot_be_read_are_left_out_and_counted(adapter):
    found = seen_by(adapter)
    gone = found.frames[1][1][0]
    there, pictures = found.readable(lambda video, frame: None if video == gone else np.zeros((4, 4, 3), np.uint8))
    assert there.frames == [pair for pair in found.frames if gone not in (pair[0][0], pair[1][0])]
    assert len(pictures) == len(there.weights) == len(there.logits) == 3
    assert found.left_out(there) == "attention: 1 of 4 pairs are not drawn, as their pictures cannot be read"
    assert found.left_out(found) == ""


@pytest.mark.parametrize("way", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(120, 120), (200, 120), (90, 150)])
def test_the_part_that_the_places_are_of_is_what_the_backbone_is_given(way, height, width):
    """Of a picture whose colours are the places of its pixels, cut by extraction's own code."""
    share, middle, size = 0.75, 0.8, 60
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, np.full_like(x, 255)], axis=-1).astype(np.uint8)
    given = resize_image(middle_of(image, middle), size, "bilinear", Fit(way, share)).astype(int)
    high, wide = PairsSeen([], *[np.zeros(0)] * 3, way, share, middle).within(height, width)
    kept = given[..., 2] == 255
    for axis, length, within in ((0, height, high), (1, width, wide)):
        at = np.flatnonzero(kept.any(axis=1 - axis))
        first, last = at[0], at[-1]
        values = given[..., axis].max(axis=1 - axis)
        for place in (first + 1, last - 1):
            wanted = length / 2 + ((place + 0.5) / size - 0.5) * within * length - 0.5
            assert values[place] == pytest.approx(wanted, abs=2.5)


@pytest.mark.parametrize("within", [1.0, 0.5])
def test_the_figure_is_red_where_the_weight_is_and_blue_elsewhere(within):
    weights = np.zeros((1, 2, GRID, GRID))
    cells = [(0, 2), (2, 1)]
    for side, cell in enumerate(cells):
        weights[0, side][cell] = 1
    grey = np.full((60, 60, 3), 128, np.uint8)
    figure = pair_figure(
        [(grey, grey)], np.full((1, 2, 2), within), weights, np.array([-3.0]), np.array([True]), "a $ title"
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    pictures = [axis for axis in figure.findobj(lambda a: hasattr(a, "images")) if len(axis.images) == 2]
    assert len(pictures) == 2
    for axis, cell in zip(sorted(pictures, key=lambda a: a.get_window_extent().x0), cells, strict=True):
        for row, column in np.ndindex(GRID, GRID):
            place = ((np.array([column, row]) + 0.5) / GRID - 0.5) * 60 * within
            right, up = axis.transData.transform(place).round().astype(int)
            red, _, blue, _ = pixels[len(pixels) - 1 - up, right].astype(int)
            assert (red > blue) == ((row, column) == cell)
        right, up = axis.transData.transform((-28, -28)).round().astype(int)
        outside = pixels[len(pixels) - 1 - up, right][:3].tolist()
        assert (outside == [128] * 3) == (within < 1)


def test_a_pair_is_said_with_what_is_true_and_how_sure_the_head_is():
    assert pair_words(3.0, True) == "right: same\nprobability of same 0.953, logit 3.0"
    assert pair_words(3.0, False) == "wrong: different, taken for same\nprobability of same 0.953, logit 3.0"
    assert pair_words(-1.0, True) == "wrong: same, taken for different\nprobability of same 0.269, logit -1.0"


# --- of a run, from pixels and from maps


TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "64", "--device", "cpu",
        "--workers", "1", "--layers", "blocks.2", "--grid", "4"]  # fmt: skip
RUN = ["--model", "pair_gate", "--loss", "pair_bce", "--sampler", "pairs", "--window", "1", "--no-reduce", "--cpu",
       "-e", "1", "-r", "1", "--embedding-size", "8", "--batch-size", "16", "--select-split", "0.3"]  # fmt: skip
MAPS = "data/features.blocks.2.maps.zarr"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """24 drawn pairs, features of a grid of an inner stage, and the maps that the stage takes in."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["evaluate"] |= {"resamples": 20, "timelines": 0}
        Path("params.yaml").write_text(yaml.safe_dump(params | {"runs": {"x": {}}}), encoding="utf-8")
        shapes.write(shapes.ShapesConfig(out=Path("shapes"), pairs=24, size=64))
        assert index.main(["--root", "shapes", "--name", "shapes", "--val-fraction", "0.4"]) == 0
        assert extract.main(TINY) == 0
        assert extract.main([*TINY, "--maps", "blocks.2"]) == 0
    return root


@pytest.fixture
def place(made, workplace):
    for name in ("data", "weights", "shapes"):
        shutil.copytree(made / name, workplace / name)
    shutil.copy(made / "params.yaml", workplace)
    return workplace


@pytest.mark.parametrize("more", [[], ["--unfreeze", "1"], ["--unfreeze", "1", "--maps", MAPS]])
def test_a_run_shows_its_attention_on_the_board_in_its_evaluation_and_in_the_report(
    place, capsys, monkeypatch, undrawn, more
):
    train.main([*RUN, "--name", "x", "--no-evaluate", *more])
    seed = Path("runs/manual/x/seed_0")
    assert "attention/val" in EventAccumulator(str(seed), size_guidance={"images": 0}).Reload().Tags()["images"]
    evaluate.main(["--run", "runs/manual/x", "-o", "evaluation/x", "--device", "cpu"])
    assert Path("evaluation/x/plots/attention.png").is_file()
    found = shown.read(Path("evaluation/x"))
    pairs = found.names["attention"]
    assert len(pairs) > SHOWN // 2
    assert found.arrays["attention/weights"].shape == (len(pairs), 2, 4, 4)
    report.main([])
    page = Path("report/index.html").read_text(encoding="utf-8")
    (run,) = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])["runs"]
    assert run["attention"]["leftOut"] == 0
    of_page = run["attention"]["pairs"]
    assert [[frame[2] for frame in pair["frames"]] for pair in of_page] == [
        [f"{video}, frame {frame}" for video, frame, _ in pair] for pair in pairs
    ]
    assert all(frame[0] is not None for pair in of_page for frame in pair["frames"])
    np.testing.assert_allclose([p["weights"] for p in of_page], found.arrays["attention/weights"], atol=1e-4)
    assert np.sum(of_page[0]["weights"][0]) == pytest.approx(1, abs=2e-3)

    if not more:  # where the pictures are gone
        shutil.rmtree("shapes")
        capsys.readouterr()
        evaluate.main(["--run", "runs/manual/x", "-o", "evaluation/x", "--device", "cpu"])
        line = f"attention: {len(pairs)} of {len(pairs)} pairs are not drawn, as their pictures cannot be read"
        assert line in capsys.readouterr().out
        assert not Path("evaluation/x/plots/attention.png").exists()
        assert shown.read(Path("evaluation/x")).names["attention_left_out"] == len(pairs)
