"""Training on several devices: each process takes its slice of one global batch, and gradients are averaged.

    torchrun --nproc-per-node 2 -m training.train --preset r3gan --out runs/a

Plain `torch.distributed` rather than DistributedDataParallel, whose hooks know neither gradients of gradients nor two
networks that take turns.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from models.common.errors import MnistGanError

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others. The first process of a node may have to download a data set meanwhile."""

_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class Group:
    """The processes that train together, and which of them this is. One alone is a group as well."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among the processes on the same machine."""

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def slice(self, batch: Tensor) -> Tensor:
        """This process's share of a global batch, whose size the group divides."""
        return batch.chunk(self.size)[self.rank]

    def all_reduce_mean(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors of one dtype by their means over the group, in one message."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def all_reduce_max(self, value: float, device: str) -> float:
        """The largest of the group's values, the same in each process."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return shared.item()

    def broadcast(self, value: float, device: str) -> float:
        """Returns the value of rank 0, in each process."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(shared, src=0)
        return shared.item()

    @contextmanager
    def raise_in_all_processes(self) -> Iterator[None]:
        """Raises an error of the input or of a file that occurs inside in one process in all of them.

        Without it, the others would wait for the process that has ended, and then fail with an error of the network.
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

    def load(self, load: Callable[[], _Loaded]) -> _Loaded:
        """Calls `load` in the first process of each machine, and afterwards in the others.

        So only one process of a machine downloads and extracts a data set. The others find its files.
        """
        for first in (True, False):
            with self.raise_in_all_processes():
                if (self.local_rank == 0) == first:
                    loaded = load()
        return loaded


@contextmanager
def group(device: str) -> Iterator[Group]:
    """The group that torchrun started, or one process alone."""
    if "WORLD_SIZE" not in os.environ:
        yield Group()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        dist.destroy_process_group()
