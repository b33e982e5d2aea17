"""Making the loss of a run: the named terms, their options, and the weighted sum of them."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pipeline.core.choices import build
from pipeline.core.params import UserError, one_of
from pipeline.training.losses import LOSSES
from pipeline.training.losses.common import Loss, is_number, zero

# Which rows have a target.
KNOWN = {
    "labels": lambda labels: labels >= 0,
    "va": lambda va: va.isfinite().all(dim=1),
    "aus": lambda aus: (~aus.isnan()).any(dim=1),
    "outputs": lambda outputs: (~outputs.isnan()).any(dim=1),
}
TARGETS = {"labels": "expression", "va": "va", "aus": "aus", "outputs": "outputs"}
OPTIONAL = ("groups",)  # entries of a batch that may be absent
# Constructor arguments that follow from data and head, and are no option of the user.
GIVEN = ("num_classes", "embedding_size", "num_aus", "num_outputs", "class_counts")


LOSS_WEIGHTS = ("fixed", "learned")
# What the variance σ² divides a term by, by the kind of its likelihood: 2 σ² or σ².
OF_VARIANCE = {"regression": 2.0, "classification": 1.0}


class WeightedSum(nn.Module):
    """Σ weight · term, of named terms.

    A term gets the rows that have its target: a label >= 0, valence and arousal both, at least one action unit or
    output; a positional one the pairs of which both have it. Where none is left its value is zero, with a gradient.

    With ``learned`` each term has a variance σ², and the sum is Σ term / (2 σ²) + log σ over regressions and
    Σ term / σ² + log σ over classifications: Kendall, Gal and Cipolla 2018, eq. 7 and 10,
    https://arxiv.org/abs/1705.07115. Learned is s = log σ², so that a weight is exp(-s) / 2 or exp(-s), and log σ is
    s / 2. ``weights`` are those at the start. Where a term stays at a value, its weight goes to 1 / (2 · value) with
    either kind. The paper's regressions are squared errors; here 1 - CCC stands in their place. A batch without a row
    of a term has nothing to do with its variance: neither its value nor log σ is in the sum.
    """

    def __init__(self, terms: Mapping[str, Loss], weights: Mapping[str, float], learned: bool = False):
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)
        starts = (
            {name: -math.log(OF_VARIANCE[terms[name].likelihood] * weights[name]) for name in terms} if learned else {}
        )
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.tensor(s)) for name, s in starts.items()})
        self.takes = tuple(dict.fromkeys(entry for term in terms.values() for entry in term.takes))
        # What the predictors are that the terms train, by the names of the terms: see adapter.predictors.Predictors.
        self.trains = {name: term.trains for name, term in terms.items() if term.trains}

    def forward(
        self, embeddings: torch.Tensor, batch: Mapping[str, torch.Tensor], predictors: Mapping[str, nn.Module]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sum, and each term's unweighted value, detached.

        ``batch`` has what ``takes`` names, ``predictors`` what ``trains`` names.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            values, parts = {}, []
            for name, term in self.terms.items():
                value, is_there = self._value(term, embeddings, batch, predictors[name] if term.trains else None)
                values[name] = value
                parts.append(self._weighted(name, value) if is_there else value)
        return sum(parts), {name: value.detach() for name, value in values.items()}

    def present_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are learned, as they are now; none where all are fixed."""
        return {
            name: s.detach().neg().exp() / OF_VARIANCE[self.terms[name].likelihood]
            for name, s in self.log_variances.items()
        }

    def _weighted(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.log_variances:
            return self.weights[name] * value
        s = self.log_variances[name]
        return s.neg().exp() / OF_VARIANCE[self.terms[name].likelihood] * value + s / 2

    def _value(
        self, term: Loss, embeddings: torch.Tensor, batch: Mapping[str, torch.Tensor], predictor: nn.Module | None
    ) -> tuple[torch.Tensor, bool]:
        """The value of a term, and whether there is any row for it."""
        given = {"embeddings": embeddings} | {name: batch[name] for name in term.takes if name not in OPTIONAL}
        given |= {name: batch[name] for name in OPTIONAL if name in term.takes and batch.get(name) is not None}
        given = {name: x.float() if x.is_floating_point() else x for name, x in given.items()}
        known = [KNOWN[name](x) for name, x in given.items() if name in KNOWN]
        if known:
            known = torch.stack(known).all(dim=0)
            if term.positional:
                known = (known[0 : len(known) // 2 * 2 : 2] & known[1::2]).repeat_interleave(2)
            rows = known.nonzero().squeeze(1)
            if len(rows) == 0:
                return zero(*(x for x in given.values() if x.requires_grad)), False
            if len(rows) < len(embeddings):
                pairs = rows[1::2] // 2
                given = {name: x[pairs if name == "pair_logits" else rows] for name, x in given.items()}
        compared = given["embeddings"] if predictor is None else predictor(given["embeddings"])
        return term(compared, *(given.get(name) for name in term.takes)), True


def build_loss(
    spec: str | Mapping[str, Any], options: Mapping[str, Any] | None = None, weights_are: str = "fixed",
    **available: Any,
) -> WeightedSum:  # fmt: skip
    """The weighted sum of the named losses.

    ``spec``: 'supcon', or {'arcface': 1.0, 'triplet': 0.5}, or {'triplet': {'weight': 0.5, 'margin': 0.3}}. A term
    gets those arguments that its constructor names: its own of ``spec``, else of ``options``, else of ``available``;
    None is its own default. ``weights_are`` is one of ``LOSS_WEIGHTS``.

    Raises ``UserError`` for an unknown name, a weight below 0, one of 0 that is to be learned, an option that no term
    has, a missing argument (``num_classes`` where labels are no classes) and a value out of range.
    """
    weights, own = {}, {}
    for name, value in _terms(spec).items():
        own[name] = dict(value) if isinstance(value, Mapping) else {"weight": value}
        weight = weights[name] = own[name].pop("weight", 1.0)
        if not is_number(weight) or not 0 <= weight < math.inf:
            raise UserError(f"loss '{name}': its weight must be 0 or more, and is {weight!r}")
        if weight == 0 and weights_are == "learned":
            raise UserError(f"loss '{name}': its weight is to be learned, and must start above 0")
        for option in own[name]:
            one_of(f"loss '{name}': option", option, options_of(name))
    for option in options or {}:
        if not any(option in options_of(name) for name in own):
            known = "; ".join(f"{name} {options_of(name)}" for name in own)
            raise UserError(f"loss_options: no loss of this run takes '{option}'. They take: {known}")
    terms = {name: build("loss", LOSSES, name, {**available, **(options or {}), **own[name]}) for name in own}
    return WeightedSum(terms, weights, weights_are == "learned")


def target_of(name: str) -> str | None:
    """What the named loss learns from, one of the values of ``TARGETS``; None where it needs no labels of windows."""
    return next((TARGETS[entry] for entry in LOSSES[one_of("loss", name, LOSSES)].takes if entry in TARGETS), None)


def _terms(spec: str | Mapping[str, Any]) -> Mapping[str, Any]:
    terms = {spec: 1.0} if isinstance(spec, str) else spec
    if not isinstance(terms, Mapping) or not terms:
        raise UserError(f"loss must be a name, or a mapping of names to weights, and is {spec!r}")
    for name in terms:
        one_of("loss", name, LOSSES)
    return terms


def options_of(name: str) -> list[str]:
    """The options that the named loss has of its own."""
    return [key for key in inspect.signature(LOSSES[name]).parameters if key not in GIVEN]
