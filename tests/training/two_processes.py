"""Code that each process of `test_two_processes` runs. It writes its results into a folder, under its rank."""

import itertools
import os
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from tests.conftest import small_config
from tests.training.combinations import PAIRWISE, tiny_config
from training import data, loop, setup
from training.config import Config
from training.data import DataUnavailableError, Loaded, LoadOptions
from training.state import State


def run_all(folder: Path, rank: int) -> None:
    """Takes part in all runs of the tests as process `rank` of two."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    # Each run initializes a process group of its own, which needs a file of its own.
    numbers, original = itertools.count(), dist.init_process_group

    def init_from_file(backend: str, **options):
        original(backend, init_method=f"file://{folder}/store-{next(numbers)}", rank=rank, world_size=2, **options)

    dist.init_process_group = init_from_file
    if rank == 1:  # a decision that all processes share must not depend on the clock of each process
        clock = time.perf_counter
        time.perf_counter = lambda: 10 * clock()

    for number, (combination, stop) in enumerate(PAIRWISE):
        weights = _weights_after(tiny_config(folder / f"case-{number}", combination, **stop))
        torch.save(weights, folder / f"case-{number}-rank-{rank}.pt")
    for name, fails in (("works", False), ("fails", True)):
        loader = partial(_slow_download, folder / f"{name}.log", fails)
        config = small_config(folder / f"download-{name}", dataset="mnist", data_dir=folder / f"data-{name}", images=64)
        with patch.dict(data.LOADERS, mnist=loader):
            try:
                loop.train(config)
            except DataUnavailableError as error:
                (folder / f"{name}-rank-{rank}.txt").write_text(str(error))
    threads = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]  # empty if not on Linux
    (folder / f"threads-rank-{rank}.txt").write_text("".join(threads))


def _weights_after(config: Config) -> dict[str, torch.Tensor]:
    """Trains, and returns this process's weights of both networks and the EMA, and the images seen."""
    states: list[State] = []

    class RecordedState(State):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            states.append(self)

    with patch.object(setup, "State", RecordedState):
        loop.train(config)
    (state,) = states
    networks = {"generator": state.generator, "discriminator": state.discriminator, "ema": state.ema}
    return {
        f"{part}.{name}": weight.detach().clone()
        for part, network in networks.items()
        if network is not None
        for name, weight in network.named_parameters()
    } | {"images_seen": torch.tensor(state.images_seen)}


def _slow_download(log: Path, fails: bool, request: LoadOptions) -> Loaded:
    """Replaces the loader of a data set that is downloaded if it is not in the folder yet."""
    folder = request.data_dir
    if not (folder / "downloaded").exists():
        with log.open("a") as stream:
            stream.write(f"rank {os.environ['RANK']}\n")
        time.sleep(0.5)
        if fails:
            raise DataUnavailableError("there is no network")
        folder.mkdir()
        (folder / "downloaded").touch()
    return data.LOADERS["uci-digits"](request)
