import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from models.common.image_files import animation, npy, npz, png, sheet


def noise(n: int, channels: int = 1, height: int = 5, width: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), np.uint8)


@given(st.integers(1, 30), st.none() | st.integers(1, 40), st.integers(1, 3), st.sampled_from([1, 3]))
def test_every_image_lies_in_its_cell(n, columns, scale, channels):
    images = noise(n, channels)
    pixels = np.asarray(sheet(images, columns, scale)).reshape(-1, sheet(images, columns, scale).width, channels)
    across = pixels.shape[1] // (4 * scale)
    assert across == min(n, columns or int(np.ceil(np.sqrt(n))))
    for i, image in enumerate(images):
        row, column = divmod(i, across)
        top, left = row * 5 * scale, column * 4 * scale
        cell = pixels[top : top + 5 * scale : scale, left : left + 4 * scale : scale]
        np.testing.assert_array_equal(cell, image.transpose(1, 2, 0))


def test_cells_without_an_image_are_black():
    assert not np.asarray(sheet(noise(3), columns=2))[5:, 4:].any()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_png_keeps_every_pixel(channels, mode):
    image = sheet(noise(4, channels))
    with Image.open(io.BytesIO(png(image))) as read:
        assert (read.format, read.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.parametrize(("channels", "shape"), [(1, (6, 5, 4)), (3, (6, 5, 4, 3))])
def test_npz_has_images_and_labels_as_documented(channels, shape):
    images, labels = noise(6, channels), np.arange(6)
    arrays = np.load(io.BytesIO(npz(images, labels)))
    assert (arrays["images"].shape, arrays["images"].dtype) == (shape, np.uint8)
    np.testing.assert_array_equal(arrays["images"].reshape((*shape[:3], -1)), images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(arrays["labels"], labels)
    assert np.load(io.BytesIO(npz(images, None))).files == ["images"]


@pytest.mark.parametrize(
    ("format", "channels", "colours"), [("gif", 1, 256), ("webp", 1, 256), ("webp", 3, 1_200), ("gif", 3, 256)]
)
def test_an_animation_is_lossless_except_for_the_colours_of_a_gif(format, channels, colours):
    images = np.arange(4 * channels * 20 * 20).reshape(4, channels, 20, 20).astype(np.uint8)
    images = np.random.default_rng(0).permuted(images, axis=3)
    with Image.open(io.BytesIO(animation(images, 1, format))) as read:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(read)]
    assert len(frames) == 6
    for frame, index in zip(frames, (0, 1, 2, 3, 2, 1), strict=True):
        exact = np.broadcast_to(images[index].transpose(1, 2, 0), (20, 20, 3))
        assert len(np.unique(frame.reshape(-1, 3), axis=0)) <= colours
        if (format, channels) != ("gif", 3):
            np.testing.assert_array_equal(frame, exact)


def test_the_same_images_make_the_same_bytes():
    images, labels = noise(6), np.arange(6)
    assert npz(images, labels) == npz(images, labels)
    assert png(sheet(images)) == png(sheet(images))
    np.testing.assert_array_equal(np.load(io.BytesIO(npy(images))), images)
