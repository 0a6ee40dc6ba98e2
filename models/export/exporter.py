"""Exports the generator of a checkpoint to the bytes of a model file.

The steps: trace the PyTorch module to an ONNX graph, check the graph's structure, check its parity with the module,
render the golden images, and write the card with the checksum into the file's metadata.
"""

import hashlib
import importlib.metadata
import io
import json
import math
import platform
import warnings
from contextlib import redirect_stderr
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
from models.common.version import git_commit, version
from models.export.parity import ParityMetric, ParityReport, measure_parity
from models.export.variants import convert, logging_disabled
from models.networks import GENERATORS, Network, is_own
from models.networks.own import OwnGenerator, describe
from models.networks.own_checks import check_generator
from models.networks.pixels import quantize
from models.onnx_file import graph_checks
from models.onnx_file.card import METADATA_KEY, Build, Card, Golden, Origin, Precision
from models.onnx_file.generator import Generator
from models.onnx_file.golden import pack_golden
from models.onnx_file.graph_memory import GraphMemory, measure_memory
from models.onnx_file.latent_sources import check_truncation
from models.onnx_file.latents import LATENTS_VERSION, draw_latents
from models.onnx_file.session import MAX_ROWS_PER_RUN, make_feeds, open_session, run

LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime")
"""Libraries whose versions the card lists."""
MAX_NAME = 100
"""Maximum number of characters of a generator's name, which appears in logs, metrics and pages."""
GOLDEN_SEED = 0
GOLDEN_IMAGES = 16
"""Maximum number of golden images on the card."""
GOLDEN_BYTES = 2**18
"""Maximum number of bytes of all golden images together, unless a single one has more: 16 images of 64 x 64 pixels in
colour, or one of 256 x 256."""


class ExportError(MnistGanError):
    """The checkpoint cannot be exported as requested."""


@dataclass(frozen=True)
class Export:
    """A model file that passed all checks. Nothing is written to disk yet."""

    generator: Generator
    """The generator, opened from the bytes of the file (`generator.file`). The bytes are the same for the same
    checkpoint and library versions."""
    parity: ParityReport
    """The checks that the file passed, as its card contains them."""
    debug_graph: ModelProto
    """The graph of the file with the float pixels, before quantization, as a second output `pixels`."""


def export(checkpoint: Checkpoint, opset: int = 20, name: str | None = None, truncation: float = 1.0) -> Export:
    """Makes the fp32 model file of a checkpoint, with the EMA weights if there are any.

    Args:
        checkpoint: its generator is exported.
        opset: version of the ONNX standard operators, 16 to 26.
        name: name on the card, 1 to 100 printable characters. None: preset and data set, such as "fast-mnist".
        truncation: factor by which the graph multiplies latents, above 0 and at most 1.

    Raises:
        InputError: the name is empty, too long, or not printable, or the truncation is out of range.
        ExportError: the opset is not supported, PyTorch exported another one or cannot export the network, or
            onnx.checker rejects the graph.
        NetworkError: the network is that of a user, and breaks a rule.
        ParityError: the graph differs from the PyTorch module by more than a bound, or from a second export.
        ModelFileError: the graph breaks a rule of the model file.
    """
    if opset not in graph_checks.OPSETS:
        raise ExportError(
            f"opset {opset} is not supported: choose one from {graph_checks.OPSETS[0]} to {graph_checks.OPSETS[-1]}"
        )
    if name is None:
        name = f"{(checkpoint.training.config or {}).get('preset')}-{checkpoint.dataset.name}"
    if not (name.isprintable() and 0 < len(name.strip()) <= MAX_NAME):
        raise InputError("name", f"must have 1 to {MAX_NAME} printable characters, got {name!r:.80}")
    check_truncation(truncation)
    generator = checkpoint.build()
    if isinstance(generator, OwnGenerator):
        check_generator(generator)
    generator = _truncate(generator, truncation)
    debug_graph, second_graph = _trace(generator, opset), _trace(generator, opset)
    actual_opsets = [entry.version for entry in debug_graph.opset_import]
    if actual_opsets != [opset]:
        raise ExportError(f"PyTorch exported opset {actual_opsets} instead of the requested {opset}: choose another")
    return _check_and_pack(generator, debug_graph, second_graph, _make_card(checkpoint, name, truncation))


def export_variant(checkpoint: Checkpoint, original: Export, precision: Precision) -> Export:
    """Makes the model file of a checkpoint in fp16 or int8.

    Args:
        checkpoint: the checkpoint of `original`.
        original: its fp32 export, which is converted. The card takes over its name and its truncation, and
            `converted_from` is its hash.
        precision: "fp16" or "int8".

    Raises:
        ExportError: onnx.checker rejects the graph.
        ParityError: the graph differs from the PyTorch module by more than a bound of this precision, or from a second
            conversion.
        ModelFileError: the graph breaks a rule of the model file.
    """
    fp32 = original.generator.card
    card = replace(
        _make_card(checkpoint, fp32.name, fp32.truncation), precision=precision, converted_from=fp32.file_sha256
    )
    debug_graph, second_graph = (convert(original.debug_graph, card, precision) for _ in range(2))
    return _check_and_pack(_truncate(checkpoint.build(), fp32.truncation), debug_graph, second_graph, card)


def with_fields(exported: Export, **fields: Any) -> Export:
    """Copies an export and changes fields of its card, which changes `file_sha256`.

    Args:
        exported: an export; it is not changed.
        fields: values by name of the field, such as `quality` (see `training.export_quality.card_quality`).
    """
    card = replace(exported.generator.card, **fields)
    file = _serialize_with_card(_without_pixels(exported.debug_graph), card)
    return replace(exported, generator=Generator.from_bytes(file))


def graph_sizes(generator: Network) -> GraphMemory:
    """Traces a generator at opset 20, checks its operators and measures the memory of its graph in elements.

    Raises:
        GraphError: the graph has an operator that is not allowed, too many operators, or a tensor that is too large.
            `GraphMemory.rows` checks the totals.
        ExportError: PyTorch cannot export the network.
    """
    model = _without_pixels(_trace(generator, opset=20))
    graph_checks.check_operators(model)
    return measure_memory(model)


def _check_and_pack(generator: Network, debug_graph: ModelProto, second_graph: ModelProto, card: Card) -> Export:
    """Checks a graph and makes the model file.

    Args:
        generator: the PyTorch module that the graph has to match.
        debug_graph: the graph, with the outputs `image` and `pixels`.
        second_graph: the result of a second export, which has to be identical.
        card: complete except for the fields that are measured here: `parity` and `golden.pixels`.
    """
    for graph in (debug_graph, second_graph):
        # The lowest IR version that supports the opset, so that older runtimes open the file: they reject a newer
        # version even if they know every operator. PyTorch and onnxruntime each write a version of their own.
        graph.ir_version = onnx.helper.find_min_ir_version_for(list(graph.opset_import))
    model = _without_pixels(debug_graph)
    graph_checks.check(model, card)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker rejects the graph: {error}") from error

    differing = _count_differing_bytes(_serialize(debug_graph), _serialize(second_graph))
    metrics = [ParityMetric("bytes that differ in a second export", differing, 0)]
    rows = measure_memory(model).rows(MAX_ROWS_PER_RUN)
    for metric in measure_parity(generator, _serialize(debug_graph), card.precision, rows):
        metrics.append(metric)
        if not metric.passes:
            break
    parity = ParityReport((*graph_checks.NAMES, "onnx.checker"), tuple(metrics))
    parity.check()

    latents, labels = draw_latents(GOLDEN_SEED, 0, card.golden.n, card.latent_dim, card.class_weights)
    golden = run(open_session(_serialize(model)), make_feeds(latents, labels), rows)
    card = replace(card, parity=parity.to_dict(), golden=replace(card.golden, pixels=pack_golden(golden["image"])))
    return Export(Generator.from_bytes(_serialize_with_card(model, card)), parity, debug_graph)


def _truncate(generator: Network, truncation: float) -> Network:
    """Returns a generator in evaluation mode that multiplies latents by a factor."""
    return generator if truncation == 1 else _Truncated(generator, truncation).eval()


class _Truncated(Network):
    """Wraps a generator to multiply latents by a factor."""

    def __init__(self, generator: Network, truncation: float):
        super().__init__(generator.config, embedding_dim=0)
        self.generator = generator
        self.truncation = truncation

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.generator(latent * self.truncation, label)


class _WithQuantization(nn.Module):
    """Wraps a generator to return its uint8 image and the float pixels that the image is quantized from."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = self.generator(latent, label)
        return quantize(pixels), pixels


def _trace(generator: Network, opset: int) -> ModelProto:
    """Converts a generator, in evaluation mode, to a graph with the outputs `image` and `pixels`.

    Raises:
        ExportError: PyTorch cannot export a network of a user.
    """
    config = generator.config
    examples = {"latent": torch.zeros(2, config.latent_dim)}  # PyTorch would treat a batch of 1 as a constant
    if config.classes:
        examples["label"] = torch.zeros(2, dtype=torch.int64)
    try:
        # If it fails, PyTorch prints its intermediate graph, too.
        with warnings.catch_warnings(action="ignore"), logging_disabled(), redirect_stderr(io.StringIO()):
            program = torch.onnx.export(
                _WithQuantization(generator).eval(),
                kwargs=examples,
                dynamic_shapes={name: {0: "batch"} for name in examples},
                input_names=list(examples),
                output_names=["image", "pixels"],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:
        if not is_own(config.architecture):
            raise
        raise ExportError(
            f"PyTorch cannot export {config.architecture} to ONNX: {describe(error.__cause__ or error)}; "
            "see docs/own-network.md"
        ) from error
    assert program is not None
    model = program.model
    ClearMetadataAndDocStringPass()(model)  # removes stack traces, which contain paths of this machine
    return onnx_ir.to_proto(model)


def _without_pixels(debug_graph: ModelProto) -> ModelProto:
    """Copies a graph without the output `pixels`. The nodes stay the same, so the parity check applies to the copy."""
    model = ModelProto()
    model.CopyFrom(debug_graph)
    del model.graph.output[1:]
    return model


def _count_differing_bytes(a: bytes, b: bytes) -> float:
    return abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False)) if a != b else 0


def _serialize(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _serialize_with_card(model: ModelProto, card: Card) -> bytes:
    # Reading the card turns integers in fields of floats into floats, so that the card of an opened file gives the same
    # bytes as the card that the file was written with.
    card = Card.from_json(replace(card, file_sha256=EMPTY_CHECKSUM).to_json())
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    return write_checksum(_serialize(model))


def _make_card(checkpoint: Checkpoint, name: str, truncation: float) -> Card:
    """Makes the card of an fp32 file, without the fields that are measured later."""
    config, training, dataset = checkpoint.generator, checkpoint.training, checkpoint.dataset
    network = GENERATORS.get(config.architecture)
    return Card(
        name=name,
        latent_dim=config.latent_dim,
        latents_version=LATENTS_VERSION,
        image_shape=config.image_shape,
        conditional=bool(config.classes),
        precision="fp32",
        converted_from=None,
        origin=Origin(
            f"{network.__module__}:{network.__qualname__}" if network else config.architecture,
            source_sha256=config.source_sha256,
            checkpoint_sha256=None if checkpoint.sha256 == EMPTY_CHECKSUM else checkpoint.sha256,
        ),
        dataset=dataset,
        training=training,
        config_sha256=None if training.config is None else _sha256_of_json(training.config),
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        parity={},
        quality=None,
        golden=Golden(GOLDEN_SEED, golden_images(config.image_shape), ""),
        build=Build(version(), git_commit(), platform.python_version(), f"{platform.system()} {platform.machine()}"),
        truncation=truncation,
    )


def golden_images(image_shape: tuple[int, int, int]) -> int:
    """Returns the number of golden images of a generator, which is less where images are large."""
    return max(1, min(GOLDEN_IMAGES, GOLDEN_BYTES // math.prod(image_shape)))


def _sha256_of_json(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
