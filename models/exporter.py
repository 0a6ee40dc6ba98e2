"""From a checkpoint to the bytes of its model file: traced, held against PyTorch, given its card and sealed."""

import hashlib
import importlib.metadata
import json
import warnings

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from models import card as cards
from models import latents as addresses
from models import parity
from models.architectures import Network
from models.artifact import Generator, make_feeds, open_session, pack_golden, run
from models.card import Card, Golden
from models.checkpoint import Checkpoint
from models.parity import Parity

OPSETS = range(16, 27)
"""From the oldest that PyTorch's exporter makes of every architecture to the newest that onnxruntime opens."""
GOLDEN_SEED = 0
GOLDEN_IMAGES = 16


class ExportError(ValueError):
    """PyTorch's exporter made something other than what was asked for."""


class _Quantized(nn.Module):
    """The generator with its uint8 image, and the float pixels that it was quantised from."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = self.generator(latent, label)
        return parity.quantize(pixels), pixels


def export(checkpoint: Checkpoint, opset: int = 20) -> tuple[bytes, Parity]:
    """Makes the model file of a checkpoint.

    Returns:
        The file's bytes, the same for the same checkpoint and library versions, and its parity figures.

    Raises:
        ExportError, CardError: an opset that cannot be had, or the file would break its contract.
        ParityError: it does not compute what the module computes.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} cannot be had; choose one from {OPSETS[0]} to {OPSETS[-1]}")
    generator = checkpoint.build()
    model = _trace(generator, opset)
    figures = parity.measure(generator, open_session(_serialize(model)))
    figures.check()

    # What was measured is what ships: the same graph, less the output that only the measurement needs.
    model.graph.outputs.pop()
    file = _serialize(model)
    onnx.checker.check_model(file, full_check=True)
    model.metadata_props[cards.METADATA_KEY] = _card(checkpoint, figures, file).to_json()
    file = cards.seal(_serialize(model))
    Generator.from_bytes(file)
    return file, figures


def _trace(generator: Network, opset: int) -> onnx_ir.Model:
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
    if model.opset_imports != {"": opset}:
        raise ExportError(f"asked for opset {opset} of the standard domain, got {dict(model.opset_imports)}")
    ClearMetadataAndDocStringPass()(model)  # stack traces with the paths of this machine
    return model


def _serialize(model: onnx_ir.Model) -> bytes:
    return onnx_ir.to_proto(model).SerializeToString(deterministic=True)


def _card(checkpoint: Checkpoint, figures: Parity, file: bytes) -> Card:
    config, training, dataset = checkpoint.generator, checkpoint.training, checkpoint.dataset
    conditional = bool(config.classes)
    latents, labels = addresses.draw(
        GOLDEN_SEED, 0, GOLDEN_IMAGES, config.latent_dim, dataset.class_counts if conditional else ()
    )
    golden = run(open_session(file), make_feeds(latents, labels))
    return Card(
        name=f"{training.config['preset']}-{dataset.name}",
        latent_dim=config.latent_dim,
        latents_version=addresses.VERSION,
        image_shape=config.image_shape,
        conditional=conditional,
        dataset=dataset,
        training=training,
        config_sha256=hashlib.sha256(json.dumps(training.config, sort_keys=True).encode()).hexdigest(),
        checkpoint_sha256=checkpoint.sha256,
        versions={name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")},
        parity=figures.report(),
        quality={},
        golden=Golden(GOLDEN_SEED, GOLDEN_IMAGES, pack_golden(golden["image"])),
    )
