"""Networks that a user defines are trained, resumed and exported like those of this package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint
from models.common.errors import MnistGanError
from models.export.exporter import export
from models.networks.own import NetworkError, import_network
from models.onnx_file.generator import Generator
from models.onnx_file.graph_checks import OPERATORS
from models.verify_model import compare_with_run
from tests.conftest import small_config
from training.dry_run import dry_run
from training.loop import train

PAGE = (Path(__file__).parents[2] / "docs/own-network.md").read_text()
NETWORKS = {"generator": "my_gan:Generator", "discriminator": "my_gan:Discriminator"}
OPTIONS = [f"--{role}={name}" for role, name in NETWORKS.items()]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Returns the current folder, with the example of the page as my_gan.py."""
    example = re.search(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_gan.py").write_text(example[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    monkeypatch.setattr("models.networks.own._imported", {})
    return tmp_path


def command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / name, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def import_example() -> None:
    for name in NETWORKS.values():
        import_network(name)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_the_commands_of_the_page_work_in_order(folder):
    commands = re.search(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in commands[1].splitlines():
        done = command(*line.split())
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    generator = Generator.open("mine.onnx")
    assert (generator.card.origin.network, generator.card.conditional) == ("my_gan:Generator", True)
    assert generator.card.training.config["generator_sha256"] == generator.card.origin.source_sha256
    assert (folder / "mine.png").is_file()
    evaluated = command(
        "evaluate", "runs/mine", "--network", "my_gan:Generator", "--fit-classifier", "--metrics", "fid", "--n", "500"
    )
    assert "mine" in evaluated.stdout, evaluated.stderr
    verified = command("verify-model", "mine.onnx", "--run", "runs/mine", "--network", "my_gan:Generator")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "--network my_gan:Generator" in command("verify-model", "mine.onnx", "--run", "runs/mine").stderr


def test_the_page_lists_the_allowed_operators():
    first_paragraph = PAGE.partition("## Operators\n\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", first_paragraph)) == OPERATORS


@pytest.mark.slow
def test_code_is_imported_only_if_the_command_line_names_it(folder):
    import_example()
    widths = {"generator_widths": None, "discriminator_widths": None}
    train(small_config(folder / "run", epochs=1, conditional=True, **widths, **NETWORKS))
    (folder / "my_gan.py").write_text("open('executed', 'w')")

    resumed = command("train", "--resume", "run", "--epochs", 2)
    assert resumed.returncode == 2
    assert f"add {' '.join(OPTIONS).replace('=', ' ')}" in resumed.stderr
    other = command("train", "--resume", "run", "--generator", "other:G")
    assert "--generator other:G cannot replace my_gan:Generator, with which run was trained" in other.stderr
    exported = command("export-onnx", "run", "--out", "a.onnx", "--no-register")
    assert "code is imported only if the command line names it: give --network my_gan:Generator" in exported.stderr
    assert exported.returncode == 1
    assert not (folder / "a.onnx").exists()
    assert not (folder / "executed").exists()


@pytest.mark.slow
def test_a_resumed_run_with_dropout_equals_an_uninterrupted_one(folder):
    change(folder / "my_gan.py", "nn.LeakyReLU(0.2), nn.Flatten()", "nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Flatten()")
    change(folder / "my_gan.py", "self.logit =", "self.unused = nn.Linear(3, 3)\n        self.logit =")
    import_example()
    options = {"generator_widths": None, "discriminator_widths": None, "images": 1_200, "batch_size": 100, **NETWORKS}
    train(small_config(folder / "whole", **options))
    train(small_config(folder / "parts", **options | {"images": 500}))
    torch.manual_seed(123)
    train(small_config(folder / "parts", **options), resume=True)
    whole, parts = (load_checkpoint(folder / name).tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_a_model_file_is_verified_against_its_run_if_the_command_line_names_the_network(folder, monkeypatch):
    import_example()
    options = {"generator_widths": None, "discriminator_widths": None, "images": 100, **NETWORKS}
    train(small_config(folder / "run", **options))
    generator = export(load_checkpoint(folder / "run"), name="mine").generator
    monkeypatch.setattr("models.networks.own._imported", {})
    with pytest.raises(MnistGanError, match="give --network my_gan:Generator"):
        compare_with_run(generator, folder / "run", None)
    results = compare_with_run(generator, folder / "run", "my_gan:Generator")
    assert {result.result for result in results} == {"passed"}


def test_a_changed_source_file_is_reported_and_its_weights_can_be_taken_over(folder):
    import_example()
    options = {"generator_widths": None, "discriminator_widths": None, "images": 100, **NETWORKS}
    train(small_config(folder / "run", **options))
    change(folder / "my_gan.py", "nn.SiLU()", "nn.GELU()")
    del sys.modules["my_gan"]
    import_example()
    with pytest.raises(MnistGanError, match=r"my_gan:Generator: its source file has changed .*--init RUN"):
        train(small_config(folder / "run", **options | {"images": 200}), resume=True)
    text = dry_run(small_config(folder / "next", init=folder / "run", **options))
    assert re.search(r"--init .*/run: copied \d+ tensors of the generator: network.embedding.weight", text)
    assert json.loads(text[: text.index("\n}") + 2])["generator"] == "my_gan:Generator"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nn.Tanh()", "nn.Sigmoid()", "it never uses the lower half of -1 to 1; end it with a tanh, or return 2 "),
        ("nn.Tanh()", "nn.Mish(), nn.Tanh()", "ai.onnx.Mish is not an allowed operator; docs/own-network.md lists"),
        ("4 * channels, 3, padding=1", "4 * 5, 3, padding=1", r"returns images of the shape \(n, 5, 28, 28\), but"),
        ("latent_dim: int", "size: int", r"my_gan:Generator\(latent_dim=16, .*\) raised TypeError: .*'latent_dim'"),
        ("return self.output(", "return torch.rand_like(latent[0, 0]) * self.output(", "draws random numbers"),
        ("nn.Flatten()", "nn.BatchNorm2d(64), nn.Flatten()", "--penalty r1 needs a discriminator that treats each"),
        ("self.logit(features) + match", "features", r"returns the shape \(n, 3136\), but a discriminator"),
        ("return self.logit(features) + match", "return self.logit(image)", "my_gan:Discriminator raised RuntimeError"),
        ("self.logit = nn.Linear(size, 1)", "self.logit = nn.Sequential(nn.Linear(size, 1), nn.Sigmoid())",
         "my_gan:Discriminator ends in a Sigmoid, so it returns probabilities"),
    ],
)  # fmt: skip
def test_a_network_that_breaks_a_rule_is_rejected_before_training(folder, old, new, message):
    change(folder / "my_gan.py", old, new)
    import_example()
    config = small_config(folder / "run", penalty="r1", generator_widths=None, discriminator_widths=None, **NETWORKS)
    with pytest.raises(MnistGanError, match=message):
        dry_run(config)
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit(3)", r"importing script raised SystemExit: 3; if it is a script, move the class to a file"),
        ("import nothing_like_this", "importing script failed: ModuleNotFoundError: .*nothing_like_this"),
        ("def", "importing script raised SyntaxError"),
        ("", "script.py has no class G; it has no class of a PyTorch module"),
    ],
)
def test_a_module_that_cannot_be_imported_is_reported(folder, monkeypatch, text, message):
    monkeypatch.delitem(sys.modules, "script", raising=False)
    (folder / "script.py").write_text(text)
    with pytest.raises(NetworkError, match=message):
        import_network("script:G")
