"""Every head with every loss and every sampler: it either trains (tests/test_train.py) or is refused here by name."""

import re

import pytest

from pipeline.adapter.heads import HEADS
from pipeline.core.params import UserError
from pipeline.training.combinations import check, select_by_of, tracks_of
from pipeline.training.losses import LOSSES
from pipeline.training.samplers import SAMPLERS

PLAIN = {
    "model": "mlp", "loss": "supcon", "sampler": "balanced", "pooling": "mean", "window": 15, "epochs": 10,
    "positives": "any", "select_by": None,
}  # fmt: skip


def refused(**changes):
    with pytest.raises(UserError) as error:
        check(**(PLAIN | changes))
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "identity"}, "model 'identity' has nothing to learn, and loss 'supcon' no classifier"),
        ({"model": "attention_pool", "pooling": "centre"}, "one embedding a window: pooling 'centre'"),
        ({"model": "attention_pool", "pooling": "hann"}, "one embedding a window: pooling 'hann'"),
        ({"model": "pair_gate"}, "model 'pair_gate' compares two windows, so its loss must be one of ['pair_bce']"),
        ({"loss": "pair_bce"}, "loss 'pair_bce' is for a head that compares two windows, ['pair_gate']"),
        ({"model": "pair_gate", "loss": "pair_bce"}, "take sampler 'pairs', not 'balanced'"),
        ({"loss": "steadiness"}, "alone has nothing to hold embeddings apart"),
        ({"loss": {"supcon": 1, "steadiness": 1}, "window": 1}, "window must be 2 or more, and is 1"),
        ({"loss": {"supcon": 1, "steadiness": 1}, "model": "attention_pool"}, "model 'attention_pool' gives none"),
        ({"loss": "arcface", "sampler": "temporal"}, "'temporal' looks at no labels, and loss 'arcface' needs them"),
        ({"loss": "rank_n_contrast", "sampler": "views"}, "'views' looks at no labels, and loss 'rank_n_contrast'"),
        ({"sampler": "temporal", "positives": "other_video"}, "positives must be 'any', not 'other_video'"),
        ({"loss": "simsiam", "sampler": "uniform"}, "loss 'simsiam' needs pairs: sampler must be one of ["),
        ({"loss": {"supcon": 1, "vicreg": 1}, "sampler": "uniform"}, "loss 'vicreg' needs pairs"),
        ({"loss": "ccc"}, "sampler 'balanced' draws by class, and loss 'ccc' has no classes: take 'uniform'"),
        ({"loss": "bce", "sampler": "hard_negative"}, "'hard_negative' draws by class, and loss 'bce'"),
        (
            {"loss": "arcface", "sampler": "uniform", "positives": "other_group"},
            "positives 'other_group' changes nothing with loss 'arcface' and sampler 'uniform'",
        ),
        ({"select_by": "macro_f1"}, "loss 'supcon' predicts no classes, so select_by cannot be 'macro_f1'"),
        ({"select_by": "ccc"}, "select_by 'ccc' needs labels that loss 'supcon' does not look at: va"),
        ({"loss": "ccc", "sampler": "uniform", "select_by": "auc_same_different"}, "needs labels that loss 'ccc'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes, words):
    assert words in refused(**changes)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", HEADS)
def test_every_combination_is_taken_or_refused_in_words(model, loss, sampler):
    try:
        check(**(PLAIN | {"model": model, "loss": loss, "sampler": sampler}))
    except UserError as error:
        named = re.findall(r"'(\w+)'", str(error))
        assert {model, loss, sampler} & set(named)


def test_a_linear_probe_on_frozen_features_makes_sense():
    check(**(PLAIN | {"model": "identity", "loss": "cross_entropy"}))


@pytest.mark.parametrize(
    ("loss", "tracks", "select_by"),
    [
        ("supcon", ["expression"], "auc_same_different"),
        ("simsiam", ["expression"], "auc_same_different"),
        ("ccc", ["va"], "ccc"),
        ("rank_n_contrast", ["va"], "rank_correlation_va"),
        ("bce", ["aus"], "au_f1"),
        ({"ccc": 1, "steadiness": 1}, ["va"], "ccc"),
        ({"cross_entropy": 1, "ccc": 1, "bce": 1}, ["expression", "va", "aus"], "auc_same_different"),
    ],
)
def test_the_losses_say_which_labels_a_run_needs_and_what_it_is_chosen_by(loss, tracks, select_by):
    assert tracks_of(loss) == tracks
    assert select_by_of(loss) == select_by
