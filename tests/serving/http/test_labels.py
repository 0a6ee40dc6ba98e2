"""Labels over HTTP and on the command line: the rule of docs/labels.md for class names of several characters."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.common.image_files import grid, png
from models.onnx_file.generator import Generator
from tests.serving.http.messages import error_code, error_field, error_of, npy_array, npy_body, npz_arrays
from tests.serving.http.renamed_classes import write_with_class_names
from tools.service_process import serving

NAMES = ("cat", "dog", "cat, dog", "d", "o", "g", "x y", "café", "7up", "bird")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("named") / "animals.onnx"
    write_with_class_names(path, NAMES)
    return path


@pytest.fixture(scope="module")
def generator(file) -> Generator:
    return Generator.open(file)


@pytest.fixture(scope="module")
def client(file, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("service"), MNIST_GAN_MODEL=str(file)) as (client, _):
        yield client


LABELS = [
    ("dog", [1]),
    ("cat, dog", [2]),
    (" cat,dog ", [0, 1]),
    ("bird , café", [9, 7]),
    ("god", [5, 4, 3]),
    ("3, 0", [3, 0]),
    (["x y", 8, "1"], [6, 8, 1]),
]


@pytest.mark.parametrize(("labels", "indices"), LABELS)
def test_every_route_and_the_sample_command_read_labels_by_the_same_rule(
    client, generator, file, tmp_path, labels, indices
):
    expected = [indices[i % len(indices)] for i in range(4)]
    images, _ = generator.images(3, 0, 4, expected)
    body = {"seed": 3, "n": 4, "labels": labels}
    assert client.post("/generate", json=body | {"scale": 1, "columns": 4}).content == png(grid(images, 4, 1))
    assert npz_arrays(client.post("/dataset", json=body))["labels"].tolist() == expected

    latents, _ = generator.draw(3, 0, 4)
    decoded = client.post("/decode", json={"latents": latents.tolist(), "labels": labels, "scale": 1, "columns": 4})
    assert decoded.content == png(grid(images, 4, 1))

    ends = {"from": {"seed": 3, "index": 2, "labels": labels}, "to": {"seed": 3, "index": 1, "label": expected[1]}}
    row = client.post("/interpolate", json=ends | {"frames": 2, "scale": 1})
    assert row.content == png(grid(images[[2, 1]], 2, 1))

    if isinstance(labels, str):
        response = client.post("/decode", content=npy_body(latents), params={"labels": labels})
        np.testing.assert_array_equal(npy_array(response), images)
    if labels == "cat, dog":
        command = [Path(sys.executable).parent / "sample", file, "--seed", "3", "--n", "4", "--out", "a.npz"]
        subprocess.run([*command, "--labels", labels], cwd=tmp_path, check=True, timeout=120)
        with np.load(tmp_path / "a.npz") as arrays:
            assert arrays["labels"].tolist() == expected


def test_the_error_for_an_unknown_label_lists_the_classes_and_an_example(client):
    response = client.post("/generate", json={"labels": "cow"})
    assert error_code(response) == (400, "invalid_input")
    error = error_of(response)
    assert error["field"] == "labels"
    classes = f"the classes are {', '.join(NAMES)} (or their indices, 0 to 9)"
    assert error["message"] == f"'cow' is not a class; {classes}; for example \"cat,dog\""


@pytest.mark.parametrize("label", ["god", "cat,dog", "10", 10])
def test_the_field_label_takes_exactly_one_class(client, label):
    body = {"from": {"seed": 1, "label": label}, "to": {"seed": 2}}
    assert error_field(client.post("/interpolate", json=body)) == (400, "from.label")


def test_an_image_reference_has_either_label_or_labels(client):
    body = {"from": {"seed": 1}, "to": {"seed": 2, "label": "d", "labels": "god"}}
    error = error_of(client.post("/interpolate", json=body))
    assert (error["field"], error["message"]) == ("to.label", "give either label or labels, not both")
    response = client.post("/interpolate", json=body | {"to": {"seed": 2, "labels": "cow"}})
    assert error_field(response) == (400, "to.labels")


def test_a_text_consists_of_class_names_and_not_of_indices(client):
    assert client.post("/write", json={"text": "god", "seed": 1}).status_code == 200
    error = error_of(client.post("/write", json={"text": "go1"}))
    assert (error["field"], error["message"]) == (
        "text",
        "'1' is not a class; the classes of one character are: d, o, g",
    )
