"""Files of features that others made: what they claim and where they point to is looked at before it is believed."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from test_transfer import N, save

from pipeline.extraction.sources import opened
from pipeline.extraction.transfer import import_features
from pipeline.params import UserError


def read(file: Path) -> dict[str, np.ndarray]:
    with opened(file) as source:
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
    assert import_features(file, tmp_path / "s.zarr", 4, False) == (N, 0, ["labels", "elsewhere"])


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
