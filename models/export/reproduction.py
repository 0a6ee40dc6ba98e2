"""Exports a checkpoint again and compares the result with a model file, for the command `verify-model`."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

from models.checkpoint import Checkpoint
from models.common.errors import MnistGanError, ModelFileError
from models.export.exporter import Export, export, export_variant, with_fields
from models.onnx_file import graph_checks
from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.golden import compare_golden, unpack_golden
from models.onnx_file.verification import CheckResult

TAKEN_OVER = ("quality", "quality_check", "build")
"""Fields of the card that are copied from the file before the comparison: the first two may need real images, and the
last names the commit that exported the file."""
MEASURED = (*TAKEN_OVER, "parity", "versions", "converted_from", "file_sha256")
"""Fields of the card that depend on the machine and on the libraries that exported the file, or on real images. So do
the pixels of the golden images, which are compared within their bounds."""


def compare_with_checkpoint(generator: Generator, checkpoint: Checkpoint) -> list[CheckResult]:
    """Exports a checkpoint again, with the name, opset, truncation and precision of a model file, and compares the two.

    Returns:
        one result if the files are equal byte for byte, as they are on one kind of processor with the same versions of
        the libraries, or if the export fails. Otherwise one each for graph, weights, card and golden images.
    """
    try:
        exported = _export_like(generator, checkpoint)
    except MnistGanError as error:
        return [CheckResult("export again", "failed", str(error))]
    if exported.generator.file == generator.file:
        return [CheckResult("export again", "passed", "the same file, byte for byte")]
    return [*_compare_parts(generator, exported.generator)]


def _export_like(generator: Generator, checkpoint: Checkpoint) -> Export:
    card = generator.card
    opset = graph_checks.parse(generator.file).opset_import[0].version
    exported = export(checkpoint, opset, card.name, card.truncation)
    if card.precision != "fp32":
        exported = export_variant(checkpoint, exported, card.precision)
    return with_fields(exported, **{name: getattr(card, name) for name in TAKEN_OVER})


def _compare_parts(file: Generator, again: Generator) -> Iterator[CheckResult]:
    models = [graph_checks.parse(generator.file) for generator in (file, again)]
    same_graph = _without_weights(models[0]) == _without_weights(models[1])
    yield _result("graph", None if same_graph else "operators, inputs or outputs differ")
    yield _result("weights", _difference_of_weights(*models))
    fields = [name for name, a, b in _fields(file.card, again.card) if a != b]
    yield _result("card", f"these fields differ: {', '.join(fields)}" if fields else None, _versions(file, again))
    golden = again.card.golden
    try:
        images = unpack_golden(golden.pixels, (golden.n, *again.card.image_shape))
        comparison = str(compare_golden(images, file.card.golden.pixels, file.card.precision))
        yield _result("golden images", None, comparison.removeprefix("golden images: "))
    except ModelFileError as error:
        yield _result("golden images", str(error).removeprefix("golden images: "))


def _result(part: str, problem: str | None, detail: str = "") -> CheckResult:
    name = f"export again: {part}"
    return CheckResult(name, "failed", problem) if problem else CheckResult(name, "passed", detail or "equal")


def _without_weights(model: ModelProto) -> bytes:
    """Returns the graph without weights, card, inferred shapes and the name of the program that wrote it."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    del copy.graph.value_info[:]
    del copy.metadata_props[:]
    copy.producer_name = copy.producer_version = ""
    return copy.SerializeToString(deterministic=True)


def _difference_of_weights(a: ModelProto, b: ModelProto) -> str | None:
    """Describes how the weights of two graphs differ; None if all are equal."""
    weights = [{tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} for model in (a, b)]
    if weights[0].keys() != weights[1].keys():
        return f"{len(weights[0].keys() ^ weights[1].keys())} of them exist in one of the files only"
    pairs = [(name, weights[0][name], weights[1][name]) for name in weights[0]]
    differing = [name for name, x, y in pairs if x.dtype != y.dtype or not np.array_equal(x, y)]
    return f"{len(differing)} of {len(pairs)} tensors differ, the first is {differing[0]}" if differing else None


def _fields(a: Card, b: Card) -> Iterator[tuple[str, Any, Any]]:
    """Yields the names and values of the fields of two cards that do not depend on the machine, nested ones as
    `origin.network`."""
    first, second = (asdict(replace(card, golden=replace(card.golden, pixels=""))) for card in (a, b))
    for name in (name for name in first if name not in MEASURED):
        if isinstance(first[name], dict):
            yield from ((f"{name}.{key}", value, second[name][key]) for key, value in first[name].items())
        else:
            yield name, first[name], second[name]


def _versions(file: Generator, again: Generator) -> str:
    """Describes versions of libraries that differ; empty if none do."""
    here = again.card.versions
    return ", ".join(
        f"exported with {name} {version}, here {here.get(name)}"
        for name, version in file.card.versions.items()
        if version != here.get(name)
    )
