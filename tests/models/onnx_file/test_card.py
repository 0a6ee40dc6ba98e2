import json

import pytest

from models.common.checksum import verify_checksum, write_checksum
from models.common.errors import InputError, ModelFileError
from models.onnx_file.card import Card, CardError
from models.onnx_file.generator import Generator


@pytest.fixture(scope="module")
def card(files) -> Card:
    return Generator.open(files["conditional"]).card


def test_a_card_survives_json(card):
    assert Card.from_json(card.to_json()) == card


def test_the_card_tells_where_the_model_comes_from(card):
    assert card.name == "mlp-uci-digits"
    assert card.class_names == tuple("0123456789")
    assert sum(card.class_weights) == 1797
    assert card.training.config["loss"] == "non-saturating"
    assert card.training.images_seen == 2 * 28 * 64
    assert len(card.origin.checkpoint_sha256) == len(card.config_sha256) == len(card.dataset.sha256) == 64


def test_the_card_holds_no_path(card, runs):
    text = card.to_json()
    assert "out" not in card.training.config
    assert "data_dir" not in card.training.config
    assert str(runs["conditional"].parent) not in text


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"card_version": 1}', "null"])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(CardError):
        Card.from_json(text)


def test_a_card_of_another_version_is_refused_by_its_version(card):
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
def test_what_is_no_class_is_refused(card, labels):
    with pytest.raises(InputError) as caught:
        card.class_indices(labels)
    assert caught.value.field == "labels"


def test_a_seal_fits_one_file_only():
    file = b'before "file_sha256": "' + b"0" * 64 + b'" after'
    sealed = write_checksum(file)
    assert len(sealed) == len(file)
    assert verify_checksum(sealed) in sealed.decode()
    for damaged in (sealed.replace(b"before", b"Before"), sealed + b" ", sealed[1:], file, sealed[:40], sealed * 2):
        with pytest.raises(ModelFileError):
            verify_checksum(damaged)
