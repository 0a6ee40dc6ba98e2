"""Servers of the small models, shared by the tests that need no particular settings."""

from collections.abc import Iterator

import httpx
import pytest

from models.onnx_file.generator import Generator
from tools.service_process import serving


@pytest.fixture(scope="session")
def conditional_client(files, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a server with a class-conditional generator of the classes 0 to 9."""
    with serving(tmp_path_factory.mktemp("conditional"), MNIST_GAN_MODEL=str(files["conditional"])) as (client, _):
        yield client


@pytest.fixture(scope="session")
def unconditional_client(files, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a server with a generator without classes."""
    with serving(tmp_path_factory.mktemp("unconditional"), MNIST_GAN_MODEL=str(files["unconditional"])) as (client, _):
        yield client


@pytest.fixture(scope="session")
def clients(conditional_client, unconditional_client) -> dict[str, httpx.Client]:
    """The clients of both servers, by the kind of the generator."""
    return {"conditional": conditional_client, "unconditional": unconditional_client}


@pytest.fixture(scope="session")
def conditional_generator(files) -> Generator:
    """The generator that `conditional_client` is served from."""
    return Generator.open(files["conditional"])
