"""Tables that list images: the text of a .csv or .tsv file in whatever form it was saved, and the files it names."""

import codecs
import csv
import io
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.params import UserError, one_of
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.dataset import counted

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
MARKS = {  # the longest first: that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
MOST_PLACES = 10  # other places in which the paths of one table may start
SAMPLE = 50  # absolute paths that are tried for where root stands in them
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


@dataclass(frozen=True)
class Paths:
    """A table's paths relative to root (None: empty, or out of it); ``taken`` counts those that began elsewhere."""

    of: dict[str, str | None]
    taken: dict[str, Any]


def read_text(path: Path, what: str) -> str:
    """UTF-8, or what a byte order mark says; raises ``UserError`` for another encoding, which no byte tells."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{what}: cannot read the table {path}: {error.strerror}") from None
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = (
            f"byte 0x{content[error.start]:02x} in line {line}" if error.start < len(content) else "it ends too early"
        )
        raise UserError(
            f"{what}: the table {path} is not {encoding.upper().removesuffix('-SIG')} text ({byte}): save it as UTF-8 "
            "(in Excel: 'CSV UTF-8')"
        ) from None


def read_head(path: Path) -> str:
    """The first lines of a table, with whatever cannot be read replaced; raises ``OSError``."""
    with path.open("rb") as file:
        content = file.read(1 << 16)
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace")


def rows_of(text: str, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header's names, and each row with its line; comma, semicolon or tab is told from the header.

    Raises ``UserError``, while it goes, for a row that is no row.
    """
    lines = io.StringIO(text, newline="")  # str.splitlines would cut at the line separators inside a field too
    first, above = lines.readline(), 0
    if first.strip().lower() in ("sep=,", "sep=;"):  # by this line Excel says what the mark is
        first, above = lines.readline(), 1
    reader = csv.reader(itertools.chain([first], lines), delimiter=max(",;\t", key=first.count))

    def rows() -> Iterator[tuple[int, list[str]]]:
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(
                    f"{where}: line {above + reader.line_num} is no row of a table ({error}): is it text, and is every "
                    "quote closed?"
                ) from None
            yield above + reader.line_num, row

    every = rows()
    _, header = next(every, (1, []))
    return [name.strip() for name in header], every


def read_sheet(config: DatasetConfig, known: tuple[str, ...], needed: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table's known columns under our names, as text, with the ``line`` of each row; and the lines cut short.

    Raises ``UserError`` for a file that is no such table.
    """
    path, what = config.annotations, f"data set '{config.name}'"
    if path is None:
        raise UserError(f"{what}: name the table to read by dataset.annotations in params.yaml, or by --annotations")
    names, lines = rows_of(read_text(path, what), f"{what}: {path}")
    theirs = {name: name for name in known if name in names}
    for ours, name in config.columns.items():
        one_of(f"{what}: columns", ours, known)
        theirs[ours] = one_of(f"{what}: {path}: column", name, names)
    if lacking := [name for name in needed if name not in theirs]:
        raise UserError(
            f"{what}: {path} has no column {lacking}, but {names}: say which is meant with dataset.columns, "
            f"such as {{{lacking[0]}: {names[0] if names else 'image'}}}"
        )
    places = [names.index(name) for name in theirs.values()]
    rows, malformed = [], []
    for line, row in lines:
        if len(row) == len(names):
            rows.append((line, *(row[i].strip() for i in places)))
        elif row:
            malformed.append(f"line {line}: {len(row)} fields instead of {len(names)}")
    return pd.DataFrame(rows, columns=["line", *theirs]).astype({"line": "int64"} if rows else {}), malformed


def split_of(word: str) -> str | None:
    """The split that a table's word stands for; None for a word that is none."""
    return SPLIT_WORDS.get(word.lower())


def number_of(text: str) -> float:
    """``0.5``, and ``0,5`` as much of the world writes it; NaN for what is no number."""
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return math.nan


def below_root(paths: pd.Series, root: Path) -> Paths:
    """The paths of a table relative to ``root``, with forward slashes.

    Absolute ones of another machine are taken to start in ``root`` where that leads to files: the shortest beginning is
    cut off after which files are there, and two paths never become one.
    """
    own = {path: _relative(path, root) for path in paths.drop_duplicates()}
    foreign = sorted(p for p, inside in own.items() if inside is None and _ABSOLUTE.match(p.replace("\\", "/")))
    taken = []
    for _ in range(MOST_PLACES):
        tried = {p: _beginning(p, root) for p in foreign[:: max(1, len(foreign) // SAMPLE)]}
        counts = Counter(beginning for beginning in tried.values() if beginning)
        if not counts:
            break
        beginning = max(sorted(counts), key=counts.__getitem__)
        rests = {p: p.replace("\\", "/").removeprefix(beginning + "/") for p in foreign}
        ours = {p: _relative(rest, root) for p, rest in rests.items() if rest != p.replace("\\", "/")}
        foreign = [p for p in foreign if p not in ours]
        if not set(own.values()).isdisjoint(inside for inside in ours.values() if inside):
            continue
        own |= ours
        taken.append(f"'{beginning}': {int(paths.isin([p for p in ours if ours[p]]).sum()):,} rows")
    return Paths(own, counted(taken))


def sizes_of(root: Path, paths: pd.Series) -> tuple[dict[str, int], list[str]]:
    """Path -> size in bytes of the files that are there, and the others with the reason."""
    sizes: dict[str, int] = {}
    missing = []
    for path in paths.drop_duplicates():
        try:
            sizes[path] = os.stat(root / path).st_size
        except OSError as error:
            missing.append(f"{path}: {error.strerror}")
    return sizes, missing


def none_there(config: DatasetConfig, rows: int, paths: pd.Series, malformed: Sequence[str], missing: list[str]) -> str:
    """What is wrong with a table of ``rows`` rows of which not one leads to its images: counts, and a cause to suspect.

    ``paths`` are those of all rows as the table has them, ``missing`` those looked for, as ``sizes_of`` gives them.
    """
    problem = f"none of the {rows} rows of {config.annotations} leads to an image that is there"
    if malformed:
        problem += f"; {len(malformed)} of them were not understood, such as {malformed[0]}"
    if missing:
        looked_for = os.path.join(os.path.abspath(config.root), missing[0].rpartition(": ")[0])
        problem += f"; {len(missing)} images were looked for, such as {missing[0]} ('{looked_for}')"
    cause = next(filter(None, (_cause(path, config.root) for path in paths[:3] if path)), None)
    return problem + (f"\n  perhaps: {cause}" if cause else "")


def _cause(path: str, root: Path) -> str | None:
    """Why nothing is at a table's path, as far as a look around can tell."""
    path, root = path.replace("\\", "/"), Path(os.path.abspath(root))
    if "\0" in path:
        return "the table is no text, or UTF-16 without a byte order mark"
    if _ABSOLUTE.match(path):
        return (
            f"the paths are those of another machine: as dataset.root name the folder that holds {path.split('/')[-1]}"
        )
    for parent in list(root.parents)[:3]:
        if (parent / path).is_file():
            return f"the paths start in {parent}: name it as dataset.root"
    for end in (".jpg", ".jpeg", ".png"):
        if (root / (path + end)).is_file():
            return f"the paths lack the end of the files' names, '{end}'"
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and (folder / path).is_file():
            return f"the paths start in {folder}: name it as dataset.root"
    shorter = _beginning(path, root)
    return f"the paths begin with '{shorter}/', which is in dataset.root already, or is not there" if shorter else None


def _beginning(path: str, root: Path) -> str | None:
    """The shortest beginning of a path after which the rest is a file below ``root``."""
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or "\0" in path:
        return None
    for start in range(1, len(parts)):
        if (root / "/".join(p for p in parts[start:] if p)).is_file():
            return "/".join(parts[:start])
    return None


def _relative(path: str, root: Path) -> str | None:
    """A table's path relative to ``root``; None for one that leads out of it, is empty or can be no path."""
    text = path.replace("\\", "/")
    if _ABSOLUTE.match(text):
        text = os.path.relpath(text, os.path.abspath(root)).replace(os.sep, "/") if os.path.isabs(text) else ".."
    clean = os.path.normpath(text).replace(os.sep, "/") if text else "."
    return None if clean in (".", "..") or clean.startswith("../") or "\0" in clean else clean
