"""Which heads, losses and samplers go together: what makes no sense is refused by name, before anything is loaded.

Each rule below takes a ``Combination`` and gives the line that refuses it, or None where it does not apply.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.adapter.heads import HEADS
from pipeline.core.params import UserError
from pipeline.metrics.catalogue import METRICS
from pipeline.training.losses import LOSSES
from pipeline.training.losses.build import target_of
from pipeline.training.samplers import SAMPLERS

SELECT_BY = METRICS.shown("select")  # what a run's best epoch may be best at


def names_of(loss: str | Mapping[str, Any]) -> list[str]:
    """The losses that are summed."""
    return [loss] if isinstance(loss, str) else list(loss)


def tracks_of(loss: str | Mapping[str, Any]) -> list[str]:
    """The kinds of labels that training needs, the first of them the one whose official split counts.

    A run whose losses look at no label is scored by the expressions.
    """
    tracks = dict.fromkeys(target_of(name) or "expression" for name in names_of(loss))
    if len(tracks) > 1 and all(target_of(name) != "expression" for name in names_of(loss)):
        tracks.pop("expression", None)  # a term for steadiness beside one for valence
    return list(tracks)


def select_by_of(
    loss: str | Mapping[str, Any], pair_head: bool = False, named_pairs: bool = False, identities: bool = False
) -> str:
    """What the best epoch is best at where ``select_by`` is null. The kind of the first labels decides.

    For expressions it is the AUC of same against different pairs: by the logits of a head for pairs, and with the pairs
    that the label table names, where there are any. For people it is the share of their pairs that is found at an FPR
    of 1e-2.
    """
    if identities:
        return "identification_at_1e-2"
    track = tracks_of(loss)[0]
    if track == "va" and all(LOSSES[name].predicts != "va" for name in names_of(loss)):
        return "rank_correlation_va"
    auc = ("pair_" if pair_head else "") + ("paired_auc" if named_pairs else "auc_same_different")
    return {"expression": auc, "va": "ccc", "aus": "au_f1", "outputs": "pearson"}[track]


def without_effect(loss: str | Mapping[str, Any], given: Collection[str]) -> list[str]:
    """Those of the ``given`` parameters that none of the losses takes, such as the margin of one that has none."""
    taken = {name for term in names_of(loss) for name in inspect.signature(LOSSES[term]).parameters}
    return [name for name in given if name not in taken]


@dataclass(frozen=True)
class Combination:
    """What a run puts together, by the names of its config; ``trains`` is False with 0 epochs."""

    model: str
    loss: str | Mapping[str, Any]
    sampler: str
    pooling: str
    window: int
    positives: str
    select_by: str | None
    trains: bool
    loss_weights: str
    unit: str = "frame"
    clip_pooling: str = "logits"
    clip_windows: int | None = None
    unfreeze: bool = False

    @cached_property
    def head(self) -> Any:
        return HEADS[self.model]

    @cached_property
    def draws(self) -> Any:
        """The sampler's class."""
        return SAMPLERS[self.sampler]

    @cached_property
    def terms(self) -> dict[str, Any]:
        """The classes of the losses that are summed."""
        return {name: LOSSES[name] for name in names_of(self.loss)}

    @property
    def losses(self) -> str:
        """The losses as a message names them."""
        return " + ".join(self.terms)

    @property
    def takes(self) -> set[str]:
        """The entries of a batch that the losses take."""
        return {entry for term in self.terms.values() for entry in term.takes}

    @property
    def predicted(self) -> set[str]:
        """What the losses train a predictor for."""
        return {term.predicts for term in self.terms.values()} - {None}

    def first_loss(self, condition: Callable[[str, Any], Any]) -> str | None:
        """The first of the losses for whose name and class ``condition`` is true."""
        return next((name for name, term in self.terms.items() if condition(name, term)), None)


def nothing_to_learn(c: Combination) -> str | None:
    if c.trains and not c.head.learns and not c.predicted and not c.unfreeze:
        return f"model '{c.model}' has nothing to learn, and loss '{c.losses}' no classifier: give --epochs 0"
    return None


def pooling_of_a_head_that_pools(c: Combination) -> str | None:
    if c.head.pools and c.pooling != "mean":
        return f"model '{c.model}' gives one embedding a window: pooling '{c.pooling}' has no frames to take"
    return None


def pair_head_without_a_pair_loss(c: Combination) -> str | None:
    if c.head.pairs and "pair_logits" not in c.takes:
        pair_losses = [name for name, term in LOSSES.items() if "pair_logits" in term.takes]
        return f"model '{c.model}' compares two windows, so its loss must be one of {pair_losses}, and is '{c.losses}'"
    return None


def pair_loss_without_a_pair_head(c: Combination) -> str | None:
    if "pair_logits" in c.takes and not c.head.pairs:
        pair_heads = [name for name, head in HEADS.items() if head.pairs]
        return f"loss '{c.losses}' is for a head that compares two windows, {pair_heads}, and the model is '{c.model}'"
    return None


def pair_head_without_the_pair_sampler(c: Combination) -> str | None:
    if c.head.pairs and c.sampler != "pairs":
        return f"model '{c.model}' learns from same and different pairs: take sampler 'pairs', not '{c.sampler}'"
    return None


def steadiness_alone(c: Combination) -> str | None:
    if all("frames" in term.takes for term in c.terms.values()):
        return f"loss '{next(iter(c.terms))}' alone does not keep embeddings apart: sum it with another loss"
    return None


def frames_of_a_head_that_pools(c: Combination) -> str | None:
    if (name := c.first_loss(lambda _, term: "frames" in term.takes)) and c.head.pools:
        return f"loss '{name}' compares frames of a window, and model '{c.model}' gives none"
    return None


def neighbours_in_a_window_of_one_frame(c: Combination) -> str | None:
    if (name := c.first_loss(lambda _, term: "frames" in term.takes)) and c.window < 2:
        return f"loss '{name}' compares neighbouring frames: window must be 2 or more, and is {c.window}"
    return None


def labels_that_the_sampler_does_not_look_at(c: Combination) -> str | None:
    labelled = c.first_loss(lambda name, term: term.predicts or target_of(name) in ("va", "aus"))
    if c.draws.self_supervised and labelled:
        return f"sampler '{c.sampler}' looks at no labels, and loss '{labelled}' needs them"
    return None


def positives_of_a_self_supervised_sampler(c: Combination) -> str | None:
    if c.draws.self_supervised and c.positives != "any":
        return f"sampler '{c.sampler}' makes its own positives: positives must be 'any', not '{c.positives}'"
    return None


def loss_of_pairs_without_pairs(c: Combination) -> str | None:
    if (name := c.first_loss(lambda _, term: not term.takes)) and not c.draws.paired:
        paired = sorted(name for name, sampler in SAMPLERS.items() if sampler.paired)
        return f"loss '{name}' needs pairs: sampler must be one of {paired}, not '{c.sampler}'"
    return None


def classes_that_the_loss_does_not_have(c: Combination) -> str | None:
    if c.draws.needs_classes and "expression" not in tracks_of(c.loss):
        return f"sampler '{c.sampler}' draws by class, and loss '{c.losses}' has no classes: take 'uniform'"
    return None


def tracks_of_one_kind(c: Combination) -> str | None:
    if c.sampler == "tracks" and len(tracks := tracks_of(c.loss)) < 2:
        return f"sampler 'tracks' shares batches among kinds of labels, and loss '{c.losses}' looks at one: {tracks[0]}"
    return None


def learned_weight_of_one_loss(c: Combination) -> str | None:
    if c.loss_weights == "learned" and len(c.terms) == 1:
        return f"loss_weights 'learned' weighs losses against each other, and '{c.losses}' is alone: take 'fixed'"
    return None


def learned_weight_of_no_likelihood(c: Combination) -> str | None:
    name = c.first_loss(lambda _, term: term.likelihood is None)
    if c.loss_weights == "learned" and len(c.terms) > 1 and name:
        return f"loss_weights 'learned' is for likelihoods, and loss '{name}' is none: its weight would have no bound"
    return None


def positives_without_effect(c: Combination) -> str | None:
    used = "groups" in c.takes or "positives" in inspect.signature(c.draws).parameters
    if c.positives != "any" and not used:
        return f"positives '{c.positives}' has no effect with loss '{c.losses}' and sampler '{c.sampler}'"
    return None


def select_by_of_other_labels(c: Combination) -> str | None:
    if c.select_by is None:
        return None
    lacking = [track for track in SELECT_BY[c.select_by].source.tracks if track not in tracks_of(c.loss)]
    if lacking:
        return f"select_by '{c.select_by}' needs labels that loss '{c.losses}' does not look at: {', '.join(lacking)}"
    return None


def select_by_of_a_pair_head(c: Combination) -> str | None:
    if c.select_by is not None and "pairs" in (of := SELECT_BY[c.select_by].source).needs and not c.head.pairs:
        sources = {name: entry.source for name, entry in SELECT_BY.items()}
        fitting = (name for name, other in sources.items() if other.tracks == of.tracks and not other.needs)
        others = [name for name in fitting if sources[name].identities == of.identities]
        return f"select_by '{c.select_by}' is for a head for pairs; with model '{c.model}' it may be {others}"
    return None


def select_by_of_what_is_not_predicted(c: Combination) -> str | None:
    if c.select_by is None or select_by_of_other_labels(c):
        return None
    lacking = [what for what in SELECT_BY[c.select_by].source.needs if what not in ("pairs", *c.predicted)]
    if lacking:
        return f"loss '{c.losses}' predicts no {' and no '.join(lacking)}, so select_by cannot be '{c.select_by}'"
    return None


def centre_of_a_window_of_a_clip(c: Combination) -> str | None:
    if c.unit == "clip" and c.pooling == "centre" and c.window > 1:
        return f"pooling 'centre' takes one frame of {c.window}, and a clip's label is of all: take 'mean' or 'hann'"
    return None


def pair_head_of_clips(c: Combination) -> str | None:
    if c.unit == "clip" and c.head.pairs:
        return f"model '{c.model}' compares two windows, and clips have several: unit must be 'frame'"
    return None


def outputs_of_frames(c: Combination) -> str | None:
    if c.unit == "frame" and (name := c.first_loss(lambda name, _: target_of(name) == "outputs")):
        return f"loss '{name}' learns continuous outputs, which only clips have: unit must be 'clip'"
    return None


def attention_of_a_head_without(c: Combination) -> str | None:
    if c.unit == "clip" and c.clip_pooling == "attention" and not c.head.attends:
        attending = [name for name, head in HEADS.items() if head.attends]
        return (
            f"clip_pooling 'attention' needs a head with attention, one of {attending}, and model '{c.model}' has none"
        )
    return None


def largest_of_values(c: Combination) -> str | None:
    if c.unit == "clip" and c.clip_pooling == "top_k" and (values := sorted(c.predicted & {"va", "outputs"})):
        return f"clip_pooling 'top_k' is for logits, and loss '{c.losses}' predicts values ({', '.join(values)})"
    return None


def drawn_windows_of_a_sampler_that_looks_at_all(c: Combination) -> str | None:
    if c.unit == "clip" and c.clip_windows is not None and c.draws.needs_embeddings:
        return f"sampler '{c.sampler}' looks at all windows: clip_windows must be null, and is {c.clip_windows}"
    return None


def select_by_of_clips(c: Combination) -> str | None:
    if c.unit == "frame" and c.select_by is not None and SELECT_BY[c.select_by].source.clips:
        return f"select_by '{c.select_by}' is for clips: unit must be 'clip'"
    return None


RULES: tuple[Callable[[Combination], str | None], ...] = (  # the first that applies speaks
    nothing_to_learn,
    pooling_of_a_head_that_pools,
    pair_head_without_a_pair_loss,
    pair_loss_without_a_pair_head,
    pair_head_without_the_pair_sampler,
    steadiness_alone,
    frames_of_a_head_that_pools,
    neighbours_in_a_window_of_one_frame,
    labels_that_the_sampler_does_not_look_at,
    positives_of_a_self_supervised_sampler,
    loss_of_pairs_without_pairs,
    classes_that_the_loss_does_not_have,
    tracks_of_one_kind,
    learned_weight_of_one_loss,
    learned_weight_of_no_likelihood,
    positives_without_effect,
    select_by_of_other_labels,
    select_by_of_a_pair_head,
    select_by_of_what_is_not_predicted,
    centre_of_a_window_of_a_clip,
    pair_head_of_clips,
    outputs_of_frames,
    attention_of_a_head_without,
    largest_of_values,
    drawn_windows_of_a_sampler_that_looks_at_all,
    select_by_of_clips,
)


def refuse_combination(combination: Combination) -> None:
    """Raises ``UserError`` where the parts cannot work together, or where one of them would have no effect."""
    for rule in RULES:
        if line := rule(combination):
            raise UserError(line)
