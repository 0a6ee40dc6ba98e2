"""Replays the training step as one CUDA graph.

A step consists of hundreds of small kernels. A graph launches all of them in one call, so the GPU does not wait for the
CPU between kernels.
"""

import torch

from training.batches import Batch
from training.step import Step

EAGER_STEPS = 3
"""Number of steps that run eagerly before the capture. During them cuDNN selects its kernels and Adam allocates its
state."""


def with_cuda_graph(step: Step) -> "Step | CudaGraphStep":
    """Returns the step as a CUDA graph on a single GPU with `--cuda-graph`; otherwise returns it unchanged."""
    possible = step.config.device == "cuda" and step.config.cuda_graph and step.group.size == 1
    return CudaGraphStep(step) if possible else step


class CudaGraphStep:
    """Captures a training step in a CUDA graph, then copies each batch into the graph's inputs and replays it.

    The first steps run eagerly, on a side stream as capturing requires. A graph stores the numbers that a step uses as
    constants, so the step is captured only after the last of them has its final value.
    """

    def __init__(self, step: Step):
        self.step = step
        self.eager_steps = 0
        """Number of steps that ran eagerly."""
        self.stream = torch.cuda.Stream()
        """Side stream of the eager steps."""
        self.graph: torch.cuda.CUDAGraph | None = None
        """The captured step; None before the capture."""
        self.inputs: Batch | None = None
        """Tensors that the graph reads; None before the capture."""

    @property
    def ready(self) -> bool:
        """True if the step can be captured: enough steps ran eagerly, and Adam's betas no longer change."""
        config = self.step.config
        constant_betas = config.beta2_start is None or self.step.state.images_seen >= config.burn_in
        return constant_betas and self.eager_steps >= EAGER_STEPS

    def __call__(self, batch: Batch) -> None:
        """Runs one training step. All batches must have tensors of the same shapes and dtypes."""
        if self.graph is None and self.ready:
            self._capture(batch)
        if self.graph is None or self.inputs is None:
            self._run_eagerly(batch)
            return
        for graph_input, tensor in zip(self.inputs.tensors(), batch.tensors(), strict=True):
            graph_input.copy_(tensor)
        self.graph.replay()

    def _run_eagerly(self, batch: Batch) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        self.eager_steps += 1

    def _capture(self, batch: Batch) -> None:
        """Records the operations of a step. Capturing does not execute them, so the state does not change."""
        self.inputs = batch.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.inputs)
