"""Training loops to be timed, the tutorials' and this project's, and the arithmetic that a training step needs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from models.networks import FlopCounter, NetworkConfig, build_discriminator, build_generator
from training.batches import Batches
from training.config import Config
from training.cuda_graph import with_cuda_graph
from training.data import LabelledImages
from training.distributed import Group
from training.state import State
from training.step import Step
from training.widths import resolve_widths

Loop = Callable[[int], float]
"""A function that trains on a number of batches, waits for the device, and returns the duration in seconds."""

CALIBRATION_BATCHES = 10
"""Batches of the untimed warm-up; more than the eager steps that precede the capture of the CUDA graph."""


class PillowImages(Dataset):
    """Grey images in the form of `torchvision.datasets.MNIST`: a transformed Pillow image and its label."""

    def __init__(self, data: LabelledImages, transform: Callable[[Image.Image], Tensor]):
        self.images, self.labels = data.images[:, 0].cpu(), data.labels.cpu()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), int(self.labels[index])


def tutorial_loop(config: Config, data: LabelledImages) -> Loop:
    """Returns the loop of common tutorials: DataLoader, ToTensor, Normalize, BCEWithLogitsLoss and Adam with their
    default options, in fp32.
    """
    device = torch.device(config.device)
    shape = data.info.image_shape
    generator_widths, discriminator_widths = resolve_widths(config, shape)
    generator = build_generator(NetworkConfig("mlp", shape, generator_widths, 0, config.latent_dim)).to(device)
    discriminator = build_discriminator(NetworkConfig("mlp", shape, discriminator_widths)).to(device)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    loader = DataLoader(PillowImages(data, transform), config.batch_size, shuffle=True, drop_last=True)
    criterion = nn.BCEWithLogitsLoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=config.lr, foreach=False)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=config.lr, foreach=False)

    def run(batches: int) -> float:
        started = time.perf_counter()
        done = 0
        while done < batches:
            for real, _ in loader:
                real = real.to(device)
                ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
                fake = generator(torch.randn(len(real), config.latent_dim, device=device))

                optimizer_d.zero_grad()
                loss_d = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
                loss_d.backward()
                optimizer_d.step()

                optimizer_g.zero_grad()
                loss_g = criterion(discriminator(fake), ones)
                loss_g.backward()
                optimizer_g.step()
                done += 1
                if done == batches:
                    break
        loss_d.item(), loss_g.item()  # reading them waits for the device
        return time.perf_counter() - started

    return run


def package_loop(config: Config, data: LabelledImages) -> Loop:
    """Returns the loop of `train` without checkpoints, samples and logs. `data` must be on the device of the config."""
    state = State(config, data.info)
    step, batches_at = Step(state, config), Batches(data, config, Group())
    advance = with_cuda_graph(step)

    def run(batches: int) -> float:
        started = time.perf_counter()
        for _ in range(batches):
            step.schedule(total_images=10**9)
            advance(batches_at.at(state.images_seen))
            state.images_seen += config.batch_size
        state.metrics()  # reading them waits for the device
        return time.perf_counter() - started

    return run


def alternate(loops: dict[str, Loop], batch_size: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Times loops in alternating rounds.

    Args:
        loops: the loops by name.
        batch_size: images of one batch.
        seconds: approximate duration of each round of each loop.
        rounds: number of rounds.

    Returns:
        the images/s of each round, by the name of the loop.
    """
    batches = {}
    for name, run in loops.items():
        run(CALIBRATION_BATCHES)
        batches[name] = max(1, round(CALIBRATION_BATCHES * seconds / run(CALIBRATION_BATCHES)))
    measured: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, run in loops.items():
            measured[name].append(batches[name] * batch_size / run(batches[name]))
    return measured


def medians(measured: dict[str, list[float]]) -> dict[str, float]:
    """Returns the median of each loop's rounds."""
    return {name: statistics.median(values) for name, values in measured.items()}


def step_flops(config: Config, data: LabelledImages) -> int:
    """Counts the floating-point operations of the matrix products and convolutions of one training step."""
    config = replace(config, cuda_graph=False)
    step, batches = Step(State(config, data.info), config), Batches(data, config, Group())
    step(batches.at(0))
    with FlopCounter() as counter:
        step(batches.at(0))
    return counter.flops


def matrix_flops(n: int, dtype: torch.dtype, device: str) -> float:
    """Measures floating-point operations per second: the fastest of ten products of random n x n matrices."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / best_seconds(lambda: a @ b, device, 10)


def best_seconds(action: Callable[[], object], device: str, times: int) -> float:
    """Returns the shortest duration of an action, including the device's work, after one untimed call."""

    def timed() -> float:
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed()
    return min(timed() for _ in range(times))
