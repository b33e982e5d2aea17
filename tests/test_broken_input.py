"""Files as they come: none stops the run or spoils its neighbours, and each that cannot be read is in the report."""

import json
import os
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import draw
from PIL import Image
from test_extract import rows_by_key, run

from pipeline.core.store import FeatureStore
from pipeline.core.tables import Frames, write_frames
from pipeline.extraction import frames as decoding


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a picture of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def write_table(root: Path, names: list[str]) -> None:
    """The frame table of the files in this order: video 'v', numbered from 1."""
    rows = [("v", number, name, 1) for number, name in enumerate(names, 1)]
    table = pd.DataFrame(rows, columns=["video", "frame", "path", "size"])
    write_frames(Path("data/frames.parquet"), Frames(table, root, "tiny", "cropped"))


def odd_ones(root: Path) -> list[str]:
    """Unusual files that are images all the same."""
    picture = cv2.resize(np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8), (40, 40))
    Image.fromarray(picture).convert("CMYK").save(root / "cmyk.jpg", quality=95)
    Image.fromarray(picture[:, :, 0]).save(root / "grey.png")
    cv2.imwrite(str(root / "sixteen.png"), picture.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(root / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(picture).save(root / "png_inside.jpg", format="png")
    Image.fromarray(picture).save(root / "größe und Farbe 顔.png")
    Image.fromarray(picture).convert("RGBA").save(root / "clear.png")
    return [
        "cmyk.jpg",
        "grey.png",
        "sixteen.png",
        "turned.jpg",
        "png_inside.jpg",
        "größe und Farbe 顔.png",
        "clear.png",
    ]


def broken_ones(root: Path) -> dict[str, str]:
    """Files that cannot be read -> a word of the reason."""
    draw(root / "whole.jpg", 3)
    draw(root / "whole.png", 3)
    (root / "truncated.jpg").write_bytes((root / "whole.jpg").read_bytes()[:-20])
    (root / "truncated.png").write_bytes((root / "whole.png").read_bytes()[:200])
    (root / "zero.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("this is no picture")
    (root / "head.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (root / "huge.png").write_bytes(png_that_claims(60000, 60000))
    (root / "wide.png").write_bytes(png_that_claims(2**31 - 1, 1))
    (root / "empty.png").write_bytes(png_that_claims(0, 0))
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "00001.jpg").mkdir()
    draw(root / "forbidden.jpg", 4)
    return {
        "truncated.jpg": "damaged", "truncated.png": "damaged", "zero.jpg": "empty", "text.jpg": "not an image",
        "head.jpg": "not an image", "huge.png": "claims to be too large", "wide.png": "", "empty.png": "",
        "loop.jpg": "symbolic links", "dangling.jpg": "No such file", "00001.jpg": "directory",
        "forbidden.jpg": "Permission denied", "missing ü.jpg": "No such file",
    }  # fmt: skip


def test_broken_input_of_every_kind_is_named_and_spoils_nothing(workplace, monkeypatch):
    root = workplace / "faces"
    root.mkdir()
    good = [f"good {i}.jpg" for i in range(8)]
    for seed, name in enumerate(good):
        draw(root / name, seed)
    odd, broken = odd_ones(root), broken_ones(root)
    fine = [*good, *odd]
    write_table(root, fine)
    assert run("-s", "clean.zarr") == 0
    names = sorted([*fine, *broken], key=lambda name: zlib.crc32(name.encode()))  # well mixed
    write_table(root, names)

    def opened(path, *rest, **named):
        if Path(path).name == "forbidden.jpg":  # root may read everything
            raise PermissionError(13, os.strerror(13))
        return open(path, *rest, **named)

    monkeypatch.setattr(decoding, "open", opened, raising=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB; the huge one claims 10.8 GB
    report = json.loads(Path("data/extract.json").read_text())
    assert report["frames"] == len(names)
    assert set(report["skipped"]) == set(broken)
    for name, word in broken.items():
        assert word in report["skipped"][name], (name, report["skipped"][name])
    clean, mixed = (rows_by_key(FeatureStore(Path(path))) for path in ("clean.zarr", "data/features.zarr"))
    assert {names[frame - 1] for _, frame in mixed} == set(fine)
    for (_, frame), row in mixed.items():
        a, b = (np.frombuffer(r, np.float16).astype(float) for r in (row, clean["v", fine.index(names[frame - 1]) + 1]))
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99999, names[frame - 1]


def test_a_folder_with_broken_files_is_indexed_and_extracted(workplace):
    text = (workplace / "params.yaml").read_text().replace("name: abaw", "name: folder")
    (workplace / "params.yaml").write_text(text)
    for split in ("train", "val"):
        for kind in ("glad", "sad"):
            folder = workplace / "pictures" / split / kind
            draw(folder / "a b ü.jpg", len(kind))
            (folder / "zero.jpg").write_bytes(b"")
            (folder / "loop.jpg").symlink_to("loop.jpg")
            (folder / "circle").symlink_to(folder)
    assert run("-d", "pictures", "-s", "pictures.zarr") == 0
    skipped = json.loads(Path("pictures.extract.json").read_text())["skipped"]
    assert {Path(name).name for name in skipped} >= {"zero.jpg"}
    videos = {Path(video).name for video in FeatureStore(Path("pictures.zarr")).keys["video"]}
    assert "a b ü" in videos


@pytest.mark.parametrize("size", [(60000, 60000), (40000, 40000)])
def test_a_picture_that_claims_to_be_huge_is_refused_without_room_for_it(tmp_path, size):
    (tmp_path / "huge.png").write_bytes(png_that_claims(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(decoding.UnreadableImage, match="too large"):
        decoding.decode(tmp_path / "huge.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
