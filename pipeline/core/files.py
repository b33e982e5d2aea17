"""The one place that writes and reads the files between the steps: whole or not at all, and checked at reading.

A file is written beside its place as ``<name>.partial`` and renamed, so a kill or a full disk leaves the old file as it
was. It is created by ``open``, so its rights follow the umask. Equal content gives equal bytes.

A tensor file (safetensors), a table (parquet) and JSON of ``save_json`` hold the SHA-256 of all their bytes, with zeros
in the place of the 64 digits themselves. So no single bit of them can change unseen: page checksums of parquet leave
its page headers and its footer out. The digits stand in the metadata, and any other reader of these formats can read
the files.
"""

import hashlib
import json
import math
import mmap
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from pipeline.core.params import UserError

if TYPE_CHECKING:
    import torch

_MARK = b"sha256-of-this-file-with-zeros-here:"
_ZEROS = b"0" * 64


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes the place of ``path`` at the end; after an error ``path`` is as it was.

    The folder is made where it is missing. An ``OSError`` inside, such as a full disk or a missing right, becomes a
    ``UserError`` that names ``path``.
    """
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` inside into a ``UserError`` of one line that names ``path``."""
    try:
        yield
    except OSError as error:
        other = f" ({error.filename})" if error.filename and not str(error.filename).startswith(str(path)) else ""
        raise UserError(f"cannot write {path}: {_reason(error)}{other}") from None


@contextmanager
def all_or_none(folder: Path, name: str) -> Iterator[Path]:
    """A new folder to write into. At the end all that lies in it takes its place in ``folder``: all of it, or none.

    A file or folder of the same name in ``folder`` is replaced, and everything else there stays. Killed before the end,
    the old ones stand. Killed while they are being replaced, ``settle``, which every reader and the next writer call,
    replaces the rest. ``name`` tells apart what is written into one folder. An ``OSError`` inside is a ``UserError``.
    """
    settle(folder, name)
    new = folder / f".{name}.new"
    with writing(folder):
        shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
        new.mkdir(parents=True)
        try:
            yield new
            new.rename(_ready(folder, name))
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    settle(folder, name)


def settle(folder: Path, name: str) -> None:
    """Finishes what ``all_or_none`` began. Once its folder is called ready, the new files are the valid ones."""
    ready = _ready(folder, name)
    if ready.is_dir():
        with writing(folder):
            for path in sorted(ready.iterdir()):
                place = folder / path.name
                if place.is_dir():
                    shutil.rmtree(place)
                path.replace(place)
            ready.rmdir()


def _ready(folder: Path, name: str) -> Path:
    return folder / f".{name}.ready"


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8. Bytes of a file name that are no UTF-8, '\\udcff' in Python, are written as that escape."""
    with whole(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # the escape is also the one that JSON knows


def write_json(path: Path, content: Any, *, sort_keys: bool = False, sealed: bool = False) -> None:
    """Writes JSON, one value a line. NaN and Infinity, which JSON does not know, become null.

    A ``sealed`` object has its ``digest_of`` as one more value, 'sha256', which ``read_json`` checks.
    """
    content = _finite(content)
    if sealed:
        content = content | {"sha256": digest_of(content)}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, sort_keys=sort_keys) + "\n")


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON, one value a line, with the digest of all its bytes as one more value; for ``load_json``."""
    marked = dict(_finite(content)) | {"digest": (_MARK + _ZEROS).decode()}
    _write_sealed(path, (json.dumps(marked, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode())


def load_json(path: Path, what: str, way_out: str) -> dict[str, Any]:
    """What ``save_json`` wrote.

    Raises ``UserError`` where ``path`` is not ``what``, or a bit of it has changed; the line ends in ``way_out``.
    """
    check_digest(path, what, way_out)
    content = read_json(path, what, way_out)
    del content["digest"]
    return content


def digest_of(content: Any) -> str:
    """SHA-256, 64 hexadecimal digits, of what JSON says, whatever its order of keys and its white space."""
    plain = json.loads(json.dumps(content))  # numbers that are keys become text
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, what: str, way_out: str) -> dict[str, Any]:
    """The content of a JSON file, which is an object, without the digest of a sealed one.

    Raises ``UserError`` where it cannot be read: it says that ``path`` is not ``what``, and ends in the sentence
    ``way_out``. So it does where a sealed one says something else than was written.
    """
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}, {what}: {_reason(error)}. {way_out}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not {what}: it is not JSON ({error}). {way_out}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not {what}: it is not a JSON object. {way_out}")
    if "sha256" in found and found.pop("sha256") != digest_of(found):
        raise UserError(f"{path} is damaged or edited: it is {what}, and not as it was written. {way_out}")
    return found


def save_tensors(path: Path, tensors: Mapping[str, "np.ndarray | torch.Tensor"], facts: Mapping[str, Any]) -> None:
    """Writes arrays of numpy or tensors of torch, not both, with ``facts`` (JSON, NaN as null), as safetensors."""
    if all(isinstance(value, np.ndarray) for value in tensors.values()):
        from safetensors.numpy import save

        # safetensors 0.8 writes the memory of an array as it lies, whatever its strides
        plain = {name: np.asarray(value, value.dtype.newbyteorder("="), order="C") for name, value in tensors.items()}
    else:
        from safetensors.torch import save  # here, since a step without tensors shall not wait for torch

        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # One key: safetensors writes several in another order each time.
    _write_sealed(path, save(plain, {"pipeline": json.dumps(_metadata(facts), sort_keys=True)}))


def load_tensors(
    path: Path, what: str, way_out: str, framework: Literal["np", "pt"] = "np"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors (of numpy or torch) and facts that ``save_tensors`` wrote.

    Raises ``UserError`` where ``path`` is not ``what``, or a bit of it has changed; the line ends in ``way_out``.
    """
    check_digest(path, what, way_out)
    with safe_open(path, framework) as file:
        facts = json.loads(file.metadata()["pipeline"])["facts"]
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a dict


def load_facts(path: Path, what: str, way_out: str) -> dict[str, Any]:
    """The facts alone; the whole file is checked all the same."""
    check_digest(path, what, way_out)
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["pipeline"])["facts"]


@contextmanager
def table_writer(path: Path, schema: pa.Schema, facts: Mapping[str, Any]) -> Iterator[pq.ParquetWriter]:
    """A writer for a parquet file in several pieces, which lie in memory, compressed, until the end."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        yield writer
        writer.add_key_value_metadata({"pipeline": json.dumps(_metadata(facts), sort_keys=True)})
    _write_sealed(path, sink.getvalue())


def write_table(path: Path, table: pa.Table, facts: Mapping[str, Any]) -> None:
    """Writes a table with ``facts`` (JSON, NaN as null) as parquet."""
    with table_writer(path, table.schema, facts) as writer:
        writer.write_table(table)


def read_table(
    path: Path, what: str, way_out: str, columns: list[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """The table that was written, or those of its ``columns`` that it has, and its facts.

    Raises ``UserError`` where ``path`` is not ``what``, or a bit of it has changed; the line ends in ``way_out``.
    """
    check_digest(path, what, way_out)
    with pq.ParquetFile(path) as file:
        return file.read(columns), json.loads(file.metadata.metadata[b"pipeline"])["facts"]


def read_table_facts(path: Path, what: str, way_out: str) -> dict[str, Any]:
    """The facts alone; the whole file is checked all the same."""
    check_digest(path, what, way_out)
    return json.loads(pq.read_metadata(path).metadata[b"pipeline"])["facts"]


def has_digest(path: Path) -> bool:
    """Whether a file says that it is a tensor file or a table of ours; raises ``UserError`` where it cannot be read."""
    try:
        with path.open("rb") as file, _mapped(file) as data:
            return data.find(_MARK) >= 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from None


def check_digest(path: Path, what: str, way_out: str) -> None:
    """Raises ``UserError`` where a tensor file or table is missing, not of our making, or not what was written."""
    try:
        with path.open("rb") as file, _mapped(file) as data:
            at = data.find(_MARK) + len(_MARK)
            found = data[at : at + len(_ZEROS)]
            same = found == _digest(data, at)
    except OSError as error:
        raise UserError(f"cannot read {path}, {what}: {_reason(error)}. {way_out}") from None
    if at < len(_MARK):
        raise UserError(f"{path} is not {what}: there is no digest of ours in it, or it is damaged. {way_out}")
    if not same:
        raise UserError(f"{path} is damaged: it is {what}, and not as it was written. {way_out}")


def _metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"digest": (_MARK + _ZEROS).decode(), "facts": _finite(facts)}


def _write_sealed(path: Path, data: Any) -> None:
    """``data``, any buffer of bytes with the mark in it, with its digest in the place of the zeros."""
    with memoryview(data) as view:
        at = bytes(data).index(_MARK) + len(_MARK)
        with whole(path) as file:
            for piece in (view[:at], _digest(view, at), view[at + len(_ZEROS) :]):
                file.write(piece)


def _digest(data: Any, at: int) -> bytes:
    """SHA-256, as 64 hexadecimal digits, of ``data`` with zeros in the 64 places from ``at``."""
    with memoryview(data) as view:
        found = hashlib.sha256(view[:at])
        found.update(_ZEROS)
        found.update(view[at + len(_ZEROS) :])
    return found.hexdigest().encode()


@contextmanager
def _mapped(file: IO[bytes]) -> Iterator[mmap.mmap | bytes]:
    if not file.seek(0, 2):
        yield b""  # an empty file cannot be mapped
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _reason(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())  # h5py 3 puts several lines into strerror
