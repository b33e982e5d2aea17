"""A section of params.yaml, with command-line flags on top, as a frozen dataclass.

Each room declares its own dataclass (``ExtractConfig`` in extraction/config.py, ...), so that
a new training parameter is no reason to extract again.
"""

import argparse
import dataclasses
import difflib
import math
import re
import sys
import threading
import types
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from pipeline.core.children import end_with_parent

T = TypeVar("T")
PACKAGE = "emotion-adapters"
# The C one reads params.yaml in a tenth of the time, which each command does several times.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class UserError(Exception):
    """Something that whoever runs the program can put right; the message says what was wanted and what came."""


def one_of(what: str, name: object, known: Collection[str]) -> str:
    """``name`` where it is one of ``known``; else a ``UserError`` that lists them and the nearest."""
    if name in known:
        return str(name)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise UserError(f"{what} '{name}' is not one of {sorted(known)}{hint}")


def option(
    default: Any, *flags: str, help: str, choices: Collection[str] | None = None, within: str | None = None
) -> Any:
    """A dataclass field with its command line: ``--field-name`` and the further ``flags``.

    ``within`` is the interval of a number, or of each number in a list, such as '[0, 1)' or '[1, inf)'. A default may
    be a list or a dict: each instance gets its own copy.
    """
    metadata = {"flags": flags, "help": help, "choices": choices, "within": within}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read(path: Path, *sections: str) -> dict[str, Any]:
    """The named sections of a YAML file merged, later ones on top; ``a.b`` is section ``b`` of ``a``, '' is all of it.

    Raises ``UserError`` for a missing or unreadable file or section. The file is UTF-8, or UTF-16 that says so.
    """
    try:
        content = yaml.load(path.read_bytes(), _Loader) or {}
    except OSError as error:
        raise UserError(f"parameters: cannot read {path}: {error.strerror}") from None
    except yaml.reader.ReaderError as error:
        why = " ".join(str(error).split())
        raise UserError(f"parameters: {path} is not text in UTF-8 ({why}): save it as that") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"parameters: {path} is not YAML: {' '.join(str(error).split())}") from None
    merged: dict[str, Any] = {}
    for section in sections:
        value, where = content, str(path)
        for key in filter(None, section.split(".")):
            if not isinstance(value, dict) or key not in value:
                raise UserError(
                    f"section '{key}' is not in {where}: {list(value) if isinstance(value, dict) else value}"
                )
            value, where = value[key], f"{where}:{key}"
        if not isinstance(value or {}, dict):
            raise UserError(f"section '{section}' of {path} must be a mapping, and is {value!r}")
        merged |= value or {}
    return merged


def build(config: type[T], values: dict[str, Any], where: str) -> T:
    """``config(**values)`` with keys, types, ranges and choices checked; every error names ``where`` and the key.

    A number must be finite, also inside a list or a mapping, and an integer must fit into 64 bits.
    """
    at = f"{where}: " if where else ""
    fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(config)
    checked = {}
    for key, value in values.items():
        one_of(f"{at}parameter", key, fields)
        checked[key] = _cast(f"{at}{key}", value, hints[key])
        metadata = fields[key].metadata
        _check_numbers(f"{at}{key}", checked[key], metadata.get("within") or "(-inf, inf)")
        if metadata.get("choices") and value is not None:
            for each in value if isinstance(value, list) else [value]:
                one_of(f"{at}{key}", each, metadata["choices"])
    return config(**checked)


def parse(
    config: type[T],
    argv: Sequence[str] | None,
    *,
    sections: Sequence[str],
    description: str,
    borrow: Sequence[str] = (),
) -> T:
    """The dataclass filled from its defaults, then the ``sections`` of the parameter file, then the command line.

    ``borrow`` names sections that belong to another script: of those only the keys that ``config`` has are taken.
    """
    parser = argparse.ArgumentParser(
        prog=_program(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser, config)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file (params.yaml)")
    parser.add_argument("--version", action="store_true", help="print the version and end")
    given = vars(parser.parse_args(argv))
    if given.pop("version"):
        print(version())
        sys.exit(0)
    path = given.pop("params")
    known = {f.name for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    borrowed = {k: v for k, v in read(path, *borrow).items() if k in known}
    return build(config, borrowed | read(path, *sections) | given, " + ".join([*borrow, *sections]))


def version() -> str:
    """The project's name and version: of the folder that this file lies in, or of the installed package."""
    root = Path(__file__).parents[2] / "pyproject.toml"
    if root.is_file():
        import tomllib  # here: no other command waits for it

        project = tomllib.loads(root.read_text(encoding="utf-8"))["project"]
        return f"{project['name']} {project['version']}"
    from importlib.metadata import version as of_package

    return f"{PACKAGE} {of_package(PACKAGE)}"


def given_params(argv: Sequence[str] | None) -> list[str]:
    """``--params FILE`` where the command line ``argv`` (None: this process's) has it, for a sub-process."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--params")
    path = parser.parse_known_args(argv)[0].params
    return [] if path is None else ["--params", path]


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag a field; a flag that is not given leaves no attribute behind, so the file's value stands."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if not field.metadata:
            continue
        kind, keywords = _plain(hints[field.name]), {}
        several = _one_or_several(kind)
        if several is not None:
            keywords |= {"nargs": "+", "type": _or_none(several)}
        elif kind is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is list:
            item = typing.get_args(kind)[0]
            keywords |= {"nargs": "+", "type": item if isinstance(item, type) else _yaml_value}
        elif kind in (int, float, str, Path):
            keywords["type"] = _or_none(kind) if kind is not hints[field.name] else kind
        else:
            keywords["type"] = _yaml_value
        if kind is not bool:
            keywords["metavar"] = "X"
        choices = field.metadata["choices"]
        words = field.metadata["help"] + (f" (one of {', '.join(sorted(choices))})" if choices else "")
        parser.add_argument(
            *field.metadata["flags"], "--" + field.name.replace("_", "-"), dest=field.name,
            default=argparse.SUPPRESS, help=words.replace("%", "%%"), **keywords,
        )  # fmt: skip


def entry(main: Callable[[], int | None]) -> None:
    """Runs a script; for ``--version`` alone it prints the version.

    A ``UserError`` is one line on stderr and exit status 2, Ctrl-C is status 130. So is an ``OSError``, also one of a
    thread: no step can go on where a disk is full or a right is missing. A script that another of our commands started
    ends when that one does.
    """
    if sys.argv[1:] == ["--version"]:  # also of a command that parses nothing, or something else first
        print(version())
        sys.exit(0)
    end_with_parent()
    of_threads: list[OSError] = []

    def keep(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError):
            of_threads.append(failed.exc_value)
        else:
            threading.__excepthook__(failed)

    threading.excepthook = keep
    try:
        status = main()
        if of_threads:
            raise of_threads[0]
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)


def _fail(why: str) -> NoReturn:
    """Ends with one line; a file that cannot be closed after that, since the disk is full, is not said again."""
    print(f"error: {why}", file=sys.stderr)
    sys.unraisablehook = lambda _: None
    sys.exit(2)


def _program() -> str | None:
    """How a package was started, whose file is '__main__.py' as all others are; None for a file, which has a name."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.parent}" if spec and spec.name.endswith(".__main__") else None


def _plain(hint: Any) -> Any:
    """``int | None`` -> ``int``; any other union -> itself."""
    if isinstance(hint, types.UnionType):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _one_or_several(hint: Any) -> type | None:
    """``X`` of ``X | list[X]``, with None or without; None for any other type."""
    kinds = [a for a in typing.get_args(hint) if a is not type(None)] if isinstance(hint, types.UnionType) else []
    return kinds[0] if len(kinds) == 2 and kinds[1] == list[kinds[0]] else None


def _cast(where: str, value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        options = typing.get_args(hint)
        if _one_or_several(hint) and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None and type(None) in options:
            return None
        for kind in options:
            try:
                return _cast(where, value, kind)
            except UserError:
                continue
    elif typing.get_origin(hint) is list and isinstance(value, list):
        return [_cast(where, v, typing.get_args(hint)[0]) for v in value]
    elif typing.get_origin(hint) is dict and isinstance(value, dict):
        return value
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)  # YAML 1.1 reads 1e-3 as a string
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint in (int, str, bool, list, dict) and type(value) is hint:
        return value
    name = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
    raise UserError(f"{where} must be {name}, and is {value!r}")


def _or_none(kind: type) -> Callable[[str], Any]:
    """``kind``, but None for ``null``, as in the parameter file."""

    def read_one(text: str) -> Any:
        return None if text == "null" else kind(text)

    read_one.__name__ = kind.__name__  # argparse names it in its errors
    return read_one


def _check_numbers(where: str, value: Any, within: str) -> None:
    """Raises ``UserError`` for a number in ``value`` that is not finite, not in the interval, or beyond 64 bits."""
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            _check_numbers(where, each, within)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        least, most = map(float, within[1:-1].split(","))
        above = value > least or (within[0] == "[" and value == least)
        below = value < most or (within[-1] == "]" and value == most)
        if not (above and below and abs(value) < math.inf):
            raise UserError(f"{where} must be {_in_words(within, least, most)}, and is {value}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UserError(f"{where} must be an integer of 64 bits, and is {value}")


def _in_words(within: str, least: float, most: float) -> str:
    """'[1, inf)' as 'at least 1', '[1, 100]' as 'from 1 to 100', '[0, 1)' as 'in [0, 1)'."""
    if math.isinf(least):
        return "a finite number"
    if math.isinf(most):
        return f"at least {least:g}" if within[0] == "[" else f"above {least:g}"
    closed = within[0] + within[-1] == "[]"
    return f"from {_in_digits(least)} to {_in_digits(most)}" if closed else f"in {within}"


def _in_digits(value: float) -> str:
    return f"{int(value):,}" if value.is_integer() and abs(value) < 2**63 else f"{value:g}"


def _yaml_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"not YAML: {text}") from None
