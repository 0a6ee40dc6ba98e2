"""Trains with every combination of precision, penalty, loss and discriminator."""

import json
import math
from functools import cache

import pytest

from tests.training.combinations import ALL, DISCRIMINATORS, PRECISIONS, tiny_config
from training.data import LOADERS
from training.loop import train


@pytest.fixture(scope="module", autouse=True)
def _load_data_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOADERS, "uci-digits", cache(LOADERS["uci-digits"]))
        yield


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize(
    "precision",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "bf16")) for name in PRECISIONS],
)
def test_every_loss_trains_with_every_penalty(tmp_path, precision, discriminator):
    for combination in ALL:
        if combination[0] != precision or combination[3] != discriminator:
            continue
        run = tmp_path / "-".join(combination)
        train(tiny_config(run, combination, images=192))
        (metrics,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        assert all(math.isfinite(value) for value in metrics.values()), combination
        assert (metrics["penalty"] > 0) == (combination[1] != "none"), combination
        assert metrics["gradient_generator"] > 0, combination
