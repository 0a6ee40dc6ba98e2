"""A copy of the shipped generator with other class names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from models.common.checksum import EMPTY_CHECKSUM, write_checksum
from models.onnx_file.card import METADATA_KEY
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED


def write_with_class_names(path: Path, names: Sequence[str]) -> None:
    """Writes a model file that differs from the shipped one only in its ten class names."""
    model = onnx.load(SHIPPED)
    card = Generator.open(SHIPPED).card
    card = replace(card, dataset=replace(card.dataset, class_names=tuple(names)), file_sha256=EMPTY_CHECKSUM)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = card.to_json()
    path.write_bytes(write_checksum(model.SerializeToString(deterministic=True)))
