import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from test_celeba import celeba_tree
from test_faces import film, find_squares, picture

from pipeline.core import cluster
from pipeline.core.cluster import Mark
from pipeline.core.params import UserError, parse
from pipeline.datasets.points import POINT_COLUMNS, POINTS, read_points, write_points
from pipeline.faces import __main__ as faces
from pipeline.faces.align import TEMPLATE
from pipeline.faces.aligner import __main__ as script
from pipeline.faces.aligner import augment, table, training
from pipeline.faces.aligner.config import AlignerConfig, Shape
from pipeline.faces.aligner.examples import gather, split
from pipeline.faces.aligner.heatmaps import draw, read_out
from pipeline.faces.aligner.measures import nme, tremble
from pipeline.faces.aligner.network import StackedHourglass, to_heatmap, to_picture
from pipeline.faces.aligner.use import Aligner, save, with_points_of
from pipeline.faces.by_ray import Cutter
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import DETECTORS, Faces
from pipeline.faces.find import make_detector

SMALL = {"size": 32, "channels": 16, "depth": 2, "workers": 1}


# --- heatmaps --------------------------------------------------------------------------------------------------------


def test_a_heatmap_is_the_gaussian_of_the_distance_of_each_pixel():
    points, sigma = [(3.25, 6.5), (-1.0, 2.0)], 1.5
    slow = [
        [[np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for x in range(9)] for y in range(9)]
        for px, py in points
    ]
    drawn = draw(torch.tensor(points, dtype=torch.float64), 9, sigma)
    np.testing.assert_allclose(drawn, slow)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_the_point_that_was_drawn_is_read_out_anywhere_in_the_heatmap_up_to_its_edges(sigma):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.5, 15.5, (500, 2)), list(itertools.product((0, 7, 7.5, 15), repeat=2))])
    heatmaps = draw(torch.from_numpy(points), 16, sigma)
    np.testing.assert_allclose(read_out(heatmaps), points, atol=1e-3)
    wide = draw(torch.from_numpy(points), 16, sigma * 1.3) * 0.6  # as of a network that is not sure
    np.testing.assert_allclose(read_out(wide), points, atol=1e-3)


def test_a_flat_heatmap_or_a_pit_gives_a_pixel_and_no_error():
    assert torch.isfinite(read_out(torch.zeros(2, 5, 8, 8))).all()
    pit = 1 - draw(torch.tensor([[4.0, 4.0]]), 9, 1.5)
    assert read_out(pit)[0].tolist() == [0.0, 0.0] or (read_out(pit) <= 9).all()


def test_noise_is_read_better_than_by_the_highest_pixel():
    rng = torch.Generator().manual_seed(0)
    points = torch.rand(300, 2, generator=rng) * 20 + 6
    noisy = draw(points, 32, 1.5) + 0.03 * torch.randn(300, 32, 32, generator=rng)
    flat = noisy.flatten(1).argmax(1)
    highest = torch.stack([flat % 32, flat // 32], 1)
    off = (read_out(noisy) - points).norm(dim=1).mean()
    assert off < 0.15 < 0.3 < (highest - points).norm(dim=1).mean()


def test_each_stack_is_trained_on_the_heatmaps():
    torch.manual_seed(0)
    network, settings = StackedHourglass(3, 8, 2), AlignerConfig(**SMALL | {"stacks": 3, "channels": 8})
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    points = torch.rand(2, 5, 2) * 31
    found = network(pictures).detach()
    assert found.shape == (2, 3, 5, 16, 16)
    target = draw((points + 0.5) / 2 - 0.5, 16, 1.5)
    slow = sum(float(((found[:, stack] - target) ** 2).mean()) for stack in range(3))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    assert training.learn(settings, network, optimiser, pictures, points) == pytest.approx(slow, rel=1e-5)
    assert all(head.weight.grad.abs().max() > 0 for head in network.heads)


def test_pixels_of_a_heatmap_are_the_middles_of_two_by_two_of_the_picture():
    place = torch.tensor([[0.0, 0.0], [3.25, 7.5]])
    assert torch.equal(to_heatmap(to_picture(place)), place)
    assert to_picture(torch.zeros(2)).tolist() == [0.5, 0.5]


# --- measures --------------------------------------------------------------------------------------------------------


def test_the_error_by_the_distance_of_the_eyes_by_hand():
    true = np.array([[[0, 0], [10, 0], [5, 5], [2, 8], [8, 8]]], float)
    found = true + np.array([[[3, 4], [0, 0], [0, 1], [0, 0], [2, 0]]])  # off by 5, 0, 1, 0 and 2 of 10
    assert nme(found, true).tolist() == [pytest.approx(0.16)]


def test_trembling_by_hand():
    steady = np.arange(6.0)[:, None, None] * np.ones((6, 5, 2))
    assert tremble(steady, 10) == 0
    steady[3] += 1  # second differences of 1, -2 and 1 of four
    assert tremble(steady, 10) == pytest.approx(np.sqrt(6 / 4) / 10)
    steady[5] = np.nan
    assert tremble(steady, 10) == pytest.approx(np.sqrt(5 / 3) / 10)


# --- augmentation ----------------------------------------------------------------------------------------------------


def dots(size: int, points: np.ndarray, radius: float, shades: np.ndarray) -> np.ndarray:
    """Black, with a soft dot at each of five points, in its own colour."""
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size, 3))
    for (px, py), colour in zip(points, shades, strict=True):
        image += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2))[..., None] * colour
    return np.clip(image, 0, 255).astype(np.uint8)


ALIKE = np.array([(250, 0, 0), (250, 0, 0), (0, 0, 250), (0, 250, 0), (0, 250, 0)])  # as mirrored as not
SHADES = np.array([(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)])


def centre_of(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The centre of the dot of this colour."""
    length = np.linalg.norm(image.astype(float), axis=2)
    alike = image @ (colour / np.linalg.norm(colour)) / np.maximum(length, 1)
    y, x = np.nonzero((length > 60) & (alike > 0.95))
    weights = length[y, x]
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


def test_points_move_with_the_pixels_and_mirroring_swaps_left_and_right():
    points = (TEMPLATE - 55.5) * 1.7 + 100
    image, mirrored = dots(200, points, 3, SHADES), 0
    for seed in range(40):
        found, there = augment.moved_at_random(image, points, 96, 0.5, np.random.default_rng(seed))
        across, down = there[1] - there[0], there[3] - there[0]
        assert across[0] * down[1] > across[1] * down[0]  # of no face whose points were not swapped
        inside = ((there > 8) & (there < 87)).all(axis=1)
        straight = [np.linalg.norm(centre_of(found, SHADES[i]) - there[i]) < 1 for i in np.flatnonzero(inside)]
        swapped = [
            np.linalg.norm(centre_of(found, SHADES[augment.MIRRORED[i]]) - there[i]) < 1 for i in np.flatnonzero(inside)
        ]
        assert len(straight) >= 2  # the nose is one of both
        assert all(straight) != all(swapped)
        mirrored += all(swapped)
    assert 8 <= mirrored <= 32
    assert [POINTS[i] for i in augment.MIRRORED] == ["right_eye", "left_eye", "nose", "mouth_right", "mouth_left"]


def test_the_square_is_around_the_points_with_its_margin():
    points = np.array([[10, 20], [50, 20], [30, 40], [15, 60], [45, 60]], float)
    centre, side = augment.square(points, 0.5)
    assert (centre.tolist(), side) == ([30, 40], 80)
    found, matrix = augment.crop(np.zeros((100, 100, 3), np.uint8), points, 40, 0.5)
    assert found.shape == (40, 40, 3)
    np.testing.assert_allclose(matrix, [[0.5, 0, 19.5 - 15], [0, 0.5, 19.5 - 20]])


def test_what_is_seen_is_grey_dark_small_and_covered_at_times_and_the_same_for_the_same_numbers():
    image = np.random.default_rng(0).integers(100, 256, (64, 64, 3), dtype=np.uint8)
    seen = [augment.seen_at_random(image, np.random.default_rng(seed)) for seed in range(200)]
    assert all(of.shape == image.shape and of.dtype == np.uint8 for of in seen)
    np.testing.assert_array_equal(seen[7], augment.seen_at_random(image, np.random.default_rng(7)))
    grey = np.mean([np.abs(of[..., 0].astype(int) - of[..., 1]).mean() < 6 for of in seen])
    dark = np.mean([of.mean() < 0.6 * image.mean() for of in seen])
    assert 0.1 < grey < 0.6
    assert 0.1 < dark < 0.6
    fine = np.random.default_rng(0).integers(0, 2, (64, 64, 1)).repeat(3, 2) * 255.0
    assert augment.small(fine, 16).std() < 0.5 * fine.std()
    assert (augment.covered(np.full((64, 64, 3), 300.0), np.random.default_rng(0)) != 300).any(axis=2).mean() > 0.02


# --- examples --------------------------------------------------------------------------------------------------------


def written(folder: Path, count: int = 24, groups: int = 6, ending: str = ".parquet") -> Path:
    """Pictures of five dots on random ground, and their table; a point beside each group's number."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for i in range(count):
        turn = np.deg2rad(rng.uniform(-10, 10))
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        points = (TEMPLATE - 55.5) * rng.uniform(0.4, 0.5) @ turned + 31.5 + rng.uniform(-4, 4, 2)
        ground = cv2.resize(rng.integers(0, 120, (4, 4, 3), dtype=np.uint8), (64, 64))
        image = np.clip(ground + dots(64, points, 2, ALIKE).astype(int), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i:03d}.png"), image[..., ::-1])
        rows.append((f"{i:03d}.png", *points.ravel().tolist(), f"g{i % groups}"))
    table = pd.DataFrame(rows, columns=["path", *POINT_COLUMNS, "group"])
    path = folder / f"points{ending}"
    table.to_csv(path, index=False) if ending == ".csv" else write_points(path, table)
    return path


def test_a_table_is_read_from_csv_and_parquet_alike_and_held_out_by_whole_groups(tmp_path):
    one, problems = gather([written(tmp_path / "a")])
    other, _ = gather([written(tmp_path / "b", ending=".csv")])
    assert problems == []
    np.testing.assert_allclose(one.points, other.points)
    train_part, val_part = split(one, 0.34, 0)
    assert (len(train_part), len(val_part)) == (16, 8)
    assert not set(train_part.groups) & set(val_part.groups)
    assert split(one, 0.34, 0)[1].groups == val_part.groups
    assert any(split(one, 0.34, seed)[1].groups != val_part.groups for seed in range(1, 5))


def test_celebas_photographs_and_points_are_examples_and_a_person_a_group(tmp_path):
    celeba_tree(tmp_path)
    found, _ = gather([tmp_path])
    row = [path.name for path in found.paths].index("000003.jpg")
    assert found.points[row][0].tolist() == [69, 109]
    assert found.groups[row].endswith("/2880")
    assert found.groups.count(found.groups[row]) == 3


def test_what_is_wrong_with_a_table_is_one_line(tmp_path):
    path = written(tmp_path / "a", 3)
    table = pd.read_parquet(path)
    (tmp_path / "a/001.png").unlink()
    found, problems = gather([path])
    assert len(found) == 2
    assert len(problems) == 1
    assert "1 pictures left out, such as" in problems[0]
    cases = [
        (table.iloc[:, :10], "has 10 columns; wanted are a column of paths, then ten of points: left_eye_x"),
        (table.assign(nose_x=["a", "1", "2"]), "has 1 rows with a point that is no number"),
        (table.assign(path="gone.png"), "no picture with points in"),
        (table.assign(right_eye_x=table["left_eye_x"], right_eye_y=table["left_eye_y"]), "has both eyes in one place"),
    ]
    for wrong, words in cases:
        wrong.to_csv(tmp_path / "a/wrong.csv", index=False)
        with pytest.raises(UserError, match=words):
            gather([tmp_path / "a/wrong.csv"])
    with pytest.raises(UserError, match=r"cannot read gone\.csv"):
        read_points(Path("gone.csv"))
    with pytest.raises(UserError, match="all pictures are of one group"):
        split(gather([written(tmp_path / "b", 3, groups=1)])[0], 0.2, 0)


# --- training --------------------------------------------------------------------------------------------------------


def config(folder: Path, table: Path, **changes) -> AlignerConfig:
    given = {"data": [table], "output": folder, "device": "cpu", "val_fraction": 0.34}
    return AlignerConfig(**given | SMALL | changes)


def trained(settings: AlignerConfig) -> dict:
    return training.train(settings, *split(gather(settings.data)[0], settings.val_fraction, settings.seed))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, Path, dict]:
    """A table, the folder of a training on it, and what came of it."""
    folder = tmp_path_factory.mktemp("aligner")
    table = written(folder / "pictures", 96)
    settings = config(folder / "out", table, epochs=10, pictures=256, augment=False, learning_rate=0.01)
    return table, folder / "out", trained(settings)


def test_a_small_network_finds_five_dots_within_seconds(tiny):
    _, folder, result = tiny
    assert result["log"][0]["nme"] > 0.3
    assert result["best"]["nme"] < 0.08
    assert Aligner.load(folder / "best.safetensors").facts["nme"] == result["best"]["nme"]


def test_a_trained_one_mends_points_that_are_off(tiny):
    table, folder, _ = tiny
    aligner, (found, _) = Aligner.load(folder / "best.safetensors"), gather([table])
    rng, before, after = np.random.default_rng(0), [], []
    for row in range(0, len(found), 8):
        off = found.points[row] + rng.normal(0, 3, (5, 2))
        before.append(nme(off[None], found.points[row][None])[0])
        after.append(nme(aligner(found.image(row), off[None]), found.points[row][None])[0])
    assert np.mean(after) < 0.5 * np.mean(before)
    assert aligner(found.image(0), np.empty((0, 5, 2))).shape == (0, 5, 2)


def test_a_training_that_stops_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    points = written(tmp_path / "pictures", 12)
    whole = config(tmp_path / "whole", points, epochs=3, pictures=8, batch_size=4)
    trained(whole)
    cut = config(tmp_path / "cut", points, epochs=3, pictures=8, batch_size=4)
    steps, learn = itertools.count(), training.learn

    def dies(*given):
        if next(steps) == 3:  # inside the second epoch
            raise KeyboardInterrupt
        return learn(*given)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learn", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(cut)
    result = trained(cut)
    assert [of["epoch"] for of in result["log"]] == [1, 2, 3]
    for name in ("best.safetensors", "last.safetensors"):
        one, other = (load_file(folder / name) for folder in (tmp_path / "whole", tmp_path / "cut"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    again = trained(config(tmp_path / "other", points, epochs=3, pictures=8, batch_size=4, seed=1))
    assert again["log"] != result["log"]


@pytest.mark.slow
def test_a_training_that_is_killed_outright_goes_on_to_the_same_weights(tmp_path):
    table = written(tmp_path / "pictures", 24)
    small = ", ".join(f"{key}: {value}" for key, value in SMALL.items())
    (tmp_path / "params.yaml").write_text(f"aligner: {{{small}, epochs: 12, pictures: 16}}")
    command = [sys.executable, "-m", "pipeline.faces.aligner", "train", "--data", str(table), "--output"]
    at = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "stdout": subprocess.DEVNULL}
    subprocess.run([*command, "whole"], check=True, **at)
    process = subprocess.Popen([*command, "cut"], **at)
    while not (tmp_path / "cut/last.safetensors").is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "cut"], check=True, **at)
    one, other = (load_file(tmp_path / folder / "last.safetensors") for folder in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_training_in_its_folder_is_refused_until_one_says_rebuild(tiny, tmp_path, monkeypatch):
    points, folder, _ = tiny
    other = config(folder, points, epochs=10, pictures=256, augment=False, learning_rate=0.01, sigma=1.0)
    with pytest.raises(UserError, match=r"was trained otherwise \(sigma 1.5 -> 1.0\): name another --output, or --reb"):
        trained(other)
    monkeypatch.setattr(training, "learn", lambda *given: float("nan"))
    with pytest.raises(UserError, match="the loss of epoch 1 is not finite: try a lower --learning-rate"):
        trained(config(tmp_path / "new", points, epochs=1, pictures=8, batch_size=4))
    with pytest.raises(UserError, match="size must be a multiple of 8 with depth 2, and is 36"):
        config(folder, points, size=36)


def test_the_command_trains_and_says_what_it_held_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("aligner: {size: 16, channels: 4, depth: 1, stacks: 1, epochs: 1, pictures: 8}\n")
    table = written(tmp_path / "pictures", 12)
    assert script.main(["train", "--data", str(table), "--output", "out", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "10 pictures of 5 groups to train on, 2 of 1 others held out" in said
    assert "best: epoch 1, NME" in said
    assert Path("out/best.safetensors").is_file()
    with pytest.raises(UserError, match=r"aligner: command 'trian' is not one of \['table', 'train'\] \(did you mean"):
        script.main(["trian"])
    with pytest.raises(UserError, match="name the trained aligner with --points"):
        script.main(["table"])


# --- cutting faces by it ---------------------------------------------------------------------------------------------


def aligner_file(path: Path, seed: int = 0) -> Path:
    """An aligner of random weights: it finds points somewhere, and not all in one place."""
    torch.manual_seed(seed)
    shape = Shape(size=16, stacks=1, channels=4, depth=1)
    network = StackedHourglass(1, 4, 1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight)
    save(path, network, shape, {})
    return path


def test_boxes_are_the_detectors_and_points_the_aligners(tmp_path):
    aligner = Aligner.load(aligner_file(tmp_path / "a.safetensors"))
    image = picture(red=20, blue=100)
    plain, both = find_squares(image), with_points_of(aligner, find_squares)(image)
    np.testing.assert_array_equal(both.boxes, plain.boxes)
    np.testing.assert_allclose(both.points, aligner(image, plain.points))
    assert np.abs(both.points - plain.points).max() > 1
    nobody = with_points_of(aligner, lambda image: Faces(np.empty((0, 4)), np.empty((0, 5, 2)), np.empty(0)))(image)
    assert len(nobody) == 0
    one_place = with_points_of(lambda image, points: np.zeros_like(points), find_squares)(image)
    assert len(one_place) == 0


def test_faces_cut_by_an_aligner_are_others_and_the_folder_says_by_which(tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("faces: {}\n")
    film(tmp_path / "videos/clip.mp4", [picture(red=20 + i // 4) for i in range(12)])
    one, other = aligner_file(tmp_path / "one.safetensors"), aligner_file(tmp_path / "other.safetensors", 1)
    cut = ["--input", "videos", "--workers", "1", "--every", "3"]
    assert faces.main([*cut, "--out", "plain"]) == 0
    assert faces.main([*cut, "--out", "aligned", "--points", str(one)]) == 0
    tables = {name: pd.read_parquet(f"{name}/faces.parquet") for name in ("plain", "aligned")}
    assert len(tables["plain"]) == len(tables["aligned"]) == 12
    np.testing.assert_array_equal(*(table["left"] for table in tables.values()))
    assert np.abs(tables["plain"]["nose_x"] - tables["aligned"]["nose_x"]).max() > 1
    crop = Path("cropped_aligned/clip/00001.jpg")
    assert (Path("plain") / crop).read_bytes() != (Path("aligned") / crop).read_bytes()
    digest = CutSettings(points=one).points_digest
    assert json.loads(Path("aligned/.faces/settings.json").read_text())["points"] == digest
    one.rename(moved := tmp_path / "moved.safetensors")  # the content counts, not the place
    assert faces.main([*cut, "--out", "aligned", "--points", str(moved)]) == 0
    with pytest.raises(UserError, match=rf"was cut with other settings \(points {digest} -> [0-9a-f]{{16}}\)"):
        faces.main([*cut, "--out", "aligned", "--points", str(other)])
    with pytest.raises(UserError, match=rf"was cut with other settings \(points {digest} -> None\)"):
        faces.main([*cut, "--out", "aligned"])
    assert faces.main([*cut, "--out", "aligned", "--points", str(other), "--rebuild"]) == 0


def test_a_file_that_is_no_aligner_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot read the aligner gone\.safetensors"):
        _ = CutSettings(points=Path("gone.safetensors")).facts
    (tmp_path / "bad").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"bad is not a trained aligner: .* Train one with"):
        make_detector(CutSettings(points=tmp_path / "bad"))
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("faces: {}\n")
    with pytest.raises(UserError, match="with landmarks the data set gives the points: leave points out"):
        faces.main(["--points", "bad", "--landmarks", "celeba"])


def test_a_machine_that_does_not_see_the_aligner_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
    monkeypatch.setattr(cluster, "name_of_machine", lambda: "here")
    mark, aligner = Mark.put(tmp_path / "out/.partial"), aligner_file(tmp_path / "a.safetensors")
    settings = CutSettings(points=aligner)
    gone = Cutter(CutSettings(points=tmp_path / "gone.safetensors"), settings.points_digest, tmp_path, mark)
    assert gone.ready()[1] == f"does not see {tmp_path}/gone.safetensors"
    assert Cutter(settings, "of another", tmp_path, mark).ready()[1] == f"has another aligner at {aligner}"
    assert Cutter(settings, settings.points_digest, tmp_path, mark).ready()[1] is None


def test_the_section_of_params_holds_the_defaults():
    given = parse(AlignerConfig, ["--params", str(ROOT / "params.yaml")], sections=["aligner"], description="")
    assert given == AlignerConfig()


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_measures_both_against_the_true_points(tiny, monkeypatch):
    """A detector that is off by a tenth of the eye distance, and an aligner that is right."""
    table_file, folder, _ = tiny
    held_out = table.held_out_of(Aligner.load(folder / "best.safetensors"))
    assert set(held_out.groups) == set(split(gather([table_file])[0], 0.34, 0)[1].groups)
    true = {}

    def detect(image):
        points = true["now"] + np.array([0.1 * np.linalg.norm(true["now"][1] - true["now"][0]), 0])
        return Faces(np.zeros((1, 4)), points[None], np.ones(1))

    real = table.moved_as

    def moved_as(*given):
        true["now"] = real(*given)
        return true["now"]

    monkeypatch.setattr(table, "moved_as", moved_as)
    for name, way in table.WAYS.items():
        found, theirs, ours = table.errors(lambda image, points: true["now"][None], detect, held_out, way)
        assert (found, ours) == (100, 0), name
        assert theirs == pytest.approx(10), name
    assert table.errors(None, lambda image: Faces(np.empty((0, 4)), np.empty((0, 5, 2)), []), held_out, way)[0] == 0
    aligner = Aligner.load(folder / "best.safetensors")
    aligner.facts["trained"]["val_fraction"] = 0.5  # which holds out others
    with pytest.raises(UserError, match="are not those of its training: train it again"):
        table.held_out_of(aligner)


def test_a_points_tremble_is_that_of_its_error(monkeypatch):
    rng = np.random.default_rng(0)
    faces = np.array([[100, 100], [140, 100], [120, 125], [105, 145], [135, 145]], float)
    walk = np.cumsum(rng.normal(0, 2, (40, 1, 1, 2)), axis=0)
    true = faces + walk + [[[[0, 0]], [[200, 0]]]]  # two people, who move
    noise = rng.normal(0, 1, (40, 2, 5, 2))
    frames = [(np.full((8, 8, 3), number, np.uint8), of, []) for number, of in enumerate(true)]
    monkeypatch.setattr(table, "acted", lambda seconds: frames)

    def detect(image):
        number = image[0, 0, 0]
        return Faces(np.zeros((2, 4)), true[number] + noise[number], np.ones(2))

    def steady(image, points):
        return true[image[0, 0, 0]][[int(points[0, 0, 0] > true[image[0, 0, 0]].mean())]]

    theirs, ours = table.drawn_tremble(steady, detect, 1, table.WAYS["plain"])
    assert theirs == pytest.approx(100 * np.sqrt(6) / 40, rel=0.15)
    assert ours == pytest.approx(0, abs=1e-9)
