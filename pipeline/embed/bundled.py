"""A bundle read: one folder that holds all it takes to use a trained run; ``python -m pipeline.bundle`` writes it.

    bundle.json              what it is: ``describe`` of pipeline/bundle/write.py; the SHA-256 of each other file
    seed_0.safetensors       the adapter of each seed, with class centres; fold_1_seed_0.safetensors where it has folds
    NAME.safetensors         the weights of the backbone, where their licence lets them be passed on
    images.onnx windows.onnx pairs.onnx    what it does, without torch, where that was asked for
    README.md                the model card

Files that bundle.json does not name are left alone, and not read.
"""

import hashlib
from pathlib import Path
from typing import Any

from pipeline.adapter.adapter import read_adapter
from pipeline.core.files import load_json
from pipeline.core.params import UserError
from pipeline.embed.loading import Seed, Trained, chosen

FACTS = "bundle.json"
FORMAT = 1  # one more whenever bundle.json means something else than before
WHAT = "the facts of a bundle"
WAY_OUT = "Copy the bundle again from where it was made"


def load_bundle(folder: Path, seed: Seed) -> Trained:
    """The adapters in a bundle that ``seed`` asks for, as ``load_trained`` gives those of a run.

    ``weights`` may name a file that is not there: where the bundle has only their address and hash, they belong into
    its folder. Raises ``UserError`` for a bundle of another format, and where a file is missing or has changed.
    """
    facts = read_bundle(folder)
    names = chosen(folder, facts["results"], seed)
    adapters = {name: read_adapter(folder / adapter_file(name)) for name in names}
    weights = None if facts["weights"] is None else folder / weights_file(facts["weights"]["backbone"])
    return Trained(folder, adapters, weights, {})


def read_bundle(folder: Path) -> dict[str, Any]:
    """What bundle.json says, once every file that it names is found to be as it was written."""
    path = folder / FACTS
    facts = load_json(path, WHAT, WAY_OUT)
    if (found := facts.get("format")) != FORMAT:
        raise UserError(
            f"{path} has format {found}, and this version of the code reads format {FORMAT}: make the bundle again "
            "with 'python -m pipeline.bundle'"
        )
    for name, expected in facts["files"].items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: it is part of a bundle. {WAY_OUT}")
        if sha256(folder / name) != expected:
            raise UserError(f"{folder / name} is damaged or edited: it is part of a bundle. {WAY_OUT}")
    return facts


def adapter_file(member: str) -> str:
    """'fold_1_seed_0.safetensors' of 'fold_1/seed_0'."""
    return member.replace("/", "_") + ".safetensors"


def weights_file(backbone: str) -> str:
    return f"{backbone}.safetensors"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
