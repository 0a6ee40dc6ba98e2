"""Data-parallel training: each process takes its slice of one global batch, and gradients are averaged.

    torchrun --nproc-per-node 2 -m training.train --preset r3gan --out runs/a

This uses plain `torch.distributed`, because the hooks of DistributedDataParallel support neither gradients of gradients
nor two networks that are updated in turn.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

# Before a process group exists: functions of this module have the current group as a default argument, and optimizers
# import it. A group that is never deleted keeps threads, which can abort the process when Python ends.
import torch.distributed.nn
from torch import Tensor

from models.common.errors import MnistGanError

TIMEOUT = timedelta(minutes=30)
"""Timeout of a collective operation. It has to cover a download of the data set by one process of each machine."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Group:
    """The processes that train one run together, seen from one of them. The default is a single process.

    All methods except `slice` are collective operations: every process of the group has to call them.
    """

    rank: int = 0
    """Index of this process in the group, from 0."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Index of this process among those on the same machine, from 0."""
    device: str = "cpu"
    """Device on which scalars are exchanged: "cuda" with NCCL, "cpu" with Gloo."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes the files and the terminal output of the run."""
        return self.rank == 0

    def slice(self, batch: Tensor) -> Tensor:
        """Returns this process's share of a global batch: rows `rank * n / size` to `(rank + 1) * n / size`.

        Args:
            batch: (n, ...), the same in every process. `size` divides n.
        """
        return batch.chunk(self.size)[self.rank]

    def all_reduce_mean(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its mean over the group, in place, with a single all-reduce.

        Args:
            tensors: tensors of one dtype, with the same shapes in every process.
        """
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def all_reduce_max(self, value: float) -> float:
        """Returns the largest of the values that the processes pass."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return shared.item()

    def broadcast(self, value: float) -> float:
        """Returns the value that the main process passes."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return shared.item()

    @contextmanager
    def raise_in_all_processes(self) -> Iterator[None]:
        """Re-raises a MnistGanError or OSError of one process in every process, at the end of the context.

        Without it, the other processes would wait for the failed one until a network error ends them.
        """
        failure: MnistGanError | OSError | None = None
        try:
            yield
        except (MnistGanError, OSError) as error:
            failure = error
        failures = [failure]
        if self.size > 1:
            failures *= self.size
            dist.all_gather_object(failures, failure)
        if first := failure or next(filter(None, failures), None):
            raise first

    def local_main_process_first(self, load: Callable[[], _Result]) -> _Result:
        """Calls `load` in one process of each machine, then in its other processes, and returns the result of each.

        So one process of a machine downloads and extracts a data set, and the others find its files. An error in one
        process is raised in all of them.
        """
        for first in (True, False):
            with self.raise_in_all_processes():
                if (self.local_rank == 0) == first:
                    result = load()
        return result


@contextmanager
def process_group(device: str) -> Iterator[Group]:
    """Joins the process group that torchrun started. Without torchrun, yields a group of this process alone.

    Args:
        device: "cuda" uses NCCL and selects the GPU with the index LOCAL_RANK; "cpu" uses Gloo.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Group(device=device)
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)), device)
    finally:
        dist.destroy_process_group()
