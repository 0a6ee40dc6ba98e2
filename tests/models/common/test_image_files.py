import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.common.image_files import grid, npy, npz, npz_layout, png


def noise(n: int, channels: int = 1, height: int = 5, width: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), np.uint8)


def levels(image: Image.Image, channels: int) -> np.ndarray:
    return np.asarray(image).reshape(image.height, image.width, channels)


@given(
    st.integers(1, 30), st.none() | st.integers(1, 40), st.integers(1, 3), st.integers(0, 2), st.sampled_from([1, 3])
)
def test_every_image_of_a_grid_is_in_its_cell_and_the_rest_has_the_grey_level(n, columns, scale, padding, channels):
    images = noise(n, channels)
    pixels = levels(grid(images, columns, scale, padding, grey=76), channels)[::scale, ::scale]
    across = min(n, columns or int(np.ceil(np.sqrt(n))))
    down = -(-n // across)
    expected = np.full((down * (5 + padding) + padding, across * (4 + padding) + padding, channels), 76, np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, across)
        top, left = padding + row * (5 + padding), padding + column * (4 + padding)
        expected[top : top + 5, left : left + 4] = image.transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels, expected)


def test_a_scaled_grid_repeats_each_pixel():
    images = noise(4)
    large = np.asarray(grid(images, scale=3))
    np.testing.assert_array_equal(large, np.asarray(grid(images)).repeat(3, axis=0).repeat(3, axis=1))


def test_cells_without_an_image_are_black_by_default():
    assert not np.asarray(grid(noise(3), columns=2))[5:, 4:].any()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_png_keeps_every_pixel(channels, mode):
    image = grid(noise(4, channels))
    with Image.open(io.BytesIO(png(image))) as read:
        assert (read.format, read.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.parametrize(("channels", "shape"), [(1, (6, 5, 4)), (3, (6, 5, 4, 3))])
def test_npz_has_images_and_labels_as_documented(channels, shape):
    images, labels = noise(6, channels), np.arange(6)
    arrays = np.load(io.BytesIO(npz(images, labels)))
    assert (arrays["images"].shape, arrays["images"].dtype) == (shape, np.uint8)
    np.testing.assert_array_equal(arrays["images"], npz_layout(images))
    np.testing.assert_array_equal(arrays["images"].reshape((*shape[:3], -1)), images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(arrays["labels"], labels)
    assert np.load(io.BytesIO(npz(images, None))).files == ["images"]


def test_the_same_images_are_encoded_in_the_same_bytes():
    images, labels = noise(6), np.arange(6)
    assert npz(images, labels) == npz(images, labels)
    assert png(grid(images)) == png(grid(images))
    np.testing.assert_array_equal(np.load(io.BytesIO(npy(images))), images)
