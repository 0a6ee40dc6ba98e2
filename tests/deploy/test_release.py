"""The files that `make release` writes."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tools.service_process import ROOT, serving

pytestmark = pytest.mark.slow

BENTOML = Path(sys.executable).parent / "bentoml"


def release(dist: Path) -> dict[str, bytes]:
    if not (ROOT / ".venv/bin/bentoml").exists() or not shutil.which("make") or not shutil.which("npm"):
        pytest.skip("make, npm and the environment of make setup are needed")
    # --assume-old keeps make from creating the environment anew, in which these tests run.
    command = ["make", "--assume-old=.venv/ready-cpu", "--assume-old=.venv/ready-gpu", "release", f"DIST={dist}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.name: file.read_bytes() for file in dist.iterdir() if not file.name.startswith(".")}


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder in which the release is written."""
    return tmp_path_factory.mktemp("dist")


@pytest.fixture(scope="module")
def released(dist) -> dict[str, bytes]:
    """The content of each file of the release."""
    return release(dist)


def test_a_release_has_a_bento_a_site_two_sboms_and_their_hashes_and_is_reproducible(released, tmp_path):
    assert release(tmp_path) == released
    sums = dict(reversed(line.split()) for line in released["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(released[name]).hexdigest() for name in released.keys() - {"SHA256SUMS"}}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    endings = ("bento", "cpu.cdx.json", "cuda.cdx.json", "site.tar.xz")
    assert sorted(name.partition(version)[2][1:] for name in sums) == sorted(endings)


def test_bentoml_imports_the_bento_and_serves_the_pretrained_generator(released, dist, tmp_path):
    (bento,) = (name for name in released if name.endswith(".bento"))
    home = tmp_path / "home"
    environment = os.environ | {"BENTOML_HOME": str(home)}
    subprocess.run([BENTOML, "import", dist / bento], env=environment, check=True, capture_output=True)
    (folder,) = (path for path in home.glob("bentos/mnist-gan/*") if path.is_dir())
    with serving(tmp_path, folder) as (client, _):
        assert client.get("/card").json()["file_sha256"] == Generator.open(SHIPPED).card.file_sha256


def test_the_archive_of_the_site_has_the_page_and_the_pretrained_generator(released):
    (name,) = (name for name in released if name.endswith("-site.tar.xz"))
    with tarfile.open(fileobj=io.BytesIO(released[name])) as archive:
        folder = name.removesuffix(".tar.xz")
        assert archive.extractfile(f"{folder}/generator.onnx").read() == SHIPPED.read_bytes()
        assert 'name="model-file"' in archive.extractfile(f"{folder}/index.html").read().decode()


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_an_sbom_is_valid_and_lists_the_packages_of_its_image_with_licences_and_hashes(image, released):
    (bill,) = (text.decode() for name, text in released.items() if name.endswith(f"-{image}.cdx.json"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = {
        re.sub("[-_.]+", "-", component["name"]).lower(): component for component in json.loads(bill)["components"]
    }
    lines = re.findall(r"^\w[^\\]*", (ROOT / f"serving/http/requirements-{image}.txt").read_text(), re.MULTILINE)
    pins = [pin for pin in map(Requirement, lines) if not pin.marker or pin.marker.evaluate()]
    versions = {name: f"=={component['version']}" for name, component in components.items()}
    assert versions == {pin.name: str(pin.specifier) for pin in pins}
    assert {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}[image] in components
    assert "torch" not in components
    references = [ref for component in components.values() for ref in component["externalReferences"]]
    hashes = [reference.get("hashes") for reference in references]
    assert len(list(filter(None, hashes))) == len(components)
    assert sum("licenses" in component for component in components.values()) > 0.9 * len(components)
    assert str(ROOT) not in bill
