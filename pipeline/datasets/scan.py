"""The files below a folder: names and sizes only, no file is opened."""

import os
from array import array
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """The image files directly in ``path`` (relative to what was scanned, '' for itself), in no order."""

    path: str
    names: list[str]
    sizes: array


@dataclass(frozen=True)
class Scan:
    """All paths are relative to the scanned folder, with forward slashes; all lists but ``Folder.names`` are sorted.

    ``folders`` holds every folder read, those without images too; ``others`` the files that are no images and, with
    a slash at the end, hidden folders; ``repeated`` links to folders read already; ``refused`` what ``enter`` refused.
    """

    folders: list[Folder] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def scan(root: Path, extensions: Collection[str], enter: Callable[[str], bool] = lambda name: True) -> Scan:
    """Everything below ``root``, each folder once; files with one of the ``extensions`` ('.jpg') are images.

    ``enter`` is asked with a folder's name. Links are followed last, so that of a folder and a link to it the folder
    is read, whatever order the file system lists them in; a loop of links ends at the first folder seen before.
    A folder or an image that cannot be read, or has a name that is not UTF-8, is ``unreadable``.
    """
    result = Scan()
    seen: set[tuple[int, int]] = set()
    todo, links = [""], deque[str]()
    while todo or links:
        path = todo.pop() if todo else links.popleft()
        where = os.path.join(root, path)
        try:
            status = os.stat(where)
            if (status.st_dev, status.st_ino) in seen:
                result.repeated.append(path)
                continue
            seen.add((status.st_dev, status.st_ino))
            folder, linked = _read(where, path, {e.lower() for e in extensions}, enter, result)
        except OSError as error:
            result.unreadable.append(f"{path or '.'}: {error.strerror}")
            continue
        todo += sorted(folder, reverse=True)
        links += sorted(linked)
    for found in (result.others, result.unreadable, result.repeated, result.refused):
        found.sort()
    result.folders.sort(key=lambda folder: folder.path)
    return result


def parts(path: str) -> list[str]:
    """The folders of a relative path: [] for ''."""
    return path.split("/") if path else []


def _read(
    where: str, path: str, extensions: set[str], enter: Callable[[str], bool], result: Scan
) -> tuple[list[str], list[str]]:
    """Adds one folder to ``result``; gives its folders and its links to folders, by path."""
    prefix = f"{path}/" if path else ""
    names, sizes, folders, links = [], array("q"), [], []
    with os.scandir(where) as entries:
        for entry in entries:
            name = entry.name
            if not name.isascii() and not _is_utf8(name):
                result.unreadable.append(f"{prefix}{os.fsencode(name).decode(errors='replace')}: not UTF-8")
                continue
            try:
                if entry.is_dir():
                    if name.startswith(".") or name == "__MACOSX":
                        result.others.append(f"{prefix}{name}/")
                    elif enter(name):
                        (links if entry.is_symlink() else folders).append(prefix + name)
                    else:
                        result.refused.append(prefix + name)
                elif name[name.rfind(".") :].lower() in extensions and name[0] != "." and "." in name:
                    sizes.append(entry.stat().st_size)
                    names.append(name)
                else:
                    result.others.append(prefix + name)
            except OSError as error:
                result.unreadable.append(f"{prefix}{name}: {error.strerror}")
    result.folders.append(Folder(path, names, sizes))
    return folders, links


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
