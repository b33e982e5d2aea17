import re

import formulas
import numpy as np
import pytest
import torch
from conftest import adapter_of, loss_of
from safetensors.torch import save_file

from pipeline.adapter import front as module
from pipeline.adapter.adapter import FORMAT, load_adapter, load_state, save_adapter, save_state
from pipeline.adapter.front import Front
from pipeline.adapter.heads import HEADS
from pipeline.adapter.sources import InMemory
from pipeline.adapter.windows import Window
from pipeline.core import projection
from pipeline.core.files import load_tensors, save_tensors
from pipeline.core.params import UserError
from pipeline.training import loop
from pipeline.training.feed import Shard
from pipeline.training.samplers.build import build_sampler

MADE_BY = {"backbone": "tiny", "input_size": 32, "mean": [0.5, 0.5, 0.5]}
CPU = torch.device("cpu")
# Videos of 5, 1 and 40 frames, D = 4; the last starts late and lacks frame 1725.
VIDEO = np.array([0] * 5 + [3] + [7] * 40)
FRAME = np.array([1, 2, 3, 4, 5, 2, 1721, 1722, 1723, 1724, *range(1726, 1762)])
FEATURES = np.random.default_rng(0).standard_normal((46, 4)).astype(np.float16)


def through(front, features):
    return front(torch.from_numpy(features))


def facts(**changes):
    return {
        "model": "mlp", "loss": "arcface", "num_features": 4, "num_components": None, "embedding_size": 8,
        "dropout": 0.3, "model_options": {}, "loss_options": {}, "class_counts": [3, 2, 1], "num_aus": None,
        "classes": ["Neutral", "Anger", "Fear"], "temperature": 15.0, "margin": None, "pooling": "mean",
        "made_by": MADE_BY,
    } | changes  # fmt: skip


@pytest.fixture(params=sorted(HEADS))
def head(request):
    torch.manual_seed(0)
    return request.param


# --- the front


def test_a_front_that_was_not_fitted_gives_the_features_themselves():
    front = Front(4, None)
    front.fit([FEATURES], "none")
    assert through(front, FEATURES).dtype == torch.float32
    np.testing.assert_array_equal(through(front, FEATURES).numpy(), FEATURES.astype(np.float32))


@pytest.mark.parametrize("normalise", ["centre", "standardise"])
def test_a_fitted_front_takes_mean_and_deviation_of_the_training_rows_away(normalise):
    front, training = Front(4, None), FEATURES[:30]
    front.fit([training], normalise)
    mean, deviation = training.astype(float).mean(0), training.astype(float).std(0)
    expected = (FEATURES.astype(float) - mean) / (deviation if normalise == "standardise" else 1)
    np.testing.assert_allclose(through(front, FEATURES).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_projecting_front_is_the_projection_and_then_the_standardisation():
    fitted = projection.fit([FEATURES], 3)
    front = Front(4, 3)
    front.project_with(fitted)
    np.testing.assert_allclose(through(front, FEATURES).numpy(), fitted(FEATURES), atol=1e-6)
    front.fit([FEATURES], "standardise")
    out = through(front, FEATURES).numpy()
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), 1, rtol=1e-5)


def test_more_rows_than_a_block_are_fitted_and_put_through_like_few():
    rows = np.random.default_rng(1).standard_normal((8192 * 2 + 5, 2)).astype(np.float16) + np.float16(3)
    front = Front(2, None)
    front.fit(np.array_split(rows, 3), "standardise")
    x = rows.astype(np.float64)
    expected = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(through(front, rows).numpy(), expected, atol=1e-5)


def test_a_normalisation_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"normalise 'standardize' is not one of .*did you mean 'standardise'"):
        Front(4, None).fit([FEATURES], "standardize")


def people(seed):
    """16 videos of 12 frames, D = 34: 2 channels tell the class, 32 of a millionth of their size tell who it is."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(16) % 2, 12)
    video = np.repeat(np.arange(16), 12)
    signal = 2.0 * (2 * label[:, None] - 1) * [1, -1] + rng.standard_normal((192, 2))
    nearly_dead = 2e-6 * (rng.standard_normal((16, 32))[video] + 0.1 * rng.standard_normal((192, 32)))
    return np.concatenate([signal, nearly_dead], axis=1).astype(np.float32), label, video


def test_a_channel_that_hardly_moves_stays_small():
    features = people(0)[0]
    front = Front(34, None)
    front.fit([features], "standardise")
    deviation = front(torch.from_numpy(features)).std(0, correction=0)
    mean = float(np.std(features.astype(float), axis=0).mean())
    np.testing.assert_allclose(deviation[:2], 1, rtol=1e-4)
    np.testing.assert_allclose(deviation[2:], features[:, 2:].std(0) / (0.1 * mean), rtol=1e-3)
    assert deviation[2:].max() < 1e-3


def auc_of_new_people(monkeypatch, floor):
    """Trains on 16 people and compares 16 others."""
    monkeypatch.setattr(module, "DEVIATION_FLOOR", floor)
    (features, label, _), (others, other_label, other_video) = people(0), people(1)
    torch.manual_seed(0)
    adapter = adapter_of(facts(num_features=34, loss="supcon", dropout=0.0, embedding_size=16, window={"frames": 1}))
    adapter.front.fit([features], "standardise")
    alone = torch.arange(192)[:, None]
    shard = Shard(np.arange(192), alone.numpy(), InMemory(through(adapter.front, features)), 192)
    trainer = loop.Trainer(
        adapter, loss_of(adapter.facts), loop.Schedule(30, 1e-2), lambda epoch: [shard],
        lambda windows: build_sampler("uniform", labels=label, videos=label, batch_size=192, seed=0),
        {"labels": torch.from_numpy(label)}, 192,
    )  # fmt: skip
    for epoch in range(30):
        trainer.epoch(epoch)
    embedded = adapter.embed(InMemory(through(adapter.front, others)), alone).numpy()
    return formulas.separation(formulas.cosines_of_pairs(embedded, other_label, other_video))["auc_same_different"]


def test_training_beside_channels_that_hardly_move_learns_the_class(monkeypatch):
    """With their own deviation they are as large as the signal, and the adapter learns the training people instead."""
    assert auc_of_new_people(monkeypatch, module.DEVIATION_FLOOR) > 0.95
    assert auc_of_new_people(monkeypatch, 0.0) < 0.85


def test_a_channel_that_never_moves_gives_zeros_and_nothing_infinite():
    features = FEATURES.copy()
    features[:, 2] = 7
    front = Front(4, None)
    front.fit([features], "standardise")
    assert (through(front, features)[:, 2] == 0).all()
    front = Front(4, None)
    front.fit([np.full((9, 4), 7.0)], "standardise")
    assert (through(front, np.full((9, 4), 7.0)) == 0).all()


# --- embedding


def by_hand(adapter, features, centre, num_frames, step):
    """The window's frames, looked up one by one, through the head and the pooling, without any batch."""
    row_of = {(v, f): row for row, (v, f) in enumerate(zip(VIDEO.tolist(), FRAME.tolist(), strict=True))}
    wanted = [(int(VIDEO[centre]), int(FRAME[centre]) + (j - num_frames // 2) * step) for j in range(num_frames)]
    there = [key in row_of for key in wanted]
    window = torch.stack([features[row_of[k]] if k in row_of else torch.zeros(features.shape[1]) for k in wanted])
    with torch.no_grad():
        out = adapter.head.eval()(window[None], torch.tensor([there]))[0]
    if adapter.head.pools:
        return out
    return out[num_frames // 2] if adapter.facts["pooling"] == "centre" else out[torch.tensor(there)].mean(0)


@pytest.mark.parametrize("pooling", ["mean", "centre"])
@pytest.mark.parametrize(("num_frames", "step"), [(1, 1), (4, 1), (15, 1), (5, 2)])
def test_embeddings_are_those_of_each_window_by_itself_gaps_included(head, pooling, num_frames, step):
    adapter = adapter_of(facts(model=head, pooling=pooling))
    adapter.head.train()  # dropout must not reach an embedding
    adapter.front.fit([FEATURES], "standardise")
    features = through(adapter.front, FEATURES)
    rows = Window(num_frames, step).over(VIDEO, FRAME).centred(np.arange(46))
    assert (rows == -1).any() == (num_frames > 1)
    for batch_size in (7, 1024):
        embedded = adapter.embed(InMemory(features), torch.from_numpy(rows), batch_size)
        assert embedded.shape == (46, adapter.head.embedding_size)
        expected = torch.stack([by_hand(adapter, features, centre, num_frames, step) for centre in range(46)])
        torch.testing.assert_close(embedded, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "centre"])
def test_no_windows_have_no_embeddings(head, pooling):
    adapter = adapter_of(facts(model=head, pooling=pooling))
    embedded = adapter.embed(InMemory(torch.from_numpy(FEATURES)), torch.empty((0, 5), dtype=torch.int64))
    assert embedded.shape == (0, adapter.head.embedding_size)


# --- the file


def trained(num_components=None, **changes):
    torch.manual_seed(5)
    adapter = adapter_of(facts(num_components=num_components, **changes))
    if num_components:
        adapter.front.project_with(projection.fit([FEATURES], num_components))
    adapter.front.fit([FEATURES], "standardise")
    return adapter


@pytest.mark.parametrize("num_components", [None, 3])
def test_a_loaded_adapter_gives_the_same_embeddings_and_logits(head, num_components, tmp_path):
    adapter, path = trained(num_components, model=head), tmp_path / "best.safetensors"
    save_adapter(path, adapter, epoch=7, select=0.5)
    torch.manual_seed(99)
    loaded = load_adapter(path, dict(MADE_BY))
    assert loaded.facts == adapter.facts | {"epoch": 7, "select": 0.5, "vouched": {}}
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]
    rows = torch.from_numpy(Window(5, 1).over(VIDEO, FRAME).centred(np.arange(46)))
    one, two = (a.embed(InMemory(through(a.front, FEATURES)), rows) for a in (adapter, loaded))
    torch.testing.assert_close(two, one, rtol=0, atol=0)
    torch.testing.assert_close(loaded.predict("classes", two), adapter.predict("classes", one), rtol=0, atol=0)


def test_a_gate_over_places_knows_the_grid_from_the_features_and_has_none_behind_a_projection():
    made_by = MADE_BY | {"pooling": "grid 3 x 3"}
    of_cells = facts(model="pair_gate", loss="pair_bce", num_features=9 * 4, made_by=made_by)
    assert adapter_of(of_cells).head.grid == 3
    assert adapter_of(of_cells | {"num_components": 5}).head.grid == 1
    assert adapter_of(of_cells | {"made_by": MADE_BY | {"pooling": "average"}}).head.grid == 1


def test_what_is_saved_later_does_not_change_the_facts_of_the_adapter(tmp_path):
    adapter = trained()
    save_adapter(tmp_path / "a.safetensors", adapter, epoch=7)
    assert "epoch" not in adapter.facts


def test_an_adapter_of_another_backbone_is_refused_and_both_are_named(tmp_path):
    save_adapter(tmp_path / "a.safetensors", trained())
    with pytest.raises(
        UserError, match=r"a\.safetensors was trained on other .*backbone 'tiny' there, 'huge' here"
    ) as e:
        load_adapter(tmp_path / "a.safetensors", MADE_BY | {"backbone": "huge"})
    assert "input_size" not in str(e.value)


def saved_in(path, number):
    """What ``trained`` saves, as if by a version of the code that writes another format; None: before there was any."""
    save_adapter(path, trained())
    tensors, facts = load_tensors(path, "an adapter", "", "pt")
    facts = {name: value for name, value in facts.items() if name != "format"}
    save_tensors(path, tensors, facts | ({} if number is None else {"format": number}))


@pytest.mark.parametrize(("number", "said"), [(None, 1), (1, 1), (FORMAT + 1, FORMAT + 1)])
def test_a_checkpoint_of_another_format_is_refused_with_both_numbers_and_what_trains_it_again(tmp_path, number, said):
    path = tmp_path / "runs/old/seed_3/best.safetensors"
    saved_in(path, number)
    seed, run = re.escape(str(path.parent)), re.escape(str(path.parent.parent))
    message = rf"best.safetensors has format {said}, and this version of the code reads format {FORMAT}\. "
    with pytest.raises(UserError, match=message + rf"Delete {seed} and .* 'python train.py --resume {run}'$"):
        load_adapter(path, MADE_BY)
    in_fold = tmp_path / "runs/old/fold_1/seed_3/best.safetensors"
    saved_in(in_fold, number)
    with pytest.raises(UserError, match=rf"Delete .*fold_1/seed_3 and .* 'python train.py --resume {run}'$"):
        load_adapter(in_fold, MADE_BY)


def test_the_state_of_a_training_of_another_format_is_refused(tmp_path):
    path = tmp_path / "seed_0/state.safetensors"
    save_state(path, {"weights.x": torch.ones(2)}, {"epoch": 3}, {})
    tensors, facts, seen = load_state(path)
    assert (tensors["weights.x"].tolist(), facts, seen) == ([1, 1], {"epoch": 3}, {})
    save_tensors(path, tensors, {"epoch": 3})
    message = rf"state.safetensors has format 1, and .* reads format {FORMAT}\. Delete .*seed_0 "
    with pytest.raises(UserError, match=message):
        load_state(path)


def test_a_missing_adapter_is_answered_with_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"no trained adapter at {tmp_path}") + r".*python train\.py"):
        load_adapter(tmp_path / "a.safetensors", MADE_BY)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64], ids=["empty", "text", "noise"])
def test_a_file_that_is_not_an_adapter_is_named(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.safetensors is not a trained adapter"):
        load_adapter(tmp_path / "a.safetensors", MADE_BY)


def test_an_adapter_cut_short_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_adapter(path, trained())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged: it is a trained adapter"):
        load_adapter(path, MADE_BY)


def test_other_safetensors_files_are_no_adapters(tmp_path):
    path = tmp_path / "p.safetensors"
    projection.save(path, projection.fit([FEATURES], 2), MADE_BY)
    with pytest.raises(UserError, match="it does not say which head it holds"):
        load_adapter(path, MADE_BY)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match="is not a trained adapter: there is no digest of ours"):
        load_adapter(path, MADE_BY)


def test_an_adapter_is_found_by_its_run_or_its_seed_as_text_or_path(tmp_path):
    run = tmp_path / "runs/tcn_supcon"
    (run / "seed_3").mkdir(parents=True)
    save_adapter(run / "seed_3/best.safetensors", trained())
    for path in (run, str(run), run / "seed_3", str(run / "seed_3/best.safetensors")):
        assert load_adapter(path, MADE_BY).facts["made_by"] == MADE_BY


def test_a_run_of_several_seeds_names_them_and_the_file_that_was_looked_for(tmp_path):
    for place in ("fold_0/seed_0", "fold_1/seed_0"):
        (tmp_path / "run" / place).mkdir(parents=True)
        save_adapter(tmp_path / "run" / place / "best.safetensors", trained())
    looked = rf"no trained adapter at {tmp_path}/run: there is no {tmp_path}/run/best\.safetensors; name one of "
    with pytest.raises(UserError, match=looked + rf"{tmp_path}/run/fold_0/seed_0, {tmp_path}/run/fold_1/seed_0"):
        load_adapter(f"{tmp_path}/run", MADE_BY)
    with pytest.raises(UserError, match=r"there is no .*other/best\.safetensors; make one with 'python train.py'"):
        load_adapter(tmp_path / "other", MADE_BY)
