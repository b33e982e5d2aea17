"""Single flipped bits and cut ends in the files between the steps: none may pass unseen, none may end in a trace."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import adapter_of, draw_folder, loss_of
from test_tables import frame_table, labels

from pipeline.adapter.adapter import load_adapter, load_state, save_adapter, save_state
from pipeline.core import files, projection, tables
from pipeline.core.params import UserError
from pipeline.core.rates import frame_rates
from pipeline.evaluation import files as evaluation
from pipeline.extraction import backbones
from pipeline.extraction.weights.prepare import prepare
from pipeline.faces import __main__ as faces
from pipeline.faces.loop import read_record, read_record_table
from pipeline.training.loop import Schedule, Trainer

MADE_BY = {"backbone": "tiny", "input_size": 32}
FACTS = {
    "model": "mlp", "model_options": {}, "loss": "arcface", "loss_options": {}, "embedding_size": 4, "dropout": 0.0,
    "num_features": 6, "num_components": None, "classes": ["a", "b"], "class_counts": [1, 1], "num_aus": None,
    "temperature": 15.0, "margin": None, "pooling": "mean", "made_by": MADE_BY, "select": float("nan"),
}  # fmt: skip


def frames_of(path):
    tables.write_frames(path, tables.Frames(frame_table(("a", 1), ("a", 2), ("b", 7)), Path("r"), "d", "cropped"))
    return lambda: tables.read_frames(path)


def labels_of(path):
    tables.write_labels(path, labels())
    return lambda: tables.read_labels(path)


def projection_of(path):
    rows = np.random.default_rng(0).standard_normal((20, 6))
    projection.save(path, {k: projection.fit([rows + k], 2) for k in range(2)}, MADE_BY)
    return lambda: projection.load(path, MADE_BY, fold=1)


def checkpoint_of(path):
    save_adapter(path, adapter_of(FACTS), epoch=3)
    return lambda: load_adapter(path, MADE_BY)


def state_of(path):
    trainer = Trainer(
        adapter_of(FACTS), loss_of(FACTS), Schedule(3, 1e-3), lambda epoch: [], lambda windows: None, {}, 1
    )
    facts = {"epoch": 1, "best": {"select": float("nan")}, "waited": 0, "made_by": MADE_BY}
    save_state(path, trainer.state(), facts, {})
    return lambda: load_state(path)


def weights_of(path):
    shutil.move(prepare("test_efficientnet", "random", path.parent), path)
    return lambda: backbones.load_backbone(path)


def record_of(path):
    table = pd.DataFrame({name: [25] for name in faces.SCHEMA.names}).astype({"video": "str", "source": "str"})
    arrow = faces.SCHEMA.empty_table().from_pandas(table, schema=faces.SCHEMA, preserve_index=False)
    files.write_table(path, arrow, {"source": "v.mp4", "folders": {"v": 1}})
    return lambda: (read_record(path), read_record_table(path))


KINDS = {
    "frames.parquet": frames_of, "labels.parquet": labels_of, "projection.safetensors": projection_of,
    "best.safetensors": checkpoint_of, "state.safetensors": state_of, "weights.safetensors": weights_of,
    "v.parquet": record_of,
}  # fmt: skip


def damaged(content: bytes, flips: int):
    """Flips of seeded bits all over the file, half of them in its first and last kilobyte, where the metadata are."""
    rng = np.random.default_rng(0)
    ends = np.r_[: min(1024, len(content)), max(len(content) - 1024, 0) : len(content)]
    for at in [*rng.integers(0, len(content), flips // 2), *rng.choice(ends, flips // 2)]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
    for length in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
        yield content[:length]


def read_or_line(read):
    """What is read, or the line that says why not."""
    try:
        return read()
    except UserError as error:
        return str(error) if "\n" not in str(error) else ["more than a line", str(error)]


@pytest.mark.parametrize("name", KINDS)
def test_every_damage_is_one_line_that_names_the_file_and_the_way_out(tmp_path, name):
    """Each of 150 flipped bits and 7 cuts; before there was a digest, 98 to 150 of the flips were read in silence."""
    path = tmp_path / name
    read = KINDS[name](path)
    read()
    content = path.read_bytes()
    for some in damaged(content, 150):
        path.write_bytes(some)
        with pytest.raises(UserError) as error:
            read()
        said = str(error.value)
        assert name in said
        assert "\n" not in said
        assert any(way in said for way in ("again", "makes a file that does"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\0", b"[1]"])
def test_damaged_settings_of_the_faces_are_one_line(workplace, content):
    draw_folder(Path("data/videos"), {"v": 2})
    assert faces.main(["--workers", "1", "--min-frames", "1"]) == 0
    Path("data/faces/.faces/settings.json").write_bytes(content)
    with pytest.raises(UserError, match=r"settings\.json is not the settings of the faces.* Put back a copy"):
        faces.main(["--workers", "1", "--min-frames", "1"])


def test_resamples_of_an_evaluation_are_read_whole_or_not_at_all(tmp_path):
    values = {"auc": np.linspace(0, 1, 50)}
    files.write_json(tmp_path / "details.json", {
        "about": {"run": "x"}, "estimates": {"auc": {"value": 0.5}}, "seeds": [],
    })  # fmt: skip
    with files.whole(tmp_path / "resampled.npz") as file:
        np.savez_compressed(file, groups=np.array(["a", "b"]), **{f"metric/{k}": v for k, v in values.items()})
    content = (tmp_path / "resampled.npz").read_bytes()
    for some in damaged(content, 300):
        (tmp_path / "resampled.npz").write_bytes(some)
        found = read_or_line(lambda: evaluation.read(tmp_path))
        if isinstance(found, str):
            assert "resampled.npz is damaged" in found
            continue
        assert found.groups == ["a", "b"]
        np.testing.assert_array_equal(found.estimates["auc"].resampled, values["auc"])


def test_no_flipped_bit_of_sealed_json_changes_what_is_read(tmp_path):
    """A key that is another, such as that of the digest itself, is for the reader: it knows which keys there are."""
    path, content = tmp_path / "details.json", {"runs": {"a": 0.25, "ü": [1, None]}, "epoch": 3}
    files.write_json(path, content | {"runs": content["runs"] | {"b": float("nan")}}, sealed=True)
    written = path.read_bytes()
    content["runs"]["b"] = None
    for bit in range(8 * len(written)):
        some = bytearray(written)
        some[bit // 8] ^= 1 << bit % 8
        path.write_bytes(some)
        found = read_or_line(lambda: files.read_json(path, "the details", "Evaluate the run again"))
        if isinstance(found, str):
            assert "details.json is" in found
            assert found.endswith("Evaluate the run again")
            continue
        assert found["runs"] == content["runs"]
        assert found["epoch"] == 3
        assert len(set(found) - {"runs", "epoch"}) <= 1


def test_a_damaged_table_of_frame_rates_is_one_line(tmp_path):
    path = tmp_path / "faces.parquet"
    record_of(path)
    content = path.read_bytes()
    for some in damaged(content, 100):
        path.write_bytes(some)
        found = read_or_line(lambda: frame_rates(path, ["25"], np.zeros(3, int)))
        assert "faces.parquet" in found if isinstance(found, str) else found.tolist() == [25]
