import json
import subprocess
import sys
import typing
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from models.networks import DISCRIMINATORS, GENERATORS, NetworkConfig, build_discriminator, build_generator
from training.config import PRESETS, Config, parse
from training.data import LOADERS
from training.dry_run import dry_run
from training.losses import LOSSES
from training.widths import resolve_widths


def test_the_mlp_preset_is_the_textbook_to_the_letter():
    config = parse(["--preset", "mlp"]).config
    assert (config.latent_dim, resolve_widths(config, (1, 28, 28))) == (100, ((256, 512), (512, 256)))
    assert (config.lr, config.batch_size, config.epochs, config.loss) == (2e-4, 64, 50, "non-saturating")
    assert config.conditional is False


@pytest.mark.parametrize("preset", PRESETS)
def test_default_widths_follow_the_size_of_the_images(preset):
    config = parse(["--preset", preset]).config
    at_28 = {
        "mlp": ((256, 512), (512, 256)),
        "dcgan": ((128, 64), (64, 128)),
        "r3gan": ((128, 64, 32), (32, 64, 128)),
        "fast": ((64, 32), (32, 64)),
    }[preset]
    for size in (8, 16, 28, 32):
        assert resolve_widths(config, (1, size, size)) == at_28
    generator, discriminator = resolve_widths(config, (3, 128, 128))
    assert generator == discriminator[::-1]
    if preset == "mlp":
        assert (generator, discriminator) == at_28
    else:
        assert generator == (4 * at_28[0][0], 2 * at_28[0][0], *at_28[0])


@pytest.mark.parametrize("preset", ["dcgan", "r3gan", "fast"])
@pytest.mark.parametrize("size", [28, 33, 64, 100, 128, 256])
def test_convolutional_generators_start_from_at_most_8_pixels_at_any_size(preset, size):
    config = replace(parse(["--preset", preset]).config, device="cpu")
    generator, discriminator = resolve_widths(config, (1, size, size))
    assert max(generator) <= 512
    label = torch.zeros(1, dtype=torch.int64) if config.conditional else None
    shape, classes = (1, size, size), 2 * config.conditional
    with torch.device("meta"):
        build_discriminator(NetworkConfig(config.discriminator, shape, discriminator, classes))
    network = build_generator(NetworkConfig(config.generator, shape, generator, classes, config.latent_dim))
    sizes = []
    network.input.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    assert network.eval()(torch.zeros(1, config.latent_dim), label).shape == (1, *shape)
    assert 4 <= sizes[0] <= 8


def test_widths_that_the_user_sets_are_kept_at_any_size():
    config = parse(["--preset", "fast", "--generator-widths", "64", "32"]).config
    assert resolve_widths(config, (1, 128, 128)) == ((64, 32), (32, 64, 128, 256))


def test_a_dry_run_prints_the_widths_for_the_size_of_the_images(tmp_path):
    config = parse(["--preset", "fast", "--dataset", "uci-digits", "--image-size", "64", "--device", "cpu"]).config
    printed = "".join(dry_run(config).split())
    assert '"generator_widths":[128,64,32],"discriminator_widths":[32,64,128]' in printed


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
        ("--resume nowhere --epochs 3", "nowhere holds no run"),
        ("--resume nowhere --preset mlp", "cannot take --preset; it takes --data-dir, --epochs, --images"),
        ("--resume nowhere --loss=hinge --batch-size 3", "cannot take --loss, --batch-size; it takes --data-dir"),
        ("--resume nowhere --no-conditional --out x", "cannot take --no-conditional, --out"),
        ("--resume nowhere something", "cannot take something"),
        ("--resume nowhere --images 5 --minutes 5", "--images and --minutes both say when to stop"),
    ],
)
def test_a_value_out_of_range_names_the_option(capsys, arguments, message):
    with pytest.raises(SystemExit):
        parse(arguments.split())
    said = capsys.readouterr().err
    assert message in said
    assert "_Options" not in said, "no name from inside the program"


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


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("--data-dir moved", {"data_dir": Path("moved")}),
        ("--images 9M", {"images": 9_000_000}),
        ("--epochs 4", {"epochs": 4, "images": None}),
        ("--minutes 2", {"minutes": 2, "images": None}),
        ("--device cpu --dry-run", {"device": "cpu"}),
    ],
)
def test_resume_changes_where_the_data_is_and_how_long_the_run_takes(tmp_path, arguments, changes):
    config = replace(parse(["--preset", "fast", "--images", "6M"]).config, out=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    resumed = parse(["--resume", str(tmp_path), *arguments.split()])
    assert resumed.config == replace(config, **changes)
    assert (resumed.resume, resumed.dry_run) == (True, "--dry-run" in arguments)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"epochs": 0}', '{"nothing": 1, "init": null, "data_dir": "x"}'])
def test_a_configuration_that_cannot_be_read_is_told(tmp_path, capsys, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SystemExit):
        parse(["--resume", str(tmp_path)])
    assert "config.json" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = "import sys, training.train, training.export_onnx; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
