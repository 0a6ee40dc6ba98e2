"""From a checkpoint to the bytes of its model file: traced, put through the gate, given its card and sealed."""

import hashlib
import importlib.metadata
import json
import warnings
from dataclasses import dataclass, replace
from typing import Any

import onnx
import onnx_ir
import torch
from onnx import ModelProto
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.common.checksum import EMPTY_CHECKSUM, write_checksum
from models.common.errors import InputError, MnistGanError
from models.export.parity import ParityMetric, ParityReport, measure_parity
from models.export.variants import convert
from models.networks import GENERATORS, Network
from models.networks.pixels import quantize
from models.onnx_file import graph_checks
from models.onnx_file.card import METADATA_KEY, Card, Golden, Origin, Precision
from models.onnx_file.generator import Generator
from models.onnx_file.golden import pack_golden
from models.onnx_file.graph_memory import GraphMemory, measure_memory
from models.onnx_file.latents import LATENTS_VERSION, draw_latents
from models.onnx_file.session import make_feeds, open_session, run

LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime")
"""Whose versions the card tells."""
MAX_NAME = 100
"""Characters of a generator's name at most: it stands in logs, metrics and pages."""
GOLDEN_SEED = 0
GOLDEN_IMAGES = 16


class ExportError(MnistGanError):
    """A file that cannot be had as it was asked for."""


class _Quantized(nn.Module):
    """The generator with its uint8 image, and the float pixels that it was quantised from."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = self.generator(latent, label)
        return quantize(pixels), pixels


@dataclass(frozen=True)
class Export:
    """A model file that passed the gate."""

    generator: Generator
    """Opened from the file, whose bytes are the same for the same checkpoint and library versions."""
    parity: ParityReport
    debug_graph: ModelProto
    """The graph with its float pixels as a second output."""


def export(checkpoint: Checkpoint, opset: int = 20, name: str | None = None) -> Export:
    """Makes the model file of a checkpoint, in fp32.

    Args:
        name: the name on the card; the preset and the data set if omitted.

    Raises:
        InputError: a name that is empty, too long, or cannot be printed.
        ExportError: an opset that cannot be had.
        ParityError, ModelFileError: the file would not compute what the module computes, or break its contract.
    """
    if opset not in graph_checks.OPSETS:
        raise ExportError(
            f"opset {opset} cannot be had; choose one from {graph_checks.OPSETS[0]} to {graph_checks.OPSETS[-1]}"
        )
    if name is None:
        name = f"{(checkpoint.training.config or {}).get('preset')}-{checkpoint.dataset.name}"
    if not (name.isprintable() and 0 < len(name.strip()) <= MAX_NAME):
        raise InputError("name", f"must have 1 to {MAX_NAME} printable characters, got {name!r:.80}")
    generator = checkpoint.build()
    debug_graph, again = _trace(generator, opset), _trace(generator, opset)
    found = [entry.version for entry in debug_graph.opset_import]
    if found != [opset]:
        raise ExportError(f"asked for opset {opset}, got {found}")
    return _check(generator, debug_graph, again, _card(checkpoint, name))


def export_variant(checkpoint: Checkpoint, original: Export, precision: Precision) -> Export:
    """As `export`, in another precision.

    Args:
        original: the checkpoint's fp32 file, which is converted, and whose name and hash the card will have.
    """
    whole = original.generator.card
    card = replace(_card(checkpoint, whole.name), precision=precision, converted_from=whole.file_sha256)
    debug_graph, again = (convert(original.debug_graph, card, precision) for _ in range(2))
    return _check(checkpoint.build(), debug_graph, again, card)


def with_quality(made: Export, quality: dict[str, Any]) -> Export:
    """The same with metrics of merit in its card."""
    card = replace(made.generator.card, quality=quality)
    return replace(made, generator=Generator.from_bytes(_serialize_with_card(_without_pixels(made.debug_graph), card)))


def graph_sizes(generator: Network) -> GraphMemory:
    """Number of elements that the exported graph of a generator makes."""
    return measure_memory(_without_pixels(_trace(generator, opset=20)))


def _check(generator: Network, debug_graph: ModelProto, again: ModelProto, card: Card) -> Export:
    """Puts a graph through the gate, against the module that it is to compute and its own second making."""
    for made in (debug_graph, again):
        # The lowest version that has the opset: a runtime refuses a file of a later version than it knows, even if it
        # knows every operator in it. PyTorch and onnxruntime's quantisation write whichever version is theirs.
        made.ir_version = onnx.helper.find_min_ir_version_for(list(made.opset_import))
    model = _without_pixels(debug_graph)
    checks = graph_checks.check(model, card)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker refuses it: {error}") from error

    metrics = [
        ParityMetric("bytes of a second export that differ", _differing(_serialize(debug_graph), _serialize(again)), 0)
    ]
    for metric in measure_parity(generator, _serialize(debug_graph), card.precision):
        metrics.append(metric)
        if not metric.passes:
            break
    parity = ParityReport((*checks, "onnx.checker"), tuple(metrics))
    parity.check()

    latents, labels = draw_latents(GOLDEN_SEED, 0, GOLDEN_IMAGES, card.latent_dim, card.class_weights)
    golden = run(
        open_session(_serialize(model)), make_feeds(latents, labels), measure_memory(model).rows(GOLDEN_IMAGES)
    )
    card = replace(card, parity=parity.report(), golden=replace(card.golden, pixels=pack_golden(golden["image"])))
    return Export(Generator.from_bytes(_serialize_with_card(model, card)), parity, debug_graph)


def _without_pixels(debug_graph: ModelProto) -> ModelProto:
    """What was measured is what ships: the same graph, less the output that only the measurement needs."""
    model = ModelProto()
    model.CopyFrom(debug_graph)
    del model.graph.output[1:]
    return model


def _differing(one: bytes, other: bytes) -> float:
    return abs(len(one) - len(other)) + sum(a != b for a, b in zip(one, other, strict=False)) if one != other else 0


def _trace(generator: Network, opset: int) -> ModelProto:
    config = generator.config
    examples = {"latent": torch.zeros(2, config.latent_dim)}  # 2: a batch of 1 would be taken for a constant
    if config.classes:
        examples["label"] = torch.zeros(2, dtype=torch.int64)
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            _Quantized(generator).eval(),
            kwargs=examples,
            dynamic_shapes={name: {0: "batch"} for name in examples},
            input_names=list(examples),
            output_names=["image", "pixels"],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    model = program.model
    ClearMetadataAndDocStringPass()(model)  # stack traces with the paths of this machine
    return onnx_ir.to_proto(model)


def _serialize(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _serialize_with_card(model: ModelProto, card: Card) -> bytes:
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=replace(card, file_sha256=EMPTY_CHECKSUM).to_json())
    return write_checksum(_serialize(model))


def _card(checkpoint: Checkpoint, name: str) -> Card:
    """All fields of an fp32 file's card except those that are still to be measured."""
    config, training, dataset = checkpoint.generator, checkpoint.training, checkpoint.dataset
    network = GENERATORS[config.architecture]
    return Card(
        name=name,
        latent_dim=config.latent_dim,
        latents_version=LATENTS_VERSION,
        image_shape=config.image_shape,
        conditional=bool(config.classes),
        precision="fp32",
        converted_from=None,
        origin=Origin(f"{network.__module__}:{network.__qualname__}", None, checkpoint.sha256),
        dataset=dataset,
        training=training,
        config_sha256=hashlib.sha256(json.dumps(training.config, sort_keys=True).encode()).hexdigest(),
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        parity={},
        quality=None,
        golden=Golden(GOLDEN_SEED, GOLDEN_IMAGES, ""),
    )
