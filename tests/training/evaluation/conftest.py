"""A toy MNIST with a classifier on random features, so that tests of the metrics need no download."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.nn.functional import one_hot

from training import data
from training.data import Loaded, LoadOptions
from training.evaluation import classifier as classifiers
from training.evaluation import cost
from training.evaluation.classifier import Classifier
from training.evaluation.evaluate import main


@cache
def digit_classifier() -> bytes:
    """File of a classifier with random convolutions, whose last layer is fitted by least squares in a second.

    Its accuracy on digits is about 90 %.
    """
    digits = data.load_dataset("uci-digits", Path())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = Classifier(channels=1, classes=10)
    features = torch.from_numpy(classifiers.classify(classifier, digits.images[:600]).features)
    mean, deviation = features.mean(0), features.std(0) + 1e-9
    inputs = torch.cat(((features - mean) / deviation, torch.ones(len(features), 1)), 1)
    targets = one_hot(digits.labels[:600], 10).double() * 10
    fitted = torch.linalg.solve(inputs.T @ inputs + torch.eye(inputs.shape[1]), inputs.T @ targets).T
    weight = fitted[:, :-1] / deviation
    classifier.output.weight.data = weight.float()
    classifier.output.bias.data = (fitted[:, -1] - weight @ mean).float()
    return safetensors.torch.save(classifier.state_dict())


@contextmanager
def toy_mnist(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Replaces MNIST by scikit-learn's digits, half of them for testing, and the pinned classifier by theirs."""

    def digits(request: LoadOptions) -> Loaded:
        loaded = data.LOADERS["uci-digits"](request)
        every_second = slice(request.split == "test", None, 2)
        images, labels = (tensor[every_second].contiguous() for tensor in (loaded.images, loaded.labels))
        return replace(loaded, images=images, labels=labels)

    weights = digit_classifier()
    (folder / "classifier.safetensors").write_bytes(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.LOADERS, "mnist", digits)
        patch.setattr(classifiers, "PINNED", folder / "classifier.safetensors")
        patch.setattr(classifiers, "PINNED_SHA256", hashlib.sha256(weights).hexdigest())
        patch.setattr(cost, "ROUND_SECONDS", 0.01)
        yield patch


def run_evaluate(*arguments: object) -> None:
    """Runs the command `evaluate` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        main()


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Replaces MNIST for the duration of a test."""
    with toy_mnist(tmp_path) as patch:
        yield patch


@pytest.fixture
def error_of_evaluate(capsys) -> Callable[..., str]:
    """Runs the command `evaluate`, which must exit with 1, and returns its one line on stderr."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            run_evaluate(*arguments)
        assert exit_.value.code == 1
        message = capsys.readouterr().err
        assert message.startswith("evaluate: ")
        assert message.count("\n") == 1
        return message

    return run
