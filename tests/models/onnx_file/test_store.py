"""Errors of a BentoML store that cannot be written."""

import errno
import shutil

import pytest

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
