"""What a run whose backbone was trained too leaves beside each checkpoint, and who reads it from there."""

from pathlib import Path

from pipeline.core.files import read_json
from pipeline.core.store import FeatureStore

FEATURES = "features.zarr"  # of the trained backbone: what its adapter takes in
BACKBONE = "backbone.safetensors"
TIME = "time.json"


def own_features(checkpoint: Path) -> Path | None:
    """The store of the features that an adapter was trained to take, beside its ``checkpoint``; None: a shared one."""
    path = checkpoint.with_name(FEATURES)
    return path if path.is_dir() else None


def own_store(checkpoint: Path) -> FeatureStore | None:
    """The same, opened."""
    path = own_features(checkpoint)
    return None if path is None else FeatureStore(path)


def seconds_of(seed: Path) -> float | None:
    """How long the seed in this folder was trained, backbone included; None where that was not written down."""
    path = seed / TIME
    if not path.is_file():
        return None
    return read_json(path, "the time that a training took", "Delete it")["seconds"]
