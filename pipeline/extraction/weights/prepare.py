"""One safetensors file for any backbone, made once."""

from pathlib import Path
from typing import Any

from pipeline.core.files import save_tensors
from pipeline.core.tables import weights_name
from pipeline.extraction.weights.catalogue import architecture_of, outputs_of, preprocessing
from pipeline.extraction.weights.fetch import Origin, find_origin
from pipeline.extraction.weights.file import read_facts, tensors_sha256
from pipeline.extraction.weights.fit import fit_tensors


def prepare(backbone: str, source: str, folder: Path) -> Path:
    """The file ``folder/<backbone>.safetensors``; made now unless it stands already, from the same source.

    That of a backbone that was trained here has another name (``core.tables.weights_name``), so that the weights it was
    trained from stay where they are.

    ``source``: ``auto`` (EmotiEffLib's file for its names, the pinned package for ``tf_efficientnet_lite0``, timm's own
    pretrained weights for other timm names), ``random`` (seeded by the backbone's name), or the path of a file: a
    pickled module or a state dict of PyTorch, or safetensors. EmotiEffLib's files are checked by git's object id, and
    one that was fetched by hand counts as ``auto`` from then on.

    The classifier is kept only where its outputs have a meaning here (``outputs`` in the facts): ImageNet's 1000
    logits are left out. Raises ``UserError`` for what cannot be read or does not fit, before anything is written.
    """
    architecture = architecture_of(backbone)
    origin = find_origin(backbone, source, folder)
    trained = _trained(source)
    made = folder / weights_name(backbone)
    if not trained and made.exists() and _made_from(made, origin):
        return made
    tensors, layers, sha256 = origin.read()
    outputs = outputs_of(backbone)
    fitted, model = fit_tensors(tensors, architecture, len(outputs), origin.words, layers)
    if trained:
        made = folder / weights_name(backbone, tensors_sha256(fitted))
        if made.exists():
            return made
    facts = {
        "backbone": backbone,
        "architecture": architecture,
        "source": origin.words,
        "source_sha256": sha256,
        "outputs": outputs,
        **preprocessing(backbone, model),
        **trained,
    }
    save_tensors(made, fitted, facts)
    return made


def _trained(source: str) -> dict[str, Any]:
    """What the file of a backbone that was trained here says of itself, whatever it is called now; else nothing."""
    path = Path(source)
    facts = read_facts(path) if path.suffix == ".safetensors" and path.is_file() else {}
    keys = ("source", "trained_from", "seen") if "trained_from" in facts else ()
    return {key: facts[key] for key in keys if key in facts}


def _made_from(made: Path, origin: Origin) -> bool:
    facts = read_facts(made)
    same_bytes = origin.sha256 in (None, facts.get("source_sha256"))
    return facts.get("source") == origin.words and same_bytes and "crop_pct" in facts  # which older ones do not say
