"""Counts the arithmetic of PyTorch networks: floating-point operations, and multiply-adds for each image."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Context manager that counts the floating-point operations of all matrix products and convolutions inside it.

        with FlopCounter() as counter:
            step(batch)
        counter.flops

    A multiplication and an addition count as two operations, by the formulas of PyTorch's `FlopCounterMode`. That class
    itself fails on double backward (gradient penalties), because it registers hooks on modules.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **keywords or {})
        if count := flop_registry.get(function._overloadpacket):
            self.flops += count(*arguments, **keywords or {}, out_val=result)
        return result


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Number of multiply-adds that the matrix products and convolutions of one forward pass take for each image.

    Args:
        network: runs in evaluation mode, as a copy: neither its mode nor its batch norm statistics change.
        inputs: the arguments of `network`, each with the batch as its first dimension, of any size.
    """
    network = copy.deepcopy(network).eval()
    with torch.no_grad(), FlopCounter() as counter:
        network(*inputs)
    return counter.flops // (2 * len(inputs[0]))
