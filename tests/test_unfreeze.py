"""A backbone that is trained with the head: from pixels, from maps, in slices, and what comes of it."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import ROOT, draw_folder
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.modules.batchnorm import _BatchNorm

import extract
import train
from pipeline import code
from pipeline.adapter import sources
from pipeline.core.files import load_facts, load_tensors, save_tensors
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.tables import read_frames
from pipeline.datasets import index
from pipeline.embed import Embedder
from pipeline.evaluation import evaluate
from pipeline.evaluation import files as evaluation_files
from pipeline.extraction import reduce
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.stages import halves
from pipeline.extraction.weights.prepare import prepare
from pipeline.report.facts import check, headline
from pipeline.training import run as run_module
from pipeline.training.loop import Trainer
from pipeline.unfreeze import inputs, trunk
from pipeline.unfreeze.network import Network
from pipeline.unfreeze.trunk import LiveShard, Options

SIZE, NAME = 32, "test_efficientnet"
VIDEOS = {f"{split}/{emotion}/{split}{n}{emotion}": 6 for split in ("train", "val") for emotion in ("happy", "sad")
          for n in range(3)}  # fmt: skip
MAPS = ["--maps", "data/features.blocks.4.maps.zarr"]
DRAWN = ["--unfreeze", "all", "--backbone-start", "random", "--batch-norm", "train"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """72 drawn frames with their features, and the maps at the last of the stages."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        draw_folder(Path("faces"), VIDEOS)
        assert index.main(["--root", str(root / "faces"), "--name", "folder", "--class-map", "abaw"]) == 0
        extracted()
        extracted("--maps", "blocks.4")
    return root


@pytest.fixture
def place(made, workplace):
    for name in ("data", "weights"):
        shutil.copytree(made / name, workplace / name)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["evaluate"] |= {"resamples": 20, "timelines": 0}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return workplace


def extracted(*more: str) -> None:
    own = ["--backbone", NAME, "--weights", "random", "--input-size", str(SIZE), "--device", "cpu", "--workers", "1"]
    assert extract.main([*own, *more]) == 0


def run(*flags: str, name: str = "x") -> Path:
    own = ["--cpu", "--window", "3", "--embedding-size", "8", "--batch-size", "16", "--no-reduce", "--loss", "supcon"]
    own += ["--select-split", "0.4", "--dropout", "0.3", "--name", name, *([] if "-r" in flags else ["-r", "1"])]
    own = [word for word in own if word != "--no-reduce" or "--reduce" not in flags]
    own += [] if {"--steps", "-e"} & {*flags} else ["-e", "2"]
    own += [] if "--unfreeze" in flags else ["--unfreeze", "1"]
    train.main([*own, *([] if "--evaluate" in flags else ["--no-evaluate"]), *flags])
    return Path("runs/manual", name)


def backbone_of(size: int = SIZE, name: str = NAME):
    return load_backbone(prepare(name, "random", Path("weights")), size)


def network(unfreeze: int | str = 1, **how) -> Network:
    return Network(backbone_of(), Path(f"weights/{NAME}.safetensors"), unfreeze, **how)


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def same_weights(a: Path, b: Path, tolerance: float) -> None:
    for file in ("backbone.safetensors", "best.safetensors", "last.safetensors"):  # the best may be an early epoch
        one, other = (load_file(folder / "seed_0" / file) for folder in (a, b))
        for name in one:
            if one[name].is_floating_point() and name not in ("centres",):
                assert relative(one[name].double(), other[name].double()) <= tolerance, (file, name)


# --- maps and pixels -------------------------------------------------------------------------------------------------


def test_twenty_steps_from_maps_give_the_weights_of_twenty_steps_from_pixels(place, monkeypatch):
    """Of float32 maps to 1e-4, of stored float16 ones to 5e-3, as a share of the largest value of a tensor."""
    states = {}
    monkeypatch.setattr(
        run_module, "_finish", lambda of, board: states.update({of.folder.parent.name: of.trainer.state()})
    )
    steps = ["--steps", "20", "--backbone-rate", "1", "-r", "1"]
    run(*steps, name="pixels")
    run(*steps, *MAPS, name="float16")

    def in_float32(path, frames, made_by, cut):
        table = read_frames(Path("data/frames.parquet"))
        return Float32Maps(inputs.open_pixels(frames, table, made_by, backbone_of().fitted(None, None, "as given")))

    monkeypatch.setattr(trunk, "open_maps", in_float32)
    run(*steps, *MAPS, name="float32")

    def furthest(name: str, other: dict[str, torch.Tensor]) -> float:
        of = [key for key in states[name] if key.startswith(("weights.", "trunk."))]
        return max(relative(states[name][key].double(), other[key].double()) for key in of)

    start = {f"trunk.{name}": value for name, value in load_file(f"weights/{NAME}.safetensors").items()}
    moved = "trunk.conv_head.weight"
    assert relative(states["pixels"][moved], start[moved]) > 0.02
    assert furthest("float32", states["pixels"]) <= 1e-4
    assert furthest("float16", states["pixels"]) <= 5e-3


class Float32Maps:
    """Maps at the last stage of the frames of ``pixels``, as a store would have them if it were one of float32."""

    def __init__(self, pixels: inputs.Pixels) -> None:
        self.pixels, self.half = pixels, halves(backbone_of(), "blocks.4")
        self.mean, self.std = (torch.tensor(getattr(pixels.backbone, k)).view(3, 1, 1) for k in ("mean", "std"))

    @torch.no_grad()
    def read(self, rows: np.ndarray, changes: None = None) -> torch.Tensor:
        images = (self.pixels.read(rows).float() / 255 - self.mean) / self.std
        return self.half.before(images)[0].view(len(rows), *self.half.map_shape)


def test_before_the_first_step_it_is_the_run_with_a_frozen_backbone(place):
    """Behind a projection too, from pixels and from maps."""
    reduce.main(["-n", "4"])
    flags = ["--reduce", "--normalise", "standardise", "-e", "1"]
    folders = [run(*flags, *more, name=f"x{n}") for n, more in enumerate((["--unfreeze", "null"], [], MAPS))]
    found = [json.loads((folder / "summary.json").read_text())["seeds"][0]["untrained"] for folder in folders]
    assert found == pytest.approx([found[0]] * 3, abs=0.02)
    facts = [load_facts(folder / "seed_0/best.safetensors", "an adapter", "") for folder in folders]
    assert [of["num_components"] for of in facts] == [4] * 3
    fronts = [load_file(folder / "seed_0/best.safetensors")["front.components"] for folder in folders]
    assert torch.equal(fronts[0], fronts[1])


def test_what_is_frozen_stays_and_what_is_trained_moves(place):
    folder = run("--learning-rate", "0.01") / "seed_0"
    start, after = load_file(f"weights/{NAME}.safetensors"), load_file(folder / "backbone.safetensors")
    assert start.keys() == after.keys()
    moved = {name for name in start if not torch.equal(start[name], after[name])}
    of_last = {name for name in start if name.startswith(("blocks.4.", "conv_head.", "bn2."))}
    assert moved <= of_last
    statistics = {name for name in of_last if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert moved == of_last - statistics


@pytest.mark.parametrize("unfreeze", [1, "all"])
def test_what_stands_behind_the_layer_that_the_features_are_of_is_not_trained(workplace, unfreeze):
    """Features of a grid of an inner stage: it is the last that is trained, at the full rate, and moves alone."""
    backbone = load_backbone(prepare(NAME, "random", Path("weights")), 64, ["blocks.2"], 2)
    of = Network(backbone, Path(f"weights/{NAME}.safetensors"), unfreeze, train_norms=True)
    trained = {name for name, p in of.model.named_parameters() if p.requires_grad}
    behind = ("blocks.3.", "blocks.4.", "conv_head.", "bn2.")
    assert not [name for name in trained if name.startswith(behind)]
    assert [name for name in trained if name.startswith("blocks.2.")]
    assert all(name.startswith("blocks.2.") for name in trained) == (unfreeze == 1)
    assert max(group["times"] for group in of.groups(0.05, 0.5, 0.75)) == 0.5
    images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    of.trained(images).square().sum().backward()
    assert {name for name, p in of.model.named_parameters() if p.grad is not None} == trained
    after = of.whole()
    moved = {name for name in after if not torch.equal(after[name], of.start[name])}  # the statistics of batch norms
    assert moved
    assert not [name for name in moved if name.startswith(behind)]


def test_batch_norms_learn_their_statistics_where_that_is_asked(place):
    folder = run("--batch-norm", "train", "--unfreeze", "all") / "seed_0"
    start, after = load_file(f"weights/{NAME}.safetensors"), load_file(folder / "backbone.safetensors")
    assert not torch.equal(start["bn1.running_mean"], after["bn1.running_mean"])
    assert not torch.equal(start["conv_stem.weight"], after["conv_stem.weight"])
    with pytest.raises(
        UserError, match=r"batch_norm train takes all \d+ frames of a batch at once, and slice_gb 1e-06"
    ):
        run("--batch-norm", "train", "--slice-gb", "1e-6", name="sliced")


def test_rates_fall_towards_the_input_as_timms_do(workplace):
    groups = network("all").groups(0.05, 0.5, 0.75)
    model = network("all").model
    assert len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    expected = timm.optim.param_groups_layer_decay(model.requires_grad_(True), 0.05, layer_decay=0.75)
    most = max(group["lr_scale"] for group in expected)
    assert [g["times"] for g in groups] == pytest.approx([0.5 * g["lr_scale"] / most for g in expected])
    assert [g["weight_decay"] for g in groups] == [g["weight_decay"] for g in expected]
    assert max(g["times"] for g in groups) == 0.5
    assert min(g["times"] for g in groups) < 0.2


# --- slices ----------------------------------------------------------------------------------------------------------


def gradients(of: Network, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss over all pairs of frames, as a contrastive one is."""
    of.model.zero_grad()
    features = torch.nn.functional.normalize(of.trained(images))
    torch.logsumexp(15 * (features @ features.T).fill_diagonal_(-1), dim=1).mean().backward()
    return {name: p.grad.clone() for name, p in of.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("unfreeze", [1, 2, "all"])
def test_slices_give_the_gradient_of_one_large_pass(workplace, unfreeze):
    whole, sliced = network(unfreeze), network(unfreeze)
    sliced._frame_bytes, sliced.slice_bytes = 1, 3
    seen, behind = [], sliced._behind
    sliced._behind = lambda at_cut: seen.append(len(at_cut)) or behind(at_cut)
    images = pixels(10)
    expected, got = gradients(whole, images), gradients(sliced, images)
    assert (seen[:4], sorted(seen[4:])) == ([3, 3, 3, 1], [1, 3, 3, 3])  # without a gradient, and again with it
    for name in expected:
        assert relative(got[name], expected[name]) <= 1e-5, name


def test_dropout_of_the_backbone_draws_the_same_in_both_passes(workplace):
    def once(with_checkpoints: bool) -> dict[str, torch.Tensor]:
        of = network("all")
        of.model.drop_rate = 0.5
        of._frame_bytes, of.slice_bytes = 1, 4
        if not with_checkpoints:
            of.trained = lambda images: (of._set_mode(True), torch.cat([of._whole_way(p) for p in images.split(4)]))[1]
        torch.manual_seed(3)
        return gradients(of, pixels(10))

    expected, got = once(False), once(True)
    for name in expected:
        assert relative(got[name], expected[name]) <= 1e-6, name


def test_a_slice_holds_what_its_bytes_allow(workplace):
    one, other = network("all", slice_bytes=1e8), network("all", slice_bytes=2e8)
    first = pixels(1)
    assert other.slice_frames(first) == pytest.approx(2 * one.slice_frames(first), abs=1)
    assert network("all", slice_bytes=1).slice_frames(first) == 1
    assert network(1, slice_bytes=1e8).slice_frames(first) > one.slice_frames(first)


# --- augmentation ----------------------------------------------------------------------------------------------------


class Recorded:
    def read(self, rows, changes=None):
        self.rows, self.changes = rows, changes
        return torch.zeros(len(rows))


def read_batch(seed: int, epoch: int, augment: bool = True):
    class Some:
        options, inputs = Options(1.0, 1.0, augment), Recorded()

    rows = np.array([[-1, 0, 1], [0, 1, 2], [0, 1, 2]])
    place, _ = LiveShard(np.arange(3), rows, Some(), seed)._read(rows, epoch, 0)
    return rows, place, Some.inputs


def test_all_frames_of_a_window_are_changed_alike_and_each_window_otherwise():
    rows, place, read = read_batch(0, 1)
    assert (place[0, 0], len(read.rows)) == (-1, 8)
    of_windows = []
    for window in range(3):
        at = place[window][place[window] >= 0]
        assert np.array_equal(read.rows[at], rows[window][rows[window] >= 0])
        assert len({read.changes[k] for k in at}) == 1
        of_windows.append(read.changes[at[0]])
    assert len({*of_windows}) == 3
    assert read_batch(0, 1)[2].changes == read.changes
    assert read_batch(0, 2)[2].changes != read.changes
    assert read_batch(1, 1)[2].changes != read.changes


def test_without_augmentation_a_frame_of_a_batch_is_read_once():
    rows, place, read = read_batch(0, 1, augment=False)
    assert read.rows.tolist() == [0, 1, 2]
    assert read.changes is None
    assert np.array_equal(np.where(place < 0, -1, read.rows[place]), rows)


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], [*DRAWN, "--optimizer", "sgd"]], ids=["weights", "random"])
def test_a_killed_run_goes_on_to_the_same_weights(place, monkeypatch, more):
    flags = ["--augment", "-e", "4", "--unfreeze", "all", *more]  # weights of 3 x 3 convolutions lie channels last
    whole = run(*flags, name="whole")
    monkeypatch.setattr(run_module, "STATE_EVERY", 0)
    epoch = Trainer.epoch

    def killed(self, number, *_):
        if not isinstance(number, int) or number == 2:
            raise KeyboardInterrupt
        return epoch(self, number)

    monkeypatch.setattr(Trainer, "epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*flags, name="cut")
    monkeypatch.setattr(Trainer, "epoch", epoch)
    with monkeypatch.context() as patch:  # and again when its best checkpoint knows the trained backbone already
        patch.setattr(run_module, "leave_examples", killed)
        with pytest.raises(KeyboardInterrupt):
            train.main(["--resume", "runs/manual/cut"])
    train.main(["--resume", "runs/manual/cut"])
    same_weights(Path("runs/manual/cut"), whole, 0)
    last = [load_facts(of / "seed_0/last.safetensors", "an adapter", "") for of in (whole, Path("runs/manual/cut"))]
    assert last[0]["steps"] == last[1]["steps"] > 4


def test_a_trained_backbone_is_evaluated_extracted_with_embedded_and_reported(place, monkeypatch):
    monkeypatch.setattr(train.children, "run", lambda command: evaluate.main(command[3:]))
    folder = run("--evaluate", "-r", "2", "--device", "cpu", "--learning-rate", "0.01", *MAPS)
    seed = folder / "seed_0"
    assert json.loads((seed / "time.json").read_text())["seconds"] > 0
    own = FeatureStore(seed / "features.zarr")
    facts = load_facts(seed / "backbone.safetensors", "weights", "")
    assert (facts["backbone"], facts["trained_from"]) == (NAME, "random")
    start = FeatureStore(Path("data/features.zarr"))
    assert own.made_by["weights_sha256"] != start.made_by["weights_sha256"]

    # extract.py with these weights makes the same store, and each other seed has another backbone.
    extracted("--weights", str(seed / "backbone.safetensors"), "-s", "again.zarr")
    again = FeatureStore(Path("again.zarr"))
    assert again.made_by == own.made_by
    a, b = (torch.from_numpy(s.read(s.keys["row"].to_numpy())).float() for s in (own, again))
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.9995
    assert FeatureStore(folder / "seed_1/features.zarr").made_by != own.made_by

    # The embedder takes the backbone of its seed.
    with pytest.raises(UserError, match=r"each seed of .* has trained a backbone of its own"):
        Embedder.load(folder, seed="all")
    embedder, other = Embedder.load(folder, seed=1), FeatureStore(folder / "seed_1/features.zarr")
    assert embedder.facts["made_by"] == other.made_by
    assert embedder.frozen.check(other.made_by["crop_source"]) == ""  # the file's backbone makes these features

    # It stands beside the frozen features and beside heads on features of the trained backbone.
    train.main(["--cpu", "--run", "frozen", "--select-split", "0.4", "--no-reduce"])
    found = [evaluation_files.read(place) for place in (folder, Path("runs/manual/frozen"))]
    check(found)
    _, lines = headline(found)
    assert any("The backbone is trained" in line and "x (" in line and "hours)" in line for line in lines)
    assert [("hours" in of.about) for of in found] == [True, False]


def test_a_run_is_evaluated_by_its_own_features_whatever_lies_in_data(place):
    folder = run()
    flags = ["--run", str(folder), "--resamples", "10", "--device", "cpu", "--timelines", "0"]
    evaluate.main([*flags, "-o", "one"])
    shutil.rmtree("data/features.zarr")
    evaluate.main([*flags, "-o", "two"])
    one, two = (json.loads(Path(name, "metrics.json").read_text()) for name in ("one", "two"))
    assert one == two


def test_features_of_many_frames_are_looked_at_from_the_disk_to_the_same_end(place, monkeypatch):
    kinds, stored = [], trunk.Trunk.stored

    def noted(self, folder):
        kinds.append(stored(self, folder))
        return kinds[-1]

    monkeypatch.setattr(trunk.Trunk, "stored", noted)
    folders = [run("-e", "1", name="few")]
    monkeypatch.setattr(trunk, "ROOM", 1000)
    folders += [run("-e", "1", name="many")]
    assert [type(kind) for kind in kinds] == [sources.InMemory, sources.FromDisk]
    few, many = (load_file(folder / "seed_0/best.safetensors") for folder in folders)
    assert few["centres"].isfinite().any()
    torch.testing.assert_close(few["centres"], many["centres"], equal_nan=True)


def test_identity_head_and_pairs_of_views_train_a_backbone(place):
    """SimSiam of two augmentations of a picture: no head is needed to learn, and no labels."""
    flags = ["--unfreeze", "all", "--loss", "simsiam", "--sampler", "views", "--augment", "--window", "1"]
    folder = run(*flags, "--pooling", "centre", "-e", "1") / "seed_0"
    start, after = load_file(f"weights/{NAME}.safetensors"), load_file(folder / "backbone.safetensors")
    assert not torch.equal(start["conv_stem.weight"], after["conv_stem.weight"])


# --- other starts ----------------------------------------------------------------------------------------------------


def curves(seed: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(seed)).Reload()
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_simsiam_from_drawn_weights_starts_a_classifier_with_another_head(place, monkeypatch):
    monkeypatch.setattr(train.children, "run", lambda command: evaluate.main(command[3:]))
    flags = [*DRAWN, "--loss", "simsiam", "--sampler", "views", "--augment", "--window", "1", "--pooling", "centre"]
    sgd = ["--optimizer", "sgd", "--weight-decay", "1e-4", "--keep", "last"]
    folder = run(*flags, *sgd, "-r", "2", "-e", "3", "--evaluate", name="sim")
    assert json.loads((folder / "metrics.json").read_text())["knn_accuracy"] > 0
    shown = curves(folder / "seed_0")
    for name in ("spread", "knn_accuracy", "probe_macro_f1"):
        assert len(shown[f"{name}/select"]) == len(shown[f"{name}/val"]) == 2, name  # before training and at its end
    backbones = [folder / f"seed_{seed}/backbone.safetensors" for seed in (0, 1)]
    facts = [load_facts(path, "weights", "") for path in backbones]
    assert [of["trained_from"] for of in facts] == ["random, seed 0", "random, seed 1"]
    one, other = map(load_file, backbones)
    assert relative(one["conv_stem.weight"], other["conv_stem.weight"]) > 0.5

    still = ["--learning-rate", "1e-30", "--weight-decay", "0", "-e", "1"]
    then = run("--backbone-start", str(folder), "--loss", "cross_entropy", "--embedding-size", "4", *still, "-r", "2",
               "--unfreeze", "1", name="then")  # fmt: skip
    for seed, start in enumerate((one, other)):
        after = load_file(then / f"seed_{seed}/backbone.safetensors")
        assert start.keys() == after.keys()
        assert all(torch.equal(start[name], after[name]) for name in start)
        facts = load_facts(then / f"seed_{seed}/best.safetensors", "an adapter", "")
        digest = hashlib.sha256(backbones[seed].read_bytes()).hexdigest()
        assert facts["backbone_start"] == {"run": folder.as_posix(), "sha256": digest}
        assert facts["made_by"]["trained_from"] == f"random, seed {seed}"


@pytest.mark.parametrize("unfreeze", ["1", "all"])
def test_before_the_first_step_it_is_a_head_on_the_features_of_its_start(place, unfreeze):
    """The front too, which the features of the store have nothing to do with."""
    first = run("--unfreeze", "all", "--batch-norm", "train", "--learning-rate", "0.01", name="first")
    flags = ["--normalise", "standardise", "-e", "1"]
    then = run(*flags, "--unfreeze", unfreeze, "--backbone-start", str(first), name="then")
    apart = ["-d", str(first / "seed_0/features.zarr"), "--labels", "data/labels.parquet"]
    prepare(NAME, str(first / "seed_0/backbone.safetensors"), Path("weights"))  # they say on what they were trained
    head = run(*flags, "--unfreeze", "null", *apart, name="head")
    found = [json.loads((folder / "summary.json").read_text())["seeds"][0]["untrained"] for folder in (then, head)]
    assert found[0] == pytest.approx(found[1], abs=0.02)
    fronts = [load_file(folder / "seed_0/best.safetensors") for folder in (then, head, first)]
    for name in ("front.shift", "front.scale"):
        assert relative(fronts[0][name], fronts[1][name]) < 2e-3, name
        assert relative(fronts[0][name], fronts[2][name]) > 0.1, name


def test_a_head_is_trained_on_a_backbone_that_started_from_an_earlier_one(place):
    """What the earlier one chose its best epoch on, as the later one and the head do, was not trained on."""
    first = run(name="first")
    then = run("--backbone-start", str(first), "-e", "1", name="then") / "seed_0"
    prepare(NAME, str(then / "backbone.safetensors"), Path("weights"))
    flags = ["--unfreeze", "null", "-d", str(then / "features.zarr"), "--labels", "data/labels.parquet"]
    assert (run(*flags, name="head") / "summary.json").is_file()
    with pytest.raises(UserError, match="has seen what is the selection part now: it was trained on"):
        run(*flags, "--split-seed", "1", name="other")


def test_drawn_weights_give_normalised_inputs_before_the_first_step(place, monkeypatch):
    """Their batch norms too have seen the training frames: in training and in evaluation they give the same."""
    seen = {}

    def stop(of, board):
        train_frames = of.data.frames.centres("train")
        seen["inputs"] = of.data.source.take(torch.from_numpy(train_frames))
        pixels = of.data.trunk.inputs.read(train_frames)
        seen["modes"] = of.data.trunk.network.features(pixels), of.data.trunk.network.trained(pixels).detach()
        seen["adapter"], seen["front"] = of.adapter, of.data.front
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_score_untrained", stop)
    with pytest.raises(KeyboardInterrupt):
        run(*DRAWN, "--normalise", "standardise", "--window", "1", "--pooling", "centre")
    assert seen["inputs"].mean(0).abs().max() < 1e-3
    alive = seen["inputs"].std(0, unbiased=False)
    assert 0.9 < alive.median() < 1.1
    evaluated, trained = seen["modes"]
    assert torch.nn.functional.cosine_similarity(evaluated, trained).min() > 0.95
    assert torch.equal(seen["adapter"].front.shift, seen["front"].shift)


def test_drawn_weights_are_a_function_of_the_seed_alone(workplace):
    of = network("all", train_norms=True)
    drawn = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        of.start_with_drawn(seed)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(of.whole())
    one, same, other = (tensors["blocks.1.0.conv_exp.weight"] for tensors in drawn)
    assert torch.equal(one, same)
    assert relative(one, other) > 0.5
    assert float(one.std()) == pytest.approx(float(other.std()), rel=0.1)  # both as timm draws them
    of.settle([pixels(16)])
    of.start_with_drawn(3)
    assert all(torch.equal(value, drawn[0][name]) for name, value in of.whole().items())


def test_a_backbone_to_start_with_fits_and_has_seen_nothing_that_is_held_out(place):
    first = run(name="first")
    with pytest.raises(UserError, match=r"backbone_start: .* has seen what is the selection part now"):
        run("--backbone-start", str(first), "--split-seed", "3", name="a")
    with pytest.raises(UserError, match="backbone_start: there is no trained run in nowhere: seed_"):
        run("--backbone-start", "nowhere", name="b")
    two = run("-r", "2", "-e", "1", name="two")
    with pytest.raises(UserError, match=r"has the seeds \[0, 1\], and seed 2 is asked for"):
        run("--backbone-start", str(two), "--seed", "2", name="c")
    path = first / "seed_0/backbone.safetensors"
    tensors, facts = load_tensors(path, "weights", "")
    save_tensors(path, {name: t for name, t in tensors.items() if name != "bn2.weight"}, facts | {"backbone": "other"})
    with pytest.raises(UserError, match=r"is a 'other', and the features are of a 'test_efficientnet' with tensors of"):
        run("--backbone-start", str(first), name="d")


def test_a_killed_run_of_an_older_version_or_whose_start_was_trained_again_is_refused(place, monkeypatch):
    first = run(name="first")
    monkeypatch.setattr(run_module, "STATE_EVERY", 0)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run("--backbone-start", str(first), "-e", "3", name="cut")
    shutil.copytree("runs/manual/cut", "runs/manual/old")
    state = Path("runs/manual/old/seed_0/state.safetensors")
    tensors, facts = load_tensors(state, "a state", "")
    save_tensors(state, {name: t for name, t in tensors.items() if name != "progress.steps"}, facts)
    with pytest.raises(UserError, match="old/seed_0 was begun by an older version of the code: delete it"):
        train.main(["--resume", "runs/manual/old"])
    shutil.rmtree(first)
    run("--learning-rate", "0.01", name="first")
    with pytest.raises(UserError, match=r"cut/seed_0 was begun with another backbone: backbone_start \{'run': .* then"):
        train.main(["--resume", "runs/manual/cut"])


def test_a_transformer_is_trained_from_pixels(workplace):
    of = Network(backbone_of(160, "test_vit"), Path("weights/test_vit.safetensors"), 1)
    assert of.map_shape is None
    trained = {name for name, p in of.model.named_parameters() if p.requires_grad}
    last = len(of.model.blocks) - 1
    assert {name.split(".")[0] for name in trained} <= {"blocks", "norm", "fc_norm"}
    assert {name.split(".")[1] for name in trained if name.startswith("blocks")} == {str(last)}
    of.trained(torch.zeros((2, 3, 160, 160), dtype=torch.uint8)).sum().backward()
    assert all(p.grad is None for name, p in of.model.named_parameters() if name not in trained)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--unfreeze", "9"], r"unfreeze must be from 1 to 5, the stages of test_efficientnet, or 'all', and is 9"),
        (["--unfreeze", "some"], "unfreeze must be a number of stages, or all, and is 'some'"),
        (["--unfreeze", "2", *MAPS], r"holds the input of blocks.4, and blocks.3 is the first stage that is trained"),
        (["--unfreeze", "all", *MAPS], "with unfreeze all there is none"),
        (["--maps", "data/features.zarr"], "holds features, not maps: make maps with 'python extract.py --maps"),
        (["--augment", *MAPS], "augment changes pixels, and maps are of the frames as they are"),
        (["--loss", "simsiam", "--sampler", "views"], "pairs two views, and with unfreeze augment makes them"),
        (["-e", "0"], "unfreeze trains the backbone, and with 0 epochs there is no training"),
        (["--unfreeze", "null", *MAPS], "maps is for stages that are trained: give unfreeze too"),
        (
            ["--unfreeze", "null", "--backbone-start", "random"],
            "backbone_start is for a backbone that is trained: give",
        ),
        (["--backbone-start", "random"], "'random' would leave random stages untrained: unfreeze must be all"),
        (["--backbone-start", "random", "--unfreeze", "all"], "batch norms that saw no data: give --batch-norm train"),
        (["--backbone-start", "random", *MAPS], "differs from the weights that made the maps: leave maps out"),
        (["--backbone-start", "x", "--reduce"], "other features than the projection was fitted on: give --no-reduce"),
        (["--backbone-start", "x", "--start", "y"], "gives other features than the head of start takes: leave one"),
        (["--combine", "gate"], "combine needs a backbone that stays frozen"),
        (["--refit", "all"], "refit would train a second backbone"),
    ],
)
def test_what_does_not_go_with_a_trained_backbone_is_refused_in_a_line(place, flags, line):
    with pytest.raises(UserError, match=line):
        run(*flags)


def test_weights_that_did_not_make_the_features_are_refused(place):
    tensors = load_file(f"weights/{NAME}.safetensors")
    tensors["conv_head.weight"] += 1
    save_file(tensors, "changed.safetensors")
    prepare(NAME, "changed.safetensors", Path("weights"))
    with pytest.raises(UserError, match=r"holds other weights \(file changed.safetensors\) than made data/features"):
        run()


def test_the_code_of_a_run_with_a_frozen_backbone_is_not_this_room():
    params = {"train": {"model": "mlp", "loss": "supcon", "sampler": "balanced"}}
    frozen, trained = (code.reached(ROOT, "train", code.chosen(params, run)) for run in ({}, {"unfreeze": 2}))
    added = {line.split()[1] for line in {*trained} - {*frozen}}
    assert {"pipeline/unfreeze/network.py", "pipeline/unfreeze/trunk.py", "pipeline/extraction/stages.py"} <= added
    assert not [line for line in frozen if "pipeline/unfreeze/" in line or "pipeline/extraction/" in line]
    assert [line for line in trained if line in frozen] == frozen


@pytest.mark.gpu
def test_on_a_gpu_a_network_gives_the_gradient_of_a_cpu(workplace):
    images = pixels(10)
    expected = gradients(network(2), images)
    on_gpu = network(2, device="cuda")
    on_gpu._frame_bytes, on_gpu.slice_bytes = 1, 4
    got = gradients(on_gpu, images)
    for name in expected:
        assert relative(got[name].cpu(), expected[name]) <= 1e-3, name
    assert not any(m.training for m in on_gpu.model.modules() if isinstance(m, _BatchNorm))
