"""Generators that were trained outside of this package become model files that every program takes."""

import re
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from models.export import foreign
from models.onnx_file.generator import Generator
from serving.offline import sample
from tests.own import tutorial_networks
from tools.service_process import serving
from training import export_onnx
from training.evaluation import evaluate

MODULE = "tests.own.tutorial_networks"


@pytest.fixture
def command(monkeypatch, capsys):
    """Returns a function that runs a command and returns its output, or its error message if it fails."""

    def run(main, *arguments: object, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) if fails else nullcontext():
            main()
        captured = capsys.readouterr()
        return captured.err if fails else captured.out

    return run


def options(weights, name: str, latent: str, *more: str) -> list[str]:
    """Returns the options of export-onnx for a generator of `tutorial_networks` that makes images of 28 x 28 pixels."""
    shapes = ["--latent-shape", latent, "--image-shape", "1x28x28"]
    return ["--weights", str(weights), "--network", f"{MODULE}:{name}", *shapes, "--no-register", *more]


KINDS = {
    "Dcgan": ({"nz": 16, "ngf": 8}, (16, 1, 1), ["--network-args", "nz=16,ngf=8"]),
    "Mlp": ({"latent_dim": 32}, (32,), ["--network-args", "latent_dim=32,sizes=(64, 128)"]),
    "Flat": ({}, (32,), []),
    "Sigmoid": ({}, (32,), ["--range", "0:1"]),
    "Conditional": ({}, (32,), ["--classes", "10", "--dataset", "uci-digits"]),
    "Modern": ({}, (32,), []),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name != "Dcgan" else ()) for name in KINDS]
)
def test_a_generator_of_a_tutorial_becomes_a_model_file_with_its_images(command, trained, tmp_path, name):
    arguments, latent_shape, more = KINDS[name]
    weights, network = trained(name, latent_shape, **arguments)
    latent = "x".join(map(str, latent_shape))
    command(export_onnx.main, *options(weights, name, latent, *more), "--out", tmp_path / "a.onnx")

    generator = Generator.open(tmp_path / "a.onnx")
    card = generator.card
    latents, labels = generator.draw(seed=5, first=0, n=20)
    with torch.inference_mode():
        inputs = [torch.from_numpy(latents).unflatten(1, latent_shape)]
        inputs += [] if labels is None else [torch.from_numpy(labels)]
        pixels = network(*inputs).reshape(20, 1, 28, 28)
    expected = pixels * 255 if name == "Sigmoid" else (pixels + 1) * 127.5
    difference = np.abs(generator.decode(latents, labels).astype(int) - expected.round().numpy().astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert (card.latent_dim, card.image_shape, card.conditional) == (
        latents.shape[1],
        (1, 28, 28),
        name == "Conditional",
    )
    assert (card.dataset.sha256, card.dataset.class_counts, card.training.config) == (None, None, None)
    assert card.origin.network == f"{MODULE}:{name}"
    assert len(card.origin.source_sha256) == len(card.origin.checkpoint_sha256) == 64
    assert str(tmp_path).encode() not in generator.file


@pytest.mark.slow
def test_a_foreign_generator_is_sampled_evaluated_and_served(command, trained, tmp_path):
    weights, _ = trained("Conditional", (32,), steps=300)
    arguments = options(weights, "Conditional", "32", "--classes", "10", "--dataset", "uci-digits")
    command(export_onnx.main, *arguments, "--out", tmp_path / "a.onnx")
    command(sample.main, tmp_path / "a.onnx", "--n", "40", "--labels", "0123456789", "--out", tmp_path / "a.npz")
    assert np.load(tmp_path / "a.npz")["labels"].tolist() == list(range(10)) * 4
    output = command(evaluate.main, tmp_path / "a.onnx", "--fit-classifier", "--metrics", "fid", "label_agreement")
    assert "a.onnx: its training images are unknown" in output
    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "a.onnx")) as (client, _):
        response = client.post("/generate", json={"n": 10, "labels": "0123456789", "seed": 1})
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
        assert client.get("/card").json()["dataset"]["class_counts"] is None
        assert client.get("/playground").status_code == 200


def test_a_model_of_unknown_data_needs_the_name_of_real_images_to_be_evaluated(command, files, tmp_path, monkeypatch):
    card = Generator.open(files["unconditional"]).card
    object.__setattr__(card.dataset, "name", foreign.UNKNOWN_DATASET)
    monkeypatch.setattr("models.onnx_file.graph_checks.read_card", lambda model: card)
    output = command(evaluate.main, files["unconditional"], fails=True)
    assert "--dataset: the first model was trained on 'unknown', which is not a known data set; choose one of" in output


@pytest.mark.parametrize(
    ("name", "more", "measured"),
    [
        ("Flat", [], {"class balance"}),
        ("Conditional", ["--classes", "10", "--allow-low-quality"], {"label agreement", "class balance"}),
        ("Conditional", ["--classes", "5", "--allow-low-quality"], {"label agreement"}),
        ("Conditional", ["--classes", "1"], set()),
    ],
)
def test_the_quality_check_of_mnist_accepts_any_number_of_classes(command, trained, tmp_path, name, more, measured):
    weights, _ = trained(name, (32,))
    given = options(weights, name, "32", "--dataset", "mnist", *more)
    command(export_onnx.main, *given, "--out", tmp_path / "a.onnx")
    measurements = Generator.open(tmp_path / "a.onnx").card.quality_check.measurements
    found = {name for name in ("label agreement", "class balance") if measurements[name].value is not None}
    assert found == measured
    assert measurements["label agreement"].refuse <= 0.75


class Noisy(tutorial_networks.Flat):
    def forward(self, z):
        return super().forward(z + torch.randn_like(z))


class TrainingMode(tutorial_networks.Mlp):
    def __init__(self):
        super().__init__(32)

    def forward(self, z):
        self.model.train()
        return super().forward(z)


class Float64(tutorial_networks.Flat):
    def forward(self, z):
        return super().forward(z).double()


class Pair(tutorial_networks.Flat):
    def forward(self, z):
        return super().forward(z), z


class Single(tutorial_networks.Flat):
    """Works with float32 only."""

    def forward(self, z):
        return super().forward(z.float())


class Einsum(tutorial_networks.Flat):
    def forward(self, z):
        return torch.tanh(torch.einsum("nc,dc->nd", self.hidden(z), self.output.weight))


class Branches(tutorial_networks.Flat):
    def forward(self, z):
        return super().forward(z) if z.abs().sum() > 0 else -super().forward(z)


class Keeps(tutorial_networks.Flat):
    """Keeps its last result, which PyTorch cannot copy."""

    def __init__(self):
        super().__init__()
        self.last = nn.Parameter(torch.ones(1)) * 2


class Scalar(tutorial_networks.Flat):
    def forward(self, z):
        return super().forward(z).mean()


class First(tutorial_networks.Flat):
    def forward(self, z):
        return super().forward(z)[:1]


class Exits(tutorial_networks.Flat):
    def forward(self, z):
        sys.exit("bye")


class ExitsInConstructor(nn.Module):
    def __init__(self):
        sys.exit("bye")


class Fails(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        raise ValueError(f"size {size} is odd")


HERE = __name__


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (f"{HERE}:Noisy", "Noisy draws random numbers: two calls with the same input return other values; take all"),
        (f"{HERE}:Float64", "Float64 returns torch.float64, but float32 is needed"),
        (f"{HERE}:Pair", "Pair returns a tuple, but it has to return one tensor"),
        (f"{HERE}:Single", "Single does not run in float64, with which the file is compared: RuntimeError"),
        (f"{HERE}:Einsum", "ai.onnx.Einsum is not an allowed operator; docs/own-network.md lists those that are"),
        (f"{HERE}:Branches", "PyTorch cannot export .*:Branches to ONNX: "),
        (
            f"{MODULE}:Flat --image-shape 1x16x16",
            r"returns images of the shape \(n, 784\), but \(n, 1, 16, 16\) is needed",
        ),
        (f"{MODULE}:Flat --latent-shape 31", r"raised RuntimeError: .*, when it was called with float32 \(n, 31\)"),
        (f"{MODULE}:Flat --range 0:1", "are outside of 0 to 1; give the values of black and white with --range"),
        (
            f"{MODULE}:Sigmoid",
            "so it never uses the lower half of -1 to 1; give .* for example --range 0:1 after a sigmoid",
        ),
        (f"{MODULE}:Flat --classes 10", r"raised TypeError: .* \(n, 32\) and labels int64 \(n,\)"),
        (
            f"{MODULE}:Mlp --network-args latent_dim=32",
            "do not fit .*missing: model.0.weight, model.0.bias, model.1.weight",
        ),
        (
            f"{MODULE}:Mlp --network-args latent_dim=32",
            "unexpected: hidden.weight, hidden.bias, output.weight, output.bias",
        ),
        (f"{MODULE}:Mlp --network-args latent_dim=32", "model.1.running_mean and 9 more"),
        (f"{MODULE}:Mlp", r"Mlp\(\) raised TypeError: .* missing 1 required positional argument: 'latent_dim'"),
        (f"{MODULE}:Dense", "has no class Dense; its modules are Dcgan, Mlp, Flat, Sigmoid, Conditional"),
        (f"{MODULE}:functional", "has a functional that is not a torch.nn.Module"),
        (f"{HERE}:Fails --network-args size=3", r"Fails\(size=3\) raised ValueError: size 3 is odd"),
        (f"{HERE}:Keeps", "Keeps cannot be copied: RuntimeError: .*; keep neither results of forward nor"),
        (f"{HERE}:Scalar", r"returns images of the shape \(\) for n = 32, but \(n, 1, 28, 28\) is needed"),
        (f"{HERE}:First", r"returns images of the shape \(1, 1, 28, 28\) for n = 32, but \(n, 1, 28, 28\) is needed"),
        (f"{HERE}:Exits", "Exits raised SystemExit: bye, when it was called with float32"),
        (f"{HERE}:ExitsInConstructor", r"ExitsInConstructor\(\) raised SystemExit: bye"),
        ("builtins:int", "builtins has a int that is not a torch.nn.Module"),
        ("my_gan.py:G", "give the module as in an import statement, without folder and .py"),
        ("./my_gan:G", "give the module as in an import statement, without folder and .py"),
        ("nowhere.generator:G", "there is no module nowhere; run the command in the folder that contains nowhere.py"),
        ("generator", "network 'generator': give it as module:Class"),
        *(
            (f"{MODULE}:Flat --network-args {text}", "--network-args: must be name=value,name=value with a Python lit")
            for text in ("5", "a=1,a=2", "a=1)#", "a)(b=1", "a=nn.ReLU", "a=false", "a=" + "(" * 500, "a=" + "-" * 9999)
        ),
        (f"{MODULE}:Flat --latent-shape 10x", "--latent-shape: must be a shape such as 100 or 100x1x1, got '10x'"),
        (f"{MODULE}:Flat --image-shape 28x28", "--image-shape: must be a shape such as 1x28x28"),
        (f"{MODULE}:Flat --range 1", "--range: must be BLACK:WHITE, such as -1:1 or 0:1, got '1'"),
        (
            f"{MODULE}:Flat --classes a,a",
            "--classes: must be a number .* or different names such as cat,dog, .* got 'a,a'",
        ),
        *(
            (f"{MODULE}:Flat --classes={text}", "--classes: must be a number from 1 to 65,536 or different names")
            for text in ("0", "100000", "-1", "10.5", "cat", "a,\a", f"a,{'b' * 101}")
        ),
        (f"{MODULE}:Flat --dataset=", "--dataset: must have 1 to 100 printable characters, got ''"),
        (f"{MODULE}:Flat --dataset a\nb", r"--dataset: must have 1 to 100 printable characters, got 'a\\nb'"),
        (
            f"{MODULE}:Flat --dataset Fashion_MNIST",
            "--dataset: got 'Fashion_MNIST', but the data set is called fashion-",
        ),
    ],
)
def test_a_network_that_cannot_be_exported_is_rejected_with_the_cause_and_nothing_is_written(
    command, trained, tmp_path, network, message
):
    weights, _ = trained("Flat", (32,), steps=1)
    name, *more = network.split(" ")
    _module, _, class_name = name.partition(":")
    given = options(weights, class_name, "32")
    given[3] = name
    output = command(export_onnx.main, *given, *more, "--out", tmp_path / "a.onnx", fails=True)
    assert output.startswith("export-onnx: ")
    assert output.count("\n") == 1
    assert re.search(message, output), output
    assert list(tmp_path.iterdir()) == []


def test_a_network_whose_images_depend_on_their_batch_is_rejected(command, tmp_path):
    torch.save(TrainingMode().state_dict(), tmp_path / "a.pth")
    given = options(tmp_path / "a.pth", "TrainingMode", "32")
    given[3] = f"{HERE}:TrainingMode"
    output = command(export_onnx.main, *given, "--out", tmp_path / "a.onnx", fails=True)
    assert "even in evaluation mode" in output or "fails with one row" in output
    assert not (tmp_path / "a.onnx").exists()


class Harmful:
    def __reduce__(self):
        return (sys.exit, ("code of the file ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "generator": {}}, "is not a state dict, which has only tensors by name; it contains epoch, gen"),
        ({0: torch.zeros(1)}, "is not a state dict, which has only tensors by name; it contains 0"),
        (nn.Linear(1, 1), "contains Python objects, which could run code"),
        (Harmful(), "contains Python objects, which could run code"),
        (b"noise", "--weights: .*a.pth: (contains Python objects|cannot be read)"),
        (b"hello world", "a.pth: cannot be read as a file of torch.save .*; it is damaged or has another format"),
        (b"", r"a.pth: cannot be read as a file of torch.save \(it is empty\)"),
        *(
            ({"output.weight": weight}, "not a dense tensor of floating-point numbers: output.weight is torch")
            for weight in (
                torch.zeros(784, 64).to_sparse(),
                torch.zeros(784, 64, device="meta"),
                torch.zeros(784, 64, dtype=torch.int64),
                torch.zeros(784, 64, dtype=torch.complex64),
            )
        ),
        (None, "--weights: .*a.pth: No such file or directory"),
    ],
)
def test_weights_that_are_not_a_state_dict_are_rejected(command, tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "a.pth").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "a.pth")
    given = options(tmp_path / "a.pth", "Flat", "32")
    output = command(export_onnx.main, *given, "--out", tmp_path / "a.onnx", fails=True)
    assert re.search(message, output), output
    assert output.count("\n") == 1
    assert not (tmp_path / "a.onnx").exists()


def test_the_weights_of_a_whole_gan_are_rejected_with_the_prefix_of_its_generator(command, tmp_path):
    weights = {f"generator.{name}": tensor for name, tensor in tutorial_networks.Flat().state_dict().items()}
    torch.save(weights | {"discriminator.weight": torch.zeros(1)}, tmp_path / "a.pth")
    output = command(
        export_onnx.main, *options(tmp_path / "a.pth", "Flat", "32"), "--out", tmp_path / "a.onnx", fails=True
    )
    assert "The names begin with 'generator.': save the generator alone, {name.removeprefix('generator.'): x" in output


def test_weights_are_read_from_safetensors_and_without_the_prefix_of_a_wrapper(tmp_path):
    network = tutorial_networks.Flat()
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    described = foreign.ForeignGenerator(tmp_path / "a.safetensors", f"{MODULE}:Flat", {}, (32,), (1, 28, 28))
    generator = foreign.load_foreign(described).build()
    latent = torch.randn(3, 32)
    assert torch.equal(generator(latent).flatten(1), network(latent))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--run: give the folder of a run, or --weights and --network"),
        (["runs/a", "--range", "0:1"], "--range: is only for --weights; a run stores it"),
        (["runs/a", "--weights", "a.pth"], "--weights: replaces the run, but both are given"),
        (["--weights", "a.pth", "--network", "m:C", "--latent-shape", "3"], "--image-shape: is needed with --weights"),
    ],
)
def test_options_that_do_not_name_one_generator_are_rejected(command, tmp_path, arguments, message):
    assert message in command(export_onnx.main, *arguments, "--out", tmp_path / "a.onnx", fails=True)


def test_arguments_of_a_constructor_are_python_literals():
    text = "nz=100,sizes=(64, 32),activation=relu,slope=-0.2,name='a,b',bias=False"
    expected = {"nz": 100, "sizes": (64, 32), "activation": "relu", "slope": -0.2, "name": "a,b", "bias": False}
    assert foreign.parse_arguments(text) == expected
    assert foreign.parse_arguments("") == {}
