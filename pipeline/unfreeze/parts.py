"""Which modules of a backbone are trained: those from one stage on that its features come through."""

from collections.abc import Sequence

from torch import nn

from pipeline.core.params import UserError
from pipeline.extraction.backbones import LAST
from pipeline.extraction.stages import chain, stages

ALL = "all"


def first_trained(model: nn.Module, backbone: str, unfreeze: int | str, layers: Sequence[str] = (LAST,)) -> str | None:
    """The first of the last ``unfreeze`` stages that features of ``layers`` come through, or None for 'all'.

    With as many as there are, what stands before the first stage (the stem) stays frozen. Raises ``UserError`` where
    there are not so many.
    """
    if unfreeze == ALL:
        return None
    unused = behind_layers(model, layers)
    known = [stage for stage in stages(model) if stage not in unused]
    if not known:
        raise UserError(f"unfreeze {unfreeze}: the backbone '{backbone}' has no stages; 'all' trains all of it")
    if not isinstance(unfreeze, int) or not 1 <= unfreeze <= len(known):
        up_to = f" up to {known[-1]}, which the features are of" if unused else ""
        raise UserError(
            f"unfreeze must be from 1 to {len(known)}, the stages of {backbone}{up_to}, or 'all', and is {unfreeze!r}"
        )
    return known[-unfreeze]


def behind_layers(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """The modules of ``model`` behind the last of ``layers``, which their features do not come through."""
    if LAST in layers:
        return []
    parts = chain(model)
    holds = [any(f"{name}.".startswith(f"{part}.") or part.startswith(f"{name}.") for name in layers) for part in parts]
    return parts[len(holds) - holds[::-1].index(True) :]


def trained_parts(model: nn.Module, cut: str) -> Sequence[str]:
    """The modules from stage ``cut`` on, in the order in which the model names them."""
    parts = chain(model)
    return parts[parts.index(cut) :]
