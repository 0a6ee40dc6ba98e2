import json
import subprocess
import sys

import pytest

from models.common.checksum import verify_checksum, write_checksum
from models.common.errors import InputError, ModelFileError
from models.onnx_file.card import Card, CardError
from models.onnx_file.generator import Generator


@pytest.fixture(scope="module")
def card(files) -> Card:
    return Generator.open(files["conditional"]).card


def test_a_card_is_unchanged_after_json(card):
    assert Card.from_json(card.to_json()) == card


def test_the_card_names_the_origin_of_the_model(card):
    assert card.name == "mlp-uci-digits"
    assert card.class_names == tuple("0123456789")
    assert sum(card.class_weights) == 1797
    assert card.training.config["loss"] == "non-saturating"
    assert card.training.images_seen == 2 * 28 * 64
    assert len(card.origin.checkpoint_sha256) == len(card.config_sha256) == len(card.dataset.sha256) == 64


def test_the_card_contains_no_path(card, runs):
    text = card.to_json()
    assert "out" not in card.training.config
    assert "data_dir" not in card.training.config
    assert str(runs["conditional"].parent) not in text


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"card_version": 1}', "null"])
def test_an_invalid_card_is_rejected(text):
    with pytest.raises(CardError):
        Card.from_json(text)


def test_a_card_of_another_version_is_rejected_with_its_version(card):
    fields = json.loads(card.to_json()) | {"card_version": 99}
    with pytest.raises(CardError, match="version 99"):
        Card.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("labels", "indices"),
    [("0123", [0, 1, 2, 3]), ("7,3", [7, 3]), (["4", 4], [4, 4]), ([0], [0]), ("9", [9])],
)
def test_labels_are_names_or_indices(card, labels, indices):
    assert card.class_indices(labels) == indices


@pytest.mark.parametrize("labels", ["", [], "x", [10], [-1], ["10"], "1,,2", [1.0], [None]])
def test_labels_that_are_not_classes_are_rejected(card, labels):
    with pytest.raises(InputError) as caught:
        card.class_indices(labels)
    assert caught.value.field == "labels"


def test_a_checksum_is_valid_for_one_file_only():
    file = b'before "file_sha256": "' + b"0" * 64 + b'" after'
    whole = write_checksum(file)
    assert len(whole) == len(file)
    assert verify_checksum(whole) in whole.decode()
    for damaged in (whole.replace(b"before", b"Before"), whole + b" ", whole[1:], file, whole[:40], whole * 2):
        with pytest.raises(ModelFileError):
            verify_checksum(damaged)


def test_the_command_prints_the_card_without_golden_images_and_rejects_other_files(files, tmp_path):
    command = [sys.executable, "-m", "models.onnx_file"]
    shown = subprocess.run([*command, files["conditional"]], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["name"] == "mlp-uci-digits"
    assert json.loads(shown.stdout)["golden"]["pixels"].endswith(" characters")
    assert shown.stderr.startswith("golden images: ")
    failed = subprocess.run([*command, tmp_path / "a.onnx"], capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"models.onnx_file: {tmp_path}/a.onnx: No such file or directory\n"
