"""Making the sampler of a run."""

import inspect
from collections.abc import Mapping
from typing import Any

from pipeline.core.choices import build
from pipeline.core.params import UserError, one_of
from pipeline.training.samplers import SAMPLERS
from pipeline.training.samplers.common import Sampler

# What training hands to each that names it; all further arguments of a constructor are options of the user.
HANDED = ("labels", "videos", "groups", "frames", "known", "batch_size", "seed", "positives", "opposites")


def options_of(name: str) -> list[str]:
    """The options that the named sampler has of its own."""
    return [key for key in inspect.signature(SAMPLERS[name]).parameters if key not in HANDED]


def build_sampler(name: str, options: Mapping[str, Any] | None = None, **available: Any) -> Sampler:
    """The named sampler; it gets those of ``available`` that its constructor names, and None is its own default.

    Raises ``UserError`` for an unknown name, an option that the sampler has not, a missing argument and data that the
    sampler cannot use.
    """
    one_of("sampler", name, SAMPLERS)
    for key in options or {}:
        if key not in options_of(name):
            takes = f"has {options_of(name)}" if options_of(name) else "has none"
            raise UserError(f"sampler '{name}' has no option '{key}': it {takes}")
    return build("sampler", SAMPLERS, name, available | dict(options or {}))
