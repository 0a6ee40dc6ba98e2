"""A toy MNIST with a classifier that has never learned: what the figures are told with needs no download then."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from training import data
from training.data import Loaded, Request
from training.evaluation import classifier, cost
from training.evaluation.classifier import Classifier
from training.evaluation.evaluate import main


@contextmanager
def toy_mnist(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """The digits of scikit-learn under MNIST's name, every second one for testing, and random weights as the pinned."""

    def digits(request: Request) -> Loaded:
        loaded = data.LOADERS["uci-digits"](request)
        every_second = slice(request.split == "test", None, 2)
        images, labels = (tensor[every_second].contiguous() for tensor in (loaded.images, loaded.labels))
        return replace(loaded, images=images, labels=labels)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = safetensors.torch.save(Classifier(channels=1, classes=10).state_dict())
    (folder / "classifier.safetensors").write_bytes(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.LOADERS, "mnist", digits)
        patch.setattr(classifier, "PINNED", folder / "classifier.safetensors")
        patch.setattr(classifier, "PINNED_SHA256", hashlib.sha256(weights).hexdigest())
        patch.setattr(cost, "ROUND_SECONDS", 0.01)
        yield patch


def run_evaluate(*arguments: object) -> None:
    """The command, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        main()


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with toy_mnist(tmp_path) as patch:
        yield patch


@pytest.fixture
def refusal(capsys) -> Callable[..., str]:
    """The line with which the command refuses."""

    def refuse(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            run_evaluate(*arguments)
        assert exit_.value.code == 1
        message = capsys.readouterr().err
        assert message.startswith("evaluate: ")
        assert message.count("\n") == 1
        return message

    return refuse
