"""Files of features that others made: what they claim and where they point to is looked at before it is believed."""

import io
import json
import os
import signal
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import within_200_megabytes
from test_transfer import N, save

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreMismatch
from pipeline.extraction import feature_files
from pipeline.extraction.feature_files import open_features
from pipeline.extraction.transfer import import_features


def read(file: Path) -> dict[str, np.ndarray]:
    with open_features(file) as source:
        return {name: rows[0 : rows.shape[0]] for name, rows in source.arrays.items()}


def refused(file: Path, words: str) -> None:
    """By the importer, in one line, and without a store."""
    store = file.with_suffix(".zarr")
    with pytest.raises(UserError, match=words) as refusal:
        import_features(file, store, 4, False)
    assert "\n" not in str(refusal.value)
    assert file.name in str(refusal.value)
    assert not store.exists()


# --- HDF5: other files, and values that nobody wrote ------------------------------------------------------------------


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((N, 4), "f4")
    layout[:] = h5py.VirtualSource(folder / "not_there.h5", "features", (N, 4))
    file.create_virtual_dataset("features", layout)


def virtual_of_itself(file: h5py.File, folder: Path) -> None:
    file["elsewhere"] = np.ones((N, 4), "f4")
    layout = h5py.VirtualLayout((N, 4), "f4")
    layout[:] = h5py.VirtualSource(".", "elsewhere", (N, 4))
    file.create_virtual_dataset("features", layout)


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret.txt").write_bytes(bytes(N * 16))
    file.create_dataset("features", (N, 4), "f4", external=[(folder / "secret.txt", 0, N * 16)])


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["features"] = np.ones((N, 4), "f4")
    file["features"] = h5py.ExternalLink(folder / "other.h5", "features")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["elsewhere"] = np.ones((N, 4), "f4")
    file["features"] = h5py.SoftLink("/elsewhere")


def never_written(file: h5py.File, folder: Path) -> None:
    file.create_dataset("features", (N, 4), "f4")


def never_written_chunks(file: h5py.File, folder: Path) -> None:
    file.create_dataset("features", (N, 4), "f4", chunks=(2, 3))[:3] = 1


def one_chunk_missing(file: h5py.File, folder: Path) -> None:
    features = file.create_dataset("features", (N, 4), "f4", chunks=(2, 3), compression="gzip")
    features[:4], features[6:], features[4:6, :3] = 1, 1, 1


def grown(file: h5py.File, folder: Path) -> None:
    features = file.create_dataset("features", data=np.ones((5, 4), "f4"), chunks=(5, 4), maxshape=(None, 4))
    features.resize((N, 4))


def scale_offset(file: h5py.File, folder: Path) -> None:
    file.create_dataset("features", data=np.ones((N, 4), "i4"), chunks=(5, 4), scaleoffset=0)


def references(file: h5py.File, folder: Path) -> None:
    file["features"] = np.array([[file.ref] * 4] * N, dtype=h5py.ref_dtype)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (virtual, "'features' is a virtual data set, whose values are in other files"),
        (virtual_of_itself, "'features' is a virtual data set"),
        (external, "the values of 'features' are in another file, '.*secret.txt'"),
        (external_link, "'features' is a link to 'features' in '.*other.h5', and links are not followed"),
        (soft_link, "'features' is a link to '/elsewhere', and links are not followed"),
        (never_written, "rows 0 to 10 of 'features' were never written"),
        (never_written_chunks, "rows 4 to 10 of 'features' were never written"),
        (one_chunk_missing, "rows 4 to 5 of 'features' were never written"),
        (grown, "rows 5 to 10 of 'features' were never written"),
        (scale_offset, r"'features' is compressed by 'scaleoffset' \(6\)"),
        (references, "'features' must be real numbers, and is object"),
    ],
)
def test_hdf5_that_points_elsewhere_or_holds_values_that_nobody_wrote_is_refused_by_name(
    tmp_path,
    content,
    make,
    words,
):
    file = save(tmp_path / "a.h5", {name: content[name] for name in ("video", "frame", "flipped", "logits")})
    with h5py.File(file, "a") as handle:
        make(handle, tmp_path)
    refused(file, words)


@pytest.mark.parametrize("name", ["video", "frame", "size", "flipped", "views/dark", "logits"])
@pytest.mark.parametrize("make", [virtual, external, external_link, never_written])
def test_the_same_holds_for_every_data_set_that_is_taken(tmp_path, content, name, make):
    file = save(
        tmp_path / "a.h5", {key: values for key, values in content.items() if key != name} | {"size": np.ones(N)}
    )
    with h5py.File(file, "a") as handle:
        before = handle.pop("features")
        make(handle, tmp_path)
        if name in handle:
            del handle[name]
        handle.move("features", name)
        handle["features"] = before
    refused(file, f"'{name}'")


def test_what_nobody_takes_may_point_anywhere_and_is_named(tmp_path, content):
    file = save(tmp_path / "a.h5", content)
    with h5py.File(file, "a") as handle:
        handle["elsewhere"] = h5py.ExternalLink("nothing.h5", "x")
        handle.create_dataset("labels", (N,), "i8")
    assert import_features(file, tmp_path / "s.zarr", 4, False) == (N, 0, ["labels", "elsewhere"], [])


def test_h5py_itself_gives_zeros_for_a_virtual_source_that_is_missing(tmp_path):
    """h5py 3.16, HDF5 2.0 (H5Pset_virtual: 'missing source files are filled'): why the layout is asked for first."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        virtual(file, tmp_path)
    with h5py.File(tmp_path / "a.h5") as file:
        assert not file["features"][:].any()


def test_a_second_name_of_one_data_set_counts(tmp_path, content):
    """h5py 3.16: ``visititems`` calls once an object, not once a name, so that the second name is not seen."""
    del content["flipped"]
    file = save(tmp_path / "a.h5", content)
    with h5py.File(file, "a") as handle:
        handle["flipped"] = handle["features"]
        seen: list[str] = []
        handle.visititems(lambda name, _: seen.append(name))
        assert "flipped" not in seen or "features" not in seen
    np.testing.assert_array_equal(read(file)["flipped"], content["features"])


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunks": (3, 4)},
        {"chunks": (4, 3), "maxshape": (None, None)},
        {"chunks": (N, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (5, 2), "maxshape": (None, 4), "compression": "lzf"},
        {"chunks": True},
    ],
)
def test_every_usual_layout_is_read(tmp_path, content, libver, how):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for name, values in content.items():
            options = how if values.ndim == 2 and values.shape[1] == 4 else {}
            file.create_dataset(name, data=values.astype(object) if values.dtype.kind == "U" else values, **options)
    np.testing.assert_array_equal(read(tmp_path / "a.h5")["original"], content["features"])


def test_chunks_that_were_cut_away_again_are_not_missed(tmp_path, content):
    with h5py.File(save(tmp_path / "a.h5", content), "a") as file:
        del file["features"]
        features = file.create_dataset("features", data=np.ones((40, 9), "f4"), chunks=(3, 2), maxshape=(None, None))
        features.resize((N, 5))
    assert read(tmp_path / "a.h5")["original"].shape == (N, 5)


# --- files that claim more than they can hold -------------------------------------------------------------------------

CLAIM = 1 << 33  # what the files below claim, one way or another; they themselves are small


def npy(header: dict, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy with a header of one's own."""
    text = repr(header).encode() + b"\n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + data


def header(shape: tuple[int, ...], dtype: str = "<f4") -> dict:
    return {"descr": dtype, "fortran_order": False, "shape": shape}


def archive(file: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", how) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return file


def whole(**others: bytes) -> dict[str, bytes]:
    """Members of a .npz of two rows, some of them replaced."""
    sound = {"features": np.ones((2, 3), "f4"), "video": np.array(["a", "b"]), "frame": np.arange(2)}
    members = {}
    for name, values in sound.items():
        buffer = io.BytesIO()
        np.save(buffer, values)
        members[f"{name}.npy"] = buffer.getvalue()
    return members | {f"{name}.npy": data for name, data in others.items()}


def hdf5(file: Path, **others) -> Path:
    """Two rows; a value is data, or (shape, dtype, options) of a data set of which the first row is written."""
    sound = {"features": np.ones((2, 3), "f4"), "video": np.array([b"a", b"b"]), "frame": np.arange(2)}
    with h5py.File(file, "w") as out:
        for name, values in (sound | others).items():
            if isinstance(values, tuple):
                shape, dtype, options = values
                out.create_dataset(name, shape, dtype, **options)
            else:
                out[name] = values
    return file


def many_texts(file: Path) -> Path:
    """4,000 rows that all name one text of 100 kB: the reference to it is copied, as any program may do."""
    texts = np.array(["x" * 100_000, *["y"] * 3_999], dtype=object)
    file = hdf5(file, features=np.ones((4_000, 1), "f4"), video=texts, frame=np.arange(4_000))
    with h5py.File(file) as handle:
        start = handle["video"].id.get_offset()
    data = bytearray(file.read_bytes())
    data[start : start + 16 * 4_000] = bytes(data[start : start + 16]) * 4_000
    file.write_bytes(data)
    return file


def inflated(file: Path) -> Path:
    """A chunk of 24 bytes whose stream goes on for 300 MB."""
    stream = zlib.compressobj(9)
    packed = b"".join(stream.compress(bytes(1 << 20)) for _ in range(300)) + stream.flush()
    file = hdf5(file, features=((2, 3), "f4", {"chunks": (2, 3), "compression": "gzip"}))
    with h5py.File(file, "a") as handle:
        handle["features"].id.write_direct_chunk((0, 0), packed)
    return file


HUGE_CHUNK = {"chunks": (1 << 28, 3), "maxshape": (None, 3)}
CLAIMS = {
    "npy rows": lambda f: f.with_suffix(".npy").write_bytes(npy(header((CLAIM, 4)))),
    "npy rows of nothing": lambda f: f.with_suffix(".npy").write_bytes(npy(header((CLAIM, 0)))),
    "npy of empty text": lambda f: f.with_suffix(".npy").write_bytes(npy(header((CLAIM,), "<U0"))),
    "npy width": lambda f: f.with_suffix(".npy").write_bytes(npy(header((1, CLAIM)))),
    "npy that wraps around": lambda f: f.with_suffix(".npy").write_bytes(npy(header((1 << 32, 1 << 32)))),
    "npy wide text": lambda f: f.with_suffix(".npy").write_bytes(npy(header((1,), "<U400000000"))),
    "npy long header": lambda f: f.with_suffix(".npy").write_bytes(b"\x93NUMPY\2\0\xf0\xff\xff\xff{}"),
    "npy deep header": lambda f: f.with_suffix(".npy").write_bytes(npy(header((1, 1))).replace(b"(1, 1)", b"(" * 4000)),
    "npz rows": lambda f: archive(f.with_suffix(".npz"), whole(features=npy(header((CLAIM, 4))))),
    "npz width of text": lambda f: archive(f.with_suffix(".npz"), whole(video=npy(header((2,), "<U400000000")))),
    "npz empty text": lambda f: archive(f.with_suffix(".npz"), whole(video=npy(header((CLAIM,), "<U0")))),
    "npz made_by": lambda f: archive(f.with_suffix(".npz"), whole(made_by=npy(header((CLAIM,), "<f4")))),
    "npz deflated": lambda f: archive(
        f.with_suffix(".npz"), whole(features=npy(header((100_000_000, 1)), bytes(400_000_000))), zipfile.ZIP_DEFLATED
    ),
    "hdf5 rows": lambda f: hdf5(f.with_suffix(".h5"), frame=((CLAIM,), "i8", {"chunks": (1000,)})),
    "hdf5 width": lambda f: hdf5(f.with_suffix(".h5"), features=((2, CLAIM), "f4", {"chunks": (1, 1000)})),
    "hdf5 chunk": lambda f: hdf5(f.with_suffix(".h5"), features=((2, 3), "f4", HUGE_CHUNK)),
    "hdf5 wide text": lambda f: hdf5(f.with_suffix(".h5"), video=((2,), "S1000000000", {"chunks": (1,)})),
    "hdf5 one text for all": lambda f: many_texts(f.with_suffix(".h5")),
    "hdf5 inflated": lambda f: inflated(f.with_suffix(".h5")),
}  # fmt: skip


def test_a_small_file_that_asks_for_gigabytes_is_refused_in_a_line_within_a_second_and_200_megabytes(workplace):
    """In a process that cannot have more. The files hold nothing but claims, zeros, and one text named many times."""
    for name, make in CLAIMS.items():
        make(workplace / name.replace(" ", "_"))
    files = sorted(file.name for file in workplace.iterdir() if file.suffix in (".npy", ".npz", ".h5"))
    assert len(files) == len(CLAIMS)
    assert all((workplace / name).stat().st_size < 1 << 21 for name in files)
    call = 'transfer.import_features(Path(name), Path(name + ".zarr"), 4, False)'
    came = within_200_megabytes(call, files, workplace)
    for name, (seconds, words) in came.items():
        assert seconds < 1, name
        assert name in words
        assert "MemoryError" not in words, (name, words)
    assert not list(workplace.glob("*.zarr"))


def test_an_archive_that_compresses_well_is_taken_up_to_a_bound_and_uncompressed_always(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.extraction.bounds.FLOOR_BYTES", 0)
    rows = {"features": np.zeros((500, 1000), "f4"), "video": np.arange(500), "frame": np.arange(500)}
    np.savez_compressed(tmp_path / "small.npz", **rows)
    refused(tmp_path / "small.npz", "would unpack to .* save it uncompressed")
    np.savez(tmp_path / "large.npz", **rows)
    assert import_features(tmp_path / "large.npz", tmp_path / "s.zarr", 100, False) == (500, 0, [], [])
    with h5py.File(tmp_path / "small.h5", "w") as file:
        for name, values in rows.items():
            file.create_dataset(name, data=values, compression="gzip", compression_opts=9, chunks=values.shape)
    refused(tmp_path / "small.h5", "its arrays would have 2,008,000, .* save it uncompressed")


def test_long_texts_and_attributes_that_are_real_are_read_whole(tmp_path):
    names = [f"{'x' * 300} {i}" for i in range(9000)]
    file = hdf5(
        tmp_path / "a.h5", features=np.ones((9000, 1), "f4"), video=np.array(names, dtype=object), frame=np.arange(9000)
    )
    with h5py.File(file, "a") as handle:
        handle.attrs["classes"] = [f"class {i}" for i in range(30)]
        handle.attrs["made_by"] = json.dumps({"long": "y" * 200_000})
        handle["features"].attrs["scale"] = handle.ref
        handle["features"].attrs["mean"] = np.array([0.5, np.nan])
    with open_features(file) as source:
        assert source.keys["video"].tolist() == names
        assert source.facts["classes"] == [f"class {i}" for i in range(30)]
        assert source.facts["made_by"] == {"long": "y" * 200_000}
        assert source.facts["mean"] == [0.5, "nan"]
        assert source.left_out == ["attribute scale"]


# --- what float16 takes -----------------------------------------------------------------------------------------------


def features(values: np.ndarray, file: Path) -> Path:
    np.save(file, values)
    return file


def shape(values: np.ndarray) -> np.ndarray:
    """Cosines of all rows with each other."""
    rows = values / np.linalg.norm(values, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.mark.parametrize("size", [1e-6, 1e-8, 1e-12, 3e5, 1e20])
def test_features_beyond_the_range_of_float16_are_refused_with_a_factor_that_helps(tmp_path, size):
    values = np.random.default_rng(0).standard_normal((200, 16)) * size
    file = features(values.astype(np.float32), tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"200 of 200 rows .* of 'original' .*float16.*give --scale ") as refusal:
        import_features(file, tmp_path / "s.zarr", 64, False)
    assert not (tmp_path / "s.zarr").exists()
    factor = float(str(refusal.value).split("--scale ")[1].split(",")[0])
    assert import_features(file, tmp_path / "s.zarr", 64, False, factor).notes == []
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.made_by["scale"] == factor
    stored = store.read(store.keys["row"].to_numpy()).astype(np.float64)
    np.testing.assert_allclose(shape(stored), shape(values), atol=1e-3)
    np.testing.assert_allclose(stored, values * factor, rtol=1e-3, atol=1e-4)


def test_features_that_one_factor_cannot_bring_into_range_need_their_rows_divided(tmp_path):
    values = np.random.default_rng(0).standard_normal((50, 8)) * np.logspace(-12, 3, 50)[:, None]
    refused(features(values, tmp_path / "a.npy"), "differ too much for one factor; divide each row by its length")
    rows = values / np.linalg.norm(values, axis=1, keepdims=True)
    assert import_features(features(rows, tmp_path / "a.npy"), tmp_path / "s.zarr", 8, False).notes == []


def test_a_few_rows_and_columns_that_are_lost_are_counted_and_the_rest_is_taken(tmp_path, workplace, capsys):
    values = np.random.default_rng(0).standard_normal((500, 8))
    values[3:5] *= 1e-9
    values[:, 2] = 1000 + values[:, 2] * 1e-2
    values[3:5, 2] = 0
    values[:, 5], values[:, 6], values[7] = 1000.1, 0, 0  # constants and black pictures lose nothing
    values[3:5, 5] = 0
    file = features(values, workplace / "a.npy")
    assert extract.main(["--import", str(file), "-s", "s.zarr"]) == 0
    out = capsys.readouterr().out
    assert "2 of 500 rows (00000003/0, 00000004/0) of 'original' lose over 1 % of their length" in out
    assert len(out.splitlines()) == 2


def test_columns_that_spread_by_less_than_float16_can_tell_apart_are_named(tmp_path):
    values = np.random.default_rng(0).standard_normal((500, 8))
    values[:, 2] = 1000 + values[:, 2] * 1e-2
    notes = import_features(features(values, tmp_path / "a.npy"), tmp_path / "s.zarr", 64, False).notes
    assert len(notes) == 1
    assert (
        "1 of 8 columns of 'original' spread by less than float16 can tell apart, such as column 2 (1000 ± 0.01)"
        in notes[0]
    )
    everywhere = 1000 + 1e-2 * np.random.default_rng(0).standard_normal((500, 8))
    refused(features(everywhere, tmp_path / "b.npy"), "8 of 8 columns .* subtract each column's mean")
    notes = import_features(features(everywhere - 1000, tmp_path / "c.npy"), tmp_path / "c.zarr", 64, False).notes
    assert notes == []


def test_logits_are_not_scaled_and_another_factor_is_another_store(tmp_path, content):
    file = save(tmp_path / "a.h5", content)
    import_features(file, tmp_path / "s.zarr", 4, False, 8.0)
    store = FeatureStore(tmp_path / "s.zarr")
    order = np.lexsort([content["frame"], content["video"]])
    for name, there, factor in (("logits", "logits", 1), ("dark", "views/dark", 8), ("original", "features", 8)):
        stored = store.read(store.keys["row"].to_numpy(), name)
        np.testing.assert_array_equal(stored, content[there][order] * np.float16(factor))
    with pytest.raises(StoreMismatch, match=r"scale 8\.0 there, None here"):
        import_features(file, tmp_path / "s.zarr", 4, False)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_axes_of_length_one_and_frame_numbers_as_text_or_whole_floats_are_taken(tmp_path, content, suffix):
    plain = save(tmp_path / f"plain{suffix}", content)
    with open_features(plain) as source:
        wanted = source.keys
    odd = {
        "features": content["features"][:, None], "flipped": content["flipped"][:, :, None, None],
        "views/dark": content["views/dark"][:, None, :, None], "frame": content["frame"][:, None].astype(np.float32),
        "video": content["video"][:, None],
    }  # fmt: skip
    forms = [content["frame"].astype(str), np.char.add(content["frame"].astype(str), ".0"), content["frame"] * 1.0]
    for frame in [odd["frame"], *forms]:
        file = save(tmp_path / f"odd{suffix}", content | odd | {"frame": frame})
        with open_features(file) as source:
            assert source.keys.equals(wanted)
        for name, values in read(file).items():
            np.testing.assert_array_equal(values, read(plain)[name])


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"frame": np.array(["1", "2", "x.jpg"] + ["4"] * 8)},
            "'frame' must be whole numbers, and 1 are not, such as 'x",
        ),
        (
            {"frame": np.array([np.nan, np.inf] + [1.0] * 9)},
            "'frame' must be whole numbers, and 2 are not, such as nan",
        ),
        ({"frame": np.array([1e18] + [1.0] * 10)}, "'frame' must be whole numbers, and 1 are not, such as 1e"),
        ({"frame": np.ones((N, 2))}, r"'frame' must have one axis, and has the shape \(11, 2\)"),
        ({"features": np.ones(N)}, r"must have two axes \(rows, width\), and 'features' has the shape \(11,\)"),
        ({"features": np.ones((N, 2, 2, 1))}, r"must have two axes \(rows, width\), and 'features' has the shape"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_first_of_it(tmp_path, content, suffix, change, words):
    refused(save(tmp_path / f"a{suffix}", content | change), words)


# --- odd archives -----------------------------------------------------------------------------------------------------


def patched(data: bytes, local: tuple[int, bytes], central: tuple[int, bytes]) -> bytes:
    """An archive with bytes put into each local header and each entry of its directory, at those places."""
    out = bytearray(data)
    for mark, (place, new) in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            out[at + place : at + place + len(new)] = new
    return bytes(out)


def zipped(members: list[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", how) as out:
        warnings.simplefilter("ignore")  # of the double name
        for name, data in members:
            out.writestr(name, data)
    return buffer.getvalue()


def tarred(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


ODD_ARCHIVES = {
    "truncated": (lambda m: zipped(m)[:-30], "not a zip"),
    "truncated in the middle": (lambda m: zipped(m)[: len(zipped(m)) // 2], "not a zip"),
    "cut out": (lambda m: zipped(m)[:100] + zipped(m)[200:], "."),
    "encrypted": (lambda m: patched(zipped(m), (6, b"\1"), (8, b"\1")), "the archive is encrypted: "),
    "the first of several": (lambda m: b"PK\7\x08" + zipped(m)[: len(zipped(m)) // 2], "not a zip"),
    "the last of several": (lambda m: zipped(m)[len(zipped(m)) // 2 :], "."),
    "a name twice": (lambda m: zipped([*m, m[0]]), "two members of one name: "),
    "lzma": (lambda m: zipped(m, zipfile.ZIP_LZMA), "by another method than deflate"),
    "bzip2": (lambda m: zipped(m, zipfile.ZIP_BZIP2), "by another method than deflate"),
    "deflate64": (lambda m: patched(zipped(m), (8, b"\x09"), (10, b"\x09")), "by another method than deflate"),
    "of a later version": (lambda m: patched(zipped(m), (4, b"\xff"), (6, b"\xff")), "version 25.5"),
    "another crc": (lambda m: patched(zipped(m), (14, b"abcd"), (16, b"abcd")), "Bad CRC-32"),
    "another name inside": (lambda m: patched(zipped(m), (30, b"X"), (0, b"P")), "differ"),
    "a packed size": (
        lambda m: patched(zipped(m), (18, b"\xf0\xff\xff\x7f"), (20, b"\xf0\xff\xff\x7f")),
        "claim to lie in",
    ),
    "empty": (lambda m: zipped([]), "."),
    "a tar": (tarred, "not a zip"),
}


@pytest.mark.parametrize("kind", ODD_ARCHIVES)
def test_an_odd_archive_of_features_is_refused_in_a_line(tmp_path, kind):
    make, words = ODD_ARCHIVES[kind]
    (tmp_path / "a.npz").write_bytes(make(list(whole().items())))
    refused(tmp_path / "a.npz", words)


def test_an_archive_in_an_archive_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(zipped([("mine.npz", zipped(list(whole().items()))), ("read me.txt", b"")]))
    refused(tmp_path / "a.npz", r"holds no arrays \(.npy\), but \['mine.npz', 'read me.txt'\]")


def test_a_damaged_hdf5_file_that_the_library_does_not_survive_is_one_line(tmp_path, content, monkeypatch):
    """HDF5 2.0 loops without end, or crashes, on some damaged bytes. Here the reader does so itself, in its process."""
    file = save(tmp_path / "a.h5", content)

    def crash(*_):
        os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(feature_files, "_look_into", crash)
    refused(file, "it is damaged, and the HDF5 library does not survive it")


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy"])
def test_whatever_is_changed_in_a_small_file_it_is_read_or_refused_in_a_line(tmp_path, content, suffix):
    file = tmp_path / f"a{suffix}"
    save(file, content) if suffix != ".npy" else np.save(file, content["features"])
    data, rng, refusals = file.read_bytes(), np.random.default_rng(0), []
    for _ in range(40):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 4000), 3):
            broken[place] ^= 1 << rng.integers(8)
        file.write_bytes(broken)
        try:
            read(file)
        except UserError as refusal:
            refusals.append(str(refusal))
    assert refusals
    assert not any("\n" in words or "does not survive" in words for words in refusals)
