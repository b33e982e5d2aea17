"""What evaluation leaves for the report's page, against slow loops."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from pipeline.core.params import UserError
from pipeline.evaluation import shown
from pipeline.evaluation.folds import FoldResult
from pipeline.metrics.measures import MetricOptions, Outputs, Subset, measured

OPTIONS = MetricOptions(
    top_k=[1], neighbours=3, most_pairs_of=1000, smoothing="none", width=3, width_aus=3, class_bias=False
)
CLASSES = ["calm", "angry", "happy"]
LENGTHS = [12, 1, 20, 15]


@pytest.fixture
def run():
    """Four videos of four groups, one with a gap in its frame numbers; the first three frames have no label."""
    rng = np.random.default_rng(3)
    n, video = sum(LENGTHS), np.repeat(np.arange(4), LENGTHS)
    frame = np.concatenate([np.arange(1, k + 1) for k in LENGTHS])
    frame[video == 2] += 5 * (frame[video == 2] > 10)
    label = rng.integers(0, 3, n)
    label[:3] = -1
    nothing = np.full((n, 2), np.nan)
    names = ["a", "b", "c", "d"]
    subset = Subset(
        video, frame, frame, video, label, nothing, nothing[:, :0], names, names, CLASSES, [], 1, [(1, 2)],
        rng.integers(0, 3, 30),
    )  # fmt: skip
    z = rng.standard_normal((n, 4)).astype(np.float32)
    outputs = Outputs(z, rng.standard_normal((30, 4)).astype(np.float32), {"classes": rng.dirichlet(np.ones(3), n)})
    return subset, outputs, measured(subset, outputs, OPTIONS)


def face(video, frame):
    return None if video == "b" else np.full((70, 35, 3), frame, np.uint8)


def collected(run, videos=(2, 0)):
    subset, outputs, seed = run
    return shown.collected(subset, [FoldResult(None, subset, [outputs], [seed])], seed[1], videos, face)


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_the_roc_is_that_of_all_pairs_of_two_groups(run):
    subset, outputs, _ = run
    z, found = unit(outputs.z), collected(run).arrays
    pairs = {"same": [], "different": []}
    for i in range(len(z)):
        for j in range(i):
            if subset.group[i] != subset.group[j] and min(subset.label[i], subset.label[j]) >= 0:
                pairs["same" if subset.label[i] == subset.label[j] else "different"].append(z[i] @ z[j])
    same, different = (np.array(values) for values in pairs.values())
    for rate in (0.1, 0.4, 0.9):
        threshold = np.quantile(different, 1 - rate)
        tpr = found["roc/different"][np.searchsorted(shown.RATES, rate - 1e-9)]
        assert tpr == pytest.approx((same > threshold).mean(), abs=0.02)
    width = np.diff(shown.BINS)
    for kind, values in (("same", same), ("different", different)):
        assert found[f"density/{kind}"] @ width == pytest.approx(1, abs=1e-5)
        middles = (shown.BINS[:-1] + shown.BINS[1:]) / 2
        assert (found[f"density/{kind}"] * width) @ middles == pytest.approx(values.mean(), abs=0.01)


def test_the_similarity_is_the_cosine_of_frames_sorted_by_class(run):
    subset, outputs, _ = run
    found, z = collected(run).arrays, unit(outputs.z)
    order = sorted(np.flatnonzero(subset.label >= 0), key=lambda k: (subset.label[k], subset.video[k]))
    wanted = np.array([[z[i] @ z[j] for j in order] for i in order])
    np.testing.assert_allclose(found["similarity"] / 127, wanted, atol=0.005)
    assert found["similarity/label"].tolist() == [subset.label[k] for k in order]


def test_the_nearest_frames_are_of_other_groups(run):
    subset, outputs, _ = run
    found, z = collected(run), unit(outputs.z)
    place = {(subset.videos[v], f): k for k, (v, f) in enumerate(zip(subset.video, subset.frame, strict=True))}
    assert [label for _, _, label in found.names["queries"]] == [0, 1, 2]
    for query, near, cosine in zip(
        found.names["queries"], found.names["nearest"], found.arrays["nearest/cosine"], strict=True
    ):
        row = place[query[0], query[1]]
        others = [k for k in range(len(z)) if subset.group[k] != subset.group[row] and subset.label[k] >= 0]
        best = sorted(others, key=lambda k: -(z[k] @ z[row]))[: shown.NEAREST]
        assert [place[video, frame] for video, frame, _ in near] == best
        assert [label for *_, label in near] == [subset.label[k] for k in best]
        np.testing.assert_allclose(cosine, [z[k] @ z[row] for k in best], atol=1e-6)


def test_the_worst_frames_are_the_most_surely_wrong_one_a_video(run):
    subset, _, (_, result) = run
    scores, found = result.predictions["classes"][""], collected(run)
    wanted = {}
    for k in np.flatnonzero(subset.label >= 0):
        code, video = int(scores[k].argmax()), subset.videos[subset.video[k]]
        if code != subset.label[k] and scores[k, code] > wanted.get(video, (0,))[0]:
            wanted[video] = (scores[k, code], int(subset.frame[k]), code)
    order = sorted(wanted, key=lambda video: -wanted[video][0])
    assert [video for video, _, _ in found.names["worst"]] == order
    assert [frame for _, frame, _ in found.names["worst"]] == [wanted[video][1] for video in order]
    assert found.arrays["worst/predicted"].tolist() == [wanted[video][2] for video in order]
    np.testing.assert_allclose(found.arrays["worst/share"], [wanted[video][0] for video in order], rtol=1e-6)


def test_a_strip_has_the_classes_of_its_video_and_the_cosine_to_the_frame_before(run):
    subset, outputs, (_, result) = run
    found, z = collected(run), unit(outputs.z)
    assert found.names["videos"] == ["c", "a"]
    rows = np.flatnonzero(subset.video == 2)
    arrays = {name: found.arrays[f"timeline/0/{name}"] for name in ("frame", "truth", "predicted", "near", "step")}
    assert arrays["frame"].tolist() == [*range(1, 11), *range(16, 26)]
    assert arrays["truth"].tolist() == subset.label[rows].tolist()
    assert arrays["predicted"].tolist() == result.predictions["classes"][""][rows].argmax(1).tolist()
    wanted = [np.nan, *((z[a] @ z[b]) for a, b in itertools.pairwise(rows))]
    wanted[10] = np.nan  # behind the gap
    np.testing.assert_allclose(arrays["near"], wanted, atol=1e-6)
    assert arrays["step"] == 1


def test_a_strip_of_many_frames_is_thinned_and_no_dip_is_lost(run, monkeypatch):
    whole = collected(run).arrays["timeline/0/near"]
    monkeypatch.setattr(shown, "MOST_COLUMNS", 5)
    found = collected(run).arrays
    kept = np.linspace(0, 19, 5).round().astype(int)
    assert found["timeline/0/frame"].tolist() == [[*range(1, 11), *range(16, 26)][k] for k in kept]
    parts = [whole[a + 1 : b + 1] for a, b in zip([-1, *kept[:-1]], kept, strict=True)]
    wanted = [np.nan if np.isnan(part).all() else np.nanmin(part) for part in parts]
    np.testing.assert_allclose(found["timeline/0/near"], wanted)
    assert found["timeline/0/step"] == 4


def test_faces_are_small_jpegs_of_what_is_shown_and_one_that_is_not_there_is_left_out(run):
    found = collected(run)
    named = [*found.names["queries"], *found.names["worst"], *itertools.chain(*found.names["nearest"])]
    assert {(video, frame) for video, frame, _ in named if video != "b"} <= set(found.faces)
    assert not [video for video, _ in found.faces if video == "b"]
    (_, frame), file = next(iter(found.faces.items()))
    picture = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (56, 28, 3)
    assert abs(int(picture.mean()) - frame) <= 3


def test_what_is_written_is_read_again_and_its_bytes_are_the_same(run, tmp_path):
    found = collected(run)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shown.write(tmp_path / name / shown.FILE, found)
    back = shown.read(tmp_path / "one")
    assert back.faces == found.faces
    assert back.names == found.names
    assert set(back.arrays) == set(found.arrays)
    for name, values in found.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], values)
    assert (tmp_path / "one" / shown.FILE).read_bytes() == (tmp_path / "two" / shown.FILE).read_bytes()


def test_without_labels_or_embeddings_only_what_there_is_is_shown(run):
    subset, outputs, _ = run
    unlabelled = dataclasses.replace(subset, label=np.full_like(subset.label, -1))
    assert collected((unlabelled, outputs, measured(unlabelled, outputs, OPTIONS))).arrays == {}
    said = Outputs(None, None, outputs.predictions)
    found = collected((subset, said, measured(subset, said, OPTIONS))).arrays
    assert {name.split("/")[0] for name in found} == {"confusion", "worst", "timeline"}
    assert np.isnan(found["timeline/0/near"]).all()


def test_an_evaluation_without_the_file_is_to_be_made_again(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*shown\.npz, .*: evaluate the run again"):
        shown.read(tmp_path)
