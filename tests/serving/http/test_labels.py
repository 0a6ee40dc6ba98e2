"""Labels over HTTP and on the command line: docs/labels.md, with classes whose names have several characters."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.common.checksum import EMPTY_CHECKSUM, write_checksum
from models.common.image_files import grid, png
from models.onnx_file.card import METADATA_KEY
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.http.server import serving

NAMES = ("cat", "dog", "cat, dog", "d", "o", "g", "x y", "café", "7up", "bird")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The shipped generator with other class names."""
    model = onnx.load(SHIPPED)
    card = Generator.open(SHIPPED).card
    card = replace(card, dataset=replace(card.dataset, class_names=NAMES), file_sha256=EMPTY_CHECKSUM)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = card.to_json()
    path = tmp_path_factory.mktemp("named") / "animals.onnx"
    path.write_bytes(write_checksum(model.SerializeToString(deterministic=True)))
    return path


@pytest.fixture(scope="module")
def generator(file) -> Generator:
    return Generator.open(file)


@pytest.fixture(scope="module")
def client(file, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("service"), MNIST_GAN_MODEL=str(file)) as (client, _):
        yield client


READ = [
    ("dog", [1]),
    ("cat, dog", [2]),
    (" cat,dog ", [0, 1]),
    ("bird , café", [9, 7]),
    ("god", [5, 4, 3]),
    ("3, 0", [3, 0]),
    (["x y", 8, "1"], [6, 8, 1]),
]


@pytest.mark.parametrize(("labels", "indices"), READ)
def test_every_route_and_the_command_read_labels_by_one_rule(client, generator, file, tmp_path, labels, indices):
    drawn = [indices[i % len(indices)] for i in range(4)]
    images, _ = generator.images(3, 0, 4, drawn)
    body = {"seed": 3, "n": 4, "labels": labels}
    assert client.post("/generate", json=body | {"scale": 1, "columns": 4}).content == png(grid(images, 4, 1))
    with np.load(io.BytesIO(client.post("/dataset", json=body).content)) as arrays:
        assert arrays["labels"].tolist() == drawn

    latents, _ = generator.draw(3, 0, 4)
    decoded = client.post("/decode", json={"latents": latents.tolist(), "labels": labels, "scale": 1, "columns": 4})
    assert decoded.content == png(grid(images, 4, 1))

    ends = {"from": {"seed": 3, "index": 2, "labels": labels}, "to": {"seed": 3, "index": 1, "label": drawn[1]}}
    row = client.post("/interpolate", json=ends | {"frames": 2, "scale": 1})
    assert row.content == png(grid(images[[2, 1]], 2, 1))

    if isinstance(labels, str):
        npy = io.BytesIO()
        np.save(npy, latents)
        made = client.post("/decode", content=npy.getvalue(), params={"labels": labels})
        np.testing.assert_array_equal(np.load(io.BytesIO(made.content)), images)
    if labels == "cat, dog":
        command = [Path(sys.executable).parent / "sample", file, "--seed", "3", "--n", "4", "--out", "a.npz"]
        subprocess.run([*command, "--labels", labels], cwd=tmp_path, check=True, timeout=120)
        with np.load(tmp_path / "a.npz") as arrays:
            assert arrays["labels"].tolist() == drawn


def test_a_label_that_is_no_class_is_refused_with_the_classes_and_an_example(client):
    error = client.post("/generate", json={"labels": "cow"}).json()["error"]
    assert (error["code"], error["field"]) == ("invalid_input", "labels")
    classes = f"the classes are {', '.join(NAMES)} (or their indices, 0 to 9)"
    assert error["message"] == f"'cow' is not a class; {classes}; for example \"cat,dog\""


@pytest.mark.parametrize("label", ["god", "cat,dog", "10", 10])
def test_one_label_is_one_class(client, label):
    body = {"from": {"seed": 1, "label": label}, "to": {"seed": 2}}
    assert client.post("/interpolate", json=body).json()["error"]["field"] == "from.label"


def test_an_image_has_a_label_or_its_place_among_labels(client):
    body = {"from": {"seed": 1}, "to": {"seed": 2, "label": "d", "labels": "god"}}
    error = client.post("/interpolate", json=body).json()["error"]
    assert (error["field"], error["message"]) == ("to.label", "give either label or labels")
    error = client.post("/interpolate", json=body | {"to": {"seed": 2, "labels": "cow"}}).json()["error"]
    assert error["field"] == "to.labels"


def test_only_class_names_can_be_written_and_no_indices(client):
    assert client.post("/write", json={"text": "god", "seed": 1}).status_code == 200
    error = client.post("/write", json={"text": "go1"}).json()["error"]
    assert (error["field"], error["message"]) == (
        "text",
        "'1' is not a class; the classes of one character are: d, o, g",
    )
