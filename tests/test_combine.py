"""Predictions combined with the backbone's own: on logits made so that the right answer is known by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipeline.adapter.backbone import outputs_by_name
from pipeline.metrics import combine
from pipeline.metrics.combine import Fitted, blend, blend_units, gate
from pipeline.metrics.combine_fit import WIDTHS, Frames, fit
from pipeline.metrics.protocol import expression
from pipeline.metrics.smoothing import smooth

CLASSES = ["Neutral", "Anger", "Happiness", "Other"]
LOGITS = np.array([[0.0, 1.0, 2.0, -1.0, 9.0], [3.0, 0.0, 0.0, 5.0, 0.2], [0.0, 0.0, 1.0, 9.0, 0.5]])
NAMES = ["happy", "Neutral", "angry", "contempt", "AU4"]
GROUPS, LENGTH, FOLDS = 16, 60, 4


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# --- the backbone's outputs by name


def test_outputs_are_known_by_name_and_a_stranger_takes_its_share_of_the_sureness():
    """Happy and angry are words of two classes; contempt is nobody's, Other has no output, and AU4 is a unit."""
    outputs = outputs_by_name(NAMES, CLASSES, ["au1", "au4"])
    assert (outputs.has, outputs.strangers) == (["classes", "aus"], [3])
    assert outputs.known_classes.tolist() == [True, True, True, False]
    own = outputs.of(LOGITS)
    np.testing.assert_allclose(own["classes"][:, [2, 0, 1]], softmax(LOGITS[:, :3]))
    assert (own["classes"][:, 3] == 0).all()
    with_contempt = softmax(LOGITS[:, :4])
    # The second and third frame are contempt to the backbone: it is never sure of a class of the run there.
    np.testing.assert_allclose(own["sure"], [with_contempt[0, 2], 0, 0])
    np.testing.assert_allclose(own["aus"][:, 1], 1 / (1 + np.exp(-LOGITS[:, 4])))
    assert np.isnan(own["aus"][:, 0]).all()


def test_valence_and_arousal_need_both_outputs_and_one_class_is_no_classifier():
    assert outputs_by_name(["arousal", "valence"], CLASSES, []).has == ["va"]
    assert outputs_by_name(["arousal", "valence"], [], []).of(np.array([[0.2, -0.4]]))["va"].tolist() == [[-0.4, 0.2]]
    assert outputs_by_name(["valence", "happy"], CLASSES, []).has == []
    assert outputs_by_name([], CLASSES, ["au1"]).has == []


# --- by hand


def test_a_gate_takes_the_backbone_above_the_threshold_and_not_at_it():
    adapter, backbone = np.array([[0.9, 0.1]] * 3), np.array([[0.2, 0.8]] * 3)
    found = gate(adapter, backbone, np.array([0.79, 0.8, 0.81]), 0.8)
    assert found.tolist() == [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]


def test_a_blend_is_the_softmax_of_the_weighted_logits_and_keeps_what_the_backbone_does_not_know():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 4))
    known = np.array([True, True, True, True])
    np.testing.assert_allclose(blend(softmax(a), softmax(b), known, 0.3), softmax(0.3 * b + 0.7 * a))
    np.testing.assert_allclose(blend(softmax(a), softmax(b), known, 1.0), softmax(b))
    known[3] = False
    of_known = np.concatenate([softmax(b[:, :3]), np.zeros((5, 1))], axis=1)
    found = blend(softmax(a), of_known, known, 0.3)
    np.testing.assert_allclose(found[:, 3], softmax(a)[:, 3])
    np.testing.assert_allclose(found[:, :3], (1 - found[:, 3:]) * softmax(0.3 * b[:, :3] + 0.7 * a[:, :3]))


def test_units_are_blended_as_logits_and_values_as_values():
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    found = blend_units(sigmoid(np.array([[1.0, 2.0]])), np.array([[sigmoid(-3.0), np.nan]]), 0.5)
    np.testing.assert_allclose(found, sigmoid(np.array([[-1.0, 2.0]])))
    of = {"va": Fitted(weight=0.25)}
    va = combine.combine(of, {"va": np.array([[0.4, 0.0]])}, {"va": np.array([[0.8, -0.4]])})["va"]
    np.testing.assert_allclose(va, [[0.5, -0.1]])


def test_a_frame_that_the_backbone_has_no_output_for_stays_the_adapters():
    """As where one of several stores lacks it."""
    outputs = outputs_by_name([*NAMES, "valence", "arousal"], CLASSES, ["au4"])
    logits = np.concatenate([LOGITS, np.full((3, 2), 0.9)], axis=1)
    logits[1] = np.nan
    own = outputs.of(logits)
    said = {"classes": np.full((3, 4), 0.25), "va": np.zeros((3, 2)), "aus": np.full((3, 1), 0.4)}
    for fitted in (Fitted(threshold=0.0), Fitted(weight=0.7)):
        of = {"classes": fitted, "va": Fitted(weight=0.5), "aus": Fitted(weight=0.5)}
        for what, values in combine.combine(of, said, own).items():
            assert values[1].tolist() == said[what][1].tolist()
            assert values[0].tolist() != said[what][0].tolist()
            assert np.isfinite(values).all()


# --- fitted


def frames(seed=0, groups=GROUPS, length=LENGTH):
    """Videos of one group each. Labels stay for 15 frames."""
    video = np.repeat(np.arange(groups), length)
    label = np.repeat(np.random.default_rng(seed).integers(0, 3, groups * length // 15), 15)
    return Frames(video, np.tile(np.arange(length), groups), video, video % FOLDS), label


def saying(codes, share, num_classes=3):
    """Probabilities that are ``share`` (n,) for the classes ``codes`` (n,) and the same for the others."""
    found = np.repeat(((1 - share) / (num_classes - 1))[:, None], num_classes, axis=1)
    found[np.arange(len(codes)), codes] = share
    return found


def sometimes_wrong(label, share_wrong, rng):
    wrong = rng.random(len(label)) < share_wrong
    return np.where(wrong, (label + rng.integers(1, 3, len(label))) % 3, label)


def own_of(classes, sure):
    return {"classes": classes, "sure": sure, "known": np.ones(3, dtype=bool)}


def scored(fitted, predictions, own, of, label):
    """Macro-F1 by sklearn of what is fitted, smoothed as fitted."""
    combined = combine.combine({"classes": fitted}, {"classes": predictions}, own)["classes"]
    said = combine.decided(fitted, smooth(combined, of.video, of.number, "box", fitted.width)).argmax(1)
    return f1_score(label, said, average="macro")


def test_the_threshold_above_which_the_backbone_is_right_comes_out():
    """Above 0.8 it is always right, below nearly never; the adapter is right in half of all frames, alone in none."""
    of, label = frames()
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.4, 1, len(label))
    said = np.where(sure > 0.8, label, (label + 1) % 3)
    predictions, own = (
        saying(sometimes_wrong(label, 0.5, rng), np.full(len(label), 0.6)),
        own_of(saying(said, sure), sure),
    )
    fitted = fit({"classes": predictions}, own, {"classes": label}, of)["gate"]["classes"]
    assert fitted.threshold == 0.8
    other = {t: scored(Fitted(fitted.width, threshold=t), predictions, own, of, label) for t in (0.6, 0.8, 0.95, 1.0)}
    assert max(other, key=other.get) == 0.8
    assert fitted.score > fitted.alone + 0.05


def test_the_weight_that_takes_the_noise_away_comes_out():
    """Both logits have the truth in them and a noise that is the opposite of the other's, 7 to 3: at 0.3 it is gone."""
    of, label = frames()
    noise = np.random.default_rng(2).standard_normal((len(label), 3)) * 5
    adapter, backbone = np.eye(3)[label] - 3 * noise / 10, np.eye(3)[label] + 7 * noise / 10
    own = own_of(softmax(backbone), softmax(backbone).max(1))
    fitted = fit({"classes": softmax(adapter)}, own, {"classes": label}, of)["blend"]["classes"]
    assert (fitted.weight, fitted.width) == (0.3, 1)
    assert fitted.score == pytest.approx(1)
    assert fitted.alone < 0.7


def test_the_weight_of_valence_and_arousal_and_of_units_comes_out():
    of, _ = frames()
    rng = np.random.default_rng(3)
    truth, noise = rng.uniform(-0.5, 0.5, (2, len(of.video), 2))
    truth[::5] = np.nan
    va = np.nan_to_num(truth) - 4 * noise, np.nan_to_num(truth) + 6 * noise
    units = (rng.random((len(of.video), 2)) < 0.3).astype(float)
    noise = rng.standard_normal((len(of.video), 2)) * 4
    aus = [1 / (1 + np.exp(-(6 * units - 3 + share * noise))) for share in (-1, 1)]
    own = {"va": va[1], "aus": np.stack([aus[1][:, 0], np.full(len(of.video), np.nan)], axis=1)}
    found = fit({"va": va[0], "aus": aus[0]}, own, {"va": truth, "aus": units}, of)
    assert (found["blend"]["va"].weight, found["blend"]["va"].score) == (0.4, pytest.approx(1))
    assert found["gate"]["va"] == found["blend"]["va"]  # nothing to be sure of
    assert found["blend"]["aus"].weight == 0.5
    both = combine.combine({"aus": found["blend"]["aus"]}, {"aus": aus[0]}, own)["aus"]
    called = both >= found["blend"]["aus"].thresholds
    assert (called[:, 0] == units[:, 0]).all()
    np.testing.assert_array_equal(both[:, 1], aus[0][:, 1])  # of a unit that the backbone lacks


def test_a_width_comes_out_where_the_truth_is_steady_and_the_prediction_is_not():
    of, label = frames()
    predictions = saying(sometimes_wrong(label, 0.5, np.random.default_rng(4)), np.full(len(label), 0.6))
    fitted = fit({"classes": predictions}, {}, {"classes": label}, of)["gate"]["classes"]
    every = {w: scored(Fitted(w), predictions, {}, of, label) for w in WIDTHS}
    assert fitted.width == max(every, key=every.get)
    assert 1 < fitted.width < 51
    assert not fitted.uses_backbone


@pytest.mark.parametrize("kind", ["noise", "sure and wrong"])
@pytest.mark.parametrize("seed", range(2))
def test_a_bad_backbone_stays_out_and_costs_nothing(kind, seed):
    """Also on groups that it was not fitted on, which is what counts."""
    of, label = frames(seed)
    rng = np.random.default_rng(10 + seed)
    predictions = saying(sometimes_wrong(label, 0.4, rng), np.full(len(label), 0.6))
    sure = rng.uniform(0.35, 1, len(label))
    said = rng.integers(0, 3, len(label)) if kind == "noise" else (label + 1) % 3
    own = own_of(saying(said, sure), sure)
    half = of.video < GROUPS // 2
    some = Frames(*(x[half] for x in (of.video, of.number, of.group, of.fold)))
    mine = {name: x[half] if name != "known" else x for name, x in own.items()}
    found = fit({"classes": predictions[half]}, mine, {"classes": label[half]}, some)
    alone = fit({"classes": predictions[half]}, {}, {"classes": label[half]}, some)["gate"]["classes"]
    rest = Frames(*(x[~half] for x in (of.video, of.number, of.group, of.fold)))
    others = {name: x[~half] if name != "known" else x for name, x in own.items()}
    for way in ("gate", "blend"):
        fitted = found[way]["classes"]
        gain = scored(fitted, predictions[~half], others, rest, label[~half])
        gain -= scored(alone, predictions[~half], others, rest, label[~half])
        assert gain > -0.01
        assert not fitted.uses_backbone


def test_a_bias_is_kept_only_where_it_helps_other_groups():
    """A class that is hardly ever said comes back by its bias; a right prediction gets none."""
    of, label = frames()
    share = np.full(len(label), 0.5)
    timid = softmax(np.log(saying(sometimes_wrong(label, 0.3, np.random.default_rng(5)), share)) - [3.0, 0, 0])
    fitted = fit({"classes": timid}, {}, {"classes": label}, of)["blend"]["classes"]
    assert fitted.bias[0] - fitted.bias[1] > 1
    right = fit({"classes": saying(label, share)}, {}, {"classes": label}, of)["blend"]["classes"]
    assert (right.bias, right.width) == ([0, 0, 0], 1)


def test_the_score_is_that_of_each_fold_by_what_is_fitted_on_the_others():
    """A slow loop: for each fold the best width on the others, by sklearn; its frames are pooled."""
    of, label = frames(5)
    predictions = saying(sometimes_wrong(label, 0.55, np.random.default_rng(6)), np.full(len(label), 0.6))
    said = np.empty_like(label)
    codes = {w: smooth(predictions, of.video, of.number, "box", w).argmax(1) for w in WIDTHS}
    for fold in range(FOLDS):
        others = of.fold != fold
        best = max(codes, key=lambda w: f1_score(label[others], codes[w][others], average="macro"))
        said[~others] = codes[best][~others]
    fitted = fit({"classes": predictions}, {}, {"classes": label}, of)["blend"]["classes"]
    assert not any(fitted.bias)
    assert fitted.score == pytest.approx(f1_score(label, said, average="macro"))
    assert fitted.alone == pytest.approx(f1_score(label, predictions.argmax(1), average="macro"))
    measured = expression(label, said, of.group, list("abc"))(np.ones((1, GROUPS)))
    assert measured["macro_f1"][0] == pytest.approx(fitted.score)
