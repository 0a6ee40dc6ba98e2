"""Labels and metadata in a BentoML store, and errors of a store that cannot be written."""

import errno
import shutil
from dataclasses import replace

import pytest

from models.onnx_file.card import Training
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED, register

bentoml = pytest.importorskip("bentoml")


def test_an_error_of_a_full_store_names_one_file_and_the_reason(monkeypatch):
    """shutil.copytree reports what it could not copy as a list of tuples."""

    def full(source, target, **_):
        raise shutil.Error([(f"{source}/generator.onnx", f"{target}/generator.onnx", "[Errno 28] No space left: 'x'")])

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        register(Generator.open(SHIPPED))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith("/generator.onnx")
    assert "(" not in str(caught.value)


def test_what_the_card_does_not_say_is_left_out():
    """The card of a generator that was trained elsewhere has null fields, which BentoML rejects."""
    generator = Generator.open(SHIPPED)
    generator.card = replace(generator.card, training=Training(None, None, None, None, {}))
    model = bentoml.models.get(register(generator))
    try:
        assert model.info.labels == {"dataset": "mnist", "classes": "10", "precision": "fp32"}
        assert model.info.metadata["name"] == generator.card.name
        assert "images_seen" not in model.info.metadata
    finally:
        bentoml.models.delete(model.tag)
