"""Which heads, losses and samplers go together, against a table written by hand, and every rule by cases of its own."""

import re

import pytest

from pipeline.adapter.heads import HEADS
from pipeline.core.params import UserError
from pipeline.training.combinations import (
    RULES,
    SELECT_BY,
    Combination,
    refuse_combination,
    select_by_of,
    tracks_of,
)
from pipeline.training.losses import LOSSES
from pipeline.training.samplers import SAMPLERS

PLAIN = {
    "model": "mlp", "loss": "supcon", "sampler": "balanced", "pooling": "mean", "window": 15, "trains": True,
    "positives": "any", "select_by": None, "loss_weights": "fixed",
}  # fmt: skip

# The heads that may go with a loss (row) and a sampler (column).
WITH_WEIGHTS = {"peterson", "original", "mlp", "tcn", "gru", "transformer", "attention_pool"}
CELLS = {"-": set(), "w": WITH_WEIGHTS, "i": WITH_WEIGHTS | {"identity"}, "p": {"pair_gate"}}
TABLE = """
                      uniform balanced per_class_negatives hard_negative semi_hard opposite temporal views pairs tracks
contrastive_cross_entropy   w        w                   w             w         w        w        w     w     w      -
supcon                      w        w                   w             w         w        w        w     w     w      -
triplet                     w        w                   w             w         w        w        w     w     w      -
multi_similarity            w        w                   w             w         w        w        w     w     w      -
circle                      w        w                   w             w         w        w        w     w     w      -
pair_bce                    -        -                   -             -         -        -        -     -     p      -
rank_n_contrast             w        -                   -             -         -        -        -     -     -      -
arcface                     i        i                   i             i         i        i        -     -     i      -
cosface                     i        i                   i             i         i        i        -     -     i      -
proxy_anchor                i        i                   i             i         i        i        -     -     i      -
cross_entropy               i        i                   i             i         i        i        -     -     i      -
ccc                         i        -                   -             -         -        -        -     -     -      -
bce                         i        -                   -             -         -        -        -     -     -      -
mse                         -        -                   -             -         -        -        -     -     -      -
pearson                     -        -                   -             -         -        -        -     -     -      -
simsiam                     -        w                   w             w         w        w        w     w     -      -
vicreg                      -        w                   w             w         w        w        w     w     -      -
steadiness                  -        -                   -             -         -        -        -     -     -      -
"""
COLUMNS, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELL = {(row[0], sampler): CELLS[cell] for row in ROWS for sampler, cell in zip(COLUMNS, row[1:], strict=True)}


def combination(**changes) -> Combination:
    return Combination(**(PLAIN | changes))


def line(**changes) -> str | None:
    """The line that refuses the combination; None where it is taken."""
    try:
        refuse_combination(combination(**changes))
    except UserError as error:
        return str(error)
    return None


def test_the_table_has_every_head_loss_and_sampler():
    assert set(CELL) == {(loss, sampler) for loss in LOSSES for sampler in SAMPLERS}
    assert set.union(*CELLS.values()) == set(HEADS)


@pytest.mark.parametrize("loss", LOSSES)
def test_heads_and_samplers_go_with_a_loss_as_the_table_says(loss):
    for sampler in SAMPLERS:
        refused = {model: line(model=model, loss=loss, sampler=sampler) for model in HEADS}
        assert {model for model, words in refused.items() if words is None} == CELL[loss, sampler], sampler
        for model, words in refused.items():
            assert words is None or {model, loss, sampler} & set(re.findall(r"'(\w+)'", words))


# For each rule: what only this rule refuses, what it says, and the nearest that is taken.
CLIP = {"unit": "clip"}
STEADY = {"supcon": 1, "steadiness": 1}
CASES = {
    "nothing_to_learn": [
        (
            {"model": "identity"},
            "model 'identity' has nothing to learn, and loss 'supcon' no classifier: give --epochs 0",
            [{"model": "identity", "trains": False}, {"model": "identity", "loss": "cross_entropy"}],
        )
    ],
    "pooling_of_a_head_that_pools": [
        (
            {"model": "attention_pool", "pooling": pooling},
            f"model 'attention_pool' gives one embedding a window: pooling '{pooling}' has no frames to take",
            [{"model": "attention_pool"}, {"model": "transformer", "pooling": pooling}],
        )
        for pooling in ("centre", "hann")
    ],
    "pair_head_without_a_pair_loss": [
        (
            {"model": "pair_gate", "sampler": "pairs"},
            "model 'pair_gate' compares two windows, so its loss must be one of ['pair_bce'], and is 'supcon'",
            [{"model": "pair_gate", "sampler": "pairs", "loss": {"supcon": 1, "pair_bce": 1}}],
        )
    ],
    "pair_loss_without_a_pair_head": [
        (
            {"loss": "pair_bce"},
            "loss 'pair_bce' is for a head that compares two windows, ['pair_gate'], and the model is 'mlp'",
            [{"loss": "pair_bce", "model": "pair_gate", "sampler": "pairs"}],
        )
    ],
    "pair_head_without_the_pair_sampler": [
        (
            {"model": "pair_gate", "loss": "pair_bce"},
            "model 'pair_gate' learns from same and different pairs: take sampler 'pairs', not 'balanced'",
            [{"model": "pair_gate", "loss": "pair_bce", "sampler": "pairs"}],
        )
    ],
    "steadiness_alone": [
        (
            {"loss": "steadiness"},
            "loss 'steadiness' alone does not keep embeddings apart: sum it with another loss",
            [{"loss": STEADY}],
        )
    ],
    "frames_of_a_head_that_pools": [
        (
            {"loss": STEADY, "model": "attention_pool"},
            "loss 'steadiness' compares frames of a window, and model 'attention_pool' gives none",
            [{"loss": STEADY, "model": "transformer"}, {"model": "attention_pool"}],
        )
    ],
    "neighbours_in_a_window_of_one_frame": [
        (
            {"loss": STEADY, "window": 1},
            "loss 'steadiness' compares neighbouring frames: window must be 2 or more, and is 1",
            [{"loss": STEADY, "window": 2}, {"window": 1}],
        )
    ],
    "labels_that_the_sampler_does_not_look_at": [
        (
            {"loss": "arcface", "sampler": "temporal"},
            "sampler 'temporal' looks at no labels, and loss 'arcface' needs them",
            [{"loss": "arcface", "sampler": "uniform"}, {"sampler": "temporal"}],
        ),
        (
            {"loss": {"supcon": 1, "rank_n_contrast": 1}, "sampler": "views"},
            "sampler 'views' looks at no labels, and loss 'rank_n_contrast' needs them",
            [{"loss": {"supcon": 1, "rank_n_contrast": 1}}],
        ),
    ],
    "positives_of_a_self_supervised_sampler": [
        (
            {"sampler": "temporal", "positives": "other_video"},
            "sampler 'temporal' makes its own positives: positives must be 'any', not 'other_video'",
            [{"sampler": "temporal"}, {"positives": "other_video"}],
        )
    ],
    "loss_of_pairs_without_pairs": [
        (
            {"loss": loss, "sampler": "uniform"},
            f"loss '{name}' needs pairs: sampler must be one of ['balanced', 'hard_negative', 'opposite', "
            "'per_class_negatives', 'semi_hard', 'temporal', 'views'], not 'uniform'",
            [{"loss": loss}, {"loss": "supcon", "sampler": "uniform"}],
        )
        for name, loss in (("simsiam", "simsiam"), ("vicreg", {"supcon": 1, "vicreg": 1}))
    ],
    "classes_that_the_loss_does_not_have": [
        (
            {"loss": "ccc", "sampler": sampler},
            f"sampler '{sampler}' draws by class, and loss 'ccc' has no classes: take 'uniform'",
            [{"loss": "ccc", "sampler": "uniform"}, {"loss": {"ccc": 1, "supcon": 1}, "sampler": sampler}],
        )
        for sampler in ("balanced", "hard_negative")
    ],
    "tracks_of_one_kind": [
        (
            {"loss": loss, "sampler": "tracks"},
            f"sampler 'tracks' shares batches among kinds of labels, and loss '{words}' looks at one: {track}",
            [{"loss": {"cross_entropy": 1, "ccc": 1}, "sampler": "tracks"}, {"loss": "supcon"}],
        )
        for loss, words, track in (
            ("supcon", "supcon", "expression"),
            ({"ccc": 1, "rank_n_contrast": 1}, "ccc + rank_n_contrast", "va"),
        )
    ],
    "learned_weight_of_one_loss": [
        (
            {"loss": "cross_entropy", "loss_weights": "learned"},
            "loss_weights 'learned' weighs losses against each other, and 'cross_entropy' is alone: take 'fixed'",
            [{"loss": {"cross_entropy": 1, "supcon": 1}, "loss_weights": "learned"}, {"loss": "cross_entropy"}],
        )
    ],
    "learned_weight_of_no_likelihood": [
        (
            {"loss": {"cross_entropy": 1, name: 1}, "loss_weights": "learned"},
            f"loss_weights 'learned' is for likelihoods, and loss '{name}' is none: its weight would have no bound",
            [
                {"loss": {"cross_entropy": 1, name: 1}},
                {"loss": {"cross_entropy": 1, "ccc": 1}, "loss_weights": "learned"},
            ],
        )
        for name in ("triplet", "steadiness", "vicreg", "proxy_anchor", "circle")
    ],
    "positives_without_effect": [
        (
            {"loss": "arcface", "sampler": "uniform", "positives": "other_group"},
            "positives 'other_group' has no effect with loss 'arcface' and sampler 'uniform'",
            [
                {"loss": "arcface", "sampler": "uniform"},
                {"loss": "arcface", "positives": "other_group"},
                {"sampler": "uniform", "positives": "other_group"},
            ],
        )
    ],
    "select_by_of_other_labels": [
        (
            {"loss": "rank_n_contrast", "sampler": "uniform", "select_by": "auc_same_different"},
            "select_by 'auc_same_different' needs labels that loss 'rank_n_contrast' does not look at: expression",
            [{"loss": "rank_n_contrast", "sampler": "uniform", "select_by": "rank_correlation_va"}],
        ),
        (
            {"loss": {"cross_entropy": 1, "ccc": 1}, "select_by": "p_mtl"},
            "select_by 'p_mtl' needs labels that loss 'cross_entropy + ccc' does not look at: aus",
            [{"loss": {"cross_entropy": 1, "ccc": 1, "bce": 1}, "select_by": "p_mtl"}],
        ),
    ],
    "select_by_of_a_pair_head": [
        (
            {"select_by": "pair_f1"},
            "select_by 'pair_f1' is for a head for pairs; with model 'mlp' it may be ['auc_same_different', "
            "'paired_auc', 'paired_best_f1']",
            [
                {"select_by": "paired_best_f1"},
                {"model": "pair_gate", "loss": "pair_bce", "sampler": "pairs", "select_by": "pair_f1"},
            ],
        )
    ],
    "select_by_of_what_is_not_predicted": [
        (
            {"select_by": "macro_f1"},
            "loss 'supcon' predicts no classes, so select_by cannot be 'macro_f1'",
            [{"select_by": "paired_auc"}, {"loss": "arcface", "select_by": "macro_f1"}],
        ),
        (
            {"loss": "rank_n_contrast", "sampler": "uniform", "select_by": "ccc"},
            "loss 'rank_n_contrast' predicts no va, so select_by cannot be 'ccc'",
            [{"loss": "ccc", "sampler": "uniform", "select_by": "ccc"}],
        ),
        (
            {"loss": {"supcon": 1, "rank_n_contrast": 1, "bce": 1}, "select_by": "p_mtl"},
            "loss 'supcon + rank_n_contrast + bce' predicts no classes and no va, so select_by cannot be 'p_mtl'",
            [{"loss": {"cross_entropy": 1, "ccc": 1, "bce": 1}, "select_by": "p_mtl"}],
        ),
    ],
    "centre_of_a_window_of_a_clip": [
        (
            CLIP | {"pooling": "centre"},
            "pooling 'centre' takes one frame of 15, and a clip's label is of all: take 'mean' or 'hann'",
            [CLIP | {"pooling": "hann"}, CLIP | {"pooling": "centre", "window": 1}, {"pooling": "centre"}],
        )
    ],
    "pair_head_of_clips": [
        (
            CLIP | {"model": "pair_gate", "loss": "pair_bce", "sampler": "pairs"},
            "model 'pair_gate' compares two windows, and clips have several: unit must be 'frame'",
            [{"model": "pair_gate", "loss": "pair_bce", "sampler": "pairs"}],
        )
    ],
    "outputs_of_frames": [
        (
            {"loss": loss, "sampler": "uniform"},
            f"loss '{loss}' learns continuous outputs, which only clips have: unit must be 'clip'",
            [CLIP | {"loss": loss, "sampler": "uniform", "select_by": "pearson"}],
        )
        for loss in ("mse", "pearson")
    ],
    "attention_of_a_head_without": [
        (
            CLIP | {"clip_pooling": "attention"},
            "clip_pooling 'attention' needs a head with attention, one of ['attention_pool'], and model 'mlp' has none",
            [CLIP | {"clip_pooling": "attention", "model": "attention_pool"}, {"clip_pooling": "attention"}],
        )
    ],
    "largest_of_values": [
        (
            CLIP | {"clip_pooling": "top_k", "loss": {"mse": 1, "cross_entropy": 1}},
            "clip_pooling 'top_k' is for logits, and loss 'mse + cross_entropy' predicts values (outputs)",
            [CLIP | {"clip_pooling": "top_k", "loss": {"bce": 1, "cross_entropy": 1}}],
        )
    ],
    "drawn_windows_of_a_sampler_that_looks_at_all": [
        (
            CLIP | {"clip_windows": 2, "sampler": "hard_negative"},
            "sampler 'hard_negative' looks at all windows: clip_windows must be null, and is 2",
            [CLIP | {"sampler": "hard_negative"}, CLIP | {"clip_windows": 2}],
        )
    ],
    "select_by_of_clips": [
        (
            {"loss": "arcface", "select_by": name},
            f"select_by '{name}' is for clips: unit must be 'clip'",
            [CLIP | {"loss": "arcface", "select_by": name}],
        )
        for name in ("war", "uar")
    ],
}


def test_every_rule_has_cases():
    assert list(CASES) == [rule.__name__ for rule in RULES]


@pytest.mark.parametrize(("rule", "case"), [(rule, case) for rule, cases in CASES.items() for case in cases])
def test_a_rule_refuses_what_no_other_does_and_takes_the_nearest(rule, case):
    changes, words, taken = case
    assert [each.__name__ for each in RULES if each(combination(**changes))] == [rule]
    assert line(**changes) == words
    assert [line(**near) for near in taken] == [None] * len(taken)


def test_pairs_are_chosen_by_their_own_auc_and_a_head_for_pairs_by_its_logits():
    """Each has a name of its own, as they cannot be compared."""
    names = [select_by_of("supcon", head, named) for head in (False, True) for named in (False, True)]
    assert names == ["auc_same_different", "paired_auc", "pair_auc_same_different", "pair_paired_auc"]
    assert select_by_of("ccc", named_pairs=True) == "ccc"
    assert set(names) <= set(SELECT_BY)


@pytest.mark.parametrize(
    ("loss", "tracks", "select_by"),
    [
        ("supcon", ["expression"], "auc_same_different"),
        ("simsiam", ["expression"], "auc_same_different"),
        ("ccc", ["va"], "ccc"),
        ("rank_n_contrast", ["va"], "rank_correlation_va"),
        ("bce", ["aus"], "au_f1"),
        ("mse", ["outputs"], "pearson"),
        ({"ccc": 1, "steadiness": 1}, ["va"], "ccc"),
        ({"cross_entropy": 1, "ccc": 1, "bce": 1}, ["expression", "va", "aus"], "auc_same_different"),
    ],
)
def test_the_losses_say_which_labels_a_run_needs_and_what_it_is_chosen_by(loss, tracks, select_by):
    assert tracks_of(loss) == tracks
    assert select_by_of(loss) == select_by
