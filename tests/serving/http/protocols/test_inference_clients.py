"""The Open Inference Protocol with the clients of Triton and KServe, each in an environment of its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.http.protocols.documented import commands, run
from tests.serving.http.protocols.environments import make_environment, run_client
from tools.service_process import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("service"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> Path:
    """A file of latents and labels, their images, and those of a seed."""
    generator, path = Generator.open(SHIPPED), tmp_path_factory.mktemp("expected") / "expected.npz"
    latents, labels = generator.draw(seed=1, first=0, n=5)
    seeded, _ = generator.images(seed=7, first=3, n=5)
    np.savez(path, latents=latents, labels=labels, images=generator.decode(latents, labels), seeded=seeded)
    return path


@pytest.fixture(scope="module")
def triton(tmp_path_factory) -> Path:
    return make_environment(tmp_path_factory.mktemp("triton"), "tritonclient[http]==2.73.0")


def test_the_client_of_triton_calls_every_route(triton, url, expected):
    run_client(triton, "triton.py", url.removeprefix("http://"), expected)


def test_the_client_of_kserve_calls_every_route(tmp_path, url, expected):
    python = make_environment(tmp_path, "kserve==0.21.0")
    run_client(python, "kserve_client.py", url, expected)


def test_the_commands_of_the_page_run(triton, url, tmp_path):
    blocks = commands("inference.md")
    assert len(blocks) == 2
    outputs = [run(language, code, url, tmp_path, triton) for language, code in blocks]
    assert '"datatype":"UINT8","shape":[1,1,28,28],"data":[' in outputs[1]
    assert outputs[0].split() == ["(64,", "1,", "28,", "28)", "uint8"]
