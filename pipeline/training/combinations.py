"""Which heads, losses and samplers go together: what makes no sense is refused by name, before anything is loaded."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.adapter.heads import HEADS
from pipeline.core.params import UserError
from pipeline.training.losses import LOSSES
from pipeline.training.losses.build import target_of
from pipeline.training.samplers import SAMPLERS

# What a run's best epoch may be best at: of which labels, and what its losses must predict for it.
SELECT_BY = {
    "auc_same_different": ("expression", None),
    "pair_f1": ("expression", None),
    "macro_f1": ("expression", "classes"),
    "rank_correlation_va": ("va", None),
    "ccc": ("va", "va"),
    "au_f1": ("aus", "aus"),
}


def names_of(loss: str | Mapping[str, Any]) -> list[str]:
    """The losses that are summed."""
    return [loss] if isinstance(loss, str) else list(loss)


def tracks_of(loss: str | Mapping[str, Any]) -> list[str]:
    """The kinds of labels that training needs, the first of them the one whose official split counts.

    Losses that look at no label are watched and evaluated by the expressions.
    """
    found = dict.fromkeys(target_of(name) or "expression" for name in names_of(loss))
    if len(found) > 1 and all(target_of(name) != "expression" for name in names_of(loss)):
        found.pop("expression", None)  # a term for steadiness beside one for valence
    return list(found)


def check(
    model: str, loss: str | Mapping[str, Any], sampler: str, *, pooling: str, window: int, epochs: int, positives: str,
    select_by: str | None,
) -> None:  # fmt: skip
    """Raises ``UserError`` where these parts cannot work together, or where one of them would have no effect."""
    head, names, draws = HEADS[model], names_of(loss), SAMPLERS[sampler]
    terms = {name: LOSSES[name] for name in names}
    predicted = {term.predicts for term in terms.values()} - {None}
    takes = {name for term in terms.values() for name in term.takes}
    self_supervised = draws.self_supervised
    listed = " + ".join(names)

    if not head.learns and epochs > 0 and not predicted:
        raise UserError(f"model '{model}' has nothing to learn, and loss '{listed}' no classifier: give --epochs 0")
    if head.pools and pooling != "mean":
        raise UserError(f"model '{model}' gives one embedding a window: pooling '{pooling}' has no frames to take")
    if head.pairs != ("pair_logits" in takes):
        pairing = [name for name, term in LOSSES.items() if "pair_logits" in term.takes]
        pair_heads = [name for name, h in HEADS.items() if h.pairs]
        raise UserError(
            f"model '{model}' compares two windows, so its loss must be one of {pairing}, and is '{listed}'"
            if head.pairs
            else f"loss '{listed}' is for a head that compares two windows, {pair_heads}, and the model is '{model}'"
        )
    if head.pairs and sampler != "pairs":
        raise UserError(f"model '{model}' learns from same and different pairs: take sampler 'pairs', not '{sampler}'")
    _check_steadiness(terms, head, model, window)

    if self_supervised:
        labelled = [name for name, term in terms.items() if term.predicts or target_of(name) in ("va", "aus")]
        if labelled:
            raise UserError(f"sampler '{sampler}' looks at no labels, and loss '{labelled[0]}' needs them")
        if positives != "any":
            raise UserError(f"sampler '{sampler}' makes its own positives: positives must be 'any', not '{positives}'")
    without_labels = [name for name, term in terms.items() if not term.takes]
    if without_labels and not draws.paired:
        paired = sorted(name for name, s in SAMPLERS.items() if s.paired)
        raise UserError(f"loss '{without_labels[0]}' needs pairs: sampler must be one of {paired}, not '{sampler}'")
    if draws.needs_classes and "expression" not in tracks_of(loss):
        raise UserError(f"sampler '{sampler}' draws by class, and loss '{listed}' has no classes: take 'uniform'")
    if positives != "any" and "groups" not in takes and "positives" not in _arguments(draws):
        raise UserError(f"positives '{positives}' changes nothing with loss '{listed}' and sampler '{sampler}'")
    if select_by is not None:
        track, prediction = SELECT_BY[select_by]
        if track not in tracks_of(loss):
            raise UserError(f"select_by '{select_by}' needs labels that loss '{listed}' does not look at: {track}")
        if prediction and prediction not in predicted:
            raise UserError(f"loss '{listed}' predicts no {prediction}, so select_by cannot be '{select_by}'")


def select_by_of(loss: str | Mapping[str, Any]) -> str:
    """What the best epoch is best at, where nobody says: by the kind of the first labels."""
    track = tracks_of(loss)[0]
    if track == "va" and all(LOSSES[name].predicts != "va" for name in names_of(loss)):
        return "rank_correlation_va"
    return {"expression": "auc_same_different", "va": "ccc", "aus": "au_f1"}[track]


def without_effect(loss: str | Mapping[str, Any], given: Collection[str]) -> list[str]:
    """Those of the ``given`` parameters that none of the losses takes, such as the margin of one that has none."""
    taken = {name for term in names_of(loss) for name in inspect.signature(LOSSES[term]).parameters}
    return [name for name in given if name not in taken]


def _check_steadiness(terms: Mapping[str, Any], head: Any, model: str, window: int) -> None:
    steady = [name for name, term in terms.items() if "frames" in term.takes]
    if not steady:
        return
    if len(terms) == len(steady):
        raise UserError(f"loss '{steady[0]}' alone has nothing to hold embeddings apart: sum it with another loss")
    if head.pools:
        raise UserError(f"loss '{steady[0]}' compares frames of a window, and model '{model}' gives none")
    if window < 2:
        raise UserError(f"loss '{steady[0]}' compares neighbouring frames: window must be 2 or more, and is {window}")


def _arguments(chosen: type) -> Collection[str]:
    return chosen.__init__.__code__.co_varnames
