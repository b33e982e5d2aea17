"""Small and odd data: no raw warning of a library reaches the user, whose names and numbers are not of our making."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import train
from pipeline.core.store import StoreWriter
from pipeline.core.tables import Labels, write_labels
from pipeline.evaluation import baselines, evaluate

pytestmark = pytest.mark.usefixtures("undrawn")

D = 6
MADE_BY = {"backbone": "tiny", "source": "random", "input_size": 32, "outputs": []}
COMMON = ["--data", "features.zarr", "--labels", "labels.parquet"]
TRAIN = ["--cpu", "-e", "2", "--window", "3", "--embedding-size", "4", "--batch-size", "16", "--no-reduce", "-r", "1"]


def made(root, num_videos=14, num_frames=8, **changes):
    """Videos of two classes in turn; ``changes`` are columns of the label table by a function of video and frame."""
    rng = np.random.default_rng(0)
    keys = [(f"v{v}", f) for v in range(num_videos) for f in range(1, num_frames + 1)]
    table = pd.DataFrame(keys, columns=["video", "frame"])
    number = table["video"].str[1:].astype(int)
    features = rng.standard_normal((len(table), D)) + 2 * np.eye(D)[number % 2]
    if constant := changes.pop("constant", False):
        features[:] = constant
    with StoreWriter(root / "features.zarr", MADE_BY, {"original": D}) as writer:
        writer.write(table.assign(size=1), {"original": features.astype(np.float16)})
    table["group"] = table["video"]
    table["expression"] = np.where(number % 2, "Neutral", "Happiness")
    split = np.where(number < 0.6 * num_videos, "train", "val")
    table = table.assign(valence=rng.uniform(-1, 1, len(table)), arousal=rng.uniform(-1, 1, len(table)))
    table = table.assign(au1=(number + table["frame"]) % 3 == 0, au2=table["frame"] > 4)
    for name in ("expression", "va", "au"):
        table[f"{name}_split"] = split
    for name, value in changes.items():
        table[name] = [value(v, f) for v, f in zip(number, table["frame"], strict=True)]
    table = table.astype({"valence": "float32", "arousal": "float32", "au1": "Int8", "au2": "Int8"})
    write_labels(root / "labels.parquet", Labels(table, ["Neutral", "Happiness", "Fear"], "small"))


CASES = {
    "as_it_is": ({}, {}),
    "one_class": ({"expression": lambda v, f: "Neutral"}, {"--sampler": "uniform"}),
    "one_class_in_train": ({"expression": lambda v, f: "Neutral" if v < 6 or f > 2 else "Fear"}, {}),
    "a_rare_class": ({"expression": lambda v, f: "Fear" if (v, f) == (2, 3) else ["Neutral", "Happiness"][v % 2]}, {}),
    "one_validation_video": ({"num_videos": 4}, {"--select-split": "0.5"}),
    "a_frame_each": ({"num_frames": 1, "num_videos": 40}, {}),
    "equal_features": ({"constant": 1.0}, {}),
    "constant_valence": ({"valence": lambda v, f: 0.5, "arousal": lambda v, f: 0.0}, {}),
    "no_unit_ever": ({"au1": lambda v, f: 0, "au2": lambda v, f: 0}, {}),
    "a_label_here_and_there": ({"expression": lambda v, f: ["Neutral", "Fear"][v % 2] if f == 4 else None}, {}),
}


ALL = "{cross_entropy: 1, ccc: 1, bce: 1}"


@pytest.mark.parametrize(("case", "loss"), [*((case, ALL) for case in CASES), ("a_frame_each", "supcon")])
def test_no_warning_of_a_library_reaches_the_user(workplace, case, loss):
    changes, flags = CASES[case]
    made(workplace, **changes)
    more = [word for flag in flags.items() for word in flag]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Deprecations are news for us, and no user sees them by default.
        warnings.simplefilter("ignore", DeprecationWarning)
        train.main([*COMMON, *TRAIN, "--output", "runs", "--name", "tried", "--no-evaluate", "--loss", loss, *more])
        evaluate.main([*COMMON, "--device", "cpu", "--resamples", "20", "--timelines", "1", "--run", "runs/tried"])
    if case == "a_frame_each" and loss == "supcon":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train.main([*COMMON, *TRAIN, "--output", "runs", "--name", "alone", "--no-evaluate", "--window", "1",
                        "--pooling", "centre", "--loss", "cross_entropy"])  # fmt: skip
            baselines.main([*COMMON, "--device", "cpu", "--resamples", "20", "--run", "runs/alone", "-o", "baselines"])
    for path in Path().rglob("*.json"):
        json.loads(path.read_text("utf-8"), parse_constant=lambda name, path=path: pytest.fail(f"{name} in {path}"))
