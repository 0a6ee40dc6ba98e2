import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.data.examples import SEVEN, write_images
from training.data import DataError, load_dataset

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
BACKGROUND = (16, 32, 48)


def test_images_of_the_requested_size_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    loaded = load_dataset("folder", write_images(tmp_path, noise=[Image.fromarray(pixels)]))
    assert np.array_equal(loaded.images[0].permute(1, 2, 0), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_grey_images_of_any_mode_get_one_channel(tmp_path, mode):
    folder = write_images(tmp_path, sevens=[Image.fromarray(SEVEN).convert(mode)])
    loaded = load_dataset("folder", folder)
    assert loaded.info.image_shape == (1, 28, 28)
    assert np.array_equal(loaded.images[0, 0], SEVEN)
    assert load_dataset("folder", folder, channels=3).info.image_shape == (3, 28, 28)


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
def test_one_image_with_colours_gives_all_images_three_channels(tmp_path, mode):
    red = Image.new("RGB", (28, 28), RED).convert(mode)
    folder = write_images(tmp_path, things=[Image.fromarray(SEVEN), red])
    loaded = load_dataset("folder", folder)
    assert loaded.info.image_shape == (3, 28, 28)
    assert torch.equal(loaded.images[0], torch.from_numpy(SEVEN).expand(3, -1, -1))
    assert loaded.images[1, :, 0, 0].tolist() == list(RED)
    grey = load_dataset("folder", folder, channels=1)
    assert grey.info.image_shape == (1, 28, 28)
    assert grey.images[1].unique().tolist() == [76]  # the luma of red, ITU-R 601


def test_transparent_pixels_become_white(tmp_path):
    palette = Image.new("P", (28, 28), 0)
    palette.info["transparency"] = 0
    images = [Image.new("RGBA", (28, 28), (0, 0, 0, 0)), Image.new("LA", (28, 28), (0, 0)), palette]
    loaded = load_dataset("folder", write_images(tmp_path, ghosts=images))
    assert loaded.images.unique().tolist() == [255]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [8, 28, 40])
def test_the_middle_square_of_an_oblong_image_is_kept(tmp_path, turned, size):
    image = Image.new("RGB", (90, 30), RED)
    image.paste(GREEN, (30, 0, 60, 30))
    image.paste(BLUE, (60, 0, 90, 30))
    loaded = load_dataset("folder", write_images(tmp_path, flags=[image.rotate(90 * turned, expand=True)]), size)
    assert loaded.images.shape == (1, 3, size, size)
    difference = loaded.images[0].float() - torch.tensor(GREEN).view(3, 1, 1)
    assert difference.abs().max() < 32  # not 0, because at the edges the filter includes pixels outside the square


@pytest.mark.parametrize(
    ("fit", "size", "top_row", "middle_row"),
    [
        ("crop", (30, 30), [GREEN] * 3, [GREEN] * 3),
        ("crop", (60, 30), [RED, GREEN, BLUE], [RED, GREEN, BLUE]),
        ("pad", (30, 30), [BACKGROUND] * 3, [RED, GREEN, BLUE]),
        ("stretch", (30, 30), [RED, GREEN, BLUE], [RED, GREEN, BLUE]),
    ],
)
def test_an_image_with_other_proportions_is_cropped_padded_or_stretched(tmp_path, fit, size, top_row, middle_row):
    image = Image.new("RGB", (90, 30), RED)
    image.paste(GREEN, (30, 0, 60, 30))
    image.paste(BLUE, (60, 0, 90, 30))
    loaded = load_dataset("folder", write_images(tmp_path, flags=[image]), size, fit=fit, background="#102030")
    (pixels,) = loaded.images
    assert pixels.shape == (3, size[1], size[0])
    for row, colours in ((0, top_row), (size[1] // 2, middle_row)):
        columns = [2, size[0] // 2, size[0] - 3]
        assert [tuple(pixels[:, row, column].tolist()) for column in columns] == colours
    change = {"crop": "were cropped to the middle", "pad": "were surrounded by #102030", "stretch": "were stretched"}
    assert change[fit] in "\n".join(loaded.summary)


def test_images_of_one_size_keep_it_whatever_their_proportions(tmp_path):
    folder = write_images(tmp_path, flags=[Image.new("RGB", (96, 32), RED), Image.new("RGB", (96, 32), BLUE)])
    loaded = load_dataset("folder", folder)
    assert loaded.info.image_shape == (3, 32, 96)
    assert loaded.summary == ("folder: 2 images of 96 x 32 pixels, RGB; 1 class: flags (2)",)


@pytest.mark.parametrize(("colour", "pixel"), [("black", (0, 0, 0)), ("#ff8000", (255, 128, 0)), ("white", (255,))])
def test_transparent_pixels_become_the_background_and_the_summary_says_so(tmp_path, colour, pixel):
    ghosts = write_images(tmp_path, ghosts=[Image.new("RGBA", (28, 28), (0, 0, 0, 0))])
    loaded = load_dataset("folder", ghosts, background=colour, channels=None if colour == "white" else 3)
    assert loaded.images[0, :, 5, 5].tolist() == [*pixel]
    shown = {"black": "#000000"}.get(colour, colour)
    assert f"1 of 1 images have transparency, which becomes {shown}" in loaded.summary


def test_a_background_that_is_not_a_colour_is_rejected(tmp_path):
    with pytest.raises(DataError, match="--background 'transparent' is not a colour; give a name such as black"):
        load_dataset("folder", tmp_path, background="transparent")


def test_reduced_images_are_averages_of_pixels(tmp_path):
    checkerboard = np.indices((280, 280)).sum(axis=0) % 2 * np.uint8(255)
    loaded = load_dataset("folder", write_images(tmp_path, boards=[Image.fromarray(checkerboard.astype(np.uint8))]), 28)
    assert loaded.images[..., 2:-2, 2:-2].float().sub(127.5).abs().max() < 3


def test_a_photograph_is_turned_by_its_exif_orientation(tmp_path):
    turned = Image.fromarray(SEVEN).rotate(90)
    exif = turned.getexif()
    exif[274] = 6  # viewers turn it clockwise by 90 degrees
    (tmp_path / "sevens").mkdir()
    turned.save(tmp_path / "sevens" / "photograph.png", exif=exif)
    assert np.array_equal(load_dataset("folder", tmp_path).images[0, 0], SEVEN)


def test_the_size_of_a_turned_photograph_is_that_which_viewers_show(tmp_path):
    image = Image.new("L", (40, 20))
    exif = image.getexif()
    exif[274] = 6
    (tmp_path / "wide").mkdir()
    image.save(tmp_path / "wide" / "photograph.jpg", exif=exif)
    assert load_dataset("folder", tmp_path).info.image_shape == (1, 40, 20)


def png(image: Image.Image) -> bytes:
    image.save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        png(Image.fromarray(SEVEN))[:-40],
        png(Image.fromarray(SEVEN)).replace(b"IDAT", b"IDAX"),
        png(Image.fromarray(SEVEN.astype(np.uint16) * 257)),
    ],
    ids=["empty", "text", "truncated", "damaged", "16 bits"],
)
def test_a_file_that_cannot_be_read_as_an_image_is_rejected_with_its_name(tmp_path, content):
    file = write_images(tmp_path, sevens=[Image.fromarray(SEVEN)]) / "sevens" / "broken.png"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path}: 1 file cannot be read as images: sevens/{file.name} "):
        load_dataset("folder", tmp_path)
