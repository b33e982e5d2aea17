"""Training, evaluation and prediction on several stores side by side."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from test_stores import CPU, write

import train
from pipeline.adapter import sources
from pipeline.adapter.adapter import load_adapter, read_adapter
from pipeline.adapter.front import Front, Fronts
from pipeline.core.frame_set import frame_set
from pipeline.core.join import open_both
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore
from pipeline.core.stores import Stores
from pipeline.core.tables import ABAW_CLASSES, Labels, write_labels
from pipeline.evaluation import evaluate
from pipeline.extraction import reduce
from pipeline.submission import predict
from pipeline.training.feed import feed
from pipeline.training.modality import ModalityDropout

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = ABAW_CLASSES  # of which three are labelled
VIDEOS, FRAMES, D = 60, 12, 6
# Of each store: how loud the class is in its first columns, beside noise of deviation 1.
LOUD = {"faces": 1.3, "rest": 1.3, "noise": 0.0}


def rows(videos):
    """(video, frame, class) of videos that change their class in the middle."""
    return [(f"v{n:04}", f, (n + f // 7) % 3) for n in range(videos) for f in range(1, FRAMES + 1)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), VIDEOS)


def make(root, videos):
    """Stores 'faces', 'rest' and 'noise' of the same frames, but that 'rest' lacks a few, and their labels."""
    keys = pd.DataFrame(rows(videos), columns=["video", "frame", "label"])
    for seed, (name, loud) in enumerate(LOUD.items()):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal((len(keys), D)) + loud * np.eye(D)[keys["label"]]
        has = rng.random(len(keys)) > (0.1 if name == "rest" else -1)
        write(
            root / f"{name}.zarr",
            keys[has][["video", "frame"]],
            values[has].astype(np.float16),
            made_by(name),
            chunk_rows=256,
        )
    table = keys.assign(expression=[CLASSES[k] for k in keys["label"]], group=keys["video"]).drop(columns="label")
    table["expression_split"] = np.where(table["video"] >= f"v{videos * 2 // 3:04}", "val", "train")
    write_labels(root / "labels.parquet", Labels(table, CLASSES, "made"))
    return root


def made_by(name):
    return {"backbone": name, "source": "drawn", "input_size": 32, "outputs": []}


@pytest.fixture
def place(made, workplace):
    for path in made.iterdir():
        (workplace / path.name).symlink_to(path)
    return workplace


def run(*stores, flags=()):
    common = ["--cpu", "-e", "4", "-r", "1", "--window", "3", "--embedding-size", "16", "--batch-size", "64"]
    common += ["--learning-rate", "0.01", "--dropout", "0.2", "--no-evaluate", "-s", "runs", "--loss", "supcon"]
    name = [] if "--name" in flags else ["--name", "-".join(stores)]
    reduced = [] if "--reduce" in flags else ["--no-reduce"]
    train.main([*common, "-d", *(f"{s}.zarr" for s in stores), "--labels", "labels.parquet", *reduced, *name, *flags])
    return max(Path("runs").iterdir(), key=lambda p: p.stat().st_mtime_ns)


def auc(folder):
    """Area under the curve of the cosines of pairs of two validation videos, by scikit-learn; mean over seeds."""
    data = json.loads((folder / "config.json").read_text())["data"]
    store, labels = open_both(
        [Path(d) for d in data] if isinstance(data, list) else Path(data), Path("labels.parquet"), None
    )
    frames = frame_set(store, labels, test_split=None, select_split=0.15, split_seed=0)
    val, found = frames.centres("val")[:1200], []
    for path in sorted(folder.glob("seed_*/best.safetensors")):
        adapter = load_adapter(path, store.made_by)
        source = sources.load(store, frames.row, adapter.front, CPU)
        windows = adapter.window.over(frames.video, frames.frame).centred(val)
        z = torch.nn.functional.normalize(adapter.embed(source, torch.from_numpy(windows))).numpy()
        a, b = np.triu_indices(len(val), k=1)
        two = frames.group[val][a] != frames.group[val][b]
        same = frames.label[val][a] == frames.label[val][b]
        found.append(roc_auc_score(same[two], (z @ z.T)[a, b][two]))
    return float(np.mean(found))


@pytest.mark.slow
def test_a_store_of_noise_costs_next_to_nothing_and_a_complementary_one_gains(workplace):
    """On 8,000 training frames: the fewer they are, the more a head learns of noise."""
    make(workplace, 1000)
    flags = ["--loss", "cross_entropy", "-e", "6", "--batch-size", "256", "--look-every", "100"]
    alone, noisy, both = (auc(run(*stores, flags=flags)) for stores in
                          (["faces"], ["faces", "noise"], ["faces", "rest"]))  # fmt: skip
    assert 0.75 < alone < 0.9
    assert noisy > alone - 0.005
    assert both > alone + 0.02


def test_modality_dropout_hides_each_store_alike_and_never_all_that_a_window_has():
    torch.manual_seed(0)
    hides = ModalityDropout(0.5, [slice(0, 2), slice(2, 3), slice(3, 7)])
    hidden = hides.draw(20_000, None).float()
    assert not hidden.all(dim=1).any()
    expected = 0.5 - 0.5**3 / 3  # of the draws that hide all, a third shows this one
    assert torch.allclose(hidden.mean(dim=0), torch.full((3,), expected), atol=0.02)
    present = torch.tensor([[True, False, False], [False, True, True]]).repeat(1000, 1)
    hidden = hides.draw(2000, present)
    assert not hidden[0::2, 0].any()
    assert not hidden[1::2, 1:].all(dim=1).any()
    assert hidden[1::2, 1:].any(dim=1).any()


def test_a_window_has_the_same_frames_hidden_whether_its_frames_are_taken_once_or_each():
    rng = np.random.default_rng(0)
    values, present = rng.standard_normal((30, 5)).astype(np.float32) + 9, rng.random((30, 2)) > 0.3
    fronts = Fronts([Front(2, None), Front(3, None)])
    windows = rng.integers(-1, 30, (40, 4))
    windows[0] = windows[1] = [3, 4, 5, -1]  # frames that two windows share
    source = sources.InMemory(torch.from_numpy(values), fronts, torch.from_numpy(present))
    (shard,) = feed(source, windows, 30, 0)(0)
    hides, numbers = ModalityDropout(0.6, fronts.columns), np.arange(40)
    torch.manual_seed(3)
    features, valid = shard.batch(numbers, hides)
    torch.manual_seed(3)
    frames, place = shard.frames(numbers, hides)
    assert torch.equal(place >= 0, valid)
    assert torch.equal(torch.where(valid[..., None], frames[place.clamp(min=0)], 0.0), features)
    plain = source.gather(torch.from_numpy(windows))[0]
    shown = torch.stack([(features[..., of] == plain[..., of]).all(dim=2).all(dim=1) for of in fronts.columns], dim=1)
    assert 0 < int((~shown).sum()) < 80
    for number in range(40):  # a store is on all frames of a window or on none
        for of, columns in enumerate(fronts.columns):
            assert shown[number, of] or (features[number][:, columns] == 0).all()
        assert features[number].any() or not plain[number].any()


def test_the_front_of_a_store_is_that_which_it_has_alone(place):
    """Another store changes nothing in it, but that its columns are divided by one number."""
    folders = run("faces", flags=["-e", "0"]), run("faces", "rest", flags=["-e", "0"])
    alone, both = (load_file(folder / "seed_0/best.safetensors") for folder in folders)
    assert torch.equal(both["front.blocks.0.shift"], alone["front.shift"])
    assert len(both["front.blocks.0.scale"].unique()) == 1
    assert (alone["front.scale"] == 1).all()


def test_a_run_on_several_stores_is_trained_evaluated_and_predicted_with_rows_that_one_lacks(place, capsys):
    reduce.main(["-d", "faces.zarr", "-n", "4", "--labels", "labels.parquet"])
    flags = ["--reduce", "--loss", "cross_entropy", "--modality-dropout", "0.3", "--normalise", "centre"]
    with pytest.raises(UserError, match=r"no projection at rest\.projection\.safetensors.*reduce -d"):
        run("faces", "rest", flags=[*flags, "--name", "without"])
    reduce.main(["-d", "rest.zarr", "-n", "0"])
    folder = run("faces", "rest", flags=flags)
    said = capsys.readouterr().out
    lacks = VIDEOS * FRAMES - len(FeatureStore("rest.zarr").keys)
    frames = f"2 stores side by side (faces, rest), {VIDEOS * FRAMES} frames"
    assert f"{frames}: rest lacks {lacks}, which are masked there" in said
    adapter = read_adapter(folder)
    assert adapter.facts["stores"] == [
        {"name": "faces", "columns": [0, D], "num_components": 4},
        {"name": "rest", "columns": [D, 2 * D], "num_components": None},
    ]
    assert [of["made_by"] for of in adapter.facts["made_by"]["stores"]] == [made_by("faces"), made_by("rest")]
    assert adapter.front.num_inputs == 4 + D

    labels = ["--labels", "labels.parquet", "--resamples", "10", "--device", "cpu", "--timelines", "0"]
    evaluate.main(["--run", str(folder), "-o", "out", *labels])  # by the stores that its config.json names
    about = json.loads(Path("out/details.json").read_text())["about"]
    assert about["frames_scored"]["expression"] == VIDEOS // 3 * FRAMES  # also those that one store lacks
    with pytest.raises(UserError, match="the same in another order, which is faces, rest"):
        evaluate.main(["--run", str(folder), "-o", "turned", "-d", "rest.zarr", "faces.zarr", *labels])
    with pytest.raises(UserError, match=r"needs 2 stores \(faces, rest\), and here is one store"):
        evaluate.main(["--run", str(folder), "-o", "one", "-d", "faces.zarr", *labels])

    there = FeatureStore("rest.zarr").keys["video"].value_counts()
    video = there.index[(there < FRAMES) & (there.index.astype(str) >= "v0040")][0]
    Path("list.txt").write_text(f"{video},{FRAMES}\n")
    predict.main(["--run", str(folder), "--list", "list.txt", "--task", "expr", "-o", "sub", "--device", "cpu"])
    lines = Path("sub/predictions.txt").read_text().splitlines()[1:]
    store = Stores([FeatureStore("faces.zarr"), FeatureStore("rest.zarr")])
    of_video = store.keys[store.keys["video"] == video]
    x = store.read(of_video["row"].to_numpy()).astype(np.float32)
    absent = store.own_rows(of_video["row"].to_numpy(), 1) < 0
    assert absent.any()
    components = load_file(folder / "seed_0/best.safetensors")
    faces = (x[:, :D] - components["front.blocks.0.mean"].numpy()) @ components["front.blocks.0.components"].numpy().T
    each = []
    for number, values in enumerate((faces, x[:, D:])):
        shift, scale = (components[f"front.blocks.{number}.{name}"].numpy() for name in ("shift", "scale"))
        each.append((values - shift) / scale)
    each[1][absent] = 0
    inputs = torch.from_numpy(np.concatenate(each, axis=1))
    with torch.inference_mode():
        adapter.modules().eval()
        z = adapter.head(inputs[:, None], torch.ones(len(inputs), 1, dtype=torch.bool))[:, 0]
        windows = [z[max(i - 1, 0) : i + 2].mean(dim=0) for i in range(len(z))]
        classes = adapter.predict("classes", torch.stack(windows)).argmax(dim=1).tolist()
    assert [int(line.split(",")[1]) for line in lines] == classes
    with pytest.raises(UserError, match=r"--frames extracts into one store, and 2 are needed \(faces, rest\)"):
        predict.main(["--run", str(folder), "--list", "list.txt", "--task", "expr", "-o", "new", "--frames", "x"])


def test_from_disk_a_run_on_several_stores_trains_and_what_does_not_fit_together_is_refused(place):
    folder = run("faces", "rest", flags=["--memory-gb", "0.00006", "--modality-dropout", "0.3", "-e", "1"])
    assert json.loads((folder / "summary.json").read_text())["seeds"][0]["epochs"] == 1
    with pytest.raises(UserError, match=r"modality_dropout 0\.5 hides stores, and data names one alone"):
        run("faces", flags=["--modality-dropout", "0.5", "--name", "x"])
    with pytest.raises(UserError, match="2 stores need as many projections"):
        run("faces", "rest", flags=["--reduce", "--projection", "p.safetensors", "--name", "x"])


def test_a_killed_run_with_modality_dropout_goes_on_to_the_same_weights(place, monkeypatch):
    from pipeline.training import run as run_module

    flags = ["-e", "3", "--modality-dropout", "0.4", "--look-every", "100"]
    whole = run("faces", "rest", flags=flags)
    monkeypatch.setattr(run_module, "STATE_EVERY", 0.0)
    keep, stored = run_module._store_state, []

    def store_and_end(of):
        keep(of)
        stored.append(of.epoch)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_store_state", store_and_end)
    with pytest.raises(KeyboardInterrupt):
        run("faces", "rest", flags=[*flags, "--name", "cut"])
    monkeypatch.setattr(run_module, "_store_state", keep)
    train.main(["--resume", "runs/cut"])
    a, b = (load_file(Path(f) / "seed_0/last.safetensors") for f in (whole, "runs/cut"))
    assert stored == [1]
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
