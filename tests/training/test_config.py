import json
import re
import typing
from dataclasses import fields, replace
from pathlib import Path

import pytest

from models.networks import DISCRIMINATORS, GENERATORS
from training.config import Architecture, Config
from training.data import LOADERS
from training.losses import LOSSES
from training.presets import PRESETS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs must be above 0 and below inf, got 0"),
        ({"epochs": float("nan")}, "--epochs must be above 0 and below inf, got nan"),
        ({"images": 0}, "--images must be at least 1, got 0"),
        ({"minutes": float("inf")}, "--minutes must be above 0 and below inf, got inf"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"lr": -1}, "--lr must be above 0 and below inf, got -1"),
        ({"lr_end": 1.5}, "--lr-end must be at least 0 and at most 1, got 1.5"),
        ({"betas": (0.5, 1.0)}, "--betas must be at least 0 and below 1, got (0.5, 1.0)"),
        ({"beta2_start": 1}, "--beta2-start must be at least 0 and below 1, got 1"),
        ({"seed": 2**53}, "--seed must be at least 0 and below 9,007,199,254,740,992, got 9007199254740992"),
        ({"threads": 1025}, "--threads must be at least 1 and at most 1,024, got 1025"),
        ({"generator_widths": (5, 0)}, "--generator-widths must be at least 1, got (5, 0)"),
        ({"generator_widths": ()}, "--generator-widths is invalid: Tuple should have at least 1 item"),
        ({"generator": "cnn"}, "choose mlp, dcgan, residual, or give a class of your own as MODULE:CLASS, got 'cnn'"),
        ({"discriminator": "my_gan:"}, "or give a class of your own as MODULE:CLASS, got 'my_gan:'"),
        ({"loss": "l2"}, "--loss is invalid: Input should be 'non-saturating', 'minimax'"),
        ({"channels": 2}, "--channels is invalid: Input should be 1 or 3, got 2"),
        ({"discriminator_normalization": "spectral"}, "spectral needs --discriminator dcgan, got mlp"),
        ({"discriminator": "dcgan", "penalty": "r1"}, "--penalty r1 needs a discriminator that treats each image"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_option_the_range_and_the_value(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Config(**options)


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        (PRESETS, "preset"),
        (LOADERS, "dataset"),
        (LOSSES, "loss"),
    ],
)
def test_each_choice_has_an_implementation(choices, name):
    assert set(typing.get_args(typing.get_type_hints(Config)[name])) == set(choices)


@pytest.mark.parametrize("networks", [GENERATORS, DISCRIMINATORS])
def test_each_architecture_has_an_implementation(networks):
    assert set(typing.get_args(Architecture)) == set(networks)


def test_paths_are_excluded_from_checkpoints_and_cards():
    model_fields = Config().model_fields()
    assert not {"out", "data_dir", "init"} & set(model_fields)
    assert len(model_fields) == len(fields(Config)) - 3


def test_config_json_reads_back_as_an_equal_configuration(tmp_path):
    config = Config(preset="r3gan", out=tmp_path, **PRESETS["r3gan"] | {"epochs": 8})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert Config.load(tmp_path) == config
    assert type(Config.load(tmp_path).epochs) is float


def test_a_run_that_was_moved_is_read_from_its_new_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(Config(out=Path("somewhere/else")).to_dict()))
    assert Config.load(tmp_path) == replace(Config(), out=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[]", "it has no preset"),
        ("{}", "it has no preset"),
        ('{"preset": "mlp", "epochs": 0}', "epochs: Input should be greater than 0"),
        ('{"preset": "mlp", "epochs": "5"}', "epochs: Input should be a valid number"),
        ('{"preset": "mlp", "nothing": 1}', "nothing: Unexpected keyword argument"),
    ],
)
def test_an_invalid_config_json_is_rejected_with_the_reason(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{tmp_path}/config.json is not a valid configuration: .*{message}"):
        Config.load(tmp_path)


def test_a_folder_without_config_json_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} is not the folder of a run: it has no config.json"):
        Config.load(tmp_path)
