"""A run as train.py leaves it, with random weights, around the smallest of timm's models."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.adapter.adapter import build_adapter, save_adapter
from pipeline.core.tables import Frames
from pipeline.extraction import loop
from pipeline.extraction.backbones import load_backbone
from pipeline.extraction.weights.prepare import prepare

SIZE = 32  # pixels
CLASSES = ["Neutral", "Anger", "Happiness"]


def make_run(folder: Path, seeds: int = 1, first: int = 0, crop_source: str = "cropped_aligned", **facts: Any) -> Path:
    """The run ``folder``, with its backbone in ``weights`` beside it. ``facts`` are other ones of the adapter."""
    weights = prepare("test_efficientnet", "random", folder.parent / "weights")
    backbone = load_backbone(weights, SIZE)
    about = {
        "model": "tcn", "model_options": {}, "num_features": backbone.num_features, "num_components": None,
        "embedding_size": 8, "dropout": 0.0, "predictors": {}, "temperature": 15.0, "pooling": "mean",
        "window": {"frames": 5, "step": None, "edge": "mask", "spacing": 1}, "classes": CLASSES, "au_names": [],
        "weights": f"../../weights/{weights.name}",
        "made_by": loop.made_by(backbone, Frames(pd.DataFrame(), Path(), "", crop_source), "float32", ["original"]),
    } | facts  # fmt: skip
    for seed in range(first, first + seeds):
        torch.manual_seed(seed)
        adapter = build_adapter(about | {"seed": seed})
        adapter.centres = torch.nn.functional.normalize(torch.randn(len(about["classes"]), 8))
        save_adapter(folder / f"seed_{seed}" / "best.safetensors", adapter)
    results = [{"seed": seed, "select": float(seed)} for seed in range(first, first + seeds)]
    (folder / "summary.json").write_text(json.dumps({"seeds": results}))
    return folder
