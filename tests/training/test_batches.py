"""Batches of random numbers and images."""

from pathlib import Path

import pytest
import torch

from tests.conftest import small_config
from training.batches import Batches
from training.data import load_dataset
from training.distributed import Group


@pytest.mark.parametrize("penalty", ["finite-difference", "wgan-gp"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_no_random_numbers_are_drawn_twice(penalty, batch_size):
    """Latents and noise have the same number of values per image, so a shared stream would give equal values."""
    config = small_config(
        Path("unused"), penalty=penalty, batch_size=batch_size, generator_data="fresh", image_size=8, latent_dim=64
    )
    batches = Batches(load_dataset("uci-digits", config.data_dir, config.image_size), config, Group())
    drawn = []
    for step in range(50):
        batch = batches.at(step * batch_size)
        for tensor in (batch.discriminator.latents, batch.generator.latents, batch.noise):
            drawn += [tuple(row.flatten().tolist()) for row in tensor]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    ("options", "tensors"),
    [
        ({}, 3),
        ({"generator_data": "fresh"}, 6),
        ({"generator_data": "fresh", "penalty": "wgan-gp"}, 7),
        ({"penalty": "finite-difference"}, 4),
        ({"penalty": "finite-difference", "augment": "diff"}, 5),
    ],
)
def test_a_clone_has_the_same_tensors_in_memory_of_its_own(options, tensors):
    config = small_config(Path("unused"), image_size=8, **options)
    batch = Batches(load_dataset("uci-digits", config.data_dir, config.image_size), config, Group()).at(0)
    clone = batch.clone()
    assert len(batch.tensors()) == len(clone.tensors()) == tensors
    for original, copied in zip(batch.tensors(), clone.tensors(), strict=True):
        assert torch.equal(original, copied)
        assert original.data_ptr() != copied.data_ptr()
