"""Choosing a head, loss or sampler by its name, and making it."""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from pipeline.core.params import UserError, one_of


class Choices(Mapping[str, Any]):
    """A table of names and where each thing is defined: ``{"mlp": "pipeline.adapter.heads.mlp.MLP"}``.

    A name's module is imported when the name is looked up, so that one choice does not import the others. A module that
    holds heads, losses or samplers holds nothing else: ``pipeline.code`` hashes of it only what a run names.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = dict(places)

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self.places[name].rpartition(".")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places


def build(kind: str, choices: Mapping[str, type], name: str, available: Mapping[str, Any]) -> Any:
    """``choices[name]`` with those of ``available`` that its constructor names; None is the constructor's own default.

    Raises ``UserError``, which names kind and choice, for an unknown name, an argument that is missing, and a
    ``ValueError`` of the constructor.
    """
    chosen = choices[one_of(kind, name, choices)]
    parameters = inspect.signature(chosen).parameters
    given = {key: value for key, value in available.items() if key in parameters and value is not None}
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        raise UserError(f"{kind} '{name}' needs {', '.join(missing)}")
    try:
        return chosen(**given)
    except ValueError as error:
        raise UserError(f"{kind} '{name}': {error}") from None


def listed(kinds: Mapping[str, Mapping[str, type]]) -> str:
    """All choices of each kind: name, the first line of the docstring, and the source where there is one."""
    lines = []
    for kind, choices in kinds.items():
        lines.append(kind)
        for name, chosen in choices.items():
            words = " ".join((inspect.getdoc(chosen) or "").split("\n\n")[0].split())
            source = getattr(chosen, "source", "")
            lines.append(f"  {name:26}{words}" + (f" [{source}]" if source else ""))
    return "\n".join(lines)
