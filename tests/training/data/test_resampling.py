import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.data.examples import SEVEN
from training.data import load_dataset


@pytest.mark.parametrize("size", [8, 32, 64, (20, 40)])
def test_images_are_resampled_as_pillow_does(idx_set, size):
    resampled = load_dataset(idx_set.name, idx_set.data_dir, image_size=size).images[7, 0]
    width_and_height = (size, size) if isinstance(size, int) else size
    pillow = np.asarray(Image.fromarray(SEVEN).resize(width_and_height, Image.Resampling.BICUBIC))
    assert np.abs(resampled.numpy().astype(int) - pillow).max() <= 2


def test_three_channels_of_grey_images_are_equal(idx_set):
    grey, coloured = (load_dataset(idx_set.name, idx_set.data_dir, channels=channels) for channels in (1, 3))
    assert coloured.info.image_shape == (3, 28, 28)
    assert torch.equal(coloured.images, grey.images.repeat(1, 3, 1, 1))
