"""`bentoml build` packs everything that the service needs, and nothing else."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tools.service_process import ROOT, serving

BENTOML = Path(sys.executable).parent / "bentoml"


def build(home: Path) -> Path:
    """Builds a Bento from the model store in BENTOML_HOME. Returns the folder of the Bento."""
    environment = os.environ | {"BENTOML_HOME": str(home)}
    environment.pop("MNIST_GAN_MODEL", None)
    built = subprocess.run([BENTOML, "build"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (bento,) = (path for path in home.glob("bentos/mnist-gan/*") if path.is_dir())
    return bento


def test_a_bento_from_an_empty_store_serves_the_shipped_generator_and_knows_its_version(tmp_path):
    bento = build(tmp_path / "home")
    with serving(tmp_path, bento) as (client, _):
        assert client.get("/card").json()["file_sha256"] == Generator.open(SHIPPED).card.file_sha256
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert client.get("/docs.json").json()["info"]["version"] == project["version"]
    packed = {str(file.relative_to(bento / "src")) for file in (bento / "src").rglob("*") if file.is_file()}
    assert "serving/http/playground/index.html" in packed
    assert not [name for name in packed if name.startswith(("training", "tests")) or name.endswith(".safetensors")]


@pytest.mark.slow
def test_a_bento_contains_the_newest_model_of_the_store(files, tmp_path):
    newest = Generator.open(files["unconditional"])
    home = tmp_path / "home"
    script = "from models.onnx_file.generator import Generator; from models.onnx_file.store import register; "
    script += f"register(Generator.open({str(files['unconditional'])!r}))"
    environment = os.environ | {"BENTOML_HOME": str(home)}
    subprocess.run([sys.executable, "-c", script, files["unconditional"]], cwd=ROOT, env=environment, check=True)
    bento = build(home)
    (service,) = yaml.safe_load((bento / "bento.yaml").read_text())["services"]
    assert [model["tag"].partition(":")[0] for model in service["models"]] == ["mnist-gan"]
    with serving(tmp_path, bento, BENTOML_HOME=str(home)) as (client, _):
        assert client.get("/card").json()["file_sha256"] == newest.card.file_sha256


@pytest.mark.parametrize(("image", "package"), [("cpu", "onnxruntime=="), ("cuda", "onnxruntime-gpu==")])
def test_the_image_installs_pinned_packages_with_hashes_and_neither_torch_nor_a_compiler(
    image, package, tmp_path, monkeypatch
):
    monkeypatch.setenv("MNIST_GAN_IMAGE", image)
    bento = build(tmp_path)
    requirements = (bento / "env/python/requirements.txt").read_text()
    names = [line for line in requirements.splitlines() if line[:1].isalnum()]
    assert any(line.startswith(package) for line in names)
    assert all("==" in line for line in names)
    assert requirements.count("--hash=sha256:") >= len(names)
    assert not [line for line in names if line.startswith(("torch", "triton"))]
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    assert "apt-get" not in dockerfile
    assert "USER bentoml" in dockerfile
