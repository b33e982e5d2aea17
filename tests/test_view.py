"""What the demo looks at of a table: by hand-made tables, counted on paper."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import adapter_of

from pipeline.embed import view

FRAMES = {("clip", "left"): [1, 2, 3, 7, 8], ("clip", "right"): [2, 3], ("photo", ""): [1]}


def table(size: int = 4) -> pd.DataFrame:
    """Faces of two people and a photograph; the left one is not seen in frames 4 to 6. 10 frames a second."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "video": video, "person": person, "frame": frame, "time_sec": (frame - 1) / 10,
            "box": np.array([1, 2, 3, 4], np.float32), "confidence": 0.9,
            "embedding": rng.standard_normal(size).astype(np.float32), "class": "Fear" if frame > 2 else "Anger",
            "p_Anger": 0.25, "p_Fear": 0.75, "features": rng.standard_normal(6).astype(np.float16), "crop": b"jpeg",
        }
        for (video, person), frames in FRAMES.items()
        for frame in frames
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_entries_are_the_people_of_each_video_in_order():
    assert view.entries(table()) == list(FRAMES)
    assert [view.entry_name(entry) for entry in FRAMES] == ["clip, left", "clip, right", "photo"]
    assert view.entry_name(("clip", "left"), with_video=False) == "left"


def test_a_gap_ends_a_segment_and_each_frame_lasts_until_the_next():
    rows = view.rows_of(table(), ("clip", "left"))
    assert rows["segment"].tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(rows["end_sec"], [0.1, 0.2, 0.3, 0.7, 0.8])


def test_fewer_frames_are_evenly_spaced_and_last_longer_but_not_over_a_gap():
    rows = view.thinned(view.rows_of(table(), ("clip", "left")), 3, at=3)
    assert rows["frame"].tolist() == [1, 3, 7, 8]
    assert rows["segment"].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(rows["end_sec"], [0.2, 0.3, 0.7, 0.8])


def test_a_single_frame_has_no_rate_and_lasts_a_moment():
    rows = view.rows_of(table(), ("photo", ""))
    assert view.frame_rate(rows) is None
    assert rows["end_sec"].tolist() == [0.04]
    assert view.frame_rate(view.rows_of(table(), ("clip", "left"))) == pytest.approx(10)


def test_the_plane_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(1).standard_normal((30, 5)).astype(np.float32)
    points, explained = view.plane(vectors)
    theirs = PCA(2)
    expected = theirs.fit_transform(vectors)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(explained, theirs.explained_variance_ratio_, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_so_few_points_have_a_place_and_no_second_component(count):
    points, explained = view.plane(np.eye(4, dtype=np.float32)[:count])
    assert points.shape == (count, 2)
    assert explained[1] == 0
    assert (points[:, 1] == 0).all()


def test_the_contrast_is_counted_by_hand():
    rows = pd.DataFrame({"frame": [1, 2, 3, 7], "class": ["Fear", "Fear", "Anger", "Fear"]})
    unit = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
    found = view.contrast(unit, rows, 0)
    assert found.neighbours == pytest.approx((0.6 + 0.8) / 2)  # 1-2 and 2-3; 3-7 is a gap
    assert found.same == pytest.approx((0.6 - 1) / 2)  # frame 2 and 7, and not frame 1 itself
    assert found.other == pytest.approx(0)
    without = view.contrast(unit, rows[["frame"]], 0)
    assert without.neighbours == found.neighbours
    assert np.isnan([without.same, without.other]).all()
    alone = view.contrast(unit[:1], rows[:1], 0)
    assert np.isnan([alone.neighbours, alone.same, alone.other]).all()


def test_people_are_compared_by_their_mean_directions():
    given = table()
    found, frozen, adapted = view.persons(given, 40)
    assert view.entries(found) == sorted(FRAMES)
    for name, cosines in (("features", frozen), ("embedding", adapted)):
        means = []
        for entry in sorted(FRAMES):
            of = given[(given["video"] == entry[0]) & (given["person"] == entry[1])][name]
            rows = np.stack(of.tolist()).astype(float)
            means.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0))
        a, b = means[0], means[1]
        expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosines[0, 1] == pytest.approx(expected, abs=1e-5)
        np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    assert len(view.persons(given, 2)[0]) == 2


def test_faces_of_pictures_are_counted_and_named():
    rows = view.numbered(table(), [("photo", "")])
    assert rows[["frame", "name"]].to_numpy().tolist() == [[1, "photo"]]


def test_a_plain_table_has_numbers_and_texts_alone():
    rows = view.rows_of(table(), ("clip", "right"))
    plain = view.plain(rows, {"cosine": np.array([0.5, 1.0])})
    assert plain.columns.tolist() == [
        "video", "person", "frame", "time_sec", "left", "top", "right", "bottom", "confidence", "class", "p_Anger",
        "p_Fear", "cosine",
    ]  # fmt: skip
    assert plain.loc[0, ["left", "top", "right", "bottom"]].tolist() == [1, 2, 3, 4]


def test_a_picture_that_is_gone_or_broken_is_none(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    for path in (None, str(tmp_path / "gone.jpg"), str(tmp_path / "broken.jpg"), str(tmp_path)):
        assert view.thumbnail(path) is None


# --- attention


def trained(model: str, width: int, **made_by: str) -> SimpleNamespace:
    """What ``view`` asks of an embedder, with an adapter that nobody trained."""
    torch.manual_seed(0)
    facts = {
        "model": model, "loss": "supcon", "num_features": width, "num_components": None, "embedding_size": 8,
        "dropout": 0.0, "model_options": {}, "classes": ["Anger", "Fear"], "pooling": "mean", "made_by": made_by,
        "window": {"frames": 5, "step": None, "edge": "mask", "spacing": 1},
    }  # fmt: skip
    adapter = adapter_of(facts)
    adapter.modules().eval()
    return SimpleNamespace(adapters=[adapter], device=torch.device("cpu"))


def test_weights_of_frames_are_those_of_its_window_and_average_to_its_embedding():
    embedder, rows = trained("attention_pool", 6), view.rows_of(table(), ("clip", "left"))
    found = view.frame_weights(embedder, rows, 2, None)
    assert found["frame"].tolist() == [1, 2, 3]  # of 1 to 5, since 4 and 5 are not seen
    assert found["weight"].sum() == pytest.approx(1)
    head = embedder.adapters[0].head
    features = torch.from_numpy(np.stack(rows["features"][:3].tolist())).float()
    with torch.inference_mode():
        hidden = head.layers(features)
        expected = head.project_out(torch.tensor(found["weight"].tolist()) @ hidden)
        window = torch.cat([features, torch.zeros(2, 6)])[None]
        whole = head(window, torch.tensor([[True, True, True, False, False]]))[0]
    torch.testing.assert_close(expected, whole)
    assert view.place_weights(embedder, rows, 2) is None


def test_weights_of_places_lie_where_the_places_are():
    embedder = trained("pair_gate", 12, pooling="grid 2 x 2")
    rows = table().assign(features=[np.arange(12, dtype=np.float16)] * 8)
    found = view.place_weights(embedder, rows, 0)
    assert found.shape == (2, 2)
    assert found.sum() == pytest.approx(1)
    head = embedder.adapters[0].head
    cells = torch.arange(12.0).view(3, 4).T  # column c * 4 + place: a row a place
    with torch.inference_mode():
        logits = head.weight(torch.tanh(head.content(cells)) * torch.sigmoid(head.openness(cells)))[:, 0]
        pooled = torch.from_numpy(found.ravel()) @ cells
        torch.testing.assert_close(pooled, head.attend(torch.arange(12.0)))
    np.testing.assert_allclose(found, torch.softmax(logits, 0).view(2, 2).numpy(), rtol=1e-5)
    assert view.frame_weights(embedder, rows, 0, None) is None


def test_a_pair_gate_without_a_grid_has_no_places():
    assert view.place_weights(trained("pair_gate", 6), table(), 0) is None
