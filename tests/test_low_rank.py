"""Low-rank updates of a transformer's attention: what is trained, how it is merged, and what comes of it."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT, draw_folder
from safetensors.torch import load_file
from test_unfreeze import VIDEOS, gradients, relative, same_weights
from torch import nn

import extract
import train
from pipeline import code
from pipeline.core.files import load_facts
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.datasets import index
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.weights.prepare import prepare
from pipeline.training import run as run_module
from pipeline.training.loop import Trainer
from pipeline.unfreeze.low_rank import add_updates, update_of
from pipeline.unfreeze.network import Network

NAME, SIZE, RANK, WIDTH, BLOCKS = "test_vit", 160, 4, 64, 6
UPDATED = {f"blocks.{n}.attn.{part}.weight" for n in range(BLOCKS) for part in ("qkv", "proj")}
# Small ones of families that name or read the weights of attention in different ways.
FAMILIES = {
    "vit_small_patch16_dinov3": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4},
    "vit_base_patch16_siglip_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4},
    "hiera_tiny_224": {"img_size": (64, 64), "stages": (1, 1, 1, 1)},
    "eva02_base_patch16_clip_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4},  # q_proj, k_proj, ...
    "beit_base_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4},  # reads the weight itself
    "cait_xxs24_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4},  # mixes heads by layers of 4 x 4
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        draw_folder(Path("faces"), {name: 2 for name in VIDEOS})
        assert index.main(["--root", str(root / "faces"), "--name", "folder", "--class-map", "abaw"]) == 0
        extracted()
    return root


@pytest.fixture
def place(made, workplace):
    for name in ("data", "weights"):
        shutil.copytree(made / name, workplace / name)
    return workplace


def extracted(*more: str) -> None:
    own = ["--backbone", NAME, "--weights", "random", "--input-size", str(SIZE), "--device", "cpu", "--workers", "1"]
    assert extract.main([*own, *more]) == 0


def run(*flags: str, name: str = "x") -> Path:
    own = ["--cpu", "--lora", str(RANK), "--window", "1", "--embedding-size", "8", "--batch-size", "8", "--no-reduce"]
    own += ["--loss", "supcon", "--select-split", "0.4", "-r", "1", "-e", "2", "--backbone-rate", "1", "--pooling"]
    train.main([*own, "centre", "--name", name, "--no-evaluate", *flags])
    return Path("runs/manual", name)


def network(lora: int = RANK, **how) -> Network:
    backbone = load_backbone(prepare(NAME, "random", Path("weights")), SIZE)
    made = Network(backbone, Path(f"weights/{NAME}.safetensors"), None, lora=lora, **how)
    torch.manual_seed(0)
    made.restart()
    return made


def moved(of: Network) -> Network:
    """With updates that add something."""
    for layer in of._updated.values():
        nn.init.normal_(update_of(layer).up, std=0.05)
    return of


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("name", FAMILIES)
def test_updates_start_at_nothing_all_learn_and_merge_into_a_plain_model(name):
    model, plain = (timm.create_model(name, num_classes=0, **FAMILIES[name]).eval() for _ in range(2))
    size = FAMILIES[name]["img_size"]
    images = torch.randn(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    for key, parameter in model.named_parameters():
        if "gamma" in key:  # of layer scale, which begins near zero
            nn.init.ones_(parameter)
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        before = model(images)
    layers = add_updates(model, name, 3)
    for layer in layers.values():
        update_of(layer).restart()
    updated = {key for key in start if key.split(".")[-1] == "weight" and key.removesuffix(".weight") in layers}
    assert updated == {
        key for key, value in start.items()
        if value.ndim == 2 and min(value.shape) > 4 and any("attn" in part for part in key.split(".")[:-2])
        and key.split(".")[-2] in ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj", "proj")
    }  # fmt: skip
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == sum(3 * sum(start[key].shape) for key in updated)
    with torch.no_grad():
        assert relative(model(images), before) <= 1e-6
    for layer in layers.values():
        nn.init.normal_(update_of(layer).up, std=0.1)
    after = model(images)
    after.square().sum().backward()
    assert [key for key, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
    after = after.detach()
    assert relative(before, after) > 1e-3
    plain.load_state_dict(start | {f"{key}.weight": layer.weight.detach() for key, layer in layers.items()})
    with torch.no_grad():
        assert relative(plain(images), after) <= 1e-5


def test_only_updates_are_trained_and_the_file_is_a_plain_backbone(place):
    folder = run("--learning-rate", "0.01") / "seed_0"
    start, after = load_file(f"weights/{NAME}.safetensors"), load_file(folder / "backbone.safetensors")
    assert start.keys() == after.keys()
    assert {name for name in start if not torch.equal(start[name], after[name])} == UPDATED
    for name in UPDATED:
        values = torch.linalg.svdvals((after[name] - start[name]).double())
        assert values[RANK - 1] > 1e-3 * values[0]
        assert values[RANK] < 1e-4 * values[0]
    # The store of the run is what extract.py makes by that file, beside which the first weights stay.
    extracted("--weights", str(folder / "backbone.safetensors"), "-s", "again.zarr")
    own, again = FeatureStore(folder / "features.zarr"), FeatureStore(Path("again.zarr"))
    assert own.made_by == again.made_by
    a, b = (torch.from_numpy(s.read(s.keys["row"].to_numpy())).float() for s in (own, again))
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.9995
    assert load_facts(Path(f"weights/{NAME}.safetensors"), "weights", "")["source"] == "random"


def test_before_the_first_step_it_is_the_run_with_a_frozen_backbone(place):
    folders = [run("-e", "1", *more, name=f"x{n}") for n, more in enumerate((["--lora", "null"], []))]
    found = [json.loads((folder / "summary.json").read_text())["seeds"][0]["untrained"] for folder in folders]
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_a_killed_run_goes_on_to_the_same_weights_and_its_state_has_the_updates_alone(place, monkeypatch):
    flags = ["-e", "4", "--augment"]
    whole = run(*flags, name="whole")
    monkeypatch.setattr(run_module, "STATE_EVERY", 0)
    epoch = Trainer.epoch

    def killed(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number)

    monkeypatch.setattr(Trainer, "epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*flags, name="cut")
    monkeypatch.setattr(Trainer, "epoch", epoch)
    state = load_file("runs/manual/cut/seed_0/state.safetensors")
    of_trunk = {name: value for name, value in state.items() if name.startswith("trunk.")}
    assert sum(value.numel() for value in of_trunk.values()) == RANK * BLOCKS * (4 * WIDTH + 2 * WIDTH)
    train.main(["--resume", "runs/manual/cut"])
    same_weights(Path("runs/manual/cut"), whole, 0)


def test_each_seed_draws_its_own_updates_from_the_same_weights(place):
    both = run("-r", "2", name="both")
    again = run("--seed", "1", name="again")
    first, second = (load_file(both / f"seed_{n}/backbone.safetensors") for n in (0, 1))
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], second["blocks.0.attn.qkv.weight"])
    alone = load_file(again / "seed_1/backbone.safetensors")
    assert all(torch.equal(second[name], alone[name]) for name in second)


def test_merged_weights_give_the_features_of_unmerged_ones(workplace):
    of, images = moved(network()), pixels(4)
    expected = of.features(images)
    other = network()
    other.load_whole(of.whole())
    assert relative(other.features(images), expected) <= 1e-5
    assert relative(expected, network().features(images)) > 1e-3
    other.restart()
    assert torch.equal(other.features(images), network().features(images))


def test_slices_give_the_gradient_of_one_large_pass(workplace):
    whole, sliced = moved(network()), network()
    sliced.load_state_dict(whole.state_dict())
    sliced._frame_bytes, sliced.slice_bytes = 1, 3
    expected, got = gradients(whole, pixels(7)), gradients(sliced, pixels(7))
    assert len(expected) == 4 * BLOCKS
    for name in expected:
        assert relative(got[name], expected[name]) <= 1e-5, name


def test_a_slice_counts_no_updated_weight_as_a_frames(workplace):
    """What a frame keeps for its gradient beside weights is what it keeps where all is trained, as nothing is less."""
    of, images = network(), pixels(1)
    one, two = of._kept(images), of._kept(pixels(2))
    assert two == pytest.approx(2 * one, rel=0.02)


def test_rates_fall_towards_the_input(workplace):
    groups = network().groups(0.05, 0.5, 0.75)
    times = sorted({group["times"] for group in groups})
    assert times == pytest.approx([0.5 * 0.75**n for n in reversed(range(BLOCKS))])
    assert sum(len(group["params"]) for group in groups) == 4 * BLOCKS


def test_updates_may_start_from_the_backbone_of_an_earlier_run_whose_own_weights_then_stay(place):
    earlier = load_file(run("--unfreeze", "all", "--lora", "null", name="all") / "seed_0/backbone.safetensors")
    folder = run("--backbone-start", "runs/manual/all", "--learning-rate", "0.01") / "seed_0"
    after = load_file(folder / "backbone.safetensors")
    assert {name for name in earlier if not torch.equal(earlier[name], after[name])} == UPDATED
    first = load_file(f"weights/{NAME}.safetensors")
    assert sum(not torch.equal(first[name], after[name]) for name in first) > len(UPDATED)
    with pytest.raises(UserError, match="'random' would leave random stages untrained"):
        run("--backbone-start", "random", name="drawn")


def test_layers_behind_the_features_get_no_update(workplace):
    weights = prepare(NAME, "random", Path("weights"))
    made = Network(load_backbone(weights, SIZE, ["blocks.3"]), weights, None, lora=RANK)
    assert {name.split(".")[1] for name in made._updated} == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--unfreeze", "1"], "unfreeze trains weights, and lora updates of weights that stay: give one of the two"),
        (["--maps", "data/x.maps.zarr"], "maps is for stages that are trained: give unfreeze instead of lora"),
        (["--batch-norm", "train"], "batch_norm is for stages that are trained: give unfreeze instead of lora"),
        (["--lora", "64"], "lora must be below 64, the least side of a weight of test_vit, and is 64"),
        (["-e", "0"], "lora trains the backbone, and with 0 epochs there is no training"),
        (["--combine", "gate"], "leave combine or lora out"),
    ],
)
def test_what_does_not_go_with_updates_is_refused_in_a_line(place, flags, line):
    with pytest.raises(UserError, match=line):
        run(*flags)


def test_a_backbone_without_attention_is_refused(workplace):
    backbone = load_backbone(prepare("test_efficientnet", "random", Path("weights")), 32)
    with pytest.raises(UserError, match="lora 4: the backbone 'test_efficientnet' has no attention of linear layers"):
        Network(backbone, Path("weights/test_efficientnet.safetensors"), None, lora=4)


def test_the_code_of_such_a_run_is_that_of_a_trained_backbone():
    params = {"train": {"model": "mlp", "loss": "supcon", "sampler": "balanced"}}
    runs, known = ({"unfreeze": 2}, {"lora": 8}, {}), {}
    found = [code.reached(ROOT, "train", code.chosen(params, run), known) for run in runs]
    assert found[0] == found[1]
    assert any("pipeline/unfreeze/low_rank.py" in line for line in found[0])
    assert not any("pipeline/unfreeze/" in line for line in found[2])
