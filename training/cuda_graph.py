"""The whole step as one CUDA graph: launched at once, where hundreds of small kernels would each wait for the CPU."""

import torch

from training.step import Batch, Step

EAGER_STEPS = 3
"""Before the graph is captured: cuDNN chooses its kernels, and the optimizers make their state."""


def with_cuda_graph(step: Step) -> "Step | CudaGraphStep":
    """The step as the hardware runs it fastest: captured on a GPU, unless told not to or in a group."""
    possible = step.config.device == "cuda" and step.config.cuda_graph and step.group.size == 1
    return CudaGraphStep(step) if possible else step


class CudaGraphStep:
    """A step that is captured once, then replayed on the batches copied into its inputs.

    The first steps run eagerly, on a stream of their own as capture demands, and so does every step until `ready`:
    what a graph has baked in must not change any more.
    """

    def __init__(self, step: Step):
        self.step = step
        self.eager_steps = 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Batch = {}

    @property
    def ready(self) -> bool:
        """Adam's betas are numbers in the graph, so their burn-in has to be over."""
        config = self.step.config
        settled = config.beta2_start is None or self.step.state.images_seen >= config.burn_in
        return settled and self.eager_steps >= EAGER_STEPS

    def __call__(self, batch: Batch) -> None:
        if self.graph is None and self.ready:
            self._capture(batch)
        if self.graph is None:
            self._run_eagerly(batch)
        else:
            for name, tensor in batch.items():
                self.inputs[name].copy_(tensor)
            self.graph.replay()

    def _run_eagerly(self, batch: Batch) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        self.eager_steps += 1

    def _capture(self, batch: Batch) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in batch.items()}
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.inputs)
