import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from training.command_line import parse
from training.config import Config, option_name
from training.dry_run import dry_run
from training.presets import PRESETS


@pytest.fixture
def run(tmp_path) -> Path:
    """Folder of a run of the preset fast over 6 million images."""
    config = replace(parse(["--preset", "fast", "--images", "6M"]).config, out=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    return tmp_path


def printed_help(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_options_override_the_preset():
    arguments = "--preset=mlp --epochs 3 --loss minimax --generator-widths 8 9 10 --conditional"
    config = parse(arguments.split()).config
    assert (config.epochs, config.loss, config.generator_widths, config.conditional) == (3, "minimax", (8, 9, 10), True)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_without_options_gives_its_own_values(preset):
    assert parse(["--preset", preset]).config == Config(preset=preset, **PRESETS[preset])


def test_the_default_preset_is_mlp():
    assert parse([]).config == Config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--preset nothing", "invalid choice: 'nothing'"),
        ("--preset", "--preset"),
        ("--nothing 1", "--nothing"),
        ("--epochs 0", "--epochs must be above 0 and below inf, got 0"),
        ("--batch-size -1", "--batch-size"),
        ("--threads 0", "--threads must be at least 1 and at most 1,024, got 0"),
        ("--threads two", "--threads"),
        ("--lr 0", "--lr"),
        ("--lr nan", "--lr"),
        ("--betas 0.5 1", "--betas"),
        ("--seed -1", "--seed"),
        ("--generator-widths 5 0", "--generator-widths"),
        ("--generator-widths", "--generator-widths"),
        ("--image-size None", "--image-size"),
        ("--image-size 96x32x3", "'96x32x3' is not a size such as 64 or 96x32 (width x height)"),
        ("--images 0", "--images"),
        ("--images 6G", "--images"),
        ("--minutes nan", "--minutes"),
        ("--images 5 --minutes 5", "--images and --minutes both set the duration; give one of them"),
        ("--preset dcgan --penalty r1", "--penalty r1 needs a discriminator"),
        ("--resume nowhere", "nowhere is not the folder of a run"),
        ("--resume nowhere --epochs 3", "nowhere is not the folder of a run"),
        (
            "--resume nowhere --preset mlp",
            "--preset cannot be given with --resume, which accepts only --data-dir, --epochs",
        ),
        ("--resume nowhere --loss=hinge --batch-size 3", "--loss, --batch-size cannot be given with --resume"),
        ("--resume nowhere --no-conditional --out x", "--no-conditional, --out cannot be given with --resume"),
        ("--resume nowhere something", "something cannot be given with --resume"),
        ("--resume nowhere --images 5 --minutes 5", "--images and --minutes both set the duration; give one of them"),
    ],
)
def test_a_wrong_argument_ends_the_command_with_code_2_and_the_name_of_the_option(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        parse(arguments.split())
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    for internal_name in ("_NewRun", "_ResumedRun", "Options "):
        assert internal_name not in error


def test_the_data_folder_comes_from_the_environment_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("MNIST_GAN_DATA", "/somewhere")
    assert str(parse([]).config.data_dir) == "/somewhere"
    assert str(parse(["--data-dir", "/elsewhere"]).config.data_dir) == "/elsewhere"


@pytest.mark.parametrize(("text", "images"), [("6M", 6_000_000), ("60k", 60_000), ("1_000", 1_000), ("0.5m", 500_000)])
def test_numbers_of_images_may_be_abbreviated(text, images):
    assert parse(["--images", text]).config.images == images


@pytest.mark.parametrize(("text", "size"), [("64", 64), ("96x32", (96, 32)), ("32X96", (32, 96)), ("28x28", 28)])
def test_an_image_size_is_the_side_of_a_square_or_width_and_height(tmp_path, text, size):
    config = parse(["--image-size", text, "--out", str(tmp_path)]).config
    assert config.image_size == size
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert Config.load(tmp_path) == config


def test_resume_reads_the_configuration_of_the_run(run):
    command = parse(["--resume", str(run)])
    assert command.config == Config.load(run)
    assert (command.resume, command.dry_run, command.threads) == (True, False, None)


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
def test_resume_may_change_the_data_folder_the_duration_and_the_device(run, arguments, changes):
    command = parse(["--resume", str(run), *arguments.split()])
    assert command.config == replace(Config.load(run), **changes)
    assert (command.resume, command.dry_run) == (True, "--dry-run" in arguments)


@pytest.mark.parametrize("content", ["", "{}", '{"preset": "mlp", "epochs": 0}'])
def test_resume_rejects_a_folder_with_an_invalid_configuration(tmp_path, capsys, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SystemExit):
        parse(["--resume", str(tmp_path)])
    assert f"{tmp_path}/config.json is not a valid configuration" in capsys.readouterr().err


def test_a_dry_run_prints_the_widths_for_the_size_of_the_images():
    config = parse(["--preset", "fast", "--dataset", "uci-digits", "--image-size", "64", "--device", "cpu"]).config
    printed = "".join(dry_run(config).split())
    assert '"generator_widths":[128,64,32],"discriminator_widths":[32,64,128,256]' in printed


def test_help_lists_all_options_in_groups_with_examples(capsys):
    text = printed_help(capsys)
    for field in fields(Config):
        if field.name.endswith("_sha256"):
            continue  # stored by the run, not an option
        assert f"{option_name(field.name)} " in text or f"{option_name(field.name)}," in text
    for group in ("run", "data", "network", "duration", "optimization", "penalty", "execution", "logging"):
        assert f" {group} options " in text
    assert "examples:\n  train --preset fast --minutes 10 --out runs/a" in text
    assert "None" not in text
    assert "True" not in text
    assert "False" not in text


def test_help_shows_the_defaults_of_the_given_preset(capsys):
    assert "(default: hinge)" in printed_help(capsys, "--preset", "fast")


def test_help_of_resume_lists_the_options_that_may_change(capsys):
    text = printed_help(capsys, "--resume", "a-run-that-need-not-exist")
    assert "--minutes MINUTES" in text
    assert "--loss" not in text
    assert "None" not in text
    assert "examples:\n  train --resume runs/a " in text


def test_help_is_printed_without_importing_torch():
    code = "import sys, training.train, training.command_line, training.export_onnx; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
