import hashlib
import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT
from test_store import MADE_BY, keys, written

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreDamaged, StoreMismatch, StoreWriter, differences
from pipeline.extraction.transfer import export_features, import_features

N, D = 11, 4


def save(path: Path, content: dict[str, np.ndarray], **attributes) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **content)
        return path
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for name, values in content.items():
            text = values.dtype.kind == "U"
            file.create_dataset(name, data=values.astype(object) if text else values)
    return path


def rows(store: FeatureStore, name: str) -> dict[tuple[str, int], bytes]:
    values = store.read(store.keys["row"].to_numpy(), name)
    return {(v, f): row.tobytes() for v, f, row in zip(store.keys["video"], store.keys["frame"], values, strict=True)}


def expected(content: dict[str, np.ndarray], name: str) -> dict[tuple[str, int], bytes]:
    return {
        (str(v), int(f)): row.tobytes()
        for v, f, row in zip(content["video"], content["frame"], content[name], strict=True)
    }


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_what_is_imported_is_read_by_its_key_in_every_view(tmp_path, content, suffix):
    file = save(tmp_path / f"other{suffix}", content)
    assert import_features(file, tmp_path / "s.zarr", 4, False) == (N, 0, [], [])
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.views == ["dark", "flipped", "original"]
    for name, there in {"original": "features", "flipped": "flipped", "dark": "views/dark", "logits": "logits"}.items():
        assert rows(store, name) == expected(content, there)
    assert store.chunk_rows == 4


def test_the_store_says_where_its_features_came_from(tmp_path, content):
    file = save(tmp_path / "other.h5", content, backbone="somebody's", epochs=np.int64(3), classes=["x", "y"])
    import_features(file, tmp_path / "s.zarr", 8, False)
    made_by = FeatureStore(tmp_path / "s.zarr").made_by
    assert made_by["backbone"] == "imported"
    assert made_by["source"] == "other.h5"
    assert made_by["source_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert made_by["attributes"] == {"backbone": "somebody's", "epochs": 3, "classes": ["x", "y"]}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("fortran", [False, True])
def test_a_bare_array_is_one_image_a_row(tmp_path, dtype, fortran):
    values = np.arange(12).reshape(4, 3).astype(dtype, order="F" if fortran else "C")
    np.save(tmp_path / "bare.npy", values)
    import_features(tmp_path / "bare.npy", tmp_path / "s.zarr", 8, False)
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.keys["video"].tolist() == ["00000000", "00000001", "00000002", "00000003"]
    assert store.keys["frame"].tolist() == [0] * 4
    np.testing.assert_array_equal(store.read(store.keys["row"].to_numpy()), values)


def test_arrays_in_columns_and_compressed_ones_are_read_as_they_are_meant(tmp_path, content):
    content["features"] = np.asfortranarray(content["features"])
    np.savez_compressed(tmp_path / "c.npz", **content)
    import_features(tmp_path / "c.npz", tmp_path / "s.zarr", 4, False)
    assert rows(FeatureStore(tmp_path / "s.zarr"), "original") == expected(content, "features")


def test_video_names_may_be_numbers_or_bytes(tmp_path, content):
    for number, video in enumerate([np.arange(N), np.array([b"%d" % i for i in range(N)])]):
        file = save(tmp_path / f"{number}.h5", content | {"video": video})
        import_features(file, tmp_path / f"{number}.zarr", 8, False)
        assert sorted(FeatureStore(tmp_path / f"{number}.zarr").keys["video"]) == sorted(map(str, range(N)))


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_there_and_back_again_is_exact(tmp_path, content, suffix):
    first, second = tmp_path / "1.zarr", tmp_path / "2.zarr"
    import_features(save(tmp_path / "other.h5", content), first, 4, False)
    store = FeatureStore(first)
    assert export_features(store, tmp_path / f"out{suffix}") == N
    import_features(tmp_path / f"out{suffix}", second, 8, False)
    again = FeatureStore(second)
    assert again.widths == store.widths
    for name in store.widths:
        assert rows(again, name) == rows(store, name)
    assert (
        again.keys[["video", "frame", "size"]]
        .astype({"video": str})
        .equals(store.keys[["video", "frame", "size"]].astype({"video": str}))
    )
    assert differences(again.made_by, store.made_by) == ""
    assert again.made_by["provenance"]["source"] == f"out{suffix}"
    assert not list(tmp_path.glob("*.partial"))


def test_an_exported_file_is_read_by_numpy_and_h5py_alone(tmp_path):
    store = FeatureStore(written(tmp_path / "s.zarr", keys("b", [2, 1]), keys("a", [3])))
    export_features(store, tmp_path / "out.npz")
    export_features(store, tmp_path / "out.h5")
    with np.load(tmp_path / "out.npz") as file:
        assert file["video"].tolist() == ["a", "b", "b"]
        assert file["frame"].tolist() == [3, 1, 2]
        assert file["features"][:, 0].tolist() == [3, 1, 2]
        assert json.loads(str(file["made_by"])) == MADE_BY
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["video"].asstr()[:].tolist() == ["a", "b", "b"]
        assert file["features"][:, 0].tolist() == [3, 1, 2]
        assert json.loads(file.attrs["made_by"]) == MADE_BY


def test_dead_rows_and_damage_are_not_exported(tmp_path):
    path = written(tmp_path / "s.zarr", keys("a", [1, 2]), keys("a", [2], size=99))
    assert export_features(FeatureStore(path), tmp_path / "out.h5") == 2
    with pytest.raises(UserError, match="nothing is written over"):
        export_features(FeatureStore(path), tmp_path / "out.h5")
    with pytest.raises(UserError, match=r"must end in \.h5"):
        export_features(FeatureStore(path), tmp_path / "out.csv")
    file = path / "views" / "original" / "c" / "0" / "0"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    with pytest.raises(StoreDamaged):
        export_features(FeatureStore(path), tmp_path / "again.h5")
    assert not (tmp_path / "again.h5").exists()


def test_an_import_that_was_cut_off_goes_on_and_one_of_another_file_is_refused(tmp_path, content, monkeypatch):
    file, path = save(tmp_path / "other.npz", content), tmp_path / "s.zarr"
    real, seen = StoreWriter.write, []

    def cut_off(self, keys, features):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(len(keys))
        real(self, keys, features)

    monkeypatch.setattr(StoreWriter, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        import_features(file, path, 4, False)
    monkeypatch.setattr(StoreWriter, "write", real)
    assert import_features(file, path, 4, False) == (7, 4, [], [])
    assert import_features(file, path, 4, False) == (0, 11, [], [])
    assert rows(FeatureStore(path), "original") == expected(content, "features")
    other = save(tmp_path / "two.npz", content | {"features": content["features"] + 1})
    with pytest.raises(StoreMismatch, match=r"source 'other.npz' there, 'two.npz' here.*--rebuild"):
        import_features(other, path, 4, False)
    assert import_features(other, path, 4, True) == (11, 0, [], [])


SAID = {"backbone": "theirs", "preprocessing": {"size": 224, "mean": [0.5, 0.5]}}


def test_two_imports_that_one_thing_made_are_alike_whatever_their_files_and_views(tmp_path, content):
    first = save(tmp_path / "train.h5", content)
    second = save(tmp_path / "val.npz", {name: content[name][:4] for name in ("features", "video", "frame")})
    made_by = {}
    for file in (first, second):
        import_features(file, file.with_suffix(".zarr"), 4, False, made_by=SAID)
        made_by[file] = FeatureStore(file.with_suffix(".zarr")).made_by
        assert made_by[file] | SAID == made_by[file]
        provenance = made_by[file]["provenance"]
        assert provenance["source"] == file.name
        assert provenance["source_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert differences(made_by[first], made_by[second]) == ""
    for other in (SAID | {"backbone": "other"}, SAID | {"crop_source": "cropped"}, None):
        import_features(second, tmp_path / "other.zarr", 4, True, made_by=other)
        assert "there" in differences(made_by[first], FeatureStore(tmp_path / "other.zarr").made_by)


def test_files_that_one_thing_made_grow_one_store_unless_they_say_different_things_of_a_frame(tmp_path, content):
    path, columns = tmp_path / "s.zarr", ("features", "video", "frame")
    parts = [{name: content[name][rows] for name in columns} for rows in (slice(0, 7), slice(4, 11))]
    assert import_features(save(tmp_path / "1.npz", parts[0]), path, 4, False, made_by=SAID) == (7, 0, [], [])
    assert import_features(save(tmp_path / "2.npz", parts[1]), path, 4, False, made_by=SAID) == (4, 3, [], [])
    assert rows(FeatureStore(path), "original") == expected(content, "features")
    parts[1]["features"] = parts[1]["features"].copy()
    parts[1]["features"][5] += 1
    other = save(tmp_path / "3.npz", parts[1])
    with pytest.raises(StoreMismatch, match=r"1 of 7 rows \(a/20\) that both .*3.npz and the store .* differ"):
        import_features(other, path, 4, False, made_by=SAID)
    assert rows(FeatureStore(path), "original") == expected(content, "features")
    assert import_features(other, path, 4, True, made_by=SAID) == (7, 0, [], [])


def test_a_file_says_itself_what_made_it(tmp_path, content):
    file = save(tmp_path / "a.h5", content, made_by=json.dumps(SAID | {"outputs": ["x", "y"]}))
    import_features(file, tmp_path / "s.zarr", 4, False)
    made_by = FeatureStore(tmp_path / "s.zarr").made_by
    assert made_by | SAID | {"outputs": ["x", "y"]} == made_by
    file = save(tmp_path / "b.h5", {k: v for k, v in content.items() if k != "logits"}, made_by=json.dumps(made_by))
    import_features(file, tmp_path / "b.zarr", 4, False, 4.0)
    again = FeatureStore(tmp_path / "b.zarr").made_by
    assert (again["outputs"], again["scale"], again["provenance"]["before"]) == (None, 4.0, made_by["provenance"])


def test_made_by_of_the_command_line_is_a_mapping_of_plain_values(workplace, content):
    save(workplace / "a.npz", content)
    extract.main(["--import", "a.npz", "-s", "s.zarr", "--made-by", "{backbone: theirs, input_size: 224}"])
    assert FeatureStore(Path("s.zarr")).made_by["input_size"] == 224
    for odd in ("{}", "{1: 2}", "{a: 2020-01-01}", "{scale: 2}", "{provenance: x}"):
        with pytest.raises(UserError, match="must name what made the features by plain values"):
            extract.main(["--import", "a.npz", "-s", "s.zarr", "--made-by", odd])
    with pytest.raises(UserError, match="made_by must be a finite number, and is nan"):
        extract.main(["--import", "a.npz", "-s", "s.zarr", "--made-by", "{a: .nan}"])
    with pytest.raises(UserError, match="--made-by goes with --import alone"):
        extract.main(["--made-by", "{backbone: theirs}"])


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video": None, "frame": None}, r"lacks the datasets \['video', 'frame'\]; it has \['features', 'flipped'"),
        ({"features": None}, r"lacks the datasets \['features'\]"),
        ({"video": np.array(["a"] * 5)}, "lengths differ: {'video': 5, 'frame': 11}"),
        ({"logits": np.zeros((3, 2))}, "the same number of rows, and they have .*'logits': 3"),
        ({"frame": np.zeros(N, dtype=int)}, r"9 keys \(video, frame\) stand there twice, such as \['b é/0'"),
        ({"frame": np.arange(N) - 1}, "must not be negative"),
        ({"frame": np.arange(N) / 2}, "must be whole numbers, and 5 are not, such as 0.5"),
        ({"video": np.array([""] * N)}, "'video' must not be empty, and is in 11 rows"),
        (
            {"features": np.full((N, D), 7e4)},
            "11 of 11 rows .* of 'original' are not finite .*7.0e.04.*give --scale 0.0001,",
        ),
        ({"flipped": np.full((N, D), np.nan)}, "11 of 11 rows .* of 'flipped' are not finite in the store's float16$"),
        ({"features": np.zeros((N, D), dtype=complex)}, "must be real numbers, and is complex128"),
        ({"features": np.zeros((N, D, 2))}, r"must have two axes \(rows, width\)"),
        ({"views/flipped": np.zeros((N, D))}, "'views/flipped' cannot be the view 'flipped'"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_in_words_before_any_work(tmp_path, content, suffix, change, words):
    whole = {name: values for name, values in (content | change).items() if values is not None}
    file = save(tmp_path / f"other{suffix}", whole)
    with pytest.raises(UserError, match=words):
        import_features(file, tmp_path / "s.zarr", 4, False)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a.npy", "a.csv", "missing.h5"])
@pytest.mark.parametrize("garbage", [b"", b"not what it says", b"PK\3\4", b"\x93NUMPY\1\0"])
def test_a_file_that_is_not_what_its_name_says_is_refused_in_words(tmp_path, name, garbage):
    if name != "missing.h5":
        (tmp_path / name).write_bytes(garbage)
    with pytest.raises(UserError, match=rf"cannot (read|import) .*{name}"):
        import_features(tmp_path / name, tmp_path / "s.zarr", 4, False)


def test_a_pickle_in_a_file_is_not_opened(tmp_path, content):
    file = save(tmp_path / "other.npz", content | {"video": np.array(["a"] * N, dtype=object)})
    with pytest.raises(UserError, match="holds Python objects"):
        import_features(file, tmp_path / "s.zarr", 4, False)
    np.save(tmp_path / "bare.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot read"):
        import_features(tmp_path / "bare.npy", tmp_path / "s.zarr", 4, False)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_memory_is_bounded_by_the_chunk(tmp_path, suffix, monkeypatch):
    many, width = 4000, 2048
    monkeypatch.setattr("pipeline.extraction.transfer._BLOCK_BYTES", 1 << 20)
    values = np.ones((many, width), dtype=np.float16)
    file = save(tmp_path / f"big{suffix}", {"features": values, "video": np.arange(many), "frame": np.arange(many)})
    tracemalloc.start()
    import_features(file, tmp_path / "s.zarr", 256, False)
    export_features(FeatureStore(tmp_path / "s.zarr"), tmp_path / f"out{suffix}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * values.nbytes


def test_the_flags_import_and_export_without_frames_or_backbone(workplace, content, capsys):
    save(workplace / "other.h5", content | {"labels": np.zeros(N)})
    assert extract.main(["--import", "other.h5", "-s", "s.zarr"]) == 0
    out = capsys.readouterr().out
    assert "11 rows of other.h5 imported into s.zarr, 0 were there" in out
    assert "left out of other.h5: ['labels']" in out
    assert extract.main(["--export", "out.npz", "-s", "s.zarr"]) == 0
    assert "11 rows of s.zarr written to out.npz" in capsys.readouterr().out
    victim = next(Path("s.zarr/views/original/c").rglob("0/0"))
    victim.write_bytes(b"\1" + victim.read_bytes()[1:])
    assert extract.main(["--import", "other.h5", "-s", "s.zarr", "--repair"]) == 0
    assert rows(FeatureStore(Path("s.zarr")), "original") == expected(content, "features")
    with pytest.raises(UserError, match="--import and --compact do not go together"):
        extract.main(["--import", "other.h5", "--compact"])


def test_training_on_a_file_says_how_to_import_it(tmp_path):
    assert (ROOT / "train.py").is_file()
    for name in ("mine.npy", "mine.h5", "mine.npz"):
        with pytest.raises(UserError, match=rf"python extract.py --import .*{name} -s .*mine.zarr"):
            FeatureStore(tmp_path / name)
