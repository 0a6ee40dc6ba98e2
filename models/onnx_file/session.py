"""onnxruntime sessions: how they are opened, what they are fed, and how many rows they compute at a time."""

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.common.array_types import Labels, Latents
from models.common.errors import ModelFileError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
"""Names of onnxruntime's execution providers."""
PROVIDER_OPTIONS = {CUDA: {"use_tf32": 0}}
"""Options of the providers. TF32 has a mantissa of 10 bits, which is too inexact for the parity check."""

MAX_ROWS_PER_RUN = 256
"""Maximum number of rows that a session computes at a time: enough for full speed, few enough for the CPU's cache."""


def open_session(file: bytes, provider: str = CPU) -> ort.InferenceSession:
    """Opens a session on the bytes of an ONNX file, for which onnxruntime loads no external data.

    A call of the session uses one thread. Parallel work comes from several threads that call the same session: threads
    within a call would spin while they wait for each other, which slows down the other calls.

    Args:
        file: content of the ONNX file.
        provider: `CPU`, `CUDA`, or another execution provider of onnxruntime.

    Raises:
        ModelFileError: onnxruntime rejects the file, or cannot use the provider.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if provider == CUDA:
        ort.preload_dlls()  # finds the libraries in the packages nvidia-*, which are not on the library path
    try:
        session = ort.InferenceSession(
            file, options, [provider], [PROVIDER_OPTIONS.get(provider, {})], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's exceptions have no common base class except Exception
        raise ModelFileError(f"onnxruntime rejects the file: {error}") from error
    if session.get_providers()[0] != provider:  # onnxruntime falls back to the CPU without an error
        raise ModelFileError(f"onnxruntime cannot use {provider} and fell back to {session.get_providers()[0]}")
    return session


def make_feeds(latents: Latents, labels: Labels) -> dict[str, NDArray]:
    """Returns the inputs of the graph by name: `latent`, and `label` unless `labels` is None."""
    return {"latent": latents} if labels is None else {"latent": latents, "label": labels}


def split(feeds: dict[str, NDArray], rows: int) -> Iterator[dict[str, NDArray]]:
    """Splits inputs into chunks of `rows` rows. The last chunk may have fewer."""
    for start in range(0, len(feeds["latent"]), rows):
        yield {name: values[start : start + rows] for name, values in feeds.items()}


def run(session: ort.InferenceSession, feeds: dict[str, NDArray], rows: int = MAX_ROWS_PER_RUN) -> dict[str, NDArray]:
    """Computes all outputs of a session, `rows` rows at a time.

    Args:
        session: the opened graph.
        feeds: all inputs by name, see `make_feeds`.
        rows: maximum number of rows of one call of the session, which bounds its memory.

    Returns:
        The outputs by name, each with as many rows as the inputs.
    """
    chunks = [session.run(None, chunk) for chunk in split(feeds, rows)]
    outputs = (values[0] if len(chunks) == 1 else np.concatenate(values) for values in zip(*chunks, strict=True))
    return {output.name: values for output, values in zip(session.get_outputs(), outputs, strict=True)}
