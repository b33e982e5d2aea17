import errno
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import zarr
from conftest import ROOT, draw, draw_folder
from forks import python
from PIL import Image
from safetensors.torch import load_file

import extract
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore, StoreDamaged, StoreMismatch, StoreWriter
from pipeline.core.tables import Frames, read_frames, write_frames
from pipeline.extraction import forward

TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--device", "cpu", "-b", "4"]


@pytest.fixture
def frames(workplace):
    """Videos of 5, 1 and 40 frames, as a frame table."""
    root = workplace / "faces"
    for video, count in {"a": 5, "b": 1, "c": 40}.items():
        for frame in range(1, count + 1):
            draw(root / video / f"{frame:05d}.jpg", hash_of(video, frame))
    return index(root)


def hash_of(video: str, frame: int) -> int:
    return ord(video) * 1000 + frame


def index(root: Path, crop_source: str = "cropped_aligned") -> Path:
    rows = [(p.parent.name, int(p.stem), f"{p.parent.name}/{p.name}", p.stat().st_size) for p in root.rglob("*.jpg")]
    table = pd.DataFrame(rows, columns=["video", "frame", "path", "size"])
    write_frames(Path("data/frames.parquet"), Frames(table, root, "tiny", crop_source))
    return Path("data/frames.parquet")


def run(*more: str) -> int:
    return extract.main([*TINY, *more])


def rows_by_key(store: FeatureStore, view: str = "original") -> dict[tuple[str, int], bytes]:
    values = store.read(store.keys["row"].to_numpy(), view)
    return {(v, f): values[i].tobytes() for i, (v, f) in enumerate(zip(store.keys["video"], store.keys["frame"]))}  # noqa: B905


def test_features_are_those_of_timm_on_images_read_by_pil(frames):
    assert run() == 0
    store = FeatureStore(Path("data/features.zarr"))
    assert len(store.keys) == 46
    model = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    model.load_state_dict(load_file("weights/test_efficientnet.safetensors"))
    mean, std = (torch.tensor(store.made_by[k]).view(3, 1, 1) for k in ("mean", "std"))
    for row in store.keys.iloc[[0, 5, 6, 45]].itertuples():
        path = Path(read_frames(frames).root) / row.video / f"{row.frame:05d}.jpg"
        way = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        image = Image.open(path).convert("RGB").resize((32, 32), way[store.made_by["interpolation"]])
        x = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            expected = model(x[None])[0].numpy()
        got = store.read(np.array([row.row]))[0].astype(np.float32)
        assert expected @ got / np.linalg.norm(expected) / np.linalg.norm(got) > 0.9995
        assert np.abs(expected - got).max() < 0.02 * np.abs(expected).max()


def test_pictures_are_cropped_as_timm_does_with_the_backbone_and_faces_are_squashed(workplace, capsys):
    draw(Path("pictures/a/00001.jpg"), 1, (60, 90))
    draw(Path("pictures/a/00002.jpg"), 2, (90, 60))
    model = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model) | {"input_size": (3, 32, 32)}
    ways = {
        "as given": (config, "(crop 0.95)"),
        "cropped_aligned": (config | {"crop_mode": "squash", "crop_pct": 1.0}, "(squash 1)"),
    }
    assert config["crop_pct"] == 0.95
    for crop_source, (way, said) in ways.items():
        index(Path("pictures"), crop_source)
        assert run("-s", f"{crop_source}.zarr") == 0
        assert said in capsys.readouterr().out
        store = FeatureStore(Path(f"{crop_source}.zarr"))
        model.load_state_dict(load_file("weights/test_efficientnet.safetensors"))
        transform = timm.data.create_transform(**way)
        for row in store.keys.itertuples():
            image = Image.open(f"pictures/a/{row.frame:05d}.jpg").convert("RGB")
            with torch.no_grad():
                expected = model(transform(image)[None])[0].numpy()
            got = store.read(np.array([row.row]))[0].astype(np.float32)
            assert np.abs(expected - got).max() < 0.02 * np.abs(expected).max()


def test_a_fit_is_in_the_identity_of_a_store_and_that_of_old_stores_is_none(frames):
    run()
    store = Path("data/features.zarr")
    assert "fit" not in FeatureStore(store).made_by
    assert run("--fit", "squash") == 0
    with pytest.raises(StoreMismatch, match=r"fit None there, 'pad 1' here"):
        run("--fit", "pad")
    assert run("--fit", "crop", "--crop-pct", "0.8", "-s", "cropped.zarr") == 0
    assert FeatureStore(Path("cropped.zarr")).made_by["fit"] == "crop 0.8"
    with pytest.raises(UserError, match=r"crop_pct must be from 0\.1 to 1, and is 0\.0"):
        run("--crop-pct", "0")


def test_a_second_run_computes_nothing_and_changes_no_byte(frames, capsys):
    run()
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in Path("data/features.zarr").rglob("*") if p.is_file()}
    assert run() == 0
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in Path("data/features.zarr").rglob("*") if p.is_file()}
    assert after == before
    assert "0 frames extracted, 46 were there" in capsys.readouterr().out


def test_results_do_not_depend_on_batch_size_workers_or_order(frames):
    run()
    first = FeatureStore(Path("data/features.zarr"))
    run("-s", "other.zarr", "-b", "7", "--workers", "3")
    other = FeatureStore(Path("other.zarr"))
    a, b = (s.read(s.keys["row"].to_numpy()).astype(np.float32) for s in (first, other))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99999


def test_new_videos_are_added_and_changed_frames_are_extracted_again(frames, capsys):
    run()
    old = rows_by_key(FeatureStore(Path("data/features.zarr")))
    root = Path("faces")
    draw(root / "d" / "00001.jpg", 5)
    draw(root / "a" / "00002.jpg", 99, (80, 80))
    shutil.rmtree(root / "b")
    index(root.resolve())
    assert run() == 0
    assert "2 frames extracted, 44 were there" in (out := capsys.readouterr().out)
    assert (
        "1 frames in the store are no longer in the frame table: no projection, training, evaluation or prediction "
        "takes them, and --compact deletes them" in out
    )
    new = rows_by_key(FeatureStore(Path("data/features.zarr")))
    assert new.keys() == old.keys() | {("d", 1)}
    assert {key for key in old if new[key] != old[key]} == {("a", 2)}


def test_a_run_cut_off_inside_a_chunk_resumes_at_that_chunk(frames, monkeypatch, capsys):
    run("-s", "whole.zarr")
    real, seen = StoreWriter.write, []

    def cut_off(self, keys, features):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(keys))
        real(self, keys, features)

    monkeypatch.setattr(StoreWriter, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run("--chunk-rows", "16")
    monkeypatch.setattr(StoreWriter, "write", real)
    assert len(FeatureStore(Path("data/features.zarr")).keys) == 32
    capsys.readouterr()
    run()
    assert "14 frames extracted, 32 were there" in capsys.readouterr().out
    assert rows_by_key(FeatureStore(Path("data/features.zarr"))) == rows_by_key(FeatureStore(Path("whole.zarr")))


def test_another_input_size_is_refused_and_rebuild_starts_over(frames):
    run()
    with pytest.raises(StoreMismatch, match=r"input_size 32 there, 48 here.*--rebuild"):
        run("--input-size", "48")
    assert len(FeatureStore(Path("data/features.zarr")).keys) == 46
    assert run("--input-size", "48", "--rebuild") == 0
    assert FeatureStore(Path("data/features.zarr")).made_by["input_size"] == 48


def test_a_store_that_code_of_today_would_fill_otherwise_is_refused(frames, monkeypatch):
    run()
    real = forward.resize_image
    monkeypatch.setattr("pipeline.extraction.forward.resize_image", lambda image, *how: real(image[::-1], *how))
    with pytest.raises(StoreMismatch, match="least cosine"):
        run()


def test_broken_frames_are_named_and_the_rest_is_extracted(frames, capsys):
    (Path("faces") / "a" / "00003.jpg").write_bytes(b"")
    (Path("faces") / "c" / "00040.jpg").write_bytes(b"\xff\xd8 torn")
    (Path("faces") / "c" / "00001.jpg").unlink()
    assert run() == 0
    report = json.loads(Path("data/extract.json").read_text())
    assert list(report["skipped"]) == ["a/00003.jpg", "c/00001.jpg", "c/00040.jpg"]
    assert "skipped a/00003.jpg: the file is empty" in capsys.readouterr().out
    store = FeatureStore(Path("data/features.zarr"))
    assert len(store.keys) == 43
    assert ("a", 3) not in rows_by_key(store)
    assert run("--strict") == 1
    draw(Path("faces") / "a" / "00003.jpg", hash_of("a", 3))
    run()
    whole = rows_by_key(FeatureStore(Path("data/features.zarr")))
    assert ("a", 3) in whole
    assert {k: whole[k] for k in rows_by_key(store)} == rows_by_key(store)


def test_a_folder_where_nothing_can_be_read_leaves_an_empty_store_and_a_report(frames):
    for path in Path("faces").rglob("*.jpg"):
        path.write_bytes(b"")
    assert run("--strict") == 1
    assert len(json.loads(Path("data/extract.json").read_text())["skipped"]) == 46
    assert len(FeatureStore(Path("data/features.zarr")).keys) == 0


def test_the_mirrored_view_is_the_features_of_mirrored_images(frames):
    run("--data-aug")
    store = FeatureStore(Path("data/features.zarr"))
    assert store.views == ["flipped", "original"]
    for path in Path("faces").rglob("*.jpg"):
        image = Image.open(path)
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, quality=100, subsampling=0)
    index(Path("faces").resolve())
    run("-s", "mirrored.zarr")
    rows = store.keys["row"].to_numpy()
    mirrored = FeatureStore(Path("mirrored.zarr"))
    a, b, plain = store.read(rows, "flipped"), mirrored.read(mirrored.keys["row"].to_numpy()), store.read(rows)
    near, far = (np.abs(x.astype(float) - b).mean() for x in (a, plain))
    assert near < 0.2 * far


def test_stride_takes_every_nth_frame_number_and_one_can_be_filled_in_later(frames):
    run("--stride", "10")
    store = FeatureStore(Path("data/features.zarr"))
    assert store.keys["frame"].tolist() == [10, 20, 30, 40]
    run()
    assert len(FeatureStore(Path("data/features.zarr")).keys) == 46


def files_here() -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file()}


def test_a_dry_run_counts_and_writes_nothing(frames, capsys):
    before = files_here()
    assert run("--dry-run") == 0
    assert "would extract 46 of 46 frames" in capsys.readouterr().out
    assert files_here() == before
    assert run("--dry-run", "-d", "faces", "-s", "new/other.zarr", "--dataset", "folder") == 0
    assert "would extract 46 of 46 frames into new/other.zarr" in capsys.readouterr().out
    assert files_here() == before
    run()
    before = files_here()
    run("--dry-run", "--input-size", "48")
    assert "input_size 32 there, 48 here; it would be refused, without --rebuild" in (out := capsys.readouterr().out)
    assert "would extract 46 of 46 frames" in out
    run("--dry-run", "--input-size", "48", "--rebuild")
    assert "input_size 32 there, 48 here; it would be made again from nothing" in capsys.readouterr().out
    run("--dry-run")
    assert "would extract 0 of 46 frames" in capsys.readouterr().out
    assert files_here() == before


def folder_params() -> str:
    """Another params.yaml, in which the data set is a folder of class folders."""
    text = Path("params.yaml").read_text().replace("name: abaw", "name: folder")
    Path("folder.yaml").write_text(text)
    return "folder.yaml"


def test_the_parameter_file_that_is_given_counts_in_every_sub_process(workplace):
    draw_folder(workplace / "pictures", {"train/happy/v1": 3, "train/sad/v2": 2, "val/happy/v3": 1, "val/sad/v4": 1})
    text = Path(folder_params()).read_text().replace("most_rows: 100000", "most_rows: 4")
    Path("folder.yaml").write_text(text)
    given = ["--params", "folder.yaml", "-d", "pictures", "-s", "p.zarr", "--processor", "pca", "2"]
    done = python(ROOT / "extract.py", *TINY, *given, check=True)
    assert read_frames(Path("p.frames.parquet")).dataset == "folder"  # not abaw, as params.yaml has it
    assert "fitted on 4 of 5 training rows" in done.stdout  # not 100,000


def test_features_that_are_not_finite_stop_the_run_and_are_named(frames, monkeypatch):
    real = forward.Forward.start

    def broken(self, images, videos):
        rows = real(self, images, videos)()
        rows["original"][0, 0] = np.inf
        return lambda: rows

    monkeypatch.setattr(forward.Forward, "start", broken)
    with pytest.raises(UserError, match=r"rows of 'original' are not finite, such as \['a/00001.jpg'"):
        run()


@pytest.mark.parametrize(
    ("scale", "words"), [("1e-9", "46 of the first 46 rows .* lose over 1 %"), ("1e9", "beyond 65,504")]
)
def test_features_beyond_the_range_of_the_store_are_refused_with_a_factor(frames, scale, words):
    with pytest.raises(UserError, match=rf"{words}.*: give --scale \S+ or so") as refusal:
        run("--scale", scale)
    factor = str(refusal.value).split("--scale ")[1].split()[0]
    assert float(factor) == pytest.approx(float(scale) * (1e6 if float(scale) < 1 else 0.01))


def test_scaled_features_are_those_times_the_factor_and_another_factor_is_another_store(frames):
    run("-s", "plain.zarr")
    run("-s", "scaled.zarr", "--scale", "64")
    plain, scaled = FeatureStore(Path("plain.zarr")), FeatureStore(Path("scaled.zarr"))
    rows = plain.keys["row"].to_numpy()
    np.testing.assert_allclose(scaled.read(rows), 64 * plain.read(rows).astype(np.float32), rtol=2e-3, atol=1e-4)
    assert "scale" not in plain.made_by
    with pytest.raises(UserError, match=r"scale 64\.0 there, None here"):
        run("-s", "scaled.zarr")
    with pytest.raises(UserError, match="scale must be from 1e-30"):
        run("--scale", "0")


def test_crops_that_the_user_calls_alike_are_alike(frames):
    run("-s", "a.zarr")
    run("-s", "b.zarr", "--crop-source", "cut by hand")
    assert FeatureStore(Path("a.zarr")).made_by["crop_source"] == "cropped_aligned"
    assert FeatureStore(Path("b.zarr")).made_by["crop_source"] == "cut by hand"
    run("-s", "a.zarr", "--crop-source", "cropped_aligned")


def test_a_few_frames_without_features_are_counted(frames, monkeypatch, capsys):
    real = forward.Forward.start

    def faint(self, images, videos):
        rows = real(self, images, videos)()
        rows["original"][0] *= np.float16(1e-6)
        return lambda: rows

    monkeypatch.setattr(forward.Forward, "start", faint)
    assert run() == 0
    assert "12 rows of 'original' are zeros, or lose over 1 % of their length in float16" in capsys.readouterr().out


def test_a_folder_of_frames_is_indexed_first(workplace):
    draw_folder(workplace / "pictures", {"train/happy/v1": 3, "train/sad/v2": 2, "val/happy/v3": 1, "val/sad/v4": 1})
    text = (workplace / "params.yaml").read_text().replace("name: abaw", "name: folder")
    (workplace / "params.yaml").write_text(text)
    assert run("-d", "pictures", "-s", "pictures.zarr") == 0
    assert len(FeatureStore(Path("pictures.zarr")).keys) == 7
    assert (workplace / "pictures.labels.parquet").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--backbone", "enet_b0_8_best_vgaff"], "enet_b0_8_best_vgaf"),
        (["--precision", "float61"], "float16"),
        (["-d", "nowhere.parquet"], "no frame table at nowhere.parquet"),
        (["-b", "0"], "batch_size must be from 1 to 65,536"),
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
        (["--weights", "nowhere.pt"], "'nowhere.pt' is not a file"),
    ],
)
def test_bad_input_is_refused_in_words_before_any_work(frames, flags, words):
    with pytest.raises(UserError, match=words):
        run(*flags)
    assert not Path("data/features.zarr").exists()


def test_an_error_is_one_line_on_stderr_and_exit_status_2(workplace):
    done = python(ROOT / "extract.py", "--stride", "0")
    assert (done.returncode, done.stderr) == (2, "error: extract: stride must be at least 1, and is 0\n")


def test_help_reads_well():
    done = python(ROOT / "extract.py", "--help", cwd=ROOT)
    assert done.returncode == 0
    words = ("--data X", "--store X", "--batch-size X", "--no-data-aug", "--input-size", "--dry-run", "--stride")
    for word in words:
        assert word in done.stdout
    for pair in ("-d( X)?, --data X", "-s( X)?, --store X"):  # since Python 3.13 without the first X
        assert re.search(pair, done.stdout)


def chunk_files(store: str) -> dict[Path, tuple]:
    files = [p for p in Path(store).rglob("c/**/*") if p.is_file()]
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes()) for p in files}


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def test_appended_videos_touch_no_old_chunk_file(frames):
    run("-s", "s.zarr", "--chunk-rows", "16")
    before = chunk_files("s.zarr")
    assert len(before) == 4 * 3  # original, video, size, frame; 46 rows
    for frame in range(1, 4):
        draw(Path("faces") / "0new" / f"{frame:05d}.jpg", frame)
    index(Path("faces").resolve())
    run("-s", "s.zarr")
    after = chunk_files("s.zarr")
    assert {p: after[p] for p in before} == before
    assert len(after) == 4 * 4
    assert FeatureStore(Path("s.zarr")).chunk_rows == 16  # a store keeps what it was made with


def test_verify_names_damaged_chunks_with_their_frames_and_reads_a_store_that_cannot_be_written(
    frames, monkeypatch, capsys
):
    run("-s", "s.zarr", "--chunk-rows", "16")
    assert run("-s", "s.zarr", "--verify") == 0
    damage(Path("s.zarr/views/original/c/0/0"))
    Path("s.zarr/video/c/2").unlink()
    capsys.readouterr()
    shutil.rmtree("weights")
    Path("data/frames.parquet").unlink()
    monkeypatch.setattr("os.mkdir", None)  # nothing is made
    monkeypatch.setattr("os.replace", None)
    monkeypatch.setattr("os.rename", None)
    assert run("-s", "s.zarr", "--verify") == 1
    out = capsys.readouterr().out
    assert "s.zarr/views/original/c/0/0: it does not match its checksum\n  frames: a 1-5, b 1, c 1-10\n" in out
    assert "chunk 2, rows 32 to 47:\n  s.zarr/video/c/2: the file is missing\n  frames: not known" in out
    assert "11 chunk files read, 2 chunks damaged" in out
    assert {p.name for p in Path("s.zarr").parent.glob("s.zarr*")} == {"s.zarr", "s.zarr.lock"}


@pytest.mark.parametrize("array", ["views/original", "video", "size", "frame"])
def test_repair_extracts_just_the_damaged_frames_again(frames, capsys, array):
    run("-s", "s.zarr", "--chunk-rows", "16")
    whole, before = rows_by_key(FeatureStore(Path("s.zarr"))), chunk_files("s.zarr")
    (file,) = (p for p in before if str(p).startswith(f"s.zarr/{array}/c/1"))
    damage(file)
    capsys.readouterr()
    assert run("-s", "s.zarr", "--repair") == 0
    assert "16 frames extracted, 30 were there" in capsys.readouterr().out
    assert rows_by_key(FeatureStore(Path("s.zarr"))) == whole
    after = chunk_files("s.zarr")
    others = [p for p in before if "/c/1" not in str(p)]
    assert len(others) == 8
    assert {p: after[p] for p in others} == {p: before[p] for p in others}
    assert run("-s", "s.zarr", "--verify") == 0


def test_a_damaged_zarr_json_is_an_error_in_words(frames, capsys):
    run()
    Path("data/features.zarr/views/original/zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"views/original/zarr.json: not JSON: .*delete the folder"):
        run()
    assert run("--verify") == 1
    assert "views/original/zarr.json: not JSON" in capsys.readouterr().out


def test_compacting_drops_vanished_frames_and_says_what_it_saved(frames, capsys):
    run("-s", "s.zarr", "--chunk-rows", "16")
    whole = rows_by_key(FeatureStore(Path("s.zarr")))
    shutil.rmtree("faces/a")
    index(Path("faces").resolve())
    capsys.readouterr()
    assert run("-s", "s.zarr", "--compact") == 0
    assert re.search(r"s.zarr: 46 frames in 0\.\d MB before, 41 in 0\.\d MB now", capsys.readouterr().out)
    assert rows_by_key(FeatureStore(Path("s.zarr"))) == {k: v for k, v in whole.items() if k[0] != "a"}
    run("-s", "s.zarr")
    assert "0 frames extracted, 41 were there" in capsys.readouterr().out


def test_a_disk_that_fills_up_keeps_what_was_finished_and_the_next_run_goes_on(frames, monkeypatch, capsys):
    run("-s", "whole.zarr")
    real, seen = os.replace, []

    def full(source, target, **named):
        if "features.zarr" in str(target) and (seen.append(target) or len(seen) > 25):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(source, target, **named)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"data/features.zarr: No space left on device; all before is kept, run again"):
        run("--chunk-rows", "8")
    monkeypatch.setattr("os.replace", real)
    there = len(FeatureStore(Path("data/features.zarr")).keys)
    assert 8 <= there < 46
    capsys.readouterr()
    run()
    assert f"{46 - there} frames extracted, {there} were there" in capsys.readouterr().out
    assert rows_by_key(FeatureStore(Path("data/features.zarr"))) == rows_by_key(FeatureStore(Path("whole.zarr")))


def test_a_disk_that_is_really_full_is_an_error_in_words(frames):
    Path("small").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", "small"], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(UserError, match="No space left on device"):
            run("-s", "small/s.zarr", "--chunk-rows", "16", "--views", "8", "--data-aug")
        there = len(FeatureStore(Path("small/s.zarr")).keys)
        subprocess.run(["mount", "-o", "remount,size=20m", "small"], check=True)
        run("-s", "small/s.zarr", "--views", "8", "--data-aug")
        assert there < len(FeatureStore(Path("small/s.zarr")).keys) == 46
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_a_folder_that_may_not_be_written_is_an_error_in_words(frames, monkeypatch):
    run()
    real = os.open

    def refused(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR) and "data" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr("os.open", refused)
    with pytest.raises(UserError, match="cannot write to data: Read-only file system"):
        run()
    assert len(FeatureStore(Path("data/features.zarr")).keys) == 46  # reading needs no writing


@pytest.mark.parametrize(("flags", "words"), [
    (["--verify", "--compact"], "--verify and --compact do not go together"),
    (["--repair", "--dry-run"], "--repair and --dry-run do not go together"),
    (["--chunk-rows", "0"], "chunk_rows must be from 1 to 1,000,000"),
])  # fmt: skip
def test_works_that_exclude_each_other_are_refused(frames, flags, words):
    with pytest.raises(UserError, match=words):
        run(*flags)


# --- damage is repaired, never taken for another store ---------------------------------------------------------------


@pytest.mark.parametrize("array", ["views/original", "frame", "video", "size"])
def test_one_flipped_bit_makes_a_rebuild_extract_its_chunk_again_and_no_other(frames, capsys, array):
    run("-s", "s.zarr", "--chunk-rows", "16")
    whole, before = rows_by_key(FeatureStore(Path("s.zarr"))), chunk_files("s.zarr")
    (file,) = (p for p in before if str(p).startswith(f"s.zarr/{array}/c/0"))
    damage(file)
    with pytest.raises(StoreDamaged, match=rf"s.zarr/{array}/c/0.*: it does not match its checksum.*--repair"):
        run("-s", "s.zarr")
    capsys.readouterr()
    assert run("-s", "s.zarr", "--rebuild") == 0
    out = capsys.readouterr().out
    assert "it does not match its checksum" in out
    assert "1 damaged chunks dropped from s.zarr\n16 frames extracted, 30 were there" in out
    assert rows_by_key(FeatureStore(Path("s.zarr"))) == whole
    others = {p: content for p, content in before.items() if "/c/0" not in str(p)}
    assert {p: chunk_files("s.zarr")[p] for p in others} == others
    assert not Path("s.zarr.replaced").exists()


def test_a_rebuild_repairs_damage_in_any_chunk_not_only_in_the_first(frames, capsys):
    run("-s", "s.zarr", "--chunk-rows", "16")
    whole = rows_by_key(FeatureStore(Path("s.zarr")))
    damage(Path("s.zarr/views/original/c/2/0"))
    assert run("-s", "s.zarr", "--rebuild") == 0
    assert "1 damaged chunks dropped from s.zarr\n14 frames extracted, 32 were there" in capsys.readouterr().out
    assert run("-s", "s.zarr", "--verify") == 0
    assert rows_by_key(FeatureStore(Path("s.zarr"))) == whole


@pytest.mark.parametrize(("file", "was", "now", "why"), [
    ("views/original/zarr.json", "{", "[", "not JSON"),
    ("zarr.json", '"float32"', '"float36"', "how the features were made is not what was written"),  # one bit
])  # fmt: skip
def test_a_damaged_zarr_json_is_never_a_reason_to_rebuild(frames, file, was, now, why):
    run()
    path = Path("data/features.zarr") / file
    path.write_text(path.read_text().replace(was, now, 1))
    before = chunk_files("data/features.zarr")
    with pytest.raises(StoreDamaged, match=why):
        run("--rebuild")
    assert chunk_files("data/features.zarr") == before
    assert not Path("data/features.zarr.replaced").exists()


def test_a_feature_that_is_not_a_number_under_a_fitting_checksum_is_damage_too(frames, capsys):
    run("-s", "s.zarr", "--chunk-rows", "16")
    whole = rows_by_key(FeatureStore(Path("s.zarr")))
    zarr.open_group("s.zarr", mode="r+")["views/original"][0, 0] = np.nan
    with pytest.raises(StoreDamaged, match=r"original/c/0/0: it holds values that are not finite.*--repair"):
        run("-s", "s.zarr")
    assert run("-s", "s.zarr", "--verify") == 1
    assert (
        "original/c/0/0: it holds values that are not finite\n  frames: a 1-5, b 1, c 1-10" in capsys.readouterr().out
    )
    assert run("-s", "s.zarr", "--rebuild") == 0
    assert "16 frames extracted, 30 were there" in capsys.readouterr().out
    assert rows_by_key(FeatureStore(Path("s.zarr"))) == whole


def test_a_rebuild_cut_off_keeps_the_old_store_and_goes_on_without_the_flag(frames, monkeypatch, capsys):
    run("-s", "s.zarr", "--chunk-rows", "16")
    old, aside = rows_by_key(FeatureStore(Path("s.zarr"))), Path("s.zarr.replaced")
    run("-s", "whole.zarr", "--input-size", "48")
    real, seen = StoreWriter.write, []

    def cut_off(self, keys, features):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(real(self, keys, features))

    monkeypatch.setattr(StoreWriter, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run("-s", "s.zarr", "--input-size", "48", "--rebuild", "--chunk-rows", "16")
    monkeypatch.setattr(StoreWriter, "write", real)
    assert re.search(r"s.zarr \(.* MB\) is renamed to s.zarr.replaced, and deleted when", capsys.readouterr().out)
    assert rows_by_key(FeatureStore(aside)) == old
    assert run("-s", "s.zarr", "--input-size", "48") == 0
    out = capsys.readouterr().out
    assert "the new store is whole: s.zarr.replaced" in out
    assert "30 frames extracted, 16 were there" in out
    assert not aside.exists()
    assert rows_by_key(FeatureStore(Path("s.zarr"))) == rows_by_key(FeatureStore(Path("whole.zarr")))


def test_a_rebuild_that_is_given_up_puts_the_old_store_back(frames, capsys, monkeypatch):
    run("-s", "s.zarr")
    before = chunk_files("s.zarr")
    monkeypatch.setattr(StoreWriter, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run("-s", "s.zarr", "--input-size", "48", "--rebuild")
    capsys.readouterr()
    assert run("-s", "s.zarr", "--rebuild") == 0
    assert "0 frames extracted, 46 were there" in capsys.readouterr().out
    assert chunk_files("s.zarr") == before
    assert not Path("s.zarr.replaced").exists()


def test_frames_that_cannot_be_read_any_more_keep_the_old_store(frames, capsys):
    run()
    for path in Path("faces/c").glob("*.jpg"):
        path.write_bytes(b"")
    assert run("--input-size", "48", "--rebuild") == 0
    assert "data/features.zarr.replaced stays, for it has 40 frames that the new store lacks" in capsys.readouterr().out
    assert len(FeatureStore(Path("data/features.zarr.replaced")).keys) == 46


def test_a_run_cut_off_in_mid_append_is_unfinished_and_the_same_command_mends_it(frames, capsys):
    run("-s", "s.zarr", "--chunk-rows", "16")
    for array in ("frame", "size"):  # a chunk that was begun
        shutil.copy(f"s.zarr/{array}/c/2", f"s.zarr/{array}/c/3")
    group = zarr.open_group("s.zarr", mode="r+")
    for array in ("views/original", "video", "size"):
        group[array].resize((64, *group[array].shape[1:]))
    Path("s.zarr/frame/c/3").unlink()
    Path("s.zarr/views/original/c/4").mkdir()
    capsys.readouterr()
    assert run("-s", "s.zarr", "--verify") == 0
    assert (
        "unfinished: 1 chunks at the end, where a run was cut off or is going on; run again" in capsys.readouterr().out
    )
    assert run("-s", "s.zarr") == 0
    capsys.readouterr()
    assert run("-s", "s.zarr", "--verify") == 0
    assert "unfinished" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_verify_names_consolidated_metadata_and_what_others_put_there(frames, capsys):
    run("-s", "s.zarr")
    zarr.consolidate_metadata("s.zarr")
    Path("s.zarr/notes.txt").write_text("mine")
    assert run("-s", "s.zarr", "--verify") == 0
    out = capsys.readouterr().out
    assert "s.zarr/zarr.json holds consolidated metadata, which other readers trust" in out
    assert "not part of the store, and not checked: notes.txt" in out
