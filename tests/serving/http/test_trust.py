"""A service that checks the signature or the hash of its model file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.common.files import signature_path
from models.onnx_file.generator import Generator
from models.onnx_file.signature import load_private_key, sign
from models.onnx_file.store import SHIPPED
from tests.models.keys import write_keys
from tests.serving.http.messages import error_code
from tests.serving.http.test_bento import build
from tools.service_process import ROOT, serving


@pytest.fixture
def signed(files, tmp_path) -> tuple[Path, Path]:
    """A signed model file and the public key."""
    file = Path(shutil.copy(files["conditional"], tmp_path / "a.onnx"))
    private, public = write_keys(tmp_path)
    signature_path(file).write_bytes(sign(file.read_bytes(), file.name, load_private_key(private)))
    return file, public


def reason_not_ready(tmp_path: Path, file: Path, **settings: str) -> str:
    """Starts a service, checks that it is alive but not ready, and returns its log."""
    with serving(tmp_path, MNIST_GAN_MODEL=str(file), **settings) as (client, _):
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), client.post("/generate"), client.get("/card")):
            assert error_code(response) == (503, "not_ready")
    log = (tmp_path / "service.log").read_text()
    assert "Traceback" not in log
    return log


def test_a_file_with_a_valid_signature_and_the_pinned_hash_is_served(signed, tmp_path):
    file, public = signed
    sha256 = Generator.open(file).card.file_sha256
    settings = {"MNIST_GAN_PUBLIC_KEY": str(public), "MNIST_GAN_MODEL_SHA256": f"{'0' * 64},{sha256}"}
    with serving(tmp_path, MNIST_GAN_MODEL=str(file), **settings) as (client, _):
        assert client.get("/readyz").status_code == 200
        assert client.post("/generate", json={"n": 1}).headers["X-Model"] == sha256


def unsigned(file: Path) -> None:
    signature_path(file).unlink()


def changed(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def truncated(file: Path) -> None:
    signature_path(file).write_bytes(signature_path(file).read_bytes()[:300])


def signed_by_another_key(file: Path) -> None:
    private, _ = write_keys(file.parent, name="other")
    signature_path(file).write_bytes(sign(file.read_bytes(), file.name, load_private_key(private)))


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (unsigned, "not ready: {file}: signature: the file is not signed, there is no {file}.sig"),
        pytest.param(changed, "{file}.sig: it is of another file", marks=pytest.mark.slow),
        pytest.param(truncated, "{file}.sig: it is truncated", marks=pytest.mark.slow),
        pytest.param(signed_by_another_key, "{file}.sig: it was made with another key", marks=pytest.mark.slow),
    ],
)
def test_a_file_without_a_valid_signature_is_not_served_and_the_log_has_the_reason(signed, tmp_path, tamper, reason):
    file, public = signed
    tamper(file)
    assert reason.format(file=file) in reason_not_ready(tmp_path, file, MNIST_GAN_PUBLIC_KEY=str(public))


@pytest.mark.slow
def test_a_file_with_another_hash_than_the_pinned_one_is_not_served_and_the_log_has_both(signed, tmp_path):
    file, _ = signed
    log = reason_not_ready(tmp_path, file, MNIST_GAN_MODEL_SHA256="0" * 64)
    assert f"its file_sha256 is {Generator.open(file).card.file_sha256}, and only {'0' * 64} is allowed" in log


def test_a_service_without_the_setting_does_not_import_cryptography(tmp_path):
    code = """
import sys
from serving.http.service import MnistGan
assert MnistGan.inner().__is_ready__()
assert "cryptography" not in sys.modules
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MNIST_GAN_")}
    environment |= {"BENTOML_HOME": str(tmp_path), "MNIST_GAN_MODEL": str(SHIPPED)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


@pytest.mark.slow
def test_the_store_and_the_bento_carry_the_signature_of_an_exported_file(tmp_path):
    private, public = write_keys(tmp_path)
    home = tmp_path / "home"
    environment = os.environ | {"BENTOML_HOME": str(home)}
    command = [Path(sys.executable).parent / "export-onnx", SHIPPED.with_name("mnist-fast.safetensors")]
    options = ["--out", tmp_path / "a.onnx", "--sign-key", private]
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    exported = Generator.open(tmp_path / "a.onnx", public_key=public).card
    bento = build(home)
    with serving(tmp_path, bento, BENTOML_HOME=str(home), MNIST_GAN_PUBLIC_KEY=str(public)) as (client, _):
        assert client.get("/readyz").status_code == 200, (tmp_path / "service.log").read_text()
        assert client.get("/card").json()["file_sha256"] == exported.file_sha256
    _, other = write_keys(tmp_path, name="other")
    with serving(tmp_path, bento, BENTOML_HOME=str(home), MNIST_GAN_PUBLIC_KEY=str(other)) as (client, _):
        assert client.get("/readyz").status_code == 503
    assert "it was made with another key" in (tmp_path / "service.log").read_text()
