"""Which code each stage of dvc.yaml runs, as hashes, and a run's parameters: DVC makes a result again when they change.

    python -m pipeline.code            writes data/code/STAGE, or data/code/STAGE/RUN for each run of params.yaml

A trained backbone ('backbones' in params.yaml) is such a run; their names stand in data/trained/names.txt.

Such a file has a line for each source file that the command of the stage reaches by its imports: a hash and the path.
The 'diff' of an old one and a new one says why a stage runs again. What is hashed is the parsed source: comments,
docstrings, layout and the ``help`` of options do not count. Of a table of choices (``pipeline.core.choices``) only the
entries that the run names count, with what they reach; a run that trains its backbone names that. Modules that only
show how a run goes (``SHOWS``) do not count. Of the catalogue of metrics, training is decided by those that can choose
its best epoch; it only shows the others.

The file of a run has its parameters too, a line each: for 'train' section ``train`` with the run's own on top, for
'evaluate' section ``evaluate``. So a value that a run has of its own changes that run alone. (As ``params`` of each run
they would be most of dvc.lock, which DVC reads and writes anew after each stage.)
"""

import ast
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.files import write_text
from pipeline.core.params import UserError, entry, read

OUTPUT = Path("data/code")
NAMES = Path("data/trained/names.txt")
# The module that the command of each stage runs (DVC allows no stage to depend on dvc.yaml, so it is not read here).
STAGES = {
    "synthesize": "pipeline.datasets.synthetic.__main__",
    "weights": "pipeline.extraction.weights.__main__",
    "extract": "extract",
    "reduce": "pipeline.extraction.reduce",
    "baselines": "pipeline.evaluation.baselines",
    "report": "pipeline.report.__main__",
    "stores": "pipeline.further",
}
STAGES_OF_RUNS = {"train": "train", "evaluate": "pipeline.evaluation.evaluate"}
# The key of a run in params.yaml that names entries, and the module that holds the table of them.
TABLES = {
    "model": "pipeline.adapter.heads",
    "loss": "pipeline.training.losses",
    "sampler": "pipeline.training.samplers",
    "unfreeze": "pipeline.training.trunks",
}
METRICS = "pipeline.metrics.catalogue"
SHOWS = (
    "pipeline.core.children",
    "pipeline.core.cluster",
    "pipeline.core.progress",
    "pipeline.training.board",
    "pipeline.training.messages",
    "pipeline.training.pictures",
)


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    params = read(Path("params.yaml"), "")
    for name, lines in hashes(Path(), params).items():
        write_text(OUTPUT / name, "".join(f"{line}\n" for line in lines))
    names = list(params.get("backbones") or {}) or ["no backbones"]  # DVC warns of an empty file
    write_text(NAMES, "".join(f"{name}\n" for name in names))


def hashes(root: Path, params: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each file in data/code holds: 'extract', ..., 'train/tcn_supcon', ..."""
    known: dict[Path, list[str]] = {}
    run = Path(params["baselines"]["run"]).name  # runs/NAME
    names = chosen(params, params["runs"].get(run))
    found = {stage: reached(root, module, names, known) for stage, module in STAGES.items()}
    for name, changes in (params["runs"] | (params.get("backbones") or {})).items():
        names = chosen(params, changes or {})
        values = {"train": params["train"] | (changes or {}), "evaluate": params["evaluate"]}
        for stage, module in STAGES_OF_RUNS.items():
            found[f"{stage}/{name}"] = reached(root, module, names, known) + parameters(values[stage])
    return found


def parameters(values: Mapping[str, Any]) -> list[str]:
    """A line for each parameter of a section, sorted."""
    # Not all that YAML reads is JSON (a date), and not every key is a text: what is wrong is said by the run itself.
    return sorted(f"{name}: {json.dumps(value, default=str)}" for name, value in values.items())


def chosen(params: Mapping[str, Any], run: Mapping[str, Any] | None) -> dict[str, list[str] | None]:
    """The entries of each table that a run of params.yaml names; None, which is all of them, where no run is known."""
    if run is None:
        return dict.fromkeys(TABLES)
    values = {key: (params["train"] | run).get(key) for key in TABLES}
    trains = any((params["train"] | run).get(key) is not None for key in ("unfreeze", "lora"))
    values["unfreeze"] = "unfreeze" if trains else None  # how many stages is no other code
    return {key: [value] if isinstance(value, str) else list(value or []) for key, value in values.items()}


def reached(
    root: Path, start: str, names: Mapping[str, list[str] | None], known: dict[Path, list[str]] | None = None
) -> list[str]:
    """A line for each source file that the module ``start`` reaches: the hash of its parsed source, and its path.

    ``known`` keeps, between calls, what has been read of each file.
    """
    known = {} if known is None else known
    tables = {module_file(root, module): key for key, module in TABLES.items()}
    metrics = module_file(root, METRICS)
    left_out = {module_file(root, module) for module in SHOWS}
    trains = start == STAGES_OF_RUNS["train"]
    lines, todo, done = {}, [_required(root, start)], {*left_out}
    while todo:
        file = todo.pop()
        if file in done:
            continue
        done.add(file)
        path = file.relative_to(root).as_posix()
        if file in tables:
            places = entries(file)
            picked = names[tables[file]]
            for name in sorted(places) if picked is None else picked:
                if name in places:  # an unknown name is refused by the command itself
                    lines[f"{path} {name}"] = places[name]
                    todo.append(_required(root, places[name].rpartition(".")[0]))
        else:
            if file not in known:
                tree = ast.parse(file.read_bytes(), file)
                known[file] = [fingerprint(tree), *sorted(map(str, imported(root, file, tree)))]
            value, *imports = known[file]
            todo += map(Path, imports)
            if file == metrics:
                functions = functions_of_metrics(file, only_select=trains)
                todo += [
                    _required(root, f"pipeline.metrics.{place.rpartition('.')[0]}") for place in functions.values()
                ]
                if trains:
                    lines |= {f"{path} {name}": place for name, place in functions.items()}
                    continue
            lines[path] = value
    return [f"{value}  {path}" for path, value in sorted(lines.items())]


def module_file(root: Path, module: str) -> Path | None:
    """The file of a module of this project; None where it has none, or an empty one."""
    place = root / module.replace(".", "/")
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in files if file.is_file() and file.stat().st_size), None)


def _required(root: Path, module: str) -> Path:
    """The file of a module that is named as a text; raises ``UserError`` where there is none, as nothing was hashed."""
    file = module_file(root, module)
    if file is None:
        raise UserError(f"no module '{module}' to hash: its name in pipeline/code.py or in a table is wrong")
    return file


def imported(root: Path, file: Path, tree: ast.AST) -> set[Path]:
    """The files of this project that a file imports anywhere in it, with the packages that they lie in."""
    modules = set()
    package = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            modules |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    parts = [module.split(".") for module in modules]
    every = {".".join(names[:n]) for names in parts for n in range(1, len(names) + 1)}
    return {file for module in every if (file := module_file(root, module))}


def entries(file: Path) -> dict[str, str]:
    """The table in a module that holds one: names, and where each is defined.

    Raises ``UserError`` where the module holds anything else, since that would not be hashed.
    """
    tables = []
    for node in ast.parse(file.read_bytes(), file).body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Call) and len(value.args) == 1:
            tables.append(ast.literal_eval(value.args[0]))
        elif not isinstance(node, ast.ImportFrom) and not _is_docstring(node):
            raise UserError(f"{file}:{node.lineno}: a module that holds a table of choices holds nothing else")
    if len(tables) != 1:
        raise UserError(f"{file} must hold one table of choices, and holds {len(tables)}")
    return tables[0]


def functions_of_metrics(file: Path, *, only_select: bool) -> dict[str, str]:
    """The metrics in the catalogue, and 'module.function' below ``pipeline.metrics`` of each.

    ``only_select``: those that can choose the best epoch.
    """
    functions = {}
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            if isinstance(value, ast.Call) and len(value.args) > 2:
                selects = any(keyword.arg == "select" for keyword in value.keywords)
                if selects or not only_select:
                    functions[ast.literal_eval(key)] = ast.literal_eval(value.args[2])
    if not functions:
        raise UserError(f"{file} holds no metrics, each a line with a name and 'module.function'")
    return functions


def fingerprint(tree: ast.AST) -> str:
    """16 hex digits of the SHA-256 of a parsed source, without docstrings and the ``help`` of options."""
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """A tree as nested tuples. (``ast.dump`` prints empty fields in some versions of Python and not in others.)"""
    if isinstance(node, list):
        return [_plain(each) for each in node if not _is_docstring(each)]
    if not isinstance(node, ast.AST):
        return node
    return (type(node).__name__, *((name, _plain(value)) for name, value in _fields(node) if value not in (None, [])))


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    is_option = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option"
    for name, value in ast.iter_fields(node):
        if is_option and name == "keywords":
            value = [keyword for keyword in value if keyword.arg != "help"]
        yield name, value


def _is_docstring(node: Any) -> bool:
    """Whether it is a string that stands by itself: of a module, class or function, or after a field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


if __name__ == "__main__":
    entry(main)
