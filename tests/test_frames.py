import os
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import draw
from PIL import Image
from timm.data import create_transform

from pipeline.extraction import frames
from pipeline.extraction.frames import Fit, UnreadableImage, decode, read_batches, resize_image, stacked


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
@pytest.mark.parametrize("shape", [(90, 130), (130, 90), (112, 112), (300, 230), (224, 90), (7, 900), (900, 7), (1, 1)])
@pytest.mark.parametrize("size", [32, 90, 224])
def test_resizing_is_pils_but_for_a_grey_level_where_it_falls_in_the_middle_of_two(shape, interpolation, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)  # noise: overshoots and is cut off
    by_pil = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling[interpolation.upper()]))
    off = np.abs(resize_image(image, size, interpolation) - by_pil.astype(int))
    assert off.max() <= 1
    assert off.mean() < 0.02


@pytest.mark.parametrize(
    "shape", [(90, 130), (130, 90), (112, 112), (300, 231), (57, 224), (601, 900), (1, 40), (33, 32)]
)
@pytest.mark.parametrize(("crop_mode", "way"), [("squash", "squash"), ("center", "crop"), ("border", "pad")])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.9])
def test_a_fit_is_timms_own_crop_mode(shape, crop_mode, way, crop_pct):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mean = (0.485, 0.456, 0.406)
    timms = create_transform(
        (3, 96, 96), interpolation="bicubic", crop_mode=crop_mode, crop_pct=crop_pct, mean=mean, std=(1, 1, 1),
        normalize=False,
    )  # fmt: skip
    expected = timms(Image.fromarray(image)).permute(1, 2, 0).numpy().astype(int)
    fit = Fit(way, crop_pct, tuple(round(255 * value) for value in mean))
    off = np.abs(resize_image(image, 96, "bicubic", fit) - expected)
    assert off.max() <= 1
    assert off.mean() < 0.02


def test_padding_and_squashing_lose_nothing_and_cropping_keeps_the_aspect():
    """A disc of 60 in a white picture of 100 x 200."""
    y, x = np.mgrid[:100, :200]
    disc = np.where((y - 50) ** 2 + (x - 100) ** 2 < 900, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    height_and_width = {}
    for fit in (Fit("squash"), Fit("crop"), Fit("pad", 1.0, (255, 255, 255))):
        dark = resize_image(disc, 100, "bilinear", fit)[..., 0] < 128
        height_and_width[fit.way] = dark.any(1).sum(), dark.any(0).sum()
    assert np.abs(np.subtract(height_and_width["squash"], (59, 30))).max() <= 1
    assert np.abs(np.subtract(height_and_width["crop"], (59, 59))).max() <= 1
    assert np.abs(np.subtract(height_and_width["pad"], (30, 30))).max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_faces_of_112_pixels_to_224_is_pils_to_the_last_bit_inside(interpolation):
    """Where weights are whole parts of 128, many values fall exactly in the middle; at the edges they are not."""
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    by_pil = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling[interpolation.upper()]))
    np.testing.assert_array_equal(resize_image(image, 224, interpolation)[4:-4, 4:-4], by_pil[4:-4, 4:-4])


def test_an_image_too_large_for_floats_is_resized_by_pil_itself(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (30, 101, 3), dtype=np.uint8)
    monkeypatch.setattr(frames, "MOST_SIDE", 100)
    monkeypatch.setattr(frames, "_weights", None)
    by_pil = Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_image(image, 16, "bicubic"), np.asarray(by_pil))


@pytest.mark.gpu
def test_on_cuda_images_arrive_as_they_are(picture):
    images = [picture[:50, :50], picture[:50, 50:100]]
    there = stacked(images, torch.device("cuda"))
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(there.cpu(), stacked(images))


def test_images_are_stacked_in_their_places_in_channels_last_memory(picture):
    images = [picture[:50, :50], picture[:50, 50:100], picture[40:, :50]]
    together = stacked(images)
    assert together.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(together.permute(0, 2, 3, 1), images)


def seen_within(seconds, holds) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


@pytest.fixture
def forty(tmp_path):
    paths = [tmp_path / f"{i:02d}.png" for i in range(40)]
    for i, path in enumerate(paths):
        draw(path, i)
    return paths


def test_batches_cover_all_paths_in_order_and_name_what_failed(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(7)]
    for i, path in enumerate(paths):
        draw(path, i)
    paths[4].write_bytes(b"")
    batches = list(read_batches(paths, batch_size=3, workers=2))
    assert [places for places, _, _ in batches] == [[0, 1, 2], [3, 5], [6]]
    assert [failed for _, _, failed in batches] == [{}, {4: "the file is empty"}, {}]
    for places, images, _ in batches:
        for place, image in zip(places, images, strict=True):
            np.testing.assert_array_equal(image, decode(paths[place]))
    assert list(read_batches([], 3, 1)) == []


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 2), (4, 8), (50, 3)])
def test_paths_are_taken_only_as_they_are_needed(tmp_path, batch_size, workers):
    draw(tmp_path / "a.jpg", 0)
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield tmp_path / "a.jpg"

    batches = read_batches(endless(), batch_size, workers)
    for number in range(1, 4):
        places, images, _ = next(batches)
        assert places == list(range((number - 1) * batch_size, number * batch_size))
        assert len(images) == batch_size
        assert taken <= (number + 2) * batch_size
    batches.close()


def test_beside_the_caller_the_next_batch_is_decoded(forty):
    decoded = []
    batches = read_batches(forty, 4, 2, lambda image: decoded.append(0) or image)
    next(batches)
    assert seen_within(5, lambda: len(decoded) == 8)
    batches.close()


def test_images_may_be_changed_by_the_threads_that_decode_them(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    ((_, images, _),) = read_batches([tmp_path / "a.png"], 3, 2, lambda image: image[::-1])
    np.testing.assert_array_equal(images[0], picture[::-1])
