from pathlib import Path

import pytest

from tests.conftest import small_config
from training.batches import Batches
from training.data import load_dataset
from training.distributed import Group


@pytest.mark.parametrize("penalty", ["finite-difference", "wgan-gp"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_no_random_numbers_are_used_twice(penalty, batch_size):
    """Latents and noise have the same number of values per image, so the same stream would give the same values."""
    config = small_config(
        Path("unused"), penalty=penalty, batch_size=batch_size, generator_data="fresh", image_size=8, latent_dim=64
    )
    batches = Batches(load_dataset("uci-digits", config.data_dir, config.image_size), config, Group())
    drawn = []
    for step in range(50):
        batch = batches.at(step * batch_size)
        for name in ("latents", "generator_latents", "noise"):
            drawn += [tuple(row.flatten().tolist()) for row in batch[name]]
    assert len(set(drawn)) == len(drawn)
