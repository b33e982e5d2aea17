import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import adapter_of
from sklearn.metrics import f1_score
from test_evaluate import (
    CLASSES,
    FACTS,
    FEATURES,
    MADE_BY,
    SECTION,
    evaluated,
    f1,
    params,
    place,  # noqa: F401 - a fixture
    probabilities_of_seed,
    run,
    table,
)

from pipeline.core.params import UserError
from pipeline.core.store import StoreWriter
from pipeline.core.tables import Labels, write_labels
from pipeline.evaluation import baselines

pytestmark = pytest.mark.usefixtures("undrawn")

SINGLE = {"window": {"frames": 1}, "pooling": "centre"}


@pytest.fixture
def made(place):  # noqa: F811
    def made(*more, widths=(5,), kind="box", **section):
        asked = {"run": "runs/tried", "smoothings": {kind: list(widths)}}
        content = {"evaluate": SECTION | section, "baselines": asked}
        (place / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        baselines.main(["-d", "features.zarr", "--labels", "labels.parquet", "-o", "out", *more])
        folders = {path.parent.name: path.parent for path in place.glob("out/*/details.json")}
        return {name: json.loads((folder / "metrics.json").read_text("utf-8")) for name, folder in folders.items()}

    return made


@pytest.mark.parametrize(("kind", "pooling"), [("box", "mean"), ("hann", "hann")])
def test_embeddings_of_single_frames_are_averaged_over_the_width(place, made, kind, pooling):  # noqa: F811
    """The embedding of the run with a window of 5 and this pooling; that of a mean test_evaluate computes by hand."""
    run(place, seeds=[0], **SINGLE)
    found = made(window_stride=2, kind=kind)[f"tried_{kind}_5"]  # is centred all the same
    run(place, seeds=[0], window={"frames": 5, "step": 1}, pooling=pooling)
    params(SECTION)
    windowed = evaluated(place)[0]
    for name in ("auc_same_different", "steadiness", "knn_macro_f1", "recall_at_1"):
        assert found[name] == pytest.approx(windowed[name], abs=1e-5)


def test_probabilities_of_single_frames_are_averaged_over_the_box(place, made):  # noqa: F811
    run(place, seeds=[0], **SINGLE)
    found = made()["tried_box_5"]
    frames, _ = probabilities_of_seed(0)
    torch.manual_seed(0)
    adapter = adapter_of(FACTS | SINGLE)
    adapter.front.fit([FEATURES], "standardise")
    val = (table()["expression_split"] == "val").to_numpy()
    x = adapter.front(torch.from_numpy(FEATURES[val]))[:, None]
    with torch.inference_mode():
        z = adapter.head.eval()(x, torch.ones(len(x), 1, dtype=torch.bool))[:, 0]
        probability = adapter.predict("classes", z).softmax(1).numpy()
    mean = pd.DataFrame(probability).groupby(frames["video"]).rolling(5, center=True, min_periods=1).mean().to_numpy()
    has = frames["expression"].notna().to_numpy()
    truth = frames["expression"][has].map(CLASSES.index).to_numpy()
    assert found["macro_f1"] == pytest.approx(f1(truth, mean[has].argmax(1)), abs=1e-9)
    assert "macro_f1_smoothed" not in found  # it is smoothed already


def test_a_box_in_seconds_is_wider_in_frames_where_a_video_has_more_a_second(place, made):  # noqa: F811
    """Embeddings and predictions of each video are those of the box of as many frames."""
    run(place, seeds=[0], **SINGLE)
    frames = table()
    rates = {v: 30 if n % 2 else 10 for n, v in enumerate(frames["video"].unique())}
    pd.DataFrame(rates.items(), columns=["video", "fps"]).to_parquet(place / "fps.parquet")
    made(widths=[3, 7, "0.2s"], fps="fps.parquet")
    of = {
        name: pd.read_csv(place / f"out/tried_box_{name}/per_video.csv").set_index("video") for name in (3, 7, "0.2s")
    }
    for video in ("v08", "v10"):
        assert rates[video] == 10
        columns = ["accuracy", "cosine_neighbours", "flips_per_100"]
        assert of["0.2s"].loc[video, columns].tolist() == pytest.approx(of[3].loc[video, columns].tolist(), abs=1e-6)
    assert of["0.2s"].loc["v09", "cosine_neighbours"] == pytest.approx(of[7].loc["v09", "cosine_neighbours"], abs=1e-6)
    assert of[3].loc["v09", "cosine_neighbours"] != pytest.approx(of[7].loc["v09", "cosine_neighbours"], abs=1e-6)


def test_there_is_a_baseline_for_each_width_and_none_stays_of_another(place, made):  # noqa: F811
    run(place, seeds=[0], **SINGLE)
    assert set(made(widths=[3, 5])) == {"tried_box_3", "tried_box_5"}
    assert set(made(widths=[7])) == {"tried_box_7"}
    about = json.loads((place / "out/tried_box_7/details.json").read_text("utf-8"))["about"]
    assert (about["baseline"], about["run"]) == (True, "tried_box_7")
    assert about["smoothed_before"] == {"kind": "box", "width": 7}


def test_the_backbones_own_logits_are_a_baseline_where_it_has_classes(place, made, capsys):  # noqa: F811
    """Its outputs by name: happy is Happiness, contempt is nobody's, and Fear has no output."""
    outputs = ["sad", "contempt", "happy", "NEUTRAL"]
    logits = np.random.default_rng(7).standard_normal((len(table()), 4)).astype(np.float16) * 3
    logits[:, 1] += 9  # would win everywhere
    keys, made_by = table()[["video", "frame"]].assign(size=1), MADE_BY | {"outputs": outputs}
    with StoreWriter(place / "own.zarr", made_by, {"original": 4, "logits": 4}, chunk_rows=256) as writer:
        writer.write(keys, {"original": FEATURES, "logits": logits})
    run(place, seeds=[0], made_by=made_by, **SINGLE)
    found = made("-d", "own.zarr")["backbone"]
    frames = table()
    has = ((frames["expression_split"] == "val") & frames["expression"].notna()).to_numpy()
    said = np.array([2, 1, 0])[logits[has][:, [0, 2, 3]].argmax(1)]
    assert found["macro_f1"] == pytest.approx(f1(frames["expression"][has].map(CLASSES.index), said))
    assert "macro_f1_smoothed" in found
    assert "auc_same_different" not in found  # it has no embeddings of its own
    assert "is no baseline" not in capsys.readouterr().out


def with_va_and_aus(place):  # noqa: F811
    frames, rng = table(), np.random.default_rng(5)
    frames["valence"], frames["arousal"] = rng.uniform(-1, 1, (2, len(frames))).astype(np.float32)
    frames.loc[::4, "arousal"] = np.nan
    for au in ("au1", "au4", "au12"):
        frames[au] = pd.array(rng.integers(0, 2, len(frames)), dtype="Int8")
    write_labels(place / "labels.parquet", Labels(frames, CLASSES, "by hand"))
    return frames


@pytest.mark.parametrize(
    "outputs", [["Happiness", "Sadness", "valence", "arousal", "AU12", "au1"], ["arousal", "valence"]]
)
def test_the_backbones_own_valence_arousal_and_action_units_are_scored_where_there_are_labels(place, made, outputs):  # noqa: F811
    """Though the run, whose validation part it is, learned expressions alone; by sklearn and the formula."""
    frames = with_va_and_aus(place)
    logits = np.random.default_rng(7).standard_normal((len(frames), len(outputs))).astype(np.float16)
    keys, made_by = frames[["video", "frame"]].assign(size=1), MADE_BY | {"outputs": outputs}
    with StoreWriter(place / "own.zarr", made_by, {"original": 4, "logits": len(outputs)}, chunk_rows=256) as writer:
        writer.write(keys, {"original": FEATURES, "logits": logits})
    run(place, seeds=[0], made_by=made_by, **SINGLE)
    metrics = made("-d", "own.zarr", width=5)
    found, said = metrics["backbone"], pd.DataFrame(logits.astype(float), columns=outputs)
    # Frames of the part that the run is validated on: those with an expression.
    part = ((frames["expression_split"] == "val") & frames["expression"].notna()).to_numpy()
    known = part & frames["arousal"].notna().to_numpy()
    mean = said.groupby(frames["video"]).rolling(5, center=True, min_periods=1).mean().to_numpy()
    for values, suffix in ((said.to_numpy(), ""), (mean, "_smoothed")):
        for name in ("valence", "arousal"):
            x, y = frames[name].to_numpy()[known], values[known, outputs.index(name)]
            ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
            assert found[f"ccc_{name}{suffix}"] == pytest.approx(ccc, abs=1e-6)
    about = json.loads((place / "out/backbone/details.json").read_text("utf-8"))["about"]
    scored = {"expression": int(part.sum()), "valence and arousal": int(known.sum())}
    if "au1" in outputs:
        units = [
            f1_score(frames["au1"][part], logits[part, 5] >= 0),
            0,
            f1_score(frames["au12"][part], logits[part, 4] >= 0),
        ]
        assert found["au_f1"] == pytest.approx(np.mean(units))
        scored |= {"action unit": int(part.sum())}
        assert found["macro_f1"] > 0
    else:
        assert not {"au_f1", "macro_f1"} & set(found)
    assert about["frames_scored"] == scored
    assert "ccc" not in metrics["tried_box_5"]


def test_a_backbone_without_classes_is_said_to_be_none(place, made, capsys):  # noqa: F811
    run(place, seeds=[0], **SINGLE)
    assert set(made()) == {"tried_box_5"}
    assert "the backbone tiny predicts nothing that has labels here" in capsys.readouterr().out


def test_a_run_of_windows_is_refused(place, made):  # noqa: F811
    run(place, seeds=[0])
    with pytest.raises(UserError, match="run must have windows of one frame, and runs/tried has window 5"):
        made()


@pytest.mark.parametrize("widths", [[4], [5, 0], [-1]])
def test_a_box_has_a_middle(place, made, widths):  # noqa: F811
    with pytest.raises(UserError, match="widths of box must be odd and at least 1"):
        made(widths=widths)


@pytest.mark.parametrize(
    ("smoothings", "message"),
    [
        ({"median": [5]}, r"baselines: smoothing 'median' is not one of \['box', 'hann'\]"),
        ({"box": 5}, "smoothings need a list of widths for box, and have 5"),
    ],
)
def test_what_is_no_smoothing_of_embeddings_is_refused(smoothings, message):
    with pytest.raises(UserError, match=message):
        baselines.BaselinesConfig(smoothings=smoothings)


def test_what_smoothing_cannot_change_is_no_baseline_and_that_is_said(place, made, capsys):  # noqa: F811
    """Every 10th frame of the table, each a video of its own: a box over it is the frame."""
    run(place, seeds=[0], **SINGLE)
    assert set(made(widths=[1, 3])) == {"tried_box_3"}
    assert (
        "left out, since no frame has another one of its video within that width: tried_box_1"
        in capsys.readouterr().out
    )
    alone = table()
    alone["video"] = alone["video"] + "_" + alone["frame"].astype(str)
    keys = alone[["video", "frame"]].assign(size=1)
    with StoreWriter(place / "stills.zarr", MADE_BY, {"original": 4}, chunk_rows=256) as writer:
        writer.write(keys, {"original": FEATURES})
    write_labels(place / "stills.parquet", Labels(alone, CLASSES, "by hand"))
    assert made("-d", "stills.zarr", "--labels", "stills.parquet", widths=[3, 101]) == {}
    assert "within that width: tried_box_3, tried_box_101" in capsys.readouterr().out
    assert (place / "out").is_dir()
    found = evaluated(place, "-d", "stills.zarr", "--labels", "stills.parquet")[0]
    assert found["macro_f1"] > 0
    assert not [name for name in found if name.endswith("_smoothed")]
    biased = evaluated(place, "-d", "stills.zarr", "--labels", "stills.parquet", "--class-bias")[0]
    assert "macro_f1_smoothed" in biased  # of which the bias is the change
