import os
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import draw
from PIL import Image

from pipeline.extraction import frames
from pipeline.extraction.frames import UnreadableImage, decode, read_batches, resize


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8), (130, 90), interpolation=cv2.INTER_CUBIC)


def test_an_image_is_decoded_as_pil_does(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), picture)
    Image.fromarray(picture).save(tmp_path / "a b ü.jpg", quality=95)
    by_pil = np.asarray(Image.open(tmp_path / "a b ü.jpg")).astype(int)
    assert np.abs(decode(tmp_path / "a b ü.jpg") - by_pil).mean() < 1


def test_grey_sixteen_bit_and_cmyk_become_rgb(tmp_path, picture):
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decode(tmp_path / "grey.png"), np.repeat(picture[:, :, :1], 3, axis=2))
    cv2.imwrite(str(tmp_path / "deep.png"), picture.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(tmp_path / "deep.png"), picture[:, :, ::-1])
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(decode(tmp_path / "cmyk.jpg").astype(int) - picture).mean() < 6


def test_an_image_is_turned_upright(tmp_path, picture):
    turned = Image.fromarray(picture).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees to the right
    turned.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert decode(tmp_path / "phone.jpg").shape == picture.shape
    assert np.abs(decode(tmp_path / "phone.jpg").astype(int) - picture).mean() < 3


def test_a_wrong_extension_does_not_matter(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode(tmp_path / "a.jpg"), picture)


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "the file is empty"), (b"no image", "not an image"), (None, "No such file")]
)
def test_what_cannot_be_read_says_why(tmp_path, content, why):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=why):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_truncated_image_is_refused_and_not_filled_with_grey(tmp_path, kind, share):
    file = tmp_path / f"a.{kind}"
    draw(file, 0, (200, 200))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableImage, match="damaged"):
        decode(file)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [32, 90, 224])
def test_resizing_is_pils_to_the_last_bit(picture, interpolation, size):
    by_pil = Image.fromarray(picture).resize((size, size), Image.Resampling[interpolation.upper()])
    ours = resize([picture], size, interpolation)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours, np.asarray(by_pil))


@pytest.mark.gpu
def test_on_cuda_images_arrive_as_they_are(picture):
    images = [picture, picture[:50], picture[:, ::-1]]
    there = resize(images, 32, "bicubic", torch.device("cuda"))
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(there.cpu(), resize(images, 32, "bicubic"))


def test_images_of_several_shapes_keep_their_places(picture):
    images = [picture, picture[:50], picture[:, ::-1].copy(), picture[:50, ::-1].copy()]
    together = resize(images, 32, "bilinear")
    alone = torch.cat([resize([image], 32, "bilinear") for image in images])
    assert torch.equal(together, alone)
    assert together.is_contiguous(memory_format=torch.channels_last)


def seen_within(seconds, holds) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


@pytest.fixture
def reads(monkeypatch):
    """The names of the files read so far."""
    seen, read = [], np.fromfile
    monkeypatch.setattr(frames.np, "fromfile", lambda path, **more: seen.append(path.name) or read(path, **more))
    return seen


@pytest.fixture
def forty(tmp_path):
    paths = [tmp_path / f"{i:02d}.png" for i in range(40)]
    for i, path in enumerate(paths):
        draw(path, i)
    return paths


between_or_beside = pytest.mark.parametrize("between", [True, False])


@between_or_beside
def test_batches_cover_all_paths_in_order_and_name_what_failed(tmp_path, monkeypatch, between):
    monkeypatch.setattr(frames, "BETWEEN", 5)  # two batches
    paths = [tmp_path / f"{i}.jpg" for i in range(7)]
    for i, path in enumerate(paths):
        draw(path, i)
    paths[4].write_bytes(b"")
    batches = list(read_batches(paths, batch_size=3, workers=2, between=between))
    assert [places for places, _, _ in batches] == [[0, 1, 2], [3, 5], [6]]
    assert [failed for _, _, failed in batches] == [{}, {4: "the file is empty"}, {}]
    for places, images, _ in batches:
        for place, image in zip(places, images, strict=True):
            np.testing.assert_array_equal(image, decode(paths[place]))
    assert list(read_batches([], 3, 1, between=between)) == []


@pytest.mark.parametrize("ahead", [None, 8])
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 2), (4, 8), (50, 3)])
def test_paths_are_taken_only_as_they_are_needed(tmp_path, monkeypatch, batch_size, workers, ahead):
    if ahead:
        monkeypatch.setattr(frames, "BETWEEN", ahead)
    together = -(-ahead // batch_size) * batch_size if ahead else batch_size
    draw(tmp_path / "a.jpg", 0)
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield tmp_path / "a.jpg"

    batches = read_batches(endless(), batch_size, workers, between=bool(ahead))
    for number in range(1, 4):
        places, images, _ = next(batches)
        assert places == list(range((number - 1) * batch_size, number * batch_size))
        assert len(images) == batch_size
        most = -(-number * batch_size // together) + 1 if ahead else number + 2
        assert taken <= most * together
    batches.close()


def test_beside_the_caller_the_next_batch_is_decoded(forty):
    decoded = []
    batches = read_batches(forty, 4, 2, lambda image: decoded.append(0) or image)
    next(batches)
    assert seen_within(5, lambda: len(decoded) == 8)
    batches.close()


def test_between_batches_the_next_files_are_read_and_no_more_and_nothing_is_decoded(forty, reads, monkeypatch):
    monkeypatch.setattr(frames, "BETWEEN", 8)
    decoded = []
    batches = read_batches(forty, 4, 2, lambda image: decoded.append(0) or image, between=True)
    for number in range(10):
        next(batches)
        together = number // 2 + 1
        ahead = [path.name for path in forty[: 8 * (together + 1)]]
        assert seen_within(5, lambda: sorted(reads) == ahead)  # noqa: B023
        time.sleep(0.02)
        assert (len(reads), len(decoded)) == (len(ahead), 8 * together)
    assert next(batches, None) is None


def test_what_is_read_ahead_is_bounded_in_bytes_too(forty, reads, monkeypatch):
    monkeypatch.setattr(frames, "BETWEEN", 8)
    monkeypatch.setattr(frames, "READ_BYTES", 1)  # room for the first of each task's files
    batches = read_batches(forty, 4, 1, between=True)
    first = next(batches)
    assert seen_within(5, lambda: sorted(reads[8:]) == ["08.png", "10.png", "12.png", "14.png"])
    time.sleep(0.02)
    assert len(reads) == 12
    images = [image for _, images, _ in [first, *batches] for image in images]
    assert sorted(reads) == [path.name for path in forty]
    for image, path in zip(images, forty, strict=True):
        np.testing.assert_array_equal(image, decode(path))


@between_or_beside
def test_images_may_be_changed_by_the_threads_that_decode_them(tmp_path, picture, between):
    Image.fromarray(picture).save(tmp_path / "a.png")
    ((_, images, _),) = read_batches([tmp_path / "a.png"], 3, 2, lambda image: image[::-1], between)
    np.testing.assert_array_equal(images[0], picture[::-1])
