"""Schemathesis checks the service against its OpenAPI document with valid and invalid requests."""

import re
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


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_every_route_conforms_to_the_openapi_document(tmp_path, examples):
    with serving(tmp_path, MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
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
        ]
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout
        assert client.get("/readyz").status_code == 200
    assert re.search(r"Tested: 30\b", done.stdout), done.stdout
    print(*re.findall(r"[\d,]+ generated.*", done.stdout))
