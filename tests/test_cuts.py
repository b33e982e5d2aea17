"""Several cuts of a face: what each store holds, how often a file is read, and what a killed run goes on from."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, draw

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreMismatch, StoreWriter
from pipeline.core.tables import Frames, write_frames
from pipeline.extraction import frames as frames_module
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.forward import Forward

FLAGS = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--device", "cpu", "-b", "3"]
FLAGS += ["--chunk-rows", "4", "--workers", "1"]
FACES = "batch1/cropped_aligned"
STORES = ["data/features.zarr", "data/features.loose.zarr", "data/features.tight.zarr"]
CUTS = "{tight: 0.6, loose: cropped}"


def write_table(root: Path, source: str) -> None:
    files = sorted(root.glob(f"*/{source}*/*/*.png"))
    rows = [(f.parent.name, int(f.stem), f.relative_to(root).as_posix(), f.stat().st_size) for f in files]
    table = pd.DataFrame(rows, columns=["video", "frame", "path", "size"])
    write_frames(Path("data/frames.parquet"), Frames(table, root.absolute(), "by hand", source))


@pytest.fixture
def faces(workplace):
    """Nine frames of two videos, one in each batch of Aff-Wild2, aligned and in a looser crop of another size."""
    for number in range(9):
        batch, more = ("batch1", "") if number < 5 else ("batch2", "_new_50_vids")
        for source, size in (("cropped_aligned", (40, 40)), ("cropped", (61, 47))):
            video = Path("abaw", batch, f"{source}{more}", f"v{batch[-1]}")
            draw(video / f"{number:05d}.png", number + 100 * len(source), size)
    write_table(Path("abaw"), "cropped_aligned")
    return workplace


def features(path: str) -> dict[tuple[str, int], np.ndarray]:
    store = FeatureStore(Path(path))
    keys = store.keys
    rows = store.read(keys["row"].to_numpy())
    return {(str(v), int(f)): row for v, f, row in zip(keys["video"], keys["frame"], rows, strict=True)}


def assert_same(there: dict, here: dict) -> None:
    assert sorted(there) == sorted(here)
    for key, row in there.items():
        np.testing.assert_array_equal(row, here[key])


@pytest.fixture
def counted(monkeypatch):
    """The files that are decoded, by their folders."""
    opened = []
    real = frames_module.decode
    monkeypatch.setattr(frames_module, "decode", lambda path: opened.append(path.parts[-3]) or real(path))
    return opened


def test_each_cut_is_what_files_cut_by_hand_give(faces, counted):
    assert extract.main([*FLAGS, "--cuts", CUTS]) == 0
    assert {str(path) for path in Path("data").glob("*.zarr")} == {*STORES}
    assert len(counted) == 2 * 9  # each file once, though three stores are made
    sources = [FeatureStore(Path(path)).made_by["crop_source"] for path in STORES]
    assert sources == ["cropped_aligned", "cropped", "cropped_aligned, middle 0.6"]

    by_hand = Path("by_hand")
    for file in Path("abaw").rglob("*.png"):
        image = cv2.imread(str(file))
        cut = by_hand / file.relative_to("abaw")
        cut.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(cut), image[8:32, 8:32] if image.shape[0] == 40 else image)  # 24 of 40 pixels
    made = [features(path) for path in STORES]
    shutil.rmtree("data")
    for source, expected in (("cropped_aligned", made[2]), ("cropped", made[1])):
        folder = Path("one", source)
        for file in by_hand.glob(f"*/{source}*/*/*.png"):
            if source == "cropped" and "cropped_aligned" in str(file):
                continue
            (folder / file.relative_to(by_hand)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file.relative_to(by_hand))
        write_table(folder, source)
        extract.main([*FLAGS, "-s", f"{source}.zarr"])
        assert_same(expected, features(f"{source}.zarr"))
    assert any((made[0][key] != row).any() for key, row in made[2].items())


def test_stores_of_cuts_have_the_keys_and_sizes_of_the_frame_table(faces):
    extract.main([*FLAGS, "--cuts", CUTS, "--data-aug"])
    keys = [FeatureStore(Path(path)).keys[["video", "frame", "size"]] for path in STORES]
    assert keys[0].equals(keys[1])
    assert keys[0].equals(keys[2])
    assert all(sorted(FeatureStore(Path(path)).views) == ["flipped", "original"] for path in STORES)


def test_a_killed_run_computes_for_each_store_what_that_store_lacks(faces, counted, monkeypatch):
    extract.main([*FLAGS, "--cuts", CUTS])
    whole = [features(path) for path in STORES]
    for path in STORES:
        shutil.rmtree(path)
    counted.clear()
    written, real = [], StoreWriter.write

    def killed_at_the_fourth(self, keys, rows):
        written.append(1)
        if len(written) == 4:  # the second chunk of the second of the stores that are made together
            raise KeyboardInterrupt
        real(self, keys, rows)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", killed_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            extract.main([*FLAGS, "--cuts", CUTS])
    counted.clear()
    forwards, start = [], Forward.start
    monkeypatch.setattr(
        Forward, "start", lambda self, images, *rest: forwards.append(len(images)) or start(self, images, *rest)
    )
    extract.main([*FLAGS, "--cuts", CUTS])
    for path, expected in zip(STORES, whole, strict=True):
        assert_same(features(path), expected)
    # 8 and 4 of the aligned ones were there. Of both the first 3 are computed again, as a check: then 1 and 5, and 9.
    assert sum(forwards) == 3 + 3 + 1 + 5 + 9
    assert len(counted) == 3 + 3 + 5 + 9


def test_a_cut_that_is_added_later_is_computed_alone(faces, monkeypatch):
    extract.main([*FLAGS])
    before = features(STORES[0])
    forwards, start = [], Forward.start
    monkeypatch.setattr(
        Forward, "start", lambda self, images, *rest: forwards.append(len(images)) or start(self, images, *rest)
    )
    extract.main([*FLAGS, "--cuts", "{tight: 0.6}"])
    assert sum(forwards) == 3 + 9
    assert_same(features(STORES[0]), before)
    assert len(features(STORES[2])) == 9


def test_another_share_is_another_making(faces, capsys):
    extract.main([*FLAGS, "--cuts", "{tight: 0.6}"])
    with pytest.raises(StoreMismatch, match=r"crop_source 'cropped_aligned, middle 0.6' there, '.* middle 0.8' here"):
        extract.main([*FLAGS, "--cuts", "{tight: 0.8}"])
    before = features(STORES[2])
    extract.main([*FLAGS, "--cuts", "{tight: 0.8}", "--rebuild"])
    after = features(STORES[2])
    assert sorted(after) == sorted(before)
    assert any((after[key] != row).any() for key, row in before.items())


def test_a_frame_that_the_other_folder_lacks_is_named_and_a_folder_without_any_is_refused(faces, capsys):
    gone = Path("abaw/batch1/cropped/v1/00003.png")
    gone.unlink()
    assert extract.main([*FLAGS, "--cuts", CUTS, "--strict"]) == 1
    assert f"skipped {gone.relative_to('abaw')}: No such file" in capsys.readouterr().out
    assert len(features(STORES[1])) == 8
    assert len(features(STORES[2])) == 9
    assert gone.name in Path("data/features.loose.extract.json").read_text()
    with pytest.raises(UserError, match=r"'wide': no frame lies in 'full', such as .*abaw/batch1/full/v1/00000.png"):
        extract.main([*FLAGS, "--cuts", "{wide: full}"])
    shutil.move("abaw/batch1/cropped_aligned", "abaw/batch1/faces")
    table = pd.DataFrame([("v1", 0, "batch1/faces/v1/00000.png", 1)], columns=["video", "frame", "path", "size"])
    write_frames(Path("data/frames.parquet"), Frames(table, Path("abaw").absolute(), "by hand", "cropped_aligned"))
    with pytest.raises(UserError, match=r"the folder 'cropped_aligned', which is not in batch1/faces/v1/00000.png"):
        extract.main([*FLAGS, "--cuts", CUTS])


def test_a_dry_run_tells_of_each_store_and_makes_none(faces, capsys):
    extract.main([*FLAGS, "--cuts", CUTS, "--dry-run"])
    said = capsys.readouterr().out
    assert all(f"would extract 9 of 9 frames into {path}" in said for path in STORES)
    assert not [*Path("data").glob("*.zarr")]


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (
            {"tight": 1.2},
            r"cut 'tight' must be a share between 0 and 1, .* is 1.2: a frame has no pixels beyond its own",
        ),
        ({"tight": 0}, "cut 'tight' must be a share between 0 and 1"),
        ({"tight": True}, "cut 'tight' must be a share"),
        ({"loose": "../cropped"}, "or the folder of another crop source"),
        ({"loose": ".."}, "or the folder of another crop source"),
        ({"Big Cut": 0.5}, "a name of small letters, digits and _, and has 'Big Cut'"),
    ],
)
def test_cuts_are_checked_before_anything_is_loaded(cuts, message):
    with pytest.raises(UserError, match=message):
        ExtractConfig(cuts=cuts)


def test_the_lines_of_the_docs_average_two_cuts(faces, tmp_path):
    extract.main([*FLAGS, "--cuts", CUTS])
    page = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    code = next(block for block in page.split("```python\n")[1:] if "np.mean" in block).split("```")[0]
    exec(compile(code, "store.md", "exec"), {})
    extract.main(["--import", "mean.npz", "-s", "mean.zarr", "--made-by", "{backbone: x, cuts: mean of 1 and 0.6}"])
    both = [features(STORES[0]), features(STORES[2])]
    for key, row in features("mean.zarr").items():
        expected = np.mean([of[key].astype(np.float64) for of in both], axis=0)
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-6)
    assert len(features("mean.zarr")) == 9
