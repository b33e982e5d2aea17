"""Tensors out of the files of ``torch.save``, without running anything that is in them.

Published emotion weights are whole pickled modules. A pickle may run any code while it is read, and no timm of today
can rebuild the classes of 2020 in it. So the file is taken apart here: torch's two containers are read by hand,
every name in the pickle is checked against a short list, and each that passes becomes an ``Inert`` object that only
remembers what it was given. No code of the file, and no class that it names, ever runs; what is left are tensors.

``torch.load`` with a pickle module of one's own would not do: its legacy reader may write a ".patch" file whose text
and name come from the checkpoint, and it hands out real torch functions, which a pickle may alter.
``weights_only=True`` refuses whole modules.
"""

import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import torch

from pipeline.core.params import UserError
from pipeline.extraction.bounds import members, most_bytes
from pipeline.extraction.weights.common import RATIO, Layers, Tensors, fault


def read_checkpoint(file: BinaryIO) -> tuple[Tensors, Layers]:
    """All tensors of a file under the names it gives them, and each layer's stride, padding, eps, ... where it knows.

    Knows both containers of ``torch.save`` with a module, a state dict, or a dict with one under ``state_dict``,
    ``model_state_dict`` or ``model``. Raises ``UserError`` for any other content, and for a pickle that names anything
    beyond tensors and layers. A damaged file may raise anything else.
    """
    top, storages, size = _unpack(file)
    return _as_tensors(top, storages, most_bytes(size, RATIO))


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
    """Reads over one pickle, and refuses what would take far more memory or time than its size lets expect.

    That is: more than ``most`` opcodes; a memo number far beyond those in use, since the memo is a table that grows to
    it; and a key that is a tuple of tuples named twice over and over, since Python hashes them anew each time.
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


def _unpack(file: BinaryIO) -> tuple[Any, Tensors, int]:
    """What ``torch.save`` was given, as inert objects, its storages as flat tensors, and the file's size in bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return *_unpack_zip(file, size), size
    if start[:1] != pickle.PROTO:
        raise UserError("it starts neither like a zip nor like a pickle of torch.save")
    if isinstance(file, io.BytesIO):
        return *_unpack_legacy(file, size), size
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # file.read(n) allocates n bytes first
        return *_unpack_legacy(content, size), size


def _unpack_zip(file: BinaryIO, size: int) -> tuple[Any, Tensors]:
    with zipfile.ZipFile(file) as archive:
        names = members(archive, size, RATIO)
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
    """Tensors and layers of what a file held. The tensors may take ``most`` bytes: many of them may share a storage."""
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
        raise UserError("; ".join(fault("these are no tensors", others)))
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
    """The module and all modules inside it, with their names. A module that is used in two places comes twice.

    Raises ``UserError`` where they are too many, or stand in each other too deep.
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


def _short(value: Any) -> str:
    """A value in a message; only its type where it is built of others, for they may be without end."""
    return str(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
