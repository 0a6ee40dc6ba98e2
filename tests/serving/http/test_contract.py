"""Schemathesis checks the service against its OpenAPI document with valid and invalid requests."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.onnx_file.store import SHIPPED
from tools.service_process import serving

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
"""positive_data_acceptance is left out: which labels are valid depends on the model and is not in the schema."""


def check_all_routes(folder: Path, examples: int, routes: int, **environment: str) -> None:
    """Starts a service and runs schemathesis on all its routes, with at most so many examples for each.

    Every request has the token "secret".
    """
    with serving(folder, **environment) as (client, _):
        schemathesis = Path(sys.executable).parent / "schemathesis"
        command = [schemathesis, "run", f"{client.base_url}/docs.json", "--checks", ",".join(CHECKS)]
        options = [
            "--max-examples",
            str(examples),
            "--phases",
            "examples,coverage,fuzzing",
            "--seed",
            "1",
            "--no-color",
            "--header",
            "Authorization: Bearer secret",
        ]
        done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout
        assert client.get("/readyz").status_code == 200
    assert re.search(rf"Tested: {routes}\b", done.stdout), done.stdout
    print(*re.findall(r"[\d,]+ generated.*", done.stdout))


@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=pytest.mark.slow)])
def test_every_route_conforms_to_the_openapi_document(tmp_path, examples):
    check_all_routes(tmp_path, examples, 30, MNIST_GAN_MODEL=str(SHIPPED))


@pytest.mark.slow
def test_every_route_conforms_with_several_models_that_can_be_replaced(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    fast = shutil.copy(SHIPPED.with_name("mnist-fast.onnx"), allowed / "generator.onnx")
    check_all_routes(
        tmp_path,
        10,
        31,
        MNIST_GAN_MODEL=f"digits={SHIPPED},fast={fast}",
        MNIST_GAN_LOAD_FOLDER=str(allowed),
        MNIST_GAN_API_TOKEN="secret",
    )
