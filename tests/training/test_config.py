import json
import subprocess
import sys
import typing
from dataclasses import fields, replace

import pytest

from models.architectures import DISCRIMINATORS, GENERATORS
from training.config import PRESETS, Config, parse
from training.data import LOADERS
from training.losses import LOSSES


def test_the_mlp_preset_is_the_textbook_to_the_letter():
    config = parse(["--preset", "mlp"]).config
    assert (config.latent_dim, config.generator_widths, config.discriminator_widths) == (100, (256, 512), (512, 256))
    assert (config.lr, config.batch_size, config.epochs, config.loss) == (2e-4, 64, 50, "non-saturating")
    assert config.conditional is False


def test_options_change_what_the_preset_says():
    arguments = "--preset=mlp --epochs 3 --loss minimax --generator-widths 8 9 10 --conditional"
    config = parse(arguments.split()).config
    assert (config.epochs, config.loss, config.generator_widths, config.conditional) == (3, "minimax", (8, 9, 10), True)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_differences_in_fields_that_exist(preset):
    assert set(PRESETS[preset]) <= {field.name for field in fields(Config)}
    assert parse(["--preset", preset]).config.preset == preset


@pytest.mark.parametrize(
    ("choices", "name"),
    [(LOADERS, "dataset"), (LOSSES, "loss"), (GENERATORS, "generator"), (DISCRIMINATORS, "discriminator")],
)
def test_every_choice_of_the_command_line_is_there(choices, name):
    assert set(typing.get_args(typing.get_type_hints(Config)[name])) == set(choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--preset nothing", "invalid choice: 'nothing'"),
        ("--preset", "--preset"),
        ("--nothing 1", "--nothing"),
        ("--epochs 0", "--epochs must be above 0, got 0"),
        ("--batch-size -1", "--batch-size"),
        ("--threads 0", "--threads must be from 1 to 1,024, got 0"),
        ("--threads two", "--threads"),
        ("--lr 0", "--lr"),
        ("--lr nan", "--lr"),
        ("--betas 0.5 1", "--betas"),
        ("--seed -1", "--seed"),
        ("--generator-widths 5 0", "--generator-widths"),
        ("--generator-widths", "--generator-widths"),
        ("--images 0", "--images"),
        ("--images 6G", "--images"),
        ("--minutes nan", "--minutes"),
        ("--images 5 --minutes 5", "--images and --minutes both say when to stop"),
        ("--preset dcgan --penalty r1", "--penalty r1 needs a discriminator"),
        ("--resume nowhere", "nowhere holds no run"),
        ("--resume nowhere --epochs 3", "takes no other option"),
        ("--resume nowhere --preset mlp", "takes no other option"),
    ],
)
def test_a_value_out_of_range_names_the_option(capsys, arguments, message):
    with pytest.raises(SystemExit):
        parse(arguments.split())
    assert message in capsys.readouterr().err


def test_the_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MNIST_GAN_DATA", "/somewhere")
    assert str(parse([]).config.data_dir) == "/somewhere"
    assert str(parse(["--data-dir", "/elsewhere"]).config.data_dir) == "/elsewhere"


def test_paths_do_not_travel_with_the_model():
    model_fields = Config().model_fields()
    assert not {"out", "data_dir", "init"} & set(model_fields)
    assert len(model_fields) == len(fields(Config)) - 3


@pytest.mark.parametrize(("text", "images"), [("6M", 6_000_000), ("60k", 60_000), ("1_000", 1_000), ("0.5m", 500_000)])
def test_numbers_of_images_may_be_written_short(text, images):
    assert parse(["--images", text]).config.images == images


def test_a_configuration_comes_back_from_its_run(tmp_path):
    config = replace(parse(["--preset", "r3gan", "--images", "6M"]).config, out=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert Config.load(tmp_path) == config
    resumed = parse(["--resume", str(tmp_path)])
    assert (resumed.config, resumed.resume) == (config, True)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"epochs": 0}', '{"nothing": 1, "init": null, "data_dir": "x"}'])
def test_a_configuration_that_cannot_be_read_is_told(tmp_path, capsys, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SystemExit):
        parse(["--resume", str(tmp_path)])
    assert "config.json" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = "import sys, training.train, training.export_onnx; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
