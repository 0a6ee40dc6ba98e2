import subprocess
import sys
import typing
from dataclasses import fields

import pytest

from training.config import PRESETS, Config, parse
from training.data import LOADERS
from training.losses import GENERATOR_LOSSES


def test_the_mlp_preset_is_the_textbook_to_the_letter():
    config = parse(["--preset", "mlp"])
    assert (config.latent_dim, config.generator_widths, config.discriminator_widths) == (100, (256, 512), (512, 256))
    assert (config.lr, config.batch_size, config.epochs, config.loss) == (2e-4, 64, 50, "non-saturating")
    assert config.conditional is False


def test_options_change_what_the_preset_says():
    arguments = "--preset=mlp --epochs 3 --loss minimax --generator-widths 8 9 10 --conditional"
    config = parse(arguments.split())
    assert (config.epochs, config.loss, config.generator_widths, config.conditional) == (3, "minimax", (8, 9, 10), True)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_differences_in_fields_that_exist(preset):
    assert set(PRESETS[preset]) <= {field.name for field in fields(Config)}
    assert parse(["--preset", preset]).preset == preset


@pytest.mark.parametrize(("choices", "name"), [(LOADERS, "dataset"), (GENERATOR_LOSSES, "loss")])
def test_every_choice_of_the_command_line_is_there(choices, name):
    assert set(typing.get_args(typing.get_type_hints(Config)[name])) == set(choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--preset nothing", "invalid choice: 'nothing'"),
        ("--preset", "--preset"),
        ("--nothing 1", "--nothing"),
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--batch-size -1", "--batch-size"),
        ("--lr 0", "--lr"),
        ("--lr nan", "--lr"),
        ("--betas 0.5 1", "--betas"),
        ("--seed -1", "--seed"),
        ("--generator-widths 5 0", "--generator-widths"),
        ("--generator-widths", "--generator-widths"),
    ],
)
def test_a_value_out_of_range_names_the_option(capsys, arguments, message):
    with pytest.raises(SystemExit):
        parse(arguments.split())
    assert message in capsys.readouterr().err


def test_the_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MNIST_GAN_DATA", "/somewhere")
    assert str(parse([]).data_dir) == "/somewhere"
    assert str(parse(["--data-dir", "/elsewhere"]).data_dir) == "/elsewhere"


def test_paths_do_not_travel_with_the_model():
    model_fields = Config().model_fields()
    assert not {"out", "data_dir"} & set(model_fields)
    assert len(model_fields) == len(fields(Config)) - 2


def test_help_does_not_wait_for_torch():
    code = "import sys, training.train, models.export_onnx; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
