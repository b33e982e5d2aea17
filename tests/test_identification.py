"""Identification rate: a case solved on paper, the protocol as slow loops, ties, resamples, bounded memory."""

import itertools

import numpy as np
import pytest

from pipeline.metrics import identification as module
from pipeline.metrics.identification import RATES, identification, identity_counts
from pipeline.metrics.uncertainty import group_weights


def angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def measured(embeddings: np.ndarray, people: np.ndarray, query: np.ndarray) -> dict[str, float]:
    counts = identity_counts(embeddings, people, query)
    return {name: float(v[0]) for name, v in identification(counts)(np.ones((1, people.max() + 1))).items()}


def by_loops(embeddings: np.ndarray, people: np.ndarray, query: np.ndarray) -> tuple[dict[str, float], int, int]:
    """The protocol pair by pair, in the same float32 cosines."""
    z = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    genuine, impostor = [], []
    for i, j in itertools.combinations(range(len(z)), 2):
        if not (query[i] or query[j]):
            continue
        (genuine if people[i] == people[j] else impostor).append(float(z[i].astype(np.float64) @ z[j]))
    values = {}
    for name, rate in RATES.items():
        allowed = int(rate * len(impostor) + 1e-9)
        if allowed < 1:
            values[f"identification_at_{name}"] = float("nan")
            continue
        # Of all cosines the lowest that at most so many impostors are above.
        threshold = sorted(impostor, reverse=True)[allowed]
        values[f"identification_at_{name}"] = sum(s > threshold for s in genuine) / len(genuine)
    return values, len(genuine), len(impostor)


def test_a_case_solved_by_hand():
    # Person 0 at 0 and 20 degrees, person 1 at 90, 100 and 150; distractors 2 at 60, and 3 at 130 and 180.
    z = angles(0, 20, 90, 100, 150, 60, 130, 180)
    people, query = np.array([0, 0, 1, 1, 1, 2, 3, 3]), np.array([True] * 5 + [False] * 3)
    counts = identity_counts(z, people, query)
    assert counts.facts() == {
        "query_people": 2, "query_pictures": 5, "distractor_people": 2, "distractor_pictures": 3,
        "genuine_pairs": 1 + 3, "impostor_pairs": 2 * 3 + 5 * 3,
    }  # fmt: skip
    # Genuine, in degrees apart: 20; 10, 50, 60. Impostors of the two: 90 100 150 70 80 130; with distractors: person 0
    # 60 130 180 and 40 110 160; person 1 30 40 90, 40 30 80 and 90 20 30. 0.1 of 21 pairs are two: those at 20 and one
    # of those at 30 may pass. There are three at 30, so the threshold is there, and only 20 passes of the impostors.
    # Genuine pairs nearer than 30 are those at 20 and 10: two of four.
    assert measured(z, people, query)["identification_at_1e-1"] == 0.5
    assert np.isnan(measured(z, people, query)["identification_at_1e-2"])  # 0.21 of a pair


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_protocol_pair_by_pair(seed, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)  # so that people and their pairs are cut between blocks
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, 6))
    people = rng.permutation(np.repeat(np.arange(30), rng.integers(1, 9, 30)))
    query = people < 12
    z = (centres[people] + 0.8 * rng.normal(size=(len(people), 6))).astype(np.float32)
    expected, genuine, impostor = by_loops(z, people, query)
    facts = identity_counts(z, people, query).facts()
    assert (facts["genuine_pairs"], facts["impostor_pairs"]) == (genuine, impostor)
    assert not np.isnan(expected["identification_at_1e-3"])
    np.testing.assert_equal(measured(z, people, query), expected)


def test_embeddings_that_are_all_one_find_nobody():
    people = np.repeat(np.arange(20), 3)
    values = measured(np.ones((60, 4), dtype=np.float32), people, people < 10)
    assert values["identification_at_1e-1"] == values["identification_at_1e-2"] == 0.0


def test_people_told_apart_altogether_are_all_found():
    people = np.repeat(np.arange(20), 3)
    z = np.eye(20, dtype=np.float32)[people]
    counts = identity_counts(z, people, people < 10)
    assert measured(z, people, people < 10)["identification_at_1e-2"] == 1.0
    known = ~np.isnan(counts.curve)
    assert (counts.curve[known] == 1).all()
    assert known.any()


def test_pairs_of_two_distractors_do_not_count():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 4)
    z = rng.normal(size=(160, 5)).astype(np.float32)
    z[people >= 10] = z[people >= 10] @ np.diag([1, 1, 1, 0, 0]).astype(np.float32)
    alike = z.copy()
    alike[people >= 20] = z[people == 20][0]  # all of them one picture: among themselves they have cosine 1
    before = identity_counts(z, people, people < 10).facts()
    after = identity_counts(alike, people, people < 10).facts()
    assert before == after
    assert after["impostor_pairs"] == 40 * 40 // 2 - 10 * 4 * 4 // 2 + 40 * 120


def test_without_genuine_or_without_impostor_pairs_there_is_nothing():
    z = angles(0, 10, 20)
    assert identity_counts(z, np.arange(3), np.array([True, True, False])) is None
    assert identity_counts(z, np.zeros(3, dtype=int), np.ones(3, dtype=bool)) is None
    assert identity_counts(z[:0], np.zeros(0, dtype=int), np.zeros(0, dtype=bool)) is None


def test_a_resample_is_the_protocol_on_people_drawn_so_often():
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(60), 5)
    z = (rng.normal(size=(60, 8))[people] + rng.normal(size=(300, 8))).astype(np.float32)
    query = people < 20
    measure = identification(identity_counts(z, people, query))
    for weights in group_weights(60, 3, seed=1):
        got = {name: value[0] for name, value in measure(weights[None]).items()}
        cosine = z / np.linalg.norm(z, axis=1, keepdims=True)
        cosine = cosine @ cosine.T
        i, j = np.triu_indices(300, 1)
        i, j = i[query[i] | query[j]], j[query[i] | query[j]]
        same, of_pair = people[i] == people[j], weights[people[i]] * weights[people[j]]
        of_pair = np.where(same, weights[people[i]], of_pair)
        for name in ("1e-1", "1e-2", "1e-3"):
            order = np.argsort(-cosine[i, j][~same])
            passed = np.cumsum(of_pair[~same][order]) / of_pair[~same].sum()
            threshold = cosine[i, j][~same][order][np.searchsorted(passed, RATES[name], side="right")]
            expected = of_pair[same & (cosine[i, j] > threshold)].sum() / of_pair[same].sum()
            assert got[f"identification_at_{name}"] == pytest.approx(expected, abs=0.02)


def test_of_a_person_with_many_pictures_evenly_spaced_ones_are_compared(monkeypatch):
    monkeypatch.setattr(module, "MOST_PICTURES", 3)
    people = np.repeat([0, 1, 2], [9, 4, 2])
    facts = identity_counts(np.random.default_rng(0).normal(size=(15, 3)), people, people < 2).facts()
    assert (facts["query_pictures"], facts["distractor_pictures"]) == (6, 2)
