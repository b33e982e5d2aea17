import os
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import draw
from PIL import Image

from pipeline.extraction import frames
from pipeline.extraction.frames import UnreadableImage, decode, read_batches, resize, resize_image


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
    off = np.abs(resize([image], size, interpolation)[0].permute(1, 2, 0).numpy() - by_pil.astype(int))
    assert off.max() <= 1
    assert off.mean() < 0.02


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
