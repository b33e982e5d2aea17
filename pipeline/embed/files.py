"""The tables of many files as one: each file's is kept as soon as it is made, and all are joined at the end.

Beside ``out.parquet`` there is a folder ``.out.parquet.parts``:

    job.json         what makes the rows: the run, its seeds, the weights, the settings (sealed)
    <digits>.parquet the rows of a video, or of some pictures, and what each file gave: size, time, problems, notes

A part stands for its files as long as their size and time are the same. It may hold no row: that a file shows no face
is a result as well. The parts stay, so that later more files can be added to the output.
"""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.files import read_json, read_table_facts, whole, write_json, write_table
from pipeline.core.params import UserError
from pipeline.embed.embedder import Embedder
from pipeline.embed.table import BOX, new_columns

FORMAT = 1  # one more whenever the rows of a file change without a change of the run or the settings
JOB, WAY_OUT = "job.json", "Make all anew with --rebuild"
NUMBER = "number"  # the column of a part that says which of its files a row is of
Result = dict[str, Any]  # of a file: file, size, modified, rows, problems, notes


def parts_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.parts")


def report_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.json")


def facts_of(path: Path) -> Result:
    """What tells that a file is still the same. Raises ``OSError`` where there is none."""
    status = path.stat()
    return {"file": str(path.resolve()), "size": status.st_size, "modified": status.st_mtime_ns}


def _is_as_it_was(result: Result) -> bool:
    try:
        return facts_of(Path(result["file"])).items() <= result.items()
    except OSError:
        return False


# --- the job ---------------------------------------------------------------------------------------------------------


def take_up(output: Path, job: dict[str, Any], rebuild: bool) -> None:
    """Makes sure that what lies at ``output``, and what is half made of it, was made by the same ``job``.

    Raises ``UserError`` where it was not; ``rebuild`` removes the parts instead.
    """
    folder = parts_folder(output)
    job = job | {"format": FORMAT}
    if rebuild:
        for path in (*folder.glob("*.parquet"), folder / JOB):
            path.unlink(missing_ok=True)
    elif (folder / JOB).is_file():
        before = read_json(folder / JOB, "what the parts were made with", WAY_OUT)
        changed = [f"{name} {before.get(name)} -> {job.get(name)}" for name in {**before, **job} if
                   before.get(name) != job.get(name)]  # fmt: skip
        if changed:
            state = "was" if output.is_file() else "is half made and was"
            raise UserError(
                f"{output} {state} made otherwise ({'; '.join(changed)}): name another output, or make all anew with "
                "--rebuild"
            )
    elif output.is_file():
        raise UserError(
            f"{output} is there already, and nothing says that it was made by this command (there is no "
            f"{folder / JOB}): name another output, or write over it with --rebuild"
        )
    write_json(folder / JOB, job, sealed=True)


def check_none_is_lost(output: Path, files: Iterable[Path]) -> None:
    """Raises ``UserError`` where a finished ``output`` has files that are not among ``files``."""
    if not (output.is_file() and report_file(output).is_file()):
        return
    before = read_json(report_file(output), "the report on an output", WAY_OUT)
    lost = sorted({of["file"] for of in before["files"]} - {str(file.resolve()) for file in files})
    if lost:
        raise UserError(
            f"{output} has {len(lost)} files that are not among those given, such as {lost[0]}: give them too, name "
            "another output, or make all anew with --rebuild"
        )


# --- the parts -------------------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """The results of files, and where their rows lie: {path: (part, number in it)}."""

    folder: Path
    schema: pa.Schema
    results: dict[str, Result] = field(default_factory=dict)
    places: dict[str, tuple[Path, int]] = field(default_factory=dict)

    def find(self) -> None:
        """Reads what each part is of. A damaged one counts as missing, as do rows of a file that has changed since."""
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                results = read_table_facts(path, "a part of an output", WAY_OUT)["files"]
            except UserError:
                path.unlink()
            else:
                self._add(path, [result if _is_as_it_was(result) else None for result in results])

    def has(self, path: Path) -> bool:
        """Whether the file was done, as it was when the parts were read."""
        return str(path.resolve()) in self.results

    def keep(self, table: pa.Table, results: list[Result]) -> None:
        """Writes the rows of some files, which take the place of older ones of the same files."""
        key = hashlib.sha256("\n".join(result["file"] for result in results).encode(errors="surrogateescape"))
        path = self.folder / f"{key.hexdigest()[:16]}.parquet"
        write_table(path, table, {"files": results})
        _read.cache_clear()
        self._add(path, results)

    def _add(self, path: Path, results: Sequence[Result | None]) -> None:
        for number, result in enumerate(results):
            if result is not None:
                self.results[result["file"]] = result
                self.places[result["file"]] = path, number

    def result(self, path: Path) -> Result:
        return self.results[str(path.resolve())]

    def tables(
        self, files: Sequence[Path], names: Sequence[str], columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of ``files`` in their order, by the schema; those that lie in one part together."""
        at = 0
        while at < len(files):
            part, _ = self.places[str(files[at].resolve())]
            numbers = {}
            while at < len(files) and self.places[str(files[at].resolve())][0] == part:
                numbers[self.places[str(files[at].resolve())][1]] = names[at]
                at += 1
            yield self._rows(part, numbers, columns or self.schema.names)

    def _rows(self, part: Path, names: dict[int, str], columns: list[str]) -> pa.Table:
        """The rows of the files with these numbers, in the order of ``names``."""
        table = _read(part)
        number = table[NUMBER].to_numpy()
        order = np.concatenate([np.flatnonzero(number == i) for i in names])
        table = table.take(order)
        called = pa.array([names[i] for i in number[order]], pa.string())
        table = table.drop_columns(NUMBER).add_column(0, "video", called)
        return table.select(columns).cast(pa.schema([self.schema.field(name) for name in columns]))


@lru_cache(maxsize=1)
def _read(part: Path) -> pa.Table:
    return pq.read_table(part, memory_map=False)


# --- rows ------------------------------------------------------------------------------------------------------------


def schema_of(embedder: Embedder) -> pa.Schema:
    """Of an output."""
    widths = {"classes": len(embedder.classes), "va": 2, "aus": len(embedder.facts["au_names"])}
    predicts = {*embedder.adapters[0].predicts, *(["classes"] if embedder.classes_by else [])}
    nothing = {what: np.empty((0, width)) for what, width in widths.items() if what in predicts}
    others = [*new_columns(np.empty((0, 1)), nothing, embedder.facts)][1:]
    fields = [("video", pa.string()), ("person", pa.string()), ("frame", pa.int64()), ("time_sec", pa.float64())]
    fields += [("box", pa.list_(pa.float32(), len(BOX))), ("confidence", pa.float64())]
    fields += [("embedding", pa.list_(pa.float32(), embedder.embedding_size))]
    return pa.schema(fields + [(name, pa.string() if name == "class" else pa.float32()) for name in others])


def to_part(table: pd.DataFrame | None, schema: pa.Schema) -> pa.Table:
    """Rows of an embedder, whose ``video`` is the number of a file in the part; None is none."""
    arrays = {NUMBER: pa.array([] if table is None else table["video"].astype("int64"), pa.int64())}
    for of in schema:
        if of.name == "video":
            continue
        if table is None:
            arrays[of.name] = pa.array([], of.type)
        elif pa.types.is_fixed_size_list(of.type):
            flat = pa.array(np.concatenate(table[of.name].to_list()).astype(np.float32))
            arrays[of.name] = pa.FixedSizeListArray.from_arrays(flat, of.type.list_size)
        else:
            arrays[of.name] = pa.array(table[of.name], of.type, from_pandas=False)
    return pa.table(arrays)


# --- the output ------------------------------------------------------------------------------------------------------


def write_parquet(file: IO[bytes], parts: Parts, files: Sequence[Path], names: Sequence[str]) -> None:
    with pq.ParquetWriter(file, parts.schema, compression="zstd") as writer:
        for table in parts.tables(files, names):
            writer.write_table(table)


def write_csv(file: IO[bytes], parts: Parts, files: Sequence[Path], names: Sequence[str]) -> None:
    """Columns box_left, ... and embedding_0, ... in the place of lists; numbers with all digits that they need."""
    empty = parts.schema.empty_table()
    for number, table in enumerate([empty, *parts.tables(files, names)]):
        columns = {}
        for of in table.schema:
            if pa.types.is_fixed_size_list(of.type):
                ends = BOX if of.name == "box" else range(of.type.list_size)
                columns |= {f"{of.name}_{end}": each for end, each in zip(ends, _cells(table[of.name]).T, strict=True)}
            else:
                columns[of.name] = table[of.name].to_pandas()
        pd.DataFrame(columns).to_csv(file, index=False, header=number == 0, lineterminator="\n")


def write_npz(file: IO[bytes], parts: Parts, files: Sequence[Path], names: Sequence[str]) -> None:
    """An array a column; text is fixed in width, so nothing is pickled."""
    count = sum(parts.result(path)["rows"] for path in files)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for of in parts.schema:
            width, shape = 1, (count,)
            if pa.types.is_string(of.type):
                longest = [pc.max(pc.utf8_length(t[of.name])).as_py() for t in parts.tables(files, names, [of.name])]
                width = max([1, *filter(None, longest)])
                dtype = np.dtype(f"<U{width}")
            elif pa.types.is_fixed_size_list(of.type):
                dtype, shape = np.dtype("<f4"), (count, of.type.list_size)
            else:
                dtype = np.dtype(of.type.to_pandas_dtype()).newbyteorder("<")
            with archive.open(zipfile.ZipInfo(f"{of.name}.npy"), "w", force_zip64=True) as entry:
                head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(entry, head)
                for table in parts.tables(files, names, [of.name]):
                    entry.write(np.ascontiguousarray(_cells(table[of.name]), dtype).tobytes())


def _cells(column: pa.ChunkedArray) -> np.ndarray:
    """(n,), or (n, k) of lists."""
    if pa.types.is_fixed_size_list(column.type):
        flat = column.combine_chunks().flatten() if len(column) else pa.array([], pa.float32())
        return flat.to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    return column.to_numpy()


WRITERS = {".parquet": write_parquet, ".csv": write_csv, ".npz": write_npz}


def write_output(output: Path, parts: Parts, files: Sequence[Path], names: Sequence[str]) -> None:
    """All rows of ``files``, whose videos are called ``names``; the format is that of the ending."""
    with whole(output) as file:
        WRITERS[output.suffix.lower()](file, parts, files, names)
