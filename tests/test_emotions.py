import pytest

from pipeline.core.emotions import NAMES, SETS, opposites, partners
from pipeline.core.params import UserError
from pipeline.core.tables import ABAW_CLASSES

RAVDESS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
PLUTCHIK = ["joy", "trust", "fear", "surprise", "sadness", "disgust", "anger", "anticipation"]


def by_name(choice, classes):
    return {frozenset((classes[a], classes[b])) for a, b in opposites(choice, classes)}


def pairs(*written):
    return {frozenset(pair.split("-")) for pair in written}


def test_plutchiks_opposites_are_those_across_the_wheel():
    assert by_name(["plutchik"], PLUTCHIK) == pairs(
        "joy-sadness", "anger-fear", "trust-disgust", "surprise-anticipation"
    )


def test_of_a_set_only_what_the_data_set_has_is_taken():
    assert by_name(["plutchik"], ABAW_CLASSES) == pairs("Happiness-Sadness", "Anger-Fear")
    assert opposites(["plutchik"], ["Happiness", "Neutral"]) == []


def test_opposite_valence_sets_the_pleasant_against_the_unpleasant():
    assert by_name(["valence"], ABAW_CLASSES) == pairs(
        "Happiness-Anger", "Happiness-Disgust", "Happiness-Fear", "Happiness-Sadness"
    )


def test_the_words_of_other_data_sets_are_understood():
    assert by_name(["plutchik"], RAVDESS) == pairs("happy-sad", "angry-fearful")
    assert by_name(["valence"], RAVDESS) == {
        frozenset((a, b)) for a in ("happy", "calm") for b in ("sad", "angry", "fearful", "disgust")
    }
    assert by_name(["plutchik"], ["ACCEPTANCE", "Disgust"]) == pairs("ACCEPTANCE-Disgust")


def test_a_set_means_all_classes_of_an_emotion():
    assert by_name(["plutchik"], ["happiness", "joy", "sad"]) == pairs("happiness-sad", "joy-sad")


def test_sets_and_pairs_add_up_each_pair_once_and_in_order():
    found = opposites(["plutchik", ["Sadness", "Happiness"], ["neutral", "other"], "plutchik"], ABAW_CLASSES)
    assert found == [(0, 7), (1, 3), (4, 5)]


def test_a_pair_means_the_class_of_that_name_before_others_of_the_emotion():
    assert by_name([["JOY", "sad"]], ["happiness", "joy", "Sadness"]) == pairs("joy-Sadness")
    assert by_name([["happy", "sad"]], ["Happiness", "Sadness"]) == pairs("Happiness-Sadness")


def test_classes_that_are_no_emotions_can_be_paired():
    assert opposites([["circle", "square"]], ["square", "circle"]) == [(0, 1)]


def test_nothing_chosen_is_no_opposites():
    assert opposites([], ABAW_CLASSES) == []


def test_one_set_needs_no_list():
    assert opposites("plutchik", ABAW_CLASSES) == opposites(["plutchik"], ABAW_CLASSES)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["plutchick"], r"opposites 'plutchick' is not one of \['plutchik', 'valence'\] \(did you mean 'plutchik'"),
        ([["Hapiness", "Sadness"]], r"class 'Hapiness' is not one of \['Anger', .*\(did you mean 'Happiness'"),
        ([["Happiness", "Trust"]], "class 'Trust' is not one of"),
        ([["Happiness", "happy"]], r"of two classes, and \['Happiness', 'happy'\] are one"),
        ([["Happiness"]], r"names of sets \['plutchik', 'valence'\] or pairs of classes, and \['Happiness'\] is none"),
        ([3], "and 3 is none"),
        ([{"Happiness": "Sadness"}], "is none"),
        ([["Happiness", 1]], "class '1' is not one of"),
    ],
)
def test_what_names_no_opposites_is_refused(choice, message):
    with pytest.raises(UserError, match=message):
        opposites(choice, ABAW_CLASSES)


def test_every_name_in_a_set_is_known_and_no_word_names_two_emotions():
    assert {name for chosen in SETS.values() for pair in chosen for name in pair} <= set(NAMES)
    words = [word for names in NAMES.values() for word in names]
    assert len(words) == len(set(words))


def test_names_meet_the_one_class_of_their_emotion():
    assert partners(["sad", "NEUTRAL", "contempt", "happy"], ["Neutral", "Sadness", "Joy"]) == [1, 0, None, 2]
    assert partners(["joy"], ["Joy", "Happiness"]) == [0]  # its own name before its likes
    assert partners(["happy"], ["Joy", "Happiness"]) == [None]  # either could be meant
